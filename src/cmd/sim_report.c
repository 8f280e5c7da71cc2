/* What a run of seeds says at its end. */
#include "cmd/sim_report.h"

static unsigned long long stat(const struct sim_totals *t, enum sim_stat s) {
    return (unsigned long long) t->stats[s];
}

static void print_counters(const struct sim_totals *t) {
    for (unsigned i = 0; i < SIM_STATS; i++) {
        const char *group = sim_stat_group((enum sim_stat) i);

        if (group)
            printf("%s\n", group);
        printf("%12llu %s\n", stat(t, (enum sim_stat) i), sim_stat_name((enum sim_stat) i));
    }
}

void sim_report_totals(const struct sim_arguments *a, const struct sim_range *r) {
    const struct sim_totals *t = &r->totals;

    if (a->stats || a->counters_min > 0)
        print_counters(t);
    printf(
        "%llu seeds hold: %llu events, %llu elections, %llu crashes, "
        "%llu submits acknowledged, %llu reads, %llu jobs ended, %llu snapshots, "
        "%llu installs, %llu membership changes\n",
        (unsigned long long) t->seeds, (unsigned long long) t->events, stat(t, SIM_STAT_ELECTIONS),
        stat(t, SIM_STAT_CRASHES), stat(t, SIM_STAT_ACKED), stat(t, SIM_STAT_READS),
        stat(t, SIM_STAT_JOBS_ENDED), stat(t, SIM_STAT_SNAPSHOTS),
        stat(t, SIM_STAT_INSTALLS_FINISHED), stat(t, SIM_STAT_CHANGES_DONE));
    if (r->seconds > 0)
        printf("%.0f s, %.0f events/s\n", r->seconds, (double) t->events / r->seconds);
}

unsigned sim_report_counters(const struct sim_totals *t, uint64_t min) {
    unsigned low = 0, seen = 0;

    for (unsigned i = 0; i < SIM_STATS; i++) {
        enum sim_stat_kind kind = sim_stat_kind((enum sim_stat) i);
        unsigned long long n = stat(t, (enum sim_stat) i);

        if (kind == SIM_STAT_INFORMATIVE)
            continue;
        if (kind == SIM_STAT_NEVER && n == 0)
            continue;
        seen += kind == SIM_STAT_INTERESTING;
        if (kind == SIM_STAT_INTERESTING && n >= min)
            continue;
        low++;
        printf("FAILED counter \"%s\": %llu, expected %s%llu\n", sim_stat_name((enum sim_stat) i),
               n, kind == SIM_STAT_NEVER ? "" : "at least ",
               kind == SIM_STAT_NEVER ? 0 : (unsigned long long) min);
    }
    printf("%u interesting things counted, %u of them too rare\n", seen, low);
    return low;
}

void sim_report_failure(const struct sim_arguments *a, const struct sim_range *r) {
    char replay[SIM_REPLAY_BYTES];

    sim_arguments_replay(a, r->seed, replay);
    printf("FAILED seed %llu: %s\n", (unsigned long long) r->seed, r->why);
    if (r->events > 0)
        printf("after %llu events\n", (unsigned long long) r->events);
    printf("%s", replay);
    printf("held before: %llu seeds, %llu events\n", (unsigned long long) (r->seed - a->first),
           (unsigned long long) r->events_before);
}
