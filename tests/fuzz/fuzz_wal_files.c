/* Whole files of a log, as a disk gives them back: segments of 8 KiB one after the other, each
 * under the name that its header says. Opening ends; it is refused with a file and an offset, or
 * opens, is verified, appended to, and opens again with the same records and the new one.
 *
 * The mutator takes a segment apart, changes fields of its header or of one record, and puts it
 * together with right checksums and a right chain; now and then it changes bytes. */
#include "wal_seen.h"

#include "base/rand.h"
#include "sim/sim_disk.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define PIECE_BYTES 8192U
#define PIECES_MAX 6
#define FRAMES_MAX 64
#define NUMBER_MAX (UINT64_MAX / 2)

/* The highest number of a segment. */
static uint64_t make_files(struct sim_disk *d, struct slice in) {
    const struct disk *disk = sim_disk_interface(d);
    uint64_t highest = 0;

    for (uint64_t i = 1; in.len > 0 && i <= PIECES_MAX; i++) {
        struct slice piece = fuzz_bytes(&in, PIECE_BYTES);
        struct wal_segment_header h = {.seq = i};
        struct disk_file *f = NULL;
        char name[40];
        size_t n = 0;
        int rc;

        if (piece.len >= WAL_HEADER_BYTES)
            (void) !wal_format_header_decode(piece.data, &h);
        (void) snprintf(name, sizeof(name), "wal-%016" PRIx64 ".log", h.seq);
        rc = disk->ops->open(disk->ctx, name, DISK_CREATE, &f);
        ASSERT(rc == 0);
        rc = disk->ops->pwrite(disk->ctx, f, 0, piece.data, piece.len, &n);
        ASSERT(rc == 0 && n == piece.len);
        disk->ops->close(disk->ctx, f);
        highest = MAX(highest, h.seq);
    }
    return highest;
}

struct seen {
    uint64_t count, sum, last;
};

static int each(void *arg, const struct wal_record *rec) {
    struct seen *s = (struct seen *) arg;

    ASSERT(rec->index > 0 && rec->term > 0 && rec->type > 0);
    ASSERT(s->count == 0 || rec->index == s->last + 1);
    s->last = rec->index;
    s->count++;
    s->sum = s->sum * 31 + rec->index + rec->term + rec->data.len;
    return 0;
}

/* False: refused. */
static bool open_one(const struct disk *disk, const struct wal_options *o, struct seen *s,
                     struct wal **w) {
    struct errtext why = {""};
    int rc;

    *s = (struct seen){0};
    rc = wal_open(disk, o, each, s, w, &why);
    if (rc != 0) {
        ASSERT(rc == ERR_CORRUPT || rc == ERR_FOREIGN || rc == ERR_VERSION || rc == -ENOSPC);
        fuzz_sentence(&why);
    }
    return rc == 0;
}

static void check(const struct disk *disk, const struct wal_identity *id, uint64_t highest) {
    const struct wal_options o = {.identity = *id, .segment_bytes = PIECE_BYTES};
    struct wal_record rec = {.type = 1, .data = slice_of("more", 4)};
    struct seen first, again;
    struct errtext why = {""};
    struct wal_scrub cursor = {0};
    struct wal *w = NULL;
    uint64_t index = 0;
    int rc;

    if (!open_one(disk, &o, &first, &w))
        return;
    ASSERT(wal_last_index(w) >= first.last);
    rc = wal_scrub(w, &cursor, UINT32_MAX, &index, &why);
    ASSERT(rc == 0);
    rec.index = wal_last_index(w) + 1;
    rec.term = UINT64_MAX; /* terms never decrease */
    rc = rec.index < NUMBER_MAX ? wal_append(w, &rec, 1, &why) : 1;
    if (rc == 0)
        rc = wal_sync(w, &why);
    w = wal_close(w);
    ASSERT(rc >= 0);
    if (highest > NUMBER_MAX)
        return; /* numbers run out at the next start, and that is said */
    ASSERT(open_one(disk, &o, &again, &w));
    ASSERT(again.count == first.count + (rc == 0));
    w = wal_close(w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct wal_identity id = {.node_id = 1};
    struct wal_segment_header h;
    struct sim_disk *d = NULL;
    struct wal_seen seen = {.file_bytes = PIECE_BYTES};
    uint64_t highest;
    struct errtext why = {""};
    int rc = sim_disk_new(&d);

    ASSERT(rc == 0);
    if (size >= WAL_HEADER_BYTES && wal_format_header_decode(data, &h) == 0) {
        memcpy(id.cluster_id, h.cluster_id, sizeof(id.cluster_id));
        id.node_id = h.node_id;
    }
    highest = make_files(d, slice_of(data, size));
    (void) wal_seen_all(sim_disk_interface(d), &seen, &why);
    check(sim_disk_interface(d), &id, highest);
    ASSERT(sim_disk_open_handles(d) == 0);
    d = sim_disk_free(d);
    return 0;
}

/* ---- the mutator ------------------------------------------------------------------------------
 */

static size_t take_frames(const uint8_t *b, const struct wal_segment_header *h,
                          struct wal_frame frames[FRAMES_MAX]) {
    struct wal_place at = {.seq = h->seq,
                           .use = h->use,
                           .offset = WAL_HEADER_BYTES,
                           .segment_bytes = h->segment_bytes};
    size_t n = 0;

    while (n < FRAMES_MAX && at.offset + WAL_RECORD_HEADER_BYTES <= PIECE_BYTES &&
           wal_format_record_parse(b + at.offset, PIECE_BYTES - at.offset, &at, &frames[n]) ==
               WAL_PARSE_OK) {
        at.offset += wal_format_record_bytes(frames[n].len);
        n++;
    }
    return n;
}

static uint64_t changed(struct rng *g, uint64_t v) {
    switch (rng_below(g, 5)) {
    case 0:
        return v + 1;
    case 1:
        return v - (v > 0);
    case 2:
        return rng_below(g, 16);
    case 3:
        return UINT64_MAX - rng_below(g, 4);
    default:
        return v ^ (1ULL << rng_below(g, 64));
    }
}

static void change_header(struct rng *g, struct wal_segment_header *h) {
    uint64_t *const wide[] = {&h->seq,       &h->use,   &h->prev_seq,  &h->prev_index,
                              &h->prev_term, &h->floor, &h->oldest_seq};
    uint32_t *const narrow[] = {&h->prev_end, &h->prev_crc, &h->base_end};

    if (rng_below(g, 10) < ARRAY_LEN(wide)) {
        size_t i = (size_t) rng_below(g, ARRAY_LEN(wide));

        *wide[i] = changed(g, *wide[i]);
    } else {
        size_t i = (size_t) rng_below(g, ARRAY_LEN(narrow));

        *narrow[i] = (uint32_t) changed(g, *narrow[i]);
    }
    h->seq = MAX(h->seq, (uint64_t) 1);
    h->use = MAX(h->use, (uint64_t) 1);
}

static void change_frame(struct rng *g, struct wal_frame *f) {
    switch (rng_below(g, 6)) {
    case 0:
        f->index = changed(g, f->index);
        break;
    case 1:
        f->term = changed(g, f->term);
        break;
    case 2:
        f->synced = (uint32_t) changed(g, f->synced);
        break;
    case 3:
        f->kind = (enum wal_kind)(rng_below(g, 6));
        break;
    case 4:
        f->type = (uint8_t) changed(g, f->type);
        break;
    default:
        f->len -= f->len > 0; /* data points into the old segment, which is long enough */
        break;
    }
}

static void change_segment(uint8_t *b, struct rng *g) {
    static uint8_t made[PIECE_BYTES];
    struct wal_frame frames[FRAMES_MAX];
    struct wal_segment_header h;
    struct wal_place at;
    size_t n, which;
    uint32_t crc;

    if (wal_format_header_decode(b, &h) != 0)
        return;
    n = take_frames(b, &h, frames);
    which = (size_t) rng_below(g, n + 1);
    if (which == n)
        change_header(g, &h);
    else
        change_frame(g, &frames[which]);
    memset(made, 0, sizeof(made));
    wal_format_header_encode(&h, made);
    at = (struct wal_place){h.seq, h.use, WAL_HEADER_BYTES, h.segment_bytes};
    crc = n > 0 ? frames[0].prev_crc : 0;
    for (size_t i = 0; i < n; i++) {
        frames[i].prev_crc = crc;
        frames[i].synced = MIN(frames[i].synced, at.offset);
        if (at.offset + wal_format_record_bytes(frames[i].len) > PIECE_BYTES)
            break;
        wal_format_record_encode(&frames[i], &at, made + at.offset);
        if (frames[i].len > 0)
            memcpy(made + at.offset + WAL_RECORD_HEADER_BYTES, frames[i].data, frames[i].len);
        crc = frames[i].crc;
        at.offset += wal_format_record_bytes(frames[i].len);
    }
    memcpy(b, made, sizeof(made));
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed) {
    struct rng g = rng_seed(seed);
    size_t pieces = size / PIECE_BYTES;

    if (pieces == 0 || rng_below(&g, 4) == 0)
        return LLVMFuzzerMutate(data, size, max_size);
    change_segment(data + rng_below(&g, pieces) * PIECE_BYTES, &g);
    return size;
}
