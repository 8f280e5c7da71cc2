/* Clients: submits, cancels and linearizable reads at random nodes, and what they were told. */
#include "sim/sim_internal.h"

#include "fsm/command.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define CLIENT_IN_FLIGHT_MAX 16

struct call {
    struct world *world;
    unsigned op;
    unsigned client;
    uint64_t acked_index; /* reads: what was acknowledged anywhere before this read began */
    uint64_t job_seq;     /* reads: a job that must be there */
    unsigned node;
};

static struct sim_node *any_node(struct world *w) {
    struct sim_node *n = &w->nodes[rng_below(&w->rng, w->nodes_count)];

    return n->up ? n : NULL;
}

static int encode_submit(struct world *w, const struct sim_op *op, struct bytes **ret) {
    Chronos__Internal__V1__LogCommand cmd = CHRONOS__INTERNAL__V1__LOG_COMMAND__INIT;
    Chronos__Internal__V1__SubmitJob body = CHRONOS__INTERNAL__V1__SUBMIT_JOB__INIT;
    Chronos__Internal__V1__SubmitJobItem item = CHRONOS__INTERNAL__V1__SUBMIT_JOB_ITEM__INIT;
    Chronos__Internal__V1__SubmitJobItem *items[] = {&item};
    /* JobSpec{noop, name}: the name tells checker_final which submit a job came from. */
    uint8_t spec[] = {0x1a, 0, 0x62, 4, 0, 0, 0, 0};
    uint8_t hash[16] = {0};
    char key[32] = "", queue[] = "default";

    (void) w;
    if (op->keyed)
        (void) snprintf(key, sizeof(key), "op-%u", op->number);
    hash[0] = (uint8_t) op->number;
    for (int i = 0; i < 4; i++)
        spec[4 + i] = (uint8_t) ('a' + (op->number >> (4 * i) & 15));
    item.spec.data = spec;
    item.spec.len = sizeof(spec);
    item.idempotency_key = key;
    item.request_hash.data = hash;
    item.request_hash.len = sizeof(hash);
    item.max_attempts = 5;
    item.queue = queue;
    body.items = items;
    body.n_items = 1;
    cmd.body_case = CHRONOS__INTERNAL__V1__LOG_COMMAND__BODY_SUBMIT_JOB;
    cmd.submit_job = &body;
    return command_encode(&cmd, ret);
}

static void submit_acked(struct world *w, struct sim_op *op, const struct replica_proposed *res) {
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
    if (r->code == FSM_EXISTING && op->tries == 1)
        sim_fail(w, "op %u: a first try found its key taken", op->number);
    if (op->job_seq != 0 && op->job_seq != r->job_seq)
        sim_fail(w, "op %u: job %llu before, job %llu now", op->number,
                 (unsigned long long) op->job_seq, (unsigned long long) r->job_seq);
    op->job_seq = r->job_seq;
    if (op->state != OP_ACKED)
        w->result->acked++;
    op->state = OP_ACKED;
    w->checker.acked_index = MAX(w->checker.acked_index, res->index);
}

static void submit_done(void *arg, const struct replica_proposed *res) {
    struct call *c = arg;
    struct world *w = c->world;
    struct sim_op *op = &w->ops[c->op];

    w->ops_pending--;
    w->clients[c->client].in_flight--;
    sim_trace(w, "client %u: op %u status=%d index=%llu", c->client, op->number, (int) res->status,
              (unsigned long long) res->index);
    if (res->status == REPLICA_OK) {
        submit_acked(w, op, res);
    } else if (res->status == REPLICA_UNKNOWN || res->status == REPLICA_STOPPING) {
        if (op->state == OP_PENDING) {
            op->state = OP_UNKNOWN;
            w->result->unknown++;
        }
    } else if (op->state == OP_PENDING && op->tries == 1) {
        op->state = OP_REFUSED; /* certainly not submitted */
        w->result->refused++;
    }
    free(c);
}

static void submit(struct sim_client *cl, struct sim_node *n, struct sim_op *op) {
    struct world *w = cl->world;
    struct call *c = malloc(sizeof(*c));
    struct bytes *command = NULL;
    int rc;

    ASSERT(c);
    *c = (struct call){.world = w, .op = (unsigned) (op - w->ops), .client = cl->slot};
    op->tries++;
    if (encode_submit(w, op, &command) < 0) {
        w->no_memory = true;
        free(c);
        return;
    }
    w->ops_pending++;
    cl->in_flight++;
    rc = replica_propose(n->replica, command, op->keyed ? REPLICA_RETRY_SAFE : 0U, MONO_NEVER,
                         submit_done, c);
    if (rc != 0) {
        w->ops_pending--;
        cl->in_flight--;
        if (op->tries == 1) {
            op->state = OP_REFUSED;
            w->result->refused++;
        }
        free(c);
    }
}

static void submit_new(struct sim_client *cl, struct sim_node *n) {
    struct world *w = cl->world;
    struct sim_op *op;

    if (w->ops_count == SIM_OPS_MAX)
        return;
    op = &w->ops[w->ops_count];
    *op = (struct sim_op){.number = w->ops_count, .keyed = rng_chance(&w->rng, 600)};
    op->begun_at = w->now_ns;
    w->ops_count++;
    w->result->submitted++;
    submit(cl, n, op);
}

/* An unknown outcome with a key may be tried again: it must yield the same job. */
static void submit_again(struct sim_client *cl, struct sim_node *n) {
    struct world *w = cl->world;

    for (unsigned i = 0; i < 8 && w->ops_count > 0; i++) {
        struct sim_op *op = &w->ops[rng_below(&w->rng, w->ops_count)];

        if (!op->keyed || op->state == OP_PENDING || op->state == OP_REFUSED)
            continue;
        submit(cl, n, op);
        return;
    }
}

static void read_done(void *arg, enum replica_status status, uint64_t index) {
    struct call *c = arg;
    struct world *w = c->world;
    struct sim_node *n = &w->nodes[c->node];
    Chronos__Internal__V1__JobRecord *rec = NULL;

    w->ops_pending--;
    if (status == REPLICA_OK) {
        w->result->reads++;
        if (index < c->acked_index)
            sim_fail(w, "node %u: read at %llu, but %llu was acknowledged before it began",
                     c->node + 1, (unsigned long long) index, (unsigned long long) c->acked_index);
        arena_clear(&w->arena);
        if (c->job_seq != 0 &&
            fsm_read_job(replica_fsm(n->replica), c->job_seq, &w->arena, &rec) != 0)
            sim_fail(w, "node %u: acknowledged job %llu is missing from a linearizable read",
                     c->node + 1, (unsigned long long) c->job_seq);
    }
    free(c);
}

static void read_job(struct sim_client *cl, struct sim_node *n) {
    struct world *w = cl->world;
    struct call *c = malloc(sizeof(*c));

    ASSERT(c);
    *c = (struct call){
        .world = w, .client = cl->slot, .acked_index = w->checker.acked_index, .node = n->slot};
    if (w->ops_count > 0) {
        const struct sim_op *op = &w->ops[rng_below(&w->rng, w->ops_count)];

        if (op->state == OP_ACKED)
            c->job_seq = op->job_seq;
    }
    w->ops_pending++;
    if (replica_read(n->replica, MONO_NEVER, read_done, c) != 0) {
        w->ops_pending--;
        free(c);
    }
}

static void cancel_done(void *arg, const struct replica_proposed *res) {
    struct call *c = arg;

    c->world->ops_pending--;
    if (res->status == REPLICA_OK)
        c->world->checker.acked_index = MAX(c->world->checker.acked_index, res->index);
    free(c);
}

static void cancel_job(struct sim_client *cl, struct sim_node *n) {
    Chronos__Internal__V1__LogCommand cmd = CHRONOS__INTERNAL__V1__LOG_COMMAND__INIT;
    Chronos__Internal__V1__CancelJob body = CHRONOS__INTERNAL__V1__CANCEL_JOB__INIT;
    Chronos__Internal__V1__CancelJobItem item = CHRONOS__INTERNAL__V1__CANCEL_JOB_ITEM__INIT;
    Chronos__Internal__V1__CancelJobItem *items[] = {&item};
    struct world *w = cl->world;
    struct bytes *command = NULL;
    struct call *c;

    item.job_seq = 1 + rng_below(&w->rng, w->result->acked + 1);
    body.items = items;
    body.n_items = 1;
    cmd.body_case = CHRONOS__INTERNAL__V1__LOG_COMMAND__BODY_CANCEL_JOB;
    cmd.cancel_job = &body;
    if (command_encode(&cmd, &command) < 0) {
        w->no_memory = true;
        return;
    }
    c = malloc(sizeof(*c));
    ASSERT(c);
    *c = (struct call){.world = w, .client = cl->slot};
    w->ops_pending++;
    if (replica_propose(n->replica, command, REPLICA_RETRY_SAFE, MONO_NEVER, cancel_done, c) != 0) {
        w->ops_pending--;
        free(c);
    }
}

void sim_client_act(struct sim_client *c) {
    struct world *w = c->world;
    struct sim_node *n = any_node(w);
    uint64_t dice = rng_below(&w->rng, 100);

    if (w->healing)
        return;
    if (n && c->in_flight < CLIENT_IN_FLIGHT_MAX) {
        if (dice < 60)
            submit_new(c, n);
        else if (dice < 70)
            submit_again(c, n);
        else if (dice < 92)
            read_job(c, n);
        else
            cancel_job(c, n);
        sim_node_turn(n);
    }
    sim_push(w, rng_range(&w->rng, 100 * NS_PER_US, 60 * NS_PER_MS), SIM_CLIENT, c->slot, 0, 0,
             NULL);
}
