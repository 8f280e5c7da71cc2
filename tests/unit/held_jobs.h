/* The disk thread of a node in the tests of node/: jobs wait until the test runs them. */
#pragma once

#include "base/env.h"

struct held_jobs {
    struct disk_job *first, *last;
};

/* As env_disk_queue wants it; @ctx is the struct held_jobs. */
static inline void held_jobs_submit(void *ctx, struct disk_job *job) {
    struct held_jobs *q = ctx;

    job->next = NULL;
    if (q->last)
        q->last->next = job;
    else
        q->first = job;
    q->last = job;
}

/* The oldest, whole. False: there was none. */
static inline bool held_jobs_run(struct held_jobs *q) {
    struct disk_job *job = q->first;

    if (!job)
        return false;
    q->first = job->next;
    if (!q->first)
        q->last = NULL;
    job->run(job);
    job->done(job);
    return true;
}
