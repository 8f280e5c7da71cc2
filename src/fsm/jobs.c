/* Jobs that have not ended: memory, the ready list, the workers' lists, and the one setter.
 *
 * Invariants: a PENDING job is in the ready list, a RUNNING one in its worker's, both ascending by
 * sequence number; a job that ends leaves memory, its record stays.
 * Thread: the loop. */
#include "fsm/fsm_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#define SLAB_JOBS 256

static const char lost_message[] = "the worker was lost with the last attempt";

struct job_slab {
    struct job_slab *next;
    struct fsm_job jobs[SLAB_JOBS];
};

static int slab_add(struct fsm *f) {
    struct job_slab *s = calloc(1, sizeof(*s));

    if (!s)
        return -ENOMEM;
    s->next = f->slabs;
    f->slabs = s;
    for (size_t i = SLAB_JOBS; i > 0; i--) {
        s->jobs[i - 1].ready_next = f->free_jobs;
        f->free_jobs = &s->jobs[i - 1];
    }
    return 0;
}

struct fsm_job *jobs_new(struct fsm *f, uint64_t seq) {
    struct fsm_job *j;

    ASSERT(seq > 0);
    ASSERT(!u64map_get(&f->jobs, seq));
    if (!f->free_jobs && slab_add(f) < 0)
        return NULL;
    j = f->free_jobs;
    if (u64map_put(&f->jobs, seq, j) < 0)
        return NULL;
    f->free_jobs = j->ready_next;
    *j = (struct fsm_job){.seq = seq, .state = S_NONE};
    return j;
}

static void job_drop(struct fsm *f, struct fsm_job *j) {
    void *was = u64map_del(&f->jobs, j->seq);

    ASSERT(was == j);
    ASSERT(!j->worker);
    *j = (struct fsm_job){.ready_next = f->free_jobs};
    f->free_jobs = j;
}

void jobs_free_all(struct fsm *f) {
    ASSERT(f);
    while (f->slabs) {
        struct job_slab *s = f->slabs;

        f->slabs = s->next;
        free(s);
    }
    f->free_jobs = NULL;
    u64map_done(&f->jobs);
}

/* A job given back keeps its place (J20). New jobs go to the end at once; one that comes back is
 * older than all but other returned ones, so the walk from the front, or from the last one put
 * back, is short. */
static void ready_insert(struct fsm *f, struct fsm_job *j) {
    struct fsm_job *before = f->ready_last; /* j goes behind it; NULL = to the front */

    ASSERT(!j->ready_prev);
    ASSERT(!j->ready_next);
    if (before && before->seq > j->seq) {
        struct fsm_job *next = f->ready_first;

        if (f->ready_hint && f->ready_hint->seq < j->seq)
            next = f->ready_hint;
        while (next->seq < j->seq)
            next = next->ready_next;
        before = next->ready_prev;
        f->ready_hint = j;
    }
    j->ready_prev = before;
    j->ready_next = before ? before->ready_next : f->ready_first;
    if (before)
        before->ready_next = j;
    else
        f->ready_first = j;
    if (j->ready_next)
        j->ready_next->ready_prev = j;
    else
        f->ready_last = j;
}

static void ready_remove(struct fsm *f, struct fsm_job *j) {
    ASSERT(j->ready_prev || f->ready_first == j);
    ASSERT(j->ready_next || f->ready_last == j);
    if (f->ready_hint == j)
        f->ready_hint = j->ready_prev;
    if (j->ready_prev)
        j->ready_prev->ready_next = j->ready_next;
    else
        f->ready_first = j->ready_next;
    if (j->ready_next)
        j->ready_next->ready_prev = j->ready_prev;
    else
        f->ready_last = j->ready_prev;
    j->ready_prev = j->ready_next = NULL;
}

static void worker_insert(struct fsm_worker *w, struct fsm_job *j) {
    struct fsm_job *before = w->last_job;

    ASSERT(!j->worker_prev);
    ASSERT(!j->worker_next);
    while (before && before->seq > j->seq)
        before = before->worker_prev;
    j->worker_prev = before;
    j->worker_next = before ? before->worker_next : w->first_job;
    if (before)
        before->worker_next = j;
    else
        w->first_job = j;
    if (j->worker_next)
        j->worker_next->worker_prev = j;
    else
        w->last_job = j;
    w->running++;
}

static void worker_remove(struct fsm_job *j) {
    struct fsm_worker *w = j->worker;

    ASSERT(w);
    ASSERT(w->running > 0);
    if (j->worker_prev)
        j->worker_prev->worker_next = j->worker_next;
    else
        w->first_job = j->worker_next;
    if (j->worker_next)
        j->worker_next->worker_prev = j->worker_prev;
    else
        w->last_job = j->worker_prev;
    j->worker_prev = j->worker_next = NULL;
    j->worker = NULL;
    w->running--;
}

void jobs_link(struct fsm *f, struct fsm_job *j) {
    ASSERT(j->state == S_PENDING || j->state == S_RUNNING);
    ASSERT((j->state == S_RUNNING) == (j->worker != NULL));
    if (j->state == S_PENDING)
        ready_insert(f, j);
    else
        worker_insert(j->worker, j);
}

const char *jobs_name(struct fsm *f, struct slice s) {
    char *p;

    ASSERT(f);
    if (s.len == 0)
        return "";
    p = arena_alloc(&f->arena, s.len + 1);
    if (!p)
        return NULL;
    memcpy(p, s.data, s.len);
    p[s.len] = '\0';
    ASSERT(p[0] != '\0');
    return p;
}

static int emit(struct fsm *f, Chronos__V1__JobState from, const struct fsm_job *j,
                const struct record_job *rec) {
    const char *worker_id = jobs_name(f, rec->worker_id);

    ASSERT(rec->state > 0);
    if (!worker_id)
        return -ENOMEM;
    if (f->output.events_count == f->events_cap) {
        size_t cap = f->events_cap ? f->events_cap * 2 : 64;
        struct fsm_event *events = realloc(f->events, cap * sizeof(*events));

        if (!events)
            return -ENOMEM;
        f->events = events;
        f->events_cap = cap;
    }
    f->events[f->output.events_count++] = (struct fsm_event){
        .job_seq = j->seq,
        .from = from,
        .to = (Chronos__V1__JobState) rec->state,
        .attempt = rec->attempt,
        .worker_id = worker_id,
        .fencing_token = rec->fencing_token,
        .cancel_requested = rec->cancel_requested,
        .kill = rec->kill,
        .failure_reason = (Chronos__V1__FailureReason) rec->failure_reason,
        .exit_code = rec->exit_code,
        .term_signal = rec->term_signal,
        .released_attempts = rec->released_attempts,
    };
    return 0;
}

int jobs_transition(struct fsm *f, struct apply *a, struct fsm_job *j, struct record_job *rec,
                    struct overlay_entry *e, enum job_event event) {
    Chronos__V1__JobState from = j->state, to = job_state_next(from, event);
    struct fsm_worker *worker = j->worker; /* ASSIGN: set by the caller */
    int r;

    ASSERT(to != S_NONE);
    ASSERT((Chronos__V1__JobState) rec->state == from);
    if (from == S_PENDING && to != from)
        ready_remove(f, j);
    if (from == S_RUNNING && to != from)
        worker_remove(j);
    if (from != S_NONE)
        f->counts[from]--;
    f->counts[to]++;
    j->state = to;
    rec->state = (int32_t) to;
    rec->updated_index = a->index;
    if (to != from && !job_state_is_terminal(to)) {
        j->worker = to == S_RUNNING ? worker : NULL;
        jobs_link(f, j);
    }
    if (job_state_is_terminal(to))
        rec->finished_at_ms = a->now_ms;
    r = record_encode(&record_shape_job, rec, &f->encode);
    if (r == 0)
        r = store_put(f, e, slice_of(f->encode.data, f->encode.len));
    if (r == 0)
        r = emit(f, from, j, rec);
    if (r == 0 && job_state_is_terminal(to)) {
        uint64_t seq = j->seq;

        j->worker = NULL; /* cancelled while pending: it never had one */
        job_drop(f, j);
        if (rec->schedule_seq > 0)
            r = schedules_run_ended(f, a, rec->schedule_seq, seq, to);
    }
    return r;
}

static int corrupt(struct apply *a, uint64_t seq, const char *what) {
    errtext_set(a->err, "record of job %" PRIu64 ": %s", seq, what);
    return ERR_CORRUPT;
}

int jobs_load(struct fsm *f, struct apply *a, const struct fsm_job *j, struct record_job *ret,
              struct overlay_entry **ret_entry) {
    uint8_t key[RECORD_JOB_KEY_BYTES];
    size_t at = 0;
    int r;

    ASSERT(j && j->seq > 0);
    r = store_open(f, record_job_key(j->seq, key), ret_entry);
    if (r < 0)
        return r;
    if (!(*ret_entry)->exists)
        return corrupt(a, j->seq, "missing from the store");
    if (record_decode(&record_shape_job, overlay_value(*ret_entry), ret, &at) < 0)
        return corrupt(a, j->seq, "malformed");
    if ((Chronos__V1__JobState) ret->state != j->state ||
        ret->cancel_requested != j->cancel_requested)
        return corrupt(a, j->seq, "of another state than it was written with");
    return 0;
}

int jobs_read_ended(struct fsm *f, struct apply *a, uint64_t seq, struct record_job *ret) {
    uint8_t key[RECORD_JOB_KEY_BYTES];
    struct slice bytes;
    size_t at = 0;
    int r;

    ASSERT(!u64map_get(&f->jobs, seq));
    if (seq == 0 || seq >= f->next_seq)
        return STORE_NOT_FOUND;
    r = store_read(f, record_job_key(seq, key), &bytes);
    if (r != 0)
        return r;
    if (record_decode(&record_shape_job, bytes, ret, &at) < 0)
        return corrupt(a, seq, "malformed");
    if (!job_state_is_terminal((Chronos__V1__JobState) ret->state))
        return corrupt(a, seq, "has not ended, but is none of the unfinished");
    return 0;
}

int jobs_create(struct fsm *f, struct apply *a, struct record_job *rec, uint64_t *ret_seq) {
    uint8_t key[RECORD_JOB_KEY_BYTES];
    uint64_t seq = f->next_seq;
    struct overlay_entry *e;
    struct fsm_job *j;
    int r;

    ASSERT(seq > 0);
    ASSERT(rec->state == 0);
    r = store_create(f, record_job_key(seq, key), &e);
    if (r < 0)
        return r;
    j = jobs_new(f, seq);
    if (!j)
        return -ENOMEM;
    f->next_seq++;
    if (rec->max_attempts == 0)
        rec->max_attempts = FSM_MAX_ATTEMPTS_DEFAULT;
    rec->created_at_ms = a->now_ms;
    rec->created_index = a->index;
    j->max_attempts = rec->max_attempts;
    *ret_seq = seq;
    return jobs_transition(f, a, j, rec, e, JOB_EVENT_SUBMIT);
}

int jobs_cancel(struct fsm *f, struct apply *a, struct fsm_job *j, bool kill) {
    struct overlay_entry *e;
    struct record_job rec;
    int r;

    ASSERT(j);
    if (j->cancel_requested && (j->kill || !kill))
        return 0; /* asked before: no second event */
    r = jobs_load(f, a, j, &rec, &e);
    if (r < 0)
        return r;
    ASSERT((Chronos__V1__JobState) rec.state == j->state);
    ASSERT(rec.cancel_requested == j->cancel_requested);
    rec.cancel_requested = j->cancel_requested = true;
    rec.kill = j->kill = kill;
    return jobs_transition(f, a, j, &rec, e, JOB_EVENT_CANCEL);
}

int jobs_lose(struct fsm *f, struct apply *a, struct fsm_job *j) {
    enum job_event event = JOB_EVENT_LOSE_RETRY;
    struct overlay_entry *e;
    struct record_job rec;
    int r;

    ASSERT(j->state == S_RUNNING);
    ASSERT(j->worker);
    r = jobs_load(f, a, j, &rec, &e);
    if (r < 0)
        return r;
    rec.lost_attempts++;
    /* J19: a cancelled job gets no new attempt. J15: lost attempts count, released ones do not. */
    if (rec.cancel_requested) {
        event = JOB_EVENT_LOSE_CANCELLED;
    } else if (rec.lost_attempts >= rec.max_attempts) {
        event = JOB_EVENT_LOSE_FINAL;
        rec.failure_reason = CHRONOS__V1__FAILURE_REASON__FAILURE_REASON_WORKER_LOST;
        rec.failure_message = slice_of(lost_message, sizeof(lost_message) - 1);
    }
    return jobs_transition(f, a, j, &rec, e, event);
}
