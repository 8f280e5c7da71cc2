/* raft/: snapshots, configurations as values, and slow disks, one node at a time.
 *
 * Goal: what the golden scripts cannot show because the network or the caller of raft_world.c is
 * too well behaved: answers of older sessions, snapshots that come late, twice or are nonsense,
 * batches in flight around an install. Method: one node, driven by hand-made events. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "raft_solo.h"

/* Node 1 of @c; its log holds no-op entries of @terms, none of which stays once it is applied. */
static void start(struct solo *n, const struct raft_config *c, uint64_t term, const uint64_t *terms,
                  size_t count, uint64_t applied) {
    struct raft_options o;

    raft_options_default(&o, 1, 7);
    o.applied_entries_kept = 0;
    solo_start_with(n, &o, c, (struct raft_hard_state){.term = term}, terms, count, applied, 0);
}

static void applied(struct solo *n, uint64_t index) {
    solo_step(n, (struct raft_event){.type = RAFT_EV_APPLIED, .applied_index = index});
}

static void compacted(struct solo *n, uint64_t index, uint64_t term) {
    solo_step(n, (struct raft_event){.type = RAFT_EV_COMPACTED, .compacted = {index, term}});
}

static struct raft_event install_event(const struct raft_config *c, uint64_t term, uint64_t index,
                                       uint64_t index_term) {
    return (struct raft_event){.type = RAFT_EV_INSTALL,
                               .install = {.leader = 2,
                                           .term = term,
                                           .session = 9,
                                           .index = index,
                                           .index_term = index_term,
                                           .config = c}};
}

static struct raft_peer_status peer(const struct solo *n, uint64_t id) {
    struct raft_peer_status s = {0};

    assert_int_equal(raft_peer_status(n->raft, id, &s), 0);
    return s;
}

static void ack(struct solo *n, uint64_t from, uint64_t match) {
    solo_ack(n, from, peer(n, from).session, match);
}

static void snapshot_resp(struct solo *n, uint64_t from, uint64_t session, uint64_t match) {
    solo_recv(n, (struct raft_message){.type = RAFT_MSG_SNAPSHOT_RESP,
                                       .from = from,
                                       .term = raft_term(n->raft),
                                       .session = session,
                                       .match = match});
}

static enum raft_propose_result propose(struct solo *n, enum raft_entry_type type,
                                        const struct raft_config *c) {
    struct bytes *data = c ? raft_config_encode(c) : bytes_copy("x", 1);
    struct raft_entry e = {.type = type, .data = data};

    assert_non_null(data);
    solo_step(n,
              (struct raft_event){.type = RAFT_EV_PROPOSE, .propose = {.entries = &e, .count = 1}});
    (void) bytes_unref(data);
    return n->fx->propose_result;
}

/* Node 1 leads term 6 over a log of five entries, all applied and gone; peer 2 has everything. */
static void lead(struct solo *n) {
    struct raft_config c = solo_voters(3);

    start(n, &c, 5, (uint64_t[]){1, 1, 1, 2, 5}, 5, 5);
    solo_step(n, (struct raft_event){.type = RAFT_EV_CAMPAIGN});
    solo_persisted(n, 1);
    solo_recv(n, (struct raft_message){.type = RAFT_MSG_VOTE_RESP, .from = 2, .term = 6});
    assert_int_equal(raft_role(n->raft), RAFT_LEADER);
    solo_persisted(n, 2);
    ack(n, 2, 6);
    applied(n, 6);
    compacted(n, 6, 6);
    assert_int_equal(raft_compacted_index(n->raft), 6);
    assert_int_equal(raft_first_in_memory(n->raft), 7);
}

/* Peer 3 has refused the place before index 6, then the oldest place there is. */
static void into_snapshot(struct solo *n) {
    for (int i = 0; i < 2 && peer(n, 3).state != RAFT_SNAPSHOT; i++)
        solo_recv(n, (struct raft_message){.type = RAFT_MSG_APPEND_RESP,
                                           .from = 3,
                                           .term = 6,
                                           .session = peer(n, 3).session,
                                           .reject = true,
                                           .log_index = peer(n, 3).next - 1});
    assert_int_equal(peer(n, 3).state, RAFT_SNAPSHOT);
    assert_int_equal(n->fx->snapshots_count, 1);
    assert_int_equal(n->fx->snapshots[0].peer, 3);
    assert_int_equal(n->fx->snapshots[0].term, 6);
    assert_int_equal(n->fx->snapshots[0].session, peer(n, 3).session);
    assert_int_equal(n->fx->loads_count, 0);
}

/* M29, M3: an answer counts in its session only, once, and never beyond the log. */
static void test_answers(void **state) {
    struct solo n;
    uint64_t session;

    (void) state;
    lead(&n);
    into_snapshot(&n);
    session = peer(&n, 3).session;
    snapshot_resp(&n, 3, session - 1, 6);
    snapshot_resp(&n, 3, session, 99);
    snapshot_resp(&n, 9, session, 6);
    assert_int_equal(peer(&n, 3).state, RAFT_SNAPSHOT);
    assert_int_equal(peer(&n, 3).match, 0);
    assert_int_equal(propose(&n, RAFT_ENTRY_COMMAND, NULL), RAFT_PROPOSE_ACCEPTED);
    assert_null(solo_sent(&n, 3, RAFT_MSG_APPEND_REQ));
    snapshot_resp(&n, 3, session, 6);
    assert_int_equal(peer(&n, 3).state, RAFT_REPLICATE);
    assert_int_equal(peer(&n, 3).match, 6);
    assert_non_null(solo_sent(&n, 3, RAFT_MSG_APPEND_REQ));
    assert_int_equal(solo_sent(&n, 3, RAFT_MSG_APPEND_REQ)->log_index, 6);
    assert_int_equal(solo_sent(&n, 3, RAFT_MSG_APPEND_REQ)->log_term, 6); /* M10: it is known */
    assert_int_equal(solo_sent(&n, 3, RAFT_MSG_APPEND_REQ)->entries_count, 1);
    snapshot_resp(&n, 3, session, 5); /* late: nothing moves back */
    assert_int_equal(peer(&n, 3).match, 6);
    n.raft = raft_free(n.raft);
}

/* A broken link neither ends nor repeats a transfer; a reported failure leads to a probe after the
 * next heartbeat answer; a report about nobody's transfer does nothing. */
static void test_transfer_troubles(void **state) {
    struct raft_event lost = {.type = RAFT_EV_UNREACHABLE, .unreachable = 3};
    struct raft_event failed = {.type = RAFT_EV_SNAPSHOT_FAILED, .snapshot_failed = 3};
    struct solo n;
    uint64_t session;

    (void) state;
    lead(&n);
    solo_step(&n, failed);
    assert_int_equal(peer(&n, 3).state, RAFT_PROBE);
    into_snapshot(&n);
    session = peer(&n, 3).session;
    solo_step(&n, lost);
    assert_int_equal(peer(&n, 3).state, RAFT_SNAPSHOT);
    assert_int_equal(peer(&n, 3).session, session);
    assert_int_equal(n.fx->snapshots_count, 0);
    for (int i = 0; i < 3; i++) {
        solo_step(&n, failed);
        assert_int_equal(peer(&n, 3).state, RAFT_PROBE);
        assert_int_equal(n.fx->messages_count, 0);
    }
    n.now.ns += 60 * NS_PER_MS;
    solo_recv(&n, (struct raft_message){
                      .type = RAFT_MSG_HEARTBEAT_RESP, .from = 3, .term = 6, .session = session});
    assert_non_null(solo_sent(&n, 3, RAFT_MSG_APPEND_REQ));
    assert_int_equal(n.fx->snapshots_count, 0);
    into_snapshot(&n);
    failed.snapshot_failed = 2; /* is being replicated to */
    solo_step(&n, failed);
    assert_int_equal(peer(&n, 2).state, RAFT_REPLICATE);
    n.raft = raft_free(n.raft);
}

/* A member that left and came back begins in a new session: the old transfer's answer is nobody's.
 * A late acknowledgement that fills the hole ends the need for a transfer. */
static void test_sessions(void **state) {
    struct raft_config c = solo_voters(3);
    struct solo n;
    uint64_t session;

    (void) state;
    lead(&n);
    assert_int_equal(raft_config_add_learner(&c, 4, "d:1", false, 0, &c, NULL), 0);
    assert_int_equal(propose(&n, RAFT_ENTRY_CONFIG, &c), RAFT_PROPOSE_ACCEPTED);
    assert_int_equal(peer(&n, 4).state, RAFT_PROBE);
    session = peer(&n, 4).session;
    solo_recv(&n, (struct raft_message){.type = RAFT_MSG_APPEND_RESP,
                                        .from = 4,
                                        .term = 6,
                                        .session = session,
                                        .reject = true,
                                        .log_index = peer(&n, 4).next - 1});
    assert_int_equal(peer(&n, 4).state, RAFT_SNAPSHOT);
    solo_persisted(&n, n.fx->persist_seq ? n.fx->persist_seq : 3);
    ack(&n, 2, 7);
    assert_int_equal(raft_commit(n.raft), 7);
    assert_int_equal(raft_config_remove_learner(&c, 4, &c, NULL), 0);
    assert_int_equal(propose(&n, RAFT_ENTRY_CONFIG, &c), RAFT_PROPOSE_ACCEPTED);
    solo_persisted(&n, 4);
    ack(&n, 2, 8);
    assert_int_equal(raft_config_add_learner(&c, 4, "d:1", false, 0, &c, NULL), 0);
    assert_int_equal(propose(&n, RAFT_ENTRY_CONFIG, &c), RAFT_PROPOSE_ACCEPTED);
    assert_true(peer(&n, 4).session != session);
    snapshot_resp(&n, 4, session, 6);
    assert_int_equal(peer(&n, 4).match, 0);
    assert_int_equal(peer(&n, 4).state, RAFT_PROBE);

    into_snapshot(&n);
    ack(&n, 3, 6);
    assert_int_equal(peer(&n, 3).state, RAFT_REPLICATE);
    n.raft = raft_free(n.raft);
}

/* A learner becomes a voter only once it is known to have the configuration that made it one:
 * voters without any would elect nobody. */
static void test_voter_needs_configuration(void **state) {
    struct raft_config c = solo_voters(3);
    struct raft_config joint;
    struct solo n;

    (void) state;
    lead(&n);
    assert_int_equal(raft_config_add_learner(&c, 4, "d:1", true, 0, &c, NULL), 0);
    assert_int_equal(propose(&n, RAFT_ENTRY_CONFIG, &c), RAFT_PROPOSE_ACCEPTED);
    solo_persisted(&n, 3);
    ack(&n, 2, 7);
    assert_int_equal(raft_commit(n.raft), 7);
    assert_int_equal(raft_config_enter_joint(&c, (uint64_t[]){1, 2, 3, 4}, 4, false, &joint, NULL),
                     0);
    assert_int_equal(propose(&n, RAFT_ENTRY_CONFIG, &joint), RAFT_PROPOSE_FULL);
    ack(&n, 4, 6); /* not yet the entry that adds it */
    assert_int_equal(propose(&n, RAFT_ENTRY_CONFIG, &joint), RAFT_PROPOSE_FULL);
    ack(&n, 4, 7);
    assert_int_equal(propose(&n, RAFT_ENTRY_CONFIG, &joint), RAFT_PROPOSE_ACCEPTED);
    n.raft = raft_free(n.raft);
}

/* ---- the follower --------------------------------------------------------------------------- */

/* M48, M49, M21, M10: a local entry of a higher term is in nobody's way; batches in flight complete
 * and count for nothing; the snapshot counts, and is applied, with its own batch. */
static void test_install(void **state) {
    struct raft_config c = solo_voters(3);
    struct raft_config d = solo_voters(2);
    struct solo n;

    (void) state;
    start(&n, &c, 6, (uint64_t[]){1, 1, 5, 5, 5}, 5, 1);
    solo_append_req(&n, 6, 5, 5, (uint64_t[]){5, 5, 5}, 3, 0);
    assert_int_equal(n.fx->persist_seq, 1);
    solo_step(&n, install_event(&d, 7, 7, 4));
    assert_int_equal(n.fx->persist_seq, 2);
    assert_int_equal(n.fx->install_index, 7);
    assert_int_equal(n.fx->install_term, 4);
    assert_int_equal(n.fx->apply_index, 1);
    assert_int_equal(n.fx->hard_state.term, 7);
    assert_int_equal(solo_sent(&n, 2, RAFT_MSG_SNAPSHOT_RESP)->match, 7);
    assert_int_equal(solo_sent(&n, 2, RAFT_MSG_SNAPSHOT_RESP)->after_seq, 2);
    assert_int_equal(raft_commit(n.raft), 7);
    assert_int_equal(raft_last_index(n.raft), 7);
    assert_int_equal(raft_config_latest(n.raft)->count, 2);
    assert_int_equal(raft_config_committed(n.raft)->count, 2);
    applied(&n, 1); /* a late report about the old state */

    solo_append_req(&n, 7, 0, 0, (uint64_t[]){1, 1, 4}, 3, 3); /* old: confirmed, nothing else */
    assert_int_equal(n.fx->persist_seq, 0);
    assert_int_equal(raft_last_index(n.raft), 7);
    assert_int_equal(solo_sent(&n, 2, RAFT_MSG_APPEND_RESP)->match, 3);
    solo_append_req(&n, 7, 7, 4, (uint64_t[]){7, 7}, 2, 8);
    assert_int_equal(n.fx->persist_seq, 3);
    assert_int_equal(raft_commit(n.raft), 8);
    assert_int_equal(n.fx->apply_index, 1);
    solo_persisted(&n, 1);
    assert_int_equal(raft_durable_index(n.raft), 1);
    assert_int_equal(n.fx->apply_index, 1);
    solo_persisted(&n, 2);
    assert_int_equal(raft_durable_index(n.raft), 7);
    assert_int_equal(n.fx->apply_index, 7);
    assert_int_equal(raft_applied(n.raft), 7);
    solo_persisted(&n, 3);
    assert_int_equal(n.fx->apply_index, 8);
    solo_recv(&n, (struct raft_message){.type = RAFT_MSG_TIMEOUT_NOW, .from = 2, .term = 7});
    assert_int_equal(solo_sent(&n, 2, RAFT_MSG_VOTE_REQ)->log_term, 7);
    n.raft = raft_free(n.raft);
}

/* Two in flight at once: the first one's batch carries the state to its own index only. */
static void test_install_twice(void **state) {
    struct raft_config c = solo_voters(3);
    struct solo n;

    (void) state;
    start(&n, &c, 6, (uint64_t[]){1, 1, 5}, 3, 1);
    solo_step(&n, install_event(&c, 6, 7, 4));
    solo_append_req(&n, 6, 7, 4, (uint64_t[]){5, 5}, 2, 8);
    solo_step(&n, install_event(&c, 6, 20, 6));
    assert_int_equal(n.fx->install_index, 20);
    assert_int_equal(n.fx->persist_seq, 3);
    solo_persisted(&n, 1);
    assert_int_equal(n.fx->apply_index, 7);
    solo_persisted(&n, 2);
    assert_int_equal(n.fx->apply_index, 7);
    assert_int_equal(raft_durable_index(n.raft), 7);
    solo_step(&n, install_event(&c, 6, 15, 6)); /* older than what is under way */
    assert_int_equal(n.fx->install_index, 0);
    assert_int_equal(solo_sent(&n, 2, RAFT_MSG_SNAPSHOT_RESP)->match, 20);
    assert_int_equal(solo_sent(&n, 2, RAFT_MSG_SNAPSHOT_RESP)->after_seq, 3);
    solo_persisted(&n, 3);
    assert_int_equal(n.fx->apply_index, 20);
    n.raft = raft_free(n.raft);
}

/* Figure 13, rule 6: entries behind one that the snapshot ends with may have been acknowledged;
 * they stay, and no snapshot is needed. */
static void test_install_held(void **state) {
    struct raft_config c = solo_voters(3);
    struct solo n;

    (void) state;
    start(&n, &c, 6, (uint64_t[]){1, 1, 5}, 3, 1);
    solo_append_req(&n, 6, 3, 5, (uint64_t[]){6, 6, 6}, 3, 0);
    solo_step(&n, install_event(&c, 6, 4, 6));
    assert_int_equal(n.fx->install_index, 0);
    assert_int_equal(raft_last_index(n.raft), 6);
    assert_int_equal(raft_commit(n.raft), 4);
    assert_int_equal(n.fx->apply_index, 3);
    assert_int_equal(solo_sent(&n, 2, RAFT_MSG_SNAPSHOT_RESP)->match, 4);
    assert_int_equal(solo_sent(&n, 2, RAFT_MSG_SNAPSHOT_RESP)->after_seq, 1);
    n.raft = raft_free(n.raft);
}

/* An older term, an older index, and nonsense install nothing. */
static void test_install_refused(void **state) {
    struct raft_config c = solo_voters(3);
    struct raft_config none = {0};
    struct raft_event bad[8];
    struct solo n;

    (void) state;
    start(&n, &c, 6, (uint64_t[]){1, 1, 5}, 3, 2);
    solo_step(&n, install_event(&c, 5, 9, 4));
    assert_true(solo_sent(&n, 2, RAFT_MSG_SNAPSHOT_RESP)->reject);
    assert_int_equal(solo_sent(&n, 2, RAFT_MSG_SNAPSHOT_RESP)->term, 6);
    solo_step(&n, install_event(&c, 6, 2, 1));
    assert_int_equal(n.fx->install_index, 0);
    assert_int_equal(solo_sent(&n, 2, RAFT_MSG_SNAPSHOT_RESP)->match, 2);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        bad[i] = install_event(&c, 6, 9, 4);
    bad[0].install.leader = 1;
    bad[1].install.leader = 0;
    bad[2].install.index_term = 7;
    bad[3].install.config = &none;
    bad[4].install.config = NULL;
    bad[5].install.config_index = 10;
    bad[6].install.term = UINT64_MAX;
    bad[7].install.leader = 3; /* the leader of this term is 2 */
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        solo_step(&n, bad[i]);
        assert_int_equal(n.fx->install_index, 0);
        assert_int_equal(n.fx->messages_count, 0);
        assert_int_equal(raft_last_index(n.raft), 3);
        assert_int_equal(raft_term(n.raft), 6);
    }
    n.raft = raft_free(n.raft);
}

/* A node that waits to be added: it never runs, and learns who it is from a snapshot. */
static void test_no_configuration(void **state) {
    struct raft_config c = solo_voters(3);
    struct solo n;

    (void) state;
    start(&n, NULL, 0, NULL, 0, 0);
    assert_true(raft_deadline(n.raft).ns == UINT64_MAX);
    solo_step(&n, (struct raft_event){.type = RAFT_EV_CAMPAIGN});
    assert_int_equal(raft_role(n.raft), RAFT_FOLLOWER);
    solo_step(&n, install_event(&c, 3, 50, 2));
    assert_int_equal(n.fx->install_index, 50);
    solo_persisted(&n, 1);
    assert_int_equal(raft_config_latest(n.raft)->count, 3);
    assert_true(raft_deadline(n.raft).ns < UINT64_MAX);
    n.raft = raft_free(n.raft);
}

static void test_start_compacted(void **state) {
    struct raft_config c = solo_voters(3);
    struct raft_start good = {.hard_state = {.term = 2},
                              .config = &c,
                              .applied_index = 9,
                              .prev_index = 9,
                              .prev_term = 2,
                              .compacted_index = 4,
                              .compacted_term = 1};
    struct raft_start bad[4] = {good, good, good, good};
    struct raft_options o;
    struct raft *r = NULL;

    (void) state;
    raft_options_default(&o, 1, 1);
    bad[0].compacted_index = 10;
    bad[1].compacted_term = 0;
    bad[2].compacted_term = 3;
    bad[3].compacted_index = 9; /* the same entry, another term */
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct errtext err = {{0}};

        assert_int_equal(raft_new(&o, &bad[i], (struct mono){1}, &r, &err), ERR_CORRUPT);
        assert_true(strlen(err.s) > 10);
    }
    assert_int_equal(raft_new(&o, &good, (struct mono){1}, &r, NULL), 0);
    assert_int_equal(raft_compacted_index(r), 4);
    r = raft_free(r);
}

/* ---- configurations as values --------------------------------------------------------------- */

static void test_config_changes(void **state) {
    struct raft_config c = solo_voters(3);
    struct raft_config before;
    struct raft_config d;
    struct raft_config back;
    struct errtext err = {{0}};
    struct bytes *b;

    (void) state;
    assert_int_equal(raft_config_add_learner(&c, 2, "x", false, 0, &c, &err), ERR_CONFIG);
    assert_string_equal(err.s, "node 2 is a member already");
    assert_int_equal(raft_config_add_learner(&c, 9, "x", true, 7, &c, &err), ERR_CONFIG);
    assert_int_equal(raft_config_remove_learner(&c, 1, &c, &err), ERR_CONFIG);
    assert_int_equal(raft_config_leave_joint(&c, &c, &err), ERR_CONFIG);
    assert_int_equal(raft_config_enter_joint(&c, (uint64_t[]){1, 2, 3}, 3, false, &c, &err),
                     ERR_CONFIG);
    assert_int_equal(raft_config_enter_joint(&c, (uint64_t[]){1, 1}, 2, false, &c, &err),
                     ERR_CONFIG);
    assert_int_equal(raft_config_enter_joint(&c, NULL, 0, false, &c, &err), ERR_CONFIG);
    assert_int_equal(c.count, 3);

    before = c;
    assert_int_equal(raft_config_add_learner(&c, 9, "x:1", true, 3, &c, &err), 0);
    assert_int_equal(c.members[3].flags, RAFT_MEMBER_LEARNER | RAFT_MEMBER_PROMOTE);
    assert_int_equal(c.members[3].replaces, 3);
    b = raft_config_encode(&c);
    assert_non_null(b);
    assert_int_equal(raft_config_decode(bytes_slice(b), &back, &err), 0);
    assert_memory_equal(&back, &c, sizeof(c));
    b = bytes_unref(b);
    assert_int_equal(raft_config_check_change(&before, &c, &err), 0);

    /* Replace 3 by 9, demote 2. */
    d = c;
    assert_int_equal(raft_config_enter_joint(&c, (uint64_t[]){1, 2, 9}, 3, false, &d, &err), 0);
    assert_true(d.joint);
    assert_int_equal(raft_config_check_change(&c, &d, &err), 0);
    assert_int_equal(raft_config_check_change(&before, &d, &err), 0);
    assert_int_equal(raft_config_add_learner(&d, 5, "x", false, 0, &back, &err), ERR_CONFIG);
    assert_int_equal(raft_config_set_address(&d, 2, "new:1", &back, &err), 0);
    assert_int_equal(raft_config_check_change(&d, &back, &err), 0);
    assert_int_equal(raft_config_check_change(&d, &c, &err), ERR_CONFIG); /* no way back */
    assert_int_equal(raft_config_leave_joint(&d, &back, &err), 0);
    assert_int_equal(raft_config_check_change(&d, &back, &err), 0);
    assert_int_equal(raft_config_check_change(&c, &back, &err), ERR_CONFIG); /* not at once */
    assert_int_equal(back.count, 3);
    assert_int_equal(back.members[2].id, 9);
    assert_int_equal(back.members[2].flags, RAFT_MEMBER_VOTER);
    assert_int_equal(back.members[2].replaces, 0);
    c = back;
    assert_int_equal(raft_config_enter_joint(&c, (uint64_t[]){1, 9}, 2, true, &d, &err), 0);
    assert_int_equal(d.members[1].flags, RAFT_MEMBER_VOTER_OLD | RAFT_MEMBER_LEARNER);
    assert_int_equal(raft_config_leave_joint(&d, &d, &err), 0);
    assert_int_equal(d.members[1].flags, RAFT_MEMBER_LEARNER);
    assert_int_equal(raft_config_set_promote(&d, 2, true, 9, &d, &err), 0);
    assert_int_equal(raft_config_set_promote(&d, 2, false, 0, &d, &err), 0);
    assert_int_equal(raft_config_remove_learner(&d, 2, &d, &err), 0);
    assert_int_equal(d.count, 2);

    /* Not well-formed. */
    back = d;
    back.members[0].flags = RAFT_MEMBER_VOTER | RAFT_MEMBER_LEARNER;
    assert_int_equal(raft_config_check_change(&d, &back, &err), ERR_CONFIG);
    back = d;
    back.joint = true;
    assert_int_equal(raft_config_check_change(&d, &back, &err), ERR_CONFIG);
}

/* ---- slow disks (W17) ------------------------------------------------------------------------ */

/* A lone voter waits for its disk for ever; a follower with such a disk neither obeys TIMEOUT_NOW
 * nor campaigns, and does both once the disk has answered. */
static void test_disk_stall(void **state) {
    struct raft_config c = solo_voters(1);
    struct solo n;

    (void) state;
    start(&n, &c, 1, (uint64_t[]){1}, 1, 0);
    solo_step(&n, (struct raft_event){.type = RAFT_EV_CAMPAIGN});
    solo_persisted(&n, 1);
    assert_int_equal(raft_role(n.raft), RAFT_LEADER);
    n.now.ns += 10 * NS_PER_S;
    solo_step(&n, (struct raft_event){.type = RAFT_EV_TIMEOUT});
    assert_int_equal(raft_role(n.raft), RAFT_LEADER);
    assert_true(raft_deadline(n.raft).ns == UINT64_MAX);
    n.raft = raft_free(n.raft);

    c = solo_voters(3);
    start(&n, &c, 1, (uint64_t[]){1}, 1, 0);
    solo_append_req(&n, 1, 1, 1, (uint64_t[]){1}, 1, 0);
    n.now.ns += 700 * NS_PER_MS;
    solo_append_req(&n, 1, 2, 1, NULL, 0, 0);
    solo_recv(&n, (struct raft_message){.type = RAFT_MSG_TIMEOUT_NOW, .from = 2, .term = 1});
    assert_int_equal(raft_role(n.raft), RAFT_FOLLOWER);
    n.now = raft_deadline(n.raft);
    solo_step(&n, (struct raft_event){.type = RAFT_EV_TIMEOUT});
    assert_int_equal(raft_role(n.raft), RAFT_FOLLOWER);
    assert_int_equal(raft_leader(n.raft), 0);
    solo_persisted(&n, 1);
    n.now = raft_deadline(n.raft);
    solo_step(&n, (struct raft_event){.type = RAFT_EV_TIMEOUT});
    assert_int_equal(raft_role(n.raft), RAFT_PRE_CANDIDATE);
    n.raft = raft_free(n.raft);
}

/* A candidate whose disk is slower than its timer has asked nobody yet: its term stays. */
static void test_candidate_waits_for_disk(void **state) {
    struct raft_config c = solo_voters(3);
    struct solo n;

    (void) state;
    start(&n, &c, 1, (uint64_t[]){1}, 1, 0);
    solo_step(&n, (struct raft_event){.type = RAFT_EV_CAMPAIGN});
    for (int i = 0; i < 10; i++) {
        n.now = raft_deadline(n.raft);
        solo_step(&n, (struct raft_event){.type = RAFT_EV_TIMEOUT});
    }
    assert_int_equal(raft_role(n.raft), RAFT_CANDIDATE);
    assert_int_equal(raft_term(n.raft), 2);
    n.raft = raft_free(n.raft);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers),
        cmocka_unit_test(test_transfer_troubles),
        cmocka_unit_test(test_sessions),
        cmocka_unit_test(test_voter_needs_configuration),
        cmocka_unit_test(test_install),
        cmocka_unit_test(test_install_twice),
        cmocka_unit_test(test_install_held),
        cmocka_unit_test(test_install_refused),
        cmocka_unit_test(test_no_configuration),
        cmocka_unit_test(test_start_compacted),
        cmocka_unit_test(test_config_changes),
        cmocka_unit_test(test_disk_stall),
        cmocka_unit_test(test_candidate_waits_for_disk),
    };

    return cmocka_run_group_tests_name("raft_snapshot", tests, NULL, NULL);
}
