#include "ticker_world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

void world_init(struct world *w, size_t n) {
    struct env_zones env = fake_zones(w->fake);

    *w = (struct world){
        .n = n, .now_ms = T0 * 1000, .fake = {{.name = "Europe/Berlin", .rule = FAKE_BERLIN}}};
    arena_init(&w->arena, 64UL << 20);
    assert_int_equal(zones_new(&env, &w->zones), 0);
    assert_int_equal(ticker_new(w->zones, &w->t), 0);
    w->schedules = calloc(n, sizeof(*w->schedules));
    for (size_t i = 0; i < n; i++) {
        struct schedule *s = &w->schedules[i];

        chronos__v1__schedule_spec__init(&s->spec);
        (void) snprintf(s->name, sizeof(s->name), "s%zu", i);
        s->spec.name = s->name;
        s->spec.cron = s->cron;
        s->spec.exclude = s->exclude;
        s->seq = i + 1;
        s->generation = 1;
        s->state.watermark_s = T0;
    }
}

void world_done(struct world *w) {
    (void) ticker_free(w->t);
    (void) zones_free(w->zones);
    arena_done(&w->arena);
    for (size_t i = 0; i < w->n; i++)
        free(w->schedules[i].outcomes);
    free(w->schedules);
}

void world_put(struct world *w, size_t i) {
    struct schedule *s = &w->schedules[i];
    struct ticker_definition d = {
        .seq = s->seq, .generation = s->generation, .spec = &s->spec, .state = s->state};

    assert_int_equal(ticker_put(w->t, &d), 0);
}

void world_define(struct world *w, size_t i, const char *cron) {
    w->schedules[i].cron[0] = (char *) (uintptr_t) cron;
    w->schedules[i].spec.n_cron = 1;
    world_put(w, i);
}

void world_record(struct world *w, struct schedule *s,
                  const Chronos__Internal__V1__DecidedTick *x) {
    int64_t last = x->last_tick_s ? x->last_tick_s : x->tick_s;

    assert_true(x->tick_s > s->state.watermark_s);
    assert_true(last >= x->tick_s);
    assert_true(last * 1000 <= w->now_ms); /* J7: none before its time */
    if (RAN(x->reason))
        assert_true(last == x->tick_s && x->count <= 1);
    if (s->count == s->cap) {
        s->cap = s->cap ? 2 * s->cap : 16;
        s->outcomes = realloc(s->outcomes, s->cap * sizeof(*s->outcomes));
        assert_non_null(s->outcomes);
    }
    s->outcomes[s->count++] = (struct outcome){.first_s = x->tick_s,
                                               .last_s = last,
                                               .count = x->count ? x->count : 1,
                                               .reason = x->reason,
                                               .at_ms = w->now_ms};
    s->state.watermark_s = last;
}

void world_apply(struct world *w, const Chronos__Internal__V1__ScheduleTicks *item) {
    struct schedule *s = &w->schedules[item->schedule_seq - 1];

    if (item->generation != s->generation || item->watermark_s <= s->state.watermark_s)
        return;
    for (size_t i = 0; i < item->n_ticks; i++)
        if (item->ticks[i]->tick_s > s->state.watermark_s)
            world_record(w, s, item->ticks[i]);
    assert_int_equal(item->watermark_s, s->state.watermark_s);
    assert_int_equal(ticker_update(w->t, s->seq, &s->state), 0);
}

void world_on_cause(void *arg, enum ticker_cause cause, int64_t due_ms) {
    struct world *w = arg;

    assert_true(cause < TICKER_CAUSES);
    assert_true(due_ms <= w->now_ms);
    w->causes[cause]++;
    w->lateness_max_ms[cause] = MAX(w->lateness_max_ms[cause], w->now_ms - due_ms);
}

size_t world_plan_once(struct world *w, bool lose) {
    Chronos__Internal__V1__ScheduleTicks **items = NULL;
    size_t n = 0, ticks = 0;
    uint64_t id = 0;

    arena_clear(&w->arena);
    assert_int_equal(ticker_plan(w->t, (struct wall){w->now_ms}, &w->arena, &items, &n, &id), 0);
    assert_true(n <= TICKER_ITEMS_MAX);
    for (size_t i = 0; i < n; i++) {
        ticks += items[i]->n_ticks;
        if (!lose)
            world_apply(w, items[i]);
    }
    assert_true(ticks <= TICKER_TICKS_MAX);
    if (n > 0)
        ticker_plan_done(w->t, id, (struct wall){w->now_ms}, world_on_cause, w);
    return n;
}

size_t world_run(struct world *w) {
    size_t plans = 0;

    while (ticker_next_due_ms(w->t) <= w->now_ms) {
        (void) world_plan_once(w, false);
        assert_true(++plans < 100000); /* it must come to an end */
    }
    return plans;
}

void world_run_until(struct world *w, int64_t end_ms) {
    while (ticker_next_due_ms(w->t) <= end_ms) {
        w->now_ms = MAX(w->now_ms, ticker_next_due_ms(w->t));
        (void) world_run(w);
    }
    w->now_ms = end_ms;
}

void world_lead(struct world *w) {
    ticker_reset(w->t, (struct wall){w->now_ms});
}

uint64_t world_ran(const struct schedule *s) {
    uint64_t n = 0;

    for (size_t i = 0; i < s->count; i++)
        n += RAN(s->outcomes[i].reason) ? 1 : 0;
    return n;
}

uint64_t world_not_run(const struct schedule *s, Chronos__V1__TickReason reason) {
    uint64_t n = 0;

    for (size_t i = 0; i < s->count; i++)
        n += s->outcomes[i].reason == reason ? s->outcomes[i].count : 0;
    return n;
}
