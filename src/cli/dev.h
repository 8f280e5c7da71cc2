/* A whole cluster on this machine, in the foreground: for trying out, developing and tests.
 *
 * What it is: it starts one `chronos server` process a node, waits until a leader exists and every
 * node's worker has registered, and stops all of it on a signal.
 * What it is not: a supervisor. A node that dies is reported and stays dead; tests kill nodes.
 * Thread: the caller's, on a private loop. */
#pragma once

#include "base/err.h"

#define DEV_NODES_MAX 7

struct dev_options {
    const char *exe;      /* of the nodes' processes */
    size_t nodes;         /* 1 to DEV_NODES_MAX */
    const char *data_dir; /* exists; node1, node2... are made in it */
    uint16_t base_port;
    uint64_t slots;    /* of each worker; 0 = its own choice */
    const char *level; /* log level of the nodes */
    bool json;         /* one line a node, then {"ready": true} */
    uint64_t ready_ms; /* give up when not ready by then */
};

/* Runs until a signal. Returns the exit code of cli/exit_code.h; everything was printed. */
int dev_run(const struct dev_options *o) _must_check_;
