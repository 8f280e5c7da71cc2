/* The command line of `chronos bench`. */
#pragma once

#include "bench/bench.h"

extern const char *const bench_kind_names[BENCH_KINDS];

/* The strings of @argv are borrowed and changed. 0 = *ret is complete; 1 = --help was given;
 * 2 = refused, *reterr says why. */
int options_parse(int argc, char **argv, struct bench_options *ret,
                  struct errtext *reterr) _must_check_;
const char *options_help(void);
