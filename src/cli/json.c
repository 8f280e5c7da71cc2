#include "cli/json.h"

#include "base/buf.h"

#include <errno.h>
#include <string.h>

/* Our schemas nest Job -> JobSpec -> Command; deeper than this is a schema that needs thought. */
#define JSON_DEPTH_MAX 8

static json_t *base64(const ProtobufCBinaryData *d) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    struct buf b;
    json_t *j = NULL;
    int r = 0;

    buf_init(&b, SIZE_MAX / 2);
    for (size_t i = 0; r == 0 && i < d->len; i += 3) {
        size_t left = d->len - i;
        uint32_t v = (uint32_t) d->data[i] << 16;
        char q[4];

        if (left > 1)
            v |= (uint32_t) d->data[i + 1] << 8;
        if (left > 2)
            v |= d->data[i + 2];
        q[0] = digits[v >> 18];
        q[1] = digits[(v >> 12) & 63];
        q[2] = left > 1 ? digits[(v >> 6) & 63] : '=';
        q[3] = left > 2 ? digits[v & 63] : '=';
        r = buf_append(&b, q, sizeof(q));
    }
    if (r == 0)
        j = json_stringn(b.data ? (const char *) b.data : "", b.len);
    buf_done(&b);
    return j;
}

json_t *json_text(const uint8_t *data, size_t len) {
    struct buf b;
    json_t *j = NULL;
    int r = 0;

    buf_init(&b, SIZE_MAX / 2);
    /* jansson judges what is valid UTF-8: feed it the longest valid piece of up to four bytes. */
    for (size_t i = 0; r == 0 && i < len;) {
        size_t n = 1;
        json_t *one = data[i] == 0 ? NULL : json_stringn((const char *) data + i, 1);

        while (!one && data[i] != 0 && n < 4 && i + n < len) {
            n++;
            one = json_stringn((const char *) data + i, n);
        }
        if (one)
            r = buf_append(&b, data + i, n);
        else
            r = buf_append_str(&b, data[i] == 0 ? "\xe2\x90\x80" : "\xef\xbf\xbd");
        i += one ? n : 1;
        json_decref(one);
    }
    if (r == 0)
        j = json_stringn(b.data ? (const char *) b.data : "", b.len);
    buf_done(&b);
    return j;
}

static json_t *from_message(const ProtobufCMessage *m, int depth);

static json_t *unsigned_value(uint64_t v) {
    char text[32];

    if (v <= INT64_MAX)
        return json_integer((json_int_t) v);
    (void) snprintf(text, sizeof(text), "%llu", (unsigned long long) v);
    return json_string(text);
}

static json_t *enum_value(const ProtobufCFieldDescriptor *f, const void *at) {
    int number = *(const int *) at;
    const ProtobufCEnumValue *v = protobuf_c_enum_descriptor_get_value(f->descriptor, number);

    return v ? json_string(v->name) : json_integer(number);
}

static json_t *string_value(const void *at) {
    const char *s = *(char *const *) at;

    if (!s)
        s = "";
    return json_text((const uint8_t *) s, strlen(s));
}

static json_t *value_of(const ProtobufCFieldDescriptor *f, const void *at, int depth) {
    switch (f->type) {
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
        return json_integer(*(const int32_t *) at);
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
        return json_integer(*(const int64_t *) at);
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
        return json_integer(*(const uint32_t *) at);
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        return unsigned_value(*(const uint64_t *) at);
    case PROTOBUF_C_TYPE_FLOAT:
        return json_real((double) *(const float *) at);
    case PROTOBUF_C_TYPE_DOUBLE:
        return json_real(*(const double *) at);
    case PROTOBUF_C_TYPE_BOOL:
        return json_boolean(*(const protobuf_c_boolean *) at);
    case PROTOBUF_C_TYPE_ENUM:
        return enum_value(f, at);
    case PROTOBUF_C_TYPE_STRING:
        return string_value(at);
    case PROTOBUF_C_TYPE_BYTES:
        return base64(at);
    case PROTOBUF_C_TYPE_MESSAGE:
        return from_message(*(ProtobufCMessage *const *) at, depth + 1);
    }
    return NULL;
}

static size_t type_bytes(const ProtobufCFieldDescriptor *f) {
    switch (f->type) {
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
    case PROTOBUF_C_TYPE_FLOAT:
        return 4;
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_DOUBLE:
        return 8;
    case PROTOBUF_C_TYPE_BOOL:
        return sizeof(protobuf_c_boolean);
    case PROTOBUF_C_TYPE_ENUM:
        return sizeof(int);
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_MESSAGE:
        return sizeof(void *);
    case PROTOBUF_C_TYPE_BYTES:
        return sizeof(ProtobufCBinaryData);
    }
    return 0;
}

/* protoc turns map<string, string> into a repeated XxxEntry {key = 1; value = 2}. */
static bool is_map(const ProtobufCFieldDescriptor *f) {
    const ProtobufCMessageDescriptor *d = f->descriptor;
    size_t len;

    if (f->type != PROTOBUF_C_TYPE_MESSAGE || d->n_fields != 2)
        return false;
    len = strlen(d->short_name);
    return len > 5 && strcmp(d->short_name + len - 5, "Entry") == 0 &&
           strcmp(d->fields[0].name, "key") == 0 && d->fields[0].type == PROTOBUF_C_TYPE_STRING &&
           strcmp(d->fields[1].name, "value") == 0;
}

static json_t *map_value(const ProtobufCFieldDescriptor *f, ProtobufCMessage *const *items,
                         size_t count, int depth) {
    const ProtobufCMessageDescriptor *d = f->descriptor;
    json_t *o = json_object();

    for (size_t i = 0; o && i < count; i++) {
        const char *entry = (const char *) items[i];
        /* As a value: a key that is no UTF-8 is no key of an object. */
        json_t *key = string_value(entry + d->fields[0].offset);
        json_t *v = value_of(&d->fields[1], entry + d->fields[1].offset, depth);
        bool set = key && json_object_set_new(o, json_string_value(key), v) == 0;

        if (!key)
            json_decref(v);
        json_decref(key);
        if (!set) {
            json_decref(o);
            return NULL;
        }
    }
    return o;
}

static json_t *repeated_value(const ProtobufCFieldDescriptor *f, const char *items, size_t count,
                              int depth) {
    json_t *a = json_array();

    for (size_t i = 0; a && i < count; i++) {
        if (json_array_append_new(a, value_of(f, items + i * type_bytes(f), depth)) != 0) {
            json_decref(a);
            return NULL;
        }
    }
    return a;
}

/* Left out: an unset sub-message and the members of a oneof that were not chosen. */
static bool is_present(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f) {
    const char *at = (const char *) m;

    if (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF)
        return *(const uint32_t *) (const void *) (at + f->quantifier_offset) == f->id;
    if (f->type == PROTOBUF_C_TYPE_MESSAGE && f->label != PROTOBUF_C_LABEL_REPEATED)
        return *(ProtobufCMessage *const *) (const void *) (at + f->offset) != NULL;
    return true;
}

static json_t *field_value(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f,
                           int depth) {
    const char *at = (const char *) m + f->offset;
    size_t count;
    const void *items;

    if (f->label != PROTOBUF_C_LABEL_REPEATED)
        return value_of(f, at, depth);
    count = *(const size_t *) (const void *) ((const char *) m + f->quantifier_offset);
    items = *(void *const *) (const void *) at;
    if (is_map(f))
        return map_value(f, items, count, depth);
    return repeated_value(f, items, count, depth);
}

/* Depth is the schema's, not the input's: no message of ours contains itself. */
static json_t *from_message(const ProtobufCMessage *m, int depth) {
    json_t *o = json_object();

    ASSERT(m);
    ASSERT(depth < JSON_DEPTH_MAX);
    for (unsigned i = 0; o && i < m->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *f = &m->descriptor->fields[i];

        if (!is_present(m, f))
            continue;
        if (json_object_set_new(o, f->name, field_value(m, f, depth)) != 0) {
            json_decref(o);
            return NULL;
        }
    }
    return o;
}

json_t *json_from_message(const ProtobufCMessage *m) {
    return from_message(m, 0);
}

int json_print(const json_t *j, bool pretty, FILE *out) {
    if (!j)
        return -ENOMEM;
    if (json_dumpf(j, out, pretty ? JSON_INDENT(2) : JSON_COMPACT) != 0)
        return -EIO;
    if (fputc('\n', out) == EOF || fflush(out) != 0)
        return -EIO;
    return 0;
}
