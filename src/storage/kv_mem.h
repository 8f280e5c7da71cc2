/* base/kv.h in memory, with a durable and a volatile plane: what RocksDB without its WAL promises,
 * and no more. For the simulator and for tests. Not thread-safe.
 * Its iterators forbid writes while open (asserted); the contract of kv.h would allow them. */
#pragma once

#include "base/kv.h"

/* Deterministic ordered store. @auto_flush_batches: make durable by itself after so many batches
 * (as a memtable flush would); 0 = only on kv flush. */
int kv_mem_new(size_t auto_flush_batches, struct kv **ret) _must_check_;
/* Power cut: keep the first @keep_unflushed of the batches written since the last flush, undo the
 * rest. @keep_unflushed is capped at their number. */
void kv_mem_crash(struct kv *kv, size_t keep_unflushed);
size_t kv_mem_unflushed(const struct kv *kv);
