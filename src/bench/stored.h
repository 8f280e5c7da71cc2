/* A cluster that has stored many jobs: what its snapshots cost, and a backup of it restored.
 * The processes are those of the cluster, with workers. Thread: the loop's. */
#pragma once

#include "bench/e2e.h"
#include "bench/target.h"

/* Run @jobs jobs that do nothing, until all are completed. BENCH_*. */
int stored_fill(struct target *t, uint64_t jobs, size_t payload_bytes) _must_check_;

/* Three stretches of @ms each into @ret: snapshots each second over the empty state; after @jobs
 * jobs without snapshots; and with them. The nodes are restarted in between. BENCH_*; *ret_count
 * results are complete. */
#define STORED_SNAPSHOT_RESULTS 3
int stored_snapshots(struct target *t, uint64_t jobs, uint64_t ms,
                     struct bench_result ret[STORED_SNAPSHOT_RESULTS],
                     size_t *ret_count) _must_check_;

/* A backup of what is stored, and a new cluster's first node made from it. BENCH_*. */
int stored_restore(struct target *t, struct bench_result *ret) _must_check_;
