/* The TZif reader: header, data block, footer. RFC 9636 section 3. */
#include "sched/tz.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define TZIF_HEADER_BYTES 44U

struct tzif_header {
    uint8_t version; /* 1 for the NUL byte of version 1 */
    uint32_t isutcnt, isstdcnt, leapcnt, timecnt, typecnt, charcnt;
};

static uint32_t get_be32(const uint8_t *p) {
    return (uint32_t) p[0] << 24 | (uint32_t) p[1] << 16 | (uint32_t) p[2] << 8 | p[3];
}

static int64_t get_time(const uint8_t *p, size_t time_bytes) {
    if (time_bytes == 4)
        return (int32_t) get_be32(p);
    return (int64_t) ((uint64_t) get_be32(p) << 32 | get_be32(p + 4));
}

static int header_read(struct slice data, size_t at, struct tzif_header *h,
                       struct errtext *reterr) {
    const uint8_t *p = data.data + at;

    if (data.len - at < TZIF_HEADER_BYTES) {
        errtext_set(reterr, "offset %zu: the file ends within a header", at);
        return ERR_PROTO;
    }
    if (memcmp(p, "TZif", 4) != 0) {
        errtext_set(reterr, "offset %zu: not a TZif file (it should begin with \"TZif\")", at);
        return ERR_PROTO;
    }
    h->version = p[4] == 0 ? 1 : (uint8_t) (p[4] - '0');
    if (h->version < 1 || h->version > 9) {
        errtext_set(reterr, "offset %zu: unknown version byte 0x%02x", at + 4, p[4]);
        return ERR_PROTO;
    }
    h->isutcnt = get_be32(p + 20);
    h->isstdcnt = get_be32(p + 24);
    h->leapcnt = get_be32(p + 28);
    h->timecnt = get_be32(p + 32);
    h->typecnt = get_be32(p + 36);
    h->charcnt = get_be32(p + 40);
    if (h->typecnt == 0 || h->typecnt > 256 || h->charcnt == 0 || h->timecnt > TZ_FILE_BYTES_MAX ||
        h->charcnt > TZ_FILE_BYTES_MAX || h->leapcnt > TZ_FILE_BYTES_MAX ||
        (h->isutcnt != 0 && h->isutcnt != h->typecnt) ||
        (h->isstdcnt != 0 && h->isstdcnt != h->typecnt)) {
        errtext_set(reterr, "offset %zu: counts that no zone has", at + 20);
        return ERR_PROTO;
    }
    return 0;
}

static size_t block_bytes(const struct tzif_header *h, size_t time_bytes) {
    return h->timecnt * (time_bytes + 1) + h->typecnt * 6UL + h->charcnt +
           h->leapcnt * (time_bytes + 4) + h->isstdcnt + h->isutcnt;
}

/* Where the parts of a data block are. */
struct tzif_block {
    const struct tzif_header *h;
    size_t time_bytes;
    const uint8_t *times, *kinds, *types, *chars;
    size_t at; /* offset in the file, for messages */
};

static int type_read(const struct tzif_block *b, size_t type, struct tz_change *ret,
                     struct errtext *reterr) {
    const uint8_t *p = b->types + type * 6;
    size_t abbrev = p[5], len;

    ret->offset = (int32_t) get_be32(p);
    ret->dst = p[4] != 0;
    if (ret->offset < -100000 || ret->offset > 100000 || p[4] > 1 || abbrev >= b->h->charcnt) {
        errtext_set(reterr, "offset %zu: local time type %zu is out of bounds", b->at, type);
        return ERR_PROTO;
    }
    len = strnlen((const char *) b->chars + abbrev, b->h->charcnt - abbrev);
    if (len == b->h->charcnt - abbrev || len >= sizeof(ret->abbrev)) {
        errtext_set(reterr, "offset %zu: the name of local time type %zu has no end", b->at, type);
        return ERR_PROTO;
    }
    memcpy(ret->abbrev, b->chars + abbrev, len + 1);
    return 0;
}

int tz_append(struct tz *z, size_t *cap, const struct tz_change *c) {
    const struct tz_change *last = z->count > 0 ? &z->changes[z->count - 1] : NULL;

    ASSERT(!last || c->at >= last->at);
    if (last && last->offset == c->offset && last->dst == c->dst &&
        strcmp(last->abbrev, c->abbrev) == 0)
        return 0;
    if (last && last->at == c->at) { /* of two at one instant the later one holds */
        int64_t at = c->at;

        z->count--;
        if (z->count > 0)
            return tz_append(z, cap, c);
        z->changes[z->count] = *c;
        z->changes[z->count++].at = at;
        return 0;
    }
    if (z->count == *cap) {
        size_t grown = *cap ? *cap * 2 : 64;
        struct tz_change *changes = realloc(z->changes, grown * sizeof(*changes));

        if (!changes)
            return -ENOMEM;
        z->changes = changes;
        *cap = grown;
    }
    z->changes[z->count++] = *c;
    return 0;
}

static int block_read(struct tz *z, size_t *cap, const struct tzif_block *b,
                      struct errtext *reterr) {
    struct tz_change c = {.at = INT64_MIN};
    int64_t before = INT64_MIN;
    int rc = type_read(b, 0, &c, reterr); /* before the first change: type 0 (3.2) */

    if (rc == 0)
        rc = tz_append(z, cap, &c);
    for (size_t i = 0; rc == 0 && i < b->h->timecnt; i++) {
        c.at = get_time(b->times + i * b->time_bytes, b->time_bytes);
        if (b->kinds[i] >= b->h->typecnt || (i > 0 && c.at <= before)) {
            errtext_set(reterr, "offset %zu: change %zu is out of order or of no known type", b->at,
                        i);
            return ERR_PROTO;
        }
        before = c.at;
        rc = type_read(b, b->kinds[i], &c, reterr);
        if (rc == 0)
            rc = tz_append(z, cap, &c);
    }
    return rc;
}

static int footer_read(struct tz *z, size_t *cap, struct slice data, size_t at, int64_t after,
                       struct errtext *reterr) {
    const uint8_t *end;

    if (at >= data.len || data.data[at] != '\n') {
        errtext_set(reterr, "offset %zu: the footer is missing", at);
        return ERR_PROTO;
    }
    at++;
    end = memchr(data.data + at, '\n', data.len - at);
    if (!end) {
        errtext_set(reterr, "offset %zu: the footer has no end", at);
        return ERR_PROTO;
    }
    if (end == data.data + at)
        return 0; /* no rule: the last change holds for ever */
    return tz_posix_append(z, cap, slice_of(data.data + at, (size_t) (end - data.data) - at), after,
                           reterr);
}

static int parse(struct slice data, struct tz *z, struct errtext *reterr) {
    struct tzif_header h;
    struct tzif_block b = {.h = &h, .time_bytes = 4, .at = TZIF_HEADER_BYTES};
    size_t cap = 0;
    int rc = header_read(data, 0, &h, reterr);

    if (rc < 0)
        return rc;
    if (h.version >= 2) {
        size_t second = TZIF_HEADER_BYTES + block_bytes(&h, 4);

        if (second > data.len) {
            errtext_set(reterr, "offset %zu: the file ends within its first block", data.len);
            return ERR_PROTO;
        }
        rc = header_read(data, second, &h, reterr);
        if (rc < 0)
            return rc;
        b.time_bytes = 8;
        b.at = second + TZIF_HEADER_BYTES;
    }
    if (h.leapcnt > 0) {
        errtext_set(reterr, "the zone counts leap seconds; use one that does not");
        return ERR_PROTO;
    }
    if (block_bytes(&h, b.time_bytes) > data.len - b.at) {
        errtext_set(reterr, "offset %zu: the file ends within its data block", data.len);
        return ERR_PROTO;
    }
    b.times = data.data + b.at;
    b.kinds = b.times + h.timecnt * b.time_bytes;
    b.types = b.kinds + h.timecnt;
    b.chars = b.types + h.typecnt * 6UL;
    rc = block_read(z, &cap, &b, reterr);
    if (rc == 0 && h.version >= 2)
        rc = footer_read(z, &cap, data, b.at + block_bytes(&h, b.time_bytes),
                         h.timecnt > 0 ? get_time(b.times + (h.timecnt - 1) * 8UL, 8) : INT64_MIN,
                         reterr);
    return rc;
}

int tz_parse(struct slice data, struct tz **ret, struct errtext *reterr) {
    _cleanup_(tz_freep) struct tz *z = calloc(1, sizeof(*z));
    const struct tz_change utc = {.at = INT64_MIN, .abbrev = "UTC"};
    size_t cap = 0;
    int rc;

    ASSERT(ret);
    if (!z)
        return -ENOMEM;
    if (data.len > TZ_FILE_BYTES_MAX) {
        errtext_set(reterr, "the file has %zu bytes, no zone has more than %u", data.len,
                    TZ_FILE_BYTES_MAX);
        return ERR_PROTO;
    }
    rc = data.len == 0 ? tz_append(z, &cap, &utc) : parse(data, z, reterr);
    if (rc < 0)
        return rc;
    ASSERT(z->count > 0);
    *ret = TAKE_PTR(z);
    return 0;
}

struct tz *tz_free(struct tz *z) {
    if (!z)
        return NULL;
    free(z->changes);
    free(z);
    return NULL;
}

size_t tz_find(const struct tz *z, int64_t utc) {
    size_t lo = 0, hi = z->count; /* changes[lo].at <= utc < changes[hi].at */

    ASSERT(z->count > 0);
    while (hi - lo > 1) {
        size_t mid = lo + (hi - lo) / 2;

        if (z->changes[mid].at <= utc)
            lo = mid;
        else
            hi = mid;
    }
    return lo;
}

bool tz_name_ok(const char *name) {
    size_t part = 0, len = strnlen(name, TZ_NAME_BYTES_MAX + 1);
    bool only_dots = true;

    if (len == 0 || len > TZ_NAME_BYTES_MAX)
        return false;
    for (size_t i = 0; i <= len; i++) {
        char ch = name[i];

        if (ch == '/' || ch == '\0') {
            if (part == 0 || only_dots)
                return false;
            part = 0;
            only_dots = true;
            continue;
        }
        if (!((ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || (ch >= '0' && ch <= '9') ||
              ch == '_' || ch == '+' || ch == '-' || ch == '.'))
            return false;
        only_dots = only_dots && ch == '.';
        part++;
    }
    return true;
}
