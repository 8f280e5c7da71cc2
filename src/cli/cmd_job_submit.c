/* `chronos job submit`. Every submit carries an idempotency key, so that repeating it is safe. */
#include "base/arena.h"
#include "cli/cli_job.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define KEY_BYTES 16
#define JOB_TEXT_MAX 1024

struct submit_values {
    struct cli_common common;
    bool wait;
    bool follow;
    bool no_timeout;
    const char *shell;
    const char *name;
    const char *queue;
    struct arg_list env;
    struct arg_list labels;
    const char *cwd;
    uint64_t run_timeout_ms;
    uint64_t kill_grace_ms;
    uint64_t output_limit;
    uint64_t max_attempts;
    const char *key;
};

/* What the request points into; freed at once. */
struct request {
    Chronos__V1__SubmitJobRequest req;
    Chronos__V1__JobSpec spec;
    Chronos__V1__Command command;
    Chronos__V1__JobSpec__EnvEntry *env; /* owned arrays */
    Chronos__V1__JobSpec__EnvEntry **env_pointers;
    Chronos__V1__JobSpec__LabelsEntry *labels;
    Chronos__V1__JobSpec__LabelsEntry **label_pointers;
    char key[2 * KEY_BYTES + 1];
    struct arena texts; /* the keys before each '=' */
};

static void request_done(struct request *q) {
    free(q->env);
    free(q->env_pointers);
    free(q->labels);
    free(q->label_pointers);
    arena_done(&q->texts);
}

/* "K=V" -> key in @q's arena, value borrowed. 0, the exit code, or -ENOMEM. */
static int split_pair(struct request *q, const char *option, const char *text, char **ret_key,
                      char **ret_value) {
    const char *equals = strchr(text, '=');
    char *key;

    if (!equals || equals == text)
        return cli_usage("--%s %.64s: write NAME=VALUE", option, text);
    key = arena_strdup(&q->texts, text);
    if (!key)
        return -ENOMEM;
    key[equals - text] = '\0';
    *ret_key = key;
    *ret_value = (char *) (uintptr_t) (equals + 1);
    return 0;
}

static int fill_env(struct request *q, const struct arg_list *list) {
    int r = 0;

    q->env = calloc(list->count + 1, sizeof(*q->env));
    q->env_pointers = calloc(list->count + 1, sizeof(*q->env_pointers));
    if (!q->env || !q->env_pointers)
        return -ENOMEM;
    for (size_t i = 0; r == 0 && i < list->count; i++) {
        chronos__v1__job_spec__env_entry__init(&q->env[i]);
        q->env_pointers[i] = &q->env[i];
        r = split_pair(q, "env", list->items[i], &q->env[i].key, &q->env[i].value);
    }
    q->spec.env = q->env_pointers;
    q->spec.n_env = list->count;
    return r;
}

static int fill_labels(struct request *q, const struct arg_list *list) {
    int r = 0;

    q->labels = calloc(list->count + 1, sizeof(*q->labels));
    q->label_pointers = calloc(list->count + 1, sizeof(*q->label_pointers));
    if (!q->labels || !q->label_pointers)
        return -ENOMEM;
    for (size_t i = 0; r == 0 && i < list->count; i++) {
        chronos__v1__job_spec__labels_entry__init(&q->labels[i]);
        q->label_pointers[i] = &q->labels[i];
        r = split_pair(q, "label", list->items[i], &q->labels[i].key, &q->labels[i].value);
    }
    q->spec.labels = q->label_pointers;
    q->spec.n_labels = list->count;
    return r;
}

static int fill_payload(struct request *q, const struct submit_values *v, char **argv,
                        size_t argc) {
    if (v->shell && argc > 0)
        return cli_usage("give either --shell or a command, not both");
    if (v->shell) {
        q->spec.payload_case = CHRONOS__V1__JOB_SPEC__PAYLOAD_SHELL;
        q->spec.shell = (char *) (uintptr_t) v->shell;
        return 0;
    }
    if (argc == 0)
        return cli_usage("what should run? chronos job submit -- COMMAND [ARGUMENT...]");
    chronos__v1__command__init(&q->command);
    q->command.argv = argv;
    q->command.n_argv = argc;
    q->spec.payload_case = CHRONOS__V1__JOB_SPEC__PAYLOAD_COMMAND;
    q->spec.command = &q->command;
    return 0;
}

/* 128 random bits: two submits never share a key by chance. */
static int fill_key(struct request *q, const struct submit_values *v) {
    uint8_t raw[KEY_BYTES];

    if (v->key) {
        q->req.idempotency_key = (char *) (uintptr_t) v->key;
        return 0;
    }
    if (getrandom(raw, sizeof(raw), 0) != (ssize_t) sizeof(raw))
        return -errno;
    for (size_t i = 0; i < sizeof(raw); i++)
        (void) snprintf(q->key + 2 * i, 3, "%02x", raw[i]);
    q->req.idempotency_key = q->key;
    return 0;
}

static char *text_or_empty(const char *s) {
    return (char *) (uintptr_t) (s ? s : "");
}

static int fill(struct request *q, const struct submit_values *v, char **argv, size_t argc) {
    int r;

    memset(q, 0, sizeof(*q));
    arena_init(&q->texts, (size_t) 16 * 1024 * 1024);
    chronos__v1__submit_job_request__init(&q->req);
    chronos__v1__job_spec__init(&q->spec);
    q->req.spec = &q->spec;
    q->spec.name = text_or_empty(v->name);
    q->spec.queue = text_or_empty(v->queue);
    q->spec.working_dir = text_or_empty(v->cwd);
    q->spec.run_timeout_ms = v->no_timeout ? -1 : (int64_t) v->run_timeout_ms;
    q->spec.kill_grace_ms = (int64_t) v->kill_grace_ms;
    q->spec.output_limit_bytes = v->output_limit;
    q->spec.max_attempts = (uint32_t) v->max_attempts;
    if (v->no_timeout && v->run_timeout_ms > 0)
        return cli_usage("give either --timeout or --no-timeout, not both");
    r = fill_payload(q, v, argv, argc);
    if (r == 0)
        r = fill_env(q, &v->env);
    if (r == 0)
        r = fill_labels(q, &v->labels);
    if (r == 0)
        r = fill_key(q, v);
    return r;
}

/* Completed is success; what else has ended is a failure of the command line too. */
static int exit_of(const Chronos__V1__Job *j) {
    return j->state == CHRONOS__V1__JOB_STATE__JOB_STATE_COMPLETED ? EXIT_CODE_OK
                                                                   : EXIT_CODE_FAILED;
}

/* Stream each attempt's output as it is written, until the job has ended. */
static int follow(struct client *c, const char *id) {
    uint32_t seen = 0;

    while (true) {
        Chronos__V1__GetJobResponse *reply = NULL;
        char text[JOB_TEXT_MAX];
        int r = cli_job_wait(c, id, seen, /* progress= */ true, &reply);
        bool ended;
        uint32_t attempt;

        if (r != 0)
            return r;
        attempt = reply->job->attempt;
        ended = cli_job_state_is_terminal(reply->job->state);
        r = exit_of(reply->job);
        if (ended && attempt <= seen)
            fprintf(stderr, "%s %s%s%s\n", id, cli_job_state_name(reply->job->state),
                    reply->job->state == CHRONOS__V1__JOB_STATE__JOB_STATE_FAILED ? ": " : "",
                    reply->job->state == CHRONOS__V1__JOB_STATE__JOB_STATE_FAILED
                        ? cli_job_result_text(reply->job, text, sizeof(text))
                        : "");
        chronos__v1__get_job_response__free_unpacked(reply, NULL);
        if (ended && attempt <= seen)
            return r;
        seen = attempt;
        /* A failure here was printed; the job itself still decides the exit code. */
        (void) !cli_job_copy_logs(c, id, attempt, /* follow= */ true);
    }
}

static int wait_end(struct client *c, const char *id, uint32_t output) {
    Chronos__V1__GetJobResponse *reply = NULL;
    int r = cli_job_wait(c, id, UINT32_MAX, /* progress= */ true, &reply);
    int printed;

    if (r != 0)
        return r;
    printed = cli_job_print(reply->job, output);
    r = exit_of(reply->job);
    chronos__v1__get_job_response__free_unpacked(reply, NULL);
    return printed != 0 ? printed : r;
}

static int after_submit(struct client *c, const struct submit_values *v,
                        const Chronos__V1__SubmitJobResponse *res) {
    if (v->follow) {
        fprintf(stderr, "job %s\n", res->job_id);
        return follow(c, res->job_id);
    }
    if (v->wait)
        return wait_end(c, res->job_id, v->common.output);
    if (v->common.output == CLI_JSON)
        return cli_print_message(&res->base);
    return printf("%s\n", res->job_id) < 0 ? cli_fail_errno(-EIO) : EXIT_CODE_OK;
}

static int submit(const struct submit_values *v, const struct request *q) {
    _cleanup_(client_freep) struct client *c = NULL;
    ProtobufCMessage *reply = NULL;
    struct client_error e;
    int r = cli_connect(&v->common, &c);

    if (r != 0)
        return r;
    r = client_call(c, "/chronos.v1.JobService/SubmitJob", &q->req.base,
                    &chronos__v1__submit_job_response__descriptor, /* repeatable= */ true, &reply,
                    &e);
    if (r != 0) {
        r = cli_fail("submit", &e);
        /* After an unclear end the key is what makes another try safe. */
        if (e.code == RPC_DEADLINE_EXCEEDED)
            fprintf(stderr, "To repeat it safely: --idempotency-key %s\n", q->req.idempotency_key);
        return r;
    }
    r = after_submit(c, v, (const Chronos__V1__SubmitJobResponse *) reply);
    protobuf_c_message_free_unpacked(reply, NULL);
    return r;
}

static int run(void *values, char **rest, size_t rest_count) {
    const struct submit_values *v = values;
    struct request q;
    int r = fill(&q, v, rest, rest_count);

    if (r == 0)
        r = submit(v, &q);
    else if (r < 0)
        r = cli_fail_errno(r);
    request_done(&q);
    return r;
}

#define AT(field) offsetof(struct submit_values, field)

static const struct arg_option options[] = {
    {"wait", 'w', ARG_FLAG, NULL, "wait for the end; exit 0 only when it completed", NULL, NULL,
     AT(wait), 0, 0},
    {"follow", 'f', ARG_FLAG, NULL, "print its output while it runs; implies --wait", NULL, NULL,
     AT(follow), 0, 0},
    {"shell", 's', ARG_STRING, "LINE", "one line for /bin/sh -c instead of a command", NULL, NULL,
     AT(shell), 0, 0},
    {"name", 'n', ARG_STRING, "TEXT", "a name for people", NULL, NULL, AT(name), 0, 0},
    {"queue", 'q', ARG_STRING, "NAME", "queue (default: default)", NULL, NULL, AT(queue), 0, 0},
    {"env", 'e', ARG_LIST, "NAME=VALUE", "environment variable", NULL, NULL, AT(env), 0, 0},
    {"label", 'l', ARG_LIST, "KEY=VALUE", "label", NULL, NULL, AT(labels), 0, 0},
    {"cwd", 0, ARG_STRING, "DIR", "absolute working directory (default: a fresh private one)", NULL,
     NULL, AT(cwd), 0, 0},
    {"timeout", 't', ARG_DURATION, "TIME", "kill an attempt after this long (default 5m)", NULL,
     NULL, AT(run_timeout_ms), 0, 0},
    {"no-timeout", 0, ARG_FLAG, NULL, "let attempts run as long as they like", NULL, NULL,
     AT(no_timeout), 0, 0},
    {"kill-grace", 0, ARG_DURATION, "TIME", "between SIGTERM and SIGKILL (default 10s)", NULL, NULL,
     AT(kill_grace_ms), 0, 0},
    {"output-limit", 0, ARG_SIZE, "SIZE", "output kept (default 1MiB, at most 64MiB)", NULL, NULL,
     AT(output_limit), 0, 64ULL << 20},
    {"max-attempts", 0, ARG_UINT, "N", "tries when workers are lost (default 3; 1 = at most once)",
     NULL, NULL, AT(max_attempts), 0, 100},
    {"idempotency-key", 0, ARG_STRING, "KEY",
     "the same key submits the same job only once (default: random)", NULL, NULL, AT(key), 0, 0},
    CLI_COMMON_OPTIONS_TIMEOUT("call-timeout"),
};

const struct arg_command cmd_job_submit = {
    .name = "submit",
    .summary = "submit a command",
    .positional = "-- COMMAND [ARGUMENT...]",
    .details = "Prints the job's id once it is durable on a majority of the nodes.",
    .examples =
        "  chronos job submit -- echo hello\n"
        "  chronos job submit --wait -- /usr/bin/make -C /srv/site\n"
        "  chronos job submit --follow --shell 'du -sh /var/* | sort -h'\n"
        "  chronos job submit -n backup -q nightly -e LEVEL=9 -t 1h -- /opt/backup.sh",
    .options = options,
    .options_count = ARRAY_LEN(options),
    .values_bytes = sizeof(struct submit_values),
    .rest_max = SIZE_MAX,
    .rest_after_first = true,
    .run = run,
};
