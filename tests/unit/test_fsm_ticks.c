/* What becomes of ticks: overlap, pauses, bounds. Commands in, outcomes and records out. */
#include "schedule_steps.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- overlap -------------------- */

/* With one run open, three ticks; then it ends. */
static void overlap_case(int policy, enum ending how) {
    const struct put_args p = {.name = "s", .overlap = policy};
    const struct fsm_schedule *s;
    const struct fsm_tick *t;
    struct fixture x;
    uint64_t seq;

    steps_begin(&x);
    seq = steps_put(&x, &p);
    steps_assert_tick(steps_tick(&x, seq, 1010), 1010, R_(ON_TIME), 1);
    (void) steps_run_job(&x, 1);
    s = fsm_schedule_by_seq(x.f, seq);
    for (int64_t at = 1020; at <= 1040; at += 10) {
        uint64_t n = (uint64_t) (at - 1010) / 10; /* 1, 2, 3 */

        t = steps_tick(&x, seq, at);
        if (policy == P_(SKIP) || (policy == P_(BUFFER_ONE) && n > 1)) {
            steps_assert_tick(t, at, R_(OVERLAP), 1);
        } else if (policy == P_(ALLOW)) {
            steps_assert_tick(t, at, R_(ON_TIME), n + 1);
        } else if (policy == P_(TERMINATE_OTHER)) {
            steps_assert_tick(t, at, R_(ON_TIME), n + 1);
            assert_true(n > 1 || fsm_job_find(x.f, 1)->kill);
            assert_true(n == 1 || !fsm_job_find(x.f, n)); /* it was pending: gone at once */
        } else if (policy == P_(CANCEL_OTHER)) {
            assert_int_equal(x.out->ticks_count, n == 1 ? 1 : 2);
            if (n > 1)
                steps_assert_tick(t, at - 10, R_(OVERLAP), 1); /* the newest wins */
            steps_assert_waits(&t[x.out->ticks_count - 1], at, 1);
            assert_true(fsm_job_find(x.f, 1)->cancel_requested);
            assert_false(fsm_job_find(x.f, 1)->kill);
        } else {
            steps_assert_waits(t, at, 1);
        }
    }
    assert_int_equal(s->open_runs, policy == P_(ALLOW) ? 4 : policy == P_(TERMINATE_OTHER) ? 2 : 1);
    assert_int_equal(s->buffered, policy == P_(BUFFER_ALL)                                 ? 3
                                  : policy == P_(BUFFER_ONE) || policy == P_(CANCEL_OTHER) ? 1
                                                                                           : 0);
    steps_end_job(&x, 1, how);
    if (policy == P_(BUFFER_ONE) || policy == P_(BUFFER_ALL) || policy == P_(CANCEL_OTHER)) {
        assert_int_equal(x.out->ticks_count, 1);
        steps_assert_tick(x.out->ticks, policy == P_(CANCEL_OTHER) ? 1040 : 1020, R_(BUFFERED), 2);
        assert_int_equal(x.out->ticks[0].cause, R_(ON_TIME));
        assert_int_equal(s->open_runs, 1);
        assert_int_equal(fsm_job_find(x.f, 2)->state, S(PENDING));
    } else {
        assert_int_equal(x.out->ticks_count, 0);
    }
    if (policy == P_(BUFFER_ALL)) { /* a pending run that is cancelled lets the next one start */
        assert_int_equal(fixture_do(&x, cmd_cancel(2, x.now_ms)), FSM_OK);
        steps_assert_tick(x.out->ticks, 1030, R_(BUFFERED), 3);
        assert_int_equal(fixture_do(&x, cmd_cancel(3, x.now_ms)), FSM_OK);
        steps_assert_tick(x.out->ticks, 1040, R_(BUFFERED), 4);
        assert_int_equal(s->buffered, 0);
    }
    if (policy == P_(SKIP)) {
        assert_int_equal(s->open_runs, 0);
        steps_assert_tick(steps_tick(&x, seq, 1050), 1050, R_(ON_TIME), 2);
    }
    steps_end(&x);
}

/* Goal: each policy does what its comment says, whatever ends the open run (C16, J9). */
static void test_overlap(void **state) {
    (void) state;
    for (int policy = P_(SKIP); policy <= P_(ALLOW); policy++)
        for (int how = SUCCESS; how < ENDINGS; how++)
            overlap_case(policy, (enum ending) how);
}

/* Goal: a run that waits between two attempts is still open. */
static void test_between_attempts(void **state) {
    const struct put_args p = {.name = "s", .max_attempts = 2};
    struct fixture x;
    uint64_t seq;

    (void) state;
    steps_begin(&x);
    seq = steps_put(&x, &p);
    (void) steps_tick(&x, seq, 1010);
    (void) steps_run_job(&x, 1);
    assert_int_equal(fixture_do(&x, cmd_lose(WORKER, 1, x.now_ms)), FSM_OK);
    assert_int_equal(fsm_job_find(x.f, 1)->state, S(PENDING));
    steps_assert_tick(steps_tick(&x, seq, 1020), 1020, R_(OVERLAP), 1);
    steps_end(&x);
}

/* Goal: cancel_other and terminate_other of a run that no worker has yet: it is gone at once. */
static void test_cancel_pending(void **state) {
    static const int policies[] = {P_(CANCEL_OTHER), P_(TERMINATE_OTHER)};

    (void) state;
    for (size_t i = 0; i < ARRAY_LEN(policies); i++) {
        const struct put_args p = {.name = "s", .overlap = policies[i]};
        struct fixture x;
        uint64_t seq;

        steps_begin(&x);
        seq = steps_put(&x, &p);
        (void) steps_tick(&x, seq, 1010);
        (void) steps_tick(&x, seq, 1020);
        assert_null(fsm_job_find(x.f, 1));
        assert_non_null(fsm_job_find(x.f, 2));
        assert_int_equal(fsm_schedule_by_seq(x.f, seq)->open_runs, 1);
        assert_int_equal(fsm_schedule_by_seq(x.f, seq)->buffered, 0);
        steps_end(&x);
    }
}

/* Goal: asked to stop first, killed when terminate_other comes: the worker is told again. */
static void test_kill_after_cancel(void **state) {
    struct put_args p = {.name = "s", .overlap = P_(TERMINATE_OTHER)};
    struct fixture x;
    uint64_t seq;

    (void) state;
    steps_begin(&x);
    seq = steps_put(&x, &p);
    (void) steps_tick(&x, seq, 1010);
    (void) steps_run_job(&x, 1);
    assert_int_equal(fixture_do(&x, cmd_cancel(1, x.now_ms)), FSM_OK);
    assert_false(fsm_job_find(x.f, 1)->kill);
    (void) steps_tick(&x, seq, 1020);
    assert_int_equal(x.out->events_count, 2);
    assert_true(x.out->events[0].kill && x.out->events[0].cancel_requested);
    assert_true(fsm_job_find(x.f, 1)->kill);
    (void) steps_tick(&x, seq, 1030);
    assert_int_equal(x.out->events_count, 2); /* job 2 is cancelled, job 3 made; none for job 1 */
    steps_end(&x);
}

/* Goal: 1,000 wait and no more; the rest is recorded. */
static void test_buffer_cap(void **state) {
    const struct put_args p = {.name = "s", .overlap = P_(BUFFER_ALL)};
    struct fixture x;
    uint64_t seq;

    (void) state;
    steps_begin(&x);
    seq = steps_put(&x, &p);
    for (int64_t at = 1010; at <= 1010 + FSM_SCHEDULE_BUFFERED_MAX; at++)
        assert_int_equal(steps_tick_as(&x, seq, at, R_(ON_TIME)), FSM_OK);
    assert_int_equal(fsm_schedule_by_seq(x.f, seq)->buffered, FSM_SCHEDULE_BUFFERED_MAX);
    steps_assert_tick(steps_tick(&x, seq, 3000), 3000, R_(CAP), 0);
    /* The line of the oldest is no longer kept: its end makes a new one. */
    assert_int_equal(fixture_do(&x, cmd_cancel(1, x.now_ms)), FSM_OK);
    steps_assert_tick(x.out->ticks, 1011, R_(BUFFERED), 2);
    steps_end(&x);
}

/* ---- ticks -------------------- */

/* Goal: the same ticks a second time, from an older watermark, or of another generation change
 * nothing; malformed ones neither (C10, J4, J7, J27). */
static void test_idempotent(void **state) {
    static const struct tick_args good[] = {{1005, 1008, 3, R_(MISSED)}, {1010, 0, 0, R_(ON_TIME)}};
    static const struct {
        struct tick_args ticks[2];
        int64_t watermark_s;
        enum fsm_code want;
    } bad[] = {
        {{{1015, 0, 0, R_(ON_TIME)}, {1015, 0, 0, R_(ON_TIME)}}, 1020, FSM_REFUSED},   /* twice */
        {{{1015, 0, 0, R_(ON_TIME)}, {1021, 0, 0, R_(ON_TIME)}}, 1020, FSM_REFUSED},   /* beyond */
        {{{1009, 1012, 3, R_(MISSED)}, {1015, 0, 0, R_(ON_TIME)}}, 1020, FSM_REFUSED}, /* astride */
        {{{1015, 1014, 1, R_(MISSED)}, {1016, 0, 0, R_(ON_TIME)}},
         1020,
         FSM_REFUSED}, /* backwards */
        {{{1015, 1016, 3, R_(MISSED)}, {1017, 0, 0, R_(ON_TIME)}},
         1020,
         FSM_REFUSED}, /* too many */
        {{{1015, 1016, 2, R_(ON_TIME)}, {1017, 0, 0, R_(ON_TIME)}},
         1020,
         FSM_REFUSED}, /* a range */
        {{{1015, 0, 0, R_(BUFFERED)}, {1017, 0, 0, R_(ON_TIME)}}, 1020, FSM_REFUSED},
        {{{1015, 0, 0, R_(TRIGGER)}, {1017, 0, 0, R_(ON_TIME)}}, 1020, FSM_REFUSED},
        {{{1015, 0, 0, 99}, {1017, 0, 0, R_(ON_TIME)}}, 1020, FSM_REFUSED},
        {{{1015, 0, 0, R_(ON_TIME)}, {1031, 0, 0, R_(ON_TIME)}}, 1031, FSM_REFUSED}, /* future */
    };
    const struct put_args p = {.name = "s", .overlap = P_(ALLOW)};
    uint8_t before[16], after[16];
    struct fixture x;
    uint64_t seq;

    (void) state;
    steps_begin(&x);
    seq = steps_put(&x, &p);
    x.now_ms = 1030 * 1000;
    assert_int_equal(fixture_do(&x, cmd_ticks(seq, 1, 1010, good, 2, x.now_ms)), FSM_OK);
    assert_int_equal(x.out->ticks_count, 2);
    assert_int_equal(x.out->ticks[0].count, 3);
    fsm_digest(x.f, before);
    assert_int_equal(fixture_do(&x, cmd_ticks(seq, 1, 1010, good, 2, x.now_ms)), FSM_STALE);
    assert_int_equal(fixture_do(&x, cmd_ticks(seq, 1, 1008, good, 1, x.now_ms)), FSM_STALE);
    assert_int_equal(fixture_do(&x, cmd_ticks(seq, 2, 1020, good, 2, x.now_ms)), FSM_STALE);
    assert_int_equal(fixture_do(&x, cmd_ticks(seq + 1, 1, 1020, good, 2, x.now_ms)), FSM_NOT_FOUND);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        assert_int_equal(
            fixture_do(&x, cmd_ticks(seq, 1, bad[i].watermark_s, bad[i].ticks, 2, x.now_ms)),
            bad[i].want);
        assert_non_null(x.out->results[0].reason);
        assert_int_equal(x.out->ticks_count, 0);
    }
    fsm_digest(x.f, after);
    assert_memory_equal(before, after, sizeof(after));
    assert_int_equal(fixture_do(&x, cmd_ticks(seq, 1, 1020, good, 2, x.now_ms)), FSM_OK);
    assert_int_equal(x.out->ticks_count, 0); /* a newer watermark, and nothing twice */
    assert_int_equal(fsm_schedule_by_seq(x.f, seq)->watermark_s, 1020);
    assert_int_equal(fsm_jobs_count(x.f, S(PENDING)), 1);
    steps_end(&x);
}

/* Goal: the memory of one apply is bounded: what is left is told, and comes with the next entry. */
static void test_partial(void **state) {
    const struct put_args p = {.name = "s", .overlap = P_(ALLOW), .job_bytes = 1000 * 1000};
    struct tick_args t[10];
    int64_t hand[9];
    struct fixture x;
    uint64_t seq;

    (void) state;
    steps_begin(&x);
    seq = steps_put(&x, &p);
    for (int64_t i = 0; i < 10; i++)
        t[i] = (struct tick_args){.tick_s = 1001 + i, .reason = R_(CATCH_UP)};
    x.now_ms = 2000 * 1000;
    assert_int_equal(fixture_do(&x, cmd_ticks(seq, 1, 1500, t, 10, x.now_ms)), FSM_PARTIAL);
    assert_int_equal(fsm_schedule_by_seq(x.f, seq)->watermark_s, 1008);
    assert_int_equal(x.out->ticks_count, 8);
    assert_int_equal(fixture_do(&x, cmd_ticks(seq, 1, 1500, t, 10, x.now_ms)), FSM_OK);
    assert_int_equal(x.out->ticks_count, 2);
    for (size_t i = 0; i < ARRAY_LEN(hand); i++)
        hand[i] = (int64_t) i;
    assert_int_equal(
        fixture_do(&x, cmd_run_schedule("s", R_(BACKFILL), hand, 9, true, NULL, NULL, x.now_ms)),
        FSM_REFUSED);
    assert_int_equal(
        fixture_do(&x, cmd_run_schedule("s", R_(BACKFILL), hand, 8, true, NULL, NULL, x.now_ms)),
        FSM_OK);
    steps_end(&x);
}

/* ---- bounds and pauses -------------------- */

/* Goal: max_runs counts what fired and what waits, not what was run by hand. */
static void test_max_runs(void **state) {
    const struct put_args p = {.name = "s", .overlap = P_(BUFFER_ALL), .max_runs = 2};
    struct put_args more = {.name = "s", .overlap = P_(BUFFER_ALL), .max_runs = 3, .replace = true};
    const struct fsm_schedule *s;
    struct fixture x;
    uint64_t seq;

    (void) state;
    steps_begin(&x);
    seq = steps_put(&x, &p);
    s = fsm_schedule_by_seq(x.f, seq);
    assert_int_equal(s->runs_left, 2);
    assert_int_equal(
        fixture_do(&x, cmd_run_schedule("s", R_(TRIGGER), NULL, 0, false, NULL, NULL, x.now_ms)),
        FSM_OK);
    steps_assert_tick(x.out->ticks, 1000, R_(TRIGGER), 1);
    assert_int_equal(s->runs_left, 2);
    steps_assert_waits(steps_tick(&x, seq, 1010), 1010, 1);
    assert_int_equal(s->runs_left, 1);
    steps_assert_waits(steps_tick(&x, seq, 1020), 1020, 1);
    assert_int_equal(s->runs_left, 0);
    steps_assert_tick(steps_tick(&x, seq, 1028), 1028, R_(EXPIRED), 0);
    assert_int_equal(fixture_do(&x, cmd_pause_schedule("s", true, 1030000, "", x.now_ms)), FSM_OK);
    steps_assert_tick(steps_tick(&x, seq, 1029), 1029, R_(PAUSED), 0);
    assert_int_equal(x.out->ticks[0].ordinal, 5); /* another reason, another line */
    steps_assert_tick(steps_tick(&x, seq, 1030), 1030, R_(EXPIRED), 0);
    assert_int_equal(
        fixture_do(&x, cmd_run_schedule("s", R_(TRIGGER), NULL, 0, true, NULL, NULL, x.now_ms)),
        FSM_OK);
    steps_assert_tick(x.out->ticks, 1030, R_(TRIGGER), 2);
    (void) steps_put(&x, &more);
    assert_int_equal(s->runs_left, 1);
    more.max_runs = 1;
    (void) steps_put(&x, &more); /* one of the two that wait has no place any more */
    for (uint64_t job = 1; job <= 2; job++)
        assert_int_equal(fixture_do(&x, cmd_cancel(job, x.now_ms)), FSM_OK);
    steps_assert_tick(x.out->ticks, 1010, R_(BUFFERED), 3);
    assert_int_equal(fixture_do(&x, cmd_cancel(3, x.now_ms)), FSM_OK);
    steps_assert_tick(x.out->ticks, 1020, R_(EXPIRED), 0);
    assert_int_equal(s->runs_left, 0);
    steps_end(&x);
}

/* Goal: a tick belongs to a pause by its own instant: own pause and global, for good and until. */
static void test_pause(void **state) {
    static const char *const names[] = {"s", ""};

    (void) state;
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        const struct put_args p = {.name = "s"};
        struct fsm_schedules_pause all;
        const struct fsm_schedule *s;
        struct fixture x;
        uint64_t seq;

        steps_begin(&x);
        seq = steps_put(&x, &p);
        s = fsm_schedule_by_seq(x.f, seq);
        assert_int_equal(steps_pause(&x, names[i], false, 0), FSM_OK);
        assert_false(x.out->results[0].changed);
        assert_int_equal(steps_pause(&x, names[i], true, 0), FSM_OK);
        assert_true(x.out->results[0].changed);
        assert_int_equal(x.out->schedules_pause_changed, i == 1);
        assert_true(fsm_schedule_paused(x.f, s, 9999999999999));
        assert_int_equal(steps_pause(&x, names[i], true, 0), FSM_OK);
        assert_false(x.out->results[0].changed);
        steps_assert_tick(steps_tick(&x, seq, 1010), 1010, R_(PAUSED), 0);
        x.now_ms = 1020 * 1000;
        assert_int_equal(steps_pause(&x, names[i], false, 0), FSM_OK);
        assert_false(fsm_schedule_paused(x.f, s, x.now_ms));
        steps_assert_tick(steps_tick(&x, seq, 1019), 1019, R_(PAUSED),
                          0); /* late: it was while paused */
        steps_assert_tick(steps_tick(&x, seq, 1020), 1020, R_(ON_TIME), 1);
        assert_int_equal(fixture_do(&x, cmd_cancel(1, x.now_ms)), FSM_OK);
        assert_int_equal(steps_pause(&x, names[i], true, x.now_ms), FSM_REFUSED);
        assert_int_equal(steps_pause(&x, names[i], true, 1040 * 1000), FSM_OK);
        fsm_schedules_pause(x.f, &all);
        assert_int_equal(all.paused, i == 1);
        assert_string_equal(all.reason, i == 1 ? "why" : "");
        x.now_ms = 1060 * 1000;
        steps_assert_tick(steps_tick(&x, seq, 1039), 1039, R_(PAUSED), 0);
        steps_assert_tick(steps_tick(&x, seq, 1040), 1040, R_(ON_TIME), 2);
        steps_end(&x);
    }
}

/* Goal: what is asked for by hand runs in a pause; what waited does not start in one. */
static void test_pause_and_waiting(void **state) {
    const struct put_args p = {.name = "s", .overlap = P_(BUFFER_ALL)};
    struct fixture x;
    uint64_t seq;

    (void) state;
    steps_begin(&x);
    seq = steps_put(&x, &p);
    (void) steps_tick(&x, seq, 1010);
    steps_assert_waits(steps_tick(&x, seq, 1020), 1020, 1);
    assert_int_equal(steps_pause(&x, "s", true, 0), FSM_OK);
    assert_int_equal(
        fixture_do(&x, cmd_run_schedule("s", R_(TRIGGER), NULL, 0, false, NULL, NULL, x.now_ms)),
        FSM_OK);
    steps_assert_waits(x.out->ticks, 1020, 1);
    assert_int_equal(fixture_do(&x, cmd_cancel(1, x.now_ms)), FSM_OK);
    assert_int_equal(x.out->ticks_count, 2);
    steps_assert_tick(&x.out->ticks[0], 1020, R_(PAUSED), 0);
    steps_assert_tick(&x.out->ticks[1], 1020, R_(BUFFERED), 2);
    assert_int_equal(x.out->ticks[1].cause, R_(TRIGGER));
    steps_end(&x);
}

/* Goal: a run that failed with all its attempts pauses its schedule; a cancelled one does not; what
 * waited does not run (C17). */
static void test_pause_on_failure(void **state) {
    const struct put_args p = {
        .name = "s", .overlap = P_(BUFFER_ALL), .pause_on_failure = true, .max_attempts = 1};
    struct arena arena;
    struct fixture x;
    uint64_t seq;

    (void) state;
    arena_init(&arena, 1 << 20);
    steps_begin(&x);
    seq = steps_put(&x, &p);
    (void) steps_tick(&x, seq, 1010);
    (void) steps_run_job(&x, 1);
    steps_end_job(&x, 1, CANCEL);
    assert_false(fsm_schedule_by_seq(x.f, seq)->paused);
    (void) steps_tick(&x, seq, 1020);
    steps_assert_waits(steps_tick(&x, seq, 1030), 1030, 2);
    (void) steps_run_job(&x, 2);
    steps_end_job(&x, 2, FAILURE);
    steps_assert_tick(x.out->ticks, 1030, R_(PAUSED), 0);
    assert_true(fsm_schedule_by_seq(x.f, seq)->paused);
    assert_string_equal(steps_record(&x, seq, &arena)->pause_reason, "run j12 failed");
    steps_assert_tick(steps_tick(&x, seq, 1040), 1040, R_(PAUSED), 0);
    arena_done(&arena);
    steps_end(&x);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_overlap),
        cmocka_unit_test(test_between_attempts),
        cmocka_unit_test(test_cancel_pending),
        cmocka_unit_test(test_kill_after_cancel),
        cmocka_unit_test(test_buffer_cap),
        cmocka_unit_test(test_idempotent),
        cmocka_unit_test(test_partial),
        cmocka_unit_test(test_max_runs),
        cmocka_unit_test(test_pause),
        cmocka_unit_test(test_pause_and_waiting),
        cmocka_unit_test(test_pause_on_failure),
    };

    return cmocka_run_group_tests_name("fsm_schedules", tests, NULL, NULL);
}
