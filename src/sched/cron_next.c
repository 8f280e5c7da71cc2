/* The calendar search. Time is cut at the zone's changes into stretches of one offset; within a
 * stretch local time is UTC plus a constant, so a match is found by plain calendar arithmetic and
 * the result can only grow (C7). Both loops are bounded: by the changes of the zone and by the
 * months up to CRON_YEAR_MAX. */
#include <string.h>

#include "sched/civil.h"
#include "sched/cron_internal.h"

/* A gap up to this long moves a fixed-time run to its end; a longer one is a day that the zone
 * never had (Apia 2011-12-30), and nothing of it is made up for (C6). */
#define GAP_MAX_S (3 * 3600)

/* Lowest set bit at or above @from; -1 when there is none. */
static int next_bit(uint64_t bits, uint32_t from) {
    if (from >= 64)
        return -1;
    bits &= UINT64_MAX << from;
    return bits ? __builtin_ctzll(bits) : -1;
}

static int32_t next_year(const struct cron_times *t, int32_t from) {
    uint32_t at = from < CRON_YEAR_MIN ? 0 : (uint32_t) (from - CRON_YEAR_MIN);

    while (at < 256) {
        int bit = next_bit(t->years[at / 64], at % 64);

        if (bit >= 0)
            return CRON_YEAR_MIN + (int32_t) (at / 64 * 64) + bit;
        at = (at / 64 + 1) * 64;
    }
    return CRON_YEAR_MAX + 1;
}

/* Days of the month that match, as bits 1-31 (C2: one of the two, when both are restricted). */
static uint32_t month_mask(const struct cron_times *t, int32_t year, uint8_t month) {
    const uint64_t weeks = 1ULL | 1ULL << 7 | 1ULL << 14 | 1ULL << 21 | 1ULL << 28;
    uint32_t first = civil_of(civil_days(year, month, 1) * CIVIL_SECONDS_PER_DAY).weekday;
    /* Rotated so that bit 0 is the weekday of day 1, and repeated. */
    uint64_t pattern = (uint64_t) ((t->weekdays >> first | t->weekdays << (7 - first)) & 0x7f);
    uint32_t by_weekday = (uint32_t) (pattern * weeks << 1);
    bool either = !t->and_days && !t->day_star && !t->weekday_star;
    uint32_t mask = either ? t->days | by_weekday : t->days & by_weekday;

    return mask & (uint32_t) ((1ULL << (civil_month_days(year, month) + 1)) - 2);
}

/* Move @c to the first matching time of day at or after its own. 0, or 1 = none left that day. */
static int next_time(const struct cron_times *t, struct civil *c) {
    int second = next_bit(t->seconds, c->second);
    int minute = next_bit(t->minutes, c->minute + (second < 0 ? 1U : 0U));
    int hour;

    if (minute != c->minute)
        second = next_bit(t->seconds, 0);
    hour = next_bit(t->hours, c->hour + (minute < 0 ? 1U : 0U));
    if (hour < 0)
        return 1;
    if (hour != c->hour) {
        minute = next_bit(t->minutes, 0);
        second = next_bit(t->seconds, 0);
    }
    c->hour = (uint8_t) hour;
    c->minute = (uint8_t) minute;
    c->second = (uint8_t) second;
    return 0;
}

static void begin_of_day(struct civil *c) {
    c->hour = c->minute = c->second = 0;
}

/* The first matching local second at or after @from; CRON_NEVER. */
static int64_t next_local(const struct cron_times *t, int64_t from) {
    struct civil c = civil_of(from);

    for (;;) {
        int32_t year = next_year(t, c.year);
        int month, day;

        if (year > CRON_YEAR_MAX)
            return CRON_NEVER;
        if (year != c.year) {
            c.year = year;
            c.month = c.day = 1;
            begin_of_day(&c);
        }
        month = next_bit(t->months, c.month);
        if (month < 0) {
            c.year++;
            c.month = c.day = 1;
            begin_of_day(&c);
            continue;
        }
        if (month != c.month) {
            c.month = (uint8_t) month;
            c.day = 1;
            begin_of_day(&c);
        }
        day = next_bit(month_mask(t, c.year, c.month), c.day);
        if (day >= 0 && day != c.day) {
            c.day = (uint8_t) day;
            begin_of_day(&c);
        }
        if (day >= 0 && next_time(t, &c) == 0)
            return civil_seconds(&c);
        begin_of_day(&c);
        if (day >= 0 && c.day < civil_month_days(c.year, c.month)) {
            c.day++;
            continue;
        }
        c.day = 1;
        if (c.month == 12)
            c.year++;
        c.month = c.month == 12 ? 1 : (uint8_t) (c.month + 1);
    }
}

/* One stretch of constant offset, and the one before it. */
struct stretch {
    int64_t begin, end; /* UTC; end exclusive */
    int64_t offset;
    bool has_before;
    int64_t before_begin, before_offset;
};

static struct stretch stretch_at(const struct tz *zone, size_t i) {
    const struct tz_change *c = &zone->changes[i];
    struct stretch s = {.begin = c->at, .end = INT64_MAX, .offset = c->offset};

    if (i + 1 < zone->count)
        s.end = zone->changes[i + 1].at;
    if (i > 0) {
        s.has_before = true;
        s.before_begin = c[-1].at;
        s.before_offset = c[-1].offset;
    }
    return s;
}

/* A fixed-time run within the hour that the clock jumped over fires at the jump. */
static bool moved_to_jump(const struct cron_times *t, const struct stretch *s) {
    int64_t gap = s->offset - s->before_offset;

    return s->has_before && gap > 0 && gap <= GAP_MAX_S &&
           next_local(t, s->begin + s->before_offset) < s->begin + s->offset;
}

/* The first match in the stretch at or after @from (UTC) that the policy lets fire. */
static int64_t next_in_stretch(const struct cron_times *t, const struct stretch *s, bool no_repeats,
                               int64_t from) {
    int64_t local = next_local(t, from + s->offset);

    if (no_repeats && s->has_before && s->offset < s->before_offset) {
        int64_t repeat_end = s->begin + s->before_offset;
        int64_t repeat_begin = s->begin + s->offset;

        if (s->before_begin != INT64_MIN) /* only what the stretch before really showed */
            repeat_begin = MAX(repeat_begin, s->before_begin + s->before_offset);
        if (local >= repeat_begin && local < repeat_end)
            local = next_local(t, repeat_end);
    }
    if (local == CRON_NEVER)
        return CRON_NEVER;
    return local - s->offset < s->end ? local - s->offset : CRON_NEVER;
}

static int64_t next_calendar(const struct cron_times *t, const struct tz *zone, enum cron_dst dst,
                             int64_t start, enum cron_note *ret_note) {
    bool fixed = dst == CRON_DST_ONCE && !t->follows_clock;
    bool no_repeats = fixed || dst == CRON_DST_SKIP_REPEAT;

    if (!zone)
        return next_local(t, start);
    for (size_t i = tz_find(zone, start); i < zone->count; i++) {
        struct stretch s = stretch_at(zone, i);
        int64_t at;

        if (fixed && s.begin >= start && moved_to_jump(t, &s)) {
            *ret_note = CRON_NOTE_MOVED;
            return s.begin;
        }
        at = next_in_stretch(t, &s, no_repeats, MAX(start, s.begin));
        if (at != CRON_NEVER)
            return at;
    }
    return CRON_NEVER;
}

static int64_t next_every(const struct cron_times *t, int64_t after) {
    int64_t n = (after - t->phase_s) / t->every_s;

    if (after < t->phase_s && (after - t->phase_s) % t->every_s != 0)
        n--; /* division rounds towards zero */
    return (n + 1) * t->every_s + t->phase_s;
}

int64_t cron_next(const struct cron_times *t, const struct tz *zone, enum cron_dst dst,
                  int64_t after, enum cron_note *ret_note) {
    const int64_t last = civil_days(CRON_YEAR_MAX + 1, 1, 2) * CIVIL_SECONDS_PER_DAY;
    enum cron_note note = CRON_NOTE_NONE;
    int64_t at = CRON_NEVER;

    ASSERT(t);
    if (after < -1)
        after = -1;
    if (after < last) {
        switch (t->kind) {
        case CRON_CALENDAR:
            at = next_calendar(t, zone, dst, after + 1, &note);
            break;
        case CRON_EVERY:
            at = next_every(t, after);
            break;
        case CRON_AT:
            at = t->at_s > after ? t->at_s : CRON_NEVER;
            break;
        case CRON_MANUAL:
            break;
        }
    }
    ASSERT(at > after);
    if (ret_note)
        *ret_note = note;
    return at;
}

static bool calendar_matches(const struct cron_times *t, int64_t local, bool whole_minute) {
    struct civil c = civil_of(local);

    if (c.year < CRON_YEAR_MIN || c.year > CRON_YEAR_MAX || next_year(t, c.year) != c.year)
        return false;
    return (t->months >> c.month & 1) && (month_mask(t, c.year, c.month) >> c.day & 1) &&
           (t->hours >> c.hour & 1) && (t->minutes >> c.minute & 1) &&
           (whole_minute || (t->seconds >> c.second & 1));
}

bool cron_matches(const struct cron_times *t, const struct tz *zone, int64_t at,
                  bool whole_minute) {
    int64_t minute = at - at % 60;

    ASSERT(t);
    if (at < 0)
        return false; /* no tick is that old */
    switch (t->kind) {
    case CRON_CALENDAR:
        return calendar_matches(t, at + (zone ? zone->changes[tz_find(zone, at)].offset : 0),
                                whole_minute);
    case CRON_EVERY:
        return whole_minute ? next_every(t, minute - 1) < minute + 60 : next_every(t, at - 1) == at;
    case CRON_AT:
        return whole_minute ? t->at_s >= minute && t->at_s < minute + 60 : t->at_s == at;
    case CRON_MANUAL:
        break;
    }
    return false;
}

int64_t cron_next_suppressed(const struct cron_times *t, const struct tz *zone, enum cron_dst dst,
                             int64_t after, int64_t until) {
    for (;;) {
        int64_t shown = cron_next(t, zone, CRON_DST_LITERAL, after, NULL);
        int64_t fired = cron_next(t, zone, dst, after, NULL);

        if (MIN(shown, fired) >= until)
            return CRON_NEVER;
        if (shown < fired)
            return shown;
        after = fired;
    }
}
