/* raft/ without memory.
 *
 * Goal: every allocation of the core is checked, a step that fails says -ENOMEM, and the raft can
 * then be freed without a leak or a wild pointer (ASan watches). Method: link-time wrappers fail
 * the Nth allocation of a fixed scenario, for N = 1, 2, ... until the scenario passes untouched. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "nth_memory.h"
#include "raft/raft.h"

static int step(struct raft *r, struct raft_event ev, const struct raft_effects **fx) {
    return raft_step(r, (struct mono){2 * NS_PER_S}, &ev, fx);
}

/* A leader that replicates, serves reads and loads, changes its configuration; then a follower that
 * is cut back, and one whose log begins anew with a snapshot. */
static int run_leader(struct raft *r, struct raft_entry *entries, struct bytes *config) {
    const struct raft_effects *fx;
    struct raft_message m = {.from = 2, .to = 1, .term = 1, .type = RAFT_MSG_VOTE_RESP};
    struct raft_event recv = {.type = RAFT_EV_MESSAGE, .message = &m};
    struct raft_entry change = {.type = RAFT_ENTRY_CONFIG, .data = config};
    int rc;

    rc = step(r, (struct raft_event){.type = RAFT_EV_CAMPAIGN}, &fx);
    if (rc == 0)
        rc = step(r, (struct raft_event){.type = RAFT_EV_PERSISTED, .persisted_seq = 1}, &fx);
    if (rc == 0)
        rc = step(r, recv, &fx);
    if (rc < 0)
        return rc;
    assert_int_equal(raft_role(r), RAFT_LEADER);
    m = (struct raft_message){.from = 2,
                              .to = 1,
                              .term = 1,
                              .type = RAFT_MSG_APPEND_RESP,
                              .session = fx->messages[0].session,
                              .match = 1};
    for (uint64_t i = 1; rc == 0 && i <= 20; i++)
        rc = step(r, (struct raft_event){.type = RAFT_EV_READ, .read_context = i}, &fx);
    for (uint64_t i = 2; rc == 0 && i <= 20; i++)
        rc = step(r, (struct raft_event){.type = RAFT_EV_PROPOSE, .propose = {entries, 10}}, &fx);
    if (rc == 0)
        rc = step(r, (struct raft_event){.type = RAFT_EV_PERSISTED, .persisted_seq = 20}, &fx);
    m.match = 150;
    if (rc == 0)
        rc = step(r, recv, &fx);
    if (rc == 0)
        rc = step(r, (struct raft_event){.type = RAFT_EV_APPLIED, .applied_index = 150}, &fx);
    m.match = 191;
    if (rc == 0)
        rc = step(r, recv, &fx);
    if (rc == 0)
        rc = step(r, (struct raft_event){.type = RAFT_EV_PROPOSE, .propose = {&change, 1}}, &fx);
    m = (struct raft_message){
        .from = 3, .to = 1, .term = 1, .type = RAFT_MSG_APPEND_RESP, .session = 3, .reject = true};
    m.log_index = raft_last_index(r);
    return rc;
}

static int run_follower(struct raft *r, struct raft_entry *entries) {
    const struct raft_effects *fx;
    struct raft_message m = {.from = 2,
                             .to = 1,
                             .term = 2,
                             .type = RAFT_MSG_APPEND_REQ,
                             .log_index = 191,
                             .log_term = 1,
                             .entries = entries,
                             .entries_count = 10};

    for (size_t i = 0; i < 10; i++) {
        entries[i].index = 192 + i;
        entries[i].term = 2;
    }
    return step(r, (struct raft_event){.type = RAFT_EV_MESSAGE, .message = &m}, &fx);
}

/* The entries behind the snapshot need an array of their own: the old one is gone with the log. */
static int run_install(struct raft *r, struct raft_entry *entries, const struct raft_config *c) {
    const struct raft_effects *fx;
    struct raft_message m = {.from = 2,
                             .to = 1,
                             .term = 3,
                             .type = RAFT_MSG_APPEND_REQ,
                             .log_index = 300,
                             .log_term = 3,
                             .entries = entries,
                             .entries_count = 10};
    struct raft_event install = {.type = RAFT_EV_INSTALL,
                                 .install = {.leader = 2,
                                             .term = 3,
                                             .index = 300,
                                             .index_term = 3,
                                             .config = c,
                                             .config_index = 250}};
    int rc = step(r, install, &fx);

    assert_true(rc < 0 || fx->install_index == 300);
    for (size_t i = 0; i < 10; i++) {
        entries[i].index = 301 + i;
        entries[i].term = 3;
    }
    if (rc == 0)
        rc = step(r, (struct raft_event){.type = RAFT_EV_MESSAGE, .message = &m}, &fx);
    if (rc == 0)
        rc = step(r,
                  (struct raft_event){.type = RAFT_EV_PERSISTED, .persisted_seq = fx->persist_seq},
                  &fx);
    assert_true(rc < 0 || fx->apply_index == 300);
    if (rc == 0)
        rc = step(
            r,
            (struct raft_event){.type = RAFT_EV_COMPACTED, .compacted = {.index = 300, .term = 3}},
            &fx);
    return rc;
}

static int scenario(void *arg) {
    struct raft_options o;
    struct raft_config c = {.count = 3};
    struct raft_start start = {.config = &c};
    struct raft_entry entries[10];
    struct bytes *data = bytes_copy("payload", 7);
    struct bytes *config;
    struct raft *r = NULL;
    int rc;

    (void) arg;
    raft_options_default(&o, 1, 1);
    o.applied_entries_kept = 10;
    for (size_t i = 0; i < 3; i++)
        c.members[i] = (struct raft_member){.id = i + 1, .flags = RAFT_MEMBER_VOTER};
    config = raft_config_encode(&c);
    rc = data && config ? raft_new(&o, &start, (struct mono){NS_PER_S}, &r, NULL) : -ENOMEM;
    for (size_t i = 0; i < 10; i++)
        entries[i] = (struct raft_entry){.type = RAFT_ENTRY_COMMAND, .data = data};
    if (rc == 0)
        rc = run_leader(r, entries, config);
    if (rc == 0)
        rc = run_follower(r, entries);
    if (rc == 0)
        rc = run_install(r, entries, &c);
    r = raft_free(r);
    data = bytes_unref(data);
    config = bytes_unref(config);
    return rc;
}

static void test_every_allocation_fails_once(void **state) {
    (void) state;
    assert_true(nth_memory_loop(scenario, NULL) > 30);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_allocation_fails_once)};

    return cmocka_run_group_tests_name("raft_oom", tests, NULL, NULL);
}
