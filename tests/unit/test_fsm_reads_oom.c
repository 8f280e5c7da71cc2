/* Every allocation of what reads the state machine fails once, and of its parts when they are
 * called by themselves. (Applying, writing back and opening are in test_fsm_oom.c.) A read that
 * failed for lack of memory changed nothing: the same read then answers. */
#include "schedule_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fsm/idem.h"
#include "fsm/job_id.h"
#include "fsm/job_state.h"
#include "fsm/overlay.h"
#include "fsm/record.h"
#include "nth_memory.h"

#define JOBS 30

/* ---- reads -------------------------------------------------------------------------------------
 */

struct reads {
    struct fixture x;
    uint8_t digest[16];
};

static int count_job(void *arg, uint64_t seq, const Chronos__Internal__V1__JobRecord *rec) {
    assert_true(seq > 0 && rec->state > 0);
    (*(unsigned *) arg)++;
    return 0;
}

static int count_schedule(void *arg, const struct fsm_schedule *s,
                          const Chronos__Internal__V1__ScheduleRecord *rec) {
    assert_true(s->seq == rec->seq);
    (*(unsigned *) arg)++;
    return 0;
}

static int read_schedules(struct fsm *f, struct arena *arena) {
    Chronos__Internal__V1__ScheduleRecord *rec = NULL;
    Chronos__Internal__V1__TickRecord *tick = NULL;
    const struct fsm_schedule *s = NULL;
    unsigned seen = 0;
    int rc = fsm_schedule_find(f, slice_of("a", 1), &s);

    if (rc == 0)
        rc = fsm_read_schedule(f, s->seq, arena, &rec);
    if (rc == 0)
        rc = fsm_read_tick(f, s->seq, rec->first_ordinal, arena, &tick);
    if (rc == 0)
        rc = fsm_scan_schedules(f, slice_of("", 0), arena, count_schedule, &seen);
    if (rc == 0)
        rc = fsm_load_schedules(f, 0, arena, count_schedule, &seen);
    assert_true(rc < 0 || seen == 4);
    return rc;
}

static int reads_scenario(void *arg) {
    struct reads *r = arg;
    Chronos__Internal__V1__JobRecord *job = NULL;
    Chronos__Internal__V1__WorkerRecord *worker = NULL;
    struct arena arena;
    uint8_t digest[16];
    unsigned seen = 0;
    int rc;

    arena_init(&arena, 1UL << 20);
    rc = fsm_read_job(r->x.f, 1, &arena, &job);
    if (rc == 0)
        rc = fsm_read_worker(r->x.f, "w1", &arena, &worker);
    if (rc == 0)
        rc = fsm_scan_jobs(r->x.f, 1, true, &arena, count_job, &seen);
    if (rc == 0)
        rc = fsm_scan_jobs(r->x.f, UINT64_MAX, false, &arena, count_job, &seen);
    assert_true(rc < 0 || seen >= 2 * JOBS);
    if (rc == 0)
        rc = read_schedules(r->x.f, &arena);
    arena_done(&arena);
    fsm_digest(r->x.f, digest);
    assert_memory_equal(digest, r->digest, sizeof(digest));
    return rc;
}

/* Goal: reads fail clean and leave the state as it was. Method: the same state machine all along,
 * with nothing left to write back: a write-back that fails ends it (test_fsm_oom.c). */
static void test_reads(void **state) {
    static const struct tick_args ticks[] = {{2, 3, 2, R_(MISSED)}, {5, 0, 0, R_(ON_TIME)}};
    struct reads r = {0};

    (void) state;
    fixture_init(&r.x, NULL);
    r.x.now_ms = 1000;
    (void) fixture_do(&r.x, cmd_register("w1", 1, 100, 1, NULL, 0, 1000));
    for (int i = 0; i < JOBS; i++)
        (void) fixture_do(&r.x, cmd_submit("spec", "", "", 2, 1000));
    (void) fixture_do(&r.x, cmd_put_schedule(&(struct put_args){.name = "a"}, 1000));
    (void) fixture_do(&r.x, cmd_put_schedule(&(struct put_args){.name = "b"}, 1000));
    (void) fixture_do(&r.x, cmd_ticks(1, 1, 5, ticks, 2, 6000));
    assert_int_equal(fsm_write_back(r.x.f), 0);
    fsm_digest(r.x.f, r.digest);
    assert_true(nth_memory_loop(reads_scenario, &r) >= 5);
    fsm_check_invariants(r.x.f);
    fixture_done(&r.x);
}

/* ---- parts -------------------------------------------------------------------------------------
 */

static int overlay_scenario(void *arg) {
    struct overlay_entry *e = NULL;
    struct overlay o;
    uint8_t *value = NULL;
    int rc = 0;

    (void) arg;
    overlay_init(&o);
    for (uint64_t i = 1; rc == 0 && i <= 600; i++) {
        uint8_t key[RECORD_JOB_KEY_BYTES];

        rc = overlay_obtain(&o, record_job_key(i, key), &e);
        if (rc == 0)
            rc = overlay_resize(&o, e, 100 + i, &value);
        if (rc == 0)
            memset(value, 1, 100 + i);
    }
    assert_true(rc < 0 || o.count == 600);
    overlay_done(&o);
    return rc;
}

static int idem_scenario(void *arg) {
    struct idem_front front;
    struct idem q;
    uint64_t pushed = 0, popped = 0;
    int rc = 0;

    (void) arg;
    idem_init(&q);
    for (uint64_t i = 1; rc == 0 && i <= 3000; i++) {
        rc = idem_push(&q, (int64_t) i, i, slice_of("a key of some bytes", 19));
        pushed += rc == 0;
    }
    while (idem_peek(&q, &front)) { /* what was pushed is all there, in order */
        assert_int_equal(front.job_seq, ++popped);
        idem_pop(&q);
    }
    assert_int_equal(popped, pushed);
    idem_done(&q);
    return rc;
}

static void test_parts(void **state) {
    (void) state;
    assert_true(nth_memory_loop(overlay_scenario, NULL) > 2);
    assert_true(nth_memory_loop(idem_scenario, NULL) > 1);
}

/* ---- codecs: the encoder's buffer is all there is -----------------------------------------------
 */

static int codec_scenario(void *arg) {
    const struct bytes *command = arg;
    struct record_name name = {.seq = 77}, back;
    struct wire_reader wire;
    struct wire_field field;
    Chronos__V1__FailureReason reason;
    Chronos__V1__JobState job_state;
    struct command_items items;
    struct command_view view;
    struct slice item;
    struct buf b;
    uint64_t seq = 0;
    size_t at = 0;
    int rc;

    buf_init(&b, 4096);
    rc = record_encode(&record_shape_name, &name, &b);
    if (rc == 0)
        rc = record_decode(&record_shape_name, slice_of(b.data, b.len), &back, &at);
    if (rc == 0)
        rc = wire_decode(slice_of(b.data, b.len), record_shape_name.table, record_shape_name.len,
                         &back, &at);
    if (rc == 0)
        assert_int_equal(back.seq, 77);
    if (rc == 0) {
        wire = wire_reader_of(slice_of(b.data, b.len));
        rc = wire_next(&wire, &field);
    }
    if (rc == 0) {
        wire = wire_reader_of(slice_of("\x05", 1));
        rc = wire_next_varint(&wire, &seq);
    }
    buf_done(&b);
    if (rc == 0)
        rc = command_check(bytes_slice(command), NULL);
    if (rc == 0)
        rc = command_parse(bytes_slice(command), &view, NULL);
    if (rc == 0) {
        items = command_items_of(&view);
        rc = command_items_next(&items, &item);
    }
    if (rc == 0)
        rc = job_id_parse("j11", &seq);
    if (rc == 0)
        rc = job_state_from_string("running", &job_state);
    if (rc == 0)
        rc = failure_reason_from_string("signal", &reason);
    return rc;
}

static void test_codecs(void **state) {
    struct bytes *command = cmd_submit("spec", "key", "hash", 2, 1000);

    (void) state;
    assert_int_equal(nth_memory_loop(codec_scenario, command), 1);
    (void) bytes_unref(command);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads),
        cmocka_unit_test(test_parts),
        cmocka_unit_test(test_codecs),
    };

    return cmocka_run_group_tests_name("fsm_reads_oom", tests, NULL, NULL);
}
