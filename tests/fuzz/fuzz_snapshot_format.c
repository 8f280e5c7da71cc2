/* Any bytes as a snapshot stream: no read outside the input, no result that contradicts itself.
 *
 * Twice: as they are, and as the payloads of blocks whose checksums are right, because no fuzzer
 * finds those. There the first bytes choose the kind of each block and where it ends. */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "base/codec.h"
#include "base/crc32c.h"
#include "storage/snapshot_format.h"

static bool inside(struct slice in, struct slice s) {
    return s.len == 0 || (s.data >= in.data && s.data + s.len <= in.data + in.len);
}

static int take(struct snapshot_reader *r, const struct snapshot_block *b) {
    struct errtext e = {0};
    struct kv_op *ops = NULL;
    size_t count = 0;
    uint64_t before = r->records;
    uint64_t sequence = r->sequence;
    int rc = snapshot_reader_take(r, b, &ops, &count, &e);

    ASSERT(rc <= 0);
    ASSERT(rc == 0 || (e.s[0] != 0 && r->records == before && r->sequence == sequence));
    ASSERT(rc != 0 || (r->records == before + count && r->sequence == sequence + 1));
    for (size_t i = 0; rc == 0 && i < count; i++)
        ASSERT(inside(b->payload, ops[i].key) && inside(b->payload, ops[i].value) && !ops[i].del);
    free(ops);
    return rc;
}

static void as_they_are(struct slice in) {
    struct snapshot_reader r;

    snapshot_reader_begin(&r);
    while (in.len > 0) {
        struct errtext e = {0};
        struct snapshot_block b;
        size_t bytes = 0;
        int rc = snapshot_block_parse(in, &b, &bytes, &e);

        if (rc == SNAPSHOT_MORE)
            ASSERT(bytes > in.len &&
                   bytes <= SNAPSHOT_BLOCK_HEADER_BYTES + SNAPSHOT_PAYLOAD_BYTES_MAX);
        ASSERT(rc >= 0 || e.s[0] != 0);
        if (rc != 0)
            break;
        ASSERT(bytes <= in.len && inside(in, b.payload));
        (void) take(&r, &b);
        in = slice_of(in.data + bytes, in.len - bytes);
    }
    snapshot_reader_end(&r);
}

static void as_payloads(struct slice in) {
    struct snapshot_reader r;
    uint64_t sequence = 0;

    snapshot_reader_begin(&r);
    while (in.len >= 2) {
        size_t len = MIN((size_t) in.data[1], in.len - 2);
        uint8_t block[SNAPSHOT_BLOCK_HEADER_BYTES + 256] = {'C', 'S', 'N', 'P', 1};
        struct snapshot_block b;
        size_t bytes = 0;

        block[5] = in.data[0] & 1 ? SNAPSHOT_BLOCK_LAST : SNAPSHOT_BLOCK_CHUNK;
        put_le64(block + 8, ++sequence);
        put_le32(block + 16, (uint32_t) len);
        put_le32(block + 20, crc32c(block, 20));
        put_le32(block + 24, crc32c(in.data + 2, len));
        memcpy(block + SNAPSHOT_BLOCK_HEADER_BYTES, in.data + 2, len);
        ASSERT(snapshot_block_parse(slice_of(block, SNAPSHOT_BLOCK_HEADER_BYTES + len), &b, &bytes,
                                    NULL) == 0);
        if (take(&r, &b) < 0)
            sequence--;
        in = slice_of(in.data + 2 + len, in.len - 2 - len);
    }
    snapshot_reader_end(&r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    as_they_are(slice_of(data, size));
    as_payloads(slice_of(data, size));
    return 0;
}
