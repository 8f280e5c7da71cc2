/* Closed-loop calls, submits unless others are given: each of C callers sends its next call when
 * the last one was acknowledged. */
#pragma once

#include "bench/target.h"

struct load_spec {
    const char *name;
    uint32_t concurrency; /* calls outstanding; 1 to BENCH_CONCURRENCY_MAX */
    uint32_t batch;       /* jobs in a call; 1 = SubmitJob, more = SubmitJobs */
    const char *path;     /* of another unary call, whose requests follow; NULL = submits */
    struct bytes *const *requests; /* sent in turn; borrowed */
    size_t requests_count;
    bool by_follower; /* all calls go to a node that does not lead */
    uint64_t warm_ms; /* not measured */
    uint64_t measure_ms;
};

/* What was acknowledged within the measured time counts, with the latency of its call (from its
 * first try, if it had to be repeated after RESOURCE_EXHAUSTED). BENCH_*. */
int load_run(struct target *t, const struct load_spec *s, struct bench_result *ret) _must_check_;
