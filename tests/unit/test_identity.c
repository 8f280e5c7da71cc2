/* Whose id is whose, where nodes are, drains and feature levels, through real replicas. */
#include "cluster_world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "log_commands.h"
#include "node/replica_internal.h"
#include "node/worker_session.h"

#include "chronos/v1/cluster_service.pb-c.h"

static const struct fsm_node *record(struct cluster *c, unsigned at, uint64_t id) {
    return fsm_node_find(replica_fsm(c->nodes[at].replica), id);
}

/* Goal: an id belongs to the disk it was first heard of with; a wiped node is refused with the
 * command that puts it right, and stops (W15). Method: bootstrap 3, wipe one, bootstrap it anew, as
 * somebody would who does not know better. */
static void test_wiped_disk(void **state) {
    struct cluster *c = cluster_new(3);
    unsigned victim = (cluster_lead(c) + 1) % 3;
    struct raft_config bootstrap = *cluster_config(c, victim);
    uint8_t before[16];

    (void) state;
    memcpy(before, replica_disk(c->nodes[victim].replica), sizeof(before));
    for (unsigned i = 0; i < 3; i++) {
        assert_true(record(c, i, victim + 1)->bound);
        assert_memory_equal(record(c, i, victim + 1)->disk, before, sizeof(before));
    }
    /* The same disk again is no question. */
    cluster_stop(c, victim);
    cluster_restart(c, victim);
    cluster_run(c, 1000);
    assert_non_null(c->nodes[victim].replica);
    assert_memory_equal(replica_disk(c->nodes[victim].replica), before, sizeof(before));
    assert_int_equal(c->nodes[victim].refusals, 0);
    cluster_stop(c, victim);
    cluster_wipe(c, victim);
    assert_int_equal(bootstrap.count, 3);
    cluster_join(c, victim); /* --join under the old id: no better */
    assert_memory_not_equal(replica_disk(c->nodes[victim].replica), before, sizeof(before));
    cluster_run(c, 1000);
    assert_null(c->nodes[victim].replica);
    assert_int_equal(c->nodes[victim].failed, ERR_FOREIGN);
    assert_non_null(strstr(c->nodes[victim].failure.s, "is known with another disk"));
    assert_non_null(strstr(c->nodes[victim].failure.s, "chronos cluster replace"));
    cluster_free(c);
}

/* Goal: before anything is agreed, the first disk of this life keeps the id. */
static void test_first_heard(void **state) {
    struct cluster *c = cluster_new(1);
    struct replica *r = c->nodes[0].replica;
    struct replica_hello h = {.node_id = 7, .disk = {1}, .peer_address = "n7:7"};
    struct errtext why = {0};
    bool final = true;

    (void) state;
    assert_int_equal(replica_check_hello(r, &h, &final, &why), 0);
    assert_int_equal(replica_check_hello(r, &h, &final, &why), 0);
    h.disk[0] = 2;
    assert_int_equal(replica_check_hello(r, &h, &final, &why), ERR_FOREIGN);
    assert_false(final); /* nobody has agreed yet whose it is */
    assert_non_null(strstr(why.s, "another disk"));
    h.node_id = 1;
    assert_int_equal(replica_check_hello(r, &h, &final, &why), ERR_FOREIGN);
    assert_non_null(strstr(why.s, "own"));
    h.node_id = 0;
    assert_int_equal(replica_check_hello(r, &h, &final, &why), ERR_FOREIGN);
    cluster_free(c);
}

/* Goal: the disk named with an addition is the only one that may come with the id. */
static void test_disk_named(void **state) {
    struct cluster *c = cluster_new(1);
    uint8_t disk[16] = {9};
    struct replica_change change = {
        .kind = REPLICA_CHANGE_ADD, .id = 2, .peer_address = cluster_address(c, 1), .disk = disk};

    (void) state;
    assert_int_equal(cluster_change(c, 0, &change).code, 0);
    cluster_run(c, 100);
    assert_true(record(c, 0, 2)->bound);
    assert_memory_equal(record(c, 0, 2)->disk, disk, sizeof(disk));
    cluster_join(c, 1);
    cluster_run(c, 1000);
    assert_int_equal(c->nodes[1].failed, ERR_FOREIGN);
    cluster_free(c);
}

static bool all_agree(struct cluster *c, void *arg) {
    (void) arg;
    for (unsigned i = 0; i < 3; i++)
        for (unsigned k = 0; k < 3; k++) {
            const struct fsm_node *n = record(c, i, k + 1);

            if (!n || strcmp(n->peer_address, c->nodes[k].address) != 0)
                return false;
        }
    return cluster_has(c, 3, 0);
}

/* Goal: a node that comes back at another address makes it known by itself; so do two of three at
 * once. Method: stop, move, start; nobody's files are edited. */
static void test_moved(void **state) {
    struct cluster *c = cluster_new(3);
    unsigned a = (cluster_lead(c) + 1) % 3, b = (a + 1) % 3;

    (void) state;
    cluster_stop(c, a);
    cluster_move(c, a, "elsewhere:1");
    cluster_restart(c, a);
    assert_true(cluster_until(c, all_agree, NULL, 10000));
    cluster_stop(c, a);
    cluster_stop(c, b);
    cluster_move(c, a, "third:1");
    cluster_move(c, b, "third:2");
    cluster_restart(c, a);
    cluster_restart(c, b);
    assert_true(cluster_until(c, all_agree, NULL, 10000));
    cluster_free(c);
}

static struct replica_change replacement(struct cluster *c, unsigned old, unsigned slot) {
    return (struct replica_change){.kind = REPLICA_CHANGE_REPLACE,
                                   .id = old + 1,
                                   .new_id = slot + 1,
                                   .peer_address = cluster_address(c, slot)};
}

static bool found_again(struct cluster *c, void *arg) {
    const unsigned *slot = arg;
    const struct fsm_node *n = record(c, 4, *slot + 1);

    return replica_leader(c->nodes[*slot].replica) != 0 && n &&
           strcmp(n->peer_address, cluster_address(c, *slot)) == 0;
}

/* Goal: a member that was away while all others it knows were replaced, and that comes back at
 * another address, finds the cluster by the place in its configuration file, of a node that it does
 * not know as a member. Method: nobody of its configuration runs any more; it must not wait for
 * them longer than a few election timeouts. */
static void test_moved_and_all_replaced(void **state) {
    struct cluster *c = cluster_new(3);
    unsigned leader = cluster_lead(c), away = (leader + 1) % 3, other = (leader + 2) % 3;
    struct replica_change change;

    (void) state;
    cluster_stop(c, away);
    change = replacement(c, other, 3);
    cluster_join(c, 3);
    assert_int_equal(cluster_change(c, leader, &change).code, 0);
    cluster_await(c, 3, 0);
    change = replacement(c, leader, 4);
    cluster_join(c, 4);
    assert_int_equal(cluster_change(c, leader, &change).code, 0);
    cluster_await(c, 3, 0);
    cluster_run(c, 40000); /* nobody remembers where it was but by the state */
    assert_null(c->nodes[leader].replica);
    cluster_move(c, away, "elsewhere:1");
    c->nodes[away].told_of = 5;
    cluster_restart(c, away);
    assert_true(cluster_until(c, found_again, &away, 10000));
    cluster_await(c, 3, 0);
    cluster_free(c);
}

/* ---- drains ------------------------------------------------------------------------------------
 */

struct drained {
    bool done;
    enum replica_status status;
    int code;
};

static void on_drained(void *arg, const struct replica_proposed *res) {
    struct drained *d = arg;

    d->done = true;
    d->status = res->status;
    d->code = res->status == REPLICA_OK ? (int) res->output->results[0].code : -1;
}

static int drain(struct cluster *c, unsigned at, uint64_t node_id, const char *worker, bool on) {
    struct drained d = {0};

    assert_int_equal(replica_propose(c->nodes[at].replica,
                                     log_drain(node_id, worker, on, on ? 30000 : 0), 0, MONO_NEVER,
                                     on_drained, &d),
                     0);
    for (int i = 0; i < 100 && !d.done; i++)
        cluster_run(c, 20);
    assert_true(d.done);
    assert_int_equal(d.status, REPLICA_OK);
    return d.code;
}

static bool leads_elsewhere(struct cluster *c, void *arg) {
    const unsigned *slot = arg;

    return raft_role(replica_raft(c->nodes[*slot].replica)) != RAFT_LEADER &&
           replica_leader(c->nodes[*slot].replica) != 0;
}

/* Goal: a drained node does not lead while another one can: it hands over when it is drained, when
 * it is elected, and keeps leading when all are drained. */
static void test_drain_leader(void **state) {
    struct cluster *c = cluster_new(3);
    unsigned first = cluster_lead(c), second, third;

    (void) state;
    assert_int_equal(drain(c, first, 9, "", true), FSM_NOT_FOUND);
    assert_int_equal(drain(c, first, first + 1, "", true), FSM_OK);
    assert_true(cluster_until(c, leads_elsewhere, &first, 3000));
    second = cluster_lead(c);
    third = 3 - first - second;
    assert_int_equal(drain(c, second, second + 1, "", true), FSM_OK);
    assert_true(cluster_until(c, leads_elsewhere, &second, 3000));
    assert_int_equal(cluster_lead(c), third);
    /* An operator may still say so; it comes back. */
    (void) cluster_transfer(c, third, first + 1);
    assert_true(cluster_until(c, leads_elsewhere, &first, 5000));
    cluster_run(c, 2000);
    assert_int_equal(cluster_lead(c), third);
    /* All: somebody must. */
    assert_int_equal(drain(c, third, third + 1, "", true), FSM_OK);
    cluster_run(c, 3000);
    assert_int_equal(cluster_lead(c), third);
    assert_int_equal(drain(c, third, first + 1, "", false), FSM_OK);
    assert_true(cluster_until(c, leads_elsewhere, &third, 3000));
    assert_int_equal(cluster_lead(c), first);
    cluster_free(c);
}

struct stream {
    struct worker_session *session;
    unsigned drains, lifts, assigned;
    int64_t timeout_ms;
    int end_code;
};

static int take(void *arg, struct bytes *message) {
    struct stream *s = arg;
    Chronos__V1__NodeMessage *m =
        chronos__v1__node_message__unpack(NULL, message->len, message->data);

    assert_non_null(m);
    if (m->body_case == CHRONOS__V1__NODE_MESSAGE__BODY_DRAIN) {
        s->drains += m->drain->on ? 1 : 0;
        s->lifts += m->drain->on ? 0 : 1;
        s->timeout_ms = m->drain->timeout_ms;
    }
    if (m->body_case == CHRONOS__V1__NODE_MESSAGE__BODY_ASSIGN)
        s->assigned += (unsigned) m->assign->n_assignments;
    chronos__v1__node_message__free_unpacked(m, NULL);
    (void) bytes_unref(message);
    return 0;
}

static void ended(void *arg, int code, const char *message) {
    (void) message;
    ((struct stream *) arg)->end_code = code;
}

static const struct worker_session_ops ops = {.send = take, .end = ended};

static void send(struct stream *s, const Chronos__V1__WorkerMessage *m) {
    struct bytes *b = bytes_new(chronos__v1__worker_message__get_packed_size(m));

    assert_non_null(b);
    (void) chronos__v1__worker_message__pack(m, b->data);
    worker_session_message(s->session, bytes_slice(b));
    (void) bytes_unref(b);
}

static void hello(struct stream *s, struct replica *r) {
    Chronos__V1__WorkerMessage m = CHRONOS__V1__WORKER_MESSAGE__INIT;
    Chronos__V1__WorkerHello h = CHRONOS__V1__WORKER_HELLO__INIT;
    char id[] = "w";

    memset(s, 0, sizeof(*s));
    assert_int_equal(worker_session_new(r, &ops, s, &s->session), 0);
    h.worker_id = id;
    h.incarnation = 77;
    h.slots = 8;
    m.body_case = CHRONOS__V1__WORKER_MESSAGE__BODY_HELLO;
    m.hello = &h;
    send(s, &m);
}

/* Goal: a drained worker gets no work and is told once, with what is left of the time; a new stream
 * of it is told again; lifted, it is told and works again. Both by its name and through its node.
 */
static void test_drain_worker(void **state) {
    struct cluster *c = cluster_new(1);
    struct cluster_load load = {0};
    struct stream s;

    (void) state;
    hello(&s, c->nodes[0].replica);
    cluster_run(c, 100);
    cluster_submit(c, 0, &load);
    cluster_run(c, 100);
    assert_int_equal(s.assigned, 1);
    for (int through_node = 0; through_node < 2; through_node++) {
        unsigned assigned = s.assigned;
        uint64_t node = through_node ? 1 : 0;
        const char *worker = through_node ? "" : "w";

        assert_int_equal(drain(c, 0, node, worker, true), FSM_OK);
        assert_int_equal(s.drains, (unsigned) through_node + 1);
        assert_true(s.timeout_ms > 29000 && s.timeout_ms <= 30000);
        cluster_submit(c, 0, &load);
        cluster_run(c, 1000);
        assert_int_equal(s.assigned, assigned);
        assert_int_equal(drain(c, 0, node, worker, false), FSM_OK);
        cluster_run(c, 100);
        assert_int_equal(s.lifts, (unsigned) through_node + 1);
        assert_int_equal(s.assigned, assigned + 1);
    }
    assert_int_equal(s.drains, 2);
    assert_int_equal(drain(c, 0, 0, "w", true), FSM_OK);
    s.session = worker_session_free(s.session);
    cluster_run(c, 4000);
    hello(&s, c->nodes[0].replica);
    cluster_run(c, 100);
    assert_int_equal(s.drains, 1);
    assert_true(s.timeout_ms > 20000 && s.timeout_ms < 27000);
    assert_int_equal(drain(c, 0, 0, "nobody", true), FSM_NOT_FOUND);
    s.session = worker_session_free(s.session);
    cluster_free(c);
}

/* ---- the rest ----------------------------------------------------------------------------------
 */

/* Goal: every command has a level that this program knows, and what nobody knows is above all. */
static void test_feature_table(void **state) {
    (void) state;
    for (unsigned kind = CHRONOS__INTERNAL__V1__LOG_COMMAND__BODY_SUBMIT_JOB;
         kind <= COMMAND_BODY_MAX; kind++) {
        uint32_t level = features_level_of((Chronos__Internal__V1__LogCommand__BodyCase) kind);

        assert_true(level >= 1);
        assert_true(level <= FSM_FEATURE_LEVEL_MAX);
    }
    assert_int_equal(features_level_of(CHRONOS__INTERNAL__V1__LOG_COMMAND__BODY__NOT_SET),
                     UINT32_MAX);
}

static void assert_levels(struct cluster *c, uint32_t level) {
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(fsm_feature_level(replica_fsm(c->nodes[i].replica)), level);
}

static bool all_at_two(struct cluster *c, void *arg) {
    (void) arg;
    for (unsigned i = 0; i < 3; i++)
        if (fsm_feature_level(replica_fsm(c->nodes[i].replica)) != 2)
            return false;
    return true;
}

/* Goal: a rolling upgrade raises the cluster's level when the last member's program knows the new
 * one and not before; an older program then neither starts on such a state nor joins, and says why;
 * the others go on. Method: the newest level that a program knows is an option; three nodes are
 * restarted one after the other. */
static void test_upgrade(void **state) {
    struct cluster *c = cluster_new(3);
    unsigned old, leader;
    struct replica_change add = {.kind = REPLICA_CHANGE_ADD, .id = 4};

    (void) state;
    assert_levels(c, 1);
    for (unsigned i = 0; i < 3; i++) {
        cluster_stop(c, i);
        c->options.fsm.feature_level_max = 2;
        cluster_restart(c, i);
        leader = cluster_lead(c);
        if (i == 2)
            break;
        cluster_run(c, 5000);
        assert_levels(c, 1);
        assert_int_equal(record(c, leader, i + 1)->feature_max, 2);
        assert_int_equal(record(c, leader, 3)->feature_max, 1);
    }
    assert_true(cluster_until(c, all_at_two, NULL, 5000));
    leader = cluster_lead(c);
    old = (leader + 1) % 3;
    cluster_stop(c, old);
    c->options.fsm.feature_level_max = 1;
    cluster_restart(c, old);
    cluster_run(c, 1000);
    assert_null(c->nodes[old].replica);
    assert_int_equal(c->nodes[old].failed, ERR_VERSION);
    assert_non_null(strstr(c->nodes[old].failure.s, "feature level to 2"));
    cluster_join(c, 3);
    add.peer_address = cluster_address(c, 3);
    assert_int_equal(cluster_change(c, leader, &add).code, 0);
    cluster_run(c, 3000);
    assert_null(c->nodes[3].replica);
    assert_int_equal(c->nodes[3].failed, ERR_VERSION);
    assert_non_null(strstr(c->nodes[3].failure.s, "level"));
    assert_int_equal(c->nodes[leader].failed, 0);
    c->options.fsm.feature_level_max = 2;
    cluster_restart(c, old);
    assert_true(cluster_until(c, all_at_two, NULL, 5000));
    cluster_free(c);
}

static void take_status(void *arg, enum replica_status status, struct slice bytes) {
    assert_int_equal(status, REPLICA_OK);
    *(Chronos__V1__GetClusterStatusResponse **) arg =
        chronos__v1__get_cluster_status_response__unpack(NULL, bytes.len, bytes.data);
}

static Chronos__V1__GetClusterStatusResponse *status_of(struct cluster *c, unsigned slot) {
    Chronos__V1__GetClusterStatusResponse *s = NULL;

    assert_int_equal(
        replica_cluster_status(c->nodes[slot].replica, false, MONO_NEVER, take_status, &s), 0);
    for (int i = 0; i < 100 && !s; i++)
        cluster_run(c, 10);
    assert_non_null(s);
    return s;
}

/* Goal: the status says who is what, what is open, what drains, and whose clock is off. */
static void test_status(void **state) {
    struct cluster *c = cluster_new(3);
    unsigned leader = cluster_lead(c), other = (leader + 1) % 3;
    struct replica_change change = {
        .kind = REPLICA_CHANGE_ADD, .id = 4, .peer_address = cluster_address(c, 3)};
    Chronos__V1__GetClusterStatusResponse *s = status_of(c, other);

    (void) state;
    assert_int_equal(s->n_nodes, 3);
    assert_string_equal(s->open_change, "");
    assert_int_equal(s->feature_level, FSM_FEATURE_LEVEL_MAX);
    assert_int_equal(s->n_alarms, 0);
    for (unsigned i = 0; i < 3; i++) {
        assert_string_equal(s->nodes[i]->membership, "voter");
        assert_string_equal(s->nodes[i]->peer_address, cluster_address(c, i));
        assert_false(s->nodes[i]->draining);
    }
    chronos__v1__get_cluster_status_response__free_unpacked(s, NULL);
    c->nodes[other].clock_off_ms = -1500;
    assert_int_equal(drain(c, leader, other + 1, "", true), FSM_OK);
    assert_int_equal(cluster_change(c, leader, &change).code, 0);
    cluster_run(c, 2500);
    s = status_of(c, other);
    assert_int_equal(s->n_nodes, 4);
    assert_string_equal(s->nodes[3]->membership, "catching_up");
    assert_true(s->nodes[other]->draining);
    assert_non_null(strstr(s->open_change, "node 4 at n4:7 is catching up"));
    /* It was set, and it is not like the others'. */
    assert_int_equal(s->n_alarms, 2);
    assert_non_null(strstr(s->alarms[0], "clock_suspect: the clock was set 1.500 s back"));
    assert_non_null(strstr(s->alarms[1], "clock_suspect: -1500 ms off"));
    assert_int_equal(s->nodes[other]->n_alarms, 2);
    chronos__v1__get_cluster_status_response__free_unpacked(s, NULL);
    cluster_free(c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wiped_disk),
        cmocka_unit_test(test_first_heard),
        cmocka_unit_test(test_disk_named),
        cmocka_unit_test(test_moved),
        cmocka_unit_test(test_moved_and_all_replaced),
        cmocka_unit_test(test_drain_leader),
        cmocka_unit_test(test_drain_worker),
        cmocka_unit_test(test_feature_table),
        cmocka_unit_test(test_upgrade),
        cmocka_unit_test(test_status),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
