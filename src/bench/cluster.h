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
    uint64_t id;
    bool joins; /* the others; it is not one of those that formed the cluster */
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
    bool lease_reads;
    uint64_t snapshot_interval_ms; /* 0 = the default */
    struct cluster_node nodes[CLUSTER_NODES];
};

/* Make a temporary directory in o->dir and start the nodes. 0 or BENCH_FAILED; call cluster_stop in
 * every case. */
int cluster_start(struct cluster *c, const struct bench_options *o, bool with_workers,
                  uint32_t slots) _must_check_;
int cluster_start_node(struct cluster *c, size_t index) _must_check_;
/* kill -9 and wait: the process is gone when this returns. Its worker lives on. */
void cluster_kill_node(struct cluster *c, size_t index);
/* The same for a caller that measures meanwhile: ask until the process is gone. */
void cluster_kill_begin(struct cluster *c, size_t index);
bool cluster_node_gone(struct cluster *c, size_t index);
/* Another node in the place of one that was killed, with nothing but an id that was not used
 * before: a directory and ports of its own. Not started yet.
 */
int cluster_replace_node(struct cluster *c, size_t index, uint64_t id) _must_check_;
/* Stop all processes (SIGTERM, then SIGKILL after 5 s) and keep what they wrote. */
void cluster_halt(struct cluster *c);
/* Start what was halted. */
int cluster_resume(struct cluster *c) _must_check_;
/* Run this program with @args (ended by NULL) and wait. BENCH_*; its output goes to a file in the
 * cluster's directory, the end of which is printed when it fails. */
int cluster_run(struct cluster *c, struct bench *b, const char *const *args, uint64_t timeout_ms,
                uint64_t *ret_ms) _must_check_;
/* The worker beside a node, from its pid file; 0 = none. */
pid_t cluster_worker_pid(const struct cluster *c, size_t index);
/* A node that ended by itself: its index, else -1. The end of its log has been printed. */
int cluster_find_dead(struct cluster *c);
/* Halt and remove the directory. */
void cluster_stop(struct cluster *c);
