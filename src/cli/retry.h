/* When to try a call again, and how long to wait first.
 *
 * What it is: the policy as a pure function of the answer, the clock and its own random state:
 * exponential backoff with jitter inside an overall deadline, one quick round over all nodes before
 * the first wait.
 * What it is not: it sends nothing and sleeps for nobody.
 * Thread: any; each call has its own. */
#pragma once

#include "base/rand.h"
#include "base/time.h"

#define RETRY_BASE_MS 40
#define RETRY_CAP_MS 1000
#define RETRY_LEAST_MS 100 /* time left that is worth a try after DEADLINE_EXCEEDED */

struct retry {
    struct mono deadline;
    uint32_t attempts; /* made so far */
    struct rng rng;
};

/* What the policy needs to know about a failed try. */
struct retry_answer {
    uint32_t code;           /* canonical gRPC code, not OK */
    uint64_t retry_after_ms; /* the server's hint; 0 = none */
    bool has_hint;           /* the hint was present */
    bool repeatable;         /* doing it twice does what doing it once does */
};

/* Count a failed try. Returns true and *ret_delay_ms when another may be made after that delay and
 * before the deadline; false = report the answer. @nodes >= 1 is how many nodes can be asked. */
bool retry_next(struct retry *r, struct mono now, const struct retry_answer *a, size_t nodes,
                uint64_t *ret_delay_ms) _must_check_;
