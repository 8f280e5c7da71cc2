#include "worker/reports.h"

#include "base/err.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* The wire format of a WorkerMessage with reports, written by hand around packed reports: packing
 * them a second time inside their message would cost as much as making them. Tags are
 * (field number << 3) | 2; a test parses the result with the generated code. */
#define TAG_MESSAGE_REPORTS ((3U << 3) | 2U)
#define TAG_REPORTS_REPORT ((1U << 3) | 2U)

static size_t varint_bytes(size_t v) {
    size_t n = 1;

    while (v >= 0x80) {
        v >>= 7;
        n++;
    }
    return n;
}

static uint8_t *varint_put(uint8_t *p, size_t v) {
    while (v >= 0x80) {
        *p++ = (uint8_t) (v | 0x80);
        v >>= 7;
    }
    *p++ = (uint8_t) v;
    return p;
}

void reports_init(struct reports *t, size_t count_max) {
    ASSERT(count_max > 0);
    *t = (struct reports){.count_max = count_max};
}

static void report_free(struct report *r) {
    (void) bytes_unref(r->packed);
    free(r);
}

void reports_done(struct reports *t) {
    while (t->first) {
        struct report *r = t->first;

        t->first = r->next;
        report_free(r);
    }
    bytesmap_done(&t->by_ref);
    *t = (struct reports){0};
}

size_t reports_tail_max(const struct reports *t) {
    return t->bytes < REPORTS_SUM_BYTES_MAX ? REPORTS_TAIL_BYTES_MAX : REPORTS_SHORT_TAIL_BYTES;
}

struct bytes *reports_pack(const Chronos__V1__AttemptReport *pb) {
    size_t len = chronos__v1__attempt_report__get_packed_size(pb);
    struct bytes *b;

    ASSERT(pb->attempt);
    ASSERT(len <= REPORTS_ONE_BYTES_MAX);
    b = bytes_new(len);
    if (b)
        (void) chronos__v1__attempt_report__pack(pb, b->data);
    return b;
}

int reports_add(struct reports *t, const struct ref *ref, struct bytes *packed, bool journaled) {
    struct report *r;
    int e;

    ASSERT(packed);
    if (bytesmap_get(&t->by_ref, ref_key(ref)))
        return REPORTS_E_EXISTS;
    if (t->by_ref.count >= t->count_max)
        return ERR_LIMIT;
    r = calloc(1, sizeof(*r));
    if (!r)
        return -ENOMEM;
    r->ref = *ref;
    r->journaled = journaled;
    e = bytesmap_put(&t->by_ref, ref_key(&r->ref), r);
    if (e < 0) {
        free(r);
        return e;
    }
    r->packed = bytes_ref(packed);
    r->prev = t->last;
    if (t->last)
        t->last->next = r;
    else
        t->first = r;
    t->last = r;
    if (!t->unsent)
        t->unsent = r;
    t->bytes += packed->len;
    return 0;
}

const struct report *reports_find(const struct reports *t, const struct ref *ref) {
    return (const struct report *) bytesmap_get(&t->by_ref, ref_key(ref));
}

int reports_forget(struct reports *t, const struct ref *ref, bool *ret_journaled) {
    struct report *r = (struct report *) bytesmap_del(&t->by_ref, ref_key(ref));

    if (!r)
        return 1;
    ASSERT(t->bytes >= r->packed->len);
    t->bytes -= r->packed->len;
    if (t->unsent == r)
        t->unsent = r->next;
    if (r->prev)
        r->prev->next = r->next;
    else
        t->first = r->next;
    if (r->next)
        r->next->prev = r->prev;
    else
        t->last = r->prev;
    *ret_journaled = r->journaled;
    report_free(r);
    return 0;
}

void reports_rewind(struct reports *t) {
    t->unsent = t->first;
}

int reports_next(struct reports *t, struct bytes **ret) {
    const struct report *stop = t->unsent;
    size_t body = 0, n;
    struct bytes *b;
    uint8_t *p;

    if (!t->unsent)
        return 1;
    while (stop) {
        n = 1 + varint_bytes(stop->packed->len) + stop->packed->len;
        if (body > 0 && body + n > REPORTS_MESSAGE_BYTES_MAX)
            break;
        body += n;
        stop = stop->next;
    }
    b = bytes_new(1 + varint_bytes(body) + body);
    if (!b)
        return -ENOMEM;
    p = b->data;
    *p++ = TAG_MESSAGE_REPORTS;
    p = varint_put(p, body);
    for (; t->unsent != stop; t->unsent = t->unsent->next) {
        *p++ = TAG_REPORTS_REPORT;
        p = varint_put(p, t->unsent->packed->len);
        memcpy(p, t->unsent->packed->data, t->unsent->packed->len);
        p += t->unsent->packed->len;
    }
    ASSERT(p == b->data + b->len);
    *ret = b;
    return 0;
}
