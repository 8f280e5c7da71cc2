/* What nodes say to each other: one PeerMessage per peer and loop turn.
 *
 * An outbox is a PeerMessage being written field by field: protobuf messages may be concatenated,
 * so each addition is packed straight behind the last and nothing is copied twice. Bytes from peers
 * were framed and checksummed below; their content is still not trusted. Thread: the loop. */
#include "node/replica_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OUTBOX_BYTES_MAX (48UL * 1024 * 1024)
#define FACTS_INTERVAL_MS 1000
#define FIELD_RAFT 2

void peer_init(struct peer *p, uint64_t id) {
    *p = (struct peer){.id = id, .keep_till = MONO_NEVER};
    buf_init(&p->outbox, OUTBOX_BYTES_MAX);
}

void peers_free(struct replica *r) {
    for (size_t i = 0; i < r->peers_count; i++)
        buf_done(&r->peers[i].outbox);
    r->peers_count = 0;
}

struct peer *peer_find(struct replica *r, uint64_t id) {
    for (size_t i = 0; i < r->peers_count; i++)
        if (r->peers[i].id == id)
            return &r->peers[i];
    return NULL;
}

/* ---- out ------------------------------------------------------------------------------------- */

static size_t put_varint(uint8_t *p, uint64_t v) {
    size_t n = 0;

    while (v >= 0x80) {
        p[n++] = (uint8_t) (v | 0x80);
        v >>= 7;
    }
    p[n++] = (uint8_t) v;
    return n;
}

/* Room in @out for a length-delimited field of @len bytes; the payload's place, or NULL. */
static uint8_t *put_field(struct buf *out, uint32_t field, size_t len) {
    uint8_t head[20];
    size_t n;
    uint8_t *at;

    if (out->len == 0) { /* PeerMessage.version */
        head[0] = 1 << 3;
        n = 1 + put_varint(head + 1, PEER_MESSAGE_VERSION);
        if (buf_append(out, head, n) < 0)
            return NULL;
    }
    n = put_varint(head, (uint64_t) field << 3 | 2);
    n += put_varint(head + n, len);
    if (buf_reserve(out, n + len) < 0)
        return NULL;
    memcpy(out->data + out->len, head, n);
    at = out->data + out->len + n;
    out->len += n + len;
    return at;
}

/* @m as protobuf, borrowing its entries' data; lives in the scratch arena until its next use. */
static bool raft_message_to_pb(struct replica *r, const struct raft_message *m,
                               Chronos__Internal__V1__RaftMessage *pb) {
    Chronos__Internal__V1__LogEntry *entries;

    chronos__internal__v1__raft_message__init(pb);
    pb->type = (uint32_t) m->type;
    pb->from = m->from;
    pb->to = m->to;
    pb->term = m->term;
    pb->log_index = m->log_index;
    pb->log_term = m->log_term;
    pb->commit = m->commit;
    pb->reject = m->reject;
    pb->match = m->match;
    pb->hint_index = m->hint_index;
    pb->hint_term = m->hint_term;
    pb->context = m->context;
    pb->session = m->session;
    if (m->entries_count == 0)
        return true;
    arena_clear(&r->arena);
    entries = arena_alloc(&r->arena, m->entries_count * sizeof(*entries));
    pb->entries = arena_alloc(&r->arena, m->entries_count * sizeof(*pb->entries));
    if (!entries || !pb->entries)
        return false;
    for (size_t i = 0; i < m->entries_count; i++) {
        const struct raft_entry *e = &m->entries[i];

        chronos__internal__v1__log_entry__init(&entries[i]);
        entries[i].index = e->index;
        entries[i].term = e->term;
        entries[i].type = (uint32_t) e->type;
        if (e->data) {
            entries[i].data.data = e->data->data;
            entries[i].data.len = e->data->len;
        }
        pb->entries[i] = &entries[i];
    }
    pb->n_entries = m->entries_count;
    return true;
}

/* Pack one raft message behind what @out holds. Returns the bytes added, 0 when memory is out. */
size_t peers_pack_raft(struct replica *r, const struct raft_message *m, struct buf *out) {
    Chronos__Internal__V1__RaftMessage pb;
    size_t len;

    if (!raft_message_to_pb(r, m, &pb))
        return 0;
    len = chronos__internal__v1__raft_message__get_packed_size(&pb);
    if (buf_reserve(out, len) < 0)
        return 0;
    (void) chronos__internal__v1__raft_message__pack(&pb, out->data + out->len);
    out->len += len;
    return len;
}

void peers_queue_packed_raft(struct replica *r, uint64_t to, const uint8_t *data, size_t len) {
    struct peer *p = peer_find(r, to);
    uint8_t *at;

    if (!p || !p->up)
        return;
    at = put_field(&p->outbox, FIELD_RAFT, len);
    if (at)
        memcpy(at, data, len);
    r->wants_turn = true;
}

/* A message that does not fit or finds no memory is dropped: raft lives with loss. */
void peers_queue_raft(struct replica *r, const struct raft_message *m) {
    Chronos__Internal__V1__RaftMessage pb;

    if (raft_message_to_pb(r, m, &pb))
        peers_queue_field(r, m->to, FIELD_RAFT, &pb.base);
}

void peers_queue_field(struct replica *r, uint64_t to, uint32_t field,
                       const ProtobufCMessage *message) {
    struct peer *p = peer_find(r, to);
    uint8_t *at;

    if (!p || !p->up)
        return;
    at = put_field(&p->outbox, field, protobuf_c_message_get_packed_size(message));
    if (at)
        (void) protobuf_c_message_pack(message, at);
    r->wants_turn = true;
}

static void send_facts_to(struct replica *r, struct peer *p) {
    Chronos__Internal__V1__NodeFacts f = CHRONOS__INTERNAL__V1__NODE_FACTS__INIT;
    const char *alarms[ALARMS_MAX];
    uint8_t digest[16];

    fsm_digest(r->fsm, digest);
    f.node_id = r->o.id;
    f.version = r->version;
    f.client_address = r->client_address;
    f.applied_index = fsm_applied_index(r->fsm);
    f.digest_index = f.applied_index;
    memcpy(&f.digest_low, digest, 8);
    memcpy(&f.digest_high, digest + 8, 8);
    f.incarnation = r->incarnation;
    f.disk.data = r->disk;
    f.disk.len = sizeof(r->disk);
    f.peer_address = r->peer_address;
    f.n_alarms = alarms_own(r, alarms);
    f.alarms = (char **) (uintptr_t) alarms; /* packing reads only */
    f.disk_free_bytes = r->disk_space.free_bytes;
    f.feature_max = features_max(r);
    f.wall_ms = (uint64_t) r->env.clock.wall(r->env.clock.ctx).ms;
    peers_queue_field(r, p->id, 9, &f.base);
    p->send_facts = false;
}

void peers_send_facts(struct replica *r) {
    bool due = mono_reached(r->now, r->facts_at);

    for (size_t i = 0; i < r->peers_count; i++)
        if (due || r->peers[i].send_facts)
            send_facts_to(r, &r->peers[i]);
    if (due)
        r->facts_at = mono_add_ms(r->now, FACTS_INTERVAL_MS);
}

void peers_flush(struct replica *r) {
    bool any = false;

    for (size_t i = 0; i < r->peers_count; i++) {
        struct peer *p = &r->peers[i];
        struct bytes *payload;

        if (p->outbox.len == 0)
            continue;
        payload = bytes_copy(p->outbox.data, p->outbox.len);
        buf_clear(&p->outbox);
        if (!payload)
            continue;
        r->env.peers.send(r->env.peers.ctx, p->id, payload);
        any = true;
    }
    if (any && r->env.peers.flush)
        r->env.peers.flush(r->env.peers.ctx);
}

/* ---- in -------------------------------------------------------------------------------------- */

static bool raft_message_from_pb(struct replica *r, const Chronos__Internal__V1__RaftMessage *pb,
                                 struct raft_message *m) {
    if (pb->type == 0 || pb->type >= RAFT_MSG_TYPE_MAX || pb->term == 0 || pb->to != r->o.id)
        return false;
    *m = (struct raft_message){
        .type = (enum raft_message_type) pb->type,
        .from = pb->from,
        .to = pb->to,
        .term = pb->term,
        .log_index = pb->log_index,
        .log_term = pb->log_term,
        .commit = pb->commit,
        .reject = pb->reject,
        .match = pb->match,
        .hint_index = pb->hint_index,
        .hint_term = pb->hint_term,
        .context = pb->context,
        .session = pb->session,
        .entries_count = pb->n_entries,
    };
    return true;
}

/* The entries of an append must continue its prev without a gap and with terms in order; raft
 * counts on it (it acknowledges prev + n). */
static bool entries_from_pb(struct replica *r, const Chronos__Internal__V1__RaftMessage *pb,
                            struct raft_message *m) {
    uint64_t term = m->log_term;

    if (m->entries_count == 0)
        return true;
    m->entries = arena_zalloc(&r->rx_arena, m->entries_count * sizeof(*m->entries));
    if (!m->entries)
        return false;
    for (size_t i = 0; i < m->entries_count; i++) {
        const Chronos__Internal__V1__LogEntry *e = pb->entries[i];

        if (e->index != m->log_index + 1 + i || e->term < term || e->term > m->term ||
            e->type < RAFT_ENTRY_NOOP || e->type > RAFT_ENTRY_COMMAND ||
            e->data.len > WAL_RECORD_BYTES_MAX)
            return false;
        term = e->term;
        m->entries[i] = (struct raft_entry){.term = e->term, .index = e->index};
        m->entries[i].type = (enum raft_entry_type) e->type;
        if (e->type == RAFT_ENTRY_NOOP)
            continue;
        m->entries[i].data = bytes_copy(e->data.data, e->data.len);
        if (!m->entries[i].data)
            return false;
    }
    return true;
}

static void on_raft(struct replica *r, uint64_t from,
                    const Chronos__Internal__V1__RaftMessage *pb) {
    struct raft_event ev = {.type = RAFT_EV_MESSAGE};
    struct raft_message m = {0};
    bool ok = raft_message_from_pb(r, pb, &m) && pb->from == from && entries_from_pb(r, pb, &m);

    if (ok) {
        ev.message = &m;
        (void) replica_step(r, &ev, NULL);
    } else {
        r->bad_messages++;
    }
    for (size_t i = 0; m.entries && i < m.entries_count; i++)
        bytes_unref(m.entries[i].data);
}

/* One a line; what does not fit is left out, whole. */
static void take_alarms(struct peer *p, const Chronos__Internal__V1__NodeFacts *f) {
    size_t used = 0;

    p->alarms[0] = '\0';
    for (size_t i = 0; i < f->n_alarms; i++) {
        size_t len = strlen(f->alarms[i]);

        if (used + len + 2 > sizeof(p->alarms))
            break;
        memcpy(p->alarms + used, f->alarms[i], len);
        p->alarms[used + len] = '\n';
        p->alarms[used + len + 1] = '\0';
        used += len + 1;
    }
}

static void on_facts(struct replica *r, struct peer *p, const Chronos__Internal__V1__NodeFacts *f) {
    int64_t wall_ms = r->env.clock.wall(r->env.clock.ctx).ms;

    if (f->node_id != p->id)
        return;
    p->facts_known = true;
    (void) snprintf(p->version, sizeof(p->version), "%s", f->version);
    (void) snprintf(p->client_address, sizeof(p->client_address), "%s", f->client_address);
    (void) snprintf(p->peer_address, sizeof(p->peer_address), "%s", f->peer_address);
    p->applied_index = f->applied_index;
    p->digest_index = f->digest_index;
    p->digest_low = f->digest_low;
    p->digest_high = f->digest_high;
    if (f->disk.len == sizeof(p->disk))
        memcpy(p->disk, f->disk.data, sizeof(p->disk));
    p->feature_max = f->feature_max;
    p->clock_offset_ms =
        f->wall_ms > 0 && f->wall_ms <= INT64_MAX ? (int64_t) f->wall_ms - wall_ms : 0;
    p->disk_free_bytes = f->disk_free_bytes;
    take_alarms(p, f);
    r->membership.facts_changed = true;
}

static void on_beat(struct replica *r, uint64_t from, Chronos__Internal__V1__WorkerBeat *beat) {
    if (leases_beat(r, beat->worker_id, beat->incarnation, beat->draining))
        peers_queue_field(r, from, 6, &beat->base);
}

void replica_on_peer_message(struct replica *r, uint64_t from, struct slice payload) {
    struct peer *p = peer_find(r, from);
    Chronos__Internal__V1__PeerMessage *m;

    if (r->failed || !p)
        return;
    r->now = r->env.clock.mono(r->env.clock.ctx);
    r->wants_turn = true;
    peers_heard(r, p);
    arena_clear(&r->rx_arena);
    m = chronos__internal__v1__peer_message__unpack(arena_pb(&r->rx_arena), payload.len,
                                                    payload.data);
    if (!m || m->version != PEER_MESSAGE_VERSION) {
        r->bad_messages++;
        return;
    }
    for (size_t i = 0; i < m->n_raft; i++)
        on_raft(r, from, m->raft[i]);
    for (size_t i = 0; i < m->n_proposals; i++)
        forwards_on_proposal(r, from, m->proposals[i]);
    for (size_t i = 0; i < m->n_results; i++)
        proposals_on_forward_result(r, m->results[i]);
    for (size_t i = 0; i < m->n_worker_beats; i++)
        on_beat(r, from, m->worker_beats[i]);
    for (size_t i = 0; i < m->n_worker_beat_acks; i++)
        sessions_beat_acked(r, m->worker_beat_acks[i]);
    for (size_t i = 0; i < m->n_calls; i++)
        peer_calls_on_call(r, from, m->calls[i]);
    for (size_t i = 0; i < m->n_replies; i++)
        peer_calls_on_reply(r, from, m->replies[i]);
    if (m->facts)
        on_facts(r, p, m->facts);
    if (m->snapshot)
        receive_on_blocks(r, from, m->snapshot);
    if (m->snapshot_ack)
        transfers_on_ack(r, from, m->snapshot_ack);
}

void replica_on_peer_link(struct replica *r, uint64_t node_id, bool up) {
    struct peer *p = peer_find(r, node_id);
    struct raft_event ev = {.type = RAFT_EV_UNREACHABLE};

    if (!p || r->failed)
        return;
    r->now = r->env.clock.mono(r->env.clock.ctx);
    r->wants_turn = true;
    p->up = up;
    if (up) {
        p->send_facts = true;
        transfers_on_link(r, node_id);
        ev = (struct raft_event){.type = RAFT_EV_REACHABLE, .reachable = node_id};
        (void) replica_step(r, &ev, NULL);
        return;
    }
    buf_clear(&p->outbox);
    peer_calls_link_down(r, node_id);
    ev.unreachable = node_id;
    (void) replica_step(r, &ev, NULL);
    proposals_leader_changed(r);
}

const char *replica_client_address(const struct replica *r, uint64_t node_id) {
    const struct fsm_node *n;

    if (node_id == r->o.id)
        return r->client_address;
    for (size_t i = 0; i < r->peers_count; i++)
        if (r->peers[i].id == node_id && r->peers[i].facts_known)
            return r->peers[i].client_address;
    n = fsm_node_find(r->fsm, node_id);
    return n && n->client_address[0] ? n->client_address : NULL;
}
