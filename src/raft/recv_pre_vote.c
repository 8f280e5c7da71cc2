/* PreVote (dissertation 9.6).
 *
 * "Servers [...] grant a pre-vote if the candidate's log is up to date and they have not received
 * heartbeats from a valid leader for at least a baseline election timeout." Neither side changes
 * its term or vote, and nothing is written (M15). A grant carries the term that was asked for; a
 * refusal carries our own, so that a candidate with an old term catches up (M16, M17). */
#include "raft/raft_internal.h"

void raft_recv_pre_vote_req(struct raft *r, const struct raft_message *m) {
    bool grant;

    ASSERT(m->type == RAFT_MSG_PRE_VOTE_REQ);
    ASSERT(m->term >= r->term);

    if (raft_election_in_lease(r) || raft_election_vote_blocked(r))
        return;
    /* For a newer term our vote in this one does not matter. */
    grant = m->term > r->term || r->vote == m->from || (r->vote == 0 && r->leader == 0);
    grant = grant && !raft_election_is_blank(r);
    grant = grant && raft_election_up_to_date(r, m->log_index, m->log_term);
    if (!grant && r->term == 0)
        return; /* nothing to say: no message carries term 0 */
    raft_effects_send(r, (struct raft_message){.type = RAFT_MSG_PRE_VOTE_RESP,
                                               .to = m->from,
                                               .term = grant ? m->term : r->term,
                                               .reject = !grant});
}

void raft_recv_pre_vote_resp(struct raft *r, const struct raft_message *m) {
    ASSERT(m->type == RAFT_MSG_PRE_VOTE_RESP);
    ASSERT(m->term >= r->term);

    if (r->role != RAFT_PRE_CANDIDATE)
        return;
    if (m->reject)
        raft_election_ballot(r, m->from, false);
    else if (m->term == r->term + 1)
        raft_election_ballot(r, m->from, true);
}
