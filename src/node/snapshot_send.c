/* Sending the state to followers that are behind the log.
 *
 * Raft says who needs one and stops by itself when the follower has it; here the blocks of a view
 * go out over the bulk connection, at most WINDOW_BYTES ahead of what the follower has written to
 * its own disk. Blocks stay in memory until they are acknowledged, so that a broken connection
 * costs a window, not the transfer; a follower that has forgotten more makes it begin again with a
 * new view. The log behind the view is held until the follower has caught up through it (R24),
 * however long the transfer takes.
 * Memory: WINDOW_BYTES and one block for each of TRANSFERS_MAX. Thread: the loop. */
#include "node/replica_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PIECE_BYTES (256UL * 1024)
#define WINDOW_BYTES (4UL * 1024 * 1024)
#define TRANSFERS_MAX 2
#define NO_PROGRESS_MS 30000 /* then raft asks the follower again */
#define RESEND_MS 3000       /* nothing acknowledged for so long: what was sent is taken for lost */
#define GO_BACK_MS 500       /* between two goings back */
/* No faster than this: reading, checking, writing and compacting the state takes processors and
 * disks that commits need, too. The log behind the view is held, so a transfer always ends. */
#define BYTES_PER_S_MAX (48UL * 1024 * 1024)
#define RETRY_MS 20 /* when the connection took nothing */
#define AFTER_FAILURE_MS 2000

static void blocks_free(struct transfer *t) {
    while (t->head) {
        struct transfer_block *b = t->head;

        t->head = b->next;
        free(b);
    }
    t->tail = t->unsent = NULL;
    t->bytes = 0;
}

static void transfer_remove(struct replica *r, struct transfer *t) {
    struct transfer **at = &r->transfers.list;

    while (*at != t)
        at = &(*at)->next;
    *at = t->next;
    t->view = replica_view_close(t->view);
    blocks_free(t);
    free(t);
}

static struct transfer *transfer_find(struct replica *r, uint64_t peer) {
    for (struct transfer *t = r->transfers.list; t; t = t->next)
        if (t->peer == peer)
            return t;
    return NULL;
}

/* A pause after a failure, so that a follower with a full disk is not sent the state all day. */
static struct mono *pause_of(struct replica *r, uint64_t peer) {
    struct transfers *ts = &r->transfers;
    size_t oldest = 0;

    for (size_t i = 0; i < RAFT_NODES_MAX; i++) {
        if (ts->failed_peer[i] == peer)
            return &ts->not_before[i];
        if (ts->not_before[i].ns < ts->not_before[oldest].ns)
            oldest = i;
    }
    ts->failed_peer[oldest] = peer;
    ts->not_before[oldest] = (struct mono){0};
    return &ts->not_before[oldest];
}

int transfers_wanted(struct replica *r, const struct raft_snapshot_wanted *w) {
    struct transfer *t = transfer_find(r, w->peer), **end = &r->transfers.list;

    if (t) /* of an older term or session */
        transfer_remove(r, t);
    t = calloc(1, sizeof(*t));
    if (!t)
        return -ENOMEM;
    *t = (struct transfer){
        .replica = r,
        .state = TRANSFER_WAITING,
        .peer = w->peer,
        .term = w->term,
        .session = w->session,
        .number = ++r->transfers.next_number,
        .min_index = raft_commit(r->raft),
        .start_at = *pause_of(r, w->peer),
        .progress_at = r->now,
    };
    while (*end)
        end = &(*end)->next;
    *end = t;
    r->wants_turn = true;
    return 0;
}

/* ---- reading --------------------------------------------------------------------------------- */

static int take_block(struct transfer *t, struct slice block) {
    struct transfer_block *b = malloc(sizeof(*b) + block.len);

    if (!b)
        return -ENOMEM;
    b->next = NULL;
    b->sequence = t->next_sequence++;
    b->len = block.len;
    memcpy(b->data, block.data, block.len);
    if (t->tail)
        t->tail->next = b;
    else
        t->head = b;
    t->tail = b;
    if (!t->unsent)
        t->unsent = b;
    t->bytes += b->len;
    return 0;
}

static void on_view(void *arg, int rc, struct slice blocks, bool last) {
    struct transfer *t = arg;
    size_t read = blocks.len;

    t->reading = false;
    while (rc == 0 && blocks.len > 0) {
        size_t len = snapshot_block_len(blocks);

        ASSERT(len > 0); /* a view gives whole blocks */
        rc = take_block(t, slice_of(blocks.data, len));
        blocks = slice_of(blocks.data + len, blocks.len - len);
    }
    t->read_all = last;
    t->read_at = mono_add_ns(t->replica->now, read * NS_PER_S / BYTES_PER_S_MAX);
    if (rc < 0) {
        log_warn(t->replica->env.log, "reading the state for a follower failed",
                 "peer=%llu reason=\"%s\"", (unsigned long long) t->peer, err_name(rc));
        t->failed = true; /* the next turn ends it */
    }
}

static void read_on(struct transfer *t) {
    if (t->reading || t->read_all || t->bytes >= WINDOW_BYTES ||
        !mono_reached(t->replica->now, t->read_at))
        return;
    t->reading = true;
    replica_view_next(t->view, PIECE_BYTES, on_view, t);
}

/* ---- sending --------------------------------------------------------------------------------- */

static struct bytes *pack_block(const struct transfer *t, const struct transfer_block *b) {
    Chronos__Internal__V1__PeerMessage m = CHRONOS__INTERNAL__V1__PEER_MESSAGE__INIT;
    Chronos__Internal__V1__SnapshotBlocks s = CHRONOS__INTERNAL__V1__SNAPSHOT_BLOCKS__INIT;
    struct bytes *packed;

    s.term = t->term;
    s.session = t->session;
    s.transfer = t->number;
    s.sequence = b->sequence;
    s.data.data = (uint8_t *) (uintptr_t) b->data; /* packing reads only */
    s.data.len = b->len;
    m.version = PEER_MESSAGE_VERSION;
    m.snapshot = &s;
    packed = bytes_new(chronos__internal__v1__peer_message__get_packed_size(&m));
    if (packed)
        (void) chronos__internal__v1__peer_message__pack(&m, packed->data);
    return packed;
}

static void send_on(struct transfer *t) {
    struct replica *r = t->replica;

    if (!mono_reached(r->now, t->retry_at))
        return;
    while (t->unsent) {
        struct bytes *packed = pack_block(t, t->unsent);

        if (!packed || !r->env.peers.send_bulk(r->env.peers.ctx, t->peer, packed)) {
            t->retry_at = mono_add_ms(r->now, RETRY_MS);
            return;
        }
        t->unsent = t->unsent->next;
        t->sent_at = r->now;
    }
}

/* What the follower does not have is sent again. */
static void go_back(struct transfer *t) {
    t->unsent = t->head;
    t->sent_at = t->replica->now;
    t->back_at = mono_add_ms(t->replica->now, GO_BACK_MS);
    t->retry_at = (struct mono){0};
    t->replica->wants_turn = true;
}

static bool all_unsent(const struct transfer *t) {
    return t->unsent == t->head;
}

static void acknowledged(struct transfer *t, uint64_t next_sequence) {
    while (t->head && t->head->sequence < next_sequence) {
        struct transfer_block *b = t->head;

        if (t->unsent == b)
            t->unsent = b->next;
        t->head = b->next;
        if (!t->head)
            t->tail = NULL;
        t->bytes -= b->len;
        t->bytes_acked += b->len;
        free(b);
    }
    t->acked = next_sequence;
    t->progress_at = t->sent_at = t->replica->now;
}

void transfers_on_ack(struct replica *r, uint64_t from,
                      const Chronos__Internal__V1__SnapshotAck *ack) {
    struct transfer *t = transfer_find(r, from);

    if (!t || t->state != TRANSFER_SENDING || ack->transfer != t->number || ack->term != t->term)
        return;
    r->wants_turn = true;
    if (ack->code != 0) {
        log_warn(r->env.log, "a follower refused its snapshot", "peer=%llu reason=\"%s\"",
                 (unsigned long long) from, ack->message);
        t->failed = true;
    } else if (ack->next_sequence > t->next_sequence) {
        r->bad_messages++; /* of blocks that were never read */
    } else if (ack->next_sequence > t->acked) {
        acknowledged(t, ack->next_sequence);
    } else if (ack->next_sequence == 0 && t->acked > 0) {
        t->failed = true; /* it has lost its stage: nothing here can bring that back */
    } else if (ack->next_sequence < t->acked) {
        return; /* an older acknowledgement that was overtaken */
    } else if (mono_reached(r->now, t->back_at)) {
        go_back(t); /* the same again: it misses what comes next */
    }
}

void transfers_on_link(struct replica *r, uint64_t peer) {
    struct transfer *t = transfer_find(r, peer);

    if (!t || t->state != TRANSFER_SENDING)
        return;
    if (t->read_all && !t->head) {
        t->failed = true; /* whether it is in place there, or went with the process, raft can ask */
        r->wants_turn = true;
        return;
    }
    go_back(t);
}

void replica_on_peer_bulk_ready(struct replica *r, uint64_t node_id) {
    struct transfer *t = transfer_find(r, node_id);

    if (!t)
        return;
    t->retry_at = (struct mono){0};
    r->wants_turn = true;
}

/* ---- life ------------------------------------------------------------------------------------ */

static void transfer_fail(struct replica *r, struct transfer *t) {
    struct raft_event ev = {.type = RAFT_EV_SNAPSHOT_FAILED};

    ev.snapshot_failed = t->peer;
    *pause_of(r, t->peer) = mono_add_ms(r->now, AFTER_FAILURE_MS);
    r->transfers.failed++;
    transfer_remove(r, t);
    (void) replica_step(r, &ev, NULL);
}

/* Does raft still want it? @ret: the follower's progress. */
static bool still_wanted(const struct replica *r, const struct transfer *t,
                         struct raft_peer_status *ret) {
    return raft_role(r->raft) == RAFT_LEADER && raft_term(r->raft) == t->term &&
           raft_peer_status(r->raft, t->peer, ret) == 0 && ret->session == t->session;
}

static size_t count_state(const struct replica *r, enum transfer_state state) {
    size_t n = 0;

    for (const struct transfer *t = r->transfers.list; t; t = t->next)
        n += t->state == state;
    return n;
}

static void transfer_start(struct replica *r, struct transfer *t) {
    int rc;

    if (count_state(r, TRANSFER_SENDING) >= TRANSFERS_MAX || !mono_reached(r->now, t->start_at) ||
        fsm_applied_index(r->fsm) < t->min_index)
        return;
    rc = replica_view_open(r, &t->view);
    if (rc == -EBUSY || rc == -ENOMEM || rc == -ENOSPC || rc == -EDQUOT) {
        t->start_at = mono_add_ms(r->now, AFTER_FAILURE_MS);
        return;
    }
    if (rc < 0) {
        replica_fail(r, rc, "state store: %s", err_name(rc));
        return;
    }
    t->state = TRANSFER_SENDING;
    t->index = replica_view_index(t->view);
    t->progress_at = t->sent_at = r->now;
    log_info(r->env.log, "sending a snapshot", "peer=%llu index=%llu", (unsigned long long) t->peer,
             (unsigned long long) t->index);
}

static void transfer_send(struct replica *r, struct transfer *t,
                          const struct raft_peer_status *st) {
    if (st->state != RAFT_SNAPSHOT) { /* it has the snapshot; now it needs the log behind it */
        log_info(r->env.log, "a follower took its snapshot", "peer=%llu index=%llu",
                 (unsigned long long) t->peer, (unsigned long long) t->index);
        t->state = TRANSFER_FOLLOWING;
        t->view = replica_view_close(t->view);
        t->reading = false;
        blocks_free(t);
        t->follow_to = raft_commit(r->raft);
        t->match = st->match;
        t->progress_at = r->now;
        r->transfers.done++;
        return;
    }
    if (t->head && !all_unsent(t) && mono_reached(r->now, mono_add_ms(t->sent_at, RESEND_MS)))
        go_back(t);
    read_on(t);
    send_on(t);
}

static bool transfer_followed(const struct replica *r, struct transfer *t,
                              const struct raft_peer_status *st) {
    if (st->match > t->match) {
        t->match = st->match;
        t->progress_at = r->now;
    }
    return st->match >= t->follow_to || st->state == RAFT_SNAPSHOT ||
           mono_reached(r->now, mono_add_ms(t->progress_at, NO_PROGRESS_MS));
}

static void transfer_turn(struct replica *r, struct transfer *t) {
    struct raft_peer_status st = {0};

    if (!still_wanted(r, t, &st) || (t->state == TRANSFER_WAITING && st.state != RAFT_SNAPSHOT)) {
        transfer_remove(r, t);
        return;
    }
    if (t->failed || (t->state == TRANSFER_SENDING &&
                      mono_reached(r->now, mono_add_ms(t->progress_at, NO_PROGRESS_MS)))) {
        transfer_fail(r, t);
        return;
    }
    switch (t->state) {
    case TRANSFER_WAITING:
        transfer_start(r, t);
        if (t->state == TRANSFER_SENDING)
            transfer_send(r, t, &st);
        break;
    case TRANSFER_SENDING:
        transfer_send(r, t, &st);
        break;
    case TRANSFER_FOLLOWING:
        if (transfer_followed(r, t, &st))
            transfer_remove(r, t);
        break;
    }
}

void transfers_turn(struct replica *r) {
    struct transfer *t = r->transfers.list;

    while (t && !r->failed) {
        struct transfer *next = t->next; /* a failure may append a new one: for the next turn */

        transfer_turn(r, t);
        t = next;
    }
}

struct mono transfers_deadline(const struct replica *r) {
    struct mono d = MONO_NEVER;

    for (const struct transfer *t = r->transfers.list; t; t = t->next) {
        if (t->state != TRANSFER_WAITING)
            d = mono_min(d, mono_add_ms(t->progress_at, NO_PROGRESS_MS));
        if (t->state == TRANSFER_WAITING && !mono_reached(r->now, t->start_at))
            d = mono_min(d, t->start_at);
        if (t->state == TRANSFER_SENDING && !t->reading && !t->read_all && t->bytes < WINDOW_BYTES)
            d = mono_min(d, t->read_at);
        if (t->state == TRANSFER_SENDING && t->unsent)
            d = mono_min(d, t->retry_at);
        if (t->state == TRANSFER_SENDING && t->head && !all_unsent(t))
            d = mono_min(d, mono_add_ms(t->sent_at, RESEND_MS));
    }
    return d;
}

uint64_t transfers_hold(const struct replica *r) {
    uint64_t hold = UINT64_MAX;

    for (const struct transfer *t = r->transfers.list; t; t = t->next)
        if (t->state != TRANSFER_WAITING)
            hold = MIN(hold, MAX(t->index, t->match));
    return hold;
}

int64_t transfers_percent(const struct replica *r, uint64_t peer) {
    for (const struct transfer *t = r->transfers.list; t; t = t->next) {
        if (t->peer != peer || t->state == TRANSFER_FOLLOWING)
            continue;
        if (t->read_all && !t->head)
            return 100; /* it is putting it in place */
        return t->view ? (int64_t) view_percent(t->view) : 0;
    }
    return -1;
}

void transfers_free(struct replica *r) {
    while (r->transfers.list)
        transfer_remove(r, r->transfers.list);
}
