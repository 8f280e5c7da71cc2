/* SetScheduleAlarm: what keeps a schedule from firing (its time zone cannot be read ...), in words.
 * Proposed by the leader; the schedule itself stays as it is. */
#include "fsm/schedule_internal.h"

int apply_set_schedule_alarm(struct fsm *f, struct apply *a, const void *item, struct slice raw,
                             struct fsm_result *res) {
    const struct item_schedule_alarm *s = item;
    struct slice text = slice_of(s->text.data, utf8_cut(s->text, FSM_SCHEDULE_REASON_BYTES_MAX));
    struct fsm_schedule *view = u64map_get(&f->schedules, s->schedule_seq);
    struct record_schedule *rec = &f->work.rec;
    int r;

    (void) raw;
    res->schedule_seq = s->schedule_seq;
    if (!view) {
        res->code = FSM_NOT_FOUND;
        return 0;
    }
    r = schedule_load(f, a, view);
    if (r < 0)
        return r;
    res->changed = rec->alarm.len != text.len ||
                   (text.len > 0 && memcmp(rec->alarm.data, text.data, text.len) != 0);
    if (!res->changed) {
        f->work.view = NULL;
        return 0;
    }
    rec->alarm = text;
    return schedule_store(f, a, FSM_SCHEDULE_STATE);
}
