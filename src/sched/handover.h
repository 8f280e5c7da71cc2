/* What an edit makes of the ticks that were due by then and have no outcome (semantics.md C13).
 * Pure.
 *
 * Such ticks are: delayed by their share of spread and jitter; due within the last moments; late,
 * and behind others that are caught up on. "Fires nothing of the past, drops no pending next run
 * that still matches": what the old definition was still to start on time, and the new one has as
 * well, is kept. All others come to nothing, and that is recorded, so they are counted here (J5).
 * Kept is done by beginning the new generation's watermark before them, so they are kept up to the
 * last tick that the new definition has and the old one was not going to start: it must not fire.
 * Thread: the loop. */
#pragma once

#include "sched/timetable.h"

/* Searches in one call: some 200 ms. A schedule needs so many only while it is caught up on after
 * 100,000 ticks that nobody decided. */
#define HANDOVER_STEPS_MAX 400000

struct handover {
    int64_t watermark_s;     /* the new generation's: its ticks after this are its own */
    int64_t first_s, last_s; /* those of the old one that come to nothing lie within */
    uint64_t count;          /* 0 = there are none */
};

/* @from, @to: the definitions, @name_hash of their name (timetable_name_hash). @from_s: the
 * watermark, @now_ms: of the edit. 0; 1 = HANDOVER_STEPS_MAX did not do. */
int handover_of(const struct timetable *from, const struct timetable *to, uint64_t name_hash,
                int64_t from_s, int64_t now_ms, struct handover *ret) _must_check_;
