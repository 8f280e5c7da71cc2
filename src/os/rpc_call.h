/* One call on the server, between rpc_server.c (listening, requests) and rpc_call.c (its life).
 * Private to os/. Thread: the loop's. */
#pragma once

#include "os/rpc_common.h"
#include "os/rpc_server.h"

/* IDLE --lent to gRPC--> REQUESTED --client called--> OPEN --reply, finish--> FINISHING
 *  ^                        |                           |                         |
 *  |<------shutdown---------+                           +--cancel, deadline,------+--status sent,
 *  |                                                      connection lost         |  or lost too
 *  +<----the last operation has completed---- GONE <---------on_gone--------------+
 */
enum rpc_call_state {
    RPC_CALL_IDLE,      /* in the server's pool */
    RPC_CALL_REQUESTED, /* waits in gRPC for a client to call its method */
    RPC_CALL_OPEN,      /* the handler owns the next move */
    RPC_CALL_FINISHING, /* the status is queued or on its way */
    RPC_CALL_GONE,      /* on_gone was delivered; gRPC may still hold operations */
};

/* A registered method, or (method NULL) every path that is not registered. */
struct rpc_slot {
    struct rpc_server *server;
    const struct rpc_method *method;
    void *handle;       /* gRPC's; NULL for unknown paths */
    size_t requested;   /* calls lent to gRPC */
    size_t request_max; /* how many we keep lent */
};

struct rpc_call {
    struct rpc_event requested, closed, sent, received;
    struct rpc_server *server;
    struct rpc_slot *slot;
    struct rpc_call *next_idle;
    struct rpc_call *young_prev, *young_next; /* the server's list of calls not yet watched */
    uint64_t young_since_ms;                  /* uv_now; set while in the list */
    bool young;
    grpc_call *call; /* owned from REQUESTED's event until IDLE */
    gpr_timespec deadline;
    grpc_call_details details;   /* unknown paths only */
    grpc_metadata_array headers; /* array kept between uses, elements owned by `call` */
    struct rpc_message in;
    grpc_byte_buffer *out; /* reused between sends */
    struct rpc_writeq writes;
    void *user;
    char *peer;
    int cancelled; /* written by gRPC; must exist, never needed */
    enum rpc_call_state state;
    unsigned holds; /* operations gRPC holds, and handler frames on the stack */
    bool initial_sent, sending, reply_ready, status_sent;
    bool watched;     /* a RECV_CLOSE operation was started */
    bool close_rides; /* the status batch carries RECV_CLOSE: its event is the end */
    bool handled;     /* on_call was called, so on_gone is owed */
    bool dying;       /* cancelled by us, or a send failed: writes are dropped */
    enum rpc_code code;
    grpc_slice message; /* owned while has_message */
    bool has_message;
    grpc_metadata *trailing; /* owned, with its slices */
    size_t trailing_count;
};

struct rpc_call *rpc_call_new(struct rpc_server *s);
void rpc_call_free(struct rpc_call *c);
void rpc_call_set_state(struct rpc_call *c, enum rpc_call_state to);
/* A client's call has come in: hand it to its method, or refuse it. */
void rpc_call_begin(struct rpc_call *c);
/* Have gRPC tell us when the client goes away before we answer. */
void rpc_call_watch(struct rpc_call *c);
/* Empty it for the next use. */
void rpc_call_reset(struct rpc_call *c);

/* Implemented by rpc_server.c. */
struct rpc_pump *rpc_server_pump(const struct rpc_server *s);
void *rpc_server_ctx(const struct rpc_server *s);
bool rpc_server_stopping(const struct rpc_server *s);
size_t rpc_server_write_queue_bytes_max(const struct rpc_server *s);
/* Bracket every event: on_stopped comes when the outermost is done. */
void rpc_server_enter(struct rpc_server *s);
void rpc_server_leave(struct rpc_server *s);
/* Watch the call if it is still open after a while: most unary calls are answered within a few
 * milliseconds and never need to know that their client left. */
void rpc_server_watch_later(struct rpc_server *s, struct rpc_call *c);
/* True when the last event of @c may be lazy (rpc_common.h); then rpc_server_lazy_arrived follows.
 */
bool rpc_server_sent_lazily(struct rpc_server *s, const struct rpc_call *c);
void rpc_server_lazy_arrived(struct rpc_server *s);
void rpc_server_watch_never(struct rpc_server *s, struct rpc_call *c);
/* The bookkeeping for stop: a call became OPEN, was finished by its handler, is
 * over, and has let go of everything. */
void rpc_server_call_opened(struct rpc_server *s, const struct rpc_call *c);
void rpc_server_call_finishing(struct rpc_server *s, const struct rpc_call *c);
void rpc_server_call_over(struct rpc_server *s, const struct rpc_call *c);
void rpc_server_call_release(struct rpc_server *s, struct rpc_call *c);
