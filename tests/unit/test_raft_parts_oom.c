/* raft/'s parts without memory: configurations, which allocate only where they become bytes, and
 * the log's array. (The whole of raft is in test_raft_oom.c.) */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "nth_memory.h"
#include "raft/raft.h"
#include "raft/raft_log.h"

/* ---- configurations ----------------------------------------------------------------------------
 */

static struct raft_config three(void) {
    struct raft_config c = {.count = 3};

    for (size_t i = 0; i < 3; i++)
        c.members[i] = (struct raft_member){.id = i + 1, .flags = RAFT_MEMBER_VOTER};
    return c;
}

static int through_bytes(const struct raft_config *c) {
    struct bytes *b = raft_config_encode(c);
    struct raft_config back;
    int rc = b ? raft_config_decode(bytes_slice(b), &back, NULL) : -ENOMEM;

    if (rc == 0)
        assert_true(back.count == c->count && back.joint == c->joint);
    (void) bytes_unref(b);
    return rc;
}

/* A fourth member comes, is moved, becomes a voter instead of the first, and a fifth one goes. */
static int config_scenario(void *arg) {
    static const uint64_t voters[] = {2, 3, 4};
    struct raft_config c = three(), joint;
    int rc = raft_config_add_learner(&c, 4, "n4:1", true, 0, &c, NULL);

    (void) arg;
    if (rc == 0)
        rc = raft_config_add_learner(&c, 5, "n5:1", false, 0, &c, NULL);
    if (rc == 0)
        rc = through_bytes(&c);
    if (rc == 0)
        rc = raft_config_set_address(&c, 4, "n4:2", &c, NULL);
    if (rc == 0)
        rc = raft_config_set_promote(&c, 4, true, 1, &c, NULL);
    if (rc == 0)
        rc = raft_config_remove_learner(&c, 5, &c, NULL);
    if (rc == 0)
        rc = raft_config_enter_joint(&c, voters, ARRAY_LEN(voters), false, &joint, NULL);
    if (rc == 0)
        rc = raft_config_check_change(&c, &joint, NULL);
    if (rc == 0)
        rc = through_bytes(&joint);
    if (rc == 0)
        rc = raft_config_leave_joint(&joint, &c, NULL);
    if (rc == 0)
        assert_true(c.count == 3 && !c.joint && !raft_config_find(&c, 1));
    return rc;
}

static void test_configurations(void **state) {
    (void) state;
    assert_true(nth_memory_loop(config_scenario, NULL) > 4);
}

/* ---- the log -----------------------------------------------------------------------------------
 */

static int log_scenario(void *arg) {
    struct bytes *data = arg;
    struct raft_log l;
    uint64_t term = 0;
    int rc = 0;

    raft_log_init(&l, 0, 0);
    for (uint64_t i = 1; rc == 0 && i <= 500; i++) {
        const struct raft_entry e = {
            .index = i, .term = 1 + i / 100, .type = RAFT_ENTRY_COMMAND, .data = data};

        rc = raft_log_append(&l, &e);
        /* Nothing changed: neither the end nor the references. */
        assert_int_equal(raft_log_last_index(&l), i - (rc < 0));
        assert_int_equal(data->refs, 1 + i - (rc < 0));
    }
    if (rc == 0) {
        raft_log_trim(&l, 200);
        raft_log_truncate(&l, 450);
        assert_true(raft_log_term(&l, 300, &term) && term == 4);
        assert_false(raft_log_term(&l, 450, &term));
    }
    raft_log_done(&l);
    assert_int_equal(data->refs, 1);
    return rc;
}

static void test_log(void **state) {
    struct bytes *data = bytes_copy("payload", 7);

    (void) state;
    assert_true(nth_memory_loop(log_scenario, data) > 4);
    (void) bytes_unref(data);
}

/* ---- looking in allocates nothing ---------------------------------------------------------------
 */

static int status_scenario(void *arg) {
    struct raft_peer_status s;

    return raft_peer_status(arg, 2, &s) == 1 ? 0 : -EINVAL; /* no leader */
}

static void test_status(void **state) {
    struct raft_config c = three();
    struct raft_start start = {.config = &c};
    struct raft_options o;
    struct raft *r = NULL;

    (void) state;
    raft_options_default(&o, 1, 1);
    assert_int_equal(raft_new(&o, &start, (struct mono){NS_PER_S}, &r, NULL), 0);
    assert_int_equal(nth_memory_loop(status_scenario, r), 0);
    (void) raft_free(r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_configurations),
        cmocka_unit_test(test_log),
        cmocka_unit_test(test_status),
    };

    return cmocka_run_group_tests_name("raft_parts_oom", tests, NULL, NULL);
}
