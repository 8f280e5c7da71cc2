/* Checkers of what a leader has to do by itself, without being asked: end leases (J13), give jobs
 * that wait to workers that are free (J20), hand over when its node is drained (C36).
 *
 * Each is a matter of time, and time alone says little here: a disk or a quorum may be slow. So a
 * duty counts as neglected when nothing is on its way that could be it: the leader has applied all
 * of its log, the duty is open, and the same was true a while ago. (In between it hands over, so
 * that nothing is proposed for an election timeout.) Thread: one. */
#include "sim/sim_internal.h"

#include <string.h>

#include "chronos/internal/v1/peer.pb-c.h"
#include "chronos/v1/cluster_service.pb-c.h"

#define NEGLECTED_NS (NS_PER_S)
#define HAND_OVER_NS (3 * NS_PER_S) /* tried every half second */
#define NEAR_NS (200 * NS_PER_MS)
#define LEASE_SLACK_NS (300 * NS_PER_MS) /* it is looked at again after 100 ms, perhaps */

/* ---- which workers it believes in ------------------------------------------------------------ */

struct believed {
    bool known;
    uint64_t alive; /* bits of worker slots */
};

static void take_status(void *arg, enum replica_status status, struct slice packed) {
    struct believed *b = arg;
    Chronos__V1__GetClusterStatusResponse *s;

    if (status != REPLICA_OK)
        return;
    s = chronos__v1__get_cluster_status_response__unpack(NULL, packed.len, packed.data);
    if (!s)
        return;
    b->known = true;
    for (size_t i = 0; i < s->n_workers; i++)
        if (s->workers[i]->is_alive)
            b->alive |= 1ULL << checker_worker_slot(s->workers[i]->id);
    chronos__v1__get_cluster_status_response__free_unpacked(s, NULL);
}

static bool believed_by(const struct sim_node *n, struct believed *ret) {
    *ret = (struct believed){0};
    return replica_cluster_status(n->replica, true, MONO_NEVER, take_status, ret) == 0 &&
           ret->known;
}

/* ---- open duties ----------------------------------------------------------------------------- */

/* The duty @key (0 = none) is open now. True when it was @ns ago, too. */
static bool open_for(struct sim_duty *d, uint64_t key, uint64_t now, uint64_t ns) {
    if (d->key != key) {
        *d = (struct sim_duty){.key = key, .since = now};
    }
    return key != 0 && now - d->since > ns;
}

static bool neglected(struct sim_duty *d, uint64_t key, uint64_t now) {
    return open_for(d, key, now, NEGLECTED_NS);
}

static bool has_room(const struct fsm_worker *k) {
    return !k->lost && !k->draining && k->running < k->slots;
}

static bool any_has_room(const struct sim_node *n) {
    const struct fsm_worker *k = fsm_worker_first(replica_fsm(n->replica));

    while (k && !has_room(k))
        k = k->next;
    return k != NULL;
}

/* The leader believes so, too. (To ask it wakes it, so not at every turn.) */
static bool alive_has_room(const struct sim_node *n) {
    struct believed b;

    if (!believed_by(n, &b))
        return false;
    for (const struct fsm_worker *k = fsm_worker_first(replica_fsm(n->replica)); k; k = k->next)
        if (has_room(k) && b.alive >> checker_worker_slot(k->id) & 1)
            return true;
    return false;
}

static void check_waiting(struct world *w, struct sim_node *n, uint64_t now) {
    const struct fsm_job *j = fsm_ready_first(replica_fsm(n->replica));

    if (!neglected(&n->waits, j && any_has_room(n) ? j->seq : 0, now))
        return;
    n->waits.since = now;
    if (!alive_has_room(n)) {
        n->waits.seen = 0;
    } else if (n->waits.seen++ > 0)
        sim_fail(w, "leader %u leaves job %llu waiting beside a free worker", n->slot + 1,
                 (unsigned long long) j->seq);
}

/* J13: "a worker that is silent for a whole lease loses its attempts". */
static void check_leases(struct world *w, struct sim_node *n, uint64_t now) {
    for (const struct fsm_worker *k = fsm_worker_first(replica_fsm(n->replica)); k; k = k->next) {
        unsigned slot = checker_worker_slot(k->id);
        uint64_t heard = MAX(n->leads_at, MAX(n->registered_at[slot], n->heard_at[slot]));
        bool over = !k->lost && now > heard + w->lease_ns + LEASE_SLACK_NS;

        if (neglected(&n->silent[slot], over ? heard : 0, now))
            sim_fail(w,
                     "leader %u: worker %s is silent for %llu ms and not lost, its lease is "
                     "%llu ms",
                     n->slot + 1, k->id, (unsigned long long) ((now - heard) / NS_PER_MS),
                     (unsigned long long) (w->lease_ns / NS_PER_MS));
    }
}

/* A voter that is not drained, has all of the log and was heard just now. */
static bool successor_near(const struct world *w, const struct sim_node *n, uint64_t now) {
    const struct raft *r = replica_raft(n->replica);
    const struct raft_config *c = raft_config_latest(r);

    for (size_t i = 0; i < c->count; i++) {
        const struct fsm_node *rec = fsm_node_find(replica_fsm(n->replica), c->members[i].id);
        struct raft_peer_status st;

        if (c->members[i].id != n->slot + 1 && c->members[i].flags & RAFT_MEMBER_VOTER && rec &&
            !rec->draining && w->links[n->slot][c->members[i].id - 1].told_up &&
            raft_peer_status(r, c->members[i].id, &st) == 0 && st.match == raft_last_index(r) &&
            now - st.last_contact.ns < NEAR_NS)
            return true;
    }
    return false;
}

static void check_hands_over(struct world *w, struct sim_node *n, uint64_t now) {
    const struct fsm_node *self = fsm_node_find(replica_fsm(n->replica), n->slot + 1);
    bool must = self && self->draining && successor_near(w, n, now);

    if (open_for(&n->hands_over, must ? raft_term(replica_raft(n->replica)) : 0, now, HAND_OVER_NS))
        sim_fail(w, "node %u leads on although it is drained", n->slot + 1);
}

void checker_duties(struct world *w, struct sim_node *n) {
    const struct raft *r = replica_raft(n->replica);
    uint64_t now = sim_clock_mono(n).ns;

    if (raft_role(r) != RAFT_LEADER || n->leads_term != raft_term(r)) {
        n->leads_term = raft_role(r) == RAFT_LEADER ? raft_term(r) : 0;
        n->leads_at = now;
        n->waits = n->hands_over = (struct sim_duty){0};
        memset(n->silent, 0, sizeof(n->silent));
        return;
    }
    if (w->failed || raft_last_index(r) != replica_applied(n->replica))
        return;
    check_waiting(w, n, now);
    check_leases(w, n, now);
    check_hands_over(w, n, now);
}

/* ---- signs of life --------------------------------------------------------------------------- */

void checker_heard(struct sim_node *n, unsigned worker) {
    n->heard_at[worker] = sim_clock_mono(n).ns;
}

void checker_heard_from(struct world *w, struct sim_node *n, struct slice payload) {
    const Chronos__Internal__V1__PeerMessage *m;

    if (n->leads_term == 0)
        return; /* it begins all leases anew when it leads */
    arena_clear(&w->arena);
    m = chronos__internal__v1__peer_message__unpack(arena_pb(&w->arena), payload.len, payload.data);
    for (size_t i = 0; m && i < m->n_worker_beats; i++)
        checker_heard(n, checker_worker_slot(m->worker_beats[i]->worker_id));
}

/* ---- the end --------------------------------------------------------------------------------- */

void checker_duties_final(struct world *w) {
    for (unsigned i = 0; i < w->nodes_count && !w->failed; i++) {
        const struct sim_node *n = &w->nodes[i];
        struct believed b;

        if (!n->up || !sim_world_counts(w, n))
            continue;
        if (!n->bulk_jobs.head && sim_kv_staged(n->kv))
            sim_fail(w, "node %u keeps a staged state that nobody will finish", i + 1);
        if (raft_role(replica_raft(n->replica)) != RAFT_LEADER || !believed_by(n, &b))
            continue;
        for (unsigned k = 0; k < w->workers_count; k++)
            if (w->workers[k].up && w->workers[k].welcomed && w->workers[k].session &&
                !(b.alive >> k & 1))
                sim_fail(w, "leader %u takes worker %s for dead, which beats", i + 1,
                         w->workers[k].id);
    }
}
