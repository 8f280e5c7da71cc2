#include "fsm/job_id.h"

#include "base/rand.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

/* Goal: the examples that the header promises, and the largest number. */
static void test_examples(void **state) {
    static const struct {
        uint64_t seq;
        const char *id;
    } examples[] = {
        {1, "j11"},   {31, "j1z"},         {32, "j210"},
        {33, "j211"}, {1000000, "j4ygj0"}, {UINT64_MAX, "jdfzzzzzzzzzzzz"},
    };

    (void) state;
    for (size_t i = 0; i < ARRAY_LEN(examples); i++) {
        char id[JOB_ID_BYTES_MAX];
        uint64_t seq = 0;

        job_id_format(examples[i].seq, id);
        assert_string_equal(id, examples[i].id);
        assert_int_equal(job_id_parse(id, &seq), 0);
        assert_true(seq == examples[i].seq);
    }
}

/* Goal: print-parse is identity and string order is number order.
 * Method: random numbers of every bit length, compared in pairs. */
static void test_round_trip_and_order(void **state) {
    struct rng rng = rng_seed(20240601);

    (void) state;
    for (int i = 0; i < 100000; i++) {
        uint64_t a = (rng_next(&rng) >> rng_below(&rng, 64)) | 1;
        uint64_t b = (rng_next(&rng) >> rng_below(&rng, 64)) | 1, back = 0;
        char x[JOB_ID_BYTES_MAX], y[JOB_ID_BYTES_MAX];
        int order;

        job_id_format(a, x);
        job_id_format(b, y);
        assert_int_equal(job_id_parse(x, &back), 0);
        assert_true(back == a);
        order = strcmp(x, y);
        assert_true(a == b ? order == 0 : (a < b) == (order < 0));
    }
}

/* Goal: only the canonical spelling is an id: for random strings that parse, printing gives the
 * same. */
static void test_malformed(void **state) {
    static const char *const bad[] = {
        "",
        "j",
        "j1",
        "j10",
        "j201",
        "j2110",
        "J11",
        "j1i",
        "j1L",
        "j111",
        "x11",
        "j0",
        "jdg000000000000",
        "je10000000000000",
        "j11 ",
        " j11",
        "j1\n",
        "jz111",
        "jdzzzzzzzzzzzzz",
        "jdfzzzzzzzzzzzzz",
        "j1\xff",
    };
    static const char alphabet[] = "j0123456789abcdfgz";
    struct rng rng = rng_seed(7);
    uint64_t seq, parsed = 0;

    (void) state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_int_equal(job_id_parse(bad[i], &seq), 1);
    for (int i = 0; i < 200000; i++) {
        char s[8] = "j", again[JOB_ID_BYTES_MAX];
        size_t n = rng_range(&rng, 1, 6);

        for (size_t k = 1; k < n; k++)
            s[k] = alphabet[rng_below(&rng, sizeof(alphabet) - 1)];
        if (job_id_parse(s, &seq) != 0)
            continue;
        parsed++;
        job_id_format(seq, again);
        assert_string_equal(again, s);
    }
    assert_true(parsed > 100);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_examples),
        cmocka_unit_test(test_round_trip_and_order),
        cmocka_unit_test(test_malformed),
    };

    return cmocka_run_group_tests_name("job_id", tests, NULL, NULL);
}
