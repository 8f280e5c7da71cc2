/* Random networks of 1 to 8 rafts that lose their logs' beginnings and change their members.
 *
 * Goal: find interleavings nobody thought of. Method: from each seed a swarm of fault rates is
 * drawn (loss, duplication, reordering, slow disks, crashes that lose unconfirmed batches, cut
 * links, unreadable loads, compaction to the last applied entry, failing snapshots, members that
 * come and go through joint configurations), thousands of random actions run against raft_world.c's
 * checkers, then all faults end and the cluster must agree and commit within a bounded time. Seeds:
 * CHRONOS_RAFT_SEEDS=first-last (default 1-1000). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "raft_world.h"

#define STEPS 3000
#define CALM_MS 20000

struct rates {
    uint32_t deliver;
    uint32_t drop;
    uint32_t dup;
    uint32_t persist;
    uint32_t propose;
    uint32_t read;
    uint32_t crash;
    uint32_t restart;
    uint32_t cut;
    uint32_t rare; /* transfer, campaign, unreachable */
    uint32_t time;
    uint32_t load;
    uint32_t compact;
    uint32_t snapshot;
    uint32_t member;
    uint64_t time_max_ns;
    bool fifo;
};

struct totals {
    size_t elections;
    size_t truncations;
    size_t commits;
    size_t loads;
    size_t snapshots_wanted;
    size_t snapshots_installed;
    size_t configs;
    uint64_t reads_ok;
};

static struct rates draw_rates(struct rng *g) {
    bool rough = rng_chance(g, 300);
    /* Many elections over short logs: figure 8 needs five in a row. */
    bool contested = rng_chance(g, 300);
    struct rates r = {
        .deliver = 400,
        .drop = (uint32_t) rng_below(g, rough ? 150 : 20),
        .dup = (uint32_t) rng_below(g, rough ? 100 : 20),
        .persist = (uint32_t) rng_range(g, 20, 200),
        .propose = (uint32_t) rng_range(g, 5, 100),
        .read = (uint32_t) rng_below(g, 40),
        .crash = (uint32_t) rng_below(g, rough ? 20 : 5),
        .restart = (uint32_t) rng_range(g, 2, 30),
        .cut = (uint32_t) rng_below(g, 20),
        .rare = (uint32_t) rng_below(g, contested ? 120 : 10),
        .time = (uint32_t) rng_range(g, 20, 150),
        .load = (uint32_t) rng_range(g, 10, 100),
        .compact = rng_chance(g, 500) ? (uint32_t) rng_below(g, 60) : 0,
        .snapshot = (uint32_t) rng_range(g, 5, 60),
        .member = rng_chance(g, 500) ? (uint32_t) rng_below(g, 150) : 0,
        .time_max_ns = rng_range(g, 1, contested ? 200 : 60) * NS_PER_MS,
        .fifo = rng_chance(g, 400),
    };

    return r;
}

static void draw_options(struct raft_options *o, struct rng *g) {
    o->append_bytes_max = rng_range(g, 1, 400);
    o->inflight_messages_max = rng_range(g, 1, 8);
    o->inflight_bytes_max = rng_range(g, 1, 1000);
    o->uncommitted_entries_max = rng_range(g, 2, 40);
    o->applied_entries_kept = rng_below(g, 6);
    o->lease_reads = rng_chance(g, 300);
    if (rng_chance(g, 300))
        o->disk_stall_ns = rng_range(g, 1, 400) * NS_PER_MS;
}

static uint64_t random_node(struct world *w, bool up) {
    uint64_t id = rng_range(&w->rng, 1, w->count);

    return (w->nodes[id].raft != NULL) == up ? id : 0;
}

static void fire_timers(struct world *w) {
    for (uint64_t id = 1; id <= w->count; id++) {
        if (w->nodes[id].raft && mono_reached(w->now, raft_deadline(w->nodes[id].raft)))
            world_timeout(w, id);
    }
}

static void restart(struct world *w, uint64_t id) {
    struct world_node *n = &w->nodes[id];
    uint64_t applied = rng_chance(&w->rng, 500)
                           ? n->store_applied
                           : rng_range(&w->rng, n->base_index, n->store_applied);
    uint64_t memory = MAX(n->base_index, applied > 5 ? applied - 5 : 0);

    n->store_applied = applied;
    world_restart(w, id, rng_range(&w->rng, memory, applied), applied);
}

static void rare(struct world *w, uint64_t id) {
    struct raft_event lost = {.type = RAFT_EV_UNREACHABLE,
                              .unreachable = rng_range(&w->rng, 1, w->count)};
    struct raft_event up = {.type = RAFT_EV_REACHABLE, .reachable = lost.unreachable};

    switch (rng_below(&w->rng, 3)) {
    case 0:
        world_transfer(w, id, rng_below(&w->rng, w->count + 1));
        break;
    case 1:
        world_campaign(w, id);
        break;
    default:
        world_step(w, id, &lost);
        if (rng_chance(&w->rng, 500))
            world_step(w, id, &up); /* a link may also be up anew at once */
        break;
    }
}

static void on_network(struct world *w, const struct rates *p, uint64_t dice) {
    size_t i;

    if (w->net_count == 0)
        return;
    i = p->fifo ? 0 : rng_below(&w->rng, w->net_count);
    if (dice < p->drop)
        world_drop(w, i);
    else if (dice < p->drop + p->dup && w->net_count < 500)
        world_dup(w, i);
    else
        world_deliver(w, i);
}

/* Cut one node off (often the leader, who does not know at once), one link (perhaps one way), or
 * heal everything. */
static void change_links(struct world *w, uint64_t a, uint64_t b) {
    uint64_t leader = world_leader(w);

    switch (rng_below(&w->rng, 4)) {
    case 0:
        a = leader && rng_chance(&w->rng, 700) ? leader : a;
        for (uint64_t id = 1; id <= w->count; id++)
            w->cut[a][id] = w->cut[id][a] = true;
        break;
    case 1:
        w->cut[a][b] = true;
        if (rng_chance(&w->rng, 500))
            w->cut[b][a] = true;
        break;
    default:
        memset(w->cut, 0, sizeof(w->cut));
        break;
    }
}

static void compact(struct world *w, uint64_t id) {
    struct world_node *n = &w->nodes[id];

    if (n->base_index < raft_applied(n->raft))
        world_compact(w, id, rng_range(&w->rng, n->base_index + 1, raft_applied(n->raft)));
}

/* What the caller of a leader that must send a snapshot and of its follower do, or fail to do. */
static void snapshots(struct world *w, uint64_t up) {
    if (w->nodes[up].wanted_count > 0)
        world_serve_snapshot(w, up, !rng_chance(&w->rng, 200));
    if (w->transfers_count == 0)
        return;
    up = rng_below(&w->rng, w->transfers_count);
    if (!rng_chance(&w->rng, 200)) {
        world_install(w, up);
        return;
    }
    /* It broke; or the leader only thinks so and it arrives later. */
    if (w->nodes[w->transfers[up].leader].raft)
        world_snapshot_failed(w, w->transfers[up].leader, w->transfers[up].to);
}

/* The next configuration of a cluster whose operator cannot make up his mind. */
static void change_members(struct world *w, uint64_t leader) {
    struct raft *r = w->nodes[leader].raft;
    struct raft_config c = *raft_config_latest(r);
    uint64_t voters[RAFT_NODES_MAX];
    size_t count = 0;
    uint64_t id = rng_range(&w->rng, 1, WORLD_NODES_MAX);
    int rc;

    if (raft_config_leave_joint(&c, &c, NULL) == 0) {
        (void) world_propose_config(w, leader, &c);
        return;
    }
    if (id > w->count) {
        world_add_node(w);
        id = w->count;
    }
    for (size_t i = 0; i < c.count; i++) {
        if (rng_chance(&w->rng, 600))
            voters[count++] = c.members[i].id;
    }
    switch (rng_below(&w->rng, 4)) {
    case 0:
        rc = raft_config_add_learner(&c, id, "x:1", rng_chance(&w->rng, 500), 0, &c, NULL);
        break;
    case 1:
        rc = raft_config_remove_learner(&c, id, &c, NULL);
        break;
    case 2:
        rc = raft_config_set_promote(&c, id, true, leader, &c, NULL);
        break;
    default:
        rc = raft_config_enter_joint(&c, voters, count, rng_chance(&w->rng, 500), &c, NULL);
        break;
    }
    if (rc == 0)
        (void) world_propose_config(w, leader, &c);
}

static void act(struct world *w, const struct rates *p) {
    uint32_t weights[] = {p->deliver, p->persist,  p->propose, p->read, p->crash,
                          p->restart, p->cut,      p->rare,    p->time, p->load,
                          p->compact, p->snapshot, p->member};
    uint32_t sum = 0;
    uint64_t dice;
    size_t k = 0;
    uint64_t up = random_node(w, true);
    uint64_t down = random_node(w, false);
    uint64_t a = rng_range(&w->rng, 1, w->count);
    uint64_t b = rng_range(&w->rng, 1, w->count);
    char text[16];

    for (size_t i = 0; i < ARRAY_LEN(weights); i++)
        sum += weights[i];
    dice = rng_below(&w->rng, sum);
    while (dice >= weights[k])
        dice -= weights[k++];
    if (k == 0) {
        on_network(w, p, rng_below(&w->rng, 1000));
    } else if (k == 1 && up) {
        world_persist(w, up, rng_range(&w->rng, 1, 3));
    } else if (k == 2 && up) {
        uint64_t leader = world_leader(w);

        (void) snprintf(text, sizeof(text), "%llu",
                        (unsigned long long) rng_below(&w->rng, 1000000000));
        (void) world_propose(w, leader && rng_chance(&w->rng, 900) ? leader : up, text);
    } else if (k == 3 && up && w->nodes[up].reads_count < 200) {
        (void) world_read(w, up);
    } else if (k == 4 && up) {
        world_crash(w, up, rng_below(&w->rng, 3));
    } else if (k == 5 && down) {
        restart(w, down);
    } else if (k == 6) {
        change_links(w, a, b);
    } else if (k == 7 && up) {
        rare(w, up);
    } else if (k == 8) {
        w->now.ns += rng_range(&w->rng, 1, p->time_max_ns);
        fire_timers(w);
    } else if (k == 9 && up && w->nodes[up].loads_count > 0) {
        world_serve_load(w, up, !rng_chance(&w->rng, 100));
    } else if (k == 10 && up) {
        compact(w, up);
    } else if (k == 11 && up) {
        snapshots(w, up);
    } else if (k == 12 && world_leader(w)) {
        change_members(w, world_leader(w));
    }
}

/* Only what the members in force say counts: the others may not even know that they are out. */
static bool agreed(const struct world *w) {
    uint64_t leader = world_leader(w);
    const struct raft_config *c;
    uint64_t last;

    if (leader == 0)
        return false;
    last = raft_last_index(w->nodes[leader].raft);
    c = raft_config_latest(w->nodes[leader].raft);
    if (c->joint || !raft_config_find(c, leader))
        return false;
    for (size_t i = 0; i < c->count; i++) {
        const struct world_node *n = &w->nodes[c->members[i].id];

        if (raft_last_index(n->raft) != last || n->applied != last || n->reads_count > 0)
            return false;
    }
    return true;
}

/* A transfer is over and its answer was lost: its sender's patience ends. */
static void answers_lost(struct world *w) {
    uint64_t leader = world_leader(w);

    for (uint64_t id = 1; leader != 0 && id <= w->count; id++) {
        struct raft_peer_status s;

        if (raft_peer_status(w->nodes[leader].raft, id, &s) == 0 && s.state == RAFT_SNAPSHOT)
            world_snapshot_failed(w, leader, id);
    }
}

/* The faults end: a leader, one more command, and the same log applied everywhere. */
static void calm(struct world *w) {
    bool proposed = false;
    uint64_t end = w->now.ns + CALM_MS * NS_PER_MS;

    for (uint64_t id = 1; id <= w->count; id++) {
        for (uint64_t to = 1; to <= w->count; to++)
            w->cut[id][to] = false;
        if (!w->nodes[id].raft)
            restart(w, id);
    }
    for (;;) {
        world_stabilize(w);
        answers_lost(w);
        if (proposed && agreed(w))
            return;
        if (world_leader(w)) {
            uint64_t leader = world_leader(w);
            struct raft_config c;

            if (raft_config_leave_joint(raft_config_latest(w->nodes[leader].raft), &c, NULL) == 0)
                (void) world_propose_config(w, leader, &c);
            else if (!proposed)
                proposed = world_propose(w, leader, "calm") == RAFT_PROPOSE_ACCEPTED;
        }
        if (w->now.ns > end)
            fail_msg("%s: no agreement after %d ms without faults", w->what, CALM_MS);
        w->now.ns += 10 * NS_PER_MS;
        fire_timers(w);
    }
}

static void run_seed(uint64_t seed, struct totals *t, FILE *trace) {
    struct world w;
    struct rates p;
    char what[64];

    (void) snprintf(what, sizeof(what), "seed %llu (CHRONOS_RAFT_SEEDS=%llu-%llu)",
                    (unsigned long long) seed, (unsigned long long) seed,
                    (unsigned long long) seed);
    world_init(&w, seed);
    w.what = what;
    w.trace = trace;
    p = draw_rates(&w.rng);
    draw_options(&w.options, &w.rng);
    world_start(&w, rng_chance(&w.rng, 50) ? 1 : rng_range(&w.rng, 2, 5));
    for (size_t i = 0; i < STEPS; i++)
        act(&w, &p);
    calm(&w);
    t->elections += w.elections;
    t->truncations += w.truncations;
    t->commits += w.committed_count;
    t->loads += w.loads_served;
    t->snapshots_wanted += w.snapshots_wanted;
    t->snapshots_installed += w.snapshots_installed;
    t->configs += w.configs_committed;
    for (uint64_t id = 1; id <= w.count; id++)
        t->reads_ok += w.nodes[id].reads_ok;
    world_done(&w);
}

static void test_random_networks(void **state) {
    const char *range = getenv("CHRONOS_RAFT_SEEDS");
    unsigned long long first = 1;
    unsigned long long last = 1000;
    struct totals t = {0};

    (void) state;
    if (range && sscanf(range, "%llu-%llu", &first, &last) != 2)
        fail_msg("CHRONOS_RAFT_SEEDS=%s is not first-last", range);
    for (uint64_t seed = first; seed <= last; seed++)
        run_seed(seed, &t, getenv("CHRONOS_RAFT_TRACE") ? stdout : NULL);
    print_message(
        "seeds %llu-%llu: %zu elections, %zu truncations, %zu commits, %zu loads, "
        "%zu snapshots wanted, %zu installed, %zu configurations, %llu reads\n",
        first, last, t.elections, t.truncations, t.commits, t.loads, t.snapshots_wanted,
        t.snapshots_installed, t.configs, (unsigned long long) t.reads_ok);
    if (last - first < 100)
        return;
    /* A world in which nothing happens proves nothing. */
    assert_true(t.elections > last - first);
    assert_true(t.truncations > 100);
    assert_true(t.commits > 10 * (last - first));
    assert_true(t.loads > 100);
    assert_true(t.snapshots_installed > 100);
    assert_true(t.configs > (last - first) / 2);
    assert_true(t.reads_ok > 100);
}

/* R23: a step depends on nothing but the state and the event: the same seed gives the same trace.
 */
static void test_same_seed_same_trace(void **state) {
    struct totals t = {0};

    (void) state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        char *text[2] = {NULL, NULL};
        size_t len[2] = {0, 0};

        for (int i = 0; i < 2; i++) {
            FILE *f = open_memstream(&text[i], &len[i]);

            assert_non_null(f);
            run_seed(seed, &t, f);
            (void) fclose(f);
        }
        assert_true(len[0] > 1000);
        assert_int_equal(len[0], len[1]);
        assert_memory_equal(text[0], text[1], len[0]);
        free(text[0]);
        free(text[1]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_networks),
        cmocka_unit_test(test_same_seed_same_trace),
    };

    return cmocka_run_group_tests_name("raft_network", tests, NULL, NULL);
}
