/* The log when system calls fail, the power goes at any of them, the disk fills or memory is out.
 */
#include "wal_world.h"

#include "nth_memory.h"

/* ---- the scenario ---- */

/* Now and then what is not a commit. */
static int housekeeping(struct world *w, struct rng *g, int i) {
    int r = 0;

    if (rng_chance(g, 250))
        r = wal_prepare(w->wal, &w->err);
    if (r == 0 && rng_chance(g, 150) && w->acked > 60)
        r = wal_release(w->wal, w->acked - 60, rng_below(g, 3) * WORLD_SEGMENT_BYTES, &w->err);
    if (r == 0 && rng_chance(g, 60)) {
        r = wal_seal(w->wal, &w->err);
        w->acked = r == 0 ? w->written : w->acked;
    }
    if (r == 0 && i == 55) /* records above it go */
        r = world_reset(w, w->acked - 20, 1);
    if (r == 0 && i == 70) /* far ahead of what it holds */
        r = world_reset(w, w->written + 100, 1);
    return r;
}

/* What a busy node does: group commits, spares, releases, seals, resets, a restart in the middle.
 * Stops at the first failure and returns it. Without failure about 300 disk operations. */
static int scenario(struct world *w) {
    struct rng g = rng_seed(77);
    int r;

    w->use_hint = true;
    r = world_open(w);

    for (int i = 0; r == 0 && i < 84; i++) {
        r = world_append(w, 1, 1 + rng_below(&g, 9), 8 + (uint32_t) rng_below(&g, 1800));
        if (wal_synced_index(w->wal) > w->acked)
            w->acked = wal_synced_index(w->wal);
        if (r == 0 && rng_chance(&g, 800))
            r = world_sync(w);
        if (r == 0)
            r = housekeeping(w, &g, i);
        if (r == 0 && i == 40) {
            w->wal = wal_close(w->wal);
            r = world_open(w);
            if (r == 0)
                world_accept(w);
        }
    }
    return r;
}

/* After a failure: the log stays closed for writing, whatever is tried. */
static void assert_stays_failed(struct world *w, int err) {
    uint64_t writes = sim_disk_count(w->disk, SIM_DISK_PWRITE);
    struct wal_record rec = {
        .index = wal_last_index(w->wal) + 1, .term = 1000, .type = 3, .data = slice_of("x", 1)};

    for (int i = 0; i < 3; i++) {
        assert_int_equal(wal_sync(w->wal, &w->err), err);
        assert_int_equal(wal_append(w->wal, &rec, 1, &w->err), err);
        assert_int_equal(wal_prepare(w->wal, &w->err), err);
        assert_int_equal(wal_seal(w->wal, &w->err), err);
        assert_int_equal(wal_reset(w->wal, 5, 5, &w->err), err);
        assert_int_equal(wal_release(w->wal, 5, 0, &w->err), err);
        assert_true(w->err.s[0] != 0);
    }
    assert_int_equal(sim_disk_count(w->disk, SIM_DISK_PWRITE), writes);
}

/* Open without faults: what was acknowledged is there, twice. */
static void assert_recovers(struct world *w) {
    uint64_t last;

    if (world_open(w) != 0)
        fail_msg("%s", w->err.s);
    world_accept(w);
    last = w->got_last;
    w->wal = wal_close(w->wal);
    assert_int_equal(sim_disk_open_handles(w->disk), 0);
    assert_int_equal(world_open(w), 0);
    world_accept(w);
    assert_int_equal(w->got_last, last);
}

/* Goal: a power cut at each system call of the scenario, before it and in the middle of it, in each
 * persistence model: nothing acknowledged is lost, what is kept is a prefix. */
static void test_cut_at_every_call(void **state) {
    uint64_t runs = 0;

    (void) state;
    for (uint64_t nth = 1;; nth++) {
        bool done = false;

        for (int model = 0; model < SIM_DISK_MODELS * 2; model++) {
            static struct world w;
            struct rng g = rng_seed(nth * 100 + (uint64_t) model);
            int r;

            world_init(&w);
            sim_disk_set_fault(w.disk,
                               (struct sim_disk_fault){
                                   .op = SIM_DISK_ANY,
                                   .nth = nth,
                                   .effect = model % 2 ? SIM_DISK_CRASH_MID : SIM_DISK_CRASH,
                               });
            r = scenario(&w);
            done = !sim_disk_fault_hit(w.disk);
            assert_true(done ? r == 0 : r == ERR_CRASHED);
            w.wal = wal_close(w.wal);
            sim_disk_crash(w.disk, &g, (enum sim_disk_model)(model / 2));
            assert_recovers(&w);
            world_done(&w);
            runs++;
        }
        if (done)
            break;
    }
    print_message("%lu power cuts\n", (unsigned long) runs);
    assert_true(runs > 3000);
}

/* Goal: W3. Any sync of the scenario fails; a later one would lie. The log writes and syncs no
 * more; after a restart of the process and then a power cut nothing acknowledged is lost, neither
 * before nor after. Method: every k, pages kept in the cache or dropped from it, three models. */
static void test_failed_sync(void **state) {
    uint64_t runs = 0;

    (void) state;
    for (uint64_t k = 1;; k++) {
        bool done = false;

        for (int variant = 0; variant < 6; variant++) {
            static struct world w;
            struct rng g = rng_seed(k * 10 + (uint64_t) variant);
            int r;

            world_init(&w);
            sim_disk_set_fault(w.disk,
                               (struct sim_disk_fault){
                                   .op = SIM_DISK_DATASYNC,
                                   .nth = k,
                                   .effect = variant % 2 ? SIM_DISK_SYNC_DROPS : SIM_DISK_SYNC_LIES,
                                   .err = -EIO,
                               });
            r = scenario(&w);
            done = !sim_disk_fault_hit(w.disk);
            assert_int_equal(r, done ? 0 : -EIO);
            if (!done && w.wal)
                assert_stays_failed(&w, -EIO);
            w.wal = wal_close(w.wal);
            sim_disk_kill(w.disk);
            if (variant < 4) {
                /* The supervisor restarts the process; it acknowledges what it has recovered. */
                assert_int_equal(world_open(&w), 0);
                world_accept(&w);
                assert_int_equal(world_append(&w, 5, 3, 100), 0);
                assert_int_equal(world_sync(&w), 0);
                w.wal = wal_close(w.wal);
            }
            sim_disk_crash(w.disk, &g,
                           variant / 2 == 1 ? SIM_DISK_KEEP_SECTORS : SIM_DISK_KEEP_NONE);
            assert_recovers(&w);
            world_done(&w);
            runs++;
        }
        if (done)
            break;
    }
    assert_true(runs > 200);
}

static bool out_of_space(int err) {
    return err == -ENOSPC || err == -EDQUOT;
}

/* Goal: W4. Each call kind fails with each error at each position, or does only part of its work:
 * the result is that error (or, for a partial transfer, success), nothing leaks, and a restart
 * keeps what was acknowledged. */
static void test_nth_failure(void **state) {
    static const int errors[] = {-EIO, -ENOSPC, -EDQUOT, -EFBIG, -EROFS, -EMFILE, -EAGAIN, -EINTR};
    uint64_t runs = 0;

    (void) state;
    for (int op = 0; op < SIM_DISK_OPS; op++) {
        for (size_t e = 0; e <= ARRAY_LEN(errors); e++) {
            bool partial = e == ARRAY_LEN(errors);

            if (partial && op != SIM_DISK_PREAD && op != SIM_DISK_PWRITE)
                continue;
            for (uint64_t n = 1;; n++) {
                static struct world w;
                bool hit;
                int r;

                world_init(&w);
                sim_disk_set_fault(w.disk, (struct sim_disk_fault){
                                               .op = (enum sim_disk_op) op,
                                               .nth = n,
                                               .effect = partial ? SIM_DISK_SHORT : SIM_DISK_FAIL,
                                               .err = partial ? 0 : errors[e],
                                           });
                r = scenario(&w);
                hit = sim_disk_fault_hit(w.disk);
                assert_int_equal(r, hit && !partial ? errors[e] : 0);
                if (hit && r < 0) {
                    assert_true(w.err.s[0] != 0);
                    if (w.wal && !out_of_space(r))
                        assert_int_equal(wal_sync(w.wal, &w.err), r);
                }
                w.wal = wal_close(w.wal);
                assert_int_equal(sim_disk_open_handles(w.disk), 0);
                sim_disk_kill(w.disk);
                assert_recovers(&w);
                world_done(&w);
                runs++;
                if (!hit)
                    break;
            }
        }
    }
    print_message("%lu combinations\n", (unsigned long) runs);
    assert_true(runs >= 2000);
}

/* Goal: a full disk. Preparing a spare reports it and harms nothing; appending goes on until the
 * room is used up, then says so; when space returns a restart has everything that was synced. */
static void test_disk_full(void **state) {
    (void) state;
    for (uint64_t segments = 1; segments <= 6; segments++) {
        static struct world w;
        int r = 0;

        world_init(&w);
        sim_disk_set_capacity(w.disk, segments * WORLD_SEGMENT_BYTES + 1000);
        assert_int_equal(world_open(&w), 0);
        r = wal_prepare(w.wal, &w.err);
        assert_int_equal(r, segments < 3 ? -ENOSPC : 0);
        for (r = 0; r == 0;) {
            r = world_append(&w, 1, 10, 500);
            if (r == 0)
                r = world_sync(&w);
            if (r == 0)
                assert_true(wal_prepare(w.wal, &w.err) <= 0);
        }
        assert_int_equal(r, -ENOSPC);
        assert_true(w.acked * 540 > (segments - 1) * WORLD_SEGMENT_BYTES);
        assert_int_equal(wal_sync(w.wal, &w.err), -ENOSPC);
        w.wal = wal_close(w.wal);
        sim_disk_kill(w.disk);
        sim_disk_set_capacity(w.disk, 0);
        assert_recovers(&w);
        world_done(&w);
    }
}

/* Goal: memory is out at the n-th allocation, for every n: a clean -ENOMEM, nothing leaks, nothing
 * acknowledged is lost. */
static void test_out_of_memory(void **state) {
    uint64_t runs = 0;

    (void) state;
    for (long n = 1; n < 100000; n++) {
        static struct world w;
        struct wal_record rec = {.term = 1, .type = 3, .data = slice_of("12345678", 8)};
        int r;

        world_init(&w);
        assert_int_equal(world_open(&w), 0);
        assert_int_equal(world_append(&w, 1, 100, 400), 0);
        assert_int_equal(world_append(&w, 1, 100, 400), 0);
        assert_int_equal(world_sync(&w), 0);
        w.wal = wal_close(w.wal);
        nth_memory_begin(n);
        r = world_open(&w);
        for (int i = 0; r == 0 && i < 2000; i++) {
            rec.index = wal_last_index(w.wal) + 1;
            r = wal_append(w.wal, &rec, 1, &w.err);
            if (r == 0 && i == 1500)
                r = wal_release(w.wal, 150, 0, &w.err);
            if (r == 0 && i == 1600)
                r = wal_prepare(w.wal, &w.err);
            if (r == 0 && i == 1650)
                r = wal_seal(w.wal, &w.err);
            if (r == 0 && i == 1990)
                r = wal_reset(w.wal, rec.index, 1, &w.err);
            if (r == 0 && i == 1700) {
                w.got_first = 0;
                r = wal_read(w.wal, 190, 20, world_compare, &w, &w.err);
            }
        }
        nth_memory_end();
        assert_int_equal(r, nth_memory_failed ? -ENOMEM : 0);
        w.wal = wal_close(w.wal);
        assert_int_equal(sim_disk_open_handles(w.disk), 0);
        sim_disk_kill(w.disk);
        w.got_first = 0;
        w.got_last = 0;
        w.bad_content = false;
        assert_int_equal(wal_open(sim_disk_interface(w.disk), &w.o, world_each, &w, &w.wal, &w.err),
                         0);
        assert_true(wal_last_index(w.wal) >= 200);
        assert_false(w.bad_content);
        world_done(&w);
        runs++;
        if (!nth_memory_failed)
            break;
    }
    print_message("%lu allocations failed\n", (unsigned long) runs - 1);
    assert_true(runs > 20);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cut_at_every_call), cmocka_unit_test(test_failed_sync),
        cmocka_unit_test(test_nth_failure),       cmocka_unit_test(test_disk_full),
        cmocka_unit_test(test_out_of_memory),
    };

    return cmocka_run_group_tests_name("wal_faults", tests, NULL, NULL);
}
