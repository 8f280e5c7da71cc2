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
#define WAL_SEGMENT_BYTES_MIN (64U * 1024)
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

struct wal_options {
    struct wal_identity identity;
    uint32_t segment_bytes;  /* default 16 MiB; WAL_SEGMENT_BYTES_MIN..MAX, multiple of 4096 */
    uint32_t spare_segments; /* kept ready, default 2 */
    /* An index that was once known durable (struct meta_state has one), 0 = none. A log that ends
     * before it, with no truncation to explain that, is refused as damaged. */
    uint64_t synced_hint;
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
/* Give back whole segments that hold nothing above @up_to_index (a snapshot covers it): durable,
 * then the files become spares. Records up to there may remain (wal_first_index says). */
int wal_release(struct wal *w, uint64_t up_to_index, struct errtext *reterr) _must_check_;

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
uint64_t wal_synced_index(const struct wal *w); /* all up to here is durable */
uint64_t wal_bytes(const struct wal *w);        /* of all segments in use */
