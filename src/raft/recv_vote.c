/* RequestVote.
 *
 * Figure 2: "1. Reply false if term < currentTerm (recv.c). 2. If votedFor is null or candidateId,
 * and candidate's log is at least as up-to-date as receiver's log, grant vote." The grant leaves
 * after the batch that holds the vote (M39); a leader has voted for itself, so it never grants
 * another in its term (M11). */
#include "raft/raft_internal.h"

void raft_recv_vote_req(struct raft *r, const struct raft_message *m) {
    bool grant;

    ASSERT(m->type == RAFT_MSG_VOTE_REQ);
    ASSERT(m->term == r->term);
    ASSERT(r->role != RAFT_LEADER || r->vote == r->options.id);

    grant = r->vote == m->from || (r->vote == 0 && r->leader == 0);
    grant = grant && !raft_election_is_blank(r);
    grant = grant && raft_election_up_to_date(r, m->log_index, m->log_term);
    grant = grant && (m->context == RAFT_CONTEXT_TRANSFER || !raft_election_vote_blocked(r));
    if (grant) {
        if (r->vote == 0)
            raft_effects_hard_state(r, r->term, m->from);
        /* 5.2: the timer starts anew on "granting vote to candidate". */
        raft_election_reset_timer(r);
    }
    raft_effects_send(r, (struct raft_message){.type = RAFT_MSG_VOTE_RESP,
                                               .to = m->from,
                                               .reject = !grant,
                                               .after_seq = grant ? RAFT_AFTER_NEWEST : 0});
}

void raft_recv_vote_resp(struct raft *r, const struct raft_message *m) {
    ASSERT(m->type == RAFT_MSG_VOTE_RESP);
    ASSERT(m->term == r->term);

    /* Answers of other terms were sorted out before: stale votes never count (M13). */
    if (r->role == RAFT_CANDIDATE)
        raft_election_ballot(r, m->from, !m->reject);
}
