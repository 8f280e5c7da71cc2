/* A state store of the simulated world: storage/kv_mem.h behind a table that can lose its power in
 * the middle of an install. Deterministic. Not thread-safe. */
#pragma once

#include "base/kv.h"

struct sim_kv;

/* @auto_flush_batches: as kv_mem_new. */
int sim_kv_new(size_t auto_flush_batches, struct sim_kv **ret) _must_check_;
struct sim_kv *sim_kv_free(struct sim_kv *k); /* NULL allowed */
/* The table to hand to the code under test; valid as long as @k. */
struct kv *sim_kv_interface(struct sim_kv *k);

/* The @nth operation on the staged store or flush from now (@at_switch: of those that make the
 * stage the store) fails: @err is ERR_CRASHED (the power goes before it; nothing works any more)
 * or, for stage_begin and stage_write, -ENOSPC. */
void sim_kv_set_fault(struct sim_kv *k, uint64_t nth, int err, bool at_switch);
void sim_kv_clear_fault(struct sim_kv *k);
bool sim_kv_crashed(const struct sim_kv *k);
bool sim_kv_fault_hit(const struct sim_kv *k); /* since set */
/* Nothing reaches the store any more. */
void sim_kv_kill(struct sim_kv *k);
/* The node starts again: of what was not flushed the first @permille thousandths are there. */
void sim_kv_crash(struct sim_kv *k, uint32_t permille);
/* Damage at rest of the record at @nth modulo their number; false when there is none. */
bool sim_kv_damage(struct sim_kv *k, uint64_t nth);
/* Every record has its checksum. */
bool sim_kv_intact(const struct sim_kv *k);
/* A state is being staged, or was left there. */
bool sim_kv_staged(const struct sim_kv *k);
uint64_t sim_kv_flushes(const struct sim_kv *k);
