#include "bench/schedules.h"

#include "bench/requests.h"
#include "os/procstat.h"

#include "chronos/v1/cluster_service.pb-c.h"
#include "chronos/v1/schedule_service.pb-c.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define CALLS 512U
#define CALL_MS 10000U
#define RETRY_MS 5U
#define CREATE_MS 3600000U
#define FAILURES_MAX 100U
#define PROGRESS_EACH 100000U
#define BUSY 100U /* that tick each second, each at another moment of it */
#define BUSY_SPREAD_MS 990
#define SETTLE_MS                                                                                  \
    45000U /* a snapshot after what was created, and what the store has to tidy up                 \
            */
#define WARM_MS 3000U
#define READY_MS 120000U
#define STATUS_MS 500U
#define FIRST_TICK_MS 30000U
#define POLL_MS 1U
#define MIB (1024.0 * 1024.0)

/* ---- creating them --------------------------------------------------------------------------- */

struct creator;

struct create_slot {
    struct creator *c;
    struct bytes *request; /* owned; kept for another try */
    struct rpc_channel *channel;
    struct create_slot *next_retry;
    uint64_t start_ns;
};

struct creator {
    struct target *t;
    uv_timer_t retry_timer;
    struct create_slot *retries;
    uint64_t next, count, done;
    uint32_t open;
    bool busy;
    int month; /* of the idle ones' ticks: half a year from now */
    uint64_t failures;
    struct errtext why;
    struct histogram latency;
    struct create_slot slots[CALLS];
};

/* NULL when memory is out. The one with number @i. */
static struct bytes *request_create(const struct creator *c, uint64_t i) {
    Chronos__V1__CreateScheduleRequest m = CHRONOS__V1__CREATE_SCHEDULE_REQUEST__INIT;
    Chronos__V1__ScheduleSpec spec = CHRONOS__V1__SCHEDULE_SPEC__INIT;
    Chronos__V1__JobSpec job = CHRONOS__V1__JOB_SPEC__INIT;
    Chronos__V1__Noop noop = CHRONOS__V1__NOOP__INIT;
    char name[64], cron[64], *list[] = {cron};
    struct bytes *b;

    (void) snprintf(name, sizeof(name), "%s-%07" PRIu64, c->busy ? "busy" : "idle", i);
    if (c->busy)
        (void) snprintf(cron, sizeof(cron), "@every 1s");
    else /* H: by the name, so that hardly two of them tick at one time */
        (void) snprintf(cron, sizeof(cron), "H H H H %d *", c->month);
    job.payload_case = CHRONOS__V1__JOB_SPEC__PAYLOAD_NOOP;
    job.noop = &noop;
    spec.name = name;
    spec.n_cron = 1;
    spec.cron = list;
    spec.job = &job;
    spec.overlap = CHRONOS__V1__OVERLAP_POLICY__OVERLAP_POLICY_ALLOW;
    spec.spread_ms = c->busy ? BUSY_SPREAD_MS : 0;
    m.spec = &spec;
    m.idempotency_key = name; /* a call may be repeated */
    b = bytes_new(chronos__v1__create_schedule_request__get_packed_size(&m));
    if (b)
        (void) chronos__v1__create_schedule_request__pack(&m, b->data);
    return b;
}

static void next_create(struct create_slot *s);
static void issue(struct create_slot *s);

static void on_retry(uv_timer_t *timer) {
    struct creator *c = timer->data;
    struct create_slot *s = c->retries;

    c->retries = NULL;
    while (s) {
        struct create_slot *next = s->next_retry;

        issue(s);
        s = next;
    }
}

static void on_created(void *arg, const struct rpc_result *res) {
    struct create_slot *s = arg;
    struct creator *c = s->c;

    if (res->code == RPC_RESOURCE_EXHAUSTED && c->failures < FAILURES_MAX) {
        if (!c->retries)
            (void) uv_timer_start(&c->retry_timer, on_retry, RETRY_MS, 0);
        s->next_retry = c->retries;
        c->retries = s;
        return;
    }
    s->request = bytes_unref(s->request);
    c->open--;
    if (res->code == RPC_OK) {
        c->done++;
        histogram_add(&c->latency, uv_hrtime() - s->start_ns);
        if (c->done % PROGRESS_EACH == 0)
            bench_progress(c->t->b, "  %" PRIu64 " created", c->done);
    } else if (c->failures++ == 0) {
        errtext_set(&c->why, "code %d, %.400s", (int) res->code, res->message);
    }
    next_create(s);
}

static void issue(struct create_slot *s) {
    struct creator *c = s->c;

    if (rpc_unary(s->channel, "/chronos.v1.ScheduleService/CreateSchedule", s->request, CALL_MS,
                  /* wait_ready= */ true, on_created, s) == 0)
        return;
    s->request = bytes_unref(s->request);
    c->open--;
    c->failures = FAILURES_MAX;
    errtext_set(&c->why, "out of memory");
}

static void next_create(struct create_slot *s) {
    struct creator *c = s->c;

    if (c->next == c->count || c->failures >= FAILURES_MAX || c->t->b->signal)
        return;
    s->request = request_create(c, c->next++);
    s->start_ns = uv_hrtime();
    c->open++;
    issue(s); /* without memory for the request: refused there */
}

static bool none_open(const void *arg) {
    return ((const struct creator *) arg)->open == 0;
}

static void on_timer_closed(uv_handle_t *h) {
    free(h->data);
}

static int six_months_on(void) {
    time_t now = time(NULL);
    struct tm tm = {0};

    (void) gmtime_r(&now, &tm);
    return (tm.tm_mon + 6) % 12 + 1;
}

static int create_all(struct target *t, bool busy, uint64_t count, struct bench_result *ret) {
    struct creator *c = calloc(1, sizeof(*c));
    uint64_t begin = uv_hrtime();
    struct usage_mark mark;
    int r, signal = 0;

    if (!c)
        return bench_fail("out of memory");
    c->t = t;
    c->busy = busy;
    c->count = count;
    c->month = six_months_on();
    (void) uv_timer_init(&t->b->loop, &c->retry_timer);
    c->retry_timer.data = c;
    target_usage_begin(t, &mark);
    for (size_t i = 0; i < CALLS; i++) {
        c->slots[i] =
            (struct create_slot){.c = c, .channel = t->nodes[t->leader].channels[i % t->channels]};
        next_create(&c->slots[i]);
    }
    /* Each call ends by its own deadline and refers to our slots. */
    while ((r = bench_wait(t->b, none_open, c, CREATE_MS)) == BENCH_INTERRUPTED) {
        signal = t->b->signal;
        c->failures = FAILURES_MAX;
        t->b->signal = 0;
    }
    t->b->signal = signal ? signal : t->b->signal;
    target_usage_end(t, &mark, &ret->usage);
    *ret = (struct bench_result){.name = "schedules_create",
                                 .concurrency = CALLS,
                                 .batch = 1,
                                 .usage = ret->usage,
                                 .no_ratio = true,
                                 .count = c->latency.total};
    ret->ops_s = (double) c->done * 1e9 / (double) MAX(uv_hrtime() - begin, 1U);
    latency_of(&c->latency, &ret->latency);
    if (signal)
        r = BENCH_INTERRUPTED;
    else if (c->failures > 0)
        r = bench_fail("schedules: %" PRIu64 " calls failed; the first: %s", c->failures, c->why.s);
    uv_close((uv_handle_t *) &c->retry_timer, on_timer_closed);
    return r;
}

/* ---- nothing is due -------------------------------------------------------------------------- */

static int measure_idle(struct target *t, uint64_t count, uint64_t ms, struct bench_result *ret) {
    struct usage_mark mark;
    int r;

    bench_progress(t->b, "schedules_idle, %" PRIu64 " schedules, %.0f s...", count,
                   (double) ms / 1000);
    *ret = (struct bench_result){.name = "schedules_idle"};
    r = bench_pause(t->b, SETTLE_MS);
    if (r != BENCH_OK)
        return r;
    target_usage_begin(t, &mark);
    r = bench_pause(t->b, ms);
    target_usage_end(t, &mark, &ret->usage);
    bench_result_extra(ret, "schedules", (double) count);
    for (size_t i = 0; i < t->count; i++) {
        static const char *const names[] = {"node1_peak_mib", "node2_peak_mib", "node3_peak_mib"};
        struct procstat st = {0};

        if (i < ARRAY_LEN(names) && procstat_read(t->cluster->nodes[i].pid, &st) == 0)
            bench_result_extra(ret, names[i], (double) st.rss_peak_bytes / MIB);
    }
    return r;
}

/* ---- a new leader ---------------------------------------------------------------------------- */

/* What a node says of itself. False: it does not answer. */
static int look(struct target *t, size_t node, bool *ret_leads, uint64_t *ret_fired) {
    Chronos__V1__GetClusterStatusRequest m = CHRONOS__V1__GET_CLUSTER_STATUS_REQUEST__INIT;
    _cleanup_(bytes_unrefp) struct bytes *request = NULL, *reply = NULL;
    Chronos__V1__GetClusterStatusResponse *s;
    struct errtext why = {""};
    int r;

    m.local_only = true;
    request = bytes_new(chronos__v1__get_cluster_status_request__get_packed_size(&m));
    if (!request)
        return bench_fail("out of memory");
    (void) chronos__v1__get_cluster_status_request__pack(&m, request->data);
    *ret_leads = false;
    r = target_call(t, node, PATH_STATUS, request, STATUS_MS, &reply, &why);
    if (r != BENCH_OK)
        return r == BENCH_FAILED ? BENCH_OK : r;
    s = chronos__v1__get_cluster_status_response__unpack(NULL, reply->len, reply->data);
    if (!s)
        return bench_fail("schedules: a malformed status");
    *ret_leads = s->leader_id == t->nodes[node].id;
    *ret_fired = 0;
    for (size_t i = 0; i < s->n_lateness; i++)
        *ret_fired += s->lateness[i]->count;
    chronos__v1__get_cluster_status_response__free_unpacked(s, NULL);
    return BENCH_OK;
}

struct first_tick {
    uint64_t since_kill_ns;
    /* Since the last answer in which the node did not lead yet, so rather too long. */
    uint64_t since_won_ns;
};

/* The survivors are asked in turn who leads; then the one that does, what it has fired. */
static int wait_first_tick(struct target *t, const uint64_t *fired_before, struct first_tick *ret) {
    uint64_t begin = uv_hrtime(), followed_ns[BENCH_NODES_MAX] = {0};
    size_t killed = t->leader, leader = killed;

    for (size_t i = 0; uv_hrtime() - begin < FIRST_TICK_MS * NS_PER_MS; i++) {
        size_t node = leader != killed ? leader : i % t->count;
        uint64_t fired = 0, asked_ns = uv_hrtime();
        bool leads = false;
        int r = BENCH_OK;

        if (node != killed)
            r = look(t, node, &leads, &fired);
        if (leads)
            leader = node;
        else
            followed_ns[node] = asked_ns;
        if (r == BENCH_OK && leads && fired > fired_before[node]) {
            ret->since_kill_ns = uv_hrtime() - begin;
            ret->since_won_ns = uv_hrtime() - MAX(followed_ns[node], begin);
            return BENCH_OK;
        }
        if (r == BENCH_OK)
            r = bench_pause(t->b, POLL_MS);
        if (r != BENCH_OK)
            return r;
    }
    return bench_fail("schedules: no tick within %u s of the leader's end", FIRST_TICK_MS / 1000);
}

struct trials {
    struct histogram kill, won, start;
};

static int trial(struct target *t, struct trials *h) {
    uint64_t fired[BENCH_NODES_MAX] = {0}, begin;
    struct first_tick first = {0};
    size_t killed;
    int r = target_find_leader(t, READY_MS);

    for (size_t i = 0; r == BENCH_OK && i < t->count; i++) {
        bool leads;

        r = look(t, i, &leads, &fired[i]);
    }
    if (r != BENCH_OK)
        return r;
    killed = t->leader;
    cluster_kill_node(t->cluster, killed);
    r = wait_first_tick(t, fired, &first);
    if (r != BENCH_OK)
        return r;
    histogram_add(&h->kill, first.since_kill_ns);
    histogram_add(&h->won, first.since_won_ns);
    begin = uv_hrtime();
    r = cluster_start_node(t->cluster, killed);
    if (r == BENCH_OK)
        r = target_wait_ready(t, READY_MS);
    if (r != BENCH_OK)
        return r;
    histogram_add(&h->start, uv_hrtime() - begin);
    bench_progress(t->b, "  first tick %.1f ms after the kill; started again in %.0f ms",
                   (double) first.since_kill_ns / 1e6, (double) (uv_hrtime() - begin) / 1e6);
    return r;
}

static int measure_failover(struct target *t, uint32_t trials, struct bench_result *ret) {
    struct bench_result ignored;
    _cleanup_(freep) struct trials *h = calloc(1, sizeof(*h));
    int r;

    *ret = (struct bench_result){
        .name = "schedules_failover", .concurrency = 1, .batch = 1, .no_ratio = true};
    if (!h)
        return bench_fail("out of memory");
    bench_progress(t->b, "schedules_failover, %u trials...", trials);
    r = create_all(t, true, BUSY, &ignored);
    if (r == BENCH_OK)
        r = bench_pause(t->b, WARM_MS);
    for (uint32_t i = 0; r == BENCH_OK && i < trials; i++)
        r = trial(t, h);
    ret->count = h->kill.total;
    latency_of(&h->kill, &ret->latency);
    bench_result_extra(ret, "after_election_p50_ms",
                       (double) histogram_quantile(&h->won, 500000) / 1e6);
    bench_result_extra(ret, "after_election_max_ms", (double) h->won.max / 1e6);
    bench_result_extra(ret, "start_p50_ms", (double) histogram_quantile(&h->start, 500000) / 1e6);
    bench_result_extra(ret, "start_max_ms", (double) h->start.max / 1e6);
    return r;
}

int schedules_run(struct target *t, uint64_t count, uint64_t idle_ms, uint32_t trials,
                  struct bench_result ret[SCHEDULES_RESULTS]) {
    int r;

    ASSERT(t->cluster);
    bench_progress(t->b, "schedules_create, %u calls outstanding...", CALLS);
    r = create_all(t, false, count, &ret[0]);
    if (r == BENCH_OK)
        r = measure_idle(t, count, idle_ms, &ret[1]);
    return r == BENCH_OK ? measure_failover(t, trials, &ret[2]) : r;
}
