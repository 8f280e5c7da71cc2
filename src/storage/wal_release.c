/* Giving back what a snapshot covers: the oldest segments, or all of them.
 *
 * Both are one durable step, after which files go: a release is a record (recovery then expects
 * none of the older segments), a reset is a new segment that names none before it, so that a crash
 * leaves the old log or the new one and stale segments are recognised by not being in the chain
 * (reliability.md W10). */
#include "storage/wal_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/codec.h"

/* How many of the oldest segments hold nothing above @up_to. */
static size_t releasable(const struct wal *w, uint64_t up_to, uint64_t keep_bytes) {
    uint64_t later = wal_bytes(w); /* bytes of the segments from n on */
    size_t n = 0;

    ASSERT(w->segs_count > 0);
    while (n + 1 < w->segs_count && w->segs[n].hi <= up_to &&
           later - w->segs[n].h.segment_bytes >= keep_bytes)
        later -= w->segs[n++].h.segment_bytes;
    return n;
}

static void forget_oldest(struct wal *w, size_t n) {
    ASSERT(n < w->segs_count);
    for (size_t i = 0; i < n; i++)
        free(w->segs[i].marks);
    memmove(w->segs, w->segs + n, (w->segs_count - n) * sizeof(*w->segs));
    w->segs_count -= n;
}

/* Sequence numbers of the oldest @n segments; NULL: no memory. */
static uint64_t *oldest_seqs(const struct wal *w, size_t n) {
    uint64_t *seqs = (uint64_t *) calloc(n, sizeof(*seqs));

    for (size_t i = 0; seqs && i < n; i++)
        seqs[i] = w->segs[i].h.seq;
    return seqs;
}

int wal_release(struct wal *w, uint64_t up_to_index, uint64_t keep_bytes, struct errtext *reterr) {
    _cleanup_(freep) uint64_t *seqs = NULL;
    uint8_t oldest[WAL_RELEASE_BYTES];
    struct wal_frame f = {.kind = WAL_KIND_RELEASE, .index = up_to_index, .len = sizeof(oldest)};
    size_t n;
    int r;

    ASSERT(w);
    if (w->failed)
        return wal_fail(w, w->failed, reterr, "release", "segments");
    n = releasable(w, up_to_index, keep_bytes);
    if (n == 0)
        return 0;
    seqs = oldest_seqs(w, n);
    if (!seqs)
        return wal_fail(w, -ENOMEM, reterr, "release", "segments");
    put_le64(oldest, w->segs[n].h.seq);
    f.data = oldest;
    /* Durable before the first file goes: a missing segment is otherwise damage. */
    r = wal_put_with_room(w, &f, reterr);
    if (r >= 0)
        r = wal_sync_active(w, reterr);
    if (r < 0)
        return r;
    forget_oldest(w, n);
    r = wal_files_retire(w, seqs, n, reterr);
    if (r < 0)
        return r;
    wal_check(w);
    return 0;
}

/* The segment that the log begins anew with. Its floor is @index: a hint of more is explained. */
static int begin_anew(struct wal *w, uint64_t index, uint64_t term, struct errtext *reterr) {
    struct wal_segment_header h = {
        .prev_index = index,
        .prev_term = term,
        .floor = index,
        .oldest_seq = w->next_seq, /* this one */
        .prev_end = WAL_HEADER_BYTES,
        .base_end = WAL_HEADER_BYTES,
    };
    uint64_t spare = 0;
    int r = wal_files_begin(w, &h, 0, &spare, reterr);

    return r < 0 ? r : wal_files_publish(w, spare, reterr);
}

int wal_reset(struct wal *w, uint64_t index, uint64_t term, struct errtext *reterr) {
    _cleanup_(freep) uint64_t *seqs = NULL;
    size_t n;
    int r;

    ASSERT(w);
    ASSERT(index > 0 && term > 0);
    if (w->failed)
        return wal_fail(w, w->failed, reterr, "reset", "the log");
    n = w->segs_count;
    seqs = oldest_seqs(w, n);
    if (!seqs)
        return wal_fail(w, -ENOMEM, reterr, "reset", "the log");
    r = wal_sync_active(w, reterr);
    if (r >= 0)
        r = begin_anew(w, index, term, reterr);
    if (r < 0)
        return r;
    forget_oldest(w, n);
    w->cur = wal_cursor_of(&wal_active(w)->h);
    w->synced_index = index;
    r = wal_files_retire(w, seqs, n, reterr);
    if (r < 0)
        return r;
    wal_check(w);
    return 0;
}
