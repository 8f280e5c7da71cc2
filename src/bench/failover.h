/* How long nobody can submit after the leader was killed. */
#pragma once

#include "bench/target.h"

/* @trials times: kill -9 the leader's server process, then submit through each of the other nodes,
 * one call at a time each, again at once when it fails, until one is acknowledged. The time runs
 * from before the kill. Then the node is started again and the cluster waits until it is in step.
 * Own cluster only. BENCH_*. */
int failover_run(struct target *t, uint32_t trials, struct bench_result *ret) _must_check_;
