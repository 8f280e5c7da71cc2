/* An ordered key-value store with atomic batches: where the state machine's records live.
 *
 * os/kv_rocks.c is RocksDB with its own WAL off; storage/kv_mem.c is memory with separate durable
 * and volatile planes, for the simulator and tests.
 * Durability contract (reliability.md W13): after a crash the store holds the effect of an exact
 * prefix of the written batches. kv_flush() makes all written so far durable. The applied index is
 * written in the same batch as the data it covers, so a prefix knows where to replay from.
 * Keys sort by memcmp. Returns: 0, positive KV_NOT_FOUND from get, negative = fatal (stop the
 * node). */
#pragma once

#include "base/buf.h"
#include "base/err.h"

enum { KV_NOT_FOUND = 1 };

struct kv_op {
    struct slice key;
    struct slice value; /* ignored when del */
    bool del;
};

struct kv;
struct kv_iter;

struct kv_ops {
    /* Append the value to @out (caller clears it first when it wants to). */
    int (*get)(struct kv *kv, struct slice key, struct buf *out);
    /* All or nothing, in memory at once, durable later. Borrows everything for the call. */
    int (*write)(struct kv *kv, const struct kv_op *ops, size_t n);
    /* May run on another thread, beside reads and writes; covers what was written before the call.
     */
    int (*flush)(struct kv *kv);
    /* Verify the checksums of everything stored (W14). Slow; may run on another thread. 0 or
     * ERR_CORRUPT. */
    int (*verify)(struct kv *kv, struct errtext *reterr);
    /* A consistent view as of now. Owned by the caller; close with iter_close. It may be used on
     * another thread than the kv's, by one thread at a time. */
    int (*iter_open)(struct kv *kv, struct kv_iter **ret);
    /* A second store, written beside the current one: how a snapshot arrives. stage_begin drops
     * what an earlier one left; stage_write is as write, into it. stage_commit makes it durable and
     * then, atomically, what the next open of this store finds; until then a crash leaves the old.
     * The handle goes on showing the old store until stage_adopt, which needs that no iterator is
     * open and deletes the old store. stage_drop: give up (allowed at any time before commit).
     * begin, write and commit may run on another thread than the rest of the handle, one at a
     * time. Errors are fatal as ever, but for -ENOSPC and -EDQUOT: nothing was switched, drop it.
     */
    int (*stage_begin)(struct kv *kv);
    int (*stage_write)(struct kv *kv, const struct kv_op *ops, size_t n);
    int (*stage_commit)(struct kv *kv);
    int (*stage_adopt)(struct kv *kv);
    void (*stage_drop)(struct kv *kv);
    /* Bytes on disk, roughly; for the status. */
    uint64_t (*disk_bytes)(struct kv *kv);
    void (*close)(struct kv *kv); /* frees kv; does not flush */
};

struct kv_iter_ops {
    void (*seek)(struct kv_iter *it, struct slice key);          /* first key >= @key */
    void (*seek_for_prev)(struct kv_iter *it, struct slice key); /* last key <= @key */
    bool (*valid)(const struct kv_iter *it);
    void (*next)(struct kv_iter *it);
    void (*prev)(struct kv_iter *it);
    struct slice (*key)(const struct kv_iter *it);   /* borrowed until the iterator moves */
    struct slice (*value)(const struct kv_iter *it); /* borrowed until the iterator moves */
    int (*status)(const struct kv_iter *it);         /* 0, or the error that made it invalid */
    void (*close)(struct kv_iter *it);
};

struct kv {
    const struct kv_ops *ops;
};

struct kv_iter {
    const struct kv_iter_ops *ops;
};
