/* Checkers of who belongs to the cluster (reliability.md R11, R17, W15): majorities by the
 * configuration in force, one open change at a time, ids used once, nobody let in whose place is
 * taken, nobody sent away who belongs. Thread: one. */
#include "sim/sim_internal.h"

#include <stdlib.h>
#include <string.h>

bool checker_quorum(const struct raft_config *c, uint64_t bits) {
    unsigned voters = 0, have = 0, old_voters = 0, old_have = 0;

    for (size_t i = 0; i < c->count; i++) {
        const struct raft_member *m = &c->members[i];
        unsigned in = (bits >> m->id & 1) != 0;

        if (m->flags & RAFT_MEMBER_VOTER) {
            voters++;
            have += in;
        }
        if (m->flags & RAFT_MEMBER_VOTER_OLD) {
            old_voters++;
            old_have += in;
        }
    }
    return have > voters / 2 && (!c->joint || old_have > old_voters / 2);
}

/* The configuration may have changed within the turn: either will do. */
bool checker_quorum_of(const struct sim_node *n, uint64_t bits) {
    return checker_quorum(raft_config_latest(replica_raft(n->replica)), bits) ||
           (n->seen_config_index != 0 && checker_quorum(&n->seen_config, bits));
}

static uint64_t ids_with(const struct raft_config *c, uint32_t flags) {
    uint64_t bits = 0;

    for (size_t i = 0; i < c->count; i++)
        if (flags == 0 || (c->members[i].flags & flags))
            bits |= 1ULL << c->members[i].id;
    return bits;
}

/* ---- changes --------------------------------------------------------------------------------- */

/* Section 6: from one configuration to the next only through a joint one, or without a change of
 * voters. */
static bool follows(const struct raft_config *before, const struct raft_config *c) {
    uint64_t old_voters = ids_with(before, RAFT_MEMBER_VOTER);

    if (c->joint)
        return !before->joint && ids_with(c, RAFT_MEMBER_VOTER_OLD) == old_voters;
    return ids_with(c, RAFT_MEMBER_VOTER) == old_voters;
}

static const struct raft_config *config_at(const struct world *w, const struct sim_node *n,
                                           uint64_t index) {
    if (index == 0 || n->chain[index].term == 0)
        return NULL;
    return u64map_get(&w->checker.configs, checker_entry_key(index, n->chain[index].term));
}

/* Who becomes a voter has at least the configuration that it waited in: a node without any grants
 * no vote, and a majority that counts on it would stand still. */
static void check_promoted(struct world *w, uint64_t ids, uint64_t index) {
    if (ids != 0)
        sim_count(w, SIM_STAT_LEARNERS_PROMOTED);
    for (uint64_t id = 1; id <= w->nodes_count; id++)
        if (ids >> id & 1 && w->nodes[id - 1].acked_index < index)
            sim_fail(w, "node %llu is made a voter with %llu of %llu entries",
                     (unsigned long long) id, (unsigned long long) w->nodes[id - 1].acked_index,
                     (unsigned long long) index);
}

void checker_config_entry(struct world *w, struct sim_node *n, const struct raft_entry *e) {
    uint64_t key = checker_entry_key(e->index, e->term);
    const struct raft_config *before;
    struct raft_config *c;

    if (u64map_get(&w->checker.configs, key))
        return;
    c = calloc(1, sizeof(*c));
    if (!c || raft_config_decode(bytes_slice(e->data), c, NULL) < 0) {
        free(c);
        sim_fail(w, "node %u has a configuration at %llu that does not decode", n->slot + 1,
                 (unsigned long long) e->index);
        return;
    }
    if (u64map_put(&w->checker.configs, key, c) < 0) {
        free(c);
        w->no_memory = true;
        return;
    }
    before = e->index > 1 ? config_at(w, n, n->chain[e->index - 1].config_index) : NULL;
    if (!before)
        return;
    if (!follows(before, c))
        sim_fail(w, "node %u: the configuration at %llu does not follow from the one at %llu",
                 n->slot + 1, (unsigned long long) e->index,
                 (unsigned long long) n->chain[e->index - 1].config_index);
    if (c->joint && !before->joint)
        sim_count(w, SIM_STAT_JOINT_ENTERED);
    if (!c->joint && before->joint)
        sim_count(w, SIM_STAT_JOINT_LEFT);
    check_promoted(w, ids_with(c, RAFT_MEMBER_VOTER) & ids_with(before, RAFT_MEMBER_LEARNER),
                   n->chain[e->index - 1].config_index);
}

/* What became committed for the first time, whoever said so. */
void checker_config_committed(struct world *w, struct sim_node *n, uint64_t index) {
    struct checker *c = &w->checker;
    const struct raft_config *config = config_at(w, n, index);
    uint64_t ids;

    if (!config)
        return;
    ids = ids_with(config, 0);
    if (ids & c->ids_removed)
        sim_fail(w, "the configuration at %llu has an id again that was removed",
                 (unsigned long long) index);
    for (uint64_t id = 1; id <= SIM_SLOTS_MAX; id++) {
        if ((ids & ~c->ids_members) >> id & 1 && index > 1)
            sim_count(w, SIM_STAT_NODES_ADDED);
        if ((c->ids_members & ~ids) >> id & 1)
            sim_count(w, SIM_STAT_NODES_REMOVED);
        if (ids >> id & 1)
            w->nodes[id - 1].joined = true;
    }
    c->ids_removed |= c->ids_members & ~ids;
    c->ids_members = ids;
    c->committed_config = config;
}

/* R11: one uncommitted configuration at most; a leader appends one only after an entry of its own
 * term was committed (Ongaro's correction of 2015, M26). */
static void check_open_changes(struct world *w, struct sim_node *n) {
    const struct raft *r = replica_raft(n->replica);
    uint64_t index = raft_config_latest_index(r), open = 0;

    if (raft_role(r) != RAFT_LEADER || index == n->seen_config_index)
        return;
    for (uint64_t i = n->chain_last; i > w->checker.committed_count; i--)
        open += i >= raft_first_in_memory(r) && raft_entry_at(r, i)->type == RAFT_ENTRY_CONFIG;
    if (open > 1)
        sim_fail(w, "leader %u has %llu configurations open at once", n->slot + 1,
                 (unsigned long long) open);
    if (n->chain[index].term == raft_term(r) && !raft_leader_ready(r))
        sim_fail(w,
                 "leader %u changes the configuration before it has committed an entry of its "
                 "term",
                 n->slot + 1);
}

void checker_members(struct world *w, struct sim_node *n) {
    const struct raft *r = replica_raft(n->replica);
    uint64_t index = raft_config_latest_index(r);
    uint64_t known = n->chain_last > 0 ? n->chain[n->chain_last].config_index : 0;
    const struct raft_config *c = config_at(w, n, known);

    /* Cut off entries take their configuration with them (M23); an install brings its own (R19). */
    if (known != 0 && index != known)
        sim_fail(w, "node %u goes by the configuration of %llu, the newest in its log is at %llu",
                 n->slot + 1, (unsigned long long) index, (unsigned long long) known);
    else if (c && (ids_with(c, RAFT_MEMBER_VOTER) !=
                       ids_with(raft_config_latest(r), RAFT_MEMBER_VOTER) ||
                   ids_with(c, 0) != ids_with(raft_config_latest(r), 0)))
        sim_fail(w, "node %u holds another configuration than the log has at %llu", n->slot + 1,
                 (unsigned long long) index);
    if (raft_role(r) == RAFT_LEADER && index <= raft_commit(r) &&
        !(ids_with(raft_config_latest(r), RAFT_MEMBER_VOTER) >> (n->slot + 1) & 1) &&
        !raft_config_latest(r)->joint) /* section 6: it steps down when Cnew is committed (M32) */
        sim_fail(w, "node %u leads although it is no voter by the committed configuration %llu",
                 n->slot + 1, (unsigned long long) index);
    if (index == n->seen_config_index)
        return;
    if (index < n->seen_config_index)
        sim_count(w, SIM_STAT_CONFIG_ROLLED_BACK);
    check_open_changes(w, n);
    n->seen_config = *raft_config_latest(r);
    n->seen_config_index = index;
    n->seen_config_at = w->now_ns;
}

/* ---- who is let in --------------------------------------------------------------------------- */

void checker_hello(struct world *w, struct sim_node *n, const struct sim_node *other,
                   const struct replica_hello *h, int rc, bool final) {
    const struct fsm_node *known = fsm_node_find(replica_fsm(n->replica), other->slot + 1);
    bool other_disk = known && known->bound && memcmp(known->disk, h->disk, sizeof(h->disk)) != 0;

    if (rc == 0 && known && known->removed)
        sim_fail(w, "node %u lets node %u in, which was removed", n->slot + 1, other->slot + 1);
    if (rc == 0 && other_disk)
        sim_fail(w, "node %u lets node %u in with another disk than its own", n->slot + 1,
                 other->slot + 1);
    if (rc != 0 && final && !other_disk && !(w->checker.ids_removed >> (other->slot + 1) & 1))
        sim_fail(w, "node %u refuses node %u for good, which belongs to the cluster", n->slot + 1,
                 other->slot + 1);
}

void checker_stopped(struct world *w, struct sim_node *n, const char *why) {
    if (!n->wiped && !(w->checker.ids_removed >> (n->slot + 1) & 1))
        sim_fail(w, "node %u stops although it belongs to the cluster: %s", n->slot + 1, why);
    sim_count(w, SIM_STAT_NODES_STOPPED);
}

/* The newest configuration a leader goes by, of the highest term; NULL: nobody leads. */
const struct raft_config *checker_config(const struct world *w) {
    const struct raft *best = NULL;

    for (unsigned i = 0; i < w->nodes_count; i++) {
        const struct sim_node *n = &w->nodes[i];
        const struct raft *r = n->up && !n->broken ? replica_raft(n->replica) : NULL;

        if (r && raft_role(r) == RAFT_LEADER && (!best || raft_term(r) > raft_term(best)))
            best = r;
    }
    return best ? raft_config_latest(best) : NULL;
}

/* ---- the end --------------------------------------------------------------------------------- */

/* What operators were told holds. */
void checker_members_final(struct world *w) {
    const struct raft_config *c = checker_config(w);
    uint64_t ids = c ? ids_with(c, 0) : 0;

    if (!c || w->failed)
        return;
    if (ids & w->checker.ids_told_removed)
        sim_fail(w, "a node is a member although its removal was acknowledged");
    if (w->checker.ids_told_added & ~ids & ~w->checker.ids_asked_to_leave)
        sim_fail(w,
                 "a node is no member although its coming was acknowledged and nobody asked it "
                 "to leave");
}
