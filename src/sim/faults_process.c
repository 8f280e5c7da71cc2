/* What goes wrong with processes: crashes right after any event, pauses (SIGSTOP), and programs of
 * two feature levels in one cluster.
 *
 * A paused node hears nothing and none of its timers fires; the kernel keeps its connections, ends
 * the disk operation that is under way, and keeps what arrives for it. All of that is waiting when
 * it goes on, and all its clocks have moved. Calls to it are made all the same: they wait in it.
 * Thread: one. */
#include "sim/sim_internal.h"

#include <stdlib.h>

#define WRITES_BOTH_ONE_IN 16
#define CRASH_WORLDS_PERMILLE 250
#define ROLLING_WORLDS_PERMILLE 250
#define UPGRADE_PERMILLE 600 /* of the starts of an old node */

void faults_process_draw(struct world *w) {
    if (rng_chance(&w->rng, CRASH_WORLDS_PERMILLE))
        w->crash_one_in = rng_range(&w->rng, 100, 3000);
    w->rolling = rng_chance(&w->rng, ROLLING_WORLDS_PERMILLE);
}

/* ---- crashes --------------------------------------------------------------------------------- */

/* Whose doing the event was; NULL: nobody's. */
static struct sim_node *node_of(struct world *w, const struct sim_event *e) {
    switch (e->type) {
    case SIM_NODE_WAKE:
    case SIM_LINK_DOWN:
    case SIM_LINK:
    case SIM_DISK_RUN:
    case SIM_DISK_DONE:
    case SIM_BULK_RUN:
    case SIM_BULK_DONE:
        return &w->nodes[e->a];
    case SIM_DELIVER:
    case SIM_BULK:
    case SIM_FROM_WORKER:
        return &w->nodes[e->b];
    case SIM_NODE_RESTART:
    case SIM_FLAP:
    case SIM_OPERATOR:
    case SIM_CLIENT:
    case SIM_WORKER_WAKE:
    case SIM_TO_WORKER:
    case SIM_FAULT:
    case SIM_NODE_RESUME:
        return NULL;
    }
    return NULL;
}

/* What it sent just now is under way; what it wrote may be lost. */
void faults_after(struct world *w, const struct sim_event *e) {
    struct sim_node *n = node_of(w, e);
    uint64_t one_in = w->crash_one_in;

    if (n && n->up && conformance_writes_both(n))
        one_in = WRITES_BOTH_ONE_IN; /* few events find a node so */
    if (one_in == 0 || sim_faultless(w) || rng_below(&w->rng, one_in) != 0)
        return;
    if (!n || !n->up)
        return;
    sim_count(w, SIM_STAT_CRASHES_AT_ONCE);
    faults_crash(w, n, rng_chance(&w->rng, 700));
}

/* ---- pauses ---------------------------------------------------------------------------------- */

/* The node that would have to be awake for the event; NULL: it happens without one. */
static struct sim_node *hearer(struct world *w, const struct sim_event *e) {
    struct sim_node *n;

    if (e->type == SIM_DISK_RUN || e->type == SIM_BULK_RUN) /* the kernel does it */
        return NULL;
    n = node_of(w, e);
    if (e->type == SIM_LINK && w->nodes[e->b].paused) /* nobody answers its hello */
        return &w->nodes[e->b];
    return n && n->paused ? n : NULL;
}

bool faults_hold(struct world *w, struct sim_event *e) {
    struct sim_node *n = hearer(w, e);

    if (!n)
        return false;
    e->next = NULL;
    if (n->held_last)
        n->held_last->next = e;
    else
        n->held_first = e;
    n->held_last = e;
    return true;
}

static void release(struct sim_node *n) {
    while (n->held_first) {
        struct sim_event *e = n->held_first;

        n->held_first = e->next;
        if (!n->held_first)
            n->held_last = NULL;
        sim_dispatch(n->world, e);
    }
}

/* Its pause is over: it goes on, or it was killed in it. */
static void pause_ends(struct sim_node *n) {
    if (!n->paused)
        return;
    n->paused = false;
    n->paused_ns += n->world->now_ns - n->paused_at;
    n->resumed_at = n->world->now_ns;
}

uint64_t faults_paused_ns(const struct sim_node *n) {
    return n->paused_ns + (n->paused ? n->world->now_ns - n->paused_at : 0);
}

void faults_resume(struct sim_node *n) {
    struct world *w = n->world;

    if (!n->paused)
        return;
    pause_ends(n);
    sim_trace(w, "node %u: goes on after a pause of %llu us", n->slot + 1,
              (unsigned long long) ((w->now_ns - n->paused_at) / NS_PER_US));
    if (n->up && raft_role(replica_raft(n->replica)) == RAFT_LEADER) {
        sim_count(w, SIM_STAT_LEADERS_RESUMED);
        if (faults_leads_beside(w, n))
            sim_count(w, SIM_STAT_LEADERS_RESUMED_LATE);
    }
    if (n->up && rng_chance(&w->rng, 500)) /* its timers first, or what waits in its sockets */
        sim_node_turn(n);
    release(n);
    sim_node_turn(n);
}

void faults_on_resume(struct world *w, const struct sim_event *e) {
    struct sim_node *n = &w->nodes[e->a];

    if (n->paused && n->pauses == e->generation)
        faults_resume(n);
}

/* Another node leads a later term than @n does. */
bool faults_leads_beside(const struct world *w, const struct sim_node *n) {
    for (unsigned i = 0; i < w->nodes_count; i++) {
        const struct sim_node *o = &w->nodes[i];

        if (o != n && o->up && raft_role(replica_raft(o->replica)) == RAFT_LEADER &&
            raft_term(replica_raft(o->replica)) > raft_term(replica_raft(n->replica)))
            return true;
    }
    return false;
}

/* Half of the time the one that leads; up to three times an election timeout or a lease. */
void faults_pause(struct world *w) {
    struct sim_node *n = &w->nodes[rng_below(&w->rng, w->nodes_count)];
    struct sim_node *leader = faults_leader(w);
    uint64_t ns = rng_chance(&w->rng, 600) ? rng_range(&w->rng, 20 * NS_PER_MS, NS_PER_S)
                                           : rng_range(&w->rng, w->lease_ns / 2, 3 * w->lease_ns);

    if (leader && rng_chance(&w->rng, 500))
        n = leader;
    if (!n->up || n->paused)
        return;
    n->paused = true;
    n->paused_at = w->now_ns;
    n->pauses++;
    sim_count(w, SIM_STAT_NODES_PAUSED);
    sim_trace(w, "node %u: paused for %llu us", n->slot + 1, (unsigned long long) (ns / NS_PER_US));
    sim_push(w, ns, SIM_NODE_RESUME, n->slot, 0, n->pauses, NULL);
}

/* The leader is cut off, and clients go on to submit to it: its log is longer than what the others
 * commit meanwhile, so that a snapshot of theirs ends in the midst of it (M48). */
void faults_long_tail(struct world *w) {
    struct sim_node *n = faults_leader(w);

    if (!n || n->paused || w->nodes_count < 3)
        return;
    sim_count(w, SIM_STAT_LONG_TAILS);
    sim_trace(w, "node %u: cut off with a long tail", n->slot + 1);
    faults_heal_network(w);
    faults_isolate(w, n->slot);
    w->tail_until = w->now_ns + rng_range(&w->rng, NS_PER_S / 2, 3 * NS_PER_S);
    sim_client_burst(w, n, (unsigned) rng_range(&w->rng, 10, 200));
}

/* What waited for it goes where everything for a dead node goes. */
void faults_pause_killed(struct sim_node *n) {
    pause_ends(n);
    release(n);
}

/* ---- feature levels -------------------------------------------------------------------------- */

/* Members of the first configuration begin with the older program and are upgraded one by one when
 * they start again. Who comes later has the newer one. */
uint32_t faults_feature_max(struct sim_node *n) {
    struct world *w = n->world;
    uint32_t newest = FSM_FEATURE_LEVEL_MAX + 1;

    if (!w->rolling || n->fresh || n->wiped)
        return n->feature_max = newest;
    if (n->life <= 1) {
        n->feature_max = FSM_FEATURE_LEVEL_MAX;
    } else if (sim_faultless(w) || rng_chance(&w->rng, UPGRADE_PERMILLE)) {
        if (n->feature_max != newest)
            sim_count(w, SIM_STAT_NODES_UPGRADED);
        n->feature_max = newest;
    }
    return n->feature_max;
}
