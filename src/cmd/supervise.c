#include "cmd/supervise.h"

#include "base/defs.h"
#include "base/err.h"
#include "os/sibling.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#define BACKOFF_MIN_MS 200
#define BACKOFF_MAX_MS 5000
#define STOP_POLL_MS 20

/* IDLE --start--> RUNNING --exit--> IDLE (backoff)
 * FOREIGN: the lock is held by a worker that an earlier server started.
 * any --supervise_stop--> STOPPING --gone--> STOPPED */
enum supervise_state { SUP_IDLE, SUP_RUNNING, SUP_FOREIGN, SUP_STOPPING, SUP_STOPPED };

struct supervise {
    uv_loop_t *loop;
    struct supervise_options o;
    enum supervise_state state;
    uv_process_t process;
    uv_timer_t timer;
    bool process_open; /* the handle must be closed before a new spawn */
    pid_t pid;         /* of our child or of the foreign worker; 0 = unknown */
    uint64_t backoff_ms;
    uint64_t started_at; /* of the loop's clock */
    uint64_t kill_at;
    void (*on_stopped)(void *arg);
    void *arg;
    int handles; /* still open, for the free */
    bool freed;
};

static void start(struct supervise *s);

/* True when another process holds the worker's lock. */
static bool lock_held(const struct supervise *s) {
    char path[4096];
    int fd;
    bool held;

    (void) snprintf(path, sizeof(path), "%s/lock", s->o.data_dir);
    fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return false;
    held = flock(fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK;
    (void) close(fd);
    return held;
}

static void write_pid(const struct supervise *s) {
    int r = sibling_write_pid(s->o.pid_file, s->pid);

    if (r < 0)
        log_warn(s->o.log, "cannot write the worker's pid file", "file=%s error=\"%s\"",
                 s->o.pid_file, err_name(r));
}

static void stopped(struct supervise *s) {
    s->state = SUP_STOPPED;
    (void) uv_timer_stop(&s->timer);
    (void) unlink(s->o.pid_file);
    s->on_stopped(s->arg);
}

static void on_retry(uv_timer_t *t) {
    start(t->data);
}

static void retry_later(struct supervise *s) {
    (void) uv_timer_start(&s->timer, on_retry, s->backoff_ms, 0);
    s->backoff_ms = MIN(s->backoff_ms * 2, (uint64_t) BACKOFF_MAX_MS);
}

static void on_handle_closed(uv_handle_t *h) {
    struct supervise *s = h->data;

    if (h == (uv_handle_t *) &s->process)
        s->process_open = false;
    if (--s->handles == 0 && s->freed) {
        free(s);
        return;
    }
    if (h == (uv_handle_t *) &s->process && s->state == SUP_IDLE)
        retry_later(s);
    else if (h == (uv_handle_t *) &s->process && s->state == SUP_STOPPING)
        stopped(s);
}

static void on_exit_process(uv_process_t *p, int64_t status, int sig) {
    struct supervise *s = p->data;

    s->pid = 0;
    if (s->state == SUP_RUNNING) {
        log_warn(s->o.log, "the worker ended; starting it again", "status=%lld signal=%d",
                 (long long) status, sig);
        s->state = SUP_IDLE;
        /* One that lived is not one that cannot start, however many died before it. */
        if (uv_now(s->loop) - s->started_at >= BACKOFF_MAX_MS)
            s->backoff_ms = BACKOFF_MIN_MS;
    }
    uv_close((uv_handle_t *) p, on_handle_closed);
}

static void start(struct supervise *s) {
    uv_stdio_container_t stdio[3] = {
        {.flags = UV_IGNORE},
        {.flags = UV_INHERIT_FD, .data.fd = 2},
        {.flags = UV_INHERIT_FD, .data.fd = 2},
    };
    uv_process_options_t po = {
        .exit_cb = on_exit_process,
        .file = "/proc/self/exe",
        .args = (char **) (uintptr_t) s->o.argv,
        .flags = UV_PROCESS_DETACHED, /* a terminal's Ctrl-C is for the server, which drains it */
        .stdio_count = 3,
        .stdio = stdio,
    };
    int rc;

    if (s->state >= SUP_STOPPING || s->process_open)
        return;
    if (lock_held(s)) {
        if (s->state != SUP_FOREIGN)
            log_info(s->o.log, "a worker of an earlier server is still running", "data_dir=%s",
                     s->o.data_dir);
        s->state = SUP_FOREIGN;
        retry_later(s);
        return;
    }
    s->process.data = s;
    rc = uv_spawn(s->loop, &s->process, &po);
    s->process_open = true; /* also after a failure: libuv wants the handle closed */
    s->handles++;
    if (rc < 0) {
        log_error(s->o.log, "cannot start the worker", "error=\"%s\"", uv_strerror(rc));
        s->state = SUP_IDLE;
        uv_close((uv_handle_t *) &s->process, on_handle_closed);
        return;
    }
    s->state = SUP_RUNNING;
    s->started_at = uv_now(s->loop);
    s->pid = s->process.pid;
    write_pid(s);
}

int supervise_new(uv_loop_t *loop, const struct supervise_options *o, struct supervise **ret) {
    struct supervise *s = calloc(1, sizeof(*s));

    if (!s)
        return -ENOMEM;
    s->loop = loop;
    s->o = *o;
    s->backoff_ms = BACKOFF_MIN_MS;
    (void) uv_timer_init(loop, &s->timer);
    s->timer.data = s;
    s->handles = 1;
    start(s);
    *ret = s;
    return 0;
}

/* A foreign worker is no child of ours: its lock tells when it is gone. */
static void on_stop_poll(uv_timer_t *t) {
    struct supervise *s = t->data;

    if (!s->process_open && !lock_held(s)) {
        stopped(s);
        return;
    }
    if (uv_now(s->loop) >= s->kill_at && s->pid > 0) {
        log_warn(s->o.log, "the worker did not stop in time and is killed", "pid=%ld",
                 (long) s->pid);
        (void) kill(s->pid, SIGKILL);
        s->kill_at = UINT64_MAX;
    }
}

void supervise_stop(struct supervise *s, uint64_t grace_ms, void (*on_stopped)(void *arg),
                    void *arg) {
    ASSERT(s->state < SUP_STOPPING);
    if (!s->process_open && lock_held(s))
        s->pid = sibling_read_pid(s->o.pid_file);
    s->state = SUP_STOPPING;
    s->on_stopped = on_stopped;
    s->arg = arg;
    s->kill_at = uv_now(s->loop) + grace_ms;
    if (s->pid > 0)
        (void) kill(s->pid, SIGTERM);
    (void) uv_timer_start(&s->timer, on_stop_poll, 0, STOP_POLL_MS);
}

void supervise_hurry(struct supervise *s) {
    if (s->state == SUP_STOPPING && s->pid > 0)
        (void) kill(s->pid, SIGTERM);
}

struct supervise *supervise_free(struct supervise *s) {
    if (!s)
        return NULL;
    s->freed = true;
    uv_close((uv_handle_t *) &s->timer, on_handle_closed);
    return NULL;
}
