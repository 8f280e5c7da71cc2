/* CreateSchedule and UpdateSchedule, and what all methods of the service share.
 *
 * An update decides whether a new generation begins by comparing what decides the ticks with the
 * definition it replaces, and what becomes of ticks that are due and not decided, so it is proposed
 * against the very version and watermark it was compared with, and done again when another change,
 * or a tick, came in between.
 * Thread: the loop's. */
#include "api/schedule_rpc.h"

#include "fsm/command.h"
#include "os/clock.h"
#include "sched/handover.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define UPDATE_TRIES_MAX 64 /* then somebody else always is first */

/* ---- reads that wait for the barrier --------------------------------------------------------- */

ProtobufCMessage *schedule_rpc_decode(struct api *a, struct rpc_call *call, enum status_kind kind,
                                      const ProtobufCMessageDescriptor *descriptor,
                                      struct slice request) {
    if (api_refuse_stopping(a, call, kind))
        return NULL;
    return api_decode(a, call, descriptor, request);
}

static void on_barrier(void *arg, enum replica_status status, uint64_t index) {
    struct api_op *op = arg;
    struct api *a = op->api;
    struct mono started = op->started, deadline = op->deadline;
    _cleanup_(freep) struct schedule_rpc_call *kept = TAKE_PTR(op->data);
    struct rpc_call *call = api_op_end(op);
    ProtobufCMessage *req;

    if (!call)
        return;
    if (status != REPLICA_OK) {
        api_fail_status(a, call, STATUS_READ, status, started, deadline);
        return;
    }
    req = api_decode(a, call, kept->descriptor, slice_of(kept->request, kept->len));
    if (req)
        kept->fn(a, call, req, MAX(index, replica_applied(a->replica)), kept);
}

void schedule_rpc_after_barrier(struct api *a, struct rpc_call *call, schedule_rpc_fn fn,
                                const ProtobufCMessageDescriptor *descriptor, struct slice request,
                                unsigned tries) {
    struct schedule_rpc_call *kept = malloc(sizeof(*kept) + request.len);
    struct api_op *op;
    int r;

    if (!kept) {
        api_fail_memory(call);
        return;
    }
    *kept = (struct schedule_rpc_call){
        .fn = fn, .descriptor = descriptor, .tries = tries, .len = request.len};
    if (request.len > 0)
        memcpy(kept->request, request.data, request.len);
    op = api_op_new(a, call);
    if (!op) {
        free(kept);
        return;
    }
    op->data = kept;
    r = replica_read(a->replica, op->deadline, on_barrier, op);
    if (r != 0)
        api_op_fail(op, STATUS_READ, r);
}

int schedule_rpc_find(struct api *a, struct rpc_call *call, const char *name,
                      const struct fsm_schedule **ret,
                      Chronos__Internal__V1__ScheduleRecord **ret_rec) {
    struct fsm *f = replica_fsm(a->replica);
    char what[VALIDATE_SCHEDULE_NAME_BYTES_MAX + 16];
    int r = fsm_schedule_find(f, slice_of(name, strlen(name)), ret);

    if (r == 0)
        r = fsm_read_schedule(f, (*ret)->seq, &a->scratch, ret_rec);
    if (r == 0)
        return 0;
    if (r == FSM_READ_NOT_FOUND) {
        api_fail(call, RPC_NOT_FOUND, "name: there is no schedule %s", name);
        return 1;
    }
    (void) snprintf(what, sizeof(what), "schedule %s", name);
    schedule_rpc_fail_read(a, call, what, r);
    return 1;
}

int schedule_rpc_definition(struct api *a, struct rpc_call *call,
                            const Chronos__Internal__V1__ScheduleRecord *rec,
                            Chronos__V1__ScheduleSpec **ret, struct timetable **ret_timetable,
                            struct errtext *reterr) {
    int r;

    *ret = validate_schedule_unpack(slice_of(rec->spec.data, rec->spec.len),
                                    slice_of(rec->job.data, rec->job.len), &a->scratch);
    if (!*ret) {
        schedule_rpc_fail_read(a, call, "the schedule", ERR_CORRUPT);
        return 1;
    }
    r = timetable_new(*ret, replica_zones(a->replica), ret_timetable, reterr);
    if (r == -ENOMEM) {
        api_fail_memory(call);
        return 1;
    }
    return 0;
}

/* ---- writes ---------------------------------------------------------------------------------- */

void schedule_rpc_propose(struct api_op *op, const Chronos__Internal__V1__LogCommand *cmd,
                          unsigned flags, replica_propose_fn done) {
    _cleanup_(bytes_unrefp) struct bytes *command = NULL;
    int r = command_encode(cmd, &command);

    if (r == 0)
        r = replica_propose(op->api->replica, TAKE_PTR(command), flags, op->deadline, done, op);
    if (r != 0)
        api_op_fail(op, STATUS_WRITE, r);
}

static int fail_result(struct rpc_call *call, const struct fsm_result *res, const char *field) {
    switch (res->code) {
    case FSM_OK:
    case FSM_EXISTING:
        return 0;
    case FSM_NOT_FOUND:
        api_fail(call, RPC_NOT_FOUND, "%s: there is no schedule of this name", field);
        return 1;
    case FSM_NAME_TAKEN:
        api_fail(call, RPC_ALREADY_EXISTS,
                 "%s: there is a schedule of this name already, at version %" PRIu64, field,
                 res->version);
        return 1;
    case FSM_KEY_CONFLICT:
        api_fail(call, RPC_ALREADY_EXISTS, "idempotency_key: was used with another request");
        return 1;
    case FSM_VERSION_MISMATCH:
        api_fail(call, RPC_ABORTED,
                 "version: the schedule is at version %" PRIu64 ": read it and try again",
                 res->version);
        return 1;
    case FSM_REFUSED:
        api_fail(call, RPC_FAILED_PRECONDITION, "%s", res->reason ? res->reason : "refused");
        return 1;
    case FSM_TERMINAL:
    case FSM_NOT_PENDING:
    case FSM_WORKER_GONE:
    case FSM_STALE:
    case FSM_WORKER_DRAINING:
    case FSM_PARTIAL:
        break;
    }
    api_fail(call, RPC_INTERNAL, "unexpected result %d of a command about a schedule",
             (int) res->code);
    return 1;
}

int schedule_rpc_result(struct api *a, struct rpc_call *call, const struct replica_proposed *res,
                        struct mono started, struct mono deadline, const char *field,
                        const struct fsm_result **ret) {
    if (res->status != REPLICA_OK) {
        api_fail_status(a, call, STATUS_WRITE, res->status, started, deadline);
        return 1;
    }
    if (res->output->results_count != 1) {
        api_fail(call, RPC_INTERNAL, "a command about one schedule gave %zu results",
                 res->output->results_count);
        return 1;
    }
    *ret = &res->output->results[0];
    return fail_result(call, *ret, field);
}

struct rpc_call *schedule_rpc_take(struct api_op *op, const struct replica_proposed *res,
                                   const char *field, const struct fsm_result **ret) {
    struct api *a = op->api;
    struct mono started = op->started, deadline = op->deadline;
    struct rpc_call *call = api_op_end(op);

    if (!call || schedule_rpc_result(a, call, res, started, deadline, field, ret) != 0)
        return NULL;
    return call;
}

/* ---- create and update ----------------------------------------------------------------------- */

/* Check, complete and pack. 0; 1: the call was failed. */
static int take_spec(struct api *a, struct rpc_call *call, Chronos__V1__ScheduleSpec *spec,
                     bool is_new, struct timetable **ret, struct schedule_packed *ret_packed) {
    const struct validate_schedule o = {
        .zones = replica_zones(a->replica),
        .now_s = clock_wall().ms / 1000,
        .with_job = true,
        .with_name = true,
        .must_tick = is_new,
    };
    struct errtext e = {0};
    int r = validate_schedule(spec, &o, &a->scratch, ret, &e);

    if (r == 0)
        r = validate_schedule_pack(spec, &a->scratch, ret_packed, &e);
    if (r > 0)
        api_fail(call, RPC_INVALID_ARGUMENT, "%s", e.s);
    else if (r < 0)
        api_fail_memory(call);
    return r != 0;
}

static ProtobufCBinaryData binary(struct slice s) {
    union {
        const uint8_t *in;
        uint8_t *out;
    } u = {.in = s.data}; /* protobuf-c has no const bytes; packing only reads them */

    return (ProtobufCBinaryData){.data = u.out, .len = s.len};
}

static void fill_put(Chronos__Internal__V1__PutSchedule *put, const Chronos__V1__ScheduleSpec *spec,
                     const struct schedule_packed *packed) {
    chronos__internal__v1__put_schedule__init(put);
    put->name = spec->name;
    put->spec = binary(packed->spec);
    put->job = binary(packed->job);
    put->max_attempts = spec->job->max_attempts;
    put->queue = spec->job->queue;
    put->overlap = spec->overlap;
    put->pause_on_failure = spec->pause_on_failure;
    put->max_runs = spec->max_runs;
}

static void propose_put(struct api_op *op, Chronos__Internal__V1__PutSchedule *put, unsigned flags,
                        replica_propose_fn done) {
    Chronos__Internal__V1__LogCommand cmd = CHRONOS__INTERNAL__V1__LOG_COMMAND__INIT;

    cmd.body_case = CHRONOS__INTERNAL__V1__LOG_COMMAND__BODY_PUT_SCHEDULE;
    cmd.put_schedule = put;
    schedule_rpc_propose(op, &cmd, flags, done);
}

static void on_created(void *arg, const struct replica_proposed *res) {
    struct api *a = ((struct api_op *) arg)->api;
    const struct fsm_result *result;
    struct rpc_call *call = schedule_rpc_take(arg, res, "spec.name", &result);

    if (call)
        schedule_rpc_reply(a, call, result->schedule_seq, res->index);
}

void schedule_rpc_hash(const struct slice *parts, size_t count, uint8_t ret[SCHEDULES_HASH_BYTES]) {
    uint8_t hashes[SCHEDULES_HASH_PARTS_MAX * SCHEDULES_HASH_BYTES];
    XXH128_canonical_t hash;

    STATIC_ASSERT(sizeof(hash.digest) == SCHEDULES_HASH_BYTES, "XXH3-128");
    ASSERT(count <= SCHEDULES_HASH_PARTS_MAX);
    for (size_t i = 0; i < count; i++) {
        XXH128_canonicalFromHash(&hash, XXH3_128bits(parts[i].data, parts[i].len));
        memcpy(hashes + i * SCHEDULES_HASH_BYTES, hash.digest, SCHEDULES_HASH_BYTES);
    }
    XXH128_canonicalFromHash(&hash, XXH3_128bits(hashes, count * SCHEDULES_HASH_BYTES));
    memcpy(ret, hash.digest, SCHEDULES_HASH_BYTES);
}

void schedule_rpc_on_create(void *ctx, struct rpc_call *call, struct slice request) {
    struct api *a = ctx;
    _cleanup_(timetable_unrefp) struct timetable *t = NULL;
    Chronos__V1__CreateScheduleRequest *req;
    Chronos__Internal__V1__PutSchedule put;
    struct schedule_packed packed;
    uint8_t hash[SCHEDULES_HASH_BYTES];
    struct api_op *op;
    struct errtext e;

    req = (Chronos__V1__CreateScheduleRequest *) schedule_rpc_decode(
        a, call, STATUS_WRITE, &chronos__v1__create_schedule_request__descriptor, request);
    if (!req)
        return;
    if (validate_job_key(req->idempotency_key, &e) != 0) {
        api_fail(call, RPC_INVALID_ARGUMENT, "%s", e.s);
        return;
    }
    if (take_spec(a, call, req->spec, true, &t, &packed) != 0)
        return;
    fill_put(&put, req->spec, &packed);
    put.create = true;
    put.paused = req->paused;
    if (req->idempotency_key[0] != '\0') {
        const struct slice parts[] = {packed.spec, packed.job,
                                      slice_of(req->paused ? "paused" : "", req->paused ? 6 : 0)};

        schedule_rpc_hash(parts, ARRAY_LEN(parts), hash);
        put.idempotency_key = req->idempotency_key;
        put.request_hash = (ProtobufCBinaryData){.data = hash, .len = sizeof(hash)};
    }
    op = api_op_new(a, call);
    /* Without a key a second proposal would find the name taken, by the first. */
    if (op)
        propose_put(op, &put, req->idempotency_key[0] != '\0' ? REPLICA_RETRY_SAFE : 0, on_created);
}

static void update(struct api *a, struct rpc_call *call, const ProtobufCMessage *m, uint64_t index,
                   const struct schedule_rpc_call *kept);

static void on_updated(void *arg, const struct replica_proposed *res) {
    struct api_op *op = arg;
    struct api *a = op->api;
    struct mono started = op->started, deadline = op->deadline;
    _cleanup_(freep) struct schedule_rpc_call *kept = TAKE_PTR(op->data);
    struct rpc_call *call = api_op_end(op);
    const struct fsm_result *result;

    if (!call)
        return;
    /* Somebody else was first, or this update itself, when it was proposed twice. */
    if (res->status == REPLICA_OK && res->output->results_count == 1 &&
        res->output->results[0].code == FSM_VERSION_MISMATCH && kept->tries < UPDATE_TRIES_MAX) {
        schedule_rpc_after_barrier(a, call, update, kept->descriptor,
                                   slice_of(kept->request, kept->len), kept->tries + 1);
        return;
    }
    if (schedule_rpc_result(a, call, res, started, deadline, "spec.name", &result) == 0)
        schedule_rpc_reply(a, call, result->schedule_seq, res->index);
}

static bool equal(ProtobufCBinaryData a, struct slice b) {
    return a.len == b.len && (b.len == 0 || memcmp(a.data, b.data, b.len) == 0);
}

/* Whether the update may go ahead; else the call was answered. */
static bool may_update(struct api *a, struct rpc_call *call,
                       const Chronos__V1__UpdateScheduleRequest *req,
                       const Chronos__Internal__V1__ScheduleRecord *rec,
                       const struct schedule_packed *packed, uint64_t index, unsigned tries) {
    if (req->version == 0 || req->version == rec->version)
        return true;
    if (tries > 0 && rec->version == req->version + 1 && equal(rec->spec, packed->spec) &&
        equal(rec->job, packed->job))
        schedule_rpc_reply(a, call, rec->seq, index); /* it was this one */
    else
        api_fail(call, RPC_ABORTED,
                 "version: the schedule is at version %" PRIu64 ", not %" PRIu64
                 ": read it and try again",
                 rec->version, req->version);
    return false;
}

/* The instant of an edit. When the first try was refused, the time that the state machine has from
 * the leader: this node's clock may have been the reason. */
static int64_t edit_ms(struct api *a, unsigned tries) {
    int64_t last_ms = fsm_last_now_ms(replica_fsm(a->replica));

    return tries > 0 ? last_ms : MAX(clock_wall().ms, last_ms);
}

/* Another generation begins. @before: the timetable until now, NULL when it does not compile here
 * (then nobody can tell what its ticks were). 0; 1: the call was failed. */
static int begin_generation(struct rpc_call *call, const struct fsm_schedule *s, const char *name,
                            const struct timetable *before, const struct timetable *after,
                            Chronos__Internal__V1__PutSchedule *put) {
    Chronos__Internal__V1__ScheduleHandover *h = put->handover;
    struct handover x = {.watermark_s = MAX(s->watermark_s, h->at_ms / 1000)};

    /* One whose runs are used up has no tick any more. */
    if (before && s->runs_left > 0 &&
        handover_of(before, after, timetable_name_hash(name), s->watermark_s, h->at_ms, &x) > 0) {
        api_fail(call, RPC_FAILED_PRECONDITION,
                 "name: %s has too many late ticks to decide about; update it when it has caught "
                 "up",
                 name);
        return 1;
    }
    put->new_generation = true;
    h->from_s = s->watermark_s;
    h->watermark_s = x.watermark_s;
    h->first_s = x.first_s;
    h->last_s = x.last_s;
    h->count = x.count;
    return 0;
}

/* Whether what decides the ticks differs; a definition that no longer compiles here does. And more
 * runs for one that had used up its own: what it would have run meanwhile is past. */
static int compare(struct api *a, struct rpc_call *call, const struct fsm_schedule *s,
                   const Chronos__Internal__V1__ScheduleRecord *rec, const struct timetable *after,
                   Chronos__Internal__V1__PutSchedule *put) {
    _cleanup_(timetable_unrefp) struct timetable *before = NULL;
    Chronos__V1__ScheduleSpec *old;
    bool same = false, revived;

    if (schedule_rpc_definition(a, call, rec, &old, &before, NULL) != 0)
        return 1;
    if (before) {
        struct slice x = timetable_bytes(before), y = timetable_bytes(after);

        same = x.len == y.len && memcmp(x.data, y.data, x.len) == 0;
    }
    revived = s->runs_left == 0 && (put->max_runs == 0 || put->max_runs > rec->max_runs);
    put->handover->keep_waiting = same;
    if (same && !revived) {
        put->handover = NULL;
        return 0;
    }
    return begin_generation(call, s, rec->name, before, after, put);
}

static void update(struct api *a, struct rpc_call *call, const ProtobufCMessage *m, uint64_t index,
                   const struct schedule_rpc_call *kept) {
    const Chronos__V1__UpdateScheduleRequest *req = (const void *) m;
    _cleanup_(timetable_unrefp) struct timetable *t = NULL;
    Chronos__Internal__V1__ScheduleRecord *rec;
    Chronos__Internal__V1__ScheduleHandover handover =
        CHRONOS__INTERNAL__V1__SCHEDULE_HANDOVER__INIT;
    Chronos__Internal__V1__PutSchedule put;
    struct schedule_rpc_call *again;
    const struct fsm_schedule *s;
    struct schedule_packed packed;
    struct api_op *op;

    if (take_spec(a, call, req->spec, false, &t, &packed) != 0 ||
        schedule_rpc_find(a, call, req->spec->name, &s, &rec) != 0 ||
        !may_update(a, call, req, rec, &packed, index, kept->tries))
        return;
    fill_put(&put, req->spec, &packed);
    put.version = rec->version;
    handover.at_ms = edit_ms(a, kept->tries);
    put.handover = &handover;
    if (compare(a, call, s, rec, t, &put) != 0)
        return;
    op = api_op_new(a, call);
    if (!op)
        return;
    again = malloc(sizeof(*again) + kept->len);
    if (!again) {
        api_op_fail(op, STATUS_WRITE, -ENOMEM);
        return;
    }
    memcpy(again, kept, sizeof(*again) + kept->len);
    op->data = again;
    propose_put(op, &put, REPLICA_RETRY_SAFE, on_updated);
}

void schedule_rpc_on_update(void *ctx, struct rpc_call *call, struct slice request) {
    struct api *a = ctx;
    _cleanup_(timetable_unrefp) struct timetable *t = NULL;
    Chronos__V1__UpdateScheduleRequest *req;
    struct schedule_packed packed;

    req = (Chronos__V1__UpdateScheduleRequest *) schedule_rpc_decode(
        a, call, STATUS_WRITE, &chronos__v1__update_schedule_request__descriptor, request);
    /* Checked before anything is waited for, so that what is wrong is said without a leader. */
    if (req && take_spec(a, call, req->spec, false, &t, &packed) == 0)
        schedule_rpc_after_barrier(a, call, update,
                                   &chronos__v1__update_schedule_request__descriptor, request, 0);
}
