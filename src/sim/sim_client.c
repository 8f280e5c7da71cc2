/* Clients: submits, cancels and linearizable reads at random nodes, and what they were told. */
#include "sim/checker_model.h"

#include "fsm/command.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define CLIENT_IN_FLIGHT_MAX 16

#define BURST_MAX 60
#define CALM_GAP_NS (3 * NS_PER_S)
#define ANSWER_SLACK_NS NS_PER_MS

static struct sim_call *call_begin(struct sim_client *cl, const struct sim_node *n,
                                   struct mono *ret_deadline) {
    struct world *w = cl->world;
    struct sim_call *c = calloc(1, sizeof(*c));
    uint64_t within = w->commit_timeout_ns;

    ASSERT(c);
    *ret_deadline = MONO_NEVER;
    if (rng_chance(&w->rng, 200)) { /* the client is less patient than the node */
        within = rng_range(&w->rng, NS_PER_MS, within);
        *ret_deadline = mono_add_ns(sim_clock_mono(n), within);
    }
    *c = (struct sim_call){.world = w,
                           .client = cl->slot,
                           .node = n->slot,
                           .installs = n->installs,
                           .begun_at = w->now_ns,
                           .paused_ns = faults_paused_ns(n),
                           .answer_by = w->now_ns + within,
                           .committed = MAX(w->checker.committed_count, w->checker.acked_index),
                           .prev = w->calls_last};
    if (w->calls_last)
        w->calls_last->next = c;
    else
        w->calls_first = c;
    w->calls_last = c;
    w->ops_pending++;
    return c;
}

/* The node measures by a clock of its own, and a pause is nobody's delay. */
static uint64_t slack_ns(const struct sim_call *c) {
    const struct world *w = c->world;

    return ANSWER_SLACK_NS + sim_clock_slack(w, w->commit_timeout_ns) +
           faults_paused_ns(&w->nodes[c->node]) - c->paused_ns;
}

static void call_end(struct sim_call *c) {
    struct world *w = c->world;

    if (w->now_ns > c->answer_by + slack_ns(c))
        sim_fail(w, "node %u: a call was answered %llu us after its deadline", c->node + 1,
                 (unsigned long long) ((w->now_ns - c->answer_by) / NS_PER_US));
    if (c->prev)
        c->prev->next = c->next;
    else
        w->calls_first = c->next;
    if (c->next)
        c->next->prev = c->prev;
    else
        w->calls_last = c->prev;
    w->ops_pending--;
    free(c);
}

/* An answer: what this client has seen, and what everybody who asks later must see. */
static void call_answered(struct sim_call *c, uint64_t index) {
    struct world *w = c->world;
    struct sim_client *cl = &w->clients[c->client];

    w->checker.acked_index = MAX(w->checker.acked_index, index);
    cl->seen_index = MAX(cl->seen_index, index);
}

/* Nobody waits for ever, whatever is broken. */
void sim_client_check_deadlines(struct world *w) {
    const struct sim_call *c = w->calls_first;

    while (c && w->nodes[c->node].paused)
        c = c->next;
    if (c && w->now_ns > c->begun_at + w->commit_timeout_ns + slack_ns(c))
        sim_fail(w, "node %u: a call begun at %llu us is still not answered", c->node + 1,
                 (unsigned long long) (c->begun_at / NS_PER_US));
}

static struct sim_node *any_node(struct world *w) {
    struct sim_node *n = &w->nodes[rng_below(&w->rng, w->nodes_count)];

    return n->up ? n : NULL;
}

/* Long keys make large entries: the log fills its segments sooner. */
static int encode_submit(const struct sim_op *op, bool clash, int key_digits, struct bytes **ret) {
    Chronos__Internal__V1__LogCommand cmd = CHRONOS__INTERNAL__V1__LOG_COMMAND__INIT;
    Chronos__Internal__V1__SubmitJob body = CHRONOS__INTERNAL__V1__SUBMIT_JOB__INIT;
    Chronos__Internal__V1__SubmitJobItem item = CHRONOS__INTERNAL__V1__SUBMIT_JOB_ITEM__INIT;
    Chronos__Internal__V1__SubmitJobItem *items[] = {&item};
    /* JobSpec{noop, name}: the name tells checker_final which submit a job came from. */
    uint8_t spec[] = {0x1a, 0, 0x62, 4, 0, 0, 0, 0};
    uint8_t hash[16] = {0};
    char key[FSM_IDEMPOTENCY_KEY_BYTES_MAX + 1] = "", queue[] = "default";

    if (op->keyed)
        (void) snprintf(key, sizeof(key), "op-%0*u", key_digits, op->number);
    hash[0] = (uint8_t) op->number;
    hash[15] = clash;
    for (int i = 0; i < 4; i++)
        spec[4 + i] = (uint8_t) ('a' + (op->number >> (4 * i) & 15));
    item.spec.data = spec;
    item.spec.len = sizeof(spec);
    item.idempotency_key = key;
    item.request_hash.data = hash;
    item.request_hash.len = sizeof(hash);
    item.max_attempts = op->max_attempts;
    item.queue = queue;
    body.items = items;
    body.n_items = 1;
    cmd.body_case = CHRONOS__INTERNAL__V1__LOG_COMMAND__BODY_SUBMIT_JOB;
    cmd.submit_job = &body;
    return command_encode(&cmd, ret);
}

/* A node whose state came as a snapshot has not seen what became of a proposal and asks again. */
static bool may_find_itself(const struct sim_call *c) {
    const struct sim_node *n = &c->world->nodes[c->node];

    return c->op->tries > 1 || n->installs != c->installs || n->installing != 0;
}

static void submit_acked(struct sim_call *c, const struct replica_proposed *res) {
    struct world *w = c->world;
    struct sim_op *op = c->op;
    const struct fsm_result *r;

    if (res->output->results_count != 1) {
        sim_fail(w, "op %u: %zu results for one item", op->number, res->output->results_count);
        return;
    }
    r = &res->output->results[0];
    if (r->code != FSM_OK && !(op->keyed && r->code == FSM_EXISTING)) {
        sim_fail(w, "op %u: submit answered code %d", op->number, (int) r->code);
        return;
    }
    if (r->code == FSM_EXISTING && !may_find_itself(c))
        sim_fail(w, "op %u: a first try found its key taken", op->number);
    if (op->job_seq != 0 && op->job_seq != r->job_seq)
        sim_fail(w, "op %u: job %llu before, job %llu now", op->number,
                 (unsigned long long) op->job_seq, (unsigned long long) r->job_seq);
    op->job_seq = r->job_seq;
    if (op->state != OP_ACKED)
        sim_count(w, SIM_STAT_ACKED);
    op->state = OP_ACKED;
    call_answered(c, res->index);
}

static void submit_refused(struct sim_call *c) {
    checker_history_failed(c->world, c->history);
    if (c->op->state == OP_PENDING && c->op->tries == 1)
        c->op->state = OP_REFUSED; /* certainly not submitted */
    sim_count(c->world, SIM_STAT_REFUSED);
}

/* J2: a key that names a job is refused to another request, for ever. */
static void clash_answered(struct sim_call *c, const struct replica_proposed *res) {
    struct world *w = c->world;

    if (res->status != REPLICA_OK) {
        if (res->status != REPLICA_UNKNOWN && res->status != REPLICA_STOPPING)
            checker_history_failed(w, c->history);
        return;
    }
    call_answered(c, res->index);
    sim_count(w, SIM_STAT_KEY_CLASHES);
    if (res->output->results_count != 1 || res->output->results[0].code != FSM_KEY_CONFLICT)
        sim_fail(w, "op %u: its key was given to another request", c->op->number);
}

static void submit_recorded(struct sim_call *c, const struct replica_proposed *res) {
    struct history_op *op;

    if (res->status != REPLICA_OK || res->output->results_count != 1)
        return;
    checker_model_answered(c->world, res);
    /* One that found its key may have made it itself, by an earlier entry. */
    op = checker_history_ok(c->world, c->history,
                            res->output->results[0].code == FSM_EXISTING ? 0 : res->index);
    if (!op)
        return;
    if (res->output->results[0].code == FSM_KEY_CONFLICT)
        op->result = HISTORY_CONFLICT;
    else
        op->job = checker_history_name(c->world, 'j', res->output->results[0].job_seq);
}

static void submit_done(void *arg, const struct replica_proposed *res) {
    struct sim_call *c = arg;
    struct world *w = c->world;
    struct sim_op *op = c->op;

    w->clients[c->client].in_flight--;
    sim_trace(w, "client %u: op %u status=%d index=%llu", c->client, op->number, (int) res->status,
              (unsigned long long) res->index);
    submit_recorded(c, res);
    if (c->clash) {
        clash_answered(c, res);
    } else if (res->status == REPLICA_OK) {
        submit_acked(c, res);
    } else if (res->status == REPLICA_UNKNOWN || res->status == REPLICA_STOPPING) {
        if (op->state == OP_PENDING)
            op->state = OP_UNKNOWN;
        sim_count(w, res->status == REPLICA_UNKNOWN ? SIM_STAT_UNKNOWN : SIM_STAT_STOPPED);
    } else {
        submit_refused(c);
    }
    call_end(c);
}

static void record_submit(struct sim_call *c) {
    struct world *w = c->world;
    struct history_op *op;

    c->history = checker_history_call(w, c->client, HISTORY_SUBMIT);
    op = checker_history_op(w, c->history);
    if (!op)
        return;
    op->request = checker_history_name(w, c->clash ? 'c' : 'r', c->op->number);
    op->key = c->op->keyed ? checker_history_name(w, 'k', c->op->number) : NULL;
}

static void submit(struct sim_client *cl, struct sim_node *n, struct sim_op *op, bool clash) {
    struct world *w = cl->world;
    struct bytes *command = NULL;
    struct mono deadline;
    struct sim_call *c;

    if (encode_submit(op, clash, w->key_digits, &command) < 0) {
        w->no_memory = true;
        return;
    }
    c = call_begin(cl, n, &deadline);
    c->op = op;
    c->clash = clash;
    op->tries += !clash;
    cl->in_flight++;
    record_submit(c);
    if (replica_propose(n->replica, command, op->keyed ? REPLICA_RETRY_SAFE : 0U, deadline,
                        submit_done, c) != 0) {
        cl->in_flight--;
        checker_history_failed(w, c->history);
        if (!clash)
            submit_refused(c);
        call_end(c);
    }
}

static void submit_new(struct sim_client *cl, struct sim_node *n) {
    struct world *w = cl->world;
    struct sim_op *op;

    if (w->ops_count == SIM_OPS_MAX)
        return;
    op = &w->ops[w->ops_count];
    *op = (struct sim_op){.number = w->ops_count, .keyed = rng_chance(&w->rng, 600)};
    op->max_attempts = (uint32_t) rng_range(&w->rng, 1, 4);
    w->ops_count++;
    sim_count(w, SIM_STAT_SUBMITTED);
    submit(cl, n, op, false);
}

/* An unknown outcome with a key may be tried again: it must yield the same job. The key of a known
 * job must be refused to anything else. */
static void submit_again(struct sim_client *cl, struct sim_node *n) {
    struct world *w = cl->world;

    for (unsigned i = 0; i < 8 && w->ops_count > 0; i++) {
        struct sim_op *op = &w->ops[rng_below(&w->rng, w->ops_count)];
        bool clash = op->state == OP_ACKED && rng_chance(&w->rng, 300);

        if (!op->keyed || op->state == OP_PENDING || op->state == OP_REFUSED)
            continue;
        sim_count(w, SIM_STAT_RETRIED);
        submit(cl, n, op, clash);
        return;
    }
}

/* ---- reads ----------------------------------------------------------------------------------- */

/* A job that was acknowledged must be there. */
static void show_job(struct sim_call *c, struct sim_node *n) {
    struct world *w = c->world;
    Chronos__Internal__V1__JobRecord *rec = NULL;
    int rc;

    arena_clear(&w->arena);
    rc = fsm_read_job(replica_fsm(n->replica), c->job_seq, &w->arena, &rec);
    if (atlas_answers_loss(n, rc))
        return; /* answered UNAVAILABLE: no other record than the true one, and not none */
    if (rc == ERR_CRASHED && sim_kv_crashed(n->kv))
        return; /* the power went in the middle of this turn: nobody is told anything */
    checker_model_read(w, n, c->job_seq);
    arena_clear(&w->arena);
    rc = fsm_read_job(replica_fsm(n->replica), c->job_seq, &w->arena, &rec);
    if (rc != 0 && c->must_be_there)
        sim_fail(w, "node %u: acknowledged job %llu is missing from a read", c->node + 1,
                 (unsigned long long) c->job_seq);
    checker_history_job(w, c->history, replica_applied(n->replica), rec);
}

/* R16: the state read contains all that was committed anywhere when the read began. */
static void read_done(void *arg, enum replica_status status, uint64_t index) {
    struct sim_call *c = arg;
    struct world *w = c->world;
    struct sim_node *n = &w->nodes[c->node];

    sim_count(w, status == REPLICA_OK ? SIM_STAT_READS : SIM_STAT_READS_FAILED);
    if (status == REPLICA_OK && c->begun_at == w->now_ns && w->nodes_count > 1)
        sim_count(w, SIM_STAT_READS_AT_ONCE);
    if (status == REPLICA_OK && c->paused_ns != faults_paused_ns(n))
        sim_count(w, SIM_STAT_READS_PAUSED);
    if (status == REPLICA_OK) {
        if (index < c->committed || replica_applied(n->replica) < c->committed)
            sim_fail(w, "node %u: read at %llu, but %llu was committed before it began",
                     c->node + 1, (unsigned long long) index, (unsigned long long) c->committed);
        call_answered(c, replica_applied(n->replica));
        if (c->job_seq != 0)
            show_job(c, n);
    }
    call_end(c);
}

/* Which job: mostly one that was acknowledged, else any number that a node knows of. */
static void draw_job(struct sim_call *c, struct sim_node *n) {
    struct world *w = c->world;

    if (w->ops_count > 0) {
        const struct sim_op *op = &w->ops[rng_below(&w->rng, w->ops_count)];

        if (op->state == OP_ACKED) {
            c->job_seq = op->job_seq;
            c->must_be_there = true;
            return;
        }
    }
    if (rng_chance(&w->rng, 500))
        c->job_seq = rng_range(&w->rng, 1, fsm_next_seq(replica_fsm(n->replica)));
}

static void record_job(struct sim_call *c, enum history_kind kind) {
    struct history_op *op;

    if (c->job_seq == 0)
        return;
    c->history = checker_history_call(c->world, c->client, kind);
    op = checker_history_op(c->world, c->history);
    if (op)
        op->job = checker_history_name(c->world, 'j', c->job_seq);
}

static void read_job(struct sim_client *cl, struct sim_node *n) {
    struct mono deadline;
    struct sim_call *c = call_begin(cl, n, &deadline);

    draw_job(c, n);
    record_job(c, HISTORY_GET);
    if (replica_read(n->replica, deadline, read_done, c) != 0)
        call_end(c);
}

/* J22: whatever node it comes from, what the client has seen is in it: the client knows by the
 * index, and goes elsewhere when the node is behind. */
static void read_stale(struct sim_client *cl, struct sim_node *n) {
    struct world *w = cl->world;
    struct sim_call c = {.world = w, .client = cl->slot, .node = n->slot};
    uint64_t token = cl->seen_index;
    struct history_op *op;

    if (replica_applied(n->replica) < token) {
        sim_count(w, SIM_STAT_READS_BEHIND);
        return;
    }
    draw_job(&c, n);
    if (c.job_seq == 0)
        return;
    c.must_be_there = false; /* another client's acknowledgement may be newer than this node */
    record_job(&c, HISTORY_GET);
    op = checker_history_op(w, c.history);
    if (op) {
        op->stale = true;
        op->token = token;
    }
    sim_count(w, SIM_STAT_READS_STALE);
    cl->seen_index = replica_applied(n->replica);
    show_job(&c, n);
}

/* ---- cancels --------------------------------------------------------------------------------- */

static void cancel_recorded(struct sim_call *c, const struct replica_proposed *res) {
    struct world *w = c->world;
    struct history_op *op;
    enum fsm_code code;

    if (res->status == REPLICA_UNKNOWN || res->status == REPLICA_STOPPING)
        return;
    if (res->status != REPLICA_OK || res->output->results_count != 1) {
        checker_history_failed(w, c->history);
        return;
    }
    code = res->output->results[0].code;
    checker_model_answered(w, res);
    /* One that changed nothing may be the second try of this call: what it asked for was done
     * before, at an index that nobody was told. */
    op = checker_history_ok(w, c->history, res->output->events_count > 0 ? res->index : 0);
    if (op)
        op->result = code == FSM_OK         ? HISTORY_DONE
                     : code == FSM_TERMINAL ? HISTORY_ENDED
                                            : HISTORY_MISSING;
}

static void cancel_done(void *arg, const struct replica_proposed *res) {
    struct sim_call *c = arg;
    struct world *w = c->world;

    cancel_recorded(c, res);
    if (res->status == REPLICA_OK) {
        call_answered(c, res->index);
        if (res->output->results_count == 1 && res->output->results[0].code == FSM_OK) {
            sim_count(w, SIM_STAT_CANCELLED);
            checker_cancelled(w, c->job_seq, res->index);
        }
    }
    call_end(c);
}

static void cancel_job(struct sim_client *cl, struct sim_node *n) {
    Chronos__Internal__V1__LogCommand cmd = CHRONOS__INTERNAL__V1__LOG_COMMAND__INIT;
    Chronos__Internal__V1__CancelJob body = CHRONOS__INTERNAL__V1__CANCEL_JOB__INIT;
    Chronos__Internal__V1__CancelJobItem item = CHRONOS__INTERNAL__V1__CANCEL_JOB_ITEM__INIT;
    Chronos__Internal__V1__CancelJobItem *items[] = {&item};
    struct world *w = cl->world;
    struct bytes *command = NULL;
    struct mono deadline;
    struct sim_call *c;
    uint64_t back;

    item.job_seq = fsm_next_seq(replica_fsm(n->replica));
    back = rng_below(&w->rng, 12); /* mostly one that still lives */
    item.job_seq -= MIN(item.job_seq, back);
    body.items = items;
    body.n_items = 1;
    cmd.body_case = CHRONOS__INTERNAL__V1__LOG_COMMAND__BODY_CANCEL_JOB;
    cmd.cancel_job = &body;
    if (command_encode(&cmd, &command) < 0) {
        w->no_memory = true;
        return;
    }
    c = call_begin(cl, n, &deadline);
    c->job_seq = item.job_seq;
    record_job(c, HISTORY_CANCEL);
    if (replica_propose(n->replica, command, REPLICA_RETRY_SAFE, deadline, cancel_done, c) != 0) {
        checker_history_failed(w, c->history);
        call_end(c);
    }
}

/* ---- schedules ------------------------------------------------------------------------------- */

static void schedule_done(void *arg, const struct replica_proposed *res) {
    struct sim_call *c = arg;
    struct world *w = c->world;

    w->clients[c->client].in_flight--;
    sim_schedules_done(w, res);
    if (res->status == REPLICA_OK) {
        call_answered(c, res->index);
        if (c->history != 0 && res->output->results_count == 1)
            checker_history_scheduled(w, c->history, res);
    } else if (res->status != REPLICA_UNKNOWN && res->status != REPLICA_STOPPING) {
        checker_history_failed(w, c->history);
    }
    call_end(c);
}

/* Which version there is, by a linearizable read. */
static void show_done(void *arg, enum replica_status status, uint64_t index) {
    struct sim_call *c = arg;
    struct world *w = c->world;
    struct sim_node *n = &w->nodes[c->node];
    const struct fsm_schedule *s = NULL;
    Chronos__Internal__V1__ScheduleRecord *rec = NULL;
    char name[16];
    int rc;

    if (status == REPLICA_OK) {
        (void) snprintf(name, sizeof(name), "s%u", (unsigned) c->job_seq);
        call_answered(c, index);
        arena_clear(&w->arena);
        rc = fsm_schedule_find(replica_fsm(n->replica), slice_of(name, strlen(name)), &s);
        if (rc == 0)
            rc = fsm_read_schedule(replica_fsm(n->replica), s->seq, &w->arena, &rec);
        if (rc == 0)
            checker_history_shown(w, c->history, index, rec->version);
        else if (rc == FSM_READ_NOT_FOUND)
            checker_history_shown(w, c->history, index, 0);
        else if (!atlas_answers_loss(n, rc))
            sim_fail(w, "node %u: schedule %s cannot be read: %s", c->node + 1, name, err_name(rc));
    }
    call_end(c);
}

static void show_schedule(struct sim_client *cl, struct sim_node *n) {
    struct world *w = cl->world;
    struct mono deadline;
    struct sim_call *c = call_begin(cl, n, &deadline);
    struct history_op *op;

    c->job_seq = rng_below(&w->rng, w->schedules); /* its name */
    c->history = checker_history_call(w, cl->slot, HISTORY_SHOW);
    op = checker_history_op(w, c->history);
    if (op)
        op->name = checker_history_name(w, 's', c->job_seq);
    if (replica_read(n->replica, deadline, show_done, c) != 0)
        call_end(c);
}

static void keep_schedules(struct sim_client *cl, struct sim_node *n) {
    unsigned flags = 0;
    struct bytes *command = sim_schedules_draw(cl->world, n, &flags);
    struct mono deadline;
    struct sim_call *c;

    if (!command)
        return;
    c = call_begin(cl, n, &deadline);
    c->history = checker_history_schedule(cl->world, cl->slot, command);
    cl->in_flight++;
    if (replica_propose(n->replica, command, flags, deadline, schedule_done, c) != 0) {
        cl->in_flight--;
        checker_history_failed(cl->world, c->history);
        call_end(c);
    }
}

void sim_client_burst(struct world *w, struct sim_node *n, unsigned count) {
    while (count-- > 0)
        submit_new(&w->clients[0], n);
    sim_node_turn(n);
}

void sim_client_act(struct sim_client *c) {
    struct world *w = c->world;
    struct sim_node *n = any_node(w);
    uint64_t dice = rng_below(&w->rng, 100);

    if (w->healing)
        return;
    if (n && !w->idle && c->in_flight < CLIENT_IN_FLIGHT_MAX) {
        uint64_t burst = rng_chance(&w->rng, w->burst_permille) ? rng_below(&w->rng, BURST_MAX) : 0;

        if (w->schedules > 0 && rng_chance(&w->rng, w->schedule_permille))
            (rng_chance(&w->rng, 800) ? keep_schedules : show_schedule)(c, n);
        else if (dice < 60)
            do
                submit_new(c, n);
            while (burst-- > 0);
        else if (dice < 70)
            submit_again(c, n);
        else if (dice < 84)
            read_job(c, n);
        else if (dice < 92)
            read_stale(c, n);
        else
            cancel_job(c, n);
        sim_node_turn(n);
    }
    /* A scenario takes long: it is about time, not load. */
    sim_push(w,
             rng_range(&w->rng, 100 * NS_PER_US,
                       w->calm && !w->busy ? MAX(w->client_gap_ns, CALM_GAP_NS) : w->client_gap_ns),
             SIM_CLIENT, c->slot, 0, 0, NULL);
}
