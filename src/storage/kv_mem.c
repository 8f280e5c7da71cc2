/* See kv_mem.h: a skip list (Pugh 1990) with an undo log of the batches not yet flushed.
 *
 * Levels come from an own generator with a fixed seed, so two stores with the same history are
 * equal node by node. Nothing is written while an iterator is open (asserted): that is how an
 * iterator's view stays the one of its opening.
 * Invariant: undo holds, per unflushed batch, what each of its operations replaced, in order. */
#include "storage/kv_mem.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/rand.h"

#define KV_LEVELS_MAX 16U
#define KV_BATCHES_MAX (1U << 24)

struct node {
    struct bytes *key;   /* owned reference; NULL in the head */
    struct bytes *value; /* owned reference */
    uint32_t levels;
    struct node *next[]; /* borrowed, @levels of them */
};

/* What one operation replaced. */
struct undo {
    struct bytes *key;   /* owned reference */
    struct bytes *value; /* owned reference; NULL: the key was absent */
};

struct batch {
    struct undo *undos; /* owned */
    size_t count;
};

struct kv_mem {
    struct kv kv;
    struct node *head; /* owned, as all nodes */
    struct rng rng;
    struct batch *batches; /* owned; not flushed yet, oldest first */
    size_t batches_count;
    size_t batches_cap;
    size_t auto_flush;
    size_t iters_open;
};

struct kv_mem_iter {
    struct kv_iter it;
    struct kv_mem *m; /* borrowed */
    const struct node *at;
};

static struct kv_mem *kv_mem_of(const struct kv *kv) {
    return CONTAINER_OF(kv, struct kv_mem, kv);
}

static int compare(struct slice a, struct slice b) {
    size_t n = MIN(a.len, b.len);
    int c = n > 0 ? memcmp(a.data, b.data, n) : 0;

    if (c != 0)
        return c;
    return a.len < b.len ? -1 : a.len > b.len;
}

static struct node *node_new(uint32_t levels) {
    struct node *n =
        (struct node *) calloc(1, sizeof(struct node) + levels * sizeof(struct node *));

    if (n)
        n->levels = levels;
    return n;
}

static struct node *node_free(struct node *n) {
    if (n) {
        bytes_unref(n->key);
        bytes_unref(n->value);
        free(n);
    }
    return NULL;
}

/* The last node before @key on each level; returns the node after the one on level 0. */
static struct node *find(struct kv_mem *m, struct slice key, struct node **ret_before) {
    struct node *n = m->head;

    for (uint32_t level = KV_LEVELS_MAX; level-- > 0;) {
        while (n->next[level] && compare(bytes_slice(n->next[level]->key), key) < 0)
            n = n->next[level];
        if (ret_before)
            ret_before[level] = n;
    }
    return n->next[0];
}

static struct node *find_exact(struct kv_mem *m, struct slice key, struct node **ret_before) {
    struct node *n = find(m, key, ret_before);

    return n && compare(bytes_slice(n->key), key) == 0 ? n : NULL;
}

static uint32_t random_levels(struct kv_mem *m) {
    uint32_t levels = 1;

    while (levels < KV_LEVELS_MAX && rng_below(&m->rng, 4) == 0)
        levels++;
    return levels;
}

static void unlink_node(struct node *n, struct node *const *before) {
    for (uint32_t level = 0; level < n->levels; level++) {
        ASSERT(before[level]->next[level] == n);
        before[level]->next[level] = n->next[level];
    }
}

static void link_node(struct node *n, struct node *const *before) {
    for (uint32_t level = 0; level < n->levels; level++) {
        n->next[level] = before[level]->next[level];
        before[level]->next[level] = n;
    }
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
    const struct node *n = find_exact(kv_mem_of(kv), key, NULL);

    ASSERT(out);
    if (!n)
        return KV_NOT_FOUND;
    return buf_append(out, n->value->data, n->value->len);
}

/* Everything a batch can need, allocated before its first change: all or nothing, also when memory
 * is out. nodes[i] and values[i] belong to operation i; a deletion has neither. */
struct prepared {
    struct batch batch;
    struct node **nodes;
    size_t count;
};

static void prepared_done(struct prepared *p) {
    for (size_t i = 0; p->nodes && i < p->count; i++)
        node_free(p->nodes[i]);
    free(p->nodes);
    batch_done(&p->batch);
}

static int prepare(struct kv_mem *m, const struct kv_op *ops, size_t n, struct prepared *p) {
    p->batch.undos = (struct undo *) calloc(MAX(n, (size_t) 1), sizeof(*p->batch.undos));
    p->nodes = (struct node **) calloc(MAX(n, (size_t) 1), sizeof(struct node *));
    if (!p->batch.undos || !p->nodes)
        return -ENOMEM;
    p->batch.count = n;
    p->count = n;
    for (size_t i = 0; i < n; i++) {
        p->batch.undos[i].key = bytes_copy(ops[i].key.data, ops[i].key.len);
        if (!p->batch.undos[i].key)
            return -ENOMEM;
        if (ops[i].del)
            continue;
        p->nodes[i] = node_new(random_levels(m));
        if (!p->nodes[i])
            return -ENOMEM;
        p->nodes[i]->key = bytes_ref(p->batch.undos[i].key);
        p->nodes[i]->value = bytes_copy(ops[i].value.data, ops[i].value.len);
        if (!p->nodes[i]->value)
            return -ENOMEM;
    }
    return 0;
}

static void apply(struct kv_mem *m, struct prepared *p) {
    struct node *before[KV_LEVELS_MAX];

    for (size_t i = 0; i < p->count; i++) {
        struct undo *u = &p->batch.undos[i];
        struct node *old = find_exact(m, bytes_slice(u->key), before);

        u->value = old ? bytes_ref(old->value) : NULL;
        if (old && p->nodes[i]) {
            bytes_unref(old->value);
            old->value = bytes_ref(p->nodes[i]->value);
        } else if (old) {
            unlink_node(old, before);
            node_free(old);
        } else if (p->nodes[i]) {
            link_node(TAKE_PTR(p->nodes[i]), before);
        }
    }
}

static int kv_mem_write(struct kv *kv, const struct kv_op *ops, size_t n) {
    struct kv_mem *m = kv_mem_of(kv);
    _cleanup_(prepared_done) struct prepared p = {0};
    int r;

    ASSERT(ops || n == 0);
    ASSERT(m->iters_open == 0);
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
    r = prepare(m, ops, n, &p);
    if (r < 0)
        return r;
    apply(m, &p);
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

static void kv_mem_close(struct kv *kv) {
    struct kv_mem *m = kv_mem_of(kv);

    ASSERT(m->iters_open == 0);
    for (struct node *n = m->head; n;) {
        struct node *next = n->next[0];

        node_free(n);
        n = next;
    }
    drop_undo(m);
    free(m->batches);
    free(m);
}

static struct kv_mem_iter *iter_of(const struct kv_iter *it) {
    return CONTAINER_OF(it, struct kv_mem_iter, it);
}

static void iter_seek(struct kv_iter *it, struct slice key) {
    struct kv_mem_iter *i = iter_of(it);

    i->at = find(i->m, key, NULL);
}

static void iter_seek_before(struct kv_mem_iter *i, struct slice key) {
    struct node *before[KV_LEVELS_MAX];

    (void) find(i->m, key, before);
    i->at = before[0] == i->m->head ? NULL : before[0];
}

static void iter_seek_for_prev(struct kv_iter *it, struct slice key) {
    struct kv_mem_iter *i = iter_of(it);

    i->at = find_exact(i->m, key, NULL);
    if (!i->at)
        iter_seek_before(i, key);
}

static bool iter_valid(const struct kv_iter *it) {
    return iter_of(it)->at != NULL;
}

static void iter_next(struct kv_iter *it) {
    struct kv_mem_iter *i = iter_of(it);

    ASSERT(i->at);
    i->at = i->at->next[0];
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
    ASSERT(it);
    return 0;
}

static void iter_close(struct kv_iter *it) {
    struct kv_mem_iter *i = iter_of(it);

    ASSERT(i->m->iters_open > 0);
    i->m->iters_open--;
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
    *ret = &i->it;
    return 0;
}

static const struct kv_ops kv_mem_ops = {
    .get = kv_mem_get,
    .write = kv_mem_write,
    .flush = kv_mem_flush,
    .iter_open = kv_mem_iter_open,
    .close = kv_mem_close,
};

int kv_mem_new(size_t auto_flush_batches, struct kv **ret) {
    struct kv_mem *m = (struct kv_mem *) calloc(1, sizeof(*m));

    ASSERT(ret);
    if (!m)
        return -ENOMEM;
    m->head = node_new(KV_LEVELS_MAX);
    if (!m->head) {
        free(m);
        return -ENOMEM;
    }
    m->kv.ops = &kv_mem_ops;
    m->rng = rng_seed(0x6b76);
    m->auto_flush = auto_flush_batches;
    *ret = &m->kv;
    return 0;
}

/* Restore what @u replaced. Nothing is allocated for an absent key; for a deleted one a node is. */
static void undo_one(struct kv_mem *m, struct undo *u) {
    struct node *before[KV_LEVELS_MAX];
    struct node *n = find_exact(m, bytes_slice(u->key), before);

    if (n && u->value) {
        bytes_unref(n->value);
        n->value = TAKE_PTR(u->value);
    } else if (n) {
        unlink_node(n, before);
        node_free(n);
    } else if (u->value) {
        n = node_new(random_levels(m));
        /* A simulated power cut has no way to fail; only tests and the simulator come here. */
        ASSERT(n);
        n->key = TAKE_PTR(u->key);
        n->value = TAKE_PTR(u->value);
        link_node(n, before);
    }
}

void kv_mem_crash(struct kv *kv, size_t keep_unflushed) {
    struct kv_mem *m = kv_mem_of(kv);

    ASSERT(kv->ops == &kv_mem_ops);
    ASSERT(m->iters_open == 0);
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
