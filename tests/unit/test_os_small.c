#include "os_test.h"

#include "os/clock.h"
#include "os/log_sink.h"
#include "os/procstat.h"
#include "os/random.h"
#include "os/sibling.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <time.h>

/* Goal: mono never runs back and wall is UTC. Method: repeated reads; time(2) as the witness. */
static void test_clock(void **state) {
    struct env_clock c = clock_env();
    struct mono last = c.mono(c.ctx);
    int64_t s = (int64_t) time(NULL);
    struct wall w = c.wall(c.ctx);

    (void) state;
    for (int i = 0; i < 1000; i++) {
        struct mono now = c.mono(c.ctx);

        assert_true(now.ns >= last.ns);
        last = now;
    }
    assert_true(w.ms / 1000 >= s - 1 && w.ms / 1000 <= s + 10);
}

/* Goal: numbers differ, within a block, across a refill and between two sources; the words handed
 * out are wiped. */
static void test_random(void **state) {
    struct random_os r, r2;
    struct env_random e;
    uint64_t seen[100];

    (void) state;
    assert_int_equal(random_os_init(&r), 0);
    assert_int_equal(random_os_init(&r2), 0);
    e = random_os_env(&r);
    for (size_t i = 0; i < 100; i++) {
        seen[i] = e.next(e.ctx);
        for (size_t j = 0; j < i; j++)
            assert_true(seen[i] != seen[j]);
    }
    for (size_t i = 0; i < r.used; i++)
        assert_true(r.block[i] == 0);
    assert_true(random_os_next(&r2) != seen[0]);
}

static void line(enum log_format format, const char *msg, const char *fields, struct buf *out) {
    struct log_sink s = {.fd = -1, .format = format};

    buf_clear(out);
    assert_int_equal(
        log_sink_format(&s, (struct wall){.ms = 1795293901123}, LOG_INFO, msg, fields, out), 0);
    assert_int_equal(buf_append(out, "", 1), 0);
}

/* Goal: the text format as documented, and nothing that could forge a line. */
static void test_log_text(void **state) {
    struct buf out;

    (void) state;
    buf_init(&out, 4096);
    line(LOG_TEXT, "node started", "id=1 name=\"a b\"", &out);
    assert_string_equal((char *) out.data,
                        "2026-11-21T20:45:01.123Z INFO  node started id=1 name=\"a b\"\n");
    line(LOG_TEXT, "m", "", &out);
    assert_string_equal((char *) out.data, "2026-11-21T20:45:01.123Z INFO  m\n");
    line(LOG_TEXT, "a\nb", "k=\033[1m \xff\xc2\x9b gr\xc3\xbc\xc3\x9f", &out);
    assert_string_equal(
        (char *) out.data,
        "2026-11-21T20:45:01.123Z INFO  a\\x0ab k=\\x1b[1m \\xff\\xc2\\x9b gr\xc3\xbc\xc3\x9f\n");
    buf_done(&out);
}

static const char *member(const json_t *j, const char *key) {
    const char *s = json_string_value(json_object_get(j, key));

    assert_non_null(s);
    return s;
}

/* Goal: every JSON line is one that another program's parser reads, with the same values. Method:
 * jansson reads fields of all kinds, well and badly formed. */
static void test_log_json(void **state) {
    struct buf out;
    json_t *j;

    (void) state;
    buf_init(&out, 4096);
    line(LOG_JSON, "say \"hi\"\n",
         "n=42 neg=-7 zero=0 pad=007 big=12345678901234567890 ok=true id=\"42\" path=/a\\b "
         "q=\"x \\\"y\\\" \\\\ z\" bad=\xff\x01 u=gr\xc3\xbc stray e= last=\"open",
         &out);
    assert_int_equal(out.data[out.len - 2], '\n');
    j = json_loads((char *) out.data, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(j);
    assert_string_equal(member(j, "time"), "2026-11-21T20:45:01.123Z");
    assert_string_equal(member(j, "level"), "info");
    assert_string_equal(member(j, "msg"), "say \"hi\"\n");
    assert_int_equal(json_integer_value(json_object_get(j, "n")), 42);
    assert_int_equal(json_integer_value(json_object_get(j, "neg")), -7);
    assert_true(json_is_integer(json_object_get(j, "zero")));
    assert_string_equal(member(j, "pad"), "007");
    assert_string_equal(member(j, "big"), "12345678901234567890");
    assert_true(json_is_true(json_object_get(j, "ok")));
    assert_string_equal(member(j, "id"), "42");
    assert_string_equal(member(j, "path"), "/a\\b");
    assert_string_equal(member(j, "q"), "x \"y\" \\ z");
    assert_string_equal(member(j, "bad"), "\xef\xbf\xbd\x01");
    assert_string_equal(member(j, "u"), "gr\xc3\xbc");
    assert_string_equal(member(j, "text"), "stray");
    assert_string_equal(member(j, "e"), "");
    assert_string_equal(member(j, "last"), "open");
    json_decref(j);
    buf_done(&out);
}

/* Goal: one line per call reaches the descriptor, also when the fields are as long as can be and
 * all need escaping. Method: a pipe; levels below the limit write nothing. */
static void test_log_write(void **state) {
    static char fields[2040], got[65536]; /* large */
    struct log_sink s;
    struct logger l;
    int fds[2];
    ssize_t n;

    (void) state;
    assert_int_equal(pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
    log_sink_init(&s, fds[1], LOG_JSON, LOG_INFO, &l);
    assert_false(s.colour);
    log_debug(&l, "not this", "a=%d", 1);
    assert_int_equal(read(fds[0], got, sizeof(got)), -1);
    memset(fields, 1, sizeof(fields) - 1);
    log_info(&l, "x", "k=%s", fields);
    n = read(fds[0], got, sizeof(got) - 1);
    assert_true(n > 12000 && n <= 16384);
    got[n] = '\0';
    assert_ptr_equal(strchr(got, '\n'), got + n - 1);
    assert_int_equal(close(fds[0]), 0);
    assert_int_equal(close(fds[1]), 0);
}

/* Goal: figures of this process are plausible and follow it. Method: burn CPU and touch memory. */
static void test_procstat(void **state) {
    struct procstat a, b;
    struct procstat_ids ids;
    const size_t size = (size_t) 32 << 20;
    uint64_t end;
    char *mem;

    (void) state;
    assert_int_equal(procstat_read(getpid(), &a), 0);
    assert_true(a.rss_bytes > 0 && a.threads >= 1);
    mem = malloc(size);
    assert_non_null(mem);
    for (size_t i = 0; i < size; i += 512)
        ((volatile char *) mem)[i] = 1;
    do {
        assert_int_equal(procstat_read(getpid(), &b), 0);
        end = b.cpu_ns;
    } while (end < a.cpu_ns + 30000000);
    assert_true(b.rss_bytes >= a.rss_bytes + size / 2);
    assert_true(b.rss_peak_bytes >= b.rss_bytes);
    free(mem);
    assert_int_equal(procstat_read_ids(getpid(), &ids), 0);
    assert_int_equal(ids.ppid, getppid());
    assert_int_equal(ids.pgrp, getpgrp());
    assert_int_equal(ids.session, getsid(0));
    assert_int_equal(procstat_read((pid_t) 0x3fffffff, &a), -ESRCH);
}

/* Goal: a pid file counts only while it names a living process of this program. Method: the test's
 * own number, that of process 1, some that cannot be, no number, no file. */
static void test_sibling(void **state) {
    static const char *const wrong[] = {"1", "0", "", "-4", "4194999", "99999999999999999999", "x"};
    char dir[] = "/tmp/chronos-sibling-XXXXXX", path[64];
    FILE *f;

    (void) state;
    assert_non_null(mkdtemp(dir));
    (void) snprintf(path, sizeof(path), "%s/worker.pid", dir);
    assert_int_equal(sibling_pid(dir, "worker.pid"), 0);
    for (size_t i = 0; i <= ARRAY_LEN(wrong); i++) {
        f = fopen(path, "we");
        assert_non_null(f);
        if (i < ARRAY_LEN(wrong))
            (void) fprintf(f, "%s\n", wrong[i]);
        else
            (void) fprintf(f, "%d\n", getpid());
        assert_int_equal(fclose(f), 0);
        assert_int_equal(sibling_pid(dir, "worker.pid"), i < ARRAY_LEN(wrong) ? 0 : getpid());
    }
    assert_true(sibling_is(getpid()));
    assert_false(sibling_is(1));
    assert_int_equal(remove(path), 0);
    assert_int_equal(rmdir(dir), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_clock),     cmocka_unit_test(test_random),
        cmocka_unit_test(test_log_text),  cmocka_unit_test(test_log_json),
        cmocka_unit_test(test_log_write), cmocka_unit_test(test_procstat),
        cmocka_unit_test(test_sibling),
    };

    return cmocka_run_group_tests_name("os_small", tests, NULL, NULL);
}
