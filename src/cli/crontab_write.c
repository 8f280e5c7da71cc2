/* The writer of cli/crontab.h. */
#include "cli/crontab.h"

#include "sched/cron.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define VARIABLES_MAX 256

/* What the assignments written so far say. */
struct writer {
    struct buf *out;
    struct arena *arena;
    bool user_column;
    const char *time_zone, *shell, *mailto; /* NULL = not said yet */
    const char *names[VARIABLES_MAX];
    const char *values[VARIABLES_MAX];
    size_t variables_count;
};

/* A command as cron has it. */
struct command {
    const char *shell, *text;
    const char *input; /* NULL = none */
};

/* ---- what cannot be said ----------------------------------------------------------------------
 */

static const char *why_not(const Chronos__V1__ScheduleSpec *s) {
    if (s->n_exclude > 0)
        return "it has exclusions";
    if (s->start_ms != 0 || s->end_ms != 0)
        return "it has a start or an end";
    if (s->max_runs != 0)
        return "it has a number of runs";
    if (s->spread_ms != 0 || s->jitter_ms != 0)
        return "its starts are spread";
    if (s->dst != CHRONOS__V1__DST_POLICY__DST_POLICY_ONCE)
        return "cron has one policy for the clock's changes, once";
    if (s->day_match != CHRONOS__V1__DAY_MATCH__DAY_MATCH_OR)
        return "cron joins day and weekday by or";
    if (!s->job || (s->job->payload_case != CHRONOS__V1__JOB_SPEC__PAYLOAD_SHELL &&
                    s->job->payload_case != CHRONOS__V1__JOB_SPEC__PAYLOAD_COMMAND))
        return "it runs nothing";
    return NULL;
}

/* The expression as five fields into @out; a reason when it cannot be. */
static const char *five_fields(const char *text, char out[CRON_TEXT_BYTES_MAX]) {
    struct cron c;

    if (cron_parse(text, "", /* and_days= */ false, &c, NULL) != 0)
        return "an expression is not understood";
    if (c.times.kind != CRON_CALENDAR)
        return "an expression is no calendar of five fields";
    if (c.fields != 5)
        return "an expression has seconds or years";
    for (size_t f = 0; f < CRON_FIELDS; f++) {
        for (size_t i = 0; i < c.items_count[f]; i++) {
            if (c.items[f][i].hashed)
                return "an expression has H";
        }
    }
    cron_print(&c, out);
    return NULL;
}

/* ---- the command ------------------------------------------------------------------------------
 */

/* A word as sh reads it back. */
static int append_word(struct buf *out, const char *word) {
    static const char plain[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_@+=:,./-";
    int r;

    if (word[0] && strspn(word, plain) == strlen(word))
        return buf_append_str(out, word);
    r = buf_append_str(out, "'");
    for (const char *p = word; r == 0 && *p; p++)
        r = *p == '\'' ? buf_append_str(out, "'\\''") : buf_append(out, p, 1);
    return r == 0 ? buf_append_str(out, "'") : r;
}

/* Take apart what the reader put together: here-document, then *ret_rest. False: it is none. */
static bool split_here(struct arena *arena, const char *script, const char **ret_input,
                       const char **ret_rest) {
    static const char begin[] = CRONTAB_HERE;
    const char *mark = script + strlen("exec <<'"), *quote, *body, *end;
    char *closing;

    if (strncmp(script, begin, sizeof(begin) - 1) != 0)
        return false;
    quote = strchr(mark, '\'');
    if (!quote || quote[1] != '\n')
        return false;
    body = quote + 2;
    closing = arena_printf(arena, "\n%.*s\n", (int) (quote - mark), mark);
    end = closing ? strstr(body - 1, closing) : NULL;
    if (!end)
        return false;
    *ret_input = end >= body ? arena_printf(arena, "%.*s", (int) (end - body), body) : "";
    *ret_rest = end + strlen(closing);
    return *ret_input;
}

static int command_of(struct arena *arena, const Chronos__V1__JobSpec *j, struct command *ret) {
    const Chronos__V1__Command *c = j->command;
    struct buf line;
    int r = 0;

    *ret = (struct command){.shell = "/bin/sh"};
    if (j->payload_case == CHRONOS__V1__JOB_SPEC__PAYLOAD_SHELL) {
        ret->text = j->shell;
        (void) split_here(arena, j->shell, &ret->input, &ret->text);
        return 0;
    }
    if (c->n_argv == 5 && strcmp(c->argv[1], "-c") == 0 &&
        split_here(arena, c->argv[2], &ret->input, &ret->text) &&
        strcmp(ret->text, CRONTAB_OTHER_SHELL) == 0) {
        ret->shell = c->argv[3];
        ret->text = c->argv[4];
        return 0;
    }
    if (c->n_argv == 3 && strcmp(c->argv[1], "-c") == 0 && c->argv[0][0] == '/') {
        *ret = (struct command){.shell = c->argv[0], .text = c->argv[2]};
        return 0;
    }
    *ret = (struct command){.shell = "/bin/sh"};
    buf_init(&line, (size_t) 8 * 1024 * 1024);
    for (size_t i = 0; r == 0 && i < c->n_argv; i++) {
        if (i > 0)
            r = buf_append_str(&line, " ");
        if (r == 0)
            r = append_word(&line, c->argv[i]);
    }
    if (r == 0) {
        ret->text = arena_printf(arena, "%.*s", (int) line.len, (const char *) line.data);
        r = ret->text ? 0 : -ENOMEM;
    }
    buf_done(&line);
    return r;
}

/* Percent signs escaped; newlines, of the input only, are percent signs. */
static int append_escaped(struct buf *out, const char *text) {
    int r = 0;

    for (const char *p = text; r == 0 && *p; p++) {
        if (*p == '%')
            r = buf_append_str(out, "\\%");
        else
            r = buf_append_str(out, *p == '\n' ? "%" : (char[]){*p, '\0'});
    }
    return r;
}

/* ---- assignments ------------------------------------------------------------------------------
 */

static int say(struct writer *w, const char *name, const char **said, const char *value) {
    if (*said && strcmp(*said, value) == 0)
        return 0;
    *said = value;
    /* Quotes keep spaces at the ends and an empty value. */
    return buf_printf(w->out, "%s=%s%s%s\n", name,
                      strpbrk(value, " \t\"'") || !value[0] ? "\"" : "", value,
                      strpbrk(value, " \t\"'") || !value[0] ? "\"" : "");
}

static int say_variable(struct writer *w, const char *name, const char *value) {
    size_t i = 0;

    while (i < w->variables_count && strcmp(w->names[i], name) != 0)
        i++;
    if (i == VARIABLES_MAX)
        return ERR_LIMIT;
    if (i == w->variables_count) {
        w->names[i] = name;
        w->values[i] = NULL;
        w->variables_count++;
    }
    return say(w, name, &w->values[i], value);
}

static const char *label_of(const Chronos__V1__ScheduleSpec *s, const char *key) {
    for (size_t i = 0; i < s->n_labels; i++) {
        if (strcmp(s->labels[i]->key, key) == 0)
            return s->labels[i]->value;
    }
    return "";
}

static int say_all(struct writer *w, const Chronos__V1__ScheduleSpec *s, const struct command *c) {
    const char *mailto = label_of(s, CRONTAB_MAILTO_LABEL);
    int r = say(w, "CRON_TZ", &w->time_zone, s->time_zone[0] ? s->time_zone : "UTC");

    if (r == 0 && (w->shell || strcmp(c->shell, "/bin/sh") != 0))
        r = say(w, "SHELL", &w->shell, c->shell);
    if (r == 0 && (w->mailto || mailto[0]))
        r = say(w, "MAILTO", &w->mailto, mailto);
    for (size_t i = 0; r == 0 && i < s->job->n_env; i++)
        r = say_variable(w, s->job->env[i]->key, s->job->env[i]->value);
    return r;
}

/* ---- entries ----------------------------------------------------------------------------------
 */

static const char *env_of(const Chronos__V1__JobSpec *j, const char *name) {
    for (size_t i = 0; i < j->n_env; i++) {
        if (strcmp(j->env[i]->key, name) == 0)
            return j->env[i]->value;
    }
    return NULL;
}

/* What assignments cannot do: take back a variable that an entry above has set, and a directory of
 * its own. */
static int append_prefix(struct writer *w, const Chronos__V1__JobSpec *j, struct buf *out) {
    const char *home = env_of(j, "HOME");
    int r = 0;

    for (size_t i = 0; r == 0 && i < w->variables_count; i++) {
        if (!env_of(j, w->names[i]))
            r = buf_printf(out, "unset %s; ", w->names[i]);
    }
    if (r == 0 && j->working_dir[0] && (!home || strcmp(home, j->working_dir) != 0)) {
        r = buf_append_str(out, "cd ");
        if (r == 0)
            r = append_word(out, j->working_dir);
        if (r == 0)
            r = buf_append_str(out, " && ");
    }
    return r;
}

static int write_lines(struct writer *w, const Chronos__V1__ScheduleSpec *s,
                       const struct command *c, const char *prefix) {
    const char *user = label_of(s, CRONTAB_USER_LABEL);
    int r = 0;

    for (size_t i = 0; r == 0 && i < s->n_cron; i++) {
        char fields[CRON_TEXT_BYTES_MAX];

        if (five_fields(s->cron[i], fields))
            continue; /* cannot happen: looked at before */
        r = buf_printf(w->out, "%s ", fields);
        if (r == 0 && w->user_column)
            r = buf_printf(w->out, "%s ", user[0] ? user : "root");
        if (r == 0)
            r = append_escaped(w->out, prefix);
        if (r == 0)
            r = append_escaped(w->out, c->text);
        if (r == 0 && c->input)
            r = buf_append_str(w->out, "%");
        if (r == 0 && c->input)
            r = append_escaped(w->out, c->input);
        if (r == 0)
            r = buf_append_str(w->out, "\n");
    }
    return r;
}

static int write_entry(struct writer *w, const Chronos__V1__ScheduleSpec *s,
                       const struct command *c) {
    struct buf prefix;
    int r = buf_append_str(w->out, "\n");

    if (r == 0)
        r = say_all(w, s, c);
    if (r == 0)
        r = buf_printf(w->out, "# chronos: %s\n", s->name);
    buf_init(&prefix, 64 * 1024);
    if (r == 0)
        r = append_prefix(w, s->job, &prefix);
    if (r == 0)
        r = buf_append(&prefix, "", 1);
    if (r == 0)
        r = write_lines(w, s, c, (const char *) prefix.data);
    buf_done(&prefix);
    return r;
}

/* A value of an assignment that a line cannot hold. */
static bool has_line_break(const Chronos__V1__JobSpec *j) {
    for (size_t i = 0; i < j->n_env; i++) {
        if (strpbrk(j->env[i]->value, "\n\r"))
            return true;
    }
    return strpbrk(j->working_dir, "\n\r");
}

static int write_one(struct writer *w, const Chronos__V1__ScheduleSpec *s, bool *ret_left_out) {
    char fields[CRON_TEXT_BYTES_MAX];
    const char *why = why_not(s);
    struct command c = {0};
    int r = 0;

    for (size_t i = 0; !why && i < s->n_cron; i++)
        why = five_fields(s->cron[i], fields);
    if (!why) {
        r = command_of(w->arena, s->job, &c);
        if (r < 0)
            return r;
        ASSERT(c.text);
        if (strpbrk(c.text, "\n\r") || has_line_break(s->job))
            why = "it has more than one line";
    }
    *ret_left_out = why;
    if (why)
        return buf_printf(w->out, "\n# left out: %s: %s\n", s->name, why);
    return write_entry(w, s, &c);
}

/* An assignment holds for all lines below it. Entries with few variables come first, so that those
 * that were read from one crontab need none taken back. */
static int compare_variables(const void *a, const void *b) {
    const Chronos__V1__ScheduleSpec *const *pa = a, *const *pb = b;
    size_t na = (*pa)->job ? (*pa)->job->n_env : 0, nb = (*pb)->job ? (*pb)->job->n_env : 0;

    return na != nb ? (na < nb ? -1 : 1) : strcmp((*pa)->name, (*pb)->name);
}

int crontab_write(const struct schedule_list *l, bool user_column, struct arena *arena,
                  struct buf *out, size_t *ret_left_out) {
    struct writer w = {.out = out, .arena = arena, .user_column = user_column};
    Chronos__V1__ScheduleSpec **items = arena_alloc(arena, (l->count + 1) * sizeof(*items));
    int r = buf_append_str(out, "# Written by chronos schedule export --crontab.\n");

    if (!items)
        return -ENOMEM;
    if (l->count > 0)
        memcpy(items, l->items, l->count * sizeof(*items));
    qsort(items, l->count, sizeof(*items), compare_variables);
    *ret_left_out = 0;
    for (size_t i = 0; r == 0 && i < l->count; i++) {
        bool left_out = false;

        r = write_one(&w, items[i], &left_out);
        *ret_left_out += left_out ? 1 : 0;
    }
    return r;
}
