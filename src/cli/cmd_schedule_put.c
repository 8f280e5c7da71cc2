/* `chronos schedule create` and `update`: the same options. create fills an empty definition,
 * update changes those fields of the stored one that were given, and only if nobody else has
 * changed it meanwhile. */
#include "cli/cli_schedule.h"

#include <errno.h>
#include <string.h>

struct put_values {
    struct cli_common common;
    /* What a definition consists of: NULL and empty = not given. */
    struct arg_list cron, exclude, labels, env;
    const char *description, *time_zone, *dst, *day_match, *start, *end, *max_runs, *missed;
    const char *catchup_window, *overlap, *spread, *jitter;
    bool pause_on_failure;
    const char *shell, *job_name, *queue, *working_dir, *run_timeout, *kill_grace, *output_limit;
    const char *max_attempts;
    bool no_timeout;
    /* create */
    bool paused;
    const char *key;
    /* update */
    uint64_t version;
    struct arg_list unset;
};

#define AT(field) offsetof(struct put_values, field)

/* Which option sets which field. */
static const struct {
    const char *option, *key;
    bool job;
    size_t offset;
} setters[] = {
    {"cron", "cron", false, AT(cron)},
    {"exclude", "exclude", false, AT(exclude)},
    {"label", "labels", false, AT(labels)},
    {"env", "env", true, AT(env)},
    {"description", "description", false, AT(description)},
    {"tz", "time_zone", false, AT(time_zone)},
    {"dst", "dst", false, AT(dst)},
    {"day-match", "day_match", false, AT(day_match)},
    {"start", "start", false, AT(start)},
    {"end", "end", false, AT(end)},
    {"max-runs", "max_runs", false, AT(max_runs)},
    {"missed", "missed", false, AT(missed)},
    {"catchup-window", "catchup_window", false, AT(catchup_window)},
    {"overlap", "overlap", false, AT(overlap)},
    {"spread", "spread", false, AT(spread)},
    {"jitter", "jitter", false, AT(jitter)},
    {"job-name", "name", true, AT(job_name)},
    {"queue", "queue", true, AT(queue)},
    {"cwd", "working_dir", true, AT(working_dir)},
    {"timeout", "run_timeout", true, AT(run_timeout)},
    {"kill-grace", "kill_grace", true, AT(kill_grace)},
    {"output-limit", "output_limit", true, AT(output_limit)},
    {"max-attempts", "max_attempts", true, AT(max_attempts)},
};

struct put {
    const struct put_values *v;
    struct arena arena;
    Chronos__V1__ScheduleSpec *spec; /* in the arena */
};

/* ---- filling ----------------------------------------------------------------------------------
 */

/* 0, an exit code after printing why, or -ENOMEM; as all below. */
static int set_pair(struct put *p, const char *option, const struct schedule_field *f,
                    ProtobufCMessage *m, const char *text) {
    const char *equals = strchr(text, '=');
    char *key;

    if (!equals || equals == text)
        return cli_usage("--%s %.64s: write NAME=VALUE", option, text);
    key = arena_strdup(&p->arena, text);
    if (!key)
        return -ENOMEM;
    key[equals - text] = '\0';
    return schedule_field_put(f, m, key, equals + 1, &p->arena);
}

static int set_one(struct put *p, const char *option, const struct schedule_field *f,
                   ProtobufCMessage *m, const char *text) {
    struct errtext why = {""};
    int r;

    if (f->kind == SCHEDULE_MAP)
        return set_pair(p, option, f, m, text);
    r = schedule_field_set(f, m, text, &p->arena, &why);
    return r > 0 ? cli_usage("--%s: %s", option, why.s) : r;
}

/* A list that is given replaces the stored one. */
static int set_many(struct put *p, const char *option, const struct schedule_field *f,
                    ProtobufCMessage *m, const struct arg_list *list) {
    int r = 0;

    if (list->count > 0)
        schedule_field_clear(f, m);
    for (size_t i = 0; r == 0 && i < list->count; i++)
        r = set_one(p, option, f, m, list->items[i]);
    return r;
}

static int set_fields(struct put *p) {
    int r = 0;

    for (size_t i = 0; r == 0 && i < ARRAY_LEN(setters); i++) {
        const struct schedule_field *f = schedule_field_of(setters[i].key, setters[i].job);
        ProtobufCMessage *m = setters[i].job ? &p->spec->job->base : &p->spec->base;
        const char *at = (const char *) p->v + setters[i].offset;
        const char *text;

        if (f->kind == SCHEDULE_TEXTS || f->kind == SCHEDULE_MAP) {
            r = set_many(p, setters[i].option, f, m, (const struct arg_list *) (const void *) at);
            continue;
        }
        memcpy(&text, at, sizeof(text));
        if (text)
            r = set_one(p, setters[i].option, f, m, text);
    }
    if (p->v->pause_on_failure)
        p->spec->pause_on_failure = true;
    if (r == 0 && p->v->no_timeout && p->v->run_timeout)
        return cli_usage("give either --timeout or --no-timeout, not both");
    if (p->v->no_timeout)
        p->spec->job->run_timeout_ms = -1;
    return r;
}

static int set_payload(struct put *p, char **argv, size_t argc) {
    Chronos__V1__JobSpec *job = p->spec->job;

    if (p->v->shell && argc > 0)
        return cli_usage("give either --shell or a command, not both");
    if (p->v->shell) {
        job->shell = (char *) (uintptr_t) p->v->shell;
        job->payload_case = CHRONOS__V1__JOB_SPEC__PAYLOAD_SHELL;
    }
    if (argc == 0)
        return 0;
    job->command = arena_zalloc(&p->arena, sizeof(*job->command));
    if (!job->command)
        return -ENOMEM;
    chronos__v1__command__init(job->command);
    job->command->argv = argv;
    job->command->n_argv = argc;
    job->payload_case = CHRONOS__V1__JOB_SPEC__PAYLOAD_COMMAND;
    return 0;
}

/* An option's name, or the field's as in YAML. */
static int unset(struct put *p, const char *name) {
    for (size_t i = 0; i < ARRAY_LEN(setters); i++) {
        if (strcmp(name, setters[i].option) == 0 || strcmp(name, setters[i].key) == 0) {
            schedule_field_clear(schedule_field_of(setters[i].key, setters[i].job),
                                 setters[i].job ? &p->spec->job->base : &p->spec->base);
            return 0;
        }
    }
    if (strcmp(name, "pause-on-failure") != 0 && strcmp(name, "pause_on_failure") != 0)
        return cli_usage("--unset %.64s: is no option of this command", name);
    p->spec->pause_on_failure = false;
    return 0;
}

static int report(const Chronos__V1__Schedule *s, const char *done, uint32_t output) {
    char when[32];

    if (output == CLI_JSON)
        return schedule_print(s, output);
    if (s->paused)
        printf("%s %s, paused\n", s->spec->name, done);
    else if (s->next_run_ms > 0)
        printf("%s %s, next run %s\n", s->spec->name, done, text_time(s->next_run_ms, when));
    else
        printf("%s %s, no run to come\n", s->spec->name, done);
    return EXIT_CODE_OK;
}

/* ---- create -----------------------------------------------------------------------------------
 */

static int new_spec(struct put *p, char *name) {
    p->spec = arena_zalloc(&p->arena, sizeof(*p->spec));
    if (!p->spec)
        return -ENOMEM;
    chronos__v1__schedule_spec__init(p->spec);
    p->spec->name = name;
    p->spec->job = arena_zalloc(&p->arena, sizeof(*p->spec->job));
    if (!p->spec->job)
        return -ENOMEM;
    chronos__v1__job_spec__init(p->spec->job);
    return 0;
}

static int send_create(const struct put *p) {
    _cleanup_(client_freep) struct client *c = NULL;
    Chronos__V1__ScheduleResponse *res = NULL;
    char random_key[SCHEDULE_KEY_BYTES];
    const char *key = p->v->key;
    struct client_error e;
    int r = 0;

    if (!key) {
        r = schedule_random_key(random_key);
        key = random_key;
    }
    if (r == 0)
        r = cli_connect(&p->v->common, &c);
    if (r != 0)
        return r;
    if (schedule_try_create(c, p->spec, p->v->paused, key, &res, &e) != 0) {
        r = cli_fail(p->spec->name, &e);
        if (e.code == RPC_DEADLINE_EXCEEDED)
            fprintf(stderr, "To repeat it safely: --idempotency-key %s\n", key);
        return r;
    }
    r = report(res->schedule, "created", p->v->common.output);
    chronos__v1__schedule_response__free_unpacked(res, NULL);
    return r;
}

static int run_create(void *values, char **rest, size_t rest_count) {
    struct put p = {.v = values};
    int r;

    ASSERT(rest_count >= 1);
    arena_init(&p.arena, SCHEDULE_ARENA_BYTES);
    r = new_spec(&p, rest[0]);
    if (r == 0)
        r = set_fields(&p);
    if (r == 0)
        r = set_payload(&p, rest + 1, rest_count - 1);
    if (r == 0 && p.spec->n_cron == 0)
        r = cli_usage("when should it run? --cron '0 9 * * mon-fri', or --cron @manual");
    if (r == 0 && p.spec->job->payload_case == CHRONOS__V1__JOB_SPEC__PAYLOAD__NOT_SET)
        r = cli_usage("what should run? chronos schedule create NAME ... -- COMMAND [ARGUMENT...]");
    if (r == 0)
        r = send_create(&p);
    arena_done(&p.arena);
    return r < 0 ? cli_fail_errno(r) : r;
}

/* ---- update -----------------------------------------------------------------------------------
 */

/* The stored definition, without what the node completed it with. */
static int fetch(struct put *p, struct client *c, const char *name, uint64_t *ret_version) {
    Chronos__V1__ScheduleResponse *res = NULL;
    struct client_error e;

    if (schedule_try_get(c, name, &res, &e) != 0)
        return cli_fail(name, &e);
    p->spec = schedule_spec_copy(res->schedule->spec, &p->arena);
    *ret_version = res->schedule->version;
    chronos__v1__schedule_response__free_unpacked(res, NULL);
    if (!p->spec)
        return -ENOMEM;
    schedule_spec_strip(p->spec);
    if (p->spec->job)
        return 0;
    p->spec->job = arena_zalloc(&p->arena, sizeof(*p->spec->job));
    if (!p->spec->job)
        return -ENOMEM;
    chronos__v1__job_spec__init(p->spec->job);
    return 0;
}

static int change(struct put *p, char **argv, size_t argc) {
    int r = 0;

    for (size_t i = 0; r == 0 && i < p->v->unset.count; i++)
        r = unset(p, p->v->unset.items[i]);
    if (r == 0)
        r = set_fields(p);
    return r == 0 ? set_payload(p, argv, argc) : r;
}

static int update(struct put *p, char **rest, size_t rest_count) {
    _cleanup_(client_freep) struct client *c = NULL;
    Chronos__V1__ScheduleResponse *res = NULL;
    struct client_error e;
    uint64_t version = 0;
    int r = cli_connect(&p->v->common, &c);

    if (r == 0)
        r = fetch(p, c, rest[0], &version);
    if (r == 0)
        r = change(p, rest + 1, rest_count - 1);
    if (r != 0)
        return r;
    if (p->v->version > 0)
        version = p->v->version;
    if (schedule_try_update(c, p->spec, version, &res, &e) != 0)
        return cli_fail(rest[0], &e);
    r = report(res->schedule, "updated", p->v->common.output);
    chronos__v1__schedule_response__free_unpacked(res, NULL);
    return r;
}

static int run_update(void *values, char **rest, size_t rest_count) {
    struct put p = {.v = values};
    int r;

    ASSERT(rest_count >= 1);
    arena_init(&p.arena, SCHEDULE_ARENA_BYTES);
    r = update(&p, rest, rest_count);
    arena_done(&p.arena);
    return r < 0 ? cli_fail_errno(r) : r;
}

/* ---- tables -----------------------------------------------------------------------------------
 */

/* clang-format off */
#define TEXT(name, alias, value, help, field) \
    {name, alias, ARG_STRING, value, help, NULL, NULL, AT(field), 0, 0}
#define WORD(name, names, help, field) \
    {name, 0, ARG_STRING, NULL, help, NULL, names, AT(field), 0, 0}
#define LIST(name, alias, value, help, field) \
    {name, alias, ARG_LIST, value, help, NULL, NULL, AT(field), 0, 0}
#define FLAG(name, help, field) {name, 0, ARG_FLAG, NULL, help, NULL, NULL, AT(field), 0, 0}

#define DEFINITION_OPTIONS                                                                         \
    LIST("cron", 'c', "EXPR", "when it runs: '*/15 9-17 * * mon-fri', @hourly, '@every 90s'",      \
         cron),                                                                                    \
    LIST("exclude", 0, "EXPR", "when it does not", exclude),                                       \
    TEXT("tz", 'z', "ZONE", "IANA time zone (default UTC)", time_zone),                            \
    WORD("dst", schedule_dst_names, "policy when clocks change (default once)", dst),              \
    WORD("day-match", schedule_day_match_names,                                                    \
         "how day of the month and weekday join (default or)", day_match),                         \
    TEXT("start", 0, "TIME", "no tick before, like 2026-07-01T00:00:00Z", start),                  \
    TEXT("end", 0, "TIME", "no tick from then on", end),                                           \
    TEXT("max-runs", 0, "N", "run at most so often (default: no bound)", max_runs),                \
    WORD("missed", schedule_missed_names, "late ticks (default once: the newest runs)", missed),   \
    TEXT("catchup-window", 0, "TIME", "ticks later than this do not run (default 1h)",             \
         catchup_window),                                                                          \
    WORD("overlap", schedule_overlap_names, "while a run is open (default skip)", overlap),        \
    FLAG("pause-on-failure", "pause after a run that failed", pause_on_failure),                   \
    TEXT("spread", 0, "TIME", "delay all starts by a fixed share of this", spread),                \
    TEXT("jitter", 0, "TIME", "delay each start by another share of this", jitter),                \
    LIST("label", 'l', "KEY=VALUE", "label, of its jobs too", labels),                             \
    TEXT("description", 0, "TEXT", "for people", description),                                     \
    TEXT("shell", 's', "LINE", "one line for /bin/sh -c instead of a command", shell),             \
    TEXT("job-name", 0, "TEXT", "name of its jobs, for people", job_name),                         \
    TEXT("queue", 'q', "NAME", "queue (default: default)", queue),                                 \
    LIST("env", 'e', "NAME=VALUE", "environment variable", env),                                   \
    TEXT("cwd", 0, "DIR", "absolute working directory (default: a fresh private one)",             \
         working_dir),                                                                             \
    TEXT("timeout", 't', "TIME", "kill an attempt after this long (default 5m)", run_timeout),     \
    FLAG("no-timeout", "let attempts run as long as they like", no_timeout),                       \
    TEXT("kill-grace", 0, "TIME", "between SIGTERM and SIGKILL (default 10s)", kill_grace),        \
    TEXT("output-limit", 0, "SIZE", "output kept (default 1MiB, at most 64MiB)", output_limit),    \
    TEXT("max-attempts", 0, "N", "tries when workers are lost (default 3)", max_attempts),         \
    CLI_COMMON_OPTIONS_TIMEOUT("call-timeout")
/* clang-format on */

static const struct arg_option create_options[] = {
    DEFINITION_OPTIONS,
    FLAG("paused", "begin paused", paused),
    TEXT("idempotency-key", 0, "KEY", "the same key creates it only once (default: random)", key),
};

static const struct arg_option update_options[] = {
    DEFINITION_OPTIONS,
    {"version", 0, ARG_UINT, "N", "only when this is its version (default: as just read)", NULL,
     NULL, AT(version), 1, 0},
    LIST("unset", 0, "OPTION", "back to the default", unset),
};

const struct arg_command cmd_schedule_create = {
    .name = "create",
    .summary = "create a schedule",
    .positional = "NAME -- COMMAND [ARGUMENT...]",
    .details =
        "docs/semantics.md has the language of expressions. `schedule preview --cron` shows what\n"
        "one will do, without creating anything.",
    .examples =
        "  chronos schedule create report --cron '0 9 * * mon-fri' --tz Europe/Berlin -- report\n"
        "  chronos schedule create sync --cron '@every 90s' --overlap skip -s 'rsync -a /a /b'\n"
        "  chronos schedule create night --cron '30 2 * * *' --exclude '* * 24-26 12 *' -- night",
    .options = create_options,
    .options_count = ARRAY_LEN(create_options),
    .values_bytes = sizeof(struct put_values),
    .rest_min = 1,
    .rest_max = SIZE_MAX,
    .run = run_create,
};

const struct arg_command cmd_schedule_update = {
    .name = "update",
    .summary = "change a schedule",
    .positional = "NAME [-- COMMAND [ARGUMENT...]]",
    .details =
        "What is not given stays. A list that is given replaces the stored one. When someone else\n"
        "changes the schedule at the same moment, nothing is done and the exit code is 1.",
    .examples =
        "  chronos schedule update report --cron '0 10 * * mon-fri'\n"
        "  chronos schedule update report --unset spread --unset labels\n"
        "  chronos schedule update report -- /opt/report --all",
    .options = update_options,
    .options_count = ARRAY_LEN(update_options),
    .values_bytes = sizeof(struct put_values),
    .rest_min = 1,
    .rest_max = SIZE_MAX,
    .run = run_update,
};
