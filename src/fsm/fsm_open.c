/* Loading the state machine from its records.
 *
 * StateMeta tells the applied index and where the first unfinished job is: the millions of ended
 * jobs before it are not read. What is read is checked against the counters of StateMeta; a
 * difference is corruption and the node must not start on it. Thread: the loop. */
#include "fsm/schedule_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#define OVERLAY_BYTES_MAX_DEFAULT (8UL * 1024 * 1024)
#define IDEMPOTENCY_MAX_DEFAULT 1000000UL
/* No cluster comes there, and counting on from beyond would come back to 0. */
#define COUNT_MAX (UINT64_MAX / 2)

struct loader {
    struct fsm *f;
    struct kv_iter *it;
    struct errtext *err;
    uint64_t first_active_seq;
    uint64_t expected_keys;
    uint64_t expected_schedules;
    uint64_t expected[JOB_STATE_COUNT];
};

static int corrupt(struct loader *l, const char *what, uint64_t n) {
    errtext_set(l->err, "state store: %s (%" PRIu64 ")", what, n);
    return ERR_CORRUPT;
}

/* The configuration and the feature level, replicated with everything else. */
static int take_cluster(struct loader *l, const Chronos__Internal__V1__StateMeta *m) {
    Chronos__Internal__V1__RaftConfig *config;
    struct fsm *f = l->f;
    int r;

    if (m->feature_level > f->options.feature_level_max) {
        errtext_set(l->err,
                    "state store of feature level %" PRIu32
                    ": this program knows levels up to %" PRIu32,
                    m->feature_level, f->options.feature_level_max);
        return ERR_VERSION;
    }
    f->feature_level = MAX(m->feature_level, 1U);
    if ((m->config.len == 0) != (m->config_index == 0) || m->config_index > m->applied_index)
        return corrupt(l, "configuration of an impossible index", m->config_index);
    f->config_index = m->config_index;
    if (m->config.len == 0)
        return 0;
    r = buf_append(&f->config, m->config.data, m->config.len);
    if (r == 0)
        r = config_unpack(slice_of(m->config.data, m->config.len), &f->arena, &config, l->err);
    return r == ERR_PROTO ? corrupt(l, "unreadable configuration, bytes", m->config.len) : r;
}

static bool take_pause(struct fsm *f, const Chronos__Internal__V1__StateMeta *m) {
    struct schedules_pause *p = &f->schedules_pause;

    p->reason_len = strlen(m->schedules_pause_reason);
    if (p->reason_len > FSM_SCHEDULE_REASON_BYTES_MAX || m->schedules_paused_until_ms < 0 ||
        (!m->schedules_paused && m->schedules_paused_until_ms != 0))
        return false;
    memcpy(p->reason, m->schedules_pause_reason, p->reason_len + 1);
    p->paused = m->schedules_paused;
    p->until_ms = m->schedules_paused_until_ms;
    p->resumed_ms = m->schedules_resumed_ms;
    return true;
}

static int take_meta(struct loader *l, const Chronos__Internal__V1__StateMeta *m) {
    struct fsm *f = l->f;

    ASSERT(f->applied_index == 0);
    if (m->version != FSM_COMMAND_VERSION) {
        errtext_set(l->err, "state store of version %" PRIu32 ": this program knows %d", m->version,
                    FSM_COMMAND_VERSION);
        return ERR_VERSION;
    }
    if (m->n_jobs_by_state != JOB_STATE_COUNT)
        return corrupt(l, "wrong number of job counters", m->n_jobs_by_state);
    if (m->applied_index == 0 || m->applied_index > COUNT_MAX || m->next_job_seq == 0 ||
        m->next_job_seq > COUNT_MAX || m->last_schedule_seq > COUNT_MAX || m->last_now_ms < 0)
        return corrupt(l, "impossible scalars at index", m->applied_index);
    if (m->first_active_seq == 0 || m->first_active_seq > m->next_job_seq)
        return corrupt(l, "first unfinished job out of range", m->first_active_seq);
    f->applied_index = f->written_index = m->applied_index;
    f->applied_term = m->applied_term;
    f->next_seq = m->next_job_seq;
    f->last_now_ms = m->last_now_ms;
    f->digest = ((fsm_u128) m->digest_high << 64) | m->digest_low;
    for (size_t i = 0; i < JOB_STATE_COUNT; i++)
        l->expected[i] = m->jobs_by_state[i];
    l->first_active_seq = m->first_active_seq;
    l->expected_keys = m->idempotency_keys;
    l->expected_schedules = m->schedules;
    f->last_schedule_seq = m->last_schedule_seq;
    if (!take_pause(f, m))
        return corrupt(l, "impossible pause of the schedules until",
                       (uint64_t) m->schedules_paused_until_ms);
    return take_cluster(l, m);
}

/* What is this store's own; there is none unless the state came as a snapshot. */
static int load_local(struct loader *l) {
    const Chronos__Internal__V1__LocalRecord *rec;
    const char key[] = {FSM_LOCAL_KEY};
    ProtobufCMessage *m;
    struct fsm *f = l->f;
    int r;

    buf_clear(&f->read);
    r = f->kv->ops->get(f->kv, slice_of(key, sizeof(key)), &f->read);
    if (r != 0)
        return r == KV_NOT_FOUND ? 0 : r;
    arena_clear(&f->arena);
    r = store_unpack(&chronos__internal__v1__local_record__descriptor,
                     slice_of(f->read.data, f->read.len), &f->arena, &m);
    if (r < 0)
        return r == ERR_CORRUPT ? corrupt(l, "unreadable local record, bytes", f->read.len) : r;
    rec = (const Chronos__Internal__V1__LocalRecord *) (void *) m;
    if (rec->installed_index > f->applied_index || rec->installed_term > f->applied_term)
        return corrupt(l, "installed from a snapshot of a later index", rec->installed_index);
    f->installed_index = rec->installed_index;
    f->installed_term = rec->installed_term;
    return 0;
}

static int load_node(struct loader *l, struct slice key, struct slice value) {
    struct record_node rec;
    struct fsm_node *n;
    size_t at = 0;

    ASSERT(key.data[0] == 'n');
    if (record_decode(&record_shape_node, value, &rec, &at) < 0)
        return corrupt(l, "a node's record is malformed at byte", at);
    if (key.len != RECORD_NODE_KEY_BYTES || rec.node_id == 0 ||
        rec.node_id != get_be64(key.data + 1))
        return corrupt(l, "a node's record under another key, id", rec.node_id);
    if ((rec.disk.len != 0 && rec.disk.len != RECORD_DISK_BYTES) ||
        !nodes_address_ok(rec.peer_address) || !nodes_address_ok(rec.client_address) ||
        (!rec.draining && rec.drain_until_ms != 0))
        return corrupt(l, "impossible facts in the record of node", rec.node_id);
    n = nodes_new(l->f, rec.node_id);
    if (!n)
        return -ENOMEM;
    n->bound = rec.disk.len > 0;
    if (n->bound)
        memcpy(n->disk, rec.disk.data, sizeof(n->disk));
    nodes_set_peer_address(n, rec.peer_address);
    nodes_set_client_address(n, rec.client_address);
    n->feature_max = rec.feature_max;
    n->draining = rec.draining;
    n->drain_until_ms = rec.drain_until_ms;
    n->removed = rec.removed;
    return 0;
}

/* 0, or STORE_NOT_FOUND in an empty store. */
static int load_meta(struct loader *l) {
    ProtobufCMessage *m;
    struct fsm *f = l->f;
    int r;

    buf_clear(&f->read);
    r = f->kv->ops->get(f->kv, slice_of("m", 1), &f->read);
    if (r < 0)
        return r;
    if (r == KV_NOT_FOUND) {
        l->it->ops->seek(l->it, slice_of("", 0));
        if (l->it->ops->valid(l->it))
            return corrupt(l, "records without their index; key bytes", l->it->ops->key(l->it).len);
        return l->it->ops->status(l->it) < 0 ? l->it->ops->status(l->it) : STORE_NOT_FOUND;
    }
    arena_clear(&f->arena);
    r = store_unpack(&chronos__internal__v1__state_meta__descriptor,
                     slice_of(f->read.data, f->read.len), &f->arena, &m);
    if (r == ERR_CORRUPT)
        return corrupt(l, "unreadable index record, bytes", f->read.len);
    return r < 0 ? r : take_meta(l, (const Chronos__Internal__V1__StateMeta *) (void *) m);
}

static int load_worker(struct loader *l, struct slice key, struct slice value) {
    struct record_worker rec;
    struct fsm_worker *w;
    size_t at = 0;

    ASSERT(key.data[0] == 'w');
    if (record_decode(&record_shape_worker, value, &rec, &at) < 0)
        return corrupt(l, "a worker's record is malformed at byte", at);
    if (rec.worker_id.len != key.len - 1 || rec.worker_id.len == 0 ||
        rec.worker_id.len > FSM_WORKER_ID_BYTES_MAX ||
        memcmp(rec.worker_id.data, key.data + 1, rec.worker_id.len) != 0)
        return corrupt(l, "a worker's record under another key, id bytes", rec.worker_id.len);
    if (!rec.draining && rec.drain_until_ms != 0)
        return corrupt(l, "a worker that does not drain until", (uint64_t) rec.drain_until_ms);
    w = workers_new(l->f, rec.worker_id);
    if (!w)
        return -ENOMEM;
    w->incarnation = rec.incarnation;
    w->node_id = rec.node_id;
    w->slots = rec.slots;
    w->lost = rec.lost;
    w->registered_index = rec.registered_index;
    w->hello = rec.hello;
    w->own_draining = rec.draining;
    w->own_drain_until_ms = rec.drain_until_ms;
    workers_refresh_drain(l->f, w); /* nodes are loaded before */
    return 0;
}

static int load_job(struct loader *l, struct slice key, struct slice value) {
    struct fsm *f = l->f;
    struct record_job rec;
    struct fsm_job *j;
    uint64_t seq;
    size_t at = 0;

    ASSERT(key.data[0] == 'j');
    if (key.len != RECORD_JOB_KEY_BYTES)
        return corrupt(l, "a job's key has the wrong length", key.len);
    seq = get_be64(key.data + 1);
    if (seq < l->first_active_seq || seq >= f->next_seq)
        return corrupt(l, "job out of range", seq);
    if (record_decode(&record_shape_job, value, &rec, &at) < 0)
        return corrupt(l, "the record of this job is malformed", seq);
    if (job_state_is_terminal((Chronos__V1__JobState) rec.state))
        return 0;
    if (rec.state != (int32_t) S_PENDING && rec.state != (int32_t) S_RUNNING)
        return corrupt(l, "this job has no known state", seq);
    j = jobs_new(f, seq);
    if (!j)
        return -ENOMEM;
    j->state = (Chronos__V1__JobState) rec.state;
    j->attempt = rec.attempt;
    j->max_attempts = rec.max_attempts;
    j->fencing_token = rec.fencing_token;
    j->cancel_requested = rec.cancel_requested;
    j->kill = rec.kill;
    if (j->state == S_RUNNING) {
        j->worker = workers_find(f, rec.worker_id);
        if (!j->worker || j->worker->lost) {
            j->worker = NULL;
            return corrupt(l, "this job runs on a worker that is not there", seq);
        }
    }
    f->counts[j->state]++;
    jobs_link(f, j);
    return 0;
}

/* Its runs are known by now. */
static int load_schedule(struct loader *l, struct slice key, struct slice value) {
    struct schedule_work *w = &l->f->work;
    struct record_schedule rec;
    struct fsm_schedule *s;
    size_t at = 0;
    int r;

    ASSERT(key.data[0] == 's');
    if (record_decode(&record_shape_schedule, value, &rec, &at) < 0)
        return corrupt(l, "a schedule's record is malformed at byte", at);
    if (key.len != RECORD_SCHEDULE_KEY_BYTES || rec.seq == 0 || rec.seq != get_be64(key.data + 1) ||
        rec.seq > l->f->last_schedule_seq)
        return corrupt(l, "a schedule's record under another key, number", rec.seq);
    if (!schedules_name_ok(rec.name) || rec.generation == 0 || rec.version == 0 ||
        rec.overlap < (int32_t) OVERLAP(SKIP) || rec.overlap > (int32_t) OVERLAP(ALLOW) ||
        rec.first_ordinal == 0 || rec.first_ordinal > rec.next_ordinal ||
        !schedule_read_lists(w, rec.open_runs, value, &r))
        return corrupt(l, "impossible facts in the record of schedule", rec.seq);
    if (r < 0)
        return r;
    for (size_t i = 0; i < w->open_count; i++)
        if (!u64map_get(&l->f->jobs, w->open[i]))
            return corrupt(l, "an open run of a schedule has ended, job", w->open[i]);
    s = schedules_new(l->f, rec.seq);
    if (!s)
        return -ENOMEM;
    schedules_view(s, &rec, w->open_count, w->waits, w->waits_count);
    return 0;
}

static int scan_prefix(struct loader *l, struct slice from,
                       int (*each)(struct loader *l, struct slice key, struct slice value)) {
    struct kv_iter *it = l->it;
    int r;

    ASSERT(from.len > 0);
    for (it->ops->seek(it, from); it->ops->valid(it); it->ops->next(it)) {
        struct slice key = it->ops->key(it);

        if (key.len == 0 || key.data[0] != from.data[0])
            break;
        r = each(l, key, it->ops->value(it));
        if (r < 0)
            return r;
    }
    return it->ops->status(it);
}

/* ---- idempotency keys: sorted by job into the queue's order -------------------- */

struct key_ref {
    uint64_t job_seq;
    int64_t created_at_ms;
    struct slice key; /* in f->arena */
};

struct key_refs {
    struct key_ref *refs;
    size_t count, cap;
};

static int compare_refs(const void *a, const void *b) {
    const struct key_ref *x = a, *y = b;

    return (x->job_seq > y->job_seq) - (x->job_seq < y->job_seq);
}

static int collect_key(struct loader *l, struct key_refs *refs, struct slice key,
                       struct slice value) {
    struct record_key rec;
    uint8_t *copy;
    size_t at = 0;

    if (record_decode(&record_shape_key, value, &rec, &at) < 0 || rec.job_seq == 0 ||
        rec.job_seq >= l->f->next_seq || key.len < 2 || key.len > RECORD_KEY_BYTES_MAX)
        return corrupt(l, "an idempotency key's record is malformed at byte", at);
    if (refs->count == refs->cap) {
        size_t cap = refs->cap ? refs->cap * 2 : 256;
        struct key_ref *bigger = realloc(refs->refs, cap * sizeof(*bigger));

        if (!bigger)
            return -ENOMEM;
        refs->refs = bigger;
        refs->cap = cap;
    }
    copy = arena_memdup(&l->f->arena, key.data + 1, key.len - 1);
    if (!copy)
        return -ENOMEM;
    refs->refs[refs->count++] = (struct key_ref){
        .job_seq = rec.job_seq,
        .created_at_ms = rec.created_at_ms,
        .key = slice_of(copy, key.len - 1),
    };
    return 0;
}

static int collect_keys(struct loader *l, struct key_refs *refs) {
    struct kv_iter *it = l->it;
    int r;

    ASSERT(refs->count == 0);
    for (it->ops->seek(it, slice_of("k", 1)); it->ops->valid(it); it->ops->next(it)) {
        struct slice key = it->ops->key(it);

        if (key.len == 0 || key.data[0] != 'k')
            break;
        r = collect_key(l, refs, key, it->ops->value(it));
        if (r < 0)
            return r;
    }
    return it->ops->status(it);
}

static int load_keys(struct loader *l) {
    struct key_refs refs = {0};
    int r;

    arena_clear(&l->f->arena);
    r = collect_keys(l, &refs);
    if (r == 0 && refs.count > 0)
        qsort(refs.refs, refs.count, sizeof(*refs.refs), compare_refs);
    for (size_t i = 0; r == 0 && i < refs.count; i++)
        r = idem_push(&l->f->keys, refs.refs[i].created_at_ms, refs.refs[i].job_seq,
                      refs.refs[i].key);
    l->f->keys_count = refs.count;
    free(refs.refs);
    arena_clear(&l->f->arena);
    return r;
}

static int load_all(struct loader *l) {
    uint8_t key[RECORD_JOB_KEY_BYTES];
    struct fsm *f = l->f;
    int r;

    r = load_meta(l);
    if (r != 0)
        return r < 0 ? r : 0; /* an empty store: a new state machine */
    r = load_local(l);
    if (r == 0)
        r = scan_prefix(l, slice_of("n", 1), load_node);
    if (r == 0)
        r = scan_prefix(l, slice_of("w", 1), load_worker);
    if (r == 0)
        r = scan_prefix(l, record_job_key(l->first_active_seq, key), load_job);
    if (r == 0)
        r = scan_prefix(l, slice_of("s", 1), load_schedule);
    if (r == 0)
        r = load_keys(l);
    if (r < 0)
        return r;
    if (f->counts[S_PENDING] != l->expected[S_PENDING] ||
        f->counts[S_RUNNING] != l->expected[S_RUNNING])
        return corrupt(l, "unfinished jobs missing; found", f->jobs.count);
    if (f->keys_count != l->expected_keys)
        return corrupt(l, "idempotency keys missing; found", f->keys_count);
    if (f->schedules.count != l->expected_schedules)
        return corrupt(l, "schedules missing; found", f->schedules.count);
    ASSERT(f->counts[S_COMPLETED] == 0);
    memcpy(f->counts, l->expected, sizeof(f->counts));
    return 0;
}

int fsm_open(struct kv *kv, const struct fsm_options *o, struct fsm **ret, struct errtext *reterr) {
    _cleanup_(fsm_freep) struct fsm *f = NULL;
    struct loader l = {.err = reterr};
    int r;

    ASSERT(kv);
    ASSERT(ret);
    f = calloc(1, sizeof(*f));
    if (!f)
        return -ENOMEM;
    f->kv = kv;
    f->options = o ? *o : (struct fsm_options){0};
    if (!f->options.overlay_bytes_max)
        f->options.overlay_bytes_max = OVERLAY_BYTES_MAX_DEFAULT;
    if (!f->options.idempotency_max)
        f->options.idempotency_max = IDEMPOTENCY_MAX_DEFAULT;
    if (!f->options.feature_level_max)
        f->options.feature_level_max = FSM_FEATURE_LEVEL_MAX;
    f->next_seq = 1;
    f->feature_level = 1;
    overlay_init(&f->overlay);
    u64map_init(&f->jobs);
    u64map_init(&f->schedules);
    bytesmap_init(&f->workers);
    idem_init(&f->keys);
    arena_init(&f->arena, SIZE_MAX / 2); /* bounded by the size of a command */
    buf_init(&f->read, FSM_RECORD_BYTES_MAX);
    buf_init(&f->encode, FSM_RECORD_BYTES_MAX);
    buf_init(&f->config, FSM_RECORD_BYTES_MAX);
    l.f = f;
    if (reterr)
        reterr->s[0] = '\0';
    r = kv->ops->iter_open(kv, &l.it);
    if (r < 0)
        return r;
    r = load_all(&l);
    l.it->ops->close(l.it);
    /* The store itself stopped it, and says no more than this. */
    if (r < 0 && reterr && !reterr->s[0])
        errtext_set(reterr, "state store: a record cannot be read: %s", err_name(r));
    if (r < 0)
        return r;
    *ret = TAKE_PTR(f);
    return 0;
}
