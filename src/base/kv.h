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
    int (*flush)(struct kv *kv);
    /* A consistent view as of now. Owned by the caller; close with iter_close. */
    int (*iter_open)(struct kv *kv, struct kv_iter **ret);
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
