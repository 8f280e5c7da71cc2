/* `chronos-sim`: run seeds of the simulated world.
 *
 *   chronos-sim --seeds 1-2000 [--nodes N] [--events N]
 *   chronos-sim --seed N --trace
 * Exit 0 when everything holds; 1 with the failing seed and the command that replays it; 2 usage.
 * An assertion that fails in the code under test ends the process: the handler of its signal names
 * the seed all the same. Ctrl-C prints how far it came. */
#include "sim/world.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define REPEAT_ONE_IN 20 /* seeds run twice, to see that they are the same run (R23) */

struct arguments {
    uint64_t first, last;
    uint64_t events;
    unsigned nodes;
    bool trace;
    bool stats;
};

/* What the signal handlers say; written before each seed, read only by them. */
static char replay_line[320];
static volatile sig_atomic_t interrupted;

static void on_abort(int sig) {
    static const char head[] = "FAILED: the code under test ended the process\n";

    (void) !write(STDOUT_FILENO, head, sizeof(head) - 1);
    (void) !write(STDOUT_FILENO, replay_line, strlen(replay_line));
    (void) signal(sig, SIG_DFL);
    (void) raise(sig);
}

static void on_interrupt(int sig) {
    (void) sig;
    interrupted = 1;
}

static int usage(const char *why) {
    fprintf(stderr,
            "chronos-sim: %s\n"
            "usage: chronos-sim --seeds FIRST-LAST [--nodes 1..7] [--events N] [--stats]\n"
            "       chronos-sim --seed N [--trace] [--nodes 1..7] [--events N] [--stats]\n",
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
        if (strcmp(argv[i], "--stats") == 0) {
            a->stats = true;
            continue;
        }
        if (strcmp(argv[i], "--seeds") == 0) {
            if (!number(v, '-', UINT64_MAX - 1, &a->first, &rest) ||
                !number(rest, '\0', UINT64_MAX - 1, &a->last, NULL) || a->last < a->first)
                return "--seeds: FIRST-LAST expected, such as 1-2000";
        } else if (strcmp(argv[i], "--seed") == 0) {
            if (!number(v, '\0', UINT64_MAX - 1, &a->first, NULL))
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

/* @total is of the seeds before. */
static void note_replay(const struct arguments *a, const char *program, uint64_t seed,
                        const struct sim_result *total) {
    char nodes[32] = "";

    if (a->nodes)
        (void) snprintf(nodes, sizeof(nodes), " --nodes %u", a->nodes);
    (void) snprintf(replay_line, sizeof(replay_line),
                    "replay: %.120s --seed %llu --events %llu%s --trace\n"
                    "held before: %llu seeds, %llu events\n",
                    program, (unsigned long long) seed, (unsigned long long) a->events, nodes,
                    (unsigned long long) (seed - a->first), (unsigned long long) total->events);
}

static int failed(uint64_t seed, const char *why) {
    printf("FAILED seed %llu: %s\n%s", (unsigned long long) seed, why, replay_line);
    return 1;
}

static int run_seed(const struct arguments *a, uint64_t seed, struct sim_result *total) {
    struct sim_options o = {
        .seed = seed, .nodes = a->nodes, .events_max = a->events, .trace = a->trace};
    struct sim_result r, again;

    if (sim_run(&o, &r) < 0)
        return failed(seed, "out of memory");
    if (!r.ok)
        return failed(seed, r.failure);
    if (seed % REPEAT_ONE_IN == 0 && !a->trace) {
        if (sim_run(&o, &again) < 0)
            return failed(seed, "out of memory");
        if (again.trace_hash != r.trace_hash || again.events != r.events)
            return failed(seed, "not deterministic: a second run took another course");
    }
    if (a->trace)
        printf("trace hash %016llx\n", (unsigned long long) r.trace_hash);
    total->events += r.events;
    for (unsigned i = 0; i < SIM_STATS; i++)
        total->stats[i] += r.stats[i];
    return 0;
}

static void print_totals(const struct arguments *a, uint64_t seeds,
                         const struct sim_result *total) {
    printf(
        "%llu seeds hold: %llu events, %llu elections, %llu crashes, %llu submits acknowledged, "
        "%llu reads, %llu jobs ended, %llu snapshots, %llu installs, %llu membership changes\n",
        (unsigned long long) seeds, (unsigned long long) total->events,
        (unsigned long long) total->stats[SIM_STAT_ELECTIONS],
        (unsigned long long) total->stats[SIM_STAT_CRASHES],
        (unsigned long long) total->stats[SIM_STAT_ACKED],
        (unsigned long long) total->stats[SIM_STAT_READS],
        (unsigned long long) total->stats[SIM_STAT_JOBS_ENDED],
        (unsigned long long) total->stats[SIM_STAT_SNAPSHOTS],
        (unsigned long long) total->stats[SIM_STAT_INSTALLS_FINISHED],
        (unsigned long long) total->stats[SIM_STAT_CHANGES_DONE]);
    for (unsigned i = 0; i < SIM_STATS && a->stats; i++)
        printf("%12llu %s\n", (unsigned long long) total->stats[i],
               sim_stat_name((enum sim_stat) i));
}

int main(int argc, char **argv) {
    struct arguments a = {.events = 2000};
    struct sim_result total = {0};
    const char *why = parse(argc, argv, &a);
    uint64_t seed;

    if (why)
        return usage(why);
    (void) setvbuf(stdout, NULL, _IOLBF, 0);
    (void) signal(SIGABRT, on_abort);
    (void) signal(SIGSEGV, on_abort);
    (void) signal(SIGINT, on_interrupt);
    for (seed = a.first; seed <= a.last && !interrupted; seed++) {
        note_replay(&a, argv[0], seed, &total);
        if (run_seed(&a, seed, &total) != 0)
            return 1;
    }
    if (interrupted)
        printf("interrupted after seed %llu of %llu\n", (unsigned long long) (seed - 1),
               (unsigned long long) a.last);
    print_totals(&a, seed - a.first, &total);
    return interrupted ? 128 + SIGINT : 0;
}
