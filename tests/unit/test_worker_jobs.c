/* Goal: a real worker process runs what a node tells it to: outcomes, environment, output, ends.
 * Method: a fake node (worker_node.h) on this process's loop; this binary started again with
 * "worker" is the worker. */
#include "worker_node.h"

#include "worker/session.h"
#include "worker/worker_main.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <sys/stat.h>
#include <stdio.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#define COMPLETED CHRONOS__V1__ATTEMPT_OUTCOME__ATTEMPT_OUTCOME_COMPLETED
#define FAILED CHRONOS__V1__ATTEMPT_OUTCOME__ATTEMPT_OUTCOME_FAILED
#define CANCELLED CHRONOS__V1__ATTEMPT_OUTCOME__ATTEMPT_OUTCOME_CANCELLED
#define BY_EXIT CHRONOS__V1__FAILURE_REASON__FAILURE_REASON_EXIT_CODE
#define BY_SIGNAL CHRONOS__V1__FAILURE_REASON__FAILURE_REASON_SIGNAL
#define BY_TIMEOUT CHRONOS__V1__FAILURE_REASON__FAILURE_REASON_TIMEOUT
#define BY_START CHRONOS__V1__FAILURE_REASON__FAILURE_REASON_START

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
    node_begin(&n, &p, NULL);
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
    node_finish(&n, &p);
}

/* Goal: an assignment that comes twice runs once, also after its report was acknowledged. Method:
 * the job appends to a file. */
static void test_runs_once(void **state) {
    struct worker_process p;
    struct node n;
    char line[200], path[100];
    struct stat st;

    (void) state;
    node_begin(&n, &p, NULL);
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
    node_finish(&n, &p);
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
    node_begin(&n, &p, NULL);
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
    node_finish(&n, &p);
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
    node_begin(&n, &p, NULL);
    node_spec_shell(&spec, line);
    spec.run_timeout_ms = 400;
    spec.kill_grace_ms = 200;
    node_assign(&n, "j1", 1, 7, &spec);
    r = node_wait_report(&n, "j1");
    assert_int_equal(r->outcome, FAILED);
    assert_int_equal(r->reason, BY_TIMEOUT);
    assert_int_equal(worker_count_processes(needle), 0);
    node_finish(&n, &p);
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
    node_begin(&n, &p, NULL);
    node_assign_shell(&n, "j1", line);
    r = node_wait_report(&n, "j1");
    assert_int_equal(r->outcome, COMPLETED);
    assert_string_equal(r->tail, "done\n");
    assert_int_equal(worker_count_processes(needle), 0);
    node_finish(&n, &p);
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
    node_begin(&n, &p, NULL);
    node_assign_shell(&n, "j1", line);
    node_assign_shell(&n, "j2", line);
    worker_wait_processes(needle, 2);
    node_kill(&n, "j1", true, false);
    r = node_wait_report(&n, "j1");
    assert_int_equal(r->outcome, CANCELLED);
    assert_int_equal(worker_count_processes(needle), 1);
    node_kill(&n, "j2", false, false);
    worker_wait_processes(needle, 0);
    node_assign_shell(&n, "j3", "true");
    (void) node_wait_report(&n, "j3");
    assert_null(node_report_of(&n, "j2"));
    node_finish(&n, &p);
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
    node_begin(&n, &p, NULL);
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
    assert_int_equal(worker_count_processes(needle), 0);
    assert_false(file_is_there(term));
    (void) unlink(ready);
    node_assign(&n, "j2", 1, 7, &spec);
    node_wait(n.loop, file_is_there, ready, "the second job runs");
    node_kill(&n, "j2", true, false);
    node_wait(n.loop, file_is_there, term, "SIGTERM arrives");
    node_kill(&n, "j2", true, true);
    r = node_wait_report(&n, "j2");
    assert_int_equal(r->outcome, CANCELLED);
    assert_int_equal(worker_count_processes(needle), 0);
    node_finish(&n, &p);
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
    node_begin(&n, &p, NULL);
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
    node_finish(&n, &p);
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
    node_begin(&n, &p, NULL);
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
    node_finish(&n, &p);
}

/* Goal: a job that prints without end starves nobody (security S16). Method: 20 small jobs, one
 * after the other, beside `yes`; each must end within a second. */
static void test_flood(void **state) {
    Chronos__V1__JobSpec spec;
    struct worker_process p;
    struct node_report *r;
    struct node n;

    (void) state;
    node_begin(&n, &p, NULL);
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
    node_finish(&n, &p);
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
    node_begin(&n, &p, NULL);
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
    node_finish(&n, &p);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_outcomes),      cmocka_unit_test(test_runs_once),
        cmocka_unit_test(test_environment),   cmocka_unit_test(test_timeout_kills_tree),
        cmocka_unit_test(test_leftovers_die), cmocka_unit_test(test_cancel_and_discard),
        cmocka_unit_test(test_kill_now),      cmocka_unit_test(test_schedule_environment),
        cmocka_unit_test(test_output_limit),  cmocka_unit_test(test_flood),
        cmocka_unit_test(test_follow),
    };

    return worker_tests_main(argc, argv, tests, ARRAY_LEN(tests));
}
