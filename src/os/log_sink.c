/* log_sink: formatting and one write. Lines are bounded; what does not fit is cut, and says so. */
#include "os/log_sink.h"

#include "os/clock.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LINE_BYTES_MAX 16384U

struct level_style {
    const char *word;
    const char *colour;
};

static const struct level_style styles[] = {
    [LOG_DEBUG] = {"DEBUG", "\033[2m"},
    [LOG_INFO] = {"INFO ", "\033[32m"},
    [LOG_WARN] = {"WARN ", "\033[33m"},
    [LOG_ERROR] = {"ERROR", "\033[31m"},
};

/* Length of the UTF-8 sequence at @p (RFC 3629: shortest form, no surrogates, at most U+10FFFF),
 * 0 when there is none. C1 control characters do not count as valid here. */
static size_t utf8_len(const uint8_t *p, size_t left) {
    size_t n = p[0] < 0x80 ? 1 : p[0] < 0xc2 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;

    if (p[0] > 0xf4 || n == 0 || n > left)
        return 0;
    for (size_t i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    }
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] >= 0xa0) ||
        (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] >= 0x90) ||
        (p[0] == 0xc2 && p[1] < 0xa0))
        return 0;
    return n;
}

/* One character of @p into @out, escaped for the format; *ret_used bytes of the input are done. */
static int put_char(struct buf *out, enum log_format format, const uint8_t *p, size_t left,
                    size_t *ret_used) {
    size_t n = utf8_len(p, left);
    char esc[8];

    *ret_used = MAX(n, (size_t) 1);
    if (n == 0 && format == LOG_JSON)
        return buf_append_str(out, "\\ufffd");
    if (n == 0 || p[0] < 0x20 || p[0] == 0x7f) {
        (void) snprintf(esc, sizeof(esc), format == LOG_JSON ? "\\u%04x" : "\\x%02x", p[0]);
        return buf_append_str(out, esc);
    }
    if (format == LOG_JSON && (p[0] == '"' || p[0] == '\\')) {
        esc[0] = '\\';
        esc[1] = (char) p[0];
        return buf_append(out, esc, 2);
    }
    return buf_append(out, p, n);
}

static int put_text(struct buf *out, enum log_format format, const char *s, size_t len) {
    const uint8_t *p = (const uint8_t *) s;
    int r = 0;

    while (len > 0 && r == 0) {
        size_t used;

        r = put_char(out, format, p, len, &used);
        p += used;
        len -= used;
    }
    return r;
}

/* A token that JSON can carry with its type: true, false, an integer of at most 15 digits (exact in
 * a double, which is what most readers use). */
static bool is_plain_json(const char *s, size_t len) {
    size_t i = len > 0 && s[0] == '-';

    if ((len == 4 && memcmp(s, "true", 4) == 0) || (len == 5 && memcmp(s, "false", 5) == 0))
        return true;
    if (len == i || len - i > 15 || (s[i] == '0' && len - i > 1))
        return false;
    for (; i < len; i++) {
        if (s[i] < '0' || s[i] > '9')
            return false;
    }
    return true;
}

/* A quoted value: \" and \\ are the writer's escapes of those two; everything else is itself. */
static int put_quoted(struct buf *out, const char **p) {
    int r = buf_append_str(out, "\"");

    (*p)++;
    while (**p && **p != '"' && r == 0) {
        const char *end;

        if (**p == '\\' && ((*p)[1] == '"' || (*p)[1] == '\\'))
            (*p)++;
        end = *p + 1;
        while (*end && *end != '"' && *end != '\\')
            end++;
        r = put_text(out, LOG_JSON, *p, (size_t) (end - *p));
        *p = end;
    }
    if (**p == '"')
        (*p)++;
    return r < 0 ? r : buf_append_str(out, "\"");
}

static int put_value(struct buf *out, const char **p) {
    size_t len;
    int r;

    if (**p == '"')
        return put_quoted(out, p);
    len = strcspn(*p, " ");
    if (is_plain_json(*p, len)) {
        r = buf_append(out, *p, len);
    } else {
        r = buf_append_str(out, "\"");
        if (r == 0)
            r = put_text(out, LOG_JSON, *p, len);
        if (r == 0)
            r = buf_append_str(out, "\"");
    }
    *p += len;
    return r;
}

/* One member per field; a word without '=' becomes the member "text". */
static int put_json_fields(struct buf *out, const char *p) {
    int r = 0;

    while (r == 0) {
        size_t key_len;

        p += strspn(p, " ");
        if (*p == '\0')
            break;
        key_len = strcspn(p, "= \"");
        r = buf_append_str(out, ",\"");
        if (r < 0)
            break;
        if (p[key_len] == '=' && key_len > 0) {
            r = put_text(out, LOG_JSON, p, key_len);
            p += key_len + 1;
        } else {
            r = buf_append_str(out, "text");
        }
        if (r == 0)
            r = buf_append_str(out, "\":");
        if (r == 0)
            r = put_value(out, &p);
    }
    return r;
}

static int put_time(struct buf *out, struct wall now) {
    time_t s = (time_t) (now.ms / 1000);
    int64_t ms = now.ms % 1000;
    struct tm tm;

    if (ms < 0) {
        ms += 1000;
        s--;
    }
    if (!gmtime_r(&s, &tm))
        return buf_append_str(out, "-");
    return buf_printf(out, "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ", tm.tm_year + 1900, tm.tm_mon + 1,
                      tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, (int) ms);
}

static int format_json(struct wall now, enum log_level level, const char *msg, const char *fields,
                       struct buf *out) {
    int r = buf_append_str(out, "{\"time\":\"");

    if (r == 0)
        r = put_time(out, now);
    if (r == 0)
        r = buf_printf(out, "\",\"level\":\"%s\",\"msg\":\"", log_level_to_string(level));
    if (r == 0)
        r = put_text(out, LOG_JSON, msg, strlen(msg));
    if (r == 0)
        r = buf_append_str(out, "\"");
    if (r == 0)
        r = put_json_fields(out, fields);
    return r < 0 ? r : buf_append_str(out, "}\n");
}

static int format_text(const struct log_sink *s, struct wall now, enum log_level level,
                       const char *msg, const char *fields, struct buf *out) {
    const struct level_style *style = &styles[level];
    int r = put_time(out, now);

    if (r == 0)
        r = buf_printf(out, " %s%s%s ", s->colour ? style->colour : "", style->word,
                       s->colour ? "\033[0m" : "");
    if (r == 0)
        r = put_text(out, LOG_TEXT, msg, strlen(msg));
    if (r == 0 && fields[0] != '\0')
        r = buf_append_str(out, " ");
    if (r == 0)
        r = put_text(out, LOG_TEXT, fields, strlen(fields));
    return r < 0 ? r : buf_append_str(out, "\n");
}

int log_sink_format(const struct log_sink *s, struct wall now, enum log_level level,
                    const char *msg, const char *fields, struct buf *out) {
    ASSERT(s && msg && fields && out);
    ASSERT((size_t) level < ARRAY_LEN(styles));
    return s->format == LOG_JSON ? format_json(now, level, msg, fields, out)
                                 : format_text(s, now, level, msg, fields, out);
}

static void write_line(void *ctx, enum log_level level, const char *msg, const char *fields) {
    const struct log_sink *s = (const struct log_sink *) ctx;
    int saved = errno; /* a log line must not change what the caller is about to report */
    struct buf out;
    ssize_t n;
    int r;

    buf_init(&out, LINE_BYTES_MAX);
    r = log_sink_format(s, clock_wall(), level, msg, fields, &out);
    if (r < 0) { /* too long or no memory: the message alone, which is the program's own text */
        buf_clear(&out);
        r = log_sink_format(s, clock_wall(), level, msg, "cut=true", &out);
    }
    if (r == 0) {
        do
            n = write(s->fd, out.data, out.len);
        while (n < 0 && errno == EINTR);
    }
    buf_done(&out);
    errno = saved;
}

void log_sink_init(struct log_sink *s, int fd, enum log_format format, enum log_level level,
                   struct logger *ret) {
    ASSERT(s);
    ASSERT(ret);
    *s = (struct log_sink){
        .fd = fd,
        .format = format,
        .colour = format == LOG_TEXT && isatty(fd) && !getenv("NO_COLOR"),
    };
    *ret = (struct logger){.level = level, .sink = write_line, .ctx = s};
}
