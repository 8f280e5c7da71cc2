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
    if (!j) { /* the number may have gone to the key of a schedule: then there never was a job */
        struct record_job rec;
        int r = jobs_read_ended(f, a, s->job_seq, &rec);

        res->code = r == STORE_NOT_FOUND ? FSM_NOT_FOUND : FSM_TERMINAL;
        return MIN(r, 0);
    }
    ASSERT(res->code == FSM_OK);
    return jobs_cancel(f, a, j, false);
}
