/* How this program opens RocksDB: its settings, its error texts, one opened database.
 *
 * Sizes are chosen for a small resident set, since three nodes and their workers may share one
 * small machine, and for steady latency beside the Raft log on one disk. Only for kv_rocks.c.
 * Thread: the settings are not changed after rocks_config_init() but by rocks_config_open(), which
 * is called by one thread at a time. */
#pragma once

#include "base/err.h"

#include <rocksdb/c.h>

struct rocks_config {
    rocksdb_cache_t *cache; /* shared by all databases opened with this */
    rocksdb_options_t *options;
    rocksdb_readoptions_t *read; /* single keys: fills the cache */
    rocksdb_readoptions_t *scan; /* iterators: do not */
    rocksdb_writeoptions_t *write;
    rocksdb_flushoptions_t *flush;
};

enum rocks_open {
    ROCKS_EXISTING,
    ROCKS_MAY_CREATE,
    ROCKS_STAGE, /* new, and filled from front to back by a thread that may wait: see below */
    ROCKS_READ_ONLY,
};

/* 0, or -ENOTSUP with RocksDB's reason. rocks_config_done() afterwards in every case. */
int rocks_config_init(struct rocks_config *c, struct errtext *reterr) _must_check_;
void rocks_config_done(struct rocks_config *c);
/* @ret is owned by the caller on 0 (rocksdb_close). ERR_CORRUPT, -EWOULDBLOCK (locked), -errno. */
int rocks_config_open(struct rocks_config *c, const char *dir, enum rocks_open how, rocksdb_t **ret,
                      struct errtext *reterr) _must_check_;
/* A stage has small write buffers, so that filling it beside the store in use takes little memory.
 * From now on its writes are made on the loop, which must not wait for the disk: give it those of
 * any other store. 0 or as rocks_config_open. */
int rocks_stage_finish(rocksdb_t *db, struct errtext *reterr) _must_check_;
/* Drop every cached block that is not in use, so that what is read next comes from the files. */
void rocks_config_empty_cache(struct rocks_config *c);

/* The number for one of RocksDB's error texts; -EIO when it says nothing more. */
int rocks_error_of(const char *text);
