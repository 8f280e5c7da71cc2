/* The life of a job as a table: which event is legal in which state, and where it leads.
 *
 *                 SUBMIT
 *                    |
 *                    v        ASSIGN
 *   +----------- PENDING ----------------> RUNNING --+ CANCEL (only asks: stays RUNNING)
 *   |            ^      |                  |  |  ^---+
 *   | CANCEL     |      |                  |  |
 *   |            +------|------------------+  |
 *   |         RELEASE, LOSE_RETRY             |
 *   |                                         |
 *   |        +---------------+----------------+----------------+
 *   |        | COMPLETE      | FAIL           | REPORT_CANCELLED
 *   |        v               | LOSE_FINAL     | LOSE_CANCELLED
 *   |    COMPLETED           v                v
 *   |                     FAILED          CANCELLED
 *   +-----------------------------------------^
 *
 * COMPLETED, FAILED and CANCELLED are absorbing: no event leaves them (reliability.md J16).
 * What it is not: it moves no job; jobs_transition (fsm_internal.h) is the only setter.
 * Pure. */
#pragma once

#include "base/defs.h"

#include "chronos/v1/job.pb-c.h"

enum job_event {
    JOB_EVENT_SUBMIT = 0,
    JOB_EVENT_ASSIGN,
    JOB_EVENT_COMPLETE,         /* the worker reports exit code 0 */
    JOB_EVENT_FAIL,             /* the worker reports a failure */
    JOB_EVENT_REPORT_CANCELLED, /* the worker reports that the cancelled attempt is gone */
    JOB_EVENT_RELEASE,          /* the worker gave it back: no attempt burned (C36) */
    JOB_EVENT_CANCEL,           /* a client asks */
    JOB_EVENT_LOSE_RETRY,       /* its worker is lost, attempts are left */
    JOB_EVENT_LOSE_FINAL,       /* its worker is lost with the last attempt, or gave back
                                   the only one (J14) */
    JOB_EVENT_LOSE_CANCELLED,   /* its worker is lost and cancel was requested (J19) */
    JOB_EVENT_COUNT
};

#define JOB_STATE_COUNT 6 /* with UNSPECIFIED = 0: not yet submitted */

/* The state after @event, or CHRONOS__V1__JOB_STATE__JOB_STATE_UNSPECIFIED when it is illegal. */
Chronos__V1__JobState job_state_next(Chronos__V1__JobState from, enum job_event event);

bool job_state_is_terminal(Chronos__V1__JobState s);

/* "pending", "running", "completed", "failed", "cancelled"; "unspecified" for 0; "unknown" for what
 * this program does not know. Static storage. */
const char *job_state_to_string(Chronos__V1__JobState s);
/* 0 with *ret, or 1 when @s names no state ("unspecified" and "unknown" name none). */
int job_state_from_string(const char *s, Chronos__V1__JobState *ret) _must_check_;

/* "exit_code", "signal", "timeout", "start", "worker_lost", "output_limit"; "none" for 0;
 * "unknown". */
const char *failure_reason_to_string(Chronos__V1__FailureReason r);
/* 0 with *ret ("none" gives 0), or 1. */
int failure_reason_from_string(const char *s, Chronos__V1__FailureReason *ret) _must_check_;

/* "submit", "assign" ...: for traces and test output. */
const char *job_event_to_string(enum job_event e);
