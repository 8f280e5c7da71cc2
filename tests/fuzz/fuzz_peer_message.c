/* Any bytes from peers into a real replica: messages of the ordinary and of the bulk connection,
 * while it follows, campaigns and leads. It may drop them, answer, or stop with a reason; it may
 * not crash.
 *
 * The input is a list of acts: a message's bytes as they are, a vote or an acknowledgement with the
 * right term (so that it comes to lead), a message of chosen Raft fields, links that go and come,
 * calls of clients, time. One replica of three is real; what it sends is thrown away. */
#include "fuzz.h"

#include "node_world.h"

#include "chronos/internal/v1/peer.pb-c.h"

#include <stdio.h>
#include <stdlib.h>

#define ACTS_MAX 64
#define PACKED_BYTES_MAX 4096U

static void begin(struct node_world *w) {
    node_world_init(w, 1);
    w->config.count = 3;
    for (uint64_t i = 0; i < 3; i++) {
        w->config.members[i] = (struct raft_member){.id = i + 1, .flags = RAFT_MEMBER_VOTER};
        (void) snprintf(w->config.members[i].address, RAFT_ADDRESS_BYTES_MAX, "n%d", (int) i + 1);
    }
    w->options.snapshot_entries = 4;
    w->options.snapshot_interval_ns = NS_PER_S;
    node_world_open(w);
    w->nodes[0].may_fail = true;
    w->nodes[1].down = w->nodes[2].down = true; /* nobody there to deliver to */
    replica_on_peer_link(w->nodes[0].replica, 2, true);
    replica_on_peer_link(w->nodes[0].replica, 3, true);
}

static void deliver(struct node_world *w, uint64_t from, struct slice payload) {
    replica_on_peer_message(w->nodes[0].replica, from, payload);
}

static void deliver_raft(struct node_world *w, Chronos__Internal__V1__RaftMessage *m) {
    Chronos__Internal__V1__PeerMessage p = CHRONOS__INTERNAL__V1__PEER_MESSAGE__INIT;
    uint8_t packed[PACKED_BYTES_MAX];
    size_t bytes;

    p.version = 1;
    p.n_raft = 1;
    p.raft = &m;
    bytes = chronos__internal__v1__peer_message__get_packed_size(&p);
    if (bytes > sizeof(packed))
        return;
    (void) chronos__internal__v1__peer_message__pack(&p, packed);
    deliver(w, m->from, slice_of(packed, bytes));
}

static uint64_t session_of(const struct raft *r, uint64_t peer) {
    struct raft_peer_status s;

    return raft_peer_status(r, peer, &s) == 0 ? s.session : 0;
}

/* What an honest peer would answer now, whatever it was asked. */
static void honest(struct node_world *w, uint64_t from, uint8_t what) {
    static const enum raft_message_type types[] = {RAFT_MSG_PRE_VOTE_RESP, RAFT_MSG_VOTE_RESP,
                                                   RAFT_MSG_APPEND_RESP, RAFT_MSG_HEARTBEAT_RESP};
    const struct raft *r = replica_raft(w->nodes[0].replica);
    Chronos__Internal__V1__RaftMessage m = CHRONOS__INTERNAL__V1__RAFT_MESSAGE__INIT;

    m.type = (uint32_t) types[what % ARRAY_LEN(types)];
    m.from = from;
    m.to = 1;
    m.term = raft_term(r) + (m.type == RAFT_MSG_PRE_VOTE_RESP);
    m.session = session_of(r, from);
    m.match = m.type == RAFT_MSG_APPEND_RESP ? raft_last_index(r) : 0;
    deliver_raft(w, &m);
}

static void chosen(struct node_world *w, uint64_t from, struct slice *in) {
    const struct raft *r = replica_raft(w->nodes[0].replica);
    Chronos__Internal__V1__RaftMessage m = CHRONOS__INTERNAL__V1__RAFT_MESSAGE__INIT;
    Chronos__Internal__V1__LogEntry entries[4], *list[ARRAY_LEN(entries)];

    m.type = fuzz_u8(in) % (RAFT_MSG_TYPE_MAX + 1);
    m.from = from;
    m.to = 1;
    m.term = fuzz_near(in, raft_term(r) + 8);
    m.log_index = fuzz_near(in, raft_last_index(r) + 8);
    m.log_term = fuzz_near(in, m.term);
    m.commit = fuzz_near(in, raft_last_index(r) + 8);
    m.reject = fuzz_u8(in) & 1;
    m.match = fuzz_near(in, raft_last_index(r) + 8);
    m.session = fuzz_near(in, session_of(r, from) + 8);
    m.n_entries = fuzz_u8(in) % (ARRAY_LEN(entries) + 1);
    m.entries = list;
    for (size_t i = 0; i < m.n_entries; i++) {
        struct slice data;

        list[i] = &entries[i];
        chronos__internal__v1__log_entry__init(list[i]);
        list[i]->index = m.log_index + 1 + i;
        list[i]->term = MAX(m.log_term, fuzz_near(in, m.log_term));
        list[i]->type = fuzz_u8(in) % 5;
        data = fuzz_bytes(in, fuzz_u8(in));
        list[i]->data.data = (uint8_t *) (uintptr_t) data.data; /* packing reads only */
        list[i]->data.len = data.len;
    }
    deliver_raft(w, &m);
}

static void read_done(void *arg, enum replica_status status, uint64_t index) {
    (void) arg;
    (void) status;
    (void) index;
}

static void client(struct node_world *w, uint8_t what) {
    static struct answer answers[ACTS_MAX];
    static unsigned next;
    const struct mono by = node_world_in_ms(w, 200);

    if (what & 1)
        (void) !replica_read(w->nodes[0].replica, by, read_done, NULL);
    else
        (void) !node_world_submit(w, 0, what & 2 ? "key" : "", what & 4 ? REPLICA_RETRY_SAFE : 0,
                                  by, &answers[next++ % ACTS_MAX]);
}

static void act(struct node_world *w, struct slice *in) {
    struct replica *r = w->nodes[0].replica;
    uint8_t what = fuzz_u8(in);
    uint64_t from = 2 + (what & 1);

    switch (what >> 1 & 7) {
    case 0:
    case 1:
    case 2: {
        size_t len = fuzz_u8(in);

        deliver(w, from, fuzz_bytes(in, len | (size_t) fuzz_u8(in) << 8));
        break;
    }
    case 3:
        honest(w, from, what >> 4);
        break;
    case 4:
        chosen(w, from, in);
        break;
    case 5:
        client(w, what >> 4);
        break;
    case 6:
        if (what & 16)
            replica_snapshot_now(r);
        else
            replica_on_peer_link(r, from, what & 32);
        break;
    case 7:
        node_world_run(w, (uint64_t) (what >> 4) << 5);
        break;
    }
    node_world_settle(w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct node_world w;
    struct slice in = slice_of(data, size);
    struct errtext why = {""};
    int rc = 0;

    begin(&w);
    for (int i = 0; rc == 0 && i < ACTS_MAX && in.len > 0; i++) {
        act(&w, &in);
        rc = replica_failed(w.nodes[0].replica, &why);
    }
    if (rc != 0) {
        ASSERT(rc == ERR_CORRUPT || rc == ERR_PROTO || rc == ERR_VERSION || rc == ERR_CONFIG ||
               rc == ERR_FOREIGN);
        fuzz_sentence(&why);
    } else {
        fsm_check_invariants(replica_fsm(w.nodes[0].replica));
    }
    node_world_close(&w);
    return 0;
}
