#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define LOG_FIELDS_BYTES_MAX 2048

static const char *const level_names[] = {
    [LOG_DEBUG] = "debug", [LOG_INFO] = "info", [LOG_WARN] = "warn", [LOG_ERROR] = "error"};

void log_write(const struct logger *l, enum log_level level, const char *msg,
               const char *fields_fmt, ...) {
    char fields[LOG_FIELDS_BYTES_MAX];
    va_list ap;

    if (!l || level < l->level)
        return;
    va_start(ap, fields_fmt);
    (void) vsnprintf(fields, sizeof(fields), fields_fmt, ap);
    va_end(ap);
    l->sink(l->ctx, level, msg, fields);
}

const char *log_level_to_string(enum log_level level) {
    ASSERT((size_t) level < ARRAY_LEN(level_names));
    return level_names[level];
}

int log_level_from_string(const char *s, enum log_level *ret) {
    for (size_t i = 0; i < ARRAY_LEN(level_names); i++) {
        if (strcmp(s, level_names[i]) == 0) {
            *ret = (enum log_level) i;
            return 0;
        }
    }
    return 1;
}
