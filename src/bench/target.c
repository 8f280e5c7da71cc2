#include "bench/target.h"

#include "bench/requests.h"
#include "os/procstat.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define MESSAGE_BYTES_MAX ((size_t) 16 * 1024 * 1024)
#define STATUS_MS 1000U
#define POLL_MS 20U
#define READY_MS 15000U
#define IN_STEP_ENTRIES 64U /* a follower this near has caught up */
#define MIB (1024.0 * 1024.0)

/* ---- connections --------------------------------------------------------------------------- */

static int add_node(struct target *t, uint64_t id, const char *address) {
    struct target_node *n = &t->nodes[t->count];

    if (t->count == BENCH_NODES_MAX)
        return bench_fail("more than %d nodes", BENCH_NODES_MAX);
    *n = (struct target_node){.id = id};
    if (snprintf(n->address, sizeof(n->address), "%s", address) >= (int) sizeof(n->address))
        return bench_fail("%.64s...: the address is too long", address);
    t->count++;
    for (size_t i = 0; i < t->channels; i++) {
        int r = rpc_channel_new(t->rpc, n->address, MESSAGE_BYTES_MAX, &n->channels[i]);

        if (r < 0)
            return bench_fail("%s: %s", address, err_name(r));
    }
    return BENCH_OK;
}

static void drop_nodes(struct target *t) {
    for (size_t i = 0; i < t->count; i++) {
        for (size_t k = 0; k < t->channels; k++)
            t->nodes[i].channels[k] = rpc_channel_free(t->nodes[i].channels[k]);
    }
    t->count = 0;
}

/* ---- status -------------------------------------------------------------------------------- */

struct one_call {
    bool done;
    struct bytes *reply; /* owned; NULL = it failed */
    struct errtext *why;
};

static void on_reply(void *arg, const struct rpc_result *res) {
    struct one_call *c = arg;

    c->done = true;
    if (res->code != RPC_OK) {
        errtext_set(c->why, "%.400s", res->message);
        return;
    }
    c->reply = bytes_copy(res->reply.data, res->reply.len);
    if (!c->reply)
        errtext_set(c->why, "out of memory");
}

static bool reply_came(const void *arg) {
    return ((const struct one_call *) arg)->done;
}

int target_call(struct target *t, size_t node, const char *path, struct bytes *request,
                uint64_t timeout_ms, struct bytes **ret, struct errtext *reterr) {
    struct one_call call = {.why = reterr};
    int interrupted = 0;

    ASSERT(node < t->count);
    if (!request || rpc_unary(t->nodes[node].channels[0], path, request, timeout_ms,
                              /* wait_ready= */ true, on_reply, &call) < 0) {
        errtext_set(reterr, "out of memory");
        return BENCH_FAILED;
    }
    /* The call ends by its own deadline; it refers to our stack, so it must. */
    while (!call.done) {
        if (bench_wait(t->b, reply_came, &call, timeout_ms) == BENCH_INTERRUPTED) {
            interrupted = t->b->signal;
            t->b->signal = 0;
        }
    }
    if (interrupted != 0) {
        t->b->signal = interrupted;
        call.reply = bytes_unref(call.reply);
        return BENCH_INTERRUPTED;
    }
    *ret = call.reply;
    return call.reply ? BENCH_OK : BENCH_FAILED;
}

int target_status(struct target *t, size_t node, uint64_t timeout_ms,
                  Chronos__V1__GetClusterStatusResponse **ret, struct errtext *reterr) {
    _cleanup_(bytes_unrefp) struct bytes *request = request_status();
    _cleanup_(bytes_unrefp) struct bytes *reply = NULL;
    int r = target_call(t, node, PATH_STATUS, request, timeout_ms, &reply, reterr);

    if (r != BENCH_OK)
        return r;
    *ret = chronos__v1__get_cluster_status_response__unpack(NULL, reply->len, reply->data);
    if (*ret)
        return BENCH_OK;
    errtext_set(reterr, "the reply is malformed");
    return BENCH_FAILED;
}

static bool is_ready(const struct target *t, const Chronos__V1__GetClusterStatusResponse *s) {
    size_t workers = 0;

    if (s->leader_id == 0 || s->n_nodes == 0)
        return false;
    for (size_t i = 0; i < s->n_nodes; i++) {
        if (!s->nodes[i]->is_alive || s->nodes[i]->match_index + IN_STEP_ENTRIES < s->commit_index)
            return false;
    }
    for (size_t i = 0; i < s->n_workers; i++)
        workers += s->workers[i]->is_alive ? 1 : 0;
    return !t->cluster || !t->cluster->with_workers || workers >= CLUSTER_NODES;
}

static void set_leader(struct target *t, const Chronos__V1__GetClusterStatusResponse *s) {
    for (size_t i = 0; i < t->count; i++) {
        if (t->nodes[i].id == s->leader_id)
            t->leader = i;
    }
}

/* Ask one node after the other until @fits. */
static int wait_status(struct target *t, uint64_t timeout_ms,
                       bool (*fits)(const struct target *t,
                                    const Chronos__V1__GetClusterStatusResponse *s),
                       const char *what) {
    uint64_t give_up = uv_hrtime() + timeout_ms * NS_PER_MS;
    struct errtext why = {"no answer"};

    for (size_t i = 0; uv_hrtime() < give_up; i++) {
        Chronos__V1__GetClusterStatusResponse *s = NULL;
        int r = BENCH_OK;

        if (!t->cluster || t->cluster->nodes[i % t->count].pid > 0)
            r = target_status(t, i % t->count, STATUS_MS, &s, &why);
        if (r == BENCH_OK && s) {
            bool yes = fits(t, s);

            if (yes)
                set_leader(t, s);
            else
                errtext_set(&why, "leader %" PRIu64 ", %zu workers", s->leader_id, s->n_workers);
            chronos__v1__get_cluster_status_response__free_unpacked(s, NULL);
            if (yes)
                return BENCH_OK;
        }
        if (t->cluster && cluster_find_dead(t->cluster) >= 0)
            return BENCH_FAILED;
        if (r != BENCH_INTERRUPTED)
            r = bench_pause(t->b, POLL_MS);
        if (r == BENCH_INTERRUPTED)
            return r;
    }
    return bench_fail("%s within %" PRIu64 " s; last: %s", what, timeout_ms / 1000, why.s);
}

int target_wait_ready(struct target *t, uint64_t timeout_ms) {
    return wait_status(t, timeout_ms, is_ready, "the cluster is not ready");
}

static bool has_leader(const struct target *t, const Chronos__V1__GetClusterStatusResponse *s) {
    for (size_t i = 0; i < t->count; i++) {
        if (t->nodes[i].id == s->leader_id && (!t->cluster || t->cluster->nodes[i].pid > 0))
            return true;
    }
    return false;
}

int target_find_leader(struct target *t, uint64_t timeout_ms) {
    return wait_status(t, timeout_ms, has_leader, "no leader");
}

/* The addresses given by hand may be any of the nodes: take the cluster's own list instead. */
static int learn_nodes(struct target *t) {
    uint64_t give_up = uv_hrtime() + READY_MS * NS_PER_MS;
    Chronos__V1__GetClusterStatusResponse *s = NULL;
    struct errtext why = {""};
    int r = BENCH_FAILED;

    for (size_t i = 0; r == BENCH_FAILED && uv_hrtime() < give_up; i++) {
        r = target_status(t, i % t->count, STATUS_MS, &s, &why);
        if (r == BENCH_FAILED && bench_pause(t->b, POLL_MS) == BENCH_INTERRUPTED)
            r = BENCH_INTERRUPTED;
    }
    if (r == BENCH_FAILED)
        return bench_fail("%s: %s", t->nodes[0].address, why.s);
    if (r != BENCH_OK)
        return r;
    drop_nodes(t);
    for (size_t i = 0; r == BENCH_OK && i < s->n_nodes; i++) {
        if (s->nodes[i]->client_address[0])
            r = add_node(t, s->nodes[i]->id, s->nodes[i]->client_address);
    }
    chronos__v1__get_cluster_status_response__free_unpacked(s, NULL);
    return r == BENCH_OK && t->count == 0 ? bench_fail("the cluster names no client address") : r;
}

int target_open(struct target *t, struct bench *b, struct cluster *cluster) {
    const struct bench_options *o = b->o;
    struct errtext why = {""};
    int r;

    *t = (struct target){.b = b, .cluster = cluster, .channels = o->channels};
    r = rpc_client_new(&b->loop, &t->rpc, &why);
    if (r < 0) {
        t->rpc = NULL;
        return bench_fail("%s", why.s[0] ? why.s : err_name(r));
    }
    r = BENCH_OK;
    for (size_t i = 0; r == BENCH_OK && i < (cluster ? (size_t) CLUSTER_NODES : o->addresses_count);
         i++)
        r = add_node(t, cluster ? i + 1 : 0, cluster ? cluster->nodes[i].address : o->addresses[i]);
    if (r == BENCH_OK && !cluster)
        r = learn_nodes(t);
    if (r == BENCH_OK)
        r = cluster ? target_wait_ready(t, READY_MS) : target_find_leader(t, READY_MS);
    return r;
}

void target_close(struct target *t) {
    if (!t->rpc)
        return;
    drop_nodes(t);
    t->rpc = rpc_client_free(t->rpc);
    (void) uv_run(&t->b->loop, UV_RUN_NOWAIT); /* libuv closes what it left */
}

/* ---- usage --------------------------------------------------------------------------------- */

static uint64_t cpu_of(pid_t pid, double *ret_rss_mib) {
    struct procstat s = {0};

    if (pid <= 0 || procstat_read(pid, &s) < 0)
        return 0;
    if (ret_rss_mib)
        *ret_rss_mib = (double) s.rss_bytes / MIB;
    return s.cpu_ns;
}

/* Busy time of all processors, with what a hypervisor took away; 0 when unknown. */
static uint64_t machine_busy_ns(void) {
    unsigned long long t[8] = {0}; /* user nice system idle iowait irq softirq steal */
    long per_s = sysconf(_SC_CLK_TCK);
    FILE *f = fopen("/proc/stat", "re");
    int n;

    if (!f)
        return 0;
    n = fscanf(f, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &t[0], &t[1], &t[2], &t[3], &t[4],
               &t[5], &t[6], &t[7]);
    (void) fclose(f);
    if (n != (int) ARRAY_LEN(t) || per_s <= 0)
        return 0;
    return (t[0] + t[1] + t[2] + t[5] + t[6] + t[7]) * (NS_PER_S / (unsigned long) per_s);
}

void target_usage_begin(const struct target *t, struct usage_mark *m) {
    *m = (struct usage_mark){
        .at_ns = uv_hrtime(), .client_ns = cpu_of(getpid(), NULL), .machine_ns = machine_busy_ns()};
    for (size_t i = 0; t->cluster && i < t->count; i++) {
        m->servers_ns[i] = cpu_of(t->cluster->nodes[i].pid, NULL);
        m->workers_ns[i] = cpu_of(cluster_worker_pid(t->cluster, i), NULL);
    }
}

static void usage_of(pid_t pid, uint64_t since_ns, uint64_t elapsed_ns, struct usage *ret) {
    uint64_t cpu = cpu_of(pid, &ret->rss_mib);

    /* A process that has been replaced meanwhile has less than its predecessor. */
    ret->cpu_pct = cpu > since_ns ? (double) (cpu - since_ns) * 100.0 / (double) elapsed_ns : 0;
}

void target_usage_end(const struct target *t, const struct usage_mark *m, struct bench_usage *ret) {
    uint64_t elapsed = MAX(uv_hrtime() - m->at_ns, 1U);

    *ret = (struct bench_usage){.leader = t->leader};
    usage_of(getpid(), m->client_ns, elapsed, &ret->client);
    ret->other_pct = (double) (machine_busy_ns() - m->machine_ns) * 100.0 / (double) elapsed -
                     ret->client.cpu_pct;
    if (!t->cluster)
        return;
    ret->nodes = t->count;
    ret->with_workers = t->cluster->with_workers;
    for (size_t i = 0; i < t->count; i++) {
        usage_of(t->cluster->nodes[i].pid, m->servers_ns[i], elapsed, &ret->servers[i]);
        usage_of(cluster_worker_pid(t->cluster, i), m->workers_ns[i], elapsed, &ret->workers[i]);
        ret->other_pct -= ret->servers[i].cpu_pct + ret->workers[i].cpu_pct;
    }
}
