#include "cluster_world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "log_commands.h"
#include "storage/kv_mem.h"

#define ROUNDS_MAX 100000

/* ---- effects --------------------------------------------------------------------------------- */

static struct mono fake_mono(void *ctx) {
    const struct cluster_node *n = ctx;

    return (struct mono){.ns = n->cluster->now_ns};
}

static struct wall fake_wall(void *ctx) {
    const struct cluster_node *n = ctx;

    return (struct wall){.ms = 1700000000000 + (int64_t) (n->cluster->now_ns / NS_PER_MS) +
                               n->clock_off_ms};
}

static uint64_t fake_random(void *ctx) {
    struct cluster_node *n = ctx;

    return n->random += 0x9e3779b97f4a7c15ULL;
}

static void fake_send(void *ctx, uint64_t to, struct bytes *payload) {
    struct cluster_node *n = ctx;
    struct cluster *c = n->cluster;

    if (!n->link[to - 1] || c->cut[n->id - 1][to - 1]) {
        (void) bytes_unref(payload);
        return;
    }
    assert_true(c->tail - c->head < CLUSTER_MESSAGES);
    c->queue[c->tail++ % CLUSTER_MESSAGES] =
        (struct cluster_message){.from = n->id, .to = to, .payload = payload};
}

static bool fake_send_bulk(void *ctx, uint64_t to, struct bytes *payload) {
    struct cluster_node *n = ctx;

    if (!n->link[to - 1]) {
        (void) bytes_unref(payload);
        return false;
    }
    fake_send(ctx, to, payload);
    return true;
}

static int fake_set_peer(void *ctx, uint64_t id, const char *address, const char *other) {
    struct cluster_node *n = ctx;

    assert_true(id > 0 && id <= CLUSTER_MAX && id != n->id);
    n->peer_set[id - 1] = true;
    (void) snprintf(n->peer_address[id - 1][0], sizeof(n->peer_address[0][0]), "%s", address);
    (void) snprintf(n->peer_address[id - 1][1], sizeof(n->peer_address[0][1]), "%s", other);
    return 0;
}

static void fake_remove_peer(void *ctx, uint64_t id) {
    struct cluster_node *n = ctx;

    assert_true(n->peer_set[id - 1]);
    n->peer_set[id - 1] = false;
    n->link[id - 1] = false;
    n->cluster->nodes[id - 1].reset[n->id - 1] = true;
}

static void fake_log(void *ctx, enum log_level level, const char *msg, const char *fields) {
    const struct cluster_node *n = ctx;

    (void) fprintf(stderr, "%8llu n%llu %s %s %s\n",
                   (unsigned long long) (n->cluster->now_ns / NS_PER_MS),
                   (unsigned long long) n->id, log_level_to_string(level), msg, fields);
}

/* ---- starting and stopping ------------------------------------------------------------------- */

void cluster_init(struct cluster *c) {
    memset(c, 0, sizeof(*c));
    c->now_ns = NS_PER_S;
    replica_options_default(&c->options, 1, 1);
    c->options.wal.segment_bytes = WAL_SEGMENT_BYTES_MIN;
    c->options.wal.spare_segments = 1;
    for (unsigned i = 0; i < CLUSTER_MAX; i++) {
        struct cluster_node *n = &c->nodes[i];

        n->cluster = c;
        n->id = i + 1;
        n->random = i + 1;
        n->log = (struct logger){
            .level = getenv("CLUSTER_LOG") ? LOG_INFO : LOG_ERROR, .sink = fake_log, .ctx = n};
        (void) snprintf(n->address, sizeof(n->address), "n%u:7", i + 1);
    }
}

const char *cluster_address(struct cluster *c, unsigned slot) {
    return c->nodes[slot].address;
}

static void start(struct cluster *c, unsigned slot, const struct raft_config *bootstrap) {
    struct cluster_node *n = &c->nodes[slot];
    struct replica_options o = c->options;
    struct raft_config hints = {0};
    char client[64];
    struct env env = {
        .clock = {.mono = fake_mono, .wall = fake_wall, .ctx = n},
        .random = {.next = fake_random, .ctx = n},
        .disk_queue = {.submit = held_jobs_submit, .ctx = &n->jobs},
        .bulk_queue = {.submit = held_jobs_submit, .ctx = &n->jobs},
        .peers = {.send = fake_send,
                  .send_bulk = fake_send_bulk,
                  .set_peer = fake_set_peer,
                  .remove_peer = fake_remove_peer,
                  .ctx = n},
        .log = &n->log,
    };

    assert_null(n->replica);
    memset(n->peer_set, 0, sizeof(n->peer_set));
    memset(n->link, 0, sizeof(n->link));
    n->failed = 0;
    if (!n->disk) {
        assert_int_equal(sim_disk_new(&n->disk), 0);
        assert_int_equal(kv_mem_new(0, &n->kv), 0);
    }
    env.disk = *sim_disk_interface(n->disk);
    (void) snprintf(client, sizeof(client), "client-%s", n->address);
    o.id = o.raft.id = n->id;
    o.raft.seed = n->id * 7919;
    o.bootstrap = bootstrap;
    o.join = !bootstrap;
    o.peer_address = n->address;
    o.client_address = client;
    if (!bootstrap) {
        /* Told of the first node, as an operator would. */
        hints.count = 1;
        hints.members[0].id = n->told_of ? n->told_of : slot == 0 ? 2 : 1;
        (void) snprintf(hints.members[0].address, sizeof(hints.members[0].address), "%s",
                        c->nodes[hints.members[0].id - 1].address);
        o.hints = &hints;
    }
    n->failed = replica_open(&o, &env, n->kv, &n->replica, &n->failure);
    if (n->failed != 0)
        n->replica = NULL;
}

void cluster_bootstrap(struct cluster *c, unsigned count) {
    struct raft_config config = {.count = count};

    for (unsigned i = 0; i < count; i++) {
        config.members[i].id = i + 1;
        config.members[i].flags = RAFT_MEMBER_VOTER;
        (void) snprintf(config.members[i].address, sizeof(config.members[i].address), "%s",
                        c->nodes[i].address);
    }
    for (unsigned i = 0; i < count; i++) {
        start(c, i, &config);
        assert_int_equal(c->nodes[i].failed, 0);
    }
}

void cluster_join(struct cluster *c, unsigned slot) {
    start(c, slot, NULL);
    assert_int_equal(c->nodes[slot].failed, 0);
}

void cluster_restart(struct cluster *c, unsigned slot) {
    start(c, slot, NULL);
}

void cluster_stop(struct cluster *c, unsigned slot) {
    struct cluster_node *n = &c->nodes[slot];

    while (held_jobs_run(&n->jobs))
        continue;
    n->replica = replica_free(n->replica);
    for (unsigned i = 0; i < CLUSTER_MAX; i++) {
        struct cluster_node *o = &c->nodes[i];

        if (o->link[slot] && o->replica)
            replica_on_peer_link(o->replica, n->id, false);
        o->link[slot] = false;
        n->link[i] = false;
    }
}

void cluster_wipe(struct cluster *c, unsigned slot) {
    struct cluster_node *n = &c->nodes[slot];

    assert_null(n->replica);
    n->kv->ops->close(n->kv);
    (void) sim_disk_free(n->disk);
    n->kv = NULL;
    n->disk = NULL;
}

void cluster_move(struct cluster *c, unsigned slot, const char *address) {
    assert_null(c->nodes[slot].replica);
    (void) snprintf(c->nodes[slot].address, sizeof(c->nodes[slot].address), "%s", address);
}

void cluster_close(struct cluster *c) {
    for (unsigned i = 0; i < CLUSTER_MAX; i++) {
        if (c->nodes[i].replica)
            cluster_stop(c, i);
        if (c->nodes[i].disk) {
            assert_int_equal(sim_disk_open_handles(c->nodes[i].disk), 0);
            cluster_wipe(c, i);
        }
    }
    for (; c->head != c->tail; c->head++)
        (void) bytes_unref(c->queue[c->head % CLUSTER_MESSAGES].payload);
}

struct cluster *cluster_new(unsigned count) {
    struct cluster *c = malloc(sizeof(*c));

    assert_non_null(c);
    cluster_init(c);
    cluster_bootstrap(c, count);
    (void) cluster_lead(c);
    cluster_run(c, 2500);
    return c;
}

void cluster_free(struct cluster *c) {
    cluster_close(c);
    free(c);
}

/* ---- the network ----------------------------------------------------------------------------- */

/* @from says hello to @to. */
static bool hello_accepted(struct cluster_node *from, struct cluster_node *to) {
    struct replica_hello h = {
        .node_id = from->id, .peer_address = from->address, .client_address = ""};
    struct errtext why = {0};
    bool final = false;

    memcpy(h.disk, replica_disk(from->replica), sizeof(h.disk));
    if (replica_check_hello(to->replica, &h, &final, &why) == 0)
        return true;
    from->refusals++;
    if (final)
        replica_on_refused(from->replica, to->id, why.s);
    return false;
}

static bool wants_link(struct cluster *c, unsigned from, unsigned to) {
    const struct cluster_node *n = &c->nodes[from], *o = &c->nodes[to];

    return n->replica && o->replica && n->peer_set[to] && !c->cut[from][to] && !c->cut[to][from] &&
           (strcmp(n->peer_address[to][0], o->address) == 0 ||
            strcmp(n->peer_address[to][1], o->address) == 0);
}

static bool make_links(struct cluster *c) {
    bool moved = false;

    for (unsigned i = 0; i < CLUSTER_MAX; i++)
        for (unsigned k = 0; k < CLUSTER_MAX; k++) {
            struct cluster_node *n = &c->nodes[i], *o = &c->nodes[k];
            bool wanted = i != k && wants_link(c, i, k) && !n->reset[k];

            n->reset[k] = false; /* dialled again the next time */
            if (wanted == n->link[k])
                continue;
            if (wanted && replica_failed(n->replica, NULL) == 0 &&
                replica_failed(o->replica, NULL) == 0) {
                if (!hello_accepted(n, o) || !hello_accepted(o, n))
                    continue;
                n->link[k] = true;
                replica_on_peer_link(n->replica, o->id, true);
                moved = true;
            } else if (!wanted && n->replica) {
                n->link[k] = false;
                if (n->peer_set[k])
                    replica_on_peer_link(n->replica, o->id, false);
                moved = true;
            }
        }
    return moved;
}

static bool deliver(struct cluster *c) {
    struct cluster_message m;
    struct replica *to;

    if (c->head == c->tail)
        return false;
    m = c->queue[c->head++ % CLUSTER_MESSAGES];
    to = c->nodes[m.to - 1].replica;
    if (to && c->nodes[m.from - 1].link[m.to - 1])
        replica_on_peer_message(to, m.from, bytes_slice(m.payload));
    (void) bytes_unref(m.payload);
    return true;
}

/* ---- time ------------------------------------------------------------------------------------ */

static bool turn(struct cluster *c, unsigned slot) {
    struct cluster_node *n = &c->nodes[slot];
    bool moved;

    if (!n->replica)
        return false;
    moved = !n->hold_disk && held_jobs_run(&n->jobs);
    if (replica_wants_turn(n->replica) || replica_deadline(n->replica).ns <= c->now_ns) {
        replica_turn(n->replica);
        moved = true;
    }
    n->failed = replica_failed(n->replica, &n->failure);
    if (n->failed != 0) {
        if (getenv("CLUSTER_LOG"))
            (void) fprintf(stderr, "n%u ends: %s\n", slot + 1, n->failure.s);
        cluster_stop(c, slot);
    }
    return moved;
}

void cluster_settle(struct cluster *c) {
    bool moved = true;

    for (int rounds = 0; moved; rounds++) {
        assert_true(rounds < ROUNDS_MAX);
        moved = make_links(c);
        for (unsigned i = 0; i < CLUSTER_MAX; i++)
            moved = turn(c, i) || moved;
        moved = deliver(c) || moved;
    }
}

void cluster_run(struct cluster *c, uint64_t ms) {
    uint64_t end = c->now_ns + ms * NS_PER_MS;

    for (;;) {
        uint64_t next = end;

        cluster_settle(c);
        for (unsigned i = 0; i < CLUSTER_MAX; i++)
            if (c->nodes[i].replica)
                next = MIN(next, replica_deadline(c->nodes[i].replica).ns);
        if (c->now_ns >= end)
            return;
        c->now_ns = MAX(next, c->now_ns + 1);
    }
}

static int leader_slot(struct cluster *c) {
    for (unsigned i = 0; i < CLUSTER_MAX; i++)
        if (c->nodes[i].replica && raft_role(replica_raft(c->nodes[i].replica)) == RAFT_LEADER &&
            raft_leader_ready(replica_raft(c->nodes[i].replica)))
            return (int) i;
    return -1;
}

unsigned cluster_lead(struct cluster *c) {
    for (int tries = 0; tries < 1000; tries++) {
        cluster_run(c, 10);
        if (leader_slot(c) >= 0)
            return (unsigned) leader_slot(c);
    }
    fail_msg("no leader after 10 s");
    return 0;
}

bool cluster_until(struct cluster *c, bool (*until)(struct cluster *c, void *arg), void *arg,
                   uint64_t ms) {
    for (uint64_t t = 0; t < ms; t += 10) {
        if (until(c, arg))
            return true;
        cluster_run(c, 10);
    }
    return until(c, arg);
}

const struct raft_config *cluster_config(struct cluster *c, unsigned slot) {
    return raft_config_latest(replica_raft(c->nodes[slot].replica));
}

bool cluster_has(struct cluster *c, unsigned voters, unsigned learners) {
    int leader = leader_slot(c);
    const struct raft_config *config;
    const struct raft *raft;
    unsigned v = 0, l = 0;

    if (leader < 0)
        return false;
    raft = replica_raft(c->nodes[leader].replica);
    config = raft_config_latest(raft);
    for (size_t i = 0; i < config->count; i++) {
        v += config->members[i].flags == RAFT_MEMBER_VOTER;
        l += config->members[i].flags == RAFT_MEMBER_LEARNER;
    }
    return !config->joint && v + l == config->count && v == voters && l == learners &&
           raft_commit(raft) >= raft_config_latest_index(raft);
}

struct counts {
    unsigned voters, learners;
};

static bool has(struct cluster *c, void *arg) {
    const struct counts *n = arg;

    return cluster_has(c, n->voters, n->learners);
}

void cluster_await(struct cluster *c, unsigned voters, unsigned learners) {
    struct counts n = {voters, learners};

    if (!cluster_until(c, has, &n, 30000))
        fail_msg("not %u voters and %u learners after 30 s", voters, learners);
}

/* ---- requests -------------------------------------------------------------------------------- */

static void on_change(void *arg, uint32_t code, const char *message, uint64_t index, bool changed) {
    struct change_answer *a = arg;

    a->count++;
    a->code = code;
    (void) snprintf(a->message, sizeof(a->message), "%s", message);
    a->index = index;
    a->changed = changed;
}

static struct mono in_ms(const struct cluster *c, uint64_t ms) {
    return (struct mono){.ns = c->now_ns + ms * NS_PER_MS};
}

void cluster_change_start(struct cluster *c, unsigned slot, const struct replica_change *change,
                          struct change_answer *a) {
    *a = (struct change_answer){0};
    assert_int_equal(
        replica_change_membership(c->nodes[slot].replica, change, in_ms(c, 5000), on_change, a), 0);
}

static bool answered(struct cluster *c, void *arg) {
    (void) c;
    return ((const struct change_answer *) arg)->count > 0;
}

struct change_answer cluster_change(struct cluster *c, unsigned slot,
                                    const struct replica_change *change) {
    struct change_answer a;

    cluster_change_start(c, slot, change, &a);
    assert_int_equal(a.count, 0);
    assert_true(cluster_until(c, answered, &a, 6000));
    assert_int_equal(a.count, 1);
    return a;
}

struct change_answer cluster_transfer(struct cluster *c, unsigned slot, uint64_t to) {
    struct change_answer a = {0};

    assert_int_equal(
        replica_request_transfer(c->nodes[slot].replica, to, in_ms(c, 5000), on_change, &a), 0);
    assert_true(cluster_until(c, answered, &a, 6000));
    assert_int_equal(a.count, 1);
    return a;
}

static void on_submitted(void *arg, const struct replica_proposed *res) {
    struct cluster_load *l = arg;

    if (res->status == REPLICA_OK && res->output->results[0].code == FSM_OK) {
        assert_true(l->acked < ARRAY_LEN(l->seqs));
        l->seqs[l->acked++] = res->output->results[0].job_seq;
    } else if (res->status == REPLICA_OK && res->output->results[0].code == FSM_EXISTING) {
        l->seqs[l->acked++] = res->output->results[0].job_seq;
    } else {
        l->other++;
    }
}

void cluster_submit(struct cluster *c, unsigned slot, struct cluster_load *l) {
    static const uint8_t spec[] = {0x1a, 0};
    char key[32];

    l->cluster = c;
    (void) snprintf(key, sizeof(key), "k%u", l->sent++);
    assert_int_equal(replica_propose(c->nodes[slot].replica,
                                     log_submit(slice_of(spec, sizeof(spec)), key),
                                     REPLICA_RETRY_SAFE, in_ms(c, 5000), on_submitted, l),
                     0);
}
