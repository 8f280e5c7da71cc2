/* Linearizable reads: rounds shared, asked again, given up at the deadline. */
#include "node_world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "node/replica_internal.h"

/* Goal: reads of one turn share one round. Method: a thousand reads, one context used. */
static void test_batched(void **state) {
    static struct answer a[1000];
    struct node_world w;
    uint64_t before;

    (void) state;
    unsigned leader = node_world_begin(&w, 3);
    node_world_run(&w, 100);
    before = w.nodes[leader].replica->reads.next_context;
    for (int i = 0; i < 1000; i++) {
        a[i] = (struct answer){.world = &w};
        assert_int_equal(replica_read(w.nodes[leader].replica, MONO_NEVER, answer_read, &a[i]), 0);
    }
    node_world_run(&w, 20);
    assert_int_equal(w.nodes[leader].replica->reads.next_context, before + 1);
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(a[i].count, 1);
        assert_int_equal(a[i].status, REPLICA_OK);
    }
    node_world_close(&w);
}

/* Goal: a follower's read contains what was acknowledged elsewhere before it. Method: submit at the
 * leader while the follower is cut off, heal, read at the follower. */
static void test_follower_sees_the_newest(void **state) {
    struct node_world w;
    struct answer write, read = {.world = &w};
    unsigned leader, follower;

    (void) state;
    leader = node_world_begin(&w, 3);
    follower = (leader + 1) % 3;
    node_world_run(&w, 100);
    w.cut[leader][follower] = true;
    assert_int_equal(node_world_submit(&w, leader, "", 0, MONO_NEVER, &write), 0);
    node_world_run(&w, 60);
    assert_int_equal(write.status, REPLICA_OK);
    assert_int_equal(write.count, 1);
    assert_true(replica_applied(w.nodes[follower].replica) < write.index);
    assert_int_equal(replica_read(w.nodes[follower].replica, MONO_NEVER, answer_read, &read), 0);
    node_world_run(&w, 30);
    assert_int_equal(read.count, 0);
    w.cut[leader][follower] = false;
    node_world_run(&w, 1000);
    assert_int_equal(read.count, 1);
    assert_int_equal(read.status, REPLICA_OK);
    assert_true(read.index >= write.index);
    node_world_close(&w);
}

/* Goal: a read whose leader goes is asked again of the next one; without any it ends at its
 * deadline; a cut-off leader never answers from its own state. Method: cut the leader. */
static void test_leader_gone(void **state) {
    struct node_world w;
    struct answer old = {.world = &w}, moved = {.world = &w};
    unsigned leader, follower;

    (void) state;
    leader = node_world_begin(&w, 3);
    follower = (leader + 1) % 3;
    node_world_run(&w, 100);
    node_world_cut_off(&w, leader, true);
    assert_int_equal(
        replica_read(w.nodes[leader].replica, node_world_in_ms(&w, 3000), answer_read, &old), 0);
    assert_int_equal(replica_read(w.nodes[follower].replica, MONO_NEVER, answer_read, &moved), 0);
    node_world_run(&w, 2000);
    assert_int_equal(moved.count, 1);
    assert_int_equal(moved.status, REPLICA_OK);
    assert_int_equal(old.count, 0);
    node_world_run(&w, 1001);
    assert_int_equal(old.count, 1);
    assert_int_equal(old.status, REPLICA_NO_LEADER);
    node_world_close(&w);
}

/* Goal: the bound on waiting reads. Method: two places, no leader. */
static void test_full(void **state) {
    struct node_world w;
    struct answer a[3] = {{.world = &w}, {.world = &w}, {.world = &w}};

    (void) state;
    node_world_init(&w, 3);
    w.options.pending_reads_max = 2;
    node_world_open(&w);
    assert_int_equal(replica_read(w.nodes[0].replica, MONO_NEVER, answer_read, &a[0]), 0);
    assert_int_equal(replica_read(w.nodes[0].replica, MONO_NEVER, answer_read, &a[1]), 0);
    assert_int_equal(replica_read(w.nodes[0].replica, MONO_NEVER, answer_read, &a[2]),
                     REPLICA_FULL);
    node_world_close(&w);
    assert_int_equal(a[0].status, REPLICA_STOPPING);
    assert_int_equal(a[1].count, 1);
    assert_int_equal(a[2].count, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_batched),
        cmocka_unit_test(test_follower_sees_the_newest),
        cmocka_unit_test(test_leader_gone),
        cmocka_unit_test(test_full),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
