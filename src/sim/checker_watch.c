/* Watchers of jobs (reliability.md J23): slow ones that move from node to node. What they are given
 * goes on where they were, without a gap and without a repetition, or they are told that it cannot.
 * Thread: one. */
#include "sim/checker_model.h"

#define POLL_PERMILLE 120
#define MOVE_PERMILLE 100
#define EVENTS_MAX 8

/* Told that the node does not remember: list, and go on from there (as clients do). */
static void begin_anew(struct world *w, struct checker_watcher *x, const struct sim_node *n,
                       uint64_t oldest) {
    if (x->begun && oldest <= x->cursor)
        sim_fail(w, "node %u: refuses to go on from %llu but remembers %llu", n->slot + 1,
                 (unsigned long long) x->cursor, (unsigned long long) oldest);
    if (x->begun)
        sim_count(w, SIM_STAT_WATCHES_COMPACTED);
    x->begun = true;
    x->cursor = replica_applied(n->replica);
}

static void poll(struct world *w, struct checker_watcher *x, const struct sim_node *n) {
    struct checker_model *c = w->checker.model;
    const struct replica_event *events = NULL;
    uint64_t upto = 0;
    size_t count = 0;

    if (!x->begun || replica_events_read(n->replica, x->cursor, &events,
                                         rng_range(&c->rng, 1, EVENTS_MAX), &count, &upto) == 1) {
        begin_anew(w, x, n, replica_events_oldest(n->replica));
        return;
    }
    if (count > 0)
        upto = events[count - 1].index;
    if (upto < x->cursor)
        sim_fail(w, "node %u: a watcher at %llu is sent back to %llu", n->slot + 1,
                 (unsigned long long) x->cursor, (unsigned long long) upto);
    if (upto > c->jobs->index)
        return; /* it comes again */
    checker_model_told(w, n, x->cursor, upto, events, count);
    sim_count(w, SIM_STAT_WATCHES);
    x->cursor = upto;
}

void checker_watch(struct world *w, struct sim_node *n) {
    struct checker_model *c = w->checker.model;

    for (unsigned i = 0; i < CHECKER_WATCHERS && !w->failed && !c->lost; i++) {
        struct checker_watcher *x = &c->watchers[i];

        if (x->node != n->slot && (!w->nodes[x->node].up || rng_chance(&c->rng, MOVE_PERMILLE)))
            x->node = n->slot;
        if (x->node == n->slot && rng_chance(&c->rng, POLL_PERMILLE))
            poll(w, x, n);
    }
}
