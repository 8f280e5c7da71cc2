#include "bench/options.h"

#include "base/units.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define HELP 1
#define REFUSED 2
#define JOBS_MIN 1000U
#define JOBS_MAX 100000000U
#define SCHEDULES_MAX 1000000U
#define STATE_BYTES_MIN ((uint64_t) 1 << 20)
#define STATE_BYTES_MAX ((uint64_t) 64 << 30)
#define DURATION_MS_MIN 100
#define DURATION_MS_MAX (10 * 60 * 1000)

const char *const bench_kind_names[BENCH_KINDS] = {
    "submit",   "submit_batch", "read",     "e2e_noop", "e2e_exec", "failover",
    "transfer", "idle",         "snapshot", "restore",  "install",  "schedules"};

const char *options_help(void) {
    return "Usage: chronos bench [options] [NAME...]\n"
           "\n"
           "Measure a three-node cluster of this program beside the floor that the disk sets. It "
           "is\n"
           "started in a temporary directory of the current one, stopped and removed afterwards.\n"
           "\n"
           "What is measured:\n"
           "  submit        SubmitJob, closed loop: 1, 16, 64 and 256 calls outstanding\n"
           "  submit_batch  SubmitJobs of 64 jobs a call, 4 and 16 calls outstanding; OPS/S are "
           "jobs\n"
           "                Both run with the workers off, so that acknowledging is measured and\n"
           "                not running; the jobs stay pending\n"
           "  read          GetJob, linearizable, closed loop, 1 and 256 calls outstanding, all "
           "through\n"
           "                the leader; read_follower: all through another node\n"
           "  e2e_noop      jobs that do nothing, from submit to the event that says Completed, "
           "with\n"
           "                2,048 open and with one\n"
           "  e2e_exec      the same with /bin/true, 96 open\n"
           "  failover      from kill -9 of the leader to the next acknowledged submit through "
           "the\n"
           "                other nodes; 20 trials; no load beside\n"
           "  transfer      leadership handed over 50 times under 2,000 submits/s; the time is "
           "the\n"
           "                longest without an acknowledged submit around each\n"
           "  idle          processor time and memory of nodes that have nothing to do\n"
           "  floor         before and after: three processes at once overwrite 4 KiB + "
           "fdatasync;\n"
           "                X FLOOR is a median divided by the median of both\n"
           "\n"
           "Only by name or with --full, because they take minutes and gigabytes of disk:\n"
           "  snapshot      submits at 2,000/s over --jobs completed jobs, without and with a "
           "snapshot\n"
           "                each second, and what one snapshot cost\n"
           "  restore       a backup of these jobs: written, then made into a new cluster\n"
           "  install       a node is killed and replaced by an empty one at --state of state, "
           "under\n"
           "                2,000 submits/s: their time before and meanwhile, memory, time to "
           "catch up\n"
           "  schedules     --schedules idle schedules: creating them, then processor time and "
           "memory;\n"
           "                from an election to the new leader's first tick; a node's start\n"
           "\n"
           "Options:\n"
           "  --only NAME[,NAME...]   only these; may be repeated, or without --only\n"
           "  --quick                 within 40 s instead of 4 min: shorter runs, 5 trials\n"
           "  --full                  also snapshot, restore, install and schedules\n"
           "  --address ADDR[,...]    measure a running cluster (host:port of any node): submit,\n"
           "                          submit_batch, read, e2e_noop, e2e_exec; its jobs stay in "
           "it.\n"
           "                          The floor is that of this machine's disk, here\n"
           "  --jobs N                stored for snapshot and restore (default: 1000000)\n"
           "  --schedules N           created for schedules (default: 1000000)\n"
           "  --state SIZE            of state for install (default: 256MiB)\n"
           "  --lease-reads           the nodes run with cluster.raft.lease_reads\n"
           "  --duration TIME         of each measurement instead of 4.5s (--quick: 1.5s)\n"
           "  --concurrency N[,N...]  calls outstanding in submit, 1 to 1024\n"
           "  --payload SIZE          of an environment variable in each job (default: 100)\n"
           "  --via leader|any        where submits go (default: leader; any: to all nodes in "
           "turn)\n"
           "  --channels N            connections to each node, 1 to 16 (default: 2)\n"
           "  --dir DIR               make the temporary directory there (default: .)\n"
           "  --json FILE             write the figures as a JSON list; - is standard output\n"
           "  -o, --output FORMAT     table or json (default: table)\n"
           "  --help                  this text\n"
           "\n"
           "In JSON, times are microseconds, cpu_pct and rss_mib those of the busiest and of the\n"
           "largest server process (100 = one core), and numbers that do not apply are 0.\n"
           "\n"
           "Examples:\n"
           "  chronos bench\n"
           "  chronos bench --quick --json bench.json\n"
           "  chronos bench --only submit --concurrency 1,8 --duration 20s\n"
           "  chronos bench --address 10.0.0.1:7400 --only e2e_noop\n";
}

enum option_id {
    OPTION_ONLY = 256,
    OPTION_QUICK,
    OPTION_FULL,
    OPTION_JOBS,
    OPTION_STATE,
    OPTION_SCHEDULES,
    OPTION_LEASE_READS,
    OPTION_ADDRESS,
    OPTION_DURATION,
    OPTION_CONCURRENCY,
    OPTION_PAYLOAD,
    OPTION_VIA,
    OPTION_CHANNELS,
    OPTION_DIR,
    OPTION_JSON,
    OPTION_OUTPUT,
    OPTION_HELP
};

static const struct option long_options[] = {
    {"only", required_argument, NULL, OPTION_ONLY},
    {"quick", no_argument, NULL, OPTION_QUICK},
    {"full", no_argument, NULL, OPTION_FULL},
    {"jobs", required_argument, NULL, OPTION_JOBS},
    {"state", required_argument, NULL, OPTION_STATE},
    {"schedules", required_argument, NULL, OPTION_SCHEDULES},
    {"lease-reads", no_argument, NULL, OPTION_LEASE_READS},
    {"address", required_argument, NULL, OPTION_ADDRESS},
    {"duration", required_argument, NULL, OPTION_DURATION},
    {"concurrency", required_argument, NULL, OPTION_CONCURRENCY},
    {"payload", required_argument, NULL, OPTION_PAYLOAD},
    {"via", required_argument, NULL, OPTION_VIA},
    {"channels", required_argument, NULL, OPTION_CHANNELS},
    {"dir", required_argument, NULL, OPTION_DIR},
    {"json", required_argument, NULL, OPTION_JSON},
    {"output", required_argument, NULL, OPTION_OUTPUT},
    {"help", no_argument, NULL, OPTION_HELP},
    {NULL, 0, NULL, 0},
};

static int parse_number(const char *name, const char *text, uint64_t min, uint64_t max,
                        uint64_t *ret, struct errtext *e) {
    uint64_t v = 0;

    if (units_parse_uint(text, &v, NULL) != 0 || v < min || v > max) {
        errtext_set(e, "%s %.64s: a number from %" PRIu64 " to %" PRIu64, name, text, min, max);
        return REFUSED;
    }
    *ret = v;
    return 0;
}

static int add_kinds(struct bench_options *o, char *list, struct errtext *e) {
    char *save = NULL;

    for (char *name = strtok_r(list, ",", &save); name; name = strtok_r(NULL, ",", &save)) {
        size_t i = 0;

        while (i < BENCH_KINDS && strcmp(bench_kind_names[i], name) != 0)
            i++;
        if (i == BENCH_KINDS) {
            errtext_set(e,
                        "%.64s: one of submit, submit_batch, read, e2e_noop, e2e_exec, "
                        "failover, transfer, idle, snapshot, restore, install, schedules",
                        name);
            return REFUSED;
        }
        o->selected[i] = true;
    }
    return 0;
}

static int add_addresses(struct bench_options *o, char *list, struct errtext *e) {
    char *save = NULL;

    for (char *a = strtok_r(list, ",", &save); a; a = strtok_r(NULL, ",", &save)) {
        const char *colon = strrchr(a, ':');
        uint64_t port = 0;

        if (!colon || colon == a || units_parse_uint(colon + 1, &port, NULL) != 0 || port == 0 ||
            port > UINT16_MAX) {
            errtext_set(e, "--address %.64s: HOST:PORT, as in 127.0.0.1:7400", a);
            return REFUSED;
        }
        if (o->addresses_count == BENCH_NODES_MAX) {
            errtext_set(e, "--address: at most %d", BENCH_NODES_MAX);
            return REFUSED;
        }
        o->addresses[o->addresses_count++] = a;
    }
    return 0;
}

static int set_concurrency(struct bench_options *o, char *list, struct errtext *e) {
    char *save = NULL;

    o->concurrency_count = 0;
    for (char *n = strtok_r(list, ",", &save); n; n = strtok_r(NULL, ",", &save)) {
        uint64_t v = 0;
        int r = parse_number("--concurrency", n, 1, BENCH_CONCURRENCY_MAX, &v, e);

        if (r != 0)
            return r;
        if (o->concurrency_count == BENCH_LIST_MAX) {
            errtext_set(e, "--concurrency: at most %d numbers", BENCH_LIST_MAX);
            return REFUSED;
        }
        o->concurrency[o->concurrency_count++] = (uint32_t) v;
    }
    if (o->concurrency_count > 0)
        return 0;
    errtext_set(e, "--concurrency: at least one number");
    return REFUSED;
}

static int set_duration(struct bench_options *o, const char *text, struct errtext *e) {
    struct errtext why = {""};

    if (units_parse_duration(text, &o->duration_ms, &why) != 0) {
        errtext_set(e, "--duration: %.400s", why.s);
        return REFUSED;
    }
    if (o->duration_ms >= DURATION_MS_MIN && o->duration_ms <= DURATION_MS_MAX)
        return 0;
    errtext_set(e, "--duration %.64s: from 100ms to 10m", text);
    return REFUSED;
}

static int set_payload(struct bench_options *o, const char *text, struct errtext *e) {
    struct errtext why = {""};
    uint64_t v = 0;

    if (units_parse_size(text, &v, &why) != 0) {
        errtext_set(e, "--payload: %.400s", why.s);
        return REFUSED;
    }
    o->payload_bytes = (size_t) MIN(v, (uint64_t) BENCH_PAYLOAD_BYTES_MAX);
    if (v <= BENCH_PAYLOAD_BYTES_MAX)
        return 0;
    errtext_set(e, "--payload %.64s: at most %d KiB", text, BENCH_PAYLOAD_BYTES_MAX / 1024);
    return REFUSED;
}

static int set_state(struct bench_options *o, const char *text, struct errtext *e) {
    struct errtext why = {""};

    if (units_parse_size(text, &o->state_bytes, &why) != 0) {
        errtext_set(e, "--state: %.400s", why.s);
        return REFUSED;
    }
    if (o->state_bytes >= STATE_BYTES_MIN && o->state_bytes <= STATE_BYTES_MAX)
        return 0;
    errtext_set(e, "--state %.64s: from 1MiB to 64GiB", text);
    return REFUSED;
}

/* One of two words. */
static int set_word(const char *name, const char *text, const char *no, const char *yes, bool *ret,
                    struct errtext *e) {
    *ret = strcmp(text, yes) == 0;
    if (*ret || strcmp(text, no) == 0)
        return 0;
    errtext_set(e, "%s %.64s: %s or %s", name, text, no, yes);
    return REFUSED;
}

static int parse_one(struct bench_options *o, int option, char *text, struct errtext *e) {
    uint64_t n = 0;
    int r = 0;

    switch (option) {
    case OPTION_ONLY:
        return add_kinds(o, text, e);
    case OPTION_QUICK:
        o->quick = true;
        break;
    case OPTION_FULL:
        o->full = true;
        break;
    case OPTION_LEASE_READS:
        o->lease_reads = true;
        break;
    case OPTION_JOBS:
        return parse_number("--jobs", text, JOBS_MIN, JOBS_MAX, &o->jobs, e);
    case OPTION_SCHEDULES:
        return parse_number("--schedules", text, JOBS_MIN, SCHEDULES_MAX, &o->schedules, e);
    case OPTION_STATE:
        return set_state(o, text, e);
    case OPTION_ADDRESS:
        return add_addresses(o, text, e);
    case OPTION_DURATION:
        return set_duration(o, text, e);
    case OPTION_CONCURRENCY:
        return set_concurrency(o, text, e);
    case OPTION_PAYLOAD:
        return set_payload(o, text, e);
    case OPTION_VIA:
        return set_word("--via", text, "leader", "any", &o->via_any, e);
    case OPTION_CHANNELS:
        r = parse_number("--channels", text, 1, BENCH_CHANNELS_MAX, &n, e);
        o->channels = (size_t) n;
        break;
    case OPTION_DIR:
        o->dir = text;
        break;
    case OPTION_JSON:
        o->json_file = text;
        break;
    case OPTION_OUTPUT:
    case 'o':
        return set_word("--output", text, "table", "json", &o->json, e);
    default:
        r = HELP;
        break;
    }
    return r;
}

/* Of another's cluster no process is started, killed or measured. */
static bool needs_own_cluster(enum bench_kind kind) {
    return kind >= BENCH_FAILOVER;
}

/* What --only leaves out is everything, when it was not given. */
static int complete(struct bench_options *o, struct errtext *e) {
    bool any = false;

    for (enum bench_kind k = 0; k < BENCH_KINDS; k++) {
        any = any || o->selected[k];
        if (o->addresses_count > 0 && o->selected[k] && needs_own_cluster(k)) {
            errtext_set(e, "--only %s needs processes of its own and cannot be used with --address",
                        bench_kind_names[k]);
            return REFUSED;
        }
    }
    if (o->addresses_count > 0 && (o->full || o->lease_reads)) {
        errtext_set(e, "--%s is about a cluster of our own and cannot be used with --address",
                    o->full ? "full" : "lease-reads");
        return REFUSED;
    }
    for (enum bench_kind k = 0; k < BENCH_KINDS; k++) {
        if (!any && k < BENCH_KINDS_SHORT)
            o->selected[k] = o->addresses_count == 0 || !needs_own_cluster(k);
        if (o->full && k >= BENCH_KINDS_SHORT)
            o->selected[k] = true;
    }
    return 0;
}

int options_parse(int argc, char **argv, struct bench_options *ret, struct errtext *reterr) {
    int c, r = 0;

    *ret = (struct bench_options){.concurrency = {1, 16, 64, 256},
                                  .concurrency_count = 4,
                                  .payload_bytes = 100,
                                  .channels = 2,
                                  .jobs = 1000000,
                                  .schedules = 1000000,
                                  .state_bytes = (uint64_t) 256 << 20,
                                  .dir = "."};
    optind = 0; /* start anew: the caller has looked at its own options before */
    opterr = 0;
    while (r == 0 &&
           ((c = getopt_long(argc, argv, "+:o:h", long_options, NULL)) != -1 || optind < argc)) {
        if (c == -1) { /* a name, as with --only */
            r = add_kinds(ret, argv[optind++], reterr);
            continue;
        }
        if (c == ':' || c == '?') {
            errtext_set(reterr, c == ':' ? "%.64s needs a value" : "%.64s: no such option",
                        argv[optind - 1]);
            return REFUSED;
        }
        r = parse_one(ret, c, optarg, reterr);
    }
    if (r != 0)
        return r;
    return complete(ret, reterr);
}
