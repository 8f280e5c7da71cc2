/* Scenarios whose nodes change: one that falls behind the log, some that come and go. */
#include "sim/topology_internal.h"

#define ROUNDS_MAX 4
#define CATCH_UP_TIMEOUTS 100
#define CHANGE_TIMEOUTS 100
#define ASK_TIMEOUTS 7
#define HOLD_TIMEOUTS 30

/* ---- a slow follower ------------------------------------------------------------------------- */

void topology_slow_follower_draw(struct world *w) {
    struct replica_options *o = &w->node_options;

    o->snapshot_interval_ns = rng_range(&w->rng, 10, 100) * NS_PER_MS;
    o->snapshot_entries = rng_range(&w->rng, 2, 8);
    o->snapshot_chunk_bytes = rng_range(&w->rng, 64, 4096);
    o->log_bytes_kept = 0;
    o->wal.segment_bytes = 8 * 1024;
    o->raft.applied_entries_kept = rng_range(&w->rng, 2, 8);
}

/* The log has been released past the end of @n's: it must be sent the state. */
static bool left_behind(const struct sim_node *leader, const struct sim_node *n) {
    return raft_compacted_index(replica_raft(leader->replica)) >
           raft_last_index(replica_raft(n->replica));
}

static void catch_up(struct world *w, const struct sim_node *n, uint64_t index) {
    uint64_t until = w->now_ns + CATCH_UP_TIMEOUTS * TIMEOUT_NS;

    while (sim_world_may_step(w) && w->now_ns < until && replica_applied(n->replica) < index)
        sim_world_step(w);
    if (!w->failed && replica_applied(n->replica) < index)
        sim_fail(w,
                 "slow-follower: node %u has applied %llu of %llu %u timeouts after it came back",
                 n->slot + 1, (unsigned long long) replica_applied(n->replica),
                 (unsigned long long) index, CATCH_UP_TIMEOUTS);
}

void topology_slow_follower(struct world *w) {
    struct sim_node *l = topology_leader(w), *n = topology_other(w, l);
    uint64_t elections = w->result->stats[SIM_STAT_ELECTIONS];
    uint64_t life = n->life;
    unsigned installs = n->installs, needed = 0;

    for (unsigned i = 0; i < ROUNDS_MAX && !w->failed; i++) {
        for (unsigned k = 0; k < w->nodes_count; k++)
            topology_cut(w, n->slot, k, true);
        for (unsigned k = 0; k < 20 && !w->failed && !left_behind(l, n); k++)
            topology_wait(w, 1);
        needed += left_behind(l, n);
        for (unsigned k = 0; k < w->nodes_count; k++)
            topology_cut(w, n->slot, k, false);
        catch_up(w, n, w->checker.committed_count);
    }
    if (w->failed)
        return;
    if (n->life != life || n->installs < installs + needed)
        sim_fail(w, "slow-follower: node %u was behind the log %u times and installed %u states",
                 n->slot + 1, needed, n->installs - installs);
    if (w->result->stats[SIM_STAT_ELECTIONS] != elections)
        sim_fail(w, "slow-follower: another leader because of a follower");
}

/* A state that travels in blocks of 64 bytes while clients make it grow takes longer than any claim
 * allows (seed 5069). */
void topology_members_draw(struct world *w) {
    w->node_options.snapshot_chunk_bytes = 64 * 1024;
    w->client_gap_ns = MAX(w->client_gap_ns, 200 * NS_PER_MS);
}

/* ---- nodes that come and go ------------------------------------------------------------------ */

/* Ask once, whoever leads; the answer may be anything. */
static void ask_once(struct world *w, enum replica_change_kind kind, uint64_t id) {
    struct sim_node *l = topology_leader(w);

    if (l)
        sim_operator_ask(w, l, kind, id, ASK_TIMEOUTS * TIMEOUT_NS);
    topology_wait(w, ASK_TIMEOUTS + 1);
}

static bool is_voter(const struct world *w, uint64_t id) {
    const struct raft_config *c = checker_config(w);
    const struct raft_member *m = c && !c->joint ? raft_config_find(c, id) : NULL;

    return m && m->flags & RAFT_MEMBER_VOTER;
}

static bool is_so(const struct world *w, enum replica_change_kind kind, uint64_t id) {
    const struct raft_config *c = checker_config(w);

    if (kind == REPLICA_CHANGE_ADD)
        return is_voter(w, id);
    return c && !c->joint && !raft_config_find(c, id);
}

/* Ask until it is so. */
static bool change(struct world *w, enum replica_change_kind kind, uint64_t id) {
    uint64_t until = w->now_ns + CHANGE_TIMEOUTS * TIMEOUT_NS;

    while (sim_world_may_step(w) && w->now_ns < until && !is_so(w, kind, id))
        ask_once(w, kind, id);
    if (!w->failed && !is_so(w, kind, id))
        sim_fail(w, "%s: node %llu is not %s after %u election timeouts",
                 sim_topology_at(w->topology - 1)->name, (unsigned long long) id,
                 kind == REPLICA_CHANGE_ADD ? "a voter" : "gone", CHANGE_TIMEOUTS);
    return !w->failed && topology_await_leader(w, EVERYBODY, 20) != NULL;
}

enum deed { DEED_ADD, DEED_REMOVE, DEED_PARTITION, DEEDS };

static void isolate(struct world *w, unsigned a, bool closed) {
    for (unsigned i = 0; i < w->nodes_count; i++)
        if (i != a)
            topology_cut(w, a, i, closed);
}

void topology_orders(struct world *w) {
    static const enum deed orders[][DEEDS] = {
        {DEED_ADD, DEED_REMOVE, DEED_PARTITION}, {DEED_ADD, DEED_PARTITION, DEED_REMOVE},
        {DEED_REMOVE, DEED_ADD, DEED_PARTITION}, {DEED_REMOVE, DEED_PARTITION, DEED_ADD},
        {DEED_PARTITION, DEED_ADD, DEED_REMOVE}, {DEED_PARTITION, DEED_REMOVE, DEED_ADD},
    };
    const enum deed *order = orders[rng_below(&w->rng, ARRAY_LEN(orders))];
    unsigned alone = (unsigned) rng_below(&w->rng, 3);
    uint64_t removed = rng_range(&w->rng, 1, 3), added = w->nodes_count + 1;
    bool parted = false;

    for (unsigned i = 0; i < DEEDS && !w->failed; i++) {
        if (order[i] == DEED_PARTITION) {
            parted = true;
            isolate(w, alone, true);
        } else if (order[i] == DEED_REMOVE) {
            ask_once(w, REPLICA_CHANGE_REMOVE, removed);
        } else if (sim_operator_new_node(w)) {
            if (parted)
                topology_cut(w, alone, w->nodes_count - 1, true);
            ask_once(w, REPLICA_CHANGE_ADD, added);
        }
    }
    isolate(w, alone, false);
    topology_wait(w, 2 * ASK_TIMEOUTS);
    if (!w->failed && change(w, REPLICA_CHANGE_ADD, added) &&
        change(w, REPLICA_CHANGE_REMOVE, removed)) {
        topology_wait(w, 2 * ASK_TIMEOUTS);
        topology_hold(w, HOLD_TIMEOUTS);
    }
}

static bool grow(struct world *w) {
    const struct sim_node *n = sim_operator_new_node(w);

    return n && change(w, REPLICA_CHANGE_ADD, n->slot + 1);
}

/* Anybody, and often the leader. */
static bool shrink(struct world *w) {
    const struct raft_config *c = checker_config(w);
    const struct sim_node *l = topology_leader(w);
    uint64_t id;

    if (!c || !l)
        return false;
    id = rng_chance(&w->rng, 300) ? l->slot + 1 : c->members[rng_below(&w->rng, c->count)].id;
    return change(w, REPLICA_CHANGE_REMOVE, id);
}

void topology_resize(struct world *w) {
    static const bool grows[] = {true, true, true, true, false, false, false, false};
    bool ok = true;

    w->busy = true;
    for (unsigned i = 0; i < ARRAY_LEN(grows) && ok; i++)
        ok = grows[i] ? grow(w) : shrink(w);
    if (!ok && !w->failed)
        sim_fail(w, "resize: a step could not be taken");
    if (ok) {
        topology_wait(w, ASK_TIMEOUTS);
        topology_hold(w, HOLD_TIMEOUTS);
    }
}
