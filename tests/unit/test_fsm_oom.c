/* Every allocation of the state machine and of placement fails once. */
#include "schedule_fixture.h"

#include "sched/sched.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define O(x) CHRONOS__V1__ATTEMPT_OUTCOME__ATTEMPT_OUTCOME_##x
#define LIVES 8

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t m);
void *__real_realloc(void *p, size_t n);
char *__real_strdup(const char *s);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t m);
void *__wrap_realloc(void *p, size_t n);
char *__wrap_strdup(const char *s);

/* The linker gives the wrappers no context to carry this in. */
static long countdown = -1; /* the allocation that fails; -1 = none */

static bool fails(void) {
    return countdown >= 0 && countdown-- == 0;
}

void *__wrap_malloc(size_t n) {
    return fails() ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t m) {
    return fails() ? NULL : __real_calloc(n, m);
}

void *__wrap_realloc(void *p, size_t n) {
    return fails() ? NULL : __real_realloc(p, n);
}

char *__wrap_strdup(const char *s) {
    return fails() ? NULL : __real_strdup(s);
}

struct script {
    struct bytes *commands[200];
    bool is_config[200];
    size_t count;
};

static void add(struct script *s, struct bytes *b) {
    assert_true(s->count < ARRAY_LEN(s->commands));
    s->commands[s->count++] = b;
}

static void add_config(struct script *s, struct bytes *b) {
    s->is_config[s->count] = true;
    add(s, b);
}

static int apply(struct fsm *f, const struct script *s, size_t i, struct errtext *e) {
    const struct fsm_output *out;

    if (s->is_config[i])
        return fsm_apply_config(f, i + 1, 1, bytes_slice(s->commands[i]), &out, e);
    return fsm_apply(f, i + 1, 1, bytes_slice(s->commands[i]), &out, e);
}

/* Members come and go, say where they are, and drain; so do workers. */
static void add_cluster(struct script *s) {
    static const uint64_t one[] = {1}, three[] = {1, 2, 3}, two[] = {1, 3};

    add_config(s, config_of(one, 1));
    add(s, cmd_set_node(1, 0xd1, "a:1", "a:2", 2, 1000));
    add_config(s, config_of(three, 3));
    add(s, cmd_set_node(2, 0xd2, "b:1", "b:2", 2, 1000));
    add(s, cmd_set_node(3, 0xd3, "c:1", "c:2", 2, 1000));
    add(s, cmd_set_feature_level(2, 1000));
    add(s, cmd_drain(1, "", true, 500, 1000));
    add(s, cmd_drain(0, "w1", true, 900, 1000));
    add(s, cmd_drain(1, "", false, 0, 1000));
    add_config(s, config_of(two, 2));
    add(s, cmd_drain(0, "w1", false, 0, 1000));
}

/* Schedules are made, fire, wait, are paused, edited, run by hand and deleted. Two schedules; no
 * job of theirs gets a worker. */
static void add_schedules(struct script *s) {
    static const struct tick_args ticks[] = {
        {2, 3, 2, R_(MISSED)}, {4, 0, 0, R_(CATCH_UP)}, {5, 0, 0, R_(ON_TIME)}};
    static const int64_t past[] = {1, 2};
    struct put_args p = {.name = "a", .key = "ka", .hash = "h", .overlap = P_(BUFFER_ALL)};

    add(s, cmd_put_schedule(&p, 500));
    add(s, cmd_put_schedule(&p, 500));
    add(s, cmd_ticks(1, 1, 5, ticks, 3, 5000));
    add(s, cmd_pause_schedule("a", true, 0, "why", 5000));
    add(s, cmd_pause_schedule("", true, 900000, "all", 5000));
    add(s, cmd_pause_schedule("", false, 0, "", 5000));
    add(s, cmd_schedule_alarm(1, "no zone", 5000));
    add(s, cmd_run_schedule("a", R_(BACKFILL), past, 2, true, "kr", "h", 5000));
    add(s, cmd_cancel(LIVES + 2, 5000));
    p = (struct put_args){.name = "a", .replace = true, .new_generation = true};
    add(s, cmd_put_schedule(&p, 6000));
    p = (struct put_args){.name = "b", .overlap = P_(CANCEL_OTHER), .paused = true};
    add(s, cmd_put_schedule(&p, 6000));
    add(s, cmd_run_schedule("b", R_(TRIGGER), NULL, 0, false, NULL, NULL, 6000));
    add(s, cmd_run_schedule("b", R_(TRIGGER), NULL, 0, false, NULL, NULL, 7000));
    add(s, cmd_delete_schedule("b", 0, true, 7000));
}

/* Registrations, keyed submits, assignments, reports of all kinds, losses, expiry. */
static void make_script(struct script *s) {
    static const uint64_t held[1][2] = {{1, 12}};
    uint64_t index;

    add(s, cmd_register("w1", 1, 100, 1, NULL, 0, 1000));
    for (int i = 0; i < LIVES; i++) {
        char key[8] = {'k', (char) ('0' + i), 0};

        add(s, cmd_submit("spec", key, "h", 2, 1000));
    }
    for (uint64_t i = 1; i <= LIVES; i++)
        add(s, cmd_assign(i, "w1", 1, 1000));
    index = 1 + LIVES;
    add(s, cmd_update(1, index + 1, O(COMPLETED), 0, 1000));
    add(s, cmd_update(2, index + 2, O(FAILED), 1, 1000));
    add(s, cmd_update(3, index + 3, O(RELEASED), 0, 1000));
    add(s, cmd_update(1, index + 1, O(COMPLETED), 0, 1000));
    add(s, cmd_cancel(4, 1000));
    add(s, cmd_cancel(3, 1000));
    add(s, cmd_register("w1", 2, 50, 1, held, 1, 1000));
    add(s, cmd_register("w2", 1, 4, 1, NULL, 0, 1000));
    add_cluster(s);
    add_schedules(s);
    add(s, cmd_drain(0, "w2", true, 900, 1000));
    add(s, cmd_register("w2", 2, 4, 3, NULL, 0, 1000));
    add(s, cmd_lose("w1", 2, 2000));
    add(s, cmd_submit("again", "k0", "h", 2, 1000 + 2 * FSM_IDEMPOTENCY_KEEP_MS));
}

/* 0, or the first error: the rest of the script with plans, write-backs and one restart. */
static int run(struct kv *kv, const struct script *s) {
    const struct fsm_options o = {.idempotency_max = LIVES / 2, .feature_level_max = 2};
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

        r = apply(f, s, i, &e);
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
    struct script s = {0};
    uint8_t want[16] = {0}, got[16];
    bool done = false;
    long n;

    (void) state;
    make_script(&s);
    for (n = -1; !done; n++) {
        struct fsm *f = NULL;
        struct kv *kv = NULL;
        int r;

        assert_int_equal(kv_mem_new(0, &kv), 0);
        countdown = n;
        r = run(kv, &s);
        done = n >= 0 && countdown >= 0; /* fewer than n allocations were made */
        countdown = -1;
        assert_int_equal(r, n < 0 || done ? 0 : -ENOMEM);
        assert_int_equal(run(kv, &s), 0);
        assert_int_equal(
            fsm_open(kv,
                     &(struct fsm_options){.idempotency_max = LIVES / 2, .feature_level_max = 2},
                     &f, NULL),
            0);
        for (size_t i = fsm_applied_index(f); i < s.count; i++)
            assert_int_equal(apply(f, &s, i, NULL), 0);
        fsm_check_invariants(f);
        assert_int_equal(fsm_schedules_count(f), 1);
        assert_int_equal(fsm_schedule_first(f)->generation, 2);
        fsm_digest(f, got);
        if (n < 0)
            memcpy(want, got, sizeof(want));
        assert_memory_equal(want, got, sizeof(want));
        (void) fsm_free(f);
        kv->ops->close(kv);
    }
    print_message("%ld allocations\n", n);
    assert_true(n > 50);
    for (size_t i = 0; i < s.count; i++)
        (void) bytes_unref(s.commands[i]);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_allocation)};

    return cmocka_run_group_tests_name("fsm_oom", tests, NULL, NULL);
}
