/* Verifying what is at rest, a little at a time (reliability.md W14).
 *
 * Reads the files anew, header and every record, also those that a truncation has cut: recovery
 * would refuse the log for them as well. What was not synced yet is left alone. */
#include "storage/wal_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "storage/io.h"

static int damaged(const struct wal_segment *s, uint64_t offset, const char *what,
                   struct errtext *reterr) {
    char name[WAL_NAME_BYTES];

    wal_files_segment_name(name, s->h.seq);
    errtext_set(reterr, "%s: %s at offset %" PRIu64, name, what, offset);
    return ERR_CORRUPT;
}

/* The header block must be what was written, and the file as long as it says. */
static int check_header(struct wal *w, const struct wal_segment *s, struct errtext *reterr) {
    uint8_t want[WAL_HEADER_BYTES];
    uint8_t got[WAL_HEADER_BYTES];
    struct disk_file *f = NULL;
    char name[WAL_NAME_BYTES];
    uint64_t bytes = 0;
    size_t n = 0;
    int r;

    wal_files_segment_name(name, s->h.seq);
    r = w->disk.ops->open(w->disk.ctx, name, DISK_RDONLY, &f);
    if (r == -ENOENT)
        return damaged(s, 0, "segment file is missing", reterr);
    if (r >= 0)
        r = w->disk.ops->size(w->disk.ctx, f, &bytes);
    if (r >= 0)
        r = io_read_full(&w->disk, f, 0, got, sizeof(got), &n);
    f = io_close(&w->disk, f);
    if (r < 0) {
        errtext_set(reterr, "cannot read %s: %s", name, err_name(r));
        return r;
    }
    wal_format_header_encode(&s->h, want);
    if (n != sizeof(got) || memcmp(got, want, sizeof(got)) != 0)
        return damaged(s, 0, "damaged segment header", reterr);
    if (bytes != s->h.segment_bytes)
        return damaged(s, MIN(bytes, (uint64_t) s->h.segment_bytes),
                       "file size is not the size in its header", reterr);
    return 0;
}

/* The segment of the cursor, or the next one when that has been released. */
static size_t find_segment(const struct wal *w, uint64_t seq) {
    size_t i = 0;

    while (i + 1 < w->segs_count && w->segs[i].h.seq < seq)
        i++;
    return i;
}

/* The highest index with a record in the first @i + 1 segments: once a snapshot covers it, a
 * release gives back the damaged one. */
static uint64_t affected(const struct wal *w, size_t i) {
    for (i++; i-- > 0;)
        if (w->segs[i].hi > 0)
            return w->segs[i].hi;
    return wal_base_index(w);
}

/* Verify from *offset on until @budget is used up or the segment ends. */
static int scrub_segment(struct wal *w, const struct wal_segment *s, uint32_t limit,
                         uint32_t *offset, uint32_t *budget, struct errtext *reterr) {
    if (*offset < WAL_HEADER_BYTES) {
        int r = check_header(w, s, reterr);

        if (r < 0)
            return r;
        *offset = WAL_HEADER_BYTES;
        *budget -= MIN(*budget, WAL_HEADER_BYTES);
    }
    while (*offset<limit && * budget> 0) {
        struct wal_frame f;
        uint32_t bytes;
        int r = wal_read_frame(w, s, *offset, &f, reterr);

        if (r < 0)
            return r;
        bytes = wal_format_record_bytes(f.len);
        *offset += bytes;
        *budget -= MIN(*budget, bytes);
    }
    return 0;
}

int wal_scrub(struct wal *w, struct wal_scrub *cursor, uint32_t max_bytes, uint64_t *ret_index,
              struct errtext *reterr) {
    uint32_t budget = max_bytes;
    size_t i;

    ASSERT(w && cursor);
    ASSERT(max_bytes > 0 && ret_index);
    if (w->failed)
        return wal_fail(w, w->failed, reterr, "verify", "the log");
    wal_read_forget(w); /* what was read ahead says nothing about the disk */
    for (i = find_segment(w, cursor->seq); i < w->segs_count && budget > 0; i++) {
        const struct wal_segment *s = &w->segs[i];
        uint32_t limit = i + 1 < w->segs_count ? s->end : w->synced;
        int r;

        if (cursor->seq != s->h.seq)
            *cursor = (struct wal_scrub){.seq = s->h.seq};
        r = scrub_segment(w, s, limit, &cursor->offset, &budget, reterr);
        if (r == ERR_CORRUPT)
            *ret_index = affected(w, i);
        if (r < 0)
            return r;
        if (cursor->offset < limit)
            return 0; /* here the next step goes on */
        if (i + 1 == w->segs_count)
            *cursor = (struct wal_scrub){0};
        else
            *cursor = (struct wal_scrub){.seq = w->segs[i + 1].h.seq};
    }
    return 0;
}
