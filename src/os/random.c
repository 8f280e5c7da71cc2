#include "os/random.h"

#include <errno.h>
#include <sys/random.h>

/* 256 bytes and below come whole and are never interrupted once the pool is ready (getrandom(2)).
 */
STATIC_ASSERT(sizeof(((struct random_os *) 0)->block) <= 256, "one getrandom call fills a block");

static int refill(struct random_os *r) {
    ssize_t n;

    do
        n = getrandom(r->block, sizeof(r->block), 0);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return -errno;
    if ((size_t) n != sizeof(r->block))
        return -EIO;
    r->used = 0;
    return 0;
}

int random_os_init(struct random_os *r) {
    ASSERT(r);
    return refill(r);
}

uint64_t random_os_next(struct random_os *r) {
    uint64_t v;

    ASSERT(r);
    ASSERT(r->used <= ARRAY_LEN(r->block));
    if (r->used == ARRAY_LEN(r->block)) {
        int ret = refill(r);

        /* It worked at start; a kernel that stops giving numbers cannot be worked around, and a
         * predictable identifier is worse than a stop. */
        ASSERT(ret == 0);
    }
    v = r->block[r->used];
    r->block[r->used++] = 0;
    return v;
}

static uint64_t env_next(void *ctx) {
    return random_os_next((struct random_os *) ctx);
}

struct env_random random_os_env(struct random_os *r) {
    return (struct env_random){.next = env_next, .ctx = r};
}
