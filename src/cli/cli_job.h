/* What the job commands share: words for states and reasons, single jobs fetched, printed, waited
 * for. Thread: the caller's. */
#pragma once

#include "cli/common.h"

#include "chronos/v1/job_service.pb-c.h"

extern const struct arg_command cmd_job_submit;
extern const struct arg_command cmd_job_get;
extern const struct arg_command cmd_job_list;
extern const struct arg_command cmd_job_cancel;
extern const struct arg_command cmd_job_logs;
extern const struct arg_command cmd_job_watch;

/* "Pending"; never NULL. */
const char *cli_job_state_name(Chronos__V1__JobState s);
/* SGR code for the state, or NULL. */
const char *cli_job_state_colour(Chronos__V1__JobState s);
/* Case-insensitive. False when it is no state. */
bool cli_job_state_from_name(const char *s, Chronos__V1__JobState *ret);
bool cli_job_state_is_terminal(Chronos__V1__JobState s);

/* What was to be run, as one line of at most @bytes: the argv quoted for a shell, the shell line,
 * or "(noop)". Not escaped for a terminal. */
const char *cli_job_command_text(const Chronos__V1__JobSpec *spec, char *out, size_t bytes);
/* "exit code 3", "signal 9", "worker lost"... or "". */
const char *cli_job_result_text(const Chronos__V1__Job *j, char *out, size_t bytes);

/* As cli_fail, for a call that named the job @id: text that cannot be an id names nothing, which
 * is "not found" for whoever asked. */
int cli_job_fail(const char *id, const struct client_error *e) _must_check_;

/* Fetch one job. Returns 0 and an owned reply, or the exit code after printing why. */
int cli_job_fetch(struct client *c, const char *id, Chronos__V1__GetJobResponse **ret) _must_check_;

/* A job as a JSON object with output_text beside output_tail. NULL when memory is out. */
json_t *cli_job_json(const Chronos__V1__Job *j);

/* Print one job with all its fields, in the form asked for. Returns the exit code. */
int cli_job_print(const Chronos__V1__Job *j, uint32_t output) _must_check_;

/* Wait until @id has ended, or has begun an attempt after @after_attempt (UINT32_MAX: only its
 * end counts). With @progress a line on standard error is redrawn meanwhile.
 * Returns 0 and the owned reply, or the exit code after printing why. */
int cli_job_wait(struct client *c, const char *id, uint32_t after_attempt, bool progress,
                 Chronos__V1__GetJobResponse **ret) _must_check_;

/* Copy the output of an attempt to standard output. @attempt 0 = the latest; @follow = until its
 * end. Returns the exit code. */
int cli_job_copy_logs(struct client *c, const char *id, uint32_t attempt, bool follow) _must_check_;
