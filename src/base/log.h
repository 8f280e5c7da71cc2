/* Structured logging through a context pointer: no global logger, so that two nodes in one process
 * keep their lines apart. Only node/, api/, worker/, cli/ and cmd/ log; lower folders return
 * errors.
 *
 * A line is a message plus key=value fields. Never pass a secret as a field.
 * Thread: the sink must be safe for the threads that call it; the stderr sink writes one line with
 * one write(2). */
#pragma once

#include "base/defs.h"
#include "base/time.h"

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

enum log_format { LOG_TEXT, LOG_JSON };

struct logger {
    enum log_level level; /* lines below it cost one comparison */
    /* @line without newline, borrowed; @level for colour or priority. */
    void (*sink)(void *ctx, enum log_level level, const char *msg, const char *fields);
    void *ctx;
};

/* @fields_fmt formats "key=value key2=\"v w\"" (may be ""). A NULL logger drops everything. */
void log_write(const struct logger *l, enum log_level level, const char *msg,
               const char *fields_fmt, ...) _printf_(4, 5);

#define log_debug(l, msg, ...) log_write((l), LOG_DEBUG, (msg), __VA_ARGS__)
#define log_info(l, msg, ...) log_write((l), LOG_INFO, (msg), __VA_ARGS__)
#define log_warn(l, msg, ...) log_write((l), LOG_WARN, (msg), __VA_ARGS__)
#define log_error(l, msg, ...) log_write((l), LOG_ERROR, (msg), __VA_ARGS__)

const char *log_level_to_string(enum log_level level);
/* 0, or positive 1 when the word is none of debug, info, warn, error. */
int log_level_from_string(const char *s, enum log_level *ret) _must_check_;
