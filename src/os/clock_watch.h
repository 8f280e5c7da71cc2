/* Being told at once that the wall clock was set: a timer that the system cancels then.
 *
 * What it is: timerfd_create(2) with TFD_TIMER_CANCEL_ON_SET. A host that slept is told as well,
 * for its wall clock jumps. What it is not: needed for being right: whoever reads the clock again
 * within a second would notice, a second late.
 * Thread: the loop. */
#pragma once

#include "base/defs.h"

#include <uv.h>

struct clock_watch {
    uv_poll_t poll;
    int fd;
    void (*on_changed)(void *arg);
    void *arg;
    void (*on_closed)(struct clock_watch *w);
};

/* 0, or a negative errno: there is no such timer here; go without. */
int clock_watch_init(uv_loop_t *loop, struct clock_watch *w, void (*on_changed)(void *arg),
                     void *arg) _must_check_;
/* @on_closed on a later loop turn; the struct must live until then. May be NULL. */
void clock_watch_close(struct clock_watch *w, void (*on_closed)(struct clock_watch *w));
