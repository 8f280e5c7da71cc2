/* The in-memory tail of the log; see raft_log.h.
 *
 * Trimming moves the head forward; the array is moved back to its start only when it is full and at
 * least half of it is free, so append costs O(1) amortized and entries stay contiguous. */
#include "raft/raft_log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define RAFT_LOG_CAP_FIRST 64

void raft_log_init(struct raft_log *l, uint64_t prev_index, uint64_t prev_term) {
    ASSERT(l);
    ASSERT((prev_index == 0) == (prev_term == 0));
    *l = (struct raft_log){.prev_index = prev_index, .prev_term = prev_term};
}

void raft_log_done(struct raft_log *l) {
    ASSERT(l);
    for (size_t i = 0; i < l->count; i++)
        (void) bytes_unref(l->entries[l->head + i].data);
    free(l->entries);
    free(l->ends);
    *l = (struct raft_log){0};
}

uint64_t raft_log_last_term(const struct raft_log *l) {
    ASSERT(l);
    return l->count > 0 ? l->entries[l->head + l->count - 1].term : l->prev_term;
}

bool raft_log_term(const struct raft_log *l, uint64_t index, uint64_t *ret_term) {
    const struct raft_entry *e;

    ASSERT(l);
    ASSERT(ret_term);

    if (index == l->prev_index) {
        *ret_term = l->prev_term;
        return true;
    }
    e = raft_log_at(l, index);
    if (!e)
        return false;
    *ret_term = e->term;
    return true;
}

const struct raft_entry *raft_log_at(const struct raft_log *l, uint64_t index) {
    const struct raft_entry *e;

    ASSERT(l);
    if (index <= l->prev_index || index > raft_log_last_index(l))
        return NULL;
    e = &l->entries[l->head + (size_t) (index - l->prev_index - 1)];
    ASSERT(e->index == index);
    return e;
}

static int log_grow(struct raft_log *l) {
    size_t cap = l->cap ? l->cap * 2 : RAFT_LOG_CAP_FIRST;
    struct raft_entry *entries;
    uint64_t *ends;

    ASSERT(l->head + l->count == l->cap);

    if (l->head > 0 && l->head >= l->cap / 2) {
        memmove(l->entries, l->entries + l->head, l->count * sizeof(*l->entries));
        memmove(l->ends, l->ends + l->head, l->count * sizeof(*l->ends));
        l->head = 0;
        return 0;
    }
    entries = realloc(l->entries, cap * sizeof(*entries));
    if (!entries)
        return -ENOMEM;
    l->entries = entries;
    ends = realloc(l->ends, cap * sizeof(*ends));
    if (!ends)
        return -ENOMEM;
    l->ends = ends;
    l->cap = cap;
    return 0;
}

static uint64_t log_end(const struct raft_log *l, uint64_t index) {
    ASSERT(index >= l->prev_index);
    ASSERT(index <= raft_log_last_index(l));
    return index == l->prev_index ? l->prev_end
                                  : l->ends[l->head + (size_t) (index - l->prev_index - 1)];
}

int raft_log_append(struct raft_log *l, const struct raft_entry *e) {
    uint64_t last_end;
    int rc;

    ASSERT(l);
    ASSERT(e);
    ASSERT(e->index == raft_log_last_index(l) + 1);
    ASSERT(e->term >= raft_log_last_term(l));

    if (l->head + l->count == l->cap) {
        rc = log_grow(l);
        if (rc < 0)
            return rc;
    }
    last_end = log_end(l, raft_log_last_index(l));
    l->entries[l->head + l->count] = *e;
    l->ends[l->head + l->count] = last_end + raft_entry_bytes(e);
    if (e->data)
        (void) bytes_ref(e->data);
    l->count++;
    return 0;
}

void raft_log_truncate(struct raft_log *l, uint64_t from) {
    ASSERT(l);
    ASSERT(from > l->prev_index);
    ASSERT(from <= raft_log_last_index(l));

    while (raft_log_last_index(l) >= from) {
        l->count--;
        (void) bytes_unref(l->entries[l->head + l->count].data);
    }
}

void raft_log_trim(struct raft_log *l, uint64_t upto) {
    ASSERT(l);
    ASSERT(upto >= l->prev_index);
    ASSERT(upto <= raft_log_last_index(l));

    while (l->prev_index < upto) {
        struct raft_entry *e = &l->entries[l->head];

        l->prev_index = e->index;
        l->prev_term = e->term;
        l->prev_end = l->ends[l->head];
        (void) bytes_unref(e->data);
        l->head++;
        l->count--;
    }
    if (l->count == 0)
        l->head = 0;
}

uint64_t raft_log_bytes(const struct raft_log *l, uint64_t after, uint64_t upto) {
    ASSERT(l);
    ASSERT(after <= upto);
    return log_end(l, upto) - log_end(l, after);
}

size_t raft_log_fit(const struct raft_log *l, uint64_t first, size_t max_bytes) {
    uint64_t base;
    uint64_t last;
    uint64_t lo; /* fits */
    uint64_t hi; /* last that may fit */

    ASSERT(l);
    ASSERT(raft_log_at(l, first));

    base = log_end(l, first - 1);
    last = raft_log_last_index(l);
    lo = first;
    hi = last;
    while (lo < hi) {
        uint64_t mid = hi - (hi - lo) / 2;

        if (log_end(l, mid) - base <= max_bytes)
            lo = mid;
        else
            hi = mid - 1;
    }
    return (size_t) (lo - first + 1);
}

uint64_t raft_log_find_term(const struct raft_log *l, uint64_t index, uint64_t term) {
    uint64_t lo;
    uint64_t hi;

    ASSERT(l);
    ASSERT(index >= l->prev_index);
    ASSERT(index <= raft_log_last_index(l));

    lo = l->prev_index;
    hi = index;
    while (lo < hi) {
        uint64_t mid = hi - (hi - lo) / 2;

        if (raft_log_at(l, mid)->term <= term)
            lo = mid;
        else
            hi = mid - 1;
    }
    return lo;
}
