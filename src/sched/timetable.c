/* Compiled definitions. See timetable.h. */
#include "sched/timetable.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Excluded ticks passed over in one call: what is behind an exclusion of months is reached over
 * several, each of a few 10 us. */
#define PASSED_OVER_MAX 256

struct timetable {
    uint32_t refs;
    struct zones *zones;
    /* From here on the bytes of timetable_bytes(): no padding that is not zero. */
    struct zone *zone; /* held; NULL = UTC */
    int64_t start_s;   /* first second that may tick */
    int64_t end_s;     /* first that may not */
    int64_t spread_ms, jitter_ms;
    uint32_t dst;           /* enum cron_dst */
    uint16_t whole_minutes; /* bit i: exclusion i names minutes, not seconds */
    uint8_t times_count, excludes_count;
    struct cron_times times[]; /* expressions, then exclusions */
};

STATIC_ASSERT(TIMETABLE_EXPRESSIONS_MAX <= 16, "whole_minutes has a bit for each exclusion");

#define BYTES_FROM offsetof(struct timetable, zone)

static int64_t ceil_s(int64_t ms) {
    return ms / 1000 + (ms % 1000 > 0 ? 1 : 0);
}

/* Field by field: what is between the fields stays zero, so that equal times are equal bytes. */
static void copy_times(struct cron_times *to, const struct cron_times *from) {
    to->kind = from->kind;
    to->and_days = from->and_days;
    to->day_star = from->day_star;
    to->weekday_star = from->weekday_star;
    to->follows_clock = from->follows_clock;
    to->weekdays = from->weekdays;
    to->months = from->months;
    to->hours = from->hours;
    to->days = from->days;
    to->seconds = from->seconds;
    to->minutes = from->minutes;
    memcpy(to->years, from->years, sizeof(to->years)); /* the whole union */
}

static int add_expressions(struct timetable *t, const Chronos__V1__ScheduleSpec *spec,
                           const char *field, char *const *texts, size_t n, uint8_t *count,
                           struct errtext *reterr) {
    bool exclude = count == &t->excludes_count;

    for (size_t i = 0; i < n; i++) {
        bool and_days = spec->day_match == CHRONOS__V1__DAY_MATCH__DAY_MATCH_AND;
        struct errtext why = {0};
        struct cron c;
        int rc = cron_parse(texts[i], spec->name, and_days, &c, &why);

        if (rc < 0) {
            errtext_set(reterr, "%s[%zu]: %.440s", field, i, why.s);
            return rc;
        }
        copy_times(&t->times[t->times_count + t->excludes_count], &c.times);
        if (exclude && (c.times.kind != CRON_CALENDAR || c.fields == 5))
            t->whole_minutes |= (uint16_t) (1U << i);
        (*count)++;
    }
    return 0;
}

static int compile(struct timetable *t, const Chronos__V1__ScheduleSpec *spec,
                   struct errtext *reterr) {
    int rc = add_expressions(t, spec, "cron", spec->cron, spec->n_cron, &t->times_count, reterr);

    if (rc == 0)
        rc = add_expressions(t, spec, "exclude", spec->exclude, spec->n_exclude, &t->excludes_count,
                             reterr);
    if (rc < 0)
        return rc;
    switch (spec->dst) {
    case CHRONOS__V1__DST_POLICY__DST_POLICY_LITERAL:
        t->dst = CRON_DST_LITERAL;
        break;
    case CHRONOS__V1__DST_POLICY__DST_POLICY_SKIP_REPEAT:
        t->dst = CRON_DST_SKIP_REPEAT;
        break;
    case CHRONOS__V1__DST_POLICY__DST_POLICY_ONCE:
    case _CHRONOS__V1__DST_POLICY_IS_INT_SIZE:
        t->dst = CRON_DST_ONCE;
        break;
    }
    t->start_s = spec->start_ms > 0 ? ceil_s(spec->start_ms) : 0;
    t->end_s = spec->end_ms > 0 ? ceil_s(spec->end_ms) : CRON_NEVER;
    t->spread_ms = MAX(spec->spread_ms, 0);
    t->jitter_ms = MAX(spec->jitter_ms, 0);
    return zones_hold(t->zones, spec->time_zone, &t->zone);
}

int timetable_new(const Chronos__V1__ScheduleSpec *spec, struct zones *zones,
                  struct timetable **ret, struct errtext *reterr) {
    _cleanup_(timetable_unrefp) struct timetable *t = NULL;
    int rc;

    ASSERT(spec && zones);
    ASSERT(ret);
    if (spec->n_cron < 1 || spec->n_cron > TIMETABLE_EXPRESSIONS_MAX ||
        spec->n_exclude > TIMETABLE_EXPRESSIONS_MAX) {
        errtext_set(reterr, "cron: 1 to %d expressions, exclude: at most %d",
                    TIMETABLE_EXPRESSIONS_MAX, TIMETABLE_EXPRESSIONS_MAX);
        return ERR_CONFIG;
    }
    t = calloc(1, sizeof(*t) + (spec->n_cron + spec->n_exclude) * sizeof(t->times[0]));
    if (!t)
        return -ENOMEM;
    t->refs = 1;
    t->zones = zones;
    rc = compile(t, spec, reterr);
    if (rc < 0)
        return rc;
    *ret = TAKE_PTR(t);
    return 0;
}

struct timetable *timetable_ref(struct timetable *t) {
    ASSERT(t->refs > 0 && t->refs < UINT32_MAX);
    t->refs++;
    return t;
}

struct timetable *timetable_unref(struct timetable *t) {
    if (!t)
        return NULL;
    ASSERT(t->refs > 0);
    if (--t->refs > 0)
        return NULL;
    zones_release(t->zones, t->zone);
    free(t);
    return NULL;
}

bool timetable_is_last(const struct timetable *t) {
    return t->refs == 1;
}

const struct zone *timetable_zone(const struct timetable *t) {
    return t->zone;
}

struct slice timetable_bytes(const struct timetable *t) {
    size_t n = sizeof(*t) + (t->times_count + (size_t) t->excludes_count) * sizeof(t->times[0]);

    return slice_of((const uint8_t *) t + BYTES_FROM, n - BYTES_FROM);
}

/* ---- instants -------------------------------------------------------------------------------- */

/* Whether an exclusion names @at; *ret_last is the last second that it names with it. */
static bool excluded(const struct timetable *t, const struct tz *tz, int64_t at,
                     int64_t *ret_last) {
    for (size_t i = 0; i < t->excludes_count; i++) {
        bool minute = t->whole_minutes >> i & 1;

        if (!cron_matches(&t->times[t->times_count + i], tz, at, minute))
            continue;
        /* Minutes of the zone's clock and of UTC are the same ones, but for offsets with seconds
         * in them, long ago. */
        *ret_last = minute && (!tz || tz->changes[tz_find(tz, at)].offset % 60 == 0)
                        ? at - at % 60 + 59
                        : at;
        return true;
    }
    return false;
}

static int64_t next_of_all(const struct timetable *t, const struct tz *tz, int64_t after,
                           enum cron_note *ret_note, uint32_t *io_steps) {
    int64_t first = CRON_NEVER;

    for (size_t i = 0; i < t->times_count; i++) {
        enum cron_note note;
        int64_t at = cron_next(&t->times[i], tz, (enum cron_dst) t->dst, after, &note);

        if (at < first) {
            first = at;
            *ret_note = note;
        }
    }
    *io_steps += t->times_count;
    return first;
}

struct timetable_instant timetable_next(const struct timetable *t, int64_t after_s,
                                        uint32_t *io_steps) {
    const struct timetable_instant never = {.at_s = CRON_NEVER, .is_tick = true};
    const struct tz *tz = t->zone ? t->zone->tz : NULL;

    ASSERT(io_steps);
    if (t->zone && !tz)
        return never;
    after_s = MAX(after_s, t->start_s - 1);
    for (uint32_t passed = 0; passed < PASSED_OVER_MAX; passed++) {
        struct timetable_instant i = {.is_tick = true};
        int64_t last;

        i.at_s = next_of_all(t, tz, after_s, &i.note, io_steps);
        if (i.at_s >= t->end_s || i.at_s == CRON_NEVER)
            return never;
        if (!excluded(t, tz, i.at_s, &last))
            return i;
        after_s = last;
    }
    return (struct timetable_instant){.at_s = after_s};
}

int64_t timetable_next_tick(const struct timetable *t, int64_t after_s, int64_t until_s) {
    uint32_t steps = 0;

    for (;;) {
        struct timetable_instant i = timetable_next(t, after_s, &steps);

        if (i.at_s > until_s)
            return CRON_NEVER;
        if (i.is_tick)
            return i.at_s;
        after_s = i.at_s;
    }
}

/* Whether any expression fires at @at, whatever the others do there. */
static bool fires_at(const struct timetable *t, const struct tz *tz, int64_t at) {
    for (size_t i = 0; i < t->times_count; i++) {
        if (cron_next(&t->times[i], tz, (enum cron_dst) t->dst, at - 1, NULL) == at)
            return true;
    }
    return false;
}

int64_t timetable_next_suppressed(const struct timetable *t, int64_t after_s, int64_t until_s) {
    const struct tz *tz = t->zone ? t->zone->tz : NULL;
    int64_t last;

    if (!tz)
        return CRON_NEVER; /* UTC repeats no hour */
    after_s = MAX(after_s, t->start_s - 1);
    until_s = MIN(until_s, t->end_s);
    for (;;) {
        int64_t first = CRON_NEVER;

        for (size_t i = 0; i < t->times_count; i++) {
            if (t->times[i].kind == CRON_CALENDAR)
                first = MIN(first, cron_next_suppressed(&t->times[i], tz, (enum cron_dst) t->dst,
                                                        after_s, until_s));
        }
        if (first == CRON_NEVER || (!fires_at(t, tz, first) && !excluded(t, tz, first, &last)))
            return first;
        after_s = first;
    }
}

/* ---- delays ---------------------------------------------------------------------------------- */

/* FNV-1a with a final mix, as for H: the same for ever. */
static uint64_t mix(uint64_t h) {
    h ^= h >> 33;
    h *= 0xff51afd7ed558ccdULL;
    h ^= h >> 33;
    h *= 0xc4ceb9fe1a85ec53ULL;
    return h ^ (h >> 33);
}

uint64_t timetable_name_hash(const char *name) {
    uint64_t h = 14695981039346656037ULL;

    ASSERT(name);
    for (const char *p = name; *p; p++)
        h = (h ^ (uint8_t) *p) * 1099511628211ULL;
    return mix(h);
}

int64_t timetable_delay_max_ms(const struct timetable *t) {
    return t->spread_ms + t->jitter_ms;
}

int64_t timetable_delay_ms(const struct timetable *t, uint64_t name_hash, int64_t tick_s) {
    int64_t delay = 0;

    if (t->spread_ms > 0)
        delay += (int64_t) (name_hash % (uint64_t) t->spread_ms);
    if (t->jitter_ms > 0)
        delay += (int64_t) (mix(name_hash + mix((uint64_t) tick_s)) % (uint64_t) t->jitter_ms);
    return delay;
}
