/* ClusterService: what changes the cluster: members, the leader, drains.
 *
 * Checked here is what needs no state (ids, lengths); what the leader alone can judge comes back
 * from it with its code and words. Thread: the loop's. */
#include "api/api_impl.h"

#include "fsm/command.h"

#include "chronos/v1/cluster_service.pb-c.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define NODE_ID_MAX 65535
#define DISK_BYTES 16
#define DRAIN_MS_MAX (7LL * 24 * 3600 * 1000)

static bool id_ok(struct rpc_call *call, const char *field, uint64_t id) {
    if (id > 0 && id <= NODE_ID_MAX)
        return true;
    api_fail(call, RPC_INVALID_ARGUMENT, "%s: %" PRIu64 " is no node id; 1 to 65535 expected",
             field, id);
    return false;
}

static bool disk_ok(struct rpc_call *call, const ProtobufCBinaryData *disk) {
    static const uint8_t none[DISK_BYTES];

    if (disk->len == 0 || (disk->len == DISK_BYTES && memcmp(disk->data, none, sizeof(none)) != 0))
        return true;
    api_fail(call, RPC_INVALID_ARGUMENT, "disk: 16 bytes that are not all zero expected, or none");
    return false;
}

/* ---- membership --------------------------------------------------------------------------------
 */

static void reply_change(struct api *a, struct rpc_call *call, uint64_t index, bool changed) {
    Chronos__V1__ChangeMembershipResponse resp = CHRONOS__V1__CHANGE_MEMBERSHIP_RESPONSE__INIT;
    char hex[2 * 16 + 1];
    const uint8_t *id = replica_cluster_id(a->replica);

    for (size_t i = 0; i < 16; i++)
        (void) snprintf(hex + 2 * i, 3, "%02x", id[i]);
    resp.index = index;
    resp.cluster_id = hex;
    resp.changed = changed;
    api_reply(call, api_pack(&resp.base));
}

static void on_changed(void *arg, uint32_t code, const char *message, uint64_t index,
                       bool changed) {
    struct api_op *op = arg;
    struct api *a = op->api;
    struct rpc_call *call = api_op_end(op);

    if (!call)
        return;
    if (code != 0)
        api_fail(call, (enum rpc_code) code, "%s", message);
    else
        reply_change(a, call, index, changed);
}

static void change(struct api *a, struct rpc_call *call, const struct replica_change *c) {
    struct api_op *op = api_op_new(a, call);
    int r;

    if (!op)
        return;
    r = replica_change_membership(a->replica, c, op->deadline, on_changed, op);
    if (r != 0)
        api_op_fail(op, STATUS_WRITE, r);
}

static const uint8_t *disk_of(const ProtobufCBinaryData *disk) {
    return disk->len == DISK_BYTES ? disk->data : NULL;
}

void cluster_on_add(void *ctx, struct rpc_call *call, struct slice request) {
    struct api *a = ctx;
    Chronos__V1__AddNodeRequest *req;

    if (api_refuse_stopping(a, call, STATUS_WRITE))
        return;
    req = (Chronos__V1__AddNodeRequest *) api_decode(
        a, call, &chronos__v1__add_node_request__descriptor, request);
    if (!req || !id_ok(call, "id", req->id) || !disk_ok(call, &req->disk))
        return;
    change(a, call,
           &(struct replica_change){.kind = REPLICA_CHANGE_ADD,
                                    .id = req->id,
                                    .peer_address = req->peer_address,
                                    .client_address = req->client_address,
                                    .disk = disk_of(&req->disk),
                                    .stay_learner = req->stay_learner});
}

void cluster_on_remove(void *ctx, struct rpc_call *call, struct slice request) {
    struct api *a = ctx;
    Chronos__V1__RemoveNodeRequest *req;

    if (api_refuse_stopping(a, call, STATUS_WRITE))
        return;
    req = (Chronos__V1__RemoveNodeRequest *) api_decode(
        a, call, &chronos__v1__remove_node_request__descriptor, request);
    if (req && id_ok(call, "id", req->id))
        change(a, call, &(struct replica_change){.kind = REPLICA_CHANGE_REMOVE, .id = req->id});
}

void cluster_on_promote(void *ctx, struct rpc_call *call, struct slice request) {
    struct api *a = ctx;
    Chronos__V1__PromoteNodeRequest *req;

    if (api_refuse_stopping(a, call, STATUS_WRITE))
        return;
    req = (Chronos__V1__PromoteNodeRequest *) api_decode(
        a, call, &chronos__v1__promote_node_request__descriptor, request);
    if (req && id_ok(call, "id", req->id))
        change(a, call, &(struct replica_change){.kind = REPLICA_CHANGE_PROMOTE, .id = req->id});
}

void cluster_on_demote(void *ctx, struct rpc_call *call, struct slice request) {
    struct api *a = ctx;
    Chronos__V1__DemoteNodeRequest *req;

    if (api_refuse_stopping(a, call, STATUS_WRITE))
        return;
    req = (Chronos__V1__DemoteNodeRequest *) api_decode(
        a, call, &chronos__v1__demote_node_request__descriptor, request);
    if (req && id_ok(call, "id", req->id))
        change(a, call, &(struct replica_change){.kind = REPLICA_CHANGE_DEMOTE, .id = req->id});
}

void cluster_on_replace(void *ctx, struct rpc_call *call, struct slice request) {
    struct api *a = ctx;
    Chronos__V1__ReplaceNodeRequest *req;

    if (api_refuse_stopping(a, call, STATUS_WRITE))
        return;
    req = (Chronos__V1__ReplaceNodeRequest *) api_decode(
        a, call, &chronos__v1__replace_node_request__descriptor, request);
    if (!req || !id_ok(call, "old_id", req->old_id) || !id_ok(call, "new_id", req->new_id) ||
        !disk_ok(call, &req->disk))
        return;
    change(a, call,
           &(struct replica_change){.kind = REPLICA_CHANGE_REPLACE,
                                    .id = req->old_id,
                                    .new_id = req->new_id,
                                    .peer_address = req->peer_address,
                                    .client_address = req->client_address,
                                    .disk = disk_of(&req->disk)});
}

/* ---- leadership --------------------------------------------------------------------------------
 */

static void on_transferred(void *arg, uint32_t code, const char *message, uint64_t index,
                           bool changed) {
    struct api_op *op = arg;
    struct api *a = op->api;
    struct rpc_call *call = api_op_end(op);
    Chronos__V1__TransferLeaderResponse resp = CHRONOS__V1__TRANSFER_LEADER_RESPONSE__INIT;

    (void) index;
    (void) changed;
    if (!call)
        return;
    if (code != 0) {
        api_fail(call, (enum rpc_code) code, "%s", message);
        return;
    }
    resp.leader_id = replica_leader(a->replica);
    resp.term = raft_term(replica_raft(a->replica));
    api_reply(call, api_pack(&resp.base));
}

void cluster_on_transfer(void *ctx, struct rpc_call *call, struct slice request) {
    struct api *a = ctx;
    Chronos__V1__TransferLeaderRequest *req;
    struct api_op *op;
    int r;

    if (api_refuse_stopping(a, call, STATUS_WRITE))
        return;
    req = (Chronos__V1__TransferLeaderRequest *) api_decode(
        a, call, &chronos__v1__transfer_leader_request__descriptor, request);
    if (!req || (req->to != 0 && !id_ok(call, "to", req->to)))
        return;
    op = api_op_new(a, call);
    if (!op)
        return;
    r = replica_request_transfer(a->replica, req->to, op->deadline, on_transferred, op);
    if (r != 0)
        api_op_fail(op, STATUS_WRITE, r);
}

/* ---- draining ----------------------------------------------------------------------------------
 */

static void fail_drain(struct rpc_call *call, enum fsm_code code) {
    if (code == FSM_NOT_FOUND)
        api_fail(call, RPC_NOT_FOUND, "node_id, worker_id: no such node or worker is known");
    else
        api_fail(call, RPC_FAILED_PRECONDITION,
                 "the drain was refused: the node is no member of this cluster any more");
}

static void on_drained(void *arg, const struct replica_proposed *res) {
    struct api_op *op = arg;
    struct api *a = op->api;
    struct mono started = op->started, deadline = op->deadline;
    struct rpc_call *call = api_op_end(op);
    Chronos__V1__SetDrainResponse resp = CHRONOS__V1__SET_DRAIN_RESPONSE__INIT;

    if (!call)
        return;
    if (res->status != REPLICA_OK) {
        api_fail_status(a, call, STATUS_WRITE, res->status, started, deadline);
    } else if (res->output->results_count != 1) {
        api_fail(call, RPC_INTERNAL, "a drain gave %zu results", res->output->results_count);
    } else if (res->output->results[0].code != FSM_OK) {
        fail_drain(call, res->output->results[0].code);
    } else {
        resp.index = res->index;
        api_reply(call, api_pack(&resp.base));
    }
}

static bool drain_ok(struct rpc_call *call, const Chronos__V1__SetDrainRequest *req) {
    size_t len = strlen(req->worker_id);

    if ((req->node_id == 0) == (len == 0))
        api_fail(call, RPC_INVALID_ARGUMENT,
                 "node_id, worker_id: exactly one of them must be given");
    else if (req->node_id > NODE_ID_MAX)
        (void) id_ok(call, "node_id", req->node_id);
    else if (len > FSM_WORKER_ID_BYTES_MAX)
        api_fail(call, RPC_INVALID_ARGUMENT, "worker_id: at most %d bytes",
                 FSM_WORKER_ID_BYTES_MAX);
    else if (req->timeout_ms < 0 || req->timeout_ms > DRAIN_MS_MAX)
        api_fail(call, RPC_INVALID_ARGUMENT, "timeout_ms: from 0 to %lld (7 days)", DRAIN_MS_MAX);
    else
        return true;
    return false;
}

static int drain_propose(struct api_op *op, Chronos__V1__SetDrainRequest *req) {
    Chronos__Internal__V1__LogCommand cmd = CHRONOS__INTERNAL__V1__LOG_COMMAND__INIT;
    Chronos__Internal__V1__Drain body = CHRONOS__INTERNAL__V1__DRAIN__INIT;
    _cleanup_(bytes_unrefp) struct bytes *command = NULL;
    int r;

    body.node_id = req->node_id;
    body.worker_id = req->worker_id;
    body.on = req->on;
    if (req->on)
        body.timeout_ms =
            req->timeout_ms > 0 ? req->timeout_ms : replica_drain_timeout_ms(op->api->replica);
    cmd.body_case = CHRONOS__INTERNAL__V1__LOG_COMMAND__BODY_DRAIN;
    cmd.drain = &body;
    r = command_encode(&cmd, &command);
    if (r < 0)
        return r;
    /* Not proposed twice: the second would undo what was told to somebody else in between. */
    return replica_propose(op->api->replica, TAKE_PTR(command), 0, op->deadline, on_drained, op);
}

void cluster_on_drain(void *ctx, struct rpc_call *call, struct slice request) {
    struct api *a = ctx;
    Chronos__V1__SetDrainRequest *req;
    struct api_op *op;
    int r;

    if (api_refuse_stopping(a, call, STATUS_WRITE))
        return;
    req = (Chronos__V1__SetDrainRequest *) api_decode(
        a, call, &chronos__v1__set_drain_request__descriptor, request);
    if (!req || !drain_ok(call, req))
        return;
    op = api_op_new(a, call);
    if (!op)
        return;
    r = drain_propose(op, req);
    if (r != 0)
        api_op_fail(op, STATUS_WRITE, r);
}
