#include "bench/pb_scan.h"

#include "base/err.h"

static int read_varint(struct pb_scan *w, uint64_t *ret) {
    uint64_t v = 0;

    for (unsigned shift = 0; shift < 64 && w->p < w->end; shift += 7) {
        uint8_t byte = *w->p++;

        v |= (uint64_t) (byte & 0x7f) << shift;
        if (byte < 0x80) {
            *ret = v;
            return 0;
        }
    }
    return ERR_PROTO;
}

static int skip(struct pb_scan *w, size_t n) {
    if ((size_t) (w->end - w->p) < n)
        return ERR_PROTO;
    w->p += n;
    return 0;
}

int pb_scan_next(struct pb_scan *w, struct pb_field *ret) {
    uint64_t key = 0, len = 0;
    int r;

    if (w->p == w->end)
        return 0;
    if (read_varint(w, &key) < 0 || key >> 3 == 0 || key >> 3 > UINT32_MAX)
        return ERR_PROTO;
    *ret = (struct pb_field){.number = (uint32_t) (key >> 3), .type = (uint32_t) (key & 7)};
    if (ret->type == PB_VARINT)
        r = read_varint(w, &ret->value);
    else if (ret->type == PB_FIXED64)
        r = skip(w, 8);
    else if (ret->type == PB_FIXED32)
        r = skip(w, 4);
    else if (ret->type == PB_BYTES)
        r = read_varint(w, &len);
    else
        r = ERR_PROTO;
    if (r < 0)
        return r;
    if (ret->type == PB_BYTES) {
        if (len > (uint64_t) (w->end - w->p))
            return ERR_PROTO;
        ret->bytes = slice_of(w->p, (size_t) len);
        w->p += len;
    }
    return 1;
}
