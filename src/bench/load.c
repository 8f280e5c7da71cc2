/* Closed-loop load. See load.h.
 *
 * Invariants: every slot is either idle, in a call, or in the list that the retry timer sends
 * again; inflight counts the last two. Thread: the loop's. */
#include "bench/load.h"

#include "bench/requests.h"
#include "bench/pb_scan.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CALL_MS 6000U /* longer than the server's own answer, "outcome unknown" */
#define RETRY_MS 2U
#define FAILURES_MAX 100U

struct load;

struct load_slot {
    struct load *load;
    struct rpc_channel *channel;
    struct load_slot *next_retry;
    uint64_t start_ns;
};

struct load {
    struct target *t;
    const struct load_spec *spec;
    struct bytes *submit; /* owned; NULL when other requests are given */
    struct bytes *const *requests;
    size_t requests_count, next;
    const char *path;
    uv_timer_t retry_timer;
    struct load_slot *retries;
    uint32_t inflight;
    bool stopping;
    bool measuring;
    uint64_t calls; /* acknowledged while measuring */
    uint64_t refused;
    uint64_t failures;
    struct errtext why; /* of the first failure */
    struct histogram latency;
    struct load_slot slots[BENCH_CONCURRENCY_MAX];
};

static void issue(struct load_slot *s);

static void note_failure(struct load *l, enum rpc_code code, const char *message) {
    if (l->failures++ == 0)
        errtext_set(&l->why, "code %d, %.400s", (int) code, message);
    if (l->failures >= FAILURES_MAX)
        l->stopping = true;
}

static void on_retry(uv_timer_t *timer) {
    struct load *l = timer->data;
    struct load_slot *s = l->retries;

    l->retries = NULL;
    while (s) {
        struct load_slot *next = s->next_retry;

        issue(s);
        s = next;
    }
}

static void retry_later(struct load_slot *s) {
    struct load *l = s->load;

    if (!l->retries)
        (void) uv_timer_start(&l->retry_timer, on_retry, RETRY_MS, 0);
    s->next_retry = l->retries;
    l->retries = s;
}

/* Jobs of a SubmitJobs that were refused; each has its own result. */
static uint32_t count_refused(struct load *l, struct slice reply) {
    struct pb_scan w = pb_scan_of(reply);
    struct pb_field f, in;
    uint32_t results = 0, bad = 0;

    while (pb_scan_next(&w, &f) > 0) {
        struct pb_scan inner;

        if (f.number != 1 || f.type != PB_BYTES)
            continue;
        results++;
        inner = pb_scan_of(f.bytes);
        /* code = 1 comes first when it is not 0, and is left out when it is. */
        if (pb_scan_next(&inner, &in) > 0 && in.number == 1 && in.value != 0)
            bad++;
    }
    return bad + (results < l->spec->batch ? l->spec->batch - results : 0);
}

static void on_done(void *arg, const struct rpc_result *res) {
    struct load_slot *s = arg;
    struct load *l = s->load;

    if (res->code == RPC_RESOURCE_EXHAUSTED && !l->stopping) {
        l->refused++;
        retry_later(s);
        return;
    }
    if (res->code != RPC_OK) {
        note_failure(l, res->code, res->message);
    } else if (l->spec->batch > 1 && count_refused(l, res->reply) > 0) {
        note_failure(l, res->code, "a job of a SubmitJobs was refused");
    } else if (l->measuring) {
        l->calls++;
        histogram_add(&l->latency, uv_hrtime() - s->start_ns);
    }
    if (l->stopping) {
        l->inflight--;
        return;
    }
    s->start_ns = uv_hrtime();
    issue(s);
}

static struct bytes *next_request(struct load *l) {
    if (l->next == l->requests_count)
        l->next = 0;
    return l->requests[l->next++];
}

static void issue(struct load_slot *s) {
    struct load *l = s->load;
    int r = l->stopping ? 1
                        : rpc_unary(s->channel, l->path, next_request(l), CALL_MS,
                                    /* wait_ready= */ true, on_done, s);

    if (r == 0)
        return;
    l->inflight--;
    if (r < 0)
        note_failure(l, RPC_INTERNAL, err_name(r));
}

static void start_slots(struct load *l) {
    const struct target *t = l->t;
    bool by_follower = l->spec->by_follower;
    size_t first = by_follower ? (t->leader + 1) % t->count : t->leader;
    size_t nodes = t->b->o->via_any && !by_follower ? t->count : 1;

    l->inflight = l->spec->concurrency;
    for (uint32_t i = 0; i < l->spec->concurrency; i++) {
        size_t node = nodes > 1 ? i % nodes : first;
        struct load_slot *s = &l->slots[i];

        *s = (struct load_slot){.load = l, .start_ns = uv_hrtime()};
        s->channel = t->nodes[node].channels[i / nodes % t->channels];
        issue(s);
    }
}

static bool stopped_early(const void *arg) {
    return ((const struct load *) arg)->stopping;
}

static bool drained(const void *arg) {
    return ((const struct load *) arg)->inflight == 0;
}

/* All slots answered; a signal waits meanwhile, but not longer than the calls' own deadline. */
static int drain(struct load *l) {
    struct bench *b = l->t->b;
    int signal = b->signal;
    int r;

    l->stopping = true;
    on_retry(&l->retry_timer); /* counts them out */
    b->signal = 0;
    r = bench_wait(b, drained, l, CALL_MS + 2000);
    while (l->inflight > 0 && r == BENCH_INTERRUPTED) {
        signal = b->signal;
        b->signal = 0;
        r = bench_wait(b, drained, l, CALL_MS + 2000);
    }
    b->signal = b->signal ? b->signal : signal;
    ASSERT(l->inflight == 0); /* the channel ends each call by its deadline */
    return b->signal ? BENCH_INTERRUPTED : BENCH_OK;
}

static int run_phases(struct load *l, struct bench_result *ret) {
    struct bench *b = l->t->b;
    struct usage_mark mark;
    uint64_t begin;
    int r;

    start_slots(l);
    r = bench_wait(b, stopped_early, l, l->spec->warm_ms);
    if (r == BENCH_TIMEOUT) {
        target_usage_begin(l->t, &mark);
        l->refused = 0;
        l->measuring = true;
        begin = uv_hrtime();
        r = bench_wait(b, stopped_early, l, l->spec->measure_ms);
        l->measuring = false;
        ret->ops_s = (double) (l->calls * l->spec->batch) * 1e9 / (double) (uv_hrtime() - begin);
        target_usage_end(l->t, &mark, &ret->usage);
    }
    return r == BENCH_TIMEOUT ? BENCH_OK : r;
}

static void on_timer_closed(uv_handle_t *h) {
    free(h->data);
}

/* None when memory is out. */
static void choose_requests(struct load *l) {
    const struct load_spec *spec = l->spec;
    size_t payload = l->t->b->o->payload_bytes;

    if (spec->path) {
        l->path = spec->path;
        l->requests = spec->requests;
        l->requests_count = spec->requests_count;
        return;
    }
    l->path = spec->batch > 1 ? PATH_SUBMIT_JOBS : PATH_SUBMIT_JOB;
    l->submit = spec->batch > 1 ? request_submit_batch(REQUEST_NOOP, payload, spec->batch)
                                : request_submit(REQUEST_NOOP, payload);
    l->requests = &l->submit;
    l->requests_count = l->submit ? 1 : 0;
}

int load_run(struct target *t, const struct load_spec *spec, struct bench_result *ret) {
    struct load *l = calloc(1, sizeof(*l));
    int r = BENCH_FAILED, d;

    ASSERT(spec->concurrency >= 1 && spec->concurrency <= BENCH_CONCURRENCY_MAX);
    if (!l)
        return bench_fail("out of memory");
    l->t = t;
    l->spec = spec;
    choose_requests(l);
    (void) uv_timer_init(&t->b->loop, &l->retry_timer);
    l->retry_timer.data = l;
    *ret = (struct bench_result){
        .name = spec->name, .concurrency = spec->concurrency, .batch = spec->batch};
    if (l->requests_count > 0) {
        r = run_phases(l, ret);
        d = drain(l);
        r = d != BENCH_OK ? d : r;
    }
    ret->count = l->latency.total;
    ret->refused = l->refused;
    latency_of(&l->latency, &ret->latency);
    if (r != BENCH_INTERRUPTED && l->failures > 0)
        r = bench_fail("%s: %" PRIu64 " calls failed; the first: %s", spec->name, l->failures,
                       l->why.s);
    else if (r == BENCH_OK && ret->count == 0)
        r = bench_fail("%s: nothing was acknowledged", spec->name);
    l->submit = bytes_unref(l->submit);
    uv_close((uv_handle_t *) &l->retry_timer, on_timer_closed);
    return r;
}
