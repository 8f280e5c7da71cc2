/* The simulated disk itself: each promise of base/disk.h, and each way it may forget. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/err.h"
#include "sim/sim_disk.h"

#define FILE_BYTES 8192U

static struct sim_disk *disk_new(void) {
    struct sim_disk *d = NULL;

    assert_int_equal(sim_disk_new(&d), 0);
    return d;
}

static struct disk_file *must_open(struct sim_disk *d, const char *name, int flags) {
    struct disk_file *f = NULL;

    assert_int_equal(sim_disk_interface(d)->ops->open(d, name, flags, &f), 0);
    return f;
}

static void must_write(struct sim_disk *d, struct disk_file *f, uint64_t off, char c, size_t len) {
    static uint8_t data[FILE_BYTES];
    size_t n = 0;

    memset(data, c, len);
    assert_int_equal(sim_disk_interface(d)->ops->pwrite(d, f, off, data, len, &n), 0);
    assert_int_equal(n, len);
}

/* A durable file of 'a' with unsynced 'b' over it, in two writes. */
static void half_written(struct sim_disk *d) {
    const struct disk_ops *ops = sim_disk_interface(d)->ops;
    struct disk_file *f = must_open(d, "f", DISK_CREATE);

    must_write(d, f, 0, 'a', FILE_BYTES);
    assert_int_equal(ops->datasync(d, f), 0);
    assert_int_equal(ops->sync_dir(d), 0);
    must_write(d, f, 0, 'b', FILE_BYTES / 2);
    must_write(d, f, FILE_BYTES / 2, 'c', FILE_BYTES / 2);
    ops->close(d, f);
}

/* Goal: each model keeps what its name says. Method: count what is left of a half-synced file. */
static void test_models(void **state) {
    bool torn_sector = false;
    bool mixed_pages = false;
    bool cut_between = false;

    (void) state;
    for (uint64_t seed = 1; seed <= 200; seed++) {
        for (int m = 0; m < SIM_DISK_MODELS; m++) {
            struct sim_disk *d = disk_new();
            struct rng g = rng_seed(seed);
            uint64_t len = 0;
            uint32_t left = 0;
            uint32_t unit = m == SIM_DISK_KEEP_PAGES ? 4096 : 512;
            const uint8_t *b;

            half_written(d);
            sim_disk_crash(d, &g, (enum sim_disk_model) m);
            b = sim_disk_bytes(d, "f", &len);
            assert_non_null(b);
            assert_int_equal(len, FILE_BYTES);
            for (uint32_t i = 0; i < len; i++) {
                assert_true(b[i] == 'a' || b[i] == (i < FILE_BYTES / 2 ? 'b' : 'c'));
                left += b[i] != 'a';
                if (m == SIM_DISK_KEEP_SECTORS || m == SIM_DISK_KEEP_PAGES)
                    assert_int_equal(b[i], b[i - i % unit]);
                if (m == SIM_DISK_KEEP_PREFIX && i > 0 && b[i] != 'a')
                    assert_true(b[i - 1] != 'a');
            }
            if (m == SIM_DISK_KEEP_NONE)
                assert_int_equal(left, 0);
            if (m == SIM_DISK_KEEP_ALL || m == SIM_DISK_LOSE_DIR)
                assert_int_equal(left, FILE_BYTES);
            torn_sector |= m == SIM_DISK_KEEP_PREFIX && left % 512 != 0;
            cut_between |= m == SIM_DISK_KEEP_PREFIX && left == FILE_BYTES / 2;
            mixed_pages |= m == SIM_DISK_KEEP_PAGES && left == FILE_BYTES / 2;
            d = sim_disk_free(d);
        }
    }
    assert_true(torn_sector);
    assert_true(cut_between);
    assert_true(mixed_pages);
}

/* Goal: names are durable only after sync_dir, and come back in order. */
static void test_directory(void **state) {
    (void) state;
    for (uint64_t seed = 1; seed <= 100; seed++) {
        struct sim_disk *d = disk_new();
        const struct disk_ops *ops = sim_disk_interface(d)->ops;
        struct rng g = rng_seed(seed);
        uint64_t len = 0;

        half_written(d);
        assert_int_equal(ops->rename(d, "f", "g"), 0);
        ops->close(d, must_open(d, "h", DISK_CREATE | DISK_EXCL));
        assert_int_equal(ops->unlink(d, "g"), 0);
        sim_disk_crash(d, &g, seed % 2 ? SIM_DISK_LOSE_DIR : SIM_DISK_KEEP_PREFIX);
        if (seed % 2) {
            assert_non_null(sim_disk_bytes(d, "f", &len));
            assert_int_equal(len, FILE_BYTES);
            assert_null(sim_disk_name(d, 1));
        } else {
            bool f = sim_disk_bytes(d, "f", &len) != NULL;
            bool g_there = sim_disk_bytes(d, "g", &len) != NULL;
            bool h = sim_disk_bytes(d, "h", &len) != NULL;

            /* Before the rename, after it, after the creation, after the removal. */
            assert_true((f && !g_there && !h) || (!f && g_there) || (!f && !g_there && h));
        }
        d = sim_disk_free(d);
    }
}

/* Goal: after a lying sync the content looks written, later syncs succeed, and a power cut loses it
 * all the same, unless the page is written again. */
static void test_lying_sync(void **state) {
    (void) state;
    for (int drops = 0; drops < 2; drops++) {
        for (int again = 0; again < 2; again++) {
            struct sim_disk *d = disk_new();
            const struct disk_ops *ops = sim_disk_interface(d)->ops;
            struct rng g = rng_seed(1);
            struct disk_file *f;
            uint64_t len = 0;

            half_written(d);
            f = must_open(d, "f", 0);
            sim_disk_set_fault(d, (struct sim_disk_fault){.op = SIM_DISK_DATASYNC,
                                                          .nth = 1,
                                                          .effect = drops ? SIM_DISK_SYNC_DROPS
                                                                          : SIM_DISK_SYNC_LIES,
                                                          .err = -EIO});
            assert_int_equal(ops->datasync(d, f), -EIO);
            assert_int_equal(ops->datasync(d, f), 0);
            assert_int_equal(sim_disk_bytes(d, "f", &len)[0], drops ? 'a' : 'b');
            if (again) {
                must_write(d, f, 0, 'd', 1);
                assert_int_equal(ops->datasync(d, f), 0);
            }
            ops->close(d, f);
            sim_disk_crash(d, &g, SIM_DISK_KEEP_ALL);
            assert_int_equal(sim_disk_bytes(d, "f", &len)[0], again ? 'd' : 'a');
            assert_int_equal(sim_disk_bytes(d, "f", &len)[1], again && !drops ? 'b' : 'a');
            assert_int_equal(sim_disk_bytes(d, "f", &len)[FILE_BYTES - 1], 'a');
            d = sim_disk_free(d);
        }
    }
}

/* Goal: faults hit the n-th call, handles die with the power, the disk can be full. */
static void test_faults(void **state) {
    struct sim_disk *d = disk_new();
    const struct disk_ops *ops = sim_disk_interface(d)->ops;
    struct rng g = rng_seed(1);
    struct disk_file *f = must_open(d, "f", DISK_CREATE);
    uint8_t b[600];
    size_t n = 0;

    (void) state;
    memset(b, 1, sizeof(b));
    sim_disk_set_fault(
        d, (struct sim_disk_fault){.op = SIM_DISK_PWRITE, .nth = 2, .effect = SIM_DISK_SHORT});
    assert_int_equal(ops->pwrite(d, f, 0, b, sizeof(b), &n), 0);
    assert_int_equal(n, sizeof(b));
    assert_int_equal(ops->pwrite(d, f, 0, b, sizeof(b), &n), 0);
    assert_in_range(n, 1, sizeof(b) - 1);
    sim_disk_set_fault(
        d, (struct sim_disk_fault){
               .op = SIM_DISK_ANY, .nth = 1, .effect = SIM_DISK_FAIL, .err = -EIO, .repeat = true});
    assert_int_equal(ops->pread(d, f, 0, b, 1, &n), -EIO);
    assert_int_equal(ops->datasync(d, f), -EIO);
    sim_disk_set_fault(
        d, (struct sim_disk_fault){.op = SIM_DISK_DATASYNC, .nth = 1, .effect = SIM_DISK_CRASH});
    assert_int_equal(ops->pread(d, f, 0, b, 1, &n), 0);
    assert_int_equal(ops->datasync(d, f), ERR_CRASHED);
    assert_int_equal(ops->pread(d, f, 0, b, 1, &n), ERR_CRASHED);
    assert_true(sim_disk_crashed(d));
    sim_disk_crash(d, &g, SIM_DISK_KEEP_NONE);
    assert_int_equal(ops->pread(d, f, 0, b, 1, &n), ERR_CRASHED);
    ops->close(d, f);
    assert_int_equal(ops->open(d, "f", 0, &f), -ENOENT);
    sim_disk_set_capacity(d, 1000);
    f = must_open(d, "f", DISK_CREATE);
    assert_int_equal(ops->pwrite(d, f, 0, b, 600, &n), 0);
    assert_int_equal(ops->pwrite(d, f, 600, b, 600, &n), 0);
    assert_int_equal(n, 400);
    assert_int_equal(ops->pwrite(d, f, 1000, b, 1, &n), -ENOSPC);
    assert_int_equal(ops->pwrite(d, f, 0, b, 600, &n), 0);
    assert_int_equal(n, 600);
    ops->close(d, f);
    d = sim_disk_free(d);
}

/* Goal: any sequence of writes, truncations and syncs, then nothing kept: exactly the content at
 * the last sync. Method: a model copy at each sync, seeds 1..200. */
static void test_durable_plane(void **state) {
    (void) state;
    for (uint64_t seed = 1; seed <= 200; seed++) {
        static uint8_t durable[FILE_BYTES];
        struct sim_disk *d = disk_new();
        const struct disk_ops *ops = sim_disk_interface(d)->ops;
        struct rng g = rng_seed(seed);
        struct disk_file *f = must_open(d, "f", DISK_CREATE);
        uint64_t durable_len = 0;
        uint64_t len = 0;
        const uint8_t *b;

        assert_int_equal(ops->sync_dir(d), 0);
        for (int i = 0; i < 60; i++) {
            uint64_t off = rng_below(&g, FILE_BYTES);

            if (rng_chance(&g, 700))
                must_write(d, f, off, (char) rng_next(&g), 1 + rng_below(&g, FILE_BYTES - off));
            else if (rng_chance(&g, 500))
                assert_int_equal(ops->truncate(d, f, off), 0);
            else {
                assert_int_equal(ops->datasync(d, f), 0);
                b = sim_disk_bytes(d, "f", &durable_len);
                if (durable_len > 0)
                    memcpy(durable, b, durable_len);
            }
        }
        ops->close(d, f);
        sim_disk_crash(d, &g, SIM_DISK_KEEP_NONE);
        b = sim_disk_bytes(d, "f", &len);
        assert_int_equal(len, durable_len);
        if (len > 0)
            assert_memory_equal(b, durable, len);
        d = sim_disk_free(d);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_models),        cmocka_unit_test(test_directory),
        cmocka_unit_test(test_lying_sync),    cmocka_unit_test(test_faults),
        cmocka_unit_test(test_durable_plane),
    };

    return cmocka_run_group_tests_name("sim_disk", tests, NULL, NULL);
}
