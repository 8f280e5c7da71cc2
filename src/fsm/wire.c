#include "fsm/wire.h"

#include "base/codec.h"

#include <string.h>

#define VARINT_BYTES_MAX 10
#define FIELD_OVERHEAD_MAX 15 /* a 5-byte tag and a 10-byte number or length */

static int read_varint(struct wire_reader *r, uint64_t *ret) {
    uint64_t v = 0;

    if (r->p < r->end && *r->p < 0x80) { /* most tags, lengths and enums */
        *ret = *r->p++;
        return 0;
    }
    for (unsigned i = 0; i < VARINT_BYTES_MAX; i++) {
        uint8_t b;

        if (r->p == r->end)
            return ERR_PROTO;
        b = *r->p++;
        if (i == VARINT_BYTES_MAX - 1 && b > 1) /* would not fit into 64 bits */
            return ERR_PROTO;
        v |= (uint64_t) (b & 0x7f) << (7 * i);
        if (b < 0x80) {
            *ret = v;
            return 0;
        }
    }
    return ERR_PROTO;
}

int wire_next_varint(struct wire_reader *r, uint64_t *ret) {
    ASSERT(r->p <= r->end);
    return r->p == r->end ? WIRE_END : read_varint(r, ret);
}

static int read_payload(struct wire_reader *r, struct wire_field *f) {
    size_t left = (size_t) (r->end - r->p);
    uint64_t len;

    switch (f->type) {
    case WIRE_VARINT:
        return read_varint(r, &f->value);
    case WIRE_FIXED64:
        if (left < 8)
            return ERR_PROTO;
        f->value = get_le64(r->p);
        r->p += 8;
        return 0;
    case WIRE_FIXED32:
        if (left < 4)
            return ERR_PROTO;
        f->value = get_le32(r->p);
        r->p += 4;
        return 0;
    case WIRE_LEN:
        if (read_varint(r, &len) < 0 || len > (uint64_t) (r->end - r->p))
            return ERR_PROTO;
        f->bytes = slice_of(r->p, (size_t) len);
        r->p += len;
        return 0;
    }
    return ERR_PROTO; /* groups, and types that do not exist */
}

int wire_next(struct wire_reader *r, struct wire_field *ret) {
    const uint8_t *start = r->p;
    uint64_t tag;

    ASSERT(r->p <= r->end);
    if (r->p == r->end)
        return WIRE_END;
    if (read_varint(r, &tag) < 0 || tag >> 3 == 0 || tag >> 3 > 0x1fffffff) {
        r->p = start;
        return ERR_PROTO;
    }
    ret->number = (uint32_t) (tag >> 3);
    ret->type = (enum wire_type)(tag & 7);
    if (read_payload(r, ret) < 0) {
        r->p = start;
        return ERR_PROTO;
    }
    return 0;
}

/* The wire type a field of @kind must have; a mismatch is another schema, not a detail. */
static enum wire_type type_of(enum wire_kind kind) {
    switch (kind) {
    case WIRE_KIND_FIXED64:
        return WIRE_FIXED64;
    case WIRE_KIND_BYTES:
    case WIRE_KIND_NESTED:
        return WIRE_LEN;
    case WIRE_KIND_NONE:
    case WIRE_KIND_U32:
    case WIRE_KIND_I32:
    case WIRE_KIND_U64:
    case WIRE_KIND_I64:
    case WIRE_KIND_BOOL:
        return WIRE_VARINT;
    }
    return WIRE_VARINT;
}

static void store(enum wire_kind kind, const struct wire_field *f, void *at) {
    switch (kind) {
    case WIRE_KIND_U32:
    case WIRE_KIND_I32: {
        uint32_t v = (uint32_t) f->value;

        memcpy(at, &v, sizeof(v));
        break;
    }
    case WIRE_KIND_U64:
    case WIRE_KIND_I64:
    case WIRE_KIND_FIXED64:
        memcpy(at, &f->value, sizeof(f->value));
        break;
    case WIRE_KIND_BOOL:
        *(bool *) at = f->value != 0;
        break;
    case WIRE_KIND_BYTES:
        memcpy(at, &f->bytes, sizeof(f->bytes));
        break;
    case WIRE_KIND_NONE:
    case WIRE_KIND_NESTED:
        break;
    }
}

int wire_decode(struct slice msg, const struct wire_desc *table, size_t table_len, void *out,
                size_t *ret_offset) {
    struct wire_reader r = wire_reader_of(msg);
    struct wire_field f;

    ASSERT(table);
    ASSERT(out);
    for (;;) {
        size_t at = wire_offset(&r);
        int res = wire_next(&r, &f);
        enum wire_kind kind;

        if (res == WIRE_END)
            return 0;
        *ret_offset = at;
        if (res < 0)
            return res;
        if (f.number >= table_len)
            continue;
        kind = (enum wire_kind) table[f.number].kind;
        if (kind == WIRE_KIND_NONE)
            continue;
        if (f.type != type_of(kind))
            return ERR_PROTO;
        store(kind, &f, (char *) out + table[f.number].offset);
    }
}

uint8_t *wire_put_varint(uint8_t *p, uint64_t v) {
    for (; v >= 0x80; v >>= 7)
        *p++ = (uint8_t) (v | 0x80);
    *p++ = (uint8_t) v;
    return p;
}

static uint8_t *put_tag(uint8_t *p, uint32_t number, enum wire_type type) {
    return wire_put_varint(p, ((uint64_t) number << 3) | (uint64_t) type);
}

uint8_t *wire_put_bytes(uint8_t *p, uint32_t number, struct slice s) {
    p = put_tag(p, number, WIRE_LEN);
    p = wire_put_varint(p, s.len);
    if (s.len > 0)
        memcpy(p, s.data, s.len);
    return p + s.len;
}

size_t wire_encode_bytes_max(const struct wire_desc *table, size_t table_len, const void *in) {
    size_t n = 0;

    for (size_t i = 0; i < table_len; i++) {
        struct slice s;

        if (table[i].kind == WIRE_KIND_NONE)
            continue;
        n += FIELD_OVERHEAD_MAX;
        if (table[i].kind == WIRE_KIND_BYTES) {
            memcpy(&s, (const char *) in + table[i].offset, sizeof(s));
            n += s.len;
        }
    }
    return n;
}

/* The number as proto3 puts it on the wire: signed ones are sign-extended to 64 bits. */
static uint64_t load(enum wire_kind kind, const void *at) {
    uint64_t v = 0;
    int32_t i = 0;
    uint32_t u = 0;

    switch (kind) {
    case WIRE_KIND_I32:
        memcpy(&i, at, sizeof(i));
        return (uint64_t) (int64_t) i;
    case WIRE_KIND_U32:
        memcpy(&u, at, sizeof(u));
        return u;
    case WIRE_KIND_U64:
    case WIRE_KIND_I64:
    case WIRE_KIND_FIXED64:
        memcpy(&v, at, sizeof(v));
        return v;
    case WIRE_KIND_BOOL:
        return *(const bool *) at ? 1 : 0;
    case WIRE_KIND_NONE:
    case WIRE_KIND_BYTES:
    case WIRE_KIND_NESTED:
        break;
    }
    return 0;
}

uint8_t *wire_encode(const struct wire_desc *table, size_t table_len, const void *in, uint8_t *p) {
    ASSERT(table);
    ASSERT(p);
    for (size_t i = 1; i < table_len; i++) {
        enum wire_kind kind = (enum wire_kind) table[i].kind;
        const void *at = (const char *) in + table[i].offset;
        struct slice s;
        uint64_t v;

        if (kind == WIRE_KIND_NONE || kind == WIRE_KIND_NESTED)
            continue;
        if (kind == WIRE_KIND_BYTES) {
            memcpy(&s, at, sizeof(s));
            if (s.len > 0)
                p = wire_put_bytes(p, (uint32_t) i, s);
            continue;
        }
        v = load(kind, at);
        if (v == 0)
            continue;
        if (kind == WIRE_KIND_FIXED64) {
            p = put_tag(p, (uint32_t) i, WIRE_FIXED64);
            put_le64(p, v);
            p += 8;
        } else {
            p = put_tag(p, (uint32_t) i, WIRE_VARINT);
            p = wire_put_varint(p, v);
        }
    }
    return p;
}
