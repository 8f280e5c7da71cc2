/* `chronos schedule preview` and `describe`. With --cron nothing but the zone files is needed: the
 * instants come from the same code as the ticker's. */
#include "cli/cli_schedule.h"

#include "os/tzdir.h"
#include "sched/preview.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define COUNT_MAX 100000
#define SERVER_COUNT_MAX 1000
#define NOTE_BYTES 256
/* Searches before an expression whose ticks are all excluded is given up: a second of work. */
#define STEPS_MAX 5000000U

/* ---- instants ---------------------------------------------------------------------------------
 */

struct row {
    int64_t tick_ms, start_ms;
    char local[PREVIEW_LOCAL_BYTES]; /* "2026-03-08T03:00:00-04:00 EDT" */
    char note[NOTE_BYTES];
};

/* Runs, each with what is odd about it. Instants that do not run because an hour is repeated are
 * told at the run that has their local time. */
struct rows {
    struct row *items; /* owned */
    size_t count, max;
};

static int rows_init(struct rows *rows, size_t max) {
    rows->items = calloc(max, sizeof(*rows->items));
    rows->count = 0;
    rows->max = max;
    return rows->items ? 0 : -ENOMEM;
}

static void add_note(struct row *row, const char *note, const char *what) {
    size_t used = strlen(row->note);

    if (used < sizeof(row->note))
        (void) snprintf(row->note + used, sizeof(row->note) - used, "%s%s%.40s",
                        used > 0 ? "; " : "", note, what);
}

/* The run with the same time on the clock, else the last one; NULL when there is none yet. */
static struct row *same_clock(struct rows *rows, const char *local) {
    size_t clock = strlen("2026-03-08T03:00:00");

    for (size_t i = rows->count; i > 0 && i + 120 > rows->count; i--) {
        if (strncmp(rows->items[i - 1].local, local, clock) == 0)
            return &rows->items[i - 1];
    }
    return rows->count > 0 ? &rows->items[rows->count - 1] : NULL;
}

/* False: there are enough. What follows the last run without running still belongs to it. */
static bool rows_add(struct rows *rows, int64_t tick_ms, int64_t start_ms, const char *local,
                     const char *note, bool fires) {
    struct row *row;

    if (!fires) {
        row = note[0] ? same_clock(rows, local) : NULL;
        if (row)
            add_note(row, "suppressed in the repeated hour: ", local);
        return true;
    }
    if (rows->count == rows->max)
        return false;
    row = &rows->items[rows->count++];
    row->tick_ms = tick_ms;
    row->start_ms = start_ms;
    (void) snprintf(row->local, sizeof(row->local), "%s", local);
    add_note(row, note, "");
    return true;
}

/* ---- printing ---------------------------------------------------------------------------------
 */

static json_t *row_json(const struct row *row) {
    char utc[SCHEDULE_INSTANT_BYTES], start[SCHEDULE_INSTANT_BYTES];
    /* Without the abbreviation it is RFC 3339. */
    json_t *o =
        json_pack("{s:s, s:s%, s:s}", "utc", schedule_print_instant(row->tick_ms, utc), "local",
                  row->local, (size_t) strcspn(row->local, " "), "note", row->note);

    if (o && row->start_ms != row->tick_ms &&
        json_object_set_new(o, "starts",
                            json_string(schedule_print_instant(row->start_ms, start))) != 0) {
        json_decref(o);
        return NULL;
    }
    return o;
}

static int print_json(const struct rows *rows) {
    json_t *list = json_array();
    int r = list ? 0 : -ENOMEM;

    for (size_t i = 0; r == 0 && i < rows->count; i++)
        r = json_array_append_new(list, row_json(&rows->items[i])) == 0 ? 0 : -ENOMEM;
    if (r == 0)
        r = json_print(list, /* pretty= */ true, stdout);
    json_decref(list);
    return r;
}

static int table_row(struct table *t, const struct row *row, bool delays) {
    char text[SCHEDULE_INSTANT_BYTES], elapsed[32];
    int r = table_add(t, NULL, "%s", schedule_print_instant(row->tick_ms, text));

    if (r == 0)
        r = table_add(t, NULL, "%s", row->local);
    if (r == 0 && delays)
        r = table_add(t, NULL, "+%s", text_elapsed(row->start_ms - row->tick_ms, elapsed));
    return r == 0 ? table_add(t, "33", "%s", row->note) : r;
}

static int print_table(const struct rows *rows) {
    static const struct table_column delayed[] = {
        {"UTC", TABLE_LEFT, false},
        {"LOCAL", TABLE_LEFT, false},
        {"STARTS", TABLE_RIGHT, false},
        {"NOTE", TABLE_LEFT, false},
    };
    static const struct table_column at_once[] = {
        {"UTC", TABLE_LEFT, false},
        {"LOCAL", TABLE_LEFT, false},
        {"NOTE", TABLE_LEFT, false},
    };
    bool delays = false;
    struct table t;
    int r = 0;

    for (size_t i = 0; i < rows->count; i++)
        delays = delays || rows->items[i].start_ms != rows->items[i].tick_ms;
    if (delays)
        table_init(&t, delayed, ARRAY_LEN(delayed));
    else
        table_init(&t, at_once, ARRAY_LEN(at_once));
    for (size_t i = 0; r == 0 && i < rows->count; i++)
        r = table_row(&t, &rows->items[i], delays);
    if (r == 0)
        table_print(&t, stdout);
    table_done(&t);
    return r;
}

static int print_rows(const struct rows *rows, uint32_t output) {
    int r = output == CLI_JSON ? print_json(rows) : print_table(rows);

    if (r == 0 && rows->count < rows->max && output == CLI_TABLE) {
        (void) fflush(stdout);
        fprintf(stderr, "No run after that.\n");
    }
    return r < 0 ? cli_fail_errno(r) : EXIT_CODE_OK;
}

/* ---- preview ----------------------------------------------------------------------------------
 */

struct preview_values {
    struct cli_common common;
    struct arg_list cron, exclude;
    const char *time_zone, *dst, *day_match, *from;
    uint64_t count;
};

/* 0, or an exit code; as below. */
static int parse_from(const struct preview_values *v, int64_t *ret_ms) {
    struct errtext why = {""};

    if (v->from && schedule_parse_instant(v->from, ret_ms, &why) != 0)
        return cli_usage("--from: %s", why.s);
    return 0;
}

static int set_word(const char *option, const char *key, const char *text,
                    Chronos__V1__ScheduleSpec *spec, struct arena *arena) {
    const struct schedule_field *f = schedule_field_of(key, /* job= */ false);
    struct errtext why = {""};
    int r;

    if (!text)
        return 0;
    r = schedule_field_set(f, &spec->base, text, arena, &why);
    return r > 0 ? cli_usage("--%s: %s", option, why.s) : r;
}

static int fill_spec(const struct preview_values *v, Chronos__V1__ScheduleSpec *spec,
                     struct arena *arena) {
    int r;

    chronos__v1__schedule_spec__init(spec);
    spec->cron = (char **) (uintptr_t) v->cron.items;
    spec->n_cron = v->cron.count;
    spec->exclude = (char **) (uintptr_t) v->exclude.items;
    spec->n_exclude = v->exclude.count;
    spec->time_zone = (char *) (uintptr_t) (v->time_zone ? v->time_zone : "");
    r = set_word("dst", "dst", v->dst, spec, arena);
    return r == 0 ? set_word("day-match", "day_match", v->day_match, spec, arena) : r;
}

static int search(const struct timetable *t, int64_t after_s, struct rows *rows) {
    struct preview_instant i;
    struct preview p;
    uint32_t steps = 0;

    preview_begin(&p, t, "", after_s);
    while (steps < STEPS_MAX && preview_next(&p, &steps, &i)) {
        if (!rows_add(rows, i.tick_s * 1000, i.start_ms, i.local, i.note, i.fires))
            break;
    }
    if (steps >= STEPS_MAX)
        return cli_usage("--exclude: no run found: the exclusions name every one for a long time");
    return 0;
}

static int offline(const struct preview_values *v, int64_t from_ms, struct rows *rows,
                   struct zones *zones, struct arena *arena) {
    _cleanup_(timetable_unrefp) struct timetable *t = NULL;
    Chronos__V1__ScheduleSpec spec;
    const struct tz *tz = NULL;
    struct errtext why = {""};
    int64_t after_s = from_ms / 1000 - (from_ms % 1000 < 0 ? 1 : 0);
    int r = fill_spec(v, &spec, arena);

    if (r != 0)
        return r;
    r = zones_find(zones, spec.time_zone, &tz, &why);
    if (r == ERR_CONFIG)
        return cli_usage("--tz: %s", why.s);
    if (r == 0)
        r = timetable_new(&spec, zones, &t, &why);
    if (r == ERR_CONFIG)
        return cli_usage("%s", why.s);
    return r == 0 ? search(t, after_s, rows) : r;
}

/* An unstored expression, without a cluster. */
static int preview_expression(const struct preview_values *v, int64_t from_ms) {
    _cleanup_(zones_freep) struct zones *zones = NULL;
    struct tzdir dir;
    struct env_zones env;
    struct arena arena;
    struct rows rows = {0};
    struct errtext why = {""};
    int r = tzdir_init(&dir, /* path= */ NULL, &why);

    if (r < 0)
        return cli_usage("CHRONOS_TZDIR: %s", why.s);
    env = tzdir_env(&dir);
    arena_init(&arena, 1024 * 1024);
    r = zones_new(&env, &zones);
    if (r == 0)
        r = rows_init(&rows, v->count);
    if (r == 0)
        r = offline(v, from_ms, &rows, zones, &arena);
    if (r == 0)
        r = print_rows(&rows, v->common.output);
    free(rows.items);
    arena_done(&arena);
    return r;
}

static int preview_stored(const struct preview_values *v, char *name, int64_t from_ms) {
    Chronos__V1__PreviewScheduleRequest req = CHRONOS__V1__PREVIEW_SCHEDULE_REQUEST__INIT;
    Chronos__V1__PreviewScheduleResponse *res;
    _cleanup_(client_freep) struct client *c = NULL;
    ProtobufCMessage *reply = NULL;
    struct rows rows = {0};
    int r = cli_connect(&v->common, &c);

    if (r != 0)
        return r;
    req.name = name;
    req.from_ms = v->from ? MAX(from_ms, (int64_t) 1) : 0;
    req.count = (uint32_t) v->count;
    r = schedule_call(c, name, "PreviewSchedule", &req.base,
                      &chronos__v1__preview_schedule_response__descriptor,
                      /* repeatable= */ true, &reply);
    if (r != 0)
        return r;
    res = (Chronos__V1__PreviewScheduleResponse *) reply;
    r = rows_init(&rows, v->count);
    for (size_t i = 0; r == 0 && i < res->n_instants; i++) {
        const Chronos__V1__PreviewInstant *p = res->instants[i];

        if (!rows_add(&rows, p->tick_ms, p->start_ms, p->local, p->note, p->fires))
            break;
    }
    if (r == 0)
        r = print_rows(&rows, v->common.output);
    free(rows.items);
    chronos__v1__preview_schedule_response__free_unpacked(res, NULL);
    return r;
}

static int run_preview(void *values, char **rest, size_t rest_count) {
    const struct preview_values *v = values;
    int64_t from_ms = cli_now_ms();
    int r = parse_from(v, &from_ms);

    if (r == 0 && (v->cron.count > 0) == (rest_count > 0))
        r = cli_usage("give either the NAME of a schedule or --cron EXPR");
    if (r == 0 && rest_count > 0 &&
        (v->exclude.count > 0 || v->time_zone || v->dst || v->day_match))
        r = cli_usage("--exclude, --tz, --dst and --day-match go with --cron");
    if (r == 0 && rest_count > 0 && v->count > SERVER_COUNT_MAX)
        r = cli_usage("-n: at most %d of a stored schedule", SERVER_COUNT_MAX);
    if (r == 0)
        r = rest_count > 0 ? preview_stored(v, rest[0], from_ms) : preview_expression(v, from_ms);
    return r < 0 ? cli_fail_errno(r) : r;
}

#define AT(field) offsetof(struct preview_values, field)

static const struct arg_option preview_options[] = {
    {"cron", 'c', ARG_LIST, "EXPR", "of this expression instead of a schedule; needs no cluster",
     NULL, NULL, AT(cron), 0, 0},
    {"exclude", 0, ARG_LIST, "EXPR", "without the minutes that it names", NULL, NULL, AT(exclude),
     0, 0},
    {"tz", 'z', ARG_STRING, "ZONE", "IANA time zone (default UTC)", NULL, NULL, AT(time_zone), 0,
     0},
    {"dst", 0, ARG_STRING, NULL, "policy when clocks change (default once)", NULL,
     schedule_dst_names, AT(dst), 0, 0},
    {"day-match", 0, ARG_STRING, NULL, "how day of the month and weekday join (default or)", NULL,
     schedule_day_match_names, AT(day_match), 0, 0},
    {"from", 0, ARG_STRING, "TIME", "what comes after this instant (default: now)", NULL, NULL,
     AT(from), 0, 0},
    {"count", 'n', ARG_UINT, "N", "so many runs", "10", NULL, AT(count), 1, COUNT_MAX},
    CLI_COMMON_OPTIONS,
};

const struct arg_command cmd_schedule_preview = {
    .name = "preview",
    .summary = "show the next runs, in UTC and local time",
    .positional = "[NAME]",
    .details =
        "Notes tell of runs that a clock change has moved, and of instants at which nothing runs\n"
        "because an hour is repeated. Zones are read from /usr/share/zoneinfo, or CHRONOS_TZDIR.",
    .examples =
        "  chronos schedule preview report -n 20\n"
        "  chronos schedule preview --cron '30 2 * * *' --tz America/New_York -n 3 -o json\n"
        "  chronos schedule preview --cron @hourly --tz Europe/Dublin --from 2026-03-29T00:00:00Z",
    .options = preview_options,
    .options_count = ARRAY_LEN(preview_options),
    .values_bytes = sizeof(struct preview_values),
    .rest_max = 1,
    .run = run_preview,
};

/* ---- describe ---------------------------------------------------------------------------------
 */

#define DESCRIPTION_BYTES 2048
#define DESCRIBE_MAX 1000

struct describe_values {
    struct cli_common common;
    const char *day_match;
};

static int describe_one(const char *text, bool and_days, json_t *list) {
    char words[DESCRIPTION_BYTES], canonical[CRON_TEXT_BYTES_MAX];
    struct errtext why = {""};
    struct cron c;
    int r = cron_parse(text, "", and_days, &c, &why);

    if (r == ERR_CONFIG)
        return cli_usage("%.64s: %s", text, why.s);
    if (r < 0)
        return r;
    cron_describe(&c, words, sizeof(words));
    cron_print(&c, canonical);
    if (!list) {
        puts(words);
        return 0;
    }
    r = json_array_append_new(list, json_pack("{s:s, s:s, s:s}", "expression", text, "canonical",
                                              canonical, "description", words));
    return r == 0 ? 0 : -ENOMEM;
}

static int run_describe(void *values, char **rest, size_t rest_count) {
    const struct describe_values *v = values;
    bool and_days = v->day_match && strcmp(v->day_match, "and") == 0;
    json_t *list = NULL;
    int r = 0;

    if (v->day_match && !and_days && strcmp(v->day_match, "or") != 0)
        return cli_usage("--day-match: \"%.64s\" is not one of: or, and", v->day_match);
    if (v->common.output == CLI_JSON)
        list = json_array();
    for (size_t i = 0; r == 0 && i < rest_count; i++)
        r = describe_one(rest[i], and_days, list);
    if (r == 0 && list)
        r = json_print(list, /* pretty= */ true, stdout);
    json_decref(list);
    return r < 0 ? cli_fail_errno(r) : r;
}

static const struct arg_option describe_options[] = {
    {"day-match", 0, ARG_STRING, NULL, "how day of the month and weekday join (default or)", NULL,
     schedule_day_match_names, offsetof(struct describe_values, day_match), 0, 0},
    CLI_OUTPUT_OPTION,
};

const struct arg_command cmd_schedule_describe = {
    .name = "describe",
    .summary = "say in English when an expression runs",
    .positional = "EXPR...",
    .details = "Each expression is one argument: quote it.",
    .examples = "  chronos schedule describe '*/15 9-17 * * mon-fri'",
    .options = describe_options,
    .options_count = ARRAY_LEN(describe_options),
    .values_bytes = sizeof(struct describe_values),
    .rest_min = 1,
    .rest_max = DESCRIBE_MAX,
    .run = run_describe,
};
