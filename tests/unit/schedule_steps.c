#include "schedule_steps.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

void steps_begin(struct fixture *x) {
    fixture_init(x, NULL);
    x->now_ms = 1000 * 1000;
    assert_int_equal(fixture_do(x, cmd_register(WORKER, 1, 5000, 1, NULL, 0, x->now_ms)), FSM_OK);
}

void steps_end(struct fixture *x) {
    fsm_check_invariants(x->f);
    fixture_reopen(x); /* nothing written: an empty store */
    fixture_done(x);
}

uint64_t steps_put(struct fixture *x, const struct put_args *p) {
    assert_int_equal(fixture_do(x, cmd_put_schedule(p, x->now_ms)), FSM_OK);
    return x->out->results[0].schedule_seq;
}

enum fsm_code steps_tick_as(struct fixture *x, uint64_t seq, int64_t tick_s, int reason) {
    const struct fsm_schedule *s = fsm_schedule_by_seq(x->f, seq);
    struct tick_args t = {.tick_s = tick_s, .reason = reason};

    x->now_ms = MAX(x->now_ms, tick_s * 1000);
    return fixture_do(x, cmd_ticks(seq, s ? s->generation : 1, tick_s, &t, 1, x->now_ms));
}

const struct fsm_tick *steps_tick(struct fixture *x, uint64_t seq, int64_t tick_s) {
    assert_int_equal(steps_tick_as(x, seq, tick_s, R_(ON_TIME)), FSM_OK);
    assert_true(x->out->ticks_count > 0);
    assert_true(fsm_schedule_by_seq(x->f, seq)->watermark_s == tick_s);
    fsm_check_invariants(x->f);
    return x->out->ticks;
}

void steps_assert_tick(const struct fsm_tick *t, int64_t tick_s, int reason, uint64_t job) {
    assert_int_equal(t->tick_s, tick_s);
    assert_int_equal(t->reason, reason);
    assert_int_equal(t->fired, reason < 16);
    assert_int_equal(t->job_seq, job);
    assert_false(t->waiting);
}

void steps_assert_waits(const struct fsm_tick *t, int64_t tick_s, uint64_t behind) {
    assert_int_equal(t->tick_s, tick_s);
    assert_int_equal(t->reason, R_(BUFFERED));
    assert_true(t->fired && t->waiting);
    assert_int_equal(t->job_seq, behind);
}

uint64_t steps_run_job(struct fixture *x, uint64_t job) {
    assert_int_equal(fixture_do(x, cmd_assign(job, WORKER, 1, x->now_ms)), FSM_OK);
    return fsm_job_find(x->f, job)->fencing_token;
}

void steps_end_job(struct fixture *x, uint64_t job, enum ending how) {
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

Chronos__Internal__V1__ScheduleRecord *steps_record(struct fixture *x, uint64_t seq,
                                                    struct arena *arena) {
    Chronos__Internal__V1__ScheduleRecord *rec = NULL;

    assert_int_equal(fsm_read_schedule(x->f, seq, arena, &rec), 0);
    return rec;
}

enum fsm_code steps_pause(struct fixture *x, const char *name, bool on, int64_t until_ms) {
    return fixture_do(x, cmd_pause_schedule(name, on, until_ms, on ? "why" : "", x->now_ms));
}
