#include "fsm/job_state.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define S(x) CHRONOS__V1__JOB_STATE__JOB_STATE_##x

/* Goal: every state x event leads where the drawing says and nowhere else (J16).
 * Method: the whole table again, written by hand in another shape: a list of the legal edges. */
static void test_every_pair(void **state) {
    static const struct {
        Chronos__V1__JobState from;
        enum job_event event;
        Chronos__V1__JobState to;
    } legal[] = {
        {S(UNSPECIFIED), JOB_EVENT_SUBMIT, S(PENDING)},
        {S(PENDING), JOB_EVENT_ASSIGN, S(RUNNING)},
        {S(PENDING), JOB_EVENT_CANCEL, S(CANCELLED)},
        {S(RUNNING), JOB_EVENT_COMPLETE, S(COMPLETED)},
        {S(RUNNING), JOB_EVENT_FAIL, S(FAILED)},
        {S(RUNNING), JOB_EVENT_REPORT_CANCELLED, S(CANCELLED)},
        {S(RUNNING), JOB_EVENT_RELEASE, S(PENDING)},
        {S(RUNNING), JOB_EVENT_CANCEL, S(RUNNING)},
        {S(RUNNING), JOB_EVENT_LOSE_RETRY, S(PENDING)},
        {S(RUNNING), JOB_EVENT_LOSE_FINAL, S(FAILED)},
        {S(RUNNING), JOB_EVENT_LOSE_CANCELLED, S(CANCELLED)},
    };
    size_t found = 0;

    (void) state;
    for (unsigned s = 0; s < JOB_STATE_COUNT; s++) {
        for (unsigned e = 0; e < JOB_EVENT_COUNT; e++) {
            Chronos__V1__JobState want = S(UNSPECIFIED);

            for (size_t i = 0; i < ARRAY_LEN(legal); i++) {
                if (legal[i].from == s && legal[i].event == e) {
                    want = legal[i].to;
                    found++;
                }
            }
            assert_int_equal(job_state_next((Chronos__V1__JobState) s, (enum job_event) e), want);
        }
    }
    assert_int_equal(found, ARRAY_LEN(legal));
}

/* Goal: terminal states are absorbing, and only they are terminal. */
static void test_terminal_absorbing(void **state) {
    (void) state;
    assert_false(job_state_is_terminal(S(UNSPECIFIED)));
    assert_false(job_state_is_terminal(S(PENDING)));
    assert_false(job_state_is_terminal(S(RUNNING)));
    for (unsigned s = S(COMPLETED); s < JOB_STATE_COUNT; s++) {
        assert_true(job_state_is_terminal((Chronos__V1__JobState) s));
        for (unsigned e = 0; e < JOB_EVENT_COUNT; e++)
            assert_int_equal(job_state_next((Chronos__V1__JobState) s, (enum job_event) e), 0);
    }
}

/* Goal: names and values are inverse to each other, and foreign values do not crash. */
static void test_names_round_trip(void **state) {
    Chronos__V1__FailureReason r;
    Chronos__V1__JobState s;

    (void) state;
    for (unsigned i = S(PENDING); i < JOB_STATE_COUNT; i++) {
        assert_int_equal(job_state_from_string(job_state_to_string((Chronos__V1__JobState) i), &s),
                         0);
        assert_int_equal(s, i);
    }
    for (unsigned i = 0; i <= CHRONOS__V1__FAILURE_REASON__FAILURE_REASON_OUTPUT_LIMIT; i++) {
        assert_int_equal(failure_reason_from_string(
                             failure_reason_to_string((Chronos__V1__FailureReason) i), &r),
                         0);
        assert_int_equal(r, i);
    }
    assert_string_equal(job_state_to_string(S(CANCELLED)), "cancelled");
    assert_string_equal(
        failure_reason_to_string(CHRONOS__V1__FAILURE_REASON__FAILURE_REASON_WORKER_LOST),
        "worker_lost");
    assert_int_equal(job_state_from_string("Pending", &s), 1);
    assert_int_equal(job_state_from_string("unspecified", &s), 1);
    assert_int_equal(failure_reason_from_string("", &r), 1);
    assert_string_equal(job_state_to_string((Chronos__V1__JobState) 77), "unknown");
    assert_string_equal(failure_reason_to_string((Chronos__V1__FailureReason) -1), "unknown");
    for (unsigned e = 0; e < JOB_EVENT_COUNT; e++)
        assert_non_null(job_event_to_string((enum job_event) e));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_pair),
        cmocka_unit_test(test_terminal_absorbing),
        cmocka_unit_test(test_names_round_trip),
    };

    return cmocka_run_group_tests_name("job_state", tests, NULL, NULL);
}
