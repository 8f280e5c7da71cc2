#include "os_test.h"

#include "base/codec.h"
#include "base/rand.h"
#include "os/kv_rocks.h"

#include <errno.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#define KEYS 500U

static struct slice str(const char *s) {
    return slice_of(s, strlen(s));
}

static void put(struct kv *kv, const char *key, const char *value) {
    struct kv_op op = {.key = str(key), .value = str(value)};

    assert_int_equal(kv->ops->write(kv, &op, 1), 0);
}

static bool has(struct kv *kv, const char *key, const char *value) {
    struct buf out;
    bool same;
    int r;

    buf_init(&out, 1 << 20);
    r = kv->ops->get(kv, str(key), &out);
    assert_true(r == 0 || r == KV_NOT_FOUND);
    same = r == 0 && out.len == strlen(value) &&
           (out.len == 0 || memcmp(out.data, value, out.len) == 0);
    buf_done(&out);
    return same;
}

/* The model: value of key i, 0 = absent. */
struct model {
    uint64_t value[KEYS];
};

static void make_key(uint8_t out[12], uint64_t i) {
    memcpy(out, "key/", 4);
    put_be64(out + 4, i);
}

static void check_against(struct kv *kv, const struct model *m) {
    struct kv_iter *it = NULL;
    uint8_t key[12];
    uint64_t i = 0;

    assert_int_equal(kv->ops->iter_open(kv, &it), 0);
    it->ops->seek(it, str("key/"));
    for (i = 0; i < KEYS; i++) {
        if (m->value[i] == 0)
            continue;
        make_key(key, i);
        assert_true(it->ops->valid(it));
        assert_int_equal(it->ops->key(it).len, 12);
        assert_memory_equal(it->ops->key(it).data, key, 12);
        assert_int_equal(it->ops->value(it).len, 8);
        assert_true(get_le64(it->ops->value(it).data) == m->value[i]);
        it->ops->next(it);
    }
    assert_false(it->ops->valid(it));
    assert_int_equal(it->ops->status(it), 0);
    it->ops->close(it);
}

static void model_batch(struct kv *kv, struct model *m, struct rng *rng, uint64_t stamp) {
    struct kv_op ops[16];
    uint8_t keys[16][12], values[16][8];
    size_t n = 1 + rng_below(rng, 16);

    for (size_t j = 0; j < n; j++) {
        uint64_t i = rng_below(rng, KEYS);
        bool del = rng_chance(rng, 300);

        make_key(keys[j], i);
        put_le64(values[j], stamp);
        ops[j] = (struct kv_op){slice_of(keys[j], 12), slice_of(values[j], 8), del};
        m->value[i] = del ? 0 : stamp;
    }
    assert_int_equal(kv->ops->write(kv, ops, n), 0);
}

/* Goal: the store is an ordered map with atomic batches, before and after flush and reopen.
 * Method: random batches against an array, compared by iterator and get. */
static void test_model(void **state) {
    const uint64_t seed = 42;
    struct rng rng = rng_seed(seed);
    struct model *m = calloc(1, sizeof(*m));
    struct kv *kv = NULL;
    char dir[64];

    (void) state;
    print_message("seed %llu\n", (unsigned long long) seed);
    assert_non_null(m);
    os_test_dir(dir);
    for (uint64_t round = 1; round <= 5; round++) {
        assert_int_equal(kv_rocks_open(dir, &kv, NULL), 0);
        check_against(kv, m);
        for (uint64_t b = 0; b < 400; b++)
            model_batch(kv, m, &rng, round * 1000 + b);
        check_against(kv, m);
        assert_int_equal(kv->ops->flush(kv), 0);
        check_against(kv, m);
        kv->ops->close(kv);
    }
    free(m);
    os_test_rmdir(dir);
}

/* Goal: the small print of kv.h: get appends, a limit is an error, an iterator does not see later
 * writes, seek_for_prev and prev, empty values, a second opener is refused. */
static void test_contract(void **state) {
    struct kv *kv = NULL, *second = NULL;
    struct kv_iter *it = NULL;
    struct errtext err = {0};
    struct buf out;
    char dir[64];

    (void) state;
    os_test_dir(dir);
    assert_int_equal(kv_rocks_open(dir, &kv, &err), 0);
    put(kv, "b", "2");
    put(kv, "d", "");
    buf_init(&out, 4);
    assert_int_equal(buf_append_str(&out, "x"), 0);
    assert_int_equal(kv->ops->get(kv, str("b"), &out), 0);
    assert_int_equal(out.len, 2);
    assert_memory_equal(out.data, "x2", 2);
    put(kv, "long", "12345");
    assert_int_equal(kv->ops->get(kv, str("long"), &out), ERR_LIMIT);
    assert_int_equal(kv->ops->get(kv, str("a"), &out), KV_NOT_FOUND);
    buf_done(&out);
    assert_true(has(kv, "d", ""));
    assert_int_equal(kv->ops->iter_open(kv, &it), 0);
    put(kv, "c", "later");
    it->ops->seek_for_prev(it, str("c"));
    assert_true(it->ops->valid(it));
    assert_memory_equal(it->ops->key(it).data, "b", 1);
    it->ops->next(it);
    assert_memory_equal(it->ops->key(it).data, "d", 1);
    it->ops->prev(it);
    it->ops->prev(it);
    assert_false(it->ops->valid(it));
    it->ops->close(it);
    assert_int_equal(kv_rocks_open(dir, &second, &err), -EWOULDBLOCK);
    assert_non_null(strstr(err.s, dir));
    kv_rocks_last_error(kv, &err);
    assert_string_equal(err.s, "");
    assert_true(kv_rocks_memory_bytes(kv) > 0);
    kv->ops->close(kv);
    os_test_rmdir(dir);
}

/* In a child: batches of one counter and one record each, then an abrupt end. */
static void write_and_die(const char *dir, uint64_t batches, uint64_t flush_at) {
    struct kv *kv = NULL;
    static uint8_t value[4096]; /* no use of it after this call */

    if (kv_rocks_open(dir, &kv, NULL) != 0)
        _exit(1);
    for (uint64_t i = 1; i <= batches; i++) {
        uint8_t key[12], number[8];
        struct kv_op ops[2];

        make_key(key, i);
        put_le64(number, i);
        put_le64(value, i);
        ops[0] = (struct kv_op){str("applied"), slice_of(number, 8), false};
        ops[1] = (struct kv_op){slice_of(key, 12), slice_of(value, sizeof(value)), false};
        if (kv->ops->write(kv, ops, 2) != 0 || (i == flush_at && kv->ops->flush(kv) != 0))
            _exit(1);
    }
    _exit(42);
}

/* Goal: after a crash the store is an exact prefix of the batches, at least what was flushed
 * (reliability.md W13). Method: a child writes past several memtables and ends with _exit; the
 * counter must say exactly which records exist. */
/* In a child: files may not grow past 1 MiB; exit 42 when the store says so and goes on saying so.
 */
static void write_against_limit(const char *dir) {
    const struct rlimit limit = {.rlim_cur = 1 << 20, .rlim_max = 1 << 20};
    uint8_t key[12], value[1000] = {0};
    struct kv_op op = {.value = slice_of(value, sizeof(value))};
    struct rng rng = rng_seed(1);
    struct errtext err = {0};
    struct kv *kv = NULL;

    if (kv_rocks_open(dir, &kv, NULL) != 0 || signal(SIGXFSZ, SIG_IGN) == SIG_ERR ||
        setrlimit(RLIMIT_FSIZE, &limit) != 0)
        _exit(1);
    for (uint64_t i = 0; i < 3000; i++) {
        make_key(key, i);
        for (size_t j = 0; j < sizeof(value); j++) /* incompressible */
            value[j] = (uint8_t) rng_next(&rng);
        op.key = slice_of(key, sizeof(key));
        if (kv->ops->write(kv, &op, 1) != 0)
            _exit(2);
    }
    if (kv->ops->flush(kv) >= 0)
        _exit(3);
    kv_rocks_last_error(kv, &err);
    if (!strstr(err.s, "IO error"))
        _exit(4);
    _exit(kv->ops->write(kv, &op, 1) < 0 || kv->ops->flush(kv) < 0 ? 42 : 5);
}

/* Goal: a flush that fails is a negative result with a text, and the store does not go on as if
 * nothing had happened. Method: a child with a file size limit in place of a full disk. */
static void test_failed_flush(void **state) {
    char dir[64];
    int status = 0;
    pid_t pid;

    (void) state;
    os_test_dir(dir);
    pid = fork();
    if (pid == 0)
        write_against_limit(dir);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 42);
    os_test_rmdir(dir);
}

static void check_prefix(const char *dir, uint64_t batches) {
    struct kv *kv = NULL;
    struct kv_iter *it = NULL;
    struct buf out;
    uint64_t applied, n = 0;

    assert_int_equal(kv_rocks_open(dir, &kv, NULL), 0);
    buf_init(&out, 64);
    assert_int_equal(kv->ops->get(kv, str("applied"), &out), 0);
    applied = get_le64(out.data);
    buf_done(&out);
    print_message("%llu of %llu batches survived\n", (unsigned long long) applied,
                  (unsigned long long) batches);
    assert_true(applied >= 50 && applied <= batches);
    assert_int_equal(kv->ops->iter_open(kv, &it), 0);
    for (it->ops->seek(it, str("key/")); it->ops->valid(it); it->ops->next(it))
        assert_true(get_le64(it->ops->value(it).data) == ++n);
    assert_int_equal(it->ops->status(it), 0);
    assert_true(n == applied);
    it->ops->close(it);
    kv->ops->close(kv);
}

static void test_crash_prefix(void **state) {
    static const uint64_t batches[] = {100, 3000, 9000};
    char dirs[ARRAY_LEN(batches)][64];

    (void) state;
    /* All children first: RocksDB's threads, once started here, would be missing in a fork. */
    for (size_t i = 0; i < ARRAY_LEN(batches); i++) {
        int status = 0;
        pid_t pid;

        os_test_dir(dirs[i]);
        pid = fork();
        if (pid == 0)
            write_and_die(dirs[i], batches[i], 50);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 42);
    }
    for (size_t i = 0; i < ARRAY_LEN(batches); i++) {
        check_prefix(dirs[i], batches[i]);
        os_test_rmdir(dirs[i]);
    }
}

/* Goal: closing does not flush; what was not flushed is gone, what was flushed stays. */
static void test_close_does_not_flush(void **state) {
    struct kv *kv = NULL;
    char dir[64];

    (void) state;
    os_test_dir(dir);
    assert_int_equal(kv_rocks_open(dir, &kv, NULL), 0);
    put(kv, "a", "1");
    assert_int_equal(kv->ops->flush(kv), 0);
    put(kv, "b", "2");
    kv->ops->close(kv);
    assert_int_equal(kv_rocks_open(dir, &kv, NULL), 0);
    assert_true(has(kv, "a", "1"));
    assert_false(has(kv, "b", "2"));
    kv->ops->close(kv);
    os_test_rmdir(dir);
}

/* Goal: a damaged table file is an error, not missing data. Method: overwrite the middle of every
 * table file, then read. */
static void test_corruption(void **state) {
    char dir[64], cmd[256];
    struct kv *kv = NULL;
    struct errtext err = {0};
    struct buf out;
    int r;

    (void) state;
    os_test_dir(dir);
    assert_int_equal(kv_rocks_open(dir, &kv, NULL), 0);
    for (unsigned i = 0; i < 1000; i++) {
        char key[32];

        (void) snprintf(key, sizeof(key), "k%06u", i);
        put(kv, key, key);
    }
    assert_int_equal(kv->ops->flush(kv), 0);
    kv->ops->close(kv);
    (void) snprintf(
        cmd, sizeof(cmd),
        "for f in %s/000001/*.sst; do printf XXXXXXXX | dd of=$f bs=1 seek=200 conv=notrunc "
        "status=none; done",
        dir);
    assert_int_equal(system(cmd), 0);
    r = kv_rocks_open(dir, &kv, &err);
    if (r == 0) {
        buf_init(&out, 64);
        r = kv->ops->get(kv, str("k000001"), &out);
        buf_done(&out);
        kv_rocks_last_error(kv, &err);
        kv->ops->close(kv);
    }
    assert_int_equal(r, ERR_CORRUPT);
    assert_non_null(strstr(err.s, "Corruption"));
    os_test_rmdir(dir);
}

/* Goal: the figure that design.md section 6 relies on. Method: batches of 256 puts of 200 bytes for
 * a moment; only a collapse fails. */
static void test_speed(void **state) {
    enum { BATCH = 256, BATCHES = 400 };
    static uint8_t keys[BATCH][16], value[200];
    struct kv_op ops[BATCH];
    struct rng rng = rng_seed(7);
    struct kv *kv = NULL;
    uint64_t t0, worst = 0, total;
    char dir[64];

    (void) state;
    os_test_dir(dir);
    assert_int_equal(kv_rocks_open(dir, &kv, NULL), 0);
    t0 = uv_hrtime();
    for (unsigned b = 0; b < BATCHES; b++) {
        uint64_t t = uv_hrtime();

        for (unsigned i = 0; i < BATCH; i++) {
            put_be64(keys[i], rng_next(&rng));
            put_be64(keys[i] + 8, i);
            ops[i] = (struct kv_op){slice_of(keys[i], 16), slice_of(value, 200), false};
        }
        assert_int_equal(kv->ops->write(kv, ops, BATCH), 0);
        worst = MAX(worst, uv_hrtime() - t);
    }
    total = uv_hrtime() - t0;
    print_message("%llu puts/s, worst batch %llu us, %llu KiB in memory\n",
                  (unsigned long long) (BATCH * BATCHES * 1000000000ULL / total),
                  (unsigned long long) (worst / 1000),
                  (unsigned long long) (kv_rocks_memory_bytes(kv) / 1024));
    assert_true(total < 20 * 1000000000ULL);
    kv->ops->close(kv);
    os_test_rmdir(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_failed_flush), /* these two first: they fork, and RocksDB has */
        cmocka_unit_test(test_crash_prefix), /* threads that a fork would miss */
        cmocka_unit_test(test_model),
        cmocka_unit_test(test_contract),
        cmocka_unit_test(test_close_does_not_flush),
        cmocka_unit_test(test_corruption),
        cmocka_unit_test(test_speed),
    };

    return cmocka_run_group_tests_name("kv_rocks", tests, NULL, NULL);
}
