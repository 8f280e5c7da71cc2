/* Snapshots: the log is cut, a follower behind it gets the state, and nothing is lost by a crash at
 * any step of either. */
#include "node_world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "node/replica_internal.h"
#include "node_snapshot_fixture.h"
#include "storage/kv_mem.h"

/* Goal: the log is cut behind a durable state, and a start after a power cut has everything.
 * Method: 2 MB of jobs through segments of 64 KiB, a crash that keeps nothing unsynced. */
static void test_log_is_cut(void **state) {
    struct node_world w;
    struct replica *r;
    uint64_t base, next_seq;
    uint8_t before[16], after[16];

    (void) state;
    snapshot_world_init(&w, 1);
    node_world_open(&w);
    (void) node_world_lead(&w);
    r = w.nodes[0].replica;
    assert_int_equal(replica_raft(r) ? r->persist.log.base_index : 1, 0);
    submit_jobs(&w, 0, 500, JOB_BYTES);
    node_world_run(&w, 3000);
    base = r->persist.log.base_index;
    assert_true(base > 400);
    assert_true(r->persist.log.bytes < 6UL * WAL_SEGMENT_BYTES_MIN);
    assert_true(r->snapshots.durable_index >= base);
    assert_true(r->snapshots.taken >= 1);
    submit_jobs(&w, 0, 50, JOB_BYTES); /* these are in the log alone */
    fsm_digest(r->fsm, before);
    next_seq = fsm_next_seq(r->fsm);
    node_world_crash(&w, 0, SIM_DISK_KEEP_NONE, 0);
    node_world_restart(&w, 0);
    (void) node_world_lead(&w);
    r = w.nodes[0].replica;
    assert_true(wal_base_index(r->wal) >= base);
    fsm_digest(r->fsm, after);
    assert_int_equal(fsm_next_seq(r->fsm), next_seq);
    assert_memory_equal(before, after, sizeof(before));
    submit_jobs(&w, 0, 1, 10);
    node_world_close(&w);
}

/* Goal: snapshots come by the number of entries and by the log's size, not by time alone.
 * Method: few entries: none; many: one; a log beyond its limit: at once. */
static void test_policy(void **state) {
    struct node_world w;
    struct replica *r;

    (void) state;
    snapshot_world_init(&w, 1);
    w.options.snapshot_interval_ns = 5 * NS_PER_S;
    w.options.log_bytes_max = 1024UL * 1024;
    node_world_open(&w);
    (void) node_world_lead(&w);
    r = w.nodes[0].replica;
    submit_jobs(&w, 0, 20, 10);
    node_world_run(&w, 20000);
    assert_int_equal(r->snapshots.taken, 0);
    submit_jobs(&w, 0, 100, 10);
    node_world_run(&w, 100);
    assert_int_equal(r->snapshots.taken, 1);
    submit_jobs(&w, 0, 100, 10);
    node_world_run(&w, 1000);
    assert_int_equal(r->snapshots.taken, 1); /* the interval */
    node_world_run(&w, 5000);
    assert_int_equal(r->snapshots.taken, 2);
    submit_jobs(&w, 0, 90, 16384);
    node_world_run(&w, 1100);
    assert_int_equal(r->snapshots.taken, 3); /* the size */
    assert_true(r->persist.log.bytes <= w.options.log_bytes_max);
    replica_snapshot_now(r);
    node_world_run(&w, 10);
    assert_int_equal(r->persist.log.base_index + 100 > fsm_applied_index(r->fsm), true);
    node_world_close(&w);
}

/* Goal: what followers may need stays. Method: keep 512 KiB behind the snapshot. */
static void test_log_kept(void **state) {
    struct node_world w;
    struct replica *r;

    (void) state;
    snapshot_world_init(&w, 1);
    w.options.log_bytes_kept = 512UL * 1024;
    node_world_open(&w);
    (void) node_world_lead(&w);
    r = w.nodes[0].replica;
    submit_jobs(&w, 0, 500, JOB_BYTES);
    replica_snapshot_now(r);
    node_world_run(&w, 100);
    assert_true(r->persist.log.base_index > 0);
    assert_true(r->persist.log.bytes >= 512UL * 1024);
    assert_true(fsm_applied_index(r->fsm) - r->persist.log.base_index >= 32);
    node_world_close(&w);
}

static size_t bytes_in_memory(const struct raft *raft) {
    size_t bytes = 0;

    for (uint64_t i = raft_first_in_memory(raft); i <= raft_last_index(raft); i++)
        bytes += raft_entry_at(raft, i)->data ? raft_entry_at(raft, i)->data->len : 0;
    return bytes;
}

/* Goal: applied entries stay in memory for followers up to a number of bytes, however few they are,
 * while running and after a restart, which finds the configuration in front of them. Method: a
 * hundred entries of 16 KiB, of which five fit; the power goes. */
static void test_memory_of_large_entries(void **state) {
    struct node_world w;
    struct raft *raft;

    (void) state;
    snapshot_world_init(&w, 1);
    w.options.raft.applied_entries_kept = 1000;
    w.options.raft.applied_bytes_kept = 90UL * 1024;
    w.options.log_bytes_kept = 64UL << 20;
    node_world_open(&w);
    (void) node_world_lead(&w);
    for (unsigned i = 0; i < 100; i++)
        submit_jobs(&w, 0, 1, 16384);
    raft = w.nodes[0].replica->raft;
    assert_true(raft_last_index(raft) >= 100);
    assert_in_range(bytes_in_memory(raft), 64UL * 1024, 90UL * 1024);
    replica_snapshot_now(w.nodes[0].replica); /* all of it is in the store and in the log */
    node_world_run(&w, 100);
    node_world_crash(&w, 0, SIM_DISK_KEEP_NONE, 0);
    node_world_run(&w, 500);
    node_world_restart(&w, 0);
    raft = w.nodes[0].replica->raft;
    assert_int_equal(raft_config_latest(raft)->count, 1);
    assert_true(raft_first_in_memory(raft) > 1 && raft_applied(raft) >= 100);
    assert_in_range(bytes_in_memory(raft), 64UL * 1024, 90UL * 1024);
    (void) node_world_lead(&w);
    submit_jobs(&w, 0, 1, 16384);
    assert_in_range(bytes_in_memory(raft), 64UL * 1024, 90UL * 1024);
    node_world_close(&w);
}

/* Goal: a follower that is behind the log is put right by a snapshot, its watchers are told, and a
 * restart finds it whole. Method: cut it off, compact the others, heal; crash it. */
static void test_follower_behind_the_log(void **state) {
    struct node_world w;
    struct lag l;
    struct replica *r;
    const struct replica_event *events;
    uint64_t cursor, index;
    size_t n;

    (void) state;
    lag_begin(&l, &w, 300);
    r = w.nodes[l.follower].replica;
    cursor = fsm_applied_index(r->fsm);
    lag_heal(&l);
    lag_wait_equal(&l);
    assert_int_equal(r->snapshots.installed, 1);
    assert_int_equal(w.nodes[l.leader].replica->transfers.done, 1);
    assert_int_equal(w.nodes[l.leader].replica->transfers.failed, 0);
    assert_int_equal(replica_events_read(r, cursor, &events, 10, &n, &index), 1);
    submit_jobs(&w, l.leader, 20, 100); /* the log goes on behind it */
    lag_wait_equal(&l);
    node_world_crash(&w, l.follower, SIM_DISK_KEEP_NONE, 0);
    node_world_run(&w, 500);
    node_world_restart(&w, l.follower);
    lag_wait_equal(&l);
    node_world_close(&w);
}

/* Goal: an empty disk is filled. Method: a cluster of two with a log that was cut, a third node is
 * added, and restarted afterwards. */
static void test_new_node(void **state) {
    struct node_world w;
    struct lag l;

    (void) state;
    lag_begin_new(&l, &w, 200);
    lag_heal(&l);
    lag_wait_equal(&l);
    assert_int_equal(w.nodes[l.follower].replica->snapshots.installed, 1);
    submit_jobs(&w, l.leader, 20, 100);
    lag_wait_equal(&l);
    node_world_crash(&w, l.follower, SIM_DISK_KEEP_NONE, 0);
    node_world_restart(&w, l.follower);
    lag_wait_equal(&l);
    node_world_close(&w);
}

/* What is there before: an old state, nothing, or an old state whose log goes on for longer than
 * the snapshot, with entries that nobody else has. */
enum install_over { OVER_OLD, OVER_NOTHING, OVER_TAIL, OVERS };

/* The old leader is cut off with more entries than the others then commit. */
static void lag_begin_tail(struct lag *l, struct node_world *w, unsigned n) {
    static struct answer lost[256];
    unsigned old;

    lag_begin_leader(l, w);
    old = l->follower;
    for (unsigned i = 0; i < 2 * n; i++)
        assert_int_equal(node_world_submit(w, old, "", 0, MONO_NEVER, &lost[i]), 0);
    node_world_settle(w);
    lag_compact(l, n);
    assert_true(raft_last_index(w->nodes[old].replica->raft) > l->index);
}

/* One run: the follower's power goes at the @nth disk operation of the install. False when the
 * install needs fewer. */
static bool crash_in_install(enum install_over over, uint64_t nth, enum sim_disk_model model) {
    struct node_world w;
    struct lag l;
    struct node_world_node *n;
    struct errtext why = {0};
    uint64_t before, after;
    bool hit;

    if (over == OVER_NOTHING)
        lag_begin_new(&l, &w, 60);
    else if (over == OVER_TAIL)
        lag_begin_tail(&l, &w, 60);
    else
        lag_begin(&l, &w, 60);
    n = &w.nodes[l.follower];
    before = fsm_applied_index(n->replica->fsm);
    lag_heal(&l);
    n->bulk_counted = true;
    for (int i = 0; i < 2000 && !n->replica->receive.active; i++) {
        n->bulk_budget = 0;
        node_world_step(&w);
    }
    n->hold_disk = true; /* all but the job that switches */
    n->bulk_counted = false;
    for (int i = 0; i < 2000 && !snapshots_installing(&n->replica->snapshots); i++)
        node_world_step(&w);
    assert_true(snapshots_installing(&n->replica->snapshots));
    n->may_fail = true;
    sim_disk_set_fault(n->disk, (struct sim_disk_fault){.op = SIM_DISK_ANY,
                                                        .nth = nth,
                                                        .effect = SIM_DISK_CRASH_MID,
                                                        .err = ERR_CRASHED});
    n->hold_disk = false;
    for (int i = 0; i < 50 && !sim_disk_crashed(n->disk); i++)
        node_world_step(&w);
    hit = sim_disk_crashed(n->disk);
    node_world_crash(&w, l.follower, model, 0);
    n->may_fail = false;
    if (node_world_start(&w, l.follower, &why) != 0)
        fail_msg("operation %llu, model %d: %s", (unsigned long long) nth, (int) model, why.s);
    after = fsm_applied_index(n->replica->fsm);
    assert_true(after <= before || after >= l.index); /* the old one or the new one */
    lag_wait_equal(&l);
    /* What its log held before is gone, or it would pass that on some day. */
    assert_true(wal_base_index(n->replica->wal) >= l.index);
    node_world_close(&w);
    return hit;
}

/* Goal: a power cut at any step of an install leaves the old state or the new one, and either goes
 * on (reliability.md W12). Method: each disk operation of it, each model of what a cut keeps, over
 * an old state, over an empty disk and over a log that is longer than the snapshot. */
static void test_crash_in_install(void **state) {
    (void) state;
    for (enum install_over over = OVER_OLD; over < OVERS; over++) {
        uint64_t nth = 1;

        while (crash_in_install(over, nth, SIM_DISK_KEEP_NONE)) {
            (void) crash_in_install(over, nth, SIM_DISK_KEEP_ALL);
            (void) crash_in_install(over, nth, SIM_DISK_KEEP_PREFIX);
            (void) crash_in_install(over, nth, SIM_DISK_KEEP_SECTORS);
            (void) crash_in_install(over, nth, SIM_DISK_LOSE_DIR);
            nth++;
        }
        assert_true(nth > 5); /* it did something to be cut off in */
    }
}

/* Goal: a finished install does not excuse a lost log (W15). Method: remove the log's files behind
 * an installed state; the start is refused. */
static void test_lost_log_after_install(void **state) {
    struct node_world w;
    struct lag l;
    struct node_world_node *n;
    struct errtext why = {0};

    (void) state;
    lag_begin(&l, &w, 60);
    n = &w.nodes[l.follower];
    lag_heal(&l);
    lag_wait_equal(&l);
    assert_int_equal(n->replica->snapshots.installed, 1);
    node_world_crash(&w, l.follower, SIM_DISK_KEEP_NONE, 1000);
    for (size_t i = 0; sim_disk_name(n->disk, i);) {
        if (strncmp(sim_disk_name(n->disk, i), "wal-", 4) == 0)
            assert_true(sim_disk_remove(n->disk, sim_disk_name(n->disk, i)));
        else
            i++;
    }
    assert_int_equal(node_world_start(&w, l.follower, &why), ERR_CORRUPT);
    node_world_close(&w);
}

/* Goal: a log that was cut does not begin a state from nothing. Method: lose the state store behind
 * it; the start is refused. */
static void test_lost_state(void **state) {
    struct node_world w;
    struct errtext why = {0};

    (void) state;
    snapshot_world_init(&w, 1);
    node_world_open(&w);
    (void) node_world_lead(&w);
    submit_jobs(&w, 0, 300, JOB_BYTES);
    replica_snapshot_now(w.nodes[0].replica);
    node_world_run(&w, 100);
    assert_true(w.nodes[0].replica->persist.log.base_index > 0);
    node_world_crash(&w, 0, SIM_DISK_KEEP_ALL, 0);
    w.nodes[0].kv->ops->close(w.nodes[0].kv);
    assert_int_equal(kv_mem_new(0, &w.nodes[0].kv), 0);
    assert_int_equal(node_world_start(&w, 0, &why), ERR_CORRUPT);
    assert_non_null(strstr(why.s, "state"));
    node_world_close(&w);
}

/* Goal: a proposal whose entry vanished into a snapshot is answered with the truth, soon; one that
 * may be repeated is. Method: the follower forwards both, is cut off before it sees the entries;
 * it hears where they are before (@early) or after the snapshot. */
static void proposals_in_the_snapshot(bool early) {
    struct node_world w;
    struct lag l;
    struct replica *r;
    struct answer once, again;
    uint64_t index;

    lag_begin_with(&l, &w, 300, &once, &again, early);
    assert_int_equal(once.count, 0);
    assert_int_equal(again.count, 0);
    r = w.nodes[l.follower].replica;
    index = fsm_applied_index(r->fsm);
    lag_heal(&l);
    lag_wait_equal(&l);
    if (!early) {
        assert_int_equal(once.count, 0); /* nobody has said where it is */
        assert_int_equal(r->proposals.in_flight.count, 1);
        lag_accepted(&l, index + 1);
    }
    node_world_run(&w, 200);
    assert_int_equal(once.count, 1);
    assert_int_equal(once.status, REPLICA_UNKNOWN);
    assert_int_equal(again.count, 1);
    assert_int_equal(again.status, REPLICA_OK);
    assert_int_equal(again.code, FSM_EXISTING); /* not a second job */
    node_world_close(&w);
}

static void test_proposals_in_the_snapshot(void **state) {
    (void) state;
    proposals_in_the_snapshot(true);
    proposals_in_the_snapshot(false);
}

/* Goal: an orderly stop leaves nothing to replay. Method: settle, then cut the power. */
static void test_settle(void **state) {
    struct node_world w;
    struct replica *r;
    struct errtext why = {0};
    uint64_t applied;

    (void) state;
    snapshot_world_init(&w, 1);
    node_world_open(&w);
    (void) node_world_lead(&w);
    r = w.nodes[0].replica;
    submit_jobs(&w, 0, 50, 100);
    node_world_settle(&w);
    applied = fsm_applied_index(r->fsm);
    assert_true(replica_idle(r));
    assert_int_equal(replica_settle(r, &why), 0);
    node_world_crash(&w, 0, SIM_DISK_KEEP_NONE, 0);
    node_world_restart(&w, 0);
    assert_int_equal(fsm_applied_index(w.nodes[0].replica->fsm), applied);
    assert_true(fsm_applied_index(w.nodes[0].replica->fsm) >= 50);
    node_world_close(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_log_is_cut),
        cmocka_unit_test(test_policy),
        cmocka_unit_test(test_log_kept),
        cmocka_unit_test(test_memory_of_large_entries),
        cmocka_unit_test(test_follower_behind_the_log),
        cmocka_unit_test(test_new_node),
        cmocka_unit_test(test_crash_in_install),
        cmocka_unit_test(test_lost_log_after_install),
        cmocka_unit_test(test_lost_state),
        cmocka_unit_test(test_proposals_in_the_snapshot),
        cmocka_unit_test(test_settle),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
