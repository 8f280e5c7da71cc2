/* The clock of leases. They count on CLOCK_BOOTTIME: a suspended machine's leases run on, and
 * a stopped process finds out at its first look. Wall time is for people only. */
#pragma once

#include "base/time.h"

#include <time.h>

static inline struct mono clock_lease(void) {
    struct timespec t;

    (void) clock_gettime(CLOCK_BOOTTIME, &t);
    return (struct mono){.ns = (uint64_t) t.tv_sec * NS_PER_S + (uint64_t) t.tv_nsec};
}
