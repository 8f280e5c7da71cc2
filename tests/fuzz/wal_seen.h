/* What `chronos inspect` is told of a log, for the targets of logs. */
#pragma once

#include "fuzz.h"

#include "storage/wal.h"
#include "storage/wal_format.h"

struct wal_seen {
    uint32_t file_bytes; /* of the longest file */
    size_t bad;          /* places that are no record */
};

static int wal_seen_segment(void *arg, const struct wal_inspect_segment *s) {
    (void) arg;
    ASSERT(s->name);
    return 0;
}

static int wal_seen_record(void *arg, const struct wal_inspect_record *r) {
    const struct wal_seen *seen = arg;

    ASSERT(r->kind && r->offset >= WAL_HEADER_BYTES && r->offset < seen->file_bytes);
    return 0;
}

static int wal_seen_bad(void *arg, const char *segment, uint32_t offset, bool torn,
                        const char *why) {
    struct wal_seen *seen = arg;

    ASSERT(segment && why && (torn || offset <= seen->file_bytes));
    seen->bad++;
    return 0;
}

/* wal_inspect(): 0 or ERR_CORRUPT. */
static inline int wal_seen_all(const struct disk *disk, struct wal_seen *seen,
                               struct errtext *reterr) {
    const struct wal_inspect_visitor v = {wal_seen_segment, wal_seen_record, wal_seen_bad, seen};
    int rc = wal_inspect(disk, &v, reterr);

    ASSERT(rc == 0 || rc == ERR_CORRUPT);
    return rc;
}
