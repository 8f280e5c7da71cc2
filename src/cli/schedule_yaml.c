/* The reader. libyaml composes the tree (its depth costs heap, not stack), and each node still
 * knows its line; what is walked here is as deep as the format: five levels. */
#include "cli/schedule_yaml.h"

#include "cli/args.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

struct reader {
    const char *name;
    yaml_document_t *document;
    struct arena *arena;
    struct errtext *reterr;
};

static uint32_t line_of(const yaml_node_t *n) {
    return (uint32_t) n->start_mark.line + 1;
}

static int refuse(const struct reader *r, const yaml_node_t *at, const char *what,
                  const char *why) {
    errtext_set(r->reterr, "%.128s:%u: %.64s: %.300s", r->name, line_of(at), what, why);
    return 1;
}

static yaml_node_t *node(const struct reader *r, int id) {
    return yaml_document_get_node(r->document, id);
}

/* The node's text; NULL when it is none, or holds a NUL byte. */
static const char *text_of(const yaml_node_t *n) {
    const char *s = (const char *) n->data.scalar.value;

    return n->type == YAML_SCALAR_NODE && strlen(s) == n->data.scalar.length ? s : NULL;
}

/* ---- values -----------------------------------------------------------------------------------
 */

static int read_text(const struct reader *r, const struct schedule_field *f, ProtobufCMessage *m,
                     const yaml_node_t *n) {
    const char *text = text_of(n);
    struct errtext why = {""};
    int rc;

    if (!text)
        return refuse(r, n, f->key, "must be one value");
    rc = schedule_field_set(f, m, text, r->arena, &why);
    return rc > 0 ? refuse(r, n, f->key, why.s) : rc;
}

static int read_texts(const struct reader *r, const struct schedule_field *f, ProtobufCMessage *m,
                      const yaml_node_t *n) {
    int rc = 0;

    if (n->type == YAML_SCALAR_NODE)
        return read_text(r, f, m, n);
    if (n->type != YAML_SEQUENCE_NODE)
        return refuse(r, n, f->key, "must be one value or a list of them");
    for (const yaml_node_item_t *i = n->data.sequence.items.start;
         rc == 0 && i < n->data.sequence.items.top; i++)
        rc = read_text(r, f, m, node(r, *i));
    return rc;
}

static int read_map(const struct reader *r, const struct schedule_field *f, ProtobufCMessage *m,
                    const yaml_node_t *n) {
    int rc = 0;

    if (n->type != YAML_MAPPING_NODE)
        return refuse(r, n, f->key, "must be a mapping of names to values");
    for (const yaml_node_pair_t *p = n->data.mapping.pairs.start;
         rc == 0 && p < n->data.mapping.pairs.top; p++) {
        const yaml_node_t *key = node(r, p->key), *value = node(r, p->value);
        size_t before = schedule_field_count(f, m);

        if (!text_of(key) || !text_of(value))
            return refuse(r, key, f->key, "names and values must be plain text");
        rc = schedule_field_put(f, m, text_of(key), text_of(value), r->arena);
        if (rc == 0 && schedule_field_count(f, m) == before)
            return refuse(r, key, text_of(key), "given twice; keep one");
    }
    return rc;
}

static int read_field(const struct reader *r, const struct schedule_field *f, ProtobufCMessage *m,
                      const yaml_node_t *n) {
    if (f->kind == SCHEDULE_TEXTS)
        return read_texts(r, f, m, n);
    if (f->kind == SCHEDULE_MAP)
        return read_map(r, f, m, n);
    return read_text(r, f, m, n);
}

/* ---- the job ----------------------------------------------------------------------------------
 */

static int read_command(const struct reader *r, Chronos__V1__JobSpec *job, const yaml_node_t *n) {
    const struct schedule_field argv = {
        .key = "command",
        .kind = SCHEDULE_TEXTS,
        .offset = offsetof(Chronos__V1__Command, argv),
        .count_offset = offsetof(Chronos__V1__Command, n_argv),
    };

    if (n->type != YAML_SEQUENCE_NODE)
        return refuse(r, n, "command",
                      "must be a list: [/bin/echo, hello]; for a line of text use shell");
    if (n->data.sequence.items.start == n->data.sequence.items.top)
        return refuse(r, n, "command", "must name the program to run: [/bin/echo, hello]");
    job->command = arena_zalloc(r->arena, sizeof(*job->command));
    if (!job->command)
        return -ENOMEM;
    chronos__v1__command__init(job->command);
    job->payload_case = CHRONOS__V1__JOB_SPEC__PAYLOAD_COMMAND;
    return read_texts(r, &argv, &job->command->base, n);
}

static int read_payload(const struct reader *r, Chronos__V1__JobSpec *job, const char *key,
                        const yaml_node_t *at, const yaml_node_t *n) {
    const char *text = text_of(n);

    if (job->payload_case != CHRONOS__V1__JOB_SPEC__PAYLOAD__NOT_SET)
        return refuse(r, at, key, "give one of command, shell and noop");
    if (strcmp(key, "command") == 0)
        return read_command(r, job, n);
    if (!text)
        return refuse(r, n, key, "must be one value");
    if (strcmp(key, "shell") == 0) {
        job->shell = arena_strdup(r->arena, text);
        job->payload_case = CHRONOS__V1__JOB_SPEC__PAYLOAD_SHELL;
        return job->shell ? 0 : -ENOMEM;
    }
    if (strcmp(text, "true") != 0)
        return refuse(r, n, key, "must be true, or left out");
    job->noop = arena_zalloc(r->arena, sizeof(*job->noop));
    if (!job->noop)
        return -ENOMEM;
    chronos__v1__noop__init(job->noop);
    job->payload_case = CHRONOS__V1__JOB_SPEC__PAYLOAD_NOOP;
    return 0;
}

static bool is_payload(const char *key) {
    return strcmp(key, "command") == 0 || strcmp(key, "shell") == 0 || strcmp(key, "noop") == 0;
}

static int refuse_key(const struct reader *r, const yaml_node_t *at, const char *key, bool job) {
    const struct schedule_field *fields = job ? schedule_job_fields : schedule_fields;
    size_t count = job ? schedule_job_fields_count : schedule_fields_count, n = 0;
    const char *names[64], *near;
    struct errtext why;

    for (; n < count; n++)
        names[n] = fields[n].key;
    if (job) {
        names[n++] = "command";
        names[n++] = "shell";
        names[n++] = "noop";
    } else {
        names[n++] = "job";
    }
    ASSERT(n <= ARRAY_LEN(names)); /* the tables are constant */
    near = args_suggest(key, names, n);
    errtext_set(&why, "unknown key of a %s%s%s%s", job ? "job" : "schedule",
                near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
    return refuse(r, at, key, why.s);
}

/* Whether an earlier pair of the mapping has the same key. */
static bool seen_before(const struct reader *r, const yaml_node_t *mapping,
                        const yaml_node_pair_t *p, const char *key) {
    for (const yaml_node_pair_t *q = mapping->data.mapping.pairs.start; q < p; q++) {
        const char *other = text_of(node(r, q->key));

        if (other && strcmp(other, key) == 0)
            return true;
    }
    return false;
}

static int read_job(const struct reader *r, Chronos__V1__JobSpec *job, const yaml_node_t *n) {
    int rc = 0;

    if (n->type != YAML_MAPPING_NODE)
        return refuse(r, n, "job", "must be a mapping, indented below it");
    for (const yaml_node_pair_t *p = n->data.mapping.pairs.start;
         rc == 0 && p < n->data.mapping.pairs.top; p++) {
        const yaml_node_t *at = node(r, p->key), *value = node(r, p->value);
        const char *key = text_of(at);
        const struct schedule_field *f;

        if (!key)
            return refuse(r, at, "job", "a key must be plain text");
        if (seen_before(r, n, p, key))
            return refuse(r, at, key, "given twice; keep one");
        f = schedule_field_find(schedule_job_fields, schedule_job_fields_count, key);
        if (f)
            rc = read_field(r, f, &job->base, value);
        else if (is_payload(key))
            rc = read_payload(r, job, key, at, value);
        else
            rc = refuse_key(r, at, key, /* job= */ true);
    }
    return rc;
}

/* ---- schedules --------------------------------------------------------------------------------
 */

static int read_pair(const struct reader *r, Chronos__V1__ScheduleSpec *spec,
                     const yaml_node_t *mapping, const yaml_node_pair_t *p) {
    const yaml_node_t *at = node(r, p->key), *value = node(r, p->value);
    const char *key = text_of(at);
    const struct schedule_field *f;

    if (!key)
        return refuse(r, at, "schedule", "a key must be plain text");
    if (seen_before(r, mapping, p, key))
        return refuse(r, at, key, "given twice; keep one");
    f = schedule_field_find(schedule_fields, schedule_fields_count, key);
    if (f)
        return read_field(r, f, &spec->base, value);
    if (strcmp(key, "job") == 0)
        return read_job(r, spec->job, value);
    return refuse_key(r, at, key, /* job= */ false);
}

static int read_schedule(const struct reader *r, const yaml_node_t *n,
                         Chronos__V1__ScheduleSpec **ret) {
    Chronos__V1__ScheduleSpec *spec = arena_zalloc(r->arena, sizeof(*spec));
    int rc = 0;

    if (n->type != YAML_MAPPING_NODE)
        return refuse(r, n, "schedules", "each schedule is a mapping: - name: nightly");
    if (!spec)
        return -ENOMEM;
    chronos__v1__schedule_spec__init(spec);
    spec->job = arena_zalloc(r->arena, sizeof(*spec->job));
    if (!spec->job)
        return -ENOMEM;
    chronos__v1__job_spec__init(spec->job);
    for (const yaml_node_pair_t *p = n->data.mapping.pairs.start;
         rc == 0 && p < n->data.mapping.pairs.top; p++)
        rc = read_pair(r, spec, n, p);
    if (rc != 0)
        return rc;
    if (!spec->name[0])
        return refuse(r, n, "name", "a schedule needs one");
    if (spec->n_cron == 0)
        return refuse(r, n, spec->name,
                      "has no cron; write @manual for one that is only triggered");
    if (spec->job->payload_case == CHRONOS__V1__JOB_SPEC__PAYLOAD__NOT_SET)
        return refuse(r, n, spec->name, "has nothing to run: job needs command, shell or noop");
    *ret = spec;
    return 0;
}

static int compare_names(const void *a, const void *b) {
    const Chronos__V1__ScheduleSpec *const *sa = a, *const *sb = b;

    return strcmp((*sa)->name, (*sb)->name);
}

static int check_unique(const struct reader *r, const yaml_node_t *at,
                        const struct schedule_list *l) {
    Chronos__V1__ScheduleSpec **sorted = arena_alloc(r->arena, (l->count + 1) * sizeof(*sorted));

    if (!sorted)
        return -ENOMEM;
    if (l->count > 0)
        memcpy(sorted, l->items, l->count * sizeof(*sorted));
    qsort(sorted, l->count, sizeof(*sorted), compare_names);
    for (size_t i = 1; i < l->count; i++) {
        if (strcmp(sorted[i - 1]->name, sorted[i]->name) == 0)
            return refuse(r, at, sorted[i]->name, "two schedules have this name");
    }
    return 0;
}

static int read_list(const struct reader *r, const yaml_node_t *n, struct schedule_list *ret) {
    size_t count;
    int rc = 0;

    if (n->type != YAML_SEQUENCE_NODE)
        return refuse(r, n, "schedules", "must be a list: - name: nightly");
    count = (size_t) (n->data.sequence.items.top - n->data.sequence.items.start);
    if (count > SCHEDULE_YAML_COUNT_MAX)
        return refuse(r, n, "schedules", "at most 100,000 in one file");
    ret->items = arena_alloc(r->arena, (count + 1) * sizeof(*ret->items));
    if (!ret->items)
        return -ENOMEM;
    for (; rc == 0 && ret->count < count; ret->count++)
        rc = read_schedule(r, node(r, n->data.sequence.items.start[ret->count]),
                           &ret->items[ret->count]);
    return rc == 0 ? check_unique(r, n, ret) : rc;
}

static int read_document(const struct reader *r, struct schedule_list *ret) {
    const yaml_node_t *root = yaml_document_get_root_node(r->document);
    const yaml_node_t *key, *list = NULL;

    if (!root || (root->type == YAML_SCALAR_NODE && root->data.scalar.length == 0)) {
        errtext_set(r->reterr, "%.128s: is empty; it begins with `schedules:`", r->name);
        return 1;
    }
    if (root->type != YAML_MAPPING_NODE)
        return refuse(r, root, "the file", "must be a mapping with the key schedules");
    for (const yaml_node_pair_t *p = root->data.mapping.pairs.start;
         p < root->data.mapping.pairs.top; p++) {
        key = node(r, p->key);
        if (!text_of(key) || strcmp(text_of(key), "schedules") != 0)
            return refuse(r, key, text_of(key) ? text_of(key) : "a key",
                          "unknown key; the file has one, schedules");
        if (list)
            return refuse(r, key, "schedules", "given twice; keep one");
        list = node(r, p->value);
    }
    return list ? read_list(r, list, ret) : refuse(r, root, "schedules", "is missing");
}

static int refuse_syntax(const struct reader *r, const yaml_parser_t *p) {
    if (p->error == YAML_MEMORY_ERROR)
        return -ENOMEM;
    errtext_set(r->reterr, "%.128s:%u: not YAML: %.200s", r->name,
                (uint32_t) p->problem_mark.line + 1, p->problem ? p->problem : "cannot be read");
    return 1;
}

/* What comes after the first document must be nothing. */
static int check_end(const struct reader *r, yaml_parser_t *p) {
    yaml_document_t more;
    const yaml_node_t *root;
    int rc = 0;

    if (!yaml_parser_load(p, &more))
        return refuse_syntax(r, p);
    root = yaml_document_get_root_node(&more);
    if (root)
        rc = refuse(r, root, "the file", "has a second document; keep one");
    yaml_document_delete(&more);
    return rc;
}

int schedule_yaml_read(const char *name, const char *text, size_t len, struct arena *arena,
                       struct schedule_list *ret, struct errtext *reterr) {
    yaml_document_t document;
    struct reader r = {.name = name, .document = &document, .arena = arena, .reterr = reterr};
    struct schedule_list list = {0};
    yaml_parser_t parser;
    int rc;

    ASSERT(text && ret);
    if (len > SCHEDULE_YAML_BYTES_MAX) {
        errtext_set(reterr, "%.128s: is larger than 64MiB", name);
        return 1;
    }
    if (!yaml_parser_initialize(&parser))
        return -ENOMEM;
    yaml_parser_set_input_string(&parser, (const unsigned char *) text, len);
    if (!yaml_parser_load(&parser, &document)) {
        rc = refuse_syntax(&r, &parser);
    } else {
        rc = read_document(&r, &list);
        if (rc == 0)
            rc = check_end(&r, &parser);
        yaml_document_delete(&document);
    }
    yaml_parser_delete(&parser);
    if (rc == 0)
        *ret = list;
    return rc;
}
