/* Any peers: one raft hears messages of any content, between events of its own life, and must
 * neither crash nor break its contract with the caller. What it may do is stop with ERR_CORRUPT,
 * when a leader contradicts what is committed or a configuration does not decode.
 *
 * The input: options, then a list of events; numbers are small ones near the raft's own, so that
 * terms, indices and sessions fit often enough to get past the first comparison. The caller's half
 * of the contract (raft.h) is kept: batches are made durable and entries applied in order. */
#include "fuzz.h"

#include "raft/raft.h"

#include <stdlib.h>

#define EVENTS_MAX 200
#define ENTRIES_MAX 6

struct peer_world {
    struct raft *raft;
    struct mono now;
    uint64_t seq;       /* of the newest batch */
    uint64_t durable;   /* reported */
    uint64_t apply;     /* may be applied */
    uint64_t applied;   /* was */
    uint64_t commit;    /* never goes back */
    uint64_t term;      /* nor does this */
    uint64_t contexts;  /* of reads given out */
    uint64_t loads[16]; /* peers for which entries are being read */
    uint64_t load_first[16];
    size_t loads_count;
};

static struct bytes *some_config(struct slice *in) {
    struct raft_config c = {.count = 1 + fuzz_u8(in) % 5};
    uint8_t joint = fuzz_u8(in);

    for (size_t i = 0; i < c.count; i++) {
        uint8_t flags = fuzz_u8(in);

        c.members[i].id = i + 1 + (flags >> 6);
        c.members[i].flags = flags & 15;
        if (i > 0 && c.members[i].id <= c.members[i - 1].id)
            c.members[i].id = c.members[i - 1].id + 1;
        if (c.members[i].flags & RAFT_MEMBER_VOTER_OLD)
            c.joint = true;
    }
    if (joint == 77) {
        struct slice any = fuzz_bytes(in, fuzz_u8(in));

        return bytes_copy(any.data, any.len);
    }
    return raft_config_encode(&c);
}

static size_t some_entries(struct slice *in, uint64_t index, uint64_t term,
                           struct raft_entry entries[ENTRIES_MAX]) {
    size_t n = fuzz_u8(in) % (ENTRIES_MAX + 1);

    for (size_t i = 0; i < n; i++) {
        uint8_t kind = fuzz_u8(in);

        term += kind >> 7;
        entries[i] = (struct raft_entry){.index = index + 1 + i,
                                         .term = kind & 64 ? fuzz_near(in, term) : term,
                                         .type = (enum raft_entry_type)(1 + kind % 3U)};
        if (entries[i].type == RAFT_ENTRY_CONFIG)
            entries[i].data = some_config(in);
        else if (entries[i].type == RAFT_ENTRY_COMMAND)
            entries[i].data = bytes_copy("command", 1 + kind % 7);
    }
    return n;
}

static void entries_done(struct raft_entry *entries, size_t n) {
    for (size_t i = 0; i < n; i++)
        (void) bytes_unref(entries[i].data);
}

static uint64_t session_of(struct peer_world *w, struct slice *in, uint64_t peer) {
    struct raft_peer_status s;

    if (raft_peer_status(w->raft, peer, &s) == 0)
        return fuzz_near(in, s.session + 8);
    return fuzz_near(in, 8);
}

/* What the caller has to see to: raft.h, numbers 1 to 4. */
static void take_effects(struct peer_world *w, const struct raft_effects *fx) {
    ASSERT(raft_commit(w->raft) >= w->commit);
    ASSERT(raft_term(w->raft) >= w->term);
    ASSERT(fx->truncate_from == 0 || fx->truncate_from > w->commit);
    ASSERT(fx->persist_seq == 0 || fx->persist_seq == w->seq + 1);
    ASSERT(fx->apply_index >= w->apply || fx->apply_index == 0);
    for (size_t i = 0; i < fx->messages_count; i++)
        ASSERT(fx->messages[i].type > 0 && fx->messages[i].type < RAFT_MSG_TYPE_MAX);
    if (fx->persist_seq != 0)
        w->seq = fx->persist_seq;
    if (fx->install_index > 0) {
        w->apply = fx->apply_index;
        w->applied = MAX(w->applied, raft_applied(w->raft));
    }
    w->apply = MAX(w->apply, fx->apply_index);
    w->commit = raft_commit(w->raft);
    w->term = raft_term(w->raft);
    for (size_t i = 0; i < fx->loads_count && w->loads_count < ARRAY_LEN(w->loads); i++) {
        w->loads[w->loads_count] = fx->loads[i].peer;
        w->load_first[w->loads_count++] = fx->loads[i].first_index;
    }
    raft_check_invariants(w->raft);
}

/* False: the raft has stopped. */
static bool step(struct peer_world *w, const struct raft_event *ev) {
    const struct raft_effects *fx = NULL;
    int rc = raft_step(w->raft, w->now, ev, &fx);

    ASSERT(rc == 0 || rc == ERR_CORRUPT);
    if (rc == 0)
        take_effects(w, fx);
    return rc == 0;
}

static bool message(struct peer_world *w, struct slice *in) {
    struct raft_entry entries[ENTRIES_MAX];
    uint8_t kind = fuzz_u8(in);
    uint8_t which = fuzz_u8(in);
    struct raft_message m = {.type = (enum raft_message_type)(1 + kind % 12U),
                             .from = 1 + (which & 7U) % 5,
                             .to = which & 128 ? fuzz_near(in, 1) : 1,
                             .reject = which & 8};
    struct raft_event ev = {.type = RAFT_EV_MESSAGE, .message = &m};
    bool alive;

    m.term = which & 16 ? fuzz_near(in, raft_term(w->raft) + 8) : raft_term(w->raft);
    m.log_index = fuzz_near(in, raft_last_index(w->raft));
    m.log_term = which & 32 ? fuzz_near(in, m.term) : m.term;
    m.commit = fuzz_near(in, raft_last_index(w->raft));
    m.match = fuzz_near(in, raft_last_index(w->raft));
    m.hint_index = fuzz_near(in, m.log_index);
    m.hint_term = fuzz_near(in, m.log_term);
    m.context = fuzz_near(in, w->contexts);
    m.session = session_of(w, in, m.from);
    if (m.type == RAFT_MSG_APPEND_REQ || which & 64) {
        m.entries_count = some_entries(in, m.log_index, m.log_term, entries);
        m.entries = m.entries_count > 0 ? entries : NULL;
    }
    alive = step(w, &ev);
    entries_done(entries, m.entries_count);
    return alive;
}

static bool propose(struct peer_world *w, struct slice *in) {
    struct raft_entry entries[ENTRIES_MAX];
    size_t n = some_entries(in, 0, 1, entries);
    struct raft_event ev = {.type = RAFT_EV_PROPOSE, .propose = {entries, n}};
    bool alive = true;

    for (size_t i = 0; i < n; i++) {
        if (entries[i].type == RAFT_ENTRY_NOOP) { /* a caller proposes none */
            entries[i].type = RAFT_ENTRY_COMMAND;
            entries[i].data = bytes_copy("proposed", 8);
        }
    }
    if (n > 0)
        alive = step(w, &ev);
    entries_done(entries, n);
    return alive;
}

static bool loaded(struct peer_world *w) {
    struct raft_event ev = {.type = RAFT_EV_LOADED};

    if (w->loads_count == 0)
        return true;
    ev.loaded.peer = w->loads[--w->loads_count];
    return step(w, &ev);
}

static bool install(struct peer_world *w, struct slice *in) {
    struct raft_config c = {.count = 3};
    struct raft_event ev = {.type = RAFT_EV_INSTALL};

    for (size_t i = 0; i < 3; i++)
        c.members[i] = (struct raft_member){.id = i + 1, .flags = RAFT_MEMBER_VOTER};
    ev.install.leader = 2 + fuzz_u8(in) % 3;
    ev.install.term = fuzz_near(in, raft_term(w->raft) + 8);
    ev.install.session = fuzz_near(in, 8);
    ev.install.index = fuzz_near(in, raft_last_index(w->raft));
    ev.install.index_term = fuzz_near(in, raft_term(w->raft));
    ev.install.config = &c;
    ev.install.config_index = fuzz_near(in, ev.install.index);
    return step(w, &ev);
}

static bool compacted(struct peer_world *w, struct slice *in) {
    uint64_t index = w->applied - MIN(w->applied, (uint64_t) fuzz_u8(in) % 8);
    const struct raft_entry *e = raft_entry_at(w->raft, index);
    struct raft_event ev = {.type = RAFT_EV_COMPACTED};

    if (!e || index <= raft_compacted_index(w->raft))
        return true;
    ev.compacted.index = index;
    ev.compacted.term = e->term;
    return step(w, &ev);
}

static bool own_life(struct peer_world *w, uint8_t what, struct slice *in) {
    struct raft_event ev = {0};
    struct mono due;
    uint8_t peer;

    switch (what % 12) {
    case 0: /* its disk is as far as it may be */
        ev = (struct raft_event){.type = RAFT_EV_PERSISTED, .persisted_seq = w->seq};
        w->durable = w->seq;
        return step(w, &ev);
    case 1: /* by one batch */
        if (w->durable < w->seq)
            w->durable++;
        ev = (struct raft_event){.type = RAFT_EV_PERSISTED, .persisted_seq = w->durable};
        return step(w, &ev);
    case 2:
        w->applied = MAX(w->applied, w->apply);
        ev = (struct raft_event){.type = RAFT_EV_APPLIED, .applied_index = w->applied};
        return step(w, &ev);
    case 3:
        due = mono_min(raft_deadline(w->raft), mono_add_ms(w->now, 10000));
        w->now.ns = MAX(w->now.ns, due.ns); /* it may have passed already */
        ev.type = RAFT_EV_TIMEOUT;
        return step(w, &ev);
    case 4:
        w->now = mono_add_ms(w->now, fuzz_u8(in));
        return true;
    case 5:
        ev = (struct raft_event){.type = RAFT_EV_READ, .read_context = ++w->contexts};
        return step(w, &ev);
    case 6:
        ev = (struct raft_event){.type = RAFT_EV_TRANSFER, .transfer_to = fuzz_u8(in) % 6};
        return step(w, &ev);
    case 7:
        ev.type = RAFT_EV_CAMPAIGN;
        return step(w, &ev);
    case 8:
        peer = fuzz_u8(in);
        ev = peer < 128 ? (struct raft_event){.type = RAFT_EV_UNREACHABLE, .unreachable = peer % 6}
                        : (struct raft_event){.type = RAFT_EV_REACHABLE, .reachable = peer % 6};
        return step(w, &ev);
    case 9:
        ev = (struct raft_event){.type = RAFT_EV_SNAPSHOT_FAILED,
                                 .snapshot_failed = fuzz_u8(in) % 6};
        return step(w, &ev);
    case 10:
        return compacted(w, in);
    default:
        ev.type = RAFT_EV_SPREAD_COMMIT;
        return step(w, &ev) && loaded(w);
    }
}

static struct raft *begin(struct slice *in) {
    struct raft_config c = {.count = 1 + fuzz_u8(in) % 5};
    struct raft_start start = {.config = &c};
    uint8_t flags = fuzz_u8(in);
    struct raft_options o;
    struct raft *r = NULL;
    int rc;

    raft_options_default(&o, 1, 1 + fuzz_u8(in));
    o.applied_entries_kept = flags & 7;
    o.lazy_commit = flags & 8;
    o.lease_reads = flags & 16;
    o.inflight_messages_max = 1 + (flags >> 6);
    o.uncommitted_entries_max = 16;
    o.append_bytes_max = flags & 32 ? 100 : 4096;
    for (size_t i = 0; i < c.count; i++)
        c.members[i] = (struct raft_member){
            .id = i + 1, .flags = i == 4 ? RAFT_MEMBER_LEARNER : RAFT_MEMBER_VOTER};
    rc = raft_new(&o, &start, (struct mono){NS_PER_S}, &r, NULL);
    ASSERT(rc == 0);
    return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct slice in = slice_of(data, size);
    struct peer_world w = {.now = {NS_PER_S}};
    bool alive = true;

    w.raft = begin(&in);
    for (int i = 0; alive && i < EVENTS_MAX && in.len > 0; i++) {
        uint8_t what = fuzz_u8(&in);

        if (what < 120)
            alive = message(&w, &in);
        else if (what < 140)
            alive = propose(&w, &in);
        else if (what < 148)
            alive = install(&w, &in);
        else
            alive = own_life(&w, what, &in);
    }
    w.raft = raft_free(w.raft);
    return 0;
}
