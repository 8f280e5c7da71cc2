/* `chronos job`: the group, and the small commands get and cancel. */
#include "cli/cli_job.h"

#include "cli/commands.h"

struct get_values {
    struct cli_common common;
};

static const struct arg_option get_options[] = {CLI_COMMON_OPTIONS};

static int run_get(void *values, char **rest, size_t rest_count) {
    const struct get_values *v = values;
    _cleanup_(client_freep) struct client *c = NULL;
    Chronos__V1__GetJobResponse *reply = NULL;
    int r = cli_connect(&v->common, &c);

    ASSERT(rest_count == 1);
    if (r == 0)
        r = cli_job_fetch(c, rest[0], &reply);
    if (r != 0)
        return r;
    r = cli_job_print(reply->job, v->common.output);
    chronos__v1__get_job_response__free_unpacked(reply, NULL);
    return r;
}

const struct arg_command cmd_job_get = {
    .name = "get",
    .summary = "show one job",
    .positional = "ID",
    .examples =
        "  chronos job get j21a\n"
        "  chronos job get -o json j21a | jq .state",
    .options = get_options,
    .options_count = ARRAY_LEN(get_options),
    .values_bytes = sizeof(struct get_values),
    .rest_min = 1,
    .rest_max = 1,
    .run = run_get,
};

/* ---- cancel -------------------------------------------------------------------------------- */

#define CANCEL_IDS_MAX 10000

static int print_cancelled(const Chronos__V1__Job *j, uint32_t output) {
    if (output == CLI_JSON)
        return cli_job_print(j, output);
    printf("%s  %s%s\n", j->id, cli_job_state_name(j->state),
           cli_job_state_is_terminal(j->state) ? "" : " (being cancelled)");
    return EXIT_CODE_OK;
}

/* A repeated cancel may find that its first try worked: that is success. */
static int cancelled_before(struct client *c, const char *id, const struct client_error *e,
                            uint32_t output) {
    Chronos__V1__GetJobResponse *reply = NULL;
    int r;

    if (e->code != RPC_FAILED_PRECONDITION || client_attempts(c) < 2)
        return cli_job_fail(id, e);
    r = cli_job_fetch(c, id, &reply);
    if (r != 0)
        return r;
    if (reply->job->state == CHRONOS__V1__JOB_STATE__JOB_STATE_CANCELLED)
        r = print_cancelled(reply->job, output);
    else
        r = cli_job_fail(id, e);
    chronos__v1__get_job_response__free_unpacked(reply, NULL);
    return r;
}

static int cancel_one(struct client *c, const char *id, uint32_t output) {
    Chronos__V1__CancelJobRequest req = CHRONOS__V1__CANCEL_JOB_REQUEST__INIT;
    Chronos__V1__CancelJobResponse *res;
    ProtobufCMessage *reply = NULL;
    struct client_error e;
    int r;

    req.job_id = (char *) (uintptr_t) id;
    r = client_call(c, "/chronos.v1.JobService/CancelJob", &req.base,
                    &chronos__v1__cancel_job_response__descriptor, /* repeatable= */ true, &reply,
                    &e);
    if (r != 0)
        return cancelled_before(c, id, &e, output);
    res = (Chronos__V1__CancelJobResponse *) reply;
    r = res->job ? print_cancelled(res->job, output) : EXIT_CODE_OK;
    chronos__v1__cancel_job_response__free_unpacked(res, NULL);
    return r;
}

static int run_cancel(void *values, char **rest, size_t rest_count) {
    const struct get_values *v = values;
    _cleanup_(client_freep) struct client *c = NULL;
    int worst = cli_connect(&v->common, &c);

    for (size_t i = 0; c && i < rest_count; i++) {
        int r = cancel_one(c, rest[i], v->common.output);

        worst = worst == EXIT_CODE_OK ? r : worst;
    }
    return worst;
}

const struct arg_command cmd_job_cancel = {
    .name = "cancel",
    .summary = "cancel jobs",
    .positional = "ID...",
    .details = "A pending job ends at once; a running one when its processes are gone.",
    .examples = "  chronos job cancel j21a j21b",
    .options = get_options,
    .options_count = ARRAY_LEN(get_options),
    .values_bytes = sizeof(struct get_values),
    .rest_min = 1,
    .rest_max = CANCEL_IDS_MAX,
    .run = run_cancel,
};

/* ---- the group ----------------------------------------------------------------------------- */

static const struct arg_command *const children[] = {
    &cmd_job_submit, &cmd_job_get,   &cmd_job_list, &cmd_job_cancel,
    &cmd_job_logs,   &cmd_job_watch, NULL};

const struct arg_command cmd_job = {
    .name = "job",
    .summary = "submit, inspect and cancel jobs",
    .details = "Each command takes --address with any nodes of the cluster, or CHRONOS_ADDRESS.",
    .examples =
        "  chronos job submit --wait -- echo hello\n"
        "  chronos job list --state failed --since 1h\n"
        "  chronos job logs -f j21a",
    .children = children,
};
