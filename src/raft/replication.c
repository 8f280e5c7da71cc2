/* The leader: appending, replicating, committing, CheckQuorum.
 *
 * Section 5.3 (log replication), 5.4.2 (commit only own-term entries by counting), dissertation
 * 10.2.1 (writing to the leader's disk in parallel) and 10.2.2 (batching and pipelining). */
#include "raft/raft_internal.h"

#include <errno.h>

uint64_t raft_replication_uncommitted(const struct raft *r) {
    ASSERT(raft_log_last_index(&r->log) >= r->commit);
    return raft_log_last_index(&r->log) - r->commit;
}

/* 5.3: "The leader appends the command to its log as a new entry". CONFIG entries are in force at
 * once (section 6). */
void raft_replication_append(struct raft *r, struct raft_entry e) {
    int rc;

    ASSERT(r->role == RAFT_LEADER);
    ASSERT(e.type == RAFT_ENTRY_NOOP || e.data);

    e.term = r->term;
    e.index = raft_log_last_index(&r->log) + 1;
    rc = raft_log_append(&r->log, &e);
    if (rc < 0) {
        raft_fail(r, rc);
        return;
    }
    if (r->append_first == 0)
        r->append_first = e.index;
    if (e.type == RAFT_ENTRY_CONFIG) {
        struct raft_config c;

        rc = raft_config_decode(bytes_slice(e.data), &c, NULL);
        if (rc < 0)
            raft_fail(r, rc == -ENOMEM ? rc : ERR_CORRUPT);
        else
            raft_config_push(r, e.index, &c);
    }
}

/* What the bounds say. Nothing uncommitted: one batch of any size goes, or it never could. */
static bool propose_fits(const struct raft *r, const struct raft_entry *entries, size_t count) {
    uint64_t uncommitted = raft_replication_uncommitted(r);
    uint64_t bytes;

    ASSERT(count > 0);
    if (uncommitted == 0)
        return true;
    bytes = raft_log_bytes(&r->log, r->commit, raft_log_last_index(&r->log));
    for (size_t i = 0; i < count; i++)
        bytes += raft_entry_bytes(&entries[i]);
    return uncommitted + count <= r->options.uncommitted_entries_max &&
           bytes <= r->options.uncommitted_bytes_max;
}

/* Each new voter has the configuration in force in its log, so it knows what it takes part in: a
 * node without any grants no vote, and voters like that would be a majority that can elect nobody.
 */
static bool new_voters_ready(struct raft *r, const struct raft_config *to) {
    const struct raft_config *from = raft_config_current(r);

    ASSERT(r->role == RAFT_LEADER);
    for (size_t i = 0; i < to->count; i++) {
        const struct raft_member *was = raft_config_find(from, to->members[i].id);
        const struct raft_peer *p;

        if (!(to->members[i].flags & RAFT_MEMBER_VOTER) || to->members[i].id == r->options.id ||
            (was && (was->flags & RAFT_MEMBER_VOTER)))
            continue;
        p = raft_progress_find(r, to->members[i].id);
        if (!p || p->match < r->configs[r->configs_count - 1].index)
            return false;
    }
    return true;
}

/* At most one configuration change at a time, and only by a leader that has committed an entry of
 * its term (M26). Until then the proposal has to come again. A change that may not follow the
 * present configuration is refused for good. */
static enum raft_propose_result propose_config(struct raft *r, const struct raft_entry *entries,
                                               size_t count) {
    const struct raft_entry *change = NULL;
    struct raft_config to;
    int rc;

    ASSERT(r->role == RAFT_LEADER);
    for (size_t i = 0; i < count; i++) {
        if (entries[i].type != RAFT_ENTRY_CONFIG)
            continue;
        if (change)
            return RAFT_PROPOSE_BAD_CONFIG;
        change = &entries[i];
    }
    if (!change)
        return RAFT_PROPOSE_ACCEPTED;
    if (!raft_leader_ready(r) || r->configs[r->configs_count - 1].index > r->commit)
        return RAFT_PROPOSE_FULL;
    rc = raft_config_decode(bytes_slice(change->data), &to, NULL);
    if (rc == -ENOMEM) {
        raft_fail(r, rc);
        return RAFT_PROPOSE_NONE;
    }
    if (rc < 0 || raft_config_check_change(raft_config_current(r), &to, NULL) < 0)
        return RAFT_PROPOSE_BAD_CONFIG;
    return new_voters_ready(r, &to) ? RAFT_PROPOSE_ACCEPTED : RAFT_PROPOSE_FULL;
}

void raft_replication_propose(struct raft *r, const struct raft_entry *entries, size_t count) {
    ASSERT(entries);
    ASSERT(count > 0);

    if (r->role != RAFT_LEADER) {
        r->effects.propose_result = RAFT_PROPOSE_NOT_LEADER;
        return;
    }
    if (r->transfer_to != 0) {
        r->effects.propose_result = RAFT_PROPOSE_TRANSFERRING;
        return;
    }
    r->effects.propose_result = propose_config(r, entries, count);
    if (r->effects.propose_result == RAFT_PROPOSE_ACCEPTED && !propose_fits(r, entries, count))
        r->effects.propose_result = RAFT_PROPOSE_FULL;
    if (r->effects.propose_result != RAFT_PROPOSE_ACCEPTED)
        return;
    ASSERT(raft_replication_uncommitted(r) == 0 ||
           raft_replication_uncommitted(r) + count <= r->options.uncommitted_entries_max); /* M50 */
    r->effects.propose_first_index = raft_log_last_index(&r->log) + 1;
    r->effects.propose_term = r->term;
    for (size_t i = 0; i < count; i++)
        raft_replication_append(r, entries[i]);
}

void raft_replication_set_commit(struct raft *r, uint64_t commit) {
    ASSERT(commit <= raft_log_last_index(&r->log));
    if (commit <= r->commit)
        return; /* never backwards (M2) */
    r->commit = commit;
    raft_config_settle(r);
}

/* Section 6: a leader outside the new configuration "steps down once it has committed" it. The
 * voter that has most of the log need not wait for its timer (dissertation 4.2.2: such a leader
 * hands over). It has all that is committed, or another one has not and refuses it its vote. */
static void leave_office(struct raft *r) {
    uint64_t to = raft_transfer_best(r);

    ASSERT(r->role == RAFT_LEADER);
    if (to != 0)
        raft_effects_send(r, (struct raft_message){.type = RAFT_MSG_TIMEOUT_NOW, .to = to});
    raft_become_follower(r, r->term, 0);
}

/* Figure 2: "If there exists an N such that N > commitIndex, a majority of matchIndex[i] >= N, and
 * log[N].term == currentTerm: set commitIndex = N". Every member's own match is counted (M42), the
 * leader's is what its disk has (M31), and an older term's entry is never counted (M1, figure 8).
 */
void raft_replication_maybe_commit(struct raft *r) {
    const struct raft_config *c = raft_config_current(r);
    uint64_t matches[RAFT_NODES_MAX];
    uint64_t n;
    uint64_t term;
    bool was_ready = raft_leader_ready(r);

    ASSERT(r->role == RAFT_LEADER);
    ASSERT(r->peers_count == c->count);

    for (size_t i = 0; i < c->count; i++)
        matches[i] = r->peers[i].id == r->options.id ? r->durable_index : r->peers[i].match;
    n = raft_config_quorum_value(c, matches);
    if (n <= r->commit || !raft_log_term(&r->log, n, &term) || term != r->term)
        return;
    raft_replication_set_commit(r, n);
    if (!was_ready && raft_leader_ready(r))
        raft_read_index_ready(r);
    if (!raft_config_is_voter(raft_config_current(r), r->options.id) &&
        r->configs[r->configs_count - 1].index <= r->commit)
        leave_office(r);
}

void raft_replication_advanced(struct raft *r, struct raft_peer *p) {
    ASSERT(r->role == RAFT_LEADER);
    /* Whatever filled the hole: a transfer that is still under way is not needed any more. */
    if (p->state == RAFT_SNAPSHOT && p->match >= r->compacted_index)
        raft_progress_to_replicate(r, p);
    raft_replication_maybe_commit(r);
    if (r->role == RAFT_LEADER)
        raft_transfer_progress(r);
}

/* Dissertation 6.2: "a leader steps down if an election timeout elapses without a successful round
 * of heartbeats to a majority of its cluster". */
void raft_replication_check_quorum(struct raft *r) {
    const struct raft_config *c = raft_config_current(r);
    uint64_t contacts[RAFT_NODES_MAX];
    struct mono limit;

    ASSERT(r->role == RAFT_LEADER);
    if (!mono_reached(r->now, r->quorum_deadline))
        return;
    for (size_t i = 0; i < c->count; i++)
        contacts[i] = r->peers[i].id == r->options.id ? r->now.ns : r->peers[i].last_contact.ns;
    limit = mono_add_ns((struct mono){.ns = raft_config_quorum_value(c, contacts)},
                        r->options.election_timeout_max_ns);
    if (mono_reached(r->now, limit))
        raft_become_follower(r, r->term, 0);
    else
        r->quorum_deadline = limit;
}

void raft_replication_timeout(struct raft *r) {
    ASSERT(r->role == RAFT_LEADER);
    raft_replication_check_quorum(r);
    if (r->role != RAFT_LEADER)
        return;
    raft_transfer_timeout(r);
    raft_disk_stall_timeout(r);
    if (r->role != RAFT_LEADER)
        return;
    if (mono_reached(r->now, r->heartbeat_deadline)) {
        raft_read_index_join_heartbeat(r);
        r->heartbeat_due = true;
    }
}

void raft_replication_unreachable(struct raft *r, uint64_t id) {
    struct raft_peer *p;

    if (r->role != RAFT_LEADER)
        return;
    p = raft_progress_find(r, id);
    if (!p || p->state == RAFT_SNAPSHOT)
        return;
    /* A process that comes back may have lost what it had acknowledged (its last batch was damaged
     * and cut as a torn tail), so nothing old is believed: match begins at 0 in a new session. The
     * commit index never moves back, and one probe brings match back where it was. */
    raft_progress_renew(r, p);
    /* Nothing is sent into a dead link; its return or the next heartbeat answer starts probing. */
    p->probe_sent = true;
    p->probe_at = (struct mono){0};
}

/* The first thing on a new link is what is missing: when links die often, no heartbeat and its
 * answer, and an append and its answer after that, fit into one life. */
void raft_replication_reachable(struct raft *r, uint64_t id) {
    struct raft_peer *p;

    if (r->role != RAFT_LEADER)
        return;
    p = raft_progress_find(r, id);
    if (p && p->state == RAFT_PROBE && !p->load_pending)
        p->probe_sent = false;
}

static void send_append(struct raft *r, struct raft_peer *p, uint64_t prev_term,
                        const struct raft_entry *entries, size_t count, size_t bytes) {
    uint64_t prev = p->next - 1;

    ASSERT(count == 0 || entries[0].index == p->next);
    ASSERT(count <= 1 || bytes <= r->options.append_bytes_max); /* M50 */
    ASSERT(prev == 0 || prev_term > 0);

    raft_effects_send(r,
                      (struct raft_message){
                          .type = RAFT_MSG_APPEND_REQ,
                          .to = p->id,
                          .log_index = prev,
                          .log_term = prev_term,
                          .commit = r->commit,
                          .session = p->session,
                          /* The array is not const because a receiver's message owns one; the
                           * contract of raft.h forbids the caller to touch these. */
                          .entries = count > 0 ? (struct raft_entry *) (uintptr_t) entries : NULL,
                          .entries_count = count,
                      });
    p->sent = true;
    p->commit_sent = MAX(p->commit_sent, MIN(r->commit, prev + count));
    if (p->state == RAFT_REPLICATE) {
        raft_progress_sent(r, p, prev + count, bytes);
    } else {
        p->probe_sent = true;
        p->probe_at = r->now;
    }
}

/* An answer is missing: an empty request at the optimistic end makes the follower either confirm
 * everything or refuse and say where to go on. It bypasses the window (which may be full of lost
 * messages), at most once in two heartbeat intervals (M8, M33). False when that place is out of
 * memory: the peer is probed where it is known to be. */
static bool send_stall_probe(struct raft *r, struct raft_peer *p) {
    uint64_t prev_term;

    ASSERT(p->state == RAFT_REPLICATE);
    p->stalled = false;
    if (!raft_log_term(&r->log, p->next - 1, &prev_term)) {
        raft_progress_to_probe(p);
        return false;
    }
    raft_effects_send(r, (struct raft_message){.type = RAFT_MSG_APPEND_REQ,
                                               .to = p->id,
                                               .log_index = p->next - 1,
                                               .log_term = prev_term,
                                               .commit = r->commit,
                                               .session = p->session});
    return true;
}

/* Accepted by a follower that has the snapshot, refused (and the refusal ignored) by one that has
 * not. */
static void send_snapshot_probe(struct raft *r, struct raft_peer *p) {
    ASSERT(p->state == RAFT_SNAPSHOT);
    ASSERT(r->compacted_index > 0);
    p->stalled = false;
    raft_effects_send(r, (struct raft_message){.type = RAFT_MSG_APPEND_REQ,
                                               .to = p->id,
                                               .log_index = r->compacted_index,
                                               .log_term = r->compacted_term,
                                               .commit = r->commit,
                                               .session = p->session});
}

/* At most one APPEND_REQ a peer and step; what does not fit goes with the next event. */
static void flush_peer(struct raft *r, struct raft_peer *p) {
    uint64_t last = raft_log_last_index(&r->log);
    uint64_t prev_term;
    size_t count = 0;
    size_t bytes = 0;

    ASSERT(p->next <= last + 1);

    if (p->state == RAFT_SNAPSHOT && p->stalled)
        send_snapshot_probe(r, p);
    if (p->state == RAFT_SNAPSHOT || p->load_pending)
        return;
    if (p->stalled && !p->sent && send_stall_probe(r, p))
        return;
    if (p->next <= r->compacted_index) {
        if (p->state == RAFT_PROBE && p->probe_sent)
            return;
        /* Gone, here at least. The follower says whether it needs it (struct raft_peer). */
        raft_progress_to_probe(p);
        p->next = r->compacted_index + 1;
    }
    if (p->state == RAFT_PROBE) {
        if (p->probe_sent)
            return;
    } else {
        uint64_t commit = r->options.lazy_commit ? MIN(r->commit_wanted, r->commit) : r->commit;
        bool news = p->next <= last || MIN(commit, p->next - 1) > p->commit_sent;

        if (!news || raft_progress_window_full(r, p))
            return;
    }
    if (!raft_log_term(&r->log, p->next - 1, &prev_term)) {
        raft_effects_load(r, p->id, p->next);
        p->load_pending = true;
        return;
    }
    if (p->sent)
        return;
    if (p->next <= last) {
        count = raft_log_fit(&r->log, p->next, r->options.append_bytes_max);
        bytes = (size_t) raft_log_bytes(&r->log, p->next - 1, p->next - 1 + count);
    }
    send_append(r, p, prev_term, raft_log_at(&r->log, p->next), count, bytes);
}

void raft_replication_flush(struct raft *r) {
    ASSERT(r->role == RAFT_LEADER);
    ASSERT(r->hard_state_seq <= r->durable_seq && !r->hard_state_dirty);

    for (size_t i = 0; i < r->peers_count; i++) {
        struct raft_peer *p = &r->peers[i];

        if (p->id == r->options.id)
            continue;
        /* The follower may take min(match, commit) as committed without a log check: up to match
         * its log is known to be equal. */
        if (r->heartbeat_due)
            raft_effects_send(r, (struct raft_message){.type = RAFT_MSG_HEARTBEAT_REQ,
                                                       .to = p->id,
                                                       .commit = MIN(p->match, r->commit),
                                                       .context = r->read_round,
                                                       .session = p->session});
        flush_peer(r, p);
        p->sent = false;
    }
    if (r->heartbeat_due) {
        r->heartbeat_due = false;
        r->heartbeat_deadline = mono_add_ns(r->now, r->options.heartbeat_interval_ns);
    }
}

/* How many of the loaded entries may go in one message. They must be what was asked for; only
 * committed ones are ever below memory, so a late answer still tells the truth. */
static size_t loaded_usable(const struct raft *r, const struct raft_entry *entries, size_t count,
                            uint64_t first, size_t *ret_bytes) {
    size_t bytes = 0;
    size_t n = 0;

    ASSERT(ret_bytes);
    ASSERT(count > 0);

    while (n < count && entries[n].index == first + n && entries[n].index <= r->commit &&
           entries[n].term > 0) {
        size_t cost = (size_t) raft_entry_bytes(&entries[n]);

        if (n > 0 && bytes + cost > r->options.append_bytes_max)
            break;
        bytes += cost;
        n++;
    }
    *ret_bytes = bytes;
    return n;
}

/* Tried again when the peer answers a heartbeat, not in a tight loop. */
static void load_failed(struct raft *r, struct raft_peer *p) {
    ASSERT(!p->load_pending);
    if (p->state == RAFT_REPLICATE)
        raft_progress_to_probe(p);
    p->probe_sent = true;
    p->probe_at = r->now;
}

void raft_replication_loaded(struct raft *r, const struct raft_event *ev) {
    const struct raft_entry *entries = ev->loaded.entries;
    uint64_t prev_term = ev->loaded.prev_term;
    struct raft_peer *p;
    size_t bytes;
    size_t n;

    ASSERT(ev->loaded.count == 0 || entries);
    ASSERT(r->loaded_count == 0);

    if (r->role != RAFT_LEADER)
        return;
    p = raft_progress_find(r, ev->loaded.peer);
    if (!p || !p->load_pending)
        return;
    p->load_pending = false;
    if (ev->loaded.count == 0) {
        load_failed(r, p);
        return;
    }
    if (p->next - 1 == r->compacted_index)
        prev_term = r->compacted_term;
    if (entries[0].index != p->next || p->state == RAFT_SNAPSHOT ||
        (p->state == RAFT_PROBE && p->probe_sent))
        return; /* progress has moved meanwhile */
    if (p->next <= r->compacted_index) {
        load_failed(r, p); /* gone meanwhile; maybe the term before it, too */
        return;
    }
    n = loaded_usable(r, entries, ev->loaded.count, p->next, &bytes);
    if (n == 0 || (p->next > 1) != (prev_term > 0)) {
        raft_fail(r, ERR_CORRUPT);
        return;
    }
    if (p->state == RAFT_REPLICATE && raft_progress_window_full(r, p))
        return;
    for (size_t i = 0; i < n; i++) {
        if (!raft_effects_grow(r, (void **) &r->loaded, &r->loaded_cap, r->loaded_count,
                               sizeof(*r->loaded)))
            return;
        r->loaded[r->loaded_count] = entries[i];
        if (entries[i].data)
            (void) bytes_ref(entries[i].data);
        r->loaded_count++;
    }
    send_append(r, p, prev_term, r->loaded, n, bytes);
}
