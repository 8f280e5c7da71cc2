/* The logger's end: one line per call, with one write(2), to a descriptor.
 *
 *   2026-11-21T20:45:01.123Z INFO  message key=value key2="v w"
 *   {"time":"2026-11-21T20:45:01.123Z","level":"info","msg":"message","key":"value"}
 *
 * JSON: each key=value field becomes a member; unquoted integers, true and false keep their type,
 * everything else is a string; bytes that are not UTF-8 become U+FFFD. In both formats control
 * characters are escaped, so that nobody can forge a line or move a terminal's cursor.
 * A line that cannot be written is lost; a log must not stop a node.
 * Thread: any; there is no state but the descriptor. */
#pragma once

#include "base/buf.h"
#include "base/log.h"

struct log_sink {
    int fd;
    enum log_format format;
    bool colour;
};

/* Set up @s and the logger that uses it. @fd is borrowed; colour only when it is a terminal, the
 * format is text and NO_COLOR is not set. @s must outlive the logger and not move. */
void log_sink_init(struct log_sink *s, int fd, enum log_format format, enum log_level level,
                   struct logger *ret);

/* The line as it would be written, with newline: for tests and other sinks. 0, -ENOMEM, ERR_LIMIT.
 */
int log_sink_format(const struct log_sink *s, struct wall now, enum log_level level,
                    const char *msg, const char *fields, struct buf *out) _must_check_;
