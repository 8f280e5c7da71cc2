/* peer_link: the sending side to one peer: dial, greet, write, and dial again.
 *
 * What it is not: reliable. A message is given to the kernel or dropped; Raft repeats what matters.
 * Invariants: `conn` is set exactly in CONTACT states (CONNECTING to CLOSING); the queue is empty
 * unless the link is UP or CLOSING.
 * Thread: the loop's. */
#include "os/peer_net_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct peer_send {
    struct peer_send *next;
    struct bytes *payload; /* owned reference */
    uint8_t header[PEER_FRAME_HEADER_BYTES];
};

/* Messages in one writev: two buffers each. */
#define WRITE_MESSAGES_MAX 128U

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
    free(l);
}

static size_t send_bytes(const struct peer_send *s) {
    return PEER_FRAME_HEADER_BYTES + (size_t) s->payload->len;
}

static void pop_send(struct peer_link *l) {
    struct peer_send *s = l->head;

    ASSERT(s);
    l->head = s->next;
    if (!l->head)
        l->tail = &l->head;
    l->head_offset = 0;
    ASSERT(l->status.queued_bytes >= send_bytes(s));
    l->status.queued_bytes -= send_bytes(s);
    (void) bytes_unref(s->payload);
    free(s);
}

static void drop_queue(struct peer_link *l) {
    ASSERT(!l->writing); /* the kernel interface still points into the queue */
    while (l->head) {
        l->status.dropped++;
        pop_send(l);
    }
}

static void on_timer(uv_timer_t *t);

static void arm(struct peer_link *l, uint64_t ms) {
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
    l->backoff_ms = top * 2;
    set_state(l, PEER_LINK_WAITING);
    arm(l, ms);
}

void peer_link_fail(struct peer_link *l, const char *why) {
    if (l->state == PEER_LINK_CLOSED || l->state == PEER_LINK_CLOSING)
        return;
    ASSERT(l->conn);
    if (!l->quiet)
        log_info(l->net->o.log, "peer link down", "node=%llu address=\"%s:%u\" reason=\"%s\"",
                 (unsigned long long) l->node_id, l->addr.host, l->addr.port, why);
    l->quiet = true; /* until it was up again: an absent peer is one line, not one every 500 ms */
    (void) uv_timer_stop(&l->timer);
    l->status.connected = false;
    set_state(l, PEER_LINK_CLOSING);
    peer_conn_close(l->conn);
}

/* All requests on the handle have had their callbacks before this (libuv's order). */
void peer_link_on_conn_closed(struct peer_link *l) {
    l->conn = NULL;
    drop_queue(l);
    if (l->state != PEER_LINK_CLOSED) {
        bool was_up = l->was_up;

        ASSERT(l->state == PEER_LINK_CLOSING);
        l->was_up = false;
        wait_next(l);
        if (was_up && l->net->o.callbacks.on_link)
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
    arm(l, o->handshake_ms);
}

static void start_connect(struct peer_link *l, const struct sockaddr *sa) {
    int r = peer_conn_new(l->net, l, &l->conn);

    if (r < 0) { /* no memory or descriptors: the same as an absent peer, try later */
        if (l->state == PEER_LINK_RESOLVING)
            wait_next(l);
        else
            arm(l, l->net->o.backoff_max_ms);
        return;
    }
    set_state(l, PEER_LINK_CONNECTING);
    arm(l, l->net->o.connect_ms);
    r = uv_tcp_connect(&l->connect, &l->conn->tcp, sa, on_connected);
    if (r < 0)
        peer_link_fail(l, uv_strerror(r));
}

static void on_resolved(uv_getaddrinfo_t *req, int status, struct addrinfo *res) {
    struct peer_link *l = CONTAINER_OF(req, struct peer_link, resolve);
    struct peer_net *n = l->net;

    if (l->state == PEER_LINK_RESOLVING) {
        bool readdress = l->readdress;

        l->readdress = false;
        if (readdress || status < 0 || !res) {
            if (!readdress && !l->quiet)
                log_warn(n->o.log, "peer name does not resolve", "node=%llu host=%s reason=\"%s\"",
                         (unsigned long long) l->node_id, l->addr.host,
                         status < 0 ? uv_strerror(status) : "no address");
            l->quiet = l->quiet || !readdress;
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
        arm(l, l->net->o.backoff_max_ms);
        return;
    }
    l->refs++;
    peer_net_ref(l->net);
    set_state(l, PEER_LINK_RESOLVING);
}

static void dial(struct peer_link *l) {
    struct sockaddr_in in4;
    struct sockaddr_in6 in6;

    if (uv_ip4_addr(l->addr.host, l->addr.port, &in4) == 0)
        start_connect(l, (const struct sockaddr *) &in4);
    else if (uv_ip6_addr(l->addr.host, l->addr.port, &in6) == 0)
        start_connect(l, (const struct sockaddr *) &in6);
    else
        start_resolve(l);
}

/* A stopped process keeps its connection alive in the kernel while it reads nothing. Waiting for it
 * would only collect messages that are stale when it wakes; a new connection starts afresh. */
static void arm_stall(struct peer_link *l) {
    l->stall_bytes = uv_stream_get_write_queue_size((const uv_stream_t *) &l->conn->tcp);
    arm(l, l->net->o.stall_ms);
}

static void check_stall(struct peer_link *l) {
    size_t left = uv_stream_get_write_queue_size((const uv_stream_t *) &l->conn->tcp);

    ASSERT(l->writing); /* the timer runs only meanwhile */
    if (left == l->stall_bytes)
        peer_link_fail(l, "the peer reads nothing");
    else
        arm_stall(l);
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
        check_stall(l);
        break;
    case PEER_LINK_RESOLVING:
    case PEER_LINK_CLOSING:
    case PEER_LINK_CLOSED:
        break;
    }
}

static int refuse(struct peer_link *l, const char *by, const char *reason) {
    l->refused = true;
    l->status.rejects++;
    peer_net_log_limited(l->net, "peer link refused",
                         "node=%llu address=\"%s:%u\" by=%s reason=\"%s\"",
                         (unsigned long long) l->node_id, l->addr.host, l->addr.port, by, reason);
    l->quiet = true;
    peer_link_fail(l, reason);
    return 0;
}

static int on_welcome(struct peer_link *l, struct slice payload, struct errtext *why) {
    struct peer_frame_hello h;
    struct errtext reason = {0};
    uint16_t protocol = 0;
    int r = peer_frame_decode_hello(payload, &h, why);

    if (r < 0)
        return r;
    if (h.from != l->node_id) {
        errtext_set(&reason, "node %llu answers there", (unsigned long long) h.from);
        return refuse(l, "us", reason.s);
    }
    if (peer_net_check_hello(l->net, &h, &protocol, &reason) != 0)
        return refuse(l, "us", reason.s);
    (void) uv_timer_stop(&l->timer);
    set_state(l, PEER_LINK_UP);
    l->conn->established = true;
    l->backoff_ms = 0;
    l->was_up = true;
    l->quiet = false;
    l->status.connected = true;
    l->status.protocol = protocol;
    l->status.connects++;
    memcpy(l->status.software, h.software, sizeof(h.software));
    log_info(l->net->o.log, "peer link up", "node=%llu address=\"%s:%u\" version=\"%s\"",
             (unsigned long long) l->node_id, l->addr.host, l->addr.port, h.software);
    if (l->net->o.callbacks.on_link)
        l->net->o.callbacks.on_link(l->net->o.callbacks.ctx, l->node_id, true);
    return 0;
}

int peer_link_on_frame(struct peer_link *l, const struct peer_frame *f, struct errtext *why) {
    char reason[PEER_FRAME_REASON_BYTES_MAX + 1];

    if (l->state == PEER_LINK_GREETING && f->type == PEER_FRAME_WELCOME)
        return on_welcome(l, f->payload, why);
    if (l->state == PEER_LINK_GREETING && f->type == PEER_FRAME_REJECT) {
        peer_frame_copy_text(reason, sizeof(reason), f->payload);
        return refuse(l, "peer", reason);
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

int peer_link_new(struct peer_net *n, uint64_t node_id, const struct peer_addr *addr,
                  struct peer_link **ret) {
    struct peer_link *l;
    int r;

    ASSERT(n);
    ASSERT(addr);
    l = calloc(1, sizeof(*l));
    if (!l)
        return -ENOMEM;
    l->net = n;
    l->node_id = node_id;
    l->addr = *addr;
    l->state = PEER_LINK_WAITING;
    l->refs = 1;
    l->tail = &l->head;
    r = uv_timer_init(n->loop, &l->timer);
    ASSERT(r == 0); /* cannot fail */
    peer_net_ref(n);
    arm(l, 0);
    *ret = l;
    return 0;
}

void peer_link_set_addr(struct peer_link *l, const struct peer_addr *addr) {
    if (strcmp(l->addr.host, addr->host) == 0 && l->addr.port == addr->port)
        return;
    l->addr = *addr;
    l->backoff_ms = 0;
    l->quiet = false;
    if (l->state == PEER_LINK_WAITING)
        arm(l, 0);
    else if (l->state == PEER_LINK_RESOLVING)
        l->readdress = true;
    else
        peer_link_fail(l, "address changed");
}

void peer_link_close(struct peer_link *l) {
    ASSERT(l->state != PEER_LINK_CLOSED);
    if (l->state == PEER_LINK_RESOLVING)
        (void) uv_cancel((uv_req_t *) &l->resolve);
    set_state(l, PEER_LINK_CLOSED);
    if (l->conn)
        peer_conn_close(l->conn);
    uv_close((uv_handle_t *) &l->timer, on_timer_closed);
}

void peer_link_send(struct peer_link *l, struct bytes *payload) {
    _cleanup_(bytes_unrefp) struct bytes *b = payload;
    struct peer_send *s;
    size_t size = PEER_FRAME_HEADER_BYTES + (size_t) b->len;

    if (l->state != PEER_LINK_UP || b->len > l->net->o.message_bytes_max ||
        size > l->net->o.queue_bytes_max ||
        l->status.queued_bytes > l->net->o.queue_bytes_max - size) {
        l->status.dropped++;
        return;
    }
    s = malloc(sizeof(*s));
    if (!s) {
        l->status.dropped++;
        return;
    }
    peer_frame_encode_header(s->header, PEER_FRAME_MESSAGE, bytes_slice(b));
    s->payload = TAKE_PTR(b);
    s->next = NULL;
    *l->tail = s;
    l->tail = &s->next;
    l->status.queued_bytes += size;
}

/* The buffers of the first messages, less what already left. */
static unsigned gather(const struct peer_link *l, uv_buf_t *bufs, unsigned *ret_messages,
                       size_t *ret_bytes) {
    size_t skip = l->head_offset;
    unsigned n = 0, messages = 0;
    size_t total = 0;

    for (struct peer_send *s = l->head; s && messages < WRITE_MESSAGES_MAX; s = s->next) {
        uint8_t *parts[2] = {s->header, s->payload->data};
        size_t lens[2] = {PEER_FRAME_HEADER_BYTES, s->payload->len};

        for (unsigned i = 0; i < 2; i++) {
            size_t cut = MIN(skip, lens[i]);

            skip -= cut;
            if (lens[i] == cut)
                continue;
            bufs[n++] = uv_buf_init((char *) parts[i] + cut, (unsigned) (lens[i] - cut));
            total += lens[i] - cut;
        }
        messages++;
    }
    *ret_messages = messages;
    *ret_bytes = total;
    return n;
}

static void consume(struct peer_link *l, size_t bytes) {
    while (bytes > 0) {
        size_t rest = send_bytes(l->head) - l->head_offset;

        if (bytes < rest) {
            l->head_offset += bytes;
            return;
        }
        bytes -= rest;
        l->status.sent++;
        l->status.sent_bytes += send_bytes(l->head);
        pop_send(l);
    }
}

static void on_written(uv_write_t *req, int status) {
    struct peer_link *l = CONTAINER_OF(req, struct peer_link, write);
    unsigned n = l->in_flight;

    ASSERT(l->writing);
    l->writing = false;
    l->in_flight = 0;
    if (l->state == PEER_LINK_UP)
        (void) uv_timer_stop(&l->timer);
    if (status < 0) {
        peer_link_fail(l, uv_strerror(status)); /* no effect when it is closing already */
        return;
    }
    for (; n > 0; n--)
        consume(l, send_bytes(l->head) - l->head_offset);
    peer_link_flush(l);
}

void peer_link_flush(struct peer_link *l) {
    uv_buf_t bufs[WRITE_MESSAGES_MAX * 2];

    while (l->state == PEER_LINK_UP && !l->writing && l->head) {
        uv_stream_t *stream = (uv_stream_t *) &l->conn->tcp;
        unsigned messages = 0, n;
        size_t total = 0;
        int r;

        n = gather(l, bufs, &messages, &total);
        r = uv_try_write(stream, bufs, n);
        if (r < 0 && r != UV_EAGAIN) {
            peer_link_fail(l, uv_strerror(r));
            return;
        }
        if (r > 0)
            consume(l, (size_t) r);
        if (r > 0 && (size_t) r == total)
            continue;
        /* The socket buffer is full: libuv waits until there is room. */
        n = gather(l, bufs, &messages, &total);
        r = uv_write(&l->write, stream, bufs, n, on_written);
        if (r < 0) {
            peer_link_fail(l, uv_strerror(r));
            return;
        }
        l->writing = true;
        l->in_flight = messages;
        arm_stall(l);
    }
}
