/* Reports of attempts: proposed in batches, acknowledged once committed, proposed again until then.
 *
 * A report is idempotent: the fencing token decides, whichever try commits first.
 * Thread: the loop. */
#include "node/session_internal.h"

#include "fsm/command.h"
#include "fsm/job_id.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define REPORT_BATCH_ITEMS 250UL
#define REPORT_BATCH_BYTES (1UL << 20)
#define REPORT_MESSAGE_BYTES_MAX 1024

static void batch_free(struct report_batch *b) {
    arena_done(&b->arena);
    free(b);
}

void session_reports_free(struct worker_session *s) {
    while (s->batches) {
        struct report_batch *b = s->batches;

        s->batches = b->next;
        batch_free(b);
    }
}

static size_t report_bytes(const Chronos__V1__AttemptReport *r) {
    return 128 + r->output_tail.len + strlen(r->message);
}

/* Deep copy into the batch's arena: pack and unpack, the only copy that knows every field. */
static int batch_copy(struct report_batch *b, const Chronos__V1__AttemptReport *from,
                      uint64_t seq) {
    size_t len = chronos__v1__attempt_report__get_packed_size(from);
    uint8_t *packed = arena_alloc(&b->arena, len);
    Chronos__V1__AttemptReport *copy;

    if (!packed)
        return -ENOMEM;
    (void) chronos__v1__attempt_report__pack(from, packed);
    copy = chronos__v1__attempt_report__unpack(arena_pb(&b->arena), len, packed);
    if (!copy)
        return -ENOMEM;
    b->reports[b->count] = copy;
    b->seqs[b->count++] = seq;
    return 0;
}

static struct report_batch *batch_new(struct worker_session *s, size_t n) {
    struct report_batch *b = calloc(1, sizeof(*b));
    struct report_batch **tail = &s->batches;

    if (!b)
        return NULL;
    b->session = s;
    arena_init(&b->arena, ARENA_BYTES_MAX);
    b->reports = arena_alloc(&b->arena, n * sizeof(struct Chronos__V1__AttemptReport *));
    b->seqs = arena_alloc(&b->arena, n * sizeof(*b->seqs));
    if (!b->reports || !b->seqs) {
        batch_free(b);
        return NULL;
    }
    while (*tail)
        tail = &(*tail)->next;
    *tail = b;
    return b;
}

static bool report_ok(const Chronos__V1__AttemptReport *r, uint64_t *ret_seq) {
    return r->attempt && r->output_tail.len <= FSM_OUTPUT_TAIL_BYTES_MAX &&
           strlen(r->message) <= REPORT_MESSAGE_BYTES_MAX &&
           r->outcome != CHRONOS__V1__ATTEMPT_OUTCOME__ATTEMPT_OUTCOME_UNSPECIFIED &&
           job_id_parse(r->attempt->job_id, ret_seq) == 0;
}

int session_reports_add(struct worker_session *s, const Chronos__V1__WorkerReports *reports) {
    struct report_batch *b = NULL;
    size_t bytes = 0;

    if (s->state != SESSION_ACTIVE && s->state != SESSION_REGISTERING)
        return ERR_PROTO;
    if (s->reports_waiting + reports->n_reports > SESSION_REPORTS_MAX)
        return ERR_LIMIT;
    for (size_t i = 0; i < reports->n_reports; i++) {
        const Chronos__V1__AttemptReport *r = reports->reports[i];
        uint64_t seq = 0;
        int rc;

        if (!report_ok(r, &seq))
            return ERR_PROTO;
        if (!b || b->count == REPORT_BATCH_ITEMS || bytes + report_bytes(r) > REPORT_BATCH_BYTES) {
            b = batch_new(s, MIN(reports->n_reports - i, REPORT_BATCH_ITEMS));
            bytes = 0;
            if (!b)
                return -ENOMEM;
        }
        rc = batch_copy(b, r, seq);
        if (rc < 0)
            return rc;
        bytes += report_bytes(r);
        s->reports_waiting++;
    }
    return 0;
}

/* ---- into the log ---------------------------------------------------------------------------- */

static void ack_batch(const struct report_batch *b, const struct fsm_output *out) {
    Chronos__V1__NodeMessage m = CHRONOS__V1__NODE_MESSAGE__INIT;
    Chronos__V1__NodeReportAck ack = CHRONOS__V1__NODE_REPORT_ACK__INIT;
    Chronos__V1__ReportResult results[REPORT_BATCH_ITEMS];
    Chronos__V1__ReportResult *pointers[REPORT_BATCH_ITEMS];

    ASSERT(out->results_count == b->count && b->count <= REPORT_BATCH_ITEMS);
    for (size_t i = 0; i < b->count; i++) {
        chronos__v1__report_result__init(&results[i]);
        results[i].attempt = b->reports[i]->attempt;
        results[i].stale = out->results[i].code != FSM_OK;
        pointers[i] = &results[i];
    }
    ack.results = pointers;
    ack.n_results = b->count;
    m.body_case = CHRONOS__V1__NODE_MESSAGE__BODY_REPORT_ACK;
    m.report_ack = &ack;
    worker_session_send(b->session, &m.base);
}

static void batch_remove(struct worker_session *s, struct report_batch *b) {
    struct report_batch **p = &s->batches;

    while (*p != b)
        p = &(*p)->next;
    *p = b->next;
    s->reports_waiting -= b->count;
    batch_free(b);
}

static void batch_done(void *arg, const struct replica_proposed *res) {
    struct report_batch *b = arg;
    struct worker_session *s = b->session;

    s->proposals_in_flight--;
    b->proposed = false;
    if (res->status == REPLICA_OK) {
        if (s->state == SESSION_ACTIVE)
            ack_batch(b, res->output);
        batch_remove(s, b);
    } else {
        s->replica->wants_turn = true; /* stays in the list and is proposed again */
    }
    worker_session_unref(s);
}

static void item_from_report(Chronos__Internal__V1__UpdateJobStatus *u,
                             const Chronos__V1__AttemptReport *r, uint64_t seq) {
    chronos__internal__v1__update_job_status__init(u);
    u->job_seq = seq;
    u->fencing_token = r->attempt->fencing_token;
    u->outcome = r->outcome;
    u->reason = r->reason;
    u->message = r->message;
    u->exit_code = r->exit_code;
    u->term_signal = r->term_signal;
    u->output_tail = r->output_tail;
    u->output_bytes = r->output_bytes;
    u->output_truncated = r->output_truncated;
    u->started = r->started;
}

static int batch_propose(struct report_batch *b) {
    Chronos__Internal__V1__LogCommand cmd = CHRONOS__INTERNAL__V1__LOG_COMMAND__INIT;
    Chronos__Internal__V1__BatchUpdateJobStatus body =
        CHRONOS__INTERNAL__V1__BATCH_UPDATE_JOB_STATUS__INIT;
    Chronos__Internal__V1__UpdateJobStatus items[REPORT_BATCH_ITEMS];
    Chronos__Internal__V1__UpdateJobStatus *pointers[REPORT_BATCH_ITEMS];
    struct worker_session *s = b->session;
    struct bytes *command = NULL;
    int rc;

    for (size_t i = 0; i < b->count; i++) {
        item_from_report(&items[i], b->reports[i], b->seqs[i]);
        pointers[i] = &items[i];
    }
    if (b->count == 1) {
        cmd.body_case = CHRONOS__INTERNAL__V1__LOG_COMMAND__BODY_UPDATE_JOB_STATUS;
        cmd.update_job_status = &items[0];
    } else {
        body.items = pointers;
        body.n_items = b->count;
        cmd.body_case = CHRONOS__INTERNAL__V1__LOG_COMMAND__BODY_BATCH_UPDATE_JOB_STATUS;
        cmd.batch_update_job_status = &body;
    }
    rc = command_encode(&cmd, &command);
    if (rc < 0)
        return rc;
    b->proposed = true;
    s->proposals_in_flight++;
    rc = replica_propose(s->replica, command, REPLICA_INTERNAL | REPLICA_RETRY_SAFE, MONO_NEVER,
                         batch_done, b);
    if (rc != 0) {
        s->proposals_in_flight--;
        b->proposed = false;
    }
    return rc;
}

void session_reports_flush(struct worker_session *s) {
    if (s->state != SESSION_ACTIVE)
        return;
    for (struct report_batch *b = s->batches; b; b = b->next) {
        int rc;

        if (b->proposed || b->count == 0)
            continue;
        rc = batch_propose(b);
        if (rc < 0)
            replica_fail(s->replica, rc, "reports: %s", err_name(rc));
    }
}
