#include "cli/backup_file.h"

#include "base/codec.h"
#include "storage/snapshot_format.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#define READ_BYTES ((size_t) 1024 * 1024)
#define REST_BYTES_MAX (2 * (SNAPSHOT_PAYLOAD_BYTES_MAX + SNAPSHOT_BLOCK_HEADER_BYTES))

/* ---- digests ------------------------------------------------------------------------------- */

static void add(struct digest128 *d, XXH128_hash_t h, int sign) {
    uint64_t before = d->low;

    if (sign > 0) {
        d->low += h.low64;
        d->high += h.high64 + (d->low < before);
    } else {
        d->low -= h.low64;
        d->high -= h.high64 + (d->low > before);
    }
}

/* As fsm/store.c: over key, a zero byte, value. The state's own header record is not part of it. */
static XXH128_hash_t record_hash(struct slice key, struct slice value) {
    static const uint8_t zero;
    XXH3_state_t h;

    (void) XXH3_128bits_reset(&h);
    (void) XXH3_128bits_update(&h, key.data, key.len);
    (void) XXH3_128bits_update(&h, &zero, 1);
    (void) XXH3_128bits_update(&h, value.data, value.len);
    return XXH3_128bits_digest(&h);
}

void backup_count(struct backup_counts *c, struct slice key, struct slice value, int sign) {
    uint64_t one = sign > 0 ? 1 : UINT64_MAX;
    XXH128_hash_t h;

    if (key.len == 0 || (key.len == 1 && (key.data[0] == 'm' || key.data[0] == 'l')))
        return;
    h = record_hash(key, value);
    add(&c->state, h, sign);
    c->records += one;
    if (key.data[0] == 'n') {
        c->nodes += one;
        return;
    }
    add(&c->data, h, sign);
    if (key.data[0] == 'j')
        c->jobs += one;
    else if (key.data[0] == 'w')
        c->workers += one;
    else if (key.data[0] == 'k')
        c->keys += one;
    else
        c->others += one;
}

const char *digest128_text(struct digest128 d, char out[33]) {
    (void) snprintf(out, 33, "%016" PRIx64 "%016" PRIx64, d.high, d.low);
    return out;
}

const char *backup_digest_text(const Chronos__Internal__V1__SnapshotHeader *h, char out[33]) {
    uint8_t digest[16];

    put_le64(digest, h->digest_low);
    put_le64(digest + 8, h->digest_high);
    for (size_t i = 0; i < sizeof(digest); i++)
        (void) snprintf(out + 2 * i, 3, "%02x", digest[i]);
    return out;
}

/* ---- blocks -------------------------------------------------------------------------------- */

int backup_reader_begin(struct backup_reader *r) {
    r->chunks = malloc(sizeof(*r->chunks));
    if (!r->chunks)
        return -ENOMEM;
    snapshot_reader_begin(r->chunks);
    buf_init(&r->rest, REST_BYTES_MAX);
    return 0;
}

void backup_reader_end(struct backup_reader *r) {
    if (r->chunks)
        snapshot_reader_end(r->chunks);
    free(r->chunks);
    r->chunks = NULL;
    if (r->header)
        chronos__internal__v1__snapshot_header__free_unpacked(r->header, NULL);
    r->header = NULL;
    if (r->state)
        chronos__internal__v1__state_meta__free_unpacked(r->state, NULL);
    r->state = NULL;
    buf_done(&r->rest);
}

static int corrupt(const struct backup_reader *r, const char *why, struct errtext *reterr) {
    errtext_set(reterr, "offset %" PRIu64 ": %.400s", r->offset, why);
    return ERR_CORRUPT;
}

static int take_header(struct backup_reader *r, const struct snapshot_block *b,
                       struct errtext *reterr) {
    if (b->kind != SNAPSHOT_BLOCK_HEADER || b->sequence != 0)
        return corrupt(r, "the file does not begin with a header", reterr);
    r->header =
        chronos__internal__v1__snapshot_header__unpack(NULL, b->payload.len, b->payload.data);
    if (!r->header)
        return corrupt(r, "the header cannot be decoded", reterr);
    if (r->header->version != 1) {
        errtext_set(reterr, "the backup is of version %u; this program knows 1",
                    r->header->version);
        return ERR_VERSION;
    }
    if (r->header->cluster_id.len != 16 || r->header->index == 0)
        return corrupt(r, "the header has no cluster id or no index", reterr);
    return 0;
}

static int take_record(struct backup_reader *r, const struct kv_op *op, struct errtext *reterr) {
    backup_count(&r->counts, op->key, op->value, +1);
    if (op->key.len != 1 || op->key.data[0] != 'm')
        return 0;
    /* Keys are in order and unique: this is the only one. */
    ASSERT(!r->state);
    r->state = chronos__internal__v1__state_meta__unpack(NULL, op->value.len, op->value.data);
    if (!r->state)
        return corrupt(r, "the head of the state cannot be decoded", reterr);
    if (r->state->applied_index != r->header->index)
        return corrupt(r, "the state is of another index than the header", reterr);
    return 0;
}

static int take_block(struct backup_reader *r, const struct snapshot_block *b,
                      struct errtext *reterr) {
    struct kv_op *ops = NULL;
    struct errtext why = {0};
    size_t count = 0;
    int rc;

    if (!r->header)
        return take_header(r, b, reterr);
    if (r->chunks->done)
        return corrupt(r, "bytes behind the end of the backup", reterr);
    rc = snapshot_reader_take(r->chunks, b, &ops, &count, &why);
    if (rc == ERR_CORRUPT)
        return corrupt(r, why.s, reterr);
    if (rc == 0) {
        for (size_t i = 0; rc == 0 && i < count; i++)
            rc = take_record(r, &ops[i], reterr);
        if (rc == 0 && r->on_records)
            rc = r->on_records(r->arg, ops, count);
    }
    free(ops);
    return rc;
}

/* Blocks from the front of @in while they are whole. */
static int take_blocks(struct backup_reader *r, struct slice in, size_t *ret_used,
                       struct errtext *reterr) {
    *ret_used = 0;
    while (*ret_used < in.len) {
        struct snapshot_block b;
        struct errtext why = {0};
        size_t bytes = 0;
        int rc = snapshot_block_parse(slice_of(in.data + *ret_used, in.len - *ret_used), &b, &bytes,
                                      &why);

        if (rc == SNAPSHOT_MORE)
            return 0;
        if (rc == ERR_VERSION) {
            *reterr = why;
            return rc;
        }
        if (rc == ERR_CORRUPT)
            return corrupt(r, why.s, reterr);
        if (rc == 0)
            rc = take_block(r, &b, reterr);
        if (rc < 0)
            return rc;
        *ret_used += bytes;
        r->offset += bytes;
    }
    return 0;
}

int backup_reader_feed(struct backup_reader *r, struct slice bytes, struct errtext *reterr) {
    size_t used = 0;
    int rc;

    while (bytes.len > 0) {
        /* In pieces: a block may be as large as the buffer may become, its neighbours come after.
         */
        size_t piece = MIN(bytes.len, READ_BYTES);

        rc = buf_append(&r->rest, bytes.data, piece);
        if (rc < 0)
            return rc;
        bytes = slice_of(bytes.data + piece, bytes.len - piece);
        rc = take_blocks(r, slice_of(r->rest.data, r->rest.len), &used, reterr);
        if (rc < 0)
            return rc;
        buf_consume(&r->rest, used);
    }
    return 0;
}

int backup_reader_finish(struct backup_reader *r, struct errtext *reterr) {
    struct digest128 want;

    if (!r->header && r->rest.len == 0 && r->offset == 0)
        return corrupt(r, "the file is empty", reterr);
    if (r->rest.len > 0)
        return corrupt(r, "the file ends in the middle of a block: it is cut off", reterr);
    if (!r->chunks->done)
        return corrupt(r, "the last block is missing: the file is cut off", reterr);
    if (!r->state)
        return corrupt(r, "the head of the state is missing", reterr);
    want = (struct digest128){.low = r->state->digest_low, .high = r->state->digest_high};
    if (want.low != r->counts.state.low || want.high != r->counts.state.high) {
        char a[33], b[33];

        errtext_set(reterr, "the records' digest is %s but the state says %s: it was written wrong",
                    digest128_text(r->counts.state, a), digest128_text(want, b));
        return ERR_CORRUPT;
    }
    return 0;
}

/* ---- files --------------------------------------------------------------------------------- */

static int read_all(struct backup_reader *r, int fd, uint8_t *block, struct errtext *reterr) {
    while (true) {
        ssize_t n = read(fd, block, READ_BYTES);
        int rc;

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            rc = -errno;
            errtext_set(reterr, "cannot be read: %s", strerror(-rc));
            return rc;
        }
        if (n == 0)
            return backup_reader_finish(r, reterr);
        rc = backup_reader_feed(r, slice_of(block, (size_t) n), reterr);
        if (rc < 0)
            return rc;
    }
}

int backup_read_file(struct backup_reader *r, const char *path, struct errtext *reterr) {
    int fd = open(path, O_RDONLY | O_CLOEXEC), rc;
    uint8_t *block;

    if (fd < 0) {
        rc = -errno;
        errtext_set(reterr, "cannot be opened: %s", strerror(-rc));
        return rc;
    }
    block = malloc(READ_BYTES);
    rc = block ? read_all(r, fd, block, reterr) : -ENOMEM;
    free(block);
    (void) close(fd);
    return rc;
}
