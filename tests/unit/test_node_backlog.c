/* What a leader decides while its log takes nothing more is done once there is room. */
#include "node_world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "node/replica_internal.h"

#define MSG(kind) CHRONOS__V1__NODE_MESSAGE__BODY_##kind
#define LEASE_MS 15000
#define COMMIT_TIMEOUT_MS 5000

static void begin(struct node_world *w, unsigned uncommitted_max, struct stream *s) {
    node_world_init(w, 1);
    w->options.raft.uncommitted_entries_max = uncommitted_max;
    node_world_open(w);
    (void) node_world_lead(w);
    stream_open(s, w->nodes[0].replica);
    stream_hello(s, "w", 1, 2);
    node_world_settle(w);
    assert_non_null(stream_last(s, MSG(WELCOME)));
}

/* Goal: a worker whose lease ends while the log is full is lost once there is room, however late
 * that is. Method: one entry that the disk does not take fills the log. */
static void test_lease_ends_without_room(void **state) {
    struct node_world w;
    struct answer a;
    struct stream s;
    const struct fsm_worker *k;

    (void) state;
    begin(&w, 1, &s);
    node_world_run(&w, LEASE_MS - 100);
    w.nodes[0].hold_disk = true;
    assert_int_equal(node_world_submit(&w, 0, "", 0, MONO_NEVER, &a), 0);
    node_world_run(&w, COMMIT_TIMEOUT_MS + 200);
    k = fsm_worker_find(replica_fsm(w.nodes[0].replica), "w");
    assert_false(k->lost);
    assert_int_equal(a.count, 1); /* its time is over */
    w.nodes[0].hold_disk = false;
    node_world_run(&w, COMMIT_TIMEOUT_MS);
    assert_true(k->lost);
    assert_int_equal(s.end_code, 9);
    stream_close(&s);
    node_world_close(&w);
}

/* Goal: a job whose assignment found the log full is given out once there is room, although nothing
 * else happens. Method: the log fills behind the job in the turn in which it is applied, with
 * submits whose key is known, which change nothing. */
static void test_plan_without_room(void **state) {
    struct node_world w;
    struct answer first, job, again[3];
    struct stream s;

    (void) state;
    begin(&w, 3, &s);
    assert_int_equal(node_world_submit(&w, 0, "k", 0, MONO_NEVER, &first), 0);
    node_world_settle(&w);
    assert_int_equal(first.code, FSM_OK);
    w.nodes[0].hold_disk = true;
    assert_int_equal(node_world_submit(&w, 0, "", 0, MONO_NEVER, &job), 0);
    node_world_settle(&w);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(node_world_submit(&w, 0, "k", 0, MONO_NEVER, &again[i]), 0);
    node_world_settle(&w);
    assert_true(held_jobs_run(&w.nodes[0].jobs)); /* the job's */
    assert_int_equal(node_world_submit(&w, 0, "k", 0, MONO_NEVER, &again[2]), 0);
    node_world_settle(&w);
    assert_int_equal(job.code, FSM_OK);
    assert_int_equal(w.nodes[0].replica->scheduler.plans_in_flight, 1);
    for (int i = 1; i <= 3; i++) {
        node_world_run(&w, COMMIT_TIMEOUT_MS / 2);
        stream_beat(&s, (uint64_t) i);
    }
    w.nodes[0].hold_disk = false;
    node_world_settle(&w);
    assert_int_equal(
        fsm_jobs_count(replica_fsm(w.nodes[0].replica), CHRONOS__V1__JOB_STATE__JOB_STATE_PENDING),
        0);
    assert_int_equal(fsm_worker_find(replica_fsm(w.nodes[0].replica), "w")->running, 2);
    stream_close(&s);
    node_world_close(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lease_ends_without_room),
        cmocka_unit_test(test_plan_without_room),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
