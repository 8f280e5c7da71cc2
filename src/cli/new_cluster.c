#include "cli/new_cluster.h"

#include "cli/backup_file.h"

#include "fsm/fsm.h"
#include "fsm/record.h"
#include "os/random.h"
#include "raft/raft.h"
#include "storage/meta.h"
#include "storage/wal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STATE_META_BYTES_MAX (1024U * 1024)
#define NODES_MAX 65536 /* ids are of 16 bits */
#define SEGMENT_BYTES                                                                              \
    (4U * 1024 * 1024) /* of the first; the server's setting counts from then on */
#define FILES_MAX 4096
#define NAME_BYTES_MAX 64

int new_cluster_ids(struct new_cluster *n) {
    struct random_os random;
    int rc = random_os_init(&random);

    for (size_t i = 0; rc == 0 && i < 16; i += sizeof(uint64_t)) {
        /* Never all zero: that means none. */
        uint64_t a = random_os_next(&random) | 1, b = random_os_next(&random) | 1;

        memcpy(n->cluster_id + i, &a, sizeof(a));
        memcpy(n->disk + i, &b, sizeof(b));
    }
    return rc;
}

int new_cluster_mark(const struct disk *disk, struct errtext *reterr) {
    struct disk_file *file = NULL;
    int rc = disk->ops->open(disk->ctx, NEW_CLUSTER_MARKER, DISK_CREATE, &file);

    if (rc == 0)
        rc = disk->ops->datasync(disk->ctx, file);
    if (file)
        disk->ops->close(disk->ctx, file);
    if (rc == 0)
        rc = disk->ops->sync_dir(disk->ctx);
    if (rc < 0)
        errtext_set(reterr, "cannot create the file " NEW_CLUSTER_MARKER ": %s", err_name(rc));
    return rc;
}

int new_cluster_unmark(const struct disk *disk, struct errtext *reterr) {
    int rc = disk->ops->unlink(disk->ctx, NEW_CLUSTER_MARKER);

    if (rc == 0)
        rc = disk->ops->sync_dir(disk->ctx);
    if (rc < 0)
        errtext_set(reterr, "cannot remove the file " NEW_CLUSTER_MARKER ": %s", err_name(rc));
    return rc;
}

/* ---- state --------------------------------------------------------------------------------- */

struct rewrite {
    struct kv *kv;
    struct new_cluster *n;
    struct buf old;                         /* bytes of the state's head */
    Chronos__Internal__V1__StateMeta *meta; /* owned */
    struct backup_counts change;            /* of the digest */
    struct kv_op *ops;                      /* owned, and so are the keys of the first `deletes` */
    size_t count, cap;
    struct buf node, local, head;
    struct bytes *config; /* owned */
};

static void rewrite_done(struct rewrite *w) {
    for (size_t i = 0; i < w->count; i++) {
        if (w->ops[i].del)
            free((void *) (uintptr_t) w->ops[i].key.data);
    }
    free(w->ops);
    if (w->meta) {
        if (w->config)
            w->meta->config = (ProtobufCBinaryData){0}; /* points into it */
        chronos__internal__v1__state_meta__free_unpacked(w->meta, NULL);
    }
    buf_done(&w->old);
    buf_done(&w->node);
    buf_done(&w->local);
    buf_done(&w->head);
    bytes_unref(w->config);
}

static int add_op(struct rewrite *w, struct kv_op op) {
    if (w->count == w->cap) {
        size_t cap = w->cap ? 2 * w->cap : 16;
        struct kv_op *ops = reallocarray(w->ops, cap, sizeof(*ops));

        if (!ops)
            return -ENOMEM;
        w->ops = ops;
        w->cap = cap;
    }
    w->ops[w->count++] = op;
    return 0;
}

static int read_head(struct rewrite *w, struct errtext *reterr) {
    int rc = w->kv->ops->get(w->kv, slice_of("m", 1), &w->old);

    if (rc < 0)
        return rc;
    if (rc == 0)
        w->meta = chronos__internal__v1__state_meta__unpack(NULL, w->old.len, w->old.data);
    if (rc == KV_NOT_FOUND || !w->meta) {
        errtext_set(reterr, rc == KV_NOT_FOUND ? "the state is empty"
                                               : "the head of the state cannot be decoded");
        return ERR_CORRUPT;
    }
    if (w->meta->version != FSM_COMMAND_VERSION) {
        errtext_set(reterr, "the state is of version %u; this program knows %d", w->meta->version,
                    FSM_COMMAND_VERSION);
        return ERR_VERSION;
    }
    w->n->index = w->meta->applied_index;
    w->n->term = w->meta->applied_term;
    return 0;
}

/* The old cluster's nodes are nobody here, and their ids are free. */
static int drop_nodes(struct rewrite *w) {
    struct kv_iter *it = NULL;
    int rc = w->kv->ops->iter_open(w->kv, &it);

    if (rc < 0)
        return rc;
    for (it->ops->seek(it, slice_of("n", 1)); rc == 0 && it->ops->valid(it); it->ops->next(it)) {
        struct slice key = it->ops->key(it);
        uint8_t *copy;

        if (key.len == 0 || key.data[0] != 'n' || w->count == NODES_MAX)
            break;
        backup_count(&w->change, key, it->ops->value(it), -1);
        copy = malloc(key.len);
        if (!copy)
            rc = -ENOMEM;
        else {
            memcpy(copy, key.data, key.len);
            rc = add_op(w, (struct kv_op){.key = slice_of(copy, key.len), .del = true});
            if (rc < 0)
                free(copy);
        }
    }
    if (rc == 0)
        rc = it->ops->status(it);
    it->ops->close(it);
    return rc;
}

static int put_node(struct rewrite *w, uint8_t key_bytes[RECORD_NODE_KEY_BYTES]) {
    const struct new_cluster *n = w->n;
    struct record_node rec = {
        .node_id = n->node_id,
        .disk = slice_of(n->disk, sizeof(n->disk)),
        .peer_address = slice_of(n->peer_address, strlen(n->peer_address)),
        .client_address = slice_of(n->client_address, strlen(n->client_address)),
        .feature_max = FSM_FEATURE_LEVEL_MAX,
    };
    struct slice key = record_node_key(n->node_id, key_bytes);
    int rc = record_encode(&record_shape_node, &rec, &w->node);

    if (rc < 0)
        return rc;
    backup_count(&w->change, key, slice_of(w->node.data, w->node.len), +1);
    return add_op(w, (struct kv_op){.key = key, .value = slice_of(w->node.data, w->node.len)});
}

static int put_local(struct rewrite *w) {
    Chronos__Internal__V1__LocalRecord l = CHRONOS__INTERNAL__V1__LOCAL_RECORD__INIT;
    static const uint8_t key = FSM_LOCAL_KEY;
    int rc;

    l.installed_index = w->n->index;
    l.installed_term = w->n->term;
    rc = buf_reserve(&w->local, chronos__internal__v1__local_record__get_packed_size(&l));
    if (rc < 0)
        return rc;
    w->local.len = chronos__internal__v1__local_record__pack(&l, w->local.data);
    return add_op(w, (struct kv_op){.key = slice_of(&key, 1),
                                    .value = slice_of(w->local.data, w->local.len)});
}

static int put_head(struct rewrite *w) {
    struct raft_config config = {.count = 1};
    Chronos__Internal__V1__StateMeta *m = w->meta;
    uint64_t before = m->digest_low;
    int rc;

    config.members[0].id = w->n->node_id;
    config.members[0].flags = RAFT_MEMBER_VOTER;
    (void) snprintf(config.members[0].address, sizeof(config.members[0].address), "%s",
                    w->n->peer_address);
    w->config = raft_config_encode(&config);
    if (!w->config)
        return -ENOMEM;
    m->digest_low += w->change.state.low;
    m->digest_high += w->change.state.high + (m->digest_low < before);
    free(m->config.data);
    m->config = (ProtobufCBinaryData){.len = w->config->len, .data = w->config->data};
    m->config_index = m->applied_index;
    rc = buf_reserve(&w->head, chronos__internal__v1__state_meta__get_packed_size(m));
    if (rc < 0)
        return rc;
    w->head.len = chronos__internal__v1__state_meta__pack(m, w->head.data);
    return add_op(
        w, (struct kv_op){.key = slice_of("m", 1), .value = slice_of(w->head.data, w->head.len)});
}

int new_cluster_state(struct kv *kv, struct new_cluster *n, struct errtext *reterr) {
    uint8_t key[RECORD_NODE_KEY_BYTES];
    struct rewrite w = {.kv = kv, .n = n};
    int rc;

    buf_init(&w.old, STATE_META_BYTES_MAX);
    buf_init(&w.node, STATE_META_BYTES_MAX);
    buf_init(&w.local, STATE_META_BYTES_MAX);
    buf_init(&w.head, STATE_META_BYTES_MAX);
    rc = read_head(&w, reterr);
    if (rc == 0)
        rc = drop_nodes(&w);
    if (rc == 0)
        rc = put_node(&w, key);
    if (rc == 0)
        rc = put_local(&w);
    if (rc == 0)
        rc = put_head(&w);
    if (rc == 0)
        rc = kv->ops->write(kv, w.ops, w.count);
    if (rc == 0)
        rc = kv->ops->flush(kv);
    if (rc < 0 && reterr && !reterr->s[0])
        errtext_set(reterr, "the state store: %s", err_name(rc));
    rewrite_done(&w);
    return rc;
}

/* ---- files --------------------------------------------------------------------------------- */

struct file_names {
    char names[FILES_MAX][NAME_BYTES_MAX];
    size_t count;
};

static int note_old(void *arg, const char *name) {
    struct file_names *f = arg;

    if (strncmp(name, "wal-", 4) != 0 && strncmp(name, "spare-", 6) != 0 &&
        strcmp(name, "meta") != 0 && strcmp(name, "meta-copy") != 0)
        return 0;
    if (f->count == FILES_MAX || strlen(name) >= NAME_BYTES_MAX)
        return ERR_LIMIT;
    (void) snprintf(f->names[f->count++], NAME_BYTES_MAX, "%s", name);
    return 0;
}

/* The meta file first: a server must not start on a part of the log. */
static int remove_old(const struct disk *disk) {
    struct file_names *f = calloc(1, sizeof(*f));
    int rc = f ? disk->ops->list(disk->ctx, note_old, f) : -ENOMEM;

    for (int pass = 0; rc == 0 && pass < 2; pass++) {
        for (size_t i = 0; rc == 0 && i < f->count; i++) {
            if ((strcmp(f->names[i], "meta") == 0) == (pass == 0))
                rc = disk->ops->unlink(disk->ctx, f->names[i]);
        }
        if (rc == 0)
            rc = disk->ops->sync_dir(disk->ctx);
    }
    free(f);
    return rc;
}

static int no_record(void *arg, const struct wal_record *rec) {
    (void) arg;
    (void) rec;
    return ERR_CORRUPT; /* the log is new */
}

static int begin_log(const struct disk *disk, const struct new_cluster *n, struct errtext *reterr) {
    struct wal_options o = {.segment_bytes = SEGMENT_BYTES, .spare_segments = 0};
    struct wal *wal = NULL;
    int rc;

    memcpy(o.identity.cluster_id, n->cluster_id, sizeof(o.identity.cluster_id));
    o.identity.node_id = n->node_id;
    rc = wal_open(disk, &o, no_record, NULL, &wal, reterr);
    if (rc == 0)
        rc = wal_reset(wal, n->index, n->term, reterr);
    (void) wal_close(wal);
    return rc;
}

int new_cluster_files(const struct disk *disk, const struct new_cluster *n,
                      struct errtext *reterr) {
    struct meta_state st = {.node_id = n->node_id, .term = n->term};
    struct meta *meta = NULL;
    int rc = remove_old(disk);

    if (rc < 0) {
        errtext_set(reterr, "the old log cannot be removed: %s", err_name(rc));
        return rc;
    }
    rc = begin_log(disk, n, reterr);
    if (rc < 0)
        return rc;
    memcpy(st.cluster_id, n->cluster_id, sizeof(st.cluster_id));
    memcpy(st.incarnation, n->disk, sizeof(st.incarnation));
    rc = meta_create(disk, &st, &meta, reterr);
    (void) meta_close(meta);
    return rc;
}
