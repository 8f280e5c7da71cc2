/* The simulator's model of jobs against the state machine.
 * Goal: the two, written apart, agree on every answer, transition and record, also where the
 * simulated worlds do not come: keys that are forgotten after 24 hours or for want of room,
 * requests nobody sends, drains and times at their limits. Method: random commands with hours
 * between some of them, the same bytes for both; printed seed, CHRONOS_TEST_SEED repeats it. */
#include "fsm_fixture.h"

#include "base/rand.h"
#include "sim/job_model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define ENTRIES 4000
#define RUNS 8
#define WORKERS 4
#define NODES 3
#define KEYS 12
#define KEYS_MAX 6
#define OUTCOMES 6

struct pair {
    struct fixture x;
    struct job_model *m;
    struct arena arena;
    struct rng rng;
    uint64_t incarnations[WORKERS];
    unsigned codes[FSM_PARTIAL + 1];
};

static const char *worker_name(uint64_t i) {
    static const char *const names[WORKERS] = {"a", "bb", "ccc", "dddd"};

    return names[i];
}

static uint64_t some_job(struct pair *p) {
    uint64_t next = p->m->next_seq;

    if (rng_chance(&p->rng, 50))
        return rng_below(&p->rng, next + 2);
    return rng_range(&p->rng, next > 20 ? next - 20 : 0, next);
}

/* ---- one random command ---------------------------------------------------------------------- */

static struct bytes *submit(struct pair *p) {
    char key[16] = "", hash[2] = {rng_chance(&p->rng, 800) ? 'x' : 'y', 0};

    if (rng_chance(&p->rng, 500))
        (void) snprintf(key, sizeof(key), "key-%u", (unsigned) rng_below(&p->rng, KEYS));
    return cmd_submit("spec", key, hash, (uint32_t) rng_below(&p->rng, 4), p->x.now_ms);
}

static struct bytes *update(struct pair *p) {
    const struct jm_job *j = job_model_find(p->m, some_job(p));
    uint64_t seq = j ? j->seq : some_job(p), token = j ? j->token : 1;
    int outcome = (int) rng_below(&p->rng, OUTCOMES);

    token += rng_chance(&p->rng, 150);
    if (outcome == CHRONOS__V1__ATTEMPT_OUTCOME__ATTEMPT_OUTCOME_RELEASED)
        return cmd_release(seq, token, rng_chance(&p->rng, 500), p->x.now_ms);
    return cmd_update(seq, token, (Chronos__V1__AttemptOutcome) outcome,
                      (Chronos__V1__FailureReason) rng_below(&p->rng, 8), p->x.now_ms);
}

static struct bytes *reg(struct pair *p, uint64_t w) {
    uint64_t held[16][2];
    size_t n = 0;

    for (uint64_t seq = 1; seq < p->m->next_seq && n < ARRAY_LEN(held); seq++) {
        const struct jm_job *j = job_model_find(p->m, seq);

        if (!j || j->state != (int) JM_STATE(RUNNING) || !rng_chance(&p->rng, 600))
            continue;
        held[n][0] = seq;
        held[n++][1] = j->token + rng_chance(&p->rng, 100);
    }
    if (rng_chance(&p->rng, 400))
        p->incarnations[w] = rng_range(&p->rng, 1, 1000);
    return cmd_register(worker_name(w), p->incarnations[w], (uint32_t) rng_below(&p->rng, 5),
                        rng_range(&p->rng, 1, NODES), (const uint64_t(*)[2]) held, n, p->x.now_ms);
}

static struct bytes *drain(struct pair *p, uint64_t w) {
    bool on = rng_chance(&p->rng, 300);
    int64_t timeout_ms = rng_chance(&p->rng, 100)
                             ? (int64_t) rng_range(&p->rng, 604799990, 604800010)
                             : (int64_t) rng_below(&p->rng, 9000) - 100;

    if (rng_chance(&p->rng, 500))
        return cmd_drain(rng_below(&p->rng, NODES + 2), "", on, timeout_ms, p->x.now_ms);
    return cmd_drain(rng_chance(&p->rng, 30), worker_name(w), on, timeout_ms, p->x.now_ms);
}

static struct bytes *command(struct pair *p) {
    uint64_t w = rng_below(&p->rng, WORKERS), dice = rng_below(&p->rng, 100);
    uint64_t incarnation = p->incarnations[w] + rng_chance(&p->rng, 50);

    if (dice < 28)
        return submit(p);
    if (dice < 58)
        return cmd_assign(some_job(p), worker_name(w), incarnation, p->x.now_ms);
    if (dice < 80)
        return update(p);
    if (dice < 86)
        return cmd_cancel(some_job(p), p->x.now_ms);
    if (dice < 89)
        return cmd_lose(worker_name(w), incarnation, p->x.now_ms);
    return dice < 95 ? reg(p, w) : drain(p, w);
}

/* ---- comparing ------------------------------------------------------------------------------- */

static void compare_output(struct pair *p, const struct fsm_output *out) {
    const struct jm_output *o = job_model_output(p->m, p->m->index);

    assert_int_equal(o->results, out->results_count);
    for (size_t i = 0; i < o->results; i++) {
        const struct jm_result *r = &p->m->results[o->first_result + i];

        assert_int_equal(r->code, out->results[i].code);
        assert_int_equal(r->seq, out->results[i].job_seq);
        p->codes[r->code]++;
    }
    assert_int_equal(o->events, out->events_count);
    for (size_t i = 0; i < o->events; i++) {
        const struct jm_event *x = &p->m->events[o->first_event + i];
        const struct fsm_event *e = &out->events[i];

        assert_int_equal(x->seq, e->job_seq);
        assert_int_equal(x->from, e->from);
        assert_int_equal(x->to, e->to);
        assert_int_equal(x->attempt, e->attempt);
        assert_int_equal(x->token, e->fencing_token);
        assert_int_equal(x->cancel, e->cancel_requested);
        assert_int_equal(x->failure_reason, e->failure_reason);
        assert_int_equal(x->released, e->released_attempts);
        assert_string_equal(x->worker ? x->worker->id : "", e->worker_id);
    }
}

static void compare_job(struct pair *p, uint64_t seq) {
    const struct jm_job *j = job_model_find(p->m, seq);
    Chronos__Internal__V1__JobRecord *r = NULL;

    arena_clear(&p->arena);
    if (!j) {
        assert_int_equal(fsm_read_job(p->x.f, seq, &p->arena, &r), FSM_READ_NOT_FOUND);
        return;
    }
    assert_int_equal(fsm_read_job(p->x.f, seq, &p->arena, &r), 0);
    assert_int_equal(r->state, j->state);
    assert_int_equal(r->attempt, j->attempt);
    assert_int_equal(r->max_attempts, j->max_attempts);
    assert_int_equal(r->lost_attempts, j->lost);
    assert_int_equal(r->released_attempts, j->released);
    assert_int_equal(r->failure_reason, j->failure_reason);
    assert_true(r->created_at_ms == j->created_ms && r->started_at_ms == j->started_ms &&
                r->finished_at_ms == j->finished_ms);
    assert_int_equal(r->created_index, j->created_index);
    assert_int_equal(r->updated_index, j->updated_index);
    assert_int_equal(job_model_at(p->m, seq, p->m->index)->state, j->state);
    assert_null(job_model_at(p->m, seq, j->created_index - 1));
}

static void compare_state(struct pair *p) {
    const struct fsm_worker *k = fsm_worker_first(p->x.f);
    const struct fsm_job *ready = fsm_ready_first(p->x.f);

    for (const struct jm_worker *w = p->m->workers; w; w = w->next, k = k->next) {
        int64_t until_ms;

        assert_non_null(k);
        assert_string_equal(k->id, w->id);
        assert_int_equal(k->running, w->running);
        assert_int_equal(k->lost, w->lost);
        assert_int_equal(k->draining, job_model_drains(p->m, w, &until_ms));
        assert_true(k->drain_until_ms == until_ms);
    }
    assert_null(k);
    for (const struct jm_job *j = p->m->waiting; j; j = j->next, ready = ready->ready_next) {
        assert_non_null(ready);
        assert_int_equal(ready->seq, j->seq);
    }
    assert_null(ready);
    assert_int_equal(fsm_next_seq(p->x.f), p->m->next_seq);
    for (uint64_t seq = 1; seq <= p->m->next_seq; seq++)
        compare_job(p, seq);
}

/* ---- both ------------------------------------------------------------------------------------ */

static void apply_both(struct pair *p, struct bytes *b) {
    Chronos__Internal__V1__LogCommand *c;

    assert_int_equal(fixture_apply(&p->x, b), 0);
    arena_clear(&p->arena);
    c = chronos__internal__v1__log_command__unpack(arena_pb(&p->arena), b->len, b->data);
    assert_non_null(c);
    if (!job_model_apply(p->m, fsm_applied_index(p->x.f), c, NULL, 0) &&
        !strstr(p->m->wrong, "which waits for longer"))
        fail_msg("%s", p->m->wrong);
    p->m->wrong[0] = '\0'; /* nobody here assigns in the order of waiting */
    compare_output(p, p->x.out);
    bytes_unref(b);
}

static void config_both(struct pair *p) {
    uint64_t ids[NODES];
    size_t n = 0;

    for (uint64_t id = 1; id <= NODES; id++)
        if (rng_chance(&p->rng, 800) || (id == NODES && n == 0))
            ids[n++] = id;
    fixture_config(&p->x, config_of(ids, n));
    assert_true(job_model_config(p->m, fsm_applied_index(p->x.f), ids, n));
}

static void pair_init(struct pair *p, uint64_t seed) {
    const struct fsm_options o = {.idempotency_max = KEYS_MAX};

    *p = (struct pair){.rng = rng_seed(seed)};
    fixture_init(&p->x, &o);
    arena_init(&p->arena, 1 << 24);
    p->m = job_model_new(KEYS_MAX);
    assert_non_null(p->m);
    config_both(p);
}

static void pair_done(struct pair *p) {
    job_model_free(p->m);
    arena_done(&p->arena);
    fixture_done(&p->x);
}

static void test_agrees(void **state) {
    const char *given = getenv("CHRONOS_TEST_SEED");
    uint64_t seed = given ? strtoull(given, NULL, 10) : 41;
    unsigned codes[FSM_PARTIAL + 1] = {0};
    struct pair p;

    (void) state;
    print_message("CHRONOS_TEST_SEED=%llu\n", (unsigned long long) seed);
    for (uint64_t run = 0; run < RUNS; run++) {
        pair_init(&p, seed + run);
        for (int i = 0; i < ENTRIES / RUNS; i++) {
            p.x.now_ms += rng_chance(&p.rng, 20) ? (int64_t) rng_below(&p.rng, 90000000)
                                                 : (int64_t) rng_below(&p.rng, 3000) - 500;
            if (rng_chance(&p.rng, 10))
                config_both(&p);
            apply_both(&p, command(&p));
            if (i % 50 == 0)
                compare_state(&p);
        }
        compare_state(&p);
        for (size_t i = 0; i < ARRAY_LEN(codes); i++)
            codes[i] += p.codes[i];
        pair_done(&p);
    }
    for (int code = FSM_OK; code <= FSM_WORKER_DRAINING; code++)
        if (codes[code] == 0)
            fail_msg("no command was answered with code %d", code);
}

/* What nobody may do, the model says in words: here the younger job starts first (J20). */
static void test_objects(void **state) {
    Chronos__Internal__V1__LogCommand *c;
    struct bytes *b;
    struct pair p;

    (void) state;
    pair_init(&p, 1);
    apply_both(&p, cmd_register("a", 1, 2, 1, NULL, 0, p.x.now_ms));
    apply_both(&p, cmd_submit("spec", "", "", 1, p.x.now_ms));
    apply_both(&p, cmd_submit("spec", "", "", 1, p.x.now_ms));
    b = cmd_assign(2, "a", 1, p.x.now_ms);
    arena_clear(&p.arena);
    c = chronos__internal__v1__log_command__unpack(arena_pb(&p.arena), b->len, b->data);
    assert_non_null(c);
    assert_false(job_model_apply(p.m, p.m->index + 1, c, NULL, 0));
    assert_non_null(strstr(p.m->wrong, "job 2 starts before job 1"));
    bytes_unref(b);
    pair_done(&p);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_agrees),
                                       cmocka_unit_test(test_objects)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
