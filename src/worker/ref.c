#include "worker/ref.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static bool id_char(uint8_t c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

int ref_make(struct slice job_id, uint32_t attempt, uint64_t token, struct ref *ret) {
    ASSERT(ret);
    ASSERT(job_id.data || job_id.len == 0);
    if (job_id.len == 0 || job_id.len >= REF_JOB_ID_BYTES_MAX || attempt == 0 || token == 0)
        return REF_E_MALFORMED;
    for (size_t i = 0; i < job_id.len; i++)
        if (!id_char(job_id.data[i]))
            return REF_E_MALFORMED;
    *ret = (struct ref){.attempt = attempt, .token = token};
    memcpy(ret->job_id, job_id.data, job_id.len);
    return 0;
}

int ref_from_pb(const Chronos__V1__AttemptRef *pb, struct ref *ret) {
    if (!pb)
        return REF_E_MALFORMED;
    return ref_make(slice_of(pb->job_id, strlen(pb->job_id)), pb->attempt, pb->fencing_token, ret);
}

void ref_to_pb(const struct ref *r, Chronos__V1__AttemptRef *ret) {
    ASSERT(r);
    ASSERT(ret);
    chronos__v1__attempt_ref__init(ret);
    ret->job_id = (char *) (uintptr_t) r->job_id; /* protobuf-c has no const; it only reads */
    ret->attempt = r->attempt;
    ret->fencing_token = r->token;
}

void ref_name(const struct ref *r, char ret[REF_NAME_BYTES_MAX]) {
    ASSERT(r->job_id[0]);
    (void) snprintf(ret, REF_NAME_BYTES_MAX, "%s-%" PRIu32, r->job_id, r->attempt);
}

void ref_key_text(const struct ref *r, char ret[REF_KEY_TEXT_BYTES_MAX]) {
    ASSERT(r->job_id[0]);
    (void) snprintf(ret, REF_KEY_TEXT_BYTES_MAX, "%s-%" PRIu32 "-%" PRIu64, r->job_id, r->attempt,
                    r->token);
}
