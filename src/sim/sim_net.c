/* The network of the simulated world: each node keeps one ordinary connection and one for bulk data
 * to every peer it was told of, for what it sends. A connection comes up when both sides accept the
 * other's hello. What is under way when it breaks is lost, or goes on to arrive until the receiver
 * has taken the sender's next connection, as bytes in a socket do (os/peer_accept.c).
 * Ordinary messages: loss, delay, duplication, and reordering by unequal delays; closed directions
 * lose all. Bulk messages keep their order, wait in a short queue, and are lost with the connection
 * only. What becomes of damaged frames is in sim_frame.c. Thread: one. */
#include "sim/sim_internal.h"

#include <string.h>

#define RETRY_MAX_NS (400 * NS_PER_MS)
#define LINGER_PERMILLE 500     /* of connections that break under a receiver that stays */
#define BACKLOG_MAX_NS NS_PER_S /* what waits for a slow link longer than this is dropped */
#define LINK_OF(n, to) (&(n)->world->links[(n)->slot][to])

bool sim_net_closed(const struct sim_link *l) {
    return l->blocked || l->flap_down || l->broken;
}

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

/* The connection is gone; the node that had it sees that after @ns. @lingers: what is under way
 * may still arrive. */
static void break_link(struct world *w, unsigned from, unsigned to, uint64_t ns, bool lingers) {
    struct sim_link *l = &w->links[from][to];

    sim_net_break_bulk(w, from, to);
    if (l->up)
        l->lingering = lingers ? l->gen + 1 : 0;
    else if (!lingers)
        l->lingering = 0;
    l->gen++;
    l->up = false;
    if (l->told_up && w->nodes[from].up)
        sim_push(w, ns, SIM_LINK_DOWN, from, to, w->nodes[from].life, NULL);
}

void sim_net_break(struct sim_node *n, unsigned to) {
    sim_count(n->world, SIM_STAT_LINKS_BROKEN);
    break_link(n->world, n->slot, to, 0, rng_chance(&n->world->rng, LINGER_PERMILLE));
}

void sim_net_closed_by_receiver(struct world *w, unsigned from, unsigned to) {
    break_link(w, from, to, rng_range(&w->rng, 0, 2 * NS_PER_MS), false);
}

void sim_net_died(struct sim_node *n) {
    struct world *w = n->world;

    for (unsigned i = 0; i < w->nodes_count; i++) {
        if (i == n->slot)
            continue;
        break_link(w, n->slot, i, 0, rng_chance(&w->rng, LINGER_PERMILLE));
        break_link(w, i, n->slot, rng_range(&w->rng, 0, 2 * NS_PER_MS), false);
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
    if (sim_net_closed(l) || sim_net_closed(&w->links[e->b][e->a]) || !finds(l, to)) {
        try_connect(n, e->b, RETRY_MAX_NS);
        return;
    }
    ok = accepts(to, n);
    ok = accepts(n, to) && ok; /* both hear of the other, whatever comes of it */
    if (ok && l->peer) {
        if (l->told_up)
            tell(n, e->b, false);
        l->up = true;
        l->lingering = 0; /* a node that connects again replaces its older connection */
        l->last_at = 0;   /* nor does anything on this one wait for what was sent on that */
        tell(n, e->b, true);
    }
    sim_node_turn(to);
    if (n->up && n->life == life)
        sim_node_turn(n);
    if (!ok && n->up && n->life == life && to->life == to_life)
        try_connect(n, e->b, 2 * NS_PER_S);
}

/* ---- ordinary messages ----------------------------------------------------------------------- */

/* How long a message of @bytes takes over a slow link: behind those before it. UINT64_MAX: it finds
 * no room. */
static uint64_t slow_ns(const struct world *w, struct sim_link *l, uint64_t *busy_until,
                        size_t bytes) {
    uint64_t from = MAX(*busy_until, w->now_ns);

    if (w->now_ns >= l->slow_until)
        return 0;
    if (from - w->now_ns > BACKLOG_MAX_NS)
        return UINT64_MAX;
    *busy_until = from + bytes * NS_PER_MS / l->slow_bytes_per_ms;
    return *busy_until - w->now_ns + l->slow_extra_ns;
}

/* When the next message arrives, from now. UINT64_MAX: never. */
static uint64_t draw_delay(struct world *w, struct sim_link *l, size_t bytes) {
    uint64_t ns = rng_range(&w->rng, 50 * NS_PER_US, w->delay_max_ns);
    uint64_t slow = slow_ns(w, l, &l->busy_until, bytes);

    if (slow == UINT64_MAX)
        return UINT64_MAX;
    ns += slow;
    if (rng_chance(&w->rng, w->slow_permille)) {
        sim_count(w, SIM_STAT_MESSAGES_SLOW);
        ns += rng_range(&w->rng, 0, w->slow_ns);
    }
    if (w->in_order) {
        l->last_at = MAX(l->last_at + 1, w->now_ns + ns);
        ns = l->last_at - w->now_ns;
    }
    return ns;
}

static bool lost(struct world *w, const struct sim_link *l) {
    if (!l->up)
        return true;
    if (sim_net_closed(l)) {
        sim_count(w, SIM_STAT_MESSAGES_BLOCKED);
        return true;
    }
    if (!rng_chance(&w->rng, w->loss_permille))
        return false;
    sim_count(w, SIM_STAT_MESSAGES_LOST);
    return true;
}

static void send_copy(struct sim_node *n, unsigned slot, struct bytes *payload, uint64_t append) {
    struct world *w = n->world;
    struct sim_link *l = LINK_OF(n, slot);
    uint64_t ns = draw_delay(w, l, payload->len);
    enum sim_damage damage = SIM_INTACT;
    struct sim_event *e;
    struct bytes *sent;

    if (ns == UINT64_MAX) {
        sim_count(w, SIM_STAT_MESSAGES_LOST);
        return;
    }
    sent = sim_frame_send(w, payload, &damage);
    e = sim_push(w, ns, SIM_DELIVER, n->slot, slot, l->gen, sent);
    if (!e)
        return;
    e->append = append;
    e->damage = damage;
    if (damage == SIM_CUT) /* all before it arrives, and what follows needs a new connection */
        break_link(w, n->slot, slot, rng_below(&w->rng, 2 * NS_PER_MS), true);
}

static void net_send(void *ctx, uint64_t to, struct bytes *payload) {
    struct sim_node *n = ctx;
    struct world *w = n->world;
    unsigned slot = (unsigned) to - 1, copies = 1;
    struct sim_link *l = LINK_OF(n, slot);
    uint64_t append = 0;

    ASSERT(slot < SIM_SLOTS_MAX && slot != n->slot);
    if (checker_sent(w, n, bytes_slice(payload)))
        append = ++l->append_sent;
    if (lost(w, l)) {
        bytes_unref(payload);
        return;
    }
    if (rng_chance(&w->rng, w->dup_permille)) {
        sim_count(w, SIM_STAT_MESSAGES_DOUBLED);
        copies = 2;
    }
    for (unsigned i = 0; i < copies && l->up; i++)
        send_copy(n, slot, payload, append);
    bytes_unref(payload);
}

/* Does the receiver still read the connection that the message came over? */
static bool still_read(struct world *w, const struct sim_link *l, uint64_t gen) {
    if (l->gen == gen)
        return true;
    if (l->lingering == gen + 1) {
        sim_count(w, SIM_STAT_STALE_READ);
        return true;
    }
    if (l->up) /* R18: its session is over */
        sim_count(w, SIM_STAT_STALE_REFUSED);
    return false;
}

void sim_net_on_deliver(struct world *w, struct sim_event *e) {
    struct sim_link *l = &w->links[e->a][e->b];

    if (!still_read(w, l, e->generation) || sim_net_closed(l))
        return;
    if (e->damage != SIM_INTACT) {
        sim_frame_damaged(w, e);
        if (e->damage == SIM_FLIPPED && w->nodes[e->b].up)
            sim_net_closed_by_receiver(w, e->a, e->b);
        return;
    }
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
    uint64_t arrives, slow;
    enum sim_damage damage = SIM_INTACT;
    struct sim_event *e;

    ASSERT(slot < SIM_SLOTS_MAX && slot != n->slot);
    slow = slow_ns(w, l, &l->bulk_at, payload->len);
    if (slow == UINT64_MAX || !l->up || w->now_ns < l->bulk_down_until ||
        l->bulk_queued >= w->bulk_queue_max) {
        if (l->up && l->bulk_queued >= w->bulk_queue_max)
            sim_count(w, SIM_STAT_BULK_FULL);
        bytes_unref(payload);
        return false;
    }
    (void) checker_sent(w, n, bytes_slice(payload));
    l->bulk_queued++;
    arrives = w->now_ns + rng_range(&w->rng, 50 * NS_PER_US, w->bulk_delay_max_ns);
    l->bulk_at = MAX(l->bulk_at + 1, arrives + l->slow_extra_ns * (slow > 0));
    e = sim_push(w, l->bulk_at - w->now_ns, SIM_BULK, n->slot, slot, l->bulk_gen,
                 sim_frame_send(w, payload, &damage));
    if (e)
        e->damage = damage;
    bytes_unref(payload);
    return true;
}

void sim_net_on_bulk(struct world *w, struct sim_event *e) {
    struct sim_link *l = &w->links[e->a][e->b];

    if (l->bulk_gen != e->generation)
        return;
    if (sim_net_closed(l)) { /* a stream that stalls is given up */
        sim_net_break_bulk(w, e->a, e->b);
        return;
    }
    if (e->damage != SIM_INTACT) {
        sim_frame_damaged(w, e);
        sim_net_break_bulk(w, e->a, e->b);
        return;
    }
    l->bulk_queued--;
    sim_node_deliver(&w->nodes[e->b], e->a, e->payload);
}

/* ---- links that flap ------------------------------------------------------------------------- */

void sim_net_flap(struct world *w, unsigned a, unsigned b, uint64_t half_ns, uint64_t until_ns) {
    struct sim_link *l = &w->links[a][b];

    l->flap_half_ns = half_ns;
    l->flap_until = until_ns;
    l->flap_in_step = false;
    sim_push(w, rng_below(&w->rng, half_ns), SIM_FLAP, a, b, ++l->flap_gen, NULL);
}

void sim_net_flap_node(struct world *w, unsigned a, uint64_t half_ns) {
    for (unsigned i = 0; i < w->nodes_count; i++) {
        struct sim_link *both[] = {&w->links[a][i], &w->links[i][a]};

        for (unsigned k = 0; k < ARRAY_LEN(both) && i != a; k++) {
            both[k]->flap_half_ns = half_ns;
            both[k]->flap_until = UINT64_MAX;
            both[k]->flap_in_step = true;
            sim_push(w, half_ns, SIM_FLAP, k == 0 ? a : i, k == 0 ? i : a, ++both[k]->flap_gen,
                     NULL);
        }
    }
}

void sim_net_flap_end(struct sim_link *l) {
    l->flap_gen++;
    l->flap_down = false;
}

void sim_net_on_flap(struct world *w, const struct sim_event *e) {
    struct sim_link *l = &w->links[e->a][e->b];

    if (l->flap_gen != e->generation)
        return;
    if (w->now_ns >= l->flap_until) {
        sim_net_flap_end(l);
        return;
    }
    l->flap_down = !l->flap_down;
    sim_count(w, SIM_STAT_FLAPS);
    if (l->flap_down && w->nodes[e->a].up && rng_chance(&w->rng, 200))
        sim_net_break(&w->nodes[e->a], e->b);
    sim_push(w, l->flap_half_ns * (l->flap_in_step ? 100 : rng_range(&w->rng, 80, 120)) / 100,
             SIM_FLAP, e->a, e->b, e->generation, NULL);
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
    break_link(w, n->slot, slot, 0, rng_chance(&w->rng, LINGER_PERMILLE));
    break_link(w, slot, n->slot, rng_range(&w->rng, 0, 2 * NS_PER_MS), false);
}

void sim_net_env(struct sim_node *n, struct env *env) {
    env->peers = (struct env_peers){.send = net_send,
                                    .send_bulk = net_send_bulk,
                                    .set_peer = net_set_peer,
                                    .remove_peer = net_remove_peer,
                                    .ctx = n};
}
