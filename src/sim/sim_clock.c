/* Clocks of nodes, and what goes wrong with them.
 *
 * Wall clocks: steps of milliseconds to minutes, a clock that is set to and fro (strobe), one that
 * runs too fast or too slow. Monotonic clocks: each has its own beginning and its own rate, which
 * changes; they never go back, and no two rates differ by more than what the node's options say of
 * them (lease_drift_ppm; a tenth for leases of workers, J13). And the zone files. */
#include "sim/sim_internal.h"

#include "sched/zones.h"

#include <errno.h>
#include <string.h>

#define DRIFT_PPM_MAX 50000
#define ODD_NS (10 * NS_PER_S) /* longer than a proposal waits */
#define MONO_PPM_MAX 49000     /* to either side: two differ by less than a tenth */
#define LEASE_PPM_MAX 200000
#define PPM 1000000

/* What the options promise of two clocks, halved: one is fast while the other is slow. */
static void draw_mono(struct world *w) {
    struct raft_options *o = &w->node_options.raft;

    if (rng_chance(&w->rng, 500))
        o->lease_drift_ppm = (uint32_t) rng_range(&w->rng, 100, LEASE_PPM_MAX);
    w->mono_ppm_max = rng_chance(&w->rng, 500) ? MONO_PPM_MAX : 50;
    if (o->lease_reads)
        w->mono_ppm_max = MIN(o->lease_drift_ppm / 2, (uint32_t) MONO_PPM_MAX);
}

/* An hour of 2024 in which the clocks of central Europe were set, or one in which not. */
void sim_clock_draw(struct world *w) {
    static const int64_t bases_s[] = {1700000000, 1711846800, 1729990800};
    uint64_t i = rng_below(&w->rng, 2 * ARRAY_LEN(bases_s));

    w->wall_base_ms = bases_s[i % ARRAY_LEN(bases_s)] * 1000;
    if (i % ARRAY_LEN(bases_s) != 0)
        w->wall_base_ms -= (int64_t) rng_below(&w->rng, i < ARRAY_LEN(bases_s) ? 10000 : 300000);
    draw_mono(w);
}

/* ---- monotonic clocks ------------------------------------------------------------------------ */

struct mono sim_clock_mono(const struct sim_node *n) {
    uint64_t d = n->world->now_ns - n->mono_since;
    int64_t more = (int64_t) (d / PPM) * n->mono_ppm + (int64_t) (d % PPM) * n->mono_ppm / PPM;

    return (struct mono){.ns = n->mono_at + d + (uint64_t) more};
}

uint64_t sim_clock_until(const struct sim_node *n, struct mono at) {
    uint64_t now = sim_clock_mono(n).ns, rate = (uint64_t) (PPM + n->mono_ppm), left;

    if (at.ns <= now)
        return 0;
    left = at.ns - now;
    return left / rate * PPM + left % rate * PPM / rate + 2; /* not a nanosecond before */
}

/* ---- workers' clocks: one rate each ------------------------------------------------------------
 */

void sim_clock_worker_boot(struct sim_worker *wk) {
    static const int parts[] = {-1, 1, 0};
    int64_t max = (int64_t) wk->world->mono_ppm_max;

    /* Not drawn, so that a world's other draws stay what they are. */
    wk->mono_ppm = max * parts[(wk->world->o.seed + wk->slot) % ARRAY_LEN(parts)];
}

struct mono sim_clock_worker(const struct sim_worker *wk) {
    uint64_t d = wk->world->now_ns;
    int64_t more = (int64_t) (d / PPM) * wk->mono_ppm + (int64_t) (d % PPM) * wk->mono_ppm / PPM;

    return (struct mono){.ns = NS_PER_S + d + (uint64_t) more};
}

uint64_t sim_clock_worker_until(const struct sim_worker *wk, struct mono at) {
    uint64_t now = sim_clock_worker(wk).ns, rate = (uint64_t) (PPM + wk->mono_ppm), left;

    if (at.ns <= now)
        return 0;
    left = at.ns - now;
    return left / rate * PPM + left % rate * PPM / rate + 2;
}

uint64_t sim_clock_slack(const struct world *w, uint64_t ns) {
    return ns / PPM * (2 * w->mono_ppm_max);
}

/* From here on it runs at another rate. */
static void bend_mono(struct sim_node *n) {
    struct world *w = n->world;
    int64_t max = (int64_t) w->mono_ppm_max;

    n->mono_at = sim_clock_mono(n).ns;
    n->mono_since = w->now_ns;
    n->mono_ppm = (int64_t) rng_range(&w->rng, 0, 2 * (uint64_t) max) - max;
    if (rng_chance(&w->rng, 300)) /* as far apart as can be */
        n->mono_ppm = rng_chance(&w->rng, 500) ? max : -max;
}

void sim_clock_boot(struct sim_node *n) {
    if (n->mono_at == 0)
        n->mono_at = rng_range(&n->world->rng, NS_PER_S, 1000000 * NS_PER_S);
    bend_mono(n);
}

struct wall sim_clock_wall(const struct sim_node *n) {
    uint64_t now = n->world->now_ns;
    int64_t ms = n->world->wall_base_ms + (int64_t) (now / NS_PER_MS) + n->wall_offset_ms;

    if (n->drift_ppm != 0)
        ms += (int64_t) ((now - n->drift_since) / NS_PER_US) * n->drift_ppm / 1000 / 1000000;
    if (now < n->strobe_until && now / n->strobe_period_ns % 2 == 1)
        ms += n->strobe_ms;
    return (struct wall){.ms = ms};
}

/* Of 4 ms, 8, 16 ... 262 s, to either side, against where it is. */
static int64_t draw_step(struct world *w) {
    int64_t ms = rng_chance(&w->rng, 500) ? (int64_t) 4 << rng_below(&w->rng, 16)
                                          : (int64_t) rng_range(&w->rng, 1000, 262000);

    return rng_chance(&w->rng, 500) ? ms : -ms;
}

/* Perhaps: what is planned may be stamped with an earlier instant. */
static void went_back(struct sim_node *n) {
    n->clock_odd_until = MAX(n->clock_odd_until, n->world->now_ns + ODD_NS);
}

/* All clocks leap ahead, as far as a schedule may be held back by it afterwards. */
void sim_clock_leap(struct world *w) {
    int64_t by_ms = (int64_t) rng_range(&w->rng, 150000, 262000);

    for (unsigned i = 0; i < w->nodes_count; i++) {
        struct sim_node *n = &w->nodes[i];

        n->wall_offset_ms += by_ms;
        if (!n->up)
            continue;
        replica_on_clock_changed(n->replica);
        sim_node_turn(n);
    }
}

void sim_clock_fault(struct sim_node *n) {
    struct world *w = n->world;
    uint64_t dice = rng_below(&w->rng, 100);

    sim_count(w, SIM_STAT_CLOCK_FAULTS);
    if (dice < 60) {
        int64_t to_ms = n->wall_offset_ms + draw_step(w);

        to_ms = to_ms > 262000 || to_ms < -262000 ? 0 : to_ms;
        if (to_ms < n->wall_offset_ms)
            went_back(n);
        n->wall_offset_ms = to_ms;
        sim_trace(w, "node %u: its clock is off by %lld ms", n->slot + 1,
                  (long long) n->wall_offset_ms);
    } else if (dice < 75) {
        n->strobe_ms = draw_step(w);
        n->strobe_period_ns = NS_PER_MS << rng_below(&w->rng, 10); /* to half a second, each side */
        n->strobe_until = w->now_ns + (NS_PER_MS << rng_below(&w->rng, 16)); /* to 32 s */
        sim_count(w, SIM_STAT_CLOCK_STROBES);
        sim_trace(w, "node %u: its clock goes to and fro by %lld ms", n->slot + 1,
                  (long long) n->strobe_ms);
        n->clock_odd_until = n->strobe_until + ODD_NS;
    } else if (dice < 82) {
        bend_mono(n);
        n->wake_at = 0; /* its timers are armed anew */
        sim_count(w, SIM_STAT_CLOCK_RATES);
        sim_trace(w, "node %u: its monotonic clock runs by %lld ppm", n->slot + 1,
                  (long long) n->mono_ppm);
        sim_node_turn(n);
        return;
    } else if (dice < 92) {
        n->drift_ppm = (int64_t) rng_below(&w->rng, 2 * DRIFT_PPM_MAX) - DRIFT_PPM_MAX;
        n->drift_since = w->now_ns;
        went_back(n); /* what it was ahead by an older drift */
    } else {
        n->wall_offset_ms = 0;
        n->drift_ppm = 0;
        went_back(n);
    }
    if (n->up && rng_chance(&w->rng, 500)) { /* else it is noticed at the next reading */
        replica_on_clock_changed(n->replica);
        sim_node_turn(n);
    }
}

void sim_clock_heal(struct sim_node *n) {
    went_back(n);
    n->wall_offset_ms = 0;
    n->drift_ppm = 0;
    n->strobe_until = 0;
    if (n->up)
        replica_on_clock_changed(n->replica);
}

/* ---- zones ----------------------------------------------------------------------------------- */

static int zone_load(void *ctx, const char *name, struct bytes **ret, uint64_t *ret_stamp,
                     struct errtext *reterr) {
    (void) ctx;
    if (strcmp(name, "Sim/Central") != 0) {
        errtext_set(reterr, "%s: no such zone", name);
        return -ENOENT;
    }
    *ret = zones_synthetic("CET-1CEST,M3.5.0,M10.5.0/3");
    *ret_stamp = 1;
    return *ret ? 0 : -ENOMEM;
}

static uint64_t zone_stamp(void *ctx, const char *name) {
    (void) ctx;
    return strcmp(name, "Sim/Central") == 0;
}

static const char *zone_version(void *ctx) {
    (void) ctx;
    return "sim";
}

void sim_clock_env(struct env *env) {
    env->zones =
        (struct env_zones){.load = zone_load, .stamp = zone_stamp, .version = zone_version};
}
