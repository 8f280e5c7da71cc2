/* One schedule's record, decoded to be worked on and written back.
 * Thread: the loop. */
#include "fsm/schedule_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#define BUFFERED_BYTES_MAX 64 /* three numbers with their tags */
#define VARINT_BYTES_MAX 10

void schedule_work_done(struct schedule_work *w) {
    ASSERT(w);
    free(w->open);
    free(w->waits);
    buf_done(&w->packed);
    *w = (struct schedule_work){0};
}

static int room(void **array, size_t count, size_t *cap, size_t item_bytes) {
    size_t bigger = *cap ? *cap * 2 : 16;
    void *p;

    if (count < *cap)
        return 0;
    p = realloc(*array, bigger * item_bytes);
    if (!p)
        return -ENOMEM;
    *array = p;
    *cap = bigger;
    return 0;
}

int schedule_add_open(struct schedule_work *w, uint64_t job_seq) {
    int r = room((void **) &w->open, w->open_count, &w->open_cap, sizeof(*w->open));

    ASSERT(job_seq > 0);
    ASSERT(w->open_count < FSM_SCHEDULE_OPEN_MAX);
    if (r == 0)
        w->open[w->open_count++] = job_seq;
    return r;
}

int schedule_add_wait(struct schedule_work *w, struct schedule_wait wait) {
    int r = room((void **) &w->waits, w->waits_count, &w->waits_cap, sizeof(*w->waits));

    ASSERT(w->waits_count < FSM_SCHEDULE_BUFFERED_MAX);
    if (r == 0)
        w->waits[w->waits_count++] = wait;
    return r;
}

bool schedule_read_lists(struct schedule_work *w, struct slice open_runs, struct slice bytes,
                         int *ret_r) {
    struct wire_reader numbers = wire_reader_of(open_runs), fields = wire_reader_of(bytes);
    struct record_buffered b;
    struct wire_field field;
    uint64_t seq;
    size_t at;
    int r;

    *ret_r = 0;
    w->open_count = w->waits_count = 0;
    while ((r = wire_next_varint(&numbers, &seq)) == 0 && *ret_r == 0) {
        if (seq == 0 || w->open_count == FSM_SCHEDULE_OPEN_MAX)
            return false;
        *ret_r = schedule_add_open(w, seq);
    }
    if (r < 0)
        return false;
    while ((r = wire_next(&fields, &field)) == 0 && *ret_r == 0) {
        if (field.number != RECORD_SCHEDULE_BUFFERED || field.type != WIRE_LEN)
            continue;
        if (w->waits_count == FSM_SCHEDULE_BUFFERED_MAX ||
            record_decode(&record_shape_buffered, field.bytes, &b, &at) < 0)
            return false;
        *ret_r = schedule_add_wait(
            w, (struct schedule_wait){.tick_s = b.tick_s, .ordinal = b.ordinal, .cause = b.reason});
    }
    return r >= 0;
}

static int corrupt(struct apply *a, uint64_t seq, const char *what) {
    errtext_set(a->err, "record of schedule %" PRIu64 ": %s", seq, what);
    return ERR_CORRUPT;
}

/* What was paused until an instant that has come is so no longer; ticks of before stay so. */
static void end_pause(struct record_schedule *rec, int64_t now_ms) {
    if (!rec->paused || rec->paused_until_ms == 0 || now_ms < rec->paused_until_ms)
        return;
    rec->resumed_ms = MAX(rec->resumed_ms, rec->paused_until_ms);
    rec->paused = false;
    rec->paused_until_ms = 0;
    rec->pause_reason = slice_of("", 0);
}

int schedule_load(struct fsm *f, struct apply *a, struct fsm_schedule *s) {
    uint8_t key[RECORD_SCHEDULE_KEY_BYTES];
    struct schedule_work *w = &f->work;
    size_t at = 0;
    int r;

    ASSERT(s);
    ASSERT(!w->view);
    r = store_open(f, record_schedule_key(s->seq, key), &w->entry);
    if (r < 0)
        return r;
    if (!w->entry->exists)
        return corrupt(a, s->seq, "missing from the store");
    if (record_decode(&record_shape_schedule, overlay_value(w->entry), &w->rec, &at) < 0 ||
        !schedule_read_lists(w, w->rec.open_runs, overlay_value(w->entry), &r))
        return corrupt(a, s->seq, "malformed");
    if (r < 0)
        return r;
    if (w->rec.seq != s->seq || w->open_count != s->open_runs ||
        w->rec.overlap < (int32_t) OVERLAP(SKIP) || w->rec.overlap > (int32_t) OVERLAP(ALLOW))
        return corrupt(a, s->seq, "of another state than it was written with");
    w->view = s;
    end_pause(&w->rec, a->now_ms);
    return 0;
}

int schedule_load_new(struct fsm *f, struct fsm_schedule *s) {
    uint8_t key[RECORD_SCHEDULE_KEY_BYTES];
    struct schedule_work *w = &f->work;
    int r;

    ASSERT(!w->view);
    r = store_create(f, record_schedule_key(s->seq, key), &w->entry);
    if (r < 0)
        return r;
    w->rec = (struct record_schedule){.seq = s->seq};
    w->open_count = w->waits_count = 0;
    w->view = s;
    return 0;
}

/* The numbers of the open runs as a packed field. */
static int pack_open(struct schedule_work *w) {
    uint8_t *p;
    int r;

    buf_clear(&w->packed);
    if (!w->packed.max)
        buf_init(&w->packed, FSM_RECORD_BYTES_MAX);
    r = buf_reserve(&w->packed, w->open_count * VARINT_BYTES_MAX + 1);
    if (r < 0)
        return r;
    p = w->packed.data;
    for (size_t i = 0; i < w->open_count; i++)
        p = wire_put_varint(p, w->open[i]);
    w->packed.len = (size_t) (p - w->packed.data);
    w->rec.open_runs = slice_of(w->packed.data, w->packed.len);
    return 0;
}

/* A decoder takes fields in any order: the waiting ticks come last. */
static int put_waits(struct fsm *f, const struct schedule_work *w) {
    uint8_t *p;
    int r = buf_reserve(&f->encode, w->waits_count * BUFFERED_BYTES_MAX + 1);

    if (r < 0)
        return r;
    p = f->encode.data + f->encode.len;
    for (size_t i = 0; i < w->waits_count; i++) {
        struct record_buffered b = {.tick_s = w->waits[i].tick_s,
                                    .ordinal = w->waits[i].ordinal,
                                    .reason = w->waits[i].cause};
        uint8_t one[BUFFERED_BYTES_MAX];
        uint8_t *end = wire_encode(record_shape_buffered.table, record_shape_buffered.len, &b, one);

        p = wire_put_bytes(p, RECORD_SCHEDULE_BUFFERED, slice_of(one, (size_t) (end - one)));
    }
    f->encode.len = (size_t) (p - f->encode.data);
    ASSERT(f->encode.len <= f->encode.cap);
    return 0;
}

int schedule_store(struct fsm *f, struct apply *a, enum fsm_schedule_change change) {
    struct schedule_work *w = &f->work;
    uint64_t seq = w->rec.seq;
    int r;

    ASSERT(w->view);
    ASSERT(change != FSM_SCHEDULE_REMOVED);
    ASSERT(w->waits_count == 0 || w->open_count > 0);
    w->rec.updated_index = a->index;
    r = pack_open(w);
    if (r == 0)
        r = record_encode(&record_shape_schedule, &w->rec, &f->encode);
    if (r == 0)
        r = put_waits(f, w);
    if (r < 0)
        return r;
    schedules_view(w->view, &w->rec, w->open_count, w->waits, w->waits_count);
    w->view = NULL; /* its slices point into what is overwritten now */
    r = store_put(f, w->entry, slice_of(f->encode.data, f->encode.len));
    return r < 0 ? r : schedules_emit(f, seq, change);
}
