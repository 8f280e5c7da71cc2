/* The world's clock, event queue, faults and phases. */
#include "sim/checker_model.h"
#include "sim/schedule_model.h"
#include "sim/topology.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define SAME_INSTANT_MAX 100000
#define ARENA_MAX (16UL * 1024 * 1024)

void sim_fail(struct world *w, const char *fmt, ...) {
    va_list ap;

    if (w->failed)
        return;
    w->failed = true;
    va_start(ap, fmt);
    (void) vsnprintf(w->result->failure, sizeof(w->result->failure), fmt, ap);
    va_end(ap);
    if (w->o.trace)
        printf("%12.6f FAILED %s\n", (double) w->now_ns / 1e9, w->result->failure);
}

void sim_trace(struct world *w, const char *fmt, ...) {
    char line[1024];
    va_list ap;

    if (!w->o.trace)
        return;
    va_start(ap, fmt);
    (void) vsnprintf(line, sizeof(line), fmt, ap);
    va_end(ap);
    printf("%12.6f %s\n", (double) w->now_ns / 1e9, line);
}

struct sim_event *sim_push(struct world *w, uint64_t delay_ns, enum sim_event_type type, unsigned a,
                           unsigned b, uint64_t generation, struct bytes *payload) {
    struct sim_event *e = malloc(sizeof(*e));

    if (!e) {
        w->no_memory = true;
        bytes_unref(payload);
        return NULL;
    }
    *e = (struct sim_event){.seq = w->next_seq++,
                            .type = type,
                            .a = a,
                            .b = b,
                            .generation = generation,
                            .payload = payload};
    /* The low bits make every instant unique, so equal times keep the order of their making. */
    if (timer_heap_add(&w->heap, &e->timer,
                       (struct mono){.ns = (w->now_ns + delay_ns) << 10 | (e->seq & 1023)}) < 0) {
        w->no_memory = true;
        bytes_unref(payload);
        free(e);
        return NULL;
    }
    return e;
}

/* ---- dispatch -------------------------------------------------------------------------------- */

static void on_from_worker(struct world *w, struct sim_event *e) {
    struct sim_worker *wk = &w->workers[e->a];

    if (!wk->session || wk->session_gen != e->generation || wk->session_ended)
        return;
    checker_heard(&w->nodes[wk->node], wk->slot);
    worker_session_message(wk->session, bytes_slice(e->payload));
    sim_node_turn(&w->nodes[wk->node]);
}

static struct sim_queue *jobs_of(struct sim_node *n, const struct sim_event *e) {
    return e->type == SIM_DISK_RUN || e->type == SIM_DISK_DONE ? &n->disk_jobs : &n->bulk_jobs;
}

static void dispatch(struct world *w, struct sim_event *e) {
    struct sim_node *n = &w->nodes[e->a % SIM_SLOTS_MAX];

    switch (e->type) {
    case SIM_NODE_WAKE:
        if (n->up && n->wake_gen == e->generation) {
            n->wake_at = 0;
            sim_node_turn(n);
        }
        break;
    case SIM_NODE_RESTART:
        if (!n->up && n->life == e->generation)
            (void) sim_node_start(n);
        break;
    case SIM_DELIVER:
        sim_net_on_deliver(w, e);
        break;
    case SIM_LINK:
        sim_net_on_connect(w, e);
        break;
    case SIM_LINK_DOWN:
        sim_net_on_down(w, e);
        break;
    case SIM_FLAP:
        sim_net_on_flap(w, e);
        break;
    case SIM_BULK:
        sim_net_on_bulk(w, e);
        break;
    case SIM_DISK_RUN:
    case SIM_BULK_RUN:
        if (n->up && n->life == e->generation && jobs_of(n, e)->gen == e->b)
            sim_jobs_run(n, jobs_of(n, e));
        break;
    case SIM_DISK_DONE:
    case SIM_BULK_DONE:
        if (n->up && n->life == e->generation)
            sim_jobs_done(n, jobs_of(n, e));
        break;
    case SIM_OPERATOR:
        sim_operator_act(w);
        break;
    case SIM_CLIENT:
        sim_client_act(&w->clients[e->a]);
        break;
    case SIM_WORKER_WAKE:
        sim_worker_wake(&w->workers[e->a]);
        break;
    case SIM_TO_WORKER:
        if (w->workers[e->a].session_gen == e->generation)
            sim_worker_receive(&w->workers[e->a], e->payload);
        break;
    case SIM_FROM_WORKER:
        on_from_worker(w, e);
        break;
    case SIM_NODE_RESUME:
        faults_on_resume(w, e);
        break;
    case SIM_FAULT:
        if (e->b == SIM_FAULT_LEADER)
            faults_crash_leader(w);
        else if (e->b == SIM_FAULT_DISK)
            faults_disk_next(w);
        else if (e->b == SIM_FAULT_ROOM)
            faults_disk_room(n);
        else
            faults_next(w);
        break;
    }
}

void sim_dispatch(struct world *w, struct sim_event *e) {
    dispatch(w, e);
    bytes_unref(e->payload);
    free(e);
}

/* R23: the trace hash covers every event, whether a line was printed for it or not. */
static void mix(struct world *w, uint64_t value) {
    uint64_t h = (w->result->trace_hash ^ value) * 0x9e3779b97f4a7c15ULL;

    w->result->trace_hash = h ^ h >> 29;
}

/* Where the node of the event stands now. */
static void mix_nodes(struct world *w, const struct sim_event *e) {
    const struct sim_node *n =
        &w->nodes[(e->type == SIM_DELIVER || e->type == SIM_BULK ? e->b : e->a) % SIM_SLOTS_MAX];

    if (!n->up)
        return;
    mix(w, raft_term(replica_raft(n->replica)) << 32 | raft_last_index(replica_raft(n->replica)));
    mix(w, raft_commit(replica_raft(n->replica)) << 32 | replica_applied(n->replica));
}

bool sim_world_may_step(const struct world *w) {
    return !w->failed && !w->no_memory && w->heap.count > 0;
}

void sim_world_step(struct world *w) {
    struct timer_entry *t = timer_heap_first(&w->heap);
    struct sim_event *e = CONTAINER_OF(t, struct sim_event, timer);

    timer_heap_remove(&w->heap, t);
    ASSERT((t->at.ns >> 10) >= w->now_ns);
    w->same_instant = (t->at.ns >> 10) == w->now_ns ? w->same_instant + 1 : 0;
    if (w->same_instant > SAME_INSTANT_MAX)
        sim_fail(w, "time stands still: event %d of %u asks to be woken at once again and again",
                 (int) e->type, e->a + 1);
    w->now_ns = t->at.ns >> 10;
    w->result->events++;
    mix(w, w->now_ns);
    mix(w, (uint64_t) e->type << 48 | (uint64_t) e->a << 40 | (uint64_t) e->b << 32 |
               (e->payload ? e->payload->len : 0));
    mix(w, e->generation);
    if (faults_hold(w, e))
        return;
    dispatch(w, e);
    mix_nodes(w, e);
    faults_after(w, e);
    sim_client_check_deadlines(w);
    bytes_unref(e->payload);
    free(e);
}

/* ---- phases ---------------------------------------------------------------------------------- */

/* Rarely as in production; mostly a few entries, so that followers fall behind the log. */
static void draw_snapshots(struct world *w, struct replica_options *o) {
    static const uint32_t segment_kib[] = {8, 8, 16, 64};

    o->wal.segment_bytes = segment_kib[rng_below(&w->rng, ARRAY_LEN(segment_kib))] * 1024;
    o->log_bytes_kept = rng_chance(&w->rng, 600) ? 0 : rng_below(&w->rng, 32 * 1024);
    o->scrub_interval_ns = rng_chance(&w->rng, 300) ? rng_range(&w->rng, 1, 20) * NS_PER_S : 0;
    if (rng_chance(&w->rng, 150))
        return;
    o->snapshot_interval_ns = rng_range(&w->rng, 10, 2000) * NS_PER_MS;
    o->snapshot_entries = rng_range(&w->rng, 2, 64);
    o->snapshot_chunk_bytes = rng_range(&w->rng, 64, 4096);
    o->log_bytes_max = rng_chance(&w->rng, 300) ? rng_range(&w->rng, 16, 256) * 1024 : 1UL << 20;
}

/* Settings of the nodes: small limits, so that every limit is met. */
static void draw_node_options(struct world *w, bool swarm) {
    struct replica_options *o = &w->node_options;
    bool small = rng_chance(&w->rng, 500);

    replica_options_default(o, 1, 0);
    memset(o->cluster_id, 0x51, sizeof(o->cluster_id));
    o->wal.spare_segments = 1;
    o->watch_events_max = 8192;
    o->raft.applied_entries_kept =
        swarm || small ? rng_range(&w->rng, 2, 16) : rng_range(&w->rng, 16, 1000);
    if (rng_chance(&w->rng, 200))
        o->raft.applied_bytes_kept = rng_range(&w->rng, 0, 4096);
    if (small) {
        o->raft.append_bytes_max = rng_range(&w->rng, 64, 2048);
        o->raft.inflight_messages_max = rng_range(&w->rng, 1, 8);
        o->raft.inflight_bytes_max = rng_range(&w->rng, 64, 8192);
        o->raft.uncommitted_entries_max = rng_range(&w->rng, 4, 64);
        o->pending_proposals_max = rng_range(&w->rng, 2, 32);
    }
    if (rng_chance(&w->rng, 500))
        o->fsm.overlay_bytes_max = rng_range(&w->rng, 256, 16384);
    w->commit_timeout_ns =
        rng_chance(&w->rng, 500) ? o->commit_timeout_ns : rng_range(&w->rng, 150, 2000) * NS_PER_MS;
    w->lease_ns =
        rng_chance(&w->rng, 400) ? o->worker_lease_ns : rng_range(&w->rng, 300, 3000) * NS_PER_MS;
    w->beat_ns = w->lease_ns / 3;
    o->commit_timeout_ns = w->commit_timeout_ns;
    o->worker_lease_ns = w->lease_ns;
    o->worker_heartbeat_ns = w->beat_ns;
    o->disk_reserve_bytes = 1UL << 20;
    o->drain_timeout_ns = rng_range(&w->rng, 50, 3000) * NS_PER_MS;
    o->raft.lease_reads = rng_chance(&w->rng, 250);
    draw_snapshots(w, o);
}

/* Mostly three and five nodes; the others now and then. */
static unsigned draw_nodes(struct world *w) {
    static const unsigned rare[] = {1, 1, 2, 4, 6, 7};
    uint64_t dice = rng_below(&w->rng, 100);

    if (dice < 85)
        return dice < 45 ? 3 : 5;
    return rare[rng_below(&w->rng, ARRAY_LEN(rare))];
}

/* Time is what schedules need: in half of their worlds everything else is slower. */
static void draw_schedules(struct world *w) {
    if (rng_chance(&w->rng, 350))
        return;
    w->schedules = (unsigned) rng_range(&w->rng, 1, 5);
    w->schedule_permille = (uint32_t) rng_range(&w->rng, 50, 500);
    if (rng_chance(&w->rng, 500)) {
        w->client_gap_ns *= 4;
        w->fault_interval_ns *= 2;
    }
    if (rng_chance(&w->rng, 400))
        faults_prefer_clocks(w);
}

static void draw_options(struct world *w) {
    bool swarm = rng_chance(&w->rng, 300); /* very high rates, small logs */
    unsigned nodes = draw_nodes(w);

    w->nodes_count = w->first_count = w->o.nodes ? w->o.nodes : nodes;
    w->workers_count = (unsigned) rng_range(&w->rng, 1, w->nodes_count);
    w->clients_count = (unsigned) rng_range(&w->rng, 1, SIM_CLIENTS_MAX);
    w->loss_permille = (uint32_t) rng_below(&w->rng, swarm ? 200 : 20);
    w->dup_permille = (uint32_t) rng_below(&w->rng, swarm ? 200 : 30);
    w->slow_permille = (uint32_t) rng_below(&w->rng, swarm ? 200 : 10);
    w->slow_ns = rng_range(&w->rng, 10, 1000) * NS_PER_MS;
    w->delay_max_ns = rng_range(&w->rng, 200 * NS_PER_US, (swarm ? 60 : 10) * NS_PER_MS);
    w->disk_max_ns = rng_range(&w->rng, 100 * NS_PER_US, (swarm ? 40 : 5) * NS_PER_MS);
    w->bulk_delay_max_ns = rng_range(&w->rng, NS_PER_MS, (swarm ? 2000 : 200) * NS_PER_MS);
    w->bulk_disk_max_ns = rng_range(&w->rng, NS_PER_MS, (swarm ? 1000 : 100) * NS_PER_MS);
    w->bulk_queue_max = (unsigned) rng_range(&w->rng, 1, 8);
    w->burst_permille = rng_chance(&w->rng, 200) ? 40 : 2;
    w->client_gap_ns = rng_range(&w->rng, 10, 300) * NS_PER_MS;
    w->long_permille = (uint32_t) rng_below(&w->rng, 300);
    w->key_digits = rng_chance(&w->rng, 500) ? 120 : 1;
    w->in_order = rng_chance(&w->rng, 500);
    draw_node_options(w, swarm);
    faults_draw(w, swarm);
    faults_process_draw(w);
    sim_frame_draw(w, swarm);
    sim_clock_draw(w);
    draw_schedules(w);
    topology_draw(w);
    sim_trace(w,
              "seed=%llu nodes=%u workers=%u clients=%u loss=%u dup=%u swarm=%d menu=%llx kept=%zu",
              (unsigned long long) w->o.seed, w->nodes_count, w->workers_count, w->clients_count,
              w->loss_permille, w->dup_permille, (int) swarm, (unsigned long long) w->menu,
              w->node_options.raft.applied_entries_kept);
}

static void build(struct world *w) {
    for (unsigned i = 0; i < w->nodes_count; i++)
        if (!sim_node_make(w, i))
            return;
    for (unsigned i = 0; i < w->nodes_count && !w->failed; i++)
        (void) sim_node_start(&w->nodes[i]);
    for (unsigned i = 0; i < w->workers_count; i++) {
        struct sim_worker *wk = &w->workers[i];

        *wk = (struct sim_worker){.world = w, .slot = i, .slots = 1 + i % 4};
        (void) snprintf(wk->id, sizeof(wk->id), "worker%u", i + 1);
        sim_clock_worker_boot(wk);
        sim_worker_start(wk);
    }
    for (unsigned i = 0; i < w->clients_count; i++) {
        w->clients[i] = (struct sim_client){.world = w, .slot = i};
        sim_push(w, rng_below(&w->rng, 500 * NS_PER_MS), SIM_CLIENT, i, 0, 0, NULL);
    }
    sim_push(w, w->fault_interval_ns, SIM_FAULT, 0, 0, 0, NULL);
    faults_disk_start(w);
    sim_operator_start(w);
}

static void teardown(struct world *w) {
    for (unsigned i = 0; i < w->workers_count; i++)
        sim_worker_free(&w->workers[i]);
    for (unsigned i = 0; i < w->nodes_count; i++)
        if (w->nodes[i].disk)
            sim_node_free(&w->nodes[i]);
    while (w->heap.count > 0) {
        struct sim_event *e = CONTAINER_OF(timer_heap_first(&w->heap), struct sim_event, timer);

        timer_heap_remove(&w->heap, &e->timer);
        bytes_unref(e->payload);
        free(e);
    }
    timer_heap_done(&w->heap);
    checker_done(&w->checker);
    w->conformance = conformance_free(w->conformance);
    arena_done(&w->arena);
}

/* The clocks were far ahead for a moment: what was decided then must not hold back what follows. */
static void leap(struct world *w) {
    uint64_t until = w->now_ns + rng_range(&w->rng, 10, 900) * NS_PER_MS;

    sim_trace(w, "all clocks leap ahead");
    sim_clock_leap(w);
    while (sim_world_may_step(w) && w->now_ns < until)
        sim_world_step(w);
}

int sim_run(const struct sim_options *o, struct sim_result *ret) {
    struct rng spread;
    struct world *w = calloc(1, sizeof(*w));
    bool alive = true;
    int rc = 0;

    *ret = (struct sim_result){0};
    if (!w)
        return -ENOMEM;
    w->o = *o;
    w->result = ret;
    /* Not the seed itself times anything: the generator steps by a constant, and worlds of seeds in
     * a row would draw the same numbers, each one place later than the one before. */
    spread = rng_seed(o->seed);
    w->rng = rng_seed(rng_next(&spread));
    arena_init(&w->arena, ARENA_MAX);
    checker_init(&w->checker);
    w->checker.schedules = schedule_model_new(w);
    if (!w->checker.schedules) {
        free(w);
        return -ENOMEM;
    }
    draw_options(w);
    w->checker.model = checker_model_new(w);
    w->conformance = conformance_new();
    w->no_memory = !w->checker.model || !w->conformance;
    if (!w->no_memory)
        build(w);
    while (!w->failed && !w->no_memory && ret->events < o->events_max)
        sim_world_step(w);
    topology_run(w);
    if (w->schedules > 0 && rng_chance(&w->rng, 250))
        leap(w);
    if (!w->failed && !w->no_memory) {
        liveness_heal(w);
        alive = !sim_operator_quorum_lost(w);
        if (alive)
            liveness_check(w);
        else
            sim_count(w, SIM_STAT_QUORUMS_LOST);
    }
    if (!w->failed && !w->no_memory && alive)
        checker_final(w);
    ret->ok = !w->failed;
    if (w->no_memory)
        rc = -ENOMEM;
    teardown(w);
    free(w);
    return rc;
}
