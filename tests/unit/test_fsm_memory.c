/* The memory that the state machine may use, as fsm.h states it, against what it does use.
 *
 * Every allocation carries a small header, so that what is freed is known; what the store allocates
 * is not counted, for it is not part of the statement. */
#include "schedule_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t m);
void *__real_realloc(void *p, size_t n);
void __real_free(void *p);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t m);
void *__wrap_realloc(void *p, size_t n);
void __wrap_free(void *p);
char *__wrap_strdup(const char *s);

/* In front of each allocation; 16 bytes keep the alignment. */
struct header {
    size_t
        bytes; /* counted: as malloc would have rounded it, with its own header; 0 = not counted */
    size_t pad;
};
STATIC_ASSERT(sizeof(struct header) == 16, "what follows stays aligned");

/* The linker gives the wrappers no context to carry this in. */
static bool counting;
static size_t used, peak;

static size_t cost(size_t n) {
    return MAX((n + 8 + 15) & ~(size_t) 15, (size_t) 32);
}

static void *begin(struct header *h, size_t n) {
    if (!h)
        return NULL;
    *h = (struct header){.bytes = counting ? cost(n) : 0};
    used += h->bytes;
    peak = MAX(peak, used);
    return h + 1;
}

void *__wrap_malloc(size_t n) {
    return begin(__real_malloc(n + sizeof(struct header)), n);
}

void *__wrap_calloc(size_t n, size_t m) {
    assert_true(m == 0 || n <= SIZE_MAX / 2 / m);
    return begin(__real_calloc(1, n * m + sizeof(struct header)), n * m);
}

void *__wrap_realloc(void *p, size_t n) {
    struct header *h = p ? (struct header *) p - 1 : NULL;

    if (h)
        used -= h->bytes;
    return begin(__real_realloc(h, n + sizeof(struct header)), n);
}

void __wrap_free(void *p) {
    struct header *h = p ? (struct header *) p - 1 : NULL;

    if (h)
        used -= h->bytes;
    __real_free(h);
}

char *__wrap_strdup(const char *s) {
    char *copy = __wrap_malloc(strlen(s) + 1);

    if (copy)
        memcpy(copy, s, strlen(s) + 1);
    return copy;
}

/* ---- a store whose memory is not counted -------------------- */

struct quiet_kv {
    struct kv kv;
    struct kv *inner;
    struct buf value;
};

static struct quiet_kv *quiet_of(struct kv *kv) {
    return CONTAINER_OF(kv, struct quiet_kv, kv);
}

static int quiet_get(struct kv *kv, struct slice key, struct buf *out) {
    struct quiet_kv *q = quiet_of(kv);
    bool before = counting;
    int r;

    counting = false;
    buf_clear(&q->value);
    r = q->inner->ops->get(q->inner, key, &q->value);
    counting = before;
    return r == 0 ? buf_append(out, q->value.data, q->value.len) : r;
}

static int quiet_write(struct kv *kv, const struct kv_op *ops, size_t n) {
    bool before = counting;
    int r;

    counting = false;
    r = quiet_of(kv)->inner->ops->write(quiet_of(kv)->inner, ops, n);
    counting = before;
    return r;
}

static int quiet_iter_open(struct kv *kv, struct kv_iter **ret) {
    bool before = counting;
    int r;

    counting = false;
    r = quiet_of(kv)->inner->ops->iter_open(quiet_of(kv)->inner, ret);
    counting = before;
    return r;
}

static const struct kv_ops quiet_ops = {
    .get = quiet_get,
    .write = quiet_write,
    .iter_open = quiet_iter_open,
};

/* ---- the worlds -------------------- */

struct world {
    struct quiet_kv store;
    struct fixture x;
};

static void world_init(struct world *w) {
    *w = (struct world){.store.kv.ops = &quiet_ops, .x = {.now_ms = 1000000, .term = 1}};
    buf_init(&w->store.value, 1 << 24);
    assert_int_equal(kv_mem_new(0, &w->store.inner), 0);
    w->x.kv = &w->store.kv;
    used = peak = 0;
    counting = true;
    assert_int_equal(fsm_open(w->x.kv, &w->x.options, &w->x.f, &w->x.err), 0);
    counting = false;
}

static void world_done(struct world *w) {
    w->x.f = fsm_free(w->x.f);
    assert_int_equal(used, 0); /* all that was counted was the state machine's */
    buf_done(&w->store.value);
    w->store.inner->ops->close(w->store.inner);
}

/* Apply with the state machine's memory counted; the command's own is not. */
static void apply(struct world *w, struct bytes *b) {
    int r;

    counting = true;
    r = fixture_apply(&w->x, b);
    if (r == 0 && fsm_wants_write_back(w->x.f))
        r = fsm_write_back(w->x.f);
    counting = false;
    assert_int_equal(r, 0);
    for (size_t i = 0; i < w->x.out->results_count; i++)
        assert_int_equal(w->x.out->results[i].code, FSM_OK);
    (void) bytes_unref(b);
}

static void settle(struct world *w) {
    counting = true;
    assert_int_equal(fsm_write_back(w->x.f), 0);
    counting = false;
}

static void submit_many(struct world *w, size_t from, size_t to, bool keyed) {
    char key[FSM_IDEMPOTENCY_KEY_BYTES_MAX + 1];

    for (size_t i = from; i < to; i++) {
        (void) snprintf(key, sizeof(key), "%0*zu", FSM_IDEMPOTENCY_KEY_BYTES_MAX - 2, i);
        apply(w, cmd_submit("a specification of some length, as jobs have it", keyed ? key : "",
                            "hash", 3, w->x.now_ms));
    }
}

/* That the statement holds for @n things, now and at the peak; and, so that the base hides nothing,
 * that from the half of them to all of them no more than @each was taken for one, but more than
 * half of it: the figure is no wild guess either. (A table that doubles has doubled in between.) */
static void demand(const char *what, size_t n, size_t each, size_t used_at_half) {
    size_t overlay = FSM_MEMORY_OVERLAY_BYTES(8UL * 1024 * 1024);
    size_t per_thing = (used - used_at_half) / (n - n / 2);

    print_message("%s: %zu: %zu bytes in use, %zu at the peak; %zu each, stated %zu\n", what, n,
                  used, peak, per_thing, each);
    assert_true(used <= FSM_MEMORY_BASE_BYTES + n * each); /* written back: no overlay */
    assert_true(peak <= FSM_MEMORY_BASE_BYTES + overlay + n * each);
    assert_true(used - used_at_half <= (n - n / 2) * each);
    assert_true(per_thing > each / 2);
}

/* Goal: the stated memory per pending job holds at 10,000 and at 100,000; running it costs no more.
 */
static void test_jobs(void **state) {
    static const size_t counts[] = {10000, 100000};

    (void) state;
    for (size_t i = 0; i < ARRAY_LEN(counts); i++) {
        size_t half, pending;
        struct world w;

        world_init(&w);
        apply(&w, cmd_register("w1", 1, FSM_WORKER_SLOTS_MAX, 1, NULL, 0, 1));
        submit_many(&w, 0, counts[i] / 2, false);
        settle(&w);
        half = used;
        submit_many(&w, counts[i] / 2, counts[i], false);
        settle(&w);
        demand("pending jobs", counts[i], FSM_MEMORY_JOB_BYTES, half);
        pending = used;
        for (uint64_t seq = 1; seq <= FSM_WORKER_SLOTS_MAX; seq++)
            apply(&w, cmd_assign(seq, "w1", 1, 1));
        settle(&w);
        assert_true(used <= FSM_MEMORY_BASE_BYTES + counts[i] * FSM_MEMORY_JOB_BYTES);
        assert_true(used <= pending + FSM_MEMORY_BASE_BYTES / 8); /* scratch of a longer list */
        world_done(&w);
    }
}

/* Goal: a job that has ended costs no memory. */
static void test_ended_jobs(void **state) {
    size_t before = 0;
    struct world w;

    (void) state;
    world_init(&w);
    apply(&w, cmd_register("w1", 1, 1, 1, NULL, 0, 1));
    for (uint64_t seq = 1; seq <= 90000; seq++) {
        apply(&w, cmd_submit("spec", "", "", 1, 1));
        apply(&w, cmd_assign(seq, "w1", 1, 1));
        apply(&w, cmd_update(seq, fsm_applied_index(w.x.f),
                             CHRONOS__V1__ATTEMPT_OUTCOME__ATTEMPT_OUTCOME_COMPLETED, 0, 1));
        if (seq % 30000 != 0)
            continue;
        settle(&w);
        print_message("ended jobs: %llu: %zu bytes in use\n", (unsigned long long) seq, used);
        assert_true(before == 0 || used <= before);
        before = used;
    }
    assert_true(used <= FSM_MEMORY_BASE_BYTES);
    world_done(&w);
}

/* Goal: the stated memory per idempotency key, at the longest keys there are. */
static void test_keys(void **state) {
    struct world w;
    size_t half;

    (void) state;
    world_init(&w);
    submit_many(&w, 0, 20000, true);
    settle(&w);
    half = used;
    submit_many(&w, 20000, 40000, true);
    settle(&w);
    demand("jobs with keys", 40000, FSM_MEMORY_JOB_BYTES + FSM_MEMORY_KEY_BYTES, half);
    world_done(&w);
}

/* Goal: the stated memory per worker, at the most and with the longest names. */
static void test_workers(void **state) {
    char id[FSM_WORKER_ID_BYTES_MAX + 1];
    struct world w;
    size_t half = 0;

    (void) state;
    world_init(&w);
    for (int i = FSM_WORKERS_MAX; i > 0; i--) {
        (void) snprintf(id, sizeof(id), "%0*d", FSM_WORKER_ID_BYTES_MAX, i);
        apply(&w, cmd_register(id, 1, 1, 1, NULL, 0, 1));
        if (i != FSM_WORKERS_MAX / 2 + 1)
            continue;
        settle(&w);
        half = used;
    }
    settle(&w);
    demand("workers", FSM_WORKERS_MAX, FSM_MEMORY_WORKER_BYTES, half);
    world_done(&w);
}

/* Goal: the stated memory per node that ever was a member. */
static void test_nodes(void **state) {
    struct world w;
    size_t half = 0;

    (void) state;
    world_init(&w);
    for (uint64_t id = 1; id <= 2000; id++) {
        struct bytes *config = config_of(&id, 1);

        counting = true;
        fixture_config(&w.x, bytes_ref(config));
        counting = false;
        (void) bytes_unref(config);
        if (id != 1000)
            continue;
        settle(&w);
        half = used;
    }
    settle(&w);
    demand("nodes", 2000, FSM_MEMORY_NODE_BYTES, half);
    world_done(&w);
}

static void put_many(struct world *w, size_t from, size_t to) {
    char name[FSM_SCHEDULE_NAME_BYTES_MAX + 1];

    for (size_t i = from; i < to; i++) {
        const struct put_args p = {.name = name};

        (void) snprintf(name, sizeof(name), "%0*zu", FSM_SCHEDULE_NAME_BYTES_MAX, i);
        apply(w, cmd_put_schedule(&p, w->x.now_ms));
    }
}

/* Goal: the stated memory per schedule, with the longest names. */
static void test_schedules(void **state) {
    struct world w;
    size_t half;

    (void) state;
    world_init(&w);
    put_many(&w, 0, 50000);
    settle(&w);
    half = used;
    put_many(&w, 50000, 100000);
    settle(&w);
    demand("schedules", 100000, FSM_MEMORY_SCHEDULE_BYTES, half);
    world_done(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_jobs),  cmocka_unit_test(test_ended_jobs),
        cmocka_unit_test(test_keys),  cmocka_unit_test(test_workers),
        cmocka_unit_test(test_nodes), cmocka_unit_test(test_schedules),
    };

    return cmocka_run_group_tests_name("fsm_memory", tests, NULL, NULL);
}
