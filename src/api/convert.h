/* Records of the state machine -> messages of chronos.v1.
 *
 * The specification inside a record is never decoded: proto/chronos/internal/v1/raw.proto has twins
 * of the public messages whose specification is bytes.
 * Thread: the loop's. */
#pragma once

#include "fsm/fsm.h"
#include "os/rpc_server.h"

#include "chronos/internal/v1/raw.pb-c.h"
#include "chronos/v1/job.pb-c.h"

struct api;

/* A view of @rec, borrowing its strings and @id; @rec must outlive it. */
void convert_job(uint64_t seq, const Chronos__Internal__V1__JobRecord *rec, char id[],
                 Chronos__Internal__V1__RawJob *ret);

/* An encoded GetJobResponse (CancelJobResponse is the same); NULL when memory is out. */
struct bytes *convert_job_response(uint64_t seq, const Chronos__Internal__V1__JobRecord *rec,
                                   uint64_t index) _must_check_;

/* @id has room for JOB_ID_BYTES_MAX and is referred to by @ret, as is @event. */
void convert_event(uint64_t index, int64_t at_ms, const struct fsm_event *event, char id[],
                   Chronos__V1__JobEvent *ret);

/* "PENDING", ...; never NULL. */
const char *convert_state_name(Chronos__V1__JobState state);
bool convert_is_terminal(Chronos__V1__JobState state);

/* Fail @call with what fsm_read_job returned: NOT_FOUND for FSM_READ_NOT_FOUND, else as
 * api_fail_read() says. */
void convert_fail_read(struct api *a, struct rpc_call *call, uint64_t seq, int r);
