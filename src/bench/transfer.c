#include "bench/transfer.h"

#include "base/rand.h"
#include "bench/paced.h"
#include "bench/requests.h"

#include <stdlib.h>

#define PER_S 2000U
#define CALL_MS 5000U
#define READY_MS 10000U
#define WARM_MS 500U
#define BEFORE_MS_MAX 50U /* the transfer's place between two heartbeats must vary */
#define AFTER_MS 150U     /* what it leaves behind counts, too */

static int trial(struct target *t, struct paced *load, struct rng *rng, struct histogram *pauses) {
    size_t to = (t->leader + 1) % t->count;
    _cleanup_(bytes_unrefp) struct bytes *request = request_transfer(t->nodes[to].id);
    _cleanup_(bytes_unrefp) struct bytes *reply = NULL;
    struct errtext why = {""};
    int r = bench_pause(t->b, rng_range(rng, 1, BEFORE_MS_MAX));

    if (r != BENCH_OK)
        return r;
    paced_mark(load);
    r = target_call(t, t->leader, PATH_TRANSFER, request, CALL_MS, &reply, &why);
    if (r == BENCH_FAILED)
        return bench_fail("transfer: to node %zu: %s", to + 1, why.s);
    if (r == BENCH_OK)
        r = bench_pause(t->b, AFTER_MS);
    if (r != BENCH_OK)
        return r;
    histogram_add(pauses, paced_gap_ns(load));
    bench_progress(t->b, "  %.1f ms", (double) paced_gap_ns(load) / 1e6);
    return target_find_leader(t, READY_MS);
}

int transfer_run(struct target *t, uint32_t trials, struct bench_result *ret) {
    _cleanup_(freep) struct histogram *pauses = calloc(1, sizeof(*pauses));
    struct rng rng = rng_seed(1);
    struct paced *load = NULL;
    struct usage_mark mark;
    int r, s;

    if (!pauses)
        return bench_fail("out of memory");
    *ret =
        (struct bench_result){.name = "transfer", .concurrency = 1, .batch = 1, .no_ratio = true};
    r = paced_new(t, PER_S, /* via_any= */ true, &load);
    if (r != BENCH_OK)
        return r;
    r = bench_pause(t->b, WARM_MS);
    target_usage_begin(t, &mark);
    for (uint32_t i = 0; r == BENCH_OK && i < trials; i++)
        r = trial(t, load, &rng, pauses);
    target_usage_end(t, &mark, &ret->usage);
    s = paced_stop(load);
    (void) paced_free(load);
    ret->count = pauses->total;
    latency_of(pauses, &ret->latency);
    return r == BENCH_OK ? s : r;
}
