/* Bytes from peers, and the cluster's status. */
#include "node_world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "node/replica_internal.h"

#include "base/rand.h"

#include "chronos/v1/cluster_service.pb-c.h"

/* Goal: whatever a peer sends that is no well-formed message of this cluster changes nothing.
 * Method: an intact message of a real leader, cut at every length and with every byte turned, to a
 * third node that never heard the original; then random bytes. Term, vote and log must stay as they
 * were or be what an intact message could have made of them: no entry, no vote, no crash. */
static void test_malformed(void **state) {
    struct rng rng = rng_seed(7);
    struct node_world w;
    struct answer a;
    struct bytes *intact;
    unsigned leader, other;
    uint8_t *copy;

    (void) state;
    leader = node_world_begin(&w, 3);
    other = (leader + 1) % 3;
    node_world_run(&w, 100);
    assert_int_equal(node_world_submit(&w, leader, "", 0, MONO_NEVER, &a), 0);
    replica_turn(w.nodes[leader].replica);
    assert_true(w.tail > w.head);
    intact = bytes_ref(w.queue[(w.tail - 1) % NODE_WORLD_MESSAGES].payload);
    copy = malloc(intact->len);
    assert_non_null(copy);
    for (size_t len = 0; len < intact->len; len++) {
        uint64_t last = raft_last_index(replica_raft(w.nodes[other].replica));

        memcpy(copy, intact->data, len);
        replica_on_peer_message(w.nodes[other].replica, 99, slice_of(copy, len));
        assert_int_equal(raft_last_index(replica_raft(w.nodes[other].replica)), last);
        /* As from the third node: the message says that the leader sent it. */
        replica_on_peer_message(w.nodes[other].replica, (leader + 2) % 3 + 1, slice_of(copy, len));
        assert_int_equal(raft_last_index(replica_raft(w.nodes[other].replica)), last);
    }
    for (int i = 0; i < 20000; i++) {
        uint8_t noise[64];
        size_t len = rng_below(&rng, sizeof(noise));
        uint64_t last = raft_last_index(replica_raft(w.nodes[other].replica));

        for (size_t k = 0; k < len; k++)
            noise[k] = (uint8_t) rng_next(&rng);
        noise[0] = 0x08; /* looks like the version */
        noise[1] = 0x01;
        replica_on_peer_message(w.nodes[other].replica, leader + 1, slice_of(noise, len));
        assert_int_equal(raft_last_index(replica_raft(w.nodes[other].replica)), last);
        assert_int_equal(replica_failed(w.nodes[other].replica, NULL), 0);
    }
    assert_true(w.nodes[other].replica->bad_messages > 0);
    free(copy);
    (void) bytes_unref(intact);
    node_world_run(&w, 1000);
    assert_int_equal(a.status, REPLICA_OK);
    node_world_close(&w);
}

struct got_bytes {
    unsigned count;
    enum replica_status status;
    uint8_t data[8192];
    size_t len;
};

static void take_bytes(void *arg, enum replica_status status, struct slice bytes) {
    struct got_bytes *g = arg;

    g->count++;
    g->status = status;
    assert_true(bytes.len <= sizeof(g->data));
    if (bytes.len > 0)
        memcpy(g->data, bytes.data, bytes.len);
    g->len = bytes.len;
}

/* Goal: every node tells the same status, the leader's. Method: ask all three, compare. */
static void test_status_is_the_same_everywhere(void **state) {
    Chronos__V1__GetClusterStatusResponse *r;
    struct got_bytes got[3] = {0};
    struct node_world w;
    unsigned leader;

    (void) state;
    leader = node_world_begin(&w, 3);
    node_world_run(&w, 3000);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(replica_cluster_status(w.nodes[i].replica, false,
                                                node_world_in_ms(&w, 1000), take_bytes, &got[i]),
                         0);
    node_world_run(&w, 10);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(got[i].count, 1);
        assert_int_equal(got[i].status, REPLICA_OK);
        r = chronos__v1__get_cluster_status_response__unpack(NULL, got[i].len, got[i].data);
        assert_non_null(r);
        assert_int_equal(r->leader_id, leader + 1);
        assert_int_equal(r->n_nodes, 3);
        for (size_t k = 0; k < r->n_nodes; k++)
            assert_true(r->nodes[k]->is_alive);
        chronos__v1__get_cluster_status_response__free_unpacked(r, NULL);
    }
    node_world_close(&w);
}

/* An answer with @code to the call @id, from node @from + 1. */
static void answer_call(struct node_world *w, unsigned to, unsigned from, uint64_t id,
                        uint32_t code) {
    Chronos__Internal__V1__PeerMessage m = CHRONOS__INTERNAL__V1__PEER_MESSAGE__INIT;
    Chronos__Internal__V1__PeerReply reply = CHRONOS__INTERNAL__V1__PEER_REPLY__INIT;
    Chronos__Internal__V1__PeerReply *replies[] = {&reply};
    uint8_t packed[128];
    size_t len;

    reply.id = id;
    reply.code = code;
    m.version = PEER_MESSAGE_VERSION;
    m.replies = replies;
    m.n_replies = 1;
    assert_true(chronos__internal__v1__peer_message__get_packed_size(&m) <= sizeof(packed));
    len = chronos__internal__v1__peer_message__pack(&m, packed);
    replica_on_peer_message(w->nodes[to].replica, from + 1, slice_of(packed, len));
}

/* Goal: what answers a call of an earlier life of a node is not taken for the answer to a call of
 * this one (seed 1872 of the simulator: a change of membership was told done that was never made).
 * Method: the same call before and after a crash; then the late answer to the first. */
static void test_late_answers(void **state) {
    struct got_bytes got[2] = {0};
    struct node_world w;
    unsigned leader, other;
    uint64_t earlier = 0;

    (void) state;
    leader = node_world_begin(&w, 3);
    other = (leader + 1) % 3;
    node_world_run(&w, 3000);
    for (unsigned i = 0; i < 2; i++) {
        struct replica *r = w.nodes[other].replica;

        assert_int_equal(
            replica_cluster_status(r, false, node_world_in_ms(&w, 1000), take_bytes, &got[i]), 0);
        if (i == 1) {
            assert_true(r->next_peer_call != earlier);
            answer_call(&w, other, leader, earlier, 7);
            assert_int_equal(got[1].count, 0);
        }
        earlier = r->next_peer_call;
        node_world_run(&w, 10);
        assert_int_equal(got[i].count, 1);
        assert_int_equal(got[i].status, REPLICA_OK);
        if (i == 0) {
            node_world_crash(&w, other, SIM_DISK_KEEP_ALL, 1000);
            node_world_restart(&w, other);
            node_world_run(&w, 3000);
        }
    }
    node_world_close(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_late_answers),
        cmocka_unit_test(test_malformed),
        cmocka_unit_test(test_status_is_the_same_everywhere),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
