/* When a schedule ticks: all that decides it, compiled from its definition (semantics.md C3-C8,
 * C15).
 *
 * What it is: the expressions, exclusions, bounds, zone, policy of clock changes and delays of one
 * definition, and the next tick after an instant. Ticks are whole seconds since 1970 UTC. What it
 * is not: a memory of what has fired (ticker.h).
 * Immutable but for its count of references; equal definitions may share one. Thread: the loop. */
#pragma once

#include "sched/cron.h"
#include "sched/zones.h"

#include "chronos/v1/schedule.pb-c.h"

#define TIMETABLE_EXPRESSIONS_MAX 16 /* each, expressions and exclusions */

struct timetable;

/* @spec: validated elsewhere as to everything but its expressions and bounds. @zones must outlive
 * the timetable, which holds its zone. A zone that cannot be read is no error: see
 * timetable_zone().
 * 0; ERR_CONFIG naming the field, for expressions with the column; -ENOMEM. */
int timetable_new(const Chronos__V1__ScheduleSpec *spec, struct zones *zones,
                  struct timetable **ret, struct errtext *reterr) _must_check_;
struct timetable *timetable_ref(struct timetable *t);
struct timetable *timetable_unref(struct timetable *t); /* NULL allowed */
DEFINE_CLEANUP(struct timetable *, timetable_unref);
/* Whether the next timetable_unref() ends it. */
bool timetable_is_last(const struct timetable *t);

/* Its zone's entry; NULL for UTC. While the entry has no data the timetable has no ticks. */
const struct zone *timetable_zone(const struct timetable *t);

struct timetable_instant {
    int64_t at_s; /* CRON_NEVER: no further tick */
    /* False: not a tick, but there is none up to here either; ask again after it. So a timetable
     * whose exclusions name every tick costs bounded steps a call. */
    bool is_tick;
    enum cron_note note;
};

/* The first tick after @after_s. *io_steps grows by the searches it took. */
struct timetable_instant timetable_next(const struct timetable *t, int64_t after_s,
                                        uint32_t *io_steps);
/* The same, going on until it is a tick, CRON_NEVER, or later than @until_s (then CRON_NEVER). */
int64_t timetable_next_tick(const struct timetable *t, int64_t after_s, int64_t until_s);

/* For previews: the next instant after @after_s, before @until_s, that an expression names by local
 * time and that is no tick because the hour is repeated; CRON_NEVER when there is none. */
int64_t timetable_next_suppressed(const struct timetable *t, int64_t after_s, int64_t until_s);

/* By which a run starts after its tick: the same share of spread for all ticks of a name, another
 * share of jitter for each (C15). The same on every node, for ever. 0 <= result < spread + jitter,
 * or 0. */
int64_t timetable_delay_ms(const struct timetable *t, uint64_t name_hash, int64_t tick_s);
/* All of them are below this, or it is 0. */
int64_t timetable_delay_max_ms(const struct timetable *t);
uint64_t timetable_name_hash(const char *name);

/* What decides ticks, as bytes: two timetables of equal bytes have equal ticks for ever. Borrowed
 * as long as the timetable. For sharing, and to tell whether an edit begins a new generation. */
struct slice timetable_bytes(const struct timetable *t);
