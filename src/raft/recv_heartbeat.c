/* Heartbeats: sign of life both ways, the commit index for idle followers, and the rounds of
 * ReadIndex.
 *
 * 5.2: leaders "send periodic heartbeats to all followers in order to maintain their authority".
 * They are messages of their own, so that they wait neither for the disk nor for the window. */
#include "raft/raft_internal.h"

void raft_recv_heartbeat_req(struct raft *r, const struct raft_message *m) {
    ASSERT(m->type == RAFT_MSG_HEARTBEAT_REQ);
    ASSERT(m->term == r->term);

    if (!raft_recv_follow(r, m))
        return;
    /* The leader sends min(match, commit): up to there this log equals its own. */
    if (m->commit <= raft_log_last_index(&r->log))
        raft_replication_set_commit(r, m->commit);
    raft_effects_send(r, (struct raft_message){.type = RAFT_MSG_HEARTBEAT_RESP,
                                               .to = m->from,
                                               .context = m->context,
                                               .session = m->session});
}

/* Lost messages heal here: the link works, so what has been unanswered for long is asked again. */
static void revive(struct raft *r, struct raft_peer *p) {
    uint64_t interval = r->options.heartbeat_interval_ns;

    ASSERT(r->role == RAFT_LEADER);
    ASSERT(p->next > p->match);

    switch (p->state) {
    case RAFT_PROBE:
        if (p->probe_sent && !p->load_pending && mono_diff_ns(r->now, p->probe_at) >= interval)
            p->probe_sent = false;
        break;
    case RAFT_REPLICATE:
        /* Also an empty request, which moves no index, holds a place in the window. */
        if (p->inflight_count > 0 && mono_diff_ns(r->now, p->moved_at) >= 2 * interval) {
            p->stalled = true;
            p->moved_at = r->now;
        }
        break;
    case RAFT_SNAPSHOT:
        /* The follower may have the snapshot and its answer got lost: ask now and then. */
        if (mono_diff_ns(r->now, p->probe_at) >= r->options.election_timeout_max_ns) {
            p->stalled = true;
            p->probe_at = r->now;
        }
        break;
    }
}

void raft_recv_heartbeat_resp(struct raft *r, const struct raft_message *m) {
    struct raft_peer *p;

    ASSERT(m->type == RAFT_MSG_HEARTBEAT_RESP);
    ASSERT(m->term == r->term);

    if (r->role != RAFT_LEADER)
        return;
    p = raft_progress_find(r, m->from);
    if (!p || m->session != p->session || m->reject)
        return;
    raft_progress_contact(r, p);
    if (m->context > p->acked_round && m->context <= r->read_round) {
        p->acked_round = m->context;
        raft_read_index_progress(r);
    }
    revive(r, p);
}
