/* Which ticks are due, and what is to be proposed for each (semantics.md C9-C13, C15). Pure.
 *
 * What it is: all schedules compiled (timetable.h), on every node and always up to date with the
 * state machine, so that a new leader has nothing to read or parse; their due instants in a heap,
 * so that idle schedules cost nothing. The leader asks for a plan: for each due schedule its ticks
 * after the watermark, decided. What it is not: the judge of overlap, pause and max_runs, which the
 * state machine decides when it applies the plan.
 *
 * How a tick is decided. Due is the tick plus its delay (spread, jitter). Up to TICKER_ON_TIME_MS
 * late it fires. Later: `once` fires the newest late one within the catch-up window and records the
 * others (MISSED); `skip` records all; `all` fires the TICKER_CATCH_UP_MAX oldest within the
 * window, TICKER_RATE_MAX a second, and records what remains of the backlog it found (CAP); what
 * is older than the window is recorded (WINDOW). Ticks not to run travel as ranges, so a million of
 * them cost one line and a second of searching, in slices of TICKER_STEPS_MAX a plan.
 * How far an `all` has come is this leader's memory: the next one counts its cap anew.
 *
 * Nothing twice, nothing lost: a schedule is planned from its applied watermark only, and again
 * only after the plan was applied or given up. A clock that steps back plans nothing, for what was
 * decided stands at or below the watermark. No tick is planned before it is due.
 * Trouble (an unreadable zone, a definition that does not compile) is an alarm on that schedule,
 * never an error of the ticker.
 * Invariants: each schedule that ticks is in the heap or in a plan. Thread: the loop. */
#pragma once

#include "base/arena.h"
#include "base/time.h"
#include "sched/timetable.h"

#include "chronos/internal/v1/schedule.pb-c.h"

#define TICKER_ON_TIME_MS 2000     /* C11 */
#define TICKER_FAILOVER_MS 30000   /* a tick later than that was not late because of a failover */
#define TICKER_CATCH_UP_MAX 1000   /* C11 */
#define TICKER_RATE_MAX 10         /* C11: per schedule and second */
#define TICKER_WINDOW_MS 3600000LL /* C11: for a definition that names none */
#define TICKER_TICKS_MAX 4096      /* in one plan, to run or ranges */
#define TICKER_ITEMS_MAX 1000      /* schedules in one plan */
#define TICKER_STEPS_MAX 20000     /* searches in one plan: about 10 ms */
#define TICKER_JOB_BYTES_MAX (4UL * 1024 * 1024) /* that the jobs of one plan copy */

struct ticker;

/* @zones borrowed for life. 0, -ENOMEM. */
int ticker_new(struct zones *zones, struct ticker **ret) _must_check_;
struct ticker *ticker_free(struct ticker *t);
DEFINE_CLEANUP(struct ticker *, ticker_free);

/* ---- following the state ----------------------------------------------------------------------
 */

/* What of a schedule changes by itself. */
struct ticker_state {
    int64_t watermark_s;
    bool finished; /* max_runs is used up: no tick is proposed */
    bool alarmed;  /* an alarm is recorded */
};

struct ticker_definition {
    uint64_t seq; /* > 0 */
    uint64_t generation;
    uint32_t job_bytes;                    /* what each run copies */
    const Chronos__V1__ScheduleSpec *spec; /* borrowed for the call */
    struct ticker_state state;
};

/* Add or replace. What is in a plan stays there, the answer is ignored. 0, -ENOMEM. */
int ticker_put(struct ticker *t, const struct ticker_definition *d) _must_check_;
/* A schedule that was never put is ignored, here and below. Update: 0, -ENOMEM. */
void ticker_remove(struct ticker *t, uint64_t seq);
int ticker_update(struct ticker *t, uint64_t seq, const struct ticker_state *state) _must_check_;
/* Forget all: the state was replaced. */
void ticker_clear(struct ticker *t);
/* zones_refresh() said that zones changed. The schedules concerned are looked at again, a slice at
 * each ticker_refresh(); 1: there is more to do; -ENOMEM. */
void ticker_zones_changed(struct ticker *t);
int ticker_refresh(struct ticker *t) _must_check_;

/* ---- leading ----------------------------------------------------------------------------------
 */

/* Leadership begins or ends: plans and catch-ups are forgotten. Ticks due before @now were, if they
 * turn out late, late because of that. */
void ticker_reset(struct ticker *t, struct wall now);

/* The wall clock was set back to @now. What waits for a while after an instant of the clock as it
 * was (a rate, a plan that was lost) would else wait for as long as the clock went back. */
void ticker_clock_back(struct ticker *t, struct wall now);

/* When the next plan is due: in ms since 1970, INT64_MAX = never. */
int64_t ticker_next_due_ms(const struct ticker *t);

/* Decide what is due at @now. *ret_items (in @arena, *ret_count, at most TICKER_ITEMS_MAX) go into
 * one ProcessTicks; with 0 of them there is no plan, and *ret_plan is untouched. Call again while
 * ticker_next_due_ms() is not after @now: a plan is bounded. 0; -ENOMEM: only reset, clear and free
 * are allowed then. */
int ticker_plan(struct ticker *t, struct wall now, struct arena *arena,
                Chronos__Internal__V1__ScheduleTicks ***ret_items, size_t *ret_count,
                uint64_t *ret_plan) _must_check_;

/* Why a run started when it did, for the histograms of lateness. */
enum ticker_cause {
    TICKER_ON_TIME,
    TICKER_FAILOVER,
    TICKER_CATCH_UP,
    TICKER_LIMIT, /* TICKER_RATE_MAX held it back */
    TICKER_CAUSES
};
const char *ticker_cause_to_string(enum ticker_cause c);

/* The plan's entry was applied (ticker_update came first), or will perhaps never be. @each, when
 * not NULL, is told of every tick that was to run, of schedules that came as far as planned. Those
 * that did not move are planned again a second after @now at the earliest. A plan of before
 * ticker_reset() is ignored. */
typedef void (*ticker_each_fn)(void *arg, enum ticker_cause cause, int64_t due_ms);
void ticker_plan_done(struct ticker *t, uint64_t plan, struct wall now, ticker_each_fn each,
                      void *arg);

/* The next schedule whose recorded alarm is not as it should be: *ret_text is what to record, "" =
 * over, borrowed until the next change of the ticker. False: none, or each is being told. */
bool ticker_next_alarm(struct ticker *t, uint64_t *ret_seq, const char **ret_text);
/* SetScheduleAlarm was applied or lost. */
void ticker_alarm_done(struct ticker *t, uint64_t seq);

/* ---- looking in -------------------------------------------------------------------------------
 */

struct ticker_stats {
    size_t schedules;
    size_t timetables; /* shared by equal ones */
    size_t alarms;
    size_t catching_up;
    size_t bytes;   /* memory held, about */
    uint64_t steps; /* searches so far */
};
void ticker_stats(const struct ticker *t, struct ticker_stats *ret);
