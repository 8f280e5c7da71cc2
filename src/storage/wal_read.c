/* Reading records back, with every checksum verified (reliability.md W14, W16).
 *
 * One segment at a time is open for reading, through one window of file bytes. */
#include "storage/wal_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "storage/io.h"

/* The window's usual size; it grows only for a larger record. */
#define WAL_WINDOW_BYTES (64U * 1024)

void wal_read_forget(struct wal *w) {
    ASSERT(w);
    w->reading = io_close(&w->disk, w->reading);
    w->reading_seq = 0;
    w->window_len = 0;
}

static int open_segment(struct wal *w, const struct wal_segment *s, struct errtext *reterr) {
    char name[WAL_NAME_BYTES];
    int r;

    if (w->reading && w->reading_seq == s->h.seq)
        return 0;
    wal_read_forget(w);
    wal_files_segment_name(name, s->h.seq);
    r = w->disk.ops->open(w->disk.ctx, name, DISK_RDONLY, &w->reading);
    if (r < 0) {
        errtext_set(reterr, "cannot open %s: %s", name, err_name(r));
        return r;
    }
    w->reading_seq = s->h.seq;
    return 0;
}

/* Make the window begin at @offset and hold at least @need bytes (fewer only at the end of the
 * segment's records). */
static int load_window(struct wal *w, const struct wal_segment *s, uint32_t offset, size_t need,
                       struct errtext *reterr) {
    size_t want = MIN((size_t) (s->end - offset), MAX(need, (size_t) WAL_WINDOW_BYTES));
    size_t n = 0;
    int r;

    ASSERT(offset < s->end);
    if (w->window_cap < want) {
        uint8_t *window = (uint8_t *) realloc(w->window, want);

        if (!window) {
            errtext_set(reterr, "out of memory reading the log");
            return -ENOMEM;
        }
        w->window = window;
        w->window_cap = want;
    }
    w->window_len = 0;
    w->window_offset = offset;
    r = io_read_full(&w->disk, w->reading, offset, w->window, want, &n);
    if (r < 0) {
        errtext_set(reterr, "cannot read segment %" PRIx64 " at offset %" PRIu32 ": %s", s->h.seq,
                    offset, err_name(r));
        return r;
    }
    w->window_len = n;
    return 0;
}

static int corrupt(const struct wal_segment *s, uint32_t offset, struct errtext *reterr) {
    char name[WAL_NAME_BYTES];

    wal_files_segment_name(name, s->h.seq);
    errtext_set(reterr, "%s: damaged record at offset %" PRIu32, name, offset);
    return ERR_CORRUPT;
}

int wal_read_frame(struct wal *w, const struct wal_segment *s, uint32_t offset,
                   struct wal_frame *ret_f, struct errtext *reterr) {
    const struct wal_place at = wal_place_at(&s->h, offset);
    size_t need = WAL_RECORD_HEADER_BYTES;
    int r;

    ASSERT(offset >= WAL_HEADER_BYTES);
    if (offset >= s->end)
        return corrupt(s, offset, reterr);
    r = open_segment(w, s, reterr);
    if (r < 0)
        return r;
    /* At most three rounds: what is in the window, a fresh window, one grown to the record. */
    for (int round = 0; round < 3; round++) {
        bool inside = offset >= w->window_offset &&
                      (uint64_t) offset + need <= (uint64_t) w->window_offset + w->window_len;

        if (inside) {
            size_t skip = offset - w->window_offset;
            enum wal_parse p =
                wal_format_record_parse(w->window + skip, w->window_len - skip, &at, ret_f);

            if (p == WAL_PARSE_OK)
                return 0;
            if (p == WAL_PARSE_BAD)
                return corrupt(s, offset, reterr);
            need = wal_format_record_bytes(ret_f->len);
        }
        r = load_window(w, s, offset, need, reterr);
        if (r < 0)
            return r;
    }
    return corrupt(s, offset, reterr);
}

/* Find the record of @index: its segment, offset and content. */
static int locate(struct wal *w, uint64_t index, struct wal_segment **ret_s, uint32_t *ret_offset,
                  struct wal_frame *ret_f, struct errtext *reterr) {
    struct wal_segment *s = wal_index_find(w, index);
    uint32_t offset;

    ASSERT(s);
    offset = wal_index_mark(s, index)->offset;
    for (;;) {
        int r = wal_read_frame(w, s, offset, ret_f, reterr);

        if (r < 0)
            return r;
        if (ret_f->kind == WAL_KIND_DATA && ret_f->index == index)
            break;
        /* A mark leads to its record over records of lower indices only. */
        if (ret_f->kind == WAL_KIND_DATA && ret_f->index > index)
            return corrupt(s, offset, reterr);
        offset += wal_format_record_bytes(ret_f->len);
    }
    *ret_s = s;
    *ret_offset = offset;
    return 0;
}

/* From the record at *offset to the one of @index, the next in order. */
static int advance(struct wal *w, uint64_t index, struct wal_segment **s, uint32_t *offset,
                   struct wal_frame *f, struct errtext *reterr) {
    ASSERT(index == f->index + 1);
    if (index > (*s)->hi || wal_index_mark(*s, index)->index == index)
        return locate(w, index, s, offset, f, reterr);
    do {
        int r;

        *offset += wal_format_record_bytes(f->len);
        r = wal_read_frame(w, *s, *offset, f, reterr);
        if (r < 0)
            return r;
    } while (f->kind != WAL_KIND_DATA);
    if (f->index != index)
        return corrupt(*s, *offset, reterr);
    return 0;
}

int wal_read(struct wal *w, uint64_t first, size_t max_bytes,
             int (*each)(void *arg, const struct wal_record *rec), void *arg,
             struct errtext *reterr) {
    struct wal_segment *s = NULL;
    struct wal_frame f;
    uint32_t offset = 0;
    size_t total = 0;
    int r;

    ASSERT(w);
    ASSERT(each);
    if (w->failed)
        return wal_fail(w, w->failed, reterr, "read", "the log");
    if (first == 0 || first > w->cur.last_index || first < wal_first_index(w) ||
        wal_first_index(w) == 0)
        return 1;
    r = locate(w, first, &s, &offset, &f, reterr);
    while (r == 0) {
        const struct wal_record rec = {
            .index = f.index, .term = f.term, .type = f.type, .data = slice_of(f.data, f.len)};

        if (total > 0 && f.len > max_bytes - MIN(total, max_bytes))
            return 0;
        r = each(arg, &rec);
        if (r != 0)
            return r;
        total += f.len;
        if (f.index == w->cur.last_index || total >= max_bytes)
            return 0;
        r = advance(w, f.index + 1, &s, &offset, &f, reterr);
    }
    return r;
}

int wal_term(struct wal *w, uint64_t index, uint64_t *ret_term, struct errtext *reterr) {
    struct wal_segment *s = NULL;
    struct wal_frame f;
    uint32_t offset = 0;
    int r;

    ASSERT(w);
    ASSERT(ret_term);
    if (w->failed)
        return wal_fail(w, w->failed, reterr, "read", "the log");
    if (index == 0 || index > w->cur.last_index || index < wal_first_index(w) ||
        wal_first_index(w) == 0)
        return 1;
    if (index == w->cur.last_index) {
        *ret_term = w->cur.last_term;
        return 0;
    }
    r = locate(w, index, &s, &offset, &f, reterr);
    if (r < 0)
        return r;
    *ret_term = f.term;
    return 0;
}
