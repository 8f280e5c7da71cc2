/* The state of one Raft node, shared by the files of this folder only.
 *
 * What it is: struct raft and the functions that its handlers call on each other.
 * What it is not: part of the contract; callers see raft.h alone.
 * Invariants: invariants.c. Errors: a handler that cannot go on calls raft_fail(); the first error
 * of a step is what raft_step() returns, and the raft may then only be freed.
 * Thread: one. */
#pragma once

#include "base/rand.h"
#include "raft/raft.h"
#include "raft/raft_log.h"

/* Reads that wait for their round, of this node and (on a leader) of its followers. */
#define RAFT_READS_MAX 4096
/* Bounds of options: what a window may cost in memory. */
#define RAFT_INFLIGHT_MESSAGES_LIMIT 4096
/* A term beyond this cannot be honest: at one election a nanosecond it takes a century. */
#define RAFT_TERM_MAX (UINT64_MAX / 4)
/* Marks a message that must wait for the newest persist batch, until its number is known. */
#define RAFT_AFTER_NEWEST UINT64_MAX
/* RAFT_MSG_VOTE_REQ context: started by TIMEOUT_NOW. */
#define RAFT_CONTEXT_TRANSFER 1
/* Rounds whose beginning a leader remembers; an answer to an older one gives no lease. */
#define RAFT_ROUNDS_MAX 64

enum raft_ballot { RAFT_BALLOT_NONE, RAFT_BALLOT_GRANTED, RAFT_BALLOT_REJECTED };

/* One configuration and the index of its entry. */
struct raft_config_at {
    uint64_t index;
    struct raft_config config;
};

/* A batch that the caller was told to persist and has not reported durable yet. */
struct raft_batch {
    uint64_t seq;
    uint64_t last;      /* log last index when it is durable; lowered by later truncations */
    uint64_t installed; /* it begins with the switch to a snapshot of this index; 0 = it does not */
    struct mono at;     /* when the caller was told */
};

struct raft_inflight {
    uint64_t last; /* index of the last entry of the message */
    size_t bytes;
};

/* What the leader knows of one member. States:
 *
 *            accepted answer
 *     PROBE ------------------> REPLICATE <-----------------------------+
 *      | ^                         |                                    |
 *      | +-------------------------+                                    |
 *      | |  reject, link broken, entries unreadable or gone             |
 *      | |                                                              |
 *      | +------------ transfer failed ----------- SNAPSHOT ------------+
 *      |                                             ^   match reaches what is not gone
 *      +---------------------------------------------+
 *        refused where all that could be sent before is gone
 *
 * PROBE: the follower's log is not known; one message at a time. REPLICATE: it is known to match up
 * to @match, and @next runs ahead optimistically inside the window. SNAPSHOT: no entries are sent;
 * entered only by a refusal, never by a guess, because a transfer is expensive: when @next is gone,
 * the oldest place that is not is probed first. */
struct raft_peer {
    uint64_t id;
    enum raft_progress_state state;
    uint64_t match;   /* known durable on the peer; never decreases in a session */
    uint64_t next;    /* next entry to send; > match */
    uint64_t session; /* new for each leadership and each (re-)join; echoed by answers */
    struct mono last_contact;
    bool contacted;
    bool probe_sent;      /* PROBE: wait for the answer */
    struct mono probe_at; /* when; a heartbeat answer later than that + interval sends again */
    bool load_pending;    /* entries below memory are being read for it */
    bool sent;            /* an APPEND_REQ went out in this step */
    bool stalled;         /* nothing moves although something is in flight: ask with an empty one */
    struct mono moved_at; /* last time match moved, or something went in flight on an idle link */
    uint64_t commit_sent; /* newest commit index told, if nothing was lost */
    uint64_t acked_round; /* newest read round confirmed */
    struct raft_inflight *inflight; /* owned ring of options.inflight_messages_max */
    size_t inflight_head;
    size_t inflight_count;
    size_t inflight_bytes;
};

/* A round of heartbeats and when its first one could have left. */
struct raft_round {
    uint64_t round; /* 0 = none */
    struct mono begun;
};

/* A read waiting for confirmation. On a leader @round is the heartbeat round that confirms it (0:
 * no entry of this term is committed yet); on a follower both numbers are unused. */
struct raft_pending_read {
    uint64_t from; /* node that asked */
    uint64_t context;
    uint64_t index;
    uint64_t round;
};

struct raft {
    struct raft_options options;
    struct rng rng;
    struct mono now;
    int failed; /* first fatal error of the step */

    /* Figure 2, persistent state: durable once hard_state_seq is. */
    uint64_t term;
    uint64_t vote;
    struct raft_log log;

    /* Volatile state. */
    enum raft_role role;
    uint64_t leader;
    uint64_t commit;
    uint64_t applied;
    uint64_t apply_index; /* newest one handed out */
    struct mono election_deadline;
    struct mono leader_contact;
    /* lease_reads: no vote before this (a message of a leader, or the start of this life, which
     * may have forgotten one, is too near). */
    struct mono no_vote_before;

    /* The last entry that is gone from the disk. */
    uint64_t compacted_index;
    uint64_t compacted_term;

    /* Configurations: [0] is the newest one that is committed (or the start), the rest are above
     * the commit index. The last one is in force (section 6: used as soon as it is in the log). */
    struct raft_config_at *configs; /* owned */
    size_t configs_count;
    size_t configs_cap;

    /* Durability. */
    uint64_t persist_seq;    /* newest emitted */
    uint64_t durable_seq;    /* newest reported */
    uint64_t hard_state_seq; /* batch that carries the current term and vote */
    uint64_t durable_index;
    struct raft_batch *batches; /* owned; [batches_head, batches_head + batches_count) */
    size_t batches_head;
    size_t batches_count;
    size_t batches_cap;

    /* Candidates: parallel to the members of the configuration in force. */
    enum raft_ballot ballots[RAFT_NODES_MAX];
    bool campaign_transfer; /* the VOTE_REQs carry context 1 */

    /* Leaders: parallel to the members of the configuration in force; peers_count 0 otherwise. */
    struct raft_peer peers[RAFT_NODES_MAX];
    size_t peers_count;
    uint64_t session_last;
    uint64_t term_first_index; /* the no-op of this leadership */
    struct mono heartbeat_deadline;
    bool heartbeat_due;
    struct mono quorum_deadline; /* CheckQuorum looks again then */
    uint64_t transfer_to;        /* 0 = none */
    bool transfer_sent;
    struct mono transfer_deadline;
    /* lease_reads: rounds up to this one give no lease; UINT64_MAX: none in this leadership. */
    uint64_t lease_floor;
    struct raft_round rounds[RAFT_ROUNDS_MAX]; /* round n at [n % RAFT_ROUNDS_MAX] */

    /* Reads: FIFO in [reads_head, reads_head + reads_count). */
    struct raft_pending_read *reads; /* owned */
    size_t reads_head;
    size_t reads_count;
    size_t reads_cap;
    uint64_t commit_wanted;     /* leader, lazy_commit: followers must be told up to here */
    uint64_t read_round;        /* leader: newest round sent */
    uint64_t read_request;      /* follower: outstanding READ_INDEX_REQ, 0 = none */
    size_t read_request_covers; /* the first so many pending reads belong to it */
    uint64_t read_request_last; /* newest id given; starts at a number new in each life */
    struct mono read_request_at;

    /* Effects of the running step. */
    struct raft_effects effects;
    bool hard_state_dirty;
    uint64_t append_first; /* 0 = nothing appended */
    uint64_t truncate_from;
    struct raft_snapshot_wanted snapshots[RAFT_NODES_MAX];
    struct raft_message *messages; /* owned */
    size_t messages_cap;
    struct raft_read *answers; /* owned */
    size_t answers_cap;
    struct raft_load loads[RAFT_NODES_MAX];
    struct raft_entry *loaded; /* owned, with references: entries of this step's loaded message */
    size_t loaded_count;
    size_t loaded_cap;
};

static inline void raft_fail(struct raft *r, int rc) {
    ASSERT(rc < 0);
    if (r->failed == 0)
        r->failed = rc;
}

/* ---- config.c ------------------------------------------------------------------------------- */

const struct raft_config *raft_config_current(const struct raft *r);
static inline bool raft_member_votes(const struct raft_member *m) {
    return (m->flags & (RAFT_MEMBER_VOTER | RAFT_MEMBER_VOTER_OLD)) != 0;
}
/* A voter of either half of the configuration in force. */
bool raft_config_is_voter(const struct raft_config *c, uint64_t id);
/* Dissertation 4.2.2: "a server that is not part of its own latest configuration should still start
 * new elections, as it might still be needed until the Cnew entry is committed": its log may be the
 * only one that has it, and then nobody else can win. */
bool raft_config_may_campaign(const struct raft *r);
/* The largest value that a quorum has reached; both majorities when joint. @values is parallel to
 * the members; learners' are ignored. UINT64_MAX for a configuration without voters. */
uint64_t raft_config_quorum_value(const struct raft_config *c, const uint64_t *values);
/* Well-formed in itself; the reason in @reterr when not. */
bool raft_config_valid(const struct raft_config *c, struct errtext *reterr);
/* Put the configuration of entry @index in force / forget those from @from on / forget the ones
 * that a newer committed one replaced. */
void raft_config_push(struct raft *r, uint64_t index, const struct raft_config *c);
void raft_config_rollback(struct raft *r, uint64_t from);
void raft_config_settle(struct raft *r);
/* After an installed snapshot: only this one, committed at @index. */
void raft_config_replace(struct raft *r, uint64_t index, const struct raft_config *c);
/* A member is a voter, a voter on the way out (perhaps to a learner), or a learner (perhaps with
 * the wish to be promoted). */
static inline bool raft_config_flags_valid(uint32_t flags) {
    switch (flags) {
    case RAFT_MEMBER_VOTER:
    case RAFT_MEMBER_VOTER_OLD:
    case RAFT_MEMBER_VOTER | RAFT_MEMBER_VOTER_OLD:
    case RAFT_MEMBER_VOTER_OLD | RAFT_MEMBER_LEARNER:
    case RAFT_MEMBER_LEARNER:
    case RAFT_MEMBER_LEARNER | RAFT_MEMBER_PROMOTE:
        return true;
    default:
        return false;
    }
}

/* ---- progress.c ----------------------------------------------------------------------------- */

void raft_progress_reset(struct raft *r, struct raft_peer *p, uint64_t id, uint64_t next);
/* Nothing that the peer has said is believed any more: a new session, match 0, probed where it was
 * known to be. When it was last heard of stays. */
void raft_progress_renew(struct raft *r, struct raft_peer *p);
/* Make peers[] parallel to the configuration in force; known members keep their progress. */
void raft_progress_rebuild(struct raft *r);
struct raft_peer *raft_progress_find(struct raft *r, uint64_t id);
void raft_progress_to_probe(struct raft_peer *p);
void raft_progress_to_replicate(struct raft *r, struct raft_peer *p);
/* All that could be sent before @next is gone: ask the caller for a snapshot. */
void raft_progress_to_snapshot(struct raft *r, struct raft_peer *p);
bool raft_progress_window_full(const struct raft *r, const struct raft_peer *p);
void raft_progress_sent(struct raft *r, struct raft_peer *p, uint64_t last, size_t bytes);
/* The peer has everything up to @match. True when that is news. */
bool raft_progress_acked(struct raft *r, struct raft_peer *p, uint64_t match);
void raft_progress_contact(struct raft *r, struct raft_peer *p);

/* ---- election.c ----------------------------------------------------------------------------- */

void raft_election_reset_timer(struct raft *r);
void raft_become_follower(struct raft *r, uint64_t term, uint64_t leader);
void raft_election_pre_campaign(struct raft *r);
void raft_election_campaign(struct raft *r, bool transfer);
/* Count one answer; moves on when a quorum granted. */
void raft_election_ballot(struct raft *r, uint64_t from, bool granted);
/* The candidate's own vote counts when its batch is durable. */
void raft_election_persisted(struct raft *r);
void raft_election_timeout(struct raft *r);
/* A leader was heard from within the minimum election timeout (or is this node). */
bool raft_election_in_lease(const struct raft *r);
/* lease_reads: somebody may be answering reads because this node will not vote yet. */
bool raft_election_vote_blocked(const struct raft *r);
/* Without any configuration: it waits to be added, or is an old voter whose disk was erased. Its
 * empty log agrees with every candidate, so it grants no vote: a lagging node that has not applied
 * whose disk an id belongs to would win with it over what is committed (W15, M34). A true member
 * got its log, and with it a configuration, before anybody made it a voter. */
bool raft_election_is_blank(const struct raft *r);
/* The candidate's log is at least as up to date as ours (5.4.1). */
bool raft_election_up_to_date(const struct raft *r, uint64_t index, uint64_t term);

/* ---- replication.c -------------------------------------------------------------------------- */

void raft_replication_append(struct raft *r, struct raft_entry e);
void raft_replication_propose(struct raft *r, const struct raft_entry *entries, size_t count);
void raft_replication_maybe_commit(struct raft *r);
void raft_replication_set_commit(struct raft *r, uint64_t commit);
void raft_replication_check_quorum(struct raft *r);
void raft_replication_timeout(struct raft *r);
void raft_replication_loaded(struct raft *r, const struct raft_event *ev);
void raft_replication_unreachable(struct raft *r, uint64_t id);
void raft_replication_reachable(struct raft *r, uint64_t id);
/* End of a leader's step: what each peer gets now. */
void raft_replication_flush(struct raft *r);
uint64_t raft_replication_uncommitted(const struct raft *r);
/* After the match of @p has grown by an answer of the peer. */
void raft_replication_advanced(struct raft *r, struct raft_peer *p);

/* ---- snapshot.c ----------------------------------------------------------------------------- */

void raft_snapshot_compacted(struct raft *r, uint64_t index, uint64_t term);
void raft_snapshot_failed(struct raft *r, uint64_t peer);
void raft_snapshot_install(struct raft *r, const struct raft_event *ev);
/* Index of the newest snapshot that is being made the state; 0 = none. */
uint64_t raft_snapshot_pending(const struct raft *r);

/* ---- disk_stall.c --------------------------------------------------------------------------- */

/* The disk has not answered for options.disk_stall_ns. */
bool raft_disk_stalled(const struct raft *r);
/* Leader: hand over or step down. */
void raft_disk_stall_timeout(struct raft *r);
/* Leader: when raft_disk_stall_timeout() has something to do. */
struct mono raft_disk_stall_deadline(const struct raft *r);

/* ---- lease.c -------------------------------------------------------------------------------- */

/* Leader: round r->read_round begins now. */
void raft_lease_round(struct raft *r);
/* Leader: only rounds begun from now on count. */
void raft_lease_void(struct raft *r);
/* Leader: a read may be answered at once, given that rounds up to @confirmed have a quorum. */
bool raft_lease_valid(const struct raft *r, uint64_t confirmed);

/* ---- read_index.c --------------------------------------------------------------------------- */

void raft_read_index_start(struct raft *r, uint64_t context);
void raft_read_index_add(struct raft *r, uint64_t from, uint64_t context);
/* Leader: answer what is confirmed, start a round when one is needed and none is under way. */
void raft_read_index_progress(struct raft *r);
/* Leader: the first entry of its term was committed. */
void raft_read_index_ready(struct raft *r);
/* Leader: a regular round of heartbeats starts; waiting reads ride on it. */
void raft_read_index_join_heartbeat(struct raft *r);
/* Follower: the leader is alive; ask again when the request seems lost. */
void raft_read_index_retry(struct raft *r);
void raft_read_index_answered(struct raft *r, bool ok, uint64_t index);
void raft_read_index_fail_all(struct raft *r);

/* ---- transfer.c ----------------------------------------------------------------------------- */

void raft_transfer_start(struct raft *r, uint64_t to);
/* The reachable voter that has most of the log; 0 = none. */
uint64_t raft_transfer_best(const struct raft *r);
void raft_transfer_progress(struct raft *r);
void raft_transfer_timeout(struct raft *r);
void raft_transfer_abort(struct raft *r);

/* ---- recv*.c -------------------------------------------------------------------------------- */

void raft_recv(struct raft *r, const struct raft_message *m);
/* APPEND_REQ and HEARTBEAT_REQ of the current term: false when the sender cannot be the leader. */
bool raft_recv_follow(struct raft *r, const struct raft_message *m);
void raft_recv_pre_vote_req(struct raft *r, const struct raft_message *m);
void raft_recv_pre_vote_resp(struct raft *r, const struct raft_message *m);
void raft_recv_vote_req(struct raft *r, const struct raft_message *m);
void raft_recv_vote_resp(struct raft *r, const struct raft_message *m);
void raft_recv_append_req(struct raft *r, const struct raft_message *m);
void raft_recv_append_resp(struct raft *r, const struct raft_message *m);
void raft_recv_snapshot_resp(struct raft *r, const struct raft_message *m);
void raft_recv_heartbeat_req(struct raft *r, const struct raft_message *m);
void raft_recv_heartbeat_resp(struct raft *r, const struct raft_message *m);
void raft_recv_timeout_now(struct raft *r, const struct raft_message *m);
void raft_recv_read_index_req(struct raft *r, const struct raft_message *m);
void raft_recv_read_index_resp(struct raft *r, const struct raft_message *m);

/* ---- effects.c ------------------------------------------------------------------------------ */

void raft_effects_begin(struct raft *r);
void raft_effects_finish(struct raft *r);
/* Queue a message from this node in its current term. after_seq is RAFT_AFTER_NEWEST when it makes
 * a promise that must be durable first; a term that is not durable yet always waits. */
void raft_effects_send(struct raft *r, struct raft_message m);
void raft_effects_read(struct raft *r, uint64_t context, bool ok, uint64_t index);
void raft_effects_load(struct raft *r, uint64_t peer, uint64_t first_index);
void raft_effects_snapshot(struct raft *r, const struct raft_peer *p);
/* The log begins anew after (index, term), the commit index: in memory now, on disk with this
 * step's batch. */
void raft_effects_install(struct raft *r, uint64_t index, uint64_t term);
/* Cut the log from @from on, here and in what is counted as durable. */
void raft_effects_truncate(struct raft *r, uint64_t from);
void raft_effects_persisted(struct raft *r, uint64_t seq);
static inline void raft_effects_hard_state(struct raft *r, uint64_t term, uint64_t vote) {
    ASSERT(term >= r->term);
    ASSERT(term > r->term || r->vote == 0 || r->vote == vote);
    r->term = term;
    r->vote = vote;
    r->hard_state_dirty = true;
}
/* Room for one more element of @size in the array *@data; false (and raft_fail) without memory. */
bool raft_effects_grow(struct raft *r, void **data, size_t *cap, size_t count, size_t size);
