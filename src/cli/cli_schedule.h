/* What the schedule commands share: calls, words, printing. Thread: the caller's. */
#pragma once

#include "cli/common.h"
#include "cli/schedule_yaml.h"

#include "chronos/v1/schedule_service.pb-c.h"

extern const struct arg_command cmd_schedule_create;
extern const struct arg_command cmd_schedule_update;
extern const struct arg_command cmd_schedule_get;
extern const struct arg_command cmd_schedule_list;
extern const struct arg_command cmd_schedule_delete;
extern const struct arg_command cmd_schedule_pause;
extern const struct arg_command cmd_schedule_resume;
extern const struct arg_command cmd_schedule_trigger;
extern const struct arg_command cmd_schedule_backfill;
extern const struct arg_command cmd_schedule_preview;
extern const struct arg_command cmd_schedule_describe;
extern const struct arg_command cmd_schedule_history;
extern const struct arg_command cmd_schedule_missed;
extern const struct arg_command cmd_schedule_apply;
extern const struct arg_command cmd_schedule_export;
extern const struct arg_command cmd_schedule_import;

/* Memory of one command: the largest file with what becomes of it. */
#define SCHEDULE_ARENA_BYTES ((size_t) 1024 * 1024 * 1024)
#define SCHEDULE_KEY_BYTES 33

/* A call of ScheduleService. Returns 0 with *ret owned by the caller, or the gRPC code (positive)
 * with *reterr filled. */
int schedule_try(struct client *c, const char *method, const ProtobufCMessage *request,
                 const ProtobufCMessageDescriptor *reply, bool repeatable, ProtobufCMessage **ret,
                 struct client_error *reterr) _must_check_;
/* The same; a failure is printed as being about @what, and the exit code returned. */
int schedule_call(struct client *c, const char *what, const char *method,
                  const ProtobufCMessage *request, const ProtobufCMessageDescriptor *reply,
                  bool repeatable, ProtobufCMessage **ret) _must_check_;

/* Calls whose repetition needs thought: one that took effect although its answer was lost is no
 * failure. As schedule_try; *ret_reply may be NULL on success when the answer was lost. */
int schedule_try_get(struct client *c, const char *name, Chronos__V1__ScheduleResponse **ret,
                     struct client_error *reterr) _must_check_;
int schedule_try_create(struct client *c, Chronos__V1__ScheduleSpec *spec, bool paused,
                        const char *key, Chronos__V1__ScheduleResponse **ret,
                        struct client_error *reterr) _must_check_;
int schedule_try_update(struct client *c, Chronos__V1__ScheduleSpec *spec, uint64_t version,
                        Chronos__V1__ScheduleResponse **ret,
                        struct client_error *reterr) _must_check_;
int schedule_try_delete(struct client *c, const char *name, uint64_t version, bool cancel_open_runs,
                        struct client_error *reterr) _must_check_;

/* Which schedules a command is about. */
struct schedule_filter {
    const struct arg_list *labels; /* KEY=VALUE texts; NULL = all */
    const char *prefix;            /* of the name; NULL = all */
    bool only_paused, only_alarmed;
    int64_t next_before_ms; /* 0 = no bound */
    bool stale;
};

/* Call @each with all schedules that pass, by name, until it returns other than 0.
 * 0; what @each returned; an exit code after printing why; -ENOMEM. */
int schedule_each(struct client *c, const struct schedule_filter *f,
                  int (*each)(void *arg, const Chronos__V1__Schedule *s), void *arg) _must_check_;

/* "active", "paused", "alarm" or "finished"; never NULL. */
const char *schedule_state(const Chronos__V1__Schedule *s);
const char *schedule_state_colour(const Chronos__V1__Schedule *s);
/* The expressions, with "; " between them, cut to @bytes. Returns @out. */
const char *schedule_expressions(const Chronos__V1__ScheduleSpec *spec, char *out, size_t bytes);
/* "on time", "an earlier run is open"; never NULL. */
const char *schedule_reason_text(Chronos__V1__TickReason r);
/* Whether the tick's job was created or waits, in words. */
const char *schedule_outcome_text(const Chronos__V1__TickOutcome *t);

/* Print one schedule with all its fields, in the form asked for. Returns the exit code. */
int schedule_print(const Chronos__V1__Schedule *s, uint32_t output) _must_check_;
/* The columns and rows of outcomes, newest first or as they come. */
#define SCHEDULE_TICK_COLUMNS 6
extern const struct table_column schedule_tick_columns[SCHEDULE_TICK_COLUMNS];
int schedule_tick_row(struct table *t, const Chronos__V1__TickOutcome *o) _must_check_;

/* 128 random bits as text: a call with it can be repeated. 0, -errno. */
int schedule_random_key(char out[SCHEDULE_KEY_BYTES]) _must_check_;

/* A whole file, "-" = standard input, with a NUL behind it. Returns 0 with *ret owned by the
 * caller (free), or the exit code after printing why. */
int schedule_read_file(const char *path, size_t bytes_max, char **ret,
                       size_t *ret_len) _must_check_;

/* What apply and import do with the definitions they have read. */
struct schedule_plan_options {
    const struct cli_common *common;
    bool dry_run;
    bool prune;                    /* delete what is not among them */
    const struct arg_list *labels; /* prune only schedules with these; NULL = all */
};

/* Show what would change, and change it unless dry_run. Returns the exit code. */
int schedule_carry_out(const struct schedule_plan_options *o, const struct schedule_list *l,
                       struct arena *arena) _must_check_;
