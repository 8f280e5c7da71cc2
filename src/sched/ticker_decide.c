/* What becomes of the due ticks of one schedule (semantics.md C11). */
#include "sched/ticker_internal.h"

#include <errno.h>
#include <stdlib.h>

/* Most that one call can add: three ticks on time (whole seconds within TICKER_ON_TIME_MS; more
 * only with delays that leap over ticks, which stop early), TICKER_RATE_MAX late ones, and a range
 * for each change of the reason: WINDOW, MISSED or CAP, before and after a new backlog began. */
#define ON_TIME_STOP (DECISION_TICKS_MAX - TICKER_RATE_MAX - 8)
STATIC_ASSERT(ON_TIME_STOP > TICKER_ON_TIME_MS / 1000 + 1, "room for all ticks that are on time");

static struct catch_up *catch_up_begin(struct ticker *t, struct entry *e, int64_t now_ms) {
    struct catch_up *c = calloc(1, sizeof(*c));

    if (!c)
        return NULL;
    *c = (struct catch_up){.next = t->catch_ups, .entry = e, .held_s = -1};
    c->began_ms = now_ms;
    c->fires_left = TICKER_CATCH_UP_MAX;
    if (c->next)
        c->next->prev = c;
    t->catch_ups = c;
    t->catch_ups_count++;
    e->catch_up = c;
    return c;
}

void catch_up_end(struct ticker *t, struct entry *e) {
    struct catch_up *c = e->catch_up;

    if (!c)
        return;
    if (c->next)
        c->next->prev = c->prev;
    if (c->prev)
        c->prev->next = c->next;
    else
        t->catch_ups = c->next;
    t->catch_ups_count--;
    e->catch_up = NULL;
    free(c);
}

static void add(struct decision *d, int64_t first_s, int64_t last_s, uint64_t count,
                Chronos__V1__TickReason reason) {
    ASSERT(d->ticks_count < DECISION_TICKS_MAX);
    d->ticks[d->ticks_count++] = (struct decided){
        .tick_s = first_s, .last_tick_s = last_s, .count = count, .reason = reason};
}

static bool by_failover(const struct ticker *t, int64_t due_ms, int64_t now_ms) {
    return due_ms < t->leads_since_ms && now_ms - due_ms <= TICKER_FAILOVER_MS;
}

static void fire(const struct ticker *t, const struct entry *e, struct decision *d, int64_t tick_s,
                 int64_t due_ms, int64_t now_ms) {
    bool late = now_ms - due_ms > TICKER_ON_TIME_MS;
    enum ticker_cause cause = by_failover(t, due_ms, now_ms)        ? TICKER_FAILOVER
                              : e->catch_up && e->catch_up->limited ? TICKER_LIMIT
                              : late                                ? TICKER_CATCH_UP
                                                                    : TICKER_ON_TIME;
    Chronos__V1__TickReason reason = CHRONOS__V1__TICK_REASON__TICK_REASON_ON_TIME;

    if (late)
        reason = cause == TICKER_FAILOVER ? CHRONOS__V1__TICK_REASON__TICK_REASON_FAILOVER
                                          : CHRONOS__V1__TICK_REASON__TICK_REASON_CATCH_UP;
    add(d, tick_s, tick_s, 1, reason);
    d->fired[d->fired_count++] = (struct fired){.due_ms = due_ms, .cause = cause};
}

static void end_range(struct catch_up *c, struct decision *d) {
    if (c->count > 0)
        add(d, c->first_s, c->last_s, c->count, c->reason);
    c->count = 0;
}

static void not_run(struct catch_up *c, struct decision *d, int64_t tick_s,
                    Chronos__V1__TickReason reason) {
    if (c->count > 0 && c->reason != reason)
        end_range(c, d);
    if (c->count == 0)
        c->first_s = tick_s;
    c->last_s = tick_s;
    c->count++;
    c->reason = reason;
}

/* Nothing late follows for now: the newest late tick is known. */
static void settle(const struct ticker *t, struct entry *e, struct decision *d, int64_t now_ms) {
    struct catch_up *c = e->catch_up;

    if (!c)
        return;
    end_range(c, d);
    if (c->held_s >= 0)
        fire(t, e, d, c->held_s, c->held_due_ms, now_ms);
    c->held_s = -1;
}

/* 0; 1 = no more at present, this tick is still to be decided; -ENOMEM. */
static int decide_late(struct ticker *t, struct entry *e, struct decision *d, int64_t tick_s,
                       int64_t due_ms, int64_t now_ms) {
    struct catch_up *c = e->catch_up ? e->catch_up : catch_up_begin(t, e, now_ms);

    if (!c)
        return -ENOMEM;
    if (due_ms > c->began_ms) { /* what became late while the first backlog was worked off */
        c->began_ms = now_ms;
        c->fires_left = TICKER_CATCH_UP_MAX;
    }
    if (due_ms < c->began_ms - e->window_s * 1000LL) {
        not_run(c, d, tick_s, CHRONOS__V1__TICK_REASON__TICK_REASON_WINDOW);
        return 0;
    }
    if (e->missed == CHRONOS__V1__MISSED_POLICY__MISSED_POLICY_SKIP) {
        not_run(c, d, tick_s, CHRONOS__V1__TICK_REASON__TICK_REASON_MISSED);
        return 0;
    }
    if (e->missed != CHRONOS__V1__MISSED_POLICY__MISSED_POLICY_ALL) {
        if (c->held_s >= 0)
            not_run(c, d, c->held_s, CHRONOS__V1__TICK_REASON__TICK_REASON_MISSED);
        c->held_s = tick_s;
        c->held_due_ms = due_ms;
        return 0;
    }
    if (c->fires_left == 0) {
        not_run(c, d, tick_s, CHRONOS__V1__TICK_REASON__TICK_REASON_CAP);
        return 0;
    }
    if (d->fired_count >= TICKER_RATE_MAX) {
        c->limited = true;
        c->not_before_ms = now_ms + RETRY_MS;
        return 1;
    }
    end_range(c, d);
    fire(t, e, d, tick_s, due_ms, now_ms);
    c->fires_left--;
    return 0;
}

static int decide_tick(struct ticker *t, struct entry *e, struct decision *d, int64_t tick_s,
                       int64_t due_ms, int64_t now_ms) {
    if (now_ms - due_ms > TICKER_ON_TIME_MS)
        return decide_late(t, e, d, tick_s, due_ms, now_ms);
    settle(t, e, d, now_ms);
    if (d->ticks_count >= ON_TIME_STOP)
        return 1;
    fire(t, e, d, tick_s, due_ms, now_ms);
    return 0;
}

int entry_decide(struct ticker *t, struct entry *e, int64_t now_ms, uint32_t *io_steps,
                 struct decision *d) {
    bool caught_up = true;

    d->ticks_count = d->fired_count = 0;
    d->cut_off = false;
    for (;;) {
        struct timetable_instant i;
        int64_t due_ms;
        int rc;

        if (*io_steps >= TICKER_STEPS_MAX) {
            d->cut_off = true;
            return 0; /* what is collected stays in the catch-up */
        }
        i = timetable_next(e->times, e->from_s, io_steps);
        if (i.at_s == CRON_NEVER || i.at_s * 1000 > now_ms)
            break;
        if (i.is_tick) {
            due_ms = i.at_s * 1000 + timetable_delay_ms(e->times, e->name_hash, i.at_s);
            if (due_ms > now_ms)
                break;
            rc = decide_tick(t, e, d, i.at_s, due_ms, now_ms);
            if (rc < 0)
                return rc;
            if (rc > 0) {
                caught_up = false;
                break;
            }
        }
        e->from_s = i.at_s;
    }
    settle(t, e, d, now_ms);
    if (caught_up)
        catch_up_end(t, e);
    return 0;
}
