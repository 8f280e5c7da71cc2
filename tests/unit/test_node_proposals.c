/* Proposals: the bounded channel, deadlines and what they say, forwarding, what is tried again. */
#include "node_world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "log_commands.h"
#include "node/replica_internal.h"

/* Goal: a committed submit is answered once, with its index and job; the same key gives the same
 * job. Method: one node. */
static void test_submit_answered(void **state) {
    struct node_world w;
    struct answer a, b;

    (void) state;
    (void) node_world_begin(&w, 1);
    assert_int_equal(node_world_submit(&w, 0, "k", REPLICA_RETRY_SAFE, MONO_NEVER, &a), 0);
    assert_int_equal(a.count, 0); /* never from within the call */
    node_world_settle(&w);
    assert_int_equal(a.count, 1);
    assert_int_equal(a.status, REPLICA_OK);
    assert_int_equal(a.code, FSM_OK);
    assert_true(a.index > 0 && a.index <= replica_applied(w.nodes[0].replica));
    assert_int_equal(node_world_submit(&w, 0, "k", REPLICA_RETRY_SAFE, MONO_NEVER, &b), 0);
    node_world_settle(&w);
    assert_int_equal(b.code, FSM_EXISTING);
    assert_int_equal(b.job_seq, a.job_seq);
    node_world_close(&w);
}

/* Goal: without a leader the channel takes what its bound says, then refuses at once; what waited
 * is told that nothing was submitted. Method: a follower alone, four places. */
static void test_channel_full_and_no_leader(void **state) {
    struct node_world w;
    struct answer a[5];

    (void) state;
    node_world_init(&w, 3);
    w.options.pending_proposals_max = 4;
    node_world_open(&w);
    for (unsigned i = 0; i < 3; i++)
        for (unsigned k = 0; k < 3; k++)
            w.cut[i][k] = true;
    for (int i = 0; i < 4; i++)
        assert_int_equal(node_world_submit(&w, 0, "", 0, MONO_NEVER, &a[i]), 0);
    assert_int_equal(node_world_submit(&w, 0, "", 0, MONO_NEVER, &a[4]), REPLICA_FULL);
    node_world_run(&w, 4900);
    assert_int_equal(a[0].count, 0);
    node_world_run(&w, 200);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(a[i].count, 1);
        assert_int_equal(a[i].status, REPLICA_NO_LEADER);
        assert_int_equal(a[i].at_ns, NS_PER_S + 5 * NS_PER_S);
    }
    assert_int_equal(a[4].count, 0);
    node_world_close(&w);
}

/* Goal: the caller's shorter deadline counts. Method: a node whose disk stands still: the entry is
 * appended and not durable, so the outcome is unknown. */
static void test_unknown_at_own_deadline(void **state) {
    struct node_world w;
    struct answer a;

    (void) state;
    (void) node_world_begin(&w, 1);
    w.nodes[0].hold_disk = true;
    assert_int_equal(node_world_submit(&w, 0, "", 0, node_world_in_ms(&w, 100), &a), 0);
    node_world_run(&w, 99);
    assert_int_equal(a.count, 0);
    node_world_run(&w, 2);
    assert_int_equal(a.count, 1);
    assert_int_equal(a.status, REPLICA_UNKNOWN);
    w.nodes[0].hold_disk = false;
    node_world_run(&w, 50);
    assert_int_equal(a.count, 1); /* it commits now, and nobody is told twice */
    assert_int_equal(fsm_next_seq(replica_fsm(w.nodes[0].replica)), 2);
    node_world_close(&w);
}

/* Goal: a follower's submit is carried to the leader and answered from the follower's own log.
 * Method: three nodes. */
static void test_forwarded(void **state) {
    struct node_world w;
    struct answer a;
    unsigned leader;

    (void) state;
    leader = node_world_begin(&w, 3);
    node_world_run(&w, 100);
    assert_int_equal(node_world_submit(&w, (leader + 1) % 3, "", 0, MONO_NEVER, &a), 0);
    node_world_run(&w, 100);
    assert_int_equal(a.count, 1);
    assert_int_equal(a.status, REPLICA_OK);
    assert_int_equal(a.code, FSM_OK);
    node_world_close(&w);
}

/* Goal: what may not be applied twice is not sent again when its leader is lost; what may, is, and
 * is applied once. Method: the leader is cut off with both on the way; a new leader comes. */
static void test_leader_lost(void **state) {
    struct node_world w;
    struct answer once, again;
    unsigned leader, follower;

    (void) state;
    leader = node_world_begin(&w, 3);
    follower = (leader + 1) % 3;
    node_world_run(&w, 100);
    node_world_cut_off(&w, leader, true);
    assert_int_equal(node_world_submit(&w, follower, "", 0, MONO_NEVER, &once), 0);
    assert_int_equal(node_world_submit(&w, follower, "key", REPLICA_RETRY_SAFE, MONO_NEVER, &again),
                     0);
    node_world_run(&w, 2000);
    assert_int_equal(again.count, 1);
    assert_int_equal(again.status, REPLICA_OK);
    assert_int_equal(once.count, 0);
    node_world_run(&w, 3100);
    assert_int_equal(once.count, 1);
    assert_int_equal(once.status, REPLICA_UNKNOWN);
    assert_int_equal(fsm_next_seq(replica_fsm(w.nodes[follower].replica)), 2);
    node_world_close(&w);
}

/* Goal: a "no" that another try may still turn into a "yes" is no answer. Method: there is no such
 * job; asked of a healthy cluster, and of one whose leader was lost with the first try. */
static void test_no_of_one_try(void **state) {
    struct node_world w;
    struct answer a;
    unsigned leader, follower;

    (void) state;
    for (int lost = 0; lost <= 1; lost++) {
        leader = node_world_begin(&w, 3);
        follower = (leader + 1) % 3;
        node_world_run(&w, 100);
        node_world_cut_off(&w, leader, lost);
        assert_int_equal(
            node_world_propose(&w, follower, log_cancel(77), REPLICA_RETRY_SAFE, MONO_NEVER, &a),
            0);
        node_world_run(&w, 2000);
        assert_int_equal(a.count, 1);
        assert_int_equal(a.status, lost ? REPLICA_UNKNOWN : REPLICA_OK);
        assert_int_equal(a.code, lost ? -1 : FSM_NOT_FOUND);
        node_world_close(&w);
    }
}

/* Goal: an entry that a deposed leader appended and nobody else has is proposed again, since it
 * certainly is lost. Method: the leader is cut off, appends, sees the new leader's log. */
static void test_lost_entry_proposed_again(void **state) {
    struct node_world w;
    struct answer a;
    unsigned leader;

    (void) state;
    leader = node_world_begin(&w, 3);
    node_world_run(&w, 100);
    node_world_cut_off(&w, leader, true);
    assert_int_equal(node_world_submit(&w, leader, "", 0, MONO_NEVER, &a), 0);
    node_world_run(&w, 2000);
    assert_int_equal(a.count, 0);
    node_world_cut_off(&w, leader, false);
    node_world_run(&w, 1000);
    assert_int_equal(a.count, 1);
    assert_int_equal(a.status, REPLICA_OK);
    assert_int_equal(fsm_next_seq(replica_fsm(w.nodes[leader].replica)), 2);
    node_world_close(&w);
}

/* Goal: what a leader decided is worth nothing under the next one: neither what it appended nor
 * what still waits is passed on, and it is told that nothing came of it. Method: the leader is cut
 * off; one decision goes into its log, one comes when the log takes no more. */
static void test_decision_of_a_deposed_leader(void **state) {
    const unsigned flags = REPLICA_INTERNAL | REPLICA_OWN_TERM;
    struct node_world w;
    struct answer a, b;
    unsigned leader;

    (void) state;
    leader = node_world_begin(&w, 3);
    node_world_run(&w, 100);
    node_world_cut_off(&w, leader, true);
    assert_int_equal(node_world_submit(&w, leader, "", flags, MONO_NEVER, &a), 0);
    node_world_run(&w, 1);
    w.nodes[leader].replica->proposals.raft_full = true;
    assert_int_equal(node_world_submit(&w, leader, "", flags, MONO_NEVER, &b), 0);
    node_world_run(&w, 1);
    assert_int_equal(w.nodes[leader].replica->proposals.internal.count, 1);
    node_world_run(&w, 2000);
    node_world_cut_off(&w, leader, false);
    node_world_run(&w, 1000);
    assert_int_equal(a.count, 1);
    assert_int_equal(a.status, REPLICA_NO_LEADER);
    assert_int_equal(b.count, 1);
    assert_int_equal(b.status, REPLICA_NO_LEADER);
    assert_int_equal(fsm_next_seq(replica_fsm(w.nodes[leader].replica)), 1);
    node_world_close(&w);
}

/* Goal: a leader that waits longer than the commit timeout for what it decided does not take it for
 * lost: it would decide the same again. Method: a node whose disk stands still, beside a submit. */
static void test_decision_waits(void **state) {
    struct node_world w;
    struct answer decided, asked;

    (void) state;
    (void) node_world_begin(&w, 1);
    w.nodes[0].hold_disk = true;
    assert_int_equal(
        node_world_submit(&w, 0, "", REPLICA_INTERNAL | REPLICA_OWN_TERM, MONO_NEVER, &decided), 0);
    assert_int_equal(node_world_submit(&w, 0, "", 0, MONO_NEVER, &asked), 0);
    node_world_run(&w, 6000);
    assert_int_equal(asked.count, 1);
    assert_int_equal(asked.status, REPLICA_UNKNOWN);
    assert_int_equal(decided.count, 0);
    w.nodes[0].hold_disk = false;
    node_world_run(&w, 50);
    assert_int_equal(decided.count, 1);
    assert_int_equal(decided.status, REPLICA_OK);
    node_world_close(&w);
}

/* Goal: a stopping node answers everything that waits. Method: free it with a full channel. */
static void test_stopping(void **state) {
    struct node_world w;
    struct answer a;

    (void) state;
    node_world_init(&w, 3);
    node_world_open(&w);
    assert_int_equal(node_world_submit(&w, 0, "", 0, MONO_NEVER, &a), 0);
    node_world_close(&w);
    assert_int_equal(a.count, 1);
    assert_int_equal(a.status, REPLICA_STOPPING);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_submit_answered),
        cmocka_unit_test(test_channel_full_and_no_leader),
        cmocka_unit_test(test_unknown_at_own_deadline),
        cmocka_unit_test(test_forwarded),
        cmocka_unit_test(test_leader_lost),
        cmocka_unit_test(test_no_of_one_try),
        cmocka_unit_test(test_lost_entry_proposed_again),
        cmocka_unit_test(test_decision_of_a_deposed_leader),
        cmocka_unit_test(test_decision_waits),
        cmocka_unit_test(test_stopping),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
