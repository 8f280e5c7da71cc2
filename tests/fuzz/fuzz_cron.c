/* Fuzzes the cron language: the input is policy, instant, and the text of an expression. What
 * parses must print to a text that parses to the same times and prints the same again; its instants
 * must be strictly ascending, match by cron_matches where nothing was moved, and end (C7). */
#include "fuzz.h"

#include "sched/cron.h"

#include "base/codec.h"

#include <string.h>

/* Changes every half year for ever, by an hour; and one of a whole day. */
static const struct tz_change changes[] = {
    {INT64_MIN, 3600, false, "A"},   {700000000, 7200, true, "B"},
    {716000000, 3600, false, "A"},   {1325239200, 90000, false, "C"},
    {1782000000, 86400, false, "D"}, {1790000000, 90000, true, "C"},
};
static const struct tz zone = {(struct tz_change *) (uintptr_t) changes, ARRAY_LEN(changes)};

static void check_instants(const struct cron *c, enum cron_dst dst, const struct tz *tz,
                           int64_t after) {
    for (int i = 0; i < 8; i++) {
        enum cron_note note;
        int64_t at = cron_next(&c->times, tz, dst, after, &note);

        ASSERT(at > after);
        if (at == CRON_NEVER)
            return;
        ASSERT(note != CRON_NOTE_NONE || cron_matches(&c->times, tz, at, false));
        ASSERT(note != CRON_NOTE_NONE || cron_matches(&c->times, tz, at, true));
        after = at;
    }
}

static void check_text(const struct cron *c, const char *id, bool and_days) {
    char text[CRON_TEXT_BYTES_MAX], again[CRON_TEXT_BYTES_MAX], words[512];
    struct errtext why;
    struct cron back;
    int rc;

    cron_print(c, text);
    rc = cron_parse(text, id, and_days, &back, &why);
    ASSERT(rc == 0);
    cron_print(&back, again);
    ASSERT(strcmp(text, again) == 0);
    ASSERT(back.times.kind == c->times.kind && back.times.seconds == c->times.seconds &&
           back.times.minutes == c->times.minutes && back.times.hours == c->times.hours &&
           back.times.days == c->times.days && back.times.months == c->times.months &&
           back.times.weekdays == c->times.weekdays && back.times.every_s == c->times.every_s &&
           back.times.phase_s == c->times.phase_s && back.times.at_s == c->times.at_s);
    cron_describe(c, words, sizeof(words));
    ASSERT(memchr(words, 0, sizeof(words)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct errtext why = {0};
    char text[2048];
    struct cron c;
    int64_t after;

    if (size < 9)
        return 0;
    after = (int64_t) (get_le64(data + 1) % 8000000000ULL);
    size = MIN(size - 9, sizeof(text) - 1);
    memcpy(text, data + 9, size);
    text[size] = '\0';
    if (cron_parse(text, "fuzz", data[0] & 1, &c, &why) < 0) {
        ASSERT(why.s[0]);
        return 0;
    }
    check_text(&c, "fuzz", data[0] & 1);
    check_instants(&c, (enum cron_dst)(data[0] / 4 % 3), data[0] & 2 ? &zone : NULL, after);
    return 0;
}
