/* The model of jobs: entries, keys, drains and lookups. See job_model.h. */
#include "sim/job_model.h"

#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#define BODY(x) CHRONOS__INTERNAL__V1__LOG_COMMAND__BODY_##x
#define DAY_MS (24LL * 3600 * 1000)
#define SPEC_BYTES_MAX (1024UL * 1024)
#define NAME_BYTES_MAX 128
#define REQUEST_BYTES_MAX 64
#define DRAIN_MS_MAX (7 * DAY_MS)

struct job_model *job_model_new(size_t keys_max) {
    struct job_model *m = calloc(1, sizeof(*m));

    if (!m)
        return NULL;
    m->next_seq = m->oldest_live = 1;
    m->keys_max = keys_max;
    return m;
}

struct job_model *job_model_free(struct job_model *m) {
    struct u64map_slot *x;
    size_t pos = 0;

    if (!m)
        return NULL;
    while ((x = u64map_next(&m->jobs, &pos))) {
        struct jm_job *j = x->value;

        free(j->versions);
        free(j);
    }
    for (pos = 0; (x = u64map_next(&m->definitions, &pos));)
        free(x->value);
    while (m->workers) {
        struct jm_worker *w = m->workers;

        m->workers = w->next;
        free(w);
    }
    while (m->keys_first) {
        struct jm_key *k = m->keys_first;

        m->keys_first = k->next;
        free(k);
    }
    u64map_done(&m->keys);
    u64map_done(&m->jobs);
    u64map_done(&m->definitions);
    u64map_done(&m->reports);
    free(m->nodes);
    free(m->outputs);
    free(m->events);
    free(m->results);
    free(m);
    return NULL;
}

uint64_t job_model_hash(const void *data, size_t len) {
    return XXH3_64bits(data, len) | 1;
}

static uint64_t text_hash(const char *s) {
    return job_model_hash(s, strlen(s));
}

/* ---- keys ------------------------------------------------------------------------------------ */

static void drop_oldest_key(struct job_model *m) {
    struct jm_key *k = m->keys_first;

    m->keys_first = k->next;
    if (!m->keys_first)
        m->keys_last = NULL;
    m->keys_count--;
    (void) u64map_del(&m->keys, k->name_hash);
    free(k);
}

/* C19: remembered for 24 hours, and not more than so many, the oldest first. */
static const struct jm_key *find_key(struct job_model *m, uint64_t name_hash) {
    while (m->keys_first && m->now_ms - m->keys_first->created_ms >= DAY_MS)
        drop_oldest_key(m);
    return u64map_get(&m->keys, name_hash);
}

static void keep_key(struct job_model *m, uint64_t name_hash, uint64_t request_hash, uint64_t seq) {
    struct jm_key *k = calloc(1, sizeof(*k));

    while (k && m->keys_first && m->keys_count >= m->keys_max)
        drop_oldest_key(m);
    if (!k || u64map_put(&m->keys, name_hash, k) < 0) {
        free(k);
        m->no_memory = true;
        return;
    }
    *k = (struct jm_key){
        .name_hash = name_hash, .request_hash = request_hash, .seq = seq, .created_ms = m->now_ms};
    if (m->keys_last)
        m->keys_last->next = k;
    else
        m->keys_first = k;
    m->keys_last = k;
    m->keys_count++;
}

/* ---- submits --------------------------------------------------------------------------------- */

static bool acceptable(const Chronos__Internal__V1__SubmitJobItem *x) {
    return x->spec.len <= SPEC_BYTES_MAX && strlen(x->queue) <= NAME_BYTES_MAX &&
           strlen(x->idempotency_key) <= NAME_BYTES_MAX && x->request_hash.len <= REQUEST_BYTES_MAX;
}

static struct jm_result submit(struct job_model *m, const Chronos__Internal__V1__SubmitJobItem *x) {
    uint64_t name = text_hash(x->idempotency_key);
    uint64_t request = job_model_hash(x->request_hash.data, x->request_hash.len);
    const struct jm_key *k;
    struct jm_job *j;

    if (!acceptable(x))
        return (struct jm_result){.code = FSM_REFUSED};
    k = x->idempotency_key[0] ? find_key(m, name) : NULL;
    if (k && k->seq == 0)
        return (struct jm_result){.code = FSM_KEY_CONFLICT};
    if (k)
        return (struct jm_result){
            .code = k->request_hash == request ? FSM_EXISTING : FSM_KEY_CONFLICT, .seq = k->seq};
    j = jm_create(m, x->max_attempts);
    if (!j)
        return (struct jm_result){0};
    j->spec_hash = job_model_hash(x->spec.data, x->spec.len);
    j->queue_hash = text_hash(x->queue);
    if (x->idempotency_key[0])
        keep_key(m, name, request, j->seq);
    return (struct jm_result){.code = FSM_OK, .seq = j->seq};
}

/* ---- drains ---------------------------------------------------------------------------------- */

static struct jm_node *find_node(const struct job_model *m, uint64_t id) {
    for (size_t i = 0; i < m->nodes_count; i++)
        if (m->nodes[i].id == id)
            return &m->nodes[i];
    return NULL;
}

bool job_model_drains(const struct job_model *m, const struct jm_worker *w, int64_t *ret_until_ms) {
    const struct jm_node *n = find_node(m, w->node_id);
    bool through_node = n && n->draining;

    *ret_until_ms = w->draining ? w->drain_until_ms : 0;
    if (through_node)
        *ret_until_ms = w->draining ? MIN(w->drain_until_ms, n->drain_until_ms) : n->drain_until_ms;
    return w->draining || through_node;
}

/* C36 */
static struct jm_result drain(struct job_model *m, const Chronos__Internal__V1__Drain *x) {
    struct jm_node *n = find_node(m, x->node_id);
    struct jm_worker *w = (struct jm_worker *) (uintptr_t) job_model_worker(m, x->worker_id);
    int64_t until_ms = 0;

    if ((x->node_id == 0) == (x->worker_id[0] == '\0') ||
        (x->on && (x->timeout_ms < 0 || x->timeout_ms > DRAIN_MS_MAX)))
        return (struct jm_result){.code = FSM_REFUSED};
    if (x->on)
        until_ms = m->now_ms <= INT64_MAX - x->timeout_ms ? m->now_ms + x->timeout_ms : INT64_MAX;
    if (x->node_id != 0 ? !n : !w)
        return (struct jm_result){.code = FSM_NOT_FOUND};
    if (x->node_id != 0 && !n->member && x->on)
        return (struct jm_result){.code = FSM_REFUSED};
    if (x->node_id != 0) {
        n->draining = x->on;
        n->drain_until_ms = until_ms;
    } else {
        w->draining = x->on;
        w->drain_until_ms = until_ms;
    }
    return (struct jm_result){.code = FSM_OK};
}

/* ---- schedules ------------------------------------------------------------------------------- */

static void define(struct job_model *m, const Chronos__Internal__V1__LogCommand *c,
                   uint64_t schedule_seq) {
    struct jm_definition *d = u64map_get(&m->definitions, schedule_seq);
    const Chronos__Internal__V1__PutSchedule *p = c->put_schedule;

    if (c->body_case != BODY(PUT_SCHEDULE)) {
        jm_wrong(m, "a definition without a command");
        return;
    }
    if (!d) {
        d = calloc(1, sizeof(*d));
        if (!d || u64map_put(&m->definitions, schedule_seq, d) < 0) {
            free(d);
            m->no_memory = true;
            return;
        }
    }
    *d = (struct jm_definition){.seq = schedule_seq,
                                .max_attempts = p->max_attempts,
                                .spec_hash = job_model_hash(p->job.data, p->job.len),
                                .queue_hash = text_hash(p->queue)};
}

static void create_run(struct job_model *m, const struct jm_hint *h) {
    const struct jm_definition *d = u64map_get(&m->definitions, h->schedule_seq);
    struct jm_job *j;

    if (!d || h->seq != m->next_seq) {
        jm_wrong(m, "run %llu of schedule %llu: the next job is %llu", (unsigned long long) h->seq,
                 (unsigned long long) h->schedule_seq, (unsigned long long) m->next_seq);
        return;
    }
    j = jm_create(m, d->max_attempts);
    if (!j)
        return;
    j->spec_hash = d->spec_hash;
    j->queue_hash = d->queue_hash;
    j->schedule_seq = h->schedule_seq;
    j->generation = h->generation;
    j->tick_s = h->tick_s;
    j->tick_reason = h->reason;
}

static void follow(struct job_model *m, const Chronos__Internal__V1__LogCommand *c) {
    while (m->hints_at < m->hints_count && m->hints[m->hints_at].kind != JM_RUN_ENDED) {
        const struct jm_hint *h = &m->hints[m->hints_at++];

        if (h->kind == JM_RUN_CREATED)
            create_run(m, h);
        else if (h->kind == JM_DEFINED && c)
            define(m, c, h->schedule_seq);
        else if (h->kind == JM_KEY_TAKEN && c)
            m->next_seq++;
        else if (h->kind == JM_RUN_CANCELLED)
            (void) jm_cancel_run(m, h->seq, h->kill);
        else
            jm_wrong(m, "a hint that does not belong here");
    }
}

void jm_follow_hints(struct job_model *m) {
    follow(m, NULL);
}

/* A key that names a schedule is refused to jobs. */
static void keep_schedule_key(struct job_model *m, const Chronos__Internal__V1__LogCommand *c,
                              uint64_t next_before) {
    const char *key = c->body_case == BODY(PUT_SCHEDULE)   ? c->put_schedule->idempotency_key
                      : c->body_case == BODY(RUN_SCHEDULE) ? c->run_schedule->idempotency_key
                                                           : "";

    if (key[0] && m->next_seq > next_before && !find_key(m, text_hash(key)))
        keep_key(m, text_hash(key), 0, 0);
}

/* ---- entries --------------------------------------------------------------------------------- */

static void *room(struct job_model *m, void *array, size_t count, size_t *cap, size_t item_bytes) {
    size_t bigger = MAX(*cap * 2, (size_t) 64);
    void *grown;

    if (count < *cap)
        return array;
    bigger = MAX(bigger, count + 1);
    grown = realloc(array, bigger * item_bytes);
    if (!grown) {
        m->no_memory = true;
        return array;
    }
    memset((char *) grown + *cap * item_bytes, 0, (bigger - *cap) * item_bytes);
    *cap = bigger;
    return grown;
}

static void answer(struct job_model *m, struct jm_result r) {
    m->results = room(m, m->results, m->results_count, &m->results_cap, sizeof(*m->results));
    if (!m->no_memory)
        m->results[m->results_count++] = r;
}

static void command(struct job_model *m, const Chronos__Internal__V1__LogCommand *c) {
    uint64_t next_before = m->next_seq;

    switch (c->body_case) {
    case BODY(SUBMIT_JOB):
        for (size_t i = 0; i < c->submit_job->n_items; i++)
            answer(m, submit(m, c->submit_job->items[i]));
        break;
    case BODY(ASSIGN_JOB):
        for (size_t i = 0; i < c->assign_job->n_items; i++)
            answer(m, jm_assign(m, c->assign_job->items[i]));
        break;
    case BODY(REGISTER_WORKER):
        for (size_t i = 0; i < c->register_worker->n_items; i++)
            answer(m, jm_register(m, c->register_worker->items[i]));
        break;
    case BODY(UPDATE_JOB_STATUS):
        answer(m, jm_update(m, c->update_job_status));
        break;
    case BODY(BATCH_UPDATE_JOB_STATUS):
        for (size_t i = 0; i < c->batch_update_job_status->n_items; i++)
            answer(m, jm_update(m, c->batch_update_job_status->items[i]));
        break;
    case BODY(CANCEL_JOB):
        for (size_t i = 0; i < c->cancel_job->n_items; i++)
            answer(m, jm_cancel(m, c->cancel_job->items[i]->job_seq));
        break;
    case BODY(LOSE_WORKER):
        for (size_t i = 0; i < c->lose_worker->n_items; i++)
            answer(m, jm_lose(m, c->lose_worker->items[i]));
        break;
    case BODY(DRAIN):
        answer(m, drain(m, c->drain));
        break;
    case BODY(PUT_SCHEDULE):
    case BODY(DELETE_SCHEDULE):
    case BODY(PAUSE_SCHEDULE):
    case BODY(PROCESS_TICKS):
    case BODY(RUN_SCHEDULE):
        follow(m, c);
        keep_schedule_key(m, c, next_before);
        break;
    case BODY(SET_NODE):
    case BODY(SET_FEATURE_LEVEL):
    case BODY(SET_SCHEDULE_ALARM):
    case BODY(_NOT_SET):
    case _CHRONOS__INTERNAL__V1__LOG_COMMAND__BODY__CASE_IS_INT_SIZE:
        break;
    }
}

static struct jm_output *begin(struct job_model *m, uint64_t index) {
    ASSERT(index == m->index + 1);
    m->outputs = room(m, m->outputs, index, &m->outputs_cap, sizeof(*m->outputs));
    if (m->no_memory)
        return NULL;
    m->index = index;
    m->outputs[index] =
        (struct jm_output){.first_event = m->events_count, .first_result = m->results_count};
    return &m->outputs[index];
}

static bool end(struct job_model *m, struct jm_output *o) {
    o->events = m->events_count - o->first_event;
    o->results = m->results_count - o->first_result;
    o->now_ms = m->now_ms;
    return !m->no_memory && !m->wrong[0];
}

bool job_model_apply(struct job_model *m, uint64_t index,
                     const Chronos__Internal__V1__LogCommand *c, const struct jm_hint *hints,
                     size_t hints_count) {
    struct jm_output *o = begin(m, index);

    if (!o)
        return false;
    m->hints = hints;
    m->hints_count = hints_count;
    m->hints_at = 0;
    if (c) {
        if (c->now_ms <= INT64_MAX) /* J7: logical time never goes back */
            m->now_ms = MAX(m->now_ms, (int64_t) c->now_ms);
        o->kind = (int) c->body_case;
        command(m, c);
    } else {
        m->term_began = index;
    }
    if (m->hints_at < m->hints_count)
        jm_wrong(m, "schedules do more than the entry explains: kind %d job %llu",
                 (int) m->hints[m->hints_at].kind, (unsigned long long) m->hints[m->hints_at].seq);
    return end(m, o);
}

bool job_model_config(struct job_model *m, uint64_t index, const uint64_t *ids, size_t count) {
    struct jm_output *o = begin(m, index);

    if (!o)
        return false;
    for (size_t i = 0; i < m->nodes_count; i++)
        m->nodes[i].member = false;
    for (size_t i = 0; i < count; i++) {
        struct jm_node *n = find_node(m, ids[i]);

        if (!n) {
            m->nodes = room(m, m->nodes, m->nodes_count, &m->nodes_cap, sizeof(*m->nodes));
            if (m->no_memory)
                return false;
            n = &m->nodes[m->nodes_count++];
            *n = (struct jm_node){.id = ids[i]};
        }
        n->member = true;
    }
    return end(m, o);
}

/* ---- looking in ------------------------------------------------------------------------------ */

const struct jm_job *job_model_find(const struct job_model *m, uint64_t seq) {
    return u64map_get(&m->jobs, seq);
}

const struct jm_version *job_model_at(const struct job_model *m, uint64_t seq, uint64_t index) {
    const struct jm_job *j = job_model_find(m, seq);
    const struct jm_version *v = NULL;

    for (size_t i = 0; j && i < j->versions_count && j->versions[i].index <= index; i++)
        v = &j->versions[i];
    return v;
}

const struct jm_output *job_model_output(const struct job_model *m, uint64_t index) {
    return index > 0 && index <= m->index ? &m->outputs[index] : NULL;
}

const struct jm_worker *job_model_worker(const struct job_model *m, const char *id) {
    const struct jm_worker *w = m->workers;

    while (w && strcmp(w->id, id) != 0)
        w = w->next;
    return w;
}
