/* The reports that no committed entry has acknowledged yet (semantics C27).
 *
 * What it is: a table in the order of ending. Every new stream sends all of them again, until the
 * node says that the result is committed (or stale).
 * What it is not: the journal; that one carries them over a crash of the worker.
 * Invariants: a report is in the list and in the map, or in neither; everything behind `unsent` has
 * been sent on the present stream.
 * Thread: the loop. */
#pragma once

#include "base/map.h"
#include "worker/ref.h"

/* Messages stay well below gRPC's 4 MiB. */
#define REPORTS_MESSAGE_BYTES_MAX (1U << 20)
#define REPORTS_TAIL_BYTES_MAX 65536
/* What one packed report may have: its tail, its message, its numbers. */
#define REPORTS_ONE_BYTES_MAX (REPORTS_TAIL_BYTES_MAX + 4096)
/* Above this sum new reports carry short tails; the output itself stays on the worker's disk. */
#define REPORTS_SUM_BYTES_MAX (64U << 20)
#define REPORTS_SHORT_TAIL_BYTES 1024

struct report {
    struct ref ref;
    struct bytes *packed; /* owned reference: one AttemptReport */
    bool journaled;       /* forget it there too */
    struct report *prev;
    struct report *next;
};

struct reports {
    struct report *first;
    struct report *last;
    struct report *unsent; /* the first one not yet sent on this stream */
    struct bytesmap by_ref;
    size_t count_max;
    size_t bytes;
};

void reports_init(struct reports *t, size_t count_max);
void reports_done(struct reports *t);

static inline size_t reports_count(const struct reports *t) {
    return t->by_ref.count;
}
/* How many bytes of output a new report may carry. */
size_t reports_tail_max(const struct reports *t);

/* Pack @pb and keep it. 0; REPORTS_E_EXISTS: one for this attempt waits already, nothing changed;
 * -ENOMEM; ERR_LIMIT: too many wait. @journaled: the owner has written it to its journal. */
#define REPORTS_E_EXISTS 1
int reports_add(struct reports *t, const struct ref *ref, struct bytes *packed,
                bool journaled) _must_check_;
/* Encode; NULL when memory is out. */
struct bytes *reports_pack(const Chronos__V1__AttemptReport *pb) _must_check_;

const struct report *reports_find(const struct reports *t, const struct ref *ref);
/* Acknowledged or stale: forget it. 0 with *ret_journaled; 1 when it was unknown. */
int reports_forget(struct reports *t, const struct ref *ref, bool *ret_journaled) _must_check_;

/* A new stream: everything is to be sent again. */
void reports_rewind(struct reports *t);
/* The next WorkerMessage with as many unsent reports as fit, marked as sent. 0 with a new
 * reference; 1 when nothing is left; -ENOMEM (nothing marked). */
int reports_next(struct reports *t, struct bytes **ret) _must_check_;
