/* UpdateJobStatus and each item of BatchUpdateJobStatus: what a worker says has become of an
 * attempt.
 *
 * "Completion with a stale token is refused and changes nothing" (C25). "Exactly one accepted
 * result per attempt; repeated identical completion -> same OK" (J12): a worker repeats its report
 * until a committed entry acknowledges it, so a report for a job that this very attempt ended is OK
 * again. */
#include "fsm/fsm_internal.h"

static const char once_message[] =
    "its worker was stopped while it ran, and it may be started only once";

/* Cut to the limit, not inside a character. */
static struct slice cut_message(struct slice s) {
    return slice_of(s.data, utf8_cut(s, FSM_MESSAGE_BYTES_MAX));
}

/* The last bytes are the ones worth keeping. */
static struct slice cut_tail(struct slice s) {
    if (s.len <= FSM_OUTPUT_TAIL_BYTES_MAX)
        return s;
    return slice_of(s.data + (s.len - FSM_OUTPUT_TAIL_BYTES_MAX), FSM_OUTPUT_TAIL_BYTES_MAX);
}

static bool known_reason(int32_t r) {
    return r > CHRONOS__V1__FAILURE_REASON__FAILURE_REASON_UNSPECIFIED &&
           r <= CHRONOS__V1__FAILURE_REASON__FAILURE_REASON_OUTPUT_LIMIT;
}

/* Which event a report is, and what it leaves in the record. JOB_EVENT_COUNT: none we know. */
static enum job_event take_outcome(const struct item_update *s, struct record_job *rec) {
    ASSERT((Chronos__V1__JobState) rec->state == S_RUNNING);
    ASSERT(rec->failure_reason == 0);
    switch ((Chronos__V1__AttemptOutcome) s->outcome) {
    case CHRONOS__V1__ATTEMPT_OUTCOME__ATTEMPT_OUTCOME_COMPLETED:
        return JOB_EVENT_COMPLETE;
    case CHRONOS__V1__ATTEMPT_OUTCOME__ATTEMPT_OUTCOME_FAILED:
        if (!known_reason(s->reason))
            return JOB_EVENT_COUNT;
        rec->failure_reason = s->reason;
        return JOB_EVENT_FAIL;
    case CHRONOS__V1__ATTEMPT_OUTCOME__ATTEMPT_OUTCOME_CANCELLED:
        if (rec->cancel_requested)
            return JOB_EVENT_REPORT_CANCELLED;
        rec->failure_reason = CHRONOS__V1__FAILURE_REASON__FAILURE_REASON_SIGNAL;
        return JOB_EVENT_FAIL; /* nobody asked: somebody else killed it */
    case CHRONOS__V1__ATTEMPT_OUTCOME__ATTEMPT_OUTCOME_RELEASED:
        /* J19: given back after it was cancelled is as good as gone. */
        if (rec->cancel_requested)
            return JOB_EVENT_REPORT_CANCELLED;
        /* J14: at most once. What was started may have had its effect. */
        if (s->started && rec->max_attempts == 1) {
            rec->lost_attempts++;
            rec->failure_reason = CHRONOS__V1__FAILURE_REASON__FAILURE_REASON_WORKER_LOST;
            return JOB_EVENT_LOSE_FINAL;
        }
        rec->released_attempts++; /* C36: burns nothing, so it is counted apart */
        return JOB_EVENT_RELEASE;
    case CHRONOS__V1__ATTEMPT_OUTCOME__ATTEMPT_OUTCOME_UNSPECIFIED:
    case _CHRONOS__V1__ATTEMPT_OUTCOME_IS_INT_SIZE:
        break;
    }
    return JOB_EVENT_COUNT;
}

/* True when the job ended as this report says. It need not have ended by it: an attempt whose
 * worker was lost has its token still, and its late result must not look accepted. */
static bool ended_like(const struct record_job *rec, const struct item_update *s) {
    switch ((Chronos__V1__AttemptOutcome) s->outcome) {
    case CHRONOS__V1__ATTEMPT_OUTCOME__ATTEMPT_OUTCOME_COMPLETED:
        return rec->state == S_COMPLETED;
    case CHRONOS__V1__ATTEMPT_OUTCOME__ATTEMPT_OUTCOME_FAILED:
        return rec->state == S_FAILED && rec->failure_reason == s->reason;
    case CHRONOS__V1__ATTEMPT_OUTCOME__ATTEMPT_OUTCOME_CANCELLED:
        return rec->state == S_CANCELLED ||
               (rec->state == S_FAILED &&
                rec->failure_reason == CHRONOS__V1__FAILURE_REASON__FAILURE_REASON_SIGNAL);
    case CHRONOS__V1__ATTEMPT_OUTCOME__ATTEMPT_OUTCOME_RELEASED:
        return rec->state == S_CANCELLED ||
               (s->started && rec->max_attempts == 1 && rec->state == S_FAILED &&
                rec->failure_reason == CHRONOS__V1__FAILURE_REASON__FAILURE_REASON_WORKER_LOST);
    case CHRONOS__V1__ATTEMPT_OUTCOME__ATTEMPT_OUTCOME_UNSPECIFIED:
    case _CHRONOS__V1__ATTEMPT_OUTCOME_IS_INT_SIZE:
        break;
    }
    return false;
}

/* Not live: ended by this attempt already, or stale. */
static int answer_late(struct fsm *f, struct apply *a, const struct item_update *s,
                       struct fsm_result *res) {
    struct record_job rec;
    int r;

    r = jobs_read_ended(f, a, s->job_seq, &rec);
    if (r < 0)
        return r;
    if (r == STORE_NOT_FOUND)
        res->code = FSM_NOT_FOUND;
    else
        res->code =
            s->fencing_token > 0 && rec.fencing_token == s->fencing_token && ended_like(&rec, s)
                ? FSM_OK
                : FSM_STALE;
    return 0;
}

int apply_update_job_status(struct fsm *f, struct apply *a, const void *item, struct slice raw,
                            struct fsm_result *res) {
    const struct item_update *s = item;
    struct fsm_job *j = u64map_get(&f->jobs, s->job_seq);
    struct overlay_entry *e;
    struct record_job rec;
    enum job_event event;
    int r;

    ASSERT(res);
    ASSERT(raw.len >= s->output_tail.len);
    res->job_seq = s->job_seq;
    if (!j)
        return answer_late(f, a, s, res);
    if (j->state != S_RUNNING || j->fencing_token != s->fencing_token) {
        res->code = FSM_STALE;
        return 0;
    }
    r = jobs_load(f, a, j, &rec, &e);
    if (r < 0)
        return r;
    event = take_outcome(s, &rec);
    if (event == JOB_EVENT_COUNT) {
        res->code = FSM_REFUSED;
        return 0;
    }
    res->code = FSM_OK;
    if (event != JOB_EVENT_RELEASE) { /* a try that did not happen leaves a count only */
        rec.failure_message = event == JOB_EVENT_LOSE_FINAL
                                  ? slice_of(once_message, sizeof(once_message) - 1)
                                  : cut_message(s->message);
        rec.exit_code = s->exit_code;
        rec.term_signal = s->term_signal;
        rec.output_tail = cut_tail(s->output_tail);
        rec.output_bytes = s->output_bytes;
        rec.output_truncated = s->output_truncated;
    }
    return jobs_transition(f, a, j, &rec, e, event);
}
