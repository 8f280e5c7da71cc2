/* Records changed since the last write-back, in front of the kv store.
 *
 * A hash table from key to the record's current bytes, in one arena that is dropped whole after the
 * write-back: a record that grows abandons its old place, so `used bytes` is an honest upper bound
 * of memory. Entries never move; they are listed in the order of their first change, which depends
 * on the log alone.
 * What it is not: it knows no kv store and no record's meaning (store.h joins them).
 * Thread: the loop. */
#pragma once

#include "base/arena.h"
#include "base/bytes.h"

struct overlay_entry {
    struct overlay_entry *bucket_next;
    struct overlay_entry *list_next;
    uint64_t key_hash;
    uint64_t digest_low; /* XXH3-128 of key, 0x00, value; 0 while the record does not exist */
    uint64_t digest_high;
    uint32_t key_len;
    uint32_t value_len;
    uint32_t value_cap;
    bool exists;   /* false: deleted, or not yet written */
    bool dirty;    /* differs from the kv store */
    uint8_t *data; /* key, one zero byte, value: contiguous, so that it is hashed in one go */
};

struct overlay {
    struct arena arena;
    struct overlay_entry **buckets;
    size_t buckets_count; /* power of two, or 0 */
    size_t count;
    struct overlay_entry *first, *last;
};

void overlay_init(struct overlay *o);
void overlay_done(struct overlay *o);
/* Forget all entries; every pointer into the overlay is dead. */
void overlay_clear(struct overlay *o);

/* NULL when @key is not in the overlay. Borrowed until clear. */
struct overlay_entry *overlay_find(const struct overlay *o, struct slice key);
/* The entry of @key, made (not existing, clean, empty) when there is none. 0 or -ENOMEM. */
int overlay_obtain(struct overlay *o, struct slice key, struct overlay_entry **ret) _must_check_;
/* Make the value @len bytes long, content undefined, and return where it is. -ENOMEM: unchanged. */
int overlay_resize(struct overlay *o, struct overlay_entry *e, size_t len,
                   uint8_t **ret_value) _must_check_;

static inline struct slice overlay_key(const struct overlay_entry *e) {
    return slice_of(e->data, e->key_len);
}

static inline struct slice overlay_value(const struct overlay_entry *e) {
    return slice_of(e->data + e->key_len + 1, e->value_len);
}

/* What the digest covers. */
static inline struct slice overlay_hashed(const struct overlay_entry *e) {
    return slice_of(e->data, (size_t) e->key_len + 1 + e->value_len);
}
