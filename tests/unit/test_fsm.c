/* The state machine's jobs: their lives, idempotency keys, reads, and what its store holds of them.
 * Method: commands applied one by one; answers, events, counters and records compared. */
#include "fsm_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define S(x) CHRONOS__V1__JOB_STATE__JOB_STATE_##x
#define O(x) CHRONOS__V1__ATTEMPT_OUTCOME__ATTEMPT_OUTCOME_##x
#define R(x) CHRONOS__V1__FAILURE_REASON__FAILURE_REASON_##x

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

/* Goal: an assignment is refused for each reason there is, and then nothing changes (J11, J18). */
static void test_assign_refusals(void **state) {
    struct fixture x;
    uint8_t before[16], after[16];

    (void) state;
    fixture_world(&x, 1, 3, 3);
    assert_int_equal(fixture_register(&x, "gone", 1, 4), FSM_OK);
    assert_int_equal(fixture_do(&x, cmd_lose("gone", 1, x.now_ms)), FSM_OK);
    assert_int_equal(fixture_assign(&x, 1, "w1", 7), FSM_OK);
    fsm_digest(x.f, before);
    assert_int_equal(fixture_assign(&x, 1, "w1", 7), FSM_NOT_PENDING);
    assert_int_equal(fixture_assign(&x, 2, "w1", 7), FSM_WORKER_GONE); /* full */
    assert_int_equal(fixture_assign(&x, 2, "w1", 8), FSM_WORKER_GONE); /* another incarnation */
    assert_int_equal(fixture_assign(&x, 2, "nobody", 7), FSM_WORKER_GONE);
    assert_int_equal(fixture_assign(&x, 2, "gone", 1), FSM_WORKER_GONE);
    assert_int_equal(fixture_assign(&x, 99, "w1", 7), FSM_NOT_FOUND);
    assert_int_equal(fixture_assign(&x, 0, "w1", 7), FSM_NOT_FOUND);
    assert_int_equal(x.out->events_count, 0);
    fsm_digest(x.f, after);
    assert_memory_equal(before, after, 16);
    fsm_check_invariants(x.f);
    fixture_done(&x);
}

/* Goal: what is stale, repeated or meaningless changes nothing: equal digest, no event (C25, J12).
 */
static void test_stale_changes_nothing(void **state) {
    struct fixture x;
    uint8_t before[16], after[16];
    uint64_t token;

    (void) state;
    fixture_world(&x, 4, 2, 3);
    assert_int_equal(fixture_assign(&x, 1, "w1", 7), FSM_OK);
    token = fsm_applied_index(x.f);
    fsm_digest(x.f, before);
    assert_int_equal(fixture_update(&x, 1, token - 1, O(COMPLETED)), FSM_STALE);
    assert_int_equal(fixture_update(&x, 1, token + 1, O(FAILED)), FSM_STALE);
    assert_int_equal(fixture_update(&x, 1, 0, O(RELEASED)), FSM_STALE);
    assert_int_equal(fixture_update(&x, 2, 0, O(COMPLETED)),
                     FSM_STALE); /* pending, never assigned */
    assert_int_equal(fixture_update(&x, 1, token, O(UNSPECIFIED)), FSM_REFUSED);
    assert_int_equal(fixture_update(&x, 1, token, (Chronos__V1__AttemptOutcome) 99), FSM_REFUSED);
    assert_int_equal(fixture_do(&x, cmd_update(1, token, O(FAILED), 0, x.now_ms)), FSM_REFUSED);
    assert_int_equal(x.out->events_count, 0);
    fsm_digest(x.f, after);
    assert_memory_equal(before, after, 16);
    /* Lost and assigned again: the first attempt's report comes too late. */
    assert_int_equal(fixture_do(&x, cmd_lose("w1", 7, x.now_ms)), FSM_OK);
    assert_int_equal(fixture_update(&x, 1, token, O(COMPLETED)), FSM_STALE);
    assert_int_equal(fixture_register(&x, "w1", 8, 4), FSM_OK);
    assert_int_equal(fixture_assign(&x, 1, "w1", 8), FSM_OK);
    assert_int_equal(fsm_job_find(x.f, 1)->attempt, 2);
    assert_true(fsm_job_find(x.f, 1)->fencing_token > token);
    assert_int_equal(fixture_update(&x, 1, token, O(COMPLETED)), FSM_STALE);
    assert_int_equal(fsm_job_find(x.f, 1)->state, S(RUNNING));
    fixture_done(&x);
}

/* Goal: each outcome, with and without a cancel request, leads where it must. */
static void test_outcomes(void **state) {
    static const struct {
        Chronos__V1__AttemptOutcome outcome;
        bool cancel;
        Chronos__V1__JobState to;
        Chronos__V1__FailureReason reason;
    } cases[] = {
        {O(COMPLETED), false, S(COMPLETED), 0},
        {O(COMPLETED), true, S(COMPLETED), 0},
        {O(FAILED), false, S(FAILED), R(EXIT_CODE)},
        {O(FAILED), true, S(FAILED), R(EXIT_CODE)},
        {O(CANCELLED), false, S(FAILED), R(SIGNAL)},
        {O(CANCELLED), true, S(CANCELLED), 0},
        {O(RELEASED), false, S(PENDING), 0},
        {O(RELEASED), true, S(CANCELLED), 0}, /* J19: no new attempt */
    };

    (void) state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct fixture x;
        uint64_t token;

        fixture_world(&x, 1, 1, 1);
        assert_int_equal(fixture_assign(&x, 1, "w1", 7), FSM_OK);
        token = fsm_applied_index(x.f);
        if (cases[i].cancel) {
            assert_int_equal(fixture_do(&x, cmd_cancel(1, x.now_ms)), FSM_OK);
            assert_int_equal(x.out->events[0].from, S(RUNNING));
            assert_int_equal(x.out->events[0].to, S(RUNNING));
            assert_true(x.out->events[0].cancel_requested);
            assert_int_equal(fixture_do(&x, cmd_cancel(1, x.now_ms)), FSM_OK);
            assert_int_equal(x.out->events_count, 0);
        }
        assert_int_equal(fixture_update(&x, 1, token, cases[i].outcome), FSM_OK);
        assert_int_equal(x.out->events_count, 1);
        assert_int_equal(x.out->events[0].to, cases[i].to);
        assert_int_equal(x.out->events[0].failure_reason, cases[i].reason);
        assert_int_equal(fsm_jobs_count(x.f, cases[i].to), 1);
        assert_int_equal(fsm_worker_find(x.f, "w1")->running, 0);
        fsm_check_invariants(x.f);
        fixture_done(&x);
    }
}

/* Goal: a released attempt burns nothing and keeps its place in the queue; lost ones count up to
 * max_attempts; a cancelled job whose worker is lost is Cancelled (C28, C36, J15, J19). */
static void test_release_and_loss(void **state) {
    struct fixture x;

    (void) state;
    fixture_world(&x, 4, 3, 2);
    for (unsigned i = 1; i <= 5; i++) { /* far beyond max_attempts */
        assert_int_equal(fixture_assign(&x, 1, "w1", 7), FSM_OK);
        assert_int_equal(fixture_update(&x, 1, fsm_applied_index(x.f), O(RELEASED)), FSM_OK);
        assert_int_equal(x.out->events[0].released_attempts, i); /* seen by whoever looks */
        assert_int_equal(fsm_job_find(x.f, 1)->attempt, i);
        assert_int_equal(fsm_ready_first(x.f)->seq, 1);
    }
    assert_int_equal(fixture_assign(&x, 1, "w1", 7), FSM_OK);
    assert_int_equal(fixture_assign(&x, 3, "w1", 7), FSM_OK);
    assert_int_equal(fixture_do(&x, cmd_cancel(3, x.now_ms)), FSM_OK);
    assert_int_equal(fixture_do(&x, cmd_lose("w1", 6, x.now_ms)), FSM_WORKER_GONE);
    assert_int_equal(fixture_do(&x, cmd_lose("w1", 7, x.now_ms)), FSM_OK);
    assert_int_equal(x.out->events_count, 2);
    assert_int_equal(x.out->events[0].to, S(PENDING));
    assert_int_equal(x.out->events[1].to, S(CANCELLED));
    assert_int_equal(fsm_ready_first(x.f)->seq, 1);
    assert_int_equal(fsm_ready_first(x.f)->ready_next->seq, 2);
    assert_int_equal(fixture_do(&x, cmd_lose("w1", 7, x.now_ms)), FSM_WORKER_GONE);
    assert_int_equal(fixture_do(&x, cmd_lose("w9", 7, x.now_ms)), FSM_NOT_FOUND);
    assert_int_equal(fixture_register(&x, "w1", 8, 1), FSM_OK);
    assert_int_equal(fixture_assign(&x, 1, "w1", 8), FSM_OK);
    assert_int_equal(fixture_do(&x, cmd_lose("w1", 8, x.now_ms)), FSM_OK); /* the second loss */
    assert_int_equal(x.out->events[0].to, S(FAILED));
    assert_int_equal(x.out->events[0].failure_reason, R(WORKER_LOST));
    assert_int_equal(x.out->events[0].attempt, 7);
    fsm_check_invariants(x.f);
    fixture_done(&x);
}

/* Goal: an attempt that may be the only one is not repeated once it was started (J14); one that was
 * never started is, and so is one that has attempts left. Method: each case released, reported
 * twice, and read back. */
static void test_release_at_most_once(void **state) {
    static const struct {
        bool started, cancel;
        uint32_t max_attempts;
        Chronos__V1__JobState to;
        Chronos__V1__FailureReason reason;
    } cases[] = {
        {false, false, 1, S(PENDING), 0},  {true, false, 1, S(FAILED), R(WORKER_LOST)},
        {true, false, 2, S(PENDING), 0},   {true, true, 1, S(CANCELLED), 0},
        {false, true, 1, S(CANCELLED), 0},
    };

    (void) state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        Chronos__Internal__V1__JobRecord *rec;
        struct arena arena;
        struct fixture x;
        uint64_t token;

        fixture_world(&x, 1, 1, cases[i].max_attempts);
        assert_int_equal(fixture_assign(&x, 1, "w1", 7), FSM_OK);
        token = fsm_applied_index(x.f);
        if (cases[i].cancel)
            assert_int_equal(fixture_do(&x, cmd_cancel(1, x.now_ms)), FSM_OK);
        assert_int_equal(fixture_do(&x, cmd_release(1, token, cases[i].started, x.now_ms)), FSM_OK);
        assert_int_equal(x.out->events_count, 1);
        assert_int_equal(x.out->events[0].to, cases[i].to);
        assert_int_equal(x.out->events[0].failure_reason, cases[i].reason);
        arena_init(&arena, 1 << 20);
        assert_int_equal(fsm_read_job(x.f, 1, &arena, &rec), 0);
        assert_int_equal(rec->lost_attempts, cases[i].to == S(FAILED) ? 1 : 0);
        assert_int_equal(rec->released_attempts, cases[i].to == S(PENDING) ? 1 : 0);
        assert_int_equal(rec->failure_message[0] != '\0', cases[i].to != S(PENDING));
        arena_done(&arena);
        if (cases[i].to == S(FAILED)) { /* repeated by the worker: the same answer, no change */
            assert_int_equal(fixture_do(&x, cmd_release(1, token, true, x.now_ms)), FSM_OK);
            assert_int_equal(x.out->events_count, 0);
        }
        fsm_check_invariants(x.f);
        fixture_done(&x);
    }
}

/* Goal: idempotency keys: first id, conflict, expiry after exactly 24 h of logical time, a bound,
 * and all of it also after a restart (C19, J2). */
static void test_idempotency(void **state) {
    const struct fsm_options o = {.idempotency_max = 3};
    struct fixture x;
    char key[8] = "k1";

    (void) state;
    fixture_init(&x, &o);
    assert_int_equal(fixture_do(&x, cmd_submit("a", key, "h", 1, x.now_ms)), FSM_OK);
    assert_int_equal(fixture_do(&x, cmd_submit("a", key, "h", 1, x.now_ms)), FSM_EXISTING);
    assert_int_equal(x.out->results[0].job_seq, 1);
    assert_int_equal(x.out->events_count, 0);
    assert_int_equal(fixture_do(&x, cmd_submit("a", key, "g", 1, x.now_ms)), FSM_KEY_CONFLICT);
    assert_int_equal(x.out->results[0].job_seq, 1);
    assert_int_equal(fsm_write_back(x.f), 0);
    fixture_reopen(&x);
    x.now_ms += FSM_IDEMPOTENCY_KEEP_MS - 1;
    assert_int_equal(fixture_do(&x, cmd_submit("a", key, "h", 1, x.now_ms)), FSM_EXISTING);
    x.now_ms += 1;
    assert_int_equal(fixture_do(&x, cmd_submit("a", key, "g", 1, x.now_ms)), FSM_OK);
    assert_int_equal(x.out->results[0].job_seq, 2);
    for (char c = '2'; c <= '4'; c++) { /* the bound is 3: the oldest goes */
        key[1] = c;
        assert_int_equal(fixture_do(&x, cmd_submit("a", key, "h", 1, x.now_ms)), FSM_OK);
        fsm_check_invariants(x.f);
    }
    assert_int_equal(fixture_do(&x, cmd_submit("a", "k2", "h", 1, x.now_ms)), FSM_EXISTING);
    assert_int_equal(fixture_do(&x, cmd_submit("a", "k1", "g", 1, x.now_ms)),
                     FSM_OK); /* forgotten */
    fixture_done(&x);
}

/* Goal: expired keys that are used again before they were dropped leave a stale queue entry; a
 * replica that was reopened in between (and so has no such entry) goes the same way.
 * Method: 100 keys, a day, the last ones again; one replica is reopened after each command. */
static void test_idempotency_stale_queue(void **state) {
    struct fixture x, y;
    uint8_t dx[16], dy[16];
    char key[16];

    (void) state;
    fixture_init(&x, NULL);
    fixture_init(&y, NULL);
    for (int i = 0; i < 300; i++) {
        int n = i < 100 ? i : 99 - (i - 100) % 60; /* first those that are dropped last */

        if (i == 100 || i == 220)
            x.now_ms = y.now_ms = x.now_ms + FSM_IDEMPOTENCY_KEEP_MS;
        (void) snprintf(key, sizeof(key), "key %d", n);
        assert_int_equal(fixture_do(&x, cmd_submit("a", key, "h", 1, x.now_ms)),
                         fixture_do(&y, cmd_submit("a", key, "h", 1, y.now_ms)));
        assert_int_equal(x.out->results[0].job_seq, y.out->results[0].job_seq);
        assert_int_equal(fsm_write_back(y.f), 0);
        fixture_reopen(&y);
        fsm_digest(x.f, dx);
        fsm_digest(y.f, dy);
        assert_memory_equal(dx, dy, 16);
    }
    fsm_check_invariants(x.f);
    fsm_check_invariants(y.f);
    fixture_done(&x);
    fixture_done(&y);
}

/* Goal: logical time never runs backwards (J7); empty entries change nothing but the index. */
static void test_time_and_empty(void **state) {
    struct fixture x;
    uint8_t before[16], after[16];

    (void) state;
    fixture_world(&x, 1, 1, 1);
    x.now_ms -= 500;
    assert_int_equal(fixture_submit(&x, 1), FSM_OK);
    assert_true(x.out->now_ms == 1000000);
    fsm_digest(x.f, before);
    assert_int_equal(fixture_apply(&x, NULL), 0);
    assert_int_equal(x.out->kind, 0);
    assert_int_equal(x.out->results_count, 0);
    assert_int_equal(fsm_applied_index(x.f), 4);
    fsm_digest(x.f, after);
    assert_memory_equal(before, after, 16);
    fixture_done(&x);
}

static int count_one(void *arg, uint64_t seq, const Chronos__Internal__V1__JobRecord *rec) {
    uint64_t *seen = arg;

    assert_int_equal(rec->state, S(PENDING));
    seen[0]++;
    seen[1] = seen[1] * 10 + seq;
    return seen[0] == 3 ? 1 : 0;
}

/* Goal: scans go both ways from a number, stop when told to, and see what is not yet written. */
static void test_scan(void **state) {
    struct fixture x;
    struct arena arena;
    uint64_t up[2] = {0}, down[2] = {0}, none[2] = {0};

    (void) state;
    fixture_world(&x, 1, 5, 1);
    arena_init(&arena, 1 << 20);
    assert_int_equal(fsm_scan_jobs(x.f, 2, true, &arena, count_one, up), 0);
    assert_int_equal(up[1], 234);
    assert_int_equal(fsm_scan_jobs(x.f, UINT64_MAX, false, &arena, count_one, down), 0);
    assert_int_equal(down[1], 543);
    assert_int_equal(fsm_scan_jobs(x.f, 6, true, &arena, count_one, none), 0);
    assert_int_equal(none[0], 0);
    arena_done(&arena);
    fixture_done(&x);
}

static void put_raw(struct fixture *x, const char *key, const char *value, size_t len) {
    struct kv_op op = {.key = slice_of(key, strlen(key)), .value = slice_of(value, len)};

    assert_int_equal(x->kv->ops->write(x->kv, &op, 1), 0);
}

/* Goal: a store that is not ours, newer, or damaged is refused with a reason, never loaded. */
static void test_open_refuses(void **state) {
    static const struct {
        const char *key, *value;
        size_t len;
        int result;
    } cases[] = {
        {"m", "\x08\x02", 2, ERR_VERSION},
        {"m", "\x08\x01", 2, ERR_CORRUPT},
        {"m", "\xff\xff", 2, ERR_CORRUPT},
        {"wx", "\xff", 1, ERR_CORRUPT},
        {"wx", "", 0, ERR_CORRUPT},
        {"wzz", "\x0a\x01z", 3, ERR_CORRUPT},
        {"kfoo", "", 0, ERR_CORRUPT},
        {"j1", "", 0, ERR_CORRUPT},
        {"jzzzzzzzz", "\x10\x01", 2, ERR_CORRUPT}, /* beyond the next number */
    };

    (void) state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct fixture x;

        fixture_world(&x, 1, 2, 1);
        assert_int_equal(fsm_write_back(x.f), 0);
        x.f = fsm_free(x.f);
        put_raw(&x, cases[i].key, cases[i].value, cases[i].len);
        assert_int_equal(fsm_open(x.kv, NULL, &x.f, &x.err), cases[i].result);
        assert_true(strlen(x.err.s) > 10);
        assert_null(x.f);
        fixture_done(&x);
    }
}

/* Goal: records without the index record, and a job record that vanished, are corruption. */
static void test_open_missing(void **state) {
    uint8_t key[9] = {'j', 0, 0, 0, 0, 0, 0, 0, 2};
    struct kv_op ops[] = {{.key = slice_of("m", 1), .del = true},
                          {.key = slice_of(key, 9), .del = true}};

    (void) state;
    for (size_t i = 0; i < ARRAY_LEN(ops); i++) {
        struct fixture x;

        fixture_world(&x, 1, 2, 1);
        assert_int_equal(fsm_write_back(x.f), 0);
        x.f = fsm_free(x.f);
        assert_int_equal(x.kv->ops->write(x.kv, &ops[i], 1), 0);
        assert_int_equal(fsm_open(x.kv, NULL, &x.f, &x.err), ERR_CORRUPT);
        fixture_done(&x);
    }
}

/* Goal: ended jobs are not read when opening; all of them are still readable. */
static void test_reopen_after_many(void **state) {
    struct fixture x;
    struct arena arena;
    Chronos__Internal__V1__JobRecord *rec;
    uint8_t before[16], after[16];

    (void) state;
    fixture_world(&x, 1, 0, 1);
    for (uint64_t i = 1; i <= 500; i++) {
        assert_int_equal(fixture_submit(&x, 1), FSM_OK);
        if (i % 100 == 37) /* some stay pending */
            continue;
        assert_int_equal(fixture_assign(&x, i, "w1", 7), FSM_OK);
        assert_int_equal(fixture_update(&x, i, fsm_applied_index(x.f), O(COMPLETED)), FSM_OK);
        if (i % 60 == 0)
            assert_int_equal(fsm_write_back(x.f), 0);
    }
    assert_int_equal(fsm_write_back(x.f), 0);
    fsm_digest(x.f, before);
    fixture_reopen(&x);
    fsm_digest(x.f, after);
    assert_memory_equal(before, after, 16);
    assert_int_equal(fsm_jobs_count(x.f, S(COMPLETED)), 495);
    assert_int_equal(fsm_jobs_count(x.f, S(PENDING)), 5);
    assert_int_equal(fsm_ready_first(x.f)->seq, 37);
    arena_init(&arena, 1 << 20);
    for (uint64_t i = 1; i <= 500; i++)
        assert_int_equal(fsm_read_job(x.f, i, &arena, &rec), 0);
    assert_int_equal(fsm_read_job(x.f, 501, &arena, &rec), FSM_READ_NOT_FOUND);
    fsm_check_invariants(x.f);
    arena_done(&arena);
    fixture_done(&x);
}

/* Goal: reports are cut to their limits: the last 64 KiB of output, 1 KiB of message on a
 * character's border. */
static void test_report_limits(void **state) {
    Chronos__Internal__V1__LogCommand c = CHRONOS__INTERNAL__V1__LOG_COMMAND__INIT;
    Chronos__Internal__V1__UpdateJobStatus u = CHRONOS__INTERNAL__V1__UPDATE_JOB_STATUS__INIT;
    size_t big = FSM_OUTPUT_TAIL_BYTES_MAX + 100;
    Chronos__Internal__V1__JobRecord *rec;
    struct fixture x;
    struct arena arena;
    char message[2000];

    (void) state;
    fixture_world(&x, 1, 1, 1);
    arena_init(&arena, 1 << 20);
    assert_int_equal(fixture_assign(&x, 1, "w1", 7), FSM_OK);
    u.job_seq = 1;
    u.fencing_token = fsm_applied_index(x.f);
    u.outcome = O(COMPLETED);
    memset(message, 'm', sizeof(message));
    message[1022] = '\xe2'; /* a character of three bytes across the limit */
    message[1023] = '\x82';
    message[1024] = '\xac';
    message[1999] = '\0';
    u.message = message;
    u.output_tail.data = arena_zalloc(&arena, big);
    u.output_tail.len = big;
    assert_non_null(u.output_tail.data);
    u.output_tail.data[99] = 'a';
    u.output_tail.data[100] = 'b';
    c.body_case = CHRONOS__INTERNAL__V1__LOG_COMMAND__BODY_UPDATE_JOB_STATUS;
    c.update_job_status = &u;
    assert_int_equal(fixture_do(&x, fixture_encode(&c, x.now_ms)), FSM_OK);
    assert_int_equal(fsm_read_job(x.f, 1, &arena, &rec), 0);
    assert_int_equal(rec->output_tail.len, FSM_OUTPUT_TAIL_BYTES_MAX);
    assert_int_equal(rec->output_tail.data[0], 'b');
    assert_int_equal(strlen(rec->failure_message), 1022);
    arena_done(&arena);
    fixture_done(&x);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_life),
        cmocka_unit_test(test_assign_refusals),
        cmocka_unit_test(test_stale_changes_nothing),
        cmocka_unit_test(test_outcomes),
        cmocka_unit_test(test_release_and_loss),
        cmocka_unit_test(test_release_at_most_once),
        cmocka_unit_test(test_idempotency),
        cmocka_unit_test(test_idempotency_stale_queue),
        cmocka_unit_test(test_time_and_empty),
        cmocka_unit_test(test_scan),
        cmocka_unit_test(test_open_refuses),
        cmocka_unit_test(test_open_missing),
        cmocka_unit_test(test_reopen_after_many),
        cmocka_unit_test(test_report_limits),
    };

    return cmocka_run_group_tests_name("fsm", tests, NULL, NULL);
}
