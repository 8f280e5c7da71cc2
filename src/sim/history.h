/* Histories: what clients did to a cluster, from when to when, and what they were told.
 *
 * Anybody can write one: the simulator's clients do in memory, clients of real clusters as a text
 * file that `chronos-sim --check-history FILE` judges (linear_history.c). The text, one operation a
 * line, blanks between words, `#` begins a comment line, order of lines free:
 *
 *   CLIENT BEGIN END OUTCOME OPERATION [name=value ...]
 *
 *   CLIENT    a number: who asked
 *   BEGIN END nanoseconds of one clock for all clients (CLOCK_MONOTONIC of the machine): taken
 *             before the request was sent and after the answer came. END is `-` with `unknown`
 *   OUTCOME   ok: answered, also in the negative (see result); fail: it certainly had no effect
 *             (refused, never sent); unknown: it may have happened, now or at any time to come
 *
 *   submit  request=R [key=K] [job=J | result=conflict]  J: the id that came back; R: what was
 *                                              asked, any word that is equal for equal requests;
 *                                              K: the idempotency key
 *   cancel  job=J result=ok|ended|missing
 *   get     job=J state=pending|running|completed|failed|cancelled [attempt=N] [cancel=0|1]
 *   get     job=J state=missing
 *   report  job=J attempt=N outcome=completed|failed|cancelled|released result=ok|stale
 *   put     schedule=S create=1 result=ok|taken [version=V]
 *   put     schedule=S create=0 [expect=V] result=ok|mismatch|missing [version=V]
 *   drop    schedule=S [expect=V] result=ok|mismatch|missing
 *   show    schedule=S result=ok|missing [version=V]
 *   set     register=R value=V                 a plain register: V is a number
 *   read    register=R value=V
 *   cas     register=R expect=V value=V result=ok|mismatch
 *
 * with any of them, when it was answered:
 *   index=I   the Raft index of the change, or the applied index that a read reflects. Leave it out
 *             where the answer names the index of something older (a submit that found its key)
 *   stale=1   a read that did not ask to be linearizable
 *   token=I   with stale: the newest index this client had seen; the answer must not be older
 *
 * A result that is `unknown` carries only what was asked. A value holds no blanks. */
#pragma once

#include "base/arena.h"
#include "base/err.h"

#define HISTORY_NEVER INT64_MAX /* end_ns of an operation without an answer */
#define HISTORY_LINE_BYTES_MAX 4096

enum history_outcome { HISTORY_OK, HISTORY_FAIL, HISTORY_UNKNOWN };

enum history_kind {
    HISTORY_SUBMIT,
    HISTORY_CANCEL,
    HISTORY_GET,
    HISTORY_REPORT,
    HISTORY_PUT,
    HISTORY_DROP,
    HISTORY_SHOW,
    HISTORY_SET,
    HISTORY_READ,
    HISTORY_CAS,
    HISTORY_KINDS
};

enum history_result {
    HISTORY_DONE,     /* ok */
    HISTORY_CONFLICT, /* submit: the key belongs to another request */
    HISTORY_ENDED,    /* cancel: the job has ended */
    HISTORY_MISSING,
    HISTORY_STALE,    /* report */
    HISTORY_TAKEN,    /* put: the name */
    HISTORY_MISMATCH, /* put, drop: the version; cas: the value */
    HISTORY_RESULTS
};

enum history_state {
    HISTORY_S_NONE, /* not said */
    HISTORY_S_PENDING,
    HISTORY_S_RUNNING,
    HISTORY_S_COMPLETED,
    HISTORY_S_FAILED,
    HISTORY_S_CANCELLED,
    HISTORY_S_RELEASED, /* outcome of a report only */
    HISTORY_STATES
};

/* One operation. Names are borrowed from the history's arena; NULL where none was given. */
struct history_op {
    uint32_t line; /* in the text, or the number of the operation */
    uint32_t client;
    int64_t begin_ns, end_ns;
    enum history_outcome outcome;
    enum history_kind kind;
    enum history_result result;
    enum history_state state;   /* get: the job's; report: the outcome */
    bool attempt_known, cancel; /* get */
    bool cancel_known;
    bool create; /* put */
    bool stale;
    uint32_t attempt;
    uint64_t version; /* 0 = not said */
    uint64_t expect;  /* put, drop: 0 = any; cas: the value */
    uint64_t value;
    uint64_t index; /* 0 = not said */
    uint64_t token;
    const char *key, *request, *job, *name; /* name: of the schedule or the register */
};

static inline bool history_is_read(const struct history_op *op) {
    return op->kind == HISTORY_GET || op->kind == HISTORY_SHOW || op->kind == HISTORY_READ;
}

struct history {
    struct history_op *ops; /* owned */
    size_t count, cap;
    struct arena arena; /* of the names */
};

void history_init(struct history *h);
void history_done(struct history *h);

/* Room for one more operation, all zero; NULL: memory. Valid until the next call. */
struct history_op *history_op_add(struct history *h) _must_check_;
/* A copy of @s that lives as long as the history. NULL: memory. */
const char *history_name(struct history *h, const char *s) _must_check_;

/* Add what one line of the text says; comments and empty lines add nothing. @line counts from 1.
 * 0; ERR_PROTO: the text names the line, the word and what would be right; -ENOMEM. */
int history_parse_line(struct history *h, const char *text, uint32_t line,
                       struct errtext *reterr) _must_check_;
/* The line of @op, without its end. Returns its length as snprintf does. */
int history_print(const struct history_op *op, char *out, size_t out_bytes);
