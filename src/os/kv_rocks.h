/* base/kv.h over RocksDB: where a real node keeps the state machine's records.
 *
 * RocksDB's own log is off (design.md D2): the Raft log replays what a crash takes. One column
 * family whose memtables are flushed in order, a batch never split between two of them: so what is
 * on disk is always the effect of an exact prefix of the batches.
 * Every error is fatal for the node; RocksDB itself refuses writes after a failed flush.
 * Thread: writes and gets on the loop; flush may run on the disk thread meanwhile; an iterator
 * belongs to one thread. */
#pragma once

#include "base/kv.h"

/* Open the store in @dir (created with mode 0700; its parent must exist), locked by RocksDB against
 * a second process.
 *
 * @ret     owned by the caller on 0; close with (*ret)->ops->close(*ret)
 * @reterr  names the directory and RocksDB's reason
 *
 * Returns 0; ERR_CORRUPT (stop: restore this node, nothing is deleted here); -errno.
 * After close without flush the store holds some prefix of what was written. */
int kv_rocks_open(const char *dir, struct kv **ret, struct errtext *reterr) _must_check_;

/* RocksDB's text of the last failed call, "" when none failed. For the log line of the stop. */
void kv_rocks_last_error(struct kv *kv, struct errtext *ret);

/* Bytes in memtables and block cache, for status and metrics. */
uint64_t kv_rocks_memory_bytes(struct kv *kv);
