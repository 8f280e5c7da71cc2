/* raft_step(): one event in, its effects out. */
#include "raft/raft_internal.h"

static void on_timeout(struct raft *r) {
    ASSERT(r->failed == 0);
    if (r->role == RAFT_LEADER)
        raft_replication_timeout(r);
    else
        raft_election_timeout(r);
}

static void on_persisted(struct raft *r, uint64_t seq) {
    ASSERT(seq <= r->persist_seq);
    raft_effects_persisted(r, seq);
    raft_election_persisted(r);
    if (r->role == RAFT_LEADER)
        raft_replication_maybe_commit(r);
}

/* Memory keeps some applied entries for slow followers, by number and by bytes: entries are of a
 * few bytes or of megabytes. What is not applied always stays (R24). */
static void trim_applied(struct raft *r) {
    uint64_t kept = r->options.applied_entries_kept;
    uint64_t upto = MAX(r->log.prev_index, r->applied - MIN(r->applied, kept));

    while (upto < r->applied &&
           raft_log_bytes(&r->log, upto, r->applied) > r->options.applied_bytes_kept)
        upto++; /* each is dropped once: constant time an entry */
    if (upto > r->log.prev_index)
        raft_log_trim(&r->log, upto);
}

static void on_applied(struct raft *r, uint64_t index) {
    ASSERT(index <= r->apply_index);
    if (index <= r->applied)
        return;
    r->applied = index;
    trim_applied(r);
    ASSERT(r->log.prev_index <= MAX(r->applied, raft_snapshot_pending(r)));
}

static void on_campaign(struct raft *r) {
    ASSERT(r->failed == 0);
    if (r->role != RAFT_LEADER && raft_config_may_campaign(r) && !raft_election_vote_blocked(r))
        raft_election_campaign(r, false);
}

static void dispatch(struct raft *r, const struct raft_event *ev) {
    ASSERT(ev);
    switch (ev->type) {
    case RAFT_EV_TIMEOUT:
        on_timeout(r);
        break;
    case RAFT_EV_MESSAGE:
        raft_recv(r, ev->message);
        break;
    case RAFT_EV_PERSISTED:
        on_persisted(r, ev->persisted_seq);
        break;
    case RAFT_EV_APPLIED:
        on_applied(r, ev->applied_index);
        break;
    case RAFT_EV_PROPOSE:
        raft_replication_propose(r, ev->propose.entries, ev->propose.count);
        break;
    case RAFT_EV_READ:
        raft_read_index_start(r, ev->read_context);
        break;
    case RAFT_EV_TRANSFER:
        raft_transfer_start(r, ev->transfer_to);
        break;
    case RAFT_EV_LOADED:
        raft_replication_loaded(r, ev);
        break;
    case RAFT_EV_CAMPAIGN:
        on_campaign(r);
        break;
    case RAFT_EV_UNREACHABLE:
        raft_replication_unreachable(r, ev->unreachable);
        break;
    case RAFT_EV_REACHABLE:
        raft_replication_reachable(r, ev->reachable);
        break;
    case RAFT_EV_SPREAD_COMMIT:
        r->commit_wanted = r->commit;
        break;
    case RAFT_EV_COMPACTED:
        raft_snapshot_compacted(r, ev->compacted.index, ev->compacted.term);
        break;
    case RAFT_EV_SNAPSHOT_FAILED:
        raft_snapshot_failed(r, ev->snapshot_failed);
        break;
    case RAFT_EV_INSTALL:
        raft_snapshot_install(r, ev);
        break;
    }
}

int raft_step(struct raft *r, struct mono now, const struct raft_event *ev,
              const struct raft_effects **ret_effects) {
    enum raft_role role;
    uint64_t term;
    uint64_t leader;

    ASSERT(r);
    ASSERT(ev);
    ASSERT(ret_effects);
    ASSERT(now.ns >= r->now.ns);

    r->now = now;
    role = r->role;
    term = r->term;
    leader = r->leader;
    raft_effects_begin(r);
    dispatch(r, ev);
    if (r->failed < 0)
        return r->failed;
    raft_effects_finish(r);
    if (r->failed < 0)
        return r->failed;
    r->effects.role_changed = role != r->role || term != r->term || leader != r->leader;
#ifdef CHRONOS_CHECKS
    raft_check_invariants(r);
#endif
    *ret_effects = &r->effects;
    return 0;
}

struct mono raft_deadline(const struct raft *r) {
    struct mono d;

    ASSERT(r);
    if (r->role != RAFT_LEADER)
        return r->election_deadline;
    /* Nobody to send heartbeats to, nobody to lose. (A leader on its way out is no member.) */
    if (r->peers_count == 0 || (r->peers_count == 1 && r->peers[0].id == r->options.id))
        return MONO_NEVER;
    d = mono_min(r->heartbeat_deadline, r->quorum_deadline);
    d = mono_min(d, raft_disk_stall_deadline(r));
    return r->transfer_to != 0 ? mono_min(d, r->transfer_deadline) : d;
}
