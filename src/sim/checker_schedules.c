/* Checkers of schedules: what leaders decide, against the oracle; what nodes hold, against the
 * model (reliability.md J4-J9, J27). Thread: one. */
#include "sim/schedule_model.h"

#include "fsm/schedules.h"

#define ON_TIME_MS 2000
#define LATE_MS 1000 /* J8, after healing, without an election */
#define RATE 10
#define LATE_SLACK_MS 8000 /* a delay, and what a plan waits for before it is stamped */

static void wrong(struct schedule_model *m, const struct model_schedule *s, int64_t tick_s,
                  const char *what) {
    sim_fail(m->world, "entry %llu: schedule %s generation %llu, tick %lld (watermark %lld): %s",
             (unsigned long long) m->index, s->name, (unsigned long long) s->generation,
             (long long) tick_s, (long long) s->watermark_s, what);
}

/* ---- what is proposed ------------------------------------------------------------------------ */

/* C11, as far as the entry alone can tell. Its stamp is not before the plan was made. */
static void check_reason(struct schedule_model *m, const struct model_schedule *s,
                         const Chronos__Internal__V1__DecidedTick *t, int64_t last_s) {
    int64_t late_ms = m->stamp_ms - last_s * 1000;
    int reason = (int) t->reason;

    if (reason == TICK_REASON(ON_TIME) || m->other_clock)
        return; /* another clock stamped it */
    if (late_ms <= ON_TIME_MS)
        wrong(m, s, last_s, "taken for late within 2 s of its time");
    if (s->mixed)
        return; /* decided by the policies of before an edit, perhaps */
    if (reason < TICK_REASON(WINDOW) && s->rule.missed == MISSED_IS(SKIP))
        wrong(m, s, last_s, "runs late although none that is late is to run");
    if (reason < TICK_REASON(WINDOW) && late_ms > s->rule.window_ms + LATE_SLACK_MS &&
        s->rule.missed != MISSED_IS(ALL))
        wrong(m, s, last_s, "runs although it is older than the window");
    if (reason == TICK_REASON(WINDOW) && late_ms <= s->rule.window_ms)
        wrong(m, s, last_s, "taken for older than the window");
    if (reason == TICK_REASON(MISSED) && s->rule.missed == MISSED_IS(ALL))
        wrong(m, s, last_s, "missed although all are to run");
    if (reason == TICK_REASON(CAP) && s->rule.missed != MISSED_IS(ALL))
        wrong(m, s, last_s, "over a cap that only a catch-up of all has");
}

/* J8: with sane clocks and one leader every tick is on time, and soon. */
static void check_lateness(struct schedule_model *m, const struct model_schedule *s,
                           const Chronos__Internal__V1__DecidedTick *t) {
    const struct world *w = m->world;
    int64_t now_ms = w->wall_base_ms + (int64_t) (w->now_ns / NS_PER_MS);
    int64_t since_ms = w->wall_base_ms + (int64_t) (m->ending_at / NS_PER_MS);

    if (!m->ending || t->tick_s * 1000 < since_ms + LATE_MS || s->rule.missed == MISSED_IS(ALL))
        return;
    if (t->reason != TICK_REASON(ON_TIME))
        wrong(m, s, t->tick_s, "not on time although nothing is wrong");
    if (now_ms > t->tick_s * 1000 + s->rule.delay_max_ms + LATE_MS)
        wrong(m, s, t->tick_s, "late by more than a second although nothing is wrong");
}

/* J5: the ticks and only they, each once, in order; ranges say how many. */
static void check_cover(struct schedule_model *m, const struct model_schedule *s, int64_t from_s,
                        const Chronos__Internal__V1__DecidedTick *t, int64_t last_s) {
    uint64_t count = t->count ? t->count : 1;

    if (t->tick_s < from_s || last_s < t->tick_s)
        wrong(m, s, t->tick_s, "decided ticks are not in order");
    else if (rule_count(&s->rule, from_s, t->tick_s - 1) != 0)
        wrong(m, s, t->tick_s, "a tick before it is left out");
    else if (!rule_is_tick(&s->rule, t->tick_s) || !rule_is_tick(&s->rule, last_s))
        wrong(m, s, t->tick_s, "decided, but the definition has no such tick");
    else if (rule_count(&s->rule, t->tick_s, last_s) != count)
        wrong(m, s, t->tick_s, "a range counts other ticks than there are");
}

void checker_ticks(struct schedule_model *m, const struct model_schedule *s,
                   const Chronos__Internal__V1__ScheduleTicks *item) {
    int64_t from_s = s->watermark_s + 1;
    unsigned late_runs = 0;
    bool owes_newest = false; /* `once`: what was missed ends with one that runs */

    if (m->term != m->ticks_term)
        sim_count(m->world, SIM_STAT_PLANS_OF_NEW_LEADERS);
    m->ticks_term = m->term;
    sim_trace(m->world, "entry %llu: ticks of %s generation %llu: %lld..%lld in %zu lines",
              (unsigned long long) m->index, s->name, (unsigned long long) s->generation,
              (long long) s->watermark_s, (long long) item->watermark_s, item->n_ticks);
    for (size_t i = 0; i < item->n_ticks && !m->world->failed; i++) {
        const Chronos__Internal__V1__DecidedTick *t = item->ticks[i];
        int64_t last_s = t->last_tick_s ? t->last_tick_s : t->tick_s;

        if (t->tick_s <= s->watermark_s)
            continue;
        check_cover(m, s, from_s, t, last_s);
        if (m->stamp_ms < last_s * 1000 && !m->other_clock) /* J7 */
            wrong(m, s, last_s, "decided before its time by the leader's clock");
        check_reason(m, s, t, last_s);
        check_lateness(m, s, t);
        late_runs += t->reason == TICK_REASON(CATCH_UP) || t->reason == TICK_REASON(FAILOVER);
        owes_newest = t->reason == TICK_REASON(MISSED);
        from_s = last_s + 1;
    }
    if (m->world->failed)
        return;
    if (rule_count(&s->rule, from_s, item->watermark_s) != 0)
        wrong(m, s, item->watermark_s, "the watermark passes a tick without outcome");
    if (s->mixed)
        return;
    if (owes_newest && s->rule.missed == MISSED_IS(ONCE))
        wrong(m, s, item->watermark_s, "of what was missed not even the newest runs");
    if (late_runs > (s->rule.missed == MISSED_IS(ALL) ? RATE : 1))
        wrong(m, s, item->watermark_s, "more late runs at once than the policy has");
}

/* ---- what nodes hold ------------------------------------------------------------------------- */

static void differs(struct world *w, const struct sim_node *n, const struct model_schedule *s,
                    const char *what, uint64_t is, uint64_t must) {
    sim_fail(w, "node %u at %llu: schedule %s: %s is %lld, must be %lld", n->slot + 1,
             (unsigned long long) replica_applied(n->replica), s->name, what, (long long) is,
             (long long) must);
}

static uint64_t left(const struct model_schedule *s) {
    uint64_t used = s->runs_counted;

    for (size_t i = 0; i < s->waits_count; i++)
        used +=
            s->waits[i].cause != TICK_REASON(TRIGGER) && s->waits[i].cause != TICK_REASON(BACKFILL);
    return s->max_runs == 0 ? UINT64_MAX : used < s->max_runs ? s->max_runs - used : 0;
}

static void check_view(struct schedule_model *m, struct sim_node *n, const struct model_schedule *s,
                       const struct fsm_schedule *v) {
    struct world *w = m->world;
    const struct fsm *f = replica_fsm(n->replica);

    if (!v || v->seq != s->seq) {
        differs(w, n, s, "schedule", v ? v->seq : 0, s->seq);
        return;
    }
    if (v->generation != s->generation)
        differs(w, n, s, "generation", v->generation, s->generation);
    if (v->watermark_s != s->watermark_s)
        differs(w, n, s, "watermark", (uint64_t) v->watermark_s, (uint64_t) s->watermark_s);
    if (v->open_runs != s->open_count)
        differs(w, n, s, "open runs", v->open_runs, s->open_count);
    if (v->buffered != s->waits_count)
        differs(w, n, s, "waiting ticks", v->buffered, s->waits_count);
    if (v->runs_left != left(s))
        differs(w, n, s, "runs left", v->runs_left, left(s));
    if (fsm_schedule_paused(f, v, m->now_ms) !=
        ((s->pause.on && (s->pause.until_ms == 0 || m->now_ms < s->pause.until_ms)) ||
         (m->pause.on && (m->pause.until_ms == 0 || m->now_ms < m->pause.until_ms))))
        differs(w, n, s, "paused", !model_paused(m, s, m->now_ms), model_paused(m, s, m->now_ms));
}

static void check_line(struct schedule_model *m, struct sim_node *n, struct model_schedule *s,
                       uint64_t ordinal) {
    struct model_line *l = &s->lines[ordinal % MODEL_LINES];
    Chronos__Internal__V1__TickRecord *t = NULL;
    struct world *w = m->world;
    int rc;

    l->news = false;
    arena_clear(&w->arena);
    rc = fsm_read_tick(replica_fsm(n->replica), s->seq, ordinal, &w->arena, &t);
    if (atlas_answers_loss(n, rc))
        return;
    if (rc != 0) {
        differs(w, n, s, "a missing line of the history", 0, ordinal);
        return;
    }
    if (t->tick_s != l->tick_s || t->last_tick_s != l->last_tick_s || t->count != l->count ||
        t->fired != l->fired || t->waiting != l->waiting || (int) t->reason != l->reason ||
        (int) t->cause != l->cause || t->job_seq != l->job_seq ||
        t->decided_at_ms != l->decided_at_ms || t->generation != l->generation)
        sim_fail(w,
                 "node %u: schedule %s: line %llu is tick %lld..%lld count %llu reason %d cause %d "
                 "job %llu, must be tick %lld..%lld count %llu reason %d cause %d job %llu",
                 n->slot + 1, s->name, (unsigned long long) ordinal, (long long) t->tick_s,
                 (long long) t->last_tick_s, (unsigned long long) t->count, (int) t->reason,
                 (int) t->cause, (unsigned long long) t->job_seq, (long long) l->tick_s,
                 (long long) l->last_tick_s, (unsigned long long) l->count, l->reason, l->cause,
                 (unsigned long long) l->job_seq);
}

void checker_schedules(struct world *w, struct sim_node *n, bool all) {
    struct schedule_model *m = w->checker.schedules;
    uint64_t applied = replica_applied(n->replica);
    const struct fsm_schedule *v;

    if (m->lost || w->failed || m->index != applied)
        return;
    v = fsm_schedule_first(replica_fsm(n->replica));
    for (struct model_schedule *s = m->first; s && !w->failed; s = s->next) {
        check_view(m, n, s, v);
        v = v ? v->next : NULL;
        for (uint64_t i = s->first_ordinal; i < s->next_ordinal && !w->failed; i++)
            if (all || s->lines[i % MODEL_LINES].news)
                check_line(m, n, s, i);
    }
    if (v && !w->failed)
        sim_fail(w, "node %u: schedule %llu should not be there", n->slot + 1,
                 (unsigned long long) v->seq);
}

/* ---- the end --------------------------------------------------------------------------------- */

bool checker_schedules_settled(struct world *w, uint64_t applied) {
    struct schedule_model *m = w->checker.schedules;
    int64_t now_ms = w->wall_base_ms + (int64_t) (w->now_ns / NS_PER_MS);

    if (m->lost || m->index != applied)
        return true;
    for (struct model_schedule *s = m->first; s; s = s->next) {
        int64_t due_s = (now_ms - LATE_MS - s->rule.delay_max_ms) / 1000;

        if (model_finished(s))
            continue;
        s->clear_s = MAX(s->clear_s, s->watermark_s);
        while (s->clear_s < due_s && !rule_is_tick(&s->rule, s->clear_s + 1))
            s->clear_s++;
        if (s->clear_s < due_s)
            return false;
    }
    return true;
}

void checker_schedules_tell(struct world *w) {
    const struct schedule_model *m = w->checker.schedules;

    sim_trace(w, "model: index=%llu lost=%d", (unsigned long long) m->index, (int) m->lost);
    for (const struct model_schedule *s = m->first; s; s = s->next)
        sim_trace(
            w, "schedule %s: seq=%llu generation=%llu watermark=%lld open=%zu waits=%zu clear=%lld",
            s->name, (unsigned long long) s->seq, (unsigned long long) s->generation,
            (long long) s->watermark_s, s->open_count, s->waits_count, (long long) s->clear_s);
}

void checker_schedules_end(struct world *w) {
    struct schedule_model *m = w->checker.schedules;

    m->ending = true;
    m->ending_at = w->now_ns;
}

void checker_schedules_final(struct world *w, struct sim_node *n) {
    struct schedule_model *m = w->checker.schedules;
    struct u64map_slot *x;
    size_t pos = 0;

    if (m->lost || m->index != replica_applied(n->replica))
        sim_count(w, SIM_STAT_MODELS_LOST);
    checker_schedules(w, n, true);
    while (!m->lost && !w->failed && (x = u64map_next(&m->jobs, &pos))) {
        const struct model_job *j = x->value;
        Chronos__Internal__V1__JobRecord *rec = NULL;

        arena_clear(&w->arena);
        if (fsm_read_job(replica_fsm(n->replica), j->seq, &w->arena, &rec) != 0 ||
            rec->schedule_seq != j->schedule_seq || rec->schedule_generation != j->generation ||
            rec->tick_s != j->tick_s || (int) rec->tick_reason != j->reason)
            sim_fail(w, "node %u: job %llu is not the run of tick %lld of schedule %llu",
                     n->slot + 1, (unsigned long long) j->seq, (long long) j->tick_s,
                     (unsigned long long) j->schedule_seq);
    }
}
