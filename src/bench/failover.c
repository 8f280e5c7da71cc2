#include "bench/failover.h"

#include "base/rand.h"
#include "bench/requests.h"

#include <stdio.h>
#include <stdlib.h>

#define CALL_MS 6000U   /* longer than the server's own answer */
#define TRIAL_MS 15000U /* no acknowledgement until then: given up */
#define READY_MS 20000U
#define RETRY_MS 1U
#define JITTER_MS 100U /* the kill's place between two heartbeats must vary */

struct prober {
    struct failover *f;
    struct rpc_channel *channel;
    bool in_call;
    bool wants_retry;
};

struct failover {
    struct target *t;
    struct bytes *request; /* owned */
    uv_timer_t retry_timer;
    struct prober probers[CLUSTER_NODES];
    size_t count;
    bool once; /* warming: one success of each, not the first of all */
    size_t acked;
    bool stopping;
    uint64_t acked_at_ns;
    uint64_t failures;
    struct errtext why; /* last */
    struct histogram latency;
};

static void probe(struct prober *p);

static void on_retry(uv_timer_t *timer) {
    struct failover *f = timer->data;

    for (size_t i = 0; i < f->count; i++) {
        if (!f->probers[i].wants_retry)
            continue;
        f->probers[i].wants_retry = false;
        probe(&f->probers[i]);
    }
}

static void on_done(void *arg, const struct rpc_result *res) {
    struct prober *p = arg;
    struct failover *f = p->f;

    p->in_call = false;
    if (res->code == RPC_OK) {
        if (f->acked++ == 0)
            f->acked_at_ns = uv_hrtime();
        return;
    }
    f->failures++;
    errtext_set(&f->why, "code %d, %.400s", (int) res->code, res->message);
    if (f->stopping)
        return;
    p->wants_retry = true;
    (void) uv_timer_start(&f->retry_timer, on_retry, RETRY_MS, 0);
}

static void probe(struct prober *p) {
    struct failover *f = p->f;

    if (f->stopping || (!f->once && f->acked > 0))
        return;
    p->in_call = rpc_unary(p->channel, PATH_SUBMIT_JOB, f->request, CALL_MS,
                           /* wait_ready= */ true, on_done, p) == 0;
    if (!p->in_call)
        errtext_set(&f->why, "out of memory");
}

static bool one_acked(const void *arg) {
    return ((const struct failover *) arg)->acked > 0;
}

static bool all_acked(const void *arg) {
    const struct failover *f = arg;

    return f->acked == f->count;
}

static bool none_in_call(const void *arg) {
    const struct failover *f = arg;

    for (size_t i = 0; i < f->count; i++) {
        if (f->probers[i].in_call)
            return false;
    }
    return true;
}

/* Start all probers and wait; then no call is left, or the next trial would be disturbed. */
static int probe_all(struct failover *f, bool once) {
    struct bench *b = f->t->b;
    int r, signal;

    f->once = once;
    f->acked = 0;
    f->stopping = false;
    for (size_t i = 0; i < f->count; i++)
        probe(&f->probers[i]);
    r = bench_wait(b, once ? all_acked : one_acked, f, TRIAL_MS);
    f->stopping = true;
    (void) uv_timer_stop(&f->retry_timer);
    signal = b->signal;
    b->signal = 0;
    while (!none_in_call(f) && bench_wait(b, none_in_call, f, CALL_MS + 2000) != BENCH_OK) {
        signal = b->signal ? b->signal : signal;
        b->signal = 0;
    }
    b->signal = signal;
    return signal ? BENCH_INTERRUPTED : r;
}

static void choose_survivors(struct failover *f) {
    f->count = 0;
    for (size_t i = 0; i < f->t->count; i++) {
        if (i != f->t->leader)
            f->probers[f->count++] = (struct prober){.f = f, .channel = f->t->nodes[i].channels[0]};
    }
}

static int trial(struct failover *f, struct rng *rng) {
    struct target *t = f->t;
    uint64_t begin;
    int r = target_find_leader(t, READY_MS);

    if (r != BENCH_OK)
        return r;
    choose_survivors(f);
    r = probe_all(f, /* once= */ true);
    if (r == BENCH_TIMEOUT)
        return bench_fail("failover: no submit through a follower: %s", f->why.s);
    if (r == BENCH_OK)
        r = bench_pause(t->b, rng_range(rng, 1, JITTER_MS));
    if (r != BENCH_OK)
        return r;
    begin = uv_hrtime();
    cluster_kill_node(t->cluster, t->leader);
    r = probe_all(f, /* once= */ false);
    if (r == BENCH_TIMEOUT)
        return bench_fail("failover: nothing acknowledged within %u s: %s", TRIAL_MS / 1000,
                          f->why.s);
    if (r != BENCH_OK)
        return r;
    histogram_add(&f->latency, f->acked_at_ns - begin);
    bench_progress(t->b, "  %.1f ms", (double) (f->acked_at_ns - begin) / 1e6);
    r = cluster_start_node(t->cluster, t->leader);
    return r == BENCH_OK ? target_wait_ready(t, READY_MS) : r;
}

static void on_timer_closed(uv_handle_t *h) {
    free(h->data);
}

int failover_run(struct target *t, uint32_t trials, struct bench_result *ret) {
    struct failover *f = calloc(1, sizeof(*f));
    struct rng rng = rng_seed(1);
    struct usage_mark mark;
    int r = BENCH_OK;

    ASSERT(t->cluster);
    if (!f)
        return bench_fail("out of memory");
    f->t = t;
    f->request = request_submit(REQUEST_NOOP, t->b->o->payload_bytes);
    (void) uv_timer_init(&t->b->loop, &f->retry_timer);
    f->retry_timer.data = f;
    *ret =
        (struct bench_result){.name = "failover", .concurrency = 1, .batch = 1, .no_ratio = true};
    if (!f->request)
        r = bench_fail("out of memory");
    target_usage_begin(t, &mark);
    for (uint32_t i = 0; r == BENCH_OK && i < trials; i++)
        r = trial(f, &rng);
    target_usage_end(t, &mark, &ret->usage);
    for (size_t i = 0; i < ret->usage.nodes; i++)
        ret->usage.servers[i].cpu_pct = 0; /* other processes than at the start */
    ret->count = f->latency.total;
    latency_of(&f->latency, &ret->latency);
    f->request = bytes_unref(f->request);
    uv_close((uv_handle_t *) &f->retry_timer, on_timer_closed);
    return r;
}
