/* The replicated state machine: jobs, workers, nodes, idempotency keys, the cluster's
 * configuration.
 *
 * What it is: a deterministic function from (state, log entry) to (state, results, events), over
 * base/kv.h. Every node applies the same entries and holds the same state; the digest proves it.
 * What it is not: it has no clock (time is the command's now_ms), no randomness, no I/O of its own,
 * and it decides nothing that depends on hash order or pointers.
 *
 * Where state lives: records (JobRecord, WorkerRecord ...) in the kv store under the keys named in
 * proto/chronos/internal/v1/command.proto. In front of it stands a write-back overlay: records
 * changed since the last write-back, so that a job that lives briefly is written once. What can be
 * rebuilt from the records (ready list, per-worker lists, counters) is memory only and is rebuilt
 * by fsm_open from the non-terminal jobs and the workers. A write-back puts the overlay and the
 * applied index into the kv store as ONE batch, so a crash leaves an exact prefix of the log
 * applied and the rest is replayed, once (W13). Thread: the loop. */
#pragma once

#include "base/arena.h"
#include "base/kv.h"
#include "base/time.h"
#include "fsm/schedules.h"

#include "chronos/internal/v1/command.pb-c.h"

#define FSM_COMMAND_VERSION 1
#define FSM_FEATURE_LEVEL_MAX 1 /* newest level this program knows (SetFeatureLevel) */
#define FSM_LOCAL_KEY 'l'       /* first byte of keys that stay on this node (LocalRecord) */
#define FSM_ITEMS_MAX 1000      /* items in one command */
#define FSM_OUTPUT_TAIL_BYTES_MAX (64 * 1024)
#define FSM_IDEMPOTENCY_KEEP_MS (24LL * 3600 * 1000)
#define FSM_IDEMPOTENCY_KEY_BYTES_MAX 128
#define FSM_WORKER_ID_BYTES_MAX 64
#define FSM_WORKER_SLOTS_MAX 10000
#define FSM_WORKER_FACTS_BYTES_MAX (64 * 1024) /* version and labels of one worker, encoded */
#define FSM_WORKERS_MAX 10000 /* remembered; the longest lost one makes room for a new one */
#define FSM_SPEC_BYTES_MAX (1024 * 1024)
#define FSM_MESSAGE_BYTES_MAX 1024 /* of a report; the excess is cut off */
#define FSM_MAX_ATTEMPTS_DEFAULT 3 /* for a submit that carries 0 */
#define FSM_ADDRESS_BYTES_MAX 127  /* of a node, as text */
#define FSM_DRAIN_TIMEOUT_MS_MAX (7LL * 24 * 3600 * 1000)

/* Memory, an upper bound; a test measures it:
 *   BASE + OVERLAY(overlay_bytes_max) + JOB per job that has not ended + KEY per remembered
 *   idempotency key + WORKER per registered worker + NODE per node that ever was a member +
 *   SCHEDULE per schedule.
 * A job that has ended costs nothing. OVERLAY holds what is not yet written back; the last command
 * before a write-back (4 MiB at most) comes on top of it, with what it changed. The base is tables
 * and scratch that grow with the largest command and the largest write-back so far. */
#define FSM_MEMORY_BASE_BYTES (6UL * 1024 * 1024)
#define FSM_MEMORY_OVERLAY_BYTES(overlay_bytes_max) ((overlay_bytes_max) + (overlay_bytes_max) / 2)
#define FSM_MEMORY_JOB_BYTES 160UL
#define FSM_MEMORY_KEY_BYTES 160UL /* at the longest keys */
#define FSM_MEMORY_WORKER_BYTES 320UL
#define FSM_MEMORY_NODE_BYTES 384UL
#define FSM_MEMORY_SCHEDULE_BYTES 128UL

struct fsm;

/* ---- memory views: borrowed, valid until the next apply -------------------- */

struct fsm_worker {
    char *id;
    uint64_t incarnation;
    uint64_t node_id;
    uint32_t slots;
    uint32_t running; /* live assignments */
    bool lost;
    /* By an operator, itself or through its node: gets no new work. With both the earlier time.
     * What is running then is to be released; 0 when not draining. */
    bool draining;
    int64_t drain_until_ms;
    bool own_draining; /* the part of it that is the worker's own and stays when its node's ends */
    int64_t own_drain_until_ms;
    uint64_t registered_index;
    uint64_t hello;            /* the newest of this incarnation; 0: it does not count them */
    struct fsm_job *first_job; /* its running jobs, by sequence number; next: worker_next */
    struct fsm_job *last_job;
    struct fsm_worker *next; /* all workers, sorted by id */
};

/* What is agreed about a node: every id that ever was a member has one. */
struct fsm_node {
    uint64_t id;
    uint8_t disk[16]; /* incarnation of its data directory */
    bool bound;       /* disk is known */
    bool removed;     /* was a member once, is none now: the id is used up */
    bool draining;
    int64_t drain_until_ms;
    uint32_t feature_max;
    const char *peer_address; /* "" when unknown */
    const char *client_address;
    struct fsm_node *next; /* all, sorted by id */
};

/* A job that has not ended. Ended jobs exist only as records. */
struct fsm_job {
    uint64_t seq;
    Chronos__V1__JobState state; /* PENDING or RUNNING */
    uint32_t attempt;
    uint32_t max_attempts;
    uint64_t fencing_token;
    struct fsm_worker *worker; /* RUNNING only */
    bool cancel_requested;
    bool kill; /* with cancel_requested: at once, no grace (C16, terminate_other) */
    struct fsm_job *ready_prev, *ready_next;   /* PENDING: ready list, by sequence number */
    struct fsm_job *worker_prev, *worker_next; /* RUNNING: the worker's list */
};

/* ---- what an apply yields -------------------- */

enum fsm_code {
    FSM_OK = 0,
    FSM_EXISTING,     /* submit: the idempotency key names job_seq, same request */
    FSM_KEY_CONFLICT, /* submit: the key was used with another request */
    FSM_NOT_FOUND,    /* no such job, worker or node */
    FSM_TERMINAL,     /* cancel: the job has already ended */
    FSM_NOT_PENDING,  /* assign: no longer pending */
    FSM_WORKER_GONE,  /* assign: worker unknown, lost, of another incarnation, or full */
    FSM_STALE,        /* update: the fencing token is not the live one. Register: a newer
                         registration came first. Nothing changed */
    FSM_REFUSED,      /* a value no validated request has; nothing changed. Register: bad id, slots,
                         too many live workers. Submit: too long. Update: no outcome. SetNode,
                         Drain, SetFeatureLevel: result.reason says why */
    FSM_WORKER_DRAINING,  /* assign: the worker, or its node, is draining */
    FSM_NAME_TAKEN,       /* create schedule: there is one of this name; schedule_seq, version */
    FSM_VERSION_MISMATCH, /* update, delete schedule: version tells the present one */
    FSM_PARTIAL, /* ticks: FSM_CREATED_BYTES_MAX reached; what is left can be proposed anew */
};

/* Of schedules: FSM_EXISTING is given for the same key and request (and schedule_seq, ticks),
 * FSM_STALE for ticks of another generation or none above the watermark, FSM_REFUSED with a reason.
 */
struct fsm_result {
    enum fsm_code code;
    uint64_t job_seq;
    const char *reason; /* of a refusal by a command for operators or of schedules: static text;
                           else NULL */
    uint64_t schedule_seq;
    uint64_t version;       /* Put, Delete: the present one */
    uint64_t first_ordinal; /* RunSchedule, also FSM_EXISTING: its lines in the history ... */
    uint64_t ordinals;      /* ... one for each tick */
    bool changed;           /* PauseSchedule, SetScheduleAlarm: it was not so before */
};

/* One transition. The same order on every node. */
struct fsm_event {
    uint64_t job_seq;
    Chronos__V1__JobState from; /* UNSPECIFIED for a new job */
    Chronos__V1__JobState to;
    uint32_t attempt;
    const char *worker_id; /* "" when none; borrowed until the next apply */
    uint64_t fencing_token;
    bool cancel_requested;
    bool kill;
    Chronos__V1__FailureReason failure_reason;
    int32_t exit_code;
    int32_t term_signal;
    /* Attempts given back so far: they count for nothing, so a job could go round for ever. Whoever
     * logs events should raise a growing number. */
    uint64_t released_attempts;
};

struct fsm_output {
    Chronos__Internal__V1__LogCommand__BodyCase kind; /* which command it was */
    int64_t now_ms;                                   /* its stamp, made monotonic */
    const struct fsm_result *results;                 /* one per item, in the item order */
    size_t results_count;
    const struct fsm_event *events;
    size_t events_count;
    bool workers_changed;
    bool nodes_changed;                         /* a node record or the configuration */
    const struct fsm_schedule_event *schedules; /* one for each change, in their order */
    size_t schedules_count;
    const struct fsm_tick *ticks; /* every outcome, in the order of decision */
    size_t ticks_count;
    bool schedules_pause_changed; /* the global pause */
};

/* ---- life -------------------- */

struct fsm_options {
    size_t overlay_bytes_max;   /* fsm_wants_write_back() above it; default 8 MiB */
    size_t idempotency_max;     /* keys remembered at most (oldest go first); default 1,000,000.
                                   Part of the state: it must be the same on all nodes */
    uint32_t feature_level_max; /* default FSM_FEATURE_LEVEL_MAX; tests of an upgrade raise it */
};

/* Load from @kv (borrowed for the fsm's life). 0; ERR_CORRUPT / ERR_VERSION with a reason (refuse
 * to start); -ENOMEM; a kv error. */
int fsm_open(struct kv *kv, const struct fsm_options *o, struct fsm **ret,
             struct errtext *reterr) _must_check_;
struct fsm *fsm_free(struct fsm *f); /* the overlay is dropped: the log replays it */
DEFINE_CLEANUP(struct fsm *, fsm_free);

/* Apply entry @index (must be applied + 1). @command: the data of a COMMAND entry; empty for a
 * no-op. *ret is borrowed until the next apply.
 * 0; ERR_VERSION (a command this program does not know: stop loudly); ERR_PROTO (bytes that do not
 * decode); -ENOMEM; kv errors. After a negative result the fsm may only be freed. */
int fsm_apply(struct fsm *f, uint64_t index, uint64_t term, struct slice command,
              const struct fsm_output **ret, struct errtext *reterr) _must_check_;

/* Apply the CONFIG entry @index: keeps the encoded RaftConfig and makes a node record for every new
 * member; who is no longer a member is marked removed, for an id is used once (W15). A member's
 * peer address is taken from @config when it is new there or differs from the configuration before:
 * an address that SetNode brought is not undone by a later change of somebody else.
 * Results as fsm_apply; *ret has no results and no events. */
int fsm_apply_config(struct fsm *f, uint64_t index, uint64_t term, struct slice config,
                     const struct fsm_output **ret, struct errtext *reterr) _must_check_;

uint64_t fsm_applied_index(const struct fsm *f);
uint64_t fsm_applied_term(const struct fsm *f);
/* 128-bit digest of all records and counters at the applied index; equal on all nodes. */
void fsm_digest(const struct fsm *f, uint8_t ret[16]);
int64_t fsm_last_now_ms(const struct fsm *f);

bool fsm_wants_write_back(const struct fsm *f);
/* Overlay + applied index into the kv store as one batch (volatile until the store flushes).
 * 0; -ENOSPC, -EDQUOT: the store takes nothing while the disk is full, nothing has changed and the
 * log still has all of it: try again; other errors: the state machine is of no use any more. */
int fsm_write_back(struct fsm *f) _must_check_;
/* The applied index contained in the last write-back. */
uint64_t fsm_written_index(const struct fsm *f);

/* ---- looking in -------------------- */

const struct fsm_job *fsm_job_find(const struct fsm *f, uint64_t seq); /* NULL: ended or unknown */
const struct fsm_job *fsm_ready_first(const struct fsm *f);            /* then ->ready_next */
const struct fsm_worker *fsm_worker_first(const struct fsm *f);        /* then ->next */
const struct fsm_worker *fsm_worker_find(const struct fsm *f, const char *id);
const struct fsm_node *fsm_node_first(const struct fsm *f); /* then ->next */
const struct fsm_node *fsm_node_find(const struct fsm *f, uint64_t id);
/* The RaftConfig of the last applied CONFIG entry, encoded; empty when none was. Borrowed until the
 * next apply. */
struct slice fsm_config(const struct fsm *f, uint64_t *ret_index);
uint32_t fsm_feature_level(const struct fsm *f); /* >= 1 */
/* The snapshot this store was installed from: 0, 0 when it grew from the log alone. */
void fsm_installed(const struct fsm *f, uint64_t *ret_index, uint64_t *ret_term);
uint64_t fsm_jobs_count(const struct fsm *f, Chronos__V1__JobState state);
uint64_t fsm_next_seq(const struct fsm *f);
/* Records of jobs and idempotency keys: nearly all there are. For showing progress. */
uint64_t fsm_records_count(const struct fsm *f);

enum { FSM_READ_NOT_FOUND = 1 };
/* The record of any job, unpacked into @arena. 0, FSM_READ_NOT_FOUND, ERR_CORRUPT, -ENOMEM, kv. */
int fsm_read_job(struct fsm *f, uint64_t seq, struct arena *arena,
                 Chronos__Internal__V1__JobRecord **ret) _must_check_;
int fsm_read_worker(struct fsm *f, const char *id, struct arena *arena,
                    Chronos__Internal__V1__WorkerRecord **ret) _must_check_;
/* Visit records in the order of sequence numbers from @from_seq (inclusive), upwards or downwards,
 * until @each returns non-zero (then returned when negative, 0 when positive). The arena is cleared
 * before each record. Does a write-back first. */
int fsm_scan_jobs(struct fsm *f, uint64_t from_seq, bool ascending, struct arena *arena,
                  int (*each)(void *arg, uint64_t seq, const Chronos__Internal__V1__JobRecord *rec),
                  void *arg) _must_check_;

/* A read found that the store does not give back what was written to it (its checksums; the read
 * returned ERR_CORRUPT): the disk of this node. Stays true. The caller ends the node, whose place
 * another one takes; a record that is merely malformed is the same on all nodes, and does not count
 * (stopping for it would stop them all, one by one). */
bool fsm_store_damaged(const struct fsm *f);

/* Recount everything that is derived (lists, counters, digest) from the records and compare:
 * assertion on difference (J17). For tests and the simulator; costs a full scan. */
void fsm_check_invariants(struct fsm *f);

/* One-line summary of an encoded command for logs and ListLogEntries; never prints payloads. */
void fsm_command_describe(struct slice command, char *out, size_t out_bytes, int64_t *ret_now_ms);
