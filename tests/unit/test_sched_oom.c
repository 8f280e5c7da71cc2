/* Every allocation of zones, expressions, timetables and the ticker fails once: the error is
 * -ENOMEM and nothing leaks. (Placement of jobs is in test_fsm_oom.c.) */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fake_zones.h"
#include "nth_memory.h"
#include "sched/handover.h"
#include "sched/preview.h"
#include "sched/ticker.h"
#include "sched/tz.h"
#include "sched/zones.h"

#define T0 1790000000LL /* a second in 2026 */
#define SCHEDULES 40

/* ---- zones of two files; the first one changes -------------------------------------------------
 */

static struct fake_zone fake[] = {{.name = "Europe/Berlin", .rule = FAKE_BERLIN},
                                  {.name = "America/New_York", .rule = FAKE_NEW_YORK},
                                  {0}};

static int zones_life(struct zones *z) {
    const struct tz *tz = NULL;
    struct zone *held = NULL;
    int rc = zones_find(z, "Europe/Berlin", &tz, NULL);

    if (rc == 0)
        rc = zones_hold(z, "America/New_York", &held);
    if (rc == 0 && !held->tz)
        rc = -ENOMEM; /* the entry is there, its data is not */
    if (rc == 0) {
        fake[0].replaced++;
        rc = zones_refresh(z);
        rc = rc > 0 ? 0 : rc;
    }
    zones_release(z, held);
    return rc;
}

static int zones_scenario(void *arg) {
    struct zones *z = NULL;
    const struct env_zones env = fake_zones(fake);
    int rc = zones_new(&env, &z);

    (void) arg;
    if (rc == 0)
        rc = zones_life(z);
    (void) zones_free(z);
    return rc;
}

static void test_zones(void **state) {
    (void) state;
    assert_true(nth_memory_loop(zones_scenario, NULL) > 10);
}

static int tz_scenario(void *arg) {
    const struct tz_change first = {.at = INT64_MIN, .offset = 3600, .abbrev = "A"};
    struct bytes *file = zones_synthetic(FAKE_BERLIN);
    struct tz *parsed = NULL, *made = calloc(1, sizeof(*made));
    size_t cap = 0;
    int rc = file && made ? tz_parse(bytes_slice(file), &parsed, NULL) : -ENOMEM;

    (void) arg;
    if (rc == 0)
        rc = tz_append(made, &cap, &first);
    if (rc == 0)
        rc = tz_posix_append(made, &cap, slice_of("EST5EDT,M3.2.0,M11.1.0", 22), 0, NULL);
    if (rc == 0)
        assert_true(tz_find(made, T0) > 0 && tz_find(parsed, T0) > 0);
    (void) bytes_unref(file);
    (void) tz_free(parsed);
    (void) tz_free(made);
    return rc;
}

static void test_tz(void **state) {
    (void) state;
    assert_true(nth_memory_loop(tz_scenario, NULL) > 5);
}

/* ---- timetables --------------------------------------------------------------------------------
 */

static char *text(const char *s) {
    return (char *) (uintptr_t) s; /* protobuf-c has no const strings */
}

static int timetables_of(struct zones *z, struct timetable *t[2]) {
    Chronos__V1__ScheduleSpec a = CHRONOS__V1__SCHEDULE_SPEC__INIT, b = a;
    char *often[] = {text("*/5 * * * *"), text("30 2 * * *")}, *seldom[] = {text("0 * * * *")};
    char * not [] = {text("* * 24 12 *")};
    int rc;

    a.name = b.name = text("s");
    a.time_zone = text("Europe/Berlin");
    a.cron = often;
    a.n_cron = 2;
    a.exclude = not ;
    a.n_exclude = 1;
    b.cron = seldom;
    b.n_cron = 1;
    rc = timetable_new(&a, z, &t[0], NULL);
    return rc == 0 ? timetable_new(&b, z, &t[1], NULL) : rc;
}

static int timetable_scenario(void *arg) {
    struct preview_instant instant;
    struct timetable *t[2] = {NULL, NULL};
    struct zones *z = NULL;
    uint32_t steps = 1000;
    struct handover h;
    struct preview p;
    struct cron c;
    const struct env_zones env = fake_zones(fake);
    int rc = zones_new(&env, &z);

    (void) arg;
    if (rc == 0)
        rc = timetables_of(z, t);
    if (rc == 0)
        rc = cron_parse("H H(0-7) * * *", "s", false, &c, NULL);
    if (rc == 0)
        rc = handover_of(t[0], t[1], timetable_name_hash("s"), T0 - 7200, T0 * 1000, &h);
    if (rc == 0) {
        preview_begin(&p, t[0], "s", T0);
        assert_true(preview_next(&p, &steps, &instant));
    }
    (void) timetable_unref(t[0]);
    (void) timetable_unref(t[1]);
    (void) zones_free(z);
    return rc;
}

static void test_timetables(void **state) {
    (void) state;
    assert_true(nth_memory_loop(timetable_scenario, NULL) > 8);
}

/* ---- the ticker --------------------------------------------------------------------------------
 */

static int put(struct ticker *t, uint64_t seq, const char *cron, const char *zone) {
    Chronos__V1__ScheduleSpec spec = CHRONOS__V1__SCHEDULE_SPEC__INIT;
    char *texts[] = {text(cron)};
    struct ticker_definition d = {.seq = seq, .generation = 1, .spec = &spec};

    spec.name = text("s");
    spec.time_zone = text(zone);
    spec.cron = texts;
    spec.n_cron = 1;
    d.state.watermark_s = T0 - 30 * (int64_t) seq;
    return ticker_put(t, &d);
}

static int plan(struct ticker *t, struct arena *arena, int64_t now_ms) {
    Chronos__Internal__V1__ScheduleTicks **items = NULL;
    uint64_t id = 0;
    size_t n = 0;
    int rc = ticker_plan(t, (struct wall){now_ms}, arena, &items, &n, &id);

    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = ticker_update(t, items[i]->schedule_seq,
                           &(struct ticker_state){.watermark_s = items[i]->watermark_s});
    if (rc == 0 && n > 0)
        ticker_plan_done(t, id, (struct wall){now_ms}, NULL, NULL);
    return rc;
}

/* Put, planned, edited, a zone that changes, one that is refused, forgotten. */
static int ticker_life(struct zones *z, struct ticker *t, struct arena *arena) {
    static const char *const crons[] = {"* * * * *", "*/10 * * * *", "@every 7s", "0 3 * * *"};
    int rc = 0;

    for (uint64_t i = 1; rc == 0 && i <= SCHEDULES; i++)
        rc = put(t, i, crons[i % 4], i % 3 == 0 ? "Europe/Berlin" : i == 7 ? "No/Where" : "");
    ticker_reset(t, (struct wall){T0 * 1000});
    for (int i = 0; rc == 0 && i < 5; i++)
        rc = plan(t, arena, (T0 + 40 * i) * 1000);
    fake[0].replaced++;
    if (rc == 0)
        rc = zones_refresh(z) < 0 ? -ENOMEM : 0;
    ticker_zones_changed(t);
    while (rc == 0 && (rc = ticker_refresh(t)) == 1)
        rc = 0;
    if (rc == 0)
        rc = put(t, 2, "15 * * * *", "America/New_York");
    ticker_remove(t, 3);
    if (rc == 0)
        rc = plan(t, arena, (T0 + 4000) * 1000);
    return rc;
}

static int ticker_scenario(void *arg) {
    struct arena *arena = arg;
    struct ticker *t = NULL;
    struct zones *z = NULL;
    const struct env_zones env = fake_zones(fake);
    int rc = zones_new(&env, &z);

    if (rc == 0)
        rc = ticker_new(z, &t);
    if (rc == 0)
        rc = ticker_life(z, t, arena);
    (void) ticker_free(t);
    (void) zones_free(z);
    arena_done(arena);
    return rc;
}

static void test_ticker(void **state) {
    struct arena arena;

    (void) state;
    arena_init(&arena, 1UL << 20);
    assert_true(nth_memory_loop(ticker_scenario, &arena) > 50);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_zones),
        cmocka_unit_test(test_tz),
        cmocka_unit_test(test_timetables),
        cmocka_unit_test(test_ticker),
    };

    return cmocka_run_group_tests_name("sched_oom", tests, NULL, NULL);
}
