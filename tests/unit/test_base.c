/* The small parts everything stands on: bytes, buf, arena, codec, CRC-32C, maps, timer heap, rand.
 */
#include "base/arena.h"
#include "base/buf.h"
#include "base/codec.h"
#include "base/crc32c.h"
#include "base/err.h"
#include "base/map.h"
#include "base/rand.h"
#include "base/timer_heap.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define KEYS 500
#define STEPS 100000

/* Goal: CRC-32C is the polynomial of RFC 3720. Method: the vectors of its appendix B.4, whole and
 * in two parts at every split, by the fast way and by the portable one. */
static void test_crc32c_vectors(void **state) {
    static const uint8_t read_command[48] = {
        0x01, 0xc0, 0, 0, 0, 0, 0,    0, 0,    0, 0, 0,    0, 0, 0, 0,
        0x14, 0,    0, 0, 0, 0, 0x04, 0, 0,    0, 0, 0x14, 0, 0, 0, 0x18,
        0x28, 0,    0, 0, 0, 0, 0,    0, 0x02, 0, 0, 0,    0, 0, 0, 0};
    uint8_t b[5][48];
    static const struct {
        size_t len;
        uint32_t crc;
    } want[5] = {
        {32, 0x8a9136aa}, {32, 0x62a8ab43}, {32, 0x46dd794e}, {32, 0x113fdb5c}, {48, 0xd9963a56}};

    (void) state;
    memset(b[0], 0, 32);
    memset(b[1], 0xff, 32);
    for (int i = 0; i < 32; i++) {
        b[2][i] = (uint8_t) i;
        b[3][i] = (uint8_t) (31 - i);
    }
    memcpy(b[4], read_command, 48);
    for (int v = 0; v < 5; v++) {
        assert_int_equal(crc32c(b[v], want[v].len), want[v].crc);
        for (size_t cut = 0; cut <= want[v].len; cut++) {
            uint32_t c = crc32c_extend(0, b[v], cut), p = crc32c_extend_portable(0, b[v], cut);

            assert_int_equal(c, p);
            assert_int_equal(crc32c_extend(c, b[v] + cut, want[v].len - cut), want[v].crc);
            assert_int_equal(crc32c_extend_portable(p, b[v] + cut, want[v].len - cut), want[v].crc);
        }
    }
}

/* Goal: numbers come back as they were put, in the order of bytes that the formats say. */
static void test_codec(void **state) {
    uint8_t p[8];

    (void) state;
    put_le64(p, 0x0102030405060708);
    assert_int_equal(p[0], 8);
    assert_int_equal(p[7], 1);
    assert_true(get_le64(p) == 0x0102030405060708);
    put_be64(p, 0x0102030405060708);
    assert_int_equal(p[0], 1);
    assert_true(get_be64(p) == 0x0102030405060708);
    put_le32(p, UINT32_MAX - 1);
    assert_int_equal(get_le32(p), UINT32_MAX - 1);
    put_le16(p, 0xfffe);
    assert_int_equal(get_le16(p), 0xfffe);
}

/* Goal: a map holds what a plain array says, under any order of puts and deletes, and iteration
 * visits each entry once. Method: a random model test over few keys, so that chains collide. */
static void test_u64map_model(void **state) {
    static int values[KEYS];
    struct rng rng = rng_seed(11);
    void *model[KEYS] = {NULL};
    struct u64map m;
    size_t count = 0;

    (void) state;
    u64map_init(&m);
    for (int i = 0; i < STEPS; i++) {
        size_t k = rng_below(&rng, KEYS);
        uint64_t key = k * 0x100000000ULL; /* equal low bits: the hash must spread them */

        assert_ptr_equal(u64map_get(&m, key), model[k]);
        if (rng_chance(&rng, 500)) {
            count += model[k] == NULL;
            model[k] = &values[rng_below(&rng, KEYS)];
            assert_int_equal(u64map_put(&m, key, model[k]), 0);
        } else {
            assert_ptr_equal(u64map_del(&m, key), model[k]);
            count -= model[k] != NULL;
            model[k] = NULL;
        }
        assert_int_equal(m.count, count);
        if (i % 5000 == 0) {
            struct u64map_slot *s;
            size_t pos = 0, seen = 0;

            while ((s = u64map_next(&m, &pos))) {
                assert_ptr_equal(s->value, model[s->key >> 32]);
                seen++;
            }
            assert_int_equal(seen, count);
        }
    }
    u64map_done(&m);
}

/* Goal: the same for keys of bytes, among them the empty one and prefixes of each other. */
static void test_bytesmap_model(void **state) {
    static char keys[KEYS][KEYS / 4 + 2];
    struct rng rng = rng_seed(12);
    bool in[KEYS] = {false};
    struct bytesmap m;
    size_t count = 0;

    (void) state;
    bytesmap_init(&m);
    for (size_t i = 0; i < KEYS; i++)
        memset(keys[i], (int) ('a' + i % 4), i / 4);
    for (int i = 0; i < STEPS; i++) {
        size_t k = rng_range(&rng, 3, KEYS - 1); /* 0 to 3 would all be the empty key */
        struct slice key = slice_of(keys[k], k / 4);

        assert_ptr_equal(bytesmap_get(&m, key), in[k] ? keys[k] : NULL);
        if (rng_chance(&rng, 500)) {
            assert_int_equal(bytesmap_put(&m, key, keys[k]), 0);
            count += !in[k];
            in[k] = true;
        } else {
            assert_ptr_equal(bytesmap_del(&m, key), in[k] ? keys[k] : NULL);
            count -= in[k];
            in[k] = false;
        }
        assert_int_equal(m.count, count);
    }
    bytesmap_done(&m);
}

/* Goal: the heap's first entry is always the earliest, whatever was added and removed. Method: a
 * random model test against a scan of all entries. */
static void test_timer_heap_model(void **state) {
    static struct timer_entry entries[KEYS];
    static uint64_t at[KEYS]; /* 0 = not in the heap */
    struct rng rng = rng_seed(13);
    struct timer_heap h;

    (void) state;
    timer_heap_init(&h);
    assert_true(timer_heap_deadline(&h).ns == MONO_NEVER.ns);
    for (int i = 0; i < STEPS / 4; i++) {
        size_t k = rng_below(&rng, KEYS);
        uint64_t first = MONO_NEVER.ns;

        if (at[k] == 0) {
            at[k] = 1 + rng_below(&rng, 1000);
            assert_int_equal(timer_heap_add(&h, &entries[k], (struct mono){.ns = at[k]}), 0);
        } else {
            timer_heap_remove(&h, &entries[k]);
            at[k] = 0;
        }
        for (size_t e = 0; e < KEYS; e++)
            if (at[e] != 0)
                first = MIN(first, at[e]);
        assert_true(timer_heap_deadline(&h).ns == first);
        if (first != MONO_NEVER.ns)
            assert_true(at[timer_heap_first(&h) - entries] == first);
    }
    timer_heap_done(&h);
}

/* Goal: a buffer never grows past its ceiling and keeps its content when it refuses. */
static void test_buf(void **state) {
    struct buf b;
    char big[64];

    (void) state;
    memset(big, 'x', sizeof(big));
    buf_init(&b, 100);
    assert_int_equal(buf_append_str(&b, "head "), 0);
    assert_int_equal(buf_printf(&b, "%d-%s", 42, "tail"), 0);
    assert_int_equal(b.len, 12);
    assert_memory_equal(b.data, "head 42-tail", 12);
    assert_int_equal(buf_append(&b, big, sizeof(big)), 0);
    assert_int_equal(buf_append(&b, big, sizeof(big)), ERR_LIMIT);
    assert_int_equal(b.len, 76);
    buf_consume(&b, 5);
    assert_memory_equal(b.data, "42-tailx", 8);
    assert_int_equal(b.len, 71);
    buf_consume(&b, b.len);
    assert_int_equal(b.len, 0);
    buf_done(&b);
}

/* Goal: an arena gives aligned, separate pieces, keeps to its ceiling, and is reusable. */
static void test_arena(void **state) {
    struct arena a;
    uint8_t *p[100];

    (void) state;
    arena_init(&a, 64 * 1024);
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < ARRAY_LEN(p); i++) {
            p[i] = arena_alloc(&a, i + 1);
            assert_non_null(p[i]);
            assert_int_equal((uintptr_t) p[i] % 8, 0);
            memset(p[i], (int) i, i + 1);
        }
        for (size_t i = 0; i < ARRAY_LEN(p); i++)
            for (size_t k = 0; k <= i; k++)
                assert_int_equal(p[i][k], i);
        assert_null(arena_alloc(&a, 1024UL * 1024));
        assert_string_equal(arena_printf(&a, "%s-%d", "x", 7), "x-7");
        assert_string_equal(arena_strdup(&a, "text"), "text");
        arena_clear(&a);
    }
    arena_done(&a);
}

/* Goal: bytes live as long as the last reference; none are no bytes. */
static void test_bytes(void **state) {
    struct bytes *b = bytes_copy("abc", 3), *again;

    (void) state;
    assert_non_null(b);
    again = bytes_ref(b);
    assert_ptr_equal(again, b);
    assert_null(bytes_unref(b));
    assert_memory_equal(bytes_slice(again).data, "abc", 3);
    assert_null(bytes_unref(again));
    assert_int_equal(bytes_slice(NULL).len, 0);
    assert_null(bytes_unref(NULL));
}

/* Goal: the same seed gives the same numbers (SplitMix64's first three for 1234567), bounds are
 * kept and both ends occur. */
static void test_rand(void **state) {
    struct rng r = rng_seed(1234567);
    bool low = false, high = false;

    (void) state;
    assert_true(rng_next(&r) == 6457827717110365317ULL);
    assert_true(rng_next(&r) == 3203168211198807973ULL);
    assert_true(rng_next(&r) == 9817491932198370423ULL);
    for (int i = 0; i < 10000; i++) {
        uint64_t v = rng_range(&r, 5, 8);

        assert_true(v >= 5 && v <= 8);
        low = low || v == 5;
        high = high || v == 8;
        assert_true(rng_below(&r, 1) == 0);
        assert_false(rng_chance(&r, 0));
        assert_true(rng_chance(&r, 1000));
    }
    assert_true(low && high);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_crc32c_vectors),
        cmocka_unit_test(test_codec),
        cmocka_unit_test(test_u64map_model),
        cmocka_unit_test(test_bytesmap_model),
        cmocka_unit_test(test_timer_heap_model),
        cmocka_unit_test(test_buf),
        cmocka_unit_test(test_arena),
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_rand),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
