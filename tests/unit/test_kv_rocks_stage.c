#include "os_test.h"

#include "base/codec.h"
#include "base/crc32c.h"
#include "base/rand.h"
#include "os/kv_dir.h"
#include "os/kv_rocks.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/wait.h>

/* A store of generation g: RECORDS keys, each with the value g. Mixed generations are what must
 * never be seen. */
#define RECORDS 300U

static struct slice str(const char *s) {
    return slice_of(s, strlen(s));
}

typedef int (*write_fn)(struct kv *kv, const struct kv_op *ops, size_t n);

static int write_generation(struct kv *kv, write_fn write, uint64_t g, size_t value_bytes) {
    uint8_t *value = calloc(1, value_bytes);
    int r = 0;

    for (uint64_t i = 0; value && r == 0 && i < RECORDS; i++) {
        uint8_t key[8];
        struct kv_op op = {slice_of(key, 8), slice_of(value, value_bytes), false};

        put_be64(key, i);
        put_le64(value, g);
        r = write(kv, &op, 1);
    }
    free(value);
    return r;
}

/* The generation that all records have; 0 for an empty store. Fails on a mixture. */
static uint64_t generation(struct kv *kv) {
    struct kv_iter *it = NULL;
    uint64_t n = 0, g = 0;

    assert_int_equal(kv->ops->iter_open(kv, &it), 0);
    for (it->ops->seek(it, str("")); it->ops->valid(it); it->ops->next(it), n++) {
        uint64_t v = get_le64(it->ops->value(it).data);

        assert_true(get_be64(it->ops->key(it).data) == n);
        assert_true(n == 0 || v == g);
        g = v;
    }
    assert_int_equal(it->ops->status(it), 0);
    it->ops->close(it);
    assert_true(n == 0 || n == RECORDS);
    return g;
}

static struct kv *open_kv(const char *dir) {
    struct errtext err = {0};
    struct kv *kv = NULL;
    int r = kv_rocks_open(dir, &kv, &err);

    if (r != 0)
        fail_msg("open: %d %s", r, err.s);
    return kv;
}

/* A store of generation @g in @dir, closed. */
static void make_store(const char *dir, uint64_t g) {
    struct kv *kv = open_kv(dir);

    assert_int_equal(write_generation(kv, kv->ops->write, g, 64), 0);
    assert_int_equal(kv->ops->flush(kv), 0);
    kv->ops->close(kv);
}

static unsigned entries(const char *dir) {
    DIR *d = opendir(dir);
    unsigned n = 0;

    assert_non_null(d);
    while (readdir(d))
        n++;
    assert_int_equal(closedir(d), 0);
    return n - 2;
}

static bool exists(const char *dir, const char *name) {
    char path[128];

    (void) snprintf(path, sizeof(path), "%s/%s", dir, name);
    return access(path, F_OK) == 0;
}

/* Goal: the handle shows the old store until adopt and the new one after it; a dropped stage leaves
 * nothing; a commit counts at the next open also without adopt. Method: step by step, twice. */
static void test_switch(void **state) {
    char dir[64];
    struct kv *kv;

    (void) state;
    os_test_dir(dir);
    make_store(dir, 1);
    kv = open_kv(dir);
    assert_true(kv->ops->disk_bytes(kv) > 0);
    kv->ops->stage_drop(kv); /* of nothing */
    assert_int_equal(kv->ops->stage_begin(kv), 0);
    assert_int_equal(write_generation(kv, kv->ops->stage_write, 9, 64), 0);
    assert_true(generation(kv) == 1);
    assert_true(exists(dir, "000002"));
    kv->ops->stage_drop(kv);
    assert_false(exists(dir, "000002"));
    assert_int_equal(kv->ops->stage_begin(kv), 0);
    assert_int_equal(write_generation(kv, kv->ops->stage_write, 8, 64), 0);
    assert_int_equal(kv->ops->stage_begin(kv), 0); /* begins anew */
    assert_int_equal(write_generation(kv, kv->ops->stage_write, 2, 64), 0);
    assert_int_equal(kv->ops->stage_commit(kv), 0);
    assert_true(generation(kv) == 1);
    assert_int_equal(kv->ops->stage_adopt(kv), 0);
    assert_true(generation(kv) == 2);
    assert_int_equal(kv->ops->verify(kv, NULL), 0);
    assert_int_equal(write_generation(kv, kv->ops->write, 3, 64), 0);
    assert_int_equal(kv->ops->flush(kv), 0);
    kv->ops->close(kv);
    assert_false(exists(dir, "000001")); /* deleted beside everything else, but before the end */
    kv = open_kv(dir);
    assert_true(generation(kv) == 3);
    assert_int_equal(kv->ops->stage_begin(kv), 0);
    assert_int_equal(kv->ops->stage_commit(kv), 0); /* an empty one */
    assert_true(generation(kv) == 3);
    kv->ops->close(kv);
    kv = open_kv(dir);
    assert_true(generation(kv) == 0);
    assert_int_equal(entries(dir), 2); /* current, 000003 */
    kv->ops->close(kv);
    os_test_rmdir(dir);
}

/* In a child: generation after generation, a byte to @progress after each step, until killed. */
static void cycle_until_killed(const char *dir, int progress) {
    struct kv *kv = NULL;

    if (kv_rocks_open(dir, &kv, NULL) != 0)
        _exit(1);
    for (uint64_t g = 2;; g++) {
        int r = kv->ops->stage_begin(kv);

        r = r == 0 && write(progress, "b", 1) == 1 ? 0 : -1;
        r = r == 0 ? write_generation(kv, kv->ops->stage_write, g, 2000) : r;
        r = r == 0 && write(progress, "w", 1) == 1 ? 0 : -1;
        r = r == 0 ? kv->ops->stage_commit(kv) : r;
        r = r == 0 && write(progress, "c", 1) == 1 ? 0 : -1;
        r = r == 0 ? kv->ops->stage_adopt(kv) : r;
        if (r != 0 || write(progress, "a", 1) != 1)
            _exit(1);
    }
}

/* Start a child, let it take @steps steps and @spin turns of a loop more, and kill it. Returns how
 * many commits it had reported. */
static uint64_t run_and_kill(const char *dir, uint64_t steps, uint64_t spin) {
    int fds[2], status = 0;
    uint64_t commits = 0;
    pid_t pid;
    char c;

    assert_int_equal(pipe(fds), 0);
    pid = fork();
    if (pid == 0)
        cycle_until_killed(dir, fds[1]);
    assert_int_equal(close(fds[1]), 0);
    for (uint64_t i = 0; i < steps; i++) {
        assert_int_equal(read(fds[0], &c, 1), 1);
        commits += c == 'c';
    }
    for (volatile uint64_t i = 0; i < spin; i++)
        ;
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
    while (read(fds[0], &c, 1) == 1)
        commits += c == 'c';
    assert_int_equal(close(fds[0]), 0);
    return commits;
}

/* In a child, for RocksDB's threads would be missing in the next fork of this process. */
static void check_in_child(const char *dir, uint64_t commits) {
    int status = 0;
    pid_t pid = fork();

    if (pid == 0) {
        struct kv *kv = open_kv(dir);
        uint64_t g = generation(kv);

        kv->ops->close(kv);
        /* One commit may have happened and not been reported. */
        _exit(g >= commits + 1 && g <= commits + 2 && entries(dir) <= 3 ? 42 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 42);
}

/* Goal: killed at any point of a stage, the next open finds exactly one generation, that of the
 * last commit or the one under way, and deletes the rest. Method: 40 children killed between steps
 * and inside them, by a seeded choice. */
static void test_killed(void **state) {
    const char *text = getenv("CHRONOS_TEST_SEED");
    const uint64_t seed = text ? strtoull(text, NULL, 10) : 20261;
    struct rng rng = rng_seed(seed);

    (void) state;
    print_message("seed %llu\n", (unsigned long long) seed);
    for (unsigned i = 0; i < 40; i++) {
        uint64_t steps = 1 + rng_below(&rng, 9), spin = rng_below(&rng, 3000000);
        char dir[64];
        pid_t pid;
        int status = 0;

        os_test_dir(dir);
        pid = fork();
        if (pid == 0) {
            make_store(dir, 1);
            _exit(42);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 42);
        check_in_child(dir, run_and_kill(dir, steps, i % 2 ? spin : 0));
        os_test_rmdir(dir);
    }
}

/* Goal: what a crash inside the switch of the pointer leaves is no problem. Method: the states by
 * hand: a new pointer beside, whole and torn, and a complete but unnamed store. */
static void test_torn_switch(void **state) {
    char dir[64], cmd[400];
    struct kv *kv;

    (void) state;
    os_test_dir(dir);
    make_store(dir, 1);
    (void) snprintf(cmd, sizeof(cmd),
                    "cd %s && cp -r 000001 000002 && cp -r 000001 000007 && mkdir 000008 && "
                    "head -c 11 current > current.tmp",
                    dir);
    assert_int_equal(system(cmd), 0);
    kv = open_kv(dir);
    assert_true(generation(kv) == 1);
    assert_false(exists(dir, "000002"));
    assert_false(exists(dir, "000007"));
    assert_false(exists(dir, "000008"));
    assert_int_equal(kv->ops->stage_begin(kv), 0);
    assert_int_equal(write_generation(kv, kv->ops->stage_write, 2, 64), 0);
    assert_int_equal(kv->ops->stage_commit(kv), 0);
    assert_int_equal(kv->ops->stage_adopt(kv), 0);
    assert_true(generation(kv) == 2);
    kv->ops->close(kv);
    os_test_rmdir(dir);
}

static void expect_refused(const char *dir, int want, const char *word) {
    struct errtext err = {0};
    struct kv *kv = NULL;
    int r = kv_rocks_open(dir, &kv, &err);

    if (r != want || !strstr(err.s, word))
        fail_msg("got %d \"%s\", expected %d with \"%s\"", r, err.s, want, word);
    assert_null(kv);
}

static void rewrite(const char *path, const uint8_t *data, size_t len) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, len), len);
    assert_int_equal(close(fd), 0);
}

/* Goal: a damaged, missing or newer pointer, a missing store and an old layout stop the open with a
 * reason, and nothing is deleted or begun anew. Method: each by hand; every bit of the pointer. */
static void test_pointer_damage(void **state) {
    char dir[64], path[96], other[128];
    uint8_t p[KV_DIR_POINTER_BYTES + 1], q[KV_DIR_POINTER_BYTES];
    struct kv *kv;
    int fd;

    (void) state;
    os_test_dir(dir);
    make_store(dir, 1);
    (void) snprintf(path, sizeof(path), "%s/current", dir);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_int_equal(read(fd, p, sizeof(p)), KV_DIR_POINTER_BYTES);
    assert_int_equal(close(fd), 0);
    assert_memory_equal(p, "CHRNSTOR\x01\0\0\0", 12);
    assert_true(get_le64(p + 16) == 1);
    for (unsigned bit = 0; bit < KV_DIR_POINTER_BYTES * 8; bit++) {
        memcpy(q, p, sizeof(q));
        q[bit / 8] ^= (uint8_t) (1U << (bit % 8));
        rewrite(path, q, sizeof(q));
        expect_refused(dir, ERR_CORRUPT, "/current ");
    }
    for (size_t len = 0; len < KV_DIR_POINTER_BYTES; len += 5) {
        rewrite(path, p, len);
        expect_refused(dir, ERR_CORRUPT, "/current ");
    }
    rewrite(path, p, KV_DIR_POINTER_BYTES + 1);
    expect_refused(dir, ERR_CORRUPT, "/current ");
    assert_int_equal(unlink(path), 0);
    expect_refused(dir, ERR_CORRUPT, "is missing");
    memcpy(q, p, sizeof(q));
    put_le32(q + 8, 2);
    memcpy(other, q, 12);
    memcpy(other + 12, q + 16, 8);
    put_le32(q + 12, crc32c(other, 20));
    rewrite(path, q, sizeof(q));
    expect_refused(dir, ERR_VERSION, "newer");
    rewrite(path, p, KV_DIR_POINTER_BYTES);
    (void) snprintf(path, sizeof(path), "%s/000001", dir);
    (void) snprintf(other, sizeof(other), "%s/away", dir);
    assert_int_equal(rename(path, other), 0);
    expect_refused(dir, ERR_CORRUPT, "names a store that is missing");
    assert_int_equal(rename(other, path), 0);
    (void) snprintf(path, sizeof(path), "%s/000001/CURRENT", dir);
    assert_int_equal(rename(path, other), 0);
    expect_refused(dir, ERR_CORRUPT, "000001");
    assert_int_equal(rename(other, path), 0);
    kv = open_kv(dir);
    assert_true(generation(kv) == 1);
    kv->ops->close(kv);
    (void) snprintf(path, sizeof(path), "%s/MANIFEST-000004", dir);
    rewrite(path, p, 1);
    expect_refused(dir, ERR_CORRUPT, "old layout");
    assert_true(exists(dir, "000001"));
    os_test_rmdir(dir);
}

struct bulk {
    struct kv *kv;
    struct kv_iter *it;
    uint64_t seen;
    int r;
};

static void *bulk_main(void *arg) {
    struct bulk *b = (struct bulk *) arg;
    struct kv *kv = b->kv;

    for (uint64_t g = 100; b->r == 0 && g < 103; g++) { /* the last one is committed */
        b->r = kv->ops->stage_begin(kv);
        if (b->r == 0)
            b->r = write_generation(kv, kv->ops->stage_write, g, 3000);
        if (b->r == 0)
            b->r = kv->ops->flush(kv);
        if (b->r == 0)
            b->r = kv->ops->verify(kv, NULL);
    }
    for (b->it->ops->seek(b->it, str("")); b->it->ops->valid(b->it); b->it->ops->next(b->it))
        b->seen += get_le64(b->it->ops->value(b->it).data) == 1;
    b->r = b->r == 0 ? b->it->ops->status(b->it) : b->r;
    b->it->ops->close(b->it);
    b->r = b->r == 0 ? kv->ops->stage_commit(kv) : b->r;
    return NULL;
}

/* Goal: a stage, flushes, a scrub and an iterator on one thread, reads, writes and iterators on
 * another. Method: both at once (the thread sanitizer looks on); the iterator opened before sees
 * none of the later writes. */
static void test_threads(void **state) {
    struct bulk b = {0};
    pthread_t thread;
    char dir[64];

    (void) state;
    os_test_dir(dir);
    make_store(dir, 1);
    b.kv = open_kv(dir);
    assert_int_equal(b.kv->ops->iter_open(b.kv, &b.it), 0);
    assert_int_equal(pthread_create(&thread, NULL, bulk_main, &b), 0);
    for (uint64_t g = 2; g < 20; g++) {
        assert_int_equal(write_generation(b.kv, b.kv->ops->write, g, 500), 0);
        assert_true(generation(b.kv) == g);
        assert_true(kv_rocks_memory_bytes(b.kv) > 0);
        (void) b.kv->ops->disk_bytes(b.kv);
    }
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(b.r, 0);
    assert_true(b.seen == RECORDS);
    assert_true(generation(b.kv) == 19);
    assert_int_equal(b.kv->ops->stage_adopt(b.kv), 0);
    assert_true(generation(b.kv) == 102);
    b.kv->ops->close(b.kv);
    os_test_rmdir(dir);
}

/* Goal: damage of a table file while it is open is found by verify, although what was read of it
 * before is cached. Method: flip a byte of a data block in each table file. */
static void test_verify(void **state) {
    char dir[64], cmd[256];
    struct errtext err = {0};
    struct kv *kv;

    (void) state;
    os_test_dir(dir);
    kv = open_kv(dir);
    assert_int_equal(write_generation(kv, kv->ops->write, 1, 4096), 0);
    assert_int_equal(kv->ops->flush(kv), 0);
    assert_int_equal(kv->ops->verify(kv, &err), 0);
    for (uint64_t i = 0; i < RECORDS; i++) {
        uint8_t key[8];
        struct buf out;

        put_be64(key, i);
        buf_init(&out, 8192);
        assert_int_equal(kv->ops->get(kv, slice_of(key, 8), &out), 0);
        buf_done(&out);
    }
    (void) snprintf(cmd, sizeof(cmd),
                    "for f in %s/000001/*.sst; do printf X | dd of=$f bs=1 seek=3000 conv=notrunc "
                    "status=none; done",
                    dir);
    assert_int_equal(system(cmd), 0);
    assert_int_equal(kv->ops->verify(kv, &err), ERR_CORRUPT);
    assert_non_null(strstr(err.s, "000001"));
    kv->ops->close(kv);
    os_test_rmdir(dir);
}

/* Goal: looking changes nothing, works beside the owner, and writes are refused. Method: names,
 * sizes and times of all files before and after. */
static void test_read_only(void **state) {
    char dir[64], cmd[400];
    struct errtext err = {0};
    struct kv *kv = NULL, *owner;

    (void) state;
    os_test_dir(dir);
    assert_int_equal(kv_rocks_open_read_only("/nonexistent/state", &kv, &err), -ENOENT);
    assert_int_equal(kv_rocks_open_read_only(dir, &kv, &err), ERR_CORRUPT);
    make_store(dir, 5);
    (void) snprintf(cmd, sizeof(cmd),
                    "mkdir %s/000009; find %s -printf '%%p %%s %%T@\\n' | sort > %s.0", dir, dir,
                    dir);
    assert_int_equal(system(cmd), 0);
    assert_int_equal(kv_rocks_open_read_only(dir, &kv, &err), 0);
    assert_true(generation(kv) == 5);
    assert_int_equal(kv->ops->verify(kv, NULL), 0);
    assert_int_equal(write_generation(kv, kv->ops->write, 6, 8), -EROFS);
    assert_int_equal(kv->ops->flush(kv), -EROFS);
    assert_int_equal(kv->ops->stage_begin(kv), -EROFS);
    kv->ops->close(kv);
    (void) snprintf(cmd, sizeof(cmd),
                    "find %s -printf '%%p %%s %%T@\\n' | sort | diff %s.0 - && rm %s.0", dir, dir,
                    dir);
    assert_int_equal(system(cmd), 0);
    owner = open_kv(dir);
    assert_int_equal(kv_rocks_open_read_only(dir, &kv, &err), 0);
    assert_true(generation(kv) == 5);
    kv->ops->close(kv);
    owner->ops->close(owner);
    os_test_rmdir(dir);
}

enum { CHILD_OK = 42, CHILD_NO_MOUNT = 43 };

/* In a namespace of its own; without root rights it needs one for users as well, with a map. */
static bool mount_small(const char *dir) {
    unsigned uid = getuid();
    char map[32];
    int len = snprintf(map, sizeof(map), "0 %u 1", uid), fd = -1;

    if (unshare(CLONE_NEWNS | (uid == 0 ? 0 : CLONE_NEWUSER)) < 0)
        return false;
    if (uid != 0) {
        fd = open("/proc/self/uid_map", O_WRONLY | O_CLOEXEC);
        if (fd < 0 || write(fd, map, (size_t) len) != len || close(fd) < 0)
            return false;
    }
    return mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
           mount("chronos", dir, "tmpfs", 0, "size=64m") == 0;
}

/* In a child, on a file system of 64 MiB of its own: the stage fills it, is dropped, and the store
 * goes on. */
static void fill_small_disk(const char *dir) {
    uint64_t value[4096];
    struct rng rng = rng_seed(3);
    char state_dir[80];
    struct kv *kv = NULL;
    int r = 0;

    if (!mount_small(dir))
        _exit(CHILD_NO_MOUNT);
    (void) snprintf(state_dir, sizeof(state_dir), "%s/state", dir);
    if (kv_rocks_open(state_dir, &kv, NULL) != 0 ||
        write_generation(kv, kv->ops->write, 1, 64) != 0 || kv->ops->flush(kv) != 0 ||
        kv->ops->stage_begin(kv) != 0)
        _exit(1);
    for (uint64_t i = 0; r == 0 && i < 4000; i++) { /* 128 MiB */
        uint8_t key[8];
        struct kv_op op = {slice_of(key, 8), slice_of(value, sizeof(value)), false};

        put_be64(key, i);
        for (size_t j = 0; j < ARRAY_LEN(value); j++)
            value[j] = rng_next(&rng);
        r = kv->ops->stage_write(kv, &op, 1);
    }
    if (r == 0)
        r = kv->ops->stage_commit(kv);
    if (r != -ENOSPC)
        _exit(2);
    kv->ops->stage_drop(kv);
    if (write_generation(kv, kv->ops->write, 2, 64) != 0 || kv->ops->flush(kv) != 0)
        _exit(3);
    if (kv->ops->stage_begin(kv) != 0 || write_generation(kv, kv->ops->stage_write, 3, 64) != 0 ||
        kv->ops->stage_commit(kv) != 0 || kv->ops->stage_adopt(kv) != 0 || generation(kv) != 3)
        _exit(4);
    kv->ops->close(kv);
    _exit(CHILD_OK);
}

/* Goal: a disk that fills up under a stage is -ENOSPC, dropping it gives the space back, and the
 * store never noticed. Method: a tmpfs of 64 MiB in a mount namespace. */
static void test_disk_full(void **state) {
    char dir[64];
    int status = 0;
    pid_t pid;

    (void) state;
    os_test_dir(dir);
    pid = fork();
    if (pid == 0)
        fill_small_disk(dir);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    os_test_rmdir(dir);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == CHILD_NO_MOUNT) {
        print_message("this system allows no mount namespace: not tried\n");
        skip();
    }
    assert_int_equal(WEXITSTATUS(status), CHILD_OK);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_disk_full), /* these two first: they fork, and RocksDB has */
        cmocka_unit_test(test_killed),    /* threads that a fork would miss */
        cmocka_unit_test(test_switch),         cmocka_unit_test(test_torn_switch),
        cmocka_unit_test(test_pointer_damage), cmocka_unit_test(test_threads),
        cmocka_unit_test(test_verify),         cmocka_unit_test(test_read_only),
    };

    return cmocka_run_group_tests_name("kv_rocks_stage", tests, NULL, NULL);
}
