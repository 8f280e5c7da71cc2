#include "ticker_world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

/* ---- tests ------------------------------------------------------------------------------------
 */

/* Goal: on time, each tick once and at its very millisecond. Method: an hour of one schedule. */
static void test_on_time(void **state) {
    struct world w;
    struct schedule *s;

    (void) state;
    world_init(&w, 1);
    s = &w.schedules[0];
    world_define(&w, 0, "@every 10s");
    world_lead(&w);
    world_run_until(&w, (T0 + 3600) * 1000);
    assert_int_equal(s->count, 360);
    for (size_t i = 0; i < s->count; i++) {
        assert_int_equal(s->outcomes[i].first_s, T0 + 10 * (int64_t) (i + 1));
        assert_int_equal(s->outcomes[i].at_ms, s->outcomes[i].first_s * 1000);
        assert_int_equal(s->outcomes[i].reason, CHRONOS__V1__TICK_REASON__TICK_REASON_ON_TIME);
    }
    assert_int_equal(w.causes[TICKER_ON_TIME], 360);
    world_done(&w);
}

/* Goal: the three missed policies (C11), with the window. Method: 2 h without a leader, a tick a
 * minute, window 1 h; every line of the record is written down. */
static void test_missed_policies(void **state) {
    static const int policies[] = {CHRONOS__V1__MISSED_POLICY__MISSED_POLICY_ONCE,
                                   CHRONOS__V1__MISSED_POLICY__MISSED_POLICY_SKIP,
                                   CHRONOS__V1__MISSED_POLICY__MISSED_POLICY_ALL};

    (void) state;
    for (size_t p = 0; p < 3; p++) {
        struct world w;
        struct schedule *s;
        int64_t base = T0 - T0 % 60 + 30;

        world_init(&w, 1);
        s = &w.schedules[0];
        s->spec.missed = (Chronos__V1__MissedPolicy) policies[p];
        s->state.watermark_s = base;
        world_define(&w, 0, "* * * * *");
        w.now_ms = (base + 7200) * 1000; /* 120 ticks, the newest 30 s old */
        world_lead(&w);
        world_run_until(&w, w.now_ms + 29000);
        assert_int_equal(world_not_run(s, CHRONOS__V1__TICK_REASON__TICK_REASON_WINDOW), 60);
        assert_int_equal(s->outcomes[0].count, 60);
        assert_int_equal(world_ran(s), p == 0 ? 1 : p == 1 ? 0 : 60);
        assert_int_equal(world_not_run(s, CHRONOS__V1__TICK_REASON__TICK_REASON_MISSED), p == 0 ? 59
                                                                                         : p == 1
                                                                                             ? 60
                                                                                             : 0);
        if (p == 0) /* the newest one */
            assert_int_equal(s->outcomes[s->count - 1].first_s, base + 7200 - 30);
        if (p == 0)
            assert_int_equal(s->outcomes[s->count - 1].reason,
                             CHRONOS__V1__TICK_REASON__TICK_REASON_FAILOVER);
        if (p == 2)
            assert_int_equal(s->outcomes[1].reason, CHRONOS__V1__TICK_REASON__TICK_REASON_CATCH_UP);
        assert_int_equal(s->state.watermark_s, base + 7200 - 30);
        world_done(&w);
    }
}

/* Goal: `all` runs 1,000 at most, oldest first, ten a second at most; the rest is CAP; and once it
 * has caught up it is on time again. Method: 3,000 missed ticks, a window that holds them all. */
static void test_all_rate_and_cap(void **state) {
    struct world w;
    struct schedule *s;
    int64_t began;

    (void) state;
    world_init(&w, 1);
    s = &w.schedules[0];
    s->spec.missed = CHRONOS__V1__MISSED_POLICY__MISSED_POLICY_ALL;
    s->spec.catchup_window_ms = 24LL * 3600 * 1000;
    world_define(&w, 0, "@every 5s");
    w.now_ms = began = (T0 + 15000) * 1000;
    world_lead(&w);
    world_run_until(&w, began + 200000);
    assert_int_equal(world_not_run(s, CHRONOS__V1__TICK_REASON__TICK_REASON_CAP), 2000);
    for (size_t i = 0; i < 1000; i++) {
        assert_true(RAN(s->outcomes[i].reason));
        assert_int_equal(s->outcomes[i].first_s, T0 + 5 * (int64_t) (i + 1));
        if (i >= TICKER_RATE_MAX)
            assert_true(s->outcomes[i].at_ms - s->outcomes[i - TICKER_RATE_MAX].at_ms >= 1000);
    }
    assert_int_equal(s->outcomes[1000].count, 2000);
    /* The twenty that came while the first 1,000 ran were late as well and ran; then on time. */
    assert_int_equal(world_ran(s), 1000 + 40);
    assert_int_equal(s->outcomes[s->count - 1].reason,
                     CHRONOS__V1__TICK_REASON__TICK_REASON_ON_TIME);
    assert_int_equal(s->state.watermark_s, T0 + 15000 + 200);
    assert_true(w.causes[TICKER_LIMIT] >= 990);
    world_done(&w);
}

/* Goal: a million missed ticks cost one second and one line (J6). Method: count searches and plans;
 * the time is printed, and asserted with a wide margin. */
static void test_million_missed(void **state) {
    static const char *const cron[] = {"* * * * * *", "@every 1s"};

    (void) state;
    for (size_t k = 0; k < 2; k++) {
        struct world w;
        struct schedule *s;
        struct ticker_stats st;
        size_t plans, bytes;
        clock_t began;
        double took;

        world_init(&w, 2);
        s = &w.schedules[0];
        world_define(&w, 0, cron[k]);
        world_define(&w, 1, "@every 10s");
        ticker_stats(w.t, &st);
        bytes = st.bytes;
        w.now_ms = (T0 + 1000000) * 1000;
        world_lead(&w);
        began = clock();
        plans = world_run(&w);
        took = (double) (clock() - began) / CLOCKS_PER_SEC;
        ticker_stats(w.t, &st);
        print_message("a million missed ticks of %s: %.3f s CPU, %zu plans, %llu searches\n",
                      cron[k], took, plans, (unsigned long long) st.steps);
        assert_true(took < 10);
        assert_true(st.steps < 1200000);
        assert_true(s->count <= 8);
        assert_int_equal(world_not_run(s, CHRONOS__V1__TICK_REASON__TICK_REASON_WINDOW) +
                             world_not_run(s, CHRONOS__V1__TICK_REASON__TICK_REASON_MISSED) +
                             world_ran(s),
                         1000000);
        assert_true(st.bytes < bytes + 4096);
        world_run_until(&w, w.now_ms + 10000);
        ticker_stats(w.t, &st);
        assert_int_equal(st.catching_up, 0);
        /* The other one did not have to wait for it. */
        assert_true(w.schedules[1].count > 0);
        world_done(&w);
    }
}

/* Goal: what is planned and lost is planned again, not at once, and nothing is lost or doubled.
 * Method: lose a plan; lose leadership with a plan under way whose entry is applied afterwards. */
static void test_lost_plans(void **state) {
    struct world w;
    struct schedule *s;
    Chronos__Internal__V1__ScheduleTicks **items = NULL;
    size_t n = 0;
    uint64_t id = 0;

    (void) state;
    world_init(&w, 1);
    s = &w.schedules[0];
    world_define(&w, 0, "@every 10s");
    world_lead(&w);
    w.now_ms += 10000;
    assert_int_equal(world_plan_once(&w, true), 1);
    assert_int_equal(ticker_next_due_ms(w.t), w.now_ms + 1000);
    world_run_until(&w, w.now_ms + 1000);
    assert_int_equal(s->count, 1);

    w.now_ms = (T0 + 20) * 1000;
    arena_clear(&w.arena);
    assert_int_equal(ticker_plan(w.t, (struct wall){w.now_ms}, &w.arena, &items, &n, &id), 0);
    assert_int_equal(n, 1);
    assert_true(ticker_next_due_ms(w.t) > w.now_ms); /* one plan at a time for a schedule */
    world_lead(&w);
    assert_int_equal(world_plan_once(&w, false), 1);
    world_apply(&w, items[0]); /* the old one comes after all */
    ticker_plan_done(w.t, id, (struct wall){w.now_ms}, world_on_cause, &w);
    assert_int_equal(s->count, 2);
    world_run_until(&w, (T0 + 30) * 1000);
    assert_int_equal(s->count, 3);
    world_done(&w);
}

/* Goal: a clock that was an hour ahead and is set back holds nothing back: neither a catch-up of
 * all in its rate, nor a schedule whose plan was lost; nothing is doubled. Method: both happen
 * while it is ahead; afterwards all must be planned within a second of its time. */
static void test_clock_back(void **state) {
    int64_t right_ms;
    struct world w;

    (void) state;
    world_init(&w, 2);
    w.schedules[0].spec.missed = CHRONOS__V1__MISSED_POLICY__MISSED_POLICY_ALL;
    w.schedules[0].spec.catchup_window_ms = 24LL * 3600 * 1000;
    world_define(&w, 0, "@every 30s");
    world_define(&w, 1, "@every 30s");
    world_lead(&w);
    right_ms = (T0 + 40) * 1000;
    w.now_ms = right_ms + 3600000;
    ticker_remove(w.t, 2);
    assert_int_equal(world_plan_once(&w, false), 1); /* ten of them */
    world_put(&w, 1);
    assert_int_equal(world_plan_once(&w, true), 1);
    assert_int_equal(w.schedules[0].state.watermark_s, T0 + 280);
    w.now_ms = right_ms;
    ticker_clock_back(w.t, (struct wall){w.now_ms});
    assert_true(ticker_next_due_ms(w.t) <= right_ms + 1000);
    world_run_until(&w, right_ms + 1000);
    assert_int_equal(w.schedules[1].state.watermark_s, T0 + 40);
    world_run_until(&w, (T0 + 600) * 1000);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(world_ran(&w.schedules[i]), 20);
        assert_int_equal(w.schedules[i].state.watermark_s, T0 + 580);
    }
    world_done(&w);
}

/* Goal: an edit with a new generation begins at its watermark; a plan of the old one changes
 * nothing (J27). A removed schedule is gone, also from plans. */
static void test_edit_and_remove(void **state) {
    struct world w;
    struct schedule *s;
    Chronos__Internal__V1__ScheduleTicks **items = NULL;
    size_t n = 0;
    uint64_t id = 0;

    (void) state;
    world_init(&w, 1);
    s = &w.schedules[0];
    world_define(&w, 0, "@every 10s");
    world_lead(&w);
    w.now_ms += 10000;
    assert_int_equal(ticker_plan(w.t, (struct wall){w.now_ms}, &w.arena, &items, &n, &id), 0);
    s->generation = 2;
    s->state.watermark_s = w.now_ms / 1000 + 1;
    world_define(&w, 0, "@every 7s");
    world_apply(&w, items[0]);
    ticker_plan_done(w.t, id, (struct wall){w.now_ms}, world_on_cause, &w);
    assert_int_equal(s->count, 0);
    world_run_until(&w, w.now_ms + 60000);
    assert_int_equal(s->count, (T0 + 70) / 7 - (T0 + 11) / 7);

    w.now_ms = ticker_next_due_ms(w.t);
    assert_int_equal(ticker_plan(w.t, (struct wall){w.now_ms}, &w.arena, &items, &n, &id), 0);
    assert_int_equal(n, 1);
    ticker_remove(w.t, s->seq);
    ticker_plan_done(w.t, id, (struct wall){w.now_ms}, world_on_cause, &w);
    assert_int_equal(ticker_next_due_ms(w.t), INT64_MAX);
    ticker_remove(w.t, s->seq);
    assert_int_equal(ticker_update(w.t, s->seq, &s->state), 0);
    world_done(&w);
}

/* Goal: delays move the start, by the same amount on every node, within their bounds (C15); a
 * thousand schedules of one minute are spread over it. */
static void test_delays(void **state) {
    struct world a, b;
    size_t firsts = 0, moved = 0;

    (void) state;
    world_init(&a, 1000);
    world_init(&b, 1000);
    for (size_t i = 0; i < 1000; i++) {
        a.schedules[i].spec.spread_ms = b.schedules[i].spec.spread_ms = 600000;
        a.schedules[i].spec.jitter_ms = b.schedules[i].spec.jitter_ms = 30000;
    }
    for (size_t i = 0; i < 1000; i++) {
        world_define(&a, i, "@every 1h");
        world_define(&b, 999 - i, "@every 1h");
    }
    world_lead(&a);
    world_lead(&b);
    world_run_until(&a, (T0 + 3 * 3600) * 1000);
    world_run_until(&b, (T0 + 3 * 3600) * 1000);
    for (size_t i = 0; i < 1000; i++) {
        const struct schedule *s = &a.schedules[i];

        assert_true(s->count >= 2);
        assert_int_equal(s->count, b.schedules[i].count);
        for (size_t k = 0; k < s->count; k++) {
            int64_t delay = s->outcomes[k].at_ms - s->outcomes[k].first_s * 1000;

            assert_int_equal(s->outcomes[k].first_s % 3600, 0);
            assert_true(delay >= 0 && delay < 630000);
            assert_int_equal(s->outcomes[k].at_ms, b.schedules[i].outcomes[k].at_ms);
            firsts += delay < 300000 ? 1 : 0;
            moved += k > 0 && delay != s->outcomes[k - 1].at_ms - s->outcomes[k - 1].first_s * 1000
                         ? 1
                         : 0;
        }
    }
    assert_true(firsts > 900 && firsts < 2400); /* of 2,000 to 3,000: about half */
    assert_true(moved > 900);
    world_done(&a);
    world_done(&b);
}

/* Goal: exclusions, bounds, several expressions; an exclusion of everything costs bounded steps. */
static void test_timetable(void **state) {
    struct world w;
    struct schedule *s;
    struct ticker_stats st;
    int64_t day = T0 - T0 % 86400 + 86400;

    (void) state;
    world_init(&w, 2);
    s = &w.schedules[0];
    s->state.watermark_s = day - 1;
    w.now_ms = s->state.watermark_s * 1000;
    s->exclude[0] = (char *) (uintptr_t) "* 9-16 * * *";
    s->spec.n_exclude = 1;
    s->spec.start_ms = (day + 2 * 3600) * 1000 + 1; /* not at 02:00 */
    s->spec.end_ms = (day + 20 * 3600) * 1000;      /* not at 20:00 */
    s->cron[1] = (char *) (uintptr_t) "30 */2 * * *";
    s->cron[2] = (char *) (uintptr_t) "0 */6 * * *"; /* coincides: fires once */
    s->cron[0] = (char *) (uintptr_t) "0 * * * *";
    s->spec.n_cron = 3;
    world_put(&w, 0);
    w.schedules[1].exclude[0] = (char *) (uintptr_t) "* * * * *";
    w.schedules[1].spec.n_exclude = 1;
    world_define(&w, 1, "* * * * * *");
    world_lead(&w);
    world_run_until(&w, (day + 86400) * 1000);
    /* 03..08 and 17..19 on the hour; 02:30 04:30 06:30 08:30 18:30 */
    assert_int_equal(s->count, 6 + 3 + 5);
    assert_int_equal(s->outcomes[0].first_s, day + 2 * 3600 + 1800);
    assert_int_equal(w.schedules[1].count, 0);
    ticker_stats(w.t, &st);
    assert_true(st.steps < 10000);
    world_done(&w);
}

/* Goal: a zone that cannot be read is an alarm on its schedules and stops nobody else; once it can
 * be read, they fire again and the alarm ends. */
static void test_zone_trouble(void **state) {
    struct world w;
    struct schedule *s;
    uint64_t seq = 0;
    const char *text = NULL;
    int64_t hour;

    (void) state;
    world_init(&w, 3);
    s = &w.schedules[0];
    for (size_t i = 0; i < 2; i++)
        w.schedules[i].spec.time_zone = (char *) (uintptr_t) "Europe/Berlin";
    world_define(&w, 0, "0 3 * * *");
    world_define(&w, 1, "0 4 * * *");
    world_define(&w, 2, "0 3 * * *");
    world_lead(&w);
    assert_false(ticker_next_alarm(w.t, &seq, &text));
    world_run_until(&w, (T0 + 86400) * 1000);
    assert_int_equal(s->count, 1);
    hour = s->outcomes[0].first_s % 86400;
    assert_int_equal(hour, 3600); /* summer: 03:00 is 01:00 UTC */

    w.fake[0].rule = NULL;
    assert_int_equal(zones_refresh(w.zones), 1);
    ticker_zones_changed(w.t);
    while (ticker_refresh(w.t) > 0)
        continue;
    for (int i = 0; i < 2; i++) {
        assert_true(ticker_next_alarm(w.t, &seq, &text));
        assert_true(seq == 1 || seq == 2);
        assert_non_null(strstr(text, "time zone Europe/Berlin: no such file"));
        w.schedules[seq - 1].state.alarmed = true;
        assert_int_equal(ticker_update(w.t, seq, &w.schedules[seq - 1].state), 0);
        ticker_alarm_done(w.t, seq);
    }
    assert_false(ticker_next_alarm(w.t, &seq, &text));
    world_run_until(&w, (T0 + 3 * 86400) * 1000);
    assert_int_equal(s->count, 1);
    assert_int_equal(w.schedules[2].count, 3);

    w.fake[0].rule = FAKE_BERLIN;
    w.fake[0].replaced++;
    assert_int_equal(zones_refresh(w.zones), 1);
    assert_int_equal(zones_refresh(w.zones), 0);
    ticker_zones_changed(w.t);
    while (ticker_refresh(w.t) > 0)
        continue;
    world_run_until(&w, (T0 + 4 * 86400) * 1000);
    assert_int_equal(s->state.watermark_s % 86400, 3600);
    assert_true(s->state.watermark_s > T0 + 3 * 86400);
    for (int i = 0; i < 2; i++) {
        assert_true(ticker_next_alarm(w.t, &seq, &text));
        assert_string_equal(text, "");
        w.schedules[seq - 1].state.alarmed = false;
        assert_int_equal(ticker_update(w.t, seq, &w.schedules[seq - 1].state), 0);
        ticker_alarm_done(w.t, seq);
    }
    assert_false(ticker_next_alarm(w.t, &seq, &text));
    world_done(&w);
}

/* Goal: a stored definition that does not compile is an alarm, not the end. */
static void test_refused_definition(void **state) {
    struct world w;
    uint64_t seq = 0;
    const char *text = NULL;

    (void) state;
    world_init(&w, 2);
    world_define(&w, 0, "61 * * * *");
    world_define(&w, 1, "* * * * *");
    world_lead(&w);
    world_run_until(&w, (T0 + 600) * 1000);
    assert_int_equal(w.schedules[0].count, 0);
    assert_int_equal(w.schedules[1].count, 10);
    assert_true(ticker_next_alarm(w.t, &seq, &text));
    assert_int_equal(seq, 1);
    assert_non_null(strstr(text, "cron[0]: "));
    assert_false(ticker_next_alarm(w.t, &seq, &text));
    world_lead(&w); /* a new leader tells it anew */
    assert_true(ticker_next_alarm(w.t, &seq, &text));
    w.schedules[0].state.alarmed = true;
    assert_int_equal(ticker_update(w.t, 1, &w.schedules[0].state), 0);
    ticker_alarm_done(w.t, 1);
    assert_false(ticker_next_alarm(w.t, &seq, &text));
    world_define(&w, 0, "1 * * * *");
    assert_true(ticker_next_alarm(w.t, &seq, &text));
    assert_string_equal(text, "");
    world_done(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_on_time),
        cmocka_unit_test(test_missed_policies),
        cmocka_unit_test(test_all_rate_and_cap),
        cmocka_unit_test(test_million_missed),
        cmocka_unit_test(test_clock_back),
        cmocka_unit_test(test_lost_plans),
        cmocka_unit_test(test_edit_and_remove),
        cmocka_unit_test(test_delays),
        cmocka_unit_test(test_timetable),
        cmocka_unit_test(test_zone_trouble),
        cmocka_unit_test(test_refused_definition),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
