/* Schedules as the state machine knows them: what exists, what each tick came to, who waits.
 *
 * The state machine knows no cron: the leader proposes decided ticks (ProcessTicks), and here is
 * decided, from replicated open runs alone, what becomes of each: overlap (C16), max_runs, pause,
 * pause_on_failure (C17). A failover cannot change it. Records: proto/chronos/internal/v1/
 * schedule.proto. Part of fsm/fsm.h; include that. Thread: the loop. */
#pragma once

#include "base/arena.h"
#include "base/bytes.h"

#include "chronos/internal/v1/command.pb-c.h"

struct fsm;

#define FSM_SCHEDULES_MAX (1UL << 20)
#define FSM_SCHEDULE_NAME_BYTES_MAX 128
#define FSM_SCHEDULE_BYTES_MAX (1024 * 1024) /* spec and job together */
#define FSM_SCHEDULE_REASON_BYTES_MAX 256    /* of a pause and of an alarm; the excess is cut off */
#define FSM_SCHEDULE_OPEN_MAX 10000          /* open runs of one schedule; then CAP */
#define FSM_SCHEDULE_BUFFERED_MAX 1000       /* ticks that wait; then CAP (C16) */
#define FSM_SCHEDULE_HISTORY_MAX 100         /* TickRecords of one schedule (C38) */
#define FSM_SCHEDULE_HISTORY_MS (30LL * 24 * 3600 * 1000)
#define FSM_TICKS_MAX 4096     /* DecidedTicks in one ProcessTicks, all items together */
#define FSM_RUN_TICKS_MAX 1000 /* ticks of one RunSchedule (C14) */
/* The specifications that the jobs of one ProcessTicks or RunSchedule copy, in bytes: memory of the
 * apply. The first job is always made. Past it ProcessTicks answers FSM_PARTIAL (the watermark is
 * where it stopped) and RunSchedule is refused whole. */
#define FSM_CREATED_BYTES_MAX (8UL * 1024 * 1024)

/* A schedule in memory: what the leader needs without reading its record. Borrowed, valid until the
 * next apply. Its name and definition: fsm_read_schedule. */
struct fsm_schedule {
    uint64_t seq; /* > 0, never used again: a re-created name is another schedule */
    uint64_t generation;
    int64_t watermark_s;     /* every tick up to here has its outcome */
    int64_t paused_until_ms; /* with paused; 0 = until resumed */
    uint64_t runs_left; /* before max_runs; waiting ticks are taken off; UINT64_MAX = no bound */
    uint32_t open_runs; /* jobs that have not ended */
    uint32_t buffered;  /* ticks that wait for an open run to end */
    uint32_t job_bytes; /* what each run copies */
    bool paused;        /* itself. May be over: fsm_schedule_paused */
    bool alarmed;       /* SetScheduleAlarm with a text */
    struct fsm_schedule *next, *prev; /* all, by seq */
};

/* Whether all schedules are paused (C22), and why. */
struct fsm_schedules_pause {
    bool paused;
    int64_t until_ms;   /* 0 = until resumed */
    int64_t resumed_ms; /* when it was last lifted; 0 = never */
    const char *reason; /* "" = none was given; borrowed until the next apply */
};

/* ---- what an apply yields -------------------- */

enum fsm_schedule_change {
    FSM_SCHEDULE_PUT,     /* created or replaced: read its record for the definition */
    FSM_SCHEDULE_REMOVED, /* gone: only the seq is left */
    FSM_SCHEDULE_STATE,   /* watermark, runs, pause or alarm */
};

struct fsm_schedule_event {
    uint64_t seq;
    enum fsm_schedule_change change;
};

/* An outcome that was decided or completed by this apply. A tick that waits is given twice:
 * waiting, and with what became of it. */
struct fsm_tick {
    uint64_t schedule_seq;
    uint64_t generation;
    uint64_t ordinal; /* of its TickRecord; one record may hold several ticks not run */
    int64_t tick_s;
    int64_t last_tick_s; /* = tick_s for one */
    uint64_t count;
    Chronos__V1__TickReason reason;
    Chronos__V1__TickReason cause; /* as proposed: BUFFERED hides ON_TIME, TRIGGER ... */
    bool fired;                    /* or is to be, when waiting */
    bool waiting;
    uint64_t job_seq; /* created; with waiting or OVERLAP the open run in the way; else 0 */
};

/* ---- looking in -------------------- */

uint64_t fsm_schedules_count(const struct fsm *f);
const struct fsm_schedule *fsm_schedule_by_seq(const struct fsm *f, uint64_t seq); /* or NULL */
const struct fsm_schedule *fsm_schedule_first(const struct fsm *f); /* by seq; then ->next */
/* FSM_READ_NOT_FOUND or 0 with *ret; negative: the store could not be read. */
int fsm_schedule_find(struct fsm *f, struct slice name,
                      const struct fsm_schedule **ret) _must_check_;
/* Whether a tick at @at_ms does not run: by the schedule's own pause or the global one. Does not
 * know of pauses that were lifted. */
bool fsm_schedule_paused(const struct fsm *f, const struct fsm_schedule *s, int64_t at_ms);
void fsm_schedules_pause(const struct fsm *f, struct fsm_schedules_pause *ret);

/* Its record, unpacked into @arena. 0, FSM_READ_NOT_FOUND, ERR_CORRUPT, -ENOMEM, kv. */
int fsm_read_schedule(struct fsm *f, uint64_t seq, struct arena *arena,
                      Chronos__Internal__V1__ScheduleRecord **ret) _must_check_;
/* One line of a schedule's history; those kept are record.first_ordinal <= n < next_ordinal. */
int fsm_read_tick(struct fsm *f, uint64_t seq, uint64_t ordinal, struct arena *arena,
                  Chronos__Internal__V1__TickRecord **ret) _must_check_;
/* Visit schedules in the order of their names (bytes), from @from_name (inclusive; empty = the
 * first), until @each returns non-zero (then returned when negative, 0 when positive). The arena is
 * cleared before each record. Does a write-back first. */
int fsm_scan_schedules(struct fsm *f, struct slice from_name, struct arena *arena,
                       int (*each)(void *arg, const struct fsm_schedule *s,
                                   const Chronos__Internal__V1__ScheduleRecord *rec),
                       void *arg) _must_check_;
/* The same in the order of seq, from @from_seq (inclusive): twice as fast, for loading all. */
int fsm_load_schedules(struct fsm *f, uint64_t from_seq, struct arena *arena,
                       int (*each)(void *arg, const struct fsm_schedule *s,
                                   const Chronos__Internal__V1__ScheduleRecord *rec),
                       void *arg) _must_check_;
