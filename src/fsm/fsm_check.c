/* Recounting what is derived from the records (J17), for tests and the simulator.
 *
 * A difference is a bug of this program, so it is an assertion. The store itself must be readable:
 * this is not the place where corruption is found.
 * Thread: the loop. */
#include "fsm/schedule_internal.h"

struct recount {
    fsm_u128 digest;
    uint64_t counts[JOB_STATE_COUNT];
    uint64_t keys;
    uint64_t workers;
    uint64_t nodes;
    struct schedules_recount schedules;
};

static void check_job(const struct fsm *f, uint64_t seq, const struct record_job *rec) {
    const struct fsm_job *j = u64map_get(&f->jobs, seq);

    ASSERT(seq < f->next_seq);
    if (job_state_is_terminal((Chronos__V1__JobState) rec->state)) {
        ASSERT(!j);
        return;
    }
    ASSERT(j);
    ASSERT(j->seq == seq);
    ASSERT((int32_t) j->state == rec->state);
    ASSERT(j->attempt == rec->attempt);
    ASSERT(j->max_attempts == rec->max_attempts);
    ASSERT(j->fencing_token == rec->fencing_token);
    ASSERT(j->cancel_requested == rec->cancel_requested);
    ASSERT(j->kill == rec->kill);
    ASSERT(rec->lost_attempts < rec->max_attempts);
    ASSERT(!(j->cancel_requested && j->state == S_PENDING));
    if (j->state == S_RUNNING) {
        ASSERT(j->worker);
        ASSERT(!j->worker->lost);
        ASSERT(strlen(j->worker->id) == rec->worker_id.len);
        ASSERT(memcmp(j->worker->id, rec->worker_id.data, rec->worker_id.len) == 0);
    }
}

static void check_worker(const struct fsm *f, struct slice id, const struct record_worker *rec) {
    const struct fsm_worker *w = workers_find(f, id);

    ASSERT(w);
    ASSERT(w->incarnation == rec->incarnation);
    ASSERT(w->slots == rec->slots);
    ASSERT(w->node_id == rec->node_id);
    ASSERT(w->lost == rec->lost);
    ASSERT(w->registered_index == rec->registered_index);
    ASSERT(w->hello == rec->hello);
    ASSERT(w->own_draining == rec->draining);
    ASSERT(w->own_drain_until_ms == rec->drain_until_ms);
}

static void check_node_record(const struct fsm *f, uint64_t id, const struct record_node *rec) {
    const struct fsm_node *n = nodes_find(f, id);

    ASSERT(n);
    ASSERT(rec->node_id == id);
    ASSERT(n->bound == (rec->disk.len == RECORD_DISK_BYTES));
    ASSERT(!n->bound || memcmp(n->disk, rec->disk.data, RECORD_DISK_BYTES) == 0);
    ASSERT(strlen(n->peer_address) == rec->peer_address.len);
    ASSERT(strlen(n->client_address) == rec->client_address.len);
    ASSERT(n->feature_max == rec->feature_max);
    ASSERT(n->draining == rec->draining);
    ASSERT(n->drain_until_ms == rec->drain_until_ms);
    ASSERT(n->removed == rec->removed);
}

/* @hashed: key, 0x00, value. */
static void count_record(const struct fsm *f, struct recount *c, struct slice key,
                         struct slice hashed) {
    struct slice value = slice_of(hashed.data + key.len + 1, hashed.len - key.len - 1);
    struct record_job job;
    struct record_worker worker;
    struct record_node node;
    size_t at;
    int r;

    if (key.data[0] == 'm' || key.data[0] == FSM_LOCAL_KEY)
        return;
    c->digest += store_digest(hashed);
    if (key.data[0] == 'j') {
        r = record_decode(&record_shape_job, value, &job, &at);
        ASSERT(r == 0);
        ASSERT(job.state > 0);
        ASSERT(job.state < JOB_STATE_COUNT);
        c->counts[job.state]++;
        check_job(f, get_be64(key.data + 1), &job);
        schedules_check_job(f, &c->schedules, &job);
    } else if (key.data[0] == 'w') {
        r = record_decode(&record_shape_worker, value, &worker, &at);
        ASSERT(r == 0);
        c->workers++;
        check_worker(f, slice_of(key.data + 1, key.len - 1), &worker);
    } else if (key.data[0] == 'n') {
        r = record_decode(&record_shape_node, value, &node, &at);
        ASSERT(r == 0);
        c->nodes++;
        check_node_record(f, get_be64(key.data + 1), &node);
    } else if (key.data[0] == 's' || key.data[0] == 'i' || key.data[0] == 't') {
        schedules_check_record(f, &c->schedules, key, value);
    } else {
        ASSERT(key.data[0] == 'k');
        c->keys++;
    }
}

static void recount_all(struct fsm *f, struct recount *c) {
    struct kv_iter *it;
    int r = f->kv->ops->iter_open(f->kv, &it);

    ASSERT(r == 0);
    for (it->ops->seek(it, slice_of("", 0)); it->ops->valid(it); it->ops->next(it)) {
        struct slice key = it->ops->key(it), value = it->ops->value(it);

        if (overlay_find(&f->overlay, key))
            continue;
        buf_clear(&f->read);
        r = buf_append(&f->read, key.data, key.len);
        ASSERT(r == 0);
        r = buf_append(&f->read, "", 1);
        ASSERT(r == 0);
        r = buf_append(&f->read, value.data, value.len);
        ASSERT(r == 0);
        count_record(f, c, key, slice_of(f->read.data, f->read.len));
    }
    ASSERT(it->ops->status(it) == 0);
    it->ops->close(it);
    for (const struct overlay_entry *e = f->overlay.first; e; e = e->list_next)
        if (e->exists)
            count_record(f, c, overlay_key(e), overlay_hashed(e));
}

static void check_ready(const struct fsm *f) {
    const struct fsm_job *prev = NULL;
    uint64_t n = 0;

    for (const struct fsm_job *j = f->ready_first; j; prev = j, j = j->ready_next, n++) {
        ASSERT(j->state == S_PENDING);
        ASSERT(!j->worker);
        ASSERT(j->ready_prev == prev);
        ASSERT(!prev || prev->seq < j->seq);
    }
    ASSERT(f->ready_last == prev);
    ASSERT(n == f->counts[S_PENDING]);
}

static void check_workers(const struct fsm *f) {
    uint64_t running = 0, workers = 0;

    for (const struct fsm_worker *w = f->workers_first; w; w = w->next, workers++) {
        const struct fsm_job *prev = NULL;
        uint64_t n = 0;

        ASSERT(!w->next || strcmp(w->id, w->next->id) < 0);
        for (const struct fsm_job *j = w->first_job; j; prev = j, j = j->worker_next, n++) {
            ASSERT(j->state == S_RUNNING);
            ASSERT(j->worker == w);
            ASSERT(j->worker_prev == prev);
            ASSERT(!prev || prev->seq < j->seq);
        }
        ASSERT(w->last_job == prev);
        ASSERT(n == w->running);
        ASSERT(!w->lost || n == 0);
        running += n;
    }
    ASSERT(running == f->counts[S_RUNNING]);
    ASSERT(workers == f->workers.count);
}

/* Who drains follows from the workers' and the nodes' records. */
static void check_draining(const struct fsm *f) {
    for (const struct fsm_worker *w = f->workers_first; w; w = w->next) {
        const struct fsm_node *n = nodes_find(f, w->node_id);
        bool through_node = n && n->draining;

        ASSERT(w->draining == (w->own_draining || through_node));
        ASSERT(w->draining || w->drain_until_ms == 0);
        ASSERT(!w->own_draining || w->drain_until_ms <= w->own_drain_until_ms);
        ASSERT(!through_node || w->drain_until_ms <= n->drain_until_ms);
    }
}

/* The members of the configuration are the nodes that are not removed. */
static void check_nodes(struct fsm *f) {
    Chronos__Internal__V1__RaftConfig *c = NULL;
    size_t nodes = 0, members = 0;
    struct arena arena;
    int r = 0;

    arena_init(&arena, SIZE_MAX / 2);
    if (f->config.len > 0)
        r = config_unpack(slice_of(f->config.data, f->config.len), &arena, &c, NULL);
    ASSERT(r == 0);
    for (const struct fsm_node *n = f->nodes_first; n; n = n->next, nodes++) {
        ASSERT(!n->next || n->id < n->next->id);
        members += !n->removed;
    }
    for (size_t i = 0; c && i < c->n_members; i++) {
        const struct fsm_node *n = nodes_find(f, c->members[i]->id);

        ASSERT(n);
        ASSERT(!n->removed);
    }
    ASSERT(members == (c ? c->n_members : 0));
    ASSERT(nodes == f->nodes_count);
    arena_done(&arena);
}

void fsm_check_invariants(struct fsm *f) {
    struct recount c = {0};

    ASSERT(f);
    ASSERT(!f->failed);
    recount_all(f, &c);
    ASSERT(c.digest == f->digest);
    ASSERT(memcmp(c.counts, f->counts, sizeof(c.counts)) == 0);
    ASSERT(c.keys == f->keys_count);
    ASSERT(c.keys <= f->options.idempotency_max);
    ASSERT(c.workers == f->workers.count);
    ASSERT(c.nodes == f->nodes_count);
    check_ready(f);
    check_workers(f);
    check_draining(f);
    check_nodes(f);
    schedules_check_all(f, &c.schedules);
}
