/* base/kv.h over RocksDB: where a real node keeps the state machine's records.
 *
 * RocksDB's own log is off (design.md D2): the Raft log replays what a crash takes. One column
 * family whose memtables are flushed in order, a batch never split between two of them: so what is
 * on disk is always the effect of an exact prefix of the batches.
 * Stores live in numbered directories (os/kv_dir.h): a staged one is the next number, its commit is
 * a rename of the pointer file.
 * Every error is fatal for the node, but for those that kv.h says are not; RocksDB itself refuses
 * writes after a failed flush.
 * Thread: writes, gets, iter_open, stage_adopt and close on the loop; flush, verify and stage_begin
 * to stage_commit may run on another thread meanwhile, stage calls one at a time; an iterator
 * belongs to one thread at a time. A long-lived iterator keeps the memtables and files of its
 * instant: flush before opening one that will live for a while. */
#pragma once

#include "base/kv.h"

/* Open the store in @dir (created with mode 0700; its parent must exist), locked against a second
 * opener. What an unfinished stage left is deleted.
 *
 * @ret     owned by the caller on 0; close with (*ret)->ops->close(*ret)
 * @reterr  names the directory or file and RocksDB's reason
 *
 * Returns 0; ERR_CORRUPT (stop: restore this node, nothing is deleted here); ERR_VERSION; -errno.
 * After close without flush the store holds some prefix of what was written. */
int kv_rocks_open(const char *dir, struct kv **ret, struct errtext *reterr) _must_check_;

/* Open an existing store to look at it: what was durable at this instant. Takes no lock and
 * creates, changes and deletes nothing. Beside a running owner a read may fail when compaction
 * deletes a file under it. get, verify, iterators and disk_bytes work; calls that write return
 * -EROFS.
 *
 * As kv_rocks_open() otherwise; -ENOENT when there is none. */
int kv_rocks_open_read_only(const char *dir, struct kv **ret, struct errtext *reterr) _must_check_;

/* RocksDB's text of the last failed call, "" when none failed. For the log line of the stop. */
void kv_rocks_last_error(struct kv *kv, struct errtext *ret);

/* Bytes in memtables and block cache, for status and metrics. */
uint64_t kv_rocks_memory_bytes(struct kv *kv);
