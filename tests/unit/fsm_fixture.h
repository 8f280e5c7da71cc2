/* A state machine over kv_mem and short ways to build and apply commands. Tests only. */
#pragma once

#include "fsm/command.h"
#include "fsm/fsm.h"
#include "storage/kv_mem.h"

struct fixture {
    struct kv *kv;
    struct fsm *f;
    struct fsm_options options;
    int64_t now_ms; /* stamped on every command */
    uint64_t term;
    const struct fsm_output *out; /* of the last apply */
    struct errtext err;
};

void fixture_init(struct fixture *x, const struct fsm_options *o);
void fixture_done(struct fixture *x);
/* Close, optionally cut the power keeping @keep batches, open again. */
void fixture_reopen(struct fixture *x);
void fixture_crash(struct fixture *x, size_t keep_unflushed);

/* Apply ready-made bytes at the next index; returns fsm_apply's result. */
int fixture_apply(struct fixture *x, const struct bytes *command);
/* Encode @cmd, stamp it with now_ms. Owned by the caller. */
struct bytes *fixture_encode(const Chronos__Internal__V1__LogCommand *cmd, int64_t now_ms);

/* One-item commands. The caller owns the result. */
struct bytes *cmd_submit(const char *spec, const char *key, const char *hash, uint32_t max_attempts,
                         int64_t now_ms);
struct bytes *cmd_assign(uint64_t seq, const char *worker, uint64_t incarnation, int64_t now_ms);
struct bytes *cmd_register(const char *worker, uint64_t incarnation, uint32_t slots, uint64_t node,
                           const uint64_t (*held)[2], size_t held_count, int64_t now_ms);
/* With the count of the process's hellos, and what the node had applied at this one. */
struct bytes *cmd_hello(const char *worker, uint64_t incarnation, uint32_t slots, uint64_t node,
                        uint64_t hello, uint64_t applied_index, const uint64_t (*held)[2],
                        size_t held_count, int64_t now_ms);
struct bytes *cmd_update(uint64_t seq, uint64_t token, Chronos__V1__AttemptOutcome outcome,
                         Chronos__V1__FailureReason reason, int64_t now_ms);
/* RELEASED; @started: a process of the attempt had been started. */
struct bytes *cmd_release(uint64_t seq, uint64_t token, bool started, int64_t now_ms);
struct bytes *cmd_cancel(uint64_t seq, int64_t now_ms);
struct bytes *cmd_lose(const char *worker, uint64_t incarnation, int64_t now_ms);
/* @disk: every byte of the 16 of its disk; 0 = none is said. */
struct bytes *cmd_set_node(uint64_t node, uint8_t disk, const char *peer, const char *client,
                           uint32_t feature_max, int64_t now_ms);
/* Of @worker when it is not "", else of @node. */
struct bytes *cmd_drain(uint64_t node, const char *worker, bool on, int64_t timeout_ms,
                        int64_t now_ms);
struct bytes *cmd_set_feature_level(uint32_t level, int64_t now_ms);
/* An encoded RaftConfig of voters; node 1 has the address "n1:1" and so on. Owned. */
struct bytes *config_of(const uint64_t *ids, size_t count);
/* The same with @suffix behind each address. */
struct bytes *config_at(const uint64_t *ids, size_t count, const char *suffix);
/* Apply a CONFIG entry at the next index and free it; must succeed. */
void fixture_config(struct fixture *x, struct bytes *config);
/* A second store with all records of @from but its own local one, plus a LocalRecord: what a
 * snapshot leaves. @from must be written back. */
struct kv *fixture_copy_store(struct kv *from, uint64_t installed_index, uint64_t installed_term);

/* Apply and free; the result must be 0. Returns the code of the only item. */
enum fsm_code fixture_do(struct fixture *x, struct bytes *command);
enum fsm_code fixture_submit(struct fixture *x, uint32_t max_attempts);
/* Worker @id of node 1, holding nothing. */
enum fsm_code fixture_register(struct fixture *x, const char *id, uint64_t incarnation,
                               uint32_t slots);
enum fsm_code fixture_assign(struct fixture *x, uint64_t seq, const char *worker,
                             uint64_t incarnation);
enum fsm_code fixture_update(struct fixture *x, uint64_t seq, uint64_t token,
                             Chronos__V1__AttemptOutcome outcome);
/* fixture_init() with worker w1 (incarnation 7, @slots) and the pending jobs 1..@jobs. */
void fixture_world(struct fixture *x, uint32_t slots, unsigned jobs, uint32_t max_attempts);
