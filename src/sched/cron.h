/* The cron language (semantics.md C1-C4): text to expression and back, and the next instant.
 *
 * What it is: a pure parser, printer and calendar search. What it is not: a scheduler; it reads no
 * clock and no zone file. docs/semantics.md has the language.
 *
 *   minute hour day month weekday                 5 fields
 *   second minute hour day month weekday          6
 *   second minute hour day month weekday year     7
 *   @yearly @annually @monthly @weekly @daily @midnight @hourly
 *   @every DURATION[/PHASE]   @at RFC3339   @manual
 *
 * Invariant: cron_print of what cron_parse read parses to an equal expression and prints the same
 * text again. Thread: any; an expression is immutable. */
#pragma once

#include "base/err.h"
#include "sched/tz.h"

#define CRON_TEXT_BYTES_MAX 512U
#define CRON_YEAR_MIN 1970
#define CRON_YEAR_MAX 2199
#define CRON_EVERY_MIN_S 1
#define CRON_EVERY_MAX_S (366LL * 24 * 3600)
#define CRON_ITEMS_MAX 64 /* list members of one field */

enum cron_field {
    CRON_SECOND,
    CRON_MINUTE,
    CRON_HOUR,
    CRON_DAY,
    CRON_MONTH,
    CRON_WEEKDAY,
    CRON_YEAR,
    CRON_FIELDS
};

/* One member of a field's list, as written: "*", "2-10/3", "H(0-29)/10" ... */
struct cron_item {
    bool star;   /* "*" (lo, hi are the field's bounds) */
    bool hashed; /* "H", "H/15", "H(0-29)": resolved by the schedule's id */
    bool range;  /* lo-hi was written, or H(lo-hi) */
    uint16_t lo, hi;
    uint16_t step; /* 0 = none written */
};

enum cron_kind { CRON_CALENDAR, CRON_EVERY, CRON_AT, CRON_MANUAL };

/* How the clocks' own changes are treated (C6). */
enum cron_dst { CRON_DST_ONCE, CRON_DST_LITERAL, CRON_DST_SKIP_REPEAT };

/* When it fires: all that cron_next needs, small enough to keep a million of. */
struct cron_times {
    enum cron_kind kind;
    bool and_days;               /* day-of-month and weekday must both match (day_match: and) */
    bool day_star, weekday_star; /* the field's text begins with '*' or '?' (C2) */
    bool follows_clock;          /* minute or hour begins with '*': runs by real minutes (C6) */
    uint8_t weekdays;            /* CALENDAR, H resolved: one bit for each value */
    uint16_t months;
    uint32_t hours, days;
    uint64_t seconds, minutes;
    union {                /* of a million schedules each has one of these structs */
        uint64_t years[4]; /* CALENDAR, from CRON_YEAR_MIN */
        struct {
            int64_t every_s, phase_s; /* EVERY */
        };
        int64_t at_s; /* AT: seconds since 1970 UTC */
    };
};

/* An expression as it was written, and its times. */
struct cron {
    struct cron_times times;
    uint8_t fields; /* CALENDAR: 5, 6 or 7 as written */
    uint8_t items_count[CRON_FIELDS];
    struct cron_item items[CRON_FIELDS][CRON_ITEMS_MAX];
};

/* Read @text. @id resolves H (the schedule's id; "" is allowed). Refused with the column and what
 * is allowed there: syntax, values out of range, dates that never come.
 * 0; ERR_CONFIG. */
int cron_parse(const char *text, const char *id, bool and_days, struct cron *ret,
               struct errtext *reterr) _must_check_;
/* The canonical text into @out (CRON_TEXT_BYTES_MAX; longer cannot happen for what was parsed).
 * Names are printed as numbers, aliases as fields, H stays H. */
void cron_print(const struct cron *c, char out[CRON_TEXT_BYTES_MAX]);
/* An English sentence without the full stop: "every 15 minutes from 09:00 to 17:59, Monday to
 * Friday". */
void cron_describe(const struct cron *c, char *out, size_t out_bytes);

/* ---- instants -------------------------------------------------------------------------------- */

#define CRON_NEVER INT64_MAX

/* What a preview tells about an instant. */
enum cron_note { CRON_NOTE_NONE, CRON_NOTE_MOVED /* its local time does not exist that day */ };

/* The first instant after @after (seconds since 1970 UTC) at which the expression fires, or
 * CRON_NEVER. Strictly greater than @after; ends in bounded steps for every zone and expression
 * (C7). @zone and @dst matter to CALENDAR only. @ret_note may be NULL. */
int64_t cron_next(const struct cron_times *c, const struct tz *zone, enum cron_dst dst,
                  int64_t after, enum cron_note *ret_note);

/* For exclusions: whether the expression names the local second of @at, or, with @whole_minute, any
 * second of the minute of @at. Policies of the clock's changes play no part. */
bool cron_matches(const struct cron_times *c, const struct tz *zone, int64_t at, bool whole_minute);

/* For previews: the next instant after @after that matches by local time and is suppressed by the
 * policy because the hour is repeated; CRON_NEVER when there is none before @until. */
int64_t cron_next_suppressed(const struct cron_times *c, const struct tz *zone, enum cron_dst dst,
                             int64_t after, int64_t until);
