/* The command line as tables: subcommands, options, help, suggestions, completion.
 *
 * What it is: a parser driven by constant tables. A command has options, each with the offset of
 * its field in the command's own values structure; parsing fills that structure. The configuration
 * reuses the same option type for its settings, so that a setting reads the same from a file and
 * from a flag.
 * What it is not: it knows no command of Chronos.
 * Invariants: strings that land in values structures are borrowed from argv (or from whoever called
 * args_set) and must outlive them.
 * Thread: any; no state. */
#pragma once

#include "base/err.h"
#include "cli/exit_code.h"

#include <stdio.h>

enum arg_kind {
    ARG_FLAG,     /* bool; given alone or as =true / =false */
    ARG_STRING,   /* const char * */
    ARG_UINT,     /* uint64_t, within [min, max] */
    ARG_DURATION, /* uint64_t milliseconds, within [min, max] */
    ARG_SIZE,     /* uint64_t bytes, within [min, max] */
    ARG_CHOICE,   /* uint32_t or an enum: index into choices[] */
    ARG_LIST      /* struct arg_list: the option may be repeated */
};

struct arg_list {
    const char **items; /* owned array of borrowed strings; freed by args_values_free */
    size_t count;
};

#define ARG_LIST_ITEMS_MAX 4096

struct arg_option {
    const char *name; /* without the dashes; may contain dots */
    char alias;       /* one letter, 0 = none */
    enum arg_kind kind;
    const char *value_name;     /* for help: "FILE"; NULL for flags */
    const char *help;           /* one line, no period */
    const char *def;            /* default as text, or NULL = zero */
    const char *const *choices; /* ARG_CHOICE: NULL-terminated; ARG_STRING: for help only */
    size_t offset;              /* of the field in the values structure */
    uint64_t min;
    uint64_t max; /* 0 = no upper bound */
};

struct arg_command {
    const char *name;
    const char *summary;    /* one line for the parent's list */
    const char *positional; /* "[ID...]" or NULL */
    const char *details;    /* paragraphs for --help, or NULL */
    const char *examples;   /* lines for --help, or NULL */
    const struct arg_option *options;
    size_t options_count;
    size_t values_bytes;
    size_t rest_min;
    size_t rest_max;
    bool rest_after_first; /* the first positional ends the options, as in `job submit echo -n` */
    const struct arg_command *const *children; /* NULL-terminated, or NULL */
    /* Exactly one of the three is set: children, run or main. */
    int (*run)(void *values, char **rest, size_t rest_count);
    int (*main)(int argc, char **argv); /* parses its own options; argv[0] is its name */
};

/* Find the subcommand, parse its options and run it. @argv[0] is the program. Help goes to stdout,
 * usage errors to stderr. Returns the exit code. */
int args_dispatch(const struct arg_command *root, int argc, char **argv);

/* Parse @argv[1..argc) by @cmd's options into @values (already filled by args_defaults).
 * @ret_rest  owned array of borrowed strings, release with free()
 * Returns 0; 1 = --help was given (print args_help); 2 = refused, *reterr says why; -ENOMEM. */
int args_parse(const struct arg_command *cmd, int argc, char **argv, void *values, char ***ret_rest,
               size_t *ret_rest_count, struct errtext *reterr) _must_check_;

/* Zero @values and store every default. A default that does not parse is a programmer error. */
void args_defaults(const struct arg_option *options, size_t count, void *values, size_t bytes);

/* Store @text into the option's field. Returns 0; 1 = refused, *reterr says what would be right
 * (without naming the option); -ENOMEM. A list appends. */
int args_set(const struct arg_option *opt, const char *text, void *values,
             struct errtext *reterr) _must_check_;

/* Free what args_set allocated in @values. */
void args_values_done(const struct arg_option *options, size_t count, void *values);

/* @path is the words typed so far, "chronos job submit". */
void args_help(const struct arg_command *cmd, const char *path, FILE *out);

/* The nearest of @names to @word, or NULL when none is near enough to suggest. */
const char *args_suggest(const char *word, const char *const *names, size_t count);
