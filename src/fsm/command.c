#include "fsm/command.h"

#include "base/codec.h"
#include "fsm/fsm.h"
#include "fsm/record.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define BODY(x) CHRONOS__INTERNAL__V1__LOG_COMMAND__BODY_##x
#define FIELD_VERSION 1
#define FIELD_NOW_MS 100
#define FIELD_ITEMS 1
#define STAMP_PLACEHOLDER UINT64_MAX /* proto3 would leave out a zero */

/* Field 100, wire type fixed64, as a varint. */
static const uint8_t stamp_tag[] = {0xa1, 0x06};
STATIC_ASSERT(((FIELD_NOW_MS << 3) | 1) == (0x21 | (0x06 << 7)), "the tag's two bytes");
STATIC_ASSERT(sizeof(stamp_tag) + 8 == COMMAND_STAMP_BYTES, "tag and value");

static const struct command_kind kinds[COMMAND_BODY_MAX + 1] = {
    [BODY(SUBMIT_JOB)] = {"SubmitJob", &record_shape_submit, true},
    [BODY(ASSIGN_JOB)] = {"AssignJob", &record_shape_assign, true},
    [BODY(REGISTER_WORKER)] = {"RegisterWorker", &record_shape_register, true},
    [BODY(UPDATE_JOB_STATUS)] = {"UpdateJobStatus", &record_shape_update, false},
    [BODY(BATCH_UPDATE_JOB_STATUS)] = {"BatchUpdateJobStatus", &record_shape_update, true},
    [BODY(CANCEL_JOB)] = {"CancelJob", &record_shape_cancel, true},
    [BODY(LOSE_WORKER)] = {"LoseWorker", &record_shape_lose, true},
    [BODY(SET_NODE)] = {"SetNode", &record_shape_set_node, false},
    [BODY(DRAIN)] = {"Drain", &record_shape_drain, false},
    [BODY(SET_FEATURE_LEVEL)] = {"SetFeatureLevel", &record_shape_set_feature_level, false},
    [BODY(PUT_SCHEDULE)] = {"PutSchedule", &record_shape_put_schedule, false},
    [BODY(DELETE_SCHEDULE)] = {"DeleteSchedule", &record_shape_delete_schedule, false},
    [BODY(PAUSE_SCHEDULE)] = {"PauseSchedule", &record_shape_pause_schedule, false},
    [BODY(PROCESS_TICKS)] = {"ProcessTicks", &record_shape_ticks, true},
    [BODY(RUN_SCHEDULE)] = {"RunSchedule", &record_shape_run_schedule, false},
    [BODY(SET_SCHEDULE_ALARM)] = {"SetScheduleAlarm", &record_shape_schedule_alarm, false},
};

const struct command_kind *command_kind_of(Chronos__Internal__V1__LogCommand__BodyCase kind) {
    ASSERT(kind <= COMMAND_BODY_MAX);
    ASSERT(kinds[kind].name);
    return &kinds[kind];
}

int command_encode(const Chronos__Internal__V1__LogCommand *cmd, struct bytes **ret) {
    Chronos__Internal__V1__LogCommand copy;
    struct bytes *b;
    size_t n, packed;

    ASSERT(cmd);
    ASSERT(cmd->body_case != CHRONOS__INTERNAL__V1__LOG_COMMAND__BODY__NOT_SET);
    copy = *cmd;
    copy.version = FSM_COMMAND_VERSION;
    copy.now_ms = STAMP_PLACEHOLDER;
    n = chronos__internal__v1__log_command__get_packed_size(&copy);
    if (n > UINT32_MAX / 2)
        return ERR_LIMIT;
    b = bytes_new(n);
    if (!b)
        return -ENOMEM;
    packed = chronos__internal__v1__log_command__pack(&copy, b->data);
    ASSERT(packed == n);
    ASSERT(memcmp(b->data + n - COMMAND_STAMP_BYTES, stamp_tag, sizeof(stamp_tag)) == 0);
    *ret = b;
    return 0;
}

void command_stamp(struct bytes *b, struct wall now) {
    ASSERT(b);
    ASSERT(b->len >= COMMAND_STAMP_BYTES);
    ASSERT(memcmp(b->data + b->len - COMMAND_STAMP_BYTES, stamp_tag, sizeof(stamp_tag)) == 0);
    put_le64(b->data + b->len - 8, now.ms > 0 ? (uint64_t) now.ms : 0);
}

struct command_items command_items_of(const struct command_view *v) {
    ASSERT(v);
    ASSERT(v->kind <= COMMAND_BODY_MAX);
    return (struct command_items){
        .reader = wire_reader_of(v->body),
        .batch = kinds[v->kind].batch,
        .single_left = !kinds[v->kind].batch,
    };
}

int command_items_next(struct command_items *it, struct slice *ret) {
    struct wire_field f;
    int r;

    ASSERT(it);
    ASSERT(ret);
    if (!it->batch) {
        if (!it->single_left)
            return COMMAND_ITEMS_END;
        it->single_left = false;
        *ret = slice_of(it->reader.begin, (size_t) (it->reader.end - it->reader.begin));
        return 0;
    }
    for (;;) {
        r = wire_next(&it->reader, &f);
        if (r != 0)
            return r == WIRE_END ? COMMAND_ITEMS_END : r;
        if (f.number != FIELD_ITEMS)
            continue;
        if (f.type != WIRE_LEN)
            return ERR_PROTO;
        *ret = f.bytes;
        return 0;
    }
}

/* One field of the outer message. */
static int take_field(struct command_view *v, const struct wire_field *f, uint64_t *version,
                      size_t at, struct errtext *reterr) {
    if (f->number == FIELD_VERSION && f->type == WIRE_VARINT) {
        *version = f->value;
        if (f->value == FSM_COMMAND_VERSION)
            return 0;
        errtext_set(reterr, "command version %" PRIu64 " at byte %zu: this program knows %d",
                    f->value, at, FSM_COMMAND_VERSION);
        return ERR_VERSION;
    }
    if (f->number == FIELD_NOW_MS && f->type == WIRE_FIXED64) {
        /* The largest value is the placeholder of a command that the leader has not stamped. */
        v->now_ms = f->value <= INT64_MAX ? (int64_t) f->value : -1;
        return 0;
    }
    if (f->number > FIELD_VERSION && f->number <= COMMAND_BODY_MAX && f->type == WIRE_LEN) {
        if (v->kind != CHRONOS__INTERNAL__V1__LOG_COMMAND__BODY__NOT_SET) {
            errtext_set(reterr, "command with two bodies, the second at byte %zu", at);
            return ERR_PROTO;
        }
        v->kind = (Chronos__Internal__V1__LogCommand__BodyCase) f->number;
        v->body = f->bytes;
        return 0;
    }
    if (f->number <= COMMAND_BODY_MAX || f->number == FIELD_NOW_MS) {
        errtext_set(reterr, "command field %" PRIu32 " at byte %zu has the wrong wire type",
                    f->number, at);
        return ERR_PROTO;
    }
    errtext_set(reterr, "command body %" PRIu32 " at byte %zu is unknown to this program",
                f->number, at);
    return ERR_VERSION;
}

/* The ticks of one item, each well-formed; *count goes on from item to item. */
static int check_ticks(struct slice item, size_t *count, size_t *ret_offset) {
    struct wire_reader r = wire_reader_of(item);
    struct item_tick tick;
    struct wire_field f;
    int res;

    while ((res = wire_next(&r, &f)) == 0) {
        *ret_offset = wire_offset(&r);
        if (f.number != ITEM_TICKS_TICK)
            continue;
        if (f.type != WIRE_LEN || ++*count > FSM_TICKS_MAX ||
            record_decode(&record_shape_item_tick, f.bytes, &tick, ret_offset) < 0)
            return ERR_PROTO;
    }
    return res < 0 ? res : 0;
}

/* The instants of a run by hand: packed numbers, or one by one. */
static int check_instants(struct slice item, size_t *ret_offset) {
    struct wire_reader r = wire_reader_of(item);
    struct wire_field f;
    uint64_t v;
    int res;

    while ((res = wire_next(&r, &f)) == 0) {
        struct wire_reader numbers;

        *ret_offset = wire_offset(&r);
        if (f.number != ITEM_RUN_TICK || f.type == WIRE_VARINT)
            continue;
        if (f.type != WIRE_LEN)
            return ERR_PROTO;
        numbers = wire_reader_of(f.bytes);
        while ((res = wire_next_varint(&numbers, &v)) == 0)
            ;
        if (res < 0)
            return res;
    }
    return res < 0 ? res : 0;
}

/* Decoded as a part of its own when it is applied. */
static int check_handover(struct slice bytes, size_t *ret_offset) {
    struct item_handover h;

    return record_decode(&record_shape_handover, bytes, &h, ret_offset);
}

static int count_items(struct command_view *v, struct errtext *reterr) {
    struct command_items it = command_items_of(v);
    struct slice item;
    int r;

    while ((r = command_items_next(&it, &item)) == 0) {
        if (++v->items_count > FSM_ITEMS_MAX) {
            errtext_set(reterr, "%s with more than %d items", kinds[v->kind].name, FSM_ITEMS_MAX);
            return ERR_PROTO;
        }
    }
    if (r < 0)
        errtext_set(reterr, "%s: malformed at byte %zu of its body", kinds[v->kind].name,
                    wire_offset(&it.reader));
    return r < 0 ? r : 0;
}

int command_parse(struct slice command, struct command_view *ret, struct errtext *reterr) {
    struct wire_reader reader = wire_reader_of(command);
    struct command_view v = {.now_ms = 0};
    uint64_t version = 0;
    struct wire_field f;
    int r;

    ASSERT(ret);
    for (;;) {
        size_t at = wire_offset(&reader);

        r = wire_next(&reader, &f);
        if (r == WIRE_END)
            break;
        if (r < 0) {
            errtext_set(reterr, "command of %zu bytes: malformed at byte %zu", command.len, at);
            return r;
        }
        r = take_field(&v, &f, &version, at, reterr);
        if (r < 0)
            return r;
    }
    if (version == 0 || v.kind == CHRONOS__INTERNAL__V1__LOG_COMMAND__BODY__NOT_SET) {
        errtext_set(reterr, version == 0 ? "command without a version" : "command without a body");
        return ERR_VERSION;
    }
    v.stamp_is_last = command.len >= COMMAND_STAMP_BYTES &&
                      memcmp(command.data + command.len - COMMAND_STAMP_BYTES, stamp_tag,
                             sizeof(stamp_tag)) == 0 &&
                      f.number == FIELD_NOW_MS;
    r = count_items(&v, reterr);
    if (r < 0)
        return r;
    *ret = v;
    return 0;
}

/* What the item's table leaves to the caller: the held attempts of a registration. */
static int check_held(struct slice item, size_t *ret_offset) {
    struct wire_reader r = wire_reader_of(item);
    struct item_held held;
    struct wire_field f;
    int res;

    while ((res = wire_next(&r, &f)) == 0) {
        *ret_offset = wire_offset(&r);
        if (f.number == ITEM_REGISTER_HELD &&
            record_decode(&record_shape_held, f.bytes, &held, ret_offset) < 0)
            return ERR_PROTO;
    }
    return res < 0 ? res : 0;
}

int command_check(struct slice command, struct errtext *reterr) {
    union record_item out;
    struct command_view v;
    struct command_items it;
    struct slice item;
    size_t n = 0, at = 0, ticks = 0;
    int r;

    r = command_parse(command, &v, reterr);
    if (r < 0)
        return r;
    if (!v.stamp_is_last) {
        errtext_set(reterr, "command of %zu bytes does not end with its time", command.len);
        return ERR_PROTO;
    }
    it = command_items_of(&v);
    while ((r = command_items_next(&it, &item)) == 0) {
        ASSERT(kinds[v.kind].item->struct_bytes <= sizeof(out));
        r = record_decode(kinds[v.kind].item, item, &out, &at);
        if (r == 0 && v.kind == BODY(REGISTER_WORKER))
            r = check_held(item, &at);
        if (r == 0 && v.kind == BODY(PUT_SCHEDULE))
            r = check_handover(out.put_schedule.handover, &at);
        if (r == 0 && v.kind == BODY(PROCESS_TICKS))
            r = check_ticks(item, &ticks, &at);
        if (r == 0 && v.kind == BODY(RUN_SCHEDULE))
            r = check_instants(item, &at);
        if (r == 0 && v.kind == BODY(SET_FEATURE_LEVEL) &&
            out.set_feature_level.level > FSM_FEATURE_LEVEL_MAX) {
            errtext_set(reterr, "SetFeatureLevel %" PRIu32 ": this program knows levels up to %d",
                        out.set_feature_level.level, FSM_FEATURE_LEVEL_MAX);
            return ERR_VERSION;
        }
        if (ticks > FSM_TICKS_MAX) {
            errtext_set(reterr, "%s with more than %d ticks", kinds[v.kind].name, FSM_TICKS_MAX);
            return ERR_PROTO;
        }
        if (r < 0) {
            errtext_set(reterr, "%s item %zu: malformed at byte %zu", kinds[v.kind].name, n, at);
            return r;
        }
        n++;
    }
    ASSERT(r == COMMAND_ITEMS_END);
    return 0;
}

/* The commands that are one item each, of the operator's kind. */
static void describe_admin(Chronos__Internal__V1__LogCommand__BodyCase kind,
                           const union record_item *o, char *out, size_t out_bytes) {
    const char *name = kinds[kind].name;

    if (kind == BODY(SET_NODE))
        (void) snprintf(out, out_bytes,
                        "%s node=%" PRIu64 " peer=%.*s client=%.*s feature_max=%" PRIu32, name,
                        o->set_node.node_id, (int) MIN(o->set_node.peer_address.len, 128UL),
                        (const char *) o->set_node.peer_address.data,
                        (int) MIN(o->set_node.client_address.len, 128UL),
                        (const char *) o->set_node.client_address.data, o->set_node.feature_max);
    else if (kind == BODY(SET_FEATURE_LEVEL))
        (void) snprintf(out, out_bytes, "%s level=%" PRIu32, name, o->set_feature_level.level);
    else if (o->drain.worker_id.len > 0)
        (void) snprintf(out, out_bytes, "%s %s worker %.*s timeout_ms=%" PRId64, name,
                        o->drain.on ? "on" : "off", (int) MIN(o->drain.worker_id.len, 64UL),
                        (const char *) o->drain.worker_id.data, o->drain.timeout_ms);
    else
        (void) snprintf(out, out_bytes, "%s %s node=%" PRIu64 " timeout_ms=%" PRId64, name,
                        o->drain.on ? "on" : "off", o->drain.node_id, o->drain.timeout_ms);
}

static void describe_schedule(const struct command_view *v, const union record_item *o, char *out,
                              size_t out_bytes) {
    const char *name = kinds[v->kind].name;
    struct slice who = o->put_schedule.name;

    if (v->kind == BODY(PROCESS_TICKS)) {
        (void) snprintf(
            out, out_bytes,
            "%s items=%zu first: schedule %" PRIu64 " generation=%" PRIu64 " watermark_s=%" PRId64,
            name, v->items_count, o->ticks.schedule_seq, o->ticks.generation, o->ticks.watermark_s);
        return;
    }
    if (v->kind == BODY(SET_SCHEDULE_ALARM)) {
        (void) snprintf(out, out_bytes, "%s schedule %" PRIu64 " %s", name,
                        o->schedule_alarm.schedule_seq,
                        o->schedule_alarm.text.len > 0 ? "on" : "off");
        return;
    }
    if (v->kind == BODY(DELETE_SCHEDULE))
        who = o->delete_schedule.name;
    else if (v->kind == BODY(PAUSE_SCHEDULE))
        who = o->pause_schedule.name;
    else if (v->kind == BODY(RUN_SCHEDULE))
        who = o->run_schedule.name;
    (void) snprintf(out, out_bytes, "%s %s%.*s%s", name, who.len > 0 ? "" : "all",
                    (int) MIN(who.len, 128UL), (const char *) who.data,
                    v->kind != BODY(PAUSE_SCHEDULE) ? ""
                    : o->pause_schedule.on          ? " on"
                                                    : " off");
}

static void describe_first(const struct command_view *v, char *out, size_t out_bytes) {
    struct command_items it = command_items_of(v);
    const char *name = kinds[v->kind].name;
    struct slice item;
    size_t at;
    union record_item o;

    if (command_items_next(&it, &item) != 0 ||
        record_decode(kinds[v->kind].item, item, &o, &at) < 0) {
        (void) snprintf(out, out_bytes, "%s items=%zu", name, v->items_count);
        return;
    }
    switch (v->kind) {
    case BODY(SUBMIT_JOB):
        (void) snprintf(out, out_bytes, "%s items=%zu first: spec of %zu bytes", name,
                        v->items_count, o.submit.spec.len);
        break;
    case BODY(ASSIGN_JOB):
        (void) snprintf(out, out_bytes, "%s items=%zu first: job %" PRIu64 " to worker %.*s", name,
                        v->items_count, o.assign.job_seq, (int) MIN(o.assign.worker_id.len, 64UL),
                        (const char *) o.assign.worker_id.data);
        break;
    case BODY(REGISTER_WORKER):
        (void) snprintf(out, out_bytes,
                        "%s items=%zu first: worker %.*s slots=%" PRIu32 " node=%" PRIu64, name,
                        v->items_count, (int) MIN(o.reg.worker_id.len, 64UL),
                        (const char *) o.reg.worker_id.data, o.reg.slots, o.reg.node_id);
        break;
    case BODY(UPDATE_JOB_STATUS):
    case BODY(BATCH_UPDATE_JOB_STATUS):
        (void) snprintf(out, out_bytes,
                        "%s items=%zu first: job %" PRIu64 " token=%" PRIu64 " outcome=%" PRId32,
                        name, v->items_count, o.update.job_seq, o.update.fencing_token,
                        o.update.outcome);
        break;
    case BODY(CANCEL_JOB):
        (void) snprintf(out, out_bytes, "%s items=%zu first: job %" PRIu64, name, v->items_count,
                        o.cancel.job_seq);
        break;
    case BODY(LOSE_WORKER):
        (void) snprintf(out, out_bytes, "%s items=%zu first: worker %.*s", name, v->items_count,
                        (int) MIN(o.lose.worker_id.len, 64UL),
                        (const char *) o.lose.worker_id.data);
        break;
    case BODY(SET_NODE):
    case BODY(DRAIN):
    case BODY(SET_FEATURE_LEVEL):
        describe_admin(v->kind, &o, out, out_bytes);
        break;
    case BODY(PUT_SCHEDULE):
    case BODY(DELETE_SCHEDULE):
    case BODY(PAUSE_SCHEDULE):
    case BODY(PROCESS_TICKS):
    case BODY(RUN_SCHEDULE):
    case BODY(SET_SCHEDULE_ALARM):
        describe_schedule(v, &o, out, out_bytes);
        break;
    case CHRONOS__INTERNAL__V1__LOG_COMMAND__BODY__NOT_SET:
    case _CHRONOS__INTERNAL__V1__LOG_COMMAND__BODY__CASE_IS_INT_SIZE:
        break;
    }
}

void fsm_command_describe(struct slice command, char *out, size_t out_bytes, int64_t *ret_now_ms) {
    struct errtext why = {0};
    struct command_view v;

    ASSERT(out_bytes > 0);
    ASSERT(ret_now_ms);
    out[0] = '\0';
    *ret_now_ms = 0;
    if (command.len == 0)
        return; /* a no-op or configuration entry */
    if (command_parse(command, &v, &why) < 0) {
        (void) snprintf(out, out_bytes, "unreadable: %s", why.s);
        return;
    }
    *ret_now_ms = MAX(v.now_ms, 0);
    describe_first(&v, out, out_bytes);
    for (char *c = out; *c; c++) /* names come from the log: one line, whatever they hold */
        if ((unsigned char) *c < 0x20 || *c == 0x7f)
            *c = '?';
}
