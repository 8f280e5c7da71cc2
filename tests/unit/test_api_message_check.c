/* Goal: what protobuf-c would silently accept or cut off is refused with its field, and no bytes
 * whatever make the check or the unpacking behind it misbehave.
 * Method: hand-made messages; every truncation of a valid one; random bytes and random damage. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "api/message_check.h"
#include "base/arena.h"
#include "base/rand.h"

#include "chronos/v1/job_service.pb-c.h"

#define ROUNDS 20000

static bool text_ok(const char *s, size_t len) {
    return message_check_text(slice_of(s, len));
}

/* Goal: UTF-8 as in RFC 3629, at each edge, also across the eight-byte stride. */
static void test_text(void **state) {
    (void) state;
    assert_true(text_ok("", 0));
    assert_true(text_ok("plain ascii, longer than eight", 30));
    assert_true(
        text_ok("gr\xc3\xbc\xc3\x9f"
                "e \xe2\x82\xac \xf0\x9f\x98\x80 end",
                20));
    assert_false(text_ok("nul\0inside", 10));
    assert_false(text_ok("12345678\0", 9));
    assert_false(text_ok("1234567\0", 8));
    assert_false(text_ok("\x80", 1));
    assert_false(text_ok("\xc0\xaf", 2));     /* overlong */
    assert_false(text_ok("\xc1\xbf", 2));     /* overlong */
    assert_false(text_ok("\xe0\x9f\xbf", 3)); /* overlong */
    assert_true(text_ok("\xe0\xa0\x80", 3));
    assert_false(text_ok("\xed\xa0\x80", 3)); /* surrogate */
    assert_true(text_ok("\xed\x9f\xbf", 3));
    assert_false(text_ok("\xf0\x8f\xbf\xbf", 4)); /* overlong */
    assert_true(text_ok("\xf4\x8f\xbf\xbf", 4));
    assert_false(text_ok("\xf4\x90\x80\x80", 4)); /* above U+10FFFF */
    assert_false(text_ok("\xf5\x80\x80\x80", 4));
    assert_false(text_ok("\xc3", 1));
    assert_false(text_ok("\xe2\x82", 2));
    assert_false(text_ok("\xe2\x28\xa1", 3));
}

static uint8_t *sample(size_t *ret_len) {
    static char *argv[] = {(char *) (uintptr_t) "echo", (char *) (uintptr_t) "hello",
                           (char *) (uintptr_t) "third"};
    Chronos__V1__SubmitJobsRequest all = CHRONOS__V1__SUBMIT_JOBS_REQUEST__INIT;
    Chronos__V1__SubmitJobRequest a = CHRONOS__V1__SUBMIT_JOB_REQUEST__INIT, b = a;
    Chronos__V1__SubmitJobRequest *jobs[] = {&a, &b};
    Chronos__V1__JobSpec sa = CHRONOS__V1__JOB_SPEC__INIT, sb = sa;
    Chronos__V1__Command c = CHRONOS__V1__COMMAND__INIT;
    Chronos__V1__JobSpec__EnvEntry e = CHRONOS__V1__JOB_SPEC__ENV_ENTRY__INIT;
    Chronos__V1__JobSpec__EnvEntry *env[] = {&e};
    uint8_t *out;

    c.argv = argv;
    c.n_argv = 3;
    sa.payload_case = CHRONOS__V1__JOB_SPEC__PAYLOAD_SHELL;
    sa.shell = (char *) (uintptr_t) "true";
    sb.payload_case = CHRONOS__V1__JOB_SPEC__PAYLOAD_COMMAND;
    sb.command = &c;
    e.key = (char *) (uintptr_t) "NAME";
    e.value = (char *) (uintptr_t) "value";
    sb.env = env;
    sb.n_env = 1;
    a.spec = &sa;
    b.spec = &sb;
    b.idempotency_key = (char *) (uintptr_t) "key";
    all.jobs = jobs;
    all.n_jobs = 2;
    *ret_len = chronos__v1__submit_jobs_request__get_packed_size(&all);
    out = malloc(*ret_len);
    assert_non_null(out);
    (void) chronos__v1__submit_jobs_request__pack(&all, out);
    return out;
}

static int check(const uint8_t *p, size_t len, struct errtext *e) {
    return message_check(&chronos__v1__submit_jobs_request__descriptor, slice_of(p, len), e);
}

/* Replace the first @from in @p by @to (same length) and expect the error @text. */
static void damage(const char *from, const char *to, size_t n, const char *text) {
    size_t len;
    uint8_t *p = sample(&len), *at = memmem(p, len, from, n);
    struct errtext e = {0};

    assert_non_null(at);
    memcpy(at, to, n);
    assert_int_equal(check(p, len, &e), MESSAGE_CHECK_BAD);
    assert_string_equal(e.s, text);
    free(p);
}

/* Goal: the error names the field with its place in lists and maps. */
static void test_names_the_field(void **state) {
    size_t len;
    uint8_t *p = sample(&len);
    struct errtext e;

    (void) state;
    assert_int_equal(check(p, len, &e), 0);
    free(p);
    damage("third", "th\0rd", 5, "jobs[1].spec.command.argv[2]: must be UTF-8 text without NUL");
    damage("true", "tr\xffX", 4, "jobs[0].spec.shell: must be UTF-8 text without NUL");
    damage("value", "v\0lue", 5, "jobs[1].spec.env[0].value: must be UTF-8 text without NUL");
    damage("key", "k\0y", 3, "jobs[1].idempotency_key: must be UTF-8 text without NUL");
}

/* Check, and unpack what passes: a string that passed must have arrived whole. */
static bool try_all(const uint8_t *p, size_t len) {
    Chronos__V1__SubmitJobsRequest *m;
    struct arena arena;
    struct errtext e;

    if (check(p, len, &e) != 0)
        return false;
    arena_init(&arena, 1024 * 1024);
    m = chronos__v1__submit_jobs_request__unpack(arena_pb(&arena), len, p);
    arena_done(&arena);
    return m != NULL;
}

/* Goal: every truncation either is a valid shorter message or is refused. */
static void test_truncations(void **state) {
    size_t len, refused = 0;
    uint8_t *p = sample(&len);

    (void) state;
    for (size_t n = 0; n < len; n++) {
        uint8_t *copy =
            malloc(n ? n : 1); /* exact size: reading past it is seen by the sanitizer */

        assert_non_null(copy);
        memcpy(copy, p, n);
        refused += try_all(copy, n) ? 0 : 1;
        free(copy);
    }
    assert_true(refused > len / 2);
    free(p);
}

/* Goal: random bytes and random single-byte damage never crash, whatever the verdict. */
static void test_random(void **state) {
    struct rng rng = rng_seed(20260101);
    size_t len, passed = 0;
    uint8_t *p = sample(&len);

    (void) state;
    print_message("seed 20260101\n");
    for (int i = 0; i < ROUNDS; i++) {
        size_t n = i % 2 ? len : 1 + rng_below(&rng, 64);
        uint8_t *copy = malloc(n);

        assert_non_null(copy);
        for (size_t k = 0; k < n; k++)
            copy[k] = i % 2 ? p[k] : (uint8_t) rng_next(&rng);
        copy[rng_below(&rng, n)] = (uint8_t) rng_next(&rng);
        passed += try_all(copy, n) ? 1 : 0;
        free(copy);
    }
    assert_true(passed > 0 && passed < ROUNDS);
    free(p);
}

/* Goal: a message that is no message names its place. */
static void test_malformed(void **state) {
    static const uint8_t bad_length[] = {0x0a, 0x05, 0x12, 0x01};
    static const uint8_t group[] = {0x0b, 0x0c};
    struct errtext e;

    (void) state;
    assert_int_equal(check(bad_length, sizeof(bad_length), &e), MESSAGE_CHECK_BAD);
    assert_string_equal(e.s, "malformed SubmitJobsRequest at byte 0");
    assert_int_equal(check(group, sizeof(group), &e), MESSAGE_CHECK_BAD);
    assert_int_equal(check(NULL, 0, &e), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text),        cmocka_unit_test(test_names_the_field),
        cmocka_unit_test(test_truncations), cmocka_unit_test(test_random),
        cmocka_unit_test(test_malformed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
