/* Goal: the services that change the cluster, over a real replica and real gRPC: checks and exact
 * codes, answers, a backup that is whole, and backups whose clients leave or do not read.
 * Method: see api_world.h. */
#include "api_world.h"

#include "base/buf.h"
#include "storage/snapshot_format.h"

#include "chronos/v1/cluster_service.pb-c.h"

#define CLUSTER "/chronos.v1.ClusterService/"

static void expect(struct world *w, const char *method, const ProtobufCMessage *m,
                   enum rpc_code code, const char *words) {
    struct answer a;
    char path[100];

    (void) snprintf(path, sizeof(path), CLUSTER "%s", method);
    call(w, path, m, 8000, &a);
    if (a.code != code || !strstr(a.message, words))
        fail_msg("%s: code %d \"%s\"; %d with \"%s\" was expected", method, (int) a.code, a.message,
                 (int) code, words);
    free(a.data);
}

static char *text(const char *s) {
    return (char *) (uintptr_t) s;
}

/* Goal: what cannot be is refused with the field's name, before or by the leader. */
static void test_membership_checks(void **state) {
    Chronos__V1__AddNodeRequest add = CHRONOS__V1__ADD_NODE_REQUEST__INIT;
    Chronos__V1__RemoveNodeRequest rm = CHRONOS__V1__REMOVE_NODE_REQUEST__INIT;
    Chronos__V1__PromoteNodeRequest promote = CHRONOS__V1__PROMOTE_NODE_REQUEST__INIT;
    Chronos__V1__DemoteNodeRequest demote = CHRONOS__V1__DEMOTE_NODE_REQUEST__INIT;
    Chronos__V1__ReplaceNodeRequest replace = CHRONOS__V1__REPLACE_NODE_REQUEST__INIT;
    struct world *w = world_new(1, 1000, 256);
    uint8_t disk[17] = {0};

    (void) state;
    expect(w, "AddNode", &add.base, RPC_INVALID_ARGUMENT, "id: 0");
    expect(w, "RemoveNode", &rm.base, RPC_INVALID_ARGUMENT, "id: 0");
    expect(w, "PromoteNode", &promote.base, RPC_INVALID_ARGUMENT, "id: 0");
    expect(w, "DemoteNode", &demote.base, RPC_INVALID_ARGUMENT, "id: 0");
    expect(w, "ReplaceNode", &replace.base, RPC_INVALID_ARGUMENT, "old_id: 0");
    replace.old_id = 1;
    replace.new_id = 65536;
    expect(w, "ReplaceNode", &replace.base, RPC_INVALID_ARGUMENT, "new_id: 65536");
    add.id = 2;
    expect(w, "AddNode", &add.base, RPC_INVALID_ARGUMENT, "peer_address: \"\"");
    add.peer_address = text("host:7");
    add.client_address = text("host");
    expect(w, "AddNode", &add.base, RPC_INVALID_ARGUMENT, "client_address: \"host\"");
    add.client_address = text("");
    add.disk.data = disk;
    add.disk.len = 17;
    expect(w, "AddNode", &add.base, RPC_INVALID_ARGUMENT, "disk: 16 bytes");
    add.disk.len = 16;
    expect(w, "AddNode", &add.base, RPC_INVALID_ARGUMENT, "not all zero");
    add.disk.len = 0;
    add.peer_address = text("x:1");
    expect(w, "AddNode", &add.base, RPC_ALREADY_EXISTS, "is the address of node 1");
    rm.id = 5;
    expect(w, "RemoveNode", &rm.base, RPC_NOT_FOUND, "node 5");
    rm.id = demote.id = 1;
    expect(w, "RemoveNode", &rm.base, RPC_FAILED_PRECONDITION, "last voter");
    expect(w, "DemoteNode", &demote.base, RPC_FAILED_PRECONDITION, "last voter");
    world_free(w);
}

static void expect_change(struct world *w, const char *method, const ProtobufCMessage *m,
                          bool changed) {
    Chronos__V1__ChangeMembershipResponse *resp;
    struct answer a;
    char path[100];

    (void) snprintf(path, sizeof(path), CLUSTER "%s", method);
    call(w, path, m, 8000, &a);
    if (a.code != RPC_OK)
        fail_msg("%s: %s", method, a.message);
    resp = chronos__v1__change_membership_response__unpack(NULL, a.len, a.data);
    assert_non_null(resp);
    assert_int_equal(resp->changed, changed);
    assert_true(resp->index > 0);
    assert_string_equal(resp->cluster_id, "00000000000000000000000000000000");
    chronos__v1__change_membership_response__free_unpacked(resp, NULL);
    free(a.data);
}

/* Goal: a change is answered when it is committed, the same again with changed = false, and the
 * status shows it. The new node never comes, so it stays open until it is taken back. */
static void test_membership_answers(void **state) {
    Chronos__V1__AddNodeRequest add = CHRONOS__V1__ADD_NODE_REQUEST__INIT;
    Chronos__V1__RemoveNodeRequest rm = CHRONOS__V1__REMOVE_NODE_REQUEST__INIT;
    Chronos__V1__DemoteNodeRequest demote = CHRONOS__V1__DEMOTE_NODE_REQUEST__INIT;
    Chronos__V1__PromoteNodeRequest promote = CHRONOS__V1__PROMOTE_NODE_REQUEST__INIT;
    Chronos__V1__GetClusterStatusRequest ask = CHRONOS__V1__GET_CLUSTER_STATUS_REQUEST__INIT;
    struct world *w = world_new(1, 1000, 256);
    Chronos__V1__GetClusterStatusResponse *status;
    struct answer a;

    (void) state;
    add.id = 2;
    add.peer_address = text("host:7");
    expect_change(w, "AddNode", &add.base, true);
    expect_change(w, "AddNode", &add.base, false);
    add.id = 3;
    add.peer_address = text("host:8");
    expect(w, "AddNode", &add.base, RPC_FAILED_PRECONDITION, "node 2 at host:7 is catching up");
    call(w, CLUSTER "GetClusterStatus", &ask.base, 8000, &a);
    assert_int_equal(a.code, RPC_OK);
    status = chronos__v1__get_cluster_status_response__unpack(NULL, a.len, a.data);
    assert_non_null(status);
    assert_int_equal(status->n_nodes, 2);
    assert_string_equal(status->nodes[1]->membership, "catching_up");
    assert_non_null(strstr(status->open_change, "node 2"));
    chronos__v1__get_cluster_status_response__free_unpacked(status, NULL);
    free(a.data);
    demote.id = promote.id = rm.id = 2;
    expect_change(w, "DemoteNode", &demote.base, true);
    expect_change(w, "PromoteNode", &promote.base, true);
    expect_change(w, "RemoveNode", &rm.base, true);
    expect_change(w, "RemoveNode", &rm.base, false);
    world_free(w);
}

/* Goal: leadership: to itself it is there already; nobody else can take it. */
static void test_transfer(void **state) {
    Chronos__V1__TransferLeaderRequest req = CHRONOS__V1__TRANSFER_LEADER_REQUEST__INIT;
    Chronos__V1__TransferLeaderResponse *resp;
    struct world *w = world_new(1, 1000, 256);
    struct answer a;

    (void) state;
    expect(w, "TransferLeader", &req.base, RPC_FAILED_PRECONDITION, "no other voter");
    req.to = 7;
    expect(w, "TransferLeader", &req.base, RPC_NOT_FOUND, "node 7");
    req.to = 65536;
    expect(w, "TransferLeader", &req.base, RPC_INVALID_ARGUMENT, "to: 65536");
    req.to = 1;
    call(w, CLUSTER "TransferLeader", &req.base, 8000, &a);
    assert_int_equal(a.code, RPC_OK);
    resp = chronos__v1__transfer_leader_response__unpack(NULL, a.len, a.data);
    assert_non_null(resp);
    assert_int_equal(resp->leader_id, 1);
    assert_true(resp->term > 1);
    chronos__v1__transfer_leader_response__free_unpacked(resp, NULL);
    free(a.data);
    world_free(w);
}

/* Goal: drains: one of node and worker, known, with a bounded time; answered with their entry. */
static void test_drain(void **state) {
    Chronos__V1__SetDrainRequest req = CHRONOS__V1__SET_DRAIN_REQUEST__INIT;
    Chronos__V1__SetDrainResponse *resp;
    struct world *w = world_new(1, 1000, 256);
    char longer[80];
    struct answer a;

    (void) state;
    memset(longer, 'w', sizeof(longer));
    longer[65] = '\0';
    req.on = true;
    expect(w, "SetDrain", &req.base, RPC_INVALID_ARGUMENT, "exactly one");
    req.node_id = 1;
    req.worker_id = text("w");
    expect(w, "SetDrain", &req.base, RPC_INVALID_ARGUMENT, "exactly one");
    req.node_id = 0;
    req.worker_id = longer;
    expect(w, "SetDrain", &req.base, RPC_INVALID_ARGUMENT, "worker_id: at most 64");
    req.worker_id = text("w");
    expect(w, "SetDrain", &req.base, RPC_NOT_FOUND, "no such node or worker");
    req.worker_id = text("");
    req.node_id = 70000;
    expect(w, "SetDrain", &req.base, RPC_INVALID_ARGUMENT, "node_id: 70000");
    req.node_id = 9;
    expect(w, "SetDrain", &req.base, RPC_NOT_FOUND, "no such node or worker");
    req.node_id = 1;
    req.timeout_ms = -1;
    expect(w, "SetDrain", &req.base, RPC_INVALID_ARGUMENT, "timeout_ms");
    req.timeout_ms = INT64_MAX;
    expect(w, "SetDrain", &req.base, RPC_INVALID_ARGUMENT, "timeout_ms");
    req.timeout_ms = 0;
    call(w, CLUSTER "SetDrain", &req.base, 8000, &a);
    assert_int_equal(a.code, RPC_OK);
    resp = chronos__v1__set_drain_response__unpack(NULL, a.len, a.data);
    assert_non_null(resp);
    assert_true(resp->index > 1);
    chronos__v1__set_drain_response__free_unpacked(resp, NULL);
    free(a.data);
    assert_true(fsm_node_find(replica_fsm(w->replica), 1)->draining);
    assert_int_equal(fsm_node_find(replica_fsm(w->replica), 1)->drain_until_ms -
                         fsm_last_now_ms(replica_fsm(w->replica)),
                     30000);
    world_free(w);
}

/* ---- backup ---- */

struct backup {
    struct buf data;
    size_t messages, largest;
    bool ended;
    enum rpc_code code;
    char message[300];
};

static void on_backup_message(void *arg, struct rpc_stream *s, struct slice m) {
    Chronos__V1__CreateBackupResponse *resp =
        chronos__v1__create_backup_response__unpack(NULL, m.len, m.data);
    struct backup *b = arg;

    (void) s;
    assert_non_null(resp);
    assert_int_equal(buf_append(&b->data, resp->data.data, resp->data.len), 0);
    b->messages++;
    b->largest = MAX(b->largest, resp->data.len);
    chronos__v1__create_backup_response__free_unpacked(resp, NULL);
}

static void on_backup_end(void *arg, struct rpc_stream *s, const struct rpc_result *res) {
    struct backup *b = arg;

    (void) s;
    b->ended = true;
    b->code = res->code;
    (void) snprintf(b->message, sizeof(b->message), "%s", res->message);
}

static bool backup_ended(void *arg) {
    return ((struct backup *) arg)->ended;
}

static bool backup_begun(void *arg) {
    struct backup *b = arg;

    return b->ended || b->messages > 0;
}

static struct rpc_stream *backup_open(struct world *w, struct backup *b) {
    static const struct rpc_stream_callbacks cb = {.on_message = on_backup_message,
                                                   .on_end = on_backup_end};
    Chronos__V1__CreateBackupRequest req = CHRONOS__V1__CREATE_BACKUP_REQUEST__INIT;
    struct bytes *first = bytes_new(protobuf_c_message_get_packed_size(&req.base));
    struct rpc_stream *s;

    assert_non_null(first);
    *b = (struct backup){0};
    buf_init(&b->data, 256UL * 1024 * 1024);
    assert_int_equal(rpc_stream_open(w->channel, CLUSTER "CreateBackup", first, 0, &cb, b, &s), 0);
    rpc_stream_writes_done(s);
    (void) bytes_unref(first);
    return s;
}

/* Every block whole and in order, from the header to the end: what a verifier would say first. */
static size_t check_blocks(struct slice in) {
    size_t blocks = 0;

    while (in.len > 0) {
        struct snapshot_block block;
        struct errtext why = {0};
        size_t bytes = 0;

        if (snapshot_block_parse(in, &block, &bytes, &why) != 0)
            fail_msg("block %zu: %s", blocks, why.s);
        in = slice_of(in.data + bytes, in.len - bytes);
        blocks++;
    }
    return blocks;
}

/* Goal: a backup has everything acknowledged before it, in messages of at most 256 KiB, whatever is
 * submitted meanwhile. Method: 20,000 jobs, a backup, another one under submits. */
static void test_backup(void **state) {
    struct world *w = world_new(1, 1000, 256);
    struct backup empty, full;

    (void) state;
    (void) backup_open(w, &empty);
    os_test_run_until(&w->loop, backup_ended, &empty);
    if (empty.code != RPC_OK)
        fail_msg("backup: %s", empty.message);
    assert_true(check_blocks(slice_of(empty.data.data, empty.data.len)) >= 2);
    for (int i = 0; i < 20; i++)
        submit_thousand(w);
    (void) backup_open(w, &full);
    submit_thousand(w);
    os_test_run_until(&w->loop, backup_ended, &full);
    assert_int_equal(full.code, RPC_OK);
    assert_true(check_blocks(slice_of(full.data.data, full.data.len)) > 2);
    assert_true(full.data.len > empty.data.len + 20000 * 16);
    assert_true(full.largest <= 256 * 1024);
    assert_true(full.messages > 1);
    buf_done(&empty.data);
    buf_done(&full.data);
    world_free(w);
}

/* Goal: clients that leave in the middle, and more of them than are served, leave nothing behind;
 * a server that stops ends them. */
static void test_backup_left(void **state) {
    struct world *w = world_new(1, 1000, 256);
    struct backup b[3];
    struct rpc_stream *s[3];

    (void) state;
    for (int i = 0; i < 20; i++)
        submit_thousand(w);
    for (int round = 0; round < 20; round++) {
        s[0] = backup_open(w, &b[0]);
        if (round % 2 == 0)
            os_test_run_until(&w->loop, backup_begun, &b[0]);
        if (!b[0].ended)
            rpc_stream_cancel(s[0]);
        os_test_run_until(&w->loop, backup_ended, &b[0]);
        buf_done(&b[0].data);
    }
    for (int i = 0; i < 3; i++)
        s[i] = backup_open(w, &b[i]);
    for (int i = 0; i < 3; i++)
        os_test_run_until(&w->loop, backup_ended, &b[i]);
    for (int i = 0; i < 3; i++) {
        if (b[i].code != RPC_OK)
            assert_int_equal(b[i].code, RPC_RESOURCE_EXHAUSTED);
        buf_done(&b[i].data);
    }
    (void) backup_open(w, &b[0]);
    os_test_run_until(&w->loop, backup_begun, &b[0]);
    world_free(w);
    assert_true(b[0].ended);
    buf_done(&b[0].data);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_membership_checks),
        cmocka_unit_test(test_membership_answers),
        cmocka_unit_test(test_transfer),
        cmocka_unit_test(test_drain),
        cmocka_unit_test(test_backup),
        cmocka_unit_test(test_backup_left),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
