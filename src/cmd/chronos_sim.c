/* `chronos-sim`: run seeds of the simulated world.
 *
 *   chronos-sim --seeds 1-2000 [--nodes N] [--events N]
 *   chronos-sim --seed N --trace
 * Exit 0 when everything holds; 1 with the failing seed and the command that replays it; 2 usage. */
#include "sim/world.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct arguments {
    uint64_t first, last;
    uint64_t events;
    unsigned nodes;
    bool trace;
};

static int usage(const char *why) {
    fprintf(stderr,
            "chronos-sim: %s\n"
            "usage: chronos-sim --seeds FIRST-LAST [--nodes 1..7] [--events N]\n"
            "       chronos-sim --seed N [--trace] [--nodes 1..7] [--events N]\n",
            why);
    return 2;
}

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

static const char *parse(int argc, char **argv, struct arguments *a) {
    for (int i = 1; i < argc; i++) {
        const char *v = i + 1 < argc ? argv[i + 1] : "", *rest = NULL;
        uint64_t n = 0;

        if (strcmp(argv[i], "--trace") == 0) {
            a->trace = true;
            continue;
        }
        if (strcmp(argv[i], "--seeds") == 0) {
            if (!number(v, '-', UINT64_MAX, &a->first, &rest) ||
                !number(rest, '\0', UINT64_MAX, &a->last, NULL) || a->last < a->first)
                return "--seeds: FIRST-LAST expected, such as 1-2000";
        } else if (strcmp(argv[i], "--seed") == 0) {
            if (!number(v, '\0', UINT64_MAX, &a->first, NULL))
                return "--seed: a number expected";
            a->last = a->first;
        } else if (strcmp(argv[i], "--nodes") == 0) {
            if (!number(v, '\0', SIM_NODES_MAX, &n, NULL) || n == 0)
                return "--nodes: 1 to 7 expected";
            a->nodes = (unsigned) n;
        } else if (strcmp(argv[i], "--events") == 0) {
            if (!number(v, '\0', 100000000, &a->events, NULL) || a->events == 0)
                return "--events: 1 to 100000000 expected";
        } else {
            return "unknown option";
        }
        i++;
    }
    return a->last == 0 ? "--seeds or --seed is missing" : NULL;
}

static int run_seed(const struct arguments *a, uint64_t seed, struct sim_result *total) {
    struct sim_options o = {
        .seed = seed, .nodes = a->nodes, .events_max = a->events, .trace = a->trace};
    struct sim_result r;

    if (sim_run(&o, &r) < 0) {
        fprintf(stderr, "chronos-sim: out of memory at seed %llu\n", (unsigned long long) seed);
        return 1;
    }
    if (!r.ok) {
        printf("FAILED seed %llu: %s\n", (unsigned long long) seed, r.failure);
        printf("replay: build/release/chronos-sim --seed %llu --events %llu", (unsigned long long) seed,
               (unsigned long long) a->events);
        if (a->nodes)
            printf(" --nodes %u", a->nodes);
        printf(" --trace\n");
        return 1;
    }
    if (a->trace)
        printf("trace hash %016llx\n", (unsigned long long) r.trace_hash);
    total->events += r.events;
    total->acked += r.acked;
    total->unknown += r.unknown;
    total->refused += r.refused;
    total->reads += r.reads;
    total->jobs_done += r.jobs_done;
    total->elections += r.elections;
    total->crashes += r.crashes;
    total->partitions += r.partitions;
    total->stale_reports += r.stale_reports;
    return 0;
}

int main(int argc, char **argv) {
    struct arguments a = {.events = 2000};
    struct sim_result total = {0};
    const char *why = parse(argc, argv, &a);

    if (why)
        return usage(why);
    (void) setvbuf(stdout, NULL, _IOLBF, 0);
    for (uint64_t seed = a.first; seed <= a.last; seed++)
        if (run_seed(&a, seed, &total) != 0)
            return 1;
    printf("%llu seeds hold: %llu events, %llu elections, %llu crashes, %llu partitions, "
           "%llu submits acknowledged, %llu unknown, %llu refused, %llu reads, %llu jobs ended, "
           "%llu stale reports\n",
           (unsigned long long) (a.last - a.first + 1), (unsigned long long) total.events,
           (unsigned long long) total.elections, (unsigned long long) total.crashes,
           (unsigned long long) total.partitions, (unsigned long long) total.acked,
           (unsigned long long) total.unknown, (unsigned long long) total.refused,
           (unsigned long long) total.reads, (unsigned long long) total.jobs_done,
           (unsigned long long) total.stale_reports);
    return 0;
}
