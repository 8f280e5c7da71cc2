/* Jobs from submit to completion, seen by a client: SubmitJobs to the leader, WatchJobs for the
 * transitions. A job's time runs from the call that submitted it to the event that says Completed.
 */
#pragma once

#include "bench/requests.h"
#include "bench/target.h"

#define E2E_WINDOW_MAX 65536U

struct e2e_spec {
    const char *name;
    enum request_payload what;
    uint32_t window; /* jobs submitted and not yet completed; at most E2E_WINDOW_MAX */
    uint32_t batch;  /* jobs in a call; divides the window */
    uint64_t warm_ms;
    uint64_t measure_ms;
    uint64_t jobs;        /* > 0: not for a time, but until so many are completed */
    size_t payload_bytes; /* 0 = as the options say */
};

/* What completed within the measured time counts. Afterwards every acknowledged job must complete,
 * or the run has failed. BENCH_*. */
int e2e_run(struct target *t, const struct e2e_spec *s, struct bench_result *ret) _must_check_;
