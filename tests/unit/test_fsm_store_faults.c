/* A state store that fails: the nth call of it with each error, for every n; and records that are
 * missing or spoiled behind the state machine's back. It stops with that error, crashes never, and
 * over a good store the log brings it to the same state. */
#include "fsm_script.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- a store that fails ------------------------------------------------------------------------
 */

struct bad_kv {
    struct kv kv;
    struct kv *below; /* borrowed */
    long left;        /* the call that fails; 0 = none */
    int err;
    bool hit;
};

struct bad_iter {
    struct kv_iter it;
    struct kv_iter *below; /* owned */
    struct bad_kv *kv;
    int status;
};

static int bad_now(struct bad_kv *b) {
    if (b->left == 0 || --b->left > 0)
        return 0;
    b->hit = true;
    return b->err;
}

static int bad_get(struct kv *kv, struct slice key, struct buf *out) {
    struct bad_kv *b = (struct bad_kv *) kv;
    int rc = bad_now(b);

    return rc < 0 ? rc : b->below->ops->get(b->below, key, out);
}

static int bad_write(struct kv *kv, const struct kv_op *ops, size_t n) {
    struct bad_kv *b = (struct bad_kv *) kv;
    int rc = bad_now(b);

    return rc < 0 ? rc : b->below->ops->write(b->below, ops, n);
}

static void step(struct bad_iter *i) {
    int rc = bad_now(i->kv);

    i->status = rc < 0 ? rc : i->status;
}

static void bad_seek(struct kv_iter *it, struct slice key) {
    struct bad_iter *i = (struct bad_iter *) it;

    step(i);
    i->below->ops->seek(i->below, key);
}

static void bad_seek_for_prev(struct kv_iter *it, struct slice key) {
    struct bad_iter *i = (struct bad_iter *) it;

    step(i);
    i->below->ops->seek_for_prev(i->below, key);
}

static bool bad_valid(const struct kv_iter *it) {
    const struct bad_iter *i = (const struct bad_iter *) it;

    return i->status == 0 && i->below->ops->valid(i->below);
}

static void bad_next(struct kv_iter *it) {
    struct bad_iter *i = (struct bad_iter *) it;

    step(i);
    i->below->ops->next(i->below);
}

static void bad_prev(struct kv_iter *it) {
    struct bad_iter *i = (struct bad_iter *) it;

    step(i);
    i->below->ops->prev(i->below);
}

static struct slice bad_key(const struct kv_iter *it) {
    const struct bad_iter *i = (const struct bad_iter *) it;

    return i->below->ops->key(i->below);
}

static struct slice bad_value(const struct kv_iter *it) {
    const struct bad_iter *i = (const struct bad_iter *) it;

    return i->below->ops->value(i->below);
}

static int bad_status(const struct kv_iter *it) {
    const struct bad_iter *i = (const struct bad_iter *) it;

    return i->status < 0 ? i->status : i->below->ops->status(i->below);
}

static void bad_close(struct kv_iter *it) {
    struct bad_iter *i = (struct bad_iter *) it;

    i->below->ops->close(i->below);
    free(i);
}

static int bad_iter_open(struct kv *kv, struct kv_iter **ret) {
    static const struct kv_iter_ops ops = {.seek = bad_seek,
                                           .seek_for_prev = bad_seek_for_prev,
                                           .valid = bad_valid,
                                           .next = bad_next,
                                           .prev = bad_prev,
                                           .key = bad_key,
                                           .value = bad_value,
                                           .status = bad_status,
                                           .close = bad_close};
    struct bad_kv *b = (struct bad_kv *) kv;
    struct bad_iter *i;
    int rc = bad_now(b);

    if (rc < 0)
        return rc;
    i = calloc(1, sizeof(*i));
    assert_non_null(i);
    i->it.ops = &ops;
    i->kv = b;
    assert_int_equal(b->below->ops->iter_open(b->below, &i->below), 0);
    *ret = &i->it;
    return 0;
}

static struct bad_kv bad_kv_over(struct kv *below, long nth, int err) {
    static const struct kv_ops ops = {
        .get = bad_get, .write = bad_write, .iter_open = bad_iter_open};

    return (struct bad_kv){.kv = {.ops = &ops}, .below = below, .left = nth, .err = err};
}

/* ---- the script, everything written back at once, and then read ---------------------------------
 */

static int see_job(void *arg, uint64_t seq, const Chronos__Internal__V1__JobRecord *rec) {
    (void) arg;
    assert_true(seq > 0 && rec);
    return 0;
}

static int see_schedule(void *arg, const struct fsm_schedule *s,
                        const Chronos__Internal__V1__ScheduleRecord *rec) {
    (void) arg;
    assert_true(s && rec);
    return 0;
}

static int read_all(struct fsm *f) {
    struct arena arena;
    int rc;

    arena_init(&arena, 1UL << 20);
    rc = fsm_scan_jobs(f, 1, true, &arena, see_job, NULL);
    if (rc == 0)
        rc = fsm_scan_jobs(f, UINT64_MAX, false, &arena, see_job, NULL);
    if (rc == 0)
        rc = fsm_scan_schedules(f, slice_of("", 0), &arena, see_schedule, NULL);
    if (rc == 0)
        rc = fsm_load_schedules(f, 0, &arena, see_schedule, NULL);
    arena_done(&arena);
    return rc;
}

/* From where the store is to entry @end. 0 with the digest, or the first error. */
static int run(struct kv *kv, const struct fsm_script *s, size_t end, uint8_t digest[16],
               struct errtext *why) {
    const struct fsm_options o = FSM_SCRIPT_OPTIONS;
    struct fsm *f = NULL;
    int rc = fsm_open(kv, &o, &f, why);

    while (rc == 0 && fsm_applied_index(f) < end) {
        rc = fsm_script_apply(f, s, fsm_applied_index(f), why);
        if (rc == 0)
            rc = fsm_write_back(f);
    }
    if (rc == 0)
        rc = read_all(f);
    if (rc == 0)
        fsm_digest(f, digest);
    (void) fsm_free(f);
    return rc;
}

/* Goal: a failing call of the store is forwarded as it is, and what was written before is a good
 * prefix: over the mended store the log leads to the same state. */
static void test_nth_call(void **state) {
    static const int errors[] = {-EIO, ERR_CORRUPT, -ENOSPC};
    uint8_t want[16], got[16];
    struct fsm_script s = {0};
    struct kv *kv = NULL;
    unsigned runs = 0;

    (void) state;
    fsm_script_make(&s);
    assert_int_equal(kv_mem_new(0, &kv), 0);
    assert_int_equal(run(kv, &s, s.count, want, NULL), 0);
    kv->ops->close(kv);
    for (size_t e = 0; e < ARRAY_LEN(errors); e++) {
        bool hit = true;

        for (long n = 1; hit; n++, runs++) {
            struct bad_kv bad;
            int rc;

            assert_int_equal(kv_mem_new(0, &kv), 0);
            bad = bad_kv_over(kv, n, errors[e]);
            rc = run(&bad.kv, &s, s.count, got, NULL);
            hit = bad.hit;
            assert_int_equal(rc, hit ? errors[e] : 0);
            assert_int_equal(run(kv, &s, s.count, got, NULL), 0);
            assert_memory_equal(got, want, sizeof(want));
            kv->ops->close(kv);
        }
    }
    print_message("%u runs\n", runs);
    assert_true(runs > 500);
    fsm_script_done(&s);
}

/* ---- records that are not what was written ------------------------------------------------------
 */

enum spoil { SPOIL_MISSING, SPOIL_EMPTY, SPOIL_CUT, SPOIL_GARBAGE, SPOIL_KINDS };

/* Spoil record @nth. False: there are fewer. */
static bool spoil(struct kv *kv, unsigned nth, enum spoil how) {
    static const uint8_t garbage[] = {0xff, 0xff, 0xff};
    struct kv_op op = {.del = how == SPOIL_MISSING};
    struct bytes *key = NULL, *value = NULL;
    struct kv_iter *it = NULL;

    assert_int_equal(kv->ops->iter_open(kv, &it), 0);
    it->ops->seek(it, slice_of("", 0));
    for (unsigned i = 0; i < nth && it->ops->valid(it); i++)
        it->ops->next(it);
    if (it->ops->valid(it)) {
        struct slice k = it->ops->key(it), v = it->ops->value(it);

        key = bytes_copy(k.data, k.len);
        value = bytes_copy(v.data, v.len);
        assert_true(key && value);
        op.key = bytes_slice(key);
        op.value = how == SPOIL_CUT && v.len > 0 ? slice_of(value->data, v.len - 1)
                   : how == SPOIL_GARBAGE        ? slice_of(garbage, sizeof(garbage))
                                                 : slice_of("", 0);
    }
    it->ops->close(it);
    if (key)
        assert_int_equal(kv->ops->write(kv, &op, 1), 0);
    (void) bytes_unref(key);
    (void) bytes_unref(value);
    return key != NULL;
}

/* The state machine is open when the record goes bad at entry @at, and goes on. */
static int go_on(const struct fsm_script *s, size_t at, unsigned nth, enum spoil how, bool *ret_any,
                 struct errtext *why) {
    const struct fsm_options o = FSM_SCRIPT_OPTIONS;
    struct fsm *f = NULL;
    struct kv *kv = NULL;
    int rc;

    assert_int_equal(kv_mem_new(0, &kv), 0);
    assert_int_equal(fsm_open(kv, &o, &f, NULL), 0);
    for (size_t i = 0; i < at; i++)
        assert_int_equal(fsm_script_apply(f, s, i, NULL), 0);
    assert_int_equal(fsm_write_back(f), 0);
    *ret_any = spoil(kv, nth, how);
    rc = 0;
    for (size_t i = at; rc == 0 && i < s->count; i++)
        rc = fsm_script_apply(f, s, i, why);
    if (rc == 0)
        rc = read_all(f);
    (void) fsm_free(f);
    /* The next start looks at it, too. */
    if (rc == 0)
        rc = fsm_open(kv, &o, &f, why);
    if (rc == 0)
        (void) fsm_free(f);
    kv->ops->close(kv);
    return rc;
}

/* Goal: a record that is missing or does not decode is told as damage, by whoever meets it, and is
 * never an assertion. Method: at some entries of the script each record in each way. */
static void test_spoiled_records(void **state) {
    unsigned runs = 0, told = 0;
    struct fsm_script s = {0};

    (void) state;
    fsm_script_make(&s);
    for (size_t at = 4; at < s.count; at += 9) {
        bool any = true;

        for (unsigned nth = 0; any; nth++) {
            for (int how = 0; how < SPOIL_KINDS; how++) {
                struct errtext why = {""};
                int rc = go_on(&s, at, nth, (enum spoil) how, &any, &why);

                assert_true(rc == 0 || rc == ERR_CORRUPT || rc == ERR_VERSION);
                told += rc < 0;
                runs++;
            }
        }
    }
    print_message("%u records spoiled, %u times told\n", runs, told);
    assert_true(told > 100);
    fsm_script_done(&s);
}

/* What reading everything came to when call @nth of the store failed with @err; *ret_hit: it did.
 */
static int read_over(struct kv *kv, long nth, int err, bool *ret_hit, bool *ret_damaged) {
    const struct fsm_options o = FSM_SCRIPT_OPTIONS;
    struct bad_kv bad = bad_kv_over(kv, 0, err);
    struct fsm *f = NULL;
    int rc;

    assert_int_equal(fsm_open(&bad.kv, &o, &f, NULL), 0);
    assert_false(fsm_store_damaged(f));
    bad.left = nth;
    rc = read_all(f);
    *ret_hit = bad.hit;
    *ret_damaged = fsm_store_damaged(f);
    (void) fsm_free(f);
    return rc;
}

/* Goal: damage that a read meets is remembered, since the node has to end for it; another failure,
 * and a record that is malformed as it was written, are not. */
static void test_damage_is_remembered(void **state) {
    static const int errors[] = {-EIO, ERR_CORRUPT};
    uint8_t digest[16], key[9] = {'j', 0, 0, 0, 0, 0, 0, 0, 1};
    struct kv_op op = {.key = slice_of(key, sizeof(key)), .value = slice_of("\xff", 1)};
    struct fsm_script s = {0};
    struct kv *kv = NULL;
    bool hit, damaged;

    (void) state;
    fsm_script_make(&s);
    assert_int_equal(kv_mem_new(0, &kv), 0);
    assert_int_equal(run(kv, &s, s.count, digest, NULL), 0);
    for (size_t e = 0; e < ARRAY_LEN(errors); e++) {
        long n = 1;

        for (hit = true; hit; n++) {
            int rc = read_over(kv, n, errors[e], &hit, &damaged);

            assert_int_equal(rc, hit ? errors[e] : 0);
            assert_int_equal(damaged, hit && errors[e] == ERR_CORRUPT);
        }
        assert_true(n > 20);
    }
    assert_int_equal(kv->ops->write(kv, &op, 1), 0); /* an ended job: opening does not read it */
    assert_int_equal(read_over(kv, 0, 0, &hit, &damaged), ERR_CORRUPT);
    assert_false(damaged);
    kv->ops->close(kv);
    fsm_script_done(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nth_call),
        cmocka_unit_test(test_spoiled_records),
        cmocka_unit_test(test_damage_is_remembered),
    };

    return cmocka_run_group_tests_name("fsm_store_faults", tests, NULL, NULL);
}
