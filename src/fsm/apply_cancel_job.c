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

    (void) raw;
    res->job_seq = s->job_seq;
    if (!j) {
        bool known = s->job_seq > 0 && s->job_seq < f->next_seq;

        res->code = known ? FSM_TERMINAL : FSM_NOT_FOUND;
        return 0;
    }
    ASSERT(res->code == FSM_OK);
    return jobs_cancel(f, a, j, false);
}
