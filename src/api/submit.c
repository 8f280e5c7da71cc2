/* SubmitJob and SubmitJobs.
 *
 * What it is: request -> checked -> one log entry -> answer once it is committed and applied here.
 * The hot path of the server: one decode, one encode (submit_encode.c), one pooled api_op.
 * An item of SubmitJobs that is refused fails alone; the others are submitted.
 * Thread: the loop's. */
#include "api/api_impl.h"

#include "api/submit_encode.h"
#include "api/validate_job.h"
#include "fsm/job_id.h"
#include "fsm/wire.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define REPLY_BYTES_MAX 64

/* ---- what the state machine said ------------------------------------------------------------- */

/* The status of one item; @ret_text is set unless it is OK. */
static enum rpc_code result_code(const struct fsm_result *res, struct errtext *ret_text) {
    char id[JOB_ID_BYTES_MAX];

    ASSERT(res);
    switch (res->code) {
    case FSM_OK:
    case FSM_EXISTING:
        return RPC_OK;
    case FSM_KEY_CONFLICT:
        if (res->job_seq > 0) {
            job_id_format(res->job_seq, id);
            errtext_set(ret_text,
                        "idempotency_key: was used with another request, which became job %s", id);
        } else {
            errtext_set(ret_text, "idempotency_key: was used with another request");
        }
        return RPC_ALREADY_EXISTS;
    case FSM_NOT_FOUND:
    case FSM_TERMINAL:
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
    errtext_set(ret_text, "unexpected result %d of a submit", (int) res->code);
    return RPC_INTERNAL;
}

/* ---- SubmitJob ------------------------------------------------------------------------------- */

/* chronos.v1.SubmitJobResponse. Written by hand because every submit ends here. */
static struct bytes *encode_reply(uint64_t seq, uint64_t index, bool existing) {
    uint8_t raw[REPLY_BYTES_MAX];
    uint8_t *p = raw;
    char id[JOB_ID_BYTES_MAX];

    job_id_format(seq, id);
    p = wire_put_bytes(p, 1, slice_of(id, strlen(id)));
    *p++ = 2 << 3 | WIRE_VARINT;
    p = wire_put_varint(p, index);
    if (existing) {
        *p++ = 3 << 3 | WIRE_VARINT;
        *p++ = 1;
    }
    ASSERT(p <= raw + sizeof(raw));
    return bytes_copy(raw, (size_t) (p - raw));
}

static void on_job_done(void *arg, const struct replica_proposed *res) {
    struct api_op *op = arg;
    struct api *a = op->api;
    struct mono started = op->started, deadline = op->deadline;
    struct rpc_call *call = api_op_end(op);
    const struct fsm_result *item;
    struct errtext text;
    enum rpc_code code;

    if (!call)
        return; /* the client is gone; the job is submitted all the same */
    if (res->status != REPLICA_OK) {
        api_fail_status(a, call, STATUS_WRITE, res->status, started, deadline);
        return;
    }
    if (res->output->results_count != 1) {
        api_fail(call, RPC_INTERNAL, "a submit of one job gave %zu results",
                 res->output->results_count);
        return;
    }
    item = &res->output->results[0];
    code = result_code(item, &text);
    if (code != RPC_OK)
        api_fail(call, code, "%s", text.s);
    else
        api_reply(call, encode_reply(item->job_seq, res->index, item->code == FSM_EXISTING));
}

/* Encode and propose; fails the call when that cannot be. Takes over @op. */
static void propose(struct api_op *op, const struct submit_item *items, size_t count,
                    replica_propose_fn done) {
    _cleanup_(bytes_unrefp) struct bytes *command = NULL;
    struct api *a = op->api;
    unsigned flags = REPLICA_RETRY_SAFE;
    int r;

    for (size_t i = 0; i < count; i++) {
        /* Without a key a second proposal would be a second job. */
        if (items[i].key[0] == '\0')
            flags = 0;
    }
    r = submit_encode(items, count, &command);
    if (r == 0)
        r = replica_propose(a->replica, TAKE_PTR(command), flags, op->deadline, done, op);
    if (r != 0)
        api_op_fail(op, STATUS_WRITE, r);
}

/* 0; VALIDATE_BAD with its text; -ENOMEM. */
static int check_item(struct api *a, const Chronos__V1__SubmitJobRequest *req,
                      struct submit_item *ret, struct errtext *reterr) {
    int r;

    r = validate_job_key(req->idempotency_key, reterr);
    if (r != 0)
        return r;
    r = validate_job(req->spec, &a->scratch, &ret->spec_bytes, reterr);
    if (r != 0)
        return r;
    ret->spec = req->spec;
    ret->key = req->idempotency_key;
    return 0;
}

void submit_on_job(void *ctx, struct rpc_call *call, struct slice request) {
    struct api *a = ctx;
    Chronos__V1__SubmitJobRequest *req;
    struct submit_item item;
    struct errtext e;
    struct api_op *op;
    int r;

    if (api_refuse_stopping(a, call, STATUS_WRITE))
        return;
    req = (Chronos__V1__SubmitJobRequest *) api_decode(
        a, call, &chronos__v1__submit_job_request__descriptor, request);
    if (!req)
        return;
    r = check_item(a, req, &item, &e);
    if (r > 0) {
        api_fail(call, RPC_INVALID_ARGUMENT, "%s", e.s);
        return;
    }
    if (r < 0) {
        api_fail_memory(call);
        return;
    }
    op = api_op_new(a, call);
    if (op)
        propose(op, &item, 1, on_job_done);
}

/* ---- SubmitJobs ------------------------------------------------------------------------------ */

/* What stands between the request and its answer: which items were refused here, and why. */
struct batch {
    size_t count;
    size_t submitted;
    char *refused[]; /* per item: owned text, NULL = was submitted */
};

static void batch_done(struct batch *b) {
    for (size_t i = 0; i < b->count; i++)
        free(b->refused[i]);
    free(b);
}

static void batch_freep(struct batch **b) {
    if (*b)
        batch_done(*b);
}

/* One item's result in @arena; NULL when memory is out. */
static Chronos__V1__SubmitJobResult *batch_result(struct arena *arena, char *refused,
                                                  const struct fsm_result *res) {
    Chronos__V1__SubmitJobResult *out = arena_alloc(arena, sizeof(*out));
    struct errtext text;

    if (!out)
        return NULL;
    chronos__v1__submit_job_result__init(out);
    if (refused) {
        out->code = RPC_INVALID_ARGUMENT;
        out->message = refused;
        return out;
    }
    out->code = (int32_t) result_code(res, &text);
    if (out->code != RPC_OK) {
        out->message = arena_strdup(arena, text.s);
        return out->message ? out : NULL;
    }
    out->existing = res->code == FSM_EXISTING;
    out->job_id = arena_alloc(arena, JOB_ID_BYTES_MAX);
    if (!out->job_id)
        return NULL;
    job_id_format(res->job_seq, out->job_id);
    return out;
}

static struct bytes *batch_encode(struct api *a, const struct batch *b,
                                  const struct fsm_result *results, uint64_t index) {
    Chronos__V1__SubmitJobsResponse resp = CHRONOS__V1__SUBMIT_JOBS_RESPONSE__INIT;
    size_t next = 0;

    arena_clear(&a->scratch);
    resp.results = arena_alloc(&a->scratch, b->count * sizeof(*resp.results));
    if (!resp.results)
        return NULL;
    for (size_t i = 0; i < b->count; i++) {
        const struct fsm_result *res = b->refused[i] ? NULL : &results[next++];

        resp.results[i] = batch_result(&a->scratch, b->refused[i], res);
        if (!resp.results[i])
            return NULL;
    }
    resp.n_results = b->count;
    resp.index = index;
    return api_pack(&resp.base);
}

static void on_jobs_done(void *arg, const struct replica_proposed *res) {
    struct api_op *op = arg;
    struct api *a = op->api;
    struct mono started = op->started, deadline = op->deadline;
    _cleanup_(batch_freep) struct batch *b = TAKE_PTR(op->data);
    struct rpc_call *call = api_op_end(op);

    if (!call)
        return;
    if (res->status != REPLICA_OK)
        api_fail_status(a, call, STATUS_WRITE, res->status, started, deadline);
    else if (res->output->results_count != b->submitted)
        api_fail(call, RPC_INTERNAL, "a submit of %zu jobs gave %zu results", b->submitted,
                 res->output->results_count);
    else
        api_reply(call, batch_encode(a, b, res->output->results, res->index));
}

/* Check all items: those that are fine go to @items. 0 or -ENOMEM. */
static int batch_check(struct api *a, const Chronos__V1__SubmitJobsRequest *req, struct batch *b,
                       struct submit_item *items) {
    for (size_t i = 0; i < req->n_jobs; i++) {
        struct errtext e;
        int r = check_item(a, req->jobs[i], &items[b->submitted], &e);

        if (r < 0)
            return r;
        if (r == 0) {
            b->submitted++;
            continue;
        }
        b->refused[i] = strdup(e.s);
        if (!b->refused[i])
            return -ENOMEM;
    }
    return 0;
}

static void batch_submit(struct api *a, struct rpc_call *call,
                         const Chronos__V1__SubmitJobsRequest *req) {
    _cleanup_(batch_freep) struct batch *b = NULL;
    struct submit_item *items;
    struct api_op *op;

    items = arena_alloc(&a->scratch, req->n_jobs * sizeof(*items));
    b = calloc(1, sizeof(*b) + req->n_jobs * sizeof(b->refused[0]));
    if (b)
        b->count = req->n_jobs;
    if (!items || !b || batch_check(a, req, b, items) < 0) {
        api_fail_memory(call);
        return;
    }
    if (b->submitted == 0) {
        /* Nothing for the log; the answer reflects what is applied here. */
        api_reply(call, batch_encode(a, b, NULL, replica_applied(a->replica)));
        return;
    }
    op = api_op_new(a, call);
    if (!op)
        return;
    op->data = b;
    propose(op, items, b->submitted, on_jobs_done);
    b = NULL; /* propose took over the op and with it the batch */
}

void submit_on_jobs(void *ctx, struct rpc_call *call, struct slice request) {
    struct api *a = ctx;
    Chronos__V1__SubmitJobsRequest *req;

    if (api_refuse_stopping(a, call, STATUS_WRITE))
        return;
    req = (Chronos__V1__SubmitJobsRequest *) api_decode(
        a, call, &chronos__v1__submit_jobs_request__descriptor, request);
    if (!req)
        return;
    if (req->n_jobs == 0 || req->n_jobs > a->o.jobs_per_call_max)
        api_fail(call, RPC_INVALID_ARGUMENT, "jobs: must have 1 to %zu elements, has %zu",
                 a->o.jobs_per_call_max, req->n_jobs);
    else
        batch_submit(a, call, req);
}
