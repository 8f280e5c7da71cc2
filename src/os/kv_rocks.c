/* kv_rocks: the adapter; sizes are chosen for a small resident set, since three nodes and their
 * workers may share one small machine, and for steady latency beside the Raft log on one disk.
 *
 * What it is not: a cache or a transaction layer.
 * Thread: see the header; only last_error is shared, under its mutex. */
#include "os/kv_rocks.h"

#include <errno.h>
#include <pthread.h>
#include <rocksdb/c.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define MIB ((size_t) 1024 * 1024)
#define MEMTABLE_BYTES (32 * MIB)
/* One is written, up to three wait for the disk: 96 MiB of slack before a write, which is made on
 * the loop, would be slowed down. They are freed once flushed, so an idle node has one small one.
 */
#define MEMTABLES_MAX 4
#define BLOCK_CACHE_BYTES (8 * MIB)
#define OPEN_FILES_MAX 128
#define BACKGROUND_JOBS_MAX 2
#define LEVEL1_BYTES (64 * MIB)
#define FILE_BYTES (16 * MIB)
#define BLOOM_BITS_PER_KEY 10.0
/* Start writing back early, so that a finished file's fsync does not queue in front of the Raft
 * log's fdatasync with megabytes. */
#define BYTES_PER_SYNC (MIB / 2)

struct kv_rocks {
    struct kv kv;
    rocksdb_t *db;
    rocksdb_cache_t *cache;
    rocksdb_options_t *options;
    rocksdb_readoptions_t *read;
    rocksdb_readoptions_t *scan;
    rocksdb_writeoptions_t *write;
    rocksdb_flushoptions_t *flush;
    rocksdb_writebatch_t *batch; /* reused: write() belongs to one thread */
    pthread_mutex_t lock;
    struct errtext last_error; /* under lock */
};

struct kv_rocks_iter {
    struct kv_iter it;
    rocksdb_iterator_t *iter;
    struct kv_rocks *owner;
};

static struct kv_rocks *rocks_of(struct kv *kv) {
    ASSERT(kv);
    return CONTAINER_OF(kv, struct kv_rocks, kv);
}

/* RocksDB gives only texts; their first words are stable (Status::ToString). */
static int error_of(const char *text) {
    if (strncmp(text, "Corruption", 10) == 0)
        return ERR_CORRUPT;
    if (strstr(text, "No space left"))
        return -ENOSPC;
    if (strstr(text, "Permission denied"))
        return -EACCES;
    if (strstr(text, "While lock file") || strstr(text, "lock hold by current process"))
        return -EWOULDBLOCK;
    return -EIO;
}

/* Keep and free RocksDB's message. */
static int fail(struct kv_rocks *k, char *text) {
    int r = error_of(text);

    (void) pthread_mutex_lock(&k->lock);
    errtext_set(&k->last_error, "%s", text);
    (void) pthread_mutex_unlock(&k->lock);
    rocksdb_free(text);
    return r;
}

static int op_get(struct kv *kv, struct slice key, struct buf *out) {
    struct kv_rocks *k = rocks_of(kv);
    rocksdb_pinnableslice_t *p;
    const char *value;
    char *err = NULL;
    size_t len = 0;
    int r;

    ASSERT(out);
    p = rocksdb_get_pinned(k->db, k->read, (const char *) key.data, key.len, &err);
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
    char *err = NULL;

    ASSERT(ops || n == 0);
    rocksdb_writebatch_clear(k->batch);
    for (size_t i = 0; i < n; i++) {
        const struct kv_op *o = &ops[i];

        if (o->del)
            rocksdb_writebatch_delete(k->batch, (const char *) o->key.data, o->key.len);
        else
            rocksdb_writebatch_put(k->batch, (const char *) o->key.data, o->key.len,
                                   (const char *) o->value.data, o->value.len);
    }
    rocksdb_write(k->db, k->write, k->batch, &err);
    return err ? fail(k, err) : 0;
}

static int op_flush(struct kv *kv) {
    struct kv_rocks *k = rocks_of(kv);
    char *err = NULL;

    rocksdb_flush(k->db, k->flush, &err);
    return err ? fail(k, err) : 0;
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
    /* An iterator is a consistent view by itself: it sees the sequence number of its creation. */
    *i = (struct kv_rocks_iter){
        .it.ops = &iter_ops, .iter = rocksdb_create_iterator(k->db, k->scan), .owner = k};
    *ret = &i->it;
    return 0;
}

/* --- open and close ------------------------------------------------------------------------- */

static void op_close(struct kv *kv) {
    struct kv_rocks *k;

    if (!kv)
        return;
    k = rocks_of(kv);
    if (k->db)
        rocksdb_close(k->db);
    if (k->batch)
        rocksdb_writebatch_destroy(k->batch);
    if (k->flush)
        rocksdb_flushoptions_destroy(k->flush);
    if (k->write)
        rocksdb_writeoptions_destroy(k->write);
    if (k->scan)
        rocksdb_readoptions_destroy(k->scan);
    if (k->read)
        rocksdb_readoptions_destroy(k->read);
    if (k->options)
        rocksdb_options_destroy(k->options);
    if (k->cache)
        rocksdb_cache_destroy(k->cache);
    (void) pthread_mutex_destroy(&k->lock);
    free(k);
}

static const struct kv_ops rocks_ops = {
    .get = op_get,
    .write = op_write,
    .flush = op_flush,
    .iter_open = op_iter_open,
    .close = op_close,
};

static void set_table_options(rocksdb_options_t *o, rocksdb_cache_t *cache) {
    rocksdb_block_based_table_options_t *t = rocksdb_block_based_options_create();

    rocksdb_block_based_options_set_block_cache(t, cache);
    rocksdb_block_based_options_set_cache_index_and_filter_blocks(t, 1);
    rocksdb_block_based_options_set_cache_index_and_filter_blocks_with_high_priority(t, 1);
    rocksdb_block_based_options_set_pin_l0_filter_and_index_blocks_in_cache(t, 1);
    rocksdb_block_based_options_set_filter_policy(
        t, rocksdb_filterpolicy_create_bloom_full(BLOOM_BITS_PER_KEY)); /* owned by t */
    rocksdb_block_based_options_set_format_version(t, 5);
    rocksdb_options_set_block_based_table_factory(o, t);
    rocksdb_block_based_options_destroy(t);
}

static void set_options(rocksdb_options_t *o) {
    rocksdb_options_set_create_if_missing(o, 1);
    rocksdb_options_set_paranoid_checks(o, 1);
    rocksdb_options_set_write_buffer_size(o, MEMTABLE_BYTES);
    rocksdb_options_set_max_write_buffer_number(o, MEMTABLES_MAX);
    rocksdb_options_set_min_write_buffer_number_to_merge(o, 1);
    rocksdb_options_set_max_background_jobs(o, BACKGROUND_JOBS_MAX);
    rocksdb_options_set_max_open_files(o, OPEN_FILES_MAX);
    rocksdb_options_set_max_file_opening_threads(o, 1);
    rocksdb_options_set_max_bytes_for_level_base(o, LEVEL1_BYTES);
    rocksdb_options_set_target_file_size_base(o, FILE_BYTES);
    rocksdb_options_set_level_compaction_dynamic_level_bytes(o, 1);
    /* Level 0 may grow while compaction is behind: reads get slower before writes ever wait. */
    rocksdb_options_set_level0_file_num_compaction_trigger(o, 4);
    rocksdb_options_set_level0_slowdown_writes_trigger(o, 48);
    rocksdb_options_set_level0_stop_writes_trigger(o, 96);
    rocksdb_options_set_bytes_per_sync(o, BYTES_PER_SYNC);
    rocksdb_options_set_info_log_level(o, 2 /* warn */);
    rocksdb_options_set_max_log_file_size(o, MIB);
    rocksdb_options_set_keep_log_file_num(o, 2);
    rocksdb_options_set_max_manifest_file_size(o, 4 * MIB);
    rocksdb_options_set_stats_dump_period_sec(o, 0);
    rocksdb_options_set_stats_persist_period_sec(o, 0);
    rocksdb_options_set_is_fd_close_on_exec(o, 1);
}

/* One setting has no function of its own in the C API: closing must not flush (kv.h), or a stop
 * after a failed write would write again. */
static int finish_options(struct kv_rocks *k, const rocksdb_options_t *base,
                          struct errtext *reterr) {
    char *err = NULL;

    k->options = rocksdb_options_create();
    rocksdb_get_options_from_string(base, "avoid_flush_during_shutdown=true;", k->options, &err);
    if (!err)
        return 0;
    errtext_set(reterr, "RocksDB refuses its options: %s", err);
    rocksdb_free(err);
    return -ENOTSUP;
}

static int make_parts(struct kv_rocks *k, struct errtext *reterr) {
    rocksdb_options_t *base = rocksdb_options_create();
    int r;

    k->cache = rocksdb_cache_create_lru(BLOCK_CACHE_BYTES);
    set_options(base);
    set_table_options(base, k->cache);
    r = finish_options(k, base, reterr);
    rocksdb_options_destroy(base);
    k->read = rocksdb_readoptions_create();
    rocksdb_readoptions_set_verify_checksums(k->read, 1);
    k->scan = rocksdb_readoptions_create();
    rocksdb_readoptions_set_verify_checksums(k->scan, 1);
    rocksdb_readoptions_set_fill_cache(k->scan, 0); /* a long scan must not empty the cache */
    k->write = rocksdb_writeoptions_create();
    rocksdb_writeoptions_disable_WAL(k->write, 1);
    k->flush = rocksdb_flushoptions_create();
    rocksdb_flushoptions_set_wait(k->flush, 1);
    k->batch = rocksdb_writebatch_create();
    return r;
}

/* LZ4 where the library has it, none otherwise. */
static int open_db(struct kv_rocks *k, const char *dir, struct errtext *reterr) {
    static const int compressions[] = {rocksdb_lz4_compression, rocksdb_no_compression};
    int r = 0;

    for (size_t i = 0; i < ARRAY_LEN(compressions); i++) {
        char *err = NULL;

        rocksdb_options_set_compression(k->options, compressions[i]);
        k->db = rocksdb_open(k->options, dir, &err);
        if (!err)
            return 0;
        k->db = NULL;
        r = error_of(err);
        errtext_set(reterr, "cannot open the state store %s: %s", dir, err);
        if (!strstr(err, "not linked"))
            i = ARRAY_LEN(compressions);
        rocksdb_free(err);
    }
    return r;
}

int kv_rocks_open(const char *dir, struct kv **ret, struct errtext *reterr) {
    struct kv_rocks *k;
    int r;

    ASSERT(dir);
    ASSERT(ret);
    /* RocksDB would create it readable by everyone. */
    if (mkdir(dir, 0700) < 0 && errno != EEXIST) {
        r = -errno;
        errtext_set(reterr, "cannot create the state store %s: %s", dir, err_name(r));
        return r;
    }
    k = calloc(1, sizeof(*k));
    if (!k)
        return -ENOMEM;
    k->kv.ops = &rocks_ops;
    (void) pthread_mutex_init(&k->lock, NULL);
    r = make_parts(k, reterr);
    if (r == 0)
        r = open_db(k, dir, reterr);
    if (r < 0) {
        op_close(&k->kv);
        return r;
    }
    *ret = &k->kv;
    return 0;
}

void kv_rocks_last_error(struct kv *kv, struct errtext *ret) {
    struct kv_rocks *k = rocks_of(kv);

    ASSERT(ret);
    (void) pthread_mutex_lock(&k->lock);
    *ret = k->last_error;
    (void) pthread_mutex_unlock(&k->lock);
}

uint64_t kv_rocks_memory_bytes(struct kv *kv) {
    struct kv_rocks *k = rocks_of(kv);
    uint64_t memtables = 0;

    if (rocksdb_property_int(k->db, "rocksdb.cur-size-all-mem-tables", &memtables) != 0)
        memtables = 0;
    return memtables + rocksdb_cache_get_usage(k->cache);
}
