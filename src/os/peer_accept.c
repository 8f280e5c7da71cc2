/* peer_accept: incoming connections: accepting, their handshake, their messages, their end.
 *
 * Invariants: counters.incoming is the length of the list and at most incoming_max; a node has at
 * most one established connection of each purpose; `paused` counts those that wait for the next
 * turn. Thread: the loop's. */
#include "os/peer_net_impl.h"

/* A node that connects again replaces its older connection of the same purpose, which may be half
 * dead. */
static void close_older(struct peer_net *n, const struct peer_conn *keep) {
    for (struct peer_conn *c = n->incoming, *next; c; c = next) {
        next = c->next;
        if (c != keep && c->from == keep->from && c->bulk == keep->bulk)
            peer_conn_close(c);
    }
}

static void refuse(struct peer_conn *c, bool final, const char *reason) {
    c->net->counters.refused++;
    peer_net_log_limited(c->net, "refused a peer connection", "address=%s reason=\"%s\"",
                         c->address, reason);
    (void) !peer_conn_write_reject(c, final, reason); /* closed in any case */
    peer_conn_close(c);
}

static int on_hello(struct peer_conn *c, struct slice payload, struct errtext *why) {
    struct peer_net *n = c->net;
    struct peer_frame_hello h;
    struct peer_link *l;
    struct errtext reason = {0};
    uint16_t protocol = 0;
    bool final = false;
    int r = peer_frame_decode_hello(payload, &h, why);

    if (r < 0)
        return r;
    r = peer_net_check_hello(n, &h, true, &protocol, &final, &reason);
    if (c->closing)
        return 0; /* the owner stopped everything when it was asked */
    if (r != 0) {
        refuse(c, final, reason.s);
        return 0;
    }
    c->bulk = h.purpose == PEER_FRAME_BULK;
    r = peer_conn_write_hello(c, PEER_FRAME_WELCOME, h.from, protocol, protocol);
    if (r < 0)
        return r;
    c->from = h.from;
    c->established = true;
    close_older(n, c);
    /* It is there and wants us: our own link need not wait out an earlier failure. */
    l = (struct peer_link *) u64map_get(&n->links, h.from);
    if (l)
        peer_link_hurry(l);
    return 0;
}

int peer_accept_on_frame(struct peer_conn *c, const struct peer_frame *f, struct errtext *why) {
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

void peer_accept_on_conn_closed(struct peer_conn *c) {
    struct peer_net *n = c->net;

    if (c->prev)
        c->prev->next = c->next;
    else
        n->incoming = c->next;
    if (c->next)
        c->next->prev = c->prev;
    if (c->paused)
        n->paused--;
    ASSERT(n->counters.incoming > 0);
    n->counters.incoming--;
}

static void on_sweep(uv_timer_t *t) {
    struct peer_net *n = CONTAINER_OF(t, struct peer_net, sweep);
    uint64_t now = uv_now(n->loop);
    bool waiting;

    if (n->accept_pending)
        peer_accept_on_connection((uv_stream_t *) &n->listener, 0);
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

void peer_accept_on_connection(uv_stream_t *s, int status) {
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

void peer_accept_resume(struct peer_net *n) {
    for (struct peer_conn *c = n->incoming, *next; c && n->paused > 0; c = next) {
        next = c->next;
        if (c->paused)
            peer_conn_resume(c);
    }
}

void peer_accept_close_node(struct peer_net *n, uint64_t node_id) {
    for (struct peer_conn *c = n->incoming, *next; c; c = next) {
        next = c->next;
        if (c->established && c->from == node_id)
            peer_conn_close(c);
    }
}
