/* A worker's stream as the node sees it: the node's half of chronos.v1.WorkerService.
 *
 * api/ carries the bytes; this is the protocol. A session begins with Hello, registers the worker
 * through the log, answers Welcome once that is committed and applied here, then delivers each
 * assignment as it is applied, forwards heartbeats to the leader, proposes reports and acknowledges
 * them once committed.
 * Thread: the loop. Callbacks come from replica_turn() or from worker_session_message(). */
#pragma once

#include "node/replica.h"

struct worker_session;

struct worker_session_ops {
    /* Send one encoded NodeMessage. Consumes the reference. Returns 1 when the stream's queue is
     * above its bound (then assignments wait until worker_session_writable). */
    int (*send)(void *arg, struct bytes *node_message);
    /* The session is over from the node's side: end the stream with this canonical gRPC code and
     * text (borrowed). worker_session_free must still be called. */
    void (*end)(void *arg, int grpc_code, const char *message);
};

int worker_session_new(struct replica *r, const struct worker_session_ops *ops, void *arg,
                       struct worker_session **ret) _must_check_;
/* The stream is gone. NULL allowed. */
struct worker_session *worker_session_free(struct worker_session *s);
/* One encoded WorkerMessage from the worker; malformed or out of order: ops->end is called. */
void worker_session_message(struct worker_session *s, struct slice message);
void worker_session_writable(struct worker_session *s);
