/* AppendEntries, the answer at the leader (figure 2, leaders):
 *
 * "If successful: update nextIndex and matchIndex for follower. If AppendEntries fails because of
 * log inconsistency: decrement nextIndex and retry." Duplicated, late and reordered answers change
 * nothing: match only grows (M3), next stays above it (M4), and an answer to another session of the
 * peer is no answer (M29). */
#include "raft/raft_internal.h"

/* Where to go on after a refusal at @m->log_index: the largest index that both logs may share.
 * Skips our entries of terms that the follower cannot have there. */
static uint64_t next_after_reject(const struct raft *r, const struct raft_peer *p,
                                  const struct raft_message *m) {
    uint64_t hint = MIN(m->hint_index, m->log_index - 1);

    ASSERT(m->log_index > 0);
    hint = MIN(hint, raft_log_last_index(&r->log));
    if (hint >= r->log.prev_index)
        hint = raft_log_find_term(&r->log, hint, m->hint_term);
    return MAX(hint, p->match) + 1;
}

/* It refuses what it had acknowledged. Either that refusal is very late, or it has come back with
 * less than it had (its last batch was damaged and cut as a torn tail, W9) and nobody told us that
 * its link was down. Nothing old is believed then, and the same place is asked for again: its next
 * refusal leads to what is left, an acceptance brings match back. Taken for late, it would never be
 * sent what it lacks for as long as this leader leads. */
static void forgotten(struct raft *r, struct raft_peer *p) {
    ASSERT(p->state == RAFT_PROBE);
    ASSERT(p->match > 0);
    raft_progress_renew(r, p);
}

static void rejected(struct raft *r, struct raft_peer *p, const struct raft_message *m) {
    uint64_t next;

    ASSERT(m->reject);
    if (m->log_index == 0 || p->state == RAFT_SNAPSHOT)
        return;
    if (p->state == RAFT_PROBE) {
        if (m->log_index != p->next - 1)
            return; /* not the probe that is out */
        if (m->log_index <= p->match) {
            forgotten(r, p);
            return;
        }
        next = next_after_reject(r, p, m);
        ASSERT(next < p->next);
        p->next = next;
        p->probe_sent = false;
        if (p->next <= r->compacted_index)
            raft_progress_to_snapshot(r, p);
        return;
    }
    if (m->log_index <= p->match)
        return; /* late: newer answers have passed it */
    if (m->log_index >= p->next)
        return; /* never sent */
    raft_progress_to_probe(p);
}

static void accepted(struct raft *r, struct raft_peer *p, const struct raft_message *m) {
    bool news;

    ASSERT(!m->reject);
    if (m->match > raft_log_last_index(&r->log))
        return; /* nonsense */
    news = raft_progress_acked(r, p, m->match);
    if (p->state == RAFT_PROBE && p->probe_sent && m->match == p->match)
        raft_progress_to_replicate(r, p);
    if (news)
        raft_replication_advanced(r, p);
}

void raft_recv_append_resp(struct raft *r, const struct raft_message *m) {
    struct raft_peer *p;

    ASSERT(m->type == RAFT_MSG_APPEND_RESP);
    ASSERT(m->term == r->term);

    if (r->role != RAFT_LEADER)
        return;
    p = raft_progress_find(r, m->from);
    if (!p || m->session != p->session)
        return;
    raft_progress_contact(r, p);
    if (m->reject)
        rejected(r, p, m);
    else
        accepted(r, p, m);
}
