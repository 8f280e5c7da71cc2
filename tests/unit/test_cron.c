#include "sched/cron.h"

#include "base/rand.h"
#include "sched/civil.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static uint8_t file_bytes[TZ_FILE_BYTES_MAX];

static struct tz *zone_open(const char *name) {
    char path[256];
    struct errtext why = {0};
    struct tz *z = NULL;
    size_t n;
    FILE *f;

    (void) snprintf(path, sizeof(path), "/usr/share/zoneinfo/%s", name);
    f = fopen(path, "rb");
    assert_non_null(f);
    n = fread(file_bytes, 1, sizeof(file_bytes), f);
    (void) fclose(f);
    assert_int_equal(tz_parse(slice_of(file_bytes, n), &z, &why), 0);
    return z;
}

static struct cron *parsed(const char *text) {
    static struct cron c;
    struct errtext why = {0};

    if (cron_parse(text, "id", false, &c, &why) != 0)
        fail_msg("\"%s\": %s", text, why.s);
    return &c;
}

static int64_t utc(const char *text) {
    char at[64];

    (void) snprintf(at, sizeof(at), "@at %s", text);
    return parsed(at)->times.at_s;
}

static const struct {
    const char *zone, *from, *until, *text;
    enum cron_dst dst;
    const char *fires[16];
} vectors[] = {
    {"America/New_York",
     "2026-03-08T00:00:00Z",
     "2026-03-09T00:00:00Z",
     "30 2 * * *",
     CRON_DST_ONCE,
     {"2026-03-08T07:00:00Z"}},
    {"America/New_York",
     "2026-03-08T00:00:00Z",
     "2026-03-09T00:00:00Z",
     "30 2 * * *",
     CRON_DST_LITERAL,
     {NULL}},
    {"America/New_York",
     "2026-03-08T00:00:00Z",
     "2026-03-09T00:00:00Z",
     "0,30 2 * * *",
     CRON_DST_ONCE,
     {"2026-03-08T07:00:00Z"}},
    {"America/New_York",
     "2026-03-08T00:00:00Z",
     "2026-03-09T00:00:00Z",
     "0 2,3 * * *",
     CRON_DST_ONCE,
     {"2026-03-08T07:00:00Z"}},
    {"America/New_York",
     "2026-11-01T00:00:00Z",
     "2026-11-02T00:00:00Z",
     "30 1 * * *",
     CRON_DST_ONCE,
     {"2026-11-01T05:30:00Z"}},
    {"America/New_York",
     "2026-11-01T00:00:00Z",
     "2026-11-02T00:00:00Z",
     "30 1 * * *",
     CRON_DST_LITERAL,
     {"2026-11-01T05:30:00Z", "2026-11-01T06:30:00Z"}},
    {"America/New_York",
     "2026-11-01T00:00:00Z",
     "2026-11-02T00:00:00Z",
     "30 1 * * *",
     CRON_DST_SKIP_REPEAT,
     {"2026-11-01T05:30:00Z"}},
    {"America/New_York",
     "2026-11-01T04:59:59Z",
     "2026-11-01T08:00:00Z",
     "*/15 * * * *",
     CRON_DST_ONCE,
     {"2026-11-01T05:00:00Z", "2026-11-01T05:15:00Z", "2026-11-01T05:30:00Z",
      "2026-11-01T05:45:00Z", "2026-11-01T06:00:00Z", "2026-11-01T06:15:00Z",
      "2026-11-01T06:30:00Z", "2026-11-01T06:45:00Z", "2026-11-01T07:00:00Z",
      "2026-11-01T07:15:00Z", "2026-11-01T07:30:00Z", "2026-11-01T07:45:00Z"}},
    {"America/New_York",
     "2026-11-01T05:40:00Z",
     "2026-11-01T07:10:00Z",
     "*/15 * * * *",
     CRON_DST_SKIP_REPEAT,
     {"2026-11-01T05:45:00Z", "2026-11-01T07:00:00Z"}},
    {"Europe/Berlin",
     "2026-10-24T12:00:00Z",
     "2026-10-25T12:00:00Z",
     "0 2 * * *",
     CRON_DST_ONCE,
     {"2026-10-25T00:00:00Z"}},
    {"Europe/Dublin",
     "2026-03-28T23:59:59Z",
     "2026-03-29T02:30:00Z",
     "@hourly",
     CRON_DST_ONCE,
     {"2026-03-29T00:00:00Z", "2026-03-29T01:00:00Z", "2026-03-29T02:00:00Z"}},
    {"America/Havana",
     "2026-03-08T00:00:00Z",
     "2026-03-09T00:00:00Z",
     "0 0 * * *",
     CRON_DST_ONCE,
     {"2026-03-08T05:00:00Z"}},
    {"Pacific/Apia",
     "2011-12-29T20:00:00Z",
     "2011-12-31T21:00:00Z",
     "0 12 * * *",
     CRON_DST_ONCE,
     {"2011-12-29T22:00:00Z", "2011-12-30T22:00:00Z"}},
};

/* Goal: the vectors of semantics.md C8, and their neighbours under the other policies. */
static void test_daylight_saving_vectors(void **state) {
    (void) state;
    for (size_t i = 0; i < ARRAY_LEN(vectors); i++) {
        struct tz *z = zone_open(vectors[i].zone);
        int64_t at = utc(vectors[i].from), until = utc(vectors[i].until);
        struct cron_times t = parsed(vectors[i].text)->times;

        for (size_t k = 0; vectors[i].fires[k]; k++) {
            at = cron_next(&t, z, vectors[i].dst, at, NULL);
            if (at != utc(vectors[i].fires[k]))
                fail_msg("vector %zu, run %zu: %lld", i, k, (long long) at);
        }
        if (cron_next(&t, z, vectors[i].dst, at, NULL) < until)
            fail_msg("vector %zu: one run too many", i);
        (void) tz_free(z);
    }
}

static void test_notes(void **state) {
    struct tz *z = zone_open("America/New_York");
    struct cron_times t = parsed("30 2 * * *")->times;
    enum cron_note note = CRON_NOTE_NONE;
    int64_t at = cron_next(&t, z, CRON_DST_ONCE, utc("2026-03-07T12:00:00Z"), &note);

    (void) state;
    assert_int_equal(at, utc("2026-03-08T07:00:00Z"));
    assert_int_equal(note, CRON_NOTE_MOVED);
    assert_int_equal(cron_next(&t, z, CRON_DST_ONCE, at, &note), utc("2026-03-09T06:30:00Z"));
    assert_int_equal(note, CRON_NOTE_NONE);
    t = parsed("30 1 * * *")->times;
    assert_int_equal(cron_next_suppressed(&t, z, CRON_DST_ONCE, utc("2026-10-30T00:00:00Z"),
                                          utc("2026-11-20T00:00:00Z")),
                     utc("2026-11-01T06:30:00Z"));
    assert_int_equal(cron_next_suppressed(&t, z, CRON_DST_ONCE, utc("2026-11-02T00:00:00Z"),
                                          utc("2026-11-20T00:00:00Z")),
                     CRON_NEVER);
    (void) tz_free(z);
}

/* ---- an oracle written apart: it looks at every second or minute ------------------------------
 */

static bool day_matches(const struct cron_times *t, const struct civil *c) {
    bool day = t->days >> c->day & 1, weekday = t->weekdays >> c->weekday & 1;

    if (!t->and_days && !t->day_star && !t->weekday_star)
        return day || weekday;
    return day && weekday;
}

static bool local_matches(const struct cron_times *t, int64_t local) {
    struct civil c = civil_of(local);
    uint32_t y = (uint32_t) (c.year - CRON_YEAR_MIN);

    return c.year >= CRON_YEAR_MIN && c.year <= CRON_YEAR_MAX &&
           (t->years[y / 64] >> (y % 64) & 1) && (t->months >> c.month & 1) && day_matches(t, &c) &&
           (t->hours >> c.hour & 1) && (t->minutes >> c.minute & 1) && (t->seconds >> c.second & 1);
}

static int64_t offset_at(const struct tz *z, int64_t at) {
    return z->changes[tz_find(z, at)].offset;
}

/* Does @at fire? By definition, from the words of C6, for changes that are days apart. */
static bool oracle(const struct cron_times *t, const struct tz *z, enum cron_dst dst, int64_t at) {
    int64_t off = offset_at(z, at), before;
    size_t i = tz_find(z, at);
    bool fixed = dst == CRON_DST_ONCE && !t->follows_clock;

    if (fixed && i > 0 && z->changes[i].at == at) {
        before = z->changes[i - 1].offset;
        if (off > before && off - before <= 3 * 3600)
            for (int64_t l = at + before; l < at + off; l++)
                if (local_matches(t, l))
                    return true;
    }
    if (!local_matches(t, at + off))
        return false;
    if (dst == CRON_DST_LITERAL || (dst == CRON_DST_ONCE && t->follows_clock))
        return true;
    /* Was the same local time shown before? */
    before = i > 0 ? z->changes[i - 1].offset : off;
    return !(before > off && at + off < z->changes[i].at + before);
}

static void random_field(struct rng *rng, enum cron_field f, char *out, size_t cap) {
    static const struct {
        unsigned lo, hi;
    } b[] = {{0, 59}, {0, 59}, {0, 23}, {1, 31}, {1, 12}, {0, 7}, {2024, 2030}};
    unsigned span = b[f].hi - b[f].lo;
    unsigned a = b[f].lo + (unsigned) rng_below(rng, span + 1);
    unsigned e = a + (unsigned) rng_below(rng, b[f].hi - a + 1);

    switch (rng_below(rng, 7)) {
    case 0:
    case 1:
        (void) snprintf(out, cap, "*");
        break;
    case 2:
        (void) snprintf(out, cap, "*/%u", 1 + (unsigned) rng_below(rng, span > 6 ? span - 1 : 4));
        break;
    case 3:
        (void) snprintf(out, cap, "%u-%u", a, e);
        break;
    case 4:
        (void) snprintf(out, cap, "%u,%u", a, e);
        break;
    case 5:
        (void) snprintf(out, cap, "H");
        break;
    default:
        (void) snprintf(out, cap, "%u", a);
    }
    if (f == CRON_YEAR && out[0] == 'H')
        (void) snprintf(out, cap, "*");
}

static void random_text(struct rng *rng, char *out, size_t cap) {
    unsigned fields = 5 + (unsigned) rng_below(rng, 3);
    enum cron_field f = fields == 5 ? CRON_MINUTE : CRON_SECOND;
    size_t len = 0;

    for (unsigned i = 0; i < fields; i++, f++) {
        char field[32];

        random_field(rng, f, field, sizeof(field));
        if (f == CRON_SECOND && rng_below(rng, 3))
            (void) snprintf(field, sizeof(field), "0");
        len += (size_t) snprintf(out + len, cap - len, "%s%s", i ? " " : "", field);
    }
}

static const char *const busy_zones[] = {
    "America/New_York",    "Europe/Berlin",  "Europe/Dublin",     "America/Havana",
    "Australia/Lord_Howe", "Pacific/Apia",   "Africa/Casablanca", "Asia/Tehran",
    "America/Sao_Paulo",   "Asia/Kathmandu", "Antarctica/Troll",  "UTC",
};

/* Goal: cron_next finds exactly the instants that the definition names.
 * Method: random expressions, zones, policies; a day and a half around a change (or anywhere)
 * looked at second by second with the oracle above. */
static void test_against_oracle(void **state) {
    uint64_t seed = (uint64_t) time(NULL) * 1000003 ^ (uint64_t) getpid();
    struct rng rng;
    unsigned fired = 0;

    (void) state;
    if (getenv("CHRONOS_SEED"))
        seed = strtoull(getenv("CHRONOS_SEED"), NULL, 10);
    printf("CHRONOS_SEED=%llu\n", (unsigned long long) seed);
    rng = rng_seed(seed);
    for (int round = 0; round < 400; round++) {
        struct tz *z = zone_open(busy_zones[rng_below(&rng, ARRAY_LEN(busy_zones))]);
        enum cron_dst dst = (enum cron_dst) rng_below(&rng, 3);
        struct errtext why = {0};
        static struct cron c;
        char text[256];
        int64_t from, at, next;

        do
            random_text(&rng, text, sizeof(text));
        while (cron_parse(text, "x", rng_below(&rng, 4) == 0, &c, &why) != 0);
        from = utc("2024-01-01T00:00:00Z") + (int64_t) rng_below(&rng, 5ULL * 366 * 86400);
        if (rng_below(&rng, 4)) { /* mostly around a change */
            size_t i = tz_find(z, from);

            if (i + 1 < z->count && z->changes[i + 1].at < utc("2030-01-01T00:00:00Z"))
                from = z->changes[i + 1].at - (int64_t) rng_below(&rng, 6 * 3600) - 1;
        }
        next = cron_next(&c.times, z, dst, from, NULL);
        for (at = from + 1; at < from + 10 * 3600; at++) {
            bool want = oracle(&c.times, z, dst, at);

            if (want != (next == at))
                fail_msg("round %d: \"%s\" policy %d at %lld: oracle %d", round, text, (int) dst,
                         (long long) at, want);
            if (want) {
                fired++;
                next = cron_next(&c.times, z, dst, at, NULL);
                assert_true(next > at);
            }
        }
        (void) tz_free(z);
    }
    printf("%u runs compared\n", fired);
    assert_true(fired > 1000);
}

/* Goal: strictly increasing and bounded for rare dates too, 1970-2100 (C7). */
static void test_rare_dates(void **state) {
    static const char *const texts[] = {"0 0 29 2 *",     "0 0 0 29 2 * 2096",
                                        "0 0 0 29 2 1 *", "59 59 23 31 12 * 2199",
                                        "0 0 13 * 5",     "0 0 1 1 *"};

    (void) state;
    for (size_t k = 0; k < ARRAY_LEN(busy_zones); k++) {
        struct tz *z = zone_open(busy_zones[k]);

        for (size_t i = 0; i < ARRAY_LEN(texts); i++)
            for (int p = 0; p < 3; p++) {
                struct cron_times t = parsed(texts[i])->times;
                int64_t at = -1;
                unsigned n = 0;

                while ((at = cron_next(&t, z, (enum cron_dst) p, at, NULL)) < 4102444800LL)
                    n++;
                assert_true(n < 15000);
            }
        (void) tz_free(z);
    }
}

/* ---- language ---------------------------------------------------------------------------------
 */

static void test_round_trip(void **state) {
    static const char *const texts[][2] = {
        {"*/15 9-17 * * MON-fri", "*/15 9-17 * * 1-5"},
        {"  0  0 1,15 * ?  ", "0 0 1,15 * *"},
        {"5/15 * * * *", "5/15 * * * *"},
        {"1,2-10/3 * * * *", "1,2-10/3 * * * *"},
        {"H H(0-3) H * *", "H H(0-3) H * *"},
        {"H/10 * * * *", "H/10 * * * *"},
        {"0 0 * * fri-sun", "0 0 * * 5-7"},
        {"@hourly", "0 * * * *"},
        {"@WEEKLY", "0 0 * * 0"},
        {"30 0 0 1 1 * 2030-2040/5", "30 0 0 1 1 * 2030-2040/5"},
        {"@every 90s", "@every 1m30s"},
        {"@every 1h/15m", "@every 1h/15m"},
        {"@at 2026-11-21T09:00:00+01:00", "@at 2026-11-21T08:00:00Z"},
        {"@manual", "@manual"},
    };

    (void) state;
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        static struct cron a, b;
        char once[CRON_TEXT_BYTES_MAX], twice[CRON_TEXT_BYTES_MAX];

        a = *parsed(texts[i][0]);
        cron_print(&a, once);
        assert_string_equal(once, texts[i][1]);
        b = *parsed(once);
        cron_print(&b, twice);
        assert_string_equal(twice, once);
        assert_memory_equal(&a.times, &b.times, sizeof(a.times));
    }
}

static const struct {
    const char *text, *want;
} bad[] = {
    {"", "column 1: the expression is empty"},
    {"* * *", "3 fields"},
    {"* * * * * * * *", "8 fields"},
    {"60 * * * *", "column 1: the minute is 0-59"},
    {"0 24 * * *", "column 3: the hour is 0-23"},
    {"0 0 32 * *", "column 5: the day of the month is 1-31"},
    {"0 0 0 * *", "column 5: the day of the month is 1-31"},
    {"0 0 * foo *", "column 7: the month is 1-12 or jan-dec"},
    {"0 0 * * 8", "column 9: the weekday is 0-7 or sun-sat"},
    {"0 0 * * monday", "column 9"},
    {"10-5 * * * *", "column 4: a range runs upwards"},
    {"*/0 * * * *", "column 3: a step is a number from 1"},
    {"*/90 * * * *", "column 3: step 90"},
    {"1,,2 * * * *", "column 3"},
    {"1, * * * *", "column 3"},
    {"a * * * *", "column 1"},
    {"1x * * * *", "column 2"},
    {"0 0 31 2 *", "never has that day"},
    {"0 0 30 feb *", "never has that day"},
    {"0 0 31 4,6,9,11 *", "never has that day"},
    {"0 0 0 29 2 * 2027", "no year has that date"},
    {"0 0 0 1 1 * 1969", "column 13: the year is 1970-2199"},
    {"0 0 0 1 1 * H", "H is not allowed"},
    {"H( * * * *", "column 3"},
    {"H(5-1) * * * *", "column 5"},
    {"H(1-5 * * * *", "')' is missing"},
    {"@often", "after '@'"},
    {"@every", "an interval like"},
    {"@every 0s", "at least 1s"},
    {"@every 10", "a unit"},
    {"@every 5m1h", "a unit"},
    {"@every 400d", "at most 366d"},
    {"@every 99999999999999999999s", "at most 366d"},
    {"@every 10m/10m", "the phase is shorter"},
    {"@every 10m x", "nothing more"},
    {"@at 2026-02-30T00:00:00Z", "does not have that day"},
    {"@at 2026-02-20", "a time like"},
    {"@at 2026-02-20T00:00:00.5Z", "whole seconds"},
    {"@at 2026-02-20T00:00:00", "Z or an offset"},
    {"@daily x", "nothing more"},
    {"\x01 * * * *", "column 1"},
};

static void test_refused(void **state) {
    static char huge[1000001];

    (void) state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        static struct cron c;
        struct errtext why = {0};

        if (cron_parse(bad[i].text, "", false, &c, &why) != ERR_CONFIG)
            fail_msg("\"%s\" was accepted", bad[i].text);
        if (!strstr(why.s, bad[i].want))
            fail_msg("\"%s\": \"%s\" lacks \"%s\"", bad[i].text, why.s, bad[i].want);
        assert_int_equal(memcmp(why.s, "column ", 7), 0);
    }
    memset(huge, '*', sizeof(huge) - 1);
    {
        static struct cron c;
        struct errtext why = {0};

        assert_int_equal(cron_parse(huge, "", false, &c, &why), ERR_CONFIG);
        assert_non_null(strstr(why.s, "at most 511 characters"));
    }
}

/* Goal: H spreads, is the same each time and stays within its range. */
static void test_hash(void **state) {
    unsigned counts[60] = {0};

    (void) state;
    for (int i = 0; i < 6000; i++) {
        static struct cron c;
        struct errtext why = {0};
        char id[32];

        (void) snprintf(id, sizeof(id), "schedule-%d", i);
        assert_int_equal(cron_parse("H H(2-4) H * *", id, false, &c, &why), 0);
        assert_int_equal(__builtin_popcountll(c.times.minutes), 1);
        counts[__builtin_ctzll(c.times.minutes)]++;
        assert_int_equal(c.times.hours & ~0x1cU, 0);
        assert_int_equal(c.times.days & ~0x1ffffffeU, 0);
    }
    for (int i = 0; i < 60; i++)
        assert_in_range(counts[i], 50, 160);
}

static void test_describe(void **state) {
    static const char *const texts[][2] = {
        {"*/15 9-17 * * mon-fri", "every 15 minutes from 09:00 to 17:59, Monday to Friday"},
        {"0 9 * * mon-fri", "at 09:00, Monday to Friday"},
        {"* * * * *", "every minute"},
        {"@hourly", "at minute 0 of every hour"},
        {"@daily", "at 00:00"},
        {"30 8,12 * * *", "at 08:30 and 12:30"},
        {"0 0 1,15 * *", "at 00:00, on days 1 and 15 of the month"},
        {"0 0 13 * 5", "at 00:00, on day 13 of the month or on Friday"},
        {"0 */2 * * *", "at minute 0 of every 2nd hour"},
        {"0 0 1 1,6 *", "at 00:00, on day 1 of the month, in January and June"},
        {"0 22 * * sat,sun", "at 22:00, Saturday and Sunday"},
        {"*/10 * * * * *", "every 10 seconds"},
        {"0 0 0 1 1 * 2030", "at 00:00, on day 1 of the month, in January, in 2030"},
        {"@every 1h30m", "every 1 hour 30 minutes"},
        {"@manual", "only when triggered"},
        {"@at 2026-11-21T09:00:00Z", "once, at 2026-11-21 09:00:00 UTC"},
    };

    (void) state;
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        char out[256], tiny[8];

        cron_describe(parsed(texts[i][0]), out, sizeof(out));
        assert_string_equal(out, texts[i][1]);
        cron_describe(parsed(texts[i][0]), tiny, sizeof(tiny));
        assert_int_equal(strlen(tiny), MIN(strlen(out), sizeof(tiny) - 1));
    }
}

/* C3: anchored to the epoch, whatever ran before. */
static void test_every(void **state) {
    struct cron_times t = parsed("@every 90s/15s")->times;

    (void) state;
    for (int64_t at = 0; at < 2000; at++) {
        int64_t next = cron_next(&t, NULL, CRON_DST_ONCE, at, NULL);

        assert_true(next > at && next <= at + 90);
        assert_int_equal(next % 90, 15);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_daylight_saving_vectors),
        cmocka_unit_test(test_notes),
        cmocka_unit_test(test_against_oracle),
        cmocka_unit_test(test_rare_dates),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_hash),
        cmocka_unit_test(test_describe),
        cmocka_unit_test(test_every),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
