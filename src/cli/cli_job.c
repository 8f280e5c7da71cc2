#include "cli/cli_job.h"

#include <inttypes.h>
#include <string.h>
#include <strings.h>

#define LABEL_COLUMNS 10

static const char *const state_names[] = {"Unknown",   "Pending", "Running",
                                          "Completed", "Failed",  "Cancelled"};
static const char *const state_colours[] = {NULL, "33", "36", "32", "31", "35"};

const char *cli_job_state_name(Chronos__V1__JobState s) {
    return (size_t) s < ARRAY_LEN(state_names) ? state_names[s] : state_names[0];
}

const char *cli_job_state_colour(Chronos__V1__JobState s) {
    return (size_t) s < ARRAY_LEN(state_colours) ? state_colours[s] : NULL;
}

bool cli_job_state_from_name(const char *s, Chronos__V1__JobState *ret) {
    for (size_t i = 1; i < ARRAY_LEN(state_names); i++) {
        if (strcasecmp(s, state_names[i]) == 0) {
            *ret = (Chronos__V1__JobState) i;
            return true;
        }
    }
    return false;
}

bool cli_job_state_is_terminal(Chronos__V1__JobState s) {
    return s == CHRONOS__V1__JOB_STATE__JOB_STATE_COMPLETED ||
           s == CHRONOS__V1__JOB_STATE__JOB_STATE_FAILED ||
           s == CHRONOS__V1__JOB_STATE__JOB_STATE_CANCELLED;
}

/* Append @s as far as there is room. */
static size_t append_text(char *out, size_t bytes, size_t used, const char *s) {
    size_t len = MIN(strlen(s), bytes - 1 - used);

    ASSERT(used < bytes);
    memcpy(out + used, s, len);
    out[used + len] = '\0';
    return used + len;
}

/* Append @word, in single quotes when a shell would read it as something else. */
static size_t append_word(char *out, size_t bytes, size_t used, const char *word) {
    static const char plain[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
        "0123456789_@%+=:,./-";
    size_t len = strlen(word);

    if (len > 0 && strspn(word, plain) == len)
        return append_text(out, bytes, used, word);
    used = append_text(out, bytes, used, "'");
    for (size_t i = 0; i < len && used + 1 < bytes; i++) {
        char one[] = {word[i], '\0'};

        used = append_text(out, bytes, used, word[i] == '\'' ? "'\\''" : one);
    }
    return append_text(out, bytes, used, "'");
}

const char *cli_job_command_text(const Chronos__V1__JobSpec *spec, char *out, size_t bytes) {
    size_t used = 0;

    ASSERT(bytes >= 16);
    out[0] = '\0';
    if (!spec)
        return out;
    switch (spec->payload_case) {
    case CHRONOS__V1__JOB_SPEC__PAYLOAD_COMMAND:
        for (size_t i = 0; i < spec->command->n_argv && used + 1 < bytes; i++) {
            if (i > 0)
                used = append_text(out, bytes, used, " ");
            used = append_word(out, bytes, used, spec->command->argv[i]);
        }
        break;
    case CHRONOS__V1__JOB_SPEC__PAYLOAD_SHELL:
        (void) snprintf(out, bytes, "%s", spec->shell);
        break;
    case CHRONOS__V1__JOB_SPEC__PAYLOAD_NOOP:
        (void) snprintf(out, bytes, "(noop)");
        break;
    case CHRONOS__V1__JOB_SPEC__PAYLOAD__NOT_SET:
    case _CHRONOS__V1__JOB_SPEC__PAYLOAD__CASE_IS_INT_SIZE:
        break;
    }
    return out;
}

const char *cli_job_result_text(const Chronos__V1__Job *j, char *out, size_t bytes) {
    static const char *const reasons[] = {
        "", "", "", "timeout", "could not start", "worker lost", "output limit"};

    out[0] = '\0';
    if (j->state == CHRONOS__V1__JOB_STATE__JOB_STATE_COMPLETED)
        (void) snprintf(out, bytes, "exit code 0");
    if (j->state != CHRONOS__V1__JOB_STATE__JOB_STATE_FAILED)
        return out;
    if (j->failure_reason == CHRONOS__V1__FAILURE_REASON__FAILURE_REASON_EXIT_CODE)
        (void) snprintf(out, bytes, "exit code %d", j->exit_code);
    else if (j->failure_reason == CHRONOS__V1__FAILURE_REASON__FAILURE_REASON_SIGNAL)
        (void) snprintf(out, bytes, "signal %d", j->term_signal);
    else if ((size_t) j->failure_reason < ARRAY_LEN(reasons))
        (void) snprintf(out, bytes, "%s", reasons[j->failure_reason]);
    return out;
}

int cli_job_fail(const char *id, const struct client_error *e) {
    int r = cli_fail(id, e);

    if (e->code == RPC_INVALID_ARGUMENT && strncmp(e->message, "job_id", strlen("job_id")) == 0)
        return EXIT_CODE_NOT_FOUND;
    return r;
}

int cli_job_fetch(struct client *c, const char *id, Chronos__V1__GetJobResponse **ret) {
    Chronos__V1__GetJobRequest req = CHRONOS__V1__GET_JOB_REQUEST__INIT;
    ProtobufCMessage *reply = NULL;
    struct client_error e;

    req.job_id = (char *) (uintptr_t) id;
    if (client_call(c, "/chronos.v1.JobService/GetJob", &req.base,
                    &chronos__v1__get_job_response__descriptor, /* repeatable= */ true, &reply,
                    &e) != 0)
        return cli_job_fail(id, &e);
    *ret = (Chronos__V1__GetJobResponse *) reply;
    if ((*ret)->job)
        return EXIT_CODE_OK;
    chronos__v1__get_job_response__free_unpacked(*ret, NULL);
    *ret = NULL;
    e = (struct client_error){.code = RPC_INTERNAL, .message = "the node's answer holds no job"};
    return cli_job_fail(id, &e);
}

json_t *cli_job_json(const Chronos__V1__Job *j) {
    json_t *o = json_from_message(&j->base);

    if (o && j->output_tail.len > 0 &&
        json_object_set_new(o, "output_text", json_text(j->output_tail.data, j->output_tail.len)) !=
            0) {
        json_decref(o);
        return NULL;
    }
    return o;
}

/* ---- one job in full ----------------------------------------------------------------------- */

static int print_tail(const Chronos__V1__Job *j) {
    struct text_escape e = {0};
    struct buf b;
    int r;

    if (j->output_tail.len == 0)
        return 0;
    buf_init(&b, 8 * j->output_tail.len + 64);
    r = text_escape(&e, j->output_tail.data, j->output_tail.len, /* one_line= */ false, &b);
    if (r == 0)
        r = text_escape_end(&e, &b);
    if (r == 0) {
        printf("\nOutput (%zu of %" PRIu64 " bytes%s):\n", j->output_tail.len, j->output_bytes,
               j->output_truncated ? ", cut at the limit" : "");
        (void) fwrite(b.data, 1, b.len, stdout);
        if (b.len > 0 && b.data[b.len - 1] != '\n')
            putchar('\n');
    }
    buf_done(&b);
    return r;
}

static int print_labels(const Chronos__V1__JobSpec *s) {
    int r = 0;

    for (size_t i = 0; r == 0 && i < s->n_labels; i++) {
        char text[512];

        (void) snprintf(text, sizeof(text), "%s=%s", s->labels[i]->key, s->labels[i]->value);
        r = text_field(LABEL_COLUMNS, i == 0 ? "Labels" : "", text);
    }
    return r;
}

static int print_spec(const Chronos__V1__JobSpec *s) {
    char text[2048];
    int r;

    if (!s)
        return 0;
    r = text_field(LABEL_COLUMNS, "Name", s->name);
    if (r == 0)
        r = text_field(LABEL_COLUMNS, "Command", cli_job_command_text(s, text, sizeof(text)));
    if (r == 0)
        r = text_field(LABEL_COLUMNS, "Queue", s->queue);
    if (r == 0)
        r = text_field(LABEL_COLUMNS, "Directory", s->working_dir);
    return r == 0 ? print_labels(s) : r;
}

static int print_run(const Chronos__V1__Job *j) {
    char text[512], when[32];
    int r = text_field(LABEL_COLUMNS, "Created", text_time(j->created_at_ms, when));

    if (r == 0 && j->attempt > 0) {
        (void) snprintf(text, sizeof(text), "%u on %s, fencing token %" PRIu64, j->attempt,
                        j->worker_id, j->fencing_token);
        r = text_field(LABEL_COLUMNS, "Attempt", text);
    }
    if (r == 0 && j->started_at_ms > 0)
        r = text_field(LABEL_COLUMNS, "Started", text_time(j->started_at_ms, when));
    if (r == 0 && j->finished_at_ms > 0)
        r = text_field(LABEL_COLUMNS, "Finished", text_time(j->finished_at_ms, when));
    if (r == 0 && j->finished_at_ms > 0 && j->started_at_ms > 0)
        r = text_field(LABEL_COLUMNS, "Took",
                       text_elapsed(j->finished_at_ms - j->started_at_ms, when));
    if (r == 0)
        r = text_field(LABEL_COLUMNS, "Result", cli_job_result_text(j, text, sizeof(text)));
    if (r == 0)
        r = text_field(LABEL_COLUMNS, "Because", j->failure_message);
    return r;
}

int cli_job_print(const Chronos__V1__Job *j, uint32_t output) {
    int r;

    if (output == CLI_JSON) {
        json_t *o = cli_job_json(j);

        r = json_print(o, /* pretty= */ true, stdout);
        json_decref(o);
        return r < 0 ? cli_fail_errno(r) : EXIT_CODE_OK;
    }
    r = text_field(LABEL_COLUMNS, "Job", j->id);
    if (r == 0) {
        const char *colour = text_colour_wanted(stdout) ? cli_job_state_colour(j->state) : NULL;

        printf("%-10s %s%s%s%s%s%s\n", "State", colour ? "\x1b[" : "", colour ? colour : "",
               colour ? "m" : "", cli_job_state_name(j->state), colour ? "\x1b[0m" : "",
               j->cancel_requested && !cli_job_state_is_terminal(j->state) ? " (being cancelled)"
                                                                           : "");
        r = print_spec(j->spec);
    }
    if (r == 0)
        r = print_run(j);
    if (r == 0)
        r = print_tail(j);
    return r < 0 ? cli_fail_errno(r) : EXIT_CODE_OK;
}
