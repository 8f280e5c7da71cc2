/* WorkerService.Session: the bytes between a worker's stream and node/worker_session.
 * What it is not: the protocol; that is the node's half in node/worker_session.h.
 * Thread: the loop's. */
#include "api/api_impl.h"

#include "node/worker_session.h"

#include <stdlib.h>

struct api_session {
    struct api *api;
    struct rpc_call *call;          /* valid until on_gone, which frees this */
    struct worker_session *session; /* owned */
    bool ended;                     /* the stream was finished: nothing more is written or read */
    struct api_session *prev, *next;
};

static void session_finish(struct api_session *s, enum rpc_code code, const char *message) {
    if (s->ended)
        return;
    s->ended = true;
    rpc_call_finish(s->call, code, message, NULL, 0);
}

static int on_send(void *arg, struct bytes *node_message) {
    _cleanup_(bytes_unrefp) struct bytes *b = node_message;
    struct api_session *s = arg;

    return s->ended ? 0 : rpc_call_write(s->call, b);
}

static void on_end(void *arg, int grpc_code, const char *message) {
    session_finish(arg, (enum rpc_code) grpc_code, message);
}

static const struct worker_session_ops session_ops = {.send = on_send, .end = on_end};

void worker_stream_on_call(void *ctx, struct rpc_call *call, struct slice request) {
    struct api *a = ctx;
    struct api_session *s;

    (void) request; /* a bidirectional stream brings its messages later */
    if (api_refuse_stopping(a, call, STATUS_READ))
        return;
    if (a->sessions_count >= a->o.sessions_max) {
        api_fail(call, RPC_RESOURCE_EXHAUSTED, "this node serves at most %zu workers",
                 a->o.sessions_max);
        return;
    }
    s = calloc(1, sizeof(*s));
    if (!s || worker_session_new(a->replica, &session_ops, s, &s->session) != 0) {
        free(s);
        api_fail_memory(call);
        return;
    }
    s->api = a;
    s->call = call;
    s->next = a->sessions;
    if (s->next)
        s->next->prev = s;
    a->sessions = s;
    a->sessions_count++;
    rpc_call_set_user(call, s);
}

void worker_stream_on_message(void *ctx, struct rpc_call *call, struct slice message, bool end) {
    struct api_session *s = rpc_call_user(call);

    (void) ctx;
    if (!s || s->ended)
        return;
    if (end)
        session_finish(s, RPC_OK, NULL);
    else
        worker_session_message(s->session, message);
}

void worker_stream_on_writable(void *ctx, struct rpc_call *call) {
    struct api_session *s = rpc_call_user(call);

    (void) ctx;
    if (s && !s->ended)
        worker_session_writable(s->session);
}

void worker_stream_on_gone(void *ctx, struct rpc_call *call) {
    struct api *a = ctx;
    struct api_session *s = rpc_call_user(call);

    if (!s)
        return;
    s->ended = true; /* the session's last words have nowhere to go */
    (void) worker_session_free(s->session);
    if (s->prev)
        s->prev->next = s->next;
    else
        a->sessions = s->next;
    if (s->next)
        s->next->prev = s->prev;
    ASSERT(a->sessions_count > 0);
    a->sessions_count--;
    free(s);
}

void worker_stream_stop(struct api *a) {
    for (struct api_session *s = a->sessions; s; s = s->next)
        session_finish(s, RPC_UNAVAILABLE, "this node is stopping; connect to another node");
}
