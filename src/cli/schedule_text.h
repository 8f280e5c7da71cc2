/* A schedule's definition field by field, as text: what the command line's options, YAML files and
 * their export have in common.
 *
 * What it is: one table of the fields of ScheduleSpec and one of those of JobSpec, each with how
 * its value is written, and functions that set, print, compare and complete by them. A field of the
 * schema that is not in a table cannot be given at the command line; a test counts them.
 * What it is not: the judge of what is allowed; that is the node.
 * What is set is allocated in the caller's arena. Thread: any. */
#pragma once

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"

#include "chronos/v1/schedule.pb-c.h"

enum schedule_kind {
    SCHEDULE_TEXT,
    SCHEDULE_TEXTS,  /* repeated string */
    SCHEDULE_CHOICE, /* enum; choices[] by its numbers */
    SCHEDULE_TIME,   /* ms since 1970, 0 = none: RFC 3339 */
    SCHEDULE_UINT64,
    SCHEDULE_UINT32,
    SCHEDULE_DURATION, /* int64 ms */
    SCHEDULE_LIMIT,    /* int64 ms, or "none" for -1 */
    SCHEDULE_SIZE,     /* uint64 bytes */
    SCHEDULE_BOOL,
    SCHEDULE_MAP, /* map<string, string> */
};

struct schedule_field {
    const char *key; /* in YAML */
    enum schedule_kind kind;
    size_t offset;                           /* in the message */
    size_t count_offset;                     /* TEXTS, MAP */
    const char *const *choices;              /* CHOICE: NULL-terminated */
    const ProtobufCMessageDescriptor *entry; /* MAP */
    const char *def; /* what the node completes an absent value to; NULL = zero */
};

extern const struct schedule_field schedule_fields[]; /* of ScheduleSpec, but its job */
extern const size_t schedule_fields_count;
extern const struct schedule_field schedule_job_fields[]; /* of JobSpec, but its payload */
extern const size_t schedule_job_fields_count;

extern const char *const schedule_dst_names[];
extern const char *const schedule_day_match_names[];
extern const char *const schedule_missed_names[];
extern const char *const schedule_overlap_names[];

/* The field of that key, or NULL. */
const struct schedule_field *schedule_field_find(const struct schedule_field *fields, size_t count,
                                                 const char *key);
/* The field of a key that is known to be one: of JobSpec, or of ScheduleSpec. */
const struct schedule_field *schedule_field_of(const char *key, bool job);

/* Set a field from text; TEXTS append; not for MAP. 0; 1 = refused, *reterr says what would be
 * right, without naming the field; -ENOMEM. */
int schedule_field_set(const struct schedule_field *f, ProtobufCMessage *m, const char *text,
                       struct arena *arena, struct errtext *reterr) _must_check_;
/* Put @key into a MAP, replacing its value when it is there. 0, -ENOMEM. */
int schedule_field_put(const struct schedule_field *f, ProtobufCMessage *m, const char *key,
                       const char *value, struct arena *arena) _must_check_;
/* Back to what a new message has. */
void schedule_field_clear(const struct schedule_field *f, ProtobufCMessage *m);
/* How many values there are: 0 or 1, or of TEXTS and MAP their count. A zero value is none. */
size_t schedule_field_count(const struct schedule_field *f, const ProtobufCMessage *m);
/* Value @i as text, what schedule_field_set reads back; of a MAP the value, with *ret_key when not
 * NULL. Appended to @out. 0, -ENOMEM, ERR_LIMIT. */
int schedule_field_print(const struct schedule_field *f, const ProtobufCMessage *m, size_t i,
                         const char **ret_key, struct buf *out) _must_check_;

/* RFC 3339 with any offset, or a date alone (midnight UTC). 0; 1 = refused. */
int schedule_parse_instant(const char *text, int64_t *ret_ms, struct errtext *reterr) _must_check_;
/* "2026-07-01T12:00:00Z", with ".250" when there is a part of a second. */
#define SCHEDULE_INSTANT_BYTES 40
const char *schedule_print_instant(int64_t ms, char out[SCHEDULE_INSTANT_BYTES]);

/* ---- whole definitions ------------------------------------------------------------------------
 */

/* A copy in @arena; NULL: no memory. */
Chronos__V1__ScheduleSpec *schedule_spec_copy(const Chronos__V1__ScheduleSpec *spec,
                                              struct arena *arena) _must_check_;
/* Remove what the node adds by itself: labels of the job that the schedule has too, defaults. */
void schedule_spec_strip(Chronos__V1__ScheduleSpec *spec);
/* The keys in which two definitions differ in meaning ("cron, job.command"), appended to @out:
 * nothing when they are the same. An absent value is its default; expressions are compared as they
 * are understood. 0, -ENOMEM, ERR_LIMIT. */
int schedule_spec_differences(const Chronos__V1__ScheduleSpec *a,
                              const Chronos__V1__ScheduleSpec *b, struct arena *arena,
                              struct buf *out) _must_check_;
