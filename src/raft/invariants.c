/* What must be true between any two steps. Cheap: O(members + configurations + batches + what
 * the step emits), never O(log). The numbers in brackets are the invariants of the reliability
 * requirements. */
#include "raft/raft_internal.h"

static void check_log(const struct raft *r) {
    uint64_t last = raft_log_last_index(&r->log);

    /* R6: applied <= commit <= last, and nothing unapplied has left memory (R24), except for a
     * snapshot on its way to become the state (R19), which nothing is applied before. */
    ASSERT(r->log.prev_index <= MAX(r->applied, raft_snapshot_pending(r)));
    ASSERT(raft_snapshot_pending(r) == 0 || r->apply_index < raft_snapshot_pending(r));
    ASSERT(r->compacted_index <= r->log.prev_index);
    ASSERT((r->compacted_index == 0) == (r->compacted_term == 0));
    ASSERT(r->compacted_index < r->log.prev_index || r->compacted_term == r->log.prev_term);
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
        ASSERT(b->installed == 0 || (b->installed <= b->last && b->installed <= r->commit));
        ASSERT(!mono_reached(b->at, mono_add_ns(r->now, 1)));
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
    ASSERT(!raft_leader_ready(r) || r->configs_count <= 2);
    ASSERT(r->configs[0].index <= r->commit);
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
        /* Nothing that is gone is asked for or sent: such a peer waits or gets a snapshot. */
        ASSERT(p->state != RAFT_SNAPSHOT || p->match < r->compacted_index);
        ASSERT(p->next > r->compacted_index || p->state == RAFT_SNAPSHOT || p->probe_sent ||
               p->load_pending);
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
        ASSERT(raft_snapshot_pending(r) == 0);
        ASSERT(r->term_first_index <= raft_log_last_index(&r->log));
        check_peers(r);
        break;
    }
    ASSERT(r->role == RAFT_LEADER || r->transfer_to == 0);
}

static uint64_t message_bytes(const struct raft_message *m) {
    uint64_t bytes = 0;

    for (size_t i = 0; i < m->entries_count; i++)
        bytes += raft_entry_bytes(&m->entries[i]);
    return bytes;
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
        if (m->type == RAFT_MSG_SNAPSHOT_RESP && !m->reject)
            ASSERT(m->match <= r->durable_index || m->after_seq == r->persist_seq);
        ASSERT(m->entries_count == 0 || m->type == RAFT_MSG_APPEND_REQ);
        ASSERT(m->entries_count <= 1 || message_bytes(m) <= r->options.append_bytes_max);
    }
    for (size_t i = 0; i < r->effects.loads_count; i++)
        ASSERT(r->loads[i].first_index > r->compacted_index);
    /* R19: the log is what follows the snapshot, and the step says so. */
    if (r->effects.install_index > 0) {
        ASSERT(r->effects.install_index == r->log.prev_index);
        ASSERT(r->effects.persist_seq != 0);
        ASSERT(r->effects.apply_index < r->effects.install_index);
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
