/* Counts of values in buckets of constant relative width: percentiles of millions of latencies in
 * 58 KiB, without a sort.
 *
 * What it is: log-linear buckets. Values below 256 are counted exactly; above, each power of two is
 * cut into 128 equal parts, so that a reported value is at most 1/128 (0.8%) above the true one.
 * What it is not: a timer; the unit is the caller's.
 * Invariants: total is the sum of counts[]; min and max are exact.
 * Thread: one writer. The structure holds no pointer, so it may live in memory shared with a child
 * process; all zero bytes are an empty histogram. */
#pragma once

#include "base/defs.h"

#define HISTOGRAM_SUB_BITS 7
/* 64-bit values: the exact range takes two blocks, each further power of two one. */
#define HISTOGRAM_BUCKETS ((64 - HISTOGRAM_SUB_BITS + 1) << HISTOGRAM_SUB_BITS)

struct histogram {
    uint64_t counts[HISTOGRAM_BUCKETS];
    uint64_t total;
    uint64_t min; /* of what was added; meaningless while total is 0 */
    uint64_t max;
};

void histogram_clear(struct histogram *h);
void histogram_add(struct histogram *h, uint64_t value);
/* Add all of @from to @h. */
void histogram_merge(struct histogram *h, const struct histogram *from);

/* The smallest reportable value that at least @ppm millionths of the values do not exceed: 500000
 * is the median, 999000 the 99.9th percentile. Within [min, max]; 0 when nothing was added. */
uint64_t histogram_quantile(const struct histogram *h, uint32_t ppm);

/* The bucket of a value, and the largest value of a bucket: exported for tests. */
size_t histogram_bucket(uint64_t value);
uint64_t histogram_bucket_last(size_t bucket);
