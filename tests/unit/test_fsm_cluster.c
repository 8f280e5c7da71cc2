/* What the state machine knows of the cluster itself: configurations, nodes, draining, the feature
 * level, and where its store came from. */
#include "fsm_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define S(x) CHRONOS__V1__JOB_STATE__JOB_STATE_##x
#define LEVELS 3 /* what the program under test is told to know */

static const uint64_t three[] = {1, 2, 3};
static const uint64_t without_two[] = {1, 3};
static const uint64_t with_four[] = {1, 3, 4};

static void world(struct fixture *x) {
    const struct fsm_options o = {.feature_level_max = LEVELS};

    fixture_init(x, &o);
    fixture_config(x, config_of(three, ARRAY_LEN(three)));
}

static enum fsm_code set_node(struct fixture *x, uint64_t node, uint8_t disk, const char *peer,
                              const char *client, uint32_t feature_max) {
    return fixture_do(x, cmd_set_node(node, disk, peer, client, feature_max, x->now_ms));
}

static enum fsm_code drain(struct fixture *x, uint64_t node, const char *worker, bool on,
                           int64_t timeout_ms) {
    return fixture_do(x, cmd_drain(node, worker, on, timeout_ms, x->now_ms));
}

static enum fsm_code do_register(struct fixture *x, const char *id, uint64_t incarnation,
                                 uint64_t node) {
    return fixture_do(x, cmd_register(id, incarnation, 4, node, NULL, 0, x->now_ms));
}

static void digest_of(const struct fixture *x, uint8_t ret[16]) {
    fsm_digest(x->f, ret);
}

/* Write back, open again: the same digest. */
static void reopen_same(struct fixture *x) {
    uint8_t before[16], after[16];

    digest_of(x, before);
    assert_int_equal(fsm_write_back(x->f), 0);
    fixture_reopen(x);
    digest_of(x, after);
    assert_memory_equal(before, after, 16);
    fsm_check_invariants(x->f);
}

/* Goal: a configuration is kept with its index, and every id that was a member has a record for
 * ever, also after a restart (W15). Method: grow, shrink, grow again. */
static void test_config(void **state) {
    struct bytes *last = config_of(with_four, ARRAY_LEN(with_four));
    uint64_t index = 99;
    struct slice config;
    struct fixture x;

    (void) state;
    fixture_init(&x, NULL);
    assert_int_equal(fsm_config(x.f, &index).len, 0);
    assert_int_equal(index, 0);
    assert_null(fsm_node_first(x.f));
    fixture_config(&x, config_of(three, ARRAY_LEN(three)));
    assert_true(x.out->nodes_changed);
    assert_int_equal(x.out->kind, 0);
    assert_int_equal(x.out->results_count, 0);
    assert_int_equal(fsm_applied_index(x.f), 1);
    assert_string_equal(fsm_node_find(x.f, 2)->peer_address, "n2:1");
    assert_string_equal(fsm_node_find(x.f, 2)->client_address, "");
    assert_false(fsm_node_find(x.f, 2)->bound);
    fixture_config(&x, config_of(without_two, ARRAY_LEN(without_two)));
    assert_true(fsm_node_find(x.f, 2)->removed);
    fixture_config(&x, bytes_ref(last));
    reopen_same(&x);
    config = fsm_config(x.f, &index);
    assert_int_equal(index, 3);
    assert_int_equal(config.len, last->len);
    assert_memory_equal(config.data, last->data, last->len);
    assert_int_equal(fsm_node_first(x.f)->id, 1);
    assert_true(fsm_node_find(x.f, 2)->removed);
    assert_false(fsm_node_find(x.f, 4)->removed);
    assert_null(fsm_node_find(x.f, 5));
    (void) bytes_unref(last);
    fixture_done(&x);
}

/* Goal: the digest tells configurations apart, their index too, and each node's facts. */
static void test_config_in_digest(void **state) {
    uint8_t d[4][16];
    struct fixture x;

    (void) state;
    world(&x);
    digest_of(&x, d[0]);
    fixture_config(&x, config_of(three, ARRAY_LEN(three))); /* the same members, a later entry */
    digest_of(&x, d[1]);
    assert_int_equal(set_node(&x, 1, 0xd1, "", "", 1), FSM_OK);
    digest_of(&x, d[2]);
    assert_int_equal(drain(&x, 1, "", true, 5), FSM_OK);
    digest_of(&x, d[3]);
    for (size_t i = 0; i < ARRAY_LEN(d); i++)
        for (size_t k = 0; k < i; k++)
            assert_memory_not_equal(d[i], d[k], 16);
    fixture_done(&x);
}

/* Goal: two configurations of the same members at the same index have different digests when a role
 * differs: the bytes count, not only what the node records take from them. */
static void test_config_bytes_in_digest(void **state) {
    struct bytes *voters = config_of(three, ARRAY_LEN(three));
    struct bytes *learner = bytes_copy(voters->data, voters->len);
    uint8_t a[16], b[16];
    struct fixture x;
    size_t i = 0;

    (void) state;
    assert_non_null(learner);
    while (memcmp(learner->data + i, "\x10\x01", 2) != 0) /* the first member's flags */
        assert_true(++i < learner->len - 2);
    learner->data[i + 1] = 4;
    fixture_init(&x, NULL);
    fixture_config(&x, voters);
    digest_of(&x, a);
    fixture_done(&x);
    fixture_init(&x, NULL);
    fixture_config(&x, learner);
    digest_of(&x, b);
    fixture_done(&x);
    assert_memory_not_equal(a, b, 16);
}

/* Goal: an address comes with the member, changes with SetNode, is not undone by a configuration
 * that only repeats what the one before said, and changes again with one that says something new.
 */
static void test_addresses(void **state) {
    struct fixture x;

    (void) state;
    world(&x);
    assert_int_equal(set_node(&x, 3, 0xd3, "moved:1", "moved:2", 1), FSM_OK);
    assert_true(x.out->nodes_changed);
    fixture_config(&x, config_of(without_two, ARRAY_LEN(without_two)));
    assert_string_equal(fsm_node_find(x.f, 3)->peer_address, "moved:1");
    assert_int_equal(set_node(&x, 3, 0xd3, "", "", 2), FSM_OK); /* not said: as it was */
    assert_string_equal(fsm_node_find(x.f, 3)->peer_address, "moved:1");
    assert_string_equal(fsm_node_find(x.f, 3)->client_address, "moved:2");
    assert_int_equal(fsm_node_find(x.f, 3)->feature_max, 2);
    fixture_config(&x, config_at(without_two, ARRAY_LEN(without_two), "9"));
    assert_string_equal(fsm_node_find(x.f, 3)->peer_address, "n3:19");
    reopen_same(&x);
    assert_string_equal(fsm_node_find(x.f, 3)->client_address, "moved:2");
    fixture_done(&x);
}

/* Goal: an id belongs to the disk first heard of; another one, a removed or unknown node, and
 * malformed facts are refused with a reason, and nothing changes (W15). */
static void test_set_node_refused(void **state) {
    char long_address[200];
    uint8_t before[16], after[16];
    struct fixture x;

    (void) state;
    world(&x);
    memset(long_address, 'a', sizeof(long_address));
    long_address[FSM_ADDRESS_BYTES_MAX + 1] = '\0';
    assert_int_equal(set_node(&x, 1, 0xd1, "a:1", "a:2", 1), FSM_OK);
    assert_null(x.out->results[0].reason);
    assert_true(fsm_node_find(x.f, 1)->bound);
    assert_int_equal(fsm_node_find(x.f, 1)->disk[15], 0xd1);
    fixture_config(&x, config_of(without_two, ARRAY_LEN(without_two)));
    digest_of(&x, before);
    assert_int_equal(set_node(&x, 1, 0xd1, "a:1", "a:2", 1), FSM_OK); /* nothing new */
    assert_false(x.out->nodes_changed);
    assert_int_equal(set_node(&x, 1, 0xd9, "a:1", "a:2", 1), FSM_REFUSED);
    assert_non_null(strstr(x.out->results[0].reason, "another data directory"));
    assert_int_equal(set_node(&x, 2, 0xd2, "a:1", "a:2", 1), FSM_REFUSED);
    assert_non_null(strstr(x.out->results[0].reason, "removed"));
    assert_int_equal(set_node(&x, 3, 0, "a:1", "a:2", 1), FSM_REFUSED);
    assert_non_null(strstr(x.out->results[0].reason, "disk: must be 16 bytes"));
    assert_int_equal(set_node(&x, 3, 0xd3, long_address, "", 1), FSM_REFUSED);
    assert_non_null(strstr(x.out->results[0].reason, "peer_address"));
    assert_int_equal(set_node(&x, 3, 0xd3, "", long_address, 1), FSM_REFUSED);
    assert_non_null(strstr(x.out->results[0].reason, "client_address"));
    assert_int_equal(set_node(&x, 7, 0xd7, "a:1", "a:2", 1), FSM_NOT_FOUND);
    assert_int_equal(set_node(&x, 0, 0xd7, "a:1", "a:2", 1), FSM_NOT_FOUND);
    assert_false(x.out->nodes_changed);
    digest_of(&x, after);
    assert_memory_equal(before, after, 16);
    long_address[FSM_ADDRESS_BYTES_MAX] = '\0';
    assert_int_equal(set_node(&x, 3, 0xd3, long_address, long_address, 1), FSM_OK);
    reopen_same(&x);
    fixture_done(&x);
}

/* Goal: a worker drains by itself or through its node, until the earlier of the two times; each is
 * lifted by itself; a new registration inherits both; a restart changes nothing (C36). */
static void test_drain(void **state) {
    const struct fsm_worker *w;
    struct fixture x;

    (void) state;
    world(&x);
    assert_int_equal(do_register(&x, "w1", 1, 1), FSM_OK);
    assert_false(fsm_worker_find(x.f, "w1")->draining);
    assert_int_equal(drain(&x, 0, "w1", true, 5000), FSM_OK);
    assert_true(x.out->workers_changed);
    assert_false(x.out->nodes_changed);
    w = fsm_worker_find(x.f, "w1");
    assert_true(w->draining && w->own_draining);
    assert_true(w->drain_until_ms == x.now_ms + 5000);
    assert_int_equal(drain(&x, 1, "", true, 2000), FSM_OK);
    assert_true(x.out->workers_changed);
    assert_true(x.out->nodes_changed);
    assert_true(w->drain_until_ms == x.now_ms + 2000); /* the earlier */
    assert_true(fsm_node_find(x.f, 1)->drain_until_ms == x.now_ms + 2000);
    assert_int_equal(drain(&x, 1, "", true, 9000), FSM_OK);
    assert_true(w->drain_until_ms == x.now_ms + 5000);
    reopen_same(&x);
    w = fsm_worker_find(x.f, "w1");
    assert_true(w->drain_until_ms == x.now_ms + 5000);
    assert_int_equal(do_register(&x, "w2", 1, 1), FSM_OK); /* new on a draining node */
    assert_true(fsm_worker_find(x.f, "w2")->draining);
    assert_false(fsm_worker_find(x.f, "w2")->own_draining);
    assert_true(fsm_worker_find(x.f, "w2")->drain_until_ms == x.now_ms + 9000);
    assert_int_equal(do_register(&x, "w1", 2, 2), FSM_OK); /* another process, on another node */
    assert_true(w->draining);
    assert_true(w->drain_until_ms == x.now_ms + 5000);
    assert_int_equal(drain(&x, 0, "w1", false, 0), FSM_OK);
    assert_false(w->draining);
    assert_true(w->drain_until_ms == 0);
    assert_int_equal(do_register(&x, "w2", 1, 3), FSM_OK); /* away from the draining node */
    assert_false(fsm_worker_find(x.f, "w2")->draining);
    assert_int_equal(do_register(&x, "w2", 1, 1), FSM_OK);
    assert_int_equal(drain(&x, 1, "", false, 0), FSM_OK);
    assert_false(fsm_worker_find(x.f, "w2")->draining);
    reopen_same(&x);
    fixture_done(&x);
}

/* Goal: draining survives the loss of the worker, and the worker's facts survive draining. */
static void test_drain_and_loss(void **state) {
    Chronos__Internal__V1__WorkerRecord *rec;
    struct arena arena;
    struct fixture x;

    (void) state;
    world(&x);
    arena_init(&arena, 1 << 20);
    assert_int_equal(do_register(&x, "w1", 1, 1), FSM_OK);
    assert_int_equal(drain(&x, 0, "w1", true, 5000), FSM_OK);
    assert_int_equal(fixture_do(&x, cmd_lose("w1", 1, x.now_ms)), FSM_OK);
    assert_int_equal(drain(&x, 0, "w1", true, 6000), FSM_OK);
    assert_int_equal(fsm_read_worker(x.f, "w1", &arena, &rec), 0);
    assert_true(rec->lost && rec->draining);
    assert_true(rec->drain_until_ms == x.now_ms + 6000);
    assert_string_equal(rec->version, "1.2");
    assert_int_equal(rec->n_labels, 1);
    assert_string_equal(rec->labels[0]->value, "a");
    reopen_same(&x);
    assert_int_equal(do_register(&x, "w1", 2, 1), FSM_OK);
    assert_true(fsm_worker_find(x.f, "w1")->draining);
    arena_done(&arena);
    fixture_done(&x);
}

/* Goal: a draining worker gets no assignment, whoever proposed it; what it runs goes on and may be
 * given back any number of times without an attempt burned; lifted, it works again (C36). */
static void test_drain_assign(void **state) {
    struct fixture x;

    (void) state;
    world(&x);
    assert_int_equal(do_register(&x, "w1", 1, 1), FSM_OK);
    assert_int_equal(fixture_submit(&x, 2), FSM_OK);
    assert_int_equal(fixture_submit(&x, 2), FSM_OK);
    assert_int_equal(fixture_do(&x, cmd_assign(1, "w1", 1, x.now_ms)), FSM_OK);
    assert_int_equal(drain(&x, 1, "", true, 100), FSM_OK);
    assert_int_equal(x.out->events_count, 0);
    assert_int_equal(fixture_do(&x, cmd_assign(2, "w1", 1, x.now_ms)), FSM_WORKER_DRAINING);
    assert_int_equal(x.out->events_count, 0);
    assert_int_equal(fsm_job_find(x.f, 1)->state, S(RUNNING));
    for (unsigned i = 1; i <= 10; i++) {
        uint64_t token = fsm_job_find(x.f, 1)->fencing_token;

        assert_int_equal(fixture_do(&x, cmd_release(1, token, true, x.now_ms)), FSM_OK);
        assert_int_equal(x.out->events[0].to, S(PENDING));
        assert_int_equal(x.out->events[0].released_attempts, i);
        assert_int_equal(drain(&x, 1, "", false, 0), FSM_OK);
        assert_int_equal(fixture_do(&x, cmd_assign(1, "w1", 1, x.now_ms)), FSM_OK);
        assert_int_equal(fsm_job_find(x.f, 1)->attempt, i + 1); /* a new identity each time */
        assert_true(fsm_job_find(x.f, 1)->fencing_token > token);
        assert_int_equal(drain(&x, 1, "", true, 100), FSM_OK);
    }
    fsm_check_invariants(x.f);
    fixture_done(&x);
}

/* Goal: what cannot be drained is refused with a reason and changes nothing; the time cannot
 * overflow. */
static void test_drain_refused(void **state) {
    uint8_t before[16], after[16];
    struct fixture x;

    (void) state;
    world(&x);
    fixture_config(&x, config_of(without_two, ARRAY_LEN(without_two)));
    assert_int_equal(do_register(&x, "w1", 1, 1), FSM_OK);
    digest_of(&x, before);
    assert_int_equal(drain(&x, 0, "", true, 1), FSM_REFUSED);
    assert_non_null(strstr(x.out->results[0].reason, "exactly one"));
    assert_int_equal(drain(&x, 1, "w1", true, 1), FSM_REFUSED);
    assert_int_equal(drain(&x, 1, "", true, -1), FSM_REFUSED);
    assert_non_null(strstr(x.out->results[0].reason, "timeout_ms"));
    assert_int_equal(drain(&x, 0, "w1", true, FSM_DRAIN_TIMEOUT_MS_MAX + 1), FSM_REFUSED);
    assert_int_equal(drain(&x, 2, "", true, 1), FSM_REFUSED);
    assert_non_null(strstr(x.out->results[0].reason, "removed"));
    assert_int_equal(drain(&x, 9, "", true, 1), FSM_NOT_FOUND);
    assert_int_equal(drain(&x, 0, "nobody", true, 1), FSM_NOT_FOUND);
    assert_int_equal(drain(&x, 0, "w1", false, 0), FSM_OK); /* it does not drain: nothing to do */
    assert_int_equal(drain(&x, 1, "", false, 0), FSM_OK);
    assert_false(x.out->workers_changed || x.out->nodes_changed);
    digest_of(&x, after);
    assert_memory_equal(before, after, 16);
    x.now_ms = INT64_MAX - 5;
    assert_int_equal(drain(&x, 0, "w1", true, FSM_DRAIN_TIMEOUT_MS_MAX), FSM_OK);
    assert_true(fsm_worker_find(x.f, "w1")->drain_until_ms == INT64_MAX);
    fsm_check_invariants(x.f);
    fixture_done(&x);
}

/* Goal: a level goes up only, and only when every member has said that it knows it; a removed one
 * need not; it is kept. */
static void test_feature_level(void **state) {
    uint8_t before[16], after[16];
    struct fixture x;

    (void) state;
    world(&x);
    assert_int_equal(fsm_feature_level(x.f), 1);
    assert_int_equal(set_node(&x, 1, 0xd1, "", "", 2), FSM_OK);
    assert_int_equal(set_node(&x, 2, 0xd2, "", "", 1), FSM_OK);
    digest_of(&x, before);
    assert_int_equal(fixture_do(&x, cmd_set_feature_level(1, 1)), FSM_REFUSED);
    assert_non_null(strstr(x.out->results[0].reason, "higher than the present"));
    assert_int_equal(fixture_do(&x, cmd_set_feature_level(2, 1)), FSM_REFUSED);
    assert_non_null(strstr(x.out->results[0].reason, "a member's program does not know it"));
    fixture_config(&x, config_of(without_two, ARRAY_LEN(without_two)));
    assert_int_equal(fixture_do(&x, cmd_set_feature_level(2, 1)), FSM_REFUSED);
    assert_non_null(strstr(x.out->results[0].reason, "has not yet said"));
    assert_int_equal(set_node(&x, 3, 0xd3, "", "", 3), FSM_OK);
    digest_of(&x, before);
    assert_int_equal(fixture_do(&x, cmd_set_feature_level(2, 1)), FSM_OK);
    assert_true(x.out->nodes_changed);
    digest_of(&x, after);
    assert_memory_not_equal(before, after, 16);
    assert_int_equal(fixture_do(&x, cmd_set_feature_level(2, 1)), FSM_REFUSED);
    reopen_same(&x);
    assert_int_equal(fsm_feature_level(x.f), 2);
    fixture_done(&x);
}

/* Goal: a program that does not know the level stops loudly, at the command and at the store. */
static void test_feature_level_unknown(void **state) {
    struct bytes *b = cmd_set_feature_level(LEVELS + 1, 1);
    struct fixture x;

    (void) state;
    world(&x);
    for (size_t i = 0; i < ARRAY_LEN(three); i++)
        assert_int_equal(set_node(&x, three[i], (uint8_t) (1 + i), "", "", LEVELS + 1), FSM_OK);
    assert_int_equal(fixture_apply(&x, b), ERR_VERSION);
    assert_non_null(strstr(x.err.s, "feature level to 4: this program knows levels up to 3"));
    (void) bytes_unref(b);
    fixture_done(&x);

    world(&x);
    for (size_t i = 0; i < ARRAY_LEN(three); i++)
        assert_int_equal(set_node(&x, three[i], (uint8_t) (1 + i), "", "", LEVELS), FSM_OK);
    assert_int_equal(fixture_do(&x, cmd_set_feature_level(LEVELS, 1)), FSM_OK);
    assert_int_equal(fsm_write_back(x.f), 0);
    x.f = fsm_free(x.f);
    assert_int_equal(fsm_open(x.kv, NULL, &x.f, &x.err), ERR_VERSION);
    assert_non_null(strstr(x.err.s, "feature level 3: this program knows levels up to 1"));
    fixture_done(&x);
}

/* Goal: a configuration that no raft would have appended is an error with a text, never applied. */
static void test_config_refused(void **state) {
    static const uint64_t twice[] = {2, 2};
    static const uint64_t zero[] = {0};
    char long_address[200];
    struct bytes *cases[5];

    (void) state;
    memset(long_address, 'a', sizeof(long_address));
    long_address[sizeof(long_address) - 1] = '\0';
    cases[0] = config_of(twice, ARRAY_LEN(twice));
    cases[1] = config_of(zero, ARRAY_LEN(zero));
    cases[2] = config_at(three, 1, long_address);
    cases[3] = bytes_copy("\xff\xff", 2);
    cases[4] = bytes_copy("\x08\x02", 2);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct fixture x;

        fixture_init(&x, NULL);
        assert_int_equal(fsm_apply_config(x.f, 1, 1, bytes_slice(cases[i]), &x.out, &x.err),
                         i == 4 ? ERR_VERSION : ERR_PROTO);
        assert_true(strlen(x.err.s) > 10);
        fixture_done(&x);
        (void) bytes_unref(cases[i]);
    }
}

/* Goal: the local record says where the store came from; it is in no digest, survives write-backs
 * and restarts, and a store that grew by itself has none. */
static void test_installed(void **state) {
    uint64_t index = 9, term = 9;
    uint8_t a[16], b[16];
    struct fixture x, y;

    (void) state;
    world(&x);
    fsm_installed(x.f, &index, &term);
    assert_true(index == 0 && term == 0);
    assert_int_equal(fsm_write_back(x.f), 0);
    y = x;
    y.kv = fixture_copy_store(x.kv, 1, 1);
    y.f = NULL;
    fixture_reopen(&y);
    digest_of(&x, a);
    digest_of(&y, b);
    assert_memory_equal(a, b, 16);
    assert_int_equal(fixture_submit(&y, 1), FSM_OK);
    reopen_same(&y);
    fsm_installed(y.f, &index, &term);
    assert_true(index == 1 && term == 1);
    fixture_done(&x);
    fixture_done(&y);
}

static void put_raw(struct fixture *x, const void *key, size_t key_len, const char *value,
                    size_t len) {
    struct kv_op op = {.key = slice_of(key, key_len), .value = slice_of(value, len)};

    assert_int_equal(x->kv->ops->write(x->kv, &op, 1), 0);
}

/* Goal: damaged records of the cluster are refused with a reason, never loaded. */
static void test_open_refuses(void **state) {
    static const struct {
        const char *key;
        size_t key_len;
        const char *value;
        size_t len;
    } cases[] = {
        {"n\0\0\0\0\0\0\0\1", 9, "\xff", 1},
        {"n\0\0\0\0\0\0\0\1", 9, "\x08\x02", 2},           /* of another node */
        {"n\0\0\0\0\0\0\0\1", 9, "\x08\x01\x12\x01x", 5},  /* a disk of one byte */
        {"n\0\0\0\0\0\0\0\1", 9, "\x08\x01\x1a\x01\0", 5}, /* zero in an address */
        {"n\0\0\0\0\0\0\0\1", 9, "\x08\x01\x38\x05", 4},   /* until 5, but does not drain */
        {"n\0\0\0\0\0\0\0\0", 9, "", 0},                   /* node 0 */
        {"n1", 2, "\x08\x01", 2},
        {"wzz", 3, "\x0a\x02zz\x50\x05", 6}, /* a worker the same */
        {"l", 1, "\xff", 1},
        {"l", 1, "\x08\x7f", 2}, /* installed at 127, applied at 1 */
        {"l", 1, "\x08\x01\x10\x7f", 4},
    };

    (void) state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct fixture x;

        world(&x);
        assert_int_equal(fsm_write_back(x.f), 0);
        x.f = fsm_free(x.f);
        put_raw(&x, cases[i].key, cases[i].key_len, cases[i].value, cases[i].len);
        assert_int_equal(fsm_open(x.kv, NULL, &x.f, &x.err), ERR_CORRUPT);
        assert_true(strlen(x.err.s) > 10);
        fixture_done(&x);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_config),
        cmocka_unit_test(test_config_in_digest),
        cmocka_unit_test(test_config_bytes_in_digest),
        cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_set_node_refused),
        cmocka_unit_test(test_drain),
        cmocka_unit_test(test_drain_and_loss),
        cmocka_unit_test(test_drain_assign),
        cmocka_unit_test(test_drain_refused),
        cmocka_unit_test(test_feature_level),
        cmocka_unit_test(test_feature_level_unknown),
        cmocka_unit_test(test_config_refused),
        cmocka_unit_test(test_installed),
        cmocka_unit_test(test_open_refuses),
    };

    return cmocka_run_group_tests_name("fsm_cluster", tests, NULL, NULL);
}
