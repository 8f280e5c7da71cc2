#include "base/bytes.h"

#include <stdlib.h>
#include <string.h>

struct bytes *bytes_new(size_t len) {
    struct bytes *b;

    if (len > UINT32_MAX - sizeof(*b))
        return NULL;
    b = malloc(sizeof(*b) + len);
    if (!b)
        return NULL;
    b->refs = 1;
    b->len = (uint32_t) len;
    return b;
}

struct bytes *bytes_copy(const void *data, size_t len) {
    struct bytes *b = bytes_new(len);

    if (b && len > 0)
        memcpy(b->data, data, len);
    return b;
}

struct bytes *bytes_unref(struct bytes *b) {
    if (!b)
        return NULL;
    ASSERT(b->refs > 0);
    if (--b->refs == 0)
        free(b);
    return NULL;
}
