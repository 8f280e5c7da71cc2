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
    struct overlay_entry *e;
    struct buf old;
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
    r = workers_open_record(f, s->worker_id, &e);
    if (r < 0)
        return r;
    if (!e->exists) {
        errtext_set(a->err, "record of worker %s: missing from the store", w->id);
        return ERR_CORRUPT;
    }
    buf_init(&old, FSM_RECORD_BYTES_MAX); /* the new content is made from the old */
    r = buf_append(&old, overlay_value(e).data, overlay_value(e).len);
    if (r == 0)
        r = workers_put(f, a, w, slice_of(old.data, old.len));
    buf_done(&old);
    res->code = FSM_OK;
    f->output.workers_changed = true;
    return r;
}
