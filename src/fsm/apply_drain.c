/* Drain.
 *
 * "No new leases; running attempts finish within drain_timeout, then are released without burning
 * an attempt" (C36). Here is only what all must agree on: who gets no new work, and until when what
 * runs there may run. A worker drains by itself or through its node; each is lifted by itself. */
#include "fsm/fsm_internal.h"

static int drain_node(struct fsm *f, const struct item_drain *s, int64_t until_ms,
                      struct fsm_result *res) {
    struct fsm_node *n = nodes_find(f, s->node_id);

    if (!n) {
        res->code = FSM_NOT_FOUND;
        return 0;
    }
    if (n->removed && s->on) {
        refuse(res, "the node was removed from the cluster");
        return 0;
    }
    if (n->draining == s->on && n->drain_until_ms == until_ms)
        return 0;
    n->draining = s->on;
    n->drain_until_ms = until_ms;
    for (struct fsm_worker *w = f->workers_first; w; w = w->next) {
        if (w->node_id != n->id)
            continue;
        workers_refresh_drain(f, w);
        f->output.workers_changed = true;
    }
    return nodes_put(f, n);
}

static int drain_worker(struct fsm *f, struct apply *a, const struct item_drain *s,
                        int64_t until_ms, struct fsm_result *res) {
    struct fsm_worker *w = workers_find(f, s->worker_id);

    if (!w) {
        res->code = FSM_NOT_FOUND;
        return 0;
    }
    if (w->own_draining == s->on && w->own_drain_until_ms == until_ms)
        return 0;
    w->own_draining = s->on;
    w->own_drain_until_ms = until_ms;
    workers_refresh_drain(f, w);
    f->output.workers_changed = true;
    return workers_put_again(f, a, w);
}

int apply_drain(struct fsm *f, struct apply *a, const void *item, struct slice raw,
                struct fsm_result *res) {
    const struct item_drain *s = item;
    int64_t until_ms = 0;

    (void) raw;
    ASSERT(res->code == FSM_OK);
    if ((s->node_id == 0) == (s->worker_id.len == 0)) {
        refuse(res, "node_id, worker_id: exactly one of them must be given");
        return 0;
    }
    if (s->on && (s->timeout_ms < 0 || s->timeout_ms > FSM_DRAIN_TIMEOUT_MS_MAX)) {
        refuse(res, "timeout_ms: must be from 0 to 604800000 (7 days)");
        return 0;
    }
    if (s->on)
        until_ms = a->now_ms <= INT64_MAX - s->timeout_ms ? a->now_ms + s->timeout_ms : INT64_MAX;
    if (s->node_id > 0)
        return drain_node(f, s, until_ms, res);
    return drain_worker(f, a, s, until_ms, res);
}
