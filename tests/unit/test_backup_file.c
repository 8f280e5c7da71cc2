/* A backup's bytes: whole in any pieces, refused with an offset when anything is wrong. */
#include "cli/backup_file.h"

#include "base/rand.h"
#include "storage/kv_mem.h"
#include "storage/snapshot_format.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define FILE_BYTES_MAX (1024U * 1024)

static void put(struct kv *kv, struct slice key, struct slice value) {
    struct kv_op op = {.key = key, .value = value};

    assert_int_equal(kv->ops->write(kv, &op, 1), 0);
}

static void put_state(struct kv *kv, uint64_t index, const struct backup_counts *c) {
    Chronos__Internal__V1__StateMeta m = CHRONOS__INTERNAL__V1__STATE_META__INIT;
    uint8_t bytes[256];

    m.version = 1;
    m.applied_index = index;
    m.digest_low = c->state.low;
    m.digest_high = c->state.high;
    assert_true(chronos__internal__v1__state_meta__get_packed_size(&m) <= sizeof(bytes));
    put(kv, slice_of("m", 1), slice_of(bytes, chronos__internal__v1__state_meta__pack(&m, bytes)));
}

static void write_header(struct buf *out) {
    Chronos__Internal__V1__SnapshotHeader h = CHRONOS__INTERNAL__V1__SNAPSHOT_HEADER__INIT;
    uint8_t id[16] = {1, 2, 3}, bytes[256];

    h.version = 1;
    h.cluster_id = (ProtobufCBinaryData){.len = sizeof(id), .data = id};
    h.index = 77;
    h.term = 3;
    assert_true(chronos__internal__v1__snapshot_header__get_packed_size(&h) <= sizeof(bytes));
    assert_int_equal(
        snapshot_header_encode(
            out, slice_of(bytes, chronos__internal__v1__snapshot_header__pack(&h, bytes))),
        0);
}

/* 40 jobs, a key, a worker, a node; @state_index and @digest_off spoil the state's head. */
static void make(struct buf *out, uint64_t state_index, uint64_t digest_off) {
    struct backup_counts c = {0};
    struct snapshot_writer w;
    struct kv_iter *it = NULL;
    struct kv *kv = NULL;

    assert_int_equal(kv_mem_new(0, &kv), 0);
    for (uint8_t i = 0; i < 43; i++) {
        uint8_t key[9] = {i < 40 ? 'j' : i == 40 ? 'k' : i == 41 ? 'w' : 'n'}, value[100] = {i};

        key[8] = i;
        backup_count(&c, slice_of(key, sizeof(key)), slice_of(value, sizeof(value)), +1);
        put(kv, slice_of(key, sizeof(key)), slice_of(value, sizeof(value)));
    }
    c.state.low += digest_off;
    put_state(kv, state_index, &c);
    buf_init(out, FILE_BYTES_MAX);
    write_header(out);
    assert_int_equal(kv->ops->iter_open(kv, &it), 0);
    snapshot_writer_begin(&w, it, 'l');
    w.chunk_bytes = 512; /* several blocks */
    while (!w.done)
        assert_int_equal(snapshot_writer_next(&w, out), 0);
    it->ops->close(it);
    kv->ops->close(kv);
}

/* Feed in pieces of 1 to @piece bytes. */
static int read_pieces(struct backup_reader *r, struct slice file, size_t piece, struct rng *rng,
                       struct errtext *why) {
    int rc = backup_reader_begin(r);

    for (size_t at = 0; rc == 0 && at < file.len;) {
        size_t n = 1 + (size_t) rng_below(rng, piece); /* MIN() would draw twice */

        n = MIN(n, file.len - at);
        rc = backup_reader_feed(r, slice_of(file.data + at, n), why);
        at += n;
    }
    return rc == 0 ? backup_reader_finish(r, why) : rc;
}

/* Goal: the pieces do not matter, and what is counted is what was written. */
static void test_whole(void **state) {
    static const size_t pieces[] = {1, 7, 31, 33, 700, 100000};
    struct rng rng = rng_seed(1);
    struct buf file;

    (void) state;
    make(&file, 77, 0);
    for (size_t i = 0; i < ARRAY_LEN(pieces); i++) {
        struct backup_reader r = {0};
        struct errtext why = {""};

        if (read_pieces(&r, slice_of(file.data, file.len), pieces[i], &rng, &why) != 0)
            fail_msg("pieces of %zu: %s", pieces[i], why.s);
        assert_int_equal(r.offset, file.len);
        assert_int_equal(r.counts.jobs, 40);
        assert_int_equal(r.counts.keys, 1);
        assert_int_equal(r.counts.workers, 1);
        assert_int_equal(r.counts.nodes, 1);
        assert_int_equal(r.header->index, 77);
        backup_reader_end(&r);
    }
    buf_done(&file);
}

/* Goal: a flipped bit in any byte is found, and so is every missing end and any byte more. */
static void test_damage(void **state) {
    struct rng rng = rng_seed(2);
    struct buf file;

    (void) state;
    make(&file, 77, 0);
    for (size_t i = 0; i < file.len; i++) {
        uint8_t bit = (uint8_t) (1U << rng_below(&rng, 8));
        struct backup_reader r = {0};
        struct errtext why = {""};

        file.data[i] ^= bit;
        if (read_pieces(&r, slice_of(file.data, file.len), 4096, &rng, &why) >= 0)
            fail_msg("byte %zu of %zu", i, file.len);
        assert_true(why.s[0] != '\0');
        backup_reader_end(&r);
        file.data[i] ^= bit;
        r = (struct backup_reader){0};
        assert_int_equal(read_pieces(&r, slice_of(file.data, i), 4096, &rng, &why), ERR_CORRUPT);
        assert_non_null(strstr(why.s, "offset"));
        backup_reader_end(&r);
    }
    assert_int_equal(buf_append(&file, "\0", 1), 0);
    {
        struct backup_reader r = {0};
        struct errtext why = {""};

        assert_int_equal(read_pieces(&r, slice_of(file.data, file.len), 4096, &rng, &why),
                         ERR_CORRUPT);
        backup_reader_end(&r);
    }
    buf_done(&file);
}

/* Goal: blocks that are each whole but do not belong together are refused. */
static void test_disagreement(void **state) {
    static const struct {
        uint64_t index, digest_off;
        const char *says;
    } cases[] = {
        {78, 0, "another index"},
        {77, 1, "written wrong"},
    };
    struct rng rng = rng_seed(3);

    (void) state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct backup_reader r = {0};
        struct errtext why = {""};
        struct buf file;

        make(&file, cases[i].index, cases[i].digest_off);
        assert_int_equal(read_pieces(&r, slice_of(file.data, file.len), 64, &rng, &why),
                         ERR_CORRUPT);
        if (!strstr(why.s, cases[i].says))
            fail_msg("says \"%s\"", why.s);
        backup_reader_end(&r);
        buf_done(&file);
    }
}

/* Goal: taking a record away undoes adding it, in every sum. */
static void test_counts(void **state) {
    struct backup_counts c = {0}, zero = {0};

    (void) state;
    for (int pass = 0; pass < 2; pass++) {
        for (uint8_t i = 0; i < 200; i++) {
            uint8_t key[2] = {(uint8_t) "jwknx"[i % 5], i};

            backup_count(&c, slice_of(key, 2), slice_of(&i, 1), pass == 0 ? +1 : -1);
        }
        assert_int_equal(memcmp(&c, &zero, sizeof(c)) == 0, pass == 1);
    }
    backup_count(&c, slice_of("m", 1), slice_of("x", 1), +1);
    backup_count(&c, slice_of("l", 1), slice_of("x", 1), +1);
    assert_memory_equal(&c, &zero, sizeof(c));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_disagreement),
        cmocka_unit_test(test_counts),
    };

    return cmocka_run_group_tests_name("backup_file", tests, NULL, NULL);
}
