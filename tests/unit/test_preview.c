/* Goal: what people are shown of a timetable is what it will do, with the oddities of clock changes
 * named. Method: the vectors of semantics C8 for New York, whose rule is given as text; then
 * bounds.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "fake_zones.h"
#include "sched/civil.h"
#include "sched/preview.h"

static struct fake_zone fake[] = {{.name = "America/New_York", .rule = FAKE_NEW_YORK}, {0}};

static int64_t utc(int year, int month, int day, int hour, int minute) {
    return civil_days(year, (uint8_t) month, (uint8_t) day) * CIVIL_SECONDS_PER_DAY + hour * 3600 +
           minute * 60;
}

struct world {
    struct zones *zones;
    struct timetable *timetable;
    struct preview preview;
    uint32_t steps;
};

static void begin(struct world *w, Chronos__V1__ScheduleSpec *spec, const char *cron,
                  int64_t after_s) {
    const struct env_zones env = fake_zones(fake);
    char *list[1] = {(char *) (uintptr_t) cron};
    char zone[] = "America/New_York", name[] = "n";
    struct errtext e = {0};

    *w = (struct world){0};
    assert_int_equal(zones_new(&env, &w->zones), 0);
    spec->cron = list;
    spec->n_cron = 1;
    spec->name = name;
    if (spec->time_zone[0] == '\0')
        spec->time_zone = zone;
    if (timetable_new(spec, w->zones, &w->timetable, &e) != 0)
        fail_msg("%s", e.s);
    spec->cron = NULL; /* the list ends here */
    spec->n_cron = 0;
    preview_begin(&w->preview, w->timetable, "n", after_s);
}

static void end(struct world *w) {
    w->timetable = timetable_unref(w->timetable);
    w->zones = zones_free(w->zones);
}

static void expect(struct world *w, int64_t tick_s, bool fires, const char *note,
                   const char *local) {
    struct preview_instant i;

    assert_true(preview_next(&w->preview, &w->steps, &i));
    assert_string_equal(i.local, local);
    assert_int_equal(i.tick_s, tick_s);
    assert_int_equal(i.fires, fires);
    assert_string_equal(i.note, note);
    assert_int_equal(i.start_ms, tick_s * 1000);
}

static void test_gap(void **state) {
    Chronos__V1__ScheduleSpec spec = CHRONOS__V1__SCHEDULE_SPEC__INIT;
    struct world w;

    (void) state;
    begin(&w, &spec, "30 2 * * *", utc(2026, 3, 7, 0, 0));
    expect(&w, utc(2026, 3, 7, 7, 30), true, "", "2026-03-07T02:30:00-05:00 EST");
    expect(&w, utc(2026, 3, 8, 7, 0), true, PREVIEW_NOTE_MOVED, "2026-03-08T03:00:00-04:00 EDT");
    expect(&w, utc(2026, 3, 9, 6, 30), true, "", "2026-03-09T02:30:00-04:00 EDT");
    end(&w);
}

static void test_repeated_hour(void **state) {
    Chronos__V1__ScheduleSpec spec = CHRONOS__V1__SCHEDULE_SPEC__INIT;
    struct world w;

    (void) state;
    begin(&w, &spec, "30 1 * * *", utc(2026, 11, 1, 0, 0));
    expect(&w, utc(2026, 11, 1, 5, 30), true, "", "2026-11-01T01:30:00-04:00 EDT");
    expect(&w, utc(2026, 11, 1, 6, 30), false, PREVIEW_NOTE_SUPPRESSED,
           "2026-11-01T01:30:00-05:00 EST");
    expect(&w, utc(2026, 11, 2, 6, 30), true, "", "2026-11-02T01:30:00-05:00 EST");
    end(&w);
    spec.dst = CHRONOS__V1__DST_POLICY__DST_POLICY_LITERAL;
    begin(&w, &spec, "30 1 * * *", utc(2026, 11, 1, 0, 0));
    expect(&w, utc(2026, 11, 1, 5, 30), true, "", "2026-11-01T01:30:00-04:00 EDT");
    expect(&w, utc(2026, 11, 1, 6, 30), true, "", "2026-11-01T01:30:00-05:00 EST");
    end(&w);
}

/* A suppressed instant is shown only when nothing else fires there and no exclusion names it. */
static void test_suppressed_but_excluded(void **state) {
    Chronos__V1__ScheduleSpec spec = CHRONOS__V1__SCHEDULE_SPEC__INIT;
    char weekend[] = "* * 1 11 *", *excludes[1] = {weekend};
    struct world w;

    (void) state;
    spec.exclude = excludes;
    spec.n_exclude = 1;
    begin(&w, &spec, "30 1 * * *", utc(2026, 10, 31, 0, 0));
    expect(&w, utc(2026, 10, 31, 5, 30), true, "", "2026-10-31T01:30:00-04:00 EDT");
    expect(&w, utc(2026, 11, 2, 6, 30), true, "", "2026-11-02T01:30:00-05:00 EST");
    end(&w);
}

/* An exclusion of everything: each call ends after bounded steps and says how far it came. */
static void test_bounded(void **state) {
    Chronos__V1__ScheduleSpec spec = CHRONOS__V1__SCHEDULE_SPEC__INIT;
    char all[] = "* * * * *", utc_name[] = "UTC", *excludes[1] = {all};
    struct preview_instant i;
    int64_t last = utc(2026, 1, 1, 0, 0);
    struct world w;

    (void) state;
    spec.exclude = excludes;
    spec.n_exclude = 1;
    spec.time_zone = utc_name;
    begin(&w, &spec, "* * * * * *", last);
    for (int n = 0; n < 10; n++) {
        uint32_t before = w.steps;

        assert_true(preview_next(&w.preview, &w.steps, &i));
        assert_true(!i.fires && i.note[0] == '\0');
        assert_true(i.tick_s > last && w.steps - before <= 1000);
        last = i.tick_s;
    }
    end(&w);
    begin(&w, &spec, "@at 2026-01-01T00:00:00Z", last);
    assert_false(preview_next(&w.preview, &w.steps, &i));
    end(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gap),
        cmocka_unit_test(test_repeated_hour),
        cmocka_unit_test(test_suppressed_but_excluded),
        cmocka_unit_test(test_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
