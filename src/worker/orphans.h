/* Kills what an earlier worker process of the same data directory left running (reliability J30).
 *
 * Found by the mark in the environment (every attempt's has this data directory's instance in it),
 * and, for processes that cleared their environment, by the session that the journal names. A
 * session number is believed only while no younger process owns it.
 * What it is not: a hunter of those that cleared their environment, left their session and were
 * re-parented; that needs a cgroup.
 * Thread: before the loop runs; it waits up to two seconds for the dead to be gone. */
#pragma once

#include "base/err.h"

#include <sys/types.h>

struct orphan_session {
    pid_t pid;
    uint64_t start_time; /* clock ticks since boot; 0 = unknown, then not used */
};

/* @instance  as in launch_base
 * @sessions  main processes of the journal's started attempts
 * Returns how many processes were killed, or -errno. *ret_left: still there after the wait. */
int orphans_kill(const char *instance, const struct orphan_session *sessions, size_t count,
                 size_t *ret_left) _must_check_;
