/* `chronos job logs`: the output of an attempt. Raw bytes for files and pipes, escaped for
 * terminals. */
#include "cli/cli_job.h"

#include <errno.h>
#include <inttypes.h>
#include <unistd.h>

struct copier {
    const char *id;
    uint32_t attempt; /* fixed by the first message, so that a resumed stream stays with it */
    uint64_t offset;  /* next byte wanted */
    bool escape;
    struct text_escape escape_state;
    bool moved;
    bool ended;
    bool said_tail;
    int error; /* negative errno of standard output */
};

static int write_all(const void *data, size_t len) {
    return fwrite(data, 1, len, stdout) == len && fflush(stdout) == 0 ? 0 : -EIO;
}

static int write_out(struct copier *c, const uint8_t *data, size_t len) {
    struct buf b;
    int r;

    if (!c->escape)
        return write_all(data, len);
    buf_init(&b, 4 * len + 64);
    r = text_escape(&c->escape_state, data, len, /* one_line= */ false, &b);
    if (r == 0)
        r = write_all(b.data, b.len);
    buf_done(&b);
    return r;
}

static int on_chunk(void *arg, const ProtobufCMessage *message) {
    const Chronos__V1__GetJobLogsResponse *m = (const void *) message;
    struct copier *c = arg;
    const uint8_t *data = m->data.data;
    size_t len = m->data.len;

    c->moved = true;
    if (m->attempt > 0)
        c->attempt = m->attempt;
    if (m->tail_only && !c->said_tail) {
        c->said_tail = true;
        fprintf(stderr, "chronos: the worker's copy is out of reach; this is the kept end\n");
    }
    if (len > 0 && m->offset > c->offset)
        fprintf(stderr, "chronos: %" PRIu64 " bytes before this are not available\n",
                m->offset - c->offset);
    if (m->offset < c->offset) {
        /* A resumed stream may repeat what we have. */
        size_t skip = MIN((size_t) (c->offset - m->offset), len);

        data += skip;
        len -= skip;
    }
    if (len > 0)
        c->error = write_out(c, data, len);
    c->offset = MAX(c->offset, m->offset + m->data.len);
    c->ended = m->end;
    return c->ended || c->error < 0 ? 1 : 0;
}

int cli_job_copy_logs(struct client *client, const char *id, uint32_t attempt, bool follow) {
    struct copier c = {.id = id, .attempt = attempt, .escape = isatty(STDOUT_FILENO)};
    const struct client_stream_handler h = {.on_message = on_chunk, .arg = &c};
    struct client_error e = {.code = RPC_OK};

    client_stream_start(client);
    while (true) {
        Chronos__V1__GetJobLogsRequest req = CHRONOS__V1__GET_JOB_LOGS_REQUEST__INIT;
        int r;

        req.job_id = (char *) (uintptr_t) id;
        req.attempt = c.attempt;
        req.offset = c.offset;
        req.follow = follow;
        c.moved = false;
        r = client_stream(client, "/chronos.v1.JobService/GetJobLogs", &req.base,
                          &chronos__v1__get_job_logs_response__descriptor, &h, &e);
        if (c.error < 0)
            return cli_fail_errno(c.error);
        if (r == 0)
            break;
        if (!client_stream_retry(client, &e, c.moved, &h))
            return cli_job_fail(id, &e);
    }
    if (c.escape_state.pending_len > 0) {
        struct buf b;
        int r;

        buf_init(&b, 64);
        r = text_escape_end(&c.escape_state, &b);
        if (r == 0)
            r = write_all(b.data, b.len);
        buf_done(&b);
        if (r < 0)
            return cli_fail_errno(r);
    }
    return EXIT_CODE_OK;
}

struct logs_values {
    struct cli_common common;
    bool follow;
    uint64_t attempt;
};

static int run(void *values, char **rest, size_t rest_count) {
    const struct logs_values *v = values;
    _cleanup_(client_freep) struct client *c = NULL;
    int r = cli_connect(&v->common, &c);

    ASSERT(rest_count == 1);
    return r != 0 ? r : cli_job_copy_logs(c, rest[0], (uint32_t) v->attempt, v->follow);
}

static const struct arg_option options[] = {
    CLI_COMMON_OPTIONS,
    {"follow", 'f', ARG_FLAG, NULL, "stay until the attempt ends", NULL, NULL,
     offsetof(struct logs_values, follow), 0, 0},
    {"attempt", 0, ARG_UINT, "N", "which attempt (default: the latest)", NULL, NULL,
     offsetof(struct logs_values, attempt), 0, UINT32_MAX},
};

const struct arg_command cmd_job_logs = {
    .name = "logs",
    .summary = "print the output of a job",
    .positional = "ID",
    .details = "Raw bytes go to files and pipes; on a terminal control characters are escaped.",
    .examples =
        "  chronos job logs j21a\n"
        "  chronos job logs -f j21a\n"
        "  chronos job logs --attempt 1 j21a > first-attempt.txt",
    .options = options,
    .options_count = ARRAY_LEN(options),
    .values_bytes = sizeof(struct logs_values),
    .rest_min = 1,
    .rest_max = 1,
    .run = run,
};
