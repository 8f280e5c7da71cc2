/* The disks of a world: a log behind what a snapshot covers, term and vote, the state machine's
 * index. What is written but not reported yet waits in the node's batches (raft_world.c). */
#include "raft_world_internal.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

uint64_t world_disk_last(const struct world_node *n) {
    return n->base_index + n->log_count;
}

uint64_t world_disk_term(const struct world_node *n, uint64_t index) {
    return index == n->base_index ? n->base_term : n->log[index - n->base_index - 1].term;
}

void world_disk_config(struct world *w, const struct world_node *n, uint64_t index,
                       struct raft_config *ret, uint64_t *ret_index) {
    *ret = n->config;
    *ret_index = n->config_index;
    for (uint64_t i = n->base_index + 1; i <= index; i++) {
        const struct raft_entry *e = &n->log[i - n->base_index - 1];

        if (e->type != RAFT_ENTRY_CONFIG)
            continue;
        CHECK(w, raft_config_decode(bytes_slice(e->data), ret, NULL) == 0);
        *ret_index = i;
    }
}

static void disk_install(struct world *w, struct world_node *n, const struct world_transfer *t) {
    CHECK(w, t->index > n->store_applied);
    CHECK(w, t->index <= w->committed_count);
    CHECK(w, w->committed[t->index - 1].term == t->index_term);
    while (n->log_count > 0)
        (void) bytes_unref(n->log[--n->log_count].data);
    n->base_index = t->index;
    n->base_term = t->index_term;
    n->config = t->config;
    n->config_index = t->config_index;
    n->store_applied = t->index;
    w->snapshots_installed++;
}

void world_disk_write(struct world *w, struct world_node *n, struct world_batch *b) {
    if (b->install.index > 0)
        disk_install(w, n, &b->install);
    CHECK(w, b->hard_state.term >= n->hard_state.term); /* R7, M7 */
    CHECK(w, b->hard_state.term > n->hard_state.term || n->hard_state.vote == 0 ||
                 b->hard_state.vote == n->hard_state.vote); /* R8 */
    n->hard_state = b->hard_state;
    if (b->truncate_from > 0) {
        CHECK(w, b->truncate_from > n->store_applied); /* R14 */
        while (world_disk_last(n) >= b->truncate_from)
            (void) bytes_unref(n->log[--n->log_count].data);
        w->truncations++;
    }
    for (size_t i = 0; i < b->count; i++) {
        CHECK(w, b->entries[i].index == world_disk_last(n) + 1);
        n->log = world_grow(n->log, &n->log_cap, n->log_count, sizeof(*n->log));
        n->log[n->log_count++] = b->entries[i];
    }
    free(b->entries);
    b->entries = NULL;
    b->count = 0;
}

void world_set_log(struct world *w, uint64_t id, const uint64_t *terms, size_t count) {
    struct world_node *n = &w->nodes[id];

    for (size_t i = 0; i < count; i++) {
        struct raft_entry e = {.index = i + 1, .term = terms[i], .type = RAFT_ENTRY_NOOP};

        n->log = world_grow(n->log, &n->log_cap, n->log_count, sizeof(*n->log));
        n->log[n->log_count++] = e;
        n->hard_state.term = MAX(n->hard_state.term, terms[i]);
    }
}

void world_compact(struct world *w, uint64_t id, uint64_t index) {
    struct world_node *n = &w->nodes[id];
    struct raft_event ev = {.type = RAFT_EV_COMPACTED};
    size_t gone;

    if (index <= n->base_index)
        return;
    CHECK(w, index <= raft_applied(n->raft) && index <= n->store_applied);
    ev.compacted.index = index;
    ev.compacted.term = world_disk_term(n, index);
    world_disk_config(w, n, index, &n->config, &n->config_index);
    gone = (size_t) (index - n->base_index);
    for (size_t i = 0; i < gone; i++)
        (void) bytes_unref(n->log[i].data);
    n->log_count -= gone;
    memmove(n->log, n->log + gone, n->log_count * sizeof(*n->log));
    n->base_index = index;
    n->base_term = ev.compacted.term;
    world_trace(w, "%" PRIu64 " compacted up to %" PRIu64 "\n", id, index);
    world_step(w, id, &ev);
}

void world_serve_load(struct world *w, uint64_t id, bool ok) {
    struct world_node *n = &w->nodes[id];
    struct raft_event ev = {.type = RAFT_EV_LOADED};
    struct raft_load l;
    struct raft_entry *copy;
    size_t count = 0;
    size_t bytes = 0;

    CHECK(w, n->loads_count > 0);
    l = n->loads[0];
    n->loads_count--;
    memmove(n->loads, n->loads + 1, n->loads_count * sizeof(*n->loads));
    ok = ok && l.first_index > n->base_index; /* may be gone since */
    while (ok && l.first_index - 1 + count < world_disk_last(n)) {
        const struct raft_entry *e = &n->log[l.first_index - n->base_index - 1 + count];

        bytes += e->data ? e->data->len : 0;
        if (count > 0 && bytes > l.max_bytes)
            break;
        count++;
    }
    ev.loaded.peer = l.peer;
    if (count > 0 && l.first_index - 1 > n->base_index) /* raft knows that of the base itself */
        ev.loaded.prev_term = world_disk_term(n, l.first_index - 1);
    copy = count > 0 ? world_entries_copy(n->log + l.first_index - n->base_index - 1, count) : NULL;
    ev.loaded.entries = copy;
    ev.loaded.count = count;
    w->loads_served += count > 0 ? 1 : 0;
    world_trace(w, "%" PRIu64 " loaded for %" PRIu64, id, l.peer);
    world_trace_entries(w, copy, count);
    world_trace(w, "\n");
    world_step(w, id, &ev);
    world_entries_free(copy, count);
}

void world_erase(struct world *w, uint64_t id) {
    struct world_node *n = &w->nodes[id];

    if (n->raft)
        world_crash(w, id, 0);
    while (n->log_count > 0)
        (void) bytes_unref(n->log[--n->log_count].data);
    n->hard_state = (struct raft_hard_state){0};
    n->base_index = 0;
    n->base_term = 0;
    n->config = (struct raft_config){0};
    n->config_index = 0;
    n->store_applied = 0;
    world_restart(w, id, 0, 0);
}

void world_forget(struct world *w, uint64_t id, uint64_t last) {
    struct world_node *n = &w->nodes[id];

    CHECK(w, !n->raft);
    CHECK(w, last >= n->base_index);
    while (world_disk_last(n) > last)
        (void) bytes_unref(n->log[--n->log_count].data);
    n->store_applied = MIN(n->store_applied, last);
    for (uint64_t i = 1; i <= w->count; i++) {
        struct raft_peer_status s;

        if (w->nodes[i].raft && raft_peer_status(w->nodes[i].raft, id, &s) == 0)
            w->nodes[i].forgotten[id] = s.session;
    }
    world_trace(w, "%" PRIu64 " has lost what is above %" PRIu64 "\n", id, last);
}
