/* Schedules fire: the ticker kept as the state is, its plans proposed while this node leads, the
 * wall clock watched.
 *
 * No tick is polled for: the next due instant is a deadline of the replica, computed from the wall
 * clock as it was last read; the facts that are told every second, and the host's word that the
 * clock was set (replica_on_clock_changed), have it read again. Thread: the loop. */
#include "node/replica_internal.h"

#include "fsm/command.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define ZONES_LOOK_MS 60000
#define CLOCK_STEP_MS 1000 /* more than that between two readings is no drift */
#define CLOCK_ALARM_MS 600000
#define ALARMS_IN_FLIGHT_MAX 16

/* ---- life ------------------------------------------------------------------------------------ */

int ticks_init(struct replica *r) {
    struct ticks *t = &r->ticks;
    int rc;

    arena_init(&t->arena, ARENA_BYTES_MAX);
    t->lateness = calloc(TICKER_CAUSES, sizeof(*t->lateness));
    if (!t->lateness)
        return -ENOMEM;
    rc = zones_new(&r->env.zones, &t->zones);
    if (rc == 0)
        rc = ticker_new(t->zones, &t->ticker);
    t->zones_at = mono_add_ms(r->now, ZONES_LOOK_MS);
    return rc;
}

void ticks_free(struct replica *r) {
    struct ticks *t = &r->ticks;

    t->ticker = ticker_free(t->ticker);
    t->zones = zones_free(t->zones);
    free(t->lateness);
    t->lateness = NULL;
    arena_done(&t->arena);
}

struct zones *replica_zones(struct replica *r) {
    return r->ticks.zones;
}

/* ---- following the state --------------------------------------------------------------------- */

static struct ticker_state state_of(const struct fsm_schedule *s) {
    return (struct ticker_state){
        .watermark_s = s->watermark_s, .finished = s->runs_left == 0, .alarmed = s->alarmed};
}

static int put(struct ticks *t, const struct fsm_schedule *s,
               const Chronos__Internal__V1__ScheduleRecord *rec, struct arena *arena) {
    Chronos__V1__ScheduleSpec unreadable = CHRONOS__V1__SCHEDULE_SPEC__INIT;
    struct ticker_definition d = {.seq = s->seq,
                                  .generation = s->generation,
                                  .job_bytes = s->job_bytes,
                                  .state = state_of(s)};

    d.spec = chronos__v1__schedule_spec__unpack(arena_pb(arena), rec->spec.len, rec->spec.data);
    if (!d.spec) { /* nobody validated that: it has no expression, which is an alarm on it */
        unreadable.name = rec->name;
        d.spec = &unreadable;
    }
    return ticker_put(t->ticker, &d);
}

static int load_one(void *arg, const struct fsm_schedule *s,
                    const Chronos__Internal__V1__ScheduleRecord *rec) {
    struct replica *r = arg;

    return put(&r->ticks, s, rec, &r->ticks.arena);
}

int ticks_load(struct replica *r) {
    struct ticks *t = &r->ticks;
    int rc;

    ticker_clear(t->ticker);
    rc = fsm_load_schedules(r->fsm, 0, &t->arena, load_one, r);
    arena_clear(&t->arena);
    return rc;
}

static int apply_change(struct replica *r, const struct fsm_schedule_event *e) {
    struct ticks *t = &r->ticks;
    const struct fsm_schedule *s = fsm_schedule_by_seq(r->fsm, e->seq);
    Chronos__Internal__V1__ScheduleRecord *rec = NULL;
    struct ticker_state state;
    int rc;

    if (!s) { /* also when it was changed and then removed by one command */
        ticker_remove(t->ticker, e->seq);
        return 0;
    }
    if (e->change != FSM_SCHEDULE_PUT) {
        state = state_of(s);
        return ticker_update(t->ticker, e->seq, &state);
    }
    arena_clear(&t->arena);
    rc = fsm_read_schedule(r->fsm, e->seq, &t->arena, &rec);
    if (rc == 0)
        rc = put(t, s, rec, &t->arena);
    arena_clear(&t->arena);
    return rc > 0 ? ERR_CORRUPT : rc;
}

void ticks_applied(struct replica *r, const struct fsm_output *out) {
    for (size_t i = 0; i < out->schedules_count; i++) {
        int rc = apply_change(r, &out->schedules[i]);

        if (rc < 0) {
            replica_fail(r, rc, "schedule %llu: %s", (unsigned long long) out->schedules[i].seq,
                         err_name(rc));
            return;
        }
    }
}

/* ---- clocks ---------------------------------------------------------------------------------- */

static void clock_stepped(struct replica *r, int64_t by_ms) {
    struct ticks *t = &r->ticks;

    (void) snprintf(t->clock_alarm, sizeof(t->clock_alarm),
                    "clock_suspect: the clock was set %lld.%03lld s %s", llabs(by_ms) / 1000,
                    llabs(by_ms) % 1000, by_ms > 0 ? "forward" : "back");
    t->clock_alarm_till = mono_add_ms(t->mono, CLOCK_ALARM_MS);
    log_warn(r->env.log, "clock stepped", "by_ms=%lld", (long long) by_ms);
}

static void read_clocks(struct replica *r) {
    struct ticks *t = &r->ticks;
    struct mono mono = r->env.clock.mono(r->env.clock.ctx);
    struct wall wall = r->env.clock.wall(r->env.clock.ctx);
    /* Nobody took the processor from us in between: only then they tell of the same instant. */
    bool together = mono_diff_ns(r->env.clock.mono(r->env.clock.ctx), mono) < 100 * NS_PER_MS;
    int64_t by_ms;

    by_ms = (wall.ms - t->wall.ms) - (int64_t) (mono_diff_ns(mono, t->mono) / NS_PER_MS);
    if (wall.ms < t->wall.ms)
        ticker_clock_back(t->ticker, wall);
    t->mono = mono;
    t->wall = wall;
    if (t->clock_read && together && (by_ms > CLOCK_STEP_MS || by_ms < -CLOCK_STEP_MS))
        clock_stepped(r, by_ms);
    t->clock_read = together;
    if (t->clock_alarm[0] && mono_reached(r->now, t->clock_alarm_till))
        t->clock_alarm[0] = 0;
}

void replica_on_clock_changed(struct replica *r) {
    r->wants_turn = true;
}

/* ---- zones ----------------------------------------------------------------------------------- */

static int look_at_zones(struct replica *r) {
    struct ticks *t = &r->ticks;
    int rc;

    if (mono_reached(r->now, t->zones_at)) {
        t->zones_at = mono_add_ms(r->now, ZONES_LOOK_MS);
        rc = zones_refresh(t->zones);
        if (rc < 0)
            return rc;
        if (rc > 0) {
            log_info(r->env.log, "time zones changed", "version=\"%s\"", zones_version(t->zones));
            ticker_zones_changed(t->ticker);
        }
    }
    rc = ticker_refresh(t->ticker);
    if (rc > 0)
        r->wants_turn = true; /* in slices, so that messages are not kept waiting */
    return MIN(rc, 0);
}

/* ---- leading --------------------------------------------------------------------------------- */

struct plan_arg {
    struct replica *replica;
    uint64_t plan;
};

static void count_lateness(void *arg, enum ticker_cause cause, int64_t due_ms) {
    struct ticks *t = &((struct replica *) arg)->ticks;

    histogram_add(&t->lateness[cause], (uint64_t) MAX(t->wall.ms - due_ms, 0));
}

static void plan_done(void *arg, const struct replica_proposed *res) {
    struct plan_arg *a = arg;
    struct replica *r = a->replica;

    read_clocks(r);
    r->ticks.plans_in_flight--;
    r->wants_turn = true;
    ticker_plan_done(r->ticks.ticker, a->plan, r->ticks.wall,
                     res->status == REPLICA_OK ? count_lateness : NULL, r);
    free(a);
}

/* @command's reference is consumed. */
static int propose(struct replica *r, const Chronos__Internal__V1__LogCommand *cmd,
                   replica_propose_fn done, uint64_t id) {
    struct plan_arg *a = malloc(sizeof(*a));
    struct bytes *command = NULL;
    int rc;

    if (!a)
        return -ENOMEM;
    *a = (struct plan_arg){.replica = r, .plan = id};
    rc = command_encode(cmd, &command);
    /* Not retried by itself: a plan that is lost is made anew from what was applied. */
    if (rc == 0)
        rc = replica_propose(r, command, REPLICA_INTERNAL | REPLICA_OWN_TERM, MONO_NEVER, done, a);
    if (rc != 0)
        free(a);
    return rc;
}

/* 0 with *ret_more: there may be more to plan. Negative. */
static int plan(struct replica *r, bool *ret_more) {
    Chronos__Internal__V1__LogCommand cmd = CHRONOS__INTERNAL__V1__LOG_COMMAND__INIT;
    Chronos__Internal__V1__ProcessTicks body = CHRONOS__INTERNAL__V1__PROCESS_TICKS__INIT;
    struct ticks *t = &r->ticks;
    uint64_t id = 0;
    int rc;

    arena_clear(&t->arena);
    rc = ticker_plan(t->ticker, t->wall, &t->arena, &body.items, &body.n_items, &id);
    *ret_more = rc == 0 && body.n_items > 0 && ticker_next_due_ms(t->ticker) <= t->wall.ms;
    if (rc < 0 || body.n_items == 0)
        return rc;
    cmd.body_case = CHRONOS__INTERNAL__V1__LOG_COMMAND__BODY_PROCESS_TICKS;
    cmd.process_ticks = &body;
    rc = propose(r, &cmd, plan_done, id);
    arena_clear(&t->arena);
    if (rc == 0)
        t->plans_in_flight++;
    if (rc > 0) { /* not taken: planned again in a while */
        ticker_plan_done(t->ticker, id, t->wall, NULL, NULL);
        *ret_more = false;
    }
    return MIN(rc, 0);
}

static void alarm_done(void *arg, const struct replica_proposed *res) {
    struct plan_arg *a = arg;

    (void) res;
    a->replica->ticks.alarms_in_flight--;
    a->replica->wants_turn = true;
    ticker_alarm_done(a->replica->ticks.ticker, a->plan);
    free(a);
}

static int tell_alarms(struct replica *r) {
    struct ticks *t = &r->ticks;
    const char *text;
    uint64_t seq;

    while (t->alarms_in_flight < ALARMS_IN_FLIGHT_MAX &&
           ticker_next_alarm(t->ticker, &seq, &text)) {
        Chronos__Internal__V1__LogCommand cmd = CHRONOS__INTERNAL__V1__LOG_COMMAND__INIT;
        Chronos__Internal__V1__SetScheduleAlarm body =
            CHRONOS__INTERNAL__V1__SET_SCHEDULE_ALARM__INIT;
        int rc;

        body.schedule_seq = seq;
        body.text = (char *) (uintptr_t) text; /* packing reads only */
        cmd.body_case = CHRONOS__INTERNAL__V1__LOG_COMMAND__BODY_SET_SCHEDULE_ALARM;
        cmd.set_schedule_alarm = &body;
        if (text[0])
            log_warn(r->env.log, "schedule cannot fire", "schedule=%llu why=\"%s\"",
                     (unsigned long long) seq, text);
        rc = propose(r, &cmd, alarm_done, seq);
        if (rc < 0)
            return rc;
        if (rc > 0) {
            ticker_alarm_done(t->ticker, seq);
            break;
        }
        t->alarms_in_flight++;
    }
    return 0;
}

static int lead(struct replica *r) {
    struct ticks *t = &r->ticks;
    bool more = ticker_next_due_ms(t->ticker) <= t->wall.ms;
    int rc = tell_alarms(r);

    /* On a nearly full disk no new jobs (W5); later the ticks are late ones. */
    while (rc == 0 && more && !r->disk_space.low && t->plans_in_flight < TICKS_PLANS_MAX)
        rc = plan(r, &more);
    return rc;
}

void ticks_reset(struct replica *r) {
    read_clocks(r);
    ticker_reset(r->ticks.ticker, r->ticks.wall);
}

void ticks_turn(struct replica *r) {
    int rc;

    /* One that is never taken back would end the ticks of this node, four such for good. */
    ASSERT(r->ticks.plans_in_flight + r->ticks.alarms_in_flight <= r->proposals.by_origin.count);
    read_clocks(r);
    rc = look_at_zones(r);
    if (rc == 0 && replica_leads(r))
        rc = lead(r);
    if (rc < 0)
        replica_fail(r, rc, "schedules: %s", err_name(rc));
}

struct mono ticks_deadline(const struct replica *r) {
    const struct ticks *t = &r->ticks;
    struct mono d = t->zones_at;
    int64_t due_ms = ticker_next_due_ms(t->ticker);

    if (!replica_leads(r) || due_ms == INT64_MAX || t->plans_in_flight >= TICKS_PLANS_MAX ||
        r->disk_space.low)
        return d; /* a plan that ends has the turn called, room on the disk as well */
    return mono_min(d, mono_add_ms(t->mono, (uint64_t) MAX(due_ms - t->wall.ms, 0)));
}
