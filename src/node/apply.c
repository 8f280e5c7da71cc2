/* Applying what is committed and durable here, in order, each entry once.
 * Thread: the loop. */
#include "node/replica_internal.h"

#include "base/codec.h"

#include <errno.h>

static void apply_output(struct replica *r, uint64_t index, const struct fsm_output *out) {
    events_add(r, index, out);
    for (size_t i = 0; i < out->events_count; i++) {
        const struct fsm_event *e = &out->events[i];

        sessions_on_event(r, e);
        /* A job became ready, or a slot became free. */
        if (e->to == CHRONOS__V1__JOB_STATE__JOB_STATE_PENDING ||
            (e->from == CHRONOS__V1__JOB_STATE__JOB_STATE_RUNNING && e->to != e->from))
            r->scheduler.dirty = true;
    }
    if (out->workers_changed) {
        leases_workers_changed(r);
        sessions_workers_changed(r);
        r->scheduler.dirty = true;
    }
    ticks_applied(r, out);
    if (out->nodes_changed)
        r->membership.facts_changed = true;
    if (out->workers_changed || out->nodes_changed)
        drain_tell_all(r);
}

static int apply_entry(struct replica *r, const struct raft_entry *e) {
    const struct fsm_output *out = NULL;
    struct slice command = {0};
    uint64_t origin = 0;
    struct errtext why = {0};
    int rc;

    if (e->type == RAFT_ENTRY_COMMAND) {
        struct slice data = bytes_slice(e->data);

        if (data.len < ENTRY_HEADER_BYTES || data.data[0] != ENTRY_HEADER_VERSION) {
            replica_fail(r, ERR_VERSION, "log entry %llu has an unknown header",
                         (unsigned long long) e->index);
            return ERR_VERSION;
        }
        origin = get_le64(data.data + 8);
        command = slice_of(data.data + ENTRY_HEADER_BYTES, data.len - ENTRY_HEADER_BYTES);
    }
    if (e->type == RAFT_ENTRY_CONFIG)
        rc = fsm_apply_config(r->fsm, e->index, e->term, bytes_slice(e->data), &out, &why);
    else
        rc = fsm_apply(r->fsm, e->index, e->term, command, &out, &why);
    if (rc < 0) {
        replica_fail(r, rc, "applying log entry %llu to the state: %s",
                     (unsigned long long) e->index, why.s[0] ? why.s : err_name(rc));
        return rc;
    }
    if (e->term != r->applied_term) {
        r->applied_term = e->term;
        r->scheduler.dirty = true;
        proposals_term_applied(r, e->term, e->index);
    }
    /* A submit taken here is awaited here only; everything else (another node's proposal, an
     * assignment, a result) somebody elsewhere waits for. */
    if (e->type != RAFT_ENTRY_COMMAND || origin >> ORIGIN_COUNTER_BITS != r->o.id ||
        out->kind != CHRONOS__INTERNAL__V1__LOG_COMMAND__BODY_SUBMIT_JOB)
        r->spread_commit = true;
    if (e->type == RAFT_ENTRY_CONFIG) {
        apply_output(r, e->index, out);
        membership_applied(r);
    }
    if (e->type == RAFT_ENTRY_COMMAND) {
        apply_output(r, e->index, out);
        /* Last: the caller's answer may read the state and propose again. */
        proposals_applied(r, origin, e->index, out);
    }
    return 0;
}

void apply_committed(struct replica *r) {
    uint64_t applied = fsm_applied_index(r->fsm);
    struct raft_event ev = {.type = RAFT_EV_APPLIED};
    size_t budget = APPLY_ENTRIES_PER_TURN;

    if (applied >= r->apply_target || snapshots_installing(&r->snapshots))
        return; /* the state is about to be replaced by one further on */
    while (applied < r->apply_target && budget-- > 0) {
        const struct raft_entry *e = raft_entry_at(r->raft, applied + 1);

        ASSERT(e);
        if (apply_entry(r, e) < 0)
            return;
        applied++;
    }
    if (fsm_wants_write_back(r->fsm)) {
        int rc = fsm_write_back(r->fsm);

        /* On a full disk the overlay grows with the log, which has its own end (W5). */
        if (rc < 0 && rc != -ENOSPC && rc != -EDQUOT) {
            replica_fail(r, rc, "state store: %s", err_name(rc));
            return;
        }
    }
    ev.applied_index = applied;
    (void) replica_step(r, &ev, NULL);
    if (r->spread_commit && r->was_leader) {
        const struct raft_event spread = {.type = RAFT_EV_SPREAD_COMMIT};

        (void) replica_step(r, &spread, NULL);
    }
    r->spread_commit = false;
    if (applied < r->apply_target)
        r->wants_turn = true;
}
