/* Starting: storage, identity, peers, replica, clients, worker - the order of trust.
 *
 * This is where real and pure meet: the effects of base/env.h are filled from os/ here and nowhere
 * else. */
#include "cmd/accept_guard.h"
#include "cmd/server_internal.h"

#include "os/clock.h"
#include "os/kv_rocks.h"
#include "os/sibling.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void server_fail(struct server *s, const char *what, int rc, const struct errtext *why) {
    log_error(&s->log, what, "node=%llu error=\"%s\" reason=\"%s\"",
              (unsigned long long) s->config.node.id, err_name(rc), why->s);
    s->exit_code = rc == ERR_CORRUPT || rc == ERR_FOREIGN || rc == ERR_VERSION || rc == ERR_CONFIG
                       ? EXIT_REFUSED
                       : EXIT_FAILURE;
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

static int on_peer_hello(void *ctx, const struct peer_net_hello *h, bool *ret_final,
                         struct errtext *reason) {
    struct server *s = ctx;
    struct replica_hello rh = {.node_id = h->node_id,
                               .peer_address = h->peer_address,
                               .client_address = h->client_address};

    STATIC_ASSERT(sizeof(rh.disk) == sizeof(h->disk), "one size of a disk's name");
    memcpy(rh.disk, h->disk, sizeof(rh.disk));
    if (!s->replica) {
        errtext_set(reason, "node %llu is starting or stopping",
                    (unsigned long long) s->config.node.id);
        return ERR_CLOSED;
    }
    return replica_check_hello(s->replica, &rh, ret_final, reason);
}

static void on_peer_refused(void *ctx, uint64_t node, bool final, const char *reason) {
    struct server *s = ctx;

    if (s->replica && final)
        replica_on_refused(s->replica, node, reason);
}

static void on_peer_bulk_ready(void *ctx, uint64_t node) {
    struct server *s = ctx;

    if (s->replica)
        replica_on_peer_bulk_ready(s->replica, node);
}

static int start_peers(struct server *s) {
    const struct config *c = &s->config;
    struct errtext why = {0};
    struct peer_net_options po = {
        .self_id = c->node.id,
        .listen_address = c->node.peer_listen,
        .software = CHRONOS_VERSION,
        .log = &s->log,
        .seed = random_os_next(&s->random),
        .incoming_max = (unsigned) c->limits.peer_connections,
        .peer_address = c->node.advertise_peer,
        .client_address = c->node.advertise,
        .callbacks = {.on_message = on_peer_message,
                      .on_link = on_peer_link,
                      .on_hello = on_peer_hello,
                      .on_refused = on_peer_refused,
                      .on_bulk_ready = on_peer_bulk_ready,
                      .ctx = s},
    };
    int rc;

    memcpy(po.cluster_id, s->cluster_id, sizeof(po.cluster_id));
    rc = peer_net_new(&s->loop, &po, &s->peers, &why);
    if (rc < 0)
        server_fail(s, "cannot listen for peers", rc, &why);
    return rc;
}

/* ---- storage and replica --------------------------------------------------------------------- */

static int by_member_id(const void *a, const void *b) {
    const struct raft_member *x = a, *y = b;

    return x->id < y->id ? -1 : x->id > y->id;
}

static void members_from_config(struct server *s) {
    const struct config *c = &s->config;

    for (size_t i = 0; i < c->cluster.members_count; i++) {
        struct raft_member *m = &s->members.members[s->members.count++];

        m->id = c->cluster.members[i].id;
        m->flags = RAFT_MEMBER_VOTER;
        (void) snprintf(m->address, sizeof(m->address), "%s", c->cluster.members[i].address);
    }
    qsort(s->members.members, s->members.count, sizeof(s->members.members[0]), by_member_id);
}

static void options_from_config(struct server *s, struct replica_options *o) {
    const struct config *c = &s->config;

    o->client_address = c->node.advertise;
    o->peer_address = c->node.advertise_peer;
    o->pending_proposals_max = c->limits.pending_proposals;
    o->commit_timeout_ns = c->limits.commit_timeout_ms * NS_PER_MS;
    o->peer_liveness_ns = c->cluster.liveness_window_ms * NS_PER_MS;
    o->worker_heartbeat_ns = c->worker.heartbeat_interval_ms * NS_PER_MS;
    o->worker_lease_ns = c->worker.lease_ms * NS_PER_MS;
    o->drain_timeout_ns = c->worker.drain_timeout_ms * NS_PER_MS;
    o->watch_events_max = c->limits.watch_events;
    o->snapshot_interval_ns = c->cluster.snapshot_interval_ms * NS_PER_MS;
    o->snapshot_entries = c->cluster.snapshot_threshold;
    o->log_bytes_max = c->cluster.log_bytes_max;
    o->log_bytes_kept = c->cluster.log_bytes_kept;
    o->disk_reserve_bytes = c->storage.reserve_bytes;
    o->scrub_interval_ns = c->storage.scrub_interval_ms * NS_PER_MS;
    o->wal.segment_bytes = (uint32_t) c->wal.segment_bytes;
}

static void raft_options_from_config(const struct config *c, struct raft_options *o) {
    o->heartbeat_interval_ns = c->cluster.heartbeat_timeout_ms * NS_PER_MS;
    o->election_timeout_min_ns = c->cluster.election_timeout_ms * NS_PER_MS;
    o->election_timeout_max_ns = 2 * o->election_timeout_min_ns;
    o->disk_stall_ns = 2 * o->election_timeout_max_ns;
    o->uncommitted_bytes_max = c->limits.uncommitted_bytes;
    o->uncommitted_entries_max = c->limits.uncommitted_entries;
    o->applied_entries_kept = c->cluster.snapshot_threshold;
    o->lease_reads = c->cluster.lease_reads;
    o->lease_drift_ppm = (uint32_t) c->cluster.lease_drift_ppm;
}

static int start_replica(struct server *s, const struct env *env) {
    struct replica_options o;
    struct errtext why = {0};
    int rc;

    replica_options_default(&o, s->config.node.id, random_os_next(&s->random));
    options_from_config(s, &o);
    raft_options_from_config(&s->config, &o.raft);
    memcpy(o.cluster_id, s->cluster_id, sizeof(o.cluster_id));
    o.bootstrap = s->forming ? &s->members : NULL;
    o.join = s->waiting;
    o.hints = &s->members;
    rc = replica_open(&o, env, s->kv, &s->replica, &why);
    if (rc < 0)
        server_fail(s, "the node refuses to start", rc, &why);
    else
        peer_net_set_disk(s->peers, replica_disk(s->replica));
    return rc;
}

static int start_storage(struct server *s, struct disk *ret_disk) {
    struct errtext why = {0};
    char path[4096];
    int rc;

    rc = random_os_init(&s->random);
    if (rc == 0)
        rc = disk_posix_open(s->config.node.data_dir, &s->disk, ret_disk, &why);
    if (rc < 0) {
        server_fail(s, "cannot open the data directory", rc, &why);
        return rc;
    }
    rc = server_identity(s, ret_disk); /* before anything is created */
    if (rc < 0)
        return rc;
    rc = disk_queue_new(&s->loop, &s->disk_queue);
    if (rc == 0)
        rc = disk_queue_new(&s->loop, &s->bulk_queue);
    if (rc == 0) {
        (void) snprintf(path, sizeof(path), "%s/state", s->config.node.data_dir);
        rc = kv_rocks_open(path, &s->kv, &why);
    }
    if (rc < 0)
        server_fail(s, "cannot open the data directory", rc, &why);
    return rc;
}

/* ---- clients and worker ---------------------------------------------------------------------- */

/* The bound on connections must stand before there is a listener. */
static int guard_connections(struct server *s) {
    struct accept_guard_options o = {.log = &s->log};
    struct errtext why = {0};
    char host[256];
    uint32_t wanted = (uint32_t) s->config.limits.connections;
    int rc = accept_guard_raise_files(wanted, &o.connections_max, &why);

    if (rc == 0)
        rc = config_split_address(s->config.node.listen, host, &o.port, &why);
    if (rc == 0)
        rc = accept_guard_start(&o);
    if (rc < 0) {
        server_fail(s, "cannot serve clients", rc, &why);
        return rc;
    }
    if (o.connections_max < wanted)
        log_warn(&s->log, "few open files are allowed",
                 "limits.connections=%u possible=%u "
                 "why=\"raise the limit of open files (ulimit -n, LimitNOFILE of systemd)\"",
                 wanted, o.connections_max);
    return 0;
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
    ao.watches_max = c->limits.watches;
    ao.logs_max = c->limits.log_streams;
    ao.lists_max = c->limits.lists;
    ao.sessions_max = c->limits.worker_streams;
    rc = api_new(&s->loop, &ao, &s->api, &why);
    if (rc < 0)
        server_fail(s, "cannot serve clients", rc, &why);
    return rc;
}

/* The nodes a worker may move to when its own is away: from the configuration and from the state,
 * which knows those that joined later. */
struct worker_nodes {
    const char *addresses[WORKER_NODES_MAX];
    size_t count;
};

static void add_worker_node(struct worker_nodes *w, const char *address) {
    if (!address[0] || w->count == WORKER_NODES_MAX)
        return;
    for (size_t i = 0; i < w->count; i++) {
        if (strcmp(w->addresses[i], address) == 0)
            return;
    }
    w->addresses[w->count++] = address;
}

static void worker_nodes(struct server *s, struct worker_nodes *w) {
    const struct config *c = &s->config;

    *w = (struct worker_nodes){0};
    add_worker_node(w, c->node.advertise);
    for (const struct fsm_node *n = fsm_node_first(replica_fsm(s->replica)); n; n = n->next) {
        if (n->id != c->node.id && !n->removed)
            add_worker_node(w, arena_strdup(&s->arena, n->client_address));
    }
    for (size_t i = 0; i < c->cluster.members_count; i++) {
        if (c->cluster.members[i].id != c->node.id)
            add_worker_node(w, c->cluster.members[i].client_address);
    }
    for (const char *p = c->join; p;) {
        size_t len = strcspn(p, ",");

        add_worker_node(w, arena_printf(&s->arena, "%.*s", (int) len, p));
        p = p[len] ? p + len + 1 : NULL;
    }
}

static void worker_arguments(struct server *s) {
    const struct config *c = &s->config;
    const char **a = s->worker_argv;
    struct worker_nodes nodes;
    size_t n = 0;

    a[n++] = "chronos";
    a[n++] = "worker";
    a[n++] = "--id";
    a[n++] = arena_printf(&s->arena, "node%llu", (unsigned long long) c->node.id);
    a[n++] = "--data-dir";
    a[n++] = c->worker.data_dir;
    a[n++] = "--drain";
    a[n++] = arena_printf(&s->arena, "%llums", (unsigned long long) c->worker.drain_timeout_ms);
    worker_nodes(s, &nodes);
    for (size_t i = 0; i < nodes.count; i++) {
        a[n++] = "--node";
        a[n++] = nodes.addresses[i];
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
    int r;

    (void) snprintf(path, sizeof(path), "%s/server.pid", s->config.node.data_dir);
    r = sibling_write_pid(path, getpid());
    if (r < 0)
        log_warn(&s->log, "cannot write the server's pid file", "file=%s error=\"%s\"", path,
                 err_name(r));
}

static void on_clock_changed(void *arg) {
    struct server *s = arg;

    if (s->replica)
        replica_on_clock_changed(s->replica);
}

static int start_clocks(struct server *s) {
    struct errtext why = {0};
    int rc = tzdir_init(&s->tzdir, NULL, &why);

    if (rc < 0) {
        server_fail(s, "time zones", rc, &why);
        return rc;
    }
    rc = clock_watch_init(&s->loop, &s->clock_watch, on_clock_changed, s);
    s->watches_clock = rc == 0;
    if (rc < 0)
        log_warn(&s->log, "not told when the clock is set: noticed within a second",
                 "reason=\"%s\"", strerror(-rc));
    return 0;
}

int server_start(struct server *s) {
    struct env env = {.clock = clock_env(), .log = &s->log};
    int rc;

    members_from_config(s);
    rc = guard_connections(s); /* before anything is created */
    if (rc == 0)
        rc = start_storage(s, &env.disk);
    if (rc == 0)
        rc = start_clocks(s);
    if (rc == 0)
        rc = start_peers(s);
    if (rc < 0)
        return rc;
    env.zones = tzdir_env(&s->tzdir);
    env.random = random_os_env(&s->random);
    env.disk_queue = disk_queue_env(s->disk_queue);
    env.bulk_queue = disk_queue_env(s->bulk_queue);
    env.peers = peer_net_env(s->peers);
    rc = start_replica(s, &env);
    if (rc == 0)
        rc = start_api(s);
    if (rc < 0)
        return rc;
    write_pid_file(s);
    return start_worker(s);
}
