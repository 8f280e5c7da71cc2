/* `chronos dev`: options and the data directory; the cluster itself is dev.c. */
#include "cli/commands.h"
#include "cli/common.h"
#include "cli/dev.h"
#include "cli/dev_node.h"

#include "os/files.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define READY_MS 30000
#define LAST_PORT_OFFSET (10 * (DEV_NODES_MAX - 1) + 2)

struct dev_values {
    struct cli_common common;
    uint64_t nodes;
    const char *data;
    uint64_t base_port;
    uint64_t slots;
    uint32_t level;
};

static const char *const levels[] = {"debug", "info", "warn", "error", NULL};

/* An absolute path: the nodes' own settings are printed and compared with it. */
static int make_data_dir(const char *wanted, char out[PATH_MAX]) {
    const char *tmp = getenv("TMPDIR");

    if (!wanted) {
        (void) snprintf(out, PATH_MAX, "%s/chronos-dev-XXXXXX", tmp && tmp[0] ? tmp : "/tmp");
        return mkdtemp(out) ? 0 : -errno;
    }
    if (mkdir(wanted, 0700) < 0 && errno != EEXIST)
        return -errno;
    return realpath(wanted, out) ? 0 : -errno;
}

static int run(void *values, char **rest, size_t rest_count) {
    const struct dev_values *v = values;
    char data[PATH_MAX], exe[PATH_MAX];
    ssize_t len = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
    struct dev_options o = {.exe = exe,
                            .nodes = (size_t) v->nodes,
                            .data_dir = data,
                            .base_port = (uint16_t) v->base_port,
                            .slots = v->slots,
                            .level = levels[v->level],
                            .json = v->common.output == CLI_JSON,
                            .ready_ms = READY_MS};
    int r;

    (void) rest;
    ASSERT(rest_count == 0);
    if (len <= 0) {
        fprintf(stderr, "chronos dev: /proc/self/exe: %s\n", strerror(errno));
        return EXIT_CODE_FAILED;
    }
    exe[len] = '\0';
    r = make_data_dir(v->data, data);
    if (r < 0) {
        fprintf(stderr, "chronos dev: %s: %s\n",
                v->data ? v->data : "temporary directory in $TMPDIR or /tmp", strerror(-r));
        return EXIT_CODE_FAILED;
    }
    r = dev_run(&o);
    if (!v->data)
        files_remove_tree(data);
    return r;
}

#define AT(field) offsetof(struct dev_values, field)

static const struct arg_option options[] = {
    {"nodes", 'n', ARG_UINT, "N", "how many nodes; 1, 3, 5 or 7", "3", NULL, AT(nodes), 1,
     DEV_NODES_MAX},
    {"data", 'd', ARG_STRING, "DIR", "keep the data here (default: a temporary directory)", NULL,
     NULL, AT(data), 0, 0},
    {"base-port", 'p', ARG_UINT, "PORT", "node i uses PORT + 10 i, + 1 and + 2", "7400", NULL,
     AT(base_port), 1024, UINT16_MAX - LAST_PORT_OFFSET},
    {"slots", 0, ARG_UINT, "N", "attempts at a time on each node; 0 = by processors", "0", NULL,
     AT(slots), 0, 10000},
    {"log-level", 0, ARG_CHOICE, NULL, "of the nodes' server.log", "info", levels, AT(level), 0, 0},
    CLI_OUTPUT_OPTION,
};

const struct arg_command cmd_dev = {
    .name = "dev",
    .summary = "run a whole cluster on this machine",
    .details =
        "In the foreground, on loopback only. Ctrl-C stops all of it. A node that dies is\n"
        "reported and not restarted. Each node writes its log to DIR/node<N>/server.log.",
    .examples =
        "  chronos dev\n"
        "  chronos dev --nodes 5 --data ./dev-data\n"
        "  chronos dev -o json --base-port 9400",
    .options = options,
    .options_count = ARRAY_LEN(options),
    .values_bytes = sizeof(struct dev_values),
    .run = run,
};
