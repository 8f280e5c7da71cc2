/* A gRPC server on the gRPC C core, as events on the owner's libuv loop.
 *
 * What it is: transport. It listens, receives calls with raw message bytes, and hands them to the
 * loop in batches; replies go out from the loop. A private thread sits in
 * grpc_completion_queue_next() and wakes the loop with one eventfd write per batch.
 * What it is not: it knows no method, no protobuf, no error policy; api/ has those.
 * Thread: every function and callback on the loop's thread. */
#pragma once

#include "base/bytes.h"
#include "base/err.h"
#include "base/time.h"

#include <uv.h>

/* Canonical gRPC status codes (grpc/status.h), so that callers need no gRPC header. */
enum rpc_code {
    RPC_OK = 0,
    RPC_CANCELLED = 1,
    RPC_UNKNOWN = 2,
    RPC_INVALID_ARGUMENT = 3,
    RPC_DEADLINE_EXCEEDED = 4,
    RPC_NOT_FOUND = 5,
    RPC_ALREADY_EXISTS = 6,
    RPC_PERMISSION_DENIED = 7,
    RPC_RESOURCE_EXHAUSTED = 8,
    RPC_FAILED_PRECONDITION = 9,
    RPC_ABORTED = 10,
    RPC_OUT_OF_RANGE = 11,
    RPC_UNIMPLEMENTED = 12,
    RPC_INTERNAL = 13,
    RPC_UNAVAILABLE = 14,
    RPC_DATA_LOSS = 15,
    RPC_UNAUTHENTICATED = 16
};

enum rpc_kind {
    RPC_UNARY,         /* one message in, one out */
    RPC_SERVER_STREAM, /* one in, many out */
    RPC_BIDI_STREAM    /* many in, many out */
};

struct rpc_call; /* one call; owned by the server until on_gone has been delivered */

struct rpc_metadata {
    const char *key;   /* lower case */
    const char *value; /* printable ASCII (a pair with other bytes in it is left out) */
};

struct rpc_method {
    const char *path; /* "/chronos.v1.JobService/SubmitJob" */
    enum rpc_kind kind;
    /* A call has arrived; UNARY and SERVER_STREAM: with its request (borrowed for the call);
     * BIDI: request is empty and on_message follows per message. The handler replies now or later.
     */
    void (*on_call)(void *ctx, struct rpc_call *call, struct slice request);
    /* BIDI only. @end: the client has half-closed, @message is empty. */
    void (*on_message)(void *ctx, struct rpc_call *call, struct slice message, bool end);
    /* The call is over (finished by us, cancelled, deadline, connection lost). Last callback; after
     * it the pointer is invalid. For UNARY it also comes once the reply was sent, and up to 40 ms
     * after the client left (gRPC is asked to watch a unary call only when it is 20 ms old). */
    void (*on_gone)(void *ctx, struct rpc_call *call);
    /* Stream writable again after rpc_call_write returned 1; may be NULL. */
    void (*on_writable)(void *ctx, struct rpc_call *call);
};

struct rpc_server_options {
    const char *address;              /* "127.0.0.1:7400"; port 0 allowed, see rpc_server_port */
    const struct rpc_method *methods; /* borrowed for the server's life */
    size_t methods_count;
    size_t message_bytes_max; /* request size limit, default 4 MiB; larger: RESOURCE_EXHAUSTED by
                                 gRPC */
    size_t write_queue_bytes_max; /* per stream; above it rpc_call_write returns 1 */
    void *ctx;                    /* for all callbacks */
};

struct rpc_server;

int rpc_server_new(uv_loop_t *loop, const struct rpc_server_options *o, struct rpc_server **ret,
                   struct errtext *reterr) _must_check_;
int rpc_server_port(const struct rpc_server *s);
/* Stop accepting, let running unary calls (and streams that were finished) end until @grace_ms,
 * cancel the rest, then on_stopped (on the loop). Streams that nobody has finished are cancelled as
 * soon as only such are left: finish them first to give them a status of their own. A call that
 * still arrives is refused with UNAVAILABLE. After that, or from on_stopped, rpc_server_free. */
void rpc_server_stop(struct rpc_server *s, uint64_t grace_ms, void (*on_stopped)(void *arg),
                     void *arg);
/* At any time but from inside a method's callback (on_stopped may): calls in flight are cancelled
 * and get their on_gone before this returns; on_stopped no longer comes. The loop must run once
 * more afterwards, so that libuv can close the handles. NULL allowed; returns NULL. */
struct rpc_server *rpc_server_free(struct rpc_server *s);

/* Attach the handler's own state to a call. */
void rpc_call_set_user(struct rpc_call *c, void *user);
void *rpc_call_user(const struct rpc_call *c);
const char *rpc_call_peer(struct rpc_call *c); /* "ipv4:127.0.0.1:5012"; borrowed */
/* The client's deadline on our monotonic clock (uv_hrtime base); MONO_NEVER when none. */
struct mono rpc_call_deadline(const struct rpc_call *c);
/* Request metadata by lower-case key, borrowed until on_gone (each call makes a copy that lives as
 * long as the call: ask once); NULL when absent. */
const char *rpc_call_metadata(const struct rpc_call *c, const char *key);

/* UNARY: answer with a message and OK. @reply is borrowed for the call. Exactly one of reply/fail.
 */
void rpc_call_reply(struct rpc_call *c, struct bytes *reply);
/* Any kind: end with a status. @message is copied (may contain UTF-8 text, no newline). Trailing
 * metadata is copied; may be NULL, 0. For streams, RPC_OK with NULL message ends it well; queued
 * writes go out first. */
void rpc_call_finish(struct rpc_call *c, enum rpc_code code, const char *message,
                     const struct rpc_metadata *trailing, size_t trailing_count);
/* Streams: queue one message (takes a reference). 0; 1 = queued, but the queue is above its bound:
 * wait for on_writable (at half the bound) before producing more. A stream whose handler goes on
 * to 16 times the bound is cancelled. Writing to a call that is already dying is harmless. */
int rpc_call_write(struct rpc_call *c, struct bytes *message);
