/* The benchmark's own cluster: three server processes of this program on loopback, their data in
 * one directory, ports that were free a moment ago.
 *
 * What it is: start, kill one, start it again, stop all. The servers die with the benchmark
 * (SIGTERM when it is killed), so that none is left behind.
 * What it is not: it does not ask whether the cluster is ready; target.h does. */
#pragma once

#include "bench/bench.h"

#include <limits.h>
#include <sys/types.h>

#define CLUSTER_NODES 3
#define CLUSTER_ADDRESS_BYTES 32

struct cluster_node {
    char address[CLUSTER_ADDRESS_BYTES];      /* gRPC */
    char peer_address[CLUSTER_ADDRESS_BYTES]; /* Raft */
    char data_dir[PATH_MAX];
    pid_t pid;    /* 0 = not running */
    pid_t orphan; /* a worker whose server was killed; 0 = none. It lives on and is stopped last */
};

struct cluster {
    char exe[PATH_MAX];
    char dir[PATH_MAX]; /* "" = none made */
    bool with_workers;
    uint32_t slots; /* of each worker */
    struct cluster_node nodes[CLUSTER_NODES];
};

/* Make a temporary directory in @dir and start the nodes. 0 or BENCH_FAILED; call cluster_stop in
 * every case. */
int cluster_start(struct cluster *c, const char *dir, bool with_workers,
                  uint32_t slots) _must_check_;
int cluster_start_node(struct cluster *c, size_t index) _must_check_;
/* kill -9 and wait: the process is gone when this returns. Its worker lives on. */
void cluster_kill_node(struct cluster *c, size_t index);
/* The worker beside a node, from its pid file; 0 = none. */
pid_t cluster_worker_pid(const struct cluster *c, size_t index);
/* A node that ended by itself: its index, else -1. The end of its log has been printed. */
int cluster_find_dead(struct cluster *c);
/* Stop everything (SIGTERM, then SIGKILL after 5 s) and remove the directory. */
void cluster_stop(struct cluster *c);
