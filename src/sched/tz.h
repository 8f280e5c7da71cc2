/* A time zone as a sorted list of changes of its offset from UTC, read from TZif bytes (RFC 9636).
 *
 * What it is: a pure reader. Versions 1 to 4; the POSIX footer is unrolled into changes up to
 * TZ_YEAR_MAX, so that the far future needs no second code path. What it is not: it opens no file
 * (os/tzdir.c does) and never looks at the process's TZ. Files that count leap seconds ("right/")
 * are refused: Chronos counts POSIX time.
 * Invariants: changes strictly ascending; each has an offset that differs from, or a name that
 * differs from, the one before. Thread: a zone is immutable after tz_parse. */
#pragma once

#include "base/bytes.h"
#include "base/err.h"

#define TZ_FILE_BYTES_MAX (256U * 1024)
#define TZ_NAME_BYTES_MAX 64U
#define TZ_YEAR_MAX 2200 /* footers are unrolled to the end of the year before */

struct tz_change {
    int64_t at;      /* seconds since 1970 UTC; from this instant on */
    int32_t offset;  /* local = UTC + offset, seconds */
    bool dst;        /* for people only */
    char abbrev[15]; /* "CEST"; NUL-terminated */
};

struct tz {
    struct tz_change *changes; /* owned; changes[0].at is INT64_MIN */
    size_t count;
};

/* Read @data, a whole TZif file, or give a zone that is UTC for ever (@data.len == 0).
 * 0 with *ret owned by the caller (tz_free); ERR_PROTO with the offset and what is wrong; -ENOMEM.
 */
int tz_parse(struct slice data, struct tz **ret, struct errtext *reterr) _must_check_;
struct tz *tz_free(struct tz *z);
DEFINE_CLEANUP(struct tz *, tz_free);

/* Index into changes[] of the period that contains @utc. */
size_t tz_find(const struct tz *z, int64_t utc);

/* A POSIX TZ rule ("CET-1CEST,M3.5.0,M10.5.0/3"), appended to @z as changes after @after until
 * TZ_YEAR_MAX. 0; ERR_PROTO with the column; -ENOMEM. For tz_parse and tests. */
int tz_posix_append(struct tz *z, size_t *cap, struct slice rule, int64_t after,
                    struct errtext *reterr) _must_check_;
/* Append one change, dropping it when it changes nothing. 0, -ENOMEM. */
int tz_append(struct tz *z, size_t *cap, const struct tz_change *c) _must_check_;

/* True for what may be a zone's name: letters, digits, "_+-" and '/' between non-empty parts, none
 * of them "." or "..". */
bool tz_name_ok(const char *name);
