/* Schedules recounted from their records (J17), and what must hold of their runs at every index:
 * J9, "at most one execution that has not ended" unless it was allowed to run beside others.
 * Thread: the loop. */
#include "fsm/schedule_internal.h"

static void check_line(const struct fsm *f, struct slice key, struct slice value) {
    struct record_tick rec;
    size_t at;
    int r = record_decode(&record_shape_tick, value, &rec, &at);

    ASSERT(r == 0);
    ASSERT(key.len == RECORD_TICK_KEY_BYTES);
    ASSERT(u64map_get(&f->schedules, get_be64(key.data + 1)));
    ASSERT(rec.count > 0);
    ASSERT(rec.last_tick_s >= rec.tick_s);
    ASSERT(rec.fired == (rec.reason < (int32_t) REASON_NOT_RUN_FIRST));
    ASSERT(!rec.fired || rec.count == 1);
    ASSERT(!rec.fired || rec.job_seq > 0);
    ASSERT(!rec.waiting || rec.reason == (int32_t) REASON(BUFFERED));
}

void schedules_check_record(const struct fsm *f, struct schedules_recount *c, struct slice key,
                            struct slice value) {
    struct record_schedule rec;
    struct record_name name;
    size_t at;
    int r;

    if (key.data[0] == 't') {
        c->lines++;
        check_line(f, key, value);
    } else if (key.data[0] == 'i') {
        c->names++;
        r = record_decode(&record_shape_name, value, &name, &at);
        ASSERT(r == 0);
        ASSERT(u64map_get(&f->schedules, name.seq));
    } else {
        c->schedules++;
        r = record_decode(&record_shape_schedule, value, &rec, &at);
        ASSERT(r == 0);
        ASSERT(u64map_get(&f->schedules, rec.seq));
        ASSERT(rec.seq <= f->last_schedule_seq);
    }
}

void schedules_check_job(const struct fsm *f, struct schedules_recount *c,
                         const struct record_job *rec) {
    ASSERT((rec->schedule_seq == 0) == (rec->schedule.len == 0));
    if (rec->schedule_seq > 0 && !job_state_is_terminal((Chronos__V1__JobState) rec->state) &&
        u64map_get(&f->schedules, rec->schedule_seq))
        c->open_jobs++;
}

static void check_view(const struct fsm_schedule *s, const struct record_schedule *rec,
                       const struct schedule_work *w) {
    struct fsm_schedule want = *s;

    ASSERT(rec->seq == s->seq);
    schedules_view(&want, rec, w->open_count, w->waits, w->waits_count);
    ASSERT(memcmp(&want, s, sizeof(want)) == 0);
}

/* J9, and that the job knows whose run it is. */
static void check_run(struct fsm *f, const struct record_schedule *s, uint64_t job_seq,
                      bool first) {
    uint8_t key[RECORD_JOB_KEY_BYTES];
    struct record_job rec;
    struct slice value;
    size_t at;
    int r = store_read(f, record_job_key(job_seq, key), &value);

    ASSERT(r == 0);
    r = record_decode(&record_shape_job, value, &rec, &at);
    ASSERT(r == 0);
    ASSERT(rec.schedule_seq == s->seq);
    ASSERT(rec.schedule_generation <= s->generation);
    ASSERT(!job_state_is_terminal((Chronos__V1__JobState) rec.state));
    ASSERT(first || rec.beside);
}

static void check_waits(const struct record_schedule *rec, const struct schedule_work *w) {
    ASSERT(w->waits_count == 0 || w->open_count > 0);
    for (size_t i = 0; i < w->waits_count; i++) {
        ASSERT(w->waits[i].ordinal < rec->next_ordinal);
        ASSERT(i == 0 || w->waits[i - 1].ordinal < w->waits[i].ordinal);
    }
}

/* Its record again, copied: what is read next would overwrite it. */
static void check_schedule(struct fsm *f, const struct fsm_schedule *s, struct schedule_work *w,
                           struct arena *arena, uint64_t *open, uint64_t *lines) {
    uint8_t key[RECORD_SCHEDULE_KEY_BYTES];
    struct fsm_schedule *found = NULL;
    struct record_schedule rec;
    struct slice value;
    size_t at;
    void *copy;
    bool ok;
    int r = store_read(f, record_schedule_key(s->seq, key), &value);

    ASSERT(r == 0);
    copy = arena_memdup(arena, value.data, value.len);
    ASSERT(copy);
    value = slice_of(copy, value.len);
    r = record_decode(&record_shape_schedule, value, &rec, &at);
    ASSERT(r == 0);
    ok = schedule_read_lists(w, rec.open_runs, value, &r);
    ASSERT(ok);
    ASSERT(r == 0);
    check_view(s, &rec, w);
    check_waits(&rec, w);
    for (size_t i = 0; i < w->open_count; i++)
        check_run(f, &rec, w->open[i], i == 0);
    ASSERT(rec.next_ordinal - rec.first_ordinal <= FSM_SCHEDULE_HISTORY_MAX);
    r = schedules_find(f, rec.name, &found, NULL);
    ASSERT(r == 0);
    ASSERT(found == s);
    *open += w->open_count;
    *lines += rec.next_ordinal - rec.first_ordinal;
}

void schedules_check_all(struct fsm *f, const struct schedules_recount *c) {
    uint64_t n = 0, open = 0, lines = 0;
    struct schedule_work w = {0};
    struct arena arena;

    ASSERT(!f->work.view);
    arena_init(&arena, SIZE_MAX / 2);
    for (const struct fsm_schedule *s = f->schedules_first; s; s = s->next, n++) {
        ASSERT(s->next ? s->next->prev == s && s->next->seq > s->seq : f->schedules_last == s);
        arena_clear(&arena);
        check_schedule(f, s, &w, &arena, &open, &lines);
    }
    arena_done(&arena);
    schedule_work_done(&w);
    ASSERT(n == c->schedules);
    ASSERT(n == c->names);
    ASSERT(n == f->schedules.count);
    ASSERT(open == c->open_jobs);
    ASSERT(lines == c->lines);
}
