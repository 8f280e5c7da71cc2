/* Schedules in memory: one small struct each, found by number; names are found through the store.
 *
 * A million idle schedules must fit beside everything else, so neither name nor definition is kept
 * here. Thread: the loop. */
#include "fsm/schedule_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#define SLAB_SCHEDULES 256

struct schedule_slab {
    struct schedule_slab *next;
    struct fsm_schedule schedules[SLAB_SCHEDULES];
};

static int slab_add(struct fsm *f) {
    struct schedule_slab *s = calloc(1, sizeof(*s));

    if (!s)
        return -ENOMEM;
    s->next = f->schedule_slabs;
    f->schedule_slabs = s;
    for (size_t i = SLAB_SCHEDULES; i > 0; i--) {
        s->schedules[i - 1].next = f->free_schedules;
        f->free_schedules = &s->schedules[i - 1];
    }
    return 0;
}

struct fsm_schedule *schedules_new(struct fsm *f, uint64_t seq) {
    struct fsm_schedule *s;

    ASSERT(seq > 0);
    ASSERT(!f->schedules_last || f->schedules_last->seq < seq);
    if (!f->free_schedules && slab_add(f) < 0)
        return NULL;
    s = f->free_schedules;
    if (u64map_put(&f->schedules, seq, s) < 0)
        return NULL;
    f->free_schedules = s->next;
    *s = (struct fsm_schedule){.seq = seq, .prev = f->schedules_last};
    if (s->prev)
        s->prev->next = s;
    else
        f->schedules_first = s;
    f->schedules_last = s;
    return s;
}

void schedules_remove(struct fsm *f, struct fsm_schedule *s) {
    void *was = u64map_del(&f->schedules, s->seq);

    ASSERT(was == s);
    ASSERT(s->prev || f->schedules_first == s);
    if (s->prev)
        s->prev->next = s->next;
    else
        f->schedules_first = s->next;
    if (s->next)
        s->next->prev = s->prev;
    else
        f->schedules_last = s->prev;
    *s = (struct fsm_schedule){.next = f->free_schedules};
    f->free_schedules = s;
}

void schedules_free_all(struct fsm *f) {
    ASSERT(f);
    while (f->schedule_slabs) {
        struct schedule_slab *s = f->schedule_slabs;

        f->schedule_slabs = s->next;
        free(s);
    }
    f->free_schedules = f->schedules_first = f->schedules_last = NULL;
    u64map_done(&f->schedules);
}

bool schedules_name_ok(struct slice name) {
    if (name.len == 0 || name.len > FSM_SCHEDULE_NAME_BYTES_MAX)
        return false;
    for (size_t i = 0; i < name.len; i++) {
        uint8_t c = name.data[i];

        if (!(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z') && !(c >= '0' && c <= '9') &&
            c != '.' && c != '_' && c != '-')
            return false;
    }
    return true;
}

int schedules_find(struct fsm *f, struct slice name, struct fsm_schedule **ret,
                   struct errtext *err) {
    uint8_t key[RECORD_KEY_BYTES_MAX];
    struct record_name rec;
    struct slice value;
    size_t at = 0;
    int r;

    ASSERT(ret);
    if (!schedules_name_ok(name))
        return STORE_NOT_FOUND;
    r = store_read(f, record_name_key('i', name, key), &value);
    if (r != 0)
        return r;
    if (record_decode(&record_shape_name, value, &rec, &at) < 0) {
        errtext_set(err, "record of a schedule's name: malformed at byte %zu", at);
        return ERR_CORRUPT;
    }
    *ret = u64map_get(&f->schedules, rec.seq);
    if (!*ret) {
        errtext_set(err, "record of a schedule's name: there is no schedule %" PRIu64, rec.seq);
        return ERR_CORRUPT;
    }
    return 0;
}

bool schedules_by_hand(int32_t cause) {
    return cause == (int32_t) REASON(TRIGGER) || cause == (int32_t) REASON(BACKFILL);
}

/* Waiting ticks have their place under max_runs already. */
static uint64_t runs_left(const struct record_schedule *rec, const struct schedule_wait *waits,
                          size_t waits_count) {
    uint64_t used = rec->runs_counted;

    if (rec->max_runs == 0)
        return UINT64_MAX;
    for (size_t i = 0; i < waits_count; i++)
        used += !schedules_by_hand(waits[i].cause);
    return used < rec->max_runs ? rec->max_runs - used : 0;
}

void schedules_view(struct fsm_schedule *s, const struct record_schedule *rec, size_t open_count,
                    const struct schedule_wait *waits, size_t waits_count) {
    ASSERT(s->seq == rec->seq);
    s->generation = rec->generation;
    s->watermark_s = rec->watermark_s;
    s->paused = rec->paused;
    s->paused_until_ms = rec->paused_until_ms;
    s->runs_left = runs_left(rec, waits, waits_count);
    s->open_runs = (uint32_t) open_count;
    s->buffered = (uint32_t) waits_count;
    s->job_bytes = (uint32_t) rec->job.len;
    s->alarmed = rec->alarm.len > 0;
}

int schedules_emit(struct fsm *f, uint64_t seq, enum fsm_schedule_change change) {
    ASSERT(seq > 0);
    if (f->output.schedules_count == f->schedule_events_cap) {
        size_t cap = f->schedule_events_cap ? f->schedule_events_cap * 2 : 64;
        struct fsm_schedule_event *e = realloc(f->schedule_events, cap * sizeof(*e));

        if (!e)
            return -ENOMEM;
        f->schedule_events = e;
        f->schedule_events_cap = cap;
    }
    f->schedule_events[f->output.schedules_count++] =
        (struct fsm_schedule_event){.seq = seq, .change = change};
    return 0;
}
