/* Names one attempt: job, attempt number, fencing token.
 *
 * What it is: the key of every table in this folder, and the file names that belong to an attempt.
 * What it is not: a judge of tokens; the state machine refuses stale ones.
 * Invariants: job_id is filled with NULs to its end, so that the struct's bytes are the key; it
 * consists of [A-Za-z0-9_] only, so that it may stand in a file name.
 * Thread: any; no state. */
#pragma once

#include "base/bytes.h"

#include "chronos/v1/worker_service.pb-c.h"

#define REF_JOB_ID_BYTES_MAX 36                              /* with NUL */
#define REF_NAME_BYTES_MAX (REF_JOB_ID_BYTES_MAX + 11)       /* "-4294967295" */
#define REF_KEY_TEXT_BYTES_MAX (REF_NAME_BYTES_MAX + 21 + 1) /* "-18446744073709551615" */

struct ref {
    char job_id[REF_JOB_ID_BYTES_MAX];
    uint32_t attempt;
    uint64_t token;
};
STATIC_ASSERT(sizeof(struct ref) == REF_JOB_ID_BYTES_MAX + 12, "no padding inside the key");

#define REF_E_MALFORMED 1

/* Check what came over the wire. 0; REF_E_MALFORMED: ignore the message, it names no attempt. */
int ref_from_pb(const Chronos__V1__AttemptRef *pb, struct ref *ret) _must_check_;
/* The same from loose parts, for the journal. */
int ref_make(struct slice job_id, uint32_t attempt, uint64_t token, struct ref *ret) _must_check_;
/* @ret borrows @r. */
void ref_to_pb(const struct ref *r, Chronos__V1__AttemptRef *ret);

static inline struct slice ref_key(const struct ref *r) {
    return slice_of(r, sizeof(*r));
}

/* "<job>-<attempt>": names the output file and the private directory. */
void ref_name(const struct ref *r, char ret[REF_NAME_BYTES_MAX]);
/* "<job>-<attempt>-<token>": CHRONOS_ATTEMPT_KEY, the mark by which orphans are found. */
void ref_key_text(const struct ref *r, char ret[REF_KEY_TEXT_BYTES_MAX]);
