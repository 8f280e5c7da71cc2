/* `chronos-sim`: run seeds of the simulated world.
 *
 *   chronos-sim --seeds 1-2000 [--nodes N] [--events N] [--jobs N]
 *   chronos-sim --seed N --trace
 *   chronos-sim --check-history FILE
 * Exit 0 when everything holds; 1 with the failing seed and the command that replays it; 2 usage.
 * An assertion that fails in the code under test ends a process: its parent names the seed all the
 * same; with --seed the handler of the signal does. Ctrl-C prints how far it came. */
#include "cmd/sim_history.h"
#include "cmd/sim_range.h"
#include "cmd/sim_report.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What the signal handler says; written before the seed begins, read only by it. */
static char last_words[SIM_REPLAY_BYTES + 128];

static void on_abort(int sig) {
    (void) !write(STDOUT_FILENO, last_words, strlen(last_words));
    (void) signal(sig, SIG_DFL);
    (void) raise(sig);
}

/* In this process, so that a debugger sees it and a trace is whole. */
static int run_one(const struct sim_arguments *a) {
    struct sim_range r = {0};
    char replay[SIM_REPLAY_BYTES];

    sim_arguments_replay(a, a->first, replay);
    (void) snprintf(last_words, sizeof(last_words),
                    "FAILED seed %llu: the code under test ended the process\n%s",
                    (unsigned long long) a->first, replay);
    (void) setvbuf(stdout, NULL, _IOLBF, 0); /* the trace up to where it dies */
    (void) signal(SIGABRT, on_abort);
    (void) signal(SIGSEGV, on_abort);
    (void) signal(SIGFPE, on_abort);
    r.seed = a->first;
    if (!sim_seed_run(a, a->first, &r.totals, r.why, sizeof(r.why), &r.events)) {
        sim_report_failure(a, &r);
        return 1;
    }
    sim_report_totals(a, &r);
    return 0;
}

static int run_range(const struct sim_arguments *a) {
    struct sim_range r;
    int rc = sim_range_run(a, &r);

    if (rc < 0) {
        fprintf(stderr, "chronos-sim: no processes for the seeds: %s\n", strerror(-rc));
        return 1;
    }
    if (r.failed) {
        if (r.said)
            fprintf(stderr, "%s", r.said);
        free(r.said);
        sim_report_failure(a, &r);
        return 1;
    }
    if (r.interrupted)
        printf("interrupted: %llu of %llu seeds were run\n", (unsigned long long) r.totals.seeds,
               (unsigned long long) (a->last - a->first + 1));
    sim_report_totals(a, &r);
    if (r.interrupted)
        return 128 + SIGINT;
    return a->counters_min > 0 && sim_report_counters(&r.totals, a->counters_min) > 0;
}

int main(int argc, char **argv) {
    struct sim_arguments a;
    const char *why;

    if (argc == 3 && strcmp(argv[1], "--check-history") == 0)
        return sim_history_check(argv[2]);
    why = sim_arguments_parse(argc, argv, &a);
    if (why)
        return sim_arguments_usage(why);
    return a.one ? run_one(&a) : run_range(&a);
}
