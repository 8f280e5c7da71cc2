/* Everything at once: random calls against a gRPC server that answers at random.
 *
 * Goal: as test_rpc.c, for whatever clients do (run it under ASan and TSan). */
#include "rpc_fixture.h"

#include "base/rand.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_chaos, fixture_setup, fixture_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
