/* What a leader knows of each peer, and the window of what is in flight to it.
 *
 * Section 5.3 keeps nextIndex and matchIndex for each server; the states and the window are those
 * of etcd's raft design (probe, replicate, snapshot), which keep a slow or lost link from being fed
 * without end (mutant M33). */
#include "raft/raft_internal.h"

void raft_progress_reset(struct raft *r, struct raft_peer *p, uint64_t id, uint64_t next) {
    struct raft_inflight *ring = p->inflight;

    ASSERT(next > 0);
    ASSERT(ring);

    /* A new session number makes every answer to an older one recognisable (M29). */
    *p = (struct raft_peer){.id = id,
                            .state = RAFT_PROBE,
                            .next = next,
                            .session = ++r->session_last,
                            .last_contact = r->now,
                            .moved_at = r->now,
                            .inflight = ring};
}

void raft_progress_renew(struct raft *r, struct raft_peer *p) {
    struct mono last_contact = p->last_contact;
    bool contacted = p->contacted;

    raft_progress_reset(r, p, p->id, p->match + 1);
    p->contacted = contacted;
    p->last_contact = last_contact;
}

void raft_progress_rebuild(struct raft *r) {
    const struct raft_config *c = raft_config_current(r);
    struct raft_peer old[RAFT_NODES_MAX];
    bool taken[RAFT_NODES_MAX] = {false};
    bool kept[RAFT_NODES_MAX] = {false};
    size_t old_count = r->peers_count;
    size_t spare = 0;

    ASSERT(r->role == RAFT_LEADER);
    ASSERT(old_count <= RAFT_NODES_MAX);

    for (size_t i = 0; i < RAFT_NODES_MAX; i++)
        old[i] = r->peers[i];
    for (size_t i = 0; i < c->count; i++) {
        for (size_t j = 0; j < old_count; j++) {
            if (old[j].id != c->members[i].id)
                continue;
            r->peers[i] = old[j];
            taken[j] = true;
            kept[i] = true;
        }
    }
    /* The other slots get the rings that are left, whoever had them. */
    for (size_t i = 0; i < RAFT_NODES_MAX; i++) {
        if (kept[i])
            continue;
        while (taken[spare])
            spare++;
        r->peers[i] = old[spare++];
        if (i < c->count)
            raft_progress_reset(r, &r->peers[i], c->members[i].id,
                                raft_log_last_index(&r->log) + 1);
    }
    r->peers_count = c->count;
}

struct raft_peer *raft_progress_find(struct raft *r, uint64_t id) {
    ASSERT(r->peers_count <= RAFT_NODES_MAX);
    for (size_t i = 0; i < r->peers_count; i++) {
        if (r->peers[i].id == id && id != r->options.id)
            return &r->peers[i];
    }
    return NULL;
}

static void window_clear(struct raft_peer *p) {
    ASSERT(p);
    p->inflight_head = 0;
    p->inflight_count = 0;
    p->inflight_bytes = 0;
    p->stalled = false;
}

void raft_progress_to_probe(struct raft_peer *p) {
    ASSERT(p);
    p->state = RAFT_PROBE;
    p->next = p->match + 1;
    p->probe_sent = false;
    window_clear(p);
    ASSERT(p->next > p->match);
}

void raft_progress_to_replicate(struct raft *r, struct raft_peer *p) {
    ASSERT(p);
    ASSERT(p->state != RAFT_REPLICATE);
    p->state = RAFT_REPLICATE;
    p->next = p->match + 1;
    p->probe_sent = false;
    p->moved_at = r->now;
    window_clear(p);
}

void raft_progress_to_snapshot(struct raft *r, struct raft_peer *p) {
    ASSERT(p->state == RAFT_PROBE);
    ASSERT(p->match < r->compacted_index);
    p->state = RAFT_SNAPSHOT;
    p->next = p->match + 1;
    p->probe_sent = false;
    p->probe_at = r->now;
    window_clear(p);
    raft_effects_snapshot(r, p);
}

bool raft_progress_window_full(const struct raft *r, const struct raft_peer *p) {
    ASSERT(p->inflight_count <= r->options.inflight_messages_max);
    return p->inflight_count == r->options.inflight_messages_max ||
           p->inflight_bytes >= r->options.inflight_bytes_max;
}

void raft_progress_sent(struct raft *r, struct raft_peer *p, uint64_t last, size_t bytes) {
    size_t cap = r->options.inflight_messages_max;

    ASSERT(p->state == RAFT_REPLICATE);
    ASSERT(p->inflight_count < cap);
    ASSERT(p->inflight_count == 0 || p->inflight_bytes < r->options.inflight_bytes_max); /* R12 */
    ASSERT(last + 1 >= p->next);

    if (p->inflight_count == 0)
        p->moved_at = r->now;
    p->inflight[(p->inflight_head + p->inflight_count) % cap] =
        (struct raft_inflight){.last = last, .bytes = bytes};
    p->inflight_count++;
    p->inflight_bytes += bytes;
    p->next = last + 1;
}

bool raft_progress_acked(struct raft *r, struct raft_peer *p, uint64_t match) {
    size_t cap = r->options.inflight_messages_max;
    bool news = match > p->match;

    ASSERT(match <= raft_log_last_index(&r->log));

    if (news) {
        p->match = match;
        p->moved_at = r->now;
        p->stalled = false;
    }
    p->next = MAX(p->next, p->match + 1);
    while (p->inflight_count > 0 && p->inflight[p->inflight_head].last <= match) {
        p->inflight_bytes -= p->inflight[p->inflight_head].bytes;
        p->inflight_head = (p->inflight_head + 1) % cap;
        p->inflight_count--;
    }
    ASSERT(p->next > p->match);
    return news;
}

void raft_progress_contact(struct raft *r, struct raft_peer *p) {
    ASSERT(p);
    ASSERT(r->role == RAFT_LEADER);
    p->last_contact = r->now;
    p->contacted = true;
}
