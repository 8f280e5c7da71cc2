/* The table of settings and the command line over it. The file reader is config_yaml.c, the checks
 * are config_check.c. */
#include "cli/config.h"

#include "base/log.h"
#include "cli/config_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char *const profile_names[] = {"lan", "wan", NULL};
static const char *const level_names[] = {"debug", "info", "warn", "error", NULL};
static const char *const format_names[] = {"text", "json", NULL};

STATIC_ASSERT(CONFIG_PROFILE_LAN == 0 && CONFIG_PROFILE_WAN == 1, "order of profile_names");
STATIC_ASSERT(LOG_DEBUG == 0 && LOG_ERROR == 3, "order of level_names");
STATIC_ASSERT(LOG_TEXT == 0 && LOG_JSON == 1, "order of format_names");

#define AT(field) .offset = offsetof(struct config, field)
#define KIB 1024ULL
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)
#define SECOND 1000ULL
#define HOUR (3600 * SECOND)
#define DAY (24 * HOUR)

/* Grouped by section: config_print walks them in order. An empty default is filled by
 * config_finish. Minima keep a typo such as `5` seconds written as 5ms from starting. */
const struct arg_option config_options[] = {
    {"node.id", 0, ARG_UINT, "N", "this node's id, one of the members'", "1", NULL, AT(node.id), 1,
     CONFIG_NODE_ID_MAX},
    {"node.data_dir", 0, ARG_STRING, "DIR", "log, state and worker files", "./chronos-data", NULL,
     AT(node.data_dir), 0, 0},
    {"node.listen", 0, ARG_STRING, "HOST:PORT",
     "gRPC for clients and workers (default: the member's client address, else 127.0.0.1:7400)",
     NULL, NULL, AT(node.listen), 0, 0},
    {"node.peer_listen", 0, ARG_STRING, "HOST:PORT",
     "Raft between nodes (default: the member's address, else 127.0.0.1:7402)", NULL, NULL,
     AT(node.peer_listen), 0, 0},
    {"node.advertise", 0, ARG_STRING, "HOST:PORT",
     "client address told to others (default: the member's client address, else node.listen)", NULL,
     NULL, AT(node.advertise), 0, 0},
    {"node.advertise_peer", 0, ARG_STRING, "HOST:PORT",
     "peer address told to others (default: node.peer_listen, or the member's address when that is "
     "a "
     "wildcard)",
     NULL, NULL, AT(node.advertise_peer), 0, 0},

    {"cluster.name", 0, ARG_STRING, "NAME", "part of the identity given at --bootstrap", "chronos",
     NULL, AT(cluster.name), 0, 0},
    {"cluster.raft.profile", 0, ARG_CHOICE, NULL,
     "timing: lan 50ms/150ms, wan 500ms/1s (heartbeat/election)", "lan", profile_names,
     AT(cluster.profile), 0, 0},
    {"cluster.raft.heartbeat_timeout", 0, ARG_DURATION, "TIME",
     "interval of the leader's heartbeats (default by profile)", NULL, NULL,
     AT(cluster.heartbeat_timeout_ms), 5, 60 * SECOND},
    {"cluster.raft.election_timeout", 0, ARG_DURATION, "TIME",
     "shortest wait before an election; the longest is twice it (default by profile)", NULL, NULL,
     AT(cluster.election_timeout_ms), 10, 600 * SECOND},
    {"cluster.raft.snapshot_interval", 0, ARG_DURATION, "TIME", "time between snapshots", "30s",
     NULL, AT(cluster.snapshot_interval_ms), SECOND, DAY},
    {"cluster.raft.snapshot_threshold", 0, ARG_UINT, "N",
     "applied entries kept in memory, and log entries before a snapshot", "1000", NULL,
     AT(cluster.snapshot_threshold), 16, 1000000},
    {"cluster.raft.liveness_window", 0, ARG_DURATION, "TIME",
     "silence after which a node is shown as not alive", "3s", NULL, AT(cluster.liveness_window_ms),
     100, HOUR},
    {"cluster.raft.log_bytes_max", 0, ARG_SIZE, "SIZE",
     "log on disk above which a snapshot is taken early", "256MiB", NULL, AT(cluster.log_bytes_max),
     4 * MIB, 64 * GIB},
    {"cluster.raft.log_bytes_kept", 0, ARG_SIZE, "SIZE",
     "log kept behind a snapshot for slow followers", "64MiB", NULL, AT(cluster.log_bytes_kept), 0,
     64 * GIB},
    {"cluster.raft.lease_reads", 0, ARG_FLAG, NULL,
     "a leader answers reads without asking the others while its lease holds", "false", NULL,
     AT(cluster.lease_reads), 0, 0},
    {"cluster.raft.lease_drift_ppm", 0, ARG_UINT, "N",
     "how much two nodes' monotonic clocks may differ in speed, in millionths", "10000", NULL,
     AT(cluster.lease_drift_ppm), 1, 500000},

    {"limits.pending_proposals", 0, ARG_UINT, "N", "writes waiting for the log; more are refused",
     "256", NULL, AT(limits.pending_proposals), 1, 65536},
    {"limits.commit_timeout", 0, ARG_DURATION, "TIME",
     "a write not committed by then is answered \"outcome unknown\"", "5s", NULL,
     AT(limits.commit_timeout_ms), 100, HOUR},
    {"limits.uncommitted_bytes", 0, ARG_SIZE, "SIZE", "accepted by the leader, not yet committed",
     "64MiB", NULL, AT(limits.uncommitted_bytes), MIB, 4 * GIB},
    {"limits.uncommitted_entries", 0, ARG_UINT, "N", "accepted by the leader, not yet committed",
     "16384", NULL, AT(limits.uncommitted_entries), 16, 1000000},
    {"limits.message_bytes", 0, ARG_SIZE, "SIZE", "largest gRPC message", "4MiB", NULL,
     AT(limits.message_bytes), 64 * KIB, 64 * MIB},
    {"limits.jobs_per_call", 0, ARG_UINT, "N", "jobs in one SubmitJobs", "1000", NULL,
     AT(limits.jobs_per_call), 1, 1000},
    {"limits.watch_events", 0, ARG_UINT, "N", "transitions remembered for watches that resume",
     "65536", NULL, AT(limits.watch_events), 1024, 16777216},
    {"limits.watches", 0, ARG_UINT, "N", "WatchJobs streams of this node", "1000", NULL,
     AT(limits.watches), 1, 100000},
    {"limits.log_streams", 0, ARG_UINT, "N", "GetJobLogs streams of this node", "1000", NULL,
     AT(limits.log_streams), 1, 100000},
    {"limits.lists", 0, ARG_UINT, "N", "ListJobs calls scanned at a time", "256", NULL,
     AT(limits.lists), 1, 65536},
    {"limits.worker_streams", 0, ARG_UINT, "N", "workers connected to this node", "10000", NULL,
     AT(limits.worker_streams), 1, 100000},
    {"limits.connections", 0, ARG_UINT, "N", "connections of clients and workers to this node",
     "16384", NULL, AT(limits.connections), 32, 1000000},
    {"limits.peer_connections", 0, ARG_UINT, "N", "incoming connections of other nodes", "64", NULL,
     AT(limits.peer_connections), 4, 4096},

    {"wal.segment_bytes", 0, ARG_SIZE, "SIZE", "size of one file of the log", "16MiB", NULL,
     AT(wal.segment_bytes), MIB, 64 * MIB},

    {"storage.reserve_bytes", 0, ARG_SIZE, "SIZE",
     "with less free on the disk, new work is refused", "256MiB", NULL, AT(storage.reserve_bytes),
     0, 1024 * GIB},
    {"storage.scrub_interval", 0, ARG_DURATION, "TIME",
     "one round of verifying everything stored; 0 = never", "1d", NULL,
     AT(storage.scrub_interval_ms), 0, 365 * DAY},

    {"worker.enabled", 0, ARG_FLAG, NULL, "start a worker beside this node", "true", NULL,
     AT(worker.enabled), 0, 0},
    {"worker.slots", 0, ARG_UINT, "N", "attempts at a time; 0 = by the number of processors", "0",
     NULL, AT(worker.slots), 0, 10000},
    {"worker.heartbeat_interval", 0, ARG_DURATION, "TIME", "a worker's sign of life", "5s", NULL,
     AT(worker.heartbeat_interval_ms), 50, HOUR},
    {"worker.lease", 0, ARG_DURATION, "TIME", "a worker silent this long loses its attempts", "15s",
     NULL, AT(worker.lease_ms), 200, HOUR},
    {"worker.drain_timeout", 0, ARG_DURATION, "TIME",
     "running attempts may finish for so long when this node drains or stops", "30s", NULL,
     AT(worker.drain_timeout_ms), 0, DAY},
    {"worker.data_dir", 0, ARG_STRING, "DIR", "attempts and output (default: node.data_dir/worker)",
     NULL, NULL, AT(worker.data_dir), 0, 0},

    {"security.insecure_bind", 0, ARG_FLAG, NULL,
     "allow addresses other than loopback without TLS and authentication", "false", NULL,
     AT(security.insecure_bind), 0, 0},

    {"log.level", 0, ARG_CHOICE, NULL, "least level that is written", "info", level_names,
     AT(log.level), 0, 0},
    {"log.format", 0, ARG_CHOICE, NULL, "form of the lines on standard error", "text", format_names,
     AT(log.format), 0, 0},

    /* Only on the command line. */
    {"member", 0, ARG_LIST, "ID=PEER[,CLIENT]", "a member of the cluster, as in cluster.members",
     NULL, NULL, AT(member_flags), 0, 0},
    {"worker.labels", 0, ARG_LIST, "KEY=VALUE", "a label of this node's worker", NULL, NULL,
     AT(label_flags), 0, 0},
    {"bootstrap", 0, ARG_FLAG, NULL,
     "empty data directory: form a new cluster of cluster.members, once", NULL, NULL, AT(bootstrap),
     0, 0},
    {"join", 0, ARG_STRING, "HOST:PORT[,...]",
     "empty data directory: become a member of the cluster with these client addresses", NULL, NULL,
     AT(join), 0, 0},
    {"config", 'c', ARG_STRING, "FILE", "read settings from a YAML file; flags win", NULL, NULL,
     AT(file), 0, 0},
    {"print-config", 0, ARG_FLAG, NULL, "print the effective configuration as YAML and exit", NULL,
     NULL, AT(print), 0, 0},
    {"die-with-parent", 0, ARG_FLAG, NULL, "stop as by SIGTERM when the starting process is gone",
     NULL, NULL, AT(die_with_parent), 0, 0},
};
const size_t config_options_count = ARRAY_LEN(config_options);
const size_t config_settings_count = ARRAY_LEN(config_options) - 7;

STATIC_ASSERT(ARRAY_LEN(config_options) <= CONFIG_SETTINGS_MAX, "one origin for each");

const struct arg_command config_server_command = {
    .name = "server",
    .summary = "run a node",
    .details =
        "A node is a member of the Raft cluster, answers clients and starts a worker beside\n"
        "itself. Settings come from defaults, then --config, then flags. Booleans are given\n"
        "as --worker.enabled=false. An empty data directory needs --bootstrap (a new cluster) or\n"
        "--join (one that exists); later starts find everything in the directory, and\n"
        "cluster.members only says where to look first. SIGTERM drains: leadership moves, running\n"
        "attempts may finish within worker.drain_timeout; SIGHUP reloads log.level.",
    .examples =
        "  chronos server --node.data_dir /var/lib/chronos --bootstrap\n"
        "  chronos server --config /etc/chronos/chronos.yaml --log.level debug\n"
        "  chronos server --node.id 2 --member 1=10.0.0.1:7402,10.0.0.1:7400 \\\n"
        "      --member 2=10.0.0.2:7402,10.0.0.2:7400 --member 3=10.0.0.3:7402,10.0.0.3:7400 \\\n"
        "      --security.insecure_bind --bootstrap\n"
        "  chronos server --node.id 4 --node.data_dir /var/lib/chronos --join 10.0.0.1:7400\n"
        "  chronos server --config chronos.yaml --print-config",
    .options = config_options,
    .options_count = ARRAY_LEN(config_options),
    .values_bytes = sizeof(struct config),
};

void config_init(struct config *c) {
    args_defaults(config_options, config_options_count, c, sizeof(*c));
    arena_init(&c->arena, (size_t) 8 * CONFIG_FILE_BYTES_MAX);
}

void config_done(struct config *c) {
    args_values_done(config_options, config_options_count, c);
    arena_done(&c->arena);
}

/* ---- flags --------------------------------------------------------------------------------- */

static int parse_member_flag(struct config *c, const char *text, struct errtext *reterr) {
    struct config_member *m;
    const char *equals = strchr(text, '=');
    const char *comma;
    char *id, *address;
    struct errtext ignored;

    if (c->cluster.members_count >= CONFIG_MEMBERS_MAX) {
        errtext_set(reterr, "--member: at most %d members", CONFIG_MEMBERS_MAX);
        return 1;
    }
    m = &c->cluster.members[c->cluster.members_count];
    *m = (struct config_member){.client_address = ""};
    if (!equals) {
        errtext_set(reterr,
                    "--member %.64s: write ID=PEER_ADDRESS[,CLIENT_ADDRESS], for example "
                    "1=127.0.0.1:7402,127.0.0.1:7400",
                    text);
        return 1;
    }
    id = arena_memdup(&c->arena, text, strlen(text) + 1);
    address = arena_strdup(&c->arena, equals + 1);
    if (!id || !address)
        return -ENOMEM;
    id[equals - text] = '\0';
    if (args_set(&(struct arg_option){.kind = ARG_UINT, .min = 1, .max = CONFIG_NODE_ID_MAX}, id,
                 &m->id, &ignored) != 0) {
        errtext_set(reterr, "--member %.64s: the id is a whole number from 1 to %d", text,
                    CONFIG_NODE_ID_MAX);
        return 1;
    }
    comma = strchr(address, ',');
    if (comma) {
        m->client_address = comma + 1;
        address[comma - address] = '\0';
    }
    m->address = address;
    c->cluster.members_count++;
    return 0;
}

static int parse_label_flag(struct config *c, const char *text, struct errtext *reterr) {
    const char *equals = strchr(text, '=');
    char *key;

    if (!equals || equals == text) {
        errtext_set(reterr, "--worker.labels %.64s: write KEY=VALUE, for example zone=a", text);
        return 1;
    }
    if (c->worker.labels_count >= CONFIG_LABELS_MAX) {
        errtext_set(reterr, "--worker.labels: at most %d labels", CONFIG_LABELS_MAX);
        return 1;
    }
    key = arena_strdup(&c->arena, text);
    if (!key)
        return -ENOMEM;
    key[equals - text] = '\0';
    c->worker.labels[c->worker.labels_count++] =
        (struct config_label){.key = key, .value = equals + 1};
    return 0;
}

/* Flags of members and labels replace the file's, as for every other setting. */
static int apply_list_flags(struct config *c, struct errtext *reterr) {
    int r = 0;

    if (c->member_flags.count > 0)
        c->cluster.members_count = 0;
    if (c->label_flags.count > 0)
        c->worker.labels_count = 0;
    for (size_t i = 0; r == 0 && i < c->member_flags.count; i++)
        r = parse_member_flag(c, c->member_flags.items[i], reterr);
    for (size_t i = 0; r == 0 && i < c->label_flags.count; i++)
        r = parse_label_flag(c, c->label_flags.items[i], reterr);
    return r;
}

/* Parse argv twice: the first pass finds --config, the file is read, the second pass puts the flags
 * over it. Origins of the flags come from comparing with their names. */
static void mark_flags(struct config *c, int argc, char **argv) {
    for (int a = 1; a < argc; a++) {
        const char *name = argv[a];
        size_t len;

        if (strncmp(name, "--", 2) != 0)
            continue;
        len = strcspn(name + 2, "=");
        for (size_t i = 0; i < config_options_count; i++) {
            if (strlen(config_options[i].name) == len &&
                strncmp(config_options[i].name, name + 2, len) == 0)
                c->origins[i].flag = true;
        }
    }
}

static int read_file(const char *path, char **ret, size_t *ret_len, struct errtext *reterr) {
    FILE *f = fopen(path, "re");
    char *text;
    size_t n;

    if (!f) {
        errtext_set(reterr, "%.256s: %s", path, strerror(errno));
        return 1;
    }
    text = malloc(CONFIG_FILE_BYTES_MAX + 1);
    if (!text) {
        (void) fclose(f);
        return -ENOMEM;
    }
    n = fread(text, 1, CONFIG_FILE_BYTES_MAX + 1, f);
    if (ferror(f) || n > CONFIG_FILE_BYTES_MAX) {
        errtext_set(reterr, "%.256s: %s", path,
                    ferror(f) ? strerror(errno) : "larger than 1MiB; is it a configuration?");
        (void) fclose(f);
        free(text);
        return 1;
    }
    (void) fclose(f);
    *ret = text;
    *ret_len = n;
    return 0;
}

static int load(struct config *c, int argc, char **argv, struct errtext *why) {
    _cleanup_(freep) char **rest = NULL;
    _cleanup_(freep) char **rest_again = NULL;
    _cleanup_(freep) char *text = NULL;
    size_t rest_count = 0, len = 0;
    int r = args_parse(&config_server_command, argc, argv, c, &rest, &rest_count, why);

    if (r != 0)
        return r;
    if (c->file) {
        r = read_file(c->file, &text, &len, why);
        if (r == 0)
            r = config_read(c, c->file, text, len, why);
        if (r != 0)
            return r > 0 ? 2 : r;
        args_values_done(config_options, config_options_count, c);
        r = args_parse(&config_server_command, argc, argv, c, &rest_again, &rest_count, why);
        if (r != 0)
            return r;
    }
    mark_flags(c, argc, argv);
    r = apply_list_flags(c, why);
    if (r == 0)
        r = config_finish(c, why);
    return r > 0 ? 2 : r;
}

int config_load(struct config *c, int argc, char **argv, int *ret_exit) {
    struct errtext why = {""};
    int r;

    config_init(c);
    r = load(c, argc, argv, &why);
    if (r == 1) {
        args_help(&config_server_command, "chronos server", stdout);
        *ret_exit = EXIT_CODE_OK;
        return 1;
    }
    if (r != 0) {
        fprintf(stderr, "chronos server: %s\n", r == -ENOMEM ? "out of memory" : why.s);
        *ret_exit = r == -ENOMEM ? EXIT_CODE_FAILED : EXIT_CODE_USAGE;
        return 1;
    }
    if (c->print) {
        config_print(c, stdout);
        *ret_exit = EXIT_CODE_OK;
        return 1;
    }
    return 0;
}

/* ---- printing ------------------------------------------------------------------------------ */

/* Double-quoted YAML: every byte that could mean something is escaped. */
static void print_quoted(const char *s, FILE *out) {
    fputc('"', out);
    for (; *s; s++) {
        unsigned char ch = (unsigned char) *s;

        if (ch == '"' || ch == '\\')
            fprintf(out, "\\%c", ch);
        else if (ch < 0x20 || ch == 0x7f)
            fprintf(out, "\\x%02X", ch);
        else
            fputc(ch, out);
    }
    fputc('"', out);
}

static void print_value(const struct config *c, const struct arg_option *o, FILE *out) {
    const void *field = (const char *) c + o->offset;
    char text[UNITS_TEXT_BYTES_MAX];
    uint64_t number = 0;
    uint32_t choice = 0;
    const char *s = NULL;

    switch (o->kind) {
    case ARG_FLAG:
        fputs(*(const bool *) field ? "true" : "false", out);
        break;
    case ARG_STRING:
        memcpy(&s, field, sizeof(s));
        print_quoted(s ? s : "", out);
        break;
    case ARG_CHOICE:
        memcpy(&choice, field, sizeof(choice));
        fputs(o->choices[choice], out);
        break;
    case ARG_UINT:
        memcpy(&number, field, sizeof(number));
        fprintf(out, "%llu", (unsigned long long) number);
        break;
    case ARG_DURATION:
        memcpy(&number, field, sizeof(number));
        fputs(units_print_duration(number, text), out);
        break;
    case ARG_SIZE:
        memcpy(&number, field, sizeof(number));
        fputs(units_print_size(number, text), out);
        break;
    case ARG_LIST:
        break;
    }
    fputc('\n', out);
}

static void print_members(const struct config *c, FILE *out) {
    fprintf(out, "  members:\n");
    for (size_t i = 0; i < c->cluster.members_count; i++) {
        const struct config_member *m = &c->cluster.members[i];

        fprintf(out, "    - id: %llu\n      address: ", (unsigned long long) m->id);
        print_quoted(m->address, out);
        fprintf(out, "\n      client_address: ");
        print_quoted(m->client_address, out);
        fputc('\n', out);
    }
}

static void print_labels(const struct config *c, FILE *out) {
    if (c->worker.labels_count == 0) {
        fprintf(out, "  labels: {}\n");
        return;
    }
    fprintf(out, "  labels:\n");
    for (size_t i = 0; i < c->worker.labels_count; i++) {
        fprintf(out, "    ");
        print_quoted(c->worker.labels[i].key, out);
        fprintf(out, ": ");
        print_quoted(c->worker.labels[i].value, out);
        fputc('\n', out);
    }
}

void config_print(const struct config *c, FILE *out) {
    const char *section = "";
    size_t section_len = 0;
    bool in_raft = false;

    for (size_t i = 0; i < config_settings_count; i++) {
        const char *name = config_options[i].name;
        size_t len = strcspn(name, ".");
        const char *key = name + len + 1;

        if (len != section_len || strncmp(name, section, len) != 0) {
            fprintf(out, "%.*s:\n", (int) len, name);
            section = name;
            section_len = len;
            if (strncmp(name, "cluster.", 8) == 0)
                print_members(c, out);
            if (strncmp(name, "worker.", 7) == 0)
                print_labels(c, out);
            in_raft = false;
        }
        if (strncmp(key, "raft.", 5) == 0) {
            if (!in_raft)
                fprintf(out, "  raft:\n");
            in_raft = true;
            fprintf(out, "    %s: ", key + 5);
        } else {
            fprintf(out, "  %s: ", key);
        }
        print_value(c, &config_options[i], out);
    }
}
