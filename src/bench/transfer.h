/* How long a transfer of leadership holds up submits. */
#pragma once

#include "bench/target.h"

/* @trials transfers, each to the next node, under load through all nodes. The latencies of the
 * result are the longest times without an acknowledged submit around each. BENCH_*. */
int transfer_run(struct target *t, uint32_t trials, struct bench_result *ret) _must_check_;
