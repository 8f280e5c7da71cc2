#include "worker/worker.h"

#include "worker/orphans.h"
#include "worker/worker_impl.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

/* Reports of no-ops wait beside those of the slots. */
#define REPORTS_EXTRA 16384
#define PATH_COMPONENT_ROOM 64

/* --- options --- */

static bool id_valid(const char *id) {
    size_t len = strlen(id);

    if (len == 0 || len > WORKER_ID_BYTES_MAX)
        return false;
    return strspn(id, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") == len;
}

static int check_options(const struct worker_options *o, struct errtext *reterr) {
    if (!id_valid(o->id)) {
        errtext_set(reterr, "worker id \"%.100s\": 1 to 64 characters of [A-Za-z0-9._-]", o->id);
        return ERR_CONFIG;
    }
    if (o->slots < 1 || o->slots > WORKER_SLOTS_MAX) {
        errtext_set(reterr, "slots %" PRIu32 ": from 1 to %d", o->slots, WORKER_SLOTS_MAX);
        return ERR_CONFIG;
    }
    if (o->nodes_count < 1 || o->nodes_count > SESSION_ADDRESSES_MAX) {
        errtext_set(reterr, "%zu node addresses: from 1 to %d", o->nodes_count,
                    SESSION_ADDRESSES_MAX);
        return ERR_CONFIG;
    }
    if (o->labels_count > WORKER_LABELS_MAX) {
        errtext_set(reterr, "%zu labels: at most %d", o->labels_count, WORKER_LABELS_MAX);
        return ERR_CONFIG;
    }
    return 0;
}

static int copy_labels(struct worker *w) {
    size_t bytes = 1;
    char *p;

    for (size_t i = 0; i < w->o.labels_count; i++)
        bytes += strlen(w->o.labels[i].key) + strlen(w->o.labels[i].value) + 2;
    w->labels = p = calloc(1, bytes);
    if (!p)
        return -ENOMEM;
    for (size_t i = 0; i < w->o.labels_count; i++) {
        p = stpcpy(p, w->o.labels[i].key) + 1;
        p = stpcpy(p, w->o.labels[i].value) + 1;
    }
    w->labels_count = w->o.labels_count;
    return 0;
}

/* --- the data directory --- */

static int open_sub(struct worker *w, const char *name, int *ret_fd) {
    if (mkdirat(w->data_fd, name, 0700) < 0 && errno != EEXIST)
        return -errno;
    *ret_fd = openat(w->data_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return *ret_fd < 0 ? -errno : 0;
}

static int make_path(char *path) {
    for (char *p = path + 1; *p; p++) {
        if (*p != '/')
            continue;
        *p = '\0';
        if (mkdir(path, 0755) < 0 && errno != EEXIST) {
            *p = '/';
            return -errno;
        }
        *p = '/';
    }
    return mkdir(path, 0700) < 0 && errno != EEXIST ? -errno : 0;
}

static int open_data(struct worker *w, struct errtext *reterr) {
    char path[PATH_MAX];
    struct stat st = {0};
    int r;

    (void) snprintf(path, sizeof(path), "%s", w->o.data_dir);
    r = make_path(path);
    if (r == 0) {
        w->data_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        r = w->data_fd < 0 || fstat(w->data_fd, &st) < 0 ? -errno : 0;
    }
    if (r == 0 && !realpath(path, w->work_path))
        r = -errno;
    if (r == 0 && strlen(w->work_path) + PATH_COMPONENT_ROOM > sizeof(w->work_path))
        r = -ENAMETOOLONG;
    if (r < 0) {
        errtext_set(reterr, "data directory %s: %s", w->o.data_dir, err_name(r));
        return r;
    }
    (void) stpcpy(w->work_path + strlen(w->work_path), "/work");
    (void) snprintf(w->instance, sizeof(w->instance), "%" PRIx64 "-%" PRIx64, (uint64_t) st.st_dev,
                    (uint64_t) st.st_ino);
    w->lock_fd = openat(w->data_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (w->lock_fd < 0 || flock(w->lock_fd, LOCK_EX | LOCK_NB) < 0) {
        r = -errno;
        errtext_set(reterr, "data directory %s: %s", w->o.data_dir,
                    r == -EWOULDBLOCK ? "another worker uses it; give each its own" : err_name(r));
        return r;
    }
    r = open_sub(w, "output", &w->output_fd);
    if (r == 0)
        r = open_sub(w, "work", &w->work_fd);
    if (r < 0)
        errtext_set(reterr, "data directory %s: %s", w->o.data_dir, err_name(r));
    return r;
}

/* Private directories of attempts that nobody runs any more. */
static int sweep_work(struct worker *w) {
    int fd = openat(w->work_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *e;
    int r = 0;

    if (!d) {
        r = -errno;
        if (fd >= 0)
            (void) close(fd);
        return r;
    }
    while (r == 0 && (e = readdir(d)) != NULL)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            r = sweep_remove(&w->sweep, w->work_fd, e->d_name);
    (void) closedir(d);
    return r;
}

static void set_home(struct worker *w) {
    char buf[4096];
    struct passwd pw, *found = NULL;

    if (getpwuid_r(getuid(), &pw, buf, sizeof(buf), &found) != 0 || !found || !found->pw_dir)
        (void) snprintf(w->home, sizeof(w->home), "/");
    else
        (void) snprintf(w->home, sizeof(w->home), "%s", found->pw_dir);
}

/* --- what an earlier process left --- */

static void on_seen(void *arg, const struct ref *ref) {
    struct worker *w = (struct worker *) arg;

    (void) !seen_add(&w->seen, ref); /* without memory the open fails right after */
}

static int read_boot_id(char *ret, size_t bytes) {
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    ssize_t n;

    if (fd < 0)
        return -errno;
    n = read(fd, ret, bytes - 1);
    (void) close(fd);
    if (n <= 0)
        return -EIO;
    ret[n] = '\0';
    ret[strcspn(ret, "\n")] = '\0';
    return 0;
}

/* Dead attempts are forgotten: the next hello does not name them, and the node gives them to
 * someone at once. What had ended is reported again. */
static int adopt_entry(struct worker *w, const struct journal_entry *e) {
    _cleanup_(bytes_unrefp) struct bytes *report = NULL;
    int r;

    if (e->state != JOURNAL_ENDED)
        return journal_forget(w->journal, &e->ref);
    r = journal_report(w->journal, &e->ref, &report);
    if (r == 0)
        r = reports_add(&w->reports, &e->ref, report, true);
    ASSERT(r <= 0);
    return r;
}

static int adopt(struct worker *w, struct errtext *reterr) {
    _cleanup_(freep) struct journal_entry *all = NULL;
    _cleanup_(freep) struct orphan_session *sessions = NULL;
    struct journal_entry e;
    size_t n = 0, pos = 0, i = 0, left = 0;
    int r, killed;

    while (journal_next(w->journal, &pos, &e))
        n++;
    all = calloc(n + 1, sizeof(*all));
    sessions = calloc(n + 1, sizeof(*sessions));
    if (!all || !sessions)
        return -ENOMEM;
    for (pos = 0; journal_next(w->journal, &pos, &all[i]); i++)
        if (all[i].state == JOURNAL_STARTED)
            sessions[i] =
                (struct orphan_session){.pid = all[i].pid, .start_time = all[i].start_time};
    killed = orphans_kill(w->instance, sessions, n, &left);
    if (killed < 0 || left > 0) {
        errtext_set(reterr, "%zu processes of an earlier worker cannot be killed: %s", left,
                    killed < 0 ? err_name(killed) : "they do not end");
        return killed < 0 ? killed : -EBUSY;
    }
    if (killed > 0)
        log_warn(w->log, "killed what an earlier worker left running", "processes=%d", killed);
    for (i = 0, r = 0; r == 0 && i < n; i++)
        r = adopt_entry(w, &all[i]);
    return r;
}

static int open_state(struct worker *w, struct errtext *reterr) {
    char boot_id[JOURNAL_BOOT_ID_BYTES_MAX];
    int r = read_boot_id(boot_id, sizeof(boot_id));

    if (r == 0)
        r = journal_open(w->data_fd, boot_id, on_seen, w, &w->journal, reterr);
    if (r == 0 && journal_torn_bytes(w->journal) > 0)
        log_warn(w->log, "the journal's end was not usable", "bytes=%" PRIu64,
                 journal_torn_bytes(w->journal));
    if (r == 0)
        r = adopt(w, reterr);
    if (r < 0)
        return r;
    retention_init(&w->retention, w->output_fd,
                   w->o.output_bytes_max ? w->o.output_bytes_max : RETENTION_BYTES_DEFAULT,
                   w->o.output_count_max ? w->o.output_count_max : RETENTION_COUNT_DEFAULT);
    w->retention_open = true;
    r = retention_load(&w->retention);
    if (r == 0)
        r = sweep_init(&w->sweep, w->loop, w->data_fd);
    if (r < 0)
        return r;
    w->sweep_open = true;
    w->handles_open++;
    return sweep_work(w);
}

/* --- phases of stopping --- */

static void on_phase(uv_timer_t *t);

void worker_unsettle(struct worker *w) {
    if (w->phase != WORKER_FLUSHING || !w->settling)
        return;
    w->settling = false;
    (void) uv_timer_start(&w->phase_timer, on_phase, WORKER_FLUSH_MS, 0);
}

static void finish(struct worker *w) {
    w->phase = WORKER_STOPPED;
    (void) uv_timer_stop(&w->phase_timer);
    session_stop(w->session);
    w->o.on_stopped(w->o.arg);
}

static void enter_releasing(struct worker *w) {
    w->phase = WORKER_RELEASING;
    (void) uv_timer_stop(&w->phase_timer);
    worker_stop_all(w, ATTEMPT_CAUSE_RELEASED, WORKER_RELEASE_GRACE_MS);
    worker_advance(w);
}

void worker_advance(struct worker *w) {
    if ((w->phase == WORKER_DRAINING || w->phase == WORKER_RELEASING) && !w->first) {
        w->phase = WORKER_FLUSHING;
        (void) uv_timer_start(&w->phase_timer, on_phase, WORKER_FLUSH_MS, 0);
    }
    if (w->phase == WORKER_FLUSHING && !w->settling && reports_count(&w->reports) == 0 &&
        session_drain_known(w->session)) {
        w->settling = true; /* never from inside a callback */
        (void) uv_timer_start(&w->phase_timer, on_phase,
                              session_state(w->session) == SESSION_ACTIVE ? WORKER_SETTLE_MS : 0,
                              0);
    }
}

static void on_phase(uv_timer_t *t) {
    struct worker *w = (struct worker *) t->data;

    if (w->phase == WORKER_RUNNING) {
        log_warn(w->log, "the operator's drain time is over; releasing attempts", "attempts=%zu",
                 w->by_ref.count);
        w->drained = true;
        worker_stop_all(w, ATTEMPT_CAUSE_RELEASED, WORKER_RELEASE_GRACE_MS);
    } else if (w->phase == WORKER_DRAINING) {
        log_warn(w->log, "drain time is over; releasing attempts", "attempts=%zu", w->by_ref.count);
        enter_releasing(w);
    } else if (w->phase == WORKER_FLUSHING) {
        if (reports_count(&w->reports) > 0)
            log_warn(w->log, "stopping with unacknowledged reports; the journal keeps them",
                     "reports=%zu", reports_count(&w->reports));
        finish(w);
    }
}

/* The worker stays what it is: no phase of stopping begins. Said again (after a reconnect) it
 * counts anew with what the node then says is left. */
void worker_drain(struct worker *w, bool on, int64_t timeout_ms) {
    if (w->phase != WORKER_RUNNING)
        return; /* it stops anyway, and the timer belongs to that */
    if (!on && !w->drained && !uv_is_active((uv_handle_t *) &w->phase_timer))
        return;
    log_info(w->log, on ? "drained by an operator" : "drain lifted", "attempts=%zu timeout_ms=%lld",
             w->by_ref.count, (long long) timeout_ms);
    (void) uv_timer_stop(&w->phase_timer);
    w->drained = false;
    if (on)
        (void) uv_timer_start(&w->phase_timer, on_phase, timeout_ms > 0 ? (uint64_t) timeout_ms : 0,
                              0);
}

void worker_stop(struct worker *w) {
    if (w->phase == WORKER_RUNNING) {
        log_info(w->log, "stopping", "attempts=%zu drain_ms=%" PRIu64, w->by_ref.count,
                 w->o.drain_ms);
        w->phase = WORKER_DRAINING;
        w->drained = false;
        (void) uv_timer_start(&w->phase_timer, on_phase, w->o.drain_ms, 0);
        session_drain(w->session);
        worker_advance(w);
    } else if (w->phase == WORKER_DRAINING) {
        enter_releasing(w);
    }
}

/* --- life --- */

static void on_prepare(uv_prepare_t *p) {
    worker_flush((struct worker *) p->data);
}

/* The parent never writes; readable means that its end was closed. */
static void on_parent(uv_poll_t *p, int status, int events) {
    struct worker *w = (struct worker *) p->data;
    char byte;

    (void) status;
    (void) events;
    if (read(w->o.parent_fd, &byte, 1) > 0 || errno == EAGAIN)
        return;
    (void) uv_poll_stop(p);
    log_warn(w->log, "the parent is gone", "stopping=%s", w->o.die_with_parent ? "true" : "false");
    if (w->o.die_with_parent)
        worker_stop(w);
}

static int open_handles(struct worker *w, struct errtext *reterr) {
    int r;

    (void) uv_prepare_init(w->loop, &w->prepare);
    (void) uv_idle_init(w->loop, &w->starter);
    (void) uv_timer_init(w->loop, &w->lease_timer);
    (void) uv_timer_init(w->loop, &w->phase_timer);
    r = uv_signal_init(w->loop, &w->child);
    ASSERT(r == 0);
    w->prepare.data = w->starter.data = w->lease_timer.data = w->phase_timer.data = w;
    w->child.data = w->parent.data = w;
    w->handles_ready = true;
    w->handles_open += 6; /* with logread's */
    logread_init(&w->logread, w->loop, w->output_fd, &worker_logread_callbacks, w);
    (void) uv_prepare_start(&w->prepare, on_prepare);
    r = uv_signal_start(&w->child, worker_on_child, SIGCHLD);
    if (r == 0 && w->o.parent_fd >= 0) {
        (void) fcntl(w->o.parent_fd, F_SETFD, FD_CLOEXEC);
        r = uv_poll_init(w->loop, &w->parent, w->o.parent_fd);
        if (r == 0) {
            w->parent_open = true;
            w->handles_open++;
            r = uv_poll_start(&w->parent, UV_READABLE | UV_DISCONNECT, on_parent);
        }
        if (r < 0)
            errtext_set(reterr, "parent descriptor %d is no pipe or socket: %s", w->o.parent_fd,
                        err_name(r));
    }
    return r;
}

static int set_up(struct worker *w, struct errtext *reterr) {
    uint64_t seed;
    int r = check_options(&w->o, reterr);

    if (r < 0)
        return r;
    (void) snprintf(w->id, sizeof(w->id), "%s", w->o.id);
    if (getrandom(&w->incarnation, sizeof(w->incarnation), 0) != sizeof(w->incarnation) ||
        getrandom(&seed, sizeof(seed), 0) != sizeof(seed))
        return -errno;
    set_home(w);
    reports_init(&w->reports, (size_t) w->o.slots * 2 + REPORTS_EXTRA);
    w->queue = calloc(w->o.slots, sizeof(struct held *));
    r = w->queue ? copy_labels(w) : -ENOMEM;
    if (r == 0)
        r = spawn_init_reaper();
    if (r == 0)
        r = open_data(w, reterr);
    if (r == 0)
        r = open_state(w, reterr);
    if (r == 0)
        r = open_handles(w, reterr);
    if (r < 0)
        return r;
    w->launch_base =
        (struct launch_base){.home = w->home, .work_path = w->work_path, .instance = w->instance};
    w->attempt_env = (struct attempt_env){.loop = w->loop,
                                          .log = w->log,
                                          .is_known = worker_is_known,
                                          .output_dir_fd = w->output_fd,
                                          .on_output = worker_on_output,
                                          .on_ended = worker_on_ended,
                                          .arg = w};
    return session_new(w->loop, w->log, w->o.nodes, w->o.nodes_count, seed,
                       &worker_session_callbacks, w, &w->session, reterr);
}

int worker_new(uv_loop_t *loop, const struct worker_options *o, struct worker **ret,
               struct errtext *reterr) {
    struct worker *w = calloc(1, sizeof(*w));
    int r;

    ASSERT(o->on_stopped);
    if (!w)
        return -ENOMEM;
    w->loop = loop;
    w->log = o->log;
    w->o = *o;
    w->data_fd = w->lock_fd = w->output_fd = w->work_fd = -1;
    if (reterr)
        reterr->s[0] = '\0';
    r = set_up(w, reterr);
    if (r < 0) {
        if (reterr && reterr->s[0] == '\0')
            errtext_set(reterr, "worker: %s", err_name(r));
        (void) worker_free(w);
        return r;
    }
    /* Borrowed for the call only. */
    w->o.id = w->id;
    w->o.nodes = NULL;
    w->o.labels = NULL;
    w->o.data_dir = NULL;
    log_info(w->log, "worker started", "worker=%s slots=%" PRIu32 " reports=%zu", w->id, w->o.slots,
             reports_count(&w->reports));
    session_start(w->session);
    *ret = w;
    return 0;
}

static void release(struct worker *w) {
    free(w->queue);
    free(w->labels);
    free(w);
}

static void on_closed(uv_handle_t *h) {
    struct worker *w = (struct worker *) h->data;

    if (--w->handles_open == 0)
        release(w);
}

static void close_fd(int fd) {
    if (fd >= 0)
        (void) close(fd);
}

static void close_handles(struct worker *w) {
    logread_done(&w->logread, on_closed, w);
    uv_close((uv_handle_t *) &w->prepare, on_closed);
    uv_close((uv_handle_t *) &w->starter, on_closed);
    uv_close((uv_handle_t *) &w->child, on_closed);
    uv_close((uv_handle_t *) &w->lease_timer, on_closed);
    uv_close((uv_handle_t *) &w->phase_timer, on_closed);
    if (w->parent_open)
        uv_close((uv_handle_t *) &w->parent, on_closed);
}

struct worker *worker_free(struct worker *w) {
    if (!w)
        return NULL;
    w->session = session_free(w->session);
    while (w->first)
        worker_held_free(w, w->first);
    bytesmap_done(&w->by_ref);
    u64map_done(&w->by_pid);
    reports_done(&w->reports);
    seen_done(&w->seen);
    w->journal = journal_free(w->journal);
    if (w->retention_open)
        retention_done(&w->retention);
    if (w->sweep_open)
        sweep_done(&w->sweep, on_closed, w);
    close_fd(w->output_fd);
    close_fd(w->work_fd);
    close_fd(w->lock_fd);
    close_fd(w->data_fd);
    if (w->handles_ready)
        close_handles(w);
    if (w->handles_open == 0)
        release(w);
    return NULL;
}
