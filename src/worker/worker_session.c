/* What the worker says to nodes and does with what they say. The connection itself is session.c. */
#include "worker/lease_clock.h"
#include "worker/worker_impl.h"

#include "base/arena.h"

#include <inttypes.h>
#include <string.h>

#define HELLO_ARENA_BYTES_MAX (16U << 20)

/* --- the hello --- */

/* Attempts that still belong to this worker: not what was discarded. */
static size_t collect_running(struct worker *w, struct arena *a, Chronos__V1__AttemptRef **out) {
    size_t n = 0;

    for (struct held *h = w->first; h; h = h->next) {
        if (attempt_cause(h->attempt) == ATTEMPT_CAUSE_DISCARDED)
            continue;
        out[n] = arena_alloc(a, sizeof(*out[n]));
        if (!out[n])
            return SIZE_MAX;
        ref_to_pb(attempt_ref(h->attempt), out[n]);
        n++;
    }
    return n;
}

static size_t collect_finished(struct worker *w, struct arena *a, Chronos__V1__AttemptRef **out) {
    size_t n = 0;

    for (struct report *r = w->reports.first; r; r = r->next) {
        out[n] = arena_alloc(a, sizeof(*out[n]));
        if (!out[n])
            return SIZE_MAX;
        ref_to_pb(&r->ref, out[n]);
        n++;
    }
    return n;
}

static bool add_labels(struct worker *w, struct arena *a, Chronos__V1__WorkerHello *hello) {
    char *p = w->labels;

    if (w->labels_count == 0)
        return true;
    hello->labels = arena_alloc(a, w->labels_count * sizeof(*hello->labels));
    for (size_t i = 0; hello->labels && i < w->labels_count; i++) {
        Chronos__V1__WorkerHello__LabelsEntry *e = arena_alloc(a, sizeof(*e));

        if (!e)
            return false;
        chronos__v1__worker_hello__labels_entry__init(e);
        e->key = p;
        p += strlen(p) + 1;
        e->value = p;
        p += strlen(p) + 1;
        hello->labels[i] = e;
        hello->n_labels = i + 1;
    }
    return hello->labels != NULL;
}

static struct bytes *build_hello(struct worker *w, struct arena *a) {
    Chronos__V1__WorkerHello hello = CHRONOS__V1__WORKER_HELLO__INIT;
    Chronos__V1__WorkerMessage m = CHRONOS__V1__WORKER_MESSAGE__INIT;
    char version[] = CHRONOS_VERSION;

    hello.worker_id = w->id;
    hello.incarnation = w->incarnation;
    hello.hello = ++w->hellos;
    hello.slots = w->o.slots;
    hello.version = version;
    hello.draining = w->phase != WORKER_RUNNING;
    hello.running = arena_alloc(a, (w->by_ref.count + 1) * sizeof(*hello.running));
    hello.finished = arena_alloc(a, (reports_count(&w->reports) + 1) * sizeof(*hello.finished));
    if (!hello.running || !hello.finished || !add_labels(w, a, &hello))
        return NULL;
    hello.n_running = collect_running(w, a, hello.running);
    hello.n_finished = collect_finished(w, a, hello.finished);
    if (hello.n_running == SIZE_MAX || hello.n_finished == SIZE_MAX)
        return NULL;
    m.body_case = CHRONOS__V1__WORKER_MESSAGE__BODY_HELLO;
    m.hello = &hello;
    return session_pack(&m);
}

static struct bytes *cb_hello(void *arg) {
    struct worker *w = (struct worker *) arg;
    struct arena a;
    struct bytes *b;

    arena_init(&a, HELLO_ARENA_BYTES_MAX);
    b = build_hello(w, &a);
    arena_done(&a);
    return b;
}

/* --- the lease --- */

/* A hello that does not name an attempt makes the node give it to someone else at once, so it must
 * not be said while its processes live; after the lease's end it makes no difference. */
static bool cb_may_connect(void *arg) {
    struct worker *w = (struct worker *) arg;

    for (struct held *h = w->first; h; h = h->next)
        if (h->lease_lost)
            return mono_reached(clock_lease(), lease_end(session_lease(w->session)));
    return true;
}

/* Returns whether an attempt was lost by this call. */
static bool give_up_all(struct worker *w, bool now) {
    size_t count = 0;
    struct held *next;

    for (struct held *h = w->first; h; h = next) {
        next = h->next;
        count += !h->lease_lost;
        h->lease_lost = true;
        if (now)
            attempt_kill(h->attempt, ATTEMPT_CAUSE_DISCARDED);
        else
            attempt_stop(h->attempt, ATTEMPT_CAUSE_DISCARDED, UINT64_MAX);
    }
    if (count > 0)
        log_warn(w->log, "no node has answered for most of a lease; ending all attempts",
                 "attempts=%zu at_once=%s", count, now ? "true" : "false");
    return count > 0;
}

static void on_lease_timer(uv_timer_t *t) {
    worker_check_lease((struct worker *) t->data);
}

static void arm_lease(struct worker *w, struct mono now) {
    struct mono d = lease_deadline(session_lease(w->session), now);

    if (d.ns == MONO_NEVER.ns || !w->first)
        return;
    (void) uv_timer_start(&w->lease_timer, on_lease_timer, mono_diff_ns(d, now) / NS_PER_MS + 1, 0);
}

void worker_check_lease(struct worker *w) {
    struct lease *l = session_lease(w->session);
    struct mono now;

    if (!w->first) /* nothing runs, so nothing can overlap */
        return;
    now = clock_lease();
    switch (lease_check(l, now)) {
    case LEASE_FINE:
        break;
    case LEASE_TERM:
        if (give_up_all(w, false))
            session_abandon(w->session, "the lease runs out");
        break;
    case LEASE_KILL:
        if (give_up_all(w, true))
            session_abandon(w->session, "the lease has run out");
        return; /* all that is left are the attempts' own timers */
    }
    if (!uv_is_active((uv_handle_t *) &w->lease_timer))
        arm_lease(w, now);
}

/* --- messages --- */

static void cb_welcome(void *arg, const Chronos__V1__NodeWelcome *m) {
    struct worker *w = (struct worker *) arg;

    for (size_t i = 0; i < m->n_kill; i++) {
        struct ref ref;

        if (ref_from_pb(m->kill[i], &ref) == 0)
            worker_kill(w, &ref, false, true);
    }
    worker_drain(w, false, 0); /* a drain that still holds is said again, right behind */
    reports_rewind(&w->reports);
    w->blocked = false;
    logread_writable(&w->logread);
}

static void take_acks(struct worker *w, const Chronos__V1__NodeReportAck *m) {
    for (size_t i = 0; i < m->n_results; i++) {
        struct ref ref;

        if (ref_from_pb(m->results[i]->attempt, &ref) == 0)
            worker_acknowledge(w, &ref);
    }
    worker_advance(w);
}

static void cb_message(void *arg, const Chronos__V1__NodeMessage *m) {
    struct worker *w = (struct worker *) arg;
    struct ref ref;

    switch (m->body_case) {
    case CHRONOS__V1__NODE_MESSAGE__BODY_ASSIGN:
        for (size_t i = 0; i < m->assign->n_assignments; i++)
            worker_assign(w, m->assign->assignments[i]);
        if (w->phase != WORKER_RUNNING) /* a new leader does not know yet */
            session_drain(w->session);
        break;
    case CHRONOS__V1__NODE_MESSAGE__BODY_KILL:
        if (ref_from_pb(m->kill->attempt, &ref) == 0)
            worker_kill(w, &ref, m->kill->cancelled, m->kill->now);
        break;
    case CHRONOS__V1__NODE_MESSAGE__BODY_REPORT_ACK:
        take_acks(w, m->report_ack);
        break;
    case CHRONOS__V1__NODE_MESSAGE__BODY_LOG_REQUEST:
        logread_request(&w->logread, m->log_request);
        break;
    case CHRONOS__V1__NODE_MESSAGE__BODY_HEARTBEAT_ACK:
        worker_advance(w); /* it may wait for the leader to know that it is stopping */
        break;
    case CHRONOS__V1__NODE_MESSAGE__BODY_DRAIN:
        worker_drain(w, m->drain->on, m->drain->timeout_ms);
        break;
    case CHRONOS__V1__NODE_MESSAGE__BODY_WELCOME:
    case CHRONOS__V1__NODE_MESSAGE__BODY__NOT_SET: /* of a newer node: ignored */
    case _CHRONOS__V1__NODE_MESSAGE__BODY__CASE_IS_INT_SIZE:
        break;
    }
}

/* --- sending --- */

void worker_flush(struct worker *w) {
    int r;

    if (!w->reports.unsent || w->blocked || session_state(w->session) != SESSION_ACTIVE)
        return;
    worker_check_lease(w);
    while (session_state(w->session) == SESSION_ACTIVE) {
        _cleanup_(bytes_unrefp) struct bytes *b = NULL;

        r = reports_next(&w->reports, &b);
        if (r == 1)
            return;
        if (r < 0) {
            session_abandon(w->session, "no memory");
            return;
        }
        /* 1: the stream is full, or over. Either way on_writable or the next welcome goes on. */
        w->blocked = session_send(w->session, b) != 0;
        if (w->blocked)
            return;
    }
}

static void cb_writable(void *arg) {
    struct worker *w = (struct worker *) arg;

    w->blocked = false;
    worker_flush(w);
    logread_writable(&w->logread);
}

static void cb_lost(void *arg) {
    struct worker *w = (struct worker *) arg;

    logread_clear(&w->logread);
}

static void cb_taken(void *arg, const char *node) {
    struct worker *w = (struct worker *) arg;

    log_error(w->log, "another worker process is connected under this id; ids must be unique",
              "worker=%s node=%s", w->id, node);
}

static uint32_t cb_running(void *arg) {
    return (uint32_t) ((struct worker *) arg)->by_ref.count;
}

static bool cb_draining(void *arg) {
    return ((struct worker *) arg)->phase != WORKER_RUNNING;
}

static void cb_before_event(void *arg) {
    worker_check_lease((struct worker *) arg);
}

const struct session_callbacks worker_session_callbacks = {
    .hello = cb_hello,
    .may_connect = cb_may_connect,
    .running = cb_running,
    .draining = cb_draining,
    .before_event = cb_before_event,
    .on_welcome = cb_welcome,
    .on_message = cb_message,
    .on_writable = cb_writable,
    .on_lost = cb_lost,
    .on_taken = cb_taken,
};

/* --- outputs --- */

static enum logread_source cb_source(void *arg, const struct ref *ref) {
    return worker_find((struct worker *) arg, ref) ? LOGREAD_GROWING : LOGREAD_FINAL;
}

static int cb_send_log(void *arg, const Chronos__V1__WorkerLogData *data) {
    struct worker *w = (struct worker *) arg;
    Chronos__V1__WorkerMessage m = CHRONOS__V1__WORKER_MESSAGE__INIT;

    m.body_case = CHRONOS__V1__WORKER_MESSAGE__BODY_LOG_DATA;
    m.log_data = (Chronos__V1__WorkerLogData *) (uintptr_t) data; /* only read */
    return session_send_pb(w->session, &m);
}

const struct logread_callbacks worker_logread_callbacks = {.source = cb_source,
                                                           .send = cb_send_log};
