/* Snapshots as far as consensus is concerned: what is gone from the log, and a log that begins
 * anew.
 *
 * Section 7. The state itself travels outside of raft: a leader asks its caller for a transfer
 * (progress.c, RAFT_SNAPSHOT), a follower's caller comes back with a whole, durable snapshot. The
 * switch to it is part of a persist batch, so that what is in flight to the old log completes
 * before it, in order, and counts for nothing after it (M21, M48, M49). */
#include "raft/raft_internal.h"

uint64_t raft_snapshot_pending(const struct raft *r) {
    ASSERT(r->batches_head + r->batches_count <= r->batches_cap);
    for (size_t i = r->batches_count; i > 0; i--) {
        uint64_t installed = r->batches[r->batches_head + i - 1].installed;

        if (installed > 0)
            return installed;
    }
    return r->effects.install_index; /* its batch is numbered at the end of the step */
}

void raft_snapshot_compacted(struct raft *r, uint64_t index, uint64_t term) {
    uint64_t known;

    ASSERT(index > 0);
    ASSERT(term > 0);
    if (index <= r->compacted_index)
        return;
    ASSERT(index <= r->applied); /* R24 */
    ASSERT(!raft_log_term(&r->log, index, &known) || known == term);
    r->compacted_index = index;
    r->compacted_term = term;
    if (index > r->log.prev_index)
        raft_log_trim(&r->log, index);
}

void raft_snapshot_failed(struct raft *r, uint64_t peer) {
    struct raft_peer *p;

    if (r->role != RAFT_LEADER)
        return;
    p = raft_progress_find(r, peer);
    if (!p || p->state != RAFT_SNAPSHOT)
        return;
    raft_progress_to_probe(p);
    /* Not at once again: the next answer to a heartbeat probes, and a refusal of that asks for a
     * snapshot. An installed one whose answer was lost is found out that way, too. */
    p->probe_sent = true;
    p->probe_at = r->now;
    ASSERT(p->next > p->match);
}

static bool install_is_sane(const struct raft *r, const struct raft_event *ev) {
    ASSERT(ev->type == RAFT_EV_INSTALL);
    return ev->install.leader != 0 && ev->install.leader != r->options.id && ev->install.term > 0 &&
           ev->install.term <= RAFT_TERM_MAX && ev->install.index > 0 &&
           ev->install.index < UINT64_MAX / 4 && ev->install.index_term > 0 &&
           ev->install.index_term <= ev->install.term && ev->install.config &&
           raft_config_valid(ev->install.config, NULL) &&
           ev->install.config_index <= ev->install.index;
}

static void answer(struct raft *r, const struct raft_event *ev, bool reject, uint64_t match) {
    ASSERT(reject || match <= raft_log_last_index(&r->log));
    /* Up to the commit index this log is the leader's; the newest batch makes all of it durable. */
    raft_effects_send(r, (struct raft_message){.type = RAFT_MSG_SNAPSHOT_RESP,
                                               .to = ev->install.leader,
                                               .reject = reject,
                                               .match = match,
                                               .session = ev->install.session,
                                               .after_seq = RAFT_AFTER_NEWEST});
}

void raft_snapshot_install(struct raft *r, const struct raft_event *ev) {
    struct raft_message from = {.from = ev->install.leader, .term = ev->install.term};
    uint64_t index = ev->install.index;
    uint64_t term;

    if (!install_is_sane(r, ev))
        return;
    if (ev->install.term < r->term) {
        answer(r, ev, true, 0); /* that leader is none any more, and may not know it (M27) */
        return;
    }
    if (ev->install.term > r->term)
        raft_become_follower(r, ev->install.term, ev->install.leader);
    if (!raft_recv_follow(r, &from))
        return;
    if (index <= r->commit) {
        answer(r, ev, false, r->commit);
        return;
    }
    /* Figure 13: "If existing log entry has same index and term as snapshot's last included entry,
     * retain log entries following it". They may have been acknowledged and counted. An entry of
     * another term there is in nobody's way, however high its term (M48). */
    if (raft_log_term(&r->log, index, &term) && term == ev->install.index_term) {
        raft_replication_set_commit(r, index);
        answer(r, ev, false, index);
        return;
    }
    raft_effects_install(r, index, ev->install.index_term);
    raft_config_replace(r, ev->install.config_index, ev->install.config);
    answer(r, ev, false, index);
}
