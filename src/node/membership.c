/* Changing who belongs to the cluster: what the leader allows, proposes and finishes.
 *
 * One change at a time (R11). A new member is a learner first; when it has caught up, the leader
 * puts it among the voters through a joint configuration (section 6), and another entry ends that.
 * All of it follows from the configuration in the log, so a new leader goes on where the old one
 * stopped. What is judged here is refused in words before anything is proposed. Thread: the loop.
 */
#include "node/replica_internal.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CODE_INVALID_ARGUMENT 3
#define CODE_NOT_FOUND 5
#define CODE_ALREADY_EXISTS 6
#define CODE_FAILED_PRECONDITION 9
#define CODE_UNAVAILABLE 14

typedef Chronos__Internal__V1__ChangeCall change_call;

static void refuse(struct change_verdict *v, uint32_t code, const char *fmt, ...) _printf_(3, 4);
static void refuse(struct change_verdict *v, uint32_t code, const char *fmt, ...) {
    va_list ap;

    ASSERT(code != 0);
    v->code = code;
    va_start(ap, fmt);
    (void) vsnprintf(v->message, sizeof(v->message), fmt, ap);
    va_end(ap);
}

static unsigned long long ull(uint64_t v) {
    return (unsigned long long) v;
}

/* ---- looking at a configuration ----------------------------------------------------------------
 */

static size_t voters_of(const struct raft_config *c) {
    size_t n = 0;

    for (size_t i = 0; i < c->count; i++)
        n += (c->members[i].flags & RAFT_MEMBER_VOTER) != 0;
    return n;
}

static const struct raft_member *promoted_of(const struct raft_config *c) {
    for (size_t i = 0; i < c->count; i++)
        if (c->members[i].flags & RAFT_MEMBER_PROMOTE)
            return &c->members[i];
    return NULL;
}

const char *membership_of(const struct raft_config *config, const struct raft_member *m) {
    if (m->flags & RAFT_MEMBER_PROMOTE || (config->joint && m->flags == RAFT_MEMBER_VOTER))
        return "catching_up"; /* a voter once the joint configuration is left */
    if (m->flags & RAFT_MEMBER_VOTER)
        return "voter";
    if (config->joint && m->flags == RAFT_MEMBER_VOTER_OLD)
        return "leaving";
    return "learner";
}

bool membership_is_live(struct replica *r, uint64_t id) {
    struct raft_peer_status st;

    if (id == r->o.id)
        return true;
    return raft_peer_status(r->raft, id, &st) == 0 && st.contacted &&
           mono_diff_ns(r->now, st.last_contact) < r->o.peer_liveness_ns;
}

bool membership_is_unheard(struct replica *r, uint64_t id) {
    struct raft_peer_status st;

    return raft_peer_status(r->raft, id, &st) == 0 && !st.contacted;
}

void membership_open_change(struct replica *r, char *out, size_t out_bytes) {
    const struct raft_config *c = raft_config_latest(r->raft);
    const struct raft_member *m = c ? promoted_of(c) : NULL;
    struct raft_peer_status st = {0};

    out[0] = '\0';
    if (c && c->joint) {
        (void) snprintf(out, out_bytes, "the voters are being changed (joint configuration %llu)",
                        ull(raft_config_latest_index(r->raft)));
    } else if (m) {
        if (raft_peer_status(r->raft, m->id, &st) != 0)
            st.match = 0; /* this node does not lead: it does not know */
        (void) snprintf(out, out_bytes,
                        "node %llu at %s is catching up (%llu of %llu) to become a voter%s",
                        ull(m->id), m->address, ull(st.match), ull(raft_commit(r->raft)),
                        m->replaces ? " in the place of another" : "");
    } else if (c && raft_config_latest_index(r->raft) > raft_commit(r->raft)) {
        (void) snprintf(out, out_bytes, "configuration %llu is not committed yet",
                        ull(raft_config_latest_index(r->raft)));
    }
}

/* ---- the next configuration --------------------------------------------------------------------
 */

/* What raft says about a step that was judged well before: a bug here or a limit not named there.
 */
static bool stepped(int rc, struct change_verdict *v, const struct errtext *why) {
    if (rc == 0)
        v->changed = true;
    else
        refuse(v, CODE_FAILED_PRECONDITION, "%s", why->s);
    return rc == 0;
}

/* Joint, from the present voters to those without @without (0 = nobody) and with @with. */
static int enter_joint(struct raft_config *c, uint64_t without, uint64_t with, bool keep,
                       struct errtext *why) {
    uint64_t voters[RAFT_NODES_MAX];
    size_t n = 0;

    for (size_t i = 0; i < c->count; i++) {
        uint64_t id = c->members[i].id;

        if (id == with || (id != without && c->members[i].flags & RAFT_MEMBER_VOTER))
            voters[n++] = id;
    }
    return raft_config_enter_joint(c, voters, n, keep, c, why);
}

/* The learner becomes a voter; the one that it replaces leaves in the same change. */
static int promote_now(struct raft_config *c, uint64_t id, struct errtext *why) {
    const struct raft_member *m = raft_config_find(c, id);
    const struct raft_member *old = m->replaces ? raft_config_find(c, m->replaces) : NULL;
    uint64_t without = old && old->flags & RAFT_MEMBER_VOTER ? old->id : 0;
    int rc = 0;

    if (old && !without)
        rc = raft_config_remove_learner(c, old->id, c, why);
    return rc < 0 ? rc : enter_joint(c, without, id, false, why);
}

/* ---- judging -----------------------------------------------------------------------------------
 */

/* host:port, as net.h parsers below take it: a host without blanks, a port from 1 to 65535, an
 * address with colons in brackets. */
static bool address_ok(const char *s) {
    const char *colon = strrchr(s, ':');
    size_t host = colon ? (size_t) (colon - s) : 0;
    unsigned long port = 0;

    if (!colon || host == 0 || strlen(s) >= RAFT_ADDRESS_BYTES_MAX)
        return false;
    for (const char *p = s; p < colon; p++)
        if (*p <= ' ' || *p > '~' || *p == '"')
            return false;
    if (s[0] == '[' ? s[host - 1] != ']' : memchr(s, ':', host) != NULL)
        return false;
    for (const char *p = colon + 1; *p; p++) {
        if (*p < '0' || *p > '9' || p - colon > 5)
            return false;
        port = port * 10 + (unsigned long) (*p - '0');
    }
    return port > 0 && port <= 65535;
}

static bool judge_request(const change_call *c, struct change_verdict *v) {
    bool replace = c->kind == REPLICA_CHANGE_REPLACE;

    if (c->kind > REPLICA_CHANGE_REPLACE) {
        refuse(v, CODE_INVALID_ARGUMENT, "this node knows no membership change %u", c->kind);
        return false;
    }
    if (c->id == 0 || c->id > NODE_ID_MAX) {
        refuse(v, CODE_INVALID_ARGUMENT, "%s: %llu is no node id; 1 to 65535 expected",
               replace ? "old_id" : "id", ull(c->id));
        return false;
    }
    if (replace && (c->new_id == 0 || c->new_id > NODE_ID_MAX || c->new_id == c->id)) {
        refuse(v, CODE_INVALID_ARGUMENT,
               "new_id: %llu cannot replace node %llu; another id of 1 to 65535 expected",
               ull(c->new_id), ull(c->id));
        return false;
    }
    if ((replace || c->kind == REPLICA_CHANGE_ADD) && !address_ok(c->peer_address)) {
        refuse(v, CODE_INVALID_ARGUMENT,
               "peer_address: \"%.100s\" is no host:port of at most %d bytes", c->peer_address,
               RAFT_ADDRESS_BYTES_MAX - 1);
        return false;
    }
    if ((replace || c->kind == REPLICA_CHANGE_ADD) && c->client_address[0] &&
        !address_ok(c->client_address)) {
        refuse(v, CODE_INVALID_ARGUMENT,
               "client_address: \"%.100s\" is no host:port of at most %d bytes", c->client_address,
               RAFT_ADDRESS_BYTES_MAX - 1);
        return false;
    }
    if (c->disk.len != 0 && c->disk.len != 16) {
        refuse(v, CODE_INVALID_ARGUMENT, "disk: %zu bytes; 16 expected, or none", c->disk.len);
        return false;
    }
    return true;
}

static const char *address_of(struct replica *r, const struct raft_member *m) {
    const struct fsm_node *n = fsm_node_find(r->fsm, m->id);

    return n && n->peer_address && n->peer_address[0] ? n->peer_address : m->address;
}

/* The id belongs to a member already: the same request again (id, address and disk; whether it was
 * to stay a learner is the business of promote and demote), or something else. */
static void judge_again(struct replica *r, const change_call *c, const struct raft_member *m,
                        struct change_verdict *v) {
    const struct fsm_node *n = fsm_node_find(r->fsm, m->id);
    const char *address = address_of(r, m);

    if (strcmp(address, c->peer_address) != 0 && strcmp(m->address, c->peer_address) != 0)
        refuse(v, CODE_FAILED_PRECONDITION, "node %llu is a member already, at %s", ull(m->id),
               address);
    else if (c->disk.len == 16 && n && n->bound && memcmp(n->disk, c->disk.data, 16) != 0)
        refuse(v, CODE_FAILED_PRECONDITION,
               "node %llu is a member already, with another disk; a new disk needs a new id",
               ull(m->id));
}

/* An id and an address for a member to be. True when it may be added. */
static bool judge_newcomer(struct replica *r, const change_call *c, uint64_t id,
                           struct change_verdict *v) {
    const struct fsm_node *n = fsm_node_find(r->fsm, id);
    const struct raft_config *config = &v->config;

    /* Who was removed by an entry that is not applied here yet looks like nobody: its id would be
     * given away again. A disk that hangs keeps the state that far behind. */
    if (raft_config_latest_index(r->raft) > fsm_applied_index(r->fsm)) {
        v->settling = true;
        refuse(v, CODE_UNAVAILABLE,
               "the last change of the membership is not applied yet; try again");
        return false;
    }
    if (n && n->removed) {
        refuse(v, CODE_FAILED_PRECONDITION,
               "id %llu was used before by a node that is removed; ids are never used again",
               ull(id));
        return false;
    }
    for (size_t i = 0; i < config->count; i++) {
        const struct raft_member *m = &config->members[i];

        if (strcmp(address_of(r, m), c->peer_address) != 0)
            continue;
        refuse(v, CODE_ALREADY_EXISTS, "peer_address: %s is the address of node %llu",
               c->peer_address, ull(m->id));
        return false;
    }
    for (const struct fsm_node *o = fsm_node_first(r->fsm); c->disk.len == 16 && o; o = o->next) {
        if (o->id == id || !o->bound || memcmp(o->disk, c->disk.data, 16) != 0)
            continue;
        refuse(v, CODE_FAILED_PRECONDITION, "disk: belongs to node %llu", ull(o->id));
        return false;
    }
    if (config->count >= RAFT_NODES_MAX) {
        refuse(v, CODE_FAILED_PRECONDITION, "the cluster has %zu members, the most there can be",
               config->count);
        return false;
    }
    if (!c->stay_learner && c->kind == REPLICA_CHANGE_ADD && voters_of(config) >= VOTERS_MAX) {
        refuse(v, CODE_FAILED_PRECONDITION,
               "the cluster has %zu voters, the most there can be; node %llu may be a learner",
               voters_of(config), ull(id));
        return false;
    }
    return true;
}

/* True when a change may begin. */
static bool judge_closed(struct replica *r, struct change_verdict *v) {
    char open[300];

    membership_open_change(r, open, sizeof(open));
    if (!open[0])
        return true;
    v->settling = !promoted_of(&v->config);
    refuse(v, CODE_FAILED_PRECONDITION, "another change is open: %s", open);
    return false;
}

/* @id is to vote no more: somebody must, and most of them must be there. */
static bool judge_rest(struct replica *r, uint64_t id, struct change_verdict *v) {
    const struct raft_config *c = &v->config;
    size_t voters = 0, live = 0, unheard = 0;

    for (size_t i = 0; i < c->count; i++) {
        if (!(c->members[i].flags & RAFT_MEMBER_VOTER) || c->members[i].id == id)
            continue;
        voters++;
        unheard += membership_is_unheard(r, c->members[i].id);
        live += membership_is_live(r, c->members[i].id);
    }
    if (voters == 0) {
        refuse(v, CODE_FAILED_PRECONDITION, "node %llu is the last voter; add another one first",
               ull(id));
        return false;
    }
    if (2 * live <= voters) {
        v->settling = unheard > 0;
        refuse(v, CODE_FAILED_PRECONDITION,
               "without node %llu only %zu of %zu voters would be alive, which is no majority: "
               "nothing could be committed any more",
               ull(id), live, voters);
        return false;
    }
    return true;
}

static void judge_add(struct replica *r, const change_call *c, struct change_verdict *v) {
    const struct raft_member *m = raft_config_find(&v->config, c->id);
    struct errtext why = {0};

    if (m)
        judge_again(r, c, m, v);
    else if (judge_newcomer(r, c, c->id, v) && judge_closed(r, v))
        (void) stepped(raft_config_add_learner(&v->config, c->id, c->peer_address, !c->stay_learner,
                                               0, &v->config, &why),
                       v, &why);
}

static void no_member(struct replica *r, uint64_t id, struct change_verdict *v) {
    const struct fsm_node *n = fsm_node_find(r->fsm, id);

    refuse(v, CODE_NOT_FOUND, "node %llu is no member of this cluster%s", ull(id),
           n && n->removed ? " any more" : "");
}

/* A change of a learner that catches up ends the open change; nothing else may be open. */
static bool judge_learner_closed(struct replica *r, const struct raft_member *m,
                                 struct change_verdict *v) {
    bool settled = !v->config.joint && raft_config_latest_index(r->raft) <= raft_commit(r->raft);

    return (settled && m->flags & RAFT_MEMBER_PROMOTE) || judge_closed(r, v);
}

static void judge_remove(struct replica *r, const change_call *c, struct change_verdict *v) {
    const struct fsm_node *n = fsm_node_find(r->fsm, c->id);
    const struct raft_member *m = raft_config_find(&v->config, c->id);
    struct errtext why = {0};

    if (!m) {
        if (!n || !n->removed)
            no_member(r, c->id, v);
        return; /* removed already: as asked */
    }
    if (m->flags == RAFT_MEMBER_VOTER_OLD)
        return; /* it is leaving */
    if (m->flags & RAFT_MEMBER_VOTER) {
        if (judge_closed(r, v) && judge_rest(r, c->id, v))
            (void) stepped(enter_joint(&v->config, c->id, 0, false, &why), v, &why);
    } else if (judge_learner_closed(r, m, v)) {
        (void) stepped(raft_config_remove_learner(&v->config, c->id, &v->config, &why), v, &why);
    }
}

static void judge_promote(struct replica *r, const change_call *c, struct change_verdict *v) {
    const struct raft_member *m = raft_config_find(&v->config, c->id);
    struct errtext why = {0};

    if (!m) {
        no_member(r, c->id, v);
        return;
    }
    if (m->flags & (RAFT_MEMBER_VOTER | RAFT_MEMBER_PROMOTE) || !judge_closed(r, v))
        return;
    if (voters_of(&v->config) >= VOTERS_MAX) {
        refuse(v, CODE_FAILED_PRECONDITION, "the cluster has %zu voters, the most there can be",
               voters_of(&v->config));
        return;
    }
    (void) stepped(raft_config_set_promote(&v->config, c->id, true, 0, &v->config, &why), v, &why);
}

static void judge_demote(struct replica *r, const change_call *c, struct change_verdict *v) {
    const struct raft_member *m = raft_config_find(&v->config, c->id);
    struct errtext why = {0};

    if (!m) {
        no_member(r, c->id, v);
        return;
    }
    if (m->flags == RAFT_MEMBER_LEARNER ||
        m->flags == (RAFT_MEMBER_LEARNER | RAFT_MEMBER_VOTER_OLD))
        return;
    if (m->flags & RAFT_MEMBER_PROMOTE) { /* it stays what it is */
        if (judge_learner_closed(r, m, v))
            (void) stepped(raft_config_set_promote(&v->config, c->id, false, 0, &v->config, &why),
                           v, &why);
    } else if (judge_closed(r, v) && judge_rest(r, c->id, v)) {
        (void) stepped(enter_joint(&v->config, c->id, 0, true, &why), v, &why);
    }
}

/* A learner is replaced by a learner, at once; a voter by who has caught up. */
static void replace_begin(const change_call *c, bool voter, struct change_verdict *v) {
    struct raft_config next = v->config;
    struct errtext why = {0};
    int rc = 0;

    if (!voter)
        rc = raft_config_remove_learner(&next, c->id, &next, &why);
    if (rc == 0)
        rc = raft_config_add_learner(&next, c->new_id, c->peer_address, voter, voter ? c->id : 0,
                                     &next, &why);
    if (stepped(rc, v, &why))
        v->config = next;
}

static void judge_replace(struct replica *r, const change_call *c, struct change_verdict *v) {
    const struct raft_member *old = raft_config_find(&v->config, c->id);
    const struct raft_member *m = raft_config_find(&v->config, c->new_id);
    const struct fsm_node *gone = fsm_node_find(r->fsm, c->id);
    bool leaving = old && old->flags == RAFT_MEMBER_VOTER_OLD;

    if (m && (m->replaces == c->id || leaving || (!old && gone && gone->removed)))
        judge_again(r, c, m, v);
    else if (!old)
        no_member(r, c->id, v);
    else if (m)
        refuse(v, CODE_FAILED_PRECONDITION, "new_id: node %llu is a member already", ull(m->id));
    else if (judge_newcomer(r, c, c->new_id, v) && judge_closed(r, v))
        replace_begin(c, (old->flags & RAFT_MEMBER_VOTER) != 0, v);
}

void membership_judge(struct replica *r, const change_call *c, struct change_verdict *ret) {
    *ret = (struct change_verdict){.index = raft_config_latest_index(r->raft)};
    ret->config = *raft_config_latest(r->raft);
    if (!judge_request(c, ret))
        return;
    switch ((enum replica_change_kind) c->kind) {
    case REPLICA_CHANGE_ADD:
        judge_add(r, c, ret);
        break;
    case REPLICA_CHANGE_REMOVE:
        judge_remove(r, c, ret);
        break;
    case REPLICA_CHANGE_PROMOTE:
        judge_promote(r, c, ret);
        break;
    case REPLICA_CHANGE_DEMOTE:
        judge_demote(r, c, ret);
        break;
    case REPLICA_CHANGE_REPLACE:
        judge_replace(r, c, ret);
        break;
    }
    ASSERT(ret->code == 0 || !ret->changed);
}

/* ---- going on ----------------------------------------------------------------------------------
 */

static void log_config(struct replica *r, const struct raft_config *c, uint64_t index) {
    size_t voters = voters_of(c);

    log_info(r->env.log, "membership", "node=%llu index=%llu members=%zu voters=%zu joint=%s",
             ull(r->o.id), ull(index), c->count, voters, c->joint ? "true" : "false");
    if (!c->joint && voters % 2 == 0)
        log_warn(r->env.log,
                 "an even number of voters tolerates no more failures than one fewer would",
                 "voters=%zu", voters);
}

int membership_propose(struct replica *r, const struct raft_config *config, uint64_t *ret_index,
                       uint64_t *ret_term) {
    struct raft_event ev = {.type = RAFT_EV_PROPOSE};
    struct raft_entry entry = {.type = RAFT_ENTRY_CONFIG};
    const struct raft_effects *eff = NULL;
    enum raft_propose_result result = RAFT_PROPOSE_NOT_LEADER;

    entry.data = raft_config_encode(config);
    if (!entry.data) {
        replica_fail(r, -ENOMEM, "membership: out of memory");
        return RAFT_PROPOSE_NOT_LEADER;
    }
    ev.propose.entries = &entry;
    ev.propose.count = 1;
    if (replica_step(r, &ev, &eff) == 0) {
        result = eff->propose_result;
        *ret_index = eff->propose_first_index;
        *ret_term = eff->propose_term;
    }
    bytes_unref(entry.data);
    if (result != RAFT_PROPOSE_ACCEPTED)
        return (int) result;
    log_config(r, config, *ret_index);
    return 0;
}

/* Dissertation 4.2.1: the learner has got, within one round, all that was in the log when the round
 * began, and lacks little of what came meanwhile. */
static bool caught_up(struct replica *r, uint64_t id) {
    struct membership *m = &r->membership;
    struct raft_peer_status st;

    if (raft_peer_status(r->raft, id, &st) != 0 || !membership_is_live(r, id))
        return false;
    if (m->round_of != id) {
        m->round_of = id;
        m->round_target = raft_last_index(r->raft);
    }
    if (st.match < m->round_target)
        return false;
    if (st.match + CAUGHT_UP_ENTRIES >= raft_commit(r->raft))
        return true;
    m->round_target = raft_last_index(r->raft);
    return false;
}

/* What the configuration in force asks the leader to do next. */
static void go_on(struct replica *r) {
    const struct raft_config *now = raft_config_latest(r->raft);
    const struct raft_member *learner = promoted_of(now);
    struct raft_config next;
    uint64_t index = 0, term = 0;
    struct errtext why = {0};
    int rc;

    if (raft_config_latest_index(r->raft) > raft_commit(r->raft))
        return; /* one step at a time */
    if (!learner)
        r->membership.round_of = 0;
    if (!now->joint && !(learner && caught_up(r, learner->id)))
        return;
    next = *now;
    if (now->joint)
        rc = raft_config_leave_joint(now, &next, &why);
    else
        rc = promote_now(&next, learner->id, &why);
    if (rc == 0) /* refused (raft is full): the next turn tries again */
        (void) membership_propose(r, &next, &index, &term);
    else
        log_error(r->env.log, "the membership change cannot go on", "reason=\"%s\"", why.s);
}

void membership_applied(struct replica *r) {
    r->membership.facts_changed = true;
    r->wants_turn = true;
}

/* From the log or with a snapshot: what is applied is committed, so this is for good. */
static void check_self(struct replica *r) {
    const struct fsm_node *self = fsm_node_find(r->fsm, r->o.id);
    uint64_t index = 0;

    if (!self || !self->removed)
        return;
    (void) fsm_config(r->fsm, &index);
    replica_fail(r, ERR_FOREIGN, "node %llu was removed from the cluster at index %llu",
                 ull(r->o.id), ull(index));
}

void membership_turn(struct replica *r) {
    peers_sync(r);
    check_self(r);
    if (r->failed)
        return;
    if (replica_leads(r))
        go_on(r);
    identity_run(r);
    features_run(r);
    drain_run(r);
    change_ops_run(r);
}

struct mono membership_deadline(const struct replica *r) {
    struct mono d = mono_min(change_ops_deadline(r), peers_deadline(r));

    return mono_min(d, r->membership.drain_at);
}
