/* Verifying a log that is open, and showing one that is not. */
#include "wal_world.h"

/* Several segments, truncated records in the middle, a recycled segment at the end, all synced. */
static void make_log(struct world *w) {
    world_init(w);
    assert_int_equal(world_open(w), 0);
    while (wal_bytes(w->wal) < 4 * WORLD_SEGMENT_BYTES) {
        assert_int_equal(world_append(w, 1, 10, 504), 0);
        assert_int_equal(world_sync(w), 0);
    }
    assert_int_equal(wal_release(w->wal, w->written - 150, 0, &w->err), 0);
    assert_int_equal(wal_truncate(w->wal, w->written - 4, &w->err), 0);
    w->written -= 5;
    while (wal_bytes(w->wal) < 5 * WORLD_SEGMENT_BYTES) {
        assert_int_equal(world_append(w, 2, 10, 504), 0);
        assert_int_equal(world_sync(w), 0);
    }
    w->acked = w->written;
}

/* Goal: W14. A whole round in steps finds nothing in a good log, verifies every durable byte once,
 * leaves what is not synced alone, and begins again. Method: several step sizes; the bytes of each
 * step are bounded. */
static void test_scrub_round(void **state) {
    static const uint32_t steps[] = {1, 600, 5000, 100000, 1U << 30};

    (void) state;
    for (size_t i = 0; i < ARRAY_LEN(steps); i++) {
        static struct world w;
        struct wal_scrub c = {0};
        uint64_t index = 0;
        uint64_t len = 0;
        size_t n = 0;

        make_log(&w);
        assert_int_equal(world_append(&w, 2, 3, 504), 0); /* not synced: not its concern */
        (void) sim_disk_bytes(w.disk, "wal-0000000000000005.log", &len);
        do {
            assert_int_equal(wal_scrub(w.wal, &c, steps[i], &index, &w.err), 0);
            n++;
            assert_true(n < 10000);
        } while (c.seq != 0 || c.offset != 0);
        if (steps[i] == 1)
            assert_true(n > 200); /* a record a step */
        if (steps[i] == 5000)
            assert_in_range(n, wal_bytes(w.wal) / 5000 / 2, wal_bytes(w.wal) / 4096 + 5);
        if (steps[i] == 1U << 30)
            assert_int_equal(n, 1);
        assert_int_equal(wal_scrub(w.wal, &c, steps[i], &index, &w.err), 0);
        assert_int_equal(world_sync(&w), 0); /* still works */
        world_done(&w);
    }
}

/* Goal: W14. One flipped bit anywhere in what is durable, in the active segment too, is found
 * within a round, with the file, the offset and the index to cover; the log stays usable; once a
 * snapshot covers it and the segment is given back the round is clean again. */
static void test_scrub_finds_damage(void **state) {
    struct rng g = rng_seed(5);
    uint64_t found = 0;
    uint64_t unsynced = 0;

    (void) state;
    for (int i = 0; i < 400; i++) {
        static struct world w;
        struct wal_scrub c = {0};
        uint64_t index = 0, len = 0, at, end;
        char name[64];
        uint8_t *b;
        size_t files = 0;
        int r = 0;

        make_log(&w);
        assert_int_equal(world_append(&w, 2, 3, 504), 0);
        do
            (void) snprintf(name, sizeof(name), "%s",
                            sim_disk_name(w.disk, rng_below(&g, 1000) % 8)
                                ? sim_disk_name(w.disk, rng_below(&g, 1000) % 8)
                                : "");
        while (strncmp(name, "wal-", 4) != 0 && ++files < 1000);
        b = sim_disk_bytes(w.disk, name, &len);
        assert_non_null(b);
        for (end = len; end > 0 && b[end - 1] == 0;)
            end--;
        at = rng_below(&g, 4) == 0 ? rng_below(&g, 128) : rng_below(&g, end);
        b[at] ^= (uint8_t) (1U << rng_below(&g, 8));
        for (int step = 0; r == 0 && (step == 0 || c.seq != 0); step++)
            r = wal_scrub(w.wal, &c, 20000, &index, &w.err);
        if (r == 0) {
            /* Not durable yet, stale behind the end, or padding: a restart may not mind either. */
            unsynced++;
        } else {
            struct wal_scrub again = c;

            found++;
            assert_int_equal(r, ERR_CORRUPT);
            assert_non_null(strstr(w.err.s, name));
            assert_true(index > 0 && index <= w.written);
            assert_int_equal(wal_scrub(w.wal, &again, 20000, &index, &w.err), ERR_CORRUPT);
            assert_int_equal(world_append(&w, 3, 1, 504), 0);
            if (rng_chance(&g, 500)) {
                while (wal_base_index(w.wal) < index) { /* until it is not the active one */
                    assert_int_equal(world_append(&w, 3, 10, 504), 0);
                    assert_int_equal(wal_release(w.wal, w.written, 0, &w.err), 0);
                }
            } else {
                assert_int_equal(world_reset(&w, w.written, 3), 0);
            }
            assert_int_equal(world_sync(&w), 0);
            again = (struct wal_scrub){0};
            assert_int_equal(wal_scrub(w.wal, &again, UINT32_MAX, &index, &w.err), 0);
        }
        world_done(&w);
    }
    print_message("%lu found, %lu not durable\n", (unsigned long) found, (unsigned long) unsynced);
    assert_true(found > 250);
}

/* Goal: each bit of one acknowledged record and of the header it stands under. */
static void test_scrub_every_bit(void **state) {
    static struct world w;
    struct wal_scrub c = {0};
    uint64_t index = 0, len = 0;
    uint8_t *b;

    (void) state;
    world_init(&w);
    assert_int_equal(world_open(&w), 0);
    assert_int_equal(world_append(&w, 1, 2, 40), 0);
    assert_int_equal(world_sync(&w), 0);
    for (uint64_t at = 0; at < WAL_HEADER_BYTES + 160; at += at < 112 || at >= 4080 ? 1 : 31) {
        for (unsigned bit = 0; bit < 8; bit++) {
            b = sim_disk_bytes(w.disk, "wal-0000000000000001.log", &len);
            b[at] ^= (uint8_t) (1U << bit);
            c = (struct wal_scrub){0};
            assert_int_equal(wal_scrub(w.wal, &c, UINT32_MAX, &index, &w.err), ERR_CORRUPT);
            b[at] ^= (uint8_t) (1U << bit);
        }
    }
    c = (struct wal_scrub){0};
    assert_int_equal(wal_scrub(w.wal, &c, UINT32_MAX, &index, &w.err), 0);
    assert_true(sim_disk_resize(w.disk, "wal-0000000000000001.log", 50000));
    assert_int_equal(wal_scrub(w.wal, &c, UINT32_MAX, &index, &w.err), ERR_CORRUPT);
    world_done(&w);
}

/* ---- inspection ---- */

struct seen {
    size_t segments, spares, entries, truncates, releases, seals;
    size_t damaged, torn;
    uint64_t last_index;
    char bad_segment[64];
    uint32_t bad_offset;
    int stop_after; /* return 7 from the n-th call; 0 = never */
};

static int count_call(struct seen *s) {
    return s->stop_after > 0 && --s->stop_after == 0 ? 7 : 0;
}

static int see_segment(void *arg, const struct wal_inspect_segment *g) {
    struct seen *s = (struct seen *) arg;

    if (g->spare)
        s->spares++;
    else
        s->segments++;
    assert_true(g->spare || (g->seq > 0 && g->identity.node_id == 1));
    return count_call(s);
}

static int see_record(void *arg, const struct wal_inspect_record *r) {
    struct seen *s = (struct seen *) arg;

    s->entries += strcmp(r->kind, "entry") == 0;
    s->truncates += strcmp(r->kind, "truncate") == 0;
    s->releases += strcmp(r->kind, "release") == 0;
    s->seals += strcmp(r->kind, "seal") == 0;
    if (strcmp(r->kind, "entry") == 0 || strcmp(r->kind, "truncate") == 0)
        s->last_index = r->record.index;
    assert_true(r->offset >= WAL_HEADER_BYTES && r->offset % 8 == 0);
    return count_call(s);
}

static int see_bad(void *arg, const char *segment, uint32_t offset, bool torn, const char *why) {
    struct seen *s = (struct seen *) arg;

    s->torn += torn;
    s->damaged += !torn;
    (void) snprintf(s->bad_segment, sizeof(s->bad_segment), "%s", segment);
    s->bad_offset = offset;
    assert_non_null(why);
    return count_call(s);
}

static int inspect(struct world *w, struct seen *s) {
    const struct wal_inspect_visitor v = {see_segment, see_record, see_bad, s};
    uint64_t changes =
        sim_disk_count(w->disk, SIM_DISK_PWRITE) + sim_disk_count(w->disk, SIM_DISK_UNLINK) +
        sim_disk_count(w->disk, SIM_DISK_RENAME) + sim_disk_count(w->disk, SIM_DISK_TRUNCATE);
    int r;

    s->segments = s->spares = s->entries = s->truncates = s->releases = s->seals = 0;
    s->damaged = s->torn = 0;
    r = wal_inspect(sim_disk_interface(w->disk), &v, &w->err);
    assert_int_equal(sim_disk_open_handles(w->disk), 0);
    assert_int_equal(
        sim_disk_count(w->disk, SIM_DISK_PWRITE) + sim_disk_count(w->disk, SIM_DISK_UNLINK) +
            sim_disk_count(w->disk, SIM_DISK_RENAME) + sim_disk_count(w->disk, SIM_DISK_TRUNCATE),
        changes);
    return r;
}

/* Goal: a good log is shown whole: segments, spares, each kind of record, and nothing bad, in spite
 * of the stale records in recycled segments. The visitor can stop anywhere. */
static void test_inspect_good(void **state) {
    static struct world w;
    struct seen s = {0};
    size_t calls;

    (void) state;
    make_log(&w);
    assert_int_equal(world_append(&w, 2, 3, 504), 0);
    assert_int_equal(wal_seal(w.wal, &w.err), 0);
    w.wal = wal_close(w.wal);
    assert_int_equal(inspect(&w, &s), 0);
    assert_int_equal(s.segments, 5);
    assert_int_equal(s.truncates, 1);
    assert_int_equal(s.releases, 1);
    assert_int_equal(s.seals, 1);
    assert_int_equal(s.damaged + s.torn, 0);
    assert_int_equal(s.last_index, w.written);
    calls = s.segments + s.spares + s.entries + 3;
    for (size_t i = 1; i <= calls; i += 1 + calls / 40) {
        struct seen stopped = {.stop_after = (int) i};

        assert_int_equal(inspect(&w, &stopped), 7);
    }
    assert_int_equal(world_open(&w), 0); /* as it was */
    world_accept(&w);
    world_done(&w);
}

/* Goal: a release explains that older segments are gone while no header says so yet; without it a
 * missing segment is damage. */
static void test_inspect_released(void **state) {
    (void) state;
    for (int released = 0; released < 2; released++) {
        static struct world w;
        struct seen s = {0};

        world_init(&w);
        assert_int_equal(world_open(&w), 0);
        for (int i = 0; i < 40; i++)
            assert_int_equal(world_append(&w, 1, 10, 400), 0);
        assert_int_equal(world_sync(&w), 0);
        if (released)
            assert_int_equal(wal_release(w.wal, 300, 0, &w.err), 0);
        w.wal = wal_close(w.wal);
        if (!released)
            assert_true(sim_disk_remove(w.disk, "wal-0000000000000001.log"));
        assert_int_equal(inspect(&w, &s), 0);
        assert_int_equal(s.releases, released);
        assert_int_equal(s.damaged, !released);
        assert_int_equal(s.torn, 0);
        if (!released)
            assert_string_equal(s.bad_segment, "wal-0000000000000001.log");
        world_done(&w);
    }
}

/* Goal: a damaged record is reported at its offset, as damage when something vouches for it, as
 * torn when nothing does, and what follows it is shown nevertheless. */
static void test_inspect_damage(void **state) {
    const uint32_t size = wal_format_record_bytes(104);

    (void) state;
    for (int sealed = 0; sealed < 2; sealed++) {
        for (uint32_t i = 0; i < 30; i++) {
            static struct world w;
            struct seen s = {0};
            uint64_t len = 0;

            world_init(&w);
            assert_int_equal(world_open(&w), 0);
            assert_int_equal(world_append(&w, 1, 30, 104), 0);
            assert_int_equal(world_sync(&w), 0);
            if (sealed)
                assert_int_equal(wal_seal(w.wal, &w.err), 0);
            w.wal = wal_close(w.wal);
            sim_disk_bytes(w.disk, "wal-0000000000000001.log",
                           &len)[WAL_HEADER_BYTES + i * size + i * 3] ^= 16;
            assert_int_equal(inspect(&w, &s), 0);
            assert_int_equal(s.damaged, sealed);
            assert_int_equal(s.torn, !sealed);
            assert_int_equal(s.bad_offset, WAL_HEADER_BYTES + i * size);
            assert_string_equal(s.bad_segment, "wal-0000000000000001.log");
            assert_int_equal(s.entries, 29);
            assert_int_equal(s.seals, sealed);
            world_done(&w);
        }
    }
}

/* Goal: whatever is done to the files, inspection ends, says something is bad or shows all there
 * is, and changes nothing: random damage, cut and grown files, foreign and missing ones. */
static void test_inspect_anything(void **state) {
    struct sim_disk *whole;
    static struct world w;
    struct seen good = {0};
    uint64_t reported = 0;

    (void) state;
    make_log(&w);
    w.wal = wal_close(w.wal);
    whole = w.disk;
    assert_int_equal(inspect(&w, &good), 0);
    for (uint64_t seed = 1; seed <= 1500; seed++) {
        struct rng g = rng_seed(seed);
        struct seen s = {0};
        char name[64];
        uint64_t len = 0;
        uint8_t *b;
        int r;

        w.disk = sim_disk_clone(whole);
        assert_non_null(w.disk);
        for (uint64_t n = 1 + rng_below(&g, 3); n > 0; n--) {
            size_t names = 0;

            while (sim_disk_name(w.disk, names))
                names++;
            (void) snprintf(name, sizeof(name), "%s", sim_disk_name(w.disk, rng_below(&g, names)));
            b = sim_disk_bytes(w.disk, name, &len);
            switch (rng_below(&g, 6)) {
            case 0:
                assert_true(sim_disk_remove(w.disk, name));
                break;
            case 1:
                assert_true(sim_disk_resize(w.disk, name, rng_below(&g, len + 1)));
                break;
            case 2: /* much larger than it says */
                assert_true(sim_disk_resize(w.disk, name, len * (2 + rng_below(&g, 40))));
                break;
            case 3:
                for (uint64_t i = 0; i < len; i++)
                    b[i] = (uint8_t) rng_next(&g);
                break;
            default:
                for (int i = 0; i < 4 && len > 0; i++)
                    b[rng_below(&g, len)] ^= (uint8_t) (1U << rng_below(&g, 8));
                break;
            }
        }
        r = inspect(&w, &s);
        assert_true(r == 0 || r == ERR_CORRUPT);
        assert_true(r == 0 || w.err.s[0] != 0);
        assert_true(s.entries <= good.entries + 1);
        reported += r != 0 || s.damaged + s.torn > 0;
        /* What recovery refuses, inspection has shown a reason for. */
        if (world_open(&w) == ERR_CORRUPT)
            assert_true(r != 0 || s.damaged + s.torn > 0);
        w.wal = wal_close(w.wal);
        w.disk = sim_disk_free(w.disk);
    }
    assert_true(reported > 500);
    w.disk = whole;
    world_done(&w);
}

/* Goal: a directory without a log says so; an error of the directory is forwarded, one of a file is
 * a finding. */
static void test_inspect_nothing(void **state) {
    static struct world w;
    struct seen s = {0};

    (void) state;
    world_init(&w);
    assert_int_equal(inspect(&w, &s), ERR_CORRUPT);
    assert_non_null(strstr(w.err.s, "no readable log segment"));
    assert_int_equal(world_open(&w), 0);
    w.wal = wal_close(w.wal);
    sim_disk_set_fault(w.disk,
                       (struct sim_disk_fault){
                           .op = SIM_DISK_LIST, .nth = 1, .effect = SIM_DISK_FAIL, .err = -EACCES});
    assert_int_equal(inspect(&w, &s), -EACCES);
    sim_disk_set_fault(w.disk,
                       (struct sim_disk_fault){
                           .op = SIM_DISK_PREAD, .nth = 2, .effect = SIM_DISK_FAIL, .err = -EIO});
    assert_int_equal(inspect(&w, &s), 0);
    assert_int_equal(s.damaged, 1);
    world_done(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scrub_round),      cmocka_unit_test(test_scrub_finds_damage),
        cmocka_unit_test(test_scrub_every_bit),  cmocka_unit_test(test_inspect_good),
        cmocka_unit_test(test_inspect_released), cmocka_unit_test(test_inspect_damage),
        cmocka_unit_test(test_inspect_anything), cmocka_unit_test(test_inspect_nothing),
    };

    return cmocka_run_group_tests_name("wal_scrub", tests, NULL, NULL);
}
