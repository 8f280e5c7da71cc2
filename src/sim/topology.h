/* Scenarios: networks and courses of events that have broken Raft elsewhere, each with what it must
 * still give (reliability.md section 3, special topologies).
 *
 * What it is: an act between the safety phase and the end of a world, without other faults, whose
 * claims are stronger than those of an arbitrary world: a leader within so many election timeouts,
 * which then stays. What it is not: a fault menu (faults.c). Thread: one. */
#pragma once

#include "sim/world.h"

struct world;

struct sim_topology {
    const char *name; /* of `chronos-sim --scenario` */
    const char *what; /* one line for people */
};

/* NULL when @i is past the last. */
const struct sim_topology *sim_topology_at(unsigned i);
/* 1 + its place, as struct sim_options has it; 0 when there is none of that name. */
unsigned sim_topology_find(const char *name);

/* Settle whether this world has one, and what it needs of the world's settings. */
void topology_draw(struct world *w);
/* Play it, at the end of the safety phase. */
void topology_run(struct world *w);
