#include "worker/seen.h"

#include <errno.h>
#include <stdlib.h>

/* FNV-1a, 64 bits. */
static uint64_t seen_hash(const struct ref *r) {
    struct slice k = ref_key(r);
    uint64_t h = 0xcbf29ce484222325ULL;

    for (size_t i = 0; i < k.len; i++)
        h = (h ^ k.data[i]) * 0x100000001b3ULL;
    return h;
}

void seen_done(struct seen *s) {
    u64map_done(&s->map);
    free(s->ring);
    *s = (struct seen){0};
}

bool seen_has(const struct seen *s, const struct ref *r) {
    return u64map_get(&s->map, seen_hash(r)) != NULL;
}

int seen_add(struct seen *s, const struct ref *r) {
    uint64_t h = seen_hash(r);
    int e;

    ASSERT(r->job_id[0]);
    if (u64map_get(&s->map, h))
        return 0;
    if (!s->ring) {
        s->ring = calloc(SEEN_COUNT_MAX, sizeof(*s->ring));
        if (!s->ring)
            return -ENOMEM;
    }
    if (s->map.count >= SEEN_COUNT_MAX)
        (void) u64map_del(&s->map, s->ring[s->next]);
    e = u64map_put(&s->map, h, s);
    if (e < 0)
        return e;
    s->ring[s->next] = h;
    s->next = (s->next + 1) % SEEN_COUNT_MAX;
    ASSERT(s->map.count <= SEEN_COUNT_MAX);
    return 0;
}
