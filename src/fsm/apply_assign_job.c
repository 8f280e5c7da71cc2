/* AssignJob.
 *
 * "Assignment = (execution, attempt n, fencing epoch = log index); epoch strictly grows; at most
 * one live assignment per execution" (J11, C25). "running(worker) <= slots" (J18). The leader
 * proposed it on what it knew then; here it is decided again on what is true now. */
#include "fsm/fsm_internal.h"

int apply_assign_job(struct fsm *f, struct apply *a, const void *item, struct slice raw,
                     struct fsm_result *res) {
    const struct item_assign *s = item;
    struct fsm_job *j = u64map_get(&f->jobs, s->job_seq);
    struct fsm_worker *w = workers_find(f, s->worker_id);
    struct overlay_entry *e;
    struct record_job rec;
    int r;

    (void) raw;
    res->job_seq = s->job_seq;
    if (!j && (s->job_seq == 0 || s->job_seq >= f->next_seq)) {
        res->code = FSM_NOT_FOUND;
        return 0;
    }
    if (!j || j->state != S_PENDING) {
        res->code = FSM_NOT_PENDING;
        return 0;
    }
    if (!w || w->lost || w->incarnation != s->worker_incarnation || w->running >= w->slots) {
        res->code = FSM_WORKER_GONE;
        return 0;
    }
    if (w->draining) { /* C36; the plan was made before the leader knew */
        res->code = FSM_WORKER_DRAINING;
        return 0;
    }
    r = jobs_load(f, a, j, &rec, &e);
    if (r < 0)
        return r;
    ASSERT(a->index > rec.fencing_token);
    ASSERT(!rec.cancel_requested);
    rec.attempt++;
    rec.fencing_token = a->index;
    rec.worker_id = slice_of(w->id, s->worker_id.len);
    rec.started_at_ms = a->now_ms;
    j->attempt = rec.attempt;
    j->fencing_token = rec.fencing_token;
    j->worker = w;
    res->code = FSM_OK;
    return jobs_transition(f, a, j, &rec, e, JOB_EVENT_ASSIGN);
}
