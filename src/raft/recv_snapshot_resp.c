/* The answer to a snapshot: the follower's state, durable there, has reached @match.
 *
 * It counts like an acknowledgement of entries: in its session and term only (M29), and match only
 * grows (M3). A late one that brings nothing new does not end a transfer that is wanted since. */
#include "raft/raft_internal.h"

void raft_recv_snapshot_resp(struct raft *r, const struct raft_message *m) {
    struct raft_peer *p;
    bool news;

    ASSERT(m->type == RAFT_MSG_SNAPSHOT_RESP);
    ASSERT(m->term == r->term);

    if (r->role != RAFT_LEADER)
        return;
    p = raft_progress_find(r, m->from);
    if (!p || m->session != p->session || m->reject || m->match > raft_log_last_index(&r->log))
        return;
    raft_progress_contact(r, p);
    news = raft_progress_acked(r, p, m->match);
    if (!news)
        return;
    /* Match is known, so there is nothing to probe. What follows may be gone by now, when the log
     * has grown faster than the transfer: the next flush finds that out. */
    if (p->state != RAFT_REPLICATE)
        raft_progress_to_replicate(r, p);
    raft_replication_advanced(r, p);
}
