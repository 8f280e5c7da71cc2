/* Reads the configuration file through libyaml's events.
 *
 * What it is: a small machine over events that knows exactly the shape of our file, so that each
 * refusal can name line, key and what would be right (docs/adr/0020-yaml-events.md).
 * What it is not: a general YAML loader; anchors, tags and deeper nesting are refused.
 * Invariants: depth is at most YAML_DEPTH_MAX; a key is seen at most once in its mapping. */
#include "cli/config_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#define YAML_DEPTH_MAX 4
#define PATH_BYTES_MAX 128
#define KEY_BYTES_MAX 64
#define SECTIONS_MAX 16

enum frame_kind {
    FRAME_SECTION, /* a mapping whose keys are sections or settings */
    FRAME_MEMBERS, /* the sequence cluster.members */
    FRAME_MEMBER,  /* one mapping in it */
    FRAME_LABELS   /* the mapping worker.labels */
};

struct frame {
    enum frame_kind kind;
    size_t path_len; /* of the dotted path up to here */
    bool has_key;    /* a key was read, its value comes next */
};

struct reader {
    struct config *c;
    const char *name;
    yaml_parser_t parser;
    struct frame frames[YAML_DEPTH_MAX];
    size_t depth;
    char path[PATH_BYTES_MAX]; /* "cluster.raft" */
    char key[KEY_BYTES_MAX];   /* the last key of the innermost mapping */
    uint32_t key_line;
    char sections[SECTIONS_MAX][PATH_BYTES_MAX]; /* seen already */
    size_t sections_count;
    uint32_t member_seen; /* bits: id, address, client_address */
    struct errtext *reterr;
};

enum { MEMBER_ID = 1, MEMBER_ADDRESS = 2, MEMBER_CLIENT = 4 };

size_t config_find(const char *name) {
    size_t i = 0;

    while (i < config_settings_count && strcmp(config_options[i].name, name) != 0)
        i++;
    return i;
}

static uint32_t line_of(const yaml_event_t *e) {
    return (uint32_t) e->start_mark.line + 1;
}

static int refuse(struct reader *r, uint32_t line, const char *what, const char *why) {
    errtext_set(r->reterr, "%.128s:%u: %.128s: %s", r->name, line, what, why);
    return 1;
}

static struct frame *top(struct reader *r) {
    ASSERT(r->depth > 0);
    return &r->frames[r->depth - 1];
}

/* "cluster.raft" + "." + key into @out (PATH_BYTES_MAX). */
static void full_name(const struct reader *r, const char *key, char *out) {
    (void) snprintf(out, PATH_BYTES_MAX, "%.60s%s%.60s", r->path, r->path[0] ? "." : "", key);
}

/* Some setting lies below "name.". */
static bool is_section(const char *name) {
    size_t len = strlen(name);

    for (size_t i = 0; i < config_settings_count; i++) {
        if (strncmp(config_options[i].name, name, len) == 0 && config_options[i].name[len] == '.')
            return true;
    }
    return false;
}

/* ---- keys ---------------------------------------------------------------------------------- */

static int refuse_unknown(struct reader *r, uint32_t line, const char *name) {
    const char *names[CONFIG_SETTINGS_MAX];
    const char *near;
    struct errtext why;

    for (size_t i = 0; i < config_settings_count; i++)
        names[i] = config_options[i].name;
    near = args_suggest(name, names, config_settings_count);
    if (near)
        errtext_set(&why, "unknown key; did you mean %s?", near);
    else
        errtext_set(&why, "unknown key; \"chronos server --print-config\" shows all of them");
    return refuse(r, line, name, why.s);
}

static int section_key(struct reader *r, uint32_t line, const char *key) {
    char name[PATH_BYTES_MAX];
    size_t i;

    full_name(r, key, name);
    i = config_find(name);
    if (i < config_settings_count) {
        if (r->c->origins[i].line > 0) {
            struct errtext why;

            errtext_set(&why, "given twice, first in line %u; keep one", r->c->origins[i].line);
            return refuse(r, line, name, why.s);
        }
        r->c->origins[i].line = line;
        return 0;
    }
    if (strcmp(name, "cluster.members") != 0 && strcmp(name, "worker.labels") != 0 &&
        !is_section(name))
        return refuse_unknown(r, line, name);
    for (i = 0; i < r->sections_count; i++) {
        if (strcmp(r->sections[i], name) == 0)
            return refuse(r, line, name, "given twice; put all its keys under one");
    }
    ASSERT(r->sections_count < SECTIONS_MAX);
    memcpy(r->sections[r->sections_count++], name, PATH_BYTES_MAX);
    return 0;
}

static int member_key(struct reader *r, uint32_t line, const char *key) {
    uint32_t bit = strcmp(key, "id") == 0               ? MEMBER_ID
                   : strcmp(key, "address") == 0        ? MEMBER_ADDRESS
                   : strcmp(key, "client_address") == 0 ? MEMBER_CLIENT
                                                        : 0;
    if (bit == 0)
        return refuse(r, line, key,
                      "unknown key of a member; a member has id, address and client_address");
    if (r->member_seen & bit)
        return refuse(r, line, key, "given twice for this member; keep one");
    r->member_seen |= bit;
    return 0;
}

static int label_key(struct reader *r, uint32_t line, const char *key) {
    for (size_t i = 0; i < r->c->worker.labels_count; i++) {
        if (strcmp(r->c->worker.labels[i].key, key) == 0)
            return refuse(r, line, key, "this label is given twice; keep one");
    }
    if (r->c->worker.labels_count >= CONFIG_LABELS_MAX)
        return refuse(r, line, key, "at most 32 labels");
    return 0;
}

static int on_key(struct reader *r, const yaml_event_t *e) {
    const char *key = (const char *) e->data.scalar.value;
    uint32_t line = line_of(e);
    int result = 0;

    if (e->data.scalar.length == 0 || e->data.scalar.length >= KEY_BYTES_MAX ||
        strlen(key) != e->data.scalar.length)
        return refuse(r, line, "a key", "must have 1 to 63 characters");
    switch (top(r)->kind) {
    case FRAME_SECTION:
        result = section_key(r, line, key);
        break;
    case FRAME_MEMBER:
        result = member_key(r, line, key);
        break;
    case FRAME_LABELS:
        result = label_key(r, line, key);
        break;
    case FRAME_MEMBERS:
        return refuse(r, line, "cluster.members",
                      "each member is a mapping: - {id: 1, address: \"host:7402\"}");
    }
    if (result != 0)
        return result;
    memcpy(r->key, key, e->data.scalar.length + 1);
    r->key_line = line;
    top(r)->has_key = true;
    return 0;
}

/* ---- values -------------------------------------------------------------------------------- */

static int setting_value(struct reader *r, uint32_t line, const char *text, bool plain) {
    char name[PATH_BYTES_MAX];
    struct errtext why;
    size_t i;
    int result;

    full_name(r, r->key, name);
    i = config_find(name);
    if (i == config_settings_count)
        return refuse(r, line, name,
                      strcmp(name, "cluster.members") == 0
                          ? "must be a list: - {id: 1, address: \"host:7402\"}"
                          : "must be a mapping of keys to values, indented below it");
    if (config_options[i].kind == ARG_STRING && plain && (!*text || strcmp(text, "~") == 0))
        return refuse(r, line, name, "has no value; write the value or remove the line");
    result = args_set(&config_options[i], text, r->c, &why);
    return result > 0 ? refuse(r, line, name, why.s) : result;
}

static int member_value(struct reader *r, uint32_t line, const char *text) {
    struct config_member *m = &r->c->cluster.members[r->c->cluster.members_count];
    struct errtext why;

    if (strcmp(r->key, "id") == 0) {
        const struct arg_option id = {.kind = ARG_UINT, .min = 1, .max = CONFIG_NODE_ID_MAX};
        int result = args_set(&id, text, &m->id, &why);

        return result > 0 ? refuse(r, line, "cluster.members.id", why.s) : result;
    }
    if (strcmp(r->key, "address") == 0)
        m->address = text;
    else
        m->client_address = text;
    return 0;
}

static int on_value(struct reader *r, const yaml_event_t *e) {
    const char *value = (const char *) e->data.scalar.value;
    bool plain = e->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    uint32_t line = line_of(e);
    char *text, *key;

    if (strlen(value) != e->data.scalar.length)
        return refuse(r, line, r->key, "the value holds a NUL character");
    text = arena_strdup(&r->c->arena, value);
    if (!text)
        return -ENOMEM;
    top(r)->has_key = false;
    switch (top(r)->kind) {
    case FRAME_SECTION:
        return setting_value(r, line, text, plain);
    case FRAME_MEMBER:
        return member_value(r, line, text);
    case FRAME_LABELS:
        key = arena_strdup(&r->c->arena, r->key);
        if (!key)
            return -ENOMEM;
        r->c->worker.labels[r->c->worker.labels_count++] =
            (struct config_label){.key = key, .value = text};
        return 0;
    case FRAME_MEMBERS:
        break;
    }
    return refuse(r, line, "cluster.members",
                  "each member is a mapping: - {id: 1, address: \"host:7402\"}");
}

/* ---- nesting ------------------------------------------------------------------------------- */

static int push(struct reader *r, enum frame_kind kind, uint32_t line) {
    if (r->depth == YAML_DEPTH_MAX)
        return refuse(r, line, r->path, "is nested too deeply");
    r->frames[r->depth++] = (struct frame){.kind = kind, .path_len = strlen(r->path)};
    return 0;
}

static int open_member(struct reader *r, uint32_t line) {
    struct config *c = r->c;

    if (c->cluster.members_count >= CONFIG_MEMBERS_MAX)
        return refuse(r, line, "cluster.members", "at most 15 members");
    c->cluster.members[c->cluster.members_count] =
        (struct config_member){.client_address = "", .line = line};
    r->member_seen = 0;
    return push(r, FRAME_MEMBER, line);
}

static int on_mapping_start(struct reader *r, const yaml_event_t *e) {
    uint32_t line = line_of(e);
    char name[PATH_BYTES_MAX];
    enum frame_kind kind = FRAME_SECTION;
    int result;

    if (r->depth == 0)
        return push(r, FRAME_SECTION, line);
    if (top(r)->kind == FRAME_MEMBERS)
        return open_member(r, line);
    if (!top(r)->has_key)
        return refuse(r, line, "a key", "must be plain text, not a mapping");
    full_name(r, r->key, name);
    if (top(r)->kind != FRAME_SECTION)
        return refuse(r, line, r->key, "must be one value, not a mapping");
    if (strcmp(name, "worker.labels") == 0)
        kind = FRAME_LABELS;
    else if (strcmp(name, "cluster.members") == 0)
        return refuse(r, line, name, "must be a list: - {id: 1, address: \"host:7402\"}");
    else if (!is_section(name))
        return refuse(r, line, name, "must be one value, not a mapping");
    top(r)->has_key = false;
    result = push(r, kind, line);
    if (result != 0)
        return result;
    if (kind == FRAME_LABELS) {
        r->c->labels_line = line;
        r->c->worker.labels_count = 0;
    }
    memcpy(r->path, name, sizeof(name));
    return 0;
}

static int on_sequence_start(struct reader *r, const yaml_event_t *e) {
    uint32_t line = line_of(e);
    char name[PATH_BYTES_MAX];

    if (r->depth == 0)
        return refuse(r, line, "the file", "must be a mapping of sections, not a list");
    full_name(r, top(r)->has_key ? r->key : "", name);
    if (top(r)->kind != FRAME_SECTION || !top(r)->has_key || strcmp(name, "cluster.members") != 0)
        return refuse(r, line, name, "must be one value, not a list");
    top(r)->has_key = false;
    r->c->members_line = r->key_line;
    r->c->cluster.members_count = 0;
    return push(r, FRAME_MEMBERS, line);
}

static int on_end(struct reader *r, const yaml_event_t *e) {
    struct frame *f = top(r);
    struct config *c = r->c;

    if (f->kind == FRAME_MEMBER) {
        if (!(r->member_seen & MEMBER_ID) || !(r->member_seen & MEMBER_ADDRESS))
            return refuse(r, c->cluster.members[c->cluster.members_count].line, "cluster.members",
                          "a member needs id and address: - {id: 1, address: \"host:7402\"}");
        c->cluster.members_count++;
    }
    if (f->kind == FRAME_MEMBERS && c->cluster.members_count == 0)
        return refuse(r, line_of(e), "cluster.members", "is empty; name at least this node");
    r->depth--;
    r->path[f->path_len] = '\0';
    return 0;
}

/* ---- events -------------------------------------------------------------------------------- */

static int on_scalar(struct reader *r, const yaml_event_t *e) {
    if (e->data.scalar.anchor || e->data.scalar.tag)
        return refuse(r, line_of(e), "the file", "anchors and tags are not used here");
    if (r->depth == 0) {
        if (e->data.scalar.length == 0)
            return 0; /* a file of comments only */
        return refuse(r, line_of(e), "the file", "must be a mapping of sections, as `node:`");
    }
    if (top(r)->kind == FRAME_MEMBERS || !top(r)->has_key)
        return on_key(r, e);
    return on_value(r, e);
}

static int on_event(struct reader *r, const yaml_event_t *e, bool *ret_end) {
    switch (e->type) {
    case YAML_NO_EVENT:
    case YAML_STREAM_START_EVENT:
    case YAML_DOCUMENT_END_EVENT:
        return 0;
    case YAML_DOCUMENT_START_EVENT:
        if (e->start_mark.line > 0 && r->sections_count > 0)
            return refuse(r, line_of(e), "the file", "has a second document; keep one");
        return 0;
    case YAML_STREAM_END_EVENT:
        *ret_end = true;
        return 0;
    case YAML_ALIAS_EVENT:
        return refuse(r, line_of(e), "the file", "anchors and aliases are not used here");
    case YAML_SCALAR_EVENT:
        return on_scalar(r, e);
    case YAML_SEQUENCE_START_EVENT:
        return on_sequence_start(r, e);
    case YAML_MAPPING_START_EVENT:
        return on_mapping_start(r, e);
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        return on_end(r, e);
    }
    return 0;
}

static int read_events(struct reader *r) {
    bool end = false;
    int result = 0;

    while (result == 0 && !end) {
        yaml_event_t e;

        if (!yaml_parser_parse(&r->parser, &e)) {
            const yaml_parser_t *p = &r->parser;

            if (p->error == YAML_MEMORY_ERROR)
                return -ENOMEM;
            return refuse(r, (uint32_t) p->problem_mark.line + 1, "not YAML",
                          p->problem ? p->problem : "cannot be read");
        }
        result = on_event(r, &e, &end);
        yaml_event_delete(&e);
    }
    return result;
}

int config_read(struct config *c, const char *name, const char *text, size_t len,
                struct errtext *reterr) {
    struct reader r = {.c = c, .name = name, .reterr = reterr};
    int result;

    ASSERT(c);
    ASSERT(text);
    if (len > CONFIG_FILE_BYTES_MAX)
        return refuse(&r, 1, "the file", "is larger than 1MiB");
    if (!yaml_parser_initialize(&r.parser))
        return -ENOMEM;
    yaml_parser_set_input_string(&r.parser, (const unsigned char *) text, len);
    result = read_events(&r);
    yaml_parser_delete(&r.parser);
    return result;
}
