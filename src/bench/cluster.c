#include "bench/cluster.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <netinet/in.h>
#include <signal.h>
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
#define LOG_TAIL_BYTES 2000
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

static int choose_ports(struct cluster *c) {
    int fds[2 * CLUSTER_NODES];
    size_t n = 0;
    int r = 0;

    for (; n < ARRAY_LEN(fds); n++) {
        struct cluster_node *node = &c->nodes[n / 2];
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

static size_t build_args(const struct cluster *c, size_t index, char text[][MEMBER_BYTES],
                         const char **args) {
    const struct cluster_node *n = &c->nodes[index];
    size_t k = 0;

    (void) snprintf(text[CLUSTER_NODES], MEMBER_BYTES, "%zu", index + 1);
    (void) snprintf(text[CLUSTER_NODES + 1], MEMBER_BYTES, "%u", c->slots);
    args[k++] = c->exe;
    args[k++] = "server";
    args[k++] = "--node.id";
    args[k++] = text[CLUSTER_NODES];
    args[k++] = "--node.data_dir";
    args[k++] = n->data_dir;
    args[k++] = "--node.listen";
    args[k++] = n->address;
    args[k++] = "--node.peer_listen";
    args[k++] = n->peer_address;
    args[k++] = "--cluster.name";
    args[k++] = "bench";
    args[k++] = "--bootstrap";
    args[k++] = "--worker.drain_timeout";
    args[k++] = "0s"; /* what it measured is over */
    args[k++] = c->with_workers ? "--worker.enabled=true" : "--worker.enabled=false";
    args[k++] = "--worker.slots";
    args[k++] = text[CLUSTER_NODES + 1];
    for (size_t i = 0; i < CLUSTER_NODES; i++) {
        (void) snprintf(text[i], MEMBER_BYTES, "%zu=%s,%s", i + 1, c->nodes[i].peer_address,
                        c->nodes[i].address);
        args[k++] = "--member";
        args[k++] = text[i];
    }
    args[k] = NULL;
    ASSERT(k < ARGS_MAX);
    return k;
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
    char text[CLUSTER_NODES + 2][MEMBER_BYTES], path[PATH_MAX + 16];
    struct cluster_node *n = &c->nodes[index];
    const char *args[ARGS_MAX];
    pid_t parent = getpid();
    int fd;

    ASSERT(index < CLUSTER_NODES);
    ASSERT(n->pid == 0);
    (void) build_args(c, index, text, args);
    (void) snprintf(path, sizeof(path), "%s/server.log", n->data_dir);
    if (mkdir(n->data_dir, 0700) < 0 && errno != EEXIST)
        return bench_fail("%s: %s", n->data_dir, strerror(errno));
    fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0)
        return bench_fail("%s: %s", path, strerror(errno));
    n->pid = fork();
    if (n->pid == 0)
        child(c, args, fd, parent);
    (void) close(fd);
    if (n->pid < 0) {
        n->pid = 0;
        return bench_fail("fork: %s", strerror(errno));
    }
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
        if (snprintf(c->nodes[i].data_dir, PATH_MAX, "%s/node%zu", c->dir, i + 1) >= PATH_MAX)
            return bench_fail("%s: the path is too long", c->dir);
    }
    return choose_ports(c);
}

int cluster_start(struct cluster *c, const char *dir, bool with_workers, uint32_t slots) {
    int r;

    *c = (struct cluster){.with_workers = with_workers, .slots = slots};
    r = prepare(c, dir);
    for (size_t i = 0; r == BENCH_OK && i < CLUSTER_NODES; i++)
        r = cluster_start_node(c, i);
    return r;
}

void cluster_kill_node(struct cluster *c, size_t index) {
    struct cluster_node *n = &c->nodes[index];

    ASSERT(n->pid > 0);
    if (n->orphan == 0)
        n->orphan = cluster_worker_pid(c, index);
    (void) kill(n->pid, SIGKILL);
    (void) waitpid(n->pid, NULL, 0);
    n->pid = 0;
}

/* A pid file may be stale and its number reused: only our own program counts. */
static bool is_own_program(const struct cluster *c, pid_t pid) {
    char link[64], exe[PATH_MAX];
    ssize_t len;

    (void) snprintf(link, sizeof(link), "/proc/%d/exe", pid);
    len = readlink(link, exe, sizeof(exe));
    return len > 0 && (size_t) len == strlen(c->exe) && memcmp(exe, c->exe, (size_t) len) == 0;
}

pid_t cluster_worker_pid(const struct cluster *c, size_t index) {
    char path[PATH_MAX + 16], text[32];
    unsigned long pid;
    size_t len;
    FILE *f;

    (void) snprintf(path, sizeof(path), "%s/worker.pid", c->nodes[index].data_dir);
    f = fopen(path, "re");
    if (!f)
        return 0;
    len = fread(text, 1, sizeof(text) - 1, f);
    (void) fclose(f);
    text[len] = '\0';
    pid = strtoul(text, NULL, 10);
    return pid > 1 && pid <= INT_MAX && is_own_program(c, (pid_t) pid) ? (pid_t) pid : 0;
}

static void print_log(const struct cluster_node *n) {
    char path[PATH_MAX + 16], text[LOG_TAIL_BYTES];
    size_t len;
    FILE *f;

    (void) snprintf(path, sizeof(path), "%s/server.log", n->data_dir);
    f = fopen(path, "re");
    if (!f)
        return;
    if (fseek(f, -(long) sizeof(text), SEEK_END) < 0)
        rewind(f);
    len = fread(text, 1, sizeof(text), f);
    (void) fclose(f);
    if (len > 0)
        (void) fprintf(stderr, "--- the end of its log:\n%.*s---\n", (int) len, text);
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
        print_log(&c->nodes[i]);
        return (int) i;
    }
    return -1;
}

/* ---- the end ------------------------------------------------------------------------------- */

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw) {
    (void) st;
    (void) type;
    (void) ftw;
    (void) remove(path);
    return 0;
}

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
        if (workers[i] > 0 && is_own_program(c, workers[i]))
            (void) kill(workers[i], sig);
    }
}

static bool workers_gone(const struct cluster *c, const pid_t *workers) {
    for (size_t i = 0; i < WORKERS_MAX; i++) {
        if (workers[i] > 0 && is_own_program(c, workers[i]))
            return false;
    }
    return true;
}

void cluster_stop(struct cluster *c) {
    const struct timespec nap = {.tv_nsec = POLL_MS * 1000000L};
    pid_t workers[WORKERS_MAX];
    uint32_t waited = 0;

    if (!c->dir[0])
        return;
    for (size_t i = 0; i < CLUSTER_NODES; i++) {
        workers[i] = cluster_worker_pid(c, i);
        workers[CLUSTER_NODES + i] = c->nodes[i].orphan != workers[i] ? c->nodes[i].orphan : 0;
    }
    signal_all(c, workers, SIGTERM);
    while ((!all_gone(c) || !workers_gone(c, workers)) && waited < 2 * STOP_MS) {
        if (waited == STOP_MS) {
            (void) bench_fail("the cluster does not stop in %u s; killing it", STOP_MS / 1000);
            signal_all(c, workers, SIGKILL);
        }
        (void) nanosleep(&nap, NULL);
        waited += POLL_MS;
    }
    (void) nftw(c->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
    c->dir[0] = '\0';
}
