/* The command line of chronos-sim. */
#include "cmd/sim_arguments.h"

#include "sim/topology.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define JOBS_MAX 64

static bool number(const char *s, char end, uint64_t max, uint64_t *ret, const char **rest) {
    char *stop = NULL;
    unsigned long long v;

    if (*s < '0' || *s > '9')
        return false;
    errno = 0;
    v = strtoull(s, &stop, 10);
    if (errno || *stop != end || v > max)
        return false;
    *ret = v;
    if (rest)
        *rest = stop + 1;
    return true;
}

static const char *parse_seeds(const char *v, struct sim_arguments *a) {
    const char *rest = NULL;

    if (!number(v, '-', UINT64_MAX - 1, &a->first, &rest) ||
        !number(rest, '\0', UINT64_MAX - 1, &a->last, NULL) || a->first == 0 || a->last < a->first)
        return "--seeds: FIRST-LAST expected, such as 1-2000";
    return NULL;
}

/* An option that has a value. */
static const char *parse_value(const char *option, const char *v, struct sim_arguments *a) {
    uint64_t n = 0;

    if (strcmp(option, "--seeds") == 0)
        return parse_seeds(v, a);
    if (strcmp(option, "--seed") == 0) {
        if (!number(v, '\0', UINT64_MAX - 1, &a->first, NULL) || a->first == 0)
            return "--seed: a number from 1 expected";
        a->last = a->first;
        a->one = true;
    } else if (strcmp(option, "--nodes") == 0) {
        if (!number(v, '\0', SIM_NODES_MAX, &n, NULL) || n == 0)
            return "--nodes: 1 to 7 expected";
        a->nodes = (unsigned) n;
    } else if (strcmp(option, "--scenario") == 0) {
        a->topology = sim_topology_find(v);
        if (a->topology == 0)
            return "--scenario: one of the names below expected";
    } else if (strcmp(option, "--events") == 0) {
        if (!number(v, '\0', 100000000, &a->events, NULL) || a->events == 0)
            return "--events: 1 to 100000000 expected";
    } else if (strcmp(option, "--jobs") == 0) {
        if (!number(v, '\0', JOBS_MAX, &a->jobs, NULL) || a->jobs == 0)
            return "--jobs: 1 to 64 expected";
    } else if (strcmp(option, "--require-counters") == 0) {
        if (!number(v, '\0', UINT64_MAX - 1, &a->counters_min, NULL) || a->counters_min == 0)
            return "--require-counters: a number from 1 expected";
    } else {
        return "unknown option";
    }
    return NULL;
}

const char *sim_arguments_parse(int argc, char **argv, struct sim_arguments *ret) {
    long cores = sysconf(_SC_NPROCESSORS_ONLN);

    *ret = (struct sim_arguments){.program = argv[0], .events = 2000};
    ret->jobs = cores < 1 ? 1 : MIN((uint64_t) cores, JOBS_MAX);
    for (int i = 1; i < argc; i++) {
        const char *why;

        if (strcmp(argv[i], "--trace") == 0) {
            ret->trace = true;
            continue;
        }
        if (strcmp(argv[i], "--stats") == 0) {
            ret->stats = true;
            continue;
        }
        why = parse_value(argv[i], i + 1 < argc ? argv[i + 1] : "", ret);
        if (why)
            return why;
        i++;
    }
    if (ret->last == 0)
        return "--seeds or --seed is missing";
    if (ret->trace && !ret->one)
        return "--trace shows one seed: --seed N";
    return NULL;
}

int sim_arguments_usage(const char *why) {
    fprintf(stderr,
            "chronos-sim: %s\n"
            "usage: chronos-sim --seeds FIRST-LAST [OPTION...]\n"
            "       chronos-sim --seed N [--trace] [OPTION...]\n"
            "       chronos-sim --check-history FILE   (its form: src/sim/history.h)\n"
            "  --events N            of each seed's time of faults (2000)\n"
            "  --nodes 1..7          at the start; else each seed draws them\n"
            "  --scenario NAME       play this one in each seed; else some seeds draw one\n"
            "  --jobs N              processes that share the seeds (as many as there are cores)\n"
            "  --stats               how often each thing happened\n"
            "  --require-counters N  fail, by name, when an interesting thing happened less often\n"
            "  --trace               one line for each thing that happens\n"
            "Exit code 0: everything holds. 1: a seed failed, with the command that replays it.\n"
            "Scenarios:\n",
            why);
    for (unsigned i = 0; sim_topology_at(i); i++)
        fprintf(stderr, "  %-14s %s\n", sim_topology_at(i)->name, sim_topology_at(i)->what);
    return 2;
}

struct sim_options sim_arguments_world(const struct sim_arguments *a, uint64_t seed) {
    return (struct sim_options){
        .seed = seed,
        .nodes = a->nodes,
        .topology = a->topology,
        .events_max = a->events,
        .trace = a->trace,
    };
}

void sim_arguments_replay(const struct sim_arguments *a, uint64_t seed,
                          char ret[SIM_REPLAY_BYTES]) {
    char nodes[32] = "", scenario[48] = "";

    if (a->nodes)
        (void) snprintf(nodes, sizeof(nodes), " --nodes %u", a->nodes);
    if (a->topology)
        (void) snprintf(scenario, sizeof(scenario), " --scenario %.32s",
                        sim_topology_at(a->topology - 1)->name);
    (void) snprintf(ret, SIM_REPLAY_BYTES, "replay: %.160s --seed %llu --events %llu%s%s --trace\n",
                    a->program, (unsigned long long) seed, (unsigned long long) a->events, nodes,
                    scenario);
}
