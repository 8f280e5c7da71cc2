/* A node of the simulated world: a real replica over fakes. */
#include "sim/checker_sessions.h"
#include "sim/sim_internal.h"

#include "storage/meta.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define TURNS_MAX 64

/* ---- the fakes of base/env.h ----------------------------------------------------------------- */

static struct mono node_mono(void *ctx) {
    return sim_clock_mono(ctx);
}

static struct wall node_wall(void *ctx) {
    const struct sim_node *n = ctx;

    return sim_clock_wall(n);
}

static uint64_t node_random(void *ctx) {
    const struct sim_node *n = ctx;

    return rng_next(&n->world->rng);
}

static void note_release(struct sim_node *n, const char *base) {
    unsigned long long index = base ? strtoull(base + strlen("log_base="), NULL, 10) : 0;

    if (index > n->seen_base)
        sim_count(n->world, SIM_STAT_LOG_RELEASED);
    n->seen_base = index;
}

/* A leader begins, or ends; the older one does not know it. */
static void note_role(struct sim_node *n, bool leads) {
    struct world *w = n->world;

    if (n->leads && !leads)
        sim_count(w, SIM_STAT_STEPPED_DOWN);
    for (unsigned i = 0; i < w->nodes_count && leads && !n->leads; i++)
        if (i != n->slot && w->nodes[i].up && w->nodes[i].leads) {
            sim_count(w, SIM_STAT_TWO_LEADERS);
            break;
        }
    n->leads = leads;
}

static void node_log(void *ctx, enum log_level level, const char *msg, const char *fields) {
    struct sim_node *n = ctx;

    if (level == LOG_WARN && strcmp(msg, "worker lost") == 0) {
        struct world *w = n->world;

        sim_count(w, SIM_STAT_LEASES_EXPIRED);
        checker_worker_lost(w, n, fields);
        /* What was proposed for it is often left to the next leader to commit. */
        if (!sim_faultless(w) && rng_chance(&w->rng, 400))
            sim_push(w, rng_below(&w->rng, w->disk_max_ns + w->delay_max_ns), SIM_FAULT, n->slot,
                     SIM_FAULT_LEADER, 0, NULL);
    }
    atlas_heard(n->world, n, msg);
    if (strcmp(msg, "snapshot") == 0)
        note_release(n, strstr(fields, "log_base="));
    if (strcmp(msg, "role") == 0)
        note_role(n, strstr(fields, "role=leader") != NULL);
    if (strcmp(msg, "feature level") == 0)
        sim_count(n->world, SIM_STAT_LEVELS_RAISED);
    sim_trace(n->world, "node %u: %s %s", n->slot + 1, msg, fields);
}

/* ---- life ------------------------------------------------------------------------------------ */

/* Members of a first configuration, or where the nodes are now (what an operator would write). */
static void members(const struct world *w, unsigned count, struct raft_config *c) {
    *c = (struct raft_config){.count = MIN(count, (unsigned) RAFT_NODES_MAX)};
    for (unsigned i = 0; i < c->count; i++) {
        c->members[i].id = i + 1;
        c->members[i].flags = RAFT_MEMBER_VOTER;
        sim_net_address(&w->nodes[i], c->members[i].address);
    }
}

bool sim_node_make(struct world *w, unsigned slot) {
    struct sim_node *n = &w->nodes[slot];
    bool flushes = rng_chance(&w->rng, 500);

    n->world = w;
    n->slot = slot;
    if (sim_disk_new(&n->disk) < 0 ||
        sim_kv_new(flushes ? rng_range(&w->rng, 1, 50) : 0, &n->kv) < 0) {
        w->no_memory = true;
        return false;
    }
    return true;
}

static int open_replica(struct sim_node *n, struct errtext *reterr) {
    struct world *w = n->world;
    struct raft_config config, hints;
    struct replica_options o = w->node_options;
    char address[SIM_ADDRESS_BYTES];
    struct env env = {
        .clock = {.mono = node_mono, .wall = node_wall, .ctx = n},
        .random = {.next = node_random, .ctx = n},
        .disk = *sim_disk_interface(n->disk),
        .log = &n->log,
    };

    n->log = (struct logger){.level = LOG_INFO, .sink = node_log, .ctx = n};
    sim_jobs_env(n, &env);
    sim_clock_env(&env);
    sim_net_env(n, &env);
    sim_net_address(n, address);
    members(w, w->first_count, &config);
    members(w, w->nodes_count, &hints);
    o.id = o.raft.id = n->slot + 1;
    o.raft.seed = rng_next(&w->rng);
    o.fsm.feature_level_max = faults_feature_max(n);
    o.bootstrap = n->fresh || n->wiped ? NULL : &config;
    o.join = !o.bootstrap;
    o.hints = &hints;
    o.peer_address = address;
    o.client_address = address;
    o.on_step = conformance_stepped;
    o.on_step_ctx = n;
    return replica_open(&o, &env, sim_kv_interface(n->kv), &n->replica, reterr);
}

/* No room, or the disk gave an error: the service manager tries again (operations.md, exit code
 * 1). */
static bool starts_again(struct sim_node *n, int rc, const struct errtext *why) {
    struct world *w = n->world;
    bool full = (rc == -ENOSPC || rc == -EDQUOT) && sim_disk_was_full(n->disk);

    if (!full && !(rc == -EIO && sim_disk_fault_hit(n->disk)))
        return false;
    sim_trace(w, "node %u: does not start: %s", n->slot + 1, why->s);
    sim_count(w, full ? SIM_STAT_STARTS_WITHOUT_ROOM : SIM_STAT_STARTS_UNREADABLE);
    sim_disk_kill(n->disk);
    sim_kv_crash(n->kv, 1000);
    sim_push(w, rng_range(&w->rng, 10 * NS_PER_MS, NS_PER_S), SIM_NODE_RESTART, n->slot, 0, n->life,
             NULL);
    return true;
}

bool sim_node_start(struct sim_node *n) {
    struct world *w = n->world;
    struct errtext why = {0};
    bool harmed = n->atlas.harmed;
    int rc;

    if (n->gone)
        return false;
    n->life++;
    sim_clock_boot(n);
    rc = open_replica(n, &why);
    if (rc < 0) {
        if (!starts_again(n, rc, &why) && !atlas_started(w, n, rc, &why))
            sim_fail(w, "node %u refuses to start: %s: %s", n->slot + 1, err_name(rc), why.s);
        return false;
    }
    n->up = true;
    sim_trace(w, "node %u: start life=%llu applied=%llu", n->slot + 1, (unsigned long long) n->life,
              (unsigned long long) replica_applied(n->replica));
    sim_net_started(n);
    checker_restarted(w, n);
    (void) atlas_started(w, n, 0, NULL);
    conformance_restarted(w, n, harmed);
    sim_node_turn(n);
    return true;
}

/* Nothing reaches the disk any more; but a power cut may find a job half way. */
static void kill_disk(struct sim_node *n, bool power_cut) {
    struct world *w = n->world;
    struct sim_disk_fault f = {.op = SIM_DISK_ANY, .nth = 1, .effect = SIM_DISK_CRASH};

    bool both = conformance_writes_both(n); /* first the one file, then the other */
    uint64_t last = 4;

    if (checker_installing(n))
        last = 16; /* term and vote, then the state, then the log begins anew */
    sim_kv_kill(n->kv);
    if (sim_disk_crashed(n->disk)) {
        sim_count(w, SIM_STAT_DISK_CRASHES);
        return;
    }
    if (power_cut && n->disk_jobs.head && !n->disk_jobs.ran &&
        rng_chance(&w->rng, both ? 900 : 500)) {
        f.nth = rng_range(&w->rng, both ? 2 : 1, last);
        f.effect = rng_chance(&w->rng, 500) ? SIM_DISK_CRASH : SIM_DISK_CRASH_MID;
        sim_count(w, SIM_STAT_DISK_CRASHES);
    }
    sim_disk_set_fault(n->disk, f);
}

static void note_torn_meta(struct sim_node *n) {
    struct meta_inspect_slot slots[2];

    if (meta_inspect(sim_disk_interface(n->disk), slots, NULL) == 0 &&
        (slots[0].rc == ERR_CORRUPT) != (slots[1].rc == ERR_CORRUPT) && n->life > 1)
        sim_count(n->world, SIM_STAT_META_TORN);
}

void sim_node_crash(struct sim_node *n, bool power_cut) {
    static const enum sim_disk_model models[] = {SIM_DISK_KEEP_NONE, SIM_DISK_KEEP_PREFIX,
                                                 SIM_DISK_KEEP_SECTORS, SIM_DISK_KEEP_PAGES,
                                                 SIM_DISK_KEEP_ALL};
    struct world *w = n->world;

    ASSERT(n->up);
    n->up = false;
    n->leads = false;
    n->leads_term = 0;
    checker_crashed(w, n);
    n->last_in_memory = raft_last_index(replica_raft(n->replica));
    if (raft_role(replica_raft(n->replica)) == RAFT_LEADER &&
        n->last_in_memory > raft_commit(replica_raft(n->replica)))
        sim_count(w, SIM_STAT_LEADER_CRASHES_TAIL);
    sim_net_died(n);
    sim_count(w, SIM_STAT_CRASHES);
    sim_trace(w, "node %u: %s", n->slot + 1, power_cut ? "power cut" : "killed");
    for (unsigned i = 0; i < w->workers_count; i++)
        if (w->workers[i].session && w->workers[i].node == n->slot)
            sim_worker_node_gone(&w->workers[i]);
    kill_disk(n, power_cut);
    while (n->disk_jobs.head || n->bulk_jobs.head) {
        sim_jobs_abandon(&n->disk_jobs);
        sim_jobs_abandon(&n->bulk_jobs);
    }
    n->replica = replica_free(n->replica);
    sim_disk_clear_fault(n->disk);
    if (power_cut)
        sim_disk_crash(n->disk, &w->rng, models[rng_below(&w->rng, ARRAY_LEN(models))]);
    else
        sim_disk_kill(n->disk);
    if (power_cut)
        note_torn_meta(n);
    /* RocksDB buffers in the process: what it has not flushed dies with it in either case. */
    sim_kv_crash(n->kv, (uint32_t) rng_below(&w->rng, 1001));
    faults_pause_killed(n);
}

void sim_node_free(struct sim_node *n) {
    if (n->up)
        sim_node_crash(n, false);
    (void) sim_kv_free(n->kv);
    free(n->chain);
    atlas_free(n);
    (void) sim_disk_free(n->disk);
}

/* ---- turns ----------------------------------------------------------------------------------- */

static void note_disk_error(struct world *w, const char *why) {
    sim_count(w, SIM_STAT_DISK_ERRORS);
    if (strstr(why, "sync"))
        sim_count(w, SIM_STAT_SYNCS_FAILED);
    if (strstr(why, "No space"))
        sim_count(w, SIM_STAT_DISKS_NO_ROOM);
}

/* A replica that ended by itself: its disk failed, or it is told that it has no place here. */
static void node_failed(struct sim_node *n, int rc, const struct errtext *why) {
    struct world *w = n->world;
    bool crashed = sim_disk_crashed(n->disk) || sim_kv_crashed(n->kv);

    sim_trace(w, "node %u: stopped: %s", n->slot + 1, why->s);
    if (rc == ERR_FOREIGN) {
        checker_node(w, n); /* what it did in this turn stands */
        checker_stopped(w, n, why->s);
        sim_node_crash(n, false);
        n->gone = true;
        return;
    }
    if (atlas_ended(w, n, rc, why)) {
        sim_node_crash(n, false);
        return;
    }
    if (sim_kv_fault_hit(n->kv))
        sim_count(w, SIM_STAT_STAGE_FAULTS);
    else if ((rc == -ENOSPC || rc == -EDQUOT) && sim_disk_was_full(n->disk))
        sim_count(w, SIM_STAT_ENDS_WITHOUT_ROOM);
    else if (sim_disk_fault_hit(n->disk) && !crashed)
        note_disk_error(w, why->s);
    else if (!crashed)
        sim_fail(w, "node %u stopped: %s", n->slot + 1, why->s);
    sim_node_crash(n, true);
    sim_push(w, rng_range(&w->rng, NS_PER_MS, 2 * NS_PER_S), SIM_NODE_RESTART, n->slot, 0, n->life,
             NULL);
}

void sim_node_turn(struct sim_node *n) {
    struct world *w = n->world;
    struct errtext why = {0};
    struct mono at;
    bool damaged;
    int turns = 0;

    if (!n->up || n->paused)
        return;
    damaged = fsm_store_damaged(replica_fsm(n->replica));
    do {
        replica_turn(n->replica);
    } while (replica_wants_turn(n->replica) && ++turns < TURNS_MAX);
    if (turns >= TURNS_MAX)
        sim_fail(w, "node %u wants %d turns in a row: a busy loop", n->slot + 1, turns);
    if (replica_failed(n->replica, &why) != 0) {
        node_failed(n, replica_failed(n->replica, NULL), &why);
        return;
    }
    if (damaged)
        sim_fail(w, "node %u goes on although a read met damage in its state", n->slot + 1);
    checker_node(w, n);
    checker_commits(w, n);
    checker_duties(w, n);
    atlas_note(n);
    at = replica_deadline(n->replica);
    if (at.ns != n->wake_at) {
        n->wake_at = at.ns;
        n->wake_gen++;
        if (at.ns != MONO_NEVER.ns)
            sim_push(w, sim_clock_until(n, at), SIM_NODE_WAKE, n->slot, 0, n->wake_gen, NULL);
    }
}

void sim_node_deliver(struct sim_node *n, unsigned from, struct bytes *payload) {
    struct raft_peer_status before;
    bool stale;

    if (!n->up)
        return;
    checker_heard_from(n->world, n, bytes_slice(payload));
    stale = checker_stale_begin(n->world, n, from, bytes_slice(payload), &before);
    replica_on_peer_message(n->replica, from + 1, bytes_slice(payload));
    if (stale)
        checker_stale_end(n->world, n, from, &before);
    sim_node_turn(n);
}
