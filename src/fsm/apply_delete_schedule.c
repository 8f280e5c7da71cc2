/* DeleteSchedule: the definition, its state and its history are gone. Open runs go on, or are asked
 * to stop; they end as jobs of their own. A tick that waited is told to have come to nothing. */
#include "fsm/schedule_internal.h"

#include <inttypes.h>

static int drop(struct fsm *f, struct apply *a, struct slice key) {
    struct overlay_entry *e;
    int r = store_open(f, key, &e);

    if (r < 0)
        return r;
    if (!e->exists) {
        errtext_set(a->err, "record %c of schedule %" PRIu64 ": missing from the store",
                    key.data[0], f->work.rec.seq);
        return ERR_CORRUPT;
    }
    store_delete(f, e);
    return 0;
}

static int drop_records(struct fsm *f, struct apply *a) {
    uint8_t key[RECORD_KEY_BYTES_MAX], seq_key[RECORD_SCHEDULE_KEY_BYTES];
    struct schedule_work *w = &f->work;
    int r;

    r = history_drop_all(f, a);
    if (r == 0)
        r = drop(f, a, record_name_key('i', w->rec.name, key));
    if (r == 0)
        r = drop(f, a, record_schedule_key(w->rec.seq, seq_key));
    return r;
}

int apply_delete_schedule(struct fsm *f, struct apply *a, const void *item, struct slice raw,
                          struct fsm_result *res) {
    const struct item_delete_schedule *s = item;
    struct schedule_work *w = &f->work;
    struct fsm_schedule *view = NULL;
    int r;

    (void) raw;
    r = schedules_find(f, s->name, &view, a->err);
    if (r < 0)
        return r;
    if (!view) {
        res->code = FSM_NOT_FOUND;
        return 0;
    }
    r = schedule_load(f, a, view);
    if (r < 0)
        return r;
    res->schedule_seq = w->rec.seq;
    res->version = w->rec.version;
    if (s->version != 0 && s->version != w->rec.version) {
        w->view = NULL;
        res->code = FSM_VERSION_MISMATCH;
        return 0;
    }
    r = schedule_drop_waits(f, a, REASON(DELETED));
    if (r == 0 && s->cancel_open_runs)
        r = schedule_cancel_runs(f, a, false);
    if (r == 0)
        r = drop_records(f, a);
    if (r < 0)
        return r;
    schedules_remove(f, view);
    w->view = NULL;
    return schedules_emit(f, res->schedule_seq, FSM_SCHEDULE_REMOVED);
}
