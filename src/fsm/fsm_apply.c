/* One log entry: decode, move the logical clock, hand each item to its command's handler.
 * Thread: the loop. */
#include "fsm/fsm_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#define BODY(x) CHRONOS__INTERNAL__V1__LOG_COMMAND__BODY_##x
#define PURGE_PER_COMMAND 16 /* expired keys dropped with any command */

static apply_item_fn *const handlers[COMMAND_BODY_MAX + 1] = {
    [BODY(SUBMIT_JOB)] = apply_submit_job,
    [BODY(ASSIGN_JOB)] = apply_assign_job,
    [BODY(REGISTER_WORKER)] = apply_register_worker,
    [BODY(UPDATE_JOB_STATUS)] = apply_update_job_status,
    [BODY(BATCH_UPDATE_JOB_STATUS)] = apply_update_job_status,
    [BODY(CANCEL_JOB)] = apply_cancel_job,
    [BODY(LOSE_WORKER)] = apply_lose_worker,
    [BODY(SET_NODE)] = apply_set_node,
    [BODY(DRAIN)] = apply_drain,
    [BODY(SET_FEATURE_LEVEL)] = apply_set_feature_level,
    [BODY(PUT_SCHEDULE)] = apply_put_schedule,
    [BODY(DELETE_SCHEDULE)] = apply_delete_schedule,
    [BODY(PAUSE_SCHEDULE)] = apply_pause_schedule,
    [BODY(PROCESS_TICKS)] = apply_process_ticks,
    [BODY(RUN_SCHEDULE)] = apply_run_schedule,
    [BODY(SET_SCHEDULE_ALARM)] = apply_set_schedule_alarm,
};

static int results_reserve(struct fsm *f, size_t n) {
    struct fsm_result *results;

    ASSERT(n <= FSM_ITEMS_MAX);
    if (n <= f->results_cap)
        return 0;
    results = realloc(f->results, n * sizeof(*results));
    if (!results)
        return -ENOMEM;
    f->results = results;
    f->results_cap = n;
    return 0;
}

static int apply_items(struct fsm *f, struct apply *a, const struct command_view *v) {
    const struct command_kind *kind = command_kind_of(v->kind);
    struct command_items it = command_items_of(v);
    union record_item decoded;
    struct slice raw;
    size_t n = 0, at = 0;
    int r;

    ASSERT(handlers[v->kind]);
    ASSERT(kind->item->struct_bytes <= sizeof(decoded));
    while ((r = command_items_next(&it, &raw)) == 0) {
        ASSERT(n < f->results_cap);
        r = record_decode(kind->item, raw, &decoded, &at);
        if (r < 0) {
            errtext_set(a->err, "entry %" PRIu64 ": %s item %zu is malformed at byte %zu", a->index,
                        kind->name, n, at);
            return r;
        }
        f->results[n] = (struct fsm_result){.code = FSM_OK};
        r = handlers[v->kind](f, a, &decoded, raw, &f->results[n]);
        if (r < 0)
            return r;
        n++;
    }
    ASSERT(r == COMMAND_ITEMS_END);
    ASSERT(n == v->items_count);
    f->output.results_count = n;
    return 0;
}

static int apply_command(struct fsm *f, struct apply *a, struct slice command) {
    struct command_view v;
    int r;

    r = command_parse(command, &v, a->err);
    if (r < 0)
        return r;
    if (v.now_ms < 0) {
        errtext_set(a->err, "entry %" PRIu64 " carries no time", a->index);
        return ERR_PROTO;
    }
    /* J7: logical time never runs backwards, whatever the clocks of successive leaders say. */
    a->now_ms = f->last_now_ms = MAX(f->last_now_ms, v.now_ms);
    f->output.kind = v.kind;
    r = results_reserve(f, v.items_count);
    if (r == 0)
        r = keys_purge(f, a, 0, PURGE_PER_COMMAND);
    if (r == 0)
        r = apply_items(f, a, &v);
    return r;
}

void apply_begin(struct fsm *f, uint64_t index, uint64_t term) {
    ASSERT(f);
    ASSERT(!f->failed);
    ASSERT(index == f->applied_index + 1);
    ASSERT(term >= f->applied_term);
    arena_clear(&f->arena);
    f->output = (struct fsm_output){0};
}

int apply_end(struct fsm *f, const struct apply *a, uint64_t term, int result,
              const struct fsm_output **ret) {
    ASSERT(ret);
    ASSERT(result <= 0);
    if (result < 0) {
        f->failed = true; /* some items may be in: the log must be replayed on what was written */
        if (a->err && a->err->s[0] == '\0')
            errtext_set(a->err, "entry %" PRIu64 ": %s", a->index, err_name(result));
        return result;
    }
    f->applied_index = a->index;
    f->applied_term = term;
    f->output.now_ms = f->last_now_ms;
    f->output.results = f->results;
    f->output.events = f->events;
    f->output.schedules = f->schedule_events;
    f->output.ticks = f->ticks;
    ASSERT(!f->work.view);
    ASSERT(f->counts[S_PENDING] + f->counts[S_RUNNING] == f->jobs.count);
    ASSERT((f->counts[S_PENDING] == 0) == (f->ready_first == NULL));
    *ret = &f->output;
    return 0;
}

int fsm_apply(struct fsm *f, uint64_t index, uint64_t term, struct slice command,
              const struct fsm_output **ret, struct errtext *reterr) {
    struct apply a = {.index = index, .err = reterr};
    int r = 0;

    apply_begin(f, index, term);
    if (command.len > 0)
        r = apply_command(f, &a, command);
    return apply_end(f, &a, term, r, ret);
}
