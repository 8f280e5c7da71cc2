/* The directory of the state store: numbered stores, one of them current.
 *
 *   state/current    which store counts: 24 bytes, written beside, synced, renamed
 *   state/000001/    RocksDB's files
 *   state/000002/    a store being received, or the old one while it is deleted
 *
 * `current` is the switch of kv.h's stage_commit: a rename, so a crash leaves the one or the other.
 * Layout of the file, little-endian: magic "CHRNSTOR" (8), version u32 = 1, CRC32C u32 of the file
 * without these four bytes, number u64.
 * Every number but the current one is a leftover and may be deleted at any time.
 * Thread: any, one at a time per object; kv_dir_remove_store beside the others. */
#pragma once

#include "base/err.h"

#define KV_DIR_POINTER_NAME "current"
#define KV_DIR_POINTER_BYTES 24U
#define KV_DIR_POINTER_VERSION 1U
#define KV_DIR_PATH_BYTES_MAX 4096U

struct kv_dir {
    char path[KV_DIR_PATH_BYTES_MAX]; /* of the parent */
    int fd;                           /* of the parent, locked unless read_only */
    _Atomic uint64_t current;         /* >= 1; atomic for kv_dir_remove_store's assertion */
    bool read_only;
};

/* Open @path (its parent must exist), lock it against a second opener, and read the pointer; a new
 * directory is made with mode 0700 and a pointer to store 1. Leftovers are deleted.
 *
 * @read_only  nothing is locked, created or deleted; the directory must be complete
 * @ret        end with kv_dir_done() in every case
 * @reterr     names the file
 *
 * Returns 0; -EWOULDBLOCK (another process has it); ERR_CORRUPT (pointer damaged, missing beside
 * stores, or the store it names is missing; also the files of a store directly in @path);
 * ERR_VERSION (a newer pointer); -errno. */
int kv_dir_open(struct kv_dir *ret, const char *path, bool read_only,
                struct errtext *reterr) _must_check_;
void kv_dir_done(struct kv_dir *d);

/* The path of store @number. 0, or -ENAMETOOLONG. */
int kv_dir_store_path(const struct kv_dir *d, uint64_t number,
                      char ret[KV_DIR_PATH_BYTES_MAX]) _must_check_;
/* True when a store may be created where the current one should be: only the first one of a
 * directory, and only while it holds no tables. Anything else missing is damage, not novelty. */
bool kv_dir_may_create(const struct kv_dir *d);
/* Make the empty directory of store @number, deleting what an earlier try left. 0 or -errno. */
int kv_dir_make_store(const struct kv_dir *d, uint64_t number) _must_check_;
/* Best effort: what stays is a leftover of the next open. */
void kv_dir_remove_store(const struct kv_dir *d, uint64_t number);
/* Make store @number the one that counts, durably; its files must be durable already. 0; -ENOSPC or
 * -EDQUOT (nothing was switched); other -errno: either may be found by the next open. */
int kv_dir_switch(struct kv_dir *d, uint64_t number) _must_check_;
