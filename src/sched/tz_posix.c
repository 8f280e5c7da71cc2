/* The POSIX TZ rule of a TZif footer (POSIX.1 8.3 as extended by RFC 9636 section 3.3.2: hours from
 * -167 to 167 in a rule's time), unrolled into changes. */
#include "sched/tz.h"

#include <string.h>

#include "sched/civil.h"

#define UNROLL_FROM_YEAR 1900

/* When in a year a change happens: as written in the rule. */
struct posix_date {
    enum { DATE_JULIAN_NO_LEAP, DATE_DAY_OF_YEAR, DATE_MONTH_WEEK } kind;
    int32_t day; /* Jn: 1-365; n: 0-365; M: weekday 0-6 */
    int32_t month, week;
    int32_t time; /* seconds after local midnight, may be negative */
};

struct posix_rule {
    struct tz_change std, dst;
    bool has_dst;
    struct posix_date start, end;
};

struct posix_text {
    const char *s;
    size_t len, at;
    struct errtext *reterr;
};

static int bad(const struct posix_text *t, const char *want) {
    errtext_set(t->reterr, "time zone rule \"%.*s\", column %zu: expected %s",
                (int) MIN(t->len, (size_t) 80), t->s, t->at + 1, want);
    return ERR_PROTO;
}

static char peek(const struct posix_text *t) {
    return t->at < t->len ? t->s[t->at] : '\0';
}

static bool take_char(struct posix_text *t, char c) {
    if (peek(t) != c)
        return false;
    t->at++;
    return true;
}

static int read_number(struct posix_text *t, int32_t min, int32_t max, const char *what,
                       int32_t *ret) {
    int32_t n = 0;
    size_t digits = 0;

    while (peek(t) >= '0' && peek(t) <= '9' && digits < 4) {
        n = n * 10 + (t->s[t->at++] - '0');
        digits++;
    }
    if (digits == 0 || n < min || n > max)
        return bad(t, what);
    *ret = n;
    return 0;
}

static int read_name(struct posix_text *t, char *out, size_t out_bytes) {
    bool quoted = take_char(t, '<');
    size_t n = 0;

    for (;;) {
        char c = peek(t);
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        bool other = (c >= '0' && c <= '9') || c == '+' || c == '-';

        if (!(letter || (quoted && other)))
            break;
        if (n + 1 >= out_bytes)
            return bad(t, "a shorter name");
        out[n++] = c;
        t->at++;
    }
    out[n] = '\0';
    if (n < 3 || (quoted && !take_char(t, '>')))
        return bad(t, "a name of three or more letters");
    return 0;
}

/* [+-]hh[:mm[:ss]] in seconds. */
static int read_time(struct posix_text *t, int32_t hours_max, int32_t *ret) {
    int32_t sign = 1, hours = 0, minutes = 0, seconds = 0;
    int rc;

    if (take_char(t, '-'))
        sign = -1;
    else
        (void) take_char(t, '+');
    rc = read_number(t, 0, hours_max, "hours", &hours);
    if (rc == 0 && take_char(t, ':'))
        rc = read_number(t, 0, 59, "minutes", &minutes);
    if (rc == 0 && take_char(t, ':'))
        rc = read_number(t, 0, 59, "seconds", &seconds);
    *ret = sign * (hours * 3600 + minutes * 60 + seconds);
    return rc;
}

static int read_date(struct posix_text *t, struct posix_date *d) {
    int rc;

    if (!take_char(t, ','))
        return bad(t, "','");
    d->time = 2 * 3600;
    if (take_char(t, 'J')) {
        d->kind = DATE_JULIAN_NO_LEAP;
        rc = read_number(t, 1, 365, "a day from 1 to 365", &d->day);
    } else if (take_char(t, 'M')) {
        d->kind = DATE_MONTH_WEEK;
        rc = read_number(t, 1, 12, "a month", &d->month);
        if (rc == 0 && !take_char(t, '.'))
            rc = bad(t, "'.'");
        if (rc == 0)
            rc = read_number(t, 1, 5, "a week from 1 to 5", &d->week);
        if (rc == 0 && !take_char(t, '.'))
            rc = bad(t, "'.'");
        if (rc == 0)
            rc = read_number(t, 0, 6, "a weekday from 0 to 6", &d->day);
    } else {
        d->kind = DATE_DAY_OF_YEAR;
        rc = read_number(t, 0, 365, "a day, 'J' or 'M'", &d->day);
    }
    if (rc == 0 && take_char(t, '/'))
        rc = read_time(t, 167, &d->time);
    return rc;
}

static int read_rule(struct posix_text *t, struct posix_rule *r) {
    int rc = read_name(t, r->std.abbrev, sizeof(r->std.abbrev));

    if (rc == 0)
        rc = read_time(t, 24, &r->std.offset);
    if (rc < 0)
        return rc;
    r->std.offset = -r->std.offset; /* POSIX counts westwards */
    r->std.dst = false;
    r->has_dst = t->at < t->len;
    if (!r->has_dst)
        return 0;
    rc = read_name(t, r->dst.abbrev, sizeof(r->dst.abbrev));
    if (rc < 0)
        return rc;
    r->dst.dst = true;
    r->dst.offset = r->std.offset + 3600;
    if (peek(t) != ',') {
        rc = read_time(t, 24, &r->dst.offset);
        if (rc < 0)
            return rc;
        r->dst.offset = -r->dst.offset;
    }
    rc = read_date(t, &r->start);
    if (rc == 0)
        rc = read_date(t, &r->end);
    if (rc == 0 && t->at < t->len)
        rc = bad(t, "the end");
    return rc;
}

/* Local seconds at which the date's change happens in @year, by the clock in force before it. */
static int64_t date_local(const struct posix_date *d, int32_t year) {
    int64_t days = civil_days(year, 1, 1);

    switch (d->kind) {
    case DATE_JULIAN_NO_LEAP: /* February 29 is never counted */
        days += d->day - 1 + (civil_is_leap(year) && d->day > 59 ? 1 : 0);
        break;
    case DATE_DAY_OF_YEAR:
        days += d->day;
        break;
    case DATE_MONTH_WEEK: {
        int64_t first = civil_days(year, (uint8_t) d->month, 1);
        int32_t weekday = civil_of(first * CIVIL_SECONDS_PER_DAY).weekday;
        int32_t day = (d->day - weekday + 7) % 7 + (d->week - 1) * 7;

        while (day >= civil_month_days(year, (uint8_t) d->month))
            day -= 7; /* week 5 is the last one */
        days = first + day;
        break;
    }
    }
    return days * CIVIL_SECONDS_PER_DAY + d->time;
}

/* ERR_PROTO: the change lies before the last one, as when summer ends after the next one began. */
static int append_after(struct tz *z, size_t *cap, struct tz_change c, int64_t at, int64_t after) {
    if (at <= after)
        return 0;
    if (z->count > 0 && at < z->changes[z->count - 1].at)
        return ERR_PROTO;
    c.at = at;
    return tz_append(z, cap, &c);
}

int tz_posix_append(struct tz *z, size_t *cap, struct slice rule, int64_t after,
                    struct errtext *reterr) {
    struct posix_text t = {.s = (const char *) rule.data, .len = rule.len, .reterr = reterr};
    struct posix_rule r = {0};
    int rc = read_rule(&t, &r);

    if (rc < 0)
        return rc;
    if (!r.has_dst)
        return after == INT64_MIN ? tz_append(z, cap, &r.std)
                                  : append_after(z, cap, r.std, after + 1, after);
    for (int32_t year = UNROLL_FROM_YEAR; rc == 0 && year < TZ_YEAR_MAX; year++) {
        int64_t start = date_local(&r.start, year) - r.std.offset;
        int64_t end = date_local(&r.end, year) - r.dst.offset;

        /* In the south summer spans the new year: the end comes first. */
        rc = append_after(z, cap, start < end ? r.dst : r.std, MIN(start, end), after);
        if (rc == 0)
            rc = append_after(z, cap, start < end ? r.std : r.dst, MAX(start, end), after);
    }
    if (rc == ERR_PROTO)
        errtext_set(reterr, "rule \"%.*s\": a change comes after the next year's",
                    (int) MIN(t.len, 100), t.s);
    return rc;
}
