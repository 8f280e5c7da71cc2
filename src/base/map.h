/* Two hash maps: by u64 and by bytes. Linear probing, backward-shift deletion, no tombstones.
 *
 * Iteration order depends only on the keys and the history of operations, never on pointers; the
 * state machine still must not let it reach a result (design.md D5).
 * Values are borrowed pointers and must not be NULL. Not thread-safe. */
#pragma once

#include "base/bytes.h"

struct u64map_slot {
    uint64_t key;
    void *value; /* NULL = empty */
};

struct u64map {
    struct u64map_slot *slots;
    size_t cap; /* power of two, or 0 */
    size_t count;
};

static inline void u64map_init(struct u64map *m) {
    *m = (struct u64map){0};
}
void u64map_done(struct u64map *m);
void *u64map_get(const struct u64map *m, uint64_t key);
/* Insert or replace. 0 or -ENOMEM (map unchanged). */
int u64map_put(struct u64map *m, uint64_t key, void *value) _must_check_;
/* Remove; returns the old value or NULL. */
void *u64map_del(struct u64map *m, uint64_t key);
/* Next occupied slot at or after *@pos (start with 0); NULL at the end. Do not modify meanwhile. */
struct u64map_slot *u64map_next(const struct u64map *m, size_t *pos);

struct bytesmap_slot {
    struct slice key; /* borrowed: usually points into the value */
    uint64_t hash;
    void *value; /* NULL = empty */
};

struct bytesmap {
    struct bytesmap_slot *slots;
    size_t cap;
    size_t count;
};

static inline void bytesmap_init(struct bytesmap *m) {
    *m = (struct bytesmap){0};
}
void bytesmap_done(struct bytesmap *m);
void *bytesmap_get(const struct bytesmap *m, struct slice key);
/* @key must stay valid as long as the entry is in the map. 0 or -ENOMEM (map unchanged). */
int bytesmap_put(struct bytesmap *m, struct slice key, void *value) _must_check_;
void *bytesmap_del(struct bytesmap *m, struct slice key);
struct bytesmap_slot *bytesmap_next(const struct bytesmap *m, size_t *pos);
