/* Opening the log: which files belong to it, which records survive, what is damage.
 *
 *   list the directory -> decode every segment header -> follow the chain from the newest segment
 *   back to the oldest needed -> replay forward -> judge the tail -> continue in a NEW segment ->
 *   recycle what the chain no longer needs -> hand the records to the caller
 *
 * How damage is told from a torn tail (reliability.md W7, W8). Bytes are known durable when
 *   - their segment is finished (the next one was begun only after a successful sync), or
 *   - they lie before base_end of their segment's header, or
 *   - any intact record after them in the segment says so by its synced offset, or
 *   - they lie before the place that the meta file says (synced_at, written now and then).
 * A bad byte there is damage: refused, naming file and offset. Any other bad byte can be what an
 * unacknowledged write left behind, and the log ends before it. What remains undecidable is damage
 * in the last batches before a crash: nothing written later vouches for them.
 *
 * Why always a new segment: what lies in the tail may be in the page cache only, when the process
 * died on a failed sync (W3), and the remains of a torn batch must not be met again by a later
 * recovery. So records not known durable are copied to a new file, which gets its name after it
 * has been synced. Until then nothing the old files hold has changed, so a crash in the middle of
 * recovery just makes it start again from the same bytes. */
#include "storage/wal_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/codec.h"
#include "storage/io.h"

struct recovery {
    struct wal *w;
    struct errtext *reterr;
    uint64_t *seqs; /* owned; all segment files, ascending */
    size_t seqs_count;
    size_t seqs_cap;
    uint64_t *spares; /* owned; ids of spare files */
    size_t spares_count;
    size_t spares_cap;
    bool temp;                          /* a half-made spare exists */
    struct wal_segment_header *headers; /* owned; of the chain, newest first */
    size_t headers_count;
    uint8_t *bytes; /* owned */
    size_t bytes_cap;
    struct wal_image image; /* the segment being replayed, in bytes */
};

static void recovery_done(struct recovery *r) {
    free(r->seqs);
    free(r->spares);
    free(r->headers);
    free(r->bytes);
}

static int bad(struct recovery *r, int err, uint64_t seq, uint64_t offset, const char *what) {
    char name[WAL_NAME_BYTES];

    ASSERT(err < 0);
    wal_files_segment_name(name, seq);
    errtext_set(r->reterr, "%s: %s at offset %" PRIu64, name, what, offset);
    return err;
}

static int failed(struct recovery *r, int err, const char *doing, const char *name) {
    ASSERT(err < 0);
    errtext_set(r->reterr, "cannot %s %s: %s", doing, name, err_name(err));
    return err;
}

static int push_u64(uint64_t **a, size_t *count, size_t *cap, uint64_t v) {
    if (*count == *cap) {
        size_t n = MAX((size_t) 16, *cap * 2);
        uint64_t *p = (uint64_t *) realloc(*a, n * sizeof(*p));

        if (!p)
            return -ENOMEM;
        *a = p;
        *cap = n;
    }
    (*a)[(*count)++] = v;
    return 0;
}

static int each_name(void *arg, const char *name) {
    struct recovery *r = (struct recovery *) arg;
    uint64_t v = 0;

    if (wal_files_parse_segment(name, &v) == 0) {
        if (r->seqs_count >= WAL_SEGMENTS_MAX)
            return ERR_LIMIT;
        return push_u64(&r->seqs, &r->seqs_count, &r->seqs_cap, v);
    }
    if (wal_files_parse_spare(name, &v) == 0) {
        if (r->spares_count >= WAL_SEGMENTS_MAX)
            return ERR_LIMIT;
        return push_u64(&r->spares, &r->spares_count, &r->spares_cap, v);
    }
    if (strcmp(name, WAL_TEMP_NAME) == 0)
        r->temp = true;
    return 0;
}

static int compare_u64(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *) a;
    uint64_t y = *(const uint64_t *) b;

    return x < y ? -1 : x > y;
}

static int list_files(struct recovery *r) {
    struct wal *w = r->w;
    int e = w->disk.ops->list(w->disk.ctx, each_name, r);

    if (e < 0)
        return failed(r, e, "list", "the log directory");
    if (r->seqs_count > 0)
        qsort(r->seqs, r->seqs_count, sizeof(*r->seqs), compare_u64);
    if (r->spares_count > 0)
        qsort(r->spares, r->spares_count, sizeof(*r->spares), compare_u64);
    w->next_seq = r->seqs_count > 0 ? r->seqs[r->seqs_count - 1] + 1 : 1;
    w->next_spare_id = r->spares_count > 0 ? r->spares[r->spares_count - 1] + 1 : 1;
    if (w->next_seq == 0 || w->next_spare_id == 0)
        return failed(r, ERR_CORRUPT, "use", "file names with the highest number");
    return 0;
}

/* Adopt spares of the configured size and number; others were made under another setting. */
static int adopt_spares(struct recovery *r) {
    struct wal *w = r->w;
    char name[WAL_NAME_BYTES];
    int e = 0;

    if (r->temp)
        e = w->disk.ops->unlink(w->disk.ctx, WAL_TEMP_NAME);
    if (e < 0)
        return failed(r, e, "remove", WAL_TEMP_NAME);
    if (r->spares_count == 0)
        return 0;
    w->spares = (struct wal_spare *) calloc(r->spares_count, sizeof(*w->spares));
    if (!w->spares)
        return failed(r, -ENOMEM, "remember", "spare segments");
    w->spares_cap = r->spares_count;
    for (size_t i = 0; i < r->spares_count; i++) {
        struct disk_file *f = NULL;
        uint64_t bytes = 0;

        wal_files_spare_name(name, r->spares[i]);
        e = w->disk.ops->open(w->disk.ctx, name, DISK_RDONLY, &f);
        if (e >= 0)
            e = w->disk.ops->size(w->disk.ctx, f, &bytes);
        f = io_close(&w->disk, f);
        if (e >= 0 && (bytes != w->o.segment_bytes || w->spares_count >= w->o.spare_segments))
            e = w->disk.ops->unlink(w->disk.ctx, name);
        else if (e >= 0)
            w->spares[w->spares_count++] = (struct wal_spare){.id = r->spares[i]};
        if (e < 0)
            return failed(r, e, "look at", name);
    }
    return 0;
}

/* Read and judge one header. The name is given only to files whose header is durable, so a bad
 * header is never the trace of a crash. */
static int load_header(struct recovery *r, uint64_t seq, struct wal_segment_header *ret_h) {
    struct wal *w = r->w;
    struct disk_file *f = NULL;
    char name[WAL_NAME_BYTES];
    uint64_t bytes = 0;
    size_t n = 0;
    int e;

    wal_files_segment_name(name, seq);
    e = w->disk.ops->open(w->disk.ctx, name, DISK_RDONLY, &f);
    if (e >= 0)
        e = w->disk.ops->size(w->disk.ctx, f, &bytes);
    if (e >= 0)
        e = io_read_full(&w->disk, f, 0, w->stage, WAL_HEADER_BYTES, &n);
    f = io_close(&w->disk, f);
    if (e < 0)
        return failed(r, e, "read", name);
    if (n < WAL_HEADER_BYTES)
        return bad(r, ERR_CORRUPT, seq, n, "file ends inside its header");
    e = wal_format_header_decode(w->stage, ret_h);
    if (e == ERR_VERSION)
        return bad(r, e, seq, 8, "written by a newer version of this program");
    if (e < 0)
        return bad(r, e, seq, 0, "damaged segment header");
    if (memcmp(ret_h->cluster_id, w->o.identity.cluster_id, sizeof(ret_h->cluster_id)) != 0)
        return bad(r, ERR_FOREIGN, seq, 16, "belongs to another cluster");
    if (ret_h->node_id != w->o.identity.node_id)
        return bad(r, ERR_FOREIGN, seq, 32, "belongs to another node");
    if (ret_h->seq != seq)
        return bad(r, ERR_CORRUPT, seq, 40, "holds another segment's content");
    /* Files are written to their whole size before use and never shortened. */
    if (bytes != ret_h->segment_bytes)
        return bad(r, ERR_CORRUPT, seq, MIN(bytes, (uint64_t) ret_h->segment_bytes),
                   "file size is not the size in its header");
    return 0;
}

static bool has_seq(const struct recovery *r, uint64_t seq) {
    return r->seqs_count > 0 &&
           bsearch(&seq, r->seqs, r->seqs_count, sizeof(seq), compare_u64) != NULL;
}

/* Follow prev_seq from the newest segment. A gap is judged after the replay, which may find the
 * record that released the missing one. */
static int load_chain(struct recovery *r) {
    uint64_t seq = r->seqs[r->seqs_count - 1];
    uint64_t oldest = 0;

    ASSERT(r->seqs_count > 0);
    r->headers = (struct wal_segment_header *) calloc(r->seqs_count, sizeof(*r->headers));
    if (!r->headers)
        return failed(r, -ENOMEM, "remember", "segment headers");
    while (seq > 0 && has_seq(r, seq)) {
        struct wal_segment_header *h = &r->headers[r->headers_count];
        int e = load_header(r, seq, h);

        if (e < 0)
            return e;
        r->headers_count++;
        oldest = MAX(oldest, h->oldest_seq);
        seq = h->prev_seq;
        if (seq < oldest)
            break;
    }
    return 0;
}

static int load_segment(struct recovery *r, const struct wal_segment_header *h) {
    struct wal *w = r->w;
    struct disk_file *f = NULL;
    char name[WAL_NAME_BYTES];
    size_t n = 0;
    int e;

    wal_files_segment_name(name, h->seq);
    if (r->bytes_cap < h->segment_bytes) {
        free(r->bytes);
        r->bytes_cap = 0;
        r->bytes = (uint8_t *) malloc(h->segment_bytes);
        if (!r->bytes)
            return failed(r, -ENOMEM, "read", name);
        r->bytes_cap = h->segment_bytes;
    }
    e = w->disk.ops->open(w->disk.ctx, name, DISK_RDONLY, &f);
    if (e >= 0)
        e = io_read_full(&w->disk, f, 0, r->bytes, h->segment_bytes, &n);
    f = io_close(&w->disk, f);
    r->image = (struct wal_image){.h = *h, .bytes = r->bytes, .len = n};
    return e < 0 ? failed(r, e, "read", name) : 0;
}

/* Enter the records in [from, to) of the loaded segment, known to be good, into the index. */
static int note_range(struct recovery *r, uint32_t to) {
    struct wal *w = r->w;
    struct wal_segment *s = wal_active(w);

    while (s->end < to) {
        struct wal_frame f;
        int e = wal_index_reserve(s);

        if (e < 0)
            return failed(r, e, "remember", "records");
        if (!wal_scan_frame(&r->image, s->end, &f))
            return bad(r, ERR_CORRUPT, s->h.seq, s->end, "record changed while it was read");
        wal_index_note(w, &f, s->end);
    }
    return 0;
}

static int push_segment(struct recovery *r, const struct wal_segment_header *h) {
    struct wal *w = r->w;

    ASSERT(w->segs_count < w->segs_cap);
    w->segs[w->segs_count++] = (struct wal_segment){.h = *h, .end = WAL_HEADER_BYTES};
    w->cur.oldest_seq = MAX(w->cur.oldest_seq, h->oldest_seq);
    w->cur.floor = MIN(w->cur.floor, h->floor);
    return 0;
}

/* A finished segment: every byte of it was durable before @next was begun. */
static int replay_finished(struct recovery *r, const struct wal_segment_header *h,
                           const struct wal_segment_header *next) {
    struct wal_cursor c = wal_cursor_of(h);
    uint32_t end = 0;
    uint32_t known = 0;
    int e = load_segment(r, h);

    if (e < 0)
        return e;
    if (next->prev_end > h->segment_bytes || next->prev_end < WAL_HEADER_BYTES)
        return bad(r, ERR_CORRUPT, next->seq, 96, "end of the previous segment is out of range");
    wal_scan_walk(&r->image, next->prev_end, &c, &end, &known);
    if (end != next->prev_end)
        return bad(r, ERR_CORRUPT, h->seq, end, "damaged record in a finished segment");
    if (c.crc != next->prev_crc || c.last_index != next->prev_index ||
        c.last_term != next->prev_term)
        return bad(r, ERR_CORRUPT, next->seq, 64, "segment does not continue the one before it");
    e = push_segment(r, h);
    return e < 0 ? e : note_range(r, end);
}

/* The oldest segment names one before it that is not there: fine when it has been released. */
static int check_gap(struct recovery *r, uint64_t oldest_seq) {
    const struct wal_segment_header *oldest = &r->headers[r->headers_count - 1];

    /* Compared with the missing one, not with the oldest present: that may be a copy, made by a
     * restart, of the segment that the release record named. */
    if (oldest->prev_seq < oldest_seq || oldest->prev_seq == 0)
        return 0;
    return bad(r, ERR_CORRUPT, oldest->prev_seq, 0, "segment file is missing");
}

static int check_hint(struct recovery *r, uint64_t last_index, uint64_t floor) {
    uint64_t hint = MIN(r->w->o.synced_hint, floor);

    if (last_index < r->w->o.state_index) {
        errtext_set(r->reterr,
                    "the log ends at %" PRIu64 " but the state has applied %" PRIu64
                    ": log files are missing",
                    last_index, r->w->o.state_index);
        return ERR_CORRUPT;
    }
    if (last_index >= hint)
        return 0;
    errtext_set(r->reterr,
                "the log ends at index %" PRIu64 " but index %" PRIu64
                " is known to have been durable: segment files are missing or damaged",
                last_index, hint);
    return ERR_CORRUPT;
}

/* The newest segment must be the one of synced_at, or one that was begun later. */
static int check_newest(struct recovery *r) {
    uint64_t newest = r->seqs_count > 0 ? r->seqs[r->seqs_count - 1] : 0;
    uint64_t seq = r->w->o.synced_at.seq;

    return newest >= seq ? 0 : bad(r, ERR_CORRUPT, seq, 0, "segment file is missing");
}

/* And when it is that one, it must still hold what it held: else damage at its end, or an old copy
 * of it, would look like a torn tail. */
static int check_synced(struct recovery *r, const struct wal_segment_header *h) {
    const struct wal_position *at = &r->w->o.synced_at;
    struct wal_cursor c = wal_cursor_of(h);
    uint32_t end = WAL_HEADER_BYTES;
    uint32_t known = 0;

    if (h->seq != at->seq)
        return 0;
    wal_scan_walk(&r->image, MIN(at->end, h->segment_bytes), &c, &end, &known);
    if (end == at->end && c.crc == at->crc)
        return 0;
    return bad(r, ERR_CORRUPT, h->seq, end,
               "records that were synced are missing: a damaged or old file");
}

/* Everything that can refuse the log is decided here, before anything is written. */
static int judge_tail(struct recovery *r, const struct wal_segment_header *h, uint32_t *ret_end,
                      uint32_t *ret_known) {
    struct wal_cursor c = wal_cursor_of(h);
    int e = load_segment(r, h);

    if (e < 0)
        return e;
    wal_scan_walk(&r->image, h->segment_bytes, &c, ret_end, ret_known);
    if (*ret_end < *ret_known || wal_scan_vouched(&r->image, *ret_end))
        return bad(r, ERR_CORRUPT, h->seq, *ret_end,
                   "damaged record before records that were synced later");
    e = check_synced(r, h);
    if (e >= 0)
        e = check_gap(r, MAX(c.oldest_seq, r->w->cur.oldest_seq));
    return e < 0 ? e : check_hint(r, c.last_index, MIN(c.floor, r->w->cur.floor));
}

/* Bytes that copy_range will write. */
static uint32_t copy_bytes(const struct recovery *r, uint32_t from, uint32_t to) {
    uint32_t bytes = to - from;
    struct wal_frame f;

    while (from < to && wal_scan_frame(&r->image, from, &f)) {
        uint32_t n = wal_format_record_bytes(f.len);

        bytes -= f.kind == WAL_KIND_SEAL ? n : 0;
        from += n;
    }
    return bytes;
}

/* Write the records of the loaded segment in [from, to) again, as the active segment's own. Seals
 * stay behind: all that is copied will be vouched for by base_end. */
static int copy_range(struct recovery *r, const struct wal_segment_header *h, uint32_t from,
                      uint32_t to) {
    struct wal *w = r->w;

    for (uint32_t offset = from; offset < to;) {
        struct wal_frame f;
        int e;

        if (!wal_scan_frame(&r->image, offset, &f))
            return bad(r, ERR_CORRUPT, h->seq, offset, "record changed while it was read");
        offset += wal_format_record_bytes(f.len);
        if (f.kind == WAL_KIND_SEAL)
            continue;
        e = wal_put(w, &f, r->reterr);
        if (e < 0)
            return e;
    }
    return 0;
}

/* Begin the segment this life of the log writes to, holding again the records [from, to) of the
 * loaded segment @h (NULL: a new log). */
static int continue_in_new(struct recovery *r, struct wal_segment_header *fresh,
                           const struct wal_segment_header *h, uint32_t from, uint32_t to) {
    struct wal *w = r->w;
    uint64_t spare = 0;
    uint32_t bytes;
    int e;

    ASSERT(from <= to);
    bytes = h ? copy_bytes(r, from, to) : 0;
    fresh->base_end = WAL_HEADER_BYTES + bytes;
    e = wal_files_begin(w, fresh, bytes, &spare, r->reterr);
    if (e >= 0 && h)
        e = copy_range(r, h, from, to);
    if (e >= 0)
        e = wal_sync(w, r->reterr);
    if (e >= 0)
        e = wal_files_publish(w, spare, r->reterr);
    w->synced_index = w->cur.last_index;
    return e;
}

/* Replay the last segment and continue after it. When it is at most half full all of it moves to
 * the new segment, so that restarts do not leave a trail of almost empty files. */
static int replay_last(struct recovery *r, const struct wal_segment_header *h) {
    struct wal *w = r->w;
    struct wal_segment_header fresh = {0};
    struct wal_cursor c = wal_cursor_of(h);
    uint32_t end = 0;
    uint32_t known = 0;
    uint32_t ignored = 0;
    bool all;
    int e = judge_tail(r, h, &end, &known);

    if (e < 0)
        return e;
    all = end - WAL_HEADER_BYTES <= h->segment_bytes / 2;
    if (all) {
        fresh.prev_seq = h->prev_seq;
        fresh.prev_end = h->prev_end;
        known = WAL_HEADER_BYTES;
    } else {
        uint32_t at = 0;

        wal_scan_walk(&r->image, known, &c, &at, &ignored);
        if (at != known)
            return bad(r, ERR_CORRUPT, h->seq, at, "synced offset is inside a record");
        e = push_segment(r, h);
        if (e >= 0)
            e = note_range(r, known);
        if (e < 0)
            return e;
        fresh.prev_seq = h->seq;
        fresh.prev_end = known;
    }
    fresh.prev_crc = c.crc;
    fresh.prev_index = c.last_index;
    fresh.prev_term = c.last_term;
    w->cur.oldest_seq = MAX(w->cur.oldest_seq, h->oldest_seq);
    w->cur.floor = MIN(w->cur.floor, h->floor);
    fresh.floor = w->cur.floor;
    fresh.oldest_seq = w->cur.oldest_seq;
    return continue_in_new(r, &fresh, h, known, end);
}

static int replay(struct recovery *r) {
    struct wal *w = r->w;
    const struct wal_segment_header *oldest = &r->headers[r->headers_count - 1];

    ASSERT(r->headers_count > 0);
    w->segs = (struct wal_segment *) calloc(r->headers_count + 1, sizeof(*w->segs));
    if (!w->segs)
        return failed(r, -ENOMEM, "remember", "segments");
    w->segs_cap = r->headers_count + 1;
    w->cur = wal_cursor_of(oldest);
    for (size_t i = r->headers_count; i-- > 1;) {
        int e = replay_finished(r, &r->headers[i], &r->headers[i - 1]);

        if (e < 0)
            return e;
    }
    return replay_last(r, &r->headers[0]);
}

static bool in_use(const struct wal *w, uint64_t seq) {
    for (size_t i = 0; i < w->segs_count; i++)
        if (w->segs[i].h.seq == seq)
            return true;
    return false;
}

/* Release what a crash interrupted: segments before oldest_seq that are in the chain still, and
 * files the chain does not need. */
static int retire_unused(struct recovery *r) {
    struct wal *w = r->w;
    _cleanup_(freep) uint64_t *seqs = (uint64_t *) calloc(r->seqs_count, sizeof(*seqs));
    size_t keep = 0;
    size_t n = 0;

    if (!seqs)
        return failed(r, -ENOMEM, "recycle", "segments");
    while (keep + 1 < w->segs_count && w->segs[keep].h.seq < w->cur.oldest_seq)
        free(w->segs[keep++].marks);
    memmove(w->segs, w->segs + keep, (w->segs_count - keep) * sizeof(*w->segs));
    w->segs_count -= keep;
    for (size_t i = 0; i < r->seqs_count; i++)
        if (!in_use(w, r->seqs[i]))
            seqs[n++] = r->seqs[i];
    return wal_files_retire(w, seqs, n, r->reterr);
}

static int recover(struct recovery *r) {
    int e = list_files(r);

    if (e >= 0)
        e = check_newest(r);
    if (e < 0)
        return e;
    if (r->seqs_count == 0) {
        struct wal_segment_header fresh = {.floor = UINT64_MAX};

        r->w->cur.floor = UINT64_MAX;
        e = check_hint(r, 0, UINT64_MAX);
        if (e >= 0)
            e = adopt_spares(r);
        return e < 0 ? e : continue_in_new(r, &fresh, NULL, WAL_HEADER_BYTES, WAL_HEADER_BYTES);
    }
    e = load_chain(r);
    if (e >= 0)
        e = adopt_spares(r);
    if (e >= 0)
        e = replay(r);
    return e < 0 ? e : retire_unused(r);
}

static int wal_new(const struct disk *disk, const struct wal_options *o, struct wal **ret) {
    _cleanup_(wal_closep) struct wal *w = (struct wal *) calloc(1, sizeof(*w));

    if (!w)
        return -ENOMEM;
    w->disk = *disk;
    w->o = *o;
    w->stage = (uint8_t *) malloc(WAL_STAGE_BYTES);
    if (!w->stage)
        return -ENOMEM;
    *ret = TAKE_PTR(w);
    return 0;
}

int wal_open(const struct disk *disk, const struct wal_options *o,
             int (*each)(void *arg, const struct wal_record *rec), void *arg, struct wal **ret,
             struct errtext *reterr) {
    _cleanup_(recovery_done) struct recovery r = {.reterr = reterr};
    _cleanup_(wal_closep) struct wal *w = NULL;
    int e;

    ASSERT(disk && disk->ops);
    ASSERT(each && ret);
    ASSERT(o->segment_bytes >= WAL_SEGMENT_BYTES_MIN && o->segment_bytes <= WAL_SEGMENT_BYTES_MAX);
    ASSERT(o->segment_bytes % WAL_BLOCK_BYTES == 0);
    e = wal_new(disk, o, &w);
    if (e < 0)
        return e;
    r.w = w;
    e = recover(&r);
    if (e < 0)
        return e;
    wal_check(w);
    if (wal_first_index(w) > 0) {
        e = wal_read(w, wal_first_index(w), SIZE_MAX, each, arg, reterr);
        if (e != 0)
            return e;
    }
    *ret = TAKE_PTR(w);
    return 0;
}
