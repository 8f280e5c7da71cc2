#include "api/reflection.h"

#include "base/map.h"
#include "fsm/wire.h"
#include "os/rpc_server.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILES_MAX 64
#define IMPORTS_MAX 32
#define SERVICES_MAX 64
#define PENDING_MAX 256 /* messages of one file that wait for their turn */
#define INDEX_BYTES_MAX (4UL * 1024 * 1024)

/* Field numbers of google/protobuf/descriptor.proto. */
enum {
    SET_FILE = 1,
    FILE_NAME = 1,
    FILE_PACKAGE = 2,
    FILE_DEPENDENCY = 3,
    FILE_MESSAGE = 4,
    FILE_ENUM = 5,
    FILE_SERVICE = 6,
    MESSAGE_FIELD = 2,
    MESSAGE_NESTED = 3,
    MESSAGE_ENUM = 4,
    MESSAGE_ONEOF = 8,
    ENUM_VALUE = 2,
    SERVICE_METHOD = 2,
    ANY_NAME = 1, /* in all of them */
};

struct reflection_file {
    struct slice bytes;
    struct slice name;
    struct slice package;
    struct slice import_names[IMPORTS_MAX];
    struct reflection_file *imports[IMPORTS_MAX];
    size_t imports_count;
    size_t index; /* its place in files[] */
};

struct reflection {
    struct reflection_file files[FILES_MAX];
    size_t files_count;
    const char *services[SERVICES_MAX]; /* in the arena */
    size_t services_count;
    struct bytesmap by_name;   /* file name -> file */
    struct bytesmap by_symbol; /* full name -> file */
    struct arena arena;        /* full names */
};

/* ---- building the index ---------------------------------------------------------------------- */

/* The name inside an encoded descriptor; empty when it has none. */
static struct slice name_of(struct slice message) {
    struct wire_reader r = wire_reader_of(message);
    struct wire_field f;

    while (wire_next(&r, &f) == 0) {
        if (f.number == ANY_NAME && f.type == WIRE_LEN)
            return f.bytes;
    }
    return slice_of("", 0);
}

/* Register prefix.name. 0 with *ret_full (may be NULL) in the arena; -ENOMEM. */
static int add_symbol(struct reflection *x, struct reflection_file *file, struct slice prefix,
                      struct slice name, struct slice *ret_full) {
    size_t dot = prefix.len > 0 ? 1 : 0;
    size_t len = prefix.len + dot + name.len;
    char *full = arena_alloc(&x->arena, len + 1);

    if (!full)
        return -ENOMEM;
    memcpy(full, prefix.data, prefix.len);
    if (dot)
        full[prefix.len] = '.';
    memcpy(full + prefix.len + dot, name.data, name.len);
    full[len] = '\0';
    *ret_full = slice_of(full, len);
    return bytesmap_put(&x->by_symbol, *ret_full, file);
}

/* The members @number (fields, values, methods) of one descriptor, under its full name. */
static int add_members(struct reflection *x, struct reflection_file *file, struct slice message,
                       uint32_t number, struct slice prefix) {
    struct wire_reader r = wire_reader_of(message);
    struct wire_field f;
    struct slice full;
    int rc;

    while ((rc = wire_next(&r, &f)) == 0) {
        if (f.number != number || f.type != WIRE_LEN)
            continue;
        rc = add_symbol(x, file, prefix, name_of(f.bytes), &full);
        if (rc < 0)
            return rc;
    }
    return rc < 0 ? rc : 0;
}

/* Enum values are siblings of their enum (descriptor.proto, EnumValueDescriptorProto). */
static int add_enum(struct reflection *x, struct reflection_file *file, struct slice message,
                    struct slice prefix) {
    struct slice full;
    int r;

    r = add_symbol(x, file, prefix, name_of(message), &full);
    if (r < 0)
        return r;
    return add_members(x, file, message, ENUM_VALUE, prefix);
}

static int add_service(struct reflection *x, struct reflection_file *file, struct slice message) {
    struct slice full;
    int r;

    if (x->services_count == SERVICES_MAX)
        return ERR_LIMIT;
    r = add_symbol(x, file, file->package, name_of(message), &full);
    if (r < 0)
        return r;
    x->services[x->services_count++] = (const char *) full.data;
    return add_members(x, file, message, SERVICE_METHOD, full);
}

struct pending {
    struct slice message;
    struct slice prefix;
};

struct pending_list {
    struct pending items[PENDING_MAX];
    size_t count;
};

static int push(struct pending_list *l, struct slice message, struct slice prefix) {
    if (l->count == PENDING_MAX)
        return ERR_LIMIT;
    l->items[l->count++] = (struct pending){.message = message, .prefix = prefix};
    return 0;
}

/* One message: itself, its members; nested messages go onto the list. */
static int add_message(struct reflection *x, struct reflection_file *file, struct pending m,
                       struct pending_list *list) {
    struct wire_reader r = wire_reader_of(m.message);
    struct wire_field f;
    struct slice full;
    int rc;

    rc = add_symbol(x, file, m.prefix, name_of(m.message), &full);
    if (rc == 0)
        rc = add_members(x, file, m.message, MESSAGE_FIELD, full);
    if (rc == 0)
        rc = add_members(x, file, m.message, MESSAGE_ONEOF, full);
    if (rc < 0)
        return rc;
    while ((rc = wire_next(&r, &f)) == 0) {
        if (f.type != WIRE_LEN)
            continue;
        if (f.number == MESSAGE_NESTED)
            rc = push(list, f.bytes, full);
        else if (f.number == MESSAGE_ENUM)
            rc = add_enum(x, file, f.bytes, full);
        if (rc < 0)
            return rc;
    }
    return rc < 0 ? rc : 0;
}

/* Name, package and imports stand before the rest has to be named by them. */
static int read_head(struct reflection_file *file) {
    struct wire_reader r = wire_reader_of(file->bytes);
    struct wire_field f;
    int rc;

    file->name = file->package = slice_of("", 0);
    while ((rc = wire_next(&r, &f)) == 0) {
        if (f.type != WIRE_LEN)
            continue;
        if (f.number == FILE_NAME) {
            file->name = f.bytes;
        } else if (f.number == FILE_PACKAGE) {
            file->package = f.bytes;
        } else if (f.number == FILE_DEPENDENCY) {
            if (file->imports_count == IMPORTS_MAX)
                return ERR_LIMIT;
            file->import_names[file->imports_count++] = f.bytes;
        }
    }
    return rc < 0 ? rc : 0;
}

static int read_body(struct reflection *x, struct reflection_file *file,
                     struct pending_list *list) {
    struct wire_reader r = wire_reader_of(file->bytes);
    struct wire_field f;
    int rc;

    list->count = 0;
    while ((rc = wire_next(&r, &f)) == 0) {
        if (f.type != WIRE_LEN)
            continue;
        if (f.number == FILE_MESSAGE)
            rc = push(list, f.bytes, file->package);
        else if (f.number == FILE_ENUM)
            rc = add_enum(x, file, f.bytes, file->package);
        else if (f.number == FILE_SERVICE)
            rc = add_service(x, file, f.bytes);
        if (rc < 0)
            return rc;
    }
    while (rc >= 0 && list->count > 0)
        rc = add_message(x, file, list->items[--list->count], list);
    return rc < 0 ? rc : 0;
}

static int link_imports(struct reflection *x, struct errtext *reterr) {
    for (size_t i = 0; i < x->files_count; i++) {
        struct reflection_file *file = &x->files[i];

        for (size_t k = 0; k < file->imports_count; k++) {
            file->imports[k] = bytesmap_get(&x->by_name, file->import_names[k]);
            if (file->imports[k])
                continue;
            errtext_set(reterr, "import %.*s is missing", (int) file->import_names[k].len,
                        (const char *) file->import_names[k].data);
            return ERR_PROTO;
        }
    }
    return 0;
}

static int build(struct reflection *x, struct slice set, struct pending_list *list,
                 struct errtext *reterr) {
    struct wire_reader r = wire_reader_of(set);
    struct wire_field f;
    int rc;

    while ((rc = wire_next(&r, &f)) == 0) {
        struct reflection_file *file = &x->files[x->files_count];

        if (f.number != SET_FILE || f.type != WIRE_LEN)
            continue;
        if (x->files_count == FILES_MAX)
            return ERR_LIMIT;
        file->bytes = f.bytes;
        file->index = x->files_count++;
        rc = read_head(file);
        if (rc == 0)
            rc = bytesmap_put(&x->by_name, file->name, file);
        if (rc == 0)
            rc = read_body(x, file, list);
        if (rc < 0)
            return rc;
    }
    return rc < 0 ? rc : link_imports(x, reterr);
}

int reflection_new(struct slice set, struct reflection **ret, struct errtext *reterr) {
    _cleanup_(reflection_freep) struct reflection *x = NULL;
    struct pending_list *list;
    int r;

    ASSERT(ret);
    errtext_set(reterr, "not a FileDescriptorSet within the limits");
    x = calloc(1, sizeof(*x));
    if (!x)
        return -ENOMEM;
    arena_init(&x->arena, INDEX_BYTES_MAX);
    if (set.len == 0)
        return ERR_PROTO;
    list = calloc(1, sizeof(*list));
    if (!list)
        return -ENOMEM;
    r = build(x, set, list, reterr);
    free(list);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(x);
    return 0;
}

struct reflection *reflection_free(struct reflection *r) {
    if (!r)
        return NULL;
    bytesmap_done(&r->by_name);
    bytesmap_done(&r->by_symbol);
    arena_done(&r->arena);
    free(r);
    return NULL;
}

/* ---- answering ------------------------------------------------------------------------------- */

bool reflection_has_service(const struct reflection *r, const char *name) {
    for (size_t i = 0; i < r->services_count; i++) {
        if (strcmp(r->services[i], name) == 0)
            return true;
    }
    return false;
}

static int answer_error(struct arena *arena, int code, const char *message,
                        Grpc__Reflection__V1__ServerReflectionResponse *ret) {
    Grpc__Reflection__V1__ErrorResponse *e = arena_alloc(arena, sizeof(*e));

    if (!e)
        return -ENOMEM;
    grpc__reflection__v1__error_response__init(e);
    e->error_code = code;
    e->error_message = arena_strdup(arena, message);
    if (!e->error_message)
        return -ENOMEM;
    ret->message_response_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_ERROR_RESPONSE;
    ret->error_response = e;
    return 0;
}

/* The file and all it imports, each once; the file itself first. */
static size_t closure(const struct reflection_file *file, const struct reflection_file **out) {
    bool seen[FILES_MAX] = {false};
    size_t count = 0;

    out[count++] = file;
    seen[file->index] = true;
    for (size_t i = 0; i < count; i++) {
        for (size_t k = 0; k < out[i]->imports_count; k++) {
            const struct reflection_file *import = out[i]->imports[k];

            if (seen[import->index])
                continue;
            seen[import->index] = true;
            out[count++] = import;
        }
    }
    ASSERT(count <= FILES_MAX);
    return count;
}

static int answer_file(const struct reflection_file *file, const char *what, const char *name,
                       struct arena *arena, Grpc__Reflection__V1__ServerReflectionResponse *ret) {
    const struct reflection_file *files[FILES_MAX];
    Grpc__Reflection__V1__FileDescriptorResponse *f;
    char text[192];

    if (!file) {
        (void) snprintf(text, sizeof(text), "no %s of that name, which has %zu bytes", what,
                        strlen(name));
        return answer_error(arena, RPC_NOT_FOUND, text, ret);
    }
    f = arena_alloc(arena, sizeof(*f));
    if (!f)
        return -ENOMEM;
    grpc__reflection__v1__file_descriptor_response__init(f);
    f->n_file_descriptor_proto = closure(file, files);
    f->file_descriptor_proto =
        arena_alloc(arena, f->n_file_descriptor_proto * sizeof(*f->file_descriptor_proto));
    if (!f->file_descriptor_proto)
        return -ENOMEM;
    for (size_t i = 0; i < f->n_file_descriptor_proto; i++) {
        f->file_descriptor_proto[i].data = (uint8_t *) (uintptr_t) files[i]->bytes.data;
        f->file_descriptor_proto[i].len = files[i]->bytes.len;
    }
    ret->message_response_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_FILE_DESCRIPTOR_RESPONSE;
    ret->file_descriptor_response = f;
    return 0;
}

static int answer_services(const struct reflection *r, struct arena *arena,
                           Grpc__Reflection__V1__ServerReflectionResponse *ret) {
    Grpc__Reflection__V1__ListServiceResponse *list = arena_alloc(arena, sizeof(*list));
    Grpc__Reflection__V1__ServiceResponse *items =
        arena_alloc(arena, r->services_count * sizeof(*items));

    if (!list || !items)
        return -ENOMEM;
    grpc__reflection__v1__list_service_response__init(list);
    list->service = arena_alloc(arena, r->services_count * sizeof(*list->service));
    if (!list->service)
        return -ENOMEM;
    for (size_t i = 0; i < r->services_count; i++) {
        grpc__reflection__v1__service_response__init(&items[i]);
        items[i].name = (char *) (uintptr_t) r->services[i];
        list->service[i] = &items[i];
    }
    list->n_service = r->services_count;
    ret->message_response_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_LIST_SERVICES_RESPONSE;
    ret->list_services_response = list;
    return 0;
}

static struct reflection_file *find(const struct bytesmap *map, const char *name) {
    return bytesmap_get(map, slice_of(name, strlen(name)));
}

int reflection_answer(const struct reflection *r,
                      Grpc__Reflection__V1__ServerReflectionRequest *req, struct arena *arena,
                      Grpc__Reflection__V1__ServerReflectionResponse *ret) {
    ASSERT(r);
    ASSERT(req);
    ret->valid_host = req->host;
    ret->original_request = req;
    switch (req->message_request_case) {
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_BY_FILENAME:
        return answer_file(find(&r->by_name, req->file_by_filename), "file", req->file_by_filename,
                           arena, ret);
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_SYMBOL:
        return answer_file(find(&r->by_symbol, req->file_containing_symbol), "symbol",
                           req->file_containing_symbol, arena, ret);
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_LIST_SERVICES:
        return answer_services(r, arena, ret);
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_EXTENSION:
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_ALL_EXTENSION_NUMBERS_OF_TYPE:
        return answer_error(arena, RPC_NOT_FOUND, "there are no extensions", ret);
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST__NOT_SET:
    case _GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST__CASE_IS_INT_SIZE:
        break;
    }
    return answer_error(arena, RPC_INVALID_ARGUMENT, "message_request: is missing or unknown", ret);
}
