#include "api/convert.h"

#include "api/api_impl.h"
#include "fsm/job_id.h"

#include <errno.h>

/* protobuf-c wants non-const strings although packing only reads them. */
static char *borrow(const char *s) {
    union {
        const char *in;
        char *out;
    } u = {.in = s};

    return u.out;
}

void convert_job(uint64_t seq, const Chronos__Internal__V1__JobRecord *rec, char id[],
                 Chronos__Internal__V1__RawJob *ret) {
    ASSERT(seq > 0);
    ASSERT(rec);
    job_id_format(seq, id);
    chronos__internal__v1__raw_job__init(ret);
    ret->id = id;
    ret->spec = rec->spec;
    ret->state = rec->state;
    ret->attempt = rec->attempt;
    ret->worker_id = rec->worker_id;
    ret->fencing_token = rec->fencing_token;
    ret->cancel_requested = rec->cancel_requested;
    ret->created_at_ms = rec->created_at_ms;
    ret->started_at_ms = rec->started_at_ms;
    ret->finished_at_ms = rec->finished_at_ms;
    ret->exit_code = rec->exit_code;
    ret->term_signal = rec->term_signal;
    ret->failure_reason = rec->failure_reason;
    ret->failure_message = rec->failure_message;
    ret->output_tail = rec->output_tail;
    ret->output_bytes = rec->output_bytes;
    ret->output_truncated = rec->output_truncated;
    ret->created_index = rec->created_index;
    ret->updated_index = rec->updated_index;
    ret->schedule = rec->schedule;
    ret->tick_ms = rec->tick_s * 1000;
}

struct bytes *convert_job_response(uint64_t seq, const Chronos__Internal__V1__JobRecord *rec,
                                   uint64_t index) {
    Chronos__Internal__V1__RawJobResponse resp = CHRONOS__INTERNAL__V1__RAW_JOB_RESPONSE__INIT;
    Chronos__Internal__V1__RawJob job;
    char id[JOB_ID_BYTES_MAX];

    convert_job(seq, rec, id, &job);
    resp.job = &job;
    resp.index = index;
    return api_pack(&resp.base);
}

void convert_event(uint64_t index, int64_t at_ms, const struct fsm_event *event, char id[],
                   Chronos__V1__JobEvent *ret) {
    ASSERT(event);
    ASSERT(event->job_seq > 0);
    job_id_format(event->job_seq, id);
    chronos__v1__job_event__init(ret);
    ret->index = index;
    ret->job_id = id;
    ret->from = event->from;
    ret->to = event->to;
    ret->attempt = event->attempt;
    ret->worker_id = borrow(event->worker_id);
    ret->fencing_token = event->fencing_token;
    ret->at_ms = at_ms;
    ret->failure_reason = event->failure_reason;
    ret->exit_code = event->exit_code;
    ret->term_signal = event->term_signal;
    ret->cancel_requested = event->cancel_requested;
}

const char *convert_state_name(Chronos__V1__JobState state) {
    switch (state) {
    case CHRONOS__V1__JOB_STATE__JOB_STATE_PENDING:
        return "PENDING";
    case CHRONOS__V1__JOB_STATE__JOB_STATE_RUNNING:
        return "RUNNING";
    case CHRONOS__V1__JOB_STATE__JOB_STATE_COMPLETED:
        return "COMPLETED";
    case CHRONOS__V1__JOB_STATE__JOB_STATE_FAILED:
        return "FAILED";
    case CHRONOS__V1__JOB_STATE__JOB_STATE_CANCELLED:
        return "CANCELLED";
    case CHRONOS__V1__JOB_STATE__JOB_STATE_UNSPECIFIED:
    case _CHRONOS__V1__JOB_STATE_IS_INT_SIZE:
        break;
    }
    return "UNSPECIFIED";
}

bool convert_is_terminal(Chronos__V1__JobState state) {
    return state == CHRONOS__V1__JOB_STATE__JOB_STATE_COMPLETED ||
           state == CHRONOS__V1__JOB_STATE__JOB_STATE_FAILED ||
           state == CHRONOS__V1__JOB_STATE__JOB_STATE_CANCELLED;
}

void convert_fail_read(struct api *a, struct rpc_call *call, uint64_t seq, int r) {
    char id[JOB_ID_BYTES_MAX];

    ASSERT(r != 0);
    job_id_format(seq, id);
    if (r == FSM_READ_NOT_FOUND)
        api_fail(call, RPC_NOT_FOUND, "job_id: there is no job %s", id);
    else
        api_fail_read(a, call, id, r);
}
