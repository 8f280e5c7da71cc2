/* The steps of model/protocol.pml with their guards, for any number of servers. Thread: one. */
#include "sim/conformance.h"

#include "sim/sim_internal.h"

#include <stdarg.h>
#include <stdio.h>

#define ULL(x) ((unsigned long long) (x))

/* Which step of model/steps.def is which here; compared by tests/tools/check_model.py. */
static const char *const step_names[] = {
    [STEP_BECOME_CANDIDATE] = "BecomeCandidate",
    [STEP_UPDATE_TERM] = "UpdateTerm",
    [STEP_GRANT_VOTE] = "GrantVote",
    [STEP_BECOME_LEADER] = "BecomeLeader",
    [STEP_STEP_DOWN] = "StepDown",
    [STEP_CLIENT_APPEND] = "ClientAppend",
    [STEP_APPEND_ENTRIES] = "AppendEntries",
    [STEP_TRUNCATE_CONFLICT] = "TruncateConflict",
    [STEP_LEARN_COMMIT] = "LearnCommit",
    [STEP_ADVANCE_COMMIT] = "AdvanceCommit",
    [STEP_ENTER_JOINT] = "EnterJoint",
    [STEP_LEAVE_JOINT] = "LeaveJoint",
    [STEP_SNAPSHOT] = "Snapshot",
    [STEP_INSTALL_SNAPSHOT] = "InstallSnapshot",
    [STEP_PERSIST_META] = "PersistMeta",
    [STEP_PERSIST] = "Persist",
    [STEP_RESTART] = "Restart",
};
STATIC_ASSERT(ARRAY_LEN(step_names) == CONFORMANCE_STEPS, "every step has a name");
STATIC_ASSERT(SIM_STAT_STEP_RESTART - SIM_STAT_STEP_BECOME_CANDIDATE == STEP_RESTART,
              "every step has a counter");

static bool taken(struct taking *t, enum conformance_step step) {
    t->w->result->stats[SIM_STAT_STEP_BECOME_CANDIDATE + step]++;
    return true;
}

bool refuse(struct taking *t, enum conformance_step step, const char *fmt, ...) {
    char why[256];
    va_list ap;

    va_start(ap, fmt);
    (void) vsnprintf(why, sizeof(why), fmt, ap);
    va_end(ap);
    sim_fail(t->w, "conformance: node %llu may not %s: %s", ULL(t->id), step_names[step], why);
    return false;
}

/* ---- majorities ------------------------------------------------------------------------------ */

static bool majority(uint64_t bits, uint64_t of) {
    return 2 * __builtin_popcountll(bits & of) > __builtin_popcountll(of);
}

/* Section 6: "separate majorities from both the old and new configurations". */
static bool quorum(const struct model_config *c, uint64_t bits) {
    return majority(bits, c->voters) && (c->old == 0 || majority(bits, c->old));
}

/* The later term, then the longer log: as one number. */
static uint64_t position(uint64_t term, uint64_t index) {
    return term << 32 | index;
}

/* ---- elections ------------------------------------------------------------------------------- */

bool take_become_candidate(struct taking *t) {
    struct model_node *m = t->m;
    uint64_t may = 0;

    for (size_t i = 0; i < m->configs_count; i++)
        may |= m->configs[i].voters | m->configs[i].old;
    if (m->role == RAFT_LEADER)
        return refuse(t, STEP_BECOME_CANDIDATE, "it leads term %llu", ULL(m->term));
    if (!(may >> t->id & 1))
        return refuse(t, STEP_BECOME_CANDIDATE, "it is no voter");
    m->term++;
    m->vote = t->id;
    m->role = RAFT_CANDIDATE;
    m->checked = 0;
    return taken(t, STEP_BECOME_CANDIDATE);
}

bool take_update_term(struct taking *t, uint64_t term) {
    struct model_node *m = t->m;

    if (term <= m->term || term > t->c->spoken)
        return refuse(t, STEP_UPDATE_TERM, "from %llu to %llu, the newest one heard of is %llu",
                      ULL(m->term), ULL(term), ULL(t->c->spoken));
    if (t->ev->type == RAFT_EV_MESSAGE
            ? t->ev->message->term != term
            : t->ev->type != RAFT_EV_INSTALL || t->ev->install.term != term)
        return refuse(t, STEP_UPDATE_TERM, "to %llu, which nobody told it", ULL(term));
    m->term = term;
    m->vote = 0;
    m->role = RAFT_FOLLOWER;
    m->checked = 0;
    return taken(t, STEP_UPDATE_TERM);
}

bool take_grant_vote(struct taking *t, uint64_t candidate) {
    struct model_node *m = t->m;
    const struct raft_message *msg = t->ev->message;
    uint64_t asked = model_said(&t->c->asked, model_key(m->term, candidate));

    if (t->ev->type != RAFT_EV_MESSAGE || msg->type != RAFT_MSG_VOTE_REQ ||
        msg->from != candidate || msg->term != m->term || asked == 0)
        return refuse(t, STEP_GRANT_VOTE, "node %llu did not ask in term %llu", ULL(candidate),
                      ULL(m->term));
    if (m->vote != 0 || m->role == RAFT_LEADER)
        return refuse(t, STEP_GRANT_VOTE, "it has voted for %llu in term %llu", ULL(m->vote),
                      ULL(m->term));
    if (asked < position(model_term_at(m, m->last), m->last))
        return refuse(t, STEP_GRANT_VOTE, "node %llu ends at %llu of term %llu, it at %llu of %llu",
                      ULL(candidate), ULL(asked & UINT32_MAX), ULL(asked >> 32), ULL(m->last),
                      ULL(model_term_at(m, m->last)));
    m->vote = candidate;
    return taken(t, STEP_GRANT_VOTE);
}

bool take_become_leader(struct taking *t, const struct raft_entry *noop, uint64_t seq) {
    struct model_node *m = t->m;
    uint64_t ballots = model_said(&t->c->ballots, model_key(m->term, t->id));
    uint64_t leader = model_said(&t->c->leads, m->term);

    if (m->role != RAFT_CANDIDATE)
        return refuse(t, STEP_BECOME_LEADER, "it is no candidate of term %llu", ULL(m->term));
    if (leader != 0 && leader != t->id)
        return refuse(t, STEP_BECOME_LEADER, "node %llu leads term %llu", ULL(leader),
                      ULL(m->term));
    if (!(ballots >> t->id & 1) && model_in_force(m)->voters >> t->id & 1)
        return refuse(t, STEP_BECOME_LEADER, "its own vote is not on its disk");
    if (!quorum(model_in_force(m), ballots))
        return refuse(t, STEP_BECOME_LEADER, "only nodes %llx voted for it in term %llu",
                      ULL(ballots), ULL(m->term));
    if (!noop || noop->type != RAFT_ENTRY_NOOP || noop->index != m->last + 1)
        return refuse(t, STEP_BECOME_LEADER, "without an entry that begins its term");
    m->role = RAFT_LEADER;
    return model_say(t, &t->c->leads, m->term, t->id) &&
           model_say(t, &t->c->told_commit, m->term, m->commit) && model_append(t, noop, seq) &&
           taken(t, STEP_BECOME_LEADER);
}

bool take_step_down(struct taking *t) {
    if (t->m->role == RAFT_FOLLOWER)
        return refuse(t, STEP_STEP_DOWN, "it is a follower");
    t->m->role = RAFT_FOLLOWER;
    return taken(t, STEP_STEP_DOWN);
}

/* ---- replication ----------------------------------------------------------------------------- */

bool take_client_append(struct taking *t, const struct raft_entry *e, uint64_t seq) {
    if (t->m->role != RAFT_LEADER || e->term != t->m->term || e->index != t->m->last + 1)
        return refuse(t, STEP_CLIENT_APPEND, "entry %llu of term %llu behind %llu", ULL(e->index),
                      ULL(e->term), ULL(t->m->last));
    return model_append(t, e, seq) && taken(t, STEP_CLIENT_APPEND);
}

/* One change at a time, after an entry of the own term is committed. */
static bool change_is_open(struct taking *t) {
    return model_in_force(t->m)->index > t->m->commit ||
           model_term_at(t->m, t->m->commit) != t->m->term;
}

bool take_enter_joint(struct taking *t, const struct raft_entry *e, const struct model_config *to,
                      uint64_t seq) {
    const struct model_config *now = model_in_force(t->m);

    if (t->m->role != RAFT_LEADER || e->term != t->m->term)
        return refuse(t, STEP_ENTER_JOINT, "it does not lead term %llu", ULL(e->term));
    if (change_is_open(t))
        return refuse(t, STEP_ENTER_JOINT,
                      "the one at %llu is not committed (%llu), or it has no entry of its term",
                      ULL(now->index), ULL(t->m->commit));
    if (now->old != 0 || to->old != now->voters)
        return refuse(t, STEP_ENTER_JOINT, "voters were %llx, the outgoing ones are %llx",
                      ULL(now->voters), ULL(to->old));
    return model_append(t, e, seq) && taken(t, STEP_ENTER_JOINT);
}

bool take_leave_joint(struct taking *t, const struct raft_entry *e, const struct model_config *to,
                      uint64_t seq) {
    const struct model_config *now = model_in_force(t->m);

    if (t->m->role != RAFT_LEADER || e->term != t->m->term)
        return refuse(t, STEP_LEAVE_JOINT, "it does not lead term %llu", ULL(e->term));
    if (change_is_open(t))
        return refuse(t, STEP_LEAVE_JOINT,
                      "the one at %llu is not committed (%llu), or it has no entry of its term",
                      ULL(now->index), ULL(t->m->commit));
    if (now->old == 0 || to->old != 0 || to->voters != now->voters)
        return refuse(t, STEP_LEAVE_JOINT, "from voters %llx (out: %llx) to %llx", ULL(now->voters),
                      ULL(now->old), ULL(to->voters));
    return model_append(t, e, seq) && taken(t, STEP_LEAVE_JOINT);
}

bool take_truncate_conflict(struct taking *t, uint64_t from, uint64_t seq) {
    struct model_node *m = t->m;

    if (from <= m->commit)
        return refuse(t, STEP_TRUNCATE_CONFLICT, "from %llu, %llu is committed", ULL(from),
                      ULL(m->commit));
    m->last = from - 1;
    while (m->configs_count > 1 && m->configs[m->configs_count - 1].index >= from)
        m->configs_count--;
    return model_op_push(t, (struct model_op){.kind = OP_TRUNCATE, .seq = seq, .index = from}) &&
           taken(t, STEP_TRUNCATE_CONFLICT);
}

/* Figure 2, AppendEntries, receiver: an accepted one. */
bool take_append_entries(struct taking *t, const struct raft_message *msg, uint64_t seq) {
    struct model_node *m = t->m;
    uint64_t prev = msg->log_index;

    if (msg->term != m->term || m->role == RAFT_LEADER ||
        model_said(&t->c->leads, m->term) != msg->from)
        return refuse(t, STEP_APPEND_ENTRIES, "node %llu does not lead term %llu", ULL(msg->from),
                      ULL(m->term));
    if (prev > m->commit && (prev > m->last || model_term_at(m, prev) != msg->log_term))
        return refuse(t, STEP_APPEND_ENTRIES,
                      "after entry %llu of term %llu, its own is of term %llu (last %llu)",
                      ULL(prev), ULL(msg->log_term), ULL(model_term_at(m, prev)), ULL(m->last));
    for (size_t i = 0; i < msg->entries_count; i++) {
        const struct raft_entry *e = &msg->entries[i];

        if (e->index <= m->last && e->index > m->compacted && model_term_at(m, e->index) != 0 &&
            model_term_at(m, e->index) != e->term && !take_truncate_conflict(t, e->index, seq))
            return false;
        if (e->index == m->last + 1 && !model_append(t, e, seq))
            return false;
    }
    m->checked = MAX(m->checked, prev + msg->entries_count);
    return taken(t, STEP_APPEND_ENTRIES);
}

/* What is committed at an index is committed there for ever. */
static bool commit_agrees(struct taking *t, enum conformance_step step, uint64_t from,
                          uint64_t to) {
    const struct model_node *m = t->m;

    for (uint64_t i = from; i <= to; i++)
        if (m->log[i].term != 0 && i < t->c->done_cap && t->c->done[i] != 0 &&
            t->c->done[i] != m->log[i].term)
            return refuse(t, step, "entry %llu of term %llu, committed there is one of %llu",
                          ULL(i), ULL(m->log[i].term), ULL(t->c->done[i]));
    return true;
}

bool take_learn_commit(struct taking *t, uint64_t to) {
    struct model_node *m = t->m;
    const struct raft_message *msg = t->ev->message;
    uint64_t acked = m->owed_term == m->term ? m->owed : 0;

    if (t->ev->type != RAFT_EV_MESSAGE || msg->term != m->term || m->role != RAFT_FOLLOWER ||
        msg->from != model_said(&t->c->leads, m->term) || to > msg->commit)
        return refuse(t, STEP_LEARN_COMMIT, "%llu, which no leader of term %llu told it", ULL(to),
                      ULL(m->term));
    if (to > model_said(&t->c->told_commit, m->term))
        return refuse(t, STEP_LEARN_COMMIT, "%llu, its leader knows %llu", ULL(to),
                      ULL(model_said(&t->c->told_commit, m->term)));
    if (to > MAX(m->checked, acked))
        return refuse(t, STEP_LEARN_COMMIT, "%llu, its log is compared up to %llu", ULL(to),
                      ULL(MAX(m->checked, acked)));
    if (!commit_agrees(t, STEP_LEARN_COMMIT, m->commit + 1, to))
        return false;
    m->commit = to;
    model_settle_configs(m);
    return taken(t, STEP_LEARN_COMMIT);
}

bool take_advance_commit(struct taking *t, uint64_t to) {
    struct model_node *m = t->m;
    uint64_t have = 0;

    if (m->role != RAFT_LEADER || to > m->last || model_term_at(m, to) != m->term)
        return refuse(t, STEP_ADVANCE_COMMIT, "entry %llu of term %llu, it leads term %llu",
                      ULL(to), ULL(model_term_at(m, to)), ULL(m->term));
    for (uint64_t id = 1; id < ARRAY_LEN(t->c->nodes); id++) {
        bool has = id == t->id ? m->log[to].seq <= m->durable_seq
                               : model_said(&t->c->acked, model_key(m->term, id)) >= to;

        have |= has ? 1ULL << id : 0;
    }
    if (!quorum(model_in_force(m), have))
        return refuse(t, STEP_ADVANCE_COMMIT, "entry %llu, only nodes %llx have it", ULL(to),
                      ULL(have));
    if (!model_reserve_done(t, to) || !commit_agrees(t, STEP_ADVANCE_COMMIT, m->commit + 1, to))
        return false;
    for (uint64_t i = m->commit + 1; i <= to; i++)
        t->c->done[i] = m->log[i].term;
    t->c->done_last = MAX(t->c->done_last, to);
    m->commit = to;
    model_settle_configs(m);
    return model_say(t, &t->c->told_commit, m->term, to) && taken(t, STEP_ADVANCE_COMMIT);
}

/* ---- snapshots ------------------------------------------------------------------------------- */

bool take_snapshot(struct taking *t, uint64_t index) {
    struct model_node *m = t->m;

    if (index <= m->compacted || index > m->commit || m->log[index].seq > m->durable_seq)
        return refuse(t, STEP_SNAPSHOT, "up to %llu, committed %llu", ULL(index), ULL(m->commit));
    m->compacted = index;
    return taken(t, STEP_SNAPSHOT);
}

static void begin_anew(struct taking *t, uint64_t index, uint64_t seq) {
    struct model_node *m = t->m;

    for (uint64_t i = 1; i <= index; i++)
        m->log[i] =
            (struct model_entry){.term = i < t->c->done_cap ? t->c->done[i] : 0, .seq = seq};
    m->last = index;
    m->compacted = index;
    m->configs_count = 0;
}

bool take_install_snapshot(struct taking *t, bool reset, uint64_t seq) {
    struct model_node *m = t->m;
    uint64_t index = t->ev->install.index, term = t->ev->install.index_term;
    bool retains;

    if (t->ev->type != RAFT_EV_INSTALL || t->ev->install.term != m->term ||
        m->role == RAFT_LEADER || model_said(&t->c->leads, m->term) != t->ev->install.leader)
        return refuse(t, STEP_INSTALL_SNAPSHOT, "of node %llu, which does not lead term %llu",
                      ULL(t->ev->install.leader), ULL(m->term));
    if (index <= m->commit || index > model_said(&t->c->told_commit, m->term))
        return refuse(t, STEP_INSTALL_SNAPSHOT, "at %llu: committed here %llu, there %llu",
                      ULL(index), ULL(m->commit), ULL(model_said(&t->c->told_commit, m->term)));
    retains = index <= m->last && model_term_at(m, index) == term;
    if (retains == reset)
        return refuse(t, STEP_INSTALL_SNAPSHOT, "at %llu: its log %s that entry", ULL(index),
                      retains ? "has" : "lacks");
    if (!model_reserve(t, index))
        return false;
    m->role = RAFT_FOLLOWER;
    m->commit = index;
    m->checked = MAX(m->checked, index);
    if (reset) {
        begin_anew(t, index, seq);
        if (!model_push_config(
                t, model_config_of(t->ev->install.config, t->ev->install.config_index)) ||
            !model_op_push(
                t, (struct model_op){.kind = OP_INSTALL, .seq = seq, .index = index, .term = term}))
            return false;
    }
    model_settle_configs(m);
    return taken(t, STEP_INSTALL_SNAPSHOT);
}

/* ---- disks and crashes ----------------------------------------------------------------------- */

static bool op_apply(struct taking *t, const struct model_op *op) {
    struct model_node *m = t->m;
    uint64_t key = model_key(op->term, t->id);

    switch (op->kind) {
    case OP_HARD:
        m->d_term = op->term;
        m->d_vote = op->vote;
        break;
    case OP_TRUNCATE:
        m->d_last = MIN(m->d_last, op->index - 1);
        break;
    case OP_APPEND:
        m->d_last = op->index;
        m->d_log[op->index] = op->term;
        break;
    case OP_INSTALL:
        for (uint64_t i = 1; i <= op->index; i++)
            m->d_log[i] = i < t->c->done_cap ? t->c->done[i] : 0;
        m->d_last = op->index;
        break;
    case OP_ACK:
        m->owed = m->owed_term == op->term ? MAX(m->owed, op->index) : op->index;
        m->owed_term = op->term;
        return model_said(&t->c->acked, key) >= op->index ||
               model_say(t, &t->c->acked, key, op->index);
    }
    if (op->kind != OP_HARD || op->vote == 0)
        return true;
    if (op->vote == t->id) {
        t->c->spoken = MAX(t->c->spoken, op->term);
        if (!model_say(t, &t->c->asked, key, position(op->last_term, op->index)))
            return false;
    }
    key = model_key(op->term, op->vote);
    return model_say(t, &t->c->ballots, key, model_said(&t->c->ballots, key) | 1ULL << t->id);
}

bool take_persist(struct taking *t, uint64_t seq) {
    struct model_node *m = t->m;

    m->durable_seq = MAX(m->durable_seq, seq);
    while (m->ops_head < m->ops_count && m->ops[m->ops_head].seq <= m->durable_seq) {
        if (!op_apply(t, &m->ops[m->ops_head++]))
            return false;
    }
    return taken(t, STEP_PERSIST);
}

/* What @r has of the log is on the disk as far as it goes. */
static bool begins_log(const struct model_node *m, const struct raft *r) {
    if (m->d_last < raft_last_index(r))
        return false;
    for (uint64_t i = raft_first_in_memory(r); i <= raft_last_index(r); i++)
        if (raft_entry_at(r, i)->term != m->d_log[i])
            return false;
    return true;
}

static bool same_log(const struct model_node *m, const struct raft *r) {
    return m->d_last == raft_last_index(r) && begins_log(m, r);
}

/* Damage in the last batch is taken for a torn write (W9), also in one that what was under way
 * would have cut off. */
static void take_shorter(struct model_node *m, const struct raft *r) {
    m->d_last = raft_last_index(r);
    m->owed = MIN(m->owed, m->d_last);
    for (uint64_t i = raft_first_in_memory(r); i <= m->d_last; i++)
        m->d_log[i] = raft_entry_at(r, i)->term;
}

/* An old copy of a segment has entries that were cut from the log later: what was acknowledged in
 * their place is lost with the copy. */
static void take_old_entries(struct model_node *m, const struct raft *r) {
    for (uint64_t i = raft_first_in_memory(r); i <= m->d_last; i++) {
        uint64_t term = raft_entry_at(r, i)->term;

        if (term == m->d_log[i] || term > m->d_term)
            continue;
        m->owed = MIN(m->owed, i - 1);
        m->d_log[i] = term;
    }
}

/* The disk may have got further than it had told. In the order of the batches, the last of them
 * perhaps in part; term and vote of all that were under way come first. */
bool take_restart(struct taking *t, const struct raft *r, bool damaged) {
    struct model_node *m = t->m;
    bool hard = m->d_term == raft_term(r) && m->d_vote == raft_vote(r), log = same_log(m, r);
    bool shorter = damaged && begins_log(m, r);
    size_t meta_at = m->ops_head;

    for (size_t i = m->ops_head; i < m->ops_count && !hard; i++) {
        const struct model_op *op = &m->ops[i];

        if (op->kind != OP_HARD)
            continue;
        if (!op_apply(t, op))
            return false;
        hard = op->term == raft_term(r) && op->vote == raft_vote(r);
        meta_at = i;
    }
    if (!hard)
        return refuse(t, STEP_RESTART, "in term %llu with vote %llu, on disk were %llu and %llu",
                      ULL(raft_term(r)), ULL(raft_vote(r)), ULL(m->d_term), ULL(m->d_vote));
    for (; m->ops_head < m->ops_count && !log; log = same_log(m, r)) {
        const struct model_op *op = &m->ops[m->ops_head++];

        if (op->kind != OP_HARD && op->kind != OP_ACK && !op_apply(t, op))
            return false;
        shorter = shorter || (damaged && begins_log(m, r));
    }
    if (!log && shorter) {
        take_shorter(m, r);
        log = same_log(m, r);
    }
    if (!log && damaged && raft_last_index(r) < m->d_last) {
        m->d_last = raft_last_index(r);
        m->owed = MIN(m->owed, m->d_last);
        take_old_entries(m, r);
        log = same_log(m, r);
    }
    if (!log)
        return refuse(t, STEP_RESTART, "with a log up to %llu that was never on its disk",
                      ULL(raft_last_index(r)));
    for (size_t i = m->ops_head; i < meta_at; i++) {
        if (m->ops[i].kind == OP_HARD || m->ops[i].kind == OP_ACK)
            continue;
        (void) taken(t, STEP_PERSIST_META); /* what comes before it in the log is missing */
        break;
    }
    if (raft_commit(r) > t->c->done_last || raft_compacted_index(r) > raft_commit(r))
        return refuse(t, STEP_RESTART, "with commit %llu, committed anywhere is %llu, gone %llu",
                      ULL(raft_commit(r)), ULL(t->c->done_last), ULL(raft_compacted_index(r)));
    return taken(t, STEP_RESTART);
}
