/* Elections: timers, PreVote, votes, and becoming a follower, candidate or leader.
 *
 *                 timeout                quorum of pre-votes           quorum of votes,
 *                (a voter)                or TIMEOUT_NOW               own one durable
 *   FOLLOWER ----------------> PRE_CANDIDATE --------------> CANDIDATE -----------------> LEADER
 *      ^  ^                      |    ^                       |    |                        |
 *      |  |   leader of the term |    +------- timeout -------+    |                        |
 *      |  +----------------------+                                 |                        |
 *      +-----------------------------------------------------------+------------------------+
 *        newer term; leader of the term (candidate); no quorum heard from (leader)
 *
 * Dissertation 3.4 (election), 9.6 (PreVote), 6.2 (a leader without a quorum steps down). */
#include "raft/raft_internal.h"

void raft_election_reset_timer(struct raft *r) {
    /* 5.2: "election timeouts are chosen randomly from a fixed interval" - drawn anew each time. */
    uint64_t ns =
        rng_range(&r->rng, r->options.election_timeout_min_ns, r->options.election_timeout_max_ns);

    ASSERT(ns >= r->options.election_timeout_min_ns);
    ASSERT(ns <= r->options.election_timeout_max_ns);
    r->election_deadline = mono_add_ns(r->now, ns);
}

bool raft_election_in_lease(const struct raft *r) {
    ASSERT(r->role != RAFT_LEADER || r->leader == r->options.id);
    if (r->role == RAFT_LEADER)
        return true; /* CheckQuorum ends it */
    /* Dissertation 4.2.3: "if a server receives a RequestVote request within the minimum election
     * timeout of hearing from a current leader, it does not update its term or grant its vote." */
    return r->leader != 0 &&
           mono_diff_ns(r->now, r->leader_contact) < r->options.election_timeout_min_ns;
}

bool raft_election_vote_blocked(const struct raft *r) {
    /* The stickiness above forgets: with a restart, with a newer term. A lease (lease.c) counts on
     * more: whoever has answered its round votes for nobody else for the whole minimum timeout. */
    return r->options.lease_reads && r->role != RAFT_LEADER &&
           !mono_reached(r->now, r->no_vote_before);
}

bool raft_election_is_blank(const struct raft *r) {
    return raft_config_current(r)->count == 0;
}

bool raft_election_up_to_date(const struct raft *r, uint64_t index, uint64_t term) {
    uint64_t last_term = raft_log_last_term(&r->log);

    /* 5.4.1: "If the logs have last entries with different terms, then the log with the later term
     * is more up-to-date. If the logs end with the same term, then whichever log is longer." The
     * pair is ordered, not its parts (M38). */
    if (term != last_term)
        return term > last_term;
    return index >= raft_log_last_index(&r->log);
}

void raft_become_follower(struct raft *r, uint64_t term, uint64_t leader) {
    ASSERT(term >= r->term);
    ASSERT(leader != r->options.id);

    raft_read_index_fail_all(r);
    raft_transfer_abort(r);
    if (term > r->term)
        raft_effects_hard_state(r, term, 0);
    r->role = RAFT_FOLLOWER;
    r->leader = leader;
    r->leader_contact = r->now;
    r->peers_count = 0;
    r->heartbeat_due = false;
    raft_election_reset_timer(r);
}

/* 5.2, Leaders: "Upon election: send initial empty AppendEntries RPCs (heartbeat) to each server".
 * 8: "each leader commit a blank no-op entry into the log at the start of its term." Here the no-op
 * is the first AppendEntries. */
static void become_leader(struct raft *r) {
    ASSERT(r->role == RAFT_CANDIDATE);
    ASSERT(r->hard_state_seq <= r->durable_seq && !r->hard_state_dirty);

    r->role = RAFT_LEADER;
    r->leader = r->options.id;
    r->peers_count = 0;
    r->read_round = 0;
    r->lease_floor = 0;
    for (size_t i = 0; i < RAFT_ROUNDS_MAX; i++)
        r->rounds[i] = (struct raft_round){0};
    raft_progress_rebuild(r);
    r->term_first_index = raft_log_last_index(&r->log) + 1;
    r->heartbeat_due = false;
    r->heartbeat_deadline = mono_add_ns(r->now, r->options.heartbeat_interval_ns);
    r->quorum_deadline = mono_add_ns(r->now, r->options.election_timeout_max_ns);
    raft_replication_append(r, (struct raft_entry){.type = RAFT_ENTRY_NOOP});
}

static bool ballots_won(const struct raft *r) {
    const struct raft_config *c = raft_config_current(r);
    uint64_t granted[RAFT_NODES_MAX];

    ASSERT(c->count > 0);
    for (size_t i = 0; i < c->count; i++)
        granted[i] = r->ballots[i] == RAFT_BALLOT_GRANTED ? 1 : 0;
    return raft_config_quorum_value(c, granted) == 1;
}

void raft_election_ballot(struct raft *r, uint64_t from, bool granted) {
    const struct raft_config *c = raft_config_current(r);

    ASSERT(r->role == RAFT_PRE_CANDIDATE || r->role == RAFT_CANDIDATE);

    for (size_t i = 0; i < c->count; i++) {
        if (c->members[i].id != from || r->ballots[i] != RAFT_BALLOT_NONE)
            continue;
        r->ballots[i] = granted ? RAFT_BALLOT_GRANTED : RAFT_BALLOT_REJECTED;
    }
    if (!ballots_won(r))
        return;
    if (r->role == RAFT_PRE_CANDIDATE)
        raft_election_campaign(r, false);
    else if (r->hard_state_seq <= r->durable_seq && !r->hard_state_dirty)
        become_leader(r);
}

/* Ask all other voters of both halves. */
static void request_votes(struct raft *r, struct raft_message m) {
    const struct raft_config *c = raft_config_current(r);

    ASSERT(m.type == RAFT_MSG_PRE_VOTE_REQ || m.type == RAFT_MSG_VOTE_REQ);
    m.log_index = raft_log_last_index(&r->log);
    m.log_term = raft_log_last_term(&r->log);
    for (size_t i = 0; i < c->count; i++) {
        if (!raft_member_votes(&c->members[i]) || c->members[i].id == r->options.id)
            continue;
        m.to = c->members[i].id;
        raft_effects_send(r, m);
    }
}

static void start_round(struct raft *r, enum raft_role role) {
    ASSERT(r->role != RAFT_LEADER);
    ASSERT(raft_config_may_campaign(r));

    raft_read_index_fail_all(r);
    r->role = role;
    r->leader = 0;
    for (size_t i = 0; i < RAFT_NODES_MAX; i++)
        r->ballots[i] = RAFT_BALLOT_NONE;
    raft_election_reset_timer(r);
}

/* 9.6: "a candidate only increments its term if it first learns from a majority of the cluster that
 * they would be willing to grant the candidate their votes". Nothing is written: neither term nor
 * vote change (M15). */
void raft_election_pre_campaign(struct raft *r) {
    start_round(r, RAFT_PRE_CANDIDATE);
    request_votes(r, (struct raft_message){.type = RAFT_MSG_PRE_VOTE_REQ, .term = r->term + 1});
    raft_election_ballot(r, r->options.id, true);
}

/* 5.2: "To begin an election, a follower increments its current term and transitions to candidate
 * state. It then votes for itself and issues RequestVote RPCs." The requests wait for the batch
 * that holds term, vote and every entry they advertise (M18, M45); the own vote counts from then
 * on. */
void raft_election_campaign(struct raft *r, bool transfer) {
    start_round(r, RAFT_CANDIDATE);
    raft_effects_hard_state(r, r->term + 1, r->options.id);
    request_votes(r, (struct raft_message){.type = RAFT_MSG_VOTE_REQ,
                                           .context = transfer ? RAFT_CONTEXT_TRANSFER : 0,
                                           .after_seq = RAFT_AFTER_NEWEST});
}

void raft_election_persisted(struct raft *r) {
    if (r->role != RAFT_CANDIDATE || r->hard_state_seq > r->durable_seq)
        return;
    ASSERT(r->vote == r->options.id);
    raft_election_ballot(r, r->options.id, true);
}

void raft_election_timeout(struct raft *r) {
    ASSERT(r->role != RAFT_LEADER);
    if (!mono_reached(r->now, r->election_deadline))
        return;
    if (r->role == RAFT_CANDIDATE && r->hard_state_seq > r->durable_seq) {
        /* Nobody has been asked yet: the requests wait for the disk. Another term would only move
         * them further away. */
        raft_election_reset_timer(r);
        return;
    }
    if (raft_config_may_campaign(r)) {
        /* A leader whose disk hangs would only have to hand over again (W17). */
        if (raft_disk_stalled(r))
            raft_become_follower(r, r->term, 0);
        else
            raft_election_pre_campaign(r);
        return;
    }
    /* A learner or a stranger only notices that the leader is gone. */
    raft_read_index_fail_all(r);
    r->leader = 0;
    r->election_deadline = MONO_NEVER;
}
