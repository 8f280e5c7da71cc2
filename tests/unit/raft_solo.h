/* One raft driven by hand-made messages: node 1 of a cluster whose others are the test. */
#pragma once

#include "raft_world.h"

#include <stddef.h>

struct solo {
    struct raft_options options;
    struct raft *raft;
    const struct raft_effects *fx; /* of the last step */
    struct mono now;
};

struct raft_config solo_voters(size_t n);
/* Node 1 with no-op entries of @terms on disk, of which the first @memory are not in memory. */
void solo_start(struct solo *s, const struct raft_config *c, struct raft_hard_state hs,
                const uint64_t *terms, size_t count, uint64_t applied, uint64_t memory);
/* With other options than the default ones. */
void solo_start_with(struct solo *s, const struct raft_options *o, const struct raft_config *c,
                     struct raft_hard_state hs, const uint64_t *terms, size_t count,
                     uint64_t applied, uint64_t memory);
/* Each step must succeed and leave the raft's invariants whole. */
void solo_step(struct solo *s, struct raft_event ev);
void solo_recv(struct solo *s, struct raft_message m);
void solo_persisted(struct solo *s, uint64_t seq);
void solo_propose(struct solo *s, size_t count);
/* Elect node 1 of a cluster in the next term with the votes of @from..; returns the append seq. */
uint64_t solo_elect(struct solo *s, uint64_t voter_a, uint64_t voter_b);
const struct raft_message *solo_sent(const struct solo *s, uint64_t to,
                                     enum raft_message_type type);
void solo_ack(struct solo *s, uint64_t from, uint64_t session, uint64_t match);
uint64_t solo_session_of(const struct solo *s, uint64_t to);
void solo_append_req(struct solo *s, uint64_t term, uint64_t prev, uint64_t prev_term,
                     const uint64_t *terms, size_t count, uint64_t commit);
