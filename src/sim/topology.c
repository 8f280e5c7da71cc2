/* The table of scenarios, and those that are links alone. Links are closed by sim_link.broken,
 * which only the end of the world takes back. */
#include "sim/topology_internal.h"

#include <string.h>

#define DRAWN_PERMILLE 200 /* of ordinary worlds */
#define HOLD_TIMEOUTS 100  /* a third of it in worlds that are not about the scenario alone */
#define ELECT_TIMEOUTS 20
#define ALONE_TIMEOUTS 1000
#define COMMIT_TIMEOUTS 200
#define SETTLE_NS (20 * NS_PER_S)

/* ---- tools ----------------------------------------------------------------------------------- */

static void run_until(struct world *w, uint64_t until) {
    while (sim_world_may_step(w) && w->now_ns < until)
        sim_world_step(w);
}

void topology_wait(struct world *w, uint64_t timeouts) {
    run_until(w, w->now_ns + timeouts * TIMEOUT_NS);
}

static uint64_t highest_term(const struct world *w) {
    uint64_t term = 0;

    for (unsigned i = 0; i < w->nodes_count; i++)
        if (w->nodes[i].up)
            term = MAX(term, raft_term(replica_raft(w->nodes[i].replica)));
    return term;
}

struct sim_node *topology_leader(struct world *w) {
    uint64_t term = highest_term(w);

    for (unsigned i = 0; i < w->nodes_count; i++) {
        const struct raft *r = w->nodes[i].up ? replica_raft(w->nodes[i].replica) : NULL;

        if (r && raft_role(r) == RAFT_LEADER && raft_term(r) == term && raft_leader_ready(r))
            return &w->nodes[i];
    }
    return NULL;
}

struct sim_node *topology_await_leader(struct world *w, uint64_t slots, unsigned timeouts) {
    uint64_t until = w->now_ns + timeouts * TIMEOUT_NS;
    struct sim_node *n;

    while (sim_world_may_step(w) && w->now_ns < until) {
        n = topology_leader(w);
        if (n && slots & NODE_BIT(n->slot))
            return n;
        sim_world_step(w);
    }
    n = topology_leader(w);
    sim_fail(w, "%s: none of the nodes %llx leads after %u election timeouts, %s%u does",
             sim_topology_at(w->topology - 1)->name, (unsigned long long) slots << 1, timeouts,
             n ? "node " : "nobody: ", n ? n->slot + 1 : 0);
    return NULL;
}

/* Clients ask rarely, and sometimes nodes that are not there: give them time. */
static void await_commit(struct world *w, uint64_t committed) {
    uint64_t until = w->now_ns + COMMIT_TIMEOUTS * TIMEOUT_NS;

    while (sim_world_may_step(w) && w->now_ns < until && w->checker.committed_count == committed)
        sim_world_step(w);
    if (!w->failed && w->checker.committed_count == committed)
        sim_fail(w, "%s: nothing was committed in %u election timeouts",
                 sim_topology_at(w->topology - 1)->name, COMMIT_TIMEOUTS);
}

void topology_hold(struct world *w, unsigned timeouts) {
    uint64_t elections = w->result->stats[SIM_STAT_ELECTIONS], term = highest_term(w);
    uint64_t committed = w->checker.committed_count;
    const char *name = sim_topology_at(w->topology - 1)->name;

    topology_wait(w, w->o.topology ? timeouts : timeouts / 3);
    if (!w->idle)
        await_commit(w, committed);
    if (w->failed)
        return;
    if (w->result->stats[SIM_STAT_ELECTIONS] != elections)
        sim_fail(w, "%s: another leader although the one there was could stay", name);
    else if (highest_term(w) != term)
        sim_fail(w, "%s: the term grew from %llu to %llu", name, (unsigned long long) term,
                 (unsigned long long) highest_term(w));
}

static bool logs_alike(const struct world *w) {
    const struct raft *first = replica_raft(w->nodes[0].replica);

    for (unsigned i = 0; i < w->nodes_count; i++) {
        const struct raft *r = w->nodes[i].up ? replica_raft(w->nodes[i].replica) : NULL;

        if (!r || raft_last_index(r) != raft_last_index(first) ||
            raft_durable_index(r) != raft_last_index(r) || raft_commit(r) != raft_last_index(r))
            return false;
    }
    return true;
}

bool topology_quiesce(struct world *w) {
    uint64_t until = w->now_ns + SETTLE_NS;

    w->idle = true;
    while (sim_world_may_step(w) && w->now_ns < until && !logs_alike(w))
        sim_world_step(w);
    w->idle = false;
    return sim_world_may_step(w) && logs_alike(w);
}

struct sim_node *topology_other(struct world *w, const struct sim_node *than) {
    unsigned i = (unsigned) rng_below(&w->rng, w->nodes_count - 1);

    return &w->nodes[i + (i >= than->slot)];
}

void topology_cut_one_way(struct world *w, unsigned from, unsigned to) {
    w->links[from][to].broken = true;
}

void topology_cut(struct world *w, unsigned a, unsigned b, bool closed) {
    w->links[a][b].broken = w->links[b][a].broken = closed;
}

static bool two_way(const struct world *w, unsigned a, unsigned b) {
    return !w->links[a][b].broken && !w->links[b][a].broken;
}

/* Who has a majority, itself included, to talk with. */
static uint64_t well_connected(const struct world *w) {
    uint64_t slots = 0;

    for (unsigned a = 0; a < w->nodes_count; a++) {
        unsigned have = 1;

        for (unsigned b = 0; b < w->nodes_count; b++)
            have += a != b && two_way(w, a, b);
        if (have > w->nodes_count / 2)
            slots |= NODE_BIT(a);
    }
    return slots;
}

/* A leader that still has a majority stays; else one that has one follows it, and stays. */
static void elect_and_hold(struct world *w, const struct sim_node *leader) {
    uint64_t able = well_connected(w);

    if (able & NODE_BIT(leader->slot) ||
        topology_await_leader(w, able & ~NODE_BIT(leader->slot), ELECT_TIMEOUTS))
        topology_hold(w, HOLD_TIMEOUTS);
}

/* ---- scenarios ------------------------------------------------------------------------------- */

/* The outage of 2020: some cannot hear the leader but can be heard by the rest. Without PreVote and
 * CheckQuorum they depose it again and again (M28). */
static void cloudflare(struct world *w) {
    struct sim_node *l = topology_leader(w);
    unsigned first = topology_other(w, l)->slot, others = (unsigned) rng_range(&w->rng, 1, 2);

    for (unsigned i = 0, k = first; i < others; k = (k + 1) % w->nodes_count) {
        if (k == l->slot)
            continue;
        topology_cut(w, l->slot, k, true);
        i++;
    }
    elect_and_hold(w, l);
}

/* The leader loses its majority, but not the one node that still reaches everybody: that one must
 * take over, although it hears a leader until then. */
static void quorum_loss(struct world *w) {
    struct sim_node *l, *hub;

    if (!topology_quiesce(w))
        return;
    l = topology_leader(w);
    if (!l)
        return;
    hub = topology_other(w, l);
    for (unsigned a = 0; a < w->nodes_count; a++)
        for (unsigned b = 0; b < a; b++)
            topology_cut(w, a, b, a != hub->slot && b != hub->slot);
    elect_and_hold(w, l);
}

/* Single directions are closed, but the leader and some majority hear each other. */
static void one_way(struct world *w) {
    struct sim_node *l = topology_leader(w);
    unsigned may = (w->nodes_count - 1) / 2;

    for (unsigned i = 0; i < w->nodes_count; i++) {
        if (i == l->slot)
            continue;
        if (may > 0 && rng_chance(&w->rng, 700)) {
            bool out = rng_chance(&w->rng, 500);

            may--;
            topology_cut_one_way(w, out ? l->slot : i, out ? i : l->slot);
        }
        for (unsigned k = 0; k < w->nodes_count; k++)
            if (k != l->slot && k != i && rng_chance(&w->rng, 300))
                topology_cut_one_way(w, i, k);
    }
    elect_and_hold(w, l);
}

static void cut_leader(struct world *w, bool out) {
    struct sim_node *l = topology_leader(w);

    for (unsigned i = 0; i < w->nodes_count; i++)
        if (i != l->slot)
            topology_cut_one_way(w, out ? l->slot : i, out ? i : l->slot);
    elect_and_hold(w, l);
}

/* It is heard but hears nobody: it must not keep the others waiting for ever. */
static void deaf_leader(struct world *w) {
    cut_leader(w, false);
}

static void mute_leader(struct world *w) {
    cut_leader(w, true);
}

/* Places in a row or circle, drawn. */
static void draw_order(struct world *w, unsigned order[SIM_SLOTS_MAX]) {
    for (unsigned i = 0; i < w->nodes_count; i++) {
        unsigned k = (unsigned) rng_below(&w->rng, i + 1);

        order[i] = order[k];
        order[k] = i;
    }
}

static void neighbours(struct world *w, bool circle) {
    unsigned order[SIM_SLOTS_MAX], n = w->nodes_count;
    struct sim_node *l;

    if (!topology_quiesce(w))
        return;
    l = topology_leader(w);
    if (!l)
        return;
    draw_order(w, order);
    for (unsigned a = 0; a < n; a++)
        for (unsigned b = 0; b < a; b++)
            topology_cut(w, order[a], order[b], a - b != 1 && !(circle && a - b == n - 1));
    elect_and_hold(w, l);
}

static void chain(struct world *w) {
    neighbours(w, false);
}

static void ring(struct world *w) {
    neighbours(w, true);
}

/* The link of the leader to one follower goes at the worst of all rates. */
static void flapping(struct world *w) {
    struct sim_node *l = topology_leader(w);
    unsigned x = topology_other(w, l)->slot;
    uint64_t half_ns = rng_range(&w->rng, TIMEOUT_NS / 4, TIMEOUT_NS);
    unsigned dirs = (unsigned) rng_range(&w->rng, 1, 3);

    if (dirs & 1)
        sim_net_flap(w, l->slot, x, half_ns, UINT64_MAX);
    if (dirs & 2)
        sim_net_flap(w, x, l->slot, half_ns, UINT64_MAX);
    topology_hold(w, HOLD_TIMEOUTS);
}

static void isolate(struct world *w, const struct sim_node *n) {
    for (unsigned i = 0; i < w->nodes_count; i++)
        if (i != n->slot)
            topology_cut(w, n->slot, i, true);
}

/* Each that leads is cut off, as long as a majority is left. */
static void primaries(struct world *w) {
    uint64_t alone = 0;
    unsigned left = w->nodes_count;
    struct sim_node *n = topology_leader(w);

    while (n && left - 1 > w->nodes_count / 2) {
        isolate(w, n);
        alone |= NODE_BIT(n->slot);
        left--;
        n = topology_await_leader(w, EVERYBODY & ~alone, ELECT_TIMEOUTS);
    }
    if (n)
        topology_hold(w, HOLD_TIMEOUTS);
}

/* R17: the term of a node that nobody answers stays what it is, however long, and the others hardly
 * notice that it comes back. */
static void isolated(struct world *w) {
    struct sim_node *l = topology_leader(w);
    struct sim_node *n = &w->nodes[rng_below(&w->rng, w->nodes_count)];
    uint64_t term, elections;

    isolate(w, n);
    topology_wait(w, ELECT_TIMEOUTS); /* if it led, it notices */
    term = raft_term(replica_raft(n->replica));
    w->idle = true;
    if (n == l && !topology_await_leader(w, EVERYBODY & ~NODE_BIT(n->slot), 1))
        return;
    topology_hold(w, w->o.topology ? ALONE_TIMEOUTS : HOLD_TIMEOUTS);
    w->idle = false;
    if (!w->failed && raft_term(replica_raft(n->replica)) != term)
        sim_fail(w, "isolated: the term of node %u grew from %llu to %llu while it was alone",
                 n->slot + 1, (unsigned long long) term,
                 (unsigned long long) raft_term(replica_raft(n->replica)));
    elections = w->result->stats[SIM_STAT_ELECTIONS];
    for (unsigned i = 0; i < w->nodes_count; i++)
        topology_cut(w, n->slot, i, false);
    topology_wait(w, ELECT_TIMEOUTS);
    if (!w->failed && w->result->stats[SIM_STAT_ELECTIONS] > elections + 1)
        sim_fail(w, "isolated: %llu elections after node %u came back",
                 (unsigned long long) (w->result->stats[SIM_STAT_ELECTIONS] - elections),
                 n->slot + 1);
    if (topology_await_leader(w, EVERYBODY, 1))
        topology_hold(w, ELECT_TIMEOUTS);
}

/* ---- the table ------------------------------------------------------------------------------- */

struct entry {
    struct sim_topology topology;
    unsigned nodes[2]; /* one of them, at the start */
    void (*run)(struct world *w);
    void (*draw)(struct world *w); /* settings it needs; may be NULL */
    enum sim_stat stat;
};

static const struct entry entries[] = {
    {{"cloudflare", "5 nodes; one or two followers do not reach the leader, all else is well"},
     {5, 5},
     cloudflare,
     NULL,
     SIM_STAT_PLAYED_CLOUDFLARE},
    {{"quorum-loss", "5 nodes; only one reaches all others, and it is not the leader"},
     {5, 5},
     quorum_loss,
     NULL,
     SIM_STAT_PLAYED_QUORUM_LOSS},
    {{"one-way", "single directions are closed beside a leader that keeps its majority"},
     {3, 5},
     one_way,
     NULL,
     SIM_STAT_PLAYED_ONE_WAY},
    {{"deaf-leader", "the leader is heard and hears nobody"},
     {3, 5},
     deaf_leader,
     NULL,
     SIM_STAT_PLAYED_DEAF_LEADER},
    {{"mute-leader", "the leader hears everybody and is not heard"},
     {3, 5},
     mute_leader,
     NULL,
     SIM_STAT_PLAYED_MUTE_LEADER},
    {{"chain", "each node reaches its neighbours in a row only"},
     {3, 5},
     chain,
     NULL,
     SIM_STAT_PLAYED_CHAIN},
    {{"ring", "each node reaches its neighbours in a circle: majorities that overlap"},
     {5, 5},
     ring,
     NULL,
     SIM_STAT_PLAYED_RING},
    {{"flapping", "the leader's link to one follower goes up and down once per election timeout"},
     {3, 5},
     flapping,
     NULL,
     SIM_STAT_PLAYED_FLAPPING},
    {{"slow-follower", "a follower falls behind the log again and again"},
     {3, 3},
     topology_slow_follower,
     topology_slow_follower_draw,
     SIM_STAT_PLAYED_SLOW_FOLLOWER},
    {{"change-orders", "a node is added, one removed and one cut off, in each of the 6 orders"},
     {3, 3},
     topology_orders,
     topology_members_draw,
     SIM_STAT_PLAYED_ORDERS},
    {{"resize", "1 node, 3, 5, 3, 1, under load"},
     {1, 1},
     topology_resize,
     topology_members_draw,
     SIM_STAT_PLAYED_RESIZE},
    {{"primaries", "each leader in turn is cut off alone, while a majority is left"},
     {3, 5},
     primaries,
     NULL,
     SIM_STAT_PLAYED_PRIMARIES},
    {{"isolated", "a node is alone for 1,000 election timeouts, then comes back"},
     {3, 5},
     isolated,
     NULL,
     SIM_STAT_PLAYED_ISOLATED},
};

const struct sim_topology *sim_topology_at(unsigned i) {
    return i < ARRAY_LEN(entries) ? &entries[i].topology : NULL;
}

unsigned sim_topology_find(const char *name) {
    for (unsigned i = 0; i < ARRAY_LEN(entries); i++)
        if (strcmp(entries[i].topology.name, name) == 0)
            return i + 1;
    return 0;
}

void topology_draw(struct world *w) {
    const struct entry *e;

    w->topology = w->o.topology;
    if (w->topology == 0 && w->o.nodes == 0 && rng_chance(&w->rng, DRAWN_PERMILLE))
        w->topology = (unsigned) rng_range(&w->rng, 1, ARRAY_LEN(entries));
    if (w->topology == 0)
        return;
    ASSERT(w->topology <= ARRAY_LEN(entries));
    e = &entries[w->topology - 1];
    w->nodes_count = w->first_count = e->nodes[rng_below(&w->rng, ARRAY_LEN(e->nodes))];
    w->workers_count = MIN(w->workers_count, w->nodes_count);
    if (e->draw)
        e->draw(w);
}

/* All are there and belong: else what is claimed of them may not be had. */
static bool complete(const struct world *w) {
    for (unsigned i = 0; i < w->nodes_count; i++) {
        const struct sim_node *n = &w->nodes[i];
        const struct raft_config *c = n->up ? raft_config_latest(replica_raft(n->replica)) : NULL;

        if (!c || n->wiped || n->gone || c->joint || c->count != w->nodes_count)
            return false;
    }
    return true;
}

void topology_run(struct world *w) {
    const struct entry *e;

    if (w->topology == 0 || w->failed || w->no_memory)
        return;
    e = &entries[w->topology - 1];
    sim_trace(w, "scenario %s after %llu events", e->topology.name,
              (unsigned long long) w->result->events);
    w->calm = true;
    liveness_end_faults(w);
    if (!complete(w) || !topology_await_leader(w, EVERYBODY, ELECT_TIMEOUTS))
        return;
    topology_wait(w, ELECT_TIMEOUTS);
    if (w->failed || !topology_leader(w))
        return;
    sim_count(w, e->stat);
    e->run(w);
    w->idle = w->busy = false;
}
