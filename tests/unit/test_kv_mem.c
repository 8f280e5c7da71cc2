/* The store in memory against a sorted array. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rand.h"
#include "nth_memory.h"
#include "storage/kv_mem.h"

#define KEYS 300U

/* value[i] = 0: the key is absent. */
struct model {
    uint64_t value[KEYS];
};

/* Key number to bytes: lengths 1..3, so that some are prefixes of others; order is by number. */
static struct slice key_of(uint32_t n, uint8_t out[3]) {
    out[0] = (uint8_t) (n / 30);
    out[1] = (uint8_t) (n / 5 % 6);
    out[2] = (uint8_t) (n % 5);
    return slice_of(out, n % 30 == 0 ? 1 : n % 5 == 0 ? 2 : 3);
}

static void check_get(struct kv *kv, const struct model *m, uint32_t n) {
    struct buf b;
    uint8_t k[3];
    int r;

    buf_init(&b, 100);
    r = kv->ops->get(kv, key_of(n, k), &b);
    assert_int_equal(r, m->value[n] ? 0 : KV_NOT_FOUND);
    assert_int_equal(b.len, m->value[n] ? 8 : 0);
    if (m->value[n])
        assert_memory_equal(b.data, &m->value[n], 8);
    buf_done(&b);
}

static void check_at(struct kv_iter *it, const struct model *m, uint32_t n, bool there) {
    uint8_t k[3];
    struct slice want;

    assert_int_equal(it->ops->valid(it), there);
    if (!there)
        return;
    want = key_of(n, k);
    assert_int_equal(it->ops->key(it).len, want.len);
    assert_memory_equal(it->ops->key(it).data, want.data, want.len);
    assert_memory_equal(it->ops->value(it).data, &m->value[n], 8);
}

/* Walk forward and backward over everything; seek from a random key both ways. */
static void check_iter(struct kv *kv, const struct model *m, uint32_t from) {
    struct kv_iter *it = NULL;
    uint8_t k[3];
    uint32_t up = from;
    uint32_t down = from;

    assert_int_equal(kv->ops->iter_open(kv, &it), 0);
    it->ops->seek(it, slice_of("", 0));
    for (uint32_t n = 0; n < KEYS; n++) {
        if (!m->value[n])
            continue;
        check_at(it, m, n, true);
        it->ops->next(it);
    }
    assert_false(it->ops->valid(it));
    it->ops->seek_for_prev(it, slice_of("\xff", 1));
    for (uint32_t n = KEYS; n-- > 0;) {
        if (!m->value[n])
            continue;
        check_at(it, m, n, true);
        it->ops->prev(it);
    }
    assert_false(it->ops->valid(it));
    while (up < KEYS && !m->value[up])
        up++;
    it->ops->seek(it, key_of(from, k));
    check_at(it, m, up, up < KEYS);
    while (down > 0 && !m->value[down])
        down--;
    it->ops->seek_for_prev(it, key_of(from, k));
    check_at(it, m, down, m->value[down] != 0);
    assert_int_equal(it->ops->status(it), 0);
    it->ops->close(it);
}

/* One random batch, in the store and, when @m is given, in the model. */
static int write_batch(struct kv *kv, struct model *m, struct rng *g, uint64_t *stamp) {
    struct kv_op ops[8];
    uint8_t keys[8][3];
    uint64_t values[8];
    struct model next = *m;
    size_t count = rng_below(g, 9);
    int r;

    for (size_t i = 0; i < count; i++) {
        uint32_t n = (uint32_t) rng_below(g, KEYS);

        values[i] = ++*stamp;
        ops[i] = (struct kv_op){
            .key = key_of(n, keys[i]), .value = slice_of(&values[i], 8), .del = rng_chance(g, 350)};
        next.value[n] = ops[i].del ? 0 : values[i];
    }
    r = kv->ops->write(kv, ops, count);
    if (r == 0)
        *m = next;
    return r;
}

/* Goal: get, iterators, batches, flush and crash agree with a sorted array. Method: random
 * operations, seeds 1..40; a crash keeps a random number of unflushed batches, and the model of
 * that moment must come back. */
static void test_model(void **state) {
    (void) state;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        static struct model history[600];
        struct rng g = rng_seed(seed);
        struct kv *kv = NULL;
        size_t auto_flush = seed % 3 == 0 ? 7 : 0;
        uint64_t stamp = 0;
        size_t n = 0; /* history[n] is now, history[0] the durable moment */

        memset(&history[0], 0, sizeof(history[0]));
        assert_int_equal(kv_mem_new(auto_flush, &kv), 0);
        for (int i = 0; i < 500; i++) {
            history[n + 1] = history[n];
            assert_int_equal(write_batch(kv, &history[n + 1], &g, &stamp), 0);
            n++;
            if (rng_chance(&g, 40) || n == auto_flush) {
                assert_int_equal(kv->ops->flush(kv), 0);
                history[0] = history[n];
                n = 0;
            }
            assert_int_equal(kv_mem_unflushed(kv), n);
            if (rng_chance(&g, 60)) {
                size_t keep = rng_below(&g, n + 2);

                kv_mem_crash(kv, keep);
                history[0] = history[MIN(keep, n)];
                n = 0;
            }
            check_get(kv, &history[n], (uint32_t) rng_below(&g, KEYS));
            if (rng_chance(&g, 100))
                check_iter(kv, &history[n], (uint32_t) rng_below(&g, KEYS));
        }
        kv->ops->close(kv);
    }
}

/* Goal: memory is out at the n-th allocation: the batch has happened whole or not at all. */
static void test_out_of_memory(void **state) {
    uint64_t failures = 0;

    (void) state;
    for (long n = 1; n < 3000; n++) {
        struct rng g = rng_seed(9);
        struct model m = {0};
        struct kv *kv = NULL;
        uint64_t stamp = 0;
        int r;

        nth_memory_begin(n);
        r = kv_mem_new(0, &kv);
        for (int i = 0; r == 0 && i < 40; i++)
            r = write_batch(kv, &m, &g, &stamp);
        nth_memory_end();
        assert_int_equal(r, nth_memory_failed ? -ENOMEM : 0);
        failures += nth_memory_failed ? 1 : 0;
        if (kv) {
            check_iter(kv, &m, 150);
            kv_mem_crash(kv, 0);
            memset(&m, 0, sizeof(m));
            check_iter(kv, &m, 150);
            kv->ops->close(kv);
        }
        if (!nth_memory_failed)
            break;
    }
    assert_true(failures > 300);
}

static void put(struct kv *kv, int (*write)(struct kv *, const struct kv_op *, size_t), uint32_t n,
                uint64_t value, struct model *m) {
    uint8_t k[3];
    struct kv_op op = {.key = key_of(n, k), .value = slice_of(&value, 8), .del = value == 0};

    assert_int_equal(write(kv, &op, 1), 0);
    m->value[n] = value;
}

static void check_view(struct kv_iter *it, const struct model *m) {
    it->ops->seek(it, slice_of("", 0));
    for (uint32_t n = 0; n < KEYS; n++) {
        if (!m->value[n])
            continue;
        check_at(it, m, n, true);
        it->ops->next(it);
    }
    assert_false(it->ops->valid(it));
    assert_int_equal(it->ops->status(it), 0);
}

/* Goal: an iterator shows what was there when it was opened, whatever is written, flushed or staged
 * afterwards. Method: several views of different moments at once, against models, seeds 1..20. */
static void test_views(void **state) {
    (void) state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        static struct model seen[6];
        struct kv_iter *views[6] = {0};
        struct rng g = rng_seed(seed);
        struct model now = {0};
        struct kv *kv = NULL;
        uint64_t stamp = 0;

        assert_int_equal(kv_mem_new(0, &kv), 0);
        for (int i = 0; i < 400; i++) {
            size_t v = rng_below(&g, ARRAY_LEN(views));

            assert_int_equal(write_batch(kv, &now, &g, &stamp), 0);
            if (!rng_chance(&g, 200))
                continue;
            if (views[v]) {
                check_view(views[v], &seen[v]);
                views[v]->ops->close(views[v]);
                views[v] = NULL;
            } else {
                assert_int_equal(kv->ops->iter_open(kv, &views[v]), 0);
                seen[v] = now;
            }
            if (rng_chance(&g, 300))
                assert_int_equal(kv->ops->flush(kv), 0);
        }
        for (size_t v = 0; v < ARRAY_LEN(views); v++) {
            if (!views[v])
                continue;
            check_view(views[v], &seen[v]);
            views[v]->ops->close(views[v]);
        }
        check_iter(kv, &now, 7);
        kv->ops->close(kv);
    }
}

/* Goal: the stage is a store of its own until adopted: not shown, gone by a crash before its
 * commit, there by a crash after it (whole, whatever the batches of the old one were), there after
 * adoption; begin drops what an earlier one left. Method: each step followed by a crash or not. */
static void test_stage(void **state) {
    (void) state;
    for (int stop = 0; stop < 8; stop++) {
        struct model old = {0}, durable = {0}, staged = {0}, ignored = {0};
        struct kv *kv = NULL;
        uint64_t before;

        assert_int_equal(kv_mem_new(0, &kv), 0);
        for (uint32_t n = 0; n < 50; n++)
            put(kv, kv->ops->write, n, n + 1, &old);
        assert_int_equal(kv->ops->flush(kv), 0);
        durable = old;
        before = kv->ops->disk_bytes(kv);
        assert_true(before > 50 * 8);
        if (stop >= 1) {
            assert_int_equal(kv->ops->stage_begin(kv), 0);
            put(kv, kv->ops->stage_write, 299, 5, &ignored);
            assert_true(kv->ops->disk_bytes(kv) > before);
            assert_int_equal(kv->ops->stage_begin(kv), 0);
            assert_int_equal(kv->ops->disk_bytes(kv), before);
        }
        if (stop >= 2)
            for (uint32_t n = 40; n < 60; n++)
                put(kv, kv->ops->stage_write, n, n + 100, &staged);
        put(kv, kv->ops->write, 3, 333, &old);
        check_iter(kv, &old, 20);
        if (stop == 3)
            kv->ops->stage_drop(kv);
        if (stop >= 4)
            assert_int_equal(kv->ops->stage_commit(kv), 0);
        assert_int_equal(kv_mem_stage_committed(kv), stop >= 4);
        if (stop == 5) /* what a replica may still write before it adopts */
            put(kv, kv->ops->write, 4, 444, &old);
        check_iter(kv, &old, 45);
        if (stop >= 6) {
            assert_int_equal(kv->ops->stage_adopt(kv), 0);
            check_iter(kv, &staged, 45);
            assert_int_equal(kv_mem_unflushed(kv), 0);
            durable = staged;
        }
        if (stop == 7) {
            put(kv, kv->ops->write, 1, 1, &staged);
            check_iter(kv, &staged, 45);
            assert_int_equal(kv_mem_unflushed(kv), 1);
        }
        kv_mem_crash(kv, 0);
        check_iter(kv, stop >= 4 && stop < 6 ? &staged : &durable, 30);
        assert_int_equal(kv_mem_unflushed(kv), 0);
        assert_false(kv_mem_stage_committed(kv));
        kv->ops->close(kv);
    }
}

/* Goal: damage to any one record is found by verify, get and iterators, also after a write has
 * replaced it and a crash has brought it back. */
static void test_damage(void **state) {
    (void) state;
    for (uint64_t nth = 0; nth < 20; nth++) {
        struct model m = {0}, unused = {0};
        struct kv *kv = NULL;
        struct kv_iter *it = NULL;
        struct errtext e = {0};
        struct buf b;
        uint8_t k[3];
        size_t met = 0;

        assert_int_equal(kv_mem_new(0, &kv), 0);
        assert_false(kv_mem_damage(kv, nth));
        for (uint32_t n = 0; n < 20; n++)
            put(kv, kv->ops->write, n, n + 1, &m);
        assert_int_equal(kv->ops->verify(kv, &e), 0);
        assert_int_equal(kv->ops->flush(kv), 0);
        assert_true(kv_mem_damage(kv, nth + 20));
        put(kv, kv->ops->write, (uint32_t) nth, 1000, &unused);
        assert_int_equal(kv->ops->verify(kv, &e), 0);
        kv_mem_crash(kv, 0);
        assert_int_equal(kv->ops->verify(kv, &e), ERR_CORRUPT);
        assert_non_null(strstr(e.s, "checksum"));
        buf_init(&b, 100);
        assert_int_equal(kv->ops->get(kv, key_of((uint32_t) nth, k), &b), ERR_CORRUPT);
        assert_int_equal(b.len, 0);
        buf_done(&b);
        assert_int_equal(kv->ops->iter_open(kv, &it), 0);
        for (it->ops->seek(it, slice_of("", 0)); it->ops->valid(it); it->ops->next(it))
            met++;
        assert_int_equal(met, nth);
        assert_int_equal(it->ops->status(it), ERR_CORRUPT);
        it->ops->close(it);
        kv->ops->close(kv);
    }
}

/* Goal: memory is out at the n-th allocation while a view is open and a stage is written: each call
 * has happened whole or not at all, and the view and both stores are what they were. */
static void test_out_of_memory_beside_a_view(void **state) {
    uint64_t failures = 0;

    (void) state;
    for (long n = 1; n < 3000; n++) {
        struct rng g = rng_seed(4);
        struct model m = {0}, seen;
        struct kv *kv = NULL;
        struct kv_iter *it = NULL;
        uint64_t stamp = 0;
        int r = 0;

        assert_int_equal(kv_mem_new(0, &kv), 0);
        for (int i = 0; i < 20; i++)
            assert_int_equal(write_batch(kv, &m, &g, &stamp), 0);
        seen = m;
        nth_memory_begin(n);
        r = kv->ops->iter_open(kv, &it);
        for (int i = 0; r == 0 && i < 5; i++)
            r = write_batch(kv, &m, &g, &stamp);
        if (r == 0)
            r = kv->ops->stage_begin(kv);
        for (int i = 0; r == 0 && i < 5; i++) {
            struct kv_op op = {.key = slice_of(&i, 4), .value = slice_of(&i, 4)};

            r = kv->ops->stage_write(kv, &op, 1);
        }
        nth_memory_end();
        assert_int_equal(r, nth_memory_failed ? -ENOMEM : 0);
        failures += nth_memory_failed ? 1 : 0;
        check_iter(kv, &m, 20);
        if (it) {
            check_view(it, &seen);
            it->ops->close(it);
        }
        kv->ops->close(kv);
        if (!nth_memory_failed)
            break;
    }
    assert_true(failures > 100);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_model),  cmocka_unit_test(test_out_of_memory),
        cmocka_unit_test(test_views),  cmocka_unit_test(test_stage),
        cmocka_unit_test(test_damage), cmocka_unit_test(test_out_of_memory_beside_a_view),
    };

    return cmocka_run_group_tests_name("kv_mem", tests, NULL, NULL);
}
