/* What a worker is owed: assignments, and kills behind them. See worker_session.h.
 *
 * Invariant: s->assign holds, in order, what was assigned and not yet sent; it waits there while
 * the stream is full. Thread: the loop. */
#include "node/session_internal.h"

#include "fsm/job_id.h"

#include <stdlib.h>
#include <string.h>

#define CODE_INTERNAL 13
/* Of specifications in a message; above 4 MiB the worker would refuse it. */
#define ASSIGN_BYTES ((size_t) 1024 * 1024)

void worker_session_assign(struct worker_session *s, uint64_t seq) {
    if (s->assign_count == s->assign_cap) {
        size_t cap = s->assign_cap ? s->assign_cap * 2 : 64;
        uint64_t *grown = realloc(s->assign, cap * sizeof(*grown));

        if (!grown) {
            worker_session_end(s, CODE_INTERNAL,
                               "out of memory"); /* it comes back and gets all anew */
            return;
        }
        s->assign = grown;
        s->assign_cap = cap;
    }
    s->assign[s->assign_count++] = seq;
    s->replica->wants_turn = true;
}

static void send_kill(struct worker_session *s, const struct fsm_job *j) {
    Chronos__V1__NodeMessage m = CHRONOS__V1__NODE_MESSAGE__INIT;
    Chronos__V1__NodeKill kill = CHRONOS__V1__NODE_KILL__INIT;
    Chronos__V1__AttemptRef ref = CHRONOS__V1__ATTEMPT_REF__INIT;
    char id[JOB_ID_BYTES_MAX];

    job_id_format(j->seq, id);
    ref.job_id = id;
    ref.attempt = j->attempt;
    ref.fencing_token = j->fencing_token;
    kill.attempt = &ref;
    kill.cancelled = true;
    kill.now = j->kill;
    m.body_case = CHRONOS__V1__NODE_MESSAGE__BODY_KILL;
    m.kill = &kill;
    worker_session_send(s, &m.base);
}

bool worker_session_owes(const struct worker_session *s, uint64_t seq) {
    for (size_t i = 0; i < s->assign_count; i++)
        if (s->assign[i] == seq)
            return true;
    return false;
}

/* The worker must know the attempt before it can kill it: one not yet delivered is killed when it
 * is. */
void worker_session_kill(struct worker_session *s, const struct fsm_job *j) {
    if (worker_session_owes(s, j->seq))
        worker_session_flush(s);
    else
        send_kill(s, j);
}

/* Is it the worker's still? It may be over before it could be delivered. */
static bool is_assigned_here(const struct worker_session *s, const struct fsm_job *j) {
    return j && j->state == CHRONOS__V1__JOB_STATE__JOB_STATE_RUNNING && j->worker &&
           strcmp(j->worker->id, s->worker_id) == 0;
}

/* NULL: the record could not be read. */
static Chronos__Internal__V1__AssignmentBytes *assignment_of(struct worker_session *s,
                                                             const struct fsm_job *j) {
    Chronos__Internal__V1__AssignmentBytes *a = arena_alloc(&s->arena, sizeof(*a));
    Chronos__Internal__V1__AssignmentBytes__Ref *ref = arena_alloc(&s->arena, sizeof(*ref));
    Chronos__Internal__V1__JobRecord *rec = NULL;
    char *id = arena_alloc(&s->arena, JOB_ID_BYTES_MAX);

    if (!a || !ref || !id || fsm_read_job(s->replica->fsm, j->seq, &s->arena, &rec) != 0)
        return NULL;
    chronos__internal__v1__assignment_bytes__init(a);
    chronos__internal__v1__assignment_bytes__ref__init(ref);
    job_id_format(j->seq, id);
    ref->job_id = id;
    ref->attempt = j->attempt;
    ref->fencing_token = j->fencing_token;
    a->attempt = ref;
    a->spec = rec->spec;
    a->schedule_id = rec->schedule;
    a->tick_ms = rec->tick_s * 1000;
    a->schedule_generation = rec->schedule_generation;
    return a;
}

/* One message from the front of the list, from *at on; *at is where the next one begins. */
static void flush_some(struct worker_session *s, size_t *at) {
    Chronos__Internal__V1__NodeMessageAssign m = CHRONOS__INTERNAL__V1__NODE_MESSAGE_ASSIGN__INIT;
    Chronos__Internal__V1__NodeAssignBytes list = CHRONOS__INTERNAL__V1__NODE_ASSIGN_BYTES__INIT;
    size_t begin = *at, bytes = 0;

    arena_clear(&s->arena);
    list.assignments =
        arena_alloc(&s->arena, (s->assign_count - begin) * sizeof(*list.assignments));
    for (; *at < s->assign_count && bytes < ASSIGN_BYTES; (*at)++) {
        const struct fsm_job *j = fsm_job_find(s->replica->fsm, s->assign[*at]);
        Chronos__Internal__V1__AssignmentBytes *a;

        if (!is_assigned_here(s, j))
            continue;
        a = list.assignments ? assignment_of(s, j) : NULL;
        if (!a) {
            worker_session_end(s, CODE_INTERNAL, "an assignment could not be read");
            return;
        }
        bytes += a->spec.len;
        list.assignments[list.n_assignments++] = a;
    }
    if (list.n_assignments == 0)
        return;
    m.assign = &list;
    worker_session_send(s, &m.base);
    for (size_t i = begin; i < *at && s->state == SESSION_ACTIVE; i++) {
        const struct fsm_job *j = fsm_job_find(s->replica->fsm, s->assign[i]);

        if (is_assigned_here(s, j) && j->cancel_requested)
            send_kill(s, j); /* it was asked for while this waited */
    }
}

/* In messages of about ASSIGN_BYTES, as long as the stream takes them: a worker with many slots and
 * large jobs is owed more than one message, or one stream's queue, may hold. */
void worker_session_flush(struct worker_session *s) {
    size_t at = 0;

    while (s->state == SESSION_ACTIVE && !s->blocked && at < s->assign_count)
        flush_some(s, &at);
    if (at == 0)
        return;
    s->assign_count -= at;
    memmove(s->assign, s->assign + at, s->assign_count * sizeof(*s->assign));
}
