/* Text to expression. Each refusal names the column and what is allowed there. */
#include <string.h>

#include "sched/civil.h"
#include "sched/cron_internal.h"

const struct cron_field_info cron_field_info[CRON_FIELDS] = {
    [CRON_SECOND] = {"second", 0, 59, 59},
    [CRON_MINUTE] = {"minute", 0, 59, 59},
    [CRON_HOUR] = {"hour", 0, 23, 23},
    [CRON_DAY] = {"day of the month", 1, 31, 28},
    [CRON_MONTH] = {"month", 1, 12, 12},
    [CRON_WEEKDAY] = {"weekday", 0, 7, 6},
    [CRON_YEAR] = {"year", CRON_YEAR_MIN, CRON_YEAR_MAX, 0},
};

static const char month_names[12][4] = {"jan", "feb", "mar", "apr", "may", "jun",
                                        "jul", "aug", "sep", "oct", "nov", "dec"};
static const char weekday_names[7][4] = {"sun", "mon", "tue", "wed", "thu", "fri", "sat"};

struct text {
    const char *s;
    size_t len, at;
    const char *id;
    struct errtext *reterr;
};

static bool is_space(char c) {
    return c == ' ' || c == '\t';
}

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

static char lower(char c) {
    return c >= 'A' && c <= 'Z' ? (char) (c + 32) : c;
}

static bool is_letter(char c) {
    return lower(c) >= 'a' && lower(c) <= 'z';
}

static char peek(const struct text *t) {
    return t->at < t->len ? t->s[t->at] : '\0';
}

static bool take_char(struct text *t, char c) {
    if (t->at >= t->len || t->s[t->at] != c)
        return false;
    t->at++;
    return true;
}

static void skip_spaces(struct text *t) {
    while (is_space(peek(t)))
        t->at++;
}

static int refuse(const struct text *t, size_t at, const char *what) {
    errtext_set(t->reterr, "column %zu: %s", at + 1, what);
    return ERR_CONFIG;
}

static int refuse_value(const struct text *t, size_t at, enum cron_field f) {
    const struct cron_field_info *i = &cron_field_info[f];
    const char *names = f == CRON_MONTH ? " or jan-dec" : f == CRON_WEEKDAY ? " or sun-sat" : "";

    errtext_set(t->reterr,
                "column %zu: the %s is %u-%u%s, '*', a range a-b, a list a,b or a step /n", at + 1,
                i->name, i->min, i->max, names);
    return ERR_CONFIG;
}

/* ---- values ---------------------------------------------------------------------------------- */

/* Digits, at most @max; 1 when there are none or the number is larger. */
static int read_digits(struct text *t, int64_t max, int64_t *ret) {
    int64_t n = 0;
    size_t begin = t->at;

    while (is_digit(peek(t))) {
        n = n * 10 + (t->s[t->at++] - '0');
        if (n > max)
            return 1;
    }
    *ret = n;
    return t->at == begin;
}

static int read_name(struct text *t, enum cron_field f, uint16_t *ret) {
    size_t count = f == CRON_MONTH ? ARRAY_LEN(month_names) : ARRAY_LEN(weekday_names);
    size_t n = 0;

    while (t->at + n < t->len && is_letter(t->s[t->at + n]))
        n++;
    if ((f != CRON_MONTH && f != CRON_WEEKDAY) || n != 3)
        return 1;
    for (size_t i = 0; i < count; i++) {
        const char *name = f == CRON_MONTH ? month_names[i] : weekday_names[i];

        if (lower(t->s[t->at]) == name[0] && lower(t->s[t->at + 1]) == name[1] &&
            lower(t->s[t->at + 2]) == name[2]) {
            t->at += 3;
            *ret = (uint16_t) (i + (f == CRON_MONTH));
            return 0;
        }
    }
    return 1;
}

static int read_value(struct text *t, enum cron_field f, uint16_t *ret) {
    const struct cron_field_info *info = &cron_field_info[f];
    size_t begin = t->at;
    int64_t n = 0;

    if (is_letter(peek(t)) ? read_name(t, f, ret) : read_digits(t, info->max, &n))
        return refuse_value(t, begin, f);
    if (is_letter(t->s[begin]))
        return 0;
    if (n < info->min)
        return refuse_value(t, begin, f);
    *ret = (uint16_t) n;
    return 0;
}

static int read_range_end(struct text *t, enum cron_field f, struct cron_item *it) {
    size_t begin = t->at;
    int rc = read_value(t, f, &it->hi);

    if (rc < 0)
        return rc;
    /* "fri-sun": Sunday ends a range as day 7. */
    if (f == CRON_WEEKDAY && it->hi == 0 && it->lo > 0)
        it->hi = 7;
    if (it->hi < it->lo)
        return refuse(t, begin, "a range runs upwards: its end is below its beginning");
    it->range = true;
    return 0;
}

/* "H" or "H(lo-hi)", after the letter. */
static int read_hashed(struct text *t, enum cron_field f, struct cron_item *it) {
    const struct cron_field_info *info = &cron_field_info[f];
    int rc;

    if (f == CRON_YEAR)
        return refuse(t, t->at - 1, "H is not allowed for the year");
    it->hashed = true;
    it->lo = info->min;
    it->hi = info->hash_max;
    if (!take_char(t, '('))
        return 0;
    rc = read_value(t, f, &it->lo);
    if (rc < 0)
        return rc;
    if (!take_char(t, '-'))
        return refuse(t, t->at, "H takes a range in brackets: H(0-29)");
    rc = read_range_end(t, f, it);
    if (rc == 0 && !take_char(t, ')'))
        rc = refuse(t, t->at, "')' is missing after H's range");
    return rc;
}

static int read_step(struct text *t, enum cron_field f, struct cron_item *it) {
    size_t begin = t->at;
    int64_t n = 0;

    if (!it->star && !it->range && !it->hashed)
        it->hi = cron_field_info[f].max; /* "5/15": from 5 on */
    if (read_digits(t, 9999, &n) || n == 0)
        return refuse(t, begin, "a step is a number from 1");
    if (n > it->hi - it->lo && n > 1) {
        errtext_set(t->reterr,
                    "column %zu: step %lld is longer than its range %u-%u and would fire once in "
                    "it; use @every for other intervals",
                    begin + 1, (long long) n, it->lo, it->hi);
        return ERR_CONFIG;
    }
    it->step = (uint16_t) n;
    return 0;
}

static int read_item(struct text *t, enum cron_field f, struct cron_item *it) {
    const struct cron_field_info *info = &cron_field_info[f];
    char next = t->at + 1 < t->len ? t->s[t->at + 1] : '\0';
    int rc = 0;

    *it = (struct cron_item){.lo = info->min, .hi = info->max};
    if (take_char(t, '*') || take_char(t, '?')) {
        it->star = true;
        if (f == CRON_WEEKDAY)
            it->hi = 6;
    } else if (lower(peek(t)) == 'h' && !is_letter(next)) {
        t->at++;
        rc = read_hashed(t, f, it);
    } else {
        rc = read_value(t, f, &it->lo);
        it->hi = it->lo;
        if (rc == 0 && take_char(t, '-'))
            rc = read_range_end(t, f, it);
    }
    if (rc == 0 && take_char(t, '/'))
        rc = read_step(t, f, it);
    return rc;
}

static int read_field(struct text *t, enum cron_field f, struct cron *c) {
    uint8_t *count = &c->items_count[f];

    for (;;) {
        int rc;

        if (*count == CRON_ITEMS_MAX)
            return refuse(t, t->at, "more than 64 members in one list");
        rc = read_item(t, f, &c->items[f][*count]);
        if (rc < 0)
            return rc;
        (*count)++;
        if (!take_char(t, ','))
            break;
    }
    if (t->at < t->len && !is_space(peek(t)))
        return refuse_value(t, t->at, f);
    return 0;
}

/* ---- compiling ------------------------------------------------------------------------------- */

static uint64_t hash_of(const char *id, enum cron_field f) {
    uint64_t h = 14695981039346656037ULL; /* FNV-1a, then a final mix: the same for ever */

    for (const char *p = id; *p; p++)
        h = (h ^ (uint8_t) *p) * 1099511628211ULL;
    h = (h ^ (uint8_t) f) * 1099511628211ULL;
    h ^= h >> 33;
    h *= 0xff51afd7ed558ccdULL;
    h ^= h >> 33;
    return h;
}

static void set_bit(struct cron_times *t, enum cron_field f, uint32_t v) {
    switch (f) {
    case CRON_SECOND:
        t->seconds |= 1ULL << v;
        break;
    case CRON_MINUTE:
        t->minutes |= 1ULL << v;
        break;
    case CRON_HOUR:
        t->hours |= 1U << v;
        break;
    case CRON_DAY:
        t->days |= 1U << v;
        break;
    case CRON_MONTH:
        t->months = (uint16_t) (t->months | 1U << v);
        break;
    case CRON_WEEKDAY:
        t->weekdays = (uint8_t) (t->weekdays | 1U << (v % 7));
        break;
    case CRON_YEAR:
        t->years[(v - CRON_YEAR_MIN) / 64] |= 1ULL << ((v - CRON_YEAR_MIN) % 64);
        break;
    case CRON_FIELDS:
        break;
    }
}

static void compile_item(struct cron_times *t, enum cron_field f, const struct cron_item *it,
                         const char *id) {
    uint32_t lo = it->lo, hi = it->hi, step = it->step ? it->step : 1;

    if (it->hashed) {
        uint32_t among = it->step ? it->step : hi - lo + 1;

        lo += (uint32_t) (hash_of(id, f) % among);
        if (!it->step)
            hi = lo;
    }
    for (uint32_t v = lo; v <= hi; v += step)
        set_bit(t, f, v);
}

static bool begins_with_star(const struct cron *c, enum cron_field f) {
    return c->items[f][0].star;
}

static void compile(struct cron *c, const char *id) {
    struct cron_times *t = &c->times;

    for (enum cron_field f = CRON_SECOND; f < CRON_FIELDS; f++)
        for (size_t i = 0; i < c->items_count[f]; i++)
            compile_item(t, f, &c->items[f][i], id);
    t->day_star = begins_with_star(c, CRON_DAY);
    t->weekday_star = begins_with_star(c, CRON_WEEKDAY);
    t->follows_clock = begins_with_star(c, CRON_MINUTE) || begins_with_star(c, CRON_HOUR);
}

/* A field that was not written. */
static void implied(struct cron *c, enum cron_field f) {
    const struct cron_field_info *info = &cron_field_info[f];

    c->items_count[f] = 1;
    c->items[f][0] = (struct cron_item){.lo = info->min, .hi = info->max, .star = true};
    if (f == CRON_SECOND)
        c->items[f][0] = (struct cron_item){0};
}

static size_t count_fields(const struct text *t) {
    size_t n = 0;

    for (size_t i = t->at; i < t->len; i++)
        n += !is_space(t->s[i]) && (i == t->at || is_space(t->s[i - 1]));
    return n;
}

static int parse_fields(struct text *t, struct cron *c) {
    size_t n = count_fields(t);

    if (n < 5 || n > 7) {
        errtext_set(t->reterr,
                    "column %zu: %zu fields; write 5 (minute hour day month weekday), 6 (second "
                    "first) or 7 (second .. year), or @hourly, @daily, @weekly, @monthly, @yearly, "
                    "@every, @at, @manual",
                    t->at + 1, n);
        return ERR_CONFIG;
    }
    c->times.kind = CRON_CALENDAR;
    c->fields = (uint8_t) n;
    if (n == 5)
        implied(c, CRON_SECOND);
    if (n < 7)
        implied(c, CRON_YEAR);
    for (enum cron_field f = n == 5 ? CRON_MINUTE : CRON_SECOND; n > 0; f++, n--) {
        int rc;

        skip_spaces(t);
        rc = read_field(t, f, c);
        if (rc < 0)
            return rc;
    }
    compile(c, t->id);
    if (cron_next(&c->times, NULL, CRON_DST_LITERAL, -1, NULL) == CRON_NEVER)
        return refuse(t, 0,
                      "no date matches: the month never has that day, or no year has that date");
    return 0;
}

/* ---- the @ forms ----------------------------------------------------------------------------- */

/* "1h30m", "90s", "2d": whole seconds. */
static int read_duration(struct text *t, int64_t *ret) {
    static const struct {
        char unit;
        int64_t seconds;
    } units[] = {{'d', 86400}, {'h', 3600}, {'m', 60}, {'s', 1}};
    size_t begin = t->at, unit = 0;
    int64_t total = 0;

    while (is_digit(peek(t))) {
        int64_t n = 0;

        if (read_digits(t, CRON_EVERY_MAX_S, &n))
            return refuse(t, begin, "an interval is at most 366d");
        while (unit < ARRAY_LEN(units) && units[unit].unit != peek(t))
            unit++;
        if (unit == ARRAY_LEN(units))
            return refuse(t, t->at, "a unit d, h, m or s, the larger first (1h30m)");
        total += n * units[unit++].seconds;
        t->at++;
        if (total > CRON_EVERY_MAX_S)
            return refuse(t, begin, "an interval is at most 366d");
    }
    if (t->at == begin)
        return refuse(t, begin, "an interval like 90s, 15m or 1h30m");
    *ret = total;
    return 0;
}

static int parse_every(struct text *t, struct cron *c) {
    size_t begin = t->at;
    int rc = read_duration(t, &c->times.every_s);

    c->times.kind = CRON_EVERY;
    if (rc < 0)
        return rc;
    if (c->times.every_s < CRON_EVERY_MIN_S)
        return refuse(t, begin, "an interval is at least 1s");
    if (take_char(t, '/')) {
        begin = t->at;
        rc = read_duration(t, &c->times.phase_s);
        if (rc < 0)
            return rc;
        if (c->times.phase_s >= c->times.every_s)
            return refuse(t, begin, "the phase is shorter than the interval");
    }
    return 0;
}

/* Exactly @digits digits. */
static int read_fixed(struct text *t, size_t digits, int64_t min, int64_t max, int64_t *ret) {
    size_t begin = t->at;

    *ret = 0;
    while (is_digit(peek(t)) && t->at - begin < digits)
        *ret = *ret * 10 + (t->s[t->at++] - '0');
    return t->at - begin != digits || *ret < min || *ret > max;
}

static int read_offset(struct text *t, int64_t *ret) {
    int64_t hours = 0, minutes = 0;
    bool west = peek(t) == '-';

    *ret = 0;
    if (take_char(t, 'Z') || take_char(t, 'z'))
        return 0;
    if (!take_char(t, '+') && !take_char(t, '-'))
        return 1;
    if (read_fixed(t, 2, 0, 23, &hours) || !take_char(t, ':') || read_fixed(t, 2, 0, 59, &minutes))
        return 1;
    *ret = (hours * 3600 + minutes * 60) * (west ? -1 : 1);
    return 0;
}

static int parse_at(struct text *t, struct cron *c) {
    static const char want[] = "a time like 2026-11-21T09:00:00Z or 2026-11-21T09:00:00+01:00";
    int64_t year, month, day, hour, minute, second, offset = 0;
    struct civil d;

    c->times.kind = CRON_AT;
    if (read_fixed(t, 4, CRON_YEAR_MIN, CRON_YEAR_MAX, &year) || !take_char(t, '-') ||
        read_fixed(t, 2, 1, 12, &month) || !take_char(t, '-') || read_fixed(t, 2, 1, 31, &day))
        return refuse(t, t->at, want);
    if (day > civil_month_days((int32_t) year, (uint8_t) month))
        return refuse(t, t->at - 2, "the month does not have that day");
    if (!take_char(t, 'T') && !take_char(t, 't') && !take_char(t, ' '))
        return refuse(t, t->at, want);
    if (read_fixed(t, 2, 0, 23, &hour) || !take_char(t, ':') || read_fixed(t, 2, 0, 59, &minute) ||
        !take_char(t, ':') || read_fixed(t, 2, 0, 59, &second))
        return refuse(t, t->at, want);
    if (peek(t) == '.')
        return refuse(t, t->at, "whole seconds: a tick has no fraction");
    if (read_offset(t, &offset))
        return refuse(t, t->at, "Z or an offset like +01:00");
    d = (struct civil){.year = (int32_t) year,
                       .month = (uint8_t) month,
                       .day = (uint8_t) day,
                       .hour = (uint8_t) hour,
                       .minute = (uint8_t) minute,
                       .second = (uint8_t) second};
    c->times.at_s = civil_seconds(&d) - offset;
    return 0;
}

static bool word_is(const struct text *t, const char *word, size_t word_len) {
    size_t n = strlen(word);

    if (word_len != n)
        return false;
    for (size_t i = 0; i < n; i++)
        if (lower(t->s[t->at + i]) != word[i])
            return false;
    return true;
}

static int parse_alias(struct text *t, struct cron *c, size_t word_len) {
    static const struct {
        const char *name, *fields;
    } aliases[] = {{"@yearly", "0 0 1 1 *"}, {"@annually", "0 0 1 1 *"}, {"@monthly", "0 0 1 * *"},
                   {"@weekly", "0 0 * * 0"}, {"@daily", "0 0 * * *"},    {"@midnight", "0 0 * * *"},
                   {"@hourly", "0 * * * *"}};

    for (size_t i = 0; i < ARRAY_LEN(aliases); i++) {
        struct text fields = {.s = aliases[i].fields, .id = t->id, .reterr = t->reterr};

        if (!word_is(t, aliases[i].name, word_len))
            continue;
        fields.len = strlen(fields.s);
        t->at += word_len;
        return parse_fields(&fields, c);
    }
    return refuse(t, t->at,
                  "after '@': yearly, annually, monthly, weekly, daily, midnight, hourly, every "
                  "INTERVAL[/PHASE], at TIME or manual");
}

static int parse_at_form(struct text *t, struct cron *c) {
    size_t n = 0;
    int rc;

    while (t->at + n < t->len && !is_space(t->s[t->at + n]))
        n++;
    if (word_is(t, "@manual", n)) {
        t->at += n;
        c->times.kind = CRON_MANUAL;
        rc = 0;
    } else if (word_is(t, "@every", n) || word_is(t, "@at", n)) {
        bool every = n == strlen("@every");

        t->at += n;
        skip_spaces(t);
        rc = every ? parse_every(t, c) : parse_at(t, c);
    } else {
        rc = parse_alias(t, c, n);
    }
    skip_spaces(t);
    if (rc == 0 && t->at < t->len)
        rc = refuse(t, t->at, "nothing more is expected here");
    return rc;
}

int cron_parse(const char *text, const char *id, bool and_days, struct cron *ret,
               struct errtext *reterr) {
    struct text t = {.s = text, .id = id, .reterr = reterr};

    ASSERT(text);
    ASSERT(id);
    ASSERT(ret);
    *ret = (struct cron){.times.and_days = and_days};
    t.len = strnlen(text, CRON_TEXT_BYTES_MAX);
    if (t.len == CRON_TEXT_BYTES_MAX) {
        errtext_set(reterr, "column %u: an expression has at most %u characters",
                    CRON_TEXT_BYTES_MAX, CRON_TEXT_BYTES_MAX - 1);
        return ERR_CONFIG;
    }
    skip_spaces(&t);
    while (t.len > t.at && is_space(t.s[t.len - 1]))
        t.len--;
    if (t.at == t.len)
        return refuse(&t, t.at, "the expression is empty");
    return peek(&t) == '@' ? parse_at_form(&t, ret) : parse_fields(&t, ret);
}
