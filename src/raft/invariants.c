/* What must be true between any two steps. Cheap: O(members + configurations + batches), never
 * O(entries). The numbers in brackets are the invariants of the reliability requirements. */
#include "raft/raft_internal.h"

static void check_log(const struct raft *r) {
    uint64_t last = raft_log_last_index(&r->log);

    /* R6: applied <= commit <= last, and nothing unapplied has left memory (R24). */
    ASSERT(r->log.prev_index <= r->applied);
    ASSERT(r->applied <= r->apply_index);
    ASSERT(r->apply_index <= r->commit);
    ASSERT(r->commit <= last);
    ASSERT(r->durable_index <= last);
    ASSERT(r->apply_index <= r->durable_index);
    ASSERT(raft_log_last_term(&r->log) <= r->term);
    ASSERT((r->log.prev_index == 0) == (r->log.prev_term == 0));
}

static void check_durability(const struct raft *r) {
    uint64_t seq = r->durable_seq;

    ASSERT(r->durable_seq <= r->persist_seq);
    ASSERT(r->hard_state_seq <= r->persist_seq);
    ASSERT(!r->hard_state_dirty);
    ASSERT(r->batches_count == r->persist_seq - r->durable_seq);
    for (size_t i = 0; i < r->batches_count; i++) {
        const struct raft_batch *b = &r->batches[r->batches_head + i];

        ASSERT(b->seq == ++seq);
        ASSERT(b->last <= raft_log_last_index(&r->log));
    }
}

static void check_configs(const struct raft *r) {
    ASSERT(r->configs_count > 0);
    for (size_t i = 1; i < r->configs_count; i++) {
        ASSERT(r->configs[i].index > r->configs[i - 1].index);
        ASSERT(r->configs[i].index > r->commit);
        ASSERT(r->configs[i].index <= raft_log_last_index(&r->log));
    }
    /* R11: a leader has at most one uncommitted configuration of its own making; older ones it
     * inherited are committed in order with it. */
    ASSERT(raft_config_current(r)->count <= RAFT_NODES_MAX);
}

static void check_peers(const struct raft *r) {
    const struct raft_config *c = raft_config_current(r);
    uint64_t last = raft_log_last_index(&r->log);

    ASSERT(r->peers_count == c->count);
    for (size_t i = 0; i < r->peers_count; i++) {
        const struct raft_peer *p = &r->peers[i];

        ASSERT(p->id == c->members[i].id);
        if (p->id == r->options.id)
            continue;
        /* R12: next > match; inflight inside the window. */
        ASSERT(p->next > p->match);
        ASSERT(p->next <= last + 1);
        ASSERT(p->match <= last);
        ASSERT(p->inflight_count <= r->options.inflight_messages_max);
        ASSERT(p->inflight_count > 0 || p->inflight_bytes == 0);
        ASSERT(p->state == RAFT_REPLICATE || p->inflight_count == 0);
        ASSERT(p->acked_round <= r->read_round);
        ASSERT(p->session > 0 && p->session <= r->session_last);
        ASSERT(!p->sent);
    }
}

static void check_role(const struct raft *r) {
    switch (r->role) {
    case RAFT_FOLLOWER:
        ASSERT(r->leader != r->options.id);
        ASSERT(r->peers_count == 0);
        ASSERT(r->leader != 0 || r->reads_count == 0);
        break;
    case RAFT_PRE_CANDIDATE:
        ASSERT(r->leader == 0);
        ASSERT(r->peers_count == 0);
        ASSERT(r->reads_count == 0);
        break;
    case RAFT_CANDIDATE:
        ASSERT(r->leader == 0);
        ASSERT(r->vote == r->options.id);
        ASSERT(r->peers_count == 0);
        ASSERT(r->reads_count == 0);
        break;
    case RAFT_LEADER:
        ASSERT(r->leader == r->options.id);
        ASSERT(r->vote == r->options.id);
        ASSERT(r->hard_state_seq <= r->durable_seq);
        ASSERT(r->term_first_index <= raft_log_last_index(&r->log));
        check_peers(r);
        break;
    }
    ASSERT(r->role == RAFT_LEADER || r->transfer_to == 0);
}

static void check_messages(const struct raft *r) {
    /* R20: none to self, none of term 0; a promise names a batch that exists. */
    for (size_t i = 0; i < r->effects.messages_count; i++) {
        const struct raft_message *m = &r->messages[i];

        ASSERT(m->to != r->options.id && m->to != 0);
        ASSERT(m->from == r->options.id);
        ASSERT(m->term != 0);
        ASSERT(m->after_seq <= r->persist_seq);
        ASSERT(m->after_seq == 0 || m->after_seq > r->durable_seq);
        /* R15: what an acknowledgement covers is durable, or it waits for the newest batch. */
        if (m->type == RAFT_MSG_APPEND_RESP && !m->reject)
            ASSERT(m->match <= r->durable_index || m->after_seq == r->persist_seq);
    }
}

void raft_check_invariants(const struct raft *r) {
    ASSERT(r);
    ASSERT(r->failed == 0);
    check_log(r);
    check_durability(r);
    check_configs(r);
    check_role(r);
    check_messages(r);
    ASSERT(r->reads_count <= RAFT_READS_MAX);
    ASSERT(r->read_request == 0 || r->read_request_covers > 0);
}
