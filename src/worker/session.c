#include "worker/session.h"

#include "base/arena.h"
#include "worker/lease_clock.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define SESSION_PATH "/chronos.v1.WorkerService/Session"
#define MESSAGE_BYTES_MAX (4U << 20)
/* Unpacked messages are larger than their bytes: a small assignment of 40 bytes becomes some 400.
 */
#define ARENA_BYTES_MAX (64U << 20)
#define HEARTBEAT_MS_MIN 20
#define HEARTBEAT_MS_MAX 60000
#define RECHECK_MS 20

struct session {
    uv_loop_t *loop;
    const struct logger *log; /* borrowed */
    struct session_callbacks cb;
    void *arg;
    enum session_state state;
    char *addresses[SESSION_ADDRESSES_MAX]; /* owned */
    size_t addresses_fixed;                 /* the first ones came from the options */
    size_t addresses_count;
    size_t address_index;        /* of the present or next connection */
    struct rpc_client *client;   /* owned */
    struct rpc_channel *channel; /* owned; replaced at each connect */
    struct rpc_stream *stream;   /* borrowed from the client until on_end */
    struct rng rng;
    struct lease lease;
    struct arena arena;
    uint64_t heartbeat_ms;
    uint64_t backoff_ms;
    unsigned taken; /* ends in a row because another process uses the id; eviction counts twice */
    uint64_t sequence;
    uint64_t drain_sequence; /* of the first heartbeat of this stream that said draining; or 0 */
    bool drain_known;        /* that one or a later one was acknowledged */
    struct mono hello_sent;
    struct mono heard; /* last message of this stream */
    uv_timer_t guard;  /* HELLO_SENT: no welcome; ACTIVE: silence; BACKOFF: delay over */
    uv_timer_t beat;
    bool timers_open;
    unsigned handles_open; /* counts down while they close */
};

/* Which edges exist; the drawing is in the header. */
#define TO(s) (1U << SESSION_##s)
static const unsigned edges[SESSION_STATES] = {
    [SESSION_DISCONNECTED] = TO(CONNECTING) | TO(STOPPING),
    [SESSION_CONNECTING] = TO(HELLO_SENT) | TO(BACKOFF) | TO(STOPPING),
    [SESSION_HELLO_SENT] = TO(ACTIVE) | TO(BACKOFF) | TO(STOPPING),
    [SESSION_ACTIVE] = TO(BACKOFF) | TO(STOPPING),
    [SESSION_BACKOFF] = TO(CONNECTING) | TO(STOPPING),
    [SESSION_STOPPING] = 0,
};

static const char *const state_names[SESSION_STATES] = {
    [SESSION_DISCONNECTED] = "disconnected", [SESSION_CONNECTING] = "connecting",
    [SESSION_HELLO_SENT] = "hello_sent",     [SESSION_ACTIVE] = "active",
    [SESSION_BACKOFF] = "backoff",           [SESSION_STOPPING] = "stopping",
};

const char *session_state_to_string(enum session_state state) {
    ASSERT((size_t) state < SESSION_STATES);
    return state_names[state];
}

bool session_edge(enum session_state from, enum session_state to) {
    ASSERT((size_t) from < SESSION_STATES);
    ASSERT((size_t) to < SESSION_STATES);
    return (edges[from] >> to) & 1U;
}

static void set_state(struct session *s, enum session_state to) {
    ASSERT(session_edge(s->state, to));
    log_debug(s->log, "session", "from=%s to=%s node=%s", state_names[s->state], state_names[to],
              s->addresses[s->address_index]);
    s->state = to;
    if (to != SESSION_ACTIVE)
        (void) uv_timer_stop(&s->beat);
}

enum session_state session_state(const struct session *s) {
    return s->state;
}

struct lease *session_lease(struct session *s) {
    return &s->lease;
}

/* --- leaving a node --- */

static void on_guard(uv_timer_t *t);

static void arm(struct session *s, uint64_t ms) {
    (void) uv_timer_start(&s->guard, on_guard, ms, 0);
}

uint64_t session_delay_ms(struct rng *rng, uint64_t backoff_ms, unsigned taken) {
    if (taken > 1)
        return rng_range(rng, SESSION_TAKEN_MS_MIN, SESSION_TAKEN_MS_MAX);
    return rng_range(rng, backoff_ms / 2, backoff_ms);
}

/* End the present stream if there is one, and wait before the next. The channel goes at the next
 * connect: this may run inside one of its callbacks. */
static void leave(struct session *s, const char *why) {
    bool active = s->state == SESSION_ACTIVE;
    struct rpc_stream *stream = TAKE_PTR(s->stream);
    uint64_t delay = session_delay_ms(&s->rng, s->backoff_ms, s->taken);

    ASSERT(s->state != SESSION_STOPPING);
    if (active)
        log_info(s->log, "lost the node", "node=%s why=\"%s\"", s->addresses[s->address_index],
                 why);
    else
        log_debug(s->log, "no session", "node=%s why=\"%s\"", s->addresses[s->address_index], why);
    set_state(s, SESSION_BACKOFF);
    lease_drop_pending(&s->lease);
    if (s->taken == 0)
        s->address_index = (s->address_index + 1) % s->addresses_count;
    s->backoff_ms = MIN(s->backoff_ms * 2, (uint64_t) SESSION_BACKOFF_MS_MAX);
    arm(s, delay);
    if (stream)
        rpc_stream_cancel(stream);
    if (active)
        s->cb.on_lost(s->arg);
}

void session_abandon(struct session *s, const char *why) {
    if (s->state == SESSION_HELLO_SENT || s->state == SESSION_ACTIVE)
        leave(s, why);
}

/* --- heartbeats --- */

int session_send(struct session *s, struct bytes *message) {
    int r;

    ASSERT(message);
    if (s->state != SESSION_ACTIVE || !s->stream)
        return 1;
    r = rpc_stream_write(s->stream, message);
    if (r < 0) {
        leave(s, err_name(r));
        return 1;
    }
    return r;
}

struct bytes *session_pack(const Chronos__V1__WorkerMessage *m) {
    struct bytes *b = bytes_new(chronos__v1__worker_message__get_packed_size(m));

    if (b)
        (void) chronos__v1__worker_message__pack(m, b->data);
    return b;
}

int session_send_pb(struct session *s, const Chronos__V1__WorkerMessage *m) {
    _cleanup_(bytes_unrefp) struct bytes *b = NULL;

    if (s->state != SESSION_ACTIVE)
        return 1;
    b = session_pack(m);
    if (!b) {
        leave(s, "no memory");
        return 1;
    }
    return session_send(s, b);
}

static void beat(struct session *s) {
    Chronos__V1__WorkerHeartbeat hb = CHRONOS__V1__WORKER_HEARTBEAT__INIT;
    Chronos__V1__WorkerMessage m = CHRONOS__V1__WORKER_MESSAGE__INIT;

    s->cb.before_event(s->arg);
    if (s->state != SESSION_ACTIVE)
        return;
    hb.running = s->cb.running(s->arg);
    hb.sequence = ++s->sequence;
    hb.draining = s->cb.draining(s->arg);
    if (hb.draining && s->drain_sequence == 0)
        s->drain_sequence = hb.sequence;
    m.body_case = CHRONOS__V1__WORKER_MESSAGE__BODY_HEARTBEAT;
    m.heartbeat = &hb;
    lease_sent(&s->lease, hb.sequence, clock_lease());
    (void) session_send_pb(s, &m);
}

static void on_beat(uv_timer_t *t) {
    beat((struct session *) t->data);
}

void session_drain(struct session *s) {
    if (s->state == SESSION_ACTIVE)
        beat(s);
}

bool session_drain_known(const struct session *s) {
    return s->state != SESSION_ACTIVE || s->drain_known;
}

static uint64_t silence_ms(const struct session *s) {
    return s->heartbeat_ms + s->heartbeat_ms / 2;
}

/* --- receiving --- */

static bool known_address(const struct session *s, const char *a) {
    for (size_t i = 0; i < s->addresses_count; i++)
        if (strcmp(s->addresses[i], a) == 0)
            return true;
    return false;
}

/* The addresses of the cluster replace those of an earlier welcome; the configured ones and the one
 * in use stay. */
static void learn_addresses(struct session *s, const Chronos__V1__NodeWelcome *w) {
    if (w->n_node_addresses == 0)
        return;
    if (s->address_index < s->addresses_fixed) {
        while (s->addresses_count > s->addresses_fixed) {
            s->addresses_count--;
            free(TAKE_PTR(s->addresses[s->addresses_count]));
        }
    }
    for (size_t i = 0; i < w->n_node_addresses; i++) {
        const char *a = w->node_addresses[i];
        size_t len = strlen(a);
        char *copy;

        if (s->addresses_count == SESSION_ADDRESSES_MAX)
            return;
        if (len == 0 || len >= SESSION_ADDRESS_BYTES_MAX || known_address(s, a))
            continue;
        copy = strdup(a);
        if (!copy)
            return;
        s->addresses[s->addresses_count++] = copy;
    }
}

static void take_welcome(struct session *s, const Chronos__V1__NodeWelcome *w) {
    uint64_t hb =
        w->heartbeat_interval_ms ? w->heartbeat_interval_ms : SESSION_HEARTBEAT_MS_DEFAULT;

    if (s->state != SESSION_HELLO_SENT) {
        leave(s, "a second welcome");
        return;
    }
    s->heartbeat_ms = MIN(MAX(hb, (uint64_t) HEARTBEAT_MS_MIN), (uint64_t) HEARTBEAT_MS_MAX);
    s->backoff_ms = SESSION_BACKOFF_MS_MIN;
    s->taken = 0;
    s->sequence = s->drain_sequence = 0;
    s->drain_known = false;
    lease_welcome(&s->lease, s->hello_sent, w->lease_ms);
    set_state(s, SESSION_ACTIVE);
    log_info(s->log, "joined a node", "node=%s node_id=%" PRIu64, s->addresses[s->address_index],
             w->node_id);
    learn_addresses(s, w);
    (void) uv_timer_start(&s->beat, on_beat, 0, s->heartbeat_ms);
    arm(s, silence_ms(s));
    s->cb.on_welcome(s->arg, w);
}

static void dispatch(struct session *s, const Chronos__V1__NodeMessage *m) {
    if (m->body_case == CHRONOS__V1__NODE_MESSAGE__BODY_WELCOME) {
        take_welcome(s, m->welcome);
    } else if (s->state != SESSION_ACTIVE) {
        leave(s, "a message before the welcome");
    } else if (m->body_case == CHRONOS__V1__NODE_MESSAGE__BODY_HEARTBEAT_ACK) {
        uint64_t sequence = m->heartbeat_ack->sequence;

        lease_acked(&s->lease, sequence);
        s->drain_known |= s->drain_sequence != 0 && sequence >= s->drain_sequence;
        s->cb.on_message(s->arg, m);
    } else {
        s->cb.on_message(s->arg, m);
    }
}

static void on_message(void *arg, struct rpc_stream *stream, struct slice message) {
    struct session *s = (struct session *) arg;
    const Chronos__V1__NodeMessage *m;

    if (stream != s->stream) /* a stream that was left; its end is on the way */
        return;
    s->heard = clock_lease();
    s->cb.before_event(s->arg);
    if (stream != s->stream)
        return;
    m = chronos__v1__node_message__unpack(arena_pb(&s->arena), message.len, message.data);
    if (m)
        dispatch(s, m);
    else
        leave(s, "a message that does not parse");
    arena_clear(&s->arena);
}

static void on_end(void *arg, struct rpc_stream *stream, const struct rpc_result *res) {
    struct session *s = (struct session *) arg;

    if (stream != s->stream)
        return;
    s->stream = NULL;
    s->cb.before_event(s->arg);
    if (res->code == RPC_ALREADY_EXISTS) {
        s->taken += s->state == SESSION_ACTIVE ? 2 : 1;
        s->cb.on_taken(s->arg, s->addresses[s->address_index]);
    } else {
        s->taken = 0;
    }
    if (s->state == SESSION_HELLO_SENT && res->code != RPC_UNAVAILABLE)
        log_warn(s->log, "the node refused the session", "node=%s code=%d message=\"%s\"",
                 s->addresses[s->address_index], (int) res->code, res->message);
    if (s->state == SESSION_HELLO_SENT || s->state == SESSION_ACTIVE)
        leave(s, res->message);
}

static void on_stream_writable(void *arg, struct rpc_stream *stream) {
    struct session *s = (struct session *) arg;

    if (stream == s->stream && s->state == SESSION_ACTIVE)
        s->cb.on_writable(s->arg);
}

/* --- connecting --- */

static int open_stream(struct session *s) {
    static const struct rpc_stream_callbacks callbacks = {
        .on_message = on_message, .on_end = on_end, .on_writable = on_stream_writable};
    _cleanup_(bytes_unrefp) struct bytes *hello = NULL;
    int r;

    s->channel = rpc_channel_free(s->channel);
    r = rpc_channel_new(s->client, s->addresses[s->address_index], MESSAGE_BYTES_MAX, &s->channel);
    if (r < 0)
        return r;
    hello = s->cb.hello(s->arg);
    if (!hello)
        return -ENOMEM;
    s->hello_sent = clock_lease();
    return rpc_stream_open(s->channel, SESSION_PATH, hello, 0, &callbacks, s, &s->stream);
}

static void connect_now(struct session *s) {
    int r;

    if (!s->cb.may_connect(s->arg)) {
        arm(s, RECHECK_MS);
        return;
    }
    set_state(s, SESSION_CONNECTING);
    r = open_stream(s);
    if (r < 0) {
        s->stream = NULL;
        leave(s, err_name(r));
        return;
    }
    set_state(s, SESSION_HELLO_SENT);
    arm(s, SESSION_WELCOME_TIMEOUT_MS);
}

static void guard_active(struct session *s) {
    uint64_t quiet_ms = mono_diff_ns(clock_lease(), s->heard) / NS_PER_MS;

    if (quiet_ms >= silence_ms(s))
        leave(s, "the node is silent");
    else
        arm(s, silence_ms(s) - quiet_ms);
}

static void on_guard(uv_timer_t *t) {
    struct session *s = (struct session *) t->data;

    s->cb.before_event(s->arg);
    switch (s->state) {
    case SESSION_HELLO_SENT:
        leave(s, "no welcome in time");
        break;
    case SESSION_ACTIVE:
        guard_active(s);
        break;
    case SESSION_BACKOFF:
        connect_now(s);
        break;
    case SESSION_DISCONNECTED:
    case SESSION_CONNECTING:
    case SESSION_STOPPING:
        break;
    }
}

void session_start(struct session *s) {
    ASSERT(s->state == SESSION_DISCONNECTED);
    ASSERT(s->cb.may_connect(s->arg)); /* nothing can be dying yet */
    connect_now(s);
}

/* --- life --- */

int session_new(uv_loop_t *loop, const struct logger *log, const char *const *addresses,
                size_t addresses_count, uint64_t seed, const struct session_callbacks *cb,
                void *arg, struct session **ret, struct errtext *reterr) {
    struct session *s;
    int r;

    ASSERT(addresses_count > 0);
    if (addresses_count > SESSION_ADDRESSES_MAX)
        return ERR_LIMIT;
    s = calloc(1, sizeof(*s));
    if (!s)
        return -ENOMEM;
    s->loop = loop;
    s->log = log;
    s->cb = *cb;
    s->arg = arg;
    s->rng = rng_seed(seed);
    s->backoff_ms = SESSION_BACKOFF_MS_MIN;
    s->heartbeat_ms = SESSION_HEARTBEAT_MS_DEFAULT;
    lease_init(&s->lease);
    arena_init(&s->arena, ARENA_BYTES_MAX);
    r = rpc_client_new(loop, &s->client, reterr);
    for (size_t i = 0; r == 0 && i < addresses_count; i++) {
        s->addresses[i] = strdup(addresses[i]);
        r = s->addresses[i] ? 0 : -ENOMEM;
        s->addresses_count = s->addresses_fixed = i + 1;
    }
    if (r < 0) {
        (void) session_free(s);
        return r;
    }
    (void) uv_timer_init(loop, &s->guard);
    (void) uv_timer_init(loop, &s->beat);
    s->guard.data = s->beat.data = s;
    s->timers_open = true;
    *ret = s;
    return 0;
}

void session_stop(struct session *s) {
    struct rpc_stream *stream = TAKE_PTR(s->stream);

    if (s->state == SESSION_STOPPING)
        return;
    set_state(s, SESSION_STOPPING);
    (void) uv_timer_stop(&s->guard);
    if (stream)
        rpc_stream_cancel(stream);
}

static void release(struct session *s) {
    arena_done(&s->arena);
    for (size_t i = 0; i < SESSION_ADDRESSES_MAX; i++)
        free(s->addresses[i]);
    free(s);
}

static void on_closed(uv_handle_t *h) {
    struct session *s = (struct session *) h->data;

    if (--s->handles_open == 0)
        release(s);
}

struct session *session_free(struct session *s) {
    if (!s)
        return NULL;
    if (s->timers_open)
        session_stop(s);
    s->channel = rpc_channel_free(s->channel);
    s->client = rpc_client_free(s->client);
    if (!s->timers_open) {
        release(s);
        return NULL;
    }
    s->handles_open = 2;
    uv_close((uv_handle_t *) &s->guard, on_closed);
    uv_close((uv_handle_t *) &s->beat, on_closed);
    return NULL;
}
