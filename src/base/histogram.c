#include "base/histogram.h"

#include <string.h>

#define SUB_COUNT (1U << HISTOGRAM_SUB_BITS)
#define PPM_MAX 1000000U

STATIC_ASSERT(HISTOGRAM_BUCKETS == 58 * SUB_COUNT,
              "two exact blocks and one for each of 56 powers");

size_t histogram_bucket(uint64_t value) {
    unsigned top, shift;

    if (value < 2 * SUB_COUNT)
        return (size_t) value;
    top = 63U - (unsigned) __builtin_clzll(value);
    shift = top - HISTOGRAM_SUB_BITS;
    /* value >> shift is within [SUB_COUNT, 2 SUB_COUNT): its top bit names the block's start. */
    return ((size_t) shift << HISTOGRAM_SUB_BITS) + (size_t) (value >> shift);
}

uint64_t histogram_bucket_last(size_t bucket) {
    unsigned shift;
    uint64_t first;

    ASSERT(bucket < HISTOGRAM_BUCKETS);
    if (bucket < 2 * SUB_COUNT)
        return bucket;
    shift = (unsigned) (bucket >> HISTOGRAM_SUB_BITS) - 1;
    first = (uint64_t) (bucket - ((size_t) shift << HISTOGRAM_SUB_BITS)) << shift;
    return first + ((UINT64_C(1) << shift) - 1);
}

void histogram_clear(struct histogram *h) {
    memset(h, 0, sizeof(*h));
}

void histogram_add(struct histogram *h, uint64_t value) {
    h->counts[histogram_bucket(value)]++;
    if (h->total == 0 || value < h->min)
        h->min = value;
    if (value > h->max)
        h->max = value;
    h->total++;
}

void histogram_merge(struct histogram *h, const struct histogram *from) {
    if (from->total == 0)
        return;
    for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++)
        h->counts[i] += from->counts[i];
    if (h->total == 0 || from->min < h->min)
        h->min = from->min;
    h->max = MAX(h->max, from->max);
    h->total += from->total;
}

uint64_t histogram_quantile(const struct histogram *h, uint32_t ppm) {
    __extension__ typedef unsigned __int128 u128;
    uint64_t rank, seen = 0;

    ASSERT(ppm <= PPM_MAX);
    if (h->total == 0)
        return 0;
    rank = (uint64_t) (((u128) h->total * ppm + PPM_MAX - 1) / PPM_MAX);
    rank = MAX(rank, 1U);
    for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        seen += h->counts[i];
        if (seen >= rank)
            return MAX(h->min, MIN(h->max, histogram_bucket_last(i)));
    }
    return h->max;
}
