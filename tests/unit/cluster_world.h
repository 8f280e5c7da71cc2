/* A cluster that changes shape: real replicas over simulated disks, a memory store, a hand-driven
 * clock, and a network that does what os/peer_net does with env_peers: a link to a node exists
 * while this node was told its right address and neither side refuses the other's hello.
 * Nothing moves but by the calls below. A slot's node has the id slot + 1. */
#pragma once

#include "held_jobs.h"
#include "node/replica.h"
#include "sim/sim_disk.h"

#define CLUSTER_MAX 10
#define CLUSTER_MESSAGES 8192

struct cluster;

struct cluster_node {
    struct cluster *cluster;
    uint64_t id;
    struct replica *replica; /* NULL: down */
    struct sim_disk *disk;
    struct kv *kv;
    struct logger log;
    struct held_jobs jobs; /* both queues */
    bool hold_disk;        /* jobs wait */
    uint64_t random;
    char address[32]; /* where it listens now */
    int64_t clock_off_ms;
    unsigned told_of; /* id of the node its configuration file names; 0 = the first one */
    /* What the replica told the network below. */
    bool peer_set[CLUSTER_MAX];
    char peer_address[CLUSTER_MAX][2][32];
    bool link[CLUSTER_MAX];  /* usable for sending */
    bool reset[CLUSTER_MAX]; /* the other side closed it */
    unsigned refusals;       /* hellos refused, by whomever */
    int failed;              /* replica_failed() of a node that ended itself; it is down */
    struct errtext failure;
};

struct cluster_message {
    uint64_t from, to;
    struct bytes *payload;
};

struct cluster {
    uint64_t now_ns;
    struct cluster_node nodes[CLUSTER_MAX];
    bool cut[CLUSTER_MAX][CLUSTER_MAX];
    struct cluster_message queue[CLUSTER_MESSAGES];
    size_t head, tail;
    struct replica_options options; /* change before the first start */
};

/* @count bootstrapped nodes, running. */
void cluster_init(struct cluster *c);
void cluster_bootstrap(struct cluster *c, unsigned count);
/* A node with an empty directory that waits to be added. @hints: slots that it is told of. */
void cluster_join(struct cluster *c, unsigned slot);
void cluster_stop(struct cluster *c, unsigned slot);    /* as after SIGTERM; directory stays */
void cluster_restart(struct cluster *c, unsigned slot); /* 0 or a failed start, see failed */
void cluster_wipe(struct cluster *c, unsigned slot);    /* stopped: its directory is empty */
void cluster_move(struct cluster *c, unsigned slot, const char *address); /* while it is down */
void cluster_close(struct cluster *c);

/* @count bootstrapped nodes of which one leads, and whose facts have gone round: disks are bound.
 */
struct cluster *cluster_new(unsigned count);
void cluster_free(struct cluster *c);

void cluster_settle(struct cluster *c);
void cluster_run(struct cluster *c, uint64_t ms);
/* Run until one node leads and is ready; its slot. */
unsigned cluster_lead(struct cluster *c);
/* Run until @until says so, at most @ms. */
bool cluster_until(struct cluster *c, bool (*until)(struct cluster *c, void *arg), void *arg,
                   uint64_t ms);
const struct raft_config *cluster_config(struct cluster *c, unsigned slot);
/* Nothing is joint, promised or uncommitted at a leader, and it has @voters and @learners. */
bool cluster_has(struct cluster *c, unsigned voters, unsigned learners);
/* Run until cluster_has(); fails the test after 30 s. */
void cluster_await(struct cluster *c, unsigned voters, unsigned learners);

struct change_answer {
    unsigned count;
    uint32_t code;
    char message[512];
    uint64_t index;
    bool changed;
};
void cluster_change_start(struct cluster *c, unsigned slot, const struct replica_change *change,
                          struct change_answer *a);
/* Ask at @slot and run until the answer is there. */
struct change_answer cluster_change(struct cluster *c, unsigned slot,
                                    const struct replica_change *change);
struct change_answer cluster_transfer(struct cluster *c, unsigned slot, uint64_t to);
/* Address of a slot, "n3:7" at first. */
const char *cluster_address(struct cluster *c, unsigned slot);

/* Submits under load: count acknowledged; each has its own key and may be tried again. */
struct cluster_load {
    struct cluster *cluster;
    unsigned sent, acked, other;
    uint64_t seqs[4096]; /* job numbers of the acknowledged ones */
};
void cluster_submit(struct cluster *c, unsigned slot, struct cluster_load *l);
