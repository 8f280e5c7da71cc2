/* The api's life, its method table, and what its files share.
 * Thread: the loop's. */
#include "api/api.h"

#include "api/api_impl.h"
#include "api/listing.h"
#include "api/message_check.h"
#include "api/reflection.h"
#include "fsm/job_id.h"

#include "proto_descriptors.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OPS_POOL_MAX 1024
#define FAIL_TEXT_BYTES 600

#define UNARY(service, method, call)                                                               \
    { .path = "/" service "/" method, .kind = RPC_UNARY, .on_call = (call), .on_gone = api_op_gone }
#define STREAM(service, method, name)                                                              \
    {                                                                                              \
        .path = "/" service "/" method, .kind = RPC_SERVER_STREAM, .on_call = name##_on_call,      \
        .on_gone = name##_on_gone, .on_writable = name##_on_writable                               \
    }
#define REFLECTION(version)                                                                        \
    {                                                                                              \
        .path = "/grpc.reflection." version ".ServerReflection/ServerReflectionInfo",              \
        .kind = RPC_BIDI_STREAM, .on_call = reflect_on_call, .on_message = reflect_on_message,     \
        .on_gone = reflect_on_gone                                                                 \
    }

static const struct rpc_method api_methods[] = {
    UNARY("chronos.v1.JobService", "SubmitJob", submit_on_job),
    UNARY("chronos.v1.JobService", "SubmitJobs", submit_on_jobs),
    UNARY("chronos.v1.JobService", "GetJob", read_on_get),
    {.path = "/chronos.v1.JobService/ListJobs",
     .kind = RPC_UNARY,
     .on_call = list_on_call,
     .on_gone = listing_on_gone},
    UNARY("chronos.v1.JobService", "CancelJob", cancel_on_call),
    STREAM("chronos.v1.JobService", "WatchJobs", watch),
    STREAM("chronos.v1.JobService", "GetJobLogs", logs),
    UNARY("chronos.v1.ScheduleService", "CreateSchedule", schedule_rpc_on_create),
    UNARY("chronos.v1.ScheduleService", "UpdateSchedule", schedule_rpc_on_update),
    UNARY("chronos.v1.ScheduleService", "GetSchedule", schedule_rpc_on_get),
    {.path = "/chronos.v1.ScheduleService/ListSchedules",
     .kind = RPC_UNARY,
     .on_call = schedule_rpc_on_list,
     .on_gone = listing_on_gone},
    UNARY("chronos.v1.ScheduleService", "DeleteSchedule", schedule_rpc_on_delete),
    UNARY("chronos.v1.ScheduleService", "PauseSchedule", schedule_rpc_on_pause),
    UNARY("chronos.v1.ScheduleService", "ResumeSchedule", schedule_rpc_on_resume),
    UNARY("chronos.v1.ScheduleService", "TriggerSchedule", schedule_rpc_on_trigger),
    UNARY("chronos.v1.ScheduleService", "BackfillSchedule", schedule_rpc_on_backfill),
    UNARY("chronos.v1.ScheduleService", "PreviewSchedule", schedule_rpc_on_preview),
    UNARY("chronos.v1.ScheduleService", "ListTicks", schedule_rpc_on_ticks),
    UNARY("chronos.v1.ScheduleService", "Explain", explain_on_call),
    UNARY("chronos.v1.ClusterService", "GetClusterStatus", cluster_on_status),
    UNARY("chronos.v1.ClusterService", "ListLogEntries", cluster_on_log_entries),
    UNARY("chronos.v1.ClusterService", "AddNode", cluster_on_add),
    UNARY("chronos.v1.ClusterService", "RemoveNode", cluster_on_remove),
    UNARY("chronos.v1.ClusterService", "PromoteNode", cluster_on_promote),
    UNARY("chronos.v1.ClusterService", "DemoteNode", cluster_on_demote),
    UNARY("chronos.v1.ClusterService", "ReplaceNode", cluster_on_replace),
    UNARY("chronos.v1.ClusterService", "TransferLeader", cluster_on_transfer),
    UNARY("chronos.v1.ClusterService", "SetDrain", cluster_on_drain),
    STREAM("chronos.v1.ClusterService", "CreateBackup", backup),
    {.path = "/chronos.v1.WorkerService/Session",
     .kind = RPC_BIDI_STREAM,
     .on_call = worker_stream_on_call,
     .on_message = worker_stream_on_message,
     .on_gone = worker_stream_on_gone,
     .on_writable = worker_stream_on_writable},
    UNARY("grpc.health.v1.Health", "Check", health_on_check),
    {.path = "/grpc.health.v1.Health/Watch",
     .kind = RPC_SERVER_STREAM,
     .on_call = health_on_watch,
     .on_gone = health_on_gone},
    REFLECTION("v1"),
    REFLECTION("v1alpha"),
};

/* ---- ops ------------------------------------------------------------------------------------- */

struct api_op *api_op_new(struct api *a, struct rpc_call *call) {
    struct api_op *op = a->ops_free;

    if (op) {
        a->ops_free = op->next;
        a->ops_free_count--;
    } else {
        op = malloc(sizeof(*op));
        if (!op) {
            api_fail_memory(call);
            return NULL;
        }
    }
    *op = (struct api_op){
        .api = a,
        .call = call,
        .started = {uv_hrtime()},
    };
    op->deadline = status_answer_by(rpc_call_deadline(call), op->started);
    a->ops_live++;
    rpc_call_set_user(call, op);
    return op;
}

struct rpc_call *api_op_end(struct api_op *op) {
    struct api *a = op->api;
    struct rpc_call *call = op->call;

    ASSERT(a->ops_live > 0);
    a->ops_live--;
    if (call)
        rpc_call_set_user(call, NULL);
    free(op->data);
    if (a->ops_free_count >= OPS_POOL_MAX) {
        free(op);
        return call;
    }
    op->data = NULL;
    op->next = a->ops_free;
    a->ops_free = op;
    a->ops_free_count++;
    return call;
}

void api_op_fail(struct api_op *op, enum status_kind kind, int r) {
    struct api *a = op->api;
    struct mono started = op->started, deadline = op->deadline;
    struct rpc_call *call = api_op_end(op);

    ASSERT(r != 0);
    ASSERT(call);
    if (r > 0)
        api_fail_status(a, call, kind, (enum replica_status) r, started, deadline);
    else if (r == ERR_LIMIT)
        api_fail(call, RPC_INVALID_ARGUMENT, "the request is too large for one log entry");
    else if (r == -ENOMEM)
        api_fail_memory(call);
    else if (r == ERR_VERSION)
        api_fail(call, RPC_FAILED_PRECONDITION,
                 "not all members of the cluster know this yet: upgrade them first (feature_level "
                 "in the cluster's status)");
    else
        api_fail(call, RPC_UNAVAILABLE, "this node has failed: %s", err_name(r));
}

void api_op_gone(void *ctx, struct rpc_call *call) {
    struct api_op *op = rpc_call_user(call);

    (void) ctx;
    if (op)
        op->call = NULL; /* the proposal goes on; its answer is dropped */
}

/* ---- requests and answers -------------------------------------------------------------------- */

ProtobufCMessage *api_decode(struct api *a, struct rpc_call *call,
                             const ProtobufCMessageDescriptor *d, struct slice request) {
    ProtobufCMessage *m;
    struct errtext e;

    arena_clear(&a->scratch);
    if (message_check(d, request, &e) != 0) {
        api_fail(call, RPC_INVALID_ARGUMENT, "%s", e.s);
        return NULL;
    }
    m = protobuf_c_message_unpack(d, arena_pb(&a->scratch), request.len, request.data);
    if (!m)
        api_fail(call, RPC_INVALID_ARGUMENT, "the request is not a valid %s", d->name);
    return m;
}

struct bytes *api_pack(const ProtobufCMessage *m) {
    size_t len = protobuf_c_message_get_packed_size(m);
    struct bytes *b = bytes_new(len);

    if (b)
        (void) protobuf_c_message_pack(m, b->data);
    return b;
}

void api_reply(struct rpc_call *call, struct bytes *reply) {
    _cleanup_(bytes_unrefp) struct bytes *b = reply;

    if (b)
        rpc_call_reply(call, b);
    else
        api_fail_memory(call);
}

int api_write(struct rpc_call *call, const ProtobufCMessage *m) {
    _cleanup_(bytes_unrefp) struct bytes *b = api_pack(m);

    return b ? rpc_call_write(call, b) : -ENOMEM;
}

void api_fail(struct rpc_call *call, enum rpc_code code, const char *fmt, ...) {
    char text[FAIL_TEXT_BYTES];
    va_list ap;

    ASSERT(code != RPC_OK);
    va_start(ap, fmt);
    (void) vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    rpc_call_finish(call, code, text, NULL, 0);
}

void api_fail_memory(struct rpc_call *call) {
    rpc_call_finish(call, RPC_RESOURCE_EXHAUSTED, "this node is out of memory", NULL, 0);
}

void api_fail_read(struct api *a, struct rpc_call *call, const char *what, int r) {
    ASSERT(r < 0);
    if (r == -ENOMEM)
        api_fail_memory(call);
    else if (r == ERR_CORRUPT && fsm_store_damaged(replica_fsm(a->replica)))
        api_fail(call, RPC_UNAVAILABLE,
                 "the record of %s is damaged on this node's disk, and the node stops; ask another "
                 "node",
                 what);
    else
        api_fail(call, r == ERR_CORRUPT ? RPC_DATA_LOSS : RPC_INTERNAL,
                 "the record of %s cannot be read: %s", what, err_name(r));
}

void api_fail_status(struct api *a, struct rpc_call *call, enum status_kind kind,
                     enum replica_status status, struct mono started, struct mono deadline) {
    struct errtext text;
    struct status_answer answer =
        status_of(kind, status, status_wait_ms(started, deadline, a->o.commit_timeout_ms), &text);
    struct rpc_metadata md = {0};
    uint64_t leader = replica_leader(a->replica);
    char number[24];

    switch (answer.metadata) {
    case STATUS_RETRY_AFTER:
        (void) snprintf(number, sizeof(number), "%" PRIu32, a->o.retry_after_ms);
        md = (struct rpc_metadata){.key = "retry-after-ms", .value = number};
        break;
    case STATUS_LEADER_ADDRESS:
        if (leader != 0 && leader != a->o.node_id)
            md.value = replica_client_address(a->replica, leader);
        md.key = "leader-address";
        break;
    case STATUS_NONE:
        break;
    }
    rpc_call_finish(call, answer.code, text.s, md.value ? &md : NULL, md.value ? 1 : 0);
}

bool api_refuse_stopping(struct api *a, struct rpc_call *call, enum status_kind kind) {
    (void) kind;
    if (!a->stopping)
        return false;
    /* Nothing was handed on, so the text of a read is right for a write as well. */
    api_fail_status(a, call, STATUS_READ, REPLICA_STOPPING, (struct mono){0}, MONO_NEVER);
    return true;
}

int api_job_id(struct rpc_call *call, const char *id, uint64_t *ret_seq) {
    if (id[0] == '\0') {
        api_fail(call, RPC_INVALID_ARGUMENT, "job_id: is missing");
        return 1;
    }
    if (strlen(id) >= JOB_ID_BYTES_MAX || job_id_parse(id, ret_seq) != 0) {
        api_fail(call, RPC_INVALID_ARGUMENT, "job_id: is not a job id such as j11");
        return 1;
    }
    return 0;
}

/* ---- events and time ------------------------------------------------------------------------- */

static void on_events(void *arg) {
    struct api *a = arg;

    watch_on_events(a);
    logs_on_events(a);
}

static void on_tick(uv_timer_t *t) {
    struct api *a = t->data;

    watch_tick(a, replica_now(a->replica));
    health_tick(a);
}

void api_tick_update(struct api *a) {
    bool wanted = a->watches_count + a->health_watches_count > 0;
    bool active = uv_is_active((uv_handle_t *) &a->tick) != 0;

    if (uv_is_closing((uv_handle_t *) &a->tick))
        return;
    if (wanted && !active)
        (void) uv_timer_start(&a->tick, on_tick, API_TICK_MS, API_TICK_MS);
    else if (!wanted && active)
        (void) uv_timer_stop(&a->tick);
}

/* ---- life ------------------------------------------------------------------------------------ */

void api_options_default(struct api_options *o) {
    *o = (struct api_options){
        .commit_timeout_ms = 5000,
        .retry_after_ms = 50,
        .request_bytes_max = 4UL * 1024 * 1024,
        .stream_queue_bytes_max = 1024UL * 1024,
        .jobs_per_call_max = FSM_ITEMS_MAX,
        .watches_max = 1000,
        .logs_max = 1000,
        .lists_max = 256,
        .backups_max = 2,
        .sessions_max = 10000,
        .sign_of_life_ms = 5000,
    };
}

static int serve(struct api *a, uv_loop_t *loop, const char *address, struct errtext *reterr) {
    struct rpc_server_options so = {
        .address = address,
        .methods = api_methods,
        .methods_count = ARRAY_LEN(api_methods),
        .message_bytes_max = a->o.request_bytes_max,
        .write_queue_bytes_max = a->o.stream_queue_bytes_max,
        .ctx = a,
    };

    return rpc_server_new(loop, &so, &a->server, reterr);
}

int api_new(uv_loop_t *loop, const struct api_options *o, struct api **ret,
            struct errtext *reterr) {
    struct api *a;
    int r;

    ASSERT(o->replica);
    ASSERT(o->address);
    ASSERT(o->jobs_per_call_max > 0);
    ASSERT(o->jobs_per_call_max <= FSM_ITEMS_MAX);
    a = calloc(1, sizeof(*a));
    if (!a)
        return -ENOMEM;
    a->o = *o;
    a->o.address = NULL; /* borrowed for this call only */
    a->replica = o->replica;
    arena_init(&a->scratch, API_SCRATCH_BYTES_MAX);
    r = reflection_new(slice_of(proto_descriptors, proto_descriptors_len), &a->reflection, reterr);
    if (r == 0)
        r = serve(a, loop, o->address, reterr);
    if (r < 0) {
        (void) reflection_free(a->reflection);
        free(a);
        return r;
    }
    (void) uv_timer_init(loop, &a->tick);
    (void) uv_idle_init(loop, &a->scan);
    a->tick.data = a->scan.data = a;
    a->handles_open = 2;
    a->listener = (struct replica_listener){.on_events = on_events, .arg = a};
    replica_listen(a->replica, &a->listener);
    *ret = a;
    return 0;
}

int api_port(const struct api *a) {
    return rpc_server_port(a->server);
}

static void on_handle_closed(uv_handle_t *h) {
    struct api *a = h->data;

    ASSERT(a->handles_open > 0);
    if (--a->handles_open == 0 && a->on_stopped)
        a->on_stopped(a->on_stopped_arg);
}

static void on_server_stopped(void *arg) {
    struct api *a = arg;

    replica_unlisten(a->replica, &a->listener);
    uv_close((uv_handle_t *) &a->tick, on_handle_closed);
    uv_close((uv_handle_t *) &a->scan, on_handle_closed);
}

void api_stop(struct api *a, uint64_t grace_ms, void (*on_stopped)(void *arg), void *arg) {
    ASSERT(!a->stopping);
    a->stopping = true;
    a->on_stopped = on_stopped;
    a->on_stopped_arg = arg;
    watch_stop(a);
    logs_stop(a);
    backup_stop(a);
    health_stop(a);
    worker_stream_stop(a);
    log_info(a->o.log, "api stopping", "pending=%zu", a->ops_live);
    rpc_server_stop(a->server, grace_ms, on_server_stopped, a);
}

struct api *api_free(struct api *a) {
    if (!a)
        return NULL;
    ASSERT(a->handles_open == 0);
    ASSERT(a->ops_live == 0);
    ASSERT(a->lists_count == 0);
    ASSERT(!a->watches && !a->logs && !a->backups && !a->sessions && !a->health_watches);
    (void) rpc_server_free(a->server);
    (void) reflection_free(a->reflection);
    while (a->ops_free) {
        struct api_op *op = a->ops_free;

        a->ops_free = op->next;
        free(op);
    }
    arena_done(&a->scratch);
    free(a);
    return NULL;
}
