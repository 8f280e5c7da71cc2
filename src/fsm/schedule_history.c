/* The outcomes of a schedule's ticks, one line each, and what an apply tells of them.
 *
 * "Each tick not run is recorded with its reason, kept like history" (C12), 100 lines and 30 days
 * (C38). Ticks that follow each other and were skipped for one reason share a line, so that a pause
 * does not push out what ran before it. Thread: the loop. */
#include "fsm/schedule_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

static int emit(struct fsm *f, const struct outcome *o, uint64_t ordinal) {
    const struct schedule_work *w = &f->work;

    if (f->output.ticks_count == f->ticks_cap) {
        size_t cap = f->ticks_cap ? f->ticks_cap * 2 : 64;
        struct fsm_tick *ticks = realloc(f->ticks, cap * sizeof(*ticks));

        if (!ticks)
            return -ENOMEM;
        f->ticks = ticks;
        f->ticks_cap = cap;
    }
    f->ticks[f->output.ticks_count++] = (struct fsm_tick){
        .schedule_seq = w->rec.seq,
        .generation = w->rec.generation,
        .ordinal = ordinal,
        .tick_s = o->tick_s,
        .last_tick_s = o->last_tick_s,
        .count = o->count,
        .reason = (Chronos__V1__TickReason) o->reason,
        .cause = (Chronos__V1__TickReason) o->cause,
        .fired = o->fired,
        .waiting = o->waiting,
        .job_seq = o->job_seq,
    };
    return 0;
}

static int corrupt(struct apply *a, uint64_t seq, uint64_t ordinal, const char *what) {
    errtext_set(a->err, "line %" PRIu64 " of the history of schedule %" PRIu64 ": %s", ordinal, seq,
                what);
    return ERR_CORRUPT;
}

static int open_line(struct fsm *f, struct apply *a, uint64_t ordinal, struct record_tick *ret,
                     struct overlay_entry **ret_entry) {
    uint8_t key[RECORD_TICK_KEY_BYTES];
    uint64_t seq = f->work.rec.seq;
    size_t at = 0;
    int r;

    r = store_open(f, record_tick_key(seq, ordinal, key), ret_entry);
    if (r < 0)
        return r;
    if ((*ret_entry)->exists &&
        record_decode(&record_shape_tick, overlay_value(*ret_entry), ret, &at) == 0)
        return 0;
    return corrupt(a, seq, ordinal, (*ret_entry)->exists ? "malformed" : "missing from the store");
}

static int put_line(struct fsm *f, const struct record_tick *rec, struct overlay_entry *e) {
    int r = record_encode(&record_shape_tick, rec, &f->encode);

    return r < 0 ? r : store_put(f, e, slice_of(f->encode.data, f->encode.len));
}

static struct record_tick line_of(const struct fsm *f, const struct apply *a,
                                  const struct outcome *o) {
    ASSERT(o->count > 0);
    ASSERT(o->last_tick_s >= o->tick_s);
    ASSERT(o->fired == (o->reason < (int32_t) REASON_NOT_RUN_FIRST));
    return (struct record_tick){
        .tick_s = o->tick_s,
        .last_tick_s = o->last_tick_s,
        .count = o->count,
        .fired = o->fired,
        .waiting = o->waiting,
        .reason = o->reason,
        .job_seq = o->job_seq,
        .decided_at_ms = a->now_ms,
        .generation = f->work.rec.generation,
        .cause = o->cause,
    };
}

/* Put @o into the newest line. 1: it is another kind of line. */
static int extend(struct fsm *f, struct apply *a, const struct outcome *o, uint64_t ordinal) {
    struct overlay_entry *e;
    struct record_tick rec;
    int r;

    r = open_line(f, a, ordinal, &rec, &e);
    if (r < 0)
        return r;
    if (rec.fired || rec.reason != o->reason || rec.cause != o->cause ||
        rec.job_seq != o->job_seq || rec.generation != f->work.rec.generation ||
        rec.last_tick_s >= o->tick_s)
        return 1;
    rec.last_tick_s = o->last_tick_s;
    rec.count += o->count;
    rec.decided_at_ms = a->now_ms;
    return put_line(f, &rec, e);
}

/* Keep the newest 100, and of those none older than 30 days but the newest. */
static int trim(struct fsm *f, struct apply *a) {
    struct record_schedule *s = &f->work.rec;
    struct overlay_entry *e;
    struct record_tick rec;
    int r;

    while (s->next_ordinal - s->first_ordinal > 1) {
        r = open_line(f, a, s->first_ordinal, &rec, &e);
        if (r < 0)
            return r;
        if (s->next_ordinal - s->first_ordinal <= FSM_SCHEDULE_HISTORY_MAX &&
            a->now_ms - rec.decided_at_ms <= FSM_SCHEDULE_HISTORY_MS)
            return 0;
        store_delete(f, e);
        s->first_ordinal++;
    }
    return 0;
}

int history_add(struct fsm *f, struct apply *a, const struct outcome *o, uint64_t *ret_ordinal) {
    struct record_schedule *s = &f->work.rec;
    uint8_t key[RECORD_TICK_KEY_BYTES];
    struct record_tick rec = line_of(f, a, o);
    struct overlay_entry *e;
    int r = 1;

    ASSERT(f->work.view);
    if (!o->fired)
        s->skipped += o->count;
    if (!o->fired && !schedules_by_hand(o->cause) && s->next_ordinal > s->first_ordinal)
        r = extend(f, a, o, s->next_ordinal - 1);
    if (r < 0)
        return r;
    if (r == 0)
        return emit(f, o, s->next_ordinal - 1);
    r = store_create(f, record_tick_key(s->seq, s->next_ordinal, key), &e);
    if (r == 0)
        r = put_line(f, &rec, e);
    if (r == 0)
        r = emit(f, o, s->next_ordinal);
    if (ret_ordinal)
        *ret_ordinal = s->next_ordinal;
    s->next_ordinal++;
    return r < 0 ? r : trim(f, a);
}

int history_complete(struct fsm *f, struct apply *a, uint64_t ordinal, const struct outcome *o) {
    struct record_schedule *s = &f->work.rec;
    struct overlay_entry *e;
    struct record_tick rec;
    int r;

    ASSERT(!o->waiting);
    ASSERT(ordinal < s->next_ordinal);
    if (ordinal < s->first_ordinal)
        return history_add(f, a, o, NULL);
    r = open_line(f, a, ordinal, &rec, &e);
    if (r < 0)
        return r;
    if (!rec.waiting || rec.tick_s != o->tick_s)
        return corrupt(a, s->seq, ordinal, "not of the tick that waits");
    if (!o->fired)
        s->skipped += o->count;
    rec = line_of(f, a, o);
    r = put_line(f, &rec, e);
    return r < 0 ? r : emit(f, o, ordinal);
}

int history_drop_all(struct fsm *f, struct apply *a) {
    struct record_schedule *s = &f->work.rec;
    uint8_t key[RECORD_TICK_KEY_BYTES];
    struct overlay_entry *e;
    int r;

    for (; s->first_ordinal < s->next_ordinal; s->first_ordinal++) {
        r = store_open(f, record_tick_key(s->seq, s->first_ordinal, key), &e);
        if (r < 0)
            return r;
        if (!e->exists)
            return corrupt(a, s->seq, s->first_ordinal, "missing from the store");
        store_delete(f, e);
    }
    return 0;
}
