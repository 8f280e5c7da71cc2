/* A bound on the connections of clients, in front of gRPC's listener.
 *
 * What it is: gRPC 1.51 has no limit on connections, and its listener gives up for good, silently,
 * when accept() fails once because no file descriptor is left: a thousand idle strangers would cut
 * a node off from its clients for ever. gRPC calls accept4() of the C library; the program defines
 * that name itself (which comes first for the dynamic linker), counts, and closes those that are
 * too many before gRPC sees them. It lives in cmd/ because a name that replaces the C library's has
 * no context: there is one guard in a process.
 * What it is not: a limit on calls, streams or bytes; the API has those.
 * Thread: accept_guard_start on the main thread before the listener exists; accept4 on any. */
#pragma once

#include "base/err.h"
#include "base/log.h"

struct accept_guard_options {
    uint16_t port;            /* of the listener that is guarded; others pass unchanged */
    uint32_t connections_max; /* > 0 */
    const struct logger *log; /* borrowed for ever; must be usable from any thread */
};

/* Once in a process. 0; -ENOMEM; -errno. */
int accept_guard_start(const struct accept_guard_options *o) _must_check_;

/* Raise this process's limit of open files as far as needed and allowed for @connections clients.
 * *ret_connections: how many there can be (at most @connections). 0; ERR_LIMIT with a reason when
 * there is not enough even for the node itself. */
int accept_guard_raise_files(uint32_t connections, uint32_t *ret_connections,
                             struct errtext *reterr) _must_check_;
