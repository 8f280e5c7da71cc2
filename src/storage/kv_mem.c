/* See kv_mem.h: a table with an undo log of the batches not yet flushed, and a second table for
 * what is staged.
 *
 * A table that an iterator looks at is never changed: the writer copies it first.
 * Invariant: undo holds, per unflushed batch, what each of its operations replaced, in order. */
#include "storage/kv_mem.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "storage/kv_table.h"

#define KV_BATCHES_MAX (1U << 24)

/* What one operation replaced. */
struct undo {
    struct bytes *key;   /* owned reference */
    struct bytes *value; /* owned reference; NULL: the key was absent */
    uint32_t crc;        /* of the record it was: damage does not heal by an undo */
};

struct batch {
    struct undo *undos; /* owned */
    size_t count;
};

struct kv_mem {
    struct kv kv;
    struct kv_table *table; /* owned reference */
    struct kv_table *stage; /* owned reference; NULL: nothing staged */
    bool committed;         /* stage is durable and what a crash leaves */
    struct batch *batches;  /* owned; not flushed yet, oldest first */
    size_t batches_count;
    size_t batches_cap;
    size_t auto_flush;
    size_t iters_open;
};

struct kv_mem_iter {
    struct kv_iter it;
    struct kv_mem *m;       /* borrowed; counts us */
    struct kv_table *table; /* owned reference */
    const struct kv_node *at;
    int status;
};

static struct kv_mem *kv_mem_of(const struct kv *kv) {
    return CONTAINER_OF(kv, struct kv_mem, kv);
}

static void batch_done(struct batch *b) {
    for (size_t i = 0; i < b->count; i++) {
        bytes_unref(b->undos[i].key);
        bytes_unref(b->undos[i].value);
    }
    free(b->undos);
    *b = (struct batch){0};
}

static void drop_undo(struct kv_mem *m) {
    for (size_t i = 0; i < m->batches_count; i++)
        batch_done(&m->batches[i]);
    m->batches_count = 0;
}

static int kv_mem_get(struct kv *kv, struct slice key, struct buf *out) {
    const struct kv_node *n = kv_table_get(kv_mem_of(kv)->table, key, NULL);

    ASSERT(out);
    if (!n)
        return KV_NOT_FOUND;
    if (!kv_node_intact(n))
        return ERR_CORRUPT;
    return buf_append(out, n->value->data, n->value->len);
}

/* Everything a batch can need, allocated before its first change: all or nothing, also when memory
 * is out. nodes[i] belongs to operation i; a deletion has none. */
struct prepared {
    struct batch batch;
    struct kv_node **nodes;
    size_t count;
};

static void prepared_done(struct prepared *p) {
    for (size_t i = 0; p->nodes && i < p->count; i++)
        kv_node_free(p->nodes[i]);
    free(p->nodes);
    batch_done(&p->batch);
}

static int prepare(struct kv_table *t, const struct kv_op *ops, size_t n, struct prepared *p) {
    p->batch.undos = (struct undo *) calloc(MAX(n, (size_t) 1), sizeof(*p->batch.undos));
    p->nodes = (struct kv_node **) calloc(MAX(n, (size_t) 1), sizeof(struct kv_node *));
    if (!p->batch.undos || !p->nodes)
        return -ENOMEM;
    p->batch.count = n;
    p->count = n;
    for (size_t i = 0; i < n; i++) {
        _cleanup_(bytes_unrefp) struct bytes *value = NULL;

        p->batch.undos[i].key = bytes_copy(ops[i].key.data, ops[i].key.len);
        if (!p->batch.undos[i].key)
            return -ENOMEM;
        if (ops[i].del)
            continue;
        value = bytes_copy(ops[i].value.data, ops[i].value.len);
        if (!value)
            return -ENOMEM;
        p->nodes[i] = kv_table_node(t, p->batch.undos[i].key, value);
        if (!p->nodes[i])
            return -ENOMEM;
    }
    return 0;
}

static void apply(struct kv_table *t, struct prepared *p) {
    struct kv_node *before[KV_TABLE_LEVELS_MAX];

    for (size_t i = 0; i < p->count; i++) {
        struct undo *u = &p->batch.undos[i];
        struct kv_node *old = kv_table_get(t, bytes_slice(u->key), before);

        u->value = old ? bytes_ref(old->value) : NULL;
        u->crc = old ? old->crc : 0;
        if (old && p->nodes[i])
            kv_table_set(t, old, p->nodes[i]->value);
        else if (old)
            kv_table_remove(t, old, before);
        else if (p->nodes[i])
            kv_table_link(t, TAKE_PTR(p->nodes[i]), before);
    }
}

/* Before a change: iterators keep what they see. */
static int unshare(struct kv_table **t) {
    struct kv_table *copy;

    if ((*t)->refs == 1)
        return 0;
    copy = kv_table_copy(*t);
    if (!copy)
        return -ENOMEM;
    (void) kv_table_unref(*t);
    *t = copy;
    return 0;
}

static int kv_mem_write(struct kv *kv, const struct kv_op *ops, size_t n) {
    struct kv_mem *m = kv_mem_of(kv);
    _cleanup_(prepared_done) struct prepared p = {0};
    int r;

    ASSERT(ops || n == 0);
    if (m->batches_count == KV_BATCHES_MAX)
        return ERR_LIMIT;
    if (m->batches_count == m->batches_cap) {
        size_t cap = MAX((size_t) 16, m->batches_cap * 2);
        struct batch *b = (struct batch *) realloc(m->batches, cap * sizeof(*b));

        if (!b)
            return -ENOMEM;
        m->batches = b;
        m->batches_cap = cap;
    }
    r = unshare(&m->table);
    if (r >= 0)
        r = prepare(m->table, ops, n, &p);
    if (r < 0)
        return r;
    apply(m->table, &p);
    m->batches[m->batches_count++] = p.batch;
    p.batch = (struct batch){0};
    if (m->auto_flush > 0 && m->batches_count >= m->auto_flush)
        drop_undo(m);
    return 0;
}

static int kv_mem_flush(struct kv *kv) {
    drop_undo(kv_mem_of(kv));
    return 0;
}

static int kv_mem_verify(struct kv *kv, struct errtext *reterr) {
    uint64_t nth = 0;

    if (kv_table_check(kv_mem_of(kv)->table, &nth))
        return 0;
    errtext_set(reterr, "the state store: record %" PRIu64 " does not match its checksum", nth);
    return ERR_CORRUPT;
}

static uint64_t kv_mem_disk_bytes(struct kv *kv) {
    const struct kv_mem *m = kv_mem_of(kv);

    return m->table->bytes + (m->stage ? m->stage->bytes : 0);
}

/* ---- the staged store ------------------------------------------------------------------------ */

static void kv_mem_stage_drop(struct kv *kv) {
    struct kv_mem *m = kv_mem_of(kv);

    ASSERT(!m->committed);
    m->stage = kv_table_unref(m->stage);
}

static int kv_mem_stage_begin(struct kv *kv) {
    struct kv_mem *m = kv_mem_of(kv);

    kv_mem_stage_drop(kv);
    m->stage = kv_table_new();
    return m->stage ? 0 : -ENOMEM;
}

static int kv_mem_stage_write(struct kv *kv, const struct kv_op *ops, size_t n) {
    struct kv_mem *m = kv_mem_of(kv);
    _cleanup_(prepared_done) struct prepared p = {0};
    int r;

    ASSERT(m->stage && !m->committed);
    ASSERT(ops || n == 0);
    r = prepare(m->stage, ops, n, &p);
    if (r < 0)
        return r;
    apply(m->stage, &p);
    return 0;
}

static int kv_mem_stage_commit(struct kv *kv) {
    struct kv_mem *m = kv_mem_of(kv);

    ASSERT(m->stage && !m->committed);
    m->committed = true;
    return 0;
}

/* The staged store takes the place of the other one, whose batches are gone with it. */
static void switch_to_stage(struct kv_mem *m) {
    ASSERT(m->committed);
    ASSERT(m->iters_open == 0);
    drop_undo(m);
    (void) kv_table_unref(m->table);
    m->table = TAKE_PTR(m->stage);
    m->committed = false;
}

static int kv_mem_stage_adopt(struct kv *kv) {
    switch_to_stage(kv_mem_of(kv));
    return 0;
}

static void kv_mem_close(struct kv *kv) {
    struct kv_mem *m = kv_mem_of(kv);

    ASSERT(m->iters_open == 0);
    (void) kv_table_unref(m->table);
    (void) kv_table_unref(m->stage);
    drop_undo(m);
    free(m->batches);
    free(m);
}

/* ---- iterators ------------------------------------------------------------------------------- */

static struct kv_mem_iter *iter_of(const struct kv_iter *it) {
    return CONTAINER_OF(it, struct kv_mem_iter, it);
}

static void place(struct kv_mem_iter *i, const struct kv_node *n) {
    i->status = n && !kv_node_intact(n) ? ERR_CORRUPT : 0;
    i->at = i->status < 0 ? NULL : n;
}

static void iter_seek(struct kv_iter *it, struct slice key) {
    struct kv_mem_iter *i = iter_of(it);

    place(i, kv_table_find(i->table, key, NULL));
}

static void iter_seek_before(struct kv_mem_iter *i, struct slice key) {
    struct kv_node *before[KV_TABLE_LEVELS_MAX];

    (void) kv_table_find(i->table, key, before);
    place(i, before[0] == i->table->head ? NULL : before[0]);
}

static void iter_seek_for_prev(struct kv_iter *it, struct slice key) {
    struct kv_mem_iter *i = iter_of(it);
    const struct kv_node *n = kv_table_get(i->table, key, NULL);

    if (n)
        place(i, n);
    else
        iter_seek_before(i, key);
}

static bool iter_valid(const struct kv_iter *it) {
    return iter_of(it)->at != NULL;
}

static void iter_next(struct kv_iter *it) {
    struct kv_mem_iter *i = iter_of(it);

    ASSERT(i->at);
    place(i, i->at->next[0]);
}

static void iter_prev(struct kv_iter *it) {
    struct kv_mem_iter *i = iter_of(it);

    ASSERT(i->at);
    iter_seek_before(i, bytes_slice(i->at->key));
}

static struct slice iter_key(const struct kv_iter *it) {
    ASSERT(iter_of(it)->at);
    return bytes_slice(iter_of(it)->at->key);
}

static struct slice iter_value(const struct kv_iter *it) {
    ASSERT(iter_of(it)->at);
    return bytes_slice(iter_of(it)->at->value);
}

static int iter_status(const struct kv_iter *it) {
    return iter_of(it)->status;
}

static void iter_close(struct kv_iter *it) {
    struct kv_mem_iter *i = iter_of(it);

    ASSERT(i->m->iters_open > 0);
    i->m->iters_open--;
    (void) kv_table_unref(i->table);
    free(i);
}

static int kv_mem_iter_open(struct kv *kv, struct kv_iter **ret) {
    static const struct kv_iter_ops ops = {
        .seek = iter_seek,
        .seek_for_prev = iter_seek_for_prev,
        .valid = iter_valid,
        .next = iter_next,
        .prev = iter_prev,
        .key = iter_key,
        .value = iter_value,
        .status = iter_status,
        .close = iter_close,
    };
    struct kv_mem_iter *i = (struct kv_mem_iter *) calloc(1, sizeof(*i));

    if (!i)
        return -ENOMEM;
    i->it.ops = &ops;
    i->m = kv_mem_of(kv);
    i->m->iters_open++;
    i->table = kv_table_ref(i->m->table);
    *ret = &i->it;
    return 0;
}

static const struct kv_ops kv_mem_ops = {
    .get = kv_mem_get,
    .write = kv_mem_write,
    .flush = kv_mem_flush,
    .verify = kv_mem_verify,
    .iter_open = kv_mem_iter_open,
    .stage_begin = kv_mem_stage_begin,
    .stage_write = kv_mem_stage_write,
    .stage_commit = kv_mem_stage_commit,
    .stage_adopt = kv_mem_stage_adopt,
    .stage_drop = kv_mem_stage_drop,
    .disk_bytes = kv_mem_disk_bytes,
    .close = kv_mem_close,
};

int kv_mem_new(size_t auto_flush_batches, struct kv **ret) {
    struct kv_mem *m = (struct kv_mem *) calloc(1, sizeof(*m));

    ASSERT(ret);
    if (!m)
        return -ENOMEM;
    m->table = kv_table_new();
    if (!m->table) {
        free(m);
        return -ENOMEM;
    }
    m->kv.ops = &kv_mem_ops;
    m->auto_flush = auto_flush_batches;
    *ret = &m->kv;
    return 0;
}

/* Restore what @u replaced. Nothing is allocated for an absent key; for a deleted one a node is. */
static void undo_one(struct kv_mem *m, struct undo *u) {
    struct kv_node *before[KV_TABLE_LEVELS_MAX];
    struct kv_node *n = kv_table_get(m->table, bytes_slice(u->key), before);

    if (n && u->value) {
        kv_table_set(m->table, n, u->value);
        n->crc = u->crc;
    } else if (n) {
        kv_table_remove(m->table, n, before);
    } else if (u->value) {
        n = kv_table_node(m->table, u->key, u->value);
        /* A simulated power cut has no way to fail; only tests and the simulator come here. */
        ASSERT(n);
        n->crc = u->crc;
        kv_table_link(m->table, n, before);
    }
}

void kv_mem_crash(struct kv *kv, size_t keep_unflushed) {
    struct kv_mem *m = kv_mem_of(kv);

    ASSERT(kv->ops == &kv_mem_ops);
    ASSERT(m->iters_open == 0);
    if (m->committed) {
        switch_to_stage(m);
        return;
    }
    kv_mem_stage_drop(kv);
    while (m->batches_count > keep_unflushed) {
        struct batch *b = &m->batches[--m->batches_count];

        for (size_t i = b->count; i-- > 0;)
            undo_one(m, &b->undos[i]);
        batch_done(b);
    }
    drop_undo(m);
}

size_t kv_mem_unflushed(const struct kv *kv) {
    ASSERT(kv->ops == &kv_mem_ops);
    return kv_mem_of(kv)->batches_count;
}

bool kv_mem_staged(const struct kv *kv) {
    ASSERT(kv->ops == &kv_mem_ops);
    return kv_mem_of(kv)->stage != NULL;
}

bool kv_mem_stage_committed(const struct kv *kv) {
    ASSERT(kv->ops == &kv_mem_ops);
    return kv_mem_of(kv)->committed;
}

bool kv_mem_damage(struct kv *kv, uint64_t nth) {
    const struct kv_table *t = kv_mem_of(kv)->table;
    struct kv_node *n = t->head->next[0];
    uint64_t count = 0;

    ASSERT(kv->ops == &kv_mem_ops);
    for (const struct kv_node *c = n; c; c = c->next[0])
        count++;
    if (count == 0)
        return false;
    for (nth %= count; nth > 0; nth--)
        n = n->next[0];
    if (n->value->len > 0)
        n->value->data[n->value->len / 2] ^= 1;
    else
        n->crc ^= 1;
    return true;
}
