#include "bench/requests.h"

#include "chronos/v1/cluster_service.pb-c.h"
#include "chronos/v1/job_service.pb-c.h"

#include <stdlib.h>
#include <string.h>

static struct bytes *pack(const ProtobufCMessage *m) {
    struct bytes *b = bytes_new(protobuf_c_message_get_packed_size(m));

    if (b)
        (void) protobuf_c_message_pack(m, b->data);
    return b;
}

/* The same job @jobs times: in a SubmitJob when @jobs is 0. */
static struct bytes *build(enum request_payload what, size_t payload_bytes, uint32_t jobs) {
    char key[] = "BENCH_PAYLOAD", program[] = "/bin/true";
    char *argv[] = {program};
    Chronos__V1__Noop noop = CHRONOS__V1__NOOP__INIT;
    Chronos__V1__Command command = CHRONOS__V1__COMMAND__INIT;
    Chronos__V1__JobSpec spec = CHRONOS__V1__JOB_SPEC__INIT;
    Chronos__V1__JobSpec__EnvEntry entry = CHRONOS__V1__JOB_SPEC__ENV_ENTRY__INIT;
    Chronos__V1__JobSpec__EnvEntry *env[] = {&entry};
    Chronos__V1__SubmitJobRequest one = CHRONOS__V1__SUBMIT_JOB_REQUEST__INIT;
    Chronos__V1__SubmitJobsRequest many = CHRONOS__V1__SUBMIT_JOBS_REQUEST__INIT;
    Chronos__V1__SubmitJobRequest *list[REQUEST_BATCH_MAX];
    _cleanup_(freep) char *payload = calloc(1, payload_bytes + 1);

    ASSERT(jobs <= REQUEST_BATCH_MAX);
    if (!payload)
        return NULL;
    memset(payload, 'x', payload_bytes);
    command.n_argv = 1;
    command.argv = argv;
    spec.payload_case = what == REQUEST_NOOP ? CHRONOS__V1__JOB_SPEC__PAYLOAD_NOOP
                                             : CHRONOS__V1__JOB_SPEC__PAYLOAD_COMMAND;
    if (what == REQUEST_NOOP)
        spec.noop = &noop;
    else
        spec.command = &command;
    entry.key = key;
    entry.value = payload;
    spec.n_env = payload_bytes > 0 ? 1 : 0;
    spec.env = env;
    one.spec = &spec;
    for (uint32_t i = 0; i < jobs; i++)
        list[i] = &one;
    many.n_jobs = jobs;
    many.jobs = list;
    return pack(jobs > 0 ? &many.base : &one.base);
}

struct bytes *request_submit(enum request_payload what, size_t payload_bytes) {
    return build(what, payload_bytes, 0);
}

struct bytes *request_submit_batch(enum request_payload what, size_t payload_bytes, uint32_t jobs) {
    ASSERT(jobs > 0);
    return build(what, payload_bytes, jobs);
}

struct bytes *request_watch(uint64_t after_index) {
    Chronos__V1__WatchJobsRequest m = CHRONOS__V1__WATCH_JOBS_REQUEST__INIT;

    m.after_index = after_index;
    return pack(&m.base);
}

struct bytes *request_status(void) {
    Chronos__V1__GetClusterStatusRequest m = CHRONOS__V1__GET_CLUSTER_STATUS_REQUEST__INIT;

    return pack(&m.base);
}
