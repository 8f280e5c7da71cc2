/* Judging the bytes of one segment: which records are there, which continue the log, which vouch.
 *
 * What it is not: it reads no file. Recovery and inspection share it, so that what is shown is what
 * would be believed. Thread: any; no state. */
#include "storage/wal_internal.h"

#include "base/codec.h"

struct wal_cursor wal_cursor_of(const struct wal_segment_header *h) {
    return (struct wal_cursor){
        .crc = h->prev_crc,
        .last_index = h->prev_index,
        .last_term = h->prev_term,
        .floor = h->floor,
        .oldest_seq = h->oldest_seq,
    };
}

bool wal_cursor_follow(struct wal_cursor *c, const struct wal_frame *f) {
    if (f->prev_crc != c->crc)
        return false;
    switch (f->kind) {
    case WAL_KIND_DATA:
        if (f->index != c->last_index + 1 || f->term < c->last_term)
            return false;
        c->last_index = f->index;
        c->last_term = f->term;
        break;
    case WAL_KIND_TRUNCATE:
        if (f->index == 0 || f->index > c->last_index || f->term > c->last_term ||
            (f->index > 1 && f->term == 0))
            return false;
        c->last_index = f->index - 1;
        c->last_term = f->term;
        c->floor = MIN(c->floor, c->last_index);
        break;
    case WAL_KIND_RELEASE:
        c->oldest_seq = MAX(c->oldest_seq, get_le64(f->data));
        break;
    case WAL_KIND_SEAL:
        if (f->index != c->last_index || f->term != c->last_term)
            return false;
        break;
    }
    c->crc = f->crc;
    return true;
}

bool wal_scan_frame(const struct wal_image *s, uint32_t offset, struct wal_frame *ret_f) {
    const struct wal_place at = wal_place_at(&s->h, offset);

    if (offset >= s->len)
        return false;
    return wal_format_record_parse(s->bytes + offset, s->len - offset, &at, ret_f) == WAL_PARSE_OK;
}

void wal_scan_walk(const struct wal_image *s, uint32_t limit, struct wal_cursor *c,
                   uint32_t *ret_end, uint32_t *ret_known) {
    uint32_t offset = WAL_HEADER_BYTES;
    uint32_t known = s->h.base_end;
    struct wal_frame f;

    ASSERT(limit <= s->h.segment_bytes);
    while (offset < limit && wal_scan_frame(s, offset, &f) && wal_cursor_follow(c, &f)) {
        known = MAX(known, f.synced);
        offset += wal_format_record_bytes(f.len);
    }
    *ret_end = offset;
    *ret_known = known;
}

bool wal_scan_next(const struct wal_image *s, uint32_t offset, uint32_t *ret_at,
                   struct wal_frame *ret_f) {
    for (uint64_t at = offset; at + WAL_RECORD_HEADER_BYTES <= s->len; at += 8) {
        if (!wal_format_maybe_record(s->bytes + at) || !wal_scan_frame(s, (uint32_t) at, ret_f))
            continue;
        *ret_at = (uint32_t) at;
        return true;
    }
    return false;
}

bool wal_scan_vouched(const struct wal_image *s, uint32_t end) {
    struct wal_frame f;
    uint32_t at = end;

    while (wal_scan_next(s, at, &at, &f)) {
        if (f.synced > end)
            return true;
        at += wal_format_record_bytes(f.len);
    }
    return false;
}
