/* The event ring: the newest transitions, whole log indices at a time.
 *
 * A chain of chunks; the events of one index never straddle two chunks, so a reader gets them as
 * one contiguous run. When the chain is full its oldest chunk goes, and with it the right to resume
 * before it: readers are told, nothing is skipped silently (reliability.md J23). Thread: the loop.
 */
#include "node/replica_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define EVENT_CHUNK_LEN 2048UL

int events_init(struct replica *r, size_t max) {
    r->events.chunks_max = MAX(2UL, max / EVENT_CHUNK_LEN);
    r->events.oldest = fsm_applied_index(r->fsm);
    return 0;
}

void events_free(struct replica *r) {
    while (r->events.head) {
        struct event_chunk *c = r->events.head;

        r->events.head = c->next;
        free(c);
    }
    r->events.tail = NULL;
}

void events_reset(struct replica *r) {
    events_free(r);
    r->events.chunks = 0;
    r->events.oldest = fsm_applied_index(r->fsm);
    r->events.added = true;
}

/* A chunk with room for @n more events; NULL when memory is out. */
static struct event_chunk *chunk_for(struct events *ev, size_t n) {
    struct event_chunk *c = ev->tail;
    size_t cap = MAX(n, EVENT_CHUNK_LEN);

    if (c && c->cap - c->count >= n)
        return c;
    c = malloc(sizeof(*c) + cap * sizeof(c->events[0]));
    if (!c)
        return NULL;
    c->next = NULL;
    c->count = 0;
    c->cap = cap;
    if (ev->tail)
        ev->tail->next = c;
    else
        ev->head = c;
    ev->tail = c;
    ev->chunks++;
    while (ev->chunks > ev->chunks_max) {
        struct event_chunk *old = ev->head;

        ASSERT(old->count > 0); /* a chunk is made for events that follow at once */
        ev->oldest = old->events[old->count - 1].index;
        ev->head = old->next;
        ev->chunks--;
        free(old);
    }
    return c;
}

void events_add(struct replica *r, uint64_t index, const struct fsm_output *out) {
    struct events *ev = &r->events;
    struct event_chunk *c;

    if (out->events_count == 0)
        return;
    c = chunk_for(ev, out->events_count);
    if (!c) {
        /* Memory is out: forget the past rather than leave a hole. */
        events_free(r);
        ev->chunks = 0;
        ev->oldest = index;
        return;
    }
    for (size_t i = 0; i < out->events_count; i++) {
        struct replica_event *e = &c->events[c->count++];

        e->index = index;
        e->at_ms = out->now_ms;
        e->event = out->events[i];
        (void) strncpy(e->worker_id, out->events[i].worker_id, sizeof(e->worker_id) - 1);
        e->worker_id[sizeof(e->worker_id) - 1] = '\0';
        e->event.worker_id = e->worker_id;
    }
    ev->added = true;
}

uint64_t replica_events_oldest(const struct replica *r) {
    return r->events.oldest;
}

int replica_events_read(const struct replica *r, uint64_t after_index,
                        const struct replica_event **ret_events, size_t max, size_t *ret_count,
                        uint64_t *ret_index) {
    const struct event_chunk *c = r->events.head;
    size_t first = 0, end;

    *ret_count = 0;
    *ret_index = r->events.oldest;
    if (after_index < r->events.oldest)
        return 1;
    while (c && c->events[c->count - 1].index <= after_index)
        c = c->next;
    *ret_index = MAX(after_index, fsm_applied_index(r->fsm));
    if (!c)
        return 0;
    for (size_t hi = c->count; first < hi;) { /* first event behind the cursor */
        size_t mid = (first + hi) / 2;

        if (c->events[mid].index <= after_index)
            first = mid + 1;
        else
            hi = mid;
    }
    end = c->count;
    if (end - first > max) {
        end = first + MAX(max, 1UL);
        while (end > first && c->events[end - 1].index == c->events[end].index)
            end--;        /* do not split an index ... */
        if (end == first) /* ... but give at least one whole index */
            for (end = first + 1; end < c->count && c->events[end].index == c->events[first].index;
                 end++)
                continue;
    }
    *ret_events = &c->events[first];
    *ret_count = end - first;
    if (end < c->count || c->next)
        *ret_index = c->events[end - 1].index;
    return 0;
}

void replica_listen(struct replica *r, struct replica_listener *l) {
    l->prev = NULL;
    l->next = r->events.listeners;
    if (l->next)
        l->next->prev = l;
    r->events.listeners = l;
}

void replica_unlisten(struct replica *r, struct replica_listener *l) {
    if (l->prev)
        l->prev->next = l->next;
    else
        r->events.listeners = l->next;
    if (l->next)
        l->next->prev = l->prev;
    l->prev = l->next = NULL;
}

void events_notify(struct replica *r) {
    struct replica_listener *l = r->events.listeners;

    if (!r->events.added)
        return;
    r->events.added = false;
    while (l) {
        struct replica_listener *next = l->next; /* a listener may leave during its call */

        l->on_events(l->arg);
        l = next;
    }
}
