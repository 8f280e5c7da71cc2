/* `chronos schedule`: the group, and the small commands get, delete, pause, resume, trigger. */
#include "cli/cli_schedule.h"

#include "base/units.h"
#include "cli/commands.h"

#include <string.h>

#define NAMES_MAX 10000

/* ---- get --------------------------------------------------------------------------------------
 */

struct get_values {
    struct cli_common common;
};

static const struct arg_option get_options[] = {CLI_COMMON_OPTIONS};

static int run_get(void *values, char **rest, size_t rest_count) {
    const struct get_values *v = values;
    _cleanup_(client_freep) struct client *c = NULL;
    Chronos__V1__ScheduleResponse *res = NULL;
    struct client_error e;
    int r = cli_connect(&v->common, &c);

    ASSERT(rest_count == 1);
    if (r != 0)
        return r;
    if (schedule_try_get(c, rest[0], &res, &e) != 0)
        return cli_fail(rest[0], &e);
    r = schedule_print(res->schedule, v->common.output);
    chronos__v1__schedule_response__free_unpacked(res, NULL);
    return r;
}

const struct arg_command cmd_schedule_get = {
    .name = "get",
    .summary = "show one schedule",
    .positional = "NAME",
    .examples =
        "  chronos schedule get report\n"
        "  chronos schedule get report -o json | jq .next_run_ms",
    .options = get_options,
    .options_count = ARRAY_LEN(get_options),
    .values_bytes = sizeof(struct get_values),
    .rest_min = 1,
    .rest_max = 1,
    .run = run_get,
};

/* ---- delete -----------------------------------------------------------------------------------
 */

struct delete_values {
    struct cli_common common;
    uint64_t version;
    bool cancel;
};

static int run_delete(void *values, char **rest, size_t rest_count) {
    const struct delete_values *v = values;
    _cleanup_(client_freep) struct client *c = NULL;
    int worst = cli_connect(&v->common, &c);

    if (worst == 0 && v->version > 0 && rest_count > 1)
        return cli_usage("--version is about one schedule; name one");
    for (size_t i = 0; c && i < rest_count; i++) {
        struct client_error e;
        int r = schedule_try_delete(c, rest[i], v->version, v->cancel, &e);

        if (r != 0)
            r = cli_fail(rest[i], &e);
        else if (v->common.output == CLI_TABLE)
            printf("%s deleted\n", rest[i]);
        worst = worst == EXIT_CODE_OK ? r : worst;
    }
    return worst;
}

static const struct arg_option delete_options[] = {
    {"version", 0, ARG_UINT, "N", "only when this is its version", NULL, NULL,
     offsetof(struct delete_values, version), 1, 0},
    {"cancel-open-runs", 0, ARG_FLAG, NULL, "ask its open runs to stop", NULL, NULL,
     offsetof(struct delete_values, cancel), 0, 0},
    CLI_COMMON_OPTIONS,
};

const struct arg_command cmd_schedule_delete = {
    .name = "delete",
    .summary = "delete schedules",
    .positional = "NAME...",
    .details = "Open runs go on unless asked otherwise.",
    .examples = "  chronos schedule delete report --cancel-open-runs",
    .options = delete_options,
    .options_count = ARRAY_LEN(delete_options),
    .values_bytes = sizeof(struct delete_values),
    .rest_min = 1,
    .rest_max = NAMES_MAX,
    .run = run_delete,
};

/* ---- pause and resume -------------------------------------------------------------------------
 */

struct pause_values {
    struct cli_common common;
    bool all;
    const char *until;
    const char *reason;
};

/* "2h" from now, or an instant. */
static int parse_until(const char *text, int64_t *ret_ms) {
    struct errtext why = {""};
    uint64_t ms = 0;

    if (units_parse_duration(text, &ms, &why) == 0 && ms <= INT64_MAX / 2) {
        *ret_ms = cli_now_ms() + (int64_t) ms;
        return 0;
    }
    if (schedule_parse_instant(text, ret_ms, &why) != 0)
        return cli_usage("--until: %s, or 2h (from now)", why.s);
    return 0;
}

static int check_names(bool all, size_t count) {
    if (all && count > 0)
        return cli_usage("give either --all or names, not both");
    if (!all && count == 0)
        return cli_usage("which schedule? NAME..., or --all for the whole cluster");
    return 0;
}

/* @request has its name set already; @name "" = all. */
static int send_pause(struct client *c, const char *name, const char *method, const char *done,
                      const ProtobufCMessage *request, uint32_t output) {
    const char *what = name[0] ? name : "all schedules";
    Chronos__V1__PauseScheduleResponse *res;
    ProtobufCMessage *reply = NULL;
    int r =
        schedule_call(c, what, method, request, &chronos__v1__pause_schedule_response__descriptor,
                      /* repeatable= */ true, &reply);

    if (r != 0)
        return r;
    res = (Chronos__V1__PauseScheduleResponse *) reply;
    if (output == CLI_JSON)
        r = cli_print_message(&res->base);
    else
        printf("%s %s%s\n", what, res->changed || client_attempts(c) > 1 ? "" : "already ", done);
    chronos__v1__pause_schedule_response__free_unpacked(res, NULL);
    return r;
}

static int run_pause(void *values, char **rest, size_t rest_count) {
    const struct pause_values *v = values;
    _cleanup_(client_freep) struct client *c = NULL;
    Chronos__V1__PauseScheduleRequest req = CHRONOS__V1__PAUSE_SCHEDULE_REQUEST__INIT;
    int worst = check_names(v->all, rest_count);

    if (worst == 0 && v->until)
        worst = parse_until(v->until, &req.until_ms);
    if (worst == 0)
        worst = cli_connect(&v->common, &c);
    req.reason = (char *) (uintptr_t) (v->reason ? v->reason : "");
    for (size_t i = 0; c && i < MAX(rest_count, (size_t) 1); i++) {
        int r;

        req.name = v->all ? (char *) (uintptr_t) "" : rest[i];
        r = send_pause(c, req.name, "PauseSchedule", "paused", &req.base, v->common.output);
        worst = worst == EXIT_CODE_OK ? r : worst;
    }
    return worst;
}

static int run_resume(void *values, char **rest, size_t rest_count) {
    const struct pause_values *v = values;
    _cleanup_(client_freep) struct client *c = NULL;
    Chronos__V1__ResumeScheduleRequest req = CHRONOS__V1__RESUME_SCHEDULE_REQUEST__INIT;
    int worst = check_names(v->all, rest_count);

    if (worst == 0)
        worst = cli_connect(&v->common, &c);
    for (size_t i = 0; c && i < MAX(rest_count, (size_t) 1); i++) {
        int r;

        req.name = v->all ? (char *) (uintptr_t) "" : rest[i];
        r = send_pause(c, req.name, "ResumeSchedule", "resumed", &req.base, v->common.output);
        worst = worst == EXIT_CODE_OK ? r : worst;
    }
    return worst;
}

#define PAUSE_AT(field) offsetof(struct pause_values, field)

static const struct arg_option pause_options[] = {
    {"until", 0, ARG_STRING, "TIME", "resume by itself: 2h (from now), 2026-07-01T12:00:00Z", NULL,
     NULL, PAUSE_AT(until), 0, 0},
    {"reason", 0, ARG_STRING, "TEXT", "shown to others", NULL, NULL, PAUSE_AT(reason), 0, 0},
    {"all", 0, ARG_FLAG, NULL, "all schedules of the cluster (the global pause)", NULL, NULL,
     PAUSE_AT(all), 0, 0},
    CLI_COMMON_OPTIONS,
};

static const struct arg_option resume_options[] = {
    {"all", 0, ARG_FLAG, NULL, "lift the global pause", NULL, NULL, PAUSE_AT(all), 0, 0},
    CLI_COMMON_OPTIONS,
};

const struct arg_command cmd_schedule_pause = {
    .name = "pause",
    .summary = "stop schedules for a while",
    .positional = "[NAME...]",
    .details =
        "Ticks while paused are recorded as not run. The global pause stands beside those of\n"
        "single schedules: lifting one does not lift the other.",
    .examples =
        "  chronos schedule pause report --until 2h --reason 'database upgrade'\n"
        "  chronos schedule pause --all",
    .options = pause_options,
    .options_count = ARRAY_LEN(pause_options),
    .values_bytes = sizeof(struct pause_values),
    .rest_max = NAMES_MAX,
    .run = run_pause,
};

const struct arg_command cmd_schedule_resume = {
    .name = "resume",
    .summary = "lift a pause",
    .positional = "[NAME...]",
    .examples =
        "  chronos schedule resume report\n"
        "  chronos schedule resume --all",
    .options = resume_options,
    .options_count = ARRAY_LEN(resume_options),
    .values_bytes = sizeof(struct pause_values),
    .rest_max = NAMES_MAX,
    .run = run_resume,
};

/* ---- trigger ----------------------------------------------------------------------------------
 */

struct trigger_values {
    struct cli_common common;
    bool ignore_overlap;
    const char *key;
};

static int report_trigger(const char *name, const Chronos__V1__TriggerScheduleResponse *res,
                          uint32_t output) {
    const Chronos__V1__TickOutcome *o = res->outcome;
    int r = EXIT_CODE_OK;

    if (output == CLI_JSON)
        r = cli_print_message(&res->base);
    else if (!o)
        printf("%s: done\n", name);
    else if (o->waiting)
        printf("%s waits for job %s to end\n", name, o->job_id);
    else if (o->fired)
        printf("%s\n", o->job_id);
    if (o && !o->fired && !o->waiting) {
        fprintf(stderr, "chronos: %s: not run: %s%s%s\n", name, schedule_reason_text(o->reason),
                o->job_id[0] ? ": job " : "", o->job_id);
        return EXIT_CODE_FAILED;
    }
    return r;
}

static int run_trigger(void *values, char **rest, size_t rest_count) {
    const struct trigger_values *v = values;
    _cleanup_(client_freep) struct client *c = NULL;
    Chronos__V1__TriggerScheduleRequest req = CHRONOS__V1__TRIGGER_SCHEDULE_REQUEST__INIT;
    char key[SCHEDULE_KEY_BYTES];
    ProtobufCMessage *reply = NULL;
    int r = schedule_random_key(key);

    ASSERT(rest_count == 1);
    if (r < 0)
        return cli_fail_errno(r);
    req.name = rest[0];
    req.ignore_overlap = v->ignore_overlap;
    req.idempotency_key = v->key ? (char *) (uintptr_t) v->key : key;
    r = cli_connect(&v->common, &c);
    if (r == 0)
        r = schedule_call(c, rest[0], "TriggerSchedule", &req.base,
                          &chronos__v1__trigger_schedule_response__descriptor,
                          /* repeatable= */ true, &reply);
    if (r != 0)
        return r;
    r = report_trigger(rest[0], (Chronos__V1__TriggerScheduleResponse *) reply, v->common.output);
    protobuf_c_message_free_unpacked(reply, NULL);
    return r;
}

static const struct arg_option trigger_options[] = {
    {"ignore-overlap", 0, ARG_FLAG, NULL, "run beside an open run whatever the policy says", NULL,
     NULL, offsetof(struct trigger_values, ignore_overlap), 0, 0},
    {"idempotency-key", 0, ARG_STRING, "KEY", "the same key triggers only once (default: random)",
     NULL, NULL, offsetof(struct trigger_values, key), 0, 0},
    CLI_COMMON_OPTIONS,
};

const struct arg_command cmd_schedule_trigger = {
    .name = "trigger",
    .summary = "run a schedule once, now",
    .positional = "NAME",
    .details = "Prints the job's id. Exit code 1 when the overlap policy kept it from running.",
    .examples = "  chronos schedule trigger report",
    .options = trigger_options,
    .options_count = ARRAY_LEN(trigger_options),
    .values_bytes = sizeof(struct trigger_values),
    .rest_min = 1,
    .rest_max = 1,
    .run = run_trigger,
};

/* ---- the group --------------------------------------------------------------------------------
 */

static const struct arg_command *const children[] = {&cmd_schedule_create,
                                                     &cmd_schedule_update,
                                                     &cmd_schedule_get,
                                                     &cmd_schedule_list,
                                                     &cmd_schedule_delete,
                                                     &cmd_schedule_pause,
                                                     &cmd_schedule_resume,
                                                     &cmd_schedule_trigger,
                                                     &cmd_schedule_backfill,
                                                     &cmd_schedule_preview,
                                                     &cmd_schedule_describe,
                                                     &cmd_schedule_history,
                                                     &cmd_schedule_missed,
                                                     &cmd_schedule_apply,
                                                     &cmd_schedule_export,
                                                     &cmd_schedule_import,
                                                     NULL};

const struct arg_command cmd_schedule = {
    .name = "schedule",
    .summary = "run jobs by the clock",
    .details = "describe, and preview with --cron, need no cluster.",
    .examples =
        "  chronos schedule create report --cron '0 9 * * mon-fri' --tz Europe/Berlin -- report\n"
        "  chronos schedule preview --cron '30 2 * * *' --tz America/New_York -n 5\n"
        "  chronos schedule apply -f schedules.yaml --dry-run",
    .children = children,
};
