/* The gRPC server: listening, requests, stopping. See rpc_server.h; a call's life is rpc_call.c.
 *
 * What it is: every method is registered with the core, so that the core matches the path and
 * reads the one request message before it tells us; a generic slot answers all other paths.
 * Each slot keeps some empty calls lent to gRPC and replaces each one that comes back.
 * Invariants: memory is freed only when gRPC holds no tag (pump.pending == 0) and no handler frame
 * is on the stack (depth == 0).
 * Thread: the loop's. */
#include "os/rpc_call.h"

#include <errno.h>
#include <grpc/grpc_security.h>
#include <limits.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Calls beyond these wait inside gRPC until one is lent again: measured, 16 and 512 answer equally
 * fast, and a burst of 1,000 does not stall. */
#define SERVER_UNARY_REQUESTS 64
#define SERVER_STREAM_REQUESTS 16
#define SERVER_POOL_MAX 1024
#define SERVER_YOUNG_MS 20
#define SERVER_MESSAGE_BYTES_DEFAULT (4 * 1024 * 1024)
#define SERVER_WRITE_QUEUE_BYTES_DEFAULT (1024 * 1024)
/* security.md S24. */
#define SERVER_METADATA_BYTES_MAX (16 * 1024)
#define SERVER_STREAMS_MAX 4096
#define SERVER_HANDSHAKE_MS 5000
#define SERVER_PING_MIN_MS 10000
#define SERVER_KEEPALIVE_MS 30000
#define SERVER_KEEPALIVE_TIMEOUT_MS 10000
#define SERVER_QUOTA_BYTES ((size_t) 256 * 1024 * 1024)

struct rpc_server {
    struct rpc_pump *pump;  /* owned */
    grpc_server *core;      /* owned */
    struct rpc_slot *slots; /* owned; methods_count, then the one for unknown paths */
    size_t slots_count;
    size_t write_queue_bytes_max;
    void *ctx;
    int port;
    struct rpc_call *idle; /* owned pool */
    size_t idle_count;
    size_t open_count;                        /* calls between OPEN and GONE */
    size_t unfinished_count;                  /* of these: streams that no handler has finished */
    struct rpc_call *young_head, *young_tail; /* open unary calls not yet watched, oldest first */
    uv_timer_t timer; /* while serving: the sweep of young calls; once stopping: the grace */
    bool timer_open;  /* the handle is initialised */
    bool sweeping;    /* the timer runs for the sweep */
    size_t lazy_out;  /* answered calls whose end was started as a lazy event */
    struct rpc_event down_event;
    bool started, stopping, cancelled, down;
    void (*on_stopped)(void *arg);
    void *on_stopped_arg;
    unsigned depth; /* handler frames on the stack */
};

struct rpc_pump *rpc_server_pump(const struct rpc_server *s) {
    return s->pump;
}

void *rpc_server_ctx(const struct rpc_server *s) {
    return s->ctx;
}

bool rpc_server_stopping(const struct rpc_server *s) {
    return s->stopping;
}

size_t rpc_server_write_queue_bytes_max(const struct rpc_server *s) {
    return s->write_queue_bytes_max;
}

int rpc_server_port(const struct rpc_server *s) {
    return s->port;
}

/* --- requests --- */

static struct rpc_call *server_take_call(struct rpc_server *s) {
    struct rpc_call *c = s->idle;

    if (!c)
        return rpc_call_new(s);
    s->idle = c->next_idle;
    s->idle_count--;
    return c;
}

static void on_requested(struct rpc_event *e, bool ok);

static grpc_call_error slot_request(struct rpc_slot *slot, struct rpc_call *c) {
    struct rpc_server *s = slot->server;
    bool unary_in = slot->method && slot->method->kind != RPC_BIDI_STREAM;
    void *tag = rpc_pump_tag(s->pump, &c->requested);

    if (!slot->handle)
        return grpc_server_request_call(s->core, &c->call, &c->details, &c->headers, s->pump->cq,
                                        s->pump->cq, tag);
    return grpc_server_request_registered_call(s->core, slot->handle, &c->call, &c->deadline,
                                               &c->headers, unary_in ? &c->in.raw : NULL,
                                               s->pump->cq, s->pump->cq, tag);
}

/* Keep the slot's share of calls lent. Without memory the share shrinks, and each call that ends
 * tries again. */
static void slot_fill(struct rpc_slot *slot) {
    while (!slot->server->stopping && slot->requested < slot->request_max) {
        struct rpc_call *c = server_take_call(slot->server);
        grpc_call_error e = GRPC_CALL_OK;

        if (!c)
            return;
        c->slot = slot;
        c->requested.fn = on_requested;
        rpc_call_set_state(c, RPC_CALL_REQUESTED);
        slot->requested++;
        e = slot_request(slot, c);
        ASSERT(e == GRPC_CALL_OK);
    }
}

static void server_return_call(struct rpc_server *s, struct rpc_call *c) {
    bool generic = c->slot && !c->slot->handle && c->call;

    rpc_call_reset(c);
    if (generic)
        grpc_call_details_destroy(&c->details);
    memset(&c->details, 0, sizeof(c->details));
    if (s->idle_count >= SERVER_POOL_MAX) {
        rpc_call_free(c);
        return;
    }
    c->next_idle = s->idle;
    s->idle = c;
    s->idle_count++;
}

static void on_requested(struct rpc_event *e, bool ok) {
    struct rpc_call *c = CONTAINER_OF(e, struct rpc_call, requested);
    struct rpc_slot *slot = c->slot;
    struct rpc_server *s = slot->server;

    rpc_server_enter(s);
    ASSERT(slot->requested > 0);
    slot->requested--;
    if (!ok) {
        c->call = NULL;
        server_return_call(s, c);
    } else {
        if (!slot->handle)
            c->deadline = c->details.deadline;
        rpc_call_begin(c);
        slot_fill(slot);
    }
    rpc_server_leave(s);
}

/* --- watching --- */

void rpc_server_watch_never(struct rpc_server *s, struct rpc_call *c) {
    ASSERT(c->young);
    *(c->young_prev ? &c->young_prev->young_next : &s->young_head) = c->young_next;
    *(c->young_next ? &c->young_next->young_prev : &s->young_tail) = c->young_prev;
    c->young_prev = c->young_next = NULL;
    c->young = false;
}

/* Watch every call that has been open for @age_ms. */
static void server_sweep(struct rpc_server *s, uint64_t age_ms) {
    uint64_t now = uv_now(s->timer.loop);
    struct rpc_call *c = NULL;

    while ((c = s->young_head) && c->young_since_ms + age_ms <= now) {
        rpc_server_watch_never(s, c);
        rpc_call_watch(c);
    }
}

static void on_sweep(uv_timer_t *t) {
    struct rpc_server *s = CONTAINER_OF(t, struct rpc_server, timer);

    rpc_pump_collect(s->pump); /* may end in a callback that stops the server */
    if (s->stopping)
        return;
    server_sweep(s, SERVER_YOUNG_MS);
    if (s->young_head || s->lazy_out > 0)
        return;
    s->sweeping = false;
    (void) uv_timer_stop(t);
}

/* The end of an answered unary call may be learned with the next event: the sweep, which runs since
 * the call came, looks for it at the latest. */
bool rpc_server_sent_lazily(struct rpc_server *s, const struct rpc_call *c) {
    if (s->stopping || !s->sweeping || !c->slot->method || c->slot->method->kind != RPC_UNARY)
        return false;
    s->lazy_out++;
    return true;
}

void rpc_server_lazy_arrived(struct rpc_server *s) {
    ASSERT(s->lazy_out > 0);
    s->lazy_out--;
}

void rpc_server_watch_later(struct rpc_server *s, struct rpc_call *c) {
    ASSERT(!c->young);
    if (s->stopping) {
        rpc_call_watch(c);
        return;
    }
    c->young = true;
    c->young_since_ms = uv_now(s->timer.loop);
    c->young_prev = s->young_tail;
    *(s->young_tail ? &s->young_tail->young_next : &s->young_head) = c;
    s->young_tail = c;
    if (s->sweeping)
        return;
    s->sweeping = true;
    (void) uv_timer_start(&s->timer, on_sweep, SERVER_YOUNG_MS, SERVER_YOUNG_MS);
}

/* --- stopping --- */

static void server_cancel_all(struct rpc_server *s) {
    if (s->cancelled)
        return;
    s->cancelled = true;
    grpc_server_cancel_all_calls(s->core);
}

/* Streams that nobody has finished never end by themselves: once only such are left, waiting for
 * the grace time would be waiting for nothing. */
static void server_check_grace(struct rpc_server *s) {
    if (s->stopping && s->open_count == s->unfinished_count)
        server_cancel_all(s);
}

static void on_grace_over(uv_timer_t *t) {
    struct rpc_server *s = CONTAINER_OF(t, struct rpc_server, timer);

    server_cancel_all(s);
}

static void on_down(struct rpc_event *e, bool ok) {
    struct rpc_server *s = CONTAINER_OF(e, struct rpc_server, down_event);

    (void) ok;
    rpc_server_enter(s);
    s->down = true;
    rpc_server_leave(s);
}

static void server_shutdown(struct rpc_server *s) {
    ASSERT(s->started);
    ASSERT(!s->stopping);
    s->stopping = true;
    rpc_pump_set_eager(s->pump);
    /* A cancelled call is heard of only when watched, and the timer now serves the grace. */
    server_sweep(s, 0);
    ASSERT(!s->young_head);
    (void) uv_timer_stop(&s->timer);
    s->down_event.fn = on_down;
    grpc_server_shutdown_and_notify(s->core, s->pump->cq, rpc_pump_tag(s->pump, &s->down_event));
}

void rpc_server_stop(struct rpc_server *s, uint64_t grace_ms, void (*on_stopped)(void *arg),
                     void *arg) {
    ASSERT(s);
    ASSERT(on_stopped);
    s->on_stopped = on_stopped;
    s->on_stopped_arg = arg;
    server_shutdown(s);
    if (grace_ms == 0)
        server_cancel_all(s);
    else
        (void) uv_timer_start(&s->timer, on_grace_over, grace_ms, 0);
    server_check_grace(s);
}

/* --- bookkeeping for rpc_call.c --- */

static bool call_is_stream(const struct rpc_call *c) {
    return c->slot->method && c->slot->method->kind != RPC_UNARY;
}

void rpc_server_call_opened(struct rpc_server *s, const struct rpc_call *c) {
    s->open_count++;
    if (call_is_stream(c))
        s->unfinished_count++;
}

void rpc_server_call_finishing(struct rpc_server *s, const struct rpc_call *c) {
    if (!call_is_stream(c))
        return;
    ASSERT(s->unfinished_count > 0);
    s->unfinished_count--;
}

void rpc_server_call_over(struct rpc_server *s, const struct rpc_call *c) {
    (void) c;
    ASSERT(s->open_count > 0);
    s->open_count--;
    server_check_grace(s);
}

void rpc_server_call_release(struct rpc_server *s, struct rpc_call *c) {
    struct rpc_slot *slot = c->slot;

    server_return_call(s, c);
    slot_fill(slot);
}

/* --- making and unmaking --- */

static void on_timer_closed(uv_handle_t *h) {
    struct rpc_server *s = CONTAINER_OF((uv_timer_t *) (void *) h, struct rpc_server, timer);

    free(s);
}

/* gRPC holds nothing any more and no handler is on the stack. */
static void server_release(struct rpc_server *s) {
    ASSERT(s->depth == 0);
    while (s->idle) {
        struct rpc_call *c = s->idle;

        s->idle = c->next_idle;
        rpc_call_free(c);
    }
    if (s->core)
        grpc_server_destroy(s->core);
    s->core = NULL;
    if (s->pump)
        s->pump = rpc_pump_free(s->pump);
    free(s->slots);
    s->slots = NULL;
    rpc_library_unref();
    if (s->timer_open)
        uv_close((uv_handle_t *) &s->timer, on_timer_closed);
    else
        free(s);
}

void rpc_server_enter(struct rpc_server *s) {
    s->depth++;
}

void rpc_server_leave(struct rpc_server *s) {
    void (*on_stopped)(void *arg) = s->on_stopped;

    ASSERT(s->depth > 0);
    s->depth--;
    if (s->depth > 0)
        return;
    if (s->down && s->pump->pending == 0 && on_stopped) {
        (void) uv_timer_stop(&s->timer);
        s->on_stopped = NULL;
        on_stopped(s->on_stopped_arg); /* may free the server */
    }
}

struct rpc_server *rpc_server_free(struct rpc_server *s) {
    if (!s)
        return NULL;
    /* A handler on the stack still holds its call, and gRPC waits for that to shut down. */
    ASSERT(s->depth == 0);
    s->on_stopped = NULL;
    if (s->started && !s->stopping)
        server_shutdown(s);
    if (s->started) {
        server_cancel_all(s);
        rpc_pump_drain(s->pump);
        ASSERT(s->down);
    }
    server_release(s);
    return NULL;
}

static grpc_server *server_new_core(const struct rpc_server_options *o) {
    grpc_resource_quota *quota = grpc_resource_quota_create("chronos");
    size_t max = o->message_bytes_max ? o->message_bytes_max : SERVER_MESSAGE_BYTES_DEFAULT;
    grpc_arg args[] = {
        rpc_arg_int(GRPC_ARG_ALLOW_REUSEPORT, 0), /* a taken port must be an error */
        rpc_arg_int(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, (int) MIN(max, (size_t) INT_MAX)),
        rpc_arg_int(GRPC_ARG_MAX_METADATA_SIZE, SERVER_METADATA_BYTES_MAX),
        rpc_arg_int(GRPC_ARG_MAX_CONCURRENT_STREAMS, SERVER_STREAMS_MAX),
        rpc_arg_int(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, SERVER_HANDSHAKE_MS),
        rpc_arg_int(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, SERVER_PING_MIN_MS),
        rpc_arg_int(GRPC_ARG_KEEPALIVE_TIME_MS, SERVER_KEEPALIVE_MS),
        rpc_arg_int(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, SERVER_KEEPALIVE_TIMEOUT_MS),
        /* Size limits apply to what was sent; a small compressed message could unpack to much
         * more, so nothing is unpacked and only "identity" is offered. */
        rpc_arg_int(GRPC_ARG_ENABLE_PER_MESSAGE_COMPRESSION, 0),
        rpc_arg_int(GRPC_COMPRESSION_CHANNEL_ENABLED_ALGORITHMS_BITSET, 1),
        rpc_arg_int(GRPC_ARG_ENABLE_CHANNELZ, 0),
        rpc_arg_int(GRPC_ARG_MAX_CHANNEL_TRACE_EVENT_MEMORY_PER_NODE, 0),
        {.type = GRPC_ARG_POINTER,
         .key = rpc_arg_int(GRPC_ARG_RESOURCE_QUOTA, 0).key,
         .value.pointer = {.p = quota, .vtable = grpc_resource_quota_arg_vtable()}},
    };
    grpc_channel_args list = {.num_args = ARRAY_LEN(args), .args = args};
    grpc_server *core = NULL;

    grpc_resource_quota_resize(quota, SERVER_QUOTA_BYTES);
    core = grpc_server_create(&list, NULL);
    grpc_resource_quota_unref(quota);
    return core;
}

static int server_register(struct rpc_server *s, const struct rpc_server_options *o,
                           struct errtext *reterr) {
    s->slots_count = o->methods_count + 1;
    s->slots = calloc(s->slots_count, sizeof(*s->slots));
    if (!s->slots)
        return -ENOMEM;
    for (size_t i = 0; i < s->slots_count; i++) {
        struct rpc_slot *slot = &s->slots[i];

        slot->server = s;
        slot->request_max = SERVER_STREAM_REQUESTS;
        if (i == o->methods_count)
            break;
        slot->method = &o->methods[i];
        if (slot->method->kind == RPC_UNARY)
            slot->request_max = SERVER_UNARY_REQUESTS;
        slot->handle = grpc_server_register_method(s->core, slot->method->path, NULL,
                                                   slot->method->kind == RPC_BIDI_STREAM
                                                       ? GRPC_SRM_PAYLOAD_NONE
                                                       : GRPC_SRM_PAYLOAD_READ_INITIAL_BYTE_BUFFER,
                                                   0);
        if (!slot->handle) {
            errtext_set(reterr, "method %s is registered twice", slot->method->path);
            return -EEXIST;
        }
    }
    return 0;
}

/* gRPC does not say why it could not listen: try the same bind to learn the reason. */
static int server_bind_error(const char *address) {
    _cleanup_(freep) char *host = strdup(address);
    char *colon = host ? strrchr(host, ':') : NULL;
    struct addrinfo hints = {.ai_flags = AI_PASSIVE, .ai_socktype = SOCK_STREAM};
    struct addrinfo *list = NULL;
    int one = 1;
    int r = 0;

    if (!colon)
        return -EINVAL;
    *colon = '\0';
    if (host[0] == '[' && colon > host + 1 && colon[-1] == ']') {
        colon[-1] = '\0';
        memmove(host, host + 1, strlen(host));
    }
    if (getaddrinfo(host, colon + 1, &hints, &list) != 0)
        return -EADDRNOTAVAIL;
    for (const struct addrinfo *a = list; a && r == 0; a = a->ai_next) {
        int fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol);

        if (fd < 0) {
            r = -errno;
            break;
        }
        (void) setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
        if (bind(fd, a->ai_addr, a->ai_addrlen) < 0 || listen(fd, 1) < 0)
            r = -errno;
        (void) close(fd);
    }
    freeaddrinfo(list);
    return r < 0 ? r : -EIO;
}

static int server_listen(struct rpc_server *s, const char *address, struct errtext *reterr) {
    grpc_server_credentials *creds = grpc_insecure_server_credentials_create();
    int r = 0;

    s->port = grpc_server_add_http2_port(s->core, address, creds);
    grpc_server_credentials_release(creds);
    if (s->port > 0)
        return 0;
    r = server_bind_error(address);
    errtext_set(reterr, "cannot listen on %s: %s", address, strerror(-r));
    return r;
}

static int server_init(struct rpc_server *s, uv_loop_t *loop, const struct rpc_server_options *o,
                       struct errtext *reterr) {
    int r = uv_timer_init(loop, &s->timer);

    if (r < 0)
        return r;
    s->timer_open = true;
    r = rpc_pump_new(loop, "rpc-server", &s->pump, reterr);
    if (r < 0)
        return r;
    s->core = server_new_core(o);
    if (!s->core)
        return -ENOMEM;
    grpc_server_register_completion_queue(s->core, s->pump->cq, NULL);
    r = server_register(s, o, reterr);
    if (r < 0)
        return r;
    r = server_listen(s, o->address, reterr);
    if (r < 0)
        return r;
    grpc_server_start(s->core);
    s->started = true;
    return 0;
}

int rpc_server_new(uv_loop_t *loop, const struct rpc_server_options *o, struct rpc_server **ret,
                   struct errtext *reterr) {
    struct rpc_server *s = NULL;
    int r = 0;

    ASSERT(loop);
    ASSERT(o && o->address);
    ASSERT(ret);
    s = calloc(1, sizeof(*s));
    if (!s)
        return -ENOMEM;
    s->ctx = o->ctx;
    s->write_queue_bytes_max =
        o->write_queue_bytes_max ? o->write_queue_bytes_max : SERVER_WRITE_QUEUE_BYTES_DEFAULT;
    rpc_library_ref();
    r = server_init(s, loop, o, reterr);
    if (r < 0) {
        (void) rpc_server_free(s);
        return r;
    }
    for (size_t i = 0; i < s->slots_count; i++)
        slot_fill(&s->slots[i]);
    *ret = s;
    return 0;
}
