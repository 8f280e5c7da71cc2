/* PauseSchedule: one schedule, or all of them (the global pause, C22).
 *
 * Ticks while paused are recorded as not run. A tick belongs to a pause by its own instant, so that
 * one which is processed late, after the pause was lifted, is not run either. */
#include "fsm/schedule_internal.h"

#include <errno.h>

static bool same(struct slice a, struct slice b) {
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

static int pause_all(struct fsm *f, struct apply *a, const struct item_pause_schedule *s,
                     struct slice reason, struct fsm_result *res) {
    struct schedules_pause *p = &f->schedules_pause;

    if (p->paused && p->until_ms > 0 && a->now_ms >= p->until_ms) { /* over by itself */
        *p = (struct schedules_pause){.resumed_ms = MAX(p->resumed_ms, p->until_ms)};
        f->output.schedules_pause_changed = true;
    }
    res->changed = s->on ? !p->paused || p->until_ms != s->until_ms ||
                               !same(slice_of(p->reason, p->reason_len), reason)
                         : p->paused;
    if (!res->changed)
        return 0;
    if (!s->on) {
        *p = (struct schedules_pause){.resumed_ms = a->now_ms};
    } else {
        p->paused = true;
        p->until_ms = s->until_ms;
        p->reason_len = reason.len;
        if (reason.len > 0)
            memcpy(p->reason, reason.data, reason.len);
        p->reason[reason.len] = '\0';
    }
    f->output.schedules_pause_changed = true;
    return 0;
}

static int pause_one(struct fsm *f, struct apply *a, const struct item_pause_schedule *s,
                     struct slice reason, struct fsm_schedule *view, struct fsm_result *res) {
    struct record_schedule *rec = &f->work.rec;
    int r = schedule_load(f, a, view);

    if (r < 0)
        return r;
    res->schedule_seq = rec->seq;
    res->changed = s->on ? !rec->paused || rec->paused_until_ms != s->until_ms ||
                               !same(rec->pause_reason, reason)
                         : rec->paused;
    if (!res->changed) {
        f->work.view = NULL;
        return 0;
    }
    if (!s->on)
        rec->resumed_ms = a->now_ms;
    rec->paused = s->on;
    rec->paused_until_ms = s->on ? s->until_ms : 0;
    rec->pause_reason = s->on ? reason : slice_of("", 0);
    return schedule_store(f, a, FSM_SCHEDULE_STATE);
}

/* A text without zero bytes: what reads it back takes them for its end. */
static struct slice text_of(struct slice s) {
    const void *zero = s.len > 0 ? memchr(s.data, 0, s.len) : NULL;

    if (zero)
        s.len = (size_t) ((const uint8_t *) zero - s.data);
    return slice_of(s.data, utf8_cut(s, FSM_SCHEDULE_REASON_BYTES_MAX));
}

int apply_pause_schedule(struct fsm *f, struct apply *a, const void *item, struct slice raw,
                         struct fsm_result *res) {
    const struct item_pause_schedule *s = item;
    struct slice reason = text_of(s->reason);
    struct fsm_schedule *view = NULL;
    int r;

    (void) raw;
    if (s->until_ms < 0 || (s->on && s->until_ms > 0 && s->until_ms <= a->now_ms)) {
        refuse(res, "until_ms: must be in the future, or 0 for until it is resumed");
        return 0;
    }
    if (s->name.len == 0)
        return pause_all(f, a, s, reason, res);
    r = schedules_find(f, s->name, &view, a->err);
    if (r < 0)
        return r;
    if (!view) {
        res->code = FSM_NOT_FOUND;
        return 0;
    }
    return pause_one(f, a, s, reason, view, res);
}
