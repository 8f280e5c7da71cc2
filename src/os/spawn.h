/* Starting, reaping and killing the processes of attempts. Used by the worker only: a server
 * process never starts a job (design.md D4).
 *
 * A started process has: its own session, stdin from /dev/null, stdout and stderr in one pipe, no
 * other descriptor, exactly the given environment, default signal dispositions, umask 077, no way
 * to gain privileges, death with its parent, core dumps off, and it is a likelier victim of the
 * out-of-memory killer than the worker.
 * Thread: one thread for everything here, and it must live as long as the processes (PDEATHSIG is
 * bound to the thread). */
#pragma once

#include "base/err.h"

#include <sys/resource.h>
#include <sys/types.h>

/* The steps of a start, to say where it failed. */
enum spawn_step {
    SPAWN_STEP_NONE,
    SPAWN_STEP_PREPARE, /* pipe, stack, /dev/null: in this process */
    SPAWN_STEP_CLONE,
    SPAWN_STEP_SESSION,
    SPAWN_STEP_STDIO,
    SPAWN_STEP_CLOSE_FDS,
    SPAWN_STEP_CWD,
    SPAWN_STEP_RLIMIT,
    SPAWN_STEP_PRIVILEGES,
    SPAWN_STEP_PARENT_GONE,
    SPAWN_STEP_SIGNALS,
    SPAWN_STEP_EXEC,
};
const char *spawn_step_to_string(enum spawn_step step);

struct spawn_limit {
    int resource; /* RLIMIT_* */
    uint64_t value;
};

#define SPAWN_LIMITS_MAX 16U
#define SPAWN_NOFILE_DEFAULT 1024U

struct spawn_request {
    const char *const *argv; /* NULL-terminated, at least one */
    const char *const *env;  /* NULL-terminated; the whole environment. A program name without '/'
                              * is searched in the PATH found here, and nowhere else */
    const char *cwd;         /* NULL: this process's own */
    const struct spawn_limit *limits; /* soft and hard; override the defaults CORE 0, NOFILE 1024 */
    size_t limits_count;              /* at most SPAWN_LIMITS_MAX */
};

struct spawn_result {
    pid_t pid;     /* also its process group and session */
    int output_fd; /* read end, non-blocking, close-on-exec; owned by the caller */
};

/* Start a process. Everything in @req is borrowed for the call, which takes well under a
 * millisecond and returns after the program has been executed.
 *
 * @ret       on 0
 * @ret_step  on failure, which step (never NULL)
 *
 * Returns 0 or the -errno of the failed step: -ENOENT at SPAWN_STEP_EXEC is "no such program". */
int spawn_start(const struct spawn_request *req, struct spawn_result *ret,
                enum spawn_step *ret_step) _must_check_;

/* Once at start: orphans of attempts are re-parented to this process instead of to init, so that
 * they can be found and reaped. 0 or -errno (fatal: descendants could escape). */
int spawn_init_reaper(void) _must_check_;

struct spawn_exit {
    pid_t pid;
    int exit_code;   /* 0..255, -1 when killed by a signal */
    int term_signal; /* 0 when it exited */
    bool core_dumped;
    uint64_t cpu_us; /* its own and its waited-for children's */
    uint64_t rss_peak_bytes;
};

/* Wait for every ended child, without blocking; call it when SIGCHLD arrives. @on_exit gets also
 * orphans that this process inherited. Returns how many. */
size_t spawn_reap(void (*on_exit)(void *arg, const struct spawn_exit *e), void *arg);

/* One attempt's processes, as the functions below look for them. */
struct spawn_tree {
    pid_t root;         /* pid that spawn_start() returned */
    const char *marker; /* borrowed; an environment entry that only this attempt has, as
                         * "CHRONOS_ATTEMPT_KEY=..." */
};

/* Send @sig to every process of the tree: group, session, descendants, and descendants of orphans
 * that carry the marker. With SIGKILL it looks again until nobody is left that has not been told.
 * A process that left the session, lost its parent AND cleared its environment is not found; that
 * needs a cgroup or a PID namespace.
 * To be called while the root is not yet reaped, or in the same loop turn in which it was: later
 * its number may name a stranger. Returns the number of processes signalled in the (first) round;
 * -errno when /proc cannot be read (the group has been signalled all the same). */
int spawn_tree_kill(const struct spawn_tree *t, int sig) _must_check_;

/* Is anything of the tree left, its root having been reaped? Cheap when nothing is: one kill(2) and
 * one small file; /proc is scanned only when an unexpected child of this process is seen.
 *
 * @is_known tells whether a child of this process is the root of another attempt (or something else
 *           that the owner started); may not be NULL
 *
 * Returns 1 alive, 0 not, -errno. */
int spawn_tree_alive(const struct spawn_tree *t, bool (*is_known)(void *arg, pid_t pid),
                     void *arg) _must_check_;
