/* Drains ordered by an operator: leadership moves away, workers are told.
 *
 * What is drained stands in the state machine (Drain command), so every node acts on its own part:
 * the leader, when its own node is drained, hands over to a voter that is not; a node tells the
 * workers whose streams end here. The scheduler gives them nothing by itself. Thread: the loop. */
#include "node/session_internal.h"

#include <string.h>

#define DRAIN_RETRY_MS 500

int64_t replica_drain_timeout_ms(const struct replica *r) {
    return (int64_t) (r->o.drain_timeout_ns / NS_PER_MS);
}

static bool node_drains(struct replica *r, uint64_t id) {
    const struct fsm_node *n = fsm_node_find(r->fsm, id);

    return n && n->draining;
}

/* The live voter that is not drained itself and lacks least; 0 = none is near. */
static uint64_t successor(struct replica *r) {
    const struct raft_config *c = raft_config_latest(r->raft);
    uint64_t best = 0, best_match = 0;

    for (size_t i = 0; i < c->count; i++) {
        const struct raft_member *m = &c->members[i];
        struct raft_peer_status st;

        if (m->id == r->o.id || !(m->flags & RAFT_MEMBER_VOTER) || node_drains(r, m->id) ||
            !membership_is_live(r, m->id) || raft_peer_status(r->raft, m->id, &st) != 0)
            continue;
        if (best == 0 || st.match > best_match) {
            best = m->id;
            best_match = st.match;
        }
    }
    return best;
}

void drain_run(struct replica *r) {
    struct raft_event ev = {.type = RAFT_EV_TRANSFER};

    if (!replica_leads(r) || !node_drains(r, r->o.id)) {
        r->membership.drain_at = MONO_NEVER;
        return;
    }
    if (r->membership.drain_at.ns != MONO_NEVER.ns && !mono_reached(r->now, r->membership.drain_at))
        return;
    r->membership.drain_at = mono_add_ms(r->now, DRAIN_RETRY_MS);
    ev.transfer_to = successor(r);
    if (ev.transfer_to == 0)
        return; /* nobody else can: it leads on */
    log_info(r->env.log, "drained: handing leadership over", "node=%llu to=%llu",
             (unsigned long long) r->o.id, (unsigned long long) ev.transfer_to);
    (void) replica_step(r, &ev, NULL);
}

/* ---- workers -----------------------------------------------------------------------------------
 */

void drain_tell(struct worker_session *s) {
    struct replica *r = s->replica;
    const struct fsm_worker *w;
    Chronos__V1__NodeMessage m = CHRONOS__V1__NODE_MESSAGE__INIT;
    Chronos__V1__NodeDrain drain = CHRONOS__V1__NODE_DRAIN__INIT;
    int64_t left;

    if (s->state != SESSION_ACTIVE)
        return;
    w = fsm_worker_find(r->fsm, s->worker_id);
    if (!w || (w->draining == s->told_drain &&
               (!w->draining || w->drain_until_ms == s->told_drain_until_ms)))
        return;
    s->told_drain = w->draining;
    s->told_drain_until_ms = w->drain_until_ms;
    left = w->drain_until_ms - r->env.clock.wall(r->env.clock.ctx).ms;
    drain.on = w->draining;
    drain.timeout_ms = w->draining ? MAX(left, (int64_t) 0) : 0;
    m.body_case = CHRONOS__V1__NODE_MESSAGE__BODY_DRAIN;
    m.drain = &drain;
    worker_session_send(s, &m.base);
}

void drain_tell_all(struct replica *r) {
    for (struct worker_session *s = r->sessions; s; s = s->next)
        drain_tell(s);
    r->scheduler.dirty = true;
    r->wants_turn = true;
}
