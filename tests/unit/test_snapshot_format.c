/* A state as a stream: what goes in comes out, and nothing that was changed on the way is taken. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/codec.h"
#include "base/crc32c.h"
#include "base/rand.h"
#include "nth_memory.h"
#include "storage/kv_mem.h"
#include "storage/snapshot_format.h"

#define HOME 0x02
#define STREAM_BYTES_MAX (64U * 1024 * 1024)

/* ---- making and reading streams ---- */

static void put(struct kv *kv, const void *key, size_t key_len, const void *value, size_t len) {
    struct kv_op op = {.key = slice_of(key, key_len), .value = slice_of(value, len)};

    assert_int_equal(kv->ops->write(kv, &op, 1), 0);
}

/* @n records with keys of 1 to 12 bytes and values of up to @value_max bytes, some staying home. */
static struct kv *make_store(size_t n, size_t value_max, uint64_t seed) {
    struct rng g = rng_seed(seed);
    uint8_t *value = (uint8_t *) calloc(1, value_max + 1);
    struct kv *kv = NULL;

    assert_non_null(value);
    assert_int_equal(kv_mem_new(1, &kv), 0);
    for (size_t i = 0; i < n; i++) {
        uint8_t key[12];
        size_t key_len = 1 + rng_below(&g, sizeof(key));
        size_t len = rng_below(&g, value_max + 1);

        for (size_t b = 0; b < key_len; b++)
            key[b] = (uint8_t) rng_next(&g);
        key[0] = i % 9 == 0 ? HOME : (uint8_t) (key[0] % 6);
        for (size_t b = 0; b < len; b++)
            value[b] = (uint8_t) rng_next(&g);
        put(kv, key, key_len, value, len);
    }
    free(value);
    return kv;
}

/* The whole stream of @kv: header "hello" and chunks. 0 or the writer's error. */
static int write_stream(struct kv *kv, struct buf *out) {
    struct snapshot_writer w;
    struct kv_iter *it = NULL;
    int r = kv->ops->iter_open(kv, &it);

    if (r < 0)
        return r;
    r = snapshot_header_encode(out, slice_of("hello", 5));
    snapshot_writer_begin(&w, it, HOME);
    while (r == 0 && !w.done) {
        size_t before = out->len;

        r = snapshot_writer_next(&w, out);
        if (r < 0)
            assert_int_equal(out->len, before);
    }
    it->ops->close(it);
    return r;
}

/* Read a whole stream into @kv (NULL: only check). 0; ERR_CORRUPT, also for a missing end;
 * ERR_VERSION; -ENOMEM. Never anything else. */
static int read_stream(struct slice in, struct kv *kv, struct errtext *e) {
    struct snapshot_reader r;
    int rc = 0;

    snapshot_reader_begin(&r);
    for (bool first = true; rc == 0 && in.len > 0; first = false) {
        struct snapshot_block b;
        struct kv_op *ops = NULL;
        size_t bytes = 0;
        size_t count = 0;

        rc = snapshot_block_parse(in, &b, &bytes, e);
        if (rc == SNAPSHOT_MORE) {
            assert_true(bytes > in.len);
            rc = ERR_CORRUPT;
        }
        if (rc < 0)
            break;
        assert_true(bytes <= in.len);
        in = slice_of(in.data + bytes, in.len - bytes);
        if (first != (b.kind == SNAPSHOT_BLOCK_HEADER)) {
            rc = ERR_CORRUPT;
            break;
        }
        if (first) {
            assert_int_equal(b.payload.len, 5);
            continue;
        }
        rc = snapshot_reader_take(&r, &b, &ops, &count, e);
        if (rc == 0 && kv && count > 0)
            rc = kv->ops->write(kv, ops, count);
        free(ops);
    }
    if (rc == 0 && !r.done)
        rc = ERR_CORRUPT;
    snapshot_reader_end(&r);
    return rc;
}

static struct slice all_of(const struct buf *b) {
    return slice_of(b->data, b->len);
}

/* The records of @b are those of @a without the ones that stay at home. */
static void assert_same(struct kv *a, struct kv *b) {
    struct kv_iter *x = NULL;
    struct kv_iter *y = NULL;

    assert_int_equal(a->ops->iter_open(a, &x), 0);
    assert_int_equal(b->ops->iter_open(b, &y), 0);
    y->ops->seek(y, slice_of("", 0));
    for (x->ops->seek(x, slice_of("", 0)); x->ops->valid(x); x->ops->next(x)) {
        if (x->ops->key(x).data[0] == HOME)
            continue;
        assert_true(y->ops->valid(y));
        assert_int_equal(x->ops->key(x).len, y->ops->key(y).len);
        assert_memory_equal(x->ops->key(x).data, y->ops->key(y).data, x->ops->key(x).len);
        assert_int_equal(x->ops->value(x).len, y->ops->value(y).len);
        assert_memory_equal(x->ops->value(x).data, y->ops->value(y).data, x->ops->value(x).len);
        y->ops->next(y);
    }
    assert_false(y->ops->valid(y));
    x->ops->close(x);
    y->ops->close(y);
}

/* The place of block @nth and its bytes. */
static struct slice block_at(const struct buf *b, size_t nth) {
    struct slice in = all_of(b);

    for (;; nth--) {
        struct snapshot_block block;
        size_t bytes = 0;

        assert_int_equal(snapshot_block_parse(in, &block, &bytes, NULL), 0);
        if (nth == 0)
            return slice_of(in.data, bytes);
        in = slice_of(in.data + bytes, in.len - bytes);
    }
}

static size_t count_blocks(const struct buf *b) {
    size_t n = 0;

    for (size_t at = 0; at < b->len; n++)
        at += block_at(b, n).len;
    return n;
}

/* ---- tests ---- */

/* Goal: stores from empty to many chunks, with values from empty to larger than a chunk, arrive as
 * they were, but for what stays at home; chunks have the stated size. */
static void test_round_trip(void **state) {
    static const struct {
        size_t records, value_max;
    } shapes[] = {{0, 0}, {1, 0}, {1, 100}, {2000, 0}, {500, 3000}, {40, 400000}, {20000, 100}};

    (void) state;
    for (size_t i = 0; i < ARRAY_LEN(shapes); i++) {
        struct kv *from = make_store(shapes[i].records, shapes[i].value_max, i + 1);
        struct kv *to = NULL;
        struct errtext e = {0};
        struct buf b;

        buf_init(&b, STREAM_BYTES_MAX);
        assert_int_equal(kv_mem_new(1, &to), 0);
        assert_int_equal(write_stream(from, &b), 0);
        if (read_stream(all_of(&b), to, &e) != 0)
            fail_msg("shape %zu: %s", i, e.s);
        assert_same(from, to);
        for (size_t n = 1; n + 1 < count_blocks(&b); n++)
            assert_in_range(block_at(&b, n).len, SNAPSHOT_CHUNK_BYTES,
                            SNAPSHOT_CHUNK_BYTES + shapes[i].value_max + 100);
        from->ops->close(from);
        to->ops->close(to);
        buf_done(&b);
    }
}

/* Goal: everything that begins with the home byte stays, for the lowest and the highest too. */
static void test_home(void **state) {
    static const uint8_t homes[] = {0, 1, 0x80, 0xff};

    (void) state;
    for (size_t i = 0; i < ARRAY_LEN(homes); i++) {
        struct kv *kv = NULL;
        struct kv_iter *it = NULL;
        struct snapshot_writer w;
        struct buf b;

        assert_int_equal(kv_mem_new(1, &kv), 0);
        for (unsigned c = 0; c < 256; c++) {
            uint8_t key[2] = {(uint8_t) c, 1};

            put(kv, key, 1, "v", 1);
            put(kv, key, 2, "v", 1);
        }
        buf_init(&b, STREAM_BYTES_MAX);
        assert_int_equal(kv->ops->iter_open(kv, &it), 0);
        snapshot_writer_begin(&w, it, homes[i]);
        assert_int_equal(snapshot_writer_next(&w, &b), 0);
        assert_true(w.done);
        assert_int_equal(w.records, 510);
        it->ops->close(it);
        kv->ops->close(kv);
        buf_done(&b);
    }
}

/* Goal: one record of 6 MiB travels, one larger than a payload is refused, and a large one behind
 * others waits for a chunk of its own. */
static void test_large_records(void **state) {
    size_t len = SNAPSHOT_PAYLOAD_BYTES_MAX;
    uint8_t *value = (uint8_t *) calloc(1, len);
    struct kv *kv = NULL;
    struct kv *to = NULL;
    struct errtext e = {0};
    struct buf b;

    (void) state;
    assert_non_null(value);
    buf_init(&b, STREAM_BYTES_MAX);
    assert_int_equal(kv_mem_new(1, &kv), 0);
    assert_int_equal(kv_mem_new(1, &to), 0);
    put(kv, "a", 1, value, 1000);
    put(kv, "b", 1, value, 6 * 1024 * 1024);
    put(kv, "c", 1, value, 1000);
    put(kv, "d", 1, value, len - 8 - 24 - 1); /* the largest there can be */
    assert_int_equal(write_stream(kv, &b), 0);
    assert_int_equal(count_blocks(&b), 4);
    assert_int_equal(read_stream(all_of(&b), to, &e), 0);
    assert_same(kv, to);
    put(kv, "e", 1, value, len - 8 - 24);
    buf_clear(&b);
    assert_int_equal(write_stream(kv, &b), ERR_LIMIT);
    kv->ops->close(kv);
    to->ops->close(to);
    buf_done(&b);
    free(value);
}

/* Goal: each bit of each byte of a stream of several chunks changed: found. Cut at each byte:
 * found. Something behind the end: found. */
static void test_every_byte(void **state) {
    struct kv *kv = make_store(60, 20, 3);
    uint8_t *big = (uint8_t *) calloc(1, SNAPSHOT_CHUNK_BYTES);
    struct errtext e = {0};
    struct buf b;
    size_t step;

    (void) state;
    assert_non_null(big);
    buf_init(&b, STREAM_BYTES_MAX);
    assert_int_equal(write_stream(kv, &b), 0);
    assert_int_equal(count_blocks(&b), 2);
    for (int chunks = 2; chunks <= 3; chunks++) {
        step = chunks == 2 ? 1 : 997; /* the second stream has a chunk of zeros */
        assert_int_equal(read_stream(all_of(&b), NULL, &e), 0);
        for (size_t at = 0; at < b.len; at += step) {
            for (unsigned bit = 0; bit < 8; bit++) {
                e.s[0] = 0;
                b.data[at] ^= (uint8_t) (1U << bit);
                if (read_stream(all_of(&b), NULL, &e) != ERR_CORRUPT)
                    fail_msg("byte %zu bit %u is not missed", at, bit);
                assert_true(e.s[0] != 0);
                b.data[at] ^= (uint8_t) (1U << bit);
            }
            assert_int_equal(read_stream(slice_of(b.data, at), NULL, &e), ERR_CORRUPT);
        }
        assert_int_equal(buf_append(&b, "C", 1), 0);
        assert_int_equal(read_stream(all_of(&b), NULL, &e), ERR_CORRUPT);
        buf_clear(&b);
        put(kv, "\x01", 1, big, SNAPSHOT_CHUNK_BYTES);
        assert_int_equal(write_stream(kv, &b), 0);
        assert_int_equal(count_blocks(&b), 3);
    }
    kv->ops->close(kv);
    buf_done(&b);
    free(big);
}

/* Goal: a parser that has a part only says how much it needs and never more than there is. */
static void test_prefixes(void **state) {
    struct kv *kv = make_store(10, 20, 3);
    struct snapshot_block block;
    struct buf b;
    struct slice first;
    size_t bytes = 0;

    (void) state;
    buf_init(&b, STREAM_BYTES_MAX);
    assert_int_equal(write_stream(kv, &b), 0);
    first = block_at(&b, 0);
    for (size_t cut = 0; cut < first.len; cut++) {
        assert_int_equal(snapshot_block_parse(slice_of(first.data, cut), &block, &bytes, NULL),
                         SNAPSHOT_MORE);
        assert_int_equal(bytes, cut < 32 ? 32 : first.len);
    }
    for (size_t cut = 1; cut < 4; cut++)
        assert_int_equal(snapshot_block_parse(slice_of("CHRO", cut + 1), &block, &bytes, NULL),
                         ERR_CORRUPT);
    kv->ops->close(kv);
    buf_done(&b);
}

/* Goal: blocks left out, repeated, exchanged, or taken from another stream: refused. Method: all
 * orders of two and all omissions of a stream of a header and 5 chunks. */
static void test_order_of_blocks(void **state) {
    struct kv *kv = make_store(300, 8000, 4);
    struct kv *other = make_store(300, 8000, 5);
    struct errtext e = {0};
    struct buf b, c, mixed;
    size_t n;

    (void) state;
    buf_init(&b, STREAM_BYTES_MAX);
    buf_init(&c, STREAM_BYTES_MAX);
    buf_init(&mixed, STREAM_BYTES_MAX);
    assert_int_equal(write_stream(kv, &b), 0);
    assert_int_equal(write_stream(other, &c), 0);
    n = count_blocks(&b);
    assert_in_range(n, 5, 8);
    for (size_t x = 0; x < n; x++) {
        for (size_t y = 0; y < 4 * n; y++) {
            bool same = false;

            buf_clear(&mixed);
            for (size_t i = 0; i < n; i++) {
                struct slice s = block_at(&b, i);

                if (y < n && i == x) /* another block in its place */
                    s = block_at(&b, y);
                else if (y < n && i == y)
                    s = block_at(&b, x);
                else if (y >= n && y < 2 * n && i == x)
                    s = slice_of("", 0); /* left out */
                else if (y >= 3 * n && i == x)
                    s = block_at(&c, MIN(x, count_blocks(&c) - 1));
                assert_int_equal(buf_append(&mixed, s.data, s.len), 0);
                if (y >= 2 * n && y < 3 * n && i == x) /* repeated */
                    assert_int_equal(buf_append(&mixed, s.data, s.len), 0);
            }
            same = mixed.len == b.len && memcmp(mixed.data, b.data, b.len) == 0;
            assert_int_equal(read_stream(all_of(&mixed), NULL, &e), same ? 0 : ERR_CORRUPT);
        }
    }
    kv->ops->close(kv);
    other->ops->close(other);
    buf_done(&b);
    buf_done(&c);
    buf_done(&mixed);
}

/* Put a chunk of hand-made records into a block, checksums right. */
static void craft(struct buf *out, uint8_t version, uint8_t kind, uint64_t sequence,
                  const void *payload, size_t len) {
    uint8_t h[SNAPSHOT_BLOCK_HEADER_BYTES] = {'C', 'S', 'N', 'P', version, kind};

    buf_clear(out);
    put_le64(h + 8, sequence);
    put_le32(h + 16, (uint32_t) len);
    put_le32(h + 20, crc32c(h, 20));
    put_le32(h + 24, crc32c(payload, len));
    assert_int_equal(buf_append(out, h, sizeof(h)), 0);
    assert_int_equal(buf_append(out, payload, len), 0);
}

static size_t record(uint8_t *out, const char *key, const char *value) {
    put_le32(out, (uint32_t) strlen(key));
    put_le32(out + 4, (uint32_t) strlen(value));
    memcpy(out + 8, key, strlen(key));
    memcpy(out + 8 + strlen(key), value, strlen(value));
    return 8 + strlen(key) + strlen(value);
}

static int take(struct snapshot_reader *r, const struct buf *b, struct errtext *e) {
    struct snapshot_block block;
    struct kv_op *ops = NULL;
    size_t bytes = 0;
    size_t count = 0;
    int rc = snapshot_block_parse(all_of(b), &block, &bytes, e);

    if (rc == 0)
        rc = snapshot_reader_take(r, &block, &ops, &count, e);
    free(ops);
    return rc;
}

/* Goal: what has right checksums and is wrong nevertheless, as a faulty writer would make it: the
 * message says what, and the reader goes on where it was when the right block comes. */
static void test_wrong_content(void **state) {
    struct snapshot_reader r;
    struct errtext e = {0};
    uint8_t p[200];
    struct buf b;
    size_t n;

    (void) state;
    buf_init(&b, STREAM_BYTES_MAX);
    snapshot_reader_begin(&r);
    n = record(p, "b", "1");
    n += record(p + n, "c", "2");
    craft(&b, 1, 2, 1, p, n);
    assert_int_equal(take(&r, &b, &e), 0);
    assert_int_equal(r.records, 2);

    n = record(p, "c", "3"); /* not above the last key of the chunk before */
    craft(&b, 1, 2, 2, p, n);
    assert_int_equal(take(&r, &b, &e), ERR_CORRUPT);
    assert_non_null(strstr(e.s, "key is not above"));
    n = record(p, "d", "3"); /* in itself out of order */
    n += record(p + n, "cc", "4");
    craft(&b, 1, 2, 2, p, n);
    assert_int_equal(take(&r, &b, &e), ERR_CORRUPT);
    n = record(p, "d", "3"); /* equal keys */
    n += record(p + n, "d", "3");
    craft(&b, 1, 2, 2, p, n);
    assert_int_equal(take(&r, &b, &e), ERR_CORRUPT);

    n = record(p, "d", "3");
    for (size_t cut = 1; cut < n; cut++) { /* a record that does not end */
        craft(&b, 1, 2, 2, p, cut);
        assert_int_equal(take(&r, &b, &e), ERR_CORRUPT);
    }
    put_le32(p, UINT32_MAX);
    craft(&b, 1, 2, 2, p, n);
    assert_int_equal(take(&r, &b, &e), ERR_CORRUPT);
    assert_non_null(strstr(e.s, "longer than its chunk"));
    craft(&b, 1, 2, 2, p, 0);
    assert_int_equal(take(&r, &b, &e), ERR_CORRUPT);
    assert_non_null(strstr(e.s, "too short"));

    /* The end: totals that are missing or wrong. */
    for (size_t len = 0; len < 24; len++) {
        craft(&b, 1, 3, 2, p, len);
        assert_int_equal(take(&r, &b, &e), ERR_CORRUPT);
    }
    memset(p, 0, 24);
    p[0] = 3;
    craft(&b, 1, 3, 2, p, 24);
    assert_int_equal(take(&r, &b, &e), ERR_CORRUPT);
    assert_non_null(strstr(e.s, "number of records"));
    p[0] = 2;
    craft(&b, 1, 3, 2, p, 24);
    assert_int_equal(take(&r, &b, &e), ERR_CORRUPT);
    assert_non_null(strstr(e.s, "hash"));
    assert_int_equal(r.sequence, 1);
    assert_int_equal(r.records, 2);
    assert_false(r.done);

    n = record(p, "d", "3");
    craft(&b, 1, 2, 2, p, n);
    assert_int_equal(take(&r, &b, &e), 0);
    assert_int_equal(r.records, 3);
    snapshot_reader_end(&r);
    buf_done(&b);
}

/* Goal: block headers with right checksums and wrong fields; a newer version is told from damage.
 */
static void test_wrong_headers(void **state) {
    uint8_t *zeros = (uint8_t *) calloc(1, SNAPSHOT_PAYLOAD_BYTES_MAX + 1);
    struct snapshot_block block;
    struct errtext e = {0};
    struct buf b;
    size_t bytes = 0;

    (void) state;
    assert_non_null(zeros);
    buf_init(&b, STREAM_BYTES_MAX);
    craft(&b, 2, 1, 0, "x", 1);
    assert_int_equal(snapshot_block_parse(all_of(&b), &block, &bytes, &e), ERR_VERSION);
    assert_non_null(strstr(e.s, "version 2"));
    craft(&b, 0, 1, 0, "x", 1);
    assert_int_equal(snapshot_block_parse(all_of(&b), &block, &bytes, &e), ERR_CORRUPT);
    for (unsigned kind = 0; kind < 256; kind++) {
        craft(&b, 1, (uint8_t) kind, kind != 1, "x", 1);
        assert_int_equal(snapshot_block_parse(all_of(&b), &block, &bytes, &e),
                         kind >= 1 && kind <= 3 ? 0 : ERR_CORRUPT);
        craft(&b, 1, (uint8_t) kind, kind == 1, "x", 1);
        assert_int_equal(snapshot_block_parse(all_of(&b), &block, &bytes, &e), ERR_CORRUPT);
    }
    craft(&b, 1, 1, 0, zeros, SNAPSHOT_HEADER_BYTES_MAX);
    assert_int_equal(snapshot_block_parse(all_of(&b), &block, &bytes, &e), 0);
    craft(&b, 1, 1, 0, zeros, SNAPSHOT_HEADER_BYTES_MAX + 1);
    assert_int_equal(snapshot_block_parse(all_of(&b), &block, &bytes, &e), ERR_CORRUPT);
    craft(&b, 1, 2, 1, zeros, SNAPSHOT_PAYLOAD_BYTES_MAX);
    assert_int_equal(snapshot_block_parse(all_of(&b), &block, &bytes, &e), 0);
    craft(&b, 1, 2, 1, zeros, SNAPSHOT_PAYLOAD_BYTES_MAX + 1);
    assert_int_equal(snapshot_block_parse(all_of(&b), &block, &bytes, &e), ERR_CORRUPT);
    assert_non_null(strstr(e.s, "larger than allowed"));
    buf_done(&b);
    free(zeros);
}

/* Goal: a chunk of many tiny records cannot make the reader allocate without measure. */
static void test_bounded_records(void **state) {
    struct snapshot_reader r;
    struct errtext e = {0};
    uint8_t *p = (uint8_t *) malloc(SNAPSHOT_CHUNK_BYTES * 2);
    size_t n = 0;
    struct buf b;

    (void) state;
    assert_non_null(p);
    buf_init(&b, STREAM_BYTES_MAX);
    for (uint32_t i = 0; n < SNAPSHOT_CHUNK_BYTES; i++) {
        char key[12];

        (void) snprintf(key, sizeof(key), "%08u", i);
        n += record(p + n, key, "");
    }
    snapshot_reader_begin(&r);
    craft(&b, 1, 2, 1, p, n + record(p + n, "99999999", ""));
    assert_int_equal(take(&r, &b, &e), ERR_CORRUPT);
    assert_non_null(strstr(e.s, "behind the end of a chunk"));
    craft(&b, 1, 2, 1, p, n);
    assert_int_equal(take(&r, &b, &e), 0);
    snapshot_reader_end(&r);
    buf_done(&b);
    free(p);
}

/* Goal: an iterator that fails (damaged store) fails the stream: it never looks complete. */
static void test_damaged_store(void **state) {
    (void) state;
    for (uint64_t nth = 0; nth < 50; nth++) {
        struct kv *kv = make_store(50, 100, 6);
        struct buf b;

        buf_init(&b, STREAM_BYTES_MAX);
        assert_true(kv_mem_damage(kv, nth));
        /* A damaged record that stays at home may be stepped over. */
        assert_true(write_stream(kv, &b) == ERR_CORRUPT ||
                    read_stream(all_of(&b), NULL, NULL) == 0);
        if (nth == 0)
            assert_int_equal(b.len, SNAPSHOT_BLOCK_HEADER_BYTES + 5);
        kv->ops->close(kv);
        buf_done(&b);
    }
}

/* Goal: memory is out at the n-th allocation of writing and reading: -ENOMEM, nothing leaks, the
 * output has no half block. */
static void test_out_of_memory(void **state) {
    struct kv *kv = make_store(3000, 400, 7);
    uint64_t failures = 0;

    (void) state;
    for (long n = 1; n < 3000; n++) {
        struct errtext e;
        struct buf b;
        int r;

        buf_init(&b, STREAM_BYTES_MAX);
        nth_memory_begin(n);
        r = write_stream(kv, &b);
        if (r == 0)
            r = read_stream(all_of(&b), NULL, &e);
        nth_memory_end();
        assert_int_equal(r, nth_memory_failed ? -ENOMEM : 0);
        failures += nth_memory_failed;
        buf_done(&b);
        if (!nth_memory_failed)
            break;
    }
    assert_true(failures > 10);
    kv->ops->close(kv);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),      cmocka_unit_test(test_home),
        cmocka_unit_test(test_large_records),   cmocka_unit_test(test_every_byte),
        cmocka_unit_test(test_prefixes),        cmocka_unit_test(test_order_of_blocks),
        cmocka_unit_test(test_wrong_content),   cmocka_unit_test(test_wrong_headers),
        cmocka_unit_test(test_bounded_records), cmocka_unit_test(test_damaged_store),
        cmocka_unit_test(test_out_of_memory),
    };

    return cmocka_run_group_tests_name("snapshot_format", tests, NULL, NULL);
}
