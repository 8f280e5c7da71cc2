/* Durations and sizes as people write them: `150ms`, `1h30m`, `64KiB`, `10MB`.
 *
 * What it is: exact integer parsing and printing; what is printed parses back to the same value.
 * What it is not: a formatter for tables (rounded text is the command line's affair).
 * Thread: any; no state. */
#pragma once

#include "base/err.h"

#define UNITS_TEXT_BYTES_MAX 64

/* Positive results of the parsers: the text is refused, *reterr says what would be right. */
enum { UNITS_E_SYNTAX = 1, UNITS_E_RANGE = 2 };

/* One or more `<integer><unit>` with units d, h, m, s, ms, each at most once and from large to
 * small
 * (`1h30m`, `1s500ms`); `0` alone needs no unit.
 *
 * @text     borrowed, NUL-terminated
 * @ret_ms   milliseconds; untouched unless 0 is returned
 *
 * Returns 0; UNITS_E_SYNTAX or UNITS_E_RANGE (more than INT64_MAX ms): tell the user *reterr. */
int units_parse_duration(const char *text, uint64_t *ret_ms, struct errtext *reterr) _must_check_;

/* One `<integer><unit>` with units B, KiB, MiB, GiB, TiB (1024) or KB, MB, GB, TB (1000); a bare
 * integer counts bytes. Results as above; at most INT64_MAX bytes. */
int units_parse_size(const char *text, uint64_t *ret_bytes, struct errtext *reterr) _must_check_;

/* Decimal digits only, at most UINT64_MAX. Results as above. */
int units_parse_uint(const char *text, uint64_t *ret, struct errtext *reterr) _must_check_;

/* The shortest exact text; @out has room for UNITS_TEXT_BYTES_MAX. Returns @out. */
const char *units_print_duration(uint64_t ms, char *out);
const char *units_print_size(uint64_t bytes, char *out);
