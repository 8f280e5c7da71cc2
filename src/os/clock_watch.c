/* A timer on the wall clock, far ahead, that ends when the clock is set. See clock_watch.h. */
#include "os/clock_watch.h"

#include <errno.h>
#include <stdint.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define FAR_AHEAD_S (365LL * 24 * 3600) /* when it comes, it is armed again */

static int arm(int fd) {
    struct itimerspec at = {0};

    if (clock_gettime(CLOCK_REALTIME, &at.it_value) < 0)
        return -errno;
    at.it_value.tv_sec += FAR_AHEAD_S;
    if (timerfd_settime(fd, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &at, NULL) < 0)
        return -errno;
    return 0;
}

static void on_readable(uv_poll_t *p, int status, int events) {
    struct clock_watch *w = CONTAINER_OF(p, struct clock_watch, poll);
    uint64_t expired;
    ssize_t n;
    bool was_set;

    (void) status;
    (void) events;
    do
        n = read(w->fd, &expired, sizeof(expired));
    while (n < 0 && errno == EINTR);
    was_set = n < 0 && errno == ECANCELED;
    if (n < 0 && !was_set)
        return; /* nothing there after all */
    if (arm(w->fd) < 0)
        (void) uv_poll_stop(&w->poll); /* no further word; the owner looks by itself */
    w->on_changed(w->arg);
}

int clock_watch_init(uv_loop_t *loop, struct clock_watch *w, void (*on_changed)(void *arg),
                     void *arg) {
    int rc;

    ASSERT(loop && on_changed);
    *w = (struct clock_watch){.fd = -1, .on_changed = on_changed, .arg = arg};
    w->fd = timerfd_create(CLOCK_REALTIME, TFD_CLOEXEC | TFD_NONBLOCK);
    if (w->fd < 0)
        return -errno;
    rc = arm(w->fd);
    if (rc == 0)
        rc = uv_poll_init(loop, &w->poll, w->fd);
    if (rc < 0) {
        (void) close(w->fd);
        w->fd = -1;
        return rc;
    }
    rc = uv_poll_start(&w->poll, UV_READABLE, on_readable);
    ASSERT(rc == 0); /* only a closing handle is refused */
    return 0;
}

static void on_poll_closed(uv_handle_t *h) {
    struct clock_watch *w = CONTAINER_OF((uv_poll_t *) (void *) h, struct clock_watch, poll);

    (void) close(w->fd);
    w->fd = -1;
    if (w->on_closed)
        w->on_closed(w);
}

void clock_watch_close(struct clock_watch *w, void (*on_closed)(struct clock_watch *w)) {
    ASSERT(w->fd >= 0);
    w->on_closed = on_closed;
    (void) uv_poll_stop(&w->poll);
    uv_close((uv_handle_t *) &w->poll, on_poll_closed);
}
