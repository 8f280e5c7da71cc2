/* Reading and writing flat protobuf messages in place: no allocation, no copy.
 *
 * What it is: the protobuf wire format for the few messages that are touched at every transition
 * (command items and job records). A table indexed by field number says where each field goes in a
 * plain struct; bytes and strings become slices that point into the input.
 * What it is not: a general protobuf library. Rare and nested messages go through protobuf-c. The
 * bytes are the same: a test packs with one and reads with the other, both ways.
 * Why: unpacking with protobuf-c copies the job's specification and costs several times the rest of
 * a transition; every node pays it for every item (design.md section 6).
 * Pure. */
#pragma once

#include "base/bytes.h"
#include "base/err.h"

enum wire_type {
    WIRE_VARINT = 0,
    WIRE_FIXED64 = 1,
    WIRE_LEN = 2,
    WIRE_FIXED32 = 5,
};

struct wire_reader {
    const uint8_t *begin;
    const uint8_t *p;
    const uint8_t *end;
};

struct wire_field {
    uint32_t number;
    enum wire_type type;
    uint64_t value;     /* VARINT, FIXED64, FIXED32 */
    struct slice bytes; /* LEN: borrowed from the input */
};

enum { WIRE_END = 1 };

static inline struct wire_reader wire_reader_of(struct slice s) {
    const uint8_t *end = s.len > 0 ? s.data + s.len : s.data; /* an absent field has no address */

    return (struct wire_reader){.begin = s.data, .p = s.data, .end = end};
}

/* One bare number, as in a packed field. 0, WIRE_END, or ERR_PROTO. */
int wire_next_varint(struct wire_reader *r, uint64_t *ret) _must_check_;
/* 0 with the next field, WIRE_END, or ERR_PROTO (the reader then stands at the bad field). */
int wire_next(struct wire_reader *r, struct wire_field *ret) _must_check_;
static inline size_t wire_offset(const struct wire_reader *r) {
    return (size_t) (r->p - r->begin);
}

enum wire_kind {
    WIRE_KIND_NONE = 0, /* not a field of this message: skipped when read */
    WIRE_KIND_U32,      /* varint -> uint32_t */
    WIRE_KIND_I32,      /* varint -> int32_t, also enums */
    WIRE_KIND_U64,      /* varint -> uint64_t */
    WIRE_KIND_I64,      /* varint -> int64_t */
    WIRE_KIND_BOOL,     /* varint -> bool */
    WIRE_KIND_FIXED64,  /* fixed64 -> uint64_t */
    WIRE_KIND_BYTES,    /* len -> struct slice */
    WIRE_KIND_NESTED,   /* len: checked for its type, left to the caller */
};

struct wire_desc {
    uint8_t kind; /* enum wire_kind */
    uint16_t offset;
};

#define WIRE_FIELD(struct_name, member, kind_)                                                     \
    { .kind = (kind_), .offset = (uint16_t) offsetof(struct struct_name, member) }

/* Read @msg into the zeroed struct @out by @table, which is indexed by field number. The last of
 * several occurrences wins; unknown numbers are skipped. 0 or ERR_PROTO with the offset of the bad
 * field in *ret_offset. */
int wire_decode(struct slice msg, const struct wire_desc *table, size_t table_len, void *out,
                size_t *ret_offset) _must_check_;

/* An upper bound for the encoding of @in, and the encoding itself in ascending field order, zero
 * values omitted as proto3 demands. @p must have that much room; returns the end. */
size_t wire_encode_bytes_max(const struct wire_desc *table, size_t table_len, const void *in);
uint8_t *wire_encode(const struct wire_desc *table, size_t table_len, const void *in, uint8_t *p);

/* Tag, length and content of one LEN field; the room needed is at most 15 + len bytes. */
uint8_t *wire_put_bytes(uint8_t *p, uint32_t number, struct slice s);
uint8_t *wire_put_varint(uint8_t *p, uint64_t v);
