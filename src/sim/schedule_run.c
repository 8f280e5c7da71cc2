/* What becomes of a tick in the model (semantics.md C12, C14, C16, C17). See schedule_model.h. */
#include "sim/schedule_model.h"

#include "fsm/schedules.h"

#include <stdlib.h>
#include <string.h>

#define S_PENDING CHRONOS__V1__JOB_STATE__JOB_STATE_PENDING
#define S_RUNNING CHRONOS__V1__JOB_STATE__JOB_STATE_RUNNING
#define S_COMPLETED CHRONOS__V1__JOB_STATE__JOB_STATE_COMPLETED
#define S_FAILED CHRONOS__V1__JOB_STATE__JOB_STATE_FAILED
#define S_CANCELLED CHRONOS__V1__JOB_STATE__JOB_STATE_CANCELLED

static bool by_hand(int cause) {
    return cause == TICK_REASON(TRIGGER) || cause == TICK_REASON(BACKFILL);
}

static void *room(struct world *w, void *array, size_t count, size_t *cap, size_t item_bytes) {
    size_t bigger = MAX(*cap * 2, (size_t) 16);
    void *grown;

    if (count < *cap)
        return array;
    grown = realloc(array, bigger * item_bytes);
    if (!grown) {
        w->no_memory = true;
        return array;
    }
    *cap = bigger;
    return grown;
}

/* ---- pauses ---------------------------------------------------------------------------------- */

void model_touch(struct schedule_model *m, struct model_pause *p) {
    if (!p->on || p->until_ms == 0 || m->now_ms < p->until_ms)
        return;
    *p = (struct model_pause){.resumed_ms = MAX(p->resumed_ms, p->until_ms)};
}

static bool held(const struct model_pause *p, int64_t at_ms) {
    return at_ms < p->resumed_ms || (p->on && (p->until_ms == 0 || at_ms < p->until_ms));
}

bool model_paused(const struct schedule_model *m, const struct model_schedule *s, int64_t at_ms) {
    return held(&s->pause, at_ms) || held(&m->pause, at_ms);
}

/* ---- history --------------------------------------------------------------------------------- */

static struct model_line *line_at(struct model_schedule *s, uint64_t ordinal) {
    return &s->lines[ordinal % MODEL_LINES];
}

#define TICKS_MANY 100

static void count_outcome(struct schedule_model *m, const struct model_line *l) {
    struct world *w = m->world;

    if (l->waiting) {
        sim_count(w, SIM_STAT_TICKS_BUFFERED);
        return;
    }
    if (l->count > TICKS_MANY)
        sim_count(w, SIM_STAT_TICKS_MANY);
    switch (l->reason) {
    case TICK_REASON(ON_TIME):
        sim_count(w, SIM_STAT_TICKS_ON_TIME);
        break;
    case TICK_REASON(FAILOVER):
        sim_count(w, SIM_STAT_TICKS_FAILOVER);
        break;
    case TICK_REASON(CATCH_UP):
        sim_count(w, SIM_STAT_TICKS_CATCH_UP);
        break;
    case TICK_REASON(TRIGGER):
    case TICK_REASON(BACKFILL):
        sim_count(w, SIM_STAT_TICKS_BY_HAND);
        break;
    case TICK_REASON(OVERLAP):
        sim_count(w, SIM_STAT_TICKS_OVERLAP);
        break;
    case TICK_REASON(PAUSED):
        sim_count(w, SIM_STAT_TICKS_PAUSED);
        break;
    case TICK_REASON(MISSED):
        w->result->stats[SIM_STAT_TICKS_MISSED] += l->count;
        break;
    case TICK_REASON(WINDOW):
        w->result->stats[SIM_STAT_TICKS_WINDOW] += l->count;
        break;
    case TICK_REASON(EXPIRED):
        sim_count(w, SIM_STAT_TICKS_EXPIRED);
        break;
    case TICK_REASON(DELETED):
        sim_count(w, SIM_STAT_TICKS_DROPPED);
        break;
    default:
        break;
    }
}

/* The newest 100, and none older than 30 days but the newest. */
static void trim(struct schedule_model *m, struct model_schedule *s) {
    while (s->next_ordinal - s->first_ordinal > 1 &&
           (s->next_ordinal - s->first_ordinal > FSM_SCHEDULE_HISTORY_MAX ||
            m->now_ms - line_at(s, s->first_ordinal)->decided_at_ms > FSM_SCHEDULE_HISTORY_MS))
        s->first_ordinal++;
}

/* Ticks of its own that follow each other and were not run for one reason share a line. */
static bool joins(const struct model_line *last, const struct model_line *l) {
    return !l->fired && !by_hand(l->cause) && !last->fired && last->reason == l->reason &&
           last->cause == l->cause && last->job_seq == l->job_seq &&
           last->generation == l->generation && last->last_tick_s < l->tick_s;
}

static uint64_t add_line(struct schedule_model *m, struct model_schedule *s, struct model_line l) {
    struct model_line *last = line_at(s, s->next_ordinal - 1);

    l.decided_at_ms = m->now_ms;
    l.generation = s->generation;
    l.news = true;
    count_outcome(m, &l);
    if (!l.fired)
        s->skipped += l.count;
    if (s->next_ordinal > s->first_ordinal && joins(last, &l)) {
        last->last_tick_s = l.last_tick_s;
        last->count += l.count;
        last->decided_at_ms = m->now_ms;
        last->news = true;
        return s->next_ordinal - 1;
    }
    *line_at(s, s->next_ordinal) = l;
    s->next_ordinal++;
    trim(m, s);
    return s->next_ordinal - 1;
}

/* What became of a tick that waited: in its own line while that is kept. */
static void complete_line(struct schedule_model *m, struct model_schedule *s, uint64_t ordinal,
                          struct model_line l) {
    if (ordinal < s->first_ordinal) {
        (void) add_line(m, s, l);
        return;
    }
    l.decided_at_ms = m->now_ms;
    l.generation = s->generation;
    l.news = true;
    count_outcome(m, &l);
    if (!l.fired)
        s->skipped += l.count;
    *line_at(s, ordinal) = l;
}

static struct model_line line_of(int64_t tick_s, int cause, int reason) {
    return (struct model_line){.tick_s = tick_s,
                               .last_tick_s = tick_s,
                               .count = 1,
                               .cause = cause,
                               .reason = reason,
                               .fired = reason < TICK_REASON(WINDOW)};
}

static void skip(struct schedule_model *m, struct model_schedule *s, int64_t tick_s, int cause,
                 int reason) {
    struct model_line l = line_of(tick_s, cause, reason);

    if (reason == TICK_REASON(OVERLAP))
        l.job_seq = s->open[0];
    (void) add_line(m, s, l);
}

void model_skip_range(struct schedule_model *m, struct model_schedule *s, int64_t first_s,
                      int64_t last_s, uint64_t count, int reason) {
    struct model_line l = line_of(first_s, reason, reason);

    l.last_tick_s = last_s;
    l.count = count;
    (void) add_line(m, s, l);
}

/* ---- runs ------------------------------------------------------------------------------------ */

/* J4: one run of a tick of a generation, but for those by hand. */
static void note_run(struct schedule_model *m, const struct model_schedule *s, int64_t tick_s,
                     int cause) {
    uint64_t key = (s->seq * 4096 + s->generation) * 0x9e3779b97f4a7c15ULL + (uint64_t) tick_s;

    if (by_hand(cause))
        return;
    if (u64map_get(&m->runs, key))
        sim_fail(m->world, "schedule %s generation %llu: tick %lld runs twice", s->name,
                 (unsigned long long) s->generation, (long long) tick_s);
    (void) checker_remember(m->world, &m->runs, key, 1);
}

/* The next transition must be the creation of its job. */
static uint64_t create_job(struct schedule_model *m, struct model_schedule *s, int64_t tick_s,
                           int reason, int cause) {
    const struct replica_event *e =
        m->events_at < m->events_count ? &m->events[m->events_at] : NULL;
    struct model_job *j;

    note_run(m, s, tick_s, cause);
    if (!e || e->event.from != 0 || (int) e->event.to != S_PENDING) {
        sim_fail(m->world, "entry %llu: tick %lld of schedule %s makes no run",
                 (unsigned long long) m->index, (long long) tick_s, s->name);
        return 0;
    }
    m->events_at++;
    j = calloc(1, sizeof(*j));
    s->open = room(m->world, s->open, s->open_count, &s->open_cap, sizeof(*s->open));
    if (!j || m->world->no_memory || u64map_put(&m->jobs, e->event.job_seq, j) < 0) {
        free(j);
        m->world->no_memory = true;
        return 0;
    }
    *j = (struct model_job){.seq = e->event.job_seq,
                            .schedule_seq = s->seq,
                            .generation = s->generation,
                            .tick_s = tick_s,
                            .reason = reason,
                            .pending = true};
    s->open[s->open_count++] = j->seq;
    model_hint(m, (struct jm_hint){.kind = JM_RUN_CREATED,
                                   .seq = j->seq,
                                   .schedule_seq = s->seq,
                                   .generation = s->generation,
                                   .tick_s = tick_s,
                                   .reason = reason});
    return j->seq;
}

/* J9: beside an open run only when the policy, or who asked, says so. */
static void start(struct schedule_model *m, struct model_schedule *s, int64_t tick_s, int cause,
                  bool beside) {
    struct model_line l = line_of(tick_s, cause, cause);

    if (s->open_count > 0 && !beside)
        sim_fail(m->world, "schedule %s: two runs are open at %llu", s->name,
                 (unsigned long long) m->index);
    l.job_seq = create_job(m, s, tick_s, cause, cause);
    s->fired++;
    s->runs_counted += !by_hand(cause);
    (void) add_line(m, s, l);
}

static void hold(struct schedule_model *m, struct model_schedule *s, int64_t tick_s, int cause) {
    struct model_line l = line_of(tick_s, cause, TICK_REASON(BUFFERED));

    l.waiting = true;
    l.job_seq = s->open[0];
    s->waits = room(m->world, s->waits, s->waits_count, &s->waits_cap, sizeof(*s->waits));
    if (m->world->no_memory)
        return;
    s->waits[s->waits_count++] =
        (struct model_wait){.tick_s = tick_s, .cause = cause, .ordinal = add_line(m, s, l)};
}

static struct model_wait take_wait(struct model_schedule *s) {
    struct model_wait x = s->waits[0];

    s->waits_count--;
    memmove(s->waits, s->waits + 1, s->waits_count * sizeof(*s->waits));
    return x;
}

static void drop_wait(struct schedule_model *m, struct model_schedule *s,
                      const struct model_wait *x, int reason) {
    struct model_line l = line_of(x->tick_s, x->cause, reason);

    if (reason == TICK_REASON(OVERLAP))
        l.job_seq = s->open[0];
    complete_line(m, s, x->ordinal, l);
}

void model_drop_waits(struct schedule_model *m, struct model_schedule *s, int reason) {
    while (s->waits_count > 0) {
        struct model_wait x = take_wait(s);

        drop_wait(m, s, &x, reason);
    }
}

static void start_wait(struct schedule_model *m, struct model_schedule *s) {
    struct model_wait x = take_wait(s);
    struct model_line l = line_of(x.tick_s, x.cause, TICK_REASON(BUFFERED));

    if (!by_hand(x.cause) && s->max_runs > 0 && s->runs_counted >= s->max_runs) {
        drop_wait(m, s, &x, TICK_REASON(EXPIRED));
        return;
    }
    if (!by_hand(x.cause) && model_paused(m, s, m->now_ms)) {
        drop_wait(m, s, &x, TICK_REASON(PAUSED));
        return;
    }
    l.job_seq = create_job(m, s, x.tick_s, TICK_REASON(BUFFERED), x.cause);
    s->fired++;
    s->runs_counted += !by_hand(x.cause);
    sim_count(m->world, SIM_STAT_TICKS_AFTER_WAIT);
    complete_line(m, s, x.ordinal, l);
}

void model_settle(struct schedule_model *m, struct model_schedule *s) {
    while (!m->world->failed && !m->world->no_memory && s->waits_count > 0 &&
           (s->open_count == 0 || s->overlap == OVERLAP_IS(ALLOW)))
        start_wait(m, s);
}

static void remove_open(struct schedule_model *m, struct model_schedule *s, uint64_t seq) {
    size_t i = 0;

    while (i < s->open_count && s->open[i] != seq)
        i++;
    if (i == s->open_count) {
        sim_fail(m->world, "schedule %s: run %llu ends, which was not open", s->name,
                 (unsigned long long) seq);
        return;
    }
    s->open_count--;
    memmove(s->open + i, s->open + i + 1, (s->open_count - i) * sizeof(*s->open));
}

/* The transitions that follow end the waiting runs and tell the running ones. */
void model_hint(struct schedule_model *m, struct jm_hint hint) {
    m->hints = room(m->world, m->hints, m->hints_count, &m->hints_cap, sizeof(*m->hints));
    if (!m->world->no_memory)
        m->hints[m->hints_count++] = hint;
}

void model_cancel_runs(struct schedule_model *m, struct model_schedule *s, bool kill) {
    while (m->events_at < m->events_count) {
        const struct fsm_event *e = &m->events[m->events_at].event;
        struct model_job *j = u64map_get(&m->jobs, e->job_seq);

        if (!j || j->schedule_seq != s->seq || !e->cancel_requested || e->from == 0)
            break;
        m->events_at++;
        j->cancelled = true;
        model_hint(m, (struct jm_hint){.kind = JM_RUN_CANCELLED, .seq = j->seq, .kill = kill});
        if ((int) e->to == S_CANCELLED && j->pending)
            remove_open(m, s, j->seq);
        else if ((int) e->to != S_RUNNING)
            sim_fail(m->world, "schedule %s: run %llu goes to state %d when asked to stop", s->name,
                     (unsigned long long) j->seq, (int) e->to);
    }
    for (size_t i = 0; i < s->open_count; i++) {
        const struct model_job *j = u64map_get(&m->jobs, s->open[i]);

        if (j->pending || !j->cancelled)
            sim_fail(m->world, "schedule %s: run %llu was not asked to stop at %llu", s->name,
                     (unsigned long long) s->open[i], (unsigned long long) m->index);
    }
}

static uint64_t promised_runs(const struct model_schedule *s) {
    uint64_t n = s->runs_counted;

    for (size_t i = 0; i < s->waits_count; i++)
        n += !by_hand(s->waits[i].cause);
    return n;
}

bool model_finished(const struct model_schedule *s) {
    return s->max_runs > 0 && promised_runs(s) >= s->max_runs;
}

void model_decide(struct schedule_model *m, struct model_schedule *s, int64_t tick_s, int cause,
                  bool ignore_overlap) {
    if (!by_hand(cause) && model_paused(m, s, tick_s * 1000)) {
        skip(m, s, tick_s, cause, TICK_REASON(PAUSED));
        return;
    }
    if (!by_hand(cause) && model_finished(s)) {
        skip(m, s, tick_s, cause, TICK_REASON(EXPIRED));
        return;
    }
    if (s->open_count == 0 || ignore_overlap || s->overlap == OVERLAP_IS(ALLOW)) {
        start(m, s, tick_s, cause, ignore_overlap || s->overlap == OVERLAP_IS(ALLOW));
        return;
    }
    if (s->overlap == OVERLAP_IS(SKIP) ||
        (s->overlap == OVERLAP_IS(BUFFER_ONE) && s->waits_count > 0)) {
        skip(m, s, tick_s, cause, TICK_REASON(OVERLAP));
        return;
    }
    if (s->overlap == OVERLAP_IS(BUFFER_ONE) ||
        (s->overlap == OVERLAP_IS(BUFFER_ALL) && s->waits_count < FSM_SCHEDULE_BUFFERED_MAX)) {
        hold(m, s, tick_s, cause);
        return;
    }
    if (s->overlap == OVERLAP_IS(BUFFER_ALL)) {
        skip(m, s, tick_s, cause, TICK_REASON(CAP));
        return;
    }
    model_drop_waits(m, s, TICK_REASON(OVERLAP));
    if (s->overlap == OVERLAP_IS(TERMINATE_OTHER)) {
        model_cancel_runs(m, s, true);
        start(m, s, tick_s, cause, true);
        return;
    }
    hold(m, s, tick_s, cause);
    model_cancel_runs(m, s, false);
    model_settle(m, s);
}

/* C17 */
static void pause_failed(struct schedule_model *m, struct model_schedule *s) {
    if (!s->pause_on_failure || (s->pause.on && s->pause.until_ms == 0))
        return;
    s->pause.on = true;
    s->pause.until_ms = 0;
    sim_count(m->world, SIM_STAT_PAUSES_ON_FAILURE);
}

void model_run_ended(struct schedule_model *m, struct model_job *j, int state) {
    struct model_schedule *s = schedule_model_find(m, j->schedule_seq);

    model_hint(m, (struct jm_hint){.kind = JM_RUN_ENDED, .seq = j->seq});
    j->pending = false;
    if (!s)
        return; /* deleted meanwhile */
    model_touch(m, &s->pause);
    remove_open(m, s, j->seq);
    if (state == S_FAILED)
        pause_failed(m, s);
    model_settle(m, s);
}
