/* The cluster that is measured, as its client sees it: a node list, connections, who leads.
 * Thread: the loop's. */
#pragma once

#include "bench/bench.h"
#include "bench/cluster.h"
#include "os/rpc_client.h"

#include "chronos/v1/cluster_service.pb-c.h"

#define TARGET_ADDRESS_BYTES 128

struct target_node {
    uint64_t id;
    char address[TARGET_ADDRESS_BYTES];
    struct rpc_channel *channels[BENCH_CHANNELS_MAX]; /* owned */
};

struct target {
    struct bench *b;
    struct cluster *cluster; /* NULL: not ours */
    struct rpc_client *rpc;  /* owned */
    struct target_node nodes[BENCH_NODES_MAX];
    size_t count;
    size_t channels; /* of each node */
    size_t leader;   /* index; as of the last target_find_leader */
};

/* Connect to @cluster, or to the addresses of the options when it is NULL; then the list is
 * completed from what they answer. Waits until the cluster has a leader, all nodes are in step and,
 * when it has workers, these are there. BENCH_*; call target_close in every case. */
int target_open(struct target *t, struct bench *b, struct cluster *cluster) _must_check_;
void target_close(struct target *t);

/* One GetClusterStatus. On 0 the caller frees *ret with ..._free_unpacked(*ret, NULL); on
 * BENCH_FAILED *reterr says why (nothing is printed). BENCH_INTERRUPTED. */
int target_status(struct target *t, size_t node, uint64_t timeout_ms,
                  Chronos__V1__GetClusterStatusResponse **ret, struct errtext *reterr) _must_check_;
/* One unary call to a node, waited for. On 0 *ret is the reply, owned by the caller; on
 * BENCH_FAILED *reterr says why (nothing is printed). BENCH_INTERRUPTED. */
int target_call(struct target *t, size_t node, const char *path, struct bytes *request,
                uint64_t timeout_ms, struct bytes **ret, struct errtext *reterr) _must_check_;
/* All nodes alive and near the leader's commit index, workers there: as target_open waits. */
int target_wait_ready(struct target *t, uint64_t timeout_ms) _must_check_;
/* Ask until somebody names a leader; sets t->leader. */
int target_find_leader(struct target *t, uint64_t timeout_ms) _must_check_;

/* CPU and memory of all processes that are ours, between two calls. */
struct usage_mark {
    uint64_t at_ns;
    uint64_t servers_ns[BENCH_NODES_MAX];
    uint64_t workers_ns[BENCH_NODES_MAX];
    uint64_t client_ns;
    uint64_t machine_ns;
};
void target_usage_begin(const struct target *t, struct usage_mark *m);
void target_usage_end(const struct target *t, const struct usage_mark *m, struct bench_usage *ret);
