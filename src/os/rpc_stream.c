/* The client's streams, bidirectional and server-sided. See rpc_client.h.
 *
 * What it is: one status operation for the stream's life, one read and one send at a time.
 * What it is not: it knows no unary call and no channel (rpc_client.c).
 * Invariants: on_end comes exactly once, after the last on_message; the object is freed when it was
 * delivered and neither gRPC nor a callback frame refers to it (holds == 0).
 * Thread: the loop's. */
#include "os/rpc_stream.h"

#include <errno.h>
#include <stdlib.h>

#define STREAM_QUEUE_BYTES_MAX (1024 * 1024)
#define STREAM_OPS_MAX 3

struct rpc_stream {
    struct rpc_task task;
    struct rpc_event ended, received, sent;
    struct rpc_message in;
    grpc_byte_buffer *out; /* reused */
    struct rpc_writeq writes;
    struct rpc_stream_callbacks callbacks;
    void *arg;
    bool initial_sent, sending;
    bool closing; /* writes_done was called */
    bool close_sent;
    bool have_status; /* no operation will be accepted from here on */
    bool answered;    /* on_end was delivered */
};

static void stream_free(struct rpc_stream *s) {
    rpc_message_clear(&s->in);
    rpc_writeq_done(&s->writes);
    rpc_task_reset(&s->task);
    if (s->out)
        grpc_byte_buffer_destroy(s->out);
    grpc_metadata_array_destroy(&s->task.headers);
    grpc_metadata_array_destroy(&s->task.trailers);
    free(s);
}

/* Drop one hold. When only the answer is left to give, give it; when nothing is left, free. */
static void stream_unhold(struct rpc_stream *s) {
    struct rpc_result res;

    ASSERT(s->task.holds > 0);
    s->task.holds--;
    if (s->task.holds > 0)
        return;
    ASSERT(s->have_status);
    if (!s->answered) {
        s->answered = true;
        rpc_task_result(&s->task, &res);
        rpc_task_leave(&s->task);
        s->callbacks.on_end(s->arg, s, &res);
    }
    s->task.has_text = true; /* have_status: gRPC has filled it */
    stream_free(s);
}

/* --- sending --- */

static void stream_send(struct rpc_stream *s) {
    _cleanup_(bytes_unrefp) struct bytes *b = NULL;
    grpc_op ops[STREAM_OPS_MAX];
    size_t n = 0;

    if (s->sending || s->close_sent || s->have_status || s->answered)
        return;
    b = rpc_writeq_pop(&s->writes);
    if (!s->initial_sent)
        ops[n++] = rpc_task_op_initial(&s->task, false);
    s->initial_sent = true;
    if (b) {
        rpc_buffer_fill(&s->out, bytes_slice(b));
        ops[n] = (grpc_op){.op = GRPC_OP_SEND_MESSAGE};
        ops[n].flags = s->writes.count > 0 ? GRPC_WRITE_BUFFER_HINT : 0;
        ops[n++].data.send_message.send_message = s->out;
    }
    if (s->closing && s->writes.count == 0) {
        s->close_sent = true;
        ops[n++] = (grpc_op){.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT};
    }
    if (n == 0)
        return;
    s->sending = true;
    rpc_task_start(&s->task, ops, n, &s->sent);
}

static void on_sent(struct rpc_event *e, bool ok) {
    struct rpc_stream *s = CONTAINER_OF(e, struct rpc_stream, sent);
    struct rpc_client *c = s->task.client;

    rpc_client_enter(c);
    s->sending = false;
    if (!ok) {
        /* The stream is dying; its status follows. Later writes are dropped. */
        rpc_writeq_clear(&s->writes);
        s->close_sent = true;
    } else {
        stream_send(s);
        if (!s->answered && !s->closing && rpc_writeq_unblocked(&s->writes) &&
            s->callbacks.on_writable)
            s->callbacks.on_writable(s->arg, s);
    }
    stream_unhold(s);
    rpc_client_leave(c);
}

/* --- receiving --- */

static void stream_read(struct rpc_stream *s) {
    grpc_op op = {.op = GRPC_OP_RECV_MESSAGE};

    ASSERT(!s->in.raw);
    op.data.recv_message.recv_message = &s->in.raw;
    rpc_task_start(&s->task, &op, 1, &s->received);
}

static void on_received(struct rpc_event *e, bool ok) {
    struct rpc_stream *s = CONTAINER_OF(e, struct rpc_stream, received);
    struct rpc_client *c = s->task.client;
    bool more = ok && s->in.raw;
    struct slice view = slice_of(NULL, 0);

    rpc_client_enter(c);
    if (more && !s->answered) {
        if (rpc_message_view(&s->in, &view))
            s->callbacks.on_message(s->arg, s, view);
        else
            (void) grpc_call_cancel_with_status(s->task.call, GRPC_STATUS_INTERNAL,
                                                "the message is compressed, which was not offered",
                                                NULL);
    }
    rpc_message_clear(&s->in);
    /* The next read starts only now: a slow reader slows the server down. */
    if (more)
        stream_read(s);
    stream_unhold(s);
    rpc_client_leave(c);
}

static void on_ended(struct rpc_event *e, bool ok) {
    struct rpc_stream *s = CONTAINER_OF(e, struct rpc_stream, ended);
    struct rpc_client *c = s->task.client;

    (void) ok; /* RECV_STATUS always succeeds */
    rpc_client_enter(c);
    s->have_status = true;
    stream_unhold(s);
    rpc_client_leave(c);
}

/* --- opening and closing --- */

static void stream_abandon(struct rpc_task *t) {
    struct rpc_stream *s = CONTAINER_OF(t, struct rpc_stream, task);
    struct rpc_result res = {.code = RPC_CANCELLED, .message = "the client was closed"};

    ASSERT(!s->answered);
    s->answered = true;
    rpc_writeq_clear(&s->writes);
    rpc_task_leave(t);
    (void) grpc_call_cancel(t->call, NULL);
    s->callbacks.on_end(s->arg, s, &res);
}

static struct rpc_stream *stream_new(void) {
    struct rpc_stream *s = calloc(1, sizeof(*s));

    if (!s)
        return NULL;
    grpc_metadata_array_init(&s->task.headers);
    grpc_metadata_array_init(&s->task.trailers);
    s->task.abandon = stream_abandon;
    s->ended.fn = on_ended;
    s->received.fn = on_received;
    s->sent.fn = on_sent;
    s->writes.bytes_max = STREAM_QUEUE_BYTES_MAX;
    return s;
}

int rpc_stream_open(struct rpc_channel *ch, const char *path, struct bytes *first,
                    uint64_t timeout_ms, const struct rpc_stream_callbacks *cb, void *arg,
                    struct rpc_stream **ret) {
    struct rpc_stream *s = stream_new();
    grpc_op ops[2];
    int r = s ? 0 : -ENOMEM;

    ASSERT(cb && cb->on_message && cb->on_end);
    ASSERT(ret);
    if (r == 0 && first)
        r = rpc_writeq_push(&s->writes, first);
    if (r >= 0)
        r = rpc_task_begin(&s->task, ch, path, timeout_ms);
    if (r < 0) {
        if (s)
            stream_free(s);
        return r;
    }
    s->callbacks = *cb;
    s->arg = arg;
    ops[0] = rpc_task_op_status(&s->task);
    rpc_task_start(&s->task, ops, 1, &s->ended);
    stream_send(s);
    ops[0] = rpc_task_op_headers(&s->task);
    ops[1] = (grpc_op){.op = GRPC_OP_RECV_MESSAGE};
    ops[1].data.recv_message.recv_message = &s->in.raw;
    rpc_task_start(&s->task, ops, 2, &s->received);
    *ret = s;
    return 0;
}

int rpc_stream_write(struct rpc_stream *s, struct bytes *message) {
    int r = 0;

    ASSERT(!s->closing);
    if (s->answered || s->have_status || s->close_sent)
        return 0;
    r = rpc_writeq_push(&s->writes, message);
    if (r < 0) {
        /* A hole in the stream would go unnoticed: end it instead. */
        rpc_writeq_clear(&s->writes);
        s->close_sent = true;
        (void) grpc_call_cancel_with_status(s->task.call, GRPC_STATUS_RESOURCE_EXHAUSTED,
                                            "the stream's reader is too slow", NULL);
        return 0;
    }
    stream_send(s);
    return s->writes.blocked ? 1 : 0;
}

void rpc_stream_writes_done(struct rpc_stream *s) {
    if (s->closing)
        return;
    s->closing = true;
    stream_send(s);
}

void rpc_stream_cancel(struct rpc_stream *s) {
    (void) grpc_call_cancel(s->task.call, NULL);
}
