#include "node_snapshot_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "log_commands.h"
#include "node/replica_internal.h"

#define BATCH 64U

void snapshot_world_init(struct node_world *w, unsigned count) {
    node_world_init(w, count);
    w->options.snapshot_interval_ns = NS_PER_S;
    w->options.snapshot_entries = 100;
    w->options.log_bytes_max = 64UL * 1024 * 1024;
    w->options.log_bytes_kept = 0;
    w->options.scrub_interval_ns = 0;
    w->options.raft.applied_entries_kept = 16;
}

void node_world_step(struct node_world *w) {
    node_world_run(w, 1);
}

static void submit_one(struct node_world *w, unsigned slot, size_t bytes, struct answer *a) {
    uint8_t *spec = malloc(bytes);

    assert_non_null(spec);
    memset(spec, 'x', bytes); /* no one looks into it */
    assert_int_equal(
        node_world_propose(w, slot, log_submit(slice_of(spec, bytes), ""), 0, MONO_NEVER, a), 0);
    free(spec);
}

void submit_jobs(struct node_world *w, unsigned slot, unsigned n, size_t bytes) {
    static struct answer answers[BATCH];

    while (n > 0) {
        unsigned now = MIN(n, BATCH);

        for (unsigned i = 0; i < now; i++)
            submit_one(w, slot, bytes, &answers[i]);
        for (int ms = 0; ms < 1000 && answers[now - 1].count == 0; ms++)
            node_world_run(w, 1);
        for (unsigned i = 0; i < now; i++) {
            assert_int_equal(answers[i].count, 1);
            assert_int_equal(answers[i].status, REPLICA_OK);
        }
        n -= now;
    }
}

static void compact(struct lag *l, unsigned n, size_t bytes) {
    struct node_world *w = l->w;

    submit_jobs(w, l->leader, n, bytes);
    node_world_run(w, 500);
    for (unsigned i = 0; i < w->count; i++)
        if (i != l->follower)
            replica_snapshot_now(w->nodes[i].replica);
    node_world_run(w, 100);
    l->index = w->nodes[l->leader].replica->persist.log.base_index;
    assert_true(l->index > fsm_applied_index(w->nodes[l->follower].replica->fsm));
}

static void lag_open(struct lag *l, struct node_world *w) {
    snapshot_world_init(w, 3);
    node_world_open(w);
    *l = (struct lag){.w = w, .leader = node_world_lead(w)};
    l->follower = (l->leader + 1) % 3;
    submit_jobs(w, l->leader, 10, 100);
    node_world_run(w, 200);
}

void lag_begin_leader(struct lag *l, struct node_world *w) {
    lag_open(l, w);
    l->follower = l->leader;
    node_world_cut_off(w, l->follower, true);
}

/* The others choose a leader first. */
void lag_compact(struct lag *l, unsigned n) {
    struct node_world *w = l->w;
    uint64_t term = raft_term(w->nodes[l->follower].replica->raft);

    for (int ms = 0; ms < 10000 && l->leader == l->follower; ms++) {
        node_world_run(w, 1);
        for (unsigned i = 0; i < w->count; i++)
            if (i != l->follower && replica_leads(w->nodes[i].replica) &&
                raft_term(w->nodes[i].replica->raft) > term)
                l->leader = i;
    }
    assert_int_not_equal(l->leader, l->follower);
    compact(l, n, JOB_BYTES);
}

void lag_begin_bytes(struct lag *l, struct node_world *w, unsigned n, size_t bytes) {
    lag_open(l, w);
    node_world_cut_off(w, l->follower, true);
    compact(l, n, bytes);
}

static void changed(void *arg, uint32_t code, const char *message, uint64_t index, bool is_new) {
    bool *done = arg;

    (void) index;
    (void) is_new;
    if (code != 0)
        fail_msg("change refused: %u %s", code, message);
    *done = true;
}

void lag_begin_new(struct lag *l, struct node_world *w, unsigned n) {
    struct replica_change c = {.kind = REPLICA_CHANGE_ADD, .id = 3, .peer_address = "n3:1"};
    bool done = false;

    snapshot_world_init(w, 3);
    w->config.count = 2;
    for (unsigned i = 0; i < 2; i++) {
        w->config.members[i].id = i + 1;
        w->config.members[i].flags = RAFT_MEMBER_VOTER;
        (void) snprintf(w->config.members[i].address, sizeof(w->config.members[i].address), "n%u:1",
                        i + 1);
    }
    node_world_open(w);
    *l = (struct lag){.w = w, .leader = node_world_lead(w), .follower = 2};
    node_world_cut_off(w, l->follower, true);
    compact(l, n, JOB_BYTES);
    c.client_address = "";
    c.stay_learner = true;
    assert_int_equal(replica_change_membership(w->nodes[l->leader].replica, &c,
                                               node_world_in_ms(w, 5000), changed, &done),
                     0);
    for (int ms = 0; ms < 1000 && !done; ms++)
        node_world_run(w, 1);
    assert_true(done);
    replica_on_peer_link(w->nodes[l->leader].replica, 3, true); /* known to it only now */
    replica_on_peer_link(w->nodes[1 - l->leader].replica, 3, true);
}

void lag_begin(struct lag *l, struct node_world *w, unsigned n) {
    lag_begin_bytes(l, w, n, JOB_BYTES);
}

void lag_accepted(struct lag *l, uint64_t index) {
    struct replica *r = l->w->nodes[l->follower].replica;
    Chronos__Internal__V1__ForwardResult res = CHRONOS__INTERNAL__V1__FORWARD_RESULT__INIT;
    const struct proposal *p = r->proposals.in_flight.head;

    for (size_t left = r->proposals.in_flight.count; left > 0; left--, index++) {
        const struct proposal *next = p->next; /* an accepted one moves to the end */

        res.id = p->origin;
        res.attempt = p->forwards;
        res.outcome = CHRONOS__INTERNAL__V1__FORWARD_OUTCOME__FORWARD_OUTCOME_ACCEPTED;
        res.index = index;
        res.term = raft_term(l->w->nodes[l->leader].replica->raft);
        proposals_on_forward_result(r, &res);
        p = next;
    }
}

void lag_begin_with(struct lag *l, struct node_world *w, unsigned n, struct answer *once,
                    struct answer *again, bool told) {
    uint64_t index;

    lag_open(l, w);
    assert_int_equal(node_world_submit(w, l->follower, "", 0, MONO_NEVER, once), 0);
    assert_int_equal(
        node_world_submit(w, l->follower, "key", REPLICA_RETRY_SAFE, MONO_NEVER, again), 0);
    w->cut[l->leader][l->follower] = true; /* it is heard, but hears nothing */
    w->cut[(l->leader + 2) % 3][l->follower] = true;
    node_world_run(w, 20);
    index = fsm_applied_index(w->nodes[l->follower].replica->fsm);
    assert_true(fsm_applied_index(w->nodes[l->leader].replica->fsm) >= index + 2);
    if (told)
        lag_accepted(l, index + 1);
    node_world_cut_off(w, l->follower, true);
    compact(l, n, JOB_BYTES);
}

void lag_heal(struct lag *l) {
    node_world_cut_off(l->w, l->follower, false);
}

static bool all_equal(const struct lag *l) {
    const struct node_world *w = l->w;
    const struct fsm *leader = w->nodes[l->leader].replica->fsm;
    uint8_t want[16], got[16];

    fsm_digest(leader, want);
    for (unsigned i = 0; i < w->count; i++) {
        if (w->nodes[i].down)
            return false;
        fsm_digest(w->nodes[i].replica->fsm, got);
        if (fsm_applied_index(w->nodes[i].replica->fsm) != fsm_applied_index(leader) ||
            memcmp(want, got, sizeof(want)) != 0)
            return false;
    }
    return true;
}

void lag_wait_equal(struct lag *l) {
    for (int i = 0; i < 6000; i++) {
        node_world_run(l->w, 10);
        if (all_equal(l))
            return;
    }
    fail_msg("the nodes do not become equal: leader %llu, follower %llu",
             (unsigned long long) fsm_applied_index(l->w->nodes[l->leader].replica->fsm),
             (unsigned long long) fsm_applied_index(l->w->nodes[l->follower].replica->fsm));
}
