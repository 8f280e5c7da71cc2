/* `chronos server`: configuration in, one replica on a libuv loop, until a signal.
 *
 * This is where real and pure meet: the effects of base/env.h are filled from os/ here and nowhere
 * else. The order of starting is the order of trust: lock the directory, recover, listen to peers,
 * serve clients, start the worker. Stopping goes the other way round, so that a running attempt can
 * still report while its node can still commit.
 * Thread: the loop's, which is the main thread. */
#include "cmd/cmd_server.h"

#include "api/api.h"
#include "cli/config.h"
#include "cli/exit_code.h"
#include "cmd/supervise.h"
#include "node/replica.h"
#include "os/clock.h"
#include "os/disk_posix.h"
#include "os/disk_queue.h"
#include "os/kv_rocks.h"
#include "os/log_sink.h"
#include "os/peer_net.h"
#include "os/random.h"

#include <xxhash.h>

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define EXIT_REFUSED 78 /* EX_CONFIG of sysexits.h: the data directory must be looked at */
/* Together below the worker's end of its own: drain, 2 s to end what it runs, 1.5 s to report. A
 * worker that is killed before would leave its attempts' grandchildren behind. */
#define WORKER_DRAIN "3s"
#define WORKER_STOP_MS 7000
#define API_STOP_MS 1000
#define TRANSFER_MS 700
#define WORKER_ARGS_MAX (32 + 2 * CONFIG_MEMBERS_MAX + 2 * CONFIG_LABELS_MAX)

/* STARTING -> SERVING -> STOPPING_WORKER -> TRANSFERRING -> STOPPING_API -> CLOSING */
enum server_state {
    SERVER_STARTING,
    SERVER_SERVING,
    SERVER_STOPPING_WORKER,
    SERVER_TRANSFERRING,
    SERVER_STOPPING_API,
    SERVER_CLOSING
};

struct server {
    int argc;
    char **argv;
    struct config config;
    struct log_sink sink;
    struct logger log;
    uv_loop_t loop;
    uv_prepare_t prepare;
    uv_check_t check;
    uv_timer_t timer;      /* the replica's deadline */
    uv_timer_t stop_timer; /* of the transfer */
    uv_signal_t signals[3];
    struct mono timer_at;
    struct disk_posix *disk;
    struct disk_queue *disk_queue;
    struct random_os random;
    struct peer_net *peers;
    struct kv *kv;
    struct replica *replica;
    struct api *api;
    struct supervise *worker;
    struct raft_config bootstrap;
    struct arena arena;
    const char *worker_argv[WORKER_ARGS_MAX];
    enum server_state state;
    uint64_t transfer_end; /* in uv_now() */
    int exit_code;
};

static void server_set_state(struct server *s, enum server_state to) {
    ASSERT(to > s->state); /* it only ever goes on */
    s->state = to;
}

/* ---- the turn -------------------------------------------------------------------------------- */

static void arm_timer(struct server *s);

/* A replica that failed must not send another byte: no drain, no flush (reliability.md W3). */
static void die_if_failed(struct server *s) {
    struct errtext why = {0};
    int rc = replica_failed(s->replica, &why);

    if (rc == 0)
        return;
    log_error(&s->log, "the node stops", "error=\"%s\" reason=\"%s\"", err_name(rc), why.s);
    _exit(EXIT_FAILURE);
}

static void turn(struct server *s) {
    if (!s->replica)
        return;
    if (replica_wants_turn(s->replica) ||
        mono_reached(clock_mono(), replica_deadline(s->replica))) {
        replica_turn(s->replica);
        die_if_failed(s);
    }
    arm_timer(s);
}

static void on_timer(uv_timer_t *t) {
    struct server *s = t->data;

    s->timer_at = MONO_NEVER;
    turn(s);
}

static void arm_timer(struct server *s) {
    struct mono at = replica_deadline(s->replica), now;
    uint64_t ms;

    if (at.ns == s->timer_at.ns)
        return;
    s->timer_at = at;
    if (at.ns == MONO_NEVER.ns) {
        (void) uv_timer_stop(&s->timer);
        return;
    }
    now = clock_mono();
    ms = (mono_diff_ns(at, now) + NS_PER_MS - 1) / NS_PER_MS;
    uv_update_time(&s->loop);
    (void) uv_timer_start(&s->timer, on_timer, ms, 0);
}

static void on_check(uv_check_t *c) {
    turn(c->data);
}

static void on_prepare(uv_prepare_t *p) {
    turn(p->data);
}

/* ---- peers ----------------------------------------------------------------------------------- */

static void on_peer_message(void *ctx, uint64_t from, struct slice payload) {
    struct server *s = ctx;

    if (s->replica)
        replica_on_peer_message(s->replica, from, payload);
}

static void on_peer_link(void *ctx, uint64_t node, bool up) {
    struct server *s = ctx;

    log_info(&s->log, up ? "peer connected" : "peer lost", "node=%llu peer=%llu",
             (unsigned long long) s->config.node.id, (unsigned long long) node);
    if (s->replica)
        replica_on_peer_link(s->replica, node, up);
}

/* The same on every node that was configured with the same name and member ids. */
static void cluster_id(const struct config *c, uint8_t ret[16]) {
    XXH3_state_t *h = XXH3_createState();
    XXH128_canonical_t canonical;

    ASSERT(h);
    (void) XXH3_128bits_reset(h);
    (void) XXH3_128bits_update(h, c->cluster.name, strlen(c->cluster.name) + 1);
    for (size_t i = 0; i < c->cluster.members_count; i++) {
        char id[32];
        int n = snprintf(id, sizeof(id), "%llu,", (unsigned long long) c->cluster.members[i].id);

        (void) XXH3_128bits_update(h, id, (size_t) n);
    }
    XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(h));
    memcpy(ret, canonical.digest, sizeof(canonical.digest));
    (void) XXH3_freeState(h);
}

static int by_member_id(const void *a, const void *b) {
    const struct raft_member *x = a, *y = b;

    return x->id < y->id ? -1 : x->id > y->id;
}

static void bootstrap_config(struct server *s) {
    const struct config *c = &s->config;

    for (size_t i = 0; i < c->cluster.members_count; i++) {
        struct raft_member *m = &s->bootstrap.members[s->bootstrap.count++];

        m->id = c->cluster.members[i].id;
        m->flags = RAFT_MEMBER_VOTER;
        (void) snprintf(m->address, sizeof(m->address), "%s", c->cluster.members[i].address);
    }
    qsort(s->bootstrap.members, s->bootstrap.count, sizeof(s->bootstrap.members[0]), by_member_id);
}

static void replica_options_from(struct server *s, struct replica_options *o) {
    const struct config *c = &s->config;

    replica_options_default(o, c->node.id, random_os_next(&s->random));
    cluster_id(c, o->cluster_id);
    bootstrap_config(s);
    o->bootstrap = &s->bootstrap;
    o->client_address = c->node.advertise;
    o->pending_proposals_max = c->limits.pending_proposals;
    o->commit_timeout_ns = c->limits.commit_timeout_ms * NS_PER_MS;
    o->peer_liveness_ns = c->cluster.liveness_window_ms * NS_PER_MS;
    o->worker_heartbeat_ns = c->worker.heartbeat_interval_ms * NS_PER_MS;
    o->worker_lease_ns = c->worker.lease_ms * NS_PER_MS;
    o->watch_events_max = c->limits.watch_events;
    o->wal.segment_bytes = (uint32_t) c->wal.segment_bytes;
    o->raft.heartbeat_interval_ns = c->cluster.heartbeat_timeout_ms * NS_PER_MS;
    o->raft.election_timeout_min_ns = c->cluster.election_timeout_ms * NS_PER_MS;
    o->raft.election_timeout_max_ns = 2 * o->raft.election_timeout_min_ns;
    o->raft.uncommitted_bytes_max = c->limits.uncommitted_bytes;
    o->raft.uncommitted_entries_max = c->limits.uncommitted_entries;
    o->raft.applied_entries_kept = c->cluster.snapshot_threshold;
}

/* ---- starting -------------------------------------------------------------------------------- */

static void fail_start(struct server *s, const char *what, int rc, const struct errtext *why) {
    log_error(&s->log, what, "node=%llu error=\"%s\" reason=\"%s\"",
              (unsigned long long) s->config.node.id, err_name(rc), why->s);
    s->exit_code =
        rc == ERR_CORRUPT || rc == ERR_FOREIGN || rc == ERR_VERSION ? EXIT_REFUSED : EXIT_FAILURE;
}

static int start_storage(struct server *s, struct disk *ret_disk) {
    struct errtext why = {0};
    char path[4096];
    int rc;

    rc = random_os_init(&s->random);
    if (rc == 0)
        rc = disk_posix_open(s->config.node.data_dir, &s->disk, ret_disk, &why);
    if (rc == 0)
        rc = disk_queue_new(&s->loop, &s->disk_queue);
    if (rc == 0) {
        (void) snprintf(path, sizeof(path), "%s/state", s->config.node.data_dir);
        rc = kv_rocks_open(path, &s->kv, &why);
    }
    if (rc < 0)
        fail_start(s, "cannot open the data directory", rc, &why);
    return rc;
}

static int start_peers(struct server *s, const struct replica_options *o) {
    const struct config *c = &s->config;
    struct errtext why = {0};
    struct peer_net_options po = {
        .self_id = c->node.id,
        .listen_address = c->node.peer_listen,
        .software = CHRONOS_VERSION,
        .log = &s->log,
        .seed = random_os_next(&s->random),
        .callbacks = {.on_message = on_peer_message, .on_link = on_peer_link, .ctx = s},
    };
    int rc;

    memcpy(po.cluster_id, o->cluster_id, sizeof(po.cluster_id));
    rc = peer_net_new(&s->loop, &po, &s->peers, &why);
    for (size_t i = 0; rc == 0 && i < c->cluster.members_count; i++)
        if (c->cluster.members[i].id != c->node.id)
            rc = peer_net_set_peer(s->peers, c->cluster.members[i].id,
                                   c->cluster.members[i].address);
    if (rc < 0)
        fail_start(s, "cannot listen for peers", rc, &why);
    return rc;
}

static int start_api(struct server *s) {
    const struct config *c = &s->config;
    struct errtext why = {0};
    struct api_options ao;
    int rc;

    api_options_default(&ao);
    ao.replica = s->replica;
    ao.address = c->node.listen;
    ao.log = &s->log;
    ao.node_id = c->node.id;
    ao.commit_timeout_ms = c->limits.commit_timeout_ms;
    ao.request_bytes_max = c->limits.message_bytes;
    ao.jobs_per_call_max = c->limits.jobs_per_call;
    rc = api_new(&s->loop, &ao, &s->api, &why);
    if (rc < 0)
        fail_start(s, "cannot serve clients", rc, &why);
    return rc;
}

static void worker_arguments(struct server *s) {
    const struct config *c = &s->config;
    const char **a = s->worker_argv;
    size_t n = 0;

    a[n++] = "chronos";
    a[n++] = "worker";
    a[n++] = "--id";
    a[n++] = arena_printf(&s->arena, "node%llu", (unsigned long long) c->node.id);
    a[n++] = "--data-dir";
    a[n++] = c->worker.data_dir;
    a[n++] = "--drain";
    a[n++] = WORKER_DRAIN;
    a[n++] = "--node";
    a[n++] = c->node.advertise;
    for (size_t i = 0; i < c->cluster.members_count; i++) {
        if (c->cluster.members[i].id == c->node.id || !c->cluster.members[i].client_address[0])
            continue;
        a[n++] = "--node";
        a[n++] = c->cluster.members[i].client_address;
    }
    if (c->worker.slots > 0) {
        a[n++] = "--slots";
        a[n++] = arena_printf(&s->arena, "%llu", (unsigned long long) c->worker.slots);
    }
    for (size_t i = 0; i < c->worker.labels_count; i++) {
        a[n++] = "--label";
        a[n++] =
            arena_printf(&s->arena, "%s=%s", c->worker.labels[i].key, c->worker.labels[i].value);
    }
    a[n++] = "--log-level";
    a[n++] = log_level_to_string((enum log_level) c->log.level);
    a[n++] = "--log-format";
    a[n++] = c->log.format == LOG_JSON ? "json" : "text";
    ASSERT(n < WORKER_ARGS_MAX);
}

static int start_worker(struct server *s) {
    struct supervise_options so = {
        .argv = s->worker_argv,
        .data_dir = s->config.worker.data_dir,
        .pid_file = arena_printf(&s->arena, "%s/worker.pid", s->config.node.data_dir),
        .log = &s->log,
    };

    if (!s->config.worker.enabled)
        return 0;
    worker_arguments(s);
    return supervise_new(&s->loop, &so, &s->worker);
}

static void write_pid_file(struct server *s) {
    char path[4096];
    FILE *f;

    (void) snprintf(path, sizeof(path), "%s/server.pid", s->config.node.data_dir);
    f = fopen(path, "we");
    if (!f)
        return;
    (void) fprintf(f, "%ld\n", (long) getpid());
    (void) fclose(f);
}

static int start(struct server *s) {
    struct replica_options o;
    struct errtext why = {0};
    struct env env = {.clock = clock_env(), .log = &s->log};
    int rc;

    rc = start_storage(s, &env.disk);
    if (rc < 0)
        return rc;
    replica_options_from(s, &o);
    rc = start_peers(s, &o);
    if (rc < 0)
        return rc;
    env.random = random_os_env(&s->random);
    env.disk_queue = disk_queue_env(s->disk_queue);
    env.peers = peer_net_env(s->peers);
    rc = replica_open(&o, &env, s->kv, &s->replica, &why);
    if (rc < 0) {
        fail_start(s, "the node refuses to start", rc, &why);
        return rc;
    }
    rc = start_api(s);
    if (rc < 0)
        return rc;
    write_pid_file(s);
    return start_worker(s);
}

/* ---- stopping -------------------------------------------------------------------------------- */

static void close_handle(uv_handle_t *h, void *arg) {
    (void) arg;
    if (!uv_is_closing(h))
        uv_close(h, NULL);
}

static void on_peers_closed(void *arg) {
    struct server *s = arg;
    int rc;

    /* What is in flight on the disk thread still reports to the replica. */
    s->disk_queue = disk_queue_stop(s->disk_queue);
    rc = fsm_write_back(replica_fsm(s->replica));
    if (rc == 0)
        rc = s->kv->ops->flush(s->kv);
    if (rc < 0)
        log_warn(&s->log, "the state store was not flushed; the log will replay it", "error=\"%s\"",
                 err_name(rc));
    s->replica = replica_free(s->replica);
    s->api = api_free(s->api);
    s->kv->ops->close(s->kv);
    s->kv = NULL;
    s->disk = disk_posix_close(s->disk);
    log_info(&s->log, "stopped", "node=%llu", (unsigned long long) s->config.node.id);
    uv_walk(&s->loop, close_handle, NULL);
}

static void on_api_stopped(void *arg) {
    struct server *s = arg;

    server_set_state(s, SERVER_CLOSING);
    peer_net_close(s->peers, on_peers_closed, s);
    s->peers = NULL;
}

static void stop_api(struct server *s) {
    server_set_state(s, SERVER_STOPPING_API);
    (void) uv_timer_stop(&s->stop_timer);
    api_stop(s->api, API_STOP_MS, on_api_stopped, s);
}

/* Leadership moves first, so that the cluster does not wait out an election. */
static void on_transfer_poll(uv_timer_t *t) {
    struct server *s = t->data;

    if (raft_role(replica_raft(s->replica)) != RAFT_LEADER || uv_now(&s->loop) >= s->transfer_end)
        stop_api(s);
}

static void on_worker_stopped(void *arg) {
    struct server *s = arg;

    s->worker = supervise_free(s->worker);
    server_set_state(s, SERVER_TRANSFERRING);
    if (raft_role(replica_raft(s->replica)) != RAFT_LEADER || s->bootstrap.count < 2) {
        stop_api(s);
        return;
    }
    replica_transfer_leadership(s->replica, 0);
    s->transfer_end = uv_now(&s->loop) + TRANSFER_MS;
    (void) uv_timer_start(&s->stop_timer, on_transfer_poll, 5, 5);
}

static void stop(struct server *s) {
    if (s->state != SERVER_SERVING)
        return;
    log_info(&s->log, "stopping", "node=%llu", (unsigned long long) s->config.node.id);
    server_set_state(s, SERVER_STOPPING_WORKER);
    if (s->worker)
        supervise_stop(s->worker, WORKER_STOP_MS, on_worker_stopped, s);
    else
        on_worker_stopped(s);
}

/* What can change without a restart: how much is logged, and how. A file that is refused changes
 * nothing. */
static void reload(struct server *s) {
    struct config *fresh = calloc(1, sizeof(*fresh));
    int code = 0;

    if (!fresh)
        return;
    if (config_load(fresh, s->argc, s->argv, &code) == 0) {
        s->config.log.level = fresh->log.level;
        s->config.log.format = fresh->log.format;
        s->log.level = (enum log_level) fresh->log.level;
        s->sink.format = (enum log_format) fresh->log.format;
        log_info(&s->log, "configuration reloaded",
                 "log.level=%s note=\"other settings need a restart\"",
                 log_level_to_string(s->log.level));
    } else {
        log_error(&s->log, "configuration not reloaded", "file=\"%s\"",
                  s->config.file ? s->config.file : "");
    }
    config_done(fresh);
    free(fresh);
}

static void on_signal(uv_signal_t *h, int signum) {
    struct server *s = h->data;

    if (signum == SIGHUP)
        reload(s);
    else
        stop(s);
}

/* ---- main ------------------------------------------------------------------------------------ */

static int init_loop(struct server *s) {
    static const int signums[] = {SIGTERM, SIGINT, SIGHUP};
    int rc = uv_loop_init(&s->loop);

    if (rc < 0)
        return rc;
    (void) uv_prepare_init(&s->loop, &s->prepare);
    (void) uv_check_init(&s->loop, &s->check);
    (void) uv_timer_init(&s->loop, &s->timer);
    (void) uv_timer_init(&s->loop, &s->stop_timer);
    s->prepare.data = s->check.data = s->timer.data = s->stop_timer.data = s;
    s->timer_at = MONO_NEVER;
    for (size_t i = 0; i < ARRAY_LEN(signums); i++) {
        (void) uv_signal_init(&s->loop, &s->signals[i]);
        s->signals[i].data = s;
        (void) uv_signal_start(&s->signals[i], on_signal, signums[i]);
    }
    (void) uv_prepare_start(&s->prepare, on_prepare);
    (void) uv_check_start(&s->check, on_check);
    return 0;
}

static void warn_even(struct server *s) {
    char warning[512];

    if (config_even_size_warning(s->config.cluster.members_count, warning)[0])
        log_warn(&s->log, "even cluster size", "why=\"%s\"", warning);
}

static int run(struct server *s) {
    if (init_loop(s) < 0)
        return EXIT_FAILURE;
    /* The handlers are installed, so the signal stops us in order. */
    if (s->config.die_with_parent)
        (void) prctl(PR_SET_PDEATHSIG, SIGTERM);
    log_sink_init(&s->sink, STDERR_FILENO, (enum log_format) s->config.log.format,
                  (enum log_level) s->config.log.level, &s->log);
    warn_even(s);
    if (start(s) < 0)
        return s->exit_code ? s->exit_code : EXIT_FAILURE;
    server_set_state(s, SERVER_SERVING);
    log_info(&s->log, "serving", "node=%llu clients=%s peers=%s version=%s",
             (unsigned long long) s->config.node.id, s->config.node.listen,
             s->config.node.peer_listen, CHRONOS_VERSION);
    (void) uv_run(&s->loop, UV_RUN_DEFAULT);
    (void) uv_loop_close(&s->loop);
    return s->exit_code;
}

int cmd_server(int argc, char **argv) {
    struct rlimit no_core = {0, 0};
    struct server *s = calloc(1, sizeof(*s));
    int code = EXIT_FAILURE;

    if (!s) {
        fputs("chronos: out of memory\n", stderr);
        return EXIT_FAILURE;
    }
    s->argc = argc;
    s->argv = argv;
    arena_init(&s->arena, 1024 * 1024);
    (void) signal(SIGPIPE, SIG_IGN);
    (void) umask(077);
    (void) setrlimit(RLIMIT_CORE, &no_core);
    if (config_load(&s->config, argc, argv, &code) == 0)
        code = run(s);
    config_done(&s->config);
    arena_done(&s->arena);
    free(s);
    return code;
}
