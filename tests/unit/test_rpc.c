/* The gRPC server and client against each other: one process, one loop, loopback, port 0.
 *
 * Goal: every kind of call ends in exactly one last callback, with the code, message and metadata
 * it should have; nothing leaks or touches freed memory (run it under ASan and TSan).
 * Method: a fixture with an echo server and one channel; each test runs the loop until its own
 * condition holds, with a watchdog timer that fails the test instead of hanging. */
#include "rpc_fixture.h"

#include <arpa/inet.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define CONCURRENT_CALLS 1000

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
        fixture_call(f, "/t/Echo", sizes[i], 30000);
        fixture_run_until_count(f, &f->done, i + 1);
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
    fixture_call(f, "/t/Echo", 1, 0);
    fixture_run_until_count(f, &f->done, ARRAY_LEN(sizes) + 1);
    assert_true(f->deadline.ns == MONO_NEVER.ns);
    fixture_run_until_count(f, &f->gone, ARRAY_LEN(sizes) + 1);
}

/* Goal: a request over the limit is RESOURCE_EXHAUSTED and never reaches the handler. */
static void test_unary_too_large(void **state) {
    struct fixture *f = *state;

    fixture_call(f, "/t/Echo", MESSAGE_BYTES_MAX + 1, 0);
    fixture_run_until_count(f, &f->done, 1);
    assert_int_equal(f->code, RPC_RESOURCE_EXHAUSTED);
    assert_int_equal(f->calls, 0);
    fixture_call(f, "/t/Echo", 10, 0);
    fixture_run_until_count(f, &f->done, 2);
    assert_int_equal(f->code, RPC_OK);
}

/* Goal: code, a message with non-ASCII text, and trailing metadata arrive unharmed. */
static void test_unary_error(void **state) {
    struct fixture *f = *state;

    fixture_call(f, "/t/Fail", 10, 0);
    fixture_run_until_count(f, &f->done, 1);
    assert_int_equal(f->code, RPC_FAILED_PRECONDITION);
    assert_string_equal(f->message, "kein Führer: 100% weg");
    assert_non_null(strstr(f->trailing, "chronos-leader=10.0.0.1:7400;"));
    assert_non_null(strstr(f->trailing, "chronos-retry-ms=250;"));
    fixture_run_until_count(f, &f->gone, 1);
}

/* Goal: a path nobody registered is UNIMPLEMENTED and named. */
static void test_unknown_method(void **state) {
    struct fixture *f = *state;

    for (unsigned i = 0; i < 40; i++) {
        fixture_call(f, "/t/Nothing", 10, 0);
        fixture_run_until_count(f, &f->done, i + 1);
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
        fixture_call(f, "/t/Hold", 10, timeout_ms);
        fixture_run_until_count(f, &f->done, ++tries);
        assert_int_equal(f->code, RPC_DEADLINE_EXCEEDED);
    }
    fixture_run_until(f, &f->held_gone);
    assert_int_equal(f->gone, f->calls);
    assert_int_equal(f->done, tries);
}

/* Goal: a held call can be answered later; its user pointer is kept. */
static void test_reply_later(void **state) {
    struct fixture *f = *state;
    _cleanup_(bytes_unrefp) struct bytes *b = bytes_copy("late", 4);

    fixture_call(f, "/t/Hold", 10, 0);
    fixture_run_until_count(f, &f->calls, 1);
    assert_ptr_equal(rpc_call_user(f->held), f);
    rpc_call_reply(f->held, b);
    fixture_run_until_count(f, &f->done, 1);
    assert_int_equal(f->code, RPC_OK);
    assert_int_equal(f->reply_len, 4);
    fixture_run_until_count(f, &f->gone, 1);
}

/* Goal: 1,000 calls at once are all answered, none lost, none twice. */
static void test_concurrent(void **state) {
    struct fixture *f = *state;

    for (unsigned i = 0; i < CONCURRENT_CALLS; i++)
        fixture_call(f, "/t/Echo", 100, 0);
    fixture_run_until_count(f, &f->done, CONCURRENT_CALLS);
    fixture_run_until_count(f, &f->gone, CONCURRENT_CALLS);
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
    fixture_on_done(arg, res);
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
    fixture_run_until_count(f, &f->done, 1);
    assert_int_equal(f->code, RPC_OK);
    assert_int_equal(f->received, STREAM_MESSAGES);
    assert_true(f->in_order);
    assert_true(f->blocked_count > 0);
    fixture_run_until_count(f, &f->gone, 1);
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
    fixture_run_until_count(f, &f->done, 1);
    assert_int_equal(f->code, RPC_OK);
    assert_int_equal(f->received, 500);
    assert_true(f->in_order);
    assert_int_equal(f->on_ends, 1);
    fixture_run_until_count(f, &f->gone, 1);
}

/* Goal: a cancelled stream ends with CANCELLED here and with on_gone there. */
static void test_stream_cancel(void **state) {
    struct fixture *f = *state;
    struct rpc_stream *s = open_stream(f, "/t/Watch", "abc");

    fixture_run_until_count(f, &f->calls, 1);
    rpc_stream_cancel(s);
    fixture_run_until_count(f, &f->done, 1);
    assert_int_equal(f->code, RPC_CANCELLED);
    fixture_run_until(f, &f->held_gone);
    assert_int_equal(f->gone, 1);
}

/* --- ends of objects --- */

/* Goal: stop lets a unary call finish within the grace and cancels a stream that never would. */
static void test_stop_in_flight(void **state) {
    struct fixture *f = *state;
    _cleanup_(bytes_unrefp) struct bytes *b = bytes_copy("late", 4);
    struct rpc_call *held = NULL;

    (void) open_stream(f, "/t/Chat", NULL);
    fixture_call(f, "/t/Hold", 10, 0);
    fixture_run_until_count(f, &f->calls, 2);
    held = f->held;
    rpc_server_stop(f->server, 10000, on_stopped, f);
    (void) uv_run(&f->loop, UV_RUN_NOWAIT);
    assert_int_equal(f->gone, 0);
    assert_false(f->stopped);
    rpc_call_reply(held, b);
    fixture_run_until_count(f, &f->done, 2);
    fixture_run_until(f, &f->stopped);
    assert_int_equal(f->gone, 2);
    f->server = rpc_server_free(f->server);
}

/* Goal: when the grace is over, a call nobody answers is cancelled, and stop still ends. */
static void test_stop_grace_over(void **state) {
    struct fixture *f = *state;

    fixture_call(f, "/t/Hold", 10, 0);
    fixture_run_until_count(f, &f->calls, 1);
    rpc_server_stop(f->server, 20, on_stopped, f);
    fixture_run_until(f, &f->stopped);
    assert_int_equal(f->gone, 1);
    fixture_run_until_count(f, &f->done, 1);
    assert_true(f->code == RPC_CANCELLED || f->code == RPC_UNAVAILABLE || f->code == RPC_UNKNOWN);
}

/* Goal: freeing a server with calls in flight delivers their on_gone and leaks nothing. */
static void test_server_free_in_flight(void **state) {
    struct fixture *f = *state;

    for (unsigned i = 0; i < 50; i++)
        fixture_call(f, "/t/Hold", 10, 0);
    (void) open_stream(f, "/t/Watch", "abc");
    fixture_run_until_count(f, &f->calls, 51);
    f->server = rpc_server_free(f->server);
    assert_int_equal(f->gone, 51);
    fixture_run_until_count(f, &f->done, 51);
}

/* Goal: freeing the client answers every call with CANCELLED before it returns. */
static void test_client_free_in_flight(void **state) {
    struct fixture *f = *state;

    for (unsigned i = 0; i < 50; i++)
        fixture_call(f, "/t/Hold", 10, 0);
    (void) open_stream(f, "/t/Watch", "abc");
    fixture_run_until_count(f, &f->calls, 40);
    f->client = rpc_client_free(f->client);
    assert_int_equal(f->done, 51);
    assert_int_equal(f->code, RPC_CANCELLED);
    fixture_run_until_count(f, &f->gone, f->calls);
}

static void on_done_free_client(void *arg, const struct rpc_result *res) {
    struct fixture *f = arg;

    fixture_on_done(arg, res);
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
    fixture_run_until_count(f, &f->done, 101);
    assert_int_equal(f->done, 101);
}

/* Goal: one channel ends, the client lives on. */
static void test_channel_free(void **state) {
    struct fixture *f = *state;

    fixture_call(f, "/t/Hold", 10, 0);
    fixture_run_until_count(f, &f->calls, 1);
    (void) rpc_channel_free(f->channel);
    assert_int_equal(f->done, 1);
    assert_int_equal(f->code, RPC_CANCELLED);
    assert_int_equal(rpc_channel_new(f->client, f->address, 0, &f->channel), 0);
    fixture_call(f, "/t/Echo", 10, 0);
    fixture_run_until_count(f, &f->done, 2);
    assert_int_equal(f->code, RPC_OK);
}

/* --- addresses --- */

/* Goal: a taken port is an error that names address and reason. */
static void test_port_taken(void **state) {
    struct fixture *f = *state;
    struct errtext e = {""};
    int r = 0;

    assert_null(fixture_server_new(f, f->address, &e, &r));
    assert_int_equal(r, -EADDRINUSE);
    assert_non_null(strstr(e.s, f->address));
    assert_non_null(strstr(e.s, strerror(EADDRINUSE)));
}

/* Goal: a channel finds a server that was gone and came back at the same address.
 * Method: one call to connect, replace the server, one call that waits for readiness. */
static void test_reconnect(void **state) {
    struct fixture *f = *state;
    int r = 0;

    fixture_call(f, "/t/Echo", 10, 0);
    fixture_run_until_count(f, &f->done, 1);
    f->server = rpc_server_free(f->server);
    f->server = fixture_server_new(f, f->address, NULL, &r);
    assert_int_equal(r, 0);
    /* The first call may still meet the dying connection. */
    for (unsigned n = 2; n == 2 || f->code != RPC_OK; n++) {
        fixture_call(f, "/t/Echo", 10, 0);
        fixture_run_until_count(f, &f->done, n);
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
    assert_int_equal(rpc_unary(ch, "/t/Echo", b, 0, false, fixture_on_done, f), 0);
    fixture_run_until_count(f, &f->done, 1);
    assert_int_equal(f->code, RPC_UNAVAILABLE);
    assert_true(uv_hrtime() - before < 5 * NS_PER_S);
    (void) close(fd);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_unary_echo, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_unary_too_large, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_unary_error, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_unknown_method, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_deadline, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_reply_later, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_concurrent, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_server_stream, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_bidi_echo, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_stream_cancel, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_stop_in_flight, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_stop_grace_over, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_server_free_in_flight, fixture_setup,
                                        fixture_teardown),
        cmocka_unit_test_setup_teardown(test_client_free_in_flight, fixture_setup,
                                        fixture_teardown),
        cmocka_unit_test_setup_teardown(test_client_free_in_callback, fixture_setup,
                                        fixture_teardown),
        cmocka_unit_test_setup_teardown(test_channel_free, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_port_taken, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_reconnect, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_connection_refused, fixture_setup, fixture_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
