/* Writing: append, truncate, sync, seal, and the segments they need.
 *
 * What it is not: recovery (wal_recover.c), reading (wal_read.c) or giving back (wal_release.c).
 * Invariants, checked after each change: wal_check(). A failed write or sync closes the log for
 * good, because after it nobody knows what the disk holds (reliability.md W3). */
#include "storage/wal_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "storage/io.h"

void wal_check(const struct wal *w) {
    const struct wal_segment *s;

    ASSERT(w->segs_count > 0);
    s = &w->segs[w->segs_count - 1];
    ASSERT(s->end % 8 == 0);
    ASSERT(s->end >= WAL_HEADER_BYTES);
    ASSERT(s->end <= s->h.segment_bytes);
    ASSERT(w->synced <= s->end);
    ASSERT(w->stage_offset + w->stage_len == s->end);
    ASSERT(w->cur.last_index == 0 || w->cur.last_term > 0);
#ifdef CHRONOS_CHECKS
    uint64_t next = 0;

    for (size_t i = 0; i < w->segs_count; i++) {
        const struct wal_segment *g = &w->segs[i];

        ASSERT((g->lo == 0) == (g->marks_count == 0));
        if (g->lo == 0)
            continue;
        ASSERT(next == 0 || g->lo == next);
        ASSERT(g->marks[0].index == g->lo);
        next = g->hi + 1;
    }
    ASSERT(next == 0 || next == w->cur.last_index + 1);
#endif
}

int wal_fail(struct wal *w, int err, struct errtext *reterr, const char *doing, const char *name) {
    ASSERT(err < 0);
    if (!w->failed) {
        w->failed = err;
        errtext_set(reterr, "cannot %s %s: %s", doing, name, err_name(err));
    } else {
        errtext_set(reterr, "the log is closed after an earlier failure: %s", err_name(w->failed));
    }
    return err;
}

static int write_stage(struct wal *w, struct errtext *reterr) {
    char name[WAL_NAME_BYTES];
    int r;

    ASSERT(w->stage_offset % WAL_BLOCK_BYTES == 0);
    ASSERT(w->stage_len % WAL_BLOCK_BYTES == 0);
    r = io_write_full(&w->disk, w->active, w->stage_offset, w->stage, w->stage_len);
    w->unsynced = true;
    w->stage_dirty = false;
    if (r >= 0)
        return 0;
    wal_files_segment_name(name, wal_active(w)->h.seq);
    return wal_fail(w, r, reterr, "write", name);
}

/* Whole blocks only: the last one is padded with zeros and kept in memory, and the next flush
 * writes it again from its beginning. Its old bytes are written as they were, so a torn write of
 * it cannot change them; and the kernel never has to read a block to fill in the rest. */
int wal_flush(struct wal *w, struct errtext *reterr) {
    uint32_t len = w->stage_len;
    uint32_t keep = len % WAL_BLOCK_BYTES;
    int r;

    ASSERT(w->stage_len <= WAL_STAGE_BYTES);
    if (!w->stage_dirty)
        return 0;
    if (keep > 0) {
        memset(w->stage + len, 0, WAL_BLOCK_BYTES - keep);
        w->stage_len = len - keep + WAL_BLOCK_BYTES;
    }
    r = write_stage(w, reterr);
    if (r < 0)
        return r;
    memmove(w->stage, w->stage + (len - keep), keep);
    w->stage_offset += len - keep;
    w->stage_len = keep;
    return 0;
}

static int stage_bytes(struct wal *w, const void *data, size_t len, struct errtext *reterr) {
    const uint8_t *p = (const uint8_t *) data;

    ASSERT(w->stage_len <= WAL_STAGE_BYTES);
    while (len > 0) {
        size_t n = MIN(len, (size_t) (WAL_STAGE_BYTES - w->stage_len));

        if (n == 0) {
            int r = write_stage(w, reterr);

            if (r < 0)
                return r;
            w->stage_offset += w->stage_len;
            w->stage_len = 0;
            continue;
        }
        memcpy(w->stage + w->stage_len, p, n);
        w->stage_len += (uint32_t) n;
        w->stage_dirty = true;
        p += n;
        len -= n;
    }
    return 0;
}

int wal_put(struct wal *w, struct wal_frame *f, struct errtext *reterr) {
    static const uint8_t zeros[8];
    struct wal_segment *s = wal_active(w);
    const uint32_t offset = s->end;
    const struct wal_place at = wal_place_at(&s->h, offset);
    const uint32_t total = wal_format_record_bytes(f->len);
    uint8_t header[WAL_RECORD_HEADER_BYTES];
    int r;

    ASSERT(total <= s->h.segment_bytes - offset);
    r = wal_index_reserve(s);
    if (r < 0)
        return wal_fail(w, r, reterr, "remember", "a record");
    f->prev_crc = w->cur.crc;
    f->synced = w->synced;
    wal_format_record_encode(f, &at, header);
    r = stage_bytes(w, header, sizeof(header), reterr);
    if (r < 0)
        return r;
    r = stage_bytes(w, f->data, f->len, reterr);
    if (r < 0)
        return r;
    r = stage_bytes(w, zeros, total - WAL_RECORD_HEADER_BYTES - f->len, reterr);
    if (r < 0)
        return r;
    wal_index_note(w, f, offset);
    return 0;
}

int wal_sync_active(struct wal *w, struct errtext *reterr) {
    char name[WAL_NAME_BYTES];
    int r = wal_flush(w, reterr);

    if (r < 0)
        return r;
    if (w->unsynced) {
        r = w->disk.ops->datasync(w->disk.ctx, w->active);
        if (r < 0) {
            wal_files_segment_name(name, wal_active(w)->h.seq);
            return wal_fail(w, r, reterr, "sync", name);
        }
        w->unsynced = false;
    }
    w->synced = wal_active(w)->end;
    w->synced_crc = w->cur.crc;
    w->synced_index = w->cur.last_index;
    return 0;
}

/* Finish the active segment and begin the next. The old one is durable to its end before the new
 * one exists: recovery relies on it to call any bad byte in a finished segment damage. */
static int roll(struct wal *w, uint32_t need, struct errtext *reterr) {
    const struct wal_segment *s = wal_active(w);
    struct wal_segment_header h;
    uint64_t spare = 0;
    int r = wal_sync_active(w, reterr);

    if (r < 0)
        return r;
    h = (struct wal_segment_header){
        .prev_seq = s->h.seq,
        .prev_end = s->end,
        .prev_crc = w->cur.crc,
        .prev_index = w->cur.last_index,
        .prev_term = w->cur.last_term,
        .floor = w->cur.floor,
        .oldest_seq = w->cur.oldest_seq,
        .base_end = WAL_HEADER_BYTES,
    };
    r = wal_files_begin(w, &h, need, &spare, reterr);
    if (r < 0)
        return r;
    return wal_files_publish(w, spare, reterr);
}

int wal_put_with_room(struct wal *w, struct wal_frame *f, struct errtext *reterr) {
    const struct wal_segment *s = wal_active(w);
    uint32_t total = wal_format_record_bytes(f->len);

    ASSERT(!w->failed);
    ASSERT(f->len <= WAL_RECORD_BYTES_MAX);
    if (total > s->h.segment_bytes - s->end) {
        int r = roll(w, total, reterr);

        if (r < 0)
            return r;
    }
    return wal_put(w, f, reterr);
}

int wal_append(struct wal *w, const struct wal_record *recs, size_t n, struct errtext *reterr) {
    ASSERT(w);
    ASSERT(recs || n == 0);
    if (w->failed)
        return wal_fail(w, w->failed, reterr, "append to", "the log");
    for (size_t i = 0; i < n; i++) {
        struct wal_frame f = {
            .kind = WAL_KIND_DATA,
            .index = recs[i].index,
            .term = recs[i].term,
            .type = recs[i].type,
            .len = (uint32_t) recs[i].data.len,
            .data = recs[i].data.data,
        };
        int r;

        ASSERT(recs[i].data.len <= WAL_RECORD_BYTES_MAX);
        ASSERT(recs[i].index == w->cur.last_index + 1);
        ASSERT(recs[i].term >= w->cur.last_term && recs[i].term > 0);
        ASSERT(recs[i].type > 0);
        r = wal_put_with_room(w, &f, reterr);
        if (r < 0)
            return r;
    }
    if (n > 0) {
        int r = wal_flush(w, reterr);

        if (r < 0)
            return r;
    }
    wal_check(w);
    return 0;
}

int wal_truncate(struct wal *w, uint64_t from, struct errtext *reterr) {
    struct wal_frame f = {.kind = WAL_KIND_TRUNCATE, .index = from};
    int r;

    ASSERT(w);
    ASSERT(from > 0);
    if (w->failed)
        return wal_fail(w, w->failed, reterr, "truncate", "the log");
    if (from > w->cur.last_index)
        return 0;
    ASSERT(wal_first_index(w) > 0 && from >= wal_first_index(w));
    if (from > wal_first_index(w)) {
        r = wal_term(w, from - 1, &f.term, reterr);
        ASSERT(r <= 0);
        if (r < 0)
            return r;
    } else {
        f.term = wal_index_find(w, from)->term_before_lo;
    }
    r = wal_put_with_room(w, &f, reterr);
    if (r >= 0)
        r = wal_flush(w, reterr);
    if (r < 0)
        return r;
    w->synced_index = MIN(w->synced_index, w->cur.last_index);
    wal_check(w);
    return 0;
}

int wal_sync(struct wal *w, struct errtext *reterr) {
    int r;

    ASSERT(w);
    if (w->failed)
        return wal_fail(w, w->failed, reterr, "sync", "the log");
    if (!w->unsynced && !w->stage_dirty)
        return 0;
    r = wal_sync_active(w, reterr);
    if (r < 0)
        return r;
    wal_check(w);
    return 0;
}

/* Does anything in the active segment depend on a last batch that nothing vouches for? */
static bool is_sealed(struct wal *w) {
    const struct wal_segment *s = wal_active(w);

    return s->end == w->sealed || s->end <= s->h.base_end;
}

int wal_seal(struct wal *w, struct errtext *reterr) {
    struct wal_frame f = {.kind = WAL_KIND_SEAL};
    int r;

    ASSERT(w);
    if (w->failed)
        return wal_fail(w, w->failed, reterr, "seal", "the log");
    r = wal_sync_active(w, reterr);
    if (r < 0 || is_sealed(w))
        return r;
    f.index = w->cur.last_index;
    f.term = w->cur.last_term;
    r = wal_put_with_room(w, &f, reterr); /* a new segment vouches for the one before as well */
    if (r >= 0)
        r = wal_sync_active(w, reterr);
    if (r < 0)
        return r;
    w->sealed = wal_active(w)->end;
    wal_check(w);
    return 0;
}

int wal_prepare(struct wal *w, struct errtext *reterr) {
    uint32_t budget = WAL_PREPARE_STEP_BYTES;

    ASSERT(w);
    if (w->failed)
        return wal_fail(w, w->failed, reterr, "prepare", "the log");
    while (w->spares_count < w->o.spare_segments && budget > 0) {
        uint64_t id = 0;
        int r;

        if (w->spares_count == w->spares_cap) {
            size_t cap = w->spares_cap + 4;
            struct wal_spare *spares =
                (struct wal_spare *) realloc(w->spares, cap * sizeof(*spares));

            if (!spares)
                return wal_fail(w, -ENOMEM, reterr, "remember", "a spare segment");
            w->spares = spares;
            w->spares_cap = cap;
        }
        r = wal_files_build_spare(w, &budget, &id, reterr);
        if (r == 1)
            return 0; /* the rest in the next steps */
        if (r < 0)
            return r;
        w->spares[w->spares_count++] = (struct wal_spare){.id = id};
    }
    return 0;
}

struct wal *wal_close(struct wal *w) {
    if (!w)
        return NULL;
    wal_files_build_drop(w);
    w->active = io_close(&w->disk, w->active);
    w->reading = io_close(&w->disk, w->reading);
    for (size_t i = 0; i < w->segs_count; i++)
        free(w->segs[i].marks);
    free(w->segs);
    free(w->spares);
    free(w->stage);
    free(w->window);
    free(w);
    return NULL;
}

/* The first segment that a record can be read from; NULL when there is none. */
static const struct wal_segment *first_segment(const struct wal *w) {
    for (size_t i = 0; i < w->segs_count; i++)
        if (w->segs[i].lo > 0)
            return &w->segs[i];
    return NULL;
}

uint64_t wal_first_index(const struct wal *w) {
    const struct wal_segment *s = first_segment(w);

    return s ? s->lo : 0;
}

uint64_t wal_last_index(const struct wal *w) {
    ASSERT(w);
    return w->cur.last_index;
}

uint64_t wal_synced_index(const struct wal *w) {
    ASSERT(w);
    return w->synced_index;
}

struct wal_position wal_synced_at(const struct wal *w) {
    ASSERT(w && w->segs_count > 0);
    return (struct wal_position){
        .seq = w->segs[w->segs_count - 1].h.seq, .end = w->synced, .crc = w->synced_crc};
}

uint64_t wal_base_index(const struct wal *w) {
    const struct wal_segment *s = first_segment(w);

    return s ? s->lo - 1 : w->cur.last_index;
}

uint64_t wal_base_term(const struct wal *w) {
    const struct wal_segment *s = first_segment(w);

    return s ? s->term_before_lo : w->cur.last_term;
}

uint64_t wal_bytes(const struct wal *w) {
    uint64_t bytes = 0;

    ASSERT(w);
    for (size_t i = 0; i < w->segs_count; i++)
        bytes += w->segs[i].h.segment_bytes;
    return bytes;
}

bool wal_wants_prepare(const struct wal *w) {
    ASSERT(w);
    return !w->failed && w->spares_count < w->o.spare_segments;
}
