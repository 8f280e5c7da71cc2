/* peer_net: the listener, incoming connections, and the public face.
 *
 * What it is not: membership. Whoever proves to belong to the cluster may send; what a message of
 * a node is worth is for Raft to say.
 * Invariants: counters.incoming is the length of the list and at most incoming_max; refs counts
 * every open handle and pending request, so that the struct outlives its last callback.
 * Thread: the loop's. */
#include "os/peer_net_impl.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOG_WINDOW_MS 10000U
#define LOG_LINES_PER_WINDOW 10U
#define LISTEN_BACKLOG 64

void peer_net_ref(struct peer_net *n) {
    n->refs++;
}

void peer_net_unref(struct peer_net *n) {
    void (*on_closed)(void *arg) = n->on_closed;
    void *arg = n->on_closed_arg;

    ASSERT(n->refs > 0);
    if (--n->refs > 0)
        return;
    ASSERT(n->closing);
    ASSERT(!n->incoming);
    u64map_done(&n->links);
    free(n);
    if (on_closed)
        on_closed(arg);
}

void peer_net_log_limited(struct peer_net *n, const char *msg, const char *fields_fmt, ...) {
    uint64_t now = uv_now(n->loop);
    char fields[512];
    va_list ap;

    if (now - n->log_window_ms >= LOG_WINDOW_MS) {
        if (n->log_lines > LOG_LINES_PER_WINDOW)
            log_warn(n->o.log, "peer log lines left out", "count=%u",
                     n->log_lines - LOG_LINES_PER_WINDOW);
        n->log_window_ms = now;
        n->log_lines = 0;
    }
    if (++n->log_lines > LOG_LINES_PER_WINDOW)
        return;
    va_start(ap, fields_fmt);
    (void) vsnprintf(fields, sizeof(fields), fields_fmt, ap);
    va_end(ap);
    log_warn(n->o.log, msg, "%s", fields);
}

/* --- handshake ------------------------------------------------------------------------------ */

void peer_net_fill_hello(const struct peer_net *n, uint64_t to, struct peer_frame_hello *ret) {
    *ret = (struct peer_frame_hello){.from = n->o.self_id, .to = to};
    memcpy(ret->cluster_id, n->o.cluster_id, sizeof(ret->cluster_id));
    memcpy(ret->software, n->software, sizeof(ret->software));
}

int peer_net_check_hello(const struct peer_net *n, const struct peer_frame_hello *h,
                         uint16_t *ret_protocol, struct errtext *why) {
    if (memcmp(h->cluster_id, n->o.cluster_id, sizeof(h->cluster_id)) != 0) {
        errtext_set(why, "foreign cluster id: node %llu belongs to another cluster",
                    (unsigned long long) n->o.self_id);
        return 1;
    }
    if (h->to != n->o.self_id || h->from == n->o.self_id) {
        errtext_set(why, "wrong node id: this is node %llu, node %llu expected node %llu here",
                    (unsigned long long) n->o.self_id, (unsigned long long) h->from,
                    (unsigned long long) h->to);
        return 1;
    }
    if (h->protocol_min > n->o.protocol_max || h->protocol_max < n->o.protocol_min) {
        errtext_set(why, "protocol %u-%u of version %s is not spoken here, only %u-%u",
                    h->protocol_min, h->protocol_max, h->software, n->o.protocol_min,
                    n->o.protocol_max);
        return 1;
    }
    *ret_protocol = MIN(h->protocol_max, n->o.protocol_max);
    return 0;
}

/* A node that connects again replaces its older connection, which may be half dead. */
static void close_older(struct peer_net *n, const struct peer_conn *keep) {
    for (struct peer_conn *c = n->incoming, *next; c; c = next) {
        next = c->next;
        if (c != keep && c->from == keep->from)
            peer_conn_close(c);
    }
}

static int on_hello(struct peer_conn *c, struct slice payload, struct errtext *why) {
    struct peer_net *n = c->net;
    struct peer_frame_hello h;
    struct errtext reason = {0};
    uint16_t protocol = 0;
    int r = peer_frame_decode_hello(payload, &h, why);

    if (r < 0)
        return r;
    if (peer_net_check_hello(n, &h, &protocol, &reason) != 0) {
        n->counters.refused++;
        peer_net_log_limited(n, "refused a peer connection", "address=%s reason=\"%s\"", c->address,
                             reason.s);
        r = peer_conn_write_frame(
            c, PEER_FRAME_REJECT,
            slice_of(reason.s, strnlen(reason.s, PEER_FRAME_REASON_BYTES_MAX)));
        peer_conn_close(c);
        return r;
    }
    r = peer_conn_write_hello(c, PEER_FRAME_WELCOME, h.from, protocol, protocol);
    if (r < 0)
        return r;
    c->from = h.from;
    c->established = true;
    close_older(n, c);
    return 0;
}

int peer_net_on_frame(struct peer_conn *c, const struct peer_frame *f, struct errtext *why) {
    struct peer_net *n = c->net;

    ASSERT(!c->link);
    if (c->established && f->type == PEER_FRAME_MESSAGE) {
        n->counters.received++;
        n->counters.received_bytes += f->payload.len;
        n->o.callbacks.on_message(n->o.callbacks.ctx, c->from, f->payload);
        return 0;
    }
    if (!c->established && f->type == PEER_FRAME_HELLO)
        return on_hello(c, f->payload, why);
    errtext_set(why, "unexpected frame type %d on an accepted connection", (int) f->type);
    return ERR_PROTO;
}

/* --- accepting ------------------------------------------------------------------------------ */

void peer_net_on_conn_closed(struct peer_conn *c) {
    struct peer_net *n = c->net;

    if (c->prev)
        c->prev->next = c->next;
    else
        n->incoming = c->next;
    if (c->next)
        c->next->prev = c->prev;
    ASSERT(n->counters.incoming > 0);
    n->counters.incoming--;
}

static void on_connection(uv_stream_t *s, int status);

static void on_sweep(uv_timer_t *t) {
    struct peer_net *n = CONTAINER_OF(t, struct peer_net, sweep);
    uint64_t now = uv_now(n->loop);
    bool waiting;

    if (n->accept_pending)
        on_connection((uv_stream_t *) &n->listener, 0);
    waiting = n->accept_pending;

    for (struct peer_conn *c = n->incoming, *next; c; c = next) {
        next = c->next;
        if (c->established)
            continue;
        waiting = true;
        if (now < c->deadline_ms)
            continue;
        n->counters.timed_out++;
        peer_conn_close(c);
    }
    if (!waiting)
        (void) uv_timer_stop(t);
}

/* At the limit the oldest stranger goes, so that silent strangers cannot keep nodes out for 5 s.
 * False when all are established: then the new one must go. */
static bool evict_stranger(struct peer_net *n) {
    struct peer_conn *oldest = NULL;

    for (struct peer_conn *c = n->incoming; c; c = c->next) {
        if (!c->established)
            oldest = c;
    }
    if (oldest)
        peer_conn_close(oldest);
    return oldest != NULL;
}

static void on_connection(uv_stream_t *s, int status) {
    struct peer_net *n = CONTAINER_OF(s, struct peer_net, listener);
    struct peer_conn *c = NULL;

    if (status < 0 || n->closing)
        return; /* out of descriptors: libuv accepts again when there are some */
    /* Without memory libuv keeps the accepted socket, and accepts no other before it is taken. */
    n->accept_pending = peer_conn_new(n, NULL, &c) < 0;
    if (n->accept_pending) {
        (void) uv_timer_start(&n->sweep, on_sweep, 100, 100);
        return;
    }
    c->next = n->incoming;
    if (c->next)
        c->next->prev = c;
    n->incoming = c;
    n->counters.incoming++;
    c->deadline_ms = uv_now(n->loop) + n->o.handshake_ms;
    if (uv_accept(s, (uv_stream_t *) &c->tcp) < 0 || peer_conn_start(c) < 0) {
        peer_conn_close(c);
        return;
    }
    if (n->counters.incoming > n->o.incoming_max) {
        n->counters.over_limit++;
        c->established = true; /* so that it is not the stranger chosen */
        if (!evict_stranger(n)) {
            peer_net_log_limited(n, "too many peer connections, closed one", "address=%s limit=%u",
                                 c->address, n->o.incoming_max);
            peer_conn_close(c);
            return;
        }
        c->established = false;
    }
    if (!uv_is_active((uv_handle_t *) &n->sweep))
        (void) uv_timer_start(&n->sweep, on_sweep, n->o.handshake_ms / 4 + 1,
                              n->o.handshake_ms / 4 + 1);
}

/* --- start and stop ------------------------------------------------------------------------- */

static void on_prepare(uv_prepare_t *p) {
    peer_net_flush(CONTAINER_OF(p, struct peer_net, prepare));
}

static void set_defaults(struct peer_net_options *o) {
    o->message_bytes_max = o->message_bytes_max ? o->message_bytes_max : 64U * 1024 * 1024;
    o->queue_bytes_max = o->queue_bytes_max ? o->queue_bytes_max : (size_t) 64 * 1024 * 1024;
    o->incoming_max = o->incoming_max ? o->incoming_max : 64;
    o->protocol_min = o->protocol_min ? o->protocol_min : PEER_NET_PROTOCOL_MIN;
    o->protocol_max = o->protocol_max ? o->protocol_max : PEER_NET_PROTOCOL_MAX;
    o->handshake_ms = o->handshake_ms ? o->handshake_ms : 5000;
    o->connect_ms = o->connect_ms ? o->connect_ms : 2000;
    o->backoff_min_ms = o->backoff_min_ms ? o->backoff_min_ms : 20;
    o->backoff_max_ms = o->backoff_max_ms ? o->backoff_max_ms : 500;
    o->stall_ms = o->stall_ms ? o->stall_ms : 5000;
    o->reject_retry_ms = o->reject_retry_ms ? o->reject_retry_ms : 5000;
}

/* The address to bind, resolved now: at start waiting for a name is right. */
static int resolve_listen(uv_loop_t *loop, const struct peer_addr *a,
                          struct sockaddr_storage *ret) {
    const struct addrinfo hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    uv_getaddrinfo_t req;
    char port[8];
    int r;

    (void) snprintf(port, sizeof(port), "%u", a->port);
    r = uv_getaddrinfo(loop, &req, NULL, a->host, port, &hints);
    if (r < 0)
        return r;
    memcpy(ret, req.addrinfo->ai_addr, MIN((size_t) req.addrinfo->ai_addrlen, sizeof(*ret)));
    uv_freeaddrinfo(req.addrinfo);
    return 0;
}

static int listen_on(struct peer_net *n, const char *address, struct errtext *reterr) {
    struct sockaddr_storage ss = {0};
    struct peer_addr a;
    int len = (int) sizeof(ss);
    int r = peer_addr_parse(address, &a, reterr);

    if (r < 0)
        return r;
    r = resolve_listen(n->loop, &a, &ss);
    if (r < 0) {
        errtext_set(reterr, "peer address %s does not resolve: %s", address, uv_strerror(r));
        return r;
    }
    r = uv_tcp_bind(&n->listener, (const struct sockaddr *) &ss, 0);
    if (r == 0)
        r = uv_listen((uv_stream_t *) &n->listener, LISTEN_BACKLOG, on_connection);
    if (r == 0)
        r = uv_tcp_getsockname(&n->listener, (struct sockaddr *) &ss, &len);
    if (r < 0) {
        errtext_set(reterr, "cannot listen for peers on %s: %s", address, uv_strerror(r));
        return r;
    }
    n->port = ntohs(ss.ss_family == AF_INET6 ? ((const struct sockaddr_in6 *) &ss)->sin6_port
                                             : ((const struct sockaddr_in *) &ss)->sin_port);
    return 0;
}

int peer_net_new(uv_loop_t *loop, const struct peer_net_options *o, struct peer_net **ret,
                 struct errtext *reterr) {
    struct peer_net *n;
    int r;

    ASSERT(loop && o && ret);
    ASSERT(o->self_id > 0);
    ASSERT(o->listen_address && o->callbacks.on_message);
    n = calloc(1, sizeof(*n));
    if (!n)
        return -ENOMEM;
    n->loop = loop;
    n->o = *o;
    set_defaults(&n->o);
    ASSERT(n->o.protocol_min <= n->o.protocol_max);
    (void) snprintf(n->software, sizeof(n->software), "%s", o->software ? o->software : "");
    n->o.listen_address = NULL;
    n->o.software = NULL;
    n->rng = rng_seed(o->seed);
    n->log_window_ms = uv_now(loop);
    u64map_init(&n->links);
    r = uv_tcp_init(loop, &n->listener);
    if (r < 0) {
        free(n);
        return r;
    }
    (void) uv_prepare_init(loop, &n->prepare); /* these two and start cannot fail */
    (void) uv_timer_init(loop, &n->sweep);
    n->refs = 3;
    (void) uv_prepare_start(&n->prepare, on_prepare);
    uv_unref((uv_handle_t *) &n->prepare);
    uv_unref((uv_handle_t *) &n->sweep);
    r = listen_on(n, o->listen_address, reterr);
    if (r < 0) {
        peer_net_close(n, NULL, NULL);
        return r;
    }
    *ret = n;
    return 0;
}

static void on_listener_closed(uv_handle_t *h) {
    peer_net_unref(CONTAINER_OF(h, struct peer_net, listener));
}

static void on_prepare_closed(uv_handle_t *h) {
    peer_net_unref(CONTAINER_OF(h, struct peer_net, prepare));
}

static void on_sweep_closed(uv_handle_t *h) {
    peer_net_unref(CONTAINER_OF(h, struct peer_net, sweep));
}

void peer_net_close(struct peer_net *n, void (*on_closed)(void *arg), void *arg) {
    if (!n)
        return;
    ASSERT(!n->closing);
    n->closing = true;
    n->on_closed = on_closed;
    n->on_closed_arg = arg;
    for (;;) {
        size_t pos = 0;
        struct u64map_slot *s = u64map_next(&n->links, &pos);

        if (!s)
            break;
        peer_net_remove_peer(n, s->key);
    }
    while (n->incoming)
        peer_conn_close(n->incoming);
    uv_close((uv_handle_t *) &n->listener, on_listener_closed);
    uv_close((uv_handle_t *) &n->prepare, on_prepare_closed);
    uv_close((uv_handle_t *) &n->sweep, on_sweep_closed);
}

/* --- peers ---------------------------------------------------------------------------------- */

int peer_net_set_peer(struct peer_net *n, uint64_t node_id, const char *address) {
    struct peer_link *l;
    struct peer_addr a;
    int r;

    ASSERT(n && !n->closing);
    ASSERT(address);
    if (node_id == 0 || node_id == n->o.self_id)
        return ERR_CONFIG;
    r = peer_addr_parse(address, &a, NULL);
    if (r < 0)
        return r;
    l = (struct peer_link *) u64map_get(&n->links, node_id);
    if (l) {
        peer_link_set_addr(l, &a);
        return 0;
    }
    r = peer_link_new(n, node_id, &a, &l);
    if (r < 0)
        return r;
    r = u64map_put(&n->links, node_id, l);
    if (r < 0)
        peer_link_close(l);
    return r;
}

void peer_net_remove_peer(struct peer_net *n, uint64_t node_id) {
    struct peer_link *l = (struct peer_link *) u64map_del(&n->links, node_id);

    if (l)
        peer_link_close(l);
    for (struct peer_conn *c = n->incoming, *next; c; c = next) {
        next = c->next;
        if (c->established && c->from == node_id)
            peer_conn_close(c);
    }
}

void peer_net_send(struct peer_net *n, uint64_t node_id, struct bytes *payload) {
    struct peer_link *l = (struct peer_link *) u64map_get(&n->links, node_id);

    ASSERT(payload);
    if (l)
        peer_link_send(l, payload);
    else
        (void) bytes_unref(payload);
}

void peer_net_flush(struct peer_net *n) {
    struct u64map_slot *s;
    size_t pos = 0;

    while ((s = u64map_next(&n->links, &pos)) != NULL)
        peer_link_flush((struct peer_link *) s->value);
}

static void env_send(void *ctx, uint64_t node_id, struct bytes *payload) {
    peer_net_send((struct peer_net *) ctx, node_id, payload);
}

static void env_flush(void *ctx) {
    peer_net_flush((struct peer_net *) ctx);
}

struct env_peers peer_net_env(struct peer_net *n) {
    return (struct env_peers){.send = env_send, .flush = env_flush, .ctx = n};
}

int peer_net_status(const struct peer_net *n, uint64_t node_id, struct peer_net_status *ret) {
    const struct peer_link *l = (const struct peer_link *) u64map_get(&n->links, node_id);

    ASSERT(ret);
    if (!l)
        return 1;
    *ret = l->status;
    return 0;
}

struct peer_net_counters peer_net_counters(const struct peer_net *n) {
    return n->counters;
}

uint16_t peer_net_port(const struct peer_net *n) {
    return n->port;
}
