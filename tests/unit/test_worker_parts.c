/* Goal: the worker's parts keep their promises one by one: the attempt's table, the session's
 * table, lease arithmetic, output and its limits, retention, reports, the journal under every torn
 * byte. */
#include "base/lease.h"
#include "worker/attempt.h"
#include "worker/journal.h"
#include "worker/launch.h"
#include "worker/output.h"
#include "worker/reports.h"
#include "worker/retention.h"
#include "worker/seen.h"
#include "worker/session.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct dir {
    char path[64];
    int fd;
};

static void dir_open(struct dir *d) {
    (void) snprintf(d->path, sizeof(d->path), "/tmp/chronos-parts-XXXXXX");
    assert_non_null(mkdtemp(d->path));
    d->fd = open(d->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(d->fd >= 0);
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw) {
    (void) st;
    (void) flag;
    (void) ftw;
    return remove(path);
}

static void dir_close(struct dir *d) {
    (void) close(d->fd);
    (void) nftw(d->path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static struct ref make_ref(unsigned i) {
    char id[16];
    struct ref r;

    (void) snprintf(id, sizeof(id), "j%u", i);
    assert_int_equal(ref_make(slice_of(id, strlen(id)), 1, i + 1, &r), 0);
    return r;
}

static char *read_file(const struct dir *d, const char *name, size_t *ret_bytes) {
    int fd = openat(d->fd, name, O_RDONLY | O_CLOEXEC);
    struct stat st;
    char *b;

    assert_true(fd >= 0);
    assert_int_equal(fstat(fd, &st), 0);
    b = malloc((size_t) st.st_size + 1);
    assert_int_equal(read(fd, b, (size_t) st.st_size), st.st_size);
    b[st.st_size] = '\0';
    (void) close(fd);
    *ret_bytes = (size_t) st.st_size;
    return b;
}

/* Goal: every state x event is what the drawing says. Method: the whole table, spelled out. */
static void test_attempt_table(void **state) {
    static const char *const want[ATTEMPT_STATES][ATTEMPT_EVENTS] = {
        {"running", "ended", "ended", "ended", NULL, NULL, NULL},
        {NULL, NULL, "terminating", "killing", NULL, "killing", NULL},
        {NULL, NULL, "terminating", "killing", "killing", "terminating", "ended"},
        {NULL, NULL, "killing", "killing", NULL, "killing", "ended"},
        {NULL, NULL, "ended", "ended", NULL, NULL, NULL},
    };

    (void) state;
    for (int s = 0; s < ATTEMPT_STATES; s++) {
        for (int e = 0; e < ATTEMPT_EVENTS; e++) {
            int to = attempt_next((enum attempt_state) s, (enum attempt_event) e);

            if (want[s][e])
                assert_string_equal(attempt_state_to_string((enum attempt_state) to), want[s][e]);
            else
                assert_int_equal(to, -1);
        }
    }
}

/* Goal: an id that is in use is knocked for once more as usual, then every 5 to 10 s, never at one
 * fixed time. Method: a thousand draws of each. */
static void test_session_delays(void **state) {
    struct rng rng = rng_seed(1);
    uint64_t least = UINT64_MAX, most = 0;

    (void) state;
    for (int i = 0; i < 1000; i++) {
        uint64_t ms = session_delay_ms(&rng, 800, (unsigned) i % 2);

        assert_in_range(ms, 400, 800);
        ms = session_delay_ms(&rng, 50, 2 + (unsigned) i);
        assert_in_range(ms, SESSION_TAKEN_MS_MIN, SESSION_TAKEN_MS_MAX);
        least = MIN(least, ms);
        most = MAX(most, ms);
    }
    assert_true(most - least > 4000);
}

/* Goal: the session has exactly the drawn edges. Method: the whole table. */
static void test_session_table(void **state) {
    static const char want[SESSION_STATES][SESSION_STATES + 1] = {".X...X", "..X.XX", "...XXX",
                                                                  "....XX", ".X...X", "......"};

    (void) state;
    for (int a = 0; a < SESSION_STATES; a++)
        for (int b = 0; b < SESSION_STATES; b++)
            assert_int_equal(session_edge((enum session_state) a, (enum session_state) b),
                             want[a][b] == 'X');
}

static struct mono at(uint64_t ms) {
    return (struct mono){.ns = ms * NS_PER_MS};
}

/* Goal: the lease counts from the sending of what was acknowledged. Method: 15 s, by hand. */
static void test_lease(void **state) {
    struct lease l;

    (void) state;
    lease_init(&l);
    assert_int_equal(lease_check(&l, at(1000000)), LEASE_FINE);
    lease_welcome(&l, at(1000), 15000);
    assert_int_equal(lease_check(&l, at(1000 + 11124)), LEASE_FINE);
    assert_int_equal(lease_check(&l, at(1000 + 11125)), LEASE_TERM);
    assert_int_equal(lease_check(&l, at(1000 + 12999)), LEASE_TERM);
    assert_int_equal(lease_check(&l, at(1000 + 13000)), LEASE_KILL);
    assert_int_equal(lease_end(&l).ns, at(16000).ns);
    lease_sent(&l, 1, at(5000));
    lease_sent(&l, 2, at(10000));
    lease_acked(&l, 9); /* unknown: nothing */
    assert_int_equal(lease_end(&l).ns, at(16000).ns);
    lease_acked(&l, 0); /* the oldest */
    assert_int_equal(lease_end(&l).ns, at(20000).ns);
    lease_sent(&l, 3, at(15000));
    lease_acked(&l, 3); /* 2 was lost: overtaken */
    assert_int_equal(lease_end(&l).ns, at(30000).ns);
    assert_int_equal(l.pending_count, 0);
    lease_acked(&l, 2);
    assert_int_equal(lease_end(&l).ns, at(30000).ns);
}

/* Goal: the tail is the last 64 KiB for every pattern of writes, and the file the first `limit`
 * bytes. Method: writes of seeded sizes against a plain copy. */
static void test_output(void **state) {
    static const uint64_t limits[] = {1, 1000, 65536, 100000, 0};
    struct dir d;

    (void) state;
    dir_open(&d);
    for (size_t k = 0; k < ARRAY_LEN(limits); k++) {
        uint8_t *all = malloc(400000), tail[OUTPUT_TAIL_BYTES];
        struct ref ref = make_ref((unsigned) k + 1);
        uint64_t total = 0, seed = 12345 + k, limit;
        size_t bytes, n;
        struct output o;
        char *file;

        output_init(&o, d.fd, &ref, limits[k]);
        limit = o.limit;
        assert_int_equal(output_tail(&o, tail, sizeof(tail)), 0);
        while (total < 250000) {
            size_t len;

            seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
            len = (seed >> 33) % (seed & 1 ? 70000 : 100);
            for (size_t i = 0; i < len; i++)
                all[total + i] = (uint8_t) ((total + i) * 31 >> 3);
            assert_int_equal(output_append(&o, all + total, len), 0);
            total += len;
            n = output_tail(&o, tail, sizeof(tail));
            assert_int_equal(n, MIN(total, (uint64_t) OUTPUT_TAIL_BYTES));
            assert_memory_equal(tail, all + total - n, n);
        }
        assert_int_equal(o.total, total);
        assert_int_equal(o.truncated, total > limit);
        assert_int_equal(o.kept, MIN(total, limit));
        file = read_file(&d, o.name, &bytes);
        assert_int_equal(bytes, o.stored);
        assert_memory_equal(file, all, MIN(total, limit));
        assert_int_equal(memmem(file, bytes, "[chronos: output limit", 22) != NULL, o.truncated);
        assert_int_equal(output_tail(&o, tail, 10), 10);
        assert_memory_equal(tail, all + total - 10, 10);
        free(file);
        free(all);
        output_done(&o);
    }
    dir_close(&d);
}

/* Goal: the oldest outputs go first, and a restart knows the order. Method: bounds of 3 files and
 * 100 bytes; modification times set by hand. */
static void test_retention(void **state) {
    struct timespec times[2] = {{0}};
    struct retention t;
    struct stat st;
    struct dir d;

    (void) state;
    dir_open(&d);
    for (int i = 0; i < 5; i++) {
        char name[8];
        int fd;

        (void) snprintf(name, sizeof(name), "f%d", i);
        fd = openat(d.fd, name, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
        assert_int_equal(write(fd, "0123456789", 10), 10);
        times[1].tv_sec = 1000 - i; /* f4 is the oldest */
        assert_int_equal(futimens(fd, times), 0);
        (void) close(fd);
    }
    retention_init(&t, d.fd, 100, 3);
    assert_int_equal(retention_load(&t), 0);
    assert_int_equal(fstatat(d.fd, "f4", &st, 0), -1);
    assert_int_equal(fstatat(d.fd, "f3", &st, 0), -1);
    assert_int_equal(fstatat(d.fd, "f2", &st, 0), 0);
    retention_take(&t, "f2"); /* written anew: not to be removed */
    assert_int_equal(retention_add(&t, "big", 85), 0);
    assert_int_equal(fstatat(d.fd, "f1", &st, 0), -1);
    assert_int_equal(fstatat(d.fd, "f0", &st, 0), 0);
    assert_int_equal(fstatat(d.fd, "f2", &st, 0), 0);
    assert_int_equal(t.bytes, 95);
    retention_done(&t);
    dir_close(&d);
}

static void add_report(struct reports *t, unsigned i, size_t tail_bytes) {
    Chronos__V1__AttemptReport pb = CHRONOS__V1__ATTEMPT_REPORT__INIT;
    struct ref ref = make_ref(i);
    Chronos__V1__AttemptRef pb_ref;
    struct bytes *b;

    ref_to_pb(&ref, &pb_ref);
    pb.attempt = &pb_ref;
    pb.outcome = CHRONOS__V1__ATTEMPT_OUTCOME__ATTEMPT_OUTCOME_COMPLETED;
    pb.output_tail.len = tail_bytes;
    pb.output_tail.data = calloc(1, tail_bytes + 1);
    b = reports_pack(&pb);
    assert_non_null(b);
    assert_int_equal(reports_add(t, &ref, b, i % 2 == 0), 0);
    assert_int_equal(reports_add(t, &ref, b, false), REPORTS_E_EXISTS);
    (void) bytes_unref(b);
    free(pb.output_tail.data);
}

/* Everything unsent, as the generated code reads it; returns how many reports. */
static size_t send_all(struct reports *t) {
    size_t n = 0;
    struct bytes *b;

    while (reports_next(t, &b) == 0) {
        Chronos__V1__WorkerMessage *m = chronos__v1__worker_message__unpack(NULL, b->len, b->data);

        assert_non_null(m);
        assert_true(b->len < REPORTS_MESSAGE_BYTES_MAX + 16);
        assert_int_equal(m->body_case, CHRONOS__V1__WORKER_MESSAGE__BODY_REPORTS);
        n += m->reports->n_reports;
        chronos__v1__worker_message__free_unpacked(m, NULL);
        (void) bytes_unref(b);
    }
    return n;
}

/* Goal: reports are sent once a stream, again on the next, and never after the acknowledgement.
 * Method: 100 of them, some large; acknowledge every third between two streams. */
static void test_reports(void **state) {
    struct reports t;
    bool journaled;

    (void) state;
    reports_init(&t, 100);
    for (unsigned i = 1; i <= 100; i++)
        add_report(&t, i, i % 4 == 0 ? 65536 : 0);
    assert_int_equal(send_all(&t), 100);
    assert_int_equal(send_all(&t), 0);
    for (unsigned i = 3; i <= 100; i += 3) {
        struct ref ref = make_ref(i);

        assert_int_equal(reports_forget(&t, &ref, &journaled), 0);
        assert_int_equal(journaled, i % 2 == 0);
        assert_int_equal(reports_forget(&t, &ref, &journaled), 1);
    }
    assert_int_equal(send_all(&t), 0);
    reports_rewind(&t);
    assert_int_equal(send_all(&t), 67);
    assert_int_equal(reports_count(&t), 67);
    reports_done(&t);
}

/* Goal: a bounded table refuses, and changes nothing. Method: one too many. */
static void test_reports_bound(void **state) {
    struct ref ref = make_ref(9);
    struct bytes *b = bytes_copy("", 0);
    struct reports t;

    (void) state;
    reports_init(&t, 2);
    add_report(&t, 1, 0);
    add_report(&t, 2, 0);
    assert_int_equal(reports_add(&t, &ref, b, false), ERR_LIMIT);
    assert_int_equal(reports_count(&t), 2);
    (void) bytes_unref(b);
    reports_done(&t);
}

/* --- journal --- */

static void count_seen(void *arg, const struct ref *ref) {
    (void) ref;
    (*(unsigned *) arg)++;
}

static struct journal *open_journal(const struct dir *d, const char *boot, unsigned *seen) {
    struct errtext e = {.s = ""};
    struct journal *j = NULL;

    *seen = 0;
    if (journal_open(d->fd, boot, count_seen, seen, &j, &e) != 0)
        fail_msg("%s", e.s);
    return j;
}

static void write_file(const struct dir *d, const char *data, size_t bytes) {
    int fd = openat(d->fd, "journal", O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);

    assert_int_equal(write(fd, data, bytes), (ssize_t) bytes);
    (void) close(fd);
}

static size_t live(const struct journal *j, enum journal_state want) {
    struct journal_entry e;
    size_t pos = 0, n = 0;

    while (journal_next(j, &pos, &e))
        n += e.state == want;
    return n;
}

/* Goal: what was written is what is read, in each state. Method: four attempts, reopened. */
static void test_journal(void **state) {
    struct ref a = make_ref(1), b = make_ref(2), c = make_ref(3), e = make_ref(4);
    struct journal_entry entry;
    struct bytes *report;
    struct journal *j;
    unsigned seen;
    struct dir d;
    size_t pos = 0;

    (void) state;
    dir_open(&d);
    j = open_journal(&d, "boot-1", &seen);
    assert_int_equal(journal_starting(j, &a), 0);
    assert_int_equal(journal_starting(j, &b), 0);
    assert_int_equal(journal_started(j, &b, 4711, 99), 0);
    assert_int_equal(journal_starting(j, &c), 0);
    assert_int_equal(journal_ended(j, &c, slice_of("report", 6)), 0);
    assert_int_equal(journal_starting(j, &e), 0);
    assert_int_equal(journal_forget(j, &e), 0);
    for (int i = 0; i < 2; i++) { /* the second time from a compacted file */
        (void) journal_free(j);
        j = open_journal(&d, "boot-1", &seen);
        assert_true(seen >= 4);
        assert_int_equal(journal_torn_bytes(j), 0);
        assert_int_equal(live(j, JOURNAL_STARTING), 1);
        assert_int_equal(live(j, JOURNAL_STARTED), 1);
        assert_int_equal(live(j, JOURNAL_ENDED), 1);
        for (pos = 0; journal_next(j, &pos, &entry);)
            if (entry.state == JOURNAL_STARTED)
                assert_true(entry.pid == 4711 && entry.start_time == 99);
        assert_int_equal(journal_report(j, &c, &report), 0);
        assert_memory_equal(report->data, "report", 6);
        (void) bytes_unref(report);
        assert_int_equal(journal_report(j, &a, &report), 1);
    }
    (void) journal_free(j);
    j = open_journal(&d, "boot-2", &seen); /* another boot: nothing of it is true any more */
    assert_int_equal(seen, 0);
    pos = 0;
    assert_false(journal_next(j, &pos, &entry));
    (void) journal_free(j);
    dir_close(&d);
}

/* Goal: torn or damaged at any byte, the journal opens with a prefix of its records and can be
 * written again. Method: every length, then every byte flipped. */
static void test_journal_torn(void **state) {
    struct dir d;
    struct journal *j;
    unsigned seen, before = 0;
    size_t bytes;
    char *data;

    (void) state;
    dir_open(&d);
    j = open_journal(&d, "boot", &seen);
    for (unsigned i = 1; i <= 4; i++) {
        struct ref r = make_ref(i);

        assert_int_equal(journal_starting(j, &r), 0);
        assert_int_equal(journal_started(j, &r, 100, 5), 0);
        assert_int_equal(journal_ended(j, &r, slice_of("0123456789", 10)), 0);
    }
    (void) journal_free(j);
    data = read_file(&d, "journal", &bytes);
    for (size_t cut = 0; cut <= bytes; cut++) {
        struct ref r = make_ref(50);

        write_file(&d, data, cut);
        j = open_journal(&d, "boot", &seen);
        assert_true(seen >= before); /* a longer prefix never knows less */
        before = seen;
        assert_int_equal(journal_starting(j, &r), 0);
        (void) journal_free(j);
        j = open_journal(&d, "boot", &seen);
        assert_int_equal(journal_torn_bytes(j), 0);
        assert_true(seen > 0);
        (void) journal_free(j);
    }
    assert_int_equal(before, 12);
    for (size_t i = 0; i < bytes; i++) {
        data[i] ^= 0x40;
        write_file(&d, data, bytes);
        j = open_journal(&d, "boot", &seen);
        assert_true(seen < 12);
        assert_true(journal_torn_bytes(j) > 0);
        (void) journal_free(j);
        data[i] ^= 0x40;
    }
    free(data);
    dir_close(&d);
}

/* Goal: the file stays small however many attempts pass. Method: 30,000 lives with reports of 1
 * KiB; one old report must survive all compactions. */
static void test_journal_compaction(void **state) {
    struct ref old = make_ref(1000000);
    char report[1024];
    struct journal *j;
    struct bytes *b;
    unsigned seen;
    struct stat st;
    struct dir d;

    (void) state;
    memset(report, 'r', sizeof(report));
    dir_open(&d);
    j = open_journal(&d, "boot", &seen);
    assert_int_equal(journal_ended(j, &old, slice_of("old", 3)), 0);
    for (unsigned i = 1; i <= 30000; i++) {
        struct ref r = make_ref(i);

        assert_int_equal(journal_starting(j, &r), 0);
        assert_int_equal(journal_ended(j, &r, slice_of(report, sizeof(report))), 0);
        assert_int_equal(journal_forget(j, &r), 0);
    }
    assert_int_equal(fstatat(d.fd, "journal", &st, 0), 0);
    assert_true(st.st_size <= JOURNAL_COMPACT_BYTES_MIN + 2048);
    assert_int_equal(journal_report(j, &old, &b), 0);
    assert_memory_equal(b->data, "old", 3);
    (void) bytes_unref(b);
    (void) journal_free(j);
    dir_close(&d);
}

/* Goal: malformed names are refused, because they stand in file names. Method: a list. */
static void test_ref(void **state) {
    static const char *const bad[] = {
        "", "../x", "a/b", "a b", "a-b", "j.1", "0123456789012345678901234567890123456789"};
    struct ref r;

    (void) state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_int_equal(ref_make(slice_of(bad[i], strlen(bad[i])), 1, 1, &r), REF_E_MALFORMED);
    assert_int_equal(ref_make(slice_of("j1", 2), 0, 1, &r), REF_E_MALFORMED);
    assert_int_equal(ref_make(slice_of("j1", 2), 1, 0, &r), REF_E_MALFORMED);
    assert_int_equal(ref_from_pb(NULL, &r), REF_E_MALFORMED);
}

/* Goal: the set forgets the oldest only. Method: one more than it holds. */
static void test_seen(void **state) {
    struct ref r = make_ref(1);
    struct seen s;

    (void) state;
    seen_init(&s);
    for (unsigned i = 1; i <= SEEN_COUNT_MAX; i++) {
        struct ref x = make_ref(i);

        assert_false(seen_has(&s, &x));
        assert_int_equal(seen_add(&s, &x), 0);
    }
    assert_true(seen_has(&s, &r));
    r = make_ref(SEEN_COUNT_MAX + 1);
    assert_int_equal(seen_add(&s, &r), 0);
    assert_true(seen_has(&s, &r));
    r = make_ref(1);
    assert_false(seen_has(&s, &r));
    r = make_ref(2);
    assert_true(seen_has(&s, &r));
    seen_done(&s);
}

/* Goal: a specification that cannot be run is refused with a sentence. Method: each case. */
static void test_launch_refuses(void **state) {
    const struct launch_base base = {.home = "/", .work_path = "/w", .instance = "i"};
    Chronos__V1__JobSpec spec = CHRONOS__V1__JOB_SPEC__INIT;
    Chronos__V1__Assignment a = CHRONOS__V1__ASSIGNMENT__INIT;
    Chronos__V1__Command command = CHRONOS__V1__COMMAND__INIT;
    char empty[] = "", relative[] = "x/y", *argv[] = {empty};
    struct ref ref = make_ref(1);
    struct launch *l = NULL;
    struct errtext e;

    (void) state;
    a.spec = &spec;
    assert_int_equal(launch_new(&base, &ref, &a, &l, &e), LAUNCH_E_INVALID);
    spec.payload_case = CHRONOS__V1__JOB_SPEC__PAYLOAD_COMMAND;
    spec.command = &command;
    assert_int_equal(launch_new(&base, &ref, &a, &l, &e), LAUNCH_E_INVALID);
    command.argv = argv;
    command.n_argv = 1;
    assert_int_equal(launch_new(&base, &ref, &a, &l, &e), LAUNCH_E_INVALID);
    argv[0] = relative;
    spec.working_dir = relative;
    assert_int_equal(launch_new(&base, &ref, &a, &l, &e), LAUNCH_E_INVALID);
    assert_non_null(strstr(e.s, "x/y"));
    spec.working_dir = empty;
    spec.run_timeout_ms = -1;
    assert_int_equal(launch_new(&base, &ref, &a, &l, &e), 0);
    assert_true(l->run_timeout_ms == LAUNCH_NO_TIMEOUT && l->kill_grace_ms == 10000);
    assert_string_equal(l->cwd, "/w/j1-1");
    assert_string_equal(l->mark, "CHRONOS_ATTEMPT_KEY=i/j1-1-2");
    (void) launch_free(l);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_attempt_table),
        cmocka_unit_test(test_session_table),
        cmocka_unit_test(test_session_delays),
        cmocka_unit_test(test_lease),
        cmocka_unit_test(test_output),
        cmocka_unit_test(test_retention),
        cmocka_unit_test(test_reports),
        cmocka_unit_test(test_reports_bound),
        cmocka_unit_test(test_journal),
        cmocka_unit_test(test_journal_torn),
        cmocka_unit_test(test_journal_compaction),
        cmocka_unit_test(test_ref),
        cmocka_unit_test(test_seen),
        cmocka_unit_test(test_launch_refuses),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
