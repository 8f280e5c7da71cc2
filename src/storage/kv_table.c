#include "storage/kv_table.h"

#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"

static int compare(struct slice a, struct slice b) {
    size_t n = MIN(a.len, b.len);
    int c = n > 0 ? memcmp(a.data, b.data, n) : 0;

    if (c != 0)
        return c;
    return a.len < b.len ? -1 : a.len > b.len;
}

static uint32_t record_crc(const struct kv_node *n) {
    return crc32c_extend(crc32c(n->key->data, n->key->len), n->value->data, n->value->len);
}

static struct kv_node *node_new(uint32_t levels) {
    struct kv_node *n =
        (struct kv_node *) calloc(1, sizeof(struct kv_node) + levels * sizeof(struct kv_node *));

    if (n)
        n->levels = levels;
    return n;
}

struct kv_node *kv_node_free(struct kv_node *n) {
    if (n) {
        bytes_unref(n->key);
        bytes_unref(n->value);
        free(n);
    }
    return NULL;
}

bool kv_node_intact(const struct kv_node *n) {
    return n->crc == record_crc(n);
}

struct kv_table *kv_table_new(void) {
    struct kv_table *t = (struct kv_table *) calloc(1, sizeof(*t));

    if (!t)
        return NULL;
    t->refs = 1;
    t->rng = rng_seed(0x6b76);
    t->head = node_new(KV_TABLE_LEVELS_MAX);
    return t->head ? t : kv_table_unref(t);
}

struct kv_table *kv_table_ref(struct kv_table *t) {
    ASSERT(t->refs > 0 && t->refs < UINT32_MAX);
    t->refs++;
    return t;
}

struct kv_table *kv_table_unref(struct kv_table *t) {
    if (!t)
        return NULL;
    ASSERT(t->refs > 0);
    if (--t->refs > 0)
        return NULL;
    for (struct kv_node *n = t->head; n;) {
        struct kv_node *next = n->next[0];

        kv_node_free(n);
        n = next;
    }
    free(t);
    return NULL;
}

struct kv_table *kv_table_copy(const struct kv_table *t) {
    struct kv_node *last[KV_TABLE_LEVELS_MAX];
    struct kv_table *copy = kv_table_new();

    if (!copy)
        return NULL;
    copy->rng = t->rng;
    for (uint32_t level = 0; level < KV_TABLE_LEVELS_MAX; level++)
        last[level] = copy->head;
    for (const struct kv_node *n = t->head->next[0]; n; n = n->next[0]) {
        struct kv_node *c = node_new(n->levels);

        if (!c)
            return kv_table_unref(copy);
        c->key = bytes_ref(n->key);
        c->value = bytes_ref(n->value);
        c->crc = n->crc;
        for (uint32_t level = 0; level < c->levels; level++) {
            last[level]->next[level] = c;
            last[level] = c;
        }
    }
    copy->bytes = t->bytes;
    return copy;
}

static uint32_t random_levels(struct kv_table *t) {
    uint32_t levels = 1;

    while (levels < KV_TABLE_LEVELS_MAX && rng_below(&t->rng, 4) == 0)
        levels++;
    return levels;
}

struct kv_node *kv_table_node(struct kv_table *t, struct bytes *key, struct bytes *value) {
    struct kv_node *n = node_new(random_levels(t));

    ASSERT(key && value);
    if (!n)
        return NULL;
    n->key = bytes_ref(key);
    n->value = bytes_ref(value);
    n->crc = record_crc(n);
    return n;
}

struct kv_node *kv_table_find(const struct kv_table *t, struct slice key,
                              struct kv_node *ret_before[KV_TABLE_LEVELS_MAX]) {
    struct kv_node *n = t->head;

    for (uint32_t level = KV_TABLE_LEVELS_MAX; level-- > 0;) {
        while (n->next[level] && compare(bytes_slice(n->next[level]->key), key) < 0)
            n = n->next[level];
        if (ret_before)
            ret_before[level] = n;
    }
    return n->next[0];
}

struct kv_node *kv_table_get(const struct kv_table *t, struct slice key,
                             struct kv_node *ret_before[KV_TABLE_LEVELS_MAX]) {
    struct kv_node *n = kv_table_find(t, key, ret_before);

    return n && compare(bytes_slice(n->key), key) == 0 ? n : NULL;
}

void kv_table_link(struct kv_table *t, struct kv_node *n,
                   struct kv_node *const before[KV_TABLE_LEVELS_MAX]) {
    ASSERT(t->refs == 1); /* others would see it change */
    for (uint32_t level = 0; level < n->levels; level++) {
        n->next[level] = before[level]->next[level];
        before[level]->next[level] = n;
    }
    t->bytes += n->key->len + n->value->len;
}

void kv_table_remove(struct kv_table *t, struct kv_node *n,
                     struct kv_node *const before[KV_TABLE_LEVELS_MAX]) {
    ASSERT(t->refs == 1);
    for (uint32_t level = 0; level < n->levels; level++) {
        ASSERT(before[level]->next[level] == n);
        before[level]->next[level] = n->next[level];
    }
    t->bytes -= n->key->len + n->value->len;
    kv_node_free(n);
}

void kv_table_set(struct kv_table *t, struct kv_node *n, struct bytes *value) {
    struct bytes *old = n->value;

    ASSERT(t->refs == 1);
    t->bytes = t->bytes - old->len + value->len;
    n->value = bytes_ref(value);
    n->crc = record_crc(n);
    bytes_unref(old);
}

bool kv_table_check(const struct kv_table *t, uint64_t *ret_nth) {
    uint64_t nth = 0;

    for (const struct kv_node *n = t->head->next[0]; n; n = n->next[0], nth++) {
        const struct kv_node *next = n->next[0];
        bool ordered = !next || compare(bytes_slice(n->key), bytes_slice(next->key)) < 0;

        if (ordered && kv_node_intact(n))
            continue;
        *ret_nth = nth;
        return false;
    }
    return true;
}
