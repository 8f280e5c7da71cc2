/* PutSchedule.
 *
 * "Editing a schedule bumps its generation, evaluates from the edit on, fires nothing of the past"
 * (C13, J27): a new generation begins with the watermark at the edit's own now, and what still
 * waits of the old one comes to nothing, recorded. Ticks that were due by then and had no outcome
 * yet (delayed by their spread, behind others that are caught up on) are known to who proposes the
 * edit only; its ScheduleHandover says which of them come to nothing, recorded as well (J5), and
 * puts the watermark before those that are still to come ("drops no pending next run"). */
#include "fsm/schedule_internal.h"

#include <errno.h>

#define REQUEST_HASH_BYTES_MAX 64
/* Between an edit's instant and its apply: what the hand-over calls still to come may be late by
 * as much, and what became due in between is not in it. */
#define HANDOVER_MS_MAX 5000

/* NULL, or why the item is no definition. */
static const char *unacceptable(const struct item_put_schedule *s) {
    if (!schedules_name_ok(s->name))
        return "name: 1 to 128 of A-Z a-z 0-9 . _ -";
    if (s->spec.len + s->job.len > FSM_SCHEDULE_BYTES_MAX)
        return "spec: with its job at most 1 MiB";
    if (s->queue.len > FSM_IDEMPOTENCY_KEY_BYTES_MAX)
        return "queue: at most 128 bytes";
    if (s->idempotency_key.len > FSM_IDEMPOTENCY_KEY_BYTES_MAX ||
        s->request_hash.len > REQUEST_HASH_BYTES_MAX)
        return "idempotency_key: at most 128 bytes";
    if (s->overlap < (int32_t) OVERLAP(SKIP) || s->overlap > (int32_t) OVERLAP(ALLOW))
        return "overlap: no known policy";
    return NULL;
}

/* The definition's part of the record. */
static void define(struct record_schedule *rec, const struct item_put_schedule *s, int64_t now_ms) {
    rec->name = s->name;
    rec->spec = s->spec;
    rec->job = s->job;
    rec->max_attempts = s->max_attempts ? s->max_attempts : FSM_MAX_ATTEMPTS_DEFAULT;
    rec->queue = s->queue;
    rec->overlap = s->overlap;
    rec->pause_on_failure = s->pause_on_failure;
    rec->max_runs = s->max_runs;
    rec->updated_at_ms = now_ms;
    rec->version++;
}

static int put_name(struct fsm *f, struct slice name, uint64_t seq) {
    struct record_name rec = {.seq = seq};
    uint8_t key[RECORD_KEY_BYTES_MAX];
    struct overlay_entry *e;
    int r;

    r = store_open(f, record_name_key('i', name, key), &e);
    if (r < 0)
        return r;
    ASSERT(!e->exists);
    r = record_encode(&record_shape_name, &rec, &f->encode);
    return r < 0 ? r : store_put(f, e, slice_of(f->encode.data, f->encode.len));
}

static int create(struct fsm *f, struct apply *a, const struct item_put_schedule *s,
                  struct fsm_result *res) {
    uint64_t seq = f->last_schedule_seq + 1;
    struct fsm_schedule *view;
    struct record_schedule *rec = &f->work.rec;
    int r;

    view = schedules_new(f, seq);
    if (!view)
        return -ENOMEM;
    f->last_schedule_seq = seq;
    r = schedule_load_new(f, view);
    if (r < 0)
        return r;
    define(rec, s, a->now_ms);
    rec->version = a->index; /* above each that the name had before, so that none ever repeats */
    rec->generation = 1;
    rec->created_at_ms = a->now_ms;
    rec->watermark_s = a->now_ms / 1000;
    rec->paused = s->paused;
    rec->next_ordinal = rec->first_ordinal = 1;
    res->schedule_seq = seq;
    res->version = rec->version;
    r = put_name(f, s->name, seq);
    return r < 0 ? r : schedule_store(f, a, FSM_SCHEDULE_PUT);
}

/* A hand-over is of this very watermark, and of now. What it says is nonsense otherwise, too. */
static bool fits(const struct item_handover *h, const struct record_schedule *rec, int64_t now_ms) {
    if (h->from_s != rec->watermark_s || h->at_ms > now_ms || h->at_ms < now_ms - HANDOVER_MS_MAX)
        return false;
    if (h->watermark_s < h->from_s || h->watermark_s > MAX(h->at_ms / 1000, h->from_s))
        return false;
    return h->count == 0 ||
           (h->first_s > h->from_s && h->last_s >= h->first_s && h->last_s <= h->at_ms / 1000 &&
            h->count - 1 <= (uint64_t) (h->last_s - h->first_s));
}

static int hand_over(struct fsm *f, struct apply *a, const struct item_handover *h) {
    struct outcome o = {.tick_s = h->first_s,
                        .last_tick_s = h->last_s,
                        .count = h->count,
                        .cause = REASON(DELETED),
                        .reason = REASON(DELETED)};

    return h->count > 0 ? history_add(f, a, &o, NULL) : 0;
}

/* @h NULL: whoever proposed knows of no tick that has no outcome. */
static int begin_generation(struct fsm *f, struct apply *a, const struct item_handover *h) {
    struct record_schedule *rec = &f->work.rec;
    int r = 0;

    if (!h || !h->keep_waiting)
        r = schedule_drop_waits(f, a, REASON(DELETED));
    if (r == 0 && h)
        r = hand_over(f, a, h);
    rec->generation++;
    rec->watermark_s = h ? h->watermark_s : MAX(rec->watermark_s, a->now_ms / 1000);
    return r;
}

static int replace(struct fsm *f, struct apply *a, const struct item_put_schedule *s,
                   struct fsm_schedule *view, struct fsm_result *res) {
    struct record_schedule *rec = &f->work.rec;
    struct item_handover h = {0};
    size_t at = 0;
    int r;

    r = record_decode(&record_shape_handover, s->handover, &h, &at);
    if (r == 0)
        r = schedule_load(f, a, view);
    if (r < 0)
        return r;
    res->schedule_seq = rec->seq;
    res->version = rec->version;
    if ((s->version != 0 && s->version != rec->version) ||
        (s->handover.len > 0 && !fits(&h, rec, a->now_ms))) {
        f->work.view = NULL;
        res->code = FSM_VERSION_MISMATCH;
        return 0;
    }
    if (s->new_generation)
        r = begin_generation(f, a, s->handover.len > 0 ? &h : NULL);
    define(rec, s, a->now_ms);
    res->version = rec->version;
    if (r == 0)
        r = schedule_settle(f, a); /* the new policy may let them run */
    return r < 0 ? r : schedule_store(f, a, FSM_SCHEDULE_PUT);
}

static int create_keyed(struct fsm *f, struct apply *a, const struct item_put_schedule *s,
                        struct fsm_schedule *view, struct fsm_result *res) {
    struct record_key key;
    int r;

    r = keys_check(f, a, s->idempotency_key, s->request_hash, &key, &res->code);
    if (r < 0)
        return r;
    if (res->code != FSM_OK) {
        res->schedule_seq = key.schedule_seq;
        res->job_seq = key.schedule_seq ? 0 : key.job_seq;
        if (res->code == FSM_EXISTING && key.schedule_seq == 0)
            res->code = FSM_KEY_CONFLICT; /* a job's */
        return 0;
    }
    if (view) {
        res->code = FSM_NAME_TAKEN;
        res->schedule_seq = view->seq;
        return 0;
    }
    if (f->schedules.count >= FSM_SCHEDULES_MAX) {
        refuse(res, "the cluster has as many schedules as it can");
        return 0;
    }
    r = create(f, a, s, res);
    if (r == 0 && s->idempotency_key.len > 0) {
        key = (struct record_key){.request_hash = s->request_hash,
                                  .job_seq = f->next_seq++,
                                  .created_at_ms = a->now_ms,
                                  .schedule_seq = res->schedule_seq};
        r = keys_remember(f, s->idempotency_key, &key);
    }
    return r;
}

int apply_put_schedule(struct fsm *f, struct apply *a, const void *item, struct slice raw,
                       struct fsm_result *res) {
    const struct item_put_schedule *s = item;
    const char *why = unacceptable(s);
    struct fsm_schedule *view = NULL;
    int r;

    (void) raw;
    if (why) {
        refuse(res, why);
        return 0;
    }
    r = schedules_find(f, s->name, &view, a->err);
    if (r < 0)
        return r;
    if (s->create)
        return create_keyed(f, a, s, view, res);
    if (!view) {
        res->code = FSM_NOT_FOUND;
        return 0;
    }
    return replace(f, a, s, view, res);
}
