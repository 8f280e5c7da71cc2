#include "api/schedule_rpc.h"

#include "fsm/job_id.h"
#include "os/clock.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* Searches for one schedule's next run. Past them, exclusions hide it: next_tick_ms is then an
 * instant before which there is none. */
#define NEXT_STEPS_MAX 8192U
#define ON_TIME_MS 2000

/* ---- what comes next ------------------------------------------------------------------------- */

/* Ticks from here on may still start: not those that had their outcome, and not those that were due
 * and whose moment has passed. */
static int64_t first_second(const struct fsm_schedule *s, const Chronos__V1__ScheduleSpec *spec,
                            int64_t now_ms) {
    int64_t late_ms = now_ms - spec->spread_ms - spec->jitter_ms - ON_TIME_MS;

    return MAX(s->watermark_s, late_ms / 1000 - 1);
}

static bool runs_at(const struct fsm *f, const struct fsm_schedule *s, int64_t tick_s) {
    return !fsm_schedule_paused(f, s, tick_s * 1000);
}

/* When the pause that holds at @at_ms ends; 0 = until resumed. */
static int64_t pause_end_ms(const struct fsm *f, const struct fsm_schedule *s, int64_t at_ms) {
    struct fsm_schedules_pause all;
    int64_t end = 0;

    fsm_schedules_pause(f, &all);
    if (s->paused && (s->paused_until_ms == 0 || s->paused_until_ms > at_ms)) {
        if (s->paused_until_ms == 0)
            return 0;
        end = s->paused_until_ms;
    }
    if (all.paused && (all.until_ms == 0 || all.until_ms > at_ms))
        end = all.until_ms == 0 ? 0 : MAX(end, all.until_ms);
    return end;
}

void schedule_rpc_next(struct api *a, const struct fsm_schedule *s,
                       const Chronos__Internal__V1__ScheduleRecord *rec,
                       const Chronos__V1__ScheduleSpec *spec, const struct timetable *t,
                       struct schedule_rpc_next *ret) {
    const struct fsm *f = replica_fsm(a->replica);
    uint64_t hash = timetable_name_hash(rec->name);
    int64_t now_ms = clock_wall().ms;
    int64_t at = first_second(s, spec, now_ms);
    bool by_hand = spec->n_cron > 0 && strncmp(spec->cron[0], "@manual", 7) == 0;
    uint32_t steps = 0;

    *ret = (struct schedule_rpc_next){.tick_s = CRON_NEVER, .run_tick_s = CRON_NEVER};
    if (s->runs_left == 0) {
        ret->finished = s->buffered == 0;
        return;
    }
    while (t && steps < NEXT_STEPS_MAX) {
        struct timetable_instant i = timetable_next(t, at, &steps);
        int64_t start_ms, end_ms;

        if (i.at_s == CRON_NEVER) {
            const struct zone *zone = timetable_zone(t);

            ret->finished = ret->tick_s == CRON_NEVER && !by_hand && (!zone || zone->tz);
            break;
        }
        at = i.at_s;
        start_ms = at * 1000 + timetable_delay_ms(t, hash, at);
        if (!i.is_tick || start_ms + ON_TIME_MS < now_ms)
            continue;
        if (ret->tick_s == CRON_NEVER) {
            ret->tick_s = at;
            ret->tick_run_ms = start_ms;
        }
        if (runs_at(f, s, at)) {
            ret->run_tick_s = at;
            ret->run_ms = start_ms;
            ret->note = i.note;
            return;
        }
        end_ms = pause_end_ms(f, s, at * 1000);
        if (end_ms == 0)
            return; /* until somebody resumes it */
        at = MAX(at, end_ms / 1000 - 1);
    }
    if (steps >= NEXT_STEPS_MAX && ret->tick_s == CRON_NEVER)
        ret->tick_s = at;
}

int schedule_rpc_pause_of(struct api *a, const struct fsm_schedule *s,
                          const Chronos__Internal__V1__ScheduleRecord *rec, struct arena *arena,
                          struct schedule_rpc_pause *ret) {
    const struct fsm *f = replica_fsm(a->replica);
    int64_t now_ms = clock_wall().ms;
    struct fsm_schedules_pause all;

    *ret = (struct schedule_rpc_pause){.paused = fsm_schedule_paused(f, s, now_ms)};
    fsm_schedules_pause(f, &all);
    if (!ret->paused) {
        ret->reason = arena_strdup(arena, "");
    } else if (s->paused && (s->paused_until_ms == 0 || s->paused_until_ms > now_ms)) {
        ret->until_ms = pause_end_ms(f, s, now_ms);
        ret->reason = arena_strdup(arena, rec->pause_reason);
    } else {
        ret->until_ms = pause_end_ms(f, s, now_ms);
        ret->reason = arena_printf(arena, "all schedules are paused%s%s", all.reason[0] ? ": " : "",
                                   all.reason);
    }
    return ret->reason ? 0 : -ENOMEM;
}

/* ---- messages -------------------------------------------------------------------------------- */

static char *job_id_in(uint64_t seq, struct arena *arena) {
    char *id = arena_alloc(arena, JOB_ID_BYTES_MAX);

    if (id && seq > 0)
        job_id_format(seq, id);
    else if (id)
        id[0] = '\0';
    return id;
}

Chronos__V1__TickOutcome *schedule_rpc_outcome(const Chronos__Internal__V1__TickRecord *rec,
                                               uint64_t ordinal, struct arena *arena) {
    Chronos__V1__TickOutcome *o = arena_alloc(arena, sizeof(*o));

    if (!o)
        return NULL;
    chronos__v1__tick_outcome__init(o);
    o->tick_ms = rec->tick_s * 1000;
    o->last_tick_ms = MAX(rec->last_tick_s, rec->tick_s) * 1000;
    o->count = MAX(rec->count, 1UL);
    o->fired = rec->fired;
    o->waiting = rec->waiting;
    o->reason = rec->reason;
    o->job_id = job_id_in(rec->job_seq, arena);
    o->decided_at_ms = rec->decided_at_ms;
    o->generation = rec->generation;
    o->ordinal = ordinal;
    return o->job_id ? o : NULL;
}

static int view_runs(const Chronos__Internal__V1__ScheduleRecord *rec, struct arena *arena,
                     Chronos__V1__Schedule *out) {
    out->open_job_ids = arena_alloc(arena, (rec->n_open_runs + 1) * sizeof(*out->open_job_ids));
    if (!out->open_job_ids)
        return -ENOMEM;
    for (size_t i = 0; i < rec->n_open_runs; i++) {
        out->open_job_ids[i] = job_id_in(rec->open_runs[i], arena);
        if (!out->open_job_ids[i])
            return -ENOMEM;
    }
    out->n_open_job_ids = rec->n_open_runs;
    return 0;
}

static int view_last_tick(struct api *a, const Chronos__Internal__V1__ScheduleRecord *rec,
                          struct arena *arena, Chronos__V1__Schedule *out) {
    Chronos__Internal__V1__TickRecord *tick;
    int r;

    if (rec->next_ordinal <= rec->first_ordinal)
        return 0;
    r = fsm_read_tick(replica_fsm(a->replica), rec->seq, rec->next_ordinal - 1, arena, &tick);
    if (r != 0)
        return r < 0 ? r : 0;
    out->last_tick = schedule_rpc_outcome(tick, rec->next_ordinal - 1, arena);
    return out->last_tick ? 0 : -ENOMEM;
}

static int view_state(struct api *a, const struct fsm_schedule *s,
                      const Chronos__Internal__V1__ScheduleRecord *rec, struct arena *arena,
                      Chronos__V1__Schedule *out) {
    struct schedule_rpc_pause pause;
    int r = schedule_rpc_pause_of(a, s, rec, arena, &pause);

    if (r < 0)
        return r;
    out->version = rec->version;
    out->generation = rec->generation;
    out->created_at_ms = rec->created_at_ms;
    out->updated_at_ms = rec->updated_at_ms;
    out->paused = pause.paused;
    out->paused_until_ms = pause.until_ms;
    out->pause_reason = pause.reason;
    out->watermark_ms = s->watermark_s * 1000;
    out->buffered = s->buffered;
    out->fired = rec->fired;
    out->skipped = rec->skipped;
    out->remaining_runs = s->runs_left == UINT64_MAX ? 0 : s->runs_left;
    out->alarm = rec->alarm;
    out->updated_index = rec->updated_index;
    return 0;
}

static int view_next(struct api *a, const struct fsm_schedule *s,
                     const Chronos__Internal__V1__ScheduleRecord *rec, Chronos__V1__Schedule *out) {
    _cleanup_(timetable_unrefp) struct timetable *t = NULL;
    struct schedule_rpc_next next;
    int r = timetable_new(out->spec, replica_zones(a->replica), &t, NULL);

    if (r == -ENOMEM)
        return r;
    /* Otherwise the alarm says what is wrong with it on this machine. */
    schedule_rpc_next(a, s, rec, out->spec, t, &next);
    out->next_tick_ms = next.tick_s == CRON_NEVER ? 0 : next.tick_s * 1000;
    out->next_run_ms = next.run_ms;
    out->finished = next.finished;
    return 0;
}

int schedule_rpc_view(struct api *a, const struct fsm_schedule *s,
                      const Chronos__Internal__V1__ScheduleRecord *rec, struct arena *arena,
                      Chronos__V1__Schedule **ret) {
    Chronos__V1__Schedule *out = arena_alloc(arena, sizeof(*out));
    int r;

    ASSERT(s && rec);
    if (!out)
        return -ENOMEM;
    chronos__v1__schedule__init(out);
    out->spec = validate_schedule_unpack(slice_of(rec->spec.data, rec->spec.len),
                                         slice_of(rec->job.data, rec->job.len), arena);
    if (!out->spec)
        return ERR_CORRUPT;
    r = view_state(a, s, rec, arena, out);
    if (r == 0)
        r = view_runs(rec, arena, out);
    if (r == 0)
        r = view_next(a, s, rec, out);
    if (r == 0)
        r = view_last_tick(a, rec, arena, out);
    if (r == 0)
        *ret = out;
    return r;
}

void schedule_rpc_fail_read(struct api *a, struct rpc_call *call, const char *what, int r) {
    ASSERT(r != 0);
    if (r == FSM_READ_NOT_FOUND)
        api_fail(call, RPC_NOT_FOUND, "name: there is no longer %s", what);
    else
        api_fail_read(a, call, what, r);
}

void schedule_rpc_reply(struct api *a, struct rpc_call *call, uint64_t seq, uint64_t index) {
    Chronos__V1__ScheduleResponse resp = CHRONOS__V1__SCHEDULE_RESPONSE__INIT;
    struct fsm *f = replica_fsm(a->replica);
    const struct fsm_schedule *s = fsm_schedule_by_seq(f, seq);
    Chronos__Internal__V1__ScheduleRecord *rec;
    int r = s ? 0 : FSM_READ_NOT_FOUND;

    arena_clear(&a->scratch);
    if (r == 0)
        r = fsm_read_schedule(f, seq, &a->scratch, &rec);
    if (r == 0)
        r = schedule_rpc_view(a, s, rec, &a->scratch, &resp.schedule);
    if (r != 0) {
        schedule_rpc_fail_read(a, call, "such a schedule", r);
        return;
    }
    resp.index = index;
    api_reply(call, api_pack(&resp.base));
}
