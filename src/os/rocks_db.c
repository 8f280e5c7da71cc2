/* rocks_db: settings, and what RocksDB's texts mean.
 *
 * What it is not: a cache or a transaction layer. */
#include "os/rocks_db.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>

#define MIB ((size_t) 1024 * 1024)
#define MEMTABLE_BYTES (32 * MIB)
/* One is written, up to three wait for the disk: 96 MiB of slack before a write, which is made on
 * the loop, would be slowed down. They are freed once flushed, so an idle node has one small one.
 */
#define MEMTABLES_MAX 4
/* Of a stage: what it holds in memory while two of these are full and one is written. */
#define STAGE_MEMTABLE_BYTES (8 * MIB)
#define STAGE_MEMTABLES_MAX 2
#define BLOCK_CACHE_BYTES (8 * MIB)
#define OPEN_FILES_MAX 128
#define BACKGROUND_JOBS_MAX 2
#define LEVEL1_BYTES (64 * MIB)
#define FILE_BYTES (16 * MIB)
#define BLOOM_BITS_PER_KEY 10.0
/* Start writing back early, so that a finished file's fsync does not queue in front of the Raft
 * log's fdatasync with megabytes. */
#define BYTES_PER_SYNC (MIB / 2)
/* Opening writes a manifest and an options file. Packaged builds of RocksDB abort in an assertion
 * when there is no room for them (WritableFileWriter, seen with 7.8), so it is not tried. */
#define OPEN_BYTES (256UL * 1024)

int rocks_error_of(const char *text) {
    /* Only the first words are stable (Status::ToString); the rest is strerror's. */
    if (strncmp(text, "Corruption", 10) == 0)
        return ERR_CORRUPT;
    if (strstr(text, "No space left"))
        return -ENOSPC;
    if (strstr(text, "Disk quota exceeded"))
        return -EDQUOT;
    if (strstr(text, "Permission denied"))
        return -EACCES;
    if (strstr(text, "While lock file") || strstr(text, "lock hold by current process"))
        return -EWOULDBLOCK;
    /* A store without its CURRENT file is damaged, whatever the call it was noticed by. */
    if (strstr(text, "does not exist (create_if_missing is false)") ||
        strstr(text, "CURRENT: No such file") || strstr(text, "CURRENT file"))
        return ERR_CORRUPT;
    return -EIO;
}

static void set_table_options(rocksdb_options_t *o, rocksdb_cache_t *cache) {
    rocksdb_block_based_table_options_t *t = rocksdb_block_based_options_create();

    rocksdb_block_based_options_set_block_cache(t, cache);
    rocksdb_block_based_options_set_cache_index_and_filter_blocks(t, 1);
    rocksdb_block_based_options_set_cache_index_and_filter_blocks_with_high_priority(t, 1);
    /* In parts of 4 KiB: whole ones of a file with millions of small records are more than a shard
     * of the cache takes (512 KiB), so every look-up would read and check a megabyte. */
    rocksdb_block_based_options_set_index_type(
        t, rocksdb_block_based_table_index_type_two_level_index_search);
    rocksdb_block_based_options_set_partition_filters(t, 1);
    rocksdb_block_based_options_set_pin_top_level_index_and_filter(t, 1);
    rocksdb_block_based_options_set_pin_l0_filter_and_index_blocks_in_cache(t, 1);
    rocksdb_block_based_options_set_filter_policy(
        t, rocksdb_filterpolicy_create_bloom_full(BLOOM_BITS_PER_KEY)); /* owned by t */
    rocksdb_block_based_options_set_format_version(t, 5);
    rocksdb_options_set_block_based_table_factory(o, t);
    rocksdb_block_based_options_destroy(t);
}

static void set_options(rocksdb_options_t *o) {
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

/* Two settings have no function of their own in the C API. Closing must not flush (kv.h), or a stop
 * after a failed write would write again; and a file that is written waits for its own write-back,
 * or megabytes of it stand before the log's fdatasync after all. */
static int finish_options(struct rocks_config *c, const rocksdb_options_t *base,
                          struct errtext *reterr) {
    char *err = NULL;

    c->options = rocksdb_options_create();
    rocksdb_get_options_from_string(
        base, "avoid_flush_during_shutdown=true;strict_bytes_per_sync=true;", c->options, &err);
    if (!err)
        return 0;
    errtext_set(reterr, "RocksDB refuses its options: %s", err);
    rocksdb_free(err);
    return -ENOTSUP;
}

int rocks_config_init(struct rocks_config *c, struct errtext *reterr) {
    rocksdb_options_t *base = rocksdb_options_create();
    int r;

    *c = (struct rocks_config){.cache = rocksdb_cache_create_lru(BLOCK_CACHE_BYTES)};
    set_options(base);
    set_table_options(base, c->cache);
    r = finish_options(c, base, reterr);
    rocksdb_options_destroy(base);
    c->read = rocksdb_readoptions_create();
    rocksdb_readoptions_set_verify_checksums(c->read, 1);
    c->scan = rocksdb_readoptions_create();
    rocksdb_readoptions_set_verify_checksums(c->scan, 1);
    rocksdb_readoptions_set_fill_cache(c->scan, 0); /* a long scan must not empty the cache */
    c->write = rocksdb_writeoptions_create();
    rocksdb_writeoptions_disable_WAL(c->write, 1);
    c->flush = rocksdb_flushoptions_create();
    rocksdb_flushoptions_set_wait(c->flush, 1);
    return r;
}

void rocks_config_done(struct rocks_config *c) {
    if (c->flush)
        rocksdb_flushoptions_destroy(c->flush);
    if (c->write)
        rocksdb_writeoptions_destroy(c->write);
    if (c->scan)
        rocksdb_readoptions_destroy(c->scan);
    if (c->read)
        rocksdb_readoptions_destroy(c->read);
    if (c->options)
        rocksdb_options_destroy(c->options);
    if (c->cache)
        rocksdb_cache_destroy(c->cache);
    *c = (struct rocks_config){0};
}

void rocks_config_empty_cache(struct rocks_config *c) {
    rocksdb_cache_set_capacity(c->cache, 0);
    rocksdb_cache_set_capacity(c->cache, BLOCK_CACHE_BYTES);
}

static rocksdb_t *open_once(const struct rocks_config *c, const char *dir, enum rocks_open how,
                            char **ret_err) {
    bool stage = how == ROCKS_STAGE;

    rocksdb_options_set_create_if_missing(c->options, how == ROCKS_MAY_CREATE || stage);
    rocksdb_options_set_write_buffer_size(c->options,
                                          stage ? STAGE_MEMTABLE_BYTES : MEMTABLE_BYTES);
    rocksdb_options_set_max_write_buffer_number(c->options,
                                                stage ? STAGE_MEMTABLES_MAX : MEMTABLES_MAX);
    if (how == ROCKS_READ_ONLY) /* writes not even a LOG file */
        return rocksdb_open_for_read_only(c->options, dir, 0, ret_err);
    return rocksdb_open(c->options, dir, ret_err);
}

/* -ENOSPC without room to open @dir, or its parent when it is to be created. What cannot be looked
 * at is left to RocksDB's own words. */
static int check_room(const char *dir, struct errtext *reterr) {
    char parent[PATH_MAX];
    struct statvfs st;
    uint64_t bytes;

    if (statvfs(dir, &st) < 0) {
        int n = snprintf(parent, sizeof(parent), "%s", dir);
        char *slash = strrchr(parent, '/');

        if (n < 0 || (size_t) n >= sizeof(parent) || !slash || slash == parent)
            return 0;
        *slash = '\0';
        if (statvfs(parent, &st) < 0)
            return 0;
    }
    bytes = (uint64_t) st.f_bavail * st.f_frsize;
    if (bytes >= OPEN_BYTES)
        return 0;
    errtext_set(reterr,
                "cannot open the state store %s: no space: %llu bytes free on its file system, "
                "%lu needed",
                dir, (unsigned long long) bytes, OPEN_BYTES);
    return -ENOSPC;
}

/* LZ4 where the library has it, none otherwise. */
int rocks_config_open(struct rocks_config *c, const char *dir, enum rocks_open how, rocksdb_t **ret,
                      struct errtext *reterr) {
    static const int compressions[] = {rocksdb_lz4_compression, rocksdb_no_compression};
    int r = how == ROCKS_READ_ONLY ? 0 : check_room(dir, reterr);

    if (r < 0)
        return r;
    for (size_t i = 0; i < ARRAY_LEN(compressions); i++) {
        char *err = NULL;
        rocksdb_t *db;

        rocksdb_options_set_compression(c->options, compressions[i]);
        db = open_once(c, dir, how, &err);
        if (!err) {
            *ret = db;
            return 0;
        }
        r = rocks_error_of(err);
        errtext_set(reterr, "cannot open the state store %s: %s", dir, err);
        if (!strstr(err, "not linked"))
            i = ARRAY_LEN(compressions);
        rocksdb_free(err);
    }
    return r;
}

int rocks_stage_finish(rocksdb_t *db, struct errtext *reterr) {
    static const char *const keys[] = {"write_buffer_size", "max_write_buffer_number"};
    char bytes[24], number[24];
    const char *const values[] = {bytes, number};
    char *err = NULL;
    int r;

    (void) snprintf(bytes, sizeof(bytes), "%zu", (size_t) MEMTABLE_BYTES);
    (void) snprintf(number, sizeof(number), "%d", MEMTABLES_MAX);
    rocksdb_set_options(db, ARRAY_LEN(keys), keys, values, &err);
    if (!err)
        return 0;
    r = rocks_error_of(err);
    errtext_set(reterr, "cannot give the received state store its write buffers: %s", err);
    rocksdb_free(err);
    return r;
}
