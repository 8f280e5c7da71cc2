/* A range of seeds, shared by forked processes.
 *
 * What it is: each process takes the next seed that nobody has; the code under test knows no
 * threads and its processes share nothing but the tally. A process that dies under a seed takes
 * nobody with it: the seed is named by its parent, with what it wrote to stderr. What comes out
 * does not depend on the number of processes nor on who was faster: totals are sums, and of several
 * failing seeds the lowest is told (all below it were run to their end). Thread: main. */
#pragma once

#include "cmd/sim_arguments.h"

/* What seeds did together. */
struct sim_totals {
    uint64_t seeds; /* that hold */
    uint64_t events;
    uint64_t stats[SIM_STATS];
};

struct sim_range {
    struct sim_totals totals;
    bool interrupted; /* by SIGINT: what was begun was ended, the rest was not run */
    bool failed;
    uint64_t seed;          /* that failed; the lowest */
    uint64_t events;        /* it had come to */
    uint64_t events_before; /* of the seeds below it, which hold */
    char why[1024];
    char *said; /* owned, free(): what its process wrote to stderr, NULL = nothing */
    double seconds;
};

/* Run @seed here, twice when the seed is to be compared with itself, and add it to @totals. True
 * when it holds; else @why and @ret_events say what happened. */
bool sim_seed_run(const struct sim_arguments *a, uint64_t seed, struct sim_totals *totals,
                  char *why, size_t why_size, uint64_t *ret_events);

/* Run all seeds of @a. 0; or -errno when processes or memory cannot be had. */
int sim_range_run(const struct sim_arguments *a, struct sim_range *ret) _must_check_;
