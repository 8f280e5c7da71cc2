/* What one attempt writes: a file up to a limit, and the last 64 KiB in memory (semantics C37).
 *
 * What it is: a sink. The file appears with the first byte; past the limit bytes are counted and
 * dropped, and one line in the file says so. The tail holds the last bytes whether kept or dropped.
 * What it is not: a reader of pipes, or a judge of what it stores: bytes are bytes.
 * Invariants: kept <= limit; total >= kept; truncated = some byte is not in the file.
 * Thread: the loop. Writes go to the page cache; at most one read's worth per call. */
#pragma once

#include "base/bytes.h"
#include "worker/ref.h"

#define OUTPUT_LIMIT_BYTES_DEFAULT (1ULL << 20)
#define OUTPUT_LIMIT_BYTES_MAX (64ULL << 20)
#define OUTPUT_TAIL_BYTES 65536U

struct output {
    int dir_fd; /* borrowed for the struct's life */
    int fd;     /* -1 until the first byte, and again after output_close */
    char name[REF_NAME_BYTES_MAX];
    uint64_t limit;
    uint64_t total;  /* all that was written */
    uint64_t kept;   /* of it, in the file */
    uint64_t stored; /* bytes of the file: kept, and the line that marks the cut */
    bool truncated;
    uint8_t *tail; /* owned ring; grows up to OUTPUT_TAIL_BYTES */
    size_t tail_cap;
    size_t tail_head; /* where the next byte goes */
    size_t tail_len;
};

/* @limit_bytes 0 = the default; more than the maximum is the maximum. Creates nothing. */
void output_init(struct output *o, int dir_fd, const struct ref *ref, uint64_t limit_bytes);
/* Free memory and the descriptor; the file stays. Accepts a zeroed struct with fd -1. */
void output_done(struct output *o);

/* Take @len bytes. Never fails for the caller: what the disk or the memory refuses is counted as
 * dropped. Returns 0, or the -errno of the first refusal, once, for the log. */
int output_append(struct output *o, const void *data, size_t len);
/* No more bytes will come. */
void output_close(struct output *o);
/* Copy the last min(@max, 64 KiB, all) bytes. Returns their number. */
size_t output_tail(const struct output *o, uint8_t *dst, size_t max);
