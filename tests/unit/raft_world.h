/* A world for tests of raft/: nodes with a disk that loses what was not confirmed, a network that
 * is an array of messages, one virtual clock, and checkers that look at every effect.
 *
 * What it is: the smallest caller that honours the contract of raft.h, and the invariants R1-R10,
 * R12-R16, R19 and R20 as assertions over the whole history. What it is not: the simulator of sim/,
 * which runs the real node code.
 * A broken invariant prints w->what and aborts through cmocka's fail(). */
#pragma once

#include "base/rand.h"
#include "raft/raft.h"

#include <stdio.h>

#define WORLD_NODES_MAX 8
#define WORLD_TERMS_MAX 65536
#define WORLD_INDEX_MAX 65536

/* A whole snapshot on its way from a leader, or staged. */
struct world_transfer {
    uint64_t leader;
    uint64_t to;
    uint64_t term;
    uint64_t session;
    uint64_t index;
    uint64_t index_term;
    struct raft_config config;
    uint64_t config_index;
};

struct world_batch {
    uint64_t seq;
    struct world_transfer install; /* index 0 = none */
    bool hard_state_changed;
    struct raft_hard_state hard_state;
    uint64_t truncate_from;
    struct raft_entry *entries; /* owned, with references */
    size_t count;
};

struct world_message {
    struct raft_message m; /* m.entries owned, with references */
    bool held;
};

struct world_read {
    uint64_t context;
    uint64_t floor; /* newest index known committed when the read began */
};

struct world_node {
    uint64_t id;
    struct raft *raft; /* NULL while down */
    uint64_t lives;
    /* durable plane */
    struct raft_hard_state hard_state;
    uint64_t base_index; /* the last entry that is gone */
    uint64_t base_term;
    struct raft_config config; /* in force at base_index; count 0 = none */
    uint64_t config_index;
    struct raft_entry *log; /* entry i at [i - base_index - 1] */
    size_t log_count;
    size_t log_cap;
    uint64_t store_applied; /* what a restart will find applied */
    /* volatile plane */
    struct world_batch *batches;
    size_t batches_count;
    size_t batches_cap;
    struct world_message *waiting; /* after_seq not durable yet */
    size_t waiting_count;
    size_t waiting_cap;
    struct raft_load loads[64];
    size_t loads_count;
    struct raft_snapshot_wanted wanted[64];
    size_t wanted_count;
    const struct world_transfer *staged; /* during its RAFT_EV_INSTALL */
    struct world_read reads[256];
    size_t reads_count;
    uint64_t applied;
    uint64_t commit_seen;
    uint64_t durable_seq;
    /* history */
    uint64_t term_seen;
    uint64_t reads_ok;
    uint64_t reads_failed;
    uint64_t match_seen[WORLD_NODES_MAX + 1];    /* by peer, in the term match_term */
    uint64_t match_session[WORLD_NODES_MAX + 1]; /* and in this session */
    uint64_t match_term;
    uint64_t forgotten[WORLD_NODES_MAX + 1]; /* by peer: the session in which it lost its tail */
};

struct world {
    const char *what; /* printed when a check fails */
    struct rng rng;
    struct mono now;
    struct raft_options options;                  /* for nodes started from now on */
    struct world_node nodes[WORLD_NODES_MAX + 1]; /* by id; [0] unused */
    size_t count;
    bool cut[WORLD_NODES_MAX + 1][WORLD_NODES_MAX + 1]; /* from, to */
    struct world_message *net;
    size_t net_count;
    size_t net_cap;
    struct world_transfer transfers[64];
    size_t transfers_count;
    bool hold_snapshots; /* world_stabilize() leaves them alone */
    uint64_t context_last;
    /* history */
    uint64_t *leader_of;                      /* by term */
    uint64_t (*vote_of)[WORLD_NODES_MAX + 1]; /* by term and node */
    struct raft_entry *committed;             /* ghost log; entry i at [i - 1] */
    size_t committed_count;
    size_t elections;
    size_t truncations;
    size_t loads_served;
    size_t snapshots_wanted;
    size_t snapshots_installed;
    size_t configs_committed;
    enum raft_propose_result proposed; /* by the last proposal */
    FILE *trace;                       /* NULL = silent */
    uint64_t trace_contexts[64];
    size_t trace_contexts_count;
};

void world_init(struct world *w, uint64_t seed);
void world_done(struct world *w);
/* Voters 1..n start with the same configuration. */
void world_start(struct world *w, size_t n);
void world_start_config(struct world *w, size_t n, const struct raft_config *c);

/* One event through raft_step(), its effects executed and checked. */
void world_step(struct world *w, uint64_t id, const struct raft_event *ev);
void world_timeout(struct world *w, uint64_t id);
void world_campaign(struct world *w, uint64_t id);
/* Confirm the oldest @k batches of a node (SIZE_MAX: all) in one report. */
void world_persist(struct world *w, uint64_t id, size_t k);
void world_serve_load(struct world *w, uint64_t id, bool ok);
/* Move message @i of the network to its receiver (dropped when that is down or cut off). */
void world_deliver(struct world *w, size_t i);
void world_drop(struct world *w, size_t i);
void world_dup(struct world *w, size_t i);
void world_inject(struct world *w, const struct raft_message *m);
/* A node with an empty disk and no configuration; its id is the next one. */
void world_add_node(struct world *w);
/* The disk of @id loses the entries up to @index, which are applied. */
void world_compact(struct world *w, uint64_t id, uint64_t index);
/* The oldest snapshot wanted of leader @id becomes a transfer, or fails. */
void world_serve_snapshot(struct world *w, uint64_t id, bool ok);
/* Transfer @i is complete at its receiver; it fails when that is down. */
void world_install(struct world *w, size_t i);
void world_snapshot_failed(struct world *w, uint64_t leader, uint64_t peer);
enum raft_propose_result world_propose_config(struct world *w, uint64_t id,
                                              const struct raft_config *c);
enum raft_propose_result world_propose(struct world *w, uint64_t id, const char *text);
uint64_t world_read(struct world *w, uint64_t id);
void world_transfer(struct world *w, uint64_t id, uint64_t to);
/* @written batches reach the disk without being reported; the rest is lost. */
void world_crash(struct world *w, uint64_t id, size_t written);
/* All that node @id had is gone; it starts as an empty one without a configuration. */
void world_erase(struct world *w, uint64_t id);
/* What the disk of a node that is down holds above entry @last is gone, acknowledged or not: its
 * last batch was damaged and looks like a torn write. Its state, which lags, comes before that. */
void world_forget(struct world *w, uint64_t id, uint64_t last);
void world_restart(struct world *w, uint64_t id, uint64_t memory_from, uint64_t applied);
/* Persist, load and deliver until nothing moves. */
void world_stabilize(struct world *w);
uint64_t world_leader(const struct world *w); /* with the highest term; 0 = none */
/* Replace a node's disk before its start: entries of these terms. */
void world_set_log(struct world *w, uint64_t id, const uint64_t *terms, size_t count);
