/* A synchronous client of the cluster for the command line.
 *
 * What it is: one call at a time over os/rpc_client on a private loop. It tries the next node when
 * one is away, follows the leader's address when a node names it, and repeats what is safe to
 * repeat until its overall time is over.
 * What it is not: a pool, or for more than one thread.
 * Invariants: a call is repeated only by the rules of cli/retry.h.
 * Thread: the caller's. */
#pragma once

#include "base/err.h"
#include "os/rpc_client.h"

#include <protobuf-c/protobuf-c.h>

#define CLIENT_NODES_MAX 16
#define CLIENT_ADDRESS_BYTES_MAX 256

struct client;

/* What the last call ended with when it did not succeed. */
struct client_error {
    enum rpc_code code;
    char message[1024];
};

/* @addresses   "host:port[,host:port...]", borrowed for the call
 * @timeout_ms  for each call with all its repetitions; > 0
 * Returns 0; 1 = an address is malformed (*reterr); negative errors of the transport (*reterr). */
int client_new(const char *addresses, uint64_t timeout_ms, struct client **ret,
               struct errtext *reterr) _must_check_;
struct client *client_free(struct client *c); /* NULL allowed; returns NULL */
DEFINE_CLEANUP(struct client *, client_free);

/* One unary call with repetitions.
 *
 * @repeatable  the request may be executed twice (reads; submits with an idempotency key; cancels)
 * @ret_reply   owned, release with protobuf_c_message_free_unpacked(reply, NULL)
 * Returns 0, or the gRPC code (positive) with *reterr filled. */
int client_call(struct client *c, const char *path, const ProtobufCMessage *request,
                const ProtobufCMessageDescriptor *reply, bool repeatable,
                ProtobufCMessage **ret_reply, struct client_error *reterr) _must_check_;

/* Tries of the last call: more than one means that an earlier one may have taken effect. */
uint32_t client_attempts(const struct client *c);

struct client_stream_handler {
    /* 0 = go on; else stop: the stream is cancelled and client_stream returns 0. */
    int (*on_message)(void *arg, const ProtobufCMessage *message);
    void (*on_tick)(void *arg); /* every 100 ms while waiting; may be NULL */
    void *arg;
};

/* One server stream on the current node, until it ends. No repetition: only the caller knows where
 * to resume. Returns 0 when the server ended it well or the handler stopped it; else the gRPC code.
 */
int client_stream(struct client *c, const char *path, const ProtobufCMessage *request,
                  const ProtobufCMessageDescriptor *reply, const struct client_stream_handler *h,
                  struct client_error *reterr) _must_check_;

/* After a failed stream: move to the next node and wait as the policy says. False = give up.
 * @progress  messages came since the last call, so the time starts anew */
bool client_stream_retry(struct client *c, const struct client_error *e, bool progress,
                         const struct client_stream_handler *h) _must_check_;

/* Forget the failed streams and start the overall time anew, before a fresh stream. */
void client_stream_start(struct client *c);

/* The exit code for a gRPC code, by cli/exit_code.h. */
int client_exit_code(enum rpc_code code);
/* "NOT_FOUND"; never NULL. */
const char *client_code_name(enum rpc_code code);
