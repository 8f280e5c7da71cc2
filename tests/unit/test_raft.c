/* raft/: known bugs of other implementations, one by one, and what the golden scripts do not reach.
 *
 * Goal: each mutant of the reliability requirements that concerns the core fails at least one test
 * here. Method: one node driven by hand-made messages (struct solo), or a small raft_world when the
 * bug needs several. */
#include "raft_solo.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- the leader ----------------------------------------------------------------------------- */

/* M1, figure 8: an old term's entry on a majority commits only with one of the own term. */
static void test_commit_own_term_only(void **state) {
    struct raft_config c = solo_voters(3);
    struct solo s;
    uint64_t session;

    (void) state;
    solo_start(&s, &c, (struct raft_hard_state){.term = 2}, (uint64_t[]){1, 2}, 2, 0, 0);
    (void) solo_elect(&s, 2, 0);
    session = solo_session_of(&s, 2);
    solo_ack(&s, 2, session, 2);
    solo_persisted(&s, s.fx->persist_seq ? s.fx->persist_seq : 2);
    assert_int_equal(raft_commit(s.raft), 0);
    solo_ack(&s, 2, session, 3);
    assert_int_equal(raft_commit(s.raft), 3);
    s.raft = raft_free(s.raft);
}

/* M42: the commit index follows the followers although the leader's own disk hangs behind them.
 * M31: and apply_index does not pass that disk. */
static void test_commit_by_followers(void **state) {
    struct raft_config c = solo_voters(3);
    struct solo s;
    uint64_t a;
    uint64_t b;

    (void) state;
    solo_start(&s, &c, (struct raft_hard_state){0}, NULL, 0, 0, 0);
    (void) solo_elect(&s, 2, 0);
    a = solo_session_of(&s, 2);
    b = solo_session_of(&s, 3);
    solo_propose(&s, 4);
    solo_ack(&s, 2, a, 3);
    assert_int_equal(raft_commit(s.raft), 0);
    solo_ack(&s, 3, b, 2);
    assert_int_equal(raft_commit(s.raft), 2); /* not the last index, not nothing */
    assert_int_equal(s.fx->apply_index, 0);
    solo_persisted(&s, 2);
    assert_int_equal(s.fx->apply_index, 1);
    solo_persisted(&s, 3);
    assert_int_equal(raft_commit(s.raft), 3);
    assert_int_equal(s.fx->apply_index, 3);
    s.raft = raft_free(s.raft);
}

/* M2, M3, M4, M29: late, repeated, foreign and absurd answers move nothing back or forth. */
static void test_answers_out_of_order(void **state) {
    struct raft_config c = solo_voters(3);
    struct raft_peer_status p;
    struct solo s;
    uint64_t session;

    (void) state;
    solo_start(&s, &c, (struct raft_hard_state){0}, NULL, 0, 0, 0);
    (void) solo_elect(&s, 2, 0);
    session = solo_session_of(&s, 2);
    solo_propose(&s, 5);
    solo_ack(&s, 2, session, 1);
    solo_ack(&s, 2, session, 4);
    solo_persisted(&s, 3);
    assert_int_equal(raft_commit(s.raft), 4);
    solo_ack(&s, 2, session, 2);      /* late */
    solo_ack(&s, 2, session, 99);     /* beyond the log */
    solo_ack(&s, 2, session + 77, 6); /* another session */
    solo_recv(&s, (struct raft_message){.type = RAFT_MSG_APPEND_RESP,
                                        .from = 2,
                                        .term = 1,
                                        .session = session,
                                        .reject = true,
                                        .log_index = 3}); /* late refusal */
    assert_int_equal(raft_peer_status(s.raft, 2, &p), 0);
    assert_int_equal(p.match, 4);
    assert_true(p.next > p.match);
    assert_int_equal(p.state, RAFT_REPLICATE);
    assert_int_equal(raft_commit(s.raft), 4);
    assert_int_equal(raft_peer_status(s.raft, 1, &p), 1);
    s.raft = raft_free(s.raft);
}

/* M8, M33: the window bounds what is in flight, empty requests included, and nothing is repeated
 * without end: after a full window steps without answers send nothing more. */
static void test_window(void **state) {
    struct raft_config c = solo_voters(3);
    struct raft_peer_status p;
    struct solo s;
    uint64_t session;
    size_t appends = 0;

    (void) state;
    solo_start(&s, &c, (struct raft_hard_state){0}, NULL, 0, 0, 0);
    s.raft = raft_free(s.raft);
    s.options.inflight_messages_max = 3;
    s.options.append_bytes_max = 1;
    {
        struct raft_start start = {.config = &c};

        assert_int_equal(raft_new(&s.options, &start, s.now, &s.raft, NULL), 0);
    }
    (void) solo_elect(&s, 2, 0);
    session = solo_session_of(&s, 2);
    solo_ack(&s, 2, session, 1);
    for (int i = 0; i < 20; i++) {
        solo_propose(&s, 1);
        appends += solo_sent(&s, 2, RAFT_MSG_APPEND_REQ) ? 1 : 0;
        assert_true(!solo_sent(&s, 3, RAFT_MSG_APPEND_REQ)); /* probing: one is out already */
    }
    assert_int_equal(raft_peer_status(s.raft, 2, &p), 0);
    assert_int_equal(p.inflight_messages, 3);
    assert_true(appends <= 3);
    for (int i = 0; i < 10; i++) {
        s.now.ns += 10 * NS_PER_MS;
        solo_recv(&s,
                  (struct raft_message){
                      .type = RAFT_MSG_HEARTBEAT_RESP, .from = 2, .term = 1, .session = session});
        appends += solo_sent(&s, 2, RAFT_MSG_APPEND_REQ) ? 1 : 0;
    }
    assert_true(appends <= 4); /* 100 ms: at most one question what is wrong */
    s.raft = raft_free(s.raft);
}

/* M11, M13: a leader grants nobody its own term, and stale or repeated votes elect nobody. */
static void test_votes_count_once(void **state) {
    struct raft_config c = solo_voters(5);
    struct raft_message grant = {.type = RAFT_MSG_VOTE_RESP, .from = 2, .term = 4};
    struct solo s;

    (void) state;
    solo_start(&s, &c, (struct raft_hard_state){.term = 4}, NULL, 0, 0, 0);
    solo_step(&s, (struct raft_event){.type = RAFT_EV_CAMPAIGN});
    solo_persisted(&s, 1);
    solo_recv(&s, grant); /* of term 4: too old */
    grant.from = 3;
    solo_recv(&s, grant);
    assert_int_equal(raft_role(s.raft), RAFT_CANDIDATE);
    grant.term = 5;
    solo_recv(&s, grant);
    solo_recv(&s, grant); /* the same voter twice */
    grant.from = 9;
    solo_recv(&s, grant); /* a stranger */
    assert_int_equal(raft_role(s.raft), RAFT_CANDIDATE);
    grant.from = 4;
    solo_recv(&s, grant);
    assert_int_equal(raft_role(s.raft), RAFT_LEADER);
    solo_recv(&s,
              (struct raft_message){
                  .type = RAFT_MSG_VOTE_REQ, .from = 5, .term = 5, .log_index = 50, .log_term = 5});
    assert_true(solo_sent(&s, 5, RAFT_MSG_VOTE_RESP)->reject);
    assert_int_equal(raft_vote(s.raft), 1);
    s.raft = raft_free(s.raft);
}

/* M31, M18, M45: the own vote counts, and the requests leave, only with the batch that holds term,
 * vote and all advertised entries. */
static void test_vote_waits_for_disk(void **state) {
    struct raft_config c = solo_voters(1);
    struct solo s;

    (void) state;
    solo_start(&s, &c, (struct raft_hard_state){0}, NULL, 0, 0, 0);
    s.now = raft_deadline(s.raft);
    solo_step(&s, (struct raft_event){.type = RAFT_EV_TIMEOUT});
    assert_int_equal(raft_role(s.raft), RAFT_CANDIDATE);
    solo_persisted(&s, s.fx->persist_seq);
    assert_int_equal(raft_role(s.raft), RAFT_LEADER);
    assert_int_equal(raft_commit(s.raft), 0);
    solo_propose(&s, 1);
    assert_int_equal(s.fx->apply_index, 0);
    solo_persisted(&s, s.fx->persist_seq);
    assert_int_equal(s.fx->apply_index, 2);
    assert_true(raft_deadline(s.raft).ns == UINT64_MAX);
    s.raft = raft_free(s.raft);

    c = solo_voters(3);
    solo_start(&s, &c, (struct raft_hard_state){.term = 1}, (uint64_t[]){1}, 1, 0, 0);
    solo_append_req(&s, 1, 1, 1, (uint64_t[]){1, 1}, 2, 0);
    assert_int_equal(s.fx->persist_seq, 1);
    solo_recv(&s, (struct raft_message){.type = RAFT_MSG_TIMEOUT_NOW, .from = 2, .term = 1});
    assert_int_equal(raft_role(s.raft), RAFT_CANDIDATE);
    assert_int_equal(solo_sent(&s, 3, RAFT_MSG_VOTE_REQ)->log_index, 3);
    assert_int_equal(solo_sent(&s, 3, RAFT_MSG_VOTE_REQ)->after_seq, 2);
    assert_int_equal(solo_sent(&s, 3, RAFT_MSG_VOTE_REQ)->context, 1);
    solo_persisted(&s, 1); /* the entries, not yet the vote */
    solo_recv(&s, (struct raft_message){.type = RAFT_MSG_VOTE_RESP, .from = 2, .term = 2});
    assert_int_equal(raft_role(s.raft), RAFT_CANDIDATE);
    solo_persisted(&s, 2);
    assert_int_equal(raft_role(s.raft), RAFT_LEADER);
    s.raft = raft_free(s.raft);
}

/* ---- the follower --------------------------------------------------------------------------- */

/* M12, M41, M44: entries behind a short request stay, are not acknowledged, not committed. */
static void test_short_append(void **state) {
    struct raft_config c = solo_voters(3);
    struct solo s;

    (void) state;
    solo_start(&s, &c, (struct raft_hard_state){.term = 3}, (uint64_t[]){1, 1, 1, 2, 2}, 5, 0, 0);
    solo_append_req(&s, 3, 1, 1, (uint64_t[]){1}, 1, 5);
    assert_int_equal(solo_sent(&s, 2, RAFT_MSG_APPEND_RESP)->match, 2);
    assert_false(solo_sent(&s, 2, RAFT_MSG_APPEND_RESP)->reject);
    assert_int_equal(raft_commit(s.raft), 2);
    assert_int_equal(raft_last_index(s.raft), 5);
    assert_int_equal(s.fx->truncate_from, 0);
    solo_append_req(&s, 3, 2, 1, NULL, 0, 5); /* empty */
    assert_int_equal(solo_sent(&s, 2, RAFT_MSG_APPEND_RESP)->match, 2);
    assert_int_equal(raft_commit(s.raft), 2);
    solo_append_req(&s, 3, 2, 1, (uint64_t[]){1, 3}, 2,
                    1); /* conflict at 4 only; commit not back (M2) */
    assert_int_equal(s.fx->truncate_from, 4);
    assert_int_equal(s.fx->append_count, 1);
    assert_int_equal(solo_sent(&s, 2, RAFT_MSG_APPEND_RESP)->match, 4);
    assert_int_equal(raft_commit(s.raft), 2);
    s.raft = raft_free(s.raft);
}

/* M5, M12: with its beginning out of memory, a request from index 0 only confirms; and a committed
 * entry that contradicts the leader stops the node instead of being cut (R14). */
static void test_committed_is_never_cut(void **state) {
    struct raft_config c = solo_voters(3);
    struct raft_entry e = {.index = 4, .term = 2, .type = RAFT_ENTRY_NOOP};
    struct raft_message m = {.type = RAFT_MSG_APPEND_REQ,
                             .from = 2,
                             .to = 1,
                             .term = 3,
                             .log_index = 3,
                             .log_term = 1,
                             .entries = &e,
                             .entries_count = 1};
    struct raft_event ev = {.type = RAFT_EV_MESSAGE, .message = &m};
    struct solo s;

    (void) state;
    solo_start(&s, &c, (struct raft_hard_state){.term = 3}, (uint64_t[]){1, 1, 1, 1, 2}, 5, 4, 3);
    assert_int_equal(raft_first_in_memory(s.raft), 4);
    solo_append_req(&s, 3, 0, 0, (uint64_t[]){1, 1, 1}, 3, 5);
    assert_int_equal(solo_sent(&s, 2, RAFT_MSG_APPEND_RESP)->match, 3);
    assert_int_equal(raft_last_index(s.raft), 5);
    assert_int_equal(s.fx->append_count, 0);
    solo_append_req(&s, 3, 0, 0, (uint64_t[]){1, 1, 1, 1, 2, 3}, 6, 5);
    assert_int_equal(s.fx->append_count, 1);
    assert_int_equal(solo_sent(&s, 2, RAFT_MSG_APPEND_RESP)->match, 6);
    assert_int_equal(raft_step(s.raft, s.now, &ev, &s.fx), ERR_CORRUPT);
    s.raft = raft_free(s.raft);
}

/* M35, M49: an empty request acknowledged while entries are in flight waits for them; entries that
 * were cut in flight do not count as durable when their old batch is confirmed. */
static void test_acks_wait_for_disk(void **state) {
    struct raft_config c = solo_voters(3);
    struct solo s;

    (void) state;
    solo_start(&s, &c, (struct raft_hard_state){.term = 1}, (uint64_t[]){1}, 1, 0, 0);
    solo_append_req(&s, 1, 1, 1, (uint64_t[]){1, 1}, 2, 0);
    assert_int_equal(solo_sent(&s, 2, RAFT_MSG_APPEND_RESP)->after_seq, 1);
    solo_append_req(&s, 1, 3, 1, NULL, 0, 3);
    assert_int_equal(solo_sent(&s, 2, RAFT_MSG_APPEND_RESP)->after_seq, 1);
    assert_int_equal(raft_commit(s.raft), 3);
    assert_int_equal(s.fx->apply_index, 1);
    assert_int_equal(raft_durable_index(s.raft), 1);
    s.raft = raft_free(s.raft);

    solo_start(&s, &c, (struct raft_hard_state){.term = 1}, (uint64_t[]){1}, 1, 0, 0);
    solo_append_req(&s, 1, 1, 1, (uint64_t[]){1, 1}, 2, 0);
    solo_recv(&s, (struct raft_message){
                      .type = RAFT_MSG_HEARTBEAT_REQ, .from = 3, .term = 2, .commit = 0});
    assert_int_equal(solo_sent(&s, 3, RAFT_MSG_HEARTBEAT_RESP)->after_seq,
                     2); /* M39: the new term */
    s.raft = raft_free(s.raft);

    solo_start(&s, &c, (struct raft_hard_state){.term = 1}, (uint64_t[]){1}, 1, 0, 0);
    solo_append_req(&s, 1, 1, 1, (uint64_t[]){1, 1}, 2, 0);
    solo_append_req(&s, 2, 1, 1, (uint64_t[]){2, 2}, 2, 0);
    assert_int_equal(s.fx->truncate_from, 2);
    solo_persisted(&s, 1);
    assert_int_equal(raft_durable_index(s.raft), 1);
    solo_persisted(&s, 2);
    assert_int_equal(raft_durable_index(s.raft), 3);
    s.raft = raft_free(s.raft);
}

/* M38: last entries are compared as (term, index), not part by part. */
static void test_up_to_date(void **state) {
    static const struct {
        uint64_t term;
        uint64_t index;
        bool grant;
    } rows[] = {{2, 3, true}, {2, 4, true}, {2, 2, false}, {3, 1, true}, {1, 9, false}};
    struct raft_config c = solo_voters(3);

    (void) state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct solo s;

        solo_start(&s, &c, (struct raft_hard_state){.term = 3}, (uint64_t[]){1, 2, 2}, 3, 0, 0);
        solo_recv(&s, (struct raft_message){.type = RAFT_MSG_VOTE_REQ,
                                            .from = 2,
                                            .term = 4,
                                            .log_index = rows[i].index,
                                            .log_term = rows[i].term});
        assert_int_equal(solo_sent(&s, 2, RAFT_MSG_VOTE_RESP)->reject, !rows[i].grant);
        assert_int_equal(solo_sent(&s, 2, RAFT_MSG_VOTE_RESP)->after_seq, 1); /* M39 */
        assert_int_equal(s.fx->hard_state.vote, rows[i].grant ? 2 : 0);
        s.raft = raft_free(s.raft);
    }
}

/* M7, M15, M16, M17: a pre-vote changes neither term nor vote, is granted for the term asked for
 * whatever was voted before, and a refusal of an outdated candidate carries the newer term. */
static void test_pre_vote(void **state) {
    struct raft_config c = solo_voters(3);
    struct raft_message ask = {.type = RAFT_MSG_PRE_VOTE_REQ, .from = 2, .term = 6};
    struct solo s;

    (void) state;
    solo_start(&s, &c, (struct raft_hard_state){.term = 5, .vote = 3}, NULL, 0, 0, 0);
    solo_recv(&s, ask);
    assert_false(solo_sent(&s, 2, RAFT_MSG_PRE_VOTE_RESP)->reject);
    assert_int_equal(solo_sent(&s, 2, RAFT_MSG_PRE_VOTE_RESP)->term, 6);
    assert_int_equal(raft_term(s.raft), 5);
    assert_int_equal(raft_vote(s.raft), 3);
    assert_int_equal(s.fx->persist_seq, 0);
    ask.term = 5;
    solo_recv(&s, ask);
    assert_true(solo_sent(&s, 2, RAFT_MSG_PRE_VOTE_RESP)->reject);
    ask.term = 3;
    solo_recv(&s, ask);
    assert_true(solo_sent(&s, 2, RAFT_MSG_PRE_VOTE_RESP)->reject);
    assert_int_equal(solo_sent(&s, 2, RAFT_MSG_PRE_VOTE_RESP)->term, 5);

    /* As the candidate: the newer term of a refusal is taken over, an older one is ignored. */
    s.now = raft_deadline(s.raft);
    solo_step(&s, (struct raft_event){.type = RAFT_EV_TIMEOUT});
    assert_int_equal(raft_role(s.raft), RAFT_PRE_CANDIDATE);
    solo_recv(&s, (struct raft_message){
                      .type = RAFT_MSG_PRE_VOTE_RESP, .from = 2, .term = 4, .reject = true});
    assert_int_equal(raft_term(s.raft), 5);
    solo_recv(&s, (struct raft_message){
                      .type = RAFT_MSG_PRE_VOTE_RESP, .from = 2, .term = 8, .reject = true});
    assert_int_equal(raft_term(s.raft), 8);
    assert_int_equal(raft_role(s.raft), RAFT_FOLLOWER);
    solo_append_req(&s, 7, 0, 0, NULL, 0, 0); /* M7, M27: an old leader learns the term */
    assert_int_equal(raft_term(s.raft), 8);
    assert_int_equal(solo_sent(&s, 2, RAFT_MSG_APPEND_RESP)->term, 8);
    s.raft = raft_free(s.raft);
}

/* M47: answers for the old leader do not reach the state of another role or term. */
static void test_stale_answers_by_role(void **state) {
    struct raft_config c = solo_voters(3);
    struct solo s;
    uint64_t session;

    (void) state;
    solo_start(&s, &c, (struct raft_hard_state){0}, NULL, 0, 0, 0);
    (void) solo_elect(&s, 2, 0);
    session = solo_session_of(&s, 2);
    solo_recv(&s, (struct raft_message){.type = RAFT_MSG_HEARTBEAT_REQ, .from = 2, .term = 2});
    assert_int_equal(raft_role(s.raft), RAFT_FOLLOWER);
    solo_ack(&s, 2, session, 1);
    assert_int_equal(raft_commit(s.raft), 0);
    solo_persisted(&s, s.fx->persist_seq ? s.fx->persist_seq : 3);
    solo_elect(&s, 3, 0);
    solo_recv(
        &s,
        (struct raft_message){
            .type = RAFT_MSG_APPEND_RESP, .from = 2, .term = 1, .session = session, .match = 1});
    solo_ack(&s, 2, session, 2); /* this term's number, the other session's answer */
    solo_persisted(&s, 4);
    assert_int_equal(raft_commit(s.raft), 0);
    s.raft = raft_free(s.raft);
}

/* Malformed messages change nothing. */
static void test_nonsense(void **state) {
    struct raft_config c = solo_voters(3);
    struct raft_entry gap[2] = {{.index = 1, .term = 1, .type = RAFT_ENTRY_NOOP},
                                {.index = 3, .term = 1, .type = RAFT_ENTRY_NOOP}};
    struct raft_entry future = {.index = 1, .term = 9, .type = RAFT_ENTRY_NOOP};
    struct raft_entry untyped = {.index = 1, .term = 1, .type = (enum raft_entry_type) 9};
    struct raft_message bad[] = {
        {.type = RAFT_MSG_APPEND_REQ, .from = 2, .term = 1, .entries = gap, .entries_count = 2},
        {.type = RAFT_MSG_APPEND_REQ, .from = 2, .term = 1, .entries = &future, .entries_count = 1},
        {.type = RAFT_MSG_APPEND_REQ,
         .from = 2,
         .term = 1,
         .entries = &untyped,
         .entries_count = 1},
        {.type = RAFT_MSG_APPEND_REQ, .from = 2, .term = 1, .log_index = 4},
        {.type = RAFT_MSG_APPEND_REQ, .from = 1, .term = 1},
        {.type = RAFT_MSG_APPEND_REQ, .from = 2, .term = 0},
        {.type = RAFT_MSG_HEARTBEAT_REQ, .from = 2, .term = 1, .entries = gap, .entries_count = 2},
        {.type = RAFT_MSG_VOTE_REQ, .from = 2, .term = UINT64_MAX},
        {.type = (enum raft_message_type) 77, .from = 2, .term = 1},
    };

    (void) state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct solo s;

        solo_start(&s, &c, (struct raft_hard_state){.term = 1, .vote = 2}, NULL, 0, 0, 0);
        solo_recv(&s, bad[i]);
        assert_int_equal(raft_last_index(s.raft), 0);
        assert_int_equal(raft_term(s.raft), 1);
        assert_int_equal(s.fx->messages_count, 0);
        assert_int_equal(raft_leader(s.raft), 0);
        s.raft = raft_free(s.raft);
    }
}

/* Goal: a peer whose frames are intact and whose content is nonsense stops nobody. Method: random
 * messages with small random fields into one node that is elected now and then; every step must end
 * in 0 or, when a committed entry is contradicted, in ERR_CORRUPT. An assertion would end the test.
 */
static struct raft_message garbage(struct rng *g, struct raft_entry *e, uint64_t term) {
    struct raft_message m = {
        .type = (enum raft_message_type) rng_range(g, 1, RAFT_MSG_TYPE_MAX),
        .from = rng_range(g, 1, 6),
        .to = 1,
        .term = rng_range(g, term > 1 ? term - 1 : 0, term + (rng_chance(g, 50) ? 2 : 0)),
        .log_index = rng_below(g, 12),
        .log_term = rng_below(g, 6),
        .commit = rng_below(g, 14),
        .reject = rng_chance(g, 400),
        .match = rng_below(g, 12),
        .hint_index = rng_chance(g, 50) ? UINT64_MAX : rng_below(g, 12),
        .hint_term = rng_below(g, 6),
        .context = rng_below(g, 4),
        .session = rng_below(g, 40),
    };

    if (m.type == RAFT_MSG_APPEND_REQ && rng_chance(g, 700)) {
        m.log_term = MIN(m.log_index, 2);
        m.entries = e;
        m.entries_count = rng_below(g, 4);
        for (size_t i = 0; i < m.entries_count; i++)
            e[i] = (struct raft_entry){.index = m.log_index + 1 + i,
                                       .term = MAX(m.log_term, rng_range(g, 1, 3)),
                                       .type =
                                           rng_chance(g, 30) ? RAFT_ENTRY_CONFIG : RAFT_ENTRY_NOOP};
    }
    return m;
}

static void test_garbage(void **state) {
    struct rng g = rng_seed(99);
    struct raft_config c = solo_voters(5);
    size_t leaders = 0;
    size_t stopped = 0;

    (void) state;
    for (int life = 0; life < 2000; life++) {
        struct raft_entry e[4];
        struct solo s;
        int rc = 0;

        solo_start(&s, &c, (struct raft_hard_state){.term = 2}, (uint64_t[]){1, 2, 2, 2}, 4, 3, 2);
        for (int i = 0; rc == 0 && i < 200; i++) {
            struct raft_message m = garbage(&g, e, raft_term(s.raft));
            struct raft_event ev = {.type = RAFT_EV_MESSAGE, .message = &m};

            if (rng_chance(&g, 50))
                ev.type = RAFT_EV_CAMPAIGN;
            if (rng_chance(&g, 50))
                ev = (struct raft_event){.type = RAFT_EV_READ, .read_context = 3};
            if (rng_chance(&g, 20))
                ev = (struct raft_event){.type = RAFT_EV_INSTALL,
                                         .install = {.leader = m.from,
                                                     .term = m.term,
                                                     .session = m.session,
                                                     .index = m.log_index,
                                                     .index_term = m.log_term,
                                                     .config = &c,
                                                     .config_index = m.match}};
            if (rng_chance(&g, 10))
                ev =
                    (struct raft_event){.type = RAFT_EV_SNAPSHOT_FAILED, .snapshot_failed = m.from};
            s.now.ns += rng_below(&g, 20) * NS_PER_MS;
            rc = raft_step(s.raft, s.now, &ev, &s.fx);
            if (rc == 0 && s.fx->persist_seq)
                solo_persisted(&s, s.fx->persist_seq);
            leaders += rc == 0 && raft_role(s.raft) == RAFT_LEADER ? 1 : 0;
        }
        assert_true(rc == 0 || rc == ERR_CORRUPT);
        stopped += rc == ERR_CORRUPT ? 1 : 0;
        s.raft = raft_free(s.raft);
    }
    assert_true(leaders > 1000);
    assert_true(stopped > 0 && stopped < 2000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_commit_own_term_only),
        cmocka_unit_test(test_commit_by_followers),
        cmocka_unit_test(test_answers_out_of_order),
        cmocka_unit_test(test_window),
        cmocka_unit_test(test_votes_count_once),
        cmocka_unit_test(test_vote_waits_for_disk),
        cmocka_unit_test(test_short_append),
        cmocka_unit_test(test_committed_is_never_cut),
        cmocka_unit_test(test_acks_wait_for_disk),
        cmocka_unit_test(test_up_to_date),
        cmocka_unit_test(test_pre_vote),
        cmocka_unit_test(test_stale_answers_by_role),
        cmocka_unit_test(test_nonsense),
        cmocka_unit_test(test_garbage),
    };

    return cmocka_run_group_tests_name("raft", tests, NULL, NULL);
}
