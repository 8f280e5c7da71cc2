/* What becomes of a tick: it starts a job, waits for an open run, or is skipped.
 *
 * "Decided when the command is applied, from replicated open runs: a failover cannot change it"
 * (C16). "The schedule pauses itself after a run has failed with all its attempts" (C17).
 * Thread: the loop. */
#include "fsm/schedule_internal.h"

#include "fsm/job_id.h"

#include <errno.h>
#include <inttypes.h>

static bool in_pause(bool paused, int64_t until_ms, int64_t resumed_ms, int64_t at_ms) {
    return (paused && (until_ms == 0 || at_ms < until_ms)) || at_ms < resumed_ms;
}

bool schedule_paused_at(const struct fsm *f, const struct record_schedule *rec, int64_t at_ms) {
    const struct schedules_pause *all = &f->schedules_pause;

    return in_pause(rec->paused, rec->paused_until_ms, rec->resumed_ms, at_ms) ||
           in_pause(all->paused, all->until_ms, all->resumed_ms, at_ms);
}

static bool used_up(const struct schedule_work *w) {
    uint64_t used = w->rec.runs_counted;

    if (w->rec.max_runs == 0)
        return false;
    for (size_t i = 0; i < w->waits_count; i++)
        used += !schedules_by_hand(w->waits[i].cause);
    return used >= w->rec.max_runs;
}

static struct outcome outcome_of(int64_t tick_s, int32_t cause, int32_t reason) {
    return (struct outcome){
        .tick_s = tick_s,
        .last_tick_s = tick_s,
        .count = 1,
        .cause = cause,
        .reason = reason,
        .fired = reason < (int32_t) REASON_NOT_RUN_FIRST,
    };
}

static int skip(struct fsm *f, struct apply *a, int64_t tick_s, int32_t cause, int32_t reason) {
    struct outcome o = outcome_of(tick_s, cause, reason);

    ASSERT(!o.fired);
    if (reason == (int32_t) REASON(OVERLAP)) {
        ASSERT(f->work.open_count > 0);
        o.job_seq = f->work.open[0];
    }
    return history_add(f, a, &o, NULL);
}

/* The job of a tick. *ret_seq is its number. */
static int create_job(struct fsm *f, struct apply *a, int64_t tick_s, int32_t reason, bool beside,
                      uint64_t *ret_seq) {
    struct schedule_work *w = &f->work;
    struct record_job rec = {
        .spec = w->rec.job,
        .max_attempts = w->rec.max_attempts,
        .queue = w->rec.queue,
        .schedule = w->rec.name,
        .schedule_seq = w->rec.seq,
        .schedule_generation = w->rec.generation,
        .tick_s = tick_s,
        .tick_reason = reason,
        .beside = beside,
    };
    int r;

    ASSERT(w->open_count < FSM_SCHEDULE_OPEN_MAX);
    ASSERT(w->open_count == 0 || beside);
    r = jobs_create(f, a, &rec, ret_seq);
    if (r < 0)
        return r;
    a->created_bytes += w->rec.job.len;
    return schedule_add_open(w, *ret_seq);
}

static void count_start(struct schedule_work *w, int32_t cause) {
    w->rec.fired++;
    w->rec.runs_counted += !schedules_by_hand(cause);
}

static int start(struct fsm *f, struct apply *a, int64_t tick_s, int32_t cause, bool may_beside) {
    struct outcome o = outcome_of(tick_s, cause, cause);
    int r;

    if (f->work.open_count >= FSM_SCHEDULE_OPEN_MAX)
        return skip(f, a, tick_s, cause, REASON(CAP));
    r = create_job(f, a, tick_s, cause, may_beside && f->work.open_count > 0, &o.job_seq);
    if (r < 0)
        return r;
    count_start(&f->work, cause);
    return history_add(f, a, &o, NULL);
}

static int hold(struct fsm *f, struct apply *a, int64_t tick_s, int32_t cause) {
    struct outcome o = outcome_of(tick_s, cause, REASON(BUFFERED));
    struct schedule_wait wait = {.tick_s = tick_s, .cause = cause};
    int r;

    ASSERT(f->work.open_count > 0);
    o.waiting = true;
    o.job_seq = f->work.open[0];
    r = history_add(f, a, &o, &wait.ordinal);
    return r < 0 ? r : schedule_add_wait(&f->work, wait);
}

static struct schedule_wait take_wait(struct schedule_work *w) {
    struct schedule_wait first = w->waits[0];

    ASSERT(w->waits_count > 0);
    w->waits_count--;
    memmove(w->waits, w->waits + 1, w->waits_count * sizeof(*w->waits));
    return first;
}

static int drop_wait(struct fsm *f, struct apply *a, const struct schedule_wait *wait,
                     int32_t reason) {
    struct outcome o = outcome_of(wait->tick_s, wait->cause, reason);

    ASSERT(!o.fired);
    if (reason == (int32_t) REASON(OVERLAP))
        o.job_seq = f->work.open[0];
    return history_complete(f, a, wait->ordinal, &o);
}

int schedule_drop_waits(struct fsm *f, struct apply *a, int32_t reason) {
    int r = 0;

    while (r == 0 && f->work.waits_count > 0) {
        struct schedule_wait wait = take_wait(&f->work);

        r = drop_wait(f, a, &wait, reason);
    }
    return r;
}

/* One that waited: its time has come, unless a pause or an edit came first. */
static int start_wait(struct fsm *f, struct apply *a, bool may_beside) {
    struct schedule_wait wait = take_wait(&f->work);
    struct outcome o = outcome_of(wait.tick_s, wait.cause, REASON(BUFFERED));
    int r;

    if (!schedules_by_hand(wait.cause)) {
        const struct record_schedule *rec = &f->work.rec;

        if (rec->max_runs > 0 && rec->runs_counted >= rec->max_runs)
            return drop_wait(f, a, &wait, REASON(EXPIRED));
        if (schedule_paused_at(f, rec, a->now_ms))
            return drop_wait(f, a, &wait, REASON(PAUSED));
    }
    r = create_job(f, a, wait.tick_s, REASON(BUFFERED), may_beside && f->work.open_count > 0,
                   &o.job_seq);
    if (r < 0)
        return r;
    count_start(&f->work, wait.cause);
    return history_complete(f, a, wait.ordinal, &o);
}

int schedule_settle(struct fsm *f, struct apply *a) {
    struct schedule_work *w = &f->work;
    bool allow = w->rec.overlap == (int32_t) OVERLAP(ALLOW);
    int r = 0;

    ASSERT(w->view);
    while (r == 0 && w->waits_count > 0 &&
           (w->open_count == 0 || (allow && w->open_count < FSM_SCHEDULE_OPEN_MAX)))
        r = start_wait(f, a, allow);
    return r;
}

int schedule_cancel_runs(struct fsm *f, struct apply *a, bool kill) {
    struct schedule_work *w = &f->work;

    ASSERT(w->view);
    for (size_t i = 0; i < w->open_count;) {
        struct fsm_job *j = u64map_get(&f->jobs, w->open[i]);
        uint64_t seq = w->open[i];
        int r;

        ASSERT(j);
        r = jobs_cancel(f, a, j, kill);
        if (r < 0)
            return r;
        if (i < w->open_count && w->open[i] == seq)
            i++; /* it runs: it stays open until its worker says otherwise */
    }
    return 0;
}

/* The newest tick wins: what waited for the same run to stop is skipped. */
static int cancel_other(struct fsm *f, struct apply *a, int64_t tick_s, int32_t cause) {
    int r = schedule_drop_waits(f, a, REASON(OVERLAP));

    if (r == 0)
        r = hold(f, a, tick_s, cause);
    if (r == 0)
        r = schedule_cancel_runs(f, a, false);
    return r < 0 ? r : schedule_settle(f, a);
}

static int terminate_other(struct fsm *f, struct apply *a, int64_t tick_s, int32_t cause) {
    int r = schedule_drop_waits(f, a, REASON(OVERLAP));

    if (r == 0)
        r = schedule_cancel_runs(f, a, true);
    return r < 0 ? r : start(f, a, tick_s, cause, true);
}

static int hold_up_to(struct fsm *f, struct apply *a, int64_t tick_s, int32_t cause, size_t most,
                      int32_t reason) {
    return f->work.waits_count < most ? hold(f, a, tick_s, cause)
                                      : skip(f, a, tick_s, cause, reason);
}

int schedule_decide(struct fsm *f, struct apply *a, int64_t tick_s, int32_t cause,
                    bool ignore_overlap) {
    struct schedule_work *w = &f->work;

    ASSERT(w->view);
    ASSERT(cause < (int32_t) REASON_NOT_RUN_FIRST);
    ASSERT(w->rec.overlap >= 0 && w->rec.overlap <= (int32_t) OVERLAP(ALLOW));
    if (!schedules_by_hand(cause)) {
        if (schedule_paused_at(f, &w->rec, tick_s * 1000))
            return skip(f, a, tick_s, cause, REASON(PAUSED));
        if (used_up(w))
            return skip(f, a, tick_s, cause, REASON(EXPIRED));
    }
    if (w->open_count == 0 || ignore_overlap)
        return start(f, a, tick_s, cause, ignore_overlap);
    switch ((Chronos__V1__OverlapPolicy) w->rec.overlap) {
    case OVERLAP(SKIP):
        return skip(f, a, tick_s, cause, REASON(OVERLAP));
    case OVERLAP(BUFFER_ONE):
        return hold_up_to(f, a, tick_s, cause, 1, REASON(OVERLAP));
    case OVERLAP(BUFFER_ALL):
        return hold_up_to(f, a, tick_s, cause, FSM_SCHEDULE_BUFFERED_MAX, REASON(CAP));
    case OVERLAP(CANCEL_OTHER):
        return cancel_other(f, a, tick_s, cause);
    case OVERLAP(TERMINATE_OTHER):
        return terminate_other(f, a, tick_s, cause);
    case OVERLAP(ALLOW):
        return start(f, a, tick_s, cause, true);
    case _CHRONOS__V1__OVERLAP_POLICY_IS_INT_SIZE:
        break;
    }
    return -EINVAL; /* PutSchedule refuses what is no policy, fsm_open too */
}

static int remove_open(struct schedule_work *w, struct apply *a, uint64_t job_seq) {
    size_t i = 0;

    while (i < w->open_count && w->open[i] != job_seq)
        i++;
    if (i == w->open_count) {
        errtext_set(a->err, "record of schedule %" PRIu64 ": job %" PRIu64 " is no open run of it",
                    w->rec.seq, job_seq);
        return ERR_CORRUPT;
    }
    w->open_count--;
    memmove(w->open + i, w->open + i + 1, (w->open_count - i) * sizeof(*w->open));
    return 0;
}

/* C17. The text lives until the record is stored. */
static int pause_failed(struct fsm *f, uint64_t job_seq) {
    struct record_schedule *rec = &f->work.rec;
    char id[JOB_ID_BYTES_MAX];
    const char *text;

    if (!rec->pause_on_failure || (rec->paused && rec->paused_until_ms == 0))
        return 0;
    job_id_format(job_seq, id);
    text = arena_printf(&f->arena, "run %s failed", id);
    if (!text)
        return -ENOMEM;
    rec->paused = true;
    rec->paused_until_ms = 0;
    rec->pause_reason = slice_of(text, strlen(text));
    return 0;
}

int schedules_run_ended(struct fsm *f, struct apply *a, uint64_t schedule_seq, uint64_t job_seq,
                        Chronos__V1__JobState state) {
    struct fsm_schedule *s = u64map_get(&f->schedules, schedule_seq);
    int r;

    ASSERT(job_state_is_terminal(state));
    if (f->work.view) { /* cancelled by what works on the schedule: it goes on with what is left */
        ASSERT(f->work.rec.seq == schedule_seq);
        ASSERT(state == S_CANCELLED);
        return remove_open(&f->work, a, job_seq);
    }
    if (!s)
        return 0; /* deleted meanwhile */
    r = schedule_load(f, a, s);
    if (r == 0)
        r = remove_open(&f->work, a, job_seq);
    if (r < 0)
        return r;
    if (state == S_FAILED)
        r = pause_failed(f, job_seq);
    if (r == 0)
        r = schedule_settle(f, a);
    return r < 0 ? r : schedule_store(f, a, FSM_SCHEDULE_STATE);
}
