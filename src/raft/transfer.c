/* Leadership transfer.
 *
 * Dissertation 3.10: "1. The prior leader stops accepting new client requests. 2. The prior leader
 * fully updates the target server's log to match its own log. 3. The prior leader sends a
 * TimeoutNow request to the target server. [...] if leadership transfer does not complete after
 * about an election timeout, the prior leader aborts the transfer and resumes". */
#include "raft/raft_internal.h"

/* The reachable voter that has most of the log; the lowest id of equals. 0 = none. */
uint64_t raft_transfer_best(const struct raft *r) {
    const struct raft_config *c = raft_config_current(r);
    const struct raft_peer *best = NULL;

    ASSERT(r->role == RAFT_LEADER);
    ASSERT(r->peers_count == c->count);
    for (size_t i = 0; i < c->count; i++) {
        const struct raft_peer *p = &r->peers[i];

        if (p->id == r->options.id || !(c->members[i].flags & RAFT_MEMBER_VOTER) || !p->contacted ||
            mono_diff_ns(r->now, p->last_contact) >= r->options.election_timeout_min_ns)
            continue;
        if (!best || p->match > best->match)
            best = p;
    }
    return best ? best->id : 0;
}

void raft_transfer_start(struct raft *r, uint64_t to) {
    const struct raft_member *m;

    if (r->role != RAFT_LEADER)
        return;
    if (to == 0)
        to = raft_transfer_best(r);
    m = raft_config_find(raft_config_current(r), to);
    if (!m || !(m->flags & RAFT_MEMBER_VOTER) || to == r->options.id || to == r->transfer_to)
        return;
    ASSERT(raft_progress_find(r, to));
    r->transfer_to = to;
    r->transfer_sent = false;
    raft_lease_void(r);
    r->transfer_deadline = mono_add_ns(r->now, r->options.election_timeout_max_ns);
    raft_transfer_progress(r);
}

void raft_transfer_progress(struct raft *r) {
    const struct raft_peer *p;

    ASSERT(r->role == RAFT_LEADER);
    if (r->transfer_to == 0 || r->transfer_sent)
        return;
    p = raft_progress_find(r, r->transfer_to);
    if (!p) {
        raft_transfer_abort(r);
        return;
    }
    if (p->match < raft_log_last_index(&r->log))
        return;
    ASSERT(p->match == raft_log_last_index(&r->log));
    r->transfer_sent = true;
    /* It may be elected by this message at any later time, past every stickiness. */
    r->lease_floor = UINT64_MAX;
    raft_effects_send(r, (struct raft_message){.type = RAFT_MSG_TIMEOUT_NOW, .to = p->id});
}

void raft_transfer_timeout(struct raft *r) {
    ASSERT(r->role == RAFT_LEADER);
    if (r->transfer_to != 0 && mono_reached(r->now, r->transfer_deadline))
        raft_transfer_abort(r);
}

void raft_transfer_abort(struct raft *r) {
    ASSERT(r);
    r->transfer_to = 0;
    r->transfer_sent = false;
}
