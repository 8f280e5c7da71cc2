/* One attempt's life on this worker: its process tree, its output, its end.
 *
 * What it is: a state table around a process tree that os/spawn starts and kills.
 * What it is not: it keeps no report and no journal; the owner does, in on_ended.
 *
 *                 spawned            stop               grace over
 *     STARTING ------------> RUNNING ------> TERMINATING ------------> KILLING
 *        |                     |   SIGTERM to   |      SIGKILL to the   ^  |
 *        |                     |   the tree     |      tree             |  |
 *        | could not start,    | main exited: leftovers get SIGKILL     |  |
 *        | or stop             +----------------+-----------------------+  |
 *        |                     kill (from either)                          |
 *        v                                      | tree gone      tree gone |
 *      ENDED <----------------------------------+--------------------------+
 *
 * TERMINATING lasts until the whole tree is gone or the grace is over: children may still be
 * putting things away when the main process has left.
 * Invariants: a process may exist only in RUNNING, TERMINATING and KILLING; ENDED is entered once,
 * and on_ended is called from there.
 * Thread: the loop. */
#pragma once

#include "base/log.h"
#include "os/spawn.h"
#include "worker/launch.h"
#include "worker/output.h"

#include <uv.h>

enum attempt_state {
    ATTEMPT_STARTING,
    ATTEMPT_RUNNING,
    ATTEMPT_TERMINATING,
    ATTEMPT_KILLING,
    ATTEMPT_ENDED,
};
#define ATTEMPT_STATES 5

enum attempt_event {
    ATTEMPT_SPAWNED,
    ATTEMPT_SPAWN_FAILED,
    ATTEMPT_STOP, /* cancelled, timed out, released, or the lease runs out */
    ATTEMPT_KILL, /* at once, without grace */
    ATTEMPT_GRACE_OVER,
    ATTEMPT_MAIN_EXITED,
    ATTEMPT_TREE_GONE, /* main has exited and nothing of its tree is left */
};
#define ATTEMPT_EVENTS 7

/* The table. The next state, or -1 when the event cannot happen in that state. */
int attempt_next(enum attempt_state state, enum attempt_event event);
const char *attempt_state_to_string(enum attempt_state state);

/* Why an attempt is being ended before its process ends by itself. A later, larger one replaces an
 * earlier one as long as the main process lives. */
enum attempt_cause {
    ATTEMPT_CAUSE_NONE,
    ATTEMPT_CAUSE_TIMEOUT,   /* FAILED, reason TIMEOUT */
    ATTEMPT_CAUSE_RELEASED,  /* the worker stops: RELEASED */
    ATTEMPT_CAUSE_CANCELLED, /* CANCELLED */
    ATTEMPT_CAUSE_DISCARDED  /* no longer this worker's: nothing is reported */
};

struct attempt;

/* What all attempts of a worker share. Borrowed by each of them for its life. */
struct attempt_env {
    uv_loop_t *loop;
    const struct logger *log;
    /* Whether a child of this process is the main process of some attempt. */
    bool (*is_known)(void *arg, pid_t pid);
    int output_dir_fd;
    void (*on_output)(void *arg, struct attempt *a);
    /* The attempt is ENDED: report it, then attempt_free. */
    void (*on_ended)(void *arg, struct attempt *a);
    void *arg;
};

/* STARTING. Takes @l. 0 or -ENOMEM (then @l stays the caller's). */
int attempt_new(const struct attempt_env *env, const struct ref *ref, struct launch *l,
                struct attempt **ret) _must_check_;
/* Kills nothing: allowed in STARTING and ENDED, and elsewhere only when the worker goes away and
 * leaves its orphans to the next one. NULL allowed; returns NULL. */
struct attempt *attempt_free(struct attempt *a);

/* Start the process. on_ended follows later, never from inside this function, unless it fails: then
 * the attempt is ENDED at its return, without a call. 0; 1 = failed to start. */
#define ATTEMPT_E_START 1
int attempt_start(struct attempt *a) _must_check_;
/* SIGTERM, and SIGKILL after the grace (at most @grace_ms_max; UINT64_MAX: the job's own). In
 * STARTING it ends the attempt at once, inside the call. */
void attempt_stop(struct attempt *a, enum attempt_cause cause, uint64_t grace_ms_max);
/* SIGKILL to the tree now: no SIGTERM, no grace. @cause is CANCELLED or DISCARDED. */
void attempt_kill(struct attempt *a, enum attempt_cause cause);
/* The main process has been reaped. May end the attempt inside the call. */
void attempt_exited(struct attempt *a, const struct spawn_exit *e);

const struct ref *attempt_ref(const struct attempt *a);
enum attempt_state attempt_state(const struct attempt *a);
enum attempt_cause attempt_cause(const struct attempt *a);
struct output *attempt_output(struct attempt *a);
/* The private directory is to be removed. */
bool attempt_has_directory(const struct attempt *a);
pid_t attempt_pid(const struct attempt *a); /* 0 before the start */
uint64_t
attempt_start_time(const struct attempt *a); /* of the process, in clock ticks since boot */

/* Fill outcome, reason, message, exit code and times. ENDED, not DISCARDED. Strings are borrowed
 * from @a. */
void attempt_report(const struct attempt *a, Chronos__V1__AttemptReport *ret);
