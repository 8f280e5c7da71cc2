#include "base/map.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#define MAP_CAP_MIN 16UL

static uint64_t mix64(uint64_t x) {
    x ^= x >> 33;
    x *= 0xff51afd7ed558ccdULL; /* MurmurHash3 finaliser, public domain constants */
    x ^= x >> 33;
    x *= 0xc4ceb9fe1a85ec53ULL;
    return x ^ (x >> 33);
}

void u64map_done(struct u64map *m) {
    free(m->slots);
    *m = (struct u64map){0};
}

static size_t u64map_find(const struct u64map *m, uint64_t key) {
    size_t i = mix64(key) & (m->cap - 1);

    while (m->slots[i].value && m->slots[i].key != key)
        i = (i + 1) & (m->cap - 1);
    return i;
}

void *u64map_get(const struct u64map *m, uint64_t key) {
    return m->cap ? m->slots[u64map_find(m, key)].value : NULL;
}

static int u64map_grow(struct u64map *m) {
    struct u64map bigger = {.cap = m->cap ? m->cap * 2 : MAP_CAP_MIN, .count = m->count};

    bigger.slots = calloc(bigger.cap, sizeof(*bigger.slots));
    if (!bigger.slots)
        return -ENOMEM;
    for (size_t i = 0; i < m->cap; i++)
        if (m->slots[i].value)
            bigger.slots[u64map_find(&bigger, m->slots[i].key)] = m->slots[i];
    free(m->slots);
    *m = bigger;
    return 0;
}

int u64map_put(struct u64map *m, uint64_t key, void *value) {
    size_t i;

    ASSERT(value);
    if ((m->count + 1) * 4 > m->cap * 3) {
        int r = u64map_grow(m);

        if (r < 0)
            return r;
    }
    i = u64map_find(m, key);
    if (!m->slots[i].value)
        m->count++;
    m->slots[i] = (struct u64map_slot){.key = key, .value = value};
    return 0;
}

void *u64map_del(struct u64map *m, uint64_t key) {
    size_t i, j;
    void *old;

    if (!m->cap)
        return NULL;
    i = u64map_find(m, key);
    old = m->slots[i].value;
    if (!old)
        return NULL;
    for (j = (i + 1) & (m->cap - 1); m->slots[j].value; j = (j + 1) & (m->cap - 1)) {
        size_t home = mix64(m->slots[j].key) & (m->cap - 1);

        /* Move back only what may not stay behind the hole (Knuth 6.4, algorithm R). */
        if (((j - home) & (m->cap - 1)) >= ((j - i) & (m->cap - 1))) {
            m->slots[i] = m->slots[j];
            i = j;
        }
    }
    m->slots[i] = (struct u64map_slot){0};
    m->count--;
    return old;
}

struct u64map_slot *u64map_next(const struct u64map *m, size_t *pos) {
    while (*pos < m->cap) {
        struct u64map_slot *s = &m->slots[(*pos)++];

        if (s->value)
            return s;
    }
    return NULL;
}

static uint64_t hash_slice(struct slice key) {
    return XXH3_64bits(key.data, key.len);
}

void bytesmap_done(struct bytesmap *m) {
    free(m->slots);
    *m = (struct bytesmap){0};
}

static size_t bytesmap_find(const struct bytesmap *m, struct slice key, uint64_t hash) {
    size_t i = hash & (m->cap - 1);

    for (; m->slots[i].value; i = (i + 1) & (m->cap - 1)) {
        const struct bytesmap_slot *s = &m->slots[i];

        if (s->hash == hash && s->key.len == key.len &&
            (key.len == 0 || memcmp(s->key.data, key.data, key.len) == 0))
            break;
    }
    return i;
}

void *bytesmap_get(const struct bytesmap *m, struct slice key) {
    return m->cap ? m->slots[bytesmap_find(m, key, hash_slice(key))].value : NULL;
}

static int bytesmap_grow(struct bytesmap *m) {
    struct bytesmap bigger = {.cap = m->cap ? m->cap * 2 : MAP_CAP_MIN, .count = m->count};

    bigger.slots = calloc(bigger.cap, sizeof(*bigger.slots));
    if (!bigger.slots)
        return -ENOMEM;
    for (size_t i = 0; i < m->cap; i++) {
        const struct bytesmap_slot *s = &m->slots[i];

        if (s->value)
            bigger.slots[bytesmap_find(&bigger, s->key, s->hash)] = *s;
    }
    free(m->slots);
    *m = bigger;
    return 0;
}

int bytesmap_put(struct bytesmap *m, struct slice key, void *value) {
    uint64_t hash = hash_slice(key);
    size_t i;

    ASSERT(value);
    if ((m->count + 1) * 4 > m->cap * 3) {
        int r = bytesmap_grow(m);

        if (r < 0)
            return r;
    }
    i = bytesmap_find(m, key, hash);
    if (!m->slots[i].value)
        m->count++;
    m->slots[i] = (struct bytesmap_slot){.key = key, .hash = hash, .value = value};
    return 0;
}

void *bytesmap_del(struct bytesmap *m, struct slice key) {
    size_t i, j;
    void *old;

    if (!m->cap)
        return NULL;
    i = bytesmap_find(m, key, hash_slice(key));
    old = m->slots[i].value;
    if (!old)
        return NULL;
    for (j = (i + 1) & (m->cap - 1); m->slots[j].value; j = (j + 1) & (m->cap - 1)) {
        size_t home = m->slots[j].hash & (m->cap - 1);

        if (((j - home) & (m->cap - 1)) >= ((j - i) & (m->cap - 1))) {
            m->slots[i] = m->slots[j];
            i = j;
        }
    }
    m->slots[i] = (struct bytesmap_slot){0};
    m->count--;
    return old;
}

struct bytesmap_slot *bytesmap_next(const struct bytesmap *m, size_t *pos) {
    while (*pos < m->cap) {
        struct bytesmap_slot *s = &m->slots[(*pos)++];

        if (s->value)
            return s;
    }
    return NULL;
}
