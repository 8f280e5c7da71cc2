#include "api/submit_encode.h"

#include "base/codec.h"
#include "fsm/command.h"
#include "fsm/wire.h"

#include <errno.h>
#include <string.h>
#include <xxhash.h>

/* Field numbers of internal/v1/command.proto. */
enum {
    COMMAND_VERSION = 1,
    COMMAND_SUBMIT_JOB = 2,
    SUBMIT_ITEMS = 1,
    ITEM_SPEC = 1,
    ITEM_KEY = 2,
    ITEM_HASH = 3,
    ITEM_MAX_ATTEMPTS = 4,
    ITEM_QUEUE = 5,
};

/* All these numbers are below 16: their tags are one byte. */
#define TAG(number, type) ((uint8_t) ((unsigned) (number) << 3 | (unsigned) (type)))
#define STAMP_TAG_LOW 0xa1 /* field 100, fixed64: 801 as a varint */
#define STAMP_TAG_HIGH 0x06
#define COMMAND_VERSION_NOW 1
STATIC_ASSERT(COMMAND_STAMP_BYTES == 10, "two bytes of tag and eight of time");
STATIC_ASSERT((STAMP_TAG_LOW & 0x7f) + (STAMP_TAG_HIGH << 7) == (100 << 3 | 1), "the stamp's tag");

static size_t varint_bytes(uint64_t v) {
    size_t n = 1;

    for (; v >= 0x80; v >>= 7)
        n++;
    return n;
}

static size_t field_bytes(size_t len) {
    return len == 0 ? 0 : 1 + varint_bytes(len) + len;
}

static size_t item_bytes(const struct submit_item *it) {
    size_t n = field_bytes(it->spec_bytes) + field_bytes(strlen(it->spec->queue));

    if (it->key[0] != '\0')
        n += field_bytes(strlen(it->key)) + field_bytes(SUBMIT_HASH_BYTES);
    if (it->spec->max_attempts != 0)
        n += 1 + varint_bytes(it->spec->max_attempts);
    return n;
}

static uint8_t *put_head(uint8_t *p, uint8_t number, size_t len) {
    *p++ = TAG(number, WIRE_LEN);
    return wire_put_varint(p, len);
}

static uint8_t *put_text(uint8_t *p, uint8_t number, const char *s) {
    size_t len = strlen(s);

    if (len == 0)
        return p;
    p = put_head(p, number, len);
    memcpy(p, s, len);
    return p + len;
}

static uint8_t *put_item(uint8_t *p, const struct submit_item *it) {
    const uint8_t *spec = NULL;

    p = put_head(p, SUBMIT_ITEMS, item_bytes(it));
    if (it->spec_bytes > 0) {
        p = put_head(p, ITEM_SPEC, it->spec_bytes);
        spec = p;
        p += chronos__v1__job_spec__pack(it->spec, p);
        ASSERT((size_t) (p - spec) == it->spec_bytes);
    }
    if (it->key[0] != '\0') {
        XXH128_canonical_t hash;

        XXH128_canonicalFromHash(&hash, XXH3_128bits(spec, it->spec_bytes));
        STATIC_ASSERT(sizeof(hash.digest) == SUBMIT_HASH_BYTES, "XXH3-128");
        p = put_text(p, ITEM_KEY, it->key);
        p = put_head(p, ITEM_HASH, SUBMIT_HASH_BYTES);
        memcpy(p, hash.digest, SUBMIT_HASH_BYTES);
        p += SUBMIT_HASH_BYTES;
    }
    if (it->spec->max_attempts != 0) {
        *p++ = TAG(ITEM_MAX_ATTEMPTS, WIRE_VARINT);
        p = wire_put_varint(p, it->spec->max_attempts);
    }
    return put_text(p, ITEM_QUEUE, it->spec->queue);
}

int submit_encode(const struct submit_item *items, size_t count, struct bytes **ret) {
    struct bytes *b;
    size_t body = 0, total;
    uint8_t *p;

    ASSERT(count > 0);
    ASSERT(ret);
    for (size_t i = 0; i < count; i++) {
        size_t n = item_bytes(&items[i]);

        body += 1 + varint_bytes(n) + n;
    }
    total = 2 + 1 + varint_bytes(body) + body + COMMAND_STAMP_BYTES;
    if (total > UINT32_MAX)
        return ERR_LIMIT;
    b = bytes_new(total);
    if (!b)
        return -ENOMEM;
    p = b->data;
    *p++ = TAG(COMMAND_VERSION, WIRE_VARINT);
    *p++ = COMMAND_VERSION_NOW;
    p = put_head(p, COMMAND_SUBMIT_JOB, body);
    for (size_t i = 0; i < count; i++)
        p = put_item(p, &items[i]);
    *p++ = STAMP_TAG_LOW;
    *p++ = STAMP_TAG_HIGH;
    put_le64(p, 0);
    ASSERT(p + 8 == b->data + total);
    *ret = b;
    return 0;
}
