/* One world, one seed: several real replicas under virtual time.
 *
 * What it is: the production code of raft, storage, fsm, sched and node, driven by fakes of clock,
 * disk, network, workers and clients, with faults drawn from the seed and checkers that look at every
 * node after every event. The same seed gives the same trace hash.
 * What it is not: it links no os/; a stray system call in a pure folder is a link error.
 * Thread: one. */
#pragma once

#include "base/map.h"
#include "base/rand.h"
#include "node/replica.h"
#include "node/worker_session.h"
#include "sim/sim_disk.h"

#include <stdio.h>

#define SIM_NODES_MAX 7
#define SIM_CLIENTS_MAX 8
#define SIM_OPS_MAX 4096

struct sim_options {
    uint64_t seed;
    unsigned nodes;        /* 0 = drawn: 3 or 5, sometimes 1, 2, 4, 7 */
    uint64_t events_max;   /* of the safety phase */
    bool trace;            /* one line per transition on stdout */
};

struct sim_result {
    bool ok;
    char failure[512];
    uint64_t events;
    uint64_t trace_hash;
    uint64_t submitted, acked, unknown, refused, reads, jobs_done;
    uint64_t elections, crashes, partitions, lost_workers, stale_reports;
};

/* Run one seed. 0 with *ret filled (also when a check failed); -ENOMEM when the simulator itself
 * could not run. */
int sim_run(const struct sim_options *o, struct sim_result *ret) _must_check_;
