/* What goes wrong with disks beyond a power cut and a failed write: no room for a while, errors and
 * short transfers, a disk that hangs, and damage (atlas.h). A menu and a pace of its own, drawn
 * from the seed as in faults.c. Thread: one. */
#include "sim/sim_internal.h"

#include <errno.h>

enum disk_fault { NO_ROOM, READ_ERROR, SHORT_TRANSFERS, HANG, DAMAGE, DISK_FAULTS };

#define WEIGHT_BITS 2
#define WEIGHT_DAMAGE 2 /* more: mostly the cluster cannot bear it */
#define HANG_MAX_NS (20 * NS_PER_S)
#define FULL_MAX_NS (10 * NS_PER_S)

void faults_disk_start(struct world *w) {
    w->disk_menu = rng_next(&w->rng);
    if (rng_chance(&w->rng, 350))
        return; /* disks that know no more than what faults.c has */
    w->disk_interval_ns = rng_range(&w->rng, 100, 3000) * NS_PER_MS;
    sim_push(w, w->disk_interval_ns, SIM_FAULT, 0, SIM_FAULT_DISK, 0, NULL);
}

/* Room for a little more than there is: what is asked for next may still fit, or not even that. */
static void no_room(struct world *w, struct sim_node *n) {
    uint64_t left = rng_chance(&w->rng, 500) ? 0 : rng_below(&w->rng, 32 * 1024);

    sim_count(w, SIM_STAT_DISKS_WITHOUT_ROOM);
    sim_trace(w, "node %u: its disk has room for %llu bytes", n->slot + 1,
              (unsigned long long) left);
    sim_disk_set_full_error(n->disk, rng_chance(&w->rng, 700) ? -ENOSPC : -EDQUOT);
    sim_disk_set_capacity(n->disk, sim_disk_used(n->disk) + left + 1);
    sim_push(w, rng_range(&w->rng, 50 * NS_PER_MS, FULL_MAX_NS), SIM_FAULT, n->slot, SIM_FAULT_ROOM,
             0, NULL);
}

void faults_disk_room(struct sim_node *n) {
    sim_trace(n->world, "node %u: its disk has room again", n->slot + 1);
    sim_disk_set_capacity(n->disk, 0);
}

/* What an operation met and its node does not know yet would be forgotten with the fault. */
static bool knows(const struct sim_node *n) {
    return !n->paused && !n->disk_jobs.ran && !n->bulk_jobs.ran;
}

/* While it runs, or at its next start. */
static void read_error(struct world *w, struct sim_node *n) {
    sim_count(w, SIM_STAT_READ_ERRORS);
    sim_trace(w, "node %u: a read fails soon", n->slot + 1);
    sim_disk_set_fault(n->disk, (struct sim_disk_fault){.op = SIM_DISK_PREAD,
                                                        .nth = rng_range(&w->rng, 1, 12),
                                                        .effect = SIM_DISK_FAIL,
                                                        .err = -EIO});
}

static void short_transfers(struct world *w, struct sim_node *n) {
    sim_count(w, SIM_STAT_SHORT_TRANSFERS);
    sim_trace(w, "node %u: reads and writes do part of what is asked", n->slot + 1);
    sim_disk_set_fault(n->disk, (struct sim_disk_fault){.op = SIM_DISK_ANY,
                                                        .nth = rng_range(&w->rng, 1, 6),
                                                        .repeat = true,
                                                        .effect = SIM_DISK_SHORT});
}

/* W17: nothing comes back from it for seconds, and no error either. */
static void hang(struct world *w, struct sim_node *n) {
    uint64_t until = w->now_ns + rng_range(&w->rng, NS_PER_S, HANG_MAX_NS);

    sim_count(w, SIM_STAT_DISKS_HUNG);
    if (n->up && raft_role(replica_raft(n->replica)) == RAFT_LEADER)
        sim_count(w, SIM_STAT_LEADERS_HUNG);
    sim_trace(w, "node %u: its disk hangs", n->slot + 1);
    sim_jobs_hang(n, &n->disk_jobs, until);
    if (rng_chance(&w->rng, 500))
        sim_jobs_hang(n, &n->bulk_jobs, until);
}

static enum disk_fault draw(struct world *w) {
    unsigned total = 0, weights[DISK_FAULTS];
    uint64_t dice;

    for (unsigned f = 0; f < DISK_FAULTS; f++) {
        weights[f] = (unsigned) (w->disk_menu >> (f * WEIGHT_BITS)) & ((1U << WEIGHT_BITS) - 1);
        weights[f] += f == DAMAGE ? WEIGHT_DAMAGE : 0;
        total += weights[f];
    }
    dice = rng_below(&w->rng, MAX(total, 1U));
    for (unsigned f = 0; f < DISK_FAULTS; f++) {
        if (dice < weights[f])
            return (enum disk_fault) f;
        dice -= weights[f];
    }
    return DAMAGE;
}

/* Rather one that is down: the others have gone on, and bear more. */
static struct sim_node *draw_victim(struct world *w) {
    unsigned from = (unsigned) rng_below(&w->rng, w->nodes_count);

    for (unsigned i = 0; i < w->nodes_count && rng_chance(&w->rng, 800); i++) {
        struct sim_node *n = &w->nodes[(from + i) % w->nodes_count];

        if (!n->up && !n->gone && !n->wiped)
            return n;
    }
    return &w->nodes[from];
}

void faults_disk_next(struct world *w) {
    struct sim_node *n = &w->nodes[rng_below(&w->rng, w->nodes_count)];

    if (sim_faultless(w))
        return;
    switch (draw(w)) {
    case NO_ROOM:
        no_room(w, n);
        break;
    case READ_ERROR:
        if (knows(n))
            read_error(w, n);
        break;
    case SHORT_TRANSFERS:
        if (knows(n))
            short_transfers(w, n);
        break;
    case HANG:
        hang(w, n);
        break;
    case DAMAGE:
    case DISK_FAULTS:
        atlas_strike(w, draw_victim(w));
        break;
    }
    sim_push(w, rng_range(&w->rng, NS_PER_MS, 2 * w->disk_interval_ns), SIM_FAULT, 0,
             SIM_FAULT_DISK, 0, NULL);
}

void faults_disk_heal(struct world *w) {
    for (unsigned i = 0; i < w->nodes_count; i++)
        sim_disk_set_capacity(w->nodes[i].disk, 0);
    atlas_settle(w);
}
