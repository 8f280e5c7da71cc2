/* The bytes of the write-ahead log: segment header and record, encoded and checked.
 *
 * What it is: a pure codec; docs/formats.md has the tables. What it is not: it opens no file and
 * knows no order between records (wal_scan.c does).
 * Invariant: a record is accepted only at the offset, in the segment and in the use of the file it
 * was written for, because all three are under its header checksum (reliability.md W10, W16).
 * Thread: any; nothing here has state. */
#pragma once

#include "base/defs.h"

#define WAL_FORMAT_VERSION 1U
#define WAL_HEADER_BYTES 4096U
#define WAL_RECORD_HEADER_BYTES 40U
#define WAL_RECORD_KIND_OFFSET 36U
#define WAL_RELEASE_BYTES 8U
/* Nothing counts so far; a header that says more is none of ours, and sums must not wrap. */
#define WAL_INDEX_MAX (UINT64_MAX / 4)

enum wal_kind {
    WAL_KIND_DATA = 1,     /* a record of the caller */
    WAL_KIND_TRUNCATE = 2, /* index: first one cut; term: of the record before it */
    WAL_KIND_RELEASE = 3,  /* data: sequence number of the oldest segment still needed */
    WAL_KIND_SEAL = 4, /* nothing but its synced offset, which is its own; index, term: the last */
};

struct wal_segment_header {
    uint8_t cluster_id[16];
    uint64_t node_id;
    uint64_t seq;        /* of this segment, > 0 */
    uint64_t use;        /* how often this file has been given a header, > 0: the salt */
    uint64_t prev_seq;   /* segment before this one in the chain, 0 = none */
    uint64_t prev_index; /* last index of the log where this segment begins */
    uint64_t prev_term;
    uint64_t floor;      /* lowest last index any truncation ever left; UINT64_MAX = none */
    uint64_t oldest_seq; /* segments before this one have been released */
    uint32_t prev_end;   /* offset in prev_seq where its records end */
    uint32_t prev_crc;   /* header crc of the last record there: the chain */
    uint32_t base_end;   /* records before this offset were durable before the file got its name */
    uint32_t segment_bytes; /* size of the file */
};

struct wal_frame {
    uint64_t index;
    uint64_t term;
    uint32_t len; /* of data */
    uint32_t crc; /* of the header: the chain value for the next record */
    uint32_t prev_crc;
    uint32_t synced; /* all of this segment before this offset was durable at the time of writing */
    enum wal_kind kind;
    uint8_t type;
    const uint8_t *data; /* borrowed from the parsed bytes */
};

/* Where a record stands; all of it is under the record's checksum. */
struct wal_place {
    uint64_t seq;
    uint64_t use;
    uint32_t offset;
    uint32_t segment_bytes;
};

/* Bytes a record of @len data bytes takes on disk, padding included. */
static inline uint32_t wal_format_record_bytes(uint32_t len) {
    return (WAL_RECORD_HEADER_BYTES + len + 7U) & ~7U;
}

void wal_format_header_encode(const struct wal_segment_header *h, uint8_t out[WAL_HEADER_BYTES]);
/* 0; ERR_CORRUPT; ERR_VERSION (intact, but written by a newer program). */
int wal_format_header_decode(const uint8_t in[WAL_HEADER_BYTES],
                             struct wal_segment_header *ret_h) _must_check_;

/* Encode the header of @f (crc is computed and stored into it); the data follows separately. */
void wal_format_record_encode(struct wal_frame *f, const struct wal_place *at,
                              uint8_t out[WAL_RECORD_HEADER_BYTES]);

/* Could a record begin at @p (at least a record header long)? A look at one byte, for scans. */
static inline bool wal_format_maybe_record(const uint8_t *p) {
    return p[WAL_RECORD_KIND_OFFSET] >= WAL_KIND_DATA && p[WAL_RECORD_KIND_OFFSET] <= WAL_KIND_SEAL;
}

enum wal_parse {
    WAL_PARSE_OK = 0,
    WAL_PARSE_BAD = 1,   /* no record of this place */
    WAL_PARSE_SHORT = 2, /* header good, ret_f->len set, but @avail ends before the data does */
};

/* Check the record at @p, of which @avail bytes are in memory. */
enum wal_parse wal_format_record_parse(const uint8_t *p, size_t avail, const struct wal_place *at,
                                       struct wal_frame *ret_f);
