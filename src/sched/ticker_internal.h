/* Shared by the ticker_*.c files only; the contract is ticker.h. */
#pragma once

#include "base/map.h"
#include "sched/ticker.h"

/* Where a schedule is:
 *
 *   IDLE ------ has a next tick -----> WAITING (in the heap) ---- planned ----> PLANNED
 *     ^                                  |   ^                                    |
 *     +---- no tick, finished, trouble --+   +-------- plan done, replaced -------+
 */
struct entry {
    uint64_t seq;
    uint64_t generation;
    int64_t watermark_s;
    int64_t from_s; /* no undecided tick up to here; >= watermark_s */
    uint64_t name_hash;
    struct timetable *times; /* held; NULL = did not compile */
    struct catch_up *catch_up;
    uint32_t heap_pos; /* 1-based; 0 = not in the heap */
    uint32_t index;    /* in ticker.entries */
    uint32_t plan;     /* PLANNED: low bits of its id, never 0; else 0 */
    uint32_t window_s;
    uint32_t job_bytes;
    uint8_t missed; /* Chronos__V1__MissedPolicy */
    bool finished, alarmed;
    bool postponed; /* in the heap at an instant that is not a tick's */
};

struct heap_slot {
    int64_t due_ms;
    struct entry *entry;
};

/* ticker_heap.c: due instants, earliest first; of equal ones the older schedule. */
struct heap {
    struct heap_slot *slots;
    size_t count, cap;
};
int heap_reserve(struct heap *h, size_t count) _must_check_;
/* Put in, or move. Never fails below what was reserved. */
void heap_set(struct heap *h, struct entry *e, int64_t due_ms);
void heap_remove(struct heap *h, struct entry *e); /* harmless when not in it */

/* What was decided and not yet proposed of a schedule that is late: ticks not to run, collected
 * over several slices. Lives while the schedule is behind. */
struct catch_up {
    struct catch_up *prev, *next;
    struct entry *entry;
    int64_t began_ms;      /* the backlog found then: ticks due up to here; */
    uint32_t fires_left;   /* and, with `all`, how many of it still run */
    bool limited;          /* held back by the rate since then */
    int64_t not_before_ms; /* rate */
    int64_t held_s;        /* `once`: the newest late tick so far; -1 none */
    int64_t held_due_ms;
    /* The run of ticks with one reason not to run; count 0 = none. */
    int64_t first_s, last_s;
    uint64_t count;
    Chronos__V1__TickReason reason;
};

struct fired {
    int64_t due_ms;
    enum ticker_cause cause;
    uint32_t item; /* of its plan */
};

struct planned {
    uint64_t seq;
    int64_t base_s;      /* the watermark it was decided from, */
    int64_t watermark_s; /* and where it is to be once the plan is applied */
};

struct plan {
    struct plan *next;
    uint64_t id;
    size_t items_count, fired_count;
    struct planned *items;
    struct fired *fired;
};

/* An alarm that stands, or should. */
struct trouble {
    struct entry *entry;
    bool wanted;
    bool telling; /* SetScheduleAlarm is under way */
    struct errtext text;
};

struct ticker {
    struct zones *zones;
    struct u64map by_seq; /* struct entry, owned */
    struct entry **entries;
    size_t entries_cap;
    struct heap heap;
    struct bytesmap shared; /* timetables by their bytes, not held */
    struct u64map troubles; /* by seq; struct trouble, owned */
    bool alarms_dirty;      /* one of them may have to be told */
    struct catch_up *catch_ups;
    size_t catch_ups_count;
    struct plan *plans;
    uint64_t next_plan;
    int64_t leads_since_ms;
    int64_t postponed_ms; /* the latest such instant ever; see ticker_clock_back */
    size_t refreshed;     /* entries below have seen the zones as they are; SIZE_MAX = all */
    size_t timetables_bytes;
    uint64_t steps;
};

/* ticker.c */
/* The next due instant of an entry that is in no plan: into the heap or out of it. */
void entry_arm(struct ticker *t, struct entry *e);
/* Not before @at_ms, whenever it is due. */
void entry_postpone(struct ticker *t, struct entry *e, int64_t at_ms);
/* Begin anew at the watermark. */
void entry_rewind(struct ticker *t, struct entry *e);

/* ticker_plan.c */
/* Until a schedule that a plan did not move is planned again; also the period of TICKER_RATE_MAX.
 */
#define RETRY_MS 1000
void plan_free(struct plan *p); /* NULL allowed */

/* ticker_alarm.c */
/* Compare what is recorded of @e with what should be; @refused: why it did not compile, or NULL. */
int trouble_check(struct ticker *t, struct entry *e, const char *refused) _must_check_;
void trouble_forget(struct ticker *t, uint64_t seq);
void troubles_clear(struct ticker *t);

/* ticker_decide.c */
#define DECISION_TICKS_MAX 32 /* of one schedule in one plan; see entry_decide */

struct decided {
    int64_t tick_s, last_tick_s;
    uint64_t count;
    Chronos__V1__TickReason reason;
};

struct decision { /* of one schedule, within one plan */
    struct decided ticks[DECISION_TICKS_MAX];
    struct fired fired[DECISION_TICKS_MAX];
    size_t ticks_count, fired_count;
    bool cut_off; /* the steps were used up: go on later, nothing is lost */
};

/* Decide the ticks of @e that are due, from entry.from_s on; afterwards that and its catch_up stand
 * where the decision ended. *io_steps as for timetable_next. 0; -ENOMEM. */
int entry_decide(struct ticker *t, struct entry *e, int64_t now_ms, uint32_t *io_steps,
                 struct decision *d) _must_check_;
/* The entry is not behind any more, or begins anew. */
void catch_up_end(struct ticker *t, struct entry *e);
