/* Golden files, whole, and the records of a state as one of them has them: for each its key's
 * length (4 bytes), its value's, the key, the value. */
#pragma once

#include "base/bytes.h"
#include "base/codec.h"
#include "base/kv.h"

#include <stdio.h>

#define FILE_BYTES_MAX (1UL << 20)

static inline struct bytes *file_read(const char *path) {
    static uint8_t content[FILE_BYTES_MAX];
    FILE *f = fopen(path, "rb");
    struct bytes *b;
    size_t n;

    if (!f)
        fail_msg("%s: cannot be read", path);
    n = fread(content, 1, sizeof(content), f);
    assert_true(n < sizeof(content));
    (void) fclose(f);
    b = bytes_copy(content, n);
    assert_non_null(b);
    return b;
}

static inline void records_load(struct kv *kv, const char *path) {
    struct bytes *b = file_read(path);

    for (size_t at = 0; at < b->len;) {
        uint32_t key_len, value_len;
        struct kv_op op;

        assert_true(b->len - at >= 8);
        key_len = get_le32(b->data + at);
        value_len = get_le32(b->data + at + 4);
        assert_true(b->len - at - 8 >= (size_t) key_len + value_len);
        op = (struct kv_op){.key = slice_of(b->data + at + 8, key_len),
                            .value = slice_of(b->data + at + 8 + key_len, value_len)};
        assert_int_equal(kv->ops->write(kv, &op, 1), 0);
        at += 8 + (size_t) key_len + value_len;
    }
    (void) bytes_unref(b);
}
