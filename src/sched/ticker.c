/* The schedules of a ticker: what is known of each, and when the next one is due. See ticker.h. */
#include "sched/ticker.h"

#include "sched/ticker_internal.h"

#include <errno.h>
#include <stdlib.h>

#define REFRESHED_ALL SIZE_MAX
#define REFRESH_SLICE 16384 /* entries looked at in one call: about 10 ms */

int ticker_new(struct zones *zones, struct ticker **ret) {
    struct ticker *t;

    ASSERT(zones && ret);
    t = calloc(1, sizeof(*t));
    if (!t)
        return -ENOMEM;
    t->zones = zones;
    t->refreshed = REFRESHED_ALL;
    *ret = t;
    return 0;
}

static void plans_forget(struct ticker *t) {
    for (struct plan *p = t->plans, *next; p; p = next) {
        next = p->next;
        plan_free(p);
    }
    t->plans = NULL;
}

/* The entry's share of a timetable; the last one takes it out of the map. */
static void timetable_drop(struct ticker *t, struct timetable *times) {
    if (!times)
        return;
    if (timetable_is_last(times)) {
        (void) bytesmap_del(&t->shared, timetable_bytes(times));
        t->timetables_bytes -= timetable_bytes(times).len;
    }
    (void) timetable_unref(times);
}

void ticker_clear(struct ticker *t) {
    ASSERT(t);
    plans_forget(t);
    troubles_clear(t);
    for (size_t i = 0; i < t->by_seq.count; i++) {
        struct entry *e = t->entries[i];

        catch_up_end(t, e);
        timetable_drop(t, e->times);
        free(e);
    }
    u64map_done(&t->by_seq);
    bytesmap_done(&t->shared);
    t->heap.count = 0;
    t->refreshed = REFRESHED_ALL;
    t->alarms_dirty = false;
    ASSERT(t->timetables_bytes == 0 && !t->catch_ups);
}

struct ticker *ticker_free(struct ticker *t) {
    if (!t)
        return NULL;
    ticker_clear(t);
    free(t->entries);
    free(t->heap.slots);
    free(t);
    return NULL;
}

/* ---- due instants ---------------------------------------------------------------------------- */

void entry_arm(struct ticker *t, struct entry *e) {
    struct timetable_instant i;
    int64_t due_ms;
    uint32_t steps = 0;

    ASSERT(e->plan == 0);
    e->postponed = false;
    if (!e->times || e->finished) {
        heap_remove(&t->heap, e);
        return;
    }
    if (e->catch_up && (e->catch_up->count > 0 || e->catch_up->held_s >= 0)) {
        heap_set(&t->heap, e, e->catch_up->began_ms); /* cut off: goes on at once */
        return;
    }
    i = timetable_next(e->times, e->from_s, &steps);
    t->steps += steps;
    if (i.at_s == CRON_NEVER) {
        heap_remove(&t->heap, e);
        return;
    }
    due_ms = i.at_s * 1000;
    if (i.is_tick)
        due_ms += timetable_delay_ms(e->times, e->name_hash, i.at_s);
    else
        e->from_s = i.at_s;
    if (e->catch_up)
        due_ms = MAX(due_ms, e->catch_up->not_before_ms);
    heap_set(&t->heap, e, due_ms);
}

void entry_postpone(struct ticker *t, struct entry *e, int64_t at_ms) {
    heap_set(&t->heap, e, at_ms);
    e->postponed = true;
    t->postponed_ms = MAX(t->postponed_ms, at_ms);
}

void ticker_clock_back(struct ticker *t, struct wall now) {
    int64_t latest_ms = now.ms + RETRY_MS;

    t->leads_since_ms = MIN(t->leads_since_ms, now.ms);
    for (struct catch_up *c = t->catch_ups; c; c = c->next) {
        c->began_ms = MIN(c->began_ms, now.ms);
        c->not_before_ms = MIN(c->not_before_ms, latest_ms);
        if (c->entry->plan == 0)
            entry_arm(t, c->entry);
    }
    if (t->postponed_ms <= latest_ms)
        return;
    t->postponed_ms = latest_ms;
    for (size_t i = 0; i < t->by_seq.count; i++) {
        struct entry *e = t->entries[i];

        if (e->postponed && e->heap_pos > 0 && t->heap.slots[e->heap_pos - 1].due_ms > latest_ms)
            heap_set(&t->heap, e, latest_ms);
    }
}

void entry_rewind(struct ticker *t, struct entry *e) {
    catch_up_end(t, e);
    e->from_s = e->watermark_s;
}

int64_t ticker_next_due_ms(const struct ticker *t) {
    return t->heap.count > 0 ? t->heap.slots[0].due_ms : INT64_MAX;
}

/* ---- following the state --------------------------------------------------------------------- */

/* Compile; equal timetables are one. 0 with *ret (end with timetable_drop); ERR_CONFIG with the
 * reason; -ENOMEM. */
static int timetable_take(struct ticker *t, const Chronos__V1__ScheduleSpec *spec,
                          struct timetable **ret, struct errtext *reterr) {
    _cleanup_(timetable_unrefp) struct timetable *times = NULL;
    struct timetable *same;
    int rc = timetable_new(spec, t->zones, &times, reterr);

    if (rc < 0)
        return rc;
    same = bytesmap_get(&t->shared, timetable_bytes(times));
    if (same) {
        *ret = timetable_ref(same);
        return 0;
    }
    rc = bytesmap_put(&t->shared, timetable_bytes(times), times);
    if (rc < 0)
        return rc;
    t->timetables_bytes += timetable_bytes(times).len;
    *ret = TAKE_PTR(times);
    return 0;
}

static int entry_new(struct ticker *t, uint64_t seq, struct entry **ret) {
    struct entry *e;
    int rc = heap_reserve(&t->heap, t->by_seq.count + 1);

    if (rc < 0)
        return rc;
    ASSERT(t->by_seq.count < UINT32_MAX);
    if (t->by_seq.count == t->entries_cap) {
        size_t cap = MAX(t->entries_cap + t->entries_cap / 2, (size_t) 64);
        struct entry **grown = realloc(t->entries, cap * sizeof(struct entry *));

        if (!grown)
            return -ENOMEM;
        t->entries = grown;
        t->entries_cap = cap;
    }
    e = calloc(1, sizeof(*e));
    if (!e)
        return -ENOMEM;
    e->seq = seq;
    e->index = (uint32_t) t->by_seq.count;
    rc = u64map_put(&t->by_seq, seq, e);
    if (rc < 0)
        return free(e), rc;
    t->entries[e->index] = e;
    *ret = e;
    return 0;
}

static uint32_t window_of(const Chronos__V1__ScheduleSpec *spec) {
    int64_t ms = spec->catchup_window_ms > 0 ? spec->catchup_window_ms : TICKER_WINDOW_MS;

    return (uint32_t) MIN(ms / 1000, (int64_t) UINT32_MAX);
}

int ticker_put(struct ticker *t, const struct ticker_definition *d) {
    struct timetable *times = NULL;
    struct errtext refused = {0};
    struct entry *e;
    int rc;

    ASSERT(t && d && d->spec);
    ASSERT(d->seq > 0);
    rc = timetable_take(t, d->spec, &times, &refused);
    if (rc == -ENOMEM)
        return rc;
    e = u64map_get(&t->by_seq, d->seq);
    rc = e ? 0 : entry_new(t, d->seq, &e);
    if (rc < 0) {
        timetable_drop(t, times);
        return rc;
    }
    timetable_drop(t, e->times);
    e->times = times; /* NULL: refused */
    e->generation = d->generation;
    e->name_hash = timetable_name_hash(d->spec->name);
    e->missed = (uint8_t) d->spec->missed;
    e->window_s = window_of(d->spec);
    e->job_bytes = d->job_bytes;
    e->watermark_s = d->state.watermark_s;
    e->finished = d->state.finished;
    e->alarmed = d->state.alarmed;
    e->plan = 0;
    entry_rewind(t, e);
    entry_arm(t, e);
    return trouble_check(t, e, e->times ? NULL : refused.s);
}

void ticker_remove(struct ticker *t, uint64_t seq) {
    struct entry *e = u64map_del(&t->by_seq, seq), *last;

    if (!e)
        return;
    catch_up_end(t, e);
    trouble_forget(t, seq);
    heap_remove(&t->heap, e);
    timetable_drop(t, e->times);
    last = t->entries[t->by_seq.count];
    t->entries[e->index] = last;
    last->index = e->index;
    if (t->refreshed != REFRESHED_ALL) /* the one that moved may not have been looked at */
        t->refreshed = MIN(t->refreshed, (size_t) e->index);
    free(e);
}

int ticker_update(struct ticker *t, uint64_t seq, const struct ticker_state *state) {
    struct entry *e = u64map_get(&t->by_seq, seq);
    bool moved, changed;

    if (!e)
        return 0;
    moved = e->watermark_s != state->watermark_s;
    changed = moved || e->finished != state->finished;
    e->watermark_s = state->watermark_s;
    e->finished = state->finished;
    if (e->plan == 0 && moved)
        entry_rewind(t, e);
    if (e->plan == 0 && changed)
        entry_arm(t, e);
    if (e->alarmed == state->alarmed)
        return 0;
    e->alarmed = state->alarmed;
    return trouble_check(t, e, NULL);
}

/* ---- zones ----------------------------------------------------------------------------------- */

void ticker_zones_changed(struct ticker *t) {
    t->refreshed = 0;
}

int ticker_refresh(struct ticker *t) {
    size_t end;

    if (t->refreshed == REFRESHED_ALL)
        return 0;
    end = MIN(t->refreshed + REFRESH_SLICE, t->by_seq.count);
    for (; t->refreshed < end; t->refreshed++) {
        struct entry *e = t->entries[t->refreshed];
        int rc;

        if (!e->times || !timetable_zone(e->times))
            continue;
        rc = trouble_check(t, e, NULL);
        if (rc < 0)
            return rc;
        if (e->plan != 0)
            continue; /* armed when its plan is done */
        entry_rewind(t, e);
        entry_arm(t, e);
    }
    if (end < t->by_seq.count)
        return 1;
    t->refreshed = REFRESHED_ALL;
    return 0;
}

/* ---- leading --------------------------------------------------------------------------------- */

void ticker_reset(struct ticker *t, struct wall now) {
    struct u64map_slot *s;
    size_t pos = 0;

    ASSERT(t);
    for (struct plan *p = t->plans; p; p = p->next)
        for (size_t i = 0; i < p->items_count; i++) {
            struct entry *e = u64map_get(&t->by_seq, p->items[i].seq);

            if (!e || e->plan != (uint32_t) p->id)
                continue;
            e->plan = 0;
            entry_rewind(t, e);
            entry_arm(t, e);
        }
    plans_forget(t);
    while (t->catch_ups) {
        struct entry *e = t->catch_ups->entry;

        entry_rewind(t, e);
        entry_arm(t, e);
    }
    while ((s = u64map_next(&t->troubles, &pos)))
        ((struct trouble *) s->value)->telling = false;
    t->alarms_dirty = true;
    t->leads_since_ms = now.ms;
}

void ticker_stats(const struct ticker *t, struct ticker_stats *ret) {
    size_t map = t->by_seq.cap * sizeof(struct u64map_slot);

    *ret = (struct ticker_stats){
        .schedules = t->by_seq.count,
        .timetables = t->shared.count,
        .alarms = t->troubles.count,
        .catching_up = t->catch_ups_count,
        .steps = t->steps,
        .bytes = map + t->entries_cap * sizeof(struct entry *) +
                 t->heap.cap * sizeof(struct heap_slot) +
                 t->by_seq.count * (sizeof(struct entry) + 16) +
                 t->shared.cap * sizeof(struct bytesmap_slot) + t->timetables_bytes +
                 t->shared.count * 64 + t->catch_ups_count * sizeof(struct catch_up),
    };
}
