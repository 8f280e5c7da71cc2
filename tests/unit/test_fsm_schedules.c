/* What becomes of ticks: overlap, pauses, bounds, edits. Commands in, outcomes and records out. */
#include "schedule_steps.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- definitions -------------------- */

/* Goal: who read a definition before its name was given up and taken again changes nothing of the
 * new one. */
static void test_version_of_name_taken_again(void **state) {
    struct put_args p = {.name = "s", .overlap = P_(SKIP)};
    struct fixture x;
    uint64_t first, second;

    (void) state;
    steps_begin(&x);
    (void) steps_put(&x, &p);
    first = x.out->results[0].version;
    assert_int_equal(fixture_do(&x, cmd_delete_schedule("s", first, false, x.now_ms)), FSM_OK);
    (void) steps_put(&x, &p);
    second = x.out->results[0].version;
    assert_true(second > first);
    p.replace = true;
    p.version = first;
    assert_int_equal(fixture_do(&x, cmd_put_schedule(&p, x.now_ms)), FSM_VERSION_MISMATCH);
    assert_int_equal(fixture_do(&x, cmd_delete_schedule("s", first, false, x.now_ms)),
                     FSM_VERSION_MISMATCH);
    assert_int_equal(fixture_do(&x, cmd_delete_schedule("s", second, false, x.now_ms)), FSM_OK);
    steps_end(&x);
}

/* Goal: an edit with a new generation ends what waited, recorded; one without leaves it (C13). */
static void test_edit(void **state) {
    struct put_args p = {.name = "s", .overlap = P_(BUFFER_ALL)};
    const struct fsm_schedule *s;
    struct fixture x;
    uint64_t seq, made;

    (void) state;
    steps_begin(&x);
    seq = steps_put(&x, &p);
    made = x.out->results[0].version;
    s = fsm_schedule_by_seq(x.f, seq);
    (void) steps_tick(&x, seq, 1010);
    (void) steps_tick(&x, seq, 1020);
    (void) steps_tick(&x, seq, 1030);
    p.replace = true;
    p.version = made + 7;
    assert_int_equal(fixture_do(&x, cmd_put_schedule(&p, x.now_ms)), FSM_VERSION_MISMATCH);
    assert_int_equal(x.out->results[0].version, made);
    p.version = made;
    assert_int_equal(steps_put(&x, &p), seq);
    assert_int_equal(x.out->results[0].version, made + 1);
    assert_int_equal(s->buffered, 2);
    assert_int_equal(s->generation, 1);
    p.version = 0;
    p.new_generation = true;
    x.now_ms = 1055500;
    (void) steps_put(&x, &p);
    assert_int_equal(x.out->ticks_count, 2);
    steps_assert_tick(&x.out->ticks[0], 1020, R_(DELETED), 0);
    steps_assert_tick(&x.out->ticks[1], 1030, R_(DELETED), 0);
    assert_int_equal(x.out->ticks[1].generation, 1);
    assert_int_equal(s->generation, 2);
    assert_int_equal(s->watermark_s, 1055); /* nothing of the past */
    assert_int_equal(s->buffered, 0);
    assert_int_equal(s->open_runs, 1);
    (void) steps_tick(&x, seq, 1060);
    p.overlap = P_(ALLOW);
    p.new_generation = false;
    (void) steps_put(&x, &p); /* what waited need not wait any more */
    steps_assert_tick(x.out->ticks, 1060, R_(BUFFERED), 2);
    assert_int_equal(s->open_runs, 2);
    steps_end(&x);
}

/* Goal: a deleted schedule leaves nothing but its jobs; a new one of the name is another. */
static void test_delete(void **state) {
    const struct put_args p = {.name = "s", .overlap = P_(BUFFER_ALL)};

    (void) state;
    for (int cancel = 0; cancel <= 1; cancel++) {
        const struct fsm_schedule *found;
        struct fixture x;
        uint64_t seq, token, made;

        steps_begin(&x);
        seq = steps_put(&x, &p);
        made = x.out->results[0].version;
        (void) steps_tick(&x, seq, 1010);
        (void) steps_tick(&x, seq, 1020);
        token = steps_run_job(&x, 1);
        assert_int_equal(fixture_do(&x, cmd_delete_schedule("t", 0, cancel, x.now_ms)),
                         FSM_NOT_FOUND);
        assert_int_equal(fixture_do(&x, cmd_delete_schedule("s", made + 1, cancel, x.now_ms)),
                         FSM_VERSION_MISMATCH);
        assert_int_equal(fixture_do(&x, cmd_delete_schedule("s", made, cancel, x.now_ms)), FSM_OK);
        assert_int_equal(x.out->ticks_count, 1);
        steps_assert_tick(x.out->ticks, 1020, R_(DELETED), 0);
        assert_int_equal(x.out->schedules_count, 1);
        assert_int_equal(x.out->schedules[0].change, FSM_SCHEDULE_REMOVED);
        assert_null(fsm_schedule_by_seq(x.f, seq));
        assert_int_equal(fsm_schedule_find(x.f, slice_of("s", 1), &found), FSM_READ_NOT_FOUND);
        assert_int_equal(fsm_job_find(x.f, 1)->cancel_requested, cancel);
        fsm_check_invariants(x.f);
        assert_int_equal(steps_put(&x, &p), seq + 1);
        assert_int_equal(fixture_update(&x, 1, token, O(COMPLETED)), FSM_OK);
        assert_int_equal(x.out->schedules_count, 0);
        assert_int_equal(steps_tick_as(&x, seq, 1030, R_(ON_TIME)), FSM_NOT_FOUND);
        steps_end(&x);
    }
    /* Pending runs end within the command. */
    struct fixture x;
    steps_begin(&x);
    (void) steps_tick(&x, steps_put(&x, &p), 1010);
    assert_int_equal(fixture_do(&x, cmd_delete_schedule("s", 0, true, x.now_ms)), FSM_OK);
    assert_null(fsm_job_find(x.f, 1));
    steps_end(&x);
}

/* Goal: names and keys: taken, repeated, reused, shared with jobs (C19). */
static void test_create(void **state) {
    struct put_args p = {.name = "s", .key = "k", .hash = "h"};
    struct fixture x;
    char name[200];
    uint64_t seq;

    (void) state;
    steps_begin(&x);
    seq = steps_put(&x, &p);
    assert_int_equal(fixture_do(&x, cmd_put_schedule(&p, x.now_ms)), FSM_EXISTING);
    assert_int_equal(x.out->results[0].schedule_seq, seq);
    p.hash = "other";
    assert_int_equal(fixture_do(&x, cmd_put_schedule(&p, x.now_ms)), FSM_KEY_CONFLICT);
    assert_int_equal(fixture_do(&x, cmd_submit("spec", "k", "h", 1, x.now_ms)), FSM_KEY_CONFLICT);
    p.key = NULL;
    assert_int_equal(fixture_do(&x, cmd_put_schedule(&p, x.now_ms)), FSM_NAME_TAKEN);
    assert_int_equal(fixture_do(&x, cmd_submit("spec", "job", "h", 1, x.now_ms)), FSM_OK);
    assert_int_equal(x.out->results[0].job_seq, 2); /* the schedule's key has a number of its own */
    p = (struct put_args){.name = "t", .key = "job", .hash = "h"};
    assert_int_equal(fixture_do(&x, cmd_put_schedule(&p, x.now_ms)), FSM_KEY_CONFLICT);
    p = (struct put_args){.name = "t", .replace = true};
    assert_int_equal(fixture_do(&x, cmd_put_schedule(&p, x.now_ms)), FSM_NOT_FOUND);
    memset(name, 'n', sizeof(name));
    name[129] = '\0';
    p = (struct put_args){.name = name};
    assert_int_equal(fixture_do(&x, cmd_put_schedule(&p, x.now_ms)), FSM_REFUSED);
    name[128] = '\0';
    (void) steps_put(&x, &p);
    p.name = "a/b";
    assert_int_equal(fixture_do(&x, cmd_put_schedule(&p, x.now_ms)), FSM_REFUSED);
    p = (struct put_args){.name = "u", .overlap = 6};
    assert_int_equal(fixture_do(&x, cmd_put_schedule(&p, x.now_ms)), FSM_REFUSED);
    p = (struct put_args){.name = "u", .job_bytes = FSM_SCHEDULE_BYTES_MAX};
    assert_int_equal(fixture_do(&x, cmd_put_schedule(&p, x.now_ms)), FSM_REFUSED);
    fsm_check_invariants(x.f);
    assert_int_equal(fsm_write_back(x.f), 0);
    fixture_reopen(&x);
    assert_int_equal(fsm_schedules_count(x.f), 2);
    p = (struct put_args){.name = "s", .key = "k", .hash = "h"};
    assert_int_equal(fixture_do(&x, cmd_put_schedule(&p, x.now_ms)), FSM_EXISTING);
    fsm_check_invariants(x.f);
    fixture_done(&x);
}

/* Goal: by hand: overlap is honoured unless told not to, the watermark stays, a key answers the
 * same lines again (C14). */
static void test_by_hand(void **state) {
    static const int64_t past[] = {100, 200, 300}, wrong[] = {100, 100}, future[] = {2000};
    const struct put_args p = {.name = "s"};
    struct fixture x;
    uint64_t seq;

    (void) state;
    steps_begin(&x);
    seq = steps_put(&x, &p);
    assert_int_equal(
        fixture_do(&x, cmd_run_schedule("s", R_(BACKFILL), past, 3, false, "k", "h", x.now_ms)),
        FSM_OK);
    assert_int_equal(x.out->ticks_count, 3);
    steps_assert_tick(&x.out->ticks[0], 100, R_(BACKFILL), 1);
    steps_assert_tick(&x.out->ticks[1], 200, R_(OVERLAP), 1);
    steps_assert_tick(&x.out->ticks[2], 300, R_(OVERLAP), 1);
    assert_int_equal(x.out->ticks[2].ordinal, 3); /* a line each */
    assert_int_equal(x.out->results[0].ordinals, 3);
    assert_int_equal(fsm_schedule_by_seq(x.f, seq)->watermark_s, 1000);
    assert_int_equal(
        fixture_do(&x, cmd_run_schedule("s", R_(BACKFILL), past, 3, false, "k", "h", x.now_ms)),
        FSM_EXISTING);
    assert_int_equal(x.out->ticks_count, 0);
    assert_int_equal(x.out->results[0].first_ordinal, 1);
    assert_int_equal(x.out->results[0].ordinals, 3);
    assert_int_equal(
        fixture_do(&x, cmd_run_schedule("s", R_(BACKFILL), past, 3, true, NULL, NULL, x.now_ms)),
        FSM_OK);
    assert_int_equal(fsm_schedule_by_seq(x.f, seq)->open_runs, 4);
    assert_int_equal(
        fixture_do(&x, cmd_run_schedule("s", R_(BACKFILL), wrong, 2, true, NULL, NULL, x.now_ms)),
        FSM_REFUSED);
    assert_int_equal(
        fixture_do(&x, cmd_run_schedule("s", R_(BACKFILL), future, 1, true, NULL, NULL, x.now_ms)),
        FSM_REFUSED);
    assert_int_equal(
        fixture_do(&x, cmd_run_schedule("s", R_(ON_TIME), past, 1, true, NULL, NULL, x.now_ms)),
        FSM_REFUSED);
    assert_int_equal(
        fixture_do(&x, cmd_run_schedule("t", R_(TRIGGER), NULL, 0, true, NULL, NULL, x.now_ms)),
        FSM_NOT_FOUND);
    steps_end(&x);
}

/* Goal: the job knows whose run it is. */
static void test_job_record(void **state) {
    const struct put_args p = {.name = "nightly"};
    Chronos__Internal__V1__JobRecord *job;
    struct arena arena;
    struct fixture x;

    (void) state;
    arena_init(&arena, 1 << 20);
    steps_begin(&x);
    (void) steps_tick(&x, steps_put(&x, &p), 1010);
    assert_int_equal(fsm_read_job(x.f, 1, &arena, &job), 0);
    assert_string_equal(job->schedule, "nightly");
    assert_int_equal(job->schedule_seq, 1);
    assert_int_equal(job->schedule_generation, 1);
    assert_int_equal(job->tick_s, 1010);
    assert_int_equal(job->tick_reason, R_(ON_TIME));
    assert_int_equal(job->spec.len, strlen("a job"));
    arena_done(&arena);
    steps_end(&x);
}

/* ---- history -------------------- */

/* Goal: 100 lines are kept; ticks that follow each other and were skipped for one reason share one;
 * lines older than 30 days go when newer ones come (C38). */
static void test_history(void **state) {
    const struct put_args p = {.name = "s", .overlap = P_(ALLOW)};
    Chronos__Internal__V1__TickRecord *line;
    Chronos__Internal__V1__ScheduleRecord *rec;
    struct arena arena;
    struct fixture x;
    uint64_t seq;

    (void) state;
    arena_init(&arena, 1 << 20);
    steps_begin(&x);
    seq = steps_put(&x, &p);
    for (int64_t at = 1001; at <= 1250; at++)
        assert_int_equal(steps_tick_as(&x, seq, at, R_(ON_TIME)), FSM_OK);
    rec = steps_record(&x, seq, &arena);
    assert_int_equal(rec->next_ordinal, 251);
    assert_int_equal(rec->first_ordinal, 151);
    assert_int_equal(rec->fired, 250);
    assert_int_equal(fsm_read_tick(x.f, seq, 150, &arena, &line), FSM_READ_NOT_FOUND);
    assert_int_equal(fsm_read_tick(x.f, seq, 151, &arena, &line), 0);
    assert_int_equal(line->tick_s, 1151);
    assert_int_equal(steps_pause(&x, "s", true, 0), FSM_OK);
    for (int64_t at = 1251; at <= 1350; at++)
        assert_int_equal(steps_tick_as(&x, seq, at, R_(ON_TIME)), FSM_OK);
    assert_int_equal(fsm_read_tick(x.f, seq, 251, &arena, &line), 0);
    assert_int_equal(line->tick_s, 1251);
    assert_int_equal(line->last_tick_s, 1350);
    assert_int_equal(line->count, 100);
    assert_int_equal(line->reason, R_(PAUSED));
    assert_int_equal(steps_record(&x, seq, &arena)->next_ordinal, 252);
    assert_int_equal(steps_record(&x, seq, &arena)->skipped, 100);
    x.now_ms += FSM_SCHEDULE_HISTORY_MS + 1;
    assert_int_equal(steps_pause(&x, "s", false, 0), FSM_OK);
    (void) steps_tick(&x, seq, x.now_ms / 1000 + 1);
    rec = steps_record(&x, seq, &arena);
    assert_int_equal(rec->next_ordinal - rec->first_ordinal, 1);
    arena_done(&arena);
    steps_end(&x);
}

static int collect(void *arg, const struct fsm_schedule *s,
                   const Chronos__Internal__V1__ScheduleRecord *rec) {
    char *names = arg;

    assert_int_equal(s->seq, rec->seq);
    memcpy(names + strlen(names), rec->name, strlen(rec->name) + 1);
    return strcmp(rec->name, "c") == 0; /* enough */
}

/* Goal: scans by name and by number; alarms. */
static void test_reads(void **state) {
    static const char *const names[] = {"d", "b", "c", "a"};
    char got[16] = "";
    struct arena arena;
    struct fixture x;

    (void) state;
    arena_init(&arena, 1 << 20);
    steps_begin(&x);
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        (void) steps_put(&x, &(struct put_args){.name = names[i]});
    assert_int_equal(fsm_scan_schedules(x.f, slice_of("", 0), &arena, collect, got), 0);
    assert_string_equal(got, "abc");
    got[0] = '\0';
    assert_int_equal(fsm_scan_schedules(x.f, slice_of("d", 1), &arena, collect, got), 0);
    assert_string_equal(got, "d");
    got[0] = '\0';
    assert_int_equal(fsm_load_schedules(x.f, 1, &arena, collect, got), 0);
    assert_string_equal(got, "dbc");
    assert_int_equal(fsm_schedule_first(x.f)->next->seq, 2);
    assert_int_equal(fixture_do(&x, cmd_schedule_alarm(2, "no zone", x.now_ms)), FSM_OK);
    assert_true(x.out->results[0].changed);
    assert_true(fsm_schedule_by_seq(x.f, 2)->alarmed);
    assert_string_equal(steps_record(&x, 2, &arena)->alarm, "no zone");
    assert_int_equal(fixture_do(&x, cmd_schedule_alarm(2, "no zone", x.now_ms)), FSM_OK);
    assert_false(x.out->results[0].changed);
    assert_int_equal(fixture_do(&x, cmd_schedule_alarm(2, "", x.now_ms)), FSM_OK);
    assert_false(fsm_schedule_by_seq(x.f, 2)->alarmed);
    assert_int_equal(fixture_do(&x, cmd_schedule_alarm(9, "x", x.now_ms)), FSM_NOT_FOUND);
    arena_done(&arena);
    fsm_check_invariants(x.f);
    fixture_done(&x);
}

/* Goal: 10,000 open runs of one schedule and no more. */
static void test_open_cap(void **state) {
    const struct put_args p = {.name = "s", .overlap = P_(ALLOW)};
    static struct tick_args t[FSM_TICKS_MAX];
    struct fixture x;
    uint64_t seq;
    int64_t at = 1001;

    (void) state;
    steps_begin(&x);
    seq = steps_put(&x, &p);
    x.now_ms = 20000 * 1000;
    while (at <= 1000 + FSM_SCHEDULE_OPEN_MAX) {
        size_t n = 0;

        while (n < FSM_TICKS_MAX && at <= 1000 + FSM_SCHEDULE_OPEN_MAX)
            t[n++] = (struct tick_args){.tick_s = at++, .reason = R_(CATCH_UP)};
        assert_int_equal(fixture_do(&x, cmd_ticks(seq, 1, at - 1, t, n, x.now_ms)), FSM_OK);
    }
    assert_int_equal(fsm_schedule_by_seq(x.f, seq)->open_runs, FSM_SCHEDULE_OPEN_MAX);
    steps_assert_tick(steps_tick(&x, seq, 20000), 20000, R_(CAP), 0);
    steps_end(&x);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_version_of_name_taken_again),
        cmocka_unit_test(test_edit),
        cmocka_unit_test(test_delete),
        cmocka_unit_test(test_create),
        cmocka_unit_test(test_by_hand),
        cmocka_unit_test(test_job_record),
        cmocka_unit_test(test_history),
        cmocka_unit_test(test_reads),
        cmocka_unit_test(test_open_cap),
    };

    return cmocka_run_group_tests_name("fsm_schedules", tests, NULL, NULL);
}
