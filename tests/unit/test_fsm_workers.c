/* The state machine's workers: registrations, and how many are known.
 * Method: that of test_fsm.c. */
#include "fsm_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define S(x) CHRONOS__V1__JOB_STATE__JOB_STATE_##x

/* Goal: a registration that comes late or twice changes nothing: not what was assigned since, not
 * the slots, not a loss; one without a count is taken as ever. Method: the hellos of one process
 * out of order, then those of another; after each, what runs and whose the worker is; also after a
 * reopening. */
static void test_register_order(void **state) {
    struct fsm_worker *w;
    uint64_t seen, held[1][2];
    struct fixture x;

    (void) state;
    fixture_world(&x, 4, 4, 3);
    assert_int_equal(fixture_do(&x, cmd_hello("w1", 7, 4, 1, 2, 0, NULL, 0, x.now_ms)), FSM_OK);
    assert_int_equal(fixture_assign(&x, 1, "w1", 7), FSM_OK);
    seen = fsm_applied_index(x.f);
    w = (struct fsm_worker *) (uintptr_t) fsm_worker_find(x.f, "w1");
    assert_int_equal(w->hello, 2);
    /* The same again: its list misses job 1. */
    assert_int_equal(fixture_do(&x, cmd_hello("w1", 7, 9, 1, 2, 0, NULL, 0, x.now_ms)), FSM_OK);
    assert_int_equal(x.out->events_count, 0);
    assert_false(x.out->workers_changed);
    assert_int_equal(w->slots, 4);
    assert_int_equal(w->running, 1);
    assert_int_equal(w->registered_index, seen - 1);
    /* An older one, by way of another node, which had applied everything. */
    assert_int_equal(fixture_do(&x, cmd_hello("w1", 7, 4, 2, 1, seen, NULL, 0, x.now_ms)),
                     FSM_STALE);
    assert_int_equal(w->node_id, 1);
    assert_int_equal(w->running, 1);
    assert_int_equal(fsm_write_back(x.f), 0);
    fixture_reopen(&x);
    assert_int_equal(fixture_do(&x, cmd_hello("w1", 7, 4, 2, 1, seen, NULL, 0, x.now_ms)),
                     FSM_STALE);
    /* A newer one counts, although its node was behind. */
    held[0][0] = 1;
    held[0][1] = fsm_job_find(x.f, 1)->fencing_token;
    assert_int_equal(
        fixture_do(&x, cmd_hello("w1", 7, 4, 2, 3, 1, (const uint64_t(*)[2]) held, 1, x.now_ms)),
        FSM_OK);
    assert_int_equal(fsm_worker_find(x.f, "w1")->node_id, 2);
    assert_int_equal(fsm_worker_find(x.f, "w1")->running, 1);
    /* Another process, at a node that did not know of that yet; then at one that did. */
    assert_int_equal(fixture_do(&x, cmd_hello("w1", 8, 4, 1, 1, seen, NULL, 0, x.now_ms)),
                     FSM_STALE);
    assert_int_equal(fsm_worker_find(x.f, "w1")->running, 1);
    seen = fsm_applied_index(x.f);
    assert_int_equal(fixture_do(&x, cmd_hello("w1", 8, 4, 1, 1, seen, NULL, 0, x.now_ms)), FSM_OK);
    assert_int_equal(fsm_worker_find(x.f, "w1")->running, 0);
    assert_int_equal(fsm_worker_find(x.f, "w1")->hello, 1);
    /* The old process's last words. */
    assert_int_equal(fixture_do(&x, cmd_hello("w1", 7, 4, 2, 4, seen, NULL, 0, x.now_ms)),
                     FSM_STALE);
    assert_int_equal(fsm_worker_find(x.f, "w1")->incarnation, 8);
    /* A loss is not undone by the same hello, but by the next. */
    assert_int_equal(fixture_do(&x, cmd_lose("w1", 8, x.now_ms)), FSM_OK);
    assert_int_equal(fixture_do(&x, cmd_hello("w1", 8, 4, 1, 1, seen, NULL, 0, x.now_ms)), FSM_OK);
    assert_true(fsm_worker_find(x.f, "w1")->lost);
    assert_int_equal(fixture_do(&x, cmd_hello("w1", 8, 4, 1, 2, 0, NULL, 0, x.now_ms)), FSM_OK);
    assert_false(fsm_worker_find(x.f, "w1")->lost);
    /* Entries of older programs: always taken; with an index alone, unless something came later. */
    assert_int_equal(fixture_assign(&x, 2, "w1", 8), FSM_OK);
    assert_int_equal(fixture_register(&x, "w1", 8, 3), FSM_OK);
    assert_int_equal(fsm_worker_find(x.f, "w1")->running, 0);
    assert_int_equal(fixture_do(&x, cmd_hello("w1", 8, 4, 1, 0, seen, NULL, 0, x.now_ms)),
                     FSM_STALE);
    assert_int_equal(fsm_worker_find(x.f, "w1")->slots, 3);
    fsm_check_invariants(x.f);
    fixture_done(&x);
}

/* Goal: a registration keeps exactly the attempts it holds; slots may shrink below what runs (C27).
 */
static void test_register_held(void **state) {
    struct arena arena;
    Chronos__Internal__V1__WorkerRecord *w;
    uint64_t held[2][2];
    struct fixture x;

    (void) state;
    fixture_world(&x, 4, 4, 3);
    for (uint64_t i = 1; i <= 3; i++)
        assert_int_equal(fixture_assign(&x, i, "w1", 7), FSM_OK);
    held[0][0] = 1;
    held[0][1] = fsm_job_find(x.f, 1)->fencing_token;
    held[1][0] = 2;
    held[1][1] = fsm_job_find(x.f, 2)->fencing_token + 1; /* another attempt than the live one */
    assert_int_equal(
        fixture_do(&x, cmd_register("w1", 7, 1, 2, (const uint64_t(*)[2]) held, 2, x.now_ms)),
        FSM_OK);
    assert_int_equal(x.out->events_count, 2);
    assert_int_equal(x.out->events[0].job_seq, 2);
    assert_int_equal(x.out->events[1].job_seq, 3);
    assert_int_equal(fsm_worker_find(x.f, "w1")->running, 1);
    assert_int_equal(fsm_worker_find(x.f, "w1")->node_id, 2);
    assert_int_equal(fsm_job_find(x.f, 1)->state, S(RUNNING));
    assert_int_equal(fixture_assign(&x, 2, "w1", 7), FSM_WORKER_GONE); /* one slot, one running */
    arena_init(&arena, 1 << 20);
    assert_int_equal(fsm_read_worker(x.f, "w1", &arena, &w), 0);
    assert_int_equal(w->slots, 1);
    assert_string_equal(w->version, "1.2");
    assert_int_equal(w->n_labels, 1);
    assert_string_equal(w->labels[0]->key, "zone");
    assert_int_equal(fixture_do(&x, cmd_lose("w1", 7, x.now_ms)), FSM_OK);
    assert_int_equal(fsm_read_worker(x.f, "w1", &arena, &w), 0);
    assert_true(w->lost);
    assert_string_equal(w->labels[0]->value, "a"); /* facts survive the loss */
    assert_int_equal(fsm_read_worker(x.f, "nobody", &arena, &w), FSM_READ_NOT_FOUND);
    assert_int_equal(fixture_register(&x, "", 1, 1), FSM_REFUSED);
    assert_int_equal(fixture_register(&x, "w2", 1, 0), FSM_REFUSED);
    assert_int_equal(fixture_register(&x, "w2", 1, FSM_WORKER_SLOTS_MAX + 1), FSM_REFUSED);
    fsm_check_invariants(x.f);
    arena_done(&arena);
    fixture_done(&x);
}

/* Goal: worker names cannot pile up: at the limit the longest lost one is forgotten, and when all
 * are live a new one is refused.
 * Method: as many registrations as the limit allows, in descending order of names. */
static void test_workers_bounded(void **state) {
    struct fixture x;
    char id[16];

    (void) state;
    fixture_init(&x, NULL);
    for (int i = 0; i < FSM_WORKERS_MAX; i++) {
        (void) snprintf(id, sizeof(id), "w%d", FSM_WORKERS_MAX - i);
        assert_int_equal(fixture_register(&x, id, 1, 1), FSM_OK);
    }
    assert_int_equal(fixture_register(&x, "new", 1, 1), FSM_REFUSED);
    assert_int_equal(fixture_do(&x, cmd_lose("w77", 1, x.now_ms)), FSM_OK);
    assert_int_equal(fixture_do(&x, cmd_lose("w99", 1, x.now_ms)), FSM_OK);
    assert_int_equal(fixture_register(&x, "new", 1, 1), FSM_OK);
    assert_null(fsm_worker_find(x.f, "w99")); /* registered before w77 */
    assert_non_null(fsm_worker_find(x.f, "w77"));
    fsm_check_invariants(x.f);
    assert_int_equal(fsm_write_back(x.f), 0);
    fixture_reopen(&x);
    fsm_check_invariants(x.f);
    fixture_done(&x);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_register_held),
        cmocka_unit_test(test_register_order),
        cmocka_unit_test(test_workers_bounded),
    };

    return cmocka_run_group_tests_name("fsm_workers", tests, NULL, NULL);
}
