/* Goal: the hand-made encoding of a submit is exactly what the general encoder makes, is accepted
 * by the log's own check, and survives running out of memory.
 * Method: both encoders over random valid items; the n-th allocation fails for every n. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "api/submit_encode.h"
#include "api/validate_job.h"
#include "base/rand.h"
#include "fsm/command.h"
#include "nth_memory.h"

#define ROUNDS 500
#define ITEMS_MAX 7

/* A random shell job, validated. */
static struct submit_item random_item(struct arena *arena, struct rng *rng) {
    Chronos__V1__JobSpec *spec = arena_alloc(arena, sizeof(*spec));
    struct submit_item item = {0};
    char *line = arena_alloc(arena, 400);
    size_t len = 1 + rng_below(rng, 399);

    chronos__v1__job_spec__init(spec);
    memset(line, 'x', len);
    line[len] = '\0';
    spec->payload_case = CHRONOS__V1__JOB_SPEC__PAYLOAD_SHELL;
    spec->shell = line;
    spec->max_attempts = (uint32_t) rng_below(rng, 101);
    if (rng_chance(rng, 500))
        spec->queue = arena_printf(arena, "q%d", (int) rng_below(rng, 1000));
    assert_int_equal(validate_job(spec, arena, &item.spec_bytes, NULL), 0);
    item.spec = spec;
    item.key =
        rng_chance(rng, 500) ? arena_printf(arena, "key-%d", (int) rng_below(rng, 1000)) : "";
    return item;
}

/* The same through command_encode. */
static struct bytes *general(struct arena *arena, const struct submit_item *items, size_t n) {
    Chronos__Internal__V1__LogCommand cmd = CHRONOS__INTERNAL__V1__LOG_COMMAND__INIT;
    Chronos__Internal__V1__SubmitJob body = CHRONOS__INTERNAL__V1__SUBMIT_JOB__INIT;
    Chronos__Internal__V1__SubmitJobItem raw[ITEMS_MAX], *list[ITEMS_MAX];
    struct bytes *out = NULL;

    for (size_t i = 0; i < n; i++) {
        chronos__internal__v1__submit_job_item__init(&raw[i]);
        raw[i].spec.data = arena_alloc(arena, items[i].spec_bytes);
        raw[i].spec.len = chronos__v1__job_spec__pack(items[i].spec, raw[i].spec.data);
        raw[i].idempotency_key = (char *) (uintptr_t) items[i].key;
        raw[i].max_attempts = items[i].spec->max_attempts;
        raw[i].queue = items[i].spec->queue;
        if (items[i].key[0] != '\0') {
            XXH128_canonical_t h;

            XXH128_canonicalFromHash(&h, XXH3_128bits(raw[i].spec.data, raw[i].spec.len));
            raw[i].request_hash.data = arena_memdup(arena, h.digest, 16);
            raw[i].request_hash.len = 16;
        }
        list[i] = &raw[i];
    }
    body.items = list;
    body.n_items = n;
    cmd.body_case = CHRONOS__INTERNAL__V1__LOG_COMMAND__BODY_SUBMIT_JOB;
    cmd.submit_job = &body;
    assert_int_equal(command_encode(&cmd, &out), 0);
    return out;
}

/* Goal: byte for byte the same, and what the log accepts. */
static void test_equals_general_encoder(void **state) {
    struct rng rng = rng_seed(7);
    struct arena arena;

    (void) state;
    print_message("seed 7\n");
    arena_init(&arena, 1024 * 1024);
    for (int round = 0; round < ROUNDS; round++) {
        struct submit_item items[ITEMS_MAX];
        size_t n = 1 + rng_below(&rng, ITEMS_MAX);
        struct bytes *fast = NULL, *slow;
        struct errtext e;

        arena_clear(&arena);
        for (size_t i = 0; i < n; i++)
            items[i] = random_item(&arena, &rng);
        assert_int_equal(submit_encode(items, n, &fast), 0);
        slow = general(&arena, items, n);
        assert_int_equal(fast->len, slow->len);
        /* Up to the time, whose placeholder is each encoder's own affair. */
        assert_memory_equal(fast->data, slow->data, fast->len - 8);
        command_stamp(fast, (struct wall){1234567});
        assert_int_equal(command_check(bytes_slice(fast), &e), 0);
        (void) bytes_unref(fast);
        (void) bytes_unref(slow);
    }
    arena_done(&arena);
}

/* Goal: equal requests hash equally, different ones differently. */
static void test_hash_tells_requests_apart(void **state) {
    struct rng rng = rng_seed(9);
    struct bytes *a = NULL, *b = NULL;
    struct submit_item x, y;
    struct arena arena;

    (void) state;
    arena_init(&arena, 1024 * 1024);
    x = random_item(&arena, &rng);
    x.key = "same";
    y = x;
    assert_int_equal(submit_encode(&x, 1, &a), 0);
    assert_int_equal(submit_encode(&y, 1, &b), 0);
    assert_int_equal(a->len, b->len);
    assert_memory_equal(a->data, b->data, a->len);
    (void) bytes_unref(b);
    ((char *) (uintptr_t) y.spec->shell)[0] = 'y';
    assert_int_equal(submit_encode(&y, 1, &b), 0);
    assert_int_equal(a->len, b->len);
    assert_memory_not_equal(a->data + a->len - 60, b->data + b->len - 60, 60);
    (void) bytes_unref(a);
    (void) bytes_unref(b);
    arena_done(&arena);
}

/* Goal: no memory is -ENOMEM, nothing leaks, the output is untouched. */
static void test_out_of_memory(void **state) {
    struct rng rng = rng_seed(11);
    struct bytes *out = NULL;
    struct submit_item item;
    struct arena arena;
    int r;

    (void) state;
    arena_init(&arena, 1024 * 1024);
    item = random_item(&arena, &rng);
    nth_memory_begin(1);
    r = submit_encode(&item, 1, &out);
    nth_memory_end();
    assert_int_equal(r, -ENOMEM);
    assert_null(out);
    arena_done(&arena);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equals_general_encoder),
        cmocka_unit_test(test_hash_tells_requests_apart),
        cmocka_unit_test(test_out_of_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
