/* Term and vote: never forgotten, never invented (W2). */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/codec.h"
#include "base/crc32c.h"
#include "sim/sim_disk.h"
#include "storage/meta.h"

#define SLOT_BYTES 4096U

static const struct meta_state first = {
    .cluster_id = {9, 8, 7}, .node_id = 3, .incarnation = {1, 2, [15] = 3}};

static void world_new(struct sim_disk **ret_d, struct meta **ret_m) {
    struct errtext e;

    assert_int_equal(sim_disk_new(ret_d), 0);
    assert_int_equal(meta_create(sim_disk_interface(*ret_d), &first, ret_m, &e), 0);
}

/* Goal: what was saved comes back; a new directory is told apart; creating twice is refused. */
static void test_round_trip(void **state) {
    struct sim_disk *d = NULL;
    struct meta *m = NULL;
    struct meta_state s = {0};
    struct errtext e;

    (void) state;
    assert_int_equal(sim_disk_new(&d), 0);
    assert_int_equal(meta_open(sim_disk_interface(d), &m, &s, &e), META_MISSING);
    assert_null(m);
    assert_int_equal(meta_create(sim_disk_interface(d), &first, &m, &e), 0);
    m = meta_close(m);
    assert_int_equal(meta_create(sim_disk_interface(d), &first, &m, &e), -EEXIST);
    for (uint64_t term = 1; term < 20; term++) {
        assert_int_equal(meta_open(sim_disk_interface(d), &m, &s, &e), 0);
        assert_int_equal(s.term, term - 1);
        assert_int_equal(s.vote, (term - 1) % 4);
        assert_int_equal(s.synced_index, (term - 1) * 100);
        assert_memory_equal(s.cluster_id, first.cluster_id, sizeof(s.cluster_id));
        assert_int_equal(s.node_id, 3);
        assert_memory_equal(s.incarnation, first.incarnation, sizeof(s.incarnation));
        assert_int_equal(meta_save(m, term, term % 4, term * 100, &e), 0);
        m = meta_close(m);
    }
    assert_int_equal(sim_disk_open_handles(d), 0);
    d = sim_disk_free(d);
}

/* Goal: a file from before there was an incarnation reads as one with none, and keeps none. Method:
 * a slot as it was written then, byte by byte. */
static void test_before_incarnation(void **state) {
    struct sim_disk *d = NULL;
    struct meta *m = NULL;
    struct meta_state s = {0};
    struct errtext e;
    static const uint8_t zero[16];
    uint64_t len = 0;
    uint8_t *b;

    (void) state;
    world_new(&d, &m);
    m = meta_close(m);
    assert_true(sim_disk_remove(d, "meta-copy")); /* nor was that there */
    b = sim_disk_bytes(d, "meta", &len);
    memset(b, 0, 2 * SLOT_BYTES);
    memcpy(b, "CHRNMETA", 8);
    b[8] = 1;              /* version */
    b[16] = 5;             /* generation */
    memset(b + 24, 7, 16); /* cluster */
    b[40] = 2;             /* node */
    b[48] = 9;             /* term */
    b[56] = 2;             /* vote */
    b[64] = 77;            /* synced index */
    put_le32(b + 12, crc32c_extend(crc32c(b, 12), b + 16, SLOT_BYTES - 16));
    assert_int_equal(meta_open(sim_disk_interface(d), &m, &s, &e), 0);
    assert_int_equal(s.term, 9);
    assert_int_equal(s.synced_index, 77);
    assert_memory_equal(s.incarnation, zero, sizeof(zero));
    assert_int_equal(s.log.seq, 0); /* nor was this: unknown */
    assert_int_equal(meta_save(m, 10, 0, 78, &e), 0);
    m = meta_close(m);
    assert_int_equal(meta_open(sim_disk_interface(d), &m, &s, &e), 0);
    assert_int_equal(s.term, 10);
    assert_memory_equal(s.incarnation, zero, sizeof(zero));
    m = meta_close(m);
    d = sim_disk_free(d);
}

/* Goal: the place of the log is kept with the rest, goes with the next save and no sooner, and
 * comes back from the copy as well. */
static void test_log_position(void **state) {
    struct sim_disk *d = NULL;
    struct meta *m = NULL;
    struct meta_state s = {0};
    struct errtext e;
    uint64_t writes;

    (void) state;
    world_new(&d, &m);
    for (uint64_t i = 1; i < 9; i++) {
        writes = sim_disk_count(d, SIM_DISK_PWRITE);
        meta_note_log(
            m, (struct wal_position){.seq = i / 2, .end = 4096 + 8U * (uint32_t) i, .crc = 7});
        assert_int_equal(sim_disk_count(d, SIM_DISK_PWRITE), writes);
        assert_int_equal(meta_save(m, 3, 1, i, &e), 0);
        m = meta_close(m);
        if (i % 3 == 0)
            sim_disk_bytes(d, "meta", &writes)[i % 2 * SLOT_BYTES + 60] ^= 1;
        assert_int_equal(meta_open(sim_disk_interface(d), &m, &s, &e), 0);
        assert_int_equal(s.log.seq, i / 2);
        assert_int_equal(s.log.end, 4096 + 8 * i);
        assert_int_equal(s.log.crc, 7);
        assert_int_equal(meta_log(m).end, s.log.end);
        assert_int_equal(s.term, 3);
    }
    m = meta_close(m);
    d = sim_disk_free(d);
}

/* Goal: inspection tells what each slot holds and writes nothing. */
static void test_inspect(void **state) {
    struct meta_inspect_slot slots[2];
    struct sim_disk *d = NULL;
    struct meta *m = NULL;
    struct errtext e;
    uint64_t len = 0;
    uint64_t writes;

    (void) state;
    assert_int_equal(sim_disk_new(&d), 0);
    assert_int_equal(meta_inspect(sim_disk_interface(d), slots, &e), META_MISSING);
    assert_int_equal(meta_create(sim_disk_interface(d), &first, &m, &e), 0);
    assert_int_equal(meta_save(m, 5, 1, 50, &e), 0);
    m = meta_close(m);
    writes = sim_disk_count(d, SIM_DISK_PWRITE);
    assert_int_equal(meta_inspect(sim_disk_interface(d), slots, &e), 0);
    assert_int_equal(slots[0].rc, 0);
    assert_int_equal(slots[0].state.term, 0);
    assert_int_equal(slots[1].rc, 0);
    assert_int_equal(slots[1].state.term, 5);
    assert_int_equal(slots[1].generation, slots[0].generation + 1);
    assert_memory_equal(slots[1].state.incarnation, first.incarnation, 16);
    sim_disk_bytes(d, "meta", &len)[SLOT_BYTES + 60] ^= 1;
    assert_int_equal(meta_inspect(sim_disk_interface(d), slots, &e), 0);
    assert_int_equal(slots[0].rc, 0);
    assert_int_equal(slots[1].rc, ERR_CORRUPT);
    assert_true(sim_disk_resize(d, "meta", 100));
    assert_int_equal(meta_inspect(sim_disk_interface(d), slots, &e), 0);
    assert_int_equal(slots[0].rc, ERR_CORRUPT);
    sim_disk_set_fault(d,
                       (struct sim_disk_fault){
                           .op = SIM_DISK_PREAD, .nth = 1, .effect = SIM_DISK_FAIL, .err = -EIO});
    assert_int_equal(meta_inspect(sim_disk_interface(d), slots, &e), -EIO);
    assert_int_equal(sim_disk_count(d, SIM_DISK_PWRITE), writes);
    assert_int_equal(sim_disk_open_handles(d), 0);
    d = sim_disk_free(d);
}

/* Create and save terms 1..20; *saved is the last one known durable. */
static int scenario(struct sim_disk *d, struct meta **m, uint64_t *saved, bool *created) {
    struct errtext e;
    int r = meta_create(sim_disk_interface(d), &first, m, &e);

    *created = r == 0;
    for (uint64_t term = 1; r == 0 && term <= 20; term++) {
        r = meta_save(*m, term, 1 + term % 3, term, &e);
        if (r == 0)
            *saved = term;
    }
    return r;
}

/* Goal: a power cut at each call in each model: the state is the last saved or the one being saved,
 * complete; a file that was being created may be missing, never half there. */
static void test_cut_at_every_call(void **state) {
    uint64_t runs = 0;

    (void) state;
    for (uint64_t nth = 1;; nth++) {
        bool hit = true;

        for (int v = 0; v < SIM_DISK_MODELS * 2 * 8; v++) {
            struct sim_disk *d = NULL;
            struct meta *m = NULL;
            struct meta_state s = {0};
            struct errtext e;
            struct rng g = rng_seed(nth * 1000 + (uint64_t) v);
            uint64_t saved = 0;
            bool created;
            int r;

            assert_int_equal(sim_disk_new(&d), 0);
            sim_disk_set_fault(
                d, (struct sim_disk_fault){.op = SIM_DISK_ANY,
                                           .nth = nth,
                                           .effect = v % 2 ? SIM_DISK_CRASH_MID : SIM_DISK_CRASH});
            r = scenario(d, &m, &saved, &created);
            hit = sim_disk_fault_hit(d);
            assert_int_equal(r, hit ? ERR_CRASHED : 0);
            m = meta_close(m);
            sim_disk_crash(d, &g, (enum sim_disk_model)(v / 2 % SIM_DISK_MODELS));
            /* And once more while it is opened. */
            sim_disk_set_fault(d, (struct sim_disk_fault){.op = SIM_DISK_ANY,
                                                          .nth = 1 + rng_below(&g, 5),
                                                          .effect = SIM_DISK_CRASH_MID});
            r = meta_open(sim_disk_interface(d), &m, &s, &e);
            m = meta_close(m);
            sim_disk_crash(d, &g, (enum sim_disk_model) rng_below(&g, SIM_DISK_MODELS));
            r = meta_open(sim_disk_interface(d), &m, &s, &e);
            if (r == META_MISSING) {
                assert_false(created);
            } else {
                assert_int_equal(r, 0);
                assert_true(s.term == saved || s.term == saved + 1);
                assert_int_equal(s.synced_index, s.term);
                assert_int_equal(s.vote, s.term == 0 ? 0 : 1 + s.term % 3);
                assert_int_equal(s.node_id, 3);
                assert_memory_equal(s.incarnation, first.incarnation, sizeof(s.incarnation));
            }
            m = meta_close(m);
            d = sim_disk_free(d);
            runs++;
        }
        if (!hit)
            break;
    }
    assert_true(runs > 4000);
}

/* Goal: W3. A failed sync ends it; after a restart what was read is made durable before it counts.
 */
static void test_failed_sync(void **state) {
    (void) state;
    for (uint64_t k = 1; k <= 20; k++) {
        for (int drops = 0; drops < 2; drops++) {
            struct sim_disk *d = NULL;
            struct meta *m = NULL;
            struct meta_state s = {0};
            struct meta_state again = {0};
            struct errtext e;
            struct rng g = rng_seed(k);
            uint64_t saved = 0;
            bool created;

            assert_int_equal(sim_disk_new(&d), 0);
            sim_disk_set_fault(d, (struct sim_disk_fault){.op = SIM_DISK_DATASYNC,
                                                          .nth = k + 2, /* two at its birth */
                                                          .effect = drops ? SIM_DISK_SYNC_DROPS
                                                                          : SIM_DISK_SYNC_LIES,
                                                          .err = -EIO});
            assert_int_equal(scenario(d, &m, &saved, &created), -EIO);
            assert_int_equal(meta_save(m, 100, 1, 0, &e), -EIO);
            m = meta_close(m);
            sim_disk_kill(d);
            assert_int_equal(meta_open(sim_disk_interface(d), &m, &s, &e), 0);
            assert_true(s.term >= saved && s.term <= saved + 1);
            m = meta_close(m);
            sim_disk_crash(d, &g, SIM_DISK_KEEP_NONE);
            assert_int_equal(meta_open(sim_disk_interface(d), &m, &again, &e), 0);
            assert_int_equal(again.term, s.term);
            assert_int_equal(again.vote, s.vote);
            m = meta_close(m);
            d = sim_disk_free(d);
        }
    }
}

/* Goal: every bit of a slot damaged: nothing is forgotten, because the copy has it. Both damaged:
 * refused, and never a beginning at term 0. */
static void test_damage(void **state) {
    struct sim_disk *whole = NULL;
    struct meta *m = NULL;
    struct errtext e;

    (void) state;
    world_new(&whole, &m);
    assert_int_equal(meta_save(m, 5, 1, 50, &e), 0);
    assert_int_equal(meta_save(m, 6, 2, 60, &e), 0);
    m = meta_close(m);
    for (uint32_t bit = 0; bit < 2 * SLOT_BYTES * 8;
         bit += bit % (SLOT_BYTES * 8) < 80 * 8 ? 1 : 61) {
        struct sim_disk *d = sim_disk_clone(whole);
        struct meta_state s = {0};
        uint64_t len = 0;
        uint8_t *b;

        assert_non_null(d);
        b = sim_disk_bytes(d, "meta", &len);
        b[bit / 8] ^= (uint8_t) (1U << bit % 8);
        assert_int_equal(meta_open(sim_disk_interface(d), &m, &s, &e), 0);
        assert_int_equal(s.term, 6);
        assert_int_equal(s.vote, 2);
        assert_true(meta_repaired(m) == (bit < SLOT_BYTES * 8));
        m = meta_close(m);
        b = sim_disk_bytes(d, "meta", &len);
        b[7] ^= 1;
        b[SLOT_BYTES + 100] ^= 1;
        if (bit < SLOT_BYTES * 8)
            b[9] ^= 1;
        assert_int_equal(meta_open(sim_disk_interface(d), &m, &s, &e), ERR_CORRUPT);
        assert_null(m);
        assert_non_null(strstr(e.s, "meta"));
        d = sim_disk_free(d);
    }
    for (uint64_t size = 0; size < 2 * SLOT_BYTES; size += 509) {
        struct sim_disk *d = sim_disk_clone(whole);
        struct meta_state s = {0};

        assert_non_null(d);
        assert_true(sim_disk_resize(d, "meta", size));
        assert_int_equal(meta_open(sim_disk_interface(d), &m, &s, &e),
                         size < SLOT_BYTES ? ERR_CORRUPT : 0);
        m = meta_close(m);
        d = sim_disk_free(d);
    }
    whole = sim_disk_free(whole);
}

static void put(struct sim_disk *d, const char *name, const uint8_t *bytes) {
    assert_true(sim_disk_put(d, name, bytes, 2UL * SLOT_BYTES));
}

static void keep(struct sim_disk *d, const char *name, uint8_t *bytes) {
    uint64_t len = 0;
    const uint8_t *b = sim_disk_bytes(d, name, &len);

    assert_non_null(b);
    assert_int_equal(len, 2 * SLOT_BYTES);
    memcpy(bytes, b, 2UL * SLOT_BYTES);
}

/* Goal: an old copy of either file put back forgets no vote; one that is missing is made again, or
 * refused when it is the first; a copy of another directory is refused. */
static void test_one_file(void **state) {
    static uint8_t old_main[2 * SLOT_BYTES], old_copy[2 * SLOT_BYTES], now[2 * SLOT_BYTES];
    struct sim_disk *d = NULL;
    struct meta *m = NULL;
    struct meta_state s = {0};
    struct errtext e;

    (void) state;
    world_new(&d, &m);
    keep(d, "meta", old_main);
    keep(d, "meta-copy", old_copy);
    for (uint64_t term = 5; term < 9; term++)
        assert_int_equal(meta_save(m, term, 3, term * 10, &e), 0);
    m = meta_close(m);
    put(d, "meta", old_main);
    assert_int_equal(meta_open(sim_disk_interface(d), &m, &s, &e), 0);
    assert_int_equal(s.term, 8);
    assert_int_equal(s.vote, 3);
    assert_int_equal(s.synced_index, 80);
    assert_true(meta_repaired(m));
    m = meta_close(m);
    put(d, "meta-copy", old_copy); /* the file itself has been repaired for good */
    assert_int_equal(meta_open(sim_disk_interface(d), &m, &s, &e), 0);
    assert_int_equal(s.term, 8);
    assert_false(meta_repaired(m));
    m = meta_close(m);
    put(d, "meta", old_main); /* and so has the copy */
    assert_int_equal(meta_open(sim_disk_interface(d), &m, &s, &e), 0);
    assert_int_equal(s.term, 8);
    m = meta_close(m);
    assert_true(sim_disk_remove(d, "meta-copy"));
    assert_int_equal(meta_open(sim_disk_interface(d), &m, &s, &e), 0);
    assert_int_equal(s.term, 8);
    m = meta_close(m);
    keep(d, "meta-copy", now);
    now[24] ^= 1; /* another cluster's */
    put_le32(now + 12, crc32c_extend(crc32c(now, 12), now + 16, SLOT_BYTES - 16));
    put(d, "meta-copy", now);
    assert_int_equal(meta_open(sim_disk_interface(d), &m, &s, &e), ERR_CORRUPT);
    assert_non_null(strstr(e.s, "meta-copy"));
    assert_true(sim_disk_remove(d, "meta"));
    assert_int_equal(meta_open(sim_disk_interface(d), &m, &s, &e), ERR_CORRUPT);
    assert_non_null(strstr(e.s, "missing"));
    d = sim_disk_free(d);
}

/* Goal: W4. Each call fails in turn with each error: that error, no leak, and the state stays. */
static void test_nth_failure(void **state) {
    static const int errors[] = {-EIO, -ENOSPC, -EROFS, -EMFILE, -EINTR};

    (void) state;
    for (size_t i = 0; i < ARRAY_LEN(errors); i++) {
        bool hit = true;

        for (uint64_t nth = 1; hit; nth++) {
            struct sim_disk *d = NULL;
            struct meta *m = NULL;
            struct meta_state s = {0};
            struct errtext e;
            uint64_t saved = 0;
            bool created;
            int r;

            assert_int_equal(sim_disk_new(&d), 0);
            sim_disk_set_fault(
                d, (struct sim_disk_fault){
                       .op = SIM_DISK_ANY, .nth = nth, .effect = SIM_DISK_FAIL, .err = errors[i]});
            r = scenario(d, &m, &saved, &created);
            hit = sim_disk_fault_hit(d);
            sim_disk_clear_fault(d);
            assert_int_equal(r, hit ? errors[i] : 0);
            m = meta_close(m);
            assert_int_equal(sim_disk_open_handles(d), 0);
            r = meta_open(sim_disk_interface(d), &m, &s, &e);
            assert_true(r == 0 || (r == META_MISSING && !created));
            assert_true(r != 0 || s.term >= saved);
            m = meta_close(m);
            d = sim_disk_free(d);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),   cmocka_unit_test(test_cut_at_every_call),
        cmocka_unit_test(test_failed_sync),  cmocka_unit_test(test_damage),
        cmocka_unit_test(test_nth_failure),  cmocka_unit_test(test_before_incarnation),
        cmocka_unit_test(test_inspect),      cmocka_unit_test(test_one_file),
        cmocka_unit_test(test_log_position),
    };

    return cmocka_run_group_tests_name("meta", tests, NULL, NULL);
}
