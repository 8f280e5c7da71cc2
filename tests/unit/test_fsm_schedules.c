/* What becomes of ticks: overlap, pauses, bounds, edits. Commands in, outcomes and records out. */
#include "schedule_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define O(x) CHRONOS__V1__ATTEMPT_OUTCOME__ATTEMPT_OUTCOME_##x
#define S(x) CHRONOS__V1__JOB_STATE__JOB_STATE_##x
#define WORKER "w1"

/* A state machine with a worker of many slots; the clock is at 1,000 s. */
static void begin(struct fixture *x) {
    fixture_init(x, NULL);
    x->now_ms = 1000 * 1000;
    assert_int_equal(fixture_do(x, cmd_register(WORKER, 1, 5000, 1, NULL, 0, x->now_ms)), FSM_OK);
}

static void end(struct fixture *x) {
    fsm_check_invariants(x->f);
    fixture_reopen(x); /* nothing written: an empty store */
    fixture_done(x);
}

static uint64_t put(struct fixture *x, const struct put_args *p) {
    assert_int_equal(fixture_do(x, cmd_put_schedule(p, x->now_ms)), FSM_OK);
    return x->out->results[0].schedule_seq;
}

/* The clock to @tick_s, and that tick decided. */
static enum fsm_code tick_as(struct fixture *x, uint64_t seq, int64_t tick_s, int reason) {
    const struct fsm_schedule *s = fsm_schedule_by_seq(x->f, seq);
    struct tick_args t = {.tick_s = tick_s, .reason = reason};

    x->now_ms = MAX(x->now_ms, tick_s * 1000);
    return fixture_do(x, cmd_ticks(seq, s ? s->generation : 1, tick_s, &t, 1, x->now_ms));
}

static const struct fsm_tick *tick(struct fixture *x, uint64_t seq, int64_t tick_s) {
    assert_int_equal(tick_as(x, seq, tick_s, R_(ON_TIME)), FSM_OK);
    assert_true(x->out->ticks_count > 0);
    assert_true(fsm_schedule_by_seq(x->f, seq)->watermark_s == tick_s);
    fsm_check_invariants(x->f);
    return x->out->ticks;
}

static void assert_tick(const struct fsm_tick *t, int64_t tick_s, int reason, uint64_t job) {
    assert_int_equal(t->tick_s, tick_s);
    assert_int_equal(t->reason, reason);
    assert_int_equal(t->fired, reason < 16);
    assert_int_equal(t->job_seq, job);
    assert_false(t->waiting);
}

static void assert_waits(const struct fsm_tick *t, int64_t tick_s, uint64_t behind) {
    assert_int_equal(t->tick_s, tick_s);
    assert_int_equal(t->reason, R_(BUFFERED));
    assert_true(t->fired && t->waiting);
    assert_int_equal(t->job_seq, behind);
}

static uint64_t run_job(struct fixture *x, uint64_t job) {
    assert_int_equal(fixture_do(x, cmd_assign(job, WORKER, 1, x->now_ms)), FSM_OK);
    return fsm_job_find(x->f, job)->fencing_token;
}

enum ending { SUCCESS, FAILURE, CANCEL, LOSS, ENDINGS };

/* The running @job ends; what that started is in x->out. */
static void end_job(struct fixture *x, uint64_t job, enum ending how) {
    uint64_t token = fsm_job_find(x->f, job)->fencing_token;

    switch (how) {
    case SUCCESS:
        assert_int_equal(fixture_update(x, job, token, O(COMPLETED)), FSM_OK);
        break;
    case FAILURE:
        assert_int_equal(fixture_update(x, job, token, O(FAILED)), FSM_OK);
        break;
    case CANCEL:
        assert_int_equal(fixture_do(x, cmd_cancel(job, x->now_ms)), FSM_OK);
        assert_int_equal(fixture_update(x, job, token, O(CANCELLED)), FSM_OK);
        break;
    case LOSS:
        assert_int_equal(fixture_do(x, cmd_lose(WORKER, 1, x->now_ms)), FSM_OK);
        break;
    case ENDINGS:
        break;
    }
    assert_null(fsm_job_find(x->f, job));
    fsm_check_invariants(x->f);
}

static Chronos__Internal__V1__ScheduleRecord *record(struct fixture *x, uint64_t seq,
                                                     struct arena *arena) {
    Chronos__Internal__V1__ScheduleRecord *rec = NULL;

    assert_int_equal(fsm_read_schedule(x->f, seq, arena, &rec), 0);
    return rec;
}

/* ---- overlap -------------------- */

/* With one run open, three ticks; then it ends. */
static void overlap_case(int policy, enum ending how) {
    const struct put_args p = {.name = "s", .overlap = policy};
    const struct fsm_schedule *s;
    const struct fsm_tick *t;
    struct fixture x;
    uint64_t seq;

    begin(&x);
    seq = put(&x, &p);
    assert_tick(tick(&x, seq, 1010), 1010, R_(ON_TIME), 1);
    (void) run_job(&x, 1);
    s = fsm_schedule_by_seq(x.f, seq);
    for (int64_t at = 1020; at <= 1040; at += 10) {
        uint64_t n = (uint64_t) (at - 1010) / 10; /* 1, 2, 3 */

        t = tick(&x, seq, at);
        if (policy == P_(SKIP) || (policy == P_(BUFFER_ONE) && n > 1)) {
            assert_tick(t, at, R_(OVERLAP), 1);
        } else if (policy == P_(ALLOW)) {
            assert_tick(t, at, R_(ON_TIME), n + 1);
        } else if (policy == P_(TERMINATE_OTHER)) {
            assert_tick(t, at, R_(ON_TIME), n + 1);
            assert_true(n > 1 || fsm_job_find(x.f, 1)->kill);
            assert_true(n == 1 || !fsm_job_find(x.f, n)); /* it was pending: gone at once */
        } else if (policy == P_(CANCEL_OTHER)) {
            assert_int_equal(x.out->ticks_count, n == 1 ? 1 : 2);
            if (n > 1)
                assert_tick(t, at - 10, R_(OVERLAP), 1); /* the newest wins */
            assert_waits(&t[x.out->ticks_count - 1], at, 1);
            assert_true(fsm_job_find(x.f, 1)->cancel_requested);
            assert_false(fsm_job_find(x.f, 1)->kill);
        } else {
            assert_waits(t, at, 1);
        }
    }
    assert_int_equal(s->open_runs, policy == P_(ALLOW) ? 4 : policy == P_(TERMINATE_OTHER) ? 2 : 1);
    assert_int_equal(s->buffered, policy == P_(BUFFER_ALL)                                 ? 3
                                  : policy == P_(BUFFER_ONE) || policy == P_(CANCEL_OTHER) ? 1
                                                                                           : 0);
    end_job(&x, 1, how);
    if (policy == P_(BUFFER_ONE) || policy == P_(BUFFER_ALL) || policy == P_(CANCEL_OTHER)) {
        assert_int_equal(x.out->ticks_count, 1);
        assert_tick(x.out->ticks, policy == P_(CANCEL_OTHER) ? 1040 : 1020, R_(BUFFERED), 2);
        assert_int_equal(x.out->ticks[0].cause, R_(ON_TIME));
        assert_int_equal(s->open_runs, 1);
        assert_int_equal(fsm_job_find(x.f, 2)->state, S(PENDING));
    } else {
        assert_int_equal(x.out->ticks_count, 0);
    }
    if (policy == P_(BUFFER_ALL)) { /* a pending run that is cancelled lets the next one start */
        assert_int_equal(fixture_do(&x, cmd_cancel(2, x.now_ms)), FSM_OK);
        assert_tick(x.out->ticks, 1030, R_(BUFFERED), 3);
        assert_int_equal(fixture_do(&x, cmd_cancel(3, x.now_ms)), FSM_OK);
        assert_tick(x.out->ticks, 1040, R_(BUFFERED), 4);
        assert_int_equal(s->buffered, 0);
    }
    if (policy == P_(SKIP)) {
        assert_int_equal(s->open_runs, 0);
        assert_tick(tick(&x, seq, 1050), 1050, R_(ON_TIME), 2);
    }
    end(&x);
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
    begin(&x);
    seq = put(&x, &p);
    (void) tick(&x, seq, 1010);
    (void) run_job(&x, 1);
    assert_int_equal(fixture_do(&x, cmd_lose(WORKER, 1, x.now_ms)), FSM_OK);
    assert_int_equal(fsm_job_find(x.f, 1)->state, S(PENDING));
    assert_tick(tick(&x, seq, 1020), 1020, R_(OVERLAP), 1);
    end(&x);
}

/* Goal: cancel_other and terminate_other of a run that no worker has yet: it is gone at once. */
static void test_cancel_pending(void **state) {
    static const int policies[] = {P_(CANCEL_OTHER), P_(TERMINATE_OTHER)};

    (void) state;
    for (size_t i = 0; i < ARRAY_LEN(policies); i++) {
        const struct put_args p = {.name = "s", .overlap = policies[i]};
        struct fixture x;
        uint64_t seq;

        begin(&x);
        seq = put(&x, &p);
        (void) tick(&x, seq, 1010);
        (void) tick(&x, seq, 1020);
        assert_null(fsm_job_find(x.f, 1));
        assert_non_null(fsm_job_find(x.f, 2));
        assert_int_equal(fsm_schedule_by_seq(x.f, seq)->open_runs, 1);
        assert_int_equal(fsm_schedule_by_seq(x.f, seq)->buffered, 0);
        end(&x);
    }
}

/* Goal: asked to stop first, killed when terminate_other comes: the worker is told again. */
static void test_kill_after_cancel(void **state) {
    struct put_args p = {.name = "s", .overlap = P_(TERMINATE_OTHER)};
    struct fixture x;
    uint64_t seq;

    (void) state;
    begin(&x);
    seq = put(&x, &p);
    (void) tick(&x, seq, 1010);
    (void) run_job(&x, 1);
    assert_int_equal(fixture_do(&x, cmd_cancel(1, x.now_ms)), FSM_OK);
    assert_false(fsm_job_find(x.f, 1)->kill);
    (void) tick(&x, seq, 1020);
    assert_int_equal(x.out->events_count, 2);
    assert_true(x.out->events[0].kill && x.out->events[0].cancel_requested);
    assert_true(fsm_job_find(x.f, 1)->kill);
    (void) tick(&x, seq, 1030);
    assert_int_equal(x.out->events_count, 2); /* job 2 is cancelled, job 3 made; none for job 1 */
    end(&x);
}

/* Goal: 1,000 wait and no more; the rest is recorded. */
static void test_buffer_cap(void **state) {
    const struct put_args p = {.name = "s", .overlap = P_(BUFFER_ALL)};
    struct fixture x;
    uint64_t seq;

    (void) state;
    begin(&x);
    seq = put(&x, &p);
    for (int64_t at = 1010; at <= 1010 + FSM_SCHEDULE_BUFFERED_MAX; at++)
        assert_int_equal(tick_as(&x, seq, at, R_(ON_TIME)), FSM_OK);
    assert_int_equal(fsm_schedule_by_seq(x.f, seq)->buffered, FSM_SCHEDULE_BUFFERED_MAX);
    assert_tick(tick(&x, seq, 3000), 3000, R_(CAP), 0);
    /* The line of the oldest is no longer kept: its end makes a new one. */
    assert_int_equal(fixture_do(&x, cmd_cancel(1, x.now_ms)), FSM_OK);
    assert_tick(x.out->ticks, 1011, R_(BUFFERED), 2);
    end(&x);
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
    begin(&x);
    seq = put(&x, &p);
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
    end(&x);
}

/* Goal: the memory of one apply is bounded: what is left is told, and comes with the next entry. */
static void test_partial(void **state) {
    const struct put_args p = {.name = "s", .overlap = P_(ALLOW), .job_bytes = 1000 * 1000};
    struct tick_args t[10];
    int64_t hand[9];
    struct fixture x;
    uint64_t seq;

    (void) state;
    begin(&x);
    seq = put(&x, &p);
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
    end(&x);
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
    begin(&x);
    seq = put(&x, &p);
    s = fsm_schedule_by_seq(x.f, seq);
    assert_int_equal(s->runs_left, 2);
    assert_int_equal(
        fixture_do(&x, cmd_run_schedule("s", R_(TRIGGER), NULL, 0, false, NULL, NULL, x.now_ms)),
        FSM_OK);
    assert_tick(x.out->ticks, 1000, R_(TRIGGER), 1);
    assert_int_equal(s->runs_left, 2);
    assert_waits(tick(&x, seq, 1010), 1010, 1);
    assert_int_equal(s->runs_left, 1);
    assert_waits(tick(&x, seq, 1020), 1020, 1);
    assert_int_equal(s->runs_left, 0);
    assert_tick(tick(&x, seq, 1028), 1028, R_(EXPIRED), 0);
    assert_int_equal(fixture_do(&x, cmd_pause_schedule("s", true, 1030000, "", x.now_ms)), FSM_OK);
    assert_tick(tick(&x, seq, 1029), 1029, R_(PAUSED), 0);
    assert_int_equal(x.out->ticks[0].ordinal, 5); /* another reason, another line */
    assert_tick(tick(&x, seq, 1030), 1030, R_(EXPIRED), 0);
    assert_int_equal(
        fixture_do(&x, cmd_run_schedule("s", R_(TRIGGER), NULL, 0, true, NULL, NULL, x.now_ms)),
        FSM_OK);
    assert_tick(x.out->ticks, 1030, R_(TRIGGER), 2);
    (void) put(&x, &more);
    assert_int_equal(s->runs_left, 1);
    more.max_runs = 1;
    (void) put(&x, &more); /* one of the two that wait has no place any more */
    for (uint64_t job = 1; job <= 2; job++)
        assert_int_equal(fixture_do(&x, cmd_cancel(job, x.now_ms)), FSM_OK);
    assert_tick(x.out->ticks, 1010, R_(BUFFERED), 3);
    assert_int_equal(fixture_do(&x, cmd_cancel(3, x.now_ms)), FSM_OK);
    assert_tick(x.out->ticks, 1020, R_(EXPIRED), 0);
    assert_int_equal(s->runs_left, 0);
    end(&x);
}

static enum fsm_code pause_it(struct fixture *x, const char *name, bool on, int64_t until_ms) {
    return fixture_do(x, cmd_pause_schedule(name, on, until_ms, on ? "why" : "", x->now_ms));
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

        begin(&x);
        seq = put(&x, &p);
        s = fsm_schedule_by_seq(x.f, seq);
        assert_int_equal(pause_it(&x, names[i], false, 0), FSM_OK);
        assert_false(x.out->results[0].changed);
        assert_int_equal(pause_it(&x, names[i], true, 0), FSM_OK);
        assert_true(x.out->results[0].changed);
        assert_int_equal(x.out->schedules_pause_changed, i == 1);
        assert_true(fsm_schedule_paused(x.f, s, 9999999999999));
        assert_int_equal(pause_it(&x, names[i], true, 0), FSM_OK);
        assert_false(x.out->results[0].changed);
        assert_tick(tick(&x, seq, 1010), 1010, R_(PAUSED), 0);
        x.now_ms = 1020 * 1000;
        assert_int_equal(pause_it(&x, names[i], false, 0), FSM_OK);
        assert_false(fsm_schedule_paused(x.f, s, x.now_ms));
        assert_tick(tick(&x, seq, 1019), 1019, R_(PAUSED), 0); /* late: it was while paused */
        assert_tick(tick(&x, seq, 1020), 1020, R_(ON_TIME), 1);
        assert_int_equal(fixture_do(&x, cmd_cancel(1, x.now_ms)), FSM_OK);
        assert_int_equal(pause_it(&x, names[i], true, x.now_ms), FSM_REFUSED);
        assert_int_equal(pause_it(&x, names[i], true, 1040 * 1000), FSM_OK);
        fsm_schedules_pause(x.f, &all);
        assert_int_equal(all.paused, i == 1);
        assert_string_equal(all.reason, i == 1 ? "why" : "");
        x.now_ms = 1060 * 1000;
        assert_tick(tick(&x, seq, 1039), 1039, R_(PAUSED), 0);
        assert_tick(tick(&x, seq, 1040), 1040, R_(ON_TIME), 2);
        end(&x);
    }
}

/* Goal: what is asked for by hand runs in a pause; what waited does not start in one. */
static void test_pause_and_waiting(void **state) {
    const struct put_args p = {.name = "s", .overlap = P_(BUFFER_ALL)};
    struct fixture x;
    uint64_t seq;

    (void) state;
    begin(&x);
    seq = put(&x, &p);
    (void) tick(&x, seq, 1010);
    assert_waits(tick(&x, seq, 1020), 1020, 1);
    assert_int_equal(pause_it(&x, "s", true, 0), FSM_OK);
    assert_int_equal(
        fixture_do(&x, cmd_run_schedule("s", R_(TRIGGER), NULL, 0, false, NULL, NULL, x.now_ms)),
        FSM_OK);
    assert_waits(x.out->ticks, 1020, 1);
    assert_int_equal(fixture_do(&x, cmd_cancel(1, x.now_ms)), FSM_OK);
    assert_int_equal(x.out->ticks_count, 2);
    assert_tick(&x.out->ticks[0], 1020, R_(PAUSED), 0);
    assert_tick(&x.out->ticks[1], 1020, R_(BUFFERED), 2);
    assert_int_equal(x.out->ticks[1].cause, R_(TRIGGER));
    end(&x);
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
    begin(&x);
    seq = put(&x, &p);
    (void) tick(&x, seq, 1010);
    (void) run_job(&x, 1);
    end_job(&x, 1, CANCEL);
    assert_false(fsm_schedule_by_seq(x.f, seq)->paused);
    (void) tick(&x, seq, 1020);
    assert_waits(tick(&x, seq, 1030), 1030, 2);
    (void) run_job(&x, 2);
    end_job(&x, 2, FAILURE);
    assert_tick(x.out->ticks, 1030, R_(PAUSED), 0);
    assert_true(fsm_schedule_by_seq(x.f, seq)->paused);
    assert_string_equal(record(&x, seq, &arena)->pause_reason, "run j12 failed");
    assert_tick(tick(&x, seq, 1040), 1040, R_(PAUSED), 0);
    arena_done(&arena);
    end(&x);
}

/* ---- definitions -------------------- */

/* Goal: who read a definition before its name was given up and taken again changes nothing of the
 * new one. */
static void test_version_of_name_taken_again(void **state) {
    struct put_args p = {.name = "s", .overlap = P_(SKIP)};
    struct fixture x;
    uint64_t first, second;

    (void) state;
    begin(&x);
    (void) put(&x, &p);
    first = x.out->results[0].version;
    assert_int_equal(fixture_do(&x, cmd_delete_schedule("s", first, false, x.now_ms)), FSM_OK);
    (void) put(&x, &p);
    second = x.out->results[0].version;
    assert_true(second > first);
    p.replace = true;
    p.version = first;
    assert_int_equal(fixture_do(&x, cmd_put_schedule(&p, x.now_ms)), FSM_VERSION_MISMATCH);
    assert_int_equal(fixture_do(&x, cmd_delete_schedule("s", first, false, x.now_ms)),
                     FSM_VERSION_MISMATCH);
    assert_int_equal(fixture_do(&x, cmd_delete_schedule("s", second, false, x.now_ms)), FSM_OK);
    end(&x);
}

/* Goal: an edit with a new generation ends what waited, recorded; one without leaves it (C13). */
static void test_edit(void **state) {
    struct put_args p = {.name = "s", .overlap = P_(BUFFER_ALL)};
    const struct fsm_schedule *s;
    struct fixture x;
    uint64_t seq, made;

    (void) state;
    begin(&x);
    seq = put(&x, &p);
    made = x.out->results[0].version;
    s = fsm_schedule_by_seq(x.f, seq);
    (void) tick(&x, seq, 1010);
    (void) tick(&x, seq, 1020);
    (void) tick(&x, seq, 1030);
    p.replace = true;
    p.version = made + 7;
    assert_int_equal(fixture_do(&x, cmd_put_schedule(&p, x.now_ms)), FSM_VERSION_MISMATCH);
    assert_int_equal(x.out->results[0].version, made);
    p.version = made;
    assert_int_equal(put(&x, &p), seq);
    assert_int_equal(x.out->results[0].version, made + 1);
    assert_int_equal(s->buffered, 2);
    assert_int_equal(s->generation, 1);
    p.version = 0;
    p.new_generation = true;
    x.now_ms = 1055500;
    (void) put(&x, &p);
    assert_int_equal(x.out->ticks_count, 2);
    assert_tick(&x.out->ticks[0], 1020, R_(DELETED), 0);
    assert_tick(&x.out->ticks[1], 1030, R_(DELETED), 0);
    assert_int_equal(x.out->ticks[1].generation, 1);
    assert_int_equal(s->generation, 2);
    assert_int_equal(s->watermark_s, 1055); /* nothing of the past */
    assert_int_equal(s->buffered, 0);
    assert_int_equal(s->open_runs, 1);
    (void) tick(&x, seq, 1060);
    p.overlap = P_(ALLOW);
    p.new_generation = false;
    (void) put(&x, &p); /* what waited need not wait any more */
    assert_tick(x.out->ticks, 1060, R_(BUFFERED), 2);
    assert_int_equal(s->open_runs, 2);
    end(&x);
}

/* Goal: a deleted schedule leaves nothing but its jobs; a new one of the name is another. */
static void test_delete(void **state) {
    const struct put_args p = {.name = "s", .overlap = P_(BUFFER_ALL)};

    (void) state;
    for (int cancel = 0; cancel <= 1; cancel++) {
        const struct fsm_schedule *found;
        struct fixture x;
        uint64_t seq, token, made;

        begin(&x);
        seq = put(&x, &p);
        made = x.out->results[0].version;
        (void) tick(&x, seq, 1010);
        (void) tick(&x, seq, 1020);
        token = run_job(&x, 1);
        assert_int_equal(fixture_do(&x, cmd_delete_schedule("t", 0, cancel, x.now_ms)),
                         FSM_NOT_FOUND);
        assert_int_equal(fixture_do(&x, cmd_delete_schedule("s", made + 1, cancel, x.now_ms)),
                         FSM_VERSION_MISMATCH);
        assert_int_equal(fixture_do(&x, cmd_delete_schedule("s", made, cancel, x.now_ms)), FSM_OK);
        assert_int_equal(x.out->ticks_count, 1);
        assert_tick(x.out->ticks, 1020, R_(DELETED), 0);
        assert_int_equal(x.out->schedules_count, 1);
        assert_int_equal(x.out->schedules[0].change, FSM_SCHEDULE_REMOVED);
        assert_null(fsm_schedule_by_seq(x.f, seq));
        assert_int_equal(fsm_schedule_find(x.f, slice_of("s", 1), &found), FSM_READ_NOT_FOUND);
        assert_int_equal(fsm_job_find(x.f, 1)->cancel_requested, cancel);
        fsm_check_invariants(x.f);
        assert_int_equal(put(&x, &p), seq + 1);
        assert_int_equal(fixture_update(&x, 1, token, O(COMPLETED)), FSM_OK);
        assert_int_equal(x.out->schedules_count, 0);
        assert_int_equal(tick_as(&x, seq, 1030, R_(ON_TIME)), FSM_NOT_FOUND);
        end(&x);
    }
    /* Pending runs end within the command. */
    struct fixture x;
    begin(&x);
    (void) tick(&x, put(&x, &p), 1010);
    assert_int_equal(fixture_do(&x, cmd_delete_schedule("s", 0, true, x.now_ms)), FSM_OK);
    assert_null(fsm_job_find(x.f, 1));
    end(&x);
}

/* Goal: names and keys: taken, repeated, reused, shared with jobs (C19). */
static void test_create(void **state) {
    struct put_args p = {.name = "s", .key = "k", .hash = "h"};
    struct fixture x;
    char name[200];
    uint64_t seq;

    (void) state;
    begin(&x);
    seq = put(&x, &p);
    assert_int_equal(fixture_do(&x, cmd_put_schedule(&p, x.now_ms)), FSM_EXISTING);
    assert_int_equal(x.out->results[0].schedule_seq, seq);
    p.hash = "other";
    assert_int_equal(fixture_do(&x, cmd_put_schedule(&p, x.now_ms)), FSM_KEY_CONFLICT);
    assert_int_equal(fixture_do(&x, cmd_submit("spec", "k", "h", 1, x.now_ms)), FSM_KEY_CONFLICT);
    p.key = NULL;
    assert_int_equal(fixture_do(&x, cmd_put_schedule(&p, x.now_ms)), FSM_NAME_TAKEN);
    assert_int_equal(fixture_do(&x, cmd_submit("spec", "job", "h", 1, x.now_ms)), FSM_OK);
    assert_int_equal(x.out->results[0].job_seq, 2); /* the schedule's key has a number of its own */
    p = (struct put_args){.name = "t", .key = "job", .hash = "h"};
    assert_int_equal(fixture_do(&x, cmd_put_schedule(&p, x.now_ms)), FSM_KEY_CONFLICT);
    p = (struct put_args){.name = "t", .replace = true};
    assert_int_equal(fixture_do(&x, cmd_put_schedule(&p, x.now_ms)), FSM_NOT_FOUND);
    memset(name, 'n', sizeof(name));
    name[129] = '\0';
    p = (struct put_args){.name = name};
    assert_int_equal(fixture_do(&x, cmd_put_schedule(&p, x.now_ms)), FSM_REFUSED);
    name[128] = '\0';
    (void) put(&x, &p);
    p.name = "a/b";
    assert_int_equal(fixture_do(&x, cmd_put_schedule(&p, x.now_ms)), FSM_REFUSED);
    p = (struct put_args){.name = "u", .overlap = 6};
    assert_int_equal(fixture_do(&x, cmd_put_schedule(&p, x.now_ms)), FSM_REFUSED);
    p = (struct put_args){.name = "u", .job_bytes = FSM_SCHEDULE_BYTES_MAX};
    assert_int_equal(fixture_do(&x, cmd_put_schedule(&p, x.now_ms)), FSM_REFUSED);
    fsm_check_invariants(x.f);
    assert_int_equal(fsm_write_back(x.f), 0);
    fixture_reopen(&x);
    assert_int_equal(fsm_schedules_count(x.f), 2);
    p = (struct put_args){.name = "s", .key = "k", .hash = "h"};
    assert_int_equal(fixture_do(&x, cmd_put_schedule(&p, x.now_ms)), FSM_EXISTING);
    fsm_check_invariants(x.f);
    fixture_done(&x);
}

/* Goal: by hand: overlap is honoured unless told not to, the watermark stays, a key answers the
 * same lines again (C14). */
static void test_by_hand(void **state) {
    static const int64_t past[] = {100, 200, 300}, wrong[] = {100, 100}, future[] = {2000};
    const struct put_args p = {.name = "s"};
    struct fixture x;
    uint64_t seq;

    (void) state;
    begin(&x);
    seq = put(&x, &p);
    assert_int_equal(
        fixture_do(&x, cmd_run_schedule("s", R_(BACKFILL), past, 3, false, "k", "h", x.now_ms)),
        FSM_OK);
    assert_int_equal(x.out->ticks_count, 3);
    assert_tick(&x.out->ticks[0], 100, R_(BACKFILL), 1);
    assert_tick(&x.out->ticks[1], 200, R_(OVERLAP), 1);
    assert_tick(&x.out->ticks[2], 300, R_(OVERLAP), 1);
    assert_int_equal(x.out->ticks[2].ordinal, 3); /* a line each */
    assert_int_equal(x.out->results[0].ordinals, 3);
    assert_int_equal(fsm_schedule_by_seq(x.f, seq)->watermark_s, 1000);
    assert_int_equal(
        fixture_do(&x, cmd_run_schedule("s", R_(BACKFILL), past, 3, false, "k", "h", x.now_ms)),
        FSM_EXISTING);
    assert_int_equal(x.out->ticks_count, 0);
    assert_int_equal(x.out->results[0].first_ordinal, 1);
    assert_int_equal(x.out->results[0].ordinals, 3);
    assert_int_equal(
        fixture_do(&x, cmd_run_schedule("s", R_(BACKFILL), past, 3, true, NULL, NULL, x.now_ms)),
        FSM_OK);
    assert_int_equal(fsm_schedule_by_seq(x.f, seq)->open_runs, 4);
    assert_int_equal(
        fixture_do(&x, cmd_run_schedule("s", R_(BACKFILL), wrong, 2, true, NULL, NULL, x.now_ms)),
        FSM_REFUSED);
    assert_int_equal(
        fixture_do(&x, cmd_run_schedule("s", R_(BACKFILL), future, 1, true, NULL, NULL, x.now_ms)),
        FSM_REFUSED);
    assert_int_equal(
        fixture_do(&x, cmd_run_schedule("s", R_(ON_TIME), past, 1, true, NULL, NULL, x.now_ms)),
        FSM_REFUSED);
    assert_int_equal(
        fixture_do(&x, cmd_run_schedule("t", R_(TRIGGER), NULL, 0, true, NULL, NULL, x.now_ms)),
        FSM_NOT_FOUND);
    end(&x);
}

/* Goal: the job knows whose run it is. */
static void test_job_record(void **state) {
    const struct put_args p = {.name = "nightly"};
    Chronos__Internal__V1__JobRecord *job;
    struct arena arena;
    struct fixture x;

    (void) state;
    arena_init(&arena, 1 << 20);
    begin(&x);
    (void) tick(&x, put(&x, &p), 1010);
    assert_int_equal(fsm_read_job(x.f, 1, &arena, &job), 0);
    assert_string_equal(job->schedule, "nightly");
    assert_int_equal(job->schedule_seq, 1);
    assert_int_equal(job->schedule_generation, 1);
    assert_int_equal(job->tick_s, 1010);
    assert_int_equal(job->tick_reason, R_(ON_TIME));
    assert_int_equal(job->spec.len, strlen("a job"));
    arena_done(&arena);
    end(&x);
}

/* ---- history -------------------- */

/* Goal: 100 lines are kept; ticks that follow each other and were skipped for one reason share one;
 * lines older than 30 days go when newer ones come (C38). */
static void test_history(void **state) {
    const struct put_args p = {.name = "s", .overlap = P_(ALLOW)};
    Chronos__Internal__V1__TickRecord *line;
    Chronos__Internal__V1__ScheduleRecord *rec;
    struct arena arena;
    struct fixture x;
    uint64_t seq;

    (void) state;
    arena_init(&arena, 1 << 20);
    begin(&x);
    seq = put(&x, &p);
    for (int64_t at = 1001; at <= 1250; at++)
        assert_int_equal(tick_as(&x, seq, at, R_(ON_TIME)), FSM_OK);
    rec = record(&x, seq, &arena);
    assert_int_equal(rec->next_ordinal, 251);
    assert_int_equal(rec->first_ordinal, 151);
    assert_int_equal(rec->fired, 250);
    assert_int_equal(fsm_read_tick(x.f, seq, 150, &arena, &line), FSM_READ_NOT_FOUND);
    assert_int_equal(fsm_read_tick(x.f, seq, 151, &arena, &line), 0);
    assert_int_equal(line->tick_s, 1151);
    assert_int_equal(pause_it(&x, "s", true, 0), FSM_OK);
    for (int64_t at = 1251; at <= 1350; at++)
        assert_int_equal(tick_as(&x, seq, at, R_(ON_TIME)), FSM_OK);
    assert_int_equal(fsm_read_tick(x.f, seq, 251, &arena, &line), 0);
    assert_int_equal(line->tick_s, 1251);
    assert_int_equal(line->last_tick_s, 1350);
    assert_int_equal(line->count, 100);
    assert_int_equal(line->reason, R_(PAUSED));
    assert_int_equal(record(&x, seq, &arena)->next_ordinal, 252);
    assert_int_equal(record(&x, seq, &arena)->skipped, 100);
    x.now_ms += FSM_SCHEDULE_HISTORY_MS + 1;
    assert_int_equal(pause_it(&x, "s", false, 0), FSM_OK);
    (void) tick(&x, seq, x.now_ms / 1000 + 1);
    rec = record(&x, seq, &arena);
    assert_int_equal(rec->next_ordinal - rec->first_ordinal, 1);
    arena_done(&arena);
    end(&x);
}

static int collect(void *arg, const struct fsm_schedule *s,
                   const Chronos__Internal__V1__ScheduleRecord *rec) {
    char *names = arg;

    assert_int_equal(s->seq, rec->seq);
    memcpy(names + strlen(names), rec->name, strlen(rec->name) + 1);
    return strcmp(rec->name, "c") == 0; /* enough */
}

/* Goal: scans by name and by number; alarms. */
static void test_reads(void **state) {
    static const char *const names[] = {"d", "b", "c", "a"};
    char got[16] = "";
    struct arena arena;
    struct fixture x;

    (void) state;
    arena_init(&arena, 1 << 20);
    begin(&x);
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        (void) put(&x, &(struct put_args){.name = names[i]});
    assert_int_equal(fsm_scan_schedules(x.f, slice_of("", 0), &arena, collect, got), 0);
    assert_string_equal(got, "abc");
    got[0] = '\0';
    assert_int_equal(fsm_scan_schedules(x.f, slice_of("d", 1), &arena, collect, got), 0);
    assert_string_equal(got, "d");
    got[0] = '\0';
    assert_int_equal(fsm_load_schedules(x.f, 1, &arena, collect, got), 0);
    assert_string_equal(got, "dbc");
    assert_int_equal(fsm_schedule_first(x.f)->next->seq, 2);
    assert_int_equal(fixture_do(&x, cmd_schedule_alarm(2, "no zone", x.now_ms)), FSM_OK);
    assert_true(x.out->results[0].changed);
    assert_true(fsm_schedule_by_seq(x.f, 2)->alarmed);
    assert_string_equal(record(&x, 2, &arena)->alarm, "no zone");
    assert_int_equal(fixture_do(&x, cmd_schedule_alarm(2, "no zone", x.now_ms)), FSM_OK);
    assert_false(x.out->results[0].changed);
    assert_int_equal(fixture_do(&x, cmd_schedule_alarm(2, "", x.now_ms)), FSM_OK);
    assert_false(fsm_schedule_by_seq(x.f, 2)->alarmed);
    assert_int_equal(fixture_do(&x, cmd_schedule_alarm(9, "x", x.now_ms)), FSM_NOT_FOUND);
    arena_done(&arena);
    fsm_check_invariants(x.f);
    fixture_done(&x);
}

/* Goal: 10,000 open runs of one schedule and no more. */
static void test_open_cap(void **state) {
    const struct put_args p = {.name = "s", .overlap = P_(ALLOW)};
    static struct tick_args t[FSM_TICKS_MAX];
    struct fixture x;
    uint64_t seq;
    int64_t at = 1001;

    (void) state;
    begin(&x);
    seq = put(&x, &p);
    x.now_ms = 20000 * 1000;
    while (at <= 1000 + FSM_SCHEDULE_OPEN_MAX) {
        size_t n = 0;

        while (n < FSM_TICKS_MAX && at <= 1000 + FSM_SCHEDULE_OPEN_MAX)
            t[n++] = (struct tick_args){.tick_s = at++, .reason = R_(CATCH_UP)};
        assert_int_equal(fixture_do(&x, cmd_ticks(seq, 1, at - 1, t, n, x.now_ms)), FSM_OK);
    }
    assert_int_equal(fsm_schedule_by_seq(x.f, seq)->open_runs, FSM_SCHEDULE_OPEN_MAX);
    assert_tick(tick(&x, seq, 20000), 20000, R_(CAP), 0);
    end(&x);
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
        cmocka_unit_test(test_version_of_name_taken_again),
        cmocka_unit_test(test_edit),
        cmocka_unit_test(test_delete),
        cmocka_unit_test(test_create),
        cmocka_unit_test(test_by_hand),
        cmocka_unit_test(test_job_record),
        cmocka_unit_test(test_history),
        cmocka_unit_test(test_reads),
        cmocka_unit_test(test_open_cap),
    };

    return cmocka_run_group_tests_name("fsm_schedules", tests, NULL, NULL);
}
