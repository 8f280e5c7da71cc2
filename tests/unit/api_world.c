#include "api_world.h"

/* ---- the host: what cmd/ does for the real server ---- */

static uint64_t next_random(void *ctx) {
    return rng_next(ctx);
}

static void drop_peer_message(void *ctx, uint64_t node, struct bytes *payload) {
    (void) ctx;
    (void) node;
    (void) bytes_unref(payload);
}

static void on_timer(uv_timer_t *t) {
    (void) t; /* wakes the loop; on_prepare does the work */
}

static void on_prepare(uv_prepare_t *p) {
    struct world *w = p->data;
    uint64_t ms;

    if (w->halted)
        return;
    if (replica_wants_turn(w->replica) || mono_reached(clock_mono(), replica_deadline(w->replica)))
        replica_turn(w->replica);
    assert_int_equal(replica_failed(w->replica, NULL), 0);
    ms = mono_diff_ns(replica_deadline(w->replica), clock_mono()) / NS_PER_MS + 1;
    uv_update_time(&w->loop);
    (void) uv_timer_start(&w->timer, on_timer, MIN(ms, 1000UL), 0);
}

struct world *world_new(size_t members, size_t watch_events, size_t proposals) {
    struct world *w = calloc(1, sizeof(*w));
    struct replica_options ro;
    struct api_options ao;
    struct errtext e = {0};
    char address[32];

    assert_non_null(w);
    assert_int_equal(uv_loop_init(&w->loop), 0);
    os_test_dir(w->dir);
    w->rng = rng_seed(42);
    assert_int_equal(disk_posix_open(w->dir, &w->disk, &w->env.disk, &e), 0);
    assert_int_equal(disk_queue_new(&w->loop, &w->queue), 0);
    assert_int_equal(kv_mem_new(0, &w->kv), 0);
    w->env.clock = clock_env();
    w->env.random = (struct env_random){.next = next_random, .ctx = &w->rng};
    w->env.disk_queue = disk_queue_env(w->queue);
    w->env.bulk_queue = disk_queue_env(w->queue);
    w->env.peers = (struct env_peers){.send = drop_peer_message};
    for (size_t i = 0; i < members; i++)
        w->members.members[i] =
            (struct raft_member){.id = i + 1, .flags = RAFT_MEMBER_VOTER, .address = "x:1"};
    w->members.count = members;
    replica_options_default(&ro, 1, 42);
    ro.bootstrap = &w->members;
    ro.version = "test";
    ro.client_address = "127.0.0.1:1";
    ro.watch_events_max = watch_events;
    ro.pending_proposals_max = proposals;
    ro.commit_timeout_ns = members > 1 ? 500 * NS_PER_MS : 5 * NS_PER_S;
    ro.wal.segment_bytes = 1024 * 1024;
    assert_int_equal(replica_open(&ro, &w->env, w->kv, &w->replica, &e), 0);
    api_options_default(&ao);
    ao.replica = w->replica;
    ao.node_id = 1;
    ao.address = "127.0.0.1:0";
    ao.commit_timeout_ms = ro.commit_timeout_ns / NS_PER_MS;
    ao.watches_max = 4;
    ao.sign_of_life_ms = 100;
    ao.stream_queue_bytes_max = 64 * 1024;
    assert_int_equal(api_new(&w->loop, &ao, &w->api, &e), 0);
    assert_int_equal(rpc_client_new(&w->loop, &w->client, &e), 0);
    (void) snprintf(address, sizeof(address), "127.0.0.1:%d", api_port(w->api));
    assert_int_equal(rpc_channel_new(w->client, address, 8 * 1024 * 1024, &w->channel), 0);
    assert_int_equal(uv_prepare_init(&w->loop, &w->prepare), 0);
    assert_int_equal(uv_timer_init(&w->loop, &w->timer), 0);
    w->prepare.data = w;
    assert_int_equal(uv_prepare_start(&w->prepare, on_prepare), 0);
    return w;
}

void on_stopped(void *arg) {
    struct world *w = arg;

    w->stopped = true;
}

bool is_stopped(void *arg) {
    return ((struct world *) arg)->stopped;
}

static bool is_idle(void *arg) {
    return replica_idle(((struct world *) arg)->replica);
}

void world_free(struct world *w) {
    if (!w->stopped) {
        api_stop(w->api, 100, on_stopped, w);
        os_test_run_until(&w->loop, is_stopped, w);
    }
    w->channel = rpc_channel_free(w->channel);
    w->client = rpc_client_free(w->client);
    w->halted = true;
    os_test_run_until(&w->loop, is_idle, w);
    w->replica = replica_free(w->replica);
    w->api = api_free(w->api);
    uv_close((uv_handle_t *) &w->prepare, NULL);
    uv_close((uv_handle_t *) &w->timer, NULL);
    w->queue = disk_queue_stop(w->queue);
    os_test_loop_done(&w->loop);
    w->kv->ops->close(w->kv);
    w->disk = disk_posix_close(w->disk);
    os_test_rmdir(w->dir);
    free(w);
}

/* ---- calls ---- */

void on_answer(void *arg, const struct rpc_result *res) {
    struct answer *a = arg;

    a->done = true;
    a->code = res->code;
    (void) snprintf(a->message, sizeof(a->message), "%s", res->message);
    for (size_t i = 0; i < res->trailing_count; i++)
        (void) snprintf(a->metadata + strlen(a->metadata),
                        sizeof(a->metadata) - strlen(a->metadata), "%s=%s ", res->trailing[i].key,
                        res->trailing[i].value);
    if (res->code != RPC_OK)
        return;
    a->data = malloc(res->reply.len + 1);
    assert_non_null(a->data);
    a->len = res->reply.len;
    memcpy(a->data, res->reply.data, res->reply.len);
}

bool is_done(void *arg) {
    return ((struct answer *) arg)->done;
}

void start_call(struct world *w, const char *path, const ProtobufCMessage *m, uint64_t timeout_ms,
                struct answer *a) {
    struct bytes *b = bytes_new(protobuf_c_message_get_packed_size(m));

    assert_non_null(b);
    (void) protobuf_c_message_pack(m, b->data);
    *a = (struct answer){0};
    assert_int_equal(rpc_unary(w->channel, path, b, timeout_ms, true, on_answer, a), 0);
    (void) bytes_unref(b);
}

void call(struct world *w, const char *path, const ProtobufCMessage *m, uint64_t timeout_ms,
          struct answer *a) {
    start_call(w, path, m, timeout_ms, a);
    os_test_run_until(&w->loop, is_done, a);
}

void noop_request(Chronos__V1__SubmitJobRequest *req, Chronos__V1__JobSpec *spec,
                  Chronos__V1__Noop *noop) {
    chronos__v1__submit_job_request__init(req);
    chronos__v1__job_spec__init(spec);
    chronos__v1__noop__init(noop);
    spec->payload_case = CHRONOS__V1__JOB_SPEC__PAYLOAD_NOOP;
    spec->noop = noop;
    req->spec = spec;
}

void submit(struct world *w, uint64_t timeout_ms, struct answer *a) {
    Chronos__V1__SubmitJobRequest req;
    Chronos__V1__JobSpec spec;
    Chronos__V1__Noop noop;

    noop_request(&req, &spec, &noop);
    call(w, "/chronos.v1.JobService/SubmitJob", &req.base, timeout_ms, a);
}

/* 1,000 jobs in one call: one log entry, one index with 1,000 events. */
void submit_thousand(struct world *w) {
    Chronos__V1__SubmitJobsRequest all = CHRONOS__V1__SUBMIT_JOBS_REQUEST__INIT;
    Chronos__V1__SubmitJobRequest req, *jobs[1000];
    Chronos__V1__SubmitJobsResponse *resp;
    Chronos__V1__JobSpec spec;
    Chronos__V1__Noop noop;
    struct answer a;

    noop_request(&req, &spec, &noop);
    for (size_t i = 0; i < ARRAY_LEN(jobs); i++)
        jobs[i] = &req;
    all.jobs = jobs;
    all.n_jobs = ARRAY_LEN(jobs);
    call(w, "/chronos.v1.JobService/SubmitJobs", &all.base, 5000, &a);
    assert_int_equal(a.code, RPC_OK);
    resp = chronos__v1__submit_jobs_response__unpack(NULL, a.len, a.data);
    assert_non_null(resp);
    assert_int_equal(resp->n_results, ARRAY_LEN(jobs));
    for (size_t i = 0; i < resp->n_results; i++)
        assert_int_equal(resp->results[i]->code, RPC_OK);
    chronos__v1__submit_jobs_response__free_unpacked(resp, NULL);
    free(a.data);
}

void get(struct world *w, const char *id, Chronos__V1__Consistency consistency, uint64_t timeout_ms,
         struct answer *a) {
    Chronos__V1__GetJobRequest req = CHRONOS__V1__GET_JOB_REQUEST__INIT;

    req.job_id = (char *) (uintptr_t) id;
    req.consistency = consistency;
    call(w, "/chronos.v1.JobService/GetJob", &req.base, timeout_ms, a);
}

int health(struct world *w) {
    Grpc__Health__V1__HealthCheckRequest req = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
    struct answer a;
    int status;

    call(w, "/grpc.health.v1.Health/Check", &req.base, 5000, &a);
    assert_int_equal(a.code, RPC_OK);
    status = a.len == 2 ? a.data[1] : 0;
    free(a.data);
    return status;
}
