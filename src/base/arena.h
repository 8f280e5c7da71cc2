/* A capped bump allocator, released whole. One request, one arena: what is decoded, computed and
 * answered for it dies together. Not thread-safe.
 *
 * arena_pb() adapts it to protobuf-c, so that unpacking a message is a few pointer bumps and
 * freeing it is nothing. Never call *_free_unpacked() on such a message. */
#pragma once

#include "base/defs.h"

#include <protobuf-c/protobuf-c.h>

struct arena_chunk;

struct arena {
    struct arena_chunk *chunks; /* owned, newest first */
    size_t used_bytes;
    size_t max_bytes;
    ProtobufCAllocator pb;
};

void arena_init(struct arena *a, size_t max_bytes);
/* Free everything but one ordinary chunk, for the next request. */
void arena_clear(struct arena *a);
void arena_done(struct arena *a);

/* 16-byte aligned memory, uninitialised; NULL past the cap or out of memory. Lives until clear. */
void *arena_alloc(struct arena *a, size_t bytes) _must_check_;
void *arena_zalloc(struct arena *a, size_t bytes) _must_check_;
void *arena_memdup(struct arena *a, const void *data, size_t len) _must_check_;
char *arena_strdup(struct arena *a, const char *s) _must_check_;
char *arena_printf(struct arena *a, const char *fmt, ...) _must_check_ _printf_(2, 3);

static inline ProtobufCAllocator *arena_pb(struct arena *a) {
    return &a->pb;
}
