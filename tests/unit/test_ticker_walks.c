/* The ticker against an oracle that looks at every second, and with a million schedules. */
#include "ticker_world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

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
        world_define(&w, i, cron[rng_below(&r, ARRAY_LEN(cron))]);
    }
    world_lead(&w);
    for (int step = 0; step < 300; step++) {
        switch (rng_below(&r, 10)) {
        case 0: /* nobody leads for a while */
            w.now_ms += (int64_t) rng_below(&r, rng_below(&r, 4) ? 20000 : 20000000);
            world_lead(&w);
            break;
        case 1: /* the clock steps */
            w.now_ms += (int64_t) rng_below(&r, 600000) - 300000;
            break;
        case 2:
            (void) world_plan_once(&w, true);
            break;
        case 3: /* another leader's clock */
            w.now_ms += (int64_t) rng_below(&r, 4000) - 2000;
            world_lead(&w);
            break;
        default:
            world_run_until(&w, w.now_ms + (int64_t) rng_below(&r, 60000));
            break;
        }
        highest = MAX(highest, w.now_ms);
    }
    w.now_ms = highest;
    world_run_until(&w, highest + 200000);
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
    world_lead(&w);
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
        cmocka_unit_test(test_random_walks),
        cmocka_unit_test(test_million_schedules),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
