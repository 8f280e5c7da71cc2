/* Placement: which pending job goes to which worker. Leader only; pure.
 *
 * Least-loaded live worker first (fewest running per slot, then fewest running, then fewest recent
 * assignments, then id: semantics.md C35), jobs first in first out, never above a worker's slots,
 * nothing for a worker that an operator drains (C36).
 * It proposes; the state machine decides again when the entry is applied. What is proposed and not
 * yet applied is remembered here as in flight, so that it is not proposed twice and its slots are
 * taken. Losing leadership forgets it all (sched_reset).
 * Thread: the loop. */
#pragma once

#include "base/arena.h"
#include "fsm/fsm.h"

#define SCHED_PLANS_MAX 1024

struct sched;

int sched_new(struct sched **ret) _must_check_;
struct sched *sched_free(struct sched *s);
DEFINE_CLEANUP(struct sched *, sched_free);

/* Forget what is in flight: on winning and on losing leadership. */
void sched_reset(struct sched *s);

/* A worker counts as live for placement until told otherwise: the leader knows its heartbeats. */
struct sched_liveness {
    bool (*alive)(void *ctx, const struct fsm_worker *w);
    void *ctx;
};

/* Plan up to @items_max assignments from the current state. Writes *ret_count items into @items
 * (worker_id borrowed from the fsm until its next apply) and, when there are any, *ret_plan: the id
 * under which they are in flight. 0 or -ENOMEM (nothing in flight then).
 * Cost: O(workers + planned * log(workers) + in flight), independent of how many jobs wait. At most
 * SCHED_PLANS_MAX plans are in flight; then *ret_count is 0 until one is done. */
int sched_plan(struct sched *s, const struct fsm *f, const struct sched_liveness *live,
               Chronos__Internal__V1__AssignJobItem *items, size_t items_max, size_t *ret_count,
               uint64_t *ret_plan) _must_check_;

/* The plan's entry was applied, or will never be. */
void sched_plan_done(struct sched *s, uint64_t plan);

size_t sched_in_flight(const struct sched *s);
