#include "cli/args.h"

#include "base/units.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define SUGGEST_WORD_BYTES_MAX 64
#define PATH_BYTES_MAX 256

static void *field_of(const struct arg_option *opt, void *values) {
    return (char *) values + opt->offset;
}

/* ---- values -------------------------------------------------------------------------------- */

static int set_flag(const struct arg_option *opt, const char *text, void *values,
                    struct errtext *reterr) {
    bool on = strcmp(text, "true") == 0;

    if (!on && strcmp(text, "false") != 0) {
        errtext_set(reterr, "\"%.64s\" is neither true nor false", text);
        return 1;
    }
    memcpy(field_of(opt, values), &on, sizeof(on));
    return 0;
}

static int set_choice(const struct arg_option *opt, const char *text, void *values,
                      struct errtext *reterr) {
    char all[256] = "";
    size_t used = 0;

    for (uint32_t i = 0; opt->choices[i]; i++) {
        if (strcmp(opt->choices[i], text) == 0) {
            memcpy(field_of(opt, values), &i, sizeof(i));
            return 0;
        }
        if (used < sizeof(all))
            used += (size_t) snprintf(all + used, sizeof(all) - used, "%s%s", i > 0 ? ", " : "",
                                      opt->choices[i]);
    }
    errtext_set(reterr, "\"%.64s\" is not one of: %s", text, all);
    return 1;
}

static int append_list(struct arg_list *list, const char *text, struct errtext *reterr) {
    const char **items;

    if (list->count >= ARG_LIST_ITEMS_MAX) {
        errtext_set(reterr, "given more than %d times", ARG_LIST_ITEMS_MAX);
        return 1;
    }
    items = reallocarray(list->items, list->count + 1, sizeof(*items));
    if (!items)
        return -ENOMEM;
    items[list->count] = text;
    list->items = items;
    list->count++;
    return 0;
}

/* The bound as the user would write it. */
static const char *bound_text(const struct arg_option *opt, uint64_t v, char *out) {
    if (opt->kind == ARG_DURATION)
        return units_print_duration(v, out);
    if (opt->kind == ARG_SIZE)
        return units_print_size(v, out);
    (void) snprintf(out, UNITS_TEXT_BYTES_MAX, "%" PRIu64, v);
    return out;
}

static int set_number(const struct arg_option *opt, const char *text, void *values,
                      struct errtext *reterr) {
    char lo[UNITS_TEXT_BYTES_MAX], hi[UNITS_TEXT_BYTES_MAX];
    uint64_t v = 0;
    int r;

    if (opt->kind == ARG_DURATION)
        r = units_parse_duration(text, &v, reterr);
    else if (opt->kind == ARG_SIZE)
        r = units_parse_size(text, &v, reterr);
    else
        r = units_parse_uint(text, &v, reterr);
    if (r > 0)
        return 1;
    if (v < opt->min || (opt->max > 0 && v > opt->max)) {
        if (opt->max > 0)
            errtext_set(reterr, "%.64s is out of range; %s to %s is allowed", text,
                        bound_text(opt, opt->min, lo), bound_text(opt, opt->max, hi));
        else
            errtext_set(reterr, "%.64s is too small; at least %s", text,
                        bound_text(opt, opt->min, lo));
        return 1;
    }
    memcpy(field_of(opt, values), &v, sizeof(v));
    return 0;
}

int args_set(const struct arg_option *opt, const char *text, void *values, struct errtext *reterr) {
    ASSERT(opt);
    ASSERT(text);
    switch (opt->kind) {
    case ARG_FLAG:
        return set_flag(opt, text, values, reterr);
    case ARG_STRING:
        memcpy(field_of(opt, values), &text, sizeof(text));
        return 0;
    case ARG_UINT:
    case ARG_DURATION:
    case ARG_SIZE:
        return set_number(opt, text, values, reterr);
    case ARG_CHOICE:
        return set_choice(opt, text, values, reterr);
    case ARG_LIST:
        return append_list(field_of(opt, values), text, reterr);
    }
    return 1;
}

void args_defaults(const struct arg_option *options, size_t count, void *values, size_t bytes) {
    memset(values, 0, bytes);
    for (size_t i = 0; i < count; i++) {
        int r;

        ASSERT(options[i].offset < bytes);
        if (!options[i].def)
            continue;
        ASSERT(options[i].kind != ARG_LIST);
        r = args_set(&options[i], options[i].def, values, /* reterr= */ NULL);
        ASSERT(r == 0);
    }
}

void args_values_done(const struct arg_option *options, size_t count, void *values) {
    for (size_t i = 0; i < count; i++) {
        struct arg_list *list;

        if (options[i].kind != ARG_LIST)
            continue;
        list = field_of(&options[i], values);
        free(list->items);
        *list = (struct arg_list){0};
    }
}

/* ---- suggestions --------------------------------------------------------------------------- */

/* Levenshtein distance, two rows. Words are cut at SUGGEST_WORD_BYTES_MAX. */
static size_t distance(const char *a, const char *b) {
    size_t row[SUGGEST_WORD_BYTES_MAX + 1];
    size_t la = strnlen(a, SUGGEST_WORD_BYTES_MAX);
    size_t lb = strnlen(b, SUGGEST_WORD_BYTES_MAX);

    for (size_t j = 0; j <= lb; j++)
        row[j] = j;
    for (size_t i = 1; i <= la; i++) {
        size_t diagonal = row[0];

        row[0] = i;
        for (size_t j = 1; j <= lb; j++) {
            size_t substitute = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);

            diagonal = row[j];
            row[j] = MIN(MIN(row[j], row[j - 1]) + 1, substitute);
        }
    }
    return row[lb];
}

const char *args_suggest(const char *word, const char *const *names, size_t count) {
    /* A third of the word may be wrong; more is another word. */
    size_t best = strnlen(word, SUGGEST_WORD_BYTES_MAX) / 3 + 1;
    const char *nearest = NULL;

    for (size_t i = 0; i < count; i++) {
        const char *dot = strrchr(names[i], '.');
        size_t d = distance(word, names[i]);

        if (d <= best) {
            best = d > 0 ? d - 1 : 0;
            nearest = names[i];
        } else if (!nearest && dot && strcmp(dot + 1, word) == 0) {
            nearest = names[i]; /* `listen` for `node.listen`: the section was forgotten */
        }
    }
    return nearest;
}

static void suggest_option(const struct arg_command *cmd, const char *word, const char **ret) {
    const char *names[ARG_LIST_ITEMS_MAX / 16];
    size_t n = 0;

    for (; n < cmd->options_count && n < ARRAY_LEN(names); n++)
        names[n] = cmd->options[n].name;
    *ret = args_suggest(word, names, n);
}

/* ---- parsing ------------------------------------------------------------------------------- */

struct parse {
    const struct arg_command *cmd;
    int argc;
    char **argv;
    int at;
    void *values;
    char **rest; /* owned until handed out */
    size_t rest_count;
    bool options_ended;
    struct errtext *reterr;
};

enum { PARSE_OK = 0, PARSE_HELP = 1, PARSE_REFUSED = 2 };

static const struct arg_option *find_option(const struct arg_command *cmd, const char *name,
                                            size_t len) {
    for (size_t i = 0; i < cmd->options_count; i++) {
        if (strlen(cmd->options[i].name) == len && strncmp(cmd->options[i].name, name, len) == 0)
            return &cmd->options[i];
    }
    return NULL;
}

static int parse_value(struct parse *p, const struct arg_option *opt, const char *text) {
    struct errtext why;
    int r = args_set(opt, text, p->values, &why);

    if (r <= 0)
        return r;
    errtext_set(p->reterr, "--%s: %s", opt->name, why.s);
    return PARSE_REFUSED;
}

/* The option's value is the next argument. */
static int parse_next_value(struct parse *p, const struct arg_option *opt) {
    if (opt->kind == ARG_FLAG)
        return parse_value(p, opt, "true");
    if (p->at + 1 >= p->argc) {
        errtext_set(p->reterr, "--%s needs a value: --%s %s", opt->name, opt->name,
                    opt->value_name ? opt->value_name : "VALUE");
        return PARSE_REFUSED;
    }
    p->at++;
    return parse_value(p, opt, p->argv[p->at]);
}

static int parse_long(struct parse *p, const char *arg) {
    const char *name = arg + 2;
    const char *equals = strchr(name, '=');
    size_t len = equals ? (size_t) (equals - name) : strlen(name);
    const struct arg_option *opt = find_option(p->cmd, name, len);
    const char *near = NULL;
    char word[SUGGEST_WORD_BYTES_MAX];

    if (opt)
        return equals ? parse_value(p, opt, equals + 1) : parse_next_value(p, opt);
    if (strcmp(name, "help") == 0)
        return PARSE_HELP;
    (void) snprintf(word, sizeof(word), "%.*s", (int) MIN(len, sizeof(word) - 1), name);
    suggest_option(p->cmd, word, &near);
    if (near)
        errtext_set(p->reterr, "unknown option --%s; did you mean --%s?", word, near);
    else
        errtext_set(p->reterr, "unknown option --%s", word);
    return PARSE_REFUSED;
}

/* `-o json`, `-ojson`, `-f`; letters of flags do not combine. */
static int parse_short(struct parse *p, const char *arg) {
    for (size_t i = 0; i < p->cmd->options_count; i++) {
        const struct arg_option *opt = &p->cmd->options[i];

        if (opt->alias == 0 || opt->alias != arg[1])
            continue;
        if (arg[2] == '\0')
            return parse_next_value(p, opt);
        if (opt->kind != ARG_FLAG)
            return parse_value(p, opt, arg + (arg[2] == '=' ? 3 : 2));
    }
    if (strcmp(arg, "-h") == 0)
        return PARSE_HELP;
    errtext_set(p->reterr, "unknown option %.32s", arg);
    return PARSE_REFUSED;
}

static int parse_one(struct parse *p) {
    const char *arg = p->argv[p->at];

    if (!p->options_ended && strcmp(arg, "--") == 0) {
        p->options_ended = true;
        return PARSE_OK;
    }
    if (!p->options_ended && arg[0] == '-' && arg[1] != '\0')
        return arg[1] == '-' ? parse_long(p, arg) : parse_short(p, arg);
    p->rest[p->rest_count++] = p->argv[p->at];
    if (p->cmd->rest_after_first)
        p->options_ended = true;
    return PARSE_OK;
}

static int check_rest(const struct parse *p) {
    const char *positional = p->cmd->positional ? p->cmd->positional : "";

    if (p->rest_count < p->cmd->rest_min) {
        errtext_set(p->reterr, "missing argument: %s", positional);
        return PARSE_REFUSED;
    }
    if (p->rest_count > p->cmd->rest_max) {
        errtext_set(p->reterr, "unexpected argument \"%.64s\"", p->rest[p->cmd->rest_max]);
        return PARSE_REFUSED;
    }
    return PARSE_OK;
}

int args_parse(const struct arg_command *cmd, int argc, char **argv, void *values, char ***ret_rest,
               size_t *ret_rest_count, struct errtext *reterr) {
    struct parse p = {.cmd = cmd, .argc = argc, .argv = argv, .values = values, .reterr = reterr};
    _cleanup_(freep) char **rest = NULL;
    int r;

    ASSERT(argc >= 1);
    ASSERT(ret_rest);
    rest = calloc((size_t) argc, sizeof(*rest));
    if (!rest)
        return -ENOMEM;
    p.rest = rest;
    for (p.at = 1; p.at < argc; p.at++) {
        r = parse_one(&p);
        if (r != PARSE_OK)
            return r;
    }
    r = check_rest(&p);
    if (r != PARSE_OK)
        return r;
    *ret_rest_count = p.rest_count;
    *ret_rest = TAKE_PTR(rest);
    return 0;
}

/* ---- dispatch ------------------------------------------------------------------------------ */

static const struct arg_command *find_child(const struct arg_command *cmd, const char *name) {
    for (size_t i = 0; cmd->children[i]; i++) {
        if (strcmp(cmd->children[i]->name, name) == 0)
            return cmd->children[i];
    }
    return NULL;
}

static int refuse_child(const struct arg_command *cmd, const char *path, const char *word) {
    const char *names[64];
    const char *near;
    size_t n = 0;

    for (; n < ARRAY_LEN(names) && cmd->children[n]; n++)
        names[n] = cmd->children[n]->name;
    near = args_suggest(word, names, n);
    if (near)
        fprintf(stderr, "%s: unknown command \"%.64s\"; did you mean \"%s %s\"?\n", path, word,
                path, near);
    else
        fprintf(stderr, "%s: unknown command \"%.64s\"; see \"%s --help\"\n", path, word, path);
    return EXIT_CODE_USAGE;
}

static int run_leaf(const struct arg_command *cmd, const char *path, int argc, char **argv) {
    _cleanup_(freep) void *values = calloc(1, cmd->values_bytes + 1);
    _cleanup_(freep) char **rest = NULL;
    size_t rest_count = 0;
    struct errtext why = {""};
    int r = -ENOMEM;

    if (values) {
        args_defaults(cmd->options, cmd->options_count, values, cmd->values_bytes);
        r = args_parse(cmd, argc, argv, values, &rest, &rest_count, &why);
    }
    if (r == PARSE_OK) {
        r = cmd->run(values, rest, rest_count);
    } else if (r == PARSE_HELP) {
        args_help(cmd, path, stdout);
        r = EXIT_CODE_OK;
    } else if (r == PARSE_REFUSED) {
        fprintf(stderr, "%s: %s\nSee \"%s --help\".\n", path, why.s, path);
        r = EXIT_CODE_USAGE;
    } else {
        fprintf(stderr, "%s: out of memory\n", path);
        r = EXIT_CODE_FAILED;
    }
    if (values)
        args_values_done(cmd->options, cmd->options_count, values);
    return r;
}

int args_dispatch(const struct arg_command *root, int argc, char **argv) {
    const struct arg_command *cmd = root;
    char path[PATH_BYTES_MAX];
    size_t used;

    ASSERT(argc >= 1);
    used = (size_t) snprintf(path, sizeof(path), "%s", root->name);
    while (cmd->children) {
        const char *word = argc > 1 ? argv[1] : NULL;
        const struct arg_command *child;

        if (!word) {
            args_help(cmd, path, stderr);
            return EXIT_CODE_USAGE;
        }
        if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0 || strcmp(word, "help") == 0) {
            args_help(cmd, path, stdout);
            return EXIT_CODE_OK;
        }
        child = find_child(cmd, word);
        if (!child)
            return refuse_child(cmd, path, word);
        used += (size_t) snprintf(path + used, sizeof(path) - used, " %s", child->name);
        ASSERT(used < sizeof(path));
        cmd = child;
        argc--;
        argv++;
    }
    if (cmd->main)
        return cmd->main(argc, argv);
    return run_leaf(cmd, path, argc, argv);
}
