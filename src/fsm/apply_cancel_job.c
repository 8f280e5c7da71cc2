/* CancelJob.
 *
 * "A pending job becomes Cancelled at once; a running one when its processes are gone." "Cancel
 * acked -> no new attempt starts" (J19): from here on no event leads a flagged job back to PENDING.
 */
#include "fsm/fsm_internal.h"

int apply_cancel_job(struct fsm *f, struct apply *a, const void *item, struct slice raw,
                     struct fsm_result *res) {
    const struct item_cancel *s = item;
    struct fsm_job *j = u64map_get(&f->jobs, s->job_seq);
    struct overlay_entry *e;
    struct record_job rec;
    int r;

    (void) raw;
    res->job_seq = s->job_seq;
    if (!j) {
        bool known = s->job_seq > 0 && s->job_seq < f->next_seq;

        res->code = known ? FSM_TERMINAL : FSM_NOT_FOUND;
        return 0;
    }
    res->code = FSM_OK;
    if (j->cancel_requested)
        return 0; /* asked before: the same answer, no second event */
    r = jobs_load(f, a, j->seq, &rec, &e);
    if (r < 0)
        return r;
    ASSERT((Chronos__V1__JobState) rec.state == j->state);
    ASSERT(!rec.cancel_requested);
    rec.cancel_requested = true;
    j->cancel_requested = true;
    return jobs_transition(f, a, j, &rec, e, JOB_EVENT_CANCEL);
}
