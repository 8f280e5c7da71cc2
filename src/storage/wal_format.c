#include "storage/wal_format.h"

#include "base/codec.h"
#include "base/crc32c.h"
#include "base/err.h"
#include "storage/wal.h"

/* "CHRONWAL" as little-endian bytes. */
#define WAL_MAGIC 0x4c41574e4f524843ULL

enum {
    H_MAGIC = 0,
    H_VERSION = 8,
    H_CRC = 12,
    H_CLUSTER = 16,
    H_NODE = 32,
    H_SEQ = 40,
    H_USE = 48,
    H_PREV_SEQ = 56,
    H_PREV_INDEX = 64,
    H_PREV_TERM = 72,
    H_FLOOR = 80,
    H_OLDEST = 88,
    H_PREV_END = 96,
    H_PREV_CRC = 100,
    H_BASE_END = 104,
    H_BYTES = 108,
    H_END = 112
};

enum {
    R_LEN = 0,
    R_CRC = 4,
    R_INDEX = 8,
    R_TERM = 16,
    R_PREV = 24,
    R_SYNCED = 28,
    R_DATA_CRC = 32,
    R_KIND = 36,
    R_TYPE = 37,
    R_USE = 38,
    R_END = 40
};

STATIC_ASSERT(H_END <= WAL_HEADER_BYTES, "the header fits its block");
STATIC_ASSERT(R_END == WAL_RECORD_HEADER_BYTES, "the record header is full");
STATIC_ASSERT(R_KIND == WAL_RECORD_KIND_OFFSET, "the scan looks at the kind");
STATIC_ASSERT(WAL_RECORD_HEADER_BYTES % 8 == 0, "data begins aligned");
STATIC_ASSERT(WAL_HEADER_BYTES + WAL_RECORD_BYTES_MAX + WAL_RECORD_HEADER_BYTES + 8 <
                  WAL_SEGMENT_BYTES_MAX,
              "the largest record fits the largest segment");

static uint32_t header_crc(const uint8_t *h) {
    uint32_t crc = crc32c(h, H_CRC);

    return crc32c_extend(crc, h + H_CRC + 4, WAL_HEADER_BYTES - H_CRC - 4);
}

void wal_format_header_encode(const struct wal_segment_header *h, uint8_t out[WAL_HEADER_BYTES]) {
    ASSERT(h->seq > 0);
    ASSERT(h->use > 0);
    memset(out, 0, WAL_HEADER_BYTES);
    put_le64(out + H_MAGIC, WAL_MAGIC);
    put_le32(out + H_VERSION, WAL_FORMAT_VERSION);
    memcpy(out + H_CLUSTER, h->cluster_id, sizeof(h->cluster_id));
    put_le64(out + H_NODE, h->node_id);
    put_le64(out + H_SEQ, h->seq);
    put_le64(out + H_USE, h->use);
    put_le64(out + H_PREV_SEQ, h->prev_seq);
    put_le64(out + H_PREV_INDEX, h->prev_index);
    put_le64(out + H_PREV_TERM, h->prev_term);
    put_le64(out + H_FLOOR, h->floor);
    put_le64(out + H_OLDEST, h->oldest_seq);
    put_le32(out + H_PREV_END, h->prev_end);
    put_le32(out + H_PREV_CRC, h->prev_crc);
    put_le32(out + H_BASE_END, h->base_end);
    put_le32(out + H_BYTES, h->segment_bytes);
    put_le32(out + H_CRC, header_crc(out));
}

int wal_format_header_decode(const uint8_t in[WAL_HEADER_BYTES], struct wal_segment_header *ret_h) {
    struct wal_segment_header h = {0};

    ASSERT(in);
    ASSERT(ret_h);
    if (get_le64(in + H_MAGIC) != WAL_MAGIC || get_le32(in + H_CRC) != header_crc(in))
        return ERR_CORRUPT;
    /* Magic, version, crc and the size of the block are the same in every version, so an intact
     * newer header is told apart from a damaged one. */
    if (get_le32(in + H_VERSION) != WAL_FORMAT_VERSION)
        return ERR_VERSION;
    memcpy(h.cluster_id, in + H_CLUSTER, sizeof(h.cluster_id));
    h.node_id = get_le64(in + H_NODE);
    h.seq = get_le64(in + H_SEQ);
    h.use = get_le64(in + H_USE);
    h.prev_seq = get_le64(in + H_PREV_SEQ);
    h.prev_index = get_le64(in + H_PREV_INDEX);
    h.prev_term = get_le64(in + H_PREV_TERM);
    h.floor = get_le64(in + H_FLOOR);
    h.oldest_seq = get_le64(in + H_OLDEST);
    h.prev_end = get_le32(in + H_PREV_END);
    h.prev_crc = get_le32(in + H_PREV_CRC);
    h.base_end = get_le32(in + H_BASE_END);
    h.segment_bytes = get_le32(in + H_BYTES);
    if (h.seq == 0 || h.use == 0 || h.prev_seq >= h.seq || h.oldest_seq > h.seq ||
        h.segment_bytes > WAL_SEGMENT_BYTES_MAX || h.segment_bytes < WAL_SEGMENT_BYTES_MIN ||
        h.segment_bytes % WAL_HEADER_BYTES != 0 || h.base_end < WAL_HEADER_BYTES ||
        h.base_end > h.segment_bytes || h.base_end % 8 != 0 || h.prev_index > WAL_INDEX_MAX ||
        (h.prev_index > 0 && h.prev_term == 0))
        return ERR_CORRUPT;
    *ret_h = h;
    return 0;
}

/* The place is not stored but checksummed: raw, not mixed, so that two places that differ in one
 * number (a burst of at most 32 bits) can never have equal checksums. */
static uint32_t record_crc(const uint8_t *r, const struct wal_place *at) {
    uint8_t place[24];
    uint32_t crc;

    put_le64(place, at->seq);
    put_le64(place + 8, at->use);
    put_le64(place + 16, at->offset);
    crc = crc32c(place, sizeof(place));
    crc = crc32c_extend(crc, r, R_CRC);
    return crc32c_extend(crc, r + R_INDEX, R_END - R_INDEX);
}

void wal_format_record_encode(struct wal_frame *f, const struct wal_place *at,
                              uint8_t out[WAL_RECORD_HEADER_BYTES]) {
    ASSERT(f->len <= WAL_RECORD_BYTES_MAX);
    ASSERT(at->offset % 8 == 0);
    ASSERT(f->synced <= at->offset);
    put_le32(out + R_LEN, f->len);
    put_le64(out + R_INDEX, f->index);
    put_le64(out + R_TERM, f->term);
    put_le32(out + R_PREV, f->prev_crc);
    put_le32(out + R_SYNCED, f->synced);
    put_le32(out + R_DATA_CRC, f->len > 0 ? crc32c(f->data, f->len) : 0);
    out[R_KIND] = (uint8_t) f->kind;
    out[R_TYPE] = f->type;
    put_le16(out + R_USE, (uint16_t) at->use);
    f->crc = record_crc(out, at);
    put_le32(out + R_CRC, f->crc);
}

/* Fields whose values no writer produces; checked first because they reject most offsets of a scan
 * without a checksum. */
static bool record_plausible(const uint8_t *p, const struct wal_place *at) {
    uint32_t len = get_le32(p + R_LEN);
    uint32_t synced = get_le32(p + R_SYNCED);

    if (!wal_format_maybe_record(p))
        return false;
    if (get_le16(p + R_USE) != (uint16_t) at->use || len > WAL_RECORD_BYTES_MAX)
        return false;
    if (synced > at->offset || synced < WAL_HEADER_BYTES || synced % 8 != 0)
        return false;
    return wal_format_record_bytes(len) <= at->segment_bytes - at->offset;
}

/* The rules of each kind that need no neighbour. */
static bool record_well_formed(const struct wal_frame *f, const struct wal_place *at) {
    switch (f->kind) {
    case WAL_KIND_DATA:
        return f->index > 0 && f->term > 0 && f->type > 0;
    case WAL_KIND_TRUNCATE:
        return f->index > 0 && f->len == 0 && f->type == 0;
    case WAL_KIND_RELEASE:
        return f->len == WAL_RELEASE_BYTES && f->type == 0;
    case WAL_KIND_SEAL:
        return f->len == 0 && f->type == 0 && f->synced == at->offset;
    }
    return false;
}

enum wal_parse wal_format_record_parse(const uint8_t *p, size_t avail, const struct wal_place *at,
                                       struct wal_frame *ret_f) {
    struct wal_frame f;

    ASSERT(at->offset >= WAL_HEADER_BYTES);
    ASSERT(at->offset % 8 == 0);
    ASSERT(at->offset <= at->segment_bytes);
    if (avail < WAL_RECORD_HEADER_BYTES ||
        at->segment_bytes - at->offset < WAL_RECORD_HEADER_BYTES || !record_plausible(p, at))
        return WAL_PARSE_BAD;
    if (get_le32(p + R_CRC) != record_crc(p, at))
        return WAL_PARSE_BAD;
    f = (struct wal_frame){
        .index = get_le64(p + R_INDEX),
        .term = get_le64(p + R_TERM),
        .len = get_le32(p + R_LEN),
        .crc = get_le32(p + R_CRC),
        .prev_crc = get_le32(p + R_PREV),
        .synced = get_le32(p + R_SYNCED),
        .kind = (enum wal_kind) p[R_KIND],
        .type = p[R_TYPE],
        .data = p + WAL_RECORD_HEADER_BYTES,
    };
    if (!record_well_formed(&f, at))
        return WAL_PARSE_BAD;
    *ret_f = f;
    if (avail < wal_format_record_bytes(f.len))
        return WAL_PARSE_SHORT;
    if (get_le32(p + R_DATA_CRC) != (f.len > 0 ? crc32c(f.data, f.len) : 0))
        return WAL_PARSE_BAD;
    /* It names a segment that is needed: this one or one before. A later one would take back what
     * stands around it, at the start after the next. */
    if (f.kind == WAL_KIND_RELEASE && get_le64(f.data) > at->seq)
        return WAL_PARSE_BAD;
    return WAL_PARSE_OK;
}
