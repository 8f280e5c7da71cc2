/* base/kv.h in memory, with a durable and a volatile plane: what RocksDB without its WAL promises,
 * and no more. For the simulator and for tests. Not thread-safe.
 * An iterator holds the records of its opening: the first write after that copies the table (its
 * index; keys and values are shared), so a view costs as much as there are records.
 * Records have a checksum: get, iterators and verify report ERR_CORRUPT for damaged ones. */
#pragma once

#include "base/kv.h"

/* Deterministic ordered store. @auto_flush_batches: make durable by itself after so many batches
 * (as a memtable flush would); 0 = only on kv flush. */
int kv_mem_new(size_t auto_flush_batches, struct kv **ret) _must_check_;
/* Power cut. Keep the first @keep_unflushed of the batches written since the last flush, undo the
 * rest (@keep_unflushed is capped at their number); a staged store is gone. After stage_commit the
 * staged store is there instead, whole. No iterator may be open. */
void kv_mem_crash(struct kv *kv, size_t keep_unflushed);
/* Batches written since the last flush; those of a staged store do not count. */
size_t kv_mem_unflushed(const struct kv *kv);
/* A staged store was committed and not adopted yet: kv_mem_crash would show it. */
bool kv_mem_staged(const struct kv *kv); /* begun and neither adopted nor dropped */
bool kv_mem_stage_committed(const struct kv *kv);
/* Damage at rest: flip one bit of the record at @nth modulo their number. False when there is
 * none. */
bool kv_mem_damage(struct kv *kv, uint64_t nth);
