/* One node of `chronos dev`: its addresses, files and process. Thread: the loop's. */
#pragma once

#include "cli/dev.h"

#include <limits.h>
#include <uv.h>

#define DEV_ADDRESS_BYTES 32

struct dev_node {
    uint64_t id;
    char address[DEV_ADDRESS_BYTES];      /* gRPC */
    char peer_address[DEV_ADDRESS_BYTES]; /* Raft */
    char data_dir[PATH_MAX];
    uv_process_t process;
    bool started;   /* the handle is open */
    bool running;   /* and its process lives */
    bool term_sent; /* to an orphaned worker */
    int64_t exit_code;
    int exit_signal;
};

void dev_node_init(struct dev_node *n, size_t index, const struct dev_options *o);

/* Both ports must be free. 0, or 1 = *reterr names the port and what to do. */
int dev_node_check_ports(const struct dev_node *n, struct errtext *reterr) _must_check_;

/* Make the directory and start the server, a session of its own so that Ctrl-C reaches only us.
 * @on_exit is called on the loop. 0, or 1 = *reterr. */
int dev_node_start(struct dev_node *n, uv_loop_t *loop, const struct dev_options *o,
                   const struct dev_node *all, uv_exit_cb on_exit,
                   struct errtext *reterr) _must_check_;

/* The process id in DIR/worker.pid when it is a process of this program, else 0. */
pid_t dev_node_worker_pid(const struct dev_node *n);

/* Print the last lines of its log to standard error. */
void dev_node_print_log(const struct dev_node *n);
