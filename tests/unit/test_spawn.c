#include "os_test.h"

#include "os/procstat.h"
#include "os/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define ENV_MARKER "CHRONOS_ATTEMPT_KEY=unit/1"

static const char *const clean_env[] = {"PATH=/usr/bin:/bin", ENV_MARKER, NULL};

#define EXITS_MAX 4096U

/* Every exit seen in a test program's life, in order: reaping takes all children at once, also
 * those that a later line waits for. */
struct exits {
    struct spawn_exit e[EXITS_MAX];
    size_t count;
};

static void on_exit_cb(void *arg, const struct spawn_exit *e) {
    struct exits *x = (struct exits *) arg;

    assert_true(x->count < EXITS_MAX);
    x->e[x->count++] = *e;
}

static uint64_t deadline(void) {
    return uv_hrtime() + OS_TEST_DEADLINE_MS * 1000000ULL;
}

static struct spawn_exit wait_for(pid_t pid) {
    static struct exits x;
    uint64_t end = deadline();

    for (;;) {
        siginfo_t info;

        for (size_t i = x.count; i > 0; i--) {
            if (x.e[i - 1].pid == pid) {
                x.e[i - 1].pid = 0; /* the number may come again */
                return x.e[i - 1];
            }
        }
        assert_true(uv_hrtime() < end);
        /* Blocks until some child has ended, without taking it. */
        assert_int_equal(waitid(P_ALL, 0, &info, WEXITED | WNOWAIT), 0);
        (void) spawn_reap(on_exit_cb, &x);
    }
}

static size_t read_all(int fd, char *out, size_t cap) {
    size_t len = 0;

    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        ssize_t n;

        assert_int_equal(poll(&p, 1, OS_TEST_DEADLINE_MS), 1);
        n = read(fd, out + len, cap - 1 - len);
        assert_true(n >= 0 || errno == EAGAIN);
        if (n == 0)
            break;
        len += n > 0 ? (size_t) n : 0;
        assert_true(len < cap - 1);
    }
    out[len] = '\0';
    return len;
}

static pid_t start_shell(const char *script, int *ret_fd) {
    const char *const argv[] = {"sh", "-c", script, NULL};
    struct spawn_request req = {.argv = argv, .env = clean_env};
    struct spawn_result res;
    enum spawn_step step;

    assert_int_equal(spawn_start(&req, &res, &step), 0);
    *ret_fd = res.output_fd;
    return res.pid;
}

static void run_shell(const char *script, char *out, size_t cap) {
    int fd = -1;
    pid_t pid = start_shell(script, &fd);
    struct spawn_exit e;

    (void) read_all(fd, out, cap);
    assert_int_equal(close(fd), 0);
    e = wait_for(pid);
    assert_int_equal(e.exit_code, 0);
}

/* Signals 32 and 33 belong to the C library, so its own calls refuse them; some programs leave them
 * ignored in what they start all the same. */
static void ignore_library_signals(void) {
    uint64_t ignore[4] = {(uint64_t) (uintptr_t) SIG_IGN}; /* handler, flags, restorer, mask */

    for (long sig = 32; sig <= 33; sig++)
        assert_int_equal(syscall(SYS_rt_sigaction, sig, ignore, NULL, sizeof(uint64_t)), 0);
}

/* Goal: what a job sees of its surroundings is exactly what the header lists. Method: a shell
 * prints each of them; this process meanwhile has a descriptor without close-on-exec, a blocked and
 * ignored signals, and secrets in its own environment. */
static void test_surroundings(void **state) {
    char out[4096];
    int leak = open("/etc/passwd", O_RDONLY); /* not close-on-exec, on purpose */
    sigset_t block, old;

    (void) state;
    assert_true(leak >= 0);
    assert_int_equal(setenv("CHRONOS_SECRET", "x", 1), 0);
    assert_int_equal(sigemptyset(&block), 0);
    assert_int_equal(sigaddset(&block, SIGUSR1), 0);
    assert_int_equal(sigprocmask(SIG_BLOCK, &block, &old), 0);
    assert_true(signal(SIGPIPE, SIG_IGN) != SIG_ERR);
    ignore_library_signals();
    run_shell("exec ls /proc/self/fd", out, sizeof(out));
    assert_string_equal(out, "0\n1\n2\n3\n"); /* 3 is the directory that ls reads */
    run_shell("exec env", out, sizeof(out));
    assert_non_null(strstr(out, ENV_MARKER));
    assert_null(strstr(out, "SECRET"));
    run_shell("readlink /proc/$$/fd/0; umask; ulimit -c; ulimit -n; cat /proc/$$/oom_score_adj",
              out, sizeof(out));
    assert_string_equal(out, "/dev/null\n0077\n0\n1024\n500\n");
    run_shell("grep -E '^(SigBlk|SigIgn|NoNewPrivs)' /proc/self/status", out, sizeof(out));
    assert_string_equal(out,
                        "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n"
                        "NoNewPrivs:\t1\n");
    run_shell("echo out; echo err >&2; cut -d' ' -f5,6,7 /proc/$$/stat; echo $$", out, sizeof(out));
    {
        int pgrp, session, tty, pid;

        assert_int_equal(sscanf(out, "out\nerr\n%d %d %d\n%d", &pgrp, &session, &tty, &pid), 4);
        assert_int_equal(pgrp, pid);
        assert_int_equal(session, pid);
        assert_int_equal(tty, 0);
    }
    assert_int_equal(sigprocmask(SIG_SETMASK, &old, NULL), 0);
    assert_true(signal(SIGPIPE, SIG_DFL) != SIG_ERR);
    assert_int_equal(unsetenv("CHRONOS_SECRET"), 0);
    assert_int_equal(close(leak), 0);
}

/* Goal: a start also works when this process has its own 0, 1 and 2 closed, so that the pipe lands
 * there. Method: a forked child closes them and reports by exit code. */
static void test_closed_stdio(void **state) {
    int status = 0;
    pid_t pid = fork();

    (void) state;
    if (pid == 0) {
        const char *const argv[] = {"sh", "-c", "echo hello; echo world >&2; cat", NULL};
        struct spawn_request req = {.argv = argv, .env = clean_env};
        struct spawn_result res;
        enum spawn_step step;
        char out[64] = {0};

        (void) close(0);
        (void) close(1);
        (void) close(2);
        if (spawn_start(&req, &res, &step) < 0)
            _exit(1);
        if (waitpid(res.pid, &status, 0) != res.pid || status != 0)
            _exit(2);
        if (read(res.output_fd, out, sizeof(out)) != 12 || strcmp(out, "hello\nworld\n") != 0)
            _exit(3);
        _exit(42);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(WEXITSTATUS(status), 42);
}

/* Goal: failures name their step and errno, leave no child and no descriptor. */
static void test_failures(void **state) {
    static const char *const missing[] = {"no-such-program", NULL};
    static const char *const missing_path[] = {"/no/such/program", NULL};
    static const char *const not_exec[] = {"/etc/passwd", NULL};
    static const char *const good[] = {"true", NULL};
    static const char *const empty[] = {"", NULL};
    static const char *const no_path[] = {"A=b", NULL};
    static const char *const rel_path[] = {"PATH=.:bin:", NULL};
    const struct {
        struct spawn_request req;
        int error;
        enum spawn_step step;
    } cases[] = {
        {{.argv = missing, .env = clean_env}, -ENOENT, SPAWN_STEP_EXEC},
        {{.argv = missing_path, .env = clean_env}, -ENOENT, SPAWN_STEP_EXEC},
        {{.argv = not_exec, .env = clean_env}, -EACCES, SPAWN_STEP_EXEC},
        {{.argv = good, .env = no_path}, -ENOENT, SPAWN_STEP_EXEC},
        {{.argv = good, .env = rel_path, .cwd = "/usr"}, -ENOENT, SPAWN_STEP_EXEC},
        {{.argv = empty, .env = clean_env}, -ENOENT, SPAWN_STEP_EXEC},
        {{.argv = good, .env = clean_env, .cwd = "/no/such/dir"}, -ENOENT, SPAWN_STEP_CWD},
        {{.argv = good,
          .env = clean_env,
          .limits = &(const struct spawn_limit){9999, 1},
          .limits_count = 1},
         -EINVAL,
         SPAWN_STEP_RLIMIT},
    };
    int next_fd = dup(0);

    (void) state;
    assert_int_equal(close(next_fd), 0);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct spawn_result res = {.pid = -7};
        enum spawn_step step = SPAWN_STEP_NONE;
        int fd;

        assert_int_equal(spawn_start(&cases[i].req, &res, &step), cases[i].error);
        assert_int_equal(step, cases[i].step);
        assert_true(strlen(spawn_step_to_string(step)) > 0);
        assert_int_equal(res.pid, -7);
        assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
        assert_int_equal(errno, ECHILD);
        fd = dup(0);
        assert_int_equal(fd, next_fd);
        assert_int_equal(close(fd), 0);
    }
}

/* Goal: exit codes, signals, CPU time and limits arrive. */
static void test_exits(void **state) {
    const char *const argv[] = {"sh", "-c",
                                "ulimit -n; i=0; while [ $i -lt 100000 ]; do i=$((i+1)); "
                                "done; exit 37",
                                NULL};
    const struct spawn_limit limits[] = {{RLIMIT_NOFILE, 64}};
    struct spawn_request req = {
        .argv = argv, .env = clean_env, .cwd = "/", .limits = limits, .limits_count = 1};
    struct spawn_result res;
    enum spawn_step step;
    struct spawn_exit e;
    char out[64];
    int fd;

    (void) state;
    assert_int_equal(spawn_start(&req, &res, &step), 0);
    (void) read_all(res.output_fd, out, sizeof(out));
    assert_string_equal(out, "64\n");
    assert_int_equal(close(res.output_fd), 0);
    e = wait_for(res.pid);
    assert_int_equal(e.exit_code, 37);
    assert_int_equal(e.term_signal, 0);
    assert_true(e.cpu_us > 1000);
    assert_true(e.rss_peak_bytes > 100000);
    e = wait_for(start_shell("kill -SEGV $$", &fd));
    assert_int_equal(e.exit_code, -1);
    assert_int_equal(e.term_signal, SIGSEGV);
    assert_false(e.core_dumped);
    assert_int_equal(close(fd), 0);
}

static bool is_gone(pid_t pid) {
    struct procstat_ids ids;

    return procstat_read_ids(pid, &ids) < 0 || ids.state == 'Z' || ids.state == 'X';
}

static bool knows_none(void *arg, pid_t pid) {
    (void) arg;
    (void) pid;
    return false;
}

static bool knows_all(void *arg, pid_t pid) {
    (void) arg;
    (void) pid;
    return true;
}

/* Read decimal numbers, one a line, until @n have come. */
static void read_pids(int fd, pid_t *pids, size_t n) {
    char out[256] = {0};
    size_t len = 0, lines = 0;

    while (lines < n) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        ssize_t got;

        assert_int_equal(poll(&p, 1, OS_TEST_DEADLINE_MS), 1);
        got = read(fd, out + len, sizeof(out) - 1 - len);
        assert_true(got > 0);
        len += (size_t) got;
        lines = 0;
        for (size_t i = 0; i < len; i++)
            lines += out[i] == '\n';
    }
    lines = 0;
    for (char *p = out; lines < n; lines++)
        pids[lines] = (pid_t) strtol(p, &p, 10);
}

static void check_all_gone(const pid_t *pids, size_t n) {
    uint64_t end = deadline();

    for (size_t i = 0; i < n; i++) {
        while (!is_gone(pids[i])) {
            assert_true(uv_hrtime() < end);
            (void) sched_yield();
        }
    }
}

/* Goal: killing a tree leaves nobody: not a background job, not a daemon that forked twice into a
 * session of its own, whether its parents live or not. Method: the script prints its pids; the
 * whole runs with the root alive, then with the root already reaped. */
static void test_tree_kill(void **state) {
    static const char script[] =
        "sleep 1000 & echo $!; "
        "setsid sh -c 'sleep 1000 & echo $!; setsid sh -c \"setsid sleep 1000 & echo \\$!\" & "
        "wait' & ";
    int others = -1;
    pid_t bystander = start_shell("sleep 1000", &others);

    (void) state;
    for (int reaped = 0; reaped < 2; reaped++) {
        char text[1024];
        struct spawn_tree tree = {.marker = ENV_MARKER};
        struct spawn_tree other = {.root = bystander, .marker = "CHRONOS_ATTEMPT_KEY=other"};
        pid_t pids[3];
        int fd = -1;

        (void) snprintf(text, sizeof(text), "%s %s", script, reaped ? "exit 0" : "wait");
        tree.root = start_shell(text, &fd);
        read_pids(fd, pids, 3);
        if (reaped)
            assert_int_equal(wait_for(tree.root).exit_code, 0);
        assert_int_equal(spawn_tree_alive(&tree, knows_none, NULL), 1);
        for (size_t i = 0; i < 3; i++)
            assert_false(is_gone(pids[i]));
        /* The bystander has the same marker on purpose here, so only look at it by its own. */
        assert_int_equal(spawn_tree_alive(&other, knows_none, NULL), 1);
        assert_true(spawn_tree_kill(&tree, SIGKILL) >= 3);
        check_all_gone(pids, 3);
        if (!reaped)
            assert_int_equal(wait_for(tree.root).term_signal, SIGKILL);
        assert_int_equal(close(fd), 0);
        /* It carried the tree's marker and was our direct child: it went too, by the rules. */
        assert_int_equal(wait_for(bystander).term_signal, SIGKILL);
        assert_int_equal(close(others), 0);
        bystander = start_shell("sleep 1000", &others);
    }
    assert_int_equal(kill(bystander, SIGKILL), 0);
    assert_int_equal(wait_for(bystander).term_signal, SIGKILL);
    assert_int_equal(close(others), 0);
}

/* Goal: another attempt is not touched, and after the end the cheap check says so. Method: two
 * trees with different markers, one the beginning of the other; both are of this test alone,
 * because what the tests before have killed may still be dying. */
static void test_tree_others(void **state) {
    static const char *const env1[] = {"PATH=/usr/bin:/bin", "CHRONOS_ATTEMPT_KEY=unit/3", NULL};
    static const char *const argv1[] = {"sh", "-c", "exit 0", NULL};
    static const char *const env2[] = {"PATH=/usr/bin:/bin", "CHRONOS_ATTEMPT_KEY=unit/32", NULL};
    static const char *const argv2[] = {"sleep", "1000", NULL};
    struct spawn_request first = {.argv = argv1, .env = env1};
    struct spawn_request req = {.argv = argv2, .env = env2};
    struct spawn_tree tree = {.marker = env1[1]}, two = {.marker = env2[1]};
    struct spawn_result ended;
    struct spawn_result res;
    enum spawn_step step;

    (void) state;
    assert_int_equal(spawn_start(&req, &res, &step), 0);
    two.root = res.pid;
    assert_int_equal(spawn_start(&first, &ended, &step), 0);
    tree.root = ended.pid;
    assert_int_equal(wait_for(tree.root).exit_code, 0);
    assert_int_equal(spawn_tree_alive(&tree, knows_all, NULL), 0);
    assert_int_equal(spawn_tree_alive(&tree, knows_none, NULL), 0); /* with the scan */
    assert_int_equal(spawn_tree_kill(&tree, SIGKILL), 0);
    assert_false(is_gone(two.root));
    assert_int_equal(spawn_tree_kill(&two, SIGTERM), 1);
    assert_int_equal(wait_for(two.root).term_signal, SIGTERM);
    assert_int_equal(close(ended.output_fd), 0);
    assert_int_equal(close(res.output_fd), 0);
}

/* Goal: jobs die with their worker, even one that is killed with -9. Method: a forked worker starts
 * a job and is killed; the pipe's end of file says that the job is gone. */
static void test_parent_death(void **state) {
    int fds[2];
    char c;
    pid_t worker;

    (void) state;
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    worker = fork();
    if (worker == 0) {
        static const char *const argv[] = {"sleep", "1000", NULL};
        struct spawn_request req = {.argv = argv, .env = clean_env};
        struct spawn_result res;
        enum spawn_step step;

        if (spawn_start(&req, &res, &step) < 0)
            _exit(1);
        (void) !write(fds[1], &res.pid, sizeof(res.pid));
        for (;;)
            (void) pause();
    }
    assert_int_equal(close(fds[1]), 0);
    {
        pid_t job = 0;

        assert_int_equal(read(fds[0], &job, sizeof(job)), sizeof(job));
        assert_false(is_gone(job));
        assert_int_equal(kill(worker, SIGKILL), 0);
        assert_int_equal(read(fds[0], &c, 1), 0); /* the worker's copy is closed */
        check_all_gone(&job, 1);
    }
    assert_int_equal(close(fds[0]), 0);
    (void) wait_for(worker);
}

/* Goal: a start is cheap, also in a large process. Method: 500 times true, with 256 MiB touched;
 * the bound is a tenth of what is aimed at (2,000/s), so that only a collapse fails. */
static void test_rate(void **state) {
    static const char *const argv[] = {"/bin/true", NULL};
    struct spawn_request req = {.argv = argv, .env = clean_env};
    const size_t size = (size_t) 256 << 20;
    char *mem = malloc(size);
    uint64_t t0, ns;

    (void) state;
    assert_non_null(mem);
    memset(mem, 1, size);
    t0 = uv_hrtime();
    for (int i = 0; i < 500; i++) {
        struct spawn_result res;
        enum spawn_step step;

        assert_int_equal(spawn_start(&req, &res, &step), 0);
        assert_int_equal(wait_for(res.pid).exit_code, 0);
        assert_int_equal(close(res.output_fd), 0);
    }
    ns = uv_hrtime() - t0;
    print_message("%llu /bin/true per second\n", (unsigned long long) (500 * 1000000000ULL / ns));
    assert_true(ns / 500 < 5000000);
    free(mem);
}

static int set_up(void **state) {
    (void) state;
    return spawn_init_reaper();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_surroundings), cmocka_unit_test(test_closed_stdio),
        cmocka_unit_test(test_failures),     cmocka_unit_test(test_exits),
        cmocka_unit_test(test_tree_kill),    cmocka_unit_test(test_tree_others),
        cmocka_unit_test(test_parent_death), cmocka_unit_test(test_rate),
    };

    return cmocka_run_group_tests_name("spawn", tests, set_up, NULL);
}
