/* Proposals of other nodes, which send them here because they take this one for the leader.
 *
 * They wait for the turn's drain, go into the log in batches, and their nodes are told where they
 * are in it, or that they are not: then the sender keeps them (proposals.c). Thread: the loop. */
#include "node/replica_internal.h"

#include "base/codec.h"
#include "fsm/command.h"

#include <errno.h>
#include <stdlib.h>

/* Node ids are small, so the top byte of an origin is free for the attempt. */
static uint64_t seen_key(uint64_t origin, uint32_t attempt) {
    return origin ^ (uint64_t) attempt << 56;
}

static int seen_add(struct forwards *fs, uint64_t key) {
    int rc;

    if (!fs->seen_ring) {
        fs->seen_ring = calloc(FORWARD_SEEN_MAX, sizeof(*fs->seen_ring));
        if (!fs->seen_ring)
            return -ENOMEM;
    }
    rc = u64map_put(&fs->seen, key, fs);
    if (rc < 0)
        return rc;
    if (fs->seen_ring[fs->seen_next] != 0)
        (void) u64map_del(&fs->seen, fs->seen_ring[fs->seen_next]);
    fs->seen_ring[fs->seen_next] = key;
    fs->seen_next = (fs->seen_next + 1) % FORWARD_SEEN_MAX;
    return 0;
}

void forwards_free(struct replica *r) {
    struct forwards *fs = &r->forwards;

    for (size_t i = 0; i < fs->inbox_count; i++)
        bytes_unref(fs->inbox[i].data);
    free(fs->inbox);
    free(fs->seen_ring);
    u64map_done(&fs->seen);
}

void forwards_on_proposal(struct replica *r, uint64_t from,
                          const Chronos__Internal__V1__ForwardProposal *m) {
    struct forwards *fs = &r->forwards;
    struct slice data = slice_of(m->command.data, m->command.len);
    uint64_t key = seen_key(m->id, m->attempt);
    struct forwarded_in *f;
    struct errtext why;

    if (data.len <= ENTRY_HEADER_BYTES || data.len > ENTRY_HEADER_BYTES + COMMAND_BYTES_MAX ||
        data.data[0] != ENTRY_HEADER_VERSION || get_le64(data.data + 8) != m->id) {
        r->bad_messages++;
        return;
    }
    if (u64map_get(&fs->seen, key))
        return;
    if (command_check(slice_of(data.data + ENTRY_HEADER_BYTES, data.len - ENTRY_HEADER_BYTES),
                      &why) < 0) {
        log_warn(r->env.log, "forwarded command refused", "from=%llu reason=\"%s\"",
                 (unsigned long long) from, why.s);
        r->bad_messages++;
        return;
    }
    if (fs->inbox_count == fs->inbox_cap) {
        size_t cap = fs->inbox_cap ? fs->inbox_cap * 2 : 64;
        struct forwarded_in *grown = realloc(fs->inbox, cap * sizeof(*grown));

        if (!grown)
            return; /* the sender's deadline covers a lost forward */
        fs->inbox = grown;
        fs->inbox_cap = cap;
    }
    f = &fs->inbox[fs->inbox_count];
    *f = (struct forwarded_in){.from = from, .id = m->id, .attempt = m->attempt};
    f->data = bytes_copy(data.data, data.len);
    if (!f->data || seen_add(fs, key) < 0) {
        (void) bytes_unref(f->data);
        return;
    }
    fs->inbox_count++;
    r->wants_turn = true;
}

static void answer_forward(struct replica *r, const struct forwarded_in *f,
                           Chronos__Internal__V1__ForwardOutcome outcome, uint64_t index,
                           uint64_t term) {
    Chronos__Internal__V1__ForwardResult m = CHRONOS__INTERNAL__V1__FORWARD_RESULT__INIT;

    m.id = f->id;
    m.attempt = f->attempt;
    m.outcome = outcome;
    m.index = index;
    m.term = term;
    peers_queue_field(r, f->from, 4, &m.base);
}

/* Submits of other nodes' clients, when there is no room for them here. */
static void refuse_inbox(struct replica *r) {
    struct forwards *fs = &r->forwards;
    size_t kept = 0;

    for (size_t i = 0; i < fs->inbox_count; i++) {
        struct forwarded_in *f = &fs->inbox[i];
        struct slice data = bytes_slice(f->data);

        if (!disk_space_refuses(
                r, slice_of(data.data + ENTRY_HEADER_BYTES, data.len - ENTRY_HEADER_BYTES))) {
            fs->inbox[kept++] = *f;
            continue;
        }
        answer_forward(r, f, CHRONOS__INTERNAL__V1__FORWARD_OUTCOME__FORWARD_OUTCOME_NO_SPACE, 0,
                       0);
        bytes_unref(f->data);
    }
    fs->inbox_count = kept;
}

void forwards_drain(struct replica *r) {
    struct forwards *fs = &r->forwards;
    struct wall wall = r->env.clock.wall(r->env.clock.ctx);

    if (r->disk_space.low)
        refuse_inbox(r);
    for (size_t i = 0; i < fs->inbox_count && !r->failed;) {
        struct raft_entry entries[PROPOSE_BATCH];
        enum raft_propose_result result = RAFT_PROPOSE_NOT_LEADER;
        uint64_t index = 0, term = 0;
        size_t n = MIN(fs->inbox_count - i, (size_t) PROPOSE_BATCH);

        for (size_t k = 0; k < n; k++) {
            command_stamp(fs->inbox[i + k].data, wall);
            entries[k] =
                (struct raft_entry){.type = RAFT_ENTRY_COMMAND, .data = fs->inbox[i + k].data};
        }
        while (n > 1 && !proposals_append(r, entries, n, &result, &index, &term) &&
               result == RAFT_PROPOSE_FULL)
            n /= 2;
        if (n == 1 && index == 0)
            (void) proposals_append(r, entries, n, &result, &index, &term);
        for (size_t k = 0; k < n; k++) {
            Chronos__Internal__V1__ForwardOutcome outcome =
                result == RAFT_PROPOSE_ACCEPTED
                    ? CHRONOS__INTERNAL__V1__FORWARD_OUTCOME__FORWARD_OUTCOME_ACCEPTED
                : result == RAFT_PROPOSE_FULL
                    ? CHRONOS__INTERNAL__V1__FORWARD_OUTCOME__FORWARD_OUTCOME_FULL
                    : CHRONOS__INTERNAL__V1__FORWARD_OUTCOME__FORWARD_OUTCOME_NOT_LEADER;

            answer_forward(r, &fs->inbox[i + k], outcome, index + k, term);
        }
        i += n;
    }
    for (size_t i = 0; i < fs->inbox_count; i++)
        bytes_unref(fs->inbox[i].data);
    fs->inbox_count = 0;
}
