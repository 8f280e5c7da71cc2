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
    [SIM_STAT_READS_AT_ONCE] = "reads answered by a lease",
    [SIM_STAT_READS_PAUSED] = "reads that waited in a paused node",
    [SIM_STAT_JOBS_ENDED] = "jobs ended",
    [SIM_STAT_ATTEMPTS] = "attempts started",
    [SIM_STAT_LEASES_OVER] = "attempts ended by their own worker's clock",
    [SIM_STAT_ASSIGNED_LATE] = "assignments after the end of the lease",
    [SIM_STAT_LOSSES] = "attempts lost",
    [SIM_STAT_LEASES_EXPIRED] = "leases expired",
    [SIM_STAT_STALE_REPORTS] = "stale reports",
    [SIM_STAT_ELECTIONS] = "elections",
    [SIM_STAT_CONTESTED] = "contested terms",
    [SIM_STAT_PRE_VOTES_REFUSED] = "pre-votes refused",
    [SIM_STAT_TWO_LEADERS] = "two leaders at once, in different terms",
    [SIM_STAT_STEPPED_DOWN] = "leaders that stepped down",
    [SIM_STAT_TRANSFERS] = "leadership transfers",
    [SIM_STAT_CRASHES] = "crashes",
    [SIM_STAT_CRASHES_AT_ONCE] = "crashes right after an event",
    [SIM_STAT_NODES_PAUSED] = "nodes paused",
    [SIM_STAT_LONG_TAILS] = "leaders cut off with a long tail",
    [SIM_STAT_LEADERS_RESUMED] = "leaders that went on after a pause",
    [SIM_STAT_LEADERS_RESUMED_LATE] = "of them those who had a successor",
    [SIM_STAT_NODES_UPGRADED] = "nodes upgraded",
    [SIM_STAT_LEVELS_RAISED] = "feature levels raised",
    [SIM_STAT_LEADER_CRASHES_TAIL] = "leader crashes with a tail",
    [SIM_STAT_DISK_CRASHES] = "power cuts within a write",
    [SIM_STAT_DISK_ERRORS] = "disk errors",
    [SIM_STAT_SYNCS_FAILED] = "failed syncs",
    [SIM_STAT_DISKS_NO_ROOM] = "writes without room",
    [SIM_STAT_META_TORN] = "torn slots of term and vote",
    [SIM_STAT_DISKS_WITHOUT_ROOM] = "disks full for a while",
    [SIM_STAT_ENDS_WITHOUT_ROOM] = "nodes ended without room",
    [SIM_STAT_STARTS_WITHOUT_ROOM] = "starts without room",
    [SIM_STAT_STARTS_UNREADABLE] = "starts with a read error",
    [SIM_STAT_READ_ERRORS] = "read errors set up",
    [SIM_STAT_SHORT_TRANSFERS] = "disks that do part of what is asked",
    [SIM_STAT_DISKS_HUNG] = "disks hung",
    [SIM_STAT_LEADERS_HUNG] = "disks of leaders hung",
    [SIM_STAT_DAMAGE_FIRST + DAMAGE_BIT_ROT] = "damage: bits rotten",
    [SIM_STAT_DAMAGE_FIRST + DAMAGE_ZERO_SECTOR] = "damage: sectors zeroed",
    [SIM_STAT_DAMAGE_FIRST + DAMAGE_MISDIRECTED] = "damage: writes misdirected",
    [SIM_STAT_DAMAGE_FIRST + DAMAGE_SWAP] = "damage: segments swapped",
    [SIM_STAT_DAMAGE_FIRST + DAMAGE_OLD_META] = "damage: old meta files",
    [SIM_STAT_DAMAGE_FIRST + DAMAGE_OLD_SEGMENT] = "damage: old segments",
    [SIM_STAT_DAMAGE_FIRST + DAMAGE_TRUNCATED] = "damage: files cut short",
    [SIM_STAT_DAMAGE_FIRST + DAMAGE_REMOVED] = "damage: files removed",
    [SIM_STAT_DAMAGE_FIRST + DAMAGE_META_SLOT] = "damage: meta slots",
    [SIM_STAT_DAMAGE_FIRST + DAMAGE_META_BOTH] = "damage: both meta slots",
    [SIM_STAT_DAMAGE_FIRST + DAMAGE_STATE] = "damage: records of the state",
    [SIM_STAT_DAMAGE_RUNNING] = "damage under a running node",
    [SIM_STAT_DAMAGE_REFUSED] = "damage refused",
    [SIM_STAT_DAMAGE_READ] = "damage met by a read",
    [SIM_STAT_DAMAGE_REPAIRED] = "damage repaired",
    [SIM_STAT_DAMAGE_UNHARMED] = "damage without harm",
    [SIM_STAT_DAMAGE_TAILS_LOST] = "last batches lost to damage",
    [SIM_STAT_TAILS_LOST] = "tails lost",
    [SIM_STAT_PARTITIONS] = "partitions",
    [SIM_STAT_PARTITIONS_ONE_WAY] = "one-way partitions",
    [SIM_STAT_PARTITIONS_PARTIAL] = "partial partitions",
    [SIM_STAT_ISOLATIONS] = "nodes cut off from all",
    [SIM_STAT_LINKS_BROKEN] = "connections broken",
    [SIM_STAT_LINKS_FLAPPING] = "links that begin to flap",
    [SIM_STAT_FLAPS] = "times a flapping link turned",
    [SIM_STAT_LINKS_SLOW] = "links that became slow",
    [SIM_STAT_CORES] = "worlds where a minority stays broken",
    [SIM_STAT_LEFT_DOWN] = "nodes left down",
    [SIM_STAT_LEFT_PARTED] = "nodes left cut off",
    [SIM_STAT_LEFT_FLAPPING] = "nodes left with flapping links",
    [SIM_STAT_LEFT_ONE_WAY] = "nodes left deaf or mute",
    [SIM_STAT_PLAYED_CLOUDFLARE] = "scenarios cloudflare",
    [SIM_STAT_PLAYED_QUORUM_LOSS] = "scenarios quorum-loss",
    [SIM_STAT_PLAYED_ONE_WAY] = "scenarios one-way",
    [SIM_STAT_PLAYED_DEAF_LEADER] = "scenarios deaf-leader",
    [SIM_STAT_PLAYED_MUTE_LEADER] = "scenarios mute-leader",
    [SIM_STAT_PLAYED_CHAIN] = "scenarios chain",
    [SIM_STAT_PLAYED_RING] = "scenarios ring",
    [SIM_STAT_PLAYED_FLAPPING] = "scenarios flapping",
    [SIM_STAT_PLAYED_SLOW_FOLLOWER] = "scenarios slow-follower",
    [SIM_STAT_PLAYED_ORDERS] = "scenarios change-orders",
    [SIM_STAT_PLAYED_RESIZE] = "scenarios resize",
    [SIM_STAT_PLAYED_PRIMARIES] = "scenarios primaries",
    [SIM_STAT_PLAYED_ISOLATED] = "scenarios isolated",
    [SIM_STAT_MESSAGES_LOST] = "messages lost",
    [SIM_STAT_MESSAGES_DOUBLED] = "messages doubled",
    [SIM_STAT_MESSAGES_SLOW] = "messages held up",
    [SIM_STAT_MESSAGES_BLOCKED] = "messages into a closed link",
    [SIM_STAT_FRAMES_CUT] = "frames cut by the end of their connection",
    [SIM_STAT_FRAMES_DAMAGED] = "damaged frames refused",
    [SIM_STAT_STALE_READ] = "messages read from a broken connection",
    [SIM_STAT_STALE_REFUSED] = "messages of a replaced connection refused",
    [SIM_STAT_TRUNCATIONS] = "truncations",
    [SIM_STAT_TRUNCATIONS_LONG] = "truncations of 2 or more",
    [SIM_STAT_FORWARDED] = "forwarded proposals",
    [SIM_STAT_FORWARDED_AGAIN] = "forwarded again",
    [SIM_STAT_FORWARDS_FULL] = "forwards refused as full",
    [SIM_STAT_APPENDS_REFUSED] = "appends refused",
    [SIM_STAT_APPENDS_OLD] = "appends read from disk",
    [SIM_STAT_APPENDS_DOUBLE] = "appends doubled",
    [SIM_STAT_APPENDS_LATE] = "appends overtaken",
    [SIM_STAT_ANSWERS_STALE] = "answers to an older session",
    [SIM_STAT_VOTES_REFUSED] = "votes refused",
    [SIM_STAT_SNAPSHOTS] = "snapshots taken",
    [SIM_STAT_LOG_RELEASED] = "log prefixes released",
    [SIM_STAT_INSTALLS_BEGUN] = "installs begun",
    [SIM_STAT_INSTALLS_FINISHED] = "installs finished",
    [SIM_STAT_INSTALLS_INTERRUPTED] = "installs interrupted",
    [SIM_STAT_INSTALLS_RESUMED] = "installs resumed",
    [SIM_STAT_INSTALLS_REFUSED] = "installs refused",
    [SIM_STAT_INSTALLS_STALE] = "installs not needed",
    [SIM_STAT_LOG_RESETS_TAIL] = "installs over a tail",
    [SIM_STAT_STAGE_FAULTS] = "faults of the state store",
    [SIM_STAT_BULK_FULL] = "bulk queues full",
    [SIM_STAT_BULK_BROKEN] = "bulk connections broken",
    [SIM_STAT_CHANGES_ASKED] = "membership changes asked",
    [SIM_STAT_CHANGES_DONE] = "membership changes done",
    [SIM_STAT_CHANGES_REFUSED] = "membership changes refused",
    [SIM_STAT_CHANGES_UNKNOWN] = "membership changes unknown",
    [SIM_STAT_JOINT_ENTERED] = "joint configurations entered",
    [SIM_STAT_JOINT_LEFT] = "joint configurations left",
    [SIM_STAT_CONFIG_ROLLED_BACK] = "configurations rolled back",
    [SIM_STAT_LEARNERS_PROMOTED] = "learners promoted",
    [SIM_STAT_NODES_ADDED] = "nodes added",
    [SIM_STAT_NODES_REMOVED] = "nodes removed",
    [SIM_STAT_NODES_STOPPED] = "nodes stopped as told",
    [SIM_STAT_NODES_WIPED] = "disks erased",
    [SIM_STAT_NODES_MOVED] = "addresses changed",
    [SIM_STAT_HELLOS_REFUSED] = "hellos refused",
    [SIM_STAT_HELLOS_REFUSED_FINAL] = "hellos refused for good",
    [SIM_STAT_DRAINS] = "drains and lifted drains",
    [SIM_STAT_DISKS_FULL] = "disks nearly full",
    [SIM_STAT_QUORUMS_LOST] = "worlds without a quorum left",
    [SIM_STAT_TICKS_ON_TIME] = "ticks run on time",
    [SIM_STAT_TICKS_FAILOVER] = "ticks run late after a failover",
    [SIM_STAT_TICKS_CATCH_UP] = "ticks run by catching up",
    [SIM_STAT_TICKS_BY_HAND] = "ticks run by hand",
    [SIM_STAT_TICKS_BUFFERED] = "ticks that waited",
    [SIM_STAT_TICKS_AFTER_WAIT] = "ticks run after a wait",
    [SIM_STAT_TICKS_OVERLAP] = "ticks skipped for an open run",
    [SIM_STAT_TICKS_PAUSED] = "ticks skipped in a pause",
    [SIM_STAT_TICKS_MISSED] = "ticks missed",
    [SIM_STAT_TICKS_WINDOW] = "ticks older than the window",
    [SIM_STAT_TICKS_MANY] = "more than 100 ticks decided at once",
    [SIM_STAT_TICKS_EXPIRED] = "ticks beyond max_runs",
    [SIM_STAT_TICKS_DROPPED] = "ticks dropped by an edit",
    [SIM_STAT_PLANS_STALE] = "plans that came too late",
    [SIM_STAT_PLANS_REFUSED] = "plans refused",
    [SIM_STAT_PLANS_OF_NEW_LEADERS] = "first plans of new leaders",
    [SIM_STAT_SCHEDULES_CREATED] = "schedules created",
    [SIM_STAT_SCHEDULES_EDITED] = "schedules edited",
    [SIM_STAT_SCHEDULES_DELETED] = "schedules deleted",
    [SIM_STAT_PAUSES_ON_FAILURE] = "pauses after a failure",
    [SIM_STAT_CLOCK_FAULTS] = "clocks set or bent",
    [SIM_STAT_CLOCK_STROBES] = "clocks set to and fro",
    [SIM_STAT_CLOCK_RATES] = "monotonic clocks bent",
    [SIM_STAT_MODELS_LOST] = "schedules not comparable at the end",
    [SIM_STAT_JOB_MODELS_LOST] = "jobs not comparable at the end",
    [SIM_STAT_STATES_COMPARED] = "whole states compared with the model",
    [SIM_STAT_READS_STALE] = "stale reads with a token",
    [SIM_STAT_READS_BEHIND] = "stale reads behind their token",
    [SIM_STAT_WATCHES] = "watches resumed",
    [SIM_STAT_WATCHES_COMPACTED] = "watches told that it is too late",
    [SIM_STAT_HISTORIES_JUDGED] = "histories judged",
    [SIM_STAT_HISTORIES_SEARCHED] = "parts of histories searched",
    [SIM_STAT_STEP_BECOME_CANDIDATE] = "model steps BecomeCandidate",
    [SIM_STAT_STEP_UPDATE_TERM] = "model steps UpdateTerm",
    [SIM_STAT_STEP_GRANT_VOTE] = "model steps GrantVote",
    [SIM_STAT_STEP_BECOME_LEADER] = "model steps BecomeLeader",
    [SIM_STAT_STEP_STEP_DOWN] = "model steps StepDown",
    [SIM_STAT_STEP_CLIENT_APPEND] = "model steps ClientAppend",
    [SIM_STAT_STEP_APPEND_ENTRIES] = "model steps AppendEntries",
    [SIM_STAT_STEP_TRUNCATE_CONFLICT] = "model steps TruncateConflict",
    [SIM_STAT_STEP_LEARN_COMMIT] = "model steps LearnCommit",
    [SIM_STAT_STEP_ADVANCE_COMMIT] = "model steps AdvanceCommit",
    [SIM_STAT_STEP_ENTER_JOINT] = "model steps EnterJoint",
    [SIM_STAT_STEP_LEAVE_JOINT] = "model steps LeaveJoint",
    [SIM_STAT_STEP_SNAPSHOT] = "model steps Snapshot",
    [SIM_STAT_STEP_INSTALL_SNAPSHOT] = "model steps InstallSnapshot",
    [SIM_STAT_STEP_PERSIST_META] = "model steps PersistMeta",
    [SIM_STAT_STEP_PERSIST] = "model steps Persist",
    [SIM_STAT_STEP_RESTART] = "model steps Restart",
};
STATIC_ASSERT(ARRAY_LEN(names) == SIM_STATS, "every counter has a name");

const char *sim_stat_name(enum sim_stat stat) {
    ASSERT(stat < SIM_STATS);
    return names[stat];
}

/* A counter belongs to the group that began last, in the order of the enum. */
static const struct {
    enum sim_stat first;
    const char *title;
} groups[] = {
    {SIM_STAT_SUBMITTED, "clients"},        {SIM_STAT_JOBS_ENDED, "jobs and workers"},
    {SIM_STAT_ELECTIONS, "elections"},      {SIM_STAT_CRASHES, "processes, disks and links"},
    {SIM_STAT_TRUNCATIONS, "replication"},  {SIM_STAT_SNAPSHOTS, "snapshots"},
    {SIM_STAT_CHANGES_ASKED, "membership"}, {SIM_STAT_TICKS_ON_TIME, "schedules"},
    {SIM_STAT_MODELS_LOST, "checkers"},     {SIM_STAT_STEP_BECOME_CANDIDATE, "steps of the model"},
};

/* Those that say something else than "this situation was met". */
static const struct {
    enum sim_stat stat;
    enum sim_stat_kind kind;
} kinds[] = {
    {SIM_STAT_INSTALLS_STALE, SIM_STAT_INFORMATIVE},    /* the follower was served meanwhile */
    {SIM_STAT_INSTALLS_REFUSED, SIM_STAT_INFORMATIVE},  /* a receiver that dies says nothing */
    {SIM_STAT_DAMAGE_READ, SIM_STAT_INFORMATIVE},       /* the scrub and a start are sooner */
    {SIM_STAT_DAMAGE_TAILS_LOST, SIM_STAT_INFORMATIVE}, /* the atlas allows it, no more */
    {SIM_STAT_PLANS_REFUSED, SIM_STAT_INFORMATIVE}, /* a clock set back between plan and stamp */
    {SIM_STAT_QUORUMS_LOST, SIM_STAT_INFORMATIVE},  /* nothing is promised to them */
    {SIM_STAT_META_TORN, SIM_STAT_INFORMATIVE}, /* what a slot says is in one sector, torn never */
    {SIM_STAT_MODELS_LOST,
     SIM_STAT_INFORMATIVE}, /* what could not be compared: the fewer the better */
    {SIM_STAT_JOB_MODELS_LOST, SIM_STAT_INFORMATIVE}, /* likewise */
};

enum sim_stat_kind sim_stat_kind(enum sim_stat stat) {
    ASSERT(stat < SIM_STATS);
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
        if (kinds[i].stat == stat)
            return kinds[i].kind;
    return SIM_STAT_INTERESTING;
}

const char *sim_stat_group(enum sim_stat stat) {
    for (size_t i = 0; i < ARRAY_LEN(groups); i++)
        if (groups[i].first == stat)
            return groups[i].title;
    return NULL;
}
