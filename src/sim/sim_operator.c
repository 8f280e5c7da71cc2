/* The operator of the simulated cluster: adds, removes, promotes, demotes and replaces nodes,
 * drains them, erases disks, moves leadership, and asks for what must be refused. It takes care of
 * one thing only: not to erase or remove more than the cluster can bear. Thread: one. */
#include "sim/checker_model.h"

#include "fsm/command.h"

#include <stdlib.h>
#include <string.h>

#define MEMBERS_MAX 9
#define WITHIN_NS (20 * NS_PER_S)
#define ANSWER_SLACK_NS NS_PER_MS
#define UNDRAIN_EVERY_NS (200 * NS_PER_MS)
#define CODE_DEADLINE 4
#define CODE_UNAVAILABLE 14

/* A request that is not answered yet. */
struct sim_change {
    struct world *world;
    struct replica_change change;
    char address[SIM_ADDRESS_BYTES];
    uint8_t disk[16];
    unsigned node; /* asked */
    bool transfer;
    bool must_fail; /* whatever the state is */
    uint64_t answer_by;
    struct mono deadline; /* the same by its node's clock */
    uint64_t paused_ns;   /* of its node when it was asked */
};

static const char *const kinds[] = {"add", "remove", "promote", "demote", "replace"};

/* ---- what the cluster can bear --------------------------------------------------------------- */

static bool erased(const struct world *w, uint64_t id) {
    return id > w->nodes_count || w->nodes[id - 1].wiped || w->nodes[id - 1].gone;
}

/* The voters of @c that are not erased, but for @without, are still a majority of those left. */
static bool bears(const struct world *w, const struct raft_config *c, uint64_t without,
                  bool leaves) {
    unsigned all = 0, good = 0;

    for (size_t i = 0; i < c->count; i++) {
        const struct raft_member *m = &c->members[i];

        if (!(m->flags & (RAFT_MEMBER_VOTER | RAFT_MEMBER_VOTER_OLD)) ||
            (leaves && m->id == without))
            continue;
        all++;
        /* A damaged disk may turn out to be lost. */
        good += !erased(w, m->id) && !w->nodes[m->id - 1].atlas.harmed && m->id != without;
    }
    return all > 0 && good > all / 2;
}

bool sim_operator_quorum_lost(const struct world *w) {
    uint64_t good = 0;

    for (uint64_t id = 1; id <= w->nodes_count; id++)
        if (!erased(w, id))
            good |= 1ULL << id;
    if (w->checker.committed_config && !checker_quorum(w->checker.committed_config, good))
        return true; /* perhaps nobody is left who goes by it */
    for (unsigned i = 0; i < w->nodes_count; i++) {
        const struct sim_node *n = &w->nodes[i];

        if (n->up && !n->wiped && raft_config_latest(replica_raft(n->replica))->count > 0 &&
            !checker_quorum(raft_config_latest(replica_raft(n->replica)), good))
            return true;
    }
    return false;
}

/* ---- requests -------------------------------------------------------------------------------- */

static struct sim_node *any_member(struct world *w) {
    unsigned from = (unsigned) rng_below(&w->rng, w->nodes_count);

    for (unsigned i = 0; i < w->nodes_count; i++) {
        struct sim_node *n = &w->nodes[(from + i) % w->nodes_count];

        /* At the end only one that still belongs: another would never hear of the outcome. */
        if (n->up && n->joined && !n->wiped && (!w->healing || sim_world_counts(w, n)))
            return n;
    }
    return NULL;
}

static void change_done(void *arg, uint32_t code, const char *message, uint64_t index,
                        bool changed) {
    struct sim_change *c = arg;
    struct world *w = c->world;
    uint64_t id = c->change.id, new_id = c->change.new_id;

    sim_trace(w, "operator: %s %llu: code %u changed=%d index=%llu %s",
              c->transfer ? "transfer" : kinds[c->change.kind], (unsigned long long) id, code,
              (int) changed, (unsigned long long) index, message ? message : "");
    if (w->now_ns > c->answer_by + ANSWER_SLACK_NS + sim_clock_slack(w, WITHIN_NS) +
                        faults_paused_ns(&w->nodes[c->node]) - c->paused_ns)
        sim_fail(w, "node %u: a change was answered %llu us after its deadline", c->node + 1,
                 (unsigned long long) ((w->now_ns - c->answer_by) / NS_PER_US));
    if (code == 0 && c->must_fail)
        sim_fail(w, "node %u agrees to %s %llu, which cannot be", c->node + 1,
                 kinds[c->change.kind], (unsigned long long) id);
    w->ops_pending--;
    w->changes_pending--;
    if (code == CODE_DEADLINE || code == CODE_UNAVAILABLE)
        sim_count(w, SIM_STAT_CHANGES_UNKNOWN);
    else
        sim_count(w, code == 0 ? SIM_STAT_CHANGES_DONE : SIM_STAT_CHANGES_REFUSED);
    if (code == 0 && !c->transfer) {
        w->checker.acked_index = MAX(w->checker.acked_index, index);
        if (c->change.kind == REPLICA_CHANGE_ADD)
            w->checker.ids_told_added |= 1ULL << id;
        if (c->change.kind == REPLICA_CHANGE_REPLACE)
            w->checker.ids_told_added |= 1ULL << new_id;
        if (c->change.kind == REPLICA_CHANGE_REMOVE)
            w->checker.ids_told_removed |= 1ULL << id;
    }
    free(c);
}

static struct sim_change *request(struct world *w, const struct sim_node *n) {
    struct sim_change *c = calloc(1, sizeof(*c));
    uint64_t within =
        rng_chance(&w->rng, 500) ? WITHIN_NS : rng_range(&w->rng, NS_PER_MS, NS_PER_S);

    ASSERT(c);
    c->world = w;
    c->node = n->slot;
    c->answer_by = w->now_ns + within;
    c->deadline = mono_add_ns(sim_clock_mono(n), within);
    c->paused_ns = faults_paused_ns(n);
    w->ops_pending++;
    w->changes_pending++;
    sim_count(w, SIM_STAT_CHANGES_ASKED);
    return c;
}

static void ask(struct sim_change *c) {
    struct world *w = c->world;
    struct sim_node *n = &w->nodes[c->node];

    sim_trace(w, "operator: asks node %u to %s %llu %llu at %s", n->slot + 1, kinds[c->change.kind],
              (unsigned long long) c->change.id, (unsigned long long) c->change.new_id, c->address);
    if (c->change.kind == REPLICA_CHANGE_REMOVE || c->change.kind == REPLICA_CHANGE_REPLACE)
        w->checker.ids_asked_to_leave |= 1ULL << (c->change.id & 63);
    if (c->change.kind == REPLICA_CHANGE_ADD || c->change.kind == REPLICA_CHANGE_PROMOTE)
        w->ids_may_come |= 1ULL << (c->change.id & 63);
    else
        w->ids_may_leave |= 1ULL << (c->change.id & 63);
    w->ids_may_come |= c->change.new_id ? 1ULL << (c->change.new_id & 63) : 0;
    c->change.peer_address = c->change.client_address = c->address;
    if (replica_change_membership(n->replica, &c->change, c->deadline, change_done, c) < 0)
        w->no_memory = true;
    sim_node_turn(n);
}

struct sim_node *sim_operator_new_node(struct world *w) {
    struct sim_node *n;

    if (w->nodes_count == SIM_SLOTS_MAX - 1)
        return NULL;
    if (!sim_node_make(w, w->nodes_count))
        return NULL;
    n = &w->nodes[w->nodes_count++];
    n->fresh = true;
    for (unsigned i = 0; i < n->slot; i++) /* who is cut off from all is so from it too */
        if (w->nodes[i].isolated_term != 0)
            w->links[i][n->slot].blocked = w->links[n->slot][i].blocked = true;
    return sim_node_start(n) ? n : NULL;
}

static void describe(struct sim_change *c, const struct sim_node *fresh) {
    sim_net_address(fresh, c->address);
    if (fresh->up && rng_chance(&c->world->rng, 500)) {
        memcpy(c->disk, replica_disk(fresh->replica), sizeof(c->disk));
        c->change.disk = c->disk;
    }
}

static void add(struct world *w, struct sim_node *n) {
    struct sim_node *fresh = sim_operator_new_node(w);
    struct sim_change *c;

    if (!fresh || !n->up)
        return;
    c = request(w, n);
    c->change = (struct replica_change){.kind = REPLICA_CHANGE_ADD,
                                        .id = fresh->slot + 1,
                                        .stay_learner = rng_chance(&w->rng, 200)};
    describe(c, fresh);
    ask(c);
}

void sim_operator_ask(struct world *w, const struct sim_node *n, enum replica_change_kind kind,
                      uint64_t id, uint64_t within_ns) {
    struct sim_change *c = request(w, n);

    c->answer_by = w->now_ns + within_ns;
    c->deadline = mono_add_ns(sim_clock_mono(n), within_ns);
    c->change = (struct replica_change){.kind = kind, .id = id};
    if (kind == REPLICA_CHANGE_ADD && id <= w->nodes_count)
        describe(c, &w->nodes[id - 1]);
    ask(c);
}

static void replace(struct world *w, struct sim_node *n, uint64_t old) {
    struct sim_node *fresh = sim_operator_new_node(w);
    struct sim_change *c;

    if (!fresh || !n->up)
        return;
    c = request(w, n);
    c->change = (struct replica_change){
        .kind = REPLICA_CHANGE_REPLACE, .id = old, .new_id = fresh->slot + 1};
    describe(c, fresh);
    ask(c);
}

static void simple(struct world *w, struct sim_node *n, enum replica_change_kind kind,
                   uint64_t id) {
    struct sim_change *c = request(w, n);

    c->change = (struct replica_change){.kind = kind, .id = id};
    ask(c);
}

/* What must be refused in words, changing nothing. */
static void bad_request(struct world *w, struct sim_node *n) {
    struct sim_change *c = request(w, n);
    uint64_t removed = 0;

    for (uint64_t id = 1; id <= w->nodes_count; id++)
        if (w->checker.ids_removed >> id & 1)
            removed = id;
    c->must_fail = true;
    (void) snprintf(c->address, sizeof(c->address), "node63:1");
    c->change.id = rng_chance(&w->rng, 500) ? 0 : 63;
    c->change.kind = REPLICA_CHANGE_PROMOTE;
    switch (rng_below(&w->rng, 5)) {
    case 0:
        c->change.kind = REPLICA_CHANGE_REMOVE;
        break;
    case 1: /* an id is used once */
        if (removed) {
            c->change.kind = REPLICA_CHANGE_ADD;
            c->change.id = removed;
        }
        break;
    case 2: /* nobody to replace */
        c->change.kind = REPLICA_CHANGE_REPLACE;
        c->change.id = 63;
        c->change.new_id = 62;
        break;
    case 3: /* a name that is taken by one who is gone */
        if (removed) {
            c->change.kind = REPLICA_CHANGE_REPLACE;
            c->change.id = n->slot + 1;
            c->change.new_id = removed;
        }
        break;
    default:
        c->change.kind = REPLICA_CHANGE_DEMOTE;
        break;
    }
    ask(c);
}

static void transfer(struct world *w, struct sim_node *n) {
    struct sim_change *c = request(w, n);
    uint64_t to = rng_below(&w->rng, w->nodes_count + 1);

    c->transfer = true;
    c->change.id = to;
    if (replica_request_transfer(n->replica, to, c->deadline, change_done, c) < 0)
        w->no_memory = true;
    sim_node_turn(n);
}

/* ---- drains ---------------------------------------------------------------------------------- */

static void drain_done(void *arg, const struct replica_proposed *res) {
    struct world *w = arg;

    w->ops_pending--;
    if (res->status != REPLICA_OK)
        return;
    sim_count(w, SIM_STAT_DRAINS);
    checker_model_answered(w, res);
}

static void drain(struct world *w, struct sim_node *n, uint64_t node_id, const char *worker,
                  bool on) {
    Chronos__Internal__V1__LogCommand cmd = CHRONOS__INTERNAL__V1__LOG_COMMAND__INIT;
    Chronos__Internal__V1__Drain body = CHRONOS__INTERNAL__V1__DRAIN__INIT;
    struct bytes *command = NULL;

    body.node_id = node_id;
    body.worker_id = (char *) (uintptr_t) worker; /* packing reads only */
    body.on = on;
    body.timeout_ms = (int64_t) rng_range(&w->rng, 10, 3000);
    cmd.body_case = CHRONOS__INTERNAL__V1__LOG_COMMAND__BODY_DRAIN;
    cmd.drain = &body;
    if (command_encode(&cmd, &command) < 0) {
        w->no_memory = true;
        return;
    }
    w->ops_pending++;
    if (replica_propose(n->replica, command, 0, MONO_NEVER, drain_done, w) != 0)
        w->ops_pending--;
    sim_node_turn(n);
}

/* At the end all drains are lifted, or the jobs would wait for ever. */
static void undrain(struct world *w) {
    struct sim_node *n = any_member(w);
    const struct fsm_node *k;
    const struct fsm_worker *wk;
    char id[FSM_WORKER_ID_BYTES_MAX + 1];

    if (!n || w->changes_pending > 0)
        return;
    for (k = fsm_node_first(replica_fsm(n->replica)); k; k = k->next)
        if (k->draining) {
            drain(w, n, k->id, "", false);
            return;
        }
    for (wk = fsm_worker_first(replica_fsm(n->replica)); wk; wk = wk->next)
        if (wk->draining && wk->drain_until_ms != 0) {
            (void) snprintf(id, sizeof(id), "%s", wk->id);
            drain(w, n, 0, id, false);
            return;
        }
}

/* ---- disks and addresses --------------------------------------------------------------------- */

/* Somebody erases the disk of a node and starts it again under its old id (W15). */
static void wipe(struct world *w, const struct raft_config *c, struct sim_node *n) {
    const struct sim_node *judge = any_member(w);
    const struct fsm_node *known;

    if (!judge || n->wiped || n->gone || !n->joined || !bears(w, c, n->slot + 1, false) ||
        w->changes_pending > 0)
        return;
    known = fsm_node_find(replica_fsm(judge->replica), n->slot + 1);
    if (!known || !known->bound) /* nobody has heard of its disk: nobody can miss it */
        return;
    sim_trace(w, "node %u: its disk is erased", n->slot + 1);
    if (n->up)
        sim_node_crash(n, false);
    sim_count(w, SIM_STAT_NODES_WIPED);
    n->disk = sim_disk_free(n->disk);
    n->kv = sim_kv_free(n->kv);
    n->wiped = true;
    atlas_free(n);
    n->atlas = (struct atlas_node){0};
    n->life++;
    if (sim_node_make(w, n->slot))
        (void) sim_node_start(n);
}

/* One node has heard of nothing so far; now another one's disk is erased and the leader dies. What
 * was committed must not be decided anew by the two. */
static void wipe_early(struct world *w, const struct raft_config *c) {
    unsigned first = (unsigned) rng_below(&w->rng, w->first_count);

    for (unsigned i = 0; i < w->first_count; i++) {
        struct sim_node *n = &w->nodes[(first + i) % w->first_count];

        if (n->slot == w->late_node || !n->up || n->acked_index == 0 ||
            raft_role(replica_raft(n->replica)) == RAFT_LEADER)
            continue;
        wipe(w, c, n);
        break;
    }
    faults_heal_network(w);
    faults_crash_leader(w);
}

/* A node is stopped and started again elsewhere. */
static void move(struct world *w) {
    struct sim_node *n = &w->nodes[rng_below(&w->rng, w->nodes_count)];

    if (n->gone || n->wiped || !n->up)
        return;
    sim_node_crash(n, false);
    n->address++;
    sim_count(w, SIM_STAT_NODES_MOVED);
    sim_push(w, rng_below(&w->rng, 200 * NS_PER_MS), SIM_NODE_RESTART, n->slot, 0, n->life, NULL);
}

/* ---- what it does next ----------------------------------------------------------------------- */

static uint64_t draw_member(struct world *w, const struct raft_config *c, uint32_t flags) {
    size_t from = rng_below(&w->rng, c->count);

    for (size_t i = 0; i < c->count; i++) {
        const struct raft_member *m = &c->members[(from + i) % c->count];

        if (flags == 0 || (m->flags & flags))
            return m->id;
    }
    return 0;
}

static uint64_t erased_member(const struct world *w, const struct raft_config *c) {
    for (size_t i = 0; i < c->count; i++)
        if (erased(w, c->members[i].id))
            return c->members[i].id;
    return 0;
}

static void change_members(struct world *w, struct sim_node *n, const struct raft_config *c) {
    uint64_t dice = rng_below(&w->rng, 100), id = erased_member(w, c);

    if (id != 0) { /* first things first */
        if (dice < 50 || !bears(w, c, id, true))
            replace(w, n, id);
        else
            simple(w, n, REPLICA_CHANGE_REMOVE, id);
    } else if (dice < 35 && c->count < MEMBERS_MAX) {
        add(w, n);
    } else if (dice < 65) {
        id = draw_member(w, c, 0);
        if (bears(w, c, id, true))
            simple(w, n, REPLICA_CHANGE_REMOVE, id);
    } else if (dice < 80) {
        replace(w, n, draw_member(w, c, 0));
    } else if (dice < 90) {
        id = draw_member(w, c, RAFT_MEMBER_VOTER);
        if (id != 0 && bears(w, c, id, true))
            simple(w, n, REPLICA_CHANGE_DEMOTE, id);
    } else {
        id = draw_member(w, c, RAFT_MEMBER_LEARNER);
        if (id != 0)
            simple(w, n, REPLICA_CHANGE_PROMOTE, id);
    }
}

static void act(struct world *w) {
    const struct raft_config *now = checker_config(w);
    struct raft_config c;
    struct sim_node *n = any_member(w);
    uint64_t dice = rng_below(&w->rng, 100);

    if (!now || !n)
        return;
    c = *now; /* it changes under the requests */
    if (w->wipes_early) {
        w->wipes_early = false;
        wipe_early(w, &c);
        return;
    }
    if (dice < 55)
        change_members(w, n, &c);
    else if (dice < 63)
        bad_request(w, n);
    else if (dice < 70)
        transfer(w, n);
    else if (dice < 78)
        drain(w, n, draw_member(w, &c, 0), "", rng_chance(&w->rng, 600));
    else if (dice < 84)
        drain(w, n, 0, w->workers[rng_below(&w->rng, w->workers_count)].id,
              rng_chance(&w->rng, 600));
    else if (dice < 92)
        move(w);
    else
        wipe(w, &c, &w->nodes[rng_below(&w->rng, w->nodes_count)]);
}

void sim_operator_start(struct world *w) {
    if (w->topology != 0)
        return; /* who belongs is the scenario's to say */
    w->operator_gap_ns = rng_chance(&w->rng, 400) ? 0 : rng_range(&w->rng, 50, 3000) * NS_PER_MS;
    w->wipes_early = w->operator_gap_ns > 0 && w->first_count >= 3 && rng_chance(&w->rng, 80);
    if (w->wipes_early) {
        w->late_node = (unsigned) rng_below(&w->rng, w->first_count);
        for (unsigned i = 0; i < w->first_count; i++)
            w->links[i][w->late_node].blocked = w->links[w->late_node][i].blocked =
                i != w->late_node;
        sim_push(w, rng_range(&w->rng, 400, 900) * NS_PER_MS, SIM_OPERATOR, 0, 0, 0, NULL);
    } else if (w->operator_gap_ns > 0)
        sim_push(w, w->operator_gap_ns, SIM_OPERATOR, 0, 0, 0, NULL);
}

void sim_operator_act(struct world *w) {
    uint64_t next = rng_range(&w->rng, NS_PER_MS, 2 * w->operator_gap_ns);

    if (w->calm && !w->healing) {
        next = UNDRAIN_EVERY_NS;
    } else if (w->healing) {
        undrain(w);
        next = UNDRAIN_EVERY_NS;
    } else {
        act(w);
    }
    sim_push(w, next, SIM_OPERATOR, 0, 0, 0, NULL);
}
