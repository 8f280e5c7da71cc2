/* A reader of protobuf's wire format that allocates nothing: replies and events arrive by the ten
 * thousand a second, and the client shares the machine with the cluster it measures.
 * Bad bytes end the iteration with an error; nothing is asserted. Thread: any. */
#pragma once

#include "base/bytes.h"

enum pb_type { PB_VARINT = 0, PB_FIXED64 = 1, PB_BYTES = 2, PB_FIXED32 = 5 };

struct pb_scan {
    const uint8_t *p;
    const uint8_t *end;
};

struct pb_field {
    uint32_t number;
    uint32_t type;
    uint64_t value;     /* PB_VARINT */
    struct slice bytes; /* PB_BYTES; borrowed from the message */
};

static inline struct pb_scan pb_scan_of(struct slice s) {
    return (struct pb_scan){.p = s.data, .end = s.data + s.len};
}

/* 1 = *ret is the next field, 0 = the end, negative = malformed. */
int pb_scan_next(struct pb_scan *w, struct pb_field *ret) _must_check_;
