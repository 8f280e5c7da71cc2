/* The command line parser, on a small tree of its own. */
#include "cli/args.h"
#include "cli/args_help.h"

#include <stdarg.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static const char *const colours[] = {"red", "green", NULL};

struct values {
    bool wait;
    const char *name;
    uint64_t count;
    uint64_t timeout_ms;
    uint64_t limit;
    uint32_t colour;
    struct arg_list env;
    size_t seen_rest; /* written by run */
};

#define AT(field) .offset = offsetof(struct values, field)

static const struct arg_option options[] = {
    {"wait", 'w', ARG_FLAG, NULL, "wait", NULL, NULL, AT(wait), 0, 0},
    {"name", 'n', ARG_STRING, "NAME", "name", "none", NULL, AT(name), 0, 0},
    {"count", 0, ARG_UINT, "N", "count", "3", NULL, AT(count), 1, 10},
    {"timeout", 0, ARG_DURATION, "TIME", "timeout", "10s", NULL, AT(timeout_ms), 1, 0},
    {"limit", 0, ARG_SIZE, "SIZE", "limit", NULL, NULL, AT(limit), 0, 1 << 20},
    {"colour", 0, ARG_CHOICE, NULL, "colour", "green", colours, AT(colour), 0, 0},
    {"env", 'e', ARG_LIST, "K=V", "environment", NULL, NULL, AT(env), 0, 0},
};

static int run_leaf(void *values, char **rest, size_t rest_count) {
    const struct values *v = values;

    (void) rest;
    return v->wait ? 40 + (int) rest_count : (int) rest_count;
}

static const struct arg_command leaf = {
    .name = "submit",
    .summary = "submit a thing",
    .positional = "CMD...",
    .options = options,
    .options_count = ARRAY_LEN(options),
    .values_bytes = sizeof(struct values),
    .rest_max = 4,
    .run = run_leaf,
};

static int main_raw(int argc, char **argv) {
    return argc * 10 + (strcmp(argv[0], "raw") == 0);
}

static const struct arg_command raw = {.name = "raw", .summary = "own parser", .main = main_raw};
static const struct arg_command *const job_children[] = {&leaf, NULL};
static const struct arg_command job = {.name = "job", .summary = "jobs", .children = job_children};
static const struct arg_command *const root_children[] = {&job, &raw, NULL};
static const struct arg_command root = {
    .name = "prog", .summary = "a program", .children = root_children};

struct parsed {
    struct values v;
    char **rest;
    size_t rest_count;
    struct errtext why;
    int r;
};

/* Parse a NULL-terminated line by @cmd. */
static void parse(const struct arg_command *cmd, char **argv, struct parsed *p) {
    int argc = 0;

    while (argv[argc])
        argc++;
    memset(p, 0, sizeof(*p));
    args_defaults(options, ARRAY_LEN(options), &p->v, sizeof(p->v));
    p->r = args_parse(cmd, argc, argv, &p->v, &p->rest, &p->rest_count, &p->why);
}

static void release(struct parsed *p) {
    free(p->rest);
    args_values_done(options, ARRAY_LEN(options), &p->v);
}

#define LINE(...) ((char *[]){(char *) "submit", __VA_ARGS__, NULL})

/* Goal: every kind of option in every spelling. Method: one line with all, and the defaults. */
static void test_kinds(void **state) {
    struct parsed p;

    (void) state;
    parse(&leaf, ((char *[]){(char *) "submit", NULL}), &p);
    assert_int_equal(p.r, 0);
    assert_string_equal(p.v.name, "none");
    assert_int_equal(p.v.count, 3);
    assert_int_equal(p.v.timeout_ms, 10000);
    assert_int_equal(p.v.colour, 1);
    assert_false(p.v.wait);
    release(&p);

    parse(&leaf,
          LINE((char *) "-w", (char *) "--name=a=b", (char *) "--count", (char *) "7",
               (char *) "--timeout", (char *) "1h30m", (char *) "--limit=64KiB",
               (char *) "--colour", (char *) "red", (char *) "-eA=1", (char *) "-e", (char *) "B=2",
               (char *) "--env=C=3", (char *) "x", (char *) "--", (char *) "--wait"),
          &p);
    assert_int_equal(p.r, 0);
    assert_true(p.v.wait);
    assert_string_equal(p.v.name, "a=b");
    assert_int_equal(p.v.count, 7);
    assert_int_equal(p.v.timeout_ms, 5400000);
    assert_int_equal(p.v.limit, 65536);
    assert_int_equal(p.v.colour, 0);
    assert_int_equal(p.v.env.count, 3);
    assert_string_equal(p.v.env.items[0], "A=1");
    assert_string_equal(p.v.env.items[2], "C=3");
    assert_int_equal(p.rest_count, 2);
    assert_string_equal(p.rest[1], "--wait");
    release(&p);
}

/* Goal: refusals name the option and what would be right. Method: a table of line and text. */
static void test_refusals(void **state) {
    static const struct {
        const char *arg;
        const char *says;
    } cases[] = {
        {"--nam=x", "did you mean --name?"},
        {"--count=11", "1 to 10 is allowed"},
        {"--count=0", "1 to 10 is allowed"},
        {"--count=x", "decimal digits"},
        {"--timeout=5", "units d, h, m, s"},
        {"--limit=2MiB", "0B to 1MiB is allowed"},
        {"--colour=blue", "red, green"},
        {"--wait=maybe", "neither true nor false"},
        {"--name", "--name needs a value"},
        {"-z", "unknown option -z"},
        {"--zzzzzzzz", "unknown option --zzzzzzzz"},
    };

    (void) state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct parsed p;

        parse(&leaf, LINE((char *) cases[i].arg), &p);
        assert_int_equal(p.r, 2);
        if (!strstr(p.why.s, cases[i].says))
            fail_msg("%s says \"%s\", not \"%s\"", cases[i].arg, p.why.s, cases[i].says);
        release(&p);
    }
}

/* Goal: bounds on positionals, --help, and a first positional that ends the options. */
static void test_positionals(void **state) {
    struct arg_command strict = leaf;
    struct parsed p;

    (void) state;
    strict.rest_min = 1;
    strict.rest_after_first = true;
    parse(&strict, ((char *[]){(char *) "submit", NULL}), &p);
    assert_int_equal(p.r, 2);
    assert_non_null(strstr(p.why.s, "missing argument: CMD..."));
    release(&p);
    parse(&strict, LINE((char *) "echo", (char *) "-w", (char *) "--bogus"), &p);
    assert_int_equal(p.r, 0);
    assert_false(p.v.wait);
    assert_int_equal(p.rest_count, 3);
    release(&p);
    parse(&strict, LINE((char *) "1", (char *) "2", (char *) "3", (char *) "4", (char *) "5"), &p);
    assert_int_equal(p.r, 2);
    assert_non_null(strstr(p.why.s, "\"5\""));
    release(&p);
    parse(&strict, LINE((char *) "--help"), &p);
    assert_int_equal(p.r, 1);
    release(&p);
}

/* Goal: words choose the command, exit codes come back, unknown words are usage errors. */
static void test_dispatch(void **state) {
    char *ok[] = {(char *) "prog", (char *) "job", (char *) "submit",
                  (char *) "-w",   (char *) "a",   NULL};
    char *raw_line[] = {(char *) "prog", (char *) "raw", (char *) "--x", NULL};
    char *unknown[] = {(char *) "prog", (char *) "jbo", NULL};
    char *none[] = {(char *) "prog", NULL};
    char *bad[] = {(char *) "prog", (char *) "job", (char *) "submit", (char *) "--count=x", NULL};

    (void) state;
    assert_int_equal(args_dispatch(&root, 5, ok), 41);
    assert_int_equal(args_dispatch(&root, 3, raw_line), 21);
    assert_int_equal(args_dispatch(&root, 2, unknown), EXIT_CODE_USAGE);
    assert_int_equal(args_dispatch(&root, 1, none), EXIT_CODE_USAGE);
    assert_int_equal(args_dispatch(&root, 4, bad), EXIT_CODE_USAGE);
}

/* Goal: suggestions are near or absent. */
static void test_suggest(void **state) {
    static const char *const names[] = {"submit", "list", "cancel", "node.listen"};

    (void) state;
    assert_string_equal(args_suggest("sumbit", names, 4), "submit");
    assert_string_equal(args_suggest("lst", names, 4), "list");
    assert_string_equal(args_suggest("listen", names, 4), "list");
    assert_string_equal(args_suggest("node.lisen", names, 4), "node.listen");
    assert_null(args_suggest("xyz", names, 4));
}

static void expect_in(const char *text, const char *part) {
    if (!strstr(text, part))
        fail_msg("\"%s\" is missing in:\n%s", part, text);
}

/* Goal: help and completion hold every command, option and default of the tables. */
static void test_help(void **state) {
    char *text = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);

    (void) state;
    assert_non_null(f);
    args_help(&leaf, "prog job submit", f);
    args_help(&root, "prog", f);
    args_completion_bash(&root, f);
    assert_int_equal(fclose(f), 0);
    expect_in(text, "prog job submit [options] CMD...");
    expect_in(text, "-n, --name NAME");
    expect_in(text, "red|green");
    expect_in(text, "(default 10s)");
    expect_in(text, "job          jobs");
    expect_in(text, "'job submit')");
    expect_in(text, "--colour) words='red green' ;;");
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kinds),       cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_positionals), cmocka_unit_test(test_dispatch),
        cmocka_unit_test(test_suggest),     cmocka_unit_test(test_help),
    };

    return cmocka_run_group_tests_name("args", tests, NULL, NULL);
}
