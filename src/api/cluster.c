/* ClusterService: status and log entries, encoded by the node layer, carried as they are.
 * Thread: the loop's. */
#include "api/api_impl.h"

#include "chronos/v1/cluster_service.pb-c.h"

#define LOG_ENTRIES_DEFAULT 50
#define LOG_ENTRIES_MAX 1000

static void on_bytes(void *arg, enum replica_status status, struct slice bytes) {
    struct api_op *op = arg;
    struct api *a = op->api;
    struct mono started = op->started, deadline = op->deadline;
    struct rpc_call *call = api_op_end(op);

    if (!call)
        return;
    if (status != REPLICA_OK)
        api_fail_status(a, call, STATUS_READ, status, started, deadline);
    else
        api_reply(call, bytes_copy(bytes.data, bytes.len));
}

void cluster_on_status(void *ctx, struct rpc_call *call, struct slice request) {
    struct api *a = ctx;
    Chronos__V1__GetClusterStatusRequest *req;
    struct api_op *op;
    int r;

    req = (Chronos__V1__GetClusterStatusRequest *) api_decode(
        a, call, &chronos__v1__get_cluster_status_request__descriptor, request);
    if (!req)
        return;
    op = api_op_new(a, call);
    if (!op)
        return;
    r = replica_cluster_status(a->replica, req->local_only, op->deadline, on_bytes, op);
    if (r != 0)
        api_op_fail(op, STATUS_READ, r);
}

void cluster_on_log_entries(void *ctx, struct rpc_call *call, struct slice request) {
    struct api *a = ctx;
    Chronos__V1__ListLogEntriesRequest *req;
    struct api_op *op;
    size_t limit;
    int r;

    req = (Chronos__V1__ListLogEntriesRequest *) api_decode(
        a, call, &chronos__v1__list_log_entries_request__descriptor, request);
    if (!req)
        return;
    if (req->limit > LOG_ENTRIES_MAX) {
        api_fail(call, RPC_INVALID_ARGUMENT, "limit: must be at most %d", LOG_ENTRIES_MAX);
        return;
    }
    limit = req->limit == 0 ? LOG_ENTRIES_DEFAULT : req->limit;
    op = api_op_new(a, call);
    if (!op)
        return;
    r = replica_log_entries(a->replica, req->first_index, limit, on_bytes, op);
    if (r != 0)
        api_op_fail(op, STATUS_READ, r);
}
