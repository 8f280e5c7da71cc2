/* Around a delivery: answers to an older session of a leader with its follower change nothing
 * (R18). Begin it before the node gets the payload, end it right after when it returned true.
 * Thread: one.
 */
#pragma once

#include "sim/sim_internal.h"

/* False: the payload of node @from may change what leader @n knows of it, or @n leads nobody. */
bool checker_stale_begin(struct world *w, const struct sim_node *n, unsigned from,
                         struct slice payload, struct raft_peer_status *ret);
void checker_stale_end(struct world *w, const struct sim_node *n, unsigned from,
                       const struct raft_peer_status *before);
