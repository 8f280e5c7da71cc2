/* The writer of cli/schedule_yaml.h. Every text that a YAML reader might take for something else is
 * quoted; bytes that are no printable character are escaped. */
#include "cli/schedule_yaml.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

#define VALUE_BYTES_MAX ((size_t) 16 * 1024 * 1024)

/* Plain in YAML 1.1 and 1.2 alike: begins with a letter or '/', has nothing that means something,
 * and is no word for true, false or nothing. */
static bool is_plain(const char *s, size_t len) {
    static const char *const words[] = {"true", "false", "yes", "no", "on",
                                        "off",  "null",  "y",   "n"};

    if (len == 0 || len > 200 || (!isalpha((unsigned char) s[0]) && s[0] != '/'))
        return false;
    for (size_t i = 0; i < len; i++) {
        if (!isalnum((unsigned char) s[i]) && (s[i] == '\0' || !strchr("_-./+@=", s[i])))
            return false;
    }
    for (size_t i = 0; i < ARRAY_LEN(words); i++) {
        if (strlen(words[i]) == len && strncasecmp(words[i], s, len) == 0)
            return false;
    }
    return true;
}

/* How many bytes at @p are a character that a reader takes for a break or a mark (U+0080 to U+009F,
 * U+2028, U+2029, U+FEFF, U+FFFE, U+FFFF), with its code; 0 = none. */
static size_t odd_character(const uint8_t *p, size_t len, unsigned *ret_code) {
    if (len >= 2 && p[0] == 0xc2 && p[1] < 0xa0)
        return *ret_code = p[1], 2;
    if (len >= 3 && p[0] == 0xe2 && p[1] == 0x80 && (p[2] == 0xa8 || p[2] == 0xa9))
        return *ret_code = 0x2000U + (p[2] & 0x3fU), 3;
    if (len >= 3 && p[0] == 0xef && p[1] == 0xbb && p[2] == 0xbf)
        return *ret_code = 0xfeff, 3;
    if (len >= 3 && p[0] == 0xef && p[1] == 0xbf && p[2] >= 0xbe)
        return *ret_code = 0xff00U + 0x40U + p[2], 3;
    return 0;
}

static int write_character(const uint8_t *p, size_t len, struct buf *out, size_t *ret_taken) {
    unsigned code;
    size_t odd = odd_character(p, len, &code);

    *ret_taken = MAX(odd, (size_t) 1);
    if (odd > 0)
        return buf_printf(out, "\\u%04x", code);
    if (p[0] == '"' || p[0] == '\\')
        return buf_printf(out, "\\%c", p[0]);
    if (p[0] == '\n')
        return buf_append_str(out, "\\n");
    if (p[0] == '\t')
        return buf_append_str(out, "\\t");
    if (p[0] < 0x20 || p[0] == 0x7f)
        return buf_printf(out, "\\x%02x", p[0]);
    return buf_append(out, p, 1);
}

static int write_quoted(const char *s, size_t len, struct buf *out) {
    int r = buf_append_str(out, "\"");
    size_t taken;

    for (size_t i = 0; r == 0 && i < len; i += taken)
        r = write_character((const uint8_t *) s + i, len - i, out, &taken);
    return r == 0 ? buf_append_str(out, "\"") : r;
}

static int write_scalar(const char *s, size_t len, struct buf *out) {
    return is_plain(s, len) ? buf_append(out, s, len) : write_quoted(s, len, out);
}

/* Value @i of a field; @typed ones (numbers, booleans, choices) need no quotes. */
static int write_value(const struct schedule_field *f, const ProtobufCMessage *m, size_t i,
                       struct buf *out) {
    bool typed = f->kind != SCHEDULE_TEXT && f->kind != SCHEDULE_TEXTS && f->kind != SCHEDULE_MAP;
    struct buf b;
    int r;

    buf_init(&b, VALUE_BYTES_MAX);
    r = schedule_field_print(f, m, i, NULL, &b);
    if (r == 0)
        r = typed ? buf_append(out, b.data, b.len)
                  : write_scalar(b.data ? (const char *) b.data : "", b.len, out);
    buf_done(&b);
    return r;
}

static int write_list(const struct schedule_field *f, const ProtobufCMessage *m, size_t count,
                      const char *indent, struct buf *out) {
    int r = 0;

    for (size_t i = 0; r == 0 && i < count; i++) {
        r = buf_printf(out, "\n%s  - ", indent);
        if (r == 0)
            r = write_value(f, m, i, out);
    }
    return r == 0 ? buf_append_str(out, "\n") : r;
}

static int write_map(const struct schedule_field *f, const ProtobufCMessage *m, size_t count,
                     const char *indent, struct buf *out) {
    int r = 0;

    for (size_t i = 0; r == 0 && i < count; i++) {
        const char *key = "";
        struct buf value;

        buf_init(&value, VALUE_BYTES_MAX);
        r = schedule_field_print(f, m, i, &key, &value);
        buf_done(&value);
        if (r == 0)
            r = buf_printf(out, "\n%s  ", indent);
        if (r == 0)
            r = write_scalar(key, strlen(key), out);
        if (r == 0)
            r = buf_append_str(out, ": ");
        if (r == 0)
            r = write_value(f, m, i, out);
    }
    return r == 0 ? buf_append_str(out, "\n") : r;
}

static int write_field(const struct schedule_field *f, const ProtobufCMessage *m,
                       const char *indent, struct buf *out) {
    size_t count = schedule_field_count(f, m);
    int r;

    if (count == 0)
        return 0;
    r = buf_printf(out, "%s%s:", indent, f->key);
    if (r < 0)
        return r;
    if (f->kind == SCHEDULE_MAP)
        return write_map(f, m, count, indent, out);
    if (f->kind == SCHEDULE_TEXTS && count > 1)
        return write_list(f, m, count, indent, out);
    r = buf_append_str(out, " ");
    if (r == 0)
        r = write_value(f, m, 0, out);
    return r == 0 ? buf_append_str(out, "\n") : r;
}

static int write_command(const Chronos__V1__Command *c, struct buf *out) {
    int r = buf_append_str(out, "      command:\n");

    for (size_t i = 0; r == 0 && i < c->n_argv; i++) {
        r = buf_append_str(out, "        - ");
        if (r == 0)
            r = write_scalar(c->argv[i], strlen(c->argv[i]), out);
        if (r == 0)
            r = buf_append_str(out, "\n");
    }
    return r;
}

static int write_payload(const Chronos__V1__JobSpec *j, struct buf *out) {
    int r;

    switch (j->payload_case) {
    case CHRONOS__V1__JOB_SPEC__PAYLOAD_COMMAND:
        return write_command(j->command, out);
    case CHRONOS__V1__JOB_SPEC__PAYLOAD_SHELL:
        r = buf_append_str(out, "      shell: ");
        if (r == 0)
            r = write_scalar(j->shell, strlen(j->shell), out);
        return r == 0 ? buf_append_str(out, "\n") : r;
    case CHRONOS__V1__JOB_SPEC__PAYLOAD_NOOP:
        return buf_append_str(out, "      noop: true\n");
    case CHRONOS__V1__JOB_SPEC__PAYLOAD__NOT_SET:
    case _CHRONOS__V1__JOB_SPEC__PAYLOAD__CASE_IS_INT_SIZE:
        break;
    }
    return 0;
}

int schedule_yaml_begin(struct buf *out) {
    return buf_append_str(out, "schedules:");
}

int schedule_yaml_end(size_t count, struct buf *out) {
    return buf_append_str(out, count == 0 ? " []\n" : "");
}

int schedule_yaml_write(const Chronos__V1__ScheduleSpec *spec, struct buf *out) {
    size_t begin;
    int r = buf_append_str(out, "\n");

    begin = out->len;
    for (size_t i = 0; r == 0 && i < schedule_fields_count; i++)
        r = write_field(&schedule_fields[i], &spec->base, "    ", out);
    /* The first line of the mapping carries the dash of the list. */
    if (r == 0 && out->len > begin + 4)
        out->data[begin + 2] = '-';
    if (r < 0 || !spec->job)
        return r;
    r = buf_append_str(out, "    job:\n");
    if (r == 0)
        r = write_payload(spec->job, out);
    for (size_t i = 0; r == 0 && i < schedule_job_fields_count; i++)
        r = write_field(&schedule_job_fields[i], &spec->job->base, "      ", out);
    return r;
}
