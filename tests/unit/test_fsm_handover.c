/* An edit of a schedule that knows of ticks without outcome: what is recorded, from where it goes
 * on, and that it is taken only by the schedule that it was computed from. */
#include "schedule_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

typedef Chronos__Internal__V1__ScheduleHandover Handover;

static const Handover NONE = CHRONOS__INTERNAL__V1__SCHEDULE_HANDOVER__INIT;

/* The clock is at 1,000 s; a schedule whose watermark is there. */
static uint64_t begin(struct fixture *x, int overlap) {
    const struct put_args p = {.name = "s", .overlap = overlap};

    fixture_init(x, NULL);
    x->now_ms = 1000 * 1000;
    assert_int_equal(fixture_do(x, cmd_put_schedule(&p, x->now_ms)), FSM_OK);
    return x->out->results[0].schedule_seq;
}

static void end(struct fixture *x) {
    fsm_check_invariants(x->f);
    fixture_reopen(x);
    fsm_check_invariants(x->f);
    fixture_done(x);
}

static enum fsm_code edit(struct fixture *x, int overlap, Handover *h) {
    const struct put_args p = {
        .name = "s", .overlap = overlap, .replace = true, .new_generation = true, .handover = h};

    return fixture_do(x, cmd_put_schedule(&p, x->now_ms));
}

static enum fsm_code tick(struct fixture *x, uint64_t seq, int64_t tick_s) {
    const struct fsm_schedule *s = fsm_schedule_by_seq(x->f, seq);
    struct tick_args t = {.tick_s = tick_s, .reason = R_(ON_TIME)};

    x->now_ms = MAX(x->now_ms, tick_s * 1000);
    return fixture_do(x, cmd_ticks(seq, s->generation, tick_s, &t, 1, x->now_ms));
}

/* Goal: what had no outcome gets one, of the old generation; what is still to come fires in the
 * new one (C13, J5). */
static void test_outcomes(void **state) {
    Handover h = NONE;
    const struct fsm_schedule *s;
    struct fixture x;
    uint64_t seq;

    (void) state;
    seq = begin(&x, P_(ALLOW));
    s = fsm_schedule_by_seq(x.f, seq);
    x.now_ms = 1060500;
    h.at_ms = 1060400;
    h.from_s = 1000;
    h.watermark_s = 1049;
    h.first_s = 1010;
    h.last_s = 1055;
    h.count = 5;
    assert_int_equal(edit(&x, P_(ALLOW), &h), FSM_OK);
    assert_int_equal(x.out->ticks_count, 1);
    assert_int_equal(x.out->ticks[0].tick_s, 1010);
    assert_int_equal(x.out->ticks[0].last_tick_s, 1055);
    assert_int_equal(x.out->ticks[0].count, 5);
    assert_int_equal(x.out->ticks[0].generation, 1);
    assert_int_equal(x.out->ticks[0].reason, R_(DELETED));
    assert_false(x.out->ticks[0].fired);
    assert_int_equal(s->generation, 2);
    assert_int_equal(s->watermark_s, 1049);
    assert_int_equal(tick(&x, seq, 1050), FSM_OK); /* before the edit, and still to come */
    assert_true(x.out->ticks[0].fired);
    assert_int_equal(x.out->ticks[0].generation, 2);
    end(&x);
}

static void refused(struct fixture *x, const Handover *good, size_t field, int64_t value) {
    Handover h = *good;

    memcpy((uint8_t *) &h + field, &value, sizeof(value));
    assert_int_equal(edit(x, P_(ALLOW), &h), FSM_VERSION_MISMATCH);
    assert_int_equal(x->out->ticks_count, 0);
    assert_int_equal(fsm_schedule_by_seq(x->f, 1)->generation, 1);
    assert_int_equal(fsm_schedule_by_seq(x->f, 1)->watermark_s, 1000);
}

/* Goal: computed from another watermark, long ago or with another clock, or
 * nonsense: nothing is changed, and the answer says to compute it anew. */
static void test_guards(void **state) {
    Handover h = NONE;
    struct fixture x;

    (void) state;
    (void) begin(&x, P_(ALLOW));
    x.now_ms = 1060500;
    h.at_ms = 1060400;
    h.from_s = 1000;
    h.watermark_s = 1049;
    h.first_s = 1010;
    h.last_s = 1040;
    h.count = 4;
    refused(&x, &h, offsetof(Handover, from_s), 999);
    refused(&x, &h, offsetof(Handover, from_s), 1001);
    refused(&x, &h, offsetof(Handover, at_ms), 1060501); /* ahead of the leader's clock */
    refused(&x, &h, offsetof(Handover, at_ms), 1055499); /* more than 5 s ago */
    refused(&x, &h, offsetof(Handover, watermark_s), 999);
    refused(&x, &h, offsetof(Handover, watermark_s), 1061);
    refused(&x, &h, offsetof(Handover, first_s), 1000);
    refused(&x, &h, offsetof(Handover, first_s), 1041);
    refused(&x, &h, offsetof(Handover, last_s), 1061);
    refused(&x, &h, offsetof(Handover, count), 32);
    assert_int_equal(edit(&x, P_(ALLOW), &h), FSM_OK);
    assert_int_equal(edit(&x, P_(ALLOW), &h), FSM_VERSION_MISMATCH); /* twice */
    end(&x);
}

/* Goal: a tick that is decided between computing and applying has one outcome. */
static void test_tick_first(void **state) {
    Handover h = NONE;
    struct fixture x;
    uint64_t seq;

    (void) state;
    seq = begin(&x, P_(ALLOW));
    h.at_ms = 1011000;
    h.from_s = 1000;
    h.watermark_s = 1011;
    h.first_s = h.last_s = 1010;
    h.count = 1;
    assert_int_equal(tick(&x, seq, 1010), FSM_OK);
    x.now_ms = 1011000;
    assert_int_equal(edit(&x, P_(ALLOW), &h), FSM_VERSION_MISMATCH);
    assert_int_equal(x.out->ticks_count, 0);
    h.from_s = 1010;
    h.count = 0;
    assert_int_equal(edit(&x, P_(ALLOW), &h), FSM_OK);
    assert_int_equal(x.out->ticks_count, 0);
    end(&x);
}

/* Goal: ticks that wait for an open run stay when the ticks did not change, else they are
 * recorded before what was still undecided. */
static void test_waiting(void **state) {
    Handover h = NONE;
    const struct fsm_schedule *s;
    struct fixture x;
    uint64_t seq;

    (void) state;
    seq = begin(&x, P_(BUFFER_ALL));
    s = fsm_schedule_by_seq(x.f, seq);
    assert_int_equal(tick(&x, seq, 1010), FSM_OK);
    assert_int_equal(tick(&x, seq, 1020), FSM_OK);
    assert_int_equal(s->buffered, 1);
    x.now_ms = h.at_ms = 1100000;
    h.from_s = 1020;
    h.watermark_s = 1100;
    h.keep_waiting = true;
    assert_int_equal(edit(&x, P_(BUFFER_ALL), &h), FSM_OK);
    assert_int_equal(s->buffered, 1);
    assert_int_equal(s->generation, 2);
    assert_int_equal(s->watermark_s, 1100);
    x.now_ms = h.at_ms = 1200000;
    h.from_s = 1100;
    h.watermark_s = 1200;
    h.first_s = h.last_s = 1150;
    h.count = 1;
    h.keep_waiting = false;
    assert_int_equal(edit(&x, P_(BUFFER_ALL), &h), FSM_OK);
    assert_int_equal(s->buffered, 0);
    assert_int_equal(x.out->ticks_count, 2);
    assert_int_equal(x.out->ticks[0].tick_s, 1020);
    assert_int_equal(x.out->ticks[0].reason, R_(DELETED));
    assert_int_equal(x.out->ticks[1].tick_s, 1150);
    assert_int_equal(x.out->ticks[1].reason, R_(DELETED));
    end(&x);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_outcomes),
        cmocka_unit_test(test_guards),
        cmocka_unit_test(test_tick_first),
        cmocka_unit_test(test_waiting),
    };

    return cmocka_run_group_tests_name("fsm_handover", tests, NULL, NULL);
}
