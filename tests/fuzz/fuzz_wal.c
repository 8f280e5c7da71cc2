/* Any bytes as the files of a log: opening, verifying and inspecting them ends, reads nothing
 * outside, and what was opened once opens again with the same records.
 *
 * The input is a list of records, {kind, flags, length, data}, put into a segment with right
 * checksums (no fuzzer finds those); flags damage the header's fields before they are computed, or
 * a byte after. What is left of the input lies behind the last record as it is. */
#include "wal_seen.h"

#include <stdlib.h>
#include <string.h>

#include "base/codec.h"
#include "sim/sim_disk.h"

#define SEGMENT_BYTES (16U * 1024)

struct made {
    uint8_t *b;
    struct wal_segment_header h;
    struct wal_frame last;
    uint32_t at;
    uint32_t before; /* where the last record begins */
};

/* One record as the input wants it. False: no room. */
static bool make_record(struct made *m, uint8_t kind, uint8_t flags, struct slice data) {
    const struct wal_place place = {
        .seq = m->h.seq, .use = m->h.use, .offset = m->at, .segment_bytes = SEGMENT_BYTES};
    struct wal_frame f = {
        .kind = (enum wal_kind)(1 + kind % 5),
        .index = m->last.index + (kind % 5 == 0),
        .term = MAX(m->last.term, (uint64_t) 1) + (flags & 1),
        .type = flags & 2 ? 0 : kind % 5 == 0,
        .len = (uint32_t) data.len,
        .data = data.data,
        .prev_crc = flags & 4 ? 1 : m->last.crc,
        .synced = flags & 8    ? m->at
                  : flags & 16 ? m->before
                               : WAL_HEADER_BYTES,
    };

    if (wal_format_record_bytes(f.len) > SEGMENT_BYTES - m->at)
        return false;
    if (flags & 32)
        f.index -= MIN(f.index, (uint64_t) 3);
    wal_format_record_encode(&f, &place, m->b + m->at);
    if (data.len > 0)
        memcpy(m->b + m->at + WAL_RECORD_HEADER_BYTES, data.data, data.len);
    if (flags & 64)
        m->b[m->at + kind % WAL_RECORD_HEADER_BYTES] ^= flags;
    m->before = m->at;
    m->at += wal_format_record_bytes(f.len);
    m->last = f;
    m->last.index -= f.kind == WAL_KIND_TRUNCATE && f.index > 0;
    return true;
}

static void make_segment(struct made *m, struct slice in) {
    m->h = (struct wal_segment_header){.node_id = 1,
                                       .seq = 3,
                                       .use = 2,
                                       .floor = UINT64_MAX,
                                       .base_end = WAL_HEADER_BYTES,
                                       .segment_bytes = SEGMENT_BYTES};
    if (in.len >= 2) {
        m->h.prev_index = in.data[0];
        m->h.prev_term = in.data[0] ? 1 : 0;
        m->h.prev_seq = in.data[1] & 3;
        m->h.oldest_seq = in.data[1] >> 2 & 3;
        m->h.base_end += (uint32_t) (in.data[1] >> 4) * 8;
    }
    m->last = (struct wal_frame){.index = m->h.prev_index, .term = m->h.prev_term};
    m->at = WAL_HEADER_BYTES;
    m->before = WAL_HEADER_BYTES;
    wal_format_header_encode(&m->h, m->b);
    in = in.len >= 2 ? slice_of(in.data + 2, in.len - 2) : in;
    while (in.len >= 3) {
        size_t len = MIN((size_t) in.data[2], in.len - 3);

        if (!make_record(m, in.data[0], in.data[1], slice_of(in.data + 3, len)))
            break;
        in = slice_of(in.data + 3 + len, in.len - 3 - len);
    }
    if (in.len > 0)
        memcpy(m->b + m->at, in.data, MIN(in.len, (size_t) (SEGMENT_BYTES - m->at)));
}

static int each(void *arg, const struct wal_record *rec) {
    uint64_t *sum = (uint64_t *) arg;

    ASSERT(rec->index > 0 && rec->term > 0 && rec->type > 0);
    *sum = *sum * 31 + rec->index + rec->term + rec->data.len;
    return 0;
}

static void check(struct sim_disk *d) {
    const struct wal_options o = {.identity = {.node_id = 1}, .segment_bytes = SEGMENT_BYTES};
    struct wal_seen seen = {.file_bytes = SEGMENT_BYTES};
    struct errtext e = {0};
    struct wal *w = NULL;
    uint64_t sums[2] = {0, 0};
    uint64_t index = 0;
    int shown = wal_seen_all(sim_disk_interface(d), &seen, &e);

    for (int i = 0; i < 2; i++) {
        struct wal_scrub c = {0};
        int r = wal_open(sim_disk_interface(d), &o, each, &sums[i], &w, &e);

        ASSERT(r == 0 || i == 0);
        if (r != 0) {
            ASSERT(e.s[0] != 0 && (shown != 0 || seen.bad > 0 || r == ERR_FOREIGN));
            return;
        }
        ASSERT(wal_scrub(w, &c, UINT32_MAX, &index, &e) == 0);
        ASSERT(wal_base_index(w) <= wal_last_index(w));
        w = wal_close(w);
    }
    ASSERT(sums[0] == sums[1]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct sim_disk *d = NULL;
    const struct disk *disk;
    struct disk_file *f = NULL;
    struct made m = {.b = (uint8_t *) calloc(1, SEGMENT_BYTES)};
    size_t n = 0;

    ASSERT(m.b && sim_disk_new(&d) == 0);
    disk = sim_disk_interface(d);
    make_segment(&m, slice_of(data, size));
    ASSERT(disk->ops->open(disk->ctx, "wal-0000000000000003.log", DISK_CREATE, &f) == 0);
    ASSERT(disk->ops->pwrite(disk->ctx, f, 0, m.b, SEGMENT_BYTES, &n) == 0 && n == SEGMENT_BYTES);
    disk->ops->close(disk->ctx, f);
    check(d);
    free(m.b);
    d = sim_disk_free(d);
    return 0;
}
