/* Waiting for a job: read it, then watch from the index the read reflects, so that no transition
 * falls between. Declared in cli_job.h. */
#include "cli/cli_job.h"

#include <string.h>
#include <unistd.h>

struct waiter {
    const char *id;
    uint32_t after_attempt;
    bool progress;
    uint64_t index; /* resume the watch after it */
    bool moved;     /* messages came on this stream */
    bool reached;
    int64_t started_ms;
    Chronos__V1__JobState state;
    uint32_t attempt;
    unsigned frame;
};

static bool is_reached(const struct waiter *w, Chronos__V1__JobState state, uint32_t attempt) {
    return cli_job_state_is_terminal(state) || attempt > w->after_attempt;
}

static void draw(void *arg) {
    struct waiter *w = arg;
    const char *colour = cli_job_state_colour(w->state);
    char elapsed[32];

    if (!w->progress)
        return;
    if (!text_colour_wanted(stderr))
        colour = NULL;
    fprintf(stderr, "\r\x1b[K%c %.64s  %s%s%s%s%s  attempt %u  %s", "|/-\\"[w->frame++ % 4],
            w -> id, colour ? "\x1b[" : "", colour ? colour : "", colour ? "m" : "",
            cli_job_state_name(w->state), colour ? "\x1b[0m" : "", w->attempt,
            text_elapsed(cli_now_ms() - w->started_ms, elapsed));
    (void) fflush(stderr);
}

static int on_events(void *arg, const ProtobufCMessage *message) {
    const Chronos__V1__WatchJobsResponse *m = (const void *) message;
    struct waiter *w = arg;

    w->moved = true;
    w->index = m->index > w->index ? m->index : w->index;
    for (size_t i = 0; i < m->n_events; i++) {
        if (strcmp(m->events[i]->job_id, w->id) != 0)
            continue;
        w->state = m->events[i]->to;
        w->attempt = m->events[i]->attempt;
        w->reached = w->reached || is_reached(w, w->state, w->attempt);
    }
    draw(w);
    return w->reached ? 1 : 0;
}

/* Watch once. 0 = look at the job again; else the exit code after printing why. */
static int watch_once(struct client *c, struct waiter *w) {
    Chronos__V1__WatchJobsRequest req = CHRONOS__V1__WATCH_JOBS_REQUEST__INIT;
    const struct client_stream_handler h = {
        .on_message = on_events, .on_tick = w->progress ? draw : NULL, .arg = w};
    char *ids[] = {(char *) (uintptr_t) w->id};
    struct client_error e = {.code = RPC_OK};
    int r;

    w->moved = false;
    req.after_index = w->index;
    req.job_ids = ids;
    req.n_job_ids = ARRAY_LEN(ids);
    r = client_stream(c, "/chronos.v1.JobService/WatchJobs", &req.base,
                      &chronos__v1__watch_jobs_response__descriptor, &h, &e);
    if (w->reached || r == RPC_OUT_OF_RANGE)
        return 0; /* forgotten by the node: the job itself says where it stands */
    if (r == 0)
        e = (struct client_error){.code = RPC_UNAVAILABLE, .message = "the node ended the watch"};
    if (client_stream_retry(c, &e, w->moved, &h))
        return 0;
    if (w->progress)
        fputs("\r\x1b[K", stderr);
    return cli_job_fail(w->id, &e);
}

int cli_job_wait(struct client *c, const char *id, uint32_t after_attempt, bool progress,
                 Chronos__V1__GetJobResponse **ret) {
    struct waiter w = {.id = id,
                       .after_attempt = after_attempt,
                       .progress = progress && isatty(STDERR_FILENO),
                       .started_ms = cli_now_ms()};

    client_stream_start(c);
    while (true) {
        Chronos__V1__GetJobResponse *reply = NULL;
        int r = cli_job_fetch(c, id, &reply);

        if (r == 0 && is_reached(&w, reply->job->state, reply->job->attempt)) {
            if (w.progress)
                fputs("\r\x1b[K", stderr);
            *ret = reply;
            return EXIT_CODE_OK;
        }
        if (r == 0) {
            w.state = reply->job->state;
            w.attempt = reply->job->attempt;
            w.index = reply->index;
            w.reached = false;
            draw(&w);
            chronos__v1__get_job_response__free_unpacked(reply, NULL);
            r = watch_once(c, &w);
        }
        if (r != 0)
            return r;
    }
}
