/* Steps of the tests about schedules: a schedule, its ticks, their runs and their ends. */
#pragma once

#include "schedule_fixture.h"

#include <stddef.h>

#define O(x) CHRONOS__V1__ATTEMPT_OUTCOME__ATTEMPT_OUTCOME_##x
#define S(x) CHRONOS__V1__JOB_STATE__JOB_STATE_##x
#define WORKER "w1"

enum ending { SUCCESS, FAILURE, CANCEL, LOSS, ENDINGS };

/* A state machine with a worker of many slots; the clock is at 1,000 s. */
void steps_begin(struct fixture *x);
void steps_end(struct fixture *x);
uint64_t steps_put(struct fixture *x, const struct put_args *p);
/* The clock to @tick_s, and that tick decided. */
enum fsm_code steps_tick_as(struct fixture *x, uint64_t seq, int64_t tick_s, int reason);
const struct fsm_tick *steps_tick(struct fixture *x, uint64_t seq, int64_t tick_s);
void steps_assert_tick(const struct fsm_tick *t, int64_t tick_s, int reason, uint64_t job);
void steps_assert_waits(const struct fsm_tick *t, int64_t tick_s, uint64_t behind);
uint64_t steps_run_job(struct fixture *x, uint64_t job);
/* The running @job ends; what that started is in x->out. */
void steps_end_job(struct fixture *x, uint64_t job, enum ending how);
Chronos__Internal__V1__ScheduleRecord *steps_record(struct fixture *x, uint64_t seq,
                                                    struct arena *arena);
enum fsm_code steps_pause(struct fixture *x, const char *name, bool on, int64_t until_ms);
