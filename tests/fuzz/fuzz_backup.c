/* Any bytes as a backup file: refused with an offset, or read to the same counts in pieces of any
 * size.
 *
 * An even first byte: the rest is the file (the mutator makes the checksums of blocks right). An
 * odd one: the rest is records, which are written as a backup by the writer; it must be accepted,
 * with as many records, and any cut of it must not be. */
#include "fuzz.h"

#include "base/crc32c.h"
#include "cli/backup_file.h"
#include "storage/kv_mem.h"
#include "storage/snapshot_format.h"

#include <stdlib.h>

#define FILE_BYTES_MAX (4U * 1024 * 1024)

static int count_records(void *arg, const struct kv_op *ops, size_t count) {
    for (size_t i = 0; i < count; i++)
        ASSERT(!ops[i].del);
    *(uint64_t *) arg += count;
    return 0;
}

static int read_file(struct slice file, size_t piece, struct backup_counts *ret) {
    struct backup_reader r = {.on_records = count_records};
    struct errtext why = {""};
    uint64_t records = 0;
    int rc = backup_reader_begin(&r);

    ASSERT(rc == 0);
    r.arg = &records;
    for (size_t at = 0; rc == 0 && at < file.len; at += piece)
        rc = backup_reader_feed(&r, slice_of(file.data + at, MIN(piece, file.len - at)), &why);
    if (rc == 0)
        rc = backup_reader_finish(&r, &why);
    ASSERT(rc == 0 || rc == ERR_CORRUPT || rc == ERR_VERSION || rc == ERR_LIMIT);
    if (rc != 0) {
        fuzz_sentence(&why);
    } else {
        ASSERT(r.offset == file.len && r.header && r.state);
        ASSERT(r.counts.records + 1 == records); /* all but the head */
        *ret = r.counts;
    }
    backup_reader_end(&r);
    return rc;
}

static void check_file(struct slice file) {
    struct backup_counts whole = {0}, pieces = {0};
    int rc = read_file(file, MAX(file.len, (size_t) 1), &whole);

    ASSERT(read_file(file, 1 + file.len / 7, &pieces) == rc);
    ASSERT(memcmp(&whole, &pieces, sizeof(whole)) == 0);
}

/* ---- records ----------------------------------------------------------------------------------
 */

static void put(struct kv *kv, struct slice key, struct slice value) {
    struct kv_op op = {.key = key, .value = value};
    int rc = kv->ops->write(kv, &op, 1);

    ASSERT(rc == 0);
}

/* All records, then the head of the state with their digest. */
static uint64_t put_records(struct kv *kv, struct slice in) {
    Chronos__Internal__V1__StateMeta m = CHRONOS__INTERNAL__V1__STATE_META__INIT;
    struct backup_counts c = {0};
    struct kv_iter *it = NULL;
    uint8_t packed[256];
    int rc;

    while (in.len > 0) {
        struct slice key = fuzz_bytes(&in, 1 + fuzz_u8(&in) % 32);
        struct slice value = fuzz_bytes(&in, fuzz_u8(&in));

        if (key.len > 0 && key.data[0] != 'l' && (key.len > 1 || key.data[0] != 'm'))
            put(kv, key, value);
    }
    rc = kv->ops->iter_open(kv, &it);
    ASSERT(rc == 0);
    for (it->ops->seek(it, slice_of("", 0)); it->ops->valid(it); it->ops->next(it))
        backup_count(&c, it->ops->key(it), it->ops->value(it), +1);
    it->ops->close(it);
    m.version = 1;
    m.applied_index = 77;
    m.digest_low = c.state.low;
    m.digest_high = c.state.high;
    put(kv, slice_of("m", 1),
        slice_of(packed, chronos__internal__v1__state_meta__pack(&m, packed)));
    return c.records;
}

static void write_header(struct buf *out) {
    Chronos__Internal__V1__SnapshotHeader h = CHRONOS__INTERNAL__V1__SNAPSHOT_HEADER__INIT;
    uint8_t id[16] = {1, 2, 3}, packed[256];
    int rc;

    h.version = 1;
    h.cluster_id = (ProtobufCBinaryData){.len = sizeof(id), .data = id};
    h.index = 77;
    h.term = 3;
    rc = snapshot_header_encode(
        out, slice_of(packed, chronos__internal__v1__snapshot_header__pack(&h, packed)));
    ASSERT(rc == 0);
}

static void write_blocks(struct kv *kv, size_t chunk_bytes, struct buf *out) {
    struct snapshot_writer w;
    struct kv_iter *it = NULL;
    int rc = kv->ops->iter_open(kv, &it);

    ASSERT(rc == 0);
    snapshot_writer_begin(&w, it, 'l');
    w.chunk_bytes = chunk_bytes;
    while (!w.done) {
        rc = snapshot_writer_next(&w, out);
        ASSERT(rc == 0);
    }
    it->ops->close(it);
}

static void check_records(struct slice in) {
    struct backup_counts counts = {0}, none;
    struct buf file;
    struct kv *kv = NULL;
    size_t chunk = 16 + (size_t) fuzz_u8(&in) * 4, cut = (size_t) fuzz_u8(&in);
    uint64_t records;
    int rc = kv_mem_new(0, &kv);

    ASSERT(rc == 0);
    buf_init(&file, FILE_BYTES_MAX);
    records = put_records(kv, in);
    write_header(&file);
    write_blocks(kv, chunk, &file);
    check_file(slice_of(file.data, file.len));
    rc = read_file(slice_of(file.data, file.len), file.len, &counts);
    ASSERT(rc == 0 && counts.records == records);
    ASSERT(read_file(slice_of(file.data, file.len * cut / 256), file.len, &none) < 0);
    buf_done(&file);
    kv->ops->close(kv);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0)
        return 0;
    if (data[0] & 1)
        check_records(slice_of(data + 1, size - 1));
    else
        check_file(slice_of(data + 1, size - 1));
    return 0;
}

/* Blocks as they follow each other, their lengths within the input. */
static void mend(uint8_t *file, size_t size) {
    size_t at = 0;

    while (at + SNAPSHOT_BLOCK_HEADER_BYTES <= size) {
        uint8_t *b = file + at;
        size_t room = size - at - SNAPSHOT_BLOCK_HEADER_BYTES;

        if (get_le32(b + 16) > room)
            put_le32(b + 16, (uint32_t) room);
        put_le32(b + 24, crc32c(b + SNAPSHOT_BLOCK_HEADER_BYTES, get_le32(b + 16)));
        put_le32(b + 20, crc32c(b, 20));
        at += SNAPSHOT_BLOCK_HEADER_BYTES + get_le32(b + 16);
    }
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed) {
    size = LLVMFuzzerMutate(data, size, max_size);
    if (size > 0 && data[0] % 2 == 0 && seed % 8 != 0)
        mend(data + 1, size - 1);
    return size;
}
