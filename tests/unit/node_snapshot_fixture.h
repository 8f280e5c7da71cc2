/* Worlds with small segments and many jobs, and a follower that falls behind the log. */
#pragma once

#include "node_world.h"

#define JOB_BYTES 4096U

struct lag {
    struct node_world *w;
    unsigned leader, follower;
    uint64_t index; /* the leader's log begins behind it; the follower has less */
};

/* Snapshots every second after 100 entries; nothing kept behind them; no scrubbing. */
void snapshot_world_init(struct node_world *w, unsigned count);
/* @n jobs of @bytes each at node @slot, all acknowledged. */
void submit_jobs(struct node_world *w, unsigned slot, unsigned n, size_t bytes);
/* Three nodes; one is cut off, then @n jobs, and the others' logs are cut. @w is initialised here.
 */
void lag_begin(struct lag *l, struct node_world *w, unsigned n);
/* The same, but the third node is a new one: it knows nothing and is a learner when healed. */
void lag_begin_new(struct lag *l, struct node_world *w, unsigned n);
/* The same in two steps, and it is the leader who is cut off: first only that, then, when it has
 * got what it should have of its own, the others' new leader, the jobs, the cut. */
void lag_begin_leader(struct lag *l, struct node_world *w);
void lag_compact(struct lag *l, unsigned n);
/* With jobs of @bytes each. */
void lag_begin_bytes(struct lag *l, struct node_world *w, unsigned n, size_t bytes);
/* The same; before the cut the follower proposes two submits that reach the leader, whose entries
 * it does not see: one may be repeated, one not. @told: it hears where they are. */
struct answer;
void lag_begin_with(struct lag *l, struct node_world *w, unsigned n, struct answer *once,
                    struct answer *again, bool told);
/* The leader tells the follower that its forwarded proposals were appended from @index on. */
void lag_accepted(struct lag *l, uint64_t index);
void lag_heal(struct lag *l);
/* Until all nodes that are up have the same state as the leader; at most 60 s of the world. */
void lag_wait_equal(struct lag *l);
/* One millisecond of the world. */
void node_world_step(struct node_world *w);
