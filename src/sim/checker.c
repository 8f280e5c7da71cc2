/* Checkers of consensus: what must hold between the nodes, looked at from outside after every event
 * (reliability.md R1-R10, R12-R15, R22). They remember across crashes; the nodes they watch do not.
 * What nodes say is judged in checker_wire.c, jobs in checker_jobs.c. Thread: one. */
#include "sim/checker_model.h"
#include "sim/schedule_model.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#define LOG_MAX (1UL << 22)
#define BACKLOG_OWN 2 /* configurations, which a leader adds by itself */
#define STALLED_LEADS_NS (2 * 2 * 300 * NS_PER_MS + 300 * NS_PER_MS)
#define LEADS_ALONE_NS (3 * 300 * NS_PER_MS)

void checker_init(struct checker *c) {
    *c = (struct checker){0};
}

void checker_done(struct checker *c) {
    struct u64map *maps[] = {&c->leader_of_term, &c->votes,     &c->digests,     &c->entry_content,
                             &c->entry_chain,    &c->contested, &c->events_hash, &c->started,
                             &c->candidates,     &c->job_state, &c->voters,      &c->configs};
    struct u64map_slot *s;
    size_t pos = 0;

    while ((s = u64map_next(&c->job_state, &pos)))
        free(s->value);
    pos = 0;
    while ((s = u64map_next(&c->configs, &pos)))
        free(s->value);
    for (size_t i = 0; i < ARRAY_LEN(maps); i++)
        u64map_done(maps[i]);
    free(c->committed);
    if (c->schedules)
        c->schedules = schedule_model_free(c->schedules);
    c->model = checker_model_free(c->model);
}

bool checker_remember(struct world *w, struct u64map *m, uint64_t key, uint64_t value) {
    void *boxed = (void *) (uintptr_t) (value | 1);
    void *old = u64map_get(m, key);

    if (old)
        return old == boxed;
    if (u64map_put(m, key, boxed) < 0)
        w->no_memory = true;
    return true;
}

uint64_t checker_entry_key(uint64_t index, uint64_t term) {
    return index << 24 ^ term;
}

uint64_t checker_content_hash(uint32_t type, struct slice data) {
    return XXH3_64bits_withSeed(data.data, data.len, type) | 1;
}

/* Room for @count elements, the new ones zero. */
static bool ghost_reserve(struct world *w, struct ghost_entry **entries, size_t *cap,
                          uint64_t count) {
    struct ghost_entry *grown;
    size_t bigger;

    if (count <= *cap)
        return true;
    bigger = MAX((size_t) count + 256, *cap * 2);
    grown = bigger > LOG_MAX ? NULL : realloc(*entries, bigger * sizeof(*grown));
    if (!grown) {
        w->no_memory = true;
        return false;
    }
    memset(grown + *cap, 0, (bigger - *cap) * sizeof(*grown));
    *entries = grown;
    *cap = bigger;
    return true;
}

/* Raft has begun anew behind a snapshot that is not the state yet: what it calls durable is what it
 * has applied. */
bool checker_installing(const struct sim_node *n) {
    return raft_first_in_memory(replica_raft(n->replica)) > replica_applied(n->replica) + 1;
}

/* ---- the log --------------------------------------------------------------------------------- */

/* R2, R14: only a follower cuts, and never what is committed. */
static void log_was_cut(struct world *w, struct sim_node *n, uint64_t top) {
    const struct raft *r = replica_raft(n->replica);

    sim_count(w, SIM_STAT_TRUNCATIONS);
    if (n->chain_last >= top + 2)
        sim_count(w, SIM_STAT_TRUNCATIONS_LONG);
    sim_trace(w, "node %u: log cut from %llu to %llu", n->slot + 1,
              (unsigned long long) n->chain_last, (unsigned long long) top);
    if (top < n->seen_commit)
        sim_fail(w, "node %u cuts its log to %llu, but %llu is committed", n->slot + 1,
                 (unsigned long long) top, (unsigned long long) n->seen_commit);
    if (n->seen_leader && raft_role(r) == RAFT_LEADER && raft_term(r) == n->seen_term)
        sim_fail(w, "node %u cuts its log while it leads", n->slot + 1);
    if (n->acked_index > top) { /* legally: what it acknowledged was never committed */
        n->acked_index = top;
        n->acked_term = n->chain[top].term;
    }
    n->chain_last = top;
}

/* R10, R11: a leader begins its term with an entry of its own; before that it commits nothing. */
static void check_first_of_term(struct world *w, struct sim_node *n, const struct raft_entry *e) {
    uint64_t before = e->index > 1 ? n->chain[e->index - 1].term : 0;

    if (before != 0 && before > e->term)
        sim_fail(w, "node %u: entry %llu of term %llu behind one of term %llu", n->slot + 1,
                 (unsigned long long) e->index, (unsigned long long) e->term,
                 (unsigned long long) before);
    if (before != 0 && before < e->term && e->type != RAFT_ENTRY_NOOP)
        sim_fail(w, "node %u: entry %llu is the first of term %llu and no beginning of a term",
                 n->slot + 1, (unsigned long long) e->index, (unsigned long long) e->term);
}

/* R3: equal (index, term) means an equal entry and an equal log before it, on whichever node and in
 * whichever life. */
static bool log_entry(struct world *w, struct sim_node *n, const struct raft_entry *e) {
    struct checker *c = &w->checker;
    uint64_t key = checker_entry_key(e->index, e->term);
    uint64_t content = checker_content_hash((uint32_t) e->type, bytes_slice(e->data));
    uint64_t h[2] = {content, e->index == 1 ? 1 : n->chain[e->index - 1].hash};
    struct ghost_entry *g = &n->chain[e->index];

    *g = (struct ghost_entry){.term = e->term, .hash = XXH3_64bits(h, sizeof(h)) | 1};
    g->config_index = e->index > 1 ? n->chain[e->index - 1].config_index : 0;
    schedule_model_entry(c->schedules, e);
    checker_model_entry(w, e);
    check_first_of_term(w, n, e);
    if (e->type == RAFT_ENTRY_CONFIG) {
        checker_config_entry(w, n, e);
        g->config_index = e->index;
    }
    if (h[1] == 0) { /* the first in memory after a restart: what is before it cannot be seen */
        uint64_t known = (uint64_t) (uintptr_t) u64map_get(&c->entry_chain, key);

        g->hash = known ? known : g->hash;
    }
    if (checker_remember(w, &c->entry_content, key, content) &&
        checker_remember(w, &c->entry_chain, key, g->hash))
        return true;
    sim_fail(w, "log matching: node %u differs at or before index %llu term %llu", n->slot + 1,
             (unsigned long long) e->index, (unsigned long long) e->term);
    return false;
}

/* R19: the log has begun anew after @index, which is where a snapshot ends; its state follows. What
 * the node acknowledged may only go when it was on another path than what is committed. */
static void log_was_reset(struct world *w, struct sim_node *n, uint64_t index) {
    const struct checker *c = &w->checker;
    const struct ghost_entry *g = &c->committed[index];

    sim_trace(w, "node %u: log begins anew after %llu, it had %llu", n->slot + 1,
              (unsigned long long) index, (unsigned long long) n->chain_last);
    if (index > c->committed_count || g->term == 0) {
        sim_fail(w, "node %u takes over a state at %llu, committed is %llu", n->slot + 1,
                 (unsigned long long) index, (unsigned long long) c->committed_count);
        return;
    }
    if (n->chain_last > index) {
        sim_count(w, SIM_STAT_LOG_RESETS_TAIL);
        if (n->acked_index > index && n->chain[index].hash == g->hash)
            sim_fail(w,
                     "node %u drops entry %llu, which it had acknowledged, for a snapshot at "
                     "%llu that its log contained",
                     n->slot + 1, (unsigned long long) n->acked_index, (unsigned long long) index);
    }
    if (n->acked_index > index) {
        n->acked_index = index;
        n->acked_term = g->term;
    }
    for (uint64_t i = 1; i <= index; i++)
        n->chain[i] = c->committed[i];
    n->chain_last = index;
    n->installing = index;
}

static void check_log(struct world *w, struct sim_node *n) {
    const struct raft *r = replica_raft(n->replica);
    uint64_t last = raft_last_index(r), top = MIN(n->chain_last, last);
    uint64_t first = raft_first_in_memory(r);

    if (!ghost_reserve(w, &n->chain, &n->chain_cap, last + 1))
        return;
    if (checker_installing(n) && n->installing != first - 1) {
        if (!ghost_reserve(w, &w->checker.committed, &w->checker.committed_cap, first))
            return;
        log_was_reset(w, n, first - 1);
        top = MIN(n->chain_last, last);
    }
    /* What a restarted node no longer has in memory is applied, so it is what is committed. */
    if (first > 1 && n->chain[first - 1].term == 0 && first - 1 < w->checker.committed_cap)
        n->chain[first - 1] = w->checker.committed[first - 1];
    for (; top >= first && top > 0; top--)
        if (raft_entry_at(r, top)->term == n->chain[top].term)
            break;
    if (top < n->chain_last)
        log_was_cut(w, n, top);
    for (uint64_t i = MAX(top + 1, first); i <= last; i++)
        if (!log_entry(w, n, raft_entry_at(r, i)))
            return;
    n->chain_last = last;
}

/* R10, R11: a leader counts only entries of its own term, and a majority has them on disk. What
 * node k has on disk is what it ever acknowledged: R13 holds it to that. */
static void check_commit_rule(struct world *w, struct sim_node *n, uint64_t commit) {
    const struct raft *r = replica_raft(n->replica);
    uint64_t have = 0;

    if (n->chain[commit].term != raft_term(r))
        sim_fail(w, "leader %u of term %llu commits entry %llu of term %llu by counting",
                 n->slot + 1, (unsigned long long) raft_term(r), (unsigned long long) commit,
                 (unsigned long long) n->chain[commit].term);
    for (unsigned i = 0; i < w->nodes_count; i++) {
        const struct sim_node *k = &w->nodes[i];

        if ((k == n ? raft_durable_index(r) : k->acked_index) >= commit)
            have |= 1ULL << (i + 1);
    }
    if (!checker_quorum_of(n, have))
        sim_fail(w, "leader %u commits %llu that no majority has on disk (only nodes %llx)",
                 n->slot + 1, (unsigned long long) commit, (unsigned long long) have);
}

/* R5: what is committed at an index never changes, whoever says so. */
static void check_committed(struct world *w, struct sim_node *n) {
    const struct raft *r = replica_raft(n->replica);
    struct checker *c = &w->checker;
    uint64_t commit = raft_commit(r);

    if (commit <= n->seen_commit || w->failed)
        return;
    if (!ghost_reserve(w, &c->committed, &c->committed_cap, commit + 1))
        return;
    for (uint64_t i = n->seen_commit + 1; i <= commit; i++) {
        if (n->chain[i].term == 0)
            continue; /* from before a restart, out of memory: others vouch for it */
        if (c->committed[i].term == 0) {
            c->committed[i] = n->chain[i];
            c->committed[i].committed_in = raft_term(r);
            if (n->chain[i].config_index == i)
                checker_config_committed(w, n, i);
        } else if (c->committed[i].term != n->chain[i].term ||
                   c->committed[i].hash != n->chain[i].hash)
            sim_fail(w,
                     "state machine safety: node %u commits an entry of term %llu at %llu, "
                     "committed there is one of term %llu",
                     n->slot + 1, (unsigned long long) n->chain[i].term, (unsigned long long) i,
                     (unsigned long long) c->committed[i].term);
    }
    c->committed_count = MAX(c->committed_count, commit);
    if (raft_role(r) == RAFT_LEADER && n->seen_leader && n->seen_term == raft_term(r))
        check_commit_rule(w, n, commit);
}

/* ---- roles ----------------------------------------------------------------------------------- */

/* R4: "If a log entry is committed in a given term, then that entry will be present in the logs of
 * the leaders for all higher-numbered terms" (figure 3). A candidate whose votes arrive late may
 * still come to lead an older term; it owes nothing to a newer one. */
static void check_completeness(struct world *w, struct sim_node *n) {
    const struct raft *r = replica_raft(n->replica);
    struct checker *c = &w->checker;

    for (uint64_t i = raft_first_in_memory(r); i <= c->committed_count && !w->failed; i++) {
        const struct ghost_entry *g = &c->committed[i];

        if (g->term == 0 || g->committed_in >= raft_term(r))
            continue;
        if (i > raft_last_index(r) || g->hash != n->chain[i].hash)
            sim_fail(w,
                     "leader completeness: node %u leads term %llu with %s entry at %llu, which "
                     "was committed by term %llu",
                     n->slot + 1, (unsigned long long) raft_term(r),
                     i > raft_last_index(r) ? "no" : "another", (unsigned long long) i,
                     (unsigned long long) g->committed_in);
    }
}

/* CheckQuorum: who has not heard from a majority for some election timeouts does not lead. */
static void check_quorum(struct world *w, struct sim_node *n) {
    uint64_t heard = 1ULL << (n->slot + 1);

    for (unsigned i = 0; i < w->nodes_count; i++) {
        struct raft_peer_status st;

        if (i != n->slot && raft_peer_status(replica_raft(n->replica), i + 1, &st) == 0 &&
            mono_diff_ns(sim_clock_mono(n), st.last_contact) < LEADS_ALONE_NS)
            heard |= 1ULL << (i + 1);
    }
    if (!checker_quorum_of(n, heard) && w->now_ns - n->seen_config_at >= LEADS_ALONE_NS &&
        w->now_ns - n->resumed_at >= LEADS_ALONE_NS)
        sim_fail(w, "node %u leads although it hears from nodes %llx only", n->slot + 1,
                 (unsigned long long) heard);
}

/* R12: a leader believes of its peers no more than what they have. */
static void check_progress(struct world *w, struct sim_node *n) {
    const struct raft *r = replica_raft(n->replica);

    for (unsigned i = 0; i < w->nodes_count; i++) {
        const struct sim_node *k = &w->nodes[i];
        struct raft_peer_status st;

        if (k == n || !k->up || k->wiped || checker_installing(k) ||
            k->atlas.forgot_term >= raft_term(r) ||
            raft_term(replica_raft(k->replica)) != raft_term(r) ||
            raft_peer_status(r, i + 1, &st) != 0)
            continue;
        if (st.match > raft_durable_index(replica_raft(k->replica)) || st.next <= st.match)
            sim_fail(w, "leader %u believes node %u has %llu (next %llu), it has %llu", n->slot + 1,
                     i + 1, (unsigned long long) st.match, (unsigned long long) st.next,
                     (unsigned long long) raft_durable_index(replica_raft(k->replica)));
    }
}

/* R11: who leads was voted for by a majority, in this term. */
static void check_votes(struct world *w, struct sim_node *n) {
    uint64_t key = raft_term(replica_raft(n->replica)) << 8 | (n->slot + 1);
    uint64_t bits = (uint64_t) (uintptr_t) u64map_get(&w->checker.voters, key);

    bits |= 1ULL << (n->slot + 1);
    if (!checker_quorum_of(n, bits))
        sim_fail(w, "node %u leads term %llu with the votes of nodes %llx only", n->slot + 1,
                 (unsigned long long) raft_term(replica_raft(n->replica)),
                 (unsigned long long) bits);
}

/* R1: at most one leader a term, over all history. */
static void check_leader(struct world *w, struct sim_node *n) {
    const struct raft *r = replica_raft(n->replica);
    struct checker *c = &w->checker;
    bool leads = raft_role(r) == RAFT_LEADER;

    if (leads && !checker_remember(w, &c->leader_of_term, raft_term(r), (n->slot + 1) << 1))
        sim_fail(w, "two leaders in term %llu, one is node %u", (unsigned long long) raft_term(r),
                 n->slot + 1);
    if (leads && (!n->seen_leader || n->seen_term != raft_term(r))) {
        sim_count(w, SIM_STAT_ELECTIONS);
        check_votes(w, n);
        check_completeness(w, n);
    }
    if (leads) {
        check_progress(w, n);
        check_quorum(w, n);
    }
}

/* W17: who waits for its own disk for longer than it may does not lead, unless nobody else could. A
 * batch of its log is at least as old as the last one that ended. */
static void check_disk_stall(struct world *w, struct sim_node *n) {
    const struct raft *r = replica_raft(n->replica);
    const struct raft_config *c = raft_config_latest(r);
    uint64_t now = sim_clock_mono(n).ns, voters = 0;

    if (raft_durable_index(r) != n->seen_durable || raft_last_index(r) == raft_durable_index(r))
        n->durable_at = now;
    n->seen_durable = raft_durable_index(r);
    for (size_t i = 0; i < c->count; i++)
        voters += (c->members[i].flags & RAFT_MEMBER_VOTER) != 0;
    if (raft_role(r) == RAFT_LEADER && voters > 1 && now - n->durable_at > STALLED_LEADS_NS &&
        faults_paused_ns(n) == n->durable_paused_ns)
        sim_fail(w, "node %u leads although its disk has not answered for %llu ms", n->slot + 1,
                 (unsigned long long) ((now - n->durable_at) / NS_PER_MS));
    if (n->durable_at == now)
        n->durable_paused_ns = faults_paused_ns(n);
}

/* R6, R7: terms, commits and applied never go back within a life. */
static void check_monotonic(struct world *w, struct sim_node *n) {
    const struct raft *r = replica_raft(n->replica);
    uint64_t applied = replica_applied(n->replica);

    if (raft_term(r) < n->seen_term)
        sim_fail(w, "node %u: term went back from %llu to %llu", n->slot + 1,
                 (unsigned long long) n->seen_term, (unsigned long long) raft_term(r));
    if (raft_commit(r) < n->seen_commit || applied < n->seen_applied)
        sim_fail(w, "node %u: commit or applied went back", n->slot + 1);
    if (raft_compacted_index(r) > applied && !checker_installing(n)) /* R6, R24 */
        sim_fail(w, "node %u: its log begins after %llu, applied is %llu", n->slot + 1,
                 (unsigned long long) raft_compacted_index(r), (unsigned long long) applied);
    if (applied > raft_durable_index(r) || applied > raft_commit(r))
        sim_fail(w, "node %u: applied %llu, commit %llu, durable %llu", n->slot + 1,
                 (unsigned long long) applied, (unsigned long long) raft_commit(r),
                 (unsigned long long) raft_durable_index(r));
}

/* R22: equal state at equal index. */
static void check_digest(struct world *w, struct sim_node *n) {
    uint8_t digest[16];
    uint64_t halves[2];

    fsm_digest(replica_fsm(n->replica), digest);
    memcpy(halves, digest, sizeof(halves));
    if (!checker_remember(w, &w->checker.digests, replica_applied(n->replica),
                          halves[0] ^ halves[1] << 1))
        sim_fail(w, "node %u has another state than a node before it at index %llu", n->slot + 1,
                 (unsigned long long) replica_applied(n->replica));
}

/* The state of a snapshot is there once nothing is missing between it and the log. Its digest is
 * compared as any other (R19, R22). */
static void check_install(struct world *w, struct sim_node *n, uint64_t applied) {
    uint64_t flushes = sim_kv_flushes(n->kv);

    if (n->installing != 0 && applied >= n->installing) {
        sim_count(w, SIM_STAT_INSTALLS_FINISHED);
        n->installs++;
        n->installing = 0;
        n->receiving = 0;
    }
    if (flushes != n->seen_flushes)
        sim_count(w, SIM_STAT_SNAPSHOTS);
    n->seen_flushes = flushes;
}

/* R20: what a leader takes and has not committed is bounded: with so many on the way it takes no
 * more. (On an empty way one batch of any size goes.) */
static void check_backlog(struct world *w, struct sim_node *n) {
    const struct raft *r = replica_raft(n->replica);
    uint64_t backlog = raft_last_index(r) - raft_commit(r);
    bool led = n->seen_leader && n->seen_term == raft_term(r);

    if (raft_role(r) == RAFT_LEADER && led && raft_commit(r) == n->seen_commit &&
        n->seen_backlog >= w->node_options.raft.uncommitted_entries_max &&
        backlog > n->seen_backlog + BACKLOG_OWN)
        sim_fail(w, "leader %u takes entries on top of %llu that are not committed, now %llu",
                 n->slot + 1, (unsigned long long) n->seen_backlog, (unsigned long long) backlog);
    n->seen_backlog = backlog;
}

void checker_crashed(struct world *w, struct sim_node *n) {
    if (n->receiving != 0)
        sim_count(w, SIM_STAT_INSTALLS_INTERRUPTED);
    n->receiving = 0;
}

/* For the trace: what is on disk and what is committed. */
static void tell_log(struct world *w, struct sim_node *n) {
    const struct raft *r = replica_raft(n->replica);

    if (!w->o.trace || (raft_durable_index(r) == n->told_durable &&
                        raft_commit(r) == n->seen_commit && raft_term(r) == n->seen_term))
        return;
    n->told_durable = raft_durable_index(r);
    sim_trace(w, "node %u: log term=%llu last=%llu durable=%llu commit=%llu applied=%llu",
              n->slot + 1, (unsigned long long) raft_term(r),
              (unsigned long long) raft_last_index(r), (unsigned long long) n->told_durable,
              (unsigned long long) raft_commit(r),
              (unsigned long long) replica_applied(n->replica));
}

void checker_node(struct world *w, struct sim_node *n) {
    const struct raft *r = replica_raft(n->replica);
    uint64_t applied = replica_applied(n->replica);

    if (w->failed)
        return;
    check_monotonic(w, n);
    check_disk_stall(w, n);
    check_log(w, n);
    if (w->failed || w->no_memory)
        return;
    check_committed(w, n);
    check_leader(w, n);
    checker_members(w, n);
    check_install(w, n, applied);
    check_backlog(w, n);
    checker_model_committed(w);
    if (applied != n->seen_applied) {
        check_digest(w, n);
        checker_jobs(w, n);
        checker_schedules(w, n, false);
        checker_model_node(w, n);
    }
    tell_log(w, n);
    n->seen_leader = raft_role(r) == RAFT_LEADER;
    n->seen_term = raft_term(r);
    n->seen_commit = raft_commit(r);
    n->seen_applied = applied;
}

/* R8: its one vote of the term it comes back in is the one it gave. */
static void check_vote_kept(struct world *w, struct sim_node *n) {
    const struct raft *r = replica_raft(n->replica);
    uint64_t gave =
        (uint64_t) (uintptr_t) u64map_get(&w->checker.votes, raft_term(r) << 8 | n->slot) >> 1;

    if (gave != 0 && raft_vote(r) != gave && !n->wiped)
        sim_fail(w, "node %u comes back in term %llu with its vote for %llu, it gave it to %llu",
                 n->slot + 1, (unsigned long long) raft_term(r), (unsigned long long) raft_vote(r),
                 (unsigned long long) gave);
}

/* R7, R13: a node that comes back knows the terms it spoke in and has what it acknowledged. */
void checker_restarted(struct world *w, struct sim_node *n) {
    const struct raft *r = replica_raft(n->replica);
    const struct raft_entry *e = raft_entry_at(r, n->acked_index);

    if (raft_term(r) < n->sent_term && !n->wiped)
        sim_fail(w, "node %u comes back in term %llu after it had spoken in %llu", n->slot + 1,
                 (unsigned long long) raft_term(r), (unsigned long long) n->sent_term);
    if (!n->wiped && (raft_last_index(r) < n->acked_index || (e && e->term != n->acked_term)) &&
        !atlas_excuses(w, n))
        sim_fail(w,
                 "node %u comes back with %llu entries after it had acknowledged %llu of term "
                 "%llu",
                 n->slot + 1, (unsigned long long) raft_last_index(r),
                 (unsigned long long) n->acked_index, (unsigned long long) n->acked_term);
    if (replica_applied(n->replica) < raft_compacted_index(r))
        sim_fail(w, "node %u comes back with the state of %llu, its log begins after %llu",
                 n->slot + 1, (unsigned long long) replica_applied(n->replica),
                 (unsigned long long) raft_compacted_index(r));
    check_vote_kept(w, n);
    if (raft_last_index(r) < n->last_in_memory)
        sim_count(w, SIM_STAT_TAILS_LOST);
    n->seen_term = 0;
    n->seen_commit = 0;
    n->seen_applied = 0;
    n->seen_leader = false;
    n->seen_config_index = 0;
    n->seen_durable = UINT64_MAX;
    n->seen_config_at = w->now_ns;
    n->installing = 0;
    n->chain_last = 0;
    if (n->chain)
        memset(n->chain, 0, n->chain_cap * sizeof(*n->chain));
    n->events_cursor = replica_events_oldest(n->replica);
    n->events_at_ms = 0;
}
