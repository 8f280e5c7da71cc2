/* What a step asks its caller to do: collecting it, and knowing what has become durable.
 *
 * Figure 2: currentTerm, votedFor and log[] are "updated on stable storage before responding to
 * RPCs". The core does not wait for the disk; it numbers persist batches, and messages that promise
 * something name the batch they must follow. */
#include "raft/raft_internal.h"

#include <errno.h>
#include <stdlib.h>

bool raft_effects_grow(struct raft *r, void **data, size_t *cap, size_t count, size_t size) {
    size_t bigger;
    void *p;

    ASSERT(count <= *cap);
    ASSERT(size > 0);

    if (count < *cap)
        return true;
    bigger = *cap ? *cap * 2 : 4;
    p = realloc(*data, bigger * size);
    if (!p) {
        raft_fail(r, -ENOMEM);
        return false;
    }
    *data = p;
    *cap = bigger;
    return true;
}

void raft_effects_begin(struct raft *r) {
    ASSERT(!r->hard_state_dirty);
    ASSERT(r->failed == 0);

    for (size_t i = 0; i < r->loaded_count; i++)
        (void) bytes_unref(r->loaded[i].data);
    r->loaded_count = 0;
    r->append_first = 0;
    r->truncate_from = 0;
    r->effects = (struct raft_effects){0};
}

static bool makes_own_term_known(enum raft_message_type type) {
    /* A leader's term is durable (its own vote was, before it won), so its messages never wait. */
    return type != RAFT_MSG_APPEND_REQ && type != RAFT_MSG_HEARTBEAT_REQ &&
           type != RAFT_MSG_TIMEOUT_NOW;
}

void raft_effects_send(struct raft *r, struct raft_message m) {
    size_t n = r->effects.messages_count;

    ASSERT(m.to != 0);
    ASSERT(m.to != r->options.id);
    ASSERT(m.after_seq == 0 || m.after_seq == RAFT_AFTER_NEWEST);

    m.from = r->options.id;
    if (m.term == 0)
        m.term = r->term;
    ASSERT(m.term > 0);
    if (makes_own_term_known(m.type) && (r->hard_state_dirty || r->hard_state_seq > r->durable_seq))
        m.after_seq = RAFT_AFTER_NEWEST;
    if (!raft_effects_grow(r, (void **) &r->messages, &r->messages_cap, n, sizeof(*r->messages)))
        return;
    r->messages[n] = m;
    r->effects.messages_count++;
}

void raft_effects_read(struct raft *r, uint64_t context, bool ok, uint64_t index) {
    size_t n = r->effects.reads_count;

    ASSERT(context > 0);
    ASSERT(ok || index == 0);

    if (!raft_effects_grow(r, (void **) &r->answers, &r->answers_cap, n, sizeof(*r->answers)))
        return;
    r->answers[n] = (struct raft_read){.context = context, .ok = ok, .index = index};
    r->effects.reads_count++;
}

void raft_effects_load(struct raft *r, uint64_t peer, uint64_t first_index) {
    ASSERT(first_index > 0);
    ASSERT(r->effects.loads_count < RAFT_NODES_MAX);
    r->loads[r->effects.loads_count++] = (struct raft_load){
        .peer = peer, .first_index = first_index, .max_bytes = r->options.append_bytes_max};
}

void raft_effects_snapshot(struct raft *r, const struct raft_peer *p) {
    ASSERT(p->state == RAFT_SNAPSHOT);
    ASSERT(r->effects.snapshots_count < RAFT_NODES_MAX);
    r->snapshots[r->effects.snapshots_count++] =
        (struct raft_snapshot_wanted){.peer = p->id, .term = r->term, .session = p->session};
}

void raft_effects_install(struct raft *r, uint64_t index, uint64_t term) {
    uint64_t holds = r->apply_index;

    ASSERT(index > r->commit);
    ASSERT(r->role == RAFT_FOLLOWER);
    ASSERT(r->append_first == 0 && r->truncate_from == 0);

    raft_log_done(&r->log);
    raft_log_init(&r->log, index, term);
    r->commit = index;
    r->compacted_index = index;
    r->compacted_term = term;
    r->effects.install_index = index;
    r->effects.install_term = term;
    /* What older batches write belongs to the log that is gone; a snapshot among them becomes the
     * state on the way and counts as far as it reaches (M48, M49, M21). */
    r->durable_index = r->apply_index;
    for (size_t i = 0; i < r->batches_count; i++) {
        struct raft_batch *b = &r->batches[r->batches_head + i];

        holds = MAX(holds, b->installed);
        b->last = MIN(b->last, holds);
    }
}

void raft_effects_truncate(struct raft *r, uint64_t from) {
    ASSERT(from > r->commit);
    ASSERT(r->append_first == 0);
    ASSERT(r->role != RAFT_LEADER);

    raft_log_truncate(&r->log, from);
    raft_config_rollback(r, from);
    r->truncate_from = r->truncate_from ? MIN(r->truncate_from, from) : from;
    /* What was written there, or is being written, is no longer ours: when its batch is confirmed
     * it must not make the entries that take its place look durable (M18, M45, M49). */
    r->durable_index = MIN(r->durable_index, from - 1);
    for (size_t i = 0; i < r->batches_count; i++) {
        struct raft_batch *b = &r->batches[r->batches_head + i];

        b->last = MIN(b->last, from - 1);
    }
}

void raft_effects_persisted(struct raft *r, uint64_t seq) {
    ASSERT(seq <= r->persist_seq);

    if (seq <= r->durable_seq)
        return;
    r->durable_seq = seq;
    while (r->batches_count > 0 && r->batches[r->batches_head].seq <= seq) {
        struct raft_batch *b = &r->batches[r->batches_head];

        r->durable_index = MAX(r->durable_index, b->last);
        if (b->installed > 0) {
            /* The caller's state has moved there by itself. */
            r->apply_index = MAX(r->apply_index, b->installed);
            r->applied = MAX(r->applied, b->installed);
        }
        r->batches_head++;
        r->batches_count--;
    }
    if (r->batches_count == 0)
        r->batches_head = 0;
    ASSERT(r->durable_index <= raft_log_last_index(&r->log));
}

/* Number this step's batch and remember what it makes durable. */
static void finish_persist(struct raft *r) {
    size_t end = r->batches_head + r->batches_count;

    if (!r->hard_state_dirty && r->append_first == 0 && r->truncate_from == 0 &&
        r->effects.install_index == 0)
        return;
    if (end == r->batches_cap && r->batches_head >= r->batches_count && r->batches_head > 0) {
        for (size_t i = 0; i < r->batches_count; i++)
            r->batches[i] = r->batches[r->batches_head + i];
        r->batches_head = 0;
        end = r->batches_count;
    }
    if (!raft_effects_grow(r, (void **) &r->batches, &r->batches_cap, end, sizeof(*r->batches)))
        return;
    r->persist_seq++;
    r->batches[end] = (struct raft_batch){.seq = r->persist_seq,
                                          .last = raft_log_last_index(&r->log),
                                          .installed = r->effects.install_index,
                                          .at = r->now};
    r->batches_count++;
    if (r->hard_state_dirty)
        r->hard_state_seq = r->persist_seq;

    r->effects.persist_seq = r->persist_seq;
    r->effects.hard_state_changed = r->hard_state_dirty;
    r->effects.hard_state = (struct raft_hard_state){.term = r->term, .vote = r->vote};
    r->effects.truncate_from = r->truncate_from;
    if (r->append_first) {
        r->effects.append = raft_log_at(&r->log, r->append_first);
        r->effects.append_count = (size_t) (raft_log_last_index(&r->log) - r->append_first + 1);
    }
    r->hard_state_dirty = false;
}

void raft_effects_finish(struct raft *r) {
    uint64_t after;

    if (r->role == RAFT_LEADER)
        raft_replication_flush(r);
    finish_persist(r);

    after = r->persist_seq > r->durable_seq ? r->persist_seq : 0;
    for (size_t i = 0; i < r->effects.messages_count; i++) {
        if (r->messages[i].after_seq == RAFT_AFTER_NEWEST)
            r->messages[i].after_seq = after;
    }
    r->apply_index = MAX(r->apply_index, MIN(r->commit, r->durable_index));
    r->effects.apply_index = r->apply_index;
    r->effects.messages = r->messages;
    r->effects.reads = r->answers;
    r->effects.loads = r->loads;
    r->effects.snapshots = r->snapshots;
    ASSERT(r->apply_index <= r->commit);
    ASSERT(r->applied <= r->apply_index);
}
