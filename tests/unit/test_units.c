/* Units: what is printed parses back; what is refused says what would be right. */
#include "base/rand.h"
#include "base/units.h"

#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

/* Goal: the documented forms. Method: a table of text and value. */
static void test_durations(void **state) {
    static const struct {
        const char *text;
        uint64_t ms;
    } good[] = {{"0", 0},          {"0s", 0},
                {"50ms", 50},      {"1s", 1000},
                {"5m", 300000},    {"1h30m", 5400000},
                {"1s500ms", 1500}, {"90s", 90000},
                {"2d", 172800000}, {"1d1h1m1s1ms", 90061001}};
    static const char *const bad[] = {"",
                                      "5",
                                      "s",
                                      "1x",
                                      "1s1h",
                                      "1s1s",
                                      "-1s",
                                      "1.5s",
                                      "1 s",
                                      "1S",
                                      "5ms ",
                                      "1h-3m",
                                      "99999999999999999999s",
                                      "9223372036854775807s"};
    (void) state;
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        uint64_t ms = 7;

        assert_int_equal(units_parse_duration(good[i].text, &ms, NULL), 0);
        assert_int_equal(ms, good[i].ms);
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct errtext why = {""};
        uint64_t ms = 7;

        assert_true(units_parse_duration(bad[i], &ms, &why) > 0);
        assert_int_equal(ms, 7);
        assert_true(strlen(why.s) > 10);
    }
}

/* Goal: the documented forms of sizes. Method: a table. */
static void test_sizes(void **state) {
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {{"0", 0},           {"4096", 4096},       {"64KiB", 65536}, {"1MiB", 1048576},
                {"10MB", 10000000}, {"1GiB", 1073741824}, {"3B", 3},        {"1TB", 1000000000000}};
    static const char *const bad[] = {"",   "KiB",    "1kb",   "1 MiB",
                                      "-1", "1.5MiB", "1MiB2", "8388608TiB"};

    (void) state;
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        uint64_t bytes = 7;

        assert_int_equal(units_parse_size(good[i].text, &bytes, NULL), 0);
        assert_int_equal(bytes, good[i].bytes);
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct errtext why = {""};
        uint64_t bytes = 7;

        assert_true(units_parse_size(bad[i], &bytes, &why) > 0);
        assert_int_equal(bytes, 7);
        assert_true(strlen(why.s) > 10);
    }
}

/* Goal: parse(print(v)) == v. Method: random values of every magnitude from a printed seed. */
static void test_round_trip(void **state) {
    struct rng rng = rng_seed(20260701);

    (void) state;
    print_message("seed 20260701\n");
    for (int i = 0; i < 200000; i++) {
        uint64_t v = rng_next(&rng) >> (1 + rng_below(&rng, 63));
        uint64_t round = v, back = v + 1;
        char text[UNITS_TEXT_BYTES_MAX];

        assert_int_equal(units_parse_duration(units_print_duration(v, text), &back, NULL), 0);
        assert_int_equal(back, v);
        round = (v >> 30) << rng_below(&rng, 31);
        assert_int_equal(units_parse_size(units_print_size(round, text), &back, NULL), 0);
        assert_int_equal(back, round);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_durations),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_round_trip),
    };

    return cmocka_run_group_tests_name("units", tests, NULL, NULL);
}
