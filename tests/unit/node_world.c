#include "node_world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fsm/command.h"
#include "storage/kv_mem.h"

#define ROUNDS_MAX 10000

static struct mono fake_mono(void *ctx) {
    const struct node_world_node *n = ctx;

    return (struct mono){.ns = n->world->now_ns};
}

static struct wall fake_wall(void *ctx) {
    const struct node_world_node *n = ctx;

    return (struct wall){.ms = 1700000000000 + (int64_t) (n->world->now_ns / NS_PER_MS)};
}

static uint64_t fake_random(void *ctx) {
    struct node_world_node *n = ctx;

    return n->random += 0x9e3779b97f4a7c15ULL;
}

static void fake_submit(void *ctx, struct disk_job *job) {
    struct node_world_node *n = ctx;

    job->next = NULL;
    if (n->jobs_tail)
        n->jobs_tail->next = job;
    else
        n->jobs = job;
    n->jobs_tail = job;
}

static void fake_send(void *ctx, uint64_t to, struct bytes *payload) {
    struct node_world_node *n = ctx;
    struct node_world *w = n->world;

    if (w->cut[n->id - 1][to - 1]) {
        (void) bytes_unref(payload);
        return;
    }
    assert_true(w->tail - w->head < NODE_WORLD_MESSAGES);
    w->queue[w->tail++ % NODE_WORLD_MESSAGES] =
        (struct node_world_message){.from = n->id, .to = to, .payload = payload};
}

static void fake_log(void *ctx, enum log_level level, const char *msg, const char *fields) {
    (void) ctx;
    (void) level;
    (void) msg;
    (void) fields;
}

void node_world_init(struct node_world *w, unsigned count) {
    memset(w, 0, sizeof(*w));
    w->count = count;
    w->now_ns = NS_PER_S;
    replica_options_default(&w->options, 1, 1);
    w->options.wal.segment_bytes = WAL_SEGMENT_BYTES_MIN;
    w->options.wal.spare_segments = 1;
    w->options.client_address = "node:1";
}

static void open_one(struct node_world *w, struct node_world_node *n,
                     const struct raft_config *config) {
    struct replica_options o = w->options;
    struct errtext why = {0};
    struct env env = {
        .clock = {.mono = fake_mono, .wall = fake_wall, .ctx = n},
        .random = {.next = fake_random, .ctx = n},
        .disk_queue = {.submit = fake_submit, .ctx = n},
        .peers = {.send = fake_send, .ctx = n},
        .log = &n->log,
    };

    n->log = (struct logger){.level = LOG_ERROR, .sink = fake_log, .ctx = n};
    assert_int_equal(sim_disk_new(&n->disk), 0);
    assert_int_equal(kv_mem_new(0, &n->kv), 0);
    env.disk = *sim_disk_interface(n->disk);
    o.id = o.raft.id = n->id;
    o.raft.seed = n->id * 7919;
    o.bootstrap = config;
    assert_int_equal(replica_open(&o, &env, n->kv, &n->replica, &why), 0);
}

void node_world_open(struct node_world *w) {
    struct raft_config config = {.count = w->count};

    for (unsigned i = 0; i < w->count; i++) {
        config.members[i].id = i + 1;
        config.members[i].flags = RAFT_MEMBER_VOTER;
        (void) snprintf(config.members[i].address, sizeof(config.members[i].address), "n%u", i + 1);
    }
    for (unsigned i = 0; i < w->count; i++) {
        w->nodes[i].world = w;
        w->nodes[i].id = i + 1;
        w->nodes[i].random = i + 1;
        open_one(w, &w->nodes[i], &config);
        for (unsigned k = 0; k < w->count; k++)
            if (k != i)
                replica_on_peer_link(w->nodes[i].replica, k + 1, true);
    }
}

static bool run_jobs(struct node_world_node *n) {
    struct disk_job *job = n->jobs;

    if (!job || n->hold_disk)
        return false;
    n->jobs = job->next;
    if (!n->jobs)
        n->jobs_tail = NULL;
    job->run(job);
    job->done(job);
    return true;
}

static bool deliver(struct node_world *w) {
    struct node_world_message m;

    if (w->head == w->tail)
        return false;
    m = w->queue[w->head++ % NODE_WORLD_MESSAGES];
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

            moved = run_jobs(n) || moved;
            if (!replica_wants_turn(n->replica) && replica_deadline(n->replica).ns > w->now_ns)
                continue;
            replica_turn(n->replica);
            if (replica_failed(n->replica, &why) != 0)
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
            if (raft_role(replica_raft(w->nodes[i].replica)) == RAFT_LEADER &&
                raft_leader_ready(replica_raft(w->nodes[i].replica)))
                return i;
    }
    fail_msg("no leader after 10 s");
    return 0;
}

void node_world_close(struct node_world *w) {
    for (; w->head != w->tail; w->head++)
        (void) bytes_unref(w->queue[w->head % NODE_WORLD_MESSAGES].payload);
    for (unsigned i = 0; i < w->count; i++) {
        struct node_world_node *n = &w->nodes[i];

        n->hold_disk = false;
        while (run_jobs(n))
            continue;
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

int node_world_submit(struct node_world *w, unsigned slot, const char *key, unsigned flags,
                      struct mono deadline, struct answer *a) {
    Chronos__Internal__V1__LogCommand cmd = CHRONOS__INTERNAL__V1__LOG_COMMAND__INIT;
    Chronos__Internal__V1__SubmitJob body = CHRONOS__INTERNAL__V1__SUBMIT_JOB__INIT;
    Chronos__Internal__V1__SubmitJobItem item = CHRONOS__INTERNAL__V1__SUBMIT_JOB_ITEM__INIT;
    Chronos__Internal__V1__SubmitJobItem *items[] = {&item};
    uint8_t spec[] = {0x1a, 0};
    char queue[] = "default", text[64];
    struct bytes *command = NULL;

    (void) snprintf(text, sizeof(text), "%s", key);
    item.spec.data = spec;
    item.spec.len = sizeof(spec);
    item.idempotency_key = text;
    item.max_attempts = 3;
    item.queue = queue;
    body.items = items;
    body.n_items = 1;
    cmd.body_case = CHRONOS__INTERNAL__V1__LOG_COMMAND__BODY_SUBMIT_JOB;
    cmd.submit_job = &body;
    assert_int_equal(command_encode(&cmd, &command), 0);
    *a = (struct answer){.world = w, .code = -1};
    return replica_propose(w->nodes[slot].replica, command, flags, deadline, answer_proposed, a);
}

/* ---- worker streams ------------------------------------------------------------------------- */

static int stream_take(void *arg, struct bytes *message) {
    struct stream *s = arg;

    assert_true(s->count < ARRAY_LEN(s->got));
    s->got[s->count] = chronos__v1__node_message__unpack(NULL, message->len, message->data);
    assert_non_null(s->got[s->count]);
    s->count++;
    (void) bytes_unref(message);
    return 0;
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
    Chronos__V1__WorkerMessage m = CHRONOS__V1__WORKER_MESSAGE__INIT;
    Chronos__V1__WorkerHello h = CHRONOS__V1__WORKER_HELLO__INIT;
    char text[128];

    (void) snprintf(text, sizeof(text), "%s", id);
    h.worker_id = text;
    h.incarnation = incarnation;
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
