/* The filters of ListJobs, owned and ready to be applied to records.
 * Pure. Thread: any. */
#pragma once

#include "base/defs.h"

#include "chronos/internal/v1/command.pb-c.h"
#include "chronos/v1/job_service.pb-c.h"

#define JOB_FILTER_TEXT_BYTES_MAX 1024

struct errtext;

struct job_filter {
    unsigned states; /* bit per state; 0 = all */
    char *worker_id; /* owned; NULL = any, here and below */
    char *queue;
    char *schedule;
    char *command_contains;
    int64_t created_after_ms;  /* inclusive */
    int64_t created_before_ms; /* exclusive; INT64_MAX = no bound */
    bool ascending;
};

enum { JOB_FILTER_BAD = 1 };

/* 0; JOB_FILTER_BAD with "field: limit" (INVALID_ARGUMENT); -ENOMEM. job_filter_done in any case.
 */
int job_filter_init(struct job_filter *f, const Chronos__V1__ListJobsRequest *req,
                    struct errtext *reterr) _must_check_;
void job_filter_done(struct job_filter *f);

/* Tells listings apart in page tokens. */
uint64_t job_filter_hash(const struct job_filter *f);

enum job_filter_verdict {
    JOB_FILTER_SKIP,
    JOB_FILTER_TAKE,
    /* This one does not match, nor will any that follow in this direction: creation times do not
     * run backwards along sequence numbers (J7). */
    JOB_FILTER_STOP,
};

enum job_filter_verdict job_filter_apply(const struct job_filter *f,
                                         const Chronos__Internal__V1__JobRecord *rec);
