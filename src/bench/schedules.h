/* A cluster with very many schedules: what they cost while nothing is due, and how soon a new
 * leader fires. */
#pragma once

#include "bench/target.h"

/* Create @count schedules that tick once a year, each at another second. Own cluster only.
 * ret[0] schedules_create: creating them, closed loop.
 * ret[1] schedules_idle: @idle_ms of nothing to do.
 * ret[2] schedules_failover: with some more that tick all the time, @trials times kill -9 of the
 * leader: from then, and from the next election, until a tick has fired; and how long the killed
 * node takes from its start until the cluster is whole.
 * BENCH_*. */
#define SCHEDULES_RESULTS 3
int schedules_run(struct target *t, uint64_t count, uint64_t idle_ms, uint32_t trials,
                  struct bench_result ret[SCHEDULES_RESULTS]) _must_check_;
