/* spawn: clone(CLONE_VM | CLONE_VFORK) and the child between clone and exec; reaping.
 *
 * The child borrows this process's memory while the calling thread sleeps, as in posix_spawn: no
 * page table is copied, so a start costs the same however large the worker is, and the child
 * reports a failed step by writing it into memory that both see. It may therefore only make system
 * calls: no allocation, no locks, no stdio. Thread: see the header. */
#include "os/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/close_range.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHILD_STACK_BYTES ((size_t) 64 * 1024)
#define OOM_SCORE_ADJ "500"

/* The sanitizers' bookkeeping of stack frames must not be run on the borrowed stack: exec never
 * returns to undo it. */
#define CHILD_CODE                                                                                 \
    __attribute__((noinline, no_sanitize("address"), no_sanitize("undefined"),                     \
                   no_sanitize("thread")))

static const char *const step_names[] = {
    [SPAWN_STEP_NONE] = "none",
    [SPAWN_STEP_PREPARE] = "prepare",
    [SPAWN_STEP_CLONE] = "clone",
    [SPAWN_STEP_SESSION] = "setsid",
    [SPAWN_STEP_STDIO] = "standard input and output",
    [SPAWN_STEP_CLOSE_FDS] = "close descriptors",
    [SPAWN_STEP_CWD] = "change directory",
    [SPAWN_STEP_RLIMIT] = "set limits",
    [SPAWN_STEP_PRIVILEGES] = "drop privileges",
    [SPAWN_STEP_PARENT_GONE] = "parent ended",
    [SPAWN_STEP_SIGNALS] = "reset signals",
    [SPAWN_STEP_EXEC] = "execute",
};

const char *spawn_step_to_string(enum spawn_step step) {
    ASSERT((size_t) step < ARRAY_LEN(step_names));
    return step_names[step];
}

struct child {
    const struct spawn_request *req;
    const char *path; /* PATH of req->env, NULL when it has none */
    int null_fd;      /* both above 2 */
    int out_fd;
    pid_t parent;
    /* written by the child */
    volatile int error; /* errno */
    volatile enum spawn_step step;
};

/* --- in the child --------------------------------------------------------------------------- */

static CHILD_CODE int child_stdio(const struct child *c) {
    if (dup2(c->null_fd, STDIN_FILENO) < 0 || dup2(c->out_fd, STDOUT_FILENO) < 0 ||
        dup2(c->out_fd, STDERR_FILENO) < 0)
        return -1;
    return 0;
}

static CHILD_CODE int child_limit(int resource, uint64_t value) {
    struct rlimit old;
    struct rlimit new;

    new.rlim_cur = value;
    new.rlim_max = value;
    if (setrlimit((__rlimit_resource_t) resource, &new) == 0)
        return 0;
    /* Above the hard limit without the privilege to raise it: the nearest that is possible. */
    if (errno != EPERM || getrlimit((__rlimit_resource_t) resource, &old) < 0)
        return -1;
    new.rlim_cur = old.rlim_max;
    new.rlim_max = old.rlim_max;
    return setrlimit((__rlimit_resource_t) resource, &new);
}

static CHILD_CODE int child_limits(const struct spawn_request *req) {
    if (child_limit(RLIMIT_CORE, 0) < 0 || child_limit(RLIMIT_NOFILE, SPAWN_NOFILE_DEFAULT) < 0)
        return -1;
    for (size_t i = 0; i < req->limits_count; i++) {
        if (child_limit(req->limits[i].resource, req->limits[i].value) < 0)
            return -1;
    }
    return 0;
}

/* Best effort: a container may forbid it, and the job runs as well without. */
static CHILD_CODE void child_oom_score(void) {
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

    if (fd < 0)
        return;
    (void) !write(fd, OOM_SCORE_ADJ, sizeof(OOM_SCORE_ADJ) - 1);
    (void) close(fd);
}

/* What rt_sigaction(2) takes. The order differs between machines; here all is 0, the default. */
struct kernel_sigaction {
    void (*handler)(int);
    unsigned long flags;
    void (*restorer)(void);
    uint64_t mask;
};

static CHILD_CODE int child_signals(void) {
    struct kernel_sigaction dfl;
    sigset_t none;

    dfl.handler = SIG_DFL;
    dfl.flags = 0;
    dfl.restorer = NULL;
    dfl.mask = 0;
    /* Around the C library, which refuses 32 and 33 as its own: whoever started this process may
     * have left them ignored, as some test runners do, and that survives exec. */
    for (int sig = 1; sig < NSIG; sig++) {
        /* The kernel refuses KILL and STOP; they are at their default. */
        if (sig != SIGKILL && sig != SIGSTOP)
            (void) syscall(SYS_rt_sigaction, sig, &dfl, NULL, sizeof(dfl.mask));
    }
    (void) sigemptyset(&none);
    return sigprocmask(SIG_SETMASK, &none, NULL);
}

/* execvp over the request's own PATH; relative entries are skipped: what a name means must not
 * depend on the working directory. */
static CHILD_CODE void child_exec(const struct child *c) {
    char *const *argv = (char *const *) (uintptr_t) c->req->argv;
    char *const *env = (char *const *) (uintptr_t) c->req->env;
    const char *name = argv[0], *p = c->path;
    size_t name_len = strlen(name);
    char file[PATH_MAX];
    int error = ENOENT;

    if (strchr(name, '/')) {
        (void) execve(name, argv, env);
        return;
    }
    while (p && *p) {
        size_t len = strcspn(p, ":");

        if (name_len > 0 && p[0] == '/' && len + 1 + name_len < sizeof(file)) {
            memcpy(file, p, len);
            file[len] = '/';
            memcpy(file + len + 1, name, name_len + 1);
            (void) execve(file, argv, env);
            if (errno != ENOENT && errno != ENOTDIR && errno != EACCES)
                return;
            if (errno == EACCES)
                error = EACCES;
        }
        p += len;
        p += *p == ':';
    }
    errno = error;
}

static CHILD_CODE enum spawn_step child_steps(const struct child *c) {
    if (setsid() < 0)
        return SPAWN_STEP_SESSION;
    if (child_stdio(c) < 0)
        return SPAWN_STEP_STDIO;
    if (close_range(3, ~0U, 0) < 0)
        return SPAWN_STEP_CLOSE_FDS;
    (void) umask(077);
    child_oom_score();
    if (c->req->cwd && chdir(c->req->cwd) < 0)
        return SPAWN_STEP_CWD;
    if (child_limits(c->req) < 0)
        return SPAWN_STEP_RLIMIT;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1UL, 0UL, 0UL, 0UL) < 0 ||
        prctl(PR_SET_PDEATHSIG, (unsigned long) SIGKILL) < 0)
        return SPAWN_STEP_PRIVILEGES;
    errno = ESRCH;
    if (getppid() != c->parent) /* it died before PDEATHSIG was set */
        return SPAWN_STEP_PARENT_GONE;
    if (child_signals() < 0)
        return SPAWN_STEP_SIGNALS;
    child_exec(c);
    return SPAWN_STEP_EXEC;
}

static CHILD_CODE int child_main(void *arg) {
    struct child *c = (struct child *) arg;
    enum spawn_step failed = child_steps(c); /* returns only on failure */

    c->error = errno;
    c->step = failed;
    _exit(127);
}

/* --- in the parent -------------------------------------------------------------------------- */

static const char *find_path(const char *const *env) {
    for (; *env; env++) {
        if (strncmp(*env, "PATH=", 5) == 0)
            return *env + 5;
    }
    return NULL;
}

static void close_fdp(int *fd) {
    if (*fd >= 0)
        (void) close(*fd);
}

/* The child replaces 0, 1 and 2: its sources must not be among them. */
static int move_above_stdio(int *fd) {
    int moved;

    if (*fd > STDERR_FILENO)
        return 0;
    moved = fcntl(*fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    if (moved < 0)
        return -errno;
    (void) close(*fd);
    *fd = moved;
    return 0;
}

static int run_child(struct child *c, pid_t *ret_pid, enum spawn_step *ret_step) {
    sigset_t all, old;
    char *stack;
    pid_t pid;
    int error;

    *ret_step = SPAWN_STEP_PREPARE;
    stack = mmap(NULL, CHILD_STACK_BYTES, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    if (stack == MAP_FAILED)
        return -errno;
    /* No handler of ours may run in the child, on memory that is the worker's. */
    (void) sigfillset(&all);
    (void) pthread_sigmask(SIG_SETMASK, &all, &old);
    *ret_step = SPAWN_STEP_CLONE;
    pid = clone(child_main, stack + CHILD_STACK_BYTES, CLONE_VM | CLONE_VFORK | SIGCHLD, c);
    error = pid < 0 ? errno : c->error;
    (void) pthread_sigmask(SIG_SETMASK, &old, NULL);
    (void) munmap(stack, CHILD_STACK_BYTES);
    if (pid < 0)
        return -error;
    if (c->step != SPAWN_STEP_NONE) {
        /* It never became the program: reap it here, it is nobody's attempt. */
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
            ;
        *ret_step = c->step;
        return error > 0 ? -error : -EIO;
    }
    *ret_pid = pid;
    return 0;
}

int spawn_start(const struct spawn_request *req, struct spawn_result *ret,
                enum spawn_step *ret_step) {
    _cleanup_(close_fdp) int null_fd = -1;
    _cleanup_(close_fdp) int read_fd = -1;
    _cleanup_(close_fdp) int write_fd = -1;
    struct child c = {.req = req, .step = SPAWN_STEP_NONE};
    int fds[2], r;

    ASSERT(req && ret && ret_step);
    ASSERT(req->argv && req->argv[0] && req->env);
    ASSERT(req->limits_count <= SPAWN_LIMITS_MAX);
    *ret_step = SPAWN_STEP_PREPARE;
    if (pipe2(fds, O_CLOEXEC) < 0)
        return -errno;
    read_fd = fds[0];
    write_fd = fds[1];
    /* Only our end: a job that finds its stdout non-blocking would lose output. */
    if (fcntl(read_fd, F_SETFL, O_NONBLOCK) < 0)
        return -errno;
    null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (null_fd < 0)
        return -errno;
    r = move_above_stdio(&null_fd);
    if (r == 0)
        r = move_above_stdio(&write_fd);
    if (r < 0)
        return r;
    c.path = find_path(req->env);
    c.null_fd = null_fd;
    c.out_fd = write_fd;
    c.parent = getpid();
    r = run_child(&c, &ret->pid, ret_step);
    if (r < 0)
        return r;
    *ret_step = SPAWN_STEP_NONE;
    ret->output_fd = read_fd;
    read_fd = -1; /* moved: the cleanup must not close it */
    return 0;
}

int spawn_init_reaper(void) {
    return prctl(PR_SET_CHILD_SUBREAPER, 1UL, 0UL, 0UL, 0UL) < 0 ? -errno : 0;
}

static uint64_t timeval_us(struct timeval t) {
    return (uint64_t) t.tv_sec * 1000000 + (uint64_t) t.tv_usec;
}

size_t spawn_reap(void (*on_exit)(void *arg, const struct spawn_exit *e), void *arg) {
    size_t n = 0;

    ASSERT(on_exit);
    for (;;) {
        struct spawn_exit e = {.exit_code = -1};
        struct rusage ru = {0};
        int status = 0;
        pid_t pid = wait4(-1, &status, WNOHANG, &ru);

        if (pid < 0 && errno == EINTR)
            continue;
        if (pid <= 0)
            return n;
        e.pid = pid;
        if (WIFEXITED(status))
            e.exit_code = WEXITSTATUS(status);
        if (WIFSIGNALED(status)) {
            e.term_signal = WTERMSIG(status);
            e.core_dumped = WCOREDUMP(status);
        }
        e.cpu_us = timeval_us(ru.ru_utime) + timeval_us(ru.ru_stime);
        e.rss_peak_bytes = (uint64_t) ru.ru_maxrss * 1024;
        on_exit(arg, &e);
        n++;
    }
}
