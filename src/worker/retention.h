/* Old output files: how many and how much stays on the worker's disk.
 *
 * What it is: a list of finished outputs, oldest first, with their sizes; what exceeds the bounds
 * is unlinked. At start the directory is read, ordered by modification time. What it is not: an
 * owner of outputs that are still being written; those join when they are done. Invariants: bytes =
 * sum of the list; names are unique. Thread: the loop. */
#pragma once

#include "base/map.h"
#include "worker/ref.h"

#define RETENTION_BYTES_DEFAULT (1ULL << 30)
#define RETENTION_COUNT_DEFAULT 10000

struct retained;

struct retention {
    int dir_fd; /* borrowed */
    uint64_t bytes_max;
    size_t count_max;
    struct retained *first;
    struct retained *last;
    struct bytesmap by_name;
    uint64_t bytes;
};

void retention_init(struct retention *t, int dir_fd, uint64_t bytes_max, size_t count_max);
void retention_done(struct retention *t); /* files stay */
/* Read the directory. 0, -errno or -ENOMEM. */
int retention_load(struct retention *t) _must_check_;
/* A finished output joins as the newest; then the oldest go until the bounds hold. -ENOMEM: the
 * file stays on disk until the next start. */
int retention_add(struct retention *t, const char *name, uint64_t bytes) _must_check_;
/* The name is about to be written anew: no longer ours. */
void retention_take(struct retention *t, const char *name);
