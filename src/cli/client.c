#include "cli/client.h"

#include "cli/config.h"
#include "cli/retry.h"
#include "cli/exit_code.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#define CLIENT_RECEIVE_BYTES_MAX ((size_t) 64 * 1024 * 1024)
/* With other nodes to ask, one that does not answer gets this long: it may be stopped, not dead. */
#define CLIENT_TRY_MS 3000
#define CLIENT_TICK_MS 100
#define CLIENT_NOTICE_NS (1500 * NS_PER_MS)

struct client_node {
    char address[CLIENT_ADDRESS_BYTES_MAX];
    struct rpc_channel *channel; /* owned */
};

struct client {
    uv_loop_t loop;
    bool loop_open;
    uv_timer_t timer;
    bool timer_open;
    struct rpc_client *rpc; /* owned */
    struct client_node nodes[CLIENT_NODES_MAX];
    size_t nodes_count;
    size_t current;
    uint64_t timeout_ms;
    struct retry retry;        /* of the call */
    struct retry stream_retry; /* of the stream: calls come in between */
    struct mono started;
    bool noticed; /* "waiting" was printed */
};

static struct mono now_mono(void) {
    return (struct mono){.ns = uv_hrtime()};
}

/* ---- life ---------------------------------------------------------------------------------- */

static int add_node(struct client *c, const char *address, size_t *ret_index) {
    struct client_node *n;
    int r;

    for (size_t i = 0; i < c->nodes_count; i++) {
        if (strcmp(c->nodes[i].address, address) == 0) {
            *ret_index = i;
            return 0;
        }
    }
    if (c->nodes_count == CLIENT_NODES_MAX)
        return ERR_LIMIT;
    n = &c->nodes[c->nodes_count];
    (void) snprintf(n->address, sizeof(n->address), "%s", address);
    r = rpc_channel_new(c->rpc, n->address, CLIENT_RECEIVE_BYTES_MAX, &n->channel);
    if (r < 0)
        return r;
    *ret_index = c->nodes_count++;
    return 0;
}

static int add_addresses(struct client *c, const char *addresses, struct errtext *reterr) {
    const char *p = addresses;

    while (true) {
        char one[CLIENT_ADDRESS_BYTES_MAX], host[CLIENT_ADDRESS_BYTES_MAX];
        size_t len = strcspn(p, ","), index;
        uint16_t port;
        int r;

        (void) snprintf(one, sizeof(one), "%.*s", (int) MIN(len, sizeof(one) - 1), p);
        r = config_split_address(one, host, &port, reterr);
        if (r != 0)
            return r;
        r = add_node(c, one, &index);
        if (r == ERR_LIMIT)
            errtext_set(reterr, "at most %d addresses", CLIENT_NODES_MAX);
        else if (r < 0)
            errtext_set(reterr, "%s: %s", one, err_name(r));
        if (r < 0)
            return r;
        if (p[len] == '\0')
            return 0;
        p += len + 1;
    }
}

int client_new(const char *addresses, uint64_t timeout_ms, struct client **ret,
               struct errtext *reterr) {
    _cleanup_(client_freep) struct client *c = calloc(1, sizeof(*c));
    uint64_t seed = uv_hrtime();
    int r;

    ASSERT(addresses);
    ASSERT(timeout_ms > 0);
    if (!c)
        return -ENOMEM;
    c->timeout_ms = timeout_ms;
    /* Jitter needs no secret: the clock does when the system has no entropy yet. */
    if (getrandom(&seed, sizeof(seed), GRND_NONBLOCK) != (ssize_t) sizeof(seed))
        seed ^= (uint64_t) getpid() << 32;
    c->retry.rng = rng_seed(seed);
    c->stream_retry.rng = rng_seed(~seed);
    if (uv_loop_init(&c->loop) < 0) {
        errtext_set(reterr, "the event loop cannot be created");
        return -ENOMEM;
    }
    c->loop_open = true;
    (void) uv_timer_init(&c->loop, &c->timer);
    c->timer_open = true;
    r = rpc_client_new(&c->loop, &c->rpc, reterr);
    if (r == 0)
        r = add_addresses(c, addresses, reterr);
    if (r != 0)
        return r;
    /* Commands run at one moment spread over the nodes. */
    c->current = (size_t) rng_below(&c->retry.rng, c->nodes_count);
    *ret = TAKE_PTR(c);
    return 0;
}

struct client *client_free(struct client *c) {
    if (!c)
        return NULL;
    for (size_t i = 0; i < c->nodes_count; i++)
        (void) rpc_channel_free(c->nodes[i].channel);
    if (c->rpc)
        (void) rpc_client_free(c->rpc);
    if (c->timer_open)
        uv_close((uv_handle_t *) &c->timer, NULL);
    if (c->loop_open) {
        (void) uv_run(&c->loop, UV_RUN_DEFAULT);
        (void) uv_loop_close(&c->loop);
    }
    free(c);
    return NULL;
}

/* ---- one try ------------------------------------------------------------------------------- */

struct outcome {
    bool done;
    enum rpc_code code;
    char *message_out;
    size_t message_bytes;
    struct retry_answer answer;
    char leader[CLIENT_ADDRESS_BYTES_MAX];
    const ProtobufCMessageDescriptor *descriptor;
    ProtobufCMessage *reply; /* owned */
};

static void read_trailing(struct outcome *o, const struct rpc_result *res) {
    for (size_t i = 0; i < res->trailing_count; i++) {
        const char *key = res->trailing[i].key;
        const char *value = res->trailing[i].value;

        if (strcmp(key, "leader-address") == 0)
            (void) snprintf(o->leader, sizeof(o->leader), "%s", value);
        if (strcmp(key, "retry-after-ms") == 0) {
            o->answer.has_hint = true;
            /* A node that asks for more than a minute is not obeyed to the letter. */
            o->answer.retry_after_ms = (uint64_t) MIN(strtoul(value, NULL, 10), 60000UL);
        }
    }
}

static void note_result(struct outcome *o, const struct rpc_result *res) {
    o->done = true;
    o->code = res->code;
    o->answer.code = (uint32_t) res->code;
    (void) snprintf(o->message_out, o->message_bytes, "%s", res->message ? res->message : "");
    read_trailing(o, res);
}

static void on_unary(void *arg, const struct rpc_result *res) {
    struct outcome *o = arg;

    note_result(o, res);
    if (res->code != RPC_OK)
        return;
    o->reply = protobuf_c_message_unpack(o->descriptor, NULL, res->reply.len, res->reply.data);
    if (!o->reply) {
        o->code = RPC_INTERNAL;
        o->answer.code = RPC_INTERNAL;
        (void) snprintf(o->message_out, o->message_bytes, "the node's answer cannot be decoded");
    }
}

static struct bytes *pack(const ProtobufCMessage *m) {
    struct bytes *b = bytes_new(protobuf_c_message_get_packed_size(m));

    if (b)
        (void) protobuf_c_message_pack(m, b->data);
    return b;
}

static uint64_t try_timeout_ms(const struct client *c) {
    uint64_t left = mono_diff_ns(c->retry.deadline, now_mono()) / NS_PER_MS + 1;

    return c->nodes_count > 1 ? MIN(left, (uint64_t) CLIENT_TRY_MS) : left;
}

static void on_timer(uv_timer_t *t) {
    bool *fired = t->data;

    *fired = true;
}

static void wait_ms(struct client *c, uint64_t ms) {
    bool fired = ms == 0;

    if (fired)
        return;
    c->timer.data = &fired;
    uv_update_time(&c->loop);
    (void) uv_timer_start(&c->timer, on_timer, ms, 0);
    while (!fired)
        (void) uv_run(&c->loop, UV_RUN_ONCE);
}

/* ---- repetition ---------------------------------------------------------------------------- */

static void start(struct client *c, struct retry *r) {
    c->started = now_mono();
    r->deadline = mono_add_ms(c->started, c->timeout_ms);
    r->attempts = 0;
}

void client_stream_start(struct client *c) {
    start(c, &c->stream_retry);
}

/* The leader's address is the best next choice; a node that is away is the worst. */
static void choose_next(struct client *c, const struct outcome *o) {
    char host[CLIENT_ADDRESS_BYTES_MAX];
    size_t index;
    uint16_t port;
    struct errtext ignored;

    if (o->code == RPC_RESOURCE_EXHAUSTED)
        return;
    if (o->leader[0] && config_split_address(o->leader, host, &port, &ignored) == 0 &&
        strcmp(o->leader, c->nodes[c->current].address) != 0 &&
        add_node(c, o->leader, &index) == 0) {
        c->current = index;
        return;
    }
    c->current = (c->current + 1) % c->nodes_count;
}

/* A person who waits learns for what; a script's standard error stays clean. */
static void notice(struct client *c, const struct client_error *e) {
    if (c->noticed || !isatty(STDERR_FILENO) ||
        mono_diff_ns(now_mono(), c->started) < CLIENT_NOTICE_NS)
        return;
    c->noticed = true;
    fprintf(stderr, "still trying (%s: %s)\n", client_code_name(e->code), e->message);
}

static bool repeat(struct client *c, struct retry *policy, const struct outcome *o,
                   const struct client_error *e) {
    uint64_t delay = 0;

    if (!retry_next(policy, now_mono(), &o->answer, c->nodes_count, &delay))
        return false;
    choose_next(c, o);
    notice(c, e);
    wait_ms(c, delay);
    return true;
}

int client_call(struct client *c, const char *path, const ProtobufCMessage *request,
                const ProtobufCMessageDescriptor *reply, bool repeatable,
                ProtobufCMessage **ret_reply, struct client_error *reterr) {
    _cleanup_(bytes_unrefp) struct bytes *b = pack(request);
    struct outcome o = {.descriptor = reply};

    start(c, &c->retry);
    do {
        o = (struct outcome){.descriptor = reply,
                             .message_out = reterr->message,
                             .message_bytes = sizeof(reterr->message)};
        o.answer.repeatable = repeatable;
        reterr->message[0] = '\0';
        if (!b || rpc_unary(c->nodes[c->current].channel, path, b, try_timeout_ms(c),
                            /* wait_ready= */ false, on_unary, &o) < 0) {
            reterr->code = RPC_INTERNAL;
            (void) snprintf(reterr->message, sizeof(reterr->message), "out of memory");
            return RPC_INTERNAL;
        }
        while (!o.done)
            (void) uv_run(&c->loop, UV_RUN_ONCE);
        reterr->code = o.code;
    } while (o.code != RPC_OK && repeat(c, &c->retry, &o, reterr));
    if (o.code != RPC_OK)
        return (int) o.code;
    c->retry.attempts++;
    *ret_reply = o.reply;
    return 0;
}

uint32_t client_attempts(const struct client *c) {
    return c->retry.attempts;
}

/* ---- streams ------------------------------------------------------------------------------- */

struct stream {
    struct outcome outcome;
    const struct client_stream_handler *handler;
    bool stopped;   /* by the handler */
    bool malformed; /* a message that cannot be decoded */
};

static void on_stream_message(void *arg, struct rpc_stream *s, struct slice message) {
    struct stream *st = arg;
    ProtobufCMessage *m;

    if (st->stopped || st->malformed)
        return;
    m = protobuf_c_message_unpack(st->outcome.descriptor, NULL, message.len, message.data);
    if (!m) {
        st->malformed = true;
        rpc_stream_cancel(s);
        return;
    }
    if (st->handler->on_message(st->handler->arg, m) != 0) {
        st->stopped = true;
        rpc_stream_cancel(s);
    }
    protobuf_c_message_free_unpacked(m, NULL);
}

static void on_stream_end(void *arg, struct rpc_stream *s, const struct rpc_result *res) {
    struct stream *st = arg;

    (void) s;
    note_result(&st->outcome, res);
}

static void on_tick(uv_timer_t *t) {
    const struct client_stream_handler *h = t->data;

    h->on_tick(h->arg);
}

int client_stream(struct client *c, const char *path, const ProtobufCMessage *request,
                  const ProtobufCMessageDescriptor *reply, const struct client_stream_handler *h,
                  struct client_error *reterr) {
    static const struct rpc_stream_callbacks callbacks = {.on_message = on_stream_message,
                                                          .on_end = on_stream_end};
    _cleanup_(bytes_unrefp) struct bytes *b = pack(request);
    struct stream st = {.handler = h};
    struct rpc_stream *s = NULL;

    st.outcome = (struct outcome){.descriptor = reply,
                                  .message_out = reterr->message,
                                  .message_bytes = sizeof(reterr->message)};
    reterr->message[0] = '\0';
    reterr->code = RPC_INTERNAL;
    if (!b || rpc_stream_open(c->nodes[c->current].channel, path, b, /* timeout_ms= */ 0,
                              &callbacks, &st, &s) < 0) {
        (void) snprintf(reterr->message, sizeof(reterr->message), "out of memory");
        return RPC_INTERNAL;
    }
    rpc_stream_writes_done(s);
    if (h->on_tick) {
        c->timer.data = (void *) (uintptr_t) h;
        (void) uv_timer_start(&c->timer, on_tick, CLIENT_TICK_MS, CLIENT_TICK_MS);
    }
    while (!st.outcome.done)
        (void) uv_run(&c->loop, UV_RUN_ONCE);
    (void) uv_timer_stop(&c->timer);
    if (st.stopped)
        return 0;
    if (st.malformed) {
        (void) snprintf(reterr->message, sizeof(reterr->message),
                        "the node's answer cannot be decoded");
        return RPC_INTERNAL;
    }
    reterr->code = st.outcome.code;
    return (int) st.outcome.code;
}

bool client_stream_retry(struct client *c, const struct client_error *e, bool progress,
                         const struct client_stream_handler *h) {
    struct outcome o = {.code = e->code};

    if (progress)
        client_stream_start(c);
    o.answer = (struct retry_answer){.code = (uint32_t) e->code, .repeatable = true};
    if (h->on_tick)
        h->on_tick(h->arg);
    return repeat(c, &c->stream_retry, &o, e);
}

/* ---- codes --------------------------------------------------------------------------------- */

int client_exit_code(enum rpc_code code) {
    if (code == RPC_OK)
        return EXIT_CODE_OK;
    if (code == RPC_NOT_FOUND)
        return EXIT_CODE_NOT_FOUND;
    if (code == RPC_INVALID_ARGUMENT)
        return EXIT_CODE_USAGE; /* what was asked is wrong, not what happened */
    if (code == RPC_UNAVAILABLE || code == RPC_DEADLINE_EXCEEDED || code == RPC_RESOURCE_EXHAUSTED)
        return EXIT_CODE_UNAVAILABLE;
    return EXIT_CODE_FAILED;
}

const char *client_code_name(enum rpc_code code) {
    static const char *const names[] = {"OK",
                                        "CANCELLED",
                                        "UNKNOWN",
                                        "INVALID_ARGUMENT",
                                        "DEADLINE_EXCEEDED",
                                        "NOT_FOUND",
                                        "ALREADY_EXISTS",
                                        "PERMISSION_DENIED",
                                        "RESOURCE_EXHAUSTED",
                                        "FAILED_PRECONDITION",
                                        "ABORTED",
                                        "OUT_OF_RANGE",
                                        "UNIMPLEMENTED",
                                        "INTERNAL",
                                        "UNAVAILABLE",
                                        "DATA_LOSS",
                                        "UNAUTHENTICATED"};

    return (size_t) code < ARRAY_LEN(names) ? names[code] : "UNKNOWN";
}
