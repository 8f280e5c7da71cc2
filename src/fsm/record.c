#include "fsm/record.h"

#include <string.h>

#define F(s, m, k) WIRE_FIELD(s, m, WIRE_KIND_##k)
#define NESTED                                                                                     \
    { .kind = WIRE_KIND_NESTED }
#define SHAPE(name, struct_name)                                                                   \
    const struct record_shape record_shape_##name = {                                              \
        .table = name##_fields,                                                                    \
        .len = ARRAY_LEN(name##_fields),                                                           \
        .struct_bytes = sizeof(struct struct_name),                                                \
    }

static const struct wire_desc job_fields[] = {
    [1] = F(record_job, spec, BYTES),
    [2] = F(record_job, state, I32),
    [3] = F(record_job, attempt, U32),
    [4] = F(record_job, max_attempts, U32),
    [5] = F(record_job, worker_id, BYTES),
    [6] = F(record_job, fencing_token, U64),
    [7] = F(record_job, cancel_requested, BOOL),
    [8] = F(record_job, created_at_ms, I64),
    [9] = F(record_job, started_at_ms, I64),
    [10] = F(record_job, finished_at_ms, I64),
    [11] = F(record_job, exit_code, I32),
    [12] = F(record_job, term_signal, I32),
    [13] = F(record_job, failure_reason, I32),
    [14] = F(record_job, failure_message, BYTES),
    [15] = F(record_job, output_tail, BYTES),
    [16] = F(record_job, output_bytes, U64),
    [17] = F(record_job, output_truncated, BOOL),
    [18] = F(record_job, created_index, U64),
    [19] = F(record_job, updated_index, U64),
    [20] = F(record_job, queue, BYTES),
    [21] = F(record_job, lost_attempts, U64),
    [22] = F(record_job, released_attempts, U64),
    [23] = F(record_job, schedule, BYTES),
    [24] = F(record_job, schedule_seq, U64),
    [25] = F(record_job, schedule_generation, U64),
    [26] = F(record_job, tick_s, I64),
    [27] = F(record_job, tick_reason, I32),
    [28] = F(record_job, beside, BOOL),
    [29] = F(record_job, kill, BOOL),
};
SHAPE(job, record_job);

static const struct wire_desc worker_fields[] = {
    [1] = F(record_worker, worker_id, BYTES), [2] = F(record_worker, incarnation, FIXED64),
    [3] = F(record_worker, slots, U32),       [4] = F(record_worker, node_id, U64),
    [5] = F(record_worker, version, BYTES),   [RECORD_WORKER_LABELS] = NESTED,
    [7] = F(record_worker, lost, BOOL),       [8] = F(record_worker, registered_index, U64),
    [9] = F(record_worker, draining, BOOL),   [10] = F(record_worker, drain_until_ms, I64),
    [11] = F(record_worker, hello, U64),
};
SHAPE(worker, record_worker);

static const struct wire_desc node_fields[] = {
    [1] = F(record_node, node_id, U64),        [2] = F(record_node, disk, BYTES),
    [3] = F(record_node, peer_address, BYTES), [4] = F(record_node, client_address, BYTES),
    [5] = F(record_node, feature_max, U32),    [6] = F(record_node, draining, BOOL),
    [7] = F(record_node, drain_until_ms, I64), [8] = F(record_node, removed, BOOL),
};
SHAPE(node, record_node);

static const struct wire_desc key_fields[] = {
    [1] = F(record_key, request_hash, BYTES), [2] = F(record_key, job_seq, U64),
    [3] = F(record_key, created_at_ms, I64),  [4] = F(record_key, schedule_seq, U64),
    [5] = F(record_key, first_ordinal, U64),  [6] = F(record_key, ordinals, U64),
};
SHAPE(key, record_key);

static const struct wire_desc submit_fields[] = {
    [1] = F(item_submit, spec, BYTES),         [2] = F(item_submit, idempotency_key, BYTES),
    [3] = F(item_submit, request_hash, BYTES), [4] = F(item_submit, max_attempts, U32),
    [5] = F(item_submit, queue, BYTES),
};
SHAPE(submit, item_submit);

static const struct wire_desc assign_fields[] = {
    [1] = F(item_assign, job_seq, U64),
    [2] = F(item_assign, worker_id, BYTES),
    [3] = F(item_assign, worker_incarnation, FIXED64),
};
SHAPE(assign, item_assign);

static const struct wire_desc register_fields[] = {
    [1] = F(item_register, worker_id, BYTES),
    [2] = F(item_register, incarnation, FIXED64),
    [3] = F(item_register, slots, U32),
    [4] = F(item_register, node_id, U64),
    [5] = F(item_register, version, BYTES),
    [RECORD_WORKER_LABELS] = NESTED,
    [ITEM_REGISTER_HELD] = NESTED,
    [8] = F(item_register, hello, U64),
    [9] = F(item_register, applied_index, U64),
};
SHAPE(register, item_register);

static const struct wire_desc held_fields[] = {
    [1] = F(item_held, job_seq, U64),
    [2] = F(item_held, fencing_token, U64),
};
SHAPE(held, item_held);

static const struct wire_desc update_fields[] = {
    [1] = F(item_update, job_seq, U64),      [2] = F(item_update, fencing_token, U64),
    [3] = F(item_update, outcome, I32),      [4] = F(item_update, reason, I32),
    [5] = F(item_update, message, BYTES),    [6] = F(item_update, exit_code, I32),
    [7] = F(item_update, term_signal, I32),  [8] = F(item_update, output_tail, BYTES),
    [9] = F(item_update, output_bytes, U64), [10] = F(item_update, output_truncated, BOOL),
    [11] = F(item_update, started, BOOL),
};
SHAPE(update, item_update);

static const struct wire_desc cancel_fields[] = {[1] = F(item_cancel, job_seq, U64)};
SHAPE(cancel, item_cancel);

static const struct wire_desc lose_fields[] = {
    [1] = F(item_lose, worker_id, BYTES),
    [2] = F(item_lose, incarnation, FIXED64),
};
SHAPE(lose, item_lose);

static const struct wire_desc set_node_fields[] = {
    [1] = F(item_set_node, node_id, U64),        [2] = F(item_set_node, disk, BYTES),
    [3] = F(item_set_node, peer_address, BYTES), [4] = F(item_set_node, client_address, BYTES),
    [5] = F(item_set_node, feature_max, U32),
};
SHAPE(set_node, item_set_node);

static const struct wire_desc drain_fields[] = {
    [1] = F(item_drain, node_id, U64),
    [2] = F(item_drain, worker_id, BYTES),
    [3] = F(item_drain, on, BOOL),
    [4] = F(item_drain, timeout_ms, I64),
};
SHAPE(drain, item_drain);

static const struct wire_desc set_feature_level_fields[] = {
    [1] = F(item_set_feature_level, level, U32),
};
SHAPE(set_feature_level, item_set_feature_level);

static const struct wire_desc schedule_fields[] = {
    [1] = F(record_schedule, seq, U64),
    [2] = F(record_schedule, name, BYTES),
    [3] = F(record_schedule, spec, BYTES),
    [4] = F(record_schedule, job, BYTES),
    [5] = F(record_schedule, version, U64),
    [6] = F(record_schedule, generation, U64),
    [7] = F(record_schedule, created_at_ms, I64),
    [8] = F(record_schedule, updated_at_ms, I64),
    [9] = F(record_schedule, watermark_s, I64),
    [10] = F(record_schedule, paused, BOOL),
    [11] = F(record_schedule, paused_until_ms, I64),
    [12] = F(record_schedule, pause_reason, BYTES),
    [13] = F(record_schedule, open_runs, BYTES),
    [RECORD_SCHEDULE_BUFFERED] = NESTED,
    [15] = F(record_schedule, fired, U64),
    [16] = F(record_schedule, skipped, U64),
    [17] = F(record_schedule, next_ordinal, U64),
    [18] = F(record_schedule, first_ordinal, U64),
    [19] = F(record_schedule, alarm, BYTES),
    [20] = F(record_schedule, max_attempts, U32),
    [21] = F(record_schedule, queue, BYTES),
    [22] = F(record_schedule, overlap, I32),
    [23] = F(record_schedule, pause_on_failure, BOOL),
    [24] = F(record_schedule, max_runs, U64),
    [25] = F(record_schedule, updated_index, U64),
    [26] = F(record_schedule, resumed_ms, I64),
    [27] = F(record_schedule, runs_counted, U64),
};
SHAPE(schedule, record_schedule);

static const struct wire_desc buffered_fields[] = {
    [1] = F(record_buffered, tick_s, I64),
    [2] = F(record_buffered, ordinal, U64),
    [3] = F(record_buffered, reason, I32),
};
SHAPE(buffered, record_buffered);

static const struct wire_desc name_fields[] = {
    [1] = F(record_name, seq, U64),
};
SHAPE(name, record_name);

static const struct wire_desc tick_fields[] = {
    [1] = F(record_tick, tick_s, I64),     [2] = F(record_tick, last_tick_s, I64),
    [3] = F(record_tick, count, U64),      [4] = F(record_tick, fired, BOOL),
    [5] = F(record_tick, waiting, BOOL),   [6] = F(record_tick, reason, I32),
    [7] = F(record_tick, job_seq, U64),    [8] = F(record_tick, decided_at_ms, I64),
    [9] = F(record_tick, generation, U64), [10] = F(record_tick, cause, I32),
};
SHAPE(tick, record_tick);

static const struct wire_desc put_schedule_fields[] = {
    [1] = F(item_put_schedule, name, BYTES),
    [2] = F(item_put_schedule, spec, BYTES),
    [3] = F(item_put_schedule, job, BYTES),
    [4] = F(item_put_schedule, create, BOOL),
    [5] = F(item_put_schedule, version, U64),
    [6] = F(item_put_schedule, new_generation, BOOL),
    [7] = F(item_put_schedule, paused, BOOL),
    [8] = F(item_put_schedule, idempotency_key, BYTES),
    [9] = F(item_put_schedule, request_hash, BYTES),
    [10] = F(item_put_schedule, max_attempts, U32),
    [11] = F(item_put_schedule, queue, BYTES),
    [12] = F(item_put_schedule, overlap, I32),
    [13] = F(item_put_schedule, pause_on_failure, BOOL),
    [14] = F(item_put_schedule, max_runs, U64),
    [16] = F(item_put_schedule, handover, BYTES),
};
SHAPE(put_schedule, item_put_schedule);

static const struct wire_desc handover_fields[] = {
    [1] = F(item_handover, at_ms, I64),         [2] = F(item_handover, from_s, I64),
    [3] = F(item_handover, watermark_s, I64),   [4] = F(item_handover, first_s, I64),
    [5] = F(item_handover, last_s, I64),        [6] = F(item_handover, count, U64),
    [7] = F(item_handover, keep_waiting, BOOL),
};
SHAPE(handover, item_handover);

static const struct wire_desc delete_schedule_fields[] = {
    [1] = F(item_delete_schedule, name, BYTES),
    [2] = F(item_delete_schedule, version, U64),
    [3] = F(item_delete_schedule, cancel_open_runs, BOOL),
};
SHAPE(delete_schedule, item_delete_schedule);

static const struct wire_desc pause_schedule_fields[] = {
    [1] = F(item_pause_schedule, name, BYTES),
    [2] = F(item_pause_schedule, on, BOOL),
    [3] = F(item_pause_schedule, until_ms, I64),
    [4] = F(item_pause_schedule, reason, BYTES),
};
SHAPE(pause_schedule, item_pause_schedule);

static const struct wire_desc ticks_fields[] = {
    [1] = F(item_ticks, schedule_seq, U64),
    [2] = F(item_ticks, generation, U64),
    [3] = F(item_ticks, watermark_s, I64),
    [ITEM_TICKS_TICK] = NESTED,
};
SHAPE(ticks, item_ticks);

static const struct wire_desc item_tick_fields[] = {
    [1] = F(item_tick, tick_s, I64),
    [2] = F(item_tick, last_tick_s, I64),
    [3] = F(item_tick, count, U64),
    [4] = F(item_tick, reason, I32),
};
SHAPE(item_tick, item_tick);

static const struct wire_desc run_schedule_fields[] = {
    [1] = F(item_run_schedule, name, BYTES),
    [3] = F(item_run_schedule, reason, I32),
    [4] = F(item_run_schedule, ignore_overlap, BOOL),
    [5] = F(item_run_schedule, idempotency_key, BYTES),
    [6] = F(item_run_schedule, request_hash, BYTES),
};
SHAPE(run_schedule, item_run_schedule);

static const struct wire_desc schedule_alarm_fields[] = {
    [1] = F(item_schedule_alarm, schedule_seq, U64),
    [2] = F(item_schedule_alarm, text, BYTES),
};
SHAPE(schedule_alarm, item_schedule_alarm);

int record_decode(const struct record_shape *shape, struct slice bytes, void *out,
                  size_t *ret_offset) {
    ASSERT(shape);
    ASSERT(out);
    memset(out, 0, shape->struct_bytes);
    return wire_decode(bytes, shape->table, shape->len, out, ret_offset);
}

int record_encode(const struct record_shape *shape, const void *in, struct buf *b) {
    size_t room = wire_encode_bytes_max(shape->table, shape->len, in);
    uint8_t *end;
    int r;

    ASSERT(in);
    ASSERT(b);
    buf_clear(b);
    r = buf_reserve(b, room);
    if (r < 0)
        return r;
    end = wire_encode(shape->table, shape->len, in, b->data);
    b->len = (size_t) (end - b->data);
    ASSERT(b->len <= room);
    return 0;
}
