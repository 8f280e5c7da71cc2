/* The node's outward surface: the gRPC services of proto/chronos/v1 over one replica, with
 * grpc.health.v1 and server reflection.
 *
 * What it is: calls in, replica functions, answers out; validation, limits and the canonical error
 * codes. Any node answers any call (the replica forwards writes and serves linearizable reads).
 * What it is not: transport (os/rpc_server.h) or policy about jobs (fsm/, sched/).
 * Whoever calls api_new also drives the replica: a call only notes work there, which is done when
 * the host runs replica_turn() at the end of the loop turn.
 * Thread: the loop's. */
#pragma once

#include "base/err.h"
#include "base/log.h"
#include "node/replica.h"

#include <uv.h>

struct api;

struct api_options {
    struct replica *replica;       /* borrowed; must outlive the api's last call (see api_free) */
    const char *address;           /* host:port to listen at; port 0 takes a free one */
    const struct logger *log;      /* borrowed; may be NULL */
    uint64_t node_id;              /* of this node */
    uint64_t commit_timeout_ms;    /* the replica's; named in the error texts. Default 5,000 */
    uint32_t retry_after_ms;       /* hint beside RESOURCE_EXHAUSTED. Default 50 */
    size_t request_bytes_max;      /* Default 4 MiB */
    size_t stream_queue_bytes_max; /* unsent bytes of one stream before it waits. Default 1 MiB */
    size_t jobs_per_call_max;      /* SubmitJobs; at most and default FSM_ITEMS_MAX */
    size_t watches_max;            /* WatchJobs streams of this node. Default 1,000 */
    size_t logs_max;               /* GetJobLogs streams of this node. Default 1,000 */
    size_t lists_max;              /* ListJobs calls being scanned at once. Default 256 */
    size_t backups_max;            /* CreateBackup streams of this node. Default 2 */
    size_t sessions_max;           /* worker streams of this node. Default 10,000 */
    uint64_t sign_of_life_ms;      /* an idle watch sends its index this often. Default 5,000 */
};

/* All defaults; the caller then sets replica, address, log and node_id. */
void api_options_default(struct api_options *o);

/* Listen and serve. @o is copied, @o->address for the call only.
 * 0; -ENOMEM; a negative error with its reason when the address cannot be had (do not start). */
int api_new(uv_loop_t *loop, const struct api_options *o, struct api **ret,
            struct errtext *reterr) _must_check_;

/* The port in use. */
int api_port(const struct api *a);

/* Take no more calls: writes and streams end with UNAVAILABLE at once (leader-address in the
 * metadata), health turns NOT_SERVING, unary calls that wait may finish within @grace_ms. Then
 * @on_stopped, once, on the loop. Must be called once before api_free. */
void api_stop(struct api *a, uint64_t grace_ms, void (*on_stopped)(void *arg), void *arg);

/* After on_stopped and after replica_free (which answers what is still pending, with the clients
 * already gone). NULL allowed; returns NULL. */
struct api *api_free(struct api *a);
DEFINE_CLEANUP(struct api *, api_free);
