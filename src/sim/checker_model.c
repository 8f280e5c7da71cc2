/* Checkers by the model of jobs (reliability.md J1-J3, J10-J20, J22, J25): everything that a
 * client, a worker or a watcher is told, and now and then the whole state of a node, is what the
 * model says at that index. See checker_model.h. Thread: one. */
#include "sim/checker_model.h"

#include "sim/schedule_model.h"

#include <stdlib.h>
#include <string.h>

#define ENTRY_HEAD_BYTES 16 /* what the node puts before a command */
#define SAMPLE_EVERY 64     /* applied entries of a node: some jobs */
#define COMPARE_EVERY 256   /* all jobs, and everything counted anew (J17) */
#define SAMPLE_JOBS 12
#define RECORDED_PERMILLE 300 /* worlds whose histories are judged */
#define ARENA_BYTES (64UL << 20)

struct checker_model *checker_model_new(struct world *w) {
    struct checker_model *c = calloc(1, sizeof(*c));

    if (!c)
        return NULL;
    c->world = w;
    c->rng = rng_seed(w->o.seed ^ 0x6d6f64656cULL);
    arena_init(&c->arena, ARENA_BYTES);
    history_init(&c->history);
    c->recording = rng_chance(&c->rng, RECORDED_PERMILLE);
    c->jobs = job_model_new(w->node_options.fsm.idempotency_max);
    return c->jobs ? c : checker_model_free(c);
}

struct checker_model *checker_model_free(struct checker_model *c) {
    struct u64map_slot *x;
    size_t pos = 0;

    if (!c)
        return NULL;
    while ((x = u64map_next(&c->entries, &pos)))
        bytes_unref(x->value);
    u64map_done(&c->entries);
    c->jobs = job_model_free(c->jobs);
    free(c->answers);
    arena_done(&c->arena);
    history_done(&c->history);
    free(c);
    return NULL;
}

/* Nothing more can be compared. */
static bool blind(const struct world *w) {
    return w->checker.model->lost || w->failed || w->no_memory;
}

/* ---- what is committed ----------------------------------------------------------------------- */

void checker_model_entry(struct world *w, const struct raft_entry *e) {
    struct checker_model *c = w->checker.model;
    uint64_t key = checker_entry_key(e->index, e->term);

    if (e->type == RAFT_ENTRY_NOOP || e->index <= c->jobs->index || u64map_get(&c->entries, key))
        return;
    if (u64map_put(&c->entries, key, bytes_ref(e->data)) < 0)
        w->no_memory = true;
}

static bool apply_config(struct world *w, uint64_t index, uint64_t key) {
    const struct raft_config *config = u64map_get(&w->checker.configs, key);
    uint64_t ids[RAFT_NODES_MAX];

    for (size_t i = 0; i < config->count; i++)
        ids[i] = config->members[i].id;
    return job_model_config(w->checker.model->jobs, index, ids, config->count);
}

static void answers_check(struct world *w);

static void trace_entry(struct world *w, uint64_t index, const struct bytes *b) {
    char text[200];
    int64_t now_ms;

    if (!w->o.trace || !b || b->len <= ENTRY_HEAD_BYTES)
        return;
    fsm_command_describe(slice_of(b->data + ENTRY_HEAD_BYTES, b->len - ENTRY_HEAD_BYTES), text,
                         sizeof(text), &now_ms);
    sim_trace(w, "entry %llu is committed: %s", (unsigned long long) index, text);
}

/* One more entry. */
static void advance(struct world *w, const struct jm_hint *hints, size_t count) {
    struct checker_model *c = w->checker.model;
    uint64_t index = c->jobs->index + 1;
    uint64_t term = index < w->checker.committed_cap ? w->checker.committed[index].term : 0;
    uint64_t key = checker_entry_key(index, term);
    Chronos__Internal__V1__LogCommand *command = NULL;
    struct bytes *b = u64map_del(&c->entries, key);
    bool ok;

    if (term == 0 || !u64map_get(&w->checker.entry_content, key)) {
        c->lost = true;
        return;
    }
    if (u64map_get(&w->checker.configs, key)) {
        ok = apply_config(w, index, key);
    } else {
        trace_entry(w, index, b);
        arena_clear(&c->arena);
        if (b && b->len > ENTRY_HEAD_BYTES)
            command = chronos__internal__v1__log_command__unpack(
                arena_pb(&c->arena), b->len - ENTRY_HEAD_BYTES, b->data + ENTRY_HEAD_BYTES);
        if (b && !command)
            sim_fail(w, "entry %llu: malformed command", (unsigned long long) index);
        ok = job_model_apply(c->jobs, index, command, hints, count);
    }
    bytes_unref(b);
    if (c->jobs->no_memory)
        w->no_memory = true;
    else if (!ok)
        sim_fail(w, "entry %llu: %s", (unsigned long long) index, c->jobs->wrong);
}

void checker_model_committed(struct world *w) {
    struct checker_model *c = w->checker.model;

    if (w->schedules > 0)
        return; /* it goes on with the schedules, which tell what becomes of ticks */
    while (!blind(w) && c->jobs->index < w->checker.committed_count)
        advance(w, NULL, 0);
    answers_check(w);
}

void checker_model_step(struct world *w, uint64_t index, const struct jm_hint *hints,
                        size_t count) {
    struct checker_model *c = w->checker.model;

    if (w->schedules == 0 || blind(w))
        return;
    if (index != c->jobs->index + 1) {
        c->lost = true;
        return;
    }
    advance(w, hints, count);
    answers_check(w);
}

/* ---- answers --------------------------------------------------------------------------------- */

static void check_result(struct world *w, const struct checker_answer *a) {
    const struct job_model *m = w->checker.model->jobs;
    const struct jm_output *o = job_model_output(m, a->index);
    const struct jm_result *r = o && o->results > 0 ? &m->results[o->first_result] : NULL;

    if (!r || o->results != 1)
        sim_fail(w, "entry %llu was answered, it has %zu answers", (unsigned long long) a->index,
                 o ? o->results : 0);
    else if (r->code != a->code || (r->seq != a->seq && a->code != FSM_KEY_CONFLICT))
        sim_fail(w, "entry %llu was answered code %d job %llu, must be code %d job %llu",
                 (unsigned long long) a->index, a->code, (unsigned long long) a->seq, r->code,
                 (unsigned long long) r->seq);
}

static void check_seen(struct world *w, const struct checker_answer *a) {
    const struct jm_version *v = job_model_at(w->checker.model->jobs, a->seq, a->index);

    if (a->there != (v != NULL))
        sim_fail(w, "node %u: a read at %llu shows job %llu %s", a->node + 1,
                 (unsigned long long) a->index, (unsigned long long) a->seq,
                 a->there ? "before it is made" : "missing");
    else if (v && (v->state != a->state || v->attempt != a->attempt || v->token != a->token ||
                   v->cancel != a->cancel))
        sim_fail(w,
                 "node %u: a read at %llu shows job %llu in state %d attempt %u token %llu "
                 "cancel=%d, must be state %d attempt %u token %llu cancel=%d",
                 a->node + 1, (unsigned long long) a->index, (unsigned long long) a->seq, a->state,
                 a->attempt, (unsigned long long) a->token, (int) a->cancel, v->state, v->attempt,
                 (unsigned long long) v->token, (int) v->cancel);
}

static void check_answer(struct world *w, const struct checker_answer *a) {
    if (a->kind == ANSWER_RESULT)
        check_result(w, a);
    else
        check_seen(w, a);
}

static void answers_check(struct world *w) {
    struct checker_model *c = w->checker.model;
    size_t kept = 0;

    for (size_t i = 0; i < c->answers_count && !blind(w); i++) {
        if (c->answers[i].index <= c->jobs->index)
            check_answer(w, &c->answers[i]);
        else
            c->answers[kept++] = c->answers[i];
    }
    if (!blind(w))
        c->answers_count = kept;
}

static void answers_add(struct world *w, struct checker_answer a) {
    struct checker_model *c = w->checker.model;
    struct checker_answer *grown;

    if (blind(w))
        return;
    if (a.index <= c->jobs->index) {
        check_answer(w, &a);
        return;
    }
    if (c->answers_count == c->answers_cap) {
        size_t cap = MAX(c->answers_cap * 2, (size_t) 32);

        grown = realloc(c->answers, cap * sizeof(*grown));
        if (!grown) {
            w->no_memory = true;
            return;
        }
        c->answers = grown;
        c->answers_cap = cap;
    }
    c->answers[c->answers_count++] = a;
}

void checker_model_answered(struct world *w, const struct replica_proposed *res) {
    const struct fsm_result *r = res->output->results;

    if (res->output->results_count != 1) {
        sim_fail(w, "entry %llu: %zu results for one item", (unsigned long long) res->index,
                 res->output->results_count);
        return;
    }
    answers_add(w, (struct checker_answer){.index = res->index,
                                           .kind = ANSWER_RESULT,
                                           .code = (int) r->code,
                                           .seq = r->job_seq});
}

void checker_model_read(struct world *w, struct sim_node *n, uint64_t seq) {
    Chronos__Internal__V1__JobRecord *rec = NULL;
    struct checker_answer a = {
        .index = replica_applied(n->replica), .kind = ANSWER_JOB, .node = n->slot, .seq = seq};

    arena_clear(&w->arena);
    if (fsm_read_job(replica_fsm(n->replica), seq, &w->arena, &rec) == 0) {
        a.there = true;
        a.state = (int) rec->state;
        a.attempt = rec->attempt;
        a.token = rec->fencing_token;
        a.cancel = rec->cancel_requested;
    }
    answers_add(w, a);
}

/* ---- workers --------------------------------------------------------------------------------- */

/* J10, J11: what a worker is given was committed, for it and this life of it. */
void checker_model_started(struct world *w, const struct sim_worker *wk, uint64_t seq,
                           uint32_t attempt, uint64_t token) {
    const struct jm_version *v;

    if (blind(w))
        return;
    if (token > w->checker.committed_count)
        sim_fail(w, "worker %s was given job %llu by entry %llu, committed is %llu", wk->id,
                 (unsigned long long) seq, (unsigned long long) token,
                 (unsigned long long) w->checker.committed_count);
    if (token > w->checker.model->jobs->index)
        return; /* the schedules are not as far yet; its transition was told */
    v = job_model_at(w->checker.model->jobs, seq, token);
    if (!v || v->index != token || v->token != token || v->attempt != attempt || !v->worker ||
        strcmp(v->worker->id, wk->id) != 0 || v->incarnation != wk->incarnation)
        sim_fail(w, "worker %s was given attempt %u of job %llu by entry %llu, which says: %s %u",
                 wk->id, attempt, (unsigned long long) seq, (unsigned long long) token,
                 v && v->worker ? v->worker->id : "nobody", v ? v->attempt : 0);
}

/* J12: what a worker is told about its report is what the report came to. */
void checker_model_reported(struct world *w, const struct sim_worker *wk, uint64_t seq,
                            uint64_t token, int outcome, bool stale) {
    unsigned bits;

    if (blind(w) || w->checker.model->jobs->index < w->checker.committed_count)
        return;
    bits = job_model_report(w->checker.model->jobs, seq, token, outcome);
    if (!(bits & (stale ? JM_REPORT_STALE : JM_REPORT_TAKEN)))
        sim_fail(w,
                 "worker %s was told that outcome %d of job %llu with token %llu is %s, which no "
                 "entry says",
                 wk->id, outcome, (unsigned long long) seq, (unsigned long long) token,
                 stale ? "stale" : "taken");
}

/* ---- transitions ----------------------------------------------------------------------------- */

static bool same_event(const struct jm_event *x, const struct fsm_event *e) {
    return x->seq == e->job_seq && x->from == (int) e->from && x->to == (int) e->to &&
           x->attempt == e->attempt && x->token == e->fencing_token &&
           x->cancel == e->cancel_requested && x->kill == e->kill &&
           x->failure_reason == (int) e->failure_reason && x->exit_code == e->exit_code &&
           x->term_signal == e->term_signal && x->released == e->released_attempts &&
           strcmp(x->worker ? x->worker->id : "", e->worker_id) == 0;
}

void checker_model_told(struct world *w, const struct sim_node *n, uint64_t after, uint64_t upto,
                        const struct replica_event *events, size_t count) {
    const struct job_model *m = w->checker.model->jobs;
    const struct jm_output *first, *last;
    size_t must;

    if (blind(w) || upto <= after || upto > m->index)
        return;
    first = job_model_output(m, after + 1);
    last = job_model_output(m, upto);
    must = last->first_event + last->events - first->first_event;
    if (must != count)
        sim_fail(w, "node %u tells %zu transitions after %llu up to %llu, there are %zu",
                 n->slot + 1, count, (unsigned long long) after, (unsigned long long) upto, must);
    for (size_t i = 0; i < count && !w->failed; i++) {
        const struct jm_event *x = &m->events[first->first_event + i];
        const struct fsm_event *e = &events[i].event;

        if (!same_event(x, e) || events[i].index <= after || events[i].index > upto)
            sim_fail(w,
                     "node %u at %llu: job %llu goes from %d to %d attempt %u token %llu reason "
                     "%d kill=%d released=%llu, must be job %llu from %d to %d attempt %u token "
                     "%llu reason %d kill=%d released=%llu",
                     n->slot + 1, (unsigned long long) events[i].index,
                     (unsigned long long) e->job_seq, (int) e->from, (int) e->to, e->attempt,
                     (unsigned long long) e->fencing_token, (int) e->failure_reason, (int) e->kill,
                     (unsigned long long) e->released_attempts, (unsigned long long) x->seq,
                     x->from, x->to, x->attempt, (unsigned long long) x->token, x->failure_reason,
                     (int) x->kill, (unsigned long long) x->released);
    }
}

/* ---- states ---------------------------------------------------------------------------------- */

static bool same_text(const char *s, uint64_t hash) {
    return job_model_hash(s, strlen(s)) == hash;
}

/* The name of the first field that differs; NULL: none does. */
static const char *difference(const struct jm_job *j, const Chronos__Internal__V1__JobRecord *r) {
    if ((int) r->state != j->state)
        return "state";
    if (r->attempt != j->attempt || r->fencing_token != j->token ||
        r->max_attempts != j->max_attempts)
        return "attempt or token";
    if (strcmp(r->worker_id, j->worker ? j->worker->id : "") != 0)
        return "worker";
    if (r->cancel_requested != j->cancel || r->kill != j->kill)
        return "cancel";
    if ((int) r->failure_reason != j->failure_reason || r->exit_code != j->exit_code ||
        r->term_signal != j->term_signal)
        return "result";
    if (r->lost_attempts != j->lost || r->released_attempts != j->released)
        return "counts of attempts";
    if (r->created_at_ms != j->created_ms || r->started_at_ms != j->started_ms ||
        r->finished_at_ms != j->finished_ms)
        return "times";
    if (r->created_index != j->created_index || r->updated_index != j->updated_index)
        return "indices";
    if (r->schedule_seq != j->schedule_seq || r->schedule_generation != j->generation ||
        r->tick_s != j->tick_s || (int) r->tick_reason != j->tick_reason)
        return "tick";
    if (job_model_hash(r->spec.data, r->spec.len) != j->spec_hash ||
        !same_text(r->queue, j->queue_hash))
        return "spec or queue";
    return NULL;
}

static void compare_job(struct world *w, struct sim_node *n, uint64_t seq) {
    const struct jm_job *j = job_model_find(w->checker.model->jobs, seq);
    Chronos__Internal__V1__JobRecord *rec = NULL;
    const char *differs;
    int rc;

    arena_clear(&w->arena);
    rc = fsm_read_job(replica_fsm(n->replica), seq, &w->arena, &rec);
    if (atlas_answers_loss(n, rc))
        return;
    if (rc < 0 || (rc == 0) != (j != NULL)) {
        sim_fail(w, "node %u at %llu: job %llu is %s", n->slot + 1,
                 (unsigned long long) replica_applied(n->replica), (unsigned long long) seq,
                 rc < 0    ? "unreadable"
                 : rc == 0 ? "there, nobody made it"
                           : "missing");
        return;
    }
    differs = j ? difference(j, rec) : NULL;
    if (differs)
        sim_fail(w,
                 "node %u at %llu: %s of job %llu: state %d attempt %u token %llu worker %s, must "
                 "be state %d attempt %u token %llu worker %s",
                 n->slot + 1, (unsigned long long) replica_applied(n->replica), differs,
                 (unsigned long long) seq, (int) rec->state, rec->attempt,
                 (unsigned long long) rec->fencing_token, rec->worker_id, j->state, j->attempt,
                 (unsigned long long) j->token, j->worker ? j->worker->id : "");
}

/* J17, J18, C36 */
static void compare_workers(struct world *w, struct sim_node *n) {
    const struct job_model *m = w->checker.model->jobs;
    const struct fsm_worker *k = fsm_worker_first(replica_fsm(n->replica));

    for (const struct jm_worker *x = m->workers; x && !w->failed; x = x->next) {
        int64_t until_ms;

        if (!k || strcmp(k->id, x->id) != 0 || k->incarnation != x->incarnation ||
            k->node_id != x->node_id || k->slots != x->slots || k->running != x->running ||
            k->lost != x->lost || k->registered_index != x->registered_index ||
            k->hello != x->hello || k->draining != job_model_drains(m, x, &until_ms) ||
            k->drain_until_ms != until_ms || k->own_draining != x->draining ||
            k->own_drain_until_ms != x->drain_until_ms) {
            sim_fail(w, "node %u at %llu: worker %s is not as it must be (runs %u on %u slots)",
                     n->slot + 1, (unsigned long long) m->index, x->id, x->running, x->slots);
            return;
        }
        k = k->next;
    }
    if (k)
        sim_fail(w, "node %u: worker %s should not be there", n->slot + 1, k->id);
}

/* J17, J20 */
static void compare_counts(struct world *w, struct sim_node *n) {
    const struct job_model *m = w->checker.model->jobs;
    const struct fsm *f = replica_fsm(n->replica);

    for (int s = JM_STATE(PENDING); s <= JM_STATE(CANCELLED); s++)
        if (fsm_jobs_count(f, (Chronos__V1__JobState) s) != m->counts[s])
            sim_fail(w, "node %u at %llu: counts %llu jobs in state %d, there are %llu",
                     n->slot + 1, (unsigned long long) m->index,
                     (unsigned long long) fsm_jobs_count(f, (Chronos__V1__JobState) s), s,
                     (unsigned long long) m->counts[s]);
    if (fsm_next_seq(f) != m->next_seq || fsm_last_now_ms(f) != m->now_ms)
        sim_fail(w, "node %u at %llu: next job %llu at %lld ms, must be %llu at %lld ms",
                 n->slot + 1, (unsigned long long) m->index, (unsigned long long) fsm_next_seq(f),
                 (long long) fsm_last_now_ms(f), (unsigned long long) m->next_seq,
                 (long long) m->now_ms);
}

static void compare_waiting(struct world *w, struct sim_node *n) {
    const struct fsm_job *r = fsm_ready_first(replica_fsm(n->replica));

    for (const struct jm_job *j = w->checker.model->jobs->waiting; j && !w->failed; j = j->next) {
        if (!r || r->seq != j->seq)
            sim_fail(w, "node %u: job %llu waits next, must be job %llu", n->slot + 1,
                     (unsigned long long) (r ? r->seq : 0), (unsigned long long) j->seq);
        r = r ? r->ready_next : NULL;
    }
    if (r)
        sim_fail(w, "node %u: job %llu should not wait", n->slot + 1, (unsigned long long) r->seq);
}

static void compare_all(struct world *w, struct sim_node *n) {
    const struct job_model *m = w->checker.model->jobs;

    compare_waiting(w, n);
    for (uint64_t seq = 1; seq <= m->next_seq && !w->failed; seq++)
        compare_job(w, n, seq);
    if (atlas_state_intact(n))
        fsm_check_invariants(replica_fsm(n->replica));
    sim_count(w, SIM_STAT_STATES_COMPARED);
}

static void compare_some(struct world *w, struct sim_node *n) {
    struct checker_model *c = w->checker.model;

    compare_waiting(w, n);
    for (unsigned i = 0; i < SAMPLE_JOBS && !w->failed; i++)
        compare_job(w, n, rng_range(&c->rng, 1, c->jobs->next_seq));
}

void checker_model_node(struct world *w, struct sim_node *n) {
    struct checker_model *c = w->checker.model;
    uint64_t applied = replica_applied(n->replica);
    uint64_t before = n->seen_applied;

    checker_watch(w, n);
    if (blind(w) || c->jobs->index != applied)
        return;
    compare_workers(w, n);
    compare_counts(w, n);
    if (applied >= c->compared_at[n->slot] + COMPARE_EVERY) {
        c->compared_at[n->slot] = applied;
        compare_all(w, n);
    } else if (applied / SAMPLE_EVERY != before / SAMPLE_EVERY) {
        compare_some(w, n);
    }
}

void checker_model_final(struct world *w, struct sim_node *n) {
    if (blind(w) || w->checker.model->jobs->index != replica_applied(n->replica))
        return;
    compare_workers(w, n);
    compare_counts(w, n);
    compare_all(w, n);
}

/* R5 from the outside: what was answered is committed. */
void checker_model_end(struct world *w) {
    const struct checker_model *c = w->checker.model;

    if (c->lost)
        sim_count(w, SIM_STAT_JOB_MODELS_LOST);
    if (blind(w))
        return;
    for (size_t i = 0; i < c->answers_count; i++)
        if (c->answers[i].index > w->checker.committed_count)
            sim_fail(w, "somebody was answered by entry %llu, committed is %llu",
                     (unsigned long long) c->answers[i].index,
                     (unsigned long long) w->checker.committed_count);
    checker_history_judge(w);
}
