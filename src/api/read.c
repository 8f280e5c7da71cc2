/* GetJob. Linearizable through the replica's read barrier, or stale on request.
 * Thread: the loop's. */
#include "api/api_impl.h"

#include "api/convert.h"

static void answer(struct api *a, struct rpc_call *call, uint64_t seq, uint64_t index) {
    Chronos__Internal__V1__JobRecord *rec;
    int r;

    arena_clear(&a->scratch);
    r = fsm_read_job(replica_fsm(a->replica), seq, &a->scratch, &rec);
    if (r != 0)
        convert_fail_read(a, call, seq, r);
    else
        api_reply(call, convert_job_response(seq, rec, index));
}

static void on_barrier(void *arg, enum replica_status status, uint64_t index) {
    struct api_op *op = arg;
    struct api *a = op->api;
    struct mono started = op->started, deadline = op->deadline;
    uint64_t seq = op->seq;
    struct rpc_call *call = api_op_end(op);

    if (!call)
        return;
    if (status != REPLICA_OK)
        api_fail_status(a, call, STATUS_READ, status, started, deadline);
    else
        answer(a, call, seq, MAX(index, replica_applied(a->replica)));
}

void read_on_get(void *ctx, struct rpc_call *call, struct slice request) {
    struct api *a = ctx;
    Chronos__V1__GetJobRequest *req;
    struct api_op *op;
    uint64_t seq;
    int r;

    if (api_refuse_stopping(a, call, STATUS_READ))
        return;
    req = (Chronos__V1__GetJobRequest *) api_decode(
        a, call, &chronos__v1__get_job_request__descriptor, request);
    if (!req || api_job_id(call, req->job_id, &seq) != 0)
        return;
    if (req->consistency == CHRONOS__V1__CONSISTENCY__CONSISTENCY_STALE) {
        answer(a, call, seq, replica_applied(a->replica));
        return;
    }
    op = api_op_new(a, call);
    if (!op)
        return;
    op->seq = seq;
    r = replica_read(a->replica, op->deadline, on_barrier, op);
    if (r != 0)
        api_op_fail(op, STATUS_READ, r);
}
