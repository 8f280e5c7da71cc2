/* Due instants in order: a binary min-heap whose entries know their place. */
#include "sched/ticker_internal.h"

#include <errno.h>
#include <stdlib.h>

int heap_reserve(struct heap *h, size_t count) {
    struct heap_slot *grown;
    size_t cap;

    if (count <= h->cap)
        return 0;
    cap = MAX(count, h->cap + h->cap / 2);
    cap = MAX(cap, (size_t) 64);
    grown = realloc(h->slots, cap * sizeof(*grown));
    if (!grown)
        return -ENOMEM;
    h->slots = grown;
    h->cap = cap;
    return 0;
}

static bool before(const struct heap_slot *a, const struct heap_slot *b) {
    return a->due_ms != b->due_ms ? a->due_ms < b->due_ms : a->entry->seq < b->entry->seq;
}

static void place(struct heap *h, size_t i, struct heap_slot s) {
    h->slots[i] = s;
    s.entry->heap_pos = (uint32_t) (i + 1);
}

static void sift(struct heap *h, size_t i, struct heap_slot s) {
    while (i > 0 && before(&s, &h->slots[(i - 1) / 2])) {
        place(h, i, h->slots[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    for (size_t child; (child = 2 * i + 1) < h->count; i = child) {
        if (child + 1 < h->count && before(&h->slots[child + 1], &h->slots[child]))
            child++;
        if (!before(&h->slots[child], &s))
            break;
        place(h, i, h->slots[child]);
    }
    place(h, i, s);
}

void heap_set(struct heap *h, struct entry *e, int64_t due_ms) {
    if (e->heap_pos == 0) {
        ASSERT(h->count < h->cap);
        e->heap_pos = (uint32_t) ++h->count;
    }
    sift(h, e->heap_pos - 1, (struct heap_slot){.due_ms = due_ms, .entry = e});
}

void heap_remove(struct heap *h, struct entry *e) {
    size_t i = e->heap_pos;
    struct heap_slot last;

    if (i == 0)
        return;
    ASSERT(i <= h->count && h->slots[i - 1].entry == e);
    e->heap_pos = 0;
    last = h->slots[--h->count];
    if (last.entry != e)
        sift(h, i - 1, last);
}
