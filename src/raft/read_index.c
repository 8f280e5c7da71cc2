/* Linearizable reads without the log: ReadIndex, batched.
 *
 * Dissertation 6.4: 1. "If the leader has not yet marked an entry from its current term committed,
 * it waits until it has done so." 2. "The leader saves its current commit index in a local variable
 * readIndex." 3. "it issues a new round of heartbeats and waits for their acknowledgments from a
 * majority of the cluster." 4./5. the state machine advances to readIndex and answers (caller).
 *
 * Rounds are numbered. A read is confirmed only by a round whose heartbeats were all sent after the
 * read arrived; reads that arrive while a round is under way share the next one. A confirmation is
 * a count of acknowledged round numbers, not a lookup by the reader's id, so that a repeated id
 * cannot be answered by an older round (M30). A follower asks the leader, one request at a time for
 * all that wait. Its request ids start at a number that is new in each life, so that an answer to
 * an earlier life is recognised. */
#include "raft/raft_internal.h"

static struct raft_pending_read *pending_push(struct raft *r) {
    size_t end = r->reads_head + r->reads_count;

    ASSERT(r->reads_count < RAFT_READS_MAX);
    ASSERT(end <= r->reads_cap);

    if (end == r->reads_cap && r->reads_head > 0 && r->reads_head >= r->reads_count) {
        for (size_t i = 0; i < r->reads_count; i++)
            r->reads[i] = r->reads[r->reads_head + i];
        r->reads_head = 0;
        end = r->reads_count;
    }
    if (!raft_effects_grow(r, (void **) &r->reads, &r->reads_cap, end, sizeof(*r->reads)))
        return NULL;
    r->reads_count++;
    r->reads[end] = (struct raft_pending_read){0};
    return &r->reads[end];
}

static struct raft_pending_read pending_pop(struct raft *r) {
    struct raft_pending_read p;

    ASSERT(r->reads_count > 0);
    p = r->reads[r->reads_head];
    r->reads_head++;
    r->reads_count--;
    if (r->reads_count == 0)
        r->reads_head = 0;
    ASSERT(p.context > 0);
    return p;
}

/* Tell whoever asked. */
static void answer(struct raft *r, uint64_t from, uint64_t context, bool ok, uint64_t index) {
    ASSERT(context > 0);
    ASSERT(from > 0);
    if (from == r->options.id) {
        raft_effects_read(r, context, ok, ok ? index : 0);
        return;
    }
    /* The reader has to apply up to there before it can answer. */
    r->commit_wanted = MAX(r->commit_wanted, r->commit);
    raft_effects_send(r, (struct raft_message){.type = RAFT_MSG_READ_INDEX_RESP,
                                               .to = from,
                                               .context = context,
                                               .reject = !ok,
                                               .log_index = ok ? index : 0});
}

static void send_request(struct raft *r) {
    ASSERT(r->role == RAFT_FOLLOWER);
    ASSERT(r->leader != 0);
    ASSERT(r->read_request != 0);
    r->read_request_at = r->now;
    raft_effects_send(r, (struct raft_message){.type = RAFT_MSG_READ_INDEX_REQ,
                                               .to = r->leader,
                                               .context = r->read_request});
}

/* A new request for everything that waits. */
static void new_request(struct raft *r) {
    ASSERT(r->read_request == 0);
    if (r->reads_count == 0)
        return;
    r->read_request_last++;
    if (r->read_request_last == 0)
        r->read_request_last = 1;
    r->read_request = r->read_request_last;
    r->read_request_covers = r->reads_count;
    send_request(r);
}

void raft_read_index_start(struct raft *r, uint64_t context) {
    struct raft_pending_read *p;

    ASSERT(context > 0);

    if (r->role == RAFT_LEADER) {
        raft_read_index_add(r, r->options.id, context);
        return;
    }
    if (r->role != RAFT_FOLLOWER || r->leader == 0 || r->reads_count == RAFT_READS_MAX) {
        raft_effects_read(r, context, false, 0);
        return;
    }
    p = pending_push(r);
    if (!p)
        return;
    *p = (struct raft_pending_read){.from = r->options.id, .context = context};
    if (r->read_request == 0)
        new_request(r);
}

static uint64_t confirmed_round(const struct raft *r) {
    const struct raft_config *c = raft_config_current(r);
    uint64_t rounds[RAFT_NODES_MAX];

    ASSERT(r->role == RAFT_LEADER);
    ASSERT(r->peers_count == c->count);
    for (size_t i = 0; i < c->count; i++)
        rounds[i] = r->peers[i].id == r->options.id ? r->read_round : r->peers[i].acked_round;
    return raft_config_quorum_value(c, rounds);
}

void raft_read_index_add(struct raft *r, uint64_t from, uint64_t context) {
    struct raft_pending_read *p;
    bool ready = raft_leader_ready(r);

    ASSERT(r->role == RAFT_LEADER);
    ASSERT(context > 0);

    if (r->reads_count == RAFT_READS_MAX) {
        answer(r, from, context, false, 0);
        return;
    }
    if (ready && raft_lease_valid(r, confirmed_round(r))) {
        answer(r, from, context, true, r->commit);
        return;
    }
    p = pending_push(r);
    if (!p)
        return;
    *p = (struct raft_pending_read){.from = from,
                                    .context = context,
                                    .index = ready ? r->commit : 0,
                                    .round = ready ? r->read_round + 1 : 0};
    if (ready)
        raft_read_index_progress(r);
}

void raft_read_index_progress(struct raft *r) {
    ASSERT(r->role == RAFT_LEADER);

    /* Twice around at most: a round of one voter is confirmed as soon as it starts. */
    while (r->reads_count > 0 && r->reads[r->reads_head].round != 0) {
        uint64_t confirmed = confirmed_round(r);

        while (r->reads_count > 0 && r->reads[r->reads_head].round != 0 &&
               r->reads[r->reads_head].round <= confirmed) {
            struct raft_pending_read p = pending_pop(r);

            answer(r, p.from, p.context, true, p.index);
        }
        if (r->reads_count == 0 || confirmed < r->read_round)
            return;
        ASSERT(r->reads[r->reads_head].round == r->read_round + 1);
        r->read_round++;
        raft_lease_round(r);
        r->heartbeat_due = true;
    }
}

void raft_read_index_ready(struct raft *r) {
    ASSERT(r->role == RAFT_LEADER);
    ASSERT(raft_leader_ready(r));
    for (size_t i = 0; i < r->reads_count; i++) {
        r->reads[r->reads_head + i].index = r->commit;
        r->reads[r->reads_head + i].round = r->read_round + 1;
    }
    raft_read_index_progress(r);
}

void raft_read_index_join_heartbeat(struct raft *r) {
    ASSERT(r->role == RAFT_LEADER);
    ASSERT(r->reads_head + r->reads_count <= r->reads_cap);
    /* A lease lives on a new round with every heartbeat; reads of the next round are just those
     * that it confirms. */
    if (r->options.lease_reads ||
        (r->reads_count > 0 &&
         r->reads[r->reads_head + r->reads_count - 1].round > r->read_round)) {
        r->read_round++;
        raft_lease_round(r);
    }
}

void raft_read_index_retry(struct raft *r) {
    ASSERT(r->role == RAFT_FOLLOWER);
    if (r->read_request == 0 ||
        mono_diff_ns(r->now, r->read_request_at) < r->options.heartbeat_interval_ns)
        return;
    ASSERT(r->read_request_covers <= r->reads_count);
    send_request(r);
}

void raft_read_index_answered(struct raft *r, bool ok, uint64_t index) {
    ASSERT(r->role == RAFT_FOLLOWER);
    ASSERT(r->read_request != 0);
    ASSERT(r->read_request_covers <= r->reads_count);

    for (; r->read_request_covers > 0; r->read_request_covers--) {
        struct raft_pending_read p = pending_pop(r);

        answer(r, p.from, p.context, ok, index);
    }
    r->read_request = 0;
    new_request(r);
}

void raft_read_index_fail_all(struct raft *r) {
    ASSERT(r->reads_count <= RAFT_READS_MAX);
    while (r->reads_count > 0) {
        struct raft_pending_read p = pending_pop(r);

        /* Followers that asked notice the change of leader by themselves. */
        if (p.from == r->options.id)
            answer(r, p.from, p.context, false, 0);
    }
    r->read_request = 0;
    r->read_request_covers = 0;
    ASSERT(r->reads_head == 0);
}
