/* The gRPC server and client against each other: one process, one loop, loopback, port 0.
 *
 * Goal: every kind of call ends in exactly one last callback, with the code, message and metadata
 * it should have; nothing leaks or touches freed memory (run it under ASan and TSan).
 * Method: a fixture with an echo server and one channel; each test runs the loop until its own
 * condition holds, with a watchdog timer that fails the test instead of hanging. */
#include "base/rand.h"
#include "os/rpc_client.h"
#include "os/rpc_server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define WATCHDOG_MS 60000
#define STREAM_MESSAGES 10000
#define MESSAGE_BYTES_MAX (2 * 1024 * 1024)
#define CONCURRENT_CALLS 1000

struct fixture {
    uv_loop_t loop;
    uv_timer_t watchdog;
    struct rpc_server *server;
    struct rpc_client *client;
    struct rpc_channel *channel;
    char address[64];
    /* what the server saw */
    unsigned calls, gone, on_ends;
    struct rpc_call *held; /* the call of /t/Hold or /t/Slow */
    bool held_gone;
    char peer[64], token[64];
    struct mono deadline;
    unsigned produced, blocked_count;
    struct rpc_call *producing;
    bool stopped;
    /* what the client saw */
    unsigned done;
    enum rpc_code code;
    char message[512];
    char trailing[256];
    size_t reply_len;
    uint8_t reply_first, reply_last;
    unsigned received;
    bool in_order;
    unsigned wrong;
};

/* --- the server's methods --- */

static void srv_gone(void *ctx, struct rpc_call *call) {
    struct fixture *f = ctx;

    f->gone++;
    if (f->held == call) {
        f->held = NULL;
        f->held_gone = true;
    }
    if (f->producing == call)
        f->producing = NULL;
}

static void srv_echo(void *ctx, struct rpc_call *call, struct slice request) {
    struct fixture *f = ctx;
    _cleanup_(bytes_unrefp) struct bytes *b = bytes_copy(request.data, request.len);
    const char *token = rpc_call_metadata(call, "authorization");

    f->calls++;
    (void) snprintf(f->peer, sizeof(f->peer), "%s", rpc_call_peer(call));
    (void) snprintf(f->token, sizeof(f->token), "%s", token ? token : "");
    f->deadline = rpc_call_deadline(call);
    rpc_call_reply(call, b);
}

static void srv_fail(void *ctx, struct rpc_call *call, struct slice request) {
    const struct rpc_metadata md[] = {{.key = "chronos-leader", .value = "10.0.0.1:7400"},
                                      {.key = "chronos-retry-ms", .value = "250"}};
    (void) ctx;
    (void) request;
    rpc_call_finish(call, RPC_FAILED_PRECONDITION, "kein Führer: 100% weg", md, ARRAY_LEN(md));
}

static void srv_hold(void *ctx, struct rpc_call *call, struct slice request) {
    struct fixture *f = ctx;

    (void) request;
    f->calls++;
    f->held = call;
    rpc_call_set_user(call, f);
}

static void srv_produce(struct fixture *f) {
    while (f->producing && f->produced < STREAM_MESSAGES) {
        _cleanup_(bytes_unrefp) struct bytes *b = bytes_new(200);

        assert_non_null(b);
        memset(b->data, 0, 200);
        memcpy(b->data, &f->produced, sizeof(f->produced));
        f->produced++;
        if (rpc_call_write(f->producing, b) == 1) {
            f->blocked_count++;
            return;
        }
    }
    if (f->producing && f->produced == STREAM_MESSAGES) {
        f->produced++;
        rpc_call_finish(f->producing, RPC_OK, NULL, NULL, 0);
    }
}

static void srv_list(void *ctx, struct rpc_call *call, struct slice request) {
    struct fixture *f = ctx;

    assert_int_equal(request.len, 3);
    f->producing = call;
    srv_produce(f);
}

static void srv_list_writable(void *ctx, struct rpc_call *call) {
    struct fixture *f = ctx;

    assert_ptr_equal(call, f->producing);
    srv_produce(f);
}

static void srv_chat_open(void *ctx, struct rpc_call *call, struct slice request) {
    struct fixture *f = ctx;

    (void) call;
    assert_int_equal(request.len, 0);
    f->calls++;
}

static void srv_chat_message(void *ctx, struct rpc_call *call, struct slice message, bool end) {
    struct fixture *f = ctx;
    _cleanup_(bytes_unrefp) struct bytes *b = NULL;

    if (end) {
        f->on_ends++;
        rpc_call_finish(call, RPC_OK, NULL, NULL, 0);
        return;
    }
    b = bytes_copy(message.data, message.len);
    assert_non_null(b);
    (void) rpc_call_write(call, b);
}

static const struct rpc_method methods[] = {
    {.path = "/t/Echo", .kind = RPC_UNARY, .on_call = srv_echo, .on_gone = srv_gone},
    {.path = "/t/Fail", .kind = RPC_UNARY, .on_call = srv_fail, .on_gone = srv_gone},
    {.path = "/t/Hold", .kind = RPC_UNARY, .on_call = srv_hold, .on_gone = srv_gone},
    {.path = "/t/Watch", .kind = RPC_SERVER_STREAM, .on_call = srv_hold, .on_gone = srv_gone},
    {.path = "/t/List",
     .kind = RPC_SERVER_STREAM,
     .on_call = srv_list,
     .on_gone = srv_gone,
     .on_writable = srv_list_writable},
    {.path = "/t/Chat",
     .kind = RPC_BIDI_STREAM,
     .on_call = srv_chat_open,
     .on_message = srv_chat_message,
     .on_gone = srv_gone},
};

/* --- fixture --- */

static void on_watchdog(uv_timer_t *t) {
    (void) t;
    fprintf(stderr, "watchdog: the test took longer than %d ms\n", WATCHDOG_MS);
    abort();
}

static void run_until_count(struct fixture *f, const unsigned *count, unsigned target) {
    while (*count < target)
        (void) uv_run(&f->loop, UV_RUN_ONCE);
}

static void run_until(struct fixture *f, const bool *flag) {
    while (!*flag)
        (void) uv_run(&f->loop, UV_RUN_ONCE);
}

static struct rpc_server *new_server(struct fixture *f, const char *address, struct errtext *e,
                                     int *ret_r) {
    struct rpc_server_options o = {.address = address,
                                   .methods = methods,
                                   .methods_count = ARRAY_LEN(methods),
                                   .message_bytes_max = MESSAGE_BYTES_MAX,
                                   .write_queue_bytes_max = 64 * 1024,
                                   .ctx = f};
    struct rpc_server *s = NULL;

    *ret_r = rpc_server_new(&f->loop, &o, &s, e);
    return s;
}

static int setup(void **state) {
    struct fixture *f = calloc(1, sizeof(*f));
    struct errtext e = {""};
    int r = 0;

    assert_non_null(f);
    assert_int_equal(uv_loop_init(&f->loop), 0);
    assert_int_equal(uv_timer_init(&f->loop, &f->watchdog), 0);
    assert_int_equal(uv_timer_start(&f->watchdog, on_watchdog, WATCHDOG_MS, 0), 0);
    f->server = new_server(f, "127.0.0.1:0", &e, &r);
    assert_int_equal(r, 0);
    assert_int_equal(rpc_client_new(&f->loop, &f->client, &e), 0);
    (void) snprintf(f->address, sizeof(f->address), "127.0.0.1:%d", rpc_server_port(f->server));
    assert_int_equal(rpc_channel_new(f->client, f->address, MESSAGE_BYTES_MAX, &f->channel), 0);
    f->in_order = true;
    *state = f;
    return 0;
}

static int teardown(void **state) {
    struct fixture *f = *state;

    f->client = rpc_client_free(f->client);
    f->server = rpc_server_free(f->server);
    uv_close((uv_handle_t *) &f->watchdog, NULL);
    (void) uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&f->loop), 0);
    free(f);
    return 0;
}

static void on_done(void *arg, const struct rpc_result *res) {
    struct fixture *f = arg;

    f->done++;
    f->code = res->code;
    (void) snprintf(f->message, sizeof(f->message), "%s", res->message);
    f->trailing[0] = '\0';
    for (size_t i = 0; i < res->trailing_count; i++) {
        size_t at = strlen(f->trailing);
        (void) snprintf(f->trailing + at, sizeof(f->trailing) - at, "%s=%s;", res->trailing[i].key,
                        res->trailing[i].value);
    }
    f->reply_len = res->reply.len;
    if (res->code == RPC_OK && res->reply.len > 0) {
        f->reply_first = res->reply.data[0];
        f->reply_last = res->reply.data[res->reply.len - 1];
    }
}

/* Start a unary call of @len bytes. */
static void call(struct fixture *f, const char *path, size_t len, uint64_t timeout_ms) {
    _cleanup_(bytes_unrefp) struct bytes *b = bytes_new(len);

    assert_non_null(b);
    memset(b->data, 'x', len);
    if (len > 0) {
        b->data[0] = 'a';
        b->data[len - 1] = 'z';
    }
    assert_int_equal(rpc_unary(f->channel, path, b, timeout_ms, true, on_done, f), 0);
}

static void on_stopped(void *arg) {
    struct fixture *f = arg;

    f->stopped = true;
}

/* --- unary --- */

/* Goal: small, empty and large messages come back whole; peer, deadline and metadata are right. */
static void test_unary_echo(void **state) {
    struct fixture *f = *state;
    const struct rpc_metadata md = {.key = "authorization", .value = "Bearer abc"};
    const size_t sizes[] = {0, 1, 100, 5000, 1024 * 1024};

    assert_int_equal(rpc_channel_set_metadata(f->channel, &md, 1), 0);
    for (unsigned i = 0; i < ARRAY_LEN(sizes); i++) {
        call(f, "/t/Echo", sizes[i], 30000);
        run_until_count(f, &f->done, i + 1);
        assert_int_equal(f->code, RPC_OK);
        assert_int_equal(f->reply_len, sizes[i]);
        if (sizes[i] > 1) {
            assert_int_equal(f->reply_first, 'a');
            assert_int_equal(f->reply_last, 'z');
        }
    }
    assert_string_equal(f->token, "Bearer abc");
    assert_memory_equal(f->peer, "ipv4:127.0.0.1:", 15);
    assert_true(f->deadline.ns > uv_hrtime() + 20 * NS_PER_S);
    assert_true(f->deadline.ns < uv_hrtime() + 31 * NS_PER_S);
    call(f, "/t/Echo", 1, 0);
    run_until_count(f, &f->done, ARRAY_LEN(sizes) + 1);
    assert_true(f->deadline.ns == MONO_NEVER.ns);
    run_until_count(f, &f->gone, ARRAY_LEN(sizes) + 1);
}

/* Goal: a request over the limit is RESOURCE_EXHAUSTED and never reaches the handler. */
static void test_unary_too_large(void **state) {
    struct fixture *f = *state;

    call(f, "/t/Echo", MESSAGE_BYTES_MAX + 1, 0);
    run_until_count(f, &f->done, 1);
    assert_int_equal(f->code, RPC_RESOURCE_EXHAUSTED);
    assert_int_equal(f->calls, 0);
    call(f, "/t/Echo", 10, 0);
    run_until_count(f, &f->done, 2);
    assert_int_equal(f->code, RPC_OK);
}

/* Goal: code, a message with non-ASCII text, and trailing metadata arrive unharmed. */
static void test_unary_error(void **state) {
    struct fixture *f = *state;

    call(f, "/t/Fail", 10, 0);
    run_until_count(f, &f->done, 1);
    assert_int_equal(f->code, RPC_FAILED_PRECONDITION);
    assert_string_equal(f->message, "kein Führer: 100% weg");
    assert_non_null(strstr(f->trailing, "chronos-leader=10.0.0.1:7400;"));
    assert_non_null(strstr(f->trailing, "chronos-retry-ms=250;"));
    run_until_count(f, &f->gone, 1);
}

/* Goal: a path nobody registered is UNIMPLEMENTED and named. */
static void test_unknown_method(void **state) {
    struct fixture *f = *state;

    for (unsigned i = 0; i < 40; i++) {
        call(f, "/t/Nothing", 10, 0);
        run_until_count(f, &f->done, i + 1);
        assert_int_equal(f->code, RPC_UNIMPLEMENTED);
        assert_string_equal(f->message, "unknown method /t/Nothing");
    }
    assert_int_equal(f->gone, 0);
}

/* Goal: a deadline ends the call on both sides, once each.
 * Method: on a slow machine it may pass before the call has left; then it is tried with twice the
 * time until the server has seen one. */
static void test_deadline(void **state) {
    struct fixture *f = *state;
    unsigned tries = 0;

    for (uint64_t timeout_ms = 50; f->calls == 0; timeout_ms *= 2) {
        call(f, "/t/Hold", 10, timeout_ms);
        run_until_count(f, &f->done, ++tries);
        assert_int_equal(f->code, RPC_DEADLINE_EXCEEDED);
    }
    run_until(f, &f->held_gone);
    assert_int_equal(f->gone, f->calls);
    assert_int_equal(f->done, tries);
}

/* Goal: a held call can be answered later; its user pointer is kept. */
static void test_reply_later(void **state) {
    struct fixture *f = *state;
    _cleanup_(bytes_unrefp) struct bytes *b = bytes_copy("late", 4);

    call(f, "/t/Hold", 10, 0);
    run_until_count(f, &f->calls, 1);
    assert_ptr_equal(rpc_call_user(f->held), f);
    rpc_call_reply(f->held, b);
    run_until_count(f, &f->done, 1);
    assert_int_equal(f->code, RPC_OK);
    assert_int_equal(f->reply_len, 4);
    run_until_count(f, &f->gone, 1);
}

/* Goal: 1,000 calls at once are all answered, none lost, none twice. */
static void test_concurrent(void **state) {
    struct fixture *f = *state;

    for (unsigned i = 0; i < CONCURRENT_CALLS; i++)
        call(f, "/t/Echo", 100, 0);
    run_until_count(f, &f->done, CONCURRENT_CALLS);
    run_until_count(f, &f->gone, CONCURRENT_CALLS);
    assert_int_equal(f->code, RPC_OK);
    assert_int_equal(f->calls, CONCURRENT_CALLS);
}

/* --- streams --- */

static void strm_message(void *arg, struct rpc_stream *s, struct slice message) {
    struct fixture *f = arg;
    unsigned n = 0;

    (void) s;
    if (message.len >= sizeof(n))
        memcpy(&n, message.data, sizeof(n));
    f->in_order = f->in_order && n == f->received;
    f->received++;
}

static void strm_end(void *arg, struct rpc_stream *s, const struct rpc_result *res) {
    (void) s;
    on_done(arg, res);
}

static const struct rpc_stream_callbacks strm_cb = {.on_message = strm_message, .on_end = strm_end};

static struct rpc_stream *open_stream(struct fixture *f, const char *path, const char *first) {
    _cleanup_(bytes_unrefp) struct bytes *b = first ? bytes_copy(first, strlen(first)) : NULL;
    struct rpc_stream *s = NULL;

    assert_int_equal(rpc_stream_open(f->channel, path, b, 0, &strm_cb, f, &s), 0);
    return s;
}

/* Goal: a server stream delivers 10,000 messages in order, and its writer was held back. */
static void test_server_stream(void **state) {
    struct fixture *f = *state;
    struct rpc_stream *s = open_stream(f, "/t/List", "abc");

    rpc_stream_writes_done(s);
    run_until_count(f, &f->done, 1);
    assert_int_equal(f->code, RPC_OK);
    assert_int_equal(f->received, STREAM_MESSAGES);
    assert_true(f->in_order);
    assert_true(f->blocked_count > 0);
    run_until_count(f, &f->gone, 1);
}

/* Goal: what a bidi client writes comes back in order; half close ends it with OK. */
static void test_bidi_echo(void **state) {
    struct fixture *f = *state;
    struct rpc_stream *s = open_stream(f, "/t/Chat", NULL);

    for (unsigned i = 0; i < 500; i++) {
        _cleanup_(bytes_unrefp) struct bytes *b = bytes_copy(&i, sizeof(i));

        assert_int_equal(rpc_stream_write(s, b), 0);
    }
    rpc_stream_writes_done(s);
    run_until_count(f, &f->done, 1);
    assert_int_equal(f->code, RPC_OK);
    assert_int_equal(f->received, 500);
    assert_true(f->in_order);
    assert_int_equal(f->on_ends, 1);
    run_until_count(f, &f->gone, 1);
}

/* Goal: a cancelled stream ends with CANCELLED here and with on_gone there. */
static void test_stream_cancel(void **state) {
    struct fixture *f = *state;
    struct rpc_stream *s = open_stream(f, "/t/Watch", "abc");

    run_until_count(f, &f->calls, 1);
    rpc_stream_cancel(s);
    run_until_count(f, &f->done, 1);
    assert_int_equal(f->code, RPC_CANCELLED);
    run_until(f, &f->held_gone);
    assert_int_equal(f->gone, 1);
}

/* --- ends of objects --- */

/* Goal: stop lets a unary call finish within the grace and cancels a stream that never would. */
static void test_stop_in_flight(void **state) {
    struct fixture *f = *state;
    _cleanup_(bytes_unrefp) struct bytes *b = bytes_copy("late", 4);
    struct rpc_call *held = NULL;

    (void) open_stream(f, "/t/Chat", NULL);
    call(f, "/t/Hold", 10, 0);
    run_until_count(f, &f->calls, 2);
    held = f->held;
    rpc_server_stop(f->server, 10000, on_stopped, f);
    (void) uv_run(&f->loop, UV_RUN_NOWAIT);
    assert_int_equal(f->gone, 0);
    assert_false(f->stopped);
    rpc_call_reply(held, b);
    run_until_count(f, &f->done, 2);
    run_until(f, &f->stopped);
    assert_int_equal(f->gone, 2);
    f->server = rpc_server_free(f->server);
}

/* Goal: when the grace is over, a call nobody answers is cancelled, and stop still ends. */
static void test_stop_grace_over(void **state) {
    struct fixture *f = *state;

    call(f, "/t/Hold", 10, 0);
    run_until_count(f, &f->calls, 1);
    rpc_server_stop(f->server, 20, on_stopped, f);
    run_until(f, &f->stopped);
    assert_int_equal(f->gone, 1);
    run_until_count(f, &f->done, 1);
    assert_true(f->code == RPC_CANCELLED || f->code == RPC_UNAVAILABLE || f->code == RPC_UNKNOWN);
}

/* Goal: freeing a server with calls in flight delivers their on_gone and leaks nothing. */
static void test_server_free_in_flight(void **state) {
    struct fixture *f = *state;

    for (unsigned i = 0; i < 50; i++)
        call(f, "/t/Hold", 10, 0);
    (void) open_stream(f, "/t/Watch", "abc");
    run_until_count(f, &f->calls, 51);
    f->server = rpc_server_free(f->server);
    assert_int_equal(f->gone, 51);
    run_until_count(f, &f->done, 51);
}

/* Goal: freeing the client answers every call with CANCELLED before it returns. */
static void test_client_free_in_flight(void **state) {
    struct fixture *f = *state;

    for (unsigned i = 0; i < 50; i++)
        call(f, "/t/Hold", 10, 0);
    (void) open_stream(f, "/t/Watch", "abc");
    run_until_count(f, &f->calls, 40);
    f->client = rpc_client_free(f->client);
    assert_int_equal(f->done, 51);
    assert_int_equal(f->code, RPC_CANCELLED);
    run_until_count(f, &f->gone, f->calls);
}

static void on_done_free_client(void *arg, const struct rpc_result *res) {
    struct fixture *f = arg;

    on_done(arg, res);
    if (f->client)
        f->client = rpc_client_free(TAKE_PTR(f->client));
}

/* Goal: a callback may free the client, with other calls in flight. */
static void test_client_free_in_callback(void **state) {
    struct fixture *f = *state;
    _cleanup_(bytes_unrefp) struct bytes *b = bytes_copy("x", 1);

    (void) open_stream(f, "/t/Chat", NULL);
    for (unsigned i = 0; i < 100; i++)
        assert_int_equal(rpc_unary(f->channel, "/t/Echo", b, 0, true, on_done_free_client, f), 0);
    run_until_count(f, &f->done, 101);
    assert_int_equal(f->done, 101);
}

/* Goal: one channel ends, the client lives on. */
static void test_channel_free(void **state) {
    struct fixture *f = *state;

    call(f, "/t/Hold", 10, 0);
    run_until_count(f, &f->calls, 1);
    (void) rpc_channel_free(f->channel);
    assert_int_equal(f->done, 1);
    assert_int_equal(f->code, RPC_CANCELLED);
    assert_int_equal(rpc_channel_new(f->client, f->address, 0, &f->channel), 0);
    call(f, "/t/Echo", 10, 0);
    run_until_count(f, &f->done, 2);
    assert_int_equal(f->code, RPC_OK);
}

/* --- everything at once --- */

#define CHAOS_STEPS 4000
#define CHAOS_CALLS_MIN 200
#define CHAOS_MAX 256

struct chaos {
    struct fixture *f;
    struct rng rand;
    struct rpc_call *held[CHAOS_MAX * 4];
    size_t held_count;
    struct rpc_stream *streams[CHAOS_MAX];
    bool closing[CHAOS_MAX];
    size_t streams_count;
    unsigned begun, ended, on_calls, on_gones;
};

static void chaos_call(void *ctx, struct rpc_call *call, struct slice request) {
    struct chaos *c = ctx;
    _cleanup_(bytes_unrefp) struct bytes *b = bytes_copy(request.data, request.len);

    c->on_calls++;
    assert_non_null(b);
    if (rng_below(&c->rand, 2) == 0 || c->held_count == ARRAY_LEN(c->held))
        rpc_call_reply(call, b);
    else
        c->held[c->held_count++] = call;
}

static void chaos_open(void *ctx, struct rpc_call *call, struct slice request) {
    struct chaos *c = ctx;

    (void) request;
    c->on_calls++;
    if (rng_below(&c->rand, 8) == 0)
        rpc_call_finish(call, RPC_ABORTED, "not today", NULL, 0);
}

static void chaos_message(void *ctx, struct rpc_call *call, struct slice message, bool end) {
    struct chaos *c = ctx;
    _cleanup_(bytes_unrefp) struct bytes *b = bytes_copy(message.data, message.len);

    assert_non_null(b);
    if (end || rng_below(&c->rand, 16) == 0) {
        rpc_call_finish(call, end ? RPC_OK : RPC_INTERNAL, NULL, NULL, 0);
        return;
    }
    for (uint64_t n = rng_below(&c->rand, 8); n > 0; n--)
        (void) rpc_call_write(call, b);
}

static void chaos_gone(void *ctx, struct rpc_call *call) {
    struct chaos *c = ctx;

    c->on_gones++;
    for (size_t i = 0; i < c->held_count; i++)
        if (c->held[i] == call)
            c->held[i--] = c->held[--c->held_count];
}

static const struct rpc_method chaos_methods[] = {
    {.path = "/c/Unary", .kind = RPC_UNARY, .on_call = chaos_call, .on_gone = chaos_gone},
    {.path = "/c/Chat",
     .kind = RPC_BIDI_STREAM,
     .on_call = chaos_open,
     .on_message = chaos_message,
     .on_gone = chaos_gone},
};

static void chaos_done(void *arg, const struct rpc_result *res) {
    struct chaos *c = arg;

    (void) res;
    c->ended++;
}

static void chaos_end(void *arg, struct rpc_stream *s, const struct rpc_result *res) {
    struct chaos *c = arg;

    chaos_done(arg, res);
    for (size_t i = 0; i < c->streams_count; i++)
        if (c->streams[i] == s) {
            c->streams_count--;
            c->streams[i] = c->streams[c->streams_count];
            c->closing[i] = c->closing[c->streams_count];
            return;
        }
    fail_msg("a stream ended that was not open");
}

static void chaos_got(void *arg, struct rpc_stream *s, struct slice message) {
    struct chaos *c = arg;

    (void) message;
    if (rng_below(&c->rand, 64) == 0)
        rpc_stream_cancel(s);
}

static void chaos_begin(struct chaos *c) {
    static const struct rpc_stream_callbacks cb = {.on_message = chaos_got, .on_end = chaos_end};
    uint64_t timeout_ms = rng_below(&c->rand, 3) == 0 ? 1 + rng_below(&c->rand, 10) : 0;
    size_t len = rng_below(&c->rand, 8) == 0 ? 70000 : rng_below(&c->rand, 300);
    _cleanup_(bytes_unrefp) struct bytes *b = bytes_new(len);

    assert_non_null(b);
    memset(b->data, 1, len);
    if (c->begun - c->ended >= CHAOS_MAX)
        return;
    if (rng_below(&c->rand, 3) > 0) {
        assert_int_equal(rpc_unary(c->f->channel, "/c/Unary", b, timeout_ms, true, chaos_done, c),
                         0);
    } else {
        struct rpc_stream *s = NULL;

        assert_int_equal(rpc_stream_open(c->f->channel, "/c/Chat",
                                         rng_below(&c->rand, 2) ? b : NULL, timeout_ms, &cb, c, &s),
                         0);
        c->closing[c->streams_count] = false;
        c->streams[c->streams_count++] = s;
    }
    c->begun++;
}

static void chaos_step(struct chaos *c) {
    _cleanup_(bytes_unrefp) struct bytes *b = bytes_copy("abc", 3);
    uint64_t what = rng_below(&c->rand, 100);
    size_t i = c->streams_count ? (size_t) rng_below(&c->rand, c->streams_count) : 0;

    if (what < 40) {
        chaos_begin(c);
    } else if (what < 60 && c->held_count > 0) {
        rpc_call_reply(c->held[--c->held_count], b);
    } else if (what < 75 && c->streams_count > 0 && !c->closing[i]) {
        (void) rpc_stream_write(c->streams[i], b);
    } else if (what < 80 && c->streams_count > 0) {
        c->closing[i] = true;
        rpc_stream_writes_done(c->streams[i]);
    } else if (what < 85 && c->streams_count > 0) {
        rpc_stream_cancel(c->streams[i]);
    } else if (what == 99) {
        (void) rpc_channel_free(c->f->channel);
        assert_int_equal(c->begun, c->ended);
        assert_int_equal(rpc_channel_new(c->f->client, c->f->address, 0, &c->f->channel), 0);
    } else {
        (void) uv_run(&c->f->loop, UV_RUN_NOWAIT);
    }
}

/* Goal: whatever clients do, each call ends exactly once on either side, and nothing is left.
 * Method: random calls, writes, cancels, deadlines and channel ends from a printed seed; at the
 * end the server is freed first or last by the seed's choice. */
static void test_chaos(void **state) {
    struct fixture *f = *state;
    struct chaos *c = calloc(1, sizeof(*c));
    const char *env = getenv("CHRONOS_SEED");
    uint64_t seed = env ? strtoull(env, NULL, 10) : uv_hrtime();
    struct rpc_server_options o = {.address = "127.0.0.1:0",
                                   .methods = chaos_methods,
                                   .methods_count = ARRAY_LEN(chaos_methods),
                                   .write_queue_bytes_max = 4096,
                                   .ctx = c};
    struct rpc_server *s = NULL;

    assert_non_null(c);
    printf("CHRONOS_SEED=%llu\n", (unsigned long long) seed);
    c->f = f;
    c->rand = rng_seed(seed);
    assert_int_equal(rpc_server_new(&f->loop, &o, &s, NULL), 0);
    (void) snprintf(f->address, sizeof(f->address), "127.0.0.1:%d", rpc_server_port(s));
    (void) rpc_channel_free(f->channel);
    assert_int_equal(rpc_channel_new(f->client, f->address, 0, &f->channel), 0);
    for (unsigned i = 0; i < CHAOS_STEPS || c->on_calls < CHAOS_CALLS_MIN; i++)
        chaos_step(c);
    if (seed % 2 == 0)
        f->client = rpc_client_free(f->client);
    s = rpc_server_free(s);
    f->client = rpc_client_free(f->client);
    assert_int_equal(c->begun, c->ended);
    assert_int_equal(c->on_calls, c->on_gones);
    assert_int_equal(c->streams_count, 0);
    assert_int_equal(c->held_count, 0);
    free(c);
}

/* --- addresses --- */

/* Goal: a taken port is an error that names address and reason. */
static void test_port_taken(void **state) {
    struct fixture *f = *state;
    struct errtext e = {""};
    int r = 0;

    assert_null(new_server(f, f->address, &e, &r));
    assert_int_equal(r, -EADDRINUSE);
    assert_non_null(strstr(e.s, f->address));
    assert_non_null(strstr(e.s, strerror(EADDRINUSE)));
}

/* Goal: a channel finds a server that was gone and came back at the same address.
 * Method: one call to connect, replace the server, one call that waits for readiness. */
static void test_reconnect(void **state) {
    struct fixture *f = *state;
    int r = 0;

    call(f, "/t/Echo", 10, 0);
    run_until_count(f, &f->done, 1);
    f->server = rpc_server_free(f->server);
    f->server = new_server(f, f->address, NULL, &r);
    assert_int_equal(r, 0);
    /* The first call may still meet the dying connection. */
    for (unsigned n = 2; n == 2 || f->code != RPC_OK; n++) {
        call(f, "/t/Echo", 10, 0);
        run_until_count(f, &f->done, n);
        assert_true(f->code == RPC_OK || f->code == RPC_UNAVAILABLE);
    }
    assert_int_equal(f->reply_len, 10);
}

/* Goal: nobody listens -> UNAVAILABLE at once when the call does not wait for readiness. */
static void test_connection_refused(void **state) {
    struct fixture *f = *state;
    _cleanup_(bytes_unrefp) struct bytes *b = bytes_copy("x", 1);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(a);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    uint64_t before = uv_hrtime();
    struct rpc_channel *ch = NULL;
    char address[64];

    /* Bound but not listening: nobody else can take the port, and connecting is refused. */
    assert_int_equal(bind(fd, (struct sockaddr *) &a, sizeof(a)), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *) &a, &len), 0);
    (void) snprintf(address, sizeof(address), "127.0.0.1:%d", ntohs(a.sin_port));
    assert_int_equal(rpc_channel_new(f->client, address, 0, &ch), 0);
    assert_int_equal(rpc_unary(ch, "/t/Echo", b, 0, false, on_done, f), 0);
    run_until_count(f, &f->done, 1);
    assert_int_equal(f->code, RPC_UNAVAILABLE);
    assert_true(uv_hrtime() - before < 5 * NS_PER_S);
    (void) close(fd);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_unary_echo, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unary_too_large, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unary_error, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unknown_method, setup, teardown),
        cmocka_unit_test_setup_teardown(test_deadline, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reply_later, setup, teardown),
        cmocka_unit_test_setup_teardown(test_concurrent, setup, teardown),
        cmocka_unit_test_setup_teardown(test_server_stream, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bidi_echo, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stream_cancel, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stop_in_flight, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stop_grace_over, setup, teardown),
        cmocka_unit_test_setup_teardown(test_server_free_in_flight, setup, teardown),
        cmocka_unit_test_setup_teardown(test_client_free_in_flight, setup, teardown),
        cmocka_unit_test_setup_teardown(test_client_free_in_callback, setup, teardown),
        cmocka_unit_test_setup_teardown(test_channel_free, setup, teardown),
        cmocka_unit_test_setup_teardown(test_chaos, setup, teardown),
        cmocka_unit_test_setup_teardown(test_port_taken, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reconnect, setup, teardown),
        cmocka_unit_test_setup_teardown(test_connection_refused, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
