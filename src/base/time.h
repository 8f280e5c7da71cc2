/* Two kinds of time that the compiler keeps apart.
 *
 * struct mono counts nanoseconds of a monotonic clock: deadlines, leases, election timeouts.
 * struct wall counts milliseconds since 1970 UTC: what people read and what commands carry.
 * Subtracting one from the other, or using wall time for a deadline, is a bug; as distinct structs
 * it does not compile. Neither type reads a clock: values come from base/env.h. */
#pragma once

#include "base/defs.h"

#define NS_PER_US 1000ULL
#define NS_PER_MS 1000000ULL
#define NS_PER_S 1000000000ULL

struct mono {
    uint64_t ns;
};

struct wall {
    int64_t ms;
};

#define MONO_NEVER ((struct mono){.ns = UINT64_MAX})

static inline struct mono mono_add_ns(struct mono t, uint64_t ns) {
    return (struct mono){.ns = t.ns > UINT64_MAX - ns ? UINT64_MAX : t.ns + ns};
}

static inline struct mono mono_add_ms(struct mono t, uint64_t ms) {
    return mono_add_ns(t, ms * NS_PER_MS);
}

/* Nanoseconds from @earlier to @later; 0 when @later is not later. */
static inline uint64_t mono_diff_ns(struct mono later, struct mono earlier) {
    return later.ns > earlier.ns ? later.ns - earlier.ns : 0;
}

static inline bool mono_reached(struct mono now, struct mono deadline) {
    return now.ns >= deadline.ns;
}

static inline struct mono mono_min(struct mono a, struct mono b) {
    return a.ns < b.ns ? a : b;
}
