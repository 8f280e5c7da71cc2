/* What the scenarios share. For topology*.c only. */
#pragma once

#include "sim/sim_internal.h"
#include "sim/topology.h"

#define TIMEOUT_NS (300 * NS_PER_MS) /* of an election, the longest */
#define EVERYBODY UINT64_MAX

/* A bit of a node in a set: 1 << slot. */
#define NODE_BIT(slot) (1ULL << (slot))

void topology_wait(struct world *w, uint64_t timeouts);
/* The leader of the highest term that has committed an entry of it; NULL. */
struct sim_node *topology_leader(struct world *w);
/* One of @slots must lead within so many timeouts. NULL: it failed, and the world with it. */
struct sim_node *topology_await_leader(struct world *w, uint64_t slots, unsigned timeouts);
/* Nobody is elected, no term grows, and entries are committed. */
void topology_hold(struct world *w, unsigned timeouts);
/* No clients, until all logs are alike. */
bool topology_quiesce(struct world *w);
struct sim_node *topology_other(struct world *w, const struct sim_node *than);

/* Both directions between @a and @b. */
void topology_cut(struct world *w, unsigned a, unsigned b, bool closed);
void topology_cut_one_way(struct world *w, unsigned from, unsigned to);

/* topology_members.c */
void topology_slow_follower(struct world *w);
void topology_orders(struct world *w);
void topology_resize(struct world *w);
void topology_slow_follower_draw(struct world *w);
void topology_members_draw(struct world *w);
