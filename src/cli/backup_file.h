/* A backup as a stream of bytes: every block checked as it comes, its records handed on.
 *
 * What it is: storage/snapshot_format.h over input of any pieces, with what the whole must add up
 * to: the records' digest is the one the state carries, so even a writer's mistake is found.
 * What it is not: it opens no file (cmd_backup.c, restore.c do).
 * Thread: any; no state beyond the struct. */
#pragma once

#include "base/buf.h"
#include "base/err.h"
#include "base/kv.h"

#include "chronos/internal/v1/command.pb-c.h"
#include "chronos/internal/v1/snapshot.pb-c.h"

struct digest128 {
    uint64_t low, high;
};

struct backup_counts {
    uint64_t records;
    uint64_t jobs, workers, keys, nodes, others;
    struct digest128 state; /* of all records but the state's own head, which carries it */
    struct digest128 data;  /* of jobs, workers and keys: what a restore keeps as it is */
};

struct backup_reader {
    /* May be NULL. Borrows all for the call; a negative result ends the reading. */
    int (*on_records)(void *arg, const struct kv_op *ops, size_t count);
    void *arg;
    uint64_t offset;                               /* in the file: of the next block */
    Chronos__Internal__V1__SnapshotHeader *header; /* owned; NULL before its block */
    Chronos__Internal__V1__StateMeta *state;       /* owned; NULL before its record */
    struct backup_counts counts;
    struct snapshot_reader *chunks; /* owned */
    struct buf rest;                /* the beginning of a block */
};

/* 0 or -ENOMEM. */
int backup_reader_begin(struct backup_reader *r) _must_check_;
void backup_reader_end(struct backup_reader *r); /* a zeroed struct is allowed */
/* Take the next bytes of the file. 0; ERR_CORRUPT with the offset in the file; ERR_VERSION;
 * -ENOMEM; what on_records returned. */
int backup_reader_feed(struct backup_reader *r, struct slice bytes,
                       struct errtext *reterr) _must_check_;
/* The file is over: 0, or ERR_CORRUPT with what is missing. */
int backup_reader_finish(struct backup_reader *r, struct errtext *reterr) _must_check_;
/* Read a whole file. -errno when it cannot be read. */
int backup_read_file(struct backup_reader *r, const char *path,
                     struct errtext *reterr) _must_check_;

/* Add the digest of one record to the sums it belongs to, and count it. @sign +1 or -1. */
void backup_count(struct backup_counts *c, struct slice key, struct slice value, int sign);
const char *digest128_text(struct digest128 d, char out[33]);
/* The cluster's digest as `chronos cluster status` shows it. */
const char *backup_digest_text(const Chronos__Internal__V1__SnapshotHeader *h, char out[33]);
