/* Views: the whole state as it was at one moment, read in pieces on the bulk thread.
 *
 * A view holds a kv iterator, so it costs what the store needs to keep old versions, not a copy. An
 * install takes the store away from under it: the view is told so and never reads the new one.
 * Thread: the loop; view_run alone is on the bulk thread and touches only its own view. */
#include "node/replica_internal.h"

#include "base/codec.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define VIEW_BYTES_MAX (2UL * SNAPSHOT_PAYLOAD_BYTES_MAX + SNAPSHOT_HEADER_BYTES_MAX)

struct replica_view {
    struct replica_view *prev, *next;
    struct replica *replica;
    struct kv_iter *it; /* owned; NULL once the store is gone */
    struct snapshot_writer writer;
    struct buf out; /* the header at first, then what was read */
    uint64_t index;
    uint64_t records, records_read; /* of the state, nearly; at the end of the last read */
    struct disk_job job;
    bool reading;
    bool closed;
    size_t bytes_wanted;
    int result;
    replica_view_fn done;
    void *arg;
};

size_t snapshot_block_len(struct slice in) {
    uint64_t len;

    if (in.len < SNAPSHOT_BLOCK_HEADER_BYTES)
        return 0;
    len = (uint64_t) get_le32(in.data + 16) + SNAPSHOT_BLOCK_HEADER_BYTES;
    return len <= in.len ? (size_t) len : 0;
}

static void iter_end(struct replica_view *v) {
    if (v->it)
        v->it->ops->close(v->it);
    v->it = NULL;
}

static int header_write(struct replica *r, struct replica_view *v) {
    Chronos__Internal__V1__SnapshotHeader h = CHRONOS__INTERNAL__V1__SNAPSHOT_HEADER__INIT;
    struct slice config = fsm_config(r->fsm, &h.config_index);
    uint8_t digest[16], *packed;
    size_t len;
    int rc;

    fsm_digest(r->fsm, digest);
    h.version = 1;
    h.cluster_id.data = r->o.cluster_id;
    h.cluster_id.len = sizeof(r->o.cluster_id);
    h.index = fsm_applied_index(r->fsm);
    h.term = fsm_applied_term(r->fsm);
    h.config.data = (uint8_t *) (uintptr_t) config.data; /* packing reads only */
    h.config.len = config.len;
    h.digest_low = get_le64(digest);
    h.digest_high = get_le64(digest + 8);
    h.node_id = r->o.id;
    h.created_at_ms = r->env.clock.wall(r->env.clock.ctx).ms;
    h.feature_level = fsm_feature_level(r->fsm);
    h.software = r->version;
    for (int st = CHRONOS__V1__JOB_STATE__JOB_STATE_PENDING;
         st <= CHRONOS__V1__JOB_STATE__JOB_STATE_CANCELLED; st++)
        h.jobs += fsm_jobs_count(r->fsm, (Chronos__V1__JobState) st);
    v->index = h.index;
    v->records = fsm_records_count(r->fsm);
    len = chronos__internal__v1__snapshot_header__get_packed_size(&h);
    packed = malloc(len);
    if (!packed)
        return -ENOMEM;
    (void) chronos__internal__v1__snapshot_header__pack(&h, packed);
    rc = snapshot_header_encode(&v->out, slice_of(packed, len));
    free(packed);
    return rc;
}

int replica_view_open(struct replica *r, struct replica_view **ret) {
    struct replica_view *v;
    int rc;

    if (r->failed)
        return r->failed;
    if (r->snapshots.views_count >= VIEWS_MAX || snapshots_installing(&r->snapshots))
        return -EBUSY;
    v = calloc(1, sizeof(*v));
    if (!v)
        return -ENOMEM;
    v->replica = r;
    buf_init(&v->out, VIEW_BYTES_MAX);
    rc = fsm_write_back(r->fsm);
    if (rc == 0)
        rc = header_write(r, v);
    if (rc == 0)
        rc = r->kv->ops->iter_open(r->kv, &v->it);
    if (rc < 0) {
        buf_done(&v->out);
        free(v);
        return rc;
    }
    snapshot_writer_begin(&v->writer, v->it, FSM_LOCAL_KEY);
    v->writer.chunk_bytes = r->o.snapshot_chunk_bytes;
    v->next = r->snapshots.views;
    if (v->next)
        v->next->prev = v;
    r->snapshots.views = v;
    r->snapshots.views_count++;
    *ret = v;
    return 0;
}

/* Bulk thread. */
static void view_run(struct disk_job *job) {
    struct replica_view *v = CONTAINER_OF(job, struct replica_view, job);

    v->result = v->it ? 0 : ERR_CLOSED;
    while (v->result == 0 && !v->writer.done && v->out.len < v->bytes_wanted)
        v->result = snapshot_writer_next(&v->writer, &v->out);
}

static void view_free(struct replica_view *v) {
    struct snapshots *s = &v->replica->snapshots;

    if (v->prev)
        v->prev->next = v->next;
    else
        s->views = v->next;
    if (v->next)
        v->next->prev = v->prev;
    s->views_count--;
    iter_end(v);
    buf_done(&v->out);
    free(v);
}

static void view_done(struct disk_job *job) {
    struct replica_view *v = CONTAINER_OF(job, struct replica_view, job);
    struct replica *r = v->replica;

    struct buf lent = v->out;

    v->reading = false;
    v->records_read = v->writer.records;
    r->disk_jobs--;
    r->wants_turn = true;
    r->now = r->env.clock.mono(r->env.clock.ctx);
    buf_init(&v->out, VIEW_BYTES_MAX); /* the callee may read on, or close, from its callback */
    if (v->closed)
        view_free(v);
    else if (v->result < 0)
        v->done(v->arg, v->result, slice_of(NULL, 0), false);
    else
        v->done(v->arg, 0, slice_of(lent.data, lent.len), v->writer.done);
    buf_done(&lent);
}

void replica_view_next(struct replica_view *v, size_t bytes, replica_view_fn done, void *arg) {
    struct replica *r = v->replica;

    ASSERT(!v->reading);
    ASSERT(!v->closed);
    if (r->snapshots.install.state == INSTALL_DURABLE)
        iter_end(v); /* the install waits for the last reader */
    v->bytes_wanted = bytes;
    v->done = done;
    v->arg = arg;
    v->reading = true;
    v->job = (struct disk_job){.run = view_run, .done = view_done};
    r->disk_jobs++;
    r->env.bulk_queue.submit(r->env.bulk_queue.ctx, &v->job);
}

uint64_t replica_view_index(const struct replica_view *v) {
    return v->index;
}

unsigned view_percent(const struct replica_view *v) {
    return v->records > 0 ? (unsigned) MIN(v->records_read * 100 / v->records, 99UL) : 0;
}

struct replica_view *replica_view_close(struct replica_view *v) {
    if (!v)
        return NULL;
    v->closed = true;
    if (!v->reading)
        view_free(v);
    return NULL;
}

bool views_reading(const struct replica *r) {
    for (const struct replica_view *v = r->snapshots.views; v; v = v->next)
        if (v->reading)
            return true;
    return false;
}

/* Each reader learns at its next read. */
void views_invalidate(struct replica *r) {
    for (struct replica_view *v = r->snapshots.views; v; v = v->next) {
        ASSERT(!v->reading);
        iter_end(v);
        buf_clear(&v->out);
    }
}
