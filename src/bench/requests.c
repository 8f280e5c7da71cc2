#include "bench/requests.h"

#include "base/rand.h"

#include "chronos/v1/cluster_service.pb-c.h"
#include "chronos/v1/job_service.pb-c.h"

#include <stdlib.h>
#include <string.h>

#define RANDOM_PAYLOAD_BYTES_MIN 1024U

static struct bytes *pack(const ProtobufCMessage *m) {
    struct bytes *b = bytes_new(protobuf_c_message_get_packed_size(m));

    if (b)
        (void) protobuf_c_message_pack(m, b->data);
    return b;
}

/* One job of a request: the parts that its messages point to. */
struct one_job {
    Chronos__V1__JobSpec spec;
    Chronos__V1__JobSpec__EnvEntry entry;
    Chronos__V1__JobSpec__EnvEntry *env[1];
    Chronos__V1__SubmitJobRequest request;
};

static void fill_payload(char *out, size_t len, struct rng *rng) {
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

    STATIC_ASSERT(sizeof(alphabet) == 65, "six bits a character");
    if (len < RANDOM_PAYLOAD_BYTES_MIN) {
        memset(out, 'x', len);
        return;
    }
    for (size_t i = 0; i < len; i++)
        out[i] = alphabet[rng_next(rng) >> 58];
}

/* @jobs jobs: in a SubmitJob when it is 0. */
static struct bytes *build(enum request_payload what, size_t payload_bytes, uint32_t jobs) {
    struct rng rng = rng_seed(jobs);
    char key[] = "BENCH_PAYLOAD", program[] = "/bin/true";
    char *argv[] = {program};
    Chronos__V1__Noop noop = CHRONOS__V1__NOOP__INIT;
    Chronos__V1__Command command = CHRONOS__V1__COMMAND__INIT;
    Chronos__V1__SubmitJobsRequest many = CHRONOS__V1__SUBMIT_JOBS_REQUEST__INIT;
    Chronos__V1__SubmitJobRequest *list[REQUEST_BATCH_MAX];
    size_t count = MAX(jobs, 1U);
    _cleanup_(freep) char *payloads = calloc(count, payload_bytes + 1);
    _cleanup_(freep) struct one_job *all = calloc(count, sizeof(*all));

    ASSERT(jobs <= REQUEST_BATCH_MAX);
    if (!payloads || !all)
        return NULL;
    command.n_argv = 1;
    command.argv = argv;
    for (size_t i = 0; i < count; i++) {
        struct one_job *j = &all[i];

        chronos__v1__job_spec__init(&j->spec);
        chronos__v1__job_spec__env_entry__init(&j->entry);
        chronos__v1__submit_job_request__init(&j->request);
        j->entry.key = key;
        j->entry.value = payloads + i * (payload_bytes + 1);
        fill_payload(j->entry.value, payload_bytes, &rng);
        j->env[0] = &j->entry;
        j->spec.n_env = payload_bytes > 0 ? 1 : 0;
        j->spec.env = j->env;
        j->spec.payload_case = what == REQUEST_NOOP ? CHRONOS__V1__JOB_SPEC__PAYLOAD_NOOP
                                                    : CHRONOS__V1__JOB_SPEC__PAYLOAD_COMMAND;
        if (what == REQUEST_NOOP)
            j->spec.noop = &noop;
        else
            j->spec.command = &command;
        j->request.spec = &j->spec;
        list[i] = &j->request;
    }
    many.n_jobs = jobs;
    many.jobs = list;
    return pack(jobs > 0 ? &many.base : &list[0]->base);
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

struct bytes *request_get_job(struct slice id) {
    Chronos__V1__GetJobRequest m = CHRONOS__V1__GET_JOB_REQUEST__INIT;
    char text[64];

    ASSERT(id.len < sizeof(text));
    memcpy(text, id.data, id.len);
    text[id.len] = '\0';
    m.job_id = text;
    return pack(&m.base);
}

struct bytes *request_transfer(uint64_t to) {
    Chronos__V1__TransferLeaderRequest m = CHRONOS__V1__TRANSFER_LEADER_REQUEST__INIT;

    m.to = to;
    return pack(&m.base);
}

struct bytes *request_replace(uint64_t old_id, uint64_t new_id, const char *peer_address,
                              const char *client_address) {
    Chronos__V1__ReplaceNodeRequest m = CHRONOS__V1__REPLACE_NODE_REQUEST__INIT;

    m.old_id = old_id;
    m.new_id = new_id;
    m.peer_address = (char *) (uintptr_t) peer_address; /* packing reads only */
    m.client_address = (char *) (uintptr_t) client_address;
    return pack(&m.base);
}
