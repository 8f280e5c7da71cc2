/* The end of a world: what is broken is healed - all of it, or a quorum while the rest stays broken
 * for good - and from then on progress is required (reliability.md section 3, liveness).
 * Judged is who was healed and belongs to the cluster. Thread: one. */
#include "sim/schedule_model.h"

#define TIMEOUT_NS (300 * NS_PER_MS) /* of an election, the longest */
#define HEAL_NS (400 * TIMEOUT_NS)
#define ANSWER_WITHIN_NS (200 * TIMEOUT_NS)
#define LEADER_WITHIN_NS (10 * TIMEOUT_NS)
#define TERM_GROWTH_MAX 3 /* after healing */
#define SETTLE_NS (2 * NS_PER_S)
#define QUIET_NS (50 * NS_PER_S) /* a thousand heartbeats */
#define QUIET_ONE_IN 16
#define QUIET_LONG_NS (1000 * TIMEOUT_NS)
#define QUIET_LONG_ONE_IN 128
#define CORE_PERMILLE 500 /* of the worlds that can do without somebody */
#define CORE_TRIES 8

/* ---- who stays broken ------------------------------------------------------------------------ */

enum broken_how { CRASHED, PARTED, FLAPPING, DEAF, MUTE, BROKEN_HOWS };

/* Twice the votes of @half that the nodes of @core have for certain, less all of them, whatever
 * becomes of the changes that were asked for: who may leave has left, who may come has come. */
static int margin(const struct world *w, const struct raft_config *c, uint32_t half,
                  uint64_t core) {
    uint64_t may_leave = w->ids_may_leave, may_come = w->ids_may_come, voters = 0;
    int sum = 0;

    for (size_t i = 0; i < c->count; i++) {
        const struct raft_member *m = &c->members[i];

        if (m->flags & half)
            voters |= 1ULL << m->id;
        if (!(m->flags & RAFT_MEMBER_PROMOTE))
            continue;
        may_come |= 1ULL << m->id;
        may_leave |= m->replaces ? 1ULL << m->replaces : 0;
    }
    for (uint64_t id = 1; id <= w->nodes_count; id++) {
        bool in_core = core >> id & 1;

        if (voters >> id & 1)
            sum += in_core ? !(may_leave >> id & 1) : -1;
        else if (may_come >> id & 1 && !in_core)
            sum--;
    }
    return sum;
}

static uint64_t electable(const struct raft_config *c) {
    uint64_t ids = 0;

    for (size_t i = 0; i < c->count; i++)
        if (c->members[i].flags & (RAFT_MEMBER_VOTER | RAFT_MEMBER_VOTER_OLD))
            ids |= 1ULL << c->members[i].id;
    return ids;
}

/* Of @core, who is a voter wherever somebody goes by a configuration. Another's vote cannot be
 * relied on: a learner may have got more of the log than the one that takes it for a voter (whose
 * change was then cut off elsewhere), refuses that one and does not stand itself. Of these the one
 * with the best log is elected, if they are a quorum. */
static uint64_t sure_voters(const struct world *w, uint64_t core) {
    for (unsigned i = 0; i < w->nodes_count; i++) {
        const struct sim_node *n = &w->nodes[i];

        if (!n->up || n->wiped || n->gone)
            continue;
        if (raft_config_latest(replica_raft(n->replica))->count > 0)
            core &= electable(raft_config_latest(replica_raft(n->replica)));
        if (raft_config_committed(replica_raft(n->replica))->count > 0)
            core &= electable(raft_config_committed(replica_raft(n->replica)));
    }
    return core;
}

/* @core is a quorum of every configuration that somebody goes by, or may come to. */
static bool is_quorum(const struct world *w, uint64_t core) {
    core = sure_voters(w, core);
    for (unsigned i = 0; i < w->nodes_count; i++) {
        const struct sim_node *n = &w->nodes[i];
        const struct raft_config *all[2];

        if (!n->up || n->wiped || n->gone)
            continue;
        all[0] = raft_config_latest(replica_raft(n->replica));
        all[1] = raft_config_committed(replica_raft(n->replica));
        for (unsigned k = 0; k < ARRAY_LEN(all); k++) {
            if (all[k]->count == 0)
                continue;
            if (margin(w, all[k], RAFT_MEMBER_VOTER, core) <= 0 ||
                (all[k]->joint && margin(w, all[k], RAFT_MEMBER_VOTER_OLD, core) <= 0))
                return false;
        }
    }
    return true;
}

static uint64_t sound_nodes(const struct world *w) {
    uint64_t bits = 0;

    for (unsigned i = 0; i < w->nodes_count; i++)
        if (w->nodes[i].up && !w->nodes[i].wiped && !w->nodes[i].gone)
            bits |= 1ULL << (i + 1);
    return bits;
}

/* Ids that stay well; all of them when nobody can be spared. */
static uint64_t draw_core(struct world *w) {
    uint64_t all = sound_nodes(w);

    for (unsigned i = 0; i < CORE_TRIES; i++) {
        uint64_t core = all;

        for (uint64_t id = 1; id <= w->nodes_count; id++)
            if (rng_chance(&w->rng, 450))
                core &= ~(1ULL << id);
        if (core != 0 && core != all && is_quorum(w, core))
            return core;
    }
    return all;
}

static void part_from(struct world *w, unsigned a, uint64_t core, bool out, bool in) {
    for (unsigned i = 0; i < w->nodes_count; i++) {
        if (i == a || !(core >> (i + 1) & 1))
            continue;
        w->links[a][i].broken = out;
        w->links[i][a].broken = in;
    }
}

static void leave_broken(struct world *w, struct sim_node *n, enum broken_how how, uint64_t core) {
    static const char *const names[] = {"is down", "is cut off", "flaps", "is deaf", "is mute"};

    STATIC_ASSERT(ARRAY_LEN(names) == BROKEN_HOWS, "each has a name");
    sim_trace(w, "node %u %s for good", n->slot + 1, names[how]);
    n->broken = true;
    for (unsigned i = 0; i < w->workers_count; i++) /* they find another node */
        if (w->workers[i].session && w->workers[i].node == n->slot)
            sim_worker_node_gone(&w->workers[i]);
    switch (how) {
    case CRASHED:
        sim_count(w, SIM_STAT_LEFT_DOWN);
        sim_node_crash(n, rng_chance(&w->rng, 500));
        break;
    case PARTED:
        sim_count(w, SIM_STAT_LEFT_PARTED);
        part_from(w, n->slot, core, true, true);
        break;
    case FLAPPING:
        sim_count(w, SIM_STAT_LEFT_FLAPPING);
        /* Down for an election timeout or more, or it might go on to lead for ever. */
        sim_net_flap_node(w, n->slot, rng_range(&w->rng, TIMEOUT_NS, 3 * TIMEOUT_NS));
        break;
    case DEAF:
    case MUTE:
    case BROKEN_HOWS:
        sim_count(w, SIM_STAT_LEFT_ONE_WAY);
        part_from(w, n->slot, core, how == MUTE, how == DEAF);
        break;
    }
}

/* Some way of its own for each, or one for all; who is cut off may still have the others so. */
static void break_for_good(struct world *w) {
    uint64_t all = sound_nodes(w), core = draw_core(w);
    uint64_t how = rng_below(&w->rng, BROKEN_HOWS);
    bool alike = rng_chance(&w->rng, 500);

    if (core == all || w->failed || sim_operator_quorum_lost(w))
        return;
    sim_count(w, SIM_STAT_CORES);
    for (unsigned i = 0; i < w->nodes_count; i++) {
        if (!(all >> (i + 1) & 1) || core >> (i + 1) & 1)
            continue;
        /* One that waits to be a voter must not catch up some day: that would change who leads. */
        if (how == FLAPPING && w->ids_may_come >> (i + 1) & 1)
            how = PARTED;
        leave_broken(w, &w->nodes[i], (enum broken_how) how, core);
        if (!alike)
            how = rng_below(&w->rng, BROKEN_HOWS);
    }
}

/* ---- healing --------------------------------------------------------------------------------- */

void liveness_end_faults(struct world *w) {
    faults_heal_network(w);
    w->loss_permille = w->dup_permille = w->slow_permille = 0;
    w->damage_one_in = w->cut_one_in = 0;
    for (unsigned i = 0; i < w->workers_count; i++)
        if (w->workers[i].silent_until > w->now_ns) {
            w->workers[i].silent_until = 0;
            sim_push(w, 0, SIM_WORKER_WAKE, i, 0, 0, NULL);
        }
    w->delay_max_ns = MIN(w->delay_max_ns, 2 * NS_PER_MS);
    w->disk_max_ns = MIN(w->disk_max_ns, 2 * NS_PER_MS);
    w->bulk_delay_max_ns = MIN(w->bulk_delay_max_ns, 20 * NS_PER_MS);
    w->bulk_disk_max_ns = MIN(w->bulk_disk_max_ns, 20 * NS_PER_MS);
    faults_disk_heal(w);
    for (unsigned i = 0; i < w->nodes_count && !w->failed; i++) {
        struct sim_node *n = &w->nodes[i];

        sim_clock_heal(n);
        faults_resume(n);
        sim_disk_clear_fault(n->disk);
        sim_disk_set_free(n->disk, UINT64_MAX);
        sim_kv_clear_fault(n->kv);
        sim_jobs_hurry(n, &n->disk_jobs);
        sim_jobs_hurry(n, &n->bulk_jobs);
        if (!n->up)
            (void) sim_node_start(n);
    }
}

/* From here on progress is required. */
void liveness_heal(struct world *w) {
    sim_trace(w, "healing after %llu events", (unsigned long long) w->result->events);
    w->healing = true;
    liveness_end_faults(w);
    if (!w->failed && rng_chance(&w->rng, CORE_PERMILLE))
        break_for_good(w);
}

/* ---- what is required ------------------------------------------------------------------------ */

bool sim_world_counts(const struct world *w, const struct sim_node *n) {
    const struct raft_config *c = checker_config(w);

    return c && !n->gone && !n->wiped && !n->broken && raft_config_find(c, n->slot + 1);
}

/* No change is open, and who is to be promoted was. */
static bool config_settled(const struct world *w, const struct raft_config *c) {
    for (size_t i = 0; i < c->count; i++)
        if (c->members[i].flags & RAFT_MEMBER_PROMOTE &&
            sim_world_counts(w, &w->nodes[c->members[i].id - 1]))
            return false;
    return !c->joint;
}

/* Its configuration is committed and has it. */
static bool leader_stays(const struct world *w, const struct raft_config *c) {
    for (unsigned i = 0; i < w->nodes_count; i++) {
        const struct raft *r = w->nodes[i].up ? replica_raft(w->nodes[i].replica) : NULL;

        if (r && raft_config_latest(r) == c)
            return raft_config_latest_index(r) <= raft_commit(r) && raft_config_find(c, i + 1);
    }
    return false;
}

static bool settled(struct world *w) {
    const struct raft_config *c = checker_config(w);
    uint64_t applied = UINT64_MAX;

    for (unsigned i = 0; i < w->workers_count && w->schedules > 0; i++)
        if (w->workers[i].to_worker_at > w->now_ns + NS_PER_S || !w->workers[i].welcomed)
            return false; /* what it is given waits: behind what it was sent while it was stopped */
    if (w->ops_pending > 0 || !c || !config_settled(w, c) || !leader_stays(w, c))
        return false;
    for (unsigned i = 0; i < w->nodes_count; i++) {
        const struct sim_node *n = &w->nodes[i];
        struct fsm *f;

        if (!sim_world_counts(w, n))
            continue;
        if (!n->up)
            return false;
        f = replica_fsm(n->replica);
        if (fsm_jobs_count(f, CHRONOS__V1__JOB_STATE__JOB_STATE_PENDING) > 0 ||
            fsm_jobs_count(f, CHRONOS__V1__JOB_STATE__JOB_STATE_RUNNING) > 0)
            return false;
        if (applied != UINT64_MAX && replica_applied(n->replica) != applied)
            return false;
        applied = replica_applied(n->replica);
    }
    return applied != UINT64_MAX && checker_schedules_settled(w, applied);
}

/* Of who is up; with @broken, also of those that stay broken. */
static uint64_t highest_term(const struct world *w, bool broken) {
    uint64_t term = 0;

    for (unsigned i = 0; i < w->nodes_count; i++)
        if (w->nodes[i].up && (broken || !w->nodes[i].broken))
            term = MAX(term, raft_term(replica_raft(w->nodes[i].replica)));
    return term;
}

/* A leader whose majority needs a follower that must be sent the state first takes its time. */
static bool sends_snapshot(const struct world *w, const struct raft *r) {
    for (unsigned i = 0; i < w->nodes_count; i++) {
        struct raft_peer_status st;

        if (raft_peer_status(r, i + 1, &st) == 0 && st.state == RAFT_SNAPSHOT)
            return true;
    }
    return false;
}

static bool has_leader(const struct world *w) {
    for (unsigned i = 0; i < w->nodes_count; i++) {
        const struct sim_node *n = &w->nodes[i];
        const struct raft *r = n->up && !n->broken ? replica_raft(n->replica) : NULL;

        if (r && raft_role(r) == RAFT_LEADER && raft_term(r) == highest_term(w, false) &&
            (raft_leader_ready(r) || sends_snapshot(w, r)))
            return true;
    }
    return false;
}

static void not_settled(struct world *w) {
    for (unsigned i = 0; i < w->nodes_count; i++)
        if (w->nodes[i].up)
            sim_trace(
                w, "node %u: applied=%llu last=%llu pending=%llu running=%llu", i + 1,
                (unsigned long long) replica_applied(w->nodes[i].replica),
                (unsigned long long) raft_last_index(replica_raft(w->nodes[i].replica)),
                (unsigned long long) fsm_jobs_count(replica_fsm(w->nodes[i].replica),
                                                    CHRONOS__V1__JOB_STATE__JOB_STATE_PENDING),
                (unsigned long long) fsm_jobs_count(replica_fsm(w->nodes[i].replica),
                                                    CHRONOS__V1__JOB_STATE__JOB_STATE_RUNNING));
    checker_schedules_tell(w);
    sim_fail(w, "liveness: not settled %llu s after healing (%u calls unanswered)",
             (unsigned long long) (HEAL_NS / NS_PER_S), w->ops_pending);
}

/* All that was asked for before the healing has an answer. */
static void check_answered(struct world *w, uint64_t healed_at) {
    const struct sim_call *c = w->calls_first;

    if (w->changes_pending > 0 || (c && c->begun_at <= healed_at))
        sim_fail(w, "liveness: %u calls unanswered 200 election timeouts after healing",
                 w->ops_pending);
}

static void run_until(struct world *w, uint64_t until) {
    while (sim_world_may_step(w) && w->now_ns < until)
        sim_world_step(w);
}

static void settle(struct world *w, uint64_t healed_at) {
    bool asked = false;

    while (sim_world_may_step(w) && w->now_ns < healed_at + HEAL_NS && !settled(w)) {
        sim_world_step(w);
        if (asked || w->now_ns < healed_at + ANSWER_WITHIN_NS)
            continue;
        asked = true;
        check_answered(w, healed_at);
    }
    if (!w->failed && !settled(w))
        not_settled(w);
}

static uint64_t draw_quiet(struct world *w) {
    if (rng_below(&w->rng, QUIET_LONG_ONE_IN) == 0)
        return QUIET_LONG_NS;
    return rng_below(&w->rng, QUIET_ONE_IN) == 0 ? QUIET_NS : SETTLE_NS;
}

/* From here on nothing happens: no election, and no worker is lost. */
static void stay_quiet(struct world *w, uint64_t ns) {
    uint64_t elections = w->result->stats[SIM_STAT_ELECTIONS];
    uint64_t leases = w->result->stats[SIM_STAT_LEASES_EXPIRED];
    bool heard = true;

    for (unsigned i = 0; i < w->workers_count; i++) /* none stopped, none between two streams */
        heard = heard && w->workers[i].to_worker_at <= w->now_ns && w->workers[i].welcomed;
    run_until(w, w->now_ns + ns);
    if (heard && !w->failed)
        checker_duties_final(w);
    if (w->result->stats[SIM_STAT_ELECTIONS] != elections)
        sim_fail(w, "liveness: an election although nothing happened");
    if (w->result->stats[SIM_STAT_LEASES_EXPIRED] != leases && heard)
        sim_fail(w, "liveness: a worker was lost although nothing happened");
}

/* All that is under way comes to an end, with one leader for ever after. */
void liveness_check(struct world *w) {
    /* One that flaps for good had its term before: to take it over is no growth. */
    uint64_t healed_at = w->now_ns, term = highest_term(w, true);
    uint64_t transfers = w->result->stats[SIM_STAT_TRANSFERS], quiet_ns = draw_quiet(w);

    while (sim_world_may_step(w) && w->now_ns < healed_at + LEADER_WITHIN_NS && !has_leader(w))
        sim_world_step(w);
    if (sim_world_may_step(w) && !has_leader(w))
        sim_fail(w, "liveness: no leader ten election timeouts after healing");
    settle(w, healed_at);
    /* What was under way before healing may still start an election, and what was lost on the way
     * end a lease, until the next beat. */
    run_until(w, healed_at + MAX(LEADER_WITHIN_NS, w->beat_ns + NS_PER_S));
    checker_schedules_end(w);
    stay_quiet(w, quiet_ns);
    /* A drained node that is elected hands over at once. */
    term += 2 * (w->result->stats[SIM_STAT_TRANSFERS] - transfers);
    if (highest_term(w, false) > term + TERM_GROWTH_MAX)
        sim_fail(w, "liveness: terms grew from %llu to %llu after healing",
                 (unsigned long long) term, (unsigned long long) highest_term(w, false));
    /* The last thing heard may be half way to the others. */
    healed_at = w->now_ns;
    while (sim_world_may_step(w) && w->now_ns < healed_at + SETTLE_NS && !settled(w))
        sim_world_step(w);
}
