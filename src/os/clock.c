#include "os/clock.h"

#include <time.h>
#include <uv.h>

struct mono clock_mono(void) {
    return (struct mono){.ns = uv_hrtime()};
}

struct wall clock_wall(void) {
    struct timespec ts = {0};
    int r = clock_gettime(CLOCK_REALTIME, &ts);

    ASSERT(r == 0); /* fails only for a clock that does not exist */
    return (struct wall){.ms = (int64_t) ts.tv_sec * 1000 + ts.tv_nsec / 1000000};
}

static struct mono env_mono(void *ctx) {
    (void) ctx;
    return clock_mono();
}

static struct wall env_wall(void *ctx) {
    (void) ctx;
    return clock_wall();
}

struct env_clock clock_env(void) {
    return (struct env_clock){.mono = env_mono, .wall = env_wall, .ctx = NULL};
}
