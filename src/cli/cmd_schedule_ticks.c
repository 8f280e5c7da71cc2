/* `chronos schedule history`, `missed` and `backfill`: ticks in tables. */
#include "cli/cli_schedule.h"

#include "base/units.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define PAGE_SIZE_MAX 1000

/* ---- history and missed -----------------------------------------------------------------------
 */

struct ticks_values {
    struct cli_common common;
    uint64_t limit;
    bool stale;
};

struct ticks {
    const struct ticks_values *v;
    struct table table;
    json_t *ticks; /* owned; JSON only */
    uint64_t count;
    char *token; /* owned; NULL = done */
};

static int add_tick(struct ticks *t, const Chronos__V1__TickOutcome *o) {
    t->count++;
    if (!t->ticks)
        return schedule_tick_row(&t->table, o);
    return json_array_append_new(t->ticks, json_from_message(&o->base)) == 0 ? 0 : -ENOMEM;
}

static int fetch_ticks(struct client *c, struct ticks *t, Chronos__V1__ListTicksRequest *req) {
    Chronos__V1__ListTicksResponse *res;
    ProtobufCMessage *reply = NULL;
    int r;

    req->page_size = (uint32_t) MIN(t->v->limit - t->count, (uint64_t) PAGE_SIZE_MAX);
    req->page_token = t->token ? t->token : (char *) (uintptr_t) "";
    r = schedule_call(c, req->name, "ListTicks", &req->base,
                      &chronos__v1__list_ticks_response__descriptor, /* repeatable= */ true,
                      &reply);
    if (r != 0)
        return r;
    res = (Chronos__V1__ListTicksResponse *) reply;
    for (size_t i = 0; r == 0 && i < res->n_ticks; i++)
        r = add_tick(t, res->ticks[i]);
    free(t->token);
    t->token = NULL;
    if (r == 0 && res->next_page_token[0]) {
        t->token = strdup(res->next_page_token);
        r = t->token ? 0 : -ENOMEM;
    }
    chronos__v1__list_ticks_response__free_unpacked(res, NULL);
    return r;
}

static int print_ticks(const struct ticks *t) {
    json_t *o;
    int r;

    if (!t->ticks) {
        table_print(&t->table, stdout);
        return 0;
    }
    o = json_pack("{s:O, s:b}", "ticks", t->ticks, "more", t->token ? 1 : 0);
    r = json_print(o, /* pretty= */ true, stdout);
    json_decref(o);
    return r;
}

static int list_ticks(const struct ticks_values *v, char *name, bool only_missed) {
    Chronos__V1__ListTicksRequest req = CHRONOS__V1__LIST_TICKS_REQUEST__INIT;
    _cleanup_(client_freep) struct client *c = NULL;
    struct ticks t = {.v = v};
    int r = cli_connect(&v->common, &c);

    if (r != 0)
        return r;
    req.name = name;
    req.only_missed = only_missed;
    req.consistency = v->stale ? CHRONOS__V1__CONSISTENCY__CONSISTENCY_STALE
                               : CHRONOS__V1__CONSISTENCY__CONSISTENCY_LINEARIZABLE;
    table_init(&t.table, schedule_tick_columns, SCHEDULE_TICK_COLUMNS);
    if (v->common.output == CLI_JSON)
        t.ticks = json_array();
    do
        r = fetch_ticks(c, &t, &req);
    while (r == 0 && t.token && t.count < v->limit);
    if (r == 0)
        r = print_ticks(&t);
    free(t.token);
    json_decref(t.ticks);
    table_done(&t.table);
    return r < 0 ? cli_fail_errno(r) : r;
}

static int run_history(void *values, char **rest, size_t rest_count) {
    ASSERT(rest_count == 1);
    return list_ticks(values, rest[0], /* only_missed= */ false);
}

static int run_missed(void *values, char **rest, size_t rest_count) {
    ASSERT(rest_count == 1);
    return list_ticks(values, rest[0], /* only_missed= */ true);
}

static const struct arg_option ticks_options[] = {
    {"limit", 'n', ARG_UINT, "N", "at most so many", "100", NULL,
     offsetof(struct ticks_values, limit), 1, 100000},
    {"stale", 0, ARG_FLAG, NULL, "what the asked node knows, without asking the leader", NULL, NULL,
     offsetof(struct ticks_values, stale), 0, 0},
    CLI_COMMON_OPTIONS,
};

const struct arg_command cmd_schedule_history = {
    .name = "history",
    .summary = "show each tick with its outcome and job, newest first",
    .positional = "NAME",
    .details = "A line may stand for several ticks that were not run for one reason.",
    .examples = "  chronos schedule history report -n 10",
    .options = ticks_options,
    .options_count = ARRAY_LEN(ticks_options),
    .values_bytes = sizeof(struct ticks_values),
    .rest_min = 1,
    .rest_max = 1,
    .run = run_history,
};

const struct arg_command cmd_schedule_missed = {
    .name = "missed",
    .summary = "show ticks that were not run, and why",
    .positional = "NAME",
    .examples = "  chronos schedule missed report",
    .options = ticks_options,
    .options_count = ARRAY_LEN(ticks_options),
    .values_bytes = sizeof(struct ticks_values),
    .rest_min = 1,
    .rest_max = 1,
    .run = run_missed,
};

/* ---- backfill ---------------------------------------------------------------------------------
 */

struct backfill_values {
    struct cli_common common;
    const char *from;
    const char *until;
    bool ignore_overlap;
    bool dry_run;
};

static int parse_bound(const char *option, const char *text, int64_t *ret_ms) {
    struct errtext why = {""};
    uint64_t ms = 0;

    if (!text)
        return cli_usage("--%s is needed: a past instant, or 2h (ago)", option);
    if (units_parse_duration(text, &ms, &why) == 0 && ms < (uint64_t) cli_now_ms()) {
        *ret_ms = cli_now_ms() - (int64_t) ms;
        return 0;
    }
    if (schedule_parse_instant(text, ret_ms, &why) != 0)
        return cli_usage("--%s: %s, or 2h (ago)", option, why.s);
    return 0;
}

static int report_backfill(const struct backfill_values *v,
                           const Chronos__V1__BackfillScheduleResponse *res) {
    struct table t;
    int r = 0;

    if (v->common.output == CLI_JSON)
        return cli_print_message(&res->base);
    if (v->dry_run) {
        printf("%" PRIu64 " tick%s would run\n", res->ticks, res->ticks == 1 ? "" : "s");
        return EXIT_CODE_OK;
    }
    table_init(&t, schedule_tick_columns, SCHEDULE_TICK_COLUMNS);
    for (size_t i = 0; r == 0 && i < res->n_outcomes; i++)
        r = schedule_tick_row(&t, res->outcomes[i]);
    if (r == 0)
        table_print(&t, stdout);
    table_done(&t);
    return r < 0 ? cli_fail_errno(r) : EXIT_CODE_OK;
}

static int run_backfill(void *values, char **rest, size_t rest_count) {
    const struct backfill_values *v = values;
    Chronos__V1__BackfillScheduleRequest req = CHRONOS__V1__BACKFILL_SCHEDULE_REQUEST__INIT;
    _cleanup_(client_freep) struct client *c = NULL;
    ProtobufCMessage *reply = NULL;
    int r = parse_bound("from", v->from, &req.from_ms);

    ASSERT(rest_count == 1);
    if (r == 0)
        r = parse_bound("until", v->until, &req.until_ms);
    if (r == 0)
        r = cli_connect(&v->common, &c);
    if (r != 0)
        return r;
    req.name = rest[0];
    req.ignore_overlap = v->ignore_overlap;
    req.dry_run = v->dry_run;
    /* Done twice it would run everything twice: only what certainly did nothing is repeated. */
    r = schedule_call(c, rest[0], "BackfillSchedule", &req.base,
                      &chronos__v1__backfill_schedule_response__descriptor,
                      /* repeatable= */ v->dry_run, &reply);
    if (r != 0)
        return r;
    r = report_backfill(v, (Chronos__V1__BackfillScheduleResponse *) reply);
    protobuf_c_message_free_unpacked(reply, NULL);
    return r;
}

static const struct arg_option backfill_options[] = {
    {"from", 0, ARG_STRING, "TIME", "first instant of the range: 2026-07-01T00:00:00Z, 6h (ago)",
     NULL, NULL, offsetof(struct backfill_values, from), 0, 0},
    {"until", 0, ARG_STRING, "TIME", "end of the range, itself not in it", NULL, NULL,
     offsetof(struct backfill_values, until), 0, 0},
    {"ignore-overlap", 0, ARG_FLAG, NULL, "run them beside each other whatever the policy says",
     NULL, NULL, offsetof(struct backfill_values, ignore_overlap), 0, 0},
    {"dry-run", 0, ARG_FLAG, NULL, "only count", NULL, NULL,
     offsetof(struct backfill_values, dry_run), 0, 0},
    CLI_COMMON_OPTIONS,
};

const struct arg_command cmd_schedule_backfill = {
    .name = "backfill",
    .summary = "run the ticks of a past range now",
    .positional = "NAME",
    .details = "Oldest first, at most 1,000. The overlap policy holds unless told otherwise.",
    .examples =
        "  chronos schedule backfill report --from 2026-07-01 --until 2026-07-04 --dry-run\n"
        "  chronos schedule backfill report --from 6h --until 1h",
    .options = backfill_options,
    .options_count = ARRAY_LEN(backfill_options),
    .values_bytes = sizeof(struct backfill_values),
    .rest_min = 1,
    .rest_max = 1,
    .run = run_backfill,
};
