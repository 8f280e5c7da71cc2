/* Receiving the state from the leader.
 *
 * Blocks are checked and written into the store's stage on the bulk thread, one message at a time
 * and in order; what is acknowledged is written, so the leader sends no faster than this disk takes
 * it. With the last block the whole stream is known to be whole, the fact of the install is put
 * beside it, and raft decides whether it is still wanted. Until then the old state serves.
 * One transfer at a time: a newer one replaces it. Nothing from the network is trusted: a block
 * that does not check ends the transfer, never the node.
 * Thread: the loop; receive_run is on the bulk thread and owns the job's part of the struct. */
#include "node/replica_internal.h"

#include "base/codec.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define QUEUED_BYTES_MAX (16UL * 1024 * 1024)
#define CODE_RESOURCE_EXHAUSTED 8
#define CODE_FAILED_PRECONDITION 9
#define CODE_DATA_LOSS 15
#define FIELD_SNAPSHOT_ACK 11

/* ---- bulk thread ----------------------------------------------------------------------------- */

static int take_header_fields(struct receive *x, const Chronos__Internal__V1__SnapshotHeader *h) {
    const struct replica *r = x->replica;

    if (h->version != 1 || h->feature_level > features_max(r)) {
        errtext_set(&x->error, "snapshot of version %u, feature level %u: this program is too old",
                    h->version, h->feature_level);
        return ERR_VERSION;
    }
    if (h->cluster_id.len != sizeof(r->o.cluster_id) ||
        memcmp(h->cluster_id.data, r->o.cluster_id, sizeof(r->o.cluster_id)) != 0) {
        errtext_set(&x->error, "snapshot of another cluster");
        return ERR_FOREIGN;
    }
    if (h->index == 0 || h->term == 0 || h->config_index > h->index || h->config.len == 0) {
        errtext_set(&x->error, "snapshot header: index, term and config expected");
        return ERR_CORRUPT;
    }
    x->index = h->index;
    x->index_term = h->term;
    x->config_index = h->config_index;
    put_le64(x->digest, h->digest_low);
    put_le64(x->digest + 8, h->digest_high);
    return raft_config_decode(slice_of(h->config.data, h->config.len), &x->config, &x->error);
}

static int take_header(struct receive *x, const struct snapshot_block *b) {
    struct kv *kv = x->replica->kv;
    Chronos__Internal__V1__SnapshotHeader *h =
        chronos__internal__v1__snapshot_header__unpack(NULL, b->payload.len, b->payload.data);
    int rc;

    if (!h) {
        errtext_set(&x->error, "snapshot header: malformed");
        return ERR_CORRUPT;
    }
    rc = take_header_fields(x, h);
    chronos__internal__v1__snapshot_header__free_unpacked(h, NULL);
    if (rc < 0)
        return rc;
    snapshot_reader_end(&x->reader);
    snapshot_reader_begin(&x->reader);
    x->staged = true;
    return kv->ops->stage_begin(kv);
}

/* This store's own fact, so that a start after a crash can tell an install from a lost log. */
static int write_installed(struct receive *x) {
    Chronos__Internal__V1__LocalRecord rec = CHRONOS__INTERNAL__V1__LOCAL_RECORD__INIT;
    static const uint8_t key[] = {FSM_LOCAL_KEY};
    uint8_t packed[64];
    struct kv *kv = x->replica->kv;
    struct kv_op op = {.key = {.data = key, .len = sizeof(key)}};

    rec.installed_index = x->index;
    rec.installed_term = x->index_term;
    ASSERT(chronos__internal__v1__local_record__get_packed_size(&rec) <= sizeof(packed));
    op.value = slice_of(packed, chronos__internal__v1__local_record__pack(&rec, packed));
    return kv->ops->stage_write(kv, &op, 1);
}

static int take_chunk(struct receive *x, const struct snapshot_block *b) {
    struct kv *kv = x->replica->kv;
    struct kv_op *ops = NULL;
    size_t n = 0;
    int rc;

    rc = snapshot_reader_take(&x->reader, b, &ops, &n, &x->error);
    if (rc == 0 && n > 0)
        rc = kv->ops->stage_write(kv, ops, n);
    free(ops);
    if (rc == 0 && x->reader.done) {
        rc = write_installed(x);
        x->complete = rc == 0;
    }
    return rc;
}

static int take_blocks(struct receive *x, const struct receive_piece *p) {
    struct slice in = slice_of(p->data, p->len);

    for (uint64_t seq = p->sequence; in.len > 0; seq++) {
        struct snapshot_block b = {0};
        size_t used = 0;
        int rc = snapshot_block_parse(in, &b, &used, &x->error);

        if (rc < 0)
            return rc;
        if (rc == SNAPSHOT_MORE || b.sequence != seq || x->complete ||
            (seq == 0) != (b.kind == SNAPSHOT_BLOCK_HEADER)) {
            errtext_set(&x->error, "snapshot block %llu: cut off or out of place",
                        (unsigned long long) seq);
            return ERR_CORRUPT;
        }
        rc = seq == 0 ? take_header(x, &b) : take_chunk(x, &b);
        if (rc < 0)
            return rc;
        in = slice_of(in.data + used, in.len - used);
    }
    return 0;
}

static void receive_run(struct disk_job *job) {
    struct receive *x = CONTAINER_OF(job, struct receive, job);
    struct kv *kv = x->replica->kv;

    x->error.s[0] = '\0';
    if (x->piece) {
        x->result = take_blocks(x, x->piece);
        return;
    }
    kv->ops->stage_drop(kv); /* many files: not on the loop */
    x->staged = false;
    x->result = 0;
}

/* ---- loop ------------------------------------------------------------------------------------ */

static void receive_done(struct disk_job *job);

static void job_start(struct receive *x, struct receive_piece *piece) {
    struct replica *r = x->replica;

    ASSERT(!x->busy);
    x->busy = true;
    x->piece = piece;
    x->job = (struct disk_job){.run = receive_run, .done = receive_done};
    r->disk_jobs++;
    r->env.bulk_queue.submit(r->env.bulk_queue.ctx, &x->job);
}

static void drop_queue(struct receive *x) {
    while (x->head) {
        struct receive_piece *p = x->head;

        x->head = p->next;
        free(p);
    }
    x->tail = NULL;
    x->queued_bytes = 0;
}

static void write_next(struct receive *x) {
    struct receive_piece *p = x->head;

    if (x->busy || !p)
        return;
    x->head = p->next;
    if (!x->head)
        x->tail = NULL;
    x->queued_bytes -= p->len;
    job_start(x, p);
}

/* The transfer is over here. @keep_stage: an install owns it now. */
static void receive_end(struct receive *x, bool keep_stage) {
    ASSERT(!x->busy);
    drop_queue(x);
    snapshot_reader_end(&x->reader);
    x->active = x->abandoned = x->complete = false;
    if (keep_stage)
        x->staged = false;
    else if (x->staged)
        job_start(x, NULL);
}

static void send_ack(struct replica *r, uint64_t to, uint64_t term, uint64_t transfer,
                     uint64_t next_sequence, uint32_t code, const char *message) {
    Chronos__Internal__V1__SnapshotAck ack = CHRONOS__INTERNAL__V1__SNAPSHOT_ACK__INIT;

    ack.term = term;
    ack.transfer = transfer;
    ack.next_sequence = next_sequence;
    ack.code = code;
    ack.message = (char *) (uintptr_t) message; /* packing reads only */
    peers_queue_field(r, to, FIELD_SNAPSHOT_ACK, &ack.base);
}

static void ack_progress(struct receive *x) {
    send_ack(x->replica, x->from, x->term, x->transfer, x->written_next, 0, "");
}

/* Raft takes it or finds that it is not needed any more. */
static void hand_over(struct receive *x) {
    struct replica *r = x->replica;
    struct raft_event ev = {.type = RAFT_EV_INSTALL};
    const struct raft_effects *eff = NULL;
    bool accepted;

    ev.install.leader = x->from;
    ev.install.term = x->term;
    ev.install.session = x->session;
    ev.install.index = x->index;
    ev.install.index_term = x->index_term;
    ev.install.config = &x->config;
    ev.install.config_index = x->config_index;
    memcpy(r->snapshots.install.digest, x->digest, sizeof(x->digest));
    accepted = replica_step(r, &ev, &eff) == 0 && eff->install_index != 0;
    log_info(r->env.log, "snapshot received", "from=%llu index=%llu accepted=%d",
             (unsigned long long) x->from, (unsigned long long) x->index, accepted);
    receive_end(x, accepted);
}

/* A reason that is the transfer's, not this node's: the leader is told and asks again later. */
static uint32_t refusal_code(int rc) {
    switch (rc) {
    case -ENOSPC:
    case -EDQUOT:
    case -ENOMEM:
        return CODE_RESOURCE_EXHAUSTED;
    case ERR_CORRUPT:
    case ERR_PROTO:
        return CODE_DATA_LOSS;
    case ERR_FOREIGN:
    case ERR_VERSION:
        return CODE_FAILED_PRECONDITION;
    default:
        return 0;
    }
}

static void written(struct receive *x, const struct receive_piece *p) {
    struct replica *r = x->replica;
    uint32_t code = x->result < 0 ? refusal_code(x->result) : 0;

    if (x->result < 0 && code == 0) {
        replica_fail(r, x->result, "state store: writing a snapshot: %s", err_name(x->result));
    } else if (x->result < 0) {
        const char *why = x->error.s[0] ? x->error.s : err_name(x->result);

        log_warn(r->env.log, "a snapshot was refused", "from=%llu reason=\"%s\"",
                 (unsigned long long) x->from, why);
        send_ack(r, x->from, x->term, x->transfer, 0, code, why);
        receive_end(x, false);
    } else {
        x->written_next += p->blocks;
        ack_progress(x);
        if (x->complete)
            hand_over(x);
    }
}

static void receive_done(struct disk_job *job) {
    struct receive *x = CONTAINER_OF(job, struct receive, job);
    struct replica *r = x->replica;
    struct receive_piece *p = x->piece;

    x->busy = false;
    x->piece = NULL;
    r->disk_jobs--;
    r->wants_turn = true;
    r->now = r->env.clock.mono(r->env.clock.ctx);
    if (x->abandoned)
        receive_end(x, false);
    else if (p && !r->failed)
        written(x, p);
    free(p);
    if (!r->failed)
        write_next(x);
}

/* Blocks in @in, or 0 when it is not a run of whole ones. */
static uint64_t count_blocks(struct slice in) {
    uint64_t n = 0;

    while (in.len > 0) {
        size_t len = snapshot_block_len(in);

        if (len == 0)
            return 0;
        in = slice_of(in.data + len, in.len - len);
        n++;
    }
    return n;
}

/* A transfer not seen before. False: not now; the leader sends again. */
static bool begin(struct replica *r, uint64_t from,
                  const Chronos__Internal__V1__SnapshotBlocks *m) {
    struct receive *x = &r->receive;

    if (x->busy) {
        x->abandoned = x->active;
        return false;
    }
    if (m->sequence != 0) { /* this process has not seen its beginning */
        send_ack(r, from, m->term, m->transfer, 0, 0, "");
        return false;
    }
    drop_queue(x);
    x->replica = r;
    x->active = true;
    x->complete = false;
    x->from = from;
    x->term = m->term;
    x->session = m->session;
    x->transfer = m->transfer;
    x->queued_next = x->written_next = 0;
    log_info(r->env.log, "receiving a snapshot", "from=%llu transfer=%llu",
             (unsigned long long) from, (unsigned long long) m->transfer);
    return true;
}

static bool is_current(const struct receive *x, uint64_t from,
                       const Chronos__Internal__V1__SnapshotBlocks *m) {
    return x->active && !x->abandoned && x->from == from && x->term == m->term &&
           x->transfer == m->transfer;
}

static int enqueue(struct receive *x, const Chronos__Internal__V1__SnapshotBlocks *m) {
    struct receive_piece *p = malloc(sizeof(*p) + m->data.len);

    if (!p)
        return -ENOMEM; /* as if it had been lost on the way */
    p->next = NULL;
    p->sequence = m->sequence;
    p->blocks = count_blocks(slice_of(m->data.data, m->data.len));
    p->len = m->data.len;
    memcpy(p->data, m->data.data, m->data.len);
    if (x->tail)
        x->tail->next = p;
    else
        x->head = p;
    x->tail = p;
    x->queued_bytes += p->len;
    x->queued_next += p->blocks;
    return 0;
}

void receive_on_blocks(struct replica *r, uint64_t from,
                       const Chronos__Internal__V1__SnapshotBlocks *m) {
    struct receive *x = &r->receive;

    if (m->term != raft_term(r->raft) || from != raft_leader(r->raft) ||
        snapshots_installing(&r->snapshots))
        return;
    if (count_blocks(slice_of(m->data.data, m->data.len)) == 0) {
        r->bad_messages++;
        return;
    }
    if (!is_current(x, from, m) && !begin(r, from, m))
        return;
    if (m->sequence > x->queued_next || m->sequence < x->written_next) {
        ack_progress(x); /* a gap; or the acknowledgement was lost */
        return;
    }
    if (m->sequence < x->queued_next || x->queued_bytes + m->data.len > QUEUED_BYTES_MAX)
        return; /* it waits here already; or the leader does not know its window */
    if (enqueue(x, m) == 0)
        write_next(x);
}

/* What a deposed leader began nobody will finish. */
void receive_turn(struct replica *r) {
    struct receive *x = &r->receive;

    if (!x->active || x->term == raft_term(r->raft))
        return;
    if (x->busy)
        x->abandoned = true;
    else
        receive_end(x, false);
}

void receive_free(struct replica *r) {
    struct receive *x = &r->receive;

    ASSERT(!x->busy);
    drop_queue(x);
    snapshot_reader_end(&x->reader);
}
