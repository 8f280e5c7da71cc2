/* RunSchedule: by hand, now (trigger) or for past instants (backfill).
 *
 * "Both honour overlap unless told not to" (C14). Neither a pause nor max_runs holds what somebody
 * asked for, and the watermark stays where it is. */
#include "fsm/schedule_internal.h"

#define REQUEST_HASH_BYTES_MAX 64

struct instants {
    size_t count;
    int64_t first_s, last_s;
    bool ascend;
};

typedef int each_fn(struct fsm *f, struct apply *a, const struct item_run_schedule *s,
                    int64_t tick_s);

/* All instants, packed or one by one, to @each when it is given, and what they are together. */
static int walk(struct fsm *f, struct apply *a, const struct item_run_schedule *s, struct slice raw,
                each_fn *each, struct instants *ret) {
    struct wire_reader fields = wire_reader_of(raw);
    struct wire_field field;
    int r;

    *ret = (struct instants){.ascend = true};
    while ((r = wire_next(&fields, &field)) == 0) {
        uint8_t one[10];
        struct wire_reader numbers;
        uint64_t v;

        if (field.number != ITEM_RUN_TICK)
            continue;
        if (field.type != WIRE_LEN && field.type != WIRE_VARINT)
            return ERR_PROTO;
        numbers =
            wire_reader_of(field.type == WIRE_LEN
                               ? field.bytes
                               : slice_of(one, (size_t) (wire_put_varint(one, field.value) - one)));
        while ((r = wire_next_varint(&numbers, &v)) == 0) {
            int64_t tick_s = (int64_t) v;

            ret->ascend &= ret->count == 0 || tick_s > ret->last_s;
            ret->first_s = ret->count == 0 ? tick_s : ret->first_s;
            ret->last_s = tick_s;
            ret->count++;
            if (each)
                r = each(f, a, s, tick_s);
            if (r < 0)
                return r;
        }
        if (r < 0)
            return r;
    }
    return r < 0 ? r : 0;
}

/* NULL, or why not. */
static const char *unacceptable(const struct apply *a, const struct item_run_schedule *s,
                                const struct instants *t, size_t job_bytes) {
    if (!schedules_by_hand(s->reason))
        return "reason: TRIGGER or BACKFILL";
    if (s->idempotency_key.len > FSM_IDEMPOTENCY_KEY_BYTES_MAX ||
        s->request_hash.len > REQUEST_HASH_BYTES_MAX)
        return "idempotency_key: at most 128 bytes";
    if (t->count > FSM_RUN_TICKS_MAX)
        return "ticks: at most 1,000";
    if (!t->ascend || (t->count > 0 && (t->first_s < 0 || t->last_s > a->now_ms / 1000)))
        return "ticks: must ascend, from 1970 to now";
    if (t->count > 1 && t->count * job_bytes > FSM_CREATED_BYTES_MAX)
        return "ticks: their jobs together are more than 8 MiB; take fewer at a time";
    return NULL;
}

static int decide(struct fsm *f, struct apply *a, const struct item_run_schedule *s,
                  int64_t tick_s) {
    return schedule_decide(f, a, tick_s, s->reason, s->ignore_overlap);
}

static int run(struct fsm *f, struct apply *a, const struct item_run_schedule *s, struct slice raw,
               struct fsm_schedule *view, struct fsm_result *res) {
    struct record_schedule *rec = &f->work.rec;
    struct instants t;
    int r;

    r = schedule_load(f, a, view);
    if (r < 0)
        return r;
    res->first_ordinal = rec->next_ordinal;
    r = walk(f, a, s, raw, decide, &t);
    if (r == 0 && t.count == 0)
        r = decide(f, a, s, a->now_ms / 1000);
    res->ordinals = rec->next_ordinal - res->first_ordinal;
    if (r == 0)
        r = schedule_store(f, a, FSM_SCHEDULE_STATE);
    if (r == 0 && s->idempotency_key.len > 0) {
        struct record_key key = {.request_hash = s->request_hash,
                                 .job_seq = f->next_seq++,
                                 .created_at_ms = a->now_ms,
                                 .schedule_seq = view->seq,
                                 .first_ordinal = res->first_ordinal,
                                 .ordinals = res->ordinals};

        r = keys_remember(f, s->idempotency_key, &key);
    }
    return r;
}

int apply_run_schedule(struct fsm *f, struct apply *a, const void *item, struct slice raw,
                       struct fsm_result *res) {
    const struct item_run_schedule *s = item;
    struct fsm_schedule *view = NULL;
    struct record_key key;
    struct instants t;
    const char *why;
    int r;

    r = schedules_find(f, s->name, &view, a->err);
    if (r < 0)
        return r;
    r = walk(f, a, s, raw, NULL, &t);
    if (r < 0)
        return r;
    why = unacceptable(a, s, &t, view ? view->job_bytes : 0);
    if (why || !view) {
        res->code = FSM_NOT_FOUND;
        if (view)
            refuse(res, why);
        return 0;
    }
    res->schedule_seq = view->seq;
    r = keys_check(f, a, s->idempotency_key, s->request_hash, &key, &res->code);
    if (r < 0)
        return r;
    if (res->code == FSM_OK)
        return run(f, a, s, raw, view, res);
    if (res->code == FSM_EXISTING && key.schedule_seq != view->seq)
        res->code = FSM_KEY_CONFLICT; /* of a job, or of another schedule */
    res->first_ordinal = key.first_ordinal;
    res->ordinals = key.ordinals;
    return 0;
}
