/* DeleteSchedule, PauseSchedule, ResumeSchedule, TriggerSchedule, BackfillSchedule.
 * Thread: the loop's. */
#include "api/schedule_rpc.h"

#include "os/clock.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define REASON_BYTES_MAX 255

/* 0; 1: the call was failed. */
static int check_name(struct rpc_call *call, const char *name) {
    struct errtext e;

    if (validate_schedule_name(name, &e) == 0)
        return 0;
    api_fail(call, RPC_INVALID_ARGUMENT, "%s", e.s);
    return 1;
}

/* ---- delete ---------------------------------------------------------------------------------- */

static void on_deleted(void *arg, const struct replica_proposed *res) {
    Chronos__V1__DeleteScheduleResponse resp = CHRONOS__V1__DELETE_SCHEDULE_RESPONSE__INIT;
    const struct fsm_result *result;
    struct rpc_call *call = schedule_rpc_take(arg, res, "name", &result);

    if (!call)
        return;
    resp.index = res->index;
    api_reply(call, api_pack(&resp.base));
}

void schedule_rpc_on_delete(void *ctx, struct rpc_call *call, struct slice request) {
    struct api *a = ctx;
    Chronos__Internal__V1__LogCommand cmd = CHRONOS__INTERNAL__V1__LOG_COMMAND__INIT;
    Chronos__Internal__V1__DeleteSchedule body = CHRONOS__INTERNAL__V1__DELETE_SCHEDULE__INIT;
    Chronos__V1__DeleteScheduleRequest *req;
    struct api_op *op;

    req = (Chronos__V1__DeleteScheduleRequest *) schedule_rpc_decode(
        a, call, STATUS_WRITE, &chronos__v1__delete_schedule_request__descriptor, request);
    if (!req || check_name(call, req->name) != 0)
        return;
    body.name = req->name;
    body.version = req->version;
    body.cancel_open_runs = req->cancel_open_runs;
    cmd.body_case = CHRONOS__INTERNAL__V1__LOG_COMMAND__BODY_DELETE_SCHEDULE;
    cmd.delete_schedule = &body;
    op = api_op_new(a, call);
    /* Not proposed twice: the second would find nothing, or another schedule of the same name. */
    if (op)
        schedule_rpc_propose(op, &cmd, 0, on_deleted);
}

/* ---- pause and resume ------------------------------------------------------------------------ */

static void on_paused(void *arg, const struct replica_proposed *res) {
    Chronos__V1__PauseScheduleResponse resp = CHRONOS__V1__PAUSE_SCHEDULE_RESPONSE__INIT;
    const struct fsm_result *result;
    struct rpc_call *call = schedule_rpc_take(arg, res, "name", &result);

    if (!call)
        return;
    resp.index = res->index;
    resp.changed = result->changed;
    api_reply(call, api_pack(&resp.base));
}

static void propose_pause(struct api *a, struct rpc_call *call,
                          Chronos__Internal__V1__PauseSchedule *body) {
    Chronos__Internal__V1__LogCommand cmd = CHRONOS__INTERNAL__V1__LOG_COMMAND__INIT;
    struct api_op *op = api_op_new(a, call);

    cmd.body_case = CHRONOS__INTERNAL__V1__LOG_COMMAND__BODY_PAUSE_SCHEDULE;
    cmd.pause_schedule = body;
    /* Not proposed twice: the second would undo what was told to somebody else in between. */
    if (op)
        schedule_rpc_propose(op, &cmd, 0, on_paused);
}

void schedule_rpc_on_pause(void *ctx, struct rpc_call *call, struct slice request) {
    struct api *a = ctx;
    Chronos__Internal__V1__PauseSchedule body = CHRONOS__INTERNAL__V1__PAUSE_SCHEDULE__INIT;
    Chronos__V1__PauseScheduleRequest *req;

    req = (Chronos__V1__PauseScheduleRequest *) schedule_rpc_decode(
        a, call, STATUS_WRITE, &chronos__v1__pause_schedule_request__descriptor, request);
    if (!req || (req->name[0] != '\0' && check_name(call, req->name) != 0))
        return;
    if (req->until_ms != 0 && req->until_ms <= clock_wall().ms) {
        api_fail(call, RPC_INVALID_ARGUMENT,
                 "until_ms: must be in the future; 0 = until it is resumed");
        return;
    }
    if (strlen(req->reason) > REASON_BYTES_MAX || validate_has_control(req->reason)) {
        api_fail(call, RPC_INVALID_ARGUMENT,
                 "reason: must be at most 255 bytes without control characters");
        return;
    }
    body.name = req->name;
    body.on = true;
    body.until_ms = req->until_ms;
    body.reason = req->reason;
    propose_pause(a, call, &body);
}

void schedule_rpc_on_resume(void *ctx, struct rpc_call *call, struct slice request) {
    struct api *a = ctx;
    Chronos__Internal__V1__PauseSchedule body = CHRONOS__INTERNAL__V1__PAUSE_SCHEDULE__INIT;
    Chronos__V1__ResumeScheduleRequest *req;

    req = (Chronos__V1__ResumeScheduleRequest *) schedule_rpc_decode(
        a, call, STATUS_WRITE, &chronos__v1__resume_schedule_request__descriptor, request);
    if (!req || (req->name[0] != '\0' && check_name(call, req->name) != 0))
        return;
    body.name = req->name;
    propose_pause(a, call, &body);
}

/* ---- runs by hand ---------------------------------------------------------------------------- */

/* What became of the ticks of a RunSchedule, one for each in their order, in the scratch arena
 * (cleared). What the history no longer holds stays NULL and is left out.
 * 0 with *ret_count; negative. */
static int run_outcomes(struct api *a, const struct replica_proposed *res,
                        const struct fsm_result *result, Chronos__V1__TickOutcome ***ret,
                        size_t *ret_count) {
    size_t n = (size_t) MIN(result->ordinals, (uint64_t) FSM_RUN_TICKS_MAX), count = 0;
    Chronos__V1__TickOutcome **all;

    arena_clear(&a->scratch);
    all = arena_zalloc(&a->scratch, (n + 1) * sizeof(*all));
    if (!all)
        return -ENOMEM;
    for (size_t i = 0; i < res->output->ticks_count; i++) {
        const struct fsm_tick *t = &res->output->ticks[i];
        Chronos__Internal__V1__TickRecord rec = CHRONOS__INTERNAL__V1__TICK_RECORD__INIT;
        uint64_t at = t->ordinal - result->first_ordinal;

        if (t->schedule_seq != result->schedule_seq || t->ordinal < result->first_ordinal ||
            at >= n)
            continue;
        rec.tick_s = t->tick_s;
        rec.last_tick_s = t->last_tick_s;
        rec.count = t->count;
        rec.fired = t->fired;
        rec.waiting = t->waiting;
        rec.reason = t->reason;
        rec.job_seq = t->job_seq;
        rec.decided_at_ms = res->output->now_ms;
        rec.generation = t->generation;
        all[at] = schedule_rpc_outcome(&rec, t->ordinal, &a->scratch);
        if (!all[at])
            return -ENOMEM;
    }
    for (size_t i = 0; i < n; i++) {
        Chronos__Internal__V1__TickRecord *rec;
        uint64_t ordinal = result->first_ordinal + i;
        int r = 0;

        if (!all[i]) /* the key was known: what the first request did is in the history */
            r = fsm_read_tick(replica_fsm(a->replica), result->schedule_seq, ordinal, &a->scratch,
                              &rec);
        if (r < 0)
            return r;
        if (!all[i] && r == 0)
            all[i] = schedule_rpc_outcome(rec, ordinal, &a->scratch);
        if (all[i])
            all[count++] = all[i];
    }
    *ret = all;
    *ret_count = count;
    return 0;
}

static void propose_run(struct api *a, struct rpc_call *call,
                        Chronos__Internal__V1__RunSchedule *body, unsigned flags,
                        replica_propose_fn done) {
    Chronos__Internal__V1__LogCommand cmd = CHRONOS__INTERNAL__V1__LOG_COMMAND__INIT;
    struct api_op *op = api_op_new(a, call);

    cmd.body_case = CHRONOS__INTERNAL__V1__LOG_COMMAND__BODY_RUN_SCHEDULE;
    cmd.run_schedule = body;
    if (op)
        schedule_rpc_propose(op, &cmd, flags, done);
}

static void on_triggered(void *arg, const struct replica_proposed *res) {
    Chronos__V1__TriggerScheduleResponse resp = CHRONOS__V1__TRIGGER_SCHEDULE_RESPONSE__INIT;
    struct api *a = ((struct api_op *) arg)->api;
    Chronos__V1__TickOutcome **outcomes;
    const struct fsm_result *result;
    struct rpc_call *call = schedule_rpc_take(arg, res, "name", &result);
    size_t count;
    int r;

    if (!call)
        return;
    r = run_outcomes(a, res, result, &outcomes, &count);
    if (r < 0) {
        schedule_rpc_fail_read(a, call, "what the trigger did", r);
        return;
    }
    resp.outcome = count > 0 ? outcomes[0] : NULL;
    resp.index = res->index;
    api_reply(call, api_pack(&resp.base));
}

void schedule_rpc_on_trigger(void *ctx, struct rpc_call *call, struct slice request) {
    struct api *a = ctx;
    Chronos__Internal__V1__RunSchedule body = CHRONOS__INTERNAL__V1__RUN_SCHEDULE__INIT;
    Chronos__V1__TriggerScheduleRequest *req;
    uint8_t hash[SCHEDULES_HASH_BYTES];
    bool with_key;
    struct errtext e;

    req = (Chronos__V1__TriggerScheduleRequest *) schedule_rpc_decode(
        a, call, STATUS_WRITE, &chronos__v1__trigger_schedule_request__descriptor, request);
    if (!req || check_name(call, req->name) != 0)
        return;
    if (validate_job_key(req->idempotency_key, &e) != 0) {
        api_fail(call, RPC_INVALID_ARGUMENT, "%s", e.s);
        return;
    }
    with_key = req->idempotency_key[0] != '\0';
    body.name = req->name;
    body.reason = CHRONOS__V1__TICK_REASON__TICK_REASON_TRIGGER;
    body.ignore_overlap = req->ignore_overlap;
    if (with_key) {
        const struct slice parts[] = {
            slice_of("trigger", 7), slice_of(req->name, strlen(req->name)),
            slice_of(req->ignore_overlap ? "ignore_overlap" : "", req->ignore_overlap ? 14 : 0)};

        schedule_rpc_hash(parts, ARRAY_LEN(parts), hash);
        body.idempotency_key = req->idempotency_key;
        body.request_hash = (ProtobufCBinaryData){.data = hash, .len = sizeof(hash)};
    }
    propose_run(a, call, &body, with_key ? REPLICA_RETRY_SAFE : 0, on_triggered);
}

/* ---- backfill -------------------------------------------------------------------------------- */

/* The ticks from @from_s to before @until_s. *ret_count may be one more than the bound: too many.
 * 0; 1: the call was failed. */
static int backfill_ticks(struct rpc_call *call, const struct timetable *t, int64_t from_s,
                          int64_t until_s, int64_t *ticks, size_t *ret_count) {
    int64_t at = from_s - 1;
    uint32_t steps = 0;
    size_t n = 0;

    while (n <= FSM_RUN_TICKS_MAX) {
        struct timetable_instant i = timetable_next(t, at, &steps);

        if (i.at_s >= until_s)
            break;
        if (steps > SCHEDULES_STEPS_MAX) {
            api_fail(call, RPC_INVALID_ARGUMENT,
                     "until_ms: the range is too long to search at once, for most of it is "
                     "excluded; take a shorter one");
            return 1;
        }
        if (i.is_tick && n < FSM_RUN_TICKS_MAX)
            ticks[n] = i.at_s;
        if (i.is_tick)
            n++;
        at = i.at_s;
    }
    *ret_count = n;
    return 0;
}

static void on_backfilled(void *arg, const struct replica_proposed *res) {
    Chronos__V1__BackfillScheduleResponse resp = CHRONOS__V1__BACKFILL_SCHEDULE_RESPONSE__INIT;
    struct api *a = ((struct api_op *) arg)->api;
    const struct fsm_result *result;
    struct rpc_call *call = schedule_rpc_take(arg, res, "name", &result);
    int r;

    if (!call)
        return;
    r = run_outcomes(a, res, result, &resp.outcomes, &resp.n_outcomes);
    if (r < 0) {
        schedule_rpc_fail_read(a, call, "what the backfill did", r);
        return;
    }
    resp.ticks = result->ordinals;
    resp.index = res->index;
    api_reply(call, api_pack(&resp.base));
}

/* What is to be run is known: refuse, count, or propose. */
static void backfill_run(struct api *a, struct rpc_call *call,
                         const Chronos__V1__BackfillScheduleRequest *req, uint32_t job_bytes,
                         int64_t *ticks, size_t count) {
    Chronos__V1__BackfillScheduleResponse resp = CHRONOS__V1__BACKFILL_SCHEDULE_RESPONSE__INIT;
    Chronos__Internal__V1__RunSchedule body = CHRONOS__INTERNAL__V1__RUN_SCHEDULE__INIT;
    size_t most =
        MIN((size_t) FSM_RUN_TICKS_MAX, MAX(FSM_CREATED_BYTES_MAX / (job_bytes + 1), 1UL));

    if (count > most) {
        api_fail(call, RPC_INVALID_ARGUMENT,
                 "until_ms: there are more than %zu ticks in the range, which is the most at once "
                 "for this schedule; take a shorter one",
                 most);
        return;
    }
    if (req->dry_run || count == 0) {
        resp.ticks = count;
        api_reply(call, api_pack(&resp.base));
        return;
    }
    body.name = req->name;
    body.tick_s = ticks;
    body.n_tick_s = count;
    body.reason = CHRONOS__V1__TICK_REASON__TICK_REASON_BACKFILL;
    body.ignore_overlap = req->ignore_overlap;
    /* Not proposed twice: each time would be other jobs. */
    propose_run(a, call, &body, 0, on_backfilled);
}

static void backfill(struct api *a, struct rpc_call *call, const ProtobufCMessage *m,
                     uint64_t index, const struct schedule_rpc_call *kept) {
    const Chronos__V1__BackfillScheduleRequest *req = (const void *) m;
    _cleanup_(timetable_unrefp) struct timetable *t = NULL;
    Chronos__Internal__V1__ScheduleRecord *rec;
    Chronos__V1__ScheduleSpec *spec;
    const struct fsm_schedule *s;
    struct errtext e = {0};
    int64_t *ticks;
    size_t count;

    (void) index;
    (void) kept;
    if (schedule_rpc_find(a, call, req->name, &s, &rec) != 0 ||
        schedule_rpc_definition(a, call, rec, &spec, &t, &e) != 0)
        return;
    if (!t || (timetable_zone(t) && !timetable_zone(t)->tz)) {
        api_fail(call, RPC_FAILED_PRECONDITION, "the schedule has no ticks here: %s",
                 t ? timetable_zone(t)->error.s : e.s);
        return;
    }
    ticks = arena_alloc(&a->scratch, FSM_RUN_TICKS_MAX * sizeof(*ticks));
    if (!ticks)
        api_fail_memory(call);
    else if (backfill_ticks(call, t, (req->from_ms + 999) / 1000, (req->until_ms + 999) / 1000,
                            ticks, &count) == 0)
        backfill_run(a, call, req, s->job_bytes, ticks, count);
}

void schedule_rpc_on_backfill(void *ctx, struct rpc_call *call, struct slice request) {
    struct api *a = ctx;
    Chronos__V1__BackfillScheduleRequest *req;
    int64_t now_ms = clock_wall().ms;

    req = (Chronos__V1__BackfillScheduleRequest *) schedule_rpc_decode(
        a, call, STATUS_WRITE, &chronos__v1__backfill_schedule_request__descriptor, request);
    if (!req || check_name(call, req->name) != 0)
        return;
    if (req->from_ms <= 0 || req->from_ms > now_ms)
        api_fail(call, RPC_INVALID_ARGUMENT, "from_ms: must be an instant in the past");
    else if (req->until_ms <= req->from_ms)
        api_fail(call, RPC_INVALID_ARGUMENT, "until_ms: must be after from_ms");
    else if (req->until_ms > now_ms)
        api_fail(call, RPC_INVALID_ARGUMENT, "until_ms: must not be in the future");
    else
        schedule_rpc_after_barrier(a, call, backfill,
                                   &chronos__v1__backfill_schedule_request__descriptor, request, 0);
}
