#include "cli/dev_node.h"

#include "os/sibling.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define PORT_STEP 10 /* node i: base + 10 i for gRPC, + 1 kept for HTTP, + 2 for peers */
#define PEER_OFFSET 2
#define ARGS_MAX (24 + 2 * DEV_NODES_MAX)
#define MEMBER_BYTES (2 * DEV_ADDRESS_BYTES + 24)

void dev_node_init(struct dev_node *n, size_t index, const struct dev_options *o) {
    unsigned port = (unsigned) o->base_port + PORT_STEP * (unsigned) index;

    *n = (struct dev_node){.id = index + 1};
    (void) snprintf(n->address, sizeof(n->address), "127.0.0.1:%u", port);
    (void) snprintf(n->peer_address, sizeof(n->peer_address), "127.0.0.1:%u", port + PEER_OFFSET);
    (void) snprintf(n->data_dir, sizeof(n->data_dir), "%s/node%" PRIu64, o->data_dir, n->id);
}

/* ---- ports --------------------------------------------------------------------------------- */

/* Bind and close again: a clear word now instead of a node that dies at start. */
static int try_bind(const char *address) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    unsigned long port = strtoul(strrchr(address, ':') + 1, NULL, 10);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int one = 1, r = 0;

    if (fd < 0)
        return -errno;
    a.sin_port = htons((uint16_t) port);
    (void) setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    /* bind alone succeeds beside a listener that allows reuse; listen does not. */
    if (bind(fd, (const struct sockaddr *) &a, sizeof(a)) < 0 || listen(fd, 1) < 0)
        r = -errno;
    (void) close(fd);
    return r;
}

int dev_node_check_ports(const struct dev_node *n, struct errtext *reterr) {
    const char *const addresses[] = {n->address, n->peer_address};

    for (size_t i = 0; i < ARRAY_LEN(addresses); i++) {
        int r = try_bind(addresses[i]);

        if (r < 0) {
            errtext_set(reterr,
                        "%s: %s. Another cluster may run there; choose other ports with "
                        "--base-port",
                        addresses[i], strerror(-r));
            return 1;
        }
    }
    return 0;
}

/* ---- process ------------------------------------------------------------------------------- */

static size_t build_args(const struct dev_node *n, const struct dev_options *o,
                         const struct dev_node *all, char texts[][MEMBER_BYTES], char *id,
                         char *slots, const char **args) {
    size_t k = 0;

    (void) snprintf(id, 24, "%" PRIu64, n->id);
    (void) snprintf(slots, 24, "%" PRIu64, o->slots);
    args[k++] = o->exe;
    args[k++] = "server";
    args[k++] = "--node.id";
    args[k++] = id;
    args[k++] = "--node.data_dir";
    args[k++] = n->data_dir;
    args[k++] = "--node.listen";
    args[k++] = n->address;
    args[k++] = "--node.peer_listen";
    args[k++] = n->peer_address;
    args[k++] = "--cluster.name";
    args[k++] = "dev";
    args[k++] = "--worker.slots";
    args[k++] = slots;
    args[k++] = "--log.level";
    args[k++] = o->level;
    args[k++] = "--bootstrap";
    args[k++] = "--worker.drain_timeout"; /* below the time after which dev kills */
    args[k++] = "3s";
    args[k++] = "--die-with-parent"; /* also when dev itself is killed */
    for (size_t i = 0; i < o->nodes; i++) {
        (void) snprintf(texts[i], MEMBER_BYTES, "%" PRIu64 "=%s,%s", all[i].id, all[i].peer_address,
                        all[i].address);
        args[k++] = "--member";
        args[k++] = texts[i];
    }
    args[k] = NULL;
    return k;
}

static int open_log(const struct dev_node *n) {
    char path[PATH_MAX + 16];

    if (mkdir(n->data_dir, 0700) < 0 && errno != EEXIST)
        return -errno;
    (void) snprintf(path, sizeof(path), "%s/server.log", n->data_dir);
    {
        int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);

        return fd < 0 ? -errno : fd;
    }
}

int dev_node_start(struct dev_node *n, uv_loop_t *loop, const struct dev_options *o,
                   const struct dev_node *all, uv_exit_cb on_exit, struct errtext *reterr) {
    char texts[DEV_NODES_MAX][MEMBER_BYTES];
    const char *args[ARGS_MAX];
    char id[24], slots[24];
    uv_stdio_container_t stdio[3] = {{.flags = UV_IGNORE}};
    uv_process_options_t po = {.exit_cb = on_exit,
                               .file = o->exe,
                               .flags = UV_PROCESS_DETACHED,
                               .stdio = stdio,
                               .stdio_count = 3};
    int fd = open_log(n), r;
    size_t count;

    if (fd < 0) {
        errtext_set(reterr, "%.300s: %s", n->data_dir, strerror(-fd));
        return 1;
    }
    count = build_args(n, o, all, texts, id, slots, args);
    ASSERT(count < ARRAY_LEN(args));
    for (int i = 1; i < 3; i++) {
        stdio[i].flags = UV_INHERIT_FD;
        stdio[i].data.fd = fd;
    }
    po.args = (char **) (uintptr_t) args;
    r = uv_spawn(loop, &n->process, &po);
    (void) close(fd);
    n->started = true; /* uv_spawn opens the handle even when it fails */
    if (r < 0) {
        errtext_set(reterr, "%.300s: %s", o->exe, uv_strerror(r));
        return 1;
    }
    n->running = true;
    return 0;
}

/* ---- worker -------------------------------------------------------------------------------- */

pid_t dev_node_worker_pid(const struct dev_node *n) {
    return sibling_pid(n->data_dir, "worker.pid");
}

/* ---- files --------------------------------------------------------------------------------- */

void dev_node_print_log(const struct dev_node *n) {
    sibling_print_log(n->data_dir, "server.log");
}
