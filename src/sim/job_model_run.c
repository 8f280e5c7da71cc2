/* The model of jobs: what becomes of one job, and of workers. See job_model.h. */
#include "sim/job_model.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OUTCOME(x) CHRONOS__V1__ATTEMPT_OUTCOME__ATTEMPT_OUTCOME_##x
#define REASON_IS(x) CHRONOS__V1__FAILURE_REASON__FAILURE_REASON_##x
#define ATTEMPTS_DEFAULT 3
#define SLOTS_MAX 10000

void jm_wrong(struct job_model *m, const char *fmt, ...) {
    va_list ap;

    if (m->wrong[0])
        return;
    va_start(ap, fmt);
    (void) vsnprintf(m->wrong, sizeof(m->wrong), fmt, ap);
    va_end(ap);
}

static struct jm_result result(int code, uint64_t seq) {
    return (struct jm_result){.code = code, .seq = seq};
}

static bool has_ended(const struct jm_job *j) {
    return j->state == JM_STATE(COMPLETED) || j->state == JM_STATE(FAILED) ||
           j->state == JM_STATE(CANCELLED);
}

/* ---- one transition -------------------------------------------------------------------------- */

static void note_version(struct job_model *m, struct jm_job *j) {
    struct jm_version *grown;

    if (j->versions_count == j->versions_cap) {
        size_t cap = MAX(j->versions_cap * 2, (size_t) 4);

        grown = realloc(j->versions, cap * sizeof(*grown));
        if (!grown) {
            m->no_memory = true;
            return;
        }
        j->versions = grown;
        j->versions_cap = cap;
    }
    if (j->versions_count > 0 && j->versions[j->versions_count - 1].index == m->index)
        j->versions_count--; /* within one entry only the last counts */
    j->versions[j->versions_count++] =
        (struct jm_version){.index = m->index,
                            .state = j->state,
                            .attempt = j->attempt,
                            .token = j->token,
                            .cancel = j->cancel,
                            .worker = j->worker,
                            .incarnation = j->worker ? j->worker->incarnation : 0};
}

static void tell(struct job_model *m, const struct jm_job *j, int from) {
    struct jm_event *grown;

    if (m->events_count == m->events_cap) {
        size_t cap = MAX(m->events_cap * 2, (size_t) 256);

        grown = realloc(m->events, cap * sizeof(*grown));
        if (!grown) {
            m->no_memory = true;
            return;
        }
        m->events = grown;
        m->events_cap = cap;
    }
    m->events[m->events_count++] = (struct jm_event){.seq = j->seq,
                                                     .from = from,
                                                     .to = j->state,
                                                     .attempt = j->attempt,
                                                     .worker = j->worker,
                                                     .token = j->token,
                                                     .cancel = j->cancel,
                                                     .kill = j->kill,
                                                     .failure_reason = j->failure_reason,
                                                     .exit_code = j->exit_code,
                                                     .term_signal = j->term_signal,
                                                     .released = j->released};
}

/* The waiting ones stay in the order of their numbers (J20). */
static void wait_in_line(struct job_model *m, struct jm_job *j) {
    struct jm_job *before = NULL, *next = m->waiting;

    while (next && next->seq < j->seq) {
        before = next;
        next = next->next;
    }
    j->prev = before;
    j->next = next;
    if (before)
        before->next = j;
    else
        m->waiting = j;
    if (next)
        next->prev = j;
}

static void leave_line(struct job_model *m, struct jm_job *j) {
    if (j->prev)
        j->prev->next = j->next;
    else
        m->waiting = j->next;
    if (j->next)
        j->next->prev = j->prev;
    j->prev = j->next = NULL;
}

static void run_ended(struct job_model *m, const struct jm_job *j) {
    const struct jm_hint *h = m->hints_at < m->hints_count ? &m->hints[m->hints_at] : NULL;

    if (!h || h->kind != JM_RUN_ENDED || h->seq != j->seq) {
        jm_wrong(m, "run %llu of schedule %llu ends, which the schedules do not know",
                 (unsigned long long) j->seq, (unsigned long long) j->schedule_seq);
        return;
    }
    m->hints_at++;
    jm_follow_hints(m);
}

/* @by_schedule: its schedule asked, and goes on by itself. */
static void move(struct job_model *m, struct jm_job *j, int to, bool by_schedule) {
    int from = j->state;

    if (from == JM_STATE(PENDING) && to != from)
        leave_line(m, j);
    if (from == JM_STATE(RUNNING) && to != from)
        j->worker->running--;
    if (to == JM_STATE(RUNNING) && from != to)
        j->worker->running++;
    m->counts[to]++;
    if (from != 0)
        m->counts[from]--;
    j->state = to;
    j->updated_index = m->index;
    if (to == JM_STATE(PENDING) && from != to)
        wait_in_line(m, j);
    if (has_ended(j))
        j->finished_ms = m->now_ms;
    note_version(m, j);
    tell(m, j, from);
    if (has_ended(j) && j->schedule_seq != 0 && !by_schedule)
        run_ended(m, j);
}

static struct jm_job *live(struct job_model *m, uint64_t seq) {
    struct jm_job *j = u64map_get(&m->jobs, seq);

    return j && !has_ended(j) ? j : NULL;
}

/* Numbers below the next one that are no job's went to the keys of schedules. */
static bool was_given(const struct job_model *m, uint64_t seq) {
    return seq > 0 && seq < m->next_seq;
}

struct jm_job *jm_create(struct job_model *m, uint32_t max_attempts) {
    struct jm_job *j = calloc(1, sizeof(*j));

    if (!j || u64map_put(&m->jobs, m->next_seq, j) < 0) {
        free(j);
        m->no_memory = true;
        return NULL;
    }
    j->seq = m->next_seq++;
    j->max_attempts = max_attempts ? max_attempts : ATTEMPTS_DEFAULT;
    j->created_ms = m->now_ms;
    j->created_index = m->index;
    move(m, j, JM_STATE(PENDING), false);
    return j;
}

/* ---- assignments ----------------------------------------------------------------------------- */

/* J20: who waits and is older goes first. The leader has chosen @j when it knew all up to where its
 * term began, @j came to wait and @tried it in vain. Who waited by then had to be chosen before,
 * unless it was on its way in an earlier plan of this leader: that one is committed earlier, too,
 * since plans of one term keep their order and those of another are not passed on. */
static void check_order(struct job_model *m, const struct jm_job *j, uint64_t tried) {
    uint64_t known = MAX(MAX(j->updated_index, tried), m->term_began);

    for (const struct jm_job *p = m->waiting; p && p->seq < j->seq; p = p->next)
        if (p->updated_index <= known && p->last_try <= known && p->queue_hash == j->queue_hash)
            jm_wrong(m, "job %llu starts before job %llu, which waits for longer",
                     (unsigned long long) j->seq, (unsigned long long) p->seq);
}

/* J14, J15: what was tried before was lost, and not too often, or given back unrun. */
static void check_attempts(struct job_model *m, const struct jm_job *j) {
    if (j->lost + j->released != j->attempt || j->lost >= j->max_attempts)
        jm_wrong(m, "job %llu starts again after %u attempts of %u: %llu lost, %llu given back",
                 (unsigned long long) j->seq, j->attempt, j->max_attempts,
                 (unsigned long long) j->lost, (unsigned long long) j->released);
}

struct jm_result jm_assign(struct job_model *m, const Chronos__Internal__V1__AssignJobItem *x) {
    struct jm_worker *w = (struct jm_worker *) (uintptr_t) job_model_worker(m, x->worker_id);
    struct jm_job *j = live(m, x->job_seq);
    uint64_t tried = j ? j->last_try : 0;
    int64_t until_ms;

    if (!j && !was_given(m, x->job_seq))
        return result(FSM_NOT_FOUND, x->job_seq);
    if (j)
        j->last_try = m->index;
    if (!j || j->state != JM_STATE(PENDING))
        return result(FSM_NOT_PENDING, x->job_seq);
    if (!w || w->lost || w->incarnation != x->worker_incarnation || w->running >= w->slots)
        return result(FSM_WORKER_GONE, j->seq);
    if (job_model_drains(m, w, &until_ms))
        return result(FSM_WORKER_DRAINING, j->seq);
    check_order(m, j, tried);
    check_attempts(m, j);
    j->attempt++;
    j->token = m->index;
    j->worker = w;
    j->started_ms = m->now_ms;
    move(m, j, JM_STATE(RUNNING), false);
    return result(FSM_OK, j->seq);
}

/* ---- reports --------------------------------------------------------------------------------- */

static uint64_t report_key(uint64_t seq, uint64_t token, int outcome) {
    uint64_t facts[] = {seq, token, (uint64_t) outcome};

    return job_model_hash(facts, sizeof(facts));
}

unsigned job_model_report(const struct job_model *m, uint64_t seq, uint64_t token, int outcome) {
    return (unsigned) (uintptr_t) u64map_get(&m->reports, report_key(seq, token, outcome));
}

static struct jm_result note_report(struct job_model *m,
                                    const Chronos__Internal__V1__UpdateJobStatus *x, int code) {
    unsigned had = job_model_report(m, x->job_seq, x->fencing_token, (int) x->outcome);
    unsigned bits = had | (code == FSM_OK ? JM_REPORT_TAKEN : JM_REPORT_STALE);

    if (u64map_put(&m->reports, report_key(x->job_seq, x->fencing_token, (int) x->outcome),
                   (void *) (uintptr_t) bits) < 0)
        m->no_memory = true;
    return result(code, x->job_seq);
}

static bool failed_by(const struct jm_job *j, int reason) {
    return j->state == JM_STATE(FAILED) && j->failure_reason == reason;
}

/* J12: the same again for the attempt that ended the job is fine. */
static bool says_the_same(const struct jm_job *j, const Chronos__Internal__V1__UpdateJobStatus *x) {
    if (x->fencing_token == 0 || x->fencing_token != j->token)
        return false;
    if (x->outcome == OUTCOME(COMPLETED))
        return j->state == JM_STATE(COMPLETED);
    if (x->outcome == OUTCOME(FAILED))
        return failed_by(j, (int) x->reason);
    if (x->outcome == OUTCOME(CANCELLED))
        return j->state == JM_STATE(CANCELLED) || failed_by(j, REASON_IS(SIGNAL));
    if (x->outcome == OUTCOME(RELEASED))
        return j->state == JM_STATE(CANCELLED) ||
               (x->started && j->max_attempts == 1 && failed_by(j, REASON_IS(WORKER_LOST)));
    return false;
}

/* The state a report leads to, 0 = none that is known; *ret_reason for FAILED. */
static int report_leads_to(const struct jm_job *j, const Chronos__Internal__V1__UpdateJobStatus *x,
                           int *ret_reason) {
    *ret_reason = REASON_IS(UNSPECIFIED);
    if (x->outcome == OUTCOME(COMPLETED))
        return JM_STATE(COMPLETED);
    if (x->outcome == OUTCOME(FAILED)) {
        *ret_reason = (int) x->reason;
        return *ret_reason > REASON_IS(UNSPECIFIED) && *ret_reason <= REASON_IS(OUTPUT_LIMIT)
                   ? JM_STATE(FAILED)
                   : 0;
    }
    if (x->outcome != OUTCOME(CANCELLED) && x->outcome != OUTCOME(RELEASED))
        return 0;
    if (j->cancel)
        return JM_STATE(CANCELLED);
    if (x->outcome == OUTCOME(CANCELLED)) {
        *ret_reason = REASON_IS(SIGNAL); /* nobody asked: somebody else killed it */
        return JM_STATE(FAILED);
    }
    if (!x->started || j->max_attempts != 1)
        return JM_STATE(PENDING);
    *ret_reason = REASON_IS(WORKER_LOST); /* J14: it may have had its effect */
    return JM_STATE(FAILED);
}

struct jm_result jm_update(struct job_model *m, const Chronos__Internal__V1__UpdateJobStatus *x) {
    struct jm_job *j = u64map_get(&m->jobs, x->job_seq);
    int to, reason;

    if (!j)
        return note_report(m, x, FSM_NOT_FOUND);
    if (has_ended(j))
        return note_report(m, x, says_the_same(j, x) ? FSM_OK : FSM_STALE);
    if (j->state != JM_STATE(RUNNING) || j->token != x->fencing_token)
        return note_report(m, x, FSM_STALE);
    to = report_leads_to(j, x, &reason);
    if (to == 0)
        return note_report(m, x, FSM_REFUSED);
    if (to == JM_STATE(PENDING)) {
        j->released++;
    } else {
        j->failure_reason = reason;
        j->exit_code = x->exit_code;
        j->term_signal = x->term_signal;
        j->lost += x->outcome == OUTCOME(RELEASED) && to == JM_STATE(FAILED);
    }
    move(m, j, to, false);
    return note_report(m, x, FSM_OK);
}

/* ---- cancels --------------------------------------------------------------------------------- */

static void cancel(struct job_model *m, struct jm_job *j, bool kill, bool by_schedule) {
    if (j->cancel && (j->kill || !kill))
        return; /* nothing new */
    j->cancel = true;
    j->kill = kill;
    move(m, j, j->state == JM_STATE(PENDING) ? JM_STATE(CANCELLED) : JM_STATE(RUNNING),
         by_schedule);
}

struct jm_result jm_cancel(struct job_model *m, uint64_t seq) {
    struct jm_job *j = live(m, seq);

    if (!j)
        return result(u64map_get(&m->jobs, seq) ? FSM_TERMINAL : FSM_NOT_FOUND, seq);
    cancel(m, j, false, false);
    return result(FSM_OK, seq);
}

bool jm_cancel_run(struct job_model *m, uint64_t seq, bool kill) {
    struct jm_job *j = live(m, seq);

    if (!j) {
        jm_wrong(m, "run %llu is cancelled, which does not run", (unsigned long long) seq);
        return false;
    }
    cancel(m, j, kill, true);
    return true;
}

/* ---- workers --------------------------------------------------------------------------------- */

static void lose(struct job_model *m, struct jm_job *j) {
    j->lost++;
    if (j->cancel) {
        move(m, j, JM_STATE(CANCELLED), false); /* J19 */
    } else if (j->lost >= j->max_attempts) {
        j->failure_reason = REASON_IS(WORKER_LOST);
        move(m, j, JM_STATE(FAILED), false);
    } else {
        move(m, j, JM_STATE(PENDING), false);
    }
}

static uint64_t held_token(const Chronos__Internal__V1__RegisterWorkerItem *x, uint64_t seq) {
    uint64_t token = 0;

    for (size_t i = 0; x && i < x->n_held; i++)
        if (x->held[i]->job_seq == seq)
            token = MAX(token, x->held[i]->fencing_token);
    return token;
}

/* All that runs on @w but what @x says it still holds, by number. */
static void lose_running(struct job_model *m, const struct jm_worker *w,
                         const Chronos__Internal__V1__RegisterWorkerItem *x) {
    const struct jm_job *first;

    while (m->oldest_live < m->next_seq &&
           (!(first = u64map_get(&m->jobs, m->oldest_live)) || has_ended(first)))
        m->oldest_live++;
    for (uint64_t seq = m->oldest_live; w->running > 0 && seq < m->next_seq; seq++) {
        struct jm_job *j = u64map_get(&m->jobs, seq);

        if (j && j->state == JM_STATE(RUNNING) && j->worker == w && held_token(x, seq) != j->token)
            lose(m, j);
    }
}

static struct jm_worker *worker_new(struct job_model *m, const char *id) {
    struct jm_worker *w = calloc(1, sizeof(*w)), **at = &m->workers;

    if (!w) {
        m->no_memory = true;
        return NULL;
    }
    (void) snprintf(w->id, sizeof(w->id), "%s", id);
    while (*at && strcmp((*at)->id, id) < 0)
        at = &(*at)->next;
    w->next = *at;
    *at = w;
    return w;
}

struct jm_result jm_register(struct job_model *m,
                             const Chronos__Internal__V1__RegisterWorkerItem *x) {
    struct jm_worker *w = (struct jm_worker *) (uintptr_t) job_model_worker(m, x->worker_id);
    size_t len = strlen(x->worker_id);

    if (len == 0 || len > FSM_WORKER_ID_BYTES_MAX || x->slots == 0 || x->slots > SLOTS_MAX)
        return result(FSM_REFUSED, 0);
    if (w && w->hello && x->hello && w->incarnation == x->incarnation) {
        if (x->hello <= w->hello)
            return result(x->hello == w->hello ? FSM_OK : FSM_STALE, 0);
    } else if (w && x->applied_index && x->applied_index < w->registered_index) {
        return result(FSM_STALE, 0);
    }
    if (!w)
        w = worker_new(m, x->worker_id);
    if (!w)
        return result(FSM_OK, 0);
    lose_running(m, w, x); /* C27, C29 */
    w->incarnation = x->incarnation;
    w->node_id = x->node_id;
    w->slots = x->slots;
    w->lost = false;
    w->registered_index = m->index;
    w->hello = x->hello;
    return result(FSM_OK, 0);
}

struct jm_result jm_lose(struct job_model *m, const Chronos__Internal__V1__LoseWorkerItem *x) {
    struct jm_worker *w = (struct jm_worker *) (uintptr_t) job_model_worker(m, x->worker_id);

    if (!w)
        return result(FSM_NOT_FOUND, 0);
    if (w->lost || w->incarnation != x->incarnation)
        return result(FSM_WORKER_GONE, 0);
    lose_running(m, w, NULL);
    w->lost = true;
    return result(FSM_OK, 0);
}
