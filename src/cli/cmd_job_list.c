/* `chronos job list`: pages until the limit, as one table or one JSON document. */
#include "cli/cli_job.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PAGE_SIZE_MAX 1000
#define LIST_STATES_MAX 5
#define COMMAND_TEXT_BYTES 512

struct list_values {
    struct cli_common common;
    struct arg_list states;
    const char *worker;
    const char *queue;
    const char *contains;
    const char *since;
    const char *until;
    uint64_t limit;
    bool all;
    bool oldest_first;
    bool stale;
};

struct listing {
    const struct list_values *v;
    Chronos__V1__ListJobsRequest req;
    Chronos__V1__JobState states[LIST_STATES_MAX];
    struct table table;
    json_t *jobs; /* owned array; JSON only */
    uint64_t count;
    uint64_t index;
    char *token; /* owned: the next page, NULL = done */
    int64_t now_ms;
};

static const struct table_column columns[] = {
    {"ID", TABLE_LEFT, false},    {"STATE", TABLE_LEFT, false},  {"QUEUE", TABLE_LEFT, true},
    {"TRY", TABLE_RIGHT, false},  {"WORKER", TABLE_LEFT, true},  {"CREATED", TABLE_LEFT, false},
    {"TOOK", TABLE_RIGHT, false}, {"RESULT", TABLE_LEFT, false}, {"COMMAND", TABLE_LEFT, true},
};

/* How long it ran, or has been running. */
static const char *took(const struct listing *l, const Chronos__V1__Job *j, char out[32]) {
    if (j->started_at_ms == 0)
        return "-";
    if (j->finished_at_ms > 0)
        return text_elapsed(j->finished_at_ms - j->started_at_ms, out);
    if (j->state != CHRONOS__V1__JOB_STATE__JOB_STATE_RUNNING)
        return "-";
    return text_elapsed(MAX(l->now_ms - j->started_at_ms, (int64_t) 0), out);
}

static int add_row(struct listing *l, const Chronos__V1__Job *j) {
    char command[COMMAND_TEXT_BYTES], result[128], created[32], elapsed[32];
    const char *queue = j->spec && j->spec->queue[0] ? j->spec->queue : "default";
    struct table *t = &l->table;
    int r = table_add(t, NULL, "%s", j->id);

    (void) cli_job_command_text(j->spec, command, sizeof(command));
    (void) cli_job_result_text(j, result, sizeof(result));
    if (r == 0)
        r = table_add(t, cli_job_state_colour(j->state), "%s", cli_job_state_name(j->state));
    if (r == 0)
        r = table_add(t, NULL, "%s", queue);
    if (r == 0)
        r = table_add(t, NULL, "%u", j->attempt);
    if (r == 0)
        r = table_add(t, NULL, "%s", j->worker_id[0] ? j->worker_id : "-");
    if (r == 0)
        r = table_add(t, NULL, "%s", text_time(j->created_at_ms, created));
    if (r == 0)
        r = table_add(t, NULL, "%s", took(l, j, elapsed));
    if (r == 0)
        r = table_add(t, NULL, "%s", result[0] ? result : "-");
    if (r == 0)
        r = table_add(t, NULL, "%s", command);
    return r;
}

static int add_job(struct listing *l, const Chronos__V1__Job *j) {
    l->count++;
    if (!l->jobs)
        return add_row(l, j);
    return json_array_append_new(l->jobs, cli_job_json(j)) == 0 ? 0 : -ENOMEM;
}

/* 0; -ENOMEM; positive = exit code after printing why. */
static int fetch_page(struct client *c, struct listing *l) {
    uint64_t left = l->v->all ? PAGE_SIZE_MAX : l->v->limit - l->count;
    Chronos__V1__ListJobsResponse *res;
    ProtobufCMessage *reply = NULL;
    struct client_error e;
    int r = 0;

    l->req.page_size = (uint32_t) MIN(left, (uint64_t) PAGE_SIZE_MAX);
    l->req.page_token = l->token ? l->token : (char *) (uintptr_t) "";
    if (client_call(c, "/chronos.v1.JobService/ListJobs", &l->req.base,
                    &chronos__v1__list_jobs_response__descriptor, /* repeatable= */ true, &reply,
                    &e) != 0)
        return cli_fail("list", &e);
    res = (Chronos__V1__ListJobsResponse *) reply;
    l->index = res->index;
    for (size_t i = 0; r == 0 && i < res->n_jobs; i++)
        r = add_job(l, res->jobs[i]);
    free(l->token);
    l->token = NULL;
    if (r == 0 && res->next_page_token[0]) {
        l->token = strdup(res->next_page_token);
        r = l->token ? 0 : -ENOMEM;
    }
    chronos__v1__list_jobs_response__free_unpacked(res, NULL);
    return r;
}

static int print_listing(struct listing *l) {
    json_t *o;
    int r;

    if (!l->jobs) {
        table_print(&l->table, stdout);
        (void) fflush(stdout); /* the note comes after the table, whatever stdout is */
        if (l->token)
            fprintf(stderr, "There are more; --limit N or --all shows them.\n");
        return 0;
    }
    o = json_pack("{s:O, s:s, s:I}", "jobs", l->jobs, "next_page_token", l->token ? l->token : "",
                  "index", (json_int_t) l->index);
    r = json_print(o, /* pretty= */ true, stdout);
    json_decref(o);
    return r;
}

/* The filters into the request. 0 or the exit code. */
static int fill(struct listing *l) {
    const struct list_values *v = l->v;
    struct errtext why;

    if (v->states.count > LIST_STATES_MAX)
        return cli_usage("--state: at most %d", LIST_STATES_MAX);
    for (size_t i = 0; i < v->states.count; i++) {
        if (!cli_job_state_from_name(v->states.items[i], &l->states[i]))
            return cli_usage(
                "--state %.32s: must be pending, running, completed, failed or "
                "cancelled",
                v->states.items[i]);
    }
    l->req.states = l->states;
    l->req.n_states = v->states.count;
    l->req.worker_id = (char *) (uintptr_t) (v->worker ? v->worker : "");
    l->req.queue = (char *) (uintptr_t) (v->queue ? v->queue : "");
    l->req.command_contains = (char *) (uintptr_t) (v->contains ? v->contains : "");
    l->req.oldest_first = v->oldest_first;
    l->req.consistency = v->stale ? CHRONOS__V1__CONSISTENCY__CONSISTENCY_STALE
                                  : CHRONOS__V1__CONSISTENCY__CONSISTENCY_LINEARIZABLE;
    if (v->since && text_parse_time(v->since, l->now_ms, &l->req.created_after_ms, &why) != 0)
        return cli_usage("--since: %s", why.s);
    if (v->until && text_parse_time(v->until, l->now_ms, &l->req.created_before_ms, &why) != 0)
        return cli_usage("--until: %s", why.s);
    return 0;
}

static int run(void *values, char **rest, size_t rest_count) {
    struct listing l = {.v = values, .now_ms = cli_now_ms()};
    _cleanup_(client_freep) struct client *c = NULL;
    int r;

    (void) rest;
    ASSERT(rest_count == 0);
    chronos__v1__list_jobs_request__init(&l.req);
    table_init(&l.table, columns, ARRAY_LEN(columns));
    r = fill(&l);
    if (r == 0)
        r = cli_connect(&l.v->common, &c);
    if (r == 0 && l.v->common.output == CLI_JSON) {
        l.jobs = json_array();
        r = l.jobs ? 0 : -ENOMEM;
    }
    if (r == 0) {
        do
            r = fetch_page(c, &l);
        while (r == 0 && l.token && (l.v->all || l.count < l.v->limit));
    }
    if (r == 0)
        r = print_listing(&l);
    json_decref(l.jobs);
    free(l.token);
    table_done(&l.table);
    return r < 0 ? cli_fail_errno(r) : r;
}

#define AT(field) offsetof(struct list_values, field)

static const struct arg_option options[] = {
    {"state", 's', ARG_LIST, "STATE", "pending, running, completed, failed or cancelled", NULL,
     NULL, AT(states), 0, 0},
    {"worker", 0, ARG_STRING, "ID", "whose current or last attempt this worker has", NULL, NULL,
     AT(worker), 0, 0},
    {"queue", 'q', ARG_STRING, "NAME", "of this queue", NULL, NULL, AT(queue), 0, 0},
    {"contains", 0, ARG_STRING, "TEXT", "with this text in the command or name", NULL, NULL,
     AT(contains), 0, 0},
    {"since", 0, ARG_STRING, "TIME", "created at or after: 15m (ago), 2026-07-01, ...T12:00:00Z",
     NULL, NULL, AT(since), 0, 0},
    {"until", 0, ARG_STRING, "TIME", "created before", NULL, NULL, AT(until), 0, 0},
    {"limit", 'n', ARG_UINT, "N", "at most so many", "50", NULL, AT(limit), 1, 1000000},
    {"all", 0, ARG_FLAG, NULL, "without a limit", NULL, NULL, AT(all), 0, 0},
    {"oldest-first", 0, ARG_FLAG, NULL, "instead of newest first", NULL, NULL, AT(oldest_first), 0,
     0},
    {"stale", 0, ARG_FLAG, NULL, "what the asked node knows, without asking the leader", NULL, NULL,
     AT(stale), 0, 0},
    CLI_COMMON_OPTIONS,
};

const struct arg_command cmd_job_list = {
    .name = "list",
    .summary = "list jobs, newest first",
    .examples =
        "  chronos job list\n"
        "  chronos job list -s running -s pending\n"
        "  chronos job list --contains backup --since 24h -o json",
    .options = options,
    .options_count = ARRAY_LEN(options),
    .values_bytes = sizeof(struct list_values),
    .run = run,
};
