/* Expression to an English sentence, from its compiled times: what it says is what will happen. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "sched/civil.h"
#include "sched/cron_internal.h"

#define TIMES_LISTED_MAX 6

struct out {
    char *s;
    size_t len, cap;
};

static void put(struct out *o, const char *fmt, ...) _printf_(2, 3);

static void put(struct out *o, const char *fmt, ...) {
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(o->s + o->len, o->cap - o->len, fmt, ap);
    va_end(ap);
    if (n > 0)
        o->len = MIN(o->len + (size_t) n, o->cap - 1); /* cut at the caller's buffer */
}

static const char *const month_names[] = {"",        "January",  "February", "March",  "April",
                                          "May",     "June",     "July",     "August", "September",
                                          "October", "November", "December"};
static const char *const weekday_names[] = {"Sunday",   "Monday", "Tuesday", "Wednesday",
                                            "Thursday", "Friday", "Saturday"};

static void put_value(struct out *o, enum cron_field f, uint32_t v) {
    if (f == CRON_MONTH)
        put(o, "%s", month_names[v]);
    else if (f == CRON_WEEKDAY)
        put(o, "%s", weekday_names[v]);
    else
        put(o, "%u", v);
}

static uint32_t bits_count(uint64_t bits) {
    return (uint32_t) __builtin_popcountll(bits);
}

/* "1, 3 to 5 and 9": runs of three and more as ranges. */
static void put_set(struct out *o, enum cron_field f, uint64_t bits) {
    bool first = true;

    while (bits) {
        uint32_t lo = (uint32_t) __builtin_ctzll(bits), hi = lo;

        while (hi < 63 && (bits >> (hi + 1) & 1))
            hi++;
        if (hi - lo < 2)
            hi = lo;
        bits &= hi == 63 ? 0 : UINT64_MAX << (hi + 1);
        if (!first)
            put(o, bits ? ", " : " and ");
        first = false;
        put_value(o, f, lo);
        if (hi > lo) {
            put(o, " to ");
            put_value(o, f, hi);
        }
    }
}

/* The step of a set that is lo, lo+step, ... up to the field's end; 0 when it is none. */
static uint32_t step_of(uint64_t bits, uint32_t field_end) {
    uint32_t lo, step;

    if (bits_count(bits) < 2)
        return 0;
    lo = (uint32_t) __builtin_ctzll(bits);
    step = (uint32_t) __builtin_ctzll(bits & (bits - 1)) - lo;
    if (lo >= step)
        return 0;
    for (uint32_t v = 0; v <= field_end; v++)
        if ((bits >> v & 1) != (v >= lo && (v - lo) % step == 0))
            return 0;
    return step;
}

static void put_clock_list(struct out *o, const struct cron_times *t) {
    uint32_t left = bits_count(t->hours) * bits_count(t->minutes) * bits_count(t->seconds);
    uint32_t all = left;

    put(o, "at ");
    for (uint32_t h = 0; h < 24; h++)
        for (uint32_t m = 0; m < 60; m++)
            for (uint32_t s = 0; s < 60; s++) {
                if (!(t->hours >> h & 1) || !(t->minutes >> m & 1) || !(t->seconds >> s & 1))
                    continue;
                if (left < all)
                    put(o, left == 1 ? " and " : ", ");
                left--;
                put(o, "%02u:%02u", h, m);
                if (t->seconds != 1)
                    put(o, ":%02u", s);
            }
}

static void put_hours(struct out *o, const struct cron_times *t, bool whole_hours) {
    uint64_t all = (1ULL << 24) - 1, bits = t->hours;
    uint32_t lo = (uint32_t) __builtin_ctzll(bits), n = bits_count(bits);
    uint32_t step = step_of(bits, 23);

    if (bits == all) {
        put(o, whole_hours ? "" : " of every hour");
    } else if (step > 1) {
        put(o, whole_hours ? " during every %u%s hour" : " of every %u%s hour", step,
            step == 2   ? "nd"
            : step == 3 ? "rd"
                        : "th");
        if (lo > 0)
            put(o, " from %02u:00", lo);
    } else if (bits == ((1ULL << n) - 1) << lo && whole_hours) {
        put(o, " from %02u:00 to %02u:59", lo, lo + n - 1);
    } else {
        put(o, whole_hours ? " during hour%s " : " of hour%s ", n > 1 ? "s" : "");
        put_set(o, CRON_HOUR, bits);
    }
}

static void put_seconds(struct out *o, const struct cron_times *t) {
    uint64_t all = (1ULL << 60) - 1;
    uint32_t step = step_of(t->seconds, 59);

    if (t->seconds == all) {
        put(o, "every second");
    } else if (step > 0) {
        put(o, "every %u seconds", step);
        if (!(t->seconds & 1))
            put(o, " from second %u", (uint32_t) __builtin_ctzll(t->seconds));
    } else {
        put(o, "at second%s ", bits_count(t->seconds) > 1 ? "s" : "");
        put_set(o, CRON_SECOND, t->seconds);
    }
}

static void put_time(struct out *o, const struct cron_times *t) {
    uint64_t all = (1ULL << 60) - 1;
    uint32_t step = step_of(t->minutes, 59);
    bool whole_hours = t->minutes == all || step > 0;

    if (bits_count(t->hours) * bits_count(t->minutes) * bits_count(t->seconds) <=
        TIMES_LISTED_MAX) {
        put_clock_list(o, t);
        return;
    }
    if (t->seconds != 1) {
        put_seconds(o, t);
        if (t->minutes == all && t->hours == (1U << 24) - 1)
            return;
        put(o, t->minutes == all ? "," : " of ");
    }
    if (t->minutes == all) {
        put(o, t->seconds == 1 ? "every minute" : "");
    } else if (step > 0) {
        put(o, t->seconds == 1 ? "every %u minutes" : "every %uth minute", step);
        if (!(t->minutes & 1))
            put(o, " from minute %u", (uint32_t) __builtin_ctzll(t->minutes));
    } else {
        put(o, "%sminute%s ", t->seconds == 1 ? "at " : "", bits_count(t->minutes) > 1 ? "s" : "");
        put_set(o, CRON_MINUTE, t->minutes);
    }
    put_hours(o, t, whole_hours);
}

static void put_weekdays(struct out *o, uint8_t bits) {
    if ((bits & 0x41) == 0x41 && bits_count(bits) == 2)
        put(o, "Saturday and Sunday");
    else
        put_set(o, CRON_WEEKDAY, bits);
}

static void put_days(struct out *o, const struct cron_times *t) {
    bool all_days = t->days == 0xfffffffeU, all_weekdays = t->weekdays == 0x7f;
    bool either = !t->and_days && !t->day_star && !t->weekday_star;

    if (either && (all_days || all_weekdays))
        all_days = all_weekdays = true; /* one of the two always matches */
    if (!all_days) {
        put(o, ", on day%s ", bits_count(t->days) > 1 ? "s" : "");
        put_set(o, CRON_DAY, t->days);
        put(o, " of the month");
    }
    if (!all_weekdays) {
        put(o, all_days ? ", " : either ? " or on " : " if it is ");
        put_weekdays(o, t->weekdays);
    }
}

static void put_years(struct out *o, const struct cron *c) {
    bool first = true;

    if (c->fields < 7 || c->items[CRON_YEAR][0].star)
        return;
    put(o, ", in ");
    for (size_t i = 0; i < c->items_count[CRON_YEAR]; i++) {
        const struct cron_item *it = &c->items[CRON_YEAR][i];

        put(o, first ? "" : ", ");
        first = false;
        put(o, it->hi > it->lo ? "%u to %u" : "%u", it->lo, it->hi);
        if (it->step > 1)
            put(o, " every %u years", it->step);
    }
}

static void put_duration(struct out *o, int64_t seconds) {
    static const struct {
        int64_t seconds;
        const char *unit;
    } units[] = {{86400, "day"}, {3600, "hour"}, {60, "minute"}, {1, "second"}};
    bool first = true;

    for (size_t i = 0; i < ARRAY_LEN(units); i++) {
        int64_t n = seconds / units[i].seconds;

        if (n == 0)
            continue;
        put(o, "%s%lld %s%s", first ? "" : " ", (long long) n, units[i].unit, n > 1 ? "s" : "");
        first = false;
        seconds %= units[i].seconds;
    }
}

void cron_describe(const struct cron *c, char *out, size_t out_bytes) {
    struct out o = {.s = out, .cap = out_bytes};
    const struct cron_times *t = &c->times;
    struct civil d;

    ASSERT(out_bytes > 0);
    out[0] = '\0';
    switch (t->kind) {
    case CRON_CALENDAR:
        put_time(&o, t);
        put_days(&o, t);
        if (t->months != 0x1ffe) {
            put(&o, ", in ");
            put_set(&o, CRON_MONTH, t->months);
        }
        put_years(&o, c);
        break;
    case CRON_EVERY:
        put(&o, "every ");
        put_duration(&o, t->every_s);
        if (t->phase_s > 0) {
            put(&o, ", ");
            put_duration(&o, t->phase_s);
            put(&o, " after each multiple of it");
        }
        break;
    case CRON_AT:
        d = civil_of(t->at_s);
        put(&o, "once, at %04d-%02d-%02d %02d:%02d:%02d UTC", d.year, d.month, d.day, d.hour,
            d.minute, d.second);
        break;
    case CRON_MANUAL:
        put(&o, "only when triggered");
        break;
    }
}
