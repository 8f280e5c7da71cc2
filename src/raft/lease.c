/* Reads without a round, for those who trust their clocks (options.lease_reads).
 *
 * Dissertation 6.4.1: "the leader would use the normal heartbeat mechanism to maintain a lease.
 * Once the leader's heartbeats were acknowledged by a majority of the cluster, the leader would
 * extend its lease to start + election timeout / clock drift bound". Start is when the round was
 * begun, not when it was answered (M40): from then on at the earliest whoever answered votes for
 * nobody else for the minimum election timeout (raft_election_vote_blocked), so nobody else can
 * have been elected. What goes past that, a vote for a transfer's target, ends leases for the whole
 * leadership once its message is out; a change of the configuration asks for a new round. */
#include "raft/raft_internal.h"

#define DRIFT_SCALE 1000000ULL

void raft_lease_round(struct raft *r) {
    ASSERT(r->role == RAFT_LEADER);
    ASSERT(r->read_round > 0);
    r->rounds[r->read_round % RAFT_ROUNDS_MAX] =
        (struct raft_round){.round = r->read_round, .begun = r->now};
}

void raft_lease_void(struct raft *r) {
    ASSERT(r->role == RAFT_LEADER);
    r->lease_floor = MAX(r->lease_floor, r->read_round);
}

bool raft_lease_valid(const struct raft *r, uint64_t confirmed) {
    uint64_t timeout = r->options.election_timeout_min_ns;
    uint64_t drift = timeout / DRIFT_SCALE * r->options.lease_drift_ppm +
                     timeout % DRIFT_SCALE * r->options.lease_drift_ppm / DRIFT_SCALE;
    const struct raft_round *round = &r->rounds[confirmed % RAFT_ROUNDS_MAX];

    ASSERT(r->role == RAFT_LEADER);
    ASSERT(drift < timeout);
    return r->options.lease_reads && r->transfer_to == 0 && confirmed > r->lease_floor &&
           round->round == confirmed && mono_diff_ns(r->now, round->begun) < timeout - drift;
}
