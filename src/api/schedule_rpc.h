/* What the files of the ScheduleService share. Private to api/.
 *
 * schedule_rpc.c         create and update
 * schedule_rpc_act.c     delete, pause, resume, trigger, backfill
 * schedule_rpc_read.c    get, ticks, preview
 * schedule_rpc_list.c    list
 * schedule_rpc_view.c    records -> messages of chronos.v1
 * explain.c           one line about a job or a schedule
 * Thread: the loop's. */
#pragma once

#include "api/api_impl.h"
#include "api/validate_schedule.h"
#include "sched/preview.h"

#include "chronos/v1/schedule_service.pb-c.h"

/* Searches for instants within one call, about 20 ms: heartbeats wait behind them. */
#define SCHEDULES_STEPS_MAX 65536U
#define SCHEDULES_HASH_BYTES 16
#define SCHEDULES_HASH_PARTS_MAX 4

/* ---- reads that wait for the barrier --------------------------------------------------------- */

struct schedule_rpc_call;

/* The state is as fresh as was asked for. @req is unpacked in the scratch arena. Answers @call, or
 * takes it on with an op of its own; @kept is borrowed for the call. */
typedef void (*schedule_rpc_fn)(struct api *a, struct rpc_call *call, const ProtobufCMessage *req,
                                uint64_t index, const struct schedule_rpc_call *kept);

/* A request on its way, and why it may have to be looked at again. */
struct schedule_rpc_call {
    schedule_rpc_fn fn;
    const ProtobufCMessageDescriptor *descriptor;
    unsigned tries; /* 0 = the first time */
    size_t len;
    uint8_t request[];
};

/* Keep @request, wait for the read barrier, unpack it and call @fn. Fails the call when that cannot
 * be. */
void schedule_rpc_after_barrier(struct api *a, struct rpc_call *call, schedule_rpc_fn fn,
                                const ProtobufCMessageDescriptor *descriptor, struct slice request,
                                unsigned tries);
/* Unpack and check that the node is not stopping; NULL: the call was failed. */
ProtobufCMessage *schedule_rpc_decode(struct api *a, struct rpc_call *call, enum status_kind kind,
                                      const ProtobufCMessageDescriptor *descriptor,
                                      struct slice request);

/* ---- the state ------------------------------------------------------------------------------- */

/* The schedule of a name with its record in the scratch arena (which is not cleared).
 * 0; 1: the call was failed. */
int schedule_rpc_find(struct api *a, struct rpc_call *call, const char *name,
                      const struct fsm_schedule **ret,
                      Chronos__Internal__V1__ScheduleRecord **ret_rec) _must_check_;

/* Its definition with the timetable (owned by the caller), in the scratch arena. The timetable is
 * NULL when the definition cannot be compiled here (its zone's name is no longer known ...).
 * 0; 1: the call was failed. */
int schedule_rpc_definition(struct api *a, struct rpc_call *call,
                            const Chronos__Internal__V1__ScheduleRecord *rec,
                            Chronos__V1__ScheduleSpec **ret, struct timetable **ret_timetable,
                            struct errtext *reterr) _must_check_;

/* ---- answers (schedule_rpc_view.c) ------------------------------------------------------------
 */

struct schedule_rpc_next {
    int64_t tick_s;      /* CRON_NEVER = none */
    int64_t tick_run_ms; /* when that one is due to start */
    int64_t run_ms;      /* of the first one that is not paused; 0 = none */
    int64_t run_tick_s;  /* its tick; CRON_NEVER = none */
    enum cron_note note; /* of run_tick_s */
    bool finished;       /* no tick will ever come */
};
/* What comes next by the timetable (NULL: nothing) and the state. */
void schedule_rpc_next(struct api *a, const struct fsm_schedule *s,
                       const Chronos__Internal__V1__ScheduleRecord *rec,
                       const Chronos__V1__ScheduleSpec *spec, const struct timetable *t,
                       struct schedule_rpc_next *ret);

/* Whether it is paused now, by itself or with all others. @ret_until_ms: 0 = until resumed. */
struct schedule_rpc_pause {
    bool paused;
    int64_t until_ms;
    char *reason; /* in @arena; "" */
};
int schedule_rpc_pause_of(struct api *a, const struct fsm_schedule *s,
                          const Chronos__Internal__V1__ScheduleRecord *rec, struct arena *arena,
                          struct schedule_rpc_pause *ret) _must_check_;

/* A record as the public message, in @arena. 0; ERR_CORRUPT: the definition does not decode;
 * -ENOMEM; kv errors. */
int schedule_rpc_view(struct api *a, const struct fsm_schedule *s,
                      const Chronos__Internal__V1__ScheduleRecord *rec, struct arena *arena,
                      Chronos__V1__Schedule **ret) _must_check_;
/* A line of the history, in @arena; NULL when memory is out. */
Chronos__V1__TickOutcome *schedule_rpc_outcome(const Chronos__Internal__V1__TickRecord *rec,
                                               uint64_t ordinal, struct arena *arena) _must_check_;
/* Answer with a ScheduleResponse of the schedule @seq. */
void schedule_rpc_reply(struct api *a, struct rpc_call *call, uint64_t seq, uint64_t index);
/* Fail with what a read of the state returned. @what: "the schedule nightly". */
void schedule_rpc_fail_read(struct api *a, struct rpc_call *call, const char *what, int r);

/* ---- writes ---------------------------------------------------------------------------------- */

/* Encode and propose; takes over @op, and fails its call when that cannot be. */
void schedule_rpc_propose(struct api_op *op, const Chronos__Internal__V1__LogCommand *cmd,
                          unsigned flags, replica_propose_fn done);
/* What an idempotency key is bound to: a hash of @parts, at most SCHEDULES_HASH_PARTS_MAX. */
void schedule_rpc_hash(const struct slice *parts, size_t count, uint8_t ret[SCHEDULES_HASH_BYTES]);
/* The one result of a command about schedules. 0; 1: the replica or the state machine said no, and
 * @call was failed in words. @field: what the name stands in, "name" or "spec.name". */
int schedule_rpc_result(struct api *a, struct rpc_call *call, const struct replica_proposed *res,
                        struct mono started, struct mono deadline, const char *field,
                        const struct fsm_result **ret) _must_check_;
/* The same for the operation that proposed it, which ends. NULL: the client is gone, or was told
 * why not. */
struct rpc_call *schedule_rpc_take(struct api_op *op, const struct replica_proposed *res,
                                   const char *field, const struct fsm_result **ret) _must_check_;
