/* Linearizability: is there one order of all operations, each at an instant between its call and
 * its answer, in which every answer is right?
 *
 * linear.c searches for the order (Wing and Gong 1993, with Lowe's memo of 2017): NP-complete in
 * general, so a history is cut into parts that have nothing to do with each other (a job, a key, a
 * schedule, a register) and every part has a budget. linear_spec.c says what is right.
 * Where answers name their place in the log, the search keeps to it.
 * linear_history.c cuts, and where every answer carries its Raft index checks the order that the
 * log itself gives, in O(n log n). Pure; tested against brute force (test_linear.c). */
#pragma once

#include "sim/history.h"

enum linear_verdict {
    LINEAR_HOLDS,
    LINEAR_BROKEN,
    LINEAR_UNDECIDED, /* the budget is used up: an error of the test, never a pass */
};

struct linear_state {
    uint64_t w[4];
};

/* What an object does, one operation after the other.
 * step: may @op happen now, with this answer? Then true with *ret, the state after it. An operation
 * of unknown outcome is asked for its effect only; false when it would have none. */
struct linear_spec {
    const char *name;
    bool (*step)(const struct history_op *op, const struct linear_state *s,
                 struct linear_state *ret);
};

extern const struct linear_spec linear_register;
extern const struct linear_spec linear_key; /* an idempotency key and the job it names */
extern const struct linear_spec linear_job;
extern const struct linear_spec linear_schedule;

/* Does any order of @ops exist? Operations that failed are left out; unknown ones may come at any
 * time after their call, or never. @from: the state before. @states_max bounds the memo.
 * 0 with *ret; -ENOMEM. */
int linear_search(const struct linear_spec *spec, const struct linear_state *from,
                  const struct history_op *const *ops, size_t count, size_t states_max,
                  enum linear_verdict *ret) _must_check_;

struct linear_options {
    size_t states_max;  /* per part; 0 = 1,000,000 */
    size_t unknown_max; /* per part; 0 = 200: more is LINEAR_UNDECIDED */
};

struct linear_report {
    enum linear_verdict verdict;
    char why[512];     /* unless it holds: which part, and an operation of it */
    uint64_t parts;    /* judged */
    uint64_t searched; /* of them by search, the others by the index alone */
    uint64_t largest;  /* operations in one part */
};

/* Judge a whole history. 0 with *ret; -ENOMEM. */
int linear_check_history(const struct history *h, const struct linear_options *o,
                         struct linear_report *ret) _must_check_;
