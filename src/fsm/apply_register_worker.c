/* RegisterWorker.
 *
 * "A worker that reconnects presents what it runs; the answer per attempt is adopt or kill" (C27).
 * The attempts it still holds stay its own, whichever node it now talks to; every other attempt
 * assigned to it died with the process that held it and is lost at once, without waiting for the
 * lease (C29: the same attempt is never started twice).
 *
 * So a registration that comes late, or twice, is dangerous: its list misses what was assigned
 * since, which would be given to another while it runs. Hence the order of one process's hellos is
 * in the entry; of two processes, neither replaces a registration that its node had not seen. */
#include "fsm/fsm_internal.h"

#include <errno.h>

static bool acceptable(const struct item_register *s, struct slice raw) {
    return s->worker_id.len > 0 && s->worker_id.len <= FSM_WORKER_ID_BYTES_MAX &&
           !memchr(s->worker_id.data, 0, s->worker_id.len) && s->slots > 0 &&
           s->slots <= FSM_WORKER_SLOTS_MAX && raw.len > 0;
}

/* The held attempts as a map from job to token. A job named twice keeps the larger token. The
 * tokens live in f->arena. */
static int read_held(struct fsm *f, struct apply *a, struct slice raw, struct u64map *held,
                     size_t *ret_facts_bytes) {
    struct wire_reader reader = wire_reader_of(raw);
    struct wire_field field;
    struct item_held h;
    size_t at = 0;
    int r;

    *ret_facts_bytes = 0;
    while (wire_next(&reader, &field) == 0) {
        uint64_t *token;

        if (field.number == 5 || field.number == RECORD_WORKER_LABELS)
            *ret_facts_bytes += field.bytes.len + 16;
        if (field.number != ITEM_REGISTER_HELD)
            continue;
        r = record_decode(&record_shape_held, field.bytes, &h, &at);
        if (r < 0) {
            errtext_set(a->err, "RegisterWorker: a held attempt is malformed at byte %zu", at);
            return r;
        }
        token = u64map_get(held, h.job_seq);
        if (token) {
            *token = MAX(*token, h.fencing_token);
            continue;
        }
        token = arena_alloc(&f->arena, sizeof(*token));
        if (!token || u64map_put(held, h.job_seq, token) < 0)
            return -ENOMEM;
        *token = h.fencing_token;
    }
    return 0;
}

static int lose_unheld(struct fsm *f, struct apply *a, struct fsm_worker *w,
                       const struct u64map *held) {
    struct fsm_job *j = w->first_job;

    while (j) {
        struct fsm_job *next = j->worker_next;
        const uint64_t *token = u64map_get(held, j->seq);
        int r;

        ASSERT(j->worker == w);
        if (!token || *token != j->fencing_token) {
            r = jobs_lose(f, a, j);
            if (r < 0)
                return r;
        }
        j = next;
    }
    return 0;
}

/* At the limit the worker lost for longest makes room. False: all are live. */
static bool forget_one(struct fsm *f, int *ret_error) {
    struct fsm_worker *oldest = NULL;
    struct overlay_entry *e;

    for (struct fsm_worker *w = f->workers_first; w; w = w->next)
        if (w->lost && (!oldest || w->registered_index < oldest->registered_index))
            oldest = w;
    if (!oldest)
        return false;
    ASSERT(oldest->running == 0);
    *ret_error = workers_open_record(f, slice_of(oldest->id, strlen(oldest->id)), &e);
    if (*ret_error < 0)
        return true;
    store_delete(f, e);
    workers_remove(f, oldest);
    return true;
}

/* What became of the worker since the hello was said. */
enum hello_order { HELLO_NEW, HELLO_AGAIN, HELLO_LATE };

static enum hello_order hello_order(const struct fsm_worker *w, const struct item_register *s) {
    if (w->incarnation == s->incarnation && s->hello != 0 && w->hello != 0) {
        if (s->hello > w->hello)
            return HELLO_NEW;
        return s->hello == w->hello ? HELLO_AGAIN : HELLO_LATE;
    }
    return s->applied_index != 0 && s->applied_index < w->registered_index ? HELLO_LATE : HELLO_NEW;
}

static int register_item(struct fsm *f, struct apply *a, const struct item_register *s,
                         struct slice raw, const struct u64map *held, struct fsm_result *res) {
    struct fsm_worker *w = workers_find(f, s->worker_id);
    enum hello_order order = w ? hello_order(w, s) : HELLO_NEW;
    int r = 0;

    if (order != HELLO_NEW) { /* again: the same answer, and what came in between stays */
        res->code = order == HELLO_AGAIN ? FSM_OK : FSM_STALE;
        return 0;
    }
    if (!w && f->workers.count >= FSM_WORKERS_MAX && !forget_one(f, &r)) {
        res->code = FSM_REFUSED;
        return 0;
    }
    if (r < 0)
        return r;
    if (!w)
        w = workers_new(f, s->worker_id);
    if (!w)
        return -ENOMEM;
    r = lose_unheld(f, a, w, held);
    if (r < 0)
        return r;
    ASSERT(!w->lost || w->running == 0);
    w->incarnation = s->incarnation;
    w->node_id = s->node_id;
    w->slots = s->slots; /* may be fewer than are running: then it gets nothing until they end */
    w->lost = false;
    w->registered_index = a->index;
    w->hello = s->hello;
    /* Its own draining outlives its process; its node may be another one now. */
    workers_refresh_drain(f, w);
    f->output.workers_changed = true;
    res->code = FSM_OK;
    return workers_put(f, a, w, raw);
}

int apply_register_worker(struct fsm *f, struct apply *a, const void *item, struct slice raw,
                          struct fsm_result *res) {
    const struct item_register *s = item;
    struct u64map held;
    size_t facts_bytes;
    int r;

    ASSERT(s);
    ASSERT(res);
    u64map_init(&held);
    r = read_held(f, a, raw, &held, &facts_bytes);
    if (r == 0) {
        if (!acceptable(s, raw) || facts_bytes > FSM_WORKER_FACTS_BYTES_MAX)
            res->code = FSM_REFUSED;
        else
            r = register_item(f, a, s, raw, &held, res);
    }
    u64map_done(&held);
    return r;
}
