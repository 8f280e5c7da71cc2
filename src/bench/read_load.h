/* Linearizable reads: GetJob of jobs that exist, closed loop. */
#pragma once

#include "bench/target.h"

struct read_spec {
    const char *name;
    uint32_t concurrency; /* calls outstanding; 1 to BENCH_CONCURRENCY_MAX */
    bool by_follower;     /* all through a node that does not lead; else through the leader */
    uint64_t warm_ms;     /* not measured */
    uint64_t measure_ms;
};

/* Encoded GetJob requests of a few thousand jobs that are submitted for it. */
struct read_load;
int read_load_new(struct target *t, struct read_load **ret) _must_check_;
struct read_load *read_load_free(struct read_load *r);
int read_load_run(struct read_load *r, const struct read_spec *s,
                  struct bench_result *ret) _must_check_;
