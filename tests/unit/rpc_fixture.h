/* A gRPC server and a client of it in one process: one loop, loopback, a port the system chose.
 * Tests only.
 *
 * The server's methods: /t/Echo answers with the request, /t/Fail with an error and metadata,
 * /t/Hold (unary) and /t/Watch (a stream) not at all, /t/List streams STREAM_MESSAGES messages that
 * begin with their number, /t/Chat writes back what it gets until the client has ended.
 * What goes wrong in here fails the test through cmocka. Thread: the one of the loop. */
#pragma once

#include "os/rpc_client.h"
#include "os/rpc_server.h"

#define STREAM_MESSAGES 10000
#define MESSAGE_BYTES_MAX (2 * 1024 * 1024)

/* A test may free server, client or channel itself; what it sets to NULL, or to another of its
 * kind, is respected by the teardown. */
struct fixture {
    uv_loop_t loop;
    uv_timer_t watchdog;
    struct rpc_server *server;   /* owned */
    struct rpc_client *client;   /* owned */
    struct rpc_channel *channel; /* the client's, to the server */
    char address[64];            /* of the server: "127.0.0.1:port" */
    /* what the server saw */
    unsigned calls, gone, on_ends;
    struct rpc_call *held; /* the last call of /t/Hold or /t/Watch; NULL once it is gone */
    bool held_gone;
    char peer[64], token[64]; /* of the last /t/Echo, as is deadline */
    struct mono deadline;
    unsigned produced, blocked_count; /* by /t/List: messages, and how often it had to wait */
    struct rpc_call *producing;
    /* what the client saw */
    unsigned done; /* calls that ended; the rest is of the last of them */
    enum rpc_code code;
    char message[512];
    char trailing[256]; /* "key=value;" for each */
    size_t reply_len;
    uint8_t reply_first, reply_last;
    /* for the tests' own callbacks */
    unsigned received;
    bool in_order; /* true at first */
    bool stopped;
};

/* For cmocka: *state is a new struct fixture, connected to its server, with a watchdog that aborts
 * the program when the test takes too long; at the end all of it is freed. */
int fixture_setup(void **state);
int fixture_teardown(void **state);

/* Another server with the same methods, which report to @f.
 *
 * @address  "host:port"
 * @e        may be NULL; why there is none
 * @ret_r    what rpc_server_new() returned
 *
 * The server is the caller's; NULL when *ret_r is not 0. */
struct rpc_server *fixture_server_new(struct fixture *f, const char *address, struct errtext *e,
                                      int *ret_r);

/* Run the loop until *count is at least @target, or *flag is set; the watchdog ends it else. */
void fixture_run_until_count(struct fixture *f, const unsigned *count, unsigned target);
void fixture_run_until(struct fixture *f, const bool *flag);

/* Start a unary call that waits for the connection and ends in fixture_on_done().
 *
 * @len         of the request: 'a', many 'x', 'z'
 * @timeout_ms  0 = none */
void fixture_call(struct fixture *f, const char *path, size_t len, uint64_t timeout_ms);

/* The end of a call, @arg its fixture: counted and kept as what the client saw. */
void fixture_on_done(void *arg, const struct rpc_result *res);
