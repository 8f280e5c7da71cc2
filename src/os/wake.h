/* Waking a libuv loop from another thread: one eventfd.
 *
 * Why not uv_async_t: libuv 1.44 lets the loop spin in uv__async_spin() while a sender is still
 * inside its write(2). On a machine with few cores the woken loop takes the sender's core and then
 * burns its own waiting for it; it was the hottest user-space address of a node under single
 * submits. The caller must make sure that a wake-up is sent when its queue goes from empty to not
 * empty; a spurious callback is harmless. Thread: wake_send from any thread between init and close;
 * all else on the loop. */
#pragma once

#include "base/defs.h"

#include <uv.h>

struct wake {
    uv_poll_t poll;
    int fd;
    void (*on_wake)(struct wake *w);
    void (*on_closed)(struct wake *w);
};

/* 0, or a negative errno. */
int wake_init(uv_loop_t *loop, struct wake *w, void (*on_wake)(struct wake *w)) _must_check_;
void wake_send(struct wake *w);
/* @on_closed on a later loop turn; the struct must live until then. */
void wake_close(struct wake *w, void (*on_closed)(struct wake *w));
