#include "bench/cluster.h"

#include "os/files.h"
#include "os/sibling.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define STOP_MS 5000U
#define POLL_MS 10U
#define MEMBER_BYTES (2 * CLUSTER_ADDRESS_BYTES + 16)
#define ARGS_MAX 32
#define WORKERS_MAX (2 * CLUSTER_NODES) /* by the pid files, and orphans */

/* ---- ports --------------------------------------------------------------------------------- */

/* Ask the kernel for a free port. All sockets stay open until each port is chosen, or the same one
 * could come twice. 0 or -errno. */
static int reserve_port(int *ret_fd, unsigned *ret_port) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(a);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return -errno;
    if (bind(fd, (const struct sockaddr *) &a, sizeof(a)) < 0 ||
        getsockname(fd, (struct sockaddr *) &a, &len) < 0) {
        int r = -errno;

        (void) close(fd);
        return r;
    }
    *ret_fd = fd;
    *ret_port = ntohs(a.sin_port);
    return 0;
}

static int choose_ports(struct cluster_node *nodes, size_t count) {
    int fds[2 * CLUSTER_NODES];
    size_t n = 0;
    int r = 0;

    ASSERT(count <= CLUSTER_NODES);
    for (; n < 2 * count; n++) {
        struct cluster_node *node = &nodes[n / 2];
        unsigned port = 0;

        r = reserve_port(&fds[n], &port);
        if (r < 0)
            break;
        (void) snprintf(n % 2 == 0 ? node->address : node->peer_address, CLUSTER_ADDRESS_BYTES,
                        "127.0.0.1:%u", port);
    }
    while (n > 0)
        (void) close(fds[--n]);
    return r < 0 ? bench_fail("no free port: %s", strerror(-r)) : BENCH_OK;
}

/* ---- processes ----------------------------------------------------------------------------- */

/* The strings of one command line. */
struct words {
    char text[CLUSTER_NODES + 4][MEMBER_BYTES];
    size_t texts;
    const char *args[ARGS_MAX];
    size_t count;
};

static void add_word(struct words *w, const char *word) {
    ASSERT(w->count + 1 < ARGS_MAX);
    w->args[w->count++] = word;
}

_printf_(3, 4) static void add_value(struct words *w, const char *name, const char *fmt, ...) {
    char *text = w->text[w->texts++];
    va_list ap;

    ASSERT(w->texts <= ARRAY_LEN(w->text));
    va_start(ap, fmt);
    (void) vsnprintf(text, MEMBER_BYTES, fmt, ap);
    va_end(ap);
    add_word(w, name);
    add_word(w, text);
}

/* Of all nodes that formed the cluster: the same for each. */
static void add_members(const struct cluster *c, struct words *w) {
    add_word(w, "--bootstrap");
    for (size_t i = 0; i < CLUSTER_NODES; i++) {
        const struct cluster_node *n = &c->nodes[i];

        if (!n->joins)
            add_value(w, "--member", "%" PRIu64 "=%s,%s", n->id, n->peer_address, n->address);
    }
}

static void build_args(const struct cluster *c, size_t index, struct words *w) {
    const struct cluster_node *n = &c->nodes[index];

    *w = (struct words){0};
    add_word(w, c->exe);
    add_word(w, "server");
    add_value(w, "--node.id", "%" PRIu64, n->id);
    add_word(w, "--node.data_dir");
    add_word(w, n->data_dir);
    add_word(w, "--node.listen");
    add_word(w, n->address);
    add_word(w, "--node.peer_listen");
    add_word(w, n->peer_address);
    add_word(w, "--cluster.name");
    add_word(w, "bench");
    add_word(w, "--worker.drain_timeout");
    add_word(w, "0s"); /* what it measured is over */
    add_word(w, c->with_workers ? "--worker.enabled=true" : "--worker.enabled=false");
    add_value(w, "--worker.slots", "%u", c->slots);
    add_word(w, c->lease_reads ? "--cluster.raft.lease_reads=true"
                               : "--cluster.raft.lease_reads=false");
    if (c->snapshot_interval_ms > 0)
        add_value(w, "--cluster.raft.snapshot_interval", "%" PRIu64 "ms", c->snapshot_interval_ms);
    if (n->joins) {
        add_word(w, "--join");
        add_word(w, c->nodes[(index + 1) % CLUSTER_NODES].address);
    } else {
        add_members(c, w);
    }
}

/* In the child, up to exec: only calls that are safe after fork beside other threads. */
_noreturn_ static void child(const struct cluster *c, const char *const *args, int log_fd,
                             pid_t parent) {
    sigset_t none;

    (void) setsid(); /* a terminal's Ctrl-C is for the benchmark, which stops us */
    (void) prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent)
        _exit(127);
    (void) sigemptyset(&none);
    (void) sigprocmask(SIG_SETMASK, &none, NULL);
    if (dup2(log_fd, STDOUT_FILENO) < 0 || dup2(log_fd, STDERR_FILENO) < 0)
        _exit(127);
    (void) execv(c->exe, (char *const *) (uintptr_t) args);
    _exit(127);
}

int cluster_start_node(struct cluster *c, size_t index) {
    struct cluster_node *n = &c->nodes[index];
    char path[PATH_MAX + 16];
    struct words w;
    pid_t parent = getpid();
    int fd;

    ASSERT(index < CLUSTER_NODES);
    ASSERT(n->pid == 0);
    build_args(c, index, &w);
    (void) snprintf(path, sizeof(path), "%s/server.log", n->data_dir);
    if (mkdir(n->data_dir, 0700) < 0 && errno != EEXIST)
        return bench_fail("%s: %s", n->data_dir, strerror(errno));
    fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0)
        return bench_fail("%s: %s", path, strerror(errno));
    n->pid = fork();
    if (n->pid == 0)
        child(c, w.args, fd, parent);
    (void) close(fd);
    if (n->pid < 0) {
        n->pid = 0;
        return bench_fail("fork: %s", strerror(errno));
    }
    return BENCH_OK;
}

static int set_id(struct cluster *c, size_t index, uint64_t id) {
    struct cluster_node *n = &c->nodes[index];

    n->id = id;
    if (snprintf(n->data_dir, PATH_MAX, "%s/node%" PRIu64, c->dir, id) >= PATH_MAX)
        return bench_fail("%s: the path is too long", c->dir);
    return BENCH_OK;
}

static int prepare(struct cluster *c, const char *dir) {
    char base[PATH_MAX];
    ssize_t len = readlink("/proc/self/exe", c->exe, sizeof(c->exe) - 1);

    if (len <= 0)
        return bench_fail("/proc/self/exe: %s", strerror(errno));
    c->exe[len] = '\0';
    if (!realpath(dir, base))
        return bench_fail("%s: %s", dir, strerror(errno));
    if (snprintf(c->dir, sizeof(c->dir), "%s/chronos-bench-XXXXXX", base) >= (int) sizeof(c->dir) ||
        !mkdtemp(c->dir)) {
        c->dir[0] = '\0';
        return bench_fail("no directory can be made in %s: %s", base, strerror(errno));
    }
    for (size_t i = 0; i < CLUSTER_NODES; i++) {
        if (set_id(c, i, i + 1) != BENCH_OK)
            return BENCH_FAILED;
    }
    return choose_ports(c->nodes, CLUSTER_NODES);
}

int cluster_start(struct cluster *c, const struct bench_options *o, bool with_workers,
                  uint32_t slots) {
    int r;

    *c = (struct cluster){
        .with_workers = with_workers, .slots = slots, .lease_reads = o->lease_reads};
    r = prepare(c, o->dir);
    for (size_t i = 0; r == BENCH_OK && i < CLUSTER_NODES; i++)
        r = cluster_start_node(c, i);
    return r;
}

void cluster_kill_begin(struct cluster *c, size_t index) {
    struct cluster_node *n = &c->nodes[index];

    ASSERT(n->pid > 0);
    if (n->orphan == 0)
        n->orphan = cluster_worker_pid(c, index);
    (void) kill(n->pid, SIGKILL);
}

bool cluster_node_gone(struct cluster *c, size_t index) {
    struct cluster_node *n = &c->nodes[index];

    if (n->pid > 0 && waitpid(n->pid, NULL, WNOHANG) == n->pid)
        n->pid = 0;
    return n->pid == 0;
}

void cluster_kill_node(struct cluster *c, size_t index) {
    struct cluster_node *n = &c->nodes[index];

    cluster_kill_begin(c, index);
    (void) waitpid(n->pid, NULL, 0);
    n->pid = 0;
}

pid_t cluster_worker_pid(const struct cluster *c, size_t index) {
    return sibling_pid(c->nodes[index].data_dir, "worker.pid");
}

int cluster_find_dead(struct cluster *c) {
    for (size_t i = 0; i < CLUSTER_NODES; i++) {
        int status = 0;

        if (c->nodes[i].pid == 0 || waitpid(c->nodes[i].pid, &status, WNOHANG) != c->nodes[i].pid)
            continue;
        c->nodes[i].pid = 0;
        (void) bench_fail("node %zu ended by itself (%s %d)", i + 1,
                          WIFSIGNALED(status) ? "signal" : "exit code",
                          WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
        sibling_print_log(c->nodes[i].data_dir, "server.log");
        return (int) i;
    }
    return -1;
}

/* ---- the end ------------------------------------------------------------------------------- */

/* True when no server is left. */
static bool all_gone(struct cluster *c) {
    bool gone = true;

    for (size_t i = 0; i < CLUSTER_NODES; i++) {
        struct cluster_node *n = &c->nodes[i];

        if (n->pid > 0 && waitpid(n->pid, NULL, WNOHANG) == n->pid)
            n->pid = 0;
        gone = gone && n->pid == 0;
    }
    return gone;
}

/* Workers are told, too: one whose server was killed has nobody else who would. */
static void signal_all(struct cluster *c, const pid_t *workers, int sig) {
    for (size_t i = 0; i < CLUSTER_NODES; i++) {
        if (c->nodes[i].pid > 0)
            (void) kill(c->nodes[i].pid, sig);
    }
    for (size_t i = 0; i < WORKERS_MAX; i++) {
        if (workers[i] > 0 && sibling_is(workers[i]))
            (void) kill(workers[i], sig);
    }
}

static bool workers_gone(const pid_t *workers) {
    for (size_t i = 0; i < WORKERS_MAX; i++) {
        if (workers[i] > 0 && sibling_is(workers[i]))
            return false;
    }
    return true;
}

void cluster_halt(struct cluster *c) {
    const struct timespec nap = {.tv_nsec = POLL_MS * 1000000L};
    pid_t workers[WORKERS_MAX];
    uint32_t waited = 0;

    for (size_t i = 0; i < CLUSTER_NODES; i++) {
        workers[i] = cluster_worker_pid(c, i);
        workers[CLUSTER_NODES + i] = c->nodes[i].orphan != workers[i] ? c->nodes[i].orphan : 0;
    }
    signal_all(c, workers, SIGTERM);
    while ((!all_gone(c) || !workers_gone(workers)) && waited < 2 * STOP_MS) {
        if (waited == STOP_MS) {
            (void) bench_fail("the cluster does not stop in %u s; killing it", STOP_MS / 1000);
            signal_all(c, workers, SIGKILL);
        }
        (void) nanosleep(&nap, NULL);
        waited += POLL_MS;
    }
    for (size_t i = 0; i < CLUSTER_NODES; i++)
        c->nodes[i].orphan = 0;
}

int cluster_resume(struct cluster *c) {
    int r = BENCH_OK;

    for (size_t i = 0; r == BENCH_OK && i < CLUSTER_NODES; i++)
        r = cluster_start_node(c, i);
    return r;
}

void cluster_stop(struct cluster *c) {
    if (!c->dir[0])
        return;
    cluster_halt(c);
    files_remove_tree(c->dir);
    c->dir[0] = '\0';
}

/* ---- another node, another command ----------------------------------------------------------- */

int cluster_replace_node(struct cluster *c, size_t index, uint64_t id) {
    struct cluster_node *n = &c->nodes[index];

    ASSERT(n->pid == 0);
    if (n->orphan > 0 && sibling_is(n->orphan))
        (void) kill(n->orphan, SIGKILL);
    *n = (struct cluster_node){.joins = true};
    if (set_id(c, index, id) != BENCH_OK)
        return BENCH_FAILED;
    return choose_ports(n, 1);
}

/* Its exit status, or -1 while it runs. */
static int exit_status(pid_t pid) {
    int status = 0;

    return waitpid(pid, &status, WNOHANG) == pid ? status : -1;
}

int cluster_run(struct cluster *c, struct bench *b, const char *const *args, uint64_t timeout_ms,
                uint64_t *ret_ms) {
    uint64_t begin = uv_hrtime(), give_up = begin + timeout_ms * NS_PER_MS;
    const char *argv[ARGS_MAX] = {c->exe};
    char path[PATH_MAX + 16];
    pid_t pid, parent = getpid();
    int fd, status = -1, r = BENCH_OK;

    for (size_t i = 0; args[i]; i++) {
        ASSERT(i + 2 < ARGS_MAX);
        argv[i + 1] = args[i];
    }
    (void) snprintf(path, sizeof(path), "%s/command.log", c->dir);
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return bench_fail("%s: %s", path, strerror(errno));
    pid = fork();
    if (pid == 0)
        child(c, argv, fd, parent);
    (void) close(fd);
    if (pid < 0)
        return bench_fail("fork: %s", strerror(errno));
    while (r == BENCH_OK && (status = exit_status(pid)) == -1) {
        r = bench_pause(b, POLL_MS);
        if (r == BENCH_OK && uv_hrtime() > give_up)
            r = bench_fail("chronos %s: not done in %" PRIu64 " s", args[0], timeout_ms / 1000);
    }
    *ret_ms = (uv_hrtime() - begin) / NS_PER_MS;
    if (r != BENCH_OK) {
        (void) kill(pid, SIGKILL);
        (void) waitpid(pid, NULL, 0);
    } else if (status != 0) {
        r = bench_fail("chronos %s failed (status %d)", args[0], status);
        sibling_print_log(c->dir, "command.log");
    }
    return r;
}
