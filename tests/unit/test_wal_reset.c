/* The log's orderly ends: sealed, its beginning released, or begun anew after a snapshot. */
#include "wal_world.h"

static size_t count_files(const struct world *w, const char *prefix) {
    size_t n = 0;

    for (size_t i = 0; sim_disk_name(w->disk, i); i++)
        n += strncmp(sim_disk_name(w->disk, i), prefix, strlen(prefix)) == 0;
    return n;
}

static void reopen(struct world *w) {
    w->wal = wal_close(w->wal);
    if (world_open(w) != 0)
        fail_msg("%s", w->err.s);
    world_accept(w);
}

/* ---- seal ---- */

/* Goal: W8, W9. What a slow follower has: its whole log came in one batch, so no record vouches for
 * another. Sealed, every flipped byte of every record is refused; unsealed, the same damage looks
 * like a torn tail (or this shows nothing). Method: each byte of the batch, flipped in one bit. */
static void test_seal_vouches_for_one_batch(void **state) {
    const uint32_t size = wal_format_record_bytes(40);

    (void) state;
    for (int sealed = 0; sealed < 2; sealed++) {
        static struct world w;
        struct sim_disk *whole;
        uint64_t refused = 0;
        uint64_t len = 0;

        world_init(&w);
        assert_int_equal(world_open(&w), 0);
        assert_int_equal(world_append(&w, 1, 30, 40), 0);
        assert_int_equal(world_sync(&w), 0);
        if (sealed)
            assert_int_equal(wal_seal(w.wal, &w.err), 0);
        w.wal = wal_close(w.wal);
        whole = w.disk;
        for (uint32_t at = 0; at < 30 * size; at++) {
            int r;

            w.disk = sim_disk_clone(whole);
            assert_non_null(w.disk);
            sim_disk_bytes(w.disk, "wal-0000000000000001.log", &len)[WAL_HEADER_BYTES + at] ^=
                (uint8_t) (1U << at % 8);
            r = world_open(&w);
            if (sealed)
                assert_int_equal(r, ERR_CORRUPT);
            if (r == ERR_CORRUPT)
                assert_non_null(strstr(w.err.s, "wal-0000000000000001.log"));
            refused += r == ERR_CORRUPT;
            world_done(&w);
        }
        assert_int_equal(refused, sealed ? 30 * size : 0);
        w.disk = whole;
        world_done(&w);
    }
}

/* Goal: the seal itself may be torn or damaged: then nothing is lost but the seal. Twice is once:
 * no write and no sync the second time, nor after a restart, which vouches by itself. */
static void test_seal_itself(void **state) {
    static struct world w;
    struct sim_disk *whole;
    uint64_t ops;
    uint64_t len = 0;

    (void) state;
    world_init(&w);
    assert_int_equal(world_open(&w), 0);
    ops = sim_disk_count(w.disk, SIM_DISK_ANY);
    assert_int_equal(wal_seal(w.wal, &w.err), 0); /* of an empty log: nothing to say */
    assert_int_equal(sim_disk_count(w.disk, SIM_DISK_ANY), ops);
    assert_int_equal(world_append(&w, 1, 5, 96), 0);
    assert_int_equal(wal_seal(w.wal, &w.err), 0); /* syncs what was not */
    assert_int_equal(wal_synced_index(w.wal), 5);
    w.acked = 5;
    ops = sim_disk_count(w.disk, SIM_DISK_ANY);
    assert_int_equal(wal_seal(w.wal, &w.err), 0);
    assert_int_equal(sim_disk_count(w.disk, SIM_DISK_ANY), ops);
    w.wal = wal_close(w.wal);
    whole = w.disk;
    for (uint32_t at = 0; at < WAL_RECORD_HEADER_BYTES; at++) {
        w.disk = sim_disk_clone(whole);
        assert_non_null(w.disk);
        sim_disk_bytes(w.disk, "wal-0000000000000001.log",
                       &len)[WAL_HEADER_BYTES + 5 * wal_format_record_bytes(96) + at] ^= 1;
        assert_int_equal(world_open(&w), 0);
        world_accept(&w);
        assert_int_equal(w.got_last, 5);
        world_done(&w);
    }
    w.disk = whole;
    assert_int_equal(world_open(&w), 0);
    world_accept(&w);
    ops = sim_disk_count(w.disk, SIM_DISK_ANY);
    assert_int_equal(wal_seal(w.wal, &w.err), 0);
    assert_int_equal(sim_disk_count(w.disk, SIM_DISK_ANY), ops);
    world_done(&w);
}

/* Goal: life goes on after a seal; many seals and restarts leave no trail; a segment that has no
 * room for the seal is finished, which vouches as well. */
static void test_seal_and_go_on(void **state) {
    static struct world w;
    size_t files;

    (void) state;
    world_init(&w);
    w.use_hint = true;
    assert_int_equal(world_open(&w), 0);
    for (int i = 0; i < 300; i++) {
        assert_int_equal(world_append(&w, 1, 1, i % 3 == 0 ? 24 : 1000), 0);
        if (i % 7 == 0) {
            assert_int_equal(wal_truncate(w.wal, w.written, &w.err), 0);
            w.written--;
            w.acked = MIN(w.acked, w.written);
        }
        if (i % 2 == 0) {
            assert_int_equal(wal_seal(w.wal, &w.err), 0);
            w.acked = w.written;
        }
        if (i % 5 == 0)
            reopen(&w);
    }
    files = count_files(&w, "wal-");
    assert_true(files <= 10);
    for (int i = 0; i < 50; i++) {
        assert_int_equal(world_append(&w, 1, 1, 24), 0);
        assert_int_equal(wal_seal(w.wal, &w.err), 0);
        reopen(&w);
    }
    assert_true(count_files(&w, "wal-") <= files + 1);
    world_done(&w);
}

/* ---- release ---- */

/* Goal: keep_bytes keeps the newest segments of at least so many bytes, whatever the index; what
 * remains is whole segments; base, first and last agree, also after reopening. */
static void test_release_keeps(void **state) {
    (void) state;
    for (uint64_t keep = 0; keep <= 10; keep++) {
        static struct world w;
        uint64_t want = MAX((uint64_t) 1, keep) * WORLD_SEGMENT_BYTES;
        uint64_t base;

        world_init(&w);
        assert_int_equal(world_open(&w), 0);
        assert_int_equal(wal_base_index(w.wal), 0);
        assert_int_equal(wal_base_term(w.wal), 0);
        for (uint64_t term = 1; wal_bytes(w.wal) < 8 * WORLD_SEGMENT_BYTES; term++) {
            assert_int_equal(world_append(&w, term, 10, 500), 0);
            assert_int_equal(world_sync(&w), 0);
        }
        assert_int_equal(wal_base_index(w.wal), 0);
        assert_int_equal(wal_release(w.wal, w.written, keep * WORLD_SEGMENT_BYTES, &w.err), 0);
        assert_int_equal(wal_bytes(w.wal), MIN(want, 8ULL * WORLD_SEGMENT_BYTES));
        base = wal_base_index(w.wal);
        assert_int_equal(base > 0, keep < 8);
        assert_int_equal(base, wal_first_index(w.wal) - 1);
        assert_int_equal(wal_base_term(w.wal), base ? w.recs[base].term : 0);
        assert_int_equal(wal_last_index(w.wal), w.written);
        reopen(&w);
        assert_int_equal(wal_base_index(w.wal), base);
        assert_int_equal(w.got_first, base + 1);
        /* Only up to an index: nothing above it goes. */
        assert_int_equal(wal_release(w.wal, base + 1, 0, &w.err), 0);
        assert_int_equal(wal_base_index(w.wal), base);
        world_done(&w);
    }
}

/* Goal: spares are as many as configured, none more: after a release, a reset, and with the number
 * lowered (the others go at the next start). */
static void test_spares_are_bounded(void **state) {
    (void) state;
    for (uint32_t spares = 0; spares <= 4; spares++) {
        static struct world w;

        world_init(&w);
        w.o.spare_segments = spares;
        assert_int_equal(world_open(&w), 0);
        for (int round = 0; round < 4; round++) {
            while (wal_bytes(w.wal) < 6 * WORLD_SEGMENT_BYTES)
                assert_int_equal(world_append(&w, 1, 20, 700), 0);
            assert_int_equal(world_sync(&w), 0);
            if (round % 2)
                assert_int_equal(world_reset(&w, w.written + 5, 1), 0);
            else
                assert_int_equal(wal_release(w.wal, w.written, 0, &w.err), 0);
            assert_int_equal(count_files(&w, "spare-"), spares);
            assert_int_equal(count_files(&w, "wal-"), 1);
            reopen(&w);
            assert_true(count_files(&w, "spare-") <= spares);
        }
        w.o.spare_segments = spares / 2;
        reopen(&w);
        assert_true(count_files(&w, "spare-") <= spares / 2);
        world_done(&w);
    }
}

/* ---- reset ---- */

/* Goal: after a reset the log is empty, its next record is index + 1, and it stays so over
 * restarts, for indices inside, at the end of and behind what it held, with a hint of what was
 * durable before; then it works as any other. */
static void test_reset(void **state) {
    (void) state;
    for (int where = 0; where < 4; where++) {
        static struct world w;
        uint64_t index;

        world_init(&w);
        w.use_hint = true;
        assert_int_equal(world_open(&w), 0);
        if (where > 0)
            for (int i = 0; i < 40; i++)
                assert_int_equal(world_append(&w, 3, 10, 400), 0);
        assert_int_equal(world_sync(&w), 0);
        if (where == 2) /* something that is not synced yet */
            assert_int_equal(world_append(&w, 3, 10, 400), 0);
        index = where == 0 ? 7 : where == 1 ? 150 : where == 2 ? w.written : 1000;
        assert_int_equal(world_reset(&w, index, 9), 0);
        assert_int_equal(wal_bytes(w.wal), WORLD_SEGMENT_BYTES);
        for (int i = 0; i < 3; i++) {
            uint64_t term = 0;

            reopen(&w);
            assert_int_equal(w.got_first, 0);
            assert_int_equal(wal_last_index(w.wal), index);
            assert_int_equal(wal_base_index(w.wal), index);
            assert_int_equal(wal_base_term(w.wal), 9);
            assert_int_equal(wal_read(w.wal, index, 100, world_compare, &w, &w.err), 1);
            assert_int_equal(wal_term(w.wal, index, &term, &w.err), 1);
        }
        for (int i = 0; i < 40; i++)
            assert_int_equal(world_append(&w, 9, 10, 400), 0);
        assert_int_equal(world_sync(&w), 0);
        reopen(&w);
        assert_int_equal(w.got_first, index + 1);
        assert_int_equal(wal_truncate(w.wal, index + 1, &w.err), 0); /* all of it */
        w.written = index;
        w.acked = index;
        assert_int_equal(wal_base_index(w.wal), index);
        assert_int_equal(wal_base_term(w.wal), 9);
        reopen(&w);
        assert_int_equal(wal_last_index(w.wal), index);
        assert_int_equal(world_append(&w, 10, 3, 400), 0);
        assert_int_equal(wal_release(w.wal, index, 0, &w.err), 0);
        assert_int_equal(world_reset(&w, index + 1, 10), 0); /* and again */
        reopen(&w);
        world_done(&w);
    }
}

/* Goal: M21, W10. Files of the log before a reset that are there still (their retirement was cut)
 * are not read as part of the new one, though all their records are intact and one of them would
 * even continue it; and they are recycled. Method: copies put back by way of a cut disk. */
static void test_stale_segments_are_ignored(void **state) {
    uint64_t stale_seen = 0;

    (void) state;
    for (uint64_t nth = 1;; nth++) {
        static struct world w;
        struct rng g = rng_seed(nth);
        bool hit;
        int r;

        world_init(&w);
        w.o.spare_segments = 0;
        assert_int_equal(world_open(&w), 0);
        for (int i = 0; i < 40; i++)
            assert_int_equal(world_append(&w, 1, 10, 400), 0);
        assert_int_equal(world_sync(&w), 0);
        sim_disk_set_fault(
            w.disk,
            (struct sim_disk_fault){.op = SIM_DISK_UNLINK, .nth = nth, .effect = SIM_DISK_CRASH});
        r = world_reset(&w, 200, 1); /* record 201 of before would follow */
        hit = sim_disk_fault_hit(w.disk);
        assert_int_equal(r, hit ? ERR_CRASHED : 0);
        w.wal = wal_close(w.wal);
        sim_disk_crash(w.disk, &g, SIM_DISK_KEEP_ALL);
        stale_seen += count_files(&w, "wal-") > 1;
        assert_int_equal(world_open(&w), 0);
        world_accept(&w);
        assert_int_equal(w.got_first, 0);
        assert_int_equal(w.got_last, 200);
        assert_int_equal(count_files(&w, "wal-"), 1);
        world_done(&w);
        if (!hit)
            break;
    }
    assert_true(stale_seen >= 2);
}

/* A log with something in each state: finished segments, synced and unsynced records, spares. */
static int fill_and_reset(struct world *w, uint64_t index) {
    int r = world_open(w);

    w->use_hint = true;
    for (int i = 0; r == 0 && i < 25; i++)
        r = world_append(w, 2, 10, 400);
    if (r == 0)
        r = world_sync(w);
    if (r == 0)
        r = wal_prepare(w->wal, &w->err);
    if (r == 0)
        r = world_append(w, 2, 5, 400);
    return r < 0 ? r : world_reset(w, index, 4);
}

/* Goal: the power goes at every call of a reset, in every model, and again during the recovery: the
 * old log whole or the new one, twice the same. */
static void test_reset_cut_at_every_call(void **state) {
    static const uint64_t indices[] = {120, 255, 900};
    uint64_t olds = 0, news = 0;

    (void) state;
    for (size_t k = 0; k < ARRAY_LEN(indices); k++) {
        for (uint64_t nth = 1;; nth++) {
            bool done = false;

            for (int v = 0; v < SIM_DISK_MODELS * 4; v++) {
                static struct world w;
                struct rng g = rng_seed(nth * 1000 + (uint64_t) v);
                uint64_t last;
                int r;

                world_init(&w);
                sim_disk_set_fault(
                    w.disk,
                    (struct sim_disk_fault){.op = SIM_DISK_ANY,
                                            .nth = nth,
                                            .effect = v % 2 ? SIM_DISK_CRASH_MID : SIM_DISK_CRASH});
                r = fill_and_reset(&w, indices[k]);
                done = !sim_disk_fault_hit(w.disk);
                assert_int_equal(r, done ? 0 : ERR_CRASHED);
                w.wal = wal_close(w.wal);
                sim_disk_crash(w.disk, &g, (enum sim_disk_model)(v / 4));
                if (v / 2 % 2) {
                    sim_disk_set_fault(w.disk,
                                       (struct sim_disk_fault){.op = SIM_DISK_ANY,
                                                               .nth = 1 + rng_below(&g, 30),
                                                               .effect = SIM_DISK_CRASH_MID});
                    r = world_open(&w);
                    assert_true(r == 0 || r == ERR_CRASHED);
                    w.wal = wal_close(w.wal);
                    sim_disk_crash(w.disk, &g,
                                   (enum sim_disk_model) rng_below(&g, SIM_DISK_MODELS));
                }
                if (world_open(&w) != 0)
                    fail_msg("call %lu variant %d: %s", (unsigned long) nth, v, w.err.s);
                news += w.resetting > 0 && wal_base_index(w.wal) == indices[k];
                olds += w.resetting > 0 && wal_base_index(w.wal) == 0;
                world_accept(&w);
                last = w.got_last;
                reopen(&w);
                assert_int_equal(w.got_last, last);
                assert_int_equal(world_append(&w, 5, 3, 100), 0);
                assert_int_equal(world_sync(&w), 0);
                reopen(&w);
                world_done(&w);
            }
            if (done)
                break;
        }
    }
    print_message("%lu old, %lu new\n", (unsigned long) olds, (unsigned long) news);
    assert_true(olds > 100 && news > 100);
}

/* Goal: W3, W4. Each call of a reset fails in turn: that error, the log is closed, and a restart
 * has the old log or the new one. */
static void test_reset_nth_failure(void **state) {
    static const int errors[] = {-EIO, -ENOSPC, -EMFILE};

    (void) state;
    for (size_t e = 0; e < ARRAY_LEN(errors); e++) {
        for (uint64_t nth = 1;; nth++) {
            static struct world w;
            bool hit;
            int r;

            world_init(&w);
            sim_disk_set_fault(w.disk, (struct sim_disk_fault){.op = SIM_DISK_ANY,
                                                               .nth = nth,
                                                               .effect = SIM_DISK_FAIL,
                                                               .err = errors[e]});
            r = fill_and_reset(&w, 200);
            hit = sim_disk_fault_hit(w.disk);
            assert_int_equal(r, hit ? errors[e] : 0);
            if (hit && w.resetting > 0) {
                assert_int_equal(wal_sync(w.wal, &w.err), errors[e]);
                assert_true(w.err.s[0] != 0);
            }
            w.wal = wal_close(w.wal);
            assert_int_equal(sim_disk_open_handles(w.disk), 0);
            sim_disk_kill(w.disk);
            assert_int_equal(world_open(&w), 0);
            world_accept(&w);
            world_done(&w);
            if (!hit)
                break;
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_seal_vouches_for_one_batch),
        cmocka_unit_test(test_seal_itself),
        cmocka_unit_test(test_seal_and_go_on),
        cmocka_unit_test(test_release_keeps),
        cmocka_unit_test(test_spares_are_bounded),
        cmocka_unit_test(test_reset),
        cmocka_unit_test(test_stale_segments_are_ignored),
        cmocka_unit_test(test_reset_cut_at_every_call),
        cmocka_unit_test(test_reset_nth_failure),
    };

    return cmocka_run_group_tests_name("wal_reset", tests, NULL, NULL);
}
