/* Registered workers: memory, sorted by id, and their records.
 * Thread: the loop. */
#include "fsm/fsm_internal.h"

#include <stdlib.h>

struct fsm_worker *workers_find(const struct fsm *f, struct slice id) {
    ASSERT(f);
    return bytesmap_get(&f->workers, id);
}

struct fsm_worker *workers_new(struct fsm *f, struct slice id) {
    struct fsm_worker *w, **at;

    ASSERT(id.len > 0);
    ASSERT(id.len <= FSM_WORKER_ID_BYTES_MAX);
    w = calloc(1, sizeof(*w));
    if (!w)
        return NULL;
    w->id = malloc(id.len + 1);
    if (!w->id) {
        free(w);
        return NULL;
    }
    memcpy(w->id, id.data, id.len);
    w->id[id.len] = '\0';
    if (bytesmap_put(&f->workers, slice_of(w->id, id.len), w) < 0) {
        free(w->id);
        free(w);
        return NULL;
    }
    for (at = &f->workers_first; *at && strcmp((*at)->id, w->id) < 0;)
        at = &(*at)->next;
    w->next = *at;
    *at = w;
    return w;
}

void workers_remove(struct fsm *f, struct fsm_worker *w) {
    struct fsm_worker **at = &f->workers_first;
    void *was;

    ASSERT(w->running == 0);
    while (*at != w)
        at = &(*at)->next;
    *at = w->next;
    was = bytesmap_del(&f->workers, slice_of(w->id, strlen(w->id)));
    ASSERT(was == w);
    free(w->id);
    free(w);
}

void workers_free_all(struct fsm *f) {
    ASSERT(f);
    while (f->workers_first) {
        struct fsm_worker *w = f->workers_first;

        f->workers_first = w->next;
        free(w->id);
        free(w);
    }
    bytesmap_done(&f->workers);
}

int workers_open_record(struct fsm *f, struct slice id, struct overlay_entry **ret) {
    uint8_t key[RECORD_KEY_BYTES_MAX];

    ASSERT(id.len > 0);
    return store_open(f, record_name_key('w', id, key), ret);
}

int workers_put(struct fsm *f, struct apply *a, const struct fsm_worker *w, struct slice source) {
    struct record_worker rec = {0};
    struct wire_reader reader = wire_reader_of(source);
    struct overlay_entry *e;
    struct wire_field field;
    size_t at;
    uint8_t *p;
    int r;

    ASSERT(a);
    /* Only what a registration and a record have in common. The registration was decoded before,
     * the record comes from the store. */
    if (wire_decode(source, record_shape_worker.table, RECORD_WORKER_LABELS + 1, &rec, &at) < 0) {
        errtext_set(a->err, "record of worker %s: malformed at byte %zu", w->id, at);
        return ERR_CORRUPT;
    }
    rec.worker_id = slice_of(w->id, strlen(w->id));
    rec.incarnation = w->incarnation;
    rec.slots = w->slots;
    rec.node_id = w->node_id;
    rec.lost = w->lost;
    rec.registered_index = w->registered_index;
    rec.draining = w->own_draining;
    rec.drain_until_ms = w->own_drain_until_ms;
    rec.hello = w->hello;
    r = record_encode(&record_shape_worker, &rec, &f->encode);
    if (r < 0)
        return r;
    /* Labels come as they are: a decoder takes fields in any order. The room is more than enough,
     * for @source holds them with their tags. */
    r = buf_reserve(&f->encode, source.len);
    if (r < 0)
        return r;
    p = f->encode.data + f->encode.len;
    while (wire_next(&reader, &field) == 0)
        if (field.number == RECORD_WORKER_LABELS && field.type == WIRE_LEN)
            p = wire_put_bytes(p, RECORD_WORKER_LABELS, field.bytes);
    ASSERT((size_t) (p - f->encode.data) <= f->encode.cap);
    f->encode.len = (size_t) (p - f->encode.data);
    r = workers_open_record(f, rec.worker_id, &e);
    if (r < 0)
        return r;
    return store_put(f, e, slice_of(f->encode.data, f->encode.len));
}

int workers_put_again(struct fsm *f, struct apply *a, const struct fsm_worker *w) {
    struct overlay_entry *e;
    struct buf old;
    int r;

    ASSERT(w);
    r = workers_open_record(f, slice_of(w->id, strlen(w->id)), &e);
    if (r < 0)
        return r;
    if (!e->exists) {
        errtext_set(a->err, "record of worker %s: missing from the store", w->id);
        return ERR_CORRUPT;
    }
    buf_init(&old, FSM_RECORD_BYTES_MAX); /* the new content is made from the old */
    r = buf_append(&old, overlay_value(e).data, overlay_value(e).len);
    if (r == 0)
        r = workers_put(f, a, w, slice_of(old.data, old.len));
    buf_done(&old);
    return r;
}

void workers_refresh_drain(const struct fsm *f, struct fsm_worker *w) {
    const struct fsm_node *n = nodes_find(f, w->node_id);

    ASSERT(w->own_draining || w->own_drain_until_ms == 0);
    w->draining = w->own_draining;
    w->drain_until_ms = w->own_drain_until_ms;
    if (!n || !n->draining)
        return;
    w->drain_until_ms = w->draining ? MIN(w->drain_until_ms, n->drain_until_ms) : n->drain_until_ms;
    w->draining = true;
}
