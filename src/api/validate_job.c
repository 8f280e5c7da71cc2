#include "api/validate_job.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SHOWN_BYTES_MAX 64

STATIC_ASSERT(sizeof(Chronos__V1__JobSpec__EnvEntry) == sizeof(Chronos__V1__JobSpec__LabelsEntry),
              "both maps are sorted by one function");
STATIC_ASSERT(offsetof(Chronos__V1__JobSpec__EnvEntry, key) ==
                  offsetof(Chronos__V1__JobSpec__LabelsEntry, key),
              "both maps are sorted by one function");

static int bad(struct errtext *reterr, const char *field, const char *what) {
    errtext_set(reterr, "spec.%s: %s", field, what);
    return VALIDATE_BAD;
}

static bool is_control(char c) {
    return (unsigned char) c < 0x20 || c == 0x7f;
}

bool validate_has_control(const char *s) {
    for (; *s; s++) {
        if (is_control(*s))
            return true;
    }
    return false;
}

/* The start of a client's text for an error message, without what would garble a log line. A cut
 * inside a UTF-8 sequence would make the gRPC status message invalid, so anything beyond ASCII is
 * replaced as well. */
static void show(const char *s, char out[SHOWN_BYTES_MAX + 1]) {
    size_t n = 0;

    for (; s[n] && n < SHOWN_BYTES_MAX; n++)
        out[n] = is_control(s[n]) || (unsigned char) s[n] > 0x7f || s[n] == '"' ? '?' : s[n];
    out[n] = '\0';
}

bool validate_is_word(const char *s, const char *extra) {
    for (; *s; s++) {
        bool ok = (*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z') || (*s >= '0' && *s <= '9');

        if (!ok && !strchr(extra, *s))
            return false;
    }
    return true;
}

/* ---- what to run ----------------------------------------------------------------------------- */

static int check_program(const char *program, struct errtext *reterr) {
    if (program[0] == '\0')
        return bad(reterr, "command.argv[0]", "must name the program to run");
    if (validate_has_control(program))
        return bad(reterr, "command.argv[0]", "must not contain control characters");
    if (program[0] != '/' && strchr(program, '/'))
        return bad(reterr, "command.argv[0]",
                   "must be an absolute path or a name that is searched in PATH");
    if (strlen(program) > VALIDATE_PATH_BYTES_MAX)
        return bad(reterr, "command.argv[0]", "must be at most 4,095 bytes");
    return 0;
}

static int check_command(Chronos__V1__Command *c, struct errtext *reterr) {
    if (c->n_argv == 0)
        return bad(reterr, "command.argv", "must have at least one element, the program");
    if (c->n_argv > VALIDATE_ARGS_MAX)
        return bad(reterr, "command.argv", "must have at most 10,000 elements");
    for (size_t i = 1; i < c->n_argv; i++) {
        if (strlen(c->argv[i]) > VALIDATE_STRING_BYTES_MAX) {
            errtext_set(reterr, "spec.command.argv[%zu]: must be at most 131,071 bytes", i);
            return VALIDATE_BAD;
        }
    }
    c->base.n_unknown_fields = 0;
    return check_program(c->argv[0], reterr);
}

static int check_shell(const char *line, struct errtext *reterr) {
    if (line[strspn(line, " \t\r\n")] == '\0')
        return bad(reterr, "shell", "must not be empty");
    if (strlen(line) > VALIDATE_STRING_BYTES_MAX)
        return bad(reterr, "shell", "must be at most 131,071 bytes");
    return 0;
}

static int check_payload(Chronos__V1__JobSpec *s, struct errtext *reterr) {
    switch (s->payload_case) {
    case CHRONOS__V1__JOB_SPEC__PAYLOAD_COMMAND:
        return check_command(s->command, reterr);
    case CHRONOS__V1__JOB_SPEC__PAYLOAD_SHELL:
        return check_shell(s->shell, reterr);
    case CHRONOS__V1__JOB_SPEC__PAYLOAD_NOOP:
        s->noop->base.n_unknown_fields = 0;
        return 0;
    case CHRONOS__V1__JOB_SPEC__PAYLOAD__NOT_SET:
    case _CHRONOS__V1__JOB_SPEC__PAYLOAD__CASE_IS_INT_SIZE:
        break;
    }
    return bad(reterr, "payload", "set one of command, shell, noop");
}

/* ---- the maps -------------------------------------------------------------------------------- */

struct sort_item {
    Chronos__V1__JobSpec__EnvEntry *entry;
    size_t position;
};

static int sort_compare(const void *a, const void *b) {
    const struct sort_item *x = a, *y = b;
    int c = strcmp(x->entry->key, y->entry->key);

    if (c != 0)
        return c;
    return x->position < y->position ? -1 : 1;
}

/* Sort by key and keep the last of equal ones. Works for labels as well, see the assertions above.
 */
static int sort_map(Chronos__V1__JobSpec__EnvEntry **entries, size_t *count, struct arena *arena) {
    struct sort_item *items;
    size_t kept = 0;

    for (size_t i = 0; i < *count; i++)
        entries[i]->base.n_unknown_fields = 0;
    if (*count < 2)
        return 0;
    items = arena_alloc(arena, *count * sizeof(*items));
    if (!items)
        return -ENOMEM;
    for (size_t i = 0; i < *count; i++)
        items[i] = (struct sort_item){.entry = entries[i], .position = i};
    qsort(items, *count, sizeof(*items), sort_compare);
    for (size_t i = 0; i < *count; i++) {
        if (i + 1 < *count && strcmp(items[i].entry->key, items[i + 1].entry->key) == 0)
            continue;
        entries[kept++] = items[i].entry;
    }
    *count = kept;
    return 0;
}

static int bad_entry(struct errtext *reterr, const char *map, const char *key, const char *what) {
    char shown[SHOWN_BYTES_MAX + 1];

    show(key, shown);
    errtext_set(reterr, "spec.%s[\"%s\"]: %s", map, shown, what);
    return VALIDATE_BAD;
}

static int check_env_entry(const char *key, const char *value, struct errtext *reterr) {
    if (key[0] == '\0' || (key[0] >= '0' && key[0] <= '9') || !validate_is_word(key, "_"))
        return bad_entry(reterr, "env", key, "the name must be [A-Za-z_][A-Za-z0-9_]*");
    if (strlen(key) > VALIDATE_ENV_NAME_BYTES_MAX)
        return bad_entry(reterr, "env", key, "the name must be at most 255 bytes");
    if (strncmp(key, "CHRONOS_", 8) == 0)
        return bad_entry(reterr, "env", key, "names that begin with CHRONOS_ are reserved");
    /* They would run code of the submitter's choice inside whatever the command starts. */
    if (strncmp(key, "LD_", 3) == 0)
        return bad_entry(reterr, "env", key, "names that begin with LD_ are not allowed");
    if (strlen(key) + 1 + strlen(value) > VALIDATE_STRING_BYTES_MAX)
        return bad_entry(reterr, "env", key, "name and value must be at most 131,070 bytes");
    return 0;
}

static int check_env(Chronos__V1__JobSpec *s, struct errtext *reterr) {
    if (s->n_env > VALIDATE_ENV_MAX)
        return bad(reterr, "env", "must have at most 1,000 entries");
    for (size_t i = 0; i < s->n_env; i++) {
        int r = check_env_entry(s->env[i]->key, s->env[i]->value, reterr);

        if (r != 0)
            return r;
    }
    return 0;
}

static int check_labels(Chronos__V1__JobSpec__LabelsEntry *const *labels, size_t count,
                        struct errtext *reterr) {
    if (count > VALIDATE_LABELS_MAX)
        return bad(reterr, "labels", "must have at most 32 entries");
    for (size_t i = 0; i < count; i++) {
        const char *key = labels[i]->key;

        if (key[0] == '\0' || strlen(key) > VALIDATE_LABEL_KEY_BYTES_MAX)
            return bad_entry(reterr, "labels", key, "the key must be 1 to 63 bytes");
        if (validate_has_control(key) || validate_has_control(labels[i]->value))
            return bad_entry(reterr, "labels", key, "must not contain control characters");
        if (strlen(labels[i]->value) > VALIDATE_LABEL_VALUE_BYTES_MAX)
            return bad_entry(reterr, "labels", key, "the value must be at most 255 bytes");
    }
    return 0;
}

int validate_labels(Chronos__V1__JobSpec__LabelsEntry **labels, size_t *count, struct arena *arena,
                    struct errtext *reterr) {
    int r = check_labels(labels, *count, reterr);

    return r != 0 ? r : sort_map((Chronos__V1__JobSpec__EnvEntry **) (void *) labels, count, arena);
}

/* ---- the rest -------------------------------------------------------------------------------- */

static int check_texts(Chronos__V1__JobSpec *s, struct arena *arena, struct errtext *reterr) {
    if (s->working_dir[0] != '\0' && s->working_dir[0] != '/')
        return bad(reterr, "working_dir", "must be an absolute path");
    if (strlen(s->working_dir) > VALIDATE_PATH_BYTES_MAX)
        return bad(reterr, "working_dir", "must be at most 4,095 bytes");
    if (validate_has_control(s->working_dir))
        return bad(reterr, "working_dir", "must not contain control characters");
    if (strlen(s->queue) > VALIDATE_QUEUE_BYTES_MAX)
        return bad(reterr, "queue", "must be at most 128 bytes");
    if (!validate_is_word(s->queue, "._-"))
        return bad(reterr, "queue", "must consist of [A-Za-z0-9._-]");
    if (strlen(s->name) > VALIDATE_NAME_BYTES_MAX)
        return bad(reterr, "name", "must be at most 255 bytes");
    if (validate_has_control(s->name))
        return bad(reterr, "name", "must not contain control characters");
    if (s->queue[0] == '\0') {
        s->queue = arena_strdup(arena, "default");
        if (!s->queue)
            return -ENOMEM;
    }
    return 0;
}

static int check_numbers(Chronos__V1__JobSpec *s, struct errtext *reterr) {
    if (s->run_timeout_ms == 0)
        s->run_timeout_ms = VALIDATE_RUN_TIMEOUT_MS_DEFAULT;
    if (s->run_timeout_ms < -1 || s->run_timeout_ms > VALIDATE_RUN_TIMEOUT_MS_MAX)
        return bad(reterr, "run_timeout_ms",
                   "must be -1 (no limit), 0 (5 minutes) or at most 31,536,000,000 (365 days)");
    if (s->kill_grace_ms == 0)
        s->kill_grace_ms = VALIDATE_KILL_GRACE_MS_DEFAULT;
    if (s->kill_grace_ms < 0 || s->kill_grace_ms > VALIDATE_KILL_GRACE_MS_MAX)
        return bad(reterr, "kill_grace_ms", "must be 0 (10 s) to 3,600,000 (1 hour)");
    if (s->output_limit_bytes == 0)
        s->output_limit_bytes = VALIDATE_OUTPUT_BYTES_DEFAULT;
    if (s->output_limit_bytes > VALIDATE_OUTPUT_BYTES_MAX)
        return bad(reterr, "output_limit_bytes", "must be at most 67,108,864 (64 MiB)");
    if (s->max_attempts == 0)
        s->max_attempts = VALIDATE_ATTEMPTS_DEFAULT;
    if (s->max_attempts > VALIDATE_ATTEMPTS_MAX)
        return bad(reterr, "max_attempts", "must be at most 100");
    return 0;
}

static int check_all(Chronos__V1__JobSpec *s, struct arena *arena, struct errtext *reterr) {
    int r;

    r = check_payload(s, reterr);
    if (r != 0)
        return r;
    r = check_env(s, reterr);
    if (r != 0)
        return r;
    r = check_labels(s->labels, s->n_labels, reterr);
    if (r != 0)
        return r;
    r = check_numbers(s, reterr);
    if (r != 0)
        return r;
    return check_texts(s, arena, reterr);
}

int validate_job(Chronos__V1__JobSpec *spec, struct arena *arena, size_t *ret_bytes,
                 struct errtext *reterr) {
    size_t bytes;
    int r;

    ASSERT(arena);
    ASSERT(ret_bytes);
    if (!spec) {
        errtext_set(reterr, "spec: is missing");
        return VALIDATE_BAD;
    }
    r = check_all(spec, arena, reterr);
    if (r != 0)
        return r;
    spec->base.n_unknown_fields = 0;
    r = sort_map(spec->env, &spec->n_env, arena);
    if (r < 0)
        return r;
    r = sort_map((Chronos__V1__JobSpec__EnvEntry **) (void *) spec->labels, &spec->n_labels, arena);
    if (r < 0)
        return r;
    bytes = chronos__v1__job_spec__get_packed_size(spec);
    if (bytes > VALIDATE_SPEC_BYTES_MAX) {
        errtext_set(reterr, "spec: must be at most 1,048,576 bytes encoded, is %zu", bytes);
        return VALIDATE_BAD;
    }
    *ret_bytes = bytes;
    return 0;
}

int validate_job_key(const char *key, struct errtext *reterr) {
    ASSERT(key);
    if (strlen(key) > VALIDATE_KEY_BYTES_MAX) {
        errtext_set(reterr, "idempotency_key: must be at most 128 bytes");
        return VALIDATE_BAD;
    }
    if (validate_has_control(key)) {
        errtext_set(reterr, "idempotency_key: must not contain control characters");
        return VALIDATE_BAD;
    }
    return 0;
}
