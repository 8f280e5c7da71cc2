/* A job specification from a client: checked, completed with defaults, brought into one form.
 *
 * What it is: the limits that proto/chronos/v1/job.proto documents, each with an error that names
 * the field and what would be right.
 * What it is not: a check that the command exists or may be run; the worker finds that out.
 * The one form: defaults filled in, maps sorted by key with the last of several equal keys kept (as
 * protobuf demands), fields this program does not know dropped: nothing reaches a worker that was
 * not checked here. Two requests that mean the same job therefore encode the same and hash the
 * same. Pure. Thread: any. */
#pragma once

#include "base/arena.h"
#include "base/err.h"

#include "chronos/v1/job.pb-c.h"

#define VALIDATE_SPEC_BYTES_MAX (1024UL * 1024)
#define VALIDATE_ARGS_MAX 10000
#define VALIDATE_STRING_BYTES_MAX 131071 /* Linux: MAX_ARG_STRLEN without its NUL; execve(2) */
#define VALIDATE_ENV_MAX 1000
#define VALIDATE_ENV_NAME_BYTES_MAX 255
#define VALIDATE_PATH_BYTES_MAX 4095 /* PATH_MAX without its NUL */
#define VALIDATE_QUEUE_BYTES_MAX 128
#define VALIDATE_LABELS_MAX 32
#define VALIDATE_LABEL_KEY_BYTES_MAX 63
#define VALIDATE_LABEL_VALUE_BYTES_MAX 255
#define VALIDATE_NAME_BYTES_MAX 255
#define VALIDATE_KEY_BYTES_MAX 128
#define VALIDATE_ATTEMPTS_MAX 100
#define VALIDATE_RUN_TIMEOUT_MS_DEFAULT (5LL * 60 * 1000)
#define VALIDATE_RUN_TIMEOUT_MS_MAX (365LL * 24 * 3600 * 1000)
#define VALIDATE_KILL_GRACE_MS_DEFAULT (10LL * 1000)
#define VALIDATE_KILL_GRACE_MS_MAX (3600LL * 1000)
#define VALIDATE_OUTPUT_BYTES_DEFAULT (1024UL * 1024)
#define VALIDATE_OUTPUT_BYTES_MAX (64UL * 1024 * 1024)
#define VALIDATE_ATTEMPTS_DEFAULT 3

enum { VALIDATE_BAD = 1 };

/* @spec     unpacked after message_check (no NUL, UTF-8); changed in place; NULL is refused as
 *           missing. On VALIDATE_BAD it may be half completed.
 * @arena    for what is sorted; must live as long as @spec
 * @ret_bytes encoded size of the result
 * 0; VALIDATE_BAD with "spec.field: limit" (INVALID_ARGUMENT for the client); -ENOMEM. */
int validate_job(Chronos__V1__JobSpec *spec, struct arena *arena, size_t *ret_bytes,
                 struct errtext *reterr) _must_check_;

/* A map of labels: checked ("spec.labels..."), sorted, the last of equal keys kept. Results as
 * above. */
int validate_labels(Chronos__V1__JobSpec__LabelsEntry **labels, size_t *count, struct arena *arena,
                    struct errtext *reterr) _must_check_;
/* Bytes below 0x20, and 0x7f. */
bool validate_has_control(const char *s);
/* Only letters, digits and those of @extra. */
bool validate_is_word(const char *s, const char *extra);

/* The idempotency key of a submit, "" meaning none. 0 or VALIDATE_BAD. */
int validate_job_key(const char *key, struct errtext *reterr) _must_check_;
