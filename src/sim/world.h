/* One world, one seed: several real replicas under virtual time.
 *
 * What it is: the production code of raft, storage, fsm, sched and node, driven by fakes of clock,
 * disk, network, workers and clients, with faults drawn from the seed and checkers that look at
 * every node after every event. The same seed gives the same trace hash. What it is not: it links
 * no os/; a stray system call in a pure folder is a link error. Thread: one. */
#pragma once

#include "base/map.h"
#include "base/rand.h"
#include "node/replica.h"
#include "node/worker_session.h"
#include "sim/damage.h"
#include "sim/sim_disk.h"

#include <stdio.h>

#define SIM_NODES_MAX 7  /* at the start, and voters at any time */
#define SIM_SLOTS_MAX 16 /* nodes that ever existed in one world: ids 1 to 16 */
#define SIM_WORKERS_MAX 7
#define SIM_CLIENTS_MAX 8
#define SIM_OPS_MAX 4096

struct sim_options {
    uint64_t seed;
    unsigned nodes;      /* 0 = drawn: 3 or 5, sometimes 1, 2, 4, 7 */
    uint64_t events_max; /* of the safety phase */
    unsigned topology;   /* 1 + its place in the table of topology.h; 0 = drawn, mostly none */
    bool trace;          /* one line per transition on stdout */
};

/* What a run did, counted so that one can see whether the drawn worlds are worth running. */
enum sim_stat {
    SIM_STAT_SUBMITTED,
    SIM_STAT_ACKED,
    SIM_STAT_UNKNOWN,
    SIM_STAT_REFUSED,     /* channel full, or no leader within the deadline */
    SIM_STAT_STOPPED,     /* the node died under a call */
    SIM_STAT_RETRIED,     /* submits tried again under their idempotency key */
    SIM_STAT_KEY_CLASHES, /* the same key with another request: refused */
    SIM_STAT_CANCELLED,
    SIM_STAT_READS,
    SIM_STAT_READS_FAILED,
    SIM_STAT_READS_AT_ONCE, /* by a lease: nobody was asked */
    SIM_STAT_READS_PAUSED,  /* by a node that was paused while it had them */
    SIM_STAT_JOBS_ENDED,
    SIM_STAT_ATTEMPTS,
    SIM_STAT_LEASES_OVER,   /* attempts that their worker ended for its lease */
    SIM_STAT_ASSIGNED_LATE, /* assignments that came when the lease of their worker was over */
    SIM_STAT_LOSSES,        /* attempts taken from a lost worker */
    SIM_STAT_LEASES_EXPIRED,
    SIM_STAT_STALE_REPORTS,
    SIM_STAT_ELECTIONS,
    SIM_STAT_CONTESTED, /* terms with two candidates */
    SIM_STAT_PRE_VOTES_REFUSED,
    SIM_STAT_TWO_LEADERS, /* one began to lead while another did not know that its term is over */
    SIM_STAT_STEPPED_DOWN,
    SIM_STAT_TRANSFERS, /* TimeoutNow sent */
    SIM_STAT_CRASHES,
    SIM_STAT_CRASHES_AT_ONCE, /* right after an event, whichever it was */
    SIM_STAT_NODES_PAUSED,
    SIM_STAT_LONG_TAILS,           /* leaders cut off with many entries that nobody else has */
    SIM_STAT_LEADERS_RESUMED,      /* went on believing that they lead, */
    SIM_STAT_LEADERS_RESUMED_LATE, /* while another led a later term */
    SIM_STAT_NODES_UPGRADED,       /* started again with a newer program */
    SIM_STAT_LEVELS_RAISED,        /* feature levels of clusters */
    SIM_STAT_LEADER_CRASHES_TAIL,  /* with entries nobody had committed */
    SIM_STAT_DISK_CRASHES,         /* in the middle of a disk job */
    SIM_STAT_DISK_ERRORS,
    SIM_STAT_SYNCS_FAILED, /* of them */
    SIM_STAT_DISKS_NO_ROOM,
    SIM_STAT_META_TORN,          /* a power cut left one slot of term and vote damaged */
    SIM_STAT_DISKS_WITHOUT_ROOM, /* a capacity that was reached, for a while */
    SIM_STAT_ENDS_WITHOUT_ROOM,
    SIM_STAT_STARTS_WITHOUT_ROOM,
    SIM_STAT_STARTS_UNREADABLE,
    SIM_STAT_READ_ERRORS, /* set up; DISK_ERRORS counts what they did */
    SIM_STAT_SHORT_TRANSFERS,
    SIM_STAT_DISKS_HUNG,
    SIM_STAT_LEADERS_HUNG,
    SIM_STAT_DAMAGE_FIRST, /* by kind, in the order of enum damage_kind */
    SIM_STAT_DAMAGE_LAST = SIM_STAT_DAMAGE_FIRST + DAMAGE_KINDS - 1,
    SIM_STAT_DAMAGE_RUNNING, /* of them under a running node */
    SIM_STAT_DAMAGE_REFUSED, /* and what came of it */
    SIM_STAT_DAMAGE_READ,    /* of them by somebody's read, which ended the node */
    SIM_STAT_DAMAGE_REPAIRED,
    SIM_STAT_DAMAGE_UNHARMED,
    SIM_STAT_DAMAGE_TAILS_LOST, /* the last batch, taken for a torn write */
    SIM_STAT_TAILS_LOST,        /* a node came back with less than it had in memory */
    SIM_STAT_PARTITIONS,
    SIM_STAT_PARTITIONS_ONE_WAY,
    SIM_STAT_PARTITIONS_PARTIAL,
    SIM_STAT_ISOLATIONS,
    SIM_STAT_LINKS_BROKEN,
    SIM_STAT_LINKS_FLAPPING,
    SIM_STAT_FLAPS,
    SIM_STAT_LINKS_SLOW,
    SIM_STAT_CORES,
    SIM_STAT_LEFT_DOWN,
    SIM_STAT_LEFT_PARTED,
    SIM_STAT_LEFT_FLAPPING,
    SIM_STAT_LEFT_ONE_WAY,
    SIM_STAT_PLAYED_CLOUDFLARE,
    SIM_STAT_PLAYED_QUORUM_LOSS,
    SIM_STAT_PLAYED_ONE_WAY,
    SIM_STAT_PLAYED_DEAF_LEADER,
    SIM_STAT_PLAYED_MUTE_LEADER,
    SIM_STAT_PLAYED_CHAIN,
    SIM_STAT_PLAYED_RING,
    SIM_STAT_PLAYED_FLAPPING,
    SIM_STAT_PLAYED_SLOW_FOLLOWER,
    SIM_STAT_PLAYED_ORDERS,
    SIM_STAT_PLAYED_RESIZE,
    SIM_STAT_PLAYED_PRIMARIES,
    SIM_STAT_PLAYED_ISOLATED,
    SIM_STAT_MESSAGES_LOST,
    SIM_STAT_MESSAGES_DOUBLED,
    SIM_STAT_MESSAGES_SLOW,
    SIM_STAT_MESSAGES_BLOCKED,
    SIM_STAT_FRAMES_CUT,
    SIM_STAT_FRAMES_DAMAGED,
    SIM_STAT_STALE_READ,
    SIM_STAT_STALE_REFUSED,
    SIM_STAT_TRUNCATIONS,
    SIM_STAT_TRUNCATIONS_LONG, /* of two entries or more */
    SIM_STAT_FORWARDED,
    SIM_STAT_FORWARDED_AGAIN,
    SIM_STAT_FORWARDS_FULL,
    SIM_STAT_APPENDS_REFUSED,
    SIM_STAT_APPENDS_OLD, /* with entries that had to be read from the disk */
    SIM_STAT_APPENDS_DOUBLE,
    SIM_STAT_APPENDS_LATE,  /* overtaken by a newer one */
    SIM_STAT_ANSWERS_STALE, /* to an older session of a leader with its follower */
    SIM_STAT_VOTES_REFUSED,
    SIM_STAT_SNAPSHOTS,            /* states flushed so that the log could be released */
    SIM_STAT_LOG_RELEASED,         /* a node's log begins later than before */
    SIM_STAT_INSTALLS_BEGUN,       /* transfers whose first block arrived */
    SIM_STAT_INSTALLS_FINISHED,    /* a follower's state is the one it was sent */
    SIM_STAT_INSTALLS_INTERRUPTED, /* a receiver died in the middle of a transfer */
    SIM_STAT_INSTALLS_RESUMED,     /* blocks sent again after others */
    SIM_STAT_INSTALLS_REFUSED,     /* acknowledgements that end a transfer without success */
    SIM_STAT_INSTALLS_STALE,       /* answers that a snapshot was not needed any more */
    SIM_STAT_LOG_RESETS_TAIL,      /* installs that dropped entries of the log */
    SIM_STAT_STAGE_FAULTS,         /* the staged store failed or lost its power */
    SIM_STAT_BULK_FULL,
    SIM_STAT_BULK_BROKEN,
    SIM_STAT_CHANGES_ASKED,
    SIM_STAT_CHANGES_DONE,
    SIM_STAT_CHANGES_REFUSED,
    SIM_STAT_CHANGES_UNKNOWN,
    SIM_STAT_JOINT_ENTERED,
    SIM_STAT_JOINT_LEFT,
    SIM_STAT_CONFIG_ROLLED_BACK, /* a configuration entry was cut off again */
    SIM_STAT_LEARNERS_PROMOTED,
    SIM_STAT_NODES_ADDED,
    SIM_STAT_NODES_REMOVED,
    SIM_STAT_NODES_STOPPED, /* removed or refused, and ended because of it */
    SIM_STAT_NODES_WIPED,
    SIM_STAT_NODES_MOVED, /* restarted at another address */
    SIM_STAT_HELLOS_REFUSED,
    SIM_STAT_HELLOS_REFUSED_FINAL,
    SIM_STAT_DRAINS,
    SIM_STAT_DISKS_FULL,
    SIM_STAT_QUORUMS_LOST, /* worlds that cannot come back: too many disks were erased */
    SIM_STAT_TICKS_ON_TIME,
    SIM_STAT_TICKS_FAILOVER,
    SIM_STAT_TICKS_CATCH_UP,
    SIM_STAT_TICKS_BY_HAND,
    SIM_STAT_TICKS_BUFFERED,
    SIM_STAT_TICKS_AFTER_WAIT,
    SIM_STAT_TICKS_OVERLAP,
    SIM_STAT_TICKS_PAUSED,
    SIM_STAT_TICKS_MISSED, /* too late, by policy */
    SIM_STAT_TICKS_WINDOW,
    SIM_STAT_TICKS_MANY, /* more than 100 decided alike at once */
    SIM_STAT_TICKS_EXPIRED,
    SIM_STAT_TICKS_DROPPED,
    SIM_STAT_PLANS_STALE, /* another generation, or a watermark that had passed */
    SIM_STAT_PLANS_REFUSED,
    SIM_STAT_PLANS_OF_NEW_LEADERS,
    SIM_STAT_SCHEDULES_CREATED,
    SIM_STAT_SCHEDULES_EDITED,
    SIM_STAT_SCHEDULES_DELETED,
    SIM_STAT_PAUSES_ON_FAILURE,
    SIM_STAT_CLOCK_FAULTS,
    SIM_STAT_CLOCK_STROBES,
    SIM_STAT_CLOCK_RATES,       /* monotonic clocks that run at another rate from now on */
    SIM_STAT_MODELS_LOST,       /* transitions that nobody told */
    SIM_STAT_JOB_MODELS_LOST,   /* entries that nobody showed */
    SIM_STAT_STATES_COMPARED,   /* all jobs of a node with the model's */
    SIM_STAT_READS_STALE,       /* of any node, not older than what the client had seen */
    SIM_STAT_READS_BEHIND,      /* of a node that was: not taken */
    SIM_STAT_WATCHES,           /* of slow watchers that move */
    SIM_STAT_WATCHES_COMPACTED, /* they were told that the node does not remember */
    SIM_STAT_HISTORIES_JUDGED,
    SIM_STAT_HISTORIES_SEARCHED,    /* parts of them, for unknown outcomes */
    SIM_STAT_STEP_BECOME_CANDIDATE, /* steps of model/protocol.pml, in this order: conformance.h */
    SIM_STAT_STEP_UPDATE_TERM,
    SIM_STAT_STEP_GRANT_VOTE,
    SIM_STAT_STEP_BECOME_LEADER,
    SIM_STAT_STEP_STEP_DOWN,
    SIM_STAT_STEP_CLIENT_APPEND,
    SIM_STAT_STEP_APPEND_ENTRIES,
    SIM_STAT_STEP_TRUNCATE_CONFLICT,
    SIM_STAT_STEP_LEARN_COMMIT,
    SIM_STAT_STEP_ADVANCE_COMMIT,
    SIM_STAT_STEP_ENTER_JOINT,
    SIM_STAT_STEP_LEAVE_JOINT,
    SIM_STAT_STEP_SNAPSHOT,
    SIM_STAT_STEP_INSTALL_SNAPSHOT,
    SIM_STAT_STEP_PERSIST_META,
    SIM_STAT_STEP_PERSIST,
    SIM_STAT_STEP_RESTART,
    SIM_STATS
};

struct sim_result {
    bool ok;
    char failure[512];
    uint64_t events;
    uint64_t trace_hash; /* of every event and of what each node was after it */
    uint64_t stats[SIM_STATS];
};

enum sim_stat_kind {
    SIM_STAT_INTERESTING, /* worlds that no longer show it are not worth running */
    SIM_STAT_INFORMATIVE, /* as it may be */
    SIM_STAT_NEVER        /* 0 */
};

const char *sim_stat_name(enum sim_stat stat);
enum sim_stat_kind sim_stat_kind(enum sim_stat stat);
/* The title of the group that begins with @stat; NULL when none does. */
const char *sim_stat_group(enum sim_stat stat);

/* Run one seed. 0 with *ret filled (also when a check failed); -ENOMEM when the simulator itself
 * could not run. */
int sim_run(const struct sim_options *o, struct sim_result *ret) _must_check_;
