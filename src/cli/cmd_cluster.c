/* `chronos cluster`: the cluster as its operators see it. */
#include "cli/cmd_cluster.h"
#include "cli/commands.h"
#include "cli/common.h"

#include "chronos/v1/cluster_service.pb-c.h"

#include <inttypes.h>
#include <string.h>

#define DIGEST_SHOWN 12

struct status_values {
    struct cli_common common;
    bool local;
};

/* "12ms ago" or "never". */
static const char *ago(int64_t ms, char out[48]) {
    char text[32];

    if (ms < 0)
        (void) snprintf(out, 48, "never");
    else
        (void) snprintf(out, 48, "%s ago", text_elapsed(ms, text));
    return out;
}

/* A node's words: they may repeat what somebody else wrote. */
static int print_line(const char *title, const char *text) {
    struct text_escape e = {0};
    struct buf b;
    int r;

    buf_init(&b, 64 * 1024);
    r = text_escape(&e, text, strlen(text), /* one_line= */ true, &b);
    if (r == 0)
        printf("%s%.*s\n", title, (int) b.len, (const char *) b.data);
    buf_done(&b);
    return r;
}

static const char *or_dash(const char *s) {
    return s[0] ? s : "-";
}

static int node_row(struct table *t, const Chronos__V1__NodeStatus *n, bool leader) {
    char contact[48];
    int r = table_add(t, NULL, "%" PRIu64, n->id);

    if (r == 0)
        r = table_add(t, leader ? "1" : NULL, "%s", or_dash(n->role));
    if (r == 0)
        r = table_add(t, n->draining ? "33" : NULL, "%s%s", or_dash(n->membership),
                      n->draining ? ",draining" : "");
    if (r == 0)
        r = table_add(t, n->is_alive ? "32" : "31", "%s", n->is_alive ? "yes" : "no");
    if (r == 0)
        r = table_add(t, NULL, "%s", leader ? "-" : ago(n->last_contact_ms, contact));
    if (r == 0)
        r = table_add(t, NULL, "%" PRIu64, n->match_index);
    if (r == 0)
        r = table_add(t, NULL, "%" PRIu64, n->applied_index);
    if (r == 0)
        r = table_add(t, NULL, "%.*s", DIGEST_SHOWN, or_dash(n->digest));
    if (r == 0)
        r = table_add(t, NULL, "%s", or_dash(n->client_address));
    if (r == 0)
        r = table_add(t, NULL, "%s", or_dash(n->peer_address));
    if (r == 0)
        r = table_add(t, NULL, "%s", or_dash(n->version));
    return r;
}

static int print_nodes(const Chronos__V1__GetClusterStatusResponse *s) {
    static const struct table_column columns[] = {
        {"NODE", TABLE_RIGHT, false},    {"ROLE", TABLE_LEFT, false},
        {"MEMBER", TABLE_LEFT, false},   {"ALIVE", TABLE_LEFT, false},
        {"CONTACT", TABLE_LEFT, false},  {"MATCH", TABLE_RIGHT, false},
        {"APPLIED", TABLE_RIGHT, false}, {"DIGEST", TABLE_LEFT, false},
        {"CLIENTS", TABLE_LEFT, true},   {"PEERS", TABLE_LEFT, true},
        {"VERSION", TABLE_LEFT, false},
    };
    struct table t;
    int r = 0;

    table_init(&t, columns, ARRAY_LEN(columns));
    for (size_t i = 0; r == 0 && i < s->n_nodes; i++)
        r = node_row(&t, s->nodes[i], s->nodes[i]->id == s->leader_id);
    if (r == 0)
        table_print(&t, stdout);
    table_done(&t);
    return r;
}

static int worker_row(struct table *t, const Chronos__V1__WorkerStatus *w) {
    char heartbeat[48], labels[512] = "-";
    size_t used = 0;
    int r = table_add(t, NULL, "%s", w->id);

    for (size_t i = 0; i < w->n_labels && used < sizeof(labels); i++)
        used += (size_t) snprintf(labels + used, sizeof(labels) - used, "%s%s=%s", i > 0 ? "," : "",
                                  w->labels[i]->key, w->labels[i]->value);
    if (r == 0)
        r = table_add(t, NULL, "%" PRIu64, w->node_id);
    if (r == 0)
        r = table_add(t, NULL, "%s", or_dash(w->state));
    if (r == 0)
        r = table_add(t, w->is_alive ? "32" : "31", "%s", w->is_alive ? "yes" : "no");
    if (r == 0)
        r = table_add(t, NULL, "%u/%u", w->running, w->slots);
    if (r == 0)
        r = table_add(t, NULL, "%s", ago(w->last_heartbeat_ms, heartbeat));
    if (r == 0)
        r = table_add(t, NULL, "%s", labels);
    return r;
}

static int print_workers(const Chronos__V1__GetClusterStatusResponse *s) {
    static const struct table_column columns[] = {
        {"WORKER", TABLE_LEFT, true},    {"NODE", TABLE_RIGHT, false},
        {"STATE", TABLE_LEFT, false},    {"ALIVE", TABLE_LEFT, false},
        {"RUNNING", TABLE_RIGHT, false}, {"HEARTBEAT", TABLE_LEFT, false},
        {"LABELS", TABLE_LEFT, true},
    };
    struct table t;
    int r = 0;

    if (s->n_workers == 0) {
        printf("\nNo worker has registered.\n");
        return 0;
    }
    table_init(&t, columns, ARRAY_LEN(columns));
    for (size_t i = 0; r == 0 && i < s->n_workers; i++)
        r = worker_row(&t, s->workers[i]);
    if (r == 0) {
        putchar('\n');
        table_print(&t, stdout);
    }
    table_done(&t);
    return r;
}

static void print_schedules(const Chronos__V1__GetClusterStatusResponse *s) {
    printf("Ticks   %" PRIu64 " schedules, time zones %s", s->schedules,
           or_dash(s->tzdata_version));
    for (size_t i = 0; i < s->n_lateness; i++)
        printf("%s %" PRIu64 " %s (99%% within %" PRIu64 " ms)", i ? "," : ", fired",
               s->lateness[i]->count, s->lateness[i]->cause, s->lateness[i]->p99_ms);
    printf("\n\n");
}

/* What an operator must see first: bold words, one line each. Empty when all is well. */
static int print_alarms(const Chronos__V1__GetClusterStatusResponse *s) {
    int r = 0;

    for (size_t i = 0; r == 0 && i < s->n_alarms; i++)
        r = print_line("ALARM   ", s->alarms[i]);
    if (r == 0 && s->open_change[0])
        r = print_line("Change  ", s->open_change);
    for (size_t i = 0; r == 0 && i < s->n_nodes; i++) {
        /* A node of an earlier version tells neither. */
        if (s->nodes[i]->membership[0] && s->nodes[i]->snapshot_percent >= 0)
            printf("Sending the state to node %" PRIu64 ": %" PRId64 "%%\n", s->nodes[i]->id,
                   s->nodes[i]->snapshot_percent);
    }
    return r;
}

static int print_status(const ProtobufCMessage *m) {
    const Chronos__V1__GetClusterStatusResponse *s =
        (const Chronos__V1__GetClusterStatusResponse *) m;
    struct text_escape e = {0};
    struct buf b;
    int r;

    buf_init(&b, 4096);
    r = text_escape(&e, s->cluster_id, strlen(s->cluster_id), /* one_line= */ true, &b);
    if (r == 0) {
        printf("Cluster %.*s, term %" PRIu64 ", ", (int) b.len, (const char *) b.data, s->term);
        if (s->leader_id > 0)
            printf("leader node %" PRIu64, s->leader_id);
        else
            printf("no leader");
        printf(", seen by node %" PRIu64 "\n", s->answered_by);
        printf("Log     %" PRIu64 " to %" PRIu64 ", committed %" PRIu64 ", applied %" PRIu64
               ", %" PRIu64 " entries in memory\n",
               s->log_first_index, s->log_last_index, s->commit_index, s->applied_index,
               s->log_entries_in_memory);
        printf("State   %s, on disk up to %" PRIu64 ", %" PRIu64 " MiB, feature level %u\n",
               or_dash(s->digest), s->snapshot_index, s->state_bytes >> 20, s->feature_level);
        printf("Jobs    %" PRIu64 " pending, %" PRIu64 " running, %" PRIu64 " completed, %" PRIu64
               " failed, %" PRIu64 " cancelled\n",
               s->jobs_pending, s->jobs_running, s->jobs_completed, s->jobs_failed,
               s->jobs_cancelled);
        print_schedules(s);
        r = print_alarms(s);
    }
    if (r == 0)
        r = print_nodes(s);
    if (r == 0)
        r = print_workers(s);
    buf_done(&b);
    return r;
}

static int run_status(void *values, char **rest, size_t rest_count) {
    const struct status_values *v = values;
    Chronos__V1__GetClusterStatusRequest req = CHRONOS__V1__GET_CLUSTER_STATUS_REQUEST__INIT;

    (void) rest;
    ASSERT(rest_count == 0);
    req.local_only = v->local;
    return cli_query(&v->common, "cluster status", "/chronos.v1.ClusterService/GetClusterStatus",
                     &req.base, &chronos__v1__get_cluster_status_response__descriptor,
                     print_status);
}

static const struct arg_option status_options[] = {
    {"local", 0, ARG_FLAG, NULL, "what the asked node knows by itself", NULL, NULL,
     offsetof(struct status_values, local), 0, 0},
    CLI_COMMON_OPTIONS,
};

static const struct arg_command cmd_status = {
    .name = "status",
    .summary = "show nodes, workers, the log and job counts",
    .examples =
        "  chronos cluster status\n"
        "  chronos cluster status -o json | jq .leader_id\n"
        "  chronos cluster status --local -a 127.0.0.1:7410",
    .options = status_options,
    .options_count = ARRAY_LEN(status_options),
    .values_bytes = sizeof(struct status_values),
    .run = run_status,
};

/* ---- log ----------------------------------------------------------------------------------- */

struct log_values {
    struct cli_common common;
    uint64_t first;
    uint64_t limit;
};

static int entry_row(struct table *t, const Chronos__V1__LogEntryInfo *e) {
    char when[32];
    int r = table_add(t, NULL, "%" PRIu64, e->index);

    if (r == 0)
        r = table_add(t, NULL, "%" PRIu64, e->term);
    if (r == 0)
        r = table_add(t, NULL, "%s", text_time(e->at_ms, when));
    if (r == 0)
        r = table_add(t, NULL, "%s", e->type);
    if (r == 0)
        r = table_add(t, NULL, "%" PRIu64, e->bytes);
    if (r == 0)
        r = table_add(t, NULL, "%s", e->summary);
    return r;
}

static int print_entries(const ProtobufCMessage *m) {
    const Chronos__V1__ListLogEntriesResponse *res =
        (const Chronos__V1__ListLogEntriesResponse *) m;
    static const struct table_column columns[] = {
        {"INDEX", TABLE_RIGHT, false}, {"TERM", TABLE_RIGHT, false},  {"AT", TABLE_LEFT, false},
        {"TYPE", TABLE_LEFT, false},   {"BYTES", TABLE_RIGHT, false}, {"SUMMARY", TABLE_LEFT, true},
    };
    struct table t;
    int r = 0;

    table_init(&t, columns, ARRAY_LEN(columns));
    for (size_t i = 0; r == 0 && i < res->n_entries; i++)
        r = entry_row(&t, res->entries[i]);
    if (r == 0)
        table_print(&t, stdout);
    table_done(&t);
    return r;
}

static int run_log(void *values, char **rest, size_t rest_count) {
    const struct log_values *v = values;
    Chronos__V1__ListLogEntriesRequest req = CHRONOS__V1__LIST_LOG_ENTRIES_REQUEST__INIT;

    (void) rest;
    ASSERT(rest_count == 0);
    req.first_index = v->first;
    req.limit = (uint32_t) v->limit;
    return cli_query(&v->common, "cluster log", "/chronos.v1.ClusterService/ListLogEntries",
                     &req.base, &chronos__v1__list_log_entries_response__descriptor, print_entries);
}

static const struct arg_option log_options[] = {
    {"first", 0, ARG_UINT, "INDEX", "start here (default: the last entries)", NULL, NULL,
     offsetof(struct log_values, first), 0, INT64_MAX},
    {"limit", 'n', ARG_UINT, "N", "at most so many", "50", NULL, offsetof(struct log_values, limit),
     1, 1000},
    CLI_COMMON_OPTIONS,
};

static const struct arg_command cmd_log = {
    .name = "log",
    .summary = "list entries of the replicated log",
    .details = "For debugging: what the asked node has in its log. Payloads are not shown.",
    .examples =
        "  chronos cluster log\n"
        "  chronos cluster log --first 100 --limit 20",
    .options = log_options,
    .options_count = ARRAY_LEN(log_options),
    .values_bytes = sizeof(struct log_values),
    .run = run_log,
};

static const struct arg_command *const children[] = {&cmd_status,
                                                     &cmd_log,
                                                     &cmd_cluster_add,
                                                     &cmd_cluster_remove,
                                                     &cmd_cluster_promote,
                                                     &cmd_cluster_demote,
                                                     &cmd_cluster_replace,
                                                     &cmd_cluster_transfer,
                                                     &cmd_cluster_drain,
                                                     &cmd_cluster_undrain,
                                                     NULL};

const struct arg_command cmd_cluster = {
    .name = "cluster",
    .summary = "see and change the cluster",
    .examples = "  chronos cluster status\n  chronos cluster drain 2 --wait",
    .children = children,
};
