/* Consensus as a function: raft_step(raft, now, event) -> effects.
 *
 * What it is: the Raft algorithm (Ongaro & Ousterhout 2014; Ongaro's dissertation for PreVote 9.6,
 * CheckQuorum 6.2, ReadIndex 6.4, leadership transfer 3.10) over an in-memory tail of the log.
 * What it is not: it has no clock, random source, file, socket or thread. Time comes as @now,
 * randomness from a seed, disk and network happen in the caller, who executes the effects.
 *
 * The contract with the caller (node/replica.c), for each call of raft_step():
 *  1. PERSIST. If effects.persist_seq != 0: make the hard state durable, cut the log at
 *     truncate_from, append the entries - in that order, batches strictly in persist_seq order -
 *     and later report RAFT_EV_PERSISTED with that seq. Several batches may share one fdatasync.
 *  2. SEND. A message with after_seq != 0 may leave only once that persist_seq is durable. Messages
 *     with after_seq == 0 may leave at once (a leader replicates while its own disk works).
 *  3. APPLY. Entries up to effects.apply_index may be applied, in order, each once. It never passes
 *     what is durable here, so a state store can never be ahead of the log after a crash.
 *     Report RAFT_EV_APPLIED so that the in-memory log can be trimmed.
 *  4. ANSWER. reads[], loads[], role changes.
 * Effects and all they point to belong to the raft and are valid until the next raft_step().
 *
 * Thread: one; re-entrant through struct raft. */
#pragma once

#include "base/bytes.h"
#include "base/err.h"
#include "base/time.h"

#define RAFT_NODES_MAX 16 /* voters of both halves of a joint configuration, and learners */
#define RAFT_ADDRESS_BYTES_MAX 128

enum raft_role { RAFT_FOLLOWER, RAFT_PRE_CANDIDATE, RAFT_CANDIDATE, RAFT_LEADER };

enum raft_entry_type {
    RAFT_ENTRY_NOOP = 1,   /* first entry of a leader's term; no data */
    RAFT_ENTRY_CONFIG = 2, /* data: raft_config_encode() */
    RAFT_ENTRY_COMMAND = 3 /* data: opaque here */
};

struct raft_entry {
    uint64_t term;
    uint64_t index;
    enum raft_entry_type type;
    struct bytes *data; /* a reference held by whoever holds the entry; NULL for NOOP */
};

/* ---- configuration -------------------------------------------------------------------------- */

enum raft_member_flags {
    RAFT_MEMBER_VOTER = 1 << 0,     /* votes in the current (incoming) configuration */
    RAFT_MEMBER_VOTER_OLD = 1 << 1, /* votes in the outgoing one; set only while joint */
    /* Receives the log, never votes. With VOTER_OLD: a voter that the open change demotes. */
    RAFT_MEMBER_LEARNER = 1 << 2,
    /* Learner that the leader makes a voter once it has caught up (node/membership.c acts on it;
     * raft only carries it, so that the next leader goes on). */
    RAFT_MEMBER_PROMOTE = 1 << 3,
};

struct raft_member {
    uint64_t id; /* > 0 */
    uint32_t flags;
    char address[RAFT_ADDRESS_BYTES_MAX]; /* opaque to raft; "host:port" of the peer listener */
    uint64_t replaces; /* with PROMOTE: the member that leaves in the same change; 0 = none */
};

struct raft_config {
    struct raft_member members[RAFT_NODES_MAX]; /* sorted by id, ids unique */
    size_t count;
    bool joint; /* some member has VOTER_OLD: both majorities are needed (section 6) */
};

/* Encode as protobuf chronos.internal.v1.RaftConfig. NULL when memory is out. */
struct bytes *raft_config_encode(const struct raft_config *c) _must_check_;
/* 0, or ERR_PROTO with the reason (the entry came from a log: the node must stop), or -ENOMEM. */
int raft_config_decode(struct slice data, struct raft_config *ret,
                       struct errtext *reterr) _must_check_;
const struct raft_member *raft_config_find(const struct raft_config *c, uint64_t id);

/* ---- changing a configuration (dissertation 4, section 6) -------------------------------------
 *
 * Pure functions: 0 with the changed configuration in *ret (which may be @c itself), or ERR_CONFIG
 * with the reason in words and *ret untouched. All but raft_config_leave_joint() and
 * raft_config_set_address() refuse a joint @c: one change at a time. */

/* A new member as a learner; @promote: with RAFT_MEMBER_PROMOTE and @replaces (0 = none). */
int raft_config_add_learner(const struct raft_config *c, uint64_t id, const char *address,
                            bool promote, uint64_t replaces, struct raft_config *ret,
                            struct errtext *reterr) _must_check_;
/* A learner leaves. A voter must leave through a joint configuration. */
int raft_config_remove_learner(const struct raft_config *c, uint64_t id, struct raft_config *ret,
                               struct errtext *reterr) _must_check_;
int raft_config_set_address(const struct raft_config *c, uint64_t id, const char *address,
                            struct raft_config *ret, struct errtext *reterr) _must_check_;
/* Wish that a learner becomes a voter (@promote, in place of @replaces or 0), or take the wish
 * back. */
int raft_config_set_promote(const struct raft_config *c, uint64_t id, bool promote,
                            uint64_t replaces, struct raft_config *ret,
                            struct errtext *reterr) _must_check_;
/* Joint configuration from the present voters to exactly @voters, all of them members. Voters that
 * are not among them become learners (@keep) or leave, once the joint configuration is left.
 * ERR_CONFIG also when these are the voters already. */
int raft_config_enter_joint(const struct raft_config *c, const uint64_t *voters, size_t count,
                            bool keep, struct raft_config *ret,
                            struct errtext *reterr) _must_check_;
/* The configuration to which a joint one leads. */
int raft_config_leave_joint(const struct raft_config *c, struct raft_config *ret,
                            struct errtext *reterr) _must_check_;
/* What RAFT_EV_PROPOSE demands of a CONFIG entry: @to is well-formed and may follow @from at once.
 * Voters change only by entering a joint configuration whose outgoing half is exactly @from's
 * voters, and a joint one is followed only by itself with other addresses or by what it leads to.
 * 0; ERR_CONFIG. */
int raft_config_check_change(const struct raft_config *from, const struct raft_config *to,
                             struct errtext *reterr) _must_check_;

/* ---- messages ------------------------------------------------------------------------------- */

enum raft_message_type {
    RAFT_MSG_PRE_VOTE_REQ = 1,
    RAFT_MSG_PRE_VOTE_RESP,
    RAFT_MSG_VOTE_REQ,
    RAFT_MSG_VOTE_RESP,
    RAFT_MSG_APPEND_REQ,
    RAFT_MSG_APPEND_RESP,
    RAFT_MSG_HEARTBEAT_REQ,
    RAFT_MSG_HEARTBEAT_RESP,
    RAFT_MSG_TIMEOUT_NOW,
    RAFT_MSG_READ_INDEX_REQ,  /* follower -> leader */
    RAFT_MSG_READ_INDEX_RESP, /* leader -> follower */
    RAFT_MSG_SNAPSHOT_RESP,   /* follower -> leader: match = index of the installed snapshot */
    RAFT_MSG_TYPE_MAX
};

/* One flat struct: fields a type does not use are 0. */
struct raft_message {
    enum raft_message_type type;
    uint64_t from;
    uint64_t to;
    uint64_t term; /* never 0 */
    /* APPEND_REQ: prev entry. *VOTE_REQ: the candidate's last entry. */
    uint64_t log_index;
    uint64_t log_term;
    /* APPEND_REQ, HEARTBEAT_REQ: the leader's commit (heartbeat: min(match, commit)). */
    uint64_t commit;
    /* Responses. APPEND_RESP: reject = false: match = prev + number of entries of the request that
     * this answers, never more; reject = true: log_index echoes the refused prev and hint_index /
     * hint_term say where to go on (dissertation 5.3 conflict hints). */
    bool reject;
    uint64_t match;
    uint64_t hint_index;
    uint64_t hint_term;
    /* READ_INDEX_*: the reader's id, and in the response the index (log_index). HEARTBEAT_*: the
     * newest read round, echoed. VOTE_REQ: 1 when the election was started by TIMEOUT_NOW (it may
     * then disturb a live leader, dissertation 4.2.3). */
    uint64_t context;
    /* Per-peer session number of the leader's progress for this follower, echoed by responses:
     * an answer to an older session never moves progress (mutant M29). */
    uint64_t session;
    struct raft_entry *entries; /* APPEND_REQ; see the owner of the message for lifetime */
    size_t entries_count;
    /* Out only: the persist_seq that must be durable before this message leaves; 0 = none. */
    uint64_t after_seq;
};

/* ---- events in ------------------------------------------------------------------------------ */

enum raft_event_type {
    RAFT_EV_TIMEOUT = 1,   /* raft_deadline() has been reached (harmless earlier) */
    RAFT_EV_MESSAGE,       /* a peer's message; bytes were checked, content is not trusted */
    RAFT_EV_PERSISTED,     /* all persist batches up to seq are durable */
    RAFT_EV_APPLIED,       /* the caller has applied up to index */
    RAFT_EV_PROPOSE,       /* append entries (leader only) */
    RAFT_EV_READ,          /* start a linearizable read, see effects.reads */
    RAFT_EV_TRANSFER,      /* hand leadership to a peer */
    RAFT_EV_LOADED,        /* old entries read from disk, see effects.loads */
    RAFT_EV_CAMPAIGN,      /* start an election now, without PreVote (tests) */
    RAFT_EV_UNREACHABLE,   /* the link to a peer broke: what was in flight is lost */
    RAFT_EV_SPREAD_COMMIT, /* leader with lazy_commit: followers must learn the commit index now */
    RAFT_EV_COMPACTED,     /* entries up to index are gone from the disk: a snapshot covers them */
    RAFT_EV_SNAPSHOT_FAILED, /* leader: the transfer to a peer ended without success; probe again */
    RAFT_EV_INSTALL,  /* follower: a whole, durable snapshot is staged; see effects.install_index */
    RAFT_EV_REACHABLE /* the link to a peer is up: what it lacks may go at once */
};

struct raft_event {
    enum raft_event_type type;
    union {
        const struct raft_message *message; /* borrowed; entries' data gets referenced */
        uint64_t persisted_seq;
        uint64_t applied_index;
        struct {
            /* Types and data only; index and term are set by raft. data is referenced. */
            const struct raft_entry *entries;
            size_t count;
        } propose;
        uint64_t read_context; /* chosen by the caller, unique in this node's life, > 0 */
        uint64_t transfer_to;  /* 0 = the most caught-up voter */
        /* Node id. A peer in RAFT_SNAPSHOT keeps session and state: the transfer has a connection
         * of its own, may go on where it was, and its failure is reported separately. */
        uint64_t unreachable;
        uint64_t reachable; /* node id */
        struct {
            uint64_t peer;
            /* Term of entry (entries[0].index - 1), 0 for index 0. Not looked at when that entry is
             * the last compacted one, whose term raft knows. */
            uint64_t prev_term;
            const struct raft_entry *entries; /* referenced; count 0 = could not be read */
            size_t count;
        } loaded;
        struct {
            uint64_t index; /* <= applied; of the last entry that is gone */
            uint64_t term;  /* its term */
        } compacted;
        uint64_t snapshot_failed; /* peer */
        /* Refused: another term's leader, or not newer than the commit index; also not needed when
         * the log here has the entry (index, index_term): then all before it is as the leader has
         * it, what follows may have been acknowledged and stays, and the commit index moves there.
         */
        struct {
            uint64_t leader;  /* who sent it, */
            uint64_t term;    /* in which term, */
            uint64_t session; /* in which session of its progress (effects.snapshots) */
            uint64_t index;   /* the last entry it contains */
            uint64_t index_term;
            const struct raft_config *config; /* in force at index; borrowed */
            uint64_t config_index;
        } install;
    };
};

/* ---- effects out ---------------------------------------------------------------------------- */

struct raft_hard_state {
    uint64_t term;
    uint64_t vote; /* node id, 0 = none in this term */
};

enum raft_propose_result {
    RAFT_PROPOSE_NONE,       /* the event was no proposal */
    RAFT_PROPOSE_ACCEPTED,   /* all entries appended at propose_first_index .. */
    RAFT_PROPOSE_NOT_LEADER, /* nothing appended; leader hint in raft_leader() */
    /* Uncommitted bound reached, or a CONFIG entry while another is not committed, before this
     * leader's term has a commit (M26), or before a new voter is known to have the configuration in
     * force in its log; nothing appended; retry after commits. */
    RAFT_PROPOSE_FULL,
    RAFT_PROPOSE_TRANSFERRING, /* leadership is being handed over; nothing appended */
    /* A CONFIG entry that raft_config_check_change() refuses, or two of them; nothing appended. */
    RAFT_PROPOSE_BAD_CONFIG
};

struct raft_read {
    uint64_t context;
    bool ok;        /* false: no leader, lost leadership; start again with a new context */
    uint64_t index; /* the state applied up to here (or later) answers the read */
};

struct raft_load {
    uint64_t peer;
    uint64_t first_index;
    size_t max_bytes;
};

/* A follower needs entries that are gone: stream it a snapshot of the state at any index >= the
 * commit index of now, outside of raft, naming term and session in it. Over when the peer has left
 * RAFT_SNAPSHOT (raft_peer_status), by its RAFT_MSG_SNAPSHOT_RESP or because its log has turned out
 * to go far enough, and with RAFT_EV_SNAPSHOT_FAILED; until then no entries go to this peer,
 * heartbeats do, and now and then the question whether it has got there. Asked for once per entry
 * into RAFT_SNAPSHOT. */
struct raft_snapshot_wanted {
    uint64_t peer;
    uint64_t term;
    uint64_t session;
};

struct raft_effects {
    uint64_t persist_seq; /* 0 = nothing to persist */
    /* Not 0: this persist batch begins with making the staged snapshot the state and beginning the
     * log anew after (install_index, install_term); then hard state, truncation and entries as
     * ever. Raft has already done so in memory: the log is empty at install_index, commit is there,
     * and apply_index reaches it only when the batch is durable; the caller must not apply anything
     * between, and its state is then at install_index. RAFT_EV_INSTALL without this effect: the
     * snapshot is stale or not needed, drop it (a RAFT_MSG_SNAPSHOT_RESP may be among messages). */
    uint64_t install_index;
    uint64_t install_term;
    bool hard_state_changed;
    struct raft_hard_state hard_state; /* valid when persist_seq != 0 */
    uint64_t truncate_from;            /* first index to cut, 0 = none; always > commit */
    const struct raft_entry *append;
    size_t append_count;

    const struct raft_message *messages;
    size_t messages_count;

    uint64_t apply_index; /* min(commit, durable); entries up to here are raft_entry_at() */

    const struct raft_read *reads;
    size_t reads_count;
    const struct raft_load *loads;
    size_t loads_count;
    const struct raft_snapshot_wanted *snapshots;
    size_t snapshots_count;

    enum raft_propose_result propose_result;
    uint64_t propose_first_index;
    uint64_t propose_term;

    bool role_changed; /* role, term or known leader differ from before this step */
};

/* ---- construction --------------------------------------------------------------------------- */

struct raft_options {
    uint64_t id;
    uint64_t seed;                    /* for election timeouts */
    uint64_t election_timeout_min_ns; /* 150 ms */
    uint64_t election_timeout_max_ns; /* 300 ms; > min */
    uint64_t heartbeat_interval_ns;   /* 50 ms; < min */
    size_t append_bytes_max;          /* payload of one APPEND_REQ (one larger entry still goes) */
    size_t inflight_messages_max;     /* per peer */
    size_t inflight_bytes_max;        /* per peer */
    size_t uncommitted_entries_max;   /* proposals beyond this are FULL */
    size_t uncommitted_bytes_max;
    size_t applied_entries_kept; /* in memory for slow followers (snapshot_threshold) ... */
    size_t applied_bytes_kept;   /* ... and never more than this; others are read from the disk */
    /* A commit that nobody waits for elsewhere travels with the next append or heartbeat instead of
     * a message of its own (and its answer): see RAFT_EV_SPREAD_COMMIT. */
    bool lazy_commit;
    /* > 0: a leader whose own disk has not answered for so long hands leadership to the most
     * caught-up voter, and steps down when that has not helped after as long again (W17); a node
     * with such a disk does not campaign. 0 = never. RAFT_DISK_STALL_AUTO (the default):
     * 2 x election_timeout_max_ns. */
    uint64_t disk_stall_ns;
    /* Answer reads without a round while a quorum has answered a round begun less than
     * election_timeout_min * (1 - lease_drift) ago. Off by default (R16): it trusts that monotonic
     * clocks of two nodes differ by less than lease_drift_ppm. Void from the moment leadership is
     * being handed over. All nodes must have it on or off alike, and @now of a step with
     * RAFT_EV_READ must have been read after the read arrived. */
    bool lease_reads;
    uint32_t lease_drift_ppm; /* default 10,000 = 1%; < 1,000,000 */
};

#define RAFT_DISK_STALL_AUTO UINT64_MAX

void raft_options_default(struct raft_options *o, uint64_t id, uint64_t seed);

/* What recovery found. */
struct raft_start {
    struct raft_hard_state hard_state;
    uint64_t applied_index; /* known committed: the state store's applied index */
    /* The configuration in force at the entry before tail[0] (bootstrap: none, count 0). Later
     * CONFIG entries are read from the tail. */
    const struct raft_config *config; /* NULL: none yet (a node that waits to be added) */
    uint64_t config_index;
    uint64_t prev_index; /* index and term of the entry before tail[0]; 0, 0 at the log's start */
    uint64_t prev_term;
    /* The last entry that is gone from the disk: nothing up to it can be loaded. 0, 0 = none. */
    uint64_t compacted_index;
    uint64_t compacted_term;
    const struct raft_entry *tail; /* must reach back at least to applied_index + 1 */
    size_t tail_count;
};

struct raft;

/* A follower with everything in @start taken as durable. @now starts its election timer.
 * 0; -ENOMEM; ERR_CORRUPT with a reason when @start contradicts itself (refuse to start). */
int raft_new(const struct raft_options *o, const struct raft_start *start, struct mono now,
             struct raft **ret, struct errtext *reterr) _must_check_;
struct raft *raft_free(struct raft *r);
DEFINE_CLEANUP(struct raft *, raft_free);

/* ---- the function --------------------------------------------------------------------------- */

/* 0 with *ret_effects set. -ENOMEM or ERR_CORRUPT (a committed entry contradicts the leader's, a
 * CONFIG entry does not decode): the node must stop; the raft must only be freed then. A malformed
 * or stale message is no error: it is ignored. */
int raft_step(struct raft *r, struct mono now, const struct raft_event *ev,
              const struct raft_effects **ret_effects) _must_check_;

/* When RAFT_EV_TIMEOUT is due; may move with every step. MONO_NEVER for a lone learner and for a
 * leader without peers. */
struct mono raft_deadline(const struct raft *r);

/* ---- looking in ----------------------------------------------------------------------------- */

enum raft_role raft_role(const struct raft *r);
const char *raft_role_to_string(enum raft_role role);
const char *raft_message_type_to_string(enum raft_message_type type);
uint64_t raft_term(const struct raft *r);
uint64_t raft_vote(const struct raft *r);
uint64_t raft_leader(const struct raft *r); /* 0 = unknown */
uint64_t raft_commit(const struct raft *r);
uint64_t raft_applied(const struct raft *r);
uint64_t raft_last_index(const struct raft *r);
uint64_t raft_durable_index(const struct raft *r);
uint64_t raft_first_in_memory(const struct raft *r); /* last + 1 when the tail is empty */
const struct raft_config *raft_config_latest(const struct raft *r);
uint64_t raft_config_latest_index(const struct raft *r);
/* The newest one whose entry is known committed: a change is open while it is joint or its index is
 * not raft_config_latest_index(). */
const struct raft_config *raft_config_committed(const struct raft *r);
uint64_t raft_config_committed_index(const struct raft *r);
uint64_t raft_compacted_index(const struct raft *r); /* 0 = nothing is gone */
/* True for a leader that has committed an entry of its own term. */
bool raft_leader_ready(const struct raft *r);
/* Borrowed until the next step; NULL outside [raft_first_in_memory, raft_last_index]. */
const struct raft_entry *raft_entry_at(const struct raft *r, uint64_t index);

enum raft_progress_state { RAFT_PROBE, RAFT_REPLICATE, RAFT_SNAPSHOT };

struct raft_peer_status {
    uint64_t id;
    enum raft_progress_state state;
    uint64_t session; /* match never decreases within one */
    uint64_t match;
    uint64_t next;
    struct mono last_contact; /* last response of any kind in this term; leader only */
    bool contacted;           /* false: none yet in this term */
    size_t inflight_messages;
    size_t inflight_bytes;
};

/* Leader only: 0, or 1 when @id is no peer in the configuration or this node is not the leader. */
int raft_peer_status(const struct raft *r, uint64_t id, struct raft_peer_status *ret) _must_check_;

/* Assert every internal invariant (R6, R12, R20 ...). Called by raft_step itself in debug and
 * simulator builds; exported for the checkers. */
void raft_check_invariants(const struct raft *r);
