/* A reference-counted, immutable run of bytes.
 *
 * The data of a log entry lives in one of these from proposal to apply: the in-memory log, the
 * write-ahead log and outgoing messages share it without copying.
 * Thread: ref and unref belong to the loop thread. The disk thread may read the content while the
 * loop holds a reference for it (the persist batch does). */
#pragma once

#include "base/defs.h"

struct bytes {
    uint32_t refs;
    uint32_t len;
    uint8_t data[];
};

/* A new buffer of @len bytes, content uninitialised, one reference owned by the caller.
 * NULL when memory is out. The creator may write into data[] until it shares the reference. */
struct bytes *bytes_new(size_t len) _must_check_;

/* The same, filled from @data (borrowed for the call). */
struct bytes *bytes_copy(const void *data, size_t len) _must_check_;

static inline struct bytes *bytes_ref(struct bytes *b) {
    b->refs++;
    return b;
}

/* Drop one reference (NULL allowed); returns NULL. */
struct bytes *bytes_unref(struct bytes *b);
DEFINE_CLEANUP(struct bytes *, bytes_unref);

/* A borrowed view; valid as long as its owner says. */
struct slice {
    const uint8_t *data;
    size_t len;
};

static inline struct slice slice_of(const void *data, size_t len) {
    return (struct slice){.data = (const uint8_t *) data, .len = len};
}

static inline struct slice bytes_slice(const struct bytes *b) {
    return b ? slice_of(b->data, b->len) : slice_of(NULL, 0);
}
