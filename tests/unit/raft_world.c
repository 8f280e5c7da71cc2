/* See raft_world.h. */
#include "raft_world_internal.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

void *world_grow(void *p, size_t *cap, size_t count, size_t size) {
    if (count < *cap)
        return p;
    *cap = *cap ? *cap * 2 : 16;
    p = realloc(p, *cap * size);
    assert_non_null(p);
    return p;
}

struct raft_entry *world_entries_copy(const struct raft_entry *e, size_t n) {
    struct raft_entry *copy;

    if (n == 0)
        return NULL;
    copy = calloc(n, sizeof(*copy));
    assert_non_null(copy);
    for (size_t i = 0; i < n; i++) {
        copy[i] = e[i];
        if (e[i].data)
            (void) bytes_ref(e[i].data);
    }
    return copy;
}

void world_entries_free(struct raft_entry *e, size_t n) {
    for (size_t i = 0; i < n; i++)
        (void) bytes_unref(e[i].data);
    free(e);
}

void world_init(struct world *w, uint64_t seed) {
    *w = (struct world){.rng = rng_seed(seed), .now = {.ns = NS_PER_S}};
    raft_options_default(&w->options, 1, 1);
    w->leader_of = calloc(WORLD_TERMS_MAX, sizeof(*w->leader_of));
    w->vote_of = calloc(WORLD_TERMS_MAX, sizeof(*w->vote_of));
    w->committed = calloc(WORLD_INDEX_MAX, sizeof(*w->committed));
    assert_non_null(w->leader_of);
    assert_non_null(w->vote_of);
    assert_non_null(w->committed);
}

static void batch_free(struct world_batch *b) {
    world_entries_free(b->entries, b->count);
}

static void node_lose_volatile(struct world_node *n) {
    for (size_t i = 0; i < n->batches_count; i++)
        batch_free(&n->batches[i]);
    for (size_t i = 0; i < n->waiting_count; i++)
        world_entries_free(n->waiting[i].m.entries, n->waiting[i].m.entries_count);
    n->batches_count = 0;
    n->waiting_count = 0;
    n->loads_count = 0;
    n->wanted_count = 0;
    n->reads_count = 0;
    n->raft = raft_free(n->raft);
}

void world_done(struct world *w) {
    while (w->net_count > 0)
        world_drop(w, w->net_count - 1);
    for (uint64_t id = 1; id <= w->count; id++) {
        struct world_node *n = &w->nodes[id];

        node_lose_volatile(n);
        world_entries_free(n->log, n->log_count);
        free(n->batches);
        free(n->waiting);
    }
    for (size_t i = 0; i < w->committed_count; i++)
        (void) bytes_unref(w->committed[i].data);
    free(w->net);
    free(w->leader_of);
    free(w->vote_of);
    free(w->committed);
}

/* ---- effects -------------------------------------------------------------------------------- */

static void net_push(struct world *w, const struct raft_message *m) {
    struct world_message copy = {.m = *m};

    copy.m.entries = world_entries_copy(m->entries, m->entries_count);
    w->net = world_grow(w->net, &w->net_cap, w->net_count, sizeof(*w->net));
    w->net[w->net_count++] = copy;
}

static void effects_persist(struct world *w, struct world_node *n, const struct raft_effects *e) {
    struct world_batch b;

    if (e->persist_seq == 0)
        return;
    b = (struct world_batch){.seq = e->persist_seq,
                             .hard_state_changed = e->hard_state_changed,
                             .hard_state = e->hard_state,
                             .truncate_from = e->truncate_from,
                             .entries = world_entries_copy(e->append, e->append_count),
                             .count = e->append_count};
    if (e->install_index > 0) {
        CHECK(w, n->staged && n->staged->index == e->install_index);
        CHECK(w, n->staged->index_term == e->install_term);
        b.install = *n->staged;
    }
    /* R14; commit_seen is still that of before this step. */
    CHECK(w, e->truncate_from == 0 || e->truncate_from > n->commit_seen);
    n->batches = world_grow(n->batches, &n->batches_cap, n->batches_count, sizeof(*n->batches));
    n->batches[n->batches_count++] = b;
    world_trace(w, "%" PRIu64 "    persist #%" PRIu64, n->id, e->persist_seq);
    if (e->hard_state_changed)
        world_trace(w, " term=%" PRIu64 " vote=%" PRIu64, e->hard_state.term, e->hard_state.vote);
    if (e->install_index)
        world_trace(w, " install %" PRIu64 ":%" PRIu64, e->install_index, e->install_term);
    if (e->truncate_from)
        world_trace(w, " truncate from %" PRIu64, e->truncate_from);
    if (e->append_count)
        world_trace(w, " append");
    world_trace_entries(w, e->append, e->append_count);
    world_trace(w, "\n");
}

static void effects_send(struct world *w, struct world_node *n, const struct raft_effects *e) {
    size_t appends[WORLD_NODES_MAX + 1] = {0};

    for (size_t i = 0; i < e->messages_count; i++) {
        const struct raft_message *m = &e->messages[i];

        CHECK(w, m->from == n->id);
        if (m->type == RAFT_MSG_APPEND_REQ)
            CHECK(w, ++appends[m->to] == 1); /* one a peer and step */
        world_trace(w, "%" PRIu64 "    send ", n->id);
        world_trace_message(w, m);
        if (m->after_seq)
            world_trace(w, " after #%" PRIu64, m->after_seq);
        world_trace(w, "\n");
        if (m->after_seq > n->durable_seq) {
            struct world_message copy = {.m = *m};

            copy.m.entries = world_entries_copy(m->entries, m->entries_count);
            n->waiting =
                world_grow(n->waiting, &n->waiting_cap, n->waiting_count, sizeof(*n->waiting));
            n->waiting[n->waiting_count++] = copy;
            continue;
        }
        world_check_sent(w, n, m);
        net_push(w, m);
    }
}

static void effects_reads(struct world *w, struct world_node *n, const struct raft_effects *e) {
    for (size_t i = 0; i < e->reads_count; i++) {
        const struct raft_read *a = &e->reads[i];
        size_t j = 0;

        world_trace(w, "%" PRIu64 "    read c%u %s index=%" PRIu64 "\n", n->id,
                    world_trace_context(w, a->context), a->ok ? "ok" : "failed", a->index);
        while (j < n->reads_count && n->reads[j].context != a->context)
            j++;
        CHECK(w, j < n->reads_count); /* answered once */
        if (a->ok)
            CHECK(w, a->index >= n->reads[j].floor); /* R16 */
        n->reads_ok += a->ok ? 1 : 0;
        n->reads_failed += a->ok ? 0 : 1;
        n->reads[j] = n->reads[--n->reads_count];
    }
}

static const char *propose_result_to_string(enum raft_propose_result r) {
    switch (r) {
    case RAFT_PROPOSE_NONE:
        return "none";
    case RAFT_PROPOSE_ACCEPTED:
        return "accepted";
    case RAFT_PROPOSE_NOT_LEADER:
        return "not leader";
    case RAFT_PROPOSE_FULL:
        return "full";
    case RAFT_PROPOSE_TRANSFERRING:
        return "transferring";
    case RAFT_PROPOSE_BAD_CONFIG:
        return "bad config";
    }
    return "?";
}

static uint64_t execute(struct world *w, struct world_node *n, const struct raft_effects *e) {
    if (e->propose_result != RAFT_PROPOSE_NONE)
        world_trace(w, "%" PRIu64 "    proposal %s\n", n->id,
                    propose_result_to_string(e->propose_result));
    if (e->role_changed)
        world_trace(w, "%" PRIu64 "    is %s term=%" PRIu64 " leader=%" PRIu64 "\n", n->id,
                    raft_role_to_string(raft_role(n->raft)), raft_term(n->raft),
                    raft_leader(n->raft));
    w->proposed = e->propose_result;
    effects_persist(w, n, e);
    world_check_commit(w, n, e);
    world_check_leader(w, n);
    effects_send(w, n, e);
    effects_reads(w, n, e);
    for (size_t i = 0; i < e->loads_count; i++) {
        world_trace(w, "%" PRIu64 "    load for %" PRIu64 " from %" PRIu64 "\n", n->id,
                    e->loads[i].peer, e->loads[i].first_index);
        CHECK(w, n->loads_count < ARRAY_LEN(n->loads));
        n->loads[n->loads_count++] = e->loads[i];
    }
    for (size_t i = 0; i < e->snapshots_count; i++) {
        world_trace(w, "%" PRIu64 "    snapshot for %" PRIu64 "\n", n->id, e->snapshots[i].peer);
        CHECK(w, e->snapshots[i].term == raft_term(n->raft));
        CHECK(w, n->wanted_count < ARRAY_LEN(n->wanted));
        n->wanted[n->wanted_count++] = e->snapshots[i];
        w->snapshots_wanted++;
    }
    world_check_peers(w, n);
    CHECK(w, e->apply_index <= world_disk_last(n));
    CHECK(w, e->apply_index >= n->applied);
    return e->apply_index;
}

void world_step(struct world *w, uint64_t id, const struct raft_event *ev) {
    struct world_node *n = &w->nodes[id];
    const struct raft_effects *e = NULL;
    uint64_t apply;

    CHECK(w, n->raft);
    CHECK(w, raft_step(n->raft, w->now, ev, &e) == 0);
    apply = execute(w, n, e);
    if (apply > n->applied) {
        struct raft_event applied = {.type = RAFT_EV_APPLIED, .applied_index = apply};

        world_trace(w, "%" PRIu64 "    apply", n->id);
        for (uint64_t i = n->applied + 1; i <= apply; i++) {
            CHECK(w, world_entry_equal(raft_entry_at(n->raft, i), &w->committed[i - 1]));
            world_trace_entries(w, raft_entry_at(n->raft, i), 1);
        }
        world_trace(w, "\n");
        n->applied = apply;
        n->store_applied = MAX(n->store_applied, apply);
        CHECK(w, raft_step(n->raft, w->now, &applied, &e) == 0);
        (void) execute(w, n, e);
    }
}

/* ---- commands ------------------------------------------------------------------------------- */

void world_start_config(struct world *w, size_t n, const struct raft_config *c) {
    CHECK(w, n <= WORLD_NODES_MAX);
    w->count = n;
    for (uint64_t id = 1; id <= n; id++) {
        w->nodes[id].id = id;
        w->nodes[id].config = *c;
        world_restart(w, id, 0, 0);
    }
}

void world_add_node(struct world *w) {
    CHECK(w, w->count < WORLD_NODES_MAX);
    w->count++;
    w->nodes[w->count].id = w->count;
    world_restart(w, w->count, 0, 0);
}

void world_snapshot_failed(struct world *w, uint64_t leader, uint64_t peer) {
    struct raft_event ev = {.type = RAFT_EV_SNAPSHOT_FAILED, .snapshot_failed = peer};

    world_trace(w, "%" PRIu64 " snapshot for %" PRIu64 " failed\n", leader, peer);
    world_step(w, leader, &ev);
}

void world_serve_snapshot(struct world *w, uint64_t id, bool ok) {
    struct world_node *n = &w->nodes[id];
    struct raft_snapshot_wanted want;
    struct world_transfer t;

    CHECK(w, n->wanted_count > 0);
    want = n->wanted[0];
    n->wanted_count--;
    memmove(n->wanted, n->wanted + 1, n->wanted_count * sizeof(*n->wanted));
    if (!ok || w->transfers_count == ARRAY_LEN(w->transfers)) {
        world_snapshot_failed(w, id, want.peer);
        return;
    }
    t = (struct world_transfer){.leader = id,
                                .to = want.peer,
                                .term = want.term,
                                .session = want.session,
                                .index = n->applied,
                                .index_term = world_disk_term(n, n->applied)};
    world_disk_config(w, n, n->applied, &t.config, &t.config_index);
    w->transfers[w->transfers_count++] = t;
    world_trace(w, "%" PRIu64 " streams a snapshot %" PRIu64 ":%" PRIu64 " to %" PRIu64 "\n", id,
                t.index, t.index_term, t.to);
}

void world_install(struct world *w, size_t i) {
    struct world_transfer t = w->transfers[i];
    struct world_node *n = &w->nodes[t.to];
    struct raft_event ev = {.type = RAFT_EV_INSTALL,
                            .install = {.leader = t.leader,
                                        .term = t.term,
                                        .session = t.session,
                                        .index = t.index,
                                        .index_term = t.index_term,
                                        .config = &t.config,
                                        .config_index = t.config_index}};

    w->transfers_count--;
    memmove(w->transfers + i, w->transfers + i + 1,
            (w->transfers_count - i) * sizeof(*w->transfers));
    if (!n->raft) {
        if (w->nodes[t.leader].raft)
            world_snapshot_failed(w, t.leader, t.to);
        return;
    }
    world_trace(w, "%" PRIu64 " has received snapshot %" PRIu64 ":%" PRIu64 " (", t.to, t.index,
                t.index_term);
    world_trace_config(w, &t.config);
    world_trace(w, ") of %" PRIu64 " in term %" PRIu64 "\n", t.leader, t.term);
    n->staged = &t;
    world_step(w, t.to, &ev);
    n->staged = NULL;
}

enum raft_propose_result world_propose_config(struct world *w, uint64_t id,
                                              const struct raft_config *c) {
    _cleanup_(bytes_unrefp) struct bytes *data = raft_config_encode(c);
    struct raft_entry entry = {.type = RAFT_ENTRY_CONFIG, .data = data};
    struct raft_event ev = {.type = RAFT_EV_PROPOSE, .propose = {.entries = &entry, .count = 1}};

    assert_non_null(data);
    world_trace(w, "%" PRIu64 " propose (", id);
    world_trace_config(w, c);
    world_trace(w, ")\n");
    world_step(w, id, &ev);
    return w->proposed;
}

void world_start(struct world *w, size_t n) {
    struct raft_config c = {.count = n};

    for (size_t i = 0; i < n; i++)
        c.members[i] = (struct raft_member){.id = i + 1, .flags = RAFT_MEMBER_VOTER};
    world_start_config(w, n, &c);
}

void world_timeout(struct world *w, uint64_t id) {
    struct raft_event ev = {.type = RAFT_EV_TIMEOUT};

    world_trace(w, "%" PRIu64 " timeout\n", id);
    world_step(w, id, &ev);
}

void world_campaign(struct world *w, uint64_t id) {
    struct raft_event ev = {.type = RAFT_EV_CAMPAIGN};

    world_trace(w, "%" PRIu64 " campaign\n", id);
    world_step(w, id, &ev);
}

void world_persist(struct world *w, uint64_t id, size_t k) {
    struct world_node *n = &w->nodes[id];
    struct raft_event ev = {.type = RAFT_EV_PERSISTED};
    size_t keep = 0;

    k = MIN(k, n->batches_count);
    if (k == 0)
        return;
    for (size_t i = 0; i < k; i++) {
        world_disk_write(w, n, &n->batches[i]);
        n->durable_seq = n->batches[i].seq;
        if (n->batches[i].install.index > 0) {
            world_trace(w, "%" PRIu64 " is at %" PRIu64 " now\n", id, n->batches[i].install.index);
            n->applied = n->batches[i].install.index;
        }
    }
    n->batches_count -= k;
    memmove(n->batches, n->batches + k, n->batches_count * sizeof(*n->batches));
    world_trace(w, "%" PRIu64 " persisted #%" PRIu64 "\n", id, n->durable_seq);
    for (size_t i = 0; i < n->waiting_count; i++) {
        if (n->waiting[i].m.after_seq > n->durable_seq) {
            n->waiting[keep++] = n->waiting[i];
            continue;
        }
        world_check_sent(w, n, &n->waiting[i].m);
        net_push(w, &n->waiting[i].m);
        world_entries_free(n->waiting[i].m.entries, n->waiting[i].m.entries_count);
    }
    n->waiting_count = keep;
    ev.persisted_seq = n->durable_seq;
    world_step(w, id, &ev);
}

void world_drop(struct world *w, size_t i) {
    world_entries_free(w->net[i].m.entries, w->net[i].m.entries_count);
    w->net_count--;
    memmove(w->net + i, w->net + i + 1, (w->net_count - i) * sizeof(*w->net));
}

void world_dup(struct world *w, size_t i) {
    struct raft_message m = w->net[i].m;

    net_push(w, &m);
}

void world_inject(struct world *w, const struct raft_message *m) {
    struct raft_event ev = {.type = RAFT_EV_MESSAGE, .message = m};

    world_trace(w, "%" PRIu64 " receives ", m->to);
    world_trace_message(w, m);
    world_trace(w, "\n");
    world_step(w, m->to, &ev);
}

void world_deliver(struct world *w, size_t i) {
    struct world_message m = w->net[i];

    w->net_count--;
    memmove(w->net + i, w->net + i + 1, (w->net_count - i) * sizeof(*w->net));
    if (w->nodes[m.m.to].raft && !w->cut[m.m.from][m.m.to])
        world_inject(w, &m.m);
    world_entries_free(m.m.entries, m.m.entries_count);
}

enum raft_propose_result world_propose(struct world *w, uint64_t id, const char *text) {
    _cleanup_(bytes_unrefp) struct bytes *data = bytes_copy(text, strlen(text));
    struct world_node *n = &w->nodes[id];
    struct raft_entry entry = {.type = RAFT_ENTRY_COMMAND, .data = data};
    struct raft_event ev = {.type = RAFT_EV_PROPOSE, .propose = {.entries = &entry, .count = 1}};
    uint64_t last = raft_last_index(n->raft);
    bool leader = raft_role(n->raft) == RAFT_LEADER;

    assert_non_null(data);
    world_trace(w, "%" PRIu64 " propose %s\n", id, text);
    world_step(w, id, &ev);
    if (raft_last_index(n->raft) > last)
        return RAFT_PROPOSE_ACCEPTED;
    return leader ? RAFT_PROPOSE_FULL : RAFT_PROPOSE_NOT_LEADER;
}

uint64_t world_read(struct world *w, uint64_t id) {
    struct world_node *n = &w->nodes[id];
    struct raft_event ev = {.type = RAFT_EV_READ, .read_context = ++w->context_last};

    CHECK(w, n->reads_count < ARRAY_LEN(n->reads));
    n->reads[n->reads_count++] =
        (struct world_read){.context = w->context_last, .floor = w->committed_count};
    world_trace(w, "%" PRIu64 " read c%u\n", id, world_trace_context(w, w->context_last));
    world_step(w, id, &ev);
    return ev.read_context;
}

void world_transfer(struct world *w, uint64_t id, uint64_t to) {
    struct raft_event ev = {.type = RAFT_EV_TRANSFER, .transfer_to = to};

    world_trace(w, "%" PRIu64 " transfer to %" PRIu64 "\n", id, to);
    world_step(w, id, &ev);
}

void world_crash(struct world *w, uint64_t id, size_t written) {
    struct world_node *n = &w->nodes[id];

    for (size_t i = 0; i < MIN(written, n->batches_count); i++)
        world_disk_write(w, n, &n->batches[i]);
    world_trace(w, "%" PRIu64 " crashes\n", id);
    node_lose_volatile(n);
}

void world_restart(struct world *w, uint64_t id, uint64_t memory_from, uint64_t applied) {
    struct world_node *n = &w->nodes[id];
    struct raft_options o = w->options;
    struct errtext err;
    struct raft_config config;
    struct raft_start s = {.hard_state = n->hard_state,
                           .applied_index = applied,
                           .prev_index = memory_from,
                           .compacted_index = n->base_index,
                           .compacted_term = n->base_term};

    CHECK(w, !n->raft);
    CHECK(w, applied <= n->store_applied && memory_from <= applied);
    CHECK(w, memory_from >= n->base_index);
    s.prev_term = world_disk_term(n, memory_from);
    s.tail = n->log ? n->log + (memory_from - n->base_index) : NULL;
    s.tail_count = (size_t) (world_disk_last(n) - memory_from);
    world_disk_config(w, n, memory_from, &config, &s.config_index);
    s.config = config.count > 0 ? &config : NULL;
    o.id = id;
    o.seed = id * 1000003 + ++n->lives;
    if (raft_new(&o, &s, w->now, &n->raft, &err) != 0)
        fail_msg("%s: raft_new: %s", w->what, err.s);
    CHECK(w, raft_term(n->raft) >= n->hard_state.term);
    n->term_seen = n->hard_state.term;
    n->applied = applied;
    n->commit_seen = applied;
    n->durable_seq = 0;
    world_trace(w,
                "%" PRIu64 " starts term=%" PRIu64 " vote=%" PRIu64 " last=%" PRIu64
                " applied=%" PRIu64 "\n",
                id, n->hard_state.term, n->hard_state.vote, world_disk_last(n), applied);
}

void world_stabilize(struct world *w) {
    bool moved = true;

    for (size_t rounds = 0; moved; rounds++) {
        size_t i = 0;

        moved = false;
        CHECK(w, rounds < 10000);
        for (uint64_t id = 1; id <= w->count; id++) {
            if (!w->nodes[id].raft)
                continue;
            moved = moved || w->nodes[id].batches_count > 0 || w->nodes[id].loads_count > 0;
            world_persist(w, id, SIZE_MAX);
            if (w->nodes[id].loads_count > 0)
                world_serve_load(w, id, true);
            if (w->nodes[id].wanted_count > 0 && !w->hold_snapshots) {
                moved = true;
                world_serve_snapshot(w, id, true);
            }
        }
        if (w->transfers_count > 0 && !w->hold_snapshots) {
            moved = true;
            world_install(w, 0);
        }
        while (i < w->net_count && w->net[i].held)
            i++;
        if (i < w->net_count) {
            moved = true;
            world_deliver(w, i);
        }
    }
}

uint64_t world_leader(const struct world *w) {
    uint64_t best = 0;

    for (uint64_t id = 1; id <= w->count; id++) {
        if (!w->nodes[id].raft || raft_role(w->nodes[id].raft) != RAFT_LEADER)
            continue;
        if (best == 0 || raft_term(w->nodes[id].raft) > raft_term(w->nodes[best].raft))
            best = id;
    }
    return best;
}
