/* Goal: a real worker process does what it owes when nodes, itself or its machine misbehave.
 * Method: as in test_worker_jobs.c. */
#include "worker_node.h"

#include "worker/session.h"
#include "worker/worker_main.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <stdio.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#define COMPLETED CHRONOS__V1__ATTEMPT_OUTCOME__ATTEMPT_OUTCOME_COMPLETED
#define RELEASED CHRONOS__V1__ATTEMPT_OUTCOME__ATTEMPT_OUTCOME_RELEASED

/* --- nodes that go, reports that are repeated --- */

/* Goal: when its node dies the worker moves on, its job goes on, and the new node hears of it.
 * Method: two nodes; the second one is only told in the welcome of the first. */
static void test_moves_to_second_node(void **state) {
    struct node first, second;
    struct worker_process p;
    char line[200], path[100], address[40];
    int fd;

    (void) state;
    node_start(&second, uv_default_loop());
    node_start(&first, uv_default_loop());
    (void) snprintf(address, sizeof(address), "127.0.0.1:%d", second.port);
    first.other_address = address;
    worker_start(&p, NULL, &first.port, 1, NULL);
    node_wait_active(&first);
    (void) snprintf(path, sizeof(path), "%s/go", p.dir);
    (void) snprintf(line, sizeof(line), "until test -e %s; do sleep 0.02; done", path);
    node_assign_shell(&first, "j1", line);
    worker_wait_processes(path, 1);
    node_stop(&first);
    node_wait_active(&second);
    assert_string_equal(second.running, "j1/1 ");
    fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    (void) close(fd);
    assert_int_equal(node_wait_report(&second, "j1")->outcome, COMPLETED);
    node_finish(&second, &p);
}

struct seen_wait {
    struct node *n;
    unsigned want;
};

static bool seen_twice(void *arg) {
    struct node_report *r = node_report_of((struct node *) arg, "j1");

    return r && r->seen == 2;
}

/* Goal: a report is repeated on each stream until it is acknowledged, and then never again. Method:
 * a node that does not acknowledge ends the stream. */
static void test_report_repeated(void **state) {
    struct worker_process p;
    struct node n;

    (void) state;
    node_begin(&n, &p, NULL);
    n.ack_reports = false;
    node_assign_shell(&n, "j1", "true");
    (void) node_wait_report(&n, "j1");
    n.ack_reports = true;
    rpc_call_finish(n.call, RPC_UNAVAILABLE, "going", NULL, 0);
    n.hellos = 0;
    node_wait(n.loop, seen_twice, &n, "the report comes again");
    assert_string_equal(n.finished, "j1/1 ");
    rpc_call_finish(n.call, RPC_UNAVAILABLE, "going", NULL, 0);
    n.call = NULL;
    n.hellos = 0;
    node_wait_active(&n);
    assert_string_equal(n.finished, "");
    node_finish(&n, &p);
}

/* Goal: after kill -9 a restarted worker has killed the orphans (also a daemon), does not name or
 * start the attempt again, and repeats the report of what had ended. Method: two lives. */
static void test_restart_after_kill(void **state) {
    struct worker_process p, again;
    char line[400], needle[40];
    uint64_t incarnation;
    struct node n;

    (void) state;
    (void) snprintf(needle, sizeof(needle), "orphan-%d", (int) getpid());
    (void) snprintf(line, sizeof(line),
                    "(setsid sh -c 'while :; do sleep 0.05; done' %s &) ; "
                    "sh -c 'while :; do sleep 0.05; done' %s; true",
                    needle, needle);
    node_begin(&n, &p, NULL);
    incarnation = n.incarnation;
    n.ack_reports = false;
    node_assign_shell(&n, "j1", "echo kept");
    (void) node_wait_report(&n, "j1");
    node_assign_shell(&n, "j2", line);
    worker_wait_processes(needle, 3); /* the main process names it in its own line too */
    assert_int_equal(kill(p.pid, SIGKILL), 0);
    (void) worker_wait(&p);
    n.hellos = 0;
    n.call = NULL;
    worker_start(&again, p.dir, &n.port, 1, NULL);
    node_wait_active(&n);
    assert_int_equal(worker_count_processes(needle), 0);
    assert_true(n.incarnation != incarnation);
    assert_string_equal(n.running, "");
    assert_string_equal(n.finished, "j1/1 ");
    n.ack_reports = true;
    node_wait(n.loop, seen_twice, &n, "the report comes again");
    assert_string_equal(node_report_of(&n, "j1")->tail, "kept\n");
    node_assign_shell(&n, "j2", line); /* a node that lags behind */
    node_assign_shell(&n, "j3", "true");
    (void) node_wait_report(&n, "j3");
    assert_int_equal(worker_count_processes(needle), 0);
    node_finish(&n, &again);
}

static bool refused_once(void *arg) {
    return ((struct node *) arg)->refuse <= 1;
}

static bool refused_twice(void *arg) {
    return ((struct node *) arg)->refuse == 0;
}

static bool deadline_over(void *arg) {
    return uv_hrtime() >= *(const uint64_t *) arg;
}

/* Goal: a worker whose id another process uses tries once more soon, since it may be its own dead
 * predecessor's stream, and then waits long, at the same node; one that is evicted waits long too.
 * Method: refused twice, then nothing for longer than the longest usual delay, also at the second
 * node. */
static void test_id_in_use(void **state) {
    struct worker_process p;
    struct node n, second;
    uint64_t end;
    int ports[2];

    (void) state;
    node_start(&n, uv_default_loop());
    node_start(&second, uv_default_loop());
    n.refuse = 2;
    ports[0] = n.port;
    ports[1] = second.port;
    worker_start(&p, NULL, ports, 2, NULL);
    end = uv_hrtime() + 4000 * NS_PER_MS;
    node_wait(n.loop, refused_once, &n, "the first hello");
    node_wait(n.loop, refused_twice, &n, "the second hello");
    assert_true(uv_hrtime() < end);
    end = uv_hrtime() + 2 * SESSION_BACKOFF_MS_MAX * NS_PER_MS;
    node_wait(n.loop, deadline_over, &end, "time goes by");
    assert_int_equal(n.calls, 2);
    assert_int_equal(n.hello, 2); /* each is counted, welcome or not */
    assert_int_equal(second.calls, 0);
    node_wait_active(&n); /* the third one is welcome */
    assert_int_equal(n.calls, 3);
    assert_int_equal(n.hello, 3);
    rpc_call_finish(n.call, RPC_ALREADY_EXISTS, "the id is in use", NULL, 0);
    n.call = NULL;
    end = uv_hrtime() + 2 * SESSION_BACKOFF_MS_MAX * NS_PER_MS;
    node_wait(n.loop, deadline_over, &end, "time goes by");
    assert_int_equal(n.calls, 3);
    assert_int_equal(second.calls, 0);
    worker_end(&p);
    node_stop(&second);
    node_stop(&n);
}

/* --- the lease --- */

/* Goal: without a node the jobs are dead before the lease can end, and are not named afterwards
 * (C26). Method: a lease of 1.6 s and a node that falls silent. */
static void test_lease_kills(void **state) {
    struct worker_process p;
    char line[100], needle[40];
    uint64_t silent_ns;
    struct node n;

    (void) state;
    (void) snprintf(needle, sizeof(needle), "8%d", (int) getpid());
    (void) snprintf(line, sizeof(line), "trap '' TERM; sleep %s", needle);
    node_start(&n, uv_default_loop());
    n.lease_ms = 1600;
    n.heartbeat_ms = 5000; /* no silence timeout before the lease */
    worker_start(&p, NULL, &n.port, 1, NULL);
    node_wait_active(&n);
    n.ack_heartbeats = false;
    silent_ns = uv_hrtime();
    node_assign_shell(&n, "j1", line);
    worker_wait_processes(needle, 2);
    worker_wait_processes(needle, 0);
    assert_true((uv_hrtime() - silent_ns) / NS_PER_MS < 1600);
    n.ack_heartbeats = true;
    n.call = NULL;
    n.hellos = 0;
    node_wait_active(&n);
    assert_string_equal(n.running, "");
    assert_string_equal(n.finished, "");
    assert_null(node_report_of(&n, "j1"));
    node_finish(&n, &p);
}

/* Goal: a worker that was stopped for longer than its lease kills first and reports nothing of what
 * ended meanwhile (J13). Method: SIGSTOP; the job ends by itself; SIGCONT after the lease. */
static bool lease_over(void *arg) {
    return uv_hrtime() >= *(const uint64_t *) arg;
}

static void test_stopped_worker(void **state) {
    struct worker_process p;
    char line[200], path[100], needle[40];
    struct node n;
    uint64_t end;
    int fd;

    (void) state;
    (void) snprintf(needle, sizeof(needle), "7%d", (int) getpid());
    node_start(&n, uv_default_loop());
    n.lease_ms = 1000;
    n.heartbeat_ms = 100;
    worker_start(&p, NULL, &n.port, 1, NULL);
    node_wait_active(&n);
    (void) snprintf(path, sizeof(path), "%s/go", p.dir);
    (void) snprintf(line, sizeof(line), "until test -e %s; do sleep 0.02; done", path);
    node_assign_shell(&n, "j1", line);
    (void) snprintf(line, sizeof(line), "exec sleep %s", needle);
    node_assign_shell(&n, "j2", line);
    worker_wait_processes(path, 1);
    worker_wait_processes(needle, 1);
    assert_int_equal(kill(p.pid, SIGSTOP), 0);
    end = uv_hrtime() + 1500 * NS_PER_MS;
    fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    (void) close(fd);
    node_wait(n.loop, lease_over, &end, "the lease ends");
    n.hellos = 0;
    n.calls = 0;
    assert_int_equal(kill(p.pid, SIGCONT), 0);
    worker_wait_processes(needle, 0);
    node_wait_active(&n);
    assert_string_equal(n.running, "");
    assert_null(node_report_of(&n, "j1"));
    assert_null(node_report_of(&n, "j2"));
    node_finish(&n, &p);
}

/* --- stopping --- */

/* Goal: SIGTERM lets a short job finish, releases a long one, and ends with 0. Method: drain 300
 * ms. */
static void test_drain(void **state) {
    static const char *const more[] = {"--drain", "300ms", "--slots", "2", NULL};
    struct worker_process p;
    char needle[40], line[100];
    struct node_report *r;
    struct node n;

    (void) state;
    (void) snprintf(needle, sizeof(needle), "6%d", (int) getpid());
    (void) snprintf(line, sizeof(line), "exec sleep %s", needle);
    node_begin(&n, &p, more);
    assert_int_equal(n.slots, 2);
    node_assign_shell(&n, "j1", line);
    node_assign_shell(&n, "j2", "sleep 0.1; echo fine");
    node_assign_shell(&n, "j3", "true"); /* more than slots */
    r = node_wait_report(&n, "j3");
    assert_int_equal(r->outcome, RELEASED);
    assert_false(r->started);
    worker_wait_processes(needle, 1);
    worker_end(&p);
    r = node_report_of(&n, "j1");
    assert_non_null(r);
    assert_int_equal(r->outcome, RELEASED);
    assert_true(r->started);
    r = node_report_of(&n, "j2");
    assert_non_null(r);
    assert_int_equal(r->outcome, COMPLETED);
    assert_int_equal(worker_count_processes(needle), 0);
    node_stop(&n);
}

static void tell_drain(struct node *n, bool on, int64_t timeout_ms) {
    Chronos__V1__NodeMessage m = CHRONOS__V1__NODE_MESSAGE__INIT;
    Chronos__V1__NodeDrain d = CHRONOS__V1__NODE_DRAIN__INIT;

    d.on = on;
    d.timeout_ms = timeout_ms;
    m.body_case = CHRONOS__V1__NODE_MESSAGE__BODY_DRAIN;
    m.drain = &d;
    node_send(n, &m);
}

/* Goal: an operator's drain lets a short job finish, releases a long one after its time, gives back
 * what still comes, and ends neither worker nor stream; a word or a new stream lifts it. */
static void test_operator_drain(void **state) {
    struct worker_process p;
    struct node n;

    (void) state;
    node_begin(&n, &p, NULL);
    node_assign_shell(&n, "j1", "exec sleep 600");
    node_assign_shell(&n, "j2", "sleep 0.1; echo fine");
    tell_drain(&n, true, 300);
    assert_int_equal(node_wait_report(&n, "j2")->outcome, COMPLETED);
    assert_int_equal(node_wait_report(&n, "j1")->outcome, RELEASED);
    node_assign_shell(&n, "j3", "true");
    assert_false(node_wait_report(&n, "j3")->started);
    tell_drain(&n, false, 0);
    node_assign_shell(&n, "j4", "true");
    assert_int_equal(node_wait_report(&n, "j4")->outcome, COMPLETED);
    tell_drain(&n, true, 0);
    rpc_call_finish(n.call, RPC_UNAVAILABLE, "going", NULL, 0);
    n.call = NULL;
    n.hellos = 0;
    node_wait_active(&n);
    node_assign_shell(&n, "j6", "true");
    assert_int_equal(node_wait_report(&n, "j6")->outcome, COMPLETED);
    worker_end(&p);
    node_stop(&n);
}

static bool says_draining(void *arg) {
    return ((struct node *) arg)->draining > 0;
}

/* Goal: a worker that cannot write its journal gives jobs back as never started, lets what runs
 * finish, and stops. Method: the running worker's files may not grow any more (RLIMIT_FSIZE). */
static void test_journal_fails(void **state) {
    const struct rlimit none = {.rlim_cur = 0, .rlim_max = RLIM_INFINITY};
    struct worker_process p;
    struct node_report *r;
    struct node n;

    (void) state;
    assert_ptr_not_equal(signal(SIGXFSZ, SIG_IGN), SIG_ERR); /* the worker inherits it */
    node_begin(&n, &p, NULL);
    (void) signal(SIGXFSZ, SIG_DFL);
    node_assign_shell(&n, "j1", "sleep 0.4");
    node_assign_shell(&n, "j2", "true");
    assert_int_equal(node_wait_report(&n, "j2")->outcome, COMPLETED); /* so j1 runs */
    assert_int_equal(prlimit(p.pid, RLIMIT_FSIZE, &none, NULL), 0);
    node_assign_shell(&n, "j3", "true");
    node_assign_shell(&n, "j4", "true");
    for (int i = 0; i < 2; i++) {
        r = node_wait_report(&n, i == 0 ? "j3" : "j4");
        assert_int_equal(r->outcome, RELEASED);
        assert_false(r->started);
    }
    node_wait(n.loop, says_draining, &n, "a heartbeat that says it stops");
    assert_int_equal(node_wait_report(&n, "j1")->outcome, COMPLETED);
    worker_end(&p);
    node_stop(&n);
}

/* Goal: a worker that is told to stop says so at once, in a heartbeat and in the hello to the next
 * node, gives back what still comes as never started, and says it again (C36). Method: heartbeats
 * every 30 s, so that one soon is one on purpose; a job that goes on until a file is there. */
static void test_drain_is_told(void **state) {
    static const char *const more[] = {"--drain", "15s", NULL};
    struct worker_process p;
    char line[200], path[100];
    struct node_report *r;
    struct node n;
    int fd;

    (void) state;
    node_start(&n, uv_default_loop());
    n.heartbeat_ms = 30000;
    n.lease_ms = 90000;
    worker_start(&p, NULL, &n.port, 1, more);
    node_wait_active(&n);
    (void) snprintf(path, sizeof(path), "%s/go", p.dir);
    (void) snprintf(line, sizeof(line), "until test -e %s; do sleep 0.02; done", path);
    node_assign_shell(&n, "j1", line);
    worker_wait_processes(path, 1);
    assert_false(n.hello_draining);
    assert_int_equal(n.draining, 0);
    assert_int_equal(kill(p.pid, SIGTERM), 0);
    node_wait(n.loop, says_draining, &n, "a heartbeat says draining");
    n.draining = 0;
    node_assign_shell(&n, "j2", "true"); /* of a leader that does not know yet */
    r = node_wait_report(&n, "j2");
    assert_int_equal(r->outcome, RELEASED);
    assert_false(r->started);
    assert_int_equal(n.draining, 1); /* before the report: else the same could come again */
    rpc_call_finish(n.call, RPC_UNAVAILABLE, "going", NULL, 0);
    n.call = NULL;
    n.hellos = n.draining = 0;
    node_wait_active(&n);
    assert_true(n.hello_draining);
    assert_string_equal(n.running, "j1/1 ");
    fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    (void) close(fd);
    assert_int_equal(node_wait_report(&n, "j1")->outcome, COMPLETED);
    assert_int_equal(worker_wait(&p), 0);
    assert_true(n.draining > 0);
    node_stop(&n);
}

/* Goal: --die-with-parent stops when the parent's pipe closes. Method: close it. */
static void test_parent_gone(void **state) {
    static const char *const more[] = {"--die-with-parent", NULL};
    struct worker_process p;
    struct node n;
    int status;

    (void) state;
    node_begin(&n, &p, more);
    (void) close(p.parent_fd);
    p.parent_fd = -1;
    status = worker_wait(&p);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    node_stop(&n);
}

/* --- figures --- */

static bool all_reported(void *arg) {
    const struct seen_wait *w = (const struct seen_wait *) arg;

    return w->n->reports_count == w->want;
}

static void assign_many(struct node *n, unsigned count, Chronos__V1__JobSpec *spec,
                        unsigned batch) {
    Chronos__V1__AttemptRef *refs = calloc(count, sizeof(*refs));
    Chronos__V1__Assignment *as = calloc(count, sizeof(*as));
    Chronos__V1__Assignment **list = calloc(count, sizeof(struct assignment *));
    char(*ids)[16] = calloc(count, sizeof(*ids));

    for (unsigned i = 0; i < count; i++) {
        (void) snprintf(ids[i], sizeof(ids[i]), "n%u", i);
        chronos__v1__attempt_ref__init(&refs[i]);
        chronos__v1__assignment__init(&as[i]);
        refs[i].job_id = ids[i];
        refs[i].attempt = 1;
        refs[i].fencing_token = 9;
        as[i].attempt = &refs[i];
        as[i].spec = spec;
        list[i] = &as[i];
    }
    for (unsigned i = 0; i < count; i += batch) {
        Chronos__V1__NodeAssign assign = CHRONOS__V1__NODE_ASSIGN__INIT;
        Chronos__V1__NodeMessage m = CHRONOS__V1__NODE_MESSAGE__INIT;

        assign.assignments = list + i;
        assign.n_assignments = MIN(batch, count - i);
        m.body_case = CHRONOS__V1__NODE_MESSAGE__BODY_ASSIGN;
        m.assign = &assign;
        node_send(n, &m);
    }
    free(refs);
    free(as);
    free(list);
    free(ids);
}

static void throughput(const char *name, unsigned count, Chronos__V1__JobSpec *spec,
                       const char *const *more, unsigned at_least) {
    struct worker_process p;
    struct seen_wait w;
    struct node n;
    uint64_t ns;

    node_begin(&n, &p, more);
    w = (struct seen_wait){.n = &n, .want = count};
    ns = uv_hrtime();
    assign_many(&n, count, spec, 64);
    node_wait(n.loop, all_reported, &w, "all reports");
    ns = uv_hrtime() - ns;
    print_message("%s: %u in %.1f ms = %.0f/s, %zu report messages\n", name, count,
                  (double) ns / 1e6, count * 1e9 / (double) ns, n.messages_with_reports);
    for (size_t i = 0; i < n.reports_count; i++)
        assert_int_equal(n.reports[i].outcome, COMPLETED);
    assert_true(count * 1000000000ULL / ns >= at_least);
    node_finish(&n, &p);
}

/* Goal: no-ops cost next to nothing. Method: 10,000 in batches of 64. The bar is far below what is
 * reached, so that a sanitizer build on a busy machine passes. */
static void test_noop_throughput(void **state) {
    Chronos__V1__JobSpec spec = CHRONOS__V1__JOB_SPEC__INIT;
    Chronos__V1__Noop noop = CHRONOS__V1__NOOP__INIT;

    (void) state;
    spec.payload_case = CHRONOS__V1__JOB_SPEC__PAYLOAD_NOOP;
    spec.noop = &noop;
    throughput("no-op", 10000, &spec, NULL, 2000);
}

/* Goal: a process costs about a millisecond. Method: /bin/true 1,000 times with 1,000 slots. */
static void test_exec_throughput(void **state) {
    static const char *const more[] = {"--slots", "1000", NULL};
    Chronos__V1__JobSpec spec = CHRONOS__V1__JOB_SPEC__INIT;
    Chronos__V1__Command command = CHRONOS__V1__COMMAND__INIT;
    char program[] = "/bin/true", *argv[] = {program};

    (void) state;
    spec.payload_case = CHRONOS__V1__JOB_SPEC__PAYLOAD_COMMAND;
    spec.command = &command;
    command.argv = argv;
    command.n_argv = 1;
    throughput("/bin/true", 1000, &spec, more, 100);
}

/* --- the command line --- */

static int call_main(const char *const *args) {
    char *argv[16];
    int argc = 0;

    for (; args[argc]; argc++)
        argv[argc] = (char *) (uintptr_t) args[argc];
    argv[argc] = NULL;
    return worker_main(argc, argv);
}

/* Goal: wrong usage ends with 2, before anything is touched. Method: one case each. */
static void test_usage(void **state) {
    static const char *const cases[][5] = {
        {"worker", NULL},
        {"worker", "--node", "nowhere", NULL},
        {"worker", "--node", "h:99999", NULL},
        {"worker", "--node", "h:1", "--slots=0", NULL},
        {"worker", "--node", "h:1", "--label=x", NULL},
        {"worker", "--node", "h:1", "--drain=5", NULL},
        {"worker", "--node", "h:1", "--log-level=loud", NULL},
        {"worker", "--node", "h:1", "--id=a/b", NULL},
        {"worker", "--node", "h:1", "extra", NULL},
        {"worker", "--unknown", NULL},
        {"worker", "--node", NULL},
    };
    static const char *const help[] = {"worker", "--help", NULL};

    (void) state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        assert_int_equal(call_main(cases[i]), 2);
    assert_int_equal(call_main(help), 0);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_usage),           cmocka_unit_test(test_moves_to_second_node),
        cmocka_unit_test(test_report_repeated), cmocka_unit_test(test_restart_after_kill),
        cmocka_unit_test(test_id_in_use),       cmocka_unit_test(test_lease_kills),
        cmocka_unit_test(test_stopped_worker),  cmocka_unit_test(test_drain),
        cmocka_unit_test(test_operator_drain),  cmocka_unit_test(test_drain_is_told),
        cmocka_unit_test(test_journal_fails),   cmocka_unit_test(test_parent_gone),
        cmocka_unit_test(test_noop_throughput), cmocka_unit_test(test_exec_throughput),
    };

    return worker_tests_main(argc, argv, tests, ARRAY_LEN(tests));
}
