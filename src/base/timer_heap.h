/* Deadlines in order: an intrusive binary min-heap. The entry sits inside the thing it times.
 * Not thread-safe; reads no clock. */
#pragma once

#include "base/time.h"

struct timer_entry {
    struct mono at;
    size_t pos; /* 1-based place in the heap; 0 = not in it */
};

struct timer_heap {
    struct timer_entry **items; /* owned array of borrowed entries */
    size_t count;
    size_t cap;
};

static inline void timer_heap_init(struct timer_heap *h) {
    *h = (struct timer_heap){0};
}
void timer_heap_done(struct timer_heap *h);
/* Make room for one more entry, so that the next add cannot fail. 0 or -ENOMEM. */
int timer_heap_reserve(struct timer_heap *h) _must_check_;
/* Add an entry that is in no heap. 0 or -ENOMEM. */
int timer_heap_add(struct timer_heap *h, struct timer_entry *e, struct mono at) _must_check_;
/* Remove; harmless when not in the heap. */
void timer_heap_remove(struct timer_heap *h, struct timer_entry *e);
static inline struct timer_entry *timer_heap_first(const struct timer_heap *h) {
    return h->count > 0 ? h->items[0] : NULL;
}
static inline struct mono timer_heap_deadline(const struct timer_heap *h) {
    return h->count > 0 ? h->items[0]->at : MONO_NEVER;
}
