/* Schedules as the checkers know them: a model of what the log says, written apart from fsm/ and
 * sched/, and an oracle of when a definition is due.
 *
 * What it is: small, slow and literal. Definitions are the few forms that sim_schedules.c writes; a
 * tick is found by asking every second whether it is one. What it is not: a second implementation
 * for production, nor shared code: it includes nothing of fsm/ but the numbers of schedules.h.
 * Thread: one. */
#pragma once

#include "sim/job_model.h"
#include "sim/sim_internal.h"

#include "chronos/internal/v1/schedule.pb-c.h"
#include "chronos/v1/schedule.pb-c.h"

#define TICK_REASON(x) CHRONOS__V1__TICK_REASON__TICK_REASON_##x
#define OVERLAP_IS(x) CHRONOS__V1__OVERLAP_POLICY__OVERLAP_POLICY_##x
#define MISSED_IS(x) CHRONOS__V1__MISSED_POLICY__MISSED_POLICY_##x

/* ---- schedule_rule.c -------------------- */

#define RULE_EXPRESSIONS_MAX 2

struct rule_expression {
    bool every, manual;
    int64_t every_s, phase_s;
    unsigned second_step;
    bool any_minute, any_hour;
    unsigned minute_lo, minute_hi, hour_lo, hour_hi;
};

struct rule {
    struct rule_expression expressions[RULE_EXPRESSIONS_MAX];
    size_t count;
    unsigned exclude_step; /* minutes that it divides are excluded; 0 = none */
    int64_t start_ms, end_ms;
    int dst;
    bool central_europe; /* else UTC */
    int64_t delay_max_ms;
    int missed;
    int64_t window_ms;
};

/* False: not one of the forms that sim_schedules.c writes. */
bool rule_read(const Chronos__V1__ScheduleSpec *spec, struct rule *ret);
bool rule_is_tick(const struct rule *r, int64_t at_s);
/* Ticks in [from_s, to_s]. */
uint64_t rule_count(const struct rule *r, int64_t from_s, int64_t to_s);
/* The same ticks for ever. */
bool rule_same_ticks(const struct rule *a, const struct rule *b);
/* Of central Europe, in seconds, by its rule since 1996. */
int64_t rule_central_europe_offset(int64_t at_s);

/* ---- schedule_model.c -------------------- */

struct model_line { /* of the history */
    int64_t tick_s, last_tick_s;
    uint64_t count;
    bool fired, waiting;
    int reason, cause;
    uint64_t job_seq;
    int64_t decided_at_ms;
    uint64_t generation;
    bool news; /* not compared yet */
};

struct model_wait {
    int64_t tick_s;
    uint64_t ordinal;
    int cause;
};

struct model_pause {
    bool on;
    int64_t until_ms, resumed_ms;
};

#define MODEL_LINES 128

struct model_schedule {
    struct model_schedule *next; /* by seq */
    uint64_t seq, version, generation;
    char name[16];
    struct rule rule;
    bool mixed; /* policies were edited within this generation: plans may follow either */
    bool torn;  /* other ticks without another generation: the name is of another schedule */
    int overlap;
    bool pause_on_failure;
    uint64_t max_runs;
    int64_t watermark_s;
    int64_t clear_s; /* no tick without outcome up to here */
    struct model_pause pause;
    uint64_t *open;
    size_t open_count, open_cap;
    struct model_wait *waits;
    size_t waits_count, waits_cap;
    uint64_t fired, skipped, runs_counted;
    uint64_t first_ordinal, next_ordinal;
    struct model_line lines[MODEL_LINES]; /* by ordinal */
};

struct model_job {
    uint64_t seq, schedule_seq, generation;
    int64_t tick_s;
    int reason;
    bool pending, cancelled;
};

struct schedule_model {
    struct world *world;
    uint64_t index;   /* applied so far */
    bool lost;        /* transitions that no node told: nothing can be compared any more */
    int64_t now_ms;   /* the newest stamp */
    int64_t stamp_ms; /* of the entry being applied, as it is */
    bool other_clock; /* another node made the plan, or the clock may have gone back since */
    uint64_t last_seq;
    struct model_schedule *first;
    struct model_pause pause; /* of all */
    struct u64map jobs;       /* struct model_job, owned: of schedules, ended or not */
    struct u64map entries;    /* index and term -> struct bytes: commands about schedules */
    struct u64map stamps;     /* index and term -> now_ms */
    struct u64map keys;       /* hash of an idempotency key -> struct model_key, owned */
    struct u64map answers;    /* index -> what the state machine answered, or must */
    struct u64map runs;       /* schedule, generation and tick -> it ran (J4) */
    uint64_t term;            /* of the entry being applied */
    uint64_t ticks_term;      /* of the last plan */
    /* The transitions of the entry being applied. */
    const struct replica_event *events;
    size_t events_count, events_at;
    /* What the schedules have done within it, for the model of jobs. */
    struct jm_hint *hints; /* owned */
    size_t hints_count, hints_cap;
    bool ending; /* the world has healed: what is due must come within J8's bounds */
    uint64_t ending_at;
};

struct model_key {
    uint64_t request;
    uint64_t schedule_seq;
};

struct schedule_model *schedule_model_new(struct world *w);
struct schedule_model *schedule_model_free(struct schedule_model *m);
/* An entry as some node has it in its log. */
void schedule_model_entry(struct schedule_model *m, const struct raft_entry *e);
/* Go on to @index, whose transitions are @events (none in between). */
void schedule_model_apply(struct schedule_model *m, uint64_t index,
                          const struct replica_event *events, size_t count);
/* A caller was answered: code and schedule. */
void schedule_model_answered(struct schedule_model *m, uint64_t index, int code,
                             uint64_t schedule_seq);
struct model_schedule *schedule_model_find(struct schedule_model *m, uint64_t seq);
bool model_paused(const struct schedule_model *m, const struct model_schedule *s, int64_t at_ms);
/* No tick comes any more, for max_runs. */
bool model_finished(const struct model_schedule *s);

/* schedule_run.c: what becomes of a tick, and of the runs. */
void model_decide(struct schedule_model *m, struct model_schedule *s, int64_t tick_s, int cause,
                  bool ignore_overlap);
void model_skip_range(struct schedule_model *m, struct model_schedule *s, int64_t first_s,
                      int64_t last_s, uint64_t count, int reason);
void model_run_ended(struct schedule_model *m, struct model_job *j, int state);
void model_drop_waits(struct schedule_model *m, struct model_schedule *s, int reason);
void model_settle(struct schedule_model *m, struct model_schedule *s);
void model_cancel_runs(struct schedule_model *m, struct model_schedule *s, bool kill);
/* The model of jobs hears of it. */
void model_hint(struct schedule_model *m, struct jm_hint hint);
/* A pause that is over by itself. */
void model_touch(struct schedule_model *m, struct model_pause *p);

/* ---- checker_schedules.c -------------------- */

/* What the leader decided, against the oracle: before it is applied to the model. */
void checker_ticks(struct schedule_model *m, const struct model_schedule *s,
                   const Chronos__Internal__V1__ScheduleTicks *item);
