/* One replica: raft + storage + fsm + sched + peers, joined.
 *
 * What it is: the production node without a single system call. cmd/ gives it the real world
 * (src/os), sim/ a simulated one; both call the same functions. persist-before-send is visible in
 * one function, replica_handle_effects() in node/effects.c. What it is not: a server. It knows no
 * gRPC and no socket; api/ turns calls into the functions below.
 *
 * How it runs: anything may call the functions below during a loop turn; they only note what is to
 * be done. At the end of the turn the host calls replica_turn() once: it drains proposals and reads
 * into raft, executes the effects, applies what is committed, answers, schedules, and hands one
 * message per peer to the network. Callbacks given to it are only ever called from inside
 * replica_turn(), replica_close() or (where said so) never synchronously from the call itself.
 * The host must look at replica_failed() after each turn and stop the process when it is set.
 * Thread: the loop. */
#pragma once

#include "base/env.h"
#include "fsm/fsm.h"
#include "raft/raft.h"
#include "sched/zones.h"
#include "storage/wal.h"

struct replica;

struct replica_options {
    uint64_t id;
    uint8_t cluster_id[16];
    struct raft_options raft;
    struct wal_options wal;              /* identity is filled in by the replica */
    const struct raft_config *bootstrap; /* first configuration, used on an empty directory only */
    size_t pending_proposals_max;        /* 256: the channel */
    size_t pending_reads_max;            /* 65,536 */
    uint64_t commit_timeout_ns;          /* 5 s */
    uint64_t peer_liveness_ns;           /* 3 s */
    uint64_t worker_heartbeat_ns;        /* 5 s, told to workers */
    uint64_t worker_lease_ns;            /* 15 s */
    size_t watch_events_max;             /* event ring, 65,536 */
    struct fsm_options fsm;
    const char *version;
    const char *client_address; /* of this node, told to the others */
    const char *peer_address;   /* of this node: where the others reach it */
    /* Where to look for members that are not where the state says (from the configuration file). */
    const struct raft_config *hints; /* may be NULL; borrowed for the call of replica_open */
    /* An empty directory without @bootstrap: the node takes this cluster id (of the cluster it was
     * told to join) and waits to be added. */
    bool join;
    uint64_t snapshot_interval_ns; /* 30 s: at most so often, */
    uint64_t snapshot_entries;     /* 1,000: after at least so many entries, */
    uint64_t log_bytes_max;        /* 256 MiB: or when the log on disk is larger */
    uint64_t log_bytes_kept;       /* 64 MiB behind a snapshot, for slow followers */
    size_t snapshot_chunk_bytes;   /* 256 KiB: of a state in transit; 1..SNAPSHOT_CHUNK_BYTES */
    uint64_t disk_reserve_bytes;   /* 256 MiB: with less free, writes of clients are refused (W5) */
    uint64_t scrub_interval_ns;    /* 24 h: a whole round of verifying (W14); 0 = off */
    uint64_t drain_timeout_ns;     /* 30 s: of a drain that names none */
    /* Told of each step of raft, before its effects are executed; for the simulator's checkers.
     * NULL (the default): nobody looks. */
    void (*on_step)(void *ctx, const struct raft *raft, const struct raft_event *ev,
                    const struct raft_effects *eff);
    void *on_step_ctx;
};

void replica_options_default(struct replica_options *o, uint64_t id, uint64_t seed);

/* Recover from @env->disk and @kv (both borrowed for life; blocking, before the loop runs) or
 * bootstrap an empty directory. 0; ERR_CORRUPT, ERR_FOREIGN, ERR_VERSION, ERR_CONFIG with a reason:
 * refuse to start; -errno; -ENOMEM. */
int replica_open(const struct replica_options *o, const struct env *env, struct kv *kv,
                 struct replica **ret, struct errtext *reterr) _must_check_;
/* Answers everything pending (REPLICA_STOPPING), frees. No disk job may be in flight: see
 * replica_idle(). Does not flush the kv store. */
struct replica *replica_free(struct replica *r);
DEFINE_CLEANUP(struct replica *, replica_free);
/* True when no disk job is in flight. */
bool replica_idle(const struct replica *r);

/* ---- driving it ------------------------------------------------------------------------------ */

void replica_turn(struct replica *r);
/* True when something was noted since the last turn; the host may skip the turn otherwise. */
bool replica_wants_turn(const struct replica *r);
/* When replica_turn() must run at the latest although nothing happens. */
struct mono replica_deadline(const struct replica *r);
/* 0, or the negative error that ended this replica (with its reason). */
int replica_failed(const struct replica *r, struct errtext *reterr);

/* The host was told that the wall clock was set. Not needed, only quicker: it is read again every
 * second anyway. */
void replica_on_clock_changed(struct replica *r);

/* From the network. @payload borrowed for the call; malformed bytes are counted and dropped. */
void replica_on_peer_message(struct replica *r, uint64_t from, struct slice payload);
void replica_on_peer_link(struct replica *r, uint64_t node_id, bool up);
/* Bulk messages for the node are taken again after send_bulk had refused one. */
void replica_on_peer_bulk_ready(struct replica *r, uint64_t node_id);

/* ---- writes ---------------------------------------------------------------------------------- */

enum replica_status {
    REPLICA_OK,
    REPLICA_FULL,      /* the channel is full: nothing was submitted; RESOURCE_EXHAUSTED */
    REPLICA_NO_LEADER, /* deadline passed before any leader took it: nothing was submitted */
    REPLICA_UNKNOWN,   /* deadline passed after a leader took it: the outcome is unknown */
    REPLICA_STOPPING,  /* the node is stopping; outcome unknown if a leader had taken it */
    REPLICA_REFUSED,   /* read only: the answer could not be had (no such worker, peer gone ...) */
    REPLICA_NO_SPACE,  /* the disk is nearly full: nothing was submitted; RESOURCE_EXHAUSTED */
};

struct replica_proposed {
    enum replica_status status;
    uint64_t index;                  /* REPLICA_OK: of its log entry, which is applied here */
    const struct fsm_output *output; /* REPLICA_OK: borrowed for the callback */
};

typedef void (*replica_propose_fn)(void *arg, const struct replica_proposed *res);

enum replica_propose_flags {
    /* The command may be applied again at any later time without harm, whatever others did in
     * between (idempotency keys on all items, a fencing token, a version, a cancel): it is proposed
     * again when a leader is lost. What sets a thing to a value is none: a second "pause" undoes a
     * "resume" that came between. */
    REPLICA_RETRY_SAFE = 1 << 0,
    /* From the node itself (assignments, reports, leases): bounded by its caller, goes before the
     * clients' channel and does not count in it. */
    REPLICA_INTERNAL = 1 << 1,
    /* What a leader decided from what it knows (assignments, lost workers, ticks): worth nothing
     * under another. It is appended by this node in this term, in the order of the calls, or
     * answered with REPLICA_NO_LEADER, without a deadline. Only with REPLICA_INTERNAL and
     * MONO_NEVER, while this node leads. */
    REPLICA_OWN_TERM = 1 << 2,
};

/* Propose an encoded LogCommand (fsm/command.h command_encode), on any node. Consumes the reference
 * of
 * @command, whose last bytes get stamped: it must not be shared. @deadline: answer by then at the
 * latest; the commit timeout applies as well.
 * 0: @done will be called once, later. REPLICA_FULL, REPLICA_NO_SPACE (positive): nothing queued,
 * @done never called. -ENOMEM. */
int replica_propose(struct replica *r, struct bytes *command, unsigned flags, struct mono deadline,
                    replica_propose_fn done, void *arg) _must_check_;

/* ---- reads ----------------------------------------------------------------------------------- */

typedef void (*replica_read_fn)(void *arg, enum replica_status status, uint64_t index);

/* Linearizable read barrier (ReadIndex), on any node: when @done says REPLICA_OK, the state reached
 * by replica_fsm() inside that callback contains every write acknowledged before this call.
 * REPLICA_NO_LEADER at the deadline. Returns 0; REPLICA_FULL; -ENOMEM. */
int replica_read(struct replica *r, struct mono deadline, replica_read_fn done,
                 void *arg) _must_check_;

/* The local state. Reading functions only; without a barrier it is as stale as this node is. */
struct fsm *replica_fsm(struct replica *r);
uint64_t replica_applied(const struct replica *r);
uint64_t replica_leader(const struct replica *r); /* node id; 0 unknown */
/* Client address of a node as last heard; NULL when unknown. Borrowed until the next turn. */
const char *replica_client_address(const struct replica *r, uint64_t node_id);
struct mono replica_now(const struct replica *r);
/* The time zones as this node reads them; zones_find() and timetable_new() take them. What they
 * lend is valid until the next turn. */
struct zones *replica_zones(struct replica *r);
const struct raft *replica_raft(const struct replica *r);

/* Hand leadership to @to (0 = the most caught-up voter). Does nothing on a node that does not lead;
 * raft gives up by itself after an election timeout. Look at raft_role() for the outcome. */
void replica_transfer_leadership(struct replica *r, uint64_t to);

/* ---- identity and membership (membership.c) ------------------------------------------------- */

struct replica_hello { /* what a node says when it connects */
    uint64_t node_id;
    uint8_t disk[16]; /* all zero: it has none yet */
    const char *peer_address;
    const char *client_address;
};
/* For the network below: may this node's messages come in? 0; ERR_FOREIGN with the reason in words
 * (with the command that puts it right): refuse, and *ret_final tells whether the refusal is for
 * good (removed from the cluster; the id belongs to another disk). */
int replica_check_hello(struct replica *r, const struct replica_hello *h, bool *ret_final,
                        struct errtext *reterr);
/* A peer refused this node for good: it stops (replica_failed says ERR_FOREIGN and the reason). */
void replica_on_refused(struct replica *r, uint64_t by, const char *reason);
/* Of a drain that names none. */
int64_t replica_drain_timeout_ms(const struct replica *r);
/* 16 bytes, borrowed. */
const uint8_t *replica_cluster_id(const struct replica *r);
/* This node's own data directory. 16 bytes, borrowed. */
const uint8_t *replica_disk(const struct replica *r);

enum replica_change_kind {
    REPLICA_CHANGE_ADD,
    REPLICA_CHANGE_REMOVE,
    REPLICA_CHANGE_PROMOTE,
    REPLICA_CHANGE_DEMOTE,
    REPLICA_CHANGE_REPLACE
};
struct replica_change {
    enum replica_change_kind kind;
    uint64_t id;     /* the member; REPLACE: the old one */
    uint64_t new_id; /* REPLACE */
    const char *peer_address;
    const char *client_address;
    const uint8_t *disk; /* 16 bytes or NULL */
    bool stay_learner;
};
/* @code: canonical gRPC code, 0 = done; @message says what is wrong. Borrowed for the call. */
typedef void (*replica_change_fn)(void *arg, uint32_t code, const char *message, uint64_t index,
                                  bool changed);
/* Ask the leader, on any node, to change the membership. 0: @done will be called once. -ENOMEM. */
int replica_change_membership(struct replica *r, const struct replica_change *c,
                              struct mono deadline, replica_change_fn done, void *arg) _must_check_;
/* Ask the leader, on any node, to hand over; @done once another (or the asked one) leads. */
int replica_request_transfer(struct replica *r, uint64_t to, struct mono deadline,
                             replica_change_fn done, void *arg) _must_check_;

/* ---- views of the whole state (snapshots.c) ------------------------------------------------- */

struct replica_view; /* the state as it was when the view was opened */

/* 0; -EBUSY (too many views open); -ENOMEM; kv errors. Costs a write-back, not a copy. */
int replica_view_open(struct replica *r, struct replica_view **ret) _must_check_;
/* Read the next blocks (storage/snapshot_format.h; the header first) on the bulk thread, about
 * @bytes of them. @done on the loop: @rc 0 with @blocks (borrowed for the call), @last with the end
 * of the stream; or a negative error. One call at a time. */
typedef void (*replica_view_fn)(void *arg, int rc, struct slice blocks, bool last);
void replica_view_next(struct replica_view *v, size_t bytes, replica_view_fn done, void *arg);
uint64_t replica_view_index(const struct replica_view *v);
/* Also while a read is under way: @done is not called any more. NULL allowed; returns NULL. */
struct replica_view *replica_view_close(struct replica_view *v);

/* Make the state durable and release what the log no longer needs, now (tests, stopping). */
void replica_snapshot_now(struct replica *r);

/* For an orderly stop, when replica_idle(): the state store is flushed and the log sealed, so that
 * the next start replays nothing and knows that nothing is missing. Blocks. 0 or what failed (the
 * log still has everything). */
int replica_settle(struct replica *r, struct errtext *reterr) _must_check_;

/* ---- the event stream (WatchJobs) ------------------------------------------------------------ */

struct replica_event {
    uint64_t index;
    int64_t at_ms;
    struct fsm_event event; /* worker_id points into this struct's own text */
    char worker_id[65];
};

/* Events are kept in a ring. A reader holds a cursor: the index up to which it has seen all.
 * Lends a run of events of whole indices after @after_index, borrowed until the next turn: at most
 * @max of them, but always at least one whole index.
 * 0 with *ret_count and *ret_index (new cursor: everything up to it has been seen, filtered or
 * not); 1: compacted, *ret_index = the oldest cursor that still works. */
int replica_events_read(const struct replica *r, uint64_t after_index,
                        const struct replica_event **ret_events, size_t max, size_t *ret_count,
                        uint64_t *ret_index) _must_check_;
uint64_t replica_events_oldest(const struct replica *r);

struct replica_listener {
    void (*on_events)(void *arg); /* at the end of a turn in which events were added */
    void *arg;
    struct replica_listener *prev, *next; /* private */
};
void replica_listen(struct replica *r, struct replica_listener *l); /* caller keeps the struct */
void replica_unlisten(struct replica *r, struct replica_listener *l);

/* ---- operators ------------------------------------------------------------------------------- */

/* An encoded chronos.v1.GetClusterStatusResponse: the leader's view from any node, or this node's
 * own when @local_only or no leader answers by the deadline. @status is borrowed for the call. */
typedef void (*replica_bytes_fn)(void *arg, enum replica_status status, struct slice bytes);
int replica_cluster_status(struct replica *r, bool local_only, struct mono deadline,
                           replica_bytes_fn done, void *arg) _must_check_;
/* An encoded chronos.v1.ListLogEntriesResponse of this node's log; read on the disk thread. */
int replica_log_entries(struct replica *r, uint64_t first, size_t limit, replica_bytes_fn done,
                        void *arg) _must_check_;

/* ---- output of attempts (GetJobLogs) --------------------------------------------------------- */

struct replica_logs; /* one open log stream */

struct replica_logs_chunk {
    uint64_t offset;
    struct slice data; /* borrowed for the callback */
    bool end;          /* the last call; the stream is gone after it */
    const char *error; /* with end: NULL, or why the worker's copy cannot be had (use the tail) */
};
typedef void (*replica_logs_fn)(void *arg, const struct replica_logs_chunk *chunk);

/* Fetch an attempt's output from the worker that has it, wherever its stream ends.
 * @done is called for each chunk, finally with end. 0, REPLICA_FULL, -ENOMEM. */
int replica_logs_open(struct replica *r, const char *worker_id, uint64_t job_seq, uint32_t attempt,
                      uint64_t fencing_token, uint64_t offset, bool follow, replica_logs_fn done,
                      void *arg, struct replica_logs **ret) _must_check_;
/* No further callback. */
void replica_logs_close(struct replica_logs *l);
