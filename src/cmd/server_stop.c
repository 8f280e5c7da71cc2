/* The orderly stop: the same as draining this node, then its end.
 *
 * Leadership moves first, running attempts may finish while this node still commits their reports,
 * then clients, peers and disk. What fails on the way never makes it unsafe: the log has
 * everything. */
#include "cmd/server_internal.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Beyond the drain, for the worker's own end: 2 s to end what it runs, 1.5 s to report. A worker
 * that is killed before would leave its attempts' grandchildren behind. */
#define WORKER_GRACE_MS 4000
#define API_STOP_MS 1000
#define TRANSFER_MS 700
#define POLL_MS 5

/* ---- the end --------------------------------------------------------------------------------- */

static void close_handle(uv_handle_t *h, void *arg) {
    (void) arg;
    if (!uv_is_closing(h))
        uv_close(h, NULL);
}

static void finish(struct server *s) {
    struct errtext why = {0};
    int rc = replica_settle(s->replica, &why);

    if (rc < 0)
        log_warn(&s->log, "the state was not settled; the log will replay it",
                 "error=\"%s\" reason=\"%s\"", err_name(rc), why.s);
    if (s->watches_clock)
        clock_watch_close(&s->clock_watch, NULL);
    s->bulk_queue = disk_queue_stop(s->bulk_queue);
    s->disk_queue = disk_queue_stop(s->disk_queue);
    s->replica = replica_free(s->replica);
    s->api = api_free(s->api);
    s->kv->ops->close(s->kv);
    s->kv = NULL;
    s->disk = disk_posix_close(s->disk);
    log_info(&s->log, "stopped", "node=%llu", (unsigned long long) s->config.node.id);
    uv_walk(&s->loop, close_handle, NULL);
}

/* A job of one queue may, when done, give the other one more: both must be found empty at once,
 * with no turn in between that could begin something new (see SERVER_CLOSING in the turn). */
static void on_disk_poll(uv_timer_t *t) {
    struct server *s = t->data;

    if (disk_queue_pending(s->disk_queue) > 0 || disk_queue_pending(s->bulk_queue) > 0 ||
        !replica_idle(s->replica))
        return;
    (void) uv_timer_stop(&s->stop_timer);
    finish(s);
}

static void on_peers_closed(void *arg) {
    struct server *s = arg;

    (void) uv_timer_start(&s->stop_timer, on_disk_poll, 0, 1);
}

static void on_api_stopped(void *arg) {
    struct server *s = arg;

    server_set_state(s, SERVER_CLOSING);
    peer_net_close(s->peers, on_peers_closed, s);
    s->peers = NULL;
}

static void stop_api(struct server *s) {
    server_set_state(s, SERVER_STOPPING_API);
    api_stop(s->api, API_STOP_MS, on_api_stopped, s);
}

/* ---- leadership and worker ------------------------------------------------------------------- */

static size_t other_voters(const struct server *s) {
    const struct raft_config *c = raft_config_latest(replica_raft(s->replica));
    size_t n = 0;

    for (size_t i = 0; i < c->count; i++) {
        if (c->members[i].id != s->config.node.id && (c->members[i].flags & RAFT_MEMBER_VOTER))
            n++;
    }
    return n;
}

static void on_worker_stopped(void *arg);

static void handed_over(struct server *s) {
    (void) uv_timer_stop(&s->stop_timer);
    if (s->state == SERVER_HANDING_OVER_AGAIN) {
        stop_api(s);
        return;
    }
    server_set_state(s, SERVER_STOPPING_WORKER);
    if (s->worker)
        supervise_stop(s->worker, s->config.worker.drain_timeout_ms + WORKER_GRACE_MS,
                       on_worker_stopped, s);
    else
        on_worker_stopped(s);
}

/* Another one leads and this node has heard of it: else the worker's word that it drains would
 * reach nobody, and the new leader would give it work until its next heartbeat. */
static void on_transfer_poll(uv_timer_t *t) {
    struct server *s = t->data;
    uint64_t leader = replica_leader(s->replica);

    if ((raft_role(replica_raft(s->replica)) != RAFT_LEADER && leader > 0 &&
         leader != s->config.node.id) ||
        uv_now(&s->loop) >= s->transfer_end)
        handed_over(s);
}

static void hand_over(struct server *s, enum server_state state) {
    server_set_state(s, state);
    if (raft_role(replica_raft(s->replica)) != RAFT_LEADER || other_voters(s) == 0) {
        handed_over(s);
        return;
    }
    replica_transfer_leadership(s->replica, 0);
    s->transfer_end = uv_now(&s->loop) + TRANSFER_MS;
    (void) uv_timer_start(&s->stop_timer, on_transfer_poll, POLL_MS, POLL_MS);
}

static void on_worker_stopped(void *arg) {
    struct server *s = arg;

    s->worker = supervise_free(s->worker);
    hand_over(s, SERVER_HANDING_OVER_AGAIN);
}

void server_stop(struct server *s) {
    if (s->state == SERVER_STARTING)
        s->stop_wanted = true;
    if (s->state == SERVER_STOPPING_WORKER && s->worker)
        supervise_hurry(s->worker); /* the second signal */
    if (s->state != SERVER_SERVING)
        return;
    log_info(&s->log, "stopping", "node=%llu drain_timeout_ms=%llu",
             (unsigned long long) s->config.node.id,
             (unsigned long long) s->config.worker.drain_timeout_ms);
    hand_over(s, SERVER_HANDING_OVER);
}

/* ---- the other end --------------------------------------------------------------------------- */

static void ignore(void *arg) {
    (void) arg;
}

void server_die(struct server *s, int rc, const struct errtext *why) {
    log_error(&s->log, "the node stops", "node=%llu error=\"%s\" reason=\"%s\"",
              (unsigned long long) s->config.node.id, err_name(rc), why->s);
    /* Else its worker looks for another node and goes on: right after a failure, wrong when this
     * node has left the cluster. */
    if (rc == ERR_FOREIGN && s->worker && s->state < SERVER_STOPPING_WORKER)
        supervise_stop(s->worker, s->config.worker.drain_timeout_ms, ignore, NULL);
    /* Damage does not heal either: a restart would serve with it until it is found again. */
    _exit(rc == ERR_FOREIGN || rc == ERR_CORRUPT ? EXIT_REFUSED : EXIT_FAILURE);
}
