/* A seeded pseudo-random generator (SplitMix64, Steele et al. 2014). Randomness is state: each user
 * owns one, seeded from env or from a test's seed, so that every run can be repeated.
 * Not for secrets. */
#pragma once

#include "base/defs.h"

struct rng {
    uint64_t state;
};

static inline struct rng rng_seed(uint64_t seed) {
    return (struct rng){.state = seed};
}

static inline uint64_t rng_next(struct rng *r) {
    uint64_t z = (r->state += 0x9e3779b97f4a7c15ULL);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
}

/* Uniform in [0, n); n > 0. The bias of the multiply-shift is below 2^-32 for n < 2^32. */
static inline uint64_t rng_below(struct rng *r, uint64_t n) {
    __extension__ typedef unsigned __int128 u128;

    return (uint64_t) (((u128) rng_next(r) * n) >> 64);
}

/* Uniform in [lo, hi]. */
static inline uint64_t rng_range(struct rng *r, uint64_t lo, uint64_t hi) {
    return lo + rng_below(r, hi - lo + 1);
}

/* True with probability @permille / 1000. */
static inline bool rng_chance(struct rng *r, uint32_t permille) {
    return rng_below(r, 1000) < permille;
}
