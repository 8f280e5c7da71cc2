/* The inside of peer_net, shared by peer_net.c (the public face), peer_accept.c (incoming
 * connections), peer_conn.c (one TCP connection, either direction), peer_link.c (the sending side
 * to one peer: dialling and greeting) and peer_queue.c (its queue and writing). Not for others. */
#pragma once

#include "base/map.h"
#include "base/rand.h"
#include "os/peer_addr.h"
#include "os/peer_net.h"

struct peer_conn;
struct peer_link;

struct peer_net {
    uv_loop_t *loop;
    struct peer_net_options o; /* listen_address and software are not used from here */
    char software[PEER_FRAME_SOFTWARE_BYTES_MAX + 1];
    char peer_address[PEER_FRAME_ADDRESS_BYTES_MAX + 1];
    char client_address[PEER_FRAME_ADDRESS_BYTES_MAX + 1];
    uint16_t port;
    uv_tcp_t listener;
    uv_prepare_t prepare; /* flush before the loop waits */
    uv_timer_t sweep;    /* handshake deadlines of incoming connections; runs while there are any */
    struct u64map links; /* node id -> struct peer_link for messages, owned */
    struct peer_conn *incoming; /* list, newest first */
    struct peer_net_counters counters;
    struct rng rng;
    uint64_t turn;          /* counts loop turns, for read budgets */
    unsigned paused;        /* incoming connections that used theirs up */
    unsigned bulk_ready;    /* links whose on_bulk_ready is due */
    uint64_t log_window_ms; /* start of the current rate window of the log */
    unsigned log_lines;     /* in this window */
    unsigned refs;          /* open handles and pending requests; 0 frees the struct */
    bool accept_pending;    /* no memory for an accepted connection yet */
    bool closing;
    void (*on_closed)(void *arg);
    void *on_closed_arg;
};

void peer_net_ref(struct peer_net *n);
void peer_net_unref(struct peer_net *n);
/* One line about the outside misbehaving, at most 10 in 10 s: strangers must not fill the disk. */
void peer_net_log_limited(struct peer_net *n, const char *msg, const char *fields_fmt, ...)
    _printf_(3, 4);
void peer_net_fill_hello(const struct peer_net *n, uint64_t to, struct peer_frame_hello *ret);
/* False until the cluster id is known. */
bool peer_net_has_cluster(const struct peer_net *n);
/* The one check of a HELLO or WELCOME: against our own identity, then by the owner. A sentence in
 * @why and *ret_final when refused. 0 with the protocol to speak, or positive 1. */
int peer_net_check_hello(struct peer_net *n, const struct peer_frame_hello *h, bool incoming,
                         uint16_t *ret_protocol, bool *ret_final, struct errtext *why) _must_check_;

/* --- incoming connections (peer_accept.c) --------------------------------------------------- */

void peer_accept_on_connection(uv_stream_t *s, int status);
/* Once a turn: connections that used up the budget of the last one may read again. */
void peer_accept_resume(struct peer_net *n);
void peer_accept_close_node(struct peer_net *n, uint64_t node_id);

/* --- one connection ------------------------------------------------------------------------- */

struct peer_conn {
    uv_tcp_t tcp;
    struct peer_net *net;
    struct peer_link *link; /* outgoing: a counted reference; NULL: incoming */
    struct peer_conn *next; /* list of incoming ones */
    struct peer_conn *prev;
    uint8_t *in; /* owned; bytes read and not yet consumed */
    size_t in_len;
    size_t in_cap;
    uint64_t from;        /* incoming: the node at the other end, 0 before the handshake */
    uint64_t deadline_ms; /* incoming: of the handshake, in uv_now() time */
    char address[64];     /* of the other end, for the log */
    uint64_t turn;        /* bulk: the loop turn that turn_bytes are of */
    size_t turn_bytes;
    bool bulk;
    bool paused;      /* not reading until the next turn */
    bool established; /* the handshake is complete */
    bool closing;
};

/* An unconnected connection; incoming when @link is NULL. 0 or -errno. */
int peer_conn_new(struct peer_net *n, struct peer_link *link, struct peer_conn **ret) _must_check_;
/* After accept or connect: socket options, remote address, start reading. */
int peer_conn_start(struct peer_conn *c) _must_check_;
/* Read again after a pause. */
void peer_conn_resume(struct peer_conn *c);
/* Write a small frame at once (the socket buffer of a fresh connection is empty). */
int peer_conn_write_frame(struct peer_conn *c, enum peer_frame_type type,
                          struct slice payload) _must_check_;
int peer_conn_write_hello(struct peer_conn *c, enum peer_frame_type type, uint64_t to,
                          uint16_t protocol_min, uint16_t protocol_max) _must_check_;
int peer_conn_write_reject(struct peer_conn *c, bool final, const char *reason) _must_check_;
/* Idempotent; the memory is freed by the loop's next turn. */
void peer_conn_close(struct peer_conn *c);

/* Called by peer_conn.c. A negative result closes the connection; @why says the reason. */
int peer_accept_on_frame(struct peer_conn *c, const struct peer_frame *f, struct errtext *why);
int peer_link_on_frame(struct peer_link *l, const struct peer_frame *f, struct errtext *why);
void peer_accept_on_conn_closed(struct peer_conn *c); /* incoming, at peer_conn_close() */
void peer_link_on_conn_closed(struct peer_link *l);   /* outgoing, from the loop, handle gone */
/* Something broke an outgoing connection: close it, then reconnect. */
void peer_link_fail(struct peer_link *l, const char *why);

/* --- the sending side to one peer ----------------------------------------------------------- */

/*
 *                 +------------------------------------------------------------+
 *                 v                                                            |
 *   new -> WAITING --timer, name--> RESOLVING --failed--> WAITING              |
 *             |                        | resolved                              |
 *             +----timer, number---> CONNECTING --connected--> GREETING --WELCOME--> UP
 *                                      |                          |            |
 *                    error, timeout    +-----------> CLOSING <----+------------+
 *                                                       | handle closed: on_link(down) if it was up
 *                                                       +-----> WAITING (backoff with jitter)
 *   any -> CLOSED: the peer was removed, the net closed, or a bulk link idle; nothing follows.
 */
enum peer_link_state {
    PEER_LINK_WAITING,
    PEER_LINK_RESOLVING,
    PEER_LINK_CONNECTING,
    PEER_LINK_GREETING,
    PEER_LINK_UP,
    PEER_LINK_CLOSING,
    PEER_LINK_CLOSED,
};

struct peer_send; /* one queued message */

/* Where a peer may be: tried in turn. */
struct peer_addrs {
    struct peer_addr a[2];
    unsigned n; /* 1 or 2 */
};

struct peer_link {
    struct peer_net *net;
    uint64_t node_id;
    bool is_bulk;
    struct peer_link *main; /* of a bulk link until CLOSED: the one for messages, which owns it */
    struct peer_link *bulk; /* of a link for messages: owned, NULL when not in use */
    struct peer_addrs addrs;
    unsigned at;           /* which of them is tried next */
    struct peer_addr addr; /* the one in use; may have left addrs while it is being resolved */
    enum peer_link_state state;
    unsigned refs; /* timer, resolver, connection; 0 frees the struct */
    uv_timer_t timer;
    uv_getaddrinfo_t resolve;
    uv_connect_t connect;
    struct peer_conn *conn; /* CONNECTING to CLOSING; owned by itself */
    uint64_t backoff_ms;    /* upper bound of the next wait */
    bool was_up;            /* on_link(up) was called and down was not */
    bool refused;           /* the last handshake was refused: wait long */
    bool quiet;             /* the last failure was logged; the same again is not */
    uv_write_t write;
    bool writing; /* `write` is in flight and covers the first in_flight bytes of the queue */
    size_t in_flight;
    size_t stall_bytes; /* of it not yet taken by the kernel when the stall timer was armed */
    struct peer_send *head;
    struct peer_send **tail;
    size_t head_offset;   /* bytes of the first message that left already */
    uint64_t last_use_ms; /* bulk: uv_now() of the last send */
    bool want_room;       /* bulk: a send was refused since the last on_bulk_ready */
    bool ready;           /* bulk: on_bulk_ready is due; counted in the net */
    struct peer_net_status status;
};

/* @main: NULL for messages; else the new link is its bulk link. */
int peer_link_new(struct peer_net *n, uint64_t node_id, const struct peer_addrs *addrs,
                  struct peer_link *main, struct peer_link **ret) _must_check_;
/* Of a link for messages; its bulk link follows. */
void peer_link_set_addrs(struct peer_link *l, const struct peer_addrs *addrs);
/* Dial now when it is waiting. */
void peer_link_hurry(struct peer_link *l);
/* With its bulk link, if it has one. */
void peer_link_close(struct peer_link *l);
/* Of a link for messages: the bulk connection, made when there is none. */
bool peer_link_send_bulk(struct peer_link *l, struct bytes *payload) _must_check_;
/* Bulk: not used for bulk_idle_ms and nothing queued. */
bool peer_link_is_idle(const struct peer_link *l);
/* Set or clear `ready`. */
void peer_link_set_ready(struct peer_link *l, bool ready);
/* (Re)start the one timer; what it means follows from the state. */
void peer_link_arm(struct peer_link *l, uint64_t ms);

/* --- the queue of a link (peer_queue.c) ------------------------------------------------------- */

void peer_queue_init(struct peer_link *l);
/* Both take the reference; false: dropped and counted. */
bool peer_queue_push(struct peer_link *l, struct bytes *payload);
void peer_queue_flush(struct peer_link *l);
/* The connection is gone: forget everything. */
void peer_queue_drop(struct peer_link *l);
/* The timer of a link that is UP. */
void peer_queue_on_timer(struct peer_link *l);
