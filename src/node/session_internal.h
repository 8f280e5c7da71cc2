/* A worker's session, for worker_session.c and session_reports.c only.
 *
 *   NEW --hello--> REGISTERING --committed--> ACTIVE
 *    |                  |                        |
 *    +--bad message-----+--not committed---------+--lost, moved, stream gone--> ENDED
 */
#pragma once

#include "node/replica_internal.h"

#define SESSION_SLOTS_MAX 10000
#define SESSION_LABELS_MAX 32
#define SESSION_HELD_MAX 20000
#define SESSION_REPORTS_MAX 20000 /* waiting for their entry to commit */

enum session_state { SESSION_NEW, SESSION_REGISTERING, SESSION_ACTIVE, SESSION_ENDED };

/* Reports of one proposal, or of one not yet proposed. */
struct report_batch {
    struct report_batch *next;
    struct worker_session *session;
    struct arena arena;
    Chronos__V1__AttemptReport **reports; /* in the arena */
    uint64_t *seqs;                       /* in the arena */
    size_t count;
    bool proposed;
};

struct worker_session {
    struct worker_session *prev, *next;
    struct replica *replica;
    const struct worker_session_ops *ops;
    void *arg;
    enum session_state state;
    bool detached;              /* worker_session_free was called */
    size_t proposals_in_flight; /* that name this session */
    char *worker_id;            /* owned; NULL before hello */
    uint64_t incarnation;
    bool draining;   /* said in hello */
    bool told_drain; /* what the worker was last told of an operator's drain */
    int64_t told_drain_until_ms;
    struct arena arena; /* hello until welcome, then one flush of assignments */
    Chronos__V1__AttemptRef **hello_held, **hello_kill;
    size_t hello_held_count, hello_kill_count;
    uint64_t *assign; /* owned: job numbers to deliver at the end of the turn */
    size_t assign_count, assign_cap;
    bool blocked; /* the stream is full: assignments wait for worker_session_writable */
    struct report_batch *batches;
    size_t reports_waiting;
};

void worker_session_send(struct worker_session *s, const ProtobufCMessage *message);
void worker_session_end(struct worker_session *s, int code, const char *message);
void worker_session_unref(struct worker_session *s);

/* session_assign.c */
void worker_session_assign(struct worker_session *s, uint64_t seq);
void worker_session_flush(struct worker_session *s);
void worker_session_kill(struct worker_session *s, const struct fsm_job *j);
/* It was assigned this job and not yet told. */
bool worker_session_owes(const struct worker_session *s, uint64_t seq);

/* session_reports.c */
int session_reports_add(struct worker_session *s,
                        const Chronos__V1__WorkerReports *reports) _must_check_;
void session_reports_flush(struct worker_session *s);
void session_reports_free(struct worker_session *s);
