/* Segment files: names, spares, and how a spare becomes a segment and a segment a spare.
 *
 *   wal-prepare.tmp --zeros, sync, rename--> spare-N.wal --header, sync, (records, sync), rename-->
 *   wal-SEQ.log --released or replaced, rename--> spare-M.wal
 *
 * Every arrow ends with a directory sync before the next one begins, so a name never shows content
 * of a later use. Nothing is written into a use of a file before that use's header is durable:
 * that is why the use number read from a spare's header is never lower than that of any stale
 * record in it (reliability.md W10). */
#include "storage/wal_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "storage/io.h"

void wal_files_segment_name(char out[WAL_NAME_BYTES], uint64_t seq) {
    (void) snprintf(out, WAL_NAME_BYTES, "wal-%016" PRIx64 ".log", seq);
}

void wal_files_spare_name(char out[WAL_NAME_BYTES], uint64_t id) {
    (void) snprintf(out, WAL_NAME_BYTES, "spare-%016" PRIx64 ".wal", id);
}

/* Strict: what we did not write exactly so is not ours and is left alone. */
static int parse_hex_name(const char *name, const char *prefix, const char *suffix, uint64_t *ret) {
    size_t prefix_len = strlen(prefix);
    uint64_t v = 0;

    if (strlen(name) != prefix_len + 16 + strlen(suffix) ||
        strncmp(name, prefix, prefix_len) != 0 || strcmp(name + prefix_len + 16, suffix) != 0)
        return 1;
    for (size_t i = 0; i < 16; i++) {
        char c = name[prefix_len + i];

        if (c >= '0' && c <= '9')
            v = v << 4 | (uint64_t) (c - '0');
        else if (c >= 'a' && c <= 'f')
            v = v << 4 | (uint64_t) (c - 'a' + 10);
        else
            return 1;
    }
    *ret = v;
    return 0;
}

int wal_files_parse_segment(const char *name, uint64_t *ret_seq) {
    return parse_hex_name(name, "wal-", ".log", ret_seq);
}

int wal_files_parse_spare(const char *name, uint64_t *ret_id) {
    return parse_hex_name(name, "spare-", ".wal", ret_id);
}

/* Zero-filled with written zeros, not fallocate: a commit into written blocks changes no file
 * system metadata and takes half the time (design.md section 6). */
static int fill_file(struct wal *w, const char *name, int flags, uint32_t bytes) {
    const struct disk_ops *ops = w->disk.ops;
    struct disk_file *f = NULL;
    int r;

    r = ops->open(w->disk.ctx, name, flags, &f);
    if (r < 0)
        return r;
    if (flags & DISK_CREATE)
        r = ops->truncate(w->disk.ctx, f, 0);
    if (r >= 0)
        r = io_write_zeros(&w->disk, f, 0, bytes);
    if (r >= 0)
        r = ops->datasync(w->disk.ctx, f);
    f = io_close(&w->disk, f);
    return r;
}

/* No space is no reason to stop while the segment in use has room: take the attempt back. */
static int spare_failed(struct wal *w, int r, uint32_t bytes, struct errtext *reterr) {
    int u;

    wal_files_build_drop(w);
    if (r != -ENOSPC && r != -EDQUOT)
        return wal_fail(w, r, reterr, "write and sync", WAL_TEMP_NAME);
    u = w->disk.ops->unlink(w->disk.ctx, WAL_TEMP_NAME);
    if (u < 0 && u != -ENOENT)
        return wal_fail(w, u, reterr, "remove", WAL_TEMP_NAME);
    errtext_set(reterr, "no space for a log segment of %" PRIu32 " bytes: %s", bytes, err_name(r));
    return r;
}

/* The temporary file is complete and synced: it becomes a spare. */
static int spare_publish(struct wal *w, uint64_t *ret_id, struct errtext *reterr) {
    const struct disk_ops *ops = w->disk.ops;
    char name[WAL_NAME_BYTES];
    uint64_t id = w->next_spare_id;
    int r;

    wal_files_spare_name(name, id);
    r = ops->rename(w->disk.ctx, WAL_TEMP_NAME, name);
    if (r >= 0)
        r = ops->sync_dir(w->disk.ctx);
    if (r < 0)
        return wal_fail(w, r, reterr, "rename to", name);
    w->next_spare_id++;
    *ret_id = id;
    return 0;
}

void wal_files_build_drop(struct wal *w) {
    w->build = io_close(&w->disk, w->build);
    w->build_bytes = 0;
}

int wal_files_build_spare(struct wal *w, uint32_t *budget, uint64_t *ret_id,
                          struct errtext *reterr) {
    const struct disk_ops *ops = w->disk.ops;
    uint32_t n;
    int r = 0;

    ASSERT(*budget > 0);
    if (!w->build) {
        r = ops->open(w->disk.ctx, WAL_TEMP_NAME, DISK_CREATE, &w->build);
        if (r >= 0)
            r = ops->truncate(w->disk.ctx, w->build, 0);
        w->build_bytes = 0;
    }
    n = MIN(*budget, w->o.segment_bytes - w->build_bytes);
    if (r >= 0)
        r = io_write_zeros(&w->disk, w->build, w->build_bytes, w->build_bytes + n);
    if (r >= 0)
        r = ops->datasync(w->disk.ctx, w->build);
    if (r < 0)
        return spare_failed(w, r, w->o.segment_bytes, reterr);
    *budget -= n;
    w->build_bytes += n;
    if (w->build_bytes < w->o.segment_bytes)
        return 1;
    wal_files_build_drop(w);
    return spare_publish(w, ret_id, reterr);
}

int wal_files_make_spare(struct wal *w, uint32_t bytes, uint64_t *ret_id, struct errtext *reterr) {
    uint32_t budget = bytes;
    int r;

    ASSERT(bytes % WAL_BLOCK_BYTES == 0);
    ASSERT(bytes >= WAL_SEGMENT_BYTES_MIN);
    if (bytes == w->o.segment_bytes) {
        r = wal_files_build_spare(w, &budget, ret_id, reterr); /* finish what was begun */
        ASSERT(r != 1);
        return r;
    }
    wal_files_build_drop(w);
    r = fill_file(w, WAL_TEMP_NAME, DISK_CREATE, bytes);
    if (r < 0)
        return spare_failed(w, r, bytes, reterr);
    return spare_publish(w, ret_id, reterr);
}

/* The use number a spare has had: 0 when fresh. A header that is neither intact nor all zero was
 * torn while it was written; the uses before it are then unknown, so the whole file is zeroed. */
static int spare_use(struct wal *w, const char *name, struct disk_file *f, uint32_t bytes,
                     uint64_t *ret_use) {
    struct wal_segment_header h;
    uint8_t *block = w->stage;
    size_t n = 0;
    int r;

    STATIC_ASSERT(WAL_STAGE_BYTES >= WAL_HEADER_BYTES, "the stage can hold a header");
    ASSERT(w->stage_len == 0);
    ASSERT(f);
    *ret_use = 0;
    r = io_read_full(&w->disk, f, 0, block, WAL_HEADER_BYTES, &n);
    if (r < 0)
        return r;
    if (n == WAL_HEADER_BYTES && wal_format_header_decode(block, &h) == 0) {
        *ret_use = h.use;
        return 0;
    }
    for (size_t i = 0; i < n; i++)
        if (block[i] != 0)
            return fill_file(w, name, 0, bytes);
    return 0;
}

static int take_spare(struct wal *w, uint32_t bytes, uint64_t *ret_id, struct errtext *reterr) {
    if (bytes == w->o.segment_bytes && w->spares_count > 0) {
        *ret_id = w->spares[--w->spares_count].id;
        return 0;
    }
    return wal_files_make_spare(w, bytes, ret_id, reterr);
}

/* A record larger than a whole segment gets a segment of its own size. */
static uint32_t segment_bytes_for(const struct wal *w, uint32_t min_bytes) {
    uint32_t need = (WAL_HEADER_BYTES + min_bytes + WAL_BLOCK_BYTES - 1) & ~(WAL_BLOCK_BYTES - 1);

    ASSERT(need <= WAL_SEGMENT_BYTES_MAX);
    return MAX(need, w->o.segment_bytes);
}

static int push_segment(struct wal *w, const struct wal_segment_header *h) {
    if (w->segs_count == w->segs_cap) {
        size_t cap = MAX((size_t) 8, w->segs_cap * 2);
        struct wal_segment *segs = (struct wal_segment *) realloc(w->segs, cap * sizeof(*segs));

        if (!segs)
            return -ENOMEM;
        w->segs = segs;
        w->segs_cap = cap;
    }
    w->segs[w->segs_count++] = (struct wal_segment){.h = *h, .end = WAL_HEADER_BYTES};
    return 0;
}

int wal_files_begin(struct wal *w, struct wal_segment_header *h, uint32_t min_bytes,
                    uint64_t *ret_spare_id, struct errtext *reterr) {
    uint32_t bytes = segment_bytes_for(w, min_bytes);
    char name[WAL_NAME_BYTES];
    uint64_t use = 0;
    int r;

    ASSERT(!w->stage_dirty);
    ASSERT(!w->unsynced);
    w->active = io_close(&w->disk, w->active);
    w->stage_len = 0;
    r = take_spare(w, bytes, ret_spare_id, reterr);
    if (r < 0) {
        w->failed = w->failed ? w->failed : r; /* no room to write: closed, with the text set */
        return r;
    }
    wal_files_spare_name(name, *ret_spare_id);
    r = w->disk.ops->open(w->disk.ctx, name, 0, &w->active);
    if (r >= 0)
        r = spare_use(w, name, w->active, bytes, &use);
    if (r < 0)
        return wal_fail(w, r, reterr, "open", name);
    h->use = use + 1;
    h->seq = w->next_seq;
    h->segment_bytes = bytes;
    h->node_id = w->o.identity.node_id;
    memcpy(h->cluster_id, w->o.identity.cluster_id, sizeof(h->cluster_id));
    r = push_segment(w, h);
    if (r < 0)
        return wal_fail(w, r, reterr, "remember", name);
    w->next_seq++;
    wal_format_header_encode(h, w->stage);
    r = io_write_full(&w->disk, w->active, 0, w->stage, WAL_HEADER_BYTES);
    if (r >= 0)
        r = w->disk.ops->datasync(w->disk.ctx, w->active);
    if (r < 0)
        return wal_fail(w, r, reterr, "write the header of", name);
    w->cur.crc = h->prev_crc;
    w->stage_offset = WAL_HEADER_BYTES;
    w->synced = WAL_HEADER_BYTES;
    w->synced_crc = h->prev_crc;
    w->sealed = 0;
    return 0;
}

int wal_files_publish(struct wal *w, uint64_t spare_id, struct errtext *reterr) {
    char from[WAL_NAME_BYTES];
    char to[WAL_NAME_BYTES];
    int r;

    ASSERT(w->active);
    ASSERT(!w->stage_dirty && !w->unsynced);
    wal_files_spare_name(from, spare_id);
    wal_files_segment_name(to, wal_active(w)->h.seq);
    r = w->disk.ops->rename(w->disk.ctx, from, to);
    if (r >= 0)
        r = w->disk.ops->sync_dir(w->disk.ctx);
    if (r < 0)
        return wal_fail(w, r, reterr, "rename to", to);
    return 0;
}

/* Only files of the configured size are worth keeping, and no more than wanted. */
static int retire_one(struct wal *w, uint64_t seq, struct wal_spare *ret_spare, bool *ret_kept,
                      size_t kept) {
    struct disk_file *f = NULL;
    char name[WAL_NAME_BYTES];
    char spare[WAL_NAME_BYTES];
    uint64_t bytes = 0;
    int r;

    wal_files_segment_name(name, seq);
    *ret_kept = false;
    r = w->disk.ops->open(w->disk.ctx, name, DISK_RDONLY, &f);
    if (r < 0)
        return r;
    r = w->disk.ops->size(w->disk.ctx, f, &bytes);
    f = io_close(&w->disk, f);
    if (r < 0)
        return r;
    if (bytes != w->o.segment_bytes || kept >= w->o.spare_segments)
        return w->disk.ops->unlink(w->disk.ctx, name);
    ret_spare->id = w->next_spare_id++;
    wal_files_spare_name(spare, ret_spare->id);
    *ret_kept = true;
    return w->disk.ops->rename(w->disk.ctx, name, spare);
}

int wal_files_retire(struct wal *w, const uint64_t *seqs, size_t n, struct errtext *reterr) {
    size_t count = w->spares_count;
    int r = 0;

    ASSERT(seqs || n == 0);
    ASSERT(w->spares_count <= w->spares_cap);
    if (n == 0)
        return 0;
    wal_read_forget(w);
    if (count + n > w->spares_cap) {
        struct wal_spare *spares =
            (struct wal_spare *) realloc(w->spares, (count + n) * sizeof(*spares));

        if (!spares)
            return wal_fail(w, -ENOMEM, reterr, "recycle", "segments");
        w->spares = spares;
        w->spares_cap = count + n;
    }
    for (size_t i = 0; i < n && r >= 0; i++) {
        bool kept = false;

        r = retire_one(w, seqs[i], &w->spares[count], &kept, count);
        count += kept ? 1 : 0;
    }
    /* Not reused before this sync: else the old name could come back with new content. */
    if (r >= 0)
        r = w->disk.ops->sync_dir(w->disk.ctx);
    if (r < 0)
        return wal_fail(w, r, reterr, "recycle", "segments");
    w->spares_count = count;
    return 0;
}
