/* Checkers: what must hold, looked at from outside after every event (reliability.md R1-R10, J1,
 * J3, J11, J16). They remember across crashes; the nodes they watch do not. */
#include "sim/sim_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "chronos/internal/v1/peer.pb-c.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#define COMMITTED_MAX (1UL << 22)

void checker_init(struct checker *c) {
    *c = (struct checker){0};
}

void checker_done(struct checker *c) {
    struct u64map_slot *s;
    size_t pos = 0;

    while ((s = u64map_next(&c->job_state, &pos)))
        free(s->value);
    u64map_done(&c->leader_of_term);
    u64map_done(&c->votes);
    u64map_done(&c->digests);
    u64map_done(&c->entry_hash);
    u64map_done(&c->job_state);
    free(c->committed);
}

/* Remember @value under @key, or compare with what was remembered. False on difference. */
static bool remember(struct world *w, struct u64map *m, uint64_t key, uint64_t value) {
    void *boxed = (void *) (uintptr_t) (value | 1);
    void *old = u64map_get(m, key);

    if (old)
        return old == boxed;
    if (u64map_put(m, key, boxed) < 0)
        w->no_memory = true;
    return true;
}

/* R1: at most one leader a term, over all history. */
static void check_leader(struct world *w, struct sim_node *n) {
    const struct raft *r = replica_raft(n->replica);
    struct checker *c = &w->checker;
    bool leads = raft_role(r) == RAFT_LEADER;

    if (leads && !remember(w, &c->leader_of_term, raft_term(r), (n->slot + 1) << 1))
        sim_fail(w, "two leaders in term %llu, one is node %u", (unsigned long long) raft_term(r),
                 n->slot + 1);
    if (leads && (!n->seen_leader || n->seen_term != raft_term(r))) {
        w->result->elections++;
        /* R4: everything ever committed is in the new leader's log. */
        if (raft_last_index(r) < c->committed_count)
            sim_fail(w,
                     "leader completeness: node %u leads term %llu with %llu entries, %llu are "
                     "committed",
                     n->slot + 1, (unsigned long long) raft_term(r),
                     (unsigned long long) raft_last_index(r),
                     (unsigned long long) c->committed_count);
        for (uint64_t i = MAX(raft_first_in_memory(r), 1UL); i <= c->committed_count; i++) {
            const struct raft_entry *e = raft_entry_at(r, i);

            if (e && c->committed[i].term != 0 && e->term != c->committed[i].term)
                sim_fail(w, "leader completeness: node %u has term %llu at %llu, committed is %llu",
                         n->slot + 1, (unsigned long long) e->term, (unsigned long long) i,
                         (unsigned long long) c->committed[i].term);
        }
    }
    n->seen_leader = leads;
}

/* R7: terms and commits never go back within a life. */
static void check_monotonic(struct world *w, struct sim_node *n) {
    const struct raft *r = replica_raft(n->replica);
    uint64_t applied = replica_applied(n->replica);

    if (raft_term(r) < n->seen_term)
        sim_fail(w, "node %u: term went back from %llu to %llu", n->slot + 1,
                 (unsigned long long) n->seen_term, (unsigned long long) raft_term(r));
    if (raft_commit(r) < n->seen_commit || applied < n->seen_applied)
        sim_fail(w, "node %u: commit or applied went back", n->slot + 1);
    if (applied > raft_durable_index(r) || applied > raft_commit(r))
        sim_fail(w, "node %u: applied %llu, commit %llu, durable %llu", n->slot + 1,
                 (unsigned long long) applied, (unsigned long long) raft_commit(r),
                 (unsigned long long) raft_durable_index(r));
    n->seen_term = raft_term(r);
    n->seen_commit = raft_commit(r);
    n->seen_applied = applied;
}

static uint64_t entry_content_hash(const struct raft_entry *e, uint64_t before) {
    uint64_t h[4] = {e->term, e->index, (uint64_t) e->type, before};

    if (e->data)
        h[3] ^= XXH3_64bits(e->data->data, e->data->len);
    return XXH3_64bits(h, sizeof(h));
}

/* R3: equal (index, term) means equal content and an equal entry before. */
static void check_log_matching(struct world *w, struct sim_node *n) {
    const struct raft *r = replica_raft(n->replica);
    uint64_t last = raft_last_index(r), from;

    from = MIN(n->checked_last, last);
    from = from > 4 ? from - 4 : 1; /* look again at the newest: they may have been replaced */
    from = MAX(from, raft_first_in_memory(r));
    for (uint64_t i = from; i <= last; i++) {
        const struct raft_entry *e = raft_entry_at(r, i);
        const struct raft_entry *p = raft_entry_at(r, i - 1);
        uint64_t key;

        if (!e || (!p && i > 1))
            continue;
        key = i << 20 ^ e->term;
        if (!remember(w, &w->checker.entry_hash, key, entry_content_hash(e, p ? p->term : 0) << 1))
            sim_fail(w, "log matching: node %u differs at index %llu term %llu", n->slot + 1,
                     (unsigned long long) i, (unsigned long long) e->term);
    }
    n->checked_last = last;
}

/* R5: what is committed at an index never changes, whoever says so. */
static void check_committed(struct world *w, struct sim_node *n) {
    const struct raft *r = replica_raft(n->replica);
    struct checker *c = &w->checker;
    uint64_t commit = raft_commit(r);

    if (commit + 1 > c->committed_cap) {
        size_t cap = MAX(commit + 1024, c->committed_cap * 2);
        struct ghost_entry *grown = realloc(c->committed, cap * sizeof(*grown));

        if (!grown || cap > COMMITTED_MAX) {
            w->no_memory = true;
            return;
        }
        memset(grown + c->committed_cap, 0, (cap - c->committed_cap) * sizeof(*grown));
        c->committed = grown;
        c->committed_cap = cap;
    }
    for (uint64_t i = MAX(raft_first_in_memory(r), commit > 64 ? commit - 64 : 1); i <= commit;
         i++) {
        const struct raft_entry *e = raft_entry_at(r, i);

        if (!e)
            continue;
        if (c->committed[i].term == 0)
            c->committed[i].term = e->term;
        else if (c->committed[i].term != e->term)
            sim_fail(w, "state machine safety: node %u commits term %llu at %llu, it was %llu",
                     n->slot + 1, (unsigned long long) e->term, (unsigned long long) i,
                     (unsigned long long) c->committed[i].term);
    }
    c->committed_count = MAX(c->committed_count, commit);
}

/* R22: equal state at equal index. */
static void check_digest(struct world *w, struct sim_node *n) {
    uint8_t digest[16];
    uint64_t low;

    fsm_digest(replica_fsm(n->replica), digest);
    memcpy(&low, digest, sizeof(low));
    if (!remember(w, &w->checker.digests, replica_applied(n->replica), low << 1))
        sim_fail(w, "node %u has another state than a node before it at index %llu", n->slot + 1,
                 (unsigned long long) replica_applied(n->replica));
}

/* J11, J16: tokens grow, ended jobs stay ended, each transition follows from the state before. */
static void check_event(struct world *w, const struct replica_event *e) {
    struct job_ghost *g = u64map_get(&w->checker.job_state, e->event.job_seq);
    int from = (int) e->event.from;

    if (!g) {
        g = calloc(1, sizeof(*g));
        if (!g || u64map_put(&w->checker.job_state, e->event.job_seq, g) < 0) {
            free(g);
            w->no_memory = true;
            return;
        }
    }
    if (e->index <= g->index)
        return; /* told by another node already */
    if (g->index != 0 && from != g->state)
        sim_fail(w, "job %llu at %llu goes from state %d but was in %d",
                 (unsigned long long) e->event.job_seq, (unsigned long long) e->index, from,
                 g->state);
    if (g->state >= CHRONOS__V1__JOB_STATE__JOB_STATE_COMPLETED)
        sim_fail(w, "job %llu changes at %llu after it had ended",
                 (unsigned long long) e->event.job_seq, (unsigned long long) e->index);
    if (e->event.from == CHRONOS__V1__JOB_STATE__JOB_STATE_PENDING &&
        e->event.to == CHRONOS__V1__JOB_STATE__JOB_STATE_RUNNING) {
        if (e->event.fencing_token <= g->token)
            sim_fail(w, "job %llu: token %llu after %llu", (unsigned long long) e->event.job_seq,
                     (unsigned long long) e->event.fencing_token, (unsigned long long) g->token);
        g->token = e->event.fencing_token;
    }
    g->state = (int) e->event.to;
    g->index = e->index;
    if (g->state >= CHRONOS__V1__JOB_STATE__JOB_STATE_COMPLETED)
        w->result->jobs_done++;
}

static void check_events(struct world *w, struct sim_node *n) {
    const struct replica_event *events = NULL;
    size_t count = 0;
    uint64_t cursor = 0;

    while (!w->failed) {
        if (replica_events_read(n->replica, n->events_cursor, &events, 512, &count, &cursor) == 1) {
            n->events_cursor = cursor;
            continue;
        }
        for (size_t i = 0; i < count; i++) {
            if (events[i].index <= n->events_cursor)
                sim_fail(w, "node %u: event of %llu after cursor %llu", n->slot + 1,
                         (unsigned long long) events[i].index,
                         (unsigned long long) n->events_cursor);
            check_event(w, &events[i]);
        }
        if (count == 0 && cursor == n->events_cursor)
            break;
        n->events_cursor = cursor;
        if (count == 0)
            break;
    }
}

void checker_node(struct world *w, struct sim_node *n) {
    if (w->failed)
        return;
    check_monotonic(w, n);
    check_log_matching(w, n);
    check_committed(w, n);
    check_leader(w, n);
    check_digest(w, n);
    check_events(w, n);
}

/* What leaves a node binds it for ever: R7 (a term it named), R8 (one vote a term), R15 (it has on
 * disk what it acknowledges), across crashes. */
void checker_sent(struct world *w, struct sim_node *n, struct slice payload) {
    const struct raft *r = replica_raft(n->replica);
    Chronos__Internal__V1__PeerMessage *m;

    arena_clear(&w->arena);
    m = chronos__internal__v1__peer_message__unpack(arena_pb(&w->arena), payload.len, payload.data);
    if (!m) {
        sim_fail(w, "node %u sends a malformed message", n->slot + 1);
        return;
    }
    for (size_t i = 0; i < m->n_raft; i++) {
        const Chronos__Internal__V1__RaftMessage *rm = m->raft[i];
        bool pre = rm->type == RAFT_MSG_PRE_VOTE_REQ || rm->type == RAFT_MSG_PRE_VOTE_RESP;

        if (!pre)
            n->sent_term = MAX(n->sent_term, rm->term);
        if (rm->type == RAFT_MSG_VOTE_RESP && !rm->reject &&
            !remember(w, &w->checker.votes, rm->term << 8 | n->slot, rm->to << 1))
            sim_fail(w, "node %u votes twice in term %llu", n->slot + 1,
                     (unsigned long long) rm->term);
        if (rm->type == RAFT_MSG_APPEND_RESP && !rm->reject && rm->match > raft_durable_index(r) &&
            rm->term == raft_term(r))
            sim_fail(w, "node %u acknowledges %llu with %llu durable", n->slot + 1,
                     (unsigned long long) rm->match, (unsigned long long) raft_durable_index(r));
    }
}

void checker_restarted(struct world *w, struct sim_node *n) {
    if (raft_term(replica_raft(n->replica)) < n->sent_term)
        sim_fail(w, "node %u comes back in term %llu after it had spoken in %llu", n->slot + 1,
                 (unsigned long long) raft_term(replica_raft(n->replica)),
                 (unsigned long long) n->sent_term);
    n->seen_term = 0;
    n->seen_commit = 0;
    n->seen_applied = 0;
    n->seen_leader = false;
    n->checked_last = 0;
    n->events_cursor = replica_events_oldest(n->replica);
}

/* ---- the end
 * -------------------------------------------------------------------------------------------- */

struct job_scan {
    struct world *w;
    unsigned node;
    uint8_t jobs_of_op[SIM_OPS_MAX];
};

/* Which submit a job came from: sim_client.c puts the number into the name. */
static int each_job(void *arg, uint64_t seq, const Chronos__Internal__V1__JobRecord *rec) {
    struct job_scan *scan = arg;
    struct world *w = scan->w;
    unsigned number = 0;
    const struct sim_op *op;

    if (rec->spec.len != 8) {
        sim_fail(w, "node %u: job %llu has another spec than was submitted", scan->node + 1,
                 (unsigned long long) seq);
        return 1;
    }
    for (int i = 3; i >= 0; i--)
        number = number << 4 | (unsigned) (rec->spec.data[4 + i] - 'a');
    op = &w->ops[number % SIM_OPS_MAX];
    if (number >= w->ops_count || op->state == OP_REFUSED)
        sim_fail(w, "node %u: job %llu of op %u, which was refused", scan->node + 1,
                 (unsigned long long) seq, number);
    else if (op->state == OP_ACKED && op->job_seq != seq)
        sim_fail(w, "node %u: op %u was answered job %llu but made job %llu too", scan->node + 1,
                 number, (unsigned long long) op->job_seq, (unsigned long long) seq);
    else if (scan->jobs_of_op[number]++ > 0)
        sim_fail(w, "node %u: op %u made more than one job (keyed=%d)", scan->node + 1, number,
                 (int) op->keyed);
    if (rec->state < CHRONOS__V1__JOB_STATE__JOB_STATE_COMPLETED)
        sim_fail(w, "node %u: job %llu never ended, state %d attempt %u", scan->node + 1,
                 (unsigned long long) seq, (int) rec->state, rec->attempt);
    return w->failed;
}

/* J1 and J3: an acknowledged submit is there, once; an unknown one is 0 or 1 job; a refused one
 * none. */
static void check_jobs_on(struct world *w, struct sim_node *n) {
    struct fsm *f = replica_fsm(n->replica);
    struct job_scan scan = {.w = w, .node = n->slot};

    if (fsm_scan_jobs(f, 1, true, &w->arena, each_job, &scan) < 0)
        sim_fail(w, "node %u: its jobs cannot be read", n->slot + 1);
    for (unsigned i = 0; i < w->ops_count && !w->failed; i++)
        if (w->ops[i].state == OP_ACKED && scan.jobs_of_op[i] != 1)
            sim_fail(w, "node %u: acknowledged job %llu of op %u is missing", n->slot + 1,
                     (unsigned long long) w->ops[i].job_seq, i);
    fsm_check_invariants(f);
}

void checker_final(struct world *w) {
    for (unsigned i = 0; i < w->nodes_count && !w->failed; i++) {
        const struct sim_node *first = &w->nodes[0];
        uint8_t a[16], b[16];

        fsm_digest(replica_fsm(first->replica), a);
        fsm_digest(replica_fsm(w->nodes[i].replica), b);
        if (replica_applied(w->nodes[i].replica) != replica_applied(first->replica) ||
            memcmp(a, b, sizeof(a)) != 0)
            sim_fail(w, "node %u did not come to the state of node 1", i + 1);
        check_jobs_on(w, &w->nodes[i]);
    }
}
