/* `chronos cluster drain, undrain`: no new work for a node's workers or for one worker. */
#include "cli/cmd_cluster.h"

#include "cli/common.h"

#include "chronos/v1/cluster_service.pb-c.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>

#define WAIT_POLL_MS 200
#define WAIT_BEYOND_MS 30000 /* the drain's own end, reports and leadership included */

struct drain_values {
    struct cli_common common;
    const char *worker;
    uint64_t drain_ms;
    bool wait;
};

/* Exactly one of node and worker. */
static int target(const struct drain_values *v, char **rest, size_t rest_count,
                  Chronos__V1__SetDrainRequest *req) {
    if ((rest_count == 1) == (v->worker != NULL))
        return cli_usage("name a node by its id, or a worker with --worker ID, not both");
    if (v->worker && !v->worker[0])
        return cli_usage("--worker: is empty; \"chronos cluster status\" lists the workers");
    if (v->worker) {
        req->worker_id = (char *) (uintptr_t) v->worker;
        return EXIT_CODE_OK;
    }
    return cluster_parse_node(rest[0], &req->node_id);
}

static int set_drain(const struct drain_values *v, const char *what,
                     const Chronos__V1__SetDrainRequest *req, Chronos__V1__SetDrainResponse **ret) {
    return cluster_call(&v->common, what, "SetDrain", &req->base,
                        &chronos__v1__set_drain_response__descriptor,
                        /* repeatable= */ true, (ProtobufCMessage **) ret);
}

static void print_target(const Chronos__V1__SetDrainRequest *req) {
    if (req->node_id > 0)
        printf("Node %" PRIu64, req->node_id);
    else
        printf("Worker %s", req->worker_id);
}

/* ---- waiting ------------------------------------------------------------------------------- */

static bool is_meant(const Chronos__V1__SetDrainRequest *req, const Chronos__V1__WorkerStatus *w) {
    return req->node_id > 0 ? w->node_id == req->node_id : strcmp(w->id, req->worker_id) == 0;
}

static bool is_drained(const Chronos__V1__SetDrainRequest *req,
                       const Chronos__V1__GetClusterStatusResponse *s) {
    /* No leader known: nobody can say what runs. */
    if (s->leader_id == 0 || s->leader_id == req->node_id)
        return false;
    for (size_t i = 0; i < s->n_workers; i++) {
        if (is_meant(req, s->workers[i]) && s->workers[i]->running > 0)
            return false;
    }
    return true;
}

static int wait_drained(const struct drain_values *v, const Chronos__V1__SetDrainRequest *req) {
    const struct timespec pause = {.tv_nsec = WAIT_POLL_MS * 1000000L};
    int64_t until = cli_now_ms() + (int64_t) v->drain_ms + WAIT_BEYOND_MS;

    while (true) {
        Chronos__V1__GetClusterStatusRequest ask = CHRONOS__V1__GET_CLUSTER_STATUS_REQUEST__INIT;
        Chronos__V1__GetClusterStatusResponse *s = NULL;
        bool done;
        int r = cluster_call(&v->common, "cluster drain", "GetClusterStatus", &ask.base,
                             &chronos__v1__get_cluster_status_response__descriptor,
                             /* repeatable= */ true, (ProtobufCMessage **) &s);

        if (r != EXIT_CODE_OK)
            return r;
        done = is_drained(req, s);
        protobuf_c_message_free_unpacked(&s->base, NULL);
        if (done)
            return EXIT_CODE_OK;
        if (cli_now_ms() >= until) {
            fprintf(stderr,
                    "chronos: cluster drain: attempts still run; \"chronos cluster status\" "
                    "shows where\n");
            return EXIT_CODE_UNAVAILABLE;
        }
        (void) nanosleep(&pause, NULL);
    }
}

/* ---- commands ------------------------------------------------------------------------------ */

static int run_drain(void *values, char **rest, size_t rest_count) {
    const struct drain_values *v = values;
    Chronos__V1__SetDrainRequest req = CHRONOS__V1__SET_DRAIN_REQUEST__INIT;
    Chronos__V1__SetDrainResponse *res = NULL;
    int r = target(v, rest, rest_count, &req);

    if (r != EXIT_CODE_OK)
        return r;
    req.on = true;
    req.timeout_ms = (int64_t) v->drain_ms;
    r = set_drain(v, "cluster drain", &req, &res);
    if (r == EXIT_CODE_OK && v->wait)
        r = wait_drained(v, &req);
    if (r == EXIT_CODE_OK && v->common.output == CLI_JSON) {
        r = cli_print_message(&res->base);
    } else if (r == EXIT_CODE_OK) {
        print_target(&req);
        printf(v->wait ? " is drained.\n" : " gets no new work.\n");
    }
    if (res)
        protobuf_c_message_free_unpacked(&res->base, NULL);
    return r;
}

static int run_undrain(void *values, char **rest, size_t rest_count) {
    const struct drain_values *v = values;
    Chronos__V1__SetDrainRequest req = CHRONOS__V1__SET_DRAIN_REQUEST__INIT;
    Chronos__V1__SetDrainResponse *res = NULL;
    int r = target(v, rest, rest_count, &req);

    if (r == EXIT_CODE_OK)
        r = set_drain(v, "cluster undrain", &req, &res);
    if (r != EXIT_CODE_OK)
        return r;
    if (v->common.output == CLI_JSON) {
        r = cli_print_message(&res->base);
    } else {
        print_target(&req);
        printf(" gets work again.\n");
    }
    protobuf_c_message_free_unpacked(&res->base, NULL);
    return r;
}

#define WORKER_OPTION                                                                              \
    {                                                                                              \
        "worker", 0, ARG_STRING, "ID", "this worker, wherever it is connected", NULL, NULL,        \
            offsetof(struct drain_values, worker), 0, 0                                            \
    }

/* The time limit of the call is called otherwise: here --timeout is the drain's. At least 1 ms: 0
 * asks the cluster for its default. */
static const struct arg_option drain_options[] = {
    WORKER_OPTION,
    {"timeout", 0, ARG_DURATION, "TIME",
     "running attempts may finish for so long, then they are "
     "released for other workers",
     "30s", NULL, offsetof(struct drain_values, drain_ms), 1, 24ULL * 3600 * 1000},
    {"wait", 0, ARG_FLAG, NULL, "until nothing runs there and it does not lead", NULL, NULL,
     offsetof(struct drain_values, wait), 0, 0},
    CLI_COMMON_OPTIONS_TIMEOUT("call-timeout"),
};

const struct arg_command cmd_cluster_drain = {
    .name = "drain",
    .summary = "no new work for a node's workers, or for one worker",
    .positional = "[NODE]",
    .details =
        "Leadership moves away from the node first. Attempts that do not end within --timeout are\n"
        "released: they run elsewhere, and no attempt is counted. It holds until undrain, also "
        "over\n"
        "restarts.",
    .examples =
        "  chronos cluster drain 2 --wait\n"
        "  chronos cluster drain --worker gpu-7 --timeout 5m",
    .options = drain_options,
    .options_count = ARRAY_LEN(drain_options),
    .values_bytes = sizeof(struct drain_values),
    .rest_max = 1,
    .run = run_drain,
};

static const struct arg_option undrain_options[] = {WORKER_OPTION, CLI_COMMON_OPTIONS};

const struct arg_command cmd_cluster_undrain = {
    .name = "undrain",
    .summary = "give a drained node's workers, or one worker, work again",
    .positional = "[NODE]",
    .examples = "  chronos cluster undrain 2\n  chronos cluster undrain --worker gpu-7",
    .options = undrain_options,
    .options_count = ARRAY_LEN(undrain_options),
    .values_bytes = sizeof(struct drain_values),
    .rest_max = 1,
    .run = run_undrain,
};
