/* Expression to canonical text. */
#include <stdio.h>
#include <string.h>

#include "sched/civil.h"
#include "sched/cron_internal.h"

struct out {
    char *s;
    size_t len;
};

static void put(struct out *o, const char *s) {
    size_t n = strlen(s);

    ASSERT(o->len + n < CRON_TEXT_BYTES_MAX); /* never longer than what was read */
    memcpy(o->s + o->len, s, n + 1);
    o->len += n;
}

static void put_number(struct out *o, uint64_t n) {
    char digits[24];

    (void) snprintf(digits, sizeof(digits), "%llu", (unsigned long long) n);
    put(o, digits);
}

static void put_item(struct out *o, const struct cron_item *it) {
    if (it->star) {
        put(o, "*");
    } else {
        if (it->hashed)
            put(o, it->range ? "H(" : "H");
        if (!it->hashed || it->range)
            put_number(o, it->lo);
        if (it->range) {
            put(o, "-");
            put_number(o, it->hi);
        }
        if (it->hashed && it->range)
            put(o, ")");
    }
    if (it->step > 0) {
        put(o, "/");
        put_number(o, it->step);
    }
}

static void put_fields(struct out *o, const struct cron *c) {
    enum cron_field first = c->fields == 5 ? CRON_MINUTE : CRON_SECOND;
    enum cron_field last = c->fields == 7 ? CRON_YEAR : CRON_WEEKDAY;

    for (enum cron_field f = first; f <= last; f++) {
        for (size_t i = 0; i < c->items_count[f]; i++) {
            if (i > 0)
                put(o, ",");
            put_item(o, &c->items[f][i]);
        }
        if (f < last)
            put(o, " ");
    }
}

static void put_duration(struct out *o, int64_t seconds) {
    static const struct {
        int64_t seconds;
        const char *unit;
    } units[] = {{86400, "d"}, {3600, "h"}, {60, "m"}, {1, "s"}};

    for (size_t i = 0; i < ARRAY_LEN(units); i++) {
        if (seconds < units[i].seconds)
            continue;
        put_number(o, (uint64_t) (seconds / units[i].seconds));
        put(o, units[i].unit);
        seconds %= units[i].seconds;
    }
}

void cron_print(const struct cron *c, char out[CRON_TEXT_BYTES_MAX]) {
    struct out o = {.s = out};
    struct civil d;

    out[0] = '\0';
    switch (c->times.kind) {
    case CRON_CALENDAR:
        put_fields(&o, c);
        break;
    case CRON_EVERY:
        put(&o, "@every ");
        put_duration(&o, c->times.every_s);
        if (c->times.phase_s > 0) {
            put(&o, "/");
            put_duration(&o, c->times.phase_s);
        }
        break;
    case CRON_AT:
        d = civil_of(c->times.at_s);
        (void) snprintf(out, CRON_TEXT_BYTES_MAX, "@at %04d-%02d-%02dT%02d:%02d:%02dZ", d.year,
                        d.month, d.day, d.hour, d.minute, d.second);
        break;
    case CRON_MANUAL:
        put(&o, "@manual");
        break;
    }
}
