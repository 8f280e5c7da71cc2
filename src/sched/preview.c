/* Instants for people. See preview.h. */
#include "sched/preview.h"

#include <stdio.h>

#include "sched/civil.h"

void preview_begin(struct preview *p, const struct timetable *t, const char *name,
                   int64_t after_s) {
    ASSERT(t);
    *p = (struct preview){
        .timetable = t,
        .name_hash = timetable_name_hash(name),
        .after_s = after_s,
    };
}

void preview_local(const struct tz *zone, int64_t at_s, char out[PREVIEW_LOCAL_BYTES]) {
    const struct tz_change *change = zone ? &zone->changes[tz_find(zone, at_s)] : NULL;
    int offset = change ? change->offset : 0;
    int minutes = (offset < 0 ? -offset : offset) / 60;
    struct civil c = civil_of(at_s + offset);

    (void) snprintf(out, PREVIEW_LOCAL_BYTES, "%04d-%02d-%02dT%02d:%02d:%02d%c%02d:%02d %s", c.year,
                    c.month, c.day, c.hour, c.minute, c.second, offset < 0 ? '-' : '+',
                    minutes / 60, minutes % 60, change ? change->abbrev : "UTC");
}

static void describe(const struct preview *p, int64_t tick_s, struct preview_instant *ret) {
    const struct zone *zone = timetable_zone(p->timetable);

    ret->tick_s = tick_s;
    ret->start_ms = tick_s * 1000 + timetable_delay_ms(p->timetable, p->name_hash, tick_s);
    preview_local(zone ? zone->tz : NULL, tick_s, ret->local);
}

bool preview_next(struct preview *p, uint32_t *io_steps, struct preview_instant *ret) {
    int64_t suppressed;

    if (!p->has_next)
        p->next = timetable_next(p->timetable, p->after_s, io_steps);
    p->has_next = true;
    if (p->next.at_s == CRON_NEVER)
        return false;
    suppressed = timetable_next_suppressed(p->timetable, p->after_s, p->next.at_s);
    if (suppressed != CRON_NEVER) {
        *ret = (struct preview_instant){.note = PREVIEW_NOTE_SUPPRESSED};
        p->after_s = suppressed;
        *io_steps += 1;
    } else {
        *ret = (struct preview_instant){.fires = p->next.is_tick, .note = ""};
        if (p->next.is_tick && p->next.note == CRON_NOTE_MOVED)
            ret->note = PREVIEW_NOTE_MOVED;
        p->after_s = p->next.at_s;
        p->has_next = false;
    }
    describe(p, p->after_s, ret);
    return true;
}
