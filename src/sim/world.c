/* The world's clock, event queue, faults and phases. */
#include "sim/sim_internal.h"

#include "storage/kv_mem.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#define HEAL_NS (120 * NS_PER_S)
#define SETTLE_NS (2 * NS_PER_S)
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
    int n;

    va_start(ap, fmt);
    n = vsnprintf(line, sizeof(line), fmt, ap);
    va_end(ap);
    w->result->trace_hash ^= XXH3_64bits_withSeed(line, (size_t) MIN(n, (int) sizeof(line) - 1),
                                                  w->result->trace_hash + w->now_ns);
    if (w->o.trace)
        printf("%12.6f %s\n", (double) w->now_ns / 1e9, line);
}

void sim_push(struct world *w, uint64_t delay_ns, enum sim_event_type type, unsigned a, unsigned b,
              uint64_t generation, struct bytes *payload) {
    struct sim_event *e = malloc(sizeof(*e));

    if (!e) {
        w->no_memory = true;
        bytes_unref(payload);
        return;
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
    }
}

/* ---- faults
 * --------------------------------------------------------------------------------------------- */

static void heal_network(struct world *w) {
    memset(w->blocked, 0, sizeof(w->blocked));
}

static void partition(struct world *w) {
    uint64_t kind = rng_below(&w->rng, 4);
    unsigned a = (unsigned) rng_below(&w->rng, w->nodes_count);
    unsigned b = (unsigned) rng_below(&w->rng, w->nodes_count);

    heal_network(w);
    w->result->partitions++;
    sim_trace(w, "partition kind=%u a=%u b=%u", (unsigned) kind, a + 1, b + 1);
    for (unsigned i = 0; i < w->nodes_count; i++) {
        for (unsigned k = 0; k < w->nodes_count; k++) {
            if (i == k)
                continue;
            if (kind == 0) /* one node alone */
                w->blocked[i][k] = i == a || k == a;
            else if (kind == 1) /* one direction of one node */
                w->blocked[i][k] = i == a;
            else if (kind == 2) /* two halves */
                w->blocked[i][k] = (i <= a) != (k <= a);
            else /* one link, one way */
                w->blocked[i][k] = i == a && k == b;
        }
    }
}

static void crash_some(struct world *w) {
    unsigned a = (unsigned) rng_below(&w->rng, w->nodes_count);
    bool all = rng_chance(&w->rng, 60), power = rng_chance(&w->rng, 700);

    for (unsigned i = 0; i < w->nodes_count; i++) {
        struct sim_node *n = &w->nodes[i];

        if (!n->up || (!all && i != a))
            continue;
        sim_node_crash(n, power);
        sim_push(w, rng_range(&w->rng, NS_PER_MS, 3 * NS_PER_S), SIM_NODE_RESTART, i, 0, n->life,
                 NULL);
    }
}

/* The power goes in the middle of the disk job that runs next. */
static void arm_disk_crash(struct world *w) {
    struct sim_node *n = &w->nodes[rng_below(&w->rng, w->nodes_count)];

    if (!n->up)
        return;
    sim_trace(w, "node %u: the power will go within its next disk operations", n->slot + 1);
    sim_disk_set_fault(n->disk, (struct sim_disk_fault){.op = SIM_DISK_ANY,
                                                        .nth = rng_range(&w->rng, 1, 12),
                                                        .effect = rng_chance(&w->rng, 500)
                                                                      ? SIM_DISK_CRASH
                                                                      : SIM_DISK_CRASH_MID});
}

static void flap_link(struct world *w) {
    unsigned a = (unsigned) rng_below(&w->rng, w->nodes_count);
    unsigned b = (unsigned) rng_below(&w->rng, w->nodes_count);

    if (a == b || !w->nodes[a].up)
        return;
    sim_trace(w, "link %u->%u breaks", a + 1, b + 1);
    w->link_gen[a][b]++; /* what is under way is lost */
    replica_on_peer_link(w->nodes[a].replica, b + 1, false);
    sim_push(w, rng_range(&w->rng, NS_PER_MS, 500 * NS_PER_MS), SIM_LINK, a, b, w->nodes[a].life,
             NULL);
    sim_node_turn(&w->nodes[a]);
}

static void fault(struct world *w) {
    uint64_t dice = rng_below(&w->rng, 100);
    struct sim_node *n = &w->nodes[rng_below(&w->rng, w->nodes_count)];

    if (w->healing)
        return;
    if (dice < 25)
        crash_some(w);
    else if (dice < 45)
        partition(w);
    else if (dice < 65)
        heal_network(w);
    else if (dice < 75)
        flap_link(w);
    else if (dice < 85)
        arm_disk_crash(w);
    else if (dice < 90)
        n->disk_slow_until = w->now_ns + rng_range(&w->rng, NS_PER_MS, NS_PER_S);
    else if (dice < 95)
        n->wall_offset_ms = (int64_t) rng_below(&w->rng, 524000) - 262000;
    else
        sim_worker_kill(&w->workers[rng_below(&w->rng, w->workers_count)]);
    sim_push(w, rng_range(&w->rng, NS_PER_MS, 2 * w->fault_interval_ns), SIM_FAULT, 0, 0, 0, NULL);
}

/* ---- dispatch
 * ------------------------------------------------------------------------------------------- */

static void on_link(struct world *w, const struct sim_event *e) {
    struct sim_node *n = &w->nodes[e->a];

    if (!n->up || n->life != e->generation)
        return;
    replica_on_peer_link(n->replica, e->b + 1, true);
    sim_node_turn(n);
}

static void on_from_worker(struct world *w, struct sim_event *e) {
    struct sim_worker *wk = &w->workers[e->a];

    if (!wk->session || wk->session_gen != e->generation || wk->session_ended)
        return;
    worker_session_message(wk->session, bytes_slice(e->payload));
    sim_node_turn(&w->nodes[wk->node]);
}

static void dispatch(struct world *w, struct sim_event *e) {
    struct sim_node *n = &w->nodes[e->a % SIM_NODES_MAX];

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
        if (w->link_gen[e->a][e->b] == e->generation)
            sim_node_deliver(&w->nodes[e->b], e->a, e->payload);
        break;
    case SIM_LINK:
        on_link(w, e);
        break;
    case SIM_DISK_RUN:
        if (n->up && n->life == e->generation)
            sim_node_disk_run(n);
        break;
    case SIM_DISK_DONE:
        if (n->up && n->life == e->generation)
            sim_node_disk_done(n);
        break;
    case SIM_CLIENT:
        sim_client_act(&w->clients[e->a]);
        break;
    case SIM_WORKER_WAKE:
        sim_worker_wake(&w->workers[e->a]);
        break;
    case SIM_TO_WORKER:
        if (w->workers[e->a].session_gen == e->generation)
            sim_worker_receive(&w->workers[e->a], bytes_slice(e->payload));
        break;
    case SIM_FROM_WORKER:
        on_from_worker(w, e);
        break;
    case SIM_FAULT:
        fault(w);
        break;
    }
}

static void step(struct world *w) {
    struct timer_entry *t = timer_heap_first(&w->heap);
    struct sim_event *e = CONTAINER_OF(t, struct sim_event, timer);

    timer_heap_remove(&w->heap, t);
    ASSERT((t->at.ns >> 10) >= w->now_ns);
    w->now_ns = t->at.ns >> 10;
    w->result->events++;
    dispatch(w, e);
    bytes_unref(e->payload);
    free(e);
}

/* ---- phases
 * --------------------------------------------------------------------------------------------- */

static void draw_options(struct world *w) {
    static const unsigned sizes[] = {3, 3, 3, 5, 5, 1, 2, 4, 7};
    bool swarm = rng_chance(&w->rng, 300); /* very high rates, small logs */

    w->nodes_count = w->o.nodes ? w->o.nodes : sizes[rng_below(&w->rng, ARRAY_LEN(sizes))];
    w->workers_count = (unsigned) rng_range(&w->rng, 1, w->nodes_count);
    w->clients_count = (unsigned) rng_range(&w->rng, 1, SIM_CLIENTS_MAX);
    w->loss_permille = (uint32_t) rng_below(&w->rng, swarm ? 200 : 20);
    w->dup_permille = (uint32_t) rng_below(&w->rng, swarm ? 200 : 30);
    w->slow_permille = (uint32_t) rng_below(&w->rng, swarm ? 100 : 10);
    w->delay_max_ns = rng_range(&w->rng, 200 * NS_PER_US, (swarm ? 60 : 10) * NS_PER_MS);
    w->disk_max_ns = rng_range(&w->rng, 100 * NS_PER_US, (swarm ? 40 : 5) * NS_PER_MS);
    w->fault_interval_ns = rng_range(&w->rng, (swarm ? 20 : 300) * NS_PER_MS, 3 * NS_PER_S);
    w->applied_kept = swarm ? rng_range(&w->rng, 2, 16) : rng_range(&w->rng, 16, 1000);
    w->segment_bytes = 64U * 1024;
    sim_trace(w, "seed=%llu nodes=%u workers=%u clients=%u loss=%u dup=%u swarm=%d",
              (unsigned long long) w->o.seed, w->nodes_count, w->workers_count, w->clients_count,
              w->loss_permille, w->dup_permille, (int) swarm);
}

static void build(struct world *w) {
    for (unsigned i = 0; i < w->nodes_count && !w->failed; i++) {
        struct sim_node *n = &w->nodes[i];

        n->world = w;
        n->slot = i;
        if (sim_disk_new(&n->disk) < 0 ||
            kv_mem_new(rng_chance(&w->rng, 500) ? rng_range(&w->rng, 1, 50) : 0, &n->kv) < 0) {
            w->no_memory = true;
            return;
        }
        (void) sim_node_start(n);
    }
    for (unsigned i = 0; i < w->workers_count; i++) {
        struct sim_worker *wk = &w->workers[i];

        *wk = (struct sim_worker){.world = w, .slot = i, .slots = 1 + i % 4};
        (void) snprintf(wk->id, sizeof(wk->id), "worker%u", i + 1);
        sim_worker_start(wk);
    }
    for (unsigned i = 0; i < w->clients_count; i++) {
        w->clients[i] = (struct sim_client){.world = w, .slot = i};
        sim_push(w, rng_below(&w->rng, 500 * NS_PER_MS), SIM_CLIENT, i, 0, 0, NULL);
    }
    sim_push(w, w->fault_interval_ns, SIM_FAULT, 0, 0, 0, NULL);
}

/* All faults end; every node and worker is up. From here on progress is required. */
static void heal(struct world *w) {
    sim_trace(w, "healing after %llu events", (unsigned long long) w->result->events);
    w->healing = true;
    heal_network(w);
    w->loss_permille = w->dup_permille = w->slow_permille = 0;
    w->delay_max_ns = MIN(w->delay_max_ns, 2 * NS_PER_MS);
    w->disk_max_ns = MIN(w->disk_max_ns, 2 * NS_PER_MS);
    for (unsigned i = 0; i < w->nodes_count && !w->failed; i++) {
        sim_disk_clear_fault(w->nodes[i].disk);
        if (!w->nodes[i].up)
            (void) sim_node_start(&w->nodes[i]);
    }
}

static bool settled(const struct world *w) {
    uint64_t applied = 0;

    if (w->ops_pending > 0)
        return false;
    for (unsigned i = 0; i < w->nodes_count; i++) {
        const struct sim_node *n = &w->nodes[i];
        struct fsm *f;

        if (!n->up)
            return false;
        f = replica_fsm(n->replica);
        if (fsm_jobs_count(f, CHRONOS__V1__JOB_STATE__JOB_STATE_PENDING) > 0 ||
            fsm_jobs_count(f, CHRONOS__V1__JOB_STATE__JOB_STATE_RUNNING) > 0)
            return false;
        if (i > 0 && replica_applied(n->replica) != applied)
            return false;
        applied = replica_applied(n->replica);
    }
    return applied > 0;
}

static void liveness(struct world *w) {
    uint64_t end = w->now_ns + HEAL_NS, quiet_from;

    while (!w->failed && !w->no_memory && w->heap.count > 0 && w->now_ns < end && !settled(w))
        step(w);
    for (unsigned i = 0; i < w->nodes_count && !w->failed && !settled(w); i++)
        if (w->nodes[i].up)
            sim_trace(
                w, "node %u: applied=%llu last=%llu pending=%llu running=%llu", i + 1,
                (unsigned long long) replica_applied(w->nodes[i].replica),
                (unsigned long long) raft_last_index(replica_raft(w->nodes[i].replica)),
                (unsigned long long) fsm_jobs_count(replica_fsm(w->nodes[i].replica),
                                                    CHRONOS__V1__JOB_STATE__JOB_STATE_PENDING),
                (unsigned long long) fsm_jobs_count(replica_fsm(w->nodes[i].replica),
                                                    CHRONOS__V1__JOB_STATE__JOB_STATE_RUNNING));
    if (!w->failed && !settled(w))
        sim_fail(w, "liveness: not settled %llu s after healing (%u calls unanswered)",
                 (unsigned long long) (HEAL_NS / NS_PER_S), w->ops_pending);
    quiet_from = w->now_ns;
    while (!w->failed && !w->no_memory && w->now_ns < quiet_from + SETTLE_NS)
        step(w);
    /* The last thing heard may be half way to the others. */
    while (!w->failed && !w->no_memory && w->now_ns < quiet_from + 2 * SETTLE_NS && !settled(w))
        step(w);
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
    arena_done(&w->arena);
}

int sim_run(const struct sim_options *o, struct sim_result *ret) {
    struct world *w = calloc(1, sizeof(*w));
    int rc = 0;

    *ret = (struct sim_result){0};
    if (!w)
        return -ENOMEM;
    w->o = *o;
    w->result = ret;
    w->rng = rng_seed(o->seed * 0x9e3779b97f4a7c15ULL + 1);
    arena_init(&w->arena, ARENA_MAX);
    checker_init(&w->checker);
    draw_options(w);
    build(w);
    while (!w->failed && !w->no_memory && ret->events < o->events_max)
        step(w);
    if (!w->failed && !w->no_memory) {
        heal(w);
        liveness(w);
    }
    if (!w->failed && !w->no_memory)
        checker_final(w);
    ret->ok = !w->failed;
    if (w->no_memory)
        rc = -ENOMEM;
    teardown(w);
    free(w);
    return rc;
}
