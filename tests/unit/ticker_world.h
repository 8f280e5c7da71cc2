/* A ticker, the state machine's part of its work, and what was recorded. */
#pragma once

#include "base/rand.h"
#include "fake_zones.h"
#include "sched/ticker.h"

#include <stddef.h>

#define T0 1790000000LL /* a second in 2026 */
#define RAN(reason) ((reason) < CHRONOS__V1__TICK_REASON__TICK_REASON_WINDOW)

struct outcome {
    int64_t first_s, last_s;
    uint64_t count;
    Chronos__V1__TickReason reason;
    int64_t at_ms;
};

struct schedule {
    Chronos__V1__ScheduleSpec spec;
    char *cron[4], *exclude[2];
    char name[32];
    uint64_t seq, generation;
    struct ticker_state state;
    struct outcome *outcomes;
    size_t count, cap;
};

struct world {
    struct zones *zones;
    struct ticker *t;
    struct arena arena;
    struct schedule *schedules;
    size_t n;
    int64_t now_ms;
    struct fake_zone fake[2]; /* Europe/Berlin */
    uint64_t causes[TICKER_CAUSES];
    int64_t lateness_max_ms[TICKER_CAUSES];
};

void world_init(struct world *w, size_t n);
void world_done(struct world *w);
void world_put(struct world *w, size_t i);
void world_define(struct world *w, size_t i, const char *cron);
void world_record(struct world *w, struct schedule *s, const Chronos__Internal__V1__DecidedTick *x);
/* What the state machine does with an item. */
void world_apply(struct world *w, const Chronos__Internal__V1__ScheduleTicks *item);
void world_on_cause(void *arg, enum ticker_cause cause, int64_t due_ms);
/* One plan, applied at once unless @lose. Returns the number of its items. */
size_t world_plan_once(struct world *w, bool lose);
/* All that is due; returns the number of plans. */
size_t world_run(struct world *w);
/* Let time pass as a node does: plans happen when they are due. */
void world_run_until(struct world *w, int64_t end_ms);
void world_lead(struct world *w);
uint64_t world_ran(const struct schedule *s);
uint64_t world_not_run(const struct schedule *s, Chronos__V1__TickReason reason);
