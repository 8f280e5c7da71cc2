#include "node_world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>

#include "base/rand.h"
#include "log_commands.h"
#include "storage/kv_mem.h"

#define ROUNDS_MAX 10000

static struct node_world *space_world; /* of the test that runs */

static struct mono fake_mono(void *ctx) {
    const struct node_world_node *n = ctx;

    return (struct mono){.ns = n->world->now_ns};
}

static struct wall fake_wall(void *ctx) {
    const struct node_world_node *n = ctx;

    return (struct wall){.ms = 1700000000000 + (int64_t) (n->world->now_ns / NS_PER_MS) +
                               n->wall_off_ms};
}

static uint64_t fake_random(void *ctx) {
    struct node_world_node *n = ctx;

    return n->random += 0x9e3779b97f4a7c15ULL;
}

static int fake_space(void *ctx, uint64_t *ret_free, uint64_t *ret_total) {
    struct node_world_node *n = NULL;

    /* The disk's context is the simulated disk: find whose it is. */
    for (unsigned i = 0; space_world && i < space_world->count; i++)
        if (sim_disk_interface(space_world->nodes[i].disk)->ctx == ctx)
            n = &space_world->nodes[i];
    assert_non_null(n);
    *ret_total = n->disk_total > 0 ? n->disk_total : 1ULL << 40;
    *ret_free = n->disk_total > 0 ? n->disk_free : *ret_total;
    return 0;
}

static void queue_message(struct node_world *w, struct node_world_message m) {
    assert_true(w->tail - w->head < NODE_WORLD_MESSAGES);
    w->queue[w->tail++ % NODE_WORLD_MESSAGES] = m;
}

static bool fake_send_bulk(void *ctx, uint64_t to, struct bytes *payload) {
    struct node_world_node *n = ctx;
    struct node_world *w = n->world;

    if (n->bulk_full) {
        (void) bytes_unref(payload);
        return false;
    }
    w->bulk_sent++;
    if (w->cut[n->id - 1][to - 1] || w->lose_bulk) {
        w->bulk_lost++;
        (void) bytes_unref(payload);
        return true;
    }
    w->bulk_bytes += payload->len;
    w->bulk_bytes_max = MAX(w->bulk_bytes_max, w->bulk_bytes);
    queue_message(w, (struct node_world_message){n->id, to, true, payload});
    return true;
}

static void fake_send(void *ctx, uint64_t to, struct bytes *payload) {
    struct node_world_node *n = ctx;
    struct node_world *w = n->world;

    if (w->cut[n->id - 1][to - 1]) {
        (void) bytes_unref(payload);
        return;
    }
    queue_message(w, (struct node_world_message){n->id, to, false, payload});
}

static void fake_log(void *ctx, enum log_level level, const char *msg, const char *fields) {
    (void) ctx;
    (void) level;
    (void) msg;
    (void) fields;
}

void node_world_init(struct node_world *w, unsigned count) {
    memset(w, 0, sizeof(*w));
    space_world = w;
    w->count = count;
    w->now_ns = NS_PER_S;
    replica_options_default(&w->options, 1, 1);
    w->options.wal.segment_bytes = WAL_SEGMENT_BYTES_MIN;
    w->options.wal.spare_segments = 1;
    w->options.client_address = "node:1";
}

static int open_replica(struct node_world *w, struct node_world_node *n, bool join,
                        struct errtext *reterr) {
    struct replica_options o = w->options;
    struct env env = {
        .clock = {.mono = fake_mono, .wall = fake_wall, .ctx = n},
        .random = {.next = fake_random, .ctx = n},
        .disk_queue = {.submit = held_jobs_submit, .ctx = &n->jobs},
        .bulk_queue = {.submit = held_jobs_submit, .ctx = &n->bulk},
        .peers = {.send = fake_send, .send_bulk = fake_send_bulk, .ctx = n},
        .zones = fake_zones(n->zones),
        .log = &n->log,
    };

    n->log = (struct logger){.level = LOG_ERROR, .sink = fake_log, .ctx = n};
    n->disk_ops = *sim_disk_interface(n->disk)->ops;
    n->disk_ops.space = fake_space;
    env.disk = (struct disk){.ops = &n->disk_ops, .ctx = sim_disk_interface(n->disk)->ctx};
    o.id = o.raft.id = n->id;
    o.raft.seed = n->id * 7919;
    o.bootstrap = join ? NULL : &w->config;
    o.join = join;
    return replica_open(&o, &env, n->kv, &n->replica, reterr);
}

/* A node that waits to be added knows nobody: @from says hello to it. */
static void say_hello(struct node_world *w, unsigned from, unsigned to) {
    char address[16];
    const struct replica_hello h = {
        .node_id = from + 1, .peer_address = address, .client_address = ""};
    struct errtext why = {0};
    bool final;

    (void) snprintf(address, sizeof(address), "n%u:1", from + 1);
    if (replica_check_hello(w->nodes[to].replica, &h, &final, &why) != 0)
        fail_msg("node %u refuses node %u: %s", to + 1, from + 1, why.s);
}

static void link_up(struct node_world *w, unsigned slot) {
    for (unsigned k = 0; k < w->count; k++) {
        if (k == slot || w->nodes[k].down)
            continue;
        if (w->nodes[slot].joins && replica_applied(w->nodes[slot].replica) == 0)
            say_hello(w, k, slot);
        replica_on_peer_link(w->nodes[slot].replica, k + 1, true);
        if (w->nodes[k].replica)
            replica_on_peer_link(w->nodes[k].replica, slot + 1, true);
    }
}

static void default_config(struct node_world *w) {
    w->config.count = w->count;
    for (unsigned i = 0; i < w->count; i++) {
        struct raft_member *m = &w->config.members[i];

        m->id = i + 1;
        m->flags = RAFT_MEMBER_VOTER;
        (void) snprintf(m->address, sizeof(m->address), "n%u", i + 1);
    }
}

void node_world_open(struct node_world *w) {
    if (w->config.count == 0)
        default_config(w);
    for (unsigned i = 0; i < w->count; i++) {
        struct node_world_node *n = &w->nodes[i];
        struct errtext why = {0};

        n->world = w;
        n->id = i + 1;
        n->zones[0].name = "Europe/Berlin";
        n->random = i + 1;
        assert_int_equal(sim_disk_new(&n->disk), 0);
        assert_int_equal(kv_mem_new(0, &n->kv), 0);
        n->joins = !raft_config_find(&w->config, n->id);
        if (open_replica(w, n, n->joins, &why) != 0)
            fail_msg("node %u: %s", i + 1, why.s);
    }
    for (unsigned i = 0; i < w->count; i++)
        link_up(w, i);
}

static bool run_jobs(struct node_world_node *n) {
    bool moved = !n->hold_disk && held_jobs_run(&n->jobs);

    if (n->hold_bulk || (n->bulk_counted && n->bulk_budget == 0))
        return moved;
    if (!held_jobs_run(&n->bulk))
        return moved;
    n->bulk_budget -= n->bulk_counted;
    return true;
}

static void finish_jobs(struct node_world_node *n) {
    n->hold_disk = n->hold_bulk = n->bulk_counted = false;
    while (run_jobs(n))
        continue;
}

static int dead_get(struct kv *kv, struct slice key, struct buf *out) {
    (void) kv;
    (void) key;
    (void) out;
    return ERR_CRASHED;
}

static int dead_write(struct kv *kv, const struct kv_op *ops, size_t n) {
    (void) kv;
    (void) ops;
    (void) n;
    return ERR_CRASHED;
}

static int dead_call(struct kv *kv) {
    (void) kv;
    return ERR_CRASHED;
}

static int dead_verify(struct kv *kv, struct errtext *reterr) {
    (void) kv;
    (void) reterr;
    return ERR_CRASHED;
}

static int dead_iter(struct kv *kv, struct kv_iter **ret) {
    (void) kv;
    (void) ret;
    return ERR_CRASHED;
}

static void dead_drop(struct kv *kv) {
    (void) kv;
}

static uint64_t dead_bytes(struct kv *kv) {
    (void) kv;
    return 0;
}

/* A store whose power is gone. */
static const struct kv_ops dead_kv = {
    .get = dead_get,
    .write = dead_write,
    .flush = dead_call,
    .verify = dead_verify,
    .iter_open = dead_iter,
    .stage_begin = dead_call,
    .stage_write = dead_write,
    .stage_commit = dead_call,
    .stage_adopt = dead_call,
    .stage_drop = dead_drop,
    .disk_bytes = dead_bytes,
};

/* What @from or @to (slot) had on the way is gone. */
static void lose_messages(struct node_world *w, unsigned slot) {
    for (size_t i = w->head; i != w->tail; i++) {
        struct node_world_message *m = &w->queue[i % NODE_WORLD_MESSAGES];

        if (m->from == slot + 1 || m->to == slot + 1)
            m->to = 0;
    }
}

void node_world_crash(struct node_world *w, unsigned slot, enum sim_disk_model model,
                      size_t keep_batches) {
    struct node_world_node *n = &w->nodes[slot];
    const struct kv_ops *ops = n->kv->ops;
    struct rng rng = {.state = slot + 1};

    /* Power first: the jobs under way then do nothing any more, and the process goes. */
    sim_disk_crash(n->disk, &rng, model);
    n->kv->ops = &dead_kv;
    finish_jobs(n);
    n->replica = replica_free(n->replica);
    n->kv->ops = ops;
    kv_mem_crash(n->kv, keep_batches);
    lose_messages(w, slot);
    n->down = true;
    for (unsigned k = 0; k < w->count; k++)
        if (k != slot && !w->nodes[k].down)
            replica_on_peer_link(w->nodes[k].replica, slot + 1, false);
}

int node_world_start(struct node_world *w, unsigned slot, struct errtext *reterr) {
    struct node_world_node *n = &w->nodes[slot];
    int rc = open_replica(w, n, n->joins, reterr);

    if (rc < 0)
        return rc;
    n->down = false;
    link_up(w, slot);
    return 0;
}

void node_world_restart(struct node_world *w, unsigned slot) {
    struct errtext why = {0};

    if (node_world_start(w, slot, &why) != 0)
        fail_msg("node %u does not start: %s", slot + 1, why.s);
}

static bool deliver(struct node_world *w) {
    struct node_world_message m;

    if (w->head == w->tail || w->hold_delivery)
        return false;
    m = w->queue[w->head++ % NODE_WORLD_MESSAGES];
    if (m.bulk)
        w->bulk_bytes -= m.payload->len;
    if (m.to > 0 && !w->nodes[m.to - 1].down)
        replica_on_peer_message(w->nodes[m.to - 1].replica, m.from, bytes_slice(m.payload));
    (void) bytes_unref(m.payload);
    return true;
}

void node_world_settle(struct node_world *w) {
    bool moved = true;

    for (int rounds = 0; moved; rounds++) {
        assert_true(rounds < ROUNDS_MAX);
        moved = false;
        for (unsigned i = 0; i < w->count; i++) {
            struct node_world_node *n = &w->nodes[i];
            struct errtext why = {0};

            if (n->down || (n->may_fail && replica_failed(n->replica, NULL) != 0))
                continue;
            moved = run_jobs(n) || moved;
            if (!replica_wants_turn(n->replica) && replica_deadline(n->replica).ns > w->now_ns)
                continue;
            replica_turn(n->replica);
            if (replica_failed(n->replica, &why) != 0 && !n->may_fail)
                fail_msg("node %u failed: %s", i + 1, why.s);
            moved = true;
        }
        moved = deliver(w) || moved;
    }
}

void node_world_run(struct node_world *w, uint64_t ms) {
    uint64_t end = w->now_ns + ms * NS_PER_MS;

    for (;;) {
        uint64_t next = end;

        node_world_settle(w);
        for (unsigned i = 0; i < w->count; i++)
            if (!w->nodes[i].down && replica_failed(w->nodes[i].replica, NULL) == 0)
                next = MIN(next, replica_deadline(w->nodes[i].replica).ns);
        if (w->now_ns >= end)
            return;
        w->now_ns = MAX(next, w->now_ns + 1);
    }
}

unsigned node_world_lead(struct node_world *w) {
    for (int tries = 0; tries < 1000; tries++) {
        node_world_run(w, 10);
        for (unsigned i = 0; i < w->count; i++)
            if (!w->nodes[i].down && raft_role(replica_raft(w->nodes[i].replica)) == RAFT_LEADER &&
                raft_leader_ready(replica_raft(w->nodes[i].replica)))
                return i;
    }
    fail_msg("no leader after 10 s");
    return 0;
}

unsigned node_world_begin(struct node_world *w, unsigned count) {
    node_world_init(w, count);
    node_world_open(w);
    return node_world_lead(w);
}

void node_world_cut_off(struct node_world *w, unsigned slot, bool cut) {
    for (unsigned i = 0; i < w->count; i++)
        w->cut[i][slot] = w->cut[slot][i] = i != slot && cut;
}

void node_world_close(struct node_world *w) {
    for (; w->head != w->tail; w->head++)
        (void) bytes_unref(w->queue[w->head % NODE_WORLD_MESSAGES].payload);
    for (unsigned i = 0; i < w->count; i++) {
        struct node_world_node *n = &w->nodes[i];

        finish_jobs(n);
        n->replica = replica_free(n->replica);
        n->kv->ops->close(n->kv);
        assert_int_equal(sim_disk_open_handles(n->disk), 0);
        (void) sim_disk_free(n->disk);
    }
    for (; w->head != w->tail; w->head++)
        (void) bytes_unref(w->queue[w->head % NODE_WORLD_MESSAGES].payload);
}

/* ---- calls ---------------------------------------------------------------------------------- */

void answer_proposed(void *arg, const struct replica_proposed *res) {
    struct answer *a = arg;

    a->count++;
    a->status = res->status;
    a->index = res->index;
    a->code = -1;
    a->at_ns = a->world->now_ns;
    if (res->status == REPLICA_OK && res->output->results_count > 0) {
        a->code = (int) res->output->results[0].code;
        a->job_seq = res->output->results[0].job_seq;
    }
}

void answer_read(void *arg, enum replica_status status, uint64_t index) {
    struct answer *a = arg;

    a->count++;
    a->status = status;
    a->index = index;
    a->at_ns = a->world->now_ns;
}

struct mono node_world_in_ms(const struct node_world *w, uint64_t ms) {
    return (struct mono){.ns = w->now_ns + ms * NS_PER_MS};
}

int node_world_propose(struct node_world *w, unsigned slot, struct bytes *command, unsigned flags,
                       struct mono deadline, struct answer *a) {
    *a = (struct answer){.world = w, .code = -1};
    return replica_propose(w->nodes[slot].replica, command, flags, deadline, answer_proposed, a);
}

int node_world_submit(struct node_world *w, unsigned slot, const char *key, unsigned flags,
                      struct mono deadline, struct answer *a) {
    static const uint8_t spec[] = {0x1a, 0};

    return node_world_propose(w, slot, log_submit(slice_of(spec, sizeof(spec)), key), flags,
                              deadline, a);
}

/* ---- worker streams ------------------------------------------------------------------------- */

static int stream_take(void *arg, struct bytes *message) {
    struct stream *s = arg;

    assert_true(s->count < ARRAY_LEN(s->got));
    s->got[s->count] = chronos__v1__node_message__unpack(NULL, message->len, message->data);
    assert_non_null(s->got[s->count]);
    s->count++;
    (void) bytes_unref(message);
    return s->full ? 1 : 0;
}

static void stream_ended(void *arg, int code, const char *message) {
    struct stream *s = arg;

    assert_int_equal(s->end_code, 0);
    s->end_code = code;
    (void) snprintf(s->end_text, sizeof(s->end_text), "%s", message);
}

const struct worker_session_ops stream_ops = {.send = stream_take, .end = stream_ended};

void stream_open(struct stream *s, struct replica *r) {
    memset(s, 0, sizeof(*s));
    assert_int_equal(worker_session_new(r, &stream_ops, s, &s->session), 0);
}

void stream_close(struct stream *s) {
    s->session = worker_session_free(s->session);
    for (size_t i = 0; i < s->count; i++)
        chronos__v1__node_message__free_unpacked(s->got[i], NULL);
    s->count = 0;
}

void stream_send(struct stream *s, const Chronos__V1__WorkerMessage *m) {
    struct bytes *b = bytes_new(chronos__v1__worker_message__get_packed_size(m));

    assert_non_null(b);
    (void) chronos__v1__worker_message__pack(m, b->data);
    worker_session_message(s->session, bytes_slice(b));
    (void) bytes_unref(b);
}

void stream_hello(struct stream *s, const char *id, uint64_t incarnation, uint32_t slots) {
    stream_hello_counted(s, id, incarnation, slots, 0);
}

void stream_hello_counted(struct stream *s, const char *id, uint64_t incarnation, uint32_t slots,
                          uint64_t hello) {
    Chronos__V1__WorkerMessage m = CHRONOS__V1__WORKER_MESSAGE__INIT;
    Chronos__V1__WorkerHello h = CHRONOS__V1__WORKER_HELLO__INIT;
    char text[128];

    (void) snprintf(text, sizeof(text), "%s", id);
    h.worker_id = text;
    h.incarnation = incarnation;
    h.hello = hello;
    h.slots = slots;
    m.body_case = CHRONOS__V1__WORKER_MESSAGE__BODY_HELLO;
    m.hello = &h;
    stream_send(s, &m);
}

void stream_beat(struct stream *s, uint64_t sequence) {
    Chronos__V1__WorkerMessage m = CHRONOS__V1__WORKER_MESSAGE__INIT;
    Chronos__V1__WorkerHeartbeat b = CHRONOS__V1__WORKER_HEARTBEAT__INIT;

    b.sequence = sequence;
    m.body_case = CHRONOS__V1__WORKER_MESSAGE__BODY_HEARTBEAT;
    m.heartbeat = &b;
    stream_send(s, &m);
}

const Chronos__V1__NodeMessage *stream_last(const struct stream *s,
                                            Chronos__V1__NodeMessage__BodyCase kind) {
    for (size_t i = s->count; i > 0; i--)
        if (s->got[i - 1]->body_case == kind)
            return s->got[i - 1];
    return NULL;
}
