/* `chronos job watch`: every transition, one line each, resumed without a gap when a node goes. */
#include "cli/cli_job.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define WATCH_IDS_MAX 1000

struct watch_values {
    struct cli_common common;
    uint64_t after;
    bool from_start;
    bool follow;
};

enum watched { WATCHED_LIVE, WATCHED_ENDED_BEFORE, WATCHED_SHOWN };

struct watcher {
    uint32_t output;
    uint64_t index;
    bool moved;
    int error;
    /* The named jobs, when their ends end the watch; else none. */
    char **ids;
    size_t ids_count;
    enum watched *watched; /* owned: one for each of @ids */
    uint64_t until;        /* what had ended before is shown when the watch is there */
};

static bool all_shown(const struct watcher *w) {
    for (size_t i = 0; i < w->ids_count; i++)
        if (w->watched[i] == WATCHED_LIVE ||
            (w->watched[i] == WATCHED_ENDED_BEFORE && w->index < w->until))
            return false;
    return w->ids_count > 0;
}

static void note_end(struct watcher *w, const Chronos__V1__JobEvent *ev) {
    for (size_t i = 0; i < w->ids_count; i++)
        if (cli_job_state_is_terminal(ev->to) && strcmp(w->ids[i], ev->job_id) == 0)
            w->watched[i] = WATCHED_SHOWN;
}

/* Where the named jobs stand, before watching from there: no end falls between. 0 or the exit
 * code. */
static int look_first(struct client *c, struct watcher *w, const struct watch_values *v) {
    w->watched = calloc(w->ids_count + 1, sizeof(*w->watched));
    if (!w->watched)
        return cli_fail_errno(-ENOMEM);
    for (size_t i = 0; i < w->ids_count; i++) {
        Chronos__V1__GetJobResponse *reply = NULL;
        int r = cli_job_fetch(c, w->ids[i], &reply);

        if (r != 0)
            return r;
        if (cli_job_state_is_terminal(reply->job->state))
            w->watched[i] = WATCHED_ENDED_BEFORE;
        w->until = MAX(w->until, reply->index);
        if (i == 0 && v->after == 0 && !v->from_start)
            w->index = reply->index;
        chronos__v1__get_job_response__free_unpacked(reply, NULL);
    }
    return 0;
}

static void print_word(const char *word, Chronos__V1__JobState state, int width) {
    const char *colour = text_colour_wanted(stdout) ? cli_job_state_colour(state) : NULL;

    if (colour)
        printf("\x1b[%sm%-*s\x1b[0m", colour, width, word);
    else
        printf("%-*s", width, word);
}

static int print_event(const Chronos__V1__JobEvent *ev) {
    Chronos__V1__Job j = CHRONOS__V1__JOB__INIT;
    char when[32], result[128];

    j.state = ev->to;
    j.failure_reason = ev->failure_reason;
    j.exit_code = ev->exit_code;
    j.term_signal = ev->term_signal;
    printf("%8" PRIu64 "  %s  %s  ", ev->index, text_time(ev->at_ms, when), ev->job_id);
    print_word(ev->from == CHRONOS__V1__JOB_STATE__JOB_STATE_UNSPECIFIED
                   ? "-"
                   : cli_job_state_name(ev->from),
               ev->from, 9);
    printf(" -> ");
    print_word(cli_job_state_name(ev->to), ev->to, 9);
    if (ev->attempt > 0)
        printf("  attempt %u on %s", ev->attempt, ev->worker_id);
    if (cli_job_result_text(&j, result, sizeof(result))[0])
        printf("  %s", result);
    if (ev->cancel_requested && !cli_job_state_is_terminal(ev->to))
        printf("  (being cancelled)");
    return putchar('\n') == EOF ? -EIO : 0;
}

static int on_events(void *arg, const ProtobufCMessage *message) {
    const Chronos__V1__WatchJobsResponse *m = (const void *) message;
    struct watcher *w = arg;

    w->moved = true;
    for (size_t i = 0; w->error == 0 && i < m->n_events; i++) {
        if (w->output == CLI_JSON) {
            json_t *o = json_from_message(&m->events[i]->base);

            w->error = json_print(o, /* pretty= */ false, stdout);
            json_decref(o);
        } else {
            w->error = print_event(m->events[i]);
        }
        note_end(w, m->events[i]);
    }
    if (w->error == 0 && fflush(stdout) != 0)
        w->error = -EIO;
    w->index = MAX(w->index, m->index);
    return w->error == 0 && all_shown(w) ? 1 : w->error;
}

static int watch(struct client *c, struct watcher *w, const struct watch_values *v, char **rest,
                 size_t rest_count) {
    const struct client_stream_handler h = {.on_message = on_events, .arg = w};
    struct client_error e = {.code = RPC_OK};
    int r;

    client_stream_start(c);
    do {
        Chronos__V1__WatchJobsRequest req = CHRONOS__V1__WATCH_JOBS_REQUEST__INIT;

        req.after_index = w->index;
        req.from_start = v->from_start && w->index == 0;
        req.job_ids = rest;
        req.n_job_ids = rest_count;
        w->moved = false;
        r = client_stream(c, "/chronos.v1.JobService/WatchJobs", &req.base,
                          &chronos__v1__watch_jobs_response__descriptor, &h, &e);
        if (w->error != 0)
            return cli_fail_errno(w->error);
        if (all_shown(w))
            return EXIT_CODE_OK;
        if (r == 0)
            e = (struct client_error){.code = RPC_UNAVAILABLE,
                                      .message = "the node ended the watch"};
    } while (client_stream_retry(c, &e, w->moved, &h));
    if (w->index > 0)
        fprintf(stderr, "Resume with: --after %" PRIu64 "\n", w->index);
    return cli_fail("watch", &e);
}

static int run(void *values, char **rest, size_t rest_count) {
    const struct watch_values *v = values;
    struct watcher w = {.output = v->common.output,
                        .index = v->after,
                        .ids = rest,
                        .ids_count = v->follow ? 0 : rest_count};
    _cleanup_(client_freep) struct client *c = NULL;
    int r = cli_connect(&v->common, &c);

    if (r == 0 && w.ids_count > 0)
        r = look_first(c, &w, v);
    if (r == 0 && !all_shown(&w))
        r = watch(c, &w, v, rest, rest_count);
    free(w.watched);
    return r;
}

static const struct arg_option options[] = {
    {"after", 0, ARG_UINT, "INDEX", "every transition after this Raft index (default: from now on)",
     NULL, NULL, offsetof(struct watch_values, after), 0, INT64_MAX},
    {"follow", 'f', ARG_FLAG, NULL, "go on when all the named jobs have ended", NULL, NULL,
     offsetof(struct watch_values, follow), 0, 0},
    {"from-start", 0, ARG_FLAG, NULL, "everything the node remembers first", NULL, NULL,
     offsetof(struct watch_values, from_start), 0, 0},
    CLI_COMMON_OPTIONS,
};

const struct arg_command cmd_job_watch = {
    .name = "watch",
    .summary = "print every transition as it happens",
    .positional = "[ID...]",
    .details =
        "With IDs it ends when all of them have ended, else it runs until interrupted. When a\n"
        "node goes away it resumes at another one, without a gap. With -o json each line is one\n"
        "event.",
    .examples =
        "  chronos job watch\n"
        "  chronos job watch j21a\n"
        "  chronos job watch --after 1207 -o json",
    .options = options,
    .options_count = ARRAY_LEN(options),
    .values_bytes = sizeof(struct watch_values),
    .rest_max = WATCH_IDS_MAX,
    .run = run,
};
