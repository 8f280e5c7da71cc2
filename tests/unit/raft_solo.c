#include "raft_solo.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct raft_config solo_voters(size_t n) {
    struct raft_config c = {.count = n};

    for (size_t i = 0; i < n; i++)
        c.members[i] = (struct raft_member){.id = i + 1, .flags = RAFT_MEMBER_VOTER};
    return c;
}

void solo_start_with(struct solo *s, const struct raft_options *o, const struct raft_config *c,
                     struct raft_hard_state hs, const uint64_t *terms, size_t count,
                     uint64_t applied, uint64_t memory) {
    struct raft_entry tail[64];
    struct raft_start start = {.hard_state = hs, .applied_index = applied, .config = c};
    struct errtext err;

    *s = (struct solo){.options = *o, .now = {.ns = NS_PER_S}};
    for (size_t i = 0; i < count; i++)
        tail[i] = (struct raft_entry){.index = i + 1, .term = terms[i], .type = RAFT_ENTRY_NOOP};
    start.prev_index = memory;
    start.prev_term = memory > 0 ? terms[memory - 1] : 0;
    start.tail = tail + memory;
    start.tail_count = count - memory;
    if (raft_new(&s->options, &start, s->now, &s->raft, &err) != 0)
        fail_msg("raft_new: %s", err.s);
}

void solo_start(struct solo *s, const struct raft_config *c, struct raft_hard_state hs,
                const uint64_t *terms, size_t count, uint64_t applied, uint64_t memory) {
    struct raft_options o;

    raft_options_default(&o, 1, 7);
    solo_start_with(s, &o, c, hs, terms, count, applied, memory);
}

void solo_step(struct solo *s, struct raft_event ev) {
    assert_int_equal(raft_step(s->raft, s->now, &ev, &s->fx), 0);
    raft_check_invariants(s->raft);
}

void solo_recv(struct solo *s, struct raft_message m) {
    m.to = 1;
    solo_step(s, (struct raft_event){.type = RAFT_EV_MESSAGE, .message = &m});
}

void solo_persisted(struct solo *s, uint64_t seq) {
    solo_step(s, (struct raft_event){.type = RAFT_EV_PERSISTED, .persisted_seq = seq});
}

void solo_propose(struct solo *s, size_t count) {
    struct raft_entry e[64];
    struct bytes *data = bytes_copy("x", 1);

    assert_non_null(data);
    for (size_t i = 0; i < count; i++)
        e[i] = (struct raft_entry){.type = RAFT_ENTRY_COMMAND, .data = data};
    solo_step(
        s, (struct raft_event){.type = RAFT_EV_PROPOSE, .propose = {.entries = e, .count = count}});
    (void) bytes_unref(data);
}

uint64_t solo_elect(struct solo *s, uint64_t voter_a, uint64_t voter_b) {
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

const struct raft_message *solo_sent(const struct solo *s, uint64_t to,
                                     enum raft_message_type type) {
    for (size_t i = 0; i < s->fx->messages_count; i++) {
        if (s->fx->messages[i].to == to && s->fx->messages[i].type == type)
            return &s->fx->messages[i];
    }
    return NULL;
}

void solo_ack(struct solo *s, uint64_t from, uint64_t session, uint64_t match) {
    solo_recv(s, (struct raft_message){.type = RAFT_MSG_APPEND_RESP,
                                       .from = from,
                                       .term = raft_term(s->raft),
                                       .session = session,
                                       .match = match});
}

uint64_t solo_session_of(const struct solo *s, uint64_t to) {
    const struct raft_message *m = solo_sent(s, to, RAFT_MSG_APPEND_REQ);

    assert_non_null(m);
    return m->session;
}

void solo_append_req(struct solo *s, uint64_t term, uint64_t prev, uint64_t prev_term,
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
