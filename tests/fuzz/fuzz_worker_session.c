/* Any bytes from workers into the sessions of a node that leads: what the node says must decode, an
 * ended session says why, and the state stays consistent.
 *
 * The input is a list of acts on two streams: a message's bytes as they are, a hello or report that
 * is well-formed, jobs, time, a full or a broken stream. */
#include "fuzz.h"

#include "node_world.h"

#include "chronos/internal/v1/peer.pb-c.h"
#include "fsm/job_id.h"

#include <stdio.h>
#include <stdlib.h>

#define ACTS_MAX 48
#define JOBS_MAX 12
#define STREAMS 2

struct end {
    struct worker_session *session;
    bool ended, full;
};

static int take(void *arg, struct bytes *message) {
    struct end *e = (struct end *) arg;
    Chronos__V1__NodeMessage *m;

    m = chronos__v1__node_message__unpack(NULL, message->len, message->data);
    ASSERT(m && m->body_case != CHRONOS__V1__NODE_MESSAGE__BODY__NOT_SET);
    ASSERT(!e->ended);
    chronos__v1__node_message__free_unpacked(m, NULL);
    (void) bytes_unref(message);
    return e->full ? 1 : 0;
}

static void ended(void *arg, int code, const char *message) {
    struct end *e = (struct end *) arg;

    ASSERT(!e->ended);
    ASSERT(code > 0 && code <= 16);
    ASSERT(message && message[0]);
    e->ended = true;
}

static const struct worker_session_ops ops = {.send = take, .end = ended};

static void reopen(struct node_world *w, struct end *e) {
    int rc;

    e->session = worker_session_free(e->session);
    *e = (struct end){0};
    rc = worker_session_new(w->nodes[0].replica, &ops, e, &e->session);
    ASSERT(rc == 0);
}

static void send(struct end *e, struct slice message) {
    if (!e->ended) /* as api/worker_stream.c */
        worker_session_message(e->session, message);
}

static void send_packed(struct end *e, const Chronos__V1__WorkerMessage *m) {
    struct bytes *b = bytes_new(chronos__v1__worker_message__get_packed_size(m));

    ASSERT(b);
    (void) chronos__v1__worker_message__pack(m, b->data);
    send(e, bytes_slice(b));
    (void) bytes_unref(b);
}

static void hello(struct end *e, uint8_t who) {
    Chronos__V1__WorkerMessage m = CHRONOS__V1__WORKER_MESSAGE__INIT;
    Chronos__V1__WorkerHello h = CHRONOS__V1__WORKER_HELLO__INIT;
    char name[] = {(char) ('a' + (who & 1)), '\0'};

    h.worker_id = name;
    h.incarnation = 1 + (who >> 1 & 3);
    h.slots = 1 + (who >> 3 & 3);
    h.draining = who >> 5 & 1;
    m.body_case = CHRONOS__V1__WORKER_MESSAGE__BODY_HELLO;
    m.hello = &h;
    send_packed(e, &m);
}

/* Of the job's live attempt, or of one near it. */
static void report(struct node_world *w, struct end *e, struct slice *in) {
    Chronos__V1__WorkerMessage m = CHRONOS__V1__WORKER_MESSAGE__INIT;
    Chronos__V1__WorkerReports list = CHRONOS__V1__WORKER_REPORTS__INIT;
    Chronos__V1__AttemptReport r = CHRONOS__V1__ATTEMPT_REPORT__INIT, *reports[] = {&r};
    Chronos__V1__AttemptRef ref = CHRONOS__V1__ATTEMPT_REF__INIT;
    uint64_t seq = 1 + fuzz_u8(in) % JOBS_MAX;
    const struct fsm_job *j = fsm_job_find(replica_fsm(w->nodes[0].replica), seq);
    char id[JOB_ID_BYTES_MAX], message[64];
    uint8_t how = fuzz_u8(in);

    job_id_format(seq, id);
    ref.job_id = id;
    ref.attempt = (j ? j->attempt : 1) + (how >> 7);
    ref.fencing_token = (j ? j->fencing_token : 1) + (how >> 6 & 1);
    r.attempt = &ref;
    r.outcome = (Chronos__V1__AttemptOutcome) (how % 6);
    r.reason = (Chronos__V1__FailureReason) (fuzz_u8(in) % 8);
    r.exit_code = (int32_t) fuzz_u8(in) - 1;
    r.output_bytes = fuzz_near(in, 8);
    (void) snprintf(message, sizeof(message), "exit %d", r.exit_code);
    r.message = message;
    r.output_tail.data = (uint8_t *) message;
    r.output_tail.len = strlen(message);
    list.n_reports = 1;
    list.reports = reports;
    m.body_case = CHRONOS__V1__WORKER_MESSAGE__BODY_REPORTS;
    m.reports = &list;
    send_packed(e, &m);
}

static void act(struct node_world *w, struct end ends[STREAMS], struct slice *in) {
    static struct answer answers[ACTS_MAX];
    static unsigned next;
    uint8_t what = fuzz_u8(in);
    struct end *e = &ends[what & 1];

    switch (what >> 1 & 7) {
    case 0:
    case 1: {
        size_t len = fuzz_u8(in);

        send(e, fuzz_bytes(in, len | (size_t) fuzz_u8(in) << 8));
        break;
    }
    case 2:
        hello(e, fuzz_u8(in));
        break;
    case 3:
        report(w, e, in);
        break;
    case 4:
        if (fsm_next_seq(replica_fsm(w->nodes[0].replica)) <= JOBS_MAX)
            (void) !node_world_submit(w, 0, "", 0, node_world_in_ms(w, 1000),
                                      &answers[next++ % ACTS_MAX]);
        break;
    case 5:
        reopen(w, e);
        break;
    case 6:
        e->full = !e->full;
        if (!e->full && !e->ended)
            worker_session_writable(e->session);
        break;
    case 7:
        node_world_run(w, (uint64_t) (what >> 4) << 8);
        break;
    }
    node_world_settle(w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct node_world w;
    struct slice in = slice_of(data, size);
    struct end ends[STREAMS] = {{0}};

    (void) node_world_begin(&w, 1);
    for (size_t i = 0; i < STREAMS; i++)
        reopen(&w, &ends[i]);
    for (int i = 0; i < ACTS_MAX && in.len > 0; i++)
        act(&w, ends, &in);
    node_world_run(&w, 100);
    fsm_check_invariants(replica_fsm(w.nodes[0].replica));
    for (size_t i = 0; i < STREAMS; i++)
        ends[i].session = worker_session_free(ends[i].session);
    node_world_close(&w);
    return 0;
}
