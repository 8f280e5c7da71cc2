/* Fields as text. See schedule_text.h. */
#include "cli/schedule_text.h"

#include "base/units.h"
#include "sched/civil.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const schedule_dst_names[] = {"once", "literal", "skip_repeat", NULL};
const char *const schedule_day_match_names[] = {"or", "and", NULL};
const char *const schedule_missed_names[] = {"once", "skip", "all", NULL};
const char *const schedule_overlap_names[] = {
    "skip", "buffer_one", "buffer_all", "cancel_other", "terminate_other", "allow", NULL};

#define SPEC(field) .offset = offsetof(Chronos__V1__ScheduleSpec, field)
#define SPEC_MANY(field) SPEC(field), .count_offset = offsetof(Chronos__V1__ScheduleSpec, n_##field)
#define JOB(field) .offset = offsetof(Chronos__V1__JobSpec, field)
#define JOB_MANY(field) JOB(field), .count_offset = offsetof(Chronos__V1__JobSpec, n_##field)

/* In the order of an export. */
const struct schedule_field schedule_fields[] = {
    {"name", SCHEDULE_TEXT, SPEC(name)},
    {"description", SCHEDULE_TEXT, SPEC(description)},
    {"cron", SCHEDULE_TEXTS, SPEC_MANY(cron)},
    {"exclude", SCHEDULE_TEXTS, SPEC_MANY(exclude)},
    {"time_zone", SCHEDULE_TEXT, SPEC(time_zone), .def = "UTC"},
    {"dst", SCHEDULE_CHOICE, SPEC(dst), .choices = schedule_dst_names},
    {"day_match", SCHEDULE_CHOICE, SPEC(day_match), .choices = schedule_day_match_names},
    {"start", SCHEDULE_TIME, SPEC(start_ms)},
    {"end", SCHEDULE_TIME, SPEC(end_ms)},
    {"max_runs", SCHEDULE_UINT64, SPEC(max_runs)},
    {"missed", SCHEDULE_CHOICE, SPEC(missed), .choices = schedule_missed_names},
    {"catchup_window", SCHEDULE_DURATION, SPEC(catchup_window_ms), .def = "1h"},
    {"overlap", SCHEDULE_CHOICE, SPEC(overlap), .choices = schedule_overlap_names},
    {"pause_on_failure", SCHEDULE_BOOL, SPEC(pause_on_failure)},
    {"spread", SCHEDULE_DURATION, SPEC(spread_ms)},
    {"jitter", SCHEDULE_DURATION, SPEC(jitter_ms)},
    {"labels", SCHEDULE_MAP, SPEC_MANY(labels),
     .entry = &chronos__v1__schedule_spec__labels_entry__descriptor},
};
const size_t schedule_fields_count = ARRAY_LEN(schedule_fields);

const struct schedule_field schedule_job_fields[] = {
    {"name", SCHEDULE_TEXT, JOB(name)},
    {"env", SCHEDULE_MAP, JOB_MANY(env), .entry = &chronos__v1__job_spec__env_entry__descriptor},
    {"working_dir", SCHEDULE_TEXT, JOB(working_dir)},
    {"queue", SCHEDULE_TEXT, JOB(queue), .def = "default"},
    {"labels", SCHEDULE_MAP, JOB_MANY(labels),
     .entry = &chronos__v1__job_spec__labels_entry__descriptor},
    {"run_timeout", SCHEDULE_LIMIT, JOB(run_timeout_ms), .def = "5m"},
    {"kill_grace", SCHEDULE_DURATION, JOB(kill_grace_ms), .def = "10s"},
    {"output_limit", SCHEDULE_SIZE, JOB(output_limit_bytes), .def = "1MiB"},
    {"max_attempts", SCHEDULE_UINT32, JOB(max_attempts), .def = "3"},
};
const size_t schedule_job_fields_count = ARRAY_LEN(schedule_job_fields);

const struct schedule_field *schedule_field_find(const struct schedule_field *fields, size_t count,
                                                 const char *key) {
    for (size_t i = 0; i < count; i++) {
        if (strcmp(fields[i].key, key) == 0)
            return &fields[i];
    }
    return NULL;
}

const struct schedule_field *schedule_field_of(const char *key, bool job) {
    const struct schedule_field *f =
        job ? schedule_field_find(schedule_job_fields, schedule_job_fields_count, key)
            : schedule_field_find(schedule_fields, schedule_fields_count, key);

    ASSERT(f); /* the tables are constant */
    return f;
}

/* ---- instants ---------------------------------------------------------------------------------
 */

/* @n digits at *p as a number; false when there are fewer. */
static bool digits(const char **p, int n, int *ret) {
    *ret = 0;
    for (int i = 0; i < n; i++, (*p)++) {
        if (**p < '0' || **p > '9')
            return false;
        *ret = *ret * 10 + (**p - '0');
    }
    return true;
}

static bool literal(const char **p, const char *any) {
    if (**p == '\0' || !strchr(any, **p))
        return false;
    (*p)++;
    return true;
}

static bool parse_date(const char **p, struct civil *c) {
    int year, month, day;

    if (!digits(p, 4, &year) || !literal(p, "-") || !digits(p, 2, &month) || !literal(p, "-") ||
        !digits(p, 2, &day))
        return false;
    if (year < 1970 || month < 1 || month > 12 || day < 1 ||
        day > civil_month_days(year, (uint8_t) month))
        return false;
    *c = (struct civil){.year = year, .month = (uint8_t) month, .day = (uint8_t) day};
    return true;
}

static bool parse_clock(const char **p, struct civil *c, int *ret_ms) {
    int hour, minute, second, scale = 100;

    if (!literal(p, "Tt ") || !digits(p, 2, &hour) || !literal(p, ":") || !digits(p, 2, &minute) ||
        !literal(p, ":") || !digits(p, 2, &second) || hour > 23 || minute > 59 || second > 59)
        return false;
    c->hour = (uint8_t) hour;
    c->minute = (uint8_t) minute;
    c->second = (uint8_t) second;
    if (!literal(p, "."))
        return true;
    if (**p < '0' || **p > '9')
        return false;
    for (; **p >= '0' && **p <= '9'; (*p)++, scale /= 10)
        *ret_ms += (**p - '0') * scale; /* beyond milliseconds: nothing */
    return true;
}

static bool parse_offset(const char **p, int *ret_s) {
    int hours, minutes, sign = **p == '-' ? -1 : 1;

    if (literal(p, "Zz"))
        return true;
    if (!literal(p, "+-") || !digits(p, 2, &hours) || !literal(p, ":") || !digits(p, 2, &minutes) ||
        hours > 23 || minutes > 59)
        return false;
    *ret_s = sign * (hours * 3600 + minutes * 60);
    return true;
}

int schedule_parse_instant(const char *text, int64_t *ret_ms, struct errtext *reterr) {
    const char *p = text;
    struct civil c;
    int ms = 0, offset_s = 0;
    bool ok;

    ASSERT(text);
    ASSERT(ret_ms);
    ok = parse_date(&p, &c);
    if (ok && *p)
        ok = parse_clock(&p, &c, &ms) && parse_offset(&p, &offset_s);
    if (!ok || *p) {
        errtext_set(reterr,
                    "\"%.64s\" is not an instant from 1970 on; write it like 2026-07-01, "
                    "2026-07-01T12:00:00Z or 2026-07-01T14:00:00+02:00",
                    text);
        return 1;
    }
    *ret_ms = (civil_seconds(&c) - offset_s) * 1000 + ms;
    return 0;
}

const char *schedule_print_instant(int64_t ms, char out[SCHEDULE_INSTANT_BYTES]) {
    int64_t s = ms / 1000 - (ms % 1000 < 0 ? 1 : 0);
    int part = (int) (ms - s * 1000);
    struct civil c = civil_of(s);
    char fraction[8] = "";

    if (part != 0)
        (void) snprintf(fraction, sizeof(fraction), ".%03d", part);
    (void) snprintf(out, SCHEDULE_INSTANT_BYTES, "%04d-%02d-%02dT%02d:%02d:%02d%sZ", c.year,
                    c.month, c.day, c.hour, c.minute, c.second, fraction);
    return out;
}

/* ---- one field --------------------------------------------------------------------------------
 */

static void *at_offset(const ProtobufCMessage *m, size_t offset) {
    return (char *) (uintptr_t) m + offset;
}

/* The arrays of a repeated field grow by copying: the arena frees them all at once. */
static int append_pointer(const struct schedule_field *f, ProtobufCMessage *m, void *item,
                          struct arena *arena) {
    size_t *count = at_offset(m, f->count_offset);
    void ***items = at_offset(m, f->offset);
    void **grown = *items;

    if (*count == 0 || (*count & (*count - 1)) == 0)
        grown = arena_alloc(arena, MAX(2 * *count, (size_t) 1) * sizeof(void *));
    if (!grown)
        return -ENOMEM;
    if (grown != *items && *count > 0)
        memcpy(grown, *items, *count * sizeof(void *));
    grown[(*count)++] = item;
    *items = grown;
    return 0;
}

static int set_text(void *at, const char *text, struct arena *arena) {
    char *copy = arena_strdup(arena, text);

    if (!copy)
        return -ENOMEM;
    memcpy(at, &copy, sizeof(copy));
    return 0;
}

static int set_choice(const struct schedule_field *f, void *at, const char *text,
                      struct errtext *reterr) {
    char all[128] = "";
    size_t used = 0;

    for (uint32_t i = 0; f->choices[i]; i++) {
        if (strcmp(f->choices[i], text) == 0) {
            memcpy(at, &i, sizeof(i));
            return 0;
        }
        used += (size_t) snprintf(all + used, sizeof(all) - used, "%s%s", i > 0 ? ", " : "",
                                  f->choices[i]);
        ASSERT(used < sizeof(all)); /* the tables are constant */
    }
    errtext_set(reterr, "\"%.64s\" is not one of: %s", text, all);
    return 1;
}

static int set_number(const struct schedule_field *f, void *at, const char *text,
                      struct errtext *reterr) {
    uint64_t v = 0;
    int r;

    if (f->kind == SCHEDULE_SIZE)
        r = units_parse_size(text, &v, reterr);
    else if (f->kind == SCHEDULE_DURATION || f->kind == SCHEDULE_LIMIT)
        r = units_parse_duration(text, &v, reterr);
    else
        r = units_parse_uint(text, &v, reterr);
    if (r > 0)
        return 1;
    if (f->kind == SCHEDULE_UINT32) {
        uint32_t small = (uint32_t) v;

        if (v > UINT32_MAX) {
            errtext_set(reterr, "%.32s is too large", text);
            return 1;
        }
        memcpy(at, &small, sizeof(small));
        return 0;
    }
    memcpy(at, &v, sizeof(v));
    return 0;
}

static int set_bool(void *at, const char *text, struct errtext *reterr) {
    protobuf_c_boolean on = strcmp(text, "true") == 0;

    if (!on && strcmp(text, "false") != 0) {
        errtext_set(reterr, "\"%.64s\" is neither true nor false", text);
        return 1;
    }
    memcpy(at, &on, sizeof(on));
    return 0;
}

static int set_limit(const struct schedule_field *f, void *at, const char *text,
                     struct errtext *reterr) {
    int64_t none = -1;

    if (strcmp(text, "none") != 0)
        return set_number(f, at, text, reterr);
    memcpy(at, &none, sizeof(none));
    return 0;
}

int schedule_field_set(const struct schedule_field *f, ProtobufCMessage *m, const char *text,
                       struct arena *arena, struct errtext *reterr) {
    void *at = at_offset(m, f->offset);
    int64_t ms;
    char *copy;

    ASSERT(f->kind != SCHEDULE_MAP);
    switch (f->kind) {
    case SCHEDULE_TEXT:
        return set_text(at, text, arena);
    case SCHEDULE_TEXTS:
        copy = arena_strdup(arena, text);
        return copy ? append_pointer(f, m, copy, arena) : -ENOMEM;
    case SCHEDULE_CHOICE:
        return set_choice(f, at, text, reterr);
    case SCHEDULE_TIME:
        if (schedule_parse_instant(text, &ms, reterr) != 0)
            return 1;
        memcpy(at, &ms, sizeof(ms));
        return 0;
    case SCHEDULE_LIMIT:
        return set_limit(f, at, text, reterr);
    case SCHEDULE_UINT64:
    case SCHEDULE_UINT32:
    case SCHEDULE_DURATION:
    case SCHEDULE_SIZE:
        return set_number(f, at, text, reterr);
    case SCHEDULE_BOOL:
        return set_bool(at, text, reterr);
    case SCHEDULE_MAP:
        break;
    }
    return 1;
}

/* The key and value of a map's entry, wherever the generated structure has them. */
static char **entry_part(const struct schedule_field *f, void *entry, unsigned part) {
    return at_offset(entry, f->entry->fields[part].offset);
}

int schedule_field_put(const struct schedule_field *f, ProtobufCMessage *m, const char *key,
                       const char *value, struct arena *arena) {
    size_t count = *(size_t *) at_offset(m, f->count_offset);
    void **items = *(void ***) at_offset(m, f->offset);
    char *k = arena_strdup(arena, key), *v = arena_strdup(arena, value);
    void *entry;

    ASSERT(f->kind == SCHEDULE_MAP);
    if (!k || !v)
        return -ENOMEM;
    for (size_t i = 0; i < count; i++) {
        if (strcmp(*entry_part(f, items[i], 0), key) == 0) {
            *entry_part(f, items[i], 1) = v;
            return 0;
        }
    }
    entry = arena_zalloc(arena, f->entry->sizeof_message);
    if (!entry)
        return -ENOMEM;
    protobuf_c_message_init(f->entry, entry);
    *entry_part(f, entry, 0) = k;
    *entry_part(f, entry, 1) = v;
    return append_pointer(f, m, entry, arena);
}

static size_t kind_bytes(enum schedule_kind k) {
    switch (k) {
    case SCHEDULE_CHOICE:
    case SCHEDULE_UINT32:
        return 4;
    case SCHEDULE_BOOL:
        return sizeof(protobuf_c_boolean);
    case SCHEDULE_TEXT:
    case SCHEDULE_TEXTS:
    case SCHEDULE_MAP:
        return sizeof(void *);
    case SCHEDULE_TIME:
    case SCHEDULE_UINT64:
    case SCHEDULE_DURATION:
    case SCHEDULE_LIMIT:
    case SCHEDULE_SIZE:
        return 8;
    }
    return 0;
}

void schedule_field_clear(const struct schedule_field *f, ProtobufCMessage *m) {
    const char *empty = protobuf_c_empty_string;

    memset(at_offset(m, f->offset), 0, kind_bytes(f->kind));
    if (f->kind == SCHEDULE_TEXT)
        memcpy(at_offset(m, f->offset), &empty, sizeof(empty));
    if (f->kind == SCHEDULE_TEXTS || f->kind == SCHEDULE_MAP)
        memset(at_offset(m, f->count_offset), 0, sizeof(size_t));
}

size_t schedule_field_count(const struct schedule_field *f, const ProtobufCMessage *m) {
    static const uint8_t zero[8];
    const void *at = at_offset(m, f->offset);

    if (f->kind == SCHEDULE_TEXTS || f->kind == SCHEDULE_MAP)
        return *(size_t *) at_offset(m, f->count_offset);
    if (f->kind == SCHEDULE_TEXT)
        return **(char *const *) at != '\0';
    return memcmp(at, zero, kind_bytes(f->kind)) != 0;
}

static int print_number(const struct schedule_field *f, const void *at, struct buf *out) {
    char text[UNITS_TEXT_BYTES_MAX];
    uint32_t small;
    uint64_t v;

    if (f->kind == SCHEDULE_UINT32) {
        memcpy(&small, at, sizeof(small));
        return buf_printf(out, "%" PRIu32, small);
    }
    memcpy(&v, at, sizeof(v));
    if (f->kind == SCHEDULE_LIMIT && (int64_t) v == -1)
        return buf_append_str(out, "none");
    if (f->kind == SCHEDULE_UINT64)
        return buf_printf(out, "%" PRIu64, v);
    if (f->kind == SCHEDULE_SIZE)
        return buf_append_str(out, units_print_size(v, text));
    return buf_append_str(out, units_print_duration(v, text));
}

static int print_choice(const struct schedule_field *f, const void *at, struct buf *out) {
    uint32_t v;

    memcpy(&v, at, sizeof(v));
    for (uint32_t i = 0; f->choices[i]; i++) {
        if (i == v)
            return buf_append_str(out, f->choices[i]);
    }
    return buf_printf(out, "%" PRIu32, v); /* of a newer node: reading it back is refused */
}

int schedule_field_print(const struct schedule_field *f, const ProtobufCMessage *m, size_t i,
                         const char **ret_key, struct buf *out) {
    const void *at = at_offset(m, f->offset);
    char instant[SCHEDULE_INSTANT_BYTES];
    void **items;
    int64_t ms;

    switch (f->kind) {
    case SCHEDULE_TEXT:
        return buf_append_str(out, *(char *const *) at);
    case SCHEDULE_TEXTS:
        items = *(void *const *) at;
        return buf_append_str(out, items[i]);
    case SCHEDULE_MAP:
        items = *(void *const *) at;
        if (ret_key)
            *ret_key = *entry_part(f, items[i], 0);
        return buf_append_str(out, *entry_part(f, items[i], 1));
    case SCHEDULE_CHOICE:
        return print_choice(f, at, out);
    case SCHEDULE_TIME:
        memcpy(&ms, at, sizeof(ms));
        return buf_append_str(out, schedule_print_instant(ms, instant));
    case SCHEDULE_BOOL:
        return buf_append_str(out, *(const protobuf_c_boolean *) at ? "true" : "false");
    case SCHEDULE_UINT64:
    case SCHEDULE_UINT32:
    case SCHEDULE_DURATION:
    case SCHEDULE_LIMIT:
    case SCHEDULE_SIZE:
        return print_number(f, at, out);
    }
    return 0;
}
