/* The embedded worker: a process of its own beside the node, started and watched by the server.
 *
 * What it is: start, restart with backoff after an unexpected end, stop. The server process itself
 * never runs a job (design.md D4).
 * A worker outlives a server that dies: it moves to another node and keeps its jobs. A server that
 * comes back finds its lock held, leaves it alone, and takes over once it is gone.
 * Thread: the loop. */
#pragma once

#include "base/log.h"

#include <uv.h>

struct supervise;

struct supervise_options {
    const char *const *argv; /* of the worker, NULL-terminated; borrowed until supervise_free */
    const char *data_dir;    /* the worker's; its lock file tells whether one runs */
    const char *pid_file;    /* written with the pid of the worker */
    const struct logger *log;
};

int supervise_new(uv_loop_t *loop, const struct supervise_options *o, struct supervise **ret)
    __attribute__((warn_unused_result));
/* SIGTERM to the worker (also one left by an earlier server); after @grace_ms SIGKILL. Then
 * @on_stopped, once. */
void supervise_stop(struct supervise *s, uint64_t grace_ms, void (*on_stopped)(void *arg),
                    void *arg);
/* While it is being stopped: SIGTERM once more, which skips what is left of the worker's drain. */
void supervise_hurry(struct supervise *s);
/* After on_stopped; its handles close with the loop's next turns. NULL allowed. */
struct supervise *supervise_free(struct supervise *s);
