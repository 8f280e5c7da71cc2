/* What the files of api/ share. Private to api/.
 *
 * A call that waits for the replica is an api_op: it knows its rpc_call until the client is gone,
 * and lives until the replica has called back, whichever is later. Streams (watch, logs, health,
 * worker sessions) belong to their rpc_call and die in on_gone.
 * os/rpc_server delivers on_gone from the loop, never from inside reply, finish or write.
 * Thread: the loop's. */
#pragma once

#include "api/api.h"
#include "api/status.h"
#include "base/arena.h"
#include "os/rpc_server.h"

#include "chronos/v1/job_service.pb-c.h"

#define API_SCRATCH_BYTES_MAX                                                                      \
    (48UL * 1024 * 1024) /* a 4 MiB request unpacks to a few times that                            \
                          */
#define API_TICK_MS 200

struct api_scan;
struct api_watch;
struct api_logs;
struct api_backup;
struct api_health_watch;
struct api_session;
struct reflection;

struct api {
    struct api_options o; /* address is not kept */
    struct replica *replica;
    struct rpc_server *server;     /* owned */
    struct reflection *reflection; /* owned */
    struct arena scratch;          /* of the callback that is running; cleared at its start */
    struct api_op *ops_free;       /* pool */
    size_t ops_free_count;
    size_t ops_live; /* waiting for the replica */
    struct api_watch *watches;
    size_t watches_count;
    struct api_logs *logs;
    size_t logs_count;
    struct api_backup *backups;
    size_t backups_count;
    struct api_scan *scans; /* the head is next */
    size_t lists_count;     /* from arrival, waiting for the read barrier included */
    struct api_health_watch *health_watches;
    size_t health_watches_count;
    struct api_session *sessions;
    size_t sessions_count;
    struct replica_listener listener;
    uv_timer_t tick; /* runs while a stream is open: signs of life, health changes */
    uv_idle_t scan;  /* runs while there are scans */
    unsigned handles_open;
    bool stopping;
    void (*on_stopped)(void *arg);
    void *on_stopped_arg;
};

/* ---- calls that wait for the replica ------------------------------------------------------------
 */

struct api_op {
    struct api *api;
    struct rpc_call *call; /* NULL once the client is gone */
    struct mono started;
    struct mono deadline; /* a little before the client's; MONO_NEVER when none */
    uint64_t seq;         /* GetJob, CancelJob */
    void *data;           /* SubmitJobs: owned, freed with the op */
    struct api_op *next;  /* in the pool */
};

/* NULL: memory is out and the call was failed. */
struct api_op *api_op_new(struct api *a, struct rpc_call *call);
/* The replica has answered: detach and recycle. Returns the call, NULL when the client is gone. */
struct rpc_call *api_op_end(struct api_op *op);
/* The replica took nothing (@r as replica_propose and replica_read return it): end op and call. */
void api_op_fail(struct api_op *op, enum status_kind kind, int r);
/* on_gone of every method that uses ops. */
void api_op_gone(void *ctx, struct rpc_call *call);

/* ---- requests and answers -------------------------------------------------------------------- */

/* Check and unpack a request into the scratch arena (cleared first). NULL: malformed or too much,
 * and the call was failed. */
ProtobufCMessage *api_decode(struct api *a, struct rpc_call *call,
                             const ProtobufCMessageDescriptor *d, struct slice request);
/* An encoded message in a fresh buffer; NULL when memory is out. */
struct bytes *api_pack(const ProtobufCMessage *m) _must_check_;
/* Answer a unary call; takes the reference of @reply, NULL meaning that memory is out. */
void api_reply(struct rpc_call *call, struct bytes *reply);
/* Queue one stream message: 0, 1 = the queue is full, -ENOMEM. */
int api_write(struct rpc_call *call, const ProtobufCMessage *m) _must_check_;
void api_fail(struct rpc_call *call, enum rpc_code code, const char *fmt, ...) _printf_(3, 4);
void api_fail_memory(struct rpc_call *call);
/* What a read of the state returned, neither 0 nor FSM_READ_NOT_FOUND. @what: "j3". UNAVAILABLE
 * when this node's store is damaged, which stops it: the others have what was asked for. DATA_LOSS
 * when a record is not what the state machine writes: it is the same on all nodes. */
void api_fail_read(struct api *a, struct rpc_call *call, const char *what, int r);
/* A replica status other than REPLICA_OK, by the table of status.h. @op gives the times. */
void api_fail_status(struct api *a, struct rpc_call *call, enum status_kind kind,
                     enum replica_status status, struct mono started, struct mono deadline);
/* True when the node is stopping; the call was failed then. */
bool api_refuse_stopping(struct api *a, struct rpc_call *call, enum status_kind kind);
/* Parse a job id: 0, or 1 with the call failed. */
int api_job_id(struct rpc_call *call, const char *id, uint64_t *ret_seq) _must_check_;

/* Start or stop the tick as the open streams demand. */
void api_tick_update(struct api *a);

/* ---- listings under way (scan.c) --------------------------------------------------------------
 */

struct api_scan {
    /* A few milliseconds of work. It is no longer queued then, and queues itself again for more. */
    void (*slice)(struct api_scan *s);
    struct api_scan *next; /* private */
    bool queued;
};
void scan_queue(struct api *a, struct api_scan *s);
void scan_remove(struct api *a, struct api_scan *s); /* it is queued */

/* ---- the methods, one file per group --------------------------------------------------------- */

void submit_on_job(void *ctx, struct rpc_call *call, struct slice request);
void submit_on_jobs(void *ctx, struct rpc_call *call, struct slice request);
void cancel_on_call(void *ctx, struct rpc_call *call, struct slice request);
void read_on_get(void *ctx, struct rpc_call *call, struct slice request);
void list_on_call(void *ctx, struct rpc_call *call, struct slice request);
void schedule_rpc_on_create(void *ctx, struct rpc_call *call, struct slice request);
void schedule_rpc_on_update(void *ctx, struct rpc_call *call, struct slice request);
void schedule_rpc_on_delete(void *ctx, struct rpc_call *call, struct slice request);
void schedule_rpc_on_pause(void *ctx, struct rpc_call *call, struct slice request);
void schedule_rpc_on_resume(void *ctx, struct rpc_call *call, struct slice request);
void schedule_rpc_on_trigger(void *ctx, struct rpc_call *call, struct slice request);
void schedule_rpc_on_backfill(void *ctx, struct rpc_call *call, struct slice request);
void schedule_rpc_on_get(void *ctx, struct rpc_call *call, struct slice request);
void schedule_rpc_on_preview(void *ctx, struct rpc_call *call, struct slice request);
void schedule_rpc_on_ticks(void *ctx, struct rpc_call *call, struct slice request);
void schedule_rpc_on_list(void *ctx, struct rpc_call *call, struct slice request);
void explain_on_call(void *ctx, struct rpc_call *call, struct slice request);
void watch_on_call(void *ctx, struct rpc_call *call, struct slice request);
void watch_on_gone(void *ctx, struct rpc_call *call);
void watch_on_writable(void *ctx, struct rpc_call *call);
void watch_on_events(struct api *a);
void watch_tick(struct api *a, struct mono now);
void watch_stop(struct api *a);
void logs_on_call(void *ctx, struct rpc_call *call, struct slice request);
void logs_on_gone(void *ctx, struct rpc_call *call);
void logs_on_writable(void *ctx, struct rpc_call *call);
void logs_on_events(struct api *a);
void logs_stop(struct api *a);
void cluster_on_status(void *ctx, struct rpc_call *call, struct slice request);
void cluster_on_log_entries(void *ctx, struct rpc_call *call, struct slice request);
void cluster_on_add(void *ctx, struct rpc_call *call, struct slice request);
void cluster_on_remove(void *ctx, struct rpc_call *call, struct slice request);
void cluster_on_promote(void *ctx, struct rpc_call *call, struct slice request);
void cluster_on_demote(void *ctx, struct rpc_call *call, struct slice request);
void cluster_on_replace(void *ctx, struct rpc_call *call, struct slice request);
void cluster_on_transfer(void *ctx, struct rpc_call *call, struct slice request);
void cluster_on_drain(void *ctx, struct rpc_call *call, struct slice request);
void backup_on_call(void *ctx, struct rpc_call *call, struct slice request);
void backup_on_gone(void *ctx, struct rpc_call *call);
void backup_on_writable(void *ctx, struct rpc_call *call);
void backup_stop(struct api *a);
void worker_stream_on_call(void *ctx, struct rpc_call *call, struct slice request);
void worker_stream_on_message(void *ctx, struct rpc_call *call, struct slice message, bool end);
void worker_stream_on_gone(void *ctx, struct rpc_call *call);
void worker_stream_on_writable(void *ctx, struct rpc_call *call);
void worker_stream_stop(struct api *a);
void health_on_check(void *ctx, struct rpc_call *call, struct slice request);
void health_on_watch(void *ctx, struct rpc_call *call, struct slice request);
void health_on_gone(void *ctx, struct rpc_call *call);
void health_tick(struct api *a);
void health_stop(struct api *a);
void reflect_on_call(void *ctx, struct rpc_call *call, struct slice request);
void reflect_on_message(void *ctx, struct rpc_call *call, struct slice message, bool end);
void reflect_on_gone(void *ctx, struct rpc_call *call);
