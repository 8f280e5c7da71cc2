/* The write-ahead log: what is acknowledged is in here.
 *
 * Append-only records in fixed-size segment files that are zero-filled and synced before they are
 * needed and recycled later, so that a commit overwrites already written blocks (half the latency
 * of growing a file, design.md section 6). Truncation is a record too: nothing already synced is
 * ever rewritten.
 * What it is not: it knows no Raft; it stores (term, index, type, data) and gives it back.
 * Invariants: reliability.md W1, W3, W7-W11, W16, W18, W20; drawn in docs/formats.md.
 * Thread: wal_open on the owner's thread; after that all calls run inside disk jobs, one at a time.
 */
#pragma once

#include "base/bytes.h"
#include "base/disk.h"
#include "base/err.h"

#define WAL_RECORD_BYTES_MAX (4U * 1024 * 1024) /* data of one record */
#define WAL_SEGMENT_BYTES_MAX (64U * 1024 * 1024)
#define WAL_SEGMENT_BYTES_MIN (8U * 1024)
#define WAL_PREPARE_STEP_BYTES (512U * 1024)

struct wal_record {
    uint64_t index; /* > 0, consecutive */
    uint64_t term;  /* > 0, non-decreasing */
    uint8_t type;   /* the caller's; > 0 */
    struct slice data;
};

struct wal_identity {
    uint8_t cluster_id[16];
    uint64_t node_id;
};

/* A place in the log up to which all is durable. The log only grows, cuts are records too: so it
 * stays true, and only files that are gone or old can contradict it. */
struct wal_position {
    uint64_t seq; /* of the segment that was the newest; 0 = unknown */
    uint32_t end; /* offset in it behind the last durable record */
    uint32_t crc; /* header CRC of that record: the chain */
};

struct wal_options {
    struct wal_identity identity;
    uint32_t segment_bytes;  /* default 16 MiB; WAL_SEGMENT_BYTES_MIN..MAX, multiple of 4096 */
    uint32_t spare_segments; /* kept ready, default 2 */
    /* An index that was once known durable (struct meta_state has one), 0 = none. A log that ends
     * before it, with no truncation to explain that, is refused as damaged. */
    uint64_t synced_hint;
    /* A place that was once known durable (meta again): a newest segment before it, or one that
     * does not reach it with the same chain, is refused as missing, damaged or old. */
    struct wal_position synced_at;
    /* What the state on this disk contains, 0 = nothing. Nothing of that is ever cut off, so a log
     * that ends before it is refused as damaged, and before any of its files is touched: then the
     * right ones can still be put back. */
    uint64_t state_index;
};

struct wal;

/* Open the log and replay it: @each gets every surviving record once, in index order, after all
 * truncations (its data is borrowed for the call; a non-zero result aborts and is returned).
 * Creates an empty log when the directory has none.
 * 0; ERR_CORRUPT with file and offset (refuse to start: records that may have been acknowledged are
 * damaged); ERR_FOREIGN (another cluster's or node's files); ERR_VERSION; -errno; -ENOMEM. */
int wal_open(const struct disk *disk, const struct wal_options *o,
             int (*each)(void *arg, const struct wal_record *rec), void *arg, struct wal **ret,
             struct errtext *reterr) _must_check_;
struct wal *wal_close(struct wal *w); /* NULL allowed; does not sync */
DEFINE_CLEANUP(struct wal *, wal_close);

/* Write records (not yet durable). The first must be wal_last_index() + 1. After any negative
 * result the log is closed for writing and the process must stop (W3, W19). */
int wal_append(struct wal *w, const struct wal_record *recs, size_t n,
               struct errtext *reterr) _must_check_;
/* Cut all records with index >= @from (> the index before wal_first_index(); asserted); durable
 * with the next wal_sync. Nothing to cut: 0. */
int wal_truncate(struct wal *w, uint64_t from, struct errtext *reterr) _must_check_;
/* One fdatasync for everything written so far (more when a segment was finished in between). */
int wal_sync(struct wal *w, struct errtext *reterr) _must_check_;
/* One bounded step (WAL_PREPARE_STEP_BYTES written and synced) towards having the spare segments
 * ready; call between commits while wal_wants_prepare() says so. -ENOSPC and -EDQUOT
 * leave the log usable: the active segment may still have room (try again later, refuse new work
 * meanwhile). Any other negative result closes the log as wal_append does. */
int wal_prepare(struct wal *w, struct errtext *reterr) _must_check_;
/* True when wal_prepare has something to do. */
bool wal_wants_prepare(const struct wal *w);
/* Give back whole segments that hold nothing above @up_to_index (a snapshot covers it), but keep
 * the newest segments of together at least @keep_bytes for slow followers: durable, then the files
 * become spares (those beyond spare_segments are removed). Records up to there may remain
 * (wal_base_index says). */
int wal_release(struct wal *w, uint64_t up_to_index, uint64_t keep_bytes,
                struct errtext *reterr) _must_check_;
/* Begin anew after a snapshot: the log is empty and its next record is @index + 1, all it held
 * before is gone, even records above @index. Durable on return; a crash leaves the old log whole or
 * the new one. */
int wal_reset(struct wal *w, uint64_t index, uint64_t term, struct errtext *reterr) _must_check_;
/* Note durably that everything written so far is durable, so that damage to the last batch cannot
 * be taken for a torn tail (W9). For an orderly stop. Does nothing when the log says so already. */
int wal_seal(struct wal *w, struct errtext *reterr) _must_check_;

/* Scrubbing (W14): verify up to @max_bytes of what is durable, from *cursor on (0 = the oldest
 * record; moved along; 0 again at the end of a round). 0; ERR_CORRUPT with file and offset, and
 * *ret_index = the highest index that a snapshot must cover before wal_release can give the damaged
 * segment back (the one being written goes with wal_reset only). The cursor stays before the
 * damage, the log stays open. -errno, -ENOMEM. A record larger than @max_bytes is verified whole.
 */
struct wal_scrub {
    uint64_t seq;    /* segment */
    uint32_t offset; /* in it */
};
int wal_scrub(struct wal *w, struct wal_scrub *cursor, uint32_t max_bytes, uint64_t *ret_index,
              struct errtext *reterr) _must_check_;

/* For `chronos inspect`: read the files of a log that nobody has open, changing nothing, and report
 * everything in them, damaged or not. */
struct wal_inspect_segment {
    const char *name;
    uint64_t seq, prev_seq, prev_index, prev_term, oldest_seq;
    struct wal_identity identity;
    uint32_t bytes; /* of the file */
    bool spare;     /* no segment of the log: ready for use */
};
struct wal_inspect_record {
    const char *segment;
    uint32_t offset;
    const char *kind;         /* "entry", "truncate", "release", "seal" */
    struct wal_record record; /* entry: whole; truncate: index and term of what remained */
};
struct wal_inspect_visitor {
    int (*segment)(void *arg, const struct wal_inspect_segment *s);
    int (*record)(void *arg, const struct wal_inspect_record *r);
    /* Bytes that are no record where one should be: a torn tail (@torn) or damage. */
    int (*bad)(void *arg, const char *segment, uint32_t offset, bool torn, const char *why);
    void *arg;
};
/* 0; the visitor's non-zero result; ERR_CORRUPT (no readable segment), -errno, -ENOMEM. */
int wal_inspect(const struct disk *disk, const struct wal_inspect_visitor *v,
                struct errtext *reterr) _must_check_;

/* Read consecutive records from @first until @max_bytes of data (at least one record when it
 * exists). Checksums are verified (W14, W16). 0; 1 when @first is not in the log; ERR_CORRUPT. */
int wal_read(struct wal *w, uint64_t first, size_t max_bytes,
             int (*each)(void *arg, const struct wal_record *rec), void *arg,
             struct errtext *reterr) _must_check_;
/* Term of one record: 0 with *ret_term, 1 when not in the log. */
int wal_term(struct wal *w, uint64_t index, uint64_t *ret_term,
             struct errtext *reterr) _must_check_;

uint64_t wal_first_index(const struct wal *w); /* 0 when it holds no record */
/* The next record's index minus one; 0 in a new log. (After wal_release and a truncation of all
 * that was left it is not 0 although there is no record.) */
uint64_t wal_last_index(const struct wal *w);
uint64_t wal_synced_index(const struct wal *w);         /* all up to here is durable */
struct wal_position wal_synced_at(const struct wal *w); /* the same as a place */
/* The entry before the first that can be read: 0, 0 in a log that has released nothing. */
uint64_t wal_base_index(const struct wal *w);
uint64_t wal_base_term(const struct wal *w);
uint64_t wal_bytes(const struct wal *w); /* of all segments in use */
