/* The log after power cuts and after damage: what must survive, what must be refused. */
#include "wal_world.h"

static const char *newest_segment(struct world *w) {
    static char best[64];

    best[0] = 0;
    for (size_t i = 0; sim_disk_name(w->disk, i); i++) {
        const char *n = sim_disk_name(w->disk, i);

        if (strncmp(n, "wal-", 4) == 0 && strcmp(n, best) > 0)
            (void) snprintf(best, sizeof(best), "%s", n);
    }
    assert_true(best[0] != 0);
    return best;
}

/* Open, with the power going at a random operation of the recovery itself, up to five times in a
 * row; then open for good, twice, with the same result (W7). */
static void recover_with_crashes(struct world *w, struct rng *g) {
    uint64_t first_result;

    for (int depth = 0; depth < 5 && rng_chance(g, 700); depth++) {
        int r;

        sim_disk_set_fault(w->disk,
                           (struct sim_disk_fault){
                               .op = SIM_DISK_ANY,
                               .nth = 1 + rng_below(g, 40),
                               .effect = rng_chance(g, 500) ? SIM_DISK_CRASH : SIM_DISK_CRASH_MID,
                           });
        r = world_open(w);
        if (r == 0 && !sim_disk_crashed(w->disk)) {
            sim_disk_clear_fault(w->disk);
            world_accept(w);
        } else if (r != 0) {
            if (r != ERR_CRASHED)
                fail_msg("during recovery: %s", w->err.s);
        }
        w->wal = wal_close(w->wal);
        sim_disk_crash(w->disk, g, (enum sim_disk_model) rng_below(g, SIM_DISK_MODELS));
    }
    if (world_open(w) != 0)
        fail_msg("%s", w->err.s);
    world_accept(w);
    first_result = w->got_last;
    w->wal = wal_close(w->wal);
    if (rng_chance(g, 300))
        sim_disk_crash(w->disk, g, SIM_DISK_KEEP_SECTORS);
    if (world_open(w) != 0)
        fail_msg("%s", w->err.s);
    assert_false(w->bad_content);
    assert_int_equal(w->got_last, first_result);
}

/* Goal: W7, W10, W11, W20. A power cut at a random moment, any subset of unsynced sectors, pages or
 * operations, nested cuts during recovery: no acknowledged record is lost, what is kept is a prefix
 * of what was written. Method: one long life per seed with many cuts; segments are recycled full of
 * old valid records all the time because the log is released and truncated. */
static void test_power_cuts(void **state) {
    uint64_t cuts = 0;

    (void) state;
    for (uint64_t seed = 1; seed <= 30; seed++) {
        static struct world w;
        struct rng g = rng_seed(seed);
        uint64_t term = 1;

        world_init(&w);
        w.use_hint = true;
        w.o.spare_segments = (uint32_t) rng_below(&g, 3);
        assert_int_equal(world_open(&w), 0);
        for (int life = 0; life < 100 && w.written < WORLD_MAX - 300; life++) {
            int steps = (int) rng_range(&g, 1, 12);
            uint32_t big = rng_chance(&g, 200) ? 3000 : 300;

            for (int i = 0; i < steps; i++) {
                assert_int_equal(world_append(&w, term, 1 + rng_below(&g, 12),
                                              8 + (uint32_t) rng_below(&g, big)),
                                 0);
                if (rng_chance(&g, 500))
                    assert_int_equal(world_sync(&w), 0);
                if (rng_chance(&g, 200))
                    assert_int_equal(wal_prepare(w.wal, &w.err), 0);
                if (rng_chance(&g, 50) && w.acked > 100)
                    assert_int_equal(
                        wal_release(w.wal, w.acked - 100, rng_below(&g, 200000), &w.err), 0);
                if (rng_chance(&g, 50)) {
                    assert_int_equal(wal_seal(w.wal, &w.err), 0);
                    w.acked = w.written;
                }
                if (rng_chance(&g, 10) && w.written > 100)
                    assert_int_equal(world_reset(&w, w.written - 50 + rng_below(&g, 60), term), 0);
                if (wal_synced_index(w.wal) > w.acked)
                    w.acked = wal_synced_index(w.wal);
            }
            w.wal = wal_close(w.wal);
            sim_disk_crash(w.disk, &g, (enum sim_disk_model) rng_below(&g, SIM_DISK_MODELS));
            recover_with_crashes(&w, &g);
            cuts++;
            if (rng_chance(&g, 200))
                term++;
        }
        world_done(&w);
    }
    print_message("%lu power cuts\n", (unsigned long) cuts);
    assert_true(cuts > 2000);
}

/* Goal: W7. 10,000 subsets of the sectors of one unacknowledged tail: the acknowledged records
 * stay, the rest is a prefix. Method: copies of one disk, each cut with its own seed. */
static void test_sector_subsets(void **state) {
    static struct world w;
    struct sim_disk *whole;
    uint64_t lasts[65] = {0};
    uint64_t different = 0;

    (void) state;
    world_init(&w);
    w.o.spare_segments = 0;
    assert_int_equal(world_open(&w), 0);
    assert_int_equal(world_append(&w, 1, 32, 40), 0);
    assert_int_equal(world_sync(&w), 0);
    for (size_t i = 0; i < 8; i++)
        assert_int_equal(world_append(&w, 1, 4, 200), 0);
    w.wal = wal_close(w.wal);
    whole = w.disk;
    for (uint64_t seed = 1; seed <= 10000; seed++) {
        struct rng g = rng_seed(seed);

        w.disk = sim_disk_clone(whole);
        assert_non_null(w.disk);
        sim_disk_crash(w.disk, &g, seed % 4 == 0 ? SIM_DISK_KEEP_PREFIX : SIM_DISK_KEEP_SECTORS);
        if (world_open(&w) != 0)
            fail_msg("seed %lu: %s", (unsigned long) seed, w.err.s);
        assert_false(w.bad_content);
        assert_in_range(w.got_last, 32, 64);
        different += lasts[w.got_last]++ == 0 ? 1 : 0;
        w.wal = wal_close(w.wal);
        w.disk = sim_disk_free(w.disk);
    }
    /* The cuts fall in many places, or this shows nothing. */
    assert_true(different > 15);
    w.disk = whole;
    world_done(&w);
}

/* Goal: a 64-record log, half acknowledged, all behind any byte gone (zeros, or what the recycled
 * file held before): every acknowledged record stays, and recovery twice agrees. A file that is
 * really shorter is refused: ours never are. */
static void test_every_byte_of_tail(void **state) {
    static struct world w;
    uint64_t len = 0;
    uint8_t *old;
    uint8_t *b;
    uint32_t acked_end;
    uint32_t end;

    (void) state;
    world_init(&w);
    assert_int_equal(world_open(&w), 0);
    /* Fill a segment, so that the next ones are recycled and hold valid records of other uses. */
    assert_int_equal(world_append(&w, 1, 100, 500), 0);
    assert_int_equal(wal_truncate(w.wal, 1, &w.err), 0);
    for (int i = 0; i < 4; i++) {
        w.wal = wal_close(w.wal);
        w.written = 0;
        assert_int_equal(world_open(&w), 0);
    }
    assert_int_equal(world_append(&w, 1, 32, 60), 0);
    assert_int_equal(world_sync(&w), 0);
    acked_end = WAL_HEADER_BYTES + 32 * wal_format_record_bytes(60);
    assert_int_equal(world_append(&w, 1, 32, 60), 0);
    end = acked_end + 32 * wal_format_record_bytes(60);
    w.wal = wal_close(w.wal);
    b = sim_disk_bytes(w.disk, newest_segment(&w), &len);
    old = (uint8_t *) malloc(len);
    assert_non_null(old);
    memcpy(old, b, len);
    for (uint32_t at = acked_end; at <= end; at++) {
        struct sim_disk *whole = w.disk;
        uint64_t last;
        uint64_t intact = 32;

        w.written = 64;
        w.disk = sim_disk_clone(whole);
        assert_non_null(w.disk);
        b = sim_disk_bytes(w.disk, newest_segment(&w), &len);
        memset(b + at, at % 2 ? 0 : 0xff, end - at);
        while (intact < 64 && memcmp(b + WAL_HEADER_BYTES + intact * wal_format_record_bytes(60),
                                     old + WAL_HEADER_BYTES + intact * wal_format_record_bytes(60),
                                     WAL_RECORD_HEADER_BYTES + 60) == 0)
            intact++;
        if (world_open(&w) != 0)
            fail_msg("at byte %u: %s", at, w.err.s);
        assert_false(w.bad_content);
        last = w.got_last;
        assert_int_equal(last, intact);
        w.wal = wal_close(w.wal);
        assert_int_equal(world_open(&w), 0);
        assert_int_equal(w.got_last, last);
        world_done(&w);
        w.disk = sim_disk_clone(whole);
        assert_non_null(w.disk);
        assert_true(sim_disk_resize(w.disk, newest_segment(&w), at));
        assert_int_equal(world_open(&w), ERR_CORRUPT);
        assert_non_null(strstr(w.err.s, newest_segment(&w)));
        world_done(&w);
        w.disk = whole;
    }
    free(old);
    world_done(&w);
}

/* A small log with everything acknowledged: a finished segment and one that a restart has copied,
 * so that every record is vouched for. */
static void settled_log(struct world *w) {
    world_init(w);
    w->o.spare_segments = 0;
    assert_int_equal(world_open(w), 0);
    assert_int_equal(world_append(w, 1, 20, 2000), 0);
    assert_int_equal(world_sync(w), 0);
    assert_int_equal(world_append(w, 2, 20, 2000), 0);
    assert_int_equal(wal_truncate(w->wal, 36, &w->err), 0);
    w->written = 35;
    assert_int_equal(world_append(w, 3, 5, 100), 0);
    assert_int_equal(world_sync(w), 0);
    w->wal = wal_close(w->wal);
    assert_int_equal(world_open(w), 0);
    assert_int_equal(w->got_last, w->written);
    w->wal = wal_close(w->wal);
}

/* After damage there are two right answers: the same records, or a refusal that names the file. */
static bool same_or_refused(struct world *w) {
    int r = world_open(w);
    bool same = r == 0 && !w->bad_content && w->got_last == w->written && w->got_first == 1;
    bool refused =
        (r == ERR_CORRUPT || r == ERR_FOREIGN || r == ERR_VERSION) && strstr(w->err.s, "wal-");

    w->wal = wal_close(w->wal);
    return same || refused;
}

struct damage {
    uint64_t images;
    uint64_t wrong;
};

/* One damaged copy. @kind 0: flip @mask at @at; 1: zero the sector of @at; 2: swap it with another.
 */
static void damage_one(struct world *w, struct sim_disk *whole, const char *name, int kind,
                       uint64_t at, uint8_t mask, uint64_t other, struct damage *d) {
    uint64_t len = 0;
    uint8_t tmp[512];
    uint8_t *b;

    w->disk = sim_disk_clone(whole);
    assert_non_null(w->disk);
    b = sim_disk_bytes(w->disk, name, &len);
    assert_non_null(b);
    if (kind == 0) {
        b[at] ^= mask;
    } else if (kind == 1) {
        memset(b + at, 0, sizeof(tmp));
    } else {
        memcpy(tmp, b + at, sizeof(tmp));
        memcpy(b + at, b + other, sizeof(tmp));
        memcpy(b + other, tmp, sizeof(tmp));
    }
    d->images++;
    if (!same_or_refused(w)) {
        d->wrong++;
        print_message("%s kind %d at %lu mask %x: silent difference\n", name, kind,
                      (unsigned long) at, mask);
    }
    w->disk = sim_disk_free(w->disk);
}

/* Goal: W8. Damage anywhere in acknowledged bytes is never silent. Method: every 29th byte flipped
 * in one of its bits, each sector zeroed, sectors swapped, in every segment file. With
 * CHRONOS_EXHAUSTIVE set in the environment: every bit of every byte (minutes). */
static void test_damage_is_never_silent(void **state) {
    static struct world w;
    struct damage d = {0};
    struct rng g = rng_seed(11);
    struct sim_disk *whole;
    bool exhaustive = getenv("CHRONOS_EXHAUSTIVE") != NULL;
    uint64_t step = exhaustive ? 1 : 29;

    (void) state;
    settled_log(&w);
    whole = w.disk;
    for (size_t f = 0; sim_disk_name(whole, f); f++) {
        const char *name = sim_disk_name(whole, f);
        uint64_t len = 0;

        (void) sim_disk_bytes(whole, name, &len);
        for (uint64_t at = rng_below(&g, step); at < len; at += step) {
            unsigned any = (unsigned) rng_below(&g, 8);

            for (unsigned bit = exhaustive ? 0 : any; bit < (exhaustive ? 8 : any + 1); bit++)
                damage_one(&w, whole, name, 0, at, (uint8_t) (1U << bit), 0, &d);
        }
        for (uint64_t at = 0; at < len; at += 512) {
            damage_one(&w, whole, name, 1, at, 0, 0, &d);
            damage_one(&w, whole, name, 2, at, 0, 512 * rng_below(&g, len / 512), &d);
        }
    }
    print_message("%lu images\n", (unsigned long) d.images);
    assert_true(d.images > 5000);
    assert_int_equal(d.wrong, 0);
    w.disk = whole;
    world_done(&w);
}

/* Goal: the header of a record and the segment header bit by bit: 8 masks for each byte of both. */
static void test_header_bits(void **state) {
    static struct world w;
    struct damage d = {0};
    struct sim_disk *whole;
    const char *name;

    (void) state;
    settled_log(&w);
    whole = w.disk;
    name = newest_segment(&w);
    for (uint64_t at = 0; at < 128; at++)
        for (unsigned bit = 0; bit < 8; bit++)
            damage_one(&w, whole, name, 0, at, (uint8_t) (1U << bit), 0, &d);
    for (uint64_t at = WAL_HEADER_BYTES; at < WAL_HEADER_BYTES + WAL_RECORD_HEADER_BYTES; at++)
        for (unsigned bit = 0; bit < 8; bit++)
            damage_one(&w, whole, name, 0, at, (uint8_t) (1U << bit), 0, &d);
    assert_int_equal(d.images, 1024 + 320);
    assert_int_equal(d.wrong, 0);
    w.disk = whole;
    world_done(&w);
}

/* Goal: W9. In a log that was not restarted, a record is vouched for by any later one written after
 * its sync: damage before the last batch is refused although nothing marks it but those. */
static void test_watermark_vouches(void **state) {
    static struct world w;
    struct sim_disk *whole;
    uint32_t size = wal_format_record_bytes(100);

    (void) state;
    world_init(&w);
    assert_int_equal(world_open(&w), 0);
    for (int i = 0; i < 30; i++) {
        assert_int_equal(world_append(&w, 1, 1, 100), 0);
        assert_int_equal(world_sync(&w), 0);
    }
    w.wal = wal_close(w.wal);
    whole = w.disk;
    for (uint64_t i = 0; i < 30; i++) {
        uint64_t len = 0;
        int r;

        w.disk = sim_disk_clone(whole);
        assert_non_null(w.disk);
        sim_disk_bytes(w.disk, newest_segment(&w), &len)[WAL_HEADER_BYTES + i * size + 50] ^= 4;
        r = world_open(&w);
        assert_int_equal(r, i < 29 ? ERR_CORRUPT : 0);
        w.wal = wal_close(w.wal);
        w.disk = sim_disk_free(w.disk);
    }
    w.disk = whole;
    world_done(&w);
}

/* Goal: W16. Two segments swapped, a segment in the place of another, blocks swapped between
 * segments, a segment missing: refused. */
static void test_misplaced(void **state) {
    static struct world w;
    struct sim_disk *whole;
    char names[16][64];
    size_t n = 0;

    (void) state;
    world_init(&w);
    w.o.spare_segments = 0;
    assert_int_equal(world_open(&w), 0);
    while (wal_bytes(w.wal) < 8 * WORLD_SEGMENT_BYTES) {
        assert_int_equal(world_append(&w, 1, 10, 1000), 0);
        assert_int_equal(world_sync(&w), 0);
    }
    w.wal = wal_close(w.wal);
    whole = w.disk;
    for (size_t i = 0; sim_disk_name(whole, i) && n < ARRAY_LEN(names); i++)
        (void) snprintf(names[n++], sizeof(names[0]), "%s", sim_disk_name(whole, i));
    assert_true(n >= 8);
    for (size_t a = 0; a < n; a++) {
        for (size_t b = 0; b < n; b++) {
            if (a == b)
                continue;
            w.disk = sim_disk_clone(whole);
            assert_non_null(w.disk);
            assert_true(sim_disk_swap_names(w.disk, names[a], names[b]));
            assert_int_equal(world_open(&w), ERR_CORRUPT);
            w.disk = sim_disk_free(w.disk);
            for (uint64_t block = 0; block < 14; block++) {
                uint64_t la = 0;
                uint8_t *x;
                uint8_t *y;

                w.disk = sim_disk_clone(whole);
                assert_non_null(w.disk);
                x = sim_disk_bytes(w.disk, names[a], &la);
                y = sim_disk_bytes(w.disk, names[b], &la);
                memcpy(x + block * 4096, y + block * 4096, 4096);
                assert_true(same_or_refused(&w) || block > 0);
                w.disk = sim_disk_free(w.disk);
            }
        }
        w.disk = whole;
        if (strcmp(names[a], newest_segment(&w)) == 0)
            continue;
        w.disk = sim_disk_clone(whole);
        assert_non_null(w.disk);
        assert_true(sim_disk_remove(w.disk, names[a]));
        assert_int_equal(world_open(&w), ERR_CORRUPT);
        w.disk = sim_disk_free(w.disk);
        w.disk = whole;
    }
    w.disk = whole;
    world_done(&w);
}

/* Goal: W18. Random bytes, and mutations of real files, never crash the reader or make it allocate
 * by a length field. Method: the file's size is fixed; contents are noise or real with noise. */
static void test_noise(void **state) {
    static struct world w;
    struct sim_disk *whole;
    struct rng g = rng_seed(5);

    (void) state;
    settled_log(&w);
    whole = w.disk;
    for (int i = 0; i < 1500; i++) {
        uint64_t len = 0;
        uint8_t *b;
        uint64_t edits = rng_range(&g, 1, 40);
        int r;

        w.disk = sim_disk_clone(whole);
        assert_non_null(w.disk);
        b = sim_disk_bytes(w.disk, newest_segment(&w), &len);
        for (uint64_t e = 0; e < edits; e++) {
            uint64_t at = WAL_HEADER_BYTES + rng_below(&g, 3000);

            b[at] = (uint8_t) rng_next(&g);
        }
        r = world_open(&w);
        assert_true(r == ERR_CORRUPT || r == 0);
        assert_true(r != 0 || (!w.bad_content && w.got_last == w.written));
        w.wal = wal_close(w.wal);
        w.disk = sim_disk_free(w.disk);
    }
    w.disk = whole;
    world_done(&w);
}

/* Does the recovered log equal @recs, as far as it goes? */
static bool is_prefix_of(const struct world *w, const struct world_rec *recs, uint64_t last) {
    if (w->got_last > last)
        return false;
    for (uint64_t i = 1; i <= w->got_last; i++)
        if (w->got[i].term != recs[i].term || w->got[i].len != recs[i].len)
            return false;
    return true;
}

/* Goal: W11. A power cut between a truncation, the records after it and their sync leaves either
 * the log before (with all it had acknowledged) or the log after, cut at a record, never a mixture;
 * once synced, only the log after. Method: lengths tell old records from new ones. */
static void test_truncation_cuts(void **state) {
    uint64_t kept_old = 0;
    uint64_t kept_new = 0;

    (void) state;
    for (uint64_t seed = 1; seed <= 600; seed++) {
        static struct world w;
        static struct world_rec before[WORLD_MAX + 1];
        struct rng g = rng_seed(seed);
        uint64_t before_last;
        uint64_t from;
        bool synced;
        bool is_old;
        bool is_new;

        world_init(&w);
        assert_int_equal(world_open(&w), 0);
        assert_int_equal(world_append(&w, 1, 1 + rng_below(&g, 100), 600), 0);
        assert_int_equal(world_append(&w, 1, 1 + rng_below(&g, 100), 600), 0);
        assert_int_equal(world_sync(&w), 0);
        memcpy(before, w.recs, sizeof(before));
        before_last = w.written;
        from = rng_range(&g, 1, w.written);
        assert_int_equal(wal_truncate(w.wal, from, &w.err), 0);
        w.written = from - 1;
        if (rng_chance(&g, 800))
            assert_int_equal(world_append(&w, 2, 1 + rng_below(&g, 100), 500), 0);
        synced = rng_chance(&g, 300);
        if (synced)
            assert_int_equal(world_sync(&w), 0);
        w.wal = wal_close(w.wal);
        sim_disk_crash(w.disk, &g, (enum sim_disk_model) rng_below(&g, SIM_DISK_MODELS));
        w.got_first = 0;
        w.got_last = 0;
        w.bad_content = false;
        if (wal_open(sim_disk_interface(w.disk), &w.o, world_each, &w, &w.wal, &w.err) != 0)
            fail_msg("seed %lu: %s", (unsigned long) seed, w.err.s);
        assert_false(w.bad_content);
        is_old = w.got_last == before_last && is_prefix_of(&w, before, before_last);
        is_new = w.got_last >= from - 1 && is_prefix_of(&w, w.recs, w.written);
        assert_true(is_new || (is_old && !synced));
        assert_true(!synced || w.got_last == w.written);
        kept_old += is_old ? 1 : 0;
        kept_new += is_new ? 1 : 0;
        world_done(&w);
    }
    assert_true(kept_old > 50);
    assert_true(kept_new > 100);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_power_cuts),
        cmocka_unit_test(test_truncation_cuts),
        cmocka_unit_test(test_sector_subsets),
        cmocka_unit_test(test_every_byte_of_tail),
        cmocka_unit_test(test_damage_is_never_silent),
        cmocka_unit_test(test_header_bits),
        cmocka_unit_test(test_watermark_vouches),
        cmocka_unit_test(test_misplaced),
        cmocka_unit_test(test_noise),
    };

    return cmocka_run_group_tests_name("wal_damage", tests, NULL, NULL);
}
