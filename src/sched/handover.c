/* Ticks without outcome, at an edit. See handover.h. */
#include "sched/handover.h"

#include "sched/ticker.h"

/* The next tick after @after_s up to @until_s, else CRON_NEVER; also when the steps are used up. */
static int64_t next_tick(const struct timetable *t, int64_t after_s, int64_t until_s,
                         uint32_t *io_steps) {
    while (*io_steps < HANDOVER_STEPS_MAX) {
        struct timetable_instant i = timetable_next(t, after_s, io_steps);

        if (i.at_s > until_s)
            break;
        if (i.is_tick)
            return i.at_s;
        after_s = i.at_s;
    }
    return CRON_NEVER;
}

static bool has(const struct timetable *t, int64_t tick_s, uint32_t *io_steps) {
    return next_tick(t, tick_s - 1, tick_s, io_steps) == tick_s;
}

/* As the ticker judges it: it would have been on time. */
static bool still_to_start(const struct timetable *t, uint64_t name_hash, int64_t tick_s,
                           int64_t now_ms) {
    return tick_s * 1000 + timetable_delay_ms(t, name_hash, tick_s) + TICKER_ON_TIME_MS >= now_ms;
}

/* Where the new generation begins. */
static int64_t begin(const struct timetable *from, const struct timetable *to, uint64_t name_hash,
                     int64_t from_s, int64_t now_ms, uint32_t *io_steps) {
    int64_t longest_ms = timetable_delay_max_ms(from) + TICKER_ON_TIME_MS;
    int64_t now_s = now_ms / 1000, at = MAX(from_s, now_s - longest_ms / 1000 - 2);
    int64_t kept_s = CRON_NEVER; /* the first tick of those that are kept to the end */

    while ((at = next_tick(to, at, now_s, io_steps)) != CRON_NEVER) {
        if (!has(from, at, io_steps) || !still_to_start(from, name_hash, at, now_ms))
            kept_s = CRON_NEVER;
        else if (kept_s == CRON_NEVER)
            kept_s = at;
    }
    return kept_s == CRON_NEVER ? now_s : kept_s - 1;
}

int handover_of(const struct timetable *from, const struct timetable *to, uint64_t name_hash,
                int64_t from_s, int64_t now_ms, struct handover *ret) {
    int64_t now_s = now_ms / 1000, at = from_s;
    uint32_t steps = 0;

    ASSERT(from && to && ret);
    *ret = (struct handover){.watermark_s = from_s};
    if (now_s <= from_s)
        return 0; /* the clock was set back: all up to here has its outcome */
    ret->watermark_s = begin(from, to, name_hash, from_s, now_ms, &steps);
    while ((at = next_tick(from, at, now_s, &steps)) != CRON_NEVER) {
        if (at > ret->watermark_s && has(to, at, &steps))
            continue;
        if (ret->count++ == 0)
            ret->first_s = at;
        ret->last_s = at;
    }
    return steps >= HANDOVER_STEPS_MAX;
}
