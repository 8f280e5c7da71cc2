/* Goal: the services over a real replica and real gRPC: answers, limits, exact errors, and clients
 * that leave or do not read, without use after free and without unbounded memory.
 * Method: one process holds a replica (memory store, real log in a scratch directory), the api and
 * a gRPC client on one loop. A replica whose two peers do not exist never has a leader.
 * Read only under the sanitizers does this test see all that it looks for. */
#include "api_world.h"

#include "fsm/job_id.h"

/* ---- tests ---- */

/* Goal: a job goes in, comes back by id and in a list, and is cancelled, twice without harm. */
static void test_submit_get_list_cancel(void **state) {
    Chronos__V1__ListJobsRequest list = CHRONOS__V1__LIST_JOBS_REQUEST__INIT;
    Chronos__V1__CancelJobRequest cancel = CHRONOS__V1__CANCEL_JOB_REQUEST__INIT;
    struct world *w = world_new(1, 1000, 256);
    Chronos__V1__ListJobsResponse *jobs;
    Chronos__V1__GetJobResponse *got;
    struct answer a;

    (void) state;
    submit(w, 5000, &a);
    assert_int_equal(a.code, RPC_OK);
    free(a.data);
    assert_int_equal(health(w), 1);
    get(w, "j11", CHRONOS__V1__CONSISTENCY__CONSISTENCY_LINEARIZABLE, 5000, &a);
    assert_int_equal(a.code, RPC_OK);
    got = chronos__v1__get_job_response__unpack(NULL, a.len, a.data);
    assert_non_null(got);
    assert_int_equal(got->job->state, CHRONOS__V1__JOB_STATE__JOB_STATE_PENDING);
    assert_string_equal(got->job->spec->queue, "default");
    chronos__v1__get_job_response__free_unpacked(got, NULL);
    free(a.data);
    call(w, "/chronos.v1.JobService/ListJobs", &list.base, 5000, &a);
    assert_int_equal(a.code, RPC_OK);
    jobs = chronos__v1__list_jobs_response__unpack(NULL, a.len, a.data);
    assert_non_null(jobs);
    assert_int_equal(jobs->n_jobs, 1);
    assert_true(jobs->index > 0);
    assert_string_equal(jobs->next_page_token, "");
    chronos__v1__list_jobs_response__free_unpacked(jobs, NULL);
    free(a.data);
    cancel.job_id = (char *) (uintptr_t) "j11";
    for (int i = 0; i < 2; i++) {
        call(w, "/chronos.v1.JobService/CancelJob", &cancel.base, 5000, &a);
        assert_int_equal(a.code, RPC_OK);
        free(a.data);
    }
    get(w, "j12", CHRONOS__V1__CONSISTENCY__CONSISTENCY_LINEARIZABLE, 5000, &a);
    assert_int_equal(a.code, RPC_NOT_FOUND);
    get(w, "j1O", CHRONOS__V1__CONSISTENCY__CONSISTENCY_LINEARIZABLE, 5000, &a);
    assert_int_equal(a.code, RPC_INVALID_ARGUMENT);
    world_free(w);
}

#define REPLY_BYTES_MAX (4UL * 1024 * 1024) /* what clients accept by default */

/* All pages of @page_size from the oldest job on. How many pages; each job comes once, in order. */
static size_t list_all(struct world *w, uint32_t page_size, size_t *ret_jobs, size_t *ret_largest) {
    Chronos__V1__ListJobsRequest list = CHRONOS__V1__LIST_JOBS_REQUEST__INIT;
    char token[512] = "";
    uint64_t last = 0, seq = 0;
    size_t pages = 0;

    *ret_jobs = *ret_largest = 0;
    list.page_size = page_size;
    list.oldest_first = true;
    do {
        Chronos__V1__ListJobsResponse *r;
        struct answer a;

        list.page_token = token;
        call(w, "/chronos.v1.JobService/ListJobs", &list.base, 5000, &a);
        assert_int_equal(a.code, RPC_OK);
        assert_true(a.len <= REPLY_BYTES_MAX);
        r = chronos__v1__list_jobs_response__unpack(NULL, a.len, a.data);
        assert_non_null(r);
        for (size_t i = 0; i < r->n_jobs; i++) {
            assert_int_equal(job_id_parse(r->jobs[i]->id, &seq), 0);
            assert_int_equal(seq, last + 1);
            last = seq;
        }
        *ret_jobs += r->n_jobs;
        *ret_largest = MAX(*ret_largest, r->n_jobs);
        (void) snprintf(token, sizeof(token), "%s", r->next_page_token);
        chronos__v1__list_jobs_response__free_unpacked(r, NULL);
        free(a.data);
        pages++;
    } while (token[0] != '\0' && pages < 100);
    return pages;
}

/* Goal: pages have as many jobs as were asked for, and no more bytes than a client takes; after the
 * last one there is none. Method: a thousand jobs in pages that do and do not divide them, then
 * five that are large. */
static void test_pages(void **state) {
    struct world *w = world_new(1, 1000, 256);
    Chronos__V1__SubmitJobRequest req;
    Chronos__V1__JobSpec spec;
    Chronos__V1__Noop noop;
    Chronos__V1__Command command = CHRONOS__V1__COMMAND__INIT;
    size_t jobs, largest, len = 100UL * 1024;
    char *line = malloc(len + 1), *argv[10], program[] = "true";
    struct answer a;

    (void) state;
    submit(w, 5000, &a);
    assert_int_equal(a.code, RPC_OK);
    free(a.data);
    submit_thousand(w);
    assert_int_equal(list_all(w, 300, &jobs, &largest), 4);
    assert_int_equal(jobs, 1001);
    assert_int_equal(largest, 300);
    assert_int_equal(list_all(w, 143, &jobs, &largest), 7); /* 1,001 of them */
    assert_int_equal(largest, 143);
    assert_non_null(line);
    memset(line, 'x', len);
    line[len] = '\0';
    noop_request(&req, &spec, &noop);
    for (size_t i = 0; i < ARRAY_LEN(argv); i++)
        argv[i] = i == 0 ? program : line;
    command.argv = argv;
    command.n_argv = ARRAY_LEN(argv);
    spec.payload_case = CHRONOS__V1__JOB_SPEC__PAYLOAD_COMMAND;
    spec.command = &command;
    for (int i = 0; i < 5; i++) {
        call(w, "/chronos.v1.JobService/SubmitJob", &req.base, 5000, &a);
        assert_int_equal(a.code, RPC_OK);
        free(a.data);
    }
    free(line);
    assert_in_range(list_all(w, 1000, &jobs, &largest), 3, 4);
    assert_int_equal(jobs, 1006);
    world_free(w);
}

/* Goal: without a leader: bounded, the exact error for writes and reads, stale reads go on, and
 * health says so. The client's deadline is the shorter one and travels with its call, so the text
 * is read from a call whose deadline is later than the commit timeout of nothing: see status tests.
 */
static void test_no_leader(void **state) {
    struct world *w = world_new(3, 1000, 4);
    struct answer pending[8], a;
    Chronos__V1__SubmitJobRequest req;
    Chronos__V1__JobSpec spec;
    Chronos__V1__Noop noop;
    int full = 0;

    (void) state;
    assert_int_equal(health(w), 2);
    get(w, "j11", CHRONOS__V1__CONSISTENCY__CONSISTENCY_STALE, 5000, &a);
    assert_int_equal(a.code, RPC_NOT_FOUND);
    noop_request(&req, &spec, &noop);
    for (size_t i = 0; i < ARRAY_LEN(pending); i++)
        start_call(w, "/chronos.v1.JobService/SubmitJob", &req.base, 20000, &pending[i]);
    for (size_t i = 0; i < ARRAY_LEN(pending); i++) {
        os_test_run_until(&w->loop, is_done, &pending[i]);
        if (pending[i].code == RPC_RESOURCE_EXHAUSTED) {
            full++;
            assert_non_null(strstr(pending[i].metadata, "retry-after-ms=50"));
        } else {
            assert_int_equal(pending[i].code, RPC_DEADLINE_EXCEEDED);
            assert_string_equal(pending[i].message,
                                "not submitted: no leader within 500 ms; safe to retry");
        }
    }
    assert_int_equal(full, 4);
    get(w, "j11", CHRONOS__V1__CONSISTENCY__CONSISTENCY_LINEARIZABLE, 300, &a);
    assert_true(a.code == RPC_UNAVAILABLE || a.code == RPC_DEADLINE_EXCEEDED);
    world_free(w);
}

/* Goal: clients that give up while their proposals, reads and watches wait leave nothing behind. */
static void test_clients_that_leave(void **state) {
    struct world *w = world_new(3, 1000, 256);
    Chronos__V1__SubmitJobRequest req;
    Chronos__V1__JobSpec spec;
    Chronos__V1__Noop noop;
    Chronos__V1__ListJobsRequest list = CHRONOS__V1__LIST_JOBS_REQUEST__INIT;
    struct answer a[60];

    (void) state;
    noop_request(&req, &spec, &noop);
    for (size_t i = 0; i < ARRAY_LEN(a); i++) {
        if (i % 2)
            start_call(w, "/chronos.v1.JobService/SubmitJob", &req.base, 50 + i, &a[i]);
        else
            start_call(w, "/chronos.v1.JobService/ListJobs", &list.base, 50 + i, &a[i]);
    }
    for (size_t i = 0; i < ARRAY_LEN(a); i++) {
        os_test_run_until(&w->loop, is_done, &a[i]);
        assert_true(a[i].code == RPC_DEADLINE_EXCEEDED || a[i].code == RPC_UNAVAILABLE);
    }
    world_free(w);
}

struct watcher {
    size_t messages, events;
    uint64_t index;
    bool ended;
    enum rpc_code code;
    char message[300];
};

static void on_watch_message(void *arg, struct rpc_stream *s, struct slice m) {
    struct watcher *x = arg;
    Chronos__V1__WatchJobsResponse *r =
        chronos__v1__watch_jobs_response__unpack(NULL, m.len, m.data);

    (void) s;
    assert_non_null(r);
    assert_true(r->index >= x->index);
    for (size_t i = 0; i < r->n_events; i++)
        assert_true(r->events[i]->index > x->index || i > 0);
    x->index = r->index;
    x->messages++;
    x->events += r->n_events;
    chronos__v1__watch_jobs_response__free_unpacked(r, NULL);
}

static void on_watch_end(void *arg, struct rpc_stream *s, const struct rpc_result *res) {
    struct watcher *x = arg;

    (void) s;
    x->ended = true;
    x->code = res->code;
    (void) snprintf(x->message, sizeof(x->message), "%s", res->message);
}

static void watch(struct world *w, uint64_t after_index, struct watcher *x) {
    static const struct rpc_stream_callbacks cb = {.on_message = on_watch_message,
                                                   .on_end = on_watch_end};
    Chronos__V1__WatchJobsRequest req = CHRONOS__V1__WATCH_JOBS_REQUEST__INIT;
    struct rpc_stream *s;
    struct bytes *b;

    *x = (struct watcher){0};
    req.after_index = after_index;
    b = bytes_new(chronos__v1__watch_jobs_request__get_packed_size(&req));
    (void) chronos__v1__watch_jobs_request__pack(&req, b->data);
    assert_int_equal(
        rpc_stream_open(w->channel, "/chronos.v1.JobService/WatchJobs", b, 0, &cb, x, &s), 0);
    rpc_stream_writes_done(s);
    (void) bytes_unref(b);
}

static bool has_started(void *arg) {
    return ((struct watcher *) arg)->messages > 0;
}

static bool has_signs_of_life(void *arg) {
    return ((struct watcher *) arg)->messages >= 3;
}

static bool has_events(void *arg) {
    return ((struct watcher *) arg)->events == 6020;
}

static bool has_ended(void *arg) {
    return ((struct watcher *) arg)->ended;
}

/* Goal: a watch starts with its index, shows signs of life, every event once, ends with UNAVAILABLE
 * at a stop; from a compacted index or beyond the log it is OUT_OF_RANGE; their number is bounded.
 */
static void test_watch(void **state) {
    struct world *w = world_new(1, 16, 256);
    struct watcher live, old, future, more[4];
    struct answer a;

    (void) state;
    submit(w, 5000, &a);
    free(a.data);
    watch(w, 0, &live);
    os_test_run_until(&w->loop, has_signs_of_life, &live);
    assert_int_equal(live.events, 0);
    for (int i = 0; i < 20; i++) {
        submit(w, 5000, &a);
        assert_int_equal(a.code, RPC_OK);
        free(a.data);
    }
    for (int i = 0; i < 6; i++) /* more than the ring keeps */
        submit_thousand(w);
    os_test_run_until(&w->loop, has_events, &live);
    watch(w, 1, &old);
    os_test_run_until(&w->loop, has_ended, &old);
    assert_int_equal(old.code, RPC_OUT_OF_RANGE);
    assert_non_null(strstr(old.message, "oldest index to watch after is"));
    watch(w, 1u << 30, &future);
    os_test_run_until(&w->loop, has_ended, &future);
    assert_int_equal(future.code, RPC_OUT_OF_RANGE);
    for (size_t i = 0; i < 3; i++) {
        watch(w, 0, &more[i]);
        os_test_run_until(&w->loop, has_started, &more[i]);
    }
    watch(w, 0, &more[3]);
    os_test_run_until(&w->loop, has_ended, &more[3]);
    assert_int_equal(more[3].code, RPC_RESOURCE_EXHAUSTED);
    api_stop(w->api, 100, on_stopped, w);
    os_test_run_until(&w->loop, is_stopped, w);
    os_test_run_until(&w->loop, has_ended, &live);
    assert_int_equal(live.code, RPC_UNAVAILABLE);
    world_free(w);
}

/* Goal: bytes that are no request are refused by every unary method and harm nobody. */
static void test_bad_bytes(void **state) {
    static const char *const paths[] = {
        "/chronos.v1.JobService/SubmitJob",
        "/chronos.v1.JobService/SubmitJobs",
        "/chronos.v1.JobService/GetJob",
        "/chronos.v1.JobService/ListJobs",
        "/chronos.v1.JobService/CancelJob",
        "/chronos.v1.ClusterService/GetClusterStatus",
        "/chronos.v1.ClusterService/ListLogEntries",
        "/grpc.health.v1.Health/Check",
    };
    struct world *w = world_new(1, 1000, 256);
    struct rng rng = rng_seed(5);
    struct answer a;

    (void) state;
    print_message("seed 5\n");
    for (int i = 0; i < 160; i++) {
        size_t len = 1 + rng_below(&rng, 40);
        struct bytes *b = bytes_new(len);

        for (size_t k = 0; k < len; k++)
            b->data[k] = (uint8_t) rng_next(&rng);
        b->data[0] = 0x0f; /* field 1 of a wire type that does not exist */
        a = (struct answer){0};
        assert_int_equal(rpc_unary(w->channel, paths[(size_t) i % ARRAY_LEN(paths)], b, 5000, true,
                                   on_answer, &a),
                         0);
        (void) bytes_unref(b);
        os_test_run_until(&w->loop, is_done, &a);
        assert_int_equal(a.code, RPC_INVALID_ARGUMENT);
    }
    submit(w, 5000, &a);
    assert_int_equal(a.code, RPC_OK);
    free(a.data);
    world_free(w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_submit_get_list_cancel),
        cmocka_unit_test(test_pages),
        cmocka_unit_test(test_no_leader),
        cmocka_unit_test(test_clients_that_leave),
        cmocka_unit_test(test_watch),
        cmocka_unit_test(test_bad_bytes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
