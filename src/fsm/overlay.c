#include "fsm/overlay.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#define BUCKETS_MIN 1024UL
#define BUCKETS_KEPT_MAX 65536UL /* a table grown by one huge batch is not kept */
#define VALUE_SLACK_BYTES 64UL   /* what assigning and ending adds to a small record */

void overlay_init(struct overlay *o) {
    ASSERT(o);
    *o = (struct overlay){0};
    arena_init(&o->arena, SIZE_MAX / 2); /* bounded by the write-backs, not by the arena */
}

void overlay_done(struct overlay *o) {
    ASSERT(o);
    arena_done(&o->arena);
    free(o->buckets);
    o->buckets = NULL;
    o->buckets_count = o->count = 0;
    o->first = o->last = NULL;
}

void overlay_clear(struct overlay *o) {
    ASSERT(o);
    ASSERT((o->first == NULL) == (o->count == 0));
    arena_clear(&o->arena);
    if (o->buckets_count > BUCKETS_KEPT_MAX) {
        free(o->buckets);
        o->buckets = NULL;
        o->buckets_count = 0;
    } else if (o->buckets) {
        memset(o->buckets, 0, o->buckets_count * sizeof(struct overlay_entry *));
    }
    o->count = 0;
    o->first = o->last = NULL;
}

static struct overlay_entry *find(const struct overlay *o, struct slice key, uint64_t hash) {
    struct overlay_entry *e = o->buckets_count ? o->buckets[hash & (o->buckets_count - 1)] : NULL;

    while (e && (e->key_hash != hash || e->key_len != key.len ||
                 memcmp(e->data, key.data, key.len) != 0))
        e = e->bucket_next;
    return e;
}

struct overlay_entry *overlay_find(const struct overlay *o, struct slice key) {
    ASSERT(o);
    ASSERT(key.len > 0);
    return find(o, key, XXH3_64bits(key.data, key.len));
}

static void link_bucket(struct overlay_entry **buckets, size_t n, struct overlay_entry *e) {
    struct overlay_entry **head = &buckets[e->key_hash & (n - 1)];

    e->bucket_next = *head;
    *head = e;
}

static int grow(struct overlay *o) {
    size_t n = o->buckets_count ? o->buckets_count * 2 : BUCKETS_MIN;
    struct overlay_entry **buckets = calloc(n, sizeof(struct overlay_entry *));

    if (!buckets)
        return -ENOMEM;
    for (struct overlay_entry *e = o->first; e; e = e->list_next)
        link_bucket(buckets, n, e);
    free(o->buckets);
    o->buckets = buckets;
    o->buckets_count = n;
    return 0;
}

int overlay_obtain(struct overlay *o, struct slice key, struct overlay_entry **ret) {
    uint64_t hash = XXH3_64bits(key.data, key.len);
    struct overlay_entry *e = find(o, key, hash);

    ASSERT(key.len > 0);
    ASSERT(ret);
    if (e) {
        *ret = e;
        return 0;
    }
    if (o->count >= o->buckets_count && grow(o) < 0)
        return -ENOMEM;
    e = arena_alloc(&o->arena, sizeof(*e));
    if (!e)
        return -ENOMEM;
    *e = (struct overlay_entry){.key_hash = hash, .key_len = (uint32_t) key.len};
    e->data = arena_alloc(&o->arena, key.len + 1);
    if (!e->data)
        return -ENOMEM;
    memcpy(e->data, key.data, key.len);
    e->data[key.len] = 0;
    link_bucket(o->buckets, o->buckets_count, e);
    if (o->last)
        o->last->list_next = e;
    else
        o->first = e;
    o->last = e;
    o->count++;
    *ret = e;
    return 0;
}

int overlay_resize(struct overlay *o, struct overlay_entry *e, size_t len, uint8_t **ret_value) {
    ASSERT(o);
    ASSERT(e);
    if (len > UINT32_MAX / 2)
        return -ENOMEM;
    if (len > e->value_cap) {
        size_t cap = len + VALUE_SLACK_BYTES;
        uint8_t *data = arena_alloc(&o->arena, e->key_len + 1 + cap);

        if (!data)
            return -ENOMEM;
        memcpy(data, e->data, e->key_len + 1UL);
        e->data = data;
        e->value_cap = (uint32_t) cap;
    }
    e->value_len = (uint32_t) len;
    *ret_value = e->data + e->key_len + 1;
    return 0;
}
