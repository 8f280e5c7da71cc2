/* Schedules that cannot fire, and those whose recorded alarm is over. */
#include "sched/ticker_internal.h"

#include <errno.h>
#include <stdlib.h>

static const char *wanted_text(const struct entry *e) {
    const struct zone *zone = e->times ? timetable_zone(e->times) : NULL;

    return zone && !zone->tz ? zone->error.s : NULL;
}

int trouble_check(struct ticker *t, struct entry *e, const char *refused) {
    struct trouble *x = u64map_get(&t->troubles, e->seq);
    const char *text = refused ? refused : wanted_text(e);
    int rc;

    if (!text && !refused && !e->times && x && x->wanted)
        return t->alarms_dirty = true, 0; /* still what it was put with */
    if (!text && !e->alarmed) {
        trouble_forget(t, e->seq);
        return 0;
    }
    if (!x) {
        x = calloc(1, sizeof(*x));
        if (!x)
            return -ENOMEM;
        rc = u64map_put(&t->troubles, e->seq, x);
        if (rc < 0)
            return free(x), rc;
    }
    x->entry = e;
    x->wanted = text;
    errtext_set(&x->text, "%s", text ? text : "");
    t->alarms_dirty = true;
    return 0;
}

void trouble_forget(struct ticker *t, uint64_t seq) {
    free(u64map_del(&t->troubles, seq));
}

void troubles_clear(struct ticker *t) {
    struct u64map_slot *s;
    size_t pos = 0;

    while ((s = u64map_next(&t->troubles, &pos)))
        free(s->value);
    u64map_done(&t->troubles);
}

bool ticker_next_alarm(struct ticker *t, uint64_t *ret_seq, const char **ret_text) {
    struct u64map_slot *s;
    size_t pos = 0;

    if (!t->alarms_dirty)
        return false;
    while ((s = u64map_next(&t->troubles, &pos))) {
        struct trouble *x = s->value;

        if (x->telling || x->wanted == x->entry->alarmed)
            continue;
        x->telling = true;
        *ret_seq = x->entry->seq;
        *ret_text = x->text.s;
        return true;
    }
    t->alarms_dirty = false;
    return false;
}

void ticker_alarm_done(struct ticker *t, uint64_t seq) {
    struct trouble *x = u64map_get(&t->troubles, seq);

    if (!x)
        return;
    x->telling = false;
    t->alarms_dirty = true;
}
