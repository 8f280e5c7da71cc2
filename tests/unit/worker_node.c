#include "worker_node.h"

#include "worker/worker_main.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* --- sending --- */

void node_send(struct node *n, const Chronos__V1__NodeMessage *m) {
    struct bytes *b = bytes_new(chronos__v1__node_message__get_packed_size(m));

    assert_non_null(b);
    assert_non_null(n->call);
    (void) chronos__v1__node_message__pack(m, b->data);
    (void) rpc_call_write(n->call, b);
    (void) bytes_unref(b);
}

static void send_welcome(struct node *n) {
    Chronos__V1__NodeWelcome w = CHRONOS__V1__NODE_WELCOME__INIT;
    Chronos__V1__NodeMessage m = CHRONOS__V1__NODE_MESSAGE__INIT;
    char *addresses[1] = {(char *) (uintptr_t) n->other_address};

    w.node_id = 1;
    w.lease_ms = n->lease_ms;
    w.heartbeat_interval_ms = n->heartbeat_ms;
    if (n->other_address) {
        w.node_addresses = addresses;
        w.n_node_addresses = 1;
    }
    m.body_case = CHRONOS__V1__NODE_MESSAGE__BODY_WELCOME;
    m.welcome = &w;
    node_send(n, &m);
}

static void send_ack(struct node *n, const Chronos__V1__WorkerReports *r) {
    Chronos__V1__ReportResult *results = calloc(r->n_reports, sizeof(*results));
    Chronos__V1__ReportResult **list = calloc(r->n_reports, sizeof(struct list *));
    Chronos__V1__NodeReportAck ack = CHRONOS__V1__NODE_REPORT_ACK__INIT;
    Chronos__V1__NodeMessage m = CHRONOS__V1__NODE_MESSAGE__INIT;

    for (size_t i = 0; i < r->n_reports; i++) {
        chronos__v1__report_result__init(&results[i]);
        results[i].attempt = r->reports[i]->attempt;
        list[i] = &results[i];
    }
    ack.results = list;
    ack.n_results = r->n_reports;
    m.body_case = CHRONOS__V1__NODE_MESSAGE__BODY_REPORT_ACK;
    m.report_ack = &ack;
    node_send(n, &m);
    free(results);
    free(list);
}

void node_spec_shell(Chronos__V1__JobSpec *spec, const char *line) {
    chronos__v1__job_spec__init(spec);
    spec->payload_case = CHRONOS__V1__JOB_SPEC__PAYLOAD_SHELL;
    spec->shell = (char *) (uintptr_t) line;
}

void node_assign(struct node *n, const char *job, uint32_t attempt, uint64_t token,
                 Chronos__V1__JobSpec *spec) {
    Chronos__V1__AttemptRef ref = CHRONOS__V1__ATTEMPT_REF__INIT;
    Chronos__V1__Assignment a = CHRONOS__V1__ASSIGNMENT__INIT, *list[1] = {&a};
    Chronos__V1__NodeAssign assign = CHRONOS__V1__NODE_ASSIGN__INIT;
    Chronos__V1__NodeMessage m = CHRONOS__V1__NODE_MESSAGE__INIT;

    ref.job_id = (char *) (uintptr_t) job;
    ref.attempt = attempt;
    ref.fencing_token = token;
    a.attempt = &ref;
    a.spec = spec;
    if (n->schedule_id)
        a.schedule_id = (char *) (uintptr_t) n->schedule_id;
    a.tick_ms = n->tick_ms;
    assign.assignments = list;
    assign.n_assignments = 1;
    m.body_case = CHRONOS__V1__NODE_MESSAGE__BODY_ASSIGN;
    m.assign = &assign;
    node_send(n, &m);
}

void node_assign_shell(struct node *n, const char *job, const char *line) {
    Chronos__V1__JobSpec spec;

    node_spec_shell(&spec, line);
    node_assign(n, job, 1, 7, &spec);
}

void node_kill(struct node *n, const char *job, bool cancelled, bool now) {
    Chronos__V1__AttemptRef ref = CHRONOS__V1__ATTEMPT_REF__INIT;
    Chronos__V1__NodeKill kill = CHRONOS__V1__NODE_KILL__INIT;
    Chronos__V1__NodeMessage m = CHRONOS__V1__NODE_MESSAGE__INIT;

    ref.job_id = (char *) (uintptr_t) job;
    ref.attempt = 1;
    ref.fencing_token = 7;
    kill.attempt = &ref;
    kill.cancelled = cancelled;
    kill.now = now;
    m.body_case = CHRONOS__V1__NODE_MESSAGE__BODY_KILL;
    m.kill = &kill;
    node_send(n, &m);
}

void node_ask_log(struct node *n, uint64_t id, const char *job, uint64_t offset, bool follow) {
    Chronos__V1__AttemptRef ref = CHRONOS__V1__ATTEMPT_REF__INIT;
    Chronos__V1__NodeLogRequest q = CHRONOS__V1__NODE_LOG_REQUEST__INIT;
    Chronos__V1__NodeMessage m = CHRONOS__V1__NODE_MESSAGE__INIT;

    free(n->log);
    n->log = NULL;
    n->log_bytes = 0;
    n->log_end = false;
    n->log_error[0] = '\0';
    ref.job_id = (char *) (uintptr_t) job;
    ref.attempt = 1;
    ref.fencing_token = 7;
    q.request_id = id;
    q.attempt = &ref;
    q.offset = offset;
    q.follow = follow;
    m.body_case = CHRONOS__V1__NODE_MESSAGE__BODY_LOG_REQUEST;
    m.log_request = &q;
    node_send(n, &m);
}

/* --- receiving --- */

static void join(char *out, size_t bytes, Chronos__V1__AttemptRef **refs, size_t count) {
    size_t used = 0;

    out[0] = '\0';
    for (size_t i = 0; i < count && used < bytes - 60; i++)
        used += (size_t) snprintf(out + used, bytes - used, "%s/%u ", refs[i]->job_id,
                                  refs[i]->attempt);
}

static void take_hello(struct node *n, const Chronos__V1__WorkerHello *h) {
    n->hellos++;
    n->incarnation = h->incarnation;
    n->hello = h->hello;
    n->slots = h->slots;
    n->hello_draining = h->draining;
    (void) snprintf(n->worker_id, sizeof(n->worker_id), "%s", h->worker_id);
    join(n->running, sizeof(n->running), h->running, h->n_running);
    join(n->finished, sizeof(n->finished), h->finished, h->n_finished);
    if (n->refuse > 0) {
        n->refuse--;
        rpc_call_finish(n->call, RPC_ALREADY_EXISTS, "the id is in use", NULL, 0);
        n->call = NULL;
        return;
    }
    send_welcome(n);
}

static void take_report(struct node *n, const Chronos__V1__AttemptReport *r) {
    struct node_report *out = node_report_of(n, r->attempt->job_id);

    n->reports_total++;
    if (!out) {
        assert_true(n->reports_count < NODE_REPORTS_MAX);
        out = &n->reports[n->reports_count++];
        (void) snprintf(out->job, sizeof(out->job), "%s", r->attempt->job_id);
        assert_int_equal(bytesmap_put(&n->by_job, slice_of(out->job, strlen(out->job)), out), 0);
    }
    out->seen++;
    out->attempt = r->attempt->attempt;
    out->token = r->attempt->fencing_token;
    out->outcome = (int) r->outcome;
    out->reason = (int) r->reason;
    out->exit_code = r->exit_code;
    out->term_signal = r->term_signal;
    out->output_bytes = r->output_bytes;
    out->truncated = r->output_truncated;
    out->started = r->started;
    (void) snprintf(out->message, sizeof(out->message), "%s", r->message);
    free(out->tail);
    out->tail = malloc(r->output_tail.len + 1);
    if (r->output_tail.len > 0)
        memcpy(out->tail, r->output_tail.data, r->output_tail.len);
    out->tail[r->output_tail.len] = '\0';
    out->tail_bytes = r->output_tail.len;
}

static void take_log(struct node *n, const Chronos__V1__WorkerLogData *d) {
    char *bigger = realloc(n->log, n->log_bytes + d->data.len + 1);

    assert_non_null(bigger);
    if (d->data.len > 0)
        memcpy(bigger + n->log_bytes, d->data.data, d->data.len);
    n->log = bigger;
    n->log_bytes += d->data.len;
    n->log[n->log_bytes] = '\0';
    n->log_end = n->log_end || d->end;
    if (d->error[0])
        (void) snprintf(n->log_error, sizeof(n->log_error), "%s", d->error);
}

static void take_heartbeat(struct node *n, const Chronos__V1__WorkerHeartbeat *h) {
    Chronos__V1__NodeHeartbeatAck ack = CHRONOS__V1__NODE_HEARTBEAT_ACK__INIT;
    Chronos__V1__NodeMessage m = CHRONOS__V1__NODE_MESSAGE__INIT;

    n->heartbeats++;
    n->draining += h->draining ? 1 : 0;
    if (!n->ack_heartbeats)
        return;
    ack.sequence = h->sequence;
    m.body_case = CHRONOS__V1__NODE_MESSAGE__BODY_HEARTBEAT_ACK;
    m.heartbeat_ack = &ack;
    node_send(n, &m);
}

static void on_message(void *ctx, struct rpc_call *call, struct slice message, bool end) {
    struct node *n = (struct node *) ctx;
    Chronos__V1__WorkerMessage *m;

    if (end || call != n->call)
        return;
    m = chronos__v1__worker_message__unpack(NULL, message.len, message.data);
    assert_non_null(m);
    switch (m->body_case) {
    case CHRONOS__V1__WORKER_MESSAGE__BODY_HELLO:
        take_hello(n, m->hello);
        break;
    case CHRONOS__V1__WORKER_MESSAGE__BODY_HEARTBEAT:
        take_heartbeat(n, m->heartbeat);
        break;
    case CHRONOS__V1__WORKER_MESSAGE__BODY_REPORTS:
        n->messages_with_reports++;
        for (size_t i = 0; i < m->reports->n_reports; i++)
            take_report(n, m->reports->reports[i]);
        if (n->ack_reports)
            send_ack(n, m->reports);
        break;
    case CHRONOS__V1__WORKER_MESSAGE__BODY_LOG_DATA:
        take_log(n, m->log_data);
        break;
    case CHRONOS__V1__WORKER_MESSAGE__BODY__NOT_SET:
    case _CHRONOS__V1__WORKER_MESSAGE__BODY__CASE_IS_INT_SIZE:
        break;
    }
    chronos__v1__worker_message__free_unpacked(m, NULL);
}

static void on_call(void *ctx, struct rpc_call *call, struct slice request) {
    struct node *n = (struct node *) ctx;

    (void) request;
    n->call = call;
    n->calls++;
    n->hellos = 0;
}

static void on_gone(void *ctx, struct rpc_call *call) {
    struct node *n = (struct node *) ctx;

    if (n->call == call)
        n->call = NULL;
}

static const struct rpc_method methods[] = {{.path = "/chronos.v1.WorkerService/Session",
                                             .kind = RPC_BIDI_STREAM,
                                             .on_call = on_call,
                                             .on_message = on_message,
                                             .on_gone = on_gone}};

/* --- the server --- */

void node_start(struct node *n, uv_loop_t *loop) {
    struct rpc_server_options o = {.address = "127.0.0.1:0",
                                   .methods = methods,
                                   .methods_count = 1,
                                   .message_bytes_max = 4U << 20,
                                   .write_queue_bytes_max = 16U << 20,
                                   .ctx = n};
    struct errtext e = {.s = ""};

    *n = (struct node){.loop = loop,
                       .ack_reports = true,
                       .ack_heartbeats = true,
                       .lease_ms = 15000,
                       .heartbeat_ms = 1000};
    n->reports = calloc(NODE_REPORTS_MAX, sizeof(*n->reports));
    assert_non_null(n->reports);
    if (rpc_server_new(loop, &o, &n->server, &e) != 0)
        fail_msg("%s", e.s);
    n->port = rpc_server_port(n->server);
}

static void on_stopped(void *arg) {
    ((struct node *) arg)->stopped = true;
}

static bool is_stopped(void *arg) {
    return ((struct node *) arg)->stopped;
}

void node_stop(struct node *n) {
    if (n->server) {
        rpc_server_stop(n->server, 0, on_stopped, n);
        node_wait(n->loop, is_stopped, n, "the node stops");
        n->server = rpc_server_free(n->server);
    }
    for (size_t i = 0; i < n->reports_count; i++)
        free(n->reports[i].tail);
    free(n->reports);
    free(n->log);
    bytesmap_done(&n->by_job);
    n->reports = NULL;
    n->log = NULL;
    n->reports_count = 0;
}

/* --- waiting --- */

static void on_tick(uv_timer_t *t) {
    (void) t;
}

void node_wait(uv_loop_t *loop, bool (*cond)(void *arg), void *arg, const char *what) {
    uint64_t end = uv_hrtime() + NODE_WAIT_MS * NS_PER_MS;
    uv_timer_t tick;

    (void) uv_timer_init(loop, &tick);
    (void) uv_timer_start(&tick, on_tick, 2, 2);
    while (!cond(arg) && uv_hrtime() < end)
        (void) uv_run(loop, UV_RUN_ONCE);
    uv_close((uv_handle_t *) &tick, NULL);
    (void) uv_run(loop, UV_RUN_NOWAIT);
    if (!cond(arg))
        fail_msg("not in %d ms: %s", NODE_WAIT_MS, what);
}

static bool is_active(void *arg) {
    struct node *n = (struct node *) arg;

    return n->call && n->hellos == 1;
}

void node_wait_active(struct node *n) {
    node_wait(n->loop, is_active, n, "the worker says hello");
}

struct node_report *node_report_of(struct node *n, const char *job) {
    return (struct node_report *) bytesmap_get(&n->by_job, slice_of(job, strlen(job)));
}

struct report_wait {
    struct node *n;
    const char *job;
};

static bool has_report(void *arg) {
    struct report_wait *w = (struct report_wait *) arg;

    return node_report_of(w->n, w->job) != NULL;
}

struct node_report *node_wait_report(struct node *n, const char *job) {
    struct report_wait w = {.n = n, .job = job};

    node_wait(n->loop, has_report, &w, job);
    return node_report_of(n, job);
}

/* --- the worker process --- */

void worker_start(struct worker_process *p, const char *dir, const int *ports, size_t ports_count,
                  const char *const *more) {
    char nodes[200] = "", *args[24] = {(char *) (uintptr_t) "test", (char *) (uintptr_t) "worker"};
    posix_spawn_file_actions_t actions;
    size_t used = 0, n = 2;
    int fds[2];

    for (size_t i = 0; i < ports_count; i++)
        used += (size_t) snprintf(nodes + used, sizeof(nodes) - used, "%s127.0.0.1:%d",
                                  i ? "," : "", ports[i]);
    (void) snprintf(p->dir, sizeof(p->dir), "%s", dir ? dir : "/tmp/chronos-worker-XXXXXX");
    if (!dir)
        assert_non_null(mkdtemp(p->dir));
    args[n++] = (char *) (uintptr_t) "--node";
    args[n++] = nodes;
    args[n++] = (char *) (uintptr_t) "--data-dir";
    args[n++] = p->dir;
    args[n++] = (char *) (uintptr_t) "--id";
    args[n++] = (char *) (uintptr_t) "w1";
    args[n++] = (char *) (uintptr_t) "--log-level";
    args[n++] = (char *) (uintptr_t) (getenv("WORKER_LOG") ? getenv("WORKER_LOG") : "error");
    args[n++] =
        (char *) (uintptr_t) "--die-with-parent"; /* a failed test leaves no worker behind */
    for (; more && *more; more++)
        args[n++] = (char *) (uintptr_t) *more;
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    assert_int_equal(posix_spawn_file_actions_init(&actions), 0);
    assert_int_equal(posix_spawn_file_actions_adddup2(&actions, fds[0], 0), 0);
    assert_int_equal(posix_spawn(&p->pid, "/proc/self/exe", &actions, NULL, args, environ), 0);
    (void) posix_spawn_file_actions_destroy(&actions);
    (void) close(fds[0]);
    p->parent_fd = fds[1];
}

struct exit_wait {
    pid_t pid;
    int status;
    bool done;
};

static bool has_exited(void *arg) {
    struct exit_wait *w = (struct exit_wait *) arg;

    if (!w->done)
        w->done = waitpid(w->pid, &w->status, WNOHANG) == w->pid;
    return w->done;
}

int worker_wait(struct worker_process *p) {
    struct exit_wait w = {.pid = p->pid};

    /* On a loop of its own: the node's may be gone already. */
    node_wait(uv_default_loop(), has_exited, &w, "the worker ends");
    p->pid = 0;
    (void) close(p->parent_fd);
    return w.status;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw) {
    (void) st;
    (void) flag;
    (void) ftw;
    return remove(path);
}

void worker_end(struct worker_process *p) {
    int status;

    (void) kill(p->pid, SIGTERM);
    status = worker_wait(p);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    (void) nftw(p->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* --- both ends --- */

void node_begin(struct node *n, struct worker_process *p, const char *const *more) {
    node_start(n, uv_default_loop());
    worker_start(p, NULL, &n->port, 1, more);
    node_wait_active(n);
}

void node_finish(struct node *n, struct worker_process *p) {
    worker_end(p);
    node_stop(n);
}

/* --- processes of the test's jobs, found by an argument that nothing else has --- */

unsigned worker_count_processes(const char *needle) {
    DIR *d = opendir("/proc");
    unsigned count = 0;
    struct dirent *e;

    assert_non_null(d);
    while ((e = readdir(d)) != NULL) {
        char path[300], line[4096];
        ssize_t len;
        int fd;

        if (strtol(e->d_name, NULL, 10) <= 0)
            continue;
        (void) snprintf(path, sizeof(path), "/proc/%s/cmdline", e->d_name);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            continue;
        len = read(fd, line, sizeof(line));
        (void) close(fd);
        count += len > 0 && memmem(line, (size_t) len, needle, strlen(needle)) != NULL;
    }
    (void) closedir(d);
    return count;
}

struct process_wait {
    const char *needle;
    unsigned want;
};

static bool processes_are(void *arg) {
    const struct process_wait *w = (const struct process_wait *) arg;

    unsigned count = worker_count_processes(w->needle);

    /* A child that is about to become "sleep" still looks like its shell. */
    return w->want == 0 ? count == 0 : count >= w->want;
}

void worker_wait_processes(const char *needle, unsigned want) {
    struct process_wait w = {.needle = needle, .want = want};

    node_wait(uv_default_loop(), processes_are, &w, needle);
}

int worker_tests_main(int argc, char **argv, const struct CMUnitTest *tests, size_t count) {
    if (argc > 1 && strcmp(argv[1], "worker") == 0)
        return worker_main(argc - 1, argv + 1);
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return _cmocka_run_group_tests("worker", tests, count, NULL, NULL);
}
