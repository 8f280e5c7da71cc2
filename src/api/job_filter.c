#include "api/job_filter.h"

#include "base/codec.h"
#include "base/err.h"
#include "fsm/wire.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

/* Field numbers of v1/job.proto JobSpec and Command. */
enum { SPEC_COMMAND = 1, SPEC_SHELL = 2, SPEC_NAME = 12, COMMAND_ARGV = 1 };

static int take_text(const char *field, const char *value, char **ret, struct errtext *reterr) {
    if (value[0] == '\0')
        return 0;
    if (strlen(value) > JOB_FILTER_TEXT_BYTES_MAX) {
        errtext_set(reterr, "%s: must be at most %d bytes", field, JOB_FILTER_TEXT_BYTES_MAX);
        return JOB_FILTER_BAD;
    }
    *ret = strdup(value);
    return *ret ? 0 : -ENOMEM;
}

static int take_states(struct job_filter *f, const Chronos__V1__ListJobsRequest *req,
                       struct errtext *reterr) {
    for (size_t i = 0; i < req->n_states; i++) {
        if (req->states[i] < CHRONOS__V1__JOB_STATE__JOB_STATE_PENDING ||
            req->states[i] > CHRONOS__V1__JOB_STATE__JOB_STATE_CANCELLED) {
            errtext_set(reterr, "states[%zu]: %d is no job state", i, (int) req->states[i]);
            return JOB_FILTER_BAD;
        }
        f->states |= 1u << req->states[i];
    }
    return 0;
}

int job_filter_init(struct job_filter *f, const Chronos__V1__ListJobsRequest *req,
                    struct errtext *reterr) {
    int r;

    ASSERT(req);
    *f = (struct job_filter){
        .created_after_ms = req->created_after_ms,
        .created_before_ms = req->created_before_ms ? req->created_before_ms : INT64_MAX,
        .ascending = req->oldest_first,
    };
    if (req->created_after_ms < 0 || req->created_before_ms < 0) {
        errtext_set(reterr, "%s: must not be negative",
                    req->created_after_ms < 0 ? "created_after_ms" : "created_before_ms");
        return JOB_FILTER_BAD;
    }
    r = take_states(f, req, reterr);
    if (r != 0)
        return r;
    r = take_text("worker_id", req->worker_id, &f->worker_id, reterr);
    if (r != 0)
        return r;
    r = take_text("queue", req->queue, &f->queue, reterr);
    if (r != 0)
        return r;
    r = take_text("schedule", req->schedule, &f->schedule, reterr);
    if (r != 0)
        return r;
    return take_text("command_contains", req->command_contains, &f->command_contains, reterr);
}

void job_filter_done(struct job_filter *f) {
    free(f->worker_id);
    free(f->queue);
    free(f->schedule);
    free(f->command_contains);
    *f = (struct job_filter){0};
}

static uint64_t hash_text(const char *s, uint64_t seed) {
    return s ? XXH3_64bits_withSeed(s, strlen(s) + 1, seed) : seed + 1;
}

uint64_t job_filter_hash(const struct job_filter *f) {
    uint8_t numbers[21];
    uint64_t h;

    put_le32(numbers, f->states);
    put_le64(numbers + 4, (uint64_t) f->created_after_ms);
    put_le64(numbers + 12, (uint64_t) f->created_before_ms);
    numbers[20] = f->ascending ? 1 : 0;
    h = XXH3_64bits(numbers, sizeof(numbers));
    h = hash_text(f->worker_id, h);
    h = hash_text(f->queue, h);
    h = hash_text(f->schedule, h);
    return hash_text(f->command_contains, h);
}

static bool contains(struct slice s, const char *text) {
    return memmem(s.data, s.len, text, strlen(text)) != NULL;
}

static bool argv_contains(struct slice command, const char *text) {
    struct wire_reader r = wire_reader_of(command);
    struct wire_field f;

    while (wire_next(&r, &f) == 0) {
        if (f.number == COMMAND_ARGV && f.type == WIRE_LEN && contains(f.bytes, text))
            return true;
    }
    return false;
}

/* Look into the encoded specification in place; most records are told apart without decoding. */
static bool spec_contains(struct slice spec, const char *text) {
    struct wire_reader r = wire_reader_of(spec);
    struct wire_field f;

    if (!contains(spec, text))
        return false;
    while (wire_next(&r, &f) == 0) {
        if (f.type != WIRE_LEN)
            continue;
        if ((f.number == SPEC_SHELL || f.number == SPEC_NAME) && contains(f.bytes, text))
            return true;
        if (f.number == SPEC_COMMAND && argv_contains(f.bytes, text))
            return true;
    }
    return false;
}

enum job_filter_verdict job_filter_apply(const struct job_filter *f,
                                         const Chronos__Internal__V1__JobRecord *rec) {
    if (rec->created_at_ms < f->created_after_ms)
        return f->ascending ? JOB_FILTER_SKIP : JOB_FILTER_STOP;
    if (rec->created_at_ms >= f->created_before_ms)
        return f->ascending ? JOB_FILTER_STOP : JOB_FILTER_SKIP;
    if (f->states != 0 && !(f->states >> ((unsigned) rec->state & 31) & 1u))
        return JOB_FILTER_SKIP;
    if (f->worker_id && strcmp(f->worker_id, rec->worker_id) != 0)
        return JOB_FILTER_SKIP;
    if (f->queue && strcmp(f->queue, rec->queue) != 0)
        return JOB_FILTER_SKIP;
    if (f->schedule && strcmp(f->schedule, rec->schedule) != 0)
        return JOB_FILTER_SKIP;
    if (f->command_contains &&
        !spec_contains(slice_of(rec->spec.data, rec->spec.len), f->command_contains))
        return JOB_FILTER_SKIP;
    return JOB_FILTER_TAKE;
}
