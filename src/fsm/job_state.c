#include "fsm/job_state.h"

#include <string.h>

#define S_NONE CHRONOS__V1__JOB_STATE__JOB_STATE_UNSPECIFIED
#define S_PENDING CHRONOS__V1__JOB_STATE__JOB_STATE_PENDING
#define S_RUNNING CHRONOS__V1__JOB_STATE__JOB_STATE_RUNNING
#define S_COMPLETED CHRONOS__V1__JOB_STATE__JOB_STATE_COMPLETED
#define S_FAILED CHRONOS__V1__JOB_STATE__JOB_STATE_FAILED
#define S_CANCELLED CHRONOS__V1__JOB_STATE__JOB_STATE_CANCELLED
STATIC_ASSERT(S_CANCELLED + 1 == JOB_STATE_COUNT, "every state has a row");
STATIC_ASSERT(S_NONE == 0, "what the table does not name must mean illegal");

/* What is not named here is 0 = illegal, so the three terminal rows are empty on purpose. */
static const Chronos__V1__JobState transitions[JOB_STATE_COUNT][JOB_EVENT_COUNT] = {
    [S_NONE] = {[JOB_EVENT_SUBMIT] = S_PENDING},
    [S_PENDING] = {[JOB_EVENT_ASSIGN] = S_RUNNING, [JOB_EVENT_CANCEL] = S_CANCELLED},
    [S_RUNNING] = {[JOB_EVENT_COMPLETE] = S_COMPLETED,
                   [JOB_EVENT_FAIL] = S_FAILED,
                   [JOB_EVENT_REPORT_CANCELLED] = S_CANCELLED,
                   [JOB_EVENT_RELEASE] = S_PENDING,
                   [JOB_EVENT_CANCEL] = S_RUNNING,
                   [JOB_EVENT_LOSE_RETRY] = S_PENDING,
                   [JOB_EVENT_LOSE_FINAL] = S_FAILED,
                   [JOB_EVENT_LOSE_CANCELLED] = S_CANCELLED},
    [S_COMPLETED] = {0},
    [S_FAILED] = {0},
    [S_CANCELLED] = {0},
};

static const char *const state_names[JOB_STATE_COUNT] = {
    [S_NONE] = "unspecified",    [S_PENDING] = "pending", [S_RUNNING] = "running",
    [S_COMPLETED] = "completed", [S_FAILED] = "failed",   [S_CANCELLED] = "cancelled",
};

static const char *const reason_names[] = {
    [CHRONOS__V1__FAILURE_REASON__FAILURE_REASON_UNSPECIFIED] = "none",
    [CHRONOS__V1__FAILURE_REASON__FAILURE_REASON_EXIT_CODE] = "exit_code",
    [CHRONOS__V1__FAILURE_REASON__FAILURE_REASON_SIGNAL] = "signal",
    [CHRONOS__V1__FAILURE_REASON__FAILURE_REASON_TIMEOUT] = "timeout",
    [CHRONOS__V1__FAILURE_REASON__FAILURE_REASON_START] = "start",
    [CHRONOS__V1__FAILURE_REASON__FAILURE_REASON_WORKER_LOST] = "worker_lost",
    [CHRONOS__V1__FAILURE_REASON__FAILURE_REASON_OUTPUT_LIMIT] = "output_limit",
};

static const char *const event_names[JOB_EVENT_COUNT] = {
    [JOB_EVENT_SUBMIT] = "submit",
    [JOB_EVENT_ASSIGN] = "assign",
    [JOB_EVENT_COMPLETE] = "complete",
    [JOB_EVENT_FAIL] = "fail",
    [JOB_EVENT_REPORT_CANCELLED] = "report_cancelled",
    [JOB_EVENT_RELEASE] = "release",
    [JOB_EVENT_CANCEL] = "cancel",
    [JOB_EVENT_LOSE_RETRY] = "lose_retry",
    [JOB_EVENT_LOSE_FINAL] = "lose_final",
    [JOB_EVENT_LOSE_CANCELLED] = "lose_cancelled",
};

Chronos__V1__JobState job_state_next(Chronos__V1__JobState from, enum job_event event) {
    ASSERT(from < JOB_STATE_COUNT);
    ASSERT(event < JOB_EVENT_COUNT);
    return transitions[from][event];
}

bool job_state_is_terminal(Chronos__V1__JobState s) {
    return s == S_COMPLETED || s == S_FAILED || s == S_CANCELLED;
}

const char *job_state_to_string(Chronos__V1__JobState s) {
    /* The value may come from a peer: out of range is answered, not asserted. */
    return (unsigned) s < JOB_STATE_COUNT ? state_names[s] : "unknown";
}

int job_state_from_string(const char *s, Chronos__V1__JobState *ret) {
    ASSERT(s);
    ASSERT(ret);
    for (size_t i = S_PENDING; i < JOB_STATE_COUNT; i++) {
        if (strcmp(s, state_names[i]) == 0) {
            *ret = (Chronos__V1__JobState) i;
            return 0;
        }
    }
    return 1;
}

const char *failure_reason_to_string(Chronos__V1__FailureReason r) {
    return (unsigned) r < ARRAY_LEN(reason_names) ? reason_names[r] : "unknown";
}

int failure_reason_from_string(const char *s, Chronos__V1__FailureReason *ret) {
    ASSERT(s);
    ASSERT(ret);
    for (size_t i = 0; i < ARRAY_LEN(reason_names); i++) {
        if (strcmp(s, reason_names[i]) == 0) {
            *ret = (Chronos__V1__FailureReason) i;
            return 0;
        }
    }
    return 1;
}

const char *job_event_to_string(enum job_event e) {
    ASSERT(e < JOB_EVENT_COUNT);
    return event_names[e];
}
