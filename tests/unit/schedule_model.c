#include "schedule_model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define W(x) CHRONOS__V1__TICK_REASON__TICK_REASON_##x
#define P(x) CHRONOS__V1__OVERLAP_POLICY__OVERLAP_POLICY_##x

const char *schedule_name(int n) {
    static const char *const names[SCHEDULE_NAMES] = {"s.one", "s.two", "s.three"};

    return names[n];
}

static bool by_hand(int cause) {
    return cause == W(TRIGGER) || cause == W(BACKFILL);
}

static bool open_state(const struct model_job *j) {
    return j->state == S(PENDING) || j->state == S(RUNNING);
}

unsigned model_open_runs(const struct model *m, uint64_t seq, uint64_t *ret_first) {
    unsigned n = 0;

    for (uint64_t i = 1; i < m->next; i++) {
        if (m->jobs[i].schedule != seq || !open_state(&m->jobs[i]))
            continue;
        if (n++ == 0 && ret_first)
            *ret_first = i;
    }
    return n;
}

static uint64_t oldest_run(const struct model *m, uint64_t seq) {
    uint64_t first = 0;

    (void) model_open_runs(m, seq, &first);
    return first;
}

static void tell(struct model *m, const struct model_schedule *s, int64_t tick_s, int reason,
                 bool waiting, uint64_t job) {
    assert_true(m->ticks_count < MODEL_TICKS_MAX);
    m->ticks[m->ticks_count++] =
        (struct model_tick){s->seq, s->generation, tick_s, reason, waiting, job};
}

static bool in_pause(bool paused, int64_t until_ms, int64_t resumed_ms, int64_t at_ms) {
    return at_ms < resumed_ms || (paused && (until_ms == 0 || at_ms < until_ms));
}

bool model_schedule_paused(const struct model *m, const struct model_schedule *s, int64_t at_ms) {
    return in_pause(s->paused, s->until_ms, s->resumed_ms, at_ms) ||
           in_pause(m->all_paused, m->all_until_ms, m->all_resumed_ms, at_ms);
}

static unsigned places_taken(const struct model_schedule *s) {
    unsigned n = s->counted;

    for (size_t i = 0; i < s->waits_count; i++)
        n += !by_hand(s->waits[i].cause);
    return n;
}

static void start(struct model *m, struct model_schedule *s, int64_t tick_s, int cause,
                  int reason) {
    uint64_t job = m->next++;

    assert_true(job < JOBS_MAX);
    m->jobs[job] =
        (struct model_job){.max_attempts = s->max_attempts, .worker = -1, .schedule = s->seq};
    model_move(m, &m->jobs[job], S(PENDING));
    s->counted += !by_hand(cause);
    s->fired++;
    tell(m, s, tick_s, reason, false, job);
}

static void drop_waits(struct model *m, struct model_schedule *s, int reason) {
    for (size_t i = 0; i < s->waits_count; i++)
        tell(m, s, s->waits[i].tick_s, reason, false,
             reason == W(OVERLAP) ? oldest_run(m, s->seq) : 0);
    s->skipped += s->waits_count;
    s->waits_count = 0;
}

static void settle(struct model *m, struct model_schedule *s) {
    while (s->waits_count > 0 && (s->policy == P(ALLOW) || model_open_runs(m, s->seq, NULL) == 0)) {
        struct model_wait w = s->waits[0];
        int reason = W(BUFFERED);

        memmove(s->waits, s->waits + 1, --s->waits_count * sizeof(w));
        if (!by_hand(w.cause) && s->max_runs > 0 && s->counted >= s->max_runs)
            reason = W(EXPIRED);
        else if (!by_hand(w.cause) && model_schedule_paused(m, s, m->now_ms))
            reason = W(PAUSED);
        if (reason == W(BUFFERED)) {
            start(m, s, w.tick_s, w.cause, reason);
        } else {
            s->skipped++;
            tell(m, s, w.tick_s, reason, false, 0);
        }
    }
}

static void stop_all(struct model *m, uint64_t seq, bool kill) {
    uint64_t until = m->next;

    for (uint64_t i = 1; i < until; i++)
        if (m->jobs[i].schedule == seq && open_state(&m->jobs[i]))
            model_stop(m, i, kill);
}

static void hold(struct model *m, struct model_schedule *s, int64_t tick_s, int cause) {
    assert_true(s->waits_count < MODEL_WAITS_MAX);
    s->waits[s->waits_count++] = (struct model_wait){tick_s, cause};
    tell(m, s, tick_s, W(BUFFERED), true, oldest_run(m, s->seq));
}

static void decide(struct model *m, struct model_schedule *s, int64_t tick_s, int cause,
                   bool ignore) {
    int skip = 0;
    bool open = model_open_runs(m, s->seq, NULL) > 0;

    if (!by_hand(cause) && model_schedule_paused(m, s, tick_s * 1000))
        skip = W(PAUSED);
    else if (!by_hand(cause) && s->max_runs > 0 && places_taken(s) >= s->max_runs)
        skip = W(EXPIRED);
    else if (open && !ignore &&
             (s->policy == P(SKIP) || (s->policy == P(BUFFER_ONE) && s->waits_count > 0)))
        skip = W(OVERLAP);
    if (skip) {
        s->skipped++;
        tell(m, s, tick_s, skip, false, skip == W(OVERLAP) ? oldest_run(m, s->seq) : 0);
        return;
    }
    if (!open || ignore || s->policy == P(ALLOW)) {
        start(m, s, tick_s, cause, cause);
        return;
    }
    if (s->policy == P(CANCEL_OTHER) || s->policy == P(TERMINATE_OTHER))
        drop_waits(m, s, W(OVERLAP));
    if (s->policy != P(TERMINATE_OTHER))
        hold(m, s, tick_s, cause);
    if (s->policy == P(CANCEL_OTHER) || s->policy == P(TERMINATE_OTHER)) {
        m->busy = s->seq;
        stop_all(m, s->seq, s->policy == P(TERMINATE_OTHER));
        m->busy = 0;
    }
    if (s->policy == P(TERMINATE_OTHER))
        start(m, s, tick_s, cause, cause);
    settle(m, s);
}

/* A pause until an instant that has come is over. */
static void refresh(struct model *m, struct model_schedule *s) {
    if (!s->paused || s->until_ms == 0 || m->now_ms < s->until_ms)
        return;
    s->resumed_ms = MAX(s->resumed_ms, s->until_ms);
    s->paused = false;
    s->until_ms = 0;
}

static struct model_schedule *by_seq(struct model *m, uint64_t seq) {
    for (int i = 0; i < SCHEDULE_NAMES; i++)
        if (m->schedules[i].seq == seq && seq > 0)
            return &m->schedules[i];
    return NULL;
}

void model_run_ended(struct model *m, const struct model_job *j) {
    struct model_schedule *s = by_seq(m, j->schedule);

    if (!s || m->busy == s->seq)
        return;
    refresh(m, s);
    if (j->state == S(FAILED) && s->pause_on_failure) {
        s->paused = true;
        s->until_ms = 0;
    }
    settle(m, s);
}

enum fsm_code model_put(struct model *m, int n, bool create, bool new_generation, uint64_t version,
                        int policy, bool pause_on_failure, unsigned max_runs,
                        unsigned max_attempts) {
    struct model_schedule *s = &m->schedules[n];

    if (create && s->seq > 0)
        return FSM_NAME_TAKEN;
    if (!create && s->seq == 0)
        return FSM_NOT_FOUND;
    if (create)
        *s = (struct model_schedule){
            .seq = ++m->last_schedule, .generation = 1, .watermark_s = m->now_ms / 1000};
    else if (version > 0 && version != s->version)
        return FSM_VERSION_MISMATCH;
    refresh(m, s);
    if (!create && new_generation) {
        drop_waits(m, s, W(DELETED));
        s->generation++;
        s->watermark_s = m->now_ms / 1000;
    }
    s->version = create ? m->index : s->version + 1;
    s->policy = policy;
    s->pause_on_failure = pause_on_failure;
    s->max_runs = max_runs;
    s->max_attempts = max_attempts;
    settle(m, s);
    return FSM_OK;
}

enum fsm_code model_delete(struct model *m, int n, uint64_t version, bool cancel) {
    struct model_schedule *s = &m->schedules[n];
    uint64_t seq = s->seq;

    if (seq == 0)
        return FSM_NOT_FOUND;
    if (version > 0 && version != s->version)
        return FSM_VERSION_MISMATCH;
    drop_waits(m, s, W(DELETED));
    *s = (struct model_schedule){0};
    if (cancel)
        stop_all(m, seq, false);
    return FSM_OK;
}

enum fsm_code model_pause(struct model *m, int n, bool on, int64_t until_ms) {
    struct model_schedule *s = n < 0 ? NULL : &m->schedules[n];

    if (until_ms < 0 || (on && until_ms > 0 && until_ms <= m->now_ms))
        return FSM_REFUSED;
    if (!s) {
        if (m->all_paused && m->all_until_ms > 0 && m->now_ms >= m->all_until_ms) {
            m->all_resumed_ms = MAX(m->all_resumed_ms, m->all_until_ms);
            m->all_paused = false;
        }
        if (!on && m->all_paused)
            m->all_resumed_ms = m->now_ms;
        m->all_paused = on;
        m->all_until_ms = on ? until_ms : 0;
        return FSM_OK;
    }
    if (s->seq == 0)
        return FSM_NOT_FOUND;
    refresh(m, s);
    if (!on && s->paused)
        s->resumed_ms = m->now_ms;
    s->paused = on;
    s->until_ms = on ? until_ms : 0;
    return FSM_OK;
}

enum fsm_code model_ticks(struct model *m, uint64_t seq, uint64_t generation,
                          const struct model_ticks_args *a) {
    struct model_schedule *s = by_seq(m, seq);
    int64_t before = -1;

    if (!s)
        return FSM_NOT_FOUND;
    if (generation != s->generation || a->watermark_s <= s->watermark_s)
        return FSM_STALE;
    if (a->watermark_s > m->now_ms / 1000)
        return FSM_REFUSED;
    for (size_t i = 0; i < a->count; i++) {
        int64_t from = a->ticks[i].tick_s, to = a->ticks[i].last_tick_s;

        if (from <= before || to < from || to > a->watermark_s ||
            (from <= s->watermark_s && to > s->watermark_s))
            return FSM_REFUSED;
        before = to;
    }
    refresh(m, s);
    for (size_t i = 0; i < a->count; i++) {
        if (a->ticks[i].tick_s <= s->watermark_s)
            continue;
        if (a->ticks[i].reason >= W(WINDOW)) {
            s->skipped += (uint64_t) (a->ticks[i].last_tick_s - a->ticks[i].tick_s + 1);
            tell(m, s, a->ticks[i].tick_s, a->ticks[i].reason, false, 0);
        } else {
            decide(m, s, a->ticks[i].tick_s, a->ticks[i].reason, false);
        }
    }
    s->watermark_s = a->watermark_s;
    return FSM_OK;
}

enum fsm_code model_run(struct model *m, int n, const int64_t *ticks, size_t count,
                        bool ignore_overlap, int key, char hash) {
    struct model_schedule *s = &m->schedules[n];

    if (s->seq == 0)
        return FSM_NOT_FOUND;
    for (size_t i = 0; i < count; i++)
        if (ticks[i] < 0 || ticks[i] > m->now_ms / 1000 || (i > 0 && ticks[i] <= ticks[i - 1]))
            return FSM_REFUSED;
    if (key >= 0 && m->keys[key].used)
        return m->keys[key].hash == hash && m->keys[key].schedule == s->seq ? FSM_EXISTING
                                                                            : FSM_KEY_CONFLICT;
    if (key >= 0)
        model_purge(m, KEYS_REMEMBERED_MAX - 1);
    refresh(m, s);
    for (size_t i = 0; i < count; i++)
        decide(m, s, ticks[i], W(BACKFILL), ignore_overlap);
    if (count == 0)
        decide(m, s, m->now_ms / 1000, W(BACKFILL), ignore_overlap);
    if (key >= 0) {
        m->keys[key] = (struct model_key){true, hash, m->next, m->now_ms, s->seq};
        m->jobs[m->next++] = (struct model_job){.worker = -1}; /* a number without a job */
    }
    return FSM_OK;
}
