/* ProcessTicks, each item the ticks of one schedule.
 *
 * "A tick's job is created by an idempotent command keyed (schedule id, generation, tick); a second
 * one is a no-op" (C10, J4): the watermark tells which have their outcome. "The log keeps a
 * watermark: the last instant processed" (C9): it moves with the outcomes, in one entry. */
#include "fsm/schedule_internal.h"

/* The next tick of the item. 0, WIRE_END; the bytes were checked when the command entered the log,
 * so malformed ones are an error. */
static int next_tick(struct wire_reader *r, struct item_tick *ret) {
    struct wire_field field;
    size_t at;
    int res;

    while ((res = wire_next(r, &field)) == 0) {
        if (field.number != ITEM_TICKS_TICK || field.type != WIRE_LEN)
            continue;
        res = record_decode(&record_shape_item_tick, field.bytes, ret, &at);
        if (res < 0)
            return res;
        if (ret->last_tick_s == 0)
            ret->last_tick_s = ret->tick_s;
        if (ret->count == 0)
            ret->count = 1;
        return 0;
    }
    return res;
}

static bool known_reason(const struct item_tick *t) {
    bool range = t->last_tick_s != t->tick_s || t->count != 1;

    switch ((Chronos__V1__TickReason) t->reason) {
    case REASON(ON_TIME):
    case REASON(FAILOVER):
    case REASON(CATCH_UP):
        return !range;
    case REASON(WINDOW):
    case REASON(MISSED):
    case REASON(PAUSED):
    case REASON(CAP):
    case REASON(EXPIRED):
        return true;
    case REASON(UNSPECIFIED):
    case REASON(TRIGGER):
    case REASON(BACKFILL):
    case REASON(BUFFERED):
    case REASON(OVERLAP):
    case REASON(DELETED):
    case _CHRONOS__V1__TICK_REASON_IS_INT_SIZE:
        break;
    }
    return false;
}

/* Everything that can be wrong is found before anything is changed. *ret_why: NULL or why not. */
static int check(const struct apply *a, const struct item_ticks *s, struct slice raw,
                 int64_t watermark_s, const char **ret_why) {
    struct wire_reader reader = wire_reader_of(raw);
    int64_t before_s = -1;
    struct item_tick t;
    int r;

    *ret_why = NULL;
    if (s->watermark_s > a->now_ms / 1000)
        *ret_why = "watermark_s: after now";
    while ((r = next_tick(&reader, &t)) == 0 && !*ret_why) {
        if (t.tick_s <= before_s || t.last_tick_s < t.tick_s ||
            t.count - 1 > (uint64_t) (t.last_tick_s - t.tick_s))
            *ret_why = "ticks: must ascend, and cover no more than there are seconds";
        else if (t.last_tick_s > s->watermark_s)
            *ret_why = "ticks: after the watermark they bring"; /* J7: so none is after now */
        else if (t.tick_s <= watermark_s && t.last_tick_s > watermark_s)
            *ret_why = "ticks: some of a run of ticks have their outcome";
        else if (!known_reason(&t))
            *ret_why = "reason: none that the leader decides, or a run of ticks that are to fire";
        before_s = t.last_tick_s;
    }
    return r < 0 ? r : 0;
}

static bool too_much(const struct fsm *f, const struct apply *a, const struct item_tick *t) {
    return t->reason < (int32_t) REASON_NOT_RUN_FIRST && a->created_bytes > 0 &&
           a->created_bytes + f->work.rec.job.len > FSM_CREATED_BYTES_MAX;
}

static int process(struct fsm *f, struct apply *a, const struct item_ticks *s, struct slice raw,
                   struct fsm_result *res) {
    struct wire_reader reader = wire_reader_of(raw);
    struct record_schedule *rec = &f->work.rec;
    struct item_tick t;
    int r;

    while ((r = next_tick(&reader, &t)) == 0) {
        if (t.tick_s <= rec->watermark_s)
            continue;
        if (too_much(f, a, &t)) {
            res->code = FSM_PARTIAL;
            return 0;
        }
        if (t.reason < (int32_t) REASON_NOT_RUN_FIRST) {
            r = schedule_decide(f, a, t.tick_s, t.reason, false);
        } else {
            struct outcome o = {.tick_s = t.tick_s,
                                .last_tick_s = t.last_tick_s,
                                .count = t.count,
                                .cause = t.reason,
                                .reason = t.reason};

            r = history_add(f, a, &o, NULL);
        }
        if (r < 0)
            return r;
        rec->watermark_s = t.last_tick_s;
    }
    if (r < 0)
        return r;
    rec->watermark_s = s->watermark_s;
    return 0;
}

int apply_process_ticks(struct fsm *f, struct apply *a, const void *item, struct slice raw,
                        struct fsm_result *res) {
    const struct item_ticks *s = item;
    struct fsm_schedule *view = u64map_get(&f->schedules, s->schedule_seq);
    const char *why;
    int r;

    res->schedule_seq = s->schedule_seq;
    if (!view) {
        res->code = FSM_NOT_FOUND;
        return 0;
    }
    if (s->generation != view->generation || s->watermark_s <= view->watermark_s) {
        res->code = FSM_STALE; /* J27, C10 */
        return 0;
    }
    r = check(a, s, raw, view->watermark_s, &why);
    if (r < 0)
        return r;
    if (why) {
        refuse(res, why);
        return 0;
    }
    r = schedule_load(f, a, view);
    if (r == 0)
        r = process(f, a, s, raw, res);
    return r < 0 ? r : schedule_store(f, a, FSM_SCHEDULE_STATE);
}
