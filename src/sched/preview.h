/* What a timetable will do, for people: its next instants with local time and what is odd about
 * them.
 *
 * What it is: the same search as the ticker's, with words. What it is not: a promise of runs;
 * pause, overlap and max_runs are decided when a tick's time has come. Pure. Thread: the
 * timetable's. */
#pragma once

#include "sched/timetable.h"

#define PREVIEW_LOCAL_BYTES 64
#define PREVIEW_NOTE_MOVED "moved by a clock change"
#define PREVIEW_NOTE_SUPPRESSED "suppressed: repeated hour"

struct preview_instant {
    int64_t tick_s;                  /* nominal instant */
    int64_t start_ms;                /* with spread and jitter */
    bool fires;                      /* false: shown only for its note */
    const char *note;                /* one of the above, or ""; static */
    char local[PREVIEW_LOCAL_BYTES]; /* "2026-03-08T03:00:00-04:00 EDT" */
};

struct preview {
    const struct timetable *timetable; /* borrowed */
    uint64_t name_hash;
    int64_t after_s;
    struct timetable_instant next; /* found already, when has_next */
    bool has_next;
};

/* Instants after @after_s. @name (may be "") decides spread and jitter; for the call only. */
void preview_begin(struct preview *p, const struct timetable *t, const char *name, int64_t after_s);

/* The next instant, ascending. False: nothing comes any more. What does not fire and has no note is
 * only how far was looked: exclusions may go on for long, and a call ends in bounded steps. Go on,
 * or give up when *io_steps, which grows by the searches it took, is too much. */
bool preview_next(struct preview *p, uint32_t *io_steps, struct preview_instant *ret);

/* Local time of @at_s in a zone, NULL = UTC. */
void preview_local(const struct tz *zone, int64_t at_s, char out[PREVIEW_LOCAL_BYTES]);
