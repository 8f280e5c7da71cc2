/* Goal: every limit of a schedule's definition is enforced and named in the error, for expressions
 * with the column; what is accepted comes out complete, in one form, and survives packing.
 * Method: a table of single changes to a good definition, each with the text that must appear;
 * zones given as rules.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/schedule_page.h"
#include "api/validate_schedule.h"
#include "fake_zones.h"

#define NOW_S 1767225600 /* 2026-01-01T00:00:00Z */
#define LONG_BYTES 1000000

static struct fake_zone fake[] = {
    {.name = "Europe/Berlin", .rule = FAKE_BERLIN}, {.name = "Etc/Damaged", .rule = ""}, {0}};

struct world {
    struct arena arena;
    struct zones *zones;
    Chronos__V1__ScheduleSpec spec;
    Chronos__V1__JobSpec job;
    char *cron[20], *exclude[20];
    char *huge;
};

static char *text(struct world *w, const char *s) {
    char *copy = arena_strdup(&w->arena, s);

    assert_non_null(copy);
    return copy;
}

static struct world *world_new(void) {
    const struct env_zones env = fake_zones(fake);
    struct world *w = calloc(1, sizeof(*w));

    assert_non_null(w);
    arena_init(&w->arena, 64 * 1024 * 1024);
    assert_int_equal(zones_new(&env, &w->zones), 0);
    w->huge = malloc(LONG_BYTES + 1);
    assert_non_null(w->huge);
    memset(w->huge, '*', LONG_BYTES);
    w->huge[LONG_BYTES] = '\0';
    chronos__v1__schedule_spec__init(&w->spec);
    chronos__v1__job_spec__init(&w->job);
    w->job.payload_case = CHRONOS__V1__JOB_SPEC__PAYLOAD_SHELL;
    w->job.shell = text(w, "true");
    w->spec.job = &w->job;
    w->spec.name = text(w, "nightly");
    for (size_t i = 0; i < ARRAY_LEN(w->cron); i++) {
        w->cron[i] = text(w, "0 9 * * mon-fri");
        w->exclude[i] = text(w, "* * 24 12 *");
    }
    w->spec.cron = w->cron;
    w->spec.n_cron = 1;
    w->spec.exclude = w->exclude;
    return w;
}

static void world_free(struct world *w) {
    w->zones = zones_free(w->zones);
    arena_done(&w->arena);
    free(w->huge);
    free(w);
}

static int check(struct world *w, bool is_new, struct timetable **ret, struct errtext *e) {
    const struct validate_schedule o = {.zones = w->zones,
                                        .now_s = NOW_S,
                                        .with_job = true,
                                        .with_name = true,
                                        .must_tick = is_new};

    *ret = NULL;
    return validate_schedule(&w->spec, &o, &w->arena, ret, e);
}

/* ---- one change each ---- */

#define CHANGE(name, statement)                                                                    \
    static void name(struct world *w) {                                                            \
        statement;                                                                                 \
    }
CHANGE(nothing, (void) w)
CHANGE(no_name, w->spec.name = text(w, ""))
CHANGE(name_control, w->spec.name = text(w, "a\nb"))
CHANGE(name_slash, w->spec.name = text(w, "a/b"))
CHANGE(name_long, w->huge[129] = 0; memset(w->huge, 'a', 129); w->spec.name = w->huge)
CHANGE(no_cron, w->spec.n_cron = 0)
CHANGE(many_cron, w->spec.n_cron = 17)
CHANGE(most_cron, w->spec.n_cron = 16)
CHANGE(many_exclude, w->spec.n_exclude = 17)
CHANGE(cron_empty, w->cron[0] = text(w, ""))
CHANGE(cron_range, w->cron[0] = text(w, "61 * * * *"))
CHANGE(cron_second, w->spec.n_cron = 2; w->cron[1] = text(w, "0 9 * * xyz"))
CHANGE(cron_huge, w->cron[0] = w->huge)
CHANGE(cron_control, w->cron[0] = text(w, "0 9 * *\x01 *"))
CHANGE(cron_impossible, w->cron[0] = text(w, "0 0 31 2 *"))
CHANGE(exclude_bad, w->spec.n_exclude = 2; w->exclude[1] = text(w, "* * 32 * *"))
CHANGE(manual, w->cron[0] = text(w, "@manual"))
CHANGE(manual_not_alone, w->spec.n_cron = 2; w->cron[1] = text(w, "@manual"))
CHANGE(exclude_manual, w->spec.n_exclude = 1; w->exclude[0] = text(w, "@manual"))
CHANGE(past, w->cron[0] = text(w, "@at 2020-01-01T00:00:00Z"))
CHANGE(ended, w->spec.end_ms = 1000)
CHANGE(everything_excluded, w->cron[0] = text(w, "@at 2027-01-01T00:00:00Z"); w->spec.n_exclude = 1;
       w->exclude[0] = text(w, "* * * * *"))
CHANGE(zone_unknown, w->spec.time_zone = text(w, "Mars/Olympus"))
CHANGE(zone_path, w->spec.time_zone = text(w, "../../etc/passwd"))
CHANGE(zone_control, w->spec.time_zone = text(w, "Europe/\tBerlin"))
CHANGE(zone_long, memset(w->huge, 'a', LONG_BYTES); w->spec.time_zone = w->huge)
CHANGE(zone_damaged, w->spec.time_zone = text(w, "Etc/Damaged"))
CHANGE(zone_good, w->spec.time_zone = text(w, "Europe/Berlin"))
CHANGE(window_backwards, w->spec.start_ms = 2000; w->spec.end_ms = 1999)
CHANGE(window_empty, w->spec.start_ms = 2000; w->spec.end_ms = 2000)
CHANGE(start_negative, w->spec.start_ms = -1)
CHANGE(start_far, w->spec.start_ms = INT64_MAX)
CHANGE(end_negative, w->spec.end_ms = INT64_MIN)
CHANGE(runs_many, w->spec.max_runs = UINT64_MAX)
CHANGE(window_negative, w->spec.catchup_window_ms = -1)
CHANGE(window_long, w->spec.catchup_window_ms = 367LL * 86400 * 1000)
CHANGE(jitter_negative, w->spec.jitter_ms = -1)
CHANGE(jitter_interval, w->cron[0] = text(w, "@every 60s"); w->spec.jitter_ms = 60000)
CHANGE(jitter_below, w->cron[0] = text(w, "@every 60s"); w->spec.jitter_ms = 59999)
CHANGE(both_interval, w->cron[0] = text(w, "@every 60s"); w->spec.jitter_ms = 30000;
       w->spec.spread_ms = 30000)
CHANGE(spread_two, w->spec.n_cron = 2; w->cron[1] = text(w, "1 9 * * mon");
       w->spec.spread_ms = 60000)
CHANGE(spread_once, w->cron[0] = text(w, "@at 2027-01-01T00:00:00Z"); w->spec.spread_ms = 86400000)
CHANGE(dst_unknown, w->spec.dst = (Chronos__V1__DstPolicy) 3)
CHANGE(day_match_unknown, w->spec.day_match = (Chronos__V1__DayMatch) 2)
CHANGE(missed_unknown, w->spec.missed = (Chronos__V1__MissedPolicy) -1)
CHANGE(overlap_unknown, w->spec.overlap = (Chronos__V1__OverlapPolicy) 6)
CHANGE(description_long, w->spec.description = w->huge)
CHANGE(description_bell, w->spec.description = text(w, "ding\a"))
CHANGE(description_lines, w->spec.description = text(w, "two\nlines"))
CHANGE(no_job, w->spec.job = NULL)
CHANGE(job_empty, w->job.shell = text(w, " "))
CHANGE(job_timeout, w->job.run_timeout_ms = -2)

static const struct {
    void (*change)(struct world *w);
    const char *text; /* NULL: accepted */
} cases[] = {
    {nothing, NULL},
    {no_name, "spec.name: is missing"},
    {name_control, "spec.name: must consist of"},
    {name_slash, "spec.name: must consist of"},
    {name_long, "spec.name: must be at most 128 bytes"},
    {no_cron, "spec.cron: must have 1 to 16"},
    {many_cron, "spec.cron: must have 1 to 16"},
    {most_cron, NULL},
    {many_exclude, "spec.exclude: must have at most 16"},
    {cron_empty, "spec.cron[0]: "},
    {cron_range, "spec.cron[0]: column 1: the minute is 0-59"},
    {cron_second, "spec.cron[1]: column 9: the weekday"},
    {cron_huge, "spec.cron[0]: "},
    {cron_control, "spec.cron[0]: column 8"},
    {cron_impossible, "spec.cron[0]: "},
    {exclude_bad, "spec.exclude[1]: column 5: the day of the month is 1-31"},
    {manual, NULL},
    {manual_not_alone, "spec.cron[1]: @manual stands alone"},
    {exclude_manual, "spec.exclude[0]: @manual"},
    {past, "spec.cron: no instant is left"},
    {ended, "spec.end_ms: has passed already"},
    {everything_excluded, "spec.cron: no instant is left"},
    {zone_unknown, "spec.time_zone: "},
    {zone_path, "spec.time_zone: must be the name of a time zone"},
    {zone_control, "spec.time_zone: must be the name of a time zone"},
    {zone_long, "spec.time_zone: must be the name of a time zone"},
    {zone_damaged, "spec.time_zone: "},
    {zone_good, NULL},
    {window_backwards, "spec.end_ms: must be after start_ms"},
    {window_empty, "spec.end_ms: must be after start_ms"},
    {start_negative, "spec.start_ms: must be an instant"},
    {start_far, "spec.start_ms: must be an instant"},
    {end_negative, "spec.end_ms: must be an instant"},
    {runs_many, "spec.max_runs: must be at most"},
    {window_negative, "spec.catchup_window_ms: must be"},
    {window_long, "spec.catchup_window_ms: must be"},
    {jitter_negative, "spec.jitter_ms: must be at most"},
    {jitter_interval, "spec.jitter_ms: spread_ms and jitter_ms together must be below"},
    {jitter_below, NULL},
    {both_interval, "here 60000 ms"},
    {spread_two, "spec.spread_ms: spread_ms and jitter_ms together"},
    {spread_once, NULL},
    {dst_unknown, "spec.dst: must be ONCE"},
    {day_match_unknown, "spec.day_match: must be OR"},
    {missed_unknown, "spec.missed: must be ONCE"},
    {overlap_unknown, "spec.overlap: must be SKIP"},
    {description_long, "spec.description: must be at most"},
    {description_bell, "spec.description: must not contain"},
    {description_lines, NULL},
    {no_job, "spec.job: is missing"},
    {job_empty, "spec.job.shell: must not be empty"},
    {job_timeout, "spec.job.run_timeout_ms: must be"},
};

static void test_cases(void **state) {
    (void) state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct world *w = world_new();
        struct errtext e = {0};
        struct timetable *t;
        int r;

        cases[i].change(w);
        r = check(w, true, &t, &e);
        if (cases[i].text && (r != VALIDATE_BAD || !strstr(e.s, cases[i].text)))
            fail_msg("case %zu: %d, \"%s\" instead of \"%s\"", i, r, e.s, cases[i].text);
        if (!cases[i].text && r != 0)
            fail_msg("case %zu: %d, %s", i, r, e.s);
        (void) timetable_unref(t);
        world_free(w);
    }
}

/* An edit may leave a definition that fires no more; a new one may not. */
static void test_edit_of_the_past(void **state) {
    struct world *w = world_new();
    struct errtext e = {0};
    struct timetable *t;

    (void) state;
    past(w);
    assert_int_equal(check(w, false, &t, &e), 0);
    (void) timetable_unref(t);
    world_free(w);
}

static void test_missing(void **state) {
    struct world *w = world_new();
    const struct validate_schedule o = {.zones = w->zones, .now_s = NOW_S};
    struct errtext e = {0};
    struct timetable *t = NULL;

    (void) state;
    assert_int_equal(validate_schedule(NULL, &o, &w->arena, &t, &e), VALIDATE_BAD);
    assert_string_equal(e.s, "spec: is missing");
    w->spec.job = NULL; /* previews have neither */
    no_name(w);
    assert_int_equal(validate_schedule(&w->spec, &o, &w->arena, &t, &e), 0);
    (void) timetable_unref(t);
    world_free(w);
}

/* ---- the one form ---- */

static void set_labels(struct world *w, size_t *n, Chronos__V1__JobSpec__LabelsEntry ***map,
                       const char *const *pairs) {
    *map = arena_alloc(&w->arena, 64 * sizeof(**map));
    assert_non_null(*map);
    for (*n = 0; pairs[2 * *n]; (*n)++) {
        Chronos__V1__JobSpec__LabelsEntry *e = arena_alloc(&w->arena, sizeof(*e));

        assert_non_null(e);
        chronos__v1__job_spec__labels_entry__init(e);
        e->key = text(w, pairs[2 * *n]);
        e->value = text(w, pairs[2 * *n + 1]);
        (*map)[*n] = e;
    }
}

static void test_defaults_and_labels(void **state) {
    static const char *const of_schedule[] = {"team", "db", "zone", "a", NULL};
    static const char *const of_job[] = {"zone", "b", "team", "db", "own", "1", NULL};
    struct world *w = world_new();
    Chronos__V1__ScheduleSpec *back;
    Chronos__V1__JobSpec *run;
    struct schedule_packed packed, again;
    struct errtext e = {0};
    struct timetable *t;

    (void) state;
    set_labels(w, &w->spec.n_labels,
               (Chronos__V1__JobSpec__LabelsEntry ***) (void *) &w->spec.labels, of_schedule);
    set_labels(w, &w->job.n_labels, &w->job.labels, of_job);
    assert_int_equal(check(w, true, &t, &e), 0);
    (void) timetable_unref(t);
    assert_string_equal(w->spec.time_zone, "UTC");
    assert_int_equal(w->spec.catchup_window_ms, 3600000);
    assert_int_equal(w->job.max_attempts, 3);
    assert_int_equal(validate_schedule_pack(&w->spec, &w->arena, &packed, &e), 0);
    run = chronos__v1__job_spec__unpack(arena_pb(&w->arena), packed.job.len, packed.job.data);
    assert_non_null(run);
    assert_int_equal(run->n_labels, 3);
    assert_string_equal(run->labels[0]->key, "own");
    assert_string_equal(run->labels[1]->value, "db");
    assert_string_equal(run->labels[2]->value, "b"); /* the job's own wins */
    back = validate_schedule_unpack(packed.spec, packed.job, &w->arena);
    assert_non_null(back);
    assert_int_equal(back->n_labels, 2);
    assert_int_equal(back->job->n_labels, 2); /* "team" says nothing new */
    assert_int_equal(validate_schedule_pack(back, &w->arena, &again, &e), 0);
    assert_int_equal(again.spec.len, packed.spec.len);
    assert_memory_equal(again.spec.data, packed.spec.data, packed.spec.len);
    assert_int_equal(again.job.len, packed.job.len);
    assert_memory_equal(again.job.data, packed.job.data, packed.job.len);
    world_free(w);
}

/* Bytes that a broken store could give back: no crash, no definition. */
static void test_unpack_garbage(void **state) {
    static const uint8_t garbage[] = {0x0a, 0xff, 0xff, 0x01};
    struct world *w = world_new();

    (void) state;
    assert_null(validate_schedule_unpack(slice_of(garbage, 4), slice_of("", 0), &w->arena));
    assert_null(validate_schedule_unpack(slice_of("", 0), slice_of(garbage, 4), &w->arena));
    world_free(w);
}

/* ---- page tokens ---- */

static void test_page_tokens(void **state) {
    struct schedule_page p = {.filter_hash = 0x1122334455667788}, back;
    char token[SCHEDULE_PAGE_TEXT_BYTES], cut[SCHEDULE_PAGE_TEXT_BYTES];
    size_t len;

    (void) state;
    for (size_t n = 1; n <= SCHEDULE_PAGE_NAME_BYTES_MAX; n++) {
        memset(p.name, 'n', n);
        schedule_page_format(&p, token);
        assert_int_equal(schedule_page_parse(token, &back), 0);
        assert_string_equal(back.name, p.name);
        assert_true(back.filter_hash == p.filter_hash);
    }
    len = strlen(token);
    for (size_t i = 0; i < len; i++) {
        memcpy(cut, token, sizeof(cut));
        cut[i] = cut[i] == '0' ? '1' : '0';
        assert_int_equal(schedule_page_parse(cut, &back), SCHEDULE_PAGE_BAD);
        cut[i] = '\0';
        assert_int_equal(schedule_page_parse(cut, &back), SCHEDULE_PAGE_BAD);
    }
    assert_int_equal(schedule_page_parse("", &back), SCHEDULE_PAGE_BAD);
    assert_int_equal(schedule_page_parse("zz", &back), SCHEDULE_PAGE_BAD);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases),          cmocka_unit_test(test_edit_of_the_past),
        cmocka_unit_test(test_missing),        cmocka_unit_test(test_defaults_and_labels),
        cmocka_unit_test(test_unpack_garbage), cmocka_unit_test(test_page_tokens),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
