/* Shared by the wal_*.c files only; the contract is wal.h.
 *
 * wal.c writes, wal_read.c reads, wal_release.c gives back, wal_files.c makes, recycles and names
 * segment files, wal_recover.c opens, wal_scan.c judges a segment's bytes, wal_scrub.c verifies,
 * wal_inspect.c shows. Invariants are in wal_check(). Thread: as wal.h. */
#pragma once

#include "storage/wal.h"
#include "storage/wal_format.h"

#define WAL_NAME_BYTES 32
/* Staged records go to the file in writes of at most this size: few system calls for a large batch,
 * bounded memory. */
#define WAL_STAGE_BYTES (256U * 1024)
/* One remembered offset for so many records: a lookup reads at most this many headers. */
#define WAL_MARK_EVERY 64U
/* A log of more segment files than this is not ours (at the smallest size: 64 GiB). */
#define WAL_SEGMENTS_MAX (1U << 20)
#define WAL_BLOCK_BYTES 4096U

STATIC_ASSERT(WAL_STAGE_BYTES % WAL_BLOCK_BYTES == 0, "whole blocks are written");

struct wal_mark {
    uint64_t index;
    uint32_t offset;
};

/* A segment in use, oldest first in wal.segs. */
struct wal_segment {
    struct wal_segment_header h;
    uint32_t end;            /* offset after the last record */
    uint64_t lo, hi;         /* indices whose surviving record is in here; 0, 0 = none */
    uint64_t term_before_lo; /* term of record lo - 1, 0 when lo is the first ever */
    struct wal_mark *marks;  /* owned; ascending; the first is for lo */
    size_t marks_count;
    size_t marks_cap;
    uint32_t since_mark; /* data records since the last mark */
};

/* What the records so far add up to. */
struct wal_cursor {
    uint32_t crc; /* chain: header crc of the last record */
    uint64_t last_index;
    uint64_t last_term;
    uint64_t floor;
    uint64_t oldest_seq;
};

struct wal_spare {
    uint64_t id; /* in its name */
};

struct wal {
    struct disk disk;
    struct wal_options o;
    struct wal_segment *segs; /* owned array */
    size_t segs_count;
    size_t segs_cap;
    struct wal_spare *spares; /* owned array, all of o.segment_bytes */
    size_t spares_count;
    size_t spares_cap;
    uint64_t next_spare_id;
    struct disk_file *build; /* the spare being written in steps, under WAL_TEMP_NAME; or NULL */
    uint32_t build_bytes;    /* of it written and synced */
    uint64_t next_seq;
    struct wal_cursor cur;

    struct disk_file *active; /* owned; the last of segs */
    uint8_t *stage;           /* owned; file bytes from stage_offset, a multiple of 4096 */
    uint32_t stage_offset;
    uint32_t stage_len;
    bool stage_dirty;      /* has bytes the file does not have */
    bool unsynced;         /* the file has bytes that no sync covered */
    uint32_t synced;       /* all of the active segment before this offset is durable */
    uint32_t synced_crc;   /* the chain there */
    uint32_t sealed;       /* end of the active segment when a seal was its last record, or 0 */
    uint64_t synced_index; /* last index covered by a successful sync */

    struct disk_file *reading; /* owned; NULL or open on segment reading_seq */
    uint64_t reading_seq;
    uint8_t *window; /* owned; window_len file bytes of reading_seq from window_offset */
    size_t window_cap;
    size_t window_len;
    uint32_t window_offset;

    int failed; /* first fatal error; sticky */
};

static inline struct wal_segment *wal_active(struct wal *w) {
    ASSERT(w->segs_count > 0);
    return &w->segs[w->segs_count - 1];
}

static inline struct wal_place wal_place_at(const struct wal_segment_header *h, uint32_t offset) {
    return (struct wal_place){
        .seq = h->seq, .use = h->use, .offset = offset, .segment_bytes = h->segment_bytes};
}

/* wal.c */
void wal_check(const struct wal *w);
/* Close the log for writing with @err; fills @reterr; returns @err. */
int wal_fail(struct wal *w, int err, struct errtext *reterr, const char *doing, const char *name);
/* Stage one record in the active segment, which must have the room. */
int wal_put(struct wal *w, struct wal_frame *f, struct errtext *reterr) _must_check_;
/* As wal_put, in a new segment when this one has no room. */
int wal_put_with_room(struct wal *w, struct wal_frame *f, struct errtext *reterr) _must_check_;
/* Bring the stage to the file. */
int wal_flush(struct wal *w, struct errtext *reterr) _must_check_;
/* The same, and make it durable. */
int wal_sync_active(struct wal *w, struct errtext *reterr) _must_check_;

/* wal_index.c: which record is where */
/* Room for one more mark and segment-level bookkeeping; -ENOMEM. Before wal_index_note. */
int wal_index_reserve(struct wal_segment *s) _must_check_;
/* Account for a valid record at @offset of the last segment: cursor, marks, surviving ranges. */
void wal_index_note(struct wal *w, const struct wal_frame *f, uint32_t offset);
/* The segment that holds @index; NULL when none does. */
struct wal_segment *wal_index_find(struct wal *w, uint64_t index);
/* The last mark at or before @index in @s, which holds @index. */
const struct wal_mark *wal_index_mark(const struct wal_segment *s, uint64_t index);

/* wal_files.c */
void wal_files_segment_name(char out[WAL_NAME_BYTES], uint64_t seq);
void wal_files_spare_name(char out[WAL_NAME_BYTES], uint64_t id);
/* Parse a name: 0 with the number; 1 when it is not such a name. */
int wal_files_parse_segment(const char *name, uint64_t *ret_seq);
int wal_files_parse_spare(const char *name, uint64_t *ret_id);
#define WAL_TEMP_NAME "wal-prepare.tmp"
/* Make one zero-filled, synced spare of @bytes; *ret_id names it. Not added to w->spares. */
int wal_files_make_spare(struct wal *w, uint32_t bytes, uint64_t *ret_id,
                         struct errtext *reterr) _must_check_;
/* Write and sync up to *budget bytes of the next ordinary spare and lower *budget by them. 0 with
 * *ret_id once a spare is complete; 1 when the budget ran out first; errors as make_spare. */
int wal_files_build_spare(struct wal *w, uint32_t *budget, uint64_t *ret_id,
                          struct errtext *reterr) _must_check_;
/* Forget a spare that was begun; its file is overwritten by the next. */
void wal_files_build_drop(struct wal *w);
/* Begin a segment: take a spare of at least @min_bytes (making one when there is none), give it
 * the durable header @h (use, seq, segment_bytes, identity are filled in here) and make it active.
 * It has its spare name until wal_files_publish. */
int wal_files_begin(struct wal *w, struct wal_segment_header *h, uint32_t min_bytes,
                    uint64_t *ret_spare_id, struct errtext *reterr) _must_check_;
/* Give the active segment its durable name. What it holds must be synced. */
int wal_files_publish(struct wal *w, uint64_t spare_id, struct errtext *reterr) _must_check_;
/* Turn files of segments no longer needed into spares, or remove them. Durable on return. */
int wal_files_retire(struct wal *w, const uint64_t *seqs, size_t n,
                     struct errtext *reterr) _must_check_;

/* wal_read.c */
/* Load and check the record at @offset of @s. ERR_CORRUPT, -errno, -ENOMEM. */
int wal_read_frame(struct wal *w, const struct wal_segment *s, uint32_t offset,
                   struct wal_frame *ret_f, struct errtext *reterr) _must_check_;
/* Forget what was read ahead: the file is about to change. */
void wal_read_forget(struct wal *w);

/* wal_scan.c: the bytes of one segment, in memory */
struct wal_image {
    struct wal_segment_header h;
    const uint8_t *bytes; /* borrowed */
    size_t len;           /* of the file, at most h.segment_bytes */
};
/* What the log is where a segment begins. */
struct wal_cursor wal_cursor_of(const struct wal_segment_header *h);
/* Does an intact record continue the log? Advances @c when it does. */
bool wal_cursor_follow(struct wal_cursor *c, const struct wal_frame *f);
/* The intact record at @offset, if there is one. */
bool wal_scan_frame(const struct wal_image *s, uint32_t offset, struct wal_frame *ret_f);
/* Walk from the segment's beginning while records follow; *ret_end is where that ends, *ret_known
 * how far the records themselves and the header vouch for durability. Stops at @limit. */
void wal_scan_walk(const struct wal_image *s, uint32_t limit, struct wal_cursor *c,
                   uint32_t *ret_end, uint32_t *ret_known);
/* The next intact record at or behind @offset; false when there is none. Records are stepped over
 * whole by who goes on behind one, so that data that looks like a record is not taken for one. */
bool wal_scan_next(const struct wal_image *s, uint32_t offset, uint32_t *ret_at,
                   struct wal_frame *ret_f);
/* Is there an intact record behind @end that says the bytes at @end were durable? */
bool wal_scan_vouched(const struct wal_image *s, uint32_t end);
