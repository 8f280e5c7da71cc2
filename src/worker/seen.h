/* The attempts that this worker has started lately: none is started twice (semantics C29).
 *
 * What it is: a bounded set that forgets the oldest. A node that lags behind may deliver an
 * assignment again whose result another node has already committed; 65,536 process starts are more
 * than a worker can do within a lease, and nobody lags longer than that and still owns the attempt.
 * What it is not: exact. It keeps 64-bit hashes; a collision (once in 2^48 starts) makes the worker
 * ignore an assignment, which the lease then gives to someone else.
 * Thread: the loop. */
#pragma once

#include "base/map.h"
#include "worker/ref.h"

#define SEEN_COUNT_MAX 65536

struct seen {
    struct u64map map;
    uint64_t *ring; /* owned; allocated at the first use */
    size_t next;
};

static inline void seen_init(struct seen *s) {
    *s = (struct seen){0};
}
void seen_done(struct seen *s);
bool seen_has(const struct seen *s, const struct ref *r);
/* 0 (also when it was there) or -ENOMEM: do not start the attempt. */
int seen_add(struct seen *s, const struct ref *r) _must_check_;
