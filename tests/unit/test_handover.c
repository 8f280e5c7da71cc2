/* Ticks without outcome at an edit: which are kept and which are counted, against what both
 * definitions say second by second. */
#include "sched/handover.h"

#include "base/rand.h"
#include "sched/ticker.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#define T0 1790000000LL /* 2026-09-21T14:13:20Z: 800 s into an hour */
#define HOUR (T0 - 800)

static struct zones *zones;

static struct timetable *timetable(const char *cron, int64_t spread_ms, int64_t jitter_ms) {
    Chronos__V1__ScheduleSpec spec = CHRONOS__V1__SCHEDULE_SPEC__INIT;
    char *texts[] = {(char *) (uintptr_t) cron};
    struct timetable *t = NULL;
    struct errtext e = {0};

    spec.name = (char *) (uintptr_t) "s";
    spec.cron = texts;
    spec.n_cron = 1;
    spec.spread_ms = spread_ms;
    spec.jitter_ms = jitter_ms;
    assert_int_equal(timetable_new(&spec, zones, &t, &e), 0);
    return t;
}

static bool ticks_at(const struct timetable *t, int64_t at_s) {
    return timetable_next_tick(t, at_s - 1, at_s) == at_s;
}

/* By definition: each second looked at. A tick of the old definition is counted, or kept because
 * the new one has it after the watermark; no tick of the new one after the watermark and up to now
 * is one that the old one was not still going to start. */
static void check(const struct timetable *from, const struct timetable *to, uint64_t hash,
                  int64_t from_s, int64_t now_ms) {
    int64_t now_s = now_ms / 1000, first_s = 0, last_s = 0, best_s = MAX(now_s, from_s);
    struct handover h;
    uint64_t count = 0;

    assert_int_equal(handover_of(from, to, hash, from_s, now_ms, &h), 0);
    for (int64_t at = now_s; at > from_s; at--) {
        bool pending = ticks_at(from, at) &&
                       at * 1000 + timetable_delay_ms(from, hash, at) + TICKER_ON_TIME_MS >= now_ms;

        if (ticks_at(to, at) && !pending)
            break;
        if (ticks_at(to, at))
            best_s = at - 1;
    }
    assert_int_equal(h.watermark_s, best_s);
    for (int64_t at = from_s + 1; at <= now_s; at++) {
        if (!ticks_at(from, at) || (at > h.watermark_s && ticks_at(to, at)))
            continue;
        first_s = count++ == 0 ? at : first_s;
        last_s = at;
    }
    assert_int_equal(h.count, count);
    assert_int_equal(h.first_s, first_s);
    assert_int_equal(h.last_s, last_s);
}

struct example {
    const char *from, *to;
    int64_t from_delay_s, to_delay_s; /* spread; the share is that of the hash given */
    uint64_t share_ms;
    int64_t now_s; /* after the hour */
    int64_t watermark_s;
    uint64_t count;
};

/* Goal: the cases of the header, by hand. The old watermark is at the hour. */
static void test_examples(void **state) {
    static const struct example examples[] = {
        /* waits for its share: kept when both have it, else counted */
        {"*/10 * * * *", "*/5 * * * *", 500, 0, 400000, 800, 599, 0},
        {"*/10 * * * *", "*/5 * * * *", 500, 500, 400000, 800, 599, 0},
        {"*/10 * * * *", "5 * * * *", 500, 0, 400000, 800, 800, 1},
        {"*/10 * * * *", "*/10 * * * *", 500, 400, 400000, 800, 599, 0},
        /* its share has passed: late, counted */
        {"*/10 * * * *", "*/5 * * * *", 500, 0, 100000, 800, 800, 1},
        /* due just now, with the plan under way: kept */
        {"*/10 * * * *", "*/5 * * * *", 0, 0, 0, 600, 599, 0},
        {"*/10 * * * *", "*/5 * * * *", 0, 0, 0, 602, 599, 0},
        {"*/10 * * * *", "*/5 * * * *", 0, 0, 0, 603, 603, 1},
        /* the new one ticks between it and now: that must not fire */
        {"*/10 * * * *", "* * * * *", 500, 0, 400000, 800, 800, 1},
        /* a backlog */
        {"* * * * *", "*/7 * * * *", 0, 0, 0, 3500, 3500, 58},
        /* nothing was due */
        {"0 0 1 1 *", "* * * * *", 0, 0, 0, 3000, 3000, 0},
        /* the clock was set back behind the watermark */
        {"* * * * *", "*/2 * * * *", 0, 0, 0, -30, 0, 0},
    };

    (void) state;
    for (size_t i = 0; i < ARRAY_LEN(examples); i++) {
        const struct example *x = &examples[i];
        struct timetable *from = timetable(x->from, x->from_delay_s * 1000, 0);
        struct timetable *to = timetable(x->to, x->to_delay_s * 1000, 0);
        struct handover h;

        print_message("example %zu\n", i);
        assert_int_equal(handover_of(from, to, x->share_ms, HOUR, (HOUR + x->now_s) * 1000, &h), 0);
        assert_int_equal(h.watermark_s - HOUR, x->watermark_s);
        assert_int_equal(h.count, x->count);
        check(from, to, x->share_ms, HOUR, (HOUR + x->now_s) * 1000);
        (void) timetable_unref(from);
        (void) timetable_unref(to);
    }
}

/* Goal: the same as the definition for any two schedules. Method: random pairs. */
static void test_random(void **state) {
    static const char *const crons[] = {"* * * * *",      "*/2 * * * *", "*/7 * * * *",
                                        "*/10 * * * * *", "@every 45s",  "5,20,21 * * * *",
                                        "30 14 * * *",    "0 0 1 1 *"};
    const char *given = getenv("CHRONOS_SEED");
    uint64_t seed = given ? strtoull(given, NULL, 0) : (uint64_t) time(NULL);
    struct rng rng;

    (void) state;
    print_message("CHRONOS_SEED=%llu\n", (unsigned long long) seed);
    rng = rng_seed(seed);
    for (int i = 0; i < 300; i++) {
        const char *a = crons[rng_below(&rng, ARRAY_LEN(crons))];
        const char *b = crons[rng_below(&rng, ARRAY_LEN(crons))];
        struct timetable *from = timetable(a, (int64_t) rng_below(&rng, 60) * 1000,
                                           (int64_t) rng_below(&rng, 60) * 1000);
        struct timetable *to = timetable(b, (int64_t) rng_below(&rng, 60) * 1000, 0);
        int64_t from_s = HOUR + (int64_t) rng_below(&rng, 1000);

        check(from, to, rng_next(&rng), from_s,
              from_s * 1000 - 2000 + (int64_t) rng_below(&rng, 400000));
        (void) timetable_unref(from);
        (void) timetable_unref(to);
    }
}

/* Goal: a backlog without end is said to be too long, not searched for ever. */
static void test_too_long(void **state) {
    struct timetable *from = timetable("* * * * * *", 0, 0);
    struct handover h;

    (void) state;
    assert_int_equal(handover_of(from, from, 0, T0, (T0 + 100000) * 1000, &h), 0);
    assert_int_equal(h.count, 100000 - 3); /* three are on time yet */
    assert_int_equal(handover_of(from, from, 0, T0, (T0 + 10000000) * 1000, &h), 1);
    (void) timetable_unref(from);
}

static int begin(void **state) {
    static const struct env_zones none;

    (void) state;
    return zones_new(&none, &zones);
}

static int end(void **state) {
    (void) state;
    (void) zones_free(zones);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_examples),
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_too_long),
    };

    return cmocka_run_group_tests_name("handover", tests, begin, end);
}
