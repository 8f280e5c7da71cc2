/* Linearizable reads: many share one ReadIndex round.
 *
 * A read waits for (a) raft's confirmation of an index under its context and (b) that index applied
 * here. A round that fails (leader lost) is asked again under a new context until the deadline; a
 * context is never reused (reliability.md M30).
 * Thread: the loop. */
#include "node/replica_internal.h"

#include <errno.h>
#include <stdlib.h>

#define READ_RETRY_MS 10

static void read_unlink(struct replica *r, struct pending_read *p) {
    struct reads *rs = &r->reads;

    if (p->prev)
        p->prev->next = p->next;
    else
        rs->head = p->next;
    if (p->next)
        p->next->prev = p->prev;
    else
        rs->tail = p->prev;
    rs->count--;
    if (p->context == 0)
        rs->unasked--;
    timer_heap_remove(&rs->deadlines, &p->timer);
}

static void read_answer(struct replica *r, struct pending_read *p, enum replica_status status) {
    read_unlink(r, p);
    p->done(p->arg, status, fsm_applied_index(r->fsm));
    free(p);
}

int replica_read(struct replica *r, struct mono deadline, replica_read_fn done, void *arg) {
    struct reads *rs = &r->reads;
    struct mono now = r->env.clock.mono(r->env.clock.ctx);
    struct pending_read *p;
    int rc;

    ASSERT(done);
    if (rs->count >= r->o.pending_reads_max)
        return REPLICA_FULL;
    p = calloc(1, sizeof(*p));
    if (!p)
        return -ENOMEM;
    p->done = done;
    p->arg = arg;
    deadline = mono_min(deadline, mono_add_ns(now, r->o.commit_timeout_ns));
    rc = timer_heap_add(&rs->deadlines, &p->timer, deadline);
    if (rc < 0) {
        free(p);
        return rc;
    }
    p->prev = rs->tail;
    if (rs->tail)
        rs->tail->next = p;
    else
        rs->head = p;
    rs->tail = p;
    rs->count++;
    rs->unasked++;
    r->wants_turn = true;
    return 0;
}

/* Everything not yet asked goes out under one new context. Unasked reads are at the tail: failed
 * rounds are rare and only then the list is mixed. */
void reads_drain(struct replica *r) {
    struct reads *rs = &r->reads;
    struct raft_event ev = {.type = RAFT_EV_READ};

    if (rs->unasked == 0 || raft_leader(r->raft) == 0 || !mono_reached(r->now, rs->retry_at))
        return;
    ev.read_context = ++rs->next_context;
    for (struct pending_read *p = rs->tail; p && rs->unasked > 0; p = p->prev) {
        if (p->context != 0)
            continue;
        p->context = ev.read_context;
        rs->unasked--;
    }
    (void) replica_step(r, &ev, NULL);
}

void reads_on_result(struct replica *r, const struct raft_read *res) {
    struct reads *rs = &r->reads;

    for (struct pending_read *p = rs->head; p; p = p->next) {
        if (p->context != res->context || p->confirmed)
            continue;
        if (res->ok) {
            p->confirmed = true;
            p->index = res->index;
        } else {
            p->context = 0;
            rs->unasked++;
        }
    }
    if (!res->ok) /* do not spin while leadership is unclear */
        rs->retry_at = mono_add_ms(r->now, READ_RETRY_MS);
    r->wants_turn = true;
}

void reads_answer(struct replica *r) {
    uint64_t applied = fsm_applied_index(r->fsm);
    struct pending_read *p = r->reads.head;

    while (p) {
        struct pending_read *next = p->next;

        if (p->confirmed && p->index <= applied)
            read_answer(r, p, REPLICA_OK);
        else if (p->context == 0)
            break; /* younger ones are not confirmed either */
        p = next;
    }
}

void reads_expire(struct replica *r) {
    struct timer_entry *t;

    while ((t = timer_heap_first(&r->reads.deadlines)) && mono_reached(r->now, t->at))
        read_answer(r, CONTAINER_OF(t, struct pending_read, timer), REPLICA_NO_LEADER);
}

void reads_free(struct replica *r) {
    while (r->reads.head)
        read_answer(r, r->reads.head, REPLICA_STOPPING);
    timer_heap_done(&r->reads.deadlines);
}
