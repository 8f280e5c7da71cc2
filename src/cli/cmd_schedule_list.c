/* `chronos schedule list`. */
#include "cli/cli_schedule.h"

#include "base/units.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

static const char *const state_names[] = {"any", "active", "paused", "alarm", "finished", NULL};

struct list_values {
    struct cli_common common;
    struct arg_list labels;
    const char *prefix;
    uint32_t state; /* index into state_names */
    const char *next_before;
    uint64_t limit;
    bool all;
    bool stale;
};

struct listing {
    const struct list_values *v;
    struct table table;
    json_t *schedules; /* owned; JSON only */
    uint64_t count;
    bool more;
};

static const struct table_column list_columns[] = {
    {"NAME", TABLE_LEFT, false},  {"STATE", TABLE_LEFT, false},    {"CRON", TABLE_LEFT, true},
    {"ZONE", TABLE_LEFT, true},   {"NEXT RUN", TABLE_LEFT, false}, {"LAST TICK", TABLE_LEFT, true},
    {"OPEN", TABLE_RIGHT, false}, {"FIRED", TABLE_RIGHT, false},
};

static int add_row(struct table *t, const Chronos__V1__Schedule *s) {
    char cron[512], when[32];
    int r = table_add(t, NULL, "%s", s->spec->name);

    if (r == 0)
        r = table_add(t, schedule_state_colour(s), "%s", schedule_state(s));
    if (r == 0)
        r = table_add(t, NULL, "%s", schedule_expressions(s->spec, cron, sizeof(cron)));
    if (r == 0)
        r = table_add(t, NULL, "%s", s->spec->time_zone[0] ? s->spec->time_zone : "UTC");
    if (r == 0)
        r = table_add(t, NULL, "%s", text_time(s->next_run_ms, when));
    if (r == 0)
        r = table_add(
            t, NULL, "%s%s%s", s->last_tick ? text_time(s->last_tick->tick_ms, when) : "-",
            s->last_tick ? " " : "", s->last_tick ? schedule_outcome_text(s->last_tick) : "");
    if (r == 0)
        r = table_add(t, NULL, "%zu", s->n_open_job_ids);
    if (r == 0)
        r = table_add(t, NULL, "%" PRIu64, s->fired);
    return r;
}

/* Positive: enough. */
static int on_schedule(void *arg, const Chronos__V1__Schedule *s) {
    struct listing *l = arg;

    if (l->v->state > 0 && strcmp(schedule_state(s), state_names[l->v->state]) != 0)
        return 0;
    if (!l->v->all && l->count == l->v->limit) {
        l->more = true;
        return 1;
    }
    l->count++;
    if (!l->schedules)
        return add_row(&l->table, s);
    return json_array_append_new(l->schedules, json_from_message(&s->base)) == 0 ? 0 : -ENOMEM;
}

/* "2h" from now, or an instant. */
static int parse_before(const char *text, int64_t *ret_ms) {
    struct errtext why = {""};
    uint64_t ms = 0;

    if (units_parse_duration(text, &ms, &why) == 0 && ms <= INT64_MAX / 2) {
        *ret_ms = cli_now_ms() + (int64_t) ms;
        return 0;
    }
    if (schedule_parse_instant(text, ret_ms, &why) != 0)
        return cli_usage("--next-before: %s, or 2h (from now)", why.s);
    return 0;
}

static int print_listing(struct listing *l) {
    json_t *o;
    int r;

    if (!l->schedules) {
        table_print(&l->table, stdout);
        (void) fflush(stdout);
        if (l->more)
            fprintf(stderr, "There are more; --limit N or --all shows them.\n");
        return 0;
    }
    o = json_pack("{s:O, s:b}", "schedules", l->schedules, "more", (int) l->more);
    r = json_print(o, /* pretty= */ true, stdout);
    json_decref(o);
    return r;
}

static int run_list(void *values, char **rest, size_t rest_count) {
    struct listing l = {.v = values};
    struct schedule_filter f = {.labels = &l.v->labels,
                                .prefix = l.v->prefix,
                                .only_paused = l.v->state == 2,
                                .only_alarmed = l.v->state == 3,
                                .stale = l.v->stale};
    _cleanup_(client_freep) struct client *c = NULL;
    int r = 0;

    (void) rest;
    ASSERT(rest_count == 0);
    if (l.v->next_before)
        r = parse_before(l.v->next_before, &f.next_before_ms);
    if (r == 0)
        r = cli_connect(&l.v->common, &c);
    if (r != 0)
        return r;
    table_init(&l.table, list_columns, ARRAY_LEN(list_columns));
    if (l.v->common.output == CLI_JSON)
        l.schedules = json_array();
    r = schedule_each(c, &f, on_schedule, &l);
    if (r == 0 || l.more)
        r = print_listing(&l);
    json_decref(l.schedules);
    table_done(&l.table);
    return r < 0 ? cli_fail_errno(r) : r;
}

#define AT(field) offsetof(struct list_values, field)

static const struct arg_option list_options[] = {
    {"label", 'l', ARG_LIST, "KEY=VALUE", "with this label", NULL, NULL, AT(labels), 0, 0},
    {"state", 's', ARG_CHOICE, NULL, "in this state", "any", state_names, AT(state), 0, 0},
    {"prefix", 0, ARG_STRING, "TEXT", "whose name begins so", NULL, NULL, AT(prefix), 0, 0},
    {"next-before", 0, ARG_STRING, "TIME", "that run before: 2h (from now), 2026-07-01T12:00:00Z",
     NULL, NULL, AT(next_before), 0, 0},
    {"limit", 'n', ARG_UINT, "N", "at most so many", "100", NULL, AT(limit), 1, 10000000},
    {"all", 0, ARG_FLAG, NULL, "without a limit", NULL, NULL, AT(all), 0, 0},
    {"stale", 0, ARG_FLAG, NULL, "what the asked node knows, without asking the leader", NULL, NULL,
     AT(stale), 0, 0},
    CLI_COMMON_OPTIONS,
};

const struct arg_command cmd_schedule_list = {
    .name = "list",
    .summary = "list schedules by name",
    .examples =
        "  chronos schedule list --state paused\n"
        "  chronos schedule list -l team=billing --next-before 1h -o json",
    .options = list_options,
    .options_count = ARRAY_LEN(list_options),
    .values_bytes = sizeof(struct list_values),
    .run = run_list,
};
