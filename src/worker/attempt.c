#include "worker/attempt.h"

#include "os/clock.h"
#include "os/procstat.h"
#include "worker/survivors.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define READ_BYTES 65536
/* What a dead tree may have left in its pipe: the largest pipe a privileged job can make is bounded
 * only by the kernel, so the reading is. */
#define DRAIN_READS_MAX 256
#define POLL_MS_MIN 2
#define POLL_MS_MAX 100

struct attempt {
    const struct attempt_env *env; /* borrowed */
    struct ref ref;
    enum attempt_state state;
    enum attempt_cause cause;
    struct launch *launch; /* owned */
    struct output output;
    pid_t pid;
    uint64_t start_time;
    bool exited; /* the main process has been reaped, and `end` says how */
    struct spawn_exit end;
    bool own_directory;
    bool start_failed;
    char message[256];
    struct wall started, finished;
    uint64_t started_ns;   /* uv_hrtime */
    uint64_t grace_end_ns; /* uv_hrtime; TERMINATING */
    uint64_t poll_ms;      /* how long until the tree is looked at again */
    int output_fd;         /* owned; -1 when there is none */
    uv_poll_t poll;
    bool poll_open;
    uv_timer_t timer; /* RUNNING: run timeout; TERMINATING: grace, or a look; KILLING: a look */
    unsigned handles_open;
    bool freed;
};

/* --- the table --- */

#define S(state) ((int8_t) ATTEMPT_##state)
#define NO ((int8_t) -1)
static const int8_t table[ATTEMPT_STATES][ATTEMPT_EVENTS] = {
    /*                 SPAWNED     SPAWN_FAILED STOP            KILL        GRACE_OVER MAIN_EXITED
       TREE_GONE */
    [ATTEMPT_STARTING] = {S(RUNNING), S(ENDED), S(ENDED), S(ENDED), NO, NO, NO},
    [ATTEMPT_RUNNING] = {NO, NO, S(TERMINATING), S(KILLING), NO, S(KILLING), NO},
    [ATTEMPT_TERMINATING] = {NO, NO, S(TERMINATING), S(KILLING), S(KILLING), S(TERMINATING),
                             S(ENDED)},
    [ATTEMPT_KILLING] = {NO, NO, S(KILLING), S(KILLING), NO, S(KILLING), S(ENDED)},
    [ATTEMPT_ENDED] = {NO, NO, S(ENDED), S(ENDED), NO, NO, NO},
};

static const char *const state_names[ATTEMPT_STATES] = {
    [ATTEMPT_STARTING] = "starting",
    [ATTEMPT_RUNNING] = "running",
    [ATTEMPT_TERMINATING] = "terminating",
    [ATTEMPT_KILLING] = "killing",
    [ATTEMPT_ENDED] = "ended",
};

int attempt_next(enum attempt_state state, enum attempt_event event) {
    ASSERT((size_t) state < ATTEMPT_STATES);
    ASSERT((size_t) event < ATTEMPT_EVENTS);
    return table[state][event];
}

const char *attempt_state_to_string(enum attempt_state state) {
    ASSERT((size_t) state < ATTEMPT_STATES);
    return state_names[state];
}

/* The one place where the state changes. */
static void move(struct attempt *a, enum attempt_event event) {
    int to = attempt_next(a->state, event);

    ASSERT(to >= 0);
    if ((enum attempt_state) to == a->state)
        return;
    log_debug(a->env->log, "attempt", "job=%s attempt=%" PRIu32 " from=%s to=%s", a->ref.job_id,
              a->ref.attempt, state_names[a->state], state_names[to]);
    a->state = (enum attempt_state) to;
}

/* --- output --- */

static void close_pipe(struct attempt *a);

/* One piece. False when nothing more is there now, or ever. */
static bool read_some(struct attempt *a) {
    uint8_t buf[READ_BYTES];
    ssize_t n = read(a->output_fd, buf, sizeof(buf));
    int r;

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    if (n <= 0) {
        close_pipe(a);
        return false;
    }
    r = output_append(&a->output, buf, (size_t) n);
    if (r < 0)
        log_warn(a->env->log, "cannot keep output", "job=%s error=\"%s\"", a->ref.job_id,
                 err_name(r));
    return true;
}

static void on_closed(uv_handle_t *h) {
    struct attempt *a = (struct attempt *) h->data;

    ASSERT(a->handles_open > 0);
    a->handles_open--;
    if (a->handles_open == 0 && a->freed)
        free(a);
}

static void close_pipe(struct attempt *a) {
    if (a->poll_open)
        uv_close((uv_handle_t *) &a->poll, on_closed);
    a->poll_open = false;
    if (a->output_fd >= 0)
        (void) close(a->output_fd);
    a->output_fd = -1;
}

/* One piece a turn: a job that prints gigabytes gets no more of the loop than a quiet one. */
static void on_readable(uv_poll_t *p, int status, int events) {
    struct attempt *a = (struct attempt *) p->data;

    (void) status; /* an error shows in read(2) too */
    (void) events;
    (void) read_some(a);
    a->env->on_output(a->env->arg, a);
}

static void drain_pipe(struct attempt *a) {
    for (int i = 0; i < DRAIN_READS_MAX && a->output_fd >= 0; i++)
        if (!read_some(a))
            break;
    close_pipe(a);
}

/* --- the tree --- */

static struct spawn_tree tree_of(const struct attempt *a) {
    return (struct spawn_tree){.root = a->pid, .marker = a->launch->mark};
}

static void signal_tree(struct attempt *a, int sig) {
    struct spawn_tree t = tree_of(a);
    int r = spawn_tree_kill(&t, sig);

    if (r < 0)
        log_warn(a->env->log, "cannot look through the processes", "job=%s error=\"%s\"",
                 a->ref.job_id, err_name(r));
    /* A stopped process gets its SIGTERM only when it goes on. */
    if (sig == SIGTERM && !a->exited)
        (void) kill(-a->pid, SIGCONT);
}

static bool tree_gone(struct attempt *a) {
    struct spawn_tree t = tree_of(a);
    uint64_t age_ms = (uv_hrtime() - a->started_ns) / NS_PER_MS;
    int r;

    if (!a->exited)
        return false;
    r = survivors_check(&t, age_ms, a->env->is_known, a->env->arg);
    if (r < 0)
        log_warn(a->env->log, "cannot look through the processes", "job=%s error=\"%s\"",
                 a->ref.job_id, err_name(r));
    return r == 0;
}

static void on_timer(uv_timer_t *t);

static void arm(struct attempt *a, uint64_t ms) {
    (void) uv_timer_start(&a->timer, on_timer, ms, 0);
}

/* Look again soon, less and less often: only a main process's end is announced. */
static void arm_look(struct attempt *a) {
    a->poll_ms = MIN(a->poll_ms * 2, (uint64_t) POLL_MS_MAX);
    arm(a, a->poll_ms);
}

static void end(struct attempt *a) {
    ASSERT(a->state == ATTEMPT_ENDED);
    (void) uv_timer_stop(&a->timer);
    drain_pipe(a);
    a->finished = clock_wall();
    a->env->on_ended(a->env->arg, a);
}

/* TERMINATING or KILLING: is it over, and if not, when to look again? */
static void look(struct attempt *a) {
    uint64_t now = uv_hrtime();

    if (tree_gone(a)) {
        move(a, ATTEMPT_TREE_GONE);
        end(a);
        return;
    }
    if (a->state == ATTEMPT_TERMINATING && now >= a->grace_end_ns)
        move(a, ATTEMPT_GRACE_OVER);
    if (a->state == ATTEMPT_KILLING) {
        signal_tree(a, SIGKILL);
        arm_look(a);
    } else if (a->exited) {
        arm_look(a);
    } else {
        arm(a, (a->grace_end_ns - now) / NS_PER_MS + 1);
    }
}

static void on_timer(uv_timer_t *t) {
    struct attempt *a = (struct attempt *) t->data;

    if (a->state == ATTEMPT_RUNNING)
        attempt_stop(a, ATTEMPT_CAUSE_TIMEOUT, UINT64_MAX);
    else
        look(a);
}

void attempt_exited(struct attempt *a, const struct spawn_exit *e) {
    ASSERT(e->pid == a->pid);
    ASSERT(!a->exited);
    a->exited = true;
    a->end = *e;
    move(a, ATTEMPT_MAIN_EXITED);
    a->poll_ms = POLL_MS_MIN;
    look(a);
}

/* --- life --- */

int attempt_new(const struct attempt_env *env, const struct ref *ref, struct launch *l,
                struct attempt **ret) {
    struct attempt *a = calloc(1, sizeof(*a));

    if (!a)
        return -ENOMEM;
    a->env = env;
    a->ref = *ref;
    a->launch = l;
    a->output_fd = -1;
    a->poll_ms = POLL_MS_MIN;
    a->started = clock_wall();
    output_init(&a->output, env->output_dir_fd, ref, l->output_limit_bytes);
    (void) uv_timer_init(env->loop, &a->timer);
    a->timer.data = a;
    a->handles_open = 1;
    *ret = a;
    return 0;
}

struct attempt *attempt_free(struct attempt *a) {
    if (!a)
        return NULL;
    a->freed = true;
    close_pipe(a);
    output_done(&a->output);
    a->launch = launch_free(a->launch);
    uv_close((uv_handle_t *) &a->timer, on_closed);
    return NULL;
}

static int fail_start(struct attempt *a, const char *step, int error) {
    (void) snprintf(a->message, sizeof(a->message), "could not start %.64s in %.120s: %s: %s",
                    a->launch->argv[0], a->launch->cwd, step, err_name(error));
    a->start_failed = true;
    a->finished = clock_wall();
    move(a, ATTEMPT_SPAWN_FAILED);
    return ATTEMPT_E_START;
}

int attempt_start(struct attempt *a) {
    struct launch *l = a->launch;
    struct spawn_request req = {
        .argv = (const char *const *) l->argv, .env = (const char *const *) l->envp, .cwd = l->cwd};
    struct spawn_result res;
    struct procstat_ids ids;
    enum spawn_step step;
    int r;

    ASSERT(a->state == ATTEMPT_STARTING);
    a->own_directory = l->own_cwd;
    if (l->own_cwd && mkdir(l->cwd, 0700) < 0 && errno != EEXIST)
        return fail_start(a, "make its directory", -errno);
    a->started = clock_wall();
    a->started_ns = uv_hrtime();
    launch_set_start(l, a->started);
    r = spawn_start(&req, &res, &step);
    if (r < 0)
        return fail_start(a, spawn_step_to_string(step), r);
    a->pid = res.pid;
    a->output_fd = res.output_fd;
    a->start_time = procstat_read_ids(a->pid, &ids) == 0 ? ids.start_ticks : 0;
    r = uv_poll_init(a->env->loop, &a->poll, a->output_fd);
    ASSERT(r == 0); /* a fresh pipe can be polled */
    a->handles_open++;
    a->poll_open = true;
    a->poll.data = a;
    (void) uv_poll_start(&a->poll, UV_READABLE, on_readable);
    move(a, ATTEMPT_SPAWNED);
    if (l->run_timeout_ms != LAUNCH_NO_TIMEOUT)
        arm(a, l->run_timeout_ms);
    return 0;
}

void attempt_stop(struct attempt *a, enum attempt_cause cause, uint64_t grace_ms_max) {
    enum attempt_state before = a->state;
    uint64_t grace_end =
        uv_hrtime() +
        MIN(MIN(a->launch->kill_grace_ms, grace_ms_max), UINT64_MAX / 4 / NS_PER_MS) * NS_PER_MS;

    /* A main process that ended by itself has its result already; only its owner can lose it. */
    if (before == ATTEMPT_ENDED || (a->exited && cause != ATTEMPT_CAUSE_DISCARDED))
        return;
    a->cause = MAX(a->cause, cause);
    move(a, ATTEMPT_STOP);
    if (a->state == ATTEMPT_ENDED) {
        end(a);
        return;
    }
    if (before == ATTEMPT_RUNNING) {
        a->grace_end_ns = grace_end;
        signal_tree(a, SIGTERM);
    } else {
        a->grace_end_ns = MIN(a->grace_end_ns, grace_end);
    }
    if (a->state == ATTEMPT_TERMINATING)
        arm(a, (a->grace_end_ns - MIN(uv_hrtime(), a->grace_end_ns)) / NS_PER_MS + 1);
}

void attempt_kill(struct attempt *a, enum attempt_cause cause) {
    ASSERT(cause == ATTEMPT_CAUSE_CANCELLED || cause == ATTEMPT_CAUSE_DISCARDED);
    if (a->state == ATTEMPT_ENDED)
        return;
    /* As in attempt_stop: the result stands, but what the main process left behind dies. */
    if (!a->exited || cause == ATTEMPT_CAUSE_DISCARDED)
        a->cause = MAX(a->cause, cause);
    move(a, ATTEMPT_KILL);
    if (a->state == ATTEMPT_ENDED) {
        end(a);
        return;
    }
    signal_tree(a, SIGKILL);
    a->poll_ms = POLL_MS_MIN;
    arm_look(a);
}

/* --- questions --- */

const struct ref *attempt_ref(const struct attempt *a) {
    return &a->ref;
}

enum attempt_state attempt_state(const struct attempt *a) {
    return a->state;
}

enum attempt_cause attempt_cause(const struct attempt *a) {
    return a->cause;
}

struct output *attempt_output(struct attempt *a) {
    return &a->output;
}

bool attempt_has_directory(const struct attempt *a) {
    return a->own_directory;
}

pid_t attempt_pid(const struct attempt *a) {
    return a->pid;
}

uint64_t attempt_start_time(const struct attempt *a) {
    return a->start_time;
}

static void report_exit(const struct attempt *a, Chronos__V1__AttemptReport *ret) {
    bool well = a->end.term_signal == 0 && a->end.exit_code == 0;

    ret->outcome = well ? CHRONOS__V1__ATTEMPT_OUTCOME__ATTEMPT_OUTCOME_COMPLETED
                        : CHRONOS__V1__ATTEMPT_OUTCOME__ATTEMPT_OUTCOME_FAILED;
    if (a->end.term_signal != 0)
        ret->reason = CHRONOS__V1__FAILURE_REASON__FAILURE_REASON_SIGNAL;
    else if (!well)
        ret->reason = CHRONOS__V1__FAILURE_REASON__FAILURE_REASON_EXIT_CODE;
}

static void report_cause(const struct attempt *a, Chronos__V1__AttemptReport *ret) {
    switch (a->cause) {
    case ATTEMPT_CAUSE_NONE:
        report_exit(a, ret);
        break;
    case ATTEMPT_CAUSE_TIMEOUT:
        ret->outcome = CHRONOS__V1__ATTEMPT_OUTCOME__ATTEMPT_OUTCOME_FAILED;
        ret->reason = CHRONOS__V1__FAILURE_REASON__FAILURE_REASON_TIMEOUT;
        ret->message = (char *) (uintptr_t) "ran longer than its run_timeout"; /* only read */
        break;
    case ATTEMPT_CAUSE_RELEASED:
        ret->outcome = CHRONOS__V1__ATTEMPT_OUTCOME__ATTEMPT_OUTCOME_RELEASED;
        ret->message = (char *) (uintptr_t) "the worker is stopping";
        break;
    case ATTEMPT_CAUSE_CANCELLED:
        ret->outcome = CHRONOS__V1__ATTEMPT_OUTCOME__ATTEMPT_OUTCOME_CANCELLED;
        break;
    case ATTEMPT_CAUSE_DISCARDED:
        ASSERT(false);
    }
}

void attempt_report(const struct attempt *a, Chronos__V1__AttemptReport *ret) {
    ASSERT(a->state == ATTEMPT_ENDED);
    ASSERT(a->cause != ATTEMPT_CAUSE_DISCARDED);
    if (a->start_failed) {
        ret->outcome = CHRONOS__V1__ATTEMPT_OUTCOME__ATTEMPT_OUTCOME_FAILED;
        ret->reason = CHRONOS__V1__FAILURE_REASON__FAILURE_REASON_START;
        ret->message = (char *) (uintptr_t) a->message; /* only read */
    } else {
        report_cause(a, ret);
        ret->exit_code = MAX(a->end.exit_code, 0);
        ret->term_signal = a->end.term_signal;
    }
    ret->started = a->pid != 0;
    ret->started_at_ms = a->started.ms;
    ret->finished_at_ms = a->finished.ms;
}
