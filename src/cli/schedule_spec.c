/* Whole definitions: copied, stripped of what a node adds, compared. Declared in schedule_text.h.
 */
#include "cli/schedule_text.h"
#include "sched/cron.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define VALUE_BYTES_MAX ((size_t) 16 * 1024 * 1024)

Chronos__V1__ScheduleSpec *schedule_spec_copy(const Chronos__V1__ScheduleSpec *spec,
                                              struct arena *arena) {
    size_t n = protobuf_c_message_get_packed_size(&spec->base);
    uint8_t *bytes = arena_alloc(arena, n + 1);

    if (!bytes)
        return NULL;
    (void) protobuf_c_message_pack(&spec->base, bytes);
    return chronos__v1__schedule_spec__unpack(arena_pb(arena), n, bytes);
}

/* A field that has its default is as good as absent. */
static void strip_defaults(const struct schedule_field *fields, size_t count, ProtobufCMessage *m) {
    for (size_t i = 0; i < count; i++) {
        struct buf text;

        if (!fields[i].def || schedule_field_count(&fields[i], m) == 0)
            continue;
        buf_init(&text, VALUE_BYTES_MAX);
        /* Without memory the value stays, which is right as well. */
        if (schedule_field_print(&fields[i], m, 0, NULL, &text) == 0 &&
            text.len == strlen(fields[i].def) && memcmp(text.data, fields[i].def, text.len) == 0)
            schedule_field_clear(&fields[i], m);
        buf_done(&text);
    }
}

static bool has_label(const Chronos__V1__ScheduleSpec *spec,
                      const Chronos__V1__JobSpec__LabelsEntry *l) {
    for (size_t i = 0; i < spec->n_labels; i++) {
        if (strcmp(spec->labels[i]->key, l->key) == 0)
            return strcmp(spec->labels[i]->value, l->value) == 0;
    }
    return false;
}

void schedule_spec_strip(Chronos__V1__ScheduleSpec *spec) {
    size_t kept = 0;

    strip_defaults(schedule_fields, schedule_fields_count, &spec->base);
    if (!spec->job)
        return;
    strip_defaults(schedule_job_fields, schedule_job_fields_count, &spec->job->base);
    for (size_t i = 0; i < spec->job->n_labels; i++) {
        if (!has_label(spec, spec->job->labels[i]))
            spec->job->labels[kept++] = spec->job->labels[i];
    }
    spec->job->n_labels = kept;
}

/* ---- differences ------------------------------------------------------------------------------
 */

static int compare_texts(const void *a, const void *b) {
    return strcmp(*(char *const *) a, *(char *const *) b);
}

/* The values of a field as sorted texts "key=value": the order of a map means nothing, and that of
 * expressions neither. */
static int values_of(const struct schedule_field *f, const ProtobufCMessage *m, struct arena *arena,
                     char ***ret, size_t *ret_count) {
    size_t n = schedule_field_count(f, m);
    char **values = arena_zalloc(arena, (n + 1) * sizeof(char *));
    int r = values ? 0 : -ENOMEM;

    for (size_t i = 0; r == 0 && i < n; i++) {
        const char *key = "";
        struct buf b;

        buf_init(&b, VALUE_BYTES_MAX);
        r = schedule_field_print(f, m, i, &key, &b);
        if (r == 0)
            values[i] = arena_printf(arena, "%s=%.*s", key, (int) b.len, (const char *) b.data);
        buf_done(&b);
        if (r == 0 && !values[i])
            r = -ENOMEM;
    }
    if (r == 0)
        qsort(values, n, sizeof(char *), compare_texts);
    *ret = values;
    *ret_count = n;
    return r;
}

static int note_difference(const char *prefix, const char *key, struct buf *out) {
    return buf_printf(out, "%s%s%s", out->len > 0 ? ", " : "", prefix, key);
}

static int compare_fields(const struct schedule_field *fields, size_t count, const char *prefix,
                          const ProtobufCMessage *a, const ProtobufCMessage *b, struct arena *arena,
                          struct buf *out) {
    int r = 0;

    for (size_t i = 0; r == 0 && i < count; i++) {
        char **va, **vb;
        size_t na, nb;
        bool same;

        r = values_of(&fields[i], a, arena, &va, &na);
        if (r == 0)
            r = values_of(&fields[i], b, arena, &vb, &nb);
        if (r < 0)
            return r;
        same = na == nb;
        for (size_t k = 0; same && k < na; k++)
            same = strcmp(va[k], vb[k]) == 0;
        if (!same)
            r = note_difference(prefix, fields[i].key, out);
    }
    return r;
}

static bool same_payload(const Chronos__V1__JobSpec *a, const Chronos__V1__JobSpec *b) {
    if (a->payload_case != b->payload_case)
        return false;
    if (a->payload_case == CHRONOS__V1__JOB_SPEC__PAYLOAD_SHELL)
        return strcmp(a->shell, b->shell) == 0;
    if (a->payload_case != CHRONOS__V1__JOB_SPEC__PAYLOAD_COMMAND)
        return true;
    if (a->command->n_argv != b->command->n_argv)
        return false;
    for (size_t i = 0; i < a->command->n_argv; i++) {
        if (strcmp(a->command->argv[i], b->command->argv[i]) != 0)
            return false;
    }
    return true;
}

static const char *payload_key(const Chronos__V1__JobSpec *j) {
    switch (j->payload_case) {
    case CHRONOS__V1__JOB_SPEC__PAYLOAD_SHELL:
        return "shell";
    case CHRONOS__V1__JOB_SPEC__PAYLOAD_NOOP:
        return "noop";
    case CHRONOS__V1__JOB_SPEC__PAYLOAD_COMMAND:
    case CHRONOS__V1__JOB_SPEC__PAYLOAD__NOT_SET:
    case _CHRONOS__V1__JOB_SPEC__PAYLOAD__CASE_IS_INT_SIZE:
        break;
    }
    return "command";
}

/* Expressions as the parser understands them; what it does not understand stays. */
static int normalise(char **texts, size_t count, const char *name, struct arena *arena) {
    for (size_t i = 0; i < count; i++) {
        char out[CRON_TEXT_BYTES_MAX];
        struct cron c;

        if (cron_parse(texts[i], name, /* and_days= */ false, &c, NULL) != 0)
            continue;
        cron_print(&c, out);
        texts[i] = arena_strdup(arena, out);
        if (!texts[i])
            return -ENOMEM;
    }
    return 0;
}

static Chronos__V1__ScheduleSpec *comparable(const Chronos__V1__ScheduleSpec *spec,
                                             struct arena *arena) {
    Chronos__V1__ScheduleSpec *copy = schedule_spec_copy(spec, arena);

    if (!copy)
        return NULL;
    schedule_spec_strip(copy);
    if (normalise(copy->cron, copy->n_cron, copy->name, arena) < 0 ||
        normalise(copy->exclude, copy->n_exclude, copy->name, arena) < 0)
        return NULL;
    if (!copy->job) {
        copy->job = arena_zalloc(arena, sizeof(*copy->job));
        if (copy->job)
            chronos__v1__job_spec__init(copy->job);
    }
    return copy->job ? copy : NULL;
}

int schedule_spec_differences(const Chronos__V1__ScheduleSpec *a,
                              const Chronos__V1__ScheduleSpec *b, struct arena *arena,
                              struct buf *out) {
    Chronos__V1__ScheduleSpec *ca = comparable(a, arena), *cb = comparable(b, arena);
    int r;

    if (!ca || !cb)
        return -ENOMEM;
    r = compare_fields(schedule_fields, schedule_fields_count, "", &ca->base, &cb->base, arena,
                       out);
    if (r == 0 && !same_payload(ca->job, cb->job))
        r = note_difference("job.", payload_key(cb->job), out);
    if (r == 0)
        r = compare_fields(schedule_job_fields, schedule_job_fields_count, "job.", &ca->job->base,
                           &cb->job->base, arena, out);
    return r;
}
