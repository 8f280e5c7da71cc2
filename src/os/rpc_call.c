/* The life of one call on the server: request, messages, reply, end.
 *
 * What it is: the state machine of rpc_call.h, and the batches of operations behind it. At most one
 * send and one receive are with gRPC at a time; a unary reply is one batch.
 * What it is not: it does not listen and does not match paths (rpc_server.c).
 * Invariants: on_gone is delivered exactly once for each call that reached a handler; the object
 * returns to the pool only when neither gRPC nor a handler frame refers to it (holds == 0).
 * Thread: the loop's. */
#include "os/rpc_call.h"

#include <errno.h>
#include <grpc/slice_buffer.h>
#include <grpc/support/alloc.h>
#include <stdlib.h>
#include <string.h>

#define CALL_OPS_MAX 4
#define CALL_PATH_SHOWN_MAX 256

static const uint8_t call_edges[] = {
    [RPC_CALL_IDLE] = 1u << RPC_CALL_REQUESTED,
    [RPC_CALL_REQUESTED] = 1u << RPC_CALL_OPEN | 1u << RPC_CALL_IDLE,
    [RPC_CALL_OPEN] = 1u << RPC_CALL_FINISHING | 1u << RPC_CALL_GONE,
    [RPC_CALL_FINISHING] = 1u << RPC_CALL_GONE,
    [RPC_CALL_GONE] = 1u << RPC_CALL_IDLE,
};

void rpc_call_set_state(struct rpc_call *c, enum rpc_call_state to) {
    ASSERT((size_t) c->state < ARRAY_LEN(call_edges));
    ASSERT(call_edges[c->state] >> to & 1u);
    c->state = to;
}

static void call_start(struct rpc_call *c, const grpc_op *ops, size_t count,
                       struct rpc_event *tag) {
    grpc_call_error e = GRPC_CALL_OK;

    c->holds++;
    e = grpc_call_start_batch(c->call, ops, count, rpc_pump_tag(rpc_server_pump(c->server), tag),
                              NULL);
    /* Everything that gRPC may refuse was checked before: a refusal is our bug, and without the
     * event the call would hang for ever. */
    ASSERT(e == GRPC_CALL_OK);
}

/* Drop one hold; the last one of a call that is over returns the object to the pool. */
static void call_unhold(struct rpc_call *c) {
    struct rpc_server *s = c->server;

    ASSERT(c->holds > 0);
    c->holds--;
    if (c->holds == 0 && c->state == RPC_CALL_GONE)
        rpc_server_call_release(s, c);
}

/* The server counts the calls whose handler has yet to finish them. */
static void call_leave_open(struct rpc_call *c, enum rpc_call_state to) {
    if (c->state == RPC_CALL_OPEN)
        rpc_server_call_finishing(c->server, c);
    if (c->young)
        rpc_server_watch_never(c->server, c);
    rpc_call_set_state(c, to);
}

static void call_over(struct rpc_call *c) {
    const struct rpc_method *m = c->slot->method;

    if (c->state == RPC_CALL_GONE)
        return;
    call_leave_open(c, RPC_CALL_GONE);
    rpc_writeq_clear(&c->writes);
    rpc_server_call_over(c->server, c);
    if (c->handled)
        m->on_gone(rpc_server_ctx(c->server), c);
}

/* --- sending --- */

static grpc_op op_status(struct rpc_call *c) {
    grpc_op op = {.op = GRPC_OP_SEND_STATUS_FROM_SERVER};

    op.data.send_status_from_server.status = (grpc_status_code) c->code;
    op.data.send_status_from_server.status_details = c->has_message ? &c->message : NULL;
    op.data.send_status_from_server.trailing_metadata = c->trailing;
    op.data.send_status_from_server.trailing_metadata_count = c->trailing_count;
    return op;
}

static grpc_op op_close(struct rpc_call *c) {
    grpc_op op = {.op = GRPC_OP_RECV_CLOSE_ON_SERVER};

    op.data.recv_close_on_server.cancelled = &c->cancelled;
    c->watched = true;
    return op;
}

static bool call_next_message(struct rpc_call *c) {
    _cleanup_(bytes_unrefp) struct bytes *b = NULL;

    if (c->reply_ready) {
        c->reply_ready = false;
        return true;
    }
    b = rpc_writeq_pop(&c->writes);
    if (!b)
        return false;
    rpc_buffer_fill(&c->out, bytes_slice(b));
    return true;
}

/* Start the next send if none is in flight: as much of initial metadata, one message and the
 * status as is due, in one batch, because each batch costs an event and often a system call. */
static void call_send(struct rpc_call *c) {
    grpc_op ops[CALL_OPS_MAX];
    size_t n = 0;
    bool message = false;
    bool status = false;

    if (c->sending || c->status_sent || c->state == RPC_CALL_GONE)
        return;
    message = call_next_message(c);
    status = c->state == RPC_CALL_FINISHING && c->writes.count == 0;
    if (!message && !status)
        return;
    if (!c->initial_sent)
        ops[n++] = (grpc_op){.op = GRPC_OP_SEND_INITIAL_METADATA};
    c->initial_sent = true;
    if (message) {
        ops[n] = (grpc_op){.op = GRPC_OP_SEND_MESSAGE};
        ops[n].flags = c->writes.count > 0 ? GRPC_WRITE_BUFFER_HINT : 0;
        ops[n++].data.send_message.send_message = c->out;
    }
    if (status) {
        c->status_sent = true;
        ops[n++] = op_status(c);
        if (!c->watched) {
            /* Answered while young: the end of the call rides along. */
            c->close_rides = true;
            ops[n++] = op_close(c);
        }
    }
    ASSERT(n <= CALL_OPS_MAX);
    c->sending = true;
    c->sent.lazy = c->close_rides && rpc_server_sent_lazily(c->server, c);
    call_start(c, ops, n, &c->sent);
}

static void on_sent(struct rpc_event *e, bool ok) {
    struct rpc_call *c = CONTAINER_OF(e, struct rpc_call, sent);
    struct rpc_server *s = c->server;
    const struct rpc_method *m = c->slot->method;

    rpc_server_enter(s);
    c->sending = false;
    if (e->lazy)
        rpc_server_lazy_arrived(s);
    if (c->close_rides) {
        call_over(c);
    } else if (!ok) {
        c->dying = true;
        rpc_writeq_clear(&c->writes);
    } else {
        call_send(c);
        if (c->state == RPC_CALL_OPEN && rpc_writeq_unblocked(&c->writes) && m && m->on_writable)
            m->on_writable(rpc_server_ctx(s), c);
    }
    call_unhold(c);
    rpc_server_leave(s);
}

/* --- the end --- */

static void on_closed(struct rpc_event *e, bool ok) {
    struct rpc_call *c = CONTAINER_OF(e, struct rpc_call, closed);
    struct rpc_server *s = c->server;

    (void) ok; /* RECV_CLOSE always succeeds */
    rpc_server_enter(s);
    call_over(c);
    call_unhold(c);
    rpc_server_leave(s);
}

void rpc_call_watch(struct rpc_call *c) {
    grpc_op op;

    ASSERT(!c->watched);
    ASSERT(!c->young);
    op = op_close(c);
    call_start(c, &op, 1, &c->closed);
}

/* --- receiving --- */

static void call_read(struct rpc_call *c) {
    grpc_op op = {.op = GRPC_OP_RECV_MESSAGE};

    ASSERT(!c->in.raw);
    op.data.recv_message.recv_message = &c->in.raw;
    call_start(c, &op, 1, &c->received);
}

static void on_received(struct rpc_event *e, bool ok) {
    struct rpc_call *c = CONTAINER_OF(e, struct rpc_call, received);
    struct rpc_server *s = c->server;
    const struct rpc_method *m = c->slot->method;
    bool message = ok && c->in.raw;
    struct slice view = slice_of(NULL, 0);

    rpc_server_enter(s);
    if (c->state != RPC_CALL_OPEN || c->dying) {
        message = false; /* answered or over: what still comes in interests nobody */
    } else if (message && !rpc_message_view(&c->in, &view)) {
        message = false;
        rpc_call_finish(c, RPC_UNIMPLEMENTED, "compressed messages are not accepted", NULL, 0);
    } else if (message) {
        m->on_message(rpc_server_ctx(s), c, view, false);
    } else if (!grpc_call_failed_before_recv_message(c->call)) {
        m->on_message(rpc_server_ctx(s), c, view, true);
    }
    rpc_message_clear(&c->in);
    /* The next read starts only now: a handler that is slow slows its client down. */
    if (message && c->state == RPC_CALL_OPEN && !c->dying)
        call_read(c);
    call_unhold(c);
    rpc_server_leave(s);
}

/* --- the beginning --- */

static void call_refuse_path(struct rpc_call *c) {
    size_t len = MIN(GRPC_SLICE_LENGTH(c->details.method), (size_t) CALL_PATH_SHOWN_MAX);
    struct errtext e;

    errtext_set(&e, "unknown method %.*s", (int) len,
                (const char *) GRPC_SLICE_START_PTR(c->details.method));
    rpc_call_finish(c, RPC_UNIMPLEMENTED, e.s, NULL, 0);
}

static void call_dispatch(struct rpc_call *c) {
    const struct rpc_method *m = c->slot->method;
    struct slice request = slice_of(NULL, 0);

    if (!m) {
        call_refuse_path(c);
    } else if (rpc_server_stopping(c->server)) {
        rpc_call_finish(c, RPC_UNAVAILABLE, "the server is stopping", NULL, 0);
    } else if (m->kind != RPC_BIDI_STREAM && !c->in.raw) {
        rpc_call_finish(c, RPC_INTERNAL, "the request message is missing", NULL, 0);
    } else if (m->kind != RPC_BIDI_STREAM && !rpc_message_view(&c->in, &request)) {
        rpc_call_finish(c, RPC_UNIMPLEMENTED, "compressed messages are not accepted", NULL, 0);
    } else {
        c->handled = true;
        m->on_call(rpc_server_ctx(c->server), c, request);
    }
}

void rpc_call_begin(struct rpc_call *c) {
    struct rpc_server *s = c->server;

    ASSERT(c->call);
    ASSERT(c->holds == 0);
    rpc_call_set_state(c, RPC_CALL_OPEN);
    c->writes.bytes_max = rpc_server_write_queue_bytes_max(s);
    c->holds++;
    rpc_server_enter(s);
    rpc_server_call_opened(s, c);
    call_dispatch(c);
    if (!c->watched && c->handled && c->slot->method->kind == RPC_UNARY)
        rpc_server_watch_later(s, c);
    else if (!c->watched)
        rpc_call_watch(c);
    ASSERT(c->watched || c->young);
    if (c->handled && c->slot->method->kind == RPC_BIDI_STREAM && c->state == RPC_CALL_OPEN)
        call_read(c);
    call_unhold(c);
    rpc_server_leave(s);
}

/* --- the object --- */

struct rpc_call *rpc_call_new(struct rpc_server *s) {
    struct rpc_call *c = calloc(1, sizeof(*c));

    if (!c)
        return NULL;
    c->server = s;
    c->closed.fn = on_closed;
    c->sent.fn = on_sent;
    c->received.fn = on_received;
    grpc_metadata_array_init(&c->headers);
    return c;
}

static void call_drop_trailing(struct rpc_call *c) {
    for (size_t i = 0; i < c->trailing_count; i++) {
        grpc_slice_unref(c->trailing[i].key);
        grpc_slice_unref(c->trailing[i].value);
    }
    free(c->trailing);
    c->trailing = NULL;
    c->trailing_count = 0;
}

void rpc_call_reset(struct rpc_call *c) {
    ASSERT(c->holds == 0);
    rpc_call_set_state(c, RPC_CALL_IDLE);
    rpc_message_clear(&c->in);
    rpc_writeq_clear(&c->writes);
    call_drop_trailing(c);
    if (c->has_message)
        grpc_slice_unref(c->message);
    if (c->peer)
        gpr_free(c->peer);
    if (c->call)
        grpc_call_unref(c->call);
    c->headers.count = 0; /* the elements went with the call */
    c->call = NULL;
    c->peer = NULL;
    c->user = NULL;
    c->has_message = false;
    c->initial_sent = c->sending = c->reply_ready = c->status_sent = false;
    c->watched = c->close_rides = c->dying = c->handled = false;
}

void rpc_call_free(struct rpc_call *c) {
    if (!c)
        return;
    ASSERT(c->state == RPC_CALL_IDLE);
    if (c->out)
        grpc_byte_buffer_destroy(c->out);
    grpc_metadata_array_destroy(&c->headers);
    rpc_writeq_done(&c->writes);
    free(c);
}

/* --- what handlers use --- */

void rpc_call_set_user(struct rpc_call *c, void *user) {
    c->user = user;
}

void *rpc_call_user(const struct rpc_call *c) {
    return c->user;
}

const char *rpc_call_peer(struct rpc_call *c) {
    ASSERT(c->call);
    if (!c->peer)
        c->peer = grpc_call_get_peer(c->call);
    return c->peer ? c->peer : "";
}

struct mono rpc_call_deadline(const struct rpc_call *c) {
    gpr_timespec left;
    uint64_t now = uv_hrtime();
    uint64_t left_ns = 0;

    if (gpr_time_cmp(c->deadline, gpr_inf_future(c->deadline.clock_type)) == 0)
        return MONO_NEVER;
    /* gRPC counts from an origin of its own; only the distance to its now carries over. */
    left = gpr_time_sub(c->deadline, gpr_now(c->deadline.clock_type));
    if (left.tv_sec < 0)
        return (struct mono){.ns = now};
    left_ns = (uint64_t) left.tv_sec * NS_PER_S;
    left_ns += (uint64_t) left.tv_nsec;
    return mono_add_ns((struct mono){.ns = now}, left_ns);
}

const char *rpc_call_metadata(const struct rpc_call *c, const char *key) {
    ASSERT(c->call);
    ASSERT(key);
    for (size_t i = 0; i < c->headers.count; i++)
        if (grpc_slice_str_cmp(c->headers.metadata[i].key, key) == 0)
            return rpc_slice_text(c->call, c->headers.metadata[i].value);
    return NULL;
}

void rpc_call_reply(struct rpc_call *c, struct bytes *reply) {
    ASSERT(c->state == RPC_CALL_OPEN);
    ASSERT(c->slot->method && c->slot->method->kind == RPC_UNARY);
    ASSERT(reply);
    rpc_buffer_fill(&c->out, bytes_slice(reply));
    c->reply_ready = true;
    c->code = RPC_OK;
    call_leave_open(c, RPC_CALL_FINISHING);
    call_send(c);
}

static void call_copy_trailing(struct rpc_call *c, const struct rpc_metadata *md, size_t count) {
    ASSERT(!c->trailing);
    if (count == 0)
        return;
    c->trailing = calloc(count, sizeof(*c->trailing));
    if (!c->trailing)
        return; /* the status itself still reaches the client */
    for (size_t i = 0; i < count; i++) {
        grpc_slice key = grpc_slice_from_copied_string(md[i].key);
        grpc_slice value = grpc_slice_from_copied_string(md[i].value);

        ASSERT(grpc_header_key_is_legal(key));
        if (!grpc_is_binary_header(key) && !grpc_header_nonbin_value_is_legal(value)) {
            grpc_slice_unref(key);
            grpc_slice_unref(value);
            continue;
        }
        c->trailing[c->trailing_count].key = key;
        c->trailing[c->trailing_count++].value = value;
    }
}

void rpc_call_finish(struct rpc_call *c, enum rpc_code code, const char *message,
                     const struct rpc_metadata *trailing, size_t trailing_count) {
    ASSERT(c->state == RPC_CALL_OPEN);
    ASSERT(trailing || trailing_count == 0);
    ASSERT(!c->has_message);
    c->code = code;
    if (message) {
        c->message = grpc_slice_from_copied_string(message);
        c->has_message = true;
    }
    call_copy_trailing(c, trailing, trailing_count);
    call_leave_open(c, RPC_CALL_FINISHING);
    call_send(c);
}

int rpc_call_write(struct rpc_call *c, struct bytes *message) {
    int r = 0;

    ASSERT(c->state == RPC_CALL_OPEN);
    ASSERT(c->slot->method && c->slot->method->kind != RPC_UNARY);
    if (c->dying)
        return 0;
    r = rpc_writeq_push(&c->writes, message);
    if (r < 0) {
        /* A hole in the stream would go unnoticed: end it instead. on_gone follows. */
        c->dying = true;
        rpc_writeq_clear(&c->writes);
        (void) grpc_call_cancel_with_status(c->call, GRPC_STATUS_RESOURCE_EXHAUSTED,
                                            "the stream's reader is too slow", NULL);
        return 0;
    }
    call_send(c);
    return r == 1 && c->writes.blocked ? 1 : 0;
}
