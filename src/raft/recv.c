/* Every received message passes here first: is it sane, and how does its term relate to ours.
 *
 * Figure 2, all servers: "If RPC request or response contains term T > currentTerm: set currentTerm
 * = T, convert to follower". Exceptions: PreVote (9.6) never changes a term, and vote requests do
 * not disturb a live leader (4.2.3). Figure 2, receivers: "Reply false if term < currentTerm". */
#include "raft/raft_internal.h"

static bool message_is_sane(const struct raft *r, const struct raft_message *m) {
    ASSERT(m);
    ASSERT(m->entries || m->entries_count == 0);
    return m->to == r->options.id && m->from != r->options.id && m->from != 0 && m->term != 0 &&
           m->term <= RAFT_TERM_MAX && m->type >= RAFT_MSG_PRE_VOTE_REQ &&
           m->type < RAFT_MSG_TYPE_MAX && m->log_index < UINT64_MAX / 4 &&
           (m->entries_count == 0 || m->type == RAFT_MSG_APPEND_REQ);
}

static bool only_leader_sends(enum raft_message_type type) {
    return type == RAFT_MSG_APPEND_REQ || type == RAFT_MSG_HEARTBEAT_REQ ||
           type == RAFT_MSG_TIMEOUT_NOW;
}

/* True when the message is to be handled further. */
static bool newer_term(struct raft *r, const struct raft_message *m) {
    ASSERT(m->term > r->term);

    if (m->type == RAFT_MSG_PRE_VOTE_REQ)
        return !raft_election_in_lease(r);
    if (m->type == RAFT_MSG_VOTE_REQ && m->context != RAFT_CONTEXT_TRANSFER &&
        (raft_election_in_lease(r) || raft_election_vote_blocked(r)))
        return false;
    if (m->type == RAFT_MSG_PRE_VOTE_RESP && !m->reject)
        return true; /* granted for the term that we asked for, nobody is there yet */
    raft_become_follower(r, m->term, only_leader_sends(m->type) ? m->from : 0);
    return true;
}

/* The sender is behind. A leader, and a candidate of either kind, must learn of our term: otherwise
 * a node that was a candidate alone and now ignores its leader's lower term is stuck for ever
 * (M16, M17, M27). */
static void older_term(struct raft *r, const struct raft_message *m) {
    struct raft_message resp = {.to = m->from, .reject = true, .session = m->session};

    ASSERT(m->term < r->term);
    switch (m->type) {
    case RAFT_MSG_PRE_VOTE_REQ:
        resp.type = RAFT_MSG_PRE_VOTE_RESP;
        break;
    case RAFT_MSG_VOTE_REQ:
        resp.type = RAFT_MSG_VOTE_RESP;
        break;
    case RAFT_MSG_APPEND_REQ:
        resp.type = RAFT_MSG_APPEND_RESP;
        resp.log_index = m->log_index;
        break;
    case RAFT_MSG_HEARTBEAT_REQ:
        resp.type = RAFT_MSG_HEARTBEAT_RESP;
        break;
    case RAFT_MSG_PRE_VOTE_RESP:
    case RAFT_MSG_VOTE_RESP:
    case RAFT_MSG_APPEND_RESP:
    case RAFT_MSG_HEARTBEAT_RESP:
    case RAFT_MSG_TIMEOUT_NOW:
    case RAFT_MSG_READ_INDEX_REQ:
    case RAFT_MSG_READ_INDEX_RESP:
    case RAFT_MSG_SNAPSHOT_RESP:
    case RAFT_MSG_TYPE_MAX:
        return; /* answers to a past that no longer matters (M47) */
    }
    raft_effects_send(r, resp);
}

bool raft_recv_follow(struct raft *r, const struct raft_message *m) {
    ASSERT(m->term == r->term);

    /* Election safety forbids a second leader in a term (M13): such a message is a forgery. */
    if (r->role == RAFT_LEADER || (r->leader != 0 && r->leader != m->from))
        return false;
    /* 5.2: "If the leader's term is at least as large as the candidate's current term, then the
     * candidate recognizes the leader as legitimate and returns to follower state." */
    if (r->role != RAFT_FOLLOWER || r->leader == 0)
        raft_become_follower(r, r->term, m->from);
    r->leader_contact = r->now;
    r->no_vote_before = mono_add_ns(r->now, r->options.election_timeout_min_ns);
    raft_election_reset_timer(r);
    raft_read_index_retry(r);
    ASSERT(r->role == RAFT_FOLLOWER);
    return true;
}

void raft_recv(struct raft *r, const struct raft_message *m) {
    if (!message_is_sane(r, m))
        return;
    if (m->term < r->term) {
        older_term(r, m);
        return;
    }
    if (m->term > r->term && !newer_term(r, m))
        return;

    switch (m->type) {
    case RAFT_MSG_PRE_VOTE_REQ:
        raft_recv_pre_vote_req(r, m);
        break;
    case RAFT_MSG_PRE_VOTE_RESP:
        raft_recv_pre_vote_resp(r, m);
        break;
    case RAFT_MSG_VOTE_REQ:
        raft_recv_vote_req(r, m);
        break;
    case RAFT_MSG_VOTE_RESP:
        raft_recv_vote_resp(r, m);
        break;
    case RAFT_MSG_APPEND_REQ:
        raft_recv_append_req(r, m);
        break;
    case RAFT_MSG_APPEND_RESP:
        raft_recv_append_resp(r, m);
        break;
    case RAFT_MSG_HEARTBEAT_REQ:
        raft_recv_heartbeat_req(r, m);
        break;
    case RAFT_MSG_HEARTBEAT_RESP:
        raft_recv_heartbeat_resp(r, m);
        break;
    case RAFT_MSG_TIMEOUT_NOW:
        raft_recv_timeout_now(r, m);
        break;
    case RAFT_MSG_READ_INDEX_REQ:
        raft_recv_read_index_req(r, m);
        break;
    case RAFT_MSG_READ_INDEX_RESP:
        raft_recv_read_index_resp(r, m);
        break;
    case RAFT_MSG_SNAPSHOT_RESP:
        raft_recv_snapshot_resp(r, m);
        break;
    case RAFT_MSG_TYPE_MAX:
        break;
    }
}
