#include "sched/ticker.h"

#include "base/rand.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#define T0 1790000000LL /* a second in 2026 */
#define RAN(reason) ((reason) < CHRONOS__V1__TICK_REASON__TICK_REASON_WINDOW)

/* ---- a world: a ticker, the state machine's part of the work, and what was recorded -----------
 */

struct outcome {
    int64_t first_s, last_s;
    uint64_t count;
    Chronos__V1__TickReason reason;
    int64_t at_ms;
};

struct schedule {
    Chronos__V1__ScheduleSpec spec;
    char *cron[4], *exclude[2];
    char name[32];
    uint64_t seq, generation;
    struct ticker_state state;
    struct outcome *outcomes;
    size_t count, cap;
};

struct world {
    struct zones *zones;
    struct ticker *t;
    struct arena arena;
    struct schedule *schedules;
    size_t n;
    int64_t now_ms;
    const char *berlin_rule; /* what the zone file holds; NULL = none */
    uint64_t stamp;
    uint64_t causes[TICKER_CAUSES];
    int64_t lateness_max_ms[TICKER_CAUSES];
};

static int zone_bytes(void *ctx, const char *name, struct bytes **ret, uint64_t *ret_stamp,
                      struct errtext *reterr) {
    struct world *w = ctx;

    if (strcmp(name, "Europe/Berlin") != 0 || !w->berlin_rule) {
        errtext_set(reterr, "no such file");
        return -2;
    }
    *ret = zones_synthetic(w->berlin_rule);
    *ret_stamp = w->stamp;
    return 0;
}

static uint64_t zone_stamp(void *ctx, const char *name) {
    struct world *w = ctx;

    return strcmp(name, "Europe/Berlin") == 0 && w->berlin_rule ? w->stamp : 0;
}

static const char *zone_version(void *ctx) {
    (void) ctx;
    return "2026b";
}

static void world_init(struct world *w, size_t n) {
    struct env_zones env = {zone_bytes, zone_stamp, zone_version, w};

    *w = (struct world){.n = n, .now_ms = T0 * 1000, .stamp = 1};
    w->berlin_rule = "CET-1CEST,M3.5.0,M10.5.0/3";
    arena_init(&w->arena, 64UL << 20);
    assert_int_equal(zones_new(&env, &w->zones), 0);
    assert_int_equal(ticker_new(w->zones, &w->t), 0);
    w->schedules = calloc(n, sizeof(*w->schedules));
    for (size_t i = 0; i < n; i++) {
        struct schedule *s = &w->schedules[i];

        chronos__v1__schedule_spec__init(&s->spec);
        (void) snprintf(s->name, sizeof(s->name), "s%zu", i);
        s->spec.name = s->name;
        s->spec.cron = s->cron;
        s->spec.exclude = s->exclude;
        s->seq = i + 1;
        s->generation = 1;
        s->state.watermark_s = T0;
    }
}

static void world_done(struct world *w) {
    (void) ticker_free(w->t);
    (void) zones_free(w->zones);
    arena_done(&w->arena);
    for (size_t i = 0; i < w->n; i++)
        free(w->schedules[i].outcomes);
    free(w->schedules);
}

static void put(struct world *w, size_t i) {
    struct schedule *s = &w->schedules[i];
    struct ticker_definition d = {
        .seq = s->seq, .generation = s->generation, .spec = &s->spec, .state = s->state};

    assert_int_equal(ticker_put(w->t, &d), 0);
}

static void define(struct world *w, size_t i, const char *cron) {
    w->schedules[i].cron[0] = (char *) (uintptr_t) cron;
    w->schedules[i].spec.n_cron = 1;
    put(w, i);
}

static void record(struct world *w, struct schedule *s,
                   const Chronos__Internal__V1__DecidedTick *x) {
    int64_t last = x->last_tick_s ? x->last_tick_s : x->tick_s;

    assert_true(x->tick_s > s->state.watermark_s);
    assert_true(last >= x->tick_s);
    assert_true(last * 1000 <= w->now_ms); /* J7: none before its time */
    if (RAN(x->reason))
        assert_true(last == x->tick_s && x->count <= 1);
    if (s->count == s->cap) {
        s->cap = s->cap ? 2 * s->cap : 16;
        s->outcomes = realloc(s->outcomes, s->cap * sizeof(*s->outcomes));
        assert_non_null(s->outcomes);
    }
    s->outcomes[s->count++] = (struct outcome){.first_s = x->tick_s,
                                               .last_s = last,
                                               .count = x->count ? x->count : 1,
                                               .reason = x->reason,
                                               .at_ms = w->now_ms};
    s->state.watermark_s = last;
}

/* What the state machine does with an item. */
static void apply(struct world *w, const Chronos__Internal__V1__ScheduleTicks *item) {
    struct schedule *s = &w->schedules[item->schedule_seq - 1];

    if (item->generation != s->generation || item->watermark_s <= s->state.watermark_s)
        return;
    for (size_t i = 0; i < item->n_ticks; i++)
        if (item->ticks[i]->tick_s > s->state.watermark_s)
            record(w, s, item->ticks[i]);
    assert_int_equal(item->watermark_s, s->state.watermark_s);
    assert_int_equal(ticker_update(w->t, s->seq, &s->state), 0);
}

static void on_cause(void *arg, enum ticker_cause cause, int64_t due_ms) {
    struct world *w = arg;

    assert_true(cause < TICKER_CAUSES);
    assert_true(due_ms <= w->now_ms);
    w->causes[cause]++;
    w->lateness_max_ms[cause] = MAX(w->lateness_max_ms[cause], w->now_ms - due_ms);
}

/* One plan, applied at once unless @lose. Returns the number of its items. */
static size_t plan_once(struct world *w, bool lose) {
    Chronos__Internal__V1__ScheduleTicks **items = NULL;
    size_t n = 0, ticks = 0;
    uint64_t id = 0;

    arena_clear(&w->arena);
    assert_int_equal(ticker_plan(w->t, (struct wall){w->now_ms}, &w->arena, &items, &n, &id), 0);
    assert_true(n <= TICKER_ITEMS_MAX);
    for (size_t i = 0; i < n; i++) {
        ticks += items[i]->n_ticks;
        if (!lose)
            apply(w, items[i]);
    }
    assert_true(ticks <= TICKER_TICKS_MAX);
    if (n > 0)
        ticker_plan_done(w->t, id, (struct wall){w->now_ms}, on_cause, w);
    return n;
}

/* All that is due; returns the number of plans. */
static size_t run(struct world *w) {
    size_t plans = 0;

    while (ticker_next_due_ms(w->t) <= w->now_ms) {
        (void) plan_once(w, false);
        assert_true(++plans < 100000); /* it must come to an end */
    }
    return plans;
}

/* Let time pass as a node does: plans happen when they are due. */
static void run_until(struct world *w, int64_t end_ms) {
    while (ticker_next_due_ms(w->t) <= end_ms) {
        w->now_ms = MAX(w->now_ms, ticker_next_due_ms(w->t));
        (void) run(w);
    }
    w->now_ms = end_ms;
}

static void lead(struct world *w) {
    ticker_reset(w->t, (struct wall){w->now_ms});
}

static uint64_t ran(const struct schedule *s) {
    uint64_t n = 0;

    for (size_t i = 0; i < s->count; i++)
        n += RAN(s->outcomes[i].reason) ? 1 : 0;
    return n;
}

static uint64_t not_run(const struct schedule *s, Chronos__V1__TickReason reason) {
    uint64_t n = 0;

    for (size_t i = 0; i < s->count; i++)
        n += s->outcomes[i].reason == reason ? s->outcomes[i].count : 0;
    return n;
}

/* ---- tests ------------------------------------------------------------------------------------
 */

/* Goal: on time, each tick once and at its very millisecond. Method: an hour of one schedule. */
static void test_on_time(void **state) {
    struct world w;
    struct schedule *s;

    (void) state;
    world_init(&w, 1);
    s = &w.schedules[0];
    define(&w, 0, "@every 10s");
    lead(&w);
    run_until(&w, (T0 + 3600) * 1000);
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
        define(&w, 0, "* * * * *");
        w.now_ms = (base + 7200) * 1000; /* 120 ticks, the newest 30 s old */
        lead(&w);
        run_until(&w, w.now_ms + 29000);
        assert_int_equal(not_run(s, CHRONOS__V1__TICK_REASON__TICK_REASON_WINDOW), 60);
        assert_int_equal(s->outcomes[0].count, 60);
        assert_int_equal(ran(s), p == 0 ? 1 : p == 1 ? 0 : 60);
        assert_int_equal(not_run(s, CHRONOS__V1__TICK_REASON__TICK_REASON_MISSED), p == 0   ? 59
                                                                                   : p == 1 ? 60
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
    define(&w, 0, "@every 5s");
    w.now_ms = began = (T0 + 15000) * 1000;
    lead(&w);
    run_until(&w, began + 200000);
    assert_int_equal(not_run(s, CHRONOS__V1__TICK_REASON__TICK_REASON_CAP), 2000);
    for (size_t i = 0; i < 1000; i++) {
        assert_true(RAN(s->outcomes[i].reason));
        assert_int_equal(s->outcomes[i].first_s, T0 + 5 * (int64_t) (i + 1));
        if (i >= TICKER_RATE_MAX)
            assert_true(s->outcomes[i].at_ms - s->outcomes[i - TICKER_RATE_MAX].at_ms >= 1000);
    }
    assert_int_equal(s->outcomes[1000].count, 2000);
    /* The twenty that came while the first 1,000 ran were late as well and ran; then on time. */
    assert_int_equal(ran(s), 1000 + 40);
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
        define(&w, 0, cron[k]);
        define(&w, 1, "@every 10s");
        ticker_stats(w.t, &st);
        bytes = st.bytes;
        w.now_ms = (T0 + 1000000) * 1000;
        lead(&w);
        began = clock();
        plans = run(&w);
        took = (double) (clock() - began) / CLOCKS_PER_SEC;
        ticker_stats(w.t, &st);
        print_message("a million missed ticks of %s: %.3f s CPU, %zu plans, %llu searches\n",
                      cron[k], took, plans, (unsigned long long) st.steps);
        assert_true(took < 10);
        assert_true(st.steps < 1200000);
        assert_true(s->count <= 8);
        assert_int_equal(not_run(s, CHRONOS__V1__TICK_REASON__TICK_REASON_WINDOW) +
                             not_run(s, CHRONOS__V1__TICK_REASON__TICK_REASON_MISSED) + ran(s),
                         1000000);
        assert_true(st.bytes < bytes + 4096);
        run_until(&w, w.now_ms + 10000);
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
    define(&w, 0, "@every 10s");
    lead(&w);
    w.now_ms += 10000;
    assert_int_equal(plan_once(&w, true), 1);
    assert_int_equal(ticker_next_due_ms(w.t), w.now_ms + 1000);
    run_until(&w, w.now_ms + 1000);
    assert_int_equal(s->count, 1);

    w.now_ms = (T0 + 20) * 1000;
    arena_clear(&w.arena);
    assert_int_equal(ticker_plan(w.t, (struct wall){w.now_ms}, &w.arena, &items, &n, &id), 0);
    assert_int_equal(n, 1);
    assert_true(ticker_next_due_ms(w.t) > w.now_ms); /* one plan at a time for a schedule */
    lead(&w);
    assert_int_equal(plan_once(&w, false), 1);
    apply(&w, items[0]); /* the old one comes after all */
    ticker_plan_done(w.t, id, (struct wall){w.now_ms}, on_cause, &w);
    assert_int_equal(s->count, 2);
    run_until(&w, (T0 + 30) * 1000);
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
    define(&w, 0, "@every 30s");
    define(&w, 1, "@every 30s");
    lead(&w);
    right_ms = (T0 + 40) * 1000;
    w.now_ms = right_ms + 3600000;
    ticker_remove(w.t, 2);
    assert_int_equal(plan_once(&w, false), 1); /* ten of them */
    put(&w, 1);
    assert_int_equal(plan_once(&w, true), 1);
    assert_int_equal(w.schedules[0].state.watermark_s, T0 + 280);
    w.now_ms = right_ms;
    ticker_clock_back(w.t, (struct wall){w.now_ms});
    assert_true(ticker_next_due_ms(w.t) <= right_ms + 1000);
    run_until(&w, right_ms + 1000);
    assert_int_equal(w.schedules[1].state.watermark_s, T0 + 40);
    run_until(&w, (T0 + 600) * 1000);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(ran(&w.schedules[i]), 20);
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
    define(&w, 0, "@every 10s");
    lead(&w);
    w.now_ms += 10000;
    assert_int_equal(ticker_plan(w.t, (struct wall){w.now_ms}, &w.arena, &items, &n, &id), 0);
    s->generation = 2;
    s->state.watermark_s = w.now_ms / 1000 + 1;
    define(&w, 0, "@every 7s");
    apply(&w, items[0]);
    ticker_plan_done(w.t, id, (struct wall){w.now_ms}, on_cause, &w);
    assert_int_equal(s->count, 0);
    run_until(&w, w.now_ms + 60000);
    assert_int_equal(s->count, (T0 + 70) / 7 - (T0 + 11) / 7);

    w.now_ms = ticker_next_due_ms(w.t);
    assert_int_equal(ticker_plan(w.t, (struct wall){w.now_ms}, &w.arena, &items, &n, &id), 0);
    assert_int_equal(n, 1);
    ticker_remove(w.t, s->seq);
    ticker_plan_done(w.t, id, (struct wall){w.now_ms}, on_cause, &w);
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
        define(&a, i, "@every 1h");
        define(&b, 999 - i, "@every 1h");
    }
    lead(&a);
    lead(&b);
    run_until(&a, (T0 + 3 * 3600) * 1000);
    run_until(&b, (T0 + 3 * 3600) * 1000);
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
    put(&w, 0);
    w.schedules[1].exclude[0] = (char *) (uintptr_t) "* * * * *";
    w.schedules[1].spec.n_exclude = 1;
    define(&w, 1, "* * * * * *");
    lead(&w);
    run_until(&w, (day + 86400) * 1000);
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
    define(&w, 0, "0 3 * * *");
    define(&w, 1, "0 4 * * *");
    define(&w, 2, "0 3 * * *");
    lead(&w);
    assert_false(ticker_next_alarm(w.t, &seq, &text));
    run_until(&w, (T0 + 86400) * 1000);
    assert_int_equal(s->count, 1);
    hour = s->outcomes[0].first_s % 86400;
    assert_int_equal(hour, 3600); /* summer: 03:00 is 01:00 UTC */

    w.berlin_rule = NULL;
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
    run_until(&w, (T0 + 3 * 86400) * 1000);
    assert_int_equal(s->count, 1);
    assert_int_equal(w.schedules[2].count, 3);

    w.berlin_rule = "CET-1CEST,M3.5.0,M10.5.0/3";
    w.stamp++;
    assert_int_equal(zones_refresh(w.zones), 1);
    assert_int_equal(zones_refresh(w.zones), 0);
    ticker_zones_changed(w.t);
    while (ticker_refresh(w.t) > 0)
        continue;
    run_until(&w, (T0 + 4 * 86400) * 1000);
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
    define(&w, 0, "61 * * * *");
    define(&w, 1, "* * * * *");
    lead(&w);
    run_until(&w, (T0 + 600) * 1000);
    assert_int_equal(w.schedules[0].count, 0);
    assert_int_equal(w.schedules[1].count, 10);
    assert_true(ticker_next_alarm(w.t, &seq, &text));
    assert_int_equal(seq, 1);
    assert_non_null(strstr(text, "cron[0]: "));
    assert_false(ticker_next_alarm(w.t, &seq, &text));
    lead(&w); /* a new leader tells it anew */
    assert_true(ticker_next_alarm(w.t, &seq, &text));
    w.schedules[0].state.alarmed = true;
    assert_int_equal(ticker_update(w.t, 1, &w.schedules[0].state), 0);
    ticker_alarm_done(w.t, 1);
    assert_false(ticker_next_alarm(w.t, &seq, &text));
    define(&w, 0, "1 * * * *");
    assert_true(ticker_next_alarm(w.t, &seq, &text));
    assert_string_equal(text, "");
    world_done(&w);
}

/* ---- the oracle -------------------------------------------------------------------------------
 */

/* The ticks of @s in (@from, @until], one by one. */
static void check_complete(struct world *w, struct schedule *s, uint64_t seed) {
    struct timetable *tt = NULL;
    int64_t at = T0;

    assert_int_equal(timetable_new(&s->spec, w->zones, &tt, NULL), 0);
    for (size_t i = 0; i < s->count; i++) {
        const struct outcome *o = &s->outcomes[i];

        for (uint64_t k = 0; k < o->count; k++) {
            int64_t next = timetable_next_tick(tt, at, CRON_NEVER - 1);

            if (k == 0 && next != o->first_s)
                fail_msg("seed %llu, %s (%s): tick %lld has no outcome; the next one is of %lld",
                         (unsigned long long) seed, s->name, s->cron[0], (long long) next,
                         (long long) o->first_s);
            at = next;
        }
        if (at != o->last_s)
            fail_msg("seed %llu, %s (%s): a range counts wrongly", (unsigned long long) seed,
                     s->name, s->cron[0]);
    }
    /* And what is due has its outcome. */
    at = timetable_next_tick(tt, at, w->now_ms / 1000);
    if (at != CRON_NEVER && s->spec.missed != CHRONOS__V1__MISSED_POLICY__MISSED_POLICY_ALL)
        assert_true(at * 1000 + timetable_delay_ms(tt, timetable_name_hash(s->name), at) >
                    w->now_ms);
    (void) timetable_unref(tt);
}

/* Goal: whatever happens, every tick has exactly one outcome, none before its time, and while there
 * is a leader with a steady clock none late.
 * Method: random schedules; leaders come and go, plans get lost or arrive late, clocks step to and
 * fro; then the record is compared with a plain enumeration of the ticks. */
static void random_walk(uint64_t seed) {
    static const char *const cron[] = {
        "@every 1s",  "@every 7s/3s", "*/5 * * * * *", "* * * * *", "H/3 * * * *",
        "30 2 * * *", "@hourly",      "0 0 1 1 *",     "@manual",   "15,45 8-18 * * mon-fri"};
    struct rng r = rng_seed(seed);
    struct world w;
    int64_t highest;

    world_init(&w, 12);
    highest = w.now_ms;
    for (size_t i = 0; i < w.n; i++) {
        struct schedule *s = &w.schedules[i];

        s->spec.missed = (Chronos__V1__MissedPolicy) rng_below(&r, 3);
        s->spec.dst = (Chronos__V1__DstPolicy) rng_below(&r, 3);
        s->spec.catchup_window_ms = (int64_t) rng_below(&r, 3) * 600000;
        s->spec.time_zone = (char *) (uintptr_t) (rng_below(&r, 2) ? "Europe/Berlin" : "");
        s->exclude[0] = (char *) (uintptr_t) "10-20 * * * *";
        s->spec.n_exclude = rng_below(&r, 3) == 0;
        if (rng_below(&r, 3) == 0)
            s->spec.jitter_ms = 900;
        define(&w, i, cron[rng_below(&r, ARRAY_LEN(cron))]);
    }
    lead(&w);
    for (int step = 0; step < 300; step++) {
        switch (rng_below(&r, 10)) {
        case 0: /* nobody leads for a while */
            w.now_ms += (int64_t) rng_below(&r, rng_below(&r, 4) ? 20000 : 20000000);
            lead(&w);
            break;
        case 1: /* the clock steps */
            w.now_ms += (int64_t) rng_below(&r, 600000) - 300000;
            break;
        case 2:
            (void) plan_once(&w, true);
            break;
        case 3: /* another leader's clock */
            w.now_ms += (int64_t) rng_below(&r, 4000) - 2000;
            lead(&w);
            break;
        default:
            run_until(&w, w.now_ms + (int64_t) rng_below(&r, 60000));
            break;
        }
        highest = MAX(highest, w.now_ms);
    }
    w.now_ms = highest;
    run_until(&w, highest + 200000);
    for (size_t i = 0; i < w.n; i++)
        check_complete(&w, &w.schedules[i], seed);
    world_done(&w);
}

static void test_random_walks(void **state) {
    const char *one = getenv("SEED");
    uint64_t seed = one ? strtoull(one, NULL, 10) : (uint64_t) time(NULL) * 1000;

    (void) state;
    print_message("seeds from %llu (SEED=n replays one)\n", (unsigned long long) seed);
    for (uint64_t i = 0; i < (one ? 1 : 60); i++)
        random_walk(seed + i);
}

/* Goal: a million idle schedules cost little memory, nothing while idle, and a new leader has its
 * first plan at once (item 8). Method: figures printed; bounds are generous. */
static void test_million_schedules(void **state) {
    enum { N = 1000000 };
    struct world w;
    struct ticker_stats st;
    Chronos__V1__ScheduleSpec spec = CHRONOS__V1__SCHEDULE_SPEC__INIT;
    char name[32], expr[64], *cron[] = {expr};
    clock_t began = clock();
    double load, win;

    (void) state;
    world_init(&w, 0);
    spec.name = name;
    spec.cron = cron;
    spec.n_cron = 1;
    for (uint64_t i = 0; i < N; i++) {
        struct ticker_definition d = {.seq = i + 1, .generation = 1, .spec = &spec};

        (void) snprintf(name, sizeof(name), "schedule-%llu", (unsigned long long) i);
        (void) snprintf(expr, sizeof(expr), i % 3 ? "H H * * *" : "H %d 1 * mon", (int) (i % 24));
        spec.time_zone = (char *) (uintptr_t) (i % 2 ? "Europe/Berlin" : "");
        d.state.watermark_s = T0;
        assert_int_equal(ticker_put(w.t, &d), 0);
    }
    load = (double) (clock() - began) / CLOCKS_PER_SEC;
    w.now_ms = (T0 + 2) * 1000;
    began = clock();
    lead(&w);
    while (ticker_next_due_ms(w.t) <= w.now_ms) {
        Chronos__Internal__V1__ScheduleTicks **items = NULL;
        size_t n = 0;
        uint64_t id = 0;

        arena_clear(&w.arena);
        assert_int_equal(ticker_plan(w.t, (struct wall){w.now_ms}, &w.arena, &items, &n, &id), 0);
    }
    win = (double) (clock() - began) / CLOCKS_PER_SEC;
    ticker_stats(w.t, &st);
    print_message(
        "1,000,000 schedules: %zu B each (%zu timetables), loaded in %.2f s, first plans "
        "of a new leader %.4f s\n",
        st.bytes / N, st.timetables, load, win);
    assert_int_equal(st.schedules, N);
    assert_true(st.bytes / N < 300);
    assert_true(win < 2);
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
        cmocka_unit_test(test_random_walks),
        cmocka_unit_test(test_million_schedules),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
