/* The way of a snapshot to a follower: flow control, lost connections, damage, restarts; and views.
 */
#include "node_snapshot_fixture.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "node/replica_internal.h"
#include "storage/kv_mem.h"

#define BIG_JOBS 300U
#define BIG_BYTES 32768U /* 300 of them: more than two windows */
#define WINDOW (4UL * 1024 * 1024)
#define BLOCK (512UL * 1024) /* more than one block of this state has */

static struct replica *leader_of(const struct lag *l) {
    return l->w->nodes[l->leader].replica;
}

static struct replica *follower_of(const struct lag *l) {
    return l->w->nodes[l->follower].replica;
}

/* Heal, and wait until some of the state has arrived. */
static struct transfer *run_into_transfer(struct lag *l, uint64_t bytes) {
    lag_heal(l);
    for (int ms = 0; ms < 5000; ms++) {
        struct transfer *t = leader_of(l)->transfers.list;

        if (t && t->state == TRANSFER_SENDING && t->bytes_acked >= bytes) {
            l->w->nodes[l->follower].hold_bulk = true;
            l->w->nodes[l->follower].bulk_counted = false;
            return t;
        }
        l->w->nodes[l->follower].bulk_counted = true; /* slow enough to be caught */
        l->w->nodes[l->follower].bulk_budget = 1;
        node_world_step(l->w);
    }
    fail_msg("no transfer");
    return NULL;
}

/* Goal: a broken bulk connection costs a window, not the transfer. Method: lose all bulk messages
 * for two seconds in the middle of one. */
static void test_connection_breaks(void **state) {
    struct node_world w;
    struct lag l;
    uint64_t sent;

    (void) state;
    lag_begin_bytes(&l, &w, BIG_JOBS, BIG_BYTES);
    (void) run_into_transfer(&l, 1024UL * 1024);
    w.lose_bulk = true;
    w.nodes[l.follower].hold_bulk = false;
    node_world_run(&w, 2000);
    assert_true(w.bulk_lost > 0);
    w.lose_bulk = false;
    sent = w.bulk_sent;
    lag_wait_equal(&l);
    assert_int_equal(leader_of(&l)->transfers.done, 1);
    assert_int_equal(leader_of(&l)->transfers.failed, 0);
    assert_true(w.bulk_sent - sent < BIG_JOBS * BIG_BYTES / (256 * 1024)); /* not from the front */
    node_world_close(&w);
}

/* Goal: a receiver that takes nothing holds a bounded amount of memory here and there, and nobody
 * else back. Method: stop its bulk thread for five seconds while submits go on. */
static void test_slow_receiver(void **state) {
    struct node_world w;
    struct lag l;
    struct transfer *t;
    uint64_t term;

    (void) state;
    lag_begin_bytes(&l, &w, BIG_JOBS, BIG_BYTES);
    t = run_into_transfer(&l, 1);
    term = raft_term(leader_of(&l)->raft);
    w.nodes[l.follower].hold_bulk = true;
    for (int i = 0; i < 50; i++) {
        node_world_run(&w, 100);
        submit_jobs(&w, l.leader, 4, 100);
        assert_true(t->bytes <= WINDOW + BLOCK);
        assert_true(follower_of(&l)->receive.queued_bytes <= WINDOW + BLOCK);
    }
    assert_true(t->bytes >= WINDOW / 2); /* it did wait for the receiver */
    assert_int_equal(raft_term(leader_of(&l)->raft), term);
    w.nodes[l.follower].hold_bulk = false;
    lag_wait_equal(&l);
    assert_int_equal(leader_of(&l)->transfers.failed, 0);
    node_world_close(&w);
}

/* Goal: a connection that takes nothing is tried again, and at once when it says so. */
static void test_connection_full(void **state) {
    struct node_world w;
    struct lag l;
    uint64_t sent;

    (void) state;
    lag_begin_bytes(&l, &w, BIG_JOBS, BIG_BYTES);
    (void) run_into_transfer(&l, 1);
    w.nodes[l.follower].hold_bulk = false;
    w.nodes[l.leader].bulk_full = true;
    sent = w.bulk_sent;
    node_world_run(&w, 1000);
    assert_int_equal(w.bulk_sent, sent);
    w.nodes[l.leader].bulk_full = false;
    replica_on_peer_bulk_ready(leader_of(&l), l.follower + 1);
    node_world_settle(&w);
    assert_true(w.bulk_sent > sent);
    w.nodes[l.leader].bulk_full = true;
    node_world_run(&w, 100);
    w.nodes[l.leader].bulk_full = false; /* nobody says so: a while later */
    lag_wait_equal(&l);
    node_world_close(&w);
}

/* Goal: a transfer without progress ends after 30 s and raft begins another. The log behind a
 * transfer stays as long as it lasts. */
static void test_no_progress(void **state) {
    struct node_world w;
    struct lag l;
    uint64_t index;

    (void) state;
    lag_begin_bytes(&l, &w, BIG_JOBS, BIG_BYTES);
    index = run_into_transfer(&l, 1)->index;
    w.nodes[l.follower].hold_bulk = true;
    submit_jobs(&w, l.leader, 200, JOB_BYTES);
    node_world_run(&w, 3000);
    assert_true(leader_of(&l)->snapshots.durable_index > index);
    assert_true(leader_of(&l)->persist.log.base_index <= index);
    node_world_run(&w, 30000);
    assert_int_equal(leader_of(&l)->transfers.failed, 1);
    w.nodes[l.follower].hold_bulk = false;
    lag_wait_equal(&l);
    assert_int_equal(leader_of(&l)->transfers.done, 1);
    replica_snapshot_now(leader_of(&l));
    node_world_run(&w, 100);
    assert_true(leader_of(&l)->persist.log.base_index > index); /* held no longer */
    node_world_close(&w);
}

/* Goal: a follower that restarts in the middle keeps its old state and gets a new transfer. */
static void test_follower_restarts(void **state) {
    struct node_world w;
    struct lag l;
    uint64_t before;

    (void) state;
    lag_begin_bytes(&l, &w, BIG_JOBS, BIG_BYTES);
    before = fsm_applied_index(follower_of(&l)->fsm);
    (void) run_into_transfer(&l, 1024UL * 1024);
    node_world_crash(&w, l.follower, SIM_DISK_KEEP_NONE, 1000);
    node_world_run(&w, 500);
    node_world_restart(&w, l.follower);
    assert_true(fsm_applied_index(follower_of(&l)->fsm) <= before); /* the old one */
    w.nodes[l.follower].hold_bulk = false;
    lag_wait_equal(&l);
    node_world_close(&w);
}

/* Goal: a transfer whose leader goes is replaced by the next leader's. */
static void test_leader_goes(void **state) {
    struct node_world w;
    struct lag l;
    unsigned old;

    (void) state;
    lag_begin_bytes(&l, &w, BIG_JOBS, BIG_BYTES);
    (void) run_into_transfer(&l, 1024UL * 1024);
    w.nodes[l.follower].hold_bulk = false;
    old = l.leader;
    node_world_crash(&w, old, SIM_DISK_KEEP_NONE, 0);
    l.leader = node_world_lead(&w);
    assert_int_not_equal(l.leader, l.follower);
    node_world_run(&w, 10000);
    assert_int_equal(follower_of(&l)->snapshots.installed, 1);
    node_world_restart(&w, old);
    lag_wait_equal(&l);
    node_world_close(&w);
}

/* Goal: a damaged block ends the transfer and harms nobody (W14). Method: flip a bit on the way. */
static void test_damage_on_the_way(void **state) {
    struct node_world w;
    struct lag l;
    bool flipped = false;

    (void) state;
    lag_begin_bytes(&l, &w, BIG_JOBS, BIG_BYTES);
    lag_heal(&l);
    for (int ms = 0; ms < 5000 && !flipped; ms++) {
        w.nodes[l.follower].bulk_counted = w.nodes[l.leader].bulk_counted = true;
        w.nodes[l.follower].bulk_budget = 4; /* one at a time, to be caught on the way */
        w.nodes[l.leader].bulk_budget = (unsigned) ms % 2;
        node_world_step(&w);
        w.hold_delivery = true;
        w.nodes[l.leader].bulk_budget = 2;
        node_world_settle(&w);
        for (size_t i = w.head; i != w.tail && !flipped; i++) {
            struct node_world_message *m = &w.queue[i % NODE_WORLD_MESSAGES];

            if (!m->bulk || m->payload->len < 100000)
                continue;
            m->payload->data[m->payload->len / 2] ^= 1;
            flipped = true;
        }
        w.hold_delivery = false;
        node_world_settle(&w);
    }
    w.nodes[l.follower].bulk_counted = w.nodes[l.leader].bulk_counted = false;
    assert_true(flipped);
    lag_wait_equal(&l);
    assert_int_equal(leader_of(&l)->transfers.failed, 1);
    assert_int_equal(leader_of(&l)->transfers.done, 1);
    node_world_close(&w);
}

/* Give the follower @data as the leader's blocks. */
static void inject_of(struct lag *l, uint64_t term, uint64_t transfer, uint64_t sequence,
                      struct slice data) {
    Chronos__Internal__V1__PeerMessage m = CHRONOS__INTERNAL__V1__PEER_MESSAGE__INIT;
    Chronos__Internal__V1__SnapshotBlocks s = CHRONOS__INTERNAL__V1__SNAPSHOT_BLOCKS__INIT;
    struct bytes *b;

    s.term = term;
    s.transfer = transfer;
    s.sequence = sequence;
    s.data.data = (uint8_t *) (uintptr_t) data.data;
    s.data.len = data.len;
    m.version = 1;
    m.snapshot = &s;
    b = bytes_new(chronos__internal__v1__peer_message__get_packed_size(&m));
    assert_non_null(b);
    (void) chronos__internal__v1__peer_message__pack(&m, b->data);
    replica_on_peer_message(follower_of(l), l->leader + 1, bytes_slice(b));
    (void) bytes_unref(b);
    node_world_run(l->w, 50);
}

static void inject(struct lag *l, uint64_t transfer, uint64_t sequence, struct slice data) {
    inject_of(l, raft_term(leader_of(l)->raft), transfer, sequence, data);
}

/* Goal: bytes that are no snapshot of this cluster change nothing. Method: garbage, cut-off blocks,
 * a foreign header, a chunk without its header, a header without fields. */
static void test_bad_blocks(void **state) {
    Chronos__Internal__V1__SnapshotHeader h = CHRONOS__INTERNAL__V1__SNAPSHOT_HEADER__INIT;
    uint8_t id[16] = {1, 2, 3}, packed[256], garbage[4096];
    struct node_world w;
    struct lag l = {.w = &w};
    struct replica *r;
    struct buf block = {0};
    uint64_t bad;

    (void) state;
    snapshot_world_init(&w, 2);
    node_world_open(&w);
    l.leader = node_world_lead(&w);
    l.follower = 1 - l.leader;
    node_world_run(&w, 100);
    r = follower_of(&l);
    bad = r->bad_messages;
    memset(garbage, 0xa5, sizeof(garbage));
    inject(&l, 1, 0, slice_of(garbage, sizeof(garbage)));
    inject(&l, 2, 0, slice_of(garbage, 10));
    inject(&l, 3, 0, slice_of(NULL, 0));
    assert_int_equal(r->bad_messages, bad + 3);
    buf_init(&block, 65536);
    h.version = 1;
    h.index = 1000;
    h.term = 1;
    h.cluster_id.data = id;
    h.cluster_id.len = sizeof(id);
    assert_int_equal(
        snapshot_header_encode(
            &block, slice_of(packed, chronos__internal__v1__snapshot_header__pack(&h, packed))),
        0);
    inject(&l, 4, 0, slice_of(block.data, block.len));
    assert_false(r->receive.active);
    inject(&l, 5, 7, slice_of(block.data, block.len)); /* not its beginning */
    assert_false(r->receive.active);
    h.cluster_id.data = w.options.cluster_id;
    buf_clear(&block);
    assert_int_equal(
        snapshot_header_encode(
            &block, slice_of(packed, chronos__internal__v1__snapshot_header__pack(&h, packed))),
        0);
    inject(&l, 6, 0, slice_of(block.data, block.len)); /* no configuration */
    assert_false(r->receive.active);
    buf_done(&block);
    submit_jobs(&w, l.leader, 5, 10);
    node_world_close(&w);
}

/* Goal: whoever led an older term cannot end the transfer of the leader. Method: a block of another
 * transfer and of the term before comes in its middle. */
static void test_deposed_leader(void **state) {
    static const uint8_t block[SNAPSHOT_BLOCK_HEADER_BYTES];
    struct node_world w;
    struct lag l;
    struct receive *x;
    uint64_t transfer;

    (void) state;
    lag_begin_bytes(&l, &w, BIG_JOBS, BIG_BYTES);
    (void) run_into_transfer(&l, 1024UL * 1024);
    x = &follower_of(&l)->receive;
    assert_true(x->active && !x->abandoned);
    transfer = x->transfer;
    inject_of(&l, raft_term(leader_of(&l)->raft) - 1, transfer + 1, 0,
              slice_of(block, sizeof(block)));
    assert_true(x->active && !x->abandoned);
    assert_int_equal(x->transfer, transfer);
    w.nodes[l.follower].hold_bulk = false;
    lag_wait_equal(&l);
    assert_int_equal(follower_of(&l)->snapshots.installed, 1);
    node_world_close(&w);
}

static void heartbeat_of(struct lag *l, unsigned leader, uint64_t term) {
    Chronos__Internal__V1__PeerMessage m = CHRONOS__INTERNAL__V1__PEER_MESSAGE__INIT;
    Chronos__Internal__V1__RaftMessage beat = CHRONOS__INTERNAL__V1__RAFT_MESSAGE__INIT,
                                       *beats[] = {&beat};
    struct bytes *b;

    beat.type = RAFT_MSG_HEARTBEAT_REQ;
    beat.from = leader + 1;
    beat.to = l->follower + 1;
    beat.term = term;
    m.version = 1;
    m.raft = beats;
    m.n_raft = 1;
    b = bytes_new(chronos__internal__v1__peer_message__get_packed_size(&m));
    assert_non_null(b);
    (void) chronos__internal__v1__peer_message__pack(&m, b->data);
    replica_on_peer_message(follower_of(l), leader + 1, bytes_slice(b));
    (void) bytes_unref(b);
}

/* Goal: of a transfer that nobody will finish nothing is left. Method: the receiver hears of a next
 * leader, which sends nothing. */
static void test_nothing_left_behind(void **state) {
    struct node_world w;
    struct lag l;
    struct node_world_node *n;
    uint64_t term;

    (void) state;
    lag_begin_bytes(&l, &w, BIG_JOBS, BIG_BYTES);
    (void) run_into_transfer(&l, 1024UL * 1024);
    n = &w.nodes[l.follower];
    w.hold_delivery = true;
    n->hold_bulk = false;
    node_world_settle(&w);
    assert_true(follower_of(&l)->receive.active);
    assert_true(kv_mem_staged(n->kv));
    term = raft_term(follower_of(&l)->raft) + 1;
    heartbeat_of(&l, (l.leader + 1) % 3 == l.follower ? (l.leader + 2) % 3 : (l.leader + 1) % 3,
                 term);
    node_world_settle(&w);
    assert_int_equal(raft_term(follower_of(&l)->raft), term);
    assert_false(follower_of(&l)->receive.active);
    assert_false(kv_mem_staged(n->kv));
    node_world_close(&w);
}

/* ---- views ----------------------------------------------------------------------------------- */

struct view_reader {
    struct replica_view *view;
    struct buf got;
    size_t bytes;
    unsigned calls;
    bool last;
    int rc;
};

static void on_view(void *arg, int rc, struct slice blocks, bool last) {
    struct view_reader *v = arg;

    v->calls++;
    v->rc = rc;
    v->last = last;
    assert_int_equal(buf_append(&v->got, blocks.data, blocks.len), 0);
    if (rc == 0 && !last)
        replica_view_next(v->view, v->bytes, on_view, v);
}

/* The state in @blocks, as a store. */
static struct kv *load_blocks(struct slice in) {
    struct snapshot_reader reader;
    struct kv *kv = NULL;

    assert_int_equal(kv_mem_new(0, &kv), 0);
    snapshot_reader_begin(&reader);
    while (in.len > 0) {
        struct snapshot_block b;
        struct errtext why;
        struct kv_op *ops = NULL;
        size_t used = 0, n = 0;

        assert_int_equal(snapshot_block_parse(in, &b, &used, &why), 0);
        in = slice_of(in.data + used, in.len - used);
        if (b.kind == SNAPSHOT_BLOCK_HEADER)
            continue;
        assert_int_equal(snapshot_reader_take(&reader, &b, &ops, &n, &why), 0);
        for (size_t i = 0; i < n; i++)
            assert_int_not_equal(ops[i].key.data[0], FSM_LOCAL_KEY);
        if (n > 0)
            assert_int_equal(kv->ops->write(kv, ops, n), 0);
        free(ops);
    }
    assert_true(reader.done);
    snapshot_reader_end(&reader);
    return kv;
}

/* Goal: a view is the state of its opening, whatever happens meanwhile. Method: write between its
 * reads; build a state machine from what was read. */
static void test_view(void **state) {
    struct view_reader v = {.bytes = 65536};
    struct node_world w;
    struct replica *r;
    struct fsm *copy = NULL;
    struct kv *kv;
    struct errtext why = {0};
    uint8_t want[16], got[16];
    uint64_t index;

    (void) state;
    snapshot_world_init(&w, 1);
    node_world_open(&w);
    (void) node_world_lead(&w);
    r = w.nodes[0].replica;
    submit_jobs(&w, 0, 300, JOB_BYTES);
    fsm_digest(r->fsm, want);
    index = fsm_applied_index(r->fsm);
    buf_init(&v.got, 64UL * 1024 * 1024);
    assert_int_equal(replica_view_open(r, &v.view), 0);
    assert_int_equal(replica_view_index(v.view), index);
    replica_view_next(v.view, v.bytes, on_view, &v);
    for (int i = 0; i < 100 && !v.last; i++) {
        w.nodes[0].hold_bulk = true;
        submit_jobs(&w, 0, 1, 100);
        w.nodes[0].hold_bulk = false;
        node_world_settle(&w);
    }
    assert_true(v.last);
    assert_true(v.calls > 3);
    v.view = replica_view_close(v.view);
    kv = load_blocks(slice_of(v.got.data, v.got.len));
    assert_int_equal(fsm_open(kv, &w.options.fsm, &copy, &why), 0);
    fsm_digest(copy, got);
    assert_int_equal(fsm_applied_index(copy), index);
    assert_memory_equal(want, got, sizeof(want));
    copy = fsm_free(copy);
    kv->ops->close(kv);
    buf_done(&v.got);
    node_world_close(&w);
}

/* Goal: there are four at most; one may be closed while it is read. */
static void test_view_limits(void **state) {
    struct view_reader v = {.bytes = 65536};
    struct replica_view *views[4], *fifth;
    struct node_world w;

    (void) state;
    snapshot_world_init(&w, 1);
    node_world_open(&w);
    (void) node_world_lead(&w);
    submit_jobs(&w, 0, 10, 10);
    for (int i = 0; i < 4; i++)
        assert_int_equal(replica_view_open(w.nodes[0].replica, &views[i]), 0);
    assert_int_equal(replica_view_open(w.nodes[0].replica, &fifth), -EBUSY);
    w.nodes[0].hold_bulk = true;
    v.view = views[0];
    replica_view_next(views[0], 65536, on_view, &v);
    (void) replica_view_close(views[0]);
    w.nodes[0].hold_bulk = false;
    node_world_settle(&w);
    assert_int_equal(v.calls, 0);
    assert_int_equal(replica_view_open(w.nodes[0].replica, &views[0]), 0);
    for (int i = 0; i < 4; i++)
        (void) replica_view_close(views[i]);
    node_world_close(&w);
}

/* Goal: an install does not wait for a reader for ever, and the reader is told. Method: a view that
 * reads on and on in tiny pieces on the follower. */
static void test_view_and_install(void **state) {
    struct view_reader v = {.bytes = 1};
    struct node_world w;
    struct lag l;

    (void) state;
    lag_begin(&l, &w, 200);
    buf_init(&v.got, 64UL * 1024 * 1024);
    assert_int_equal(replica_view_open(follower_of(&l), &v.view), 0);
    lag_heal(&l);
    lag_wait_equal(&l);
    replica_view_next(v.view, v.bytes, on_view, &v);
    node_world_settle(&w);
    assert_int_equal(v.rc, ERR_CLOSED);
    v.view = replica_view_close(v.view);
    buf_done(&v.got);
    node_world_close(&w);
}

/* Goal: a state that was received is not put in place under a read of the old one; the read gets
 * what it asked for, the next one is told. Method: the read waits on the bulk thread while the
 * install becomes durable. */
static void test_read_during_install(void **state) {
    struct view_reader v = {.bytes = 1};
    struct node_world_node *n;
    struct node_world w;
    struct lag l;

    (void) state;
    lag_begin(&l, &w, 200);
    n = &w.nodes[l.follower];
    buf_init(&v.got, 64UL * 1024 * 1024);
    assert_int_equal(replica_view_open(n->replica, &v.view), 0);
    lag_heal(&l);
    n->bulk_counted = true;
    n->bulk_budget = 0;
    for (int i = 0; i < 2000 && !n->replica->receive.active; i++)
        node_world_step(&w);
    n->hold_disk = true; /* all but the job that switches */
    n->bulk_counted = false;
    for (int i = 0; i < 2000 && !snapshots_installing(&n->replica->snapshots); i++)
        node_world_step(&w);
    assert_true(snapshots_installing(&n->replica->snapshots));
    n->hold_bulk = true;
    replica_view_next(v.view, v.bytes, on_view, &v);
    n->hold_disk = false;
    node_world_run(&w, 50);
    assert_int_equal(n->replica->snapshots.install.state, INSTALL_DURABLE);
    assert_int_equal(v.calls, 0);
    n->hold_bulk = false;
    node_world_run(&w, 50);
    assert_int_equal(n->replica->snapshots.installed, 1);
    assert_int_equal(v.calls, 2);
    assert_true(v.got.len > 0);
    assert_int_equal(v.rc, ERR_CLOSED);
    lag_wait_equal(&l);
    v.view = replica_view_close(v.view);
    buf_done(&v.got);
    node_world_close(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_connection_breaks),
        cmocka_unit_test(test_slow_receiver),
        cmocka_unit_test(test_connection_full),
        cmocka_unit_test(test_no_progress),
        cmocka_unit_test(test_follower_restarts),
        cmocka_unit_test(test_leader_goes),
        cmocka_unit_test(test_damage_on_the_way),
        cmocka_unit_test(test_bad_blocks),
        cmocka_unit_test(test_deposed_leader),
        cmocka_unit_test(test_nothing_left_behind),
        cmocka_unit_test(test_view),
        cmocka_unit_test(test_view_limits),
        cmocka_unit_test(test_view_and_install),
        cmocka_unit_test(test_read_during_install),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
