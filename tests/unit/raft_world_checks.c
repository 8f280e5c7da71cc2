/* What must hold in a world of rafts after every step (reliability.md R1-R19). */
#include "raft_world_internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

void world_check_failed(const struct world *w, const char *what, const char *file, int line) {
    fail_msg("%s: %s:%d: check failed: %s", w->what ? w->what : "?", file, line, what);
}

bool world_entry_equal(const struct raft_entry *a, const struct raft_entry *b) {
    if (a->term != b->term || a->index != b->index || a->type != b->type)
        return false;
    if (!a->data || !b->data)
        return a->data == b->data;
    return a->data->len == b->data->len && memcmp(a->data->data, b->data->data, a->data->len) == 0;
}

/* R3, R5: what one node takes as committed, nobody ever sees otherwise. */
void world_check_commit(struct world *w, struct world_node *n, const struct raft_effects *fx) {
    uint64_t commit = raft_commit(n->raft);

    CHECK(w, commit >= n->commit_seen); /* M2 */
    if (fx->install_index > 0) {        /* R19 */
        CHECK(w, fx->install_index > n->commit_seen && fx->install_index == commit);
        CHECK(w, fx->install_index <= w->committed_count);
        CHECK(w, w->committed[fx->install_index - 1].term == fx->install_term);
        CHECK(w, raft_last_index(n->raft) == commit);
        n->commit_seen = commit;
    }
    for (uint64_t i = n->commit_seen + 1; i <= commit; i++) {
        const struct raft_entry *e = raft_entry_at(n->raft, i);

        CHECK(w, e);
        if (i <= w->committed_count) {
            CHECK(w, world_entry_equal(e, &w->committed[i - 1]));
            continue;
        }
        CHECK(w, i == w->committed_count + 1);
        CHECK(w, i < WORLD_INDEX_MAX);
        w->configs_committed += e->type == RAFT_ENTRY_CONFIG ? 1 : 0;
        w->committed[w->committed_count++] = *e;
        if (e->data)
            (void) bytes_ref(e->data);
    }
    n->commit_seen = commit;
}

/* R1, R4. */
void world_check_leader(struct world *w, struct world_node *n) {
    uint64_t term = raft_term(n->raft);

    CHECK(w, term < WORLD_TERMS_MAX);
    CHECK(w, term >= n->term_seen);
    n->term_seen = term;
    if (raft_role(n->raft) != RAFT_LEADER)
        return;
    if (w->leader_of[term] == n->id)
        return;
    CHECK(w, w->leader_of[term] == 0);
    w->leader_of[term] = n->id;
    w->elections++;
    CHECK(w, raft_last_index(n->raft) > w->committed_count);
    for (uint64_t i = raft_first_in_memory(n->raft); i <= w->committed_count; i++)
        CHECK(w, world_entry_equal(raft_entry_at(n->raft, i), &w->committed[i - 1]));
    CHECK(w, raft_first_in_memory(n->raft) <= w->committed_count + 1);
}

void world_check_peers(struct world *w, struct world_node *n) {
    if (n->match_term != raft_term(n->raft))
        memset(n->match_seen, 0, sizeof(n->match_seen));
    n->match_term = raft_term(n->raft);
    for (uint64_t id = 1; id <= w->count; id++) {
        struct raft_peer_status s;

        if (raft_peer_status(n->raft, id, &s) != 0)
            continue;
        CHECK(w, s.next > s.match);
        if (s.session == n->match_session[id])
            CHECK(w, s.match >= n->match_seen[id]); /* M3 */
        n->match_session[id] = s.session;
        n->match_seen[id] = s.match;
        /* R12: durable there, unless a newer leader had it cut since, or its disk has lost it. */
        CHECK(w, s.match <= world_disk_last(&w->nodes[id]) || s.session == n->forgotten[id] ||
                     w->nodes[id].hard_state.term > raft_term(n->raft));
        CHECK(w, s.inflight_messages <= w->options.inflight_messages_max);
    }
}

/* When a message leaves, what it promises is on disk (R8, R9, R15, W2). */
void world_check_sent(struct world *w, struct world_node *n, const struct raft_message *m) {
    CHECK(w, m->to != m->from && m->term > 0);
    if (m->type != RAFT_MSG_PRE_VOTE_REQ && !(m->type == RAFT_MSG_PRE_VOTE_RESP && !m->reject))
        CHECK(w, m->term <= n->hard_state.term); /* M39 */
    if ((m->type == RAFT_MSG_APPEND_RESP || m->type == RAFT_MSG_SNAPSHOT_RESP) && !m->reject &&
        m->term == n->hard_state.term) {
        /* Later batches may have replaced what an older term's answer acknowledged. */
        if (m->term == raft_term(n->raft))
            CHECK(w, m->match <= world_disk_last(n)); /* M35, M41 */
    }
    if (m->type == RAFT_MSG_VOTE_REQ && m->term == n->hard_state.term) {
        CHECK(w, n->hard_state.vote == n->id);
        CHECK(w, w->vote_of[m->term][n->id] == 0 || w->vote_of[m->term][n->id] == n->id);
        w->vote_of[m->term][n->id] = n->id;
        if (raft_role(n->raft) == RAFT_CANDIDATE && raft_term(n->raft) == m->term)
            CHECK(w, m->log_index <= world_disk_last(n)); /* M18, M45 */
    }
    if (m->type == RAFT_MSG_VOTE_RESP && !m->reject) {
        CHECK(w, w->vote_of[m->term][n->id] == 0 || w->vote_of[m->term][n->id] == m->to);
        w->vote_of[m->term][n->id] = m->to;
        if (m->term == n->hard_state.term)
            CHECK(w, n->hard_state.vote == m->to);
    }
}
