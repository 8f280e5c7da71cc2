/* Small remote calls between nodes: status, output of attempts.
 * A call ends with a reply whose more is false, at its deadline, or when the link breaks.
 * Thread: the loop. */
#include "node/replica_internal.h"

#include <errno.h>
#include <stdlib.h>

#define PEER_CALLS_MAX 65536
#define CODE_DEADLINE 4
#define CODE_UNIMPLEMENTED 12
#define CODE_UNAVAILABLE 14

static void call_end(struct replica *r, struct peer_call *c, uint32_t code) {
    timer_heap_remove(&r->peer_call_deadlines, &c->timer);
    (void) u64map_del(&r->peer_calls, c->id);
    c->done(c->arg, code, slice_of(NULL, 0), false);
    free(c);
}

int peer_call_start(struct replica *r, uint64_t peer, enum peer_call_kind kind, struct slice body,
                    struct mono deadline,
                    void (*done)(void *arg, uint32_t code, struct slice body, bool more), void *arg,
                    uint64_t *ret_id) {
    Chronos__Internal__V1__PeerCall m = CHRONOS__INTERNAL__V1__PEER_CALL__INIT;
    const struct peer *p = peer_find(r, peer);
    struct peer_call *c;
    int rc;

    if (!p || !p->up || r->peer_calls.count >= PEER_CALLS_MAX)
        return REPLICA_REFUSED;
    c = calloc(1, sizeof(*c));
    if (!c)
        return -ENOMEM;
    *c = (struct peer_call){.id = ++r->next_peer_call, .peer = peer, .done = done, .arg = arg};
    rc = u64map_put(&r->peer_calls, c->id, c);
    if (rc == 0 && deadline.ns != MONO_NEVER.ns)
        rc = timer_heap_add(&r->peer_call_deadlines, &c->timer, deadline);
    if (rc < 0) {
        (void) u64map_del(&r->peer_calls, c->id);
        free(c);
        return rc;
    }
    m.id = c->id;
    m.kind = (uint32_t) kind;
    m.body.data = (uint8_t *) (uintptr_t) body.data; /* packing reads only */
    m.body.len = body.len;
    peers_queue_field(r, peer, 7, &m.base);
    *ret_id = c->id;
    return 0;
}

void peer_call_forget(struct replica *r, uint64_t id) {
    struct peer_call *c = u64map_del(&r->peer_calls, id);
    Chronos__Internal__V1__CancelCall m = CHRONOS__INTERNAL__V1__CANCEL_CALL__INIT;
    Chronos__Internal__V1__PeerCall call = CHRONOS__INTERNAL__V1__PEER_CALL__INIT;
    uint8_t body[16];

    if (!c)
        return;
    m.id = id;
    call.id = ++r->next_peer_call;
    call.kind = PEER_CALL_CANCEL;
    call.body.data = body;
    call.body.len = chronos__internal__v1__cancel_call__pack(&m, body);
    peers_queue_field(r, c->peer, 7, &call.base);
    timer_heap_remove(&r->peer_call_deadlines, &c->timer);
    free(c);
}

void peer_calls_reply(struct replica *r, uint64_t to, uint64_t id, uint32_t code,
                      const char *message, struct slice body, bool more) {
    Chronos__Internal__V1__PeerReply m = CHRONOS__INTERNAL__V1__PEER_REPLY__INIT;

    m.id = id;
    m.code = code;
    m.message = (char *) (uintptr_t) message; /* packing reads only */
    m.body.data = (uint8_t *) (uintptr_t) body.data;
    m.body.len = body.len;
    m.more = more;
    peers_queue_field(r, to, 8, &m.base);
}

void peer_calls_on_call(struct replica *r, uint64_t from,
                        const Chronos__Internal__V1__PeerCall *call) {
    struct slice body = slice_of(call->body.data, call->body.len);
    Chronos__Internal__V1__CancelCall *cancel;

    switch (call->kind) {
    case PEER_CALL_STATUS:
        status_serve(r, from, call->id);
        return;
    case PEER_CALL_LOGS:
        logs_serve(r, from, call->id, body);
        return;
    case PEER_CALL_CHANGE:
        change_serve(r, from, call->id, body);
        return;
    case PEER_CALL_TRANSFER:
        transfer_serve(r, from, call->id, body);
        return;
    case PEER_CALL_REMOVED:
        removed_serve(r, from, call->id, body);
        return;
    case PEER_CALL_CANCEL:
        cancel = chronos__internal__v1__cancel_call__unpack(NULL, body.len, body.data);
        if (!cancel)
            return;
        logs_serve_cancel(r, from, cancel->id);
        chronos__internal__v1__cancel_call__free_unpacked(cancel, NULL);
        return;
    default:
        peer_calls_reply(r, from, call->id, CODE_UNIMPLEMENTED, "unknown call", slice_of(NULL, 0),
                         false);
        return;
    }
}

void peer_calls_on_reply(struct replica *r, uint64_t from,
                         const Chronos__Internal__V1__PeerReply *reply) {
    struct peer_call *c = u64map_get(&r->peer_calls, reply->id);

    if (!c || c->peer != from)
        return;
    if (!reply->more) {
        (void) u64map_del(&r->peer_calls, c->id);
        timer_heap_remove(&r->peer_call_deadlines, &c->timer);
    }
    c->done(c->arg, reply->code, slice_of(reply->body.data, reply->body.len), reply->more);
    if (!reply->more)
        free(c);
}

void peer_calls_expire(struct replica *r) {
    struct timer_entry *t;

    while ((t = timer_heap_first(&r->peer_call_deadlines)) && mono_reached(r->now, t->at))
        call_end(r, CONTAINER_OF(t, struct peer_call, timer), CODE_DEADLINE);
}

/* End every call to @peer (0 = all). A callback may start new calls, so the walk begins again. */
static void end_calls(struct replica *r, uint64_t peer) {
    struct u64map_slot *s;
    size_t pos = 0;

    while ((s = u64map_next(&r->peer_calls, &pos))) {
        struct peer_call *c = s->value;

        if (peer != 0 && c->peer != peer)
            continue;
        call_end(r, c, CODE_UNAVAILABLE);
        pos = 0;
    }
}

void peer_calls_link_down(struct replica *r, uint64_t peer) {
    end_calls(r, peer);
    logs_serve_cancel(r, peer, 0);
}

void peer_calls_free(struct replica *r) {
    end_calls(r, 0);
    u64map_done(&r->peer_calls);
    timer_heap_done(&r->peer_call_deadlines);
}
