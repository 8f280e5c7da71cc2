/* Requests to change the membership or to hand over, from any node to the leader and back.
 *
 * The drawing of their states is in membership_internal.h. Nothing is proposed twice: a request
 * whose fate is unknown is answered so, in words; asking the same again is harmless, because a
 * change that has happened already is answered as such. Thread: the loop. */
#include "node/replica_internal.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CODE_INVALID_ARGUMENT 3
#define CODE_DEADLINE 4
#define CODE_NOT_FOUND 5
#define CODE_RESOURCE_EXHAUSTED 8
#define CODE_FAILED_PRECONDITION 9
#define CODE_ABORTED 10
#define CODE_UNIMPLEMENTED 12
#define CODE_UNAVAILABLE 14

#define ASK_AGAIN_MS 50
/* A joint configuration is left as soon as a majority has it, a live node answers a new leader. */
#define SETTLE_MS 1000

/* An election, and the way of its news back here. */
#define TRANSFER_ELECTIONS 3

static const char unknown_text[] =
    "the outcome is unknown: look at the cluster's status, or ask the same again, which does no "
    "harm";

static unsigned long long ull(uint64_t v) {
    return (unsigned long long) v;
}

/* The one setter of an op's state. */
static void op_set_state(struct change_op *op, enum change_state to) {
    static const bool allowed[5][5] = {
        [CHANGE_NEW] = {[CHANGE_ASKED] = true, [CHANGE_APPENDED] = true, [CHANGE_HANDING] = true},
        [CHANGE_ASKED] = {[CHANGE_NEW] = true, [CHANGE_FOLLOWING] = true},
    };

    ASSERT(allowed[op->state][to]);
    op->state = to;
}

static void op_free(struct change_op *op) {
    if (op->change)
        chronos__internal__v1__change_call__free_unpacked(op->change, NULL);
    free(op);
}

static void op_unlink(struct replica *r, struct change_op *op) {
    struct change_op **p = &r->membership.ops;

    while (*p != op)
        p = &(*p)->next;
    *p = op->next;
    r->membership.ops_count--;
}

static void reply_to_peer(struct change_op *op, uint32_t code, const char *message, uint64_t index,
                          bool changed, bool not_leader) {
    Chronos__Internal__V1__ChangeReply m = CHRONOS__INTERNAL__V1__CHANGE_REPLY__INIT;
    struct bytes *b;

    m.code = code;
    m.message = (char *) (uintptr_t) message; /* packing reads only */
    m.index = index;
    m.changed = changed;
    m.not_leader = not_leader;
    m.term = raft_term(op->replica->raft);
    b = bytes_new(chronos__internal__v1__change_reply__get_packed_size(&m));
    if (b)
        (void) chronos__internal__v1__change_reply__pack(&m, b->data);
    peer_calls_reply(op->replica, op->from, op->from_call, b ? 0 : CODE_RESOURCE_EXHAUSTED, "",
                     bytes_slice(b), false);
    bytes_unref(b);
}

/* Take it out, answer, free. */
static void op_answer(struct change_op *op, uint32_t code, uint64_t index, bool changed,
                      const char *fmt, ...) _printf_(5, 6);
static void op_answer(struct change_op *op, uint32_t code, uint64_t index, bool changed,
                      const char *fmt, ...) {
    char text[500];
    va_list ap;

    va_start(ap, fmt);
    (void) vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    op_unlink(op->replica, op);
    if (op->from)
        reply_to_peer(op, code, text, index, changed, false);
    else
        op->done(op->arg, code, text, index, changed);
    op_free(op);
}

static struct change_op *op_new(struct replica *r, struct mono deadline) {
    struct change_op *op = calloc(1, sizeof(*op));
    struct change_op **tail = &r->membership.ops;

    if (!op)
        return NULL;
    r->now = r->env.clock.mono(r->env.clock.ctx);
    op->replica = r;
    op->deadline = mono_min(deadline, mono_add_ns(r->now, r->o.commit_timeout_ns));
    op->settle_till = mono_add_ms(r->now, SETTLE_MS);
    while (*tail)
        tail = &(*tail)->next;
    *tail = op;
    r->membership.ops_count++;
    r->wants_turn = true;
    return op;
}

/* ---- asking ------------------------------------------------------------------------------------
 */

/* A deep copy, by packing: the only copy that knows every field. */
static Chronos__Internal__V1__ChangeCall *change_copy(const Chronos__Internal__V1__ChangeCall *m) {
    struct bytes *b = bytes_new(chronos__internal__v1__change_call__get_packed_size(m));
    Chronos__Internal__V1__ChangeCall *copy = NULL;

    if (b) {
        (void) chronos__internal__v1__change_call__pack(m, b->data);
        copy = chronos__internal__v1__change_call__unpack(NULL, b->len, b->data);
    }
    bytes_unref(b);
    return copy;
}

int replica_change_membership(struct replica *r, const struct replica_change *c,
                              struct mono deadline, replica_change_fn done, void *arg) {
    Chronos__Internal__V1__ChangeCall m = CHRONOS__INTERNAL__V1__CHANGE_CALL__INIT;
    struct change_op *op;

    m.kind = (uint32_t) c->kind;
    m.id = c->id;
    m.new_id = c->new_id;
    if (c->peer_address)
        m.peer_address = (char *) (uintptr_t) c->peer_address; /* packing reads only */
    if (c->client_address)
        m.client_address = (char *) (uintptr_t) c->client_address;
    m.disk.data = (uint8_t *) (uintptr_t) c->disk;
    m.disk.len = c->disk ? 16 : 0;
    m.stay_learner = c->stay_learner;
    op = op_new(r, deadline);
    if (!op)
        return -ENOMEM;
    op->done = done;
    op->arg = arg;
    op->change = change_copy(&m);
    if (!op->change) {
        op_unlink(r, op);
        op_free(op);
        return -ENOMEM;
    }
    return 0;
}

int replica_request_transfer(struct replica *r, uint64_t to, struct mono deadline,
                             replica_change_fn done, void *arg) {
    struct change_op *op = op_new(r, deadline);

    if (!op)
        return -ENOMEM;
    op->transfer = true;
    op->to = to;
    op->done = done;
    op->arg = arg;
    return 0;
}

static void take_reply(struct change_op *op, const Chronos__Internal__V1__ChangeReply *m) {
    if (m->not_leader) { /* nothing happened there; news of the leader may be on the way */
        op_set_state(op, CHANGE_NEW);
        op->ask_at = mono_add_ms(op->replica->now, ASK_AGAIN_MS);
        return;
    }
    if (op->transfer && m->code == 0) {
        op_set_state(op, CHANGE_FOLLOWING);
        op->term = m->term;
        return;
    }
    op_answer(op, m->code, m->index, m->changed, "%s", m->message);
}

static void asked_reply(void *arg, uint32_t code, struct slice body, bool more) {
    struct change_op *op = arg;
    Chronos__Internal__V1__ChangeReply *m = NULL;

    (void) more;
    op->replica->wants_turn = true;
    if (code == 0)
        m = chronos__internal__v1__change_reply__unpack(NULL, body.len, body.data);
    if (m)
        take_reply(op, m);
    else if (code == CODE_UNIMPLEMENTED)
        op_answer(op, CODE_FAILED_PRECONDITION, 0, false,
                  "the leader runs an older program that cannot do this; nothing was changed");
    else if (code == CODE_DEADLINE)
        op_answer(op, CODE_DEADLINE, 0, false, "the leader did not answer in time; %s",
                  unknown_text);
    else
        op_answer(op, CODE_UNAVAILABLE, 0, false, "the leader was lost while it was asked; %s",
                  unknown_text);
    if (m)
        chronos__internal__v1__change_reply__free_unpacked(m, NULL);
}

static void ask_leader(struct change_op *op, uint64_t leader) {
    struct replica *r = op->replica;
    Chronos__Internal__V1__TransferCall t = CHRONOS__INTERNAL__V1__TRANSFER_CALL__INIT;
    struct bytes *b;
    int rc;

    t.to = op->to;
    b = bytes_new(op->transfer ? chronos__internal__v1__transfer_call__get_packed_size(&t)
                               : chronos__internal__v1__change_call__get_packed_size(op->change));
    if (!b)
        return; /* the next turn tries again */
    if (op->transfer)
        (void) chronos__internal__v1__transfer_call__pack(&t, b->data);
    else
        (void) chronos__internal__v1__change_call__pack(op->change, b->data);
    rc = peer_call_start(r, leader, op->transfer ? PEER_CALL_TRANSFER : PEER_CALL_CHANGE,
                         bytes_slice(b), op->deadline, asked_reply, op, &op->call_id);
    bytes_unref(b);
    if (rc == 0)
        op_set_state(op, CHANGE_ASKED);
}

/* ---- being asked -------------------------------------------------------------------------------
 */

static struct change_op *serve_begin(struct replica *r, uint64_t from, uint64_t call_id) {
    struct change_op *op = r->membership.ops_count < CHANGE_OPS_MAX ? op_new(r, MONO_NEVER) : NULL;

    if (!op) {
        peer_calls_reply(r, from, call_id, CODE_RESOURCE_EXHAUSTED, "", slice_of(NULL, 0), false);
        return NULL;
    }
    op->from = from;
    op->from_call = call_id;
    return op;
}

void change_serve(struct replica *r, uint64_t from, uint64_t call_id, struct slice body) {
    struct change_op *op = serve_begin(r, from, call_id);

    if (!op)
        return;
    op->change = chronos__internal__v1__change_call__unpack(NULL, body.len, body.data);
    if (!op->change) {
        r->bad_messages++;
        op_answer(op, CODE_INVALID_ARGUMENT, 0, false, "the change is malformed");
    }
}

void transfer_serve(struct replica *r, uint64_t from, uint64_t call_id, struct slice body) {
    struct change_op *op = serve_begin(r, from, call_id);
    Chronos__Internal__V1__TransferCall *m;

    if (!op)
        return;
    op->transfer = true;
    m = chronos__internal__v1__transfer_call__unpack(NULL, body.len, body.data);
    if (!m) {
        r->bad_messages++;
        op_answer(op, CODE_INVALID_ARGUMENT, 0, false, "the request is malformed");
        return;
    }
    op->to = m->to;
    chronos__internal__v1__transfer_call__free_unpacked(m, NULL);
}

/* ---- doing it ----------------------------------------------------------------------------------
 */

/* What came with the request besides the place: bound right behind the configuration. */
static void set_facts(struct replica *r, const Chronos__Internal__V1__ChangeCall *c) {
    uint64_t id = c->kind == REPLICA_CHANGE_REPLACE ? c->new_id : c->id;
    const struct fsm_node *n = fsm_node_find(r->fsm, id);
    bool bind = c->disk.len == 16 && !(n && n->bound);

    if (c->kind != REPLICA_CHANGE_ADD && c->kind != REPLICA_CHANGE_REPLACE)
        return;
    if (!bind && !(n && n->bound && c->client_address[0]))
        return; /* an address without a disk belongs to nobody: the node tells it itself */
    (void) identity_propose(r, id, bind ? c->disk.data : NULL, c->peer_address,
                            c->client_address[0] ? c->client_address : NULL, 0);
}

/* As it was asked for already; but until that is committed it may still be taken back. */
static void follow_open(struct change_op *op) {
    struct replica *r = op->replica;
    uint64_t index = raft_config_latest_index(r->raft);
    const struct raft_entry *e = raft_entry_at(r->raft, index);

    if (index <= raft_commit(r->raft) || !e) {
        op_answer(op, 0, index, false, "%s", "");
        return;
    }
    op->index = index;
    op->term = e->term;
    op->as_asked = true;
    op_set_state(op, CHANGE_APPENDED);
}

static void change_begin(struct change_op *op) {
    struct replica *r = op->replica;
    struct change_verdict v;
    int rc;

    membership_judge(r, op->change, &v);
    if (v.code != 0 && v.settling && !mono_reached(r->now, op->settle_till))
        return; /* who asks for one thing after the other need not know of joint configurations */
    if (v.code != 0) {
        op_answer(op, v.code, v.index, false, "%s", v.message);
        return;
    }
    if (!v.changed) {
        follow_open(op);
        return;
    }
    rc = membership_propose(r, &v.config, &op->index, &op->term);
    if (rc != 0)
        return; /* full, or handing over: stays NEW until the deadline */
    set_facts(r, op->change);
    op_set_state(op, CHANGE_APPENDED);
}

/* Who would take over: 0 = nobody can. */
static bool transfer_target_ok(struct change_op *op) {
    struct replica *r = op->replica;
    const struct raft_config *c = raft_config_latest(r->raft);
    const struct raft_member *m = raft_config_find(c, op->to);
    size_t others = 0;

    for (size_t i = 0; i < c->count; i++)
        others += c->members[i].id != r->o.id && c->members[i].flags & RAFT_MEMBER_VOTER &&
                  membership_is_live(r, c->members[i].id);
    if (op->to == 0 && others == 0)
        op_answer(op, CODE_FAILED_PRECONDITION, 0, false,
                  "no other voter is alive that could lead instead of node %llu", ull(r->o.id));
    else if (op->to != 0 && !m)
        op_answer(op, CODE_NOT_FOUND, 0, false, "node %llu is no member of this cluster",
                  ull(op->to));
    else if (op->to != 0 && !(m->flags & RAFT_MEMBER_VOTER))
        op_answer(op, CODE_FAILED_PRECONDITION, 0, false,
                  "node %llu is no voter; only a voter can lead", ull(op->to));
    else if (op->to != 0 && !membership_is_live(r, op->to))
        op_answer(op, CODE_FAILED_PRECONDITION, 0, false,
                  "node %llu has not been heard from for a while; it could not take over",
                  ull(op->to));
    else
        return true;
    return false;
}

static void transfer_begin(struct change_op *op) {
    struct replica *r = op->replica;
    struct raft_event ev = {.type = RAFT_EV_TRANSFER, .transfer_to = op->to};

    if (op->to == r->o.id) {
        op_answer(op, 0, 0, false, "%s", "");
        return;
    }
    if (op->to && membership_is_unheard(r, op->to) && !mono_reached(r->now, op->settle_till))
        return; /* its first answer is on the way */
    if (!transfer_target_ok(op))
        return;
    op->term = raft_term(r->raft);
    op->deadline = mono_min(
        op->deadline, mono_add_ns(r->now, TRANSFER_ELECTIONS * r->o.raft.election_timeout_max_ns));
    op_set_state(op, CHANGE_HANDING);
    (void) replica_step(r, &ev, NULL);
}

/* True when it was committed or can no longer be. */
static void look_appended(struct change_op *op) {
    struct replica *r = op->replica;
    const struct raft_entry *e;

    if (raft_commit(r->raft) < op->index)
        return;
    e = raft_entry_at(r->raft, op->index);
    if (e && e->term == op->term)
        op_answer(op, 0, op->index, !op->as_asked, "%s", "");
    else if (e)
        op_answer(op, CODE_ABORTED, 0, false,
                  "another leader took over before the change was committed; nothing was changed");
    else
        op_answer(op, CODE_UNAVAILABLE, 0, false, "leadership was lost meanwhile; %s",
                  unknown_text);
}

static void look_handing(struct change_op *op) {
    struct replica *r = op->replica;
    uint64_t leader = raft_leader(r->raft);

    if (raft_term(r->raft) == op->term || leader == 0 || leader == r->o.id)
        return;
    if (op->to == 0 || leader == op->to)
        op_answer(op, 0, 0, true, "%s", "");
    else
        op_answer(op, CODE_FAILED_PRECONDITION, 0, false,
                  "node %llu leads now, not node %llu: ask again", ull(leader), ull(op->to));
}

static void op_run(struct change_op *op) {
    struct replica *r = op->replica;
    uint64_t leader = raft_leader(r->raft);

    switch (op->state) {
    case CHANGE_NEW:
        if (replica_leads(r) && op->transfer)
            transfer_begin(op);
        else if (replica_leads(r))
            change_begin(op);
        else if (leader == r->o.id)
            break; /* its term's first entry is on the way */
        else if (op->from) {
            reply_to_peer(op, 0, "", 0, false, true);
            op_unlink(r, op);
            op_free(op);
        } else if (leader != 0 && mono_reached(r->now, op->ask_at))
            ask_leader(op, leader);
        break;
    case CHANGE_ASKED:
        break;
    case CHANGE_APPENDED:
        look_appended(op);
        break;
    case CHANGE_HANDING:
        look_handing(op);
        break;
    case CHANGE_FOLLOWING:
        if (raft_term(r->raft) >= op->term && leader != 0)
            op_answer(op, 0, 0, true, "%s", "");
        break;
    }
}

/* Deadline reached. ASKED has its call's. */
static void op_expire(struct change_op *op) {
    switch (op->state) {
    case CHANGE_NEW:
        op_answer(op, CODE_UNAVAILABLE, 0, false,
                  "no leader took the request in time; nothing was changed");
        break;
    case CHANGE_ASKED:
        break;
    case CHANGE_APPENDED:
        op_answer(op, CODE_DEADLINE, op->index, false,
                  "log entry %llu was not committed in time; %s", ull(op->index), unknown_text);
        break;
    case CHANGE_HANDING:
        if (op->to)
            op_answer(op, CODE_FAILED_PRECONDITION, 0, false,
                      "node %llu could not take over within an election timeout", ull(op->to));
        else
            op_answer(op, CODE_FAILED_PRECONDITION, 0, false,
                      "no other voter could take over within an election timeout");
        break;
    case CHANGE_FOLLOWING: /* the old leader knows the new one; this node hears of it by itself */
        op_answer(op, 0, 0, true, "%s", "");
        break;
    }
}

void change_ops_run(struct replica *r) {
    struct change_op *op = r->membership.ops;

    while (op && !r->failed) {
        struct change_op *next = op->next;

        if (mono_reached(r->now, op->deadline) && op->state != CHANGE_ASKED)
            op_expire(op);
        else
            op_run(op);
        op = next;
    }
}

struct mono change_ops_deadline(const struct replica *r) {
    struct mono d = MONO_NEVER;

    for (const struct change_op *op = r->membership.ops; op; op = op->next) {
        if (op->state == CHANGE_ASKED)
            continue;
        d = mono_min(d, op->deadline);
        if (op->state == CHANGE_NEW && !mono_reached(r->now, op->ask_at))
            d = mono_min(d, op->ask_at);
        if (op->state == CHANGE_NEW && !mono_reached(r->now, op->settle_till))
            d = mono_min(d, op->settle_till);
    }
    return d;
}

void change_ops_free(struct replica *r) {
    struct change_op *op = r->membership.ops;

    while (op) {
        struct change_op *next = op->next;

        if (!op->from)
            op->done(op->arg, CODE_UNAVAILABLE,
                     op->state == CHANGE_NEW ? "the node is stopping; nothing was changed"
                                             : "the node is stopping; the outcome is unknown",
                     0, false);
        op_free(op);
        op = next;
    }
    r->membership.ops = NULL;
    r->membership.ops_count = 0;
}
