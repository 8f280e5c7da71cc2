#include "os/wake.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

static void on_readable(uv_poll_t *p, int status, int events) {
    struct wake *w = CONTAINER_OF(p, struct wake, poll);
    uint64_t count;

    (void) status;
    (void) events;
    /* Before the callback drains: what is pushed after the drain wakes us again. */
    while (read(w->fd, &count, sizeof(count)) < 0 && errno == EINTR)
        continue;
    w->on_wake(w);
}

int wake_init(uv_loop_t *loop, struct wake *w, void (*on_wake)(struct wake *w)) {
    int r;

    w->on_wake = on_wake;
    w->on_closed = NULL;
    w->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (w->fd < 0)
        return -errno;
    r = uv_poll_init(loop, &w->poll, w->fd);
    if (r < 0) {
        (void) close(w->fd);
        return r;
    }
    r = uv_poll_start(&w->poll, UV_READABLE, on_readable);
    ASSERT(r == 0); /* only a closing handle is refused */
    return 0;
}

void wake_send(struct wake *w) {
    const uint64_t one = 1;

    /* EAGAIN: the counter is full, so the loop has been told often enough. */
    while (write(w->fd, &one, sizeof(one)) < 0 && errno == EINTR)
        continue;
}

static void on_poll_closed(uv_handle_t *h) {
    struct wake *w = CONTAINER_OF((uv_poll_t *) (void *) h, struct wake, poll);

    (void) close(w->fd);
    w->on_closed(w);
}

void wake_close(struct wake *w, void (*on_closed)(struct wake *w)) {
    w->on_closed = on_closed;
    (void) uv_poll_stop(&w->poll);
    uv_close((uv_handle_t *) &w->poll, on_poll_closed);
}
