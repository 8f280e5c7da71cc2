/* Schedules and ticks in words; declared in cli_schedule.h. */
#include "cli/cli_job.h"
#include "cli/cli_schedule.h"

#include "sched/cron.h"

#include <inttypes.h>
#include <string.h>

#define LABEL_COLUMNS 14

const char *schedule_state(const Chronos__V1__Schedule *s) {
    if (s->finished)
        return "finished";
    if (s->alarm[0])
        return "alarm";
    return s->paused ? "paused" : "active";
}

const char *schedule_state_colour(const Chronos__V1__Schedule *s) {
    if (s->finished)
        return NULL;
    if (s->alarm[0])
        return "31";
    return s->paused ? "33" : "32";
}

const char *schedule_expressions(const Chronos__V1__ScheduleSpec *spec, char *out, size_t bytes) {
    size_t used = 0;

    ASSERT(bytes > 0);
    out[0] = '\0';
    for (size_t i = 0; i < spec->n_cron && used < bytes; i++)
        used +=
            (size_t) snprintf(out + used, bytes - used, "%s%s", i > 0 ? "; " : "", spec->cron[i]);
    return out;
}

const char *schedule_reason_text(Chronos__V1__TickReason r) {
    switch (r) {
    case CHRONOS__V1__TICK_REASON__TICK_REASON_ON_TIME:
        return "on time";
    case CHRONOS__V1__TICK_REASON__TICK_REASON_FAILOVER:
        return "late: leadership moved";
    case CHRONOS__V1__TICK_REASON__TICK_REASON_CATCH_UP:
        return "late: caught up";
    case CHRONOS__V1__TICK_REASON__TICK_REASON_TRIGGER:
        return "by hand";
    case CHRONOS__V1__TICK_REASON__TICK_REASON_BACKFILL:
        return "backfill";
    case CHRONOS__V1__TICK_REASON__TICK_REASON_BUFFERED:
        return "after an open run";
    case CHRONOS__V1__TICK_REASON__TICK_REASON_WINDOW:
        return "older than the catch-up window";
    case CHRONOS__V1__TICK_REASON__TICK_REASON_MISSED:
        return "late, and the policy runs none or only the newest";
    case CHRONOS__V1__TICK_REASON__TICK_REASON_OVERLAP:
        return "an earlier run was open";
    case CHRONOS__V1__TICK_REASON__TICK_REASON_PAUSED:
        return "paused";
    case CHRONOS__V1__TICK_REASON__TICK_REASON_CAP:
        return "too many at once";
    case CHRONOS__V1__TICK_REASON__TICK_REASON_EXPIRED:
        return "max_runs is used up";
    case CHRONOS__V1__TICK_REASON__TICK_REASON_DELETED:
        return "deleted or edited first";
    case CHRONOS__V1__TICK_REASON__TICK_REASON_UNSPECIFIED:
    case _CHRONOS__V1__TICK_REASON_IS_INT_SIZE:
        break;
    }
    return "unknown";
}

const char *schedule_outcome_text(const Chronos__V1__TickOutcome *t) {
    if (t->waiting)
        return "waiting";
    return t->fired ? "fired" : "not run";
}

/* ---- ticks ------------------------------------------------------------------------------------
 */

const struct table_column schedule_tick_columns[SCHEDULE_TICK_COLUMNS] = {
    {"TICK", TABLE_LEFT, false},   {"OUTCOME", TABLE_LEFT, false}, {"REASON", TABLE_LEFT, true},
    {"TICKS", TABLE_RIGHT, false}, {"JOB", TABLE_LEFT, false},     {"LATE", TABLE_RIGHT, false},
};

/* How late a tick's run was decided; of what was asked for by hand that says nothing. */
static const char *lateness(const Chronos__V1__TickOutcome *o, char out[32]) {
    bool by_hand = o->reason == CHRONOS__V1__TICK_REASON__TICK_REASON_TRIGGER ||
                   o->reason == CHRONOS__V1__TICK_REASON__TICK_REASON_BACKFILL;

    if (!o->fired || o->waiting || by_hand || o->decided_at_ms < o->tick_ms)
        return "-";
    return text_elapsed(o->decided_at_ms - o->tick_ms, out);
}

int schedule_tick_row(struct table *t, const Chronos__V1__TickOutcome *o) {
    char first[32], last[32], late[32];
    int r;

    if (o->count > 1)
        r = table_add(t, NULL, "%s to %s", text_time(o->tick_ms, first),
                      text_time(o->last_tick_ms, last));
    else
        r = table_add(t, NULL, "%s", text_time(o->tick_ms, first));
    if (r == 0)
        r = table_add(t, o->waiting ? "33" : (o->fired ? "32" : "35"), "%s",
                      schedule_outcome_text(o));
    if (r == 0)
        r = table_add(t, NULL, "%s", schedule_reason_text(o->reason));
    if (r == 0)
        r = table_add(t, NULL, "%" PRIu64, o->count);
    if (r == 0)
        r = table_add(t, NULL, "%s", o->job_id[0] ? o->job_id : "-");
    if (r == 0)
        r = table_add(t, NULL, "%s", lateness(o, late));
    return r;
}

/* ---- one schedule in full ---------------------------------------------------------------------
 */

static int print_expressions(const Chronos__V1__ScheduleSpec *spec) {
    int r = 0;

    for (size_t i = 0; r == 0 && i < spec->n_cron; i++) {
        char text[2048], words[1024] = "";
        struct cron c;

        if (cron_parse(spec->cron[i], spec->name,
                       spec->day_match == CHRONOS__V1__DAY_MATCH__DAY_MATCH_AND, &c, NULL) == 0)
            cron_describe(&c, words, sizeof(words));
        (void) snprintf(text, sizeof(text), "%.512s%s%s%s", spec->cron[i], words[0] ? "  (" : "",
                        words, words[0] ? ")" : "");
        r = text_field(LABEL_COLUMNS, i == 0 ? "Cron" : "", text);
    }
    for (size_t i = 0; r == 0 && i < spec->n_exclude; i++)
        r = text_field(LABEL_COLUMNS, i == 0 ? "Exclude" : "", spec->exclude[i]);
    return r;
}

/* The fields that are not at their defaults, as an export has them. */
static int print_fields(const Chronos__V1__ScheduleSpec *spec) {
    static const char *const elsewhere[] = {"name", "description", "cron", "exclude", "labels"};
    int r = 0;

    for (size_t i = 0; r == 0 && i < schedule_fields_count; i++) {
        const struct schedule_field *f = &schedule_fields[i];
        bool skip = schedule_field_count(f, &spec->base) == 0;
        struct buf b;

        for (size_t k = 0; k < ARRAY_LEN(elsewhere); k++)
            skip = skip || strcmp(f->key, elsewhere[k]) == 0;
        if (skip)
            continue;
        buf_init(&b, 64 * 1024);
        r = schedule_field_print(f, &spec->base, 0, NULL, &b);
        if (r == 0)
            r = buf_append(&b, "", 1);
        if (r == 0)
            r = text_field(LABEL_COLUMNS, f->key, (const char *) b.data);
        buf_done(&b);
    }
    return r;
}

static int print_labels(const Chronos__V1__ScheduleSpec *spec) {
    int r = 0;

    for (size_t i = 0; r == 0 && i < spec->n_labels; i++) {
        char text[512];

        (void) snprintf(text, sizeof(text), "%s=%s", spec->labels[i]->key, spec->labels[i]->value);
        r = text_field(LABEL_COLUMNS, i == 0 ? "Labels" : "", text);
    }
    return r;
}

static int print_state(const Chronos__V1__Schedule *s) {
    const char *colour = text_colour_wanted(stdout) ? schedule_state_colour(s) : NULL;
    char when[32];
    int r = 0;

    printf("%-14s %s%s%s%s%s\n", "State", colour ? "\x1b[" : "", colour ? colour : "",
           colour ? "m" : "", schedule_state(s), colour ? "\x1b[0m" : "");
    if (s->paused) {
        r = text_field(LABEL_COLUMNS, "Because", s->pause_reason);
        if (r == 0 && s->paused_until_ms > 0)
            r = text_field(LABEL_COLUMNS, "Until", text_time(s->paused_until_ms, when));
    }
    return r == 0 ? text_field(LABEL_COLUMNS, "Alarm", s->alarm) : r;
}

static int print_life(const Chronos__V1__Schedule *s) {
    char text[256], when[32], tick[32];
    int r = text_field(LABEL_COLUMNS, "Next run", text_time(s->next_run_ms, when));

    if (r == 0 && s->next_run_ms != s->next_tick_ms)
        r = text_field(LABEL_COLUMNS, "Next tick", text_time(s->next_tick_ms, tick));
    if (r == 0 && s->last_tick) {
        (void) snprintf(text, sizeof(text), "%s: %s, %s%s%.64s",
                        text_time(s->last_tick->tick_ms, when), schedule_outcome_text(s->last_tick),
                        schedule_reason_text(s->last_tick->reason),
                        s->last_tick->job_id[0] ? ", job " : "", s->last_tick->job_id);
        r = text_field(LABEL_COLUMNS, "Last tick", text);
    }
    for (size_t i = 0; r == 0 && i < s->n_open_job_ids; i++)
        r = text_field(LABEL_COLUMNS, i == 0 ? "Open runs" : "", s->open_job_ids[i]);
    (void) snprintf(text, sizeof(text), "%" PRIu64 " fired, %" PRIu64 " not run, %u waiting",
                    s->fired, s->skipped, s->buffered);
    if (r == 0)
        r = text_field(LABEL_COLUMNS, "Ticks", text);
    (void) snprintf(text, sizeof(text), "%" PRIu64 " of %" PRIu64, s->remaining_runs,
                    s->spec->max_runs);
    if (r == 0 && s->spec->max_runs > 0)
        r = text_field(LABEL_COLUMNS, "Runs left", text);
    (void) snprintf(text, sizeof(text), "%" PRIu64 ", generation %" PRIu64 ", created %s",
                    s->version, s->generation, text_time(s->created_at_ms, when));
    return r == 0 ? text_field(LABEL_COLUMNS, "Version", text) : r;
}

int schedule_print(const Chronos__V1__Schedule *s, uint32_t output) {
    char command[2048];
    int r;

    if (output == CLI_JSON)
        return cli_print_message(&s->base);
    r = text_field(LABEL_COLUMNS, "Schedule", s->spec->name);
    if (r == 0)
        r = print_state(s);
    if (r == 0)
        r = text_field(LABEL_COLUMNS, "Description", s->spec->description);
    if (r == 0)
        r = print_expressions(s->spec);
    if (r == 0)
        r = print_fields(s->spec);
    if (r == 0)
        r = print_labels(s->spec);
    if (r == 0)
        r = text_field(LABEL_COLUMNS, "Runs",
                       cli_job_command_text(s->spec->job, command, sizeof(command)));
    if (r == 0)
        r = print_life(s);
    return r < 0 ? cli_fail_errno(r) : EXIT_CODE_OK;
}
