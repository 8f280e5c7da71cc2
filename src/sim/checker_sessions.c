/* Checkers of what a leader makes of its followers' answers.
 *
 * Answers that are none any more (R18): what a follower says to an older session of its leader's
 * knowledge of it - before a link broke, or before the follower lost what it had - moves neither
 * its match nor its last sign of life. Looked at while the new session knows nothing yet: then such
 * an answer would be believed most. Commitment does not lag (figure 2, last rule): what a majority
 * has told to have, in the leader's own term, is committed, whether or not it is the leader's
 * newest or on its own disk. Thread: one. */
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

static uint64_t match_of(const struct raft *r, uint64_t self, uint64_t id) {
    struct raft_peer_status st;

    if (id == self)
        return raft_durable_index(r);
    return raft_peer_status(r, id, &st) == 0 ? st.match : 0;
}

void checker_commits(struct world *w, const struct sim_node *n) {
    const struct raft *r = replica_raft(n->replica);
    const struct raft_config *c = raft_config_latest(r);

    /* A configuration that has just come into force may ask for less: the answers to its own entry
     * will show that. */
    if (raft_role(r) != RAFT_LEADER || raft_config_latest_index(r) > raft_commit(r))
        return;
    for (size_t i = 0; i < c->count; i++) {
        uint64_t index = match_of(r, n->slot + 1, c->members[i].id), bits = 0;
        const struct raft_entry *e = raft_entry_at(r, index);

        if (index <= raft_commit(r) || !e || e->term != raft_term(r))
            continue;
        for (size_t k = 0; k < c->count; k++)
            if (match_of(r, n->slot + 1, c->members[k].id) >= index)
                bits |= 1ULL << c->members[k].id;
        if (checker_quorum(c, bits))
            sim_fail(w, "leader %u has committed %llu, a majority told to have %llu of its term",
                     n->slot + 1, (unsigned long long) raft_commit(r), (unsigned long long) index);
    }
}
