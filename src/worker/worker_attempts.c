/* What the worker does with assignments, and with the ends of attempts. */
#include "os/clock.h"
#include "worker/worker_impl.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* --- reporting --- */

/* Keep a report until it is acknowledged. A report that cannot be kept would leave the attempt
 * running for ever in the cluster's eyes; a new session that does not name it tells the truth. */
static void keep_report(struct worker *w, const struct ref *ref, Chronos__V1__AttemptReport *pb,
                        bool journal) {
    Chronos__V1__AttemptRef pb_ref;
    _cleanup_(bytes_unrefp) struct bytes *packed = NULL;
    int r;

    ref_to_pb(ref, &pb_ref);
    pb->attempt = &pb_ref; /* cppcheck-suppress autoVariables; taken back below */
    packed = reports_pack(pb);
    pb->attempt = NULL;
    r = packed ? 0 : -ENOMEM;
    if (r == 0 && journal) {
        r = journal_ended(w->journal, ref, bytes_slice(packed));
        if (r < 0) /* the report lives on in memory; only a crash now would lose it */
            log_error(w->log, "cannot write the journal", "error=\"%s\"", err_name(r));
        r = 0;
    }
    if (r == 0)
        r = reports_add(&w->reports, ref, packed, journal);
    worker_unsettle(w);
    if (r < 0) {
        log_error(w->log, "cannot keep a report", "job=%s attempt=%" PRIu32 " error=\"%s\"",
                  ref->job_id, ref->attempt, err_name(r));
        session_abandon(w->session, "a report was lost");
    }
}

static void report_simple(struct worker *w, const struct ref *ref,
                          Chronos__V1__AttemptOutcome outcome, Chronos__V1__FailureReason reason,
                          const char *message) {
    Chronos__V1__AttemptReport pb = CHRONOS__V1__ATTEMPT_REPORT__INIT;

    pb.outcome = outcome;
    pb.reason = reason;
    pb.message = (char *) (uintptr_t) message; /* only read */
    pb.started_at_ms = pb.finished_at_ms = clock_wall().ms;
    keep_report(w, ref, &pb, false);
}

static void report_released(struct worker *w, const struct ref *ref, const char *why) {
    report_simple(w, ref, CHRONOS__V1__ATTEMPT_OUTCOME__ATTEMPT_OUTCOME_RELEASED,
                  CHRONOS__V1__FAILURE_REASON__FAILURE_REASON_UNSPECIFIED, why);
}

static void report_not_started(struct worker *w, const struct ref *ref, const char *why) {
    report_simple(w, ref, CHRONOS__V1__ATTEMPT_OUTCOME__ATTEMPT_OUTCOME_FAILED,
                  CHRONOS__V1__FAILURE_REASON__FAILURE_REASON_START, why);
}

/* --- the attempts in hand --- */

struct held *worker_find(const struct worker *w, const struct ref *ref) {
    return (struct held *) bytesmap_get(&w->by_ref, ref_key(ref));
}

static int held_add(struct worker *w, const struct ref *ref, struct launch *l) {
    struct held *h = calloc(1, sizeof(*h));
    int r;

    if (!h)
        return -ENOMEM;
    h->w = w;
    r = attempt_new(&w->attempt_env, ref, l, &h->attempt);
    if (r < 0) {
        free(h);
        (void) launch_free(l);
        return r;
    }
    r = bytesmap_put(&w->by_ref, ref_key(attempt_ref(h->attempt)), h);
    if (r < 0) {
        (void) attempt_free(h->attempt);
        free(h);
        return r;
    }
    h->prev = w->last;
    if (w->last)
        w->last->next = h;
    else
        w->first = h;
    w->last = h;
    ASSERT(w->queue_count < w->o.slots);
    w->queue[(w->queue_head + w->queue_count) % w->o.slots] = h;
    w->queue_count++;
    if (!uv_is_active((uv_handle_t *) &w->starter))
        (void) uv_idle_start(&w->starter, worker_on_starter);
    return 0;
}

/* The ring of attempts to start is short and this is rare: a cancel before the start. */
static void queue_remove(struct worker *w, const struct held *h) {
    size_t kept = 0;

    for (size_t i = 0; i < w->queue_count; i++) {
        struct held *x = w->queue[(w->queue_head + i) % w->o.slots];

        if (x != h)
            w->queue[(w->queue_head + kept++) % w->o.slots] = x;
    }
    w->queue_count = kept;
}

void worker_held_free(struct worker *w, struct held *h) {
    (void) bytesmap_del(&w->by_ref, ref_key(attempt_ref(h->attempt)));
    queue_remove(w, h);
    if (h->prev)
        h->prev->next = h->next;
    else
        w->first = h->next;
    if (h->next)
        h->next->prev = h->prev;
    else
        w->last = h->prev;
    (void) attempt_free(h->attempt);
    free(h);
}

/* --- assignments --- */

static bool known(const struct worker *w, const struct ref *ref) {
    return worker_find(w, ref) || reports_find(&w->reports, ref) || seen_has(&w->seen, ref);
}

static void assign_process(struct worker *w, const struct ref *ref,
                           const Chronos__V1__Assignment *a) {
    struct launch *l = NULL;
    struct errtext e = {.s = ""};
    int r;

    if (w->by_ref.count >= w->o.slots) {
        log_error(w->log, "more attempts than slots", "job=%s slots=%" PRIu32, ref->job_id,
                  w->o.slots);
        report_released(w, ref, "the worker has no free slot");
        return;
    }
    r = launch_new(&w->launch_base, ref, a, &l, &e);
    if (r == LAUNCH_E_INVALID) {
        report_not_started(w, ref, e.s);
        return;
    }
    if (r == 0)
        r = seen_add(&w->seen, ref);
    if (r == 0)
        r = held_add(w, ref, TAKE_PTR(l));
    if (r < 0) {
        (void) launch_free(l);
        report_not_started(w, ref, err_name(r));
    }
}

void worker_assign(struct worker *w, const Chronos__V1__Assignment *a) {
    struct ref ref;

    if (ref_from_pb(a->attempt, &ref) != 0 || !a->spec) {
        log_warn(w->log, "an assignment without attempt or job", "%s", "");
        return;
    }
    if (known(w, &ref)) {
        log_debug(w->log, "assignment known already", "job=%s attempt=%" PRIu32, ref.job_id,
                  ref.attempt);
        return;
    }
    if (w->phase != WORKER_RUNNING)
        report_released(w, &ref, "the worker is stopping");
    else if (w->drained)
        report_released(w, &ref, "the worker is drained");
    else if (a->spec->payload_case == CHRONOS__V1__JOB_SPEC__PAYLOAD_NOOP)
        report_simple(w, &ref, CHRONOS__V1__ATTEMPT_OUTCOME__ATTEMPT_OUTCOME_COMPLETED,
                      CHRONOS__V1__FAILURE_REASON__FAILURE_REASON_UNSPECIFIED, "");
    else
        assign_process(w, &ref, a);
}

static void start_one(struct worker *w, struct held *h) {
    const struct ref *ref = attempt_ref(h->attempt);
    int r = journal_starting(w->journal, ref);

    if (r < 0) {
        /* Not the job's fault: another worker has it. This one takes no more until its disk lets a
         * new process of it start; what runs may finish. */
        log_error(w->log, "cannot write the journal; the worker stops", "error=\"%s\"",
                  err_name(r));
        report_released(w, ref, "the worker cannot write its journal");
        worker_held_free(w, h);
        if (w->phase == WORKER_RUNNING)
            worker_stop(w);
        return;
    }
    /* An attempt number may come again after a release; what it wrote then is not this one's. */
    retention_take(&w->retention, attempt_output(h->attempt)->name);
    (void) unlinkat(w->output_fd, attempt_output(h->attempt)->name, 0);
    r = attempt_start(h->attempt);
    if (r != 0) {
        worker_on_ended(w, h->attempt);
        return;
    }
    r = u64map_put(&w->by_pid, (uint64_t) attempt_pid(h->attempt), h);
    if (r < 0) { /* nobody would notice its end */
        log_error(w->log, "cannot follow a process", "error=\"%s\"", err_name(r));
        attempt_kill(h->attempt, ATTEMPT_CAUSE_DISCARDED);
        session_abandon(w->session, "no memory");
        return;
    }
    r = journal_started(w->journal, ref, attempt_pid(h->attempt), attempt_start_time(h->attempt));
    if (r < 0) /* its mark in the environment finds it too */
        log_error(w->log, "cannot write the journal", "error=\"%s\"", err_name(r));
}

void worker_on_starter(uv_idle_t *t) {
    struct worker *w = (struct worker *) t->data;

    worker_check_lease(w);
    for (int i = 0; i < WORKER_STARTS_PER_TURN && w->queue_count > 0; i++) {
        struct held *h = w->queue[w->queue_head];

        w->queue_head = (w->queue_head + 1) % w->o.slots;
        w->queue_count--;
        start_one(w, h);
    }
    if (w->queue_count == 0)
        (void) uv_idle_stop(t);
}

/* --- the ends --- */

bool worker_is_known(void *arg, pid_t pid) {
    return u64map_get(&((struct worker *) arg)->by_pid, (uint64_t) pid) != NULL;
}

static void on_exit_of(void *arg, const struct spawn_exit *e) {
    struct worker *w = (struct worker *) arg;
    struct held *h = (struct held *) u64map_del(&w->by_pid, (uint64_t) e->pid);

    if (h) /* else an orphan of some attempt, which counts for nothing */
        attempt_exited(h->attempt, e);
}

void worker_on_child(uv_signal_t *t, int signum) {
    struct worker *w = (struct worker *) t->data;

    (void) signum;
    /* First, so that an end that happened while this process slept through its lease is not
     * reported as a result. */
    worker_check_lease(w);
    (void) spawn_reap(on_exit_of, w);
}

static void report_ended(struct worker *w, struct attempt *a) {
    Chronos__V1__AttemptReport pb = CHRONOS__V1__ATTEMPT_REPORT__INIT;
    struct output *o = attempt_output(a);
    size_t max = reports_tail_max(&w->reports);
    _cleanup_(freep) uint8_t *tail = malloc(max);

    attempt_report(a, &pb);
    pb.output_bytes = o->total;
    pb.output_truncated = o->truncated;
    if (tail) {
        pb.output_tail.data = tail;
        pb.output_tail.len = output_tail(o, tail, max);
    }
    keep_report(w, attempt_ref(a), &pb, true);
}

void worker_on_ended(void *arg, struct attempt *a) {
    struct worker *w = (struct worker *) arg;
    struct held *h = worker_find(w, attempt_ref(a));
    struct ref ref = *attempt_ref(a);
    struct output *o = attempt_output(a);
    char name[REF_NAME_BYTES_MAX];
    int r = 0;

    ASSERT(h && h->attempt == a);
    ASSERT(attempt_state(a) == ATTEMPT_ENDED);
    if (attempt_cause(a) == ATTEMPT_CAUSE_DISCARDED)
        r = journal_forget(w->journal, &ref);
    else
        report_ended(w, a);
    output_close(o);
    if (r == 0 && o->stored > 0)
        r = retention_add(&w->retention, o->name, o->stored);
    if (r == 0 && attempt_has_directory(a)) {
        ref_name(&ref, name);
        r = sweep_remove(&w->sweep, w->work_fd, name);
    }
    if (r < 0)
        log_warn(w->log, "cannot tidy up after an attempt", "job=%s error=\"%s\"", ref.job_id,
                 err_name(r));
    worker_held_free(w, h);
    logread_wake(&w->logread, &ref);
    worker_advance(w);
}

void worker_on_output(void *arg, struct attempt *a) {
    struct worker *w = (struct worker *) arg;

    logread_wake(&w->logread, attempt_ref(a));
}

void worker_acknowledge(struct worker *w, const struct ref *ref) {
    bool journaled = false;
    int r = reports_forget(&w->reports, ref, &journaled);

    if (r != 0 || !journaled)
        return;
    r = journal_forget(w->journal, ref);
    if (r < 0)
        log_warn(w->log, "cannot write the journal", "error=\"%s\"", err_name(r));
}

void worker_kill(struct worker *w, const struct ref *ref, bool cancelled, bool now) {
    struct held *h = worker_find(w, ref);

    if (h && cancelled && now)
        attempt_kill(h->attempt, ATTEMPT_CAUSE_CANCELLED);
    else if (h && cancelled)
        attempt_stop(h->attempt, ATTEMPT_CAUSE_CANCELLED, UINT64_MAX);
    else if (h)
        attempt_kill(h->attempt, ATTEMPT_CAUSE_DISCARDED);
    else if (!cancelled)
        worker_acknowledge(w, ref); /* ended meanwhile: nobody wants the report */
}

void worker_stop_all(struct worker *w, enum attempt_cause cause, uint64_t grace_ms_max) {
    struct held *next;

    for (struct held *h = w->first; h; h = next) {
        next = h->next; /* one that was not started ends inside the call */
        attempt_stop(h->attempt, cause, grace_ms_max);
    }
}
