/* The records of the state store and the items of commands as plain structs over borrowed bytes.
 *
 * The schemas are proto/chronos/internal/v1/command.proto; these tables say where wire.h puts each
 * field. Keys: "j" + big-endian sequence number, "w" + worker id, "n" + big-endian node id, "k" +
 * idempotency key, "s" + big-endian schedule, "i" + schedule's name, "t" + big-endian schedule +
 * big-endian ordinal, "m", "l".
 * Slices point into the decoded bytes and live as long as those do.
 * Pure. */
#pragma once

#include "fsm/wire.h"

#include "base/buf.h"
#include "base/codec.h"

#define RECORD_JOB_KEY_BYTES 9
#define RECORD_NODE_KEY_BYTES 9
#define RECORD_SCHEDULE_KEY_BYTES 9
#define RECORD_TICK_KEY_BYTES 17
#define RECORD_DISK_BYTES 16
#define RECORD_NAME_BYTES_MAX 128 /* the longest worker id, idempotency key, schedule's name */
#define RECORD_KEY_BYTES_MAX (1 + RECORD_NAME_BYTES_MAX)

struct record_job {
    struct slice spec;
    int32_t state; /* Chronos__V1__JobState */
    uint32_t attempt;
    uint32_t max_attempts;
    struct slice worker_id;
    uint64_t fencing_token;
    bool cancel_requested;
    int64_t created_at_ms;
    int64_t started_at_ms;
    int64_t finished_at_ms;
    int32_t exit_code;
    int32_t term_signal;
    int32_t failure_reason; /* Chronos__V1__FailureReason */
    struct slice failure_message;
    struct slice output_tail;
    uint64_t output_bytes;
    bool output_truncated;
    uint64_t created_index;
    uint64_t updated_index;
    struct slice queue;
    uint64_t lost_attempts;     /* attempts that counted against max_attempts and were lost */
    uint64_t released_attempts; /* given back: they count for nothing, but somebody should look */
    struct slice schedule;      /* whose run it is: name, number, generation */
    uint64_t schedule_seq;
    uint64_t schedule_generation;
    int64_t tick_s;
    int32_t tick_reason; /* Chronos__V1__TickReason */
    bool beside;         /* was allowed to start while other runs were open */
    bool kill;           /* with cancel_requested: no grace */
};

/* The scalar part of WorkerRecord; version and labels are copied as they came. */
struct record_worker {
    struct slice worker_id;
    uint64_t incarnation;
    uint32_t slots;
    uint64_t node_id;
    struct slice version;
    bool lost;
    uint64_t registered_index;
    bool draining; /* itself; its node's draining is in the node's record */
    int64_t drain_until_ms;
    uint64_t hello;
};

struct record_node {
    uint64_t node_id;
    struct slice disk;
    struct slice peer_address;
    struct slice client_address;
    uint32_t feature_max;
    bool draining;
    int64_t drain_until_ms;
    bool removed;
};

struct record_key {
    struct slice request_hash;
    uint64_t job_seq; /* keys are ordered by it */
    int64_t created_at_ms;
    uint64_t schedule_seq; /* the key is of a schedule's command; there is no such job */
    uint64_t first_ordinal;
    uint64_t ordinals;
};

/* All but the repeated buffered ticks. */
struct record_schedule {
    uint64_t seq;
    struct slice name;
    struct slice spec;
    struct slice job;
    uint64_t version;
    uint64_t generation;
    int64_t created_at_ms;
    int64_t updated_at_ms;
    int64_t watermark_s;
    bool paused;
    int64_t paused_until_ms;
    struct slice pause_reason;
    struct slice open_runs; /* packed numbers */
    uint64_t fired;
    uint64_t skipped;
    uint64_t next_ordinal;
    uint64_t first_ordinal;
    struct slice alarm;
    uint32_t max_attempts;
    struct slice queue;
    int32_t overlap; /* Chronos__V1__OverlapPolicy */
    bool pause_on_failure;
    uint64_t max_runs;
    uint64_t updated_index;
    int64_t resumed_ms;
    uint64_t runs_counted;
};

struct record_buffered {
    int64_t tick_s;
    uint64_t ordinal;
    int32_t reason; /* Chronos__V1__TickReason */
};

struct record_name {
    uint64_t seq;
};

struct record_tick {
    int64_t tick_s;
    int64_t last_tick_s;
    uint64_t count;
    bool fired;
    bool waiting;
    int32_t reason; /* Chronos__V1__TickReason */
    uint64_t job_seq;
    int64_t decided_at_ms;
    uint64_t generation;
    int32_t cause; /* Chronos__V1__TickReason */
};

struct item_submit {
    struct slice spec;
    struct slice idempotency_key;
    struct slice request_hash;
    uint32_t max_attempts;
    struct slice queue;
};

struct item_assign {
    uint64_t job_seq;
    struct slice worker_id;
    uint64_t worker_incarnation;
};

struct item_register {
    struct slice worker_id;
    uint64_t incarnation;
    uint32_t slots;
    uint64_t node_id;
    struct slice version;
    uint64_t hello;         /* of the process; 0: not counted */
    uint64_t applied_index; /* its node's at the hello; 0: not told */
};

struct item_held {
    uint64_t job_seq;
    uint64_t fencing_token;
};

struct item_update {
    uint64_t job_seq;
    uint64_t fencing_token;
    int32_t outcome; /* Chronos__V1__AttemptOutcome */
    int32_t reason;  /* Chronos__V1__FailureReason */
    struct slice message;
    int32_t exit_code;
    int32_t term_signal;
    struct slice output_tail;
    uint64_t output_bytes;
    bool output_truncated;
    bool started;
};

struct item_cancel {
    uint64_t job_seq;
};

struct item_lose {
    struct slice worker_id;
    uint64_t incarnation;
};

struct item_set_node {
    uint64_t node_id;
    struct slice disk;
    struct slice peer_address;
    struct slice client_address;
    uint32_t feature_max;
};

struct item_drain {
    uint64_t node_id;
    struct slice worker_id;
    bool on;
    int64_t timeout_ms;
};

struct item_set_feature_level {
    uint32_t level;
};

struct item_handover {
    int64_t at_ms;
    int64_t from_s;
    int64_t watermark_s;
    int64_t first_s;
    int64_t last_s;
    uint64_t count;
    bool keep_waiting;
};

struct item_put_schedule {
    struct slice name;
    struct slice spec;
    struct slice job;
    bool create;
    uint64_t version;
    bool new_generation;
    bool paused;
    struct slice idempotency_key;
    struct slice request_hash;
    uint32_t max_attempts;
    struct slice queue;
    int32_t overlap; /* Chronos__V1__OverlapPolicy */
    bool pause_on_failure;
    uint64_t max_runs;
    struct slice handover; /* an item_handover; empty = none */
};

struct item_delete_schedule {
    struct slice name;
    uint64_t version;
    bool cancel_open_runs;
};

struct item_pause_schedule {
    struct slice name;
    bool on;
    int64_t until_ms;
    struct slice reason;
};

/* The ticks are left to the caller. */
struct item_ticks {
    uint64_t schedule_seq;
    uint64_t generation;
    int64_t watermark_s;
};

struct item_tick {
    int64_t tick_s;
    int64_t last_tick_s;
    uint64_t count;
    int32_t reason; /* Chronos__V1__TickReason */
};

/* The ticks are left to the caller: packed or not. */
struct item_run_schedule {
    struct slice name;
    int32_t reason; /* Chronos__V1__TickReason */
    bool ignore_overlap;
    struct slice idempotency_key;
    struct slice request_hash;
};

struct item_schedule_alarm {
    uint64_t schedule_seq;
    struct slice text;
};

/* Room for the item of any command. */
union record_item {
    struct item_submit submit;
    struct item_assign assign;
    struct item_register reg;
    struct item_update update;
    struct item_cancel cancel;
    struct item_lose lose;
    struct item_set_node set_node;
    struct item_drain drain;
    struct item_set_feature_level set_feature_level;
    struct item_put_schedule put_schedule;
    struct item_delete_schedule delete_schedule;
    struct item_pause_schedule pause_schedule;
    struct item_ticks ticks;
    struct item_run_schedule run_schedule;
    struct item_schedule_alarm schedule_alarm;
};

/* Field numbers that the register and the worker record share, so that raw fields can be copied. */
enum {
    RECORD_WORKER_LABELS = 6,
    ITEM_REGISTER_HELD = 7,
};

/* Repeated fields, read one by one. */
enum {
    RECORD_SCHEDULE_BUFFERED = 14,
    ITEM_TICKS_TICK = 4,
    ITEM_RUN_TICK = 2,
};

/* A table and its length, for wire_decode and wire_encode. */
struct record_shape {
    const struct wire_desc *table;
    size_t len;
    size_t struct_bytes;
};

extern const struct record_shape record_shape_job;
extern const struct record_shape record_shape_worker;
extern const struct record_shape record_shape_node;
extern const struct record_shape record_shape_key;
extern const struct record_shape record_shape_submit;
extern const struct record_shape record_shape_assign;
extern const struct record_shape record_shape_register;
extern const struct record_shape record_shape_held;
extern const struct record_shape record_shape_update;
extern const struct record_shape record_shape_cancel;
extern const struct record_shape record_shape_lose;
extern const struct record_shape record_shape_set_node;
extern const struct record_shape record_shape_drain;
extern const struct record_shape record_shape_set_feature_level;
extern const struct record_shape record_shape_schedule;
extern const struct record_shape record_shape_buffered;
extern const struct record_shape record_shape_name;
extern const struct record_shape record_shape_tick;
extern const struct record_shape record_shape_put_schedule;
extern const struct record_shape record_shape_handover;
extern const struct record_shape record_shape_delete_schedule;
extern const struct record_shape record_shape_pause_schedule;
extern const struct record_shape record_shape_ticks;
extern const struct record_shape record_shape_item_tick;
extern const struct record_shape record_shape_run_schedule;
extern const struct record_shape record_shape_schedule_alarm;

/* Zero @out and decode. 0, or ERR_PROTO with *ret_offset. */
int record_decode(const struct record_shape *shape, struct slice bytes, void *out,
                  size_t *ret_offset) _must_check_;
/* Replace the content of @b by the encoding of @in. 0, -ENOMEM, ERR_LIMIT. */
int record_encode(const struct record_shape *shape, const void *in, struct buf *b) _must_check_;

static inline struct slice record_job_key(uint64_t seq, uint8_t out[RECORD_JOB_KEY_BYTES]) {
    out[0] = 'j';
    put_be64(out + 1, seq);
    return slice_of(out, RECORD_JOB_KEY_BYTES);
}

static inline struct slice record_node_key(uint64_t id, uint8_t out[RECORD_NODE_KEY_BYTES]) {
    out[0] = 'n';
    put_be64(out + 1, id);
    return slice_of(out, RECORD_NODE_KEY_BYTES);
}

static inline struct slice record_schedule_key(uint64_t seq,
                                               uint8_t out[RECORD_SCHEDULE_KEY_BYTES]) {
    out[0] = 's';
    put_be64(out + 1, seq);
    return slice_of(out, RECORD_SCHEDULE_KEY_BYTES);
}

static inline struct slice record_tick_key(uint64_t schedule_seq, uint64_t ordinal,
                                           uint8_t out[RECORD_TICK_KEY_BYTES]) {
    out[0] = 't';
    put_be64(out + 1, schedule_seq);
    put_be64(out + 9, ordinal);
    return slice_of(out, RECORD_TICK_KEY_BYTES);
}

/* @prefix is 'w', 'k' or 'i'; @name at most RECORD_NAME_BYTES_MAX. */
static inline struct slice record_name_key(char prefix, struct slice name,
                                           uint8_t out[RECORD_KEY_BYTES_MAX]) {
    ASSERT(name.len <= RECORD_NAME_BYTES_MAX);
    out[0] = (uint8_t) prefix;
    if (name.len > 0)
        memcpy(out + 1, name.data, name.len);
    return slice_of(out, 1 + name.len);
}
