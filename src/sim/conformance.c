/* Explaining what a raft did as steps of the model; see conformance.h. Thread: one. */
#include "sim/conformance.h"

#include "sim/sim_internal.h"

#include <stdlib.h>

#define ULL(x) ((unsigned long long) (x))

struct conformance *conformance_new(void) {
    return calloc(1, sizeof(struct conformance));
}

struct conformance *conformance_free(struct conformance *c) {
    if (!c)
        return NULL;

    struct u64map *maps[] = {&c->ballots, &c->asked, &c->acked, &c->leads, &c->told_commit};

    for (size_t i = 0; i < ARRAY_LEN(maps); i++)
        u64map_done(maps[i]);
    for (size_t i = 0; i < ARRAY_LEN(c->nodes); i++) {
        free(c->nodes[i].log);
        free(c->nodes[i].d_log);
        free(c->nodes[i].configs);
        free(c->nodes[i].ops);
    }
    free(c->done);
    free(c);
    return NULL;
}

/* The model knows no pre-candidates: they are followers that hear of no leader. */
static enum raft_role role_of(const struct raft *r) {
    return raft_role(r) == RAFT_PRE_CANDIDATE ? RAFT_FOLLOWER : raft_role(r);
}

/* ---- one difference after the other ---------------------------------------------------------- */

static bool explain_term(struct taking *t, const struct raft *r) {
    struct model_node *m = t->m;
    uint64_t term = raft_term(r);

    if (term == m->term)
        return true;
    if (raft_vote(r) != t->id)
        return take_update_term(t, term);
    /* TimeoutNow of a newer term: first that, then the campaign. */
    if (term > m->term + 1 && !take_update_term(t, term - 1))
        return false;
    return take_become_candidate(t);
}

static bool explain_leader_appends(struct taking *t, const struct raft_effects *eff, size_t from) {
    for (size_t i = from; i < eff->append_count; i++) {
        const struct raft_entry *e = &eff->append[i];
        const struct model_config *now = model_in_force(t->m);
        struct model_config to;
        struct raft_config c;
        bool ok;

        if (e->type != RAFT_ENTRY_CONFIG) {
            ok = take_client_append(t, e, eff->persist_seq);
        } else if (raft_config_decode(bytes_slice(e->data), &c, NULL) < 0) {
            sim_fail(t->w, "conformance: node %llu appends a malformed configuration", ULL(t->id));
            return false;
        } else {
            to = model_config_of(&c, e->index);
            /* The same voters: learners, wishes and addresses are not the model's. */
            ok = to.voters == now->voters && to.old == now->old
                     ? take_client_append(t, e, eff->persist_seq)
                 : to.old != 0 ? take_enter_joint(t, e, &to, eff->persist_seq)
                               : take_leave_joint(t, e, &to, eff->persist_seq);
        }
        if (!ok)
            return false;
    }
    return true;
}

/* The answer that accepts, among what is sent; NULL when there is none. */
static const struct raft_message *acceptance(const struct raft_effects *eff,
                                             enum raft_message_type type) {
    for (size_t i = 0; i < eff->messages_count; i++)
        if (eff->messages[i].type == type && !eff->messages[i].reject)
            return &eff->messages[i];
    return NULL;
}

static bool explain_message(struct taking *t, const struct raft *r,
                            const struct raft_effects *eff) {
    struct model_node *m = t->m;
    const struct raft_message *msg = t->ev->message;

    if (raft_vote(r) != m->vote && !take_grant_vote(t, raft_vote(r)))
        return false;
    if (msg->type == RAFT_MSG_APPEND_REQ && acceptance(eff, RAFT_MSG_APPEND_RESP) &&
        !take_append_entries(t, msg, eff->persist_seq))
        return false;
    if (raft_commit(r) > m->commit && m->role != RAFT_LEADER)
        return take_learn_commit(t, raft_commit(r));
    return true;
}

static bool explain(struct taking *t, const struct raft *r, const struct raft_effects *eff) {
    struct model_node *m = t->m;
    size_t appended = 0;

    if (t->ev->type == RAFT_EV_PERSISTED && t->ev->persisted_seq > m->durable_seq &&
        !take_persist(t, t->ev->persisted_seq))
        return false;
    if (!explain_term(t, r))
        return false;
    if (m->role == RAFT_CANDIDATE && role_of(r) == RAFT_LEADER) {
        if (!take_become_leader(t, eff->append_count > 0 ? eff->append : NULL, eff->persist_seq))
            return false;
        appended = 1;
    }
    if (m->role == RAFT_LEADER && raft_commit(r) > m->commit &&
        !take_advance_commit(t, raft_commit(r)))
        return false;
    if (m->role != RAFT_FOLLOWER && role_of(r) == RAFT_FOLLOWER && !take_step_down(t))
        return false;
    if (t->ev->type == RAFT_EV_MESSAGE && !explain_message(t, r, eff))
        return false;
    if (t->ev->type == RAFT_EV_INSTALL && raft_commit(r) > m->commit &&
        !take_install_snapshot(t, eff->install_index > 0, eff->persist_seq))
        return false;
    if (m->role == RAFT_LEADER && !explain_leader_appends(t, eff, appended))
        return false;
    return raft_compacted_index(r) == m->compacted || take_snapshot(t, raft_compacted_index(r));
}

/* ---- afterwards ------------------------------------------------------------------------------ */

/* Also one entry somewhere in memory, another one each time. */
static uint64_t spot(const struct model_node *m, const struct raft *r, uint64_t salt) {
    uint64_t first = raft_first_in_memory(r);

    return first > m->last ? 0
                           : first + (salt * 0x9e3779b97f4a7c15ULL >> 32) % (m->last - first + 1);
}

static bool same(struct taking *t, const struct raft *r) {
    const struct model_node *m = t->m;
    const struct raft_entry *last = raft_entry_at(r, m->last);
    const struct raft_entry *e = raft_entry_at(r, spot(m, r, t->w->result->events));

    if (m->term != raft_term(r) || m->vote != raft_vote(r) || m->role != role_of(r))
        sim_fail(t->w,
                 "conformance: node %llu: no step of the model makes it %s of term %llu with vote "
                 "%llu, it was %s of %llu with %llu",
                 ULL(t->id), raft_role_to_string(role_of(r)), ULL(raft_term(r)), ULL(raft_vote(r)),
                 raft_role_to_string(m->role), ULL(m->term), ULL(m->vote));
    else if (m->last != raft_last_index(r) || (last && last->term != m->log[m->last].term))
        sim_fail(t->w,
                 "conformance: node %llu: no step of the model makes its log end at %llu of term "
                 "%llu, but at %llu of %llu",
                 ULL(t->id), ULL(raft_last_index(r)), ULL(last ? last->term : 0), ULL(m->last),
                 ULL(m->last ? m->log[m->last].term : 0));
    else if (m->commit != raft_commit(r) || m->compacted != raft_compacted_index(r))
        sim_fail(t->w,
                 "conformance: node %llu: no step of the model makes its commit index %llu and "
                 "drops its log up to %llu, but %llu and %llu",
                 ULL(t->id), ULL(raft_commit(r)), ULL(raft_compacted_index(r)), ULL(m->commit),
                 ULL(m->compacted));
    else if (e && e->term != m->log[e->index].term)
        sim_fail(t->w, "conformance: node %llu: entry %llu is of term %llu, it was of %llu",
                 ULL(t->id), ULL(e->index), ULL(e->term), ULL(m->log[e->index].term));
    else if (raft_config_latest_index(r) != model_in_force(m)->index)
        sim_fail(t->w,
                 "conformance: node %llu goes by the configuration at %llu, its newest is at %llu",
                 ULL(t->id), ULL(raft_config_latest_index(r)), ULL(model_in_force(m)->index));
    return !t->w->failed;
}

static bool promise(struct taking *t, const struct raft_message *msg, uint64_t seq) {
    if (seq > t->m->durable_seq && msg->after_seq < seq)
        sim_fail(t->w,
                 "conformance: node %llu sends %s in term %llu after batch %llu, it rests on %llu",
                 ULL(t->id), raft_message_type_to_string(msg->type), ULL(msg->term),
                 ULL(msg->after_seq), ULL(seq));
    return !t->w->failed;
}

/* What a leader could have told: its log, its commit index. */
static bool leader_says(struct taking *t, const struct raft_message *msg) {
    const struct model_node *m = t->m;
    uint64_t acked = model_said(&t->c->acked, model_key(m->term, msg->to));
    bool ok = m->role == RAFT_LEADER && msg->term == m->term && msg->commit <= m->commit;

    if (msg->type == RAFT_MSG_HEARTBEAT_REQ) {
        ok = ok && msg->commit <= acked;
    } else {
        ok = ok && msg->log_index + msg->entries_count <= m->last;
        if (ok && msg->log_index > 0 && m->log[msg->log_index].term != 0)
            ok = m->log[msg->log_index].term == msg->log_term;
        for (size_t i = 0; ok && i < msg->entries_count; i++)
            ok = msg->entries[i].index == msg->log_index + 1 + i &&
                 (m->log[msg->entries[i].index].term == 0 ||
                  m->log[msg->entries[i].index].term == msg->entries[i].term);
    }
    if (!ok)
        sim_fail(t->w,
                 "conformance: node %llu sends node %llu %s of term %llu after entry %llu with %zu "
                 "entries and commit %llu, which is not what it has (term %llu, last %llu, commit "
                 "%llu; acknowledged %llu)",
                 ULL(t->id), ULL(msg->to), raft_message_type_to_string(msg->type), ULL(msg->term),
                 ULL(msg->log_index), msg->entries_count, ULL(msg->commit), ULL(m->term),
                 ULL(m->last), ULL(m->commit), ULL(acked));
    return ok;
}

/* "Up to there my log is yours": only what was compared, or is committed. */
static bool acknowledges(struct taking *t, const struct raft_message *msg) {
    struct model_node *m = t->m;
    struct model_op op = {.kind = OP_ACK, .index = msg->match, .term = m->term};

    if (msg->term != m->term || msg->match > MAX(m->checked, m->commit)) {
        sim_fail(t->w,
                 "conformance: node %llu acknowledges %llu in term %llu; its log is compared up to "
                 "%llu in term %llu",
                 ULL(t->id), ULL(msg->match), ULL(msg->term), ULL(MAX(m->checked, m->commit)),
                 ULL(m->term));
        return false;
    }
    op.seq = m->newest_seq;
    if (!model_op_push(t, op) || !promise(t, msg, msg->match > 0 ? m->log[msg->match].seq : 0))
        return false;
    return op.seq > m->durable_seq || take_persist(t, m->durable_seq);
}

static bool sends(struct taking *t, const struct raft_message *msg) {
    switch (msg->type) {
    case RAFT_MSG_APPEND_REQ:
    case RAFT_MSG_HEARTBEAT_REQ:
        return leader_says(t, msg);
    case RAFT_MSG_APPEND_RESP:
    case RAFT_MSG_SNAPSHOT_RESP:
        if (!msg->reject && !acknowledges(t, msg))
            return false;
        break;
    case RAFT_MSG_VOTE_REQ:
        if (!promise(t, msg, msg->log_index > 0 ? t->m->log[msg->log_index].seq : 0))
            return false;
        break;
    case RAFT_MSG_TIMEOUT_NOW:
        return true;
    case RAFT_MSG_PRE_VOTE_REQ:
    case RAFT_MSG_PRE_VOTE_RESP:
    case RAFT_MSG_VOTE_RESP:
    case RAFT_MSG_HEARTBEAT_RESP:
    case RAFT_MSG_READ_INDEX_REQ:
    case RAFT_MSG_READ_INDEX_RESP:
    case RAFT_MSG_TYPE_MAX:
        break;
    }
    return promise(t, msg, t->m->hard_seq); /* it makes the own term known */
}

/* What goes to the disk is what the steps have changed. */
static bool persists(struct taking *t, const struct raft_effects *eff, uint64_t term,
                     uint64_t vote) {
    struct model_node *m = t->m;
    bool changed = m->term != term || m->vote != vote;

    if (eff->persist_seq > 0)
        m->newest_seq = eff->persist_seq;
    if (!changed)
        return true;
    if (!eff->hard_state_changed || eff->persist_seq == 0 || eff->hard_state.term != m->term ||
        eff->hard_state.vote != m->vote) {
        sim_fail(t->w, "conformance: node %llu does not write term %llu and vote %llu", ULL(t->id),
                 ULL(m->term), ULL(m->vote));
        return false;
    }
    m->hard_seq = eff->persist_seq;
    return model_op_push(t, (struct model_op){.kind = OP_HARD,
                                              .seq = eff->persist_seq,
                                              .index = m->last,
                                              .term = m->term,
                                              .vote = m->vote,
                                              .last_term = m->last ? m->log[m->last].term : 0});
}

void conformance_stepped(void *ctx, const struct raft *r, const struct raft_event *ev,
                         const struct raft_effects *eff) {
    struct sim_node *n = ctx;
    struct world *w = n->world;
    struct conformance *c = w->conformance;
    struct taking t = {.w = w, .c = c, .m = &c->nodes[n->slot + 1], .id = n->slot + 1, .ev = ev};
    uint64_t term = t.m->term, vote = t.m->vote;

    if (w->failed || w->no_memory || !t.m->started)
        return;
    if (!explain(&t, r, eff) || !same(&t, r) || !persists(&t, eff, term, vote))
        return;
    for (size_t i = 0; i < eff->messages_count && !w->failed && !w->no_memory; i++)
        if (!sends(&t, &eff->messages[i]))
            return;
}

/* ---- restarts and what leaves ---------------------------------------------------------------- */

static bool load_configs(struct taking *t, const struct raft *r) {
    uint64_t base = raft_config_committed_index(r);
    struct raft_config c;

    t->m->configs_count = 0;
    if (!model_push_config(t, model_config_of(raft_config_committed(r), base)))
        return false;
    for (uint64_t i = MAX(base + 1, raft_first_in_memory(r)); i <= raft_last_index(r); i++) {
        const struct raft_entry *e = raft_entry_at(r, i);

        if (e->type != RAFT_ENTRY_CONFIG)
            continue;
        if (raft_config_decode(bytes_slice(e->data), &c, NULL) < 0 ||
            !model_push_config(t, model_config_of(&c, i)))
            return false;
    }
    if (base <= raft_commit(r))
        return true;
    sim_fail(t->w, "conformance: node %llu takes the configuration at %llu for committed",
             ULL(t->id), ULL(base));
    return false;
}

/* Its memory is what its disk has. */
static bool load(struct taking *t, const struct raft *r) {
    struct model_node *m = t->m;

    m->term = m->d_term = raft_term(r);
    m->vote = m->d_vote = raft_vote(r);
    m->last = m->d_last = raft_last_index(r);
    m->role = RAFT_FOLLOWER;
    m->commit = raft_commit(r);
    m->compacted = raft_compacted_index(r);
    m->checked = 0;
    m->hard_seq = m->newest_seq = m->durable_seq = 0;
    m->ops_head = m->ops_count = 0;
    if (!model_reserve(t, m->last))
        return false;
    for (uint64_t i = raft_first_in_memory(r); i <= m->last; i++)
        m->d_log[i] = raft_entry_at(r, i)->term;
    for (uint64_t i = 1; i <= m->last; i++)
        m->log[i] = (struct model_entry){.term = m->d_log[i]};
    return load_configs(t, r);
}

void conformance_restarted(struct world *w, struct sim_node *n, bool damaged) {
    struct conformance *c = w->conformance;
    struct taking t = {.w = w, .c = c, .m = &c->nodes[n->slot + 1], .id = n->slot + 1};
    const struct raft *r = replica_raft(n->replica);

    if (w->failed)
        return;
    if (n->wiped && !t.m->wiped)
        t.m->started = false;
    t.m->wiped = n->wiped;
    if (t.m->started && !take_restart(&t, r, damaged))
        return;
    if (!load(&t, r))
        return;
    if (!t.m->started) {
        t.m->owed = 0;
        c->spoken = MAX(c->spoken, t.m->term); /* the first term is given */
        c->done_last = MAX(c->done_last, t.m->commit);
    }
    t.m->started = true;
}

bool conformance_writes_both(const struct sim_node *n) {
    const struct model_node *m = &n->world->conformance->nodes[n->slot + 1];
    bool hard = false, log = false;

    for (size_t i = m->ops_head; i < m->ops_count; i++) {
        hard = hard || m->ops[i].kind == OP_HARD;
        log = log || m->ops[i].kind == OP_APPEND;
    }
    return hard && log;
}

void conformance_sent(struct world *w, struct sim_node *n,
                      const Chronos__Internal__V1__RaftMessage *m) {
    const struct conformance *c = w->conformance;
    uint64_t id = n->slot + 1;
    bool ok = true;

    if (w->failed || !c->nodes[id].started)
        return;
    if (m->type == RAFT_MSG_VOTE_REQ)
        ok = model_said(&c->asked, model_key(m->term, id)) == (m->log_term << 32 | m->log_index);
    else if (m->type == RAFT_MSG_VOTE_RESP && !m->reject)
        ok = model_said(&c->ballots, model_key(m->term, m->to)) >> id & 1;
    else if ((m->type == RAFT_MSG_APPEND_RESP || m->type == RAFT_MSG_SNAPSHOT_RESP) && !m->reject)
        ok = model_said(&c->acked, model_key(m->term, id)) >= m->match;
    if (!ok)
        sim_fail(w,
                 "conformance: %s of node %llu leaves in term %llu (match %llu) before what it "
                 "promises is on its disk",
                 raft_message_type_to_string((enum raft_message_type) m->type), ULL(id),
                 ULL(m->term), ULL(m->match));
}
