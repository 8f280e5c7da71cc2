/* What a leader makes of its followers' answers: those to an older session change nothing (R18),
 * and what a majority has is committed. Thread: one. */
#pragma once

#include "sim/sim_internal.h"

/* Around a delivery: begin it before the node gets the payload, end it right after when it returned
 * true. False: the payload of node @from may change what leader @n knows of it, or @n leads nobody.
 */
bool checker_stale_begin(struct world *w, const struct sim_node *n, unsigned from,
                         struct slice payload, struct raft_peer_status *ret);
void checker_stale_end(struct world *w, const struct sim_node *n, unsigned from,
                       const struct raft_peer_status *before);

/* After every event of a node. */
void checker_commits(struct world *w, const struct sim_node *n);
