/* Proposals: from a bounded channel into the log, and back as an answer.
 *
 * The drawing of their states is in replica_internal.h. A proposal is answered when an entry that
 * carries its origin is applied, wherever and under whichever leader it was appended. It is put
 * back into the channel only when it is certain that the first try can never commit, or when
 * committing it twice does no harm (REPLICA_RETRY_SAFE). What a leader decided is not put back at
 * all (REPLICA_OWN_TERM). Those of other nodes are in forwards.c. Thread: the loop. */
#include "node/replica_internal.h"

#include "base/codec.h"
#include "fsm/command.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct proposal_list *queue_of(struct replica *r, const struct proposal *p) {
    if (p->state != PROPOSAL_QUEUED)
        return &r->proposals.in_flight;
    return p->flags & REPLICA_INTERNAL ? &r->proposals.internal : &r->proposals.client;
}

static void list_remove(struct proposal_list *l, struct proposal *p) {
    if (p->prev)
        p->prev->next = p->next;
    else
        l->head = p->next;
    if (p->next)
        p->next->prev = p->prev;
    else
        l->tail = p->prev;
    p->prev = p->next = NULL;
    l->count--;
}

static void list_append(struct proposal_list *l, struct proposal *p) {
    p->prev = l->tail;
    p->next = NULL;
    if (l->tail)
        l->tail->next = p;
    else
        l->head = p;
    l->tail = p;
    l->count++;
}

/* The one setter of a proposal's state. */
static void proposal_set_state(struct replica *r, struct proposal *p, enum proposal_state to) {
    static const bool allowed[3][3] = {
        [PROPOSAL_QUEUED] = {[PROPOSAL_FORWARDED] = true, [PROPOSAL_APPENDED] = true},
        [PROPOSAL_FORWARDED] = {[PROPOSAL_QUEUED] = true, [PROPOSAL_APPENDED] = true},
        [PROPOSAL_APPENDED] = {[PROPOSAL_QUEUED] = true},
    };

    ASSERT(allowed[p->state][to]);
    if (p->state == PROPOSAL_FORWARDED)
        r->proposals.forwarded--;
    list_remove(queue_of(r, p), p);
    p->state = to;
    if (to == PROPOSAL_QUEUED)
        p->index = p->term = 0;
    if (to == PROPOSAL_FORWARDED)
        r->proposals.forwarded++;
    list_append(queue_of(r, p), p);
}

/* Take it out of everything, answer, free. */
static void proposal_answer(struct replica *r, struct proposal *p,
                            const struct replica_proposed *res) {
    if (p->state == PROPOSAL_FORWARDED)
        r->proposals.forwarded--;
    list_remove(queue_of(r, p), p);
    timer_heap_remove(&r->proposals.deadlines, &p->timer);
    (void) u64map_del(&r->proposals.by_origin, p->origin);
    p->done(p->arg, res);
    bytes_unref(p->data);
    free(p);
}

int proposals_init(struct replica *r) {
    uint64_t random = r->env.random.next(r->env.random.ctx);

    /* Node id above, a counter from a random start below: no two lives of a node and no two nodes
     * share an origin. */
    r->proposals.next_origin = random & ((1ULL << ORIGIN_COUNTER_BITS) - 1);
    return 0;
}

void proposals_free(struct replica *r) {
    struct proposals *ps = &r->proposals;
    struct proposal_list *lists[] = {&ps->internal, &ps->client, &ps->in_flight};
    const struct replica_proposed stopping = {.status = REPLICA_STOPPING};

    for (size_t i = 0; i < ARRAY_LEN(lists); i++)
        while (lists[i]->head)
            proposal_answer(r, lists[i]->head, &stopping);
    u64map_done(&ps->by_origin);
    timer_heap_done(&ps->deadlines);
}

static uint64_t new_origin(struct replica *r) {
    uint64_t mask = (1ULL << ORIGIN_COUNTER_BITS) - 1;

    r->proposals.next_origin = (r->proposals.next_origin + 1) & mask;
    return (r->o.id << ORIGIN_COUNTER_BITS) | r->proposals.next_origin;
}

static struct bytes *wrap_command(struct bytes *command, uint64_t origin) {
    struct bytes *data = bytes_new(ENTRY_HEADER_BYTES + command->len);

    if (!data)
        return NULL;
    memset(data->data, 0, ENTRY_HEADER_BYTES);
    data->data[0] = ENTRY_HEADER_VERSION;
    put_le64(data->data + 8, origin);
    memcpy(data->data + ENTRY_HEADER_BYTES, command->data, command->len);
    return data;
}

static int propose_checked(struct replica *r, struct bytes *command, unsigned flags,
                           struct mono deadline, replica_propose_fn done, void *arg) {
    struct proposals *ps = &r->proposals;
    struct mono now = r->env.clock.mono(r->env.clock.ctx);
    struct proposal *p;
    int rc;

    rc = timer_heap_reserve(&ps->deadlines);
    if (rc < 0)
        return rc;
    p = calloc(1, sizeof(*p));
    if (!p)
        return -ENOMEM;
    *p = (struct proposal){.state = PROPOSAL_QUEUED,
                           .flags = flags,
                           .origin = new_origin(r),
                           .term = flags & REPLICA_OWN_TERM ? raft_term(r->raft) : 0,
                           .done = done,
                           .arg = arg};
    p->data = wrap_command(command, p->origin);
    if (!p->data) {
        free(p);
        return -ENOMEM;
    }
    rc = u64map_put(&ps->by_origin, p->origin, p);
    if (rc < 0) {
        bytes_unref(p->data);
        free(p);
        return rc;
    }
    /* A leader waits for what becomes of its decisions, or it would decide the same again while the
     * first is on its way. It learns it: they are applied, or its term ends. */
    if (!(flags & REPLICA_OWN_TERM))
        deadline = mono_min(deadline, mono_add_ns(now, r->o.commit_timeout_ns));
    rc = timer_heap_add(&ps->deadlines, &p->timer, deadline);
    ASSERT(rc == 0); /* reserved above */
    list_append(queue_of(r, p), p);
    r->wants_turn = true;
    return 0;
}

int replica_propose(struct replica *r, struct bytes *command, unsigned flags, struct mono deadline,
                    replica_propose_fn done, void *arg) {
    int rc;

    ASSERT(done);
    ASSERT(!(flags & REPLICA_OWN_TERM) || (flags & REPLICA_INTERNAL && replica_leads(r)));
    if (command->len > COMMAND_BYTES_MAX) {
        bytes_unref(command);
        return ERR_LIMIT;
    }
    rc = features_check(r, bytes_slice(command));
    if (rc < 0) {
        bytes_unref(command);
        return rc;
    }
    if (!(flags & REPLICA_INTERNAL) && disk_space_refuses(r, bytes_slice(command))) {
        bytes_unref(command);
        return REPLICA_NO_SPACE;
    }
    if (!(flags & REPLICA_INTERNAL) && r->proposals.client.count >= r->o.pending_proposals_max) {
        /* A burst within one turn is no backlog: offer it to raft before refusing. */
        r->now = r->env.clock.mono(r->env.clock.ctx);
        proposals_drain(r);
        if (r->proposals.client.count >= r->o.pending_proposals_max) {
            bytes_unref(command);
            return REPLICA_FULL;
        }
    }
    rc = r->failed ? r->failed : propose_checked(r, command, flags, deadline, done, arg);
    bytes_unref(command);
    return rc;
}

/* ---- into the log ---------------------------------------------------------------------------- */

/* The decision of a leader that is none any more. Passed on, it would take jobs out of their order
 * (J20) and leases from workers that the new leader has just granted in full (J13). */
static bool is_overtaken(const struct replica *r, const struct proposal *p) {
    return p->flags & REPLICA_OWN_TERM &&
           (raft_role(r->raft) != RAFT_LEADER || raft_term(r->raft) != p->term);
}

/* At the head of @queue; those behind it have their turn later. */
static void drop_overtaken(struct replica *r, struct proposal_list *queue) {
    const struct replica_proposed never = {.status = REPLICA_NO_LEADER};

    while (queue->head && is_overtaken(r, queue->head))
        proposal_answer(r, queue->head, &never);
}

bool proposals_append(struct replica *r, const struct raft_entry *entries, size_t n,
                      enum raft_propose_result *ret_result, uint64_t *ret_index,
                      uint64_t *ret_term) {
    struct raft_event ev = {.type = RAFT_EV_PROPOSE};
    const struct raft_effects *eff = NULL;

    *ret_result = RAFT_PROPOSE_NOT_LEADER;
    ev.propose.entries = entries;
    ev.propose.count = n;
    if (replica_step(r, &ev, &eff) < 0)
        return false;
    *ret_result = eff->propose_result;
    *ret_index = eff->propose_first_index;
    *ret_term = eff->propose_term;
    return eff->propose_result == RAFT_PROPOSE_ACCEPTED;
}

/* This node leads: move the queue's head into the log until it is empty or raft is full. */
static void drain_as_leader(struct replica *r, struct proposal_list *queue) {
    for (drop_overtaken(r, queue); queue->head && !r->proposals.raft_full && !r->failed;
         drop_overtaken(r, queue)) {
        struct raft_entry entries[PROPOSE_BATCH];
        struct wall wall = r->env.clock.wall(r->env.clock.ctx);
        enum raft_propose_result result;
        struct proposal *p = queue->head;
        uint64_t index = 0, term = 0;
        size_t n = 0;

        for (; p && n < PROPOSE_BATCH && !is_overtaken(r, p); p = p->next) {
            command_stamp(p->data, wall);
            entries[n++] = (struct raft_entry){.type = RAFT_ENTRY_COMMAND, .data = p->data};
        }
        while (n > 0 && !proposals_append(r, entries, n, &result, &index, &term)) {
            if (result != RAFT_PROPOSE_FULL)
                return;
            n /= 2; /* a smaller batch may still fit */
        }
        if (n == 0) {
            r->proposals.raft_full = true;
            return;
        }
        for (size_t i = 0; i < n; i++) {
            p = queue->head;
            proposal_set_state(r, p, PROPOSAL_APPENDED);
            p->index = index + i;
            p->term = term;
            /* Raft shares the buffer from here on; a second try needs its own to stamp. */
        }
    }
}

static void forward_one(struct replica *r, struct proposal *p, uint64_t leader) {
    Chronos__Internal__V1__ForwardProposal m = CHRONOS__INTERNAL__V1__FORWARD_PROPOSAL__INIT;

    m.id = p->origin;
    m.attempt = ++p->forwards;
    m.command.data = p->data->data;
    m.command.len = p->data->len;
    peers_queue_field(r, leader, 3, &m.base);
    proposal_set_state(r, p, PROPOSAL_FORWARDED);
}

static void drain_to_leader(struct replica *r, struct proposal_list *queue, uint64_t leader) {
    const struct peer *peer = peer_find(r, leader);

    drop_overtaken(r, queue);
    if (!peer || !peer->up)
        return; /* wait in the channel: the link or the leader will change */
    while (queue->head && r->proposals.forwarded < FORWARDED_MAX) {
        forward_one(r, queue->head, leader);
        drop_overtaken(r, queue);
    }
}

void proposals_drain(struct replica *r) {
    struct proposals *ps = &r->proposals;
    uint64_t leader = raft_leader(r->raft);

    if (r->forwards.inbox_count > 0)
        forwards_drain(r);
    if (!ps->internal.head && !ps->client.head)
        return;
    if (raft_role(r->raft) == RAFT_LEADER) {
        drain_as_leader(r, &ps->internal);
        drain_as_leader(r, &ps->client);
    } else if (leader != 0) {
        drain_to_leader(r, &ps->internal, leader);
        drain_to_leader(r, &ps->client, leader);
    }
}

/* ---- news about them ------------------------------------------------------------------------- */

/* Back into the channel. The old buffer may still be shared with raft's log, so it gets a copy that
 * can be stamped anew. */
static void requeue(struct replica *r, struct proposal *p) {
    const struct replica_proposed never = {.status = REPLICA_NO_LEADER};
    struct bytes *copy;

    if (p->flags & REPLICA_OWN_TERM) {
        proposal_answer(r, p, &never); /* lost, and its term is over */
        return;
    }
    copy = bytes_copy(p->data->data, p->data->len);
    if (!copy) {
        const struct replica_proposed unknown = {.status = REPLICA_UNKNOWN};

        proposal_answer(r, p, &unknown);
        return;
    }
    bytes_unref(p->data);
    p->data = copy;
    proposal_set_state(r, p, PROPOSAL_QUEUED);
    r->wants_turn = true;
}

/* What was not there, was taken or was too much may be otherwise when another try is applied. */
static bool may_come_true(const struct fsm_output *out) {
    for (size_t i = 0; i < out->results_count; i++) {
        enum fsm_code code = out->results[i].code;

        if (code == FSM_NOT_FOUND || code == FSM_NAME_TAKEN || code == FSM_REFUSED)
            return true;
    }
    return false;
}

/* A "no" is an answer only when no other try can still be applied: else the client believes that
 * nothing was done, and it is. A "yes" stays one: what is proposed again has no effect then. */
void proposals_applied(struct replica *r, uint64_t origin, uint64_t index,
                       const struct fsm_output *out) {
    struct proposal *p = u64map_get(&r->proposals.by_origin, origin);
    struct replica_proposed res = {.status = REPLICA_OK, .index = index, .output = out};
    const struct replica_proposed unknown = {.status = REPLICA_UNKNOWN};

    r->proposals.raft_full = false;
    if (!p)
        return;
    /* The node's own know what a stale token means. */
    if (p->maybe_taken && !(p->flags & REPLICA_INTERNAL) && may_come_true(out))
        proposal_answer(r, p, &unknown);
    else
        proposal_answer(r, p, &res);
}

/* Terms in a log never decrease, so once an entry of @term is committed at @index, an entry of an
 * older term can no longer commit at or behind it: those proposals are certainly lost and may be
 * proposed again. */
void proposals_term_applied(struct replica *r, uint64_t term, uint64_t index) {
    struct proposal *p = r->proposals.in_flight.head;

    while (p) {
        struct proposal *next = p->next;

        if (p->state == PROPOSAL_APPENDED && p->term < term && p->index >= index)
            requeue(r, p);
        p = next;
    }
}

/* Whether @p was among entries that a snapshot replaced, and with what result, cannot be known any
 * more: again where that does no harm, else the truth (reliability.md J3, R25). */
static void proposal_lost_sight(struct replica *r, struct proposal *p) {
    const struct replica_proposed unknown = {.status = REPLICA_UNKNOWN};

    if (p->flags & REPLICA_RETRY_SAFE) {
        p->maybe_taken = true;
        requeue(r, p);
    } else {
        proposal_answer(r, p, &unknown);
    }
}

void proposals_skipped(struct replica *r, uint64_t index, uint64_t term) {
    struct proposal *p = r->proposals.in_flight.head;

    r->proposals.raft_full = false;
    while (p) {
        struct proposal *next = p->next;

        /* FORWARDED: the leader's word on where it was appended decides, or the deadline. */
        if (p->state == PROPOSAL_APPENDED && p->index <= index)
            proposal_lost_sight(r, p);
        p = next;
    }
    proposals_term_applied(r, term, index + 1);
}

void proposals_leader_changed(struct replica *r) {
    struct proposal *p = r->proposals.in_flight.head;

    r->proposals.raft_full = false;
    while (p) {
        struct proposal *next = p->next;

        /* Whether the old leader appended it is unknown. */
        if (p->state == PROPOSAL_FORWARDED && p->flags & REPLICA_RETRY_SAFE) {
            p->maybe_taken = true;
            requeue(r, p);
        }
        p = next;
    }
    r->wants_turn = true;
}

void proposals_on_forward_result(struct replica *r,
                                 const Chronos__Internal__V1__ForwardResult *res) {
    struct proposal *p = u64map_get(&r->proposals.by_origin, res->id);
    struct replica_proposed full = {.status = REPLICA_FULL};

    if (!p || p->state != PROPOSAL_FORWARDED || p->forwards != res->attempt)
        return; /* answered, expired, put back or sent again meanwhile */
    r->wants_turn = true;
    if (res->outcome == CHRONOS__INTERNAL__V1__FORWARD_OUTCOME__FORWARD_OUTCOME_ACCEPTED) {
        proposal_set_state(r, p, PROPOSAL_APPENDED);
        p->index = res->index;
        p->term = res->term;
        if (p->index <= r->snapshots.skipped_to)
            proposal_lost_sight(r, p); /* a snapshot had it */
        else if (r->applied_term > p->term && fsm_applied_index(r->fsm) < p->index)
            requeue(r, p); /* a newer term already committed in front of it */
    } else if (res->outcome == CHRONOS__INTERNAL__V1__FORWARD_OUTCOME__FORWARD_OUTCOME_FULL ||
               res->outcome == CHRONOS__INTERNAL__V1__FORWARD_OUTCOME__FORWARD_OUTCOME_NO_SPACE) {
        if (res->outcome == CHRONOS__INTERNAL__V1__FORWARD_OUTCOME__FORWARD_OUTCOME_NO_SPACE)
            full.status = REPLICA_NO_SPACE;
        if (p->maybe_taken)
            full.status = REPLICA_UNKNOWN;
        proposal_answer(r, p, &full);
    } else {
        requeue(r, p);
    }
}

void proposals_expire(struct replica *r) {
    struct timer_entry *t;

    while ((t = timer_heap_first(&r->proposals.deadlines)) && mono_reached(r->now, t->at)) {
        struct proposal *p = CONTAINER_OF(t, struct proposal, timer);
        bool never_taken = p->state == PROPOSAL_QUEUED && !p->maybe_taken;
        struct replica_proposed res = {.status = never_taken ? REPLICA_NO_LEADER : REPLICA_UNKNOWN};

        proposal_answer(r, p, &res);
    }
}
