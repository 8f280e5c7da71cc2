/* The benchmark's own parts: its command line, and its reader of protobuf's wire format. */
#include "base/rand.h"
#include "bench/options.h"
#include "bench/pb_scan.h"
#include "bench/requests.h"

#include "chronos/v1/job_service.pb-c.h"

#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define WORDS_MAX 16
#define LINE_BYTES 128

/* Split a line at blanks and parse it. The line must live as long as the options. */
static int parse_line(char *line, struct bench_options *o, struct errtext *why) {
    static char name[] = "bench";
    char *argv[WORDS_MAX + 1] = {name};
    char *save = NULL;
    int argc = 1;

    for (char *w = strtok_r(line, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
        assert_true(argc < WORDS_MAX);
        argv[argc++] = w;
    }
    return options_parse(argc, argv, o, why);
}

static int parse(const char *text, char line[LINE_BYTES], struct bench_options *o,
                 struct errtext *why) {
    (void) snprintf(line, LINE_BYTES, "%s", text);
    return parse_line(line, o, why);
}

/* Goal: without options everything is selected that takes no minutes, with the documented numbers.
 * Method: parse nothing.
 */
static void test_defaults(void **state) {
    struct bench_options o;
    struct errtext why = {""};
    char line[LINE_BYTES];

    (void) state;
    assert_int_equal(parse("", line, &o, &why), 0);
    for (size_t i = 0; i < BENCH_KINDS; i++)
        assert_int_equal(o.selected[i], i < BENCH_KINDS_SHORT);
    assert_int_equal(o.jobs, 1000000);
    assert_int_equal(o.state_bytes, 256U << 20);
    assert_int_equal(o.concurrency_count, 4);
    assert_int_equal(o.concurrency[3], 256);
    assert_false(o.quick);
    assert_string_equal(o.dir, ".");
}

/* Goal: what is given is what is stored. Method: one line with much in it, one with an address. */
static void test_values(void **state) {
    struct bench_options o;
    struct errtext why = {""};
    char line[LINE_BYTES];

    (void) state;
    assert_int_equal(parse("--quick --only submit,idle --concurrency 1,8 --payload 4KiB "
                           "--duration 1s500ms",
                           line, &o, &why),
                     0);
    assert_true(o.quick && o.selected[BENCH_SUBMIT] && o.selected[BENCH_IDLE]);
    assert_false(o.selected[BENCH_FAILOVER] || o.selected[BENCH_E2E_NOOP]);
    assert_int_equal(o.concurrency_count, 2);
    assert_int_equal(o.concurrency[1], 8);
    assert_int_equal(o.payload_bytes, 4096);
    assert_int_equal(o.duration_ms, 1500);
    assert_int_equal(parse("--address a:1,b:65535 -o json --via any", line, &o, &why), 0);
    assert_int_equal(o.addresses_count, 2);
    assert_string_equal(o.addresses[1], "b:65535");
    assert_true(o.json && o.via_any && o.selected[BENCH_SUBMIT]);
    /* Nothing that needs processes of one's own. */
    assert_false(o.selected[BENCH_FAILOVER] || o.selected[BENCH_IDLE]);
    assert_int_equal(
        parse("--only read,install --state 2GiB --jobs 5000 --lease-reads", line, &o, &why), 0);
    assert_true(o.selected[BENCH_READ] && o.selected[BENCH_INSTALL] && o.lease_reads);
    assert_true(o.state_bytes == (uint64_t) 2 << 30 && o.jobs == 5000);
    assert_false(o.selected[BENCH_SNAPSHOT] || o.selected[BENCH_SUBMIT]);
    assert_int_equal(parse("--full", line, &o, &why), 0);
    for (size_t i = 0; i < BENCH_KINDS; i++)
        assert_true(o.selected[i]);
}

/* Goal: what is wrong is refused and named. Method: a table of lines and a word of the message. */
static void test_refusals(void **state) {
    static const struct {
        const char *line;
        const char *word;
    } bad[] = {{"--only reading", "reading"},
               {"--concurrency 0", "--concurrency"},
               {"--concurrency 1025", "1025"},
               {"--concurrency 1,2,3,4,5,6,7,8,9", "at most"},
               {"--concurrency ,", "at least"},
               {"--duration 1", "--duration"},
               {"--duration 50ms", "100ms"},
               {"--payload 65KiB", "64 KiB"},
               {"--address localhost", "HOST:PORT"},
               {"--address localhost:0", "HOST:PORT"},
               {"--address h:70000", "HOST:PORT"},
               {"--via follower", "leader or any"},
               {"--channels 17", "17"},
               {"--address h:1 --only failover", "--address"},
               {"--address h:1 --only install", "install"},
               {"--address h:1 --full", "--full"},
               {"--address h:1 --lease-reads", "--lease-reads"},
               {"--jobs 10", "1000"},
               {"--state 100", "1MiB"},
               {"--state big", "--state"},
               {"--only", "needs a value"},
               {"--nope", "--nope"},
               {"extra", "extra"}};
    char line[LINE_BYTES];

    (void) state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct bench_options o;
        struct errtext why = {""};

        assert_int_equal(parse(bad[i].line, line, &o, &why), 2);
        if (!strstr(why.s, bad[i].word))
            fail_msg("%s: %s", bad[i].line, why.s);
    }
}

/* Goal: a message packed by protobuf-c is read field by field. Method: a reply with every kind of
 * field that the benchmark looks at. */
static void test_scan_reply(void **state) {
    char id[] = "j4d3f4";
    Chronos__V1__SubmitJobResult good = CHRONOS__V1__SUBMIT_JOB_RESULT__INIT;
    Chronos__V1__SubmitJobResult bad = CHRONOS__V1__SUBMIT_JOB_RESULT__INIT;
    Chronos__V1__SubmitJobResult *results[] = {&good, &bad};
    Chronos__V1__SubmitJobsResponse m = CHRONOS__V1__SUBMIT_JOBS_RESPONSE__INIT;
    struct pb_field f, in;
    struct pb_scan s, inner;
    uint8_t data[128];
    size_t len;

    (void) state;
    good.job_id = id;
    bad.code = 3;
    m.n_results = 2;
    m.results = results;
    m.index = 300;
    len = chronos__v1__submit_jobs_response__pack(&m, data);
    assert_true(len <= sizeof(data));
    s = pb_scan_of(slice_of(data, len));
    assert_int_equal(pb_scan_next(&s, &f), 1);
    assert_int_equal(f.number, 1);
    inner = pb_scan_of(f.bytes);
    assert_int_equal(pb_scan_next(&inner, &in), 1);
    assert_int_equal(in.number, 3);
    assert_int_equal(in.bytes.len, strlen(id));
    assert_memory_equal(in.bytes.data, id, strlen(id));
    assert_int_equal(pb_scan_next(&inner, &in), 0);
    assert_int_equal(pb_scan_next(&s, &f), 1);
    inner = pb_scan_of(f.bytes);
    assert_int_equal(pb_scan_next(&inner, &in), 1);
    assert_true(in.number == 1 && in.value == 3);
    assert_int_equal(pb_scan_next(&s, &f), 1);
    assert_true(f.number == 2 && f.type == PB_VARINT && f.value == 300);
    assert_int_equal(pb_scan_next(&s, &f), 0);
}

/* Goal: bad bytes end the scan and are never read past. Method: random bytes, and every truncation,
 * each in a heap block of exactly its length, for the address sanitizer. */
static void test_scan_garbage(void **state) {
    struct rng r = rng_seed(1);

    (void) state;
    for (size_t round = 0; round < 20000; round++) {
        size_t len = (size_t) rng_below(&r, 24);
        uint8_t *data = malloc(len + 1);
        struct pb_scan s;
        struct pb_field f;
        size_t fields = 0;
        int n;

        assert_non_null(data);
        data = realloc(data, len > 0 ? len : 1);
        assert_non_null(data);
        for (size_t i = 0; i < len; i++)
            data[i] = (uint8_t) rng_next(&r);
        s = pb_scan_of(slice_of(data, len));
        while ((n = pb_scan_next(&s, &f)) > 0) {
            fields++;
            assert_true(f.type != PB_BYTES || f.bytes.len <= len);
        }
        assert_true(fields <= len);
        assert_true(n < 0 || s.p == s.end);
        free(data);
    }
}

/* Goal: the requests mean what the benchmark says: the job's kind and size, and as many as asked.
 * Method: unpack them with protobuf-c. */
static void test_requests(void **state) {
    struct bytes *one = request_submit(REQUEST_TRUE, 0);
    struct bytes *many = request_submit_batch(REQUEST_NOOP, 100, 64);
    Chronos__V1__SubmitJobRequest *a;
    Chronos__V1__SubmitJobsRequest *b;

    (void) state;
    assert_true(one && many);
    a = chronos__v1__submit_job_request__unpack(NULL, one->len, one->data);
    b = chronos__v1__submit_jobs_request__unpack(NULL, many->len, many->data);
    assert_true(a && b);
    assert_int_equal(a->spec->payload_case, CHRONOS__V1__JOB_SPEC__PAYLOAD_COMMAND);
    assert_string_equal(a->spec->command->argv[0], "/bin/true");
    assert_int_equal(a->spec->n_env, 0);
    assert_int_equal(b->n_jobs, 64);
    assert_int_equal(b->jobs[63]->spec->payload_case, CHRONOS__V1__JOB_SPEC__PAYLOAD_NOOP);
    assert_int_equal(strlen(b->jobs[63]->spec->env[0]->value), 100);
    chronos__v1__submit_job_request__free_unpacked(a, NULL);
    chronos__v1__submit_jobs_request__free_unpacked(b, NULL);
    (void) bytes_unref(one);
    (void) bytes_unref(many);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),     cmocka_unit_test(test_values),
        cmocka_unit_test(test_refusals),     cmocka_unit_test(test_scan_reply),
        cmocka_unit_test(test_scan_garbage), cmocka_unit_test(test_requests),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
