/* What the disk allows: three processes at once, each overwriting blocks of 4 KiB that were written
 * before, with fdatasync after each. A commit on a majority of three nodes on this disk cannot be
 * faster. */
#pragma once

#include "bench/bench.h"

#define FLOOR_WRITERS 3

/* Measure in @dir (files are made and removed) for @ms. @ret: all three writers together, added to
 * what it holds. 0, BENCH_FAILED, BENCH_INTERRUPTED. No gRPC client may exist meanwhile (it forks).
 */
int floor_measure(struct bench *b, const char *dir, uint64_t ms, struct histogram *ret,
                  double *ret_ops_s) _must_check_;
