/* Looking at schedules from outside.
 * Thread: the loop. */
#include "fsm/schedule_internal.h"

#include <errno.h>

typedef int each_fn(void *arg, const struct fsm_schedule *s,
                    const Chronos__Internal__V1__ScheduleRecord *rec);

uint64_t fsm_schedules_count(const struct fsm *f) {
    ASSERT(f);
    return f->schedules.count;
}

const struct fsm_schedule *fsm_schedule_by_seq(const struct fsm *f, uint64_t seq) {
    ASSERT(f);
    return u64map_get(&f->schedules, seq);
}

const struct fsm_schedule *fsm_schedule_first(const struct fsm *f) {
    ASSERT(f);
    return f->schedules_first;
}

int fsm_schedule_find(struct fsm *f, struct slice name, const struct fsm_schedule **ret) {
    struct fsm_schedule *s = NULL;
    int r;

    ASSERT(f);
    ASSERT(ret);
    r = schedules_find(f, name, &s, NULL);
    if (r == 0)
        *ret = s;
    return r == STORE_NOT_FOUND ? FSM_READ_NOT_FOUND : r;
}

bool fsm_schedule_paused(const struct fsm *f, const struct fsm_schedule *s, int64_t at_ms) {
    const struct schedules_pause *all = &f->schedules_pause;

    ASSERT(s);
    return (s->paused && (s->paused_until_ms == 0 || at_ms < s->paused_until_ms)) ||
           (all->paused && (all->until_ms == 0 || at_ms < all->until_ms));
}

void fsm_schedules_pause(const struct fsm *f, struct fsm_schedules_pause *ret) {
    const struct schedules_pause *all = &f->schedules_pause;

    ASSERT(ret);
    *ret = (struct fsm_schedules_pause){
        .paused = all->paused,
        .until_ms = all->until_ms,
        .resumed_ms = all->resumed_ms,
        .reason = all->reason,
    };
}

int fsm_read_schedule(struct fsm *f, uint64_t seq, struct arena *arena,
                      Chronos__Internal__V1__ScheduleRecord **ret) {
    uint8_t key[RECORD_SCHEDULE_KEY_BYTES];

    ASSERT(f);
    ASSERT(ret);
    return store_read_record(f, record_schedule_key(seq, key),
                             &chronos__internal__v1__schedule_record__descriptor, arena,
                             (ProtobufCMessage **) (void *) ret);
}

int fsm_read_tick(struct fsm *f, uint64_t seq, uint64_t ordinal, struct arena *arena,
                  Chronos__Internal__V1__TickRecord **ret) {
    uint8_t key[RECORD_TICK_KEY_BYTES];

    ASSERT(f);
    ASSERT(ret);
    return store_read_record(f, record_tick_key(seq, ordinal, key),
                             &chronos__internal__v1__tick_record__descriptor, arena,
                             (ProtobufCMessage **) (void *) ret);
}

/* One record to @each. @value: of the schedule. */
static int visit(struct fsm *f, struct slice value, struct arena *arena, each_fn *each, void *arg) {
    const Chronos__Internal__V1__ScheduleRecord *rec;
    const struct fsm_schedule *s;
    ProtobufCMessage *m;
    int r;

    arena_clear(arena);
    r = store_unpack(&chronos__internal__v1__schedule_record__descriptor, value, arena, &m);
    if (r < 0)
        return r;
    rec = (const Chronos__Internal__V1__ScheduleRecord *) (void *) m;
    s = u64map_get(&f->schedules, rec->seq);
    return s ? each(arg, s, rec) : ERR_CORRUPT;
}

/* The schedule that a name record leads to. */
static int visit_name(struct fsm *f, struct slice value, struct arena *arena, each_fn *each,
                      void *arg) {
    uint8_t key[RECORD_SCHEDULE_KEY_BYTES];
    struct record_name name;
    struct slice record;
    size_t at;
    int r;

    if (record_decode(&record_shape_name, value, &name, &at) < 0)
        return ERR_CORRUPT;
    r = store_read(f, record_schedule_key(name.seq, key), &record);
    if (r != 0)
        return r == STORE_NOT_FOUND ? ERR_CORRUPT : r;
    return visit(f, record, arena, each, arg);
}

static int scan(struct fsm *f, struct slice from, struct arena *arena, each_fn *each, void *arg) {
    struct kv_iter *it;
    int r;

    r = fsm_write_back(f);
    if (r < 0)
        return r;
    r = store_seen(f, f->kv->ops->iter_open(f->kv, &it));
    if (r < 0)
        return r;
    for (it->ops->seek(it, from); r == 0 && it->ops->valid(it); it->ops->next(it)) {
        struct slice key = it->ops->key(it);

        if (key.len == 0 || key.data[0] != from.data[0])
            break;
        r = key.data[0] == 's' ? visit(f, it->ops->value(it), arena, each, arg)
                               : visit_name(f, it->ops->value(it), arena, each, arg);
    }
    if (r == 0)
        r = store_seen(f, it->ops->status(it));
    it->ops->close(it);
    return MIN(r, 0);
}

int fsm_scan_schedules(struct fsm *f, struct slice from_name, struct arena *arena, each_fn *each,
                       void *arg) {
    uint8_t key[RECORD_KEY_BYTES_MAX];

    ASSERT(f);
    ASSERT(each);
    from_name.len = MIN(from_name.len, (size_t) FSM_SCHEDULE_NAME_BYTES_MAX);
    return scan(f, record_name_key('i', from_name, key), arena, each, arg);
}

int fsm_load_schedules(struct fsm *f, uint64_t from_seq, struct arena *arena, each_fn *each,
                       void *arg) {
    uint8_t key[RECORD_SCHEDULE_KEY_BYTES];

    ASSERT(f);
    ASSERT(each);
    return scan(f, record_schedule_key(from_seq, key), arena, each, arg);
}
