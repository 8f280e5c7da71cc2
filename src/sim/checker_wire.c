/* Checkers of what leaves a node. It binds the node for ever: a term it named (R7), its one vote a
 * term (R8), given only to a log at least as good as its own on disk (R9), what it acknowledged
 * (R13, R15); and what a leader sends is what the log holds (R3). Thread: one. */
#include "sim/sim_internal.h"

#include "chronos/internal/v1/peer.pb-c.h"

#define CANDIDATE_SELF_BITS 5
#define MESSAGE_BYTES_MAX (48UL * 1024 * 1024) /* what a node collects for a peer in a turn */

typedef Chronos__Internal__V1__RaftMessage wire_message;

static uint64_t candidate_key(uint64_t term, uint64_t id) {
    return term << CANDIDATE_SELF_BITS | id;
}

static void sent_vote_request(struct world *w, struct sim_node *n, const wire_message *m) {
    const struct raft *r = replica_raft(n->replica);
    struct checker *c = &w->checker;

    /* Id 0 stands for the first candidate of a term. */
    if (!checker_remember(w, &c->candidates, candidate_key(m->term, 0), (n->slot + 1) << 1) &&
        !u64map_get(&c->contested, m->term)) {
        (void) checker_remember(w, &c->contested, m->term, 1);
        sim_count(w, SIM_STAT_CONTESTED);
    }
    if (!checker_remember(w, &c->candidates, candidate_key(m->term, n->slot + 1),
                          (m->log_term << 32 | m->log_index) << 1))
        sim_fail(w, "node %u asks for votes in term %llu with two different logs", n->slot + 1,
                 (unsigned long long) m->term);
    /* (One that follows the term's winner by now may have been cut.) */
    if (m->term == raft_term(r) && raft_role(r) == RAFT_CANDIDATE &&
        m->log_index > raft_durable_index(r))
        sim_fail(w, "node %u asks for votes with entry %llu, %llu is on its disk", n->slot + 1,
                 (unsigned long long) m->log_index, (unsigned long long) raft_durable_index(r));
}

/* The newest entry on disk that is older than @term: what the node's vote in @term was judged by.
 * False when it is no longer in memory (then it is committed and old). */
static bool durable_before(struct sim_node *n, uint64_t term, uint64_t *ret_term,
                           uint64_t *ret_index) {
    const struct raft *r = replica_raft(n->replica);

    for (uint64_t i = raft_durable_index(r); i >= raft_first_in_memory(r) && i > 0; i--) {
        const struct raft_entry *e = raft_entry_at(r, i);

        if (e->term >= term)
            continue;
        *ret_term = e->term;
        *ret_index = i;
        return true;
    }
    return false;
}

static void note_voter(struct world *w, const struct sim_node *n, const wire_message *m) {
    uint64_t key = m->term << 8 | m->to;
    uint64_t bits = (uint64_t) (uintptr_t) u64map_get(&w->checker.voters, key);

    if (u64map_put(&w->checker.voters, key, (void *) (uintptr_t) (bits | 1ULL << (n->slot + 1))) <
        0)
        w->no_memory = true;
}

static void sent_vote(struct world *w, struct sim_node *n, const wire_message *m) {
    struct checker *c = &w->checker;
    uint64_t asked, term = 0, index = 0;

    sim_trace(w, "node %u: %s node %llu its vote term=%llu", n->slot + 1,
              m->reject ? "refuses" : "gives", (unsigned long long) m->to,
              (unsigned long long) m->term);
    if (m->reject) {
        sim_count(w, SIM_STAT_VOTES_REFUSED);
        return;
    }
    if (!checker_remember(w, &c->votes, m->term << 8 | n->slot, m->to << 1))
        sim_fail(w, "node %u votes twice in term %llu", n->slot + 1, (unsigned long long) m->term);
    note_voter(w, n, m);
    asked = (uint64_t) (uintptr_t) u64map_get(&c->candidates, candidate_key(m->term, m->to)) >> 1;
    if (asked == 0) {
        sim_fail(w, "node %u votes for node %llu, which did not ask", n->slot + 1,
                 (unsigned long long) m->to);
        return;
    }
    if (durable_before(n, m->term, &term, &index) && (term << 32 | index) > asked)
        sim_fail(w,
                 "node %u has entry %llu of term %llu and votes for node %llu with entry %llu of "
                 "term %llu",
                 n->slot + 1, (unsigned long long) index, (unsigned long long) term,
                 (unsigned long long) m->to, (unsigned long long) (asked & UINT32_MAX),
                 (unsigned long long) (asked >> 32));
}

/* R20: one message is bounded; an entry above the bound travels alone. */
static void check_append_bytes(struct world *w, struct sim_node *n, const wire_message *m) {
    size_t bytes = 0;

    for (size_t i = 0; i < m->n_entries; i++)
        bytes += m->entries[i]->data.len;
    if (m->n_entries > 1 && bytes > w->node_options.raft.append_bytes_max)
        sim_fail(w, "node %u sends %zu entries of %zu bytes, at most %zu go into a message",
                 n->slot + 1, m->n_entries, bytes, w->node_options.raft.append_bytes_max);
}

static void sent_append(struct world *w, struct sim_node *n, const wire_message *m) {
    const struct raft *r = replica_raft(n->replica);

    check_append_bytes(w, n, m);

    if (m->n_entries > 0)
        sim_trace(w, "node %u: sends node %llu entries=%llu..%llu commit=%llu", n->slot + 1,
                  (unsigned long long) m->to, (unsigned long long) m->log_index + 1,
                  (unsigned long long) m->log_index + m->n_entries, (unsigned long long) m->commit);
    if (m->n_entries > 0 && m->log_index + 1 < raft_first_in_memory(r))
        sim_count(w, SIM_STAT_APPENDS_OLD);
    for (size_t i = 0; i < m->n_entries; i++) {
        const Chronos__Internal__V1__LogEntry *e = m->entries[i];

        if (!checker_remember(w, &w->checker.entry_content, checker_entry_key(e->index, e->term),
                              checker_content_hash(e->type, slice_of(e->data.data, e->data.len))))
            sim_fail(w, "node %u sends another entry %llu of term %llu than there is", n->slot + 1,
                     (unsigned long long) e->index, (unsigned long long) e->term);
    }
    if (m->term == raft_term(r) && m->commit > raft_commit(r))
        sim_fail(w, "leader %u tells commit %llu, it knows %llu", n->slot + 1,
                 (unsigned long long) m->commit, (unsigned long long) raft_commit(r));
}

static void sent_append_answer(struct world *w, struct sim_node *n, const wire_message *m) {
    const struct raft *r = replica_raft(n->replica);

    if (m->reject) {
        sim_count(w, SIM_STAT_APPENDS_REFUSED);
        return;
    }
    if (m->match > raft_durable_index(r)) {
        if (m->term == raft_term(r) &&
            !checker_installing(n)) /* else a newer leader has cut it meanwhile */
            sim_fail(w, "node %u acknowledges %llu with %llu durable", n->slot + 1,
                     (unsigned long long) m->match, (unsigned long long) raft_durable_index(r));
        return;
    }
    if (m->match > n->acked_index && m->match <= n->chain_last) {
        n->acked_index = m->match;
        n->acked_term = n->chain[m->match].term; /* the entry itself may have left memory */
    }
}

/* Dissertation 3.10: only a target that has the whole log is told to take over. */
static void sent_timeout_now(struct world *w, struct sim_node *n, const wire_message *m) {
    struct raft_peer_status st;

    sim_count(w, SIM_STAT_TRANSFERS);
    n->hands_over = (struct sim_duty){0};
    if (raft_peer_status(replica_raft(n->replica), m->to, &st) == 0 && st.match < n->chain_last)
        sim_fail(w, "node %u hands leadership to node %llu, which has %llu of %llu entries",
                 n->slot + 1, (unsigned long long) m->to, (unsigned long long) st.match,
                 (unsigned long long) n->chain_last);
}

/* W1: a snapshot is acknowledged once it would survive; like an entry it binds the node (R13). */
static void sent_snapshot_answer(struct world *w, struct sim_node *n, const wire_message *m) {
    const struct raft *r = replica_raft(n->replica);

    n->receiving = 0;
    if (m->reject) {
        sim_count(w, SIM_STAT_INSTALLS_STALE);
        return;
    }
    if (m->match > raft_durable_index(r) && m->term == raft_term(r))
        sim_fail(w, "node %u acknowledges a snapshot at %llu with %llu durable", n->slot + 1,
                 (unsigned long long) m->match, (unsigned long long) raft_durable_index(r));
    if (m->match > n->acked_index && m->match <= n->chain_last) {
        n->acked_index = m->match;
        n->acked_term = n->chain[m->match].term;
    }
}

static void sent_snapshot(struct world *w, struct sim_node *n,
                          const Chronos__Internal__V1__SnapshotBlocks *b) {
    if (b->transfer != n->sent_transfer && b->sequence == 0)
        sim_count(w, SIM_STAT_INSTALLS_BEGUN);
    else if (b->transfer == n->sent_transfer && b->sequence <= n->sent_sequence)
        sim_count(w, SIM_STAT_INSTALLS_RESUMED);
    n->sent_transfer = b->transfer;
    n->sent_sequence = b->sequence;
}

static void sent_snapshot_ack(struct world *w, struct sim_node *n,
                              const Chronos__Internal__V1__SnapshotAck *a) {
    /* Whoever led an older term could replace the transfer of the leader. */
    if (a->term < n->seen_term)
        sim_fail(w, "node %u acknowledges blocks of term %llu, it was in term %llu", n->slot + 1,
                 (unsigned long long) a->term, (unsigned long long) n->seen_term);
    n->receiving = a->code == 0 ? a->transfer : 0;
    if (a->code != 0) {
        sim_count(w, SIM_STAT_INSTALLS_REFUSED);
        sim_trace(w, "node %u: ends transfer %llu: code %u %s", n->slot + 1,
                  (unsigned long long) a->transfer, a->code, a->message);
    }
}

static void sent_raft(struct world *w, struct sim_node *n, const wire_message *m) {
    if (m->type == RAFT_MSG_PRE_VOTE_RESP && m->reject)
        sim_count(w, SIM_STAT_PRE_VOTES_REFUSED);
    if (m->type != RAFT_MSG_PRE_VOTE_REQ && m->type != RAFT_MSG_PRE_VOTE_RESP)
        n->sent_term = MAX(n->sent_term, m->term);
    if (m->from != n->slot + 1 || m->to == m->from || m->term == 0)
        sim_fail(w, "node %u sends a message from %llu to %llu in term %llu", n->slot + 1,
                 (unsigned long long) m->from, (unsigned long long) m->to,
                 (unsigned long long) m->term);
    if (m->type == RAFT_MSG_VOTE_REQ)
        sent_vote_request(w, n, m);
    else if (m->type == RAFT_MSG_VOTE_RESP)
        sent_vote(w, n, m);
    else if (m->type == RAFT_MSG_APPEND_REQ)
        sent_append(w, n, m);
    else if (m->type == RAFT_MSG_APPEND_RESP)
        sent_append_answer(w, n, m);
    else if (m->type == RAFT_MSG_TIMEOUT_NOW)
        sent_timeout_now(w, n, m);
    else if (m->type == RAFT_MSG_SNAPSHOT_RESP)
        sent_snapshot_answer(w, n, m);
}

bool checker_sent(struct world *w, struct sim_node *n, struct slice payload) {
    Chronos__Internal__V1__PeerMessage *m;
    bool appends = false;

    arena_clear(&w->arena);
    m = chronos__internal__v1__peer_message__unpack(arena_pb(&w->arena), payload.len, payload.data);
    if (!m) {
        sim_fail(w, "node %u sends a malformed message", n->slot + 1);
        return false;
    }
    if (payload.len > MESSAGE_BYTES_MAX)
        sim_fail(w, "node %u sends a message of %zu bytes", n->slot + 1, payload.len);
    for (size_t i = 0; i < m->n_raft && !w->failed; i++) {
        conformance_sent(w, n, m->raft[i]);
        sent_raft(w, n, m->raft[i]);
        appends = appends || m->raft[i]->type == RAFT_MSG_APPEND_REQ;
    }
    for (size_t i = 0; i < m->n_proposals; i++)
        sim_count(w, m->proposals[i]->attempt > 1 ? SIM_STAT_FORWARDED_AGAIN : SIM_STAT_FORWARDED);
    for (size_t i = 0; i < m->n_results; i++)
        if (m->results[i]->outcome == CHRONOS__INTERNAL__V1__FORWARD_OUTCOME__FORWARD_OUTCOME_FULL)
            sim_count(w, SIM_STAT_FORWARDS_FULL);
    if (m->snapshot)
        sent_snapshot(w, n, m->snapshot);
    if (m->snapshot_ack)
        sent_snapshot_ack(w, n, m->snapshot_ack);
    return appends;
}
