/* What a run of seeds says at its end. Thread: main. */
#pragma once

#include "cmd/sim_range.h"

/* All seeds hold: one line, and the counters by group when they are asked for. */
void sim_report_totals(const struct sim_arguments *a, const struct sim_range *r);

/* Name each interesting counter below @min. Returns how many there are. */
unsigned sim_report_counters(const struct sim_totals *t, uint64_t min);

/* A seed failed: what, how far it came, how to see it again. */
void sim_report_failure(const struct sim_arguments *a, const struct sim_range *r);
