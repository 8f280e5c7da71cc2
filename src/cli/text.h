/* Text for people: safe output of untrusted bytes, tables, times, colour.
 *
 * What it is: everything that a job or a node says passes through here on its way to a terminal, so
 * that output cannot move the cursor, set titles or forge lines (security.md S18).
 * What it is not: JSON, which has its own escapes (cli/json.h).
 * Thread: any; no state outside the structures. */
#pragma once

#include "base/buf.h"
#include "base/err.h"

#include <stdio.h>

/* Bytes of an unfinished UTF-8 character at the end of a chunk. */
struct text_escape {
    uint8_t pending[4];
    size_t pending_len;
};

/* Append @data to @out with control characters (C0 except newline and tab, DEL, C1, bidirectional
 * overrides) and invalid bytes written as \xNN. @one_line escapes newline and tab too.
 * @e carries a character split between chunks; zeroed before the first. 0, -ENOMEM, ERR_LIMIT. */
int text_escape(struct text_escape *e, const void *data, size_t len, bool one_line,
                struct buf *out) _must_check_;
/* What is still pending is no character: escape it. */
int text_escape_end(struct text_escape *e, struct buf *out) _must_check_;
/* Print "LABEL   value" with the label padded to @columns and the value escaped for one line; an
 * empty value is left out. 0; -ENOMEM, ERR_LIMIT. */
int text_field(int columns, const char *label, const char *value) _must_check_;

/* Columns that @s (escaped, UTF-8) takes, counting one for each character. */
size_t text_width(const char *s);

bool text_colour_wanted(FILE *out);      /* a terminal, NO_COLOR unset, TERM not dumb */
size_t text_terminal_columns(FILE *out); /* 0 = not a terminal */

/* "2026-07-01 12:34:56" in UTC, or "-" for 0. @out 32 bytes. */
const char *text_time(int64_t ms, char out[32]);
/* About how long: "850ms", "12.3s", "4m05s", "3h20m". @out 32 bytes. */
const char *text_elapsed(int64_t ms, char out[32]);
/* Time given by people: "2026-07-01T12:34:56Z", "2026-07-01 12:34:56" or "2026-07-01" in UTC, or a
 * duration such as "1h" that counts back from @now_ms. 0, or 1 with *reterr. */
int text_parse_time(const char *s, int64_t now_ms, int64_t *ret_ms,
                    struct errtext *reterr) _must_check_;

/* ---- tables ---- */

#define TABLE_COLUMNS_MAX 16
/* A cell of a flexible column is cut to this when the output is no terminal. */
#define TABLE_CELL_MAX 200

enum table_align { TABLE_LEFT, TABLE_RIGHT };

struct table_column {
    const char *title;
    enum table_align align;
    bool flexible; /* shrinks when the terminal is narrow */
};

struct table {
    const struct table_column *columns; /* borrowed */
    size_t columns_count;
    char **cells; /* owned strings, row after row */
    size_t cells_count;
    const char **colours; /* per cell an SGR code or NULL; borrowed constants */
};

void table_init(struct table *t, const struct table_column *columns, size_t count);
void table_done(struct table *t);
/* Append one cell, escaped for one line; rows fill from left to right. @colour "31" or NULL. */
int table_add(struct table *t, const char *colour, const char *fmt, ...) _must_check_
    _printf_(3, 4);
void table_print(const struct table *t, FILE *out);
