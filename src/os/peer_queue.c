/* peer_queue: what a link has to send, and writing it.
 *
 * What it is not: reliable. A message is given to the kernel or dropped; Raft repeats what matters.
 * Invariants: the queue is empty unless the link is UP or CLOSING; while `writing` the first
 * in_flight bytes belong to libuv and no message they touch is freed.
 * Messages are written as far as the socket takes them, at once. Bulk is written in pieces of
 * BULK_WRITE_BYTES, one a loop turn, so that a fast receiver cannot keep the loop here.
 * Thread: the loop's. */
#include "os/peer_net_impl.h"

#include <errno.h>
#include <stdlib.h>

struct peer_send {
    struct peer_send *next;
    struct bytes *payload; /* owned reference */
    uint8_t header[PEER_FRAME_HEADER_BYTES];
};

/* Messages in one writev: two buffers each. */
#define WRITE_MESSAGES_MAX 128U
#define BULK_WRITE_BYTES ((size_t) 256 * 1024)

void peer_queue_init(struct peer_link *l) {
    l->head = NULL;
    l->tail = &l->head;
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

void peer_queue_drop(struct peer_link *l) {
    ASSERT(!l->writing); /* the kernel interface still points into the queue */
    while (l->head) {
        l->status.dropped++;
        pop_send(l);
    }
}

/* A message larger than the queue would never be taken: it may be alone in it. */
static bool has_room(const struct peer_link *l, size_t size) {
    const struct peer_net_options *o = &l->net->o;
    size_t max = l->is_bulk ? o->bulk_queue_bytes_max : o->queue_bytes_max;

    if (l->is_bulk && l->status.queued_bytes == 0)
        return true;
    return size <= max && l->status.queued_bytes <= max - size;
}

bool peer_queue_push(struct peer_link *l, struct bytes *payload) {
    _cleanup_(bytes_unrefp) struct bytes *b = payload;
    struct peer_send *s = NULL;
    size_t size = PEER_FRAME_HEADER_BYTES + (size_t) b->len;

    if (l->state == PEER_LINK_UP && b->len <= l->net->o.message_bytes_max && has_room(l, size))
        s = malloc(sizeof(*s));
    if (!s) {
        l->status.dropped++;
        return false;
    }
    peer_frame_encode_header(s->header, PEER_FRAME_MESSAGE, bytes_slice(b));
    s->payload = TAKE_PTR(b);
    s->next = NULL;
    *l->tail = s;
    l->tail = &s->next;
    l->status.queued_bytes += size;
    return true;
}

/* A stopped process keeps its connection alive in the kernel while it reads nothing. Waiting for it
 * would only collect messages that are stale when it wakes; a new connection starts afresh. */
static void arm_stall(struct peer_link *l) {
    l->stall_bytes = uv_stream_get_write_queue_size((const uv_stream_t *) &l->conn->tcp);
    peer_link_arm(l, l->net->o.stall_ms);
}

/* In UP the timer runs while a write is in flight, and between writes of a bulk link. */
void peer_queue_on_timer(struct peer_link *l) {
    size_t left = uv_stream_get_write_queue_size((const uv_stream_t *) &l->conn->tcp);

    ASSERT(l->state == PEER_LINK_UP);
    if (!l->writing) {
        ASSERT(l->is_bulk);
        if (peer_link_is_idle(l))
            peer_link_close(l);
        else
            peer_link_arm(l, l->net->o.bulk_idle_ms);
        return;
    }
    if (left == l->stall_bytes)
        peer_link_fail(l, "the peer reads nothing");
    else
        arm_stall(l);
}

/* The buffers of the first messages, less what already left, up to @bytes_max. */
static unsigned gather(const struct peer_link *l, size_t bytes_max, uv_buf_t *bufs,
                       size_t *ret_bytes) {
    size_t skip = l->head_offset;
    unsigned n = 0, messages = 0;
    size_t total = 0;

    for (struct peer_send *s = l->head; s && messages < WRITE_MESSAGES_MAX && total < bytes_max;
         s = s->next) {
        uint8_t *parts[2] = {s->header, s->payload->data};
        size_t lens[2] = {PEER_FRAME_HEADER_BYTES, s->payload->len};

        for (unsigned i = 0; i < 2; i++) {
            size_t cut = MIN(skip, lens[i]);
            size_t len = MIN(lens[i] - cut, bytes_max - total);

            skip -= cut;
            if (len == 0)
                continue;
            bufs[n++] = uv_buf_init((char *) parts[i] + cut, (unsigned) len);
            total += len;
        }
        messages++;
    }
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
        if (l->main)
            l->main->status.bulk_sent_bytes += send_bytes(l->head);
        pop_send(l);
    }
}

/* A sender that was refused hears of room once half of the queue is empty, not for every message.
 */
static void tell_room(struct peer_link *l) {
    if (l->state == PEER_LINK_UP && l->want_room &&
        l->status.queued_bytes <= l->net->o.bulk_queue_bytes_max / 2)
        peer_link_set_ready(l, true);
}

static void on_written(uv_write_t *req, int status) {
    struct peer_link *l = CONTAINER_OF(req, struct peer_link, write);
    size_t n = l->in_flight;

    ASSERT(l->writing);
    l->writing = false;
    l->in_flight = 0;
    if (l->state == PEER_LINK_UP && l->is_bulk)
        peer_link_arm(l, l->net->o.bulk_idle_ms);
    else if (l->state == PEER_LINK_UP)
        (void) uv_timer_stop(&l->timer);
    if (status < 0) {
        peer_link_fail(l, uv_strerror(status)); /* no effect when it is closing already */
        return;
    }
    consume(l, n);
    tell_room(l);
    peer_queue_flush(l);
}

/* Hand @n buffers of @total bytes to libuv, which writes what it can now and calls back in a later
 * turn of the loop. */
static void start_write(struct peer_link *l, const uv_buf_t *bufs, unsigned n, size_t total) {
    int r = uv_write(&l->write, (uv_stream_t *) &l->conn->tcp, bufs, n, on_written);

    if (r < 0) {
        peer_link_fail(l, uv_strerror(r));
        return;
    }
    l->writing = true;
    l->in_flight = total;
    arm_stall(l);
}

void peer_queue_flush(struct peer_link *l) {
    uv_buf_t bufs[WRITE_MESSAGES_MAX * 2];

    while (l->state == PEER_LINK_UP && !l->writing && l->head) {
        size_t total = 0;
        unsigned n;
        int r;

        if (l->is_bulk) {
            n = gather(l, BULK_WRITE_BYTES, bufs, &total);
            start_write(l, bufs, n, total);
            return;
        }
        n = gather(l, SIZE_MAX, bufs, &total);
        r = uv_try_write((uv_stream_t *) &l->conn->tcp, bufs, n);
        if (r < 0 && r != UV_EAGAIN) {
            peer_link_fail(l, uv_strerror(r));
            return;
        }
        if (r > 0)
            consume(l, (size_t) r);
        if (r > 0 && (size_t) r == total)
            continue;
        /* The socket buffer is full: libuv waits until there is room. */
        n = gather(l, SIZE_MAX, bufs, &total);
        start_write(l, bufs, n, total);
    }
}
