/* Drains that an operator orders: whoever leads on a drained node hands over. */
#include "node_world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "log_commands.h"
#include "node/replica_internal.h"

static void drain(struct node_world *w, unsigned slot, uint64_t node_id, bool on) {
    struct answer a;

    assert_int_equal(
        node_world_propose(w, slot, log_drain(node_id, "", on, 1000), 0, MONO_NEVER, &a), 0);
    for (int ms = 0; ms < 1000 && a.count == 0; ms++)
        node_world_run(w, 1);
    assert_int_equal(a.status, REPLICA_OK);
    assert_int_equal(a.code, FSM_OK);
}

/* Goal: leadership leaves a drained node, goes to none that is drained, and stays where it is when
 * all are. Method: the leaders of three nodes are drained one after the other. */
static void test_leader_hands_over(void **state) {
    struct node_world w;
    unsigned first, second, third;
    uint64_t term;

    (void) state;
    first = node_world_begin(&w, 3);
    node_world_run(&w, 2000);
    drain(&w, first, first + 1, true);
    node_world_run(&w, 1000);
    second = node_world_lead(&w);
    assert_int_not_equal(second, first);
    drain(&w, second, second + 1, true);
    node_world_run(&w, 1000);
    third = node_world_lead(&w);
    assert_int_not_equal(third, first);
    assert_int_not_equal(third, second);
    drain(&w, third, third + 1, true);
    term = raft_term(w.nodes[third].replica->raft);
    node_world_run(&w, 3000);
    assert_int_equal(node_world_lead(&w), third);
    assert_int_equal(raft_term(w.nodes[third].replica->raft), term);
    drain(&w, third, first + 1, false);
    node_world_run(&w, 1000);
    assert_int_equal(node_world_lead(&w), first);
    node_world_close(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_leader_hands_over)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
