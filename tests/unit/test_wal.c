/* The log when nothing fails: appending, rolling, truncating, releasing, reading, reopening. */
#include "wal_world.h"

#include "base/codec.h"

/* Reopen and compare everything with the ledger. */
static void reopen(struct world *w) {
    w->wal = wal_close(w->wal);
    assert_int_equal(world_open(w), 0);
    assert_false(w->bad_content);
    assert_int_equal(w->got_last, w->written);
}

/* Goal: a new log is empty and stays so over restarts. */
static void test_empty(void **state) {
    struct world w;

    (void) state;
    world_init(&w);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(world_open(&w), 0);
        assert_int_equal(wal_first_index(w.wal), 0);
        assert_int_equal(wal_last_index(w.wal), 0);
        w.wal = wal_close(w.wal);
    }
    assert_int_equal(sim_disk_open_handles(w.disk), 0);
    world_done(&w);
}

/* Goal: records of random sizes over many segments come back equal, through wal_read, wal_term and
 * recovery. Method: batches of 1..128 with seed 1, reopened in between. */
static void test_round_trip(void **state) {
    struct world w;
    struct rng g = rng_seed(1);
    uint64_t term = 1;

    (void) state;
    world_init(&w);
    assert_int_equal(world_open(&w), 0);
    while (w.written < 3000) {
        if (rng_chance(&g, 100))
            term++;
        assert_int_equal(
            world_append(&w, term, 1 + rng_below(&g, 100), 8 + (uint32_t) rng_below(&g, 900)), 0);
        if (rng_chance(&g, 700))
            assert_int_equal(world_sync(&w), 0);
        if (rng_chance(&g, 300))
            assert_int_equal(wal_prepare(w.wal, &w.err), 0);
        if (rng_chance(&g, 50))
            reopen(&w);
    }
    reopen(&w);
    for (uint64_t i = 1; i <= w.written; i += 1 + rng_below(&g, 40)) {
        uint64_t t = 0;

        assert_int_equal(wal_term(w.wal, i, &t, &w.err), 0);
        assert_int_equal(t, w.recs[i].term);
        w.got_first = 0;
        assert_int_equal(wal_read(w.wal, i, 1 + rng_below(&g, 20000), world_compare, &w, &w.err),
                         0);
        assert_int_equal(w.got_first, i);
        assert_false(w.bad_content);
    }
    assert_int_equal(wal_read(w.wal, w.written + 1, 1, world_compare, &w, &w.err), 1);
    world_done(&w);
}

/* Goal: truncations (within and across segments, to the very beginning) and what follows them.
 * Method: random appends and truncations against the ledger, seed 2. */
static void test_truncate(void **state) {
    struct world w;
    struct rng g = rng_seed(2);
    uint64_t term = 1;

    (void) state;
    world_init(&w);
    assert_int_equal(world_open(&w), 0);
    for (int round = 0; round < 800; round++) {
        if (w.written < WORLD_MAX - 200)
            assert_int_equal(
                world_append(&w, term, 1 + rng_below(&g, 60), 8 + (uint32_t) rng_below(&g, 300)),
                0);
        if (rng_chance(&g, 300) && w.written > 0) {
            uint64_t from =
                rng_chance(&g, 30)
                    ? 1
                    : rng_range(&g, w.written - MIN(w.written - 1, (uint64_t) 400), w.written);

            assert_int_equal(wal_truncate(w.wal, from, &w.err), 0);
            w.written = from - 1;
            assert_int_equal(wal_last_index(w.wal), w.written);
            term++;
        }
        if (rng_chance(&g, 60))
            reopen(&w);
        if (w.written > 0) {
            uint64_t i = rng_range(&g, 1, w.written);
            uint64_t t = 0;

            assert_int_equal(wal_term(w.wal, i, &t, &w.err), 0);
            assert_int_equal(t, w.recs[i].term);
            w.got_first = 0;
            assert_int_equal(wal_read(w.wal, i, 5000, world_compare, &w, &w.err), 0);
            assert_false(w.bad_content);
        }
    }
    world_done(&w);
}

/* Goal: released segments are reused, the log keeps what is above, restarts agree, and the number
 * of files stays bounded. */
static void test_release(void **state) {
    struct world w;
    struct rng g = rng_seed(3);
    uint64_t released = 0;
    size_t files = 0;

    (void) state;
    world_init(&w);
    assert_int_equal(world_open(&w), 0);
    while (w.written < 4000) {
        assert_int_equal(world_append(&w, 1, 20, 600), 0);
        assert_int_equal(world_sync(&w), 0);
        assert_int_equal(wal_prepare(w.wal, &w.err), 0);
        if (w.written > 200) {
            released = MAX(released, w.written - 200);
            assert_int_equal(wal_release(w.wal, released, 0, &w.err), 0);
            assert_true(wal_first_index(w.wal) <= released + 1);
            assert_true(wal_first_index(w.wal) + 330 > released);
        }
        if (rng_chance(&g, 50)) {
            uint64_t first = wal_first_index(w.wal);

            reopen(&w);
            assert_int_equal(w.got_first, first);
        }
        if (rng_chance(&g, 30)) {
            uint64_t from = rng_range(&g, wal_first_index(w.wal), w.written);

            assert_int_equal(wal_truncate(w.wal, from, &w.err), 0);
            w.written = from - 1;
            reopen(&w);
        }
    }
    while (sim_disk_name(w.disk, files))
        files++;
    assert_true(files < 12);
    world_done(&w);
}

/* Goal: restarts without writes leave no trail of files (each one continues in a new segment). */
static void test_restarts_bounded(void **state) {
    struct world w;
    size_t files = 0;

    (void) state;
    world_init(&w);
    assert_int_equal(world_open(&w), 0);
    for (int i = 0; i < 200; i++) {
        assert_int_equal(world_append(&w, 1, 1, 64), 0);
        assert_int_equal(world_sync(&w), 0);
        reopen(&w);
    }
    while (sim_disk_name(w.disk, files))
        files++;
    assert_true(files <= 4);
    world_done(&w);
}

/* Goal: a record larger than a segment gets a segment of its own size (W18: up to 4 MiB). */
static void test_large_records(void **state) {
    struct world w;

    (void) state;
    world_init(&w);
    assert_int_equal(world_open(&w), 0);
    assert_int_equal(world_append(&w, 1, 2, 50000), 0);
    assert_int_equal(world_append(&w, 1, 1, WAL_RECORD_BYTES_MAX), 0);
    assert_int_equal(world_append(&w, 1, 3, 100000), 0);
    assert_int_equal(world_append(&w, 1, 3, 100), 0);
    assert_int_equal(world_sync(&w), 0);
    reopen(&w);
    reopen(&w);
    world_done(&w);
}

static size_t count_spares(const struct world *w) {
    size_t n = 0;

    for (size_t i = 0; sim_disk_name(w->disk, i); i++)
        n += strncmp(sim_disk_name(w->disk, i), "spare-", 6) == 0;
    return n;
}

/* Goal: a spare larger than one step is made in several, none of which writes more than a step; a
 * spare begun but wanted at once is finished on the spot; what it leaves half-made is no spare.
 * Method: segments of three steps, prepared step by step; then used up without preparing. */
static void test_spares_in_steps(void **state) {
    struct world w;
    size_t steps = 0;

    (void) state;
    world_init(&w);
    w.o.segment_bytes = 3 * WAL_PREPARE_STEP_BYTES;
    w.o.spare_segments = 1;
    assert_int_equal(world_open(&w), 0);
    while (wal_wants_prepare(w.wal)) {
        size_t before = count_spares(&w);

        assert_int_equal(wal_prepare(w.wal, &w.err), 0);
        steps++;
        assert_true(steps % 3 == 0 ? count_spares(&w) >= before : count_spares(&w) == before);
        assert_true(steps < 100);
    }
    assert_true(steps == 0 || steps >= 3);
    /* Fill segment after segment: one step of preparing each, so every spare is finished late. */
    for (int i = 0; i < 24; i++) {
        assert_int_equal(world_append(&w, 1, 2, 200000), 0);
        assert_int_equal(world_sync(&w), 0);
        if (i % 3 == 0)
            assert_int_equal(wal_prepare(w.wal, &w.err), 0);
    }
    reopen(&w);
    world_done(&w);
}

/* Goal: files of another node or cluster and of a newer version are refused and left alone (W19).
 */
static void test_foreign_and_newer(void **state) {
    struct world w;
    char name[64];
    uint64_t len = 0;
    uint8_t *b;
    struct wal_segment_header h;

    (void) state;
    world_init(&w);
    assert_int_equal(world_open(&w), 0);
    assert_int_equal(world_append(&w, 1, 3, 100), 0);
    assert_int_equal(world_sync(&w), 0);
    w.wal = wal_close(w.wal);
    w.o.identity.node_id = 2;
    assert_int_equal(world_open(&w), ERR_FOREIGN);
    assert_non_null(strstr(w.err.s, "wal-"));
    w.o.identity.node_id = 1;
    w.o.identity.cluster_id[15] ^= 1;
    assert_int_equal(world_open(&w), ERR_FOREIGN);
    w.o.identity.cluster_id[15] ^= 1;
    assert_int_equal(world_open(&w), 0);
    assert_int_equal(w.got_last, 3);
    w.wal = wal_close(w.wal);
    (void) snprintf(name, sizeof(name), "wal-%016x.log", 2);
    b = sim_disk_bytes(w.disk, name, &len);
    assert_non_null(b);
    assert_int_equal(wal_format_header_decode(b, &h), 0);
    b[8] = 2; /* a newer version, but its checksum does not match: damage */
    assert_int_equal(wal_format_header_decode(b, &h), ERR_CORRUPT);
    assert_int_equal(world_open(&w), ERR_CORRUPT);
    world_done(&w);
}

/* Goal: a missing newest file is noticed through the hint, and truncation keeps the hint honest. */
static void test_hint(void **state) {
    struct world w;
    char name[64];

    (void) state;
    world_init(&w);
    assert_int_equal(world_open(&w), 0);
    assert_int_equal(world_append(&w, 1, 100, 100), 0);
    assert_int_equal(world_sync(&w), 0);
    w.wal = wal_close(w.wal);
    w.o.synced_hint = 100;
    reopen(&w);
    assert_int_equal(wal_truncate(w.wal, 51, &w.err), 0);
    w.written = 50;
    reopen(&w);
    w.wal = wal_close(w.wal);
    w.o.synced_hint = 50;
    for (size_t i = 0; sim_disk_name(w.disk, i);) {
        (void) snprintf(name, sizeof(name), "%s", sim_disk_name(w.disk, i));
        if (strncmp(name, "wal-", 4) == 0)
            assert_true(sim_disk_remove(w.disk, name));
        else
            i++;
    }
    assert_int_equal(world_open(&w), ERR_CORRUPT);
    world_done(&w);
}

/* Goal: an old copy of the newest file, put back, ends before what the state contains: refused, and
 * nothing was touched, so that with the right file the log opens. */
static void test_state_index(void **state) {
    static uint8_t right[WORLD_SEGMENT_BYTES], old[WORLD_SEGMENT_BYTES];
    struct world w;
    uint64_t len = 0, ops;
    uint8_t *b;
    char name[64];

    (void) state;
    world_init(&w);
    assert_int_equal(world_open(&w), 0);
    (void) snprintf(name, sizeof(name), "wal-%016x.log", 1);
    assert_int_equal(world_append(&w, 1, 5, 100), 0);
    assert_int_equal(world_sync(&w), 0);
    b = sim_disk_bytes(w.disk, name, &len);
    assert_non_null(b);
    assert_int_equal(len, WORLD_SEGMENT_BYTES);
    memcpy(old, b, len);
    assert_int_equal(world_append(&w, 1, 5, 100), 0);
    assert_int_equal(world_sync(&w), 0);
    w.wal = wal_close(w.wal);
    b = sim_disk_bytes(w.disk, name, &len);
    memcpy(right, b, len);
    memcpy(b, old, len);
    w.o.state_index = 6; /* one is enough */
    ops = sim_disk_count(w.disk, SIM_DISK_PWRITE);
    assert_int_equal(world_open(&w), ERR_CORRUPT);
    assert_non_null(strstr(w.err.s, "the log ends at 5 but the state has applied 6"));
    w.o.state_index = 10;
    assert_int_equal(world_open(&w), ERR_CORRUPT);
    assert_non_null(strstr(w.err.s, "the log ends at 5 but the state has applied 10"));
    assert_int_equal(sim_disk_count(w.disk, SIM_DISK_PWRITE), ops);
    b = sim_disk_bytes(w.disk, name, &len);
    assert_non_null(b);
    memcpy(b, right, len);
    assert_int_equal(world_open(&w), 0);
    assert_int_equal(w.got_last, 10);
    world_done(&w);
}

static void newest_name(const struct world *w, char name[64]) {
    const char *n;

    name[0] = 0;
    for (size_t i = 0; (n = sim_disk_name(w->disk, i)); i++)
        if (strncmp(n, "wal-", 4) == 0 && strcmp(n, name) > 0)
            (void) snprintf(name, 64, "%s", n);
    assert_int_not_equal(name[0], 0);
}

/* Refused, and no file was touched. */
static void assert_refused(struct world *w, const char *file, const char *why) {
    uint64_t writes = sim_disk_count(w->disk, SIM_DISK_PWRITE);
    uint64_t renames = sim_disk_count(w->disk, SIM_DISK_RENAME);

    assert_int_equal(world_open(w), ERR_CORRUPT);
    assert_null(w->wal);
    assert_non_null(strstr(w->err.s, file));
    assert_non_null(strstr(w->err.s, why));
    assert_int_equal(sim_disk_count(w->disk, SIM_DISK_PWRITE), writes);
    assert_int_equal(sim_disk_count(w->disk, SIM_DISK_RENAME), renames);
}

/* Goal: the newest file gone is no earlier end of the log, whether it was begun by a full segment,
 * a reset or a restart. Method: with the place that was durable, taken as soon as it had its name;
 * all files gone as well. With the file put back the log opens. */
static void test_newest_missing(void **state) {
    static uint8_t right[WORLD_SEGMENT_BYTES];

    (void) state;
    for (int how = 0; how < 4; how++) {
        struct world w;
        char name[64];
        uint64_t len = 0;
        const uint8_t *b;

        world_init(&w);
        w.use_hint = true;
        assert_int_equal(world_open(&w), 0);
        assert_int_equal(world_append(&w, 1, 10, 100), 0);
        assert_int_equal(world_sync(&w), 0);
        if (how == 1)
            assert_int_equal(world_reset(&w, 20, 1), 0);
        else if (how == 2)
            reopen(&w);
        while (how == 3 && w.at.seq == 1) {
            assert_int_equal(world_append(&w, 1, 10, 1000), 0);
            assert_int_equal(world_sync(&w), 0);
        }
        w.at = wal_synced_at(w.wal);
        w.hint = 0; /* that of the index is older */
        w.wal = wal_close(w.wal);
        newest_name(&w, name);
        b = sim_disk_bytes(w.disk, name, &len);
        assert_int_equal(len, WORLD_SEGMENT_BYTES);
        memcpy(right, b, len);
        assert_true(sim_disk_remove(w.disk, name));
        assert_refused(&w, name, "segment file is missing");
        assert_true(sim_disk_put(w.disk, name, right, len));
        assert_int_equal(world_open(&w), 0);
        world_accept(&w);
        world_done(&w);
    }
}

/* A restart has copied the only segment: have the files as before it. */
static uint8_t *undo_restart(struct world *w, const uint8_t *bytes, uint64_t len) {
    char name[64];

    w->wal = wal_close(w->wal);
    newest_name(w, name);
    assert_true(sim_disk_remove(w->disk, name));
    (void) snprintf(name, sizeof(name), "wal-%016x.log", 1);
    assert_true(sim_disk_put(w->disk, name, bytes, len));
    return sim_disk_bytes(w->disk, name, &len);
}

/* Goal: nothing before the place is a torn tail: not an old copy of the newest file, not one byte
 * that has changed, not a file that ends there. What is behind it may be torn, as ever. Method: one
 * batch a record, the place after the fourth of six, the records of two of them cut again before.
 */
static void test_newest_old_or_damaged(void **state) {
    static uint8_t old[6][WORLD_SEGMENT_BYTES], right[WORLD_SEGMENT_BYTES];
    struct wal_position at = {0};
    unsigned harmless = 0;
    struct world w;
    char name[64];
    uint64_t len = 0;
    uint8_t *b;

    (void) state;
    world_init(&w);
    assert_int_equal(world_open(&w), 0);
    newest_name(&w, name);
    for (uint64_t i = 0; i < 6; i++) {
        memcpy(old[i], sim_disk_bytes(w.disk, name, &len), WORLD_SEGMENT_BYTES);
        if (i == 2) { /* the length is the same again after the next one: the chain is not */
            assert_int_equal(wal_truncate(w.wal, 2, &w.err), 0);
            w.written = 1;
        }
        assert_int_equal(world_append(&w, 1 + i / 2, 1, 100), 0);
        assert_int_equal(world_sync(&w), 0);
        if (i == 3)
            at = wal_synced_at(w.wal);
    }
    w.wal = wal_close(w.wal);
    memcpy(right, sim_disk_bytes(w.disk, name, &len), WORLD_SEGMENT_BYTES);
    w.use_hint = true;
    w.hint = 0;
    w.at = at;
    b = sim_disk_bytes(w.disk, name, &len);
    for (size_t i = 0; i < 4; i++) {
        memcpy(b, old[i], len);
        assert_refused(&w, name, "a damaged or old file");
    }
    for (uint32_t i = WAL_HEADER_BYTES; i < at.end; i++) {
        memcpy(b, right, len);
        b[i] ^= 0x10;
        memset(b + at.end, 0, len - at.end); /* nothing behind it vouches */
        if (world_open(&w) == 0) {           /* a byte that means nothing, behind the data */
            assert_true(right[i] == 0 && !w.bad_content && w.got_last == 3);
            b = undo_restart(&w, right, len);
            harmless++;
        }
    }
    assert_true(harmless <= 5 * 7);
    for (size_t i = 4; i < 6; i++) { /* the window that stays */
        memcpy(b, old[i], len);
        w.at = at;
        w.acked = i == 4 ? 3 : 4;
        w.written = 5;
        assert_int_equal(world_open(&w), 0);
        assert_int_equal(w.got_last, i == 4 ? 3 : 4);
        b = undo_restart(&w, right, len);
    }
    at.crc ^= 1; /* another chain of the same length */
    w.at = at;
    assert_refused(&w, name, "a damaged or old file");
    world_done(&w);
}

/* Goal: a commit is one write and one sync, whatever the number of records (W20). */
static void test_group_commit(void **state) {
    struct world w;

    (void) state;
    world_init(&w);
    assert_int_equal(world_open(&w), 0);
    for (size_t n = 1; n <= 128; n *= 2) {
        uint64_t ops = sim_disk_count(w.disk, SIM_DISK_ANY);

        assert_int_equal(world_append(&w, 1, n, 8), 0);
        assert_int_equal(world_sync(&w), 0);
        assert_int_equal(sim_disk_count(w.disk, SIM_DISK_ANY) - ops, 2);
        assert_int_equal(wal_synced_index(w.wal), w.written);
    }
    world_done(&w);
}

/* Goal: W10, W16. A record is valid only at the offset, in the segment and in the use of the file
 * it was written for, in each of which it differs by one; and with no bit of it changed. */
static void test_record_is_bound_to_its_place(void **state) {
    const struct wal_place at = {.seq = 5, .use = 9, .offset = 8192, .segment_bytes = 65536};
    uint8_t b[WAL_RECORD_HEADER_BYTES + 16] = {0};
    struct wal_frame f = {.index = 3,
                          .term = 2,
                          .len = 16,
                          .synced = 4096,
                          .kind = WAL_KIND_DATA,
                          .type = 1,
                          .data = b + WAL_RECORD_HEADER_BYTES};
    struct wal_frame got;

    (void) state;
    wal_format_record_encode(&f, &at, b);
    assert_int_equal(wal_format_record_parse(b, sizeof(b), &at, &got), WAL_PARSE_OK);
    assert_int_equal(got.index, 3);
    for (uint32_t bit = 0; bit < 60; bit++) {
        struct wal_place x = at;

        x.seq ^= 1ULL << bit;
        assert_int_equal(wal_format_record_parse(b, sizeof(b), &x, &got), WAL_PARSE_BAD);
        x = at;
        x.use ^= 1ULL << bit;
        assert_int_equal(wal_format_record_parse(b, sizeof(b), &x, &got), WAL_PARSE_BAD);
        x = at;
        x.offset += 8 * (bit + 1);
        assert_int_equal(wal_format_record_parse(b, sizeof(b), &x, &got), WAL_PARSE_BAD);
    }
    for (uint32_t bit = 0; bit < sizeof(b) * 8; bit++) {
        b[bit / 8] ^= (uint8_t) (1U << bit % 8);
        assert_int_equal(wal_format_record_parse(b, sizeof(b), &at, &got), WAL_PARSE_BAD);
        b[bit / 8] ^= (uint8_t) (1U << bit % 8);
    }
    /* W18: a length past the limit or the segment's end is refused before it is used. */
    f.len = 65536 - 8192;
    put_le32(b, f.len);
    assert_int_equal(wal_format_record_parse(b, sizeof(b), &at, &got), WAL_PARSE_BAD);
    put_le32(b, UINT32_MAX);
    assert_int_equal(wal_format_record_parse(b, sizeof(b), &at, &got), WAL_PARSE_BAD);
}

/* Goal: W10. A file begun twice under one sequence number (the first recovery was cut before the
 * new segment got its name) gets another use number, so the first attempt's records are stale. */
static void test_use_number_grows(void **state) {
    struct world w;
    struct wal_segment_header h;
    struct rng g = rng_seed(1);
    uint64_t len = 0;

    (void) state;
    world_init(&w);
    assert_int_equal(world_open(&w), 0);
    assert_int_equal(world_append(&w, 1, 10, 100), 0);
    assert_int_equal(world_sync(&w), 0);
    w.wal = wal_close(w.wal);
    for (int i = 0; i < 3; i++) {
        sim_disk_set_fault(w.disk, (struct sim_disk_fault){.op = SIM_DISK_RENAME,
                                                           .nth = i == 0 ? 2 : 1,
                                                           .effect = SIM_DISK_CRASH});
        assert_int_equal(world_open(&w), ERR_CRASHED);
        sim_disk_crash(w.disk, &g, SIM_DISK_KEEP_SECTORS);
    }
    assert_int_equal(world_open(&w), 0);
    assert_int_equal(w.got_last, 10);
    assert_int_equal(
        wal_format_header_decode(sim_disk_bytes(w.disk, "wal-0000000000000002.log", &len), &h), 0);
    assert_int_equal(h.use, 4);
    world_done(&w);
}

/* Goal: W10. A spare whose header is damaged says nothing about its earlier uses: all of it is
 * zeroed before it becomes a segment. Method: damage the spares, which are full of old records. */
static void test_unknown_spare_is_zeroed(void **state) {
    struct world w;
    uint64_t len = 0;
    const char *name;
    size_t damaged = 0;

    (void) state;
    world_init(&w);
    assert_int_equal(world_open(&w), 0);
    while (wal_bytes(w.wal) < 5 * WORLD_SEGMENT_BYTES)
        assert_int_equal(world_append(&w, 1, 10, 500), 0);
    assert_int_equal(wal_release(w.wal, w.written, 0, &w.err), 0);
    for (size_t i = 0; (name = sim_disk_name(w.disk, i)) != NULL; i++) {
        if (strncmp(name, "spare-", 6) != 0)
            continue;
        sim_disk_bytes(w.disk, name, &len)[20] ^= 1;
        damaged++;
    }
    assert_true(damaged >= 2);
    len = wal_bytes(w.wal);
    while (wal_bytes(w.wal) == len)
        assert_int_equal(world_append(&w, 1, 1, 500), 0);
    assert_int_equal(world_sync(&w), 0);
    for (size_t i = 0; (name = sim_disk_name(w.disk, i)) != NULL; i++) {
        const uint8_t *b = sim_disk_bytes(w.disk, name, &len);
        struct wal_segment_header h;

        if (wal_format_header_decode(b, &h) != 0 || h.seq != 6)
            continue;
        assert_int_equal(h.use, 1);
        for (uint64_t at = 2 * WAL_HEADER_BYTES; at < len; at++)
            assert_int_equal(b[at], 0);
        damaged = 0;
    }
    assert_int_equal(damaged, 0);
    world_done(&w);
}

/* Goal: a release gives back what is before the segment that it stands in, at most; one that names
 * a later segment is no record, or the log would lose itself at the start after the next. */
static void test_release_names_what_is_there(void **state) {
    const struct wal_place at = {
        .seq = 5, .use = 1, .offset = WAL_HEADER_BYTES, .segment_bytes = WORLD_SEGMENT_BYTES};
    static const struct {
        uint64_t oldest;
        enum wal_parse want;
    } cases[] = {
        {1, WAL_PARSE_OK}, {5, WAL_PARSE_OK}, {6, WAL_PARSE_BAD}, {UINT64_MAX, WAL_PARSE_BAD}};

    (void) state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        uint8_t data[WAL_RELEASE_BYTES], b[WAL_RECORD_HEADER_BYTES + WAL_RELEASE_BYTES];
        struct wal_frame f = {.kind = WAL_KIND_RELEASE,
                              .len = sizeof(data),
                              .data = data,
                              .synced = WAL_HEADER_BYTES},
                         got;

        put_le64(data, cases[i].oldest);
        wal_format_record_encode(&f, &at, b);
        memcpy(b + WAL_RECORD_HEADER_BYTES, data, sizeof(data));
        assert_int_equal(wal_format_record_parse(b, sizeof(b), &at, &got), cases[i].want);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_release_names_what_is_there),
        cmocka_unit_test(test_empty),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_truncate),
        cmocka_unit_test(test_release),
        cmocka_unit_test(test_restarts_bounded),
        cmocka_unit_test(test_large_records),
        cmocka_unit_test(test_spares_in_steps),
        cmocka_unit_test(test_foreign_and_newer),
        cmocka_unit_test(test_hint),
        cmocka_unit_test(test_newest_missing),
        cmocka_unit_test(test_newest_old_or_damaged),
        cmocka_unit_test(test_state_index),
        cmocka_unit_test(test_group_commit),
        cmocka_unit_test(test_record_is_bound_to_its_place),
        cmocka_unit_test(test_use_number_grows),
        cmocka_unit_test(test_unknown_spare_is_zeroed),
    };

    return cmocka_run_group_tests_name("wal", tests, NULL, NULL);
}
