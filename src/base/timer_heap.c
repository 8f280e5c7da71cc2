#include "base/timer_heap.h"

#include <errno.h>
#include <stdlib.h>

void timer_heap_done(struct timer_heap *h) {
    free(h->items);
    *h = (struct timer_heap){0};
}

static void place(struct timer_heap *h, size_t i, struct timer_entry *e) {
    h->items[i] = e;
    e->pos = i + 1;
}

static void sift_up(struct timer_heap *h, size_t i, struct timer_entry *e) {
    while (i > 0) {
        size_t parent = (i - 1) / 2;

        if (h->items[parent]->at.ns <= e->at.ns)
            break;
        place(h, i, h->items[parent]);
        i = parent;
    }
    place(h, i, e);
}

static void sift_down(struct timer_heap *h, size_t i, struct timer_entry *e) {
    for (;;) {
        size_t child = 2 * i + 1;

        if (child >= h->count)
            break;
        if (child + 1 < h->count && h->items[child + 1]->at.ns < h->items[child]->at.ns)
            child++;
        if (e->at.ns <= h->items[child]->at.ns)
            break;
        place(h, i, h->items[child]);
        i = child;
    }
    place(h, i, e);
}

int timer_heap_reserve(struct timer_heap *h) {
    struct timer_entry **items;
    size_t cap;

    if (h->count < h->cap)
        return 0;
    cap = h->cap ? h->cap * 2 : 16;
    items = realloc(h->items, cap * sizeof(struct timer_entry *));
    if (!items)
        return -ENOMEM;
    h->items = items;
    h->cap = cap;
    return 0;
}

int timer_heap_add(struct timer_heap *h, struct timer_entry *e, struct mono at) {
    int r;

    ASSERT(e->pos == 0);
    r = timer_heap_reserve(h);
    if (r < 0)
        return r;
    e->at = at;
    h->count++;
    sift_up(h, h->count - 1, e);
    return 0;
}

void timer_heap_remove(struct timer_heap *h, struct timer_entry *e) {
    struct timer_entry *last;
    size_t i = e->pos;

    if (i == 0)
        return;
    ASSERT(i <= h->count && h->items[i - 1] == e);
    e->pos = 0;
    last = h->items[--h->count];
    if (last == e)
        return;
    i--;
    if (i > 0 && h->items[(i - 1) / 2]->at.ns > last->at.ns)
        sift_up(h, i, last);
    else
        sift_down(h, i, last);
}
