/* Checker of answers that are none any more (R18): what a follower says to an older session of its
 * leader's knowledge of it - before a link broke, or before the follower lost what it had - moves
 * neither its match nor its last sign of life. Looked at while the new session knows nothing yet:
 * then such an answer would be believed most. Thread: one. */
#include "sim/checker_sessions.h"

#include "chronos/internal/v1/peer.pb-c.h"

typedef Chronos__Internal__V1__RaftMessage wire_message;

static bool is_answer(const wire_message *m) {
    return m->type == RAFT_MSG_APPEND_RESP || m->type == RAFT_MSG_SNAPSHOT_RESP ||
           m->type == RAFT_MSG_HEARTBEAT_RESP;
}

static bool status_of(const struct sim_node *n, unsigned from, struct raft_peer_status *ret) {
    const struct raft *r = replica_raft(n->replica);

    return raft_role(r) == RAFT_LEADER && raft_peer_status(r, from + 1, ret) == 0;
}

bool checker_stale_begin(struct world *w, const struct sim_node *n, unsigned from,
                         struct slice payload, struct raft_peer_status *ret) {
    const Chronos__Internal__V1__PeerMessage *m;
    uint64_t term = raft_term(replica_raft(n->replica));
    bool stale = false;

    if (!status_of(n, from, ret) || ret->match > 0)
        return false;
    arena_clear(&w->arena);
    m = chronos__internal__v1__peer_message__unpack(arena_pb(&w->arena), payload.len, payload.data);
    for (size_t i = 0; m && i < m->n_raft; i++) {
        const wire_message *a = m->raft[i];

        if (a->term > term || (is_answer(a) && a->term == term && a->session == ret->session))
            return false; /* may change anything */
        stale = stale || (is_answer(a) && a->session != ret->session);
    }
    return stale;
}

void checker_stale_end(struct world *w, const struct sim_node *n, unsigned from,
                       const struct raft_peer_status *before) {
    struct raft_peer_status now;

    sim_count(w, SIM_STAT_ANSWERS_STALE);
    if (!n->up || !status_of(n, from, &now) || now.session != before->session)
        return;
    if (now.match != before->match || now.last_contact.ns != before->last_contact.ns)
        sim_fail(w,
                 "leader %u believes an answer of node %u to an older session: match %llu, was "
                 "%llu",
                 n->slot + 1, from + 1, (unsigned long long) now.match,
                 (unsigned long long) before->match);
}
