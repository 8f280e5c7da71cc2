#include "base/arena.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ARENA_CHUNK_BYTES (16 * 1024UL)
#define ARENA_ALIGN 16UL

struct arena_chunk {
    struct arena_chunk *next;
    size_t cap;
    size_t used;
    size_t pad; /* keeps data[] 16-byte aligned */
    uint8_t data[];
};
STATIC_ASSERT(sizeof(struct arena_chunk) % ARENA_ALIGN == 0, "chunk data must stay aligned");

static void *pb_alloc(void *ctx, size_t size) {
    return arena_alloc((struct arena *) ctx, size);
}

static void pb_free(void *ctx, void *p) {
    (void) ctx;
    (void) p; /* released with the arena */
}

void arena_init(struct arena *a, size_t max_bytes) {
    *a = (struct arena){
        .max_bytes = max_bytes,
        .pb = {.alloc = pb_alloc, .free = pb_free, .allocator_data = a},
    };
}

static void free_chunks(struct arena_chunk *c) {
    while (c) {
        struct arena_chunk *next = c->next;

        free(c);
        c = next;
    }
}

void arena_clear(struct arena *a) {
    struct arena_chunk *keep = NULL;

    if (a->chunks && !a->chunks->next && a->chunks->cap == ARENA_CHUNK_BYTES) {
        a->chunks->used = 0; /* the common case: one request fitted into one chunk */
        a->used_bytes = 0;
        return;
    }
    for (struct arena_chunk **p = &a->chunks; *p; p = &(*p)->next) {
        if ((*p)->cap != ARENA_CHUNK_BYTES)
            continue;
        keep = *p;
        *p = keep->next;
        break;
    }
    free_chunks(a->chunks);
    a->chunks = keep;
    if (keep) {
        keep->next = NULL;
        keep->used = 0;
    }
    a->used_bytes = 0;
}

void arena_done(struct arena *a) {
    free_chunks(a->chunks);
    a->chunks = NULL;
    a->used_bytes = 0;
}

void *arena_alloc(struct arena *a, size_t bytes) {
    struct arena_chunk *c = a->chunks;
    size_t size;
    void *p;

    if (bytes > a->max_bytes || a->used_bytes > a->max_bytes - bytes)
        return NULL;
    size = (MAX(bytes, 1UL) + ARENA_ALIGN - 1) & ~(ARENA_ALIGN - 1);
    if (!c || c->cap - c->used < size) {
        size_t cap = MAX(size, ARENA_CHUNK_BYTES);

        c = malloc(sizeof(*c) + cap);
        if (!c)
            return NULL;
        *c = (struct arena_chunk){.cap = cap};
        if (a->chunks && cap > ARENA_CHUNK_BYTES) {
            c->next = a->chunks->next; /* a big block does not end the current chunk */
            a->chunks->next = c;
        } else {
            c->next = a->chunks;
            a->chunks = c;
        }
    }
    p = c->data + c->used;
    c->used += size;
    a->used_bytes += size;
    return p;
}

void *arena_zalloc(struct arena *a, size_t bytes) {
    void *p = arena_alloc(a, bytes);

    if (p)
        memset(p, 0, bytes);
    return p;
}

void *arena_memdup(struct arena *a, const void *data, size_t len) {
    void *p = arena_alloc(a, len);

    if (p && len > 0)
        memcpy(p, data, len);
    return p;
}

char *arena_strdup(struct arena *a, const char *s) {
    return arena_memdup(a, s, strlen(s) + 1);
}

char *arena_printf(struct arena *a, const char *fmt, ...) {
    va_list ap;
    int n;
    char *s;

    va_start(ap, fmt);
    n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    ASSERT(n >= 0);
    s = arena_alloc(a, (size_t) n + 1);
    if (!s)
        return NULL;
    va_start(ap, fmt);
    (void) vsnprintf(s, (size_t) n + 1, fmt, ap);
    va_end(ap);
    return s;
}
