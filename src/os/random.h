/* The kernel's random numbers, fetched a block at a time: fit for identifiers and for secrets.
 * Thread: one at a time; not to be used on both sides of a fork. */
#pragma once

#include "base/env.h"
#include "base/err.h"

struct random_os {
    uint64_t block[32];
    size_t used; /* words of the block handed out; each is wiped when it is */
};

/* 0, or -errno when the kernel gives none (fatal at start). */
int random_os_init(struct random_os *r) _must_check_;
/* The table for struct env; @r is borrowed as long as it is used. */
struct env_random random_os_env(struct random_os *r);
uint64_t random_os_next(struct random_os *r);
