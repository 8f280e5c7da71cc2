/* kv_rocks: the handle: one current store, perhaps a staged one beside it, and the switch.
 *
 * What it is not: a cache or a transaction layer.
 * Invariants: `store` is what reads and writes see, and changes only in stage_adopt, on the thread
 * that reads and writes; another thread holds a reference while it uses it, so that a flush, a
 * scrub or an iterator outlives a switch. dir.current is store->number, or stage->number between
 * commit and adopt. Thread: see the header; what is shared is under the mutex. */
#include "os/kv_rocks.h"

#include "os/kv_dir.h"
#include "os/rocks_db.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

/* One opened database. */
struct store {
    rocksdb_t *db;
    rocksdb_writebatch_t *batch; /* reused: writes to one store belong to one thread */
    uint64_t number;
    unsigned refs; /* under the handle's lock */
    bool doomed;   /* under the handle's lock: its directory goes with the last reference */
};

struct kv_rocks {
    struct kv kv;
    struct rocks_config config;
    struct kv_dir dir;
    struct store *store; /* counted */
    struct store *stage; /* counted; NULL unless between stage_begin and adopt or drop */
    bool committed;      /* the stage is what the next open finds */
    struct store *dead;  /* counted; the reaper's while it runs */
    pthread_t reaper;
    bool reaping; /* the thread is to be joined */
    pthread_mutex_t lock;
    struct errtext last_error; /* under lock */
};

struct kv_rocks_iter {
    struct kv_iter it;
    rocksdb_iterator_t *iter;
    struct kv_rocks *owner;
    struct store *store; /* counted */
};

static struct kv_rocks *rocks_of(struct kv *kv) {
    ASSERT(kv);
    return CONTAINER_OF(kv, struct kv_rocks, kv);
}

static void set_last_error(struct kv_rocks *k, const char *text) {
    (void) pthread_mutex_lock(&k->lock);
    errtext_set(&k->last_error, "%s", text);
    (void) pthread_mutex_unlock(&k->lock);
}

/* Keep and free RocksDB's message. */
static int fail(struct kv_rocks *k, char *text) {
    int r = rocks_error_of(text);

    set_last_error(k, text);
    rocksdb_free(text);
    return r;
}

/* --- stores --------------------------------------------------------------------------------- */

static struct store *store_ref(struct kv_rocks *k) {
    struct store *s;

    (void) pthread_mutex_lock(&k->lock);
    s = k->store;
    s->refs++;
    (void) pthread_mutex_unlock(&k->lock);
    return s;
}

static void store_unref(struct kv_rocks *k, struct store *s) {
    bool last;

    (void) pthread_mutex_lock(&k->lock);
    ASSERT(s->refs > 0);
    last = --s->refs == 0;
    (void) pthread_mutex_unlock(&k->lock);
    if (!last)
        return;
    rocksdb_close(s->db);
    rocksdb_writebatch_destroy(s->batch);
    if (s->doomed)
        kv_dir_remove_store(&k->dir, s->number);
    free(s);
}

static int store_open(struct kv_rocks *k, uint64_t number, enum rocks_open how, struct store **ret,
                      struct errtext *reterr) {
    char path[KV_DIR_PATH_BYTES_MAX];
    struct store *s;
    int r = kv_dir_store_path(&k->dir, number, path);

    if (r < 0)
        return r;
    s = calloc(1, sizeof(*s));
    if (!s)
        return -ENOMEM;
    r = rocks_config_open(&k->config, path, how, &s->db, reterr);
    if (r < 0) {
        free(s);
        return r;
    }
    s->batch = rocksdb_writebatch_create();
    s->number = number;
    s->refs = 1;
    *ret = s;
    return 0;
}

static int store_write(struct kv_rocks *k, struct store *s, const struct kv_op *ops, size_t n) {
    char *err = NULL;

    ASSERT(ops || n == 0);
    if (k->dir.read_only)
        return -EROFS;
    rocksdb_writebatch_clear(s->batch);
    for (size_t i = 0; i < n; i++) {
        const struct kv_op *o = &ops[i];

        if (o->del)
            rocksdb_writebatch_delete(s->batch, (const char *) o->key.data, o->key.len);
        else
            rocksdb_writebatch_put(s->batch, (const char *) o->key.data, o->key.len,
                                   (const char *) o->value.data, o->value.len);
    }
    rocksdb_write(s->db, k->config.write, s->batch, &err);
    return err ? fail(k, err) : 0;
}

/* One column family, its memtables flushed in order: covers every write before the call. */
static int store_flush(struct kv_rocks *k, struct store *s) {
    char *err = NULL;

    if (k->dir.read_only)
        return -EROFS;
    rocksdb_flush(s->db, k->config.flush, &err);
    return err ? fail(k, err) : 0;
}

/* --- reads and writes ----------------------------------------------------------------------- */

static int op_get(struct kv *kv, struct slice key, struct buf *out) {
    struct kv_rocks *k = rocks_of(kv);
    rocksdb_pinnableslice_t *p;
    const char *value;
    char *err = NULL;
    size_t len = 0;
    int r;

    ASSERT(out);
    p = rocksdb_get_pinned(k->store->db, k->config.read, (const char *) key.data, key.len, &err);
    if (err)
        return fail(k, err);
    if (!p)
        return KV_NOT_FOUND;
    value = rocksdb_pinnableslice_value(p, &len);
    r = buf_append(out, value, len);
    rocksdb_pinnableslice_destroy(p);
    return r;
}

static int op_write(struct kv *kv, const struct kv_op *ops, size_t n) {
    struct kv_rocks *k = rocks_of(kv);

    return store_write(k, k->store, ops, n);
}

static int op_flush(struct kv *kv) {
    struct kv_rocks *k = rocks_of(kv);
    struct store *s = store_ref(k);
    int r = store_flush(k, s);

    store_unref(k, s);
    return r;
}

/* RocksDB's own checksum walk has no function in its C API. A scan reads every block of every table
 * but those that hold only overwritten records, and checks each; the cache is emptied first, or
 * what it holds would not be read from the disk. */
static int op_verify(struct kv *kv, struct errtext *reterr) {
    struct kv_rocks *k = rocks_of(kv);
    struct store *s = store_ref(k);
    rocksdb_iterator_t *it;
    char *err = NULL;
    int r = 0;

    rocks_config_empty_cache(&k->config);
    it = rocksdb_create_iterator(s->db, k->config.scan);
    rocksdb_iter_seek_to_first(it);
    while (rocksdb_iter_valid(it))
        rocksdb_iter_next(it);
    rocksdb_iter_get_error(it, &err);
    rocksdb_iter_destroy(it);
    if (err) {
        errtext_set(reterr, "state store %s/%06llu: %s", k->dir.path,
                    (unsigned long long) s->number, err);
        r = fail(k, err);
    }
    store_unref(k, s);
    return r;
}

static uint64_t property(const struct store *s, const char *name) {
    uint64_t value = 0;

    return rocksdb_property_int(s->db, name, &value) == 0 ? value : 0;
}

static uint64_t op_disk_bytes(struct kv *kv) {
    return property(rocks_of(kv)->store, "rocksdb.total-sst-files-size");
}

/* --- iterators ------------------------------------------------------------------------------ */

static struct kv_rocks_iter *iter_of(const struct kv_iter *it) {
    ASSERT(it);
    return CONTAINER_OF(it, struct kv_rocks_iter, it);
}

static void it_seek(struct kv_iter *it, struct slice key) {
    rocksdb_iter_seek(iter_of(it)->iter, (const char *) key.data, key.len);
}

static void it_seek_for_prev(struct kv_iter *it, struct slice key) {
    rocksdb_iter_seek_for_prev(iter_of(it)->iter, (const char *) key.data, key.len);
}

static bool it_valid(const struct kv_iter *it) {
    return rocksdb_iter_valid(iter_of(it)->iter) != 0;
}

static void it_next(struct kv_iter *it) {
    ASSERT(it_valid(it));
    rocksdb_iter_next(iter_of(it)->iter);
}

static void it_prev(struct kv_iter *it) {
    ASSERT(it_valid(it));
    rocksdb_iter_prev(iter_of(it)->iter);
}

static struct slice it_key(const struct kv_iter *it) {
    size_t len = 0;
    const char *p;

    ASSERT(it_valid(it));
    p = rocksdb_iter_key(iter_of(it)->iter, &len);
    return slice_of(p, len);
}

static struct slice it_value(const struct kv_iter *it) {
    size_t len = 0;
    const char *p;

    ASSERT(it_valid(it));
    p = rocksdb_iter_value(iter_of(it)->iter, &len);
    return slice_of(p, len);
}

static int it_status(const struct kv_iter *it) {
    struct kv_rocks_iter *i = iter_of(it);
    char *err = NULL;

    rocksdb_iter_get_error(i->iter, &err);
    return err ? fail(i->owner, err) : 0;
}

static void it_close(struct kv_iter *it) {
    struct kv_rocks_iter *i;

    if (!it)
        return;
    i = iter_of(it);
    rocksdb_iter_destroy(i->iter);
    store_unref(i->owner, i->store);
    free(i);
}

static const struct kv_iter_ops iter_ops = {
    .seek = it_seek,
    .seek_for_prev = it_seek_for_prev,
    .valid = it_valid,
    .next = it_next,
    .prev = it_prev,
    .key = it_key,
    .value = it_value,
    .status = it_status,
    .close = it_close,
};

static int op_iter_open(struct kv *kv, struct kv_iter **ret) {
    struct kv_rocks *k = rocks_of(kv);
    struct kv_rocks_iter *i;

    ASSERT(ret);
    i = malloc(sizeof(*i));
    if (!i)
        return -ENOMEM;
    *i = (struct kv_rocks_iter){.it.ops = &iter_ops, .owner = k, .store = store_ref(k)};
    /* A consistent view by itself: it sees the sequence number of its creation, and keeps the
     * memtables and files that held it. */
    i->iter = rocksdb_create_iterator(i->store->db, k->config.scan);
    *ret = &i->it;
    return 0;
}

/* --- the staged store ------------------------------------------------------------------------- */

static void op_stage_drop(struct kv *kv) {
    struct kv_rocks *k = rocks_of(kv);
    struct store *s = k->stage;

    ASSERT(!k->committed);
    k->stage = NULL;
    if (!s)
        return;
    s->doomed = true;
    store_unref(k, s);
}

static int op_stage_begin(struct kv *kv) {
    struct kv_rocks *k = rocks_of(kv);
    uint64_t number = k->dir.current + 1;
    struct errtext why = {0};
    int r;

    if (k->dir.read_only)
        return -EROFS;
    op_stage_drop(kv);
    r = kv_dir_make_store(&k->dir, number);
    if (r < 0)
        errtext_set(&why, "cannot make the directory of store %llu in %s: %s",
                    (unsigned long long) number, k->dir.path, err_name(r));
    if (r == 0)
        r = store_open(k, number, ROCKS_STAGE, &k->stage, &why);
    if (r < 0) {
        set_last_error(k, why.s);
        kv_dir_remove_store(&k->dir, number);
    }
    return r;
}

static int op_stage_write(struct kv *kv, const struct kv_op *ops, size_t n) {
    struct kv_rocks *k = rocks_of(kv);

    ASSERT(k->stage && !k->committed);
    return store_write(k, k->stage, ops, n);
}

static int stage_finish(struct kv_rocks *k) {
    struct errtext why = {0};
    int r = rocks_stage_finish(k->stage->db, &why);

    if (r < 0)
        set_last_error(k, why.s);
    return r;
}

static int op_stage_commit(struct kv *kv) {
    struct kv_rocks *k = rocks_of(kv);
    int r;

    ASSERT(k->stage && !k->committed);
    r = store_flush(k, k->stage); /* RocksDB syncs the files, its manifest and their directory */
    if (r == 0)
        r = stage_finish(k);
    if (r < 0)
        return r;
    r = kv_dir_switch(&k->dir, k->stage->number);
    if (r < 0) {
        struct errtext why;

        errtext_set(&why, "cannot make store %llu the current one of %s: %s",
                    (unsigned long long) k->stage->number, k->dir.path, err_name(r));
        set_last_error(k, why.s);
        return r;
    }
    k->committed = true;
    return 0;
}

static void *reaper_main(void *arg) {
    struct kv_rocks *k = arg;

    store_unref(k, k->dead);
    return NULL;
}

static void reaper_join(struct kv_rocks *k) {
    if (k->reaping)
        (void) pthread_join(k->reaper, NULL);
    k->reaping = false;
}

/* Closing a store waits for its compactions, and deletes its files: not on the caller's thread,
 * which may be the loop. */
static void retire(struct kv_rocks *k, struct store *s) {
    sigset_t all, old;

    reaper_join(k); /* of the one before: over long ago */
    k->dead = s;
    (void) sigfillset(&all);
    (void) pthread_sigmask(SIG_SETMASK, &all, &old);
    k->reaping = pthread_create(&k->reaper, NULL, reaper_main, k) == 0;
    (void) pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (!k->reaping)
        store_unref(k, s);
}

static int op_stage_adopt(struct kv *kv) {
    struct kv_rocks *k = rocks_of(kv);
    struct store *old = k->store;

    ASSERT(k->stage && k->committed);
    (void) pthread_mutex_lock(&k->lock);
    k->store = k->stage;
    old->doomed = true;
    (void) pthread_mutex_unlock(&k->lock);
    k->stage = NULL;
    k->committed = false;
    retire(k, old); /* a flush or scrub that still runs on it closes and deletes it later */
    return 0;
}

/* --- open and close ------------------------------------------------------------------------- */

static void op_close(struct kv *kv) {
    struct kv_rocks *k;

    if (!kv)
        return;
    k = rocks_of(kv);
    reaper_join(k);
    ASSERT(!k->store || k->store->refs == 1); /* no iterator is open, no flush runs */
    if (k->stage && !k->committed)
        op_stage_drop(kv);
    if (k->stage)
        store_unref(k, k->stage);
    if (k->store)
        store_unref(k, k->store);
    rocks_config_done(&k->config);
    kv_dir_done(&k->dir);
    (void) pthread_mutex_destroy(&k->lock);
    free(k);
}

static const struct kv_ops rocks_ops = {
    .get = op_get,
    .write = op_write,
    .flush = op_flush,
    .verify = op_verify,
    .iter_open = op_iter_open,
    .stage_begin = op_stage_begin,
    .stage_write = op_stage_write,
    .stage_commit = op_stage_commit,
    .stage_adopt = op_stage_adopt,
    .stage_drop = op_stage_drop,
    .disk_bytes = op_disk_bytes,
    .close = op_close,
};

static int open_any(const char *dir, bool read_only, struct kv **ret, struct errtext *reterr) {
    enum rocks_open how = ROCKS_READ_ONLY;
    struct kv_rocks *k;
    int r;

    ASSERT(dir);
    ASSERT(ret);
    k = calloc(1, sizeof(*k));
    if (!k)
        return -ENOMEM;
    k->kv.ops = &rocks_ops;
    (void) pthread_mutex_init(&k->lock, NULL);
    r = kv_dir_open(&k->dir, dir, read_only, reterr);
    if (r == 0)
        r = rocks_config_init(&k->config, reterr);
    if (r == 0 && !read_only)
        how = kv_dir_may_create(&k->dir) ? ROCKS_MAY_CREATE : ROCKS_EXISTING;
    if (r == 0)
        r = store_open(k, k->dir.current, how, &k->store, reterr);
    if (r < 0) {
        op_close(&k->kv);
        return r;
    }
    *ret = &k->kv;
    return 0;
}

int kv_rocks_open(const char *dir, struct kv **ret, struct errtext *reterr) {
    return open_any(dir, false, ret, reterr);
}

int kv_rocks_open_read_only(const char *dir, struct kv **ret, struct errtext *reterr) {
    return open_any(dir, true, ret, reterr);
}

void kv_rocks_last_error(struct kv *kv, struct errtext *ret) {
    struct kv_rocks *k = rocks_of(kv);

    ASSERT(ret);
    (void) pthread_mutex_lock(&k->lock);
    *ret = k->last_error;
    (void) pthread_mutex_unlock(&k->lock);
}

uint64_t kv_rocks_memory_bytes(struct kv *kv) {
    const struct kv_rocks *k = rocks_of(kv);

    return property(k->store, "rocksdb.cur-size-all-mem-tables") +
           rocksdb_cache_get_usage(k->config.cache);
}
