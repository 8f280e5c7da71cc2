/* A fake worker over the node's real half of the worker protocol. */
#include "sim/checker_model.h"

#include "fsm/job_id.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define HELD_MAX 256

static void wake_in(struct sim_worker *wk, uint64_t ns) {
    sim_push(wk->world, ns, SIM_WORKER_WAKE, wk->slot, 0, 0, NULL);
}

/* ---- stream ---------------------------------------------------------------------------------- */

/* node -> worker, in order, after a while */
static int session_send(void *arg, struct bytes *message) {
    struct sim_worker *wk = arg;
    struct world *w = wk->world;
    uint64_t at = w->now_ns + rng_range(&w->rng, 10 * NS_PER_US, 3 * NS_PER_MS);

    wk->to_worker_at = at = MAX(at, wk->to_worker_at + 1);
    sim_push(w, at - w->now_ns, SIM_TO_WORKER, wk->slot, 0, wk->session_gen, message);
    return 0;
}

static void session_end(void *arg, int code, const char *message) {
    struct sim_worker *wk = arg;

    sim_trace(wk->world, "worker %s: stream ended by node %u: %d %s", wk->id, wk->node + 1, code,
              message);
    wk->session_ended = true;
    wake_in(wk, rng_range(&wk->world->rng, NS_PER_MS, 200 * NS_PER_MS));
}

static const struct worker_session_ops session_ops = {.send = session_send, .end = session_end};

static void send_to_node(struct sim_worker *wk, const Chronos__V1__WorkerMessage *m) {
    struct world *w = wk->world;
    struct bytes *b = bytes_new(chronos__v1__worker_message__get_packed_size(m));
    uint64_t at = w->now_ns + rng_range(&w->rng, 10 * NS_PER_US, 3 * NS_PER_MS);

    ASSERT(b);
    (void) chronos__v1__worker_message__pack(m, b->data);
    wk->from_worker_at = at = MAX(at, wk->from_worker_at + 1);
    sim_push(w, at - w->now_ns, SIM_FROM_WORKER, wk->slot, wk->node, wk->session_gen, b);
}

static void drop_session(struct sim_worker *wk) {
    lease_drop_pending(&wk->lease);
    wk->session = worker_session_free(wk->session);
    wk->session_gen++;
    wk->session_ended = false;
    wk->welcomed = false;
}

void sim_worker_node_gone(struct sim_worker *wk) {
    drop_session(wk);
    wake_in(wk, rng_range(&wk->world->rng, NS_PER_MS, 300 * NS_PER_MS));
}

static void ref_fill(Chronos__V1__AttemptRef *ref, char id[JOB_ID_BYTES_MAX],
                     const struct sim_attempt *a) {
    chronos__v1__attempt_ref__init(ref);
    job_id_format(a->seq, id);
    ref->job_id = id;
    ref->attempt = a->attempt;
    ref->fencing_token = a->token;
}

static void connect(struct sim_worker *wk) {
    struct world *w = wk->world;
    Chronos__V1__WorkerMessage m = CHRONOS__V1__WORKER_MESSAGE__INIT;
    Chronos__V1__WorkerHello h = CHRONOS__V1__WORKER_HELLO__INIT;
    Chronos__V1__AttemptRef refs[HELD_MAX], *running[HELD_MAX];
    char ids[HELD_MAX][JOB_ID_BYTES_MAX];
    unsigned node = (unsigned) rng_below(&w->rng, w->nodes_count);

    if (rng_chance(&w->rng, 700) && wk->slot < w->nodes_count)
        node = wk->slot; /* mostly its own */
    if (!w->nodes[node].up || !w->nodes[node].joined || w->nodes[node].broken ||
        worker_session_new(w->nodes[node].replica, &session_ops, wk, &wk->session) != 0) {
        wake_in(wk, rng_range(&w->rng, 10 * NS_PER_MS, 500 * NS_PER_MS));
        return;
    }
    wk->node = node;
    wk->beats = 0;
    wk->hello_sent = sim_clock_worker(wk);
    wk->next_beat = w->now_ns + wk->world->beat_ns;
    wake_in(wk, wk->world->beat_ns);
    h.worker_id = wk->id;
    h.incarnation = wk->incarnation;
    h.hello = ++wk->hellos;
    h.slots = wk->slots;
    h.running = running;
    for (struct sim_attempt *a = wk->attempts; a; a = a->next) {
        ASSERT(h.n_running < ARRAY_LEN(refs));
        if (a->late)
            continue;
        ref_fill(&refs[h.n_running], ids[h.n_running], a);
        running[h.n_running] = &refs[h.n_running];
        h.n_running++;
    }
    m.body_case = CHRONOS__V1__WORKER_MESSAGE__BODY_HELLO;
    m.hello = &h;
    send_to_node(wk, &m);
}

/* ---- attempts -------------------------------------------------------------------------------- */

static struct sim_attempt *attempt_find(struct sim_worker *wk, uint64_t seq, uint64_t token) {
    for (struct sim_attempt *a = wk->attempts; a; a = a->next)
        if (a->seq == seq && a->token == token)
            return a;
    return NULL;
}

static void attempt_drop(struct sim_worker *wk, struct sim_attempt *a) {
    struct sim_attempt **p = &wk->attempts;

    if (!a)
        return;
    while (*p != a)
        p = &(*p)->next;
    *p = a->next;
    free(a);
}

/* ---- the lease (as in worker/worker_session.c) ------------------------------------------------
 */

static bool runs(const struct sim_worker *wk) {
    for (const struct sim_attempt *a = wk->attempts; a; a = a->next)
        if (!a->ended)
            return true;
    return false;
}

/* One wake-up is under way at a time: a lease that is renewed ends later than it did. */
static void arm_lease(struct sim_worker *wk) {
    struct mono now = sim_clock_worker(wk);
    uint64_t ns;

    if (wk->lease_wake_at > wk->world->now_ns || !wk->lease.held || !runs(wk))
        return;
    ns = sim_clock_worker_until(wk, lease_deadline(&wk->lease, now));
    wk->lease_wake_at = wk->world->now_ns + ns;
    wake_in(wk, ns);
}

/* What runs is asked to end when the lease is nearly over, and none of it does (trap '' TERM); then
 * it is killed. The stream is left meanwhile: a hello that does not name an attempt that lives
 * would have the node give it to another worker. */
static void check_lease(struct sim_worker *wk) {
    struct mono now = sim_clock_worker(wk);
    enum lease_verdict verdict = lease_check(&wk->lease, now);
    struct sim_attempt *next;
    bool lost = false;

    wk->stopped = false;
    for (struct sim_attempt *a = wk->attempts; verdict != LEASE_FINE && a; a = next) {
        next = a->next;
        if (a->ended)
            continue; /* nothing of it runs; its report is owed */
        if (!a->lease_lost)
            sim_count(wk->world, SIM_STAT_LEASES_OVER);
        a->lease_lost = lost = true;
        if (verdict == LEASE_KILL) {
            sim_trace(wk->world, "worker %s: ends job %llu, its lease is over", wk->id,
                      (unsigned long long) a->seq);
            attempt_drop(wk, a);
        }
    }
    if (lost && wk->session)
        drop_session(wk);
    arm_lease(wk);
}

static bool has_lost(const struct sim_worker *wk) {
    for (const struct sim_attempt *a = wk->attempts; a; a = a->next)
        if (a->lease_lost && !a->ended)
            return true;
    return false;
}

static bool ref_parse(const Chronos__V1__AttemptRef *ref, uint64_t *seq) {
    return ref && job_id_parse(ref->job_id, seq) == 0;
}

/* A node that was behind delivers what was given to others since: production asks its lease before
 * it starts anything (worker_on_starter), and leaves. */
static void late_assignment(struct sim_worker *wk, uint64_t seq) {
    sim_trace(wk->world, "worker %s: does not begin job %llu, its lease is over", wk->id,
              (unsigned long long) seq);
    sim_count(wk->world, SIM_STAT_ASSIGNED_LATE);
    if (wk->session)
        drop_session(wk);
    wake_in(wk, NS_PER_MS);
}

static void assign(struct sim_worker *wk, const Chronos__V1__NodeAssign *list) {
    struct world *w = wk->world;

    for (size_t i = 0; i < list->n_assignments; i++) {
        const Chronos__V1__AttemptRef *ref = list->assignments[i]->attempt;
        struct sim_attempt *a;
        uint64_t seq = 0, ns;

        if (!ref_parse(ref, &seq)) {
            sim_fail(w, "worker %s got an assignment without a job id", wk->id);
            return;
        }
        if (attempt_find(wk, seq, ref->fencing_token))
            continue;
        if (lease_check(&wk->lease, sim_clock_worker(wk)) != LEASE_FINE) {
            late_assignment(wk, seq);
            return;
        }
        checker_started(w, wk, seq, ref->attempt, ref->fencing_token);
        a = calloc(1, sizeof(*a));
        ASSERT(a);
        ns = !w->healing && rng_chance(&w->rng, w->long_permille)
                 ? rng_range(&w->rng, NS_PER_MS, 2 * w->lease_ns)
                 : rng_range(&w->rng, 10 * NS_PER_US, 30 * NS_PER_MS);
        *a = (struct sim_attempt){.next = wk->attempts,
                                  .seq = seq,
                                  .attempt = ref->attempt,
                                  .token = ref->fencing_token,
                                  .ends_at = w->now_ns + ns};
        wk->attempts = a;
        arm_lease(wk);
        sim_trace(w, "worker %s: runs job %llu for %llu us", wk->id, (unsigned long long) seq,
                  (unsigned long long) (ns / NS_PER_US));
        wake_in(wk, ns);
    }
}

static void kill_attempt(struct sim_worker *wk, const Chronos__V1__AttemptRef *ref,
                         bool cancelled) {
    struct sim_attempt *a;
    uint64_t seq = 0;

    if (!ref_parse(ref, &seq))
        return;
    a = attempt_find(wk, seq, ref->fencing_token);
    if (!a)
        return;
    if (!cancelled) {
        /* Its report may be on the way already: then it arrives although nobody waits for it. */
        if (!a->ended && rng_chance(&wk->world->rng, 500)) {
            attempt_drop(wk, a);
            return;
        }
        a->late = true;
    }
    if (!a->ended) {
        a->outcome = cancelled ? CHRONOS__V1__ATTEMPT_OUTCOME__ATTEMPT_OUTCOME_CANCELLED
                               : CHRONOS__V1__ATTEMPT_OUTCOME__ATTEMPT_OUTCOME_COMPLETED;
        a->ended = true;
    }
    wake_in(wk, NS_PER_MS);
}

/* It ran to its end; sometimes the worker gives it back unrun. */
static void attempt_ends(struct sim_worker *wk, struct sim_attempt *a) {
    struct world *w = wk->world;

    a->ended = true;
    if (!w->healing && rng_chance(&w->rng, 20)) {
        a->outcome = CHRONOS__V1__ATTEMPT_OUTCOME__ATTEMPT_OUTCOME_RELEASED;
        a->started = rng_chance(&w->rng, 500); /* stopped on the way, for a drain */
    } else
        a->outcome = a->seq % 7 == 0 ? CHRONOS__V1__ATTEMPT_OUTCOME__ATTEMPT_OUTCOME_FAILED
                                     : CHRONOS__V1__ATTEMPT_OUTCOME__ATTEMPT_OUTCOME_COMPLETED;
}

static void report_recorded(struct sim_worker *wk, const struct sim_attempt *a, bool stale) {
    struct history_op *op = checker_history_ok(wk->world, a->history, 0);

    checker_model_reported(wk->world, wk, a->seq, a->token, a->outcome, stale);
    if (op)
        op->result = stale ? HISTORY_STALE : HISTORY_DONE;
}

static void record_report(struct sim_worker *wk, struct sim_attempt *a) {
    static const enum history_state outcomes[] = {
        [CHRONOS__V1__ATTEMPT_OUTCOME__ATTEMPT_OUTCOME_UNSPECIFIED] = HISTORY_S_NONE,
        [CHRONOS__V1__ATTEMPT_OUTCOME__ATTEMPT_OUTCOME_COMPLETED] = HISTORY_S_COMPLETED,
        [CHRONOS__V1__ATTEMPT_OUTCOME__ATTEMPT_OUTCOME_FAILED] = HISTORY_S_FAILED,
        [CHRONOS__V1__ATTEMPT_OUTCOME__ATTEMPT_OUTCOME_CANCELLED] = HISTORY_S_CANCELLED,
        [CHRONOS__V1__ATTEMPT_OUTCOME__ATTEMPT_OUTCOME_RELEASED] = HISTORY_S_RELEASED,
    };
    struct world *w = wk->world;
    struct history_op *op;

    if (a->history != 0)
        return; /* the same report once more */
    a->history = checker_history_call(w, SIM_CLIENTS_MAX + wk->slot, HISTORY_REPORT);
    op = checker_history_op(w, a->history);
    if (!op)
        return;
    op->job = checker_history_name(w, 'j', a->seq);
    op->attempt = a->attempt;
    op->attempt_known = true;
    op->state = outcomes[a->outcome];
}

static void report_acked(struct sim_worker *wk, const Chronos__V1__ReportResult *res) {
    struct sim_attempt *a;
    uint64_t seq = 0;

    if (!ref_parse(res->attempt, &seq))
        return;
    a = attempt_find(wk, seq, res->attempt->fencing_token);
    if (a)
        report_recorded(wk, a, res->stale);
    if (res->stale)
        sim_count(wk->world, SIM_STAT_STALE_REPORTS);
    else if (a && a->outcome != CHRONOS__V1__ATTEMPT_OUTCOME__ATTEMPT_OUTCOME_RELEASED)
        checker_result_acked(wk->world, a);
    attempt_drop(wk, a);
}

void sim_worker_receive(struct sim_worker *wk, struct bytes *message) {
    struct world *w = wk->world;
    Chronos__V1__NodeMessage *m;

    if (w->now_ns < wk->silent_until) { /* it waits in the socket, behind what waits already */
        wk->to_worker_at = MAX(wk->to_worker_at, wk->silent_until) + 1;
        sim_push(w, wk->to_worker_at - w->now_ns, SIM_TO_WORKER, wk->slot, 0, wk->session_gen,
                 bytes_ref(message));
        return;
    }
    check_lease(wk);
    if (!wk->session)
        return; /* left just now */
    m = chronos__v1__node_message__unpack(NULL, message->len, message->data);
    if (!m) {
        sim_fail(wk->world, "worker %s got a malformed message", wk->id);
        return;
    }
    if (m->body_case == CHRONOS__V1__NODE_MESSAGE__BODY_WELCOME) {
        wk->welcomed = true;
        lease_welcome(&wk->lease, wk->hello_sent, m->welcome->lease_ms);
        for (size_t i = 0; i < m->welcome->n_kill; i++)
            kill_attempt(wk, m->welcome->kill[i], false);
        wake_in(wk, 0);
    } else if (m->body_case == CHRONOS__V1__NODE_MESSAGE__BODY_ASSIGN) {
        assign(wk, m->assign);
    } else if (m->body_case == CHRONOS__V1__NODE_MESSAGE__BODY_KILL) {
        kill_attempt(wk, m->kill->attempt, m->kill->cancelled);
    } else if (m->body_case == CHRONOS__V1__NODE_MESSAGE__BODY_HEARTBEAT_ACK) {
        lease_acked(&wk->lease, m->heartbeat_ack->sequence);
    } else if (m->body_case == CHRONOS__V1__NODE_MESSAGE__BODY_REPORT_ACK) {
        for (size_t i = 0; i < m->report_ack->n_results; i++)
            report_acked(wk, m->report_ack->results[i]);
    }
    chronos__v1__node_message__free_unpacked(m, NULL);
}

static void report(struct sim_worker *wk, struct sim_attempt *a) {
    Chronos__V1__WorkerMessage m = CHRONOS__V1__WORKER_MESSAGE__INIT;
    Chronos__V1__WorkerReports list = CHRONOS__V1__WORKER_REPORTS__INIT;
    Chronos__V1__AttemptReport r = CHRONOS__V1__ATTEMPT_REPORT__INIT, *reports[] = {&r};
    Chronos__V1__AttemptRef ref;
    char id[JOB_ID_BYTES_MAX];

    ref_fill(&ref, id, a);
    r.attempt = &ref;
    r.outcome = (Chronos__V1__AttemptOutcome) a->outcome;
    if (r.outcome == CHRONOS__V1__ATTEMPT_OUTCOME__ATTEMPT_OUTCOME_FAILED) {
        r.reason = CHRONOS__V1__FAILURE_REASON__FAILURE_REASON_EXIT_CODE;
        r.exit_code = 3;
    }
    r.started = a->started;
    list.reports = reports;
    list.n_reports = 1;
    record_report(wk, a);
    m.body_case = CHRONOS__V1__WORKER_MESSAGE__BODY_REPORTS;
    m.reports = &list;
    send_to_node(wk, &m);
    a->reported_on =
        wk->session_gen + 1; /* again only on a new stream: the node answers or ends it */
}

void sim_worker_wake(struct sim_worker *wk) {
    struct world *w = wk->world;

    if (!wk->up)
        return;
    if (w->now_ns < wk->silent_until) {
        wake_in(wk, wk->silent_until - w->now_ns);
        return;
    }
    check_lease(wk);
    for (struct sim_attempt *a = wk->attempts; a; a = a->next)
        if (!a->ended && !a->lease_lost && w->now_ns >= a->ends_at)
            attempt_ends(wk, a);
    if (wk->session && wk->session_ended)
        drop_session(wk);
    if (!wk->session) {
        if (!has_lost(wk))
            connect(wk);
        return;
    }
    if (!wk->welcomed)
        return;
    for (struct sim_attempt *a = wk->attempts; a; a = a->next)
        if (a->ended && a->reported_on != wk->session_gen + 1)
            report(wk, a);
    if (w->now_ns >= wk->next_beat) {
        Chronos__V1__WorkerMessage m = CHRONOS__V1__WORKER_MESSAGE__INIT;
        Chronos__V1__WorkerHeartbeat b = CHRONOS__V1__WORKER_HEARTBEAT__INIT;

        m.body_case = CHRONOS__V1__WORKER_MESSAGE__BODY_HEARTBEAT;
        m.heartbeat = &b;
        b.sequence = ++wk->beats;
        lease_sent(&wk->lease, b.sequence, sim_clock_worker(wk));
        send_to_node(wk, &m);
        wk->next_beat = w->now_ns + wk->world->beat_ns;
        wake_in(wk, wk->world->beat_ns);
    }
}

void sim_worker_start(struct sim_worker *wk) {
    wk->up = true;
    wk->silent_until = 0;
    wk->stopped = false;
    lease_init(&wk->lease);
    wk->incarnation = rng_next(&wk->world->rng) | 1;
    wake_in(wk, rng_range(&wk->world->rng, 0, 100 * NS_PER_MS));
    wake_in(wk, wk->world->beat_ns);
}

/* kill -9: all attempts die with it; it comes back as another incarnation that holds none. */
void sim_worker_kill(struct sim_worker *wk) {
    sim_trace(wk->world, "worker %s: killed", wk->id);
    sim_worker_free(wk);
    sim_worker_start(wk);
}

void sim_worker_free(struct sim_worker *wk) {
    if (wk->session)
        drop_session(wk);
    while (wk->attempts)
        attempt_drop(wk, wk->attempts);
    wk->up = false;
}
