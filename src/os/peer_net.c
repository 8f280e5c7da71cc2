/* peer_net: the listener, the check of a handshake, the peers, and the public face.
 *
 * What it is not: membership. Whoever knows the cluster id and whom on_hello accepts may send; what
 * a message of a node is worth is for Raft to say.
 * Invariants: refs counts every open handle and pending request, so that the struct outlives its
 * last callback.
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
    memcpy(ret->disk, n->o.disk, sizeof(ret->disk));
    memcpy(ret->peer_address, n->peer_address, sizeof(ret->peer_address));
    memcpy(ret->client_address, n->client_address, sizeof(ret->client_address));
}

static bool is_zero(const uint8_t id[PEER_FRAME_CLUSTER_ID_BYTES]) {
    static const uint8_t zero[PEER_FRAME_CLUSTER_ID_BYTES];

    return memcmp(id, zero, sizeof(zero)) == 0;
}

bool peer_net_has_cluster(const struct peer_net *n) {
    return !is_zero(n->o.cluster_id);
}

static bool cluster_ok(const struct peer_net *n, const struct peer_frame_hello *h,
                       struct errtext *why) {
    unsigned long long self = n->o.self_id;

    if (!peer_net_has_cluster(n))
        errtext_set(why, "node %llu has not joined a cluster yet", self);
    else if (is_zero(h->cluster_id))
        errtext_set(why, "node %llu has not joined a cluster yet, node %llu has",
                    (unsigned long long) h->from, self);
    else if (memcmp(h->cluster_id, n->o.cluster_id, sizeof(h->cluster_id)) != 0)
        errtext_set(why, "foreign cluster id: node %llu belongs to another cluster", self);
    else
        return true;
    return false;
}

static int ask_owner(const struct peer_net *n, const struct peer_frame_hello *h, bool incoming,
                     bool *ret_final, struct errtext *why) {
    const struct peer_net_hello told = {
        .node_id = h->from,
        .peer_address = h->peer_address,
        .client_address = h->client_address,
        .software = h->software,
        .incoming = incoming,
        .bulk = h->purpose == PEER_FRAME_BULK,
    };
    struct peer_net_hello hello = told;

    if (!n->o.callbacks.on_hello)
        return 0;
    memcpy(hello.disk, h->disk, sizeof(hello.disk));
    return n->o.callbacks.on_hello(n->o.callbacks.ctx, &hello, ret_final, why) == 0 ? 0 : 1;
}

int peer_net_check_hello(struct peer_net *n, const struct peer_frame_hello *h, bool incoming,
                         uint16_t *ret_protocol, bool *ret_final, struct errtext *why) {
    *ret_final = false;
    if (!cluster_ok(n, h, why))
        return 1;
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
    if (h->purpose > PEER_FRAME_BULK) {
        errtext_set(why, "a connection for purpose %u is not known here", h->purpose);
        return 1;
    }
    *ret_protocol = MIN(h->protocol_max, n->o.protocol_max);
    return ask_owner(n, h, incoming, ret_final, why);
}

/* --- start and stop ------------------------------------------------------------------------- */

/* The next link whose owner is to be told; looked up anew each time, for the callback may add and
 * remove peers. */
static struct peer_link *next_ready(struct peer_net *n) {
    struct u64map_slot *s;
    size_t pos = 0;

    while ((s = u64map_next(&n->links, &pos)) != NULL) {
        struct peer_link *bulk = ((struct peer_link *) s->value)->bulk;

        if (bulk && bulk->ready)
            return bulk;
    }
    return NULL;
}

static void tell_ready(struct peer_net *n) {
    struct peer_link *l;

    while (n->bulk_ready > 0 && (l = next_ready(n)) != NULL) {
        peer_link_set_ready(l, false);
        if (n->o.callbacks.on_bulk_ready)
            n->o.callbacks.on_bulk_ready(n->o.callbacks.ctx, l->node_id);
    }
}

/* Before the loop waits. */
static void on_prepare(uv_prepare_t *p) {
    struct peer_net *n = CONTAINER_OF(p, struct peer_net, prepare);

    n->turn++;
    if (n->paused > 0)
        peer_accept_resume(n);
    tell_ready(n);
    if (!n->closing)
        peer_net_flush(n);
}

static void set_defaults(struct peer_net_options *o) {
    o->message_bytes_max = o->message_bytes_max ? o->message_bytes_max : 64U * 1024 * 1024;
    o->queue_bytes_max = o->queue_bytes_max ? o->queue_bytes_max : (size_t) 64 * 1024 * 1024;
    o->bulk_queue_bytes_max =
        o->bulk_queue_bytes_max ? o->bulk_queue_bytes_max : (size_t) 4 * 1024 * 1024;
    o->bulk_idle_ms = o->bulk_idle_ms ? o->bulk_idle_ms : 30000;
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
        r = uv_listen((uv_stream_t *) &n->listener, LISTEN_BACKLOG, peer_accept_on_connection);
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
    (void) snprintf(n->peer_address, sizeof(n->peer_address), "%s",
                    o->peer_address ? o->peer_address : "");
    (void) snprintf(n->client_address, sizeof(n->client_address), "%s",
                    o->client_address ? o->client_address : "");
    n->o.listen_address = n->o.software = n->o.peer_address = n->o.client_address = NULL;
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

void peer_net_set_cluster_id(struct peer_net *n, const uint8_t id[PEER_FRAME_CLUSTER_ID_BYTES]) {
    struct u64map_slot *s;
    size_t pos = 0;

    ASSERT(!is_zero(id));
    ASSERT(!peer_net_has_cluster(n) || memcmp(id, n->o.cluster_id, sizeof(n->o.cluster_id)) == 0);
    memcpy(n->o.cluster_id, id, sizeof(n->o.cluster_id));
    while ((s = u64map_next(&n->links, &pos)) != NULL)
        peer_link_hurry((struct peer_link *) s->value);
}

void peer_net_set_disk(struct peer_net *n, const uint8_t disk[PEER_FRAME_DISK_BYTES]) {
    memcpy(n->o.disk, disk, sizeof(n->o.disk));
}

int peer_net_set_peer(struct peer_net *n, uint64_t node_id, const char *address,
                      const char *other_address) {
    bool two = other_address && other_address[0] != '\0';
    struct peer_addrs addrs = {.n = two ? 2 : 1};
    struct peer_link *l;
    int r;

    ASSERT(n && !n->closing);
    ASSERT(address);
    if (node_id == 0 || node_id == n->o.self_id)
        return ERR_CONFIG;
    r = peer_addr_parse(address, &addrs.a[0], NULL);
    if (r == 0 && two)
        r = peer_addr_parse(other_address, &addrs.a[1], NULL);
    if (r < 0)
        return r;
    l = (struct peer_link *) u64map_get(&n->links, node_id);
    if (l) {
        peer_link_set_addrs(l, &addrs);
        return 0;
    }
    r = peer_link_new(n, node_id, &addrs, NULL, &l);
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
    peer_accept_close_node(n, node_id);
}

void peer_net_send(struct peer_net *n, uint64_t node_id, struct bytes *payload) {
    struct peer_link *l = (struct peer_link *) u64map_get(&n->links, node_id);

    ASSERT(payload);
    if (l)
        (void) peer_queue_push(l, payload);
    else
        (void) bytes_unref(payload);
}

bool peer_net_send_bulk(struct peer_net *n, uint64_t node_id, struct bytes *payload) {
    struct peer_link *l = (struct peer_link *) u64map_get(&n->links, node_id);

    ASSERT(payload);
    if (l)
        return peer_link_send_bulk(l, payload);
    (void) bytes_unref(payload);
    return false;
}

static void flush_node(struct peer_link *l) {
    peer_queue_flush(l);
    if (l->bulk)
        peer_queue_flush(l->bulk);
}

void peer_net_flush(struct peer_net *n) {
    struct u64map_slot *s;
    size_t pos = 0;

    while ((s = u64map_next(&n->links, &pos)) != NULL)
        flush_node((struct peer_link *) s->value);
}

static void env_send(void *ctx, uint64_t node_id, struct bytes *payload) {
    peer_net_send((struct peer_net *) ctx, node_id, payload);
}

static void env_flush(void *ctx) {
    peer_net_flush((struct peer_net *) ctx);
}

static bool env_send_bulk(void *ctx, uint64_t node_id, struct bytes *payload) {
    return peer_net_send_bulk((struct peer_net *) ctx, node_id, payload);
}

static int env_set_peer(void *ctx, uint64_t node_id, const char *address,
                        const char *other_address) {
    return peer_net_set_peer((struct peer_net *) ctx, node_id, address, other_address);
}

static void env_remove_peer(void *ctx, uint64_t node_id) {
    peer_net_remove_peer((struct peer_net *) ctx, node_id);
}

struct env_peers peer_net_env(struct peer_net *n) {
    return (struct env_peers){.send = env_send,
                              .flush = env_flush,
                              .send_bulk = env_send_bulk,
                              .set_peer = env_set_peer,
                              .remove_peer = env_remove_peer,
                              .ctx = n};
}

int peer_net_status(const struct peer_net *n, uint64_t node_id, struct peer_net_status *ret) {
    const struct peer_link *l = (const struct peer_link *) u64map_get(&n->links, node_id);

    ASSERT(ret);
    if (!l)
        return 1;
    *ret = l->status;
    ret->bulk_queued_bytes = l->bulk ? l->bulk->status.queued_bytes : 0;
    return 0;
}

struct peer_net_counters peer_net_counters(const struct peer_net *n) {
    return n->counters;
}

uint16_t peer_net_port(const struct peer_net *n) {
    return n->port;
}
