/* A gRPC client on the gRPC C core, as events on the owner's libuv loop: for the worker, the
 * command line and the benchmark. Raw message bytes; the schema is the caller's.
 * A private completion-queue thread wakes the loop with one eventfd write per batch.
 * Thread: every function and callback on the loop's thread. */
#pragma once

#include "os/rpc_server.h" /* enum rpc_code, struct rpc_metadata */

struct rpc_client;  /* one per loop: the completion queue and its thread */
struct rpc_channel; /* one per server address */
struct rpc_stream;  /* one bidi or server stream */

int rpc_client_new(uv_loop_t *loop, struct rpc_client **ret, struct errtext *reterr) _must_check_;
/* All calls get on_done / on_end with CANCELLED before this returns. Frees the channels that are
 * left, too. Allowed inside a callback. The loop must run once more afterwards, so that libuv can
 * close the handles. */
struct rpc_client *rpc_client_free(struct rpc_client *c);

/* Lazy connection with gRPC's own reconnects (backoff capped at 1 s here). @address "host:port".
 * @message_bytes_max bounds received messages. Each channel has its own connection (no sharing). */
int rpc_channel_new(struct rpc_client *c, const char *address, size_t message_bytes_max,
                    struct rpc_channel **ret) _must_check_;
/* Metadata to send with every later call of the channel, for example "authorization". Copied;
 * replaces what was set before. ERR_LIMIT over 8 pairs; ERR_PROTO when a key or value has bytes
 * that HTTP/2 does not allow (nothing is set then). */
int rpc_channel_set_metadata(struct rpc_channel *ch, const struct rpc_metadata *md,
                             size_t count) _must_check_;
struct rpc_channel *
rpc_channel_free(struct rpc_channel *ch); /* its calls end with CANCELLED first */

struct rpc_result {
    enum rpc_code code;
    const char *message;                 /* borrowed for the callback; "" when none */
    struct slice reply;                  /* valid when code is RPC_OK; borrowed for the callback */
    const struct rpc_metadata *trailing; /* borrowed for the callback */
    size_t trailing_count;
};

/* One unary call. @timeout_ms 0 = none. @wait_ready: wait for a connection instead of failing with
 * UNAVAILABLE at once. Takes a reference of @request. on_done exactly once, never from inside this
 * function. -ENOMEM. */
int rpc_unary(struct rpc_channel *ch, const char *path, struct bytes *request, uint64_t timeout_ms,
              bool wait_ready, void (*on_done)(void *arg, const struct rpc_result *res),
              void *arg) _must_check_;

struct rpc_stream_callbacks {
    void (*on_message)(void *arg, struct rpc_stream *s, struct slice message);
    /* Last callback; the stream is freed after it. */
    void (*on_end)(void *arg, struct rpc_stream *s, const struct rpc_result *res);
    void (*on_writable)(void *arg, struct rpc_stream *s); /* may be NULL */
};

/* Bidi: write with rpc_stream_write. Server stream: pass the one request as @first and then
 * half-close by rpc_stream_writes_done. @first may be NULL; takes a reference. */
int rpc_stream_open(struct rpc_channel *ch, const char *path, struct bytes *first,
                    uint64_t timeout_ms, const struct rpc_stream_callbacks *cb, void *arg,
                    struct rpc_stream **ret) _must_check_;
int rpc_stream_write(struct rpc_stream *s, struct bytes *message); /* as rpc_call_write */
void rpc_stream_writes_done(struct rpc_stream *s);
void rpc_stream_cancel(struct rpc_stream *s); /* on_end follows with CANCELLED */
