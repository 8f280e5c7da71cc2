#include "fsm_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define S(x) CHRONOS__V1__JOB_STATE__JOB_STATE_##x
#define O(x) CHRONOS__V1__ATTEMPT_OUTCOME__ATTEMPT_OUTCOME_##x

/* Goal: the ordinary life of a job, with its events, counters and record. */
static void test_life(void **state) {
    Chronos__Internal__V1__JobRecord *rec;
    struct fixture x;
    struct arena arena;
    uint64_t token;

    (void) state;
    fixture_init(&x, NULL);
    arena_init(&arena, 1 << 20);
    assert_int_equal(fixture_do(&x, cmd_register("w1", 7, 2, 3, NULL, 0, x.now_ms)), FSM_OK);
    assert_true(x.out->workers_changed);
    assert_int_equal(fixture_submit(&x, 3), FSM_OK);
    assert_int_equal(x.out->results[0].job_seq, 1);
    assert_int_equal(x.out->events_count, 1);
    assert_int_equal(x.out->events[0].from, S(UNSPECIFIED));
    assert_int_equal(x.out->events[0].to, S(PENDING));
    assert_string_equal(x.out->events[0].worker_id, "");
    assert_int_equal(fsm_ready_first(x.f)->seq, 1);

    x.now_ms += 10;
    assert_int_equal(fixture_do(&x, cmd_assign(1, "w1", 7, x.now_ms)), FSM_OK);
    token = fsm_applied_index(x.f);
    assert_int_equal(x.out->events[0].to, S(RUNNING));
    assert_int_equal(x.out->events[0].fencing_token, token);
    assert_int_equal(x.out->events[0].attempt, 1);
    assert_string_equal(x.out->events[0].worker_id, "w1");
    assert_null(fsm_ready_first(x.f));
    assert_int_equal(fsm_worker_find(x.f, "w1")->running, 1);

    x.now_ms += 10;
    assert_int_equal(fixture_update(&x, 1, token, O(COMPLETED)), FSM_OK);
    assert_int_equal(x.out->events[0].to, S(COMPLETED));
    assert_int_equal(fsm_jobs_count(x.f, S(COMPLETED)), 1);
    assert_null(fsm_job_find(x.f, 1));
    assert_int_equal(fsm_read_job(x.f, 1, &arena, &rec), 0);
    assert_int_equal(rec->state, S(COMPLETED));
    assert_int_equal(rec->created_at_ms, 1000000);
    assert_int_equal(rec->started_at_ms, 1000010);
    assert_int_equal(rec->finished_at_ms, 1000020);
    assert_string_equal(rec->worker_id, "w1");
    assert_string_equal(rec->queue, "default");
    assert_int_equal(rec->spec.len, 6);
    assert_memory_equal(rec->spec.data, "a spec", 6);
    assert_memory_equal(rec->output_tail.data, "the tail", 8);
    assert_int_equal(rec->created_index, 2);
    assert_int_equal(rec->updated_index, 4);
    /* The repeated report: OK again, no event (J12). Any other token: stale. */
    assert_int_equal(fixture_update(&x, 1, token, O(COMPLETED)), FSM_OK);
    assert_int_equal(x.out->events_count, 0);
    assert_int_equal(fixture_update(&x, 1, token + 1, O(COMPLETED)), FSM_STALE);
    assert_int_equal(fixture_update(&x, 2, token, O(COMPLETED)), FSM_NOT_FOUND);
    assert_int_equal(fixture_do(&x, cmd_cancel(1, x.now_ms)), FSM_TERMINAL);
    fsm_check_invariants(x.f);
    arena_done(&arena);
    fixture_done(&x);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_life),
    };

    return cmocka_run_group_tests_name("fsm", tests, NULL, NULL);
}
