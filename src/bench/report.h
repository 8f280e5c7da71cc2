/* The figures: a table for people, a list for programs. */
#pragma once

#include "bench/bench.h"

#include <stdio.h>

struct floor_figures {
    struct histogram before, after; /* empty = not measured */
    double before_ops_s, after_ops_s;
};

/* The median of both measurements pooled: the disk's speed drifts while minutes pass. 0 = not
 * measured. */
uint64_t report_floor_p50(const struct floor_figures *f);

void report_table(const struct bench_report *r, const struct floor_figures *f, FILE *out);
/* A JSON list, one object a result. Numbers that do not apply are 0. */
void report_json(const struct bench_report *r, const struct floor_figures *f, FILE *out);
