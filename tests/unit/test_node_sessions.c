/* The node's half of the worker protocol: hello, assignments, reports, heartbeats, leases. */
#include "node_world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "node/replica_internal.h"

#include "log_commands.h"
#include "fsm/job_id.h"

#define MSG(kind) CHRONOS__V1__NODE_MESSAGE__BODY_##kind

/* Goal: a hello with a wrong field ends the stream with INVALID_ARGUMENT and registers nothing; so
 * do malformed bytes, and a second hello. Method: one stream for each. */
static void test_hello_is_checked(void **state) {
    static const struct {
        const char *id;
        uint64_t incarnation;
        uint32_t slots;
    } bad[] = {
        {"", 1, 1},
        {"a b", 1, 1},
        {"w", 0, 1},
        {"w", 1, 0},
        {"w", 1, 10001},
        {"x2345678901234567890123456789012345678901234567890123456789012345", 1, 1},
    };
    static const uint8_t garbage[] = {0xff, 0xff, 0xff};
    struct node_world w;
    struct stream s;

    (void) state;
    (void) node_world_begin(&w, 1);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        stream_open(&s, w.nodes[0].replica);
        stream_hello(&s, bad[i].id, bad[i].incarnation, bad[i].slots);
        assert_int_equal(s.end_code, 3);
        stream_close(&s);
    }
    stream_open(&s, w.nodes[0].replica);
    worker_session_message(s.session, slice_of(garbage, sizeof(garbage)));
    assert_int_equal(s.end_code, 3);
    stream_close(&s);
    stream_open(&s, w.nodes[0].replica);
    stream_hello(&s, "w", 1, 1);
    node_world_settle(&w);
    assert_int_equal(s.end_code, 0);
    stream_hello(&s, "w", 1, 1);
    assert_int_equal(s.end_code, 9);
    stream_close(&s);
    node_world_settle(&w);
    assert_non_null(fsm_worker_find(replica_fsm(w.nodes[0].replica), "w"));
    assert_ptr_equal(fsm_worker_first(replica_fsm(w.nodes[0].replica))->next, NULL);
    node_world_close(&w);
}

/* Goal: a second stream of the same process takes over and the first is ended; another process with
 * the id is refused as long as the first is connected. Method: three streams. */
static void test_streams_of_one_id(void **state) {
    struct node_world w;
    struct stream a, b, other;

    (void) state;
    (void) node_world_begin(&w, 1);
    stream_open(&a, w.nodes[0].replica);
    stream_hello(&a, "w", 1, 2);
    node_world_settle(&w);
    assert_non_null(stream_last(&a, MSG(WELCOME)));
    stream_open(&b, w.nodes[0].replica);
    stream_hello(&b, "w", 1, 2);
    node_world_settle(&w);
    assert_int_equal(a.end_code, 10);
    assert_int_equal(b.end_code, 0);
    assert_non_null(stream_last(&b, MSG(WELCOME)));
    stream_open(&other, w.nodes[0].replica);
    stream_hello(&other, "w", 2, 2);
    node_world_settle(&w);
    assert_int_equal(b.end_code, 0);
    assert_int_equal(other.end_code, 6);
    stream_close(&a);
    stream_close(&b);
    stream_close(&other);
    node_world_close(&w);
}

/* Three nodes; the hello of a worker at a follower, with a count or 0, is forwarded and never
 * arrives: the leader dies, and one of the two others leads. The follower's slot. */
static unsigned lose_hello(struct node_world *w, struct stream *s, uint64_t hello) {
    unsigned leader = node_world_begin(w, 3), at = (leader + 1) % 3;

    stream_open(s, w->nodes[at].replica);
    stream_hello_counted(s, "w", 1, 2, hello);
    replica_turn(w->nodes[at].replica);
    node_world_crash(w, leader, SIM_DISK_KEEP_ALL, 1000);
    (void) node_world_lead(w);
    return at;
}

/* Goal: a registration without a count of hellos whose leader is lost is not proposed again with
 * its old list of what the worker holds; the stream ends, so that the worker says hello anew.
 * Method: hello at a follower, and the leader dies before anything moved. */
static void test_hello_is_not_repeated(void **state) {
    struct node_world w;
    struct stream s;
    unsigned at;

    (void) state;
    at = lose_hello(&w, &s, 0);
    node_world_run(&w, 6000);
    assert_int_equal(s.end_code, 14);
    assert_null(stream_last(&s, MSG(WELCOME)));
    assert_null(fsm_worker_find(replica_fsm(w.nodes[at].replica), "w"));
    stream_close(&s);
    node_world_close(&w);
}

/* Goal: with a count it is proposed again, for apply can tell: the worker is welcome as soon as
 * there is another leader. Method: as above. */
static void test_counted_hello_is_repeated(void **state) {
    struct node_world w;
    struct stream s;

    (void) state;
    (void) lose_hello(&w, &s, 1);
    node_world_settle(&w);
    assert_int_equal(s.end_code, 0);
    assert_non_null(stream_last(&s, MSG(WELCOME)));
    stream_close(&s);
    node_world_close(&w);
}

/* Goal: what a newer stream was given keeps running when the registration of an older one, given up
 * since, is committed at last. Method: the first hello is lost on its way to the leader and its
 * stream ends; the second is welcomed at another node and gets a job; then the leader dies, and the
 * first one's node proposes it again. */
static void test_late_hello(void **state) {
    const struct fsm_worker *k;
    struct node_world w;
    struct stream old, now;
    struct answer a;
    unsigned leader, at, other;
    uint64_t before;
    struct fsm *f;

    (void) state;
    leader = node_world_begin(&w, 3);
    at = (leader + 1) % 3;
    other = (leader + 2) % 3;
    f = replica_fsm(w.nodes[other].replica);
    w.cut[at][leader] = true;
    stream_open(&old, w.nodes[at].replica);
    stream_hello_counted(&old, "w", 1, 2, 1);
    node_world_settle(&w);
    w.cut[at][leader] = false;
    stream_close(&old);
    stream_open(&now, w.nodes[other].replica);
    stream_hello_counted(&now, "w", 1, 2, 2);
    node_world_settle(&w);
    assert_int_equal(node_world_submit(&w, other, "", 0, MONO_NEVER, &a), 0);
    node_world_settle(&w);
    assert_non_null(stream_last(&now, MSG(ASSIGN)));
    k = fsm_worker_find(f, "w");
    before = fsm_applied_index(f);
    node_world_crash(&w, leader, SIM_DISK_KEEP_ALL, 1000);
    (void) node_world_lead(&w);
    node_world_run(&w, 10);
    assert_true(fsm_applied_index(f) >=
                before + 2); /* the new term's first one, and the old hello */
    assert_int_equal(k->hello, 2);
    assert_int_equal(k->node_id, w.nodes[other].id);
    assert_int_equal(k->running, 1);
    assert_int_equal(now.end_code, 0);
    stream_close(&now);
    node_world_close(&w);
}

/* Reports about @n attempts taken from the stream's assignments. */
static void report(struct stream *s, uint64_t token_off, size_t n) {
    Chronos__V1__WorkerMessage m = CHRONOS__V1__WORKER_MESSAGE__INIT;
    Chronos__V1__WorkerReports list = CHRONOS__V1__WORKER_REPORTS__INIT;
    Chronos__V1__AttemptReport *reports = calloc(n, sizeof(*reports));
    Chronos__V1__AttemptReport **pointers = calloc(n, sizeof(*pointers));
    Chronos__V1__AttemptRef *refs = calloc(n, sizeof(*refs));
    size_t have = 0;

    assert_true(reports && pointers && refs);
    for (size_t i = 0; i < s->count; i++) {
        if (s->got[i]->body_case != MSG(ASSIGN))
            continue;
        for (size_t k = 0; k < s->got[i]->assign->n_assignments && have < n; k++, have++) {
            chronos__v1__attempt_report__init(&reports[have]);
            refs[have] = *s->got[i]->assign->assignments[k]->attempt;
            refs[have].fencing_token += token_off;
            reports[have].attempt = &refs[have];
            reports[have].outcome = CHRONOS__V1__ATTEMPT_OUTCOME__ATTEMPT_OUTCOME_COMPLETED;
            pointers[have] = &reports[have];
        }
    }
    assert_int_equal(have, n);
    list.reports = pointers;
    list.n_reports = n;
    m.body_case = CHRONOS__V1__WORKER_MESSAGE__BODY_REPORTS;
    m.reports = &list;
    stream_send(s, &m);
    free(reports);
    free(pointers);
    free(refs);
}

static size_t acked(const struct stream *s, bool stale) {
    size_t n = 0;

    for (size_t i = 0; i < s->count; i++)
        if (s->got[i]->body_case == MSG(REPORT_ACK))
            for (size_t k = 0; k < s->got[i]->report_ack->n_results; k++)
                n += s->got[i]->report_ack->results[k]->stale == stale;
    return n;
}

/* Goal: assignments reach the stream once; 600 reports in one message are split and all are
 * acknowledged; a wrong token is answered as stale and changes nothing; a repeated report is
 * answered like the first. Method: 600 jobs on 600 slots. */
static void test_reports(void **state) {
    static struct answer answers[600];
    struct node_world w;
    struct stream s;
    struct fsm *f;

    (void) state;
    (void) node_world_begin(&w, 1);
    f = replica_fsm(w.nodes[0].replica);
    stream_open(&s, w.nodes[0].replica);
    stream_hello(&s, "w", 1, 600);
    node_world_settle(&w);
    for (size_t i = 0; i < ARRAY_LEN(answers); i++) {
        assert_int_equal(node_world_submit(&w, 0, "", 0, MONO_NEVER, &answers[i]), 0);
        if (i % 100 == 99)
            node_world_settle(&w);
    }
    node_world_settle(&w);
    assert_int_equal(fsm_jobs_count(f, CHRONOS__V1__JOB_STATE__JOB_STATE_RUNNING), 600);
    report(&s, 1000000, 3);
    node_world_settle(&w);
    assert_int_equal(acked(&s, true), 3);
    assert_int_equal(fsm_jobs_count(f, CHRONOS__V1__JOB_STATE__JOB_STATE_RUNNING), 600);
    report(&s, 0, 600);
    node_world_settle(&w);
    assert_int_equal(acked(&s, false), 600);
    assert_int_equal(fsm_jobs_count(f, CHRONOS__V1__JOB_STATE__JOB_STATE_COMPLETED), 600);
    report(&s, 0, 5);
    node_world_settle(&w);
    assert_int_equal(acked(&s, false), 605);
    assert_int_equal(acked(&s, true), 3);
    stream_close(&s);
    node_world_close(&w);
}

/* Goal: heartbeats keep a lease and are acknowledged with their number; silence for a lease takes
 * the attempts away, ends the stream, and a new hello gets the job again with a new token. Method:
 * 15 s on a hand-driven clock. */
static void test_lease(void **state) {
    const Chronos__V1__NodeMessage *first, *second;
    struct node_world w;
    struct answer a;
    struct stream s, back;

    (void) state;
    (void) node_world_begin(&w, 1);
    stream_open(&s, w.nodes[0].replica);
    stream_hello(&s, "w", 1, 1);
    node_world_settle(&w);
    assert_int_equal(node_world_submit(&w, 0, "", 0, MONO_NEVER, &a), 0);
    node_world_settle(&w);
    first = stream_last(&s, MSG(ASSIGN));
    assert_non_null(first);
    for (uint64_t i = 1; i <= 6; i++) {
        node_world_run(&w, 5000);
        stream_beat(&s, i);
        node_world_settle(&w);
        assert_int_equal(stream_last(&s, MSG(HEARTBEAT_ACK))->heartbeat_ack->sequence, i);
    }
    assert_int_equal(s.end_code, 0);
    node_world_run(&w, 14999);
    assert_int_equal(s.end_code, 0);
    node_world_run(&w, 10);
    assert_int_equal(s.end_code, 9);
    stream_open(&back, w.nodes[0].replica);
    stream_hello(&back, "w", 1, 1);
    node_world_settle(&w);
    second = stream_last(&back, MSG(ASSIGN));
    assert_non_null(second);
    assert_int_equal(second->assign->assignments[0]->attempt->attempt, 2);
    assert_true(second->assign->assignments[0]->attempt->fencing_token >
                first->assign->assignments[0]->attempt->fencing_token);
    node_world_run(&w, 14000);
    assert_int_equal(back.end_code, 0); /* a whole lease from the registration on */
    stream_close(&s);
    stream_close(&back);
    node_world_close(&w);
}

/* Goal: a worker that says it is stopping gets nothing more, and another one gets it (semantics
 * C36). Method: it says so in a heartbeat, then a job is submitted, then a second worker comes. */
static void test_worker_that_stops(void **state) {
    Chronos__V1__WorkerMessage m = CHRONOS__V1__WORKER_MESSAGE__INIT;
    Chronos__V1__WorkerHeartbeat beat = CHRONOS__V1__WORKER_HEARTBEAT__INIT;
    struct stream stopping, other;
    struct node_world w;
    struct answer a;

    (void) state;
    (void) node_world_begin(&w, 1);
    stream_open(&stopping, w.nodes[0].replica);
    stream_hello(&stopping, "v", 1, 2);
    node_world_settle(&w);
    beat.sequence = 1;
    beat.draining = true;
    m.body_case = CHRONOS__V1__WORKER_MESSAGE__BODY_HEARTBEAT;
    m.heartbeat = &beat;
    stream_send(&stopping, &m);
    node_world_settle(&w);
    assert_int_equal(node_world_submit(&w, 0, "", 0, MONO_NEVER, &a), 0);
    node_world_settle(&w);
    assert_null(stream_last(&stopping, MSG(ASSIGN)));
    stream_open(&other, w.nodes[0].replica);
    stream_hello(&other, "w", 2, 1);
    node_world_settle(&w);
    assert_non_null(stream_last(&other, MSG(ASSIGN)));
    assert_null(stream_last(&stopping, MSG(ASSIGN)));
    stream_close(&stopping);
    stream_close(&other);
    node_world_close(&w);
}

static void last_chunk(void *arg, const struct replica_logs_chunk *chunk) {
    unsigned *calls = arg;

    (*calls)++;
    assert_true(chunk->end);
    assert_non_null(chunk->error);
}

/* Goal: a log request reaches the worker's stream; when the stream goes the reader is told, once.
 * Method: open, look at the message, close the stream. */
static void test_log_request(void **state) {
    struct replica_logs *logs = NULL;
    const Chronos__V1__NodeMessage *m;
    struct node_world w;
    struct stream s;
    unsigned calls = 0;

    (void) state;
    (void) node_world_begin(&w, 1);
    stream_open(&s, w.nodes[0].replica);
    stream_hello(&s, "w", 1, 1);
    node_world_settle(&w);
    assert_int_equal(
        replica_logs_open(w.nodes[0].replica, "w", 7, 2, 9, 100, true, last_chunk, &calls, &logs),
        0);
    node_world_settle(&w);
    m = stream_last(&s, MSG(LOG_REQUEST));
    assert_non_null(m);
    assert_int_equal(m->log_request->offset, 100);
    assert_int_equal(m->log_request->attempt->attempt, 2);
    assert_int_equal(m->log_request->attempt->fencing_token, 9);
    assert_true(m->log_request->follow);
    stream_close(&s);
    node_world_settle(&w);
    assert_int_equal(calls, 1);
    node_world_close(&w);
}

/* Goal: a worker is told of an attempt before it is asked for its output, although the node that
 * asks is ahead of the node that has the worker's stream. Method: the worker's node cannot persist
 * and so not apply while the leader assigns the job and asks for its output; then it can. */
static void test_log_request_follows_assignment(void **state) {
    struct replica_logs *logs = NULL;
    struct answer a = {0};
    struct node_world w;
    struct stream s;
    unsigned calls = 0, lead, other;
    const struct fsm_job *j;
    size_t assigned = SIZE_MAX, asked = SIZE_MAX;

    (void) state;
    lead = node_world_begin(&w, 3);
    other = (lead + 1) % 3;
    stream_open(&s, w.nodes[other].replica);
    stream_hello(&s, "w", 1, 1);
    node_world_run(&w, 200);
    assert_non_null(stream_last(&s, MSG(WELCOME)));
    w.nodes[other].hold_disk = true;
    a.world = &w;
    assert_int_equal(node_world_submit(&w, lead, "", 0, node_world_in_ms(&w, 5000), &a), 0);
    node_world_run(&w, 100);
    assert_int_equal(a.status, REPLICA_OK);
    j = fsm_job_find(replica_fsm(w.nodes[lead].replica), a.job_seq);
    assert_non_null(j);
    assert_int_equal(j->state, CHRONOS__V1__JOB_STATE__JOB_STATE_RUNNING);
    assert_int_equal(replica_logs_open(w.nodes[lead].replica, "w", j->seq, j->attempt,
                                       j->fencing_token, 0, true, last_chunk, &calls, &logs),
                     0);
    node_world_run(&w, 100);
    assert_null(stream_last(&s, MSG(LOG_REQUEST)));
    w.nodes[other].hold_disk = false;
    node_world_run(&w, 200);
    for (size_t i = 0; i < s.count; i++) {
        if (s.got[i]->body_case == MSG(ASSIGN))
            assigned = MIN(assigned, i);
        if (s.got[i]->body_case == MSG(LOG_REQUEST))
            asked = MIN(asked, i);
    }
    assert_true(asked != SIZE_MAX);
    assert_true(assigned < asked);
    stream_close(&s);
    node_world_run(&w, 100);
    assert_int_equal(calls, 1);
    node_world_close(&w);
}

/* Propose a job whose specification takes @bytes: one field that nobody knows. */
static void submit_large(struct node_world *w, size_t bytes, struct answer *a) {
    uint8_t *spec = calloc(1, bytes);
    size_t body_bytes = bytes - 5;

    assert_non_null(spec);
    assert_true(body_bytes >> 14 > 0 && body_bytes >> 21 == 0);
    spec[0] = 0xfa; /* field 2047, of a length in three bytes */
    spec[1] = 0x7f;
    spec[2] = (uint8_t) (0x80 | (body_bytes & 0x7f));
    spec[3] = (uint8_t) (0x80 | (body_bytes >> 7 & 0x7f));
    spec[4] = (uint8_t) (body_bytes >> 14);
    assert_int_equal(
        node_world_propose(w, 0, log_submit(slice_of(spec, bytes), ""), 0, MONO_NEVER, a), 0);
    node_world_settle(w);
    free(spec);
}

static void cancel_job(struct node_world *w, uint64_t seq) {
    struct answer a;

    assert_int_equal(node_world_propose(w, 0, log_cancel(seq), 0, MONO_NEVER, &a), 0);
    node_world_settle(w);
    assert_int_equal(a.count, 1);
}

/* Assignments in the stream's messages; no message may be one that a worker refuses. */
static size_t assigned(const struct stream *s) {
    size_t n = 0;

    for (size_t i = 0; i < s->count; i++) {
        if (s->got[i]->body_case != MSG(ASSIGN))
            continue;
        assert_true(chronos__v1__node_message__get_packed_size(s->got[i]) < 2 * 1024 * 1024);
        n += s->got[i]->assign->n_assignments;
    }
    return n;
}

/* Goal: a worker that is owed more than a message may hold gets it in several, each once, and none
 * while its stream is full; a job cancelled meanwhile is killed, but after the worker was told of
 * it. Method: 40 jobs of 100 KiB wait for one worker; its stream is full after each message. */
static void test_large_assignments(void **state) {
    static struct answer answers[40];
    const size_t jobs = ARRAY_LEN(answers);
    size_t told, told_before = 0, kill_at = SIZE_MAX, cancelled_at = SIZE_MAX;
    struct node_world w;
    struct stream s;

    (void) state;
    (void) node_world_begin(&w, 1);
    for (size_t i = 0; i < jobs; i++)
        submit_large(&w, 100 * 1024, &answers[i]);
    stream_open(&s, w.nodes[0].replica);
    s.full = true;
    stream_hello(&s, "w", 1, (uint32_t) jobs);
    node_world_settle(&w);
    assert_int_equal(
        fsm_jobs_count(replica_fsm(w.nodes[0].replica), CHRONOS__V1__JOB_STATE__JOB_STATE_RUNNING),
        jobs);
    cancel_job(&w, answers[jobs - 1].job_seq);
    assert_null(stream_last(&s, MSG(KILL)));
    while ((told = assigned(&s)) < jobs) {
        assert_true(told <= told_before + 12);
        told_before = told;
        worker_session_writable(s.session);
        node_world_settle(&w);
        assert_true(assigned(&s) > told);
    }
    assert_int_equal(told, jobs);
    for (size_t i = 0; i < s.count; i++) {
        if (s.got[i]->body_case == MSG(KILL))
            kill_at = i;
        if (s.got[i]->body_case == MSG(ASSIGN))
            cancelled_at = i; /* it was the last one */
    }
    assert_true(kill_at != SIZE_MAX && kill_at > cancelled_at);
    assert_int_equal(s.end_code, 0);
    stream_close(&s);
    node_world_close(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hello_is_checked),
        cmocka_unit_test(test_streams_of_one_id),
        cmocka_unit_test(test_hello_is_not_repeated),
        cmocka_unit_test(test_counted_hello_is_repeated),
        cmocka_unit_test(test_late_hello),
        cmocka_unit_test(test_reports),
        cmocka_unit_test(test_lease),
        cmocka_unit_test(test_worker_that_stops),
        cmocka_unit_test(test_log_request),
        cmocka_unit_test(test_log_request_follows_assignment),
        cmocka_unit_test(test_large_assignments),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
