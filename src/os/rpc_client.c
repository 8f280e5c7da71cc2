/* The gRPC client: channels and unary calls. See rpc_client.h; streams are in rpc_stream.c.
 *
 * What it is: a unary call is one batch of six operations and one event; call objects are pooled.
 * What it is not: it retries nothing: whether a command may be repeated only its caller knows.
 * Invariants: every call is in its channel's list until its caller has been answered; memory is
 * freed only when gRPC holds no tag and no callback frame is on the stack (depth == 0).
 * Thread: the loop's. */
#include "os/rpc_client.h"

#include "os/rpc_stream.h"

#include <arpa/inet.h>
#include <errno.h>
#include <grpc/grpc_security.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CLIENT_POOL_MAX 1024
#define CLIENT_PATHS_MAX 256
#define CLIENT_METADATA_MAX 8
#define CLIENT_ADDRESS_MAX 256
#define CLIENT_METADATA_BYTES_MAX (16 * 1024)
#define CLIENT_MESSAGE_BYTES_DEFAULT (4 * 1024 * 1024)
#define CLIENT_BACKOFF_MIN_MS 100
#define CLIENT_BACKOFF_MAX_MS 1000
#define CLIENT_CONNECT_TIMEOUT_MS 2000 /* for one attempt; gRPC files it under backoff */
#define CLIENT_KEEPALIVE_MS 20000      /* the server tolerates one each 10 s */
#define CLIENT_KEEPALIVE_TIMEOUT_MS 10000
#define UNARY_OPS 6

struct unary {
    struct rpc_task task;
    struct rpc_event done;
    struct unary *next_idle;
    struct rpc_message in;
    grpc_byte_buffer *out; /* reused */
    void (*on_done)(void *arg, const struct rpc_result *res);
    void *arg;
};

/* A path registered with the core, which then need not look at it for each call. */
struct path {
    void *handle; /* gRPC's, dies with the channel */
    char text[];
};

struct rpc_channel {
    struct rpc_channel *prev, *next;
    struct rpc_client *client;
    grpc_channel *core;    /* owned */
    struct bytesmap paths; /* owned struct path */
    struct rpc_task *tasks;
    grpc_metadata metadata[CLIENT_METADATA_MAX]; /* owned slices */
    size_t metadata_count;
};

struct rpc_client {
    struct rpc_pump *pump; /* owned */
    struct rpc_channel *channels;
    struct unary *idle; /* owned pool */
    size_t idle_count;
    unsigned depth; /* callback frames on the stack */
    bool doomed;    /* freed by one of them: the outermost frame releases the memory */
};

/* --- tasks --- */

static void *channel_path(struct rpc_channel *ch, const char *path) {
    size_t len = strlen(path);
    struct path *p = bytesmap_get(&ch->paths, slice_of(path, len));

    if (p)
        return p->handle;
    if (ch->paths.count >= CLIENT_PATHS_MAX)
        return NULL;
    p = malloc(sizeof(*p) + len + 1);
    if (!p)
        return NULL;
    memcpy(p->text, path, len + 1);
    p->handle = grpc_channel_register_call(ch->core, p->text, NULL, NULL);
    if (bytesmap_put(&ch->paths, slice_of(p->text, len), p) < 0) {
        free(p);
        return NULL;
    }
    return p->handle;
}

int rpc_task_begin(struct rpc_task *t, struct rpc_channel *ch, const char *path,
                   uint64_t timeout_ms) {
    void *handle = channel_path(ch, path);
    gpr_timespec deadline = gpr_inf_future(GPR_CLOCK_MONOTONIC);

    ASSERT(!t->call);
    if (!handle)
        return ch->paths.count >= CLIENT_PATHS_MAX ? ERR_LIMIT : -ENOMEM;
    if (timeout_ms > 0 && timeout_ms < INT32_MAX * (uint64_t) 1000)
        deadline = gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
                                gpr_time_from_millis((int64_t) timeout_ms, GPR_TIMESPAN));
    t->call = grpc_channel_create_registered_call(ch->core, NULL, GRPC_PROPAGATE_DEFAULTS,
                                                  ch->client->pump->cq, handle, deadline, NULL);
    if (!t->call)
        return -ENOMEM;
    t->client = ch->client;
    t->channel = ch;
    t->prev = NULL;
    t->next = ch->tasks;
    if (t->next)
        t->next->prev = t;
    ch->tasks = t;
    return 0;
}

void rpc_task_leave(struct rpc_task *t) {
    ASSERT(t->channel);
    if (t->prev)
        t->prev->next = t->next;
    else
        t->channel->tasks = t->next;
    if (t->next)
        t->next->prev = t->prev;
    t->prev = t->next = NULL;
    t->channel = NULL;
}

void rpc_task_reset(struct rpc_task *t) {
    ASSERT(t->holds == 0);
    ASSERT(!t->channel);
    if (t->has_text)
        grpc_slice_unref(t->status_text);
    t->has_text = false;
    if (t->call)
        grpc_call_unref(t->call);
    t->call = NULL;
    t->headers.count = 0; /* the elements went with the call */
    t->trailers.count = 0;
}

void rpc_task_start(struct rpc_task *t, const grpc_op *ops, size_t count, struct rpc_event *tag) {
    grpc_call_error e = GRPC_CALL_OK;

    t->holds++;
    e = grpc_call_start_batch(t->call, ops, count, rpc_pump_tag(t->client->pump, tag), NULL);
    /* What gRPC may refuse was checked before; a refusal would leave the caller without answer. */
    ASSERT(e == GRPC_CALL_OK);
}

grpc_op rpc_task_op_initial(const struct rpc_task *t, bool wait_ready) {
    grpc_op op = {.op = GRPC_OP_SEND_INITIAL_METADATA};

    if (wait_ready)
        op.flags = GRPC_INITIAL_METADATA_WAIT_FOR_READY |
                   GRPC_INITIAL_METADATA_WAIT_FOR_READY_EXPLICITLY_SET;
    op.data.send_initial_metadata.metadata = t->channel->metadata;
    op.data.send_initial_metadata.count = t->channel->metadata_count;
    return op;
}

grpc_op rpc_task_op_headers(struct rpc_task *t) {
    grpc_op op = {.op = GRPC_OP_RECV_INITIAL_METADATA};

    op.data.recv_initial_metadata.recv_initial_metadata = &t->headers;
    return op;
}

grpc_op rpc_task_op_status(struct rpc_task *t) {
    grpc_op op = {.op = GRPC_OP_RECV_STATUS_ON_CLIENT};

    op.data.recv_status_on_client.trailing_metadata = &t->trailers;
    op.data.recv_status_on_client.status = &t->status;
    op.data.recv_status_on_client.status_details = &t->status_text;
    return op;
}

void rpc_task_result(struct rpc_task *t, struct rpc_result *ret) {
    struct rpc_metadata *md = NULL;

    *ret = (struct rpc_result){.code = (enum rpc_code) t->status, .message = ""};
    t->has_text = true; /* gRPC has filled it */
    if (GRPC_SLICE_LENGTH(t->status_text) > 0)
        ret->message = rpc_slice_text(t->call, t->status_text);
    if (t->trailers.count == 0)
        return;
    md = (struct rpc_metadata *) grpc_call_arena_alloc(t->call, t->trailers.count * sizeof(*md));
    for (size_t i = 0; i < t->trailers.count; i++) {
        md[i].key = rpc_slice_text(t->call, t->trailers.metadata[i].key);
        md[i].value = rpc_slice_text(t->call, t->trailers.metadata[i].value);
    }
    ret->trailing = md;
    ret->trailing_count = t->trailers.count;
}

/* --- unary --- */

static void unary_free(struct unary *u) {
    if (u->out)
        grpc_byte_buffer_destroy(u->out);
    grpc_metadata_array_destroy(&u->task.headers);
    grpc_metadata_array_destroy(&u->task.trailers);
    free(u);
}

static void unary_release(struct rpc_client *c, struct unary *u) {
    rpc_message_clear(&u->in);
    rpc_task_reset(&u->task);
    if (c->idle_count >= CLIENT_POOL_MAX) {
        unary_free(u);
        return;
    }
    u->next_idle = c->idle;
    c->idle = u;
    c->idle_count++;
}

static void unary_answer(struct unary *u) {
    struct rpc_result res;

    rpc_task_result(&u->task, &res);
    if (res.code == RPC_OK && !u->in.raw) {
        res.code = RPC_INTERNAL;
        res.message = "the server sent OK without a reply";
    } else if (res.code == RPC_OK && !rpc_message_view(&u->in, &res.reply)) {
        res.code = RPC_INTERNAL;
        res.message = "the reply is compressed, which was not offered";
    }
    rpc_task_leave(&u->task);
    u->on_done(u->arg, &res);
}

static void on_unary_done(struct rpc_event *e, bool ok) {
    struct unary *u = CONTAINER_OF(e, struct unary, done);
    struct rpc_client *c = u->task.client;

    (void) ok; /* the status says it */
    rpc_client_enter(c);
    u->task.holds--;
    if (u->task.channel)
        unary_answer(u);
    else
        u->task.has_text = true; /* abandoned: filled for nobody */
    unary_release(c, u);
    rpc_client_leave(c);
}

static void unary_abandon(struct rpc_task *t) {
    struct unary *u = CONTAINER_OF(t, struct unary, task);
    struct rpc_result res = {.code = RPC_CANCELLED, .message = "the client was closed"};

    rpc_task_leave(t);
    (void) grpc_call_cancel(t->call, NULL);
    u->on_done(u->arg, &res);
}

static struct unary *unary_take(struct rpc_client *c) {
    struct unary *u = c->idle;

    if (u) {
        c->idle = u->next_idle;
        c->idle_count--;
        return u;
    }
    u = calloc(1, sizeof(*u));
    if (!u)
        return NULL;
    grpc_metadata_array_init(&u->task.headers);
    grpc_metadata_array_init(&u->task.trailers);
    u->task.abandon = unary_abandon;
    u->done.fn = on_unary_done;
    return u;
}

int rpc_unary(struct rpc_channel *ch, const char *path, struct bytes *request, uint64_t timeout_ms,
              bool wait_ready, void (*on_done)(void *arg, const struct rpc_result *res),
              void *arg) {
    struct unary *u = unary_take(ch->client);
    grpc_op ops[UNARY_OPS];
    int r = 0;

    ASSERT(path && path[0] == '/');
    ASSERT(request);
    ASSERT(on_done);
    if (!u)
        return -ENOMEM;
    r = rpc_task_begin(&u->task, ch, path, timeout_ms);
    if (r < 0) {
        unary_release(ch->client, u);
        return r;
    }
    u->on_done = on_done;
    u->arg = arg;
    rpc_buffer_fill(&u->out, bytes_slice(request));
    ops[0] = rpc_task_op_initial(&u->task, wait_ready);
    ops[1] = (grpc_op){.op = GRPC_OP_SEND_MESSAGE};
    ops[1].data.send_message.send_message = u->out;
    ops[2] = (grpc_op){.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT};
    ops[3] = rpc_task_op_headers(&u->task);
    ops[4] = (grpc_op){.op = GRPC_OP_RECV_MESSAGE};
    ops[4].data.recv_message.recv_message = &u->in.raw;
    ops[5] = rpc_task_op_status(&u->task);
    rpc_task_start(&u->task, ops, UNARY_OPS, &u->done);
    return 0;
}

/* --- channels --- */

/* A literal address needs no resolver: less work and no thread for it. */
static void channel_target(const char *address, char *ret, size_t size) {
    char host[INET6_ADDRSTRLEN];
    unsigned char parsed[sizeof(struct in6_addr)];
    const char *colon = strrchr(address, ':');
    size_t len = colon ? (size_t) (colon - address) : 0;
    const char *scheme = "dns:///";

    if (len > 0 && len < sizeof(host)) {
        memcpy(host, address, len);
        host[len] = '\0';
        if (inet_pton(AF_INET, host, parsed) == 1)
            scheme = "ipv4:";
        else if (address[0] == '[')
            scheme = "ipv6:";
    }
    (void) snprintf(ret, size, "%s%s", scheme, address);
}

static grpc_channel *channel_new_core(const char *target, size_t message_bytes_max) {
    size_t max = message_bytes_max ? message_bytes_max : CLIENT_MESSAGE_BYTES_DEFAULT;
    grpc_arg args[] = {
        rpc_arg_int(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1),
        rpc_arg_int(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, CLIENT_BACKOFF_MIN_MS),
        rpc_arg_int(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, CLIENT_CONNECT_TIMEOUT_MS),
        rpc_arg_int(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, CLIENT_BACKOFF_MAX_MS),
        rpc_arg_int(GRPC_ARG_DNS_MIN_TIME_BETWEEN_RESOLUTIONS_MS, CLIENT_BACKOFF_MAX_MS),
        rpc_arg_int(GRPC_ARG_KEEPALIVE_TIME_MS, CLIENT_KEEPALIVE_MS),
        rpc_arg_int(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, CLIENT_KEEPALIVE_TIMEOUT_MS),
        rpc_arg_int(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0),
        rpc_arg_int(GRPC_ARG_CLIENT_IDLE_TIMEOUT_MS, INT_MAX),
        rpc_arg_int(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, (int) MIN(max, (size_t) INT_MAX)),
        rpc_arg_int(GRPC_ARG_MAX_METADATA_SIZE, CLIENT_METADATA_BYTES_MAX),
        /* What the environment says about proxies is not ours to follow. */
        rpc_arg_int(GRPC_ARG_ENABLE_HTTP_PROXY, 0),
        rpc_arg_int(GRPC_ARG_ENABLE_RETRIES, 0),
        rpc_arg_int(GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1),
        rpc_arg_int(GRPC_ARG_ENABLE_PER_MESSAGE_COMPRESSION, 0),
        rpc_arg_int(GRPC_COMPRESSION_CHANNEL_ENABLED_ALGORITHMS_BITSET, 1),
        rpc_arg_int(GRPC_ARG_ENABLE_CHANNELZ, 0),
        rpc_arg_int(GRPC_ARG_MAX_CHANNEL_TRACE_EVENT_MEMORY_PER_NODE, 0),
    };
    grpc_channel_args list = {.num_args = ARRAY_LEN(args), .args = args};
    grpc_channel_credentials *creds = grpc_insecure_credentials_create();
    grpc_channel *core = grpc_channel_create(target, creds, &list);

    grpc_channel_credentials_release(creds);
    return core;
}

int rpc_channel_new(struct rpc_client *c, const char *address, size_t message_bytes_max,
                    struct rpc_channel **ret) {
    char target[CLIENT_ADDRESS_MAX + 16];
    struct rpc_channel *ch = NULL;

    ASSERT(c && !c->doomed);
    ASSERT(address);
    ASSERT(ret);
    if (strlen(address) > CLIENT_ADDRESS_MAX)
        return ERR_LIMIT;
    ch = calloc(1, sizeof(*ch));
    if (!ch)
        return -ENOMEM;
    channel_target(address, target, sizeof(target));
    ch->core = channel_new_core(target, message_bytes_max);
    if (!ch->core) {
        free(ch);
        return -ENOMEM;
    }
    bytesmap_init(&ch->paths);
    ch->client = c;
    ch->next = c->channels;
    if (ch->next)
        ch->next->prev = ch;
    c->channels = ch;
    *ret = ch;
    return 0;
}

static void channel_drop_metadata(struct rpc_channel *ch) {
    for (size_t i = 0; i < ch->metadata_count; i++) {
        grpc_slice_unref(ch->metadata[i].key);
        grpc_slice_unref(ch->metadata[i].value);
    }
    ch->metadata_count = 0;
}

int rpc_channel_set_metadata(struct rpc_channel *ch, const struct rpc_metadata *md, size_t count) {
    ASSERT(md || count == 0);
    if (count > CLIENT_METADATA_MAX)
        return ERR_LIMIT;
    channel_drop_metadata(ch);
    for (size_t i = 0; i < count; i++) {
        grpc_metadata *m = &ch->metadata[i];

        *m = (grpc_metadata){.key = grpc_slice_from_copied_string(md[i].key),
                             .value = grpc_slice_from_copied_string(md[i].value)};
        ch->metadata_count++;
        if (!grpc_header_key_is_legal(m->key) || grpc_is_binary_header(m->key) ||
            !grpc_header_nonbin_value_is_legal(m->value)) {
            channel_drop_metadata(ch);
            return ERR_PROTO;
        }
    }
    return 0;
}

struct rpc_channel *rpc_channel_free(struct rpc_channel *ch) {
    struct rpc_client *c = NULL;
    struct bytesmap_slot *slot = NULL;
    size_t pos = 0;

    if (!ch)
        return NULL;
    c = ch->client;
    /* Out of the list first: a callback that frees the client must not find it again. */
    if (ch->prev)
        ch->prev->next = ch->next;
    else
        c->channels = ch->next;
    if (ch->next)
        ch->next->prev = ch->prev;
    rpc_client_enter(c);
    while (ch->tasks)
        ch->tasks->abandon(ch->tasks);
    grpc_channel_destroy(ch->core);
    while ((slot = bytesmap_next(&ch->paths, &pos)))
        free(slot->value);
    bytesmap_done(&ch->paths);
    channel_drop_metadata(ch);
    free(ch);
    rpc_client_leave(c);
    return NULL;
}

/* --- the client --- */

static void client_release(struct rpc_client *c) {
    ASSERT(!c->channels);
    ASSERT(c->depth == 0);
    while (c->idle) {
        struct unary *u = c->idle;

        c->idle = u->next_idle;
        unary_free(u);
    }
    if (c->pump)
        c->pump = rpc_pump_free(c->pump);
    rpc_library_unref();
    free(c);
}

void rpc_client_enter(struct rpc_client *c) {
    c->depth++;
}

void rpc_client_leave(struct rpc_client *c) {
    ASSERT(c->depth > 0);
    c->depth--;
    if (c->depth == 0 && c->doomed)
        client_release(c);
}

int rpc_client_new(uv_loop_t *loop, struct rpc_client **ret, struct errtext *reterr) {
    struct rpc_client *c = calloc(1, sizeof(*c));
    int r = 0;

    ASSERT(loop);
    ASSERT(ret);
    if (!c)
        return -ENOMEM;
    rpc_library_ref();
    r = rpc_pump_new(loop, "rpc-client", &c->pump, reterr);
    if (r < 0) {
        client_release(c);
        return r;
    }
    *ret = c;
    return 0;
}

struct rpc_client *rpc_client_free(struct rpc_client *c) {
    if (!c)
        return NULL;
    ASSERT(!c->doomed);
    rpc_client_enter(c);
    while (c->channels)
        (void) rpc_channel_free(c->channels);
    rpc_pump_drain(c->pump);
    c->doomed = true;
    rpc_client_leave(c);
    return NULL;
}
