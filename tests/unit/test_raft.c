/* raft/: known bugs of other implementations, one by one, and what the golden scripts do not reach.
 *
 * Goal: each mutant of the reliability requirements that concerns the core fails at least one test
 * here. Method: one node driven by hand-made messages (struct solo), or a small raft_world when the
 * bug needs several. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "raft_world.h"

/* ---- one node ------------------------------------------------------------------------------- */

struct solo {
    struct raft_options options;
    struct raft *raft;
    const struct raft_effects *fx; /* of the last step */
    struct mono now;
};

static struct raft_config voters(size_t n) {
    struct raft_config c = {.count = n};

    for (size_t i = 0; i < n; i++)
        c.members[i] = (struct raft_member){.id = i + 1, .flags = RAFT_MEMBER_VOTER};
    return c;
}

/* Node 1 with no-op entries of @terms on disk. */
static void solo_start(struct solo *s, const struct raft_config *c, struct raft_hard_state hs,
                       const uint64_t *terms, size_t count, uint64_t applied, uint64_t memory) {
    struct raft_entry tail[64];
    struct raft_start start = {.hard_state = hs, .applied_index = applied, .config = c};
    struct errtext err;

    *s = (struct solo){.now = {.ns = NS_PER_S}};
    raft_options_default(&s->options, 1, 7);
    for (size_t i = 0; i < count; i++)
        tail[i] = (struct raft_entry){.index = i + 1, .term = terms[i], .type = RAFT_ENTRY_NOOP};
    start.prev_index = memory;
    start.prev_term = memory > 0 ? terms[memory - 1] : 0;
    start.tail = tail + memory;
    start.tail_count = count - memory;
    if (raft_new(&s->options, &start, s->now, &s->raft, &err) != 0)
        fail_msg("raft_new: %s", err.s);
}

static void solo_step(struct solo *s, struct raft_event ev) {
    assert_int_equal(raft_step(s->raft, s->now, &ev, &s->fx), 0);
}

static void solo_recv(struct solo *s, struct raft_message m) {
    m.to = 1;
    solo_step(s, (struct raft_event){.type = RAFT_EV_MESSAGE, .message = &m});
}

static void solo_persisted(struct solo *s, uint64_t seq) {
    solo_step(s, (struct raft_event){.type = RAFT_EV_PERSISTED, .persisted_seq = seq});
}

static void solo_propose(struct solo *s, size_t count) {
    struct raft_entry e[64];
    struct bytes *data = bytes_copy("x", 1);

    assert_non_null(data);
    for (size_t i = 0; i < count; i++)
        e[i] = (struct raft_entry){.type = RAFT_ENTRY_COMMAND, .data = data};
    solo_step(
        s, (struct raft_event){.type = RAFT_EV_PROPOSE, .propose = {.entries = e, .count = count}});
    (void) bytes_unref(data);
}

/* Elect node 1 of a cluster in the next term with the votes of @from..; returns the append seq. */
static uint64_t solo_elect(struct solo *s, uint64_t voter_a, uint64_t voter_b) {
    uint64_t term;

    solo_step(s, (struct raft_event){.type = RAFT_EV_CAMPAIGN});
    term = raft_term(s->raft);
    solo_persisted(s, s->fx->persist_seq);
    if (voter_a)
        solo_recv(s,
                  (struct raft_message){.type = RAFT_MSG_VOTE_RESP, .from = voter_a, .term = term});
    if (voter_b)
        solo_recv(s,
                  (struct raft_message){.type = RAFT_MSG_VOTE_RESP, .from = voter_b, .term = term});
    assert_int_equal(raft_role(s->raft), RAFT_LEADER);
    return s->fx->persist_seq;
}

static const struct raft_message *sent(const struct solo *s, uint64_t to,
                                       enum raft_message_type type) {
    for (size_t i = 0; i < s->fx->messages_count; i++) {
        if (s->fx->messages[i].to == to && s->fx->messages[i].type == type)
            return &s->fx->messages[i];
    }
    return NULL;
}

static void solo_ack(struct solo *s, uint64_t from, uint64_t session, uint64_t match) {
    solo_recv(s, (struct raft_message){.type = RAFT_MSG_APPEND_RESP,
                                       .from = from,
                                       .term = raft_term(s->raft),
                                       .session = session,
                                       .match = match});
}

static uint64_t session_of(const struct solo *s, uint64_t to) {
    const struct raft_message *m = sent(s, to, RAFT_MSG_APPEND_REQ);

    assert_non_null(m);
    return m->session;
}

static void append_req(struct solo *s, uint64_t term, uint64_t prev, uint64_t prev_term,
                       const uint64_t *terms, size_t count, uint64_t commit) {
    struct raft_entry e[64];

    for (size_t i = 0; i < count; i++)
        e[i] =
            (struct raft_entry){.index = prev + 1 + i, .term = terms[i], .type = RAFT_ENTRY_NOOP};
    solo_recv(s, (struct raft_message){.type = RAFT_MSG_APPEND_REQ,
                                       .from = 2,
                                       .term = term,
                                       .log_index = prev,
                                       .log_term = prev_term,
                                       .commit = commit,
                                       .session = 9,
                                       .entries = e,
                                       .entries_count = count});
}

/* ---- the leader ----------------------------------------------------------------------------- */

/* M1, figure 8: an old term's entry on a majority commits only with one of the own term. */
static void test_commit_own_term_only(void **state) {
    struct raft_config c = voters(3);
    struct solo s;
    uint64_t session;

    (void) state;
    solo_start(&s, &c, (struct raft_hard_state){.term = 2}, (uint64_t[]){1, 2}, 2, 0, 0);
    (void) solo_elect(&s, 2, 0);
    session = session_of(&s, 2);
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
    struct raft_config c = voters(3);
    struct solo s;
    uint64_t a;
    uint64_t b;

    (void) state;
    solo_start(&s, &c, (struct raft_hard_state){0}, NULL, 0, 0, 0);
    (void) solo_elect(&s, 2, 0);
    a = session_of(&s, 2);
    b = session_of(&s, 3);
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
    struct raft_config c = voters(3);
    struct raft_peer_status p;
    struct solo s;
    uint64_t session;

    (void) state;
    solo_start(&s, &c, (struct raft_hard_state){0}, NULL, 0, 0, 0);
    (void) solo_elect(&s, 2, 0);
    session = session_of(&s, 2);
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
    struct raft_config c = voters(3);
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
    session = session_of(&s, 2);
    solo_ack(&s, 2, session, 1);
    for (int i = 0; i < 20; i++) {
        solo_propose(&s, 1);
        appends += sent(&s, 2, RAFT_MSG_APPEND_REQ) ? 1 : 0;
        assert_true(!sent(&s, 3, RAFT_MSG_APPEND_REQ)); /* probing: one is out already */
    }
    assert_int_equal(raft_peer_status(s.raft, 2, &p), 0);
    assert_int_equal(p.inflight_messages, 3);
    assert_true(appends <= 3);
    for (int i = 0; i < 10; i++) {
        s.now.ns += 10 * NS_PER_MS;
        solo_recv(&s,
                  (struct raft_message){
                      .type = RAFT_MSG_HEARTBEAT_RESP, .from = 2, .term = 1, .session = session});
        appends += sent(&s, 2, RAFT_MSG_APPEND_REQ) ? 1 : 0;
    }
    assert_true(appends <= 4); /* 100 ms: at most one question what is wrong */
    s.raft = raft_free(s.raft);
}

/* M11, M13: a leader grants nobody its own term, and stale or repeated votes elect nobody. */
static void test_votes_count_once(void **state) {
    struct raft_config c = voters(5);
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
    assert_true(sent(&s, 5, RAFT_MSG_VOTE_RESP)->reject);
    assert_int_equal(raft_vote(s.raft), 1);
    s.raft = raft_free(s.raft);
}

/* M31, M18, M45: the own vote counts, and the requests leave, only with the batch that holds term,
 * vote and all advertised entries. */
static void test_vote_waits_for_disk(void **state) {
    struct raft_config c = voters(1);
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

    c = voters(3);
    solo_start(&s, &c, (struct raft_hard_state){.term = 1}, (uint64_t[]){1}, 1, 0, 0);
    append_req(&s, 1, 1, 1, (uint64_t[]){1, 1}, 2, 0);
    assert_int_equal(s.fx->persist_seq, 1);
    solo_recv(&s, (struct raft_message){.type = RAFT_MSG_TIMEOUT_NOW, .from = 2, .term = 1});
    assert_int_equal(raft_role(s.raft), RAFT_CANDIDATE);
    assert_int_equal(sent(&s, 3, RAFT_MSG_VOTE_REQ)->log_index, 3);
    assert_int_equal(sent(&s, 3, RAFT_MSG_VOTE_REQ)->after_seq, 2);
    assert_int_equal(sent(&s, 3, RAFT_MSG_VOTE_REQ)->context, 1);
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
    struct raft_config c = voters(3);
    struct solo s;

    (void) state;
    solo_start(&s, &c, (struct raft_hard_state){.term = 3}, (uint64_t[]){1, 1, 1, 2, 2}, 5, 0, 0);
    append_req(&s, 3, 1, 1, (uint64_t[]){1}, 1, 5);
    assert_int_equal(sent(&s, 2, RAFT_MSG_APPEND_RESP)->match, 2);
    assert_false(sent(&s, 2, RAFT_MSG_APPEND_RESP)->reject);
    assert_int_equal(raft_commit(s.raft), 2);
    assert_int_equal(raft_last_index(s.raft), 5);
    assert_int_equal(s.fx->truncate_from, 0);
    append_req(&s, 3, 2, 1, NULL, 0, 5); /* empty */
    assert_int_equal(sent(&s, 2, RAFT_MSG_APPEND_RESP)->match, 2);
    assert_int_equal(raft_commit(s.raft), 2);
    append_req(&s, 3, 2, 1, (uint64_t[]){1, 3}, 2,
               1); /* conflict at 4 only; commit not back (M2) */
    assert_int_equal(s.fx->truncate_from, 4);
    assert_int_equal(s.fx->append_count, 1);
    assert_int_equal(sent(&s, 2, RAFT_MSG_APPEND_RESP)->match, 4);
    assert_int_equal(raft_commit(s.raft), 2);
    s.raft = raft_free(s.raft);
}

/* M5, M12: with its beginning out of memory, a request from index 0 only confirms; and a committed
 * entry that contradicts the leader stops the node instead of being cut (R14). */
static void test_committed_is_never_cut(void **state) {
    struct raft_config c = voters(3);
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
    append_req(&s, 3, 0, 0, (uint64_t[]){1, 1, 1}, 3, 5);
    assert_int_equal(sent(&s, 2, RAFT_MSG_APPEND_RESP)->match, 3);
    assert_int_equal(raft_last_index(s.raft), 5);
    assert_int_equal(s.fx->append_count, 0);
    append_req(&s, 3, 0, 0, (uint64_t[]){1, 1, 1, 1, 2, 3}, 6, 5);
    assert_int_equal(s.fx->append_count, 1);
    assert_int_equal(sent(&s, 2, RAFT_MSG_APPEND_RESP)->match, 6);
    assert_int_equal(raft_step(s.raft, s.now, &ev, &s.fx), ERR_CORRUPT);
    s.raft = raft_free(s.raft);
}

/* M35, M49: an empty request acknowledged while entries are in flight waits for them; entries that
 * were cut in flight do not count as durable when their old batch is confirmed. */
static void test_acks_wait_for_disk(void **state) {
    struct raft_config c = voters(3);
    struct solo s;

    (void) state;
    solo_start(&s, &c, (struct raft_hard_state){.term = 1}, (uint64_t[]){1}, 1, 0, 0);
    append_req(&s, 1, 1, 1, (uint64_t[]){1, 1}, 2, 0);
    assert_int_equal(sent(&s, 2, RAFT_MSG_APPEND_RESP)->after_seq, 1);
    append_req(&s, 1, 3, 1, NULL, 0, 3);
    assert_int_equal(sent(&s, 2, RAFT_MSG_APPEND_RESP)->after_seq, 1);
    assert_int_equal(raft_commit(s.raft), 3);
    assert_int_equal(s.fx->apply_index, 1);
    assert_int_equal(raft_durable_index(s.raft), 1);
    s.raft = raft_free(s.raft);

    solo_start(&s, &c, (struct raft_hard_state){.term = 1}, (uint64_t[]){1}, 1, 0, 0);
    append_req(&s, 1, 1, 1, (uint64_t[]){1, 1}, 2, 0);
    solo_recv(&s, (struct raft_message){
                      .type = RAFT_MSG_HEARTBEAT_REQ, .from = 3, .term = 2, .commit = 0});
    assert_int_equal(sent(&s, 3, RAFT_MSG_HEARTBEAT_RESP)->after_seq, 2); /* M39: the new term */
    s.raft = raft_free(s.raft);

    solo_start(&s, &c, (struct raft_hard_state){.term = 1}, (uint64_t[]){1}, 1, 0, 0);
    append_req(&s, 1, 1, 1, (uint64_t[]){1, 1}, 2, 0);
    append_req(&s, 2, 1, 1, (uint64_t[]){2, 2}, 2, 0);
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
    struct raft_config c = voters(3);

    (void) state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct solo s;

        solo_start(&s, &c, (struct raft_hard_state){.term = 3}, (uint64_t[]){1, 2, 2}, 3, 0, 0);
        solo_recv(&s, (struct raft_message){.type = RAFT_MSG_VOTE_REQ,
                                            .from = 2,
                                            .term = 4,
                                            .log_index = rows[i].index,
                                            .log_term = rows[i].term});
        assert_int_equal(sent(&s, 2, RAFT_MSG_VOTE_RESP)->reject, !rows[i].grant);
        assert_int_equal(sent(&s, 2, RAFT_MSG_VOTE_RESP)->after_seq, 1); /* M39 */
        assert_int_equal(s.fx->hard_state.vote, rows[i].grant ? 2 : 0);
        s.raft = raft_free(s.raft);
    }
}

/* M7, M15, M16, M17: a pre-vote changes neither term nor vote, is granted for the term asked for
 * whatever was voted before, and a refusal of an outdated candidate carries the newer term. */
static void test_pre_vote(void **state) {
    struct raft_config c = voters(3);
    struct raft_message ask = {.type = RAFT_MSG_PRE_VOTE_REQ, .from = 2, .term = 6};
    struct solo s;

    (void) state;
    solo_start(&s, &c, (struct raft_hard_state){.term = 5, .vote = 3}, NULL, 0, 0, 0);
    solo_recv(&s, ask);
    assert_false(sent(&s, 2, RAFT_MSG_PRE_VOTE_RESP)->reject);
    assert_int_equal(sent(&s, 2, RAFT_MSG_PRE_VOTE_RESP)->term, 6);
    assert_int_equal(raft_term(s.raft), 5);
    assert_int_equal(raft_vote(s.raft), 3);
    assert_int_equal(s.fx->persist_seq, 0);
    ask.term = 5;
    solo_recv(&s, ask);
    assert_true(sent(&s, 2, RAFT_MSG_PRE_VOTE_RESP)->reject);
    ask.term = 3;
    solo_recv(&s, ask);
    assert_true(sent(&s, 2, RAFT_MSG_PRE_VOTE_RESP)->reject);
    assert_int_equal(sent(&s, 2, RAFT_MSG_PRE_VOTE_RESP)->term, 5);

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
    append_req(&s, 7, 0, 0, NULL, 0, 0); /* M7, M27: an old leader learns the term */
    assert_int_equal(raft_term(s.raft), 8);
    assert_int_equal(sent(&s, 2, RAFT_MSG_APPEND_RESP)->term, 8);
    s.raft = raft_free(s.raft);
}

/* M47: answers for the old leader do not reach the state of another role or term. */
static void test_stale_answers_by_role(void **state) {
    struct raft_config c = voters(3);
    struct solo s;
    uint64_t session;

    (void) state;
    solo_start(&s, &c, (struct raft_hard_state){0}, NULL, 0, 0, 0);
    (void) solo_elect(&s, 2, 0);
    session = session_of(&s, 2);
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
    struct raft_config c = voters(3);
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
    struct raft_config c = voters(5);
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

/* ---- bounds, reads, configurations ---------------------------------------------------------- */

/* M50: accepted but uncommitted proposals are bounded; FULL appends nothing. */
static void test_uncommitted_bound(void **state) {
    struct raft_config c = voters(3);
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
    struct raft_config c = voters(3);
    struct solo s;
    uint64_t old;

    (void) state;
    solo_start(&s, &c, (struct raft_hard_state){.term = 1}, NULL, 0, 0, 0);
    append_req(&s, 1, 0, 0, NULL, 0, 0);
    solo_step(&s, (struct raft_event){.type = RAFT_EV_READ, .read_context = 5});
    old = sent(&s, 2, RAFT_MSG_READ_INDEX_REQ)->context;
    s.raft = raft_free(s.raft);
    {
        struct raft_start start = {.config = &c, .hard_state = {.term = 1}};

        s.now.ns += 1; /* same seed, another instant */
        assert_int_equal(raft_new(&s.options, &start, s.now, &s.raft, NULL), 0);
    }
    append_req(&s, 1, 0, 0, NULL, 0, 0);
    solo_step(&s, (struct raft_event){.type = RAFT_EV_READ, .read_context = 5});
    assert_true(sent(&s, 2, RAFT_MSG_READ_INDEX_REQ)->context != old);
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
    assert_null(sent(&s, 4, RAFT_MSG_VOTE_REQ));
    solo_persisted(&s, 1);
    for (uint64_t id = 2; id <= 5; id++) {
        if (id == 3)
            continue;
        solo_recv(&s, (struct raft_message){.type = RAFT_MSG_VOTE_RESP, .from = id, .term = 1});
    }
    assert_int_equal(raft_role(s.raft), RAFT_CANDIDATE);
    solo_recv(&s, (struct raft_message){.type = RAFT_MSG_VOTE_RESP, .from = 3, .term = 1});
    assert_int_equal(raft_role(s.raft), RAFT_LEADER);
    a = session_of(&s, 2);
    b = session_of(&s, 3);
    solo_ack(&s, 4, session_of(&s, 4), 1);
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
    struct raft_config c = voters(3);
    struct raft_config d = voters(4);
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
    session = session_of(&s, 2);
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
    assert_non_null(sent(&s, 4, RAFT_MSG_APPEND_REQ));
    solo_step(&s, ev);
    assert_int_equal(s.fx->propose_result, RAFT_PROPOSE_FULL);
    append_req(&s, 2, 1, 1, (uint64_t[]){2}, 1, 0); /* a new leader cuts it */
    assert_int_equal(s.fx->truncate_from, 2);
    assert_int_equal(raft_config_latest(s.raft)->count, 3);
    assert_int_equal(raft_config_latest_index(s.raft), 0);
    s.raft = raft_free(s.raft);
    (void) bytes_unref(data);
    (void) bytes_unref(illegal);
}

/* What recovery found and cannot be true is refused with a reason. */
static void test_start_contradictions(void **state) {
    struct raft_config c = voters(3);
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
    struct raft_config c = voters(3);
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
