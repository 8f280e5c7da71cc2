#include "sched/sched.h"

#include "base/rand.h"
#include "fsm_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define ITEMS 1000

static Chronos__Internal__V1__AssignJobItem items[ITEMS];

static void add_worker(struct fixture *x, const char *id, uint32_t slots) {
    assert_int_equal(fixture_do(x, cmd_register(id, 1, slots, 1, NULL, 0, x->now_ms)), FSM_OK);
}

static void add_jobs(struct fixture *x, unsigned n) {
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(fixture_submit(x, 3), FSM_OK);
}

/* Apply the first @n planned items, each as an entry of its own; all must be accepted. */
static void apply_items(struct fixture *x, size_t n) {
    Chronos__Internal__V1__AssignJobItem copy[ITEMS];
    char ids[ITEMS][16];

    for (size_t i = 0; i < n; i++) {
        copy[i] = items[i];
        (void) snprintf(ids[i], sizeof(ids[i]), "%s", items[i].worker_id);
    }
    for (size_t i = 0; i < n; i++)
        assert_int_equal(
            fixture_do(x, cmd_assign(copy[i].job_seq, ids[i], copy[i].worker_incarnation, 0)),
            FSM_OK);
}

static size_t plan(struct sched *s, const struct fixture *x, size_t max, uint64_t *ret_plan) {
    size_t n = 999999;

    assert_int_equal(sched_plan(s, x->f, NULL, items, max, &n, ret_plan), 0);
    assert_true(n <= max);
    return n;
}

/* Goal: the rule of C35, item by item: fewest running per slot, then fewest running, then fewest
 * recent, then id; jobs first in first out.
 * Method: workers of 1, 2 and 4 slots; the expected order is written down. */
static void test_least_loaded_order(void **state) {
    /* Loads per slot: all 0: a < b < c by id. Then a 1/1 is full; b 0/2 and c 0/4: b by id; then
     * c 0/4; c 1/4; then b 1/2 against c 2/4: equal share, b runs fewer; then c, c. */
    static const char *const want[] = {"a", "b", "c", "c", "b", "c", "c"};
    struct fixture x;
    struct sched *s = NULL;
    uint64_t p = 0;

    (void) state;
    fixture_init(&x, NULL);
    add_worker(&x, "c", 4);
    add_worker(&x, "a", 1);
    add_worker(&x, "b", 2);
    add_jobs(&x, 10);
    assert_int_equal(sched_new(&s), 0);
    assert_int_equal(plan(s, &x, ITEMS, &p), ARRAY_LEN(want)); /* 7 slots for 10 jobs */
    for (size_t i = 0; i < ARRAY_LEN(want); i++) {
        assert_string_equal(items[i].worker_id, want[i]);
        assert_int_equal(items[i].job_seq, i + 1);
        assert_int_equal(items[i].worker_incarnation, 1);
    }
    assert_int_equal(sched_in_flight(s), 7);
    (void) sched_free(s);
    fixture_done(&x);
}

/* Goal: with equal loads the one with fewest recent assignments goes first, so that quick jobs do
 * not all land on the first name. */
static void test_recent(void **state) {
    struct fixture x;
    struct sched *s = NULL;
    unsigned hits[3] = {0};

    (void) state;
    fixture_init(&x, NULL);
    add_worker(&x, "a", 5);
    add_worker(&x, "b", 5);
    add_worker(&x, "c", 5);
    assert_int_equal(sched_new(&s), 0);
    for (int i = 0; i < 3000; i++) { /* one quick job at a time; beyond the window's halvings */
        uint64_t p = 0, seq;

        add_jobs(&x, 1);
        seq = x.out->results[0].job_seq;
        assert_int_equal(plan(s, &x, ITEMS, &p), 1);
        hits[items[0].worker_id[0] - 'a']++;
        apply_items(&x, 1);
        sched_plan_done(s, p);
        assert_int_equal(fixture_update(&x, seq, fsm_applied_index(x.f),
                                        CHRONOS__V1__ATTEMPT_OUTCOME__ATTEMPT_OUTCOME_COMPLETED),
                         FSM_OK);
    }
    for (int i = 0; i < 3; i++)
        assert_in_range(hits[i], 990, 1010);
    (void) sched_free(s);
    fixture_done(&x);
}

/* Goal: a worker that an operator drains, itself or through its node, gets no plan, and gets one
 * again when it is lifted (C36). */
static void test_draining(void **state) {
    static const uint64_t nodes[] = {1, 2};
    struct fixture x;
    struct sched *s = NULL;
    uint64_t p = 0;

    (void) state;
    fixture_init(&x, NULL);
    fixture_config(&x, config_of(nodes, ARRAY_LEN(nodes)));
    add_worker(&x, "a", 1); /* both at node 1 */
    add_worker(&x, "b", 1);
    assert_int_equal(fixture_do(&x, cmd_register("c", 1, 1, 2, NULL, 0, x.now_ms)), FSM_OK);
    add_jobs(&x, 5);
    assert_int_equal(sched_new(&s), 0);
    assert_int_equal(fixture_do(&x, cmd_drain(0, "a", true, 1000, x.now_ms)), FSM_OK);
    assert_int_equal(plan(s, &x, ITEMS, &p), 2);
    assert_string_equal(items[0].worker_id, "b");
    assert_string_equal(items[1].worker_id, "c");
    sched_plan_done(s, p);
    assert_int_equal(fixture_do(&x, cmd_drain(1, "", true, 1000, x.now_ms)), FSM_OK);
    assert_int_equal(plan(s, &x, ITEMS, &p), 1);
    assert_string_equal(items[0].worker_id, "c");
    sched_plan_done(s, p);
    assert_int_equal(fixture_do(&x, cmd_drain(1, "", false, 0, x.now_ms)), FSM_OK);
    assert_int_equal(fixture_do(&x, cmd_drain(0, "a", false, 0, x.now_ms)), FSM_OK);
    assert_int_equal(plan(s, &x, ITEMS, &p), 3);
    (void) sched_free(s);
    fixture_done(&x);
}

/* Goal: what is in flight is not proposed twice and takes its slots, until its plan is done; a
 * reset forgets it; a late done of a forgotten plan does no harm. */
static void test_in_flight(void **state) {
    struct fixture x;
    struct sched *s = NULL;
    uint64_t p1 = 0, p2 = 0, p3 = 0;

    (void) state;
    fixture_init(&x, NULL);
    add_worker(&x, "a", 3);
    add_jobs(&x, 5);
    assert_int_equal(sched_new(&s), 0);
    assert_int_equal(plan(s, &x, 2, &p1), 2);
    assert_int_equal(plan(s, &x, 2, &p2), 1); /* the third slot, the third job */
    assert_int_equal(items[0].job_seq, 3);
    assert_int_equal(plan(s, &x, 2, &p3), 0);
    sched_plan_done(s, p1); /* refused, say: its jobs are the oldest again */
    assert_int_equal(plan(s, &x, ITEMS, &p3), 2);
    assert_int_equal(items[0].job_seq, 1);
    assert_int_equal(items[1].job_seq, 2);
    sched_reset(s);
    assert_int_equal(sched_in_flight(s), 0);
    sched_plan_done(s, p2);
    assert_int_equal(plan(s, &x, ITEMS, &p1), 3);
    assert_true(p1 > p3);
    sched_plan_done(s, p3);
    assert_int_equal(sched_in_flight(s), 3);
    (void) sched_free(s);
    fixture_done(&x);
}

static bool only_b(void *ctx, const struct fsm_worker *w) {
    (*(unsigned *) ctx)++;
    return strcmp(w->id, "b") == 0;
}

/* Goal: lost workers and those the leader does not hear from get nothing. */
static void test_liveness(void **state) {
    unsigned asked = 0;
    const struct sched_liveness live = {.alive = only_b, .ctx = &asked};
    struct fixture x;
    struct sched *s = NULL;
    uint64_t p = 0;
    size_t n = 0;

    (void) state;
    fixture_init(&x, NULL);
    add_worker(&x, "a", 3);
    add_worker(&x, "b", 2);
    add_worker(&x, "c", 3);
    assert_int_equal(fixture_do(&x, cmd_lose("c", 1, x.now_ms)), FSM_OK);
    add_jobs(&x, 9);
    assert_int_equal(sched_new(&s), 0);
    assert_int_equal(sched_plan(s, x.f, &live, items, ITEMS, &n, &p), 0);
    assert_int_equal(n, 2);
    assert_int_equal(asked, 2); /* the lost one is not even asked about */
    assert_string_equal(items[0].worker_id, "b");
    assert_string_equal(items[1].worker_id, "b");
    (void) sched_free(s);
    fixture_done(&x);
}

/* Goal: over random histories slots are never exceeded, every accepted plan is accepted by the
 * state machine, jobs start in order, and no seat piles up. Method: random plans applied late,
 * workers that come, go and shrink; printed seed. */
static void test_random(void **state) {
    struct rng rng = rng_seed(11);
    struct fixture x;
    struct sched *s = NULL;

    (void) state;
    print_message("seed 11\n");
    fixture_init(&x, NULL);
    assert_int_equal(sched_new(&s), 0);
    for (int round = 0; round < 400; round++) {
        size_t first, second;
        uint64_t p1 = 0, p2 = 0, last = 0;
        char id[16];

        (void) snprintf(id, sizeof(id), "w%d", (int) rng_below(&rng, 30));
        if (rng_chance(&rng, 500))
            add_worker(&x, id, (uint32_t) rng_range(&rng, 1, 5)); /* also ends what it ran */
        add_jobs(&x, (unsigned) rng_below(&rng, 20));
        first = plan(s, &x, 1 + rng_below(&rng, 10), &p1);
        for (size_t i = 0; i < first; i++) {
            assert_true(items[i].job_seq > last); /* J20 */
            last = items[i].job_seq;
        }
        if (rng_chance(&rng, 200)) { /* the proposal never made it */
            if (first)
                sched_plan_done(s, p1);
            continue;
        }
        apply_items(&x, first);
        second = plan(s, &x, 5, &p2); /* the first one is applied but not yet reported: no harm */
        for (size_t i = 0; i < second; i++)
            assert_true(items[i].job_seq > last);
        if (first)
            sched_plan_done(s, p1);
        apply_items(&x, second);
        if (second)
            sched_plan_done(s, p2);
        for (const struct fsm_worker *w = fsm_worker_first(x.f); w; w = w->next)
            assert_true(w->running <= w->slots);
        assert_int_equal(sched_in_flight(s), 0);
    }
    fsm_check_invariants(x.f);
    (void) sched_free(s);
    fixture_done(&x);
}

static bool count_asked(void *ctx, const struct fsm_worker *w) {
    (void) w;
    (*(unsigned *) ctx)++;
    return true;
}

/* Goal: a plan's cost does not depend on how many jobs wait, nor on past plans.
 * Method: 100,000 pending jobs, 1,000 plans of 10 with all their predecessors in flight gone: each
 * touches the first jobs only, which is seen by the numbers it gives; and each asks about every
 * worker once. */
static void test_many_pending(void **state) {
    unsigned asked = 0;
    const struct sched_liveness live = {.alive = count_asked, .ctx = &asked};
    struct fixture x;
    struct sched *s = NULL;
    size_t n = 0;

    (void) state;
    fixture_init(&x, NULL);
    add_worker(&x, "a", 10000);
    add_worker(&x, "b", 10000);
    add_jobs(&x, 100000);
    assert_int_equal(sched_new(&s), 0);
    for (int i = 0; i < 1000; i++) {
        uint64_t p = 0;

        assert_int_equal(sched_plan(s, x.f, &live, items, 10, &n, &p), 0);
        assert_int_equal(n, 10);
        assert_int_equal(items[0].job_seq, 1);
        sched_plan_done(s, p);
    }
    assert_int_equal(asked, 2000);
    (void) sched_free(s);
    fixture_done(&x);
}

/* Goal: plans in flight are bounded. */
static void test_plans_bounded(void **state) {
    struct fixture x;
    struct sched *s = NULL;
    uint64_t p = 0;

    (void) state;
    fixture_init(&x, NULL);
    add_worker(&x, "a", 10000);
    add_jobs(&x, SCHED_PLANS_MAX + 5);
    assert_int_equal(sched_new(&s), 0);
    for (int i = 0; i < SCHED_PLANS_MAX; i++)
        assert_int_equal(plan(s, &x, 1, &p), 1);
    assert_int_equal(plan(s, &x, 1, &p), 0);
    sched_plan_done(s, p);
    assert_int_equal(plan(s, &x, 1, &p), 1);
    (void) sched_free(s);
    fixture_done(&x);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_least_loaded_order), cmocka_unit_test(test_recent),
        cmocka_unit_test(test_draining),           cmocka_unit_test(test_in_flight),
        cmocka_unit_test(test_liveness),           cmocka_unit_test(test_random),
        cmocka_unit_test(test_many_pending),       cmocka_unit_test(test_plans_bounded),
    };

    return cmocka_run_group_tests_name("sched", tests, NULL, NULL);
}
