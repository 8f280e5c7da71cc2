/* raft/: bounds, reads, configurations, what may stand at a start and what quiet is.
 * Goal and method: as in test_raft.c. */
#include "raft_solo.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- bounds, reads, configurations ---------------------------------------------------------- */

/* M50: accepted but uncommitted proposals are bounded; FULL appends nothing. */
static void test_uncommitted_bound(void **state) {
    struct raft_config c = solo_voters(3);
    struct raft_start start = {.config = &c};
    struct solo s = {.now = {.ns = 1}};

    (void) state;
    raft_options_default(&s.options, 1, 7);
    s.options.uncommitted_entries_max = 5;
    assert_int_equal(raft_new(&s.options, &start, s.now, &s.raft, NULL), 0);
    solo_propose(&s, 1);
    assert_int_equal(s.fx->propose_result, RAFT_PROPOSE_NOT_LEADER);
    (void) solo_elect(&s, 2, 0);
    solo_propose(&s, 4);
    assert_int_equal(s.fx->propose_result, RAFT_PROPOSE_ACCEPTED);
    assert_int_equal(s.fx->propose_first_index, 2);
    solo_propose(&s, 1);
    assert_int_equal(s.fx->propose_result, RAFT_PROPOSE_FULL);
    assert_int_equal(raft_last_index(s.raft), 5);
    assert_int_equal(s.fx->persist_seq, 0);
    s.raft = raft_free(s.raft);
}

/* M14, M30: an answer to a request of an earlier life, or to none, answers no read. */
static void test_read_answers(void **state) {
    struct raft_config c = solo_voters(3);
    struct solo s;
    uint64_t old;

    (void) state;
    solo_start(&s, &c, (struct raft_hard_state){.term = 1}, NULL, 0, 0, 0);
    solo_append_req(&s, 1, 0, 0, NULL, 0, 0);
    solo_step(&s, (struct raft_event){.type = RAFT_EV_READ, .read_context = 5});
    old = solo_sent(&s, 2, RAFT_MSG_READ_INDEX_REQ)->context;
    s.raft = raft_free(s.raft);
    {
        struct raft_start start = {.config = &c, .hard_state = {.term = 1}};

        s.now.ns += 1; /* same seed, another instant */
        assert_int_equal(raft_new(&s.options, &start, s.now, &s.raft, NULL), 0);
    }
    solo_append_req(&s, 1, 0, 0, NULL, 0, 0);
    solo_step(&s, (struct raft_event){.type = RAFT_EV_READ, .read_context = 5});
    assert_true(solo_sent(&s, 2, RAFT_MSG_READ_INDEX_REQ)->context != old);
    solo_recv(&s, (struct raft_message){
                      .type = RAFT_MSG_READ_INDEX_RESP, .from = 2, .term = 1, .context = old});
    assert_int_equal(s.fx->reads_count, 0);
    solo_recv(&s, (struct raft_message){.type = RAFT_MSG_HEARTBEAT_REQ, .from = 3, .term = 2});
    assert_int_equal(s.fx->reads_count, 1);
    assert_false(s.fx->reads[0].ok);
    s.raft = raft_free(s.raft);
}

/* Joint consensus: both majorities elect and commit; learners count for nothing and never run. */
static void test_joint_and_learners(void **state) {
    struct raft_config c = {.count = 5, .joint = true};
    uint64_t a;
    uint64_t b;
    struct solo s;

    (void) state;
    for (size_t i = 0; i < 5; i++)
        c.members[i].id = i + 1;
    c.members[0].flags = RAFT_MEMBER_VOTER | RAFT_MEMBER_VOTER_OLD;
    c.members[1].flags = RAFT_MEMBER_VOTER;
    c.members[2].flags = RAFT_MEMBER_VOTER_OLD;
    c.members[3].flags = RAFT_MEMBER_LEARNER;
    c.members[4].flags = RAFT_MEMBER_LEARNER;
    solo_start(&s, &c, (struct raft_hard_state){0}, NULL, 0, 0, 0);
    solo_step(&s, (struct raft_event){.type = RAFT_EV_CAMPAIGN});
    assert_null(solo_sent(&s, 4, RAFT_MSG_VOTE_REQ));
    solo_persisted(&s, 1);
    for (uint64_t id = 2; id <= 5; id++) {
        if (id == 3)
            continue;
        solo_recv(&s, (struct raft_message){.type = RAFT_MSG_VOTE_RESP, .from = id, .term = 1});
    }
    assert_int_equal(raft_role(s.raft), RAFT_CANDIDATE);
    solo_recv(&s, (struct raft_message){.type = RAFT_MSG_VOTE_RESP, .from = 3, .term = 1});
    assert_int_equal(raft_role(s.raft), RAFT_LEADER);
    a = solo_session_of(&s, 2);
    b = solo_session_of(&s, 3);
    solo_ack(&s, 4, solo_session_of(&s, 4), 1);
    solo_persisted(&s, 2);
    solo_ack(&s, 2, a, 1);
    assert_int_equal(raft_commit(s.raft), 0);
    solo_ack(&s, 3, b, 1);
    assert_int_equal(raft_commit(s.raft), 1);
    s.raft = raft_free(s.raft);

    c.members[0].flags = RAFT_MEMBER_LEARNER;
    c.members[2].flags = RAFT_MEMBER_VOTER;
    c.joint = false;
    solo_start(&s, &c, (struct raft_hard_state){0}, NULL, 0, 0, 0);
    assert_true(raft_deadline(s.raft).ns == UINT64_MAX);
    solo_step(&s, (struct raft_event){.type = RAFT_EV_CAMPAIGN});
    assert_int_equal(raft_role(s.raft), RAFT_FOLLOWER);
    s.raft = raft_free(s.raft);
}

/* M23, M26, M46: a configuration is in force when appended, refused before an own-term commit or
 * beside another uncommitted one, and gone when its entry is cut. */
static void test_config_entries(void **state) {
    struct raft_config c = solo_voters(3);
    struct raft_config d = solo_voters(4);
    struct bytes *illegal = raft_config_encode(&d); /* a voter more without a joint step */
    struct bytes *data = raft_config_add_learner(&c, 4, "d:1", false, 0, &d, NULL) == 0
                             ? raft_config_encode(&d)
                             : NULL;
    struct raft_entry e = {.type = RAFT_ENTRY_CONFIG, .data = data};
    struct raft_event ev = {.type = RAFT_EV_PROPOSE, .propose = {.entries = &e, .count = 1}};
    struct solo s;
    uint64_t session;

    (void) state;
    assert_non_null(data);
    solo_start(&s, &c, (struct raft_hard_state){0}, NULL, 0, 0, 0);
    (void) solo_elect(&s, 2, 0);
    session = solo_session_of(&s, 2);
    solo_step(&s, ev);
    assert_int_equal(s.fx->propose_result, RAFT_PROPOSE_FULL);
    solo_persisted(&s, 2);
    solo_ack(&s, 2, session, 1);
    assert_true(raft_leader_ready(s.raft));
    e.data = illegal;
    solo_step(&s, ev);
    assert_int_equal(s.fx->propose_result, RAFT_PROPOSE_BAD_CONFIG);
    assert_int_equal(raft_last_index(s.raft), 1);
    e.data = data;
    solo_step(&s, ev);
    assert_int_equal(s.fx->propose_result, RAFT_PROPOSE_ACCEPTED);
    assert_int_equal(raft_config_latest(s.raft)->count, 4);
    assert_int_equal(raft_config_latest_index(s.raft), 2);
    assert_int_equal(raft_config_committed_index(s.raft), 0);
    assert_non_null(solo_sent(&s, 4, RAFT_MSG_APPEND_REQ));
    solo_step(&s, ev);
    assert_int_equal(s.fx->propose_result, RAFT_PROPOSE_FULL);
    solo_append_req(&s, 2, 1, 1, (uint64_t[]){2}, 1, 0); /* a new leader cuts it */
    assert_int_equal(s.fx->truncate_from, 2);
    assert_int_equal(raft_config_latest(s.raft)->count, 3);
    assert_int_equal(raft_config_latest_index(s.raft), 0);
    s.raft = raft_free(s.raft);
    (void) bytes_unref(data);
    (void) bytes_unref(illegal);
}

/* What recovery found and cannot be true is refused with a reason. */
static void test_start_contradictions(void **state) {
    struct raft_config c = solo_voters(3);
    struct raft_entry tail[2] = {{.index = 3, .term = 2, .type = RAFT_ENTRY_NOOP},
                                 {.index = 5, .term = 2, .type = RAFT_ENTRY_NOOP}};
    struct raft_start good = {.hard_state = {.term = 2},
                              .config = &c,
                              .applied_index = 2,
                              .prev_index = 2,
                              .prev_term = 1,
                              .tail = tail,
                              .tail_count = 1};
    struct raft_start bad[6];
    struct raft_options o;
    struct raft *r = NULL;

    (void) state;
    raft_options_default(&o, 1, 1);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        bad[i] = good;
    bad[0].tail_count = 2; /* a gap */
    bad[1].applied_index = 9;
    bad[2].applied_index = 1; /* the entries to apply are missing */
    bad[3].hard_state.term = 1;
    bad[4].prev_term = 0;
    bad[5].config_index = 3;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct errtext err = {{0}};

        assert_int_equal(raft_new(&o, &bad[i], (struct mono){1}, &r, &err), ERR_CORRUPT);
        assert_true(strlen(err.s) > 10);
        assert_null(r);
    }
    assert_int_equal(raft_new(&o, &good, (struct mono){1}, &r, NULL), 0);
    r = raft_free(r);
}

/* The configuration codec: what goes in comes out; every cut and every changed byte is either an
 * error or another valid configuration, never a crash. */
static void test_config_codec(void **state) {
    struct raft_config c = solo_voters(3);
    struct raft_config back;
    struct errtext err;
    struct bytes *b;
    uint8_t copy[512];

    (void) state;
    (void) snprintf(c.members[1].address, sizeof(c.members[1].address), "10.0.0.2:7402");
    c.members[2].flags = RAFT_MEMBER_VOTER_OLD;
    c.joint = true;
    b = raft_config_encode(&c);
    assert_non_null(b);
    assert_int_equal(raft_config_decode(bytes_slice(b), &back, &err), 0);
    assert_memory_equal(&back, &c, sizeof(c));
    assert_true(b->len < sizeof(copy));
    for (size_t i = 0; i < b->len; i++) {
        memcpy(copy, b->data, b->len);
        if (raft_config_decode(slice_of(copy, i), &back, &err) == 0)
            assert_true(back.count < c.count);
        for (unsigned v = 0; v < 256; v++) {
            copy[i] = (uint8_t) v;
            if (raft_config_decode(slice_of(copy, b->len), &back, &err) == 0)
                assert_true(back.count >= 1 && back.count <= RAFT_NODES_MAX);
        }
    }
    assert_int_equal(raft_config_decode(slice_of("", 0), &back, &err), ERR_PROTO);
    assert_int_equal(raft_config_decode(slice_of("\xff\xff", 2), &back, &err), ERR_PROTO);
    c.members[1].id = 1; /* not unique */
    b = bytes_unref(b);
    b = raft_config_encode(&c);
    assert_int_equal(raft_config_decode(bytes_slice(b), &back, &err), ERR_PROTO);
    b = bytes_unref(b);
}

/* R17: 1,000 quiet timeouts without an election; an isolated node's term does not grow. */
static void test_quiet(void **state) {
    struct world w;

    (void) state;
    world_init(&w, 1);
    w.what = "quiet";
    world_start(&w, 3);
    w.now = raft_deadline(w.nodes[1].raft);
    world_timeout(&w, 1);
    world_stabilize(&w);
    assert_int_equal(w.elections, 1);
    for (int i = 0; i < 30000; i++) {
        w.now.ns += 10 * NS_PER_MS;
        if (i == 15000) {
            for (int j = 1; j <= 3; j++)
                w.cut[3][j] = w.cut[j][3] = true;
        }
        for (uint64_t id = 1; id <= 3; id++) {
            if (mono_reached(w.now, raft_deadline(w.nodes[id].raft)))
                world_timeout(&w, id);
        }
        world_stabilize(&w);
    }
    assert_int_equal(w.elections, 1);
    assert_int_equal(raft_term(w.nodes[3].raft), 1);
    world_done(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_uncommitted_bound),
        cmocka_unit_test(test_read_answers),
        cmocka_unit_test(test_joint_and_learners),
        cmocka_unit_test(test_config_entries),
        cmocka_unit_test(test_start_contradictions),
        cmocka_unit_test(test_config_codec),
        cmocka_unit_test(test_quiet),
    };

    return cmocka_run_group_tests_name("raft", tests, NULL, NULL);
}
