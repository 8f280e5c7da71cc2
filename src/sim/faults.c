/* What goes wrong, and how often: each seed draws its own menu, so that some worlds know only
 * crashes, some only bad links, some a little of all (swarm testing). Thread: one. */
#include "sim/sim_internal.h"

#include <errno.h>

enum fault {
    FAULT_CRASH,
    FAULT_CRASH_LEADER,
    FAULT_PARTITION,
    FAULT_HEAL,
    FAULT_CUT_LEADER,
    FAULT_PARTIAL_LINKS,
    FAULT_BREAK_LINK,
    FAULT_FLAP_LINK,
    FAULT_SLOW_LINK,
    FAULT_DISK_CRASH,
    FAULT_DISK_ERROR,
    FAULT_DISK_SLOW,
    FAULT_CLOCK,
    FAULT_WORKER_KILL,
    FAULT_WORKER_SILENT,
    FAULT_TRANSFER,
    FAULT_BULK_BREAK,
    FAULT_BULK_SLOW,
    FAULT_STAGE,
    FAULT_DISK_FULL,
    FAULT_PAUSE,
    FAULT_LONG_TAIL,
    FAULTS
};

#define WEIGHT_BITS 2 /* of each fault in world.menu */
#define WEIGHT_HEAL 4

STATIC_ASSERT(FAULTS *WEIGHT_BITS <= 64, "the menu has room for every fault");

/* ---- nodes and disks ------------------------------------------------------------------------- */

void faults_crash(struct world *w, struct sim_node *n, bool power_cut) {
    if (!n->up)
        return;
    sim_node_crash(n, power_cut);
    sim_push(w, rng_range(&w->rng, NS_PER_MS, 3 * NS_PER_S), SIM_NODE_RESTART, n->slot, 0, n->life,
             NULL);
}

static void crash_some(struct world *w) {
    unsigned a = (unsigned) rng_below(&w->rng, w->nodes_count);
    bool all = rng_chance(&w->rng, 60), power = rng_chance(&w->rng, 700);

    /* Rather one that is writing just now. */
    for (unsigned i = 0; i < w->nodes_count && w->nodes[a].disk_jobs.head == NULL; i++)
        a = (a + 1) % w->nodes_count;
    for (unsigned i = 0; i < w->nodes_count; i++)
        if (all || i == a)
            faults_crash(w, &w->nodes[i], power);
}

void faults_crash_leader(struct world *w) {
    struct sim_node *n = faults_leader(w);

    if (n && !sim_faultless(w))
        faults_crash(w, n, rng_chance(&w->rng, 700));
}

/* The power goes in the middle of the disk job that runs next. */
static void arm_disk_crash(struct world *w, struct sim_node *n) {
    sim_trace(w, "node %u: the power will go within its next disk operations", n->slot + 1);
    sim_disk_set_fault(n->disk, (struct sim_disk_fault){.op = SIM_DISK_ANY,
                                                        .nth = rng_range(&w->rng, 1, 12),
                                                        .effect = rng_chance(&w->rng, 500)
                                                                      ? SIM_DISK_CRASH
                                                                      : SIM_DISK_CRASH_MID});
}

/* A write or a sync fails: the node must end at once and acknowledge nothing of it (W3). */
static void arm_disk_error(struct world *w, struct sim_node *n) {
    static const struct sim_disk_fault kinds[] = {
        {.op = SIM_DISK_DATASYNC, .effect = SIM_DISK_FAIL, .err = -5},
        {.op = SIM_DISK_DATASYNC, .effect = SIM_DISK_SYNC_LIES, .err = -5},
        {.op = SIM_DISK_DATASYNC, .effect = SIM_DISK_SYNC_DROPS, .err = -5},
        {.op = SIM_DISK_PWRITE, .effect = SIM_DISK_FAIL, .err = -5},
        {.op = SIM_DISK_PWRITE, .effect = SIM_DISK_FAIL, .err = -28},
    };
    struct sim_disk_fault f = kinds[rng_below(&w->rng, ARRAY_LEN(kinds))];

    f.nth = rng_range(&w->rng, 1, 6);
    sim_trace(w, "node %u: disk operation %d fails soon with %d", n->slot + 1, (int) f.op, f.err);
    sim_disk_set_fault(n->disk, f);
}

/* The power goes in the middle of an install or a flush, or the stage finds no room. */
static void arm_stage_fault(struct world *w, struct sim_node *n) {
    bool full = rng_chance(&w->rng, 300), at_switch = !full && rng_chance(&w->rng, 600);

    for (unsigned i = 0; i < w->nodes_count; i++) /* rather one that is being sent a state */
        if (w->nodes[i].up && w->nodes[i].receiving != 0)
            n = &w->nodes[i];
    sim_trace(w, "node %u: its state store %s soon", n->slot + 1,
              full        ? "is full"
              : at_switch ? "dies at its switch"
                          : "dies");
    sim_kv_set_fault(n->kv, at_switch ? rng_range(&w->rng, 1, 2) : rng_range(&w->rng, 1, 5),
                     full ? -ENOSPC : ERR_CRASHED, at_switch);
}

static void break_bulk(struct world *w) {
    unsigned a = (unsigned) rng_below(&w->rng, w->nodes_count);
    unsigned b = (unsigned) rng_below(&w->rng, w->nodes_count);

    for (unsigned i = 0; i < w->nodes_count; i++) /* rather one that is busy */
        for (unsigned k = 0; k < w->nodes_count; k++)
            if (w->links[i][k].bulk_queued > 0) {
                a = i;
                b = k;
            }
    if (a != b)
        sim_net_break_bulk(w, a, b);
}

/* ---- the menu -------------------------------------------------------------------------------- */

void faults_prefer_clocks(struct world *w) {
    w->menu |= ((1ULL << WEIGHT_BITS) - 1) << (FAULT_CLOCK * WEIGHT_BITS);
}

void faults_draw(struct world *w, bool swarm) {
    static const unsigned short_ms[] = {20, 60, 200};

    w->menu = rng_next(&w->rng);
    w->fault_interval_ns = rng_range(
        &w->rng, (swarm ? 20 : 100) * NS_PER_MS,
        rng_chance(&w->rng, 300) ? 3 * NS_PER_S : short_ms[rng_below(&w->rng, 3)] * 10 * NS_PER_MS);
}

static unsigned weight(const struct world *w, enum fault f) {
    unsigned drawn = (unsigned) (w->menu >> (f * WEIGHT_BITS)) & ((1U << WEIGHT_BITS) - 1);

    if (f == FAULT_LONG_TAIL) /* few of them come to their end */
        return 4 * drawn;
    return f == FAULT_HEAL ? WEIGHT_HEAL + drawn : drawn;
}

static enum fault draw_fault(struct world *w) {
    unsigned total = 0;
    uint64_t dice;

    for (unsigned f = 0; f < FAULTS; f++)
        total += weight(w, (enum fault) f);
    dice = rng_below(&w->rng, total);
    for (unsigned f = 0; f < FAULTS; f++) {
        if (dice < weight(w, (enum fault) f))
            return (enum fault) f;
        dice -= weight(w, (enum fault) f);
    }
    return FAULT_HEAL;
}

/* Often until about when its lease ends: then its reports race with its loss. Sometimes the leader
 * cannot write just then, so that the outcome of the loss is unknown for a while. */
static void silence_worker(struct world *w, struct sim_worker *wk) {
    uint64_t ns = rng_chance(&w->rng, 700)
                      ? rng_range(&w->rng, w->lease_ns - w->beat_ns, w->lease_ns)
                      : rng_range(&w->rng, 100 * NS_PER_MS, 3 * w->lease_ns);
    struct sim_node *n = faults_leader(w);

    wk->silent_until = w->now_ns + ns;
    wk->stopped = true;
    sim_trace(w, "worker %s: stopped for a while", wk->id);
    if (n && w->lease_ns < 2 * NS_PER_S && w->commit_timeout_ns < 2 * NS_PER_S &&
        rng_chance(&w->rng, 200)) {
        wk->silent_until = w->now_ns + w->lease_ns + 2 * w->commit_timeout_ns;
        n->disk_jobs.slow_until = wk->silent_until - rng_below(&w->rng, w->commit_timeout_ns);
    }
}

static void hand_over(struct world *w) {
    struct sim_node *n = faults_leader(w);

    if (!n)
        return;
    sim_trace(w, "node %u: hand over leadership", n->slot + 1);
    replica_transfer_leadership(
        n->replica, rng_chance(&w->rng, 500) ? 0 : 1 + rng_below(&w->rng, w->nodes_count));
    sim_node_turn(n);
}

/* Does it end the partition that there is? */
static bool parts(enum fault f) {
    return f == FAULT_PARTITION || f == FAULT_HEAL || f == FAULT_CUT_LEADER ||
           f == FAULT_PARTIAL_LINKS || f == FAULT_LONG_TAIL;
}

static void strike(struct world *w, enum fault f) {
    struct sim_node *n = &w->nodes[rng_below(&w->rng, w->nodes_count)];
    struct sim_worker *wk = &w->workers[rng_below(&w->rng, w->workers_count)];

    if (parts(f) && w->now_ns < w->tail_until)
        return;
    switch (f) {
    case FAULT_CRASH:
        crash_some(w);
        break;
    case FAULT_CRASH_LEADER:
        faults_crash_leader(w);
        break;
    case FAULT_PARTITION:
        faults_partition(w);
        break;
    case FAULT_HEAL:
    case FAULTS:
        sim_trace(w, "partitions end");
        faults_heal_network(w);
        break;
    case FAULT_CUT_LEADER:
        faults_cut_leader(w);
        break;
    case FAULT_PARTIAL_LINKS:
        faults_partial_links(w);
        break;
    case FAULT_BREAK_LINK:
        faults_break_link(w);
        break;
    case FAULT_FLAP_LINK:
        faults_flap_link(w);
        break;
    case FAULT_SLOW_LINK:
        faults_slow_link(w);
        break;
    case FAULT_DISK_CRASH:
        if (n->up && !sim_disk_fault_hit(n->disk)) /* one that it does not yet know of */
            arm_disk_crash(w, n);
        break;
    case FAULT_DISK_ERROR:
        if (n->up && !sim_disk_fault_hit(n->disk))
            arm_disk_error(w, n);
        break;
    case FAULT_DISK_SLOW:
        if (rng_chance(&w->rng, 400) && faults_leader(w))
            n = faults_leader(w);
        n->disk_jobs.slow_until = w->now_ns + rng_range(&w->rng, NS_PER_MS, 2 * NS_PER_S);
        sim_trace(w, "node %u: its log's disk is slow", n->slot + 1);
        break;
    case FAULT_BULK_BREAK:
        break_bulk(w);
        break;
    case FAULT_BULK_SLOW:
        n->bulk_jobs.slow_until = w->now_ns + rng_range(&w->rng, NS_PER_MS, 2 * NS_PER_S);
        sim_trace(w, "node %u: its state's disk is slow", n->slot + 1);
        break;
    case FAULT_STAGE:
        if (n->up)
            arm_stage_fault(w, n);
        break;
    case FAULT_DISK_FULL:
        sim_count(w, SIM_STAT_DISKS_FULL);
        sim_trace(w, "node %u: its disk is nearly full, or no more", n->slot + 1);
        sim_disk_set_free(n->disk, rng_chance(&w->rng, 500) ? UINT64_MAX : 4096);
        break;
    case FAULT_LONG_TAIL:
        faults_long_tail(w);
        break;
    case FAULT_PAUSE:
        faults_pause(w);
        break;
    case FAULT_CLOCK:
        sim_clock_fault(n);
        break;
    case FAULT_WORKER_KILL:
        sim_worker_kill(wk);
        break;
    case FAULT_WORKER_SILENT:
        silence_worker(w, wk);
        break;
    case FAULT_TRANSFER:
        hand_over(w);
        break;
    }
}

void faults_next(struct world *w) {
    if (sim_faultless(w))
        return;
    strike(w, draw_fault(w));
    sim_push(w, rng_range(&w->rng, NS_PER_MS, 2 * w->fault_interval_ns), SIM_FAULT, 0, 0, 0, NULL);
}
