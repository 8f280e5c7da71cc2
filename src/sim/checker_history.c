/* Histories of the simulated clients and workers, and what the judge says about them (R16, J1-J3,
 * J12, J19, J22). Every call and every answer has an instant of its own: the order of the events of
 * the world is finer than its clock. Thread: one. */
#include "sim/checker_model.h"

#include "sim/linear.h"

#include <stdio.h>
#include <stdlib.h>

#define STATES_MAX 200000

size_t checker_history_call(struct world *w, unsigned client, enum history_kind kind) {
    struct checker_model *c = w->checker.model;
    struct history_op *op;

    if (!c->recording)
        return 0;
    op = history_op_add(&c->history);
    if (!op) {
        w->no_memory = true;
        return 0;
    }
    op->line = (uint32_t) c->history.count;
    op->client = client;
    op->kind = kind;
    op->outcome = HISTORY_UNKNOWN;
    op->begin_ns = ++c->ticks;
    return c->history.count;
}

struct history_op *checker_history_op(struct world *w, size_t at) {
    return at > 0 ? &w->checker.model->history.ops[at - 1] : NULL;
}

const char *checker_history_name(struct world *w, char kind, uint64_t number) {
    char text[32];
    const char *name;

    (void) snprintf(text, sizeof(text), "%c%llu", kind, (unsigned long long) number);
    name = history_name(&w->checker.model->history, text);
    if (!name)
        w->no_memory = true;
    return name ? name : "";
}

struct history_op *checker_history_ok(struct world *w, size_t at, uint64_t index) {
    struct history_op *op = checker_history_op(w, at);

    if (!op)
        return NULL;
    op->outcome = HISTORY_OK;
    op->end_ns = ++w->checker.model->ticks;
    op->index = index;
    return op;
}

void checker_history_failed(struct world *w, size_t at) {
    struct history_op *op = checker_history_op(w, at);

    if (!op)
        return;
    op->outcome = HISTORY_FAIL;
    op->end_ns = ++w->checker.model->ticks;
}

void checker_history_job(struct world *w, size_t at, uint64_t index,
                         const Chronos__Internal__V1__JobRecord *rec) {
    struct history_op *op = checker_history_ok(w, at, index);

    if (!op)
        return;
    if (!rec) {
        op->result = HISTORY_MISSING;
        return;
    }
    op->state = (enum history_state) rec->state;
    op->attempt = rec->attempt;
    op->cancel = rec->cancel_requested;
    op->attempt_known = op->cancel_known = true;
}

/* ---- schedules ------------------------------------------------------------------------------- */

static void question_of(struct history *h, struct history_op *op,
                        const Chronos__Internal__V1__LogCommand *c) {
    if (c->body_case == CHRONOS__INTERNAL__V1__LOG_COMMAND__BODY_PUT_SCHEDULE) {
        op->kind = HISTORY_PUT;
        op->create = c->put_schedule->create;
        op->expect = op->create ? 0 : c->put_schedule->version;
        op->name = history_name(h, c->put_schedule->name);
    } else if (c->body_case == CHRONOS__INTERNAL__V1__LOG_COMMAND__BODY_DELETE_SCHEDULE) {
        op->kind = HISTORY_DROP;
        op->expect = c->delete_schedule->version;
        op->name = history_name(h, c->delete_schedule->name);
    }
}

size_t checker_history_schedule(struct world *w, unsigned client, const struct bytes *command) {
    struct checker_model *c = w->checker.model;
    Chronos__Internal__V1__LogCommand *asked;
    struct history_op op = {.outcome = HISTORY_UNKNOWN, .end_ns = HISTORY_NEVER}, *at;
    size_t place;

    if (!c->recording)
        return 0;
    arena_clear(&w->arena);
    asked = chronos__internal__v1__log_command__unpack(arena_pb(&w->arena), command->len,
                                                       command->data);
    if (asked)
        question_of(&c->history, &op, asked);
    if (!op.name)
        return 0; /* pauses and runs by hand do not make another version */
    place = checker_history_call(w, client, op.kind);
    at = checker_history_op(w, place);
    if (at) {
        at->create = op.create;
        at->expect = op.expect;
        at->name = op.name;
    }
    return place;
}

void checker_history_scheduled(struct world *w, size_t at, const struct replica_proposed *res) {
    const struct fsm_result *r = res->output->results;
    struct history_op *op;

    if (r->code == FSM_EXISTING)
        return; /* its key was found: it may have made it itself, earlier */
    if (r->code == FSM_REFUSED || r->code == FSM_KEY_CONFLICT) {
        checker_history_failed(w, at);
        return;
    }
    op = checker_history_ok(w, at, res->index);
    if (!op)
        return;
    op->result = r->code == FSM_NAME_TAKEN         ? HISTORY_TAKEN
                 : r->code == FSM_VERSION_MISMATCH ? HISTORY_MISMATCH
                 : r->code == FSM_NOT_FOUND        ? HISTORY_MISSING
                                                   : HISTORY_DONE;
    op->version = op->kind == HISTORY_PUT && r->code == FSM_OK ? r->version : 0;
}

void checker_history_shown(struct world *w, size_t at, uint64_t index, uint64_t version) {
    struct history_op *op = checker_history_ok(w, at, index);

    if (!op)
        return;
    op->result = version == 0 ? HISTORY_MISSING : HISTORY_DONE;
    op->version = version;
}

/* ---- the end --------------------------------------------------------------------------------- */

/* What schedules do to their runs nobody has recorded. */
static void leave_out_runs(struct world *w) {
    struct checker_model *c = w->checker.model;

    for (size_t i = 0; i < c->history.count; i++) {
        struct history_op *op = &c->history.ops[i];
        const struct jm_job *j;

        if (op->kind == HISTORY_SUBMIT || !op->job)
            continue;
        j = job_model_find(c->jobs, strtoull(op->job + 1, NULL, 10));
        if (j && j->schedule_seq != 0)
            op->outcome = HISTORY_FAIL;
    }
}

/* In the form of history.h, for `chronos-sim --check-history`. */
static void trace_history(struct world *w) {
    const struct history *h = &w->checker.model->history;
    char line[512];

    for (size_t i = 0; w->o.trace && i < h->count; i++) {
        (void) history_print(&h->ops[i], line, sizeof(line));
        sim_trace(w, "history: %s", line);
    }
}

void checker_history_judge(struct world *w) {
    struct checker_model *c = w->checker.model;
    struct linear_options o = {.states_max = STATES_MAX};
    struct linear_report report;

    if (!c->recording)
        return;
    leave_out_runs(w);
    trace_history(w);
    if (linear_check_history(&c->history, &o, &report) < 0) {
        w->no_memory = true;
        return;
    }
    if (report.verdict != LINEAR_HOLDS)
        sim_fail(w, "%s: %s",
                 report.verdict == LINEAR_BROKEN ? "not linearizable"
                                                 : "a history cannot be judged within its bounds",
                 report.why);
    sim_count(w, SIM_STAT_HISTORIES_JUDGED);
    w->result->stats[SIM_STAT_HISTORIES_SEARCHED] += report.searched;
}
