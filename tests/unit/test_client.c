/* The synchronous client against real servers on loopback: failover, hints, repetition, streams. */
#include "cli/client.h"

#include "chronos/v1/job_service.pb-c.h"

#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum script {
    SCRIPT_OK,          /* answers */
    SCRIPT_HINT_LEADER, /* UNAVAILABLE, names the leader */
    SCRIPT_FULL_ONCE,   /* RESOURCE_EXHAUSTED with a hint, then answers */
    SCRIPT_TOO_LARGE,   /* RESOURCE_EXHAUSTED without a hint */
    SCRIPT_NOT_FOUND,
    SCRIPT_GARBAGE,   /* OK, but the bytes are no message */
    SCRIPT_LATE_ONCE, /* DEADLINE_EXCEEDED, then answers */
};

/* A server on a thread of its own: the client blocks the test's thread. */
struct server {
    uv_thread_t thread;
    uv_loop_t loop;
    uv_async_t quit;
    uv_sem_t up;
    struct rpc_server *rpc;
    struct rpc_method methods[2];
    enum script script;
    const char *leader; /* for SCRIPT_HINT_LEADER */
    unsigned calls;
    char address[32];
};

static void reply(struct rpc_call *call, const ProtobufCMessage *m) {
    struct bytes *b = bytes_new(protobuf_c_message_get_packed_size(m));

    assert_non_null(b);
    (void) protobuf_c_message_pack(m, b->data);
    rpc_call_reply(call, b);
    (void) bytes_unref(b);
}

static void answer(struct rpc_call *call) {
    Chronos__V1__SubmitJobResponse res = CHRONOS__V1__SUBMIT_JOB_RESPONSE__INIT;

    res.job_id = (char *) "j7";
    res.index = 7;
    reply(call, &res.base);
}

static void on_submit(void *ctx, struct rpc_call *call, struct slice request) {
    struct server *s = ctx;
    const struct rpc_metadata leader = {"leader-address", s->leader};
    const struct rpc_metadata wait = {"retry-after-ms", "30"};
    struct bytes *garbage;
    bool first = s->calls++ == 0;

    (void) request;
    switch (s->script) {
    case SCRIPT_OK:
        answer(call);
        break;
    case SCRIPT_HINT_LEADER:
        rpc_call_finish(call, RPC_UNAVAILABLE, "not the leader", &leader, 1);
        break;
    case SCRIPT_FULL_ONCE:
        if (first)
            rpc_call_finish(call, RPC_RESOURCE_EXHAUSTED, "full", &wait, 1);
        else
            answer(call);
        break;
    case SCRIPT_TOO_LARGE:
        rpc_call_finish(call, RPC_RESOURCE_EXHAUSTED, "too large", NULL, 0);
        break;
    case SCRIPT_NOT_FOUND:
        rpc_call_finish(call, RPC_NOT_FOUND, "no such job", NULL, 0);
        break;
    case SCRIPT_GARBAGE:
        garbage = bytes_copy("\xff\xff\xff", 3);
        assert_non_null(garbage);
        rpc_call_reply(call, garbage);
        (void) bytes_unref(garbage);
        break;
    case SCRIPT_LATE_ONCE:
        if (first)
            rpc_call_finish(call, RPC_DEADLINE_EXCEEDED, "outcome unknown", NULL, 0);
        else
            answer(call);
        break;
    }
}

/* Three messages, then the node goes away. */
static void on_watch(void *ctx, struct rpc_call *call, struct slice request) {
    (void) ctx;
    (void) request;
    for (uint64_t i = 1; i <= 3; i++) {
        Chronos__V1__WatchJobsResponse m = CHRONOS__V1__WATCH_JOBS_RESPONSE__INIT;
        struct bytes *b;

        m.index = i;
        b = bytes_new(protobuf_c_message_get_packed_size(&m.base));
        assert_non_null(b);
        (void) protobuf_c_message_pack(&m.base, b->data);
        assert_true(rpc_call_write(call, b) >= 0);
        (void) bytes_unref(b);
    }
    rpc_call_finish(call, RPC_UNAVAILABLE, "stopping", NULL, 0);
}

static void on_gone(void *ctx, struct rpc_call *call) {
    (void) ctx;
    (void) call;
}

static void on_stopped(void *arg) {
    struct server *s = arg;

    s->rpc = rpc_server_free(s->rpc);
}

static void on_quit(uv_async_t *a) {
    struct server *s = a->data;

    uv_close((uv_handle_t *) a, NULL);
    rpc_server_stop(s->rpc, 0, on_stopped, s);
}

static void serve(void *arg) {
    struct server *s = arg;
    struct rpc_server_options o = {.address = "127.0.0.1:0",
                                   .methods = s->methods,
                                   .methods_count = ARRAY_LEN(s->methods),
                                   .message_bytes_max = 65536,
                                   .write_queue_bytes_max = 65536,
                                   .ctx = s};
    struct errtext why = {""};

    assert_int_equal(uv_loop_init(&s->loop), 0);
    assert_int_equal(uv_async_init(&s->loop, &s->quit, on_quit), 0);
    s->quit.data = s;
    assert_int_equal(rpc_server_new(&s->loop, &o, &s->rpc, &why), 0);
    (void) snprintf(s->address, sizeof(s->address), "127.0.0.1:%d", rpc_server_port(s->rpc));
    uv_sem_post(&s->up);
    (void) uv_run(&s->loop, UV_RUN_DEFAULT);
    (void) uv_loop_close(&s->loop);
}

static void server_start(struct server *s, enum script script, const char *leader) {
    *s = (struct server){.script = script, .leader = leader};
    s->methods[0] = (struct rpc_method){.path = "/chronos.v1.JobService/SubmitJob",
                                        .kind = RPC_UNARY,
                                        .on_call = on_submit,
                                        .on_gone = on_gone};
    s->methods[1] = (struct rpc_method){.path = "/chronos.v1.JobService/WatchJobs",
                                        .kind = RPC_SERVER_STREAM,
                                        .on_call = on_watch,
                                        .on_gone = on_gone};
    assert_int_equal(uv_sem_init(&s->up, 0), 0);
    assert_int_equal(uv_thread_create(&s->thread, serve, s), 0);
    uv_sem_wait(&s->up);
}

static void server_stop(struct server *s) {
    assert_int_equal(uv_async_send(&s->quit), 0);
    assert_int_equal(uv_thread_join(&s->thread), 0);
    uv_sem_destroy(&s->up);
}

static int submit(struct client *c, bool repeatable, struct client_error *e) {
    Chronos__V1__SubmitJobRequest req = CHRONOS__V1__SUBMIT_JOB_REQUEST__INIT;
    ProtobufCMessage *res = NULL;
    int r = client_call(c, "/chronos.v1.JobService/SubmitJob", &req.base,
                        &chronos__v1__submit_job_response__descriptor, repeatable, &res, e);

    if (r == 0) {
        assert_string_equal(((Chronos__V1__SubmitJobResponse *) res)->job_id, "j7");
        protobuf_c_message_free_unpacked(res, NULL);
    }
    return r;
}

static struct client *connect_to(const char *addresses, uint64_t timeout_ms) {
    struct client *c = NULL;
    struct errtext why = {""};

    assert_int_equal(client_new(addresses, timeout_ms, &c, &why), 0);
    return c;
}

/* Goal: a node that names the leader is followed, also to an address that was not given. */
static void test_follows_leader(void **state) {
    struct server leader, follower;
    struct client_error e;
    struct client *c;

    (void) state;
    server_start(&leader, SCRIPT_OK, NULL);
    server_start(&follower, SCRIPT_HINT_LEADER, leader.address);
    c = connect_to(follower.address, 10000);
    assert_int_equal(submit(c, true, &e), 0);
    assert_int_equal(client_attempts(c), 2);
    assert_int_equal(leader.calls, 1);
    (void) client_free(c);
    server_stop(&follower);
    server_stop(&leader);
}

/* Goal: a dead node among the addresses costs nothing but a try, whichever is asked first. */
static void test_skips_dead_node(void **state) {
    struct server s;
    char addresses[96];

    (void) state;
    server_start(&s, SCRIPT_OK, NULL);
    /* Port 1 of loopback has no listener. */
    (void) snprintf(addresses, sizeof(addresses), "127.0.0.1:1,%s", s.address);
    for (int i = 0; i < 8; i++) {
        struct client *c = connect_to(addresses, 10000);
        struct client_error e;

        assert_int_equal(submit(c, true, &e), 0);
        assert_in_range(client_attempts(c), 1, 2);
        (void) client_free(c);
    }
    assert_int_equal(s.calls, 8);
    server_stop(&s);
}

static void expect_script(enum script script, bool repeatable, int code, uint32_t attempts) {
    struct server s;
    struct client_error e = {.code = RPC_OK};
    struct client *c;

    server_start(&s, script, NULL);
    c = connect_to(s.address, 10000);
    assert_int_equal(submit(c, repeatable, &e), code);
    assert_int_equal(client_attempts(c), attempts);
    assert_int_equal(s.calls, attempts);
    (void) client_free(c);
    server_stop(&s);
}

/* Goal: what may be repeated is, what may not is not. */
static void test_repetition(void **state) {
    (void) state;
    expect_script(SCRIPT_FULL_ONCE, false, 0, 2);
    expect_script(SCRIPT_TOO_LARGE, true, RPC_RESOURCE_EXHAUSTED, 1);
    expect_script(SCRIPT_NOT_FOUND, true, RPC_NOT_FOUND, 1);
    expect_script(SCRIPT_LATE_ONCE, true, 0, 2);
    expect_script(SCRIPT_LATE_ONCE, false, RPC_DEADLINE_EXCEEDED, 1);
}

/* Goal: bytes that are no message are an error, not a crash. */
static void test_garbage(void **state) {
    struct client_error e;
    struct server s;
    struct client *c;

    (void) state;
    server_start(&s, SCRIPT_GARBAGE, NULL);
    c = connect_to(s.address, 10000);
    assert_int_equal(submit(c, true, &e), RPC_INTERNAL);
    assert_non_null(strstr(e.message, "cannot be decoded"));
    (void) client_free(c);
    server_stop(&s);
}

/* Goal: with nobody there the call ends in its time, as UNAVAILABLE. */
static void test_gives_up(void **state) {
    struct client *c = connect_to("127.0.0.1:1", 300);
    uint64_t start = uv_hrtime();
    struct client_error e;

    (void) state;
    assert_int_equal(submit(c, true, &e), RPC_UNAVAILABLE);
    assert_true(uv_hrtime() - start < 5 * NS_PER_S);
    assert_int_equal(client_exit_code(e.code), 4);
    (void) client_free(c);
}

struct seen {
    uint64_t last;
    unsigned count;
    unsigned stop_at;
};

static int on_message(void *arg, const ProtobufCMessage *m) {
    struct seen *seen = arg;

    seen->last = ((const Chronos__V1__WatchJobsResponse *) (const void *) m)->index;
    return ++seen->count == seen->stop_at;
}

/* Goal: a stream delivers what came before it broke; the handler can stop it; it can go on. */
static void test_stream(void **state) {
    Chronos__V1__WatchJobsRequest req = CHRONOS__V1__WATCH_JOBS_REQUEST__INIT;
    struct seen seen = {.stop_at = 100};
    const struct client_stream_handler h = {.on_message = on_message, .arg = &seen};
    struct client_error e;
    struct server s;
    struct client *c;

    (void) state;
    server_start(&s, SCRIPT_OK, NULL);
    c = connect_to(s.address, 10000);
    client_stream_start(c);
    assert_int_equal(client_stream(c, "/chronos.v1.JobService/WatchJobs", &req.base,
                                   &chronos__v1__watch_jobs_response__descriptor, &h, &e),
                     RPC_UNAVAILABLE);
    assert_int_equal(seen.count, 3);
    assert_int_equal(seen.last, 3);
    assert_true(client_stream_retry(c, &e, true, &h));
    seen.stop_at = 5;
    assert_int_equal(client_stream(c, "/chronos.v1.JobService/WatchJobs", &req.base,
                                   &chronos__v1__watch_jobs_response__descriptor, &h, &e),
                     0);
    assert_int_equal(seen.count, 5);
    assert_int_equal(submit(c, true, &e), 0); /* calls still work after it */
    (void) client_free(c);
    server_stop(&s);
}

/* Goal: malformed addresses are refused with what would be right. */
static void test_addresses(void **state) {
    static const char *const bad[] = {"", "x", "h:1,", "h:0", "h:65536", "::1:7400", "h:1,,h:2"};
    struct client *c = NULL;

    (void) state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct errtext why = {""};

        assert_int_equal(client_new(bad[i], 100, &c, &why), 1);
        assert_non_null(strstr(why.s, "HOST:PORT"));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_follows_leader), cmocka_unit_test(test_skips_dead_node),
        cmocka_unit_test(test_repetition),     cmocka_unit_test(test_garbage),
        cmocka_unit_test(test_gives_up),       cmocka_unit_test(test_stream),
        cmocka_unit_test(test_addresses),
    };

    return cmocka_run_group_tests_name("client", tests, NULL, NULL);
}
