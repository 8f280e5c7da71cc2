/* What the files of fsm/ about schedules share.
 *
 * One schedule is worked on at a time: loaded from its record into f->work, changed, stored. A run
 * of it that ends meanwhile (a pending one that is cancelled) is taken off f->work, so that nothing
 * decides on a record that is being rewritten.
 * Invariants, between commands: open_runs are exactly the jobs of the schedule that have not ended;
 * a tick waits only while a run is open; a run other than the first open one was allowed to start
 * beside others (J9). Thread: the loop. */
#pragma once

#include "fsm/fsm_internal.h"

#define REASON(x) CHRONOS__V1__TICK_REASON__TICK_REASON_##x
#define OVERLAP(x) CHRONOS__V1__OVERLAP_POLICY__OVERLAP_POLICY_##x
#define REASON_NOT_RUN_FIRST REASON(WINDOW) /* from here on reasons say why a tick did not run */

/* ---- schedules.c: memory -------------------- */

/* A schedule without record, at the end of the list: @seq is the greatest so far. NULL: -ENOMEM. */
struct fsm_schedule *schedules_new(struct fsm *f, uint64_t seq) _must_check_;
void schedules_remove(struct fsm *f, struct fsm_schedule *s);
bool schedules_name_ok(struct slice name);
/* 0 with *ret, STORE_NOT_FOUND, negative. */
int schedules_find(struct fsm *f, struct slice name, struct fsm_schedule **ret,
                   struct errtext *err) _must_check_;
/* The view says what the record says. */
void schedules_view(struct fsm_schedule *s, const struct record_schedule *rec, size_t open_count,
                    const struct schedule_wait *waits, size_t waits_count);
int schedules_emit(struct fsm *f, uint64_t seq, enum fsm_schedule_change change) _must_check_;
/* A run started by hand: neither pause nor max_runs holds it. */
bool schedules_by_hand(int32_t cause);

/* ---- schedule_work.c: a record, loaded and stored -------------------- */

/* Read @s into f->work; fills what the flat decoding of the record leaves. A pause that is over is
 * taken off. */
int schedule_load(struct fsm *f, struct apply *a, struct fsm_schedule *s) _must_check_;
/* A new one: an empty record under @seq. */
int schedule_load_new(struct fsm *f, struct fsm_schedule *s) _must_check_;
/* Write f->work back, refresh the view, tell. f->work is free then. */
int schedule_store(struct fsm *f, struct apply *a, enum fsm_schedule_change change) _must_check_;
/* The open runs and the waiting ticks of @rec, whose whole bytes are @bytes, into @w. False: the
 * bytes are malformed or more than there can be. *ret_r is -ENOMEM or 0. */
bool schedule_read_lists(struct schedule_work *w, struct slice open_runs, struct slice bytes,
                         int *ret_r) _must_check_;
int schedule_add_open(struct schedule_work *w, uint64_t job_seq) _must_check_;
int schedule_add_wait(struct schedule_work *w, struct schedule_wait wait) _must_check_;

/* ---- schedule_history.c: the lines of f->work -------------------- */

struct outcome {
    int64_t tick_s;
    int64_t last_tick_s;
    uint64_t count;
    int32_t cause;
    int32_t reason;
    bool fired;
    bool waiting;
    uint64_t job_seq;
};

/* A new line, or one more tick in the newest. *ret_ordinal may be NULL. */
int history_add(struct fsm *f, struct apply *a, const struct outcome *o,
                uint64_t *ret_ordinal) _must_check_;
/* What has become of a tick that waited; a new line when its own is no longer kept. */
int history_complete(struct fsm *f, struct apply *a, uint64_t ordinal,
                     const struct outcome *o) _must_check_;
int history_drop_all(struct fsm *f, struct apply *a) _must_check_;

/* ---- schedule_run.c: what becomes of a tick of f->work -------------------- */

/* Decide one tick that may run: start, wait, or skip (C16). */
int schedule_decide(struct fsm *f, struct apply *a, int64_t tick_s, int32_t cause,
                    bool ignore_overlap) _must_check_;
/* Start what waits and may start now. */
int schedule_settle(struct fsm *f, struct apply *a) _must_check_;
/* All waiting ticks come to nothing, for @reason. */
int schedule_drop_waits(struct fsm *f, struct apply *a, int32_t reason) _must_check_;
/* Ask all open runs to stop; with @kill at once. */
int schedule_cancel_runs(struct fsm *f, struct apply *a, bool kill) _must_check_;
/* Whether the state says that a tick at @at_ms does not run. */
bool schedule_paused_at(const struct fsm *f, const struct record_schedule *rec, int64_t at_ms);

/* ---- fsm_check_schedules.c -------------------- */

struct schedules_recount {
    uint64_t schedules, names, lines; /* records */
    uint64_t open_jobs;               /* jobs of schedules there are that have not ended */
};
/* One record. @value must not be read again from the store meanwhile. */
void schedules_check_record(const struct fsm *f, struct schedules_recount *c, struct slice key,
                            struct slice value);
void schedules_check_job(const struct fsm *f, struct schedules_recount *c,
                         const struct record_job *rec);
/* All of them together, once all records were seen. */
void schedules_check_all(struct fsm *f, const struct schedules_recount *c);
