/* `chronos why`: one line about a job or a schedule, from replicated state. */
#include "cli/cli_schedule.h"

#include "cli/commands.h"

#include <string.h>

struct why_values {
    struct cli_common common;
    bool job, schedule;
};

/* What the cluster says about it, or the gRPC code. */
static int ask(struct client *c, char *job, char *schedule, Chronos__V1__ExplainResponse **ret,
               struct client_error *reterr) {
    Chronos__V1__ExplainRequest req = CHRONOS__V1__EXPLAIN_REQUEST__INIT;
    ProtobufCMessage *reply = NULL;
    int r;

    if (job)
        req.job_id = job;
    if (schedule)
        req.schedule = schedule;
    r = schedule_try(c, "Explain", &req.base, &chronos__v1__explain_response__descriptor,
                     /* repeatable= */ true, &reply, reterr);
    if (r == 0)
        *ret = (Chronos__V1__ExplainResponse *) reply;
    return r;
}

static int print(const Chronos__V1__ExplainResponse *res, uint32_t output) {
    struct text_escape esc = {0};
    struct buf b;
    int r;

    if (output == CLI_JSON)
        return cli_print_message(&res->base);
    buf_init(&b, 8 * strlen(res->text) + 64);
    r = text_escape(&esc, res->text, strlen(res->text), /* one_line= */ true, &b);
    if (r == 0)
        r = text_escape_end(&esc, &b);
    if (r == 0)
        printf("%.*s\n", (int) b.len, (const char *) b.data);
    buf_done(&b);
    return r < 0 ? cli_fail_errno(r) : EXIT_CODE_OK;
}

/* It is not there, or its text cannot be an id or a name at all. */
static bool names_nothing(const struct client_error *e) {
    return e->code == RPC_NOT_FOUND || e->code == RPC_INVALID_ARGUMENT;
}

static int run(void *values, char **rest, size_t rest_count) {
    const struct why_values *v = values;
    _cleanup_(client_freep) struct client *c = NULL;
    Chronos__V1__ExplainResponse *res = NULL;
    struct client_error e;
    int r;

    ASSERT(rest_count == 1);
    if (v->job && v->schedule)
        return cli_usage("give either --job or --schedule, not both");
    r = cli_connect(&v->common, &c);
    if (r != 0)
        return r;
    r = ask(c, v->schedule ? NULL : rest[0], v->schedule ? rest[0] : NULL, &res, &e);
    if (r != 0 && !v->job && !v->schedule && names_nothing(&e))
        r = ask(c, NULL, rest[0], &res, &e);
    if (r != 0) {
        if (names_nothing(&e) && !v->job && !v->schedule)
            (void) snprintf(e.message, sizeof(e.message), "there is no such job or schedule");
        r = cli_fail(rest[0], &e);
        return names_nothing(&e) ? EXIT_CODE_NOT_FOUND : r;
    }
    r = print(res, v->common.output);
    chronos__v1__explain_response__free_unpacked(res, NULL);
    return r;
}

static const struct arg_option options[] = {
    {"job", 0, ARG_FLAG, NULL, "it is the id of a job", NULL, NULL,
     offsetof(struct why_values, job), 0, 0},
    {"schedule", 0, ARG_FLAG, NULL, "it is the name of a schedule", NULL, NULL,
     offsetof(struct why_values, schedule), 0, 0},
    CLI_COMMON_OPTIONS,
};

const struct arg_command cmd_why = {
    .name = "why",
    .summary = "say in one line why a job or schedule is where it is",
    .positional = "JOB|SCHEDULE",
    .details = "Taken for a job's id first, unless told otherwise.",
    .examples =
        "  chronos why j21a\n"
        "  chronos why report",
    .options = options,
    .options_count = ARRAY_LEN(options),
    .values_bytes = sizeof(struct why_values),
    .rest_min = 1,
    .rest_max = 1,
    .run = run,
};
