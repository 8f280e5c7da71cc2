/* CancelJob.
 * A cancel is idempotent: it is proposed again when a leader is lost in between, and a job that is
 * cancelled already is answered as it stands, so that a client may repeat it as well.
 * Thread: the loop's. */
#include "api/api_impl.h"

#include "api/convert.h"
#include "fsm/command.h"
#include "fsm/job_id.h"

#include <errno.h>

static void answer(struct api *a, struct rpc_call *call, uint64_t seq, uint64_t index,
                   bool was_terminal) {
    Chronos__Internal__V1__JobRecord *rec;
    int r;

    arena_clear(&a->scratch);
    r = fsm_read_job(replica_fsm(a->replica), seq, &a->scratch, &rec);
    if (r != 0)
        convert_fail_read(a, call, seq, r);
    else if (was_terminal && rec->state != CHRONOS__V1__JOB_STATE__JOB_STATE_CANCELLED)
        api_fail(call, RPC_FAILED_PRECONDITION, "job_id: the job has already ended, as %s",
                 convert_state_name(rec->state));
    else
        api_reply(call, convert_job_response(seq, rec, index));
}

static void on_done(void *arg, const struct replica_proposed *res) {
    struct api_op *op = arg;
    struct api *a = op->api;
    struct mono started = op->started, deadline = op->deadline;
    uint64_t seq = op->seq;
    struct rpc_call *call = api_op_end(op);

    if (!call)
        return;
    if (res->status != REPLICA_OK) {
        api_fail_status(a, call, STATUS_WRITE, res->status, started, deadline);
        return;
    }
    if (res->output->results_count != 1) {
        api_fail(call, RPC_INTERNAL, "a cancel of one job gave %zu results",
                 res->output->results_count);
        return;
    }
    switch (res->output->results[0].code) {
    case FSM_OK:
        answer(a, call, seq, res->index, false);
        return;
    case FSM_TERMINAL:
        answer(a, call, seq, res->index, true);
        return;
    case FSM_NOT_FOUND:
        convert_fail_read(a, call, seq, FSM_READ_NOT_FOUND);
        return;
    case FSM_EXISTING:
    case FSM_KEY_CONFLICT:
    case FSM_NOT_PENDING:
    case FSM_WORKER_GONE:
    case FSM_STALE:
    case FSM_REFUSED:
    case FSM_WORKER_DRAINING:
    case FSM_NAME_TAKEN:
    case FSM_VERSION_MISMATCH:
    case FSM_PARTIAL:
        break;
    }
    api_fail(call, RPC_INTERNAL, "unexpected result %d of a cancel",
             (int) res->output->results[0].code);
}

static int propose(struct api_op *op) {
    Chronos__Internal__V1__LogCommand cmd = CHRONOS__INTERNAL__V1__LOG_COMMAND__INIT;
    Chronos__Internal__V1__CancelJob body = CHRONOS__INTERNAL__V1__CANCEL_JOB__INIT;
    Chronos__Internal__V1__CancelJobItem item = CHRONOS__INTERNAL__V1__CANCEL_JOB_ITEM__INIT;
    Chronos__Internal__V1__CancelJobItem *items[] = {&item};
    _cleanup_(bytes_unrefp) struct bytes *command = NULL;
    int r;

    item.job_seq = op->seq;
    body.n_items = 1;
    body.items = items;
    cmd.body_case = CHRONOS__INTERNAL__V1__LOG_COMMAND__BODY_CANCEL_JOB;
    cmd.cancel_job = &body;
    r = command_encode(&cmd, &command);
    if (r < 0)
        return r;
    return replica_propose(op->api->replica, TAKE_PTR(command), REPLICA_RETRY_SAFE, op->deadline,
                           on_done, op);
}

void cancel_on_call(void *ctx, struct rpc_call *call, struct slice request) {
    struct api *a = ctx;
    Chronos__V1__CancelJobRequest *req;
    struct api_op *op;
    uint64_t seq;
    int r;

    if (api_refuse_stopping(a, call, STATUS_WRITE))
        return;
    req = (Chronos__V1__CancelJobRequest *) api_decode(
        a, call, &chronos__v1__cancel_job_request__descriptor, request);
    if (!req || api_job_id(call, req->job_id, &seq) != 0)
        return;
    op = api_op_new(a, call);
    if (!op)
        return;
    op->seq = seq;
    r = propose(op);
    if (r != 0)
        api_op_fail(op, STATUS_WRITE, r);
}
