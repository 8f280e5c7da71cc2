/* peer_conn: one TCP connection: socket options, reading frames out of a growing buffer, closing.
 *
 * What it is not: a judge of frames; that is peer_accept.c (incoming) and peer_link.c (outgoing).
 * Invariants: in_len < in_cap while open; nothing larger than a handshake is buffered before the
 * handshake is complete.
 * Thread: the loop's. */
#include "os/peer_net_impl.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define IN_BYTES_MIN ((size_t) 64 * 1024)
/* An input buffer that grew past this for one large message shrinks again when it is empty. */
#define IN_BYTES_KEPT ((size_t) 1024 * 1024)
/* Unacknowledged for this long: the other machine is gone. The kernel looks when it sends again, up
 * to 0.3 s later; in all a silent peer is known within the liveness window of 3 s. */
#define TCP_DEAD_MS 2500U
/* What one bulk connection may read in one turn of the loop, and so also in one call. */
#define BULK_TURN_BYTES ((size_t) 256 * 1024)

STATIC_ASSERT(IN_BYTES_MIN > PEER_FRAME_HEADER_BYTES + PEER_FRAME_HANDSHAKE_BYTES_MAX,
              "a handshake fits without growing");

int peer_conn_new(struct peer_net *n, struct peer_link *link, struct peer_conn **ret) {
    _cleanup_(freep) struct peer_conn *c = NULL;
    int r;

    ASSERT(n);
    ASSERT(ret);
    c = calloc(1, sizeof(*c));
    if (!c)
        return -ENOMEM;
    c->in = malloc(IN_BYTES_MIN);
    if (!c->in)
        return -ENOMEM;
    c->in_cap = IN_BYTES_MIN;
    r = uv_tcp_init(n->loop, &c->tcp);
    if (r < 0) {
        free(c->in);
        return r;
    }
    c->net = n;
    c->link = link;
    peer_net_ref(n);
    if (link)
        link->refs++;
    *ret = TAKE_PTR(c);
    return 0;
}

static void on_closed(uv_handle_t *h) {
    struct peer_conn *c = CONTAINER_OF(h, struct peer_conn, tcp);
    struct peer_net *n = c->net;
    struct peer_link *l = c->link;

    free(c->in);
    free(c);
    if (l)
        peer_link_on_conn_closed(l); /* gives back the link's reference */
    peer_net_unref(n);
}

void peer_conn_close(struct peer_conn *c) {
    if (c->closing)
        return;
    c->closing = true;
    if (!c->link)
        peer_accept_on_conn_closed(c);
    uv_close((uv_handle_t *) &c->tcp, on_closed);
}

/* The connection is of no use any more: an outgoing one is replaced after a while. */
static void conn_fail(struct peer_conn *c, const char *why) {
    if (c->closing)
        return;
    if (c->link)
        peer_link_fail(c->link, why);
    else
        peer_conn_close(c);
}

static void set_int(int fd, int level, int option, int value) {
    /* Best effort: a kernel without the option only detects a dead peer later. */
    (void) setsockopt(fd, level, option, &value, sizeof(value));
}

static void set_options(struct peer_conn *c) {
    uv_os_fd_t fd;

    if (uv_fileno((uv_handle_t *) &c->tcp, &fd) < 0)
        return;
    set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1); /* without it: 40 ms stalls (design.md 6) */
    set_int(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    set_int(fd, IPPROTO_TCP, TCP_KEEPIDLE, 1);
    set_int(fd, IPPROTO_TCP, TCP_KEEPINTVL, 1);
    set_int(fd, IPPROTO_TCP, TCP_KEEPCNT, 3);
    set_int(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, (int) TCP_DEAD_MS);
}

static void set_address(struct peer_conn *c) {
    struct sockaddr_storage ss = {0};
    char host[INET6_ADDRSTRLEN] = "?";
    int len = (int) sizeof(ss), port = 0;

    (void) snprintf(c->address, sizeof(c->address), "?");
    if (uv_tcp_getpeername(&c->tcp, (struct sockaddr *) &ss, &len) < 0)
        return;
    if (ss.ss_family == AF_INET) {
        const struct sockaddr_in *in4 = (const struct sockaddr_in *) &ss;

        (void) uv_ip4_name(in4, host, sizeof(host));
        port = ntohs(in4->sin_port);
    } else if (ss.ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *) &ss;

        (void) uv_ip6_name(in6, host, sizeof(host));
        port = ntohs(in6->sin6_port);
    }
    (void) snprintf(c->address, sizeof(c->address), "%s:%d", host, port);
}

static void on_alloc(uv_handle_t *h, size_t suggested, uv_buf_t *ret) {
    struct peer_conn *c = CONTAINER_OF(h, struct peer_conn, tcp);

    (void) suggested;
    ASSERT(c->in_len < c->in_cap);
    *ret = uv_buf_init((char *) c->in + c->in_len,
                       (unsigned) MIN(c->in_cap - c->in_len, c->bulk ? BULK_TURN_BYTES : 1U << 30));
}

/* Room for @need bytes in all from the front of the buffer. */
static int make_room(struct peer_conn *c, size_t need) {
    size_t cap = MAX(need, IN_BYTES_MIN);
    uint8_t *in;

    if (c->in_cap >= need && !(c->in_len == 0 && c->in_cap > IN_BYTES_KEPT))
        return 0;
    in = realloc(c->in, cap);
    if (!in)
        return -ENOMEM;
    c->in = in;
    c->in_cap = cap;
    return 0;
}

/* Deliver all complete frames. Returns how much of the buffer they used and what the next frame
 * needs, or a negative error with its reason. */
static int take_frames(struct peer_conn *c, size_t *ret_used, size_t *ret_need,
                       struct errtext *why) {
    size_t used = 0;

    while (!c->closing) {
        uint32_t max =
            c->established ? c->net->o.message_bytes_max : PEER_FRAME_HANDSHAKE_BYTES_MAX;
        struct peer_frame f;
        size_t bytes = 0;
        int r = peer_frame_decode(slice_of(c->in + used, c->in_len - used), max, &f, &bytes, why);

        if (r == PEER_FRAME_MORE) {
            *ret_used = used;
            *ret_need = bytes;
            return 0;
        }
        if (r == 0)
            r = c->link ? peer_link_on_frame(c->link, &f, why) : peer_accept_on_frame(c, &f, why);
        if (r < 0)
            return r;
        used += bytes;
    }
    return 0;
}

/* Bad bytes change nothing but this connection: closed, counted, one line. */
static void refuse_bytes(struct peer_conn *c, int r, const struct errtext *why) {
    if (c->closing)
        return;
    if (r == ERR_PROTO || r == ERR_VERSION) {
        c->net->counters.malformed++;
        peer_net_log_limited(c->net, "malformed bytes on a peer connection, closed it",
                             "address=%s reason=\"%s\"", c->address, why->s);
    }
    if (r == ERR_VERSION && !c->link && !c->established)
        (void) !peer_conn_write_reject(c, false, why->s);
    conn_fail(c, why->s);
}

/* Bulk data waits in the kernel while the loop sees to everything else once. */
static void pause_bulk(struct peer_conn *c, size_t bytes) {
    if (c->turn != c->net->turn)
        c->turn_bytes = 0;
    c->turn = c->net->turn;
    c->turn_bytes += bytes;
    if (c->turn_bytes < BULK_TURN_BYTES)
        return;
    (void) uv_read_stop((uv_stream_t *) &c->tcp);
    c->paused = true;
    c->net->paused++;
}

static void on_read(uv_stream_t *s, ssize_t n, const uv_buf_t *buf) {
    struct peer_conn *c = CONTAINER_OF(s, struct peer_conn, tcp);
    struct errtext why = {0};
    size_t used = 0, need = 0;
    int r;

    (void) buf;
    if (c->closing || n == 0)
        return;
    if (n < 0) {
        conn_fail(c, n == UV_EOF ? "closed by the other side" : uv_strerror((int) n));
        return;
    }
    c->in_len += (size_t) n;
    r = take_frames(c, &used, &need, &why);
    if (r < 0) {
        refuse_bytes(c, r, &why);
        return;
    }
    if (c->closing)
        return;
    ASSERT(used <= c->in_len);
    c->in_len -= used;
    if (used > 0 && c->in_len > 0)
        memmove(c->in, c->in + used, c->in_len);
    if (make_room(c, need) < 0)
        conn_fail(c, "out of memory");
    else if (c->bulk)
        pause_bulk(c, (size_t) n);
}

void peer_conn_resume(struct peer_conn *c) {
    ASSERT(c->paused && !c->closing);
    c->paused = false;
    c->net->paused--;
    if (uv_read_start((uv_stream_t *) &c->tcp, on_alloc, on_read) < 0)
        conn_fail(c, "cannot read on");
}

int peer_conn_start(struct peer_conn *c) {
    set_options(c);
    set_address(c);
    return uv_read_start((uv_stream_t *) &c->tcp, on_alloc, on_read);
}

int peer_conn_write_frame(struct peer_conn *c, enum peer_frame_type type, struct slice payload) {
    uint8_t frame[PEER_FRAME_HEADER_BYTES + PEER_FRAME_HANDSHAKE_BYTES_MAX];
    uv_buf_t buf;
    int r;

    ASSERT(payload.len <= PEER_FRAME_HANDSHAKE_BYTES_MAX);
    peer_frame_encode_header(frame, type, payload);
    memcpy(frame + PEER_FRAME_HEADER_BYTES, payload.data, payload.len);
    buf = uv_buf_init((char *) frame, (unsigned) (PEER_FRAME_HEADER_BYTES + payload.len));
    r = uv_try_write((uv_stream_t *) &c->tcp, &buf, 1);
    if (r < 0)
        return r;
    return (size_t) r == buf.len ? 0 : -EAGAIN;
}

int peer_conn_write_hello(struct peer_conn *c, enum peer_frame_type type, uint64_t to,
                          uint16_t protocol_min, uint16_t protocol_max) {
    uint8_t payload[PEER_FRAME_HELLO_BYTES_MAX];
    struct peer_frame_hello h;
    size_t len;

    peer_net_fill_hello(c->net, to, &h);
    if (c->link ? c->link->is_bulk : c->bulk)
        h.purpose = PEER_FRAME_BULK;
    h.protocol_min = protocol_min;
    h.protocol_max = protocol_max;
    len = peer_frame_encode_hello(payload, &h);
    return peer_conn_write_frame(c, type, slice_of(payload, len));
}

int peer_conn_write_reject(struct peer_conn *c, bool final, const char *reason) {
    uint8_t payload[PEER_FRAME_REJECT_BYTES_MAX];
    size_t len =
        peer_frame_encode_reject(payload, final ? PEER_FRAME_FINAL : PEER_FRAME_RETRY, reason);

    return peer_conn_write_frame(c, PEER_FRAME_REJECT, slice_of(payload, len));
}
