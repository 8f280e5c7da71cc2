/* The leader's scheduler loop over terms that are lost: what it counts of its plans. */
#include "node_world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "node/replica_internal.h"

/* More than a leader may have under way at a time. */
#define LOST_PLANS 6

static void submit(struct node_world *w, unsigned slot) {
    static struct answer answers[LOST_PLANS + 1]; /* they come when a node pleases */
    static unsigned used;

    assert_true(used < ARRAY_LEN(answers));
    assert_int_equal(node_world_submit(w, slot, "", 0, MONO_NEVER, &answers[used++]), 0);
    node_world_settle(w);
}

/* A job that node @at submits is committed with node @by alone, and so that the plan to assign it
 * is in the leader's log, but on no other disk. */
static void plan_alone(struct node_world *w, unsigned at, unsigned by, unsigned away) {
    node_world_cut_off(w, away, true);
    w->nodes[by].hold_disk = true;
    submit(w, at);
    w->hold_delivery = true;
    w->nodes[by].hold_disk = false;
    node_world_settle(w); /* the entry is durable there; the word of it is on its way */
    w->nodes[by].hold_disk = true;
    w->hold_delivery = false;
    node_world_settle(w);
    assert_int_equal(w->nodes[at].replica->scheduler.plans_in_flight, 1);
}

static void lead_again(struct node_world *w, unsigned slot) {
    for (unsigned tries = 0; tries < 20; tries++) {
        unsigned leader = node_world_lead(w);

        if (leader == slot)
            return;
        replica_transfer_leadership(w->nodes[leader].replica, w->nodes[slot].id);
        node_world_run(w, 500);
    }
    fail_msg("node %u does not lead again", slot + 1);
}

/* The plan is lost: the others agree on a term without it. Then @at leads again. */
static void lose_plan(struct node_world *w, unsigned at, unsigned by, unsigned away) {

    plan_alone(w, at, by, away);
    node_world_crash(w, by, SIM_DISK_KEEP_NONE, 1000);
    node_world_cut_off(w, away, false);
    node_world_cut_off(w, at, true);
    node_world_restart(w, by);
    node_world_run(w, 2000);
    assert_int_not_equal(node_world_lead(w), at);
    node_world_cut_off(w, at, false);
    node_world_run(w, 500);
    assert_int_equal(w->nodes[at].replica->scheduler.plans_in_flight, 0);
    lead_again(w, at);
}

/* Goal: plans that were lost with their term are no longer counted as under way: a node that has
 * lost more of them than may be under way still assigns jobs. Method: a worker at one node, which
 * leads, plans what only its own log takes, is deposed, and leads again, six times. */
static void test_lost_plans_are_over(void **state) {
    const struct fsm *f;
    struct node_world w;
    struct stream s;
    unsigned at, by, away;

    (void) state;
    at = node_world_begin(&w, 3);
    by = (at + 1) % 3;
    away = (at + 2) % 3;
    stream_open(&s, w.nodes[at].replica);
    stream_hello(&s, "w", 1, 100);
    node_world_settle(&w);
    for (unsigned i = 0; i < LOST_PLANS; i++)
        lose_plan(&w, at, by, away);
    f = replica_fsm(w.nodes[at].replica);
    if (!fsm_worker_find(f, "w") || fsm_worker_find(f, "w")->lost || s.end_code != 0) {
        stream_close(&s);
        stream_open(&s, w.nodes[at].replica);
        stream_hello(&s, "w", 2, 100);
        node_world_settle(&w);
    }
    submit(&w, at);
    node_world_run(&w, 100);
    assert_int_equal(fsm_worker_find(f, "w")->running, LOST_PLANS + 1);
    stream_close(&s);
    node_world_close(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lost_plans_are_over),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
