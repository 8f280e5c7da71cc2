/* Checkers of jobs: transitions as every node tells them, what workers run and were told, and what
 * is left at the end (reliability.md J1-J3, J7, J11, J12, J16, J18, J19, J23). Thread: one. */
#include "sim/checker_model.h"
#include "sim/schedule_model.h"

#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#define S_PENDING CHRONOS__V1__JOB_STATE__JOB_STATE_PENDING
#define S_RUNNING CHRONOS__V1__JOB_STATE__JOB_STATE_RUNNING
#define S_COMPLETED CHRONOS__V1__JOB_STATE__JOB_STATE_COMPLETED
#define S_FAILED CHRONOS__V1__JOB_STATE__JOB_STATE_FAILED
#define S_CANCELLED CHRONOS__V1__JOB_STATE__JOB_STATE_CANCELLED

static struct job_ghost *ghost_of(struct world *w, uint64_t seq) {
    struct job_ghost *g = u64map_get(&w->checker.job_state, seq);

    if (g)
        return g;
    g = calloc(1, sizeof(*g));
    if (!g || u64map_put(&w->checker.job_state, seq, g) < 0) {
        free(g);
        w->no_memory = true;
        return NULL;
    }
    return g;
}

/* ---- transitions ----------------------------------------------------------------------------- */

/* J11, J19: tokens grow; nothing starts after an acknowledged cancel. */
static void ghost_assigned(struct world *w, struct job_ghost *g, const struct replica_event *e) {
    if (e->event.fencing_token <= g->token)
        sim_fail(w, "job %llu: token %llu after %llu", (unsigned long long) e->event.job_seq,
                 (unsigned long long) e->event.fencing_token, (unsigned long long) g->token);
    if (e->event.fencing_token != e->index)
        sim_fail(w, "job %llu: token %llu of the entry %llu", (unsigned long long) e->event.job_seq,
                 (unsigned long long) e->event.fencing_token, (unsigned long long) e->index);
    if (g->cancel_index != 0 && e->index > g->cancel_index)
        sim_fail(w, "job %llu is assigned at %llu after its cancel at %llu was acknowledged",
                 (unsigned long long) e->event.job_seq, (unsigned long long) e->index,
                 (unsigned long long) g->cancel_index);
    g->token = e->event.fencing_token;
    g->assigned_index = e->index;
    (void) snprintf(g->worker, sizeof(g->worker), "%.31s", e->worker_id);
}

static const char *state_name(int state) {
    const ProtobufCEnumValue *v =
        protobuf_c_enum_descriptor_get_value(&chronos__v1__job_state__descriptor, state);

    return v ? v->name + strlen("JOB_STATE_") : "?";
}

/* J16: ended jobs stay ended, each transition follows from the state before. */
static void check_transition(struct world *w, const struct replica_event *e) {
    struct job_ghost *g = ghost_of(w, e->event.job_seq);
    int from = (int) e->event.from, to = (int) e->event.to;

    if (!g || e->index <= g->index)
        return; /* told by another node already */
    if (from != g->state)
        sim_fail(w, "job %llu at %llu goes from state %d but was in %d",
                 (unsigned long long) e->event.job_seq, (unsigned long long) e->index, from,
                 g->state);
    if (g->state >= S_COMPLETED)
        sim_fail(w, "job %llu changes at %llu after it had ended",
                 (unsigned long long) e->event.job_seq, (unsigned long long) e->index);
    sim_trace(w, "job %llu: %s -> %s index=%llu token=%llu worker=%s",
              (unsigned long long) e->event.job_seq, state_name(from), state_name(to),
              (unsigned long long) e->index, (unsigned long long) e->event.fencing_token,
              e->worker_id);
    if (from == S_PENDING && to == S_RUNNING)
        ghost_assigned(w, g, e);
    if (from == S_RUNNING &&
        (to == S_PENDING ||
         e->event.failure_reason == CHRONOS__V1__FAILURE_REASON__FAILURE_REASON_WORKER_LOST))
        sim_count(w, SIM_STAT_LOSSES);
    g->state = to;
    g->index = e->index;
    if (g->state >= S_COMPLETED)
        sim_count(w, SIM_STAT_JOBS_ENDED);
}

/* J7, J23: every node tells the same transitions of an index, in order, at times that never go
 * back. */
static void check_run(struct world *w, struct sim_node *n, const struct replica_event *events,
                      size_t count) {
    uint64_t index = events[0].index, hash = index;

    if (index <= n->events_cursor)
        sim_fail(w, "node %u: events of %llu after cursor %llu", n->slot + 1,
                 (unsigned long long) index, (unsigned long long) n->events_cursor);
    for (size_t i = 0; i < count; i++) {
        const struct fsm_event *e = &events[i].event;
        uint64_t facts[] = {e->job_seq,
                            (uint64_t) e->from,
                            (uint64_t) e->to,
                            e->attempt,
                            e->fencing_token,
                            e->cancel_requested,
                            (uint64_t) e->failure_reason,
                            (uint64_t) e->exit_code,
                            (uint64_t) events[i].at_ms};

        hash = XXH3_64bits_withSeed(facts, sizeof(facts), hash);
        hash = XXH3_64bits_withSeed(e->worker_id, strlen(e->worker_id), hash);
        if (events[i].at_ms < n->events_at_ms)
            sim_fail(w, "node %u: time goes back at %llu", n->slot + 1, (unsigned long long) index);
        n->events_at_ms = events[i].at_ms;
        check_transition(w, &events[i]);
    }
    if (!checker_remember(w, &w->checker.events_hash, index, hash))
        sim_fail(w, "node %u tells other transitions of %llu than a node before it", n->slot + 1,
                 (unsigned long long) index);
}

/* The model of schedules follows whoever is ahead and tells all that is new. */
static void follow(struct world *w, uint64_t seen, uint64_t index,
                   const struct replica_event *events, size_t count) {
    struct schedule_model *m = w->checker.schedules;

    if (seen <= m->index && index > m->index && !w->failed)
        schedule_model_apply(m, index, events, count);
}

static void check_events(struct world *w, struct sim_node *n) {
    const struct replica_event *events = NULL;
    uint64_t cursor = 0;
    size_t count = 0;

    while (!w->failed) {
        if (replica_events_read(n->replica, n->events_cursor, &events, 64, &count, &cursor) == 1) {
            n->events_cursor = cursor;
            continue;
        }
        for (size_t i = 0, end; i < count && !w->failed; i = end) {
            for (end = i + 1; end < count && events[end].index == events[i].index; end++)
                continue;
            check_run(w, n, events + i, end - i);
            follow(w, n->events_cursor, events[i].index, events + i, end - i);
            checker_model_told(w, n, n->events_cursor, events[i].index, events + i, end - i);
            n->events_cursor = events[i].index;
        }
        if (cursor < n->events_cursor)
            sim_fail(w, "node %u: the cursor goes back", n->slot + 1);
        follow(w, n->events_cursor, cursor, NULL, 0);
        checker_model_told(w, n, n->events_cursor, cursor, NULL, 0);
        n->events_cursor = cursor;
        if (count == 0)
            break;
    }
}

unsigned checker_worker_slot(const char *id) {
    return (unsigned) (id[strlen("worker")] - '1') % SIM_WORKERS_MAX;
}

/* J13: a lease lasts from the registration on, whichever it is. */
void checker_worker_lost(struct world *w, struct sim_node *n, const char *fields) {
    unsigned k = checker_worker_slot(fields + strlen("worker="));

    uint64_t now = sim_clock_mono(n).ns;

    if (now < n->registered_at[k] + w->lease_ns)
        sim_fail(w, "node %u: worker%u is lost %llu ms after it registered, its lease is %llu ms",
                 n->slot + 1, k + 1, (unsigned long long) ((now - n->registered_at[k]) / NS_PER_MS),
                 (unsigned long long) (w->lease_ns / NS_PER_MS));
}

static void note_registration(struct sim_node *n, const struct fsm_worker *k) {
    unsigned slot = checker_worker_slot(k->id);

    if (n->registered_index[slot] == k->registered_index)
        return;
    n->registered_index[slot] = k->registered_index;
    n->registered_at[slot] = sim_clock_mono(n).ns;
}

/* J18 */
static void check_slots(struct world *w, struct sim_node *n) {
    for (const struct fsm_worker *k = fsm_worker_first(replica_fsm(n->replica)); k; k = k->next) {
        note_registration(n, k);
        if (k->running > k->slots || (k->lost && k->running > 0))
            sim_fail(w, "node %u: worker %s runs %u on %u slots, lost=%d", n->slot + 1, k->id,
                     k->running, k->slots, (int) k->lost);
    }
}

void checker_jobs(struct world *w, struct sim_node *n) {
    check_events(w, n);
    check_slots(w, n);
}

/* ---- workers --------------------------------------------------------------------------------- */

/* J11 from the workers' side: an assignment is carried out once, by one worker in one life. */
/* J13, J14: what runs elsewhere for the same job was ended by its worker before. One whose worker
 * is stopped as a whole cannot be: its tokens are refused (C26). */
static void check_alone(struct world *w, const struct sim_worker *wk, uint64_t seq) {
    for (unsigned i = 0; i < w->workers_count; i++) {
        const struct sim_worker *o = &w->workers[i];

        if (!o->up || o->stopped)
            continue;
        for (const struct sim_attempt *a = o->attempts; a; a = a->next)
            if (a->seq == seq && !a->ended)
                sim_fail(w, "worker %s runs job %llu while attempt %u of it runs at worker %s",
                         wk->id, (unsigned long long) seq, a->attempt, o->id);
    }
}

void checker_started(struct world *w, const struct sim_worker *wk, uint64_t seq, uint32_t attempt,
                     uint64_t token) {
    const struct job_ghost *g = u64map_get(&w->checker.job_state, seq);
    uint64_t key = seq << 36 ^ token;

    sim_count(w, SIM_STAT_ATTEMPTS);
    check_alone(w, wk, seq);
    if (!g || token > g->token)
        sim_fail(w, "worker %s runs job %llu with token %llu, which no node has applied", wk->id,
                 (unsigned long long) seq, (unsigned long long) token);
    if (g && token == g->token && strcmp(g->worker, wk->id) != 0)
        sim_fail(w, "worker %s runs job %llu with token %llu of worker %s", wk->id,
                 (unsigned long long) seq, (unsigned long long) token, g->worker);
    if (u64map_get(&w->checker.started, key))
        sim_fail(w, "worker %s runs job %llu with token %llu, which was run before", wk->id,
                 (unsigned long long) seq, (unsigned long long) token);
    (void) checker_remember(w, &w->checker.started, key, 1);
    checker_model_started(w, wk, seq, attempt, token);
}

/* J12: the worker was told that its result counts. */
void checker_result_acked(struct world *w, const struct sim_attempt *a) {
    struct job_ghost *g = ghost_of(w, a->seq);

    if (!g)
        return;
    if (g->result_token != 0 && g->result_token != a->token)
        sim_fail(w, "job %llu: results of tokens %llu and %llu were both accepted",
                 (unsigned long long) a->seq, (unsigned long long) g->result_token,
                 (unsigned long long) a->token);
    g->result_token = a->token;
    g->result_outcome = a->outcome;
}

void checker_cancelled(struct world *w, uint64_t seq, uint64_t index) {
    struct job_ghost *g = ghost_of(w, seq);

    if (!g)
        return;
    g->cancel_index = g->cancel_index ? MIN(g->cancel_index, index) : index;
    if (g->assigned_index > g->cancel_index)
        sim_fail(w, "job %llu was assigned at %llu, its cancel is at %llu",
                 (unsigned long long) seq, (unsigned long long) g->assigned_index,
                 (unsigned long long) g->cancel_index);
}

/* ---- the end --------------------------------------------------------------------------------- */

struct job_scan {
    struct world *w;
    unsigned node;
    uint8_t jobs_of_op[SIM_OPS_MAX];
};

static bool result_kept(const struct job_ghost *g, const Chronos__Internal__V1__JobRecord *rec) {
    if (g->result_token == 0)
        return true;
    if (rec->fencing_token != g->result_token)
        return false;
    switch (g->result_outcome) {
    case CHRONOS__V1__ATTEMPT_OUTCOME__ATTEMPT_OUTCOME_COMPLETED:
        return rec->state == S_COMPLETED;
    case CHRONOS__V1__ATTEMPT_OUTCOME__ATTEMPT_OUTCOME_FAILED:
        return rec->state == S_FAILED &&
               rec->failure_reason == CHRONOS__V1__FAILURE_REASON__FAILURE_REASON_EXIT_CODE;
    default:
        return rec->state == S_CANCELLED || rec->state == S_FAILED;
    }
}

/* Which submit a job came from: sim_client.c puts the number into the name. */
static int each_job(void *arg, uint64_t seq, const Chronos__Internal__V1__JobRecord *rec) {
    struct job_scan *scan = arg;
    struct world *w = scan->w;
    const struct job_ghost *g = u64map_get(&w->checker.job_state, seq);
    const struct sim_op *op;
    unsigned number = 0;

    if (rec->schedule_seq != 0) { /* checker_schedules_final looks at it */
        if (rec->state < S_COMPLETED)
            sim_fail(w, "node %u: job %llu of schedule %llu never ended, state %d", scan->node + 1,
                     (unsigned long long) seq, (unsigned long long) rec->schedule_seq,
                     (int) rec->state);
        return w->failed;
    }
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
    else if (rec->state < S_COMPLETED)
        sim_fail(w, "node %u: job %llu never ended, state %d attempt %u", scan->node + 1,
                 (unsigned long long) seq, (int) rec->state, rec->attempt);
    else if (rec->lost_attempts > op->max_attempts) /* J15 */
        sim_fail(w, "node %u: job %llu lost %llu attempts of %u", scan->node + 1,
                 (unsigned long long) seq, (unsigned long long) rec->lost_attempts,
                 op->max_attempts);
    else if (!g || g->state != (int) rec->state || !result_kept(g, rec))
        sim_fail(w,
                 "node %u: job %llu ends in state %d with token %llu; told were state %d, and "
                 "to a worker outcome %d with token %llu",
                 scan->node + 1, (unsigned long long) seq, (int) rec->state,
                 (unsigned long long) rec->fencing_token, g ? g->state : 0,
                 g ? g->result_outcome : 0, (unsigned long long) (g ? g->result_token : 0));
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
    if (atlas_state_intact(n))
        fsm_check_invariants(f);
}

void checker_final(struct world *w) {
    const struct sim_node *first = NULL;

    for (unsigned i = 0; i < w->nodes_count && !w->failed; i++) {
        uint8_t a[16], b[16];

        if (!sim_world_counts(w, &w->nodes[i]))
            continue;
        first = first ? first : &w->nodes[i];
        fsm_digest(replica_fsm(first->replica), a);
        fsm_digest(replica_fsm(w->nodes[i].replica), b);
        if (replica_applied(w->nodes[i].replica) != replica_applied(first->replica) ||
            memcmp(a, b, sizeof(a)) != 0)
            sim_fail(w, "node %u did not come to the state of node %u", i + 1, first->slot + 1);
        check_jobs_on(w, &w->nodes[i]);
        checker_schedules_final(w, &w->nodes[i]);
        checker_model_final(w, &w->nodes[i]);
    }
    checker_members_final(w);
    checker_model_end(w);
}
