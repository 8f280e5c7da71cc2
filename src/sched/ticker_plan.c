/* Plans: the decided ticks of many schedules for one log entry, and what becomes of them. */
#include "sched/ticker_internal.h"

#include <errno.h>
#include <stdlib.h>

const char *ticker_cause_to_string(enum ticker_cause c) {
    switch (c) {
    case TICKER_ON_TIME:
        return "on time";
    case TICKER_FAILOVER:
        return "failover";
    case TICKER_CATCH_UP:
        return "catch-up";
    case TICKER_LIMIT:
        return "limit";
    case TICKER_CAUSES:
        break;
    }
    return "unknown";
}

void plan_free(struct plan *p) {
    if (!p)
        return;
    free(p->items);
    free(p->fired);
    free(p);
}

/* A plan that is being made. */
struct draft {
    struct arena *arena;
    struct plan *plan;
    Chronos__Internal__V1__ScheduleTicks **items;
    size_t ticks_count;
    size_t job_bytes;
    size_t fired_cap;
    uint32_t steps;
};

static int draft_begin(struct ticker *t, struct draft *f) {
    f->items = arena_alloc(f->arena, TICKER_ITEMS_MAX * sizeof(*f->items));
    f->plan = calloc(1, sizeof(*f->plan));
    if (!f->items || !f->plan)
        return -ENOMEM;
    f->plan->items = calloc(TICKER_ITEMS_MAX, sizeof(*f->plan->items));
    if (!f->plan->items)
        return -ENOMEM;
    /* Its low 32 bits mark the schedules in it and are never 0. */
    do
        t->next_plan++;
    while ((uint32_t) t->next_plan == 0);
    f->plan->id = t->next_plan;
    return 0;
}

static int add_fired(struct draft *f, const struct decision *d) {
    struct plan *p = f->plan;

    if (p->fired_count + d->fired_count > f->fired_cap) {
        size_t cap = MAX(2 * f->fired_cap, (size_t) 64);
        struct fired *grown = realloc(p->fired, cap * sizeof(*grown));

        if (!grown)
            return -ENOMEM;
        p->fired = grown;
        f->fired_cap = cap;
    }
    for (size_t i = 0; i < d->fired_count; i++) {
        p->fired[p->fired_count] = d->fired[i];
        p->fired[p->fired_count++].item = (uint32_t) p->items_count;
    }
    return 0;
}

static int add_item(struct draft *f, struct entry *e, const struct decision *d) {
    Chronos__Internal__V1__ScheduleTicks *item = arena_alloc(f->arena, sizeof(*item));
    Chronos__Internal__V1__DecidedTick *ticks =
        arena_alloc(f->arena, d->ticks_count * sizeof(*ticks));
    Chronos__Internal__V1__DecidedTick **pointers =
        arena_alloc(f->arena, d->ticks_count * sizeof(*pointers));

    if (!item || !ticks || !pointers || add_fired(f, d) < 0)
        return -ENOMEM;
    chronos__internal__v1__schedule_ticks__init(item);
    item->schedule_seq = e->seq;
    item->generation = e->generation;
    item->watermark_s = d->ticks[d->ticks_count - 1].last_tick_s;
    item->n_ticks = d->ticks_count;
    item->ticks = pointers;
    for (size_t i = 0; i < d->ticks_count; i++) {
        const struct decided *x = &d->ticks[i];

        chronos__internal__v1__decided_tick__init(&ticks[i]);
        ticks[i].tick_s = x->tick_s;
        ticks[i].last_tick_s = x->count > 1 ? x->last_tick_s : 0;
        ticks[i].count = x->count > 1 ? x->count : 0;
        ticks[i].reason = x->reason;
        pointers[i] = &ticks[i];
    }
    ASSERT(item->watermark_s > e->watermark_s);
    f->plan->items[f->plan->items_count] =
        (struct planned){.seq = e->seq, .base_s = e->watermark_s, .watermark_s = item->watermark_s};
    f->items[f->plan->items_count++] = item;
    f->ticks_count += d->ticks_count;
    f->job_bytes += d->fired_count * e->job_bytes;
    return 0;
}

static bool draft_has_room(const struct draft *f) {
    return f->plan->items_count < TICKER_ITEMS_MAX &&
           f->ticks_count + DECISION_TICKS_MAX <= TICKER_TICKS_MAX &&
           f->job_bytes < TICKER_JOB_BYTES_MAX && f->steps < TICKER_STEPS_MAX;
}

/* The first schedule of the heap. 0, -ENOMEM. */
static int plan_entry(struct ticker *t, struct entry *e, int64_t now_ms, struct draft *f) {
    struct decision d;
    int rc = entry_decide(t, e, now_ms, &f->steps, &d);

    if (rc < 0)
        return rc;
    if (d.ticks_count > 0) {
        rc = add_item(f, e, &d);
        if (rc < 0)
            return rc;
        heap_remove(&t->heap, e);
        e->plan = (uint32_t) f->plan->id;
    } else if (d.cut_off) {
        entry_postpone(t, e, now_ms); /* behind those that are due already */
    } else {
        entry_arm(t, e);
    }
    return 0;
}

int ticker_plan(struct ticker *t, struct wall now, struct arena *arena,
                Chronos__Internal__V1__ScheduleTicks ***ret_items, size_t *ret_count,
                uint64_t *ret_plan) {
    struct draft f = {.arena = arena};
    int rc;

    ASSERT(t && arena);
    ASSERT(ret_items && ret_count && ret_plan);
    *ret_count = 0;
    if (ticker_next_due_ms(t) > now.ms)
        return 0;
    rc = draft_begin(t, &f);
    while (rc == 0 && ticker_next_due_ms(t) <= now.ms && draft_has_room(&f))
        rc = plan_entry(t, t->heap.slots[0].entry, now.ms, &f);
    t->steps += f.steps;
    if (rc < 0 || f.plan->items_count == 0) {
        plan_free(f.plan);
        return rc;
    }
    f.plan->next = t->plans;
    t->plans = f.plan;
    *ret_items = f.items;
    *ret_count = f.plan->items_count;
    *ret_plan = f.plan->id;
    return 0;
}

static void item_done(struct ticker *t, const struct plan *p, struct planned *x, int64_t now_ms) {
    struct entry *e = u64map_get(&t->by_seq, x->seq);
    bool stuck;

    if (!e || e->plan != (uint32_t) p->id) {
        x->watermark_s = x->base_s; /* replaced meanwhile: nothing is known of its ticks */
        return;
    }
    stuck = e->watermark_s == x->base_s;
    e->plan = 0;
    if (e->watermark_s != x->watermark_s) {
        entry_rewind(t, e);
        x->watermark_s = x->base_s;
    }
    entry_arm(t, e);
    if (stuck && e->heap_pos > 0 && t->heap.slots[e->heap_pos - 1].due_ms < now_ms + RETRY_MS)
        entry_postpone(t, e, now_ms + RETRY_MS);
}

void ticker_plan_done(struct ticker *t, uint64_t plan, struct wall now, ticker_each_fn each,
                      void *arg) {
    struct plan **at = &t->plans, *p;

    while (*at && (*at)->id != plan)
        at = &(*at)->next;
    p = *at;
    if (!p)
        return;
    *at = p->next;
    for (size_t i = 0; i < p->items_count; i++)
        item_done(t, p, &p->items[i], now.ms);
    for (size_t i = 0; each && i < p->fired_count; i++) {
        const struct planned *x = &p->items[p->fired[i].item];

        if (x->watermark_s != x->base_s)
            each(arg, p->fired[i].cause, p->fired[i].due_ms);
    }
    plan_free(p);
}
