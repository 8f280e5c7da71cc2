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
};
SHAPE(job, record_job);

static const struct wire_desc worker_fields[] = {
    [1] = F(record_worker, worker_id, BYTES), [2] = F(record_worker, incarnation, FIXED64),
    [3] = F(record_worker, slots, U32),       [4] = F(record_worker, node_id, U64),
    [5] = F(record_worker, version, BYTES),   [RECORD_WORKER_LABELS] = NESTED,
    [7] = F(record_worker, lost, BOOL),       [8] = F(record_worker, registered_index, U64),
    [9] = F(record_worker, draining, BOOL),   [10] = F(record_worker, drain_until_ms, I64),
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
    [1] = F(record_key, request_hash, BYTES),
    [2] = F(record_key, job_seq, U64),
    [3] = F(record_key, created_at_ms, I64),
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
