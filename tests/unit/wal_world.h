/* A simulated disk with a log on it, and a ledger of what the log owes us. For the wal tests. */
#pragma once

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rand.h"
#include "sim/sim_disk.h"
#include "storage/wal.h"
#include "storage/wal_format.h"

#define WORLD_MAX 4096U
#define WORLD_SEGMENT_BYTES (64U * 1024)

/* One record as the ledger sees it: its term decides its content. */
struct world_rec {
    uint64_t term;
    uint32_t len;
    uint64_t salt;
};

struct world {
    struct sim_disk *disk;
    struct wal *wal;
    struct wal_options o;
    struct errtext err;
    struct world_rec recs[WORLD_MAX + 1]; /* by index: what was written last */
    uint64_t written;                     /* last index written */
    uint64_t acked;                       /* last index a sync covered (lower after a truncation) */
    struct world_rec got[WORLD_MAX + 1];  /* what recovery delivered */
    uint64_t got_first;
    uint64_t got_last;
    bool bad_content;
    uint64_t salt;
    uint64_t resetting; /* a reset to this index was begun and did not return well */
    uint64_t reset_term;
    uint64_t hint;          /* the highest index ever known durable, as meta would remember */
    struct wal_position at; /* the newest place known durable, likewise */
    bool use_hint;          /* give both to wal_open */
};

_unused_ static void world_payload(uint8_t *out, uint64_t index, const struct world_rec *r) {
    struct rng g = rng_seed(index * 1000003 + r->term * 7919 + r->salt);

    for (uint32_t i = 0; i < r->len; i++)
        out[i] = (uint8_t) rng_next(&g);
}

_unused_ static int world_each(void *arg, const struct wal_record *rec) {
    struct world *w = (struct world *) arg;

    if (w->got_first == 0) {
        w->got_first = rec->index;
        w->got_last = rec->index - 1;
    }
    if (rec->index != w->got_last + 1 || rec->index > WORLD_MAX || rec->data.len < 8)
        w->bad_content = true;
    else
        w->got[rec->index] = (struct world_rec){.term = rec->term, .len = (uint32_t) rec->data.len};
    w->got_last = rec->index;
    return 0;
}

/* As world_each, and compares each record with the ledger. */
_unused_ static int world_compare(void *arg, const struct wal_record *rec) {
    static uint8_t want[WAL_RECORD_BYTES_MAX];
    struct world *w = (struct world *) arg;
    const struct world_rec *r;

    if (w->got_first == 0) {
        w->got_first = rec->index;
        w->got_last = rec->index - 1;
    }
    if (rec->index != w->got_last + 1 || rec->index > w->written) {
        w->bad_content = true;
        return 0;
    }
    w->got_last = rec->index;
    r = &w->recs[rec->index];
    world_payload(want, rec->index, r);
    if (rec->term != r->term || rec->type != 3 || rec->data.len != r->len ||
        memcmp(rec->data.data, want, r->len) != 0)
        w->bad_content = true;
    return 0;
}

_unused_ static void world_init(struct world *w) {
    memset(w, 0, sizeof(*w));
    assert_int_equal(sim_disk_new(&w->disk), 0);
    w->o.segment_bytes = WORLD_SEGMENT_BYTES;
    w->o.spare_segments = 2;
    memset(w->o.identity.cluster_id, 7, sizeof(w->o.identity.cluster_id));
    w->o.identity.node_id = 1;
}

_unused_ static void world_done(struct world *w) {
    w->wal = wal_close(w->wal);
    w->disk = sim_disk_free(w->disk);
}

_unused_ static int world_open(struct world *w) {
    int r;

    w->got_first = 0;
    w->got_last = 0;
    w->bad_content = false;
    w->err.s[0] = 0;
    if (w->use_hint) {
        w->o.synced_hint = w->hint;
        w->o.synced_at = w->at;
    }
    r = wal_open(sim_disk_interface(w->disk), &w->o, world_compare, w, &w->wal, &w->err);
    if (r == 0 && w->got_first == 0) /* no record, but not necessarily at the beginning */
        w->got_last = wal_last_index(w->wal);
    return r;
}

/* Take over what recovery kept: at least the acknowledged records, at most the written ones, each
 * as it was written; of a reset that was interrupted the old log or the new one. */
_unused_ static void world_accept(struct world *w) {
    uint64_t base = wal_base_index(w->wal);
    uint64_t first = wal_first_index(w->wal);

    assert_false(w->bad_content);
    assert_int_equal(wal_last_index(w->wal), w->got_last);
    assert_int_equal(first, w->got_first);
    assert_int_equal(first ? first - 1 : w->got_last, base);
    if (w->resetting > 0 && base == w->resetting && first == 0) {
        w->recs[base].term = w->reset_term;
        w->written = base;
        w->acked = base;
    }
    w->resetting = 0;
    assert_true(w->got_last >= w->acked);
    assert_true(w->got_last <= w->written);
    assert_int_equal(wal_base_term(w->wal), base ? w->recs[base].term : 0);
    w->written = w->got_last;
    w->acked = w->got_last;
    w->hint = MAX(w->hint, w->acked);
    w->at = wal_synced_at(w->wal);
}

_unused_ static int world_reset(struct world *w, uint64_t index, uint64_t term) {
    int r;

    assert_true(index > 0 && index <= WORLD_MAX);
    w->resetting = index;
    w->reset_term = term;
    r = wal_reset(w->wal, index, term, &w->err);
    if (r != 0)
        return r;
    w->resetting = 0;
    w->recs[index].term = term;
    w->written = index;
    w->acked = index;
    w->hint = MAX(w->hint, index);
    w->at = wal_synced_at(w->wal);
    assert_int_equal(wal_first_index(w->wal), 0);
    assert_int_equal(wal_last_index(w->wal), index);
    assert_int_equal(wal_synced_index(w->wal), index);
    assert_int_equal(wal_base_index(w->wal), index);
    assert_int_equal(wal_base_term(w->wal), term);
    return 0;
}

/* Append @n records of @len bytes in one batch. */
_unused_ static int world_append(struct world *w, uint64_t term, size_t n, uint32_t len) {
    struct wal_record recs[128];
    uint8_t *data = (uint8_t *) malloc(n * len + 1);
    int r;

    assert_true(data != NULL);
    assert_true(n <= ARRAY_LEN(recs));
    for (size_t i = 0; i < n; i++) {
        uint64_t index = wal_last_index(w->wal) + 1 + i;

        assert_true(index <= WORLD_MAX);
        w->recs[index] = (struct world_rec){.term = term, .len = len, .salt = ++w->salt};
        world_payload(data + i * len, index, &w->recs[index]);
        recs[i] = (struct wal_record){
            .index = index, .term = term, .type = 3, .data = slice_of(data + i * len, len)};
        w->written = index;
    }
    r = wal_append(w->wal, recs, n, &w->err);
    free(data);
    return r;
}

_unused_ static int world_sync(struct world *w) {
    int r = wal_sync(w->wal, &w->err);

    if (r == 0)
        w->acked = wal_last_index(w->wal);
    if (r == 0)
        w->at = wal_synced_at(w->wal);
    w->hint = MAX(w->hint, w->acked);
    return r;
}
