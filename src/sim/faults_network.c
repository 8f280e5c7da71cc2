/* What goes wrong with the network: partitions of all kinds, links that break, flap or are slow.
 * Thread: one. */
#include "sim/sim_internal.h"

/* R17: PreVote keeps the term of a node that nobody answers. */
static void check_isolated(struct world *w, struct sim_node *n) {
    if (n->isolated_term != 0 && n->up && n->isolated_life == n->life &&
        raft_term(replica_raft(n->replica)) > n->isolated_term + 1)
        sim_fail(w, "node %u was alone and its term grew from %llu to %llu", n->slot + 1,
                 (unsigned long long) n->isolated_term,
                 (unsigned long long) raft_term(replica_raft(n->replica)));
    n->isolated_term = 0;
}

/* Partitions end; links that flap or are slow have their own time, but for the end of all faults.
 */
void faults_heal_network(struct world *w) {
    for (unsigned i = 0; i < w->nodes_count; i++) {
        check_isolated(w, &w->nodes[i]);
        for (unsigned k = 0; k < w->nodes_count; k++) {
            struct sim_link *l = &w->links[i][k];

            l->blocked = false;
            if (!sim_faultless(w))
                continue;
            l->broken = false;
            sim_net_flap_end(l);
            l->slow_until = 0;
        }
    }
}

static void part(struct world *w, enum sim_stat kind) {
    faults_heal_network(w);
    sim_count(w, SIM_STAT_PARTITIONS);
    sim_count(w, kind);
}

void faults_isolate(struct world *w, unsigned a) {
    struct sim_node *n = &w->nodes[a];

    for (unsigned i = 0; i < w->nodes_count; i++)
        w->links[i][a].blocked = w->links[a][i].blocked = i != a;
    if (n->up && w->nodes_count > 1) {
        n->isolated_term = raft_term(replica_raft(n->replica));
        n->isolated_life = n->life;
    }
}

void faults_partition(struct world *w) {
    static const enum sim_stat stats[] = {SIM_STAT_ISOLATIONS, SIM_STAT_PARTITIONS_ONE_WAY,
                                          SIM_STAT_PARTITIONS_PARTIAL, SIM_STAT_PARTITIONS_ONE_WAY};
    uint64_t kind = rng_below(&w->rng, 4);
    unsigned a = (unsigned) rng_below(&w->rng, w->nodes_count);
    unsigned b = (unsigned) rng_below(&w->rng, w->nodes_count);

    part(w, stats[kind]);
    sim_trace(w, "partition kind=%u a=%u b=%u", (unsigned) kind, a + 1, b + 1);
    if (kind == 0) {
        faults_isolate(w, a);
        return;
    }
    for (unsigned i = 0; i < w->nodes_count; i++) {
        for (unsigned k = 0; k < w->nodes_count; k++) {
            if (i == k)
                continue;
            if (kind == 1) /* one direction of one node */
                w->links[i][k].blocked = i == a;
            else if (kind == 2) /* two halves */
                w->links[i][k].blocked = (i <= a) != (k <= a);
            else /* one link, one way */
                w->links[i][k].blocked = i == a && k == b;
        }
    }
}

struct sim_node *faults_leader(struct world *w) {
    unsigned from = (unsigned) rng_below(&w->rng, w->nodes_count);

    for (unsigned i = 0; i < w->nodes_count; i++) {
        struct sim_node *n = &w->nodes[(from + i) % w->nodes_count];

        if (n->up && raft_role(replica_raft(n->replica)) == RAFT_LEADER)
            return n;
    }
    return NULL;
}

/* A leader that nobody hears, that hears nobody, or both: its tail is lost to the next one. */
void faults_cut_leader(struct world *w) {
    const struct sim_node *n = faults_leader(w);
    uint64_t kind = rng_below(&w->rng, 3);

    if (!n)
        return;
    part(w, kind == 0 ? SIM_STAT_ISOLATIONS : SIM_STAT_PARTITIONS_ONE_WAY);
    sim_trace(w, "leader %u is cut off, kind=%u", n->slot + 1, (unsigned) kind);
    if (kind == 0) {
        faults_isolate(w, n->slot);
        return;
    }
    for (unsigned i = 0; i < w->nodes_count; i++) {
        if (i == n->slot)
            continue;
        if (kind == 1)
            w->links[n->slot][i].blocked = true;
        else
            w->links[i][n->slot].blocked = true;
    }
}

/* Each link both ways with its own luck: majorities that share one node, chains, rings. */
void faults_partial_links(struct world *w) {
    part(w, SIM_STAT_PARTITIONS_PARTIAL);
    sim_trace(w, "partial links");
    for (unsigned i = 0; i < w->nodes_count; i++)
        for (unsigned k = 0; k < i; k++)
            w->links[i][k].blocked = w->links[k][i].blocked = rng_chance(&w->rng, 400);
}

/* Two nodes, often the leader and another. False: there are none. */
static bool draw_link(struct world *w, unsigned *a, unsigned *b) {
    const struct sim_node *leader = rng_chance(&w->rng, 500) ? faults_leader(w) : NULL;

    *a = leader ? leader->slot : (unsigned) rng_below(&w->rng, w->nodes_count);
    *b = (unsigned) rng_below(&w->rng, w->nodes_count);
    return *a != *b;
}

void faults_break_link(struct world *w) {
    unsigned a, b;

    if (!draw_link(w, &a, &b) || !w->nodes[a].up)
        return;
    sim_trace(w, "link %u->%u breaks", a + 1, b + 1);
    sim_net_break(&w->nodes[a], b);
}

/* Down and up about once per election timeout, for some of them: the link that is there whenever
 * one looks. One direction, or both out of step. */
void faults_flap_link(struct world *w) {
    uint64_t timeout_ns = w->node_options.raft.election_timeout_max_ns;
    uint64_t half_ns = rng_range(&w->rng, timeout_ns / 4, timeout_ns);
    uint64_t until_ns = w->now_ns + rng_range(&w->rng, 2, 20) * timeout_ns;
    unsigned a, b;

    if (!draw_link(w, &a, &b))
        return;
    sim_count(w, SIM_STAT_LINKS_FLAPPING);
    sim_trace(w, "link %u->%u begins to flap, %llu ms each way", a + 1, b + 1,
              (unsigned long long) (half_ns / NS_PER_MS));
    sim_net_flap(w, a, b, half_ns, until_ns);
    if (rng_chance(&w->rng, 500))
        sim_net_flap(w, b, a, half_ns, until_ns);
}

/* All that goes over it takes its time, large messages more of it. */
void faults_slow_link(struct world *w) {
    unsigned a, b;
    struct sim_link *l;

    if (!draw_link(w, &a, &b))
        return;
    l = &w->links[a][b];
    l->slow_until = w->now_ns + rng_range(&w->rng, 50, 5000) * NS_PER_MS;
    l->slow_extra_ns = rng_below(&w->rng, 200 * NS_PER_MS);
    l->slow_bytes_per_ms = 1ULL << rng_range(&w->rng, 2, 12);
    sim_count(w, SIM_STAT_LINKS_SLOW);
    sim_trace(w, "link %u->%u is slow: %llu bytes per ms, and %llu ms", a + 1, b + 1,
              (unsigned long long) l->slow_bytes_per_ms,
              (unsigned long long) (l->slow_extra_ns / NS_PER_MS));
}
