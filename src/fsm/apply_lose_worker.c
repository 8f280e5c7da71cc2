/* LoseWorker.
 *
 * "A worker silent for 15 s loses its attempts through a log entry: back to Pending with the next
 * attempt number and a new fencing token, or Failed (worker_lost) at max_attempts." "Lease expiry
 * only by log entry" (J13). The incarnation keeps a late entry from hitting the worker's successor.
 */
#include "fsm/fsm_internal.h"

int apply_lose_worker(struct fsm *f, struct apply *a, const void *item, struct slice raw,
                      struct fsm_result *res) {
    const struct item_lose *s = item;
    struct fsm_worker *w = workers_find(f, s->worker_id);
    int r;

    (void) raw;
    if (!w || w->lost || w->incarnation != s->incarnation) {
        res->code = w ? FSM_WORKER_GONE : FSM_NOT_FOUND;
        return 0;
    }
    while (w->first_job) {
        r = jobs_lose(f, a, w->first_job);
        if (r < 0)
            return r;
    }
    ASSERT(w->running == 0);
    ASSERT(!w->last_job);
    w->lost = true;
    res->code = FSM_OK;
    f->output.workers_changed = true;
    return workers_put_again(f, a, w);
}
