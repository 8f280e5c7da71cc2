/* Who the peers are: the members of the configuration in force, those that have just left it, and
 * those that said hello but are not in it yet.
 *
 * A configuration in the log may be rolled back, a node that catches up may not know its own leader
 * as a member yet, and one that was removed must hear of it: so a peer outlives its membership for
 * a while. Addresses come from the node records, which follow what nodes say about themselves; the
 * configuration's are where a node was first. Thread: the loop. */
#include "node/replica_internal.h"

#include <stdio.h>
#include <string.h>

/* A node that said hello and is never heard of again, or left: forgotten after this. */
#define PEER_KEEP_MS 30000
/* After its removal is known to be committed: time to tell it. */
#define PEER_LINGER_MS 5000
/* Peers that are neither members nor hints, before another one is taken in. */
#define STRANGERS_MAX 8
/* Without a leader for so long, a member asks all that it was told of: more than any election. */
#define LOST_MS 5000

static const char *record_address(const struct replica *r, uint64_t id) {
    const struct fsm_node *n = fsm_node_find(r->fsm, id);

    return n && n->peer_address && n->peer_address[0] ? n->peer_address : NULL;
}

static const char *hint_address(const struct replica *r, uint64_t id) {
    const struct raft_member *m = raft_config_find(&r->hints, id);

    return m ? m->address : "";
}

/* The second guess: where it said it is when it last connected here, else what the operator wrote.
 * Nodes that all moved find each other so before a leader can make the new places known. */
static const char *second_guess(const struct replica *r, const struct peer *p) {
    return p->hello_address[0] ? p->hello_address : hint_address(r, p->id);
}

/* Tell the network below, when it is news. */
static void peer_set_address(struct replica *r, struct peer *p, const char *address,
                             const char *other) {
    int rc;

    if (strcmp(other, address) == 0)
        other = "";
    if (strcmp(p->address, address) == 0 && strcmp(p->other_address, other) == 0)
        return;
    (void) snprintf(p->address, sizeof(p->address), "%s", address);
    (void) snprintf(p->other_address, sizeof(p->other_address), "%s", other);
    if (!r->env.peers.set_peer)
        return;
    rc = r->env.peers.set_peer(r->env.peers.ctx, p->id, p->address, p->other_address);
    if (rc < 0)
        log_warn(r->env.log, "a peer cannot be reached by its address",
                 "peer=%llu address=%s error=\"%s\"", (unsigned long long) p->id, p->address,
                 err_name(rc));
}

static void peer_drop(struct replica *r, struct peer *p);

/* Room for a member: strangers and those that left give way. */
static void make_room(struct replica *r) {
    for (size_t i = 0; i < r->peers_count; i++)
        if (!r->peers[i].member) {
            peer_drop(r, &r->peers[i]);
            return;
        }
}

static size_t strangers(const struct replica *r) {
    size_t n = 0;

    for (size_t i = 0; i < r->peers_count; i++)
        n += !r->peers[i].member && !raft_config_find(&r->hints, r->peers[i].id);
    return n;
}

/* NULL: there are too many. */
static struct peer *peer_add(struct replica *r, uint64_t id) {
    struct peer *p;

    ASSERT(id != r->o.id);
    if (r->peers_count == ARRAY_LEN(r->peers))
        return NULL;
    p = &r->peers[r->peers_count++];
    peer_init(p, id);
    return p;
}

static void peer_drop(struct replica *r, struct peer *p) {
    uint64_t id = p->id;

    log_info(r->env.log, "peer forgotten", "node=%llu peer=%llu", (unsigned long long) r->o.id,
             (unsigned long long) id);
    if (r->env.peers.remove_peer)
        r->env.peers.remove_peer(r->env.peers.ctx, id);
    buf_done(&p->outbox);
    *p = r->peers[--r->peers_count];
    peer_calls_link_down(r, id); /* may look for peers: the array is in order again */
}

static bool is_removed(const struct replica *r, uint64_t id) {
    const struct fsm_node *n = fsm_node_find(r->fsm, id);

    return n && n->removed;
}

/* ---- telling those that left ----------------------------------------------------------------- */

static void removed_answered(void *arg, uint32_t code, struct slice body, bool more) {
    struct replica *r = arg;

    (void) body;
    (void) more;
    /* Which one it was does not matter: those that have not heard are told again. */
    if (code == 0)
        r->wants_turn = true;
}

static void tell_removed(struct replica *r, struct peer *p) {
    Chronos__Internal__V1__RemovedCall m = CHRONOS__INTERNAL__V1__REMOVED_CALL__INIT;
    uint8_t body[16];
    uint64_t id = 0;
    int rc;

    if (p->told_removed || !p->up || raft_role(r->raft) != RAFT_LEADER)
        return;
    (void) fsm_config(r->fsm, &m.index);
    rc = peer_call_start(r, p->id, PEER_CALL_REMOVED,
                         slice_of(body, chronos__internal__v1__removed_call__pack(&m, body)),
                         mono_add_ms(r->now, PEER_LINGER_MS), removed_answered, r, &id);
    p->told_removed = rc == 0;
}

void removed_serve(struct replica *r, uint64_t from, uint64_t call_id, struct slice body) {
    Chronos__Internal__V1__RemovedCall *m =
        chronos__internal__v1__removed_call__unpack(NULL, body.len, body.data);

    if (!m) {
        r->bad_messages++;
        return;
    }
    peer_calls_reply(r, from, call_id, 0, "", slice_of(NULL, 0), false);
    replica_fail(r, ERR_FOREIGN,
                 "node %llu was removed from the cluster at index %llu (node %llu "
                 "says so)",
                 (unsigned long long) r->o.id, (unsigned long long) m->index,
                 (unsigned long long) from);
    chronos__internal__v1__removed_call__free_unpacked(m, NULL);
}

/* ---- following the configuration ------------------------------------------------------------- */

static void sync_members(struct replica *r, const struct raft_config *config) {
    for (size_t i = 0; i < config->count; i++) {
        const struct raft_member *m = &config->members[i];
        const char *address = record_address(r, m->id);
        struct peer *p;

        if (m->id == r->o.id)
            continue;
        p = peer_find(r, m->id);
        if (!p && r->peers_count == ARRAY_LEN(r->peers))
            make_room(r);
        if (!p)
            p = peer_add(r, m->id);
        ASSERT(p); /* a configuration takes at most half of the room */
        p->member = true;
        p->keep_till = MONO_NEVER;
        peer_set_address(r, p, address ? address : m->address, second_guess(r, p));
    }
}

/* A node that waits to be added looks for those it was told of, so that they know where it is. So
 * does a member that was cut off while all others it knows were replaced, and that has moved: the
 * new ones look for it at its old place, and it does not know them as members. */
static void sync_hints(struct replica *r) {
    for (size_t i = 0; i < r->hints.count; i++) {
        const struct raft_member *m = &r->hints.members[i];
        struct peer *p;

        if (m->id == r->o.id || peer_find(r, m->id) || is_removed(r, m->id) ||
            r->peers_count + STRANGERS_MAX >= ARRAY_LEN(r->peers))
            continue;
        p = peer_add(r, m->id);
        if (p)
            peer_set_address(r, p, m->address, "");
    }
}

/* When a node without a leader is lost; MONO_NEVER: it has one, or nobody to ask. */
static struct mono lost_at(const struct replica *r) {
    const struct raft_config *config = raft_config_latest(r->raft);

    if (raft_leader(r->raft) != 0 || config->count == 0)
        return MONO_NEVER;
    for (size_t i = 0; i < r->hints.count; i++)
        if (r->hints.members[i].id != r->o.id && !raft_config_find(config, r->hints.members[i].id))
            return mono_add_ms(r->membership.leader_at, LOST_MS);
    return MONO_NEVER;
}

/* True when the peer is to be dropped now. */
static bool peer_leaves(struct replica *r, struct peer *p, bool waiting) {
    if (p->member)
        return false;
    if (is_removed(r, p->id)) {
        if (p->keep_till.ns > mono_add_ms(r->now, PEER_LINGER_MS).ns)
            p->keep_till = mono_add_ms(r->now, PEER_LINGER_MS);
        tell_removed(r, p);
    } else if (waiting) {
        p->keep_till = MONO_NEVER; /* else peers_deadline asks for a turn again and again */
        return false;
    } else if (p->keep_till.ns == MONO_NEVER.ns) {
        p->keep_till = mono_add_ms(r->now, PEER_KEEP_MS);
    }
    return mono_reached(r->now, p->keep_till);
}

/* Before anything of this term leaves: what was let in earlier is looked at again. The members
 * among them are added anew at once, and have to say again who they are. */
static void drop_strangers(struct replica *r) {
    uint64_t term = raft_role(r->raft) == RAFT_LEADER ? raft_term(r->raft) : 0;

    if (term == r->membership.strangers_term)
        return;
    r->membership.strangers_term = term;
    for (size_t i = 0; term != 0 && i < r->peers_count;) {
        if (identity_is_stranger(r, r->peers[i].id))
            peer_drop(r, &r->peers[i]);
        else
            i++;
    }
}

void peers_sync(struct replica *r) {
    const struct raft_config *config = raft_config_latest(r->raft);
    bool waiting;

    if (raft_leader(r->raft) != 0 || r->membership.leader_at.ns == 0)
        r->membership.leader_at = r->now;
    waiting = config->count == 0 || mono_reached(r->now, lost_at(r));
    drop_strangers(r);

    for (size_t i = 0; i < r->peers_count; i++)
        r->peers[i].member = raft_config_find(config, r->peers[i].id) != NULL;
    sync_members(r, config);
    if (waiting)
        sync_hints(r);
    for (size_t i = 0; i < r->peers_count;) {
        /* Without a configuration everybody may be the leader to come; a lost member keeps its
         * hints, and lets go of others: they would leave no place for the leader. */
        if (peer_leaves(r, &r->peers[i],
                        config->count == 0 ||
                            (waiting && raft_config_find(&r->hints, r->peers[i].id))))
            peer_drop(r, &r->peers[i]);
        else
            i++;
    }
}

struct mono peers_deadline(const struct replica *r) {
    struct mono at = lost_at(r);

    if (mono_reached(r->now, at))
        at = MONO_NEVER; /* known */
    for (size_t i = 0; i < r->peers_count; i++)
        if (!r->peers[i].member)
            at = mono_min(at, r->peers[i].keep_till);
    return at;
}

void peers_welcome(struct replica *r, uint64_t id, const char *address) {
    struct peer *p = peer_find(r, id);

    if (!p && address[0] && strangers(r) < STRANGERS_MAX)
        p = peer_add(r, id);
    if (!p)
        return;
    if (address[0] && strlen(address) < sizeof(p->hello_address))
        (void) snprintf(p->hello_address, sizeof(p->hello_address), "%s", address);
    r->wants_turn = true;
    if (p->member)
        return; /* the next sync looks at it */
    p->keep_till = mono_add_ms(r->now, PEER_KEEP_MS);
    if (p->hello_address[0])
        peer_set_address(r, p, p->hello_address, hint_address(r, id));
}

void peers_heard(struct replica *r, struct peer *p) {
    if (!p->member && p->keep_till.ns != MONO_NEVER.ns && !is_removed(r, p->id))
        p->keep_till = mono_add_ms(r->now, PEER_KEEP_MS);
}
