/* Clients that keep schedules: they create, edit, pause, resume, delete and run them, at random
 * nodes, and compare what they are told with the model. Definitions have few forms, all of which
 * schedule_rule.c reads. */
#include "sim/sim_internal.h"

#include "fsm/command.h"
#include "sim/schedule_model.h"

#include <stdlib.h>
#include <string.h>

#define EXPRESSION_BYTES 48
#define PLAN_TICKS_MAX 32

struct schedule_call {
    struct world *world;
    unsigned client;
};

/* What is proposed; the messages point into it. */
struct draft {
    Chronos__Internal__V1__LogCommand command;
    Chronos__Internal__V1__PutSchedule put;
    Chronos__Internal__V1__DeleteSchedule drop;
    Chronos__Internal__V1__PauseSchedule pause;
    Chronos__Internal__V1__RunSchedule run;
    char name[16], key[24];
    uint8_t request[16];
    int64_t ticks[8];
    Chronos__Internal__V1__ProcessTicks process;
    Chronos__Internal__V1__ScheduleTicks item, *items[1];
    Chronos__Internal__V1__DecidedTick decided[PLAN_TICKS_MAX], *decideds[PLAN_TICKS_MAX];
    Chronos__V1__ScheduleSpec spec;
    char cron[RULE_EXPRESSIONS_MAX][EXPRESSION_BYTES], exclude[EXPRESSION_BYTES];
    char *crons[RULE_EXPRESSIONS_MAX], *excludes[1];
    uint8_t spec_bytes[512];
    uint8_t job_bytes[8];
    bool keyed;
};

static int64_t wall_ms(const struct world *w) {
    return w->wall_base_ms + (int64_t) (w->now_ns / NS_PER_MS);
}

/* ---- definitions ----------------------------------------------------------------------------- */

static void draw_every(struct world *w, char out[EXPRESSION_BYTES]) {
    static const unsigned intervals[] = {1, 1, 1, 2, 3, 7, 60};
    unsigned every = intervals[rng_below(&w->rng, ARRAY_LEN(intervals))];

    (void) snprintf(out, EXPRESSION_BYTES, "@every %us", every);
    if (every > 1 && rng_chance(&w->rng, 500))
        (void) snprintf(out, EXPRESSION_BYTES, "@every %us/%us", every,
                        (unsigned) rng_below(&w->rng, every));
}

static void draw_calendar(struct world *w, char out[EXPRESSION_BYTES]) {
    static const char *const minutes[] = {"*", "0-59", "0-29", "0-59"};
    static const char *const hours[] = {"*", "2-2", "1-3", "0-23"};
    static const unsigned steps[] = {1, 2, 5};

    (void) snprintf(out, EXPRESSION_BYTES, "*/%u %s %s * * *",
                    steps[rng_below(&w->rng, ARRAY_LEN(steps))],
                    minutes[rng_below(&w->rng, ARRAY_LEN(minutes))],
                    hours[rng_below(&w->rng, ARRAY_LEN(hours))]);
}

/* protobuf-c has no const text; packing only reads it. */
static char *text(const char *s) {
    return (char *) (uintptr_t) s;
}

/* What decides the ticks. */
static void draw_timing(struct world *w, struct draft *d) {
    static const char *const zones[] = {"Sim/Central", "Sim/Central", "UTC", ""};

    d->spec.n_cron = 1 + rng_chance(&w->rng, 150);
    d->spec.cron = d->crons;
    for (size_t i = 0; i < d->spec.n_cron; i++) {
        d->crons[i] = d->cron[i];
        if (rng_chance(&w->rng, 550))
            draw_every(w, d->cron[i]);
        else
            draw_calendar(w, d->cron[i]);
    }
    if (d->spec.n_cron == 1 && rng_chance(&w->rng, 40))
        (void) snprintf(d->cron[0], EXPRESSION_BYTES, "@manual");
    d->spec.n_exclude = rng_chance(&w->rng, 100);
    d->spec.exclude = d->excludes;
    d->excludes[0] = d->exclude;
    (void) snprintf(d->exclude, sizeof(d->exclude), "*/%u * * * *",
                    (unsigned) rng_range(&w->rng, 2, 3));
    d->spec.time_zone = text(zones[rng_below(&w->rng, ARRAY_LEN(zones))]);
    d->spec.dst = (Chronos__V1__DstPolicy) rng_below(&w->rng, 3);
    d->spec.start_ms =
        rng_chance(&w->rng, 100) ? wall_ms(w) + (int64_t) rng_below(&w->rng, 6000) - 2000 : 0;
    d->spec.end_ms =
        rng_chance(&w->rng, 100) ? wall_ms(w) + (int64_t) rng_range(&w->rng, 5000, 60000) : 0;
    d->spec.spread_ms = rng_chance(&w->rng, 150) ? (int64_t) rng_below(&w->rng, 500) : 0;
    d->spec.jitter_ms = rng_chance(&w->rng, 150) ? (int64_t) rng_below(&w->rng, 500) : 0;
}

/* What becomes of them. */
static void draw_policies(struct world *w, struct draft *d) {
    d->spec.missed = (Chronos__V1__MissedPolicy) rng_below(&w->rng, 3);
    d->spec.catchup_window_ms =
        rng_chance(&w->rng, 300) ? (int64_t) rng_range(&w->rng, 3, 100) * 1000 : 0;
    d->spec.overlap = (Chronos__V1__OverlapPolicy) rng_below(&w->rng, 6);
    d->spec.pause_on_failure = rng_chance(&w->rng, 150);
    d->spec.max_runs = rng_chance(&w->rng, 150) ? rng_range(&w->rng, 1, 12) : 0;
}

static bool pack(struct world *w, struct draft *d) {
    static const uint8_t job[] = {0x1a, 0, 0x62, 4, 't', 'i', 'c', 'k'}; /* JobSpec{noop, name} */

    if (chronos__v1__schedule_spec__get_packed_size(&d->spec) > sizeof(d->spec_bytes))
        return false;
    d->put.spec.data = d->spec_bytes;
    d->put.spec.len = chronos__v1__schedule_spec__pack(&d->spec, d->spec_bytes);
    memcpy(d->job_bytes, job, sizeof(job));
    d->put.job.data = d->job_bytes;
    d->put.job.len = sizeof(job);
    d->put.max_attempts = (uint32_t) rng_range(&w->rng, 1, 3);
    d->put.queue = text("default");
    d->put.overlap = d->spec.overlap;
    d->put.pause_on_failure = d->spec.pause_on_failure;
    d->put.max_runs = d->spec.max_runs;
    d->put.name = d->name;
    d->command.body_case = CHRONOS__INTERNAL__V1__LOG_COMMAND__BODY_PUT_SCHEDULE;
    d->command.put_schedule = &d->put;
    return true;
}

/* Keys come again now and then, with the same request or with another. */
static void draw_key(struct world *w, struct draft *d, char kind) {
    unsigned number = w->schedule_keys;

    d->keyed = rng_chance(&w->rng, 600);
    if (!d->keyed)
        return;
    if (number > 0 && rng_chance(&w->rng, 200))
        number = (unsigned) rng_below(&w->rng, number);
    else
        w->schedule_keys++;
    (void) snprintf(d->key, sizeof(d->key), "%c-%u", kind, number);
    memcpy(d->request, d->key, MIN(sizeof(d->request), sizeof(d->key)));
    if (rng_chance(&w->rng, 50))
        d->request[15] = 1;
}

static bool draft_create(struct world *w, struct draft *d) {
    d->spec.name = d->name;
    draw_timing(w, d);
    draw_policies(w, d);
    draw_key(w, d, 'p');
    d->put.create = true;
    d->put.paused = rng_chance(&w->rng, 50);
    d->put.idempotency_key = d->key;
    d->put.request_hash.data = d->request;
    d->put.request_hash.len = sizeof(d->request);
    return pack(w, d);
}

/* Copies what a node says it is, and changes a part; the version guards the rest. */
static bool draft_edit(struct world *w, struct sim_node *n, struct draft *d) {
    const struct fsm_schedule *s = NULL;
    Chronos__Internal__V1__ScheduleRecord *rec = NULL;
    Chronos__V1__ScheduleSpec *old = NULL;
    struct fsm *f = replica_fsm(n->replica);
    int rc;

    if (fsm_schedule_find(f, slice_of(d->name, strlen(d->name)), &s) != 0)
        return false;
    arena_clear(&w->arena);
    rc = fsm_read_schedule(f, s->seq, &w->arena, &rec);
    if (atlas_answers_loss(n, rc))
        return false;
    if (rc == 0)
        old =
            chronos__v1__schedule_spec__unpack(arena_pb(&w->arena), rec->spec.len, rec->spec.data);
    if (!old) {
        sim_fail(w, "node %u: schedule %s cannot be read", n->slot + 1, d->name);
        return false;
    }
    d->spec = *old;
    d->put.new_generation = rng_chance(&w->rng, 600);
    d->put.version = rec->version;
    if (d->put.new_generation) {
        draw_timing(w, d);
        if (rng_chance(&w->rng, 300))
            d->put.version = 0;
    }
    if (!d->put.new_generation || rng_chance(&w->rng, 300))
        draw_policies(w, d);
    return pack(w, d);
}

/* ---- the other commands ---------------------------------------------------------------------- */

static bool draft_pause(struct world *w, struct draft *d) {
    d->pause.name = rng_chance(&w->rng, 200) ? text("") : d->name;
    d->pause.on = rng_chance(&w->rng, 300);
    if (d->pause.on && rng_chance(&w->rng, 600))
        d->pause.until_ms = wall_ms(w) + (int64_t) rng_below(&w->rng, 8000) - 1000;
    d->pause.until_ms = MAX(d->pause.until_ms, 0);
    d->command.body_case = CHRONOS__INTERNAL__V1__LOG_COMMAND__BODY_PAUSE_SCHEDULE;
    d->command.pause_schedule = &d->pause;
    return true;
}

/* The version that a node knows, at times one before. */
static uint64_t draw_version(struct world *w, struct sim_node *n, const struct draft *d) {
    struct fsm *f = replica_fsm(n->replica);
    Chronos__Internal__V1__ScheduleRecord *rec = NULL;
    const struct fsm_schedule *s = NULL;

    arena_clear(&w->arena);
    if (rng_chance(&w->rng, 500) ||
        fsm_schedule_find(f, slice_of(d->name, strlen(d->name)), &s) != 0 ||
        fsm_read_schedule(f, s->seq, &w->arena, &rec) != 0)
        return 0;
    return rec->version - rng_chance(&w->rng, 400);
}

static bool draft_delete(struct world *w, struct sim_node *n, struct draft *d) {
    d->drop.name = d->name;
    d->drop.cancel_open_runs = rng_chance(&w->rng, 500);
    d->drop.version = draw_version(w, n, d);
    d->command.body_case = CHRONOS__INTERNAL__V1__LOG_COMMAND__BODY_DELETE_SCHEDULE;
    d->command.delete_schedule = &d->drop;
    return true;
}

static bool draft_run(struct world *w, struct draft *d) {
    int64_t at_s = wall_ms(w) / 1000 - (int64_t) rng_below(&w->rng, 100);

    draw_key(w, d, 'r');
    d->run.name = d->name;
    d->run.reason = TICK_REASON(TRIGGER);
    d->run.ignore_overlap = rng_chance(&w->rng, 300);
    d->run.idempotency_key = d->key;
    d->run.request_hash.data = d->request;
    d->run.request_hash.len = sizeof(d->request);
    d->run.tick_s = d->ticks;
    if (rng_chance(&w->rng, 500)) {
        d->run.reason = TICK_REASON(BACKFILL);
        d->run.n_tick_s = rng_range(&w->rng, 1, ARRAY_LEN(d->ticks));
        for (size_t i = 0; i < d->run.n_tick_s; i++)
            d->ticks[i] = at_s += (int64_t) rng_range(&w->rng, 1, 10);
    }
    d->command.body_case = CHRONOS__INTERNAL__V1__LOG_COMMAND__BODY_RUN_SCHEDULE;
    d->command.run_schedule = &d->run;
    return true;
}

/* As a leader of before would send it late: what it decided goes back behind the watermark. What is
 * new in it is on time, by the clock of @n. */
static bool draft_old_plan(struct world *w, struct sim_node *n, struct draft *d) {
    const struct model_schedule *s = w->checker.schedules->first;
    int64_t now_s = sim_clock_wall(n).ms / 1000, from_s;

    for (uint64_t i = rng_below(&w->rng, w->schedules); s && i > 0; i--)
        s = s->next;
    if (!s || s->torn || s->watermark_s > now_s)
        return false;
    from_s = s->watermark_s - (int64_t) rng_below(&w->rng, 10);
    chronos__internal__v1__schedule_ticks__init(&d->item);
    d->item.schedule_seq = s->seq;
    d->item.generation = s->generation;
    d->item.ticks = d->decideds;
    for (int64_t at = from_s; at <= now_s; at++) {
        Chronos__Internal__V1__DecidedTick *t = &d->decided[d->item.n_ticks];

        if (!rule_is_tick(&s->rule, at))
            continue;
        if ((at > s->watermark_s && at < now_s - 1) || d->item.n_ticks == PLAN_TICKS_MAX)
            return false;
        chronos__internal__v1__decided_tick__init(t);
        t->tick_s = d->item.watermark_s = at;
        t->reason = TICK_REASON(ON_TIME);
        d->decideds[d->item.n_ticks++] = t;
    }
    d->items[0] = &d->item;
    chronos__internal__v1__process_ticks__init(&d->process);
    d->process.n_items = 1;
    d->process.items = d->items;
    d->command.body_case = CHRONOS__INTERNAL__V1__LOG_COMMAND__BODY_PROCESS_TICKS;
    d->command.process_ticks = &d->process;
    return d->item.n_ticks > 0;
}

static bool draft_any(struct world *w, struct sim_node *n, struct draft *d) {
    uint64_t dice = rng_below(&w->rng, 100);

    chronos__internal__v1__log_command__init(&d->command);
    chronos__internal__v1__put_schedule__init(&d->put);
    chronos__internal__v1__delete_schedule__init(&d->drop);
    chronos__internal__v1__pause_schedule__init(&d->pause);
    chronos__internal__v1__run_schedule__init(&d->run);
    chronos__v1__schedule_spec__init(&d->spec);
    (void) snprintf(d->name, sizeof(d->name), "s%u", (unsigned) rng_below(&w->rng, w->schedules));
    if (rng_chance(&w->rng, 80))
        return draft_old_plan(w, n, d);
    if (dice < 40)
        return draft_create(w, d);
    if (dice < 60)
        return draft_edit(w, n, d);
    if (dice < 80)
        return draft_pause(w, d);
    return dice < 93 ? draft_run(w, d) : draft_delete(w, n, d);
}

/* ---- calls ----------------------------------------------------------------------------------- */

void sim_schedules_done(struct world *w, const struct replica_proposed *res) {
    const struct fsm_result *r;

    if (res->status != REPLICA_OK)
        return;
    w->checker.acked_index = MAX(w->checker.acked_index, res->index);
    if (res->output->results_count != 1) {
        sim_fail(w, "entry %llu: %zu results for one command about a schedule",
                 (unsigned long long) res->index, res->output->results_count);
        return;
    }
    r = &res->output->results[0];
    if (res->output->kind == CHRONOS__INTERNAL__V1__LOG_COMMAND__BODY_PROCESS_TICKS)
        return; /* an old plan: what becomes of it is in the state */
    schedule_model_answered(w->checker.schedules, res->index, (int) r->code, r->schedule_seq);
}

/* A command about a schedule; NULL: nothing to do just now. *ret_flags for replica_propose. */
struct bytes *sim_schedules_draw(struct world *w, struct sim_node *n, unsigned *ret_flags) {
    struct draft *d = calloc(1, sizeof(*d));
    struct bytes *command = NULL;

    if (!d || (draft_any(w, n, d) && command_encode(&d->command, &command) < 0))
        w->no_memory = true;
    *ret_flags = d && d->keyed ? REPLICA_RETRY_SAFE : 0U;
    free(d);
    return command;
}
