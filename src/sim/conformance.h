/* Trace conformance: what a replica's raft does is a step of the model in model/protocol.pml, or
 * some of them in a row.
 *
 * What it is: a second state of each node, of its disk and of the network, kept in the terms of the
 * model. After each call of raft_step() the difference is explained as steps of the model, each of
 * which has its guard here, under the same name as there (model/steps.def; a test compares the
 * lists). What no steps explain fails the run. It reads raft's events, effects and public accessors
 * only. What it is not: what a node says and keeps is also judged by checker.c and checker_wire.c,
 * which know nothing of the model.
 *
 * Abstracted: time (timers, PreVote, stickiness, leases, CheckQuorum), progress of peers, reads,
 * learners and addresses: they change nothing here, or only when a step is taken. Thread: one. */
#pragma once

#include "base/map.h"
#include "raft/raft.h"

#include "chronos/internal/v1/raft.pb-c.h"

struct world;
struct sim_node;

/* The order is that of model/steps.def and of the counters SIM_STAT_STEP_*. */
enum conformance_step {
    STEP_BECOME_CANDIDATE,
    STEP_UPDATE_TERM,
    STEP_GRANT_VOTE,
    STEP_BECOME_LEADER,
    STEP_STEP_DOWN,
    STEP_CLIENT_APPEND,
    STEP_APPEND_ENTRIES,
    STEP_TRUNCATE_CONFLICT,
    STEP_LEARN_COMMIT,
    STEP_ADVANCE_COMMIT,
    STEP_ENTER_JOINT,
    STEP_LEAVE_JOINT,
    STEP_SNAPSHOT,
    STEP_INSTALL_SNAPSHOT,
    STEP_PERSIST_META,
    STEP_PERSIST,
    STEP_RESTART,
    CONFORMANCE_STEPS
};

/* Voters of a configuration in a log; bit of a node: 1 << id. */
struct model_config {
    uint64_t index;
    uint64_t voters, old; /* old = 0: not joint */
};

struct model_entry {
    uint64_t term; /* 0 = not known: it was never seen here, a snapshot covers it */
    uint64_t seq;  /* of the persist batch that writes it; durable from then on */
};

/* What was handed to the disk, and what may be said once it is there; in order. */
enum model_op_kind { OP_HARD, OP_TRUNCATE, OP_APPEND, OP_INSTALL, OP_ACK };

struct model_op {
    enum model_op_kind kind;
    uint64_t seq;
    uint64_t index; /* HARD: of the log's end; ACK: up to here */
    uint64_t term;
    uint64_t vote;      /* HARD */
    uint64_t last_term; /* HARD: of the log's end */
};

struct model_node {
    bool started;
    bool wiped; /* its disk was erased, which no disk of the model is: it began anew */
    /* in memory; roles are RAFT_FOLLOWER, RAFT_CANDIDATE, RAFT_LEADER */
    uint64_t term, vote, last, commit, compacted, checked;
    enum raft_role role;
    struct model_entry *log; /* by index */
    size_t log_cap;
    struct model_config *configs; /* oldest first; the first one is committed */
    size_t configs_count, configs_cap;
    uint64_t hard_seq, newest_seq, durable_seq;
    uint64_t owed_term, owed; /* what it acknowledged in that term */
    /* on disk */
    uint64_t d_term, d_vote, d_last;
    uint64_t *d_log; /* terms by index; same capacity as log */
    struct model_op *ops;
    size_t ops_head, ops_count, ops_cap;
};

struct conformance {
    struct model_node nodes[17]; /* by id */
    /* the network: what was said, for ever */
    struct u64map ballots;     /* term and candidate -> bits of the nodes that voted for it */
    struct u64map asked;       /* term and candidate -> its last entry */
    struct u64map acked;       /* term and node -> highest index acknowledged */
    struct u64map leads;       /* term -> id */
    struct u64map told_commit; /* term -> commit index of its leader */
    uint64_t spoken;           /* highest term of a vote request that may leave */
    uint64_t *done;            /* terms of committed entries, by index */
    size_t done_cap;
    uint64_t done_last;
};

/* NULL: memory. */
struct conformance *conformance_new(void);
struct conformance *conformance_free(struct conformance *c);
/* As replica_options.on_step. @ctx: the struct sim_node. */
void conformance_stepped(void *ctx, const struct raft *r, const struct raft_event *ev,
                         const struct raft_effects *eff);
/* The node's raft is new; what is on its disk may not be less than it was. @damaged: but for the
 * log's end, which damage may look like a torn write (atlas.h): the model's disks do not decay. */
void conformance_restarted(struct world *w, struct sim_node *n, bool damaged);
/* A change of its term and one of its log are on their way to the disk. */
bool conformance_writes_both(const struct sim_node *n);
/* A message leaves the node: what it promises is durable. */
void conformance_sent(struct world *w, struct sim_node *n,
                      const Chronos__Internal__V1__RaftMessage *m);

/* ---- between conformance*.c ------------------------------------------------------------------ */

/* One node at one step. Each take_*() checks its guard and makes the step in the model; false when
 * the model forbids it (the run has failed then, or memory is out). */
struct taking {
    struct world *w;
    struct conformance *c;
    struct model_node *m;
    uint64_t id;
    const struct raft_event *ev;
};

/* Fails the run with the reason. Returns false. */
bool refuse(struct taking *t, enum conformance_step step, const char *fmt, ...) _printf_(3, 4);
bool take_become_candidate(struct taking *t);
bool take_update_term(struct taking *t, uint64_t term);
bool take_grant_vote(struct taking *t, uint64_t candidate);
bool take_become_leader(struct taking *t, const struct raft_entry *noop, uint64_t seq);
bool take_step_down(struct taking *t);
bool take_client_append(struct taking *t, const struct raft_entry *e, uint64_t seq);
bool take_enter_joint(struct taking *t, const struct raft_entry *e, const struct model_config *to,
                      uint64_t seq);
bool take_leave_joint(struct taking *t, const struct raft_entry *e, const struct model_config *to,
                      uint64_t seq);
bool take_append_entries(struct taking *t, const struct raft_message *m, uint64_t seq);
bool take_truncate_conflict(struct taking *t, uint64_t from, uint64_t seq);
bool take_learn_commit(struct taking *t, uint64_t to);
bool take_advance_commit(struct taking *t, uint64_t to);
bool take_snapshot(struct taking *t, uint64_t index);
bool take_install_snapshot(struct taking *t, bool reset, uint64_t seq);
bool take_persist(struct taking *t, uint64_t seq);
bool take_restart(struct taking *t, const struct raft *r, bool damaged);

/* ---- conformance_model.c ---------------------------------------------------------------------
 *
 * Those that return bool: false when memory is out or a bound of the model is exceeded, which
 * w->no_memory says, or when the run has failed. */

/* Room in the node's log, and in what is on its disk, for the entries up to @last. */
bool model_reserve(struct taking *t, uint64_t last);
/* Room for the committed ones up to @last. */
bool model_reserve_done(struct taking *t, uint64_t last);
/* Entry @e goes to the end of its log and, in batch @seq, to its disk. Borrowed for the call. */
bool model_append(struct taking *t, const struct raft_entry *e, uint64_t seq);
/* Of the entry at @index; 0 when it has none, or it is not known. */
uint64_t model_term_at(const struct model_node *m, uint64_t index);
/* Behind all that is on its way to the disk. */
bool model_op_push(struct taking *t, struct model_op op);
struct model_config model_config_of(const struct raft_config *c, uint64_t index);
/* @c becomes the newest one, which is in force whether committed or not (section 6). */
bool model_push_config(struct taking *t, struct model_config c);
/* Borrowed until the next one is pushed; there is always one of a node that was started. */
const struct model_config *model_in_force(const struct model_node *m);
/* Of the committed configurations only the newest one is kept. */
void model_settle_configs(struct model_node *m);
/* What @m has for @key, see struct conformance; 0 when nothing was said. */
uint64_t model_said(const struct u64map *m, uint64_t key);
/* In place of what was said before. */
bool model_say(struct taking *t, struct u64map *m, uint64_t key, uint64_t value);
/* @id < 32. */
static inline uint64_t model_key(uint64_t term, uint64_t id) {
    return term << 5 | id;
}
