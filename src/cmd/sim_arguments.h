/* The command line of chronos-sim.
 *
 * What it is: options as given, and the command that replays one of their seeds. What it is not:
 * what a world draws from its seed. Thread: main. */
#pragma once

#include "sim/world.h"

#define SIM_REPLAY_BYTES 320

struct sim_arguments {
    const char *program;   /* borrowed: argv[0] */
    uint64_t first, last;  /* seeds, both run */
    uint64_t events;       /* of the safety phase of each */
    uint64_t jobs;         /* processes that share the seeds */
    uint64_t counters_min; /* each interesting counter at least that high; 0 = not looked at */
    unsigned nodes;        /* 0 = drawn */
    unsigned topology;     /* of the table of sim/topology.h, 0 = drawn */
    bool one;              /* --seed: in this process, so that a debugger sees it */
    bool trace, stats;
};

/* Read the command line into *@ret. NULL when it can be run; else what is wrong with it. */
const char *sim_arguments_parse(int argc, char **argv, struct sim_arguments *ret);

/* Say @why and how it is used. Returns the exit code, 2. */
int sim_arguments_usage(const char *why);

/* The options of a world with @seed. */
struct sim_options sim_arguments_world(const struct sim_arguments *a, uint64_t seed);

/* The line that shows @seed again, with its newline. */
void sim_arguments_replay(const struct sim_arguments *a, uint64_t seed, char ret[SIM_REPLAY_BYTES]);
