/* A node of the simulated world: a real replica over fakes. */
#include "sim/sim_internal.h"

#include "storage/kv_mem.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define TURNS_MAX 64

/* ---- the fakes of base/env.h ----------------------------------------------------------------- */

static struct mono node_mono(void *ctx) {
    const struct sim_node *n = ctx;

    return (struct mono){.ns = n->world->now_ns};
}

static struct wall node_wall(void *ctx) {
    const struct sim_node *n = ctx;

    return (struct wall){.ms = 1700000000000 + (int64_t) (n->world->now_ns / NS_PER_MS) +
                               n->wall_offset_ms};
}

static uint64_t node_random(void *ctx) {
    const struct sim_node *n = ctx;

    return rng_next(&n->world->rng);
}

static void schedule_disk(struct sim_node *n) {
    struct world *w = n->world;
    uint64_t ns;

    if (n->job_running || !n->job_head)
        return;
    n->job_running = true;
    ns = rng_range(&w->rng, 20 * NS_PER_US, w->disk_max_ns);
    if (w->now_ns < n->disk_slow_until)
        ns += n->disk_slow_until - w->now_ns;
    sim_push(w, ns, SIM_DISK_RUN, n->slot, ++n->job_gen, n->life, NULL);
}

/* The disk is fast again, also for the job that has begun. */
void sim_node_disk_hurry(struct sim_node *n) {
    n->disk_slow_until = 0;
    if (!n->up || !n->job_running || n->job_ran)
        return;
    n->job_running = false;
    schedule_disk(n);
}

static void node_disk_submit(void *ctx, struct disk_job *job) {
    struct sim_node *n = ctx;

    job->next = NULL;
    if (n->job_tail)
        n->job_tail->next = job;
    else
        n->job_head = job;
    n->job_tail = job;
    schedule_disk(n);
}

void sim_node_disk_run(struct sim_node *n) {
    struct world *w = n->world;

    n->job_head->run(n->job_head);
    n->job_ran = true;
    sim_push(w, rng_range(&w->rng, 0, 20 * NS_PER_US), SIM_DISK_DONE, n->slot, 0, n->life, NULL);
}

void sim_node_disk_done(struct sim_node *n) {
    struct disk_job *job = n->job_head;

    n->job_head = job->next;
    if (!n->job_head)
        n->job_tail = NULL;
    n->job_running = false;
    n->job_ran = false;
    job->done(job);
    schedule_disk(n);
    sim_node_turn(n);
}

/* Network: loss, delay, duplication and reordering by unequal delays; blocked directions lose all.
 */
static void node_send(void *ctx, uint64_t to, struct bytes *payload) {
    struct sim_node *n = ctx;
    struct world *w = n->world;
    unsigned slot = (unsigned) to - 1, copies = 1;
    uint64_t append = 0;

    ASSERT(slot < w->nodes_count && slot != n->slot);
    if (checker_sent(w, n, bytes_slice(payload)))
        append = ++w->append_sent[n->slot][slot];
    if (w->blocked[n->slot][slot] || rng_chance(&w->rng, w->loss_permille)) {
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
            uint64_t *at = &w->link_at[n->slot][slot];

            *at = MAX(*at + 1, w->now_ns + ns);
            ns = *at - w->now_ns;
        }
        e = sim_push(w, ns, SIM_DELIVER, n->slot, slot, w->link_gen[n->slot][slot],
                     bytes_ref(payload));
        if (e)
            e->append = append;
    }
    bytes_unref(payload);
}

static void node_log(void *ctx, enum log_level level, const char *msg, const char *fields) {
    struct sim_node *n = ctx;

    if (level == LOG_WARN && strcmp(msg, "worker lost") == 0) {
        struct world *w = n->world;

        sim_count(w, SIM_STAT_LEASES_EXPIRED);
        checker_worker_lost(w, n, fields);
        /* What was proposed for it is often left to the next leader to commit. */
        if (!w->healing && rng_chance(&w->rng, 400))
            sim_push(w, rng_below(&w->rng, w->disk_max_ns + w->delay_max_ns), SIM_FAULT, n->slot,
                     SIM_FAULT_LEADER, 0, NULL);
    }
    sim_trace(n->world, "node %u: %s %s", n->slot + 1, msg, fields);
}

/* ---- life ------------------------------------------------------------------------------------ */

static void bootstrap_config(const struct world *w, struct raft_config *c) {
    *c = (struct raft_config){.count = w->nodes_count};
    for (unsigned i = 0; i < w->nodes_count; i++) {
        c->members[i].id = i + 1;
        c->members[i].flags = RAFT_MEMBER_VOTER;
        (void) snprintf(c->members[i].address, sizeof(c->members[i].address), "node%u", i + 1);
    }
}

bool sim_node_start(struct sim_node *n) {
    struct world *w = n->world;
    struct raft_config config;
    struct replica_options o;
    struct errtext why = {0};
    struct env env = {
        .clock = {.mono = node_mono, .wall = node_wall, .ctx = n},
        .random = {.next = node_random, .ctx = n},
        .disk_queue = {.submit = node_disk_submit, .ctx = n},
        .peers = {.send = node_send, .ctx = n},
        .disk = *sim_disk_interface(n->disk),
        .log = &n->log,
    };
    int rc;

    n->log = (struct logger){.level = LOG_INFO, .sink = node_log, .ctx = n};
    bootstrap_config(w, &config);
    o = w->node_options;
    o.id = o.raft.id = n->slot + 1;
    o.raft.seed = rng_next(&w->rng);
    o.bootstrap = &config;
    n->life++;
    rc = replica_open(&o, &env, n->kv, &n->replica, &why);
    if (rc < 0) {
        sim_fail(w, "node %u refuses to start: %s: %s", n->slot + 1, err_name(rc), why.s);
        return false;
    }
    n->up = true;
    sim_trace(w, "node %u: start life=%llu applied=%llu", n->slot + 1, (unsigned long long) n->life,
              (unsigned long long) replica_applied(n->replica));
    for (unsigned i = 0; i < w->nodes_count; i++) {
        if (i == n->slot)
            continue;
        sim_push(w, rng_range(&w->rng, 0, 5 * NS_PER_MS), SIM_LINK, n->slot, i, n->life, NULL);
        if (w->nodes[i].up)
            sim_push(w, rng_range(&w->rng, 2 * NS_PER_MS, 300 * NS_PER_MS), SIM_LINK, i, n->slot,
                     w->nodes[i].life, NULL);
    }
    checker_restarted(w, n);
    sim_node_turn(n);
    return true;
}

/* Jobs in flight end against a dead disk, so that their memory comes back; nothing they report can
 * leave any more. */
static void abandon_jobs(struct sim_node *n) {
    while (n->job_head) {
        struct disk_job *job = n->job_head;

        n->job_head = job->next;
        if (!n->job_head)
            n->job_tail = NULL; /* what it did may ask for more */
        if (!n->job_ran)
            job->run(job);
        n->job_ran = false;
        job->done(job);
    }
    n->job_running = false;
}

/* Nothing reaches the disk any more; but a power cut may find a job half way. */
static void kill_disk(struct sim_node *n, bool power_cut) {
    struct world *w = n->world;
    struct sim_disk_fault f = {.op = SIM_DISK_ANY, .nth = 1, .effect = SIM_DISK_CRASH};

    if (sim_disk_crashed(n->disk)) {
        sim_count(w, SIM_STAT_DISK_CRASHES);
        return;
    }
    if (power_cut && n->job_head && !n->job_ran && rng_chance(&w->rng, 500)) {
        f.nth = rng_range(&w->rng, 1, 4);
        f.effect = rng_chance(&w->rng, 500) ? SIM_DISK_CRASH : SIM_DISK_CRASH_MID;
        sim_count(w, SIM_STAT_DISK_CRASHES);
    }
    sim_disk_set_fault(n->disk, f);
}

void sim_node_crash(struct sim_node *n, bool power_cut) {
    static const enum sim_disk_model models[] = {SIM_DISK_KEEP_NONE, SIM_DISK_KEEP_PREFIX,
                                                 SIM_DISK_KEEP_SECTORS, SIM_DISK_KEEP_PAGES,
                                                 SIM_DISK_KEEP_ALL};
    struct world *w = n->world;
    size_t unflushed;

    ASSERT(n->up);
    n->up = false;
    n->last_in_memory = raft_last_index(replica_raft(n->replica));
    if (raft_role(replica_raft(n->replica)) == RAFT_LEADER &&
        n->last_in_memory > raft_commit(replica_raft(n->replica)))
        sim_count(w, SIM_STAT_LEADER_CRASHES_TAIL);
    for (unsigned i = 0; i < w->nodes_count; i++) {
        w->link_gen[i][n->slot]++; /* its connections die with it */
        w->link_gen[n->slot][i]++;
        if (i != n->slot && w->nodes[i].up) /* the others see that, a little later */
            sim_push(w, rng_range(&w->rng, 0, 2 * NS_PER_MS), SIM_LINK_DOWN, i, n->slot,
                     w->nodes[i].life, NULL);
    }
    sim_count(w, SIM_STAT_CRASHES);
    sim_trace(w, "node %u: %s", n->slot + 1, power_cut ? "power cut" : "killed");
    for (unsigned i = 0; i < w->workers_count; i++)
        if (w->workers[i].session && w->workers[i].node == n->slot)
            sim_worker_node_gone(&w->workers[i]);
    kill_disk(n, power_cut);
    abandon_jobs(n);
    n->replica = replica_free(n->replica);
    sim_disk_clear_fault(n->disk);
    unflushed = kv_mem_unflushed(n->kv);
    if (power_cut) {
        sim_disk_crash(n->disk, &w->rng, models[rng_below(&w->rng, ARRAY_LEN(models))]);
        kv_mem_crash(n->kv, unflushed ? rng_below(&w->rng, unflushed + 1) : 0);
    } else {
        sim_disk_kill(n->disk);
        /* RocksDB buffers in the process: what it has not flushed dies with it. */
        kv_mem_crash(n->kv, unflushed ? rng_below(&w->rng, unflushed + 1) : 0);
    }
}

void sim_node_free(struct sim_node *n) {
    if (n->up)
        sim_node_crash(n, false);
    if (n->kv)
        n->kv->ops->close(n->kv);
    free(n->chain);
    (void) sim_disk_free(n->disk);
}

/* ---- turns ----------------------------------------------------------------------------------- */

void sim_node_turn(struct sim_node *n) {
    struct world *w = n->world;
    struct errtext why = {0};
    struct mono at;
    int turns = 0;

    if (!n->up)
        return;
    do {
        replica_turn(n->replica);
    } while (replica_wants_turn(n->replica) && ++turns < TURNS_MAX);
    if (turns >= TURNS_MAX)
        sim_fail(w, "node %u wants %d turns in a row: a busy loop", n->slot + 1, turns);
    if (replica_failed(n->replica, &why) != 0) {
        sim_trace(w, "node %u: stopped: %s", n->slot + 1, why.s);
        if (sim_disk_fault_hit(n->disk) && !sim_disk_crashed(n->disk))
            sim_count(w, SIM_STAT_DISK_ERRORS);
        else if (!sim_disk_crashed(n->disk))
            sim_fail(w, "node %u stopped: %s", n->slot + 1, why.s);
        sim_node_crash(n, true);
        sim_push(w, rng_range(&w->rng, NS_PER_MS, 2 * NS_PER_S), SIM_NODE_RESTART, n->slot, 0,
                 n->life, NULL);
        return;
    }
    checker_node(w, n);
    at = replica_deadline(n->replica);
    if (at.ns != n->wake_at) {
        n->wake_at = at.ns;
        n->wake_gen++;
        if (at.ns != MONO_NEVER.ns)
            sim_push(w, at.ns > w->now_ns ? at.ns - w->now_ns : 0, SIM_NODE_WAKE, n->slot, 0,
                     n->wake_gen, NULL);
    }
}

void sim_node_deliver(struct sim_node *n, unsigned from, struct bytes *payload) {
    if (!n->up || n->world->blocked[from][n->slot])
        return;
    replica_on_peer_message(n->replica, from + 1, bytes_slice(payload));
    sim_node_turn(n);
}
