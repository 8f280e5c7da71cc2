/* Submits at a fixed rate, open loop: a call is due by the clock whatever became of the others, and
 * its time runs from when it was due, so that a pause is seen by each call that fell into it.
 *
 * What it is: load beside something else that is done meanwhile; the figures of any stretch of it.
 * What it is not: a search for the highest rate.
 * Thread: the loop's. */
#pragma once

#include "bench/target.h"

#define PACED_OPEN_MAX 16384U /* calls; then the next ones come late, and count as late */

struct paced;

/* @per_s submits to the leader as of each call, or (@via_any) to all nodes in turn. A call that
 * fails is tried again, at the next node if there may be several. BENCH_*. */
int paced_new(struct target *t, uint32_t per_s, bool via_any, struct paced **ret) _must_check_;
/* Wait until no call is open. BENCH_FAILED when too many failed for good. */
int paced_stop(struct paced *p) _must_check_;
struct paced *paced_free(struct paced *p); /* after paced_stop */

/* Forget what was measured. Calls that are open count when they end. */
void paced_mark(struct paced *p);
/* Since the last mark. */
void paced_result(const struct paced *p, struct bench_result *ret);
/* The longest time without an acknowledgement since the mark, up to now. */
uint64_t paced_gap_ns(const struct paced *p);
