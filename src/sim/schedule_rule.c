/* When a definition is due, second by second (semantics.md C3-C8). See schedule_model.h. */
#include "sim/schedule_model.h"

#include <stdlib.h>
#include <string.h>

#define DAY_S 86400

/* ---- reading --------------------------------------------------------------------------------- */

static bool read_field(const char *text, bool *ret_any, unsigned *ret_lo, unsigned *ret_hi) {
    *ret_any = strcmp(text, "*") == 0;
    return *ret_any || sscanf(text, "%u-%u", ret_lo, ret_hi) == 2;
}

static bool read_expression(const char *text, struct rule_expression *x) {
    char minute[16] = "", hour[16] = "";
    long long every = 0, phase = 0;

    *x = (struct rule_expression){0};
    if (strcmp(text, "@manual") == 0) {
        x->manual = true;
        return true;
    }
    if (sscanf(text, "@every %llds/%llds", &every, &phase) >= 1) {
        x->every = true;
        x->every_s = every;
        x->phase_s = phase;
        return every > 0;
    }
    return sscanf(text, "*/%u %15s %15s * * *", &x->second_step, minute, hour) == 3 &&
           read_field(minute, &x->any_minute, &x->minute_lo, &x->minute_hi) &&
           read_field(hour, &x->any_hour, &x->hour_lo, &x->hour_hi);
}

bool rule_read(const Chronos__V1__ScheduleSpec *spec, struct rule *ret) {
    *ret = (struct rule){.count = spec->n_cron,
                         .start_ms = spec->start_ms,
                         .end_ms = spec->end_ms,
                         .dst = (int) spec->dst,
                         .central_europe = strcmp(spec->time_zone, "Sim/Central") == 0,
                         .delay_max_ms = spec->spread_ms + spec->jitter_ms,
                         .missed = (int) spec->missed,
                         .window_ms = spec->catchup_window_ms ? spec->catchup_window_ms : 3600000};
    if (spec->n_cron == 0 || spec->n_cron > RULE_EXPRESSIONS_MAX || spec->n_exclude > 1)
        return false;
    for (size_t i = 0; i < spec->n_cron; i++)
        if (!read_expression(spec->cron[i], &ret->expressions[i]))
            return false;
    return spec->n_exclude == 0 ||
           sscanf(spec->exclude[0], "*/%u * * * *", &ret->exclude_step) == 1;
}

/* ---- local time ------------------------------------------------------------------------------ */

static bool leap(int64_t year) {
    return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
}

static int64_t days_of_year(int64_t year) {
    return leap(year) ? 366 : 365;
}

/* Days since 1970 of the last Sunday of a month of 31 days that begins @day_of_year. */
static int64_t last_sunday(int64_t new_year, int64_t day_of_year) {
    int64_t last = new_year + day_of_year + 30;

    return last - (last + 4) % 7; /* day 0 was a Thursday; Sunday = 0 */
}

int64_t rule_central_europe_offset(int64_t at_s) {
    int64_t day = at_s / DAY_S, year = 1970, new_year = 0, begin, end;

    while (new_year + days_of_year(year) <= day)
        new_year += days_of_year(year++);
    begin = last_sunday(new_year, 31 + 28 + leap(year)) * DAY_S + 3600;
    end = last_sunday(new_year, 31 + 28 + leap(year) + 31 + 30 + 31 + 30 + 31 + 31 + 30) * DAY_S +
          3600;
    return at_s >= begin && at_s < end ? 7200 : 3600;
}

static int64_t offset_at(const struct rule *r, int64_t at_s) {
    return r->central_europe ? rule_central_europe_offset(at_s) : 0;
}

static bool names(const struct rule_expression *x, int64_t local_s) {
    unsigned s = (unsigned) (local_s % DAY_S), hour = s / 3600, minute = s / 60 % 60;

    return s % 60 % x->second_step == 0 &&
           (x->any_minute || (minute >= x->minute_lo && minute <= x->minute_hi)) &&
           (x->any_hour || (hour >= x->hour_lo && hour <= x->hour_hi));
}

/* Some time that the clock jumped over just now. */
static bool named_in_gap(const struct rule_expression *x, int64_t at_s, int64_t before,
                         int64_t after) {
    for (int64_t local = at_s + before; local < at_s + after; local++)
        if (names(x, local))
            return true;
    return false;
}

static bool fires(const struct rule *r, const struct rule_expression *x, int64_t at_s) {
    bool once =
        r->dst == CHRONOS__V1__DST_POLICY__DST_POLICY_ONCE && !x->any_minute && !x->any_hour;
    bool no_repeats = once || r->dst == CHRONOS__V1__DST_POLICY__DST_POLICY_SKIP_REPEAT;
    int64_t now, before;

    if (x->manual)
        return false;
    if (x->every)
        return (at_s - x->phase_s) % x->every_s == 0;
    if (!r->central_europe)
        return names(x, at_s);
    now = offset_at(r, at_s);
    before = offset_at(r, at_s - 1);
    if (once && now > before && named_in_gap(x, at_s, before, now))
        return true;
    if (!names(x, at_s + now))
        return false;
    return !(no_repeats && offset_at(r, at_s - 3600) > now); /* this hour was there already */
}

bool rule_is_tick(const struct rule *r, int64_t at_s) {
    bool any = false;

    if ((r->start_ms != 0 && at_s * 1000 < r->start_ms) ||
        (r->end_ms != 0 && at_s * 1000 >= r->end_ms))
        return false;
    for (size_t i = 0; i < r->count; i++)
        any = any || fires(r, &r->expressions[i], at_s);
    return any &&
           (r->exclude_step == 0 || (at_s + offset_at(r, at_s)) / 60 % 60 % r->exclude_step != 0);
}

bool rule_same_ticks(const struct rule *a, const struct rule *b) {
    bool same = a->count == b->count && a->exclude_step == b->exclude_step &&
                a->start_ms == b->start_ms && a->end_ms == b->end_ms && a->dst == b->dst &&
                a->central_europe == b->central_europe && a->delay_max_ms == b->delay_max_ms;

    for (size_t i = 0; same && i < a->count; i++) {
        const struct rule_expression *x = &a->expressions[i], *y = &b->expressions[i];

        same = x->every == y->every && x->manual == y->manual && x->every_s == y->every_s &&
               x->phase_s == y->phase_s && x->second_step == y->second_step &&
               x->any_minute == y->any_minute && x->any_hour == y->any_hour &&
               x->minute_lo == y->minute_lo && x->minute_hi == y->minute_hi &&
               x->hour_lo == y->hour_lo && x->hour_hi == y->hour_hi;
    }
    return same;
}

uint64_t rule_count(const struct rule *r, int64_t from_s, int64_t to_s) {
    uint64_t n = 0;

    for (int64_t at = from_s; at <= to_s; at++)
        n += rule_is_tick(r, at);
    return n;
}
