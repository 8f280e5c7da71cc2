/* The in-memory tail of the log.
 *
 * What it is: the entries (prev_index, last] in one contiguous array, so that a message or a
 * persist batch is a pointer into it; entry data is shared by reference, never copied.
 * What it is not: storage. What was trimmed from the front is on disk only; it was applied before.
 * Invariants: indices are contiguous, terms never decrease, term(prev_index) is always known (so a
 * compacted term is never taken for 0, mutant M10).
 * Thread: the owner's. Pointers into the array are valid until the next append. */
#pragma once

#include "raft/raft.h"

/* What an entry costs beside its data: index, term, type and framing on the wire and on disk. */
#define RAFT_ENTRY_OVERHEAD_BYTES 32

struct raft_log {
    struct raft_entry *entries; /* owned; live ones are [head, head + count) */
    uint64_t *ends;             /* owned; running total of bytes up to and including the entry */
    size_t head;
    size_t count;
    size_t cap;
    uint64_t prev_index; /* of the entry before the first one in memory */
    uint64_t prev_term;
    uint64_t prev_end;
};

void raft_log_init(struct raft_log *l, uint64_t prev_index, uint64_t prev_term);
void raft_log_done(struct raft_log *l);

static inline uint64_t raft_log_last_index(const struct raft_log *l) {
    return l->prev_index + l->count;
}
uint64_t raft_log_last_term(const struct raft_log *l);

/* True and the term of @index when it is in [prev_index, last]. */
bool raft_log_term(const struct raft_log *l, uint64_t index, uint64_t *ret_term) _must_check_;

/* The entry, or NULL outside (prev_index, last]. */
const struct raft_entry *raft_log_at(const struct raft_log *l, uint64_t index);

/* Append one entry, taking a reference of its data. @e->index must be last + 1 and its term not
 * below the last one. 0 or -ENOMEM (nothing changed). */
int raft_log_append(struct raft_log *l, const struct raft_entry *e) _must_check_;

/* Drop the entries from @from on; @from in (prev_index, last]. */
void raft_log_truncate(struct raft_log *l, uint64_t from);

/* Drop the entries up to and including @upto from memory; @upto in [prev_index, last]. */
void raft_log_trim(struct raft_log *l, uint64_t upto);

/* Bytes (data and overhead) of the entries (after, upto]; both in [prev_index, last]. */
uint64_t raft_log_bytes(const struct raft_log *l, uint64_t after, uint64_t upto);

/* How many entries from @first on fit into @max_bytes: at least one. @first in memory. */
size_t raft_log_fit(const struct raft_log *l, uint64_t first, size_t max_bytes);

/* The largest index in [prev_index, index] whose term is <= @term; prev_index when there is none
 * in memory. Terms never decrease, so this is a binary search. @index in [prev_index, last]. */
uint64_t raft_log_find_term(const struct raft_log *l, uint64_t index, uint64_t term);

/* What one entry counts against byte limits. */
static inline uint64_t raft_entry_bytes(const struct raft_entry *e) {
    return RAFT_ENTRY_OVERHEAD_BYTES + (e->data ? e->data->len : 0);
}
