/* Goal: a real worker process does what a node tells it, and what it owes when nodes, itself or its
 * jobs misbehave. Method: a fake node (worker_node.h) on this process's loop; this binary started
 * again with "worker" is the worker. */
#include "worker_node.h"

#include "worker/session.h"
#include "worker/worker_main.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define COMPLETED CHRONOS__V1__ATTEMPT_OUTCOME__ATTEMPT_OUTCOME_COMPLETED
#define FAILED CHRONOS__V1__ATTEMPT_OUTCOME__ATTEMPT_OUTCOME_FAILED
#define CANCELLED CHRONOS__V1__ATTEMPT_OUTCOME__ATTEMPT_OUTCOME_CANCELLED
#define RELEASED CHRONOS__V1__ATTEMPT_OUTCOME__ATTEMPT_OUTCOME_RELEASED
#define BY_EXIT CHRONOS__V1__FAILURE_REASON__FAILURE_REASON_EXIT_CODE
#define BY_SIGNAL CHRONOS__V1__FAILURE_REASON__FAILURE_REASON_SIGNAL
#define BY_TIMEOUT CHRONOS__V1__FAILURE_REASON__FAILURE_REASON_TIMEOUT
#define BY_START CHRONOS__V1__FAILURE_REASON__FAILURE_REASON_START

static void begin(struct node *n, struct worker_process *p, const char *const *more) {
    node_start(n, uv_default_loop());
    worker_start(p, NULL, &n->port, 1, more);
    node_wait_active(n);
}

static void finish(struct node *n, struct worker_process *p) {
    worker_end(p);
    node_stop(n);
}

/* --- processes of the test's jobs, found by an argument that nothing else has --- */

static unsigned count_processes(const char *needle) {
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

    return count_processes(w->needle) == w->want;
}

static void wait_processes(const char *needle, unsigned want) {
    struct process_wait w = {.needle = needle, .want = want};

    node_wait(uv_default_loop(), processes_are, &w, needle);
}

/* --- outcomes --- */

/* Goal: exit codes, signals, missing programs and pipes end as they should. Method: one job each.
 */
static void test_outcomes(void **state) {
    Chronos__V1__JobSpec spec = CHRONOS__V1__JOB_SPEC__INIT;
    Chronos__V1__Command command = CHRONOS__V1__COMMAND__INIT;
    char program[] = "true", missing[] = "no-such-program", *argv[] = {program};
    struct worker_process p;
    struct node_report *r;
    struct node n;

    (void) state;
    begin(&n, &p, NULL);
    assert_string_equal(n.worker_id, "w1");
    spec.payload_case = CHRONOS__V1__JOB_SPEC__PAYLOAD_COMMAND;
    spec.command = &command;
    command.argv = argv;
    command.n_argv = 1;
    node_assign(&n, "j1", 1, 7, &spec);
    argv[0] = missing;
    node_assign(&n, "j2", 1, 7, &spec);
    node_assign_shell(&n, "j3", "exit 3");
    node_assign_shell(&n, "j4", "kill -9 $$");
    node_assign_shell(&n, "j5", "echo hello | tr a-z A-Z; echo err >&2");
    r = node_wait_report(&n, "j1");
    assert_int_equal(r->outcome, COMPLETED);
    assert_int_equal(r->token, 7);
    assert_int_equal(r->output_bytes, 0);
    r = node_wait_report(&n, "j2");
    assert_int_equal(r->outcome, FAILED);
    assert_int_equal(r->reason, BY_START);
    assert_non_null(strstr(r->message, "no-such-program"));
    r = node_wait_report(&n, "j3");
    assert_int_equal(r->outcome, FAILED);
    assert_int_equal(r->reason, BY_EXIT);
    assert_int_equal(r->exit_code, 3);
    r = node_wait_report(&n, "j4");
    assert_int_equal(r->reason, BY_SIGNAL);
    assert_int_equal(r->term_signal, 9);
    r = node_wait_report(&n, "j5");
    assert_int_equal(r->outcome, COMPLETED);
    assert_string_equal(r->tail, "HELLO\nerr\n");
    finish(&n, &p);
}

/* Goal: an assignment that comes twice runs once, also after its report was acknowledged. Method:
 * the job appends to a file. */
static void test_runs_once(void **state) {
    struct worker_process p;
    struct node n;
    char line[200], path[100];
    struct stat st;

    (void) state;
    begin(&n, &p, NULL);
    (void) snprintf(path, sizeof(path), "%s/count", p.dir);
    (void) snprintf(line, sizeof(line), "echo x >> %s", path);
    node_assign_shell(&n, "j1", line);
    node_assign_shell(&n, "j1", line);
    (void) node_wait_report(&n, "j1");
    node_assign_shell(&n, "j1", line);
    node_assign_shell(&n, "j2", "true");
    (void) node_wait_report(&n, "j2");
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, 2);
    assert_int_equal(node_report_of(&n, "j1")->seen, 1);
    finish(&n, &p);
}

/* Goal: the process sees exactly the environment and descriptors that are promised (security S12).
 * Method: the job prints them; golden comparison. */
static void test_environment(void **state) {
    Chronos__V1__JobSpec__EnvEntry entries[3], *env[3];
    char keys[3][20] = {"COLOUR", "LD_PRELOAD", "CHRONOS_JOB_ID"};
    char values[3][20] = {"blue", "/evil.so", "forged"}, golden[1000];
    Chronos__V1__JobSpec spec;
    struct worker_process p;
    struct node_report *r;
    struct node n;
    char *mark;

    (void) state;
    begin(&n, &p, NULL);
    node_spec_shell(&spec,
                    "/usr/bin/env | grep -v -e ^CHRONOS_STARTED_AT= -e ^PWD= -e ^_= -e ^SHLVL= -e "
                    "^OLDPWD= | sort; "
                    "ls /proc/self/fd | tr '\\n' ' '; echo; readlink /proc/self/fd/0; umask; "
                    "grep -e NoNewPrivs /proc/self/status; ulimit -c; pwd; "
                    "test \"$(ps -o sid= -p $$ | tr -d ' ')\" = $$ && echo session");
    for (int i = 0; i < 3; i++) {
        chronos__v1__job_spec__env_entry__init(&entries[i]);
        entries[i].key = keys[i];
        entries[i].value = values[i];
        env[i] = &entries[i];
    }
    spec.env = env;
    spec.n_env = 3;
    node_assign(&n, "j1", 3, 42, &spec);
    r = node_wait_report(&n, "j1");
    assert_int_equal(r->outcome, COMPLETED);
    mark = strstr(r->tail, "CHRONOS_ATTEMPT_KEY=");
    assert_non_null(mark);
    mark = strndup(mark, strcspn(mark, "\n"));
    assert_non_null(strstr(mark, "/j1-3-42"));
    (void) snprintf(golden, sizeof(golden),
                    "CHRONOS_ATTEMPT=3\n%s\nCHRONOS_FENCING_TOKEN=42\nCHRONOS_JOB_ID=j1\n"
                    "COLOUR=blue\nHOME=%s\nLANG=C.UTF-8\n"
                    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"
                    "0 1 2 3 \n/dev/null\n0077\nNoNewPrivs:\t1\n0\n%s/work/j1-3\nsession\n",
                    mark, getuid() == 0 ? "/root" : getenv("HOME"), p.dir);
    free(mark);
    assert_string_equal(r->tail, golden); /* descriptor 3 is ls's own directory */
    finish(&n, &p);
}

/* --- killing --- */

#define STUBBORN                                                                                   \
    "trap '' TERM; (trap '' TERM; setsid sh -c 'trap \"\" TERM; while :; do sleep 0.05; done' %s " \
    "& ) ; sh -c 'trap \"\" TERM; while :; do sleep 0.05; done' %s & while :; do sleep 0.05; done"

/* Goal: a timeout kills the whole tree within its grace: a main process and a child that ignore
 * SIGTERM, and a daemon in a session of its own. Method: count the processes afterwards. */
static void test_timeout_kills_tree(void **state) {
    char line[600], needle[40];
    Chronos__V1__JobSpec spec;
    struct worker_process p;
    struct node_report *r;
    struct node n;

    (void) state;
    (void) snprintf(needle, sizeof(needle), "timeout-%d", (int) getpid());
    (void) snprintf(line, sizeof(line), STUBBORN, needle, needle);
    begin(&n, &p, NULL);
    node_spec_shell(&spec, line);
    spec.run_timeout_ms = 400;
    spec.kill_grace_ms = 200;
    node_assign(&n, "j1", 1, 7, &spec);
    r = node_wait_report(&n, "j1");
    assert_int_equal(r->outcome, FAILED);
    assert_int_equal(r->reason, BY_TIMEOUT);
    assert_int_equal(count_processes(needle), 0);
    finish(&n, &p);
}

/* Goal: what a main process leaves behind when it ends well is killed, and the result stands.
 * Method: as above, with a daemon. */
static void test_leftovers_die(void **state) {
    char line[300], needle[40];
    struct worker_process p;
    struct node_report *r;
    struct node n;

    (void) state;
    (void) snprintf(needle, sizeof(needle), "leftover-%d", (int) getpid());
    (void) snprintf(line, sizeof(line),
                    "(setsid sh -c 'while :; do sleep 0.05; done' %s &) ; sleep 0.1; echo done",
                    needle);
    begin(&n, &p, NULL);
    node_assign_shell(&n, "j1", line);
    r = node_wait_report(&n, "j1");
    assert_int_equal(r->outcome, COMPLETED);
    assert_string_equal(r->tail, "done\n");
    assert_int_equal(count_processes(needle), 0);
    finish(&n, &p);
}

/* Goal: cancel reports CANCELLED once everything is dead; a stale kill reports nothing. Method:
 * both, then a third job shows that the worker goes on. */
static void test_cancel_and_discard(void **state) {
    struct worker_process p;
    char line[100], needle[40];
    struct node_report *r;
    struct node n;

    (void) state;
    (void) snprintf(needle, sizeof(needle), "9%d", (int) getpid());
    (void) snprintf(line, sizeof(line), "exec sleep %s", needle);
    begin(&n, &p, NULL);
    node_assign_shell(&n, "j1", line);
    node_assign_shell(&n, "j2", line);
    wait_processes(needle, 2);
    node_kill(&n, "j1", true, false);
    r = node_wait_report(&n, "j1");
    assert_int_equal(r->outcome, CANCELLED);
    assert_int_equal(count_processes(needle), 1);
    node_kill(&n, "j2", false, false);
    wait_processes(needle, 0);
    node_assign_shell(&n, "j3", "true");
    (void) node_wait_report(&n, "j3");
    assert_null(node_report_of(&n, "j2"));
    finish(&n, &p);
}

static bool file_is_there(void *arg) {
    struct stat st;

    return stat((const char *) arg, &st) == 0;
}

/* Goal: a cancel without grace gives nothing a chance to put things away, and reports CANCELLED; a
 * cancel with grace that is under way becomes one without. Method: two jobs that outlive SIGTERM
 * and have an hour of grace; the first would leave a file behind if it saw one. */
static void test_kill_now(void **state) {
    char line[400], needle[40], term[100], ready[100];
    Chronos__V1__JobSpec spec;
    struct worker_process p;
    struct node_report *r;
    struct node n;

    (void) state;
    begin(&n, &p, NULL);
    (void) snprintf(needle, sizeof(needle), "now-%d", (int) getpid());
    (void) snprintf(term, sizeof(term), "%s/term", p.dir);
    (void) snprintf(ready, sizeof(ready), "%s/ready", p.dir);
    (void) snprintf(line, sizeof(line),
                    "trap 'echo x > %s' TERM; echo x > %s; while :; do sleep 0.05; done # %s", term,
                    ready, needle);
    node_spec_shell(&spec, line);
    spec.kill_grace_ms = 3600 * 1000;
    node_assign(&n, "j1", 1, 7, &spec);
    node_wait(n.loop, file_is_there, ready, "the first job runs");
    node_kill(&n, "j1", true, true);
    r = node_wait_report(&n, "j1");
    assert_int_equal(r->outcome, CANCELLED);
    assert_int_equal(count_processes(needle), 0);
    assert_false(file_is_there(term));
    (void) unlink(ready);
    node_assign(&n, "j2", 1, 7, &spec);
    node_wait(n.loop, file_is_there, ready, "the second job runs");
    node_kill(&n, "j2", true, false);
    node_wait(n.loop, file_is_there, term, "SIGTERM arrives");
    node_kill(&n, "j2", true, true);
    r = node_wait_report(&n, "j2");
    assert_int_equal(r->outcome, CANCELLED);
    assert_int_equal(count_processes(needle), 0);
    finish(&n, &p);
}

/* Goal: a run of a schedule knows its schedule, its nominal instant and when it really started
 * (C30); a plain job knows only the last. Method: they print it; an instant before 1970 or beyond
 * all calendars does no harm. */
static void test_schedule_environment(void **state) {
    static const struct {
        int64_t tick_ms;
        const char *text;
    } ticks[] = {{1772953200000, "2026-03-08T07:00:00.000Z"},
                 {-1, "1970-01-01T00:00:00.000Z"},
                 {INT64_MAX, "9999-12-31T23:59:59.999Z"}};
    struct worker_process p;
    struct node_report *r;
    struct node n;
    char want[200];
    struct tm tm;
    time_t at;
    int ms;

    (void) state;
    begin(&n, &p, NULL);
    n.schedule_id = "nightly";
    for (size_t i = 0; i < ARRAY_LEN(ticks); i++) {
        char job[8];

        (void) snprintf(job, sizeof(job), "j%zu", i + 1);
        n.tick_ms = ticks[i].tick_ms;
        node_assign_shell(&n, job, "echo $CHRONOS_SCHEDULE_ID $CHRONOS_SCHEDULED_AT");
        r = node_wait_report(&n, job);
        (void) snprintf(want, sizeof(want), "nightly %s\n", ticks[i].text);
        assert_string_equal(r->tail, want);
    }
    n.schedule_id = NULL;
    n.tick_ms = 0;
    node_assign_shell(&n, "j9", "env | grep -c SCHEDULE; echo $CHRONOS_STARTED_AT");
    r = node_wait_report(&n, "j9");
    assert_memory_equal(r->tail, "0\n", 2);
    memset(&tm, 0, sizeof(tm));
    assert_int_equal(sscanf(r->tail + 2, "%4d-%2d-%2dT%2d:%2d:%2d.%3dZ", &tm.tm_year, &tm.tm_mon,
                            &tm.tm_mday, &tm.tm_hour, &tm.tm_min, &tm.tm_sec, &ms),
                     7);
    tm.tm_year -= 1900;
    tm.tm_mon--;
    at = timegm(&tm);
    assert_true(time(NULL) - at >= 0 && time(NULL) - at < 60);
    finish(&n, &p);
}

/* --- output --- */

static bool log_ended(void *arg) {
    return ((struct node *) arg)->log_end;
}

/* Goal: output beyond the limit is counted and dropped, the file says so, the tail is the end of it
 * all; the file is readable from any offset. Method: 5 MiB against the default of 1 MiB. */
static void test_output_limit(void **state) {
    struct worker_process p;
    struct node_report *r;
    struct node n;

    (void) state;
    begin(&n, &p, NULL);
    node_assign_shell(&n, "j1", "head -c 5242875 /dev/zero | tr '\\0' x; echo last");
    r = node_wait_report(&n, "j1");
    assert_int_equal(r->outcome, COMPLETED);
    assert_int_equal(r->output_bytes, 5242880);
    assert_true(r->truncated);
    assert_int_equal(r->tail_bytes, 65536);
    assert_string_equal(r->tail + 65536 - 6, "xlast\n");
    node_ask_log(&n, 1, "j1", 1048570, false);
    node_wait(n.loop, log_ended, &n, "the log ends");
    assert_memory_equal(n.log, "xxxxxx\n[chronos: output limit", 29);
    node_ask_log(&n, 2, "j1", 0, true);
    node_wait(n.loop, log_ended, &n, "the log ends");
    assert_true(n.log_bytes > 1048576 && n.log_bytes < 1048576 + 200);
    node_ask_log(&n, 3, "unknown", 0, true);
    node_wait(n.loop, log_ended, &n, "the log ends");
    assert_true(n.log_error[0] != '\0');
    finish(&n, &p);
}

/* Goal: a job that prints without end starves nobody (security S16). Method: 20 small jobs, one
 * after the other, beside `yes`; each must end within a second. */
static void test_flood(void **state) {
    Chronos__V1__JobSpec spec;
    struct worker_process p;
    struct node_report *r;
    struct node n;

    (void) state;
    begin(&n, &p, NULL);
    node_spec_shell(&spec, "exec yes");
    spec.run_timeout_ms = 1000;
    node_assign(&n, "j0", 1, 7, &spec);
    for (int i = 1; i <= 20; i++) {
        uint64_t ns = uv_hrtime();
        char job[8];

        (void) snprintf(job, sizeof(job), "j%d", i);
        node_assign_shell(&n, job, "echo small");
        assert_string_equal(node_wait_report(&n, job)->tail, "small\n");
        assert_true(uv_hrtime() - ns < NS_PER_S);
    }
    r = node_wait_report(&n, "j0");
    assert_int_equal(r->reason, BY_TIMEOUT);
    assert_true(r->truncated && r->output_bytes > 10U << 20);
    finish(&n, &p);
}

static bool log_has_one(void *arg) {
    const struct node *n = (const struct node *) arg;

    return n->log && strcmp(n->log, "one\n") == 0;
}

/* Goal: a reader follows a running attempt and learns its end. Method: the job waits for a file
 * that appears when the first line has been read. */
static void test_follow(void **state) {
    struct worker_process p;
    char line[300], path[100];
    struct node n;
    int fd;

    (void) state;
    begin(&n, &p, NULL);
    (void) snprintf(path, sizeof(path), "%s/go", p.dir);
    (void) snprintf(line, sizeof(line), "echo one; until test -e %s; do sleep 0.02; done; echo two",
                    path);
    node_assign_shell(&n, "j1", line);
    node_ask_log(&n, 1, "j1", 0, true);
    node_wait(n.loop, log_has_one, &n, "the first line");
    assert_false(n.log_end);
    fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    (void) close(fd);
    node_wait(n.loop, log_ended, &n, "the log ends");
    assert_string_equal(n.log, "one\ntwo\n");
    assert_string_equal(n.log_error, "");
    finish(&n, &p);
}

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
    wait_processes(path, 1);
    node_stop(&first);
    node_wait_active(&second);
    assert_string_equal(second.running, "j1/1 ");
    fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    (void) close(fd);
    assert_int_equal(node_wait_report(&second, "j1")->outcome, COMPLETED);
    finish(&second, &p);
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
    begin(&n, &p, NULL);
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
    finish(&n, &p);
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
    begin(&n, &p, NULL);
    incarnation = n.incarnation;
    n.ack_reports = false;
    node_assign_shell(&n, "j1", "echo kept");
    (void) node_wait_report(&n, "j1");
    node_assign_shell(&n, "j2", line);
    wait_processes(needle, 3); /* the main process names it in its own line too */
    assert_int_equal(kill(p.pid, SIGKILL), 0);
    (void) worker_wait(&p);
    n.hellos = 0;
    n.call = NULL;
    worker_start(&again, p.dir, &n.port, 1, NULL);
    node_wait_active(&n);
    assert_int_equal(count_processes(needle), 0);
    assert_true(n.incarnation != incarnation);
    assert_string_equal(n.running, "");
    assert_string_equal(n.finished, "j1/1 ");
    n.ack_reports = true;
    node_wait(n.loop, seen_twice, &n, "the report comes again");
    assert_string_equal(node_report_of(&n, "j1")->tail, "kept\n");
    node_assign_shell(&n, "j2", line); /* a node that lags behind */
    node_assign_shell(&n, "j3", "true");
    (void) node_wait_report(&n, "j3");
    assert_int_equal(count_processes(needle), 0);
    finish(&n, &again);
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
    assert_int_equal(second.calls, 0);
    node_wait_active(&n); /* the third one is welcome */
    assert_int_equal(n.calls, 3);
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
    wait_processes(needle, 2);
    wait_processes(needle, 0);
    assert_true((uv_hrtime() - silent_ns) / NS_PER_MS < 1600);
    n.ack_heartbeats = true;
    n.call = NULL;
    n.hellos = 0;
    node_wait_active(&n);
    assert_string_equal(n.running, "");
    assert_string_equal(n.finished, "");
    assert_null(node_report_of(&n, "j1"));
    finish(&n, &p);
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
    wait_processes(path, 1);
    wait_processes(needle, 1);
    assert_int_equal(kill(p.pid, SIGSTOP), 0);
    end = uv_hrtime() + 1500 * NS_PER_MS;
    fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    (void) close(fd);
    node_wait(n.loop, lease_over, &end, "the lease ends");
    n.hellos = 0;
    n.calls = 0;
    assert_int_equal(kill(p.pid, SIGCONT), 0);
    wait_processes(needle, 0);
    node_wait_active(&n);
    assert_string_equal(n.running, "");
    assert_null(node_report_of(&n, "j1"));
    assert_null(node_report_of(&n, "j2"));
    finish(&n, &p);
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
    begin(&n, &p, more);
    assert_int_equal(n.slots, 2);
    node_assign_shell(&n, "j1", line);
    node_assign_shell(&n, "j2", "sleep 0.1; echo fine");
    node_assign_shell(&n, "j3", "true"); /* more than slots */
    r = node_wait_report(&n, "j3");
    assert_int_equal(r->outcome, RELEASED);
    assert_false(r->started);
    wait_processes(needle, 1);
    worker_end(&p);
    r = node_report_of(&n, "j1");
    assert_non_null(r);
    assert_int_equal(r->outcome, RELEASED);
    assert_true(r->started);
    r = node_report_of(&n, "j2");
    assert_non_null(r);
    assert_int_equal(r->outcome, COMPLETED);
    assert_int_equal(count_processes(needle), 0);
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
    begin(&n, &p, NULL);
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
    wait_processes(path, 1);
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
    begin(&n, &p, more);
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

    begin(&n, &p, more);
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
    finish(&n, &p);
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
        cmocka_unit_test(test_usage),
        cmocka_unit_test(test_outcomes),
        cmocka_unit_test(test_runs_once),
        cmocka_unit_test(test_environment),
        cmocka_unit_test(test_timeout_kills_tree),
        cmocka_unit_test(test_leftovers_die),
        cmocka_unit_test(test_cancel_and_discard),
        cmocka_unit_test(test_kill_now),
        cmocka_unit_test(test_schedule_environment),
        cmocka_unit_test(test_output_limit),
        cmocka_unit_test(test_flood),
        cmocka_unit_test(test_follow),
        cmocka_unit_test(test_moves_to_second_node),
        cmocka_unit_test(test_report_repeated),
        cmocka_unit_test(test_restart_after_kill),
        cmocka_unit_test(test_id_in_use),
        cmocka_unit_test(test_lease_kills),
        cmocka_unit_test(test_stopped_worker),
        cmocka_unit_test(test_drain),
        cmocka_unit_test(test_operator_drain),
        cmocka_unit_test(test_drain_is_told),
        cmocka_unit_test(test_parent_gone),
        cmocka_unit_test(test_noop_throughput),
        cmocka_unit_test(test_exec_throughput),
    };

    if (argc > 1 && strcmp(argv[1], "worker") == 0)
        return worker_main(argc - 1, argv + 1);
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
