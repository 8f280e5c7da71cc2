/* Whether a process tree has left something behind, cheaply.
 *
 * What it is: the question that every ended attempt asks, a thousand times a second. Where the
 * kernel lists a process's children, spawn_tree_alive answers from one small file; where it does
 * not, that one reads all of /proc. Process ids grow, so what a short attempt may have left has an
 * id between its root and the newest one, and these few are looked at one by one.
 * What it is not: a killer.
 * Thread: any; no state. */
#pragma once

#include "os/spawn.h"

/* The root has been reaped @age_ms after its start. 1 = something is left, 0 = nothing, -errno. */
int survivors_check(const struct spawn_tree *t, uint64_t age_ms,
                    bool (*is_known)(void *arg, pid_t pid), void *arg) _must_check_;
