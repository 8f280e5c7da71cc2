/* `chronos worker`: options, signals, one loop. The work is in worker.c. */
#include "worker/worker_main.h"

#include "base/units.h"
#include "os/log_sink.h"
#include "worker/session.h"
#include "worker/worker.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

#define SLOTS_PER_CORE 4
#define LABEL_KEY_BYTES_MAX 63
#define LABEL_VALUE_BYTES_MAX 255

static const char help_text[] =
    "Usage: chronos worker --node ADDR[,ADDR...] [options]\n"
    "\n"
    "Run the jobs that a cluster assigns to this worker. It keeps one connection to a node\n"
    "and moves to another one when that node is gone; running jobs go on meanwhile.\n"
    "\n"
    "Options:\n"
    "  --node ADDR[,ADDR...]   client address (host:port) of a node; may be repeated\n"
    "  --id NAME               stable name, [A-Za-z0-9._-] (default: worker-HOSTNAME)\n"
    "  --slots N               jobs at a time, 1 to 10000 (default: 4 per core)\n"
    "  --label KEY=VALUE       for placement; may be repeated\n"
    "  --data-dir DIR          outputs, journal, private directories (default: ./chronos-worker)\n"
    "  --drain TIME            how long jobs may go on after SIGTERM (default: 5s)\n"
    "  --output-keep SIZE      old outputs kept on disk (default: 1GiB)\n"
    "  --parent-fd N           a pipe whose closing means that the parent is gone\n"
    "  --die-with-parent       then stop, as after SIGTERM (default descriptor: 0)\n"
    "  --log-level LEVEL       debug, info, warn or error (default: info)\n"
    "  --log-format FORMAT     text or json (default: text)\n"
    "  --help                  this text\n"
    "\n"
    "Examples:\n"
    "  chronos worker --node 10.0.0.1:7400,10.0.0.2:7400 --data-dir /var/lib/chronos/worker\n"
    "  chronos worker --node localhost:7400 --slots 16 --label gpu=true --id builder-1\n";

struct main_options {
    struct worker_options w;
    const char *nodes[SESSION_ADDRESSES_MAX];
    struct worker_label labels[WORKER_LABELS_MAX];
    char id[WORKER_ID_BYTES_MAX + 1];
    enum log_level level;
    enum log_format format;
    bool help;
};

struct main_loop {
    uv_loop_t loop;
    struct worker *worker;
    uv_signal_t term;
    uv_signal_t interrupt;
};

/* --- options --- */

static int add_nodes(struct main_options *o, char *list, struct errtext *e) {
    char *save = NULL;

    for (char *a = strtok_r(list, ",", &save); a; a = strtok_r(NULL, ",", &save)) {
        const char *colon = strrchr(a, ':');
        size_t digits = colon ? strspn(colon + 1, "0123456789") : 0;

        if (!colon || colon == a || digits == 0 || colon[1 + digits] != '\0' ||
            strtoul(colon + 1, NULL, 10) > 65535 || strlen(a) >= SESSION_ADDRESS_BYTES_MAX) {
            errtext_set(e, "--node %s: an address is HOST:PORT, as in 10.0.0.1:7400", a);
            return EXIT_USAGE;
        }
        if (o->w.nodes_count == SESSION_ADDRESSES_MAX) {
            errtext_set(e, "--node: at most %d addresses", SESSION_ADDRESSES_MAX);
            return EXIT_USAGE;
        }
        o->nodes[o->w.nodes_count++] = a;
    }
    return 0;
}

static int add_label(struct main_options *o, char *text, struct errtext *e) {
    char *eq = strchr(text, '=');

    if (!eq || eq == text || eq - text > LABEL_KEY_BYTES_MAX ||
        strlen(eq + 1) > LABEL_VALUE_BYTES_MAX) {
        errtext_set(e, "--label %s: KEY=VALUE, as in zone=a, with at most %d and %d bytes", text,
                    LABEL_KEY_BYTES_MAX, LABEL_VALUE_BYTES_MAX);
        return EXIT_USAGE;
    }
    if (o->w.labels_count == WORKER_LABELS_MAX) {
        errtext_set(e, "--label: at most %d labels", WORKER_LABELS_MAX);
        return EXIT_USAGE;
    }
    *eq = '\0';
    o->labels[o->w.labels_count].key = text;
    o->labels[o->w.labels_count].value = eq + 1;
    o->w.labels_count++;
    return 0;
}

static int parse_number(const char *name, const char *text, uint64_t min, uint64_t max,
                        uint64_t *ret, struct errtext *e) {
    uint64_t v = 0;

    if (units_parse_uint(text, &v, NULL) != 0 || v < min || v > max) {
        errtext_set(e, "%s %s: a number from %" PRIu64 " to %" PRIu64, name, text, min, max);
        return EXIT_USAGE;
    }
    *ret = v;
    return 0;
}

static int parse_unit(int (*parse)(const char *, uint64_t *, struct errtext *), const char *name,
                      const char *text, uint64_t *ret, struct errtext *e) {
    struct errtext why = {.s = ""};

    if (parse(text, ret, &why) == 0)
        return 0;
    errtext_set(e, "%s: %.400s", name, why.s);
    return EXIT_USAGE;
}

enum option_id {
    OPTION_NODE = 256,
    OPTION_ID,
    OPTION_SLOTS,
    OPTION_LABEL,
    OPTION_DATA_DIR,
    OPTION_DRAIN,
    OPTION_OUTPUT_KEEP,
    OPTION_PARENT_FD,
    OPTION_DIE_WITH_PARENT,
    OPTION_LOG_LEVEL,
    OPTION_LOG_FORMAT,
    OPTION_HELP
};

static const struct option long_options[] = {
    {"node", required_argument, NULL, OPTION_NODE},
    {"id", required_argument, NULL, OPTION_ID},
    {"slots", required_argument, NULL, OPTION_SLOTS},
    {"label", required_argument, NULL, OPTION_LABEL},
    {"data-dir", required_argument, NULL, OPTION_DATA_DIR},
    {"drain", required_argument, NULL, OPTION_DRAIN},
    {"output-keep", required_argument, NULL, OPTION_OUTPUT_KEEP},
    {"parent-fd", required_argument, NULL, OPTION_PARENT_FD},
    {"die-with-parent", no_argument, NULL, OPTION_DIE_WITH_PARENT},
    {"log-level", required_argument, NULL, OPTION_LOG_LEVEL},
    {"log-format", required_argument, NULL, OPTION_LOG_FORMAT},
    {"help", no_argument, NULL, OPTION_HELP},
    {NULL, 0, NULL, 0},
};

static int parse_log(struct main_options *o, int option, const char *text, struct errtext *e) {
    if (option == OPTION_LOG_LEVEL) {
        if (log_level_from_string(text, &o->level) == 0)
            return 0;
        errtext_set(e, "--log-level %s: debug, info, warn or error", text);
        return EXIT_USAGE;
    }
    if (strcmp(text, "text") != 0 && strcmp(text, "json") != 0) {
        errtext_set(e, "--log-format %s: text or json", text);
        return EXIT_USAGE;
    }
    o->format = strcmp(text, "json") == 0 ? LOG_JSON : LOG_TEXT;
    return 0;
}

static int parse_one(struct main_options *o, int option, char *text, struct errtext *e) {
    uint64_t n = 0;
    int r = 0;

    switch (option) {
    case OPTION_NODE:
        return add_nodes(o, text, e);
    case OPTION_ID:
        o->w.id = text;
        break;
    case OPTION_SLOTS:
        r = parse_number("--slots", text, 1, WORKER_SLOTS_MAX, &n, e);
        o->w.slots = r == 0 ? (uint32_t) n : 0;
        break;
    case OPTION_LABEL:
        return add_label(o, text, e);
    case OPTION_DATA_DIR:
        o->w.data_dir = text;
        break;
    case OPTION_DRAIN:
        return parse_unit(units_parse_duration, "--drain", text, &o->w.drain_ms, e);
    case OPTION_OUTPUT_KEEP:
        return parse_unit(units_parse_size, "--output-keep", text, &o->w.output_bytes_max, e);
    case OPTION_PARENT_FD:
        r = parse_number("--parent-fd", text, 0, 65535, &n, e);
        o->w.parent_fd = (int) n;
        break;
    case OPTION_DIE_WITH_PARENT:
        o->w.die_with_parent = true;
        break;
    case OPTION_LOG_LEVEL:
    case OPTION_LOG_FORMAT:
        return parse_log(o, option, text, e);
    default:
        o->help = true;
        break;
    }
    return r;
}

static void set_defaults(struct main_options *o) {
    char host[WORKER_ID_BYTES_MAX - 7] = "";
    long cores = sysconf(_SC_NPROCESSORS_ONLN);

    *o = (struct main_options){.level = LOG_INFO, .format = LOG_TEXT};
    o->w.parent_fd = -1;
    o->w.drain_ms = WORKER_DRAIN_MS_DEFAULT;
    o->w.data_dir = "chronos-worker";
    o->w.slots = (uint32_t) MIN(MAX(cores, 1L) * SLOTS_PER_CORE, (long) WORKER_SLOTS_MAX);
    if (gethostname(host, sizeof(host) - 1) < 0 || host[0] == '\0')
        (void) snprintf(host, sizeof(host), "local");
    (void) snprintf(o->id, sizeof(o->id), "worker-%s", host);
    o->w.id = o->id;
    o->w.nodes = o->nodes;
    o->w.labels = o->labels;
}

static int parse(struct main_options *o, int argc, char **argv, struct errtext *e) {
    int c, r = 0;

    optind = 0; /* start anew: the caller has parsed its own options before */
    opterr = 0;
    while (r == 0 && (c = getopt_long(argc, argv, "+:", long_options, NULL)) != -1) {
        if (c == ':' || c == '?') {
            errtext_set(e, c == ':' ? "%s needs a value" : "%s is not an option of this command",
                        argv[optind - 1]);
            return EXIT_USAGE;
        }
        r = parse_one(o, c, optarg, e);
    }
    if (r != 0 || o->help)
        return r;
    if (optind < argc) {
        errtext_set(e, "%s: this command takes options only", argv[optind]);
        return EXIT_USAGE;
    }
    if (o->w.nodes_count == 0) {
        errtext_set(e,
                    "--node is missing: the address of at least one node, as in "
                    "--node 10.0.0.1:7400");
        return EXIT_USAGE;
    }
    if (o->w.die_with_parent && o->w.parent_fd < 0)
        o->w.parent_fd = STDIN_FILENO;
    return 0;
}

/* --- running --- */

static void on_signal(uv_signal_t *s, int signum) {
    struct main_loop *m = (struct main_loop *) s->data;

    (void) signum;
    worker_stop(m->worker);
}

static void on_stopped(void *arg) {
    struct main_loop *m = (struct main_loop *) arg;

    uv_close((uv_handle_t *) &m->term, NULL);
    uv_close((uv_handle_t *) &m->interrupt, NULL);
    m->worker = worker_free(m->worker);
}

static int run(struct main_loop *m, struct worker_options *o, struct errtext *e) {
    int r;

    o->on_stopped = on_stopped;
    o->arg = m;
    r = worker_new(&m->loop, o, &m->worker, e);
    if (r < 0) {
        (void) uv_run(&m->loop, UV_RUN_DEFAULT); /* what was opened closes */
        return r == ERR_CONFIG ? EXIT_USAGE : EXIT_FAILED;
    }
    m->term.data = m->interrupt.data = m;
    (void) uv_signal_init(&m->loop, &m->term);
    (void) uv_signal_init(&m->loop, &m->interrupt);
    if (uv_signal_start(&m->term, on_signal, SIGTERM) < 0 ||
        uv_signal_start(&m->interrupt, on_signal, SIGINT) < 0) {
        errtext_set(e, "cannot listen to signals");
        return EXIT_FAILED;
    }
    (void) uv_run(&m->loop, UV_RUN_DEFAULT);
    return EXIT_OK;
}

int worker_main(int argc, char **argv) {
    struct main_options o;
    struct errtext e = {.s = ""};
    struct logger log;
    struct log_sink sink;
    struct main_loop m = {.worker = NULL};
    int r;

    set_defaults(&o);
    r = parse(&o, argc, argv, &e);
    if (r == 0 && o.help) {
        (void) fputs(help_text, stdout);
        return EXIT_OK;
    }
    if (r == 0) {
        log_sink_init(&sink, STDERR_FILENO, o.format, o.level, &log);
        o.w.log = &log;
        (void) signal(SIGPIPE, SIG_IGN);
        (void) setrlimit(RLIMIT_CORE, &(struct rlimit){0}); /* reports hold jobs' output */
        if (uv_loop_init(&m.loop) < 0)
            return EXIT_FAILED;
        r = run(&m, &o.w, &e);
        (void) uv_loop_close(&m.loop);
    }
    if (r != 0)
        (void) fprintf(stderr, "chronos worker: %s\n%s", e.s,
                       r == EXIT_USAGE ? "Try: chronos worker --help\n" : "");
    return r;
}
