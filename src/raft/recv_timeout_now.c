/* TimeoutNow (dissertation 3.10): "This request has the same effect as the target server's election
 * timer firing: the target server starts a new election". PreVote is skipped, and the vote requests
 * say so, because the live leader wants it (4.2.3). They still wait for this node's disk (M18). */
#include "raft/raft_internal.h"

void raft_recv_timeout_now(struct raft *r, const struct raft_message *m) {
    ASSERT(m->type == RAFT_MSG_TIMEOUT_NOW);
    ASSERT(m->term == r->term);

    if (r->role != RAFT_FOLLOWER || m->from != r->leader || !raft_config_may_campaign(r) ||
        raft_disk_stalled(r))
        return;
    raft_election_campaign(r, true);
}
