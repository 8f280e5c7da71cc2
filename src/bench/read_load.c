#include "bench/read_load.h"

#include "bench/load.h"
#include "bench/pb_scan.h"
#include "bench/requests.h"

#include <stdlib.h>

#define JOBS 10000U
#define BATCH 1000U
#define CALL_MS 10000U

struct read_load {
    struct target *t;
    struct bytes *requests[JOBS]; /* owned */
    size_t count;
};

/* SubmitJobsResponse: results = 1 of SubmitJobResult: job_id = 3. */
static void add_ids(struct read_load *r, struct slice reply) {
    struct pb_scan w = pb_scan_of(reply);
    struct pb_field f, in;

    while (pb_scan_next(&w, &f) > 0) {
        struct pb_scan inner = pb_scan_of(f.bytes);

        if (f.number != 1 || f.type != PB_BYTES)
            continue;
        while (pb_scan_next(&inner, &in) > 0) {
            if (in.number == 3 && in.type == PB_BYTES && r->count < JOBS)
                r->requests[r->count++] = request_get_job(in.bytes);
        }
    }
}

static int submit_some(struct read_load *r) {
    struct target *t = r->t;
    _cleanup_(bytes_unrefp) struct bytes *request =
        request_submit_batch(REQUEST_NOOP, t->b->o->payload_bytes, BATCH);
    _cleanup_(bytes_unrefp) struct bytes *reply = NULL;
    struct errtext why = {""};
    size_t before = r->count;
    int rc = target_call(t, t->leader, PATH_SUBMIT_JOBS, request, CALL_MS, &reply, &why);

    if (rc == BENCH_FAILED)
        return bench_fail("read: no jobs to be read: %s", why.s);
    if (rc == BENCH_OK)
        add_ids(r, bytes_slice(reply));
    if (rc == BENCH_OK && (r->count != before + BATCH || !r->requests[r->count - 1]))
        return bench_fail("read: a job was refused, or memory is out");
    return rc;
}

int read_load_new(struct target *t, struct read_load **ret) {
    struct read_load *r = calloc(1, sizeof(*r));
    int rc = BENCH_OK;

    if (!r)
        return bench_fail("out of memory");
    r->t = t;
    while (rc == BENCH_OK && r->count < JOBS)
        rc = submit_some(r);
    if (rc == BENCH_OK)
        *ret = r;
    else
        (void) read_load_free(r);
    return rc;
}

struct read_load *read_load_free(struct read_load *r) {
    if (!r)
        return NULL;
    for (size_t i = 0; i < r->count; i++)
        r->requests[i] = bytes_unref(r->requests[i]);
    free(r);
    return NULL;
}

int read_load_run(struct read_load *r, const struct read_spec *s, struct bench_result *ret) {
    struct load_spec spec = {.name = s->name,
                             .concurrency = s->concurrency,
                             .batch = 1,
                             .warm_ms = s->warm_ms,
                             .measure_ms = s->measure_ms,
                             .path = PATH_GET_JOB,
                             .requests = r->requests,
                             .requests_count = r->count,
                             .by_follower = s->by_follower};

    return load_run(r->t, &spec, ret);
}
