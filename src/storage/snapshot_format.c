/* See snapshot_format.h; docs/formats.md has the tables. */
#include "storage/snapshot_format.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "base/codec.h"
#include "base/crc32c.h"

#define SNAPSHOT_VERSION 1U
#define RECORD_HEADER_BYTES 8U
#define TOTALS_BYTES 24U
/* "CSNP" as little-endian bytes. */
#define SNAPSHOT_MAGIC 0x504e5343U

enum {
    B_MAGIC = 0,
    B_VERSION = 4,
    B_KIND = 5,
    B_RESERVED = 6,
    B_SEQUENCE = 8,
    B_LEN = 16,
    B_CRC = 20,
    B_PAYLOAD_CRC = 24,
    B_ZERO = 28,
    B_END = 32
};

STATIC_ASSERT(B_END == SNAPSHOT_BLOCK_HEADER_BYTES, "the block header is full");

/* ---- blocks ---------------------------------------------------------------------------------- */

static void block_header(uint8_t *p, enum snapshot_block_kind kind, uint64_t sequence,
                         struct slice payload) {
    ASSERT(payload.len <= SNAPSHOT_PAYLOAD_BYTES_MAX);
    memset(p, 0, SNAPSHOT_BLOCK_HEADER_BYTES);
    put_le32(p + B_MAGIC, SNAPSHOT_MAGIC);
    p[B_VERSION] = SNAPSHOT_VERSION;
    p[B_KIND] = (uint8_t) kind;
    put_le64(p + B_SEQUENCE, sequence);
    put_le32(p + B_LEN, (uint32_t) payload.len);
    put_le32(p + B_CRC, crc32c(p, B_CRC));
    put_le32(p + B_PAYLOAD_CRC, crc32c(payload.data, payload.len));
}

static int bad_block(struct errtext *reterr, const char *what, size_t offset) {
    errtext_set(reterr, "snapshot block: %s at offset %zu", what, offset);
    return ERR_CORRUPT;
}

/* The rules of a block header whose bytes are all there. */
static int check_header(const uint8_t *p, struct errtext *reterr) {
    uint32_t len = get_le32(p + B_LEN);

    /* Magic, version and the checksum over them are the same in every version, so an intact newer
     * block is told apart from a damaged one. */
    if (get_le32(p + B_CRC) != crc32c(p, B_CRC))
        return bad_block(reterr, "wrong header checksum", B_CRC);
    if (p[B_VERSION] > SNAPSHOT_VERSION) {
        errtext_set(reterr, "snapshot block: format version %u, this program reads up to %u",
                    p[B_VERSION], SNAPSHOT_VERSION);
        return ERR_VERSION;
    }
    if (p[B_VERSION] == 0)
        return bad_block(reterr, "version 0", B_VERSION);
    if (p[B_KIND] < SNAPSHOT_BLOCK_HEADER || p[B_KIND] > SNAPSHOT_BLOCK_LAST)
        return bad_block(reterr, "unknown kind", B_KIND);
    if (get_le16(p + B_RESERVED) != 0)
        return bad_block(reterr, "reserved bytes are not 0", B_RESERVED);
    if ((get_le64(p + B_SEQUENCE) == 0) != (p[B_KIND] == SNAPSHOT_BLOCK_HEADER))
        return bad_block(reterr, "sequence number 0 belongs to the header, and only to it",
                         B_SEQUENCE);
    if (len > (p[B_KIND] == SNAPSHOT_BLOCK_HEADER ? SNAPSHOT_HEADER_BYTES_MAX
                                                  : SNAPSHOT_PAYLOAD_BYTES_MAX))
        return bad_block(reterr, "payload larger than allowed", B_LEN);
    if (get_le32(p + B_ZERO) != 0)
        return bad_block(reterr, "reserved bytes are not 0", B_ZERO);
    return 0;
}

int snapshot_block_parse(struct slice in, struct snapshot_block *ret, size_t *ret_bytes,
                         struct errtext *reterr) {
    uint8_t magic[4];
    uint32_t len;
    int r;

    ASSERT(in.data || in.len == 0);
    ASSERT(ret && ret_bytes);
    put_le32(magic, SNAPSHOT_MAGIC);
    if (in.len > 0 && memcmp(in.data, magic, MIN(in.len, sizeof(magic))) != 0)
        return bad_block(reterr, "no snapshot (it begins with CSNP)", B_MAGIC);
    if (in.len < SNAPSHOT_BLOCK_HEADER_BYTES) {
        *ret_bytes = SNAPSHOT_BLOCK_HEADER_BYTES;
        return SNAPSHOT_MORE;
    }
    r = check_header(in.data, reterr);
    if (r < 0)
        return r;
    len = get_le32(in.data + B_LEN);
    *ret_bytes = SNAPSHOT_BLOCK_HEADER_BYTES + (size_t) len;
    if (in.len < *ret_bytes)
        return SNAPSHOT_MORE;
    if (get_le32(in.data + B_PAYLOAD_CRC) != crc32c(in.data + B_END, len))
        return bad_block(reterr, "wrong payload checksum", B_PAYLOAD_CRC);
    *ret = (struct snapshot_block){
        .kind = (enum snapshot_block_kind) in.data[B_KIND],
        .sequence = get_le64(in.data + B_SEQUENCE),
        .payload = slice_of(in.data + B_END, len),
    };
    return 0;
}

int snapshot_header_encode(struct buf *out, struct slice header) {
    int r;

    ASSERT(out);
    ASSERT(header.len <= SNAPSHOT_HEADER_BYTES_MAX);
    r = buf_reserve(out, SNAPSHOT_BLOCK_HEADER_BYTES + header.len);
    if (r < 0)
        return r;
    block_header(out->data + out->len, SNAPSHOT_BLOCK_HEADER, 0, header);
    out->len += SNAPSHOT_BLOCK_HEADER_BYTES;
    return buf_append(out, header.data, header.len);
}

/* ---- the hash of a stream -------------------------------------------------------------------- */

static void hash_chunk(const uint64_t before[2], struct slice records, uint64_t ret[2]) {
    uint8_t link[32];
    XXH128_hash_t h = XXH3_128bits(records.data, records.len);

    put_le64(link, before[0]);
    put_le64(link + 8, before[1]);
    put_le64(link + 16, h.low64);
    put_le64(link + 24, h.high64);
    h = XXH3_128bits(link, sizeof(link));
    ret[0] = h.low64;
    ret[1] = h.high64;
}

/* ---- writing --------------------------------------------------------------------------------- */

/* To the first record at or after the iterator's place that travels. */
static void skip_home(struct snapshot_writer *w) {
    const struct kv_iter_ops *ops = w->it->ops;
    const uint8_t after = (uint8_t) (w->skip_prefix + 1U);

    while (ops->valid(w->it)) {
        struct slice key = ops->key(w->it);

        if (key.len == 0 || key.data[0] != w->skip_prefix)
            return;
        if (after == 0)
            ops->next(w->it); /* nothing sorts behind them that could be sought */
        else
            ops->seek(w->it, slice_of(&after, 1));
    }
}

void snapshot_writer_begin(struct snapshot_writer *w, struct kv_iter *it, uint8_t skip_prefix) {
    ASSERT(w && it);
    *w = (struct snapshot_writer){
        .it = it, .skip_prefix = skip_prefix, .chunk_bytes = SNAPSHOT_CHUNK_BYTES};
    it->ops->seek(it, slice_of("", 0));
    skip_home(w);
}

static int put_record(struct buf *out, struct slice key, struct slice value) {
    uint8_t *p;
    int r;

    if (key.len > SNAPSHOT_PAYLOAD_BYTES_MAX || value.len > SNAPSHOT_PAYLOAD_BYTES_MAX)
        return ERR_LIMIT;
    r = buf_reserve(out, RECORD_HEADER_BYTES + key.len + value.len);
    if (r < 0)
        return r;
    p = out->data + out->len;
    put_le32(p, (uint32_t) key.len);
    put_le32(p + 4, (uint32_t) value.len);
    out->len += RECORD_HEADER_BYTES;
    r = buf_append(out, key.data, key.len);
    return r < 0 ? r : buf_append(out, value.data, value.len);
}

/* Records up to a chunk's size, behind @begin, where the payload begins. A large one may have to
 * wait for the next chunk, but never the first: it would wait for ever. */
static int put_records(struct snapshot_writer *w, struct buf *out, size_t begin) {
    const struct kv_iter_ops *ops = w->it->ops;

    while (out->len - begin < w->chunk_bytes && ops->valid(w->it)) {
        struct slice key = ops->key(w->it);
        struct slice value = ops->value(w->it);
        size_t room = SNAPSHOT_PAYLOAD_BYTES_MAX - TOTALS_BYTES - (out->len - begin);
        int r;

        if (RECORD_HEADER_BYTES + key.len + value.len > room)
            return out->len > begin ? 0 : ERR_LIMIT;
        r = put_record(out, key, value);
        if (r < 0)
            return r;
        w->records++;
        ops->next(w->it);
        skip_home(w);
    }
    return ops->status(w->it);
}

static int put_chunk(struct snapshot_writer *w, struct buf *out) {
    size_t at = out->len;
    size_t begin = at + SNAPSHOT_BLOCK_HEADER_BYTES;
    bool last;
    int r = buf_reserve(out, SNAPSHOT_BLOCK_HEADER_BYTES);

    if (r < 0)
        return r;
    out->len = begin;
    r = put_records(w, out, begin);
    if (r < 0)
        return r;
    last = !w->it->ops->valid(w->it);
    hash_chunk(w->hash, slice_of(out->data + begin, out->len - begin), w->hash);
    if (last) {
        uint8_t totals[TOTALS_BYTES];

        put_le64(totals, w->records);
        put_le64(totals + 8, w->hash[0]);
        put_le64(totals + 16, w->hash[1]);
        r = buf_append(out, totals, sizeof(totals));
        if (r < 0)
            return r;
    }
    w->sequence++;
    w->done = last;
    block_header(out->data + at, last ? SNAPSHOT_BLOCK_LAST : SNAPSHOT_BLOCK_CHUNK, w->sequence,
                 slice_of(out->data + begin, out->len - begin));
    return 0;
}

int snapshot_writer_next(struct snapshot_writer *w, struct buf *out) {
    size_t before;
    int r;

    ASSERT(w && w->it);
    ASSERT(out);
    ASSERT(!w->done);
    before = out->len;
    r = put_chunk(w, out);
    if (r < 0)
        out->len = before;
    return r;
}

/* ---- reading --------------------------------------------------------------------------------- */

void snapshot_reader_begin(struct snapshot_reader *r) {
    ASSERT(r);
    *r = (struct snapshot_reader){0};
    buf_init(&r->last_key, SNAPSHOT_PAYLOAD_BYTES_MAX);
}

void snapshot_reader_end(struct snapshot_reader *r) {
    ASSERT(r);
    buf_done(&r->last_key);
}

static int bad_chunk(const struct snapshot_block *b, struct errtext *reterr, const char *what,
                     size_t offset) {
    errtext_set(reterr, "snapshot chunk %" PRIu64 ": %s at offset %zu of its payload", b->sequence,
                what, offset);
    return ERR_CORRUPT;
}

static int compare(struct slice a, struct slice b) {
    size_t n = MIN(a.len, b.len);
    int c = n > 0 ? memcmp(a.data, b.data, n) : 0;

    return c != 0 ? c : (a.len > b.len) - (a.len < b.len);
}

/* Take the record at *offset of @records; NULL and *offset behind it, or what is wrong with it. */
static const char *take_record(struct slice records, size_t *offset, struct kv_op *ret) {
    size_t left = records.len - *offset;
    const uint8_t *p = records.data + *offset;
    size_t key_len, value_len;

    if (*offset >= SNAPSHOT_CHUNK_BYTES)
        return "record begins behind the end of a chunk";
    if (left < RECORD_HEADER_BYTES)
        return "record header is cut off";
    key_len = get_le32(p);
    value_len = get_le32(p + 4);
    left -= RECORD_HEADER_BYTES;
    if (key_len > left || value_len > left - key_len)
        return "record is longer than its chunk";
    *ret = (struct kv_op){.key = slice_of(p + RECORD_HEADER_BYTES, key_len),
                          .value = slice_of(p + RECORD_HEADER_BYTES + key_len, value_len)};
    *offset += RECORD_HEADER_BYTES + key_len + value_len;
    return NULL;
}

/* Check all records and count them; *ret_last is the last one, when there is one. */
static int check_records(const struct snapshot_reader *r, const struct snapshot_block *b,
                         struct slice records, size_t *ret_count, struct kv_op *ret_last,
                         struct errtext *reterr) {
    struct slice before = slice_of(r->last_key.data, r->last_key.len);
    bool any = r->records > 0;
    size_t count = 0;

    for (size_t offset = 0; offset < records.len; count++) {
        size_t at = offset;
        const char *wrong = take_record(records, &offset, ret_last);

        if (wrong)
            return bad_chunk(b, reterr, wrong, at);
        if (any && compare(before, ret_last->key) >= 0)
            return bad_chunk(b, reterr, "key is not above the one before", at);
        before = ret_last->key;
        any = true;
    }
    *ret_count = count;
    return 0;
}

static int check_totals(const struct snapshot_block *b, const uint8_t *totals, uint64_t records,
                        const uint64_t hash[2], struct errtext *reterr) {
    size_t at = b->payload.len - TOTALS_BYTES;

    if (get_le64(totals) != records)
        return bad_chunk(b, reterr, "the stream does not have the stated number of records", at);
    if (get_le64(totals + 8) != hash[0] || get_le64(totals + 16) != hash[1])
        return bad_chunk(b, reterr, "the stream does not have the stated hash", at + 8);
    return 0;
}

static int check_place(const struct snapshot_reader *r, const struct snapshot_block *b,
                       struct errtext *reterr) {
    bool last = b->kind == SNAPSHOT_BLOCK_LAST;

    if (r->done)
        return bad_chunk(b, reterr, "block behind the last one", 0);
    if (b->kind != SNAPSHOT_BLOCK_CHUNK && !last)
        return bad_chunk(b, reterr, "header where a chunk should be", 0);
    if (b->sequence != r->sequence + 1) {
        errtext_set(reterr, "snapshot chunk %" PRIu64 " where %" PRIu64 " should be", b->sequence,
                    r->sequence + 1);
        return ERR_CORRUPT;
    }
    if (last ? b->payload.len < TOTALS_BYTES : b->payload.len == 0)
        return bad_chunk(b, reterr, "too short", b->payload.len);
    return 0;
}

/* *ret_ops of @count records, all of them good. */
static int lend(struct slice records, size_t count, struct kv_op **ret_ops) {
    struct kv_op *ops = (struct kv_op *) calloc(MAX(count, (size_t) 1), sizeof(*ops));
    size_t offset = 0;

    if (!ops)
        return -ENOMEM;
    for (size_t i = 0; i < count; i++)
        ASSERT(take_record(records, &offset, &ops[i]) == NULL);
    ASSERT(offset == records.len);
    *ret_ops = ops;
    return 0;
}

int snapshot_reader_take(struct snapshot_reader *r, const struct snapshot_block *b,
                         struct kv_op **ret_ops, size_t *ret_count, struct errtext *reterr) {
    struct slice records;
    struct kv_op last = {0};
    uint64_t hash[2];
    size_t count = 0;
    bool end;
    int e;

    ASSERT(r && b);
    ASSERT(ret_ops && ret_count);
    e = check_place(r, b, reterr);
    if (e < 0)
        return e;
    end = b->kind == SNAPSHOT_BLOCK_LAST;
    records = slice_of(b->payload.data, b->payload.len - (end ? TOTALS_BYTES : 0));
    e = check_records(r, b, records, &count, &last, reterr);
    if (e < 0)
        return e;
    hash_chunk(r->hash, records, hash);
    if (end) {
        e = check_totals(b, records.data + records.len, r->records + count, hash, reterr);
        if (e < 0)
            return e;
    }
    if (last.key.len > r->last_key.len) {
        e = buf_reserve(&r->last_key, last.key.len - r->last_key.len);
        if (e < 0)
            return e;
    }
    e = lend(records, count, ret_ops);
    if (e < 0)
        return e;
    if (count > 0) {
        buf_clear(&r->last_key);
        e = buf_append(&r->last_key, last.key.data, last.key.len);
        ASSERT(e == 0); /* reserved above */
    }
    r->sequence = b->sequence;
    r->records += count;
    memcpy(r->hash, hash, sizeof(hash));
    r->done = end;
    *ret_count = count;
    return 0;
}
