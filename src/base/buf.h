/* A growable byte buffer with a ceiling.
 *
 * Every buffer that grows with input has a maximum given at init; passing it is ERR_LIMIT, never an
 * unbounded allocation. Not thread-safe. */
#pragma once

#include "base/bytes.h"

struct buf {
    uint8_t *data; /* owned */
    size_t len;
    size_t cap;
    size_t max;
};

void buf_init(struct buf *b, size_t max_bytes);
void buf_done(struct buf *b); /* frees the content; accepts a zeroed struct */
static inline void buf_clear(struct buf *b) {
    b->len = 0;
}

/* Make room for @extra more bytes. Returns 0, -ENOMEM, or ERR_LIMIT past the maximum; on failure
 * the content is unchanged. */
int buf_reserve(struct buf *b, size_t extra) _must_check_;
int buf_append(struct buf *b, const void *data, size_t len) _must_check_;
int buf_append_str(struct buf *b, const char *s) _must_check_;
int buf_printf(struct buf *b, const char *fmt, ...) _must_check_ _printf_(2, 3);
/* Drop the first @n bytes, moving the rest to the front. */
void buf_consume(struct buf *b, size_t n);
