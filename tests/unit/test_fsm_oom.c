/* Every allocation of the state machine and of placement fails once. */
#include "fsm_script.h"

#include "sched/sched.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "nth_memory.h"

/* 0, or the first error: the rest of the script with plans, write-backs and one restart. */
static int run(struct kv *kv, const struct fsm_script *s) {
    const struct fsm_options o = {.idempotency_max = FSM_SCRIPT_LIVES / 2, .feature_level_max = 2};
    Chronos__Internal__V1__AssignJobItem items[4];
    bool restarted = false;
    struct fsm *f = NULL;
    struct sched *sched = NULL;
    struct errtext e;
    uint64_t plan;
    size_t n;
    int r = sched_new(&sched);

    if (r == 0)
        r = fsm_open(kv, &o, &f, &e);
    while (r == 0 && fsm_applied_index(f) < s->count) {
        uint64_t i = fsm_applied_index(f);

        r = fsm_script_apply(f, s, i, &e);
        if (r == 0)
            r = sched_plan(sched, f, NULL, items, ARRAY_LEN(items), &n, &plan);
        if (r == 0 && n > 0 && i % 3 == 0)
            sched_plan_done(sched, plan);
        if (r == 0 && i % 7 == 6)
            r = fsm_write_back(f);
        if (r == 0 && i == s->count / 2 && !restarted) {
            f = fsm_free(f); /* what was not written back is applied again */
            r = fsm_open(kv, &o, &f, &e);
            restarted = true;
        }
    }
    (void) fsm_free(f);
    (void) sched_free(sched);
    return r;
}

/* Goal: when memory runs out anywhere, the error is -ENOMEM, nothing crashes or leaks, and a fresh
 * start on the same store finishes the script with the same digest.
 * Method: the nth allocation fails, for every n until none does. The store's allocations count too:
 * a batch it could not take leaves it as it was. */
static void test_every_allocation(void **state) {
    struct fsm_script s = {0};
    uint8_t want[16] = {0}, got[16];
    bool done = false;
    long n;

    (void) state;
    fsm_script_make(&s);
    for (n = 0; !done; n++) {
        struct fsm *f = NULL;
        struct kv *kv = NULL;
        int r;

        assert_int_equal(kv_mem_new(0, &kv), 0);
        nth_memory_begin(n);
        r = run(kv, &s);
        nth_memory_end();
        done = n > 0 && !nth_memory_failed;
        assert_int_equal(r, nth_memory_failed ? -ENOMEM : 0);
        assert_int_equal(run(kv, &s), 0);
        assert_int_equal(fsm_open(kv,
                                  &(struct fsm_options){.idempotency_max = FSM_SCRIPT_LIVES / 2,
                                                        .feature_level_max = 2},
                                  &f, NULL),
                         0);
        for (size_t i = fsm_applied_index(f); i < s.count; i++)
            assert_int_equal(fsm_script_apply(f, &s, i, NULL), 0);
        fsm_check_invariants(f);
        assert_int_equal(fsm_schedules_count(f), 1);
        assert_int_equal(fsm_schedule_first(f)->generation, 2);
        fsm_digest(f, got);
        if (n == 0) /* nothing failed */
            memcpy(want, got, sizeof(want));
        assert_memory_equal(want, got, sizeof(want));
        (void) fsm_free(f);
        kv->ops->close(kv);
    }
    print_message("%ld allocations\n", n - 2);
    assert_true(n > 50);
    fsm_script_done(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_allocation)};

    return cmocka_run_group_tests_name("fsm_oom", tests, NULL, NULL);
}
