#include "fsm/idem.h"

#include "base/rand.h"
#include "fsm/record.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

/* What entry @n must be: keys of all lengths, so that every way of filling a chunk occurs. */
static size_t key_of(uint64_t n, uint8_t out[RECORD_NAME_BYTES_MAX]) {
    size_t len = 1 + n * 31 % RECORD_NAME_BYTES_MAX;

    memset(out, (int) (n & 0xff), len);
    return len;
}

/* Goal: first in, first out, nothing lost or changed across chunks, also when it runs empty.
 * Method: 200,000 random pushes and pops, entry n is known from n; printed seed. */
static void test_order(void **state) {
    struct rng rng = rng_seed(3);
    uint64_t pushed = 0, popped = 0, emptied = 0;
    uint8_t key[RECORD_NAME_BYTES_MAX];
    struct idem_front front;
    struct idem q;

    (void) state;
    print_message("seed 3\n");
    idem_init(&q);
    assert_false(idem_peek(&q, &front));
    for (int i = 0; i < 200000; i++) {
        bool filling = (i / 5000) % 2 == 0;

        if (rng_chance(&rng, filling ? 700 : 250)) {
            size_t len = key_of(pushed, key);

            assert_int_equal(idem_push(&q, (int64_t) pushed * 3, pushed + 1, slice_of(key, len)),
                             0);
            pushed++;
            continue;
        }
        assert_int_equal(idem_peek(&q, &front), pushed > popped);
        if (pushed == popped) {
            emptied++;
            continue;
        }
        assert_int_equal(front.job_seq, popped + 1);
        assert_int_equal(front.created_at_ms, popped * 3);
        assert_int_equal(front.key.len, key_of(popped, key));
        assert_memory_equal(front.key.data, key, front.key.len);
        idem_pop(&q);
        popped++;
    }
    assert_true(emptied > 10);
    assert_true(popped > 50000);
    idem_done(&q);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_order)};

    return cmocka_run_group_tests_name("idem", tests, NULL, NULL);
}
