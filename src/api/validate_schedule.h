/* A schedule's definition from a client: checked, completed with defaults, brought into one form.
 *
 * What it is: the limits that proto/chronos/v1/schedule.proto documents, each with an error that
 * names the field and what would be right; for expressions also the column. What it is not: a
 * decision about ticks; sched/timetable.h compiles what was accepted here.
 * The one form: as in validate_job.h; labels of the job that only repeat those of the schedule are
 * dropped, since every run gets those anyway.
 * Pure but for the zones, which are looked up. Thread: the loop's. */
#pragma once

#include "api/validate_job.h"
#include "sched/timetable.h"

#define VALIDATE_SCHEDULE_NAME_BYTES_MAX 128
#define VALIDATE_SCHEDULE_DESCRIPTION_BYTES_MAX 1024
#define VALIDATE_CATCHUP_MS_DEFAULT (3600LL * 1000)
#define VALIDATE_SPAN_MS_MAX (366LL * 24 * 3600 * 1000)
#define VALIDATE_MAX_RUNS_MAX 1000000000000ULL

struct validate_schedule {
    struct zones *zones;
    int64_t now_s;  /* where the smallest interval between ticks is looked for from */
    bool with_job;  /* else spec.job is not looked at */
    bool with_name; /* else the name may be missing */
    bool must_tick; /* refuse what can never fire after now_s (a new schedule) */
};

/* @spec     unpacked after message_check; changed in place; NULL is refused as missing
 * @arena    for what is sorted or completed; must live as long as @spec
 * @ret      the timetable, owned by the caller
 * 0; VALIDATE_BAD with "spec.field: limit"; -ENOMEM. */
int validate_schedule(Chronos__V1__ScheduleSpec *spec, const struct validate_schedule *o,
                      struct arena *arena, struct timetable **ret,
                      struct errtext *reterr) _must_check_;

/* The name of a schedule in a request's field "name". 0; VALIDATE_BAD. */
int validate_schedule_name(const char *name, struct errtext *reterr) _must_check_;

struct schedule_packed {
    struct slice spec; /* without its job */
    struct slice job;  /* as every run gets it: its own labels and those of the schedule */
};

/* Pack an accepted definition into @arena. 0; VALIDATE_BAD: too large; -ENOMEM. */
int validate_schedule_pack(Chronos__V1__ScheduleSpec *spec, struct arena *arena,
                           struct schedule_packed *ret, struct errtext *reterr) _must_check_;

/* The other way, for showing a record: the definition with its job, in the one form, in @arena.
 * NULL: the bytes do not decode, or memory is out. */
Chronos__V1__ScheduleSpec *validate_schedule_unpack(struct slice spec, struct slice job,
                                                    struct arena *arena) _must_check_;
