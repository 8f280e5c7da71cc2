/* Jobs end to end. See e2e.h.
 *
 * A completion may be seen before the reply that names the job: then its record waits in the map
 * with the time of its end. On a cluster that others use, their jobs' ends come, too; they are
 * forgotten when STRANGERS_MAX of them wait.
 * Invariants: submitted - completed is at most the window; every acknowledged job is in the map
 * until its end was seen. Thread: the loop's. */
#include "bench/e2e.h"

#include "base/map.h"
#include "bench/pb_scan.h"

#include "chronos/v1/job.pb-c.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CALL_MS 6000U
#define DRAIN_MS 15000U
#define RETRY_MS 2U
#define FAILURES_MAX 100U
#define ID_BYTES_MAX 31
#define STRANGERS_MAX 65536U
#define CALLS_MAX 1024U

struct record {
    struct record *next_idle;
    uint64_t start_ns; /* 0 = the reply has not come yet */
    uint64_t end_ns;   /* 0 = running */
    uint8_t id_len;
    char id[ID_BYTES_MAX];
};

struct e2e;

struct submit_call {
    struct e2e *e;
    struct submit_call *next_idle;
    uint64_t start_ns;
};

struct e2e {
    struct target *t;
    const struct e2e_spec *spec;
    struct bytes *request; /* owned */
    struct rpc_stream *watch;
    bool watching; /* its first message has come */
    bool watch_ended;
    uint64_t watched_index;
    uv_timer_t retry_timer;
    struct bytesmap jobs; /* id -> owned record */
    struct record *idle;  /* owned */
    uint32_t strangers;   /* records without a start */
    uint32_t calls;       /* outstanding */
    uint32_t channel_next;
    struct submit_call *idle_calls;
    uint32_t open; /* jobs of outstanding calls, and acknowledged jobs not yet completed */
    bool stopping;
    bool measuring;
    bool retrying;      /* the timer will fill the window */
    uint64_t submitted; /* or under way */
    uint64_t completed;
    uint64_t refused;
    uint64_t failures;
    struct errtext why; /* of the first failure */
    struct histogram latency;
    struct submit_call slots[CALLS_MAX];
};

static void fill_window(struct e2e *e);

static void note_failure(struct e2e *e, const char *what, const char *more) {
    if (e->failures++ == 0)
        errtext_set(&e->why, "%s%.400s", what, more);
    if (e->failures >= FAILURES_MAX)
        e->stopping = true;
}

/* ---- records ------------------------------------------------------------------------------- */

static struct record *record_add(struct e2e *e, struct slice id) {
    struct record *r = e->idle;

    if (id.len == 0 || id.len > ID_BYTES_MAX)
        return NULL;
    if (r)
        e->idle = r->next_idle;
    else
        r = calloc(1, sizeof(*r));
    if (!r)
        return NULL;
    *r = (struct record){.id_len = (uint8_t) id.len};
    memcpy(r->id, id.data, id.len);
    if (bytesmap_put(&e->jobs, slice_of(r->id, id.len), r) < 0) {
        free(r);
        return NULL;
    }
    return r;
}

static void record_remove(struct e2e *e, struct record *r) {
    (void) bytesmap_del(&e->jobs, slice_of(r->id, r->id_len));
    r->next_idle = e->idle;
    e->idle = r;
}

static void forget_strangers(struct e2e *e) {
    struct record *list = NULL;
    struct bytesmap_slot *slot;
    size_t pos = 0;

    while ((slot = bytesmap_next(&e->jobs, &pos))) {
        struct record *r = slot->value;

        if (r->start_ns != 0)
            continue;
        r->next_idle = list;
        list = r;
    }
    while (list) {
        struct record *r = list;

        list = r->next_idle;
        record_remove(e, r);
    }
    e->strangers = 0;
}

static void complete(struct e2e *e, struct record *r) {
    e->open--;
    if (e->measuring) {
        e->completed++;
        histogram_add(&e->latency, r->end_ns - r->start_ns);
    }
    record_remove(e, r);
}

/* ---- submits ------------------------------------------------------------------------------- */

static void on_accepted(struct e2e *e, struct slice id, uint64_t start_ns) {
    struct record *r = bytesmap_get(&e->jobs, id);

    if (r && r->start_ns == 0) {
        e->strangers--;
        r->start_ns = start_ns;
        complete(e, r);
        return;
    }
    r = r ? NULL : record_add(e, id);
    if (r)
        r->start_ns = start_ns;
    else
        note_failure(e, "a job id came twice, is too long, or memory is out", "");
}

/* One SubmitJobResult: code = 1, message = 2, job_id = 3. */
static bool read_result(struct e2e *e, struct slice result, uint64_t start_ns) {
    struct pb_scan w = pb_scan_of(result);
    struct pb_field f;

    while (pb_scan_next(&w, &f) > 0) {
        if (f.number == 1 && f.value != 0)
            return false;
        if (f.number == 3 && f.type == PB_BYTES) {
            on_accepted(e, f.bytes, start_ns);
            return true;
        }
    }
    return false;
}

static void read_results(struct e2e *e, struct slice reply, uint64_t start_ns) {
    struct pb_scan w = pb_scan_of(reply);
    struct pb_field f;
    uint32_t accepted = 0;

    while (pb_scan_next(&w, &f) > 0) {
        if (f.number == 1 && f.type == PB_BYTES && read_result(e, f.bytes, start_ns))
            accepted++;
    }
    if (accepted == e->spec->batch)
        return;
    note_failure(e, "a job of a SubmitJobs was refused", "");
    e->open -= MIN(e->spec->batch - accepted, e->open);
}

static void on_retry(uv_timer_t *timer) {
    struct e2e *e = timer->data;

    e->retrying = false;
    fill_window(e);
}

static void on_submitted(void *arg, const struct rpc_result *res) {
    struct submit_call *c = arg;
    struct e2e *e = c->e;

    c->next_idle = e->idle_calls;
    e->idle_calls = c;
    e->calls--;
    if (res->code == RPC_OK) {
        read_results(e, res->reply, c->start_ns);
        fill_window(e);
        return;
    }
    e->open -= e->spec->batch;
    e->submitted -= e->spec->batch;
    if (res->code == RPC_RESOURCE_EXHAUSTED)
        e->refused++;
    else
        note_failure(e, "SubmitJobs: ", res->message);
    if (!e->retrying)
        (void) uv_timer_start(&e->retry_timer, on_retry, RETRY_MS, 0);
    e->retrying = true;
}

static bool wants_more(const struct e2e *e) {
    return e->spec->jobs == 0 || e->submitted < e->spec->jobs;
}

static void fill_window(struct e2e *e) {
    const struct target_node *leader = &e->t->nodes[e->t->leader];

    while (!e->stopping && !e->retrying && wants_more(e) &&
           e->open + e->spec->batch <= e->spec->window && e->idle_calls) {
        struct submit_call *c = e->idle_calls;

        c->start_ns = uv_hrtime();
        if (rpc_unary(leader->channels[e->channel_next++ % e->t->channels], PATH_SUBMIT_JOBS,
                      e->request, CALL_MS, /* wait_ready= */ true, on_submitted, c) < 0) {
            note_failure(e, "out of memory", "");
            e->stopping = true;
            return;
        }
        e->idle_calls = c->next_idle;
        e->calls++;
        e->open += e->spec->batch;
        e->submitted += e->spec->batch;
    }
}

/* ---- the watch ----------------------------------------------------------------------------- */

static void on_end_of_job(struct e2e *e, struct slice id, uint64_t to, uint64_t now) {
    struct record *r = bytesmap_get(&e->jobs, id);

    if (to != CHRONOS__V1__JOB_STATE__JOB_STATE_COMPLETED) {
        if (r)
            note_failure(e, "a job did not complete", "");
    }
    if (r && r->start_ns != 0) {
        r->end_ns = now;
        complete(e, r);
        return;
    }
    if (r)
        return; /* told twice: after a watch that was resumed */
    if (e->strangers >= STRANGERS_MAX)
        forget_strangers(e);
    r = record_add(e, id);
    if (!r)
        return;
    r->end_ns = now;
    e->strangers++;
}

/* One JobEvent: job_id = 2, to = 4. */
static void read_event(struct e2e *e, struct slice event, uint64_t now) {
    struct pb_scan w = pb_scan_of(event);
    struct slice id = {0};
    struct pb_field f;

    while (pb_scan_next(&w, &f) > 0) {
        if (f.number == 2 && f.type == PB_BYTES)
            id = f.bytes;
        if (f.number != 4)
            continue;
        if (f.value >= CHRONOS__V1__JOB_STATE__JOB_STATE_COMPLETED && id.len > 0)
            on_end_of_job(e, id, f.value, now);
        return;
    }
}

static void on_watch_message(void *arg, struct rpc_stream *s, struct slice message) {
    struct e2e *e = arg;
    struct pb_scan w = pb_scan_of(message);
    uint64_t now = uv_hrtime();
    struct pb_field f;

    (void) s;
    e->watching = true;
    while (pb_scan_next(&w, &f) > 0) {
        if (f.number == 1)
            e->watched_index = f.value;
        else if (f.number == 2 && f.type == PB_BYTES)
            read_event(e, f.bytes, now);
    }
    fill_window(e);
}

static void on_watch_end(void *arg, struct rpc_stream *s, const struct rpc_result *res) {
    struct e2e *e = arg;

    (void) s;
    e->watch = NULL;
    e->watch_ended = true;
    if (res->code != RPC_CANCELLED) {
        note_failure(e, "the watch ended: ", res->message);
        e->stopping = true;
    }
}

static bool watch_settled(const void *arg) {
    const struct e2e *e = arg;

    return e->watching || e->watch_ended;
}

static bool watch_gone(const void *arg) {
    return !((const struct e2e *) arg)->watch;
}

static int open_watch(struct e2e *e) {
    static const struct rpc_stream_callbacks callbacks = {.on_message = on_watch_message,
                                                          .on_end = on_watch_end};
    _cleanup_(bytes_unrefp) struct bytes *first = request_watch(0);
    struct target *t = e->t;
    int r;

    if (!first || rpc_stream_open(t->nodes[t->leader].channels[0], PATH_WATCH_JOBS, first, 0,
                                  &callbacks, e, &e->watch) < 0) {
        e->watch = NULL;
        return bench_fail("out of memory");
    }
    rpc_stream_writes_done(e->watch);
    r = bench_wait(t->b, watch_settled, e, CALL_MS);
    if (r == BENCH_OK && e->watch_ended)
        return bench_fail("%s: %s", e->spec->name, e->why.s);
    return r == BENCH_TIMEOUT ? bench_fail("WatchJobs says nothing") : r;
}

/* ---- phases -------------------------------------------------------------------------------- */

static bool stopped_early(const void *arg) {
    const struct e2e *e = arg;

    return e->stopping || (!wants_more(e) && e->calls == 0 && e->open == 0);
}

static bool all_completed(const void *arg) {
    const struct e2e *e = arg;

    return (e->calls == 0 && e->open == 0) || e->watch_ended;
}

static bool no_calls(const void *arg) {
    return ((const struct e2e *) arg)->calls == 0;
}

static int measure(struct e2e *e, struct bench_result *ret) {
    struct bench *b = e->t->b;
    struct usage_mark mark;
    uint64_t begin;
    int r;

    fill_window(e);
    r = bench_wait(b, stopped_early, e, e->spec->warm_ms);
    if (r != BENCH_TIMEOUT)
        return r;
    target_usage_begin(e->t, &mark);
    e->refused = 0;
    e->measuring = true;
    begin = uv_hrtime();
    r = bench_wait(b, stopped_early, e, e->spec->measure_ms);
    e->measuring = false;
    ret->ops_s = (double) e->completed * 1e9 / (double) (uv_hrtime() - begin);
    target_usage_end(e->t, &mark, &ret->usage);
    if (r == BENCH_OK && !e->stopping)
        return r; /* all of them */
    if (r != BENCH_TIMEOUT)
        return r;
    if (e->spec->jobs > 0)
        return bench_fail("%s: %" PRIu64 " of %" PRIu64 " jobs completed within %" PRIu64 " s",
                          e->spec->name, e->completed, e->spec->jobs, e->spec->measure_ms / 1000);
    e->stopping = true;
    r = bench_wait(b, all_completed, e, DRAIN_MS);
    if (r == BENCH_TIMEOUT || (r == BENCH_OK && e->open > 0))
        return bench_fail("%s: %u acknowledged jobs did not complete within %u s", e->spec->name,
                          e->open, DRAIN_MS / 1000);
    return r;
}

/* Calls and the watch refer to @e: let them end. A signal waits meanwhile. */
static void settle(struct e2e *e) {
    struct bench *b = e->t->b;
    int signal = b->signal;

    e->stopping = true;
    if (e->watch)
        rpc_stream_cancel(e->watch);
    b->signal = 0;
    while (e->calls > 0 || e->watch) {
        if (bench_wait(b, e->calls > 0 ? no_calls : watch_gone, e, CALL_MS) == BENCH_INTERRUPTED) {
            signal = b->signal;
            b->signal = 0;
        }
    }
    b->signal = signal;
}

static void on_timer_closed(uv_handle_t *h) {
    struct e2e *e = h->data;
    struct bytesmap_slot *slot;
    size_t pos = 0;

    while ((slot = bytesmap_next(&e->jobs, &pos)))
        free(slot->value);
    bytesmap_done(&e->jobs);
    while (e->idle) {
        struct record *r = e->idle;

        e->idle = r->next_idle;
        free(r);
    }
    free(e);
}

int e2e_run(struct target *t, const struct e2e_spec *spec, struct bench_result *ret) {
    struct e2e *e = calloc(1, sizeof(*e));
    int r;

    ASSERT(spec->window >= spec->batch && spec->window <= E2E_WINDOW_MAX);
    if (!e)
        return bench_fail("out of memory");
    e->t = t;
    e->spec = spec;
    bytesmap_init(&e->jobs);
    for (size_t i = 0; i < CALLS_MAX; i++) {
        e->slots[i] = (struct submit_call){.e = e, .next_idle = e->idle_calls};
        e->idle_calls = &e->slots[i];
    }
    e->request = request_submit_batch(
        spec->what, spec->payload_bytes > 0 ? spec->payload_bytes : t->b->o->payload_bytes,
        spec->batch);
    (void) uv_timer_init(&t->b->loop, &e->retry_timer);
    e->retry_timer.data = e;
    *ret = (struct bench_result){
        .name = spec->name, .concurrency = spec->window, .batch = spec->batch};
    r = e->request ? open_watch(e) : bench_fail("out of memory");
    if (r == BENCH_OK)
        r = measure(e, ret);
    settle(e);
    ret->count = e->latency.total;
    ret->refused = e->refused;
    latency_of(&e->latency, &ret->latency);
    if (r == BENCH_OK && e->failures > 0)
        r = bench_fail("%s: %" PRIu64 " failures; the first: %s", spec->name, e->failures,
                       e->why.s);
    else if (r == BENCH_OK && ret->count == 0)
        r = bench_fail("%s: nothing was completed", spec->name);
    e->request = bytes_unref(e->request);
    uv_close((uv_handle_t *) &e->retry_timer, on_timer_closed);
    return r;
}
