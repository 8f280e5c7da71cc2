/* Showing the files of a log that nobody has open: read-only, damaged or not.
 *
 *   list names -> read every header -> mark the chain from the newest -> walk each segment, and
 *   behind bytes that are no record look for the next one -> the spares
 *
 * What it is not: a judgement whether the log may be used; wal_recover.c has that, on the same
 * functions (wal_scan.c). Memory: one segment, and a header for each. */
#include "storage/wal_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/codec.h"
#include "storage/io.h"

struct found {
    char name[WAL_NAME_BYTES];
    uint64_t seq; /* in its name; of a spare: its number */
    uint64_t bytes;
    struct wal_segment_header h;
    const char *why; /* the header cannot be used: why; NULL = it can */
    bool spare;
    uint32_t end; /* where the next one in the chain says that this one ends; 0 = nobody says */
};

struct inspection {
    const struct disk *disk;
    const struct wal_inspect_visitor *v;
    struct errtext *reterr;
    struct found *files; /* owned; segments by number, then spares by number */
    size_t count;
    size_t cap;
    uint8_t *bytes; /* owned; of one segment */
    size_t bytes_cap;
    uint64_t missing_seq;  /* the chain leads to it and it is not there; 0 = none */
    uint64_t released_seq; /* the release records that were shown give back what is before it */
};

static void inspection_done(struct inspection *x) {
    free(x->files);
    free(x->bytes);
}

static int each_name(void *arg, const char *name) {
    struct inspection *x = (struct inspection *) arg;
    struct found f = {0};

    if (wal_files_parse_segment(name, &f.seq) == 0)
        wal_files_segment_name(f.name, f.seq);
    else if (wal_files_parse_spare(name, &f.seq) == 0)
        wal_files_spare_name(f.name, f.seq);
    else
        return 0;
    f.spare = f.name[0] == 's';
    if (x->count == WAL_SEGMENTS_MAX)
        return ERR_LIMIT;
    if (x->count == x->cap) {
        size_t cap = MAX((size_t) 16, x->cap * 2);
        struct found *files = (struct found *) realloc(x->files, cap * sizeof(*files));

        if (!files)
            return -ENOMEM;
        x->files = files;
        x->cap = cap;
    }
    x->files[x->count++] = f;
    return 0;
}

static int compare_found(const void *a, const void *b) {
    const struct found *x = (const struct found *) a;
    const struct found *y = (const struct found *) b;

    if (x->spare != y->spare)
        return x->spare ? 1 : -1;
    return x->seq < y->seq ? -1 : x->seq > y->seq;
}

/* Up to @len bytes from the beginning of @f. A file that cannot be read is a finding, no failure;
 * what this process lacks itself says nothing about the file: -ENOMEM. */
static int read_file(struct inspection *x, struct found *f, uint8_t *out, size_t len,
                     size_t *ret_n) {
    struct disk_file *file = NULL;
    int r = x->disk->ops->open(x->disk->ctx, f->name, DISK_RDONLY, &file);

    *ret_n = 0;
    if (r >= 0)
        r = x->disk->ops->size(x->disk->ctx, file, &f->bytes);
    if (r >= 0)
        r = io_read_full(x->disk, file, 0, out, len, ret_n);
    file = io_close(x->disk, file);
    if (r == -ENOMEM) {
        errtext_set(x->reterr, "out of memory reading %s", f->name);
        return r;
    }
    if (r < 0)
        f->why = err_name(r);
    return 0;
}

static int read_header(struct inspection *x, struct found *f) {
    uint8_t block[WAL_HEADER_BYTES];
    size_t n = 0;
    int r = read_file(x, f, block, sizeof(block), &n);

    if (r < 0 || f->why)
        return r;
    r = n < sizeof(block) ? ERR_CORRUPT : wal_format_header_decode(block, &f->h);
    if (n < sizeof(block))
        f->why = "file ends inside its header";
    else if (r == ERR_VERSION)
        f->why = "written by a newer version of this program";
    else if (r < 0)
        f->why = "no intact segment header";
    else if (!f->spare && f->h.seq != f->seq)
        f->why = "holds another segment's content";
    return 0;
}

static struct found *find(struct inspection *x, uint64_t seq) {
    const struct found key = {.seq = seq};

    return (struct found *) bsearch(&key, x->files, x->count, sizeof(key), compare_found);
}

static int report_bad(struct inspection *x, const char *name, uint32_t offset, bool torn,
                      const char *why) {
    return x->v->bad(x->v->arg, name, offset, torn, why);
}

/* From the newest segment back, as recovery goes: who ends where, and who is missing. */
static void mark_chain(struct inspection *x) {
    struct found *f = NULL;
    uint64_t oldest = 0;

    for (size_t i = 0; i < x->count && !x->files[i].spare; i++)
        f = &x->files[i];
    if (!f)
        return;
    for (size_t left = x->count; left > 0 && !f->why; left--) {
        struct found *before;

        oldest = MAX(oldest, f->h.oldest_seq);
        if (f->h.prev_seq == 0 || f->h.prev_seq < oldest)
            return;
        before = find(x, f->h.prev_seq);
        if (!before) {
            x->missing_seq = f->h.prev_seq;
            return;
        }
        before->end = f->h.prev_end;
        f = before;
    }
}

/* Once all records were shown: a release among them explains what is not there. */
static int report_missing(struct inspection *x) {
    char name[WAL_NAME_BYTES];

    if (x->missing_seq == 0 || x->missing_seq < x->released_seq)
        return 0;
    wal_files_segment_name(name, x->missing_seq);
    return report_bad(x, name, 0, false, "segment file is missing");
}

static int report_record(struct inspection *x, const struct found *f, uint32_t offset,
                         const struct wal_frame *frame) {
    struct wal_inspect_record r = {
        .segment = f->name,
        .offset = offset,
        .record = {.index = frame->index,
                   .term = frame->term,
                   .type = frame->type,
                   .data = slice_of(frame->data, frame->len)},
    };

    switch (frame->kind) {
    case WAL_KIND_DATA:
        r.kind = "entry";
        break;
    case WAL_KIND_TRUNCATE:
        r.kind = "truncate";
        r.record.index--; /* the last that remained */
        break;
    case WAL_KIND_RELEASE:
        r.kind = "release";
        x->released_seq = MAX(x->released_seq, get_le64(frame->data));
        break;
    case WAL_KIND_SEAL:
        r.kind = "seal";
        break;
    }
    return x->v->record(x->v->arg, &r);
}

/* Is there a trace of a record that was begun at @at, where none is intact nor behind? A recycled
 * file is full of records of other uses; they do not count. */
static bool begun_at(const struct wal_image *s, uint32_t at) {
    const struct wal_place place = wal_place_at(&s->h, at);
    struct wal_frame f;

    if (s->len - at >= WAL_RECORD_HEADER_BYTES &&
        wal_format_record_parse(s->bytes + at, WAL_RECORD_HEADER_BYTES, &place, &f) !=
            WAL_PARSE_BAD)
        return true; /* its header is there, its data is not */
    for (size_t i = at; s->h.use == 1 && i < s->len; i++)
        if (s->bytes[i] != 0)
            return true; /* of a new file, zero until then */
    return false;
}

/* No record at @at, where one could be. *ret_next: where to go on; 0 = the end. */
static int report_gap(struct inspection *x, const struct found *f, const struct wal_image *s,
                      uint32_t at, uint32_t known, uint32_t *ret_next) {
    bool damage = at < known || at < f->end;
    struct wal_frame frame;
    uint32_t next = 0;
    bool more = wal_scan_next(s, at, &next, &frame);

    *ret_next = more ? next : 0;
    if (!damage && !more && !begun_at(s, at))
        return 0;
    return report_bad(x, f->name, at, !damage,
                      damage ? "damaged record: what follows was synced later"
                             : "torn or damaged end: nothing says it was ever durable");
}

/* All before this offset is vouched for by the header or by some record. (A record speaks only of
 * what is before itself, so one number does for the whole segment.) */
static uint32_t vouched_end(const struct wal_image *s) {
    uint32_t known = s->h.base_end;
    uint32_t at = WAL_HEADER_BYTES;
    struct wal_frame f;

    while (wal_scan_next(s, at, &at, &f)) {
        known = MAX(known, f.synced);
        at += wal_format_record_bytes(f.len);
    }
    return known;
}

/* Go on behind a gap: take over where the log is from @f itself. False when it does not say. */
static bool resume(struct wal_cursor *c, const struct wal_frame *f) {
    if (f->kind == WAL_KIND_RELEASE)
        return false;
    c->crc = f->crc;
    c->last_index = f->kind == WAL_KIND_TRUNCATE ? f->index - 1 : f->index;
    c->last_term = f->term;
    return true;
}

/* One intact record; *lost while a gap before it hides where the log is. */
static int show_record(struct inspection *x, const struct found *f, uint32_t at,
                       const struct wal_frame *frame, struct wal_cursor *c, bool *lost) {
    int r = 0;

    if (!*lost && !wal_cursor_follow(c, frame)) {
        *lost = true;
        r = report_bad(x, f->name, at, false, "record does not continue the one before it");
    }
    if (*lost)
        *lost = !resume(c, frame);
    return r != 0 ? r : report_record(x, f, at, frame);
}

static int show_records(struct inspection *x, const struct found *f, const struct wal_image *s) {
    uint32_t limit = (uint32_t) MIN(s->len, (size_t) (f->end ? f->end : s->h.segment_bytes));
    struct wal_cursor c = wal_cursor_of(&s->h);
    uint32_t known = vouched_end(s);
    bool lost = false;

    for (uint32_t at = WAL_HEADER_BYTES; at < limit;) {
        struct wal_frame frame;
        uint32_t next;
        int r;

        if (!wal_scan_frame(s, at, &frame)) {
            r = report_gap(x, f, s, at, known, &at);
            if (r != 0 || at == 0)
                return r;
            lost = true;
            continue;
        }
        r = show_record(x, f, at, &frame, &c, &lost);
        next = at + wal_format_record_bytes(frame.len);
        if (r == 0 && at < known && known < next)
            r = report_bad(x, f->name, at, false, "synced offset is inside a record");
        if (r != 0)
            return r;
        at = next;
    }
    return 0;
}

static int show_segment(struct inspection *x, struct found *f) {
    struct wal_image s = {.h = f->h};
    int r;

    if (x->bytes_cap < f->h.segment_bytes) {
        free(x->bytes);
        x->bytes_cap = 0;
        x->bytes = (uint8_t *) malloc(f->h.segment_bytes);
        if (!x->bytes) {
            errtext_set(x->reterr, "out of memory reading %s", f->name);
            return -ENOMEM;
        }
        x->bytes_cap = f->h.segment_bytes;
    }
    r = read_file(x, f, x->bytes, f->h.segment_bytes, &s.len);
    if (r < 0)
        return r;
    if (f->why)
        return report_bad(x, f->name, 0, false, f->why);
    s.bytes = x->bytes;
    if (f->bytes != f->h.segment_bytes) {
        r = report_bad(x, f->name, (uint32_t) MIN(f->bytes, (uint64_t) f->h.segment_bytes), false,
                       "file size is not the size in its header");
        if (r != 0)
            return r;
    }
    return show_records(x, f, &s);
}

static int show_file(struct inspection *x, struct found *f) {
    struct wal_inspect_segment s = {
        .name = f->name,
        .bytes = (uint32_t) MIN(f->bytes, (uint64_t) UINT32_MAX),
        .spare = f->spare,
    };
    int r;

    if (f->why && !f->spare)
        return report_bad(x, f->name, 0, false, f->why);
    if (!f->spare) {
        s.seq = f->h.seq;
        s.prev_seq = f->h.prev_seq;
        s.prev_index = f->h.prev_index;
        s.prev_term = f->h.prev_term;
        s.oldest_seq = f->h.oldest_seq;
        memcpy(s.identity.cluster_id, f->h.cluster_id, sizeof(s.identity.cluster_id));
        s.identity.node_id = f->h.node_id;
    }
    r = x->v->segment(x->v->arg, &s);
    return r != 0 || f->spare ? r : show_segment(x, f);
}

int wal_inspect(const struct disk *disk, const struct wal_inspect_visitor *v,
                struct errtext *reterr) {
    _cleanup_(inspection_done) struct inspection x = {.disk = disk, .v = v, .reterr = reterr};
    bool readable = false;
    int r;

    ASSERT(disk && disk->ops);
    ASSERT(v && v->segment && v->record && v->bad);
    r = disk->ops->list(disk->ctx, each_name, &x);
    if (r < 0) {
        errtext_set(reterr, "cannot list the log directory: %s", err_name(r));
        return r;
    }
    if (x.count > 0)
        qsort(x.files, x.count, sizeof(*x.files), compare_found);
    for (size_t i = 0; i < x.count; i++) {
        r = read_header(&x, &x.files[i]);
        if (r < 0)
            return r;
        readable = readable || (!x.files[i].spare && !x.files[i].why);
    }
    mark_chain(&x);
    for (size_t i = 0; i < x.count && r == 0; i++)
        r = show_file(&x, &x.files[i]);
    if (r == 0)
        r = report_missing(&x);
    if (r != 0 || readable)
        return r;
    errtext_set(reterr, "the directory has no readable log segment");
    return ERR_CORRUPT;
}
