#include "api/message_check.h"

#include "base/codec.h"
#include "fsm/wire.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Our deepest message is jobs[].spec.env[]: four levels. */
#define MESSAGE_CHECK_DEPTH_MAX 8

struct frame {
    const ProtobufCMessageDescriptor *desc;
    struct slice bytes;
    struct wire_reader reader;
    const ProtobufCFieldDescriptor *field; /* the one being looked at */
    const uint8_t *field_begin;
};

/* The length of the sequence at @p, 0 when it is none (RFC 3629 section 4). */
static size_t utf8_sequence(const uint8_t *p, size_t left) {
    uint8_t lo = 0x80, hi = 0xbf;
    size_t n;

    if (p[0] < 0x80)
        return p[0] == 0 ? 0 : 1;
    if (p[0] < 0xc2 || p[0] > 0xf4)
        return 0;
    n = p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
    if (left < n)
        return 0;
    if (p[0] == 0xe0)
        lo = 0xa0;
    else if (p[0] == 0xed)
        hi = 0x9f;
    else if (p[0] == 0xf0)
        lo = 0x90;
    else if (p[0] == 0xf4)
        hi = 0x8f;
    if (p[1] < lo || p[1] > hi)
        return 0;
    for (size_t i = 2; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    }
    return n;
}

bool message_check_text(struct slice s) {
    const uint8_t *p = s.data, *end;

    if (s.len == 0)
        return true;
    end = p + s.len;
    while (p < end) {
        size_t n;

        if (end - p >= 8) {
            uint64_t v = get_le64(p);
            uint64_t zero = (v - 0x0101010101010101ULL) & ~v;

            /* Eight plain ASCII bytes, none of them NUL. */
            if (((v | zero) & 0x8080808080808080ULL) == 0) {
                p += 8;
                continue;
            }
        }
        n = utf8_sequence(p, (size_t) (end - p));
        if (n == 0)
            return false;
        p += n;
    }
    return true;
}

/* How often the frame's current field came before: its index when it is repeated. */
static size_t frame_index(const struct frame *f) {
    struct wire_reader r = wire_reader_of(f->bytes);
    struct wire_field field;
    size_t n = 0;

    while (r.p < f->field_begin && wire_next(&r, &field) == 0) {
        if (field.number == f->field->id)
            n++;
    }
    return n;
}

static void describe(const struct frame *frames, size_t depth, const char *what,
                     struct errtext *reterr) {
    char path[256];
    size_t len = 0;

    path[0] = '\0';
    for (size_t i = 0; i < depth; i++) {
        const struct frame *f = &frames[i];
        int n;

        if (f->field->label == PROTOBUF_C_LABEL_REPEATED)
            n = snprintf(path + len, sizeof(path) - len, "%s%s[%zu]", i ? "." : "", f->field->name,
                         frame_index(f));
        else
            n = snprintf(path + len, sizeof(path) - len, "%s%s", i ? "." : "", f->field->name);
        if (n > 0)
            len = MIN(len + (size_t) n, sizeof(path) - 1);
    }
    errtext_set(reterr, "%s: %s", path, what);
}

static int malformed(const struct frame *f, struct slice message, struct errtext *reterr) {
    errtext_set(reterr, "malformed %s at byte %zu", f->desc->short_name,
                (size_t) (f->reader.p - message.data));
    return MESSAGE_CHECK_BAD;
}

static void frame_open(struct frame *f, const ProtobufCMessageDescriptor *d, struct slice bytes) {
    *f = (struct frame){.desc = d, .bytes = bytes, .reader = wire_reader_of(bytes)};
}

int message_check(const ProtobufCMessageDescriptor *d, struct slice message,
                  struct errtext *reterr) {
    struct frame frames[MESSAGE_CHECK_DEPTH_MAX];
    size_t depth = 1;

    ASSERT(d);
    if (message.len == 0)
        return 0;
    frame_open(&frames[0], d, message);
    while (depth > 0) {
        struct frame *f = &frames[depth - 1];
        struct wire_field field;
        int r;

        f->field_begin = f->reader.p;
        r = wire_next(&f->reader, &field);
        if (r < 0)
            return malformed(f, message, reterr);
        if (r == WIRE_END) {
            depth--;
            continue;
        }
        if (field.type != WIRE_LEN)
            continue;
        f->field = protobuf_c_message_descriptor_get_field(f->desc, field.number);
        if (!f->field)
            continue;
        if (f->field->type == PROTOBUF_C_TYPE_STRING && !message_check_text(field.bytes)) {
            describe(frames, depth, "must be UTF-8 text without NUL", reterr);
            return MESSAGE_CHECK_BAD;
        }
        if (f->field->type != PROTOBUF_C_TYPE_MESSAGE)
            continue;
        if (depth == MESSAGE_CHECK_DEPTH_MAX) {
            describe(frames, depth, "nested too deeply", reterr);
            return MESSAGE_CHECK_BAD;
        }
        frame_open(&frames[depth++], f->field->descriptor, field.bytes);
    }
    return 0;
}
