/* See rpc_fixture.h. */
#include "rpc_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define WATCHDOG_MS 60000

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

void fixture_run_until_count(struct fixture *f, const unsigned *count, unsigned target) {
    while (*count < target)
        (void) uv_run(&f->loop, UV_RUN_ONCE);
}

void fixture_run_until(struct fixture *f, const bool *flag) {
    while (!*flag)
        (void) uv_run(&f->loop, UV_RUN_ONCE);
}

struct rpc_server *fixture_server_new(struct fixture *f, const char *address, struct errtext *e,
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

int fixture_setup(void **state) {
    struct fixture *f = calloc(1, sizeof(*f));
    struct errtext e = {""};
    int r = 0;

    assert_non_null(f);
    assert_int_equal(uv_loop_init(&f->loop), 0);
    assert_int_equal(uv_timer_init(&f->loop, &f->watchdog), 0);
    assert_int_equal(uv_timer_start(&f->watchdog, on_watchdog, WATCHDOG_MS, 0), 0);
    f->server = fixture_server_new(f, "127.0.0.1:0", &e, &r);
    assert_int_equal(r, 0);
    assert_int_equal(rpc_client_new(&f->loop, &f->client, &e), 0);
    (void) snprintf(f->address, sizeof(f->address), "127.0.0.1:%d", rpc_server_port(f->server));
    assert_int_equal(rpc_channel_new(f->client, f->address, MESSAGE_BYTES_MAX, &f->channel), 0);
    f->in_order = true;
    *state = f;
    return 0;
}

int fixture_teardown(void **state) {
    struct fixture *f = *state;

    f->client = rpc_client_free(f->client);
    f->server = rpc_server_free(f->server);
    uv_close((uv_handle_t *) &f->watchdog, NULL);
    (void) uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&f->loop), 0);
    free(f);
    return 0;
}

void fixture_on_done(void *arg, const struct rpc_result *res) {
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

void fixture_call(struct fixture *f, const char *path, size_t len, uint64_t timeout_ms) {
    _cleanup_(bytes_unrefp) struct bytes *b = bytes_new(len);

    assert_non_null(b);
    memset(b->data, 'x', len);
    if (len > 0) {
        b->data[0] = 'a';
        b->data[len - 1] = 'z';
    }
    assert_int_equal(rpc_unary(f->channel, path, b, timeout_ms, true, fixture_on_done, f), 0);
}
