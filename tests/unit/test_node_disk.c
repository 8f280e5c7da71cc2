/* A disk that fills up, and one that rots. */
#include "node_snapshot_fixture.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "log_commands.h"
#include "node/replica_internal.h"
#include "storage/kv_mem.h"

#include "chronos/v1/cluster_service.pb-c.h"

#define MIB (1024ULL * 1024)

static void set_space(struct node_world *w, unsigned slot, uint64_t free_mib, uint64_t total_mib) {
    w->nodes[slot].disk_free = free_mib * MIB;
    w->nodes[slot].disk_total = total_mib * MIB;
    node_world_run(w, 2100); /* two looks, and the word spread */
}

struct status {
    unsigned count;
    Chronos__V1__GetClusterStatusResponse *s;
};

static void on_status(void *arg, enum replica_status status, struct slice bytes) {
    struct status *st = arg;

    assert_int_equal(status, REPLICA_OK);
    st->count++;
    st->s = chronos__v1__get_cluster_status_response__unpack(NULL, bytes.len, bytes.data);
    assert_non_null(st->s);
}

/* Goal: a nearly full disk refuses new jobs and nothing else, says so, and heals by itself (W5).
 * Method: a single node; free space as told. */
static void test_disk_full(void **state) {
    struct node_world w;
    struct answer a;
    struct status st = {0};
    struct replica *r;
    uint64_t seq;

    (void) state;
    snapshot_world_init(&w, 1);
    w.options.disk_reserve_bytes = 256 * MIB;
    node_world_open(&w);
    (void) node_world_lead(&w);
    r = w.nodes[0].replica;
    set_space(&w, 0, 300, 1000);
    assert_int_equal(node_world_submit(&w, 0, "", 0, MONO_NEVER, &a), 0);
    node_world_run(&w, 10);
    assert_int_equal(a.status, REPLICA_OK);
    seq = a.job_seq;
    set_space(&w, 0, 255, 1000);
    assert_int_equal(node_world_submit(&w, 0, "", 0, MONO_NEVER, &a), REPLICA_NO_SPACE);
    assert_int_equal(node_world_propose(&w, 0, log_cancel(seq), 0, MONO_NEVER, &a), 0);
    node_world_run(&w, 10);
    assert_int_equal(a.status, REPLICA_OK);
    assert_int_equal(replica_cluster_status(r, true, MONO_NEVER, on_status, &st), 0);
    assert_int_equal(st.count, 1);
    assert_int_equal(st.s->n_alarms, 1);
    assert_int_equal(strncmp(st.s->alarms[0], "node 1: disk_full", 17), 0);
    assert_int_equal(st.s->nodes[0]->disk_free_bytes, 255 * MIB);
    chronos__v1__get_cluster_status_response__free_unpacked(st.s, NULL);
    set_space(&w, 0, 270, 1000); /* not enough beyond: no flapping */
    assert_int_equal(node_world_submit(&w, 0, "", 0, MONO_NEVER, &a), REPLICA_NO_SPACE);
    set_space(&w, 0, 300, 1000);
    assert_int_equal(node_world_submit(&w, 0, "", 0, MONO_NEVER, &a), 0);
    node_world_run(&w, 10);
    assert_int_equal(a.status, REPLICA_OK);
    set_space(&w, 0, 400, 10000); /* 5% of a large one are more than the reserve */
    assert_int_equal(node_world_submit(&w, 0, "", 0, MONO_NEVER, &a), REPLICA_NO_SPACE);
    node_world_close(&w);
}

/* Goal: a leader without room hands over to one with; while it leads all the same, it refuses what
 * others forward. Method: three nodes, first the leader's disk, then everybody's. */
static void test_leader_without_room(void **state) {
    struct node_world w;
    struct answer a;
    unsigned old, leader, other;

    (void) state;
    snapshot_world_init(&w, 3);
    w.options.disk_reserve_bytes = 256 * MIB;
    node_world_open(&w);
    old = node_world_lead(&w);
    node_world_run(&w, 2000);
    set_space(&w, old, 10, 1000);
    leader = node_world_lead(&w);
    assert_int_not_equal(leader, old);
    assert_int_equal(node_world_submit(&w, leader, "", 0, MONO_NEVER, &a), 0);
    node_world_run(&w, 100);
    assert_int_equal(a.status, REPLICA_OK);
    for (unsigned i = 0; i < 3; i++)
        if (i != leader)
            set_space(&w, i, 10, 1000);
    set_space(&w, leader, 10, 1000);
    assert_int_equal(node_world_lead(&w), leader); /* there is nobody better */
    other = (leader + 1) % 3;
    set_space(&w, other, 900, 1000);
    w.nodes[other].replica->disk_space.low = false;
    leader = node_world_lead(&w);
    for (unsigned i = 0; i < 3; i++) {
        struct replica *r = w.nodes[i].replica;

        if (i == leader) /* make sure that one without room leads */
            r->disk_space.low = true;
        else
            r->disk_space.low = false;
    }
    assert_int_equal(node_world_submit(&w, (leader + 1) % 3, "", 0, MONO_NEVER, &a), 0);
    node_world_run(&w, 60);
    assert_int_equal(a.count, 1);
    assert_int_equal(a.status, REPLICA_NO_SPACE);
    node_world_close(&w);
}

/* Goal: a flipped bit in an old log segment is found by the scrub within a round, and repaired when
 * the state has those entries durably (W8, W14). */
static void test_scrub_repairs(void **state) {
    struct node_world w;
    struct replica *r;
    uint8_t *bytes;
    uint64_t len = 0, rounds;
    const char *name = NULL;

    (void) state;
    snapshot_world_init(&w, 1);
    w.options.scrub_interval_ns = 240 * NS_PER_S; /* the first after 10 s */
    w.options.snapshot_entries = 100000;
    node_world_open(&w);
    (void) node_world_lead(&w);
    r = w.nodes[0].replica;
    submit_jobs(&w, 0, 300, JOB_BYTES);
    node_world_run(&w, 15000);
    assert_true(r->scrub.rounds >= 1);
    assert_int_equal(r->scrub.repaired, 0);
    assert_int_equal(r->scrub.alarm[0], 0);
    for (size_t i = 0; !name && sim_disk_name(w.nodes[0].disk, i); i++)
        if (strncmp(sim_disk_name(w.nodes[0].disk, i), "wal-", 4) == 0)
            name = sim_disk_name(w.nodes[0].disk, i);
    assert_non_null(name);
    bytes = sim_disk_bytes(w.nodes[0].disk, name, &len);
    assert_non_null(bytes);
    bytes[len / 2] ^= 4;
    rounds = r->scrub.rounds;
    node_world_run(&w, 300000);
    assert_true(r->scrub.rounds > rounds);
    assert_int_equal(r->scrub.repaired, 1);
    assert_int_equal(strncmp(r->scrub.alarm, "scrub: ", 7), 0);
    assert_true(r->persist.log.base_index > 0);
    submit_jobs(&w, 0, 10, 10);
    node_world_close(&w);
}

/* Goal: a damaged state ends the node, with the way out in words; it is never served on. */
static void test_scrub_stops(void **state) {
    struct node_world w;
    struct replica *r;
    struct errtext why = {0};

    (void) state;
    snapshot_world_init(&w, 1);
    w.options.scrub_interval_ns = 24 * NS_PER_S;
    node_world_open(&w);
    (void) node_world_lead(&w);
    r = w.nodes[0].replica;
    submit_jobs(&w, 0, 50, 100);
    replica_snapshot_now(r);
    node_world_run(&w, 100);
    assert_true(kv_mem_damage(w.nodes[0].kv, 7));
    w.nodes[0].may_fail = true;
    node_world_run(&w, 30000);
    assert_int_equal(replica_failed(r, &why), ERR_CORRUPT);
    assert_non_null(strstr(why.s, "chronos cluster replace"));
    node_world_close(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_disk_full),
        cmocka_unit_test(test_leader_without_room),
        cmocka_unit_test(test_scrub_repairs),
        cmocka_unit_test(test_scrub_stops),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
