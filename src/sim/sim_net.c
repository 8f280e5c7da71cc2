/* The network of the simulated world: each node keeps one ordinary connection and one for bulk data
 * to every peer it was told of, for what it sends. A connection comes up when both sides accept the
 * other's hello; what is under way when it breaks is lost.
 * Ordinary messages: loss, delay, duplication, and reordering by unequal delays; blocked directions
 * lose all. Bulk messages keep their order, wait in a short queue, and are lost with the connection
 * only. Thread: one. */
#include "sim/sim_internal.h"

#include <string.h>

#define RETRY_MAX_NS (400 * NS_PER_MS)
#define LINK_OF(n, to) (&(n)->world->links[(n)->slot][to])

void sim_net_address(const struct sim_node *n, char ret[SIM_ADDRESS_BYTES]) {
    (void) snprintf(ret, SIM_ADDRESS_BYTES, "node%u:%u", n->slot + 1, n->address + 1);
}

/* ---- connections ----------------------------------------------------------------------------- */

static void try_connect(struct sim_node *n, unsigned to, uint64_t within_ns) {
    struct sim_link *l = LINK_OF(n, to);

    if (l->trying || !l->peer || !n->up)
        return;
    l->trying = true;
    sim_push(n->world, rng_below(&n->world->rng, within_ns), SIM_LINK, n->slot, to, n->life, NULL);
}

void sim_net_break_bulk(struct world *w, unsigned from, unsigned to) {
    struct sim_link *l = &w->links[from][to];

    if (l->bulk_queued > 0)
        sim_count(w, SIM_STAT_BULK_BROKEN);
    l->bulk_gen++;
    l->bulk_queued = 0;
    l->bulk_down_until = w->now_ns + rng_below(&w->rng, RETRY_MAX_NS);
}

/* The connection is gone; the node that had it sees that after @ns. */
static void break_link(struct world *w, unsigned from, unsigned to, uint64_t ns) {
    struct sim_link *l = &w->links[from][to];

    sim_net_break_bulk(w, from, to);
    l->gen++;
    l->up = false;
    if (l->told_up && w->nodes[from].up)
        sim_push(w, ns, SIM_LINK_DOWN, from, to, w->nodes[from].life, NULL);
}

void sim_net_break(struct sim_node *n, unsigned to) {
    break_link(n->world, n->slot, to, 0);
}

void sim_net_died(struct sim_node *n) {
    struct world *w = n->world;

    for (unsigned i = 0; i < w->nodes_count; i++) {
        if (i == n->slot)
            continue;
        break_link(w, n->slot, i, 0);
        break_link(w, i, n->slot, rng_range(&w->rng, 0, 2 * NS_PER_MS));
        w->links[n->slot][i].peer = false;
        w->links[n->slot][i].told_up = false;
        w->links[n->slot][i].trying = false;
    }
}

void sim_net_started(struct sim_node *n) {
    struct world *w = n->world;

    for (unsigned i = 0; i < w->nodes_count; i++)
        if (i != n->slot)
            try_connect(&w->nodes[i], n->slot, 300 * NS_PER_MS);
}

static void tell(struct sim_node *n, unsigned to, bool up) {
    LINK_OF(n, to)->told_up = up;
    replica_on_peer_link(n->replica, to + 1, up);
}

void sim_net_on_down(struct world *w, const struct sim_event *e) {
    struct sim_node *n = &w->nodes[e->a];
    struct sim_link *l = &w->links[e->a][e->b];

    if (!n->up || n->life != e->generation || !l->told_up || l->up)
        return;
    tell(n, e->b, false);
    try_connect(n, e->b, RETRY_MAX_NS);
    sim_node_turn(n);
}

/* What @n says when it connects or is connected to. */
static struct replica_hello hello_of(struct sim_node *n, char address[SIM_ADDRESS_BYTES]) {
    sim_net_address(n, address);
    return (struct replica_hello){
        .node_id = n->slot + 1, .peer_address = address, .client_address = address, .disk = {0}};
}

/* Does @n let @other in? A refusal for good ends the other. */
static bool accepts(struct sim_node *n, struct sim_node *other) {
    struct world *w = n->world;
    char address[SIM_ADDRESS_BYTES];
    struct replica_hello h = hello_of(other, address);
    struct errtext why = {0};
    bool final = false;
    int rc;

    memcpy(h.disk, replica_disk(other->replica), sizeof(h.disk));
    rc = replica_check_hello(n->replica, &h, &final, &why);
    checker_hello(w, n, other, &h, rc, final);
    if (rc == 0)
        return true;
    sim_count(w, final ? SIM_STAT_HELLOS_REFUSED_FINAL : SIM_STAT_HELLOS_REFUSED);
    sim_trace(w, "node %u refuses node %u%s: %s", n->slot + 1, other->slot + 1,
              final ? " for good" : "", why.s);
    if (final)
        replica_on_refused(other->replica, n->slot + 1, why.s);
    return false;
}

/* The address the node was told leads to where the other is. */
static bool finds(const struct sim_link *l, const struct sim_node *to) {
    char address[SIM_ADDRESS_BYTES];

    sim_net_address(to, address);
    return strcmp(l->address, address) == 0 || strcmp(l->other_address, address) == 0;
}

void sim_net_on_connect(struct world *w, const struct sim_event *e) {
    struct sim_node *n = &w->nodes[e->a], *to = &w->nodes[e->b];
    struct sim_link *l = &w->links[e->a][e->b];
    uint64_t life = n->life, to_life = to->life;
    bool ok;

    if (!n->up || n->life != e->generation)
        return;
    l->trying = false;
    if (l->up || !l->peer || !to->up)
        return; /* nobody there: its start will bring the next try */
    if (l->blocked || w->links[e->b][e->a].blocked || !finds(l, to)) {
        try_connect(n, e->b, RETRY_MAX_NS);
        return;
    }
    ok = accepts(to, n);
    ok = accepts(n, to) && ok; /* both hear of the other, whatever comes of it */
    if (ok && l->peer) {
        if (l->told_up)
            tell(n, e->b, false);
        l->up = true;
        tell(n, e->b, true);
    }
    sim_node_turn(to);
    if (n->up && n->life == life)
        sim_node_turn(n);
    if (!ok && n->up && n->life == life && to->life == to_life)
        try_connect(n, e->b, 2 * NS_PER_S);
}

/* ---- ordinary messages ----------------------------------------------------------------------- */

static void net_send(void *ctx, uint64_t to, struct bytes *payload) {
    struct sim_node *n = ctx;
    struct world *w = n->world;
    unsigned slot = (unsigned) to - 1, copies = 1;
    struct sim_link *l = LINK_OF(n, slot);
    uint64_t append = 0;

    ASSERT(slot < SIM_SLOTS_MAX && slot != n->slot);
    if (checker_sent(w, n, bytes_slice(payload)))
        append = ++l->append_sent;
    if (!l->up || l->blocked || rng_chance(&w->rng, w->loss_permille)) {
        bytes_unref(payload);
        return;
    }
    if (rng_chance(&w->rng, w->dup_permille))
        copies = 2;
    for (unsigned i = 0; i < copies; i++) {
        uint64_t ns = rng_range(&w->rng, 50 * NS_PER_US, w->delay_max_ns);
        struct sim_event *e;

        if (rng_chance(&w->rng, w->slow_permille))
            ns += rng_range(&w->rng, 0, w->slow_ns);
        if (w->in_order) {
            l->last_at = MAX(l->last_at + 1, w->now_ns + ns);
            ns = l->last_at - w->now_ns;
        }
        e = sim_push(w, ns, SIM_DELIVER, n->slot, slot, l->gen, bytes_ref(payload));
        if (e)
            e->append = append;
    }
    bytes_unref(payload);
}

void sim_net_on_deliver(struct world *w, struct sim_event *e) {
    struct sim_link *l = &w->links[e->a][e->b];

    if (l->gen != e->generation || l->blocked)
        return;
    if (e->append != 0) {
        if (e->append == l->append_got)
            sim_count(w, SIM_STAT_APPENDS_DOUBLE);
        else if (e->append < l->append_got)
            sim_count(w, SIM_STAT_APPENDS_LATE);
        l->append_got = MAX(l->append_got, e->append);
    }
    sim_node_deliver(&w->nodes[e->b], e->a, e->payload);
}

/* ---- bulk messages --------------------------------------------------------------------------- */

static bool net_send_bulk(void *ctx, uint64_t to, struct bytes *payload) {
    struct sim_node *n = ctx;
    struct world *w = n->world;
    unsigned slot = (unsigned) to - 1;
    struct sim_link *l = LINK_OF(n, slot);
    uint64_t arrives;

    ASSERT(slot < SIM_SLOTS_MAX && slot != n->slot);
    if (!l->up || w->now_ns < l->bulk_down_until || l->bulk_queued >= w->bulk_queue_max) {
        if (l->up && l->bulk_queued >= w->bulk_queue_max)
            sim_count(w, SIM_STAT_BULK_FULL);
        bytes_unref(payload);
        return false;
    }
    (void) checker_sent(w, n, bytes_slice(payload));
    l->bulk_queued++;
    arrives = w->now_ns + rng_range(&w->rng, 50 * NS_PER_US, w->bulk_delay_max_ns);
    l->bulk_at = MAX(l->bulk_at + 1, arrives);
    sim_push(w, l->bulk_at - w->now_ns, SIM_BULK, n->slot, slot, l->bulk_gen, payload);
    return true;
}

void sim_net_on_bulk(struct world *w, struct sim_event *e) {
    struct sim_link *l = &w->links[e->a][e->b];

    if (l->bulk_gen != e->generation)
        return;
    if (l->blocked) { /* a stream that stalls is given up */
        sim_net_break_bulk(w, e->a, e->b);
        return;
    }
    l->bulk_queued--;
    sim_node_deliver(&w->nodes[e->b], e->a, e->payload);
}

/* ---- who the peers are ----------------------------------------------------------------------- */

static int net_set_peer(void *ctx, uint64_t node_id, const char *address,
                        const char *other_address) {
    struct sim_node *n = ctx;
    struct world *w = n->world;
    struct sim_link *l;

    if (node_id == 0 || node_id > SIM_SLOTS_MAX || node_id == n->slot + 1) {
        sim_fail(w, "node %u makes node %llu its peer", n->slot + 1, (unsigned long long) node_id);
        return 0;
    }
    l = LINK_OF(n, node_id - 1);
    l->peer = true;
    (void) snprintf(l->address, sizeof(l->address), "%s", address ? address : "");
    (void) snprintf(l->other_address, sizeof(l->other_address), "%s",
                    other_address ? other_address : "");
    if (!l->up && node_id <= w->nodes_count) {
        l->trying = l->trying && n->up;
        if (!l->trying) { /* while it starts it is not up yet */
            l->trying = true;
            sim_push(w, rng_range(&w->rng, 0, 5 * NS_PER_MS), SIM_LINK, n->slot,
                     (unsigned) node_id - 1, n->life, NULL);
        }
    }
    return 0;
}

static void net_remove_peer(void *ctx, uint64_t node_id) {
    struct sim_node *n = ctx;
    struct world *w = n->world;
    unsigned slot = (unsigned) node_id - 1;
    struct sim_link *l;

    if (node_id == 0 || node_id > w->nodes_count || slot == n->slot)
        return;
    l = LINK_OF(n, slot);
    l->peer = false;
    l->told_up = false;
    break_link(w, n->slot, slot, 0);
    break_link(w, slot, n->slot, rng_range(&w->rng, 0, 2 * NS_PER_MS));
}

void sim_net_env(struct sim_node *n, struct env *env) {
    env->peers = (struct env_peers){.send = net_send,
                                    .send_bulk = net_send_bulk,
                                    .set_peer = net_set_peer,
                                    .remove_peer = net_remove_peer,
                                    .ctx = n};
}
