/* Names of what is counted. Pure table. Thread: any. */
#include "sim/world.h"

static const char *const names[] = {
    [SIM_STAT_SUBMITTED] = "submitted",
    [SIM_STAT_ACKED] = "acknowledged",
    [SIM_STAT_UNKNOWN] = "unknown outcomes",
    [SIM_STAT_REFUSED] = "refused",
    [SIM_STAT_STOPPED] = "calls cut by a crash",
    [SIM_STAT_RETRIED] = "retried with a key",
    [SIM_STAT_KEY_CLASHES] = "key conflicts",
    [SIM_STAT_CANCELLED] = "cancels",
    [SIM_STAT_READS] = "reads answered",
    [SIM_STAT_READS_FAILED] = "reads failed",
    [SIM_STAT_JOBS_ENDED] = "jobs ended",
    [SIM_STAT_ATTEMPTS] = "attempts started",
    [SIM_STAT_LOSSES] = "attempts lost",
    [SIM_STAT_LEASES_EXPIRED] = "leases expired",
    [SIM_STAT_STALE_REPORTS] = "stale reports",
    [SIM_STAT_ELECTIONS] = "elections",
    [SIM_STAT_CONTESTED] = "contested terms",
    [SIM_STAT_TRANSFERS] = "leadership transfers",
    [SIM_STAT_CRASHES] = "crashes",
    [SIM_STAT_LEADER_CRASHES_TAIL] = "leader crashes with a tail",
    [SIM_STAT_DISK_CRASHES] = "power cuts within a write",
    [SIM_STAT_DISK_ERRORS] = "disk errors",
    [SIM_STAT_TAILS_LOST] = "tails lost",
    [SIM_STAT_PARTITIONS] = "partitions",
    [SIM_STAT_TRUNCATIONS] = "truncations",
    [SIM_STAT_TRUNCATIONS_LONG] = "truncations of 2 or more",
    [SIM_STAT_FORWARDED] = "forwarded proposals",
    [SIM_STAT_FORWARDED_AGAIN] = "forwarded again",
    [SIM_STAT_FORWARDS_FULL] = "forwards refused as full",
    [SIM_STAT_APPENDS_REFUSED] = "appends refused",
    [SIM_STAT_APPENDS_OLD] = "appends read from disk",
    [SIM_STAT_APPENDS_DOUBLE] = "appends doubled",
    [SIM_STAT_APPENDS_LATE] = "appends overtaken",
    [SIM_STAT_VOTES_REFUSED] = "votes refused",
};
STATIC_ASSERT(ARRAY_LEN(names) == SIM_STATS, "every counter has a name");

const char *sim_stat_name(enum sim_stat stat) {
    ASSERT(stat < SIM_STATS);
    return names[stat];
}
