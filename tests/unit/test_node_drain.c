/* Drains that an operator orders: whoever leads on a drained node hands over. */
#include "node_world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fsm/command.h"
#include "node/replica_internal.h"

static void drain(struct node_world *w, unsigned slot, uint64_t node_id, bool on) {
    Chronos__Internal__V1__LogCommand cmd = CHRONOS__INTERNAL__V1__LOG_COMMAND__INIT;
    Chronos__Internal__V1__Drain body = CHRONOS__INTERNAL__V1__DRAIN__INIT;
    struct answer a = {.world = w, .code = -1};
    struct bytes *command = NULL;
    char none[] = "";

    body.node_id = node_id;
    body.worker_id = none;
    body.on = on;
    body.timeout_ms = 1000;
    cmd.body_case = CHRONOS__INTERNAL__V1__LOG_COMMAND__BODY_DRAIN;
    cmd.drain = &body;
    assert_int_equal(command_encode(&cmd, &command), 0);
    assert_int_equal(
        replica_propose(w->nodes[slot].replica, command, 0, MONO_NEVER, answer_proposed, &a), 0);
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
    node_world_init(&w, 3);
    node_world_open(&w);
    first = node_world_lead(&w);
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
