/* The naive second implementation's part for schedules: open runs are found by walking all jobs.
 * Tests only. */
#pragma once

#include "fsm_model.h"

#define SCHEDULE_NAMES SCHEDULES

struct model_ticks_args {
    int64_t watermark_s;
    struct {
        int64_t tick_s, last_tick_s;
        int reason;
    } ticks[4];
    size_t count;
};

const char *schedule_name(int n);
enum fsm_code model_put(struct model *m, int n, bool create, bool new_generation, uint64_t version,
                        int policy, bool pause_on_failure, unsigned max_runs,
                        unsigned max_attempts);
enum fsm_code model_delete(struct model *m, int n, uint64_t version, bool cancel);
/* @n < 0: all. */
enum fsm_code model_pause(struct model *m, int n, bool on, int64_t until_ms);
enum fsm_code model_ticks(struct model *m, uint64_t seq, uint64_t generation,
                          const struct model_ticks_args *a);
/* @key < 0: none. */
enum fsm_code model_run(struct model *m, int n, const int64_t *ticks, size_t count,
                        bool ignore_overlap, int key, char hash);
bool model_schedule_paused(const struct model *m, const struct model_schedule *s, int64_t at_ms);
unsigned model_open_runs(const struct model *m, uint64_t seq, uint64_t *ret_first);
