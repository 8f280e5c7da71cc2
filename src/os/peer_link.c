/* peer_link: the sending side to one peer: dial, greet, and dial again.
 *
 * One for messages to each peer, always there; beside it one for bulk data while it is in use.
 * What it is not: the queue (peer_queue.c).
 * Invariants: `conn` is set exactly in CONTACT states (CONNECTING to CLOSING); main->bulk is the
 * link whose `main` it is, and that one is not CLOSED.
 * Thread: the loop's. */
#include "os/peer_net_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define TO(s) (1U << (s))
static const unsigned allowed[] = {
    [PEER_LINK_WAITING] = TO(PEER_LINK_RESOLVING) | TO(PEER_LINK_CONNECTING) | TO(PEER_LINK_CLOSED),
    [PEER_LINK_RESOLVING] = TO(PEER_LINK_CONNECTING) | TO(PEER_LINK_WAITING) | TO(PEER_LINK_CLOSED),
    [PEER_LINK_CONNECTING] = TO(PEER_LINK_GREETING) | TO(PEER_LINK_CLOSING) | TO(PEER_LINK_CLOSED),
    [PEER_LINK_GREETING] = TO(PEER_LINK_UP) | TO(PEER_LINK_CLOSING) | TO(PEER_LINK_CLOSED),
    [PEER_LINK_UP] = TO(PEER_LINK_CLOSING) | TO(PEER_LINK_CLOSED),
    [PEER_LINK_CLOSING] = TO(PEER_LINK_WAITING) | TO(PEER_LINK_CLOSED),
    [PEER_LINK_CLOSED] = 0,
};

static void set_state(struct peer_link *l, enum peer_link_state to) {
    ASSERT((size_t) to < ARRAY_LEN(allowed));
    ASSERT(allowed[l->state] & TO(to));
    l->state = to;
}

static void link_unref(struct peer_link *l) {
    ASSERT(l->refs > 0);
    if (--l->refs > 0)
        return;
    ASSERT(l->state == PEER_LINK_CLOSED);
    ASSERT(!l->head);
    ASSERT(!l->bulk);
    free(l);
}

static void on_timer(uv_timer_t *t);

void peer_link_arm(struct peer_link *l, uint64_t ms) {
    int r = uv_timer_start(&l->timer, on_timer, ms, 0);

    ASSERT(r == 0); /* fails only on a closing handle */
}

/* Wait before the next try: exponential with jitter, or long after a refusal. */
static void wait_next(struct peer_link *l) {
    const struct peer_net_options *o = &l->net->o;
    uint64_t top = MIN(MAX(l->backoff_ms, o->backoff_min_ms), o->backoff_max_ms);
    uint64_t ms = rng_range(&l->net->rng, top / 2, top);

    if (l->refused)
        ms = rng_range(&l->net->rng, o->reject_retry_ms / 2, o->reject_retry_ms);
    l->refused = false;
    l->want_room = false; /* coming up tells the owner anyway */
    l->backoff_ms = top * 2;
    set_state(l, PEER_LINK_WAITING);
    peer_link_arm(l, ms);
}

/* True when @a is one of @list, with its place. */
static bool find_addr(const struct peer_addrs *list, const struct peer_addr *a, unsigned *ret_at) {
    for (unsigned i = 0; i < list->n; i++) {
        if (strcmp(list->a[i].host, a->host) != 0 || list->a[i].port != a->port)
            continue;
        *ret_at = i;
        return true;
    }
    return false;
}

/* Connecting failed: the next try goes to the other address. */
static void try_other(struct peer_link *l) {
    l->at = (l->at + 1) % l->addrs.n;
}

void peer_link_set_ready(struct peer_link *l, bool ready) {
    ASSERT(l->is_bulk);
    if (l->ready == ready)
        return;
    l->ready = ready;
    if (ready)
        l->want_room = false;
    l->net->bulk_ready = ready ? l->net->bulk_ready + 1 : l->net->bulk_ready - 1;
}

static void set_connected(struct peer_link *l, bool connected) {
    l->status.connected = connected;
    if (l->main)
        l->main->status.bulk_connected = connected;
}

void peer_link_fail(struct peer_link *l, const char *why) {
    if (l->state == PEER_LINK_CLOSED || l->state == PEER_LINK_CLOSING)
        return;
    ASSERT(l->conn);
    if (!l->quiet)
        log_info(l->net->o.log, l->is_bulk ? "peer bulk link down" : "peer link down",
                 "node=%llu address=\"%s:%u\" reason=\"%s\"", (unsigned long long) l->node_id,
                 l->addr.host, l->addr.port, why);
    l->quiet = true; /* until it was up again: an absent peer is one line, not one every 500 ms */
    (void) uv_timer_stop(&l->timer);
    set_connected(l, false);
    if (l->is_bulk)
        peer_link_set_ready(l, false);
    if (l->state != PEER_LINK_UP)
        try_other(l);
    set_state(l, PEER_LINK_CLOSING);
    peer_conn_close(l->conn);
}

/* All requests on the handle have had their callbacks before this (libuv's order). */
void peer_link_on_conn_closed(struct peer_link *l) {
    l->conn = NULL;
    peer_queue_drop(l);
    if (l->state != PEER_LINK_CLOSED) {
        bool was_up = l->was_up;

        ASSERT(l->state == PEER_LINK_CLOSING);
        l->was_up = false;
        wait_next(l);
        if (was_up && !l->is_bulk && l->net->o.callbacks.on_link)
            l->net->o.callbacks.on_link(l->net->o.callbacks.ctx, l->node_id, false);
    }
    link_unref(l);
}

static void on_connected(uv_connect_t *req, int status) {
    struct peer_link *l = CONTAINER_OF(req, struct peer_link, connect);
    const struct peer_net_options *o = &l->net->o;
    int r = status;

    if (l->state != PEER_LINK_CONNECTING)
        return; /* being closed */
    if (r == 0)
        r = peer_conn_start(l->conn);
    if (r == 0)
        r = peer_conn_write_hello(l->conn, PEER_FRAME_HELLO, l->node_id, o->protocol_min,
                                  o->protocol_max);
    if (r < 0) {
        peer_link_fail(l, uv_strerror(r));
        return;
    }
    set_state(l, PEER_LINK_GREETING);
    peer_link_arm(l, o->handshake_ms);
}

static void start_connect(struct peer_link *l, const struct sockaddr *sa) {
    int r = peer_conn_new(l->net, l, &l->conn);

    if (r < 0) { /* no memory or descriptors: the same as an absent peer, try later */
        if (l->state == PEER_LINK_RESOLVING)
            wait_next(l);
        else
            peer_link_arm(l, l->net->o.backoff_max_ms);
        return;
    }
    set_state(l, PEER_LINK_CONNECTING);
    peer_link_arm(l, l->net->o.connect_ms);
    r = uv_tcp_connect(&l->connect, &l->conn->tcp, sa, on_connected);
    if (r < 0)
        peer_link_fail(l, uv_strerror(r));
}

static void on_resolved(uv_getaddrinfo_t *req, int status, struct addrinfo *res) {
    struct peer_link *l = CONTAINER_OF(req, struct peer_link, resolve);
    struct peer_net *n = l->net;

    if (l->state == PEER_LINK_RESOLVING) {
        unsigned at = 0;
        bool readdress = !find_addr(&l->addrs, &l->addr, &at); /* set to others meanwhile */

        if (readdress || status < 0 || !res) {
            if (!readdress && !l->quiet)
                log_warn(n->o.log, "peer name does not resolve", "node=%llu host=%s reason=\"%s\"",
                         (unsigned long long) l->node_id, l->addr.host,
                         status < 0 ? uv_strerror(status) : "no address");
            l->quiet = l->quiet || !readdress;
            if (!readdress)
                try_other(l);
            wait_next(l);
        } else {
            start_connect(l, res->ai_addr);
        }
    }
    uv_freeaddrinfo(res);
    link_unref(l);
    peer_net_unref(n);
}

/* Names are resolved anew at each connect: the address behind a name may move. */
static void start_resolve(struct peer_link *l) {
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    char port[8];
    size_t len = sizeof(port);
    uint16_t p = l->addr.port;
    int r;

    port[--len] = '\0';
    do
        port[--len] = (char) ('0' + p % 10);
    while ((p /= 10) > 0);
    r = uv_getaddrinfo(l->net->loop, &l->resolve, on_resolved, l->addr.host, port + len, &hints);
    if (r < 0) {
        peer_link_arm(l, l->net->o.backoff_max_ms);
        return;
    }
    l->refs++;
    peer_net_ref(l->net);
    set_state(l, PEER_LINK_RESOLVING);
}

static void dial(struct peer_link *l) {
    struct sockaddr_in in4;
    struct sockaddr_in6 in6;

    if (!peer_net_has_cluster(l->net))
        return; /* peer_net_set_cluster_id() comes back here */
    if (l->is_bulk && peer_link_is_idle(l)) {
        peer_link_close(l);
        return;
    }
    l->addr = l->addrs.a[l->at];
    if (uv_ip4_addr(l->addr.host, l->addr.port, &in4) == 0)
        start_connect(l, (const struct sockaddr *) &in4);
    else if (uv_ip6_addr(l->addr.host, l->addr.port, &in6) == 0)
        start_connect(l, (const struct sockaddr *) &in6);
    else
        start_resolve(l);
}

static void on_timer(uv_timer_t *t) {
    struct peer_link *l = CONTAINER_OF(t, struct peer_link, timer);

    switch (l->state) {
    case PEER_LINK_WAITING:
        dial(l);
        break;
    case PEER_LINK_CONNECTING:
        peer_link_fail(l, "connection attempt timed out");
        break;
    case PEER_LINK_GREETING:
        l->net->counters.timed_out++;
        peer_link_fail(l, "no answer to the handshake");
        break;
    case PEER_LINK_UP:
        peer_queue_on_timer(l);
        break;
    case PEER_LINK_RESOLVING:
    case PEER_LINK_CLOSING:
    case PEER_LINK_CLOSED:
        break;
    }
}

/* @by us: what answers there is not for us. By the peer: the owner hears of it. */
static int refuse(struct peer_link *l, bool by_peer, bool final, const char *reason) {
    const struct peer_net_callbacks *cb = &l->net->o.callbacks;

    l->refused = true;
    l->status.rejects++;
    peer_net_log_limited(l->net, "peer link refused",
                         "node=%llu address=\"%s:%u\" by=%s reason=\"%s\"",
                         (unsigned long long) l->node_id, l->addr.host, l->addr.port,
                         by_peer ? "peer" : "us", reason);
    l->quiet = true;
    peer_link_fail(l, reason);
    if (by_peer && cb->on_refused)
        cb->on_refused(cb->ctx, l->node_id, final, reason);
    return 0;
}

static void go_up(struct peer_link *l, const struct peer_frame_hello *h, uint16_t protocol) {
    const struct peer_net_callbacks *cb = &l->net->o.callbacks;

    (void) uv_timer_stop(&l->timer);
    set_state(l, PEER_LINK_UP);
    l->conn->established = true;
    l->backoff_ms = 0;
    l->was_up = true;
    l->quiet = false;
    set_connected(l, true);
    l->status.protocol = protocol;
    l->status.connects++;
    memcpy(l->status.software, h->software, sizeof(h->software));
    log_info(l->net->o.log, l->is_bulk ? "peer bulk link up" : "peer link up",
             "node=%llu address=\"%s:%u\" version=\"%s\"", (unsigned long long) l->node_id,
             l->addr.host, l->addr.port, h->software);
    if (l->is_bulk) {
        peer_link_set_ready(l, true);
        peer_link_arm(l, l->net->o.bulk_idle_ms);
    } else if (cb->on_link) {
        cb->on_link(cb->ctx, l->node_id, true);
    }
}

static int on_welcome(struct peer_link *l, struct slice payload, struct errtext *why) {
    struct peer_frame_hello h;
    struct errtext reason = {0};
    uint16_t protocol = 0;
    bool final = false;
    int r = peer_frame_decode_hello(payload, &h, why);

    if (r < 0)
        return r;
    if (h.from != l->node_id) {
        errtext_set(&reason, "node %llu answers there", (unsigned long long) h.from);
        return refuse(l, false, false, reason.s);
    }
    if ((h.purpose == PEER_FRAME_BULK) != l->is_bulk) {
        errtext_set(&reason, "the peer takes the connection for another purpose (%u)", h.purpose);
        return refuse(l, false, false, reason.s);
    }
    r = peer_net_check_hello(l->net, &h, false, &protocol, &final, &reason);
    if (l->state != PEER_LINK_GREETING)
        return 0; /* the owner changed or removed the peer when it was asked */
    if (r != 0)
        return refuse(l, false, final, reason.s);
    go_up(l, &h, protocol);
    return 0;
}

int peer_link_on_frame(struct peer_link *l, const struct peer_frame *f, struct errtext *why) {
    char reason[PEER_FRAME_REASON_BYTES_MAX + 1];

    if (l->state == PEER_LINK_GREETING && f->type == PEER_FRAME_WELCOME)
        return on_welcome(l, f->payload, why);
    if (l->state == PEER_LINK_GREETING && f->type == PEER_FRAME_REJECT) {
        return refuse(l, true, peer_frame_decode_reject(f->payload, reason) == PEER_FRAME_FINAL,
                      reason);
    }
    errtext_set(why, "unexpected frame type %d on the sending connection", (int) f->type);
    return ERR_PROTO;
}

static void on_timer_closed(uv_handle_t *h) {
    struct peer_link *l = CONTAINER_OF(h, struct peer_link, timer);
    struct peer_net *n = l->net;

    link_unref(l);
    peer_net_unref(n);
}

int peer_link_new(struct peer_net *n, uint64_t node_id, const struct peer_addrs *addrs,
                  struct peer_link *main, struct peer_link **ret) {
    struct peer_link *l;
    int r;

    ASSERT(n);
    ASSERT(addrs && addrs->n >= 1 && addrs->n <= ARRAY_LEN(addrs->a));
    l = calloc(1, sizeof(*l));
    if (!l)
        return -ENOMEM;
    l->net = n;
    l->node_id = node_id;
    l->main = main;
    l->is_bulk = main != NULL;
    l->addrs = *addrs;
    l->state = PEER_LINK_WAITING;
    l->refs = 1;
    l->last_use_ms = uv_now(n->loop);
    peer_queue_init(l);
    r = uv_timer_init(n->loop, &l->timer);
    ASSERT(r == 0); /* cannot fail */
    peer_net_ref(n);
    peer_link_arm(l, 0);
    *ret = l;
    return 0;
}

void peer_link_hurry(struct peer_link *l) {
    l->backoff_ms = 0;
    if (l->state == PEER_LINK_WAITING)
        peer_link_arm(l, 0);
}

static bool same_addrs(const struct peer_addrs *a, const struct peer_addrs *b) {
    bool same = a->n == b->n;

    for (unsigned i = 0; same && i < a->n; i++)
        same = strcmp(a->a[i].host, b->a[i].host) == 0 && a->a[i].port == b->a[i].port;
    return same;
}

void peer_link_set_addrs(struct peer_link *l, const struct peer_addrs *addrs) {
    unsigned at = 0;
    bool contact;

    if (l->bulk)
        peer_link_set_addrs(l->bulk, addrs);
    if (same_addrs(&l->addrs, addrs))
        return;
    contact = l->state == PEER_LINK_CONNECTING || l->state == PEER_LINK_GREETING ||
              l->state == PEER_LINK_UP;
    l->addrs = *addrs;
    l->quiet = false;
    l->at = 0;
    if (contact && find_addr(addrs, &l->addr, &at)) {
        l->at = at;
        return;
    }
    if (contact)
        peer_link_fail(l, "address changed");
    l->at = 0;
    peer_link_hurry(l);
}

bool peer_link_is_idle(const struct peer_link *l) {
    ASSERT(l->is_bulk);
    return !l->head && uv_now(l->net->loop) - l->last_use_ms >= l->net->o.bulk_idle_ms;
}

bool peer_link_send_bulk(struct peer_link *l, struct bytes *payload) {
    ASSERT(!l->is_bulk);
    if (!l->bulk) {
        if (peer_link_new(l->net, l->node_id, &l->addrs, l, &l->bulk) < 0) {
            (void) bytes_unref(payload);
            return false;
        }
        l->bulk->at = l->at; /* where messages get through */
    }
    l->bulk->last_use_ms = uv_now(l->net->loop);
    if (peer_queue_push(l->bulk, payload))
        return true;
    l->bulk->want_room = true;
    return false;
}

void peer_link_close(struct peer_link *l) {
    ASSERT(l->state != PEER_LINK_CLOSED);
    if (l->bulk)
        peer_link_close(l->bulk);
    if (l->is_bulk) {
        peer_link_set_ready(l, false);
        set_connected(l, false);
        l->main->bulk = NULL;
        l->main = NULL; /* it may be gone before our handles are */
    }
    if (l->state == PEER_LINK_RESOLVING)
        (void) uv_cancel((uv_req_t *) &l->resolve);
    set_state(l, PEER_LINK_CLOSED);
    if (l->conn)
        peer_conn_close(l->conn);
    uv_close((uv_handle_t *) &l->timer, on_timer_closed);
}
