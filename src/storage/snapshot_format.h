/* A state as a stream of checksummed chunks of sorted records: what travels to a follower that is
 * behind the log, and what a backup file holds.
 *
 * What it is: a pure codec. A writer cuts a kv iterator into chunks, a reader checks a chunk and
 * gives its records back. What it is not: it knows no file and no network, and not what the records
 * mean. docs/formats.md has the byte tables.
 *
 * Stream: header, chunks 1..n, of which the last one is marked and carries the number of records
 * and a XXH3-128 over all records of the stream. Each part stands in a block:
 *
 *   offset bytes field
 *        0     4 magic "CSNP"
 *        4     1 format version, 1
 *        5     1 kind: 1 header, 2 chunk, 3 last chunk
 *        6     2 reserved, 0
 *        8     8 sequence number: 0 for the header, then 1, 2, ...
 *       16     4 payload length
 *       20     4 CRC32C of bytes 0..19
 *       24     4 CRC32C of the payload
 *       28     4 reserved, 0
 *       32     n payload
 *
 * Payload of a chunk: records of strictly ascending keys, each {key length u32, value length u32,
 * key, value}; none begins at or behind SNAPSHOT_CHUNK_BYTES. The last chunk may have no record and
 * ends with {number of records in the stream u64, hash of the stream 16 bytes}. The hash of chunk n
 * is XXH3-128 of {hash of chunk n - 1 (zeros before the first), XXH3-128 of the chunk's records}.
 *
 * A backup file is these blocks one after the other and nothing else: damage of any byte is found,
 * and so is a missing end. Thread: any; no state beyond the structs. */
#pragma once

#include "base/buf.h"
#include "base/err.h"
#include "base/kv.h"

#define SNAPSHOT_BLOCK_HEADER_BYTES 32U
#define SNAPSHOT_CHUNK_BYTES (256U * 1024)            /* a chunk is closed once it holds as much */
#define SNAPSHOT_PAYLOAD_BYTES_MAX (8U * 1024 * 1024) /* one record may be large */
#define SNAPSHOT_HEADER_BYTES_MAX (64U * 1024)

enum snapshot_block_kind {
    SNAPSHOT_BLOCK_HEADER = 1,
    SNAPSHOT_BLOCK_CHUNK = 2,
    SNAPSHOT_BLOCK_LAST = 3,
};

struct snapshot_block {
    enum snapshot_block_kind kind;
    uint64_t sequence;
    struct slice payload; /* borrowed from the input; checksums hold */
};

enum { SNAPSHOT_MORE = 1 };

/* Take one block from the front of @in.
 * 0 with *ret_bytes used; SNAPSHOT_MORE with *ret_bytes = needed in all, as far as known (more than
 * @in holds); ERR_CORRUPT (offset relative to the block in @reterr); ERR_VERSION (newer format). */
int snapshot_block_parse(struct slice in, struct snapshot_block *ret, size_t *ret_bytes,
                         struct errtext *reterr) _must_check_;
/* Append the header block: @header is an encoded chronos.internal.v1.SnapshotHeader. 0, -ENOMEM. */
int snapshot_header_encode(struct buf *out, struct slice header) _must_check_;

/* ---- writing -------------------------------------------------------------------------------- */

struct snapshot_writer {
    struct kv_iter *it; /* borrowed; moved along */
    uint64_t sequence;  /* of the last chunk written */
    uint64_t records;
    uint64_t hash[2]; /* of all records so far; chained over the chunks */
    bool done;
    /* Keys that begin with this byte stay at home (facts of one node). */
    uint8_t skip_prefix;
    /* A chunk is closed once it holds as much. snapshot_writer_begin sets SNAPSHOT_CHUNK_BYTES;
     * less makes more and smaller chunks of the same records. */
    size_t chunk_bytes;
};

/* Moves @it to its first record. */
void snapshot_writer_begin(struct snapshot_writer *w, struct kv_iter *it, uint8_t skip_prefix);
/* Append the next chunk block to @out. Not after w->done. 0; -ENOMEM; the iterator's error;
 * ERR_LIMIT (a record larger than a payload may be, or than @out may become). After an error the
 * writer is of no further use, and @out is as it was. */
int snapshot_writer_next(struct snapshot_writer *w, struct buf *out) _must_check_;

/* ---- reading -------------------------------------------------------------------------------- */

struct snapshot_reader {
    uint64_t sequence; /* of the last chunk taken */
    uint64_t records;
    uint64_t hash[2];
    bool done; /* the last chunk was taken and its totals agree */
    struct buf last_key;
};

void snapshot_reader_begin(struct snapshot_reader *r);
void snapshot_reader_end(struct snapshot_reader *r);
/* After an error @r is as it was. Check a CHUNK or LAST block's place, order of keys and totals,
 * and lend its records as puts; *ret_ops is owned by the caller (free), the slices point into
 * @b->payload. 0; ERR_CORRUPT with the reason; -ENOMEM. */
int snapshot_reader_take(struct snapshot_reader *r, const struct snapshot_block *b,
                         struct kv_op **ret_ops, size_t *ret_count,
                         struct errtext *reterr) _must_check_;
