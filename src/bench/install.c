#include "bench/install.h"

#include "bench/paced.h"
#include "bench/requests.h"
#include "bench/stored.h"
#include "os/procstat.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define PER_S 2000U
#define PAYLOAD_BYTES 8192U /* of each stored job */
#define SETTLE_MS 3000U
#define CALL_MS 10000U
#define STATUS_MS 2000U
#define POLL_MS 100U
#define SAMPLE_MS 20U
#define TRANSFER_MS 1800000U
#define IN_STEP_ENTRIES 2000U /* behind: a second of the load */
#define NEW_ID (CLUSTER_NODES + 1U)
#define MIB (1024.0 * 1024.0)

/* Memory of the nodes, looked at all the time. */
struct sampler {
    uv_timer_t timer;
    const struct cluster *cluster;
    uint64_t peak[CLUSTER_NODES];
};

static void on_sample(uv_timer_t *timer) {
    struct sampler *s = timer->data;

    for (size_t i = 0; i < CLUSTER_NODES; i++) {
        struct procstat st = {0};

        if (s->cluster->nodes[i].pid > 0 && procstat_read(s->cluster->nodes[i].pid, &st) == 0)
            s->peak[i] = MAX(s->peak[i], st.rss_bytes);
    }
}

static void on_sampler_closed(uv_handle_t *h) {
    free(h->data);
}

static struct sampler *sampler_new(struct target *t) {
    struct sampler *s = calloc(1, sizeof(*s));

    if (!s)
        return NULL;
    s->cluster = t->cluster;
    (void) uv_timer_init(&t->b->loop, &s->timer);
    s->timer.data = s;
    (void) uv_timer_start(&s->timer, on_sample, 0, SAMPLE_MS);
    return s;
}

struct install {
    struct target *t;
    struct paced *load;
    struct sampler *sampler;
    size_t learner; /* index */
    uint64_t before_peak[CLUSTER_NODES];
    double state_mib;
    uint64_t caught_up_ms;
};

static int measure_before(struct install *in, uint64_t ms, struct bench_result *ret) {
    struct bench *b = in->t->b;
    struct usage_mark mark;
    int r = bench_pause(b, SETTLE_MS);

    if (r != BENCH_OK)
        return r;
    memset(in->sampler->peak, 0, sizeof(in->sampler->peak));
    target_usage_begin(in->t, &mark);
    paced_mark(in->load);
    r = bench_pause(b, ms);
    paced_result(in->load, ret);
    target_usage_end(in->t, &mark, &ret->usage);
    memcpy(in->before_peak, in->sampler->peak, sizeof(in->before_peak));
    return r;
}

static int replace(struct install *in) {
    struct target *t = in->t;
    struct cluster_node *n = &t->cluster->nodes[in->learner];
    _cleanup_(bytes_unrefp) struct bytes *request = NULL;
    _cleanup_(bytes_unrefp) struct bytes *reply = NULL;
    struct errtext why = {""};
    uint64_t old_id = n->id;
    int r = BENCH_OK;

    /* Our loop goes on all the while: what held it up would be counted as the cluster's. */
    cluster_kill_begin(t->cluster, in->learner);
    while (r == BENCH_OK && !cluster_node_gone(t->cluster, in->learner))
        r = bench_pause(t->b, 1);
    if (r == BENCH_OK)
        r = cluster_replace_node(t->cluster, in->learner, NEW_ID);
    if (r != BENCH_OK)
        return r;
    request = request_replace(old_id, NEW_ID, n->peer_address, n->address);
    r = target_call(t, t->leader, PATH_REPLACE, request, CALL_MS, &reply, &why);
    if (r == BENCH_FAILED)
        return bench_fail("install: replacing node %" PRIu64 ": %s", old_id, why.s);
    return r == BENCH_OK ? cluster_start_node(t->cluster, in->learner) : r;
}

/* It votes, and what it lacks is the load of a moment. */
static bool is_in_step(const Chronos__V1__GetClusterStatusResponse *s) {
    for (size_t i = 0; i < s->n_nodes; i++) {
        const Chronos__V1__NodeStatus *n = s->nodes[i];

        if (n->id == NEW_ID)
            return strcmp(n->membership, "voter") == 0 &&
                   n->match_index + IN_STEP_ENTRIES >= s->commit_index;
    }
    return false;
}

static int wait_in_step(struct install *in) {
    struct target *t = in->t;
    uint64_t begin = uv_hrtime();
    struct errtext why = {""};

    while (uv_hrtime() - begin < TRANSFER_MS * NS_PER_MS) {
        Chronos__V1__GetClusterStatusResponse *s = NULL;
        int r = target_status(t, t->leader, STATUS_MS, &s, &why);
        bool done = false;

        if (r == BENCH_INTERRUPTED)
            return r;
        if (s) {
            done = is_in_step(s);
            in->state_mib = (double) s->state_bytes / MIB;
            chronos__v1__get_cluster_status_response__free_unpacked(s, NULL);
        }
        in->caught_up_ms = (uv_hrtime() - begin) / NS_PER_MS;
        if (done)
            return BENCH_OK;
        if (cluster_find_dead(t->cluster) >= 0)
            return BENCH_FAILED;
        r = bench_pause(t->b, POLL_MS);
        if (r != BENCH_OK)
            return r;
    }
    return bench_fail("install: the new node has not caught up within %u s; last: %s",
                      TRANSFER_MS / 1000, why.s);
}

static int measure_meanwhile(struct install *in, struct bench_result *ret) {
    struct usage_mark mark;
    size_t leader = in->t->leader, other = CLUSTER_NODES - leader - in->learner;
    const uint64_t *peak = in->sampler->peak;
    int r;

    memset(in->sampler->peak, 0, sizeof(in->sampler->peak));
    target_usage_begin(in->t, &mark);
    paced_mark(in->load);
    r = replace(in);
    if (r == BENCH_OK)
        r = wait_in_step(in);
    paced_result(in->load, ret);
    target_usage_end(in->t, &mark, &ret->usage);
    bench_result_extra(ret, "state_mib", in->state_mib);
    bench_result_extra(ret, "catch_up_ms", (double) in->caught_up_ms);
    bench_result_extra(ret, "leader_before_mib", (double) in->before_peak[leader] / MIB);
    bench_result_extra(ret, "leader_peak_mib", (double) peak[leader] / MIB);
    bench_result_extra(ret, "learner_peak_mib", (double) peak[in->learner] / MIB);
    bench_result_extra(ret, "follower_peak_mib", (double) peak[other] / MIB);
    return r;
}

int install_run(struct target *t, uint64_t state_bytes, uint64_t before_ms,
                struct bench_result ret[2]) {
    struct install in = {.t = t, .learner = (t->leader + 1) % CLUSTER_NODES};
    int r = stored_fill(t, state_bytes / PAYLOAD_BYTES, PAYLOAD_BYTES), s;

    ret[0] = (struct bench_result){.name = "install_before", .concurrency = 1};
    ret[1] = (struct bench_result){.name = "install", .concurrency = 1};
    if (r == BENCH_OK)
        r = paced_new(t, PER_S, /* via_any= */ false, &in.load);
    if (r != BENCH_OK)
        return r;
    in.sampler = sampler_new(t);
    if (!in.sampler)
        r = bench_fail("out of memory");
    if (r == BENCH_OK)
        r = measure_before(&in, before_ms, &ret[0]);
    if (r == BENCH_OK)
        r = measure_meanwhile(&in, &ret[1]);
    s = paced_stop(in.load);
    (void) paced_free(in.load);
    if (in.sampler)
        uv_close((uv_handle_t *) &in.sampler->timer, on_sampler_closed);
    return r == BENCH_OK ? s : r;
}
