/* The histogram: buckets are a partition, quantiles agree with a sorted array. */
#include "base/histogram.h"
#include "base/rand.h"

#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define SAMPLES 20000

static const uint32_t quantiles[] = {0,      1,      10000,  250000, 500000,
                                     900000, 990000, 999000, 999999, 1000000};

/* Goal: the buckets cover all 64-bit values, in order, without gap or overlap, and none is wider
 * than 1/128 of its values. Method: walk them all; each one's first and last value must map to it.
 */
static void test_buckets_partition(void **state) {
    uint64_t next = 0;

    (void) state;
    for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        uint64_t last = histogram_bucket_last(i);

        assert_true(last >= next);
        assert_int_equal(histogram_bucket(next), i);
        assert_int_equal(histogram_bucket(last), i);
        assert_true((last - next) <= next / 128);
        next = last + 1;
    }
    assert_int_equal(next, 0); /* the last bucket ends at UINT64_MAX */
}

static int compare(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *) a, y = *(const uint64_t *) b;

    return x < y ? -1 : x > y;
}

/* A value of any magnitude: small ones must occur as often as large ones. */
static uint64_t random_value(struct rng *r) {
    return rng_next(r) >> rng_below(r, 64);
}

static void check_quantiles(const struct histogram *h, const uint64_t *sorted, size_t count) {
    for (size_t i = 0; i < ARRAY_LEN(quantiles); i++) {
        uint64_t rank = (count * (uint64_t) quantiles[i] + 999999) / 1000000;
        uint64_t want = sorted[rank > 0 ? rank - 1 : 0];
        uint64_t got = histogram_quantile(h, quantiles[i]);

        assert_true(got >= want);
        assert_true(got - want <= want / 128);
    }
}

/* Goal: each quantile is the true one or at most 1/128 above it; the ends are exact. Method: the
 * same values in a sorted array, for several seeds. */
static void test_quantiles_against_sort(void **state) {
    struct histogram *h = calloc(1, sizeof(*h));
    uint64_t *values = calloc(SAMPLES, sizeof(*values));

    (void) state;
    assert_non_null(h);
    assert_non_null(values);
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct rng r = rng_seed(seed);
        size_t count = 1 + (size_t) rng_below(&r, SAMPLES);

        printf("seed %llu\n", (unsigned long long) seed);
        histogram_clear(h);
        for (size_t i = 0; i < count; i++) {
            values[i] = random_value(&r);
            histogram_add(h, values[i]);
        }
        qsort(values, count, sizeof(*values), compare);
        assert_int_equal(h->total, count);
        assert_int_equal(h->min, values[0]);
        assert_int_equal(h->max, values[count - 1]);
        assert_int_equal(histogram_quantile(h, 1000000), values[count - 1]);
        check_quantiles(h, values, count);
    }
    free(values);
    free(h);
}

/* Goal: merging parts gives the histogram of the whole, also with empty parts on either side.
 * Method: deal the same values to one and to three histograms; compare all bytes. */
static void test_merge(void **state) {
    struct histogram *h = calloc(5, sizeof(*h));
    struct rng r = rng_seed(7);

    (void) state;
    assert_non_null(h);
    for (size_t i = 0; i < 1000; i++) {
        uint64_t v = random_value(&r);

        histogram_add(&h[0], v);
        histogram_add(&h[1 + i % 3], v);
    }
    for (size_t i = 1; i <= 3; i++)
        histogram_merge(&h[4], &h[i]);
    assert_memory_equal(&h[4], &h[0], sizeof(h[0]));
    histogram_clear(&h[1]);
    histogram_merge(&h[4], &h[1]); /* nothing, and its min of 0 must not count */
    assert_memory_equal(&h[4], &h[0], sizeof(h[0]));
    free(h);
}

/* Goal: nothing added, one value, the extremes. Method: by hand. */
static void test_edges(void **state) {
    struct histogram *h = calloc(1, sizeof(*h));

    (void) state;
    assert_non_null(h);
    assert_int_equal(histogram_quantile(h, 500000), 0);
    histogram_add(h, 123456789);
    for (size_t i = 0; i < ARRAY_LEN(quantiles); i++)
        assert_int_equal(histogram_quantile(h, quantiles[i]), 123456789);
    histogram_clear(h);
    histogram_add(h, UINT64_MAX);
    histogram_add(h, 0);
    assert_int_equal(histogram_quantile(h, 500000), 0);
    assert_int_equal(histogram_quantile(h, 500001), UINT64_MAX);
    free(h);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_buckets_partition),
        cmocka_unit_test(test_quantiles_against_sort),
        cmocka_unit_test(test_merge),
        cmocka_unit_test(test_edges),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
