/* The reader of cli/crontab.h. */
#include "cli/crontab.h"

#include "sched/cron.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define VARIABLES_MAX 256
#define SLUG_BYTES_MAX 40
#define NAME_BYTES_MAX 129
#define LABEL_BYTES_MAX 255
#define NOTE_BYTES_MAX 200

struct variable {
    const char *name, *value;
};

struct reader {
    const struct crontab_options *o;
    struct arena *arena;
    struct schedule_list list;
    size_t capacity;
    struct buf *notes;
    struct errtext *reterr;
    uint32_t line;
    struct variable variables[VARIABLES_MAX]; /* HOME included; not SHELL, CRON_TZ, MAILTO */
    size_t variables_count;
    const char *time_zone, *shell, *mailto;
    const char *given_name; /* by the comment above, or NULL */
    bool user_noted;
};

static int refuse(const struct reader *r, const char *what, const char *why) {
    errtext_set(r->reterr, "%.128s:%u: %.96s%s%.280s", r->o->name, r->line, what,
                what[0] ? ": " : "", why);
    return 1;
}

static int note(struct reader *r, const char *what, const char *why) {
    return buf_printf(r->notes, "%.128s:%u: %.200s: %s\n", r->o->name, r->line, what, why);
}

static const char *skip_space(const char *s) {
    while (*s == ' ' || *s == '\t')
        s++;
    return s;
}

/* The word at *p as a new text; *p moves behind it and the space after it. NULL: no memory. */
static const char *take_word(struct reader *r, const char **p) {
    size_t len = strcspn(*p, " \t");
    const char *word = arena_printf(r->arena, "%.*s", (int) len, *p);

    *p = skip_space(*p + len);
    return word;
}

/* ---- assignments ------------------------------------------------------------------------------
 */

/* NAME = VALUE, with quotes around either. 1 = it is none. */
static int split_assignment(struct reader *r, const char *line, const char **ret_name,
                            const char **ret_value) {
    const char *p = line, *name;
    size_t len;
    char quote = *p == '"' || *p == '\'' ? *p++ : '\0';

    len = 0;
    while (isalnum((unsigned char) p[len]) || p[len] == '_')
        len++;
    if (len == 0 || isdigit((unsigned char) p[0]) || (quote && p[len] != quote))
        return 1;
    name = arena_printf(r->arena, "%.*s", (int) len, p);
    p = skip_space(p + len + (quote ? 1 : 0));
    if (*p != '=')
        return 1;
    p = skip_space(p + 1);
    len = strlen(p);
    while (len > 0 && (p[len - 1] == ' ' || p[len - 1] == '\t'))
        len--;
    if (len >= 2 && (*p == '"' || *p == '\'') && p[len - 1] == *p) {
        p++;
        len -= 2;
    }
    *ret_name = name;
    *ret_value = arena_printf(r->arena, "%.*s", (int) len, p);
    return name && *ret_value ? 0 : -ENOMEM;
}

static int set_variable(struct reader *r, const char *name, const char *value) {
    for (size_t i = 0; i < r->variables_count; i++) {
        if (strcmp(r->variables[i].name, name) == 0) {
            r->variables[i].value = value;
            return 0;
        }
    }
    if (r->variables_count == VARIABLES_MAX)
        return refuse(r, name, "more than 256 variables");
    r->variables[r->variables_count++] = (struct variable){.name = name, .value = value};
    return 0;
}

static int assign(struct reader *r, const char *name, const char *value) {
    if (strcmp(name, "CRON_TZ") == 0) {
        r->time_zone = value;
        return 0;
    }
    if (strcmp(name, "SHELL") == 0) {
        if (value[0] != '/')
            return refuse(r, "SHELL", "must be an absolute path");
        r->shell = value;
        return 0;
    }
    if (strcmp(name, "MAILTO") == 0) {
        r->mailto = value;
        return value[0] ? note(r, "MAILTO",
                               "kept as the label " CRONTAB_MAILTO_LABEL "; Chronos sends no mail")
                        : 0;
    }
    if (strncmp(name, "CHRONOS_", 8) == 0)
        return refuse(r, name, "variables of this name are set by Chronos");
    if (strcmp(name, "RANDOM_DELAY") == 0 || strcmp(name, "MAILFROM") == 0)
        return note(r, name, "has no meaning here; it is left out");
    return set_variable(r, name, value);
}

/* ---- the command ------------------------------------------------------------------------------
 */

/* Split at the first % that is not escaped; \% is a %, further ones are newlines of the input (as
 * in cron's do_command.c). *ret_input NULL = none. */
static int split_input(struct reader *r, const char *text, char **ret_command, char **ret_input) {
    size_t len = strlen(text);
    char *out = arena_alloc(r->arena, len + 2), *at = out;
    bool escaped = false;

    *ret_command = out;
    *ret_input = NULL;
    if (!out)
        return -ENOMEM;
    for (const char *p = text; *p; p++) {
        if (escaped && *p != '%')
            *at++ = '\\';
        if (!escaped && *p == '%') {
            *at++ = *ret_input ? '\n' : '\0';
            if (!*ret_input)
                *ret_input = at;
            continue;
        }
        escaped = *p == '\\';
        if (!escaped)
            *at++ = *p;
    }
    if (escaped)
        *at++ = '\\';
    *at = '\0';
    return 0;
}

/* Whether a line of @text begins with @word: then the word cannot end it. */
static bool has_line(const char *text, const char *word) {
    size_t len = strlen(word);

    for (const char *p = text; p; p = strchr(p, '\n') ? strchr(p, '\n') + 1 : NULL) {
        if (strncmp(p, word, len) == 0)
            return true;
    }
    return false;
}

static char *script_with_input(struct reader *r, const char *input, const char *last) {
    const char *end = "CRON_INPUT";
    size_t len = strlen(input);

    while (end && has_line(input, end))
        end = arena_printf(r->arena, "%s_", end);
    if (!end)
        return NULL;
    return arena_printf(r->arena, "exec <<'%s'\n%s%s%s\n%s", end, input,
                        len > 0 && input[len - 1] == '\n' ? "" : "\n", end, last);
}

static int set_argv(struct reader *r, Chronos__V1__JobSpec *job, const char *const *argv,
                    size_t count) {
    job->command = arena_zalloc(r->arena, sizeof(*job->command));
    if (!job->command)
        return -ENOMEM;
    chronos__v1__command__init(job->command);
    job->command->argv = arena_memdup(r->arena, argv, count * sizeof(*argv));
    job->command->n_argv = count;
    job->payload_case = CHRONOS__V1__JOB_SPEC__PAYLOAD_COMMAND;
    return job->command->argv ? 0 : -ENOMEM;
}

static int set_payload(struct reader *r, Chronos__V1__JobSpec *job, const char *text) {
    bool sh = strcmp(r->shell, "/bin/sh") == 0;
    char *command, *input;
    const char *script;
    int rc = split_input(r, text, &command, &input);

    if (rc < 0)
        return rc;
    if (!command[0])
        return refuse(r, "", "the command is empty");
    script = command;
    if (input)
        script = script_with_input(r, input, sh ? command : CRONTAB_OTHER_SHELL);
    if (!script)
        return -ENOMEM;
    if (sh) {
        job->shell = (char *) (uintptr_t) script;
        job->payload_case = CHRONOS__V1__JOB_SPEC__PAYLOAD_SHELL;
        return 0;
    }
    if (input)
        return set_argv(r, job, (const char *[]){"/bin/sh", "-c", script, r->shell, command}, 5);
    return set_argv(r, job, (const char *[]){r->shell, "-c", command}, 3);
}

/* ---- names ------------------------------------------------------------------------------------
 */

static uint32_t hash(const char *user, const char *command) {
    uint32_t h = 2166136261U;

    for (const char *p = user; *p; p++)
        h = (h ^ (uint8_t) *p) * 16777619U;
    h *= 16777619U;
    for (const char *p = command; *p; p++)
        h = (h ^ (uint8_t) *p) * 16777619U;
    return h;
}

static bool is_taken(const struct reader *r, const char *name) {
    for (size_t i = 0; i < r->list.count; i++) {
        if (strcmp(r->list.items[i]->name, name) == 0)
            return true;
    }
    return false;
}

/* "backup.sh-1f2e3d4c": the command's first word, and a hash of all of it and the user. */
static char *make_name(struct reader *r, const char *user, const char *command) {
    size_t len = strcspn(command, " \t;|&<>%");
    const char *word = command;
    char slug[SLUG_BYTES_MAX + 1], *name;
    size_t used = 0;

    for (const char *p = command; p < command + len; p++) {
        if (*p == '/' && p + 1 < command + len)
            word = p + 1;
    }
    for (const char *p = word; p < command + len && used < SLUG_BYTES_MAX; p++)
        slug[used++] = isalnum((unsigned char) *p) || strchr("._-", *p) ? *p : '_';
    slug[used] = '\0';
    name = arena_printf(r->arena, "%s%s-%08" PRIx32, r->o->prefix, used > 0 ? slug : "entry",
                        hash(user, command));
    for (unsigned n = 2; name && is_taken(r, name); n++)
        name = arena_printf(r->arena, "%s%s-%08" PRIx32 "-%u", r->o->prefix,
                            used > 0 ? slug : "entry", hash(user, command), n);
    return name;
}

/* ---- entries ----------------------------------------------------------------------------------
 */

/* The five fields, or the word with '@', with one space between them. 1 = refused. */
static int take_expression(struct reader *r, const char **p, const char **ret) {
    const char *fields[5] = {"", "", "", "", ""};
    struct errtext why = {""};
    struct cron c;
    int rc;

    if (**p == '@') {
        *ret = take_word(r, p);
        if (!*ret)
            return -ENOMEM;
        if (strcmp(*ret, "@reboot") == 0)
            return 0;
    } else {
        for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
            if (!**p)
                return refuse(r, "", "an entry has five fields and a command");
            fields[i] = take_word(r, p);
            if (!fields[i])
                return -ENOMEM;
        }
        *ret = arena_printf(r->arena, "%s %s %s %s %s", fields[0], fields[1], fields[2], fields[3],
                            fields[4]);
        if (!*ret)
            return -ENOMEM;
    }
    rc = cron_parse(*ret, "", /* and_days= */ false, &c, &why);
    return rc == ERR_CONFIG ? refuse(r, *ret, why.s) : rc;
}

static int set_labels(struct reader *r, Chronos__V1__ScheduleSpec *spec, const char *user) {
    const struct schedule_field *labels = schedule_field_of("labels", /* job= */ false);
    int rc = 0;

    if (user[0])
        rc = schedule_field_put(labels, &spec->base, CRONTAB_USER_LABEL, user, r->arena);
    if (rc == 0 && r->mailto && r->mailto[0] && strlen(r->mailto) <= LABEL_BYTES_MAX)
        rc = schedule_field_put(labels, &spec->base, CRONTAB_MAILTO_LABEL, r->mailto, r->arena);
    return rc;
}

static int set_environment(struct reader *r, Chronos__V1__JobSpec *job) {
    const struct schedule_field *env = schedule_field_of("env", /* job= */ true);
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < r->variables_count; i++) {
        const struct variable *v = &r->variables[i];

        rc = schedule_field_put(env, &job->base, v->name, v->value, r->arena);
        if (strcmp(v->name, "HOME") == 0 && v->value[0] == '/')
            job->working_dir = (char *) (uintptr_t) v->value;
    }
    return rc;
}

/* A definition that does what cron would. */
static int build(struct reader *r, const char *user, const char *command,
                 Chronos__V1__ScheduleSpec **ret) {
    Chronos__V1__ScheduleSpec *spec = arena_zalloc(r->arena, sizeof(*spec));
    Chronos__V1__JobSpec *job = arena_zalloc(r->arena, sizeof(*job));
    int rc;

    if (!spec || !job)
        return -ENOMEM;
    chronos__v1__schedule_spec__init(spec);
    chronos__v1__job_spec__init(job);
    spec->job = job;
    spec->time_zone = (char *) (uintptr_t) r->time_zone;
    spec->overlap = CHRONOS__V1__OVERLAP_POLICY__OVERLAP_POLICY_ALLOW;
    spec->missed = CHRONOS__V1__MISSED_POLICY__MISSED_POLICY_SKIP;
    job->run_timeout_ms = -1;
    job->max_attempts = 1;
    rc = set_payload(r, job, command);
    if (rc == 0)
        rc = set_labels(r, spec, user);
    if (rc == 0)
        rc = set_environment(r, job);
    spec->name = r->given_name ? (char *) (uintptr_t) r->given_name : make_name(r, user, command);
    if (rc == 0 && !spec->name)
        return -ENOMEM;
    if (rc == 0 && strlen(spec->name) >= NAME_BYTES_MAX)
        return refuse(r, spec->name, "the name has more than 128 bytes");
    *ret = spec;
    return rc;
}

static int append(struct reader *r, Chronos__V1__ScheduleSpec *spec) {
    if (r->list.count == r->capacity) {
        size_t n = MAX(2 * r->capacity, (size_t) 64);
        void *grown = arena_alloc(r->arena, n * sizeof(*r->list.items));

        if (!grown)
            return -ENOMEM;
        if (r->list.count > 0)
            memcpy(grown, r->list.items, r->list.count * sizeof(*r->list.items));
        r->list.items = grown;
        r->capacity = n;
    }
    r->list.items[r->list.count++] = spec;
    return 0;
}

/* The schedule that lines of the same given name already made, or NULL. 1 = refused. */
static int find_merged(struct reader *r, Chronos__V1__ScheduleSpec *spec,
                       Chronos__V1__ScheduleSpec **ret) {
    struct buf differences;
    int rc = 0;

    *ret = NULL;
    for (size_t i = 0; r->given_name && i < r->list.count; i++) {
        if (strcmp(r->list.items[i]->name, spec->name) == 0)
            *ret = r->list.items[i];
    }
    if (!*ret)
        return 0;
    buf_init(&differences, NOTE_BYTES_MAX * 10);
    spec->cron = (*ret)->cron;
    spec->n_cron = (*ret)->n_cron;
    rc = schedule_spec_differences(*ret, spec, r->arena, &differences);
    if (rc == 0 && differences.len > 0)
        rc = refuse(r, spec->name, "an entry above has this name and another command");
    buf_done(&differences);
    return rc;
}

static int read_entry(struct reader *r, const char *line) {
    const char *p = line, *expression, *user = "";
    Chronos__V1__ScheduleSpec *spec, *merged;
    int rc = take_expression(r, &p, &expression);

    if (rc != 0)
        return rc;
    if (r->o->user_column) {
        user = take_word(r, &p);
        if (!user)
            return -ENOMEM;
    }
    if (!*p)
        return refuse(r, "",
                      r->o->user_column ? "an entry of this form has a user and a command"
                                        : "the command is missing");
    if (strcmp(expression, "@reboot") == 0)
        return note(r, "@reboot", "the entry is left out: Chronos starts nothing with a machine");
    if (user[0] && !r->user_noted) {
        r->user_noted = true;
        rc = note(r, user,
                  "users are kept as the label " CRONTAB_USER_LABEL
                  "; jobs run as the worker's user");
    }
    if (rc == 0)
        rc = build(r, user, p, &spec);
    if (rc == 0)
        rc = find_merged(r, spec, &merged);
    if (rc == 0 && !merged)
        rc = append(r, spec);
    if (rc != 0)
        return rc;
    return schedule_field_set(schedule_field_of("cron", /* job= */ false),
                              merged ? &merged->base : &spec->base, expression, r->arena, NULL);
}

static int read_comment(struct reader *r, const char *line) {
    static const char mark[] = "# chronos: ";
    const char *p = line + sizeof(mark) - 1;

    r->given_name = NULL;
    if (strncmp(line, mark, sizeof(mark) - 1) != 0)
        return 0;
    r->given_name = take_word(r, &p);
    return r->given_name ? 0 : -ENOMEM;
}

static int read_line(struct reader *r, const char *text) {
    const char *line = skip_space(text), *name, *value;
    int rc;

    if (*line == '\0') {
        r->given_name = NULL;
        return 0;
    }
    if (*line == '#')
        return read_comment(r, line);
    for (const char *p = line; *p; p++) {
        if (((unsigned char) *p < 0x20 && *p != '\t') || *p == 0x7f)
            return refuse(r, "", "holds a control character");
    }
    rc = split_assignment(r, line, &name, &value);
    if (rc == 0)
        return assign(r, name, value);
    return rc < 0 ? rc : read_entry(r, line);
}

int crontab_read(const char *text, size_t len, const struct crontab_options *o, struct arena *arena,
                 struct schedule_list *ret, struct buf *notes, struct errtext *reterr) {
    struct reader r = {.o = o,
                       .arena = arena,
                       .notes = notes,
                       .reterr = reterr,
                       .time_zone = arena_strdup(arena, o->time_zone),
                       .shell = "/bin/sh"};
    size_t at = 0;
    int rc = 0;

    ASSERT(text && ret);
    if (len > CRONTAB_BYTES_MAX) {
        errtext_set(reterr, "%.128s: is larger than 16MiB", o->name);
        return 1;
    }
    if (!r.time_zone)
        return -ENOMEM;
    while (rc == 0 && at < len) {
        const char *end = memchr(text + at, '\n', len - at);
        size_t n = end ? (size_t) (end - (text + at)) : len - at;
        char *line;

        r.line++;
        if (memchr(text + at, '\0', n))
            return refuse(&r, "", "holds a NUL byte");
        line = arena_printf(arena, "%.*s", (int) n, text + at);
        if (!line)
            return -ENOMEM;
        if (n > 0 && line[n - 1] == '\r')
            line[n - 1] = '\0';
        rc = read_line(&r, line);
        at += n + 1;
    }
    if (rc == 0)
        *ret = r.list;
    return rc;
}
