/* Which record is where: surviving index ranges and sparse offsets of each segment.
 *
 * What it is not: a cache of records. Memory: one mark for WAL_MARK_EVERY records or truncation.
 * Invariants: the surviving ranges of the segments are consecutive and ascending; between two
 * marks of a segment the surviving records follow each other in the file, because a truncation
 * forces the next record to have a mark (a walk from a mark never meets a cut record first). */
#include "storage/wal_internal.h"

#include <errno.h>
#include <stdlib.h>

#include "base/codec.h"

int wal_index_reserve(struct wal_segment *s) {
    size_t cap;
    struct wal_mark *marks;

    ASSERT(s);
    ASSERT(s->marks_count <= s->marks_cap);
    if (s->marks_count < s->marks_cap)
        return 0;
    cap = MAX((size_t) 16, s->marks_cap * 2);
    marks = (struct wal_mark *) realloc(s->marks, cap * sizeof(*marks));
    if (!marks)
        return -ENOMEM;
    s->marks = marks;
    s->marks_cap = cap;
    return 0;
}

static void note_data(struct wal *w, const struct wal_frame *f, uint32_t offset) {
    struct wal_segment *s = wal_active(w);

    ASSERT(f->index == w->cur.last_index + 1);
    if (s->lo == 0) {
        ASSERT(s->marks_count == 0);
        s->lo = f->index;
        s->term_before_lo = w->cur.last_term;
    }
    s->hi = f->index;
    if (s->marks_count == 0 || s->since_mark >= WAL_MARK_EVERY) {
        ASSERT(s->marks_count < s->marks_cap);
        s->marks[s->marks_count++] = (struct wal_mark){.index = f->index, .offset = offset};
        s->since_mark = 0;
    }
    s->since_mark++;
    w->cur.last_index = f->index;
    w->cur.last_term = f->term;
}

static void note_truncate(struct wal *w, const struct wal_frame *f) {
    ASSERT(f->index > 0);
    ASSERT(f->index <= w->cur.last_index);
    for (size_t i = w->segs_count; i-- > 0;) {
        struct wal_segment *s = &w->segs[i];

        if (s->lo == 0 || s->hi < f->index)
            continue;
        while (s->marks_count > 0 && s->marks[s->marks_count - 1].index >= f->index)
            s->marks_count--;
        s->hi = f->index - 1;
        if (s->lo >= f->index) {
            s->lo = 0;
            s->hi = 0;
        }
    }
    wal_active(w)->since_mark = WAL_MARK_EVERY;
    w->cur.last_index = f->index - 1;
    w->cur.last_term = f->term;
    w->cur.floor = MIN(w->cur.floor, w->cur.last_index);
}

void wal_index_note(struct wal *w, const struct wal_frame *f, uint32_t offset) {
    struct wal_segment *s = wal_active(w);

    ASSERT(offset == s->end);
    switch (f->kind) {
    case WAL_KIND_DATA:
        note_data(w, f, offset);
        break;
    case WAL_KIND_TRUNCATE:
        note_truncate(w, f);
        break;
    case WAL_KIND_RELEASE:
        w->cur.oldest_seq = get_le64(f->data);
        break;
    case WAL_KIND_SEAL:
        break;
    }
    w->cur.crc = f->crc;
    s->end = offset + wal_format_record_bytes(f->len);
}

struct wal_segment *wal_index_find(struct wal *w, uint64_t index) {
    ASSERT(index > 0);
    ASSERT(w->segs_count > 0);
    /* From the newest: that is what a follower nearly in step asks for. */
    for (size_t i = w->segs_count; i-- > 0;) {
        struct wal_segment *s = &w->segs[i];

        if (s->lo > 0 && s->lo <= index && index <= s->hi)
            return s;
    }
    return NULL;
}

const struct wal_mark *wal_index_mark(const struct wal_segment *s, uint64_t index) {
    size_t lo = 0;
    size_t hi = s->marks_count;

    ASSERT(s->marks_count > 0);
    ASSERT(s->marks[0].index <= index);
    while (hi - lo > 1) {
        size_t mid = lo + (hi - lo) / 2;

        if (s->marks[mid].index <= index)
            lo = mid;
        else
            hi = mid;
    }
    return &s->marks[lo];
}
