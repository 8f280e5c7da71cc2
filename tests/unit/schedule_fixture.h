/* Short ways to build commands of schedules. Tests only. */
#pragma once

#include "fsm_fixture.h"

#define R_(x) CHRONOS__V1__TICK_REASON__TICK_REASON_##x
#define P_(x) CHRONOS__V1__OVERLAP_POLICY__OVERLAP_POLICY_##x

struct put_args {
    const char *name;
    const char *key, *hash; /* NULL = none */
    uint64_t version;
    uint64_t max_runs;
    uint32_t max_attempts; /* 0 = 1 */
    int overlap;
    bool replace, new_generation, paused, pause_on_failure;
    size_t job_bytes; /* 0 = a few */
    Chronos__Internal__V1__ScheduleHandover *handover;
};

struct tick_args {
    int64_t tick_s;
    int64_t last_tick_s;
    uint64_t count;
    int reason;
};

struct bytes *cmd_put_schedule(const struct put_args *p, int64_t now_ms);
struct bytes *cmd_delete_schedule(const char *name, uint64_t version, bool cancel, int64_t now_ms);
struct bytes *cmd_pause_schedule(const char *name, bool on, int64_t until_ms, const char *reason,
                                 int64_t now_ms);
/* One item. */
struct bytes *cmd_ticks(uint64_t seq, uint64_t generation, int64_t watermark_s,
                        const struct tick_args *ticks, size_t n, int64_t now_ms);
struct bytes *cmd_run_schedule(const char *name, int reason, const int64_t *ticks, size_t n,
                               bool ignore_overlap, const char *key, const char *hash,
                               int64_t now_ms);
struct bytes *cmd_schedule_alarm(uint64_t seq, const char *text, int64_t now_ms);
