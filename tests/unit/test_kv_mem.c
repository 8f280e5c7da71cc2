/* The store in memory against a sorted array. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rand.h"
#include "storage/kv_mem.h"

#define KEYS 300U

void *__real_malloc(size_t n);
void *__real_calloc(size_t a, size_t b);
void *__real_realloc(void *p, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t a, size_t b);
void *__wrap_realloc(void *p, size_t n);

/* Allocations until one fails; 0 = never. The wrapped functions have no context to carry it. */
static uint64_t memory_countdown;
static bool memory_failed;

static bool memory_out(void) {
    if (memory_countdown == 0 || --memory_countdown > 0)
        return false;
    memory_failed = true;
    return true;
}

void *__wrap_malloc(size_t n) {
    return memory_out() ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t a, size_t b) {
    return memory_out() ? NULL : __real_calloc(a, b);
}

void *__wrap_realloc(void *p, size_t n) {
    return memory_out() ? NULL : __real_realloc(p, n);
}

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
    for (uint64_t n = 1; n < 3000; n++) {
        struct rng g = rng_seed(9);
        struct model m = {0};
        struct kv *kv = NULL;
        uint64_t stamp = 0;
        int r;

        memory_failed = false;
        memory_countdown = n;
        r = kv_mem_new(0, &kv);
        for (int i = 0; r == 0 && i < 40; i++)
            r = write_batch(kv, &m, &g, &stamp);
        memory_countdown = 0;
        assert_int_equal(r, memory_failed ? -ENOMEM : 0);
        failures += memory_failed ? 1 : 0;
        if (kv) {
            check_iter(kv, &m, 150);
            kv_mem_crash(kv, 0);
            memset(&m, 0, sizeof(m));
            check_iter(kv, &m, 150);
            kv->ops->close(kv);
        }
        if (!memory_failed)
            break;
    }
    assert_true(failures > 300);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_model),
        cmocka_unit_test(test_out_of_memory),
    };

    return cmocka_run_group_tests_name("kv_mem", tests, NULL, NULL);
}
