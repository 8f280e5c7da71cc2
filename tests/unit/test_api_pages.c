/* Goal: page tokens survive a round trip and nothing else passes; filters decide as documented;
 * the table of statuses says what the contract promises.
 * Method: round trips, every single-character change, and a table of records against filters. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "api/job_filter.h"
#include "api/page_token.h"
#include "api/status.h"
#include "base/err.h"

static const struct page_token sample = {
    .ascending = true, .next_seq = 77, .filter_hash = 0x0123456789abcdef, .first_index = 4711};

/* Goal: parse(format(t)) = t. */
static void test_token_round_trip(void **state) {
    char text[PAGE_TOKEN_TEXT_BYTES];
    struct page_token t = {0};

    (void) state;
    page_token_format(&sample, text);
    assert_int_equal(page_token_parse(text, &t), 0);
    assert_true(t.ascending);
    assert_int_equal(t.next_seq, sample.next_seq);
    assert_true(t.filter_hash == sample.filter_hash);
    assert_int_equal(t.first_index, sample.first_index);
}

/* Goal: any change of one character, any truncation and any excess is refused. */
static void test_token_damage(void **state) {
    char text[PAGE_TOKEN_TEXT_BYTES + 1] = {0};
    struct page_token t;

    (void) state;
    page_token_format(&sample, text);
    for (size_t i = 0; i < PAGE_TOKEN_TEXT_BYTES - 1; i++) {
        for (unsigned c = 1; c < 256; c++) {
            char was = text[i];

            if ((unsigned char) was == c)
                continue;
            text[i] = (char) c;
            assert_int_equal(page_token_parse(text, &t), PAGE_TOKEN_BAD);
            text[i] = was;
        }
    }
    text[PAGE_TOKEN_TEXT_BYTES - 1] = '0';
    assert_int_equal(page_token_parse(text, &t), PAGE_TOKEN_BAD);
    for (size_t i = 0; i < PAGE_TOKEN_TEXT_BYTES - 1; i++) {
        text[PAGE_TOKEN_TEXT_BYTES - 2 - i] = '\0';
        assert_int_equal(page_token_parse(text, &t), PAGE_TOKEN_BAD);
    }
}

static char *mutable(const char *s) {
    return (char *) (uintptr_t) s; /* protobuf-c has no const strings */
}

static enum job_filter_verdict verdict(const Chronos__V1__ListJobsRequest *req) {
    /* command {argv: "grep", "needle"}, name "people" */
    static uint8_t spec[] = {0x0a, 14,  0x0a, 4,   'g',  'r', 'e', 'p', 0x0a, 6,   'n', 'e',
                             'e',  'd', 'l',  'e', 0x62, 6,   'p', 'e', 'o',  'p', 'l', 'e'};
    Chronos__Internal__V1__JobRecord rec = CHRONOS__INTERNAL__V1__JOB_RECORD__INIT;
    enum job_filter_verdict v;
    struct job_filter f;
    struct errtext e;

    rec.spec.data = spec;
    rec.spec.len = sizeof(spec);
    rec.state = CHRONOS__V1__JOB_STATE__JOB_STATE_RUNNING;
    rec.worker_id = mutable("w1");
    rec.queue = mutable("fast");
    rec.created_at_ms = 1000;
    assert_int_equal(job_filter_init(&f, req, &e), 0);
    v = job_filter_apply(&f, &rec);
    job_filter_done(&f);
    return v;
}

/* Goal: each filter takes and skips; the time bounds stop a scan in the right direction only. */
static void test_filters(void **state) {
    Chronos__V1__ListJobsRequest req = CHRONOS__V1__LIST_JOBS_REQUEST__INIT;
    Chronos__V1__JobState states[] = {CHRONOS__V1__JOB_STATE__JOB_STATE_PENDING,
                                      CHRONOS__V1__JOB_STATE__JOB_STATE_RUNNING};

    (void) state;
    assert_int_equal(verdict(&req), JOB_FILTER_TAKE);
    req.states = states;
    req.n_states = 1;
    assert_int_equal(verdict(&req), JOB_FILTER_SKIP);
    req.n_states = 2;
    assert_int_equal(verdict(&req), JOB_FILTER_TAKE);
    req.worker_id = mutable("w2");
    assert_int_equal(verdict(&req), JOB_FILTER_SKIP);
    req.worker_id = mutable("w1");
    req.queue = mutable("fas");
    assert_int_equal(verdict(&req), JOB_FILTER_SKIP);
    req.queue = mutable("fast");
    assert_int_equal(verdict(&req), JOB_FILTER_TAKE);
    req.command_contains = mutable("eedl");
    assert_int_equal(verdict(&req), JOB_FILTER_TAKE);
    req.command_contains = mutable("people");
    assert_int_equal(verdict(&req), JOB_FILTER_TAKE);
    req.command_contains = mutable("grep\n\x06needle"); /* matches the encoding, not a text */
    assert_int_equal(verdict(&req), JOB_FILTER_SKIP);
    req.command_contains = mutable("");
    req.created_after_ms = 1000;
    req.created_before_ms = 1001;
    assert_int_equal(verdict(&req), JOB_FILTER_TAKE);
    req.created_after_ms = 1001;
    req.created_before_ms = 2000;
    assert_int_equal(verdict(&req), JOB_FILTER_STOP);
    req.oldest_first = true;
    assert_int_equal(verdict(&req), JOB_FILTER_SKIP);
    req.created_after_ms = 0;
    req.created_before_ms = 1000;
    assert_int_equal(verdict(&req), JOB_FILTER_STOP);
    req.oldest_first = false;
    assert_int_equal(verdict(&req), JOB_FILTER_SKIP);
}

/* Goal: bad filters name their field; hashes tell listings apart. */
static void test_filter_errors_and_hash(void **state) {
    Chronos__V1__ListJobsRequest req = CHRONOS__V1__LIST_JOBS_REQUEST__INIT;
    Chronos__V1__JobState bad[] = {(Chronos__V1__JobState) 17};
    struct job_filter a, b;
    struct errtext e;

    (void) state;
    req.states = bad;
    req.n_states = 1;
    assert_int_equal(job_filter_init(&a, &req, &e), JOB_FILTER_BAD);
    assert_string_equal(e.s, "states[0]: 17 is no job state");
    job_filter_done(&a);
    req.n_states = 0;
    req.created_before_ms = -1;
    assert_int_equal(job_filter_init(&a, &req, &e), JOB_FILTER_BAD);
    assert_non_null(strstr(e.s, "created_before_ms"));
    job_filter_done(&a);
    req.created_before_ms = 0;
    assert_int_equal(job_filter_init(&a, &req, &e), 0);
    req.queue = mutable("x");
    assert_int_equal(job_filter_init(&b, &req, &e), 0);
    assert_true(job_filter_hash(&a) != job_filter_hash(&b));
    job_filter_done(&b);
    req.queue = mutable("");
    req.worker_id = mutable("x"); /* the same text in another field */
    assert_int_equal(job_filter_init(&b, &req, &e), 0);
    assert_true(job_filter_hash(&a) != job_filter_hash(&b));
    job_filter_done(&a);
    job_filter_done(&b);
}

/* Goal: the exact words and codes that clients and operators rely on. */
static void test_statuses(void **state) {
    struct status_answer s;
    struct errtext e;

    (void) state;
    s = status_of(STATUS_WRITE, REPLICA_FULL, 5000, &e);
    assert_int_equal(s.code, RPC_RESOURCE_EXHAUSTED);
    assert_int_equal(s.metadata, STATUS_RETRY_AFTER);
    s = status_of(STATUS_WRITE, REPLICA_UNKNOWN, 5000, &e);
    assert_int_equal(s.code, RPC_DEADLINE_EXCEEDED);
    assert_string_equal(e.s,
                        "outcome unknown: the cluster did not confirm within 5 s; "
                        "retry with the same idempotency key");
    s = status_of(STATUS_WRITE, REPLICA_NO_LEADER, 350, &e);
    assert_int_equal(s.code, RPC_DEADLINE_EXCEEDED);
    assert_string_equal(e.s, "not submitted: no leader within 350 ms; safe to retry");
    s = status_of(STATUS_WRITE, REPLICA_STOPPING, 5000, &e);
    assert_int_equal(s.code, RPC_UNAVAILABLE);
    assert_int_equal(s.metadata, STATUS_LEADER_ADDRESS);
    s = status_of(STATUS_READ, REPLICA_NO_LEADER, 1500, &e);
    assert_int_equal(s.code, RPC_UNAVAILABLE);
    assert_non_null(strstr(e.s, "within 1500 ms"));
    /* The answer is on its way 50 ms or a tenth before the client gives up; never in the past. */
    assert_true(status_answer_by(MONO_NEVER, (struct mono){7}).ns == MONO_NEVER.ns);
    assert_true(status_answer_by((struct mono){3 * NS_PER_S}, (struct mono){NS_PER_S}).ns ==
                2950 * NS_PER_MS);
    assert_true(status_answer_by((struct mono){1100 * NS_PER_MS}, (struct mono){NS_PER_S}).ns ==
                1090 * NS_PER_MS);
    assert_true(status_answer_by((struct mono){5}, (struct mono){NS_PER_S}).ns == 5);
    assert_int_equal(status_wait_ms((struct mono){0}, MONO_NEVER, 5000), 5000);
    assert_int_equal(status_wait_ms((struct mono){NS_PER_S}, (struct mono){2 * NS_PER_S}, 5000),
                     1000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_token_round_trip), cmocka_unit_test(test_token_damage),
        cmocka_unit_test(test_filters),          cmocka_unit_test(test_filter_errors_and_hash),
        cmocka_unit_test(test_statuses),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
