#include "fsm/command.h"

#include "fsm/record.h"
#include "schedule_fixture.h"

#include "base/rand.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define O(x) CHRONOS__V1__ATTEMPT_OUTCOME__ATTEMPT_OUTCOME_##x

#define SAMPLES 19

static void samples(struct bytes *ret[SAMPLES]) {
    static const uint64_t held[2][2] = {{5, 6}, {7, 8}};
    static const struct tick_args ticks[] = {{7, 9, 2, R_(MISSED)}, {10, 0, 0, R_(ON_TIME)}};
    static const int64_t past[] = {1, 300, 70000};
    Chronos__Internal__V1__ScheduleHandover h = CHRONOS__INTERNAL__V1__SCHEDULE_HANDOVER__INIT;

    ret[0] = cmd_submit("spec", "key", "hash", 3, 42);
    ret[1] = cmd_assign(9, "worker", 77, 42);
    ret[2] = cmd_register("worker", 77, 4, 2, held, 2, 42);
    ret[3] = cmd_update(9, 12, O(FAILED), CHRONOS__V1__FAILURE_REASON__FAILURE_REASON_SIGNAL, 42);
    ret[4] = cmd_cancel(9, 42);
    ret[5] = cmd_lose("worker", 77, 42);
    ret[6] = cmd_submit("", "", "", 0, 42);
    ret[7] = cmd_set_node(3, 0xd1, "peer:7400", "client:7401", 1, 42);
    ret[8] = cmd_drain(3, "", true, 30000, 42);
    ret[9] = cmd_drain(0, "worker", false, 0, 42);
    ret[10] = cmd_set_feature_level(1, 42);
    ret[11] = cmd_put_schedule(&(struct put_args){.name = "s", .max_runs = 3}, 42);
    ret[12] = cmd_delete_schedule("s", 4, true, 42);
    ret[13] = cmd_pause_schedule("s", true, 99, "why", 42);
    ret[14] = cmd_pause_schedule("", false, 0, "", 42);
    ret[15] = cmd_ticks(5, 2, 11, ticks, 2, 42);
    ret[16] = cmd_run_schedule("s", R_(BACKFILL), past, 3, true, "key", "hash", 42);
    ret[17] = cmd_schedule_alarm(5, "no zone", 42);
    h.at_ms = 41;
    h.count = 300;
    h.keep_waiting = true;
    ret[18] = cmd_put_schedule(
        &(struct put_args){.name = "s", .replace = true, .version = 4, .handover = &h}, 42);
}

static void samples_done(struct bytes *s[SAMPLES]) {
    for (size_t i = 0; i < SAMPLES; i++)
        s[i] = bytes_unref(s[i]);
}

/* Goal: what command_encode makes is accepted, carries the stamp, and re-stamping changes the time
 * only: the bytes decode with protobuf-c to the same command. */
static void test_encode_stamp_check(void **state) {
    struct bytes *s[SAMPLES];

    (void) state;
    samples(s);
    for (size_t i = 0; i < SAMPLES; i++) {
        Chronos__Internal__V1__LogCommand *c;
        struct errtext e = {0};
        struct command_view v;

        assert_int_equal(command_check(bytes_slice(s[i]), &e), 0);
        for (int64_t now = 0; now <= 1700000000000; now += 1700000000000 / 2) {
            command_stamp(s[i], (struct wall){.ms = now});
            assert_int_equal(command_parse(bytes_slice(s[i]), &v, &e), 0);
            assert_true(v.now_ms == now);
            assert_true(v.stamp_is_last);
            assert_int_equal(v.items_count, 1);
            c = chronos__internal__v1__log_command__unpack(NULL, s[i]->len, s[i]->data);
            assert_non_null(c);
            assert_int_equal(c->version, FSM_COMMAND_VERSION);
            assert_int_equal(c->body_case, v.kind);
            assert_true(c->now_ms == (uint64_t) now);
            chronos__internal__v1__log_command__free_unpacked(c, NULL);
        }
    }
    samples_done(s);
}

/* Goal: a clock before 1970 stamps 0, and an unstamped command is refused by apply, not applied at
 * some time. */
static void test_stamp_limits(void **state) {
    Chronos__Internal__V1__LogCommand c = CHRONOS__INTERNAL__V1__LOG_COMMAND__INIT;
    Chronos__Internal__V1__CancelJob body = CHRONOS__INTERNAL__V1__CANCEL_JOB__INIT;
    struct bytes *b = NULL;
    struct fixture x;

    (void) state;
    c.body_case = CHRONOS__INTERNAL__V1__LOG_COMMAND__BODY_CANCEL_JOB;
    c.cancel_job = &body;
    assert_int_equal(command_encode(&c, &b), 0);
    assert_int_equal(command_check(bytes_slice(b), NULL), 0);
    fixture_init(&x, NULL);
    assert_int_equal(fixture_apply(&x, b), ERR_PROTO);
    fixture_done(&x);
    fixture_init(&x, NULL);
    command_stamp(b, (struct wall){.ms = -5});
    assert_int_equal(fixture_apply(&x, b), 0);
    assert_true(fsm_last_now_ms(x.f) == 0);
    assert_int_equal(x.out->results_count, 0);
    fixture_done(&x);
    (void) bytes_unref(b);
}

/* Goal: each kind of malformed or foreign command has its error and a text, in check and in apply.
 */
static void test_refused(void **state) {
#define STAMP "\xa1\x06\x01\0\0\0\0\0\0\0"
    static const struct {
        const char *bytes;
        size_t len;
        int apply, check;
    } cases[] = {
        {"\x08\x02\x12\0" STAMP, 14, ERR_VERSION, ERR_VERSION},       /* version 2 */
        {"\x12\0" STAMP, 12, ERR_VERSION, ERR_VERSION},               /* no version */
        {"\x08\x01" STAMP, 12, ERR_VERSION, ERR_VERSION},             /* no body */
        {"\x08\x01\x92\x01\0" STAMP, 15, ERR_VERSION, ERR_VERSION},   /* body 18 */
        {"\x08\x01\x12\0\x1a\0" STAMP, 16, ERR_PROTO, ERR_PROTO},     /* two bodies */
        {"\x08\x01\x10\x05" STAMP, 14, ERR_PROTO, ERR_PROTO},         /* a body that is a number */
        {"\x08\x01\x12\x05\x0a" STAMP, 15, ERR_PROTO, ERR_PROTO},     /* an item beyond its body */
        {"\x08\x01\x12\x02\x08\x01" STAMP, 16, ERR_PROTO, ERR_PROTO}, /* item of the wrong type */
        {"\x08\x01\x12\x04\x0a\x02\x08\x01" STAMP, 18, ERR_PROTO, ERR_PROTO}, /* spec as number */
        {"\x08\x01" STAMP "\x12\0", 14, 0, ERR_PROTO},             /* the time is not last */
        {"\x08\x01\x12\0", 4, 0, ERR_PROTO},                       /* no time */
        {"\x08\x01\x12\0\xa0\x06\x01", 7, ERR_PROTO, ERR_PROTO},   /* the time as a varint */
        {"\x08\x01\x12\0\xa1\x06\x01\0", 8, ERR_PROTO, ERR_PROTO}, /* a short time */
        {"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11, ERR_PROTO, ERR_PROTO},
        {"\x00\x01", 2, ERR_PROTO, ERR_PROTO}, /* field number 0 */
        {"\x0b", 1, ERR_PROTO, ERR_PROTO},     /* a group */
    };

    (void) state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct bytes *b = bytes_copy(cases[i].bytes, cases[i].len);
        struct fixture x;
        struct errtext e = {0};

        assert_non_null(b);
        fixture_init(&x, NULL);
        assert_int_equal(command_check(bytes_slice(b), &e), cases[i].check);
        assert_true(strlen(e.s) > 10);
        assert_int_equal(fixture_apply(&x, b), cases[i].apply);
        assert_true(cases[i].apply == 0 || strlen(x.err.s) > 10);
        fixture_done(&x);
        (void) bytes_unref(b);
    }
#undef STAMP
}

/* Goal: a feature level that this program does not know is kept out of the log, with its number. */
static void test_feature_level_check(void **state) {
    struct bytes *known = cmd_set_feature_level(FSM_FEATURE_LEVEL_MAX, 1);
    struct bytes *unknown = cmd_set_feature_level(FSM_FEATURE_LEVEL_MAX + 1, 1);
    struct errtext e = {0};

    (void) state;
    assert_int_equal(command_check(bytes_slice(known), &e), 0);
    assert_int_equal(command_check(bytes_slice(unknown), &e), ERR_VERSION);
    assert_non_null(strstr(e.s, "SetFeatureLevel 2: this program knows levels up to 1"));
    (void) bytes_unref(known);
    (void) bytes_unref(unknown);
}

/* Goal: one item more than the limit is refused before anything is applied; the limit is not. */
static void test_item_limit(void **state) {
    Chronos__Internal__V1__LogCommand c = CHRONOS__INTERNAL__V1__LOG_COMMAND__INIT;
    Chronos__Internal__V1__SubmitJob body = CHRONOS__INTERNAL__V1__SUBMIT_JOB__INIT;
    Chronos__Internal__V1__SubmitJobItem item = CHRONOS__INTERNAL__V1__SUBMIT_JOB_ITEM__INIT;
    Chronos__Internal__V1__SubmitJobItem *items[FSM_ITEMS_MAX + 1];
    struct fixture x;

    (void) state;
    for (size_t i = 0; i < ARRAY_LEN(items); i++)
        items[i] = &item;
    body.items = items;
    c.body_case = CHRONOS__INTERNAL__V1__LOG_COMMAND__BODY_SUBMIT_JOB;
    c.submit_job = &body;
    for (size_t n = FSM_ITEMS_MAX; n <= FSM_ITEMS_MAX + 1; n++) {
        bool fits = n <= FSM_ITEMS_MAX;
        struct bytes *b;

        body.n_items = n;
        b = fixture_encode(&c, 1);
        fixture_init(&x, NULL);
        assert_int_equal(command_check(bytes_slice(b), NULL), fits ? 0 : ERR_PROTO);
        assert_int_equal(fixture_apply(&x, b), fits ? 0 : ERR_PROTO);
        if (fits) {
            assert_int_equal(x.out->results_count, n);
            assert_int_equal(x.out->events_count, n);
            for (size_t i = 0; i < n; i++) /* results and events in the order of the items */
                assert_true(x.out->results[i].job_seq == i + 1 &&
                            x.out->events[i].job_seq == i + 1);
            fsm_check_invariants(x.f);
        }
        fixture_done(&x);
        (void) bytes_unref(b);
    }
}

/* Goal: no bytes crash check, describe or apply; what check accepts, apply applies (the promise of
 * command_check).
 * Method: valid commands with random bytes changed, cut and inserted; printed seed. */
static void test_mutations(void **state) {
    struct rng rng = rng_seed(99);
    unsigned accepted = 0, refused = 0;
    struct bytes *s[SAMPLES];
    struct fixture x;

    (void) state;
    print_message("seed 99\n");
    samples(s);
    fixture_init(&x, NULL);
    for (int i = 0; i < 30000; i++) {
        const struct bytes *from = s[rng_below(&rng, SAMPLES)];
        struct bytes *b = bytes_copy(from->data, from->len);
        char text[200];
        int64_t now;
        int check, apply;

        assert_non_null(b);
        for (uint64_t n = rng_below(&rng, 4); n > 0; n--)
            b->data[rng_below(&rng, b->len)] = (uint8_t) rng_next(&rng);
        if (rng_chance(&rng, 100))
            b->len = (uint32_t) rng_range(&rng, 1, b->len);
        check = command_check(bytes_slice(b), NULL);
        fsm_command_describe(bytes_slice(b), text, sizeof(text), &now);
        assert_true(strlen(text) > 0);
        apply = fixture_apply(&x, b);
        if (check == 0 && apply == ERR_PROTO) /* the one thing check leaves to the stamp */
            assert_non_null(strstr(x.err.s, "carries no time"));
        else if (check == 0)
            assert_int_equal(apply, 0);
        check == 0 ? accepted++ : refused++;
        if (apply < 0) {
            fixture_done(&x);
            fixture_init(&x, NULL);
        }
        (void) bytes_unref(b);
    }
    assert_true(accepted > 1000);
    assert_true(refused > 1000);
    fixture_done(&x);
    samples_done(s);
}

/* Goal: descriptions are one line, name the command and show no payload. */
static void test_describe(void **state) {
    static const char *const want[SAMPLES] = {
        "SubmitJob items=1 first: spec of 4 bytes",
        "AssignJob items=1 first: job 9 to worker worker",
        "RegisterWorker items=1 first: worker worker slots=4 node=2",
        "UpdateJobStatus items=1 first: job 9 token=12 outcome=2",
        "CancelJob items=1 first: job 9",
        "LoseWorker items=1 first: worker worker",
        "SubmitJob items=1 first: spec of 0 bytes",
        "SetNode node=3 peer=peer:7400 client=client:7401 feature_max=1",
        "Drain on node=3 timeout_ms=30000",
        "Drain off worker worker timeout_ms=0",
        "SetFeatureLevel level=1",
        "PutSchedule s",
        "DeleteSchedule s",
        "PauseSchedule s on",
        "PauseSchedule all off",
        "ProcessTicks items=1 first: schedule 5 generation=2 watermark_s=11",
        "RunSchedule s",
        "SetScheduleAlarm schedule 5 on",
        "PutSchedule s",
    };
    struct bytes *s[SAMPLES];
    char text[100];
    int64_t now;

    (void) state;
    samples(s);
    for (size_t i = 0; i < SAMPLES; i++) {
        fsm_command_describe(bytes_slice(s[i]), text, sizeof(text), &now);
        assert_string_equal(text, want[i]);
        assert_true(now == 42);
        fsm_command_describe(bytes_slice(s[i]), text, 8, &now); /* cut, not overrun */
        assert_int_equal(strlen(text), 7);
    }
    fsm_command_describe(slice_of(NULL, 0), text, sizeof(text), &now);
    assert_string_equal(text, "");
    samples_done(s);
}

static struct slice random_slice(struct rng *rng, const uint8_t *pool) {
    return slice_of(pool, rng_chance(rng, 300) ? 0 : rng_below(rng, 300));
}

/* Goal: the in-place codec and protobuf-c mean the same bytes, both ways, for every field.
 * Method: random job records; encode here, unpack and repack there: identical bytes; decode again.
 */
static void test_codec_is_protobuf(void **state) {
    struct rng rng = rng_seed(5);
    uint8_t pool[300];
    struct buf b;

    (void) state;
    buf_init(&b, 1 << 20);
    memset(pool, 'p', sizeof(pool));
    for (int i = 0; i < 5000; i++) {
        struct record_job rec = {
            .spec = random_slice(&rng, pool),
            .state = (int32_t) rng_below(&rng, 6),
            .attempt = (uint32_t) rng_below(&rng, 300),
            .max_attempts = (uint32_t) rng_next(&rng),
            .worker_id = random_slice(&rng, pool),
            .fencing_token = rng_next(&rng) >> rng_below(&rng, 64),
            .cancel_requested = rng_chance(&rng, 500),
            .created_at_ms = (int64_t) rng_next(&rng) >> rng_below(&rng, 64),
            .started_at_ms = (int64_t) rng_next(&rng),
            .finished_at_ms = 0,
            .exit_code = (int32_t) rng_below(&rng, 512) - 256,
            .term_signal = (int32_t) rng_below(&rng, 30),
            .failure_reason = (int32_t) rng_below(&rng, 7),
            .failure_message = random_slice(&rng, pool),
            .output_tail = random_slice(&rng, pool),
            .output_bytes = rng_next(&rng),
            .output_truncated = rng_chance(&rng, 500),
            .created_index = rng_next(&rng) >> 20,
            .updated_index = rng_next(&rng) >> 20,
            .queue = random_slice(&rng, pool),
            .lost_attempts = rng_below(&rng, 3),
            .released_attempts = rng_below(&rng, 300),
        };
        Chronos__Internal__V1__JobRecord *m;
        struct record_job back;
        size_t at = 0, n;
        uint8_t *packed;

        assert_int_equal(record_encode(&record_shape_job, &rec, &b), 0);
        m = chronos__internal__v1__job_record__unpack(NULL, b.len, b.data);
        assert_non_null(m);
        assert_int_equal(m->exit_code, rec.exit_code);
        assert_true(m->created_at_ms == rec.created_at_ms);
        n = chronos__internal__v1__job_record__get_packed_size(m);
        assert_int_equal(n, b.len);
        packed = malloc(n + 1);
        assert_non_null(packed);
        assert_int_equal(chronos__internal__v1__job_record__pack(m, packed), n);
        assert_memory_equal(packed, b.data, n);
        assert_int_equal(record_decode(&record_shape_job, slice_of(packed, n), &back, &at), 0);
        assert_int_equal(back.exit_code, rec.exit_code);
        assert_int_equal(back.spec.len, rec.spec.len);
        assert_true(back.output_bytes == rec.output_bytes);
        assert_int_equal(back.lost_attempts, rec.lost_attempts);
        assert_int_equal(m->released_attempts, rec.released_attempts);
        assert_int_equal(back.released_attempts, rec.released_attempts);
        free(packed);
        chronos__internal__v1__job_record__free_unpacked(m, NULL);
    }
    buf_done(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_encode_stamp_check),
        cmocka_unit_test(test_stamp_limits),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_feature_level_check),
        cmocka_unit_test(test_item_limit),
        cmocka_unit_test(test_mutations),
        cmocka_unit_test(test_describe),
        cmocka_unit_test(test_codec_is_protobuf),
    };

    return cmocka_run_group_tests_name("command", tests, NULL, NULL);
}
