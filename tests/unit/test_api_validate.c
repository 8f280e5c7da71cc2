/* Goal: every limit of a job specification is enforced at its exact edge and named in the error;
 * what is accepted comes out complete and in one form.
 * Method: a table of single changes to a good specification, each with the text that must appear.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/validate_job.h"

struct world {
    struct arena arena;
    Chronos__V1__JobSpec spec;
    Chronos__V1__Command command;
    char *argv[VALIDATE_ARGS_MAX + 1];
};

static struct world *world_new(void) {
    struct world *w = calloc(1, sizeof(*w));

    assert_non_null(w);
    arena_init(&w->arena, 64 * 1024 * 1024);
    chronos__v1__job_spec__init(&w->spec);
    chronos__v1__command__init(&w->command);
    w->argv[0] = arena_strdup(&w->arena, "true");
    w->command.argv = w->argv;
    w->command.n_argv = 1;
    w->spec.payload_case = CHRONOS__V1__JOB_SPEC__PAYLOAD_COMMAND;
    w->spec.command = &w->command;
    return w;
}

static void world_free(struct world *w) {
    arena_done(&w->arena);
    free(w);
}

static char *text_of(struct world *w, char c, size_t n) {
    char *s = arena_alloc(&w->arena, n + 1);

    assert_non_null(s);
    memset(s, c, n);
    s[n] = '\0';
    return s;
}

static void add_env(struct world *w, const char *key, const char *value) {
    Chronos__V1__JobSpec__EnvEntry *e = arena_alloc(&w->arena, sizeof(*e));
    Chronos__V1__JobSpec__EnvEntry **all =
        arena_alloc(&w->arena, (w->spec.n_env + 1) * sizeof(*all));

    chronos__v1__job_spec__env_entry__init(e);
    e->key = arena_strdup(&w->arena, key);
    e->value = arena_strdup(&w->arena, value);
    if (w->spec.n_env > 0)
        memcpy(all, w->spec.env, w->spec.n_env * sizeof(*all));
    all[w->spec.n_env++] = e;
    w->spec.env = all;
}

static void add_label(struct world *w, const char *key, const char *value) {
    Chronos__V1__JobSpec__LabelsEntry *e = arena_alloc(&w->arena, sizeof(*e));
    Chronos__V1__JobSpec__LabelsEntry **all =
        arena_alloc(&w->arena, (w->spec.n_labels + 1) * sizeof(*all));

    chronos__v1__job_spec__labels_entry__init(e);
    e->key = arena_strdup(&w->arena, key);
    e->value = arena_strdup(&w->arena, value);
    if (w->spec.n_labels > 0)
        memcpy(all, w->spec.labels, w->spec.n_labels * sizeof(*all));
    all[w->spec.n_labels++] = e;
    w->spec.labels = all;
}

/* ---- one change each ---- */

static void no_payload(struct world *w) {
    w->spec.payload_case = CHRONOS__V1__JOB_SPEC__PAYLOAD__NOT_SET;
}
static void no_argv(struct world *w) {
    w->command.n_argv = 0;
}
static void empty_program(struct world *w) {
    w->argv[0] = text_of(w, 'x', 0);
}
static void program_newline(struct world *w) {
    w->argv[0] = arena_strdup(&w->arena, "a\nb");
}
static void program_relative(struct world *w) {
    w->argv[0] = arena_strdup(&w->arena, "./evil");
}
static void program_absolute(struct world *w) {
    w->argv[0] = arena_strdup(&w->arena, "/bin/true");
}
static void program_long(struct world *w) {
    w->argv[0] = text_of(w, 'x', 4096);
}
static void program_longest(struct world *w) {
    w->argv[0] = text_of(w, 'x', 4095);
}
static void fill_args(struct world *w, size_t n) {
    for (size_t i = 1; i < n; i++)
        w->argv[i] = w->argv[0];
    w->command.n_argv = n;
}
static void args_most(struct world *w) {
    fill_args(w, 10000);
}
static void args_too_many(struct world *w) {
    fill_args(w, 10001);
}
static void arg_newline(struct world *w) {
    w->argv[1] = arena_strdup(&w->arena, "two\nlines\t");
    w->command.n_argv = 2;
}
static void arg_longest(struct world *w) {
    w->argv[1] = text_of(w, 'x', 131071);
    w->command.n_argv = 2;
}
static void arg_too_long(struct world *w) {
    fill_args(w, 3);
    w->argv[2] = text_of(w, 'x', 131072);
}
static void use_shell(struct world *w, char *line) {
    w->spec.payload_case = CHRONOS__V1__JOB_SPEC__PAYLOAD_SHELL;
    w->spec.shell = line;
}
static void shell_good(struct world *w) {
    use_shell(w, arena_strdup(&w->arena, "a | b"));
}
static void shell_blank(struct world *w) {
    use_shell(w, arena_strdup(&w->arena, " \t\n"));
}
static void shell_empty(struct world *w) {
    use_shell(w, arena_strdup(&w->arena, ""));
}
static void shell_too_long(struct world *w) {
    use_shell(w, text_of(w, 'x', 131072));
}
static void env_good(struct world *w) {
    add_env(w, "_A9", "any\nthing");
    add_env(w, "CHRONOS", "not the prefix");
    add_env(w, "LDX", "not the prefix");
}
static void env_ld(struct world *w) {
    add_env(w, "LD_PRELOAD", "/tmp/x.so");
}
static void env_chronos(struct world *w) {
    add_env(w, "CHRONOS_JOB_ID", "j11");
}
static void env_digit(struct world *w) {
    add_env(w, "9A", "");
}
static void env_empty_name(struct world *w) {
    add_env(w, "", "");
}
static void env_equals(struct world *w) {
    add_env(w, "A=B", "");
}
static void env_control(struct world *w) {
    add_env(w, "A\n\"B", "");
}
static void env_name_long(struct world *w) {
    add_env(w, text_of(w, 'A', 256), "");
}
static void env_value_longest(struct world *w) {
    add_env(w, "A", text_of(w, 'x', 131069));
}
static void env_value_long(struct world *w) {
    add_env(w, "A", text_of(w, 'x', 131070));
}
static void env_fill(struct world *w, int n) {
    char name[16];

    for (int i = 0; i < n; i++) {
        (void) snprintf(name, sizeof(name), "E%d", i);
        add_env(w, name, "");
    }
}
static void env_most(struct world *w) {
    env_fill(w, 1000);
}
static void env_too_many(struct world *w) {
    env_fill(w, 1001);
}
static void dir_relative(struct world *w) {
    w->spec.working_dir = arena_strdup(&w->arena, "tmp");
}
static void dir_good(struct world *w) {
    w->spec.working_dir = arena_strdup(&w->arena, "/tmp/a b");
}
static void dir_control(struct world *w) {
    w->spec.working_dir = arena_strdup(&w->arena, "/tmp/\x1b[0m");
}
static void dir_long(struct world *w) {
    w->spec.working_dir = text_of(w, '/', 4096);
}
static void queue_longest(struct world *w) {
    w->spec.queue = text_of(w, 'q', 128);
}
static void queue_long(struct world *w) {
    w->spec.queue = text_of(w, 'q', 129);
}
static void queue_space(struct world *w) {
    w->spec.queue = arena_strdup(&w->arena, "a b");
}
static void label_good(struct world *w) {
    add_label(w, text_of(w, 'k', 63), text_of(w, 'v', 255));
}
static void label_empty_key(struct world *w) {
    add_label(w, "", "v");
}
static void label_key_long(struct world *w) {
    add_label(w, text_of(w, 'k', 64), "v");
}
static void label_value_long(struct world *w) {
    add_label(w, "k", text_of(w, 'v', 256));
}
static void label_control(struct world *w) {
    add_label(w, "k", "a\x7f");
}
static void label_fill(struct world *w, int n) {
    char name[16];

    for (int i = 0; i < n; i++) {
        (void) snprintf(name, sizeof(name), "l%d", i);
        add_label(w, name, "");
    }
}
static void labels_most(struct world *w) {
    label_fill(w, 32);
}
static void labels_too_many(struct world *w) {
    label_fill(w, 33);
}
static void timeout_none(struct world *w) {
    w->spec.run_timeout_ms = -1;
}
static void timeout_negative(struct world *w) {
    w->spec.run_timeout_ms = -2;
}
static void timeout_most(struct world *w) {
    w->spec.run_timeout_ms = 31536000000;
}
static void timeout_long(struct world *w) {
    w->spec.run_timeout_ms = 31536000001;
}
static void timeout_min(struct world *w) {
    w->spec.run_timeout_ms = INT64_MIN;
}
static void grace_negative(struct world *w) {
    w->spec.kill_grace_ms = -1;
}
static void grace_most(struct world *w) {
    w->spec.kill_grace_ms = 3600000;
}
static void grace_long(struct world *w) {
    w->spec.kill_grace_ms = 3600001;
}
static void output_most(struct world *w) {
    w->spec.output_limit_bytes = 64UL << 20;
}
static void output_too_much(struct world *w) {
    w->spec.output_limit_bytes = (64UL << 20) + 1;
}
static void attempts_most(struct world *w) {
    w->spec.max_attempts = 100;
}
static void attempts_too_many(struct world *w) {
    w->spec.max_attempts = 101;
}
static void name_longest(struct world *w) {
    w->spec.name = text_of(w, 'n', 255);
}
static void name_long(struct world *w) {
    w->spec.name = text_of(w, 'n', 256);
}
static void name_control(struct world *w) {
    w->spec.name = arena_strdup(&w->arena, "evil\rname");
}
static void too_big(struct world *w) {
    fill_args(w, 10);
    for (size_t i = 1; i < 10; i++)
        w->argv[i] = text_of(w, 'x', 131000);
}

static const struct {
    void (*change)(struct world *w);
    const char *text; /* NULL = accepted */
} cases[] = {
    {no_payload, "spec.payload: set one of"},
    {no_argv, "spec.command.argv: must have at least one"},
    {empty_program, "spec.command.argv[0]: must name"},
    {program_newline, "spec.command.argv[0]: must not contain control"},
    {program_relative, "spec.command.argv[0]: must be an absolute path"},
    {program_absolute, NULL},
    {program_long, "spec.command.argv[0]: must be at most 4,095"},
    {program_longest, NULL},
    {args_most, NULL},
    {args_too_many, "spec.command.argv: must have at most 10,000"},
    {arg_newline, NULL},
    {arg_longest, NULL},
    {arg_too_long, "spec.command.argv[2]: must be at most 131,071"},
    {shell_good, NULL},
    {shell_blank, "spec.shell: must not be empty"},
    {shell_empty, "spec.shell: must not be empty"},
    {shell_too_long, "spec.shell: must be at most 131,071"},
    {env_good, NULL},
    {env_ld, "spec.env[\"LD_PRELOAD\"]: names that begin with LD_"},
    {env_chronos, "spec.env[\"CHRONOS_JOB_ID\"]: names that begin with CHRONOS_"},
    {env_digit, "spec.env[\"9A\"]: the name must be"},
    {env_empty_name, "spec.env[\"\"]: the name must be"},
    {env_equals, "spec.env[\"A=B\"]: the name must be"},
    {env_control, "spec.env[\"A??B\"]: the name must be"},
    {env_name_long, "the name must be at most 255"},
    {env_value_longest, NULL},
    {env_value_long, "spec.env[\"A\"]: name and value"},
    {env_most, NULL},
    {env_too_many, "spec.env: must have at most 1,000"},
    {dir_relative, "spec.working_dir: must be an absolute path"},
    {dir_good, NULL},
    {dir_control, "spec.working_dir: must not contain control"},
    {dir_long, "spec.working_dir: must be at most 4,095"},
    {queue_longest, NULL},
    {queue_long, "spec.queue: must be at most 128"},
    {queue_space, "spec.queue: must consist of"},
    {label_good, NULL},
    {label_empty_key, "spec.labels[\"\"]: the key must be 1 to 63"},
    {label_key_long, "the key must be 1 to 63"},
    {label_value_long, "spec.labels[\"k\"]: the value must be at most 255"},
    {label_control, "spec.labels[\"k\"]: must not contain control"},
    {labels_most, NULL},
    {labels_too_many, "spec.labels: must have at most 32"},
    {timeout_none, NULL},
    {timeout_negative, "spec.run_timeout_ms: must be -1"},
    {timeout_most, NULL},
    {timeout_long, "spec.run_timeout_ms: "},
    {timeout_min, "spec.run_timeout_ms: "},
    {grace_negative, "spec.kill_grace_ms: "},
    {grace_most, NULL},
    {grace_long, "spec.kill_grace_ms: "},
    {output_most, NULL},
    {output_too_much, "spec.output_limit_bytes: "},
    {attempts_most, NULL},
    {attempts_too_many, "spec.max_attempts: must be at most 100"},
    {name_longest, NULL},
    {name_long, "spec.name: must be at most 255"},
    {name_control, "spec.name: must not contain control"},
    {too_big, "spec: must be at most 1,048,576 bytes"},
};

/* Goal: each limit, just inside and just outside. */
static void test_limits(void **state) {
    (void) state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct world *w = world_new();
        struct errtext e = {0};
        size_t bytes = 0;
        int r;

        cases[i].change(w);
        r = validate_job(&w->spec, &w->arena, &bytes, &e);
        if (!cases[i].text && r != 0)
            fail_msg("case %zu refused: %s", i, e.s);
        if (cases[i].text && (r != VALIDATE_BAD || !strstr(e.s, cases[i].text)))
            fail_msg("case %zu: %d \"%s\", expected \"%s\"", i, r, e.s, cases[i].text);
        if (r == 0)
            assert_int_equal(bytes, chronos__v1__job_spec__get_packed_size(&w->spec));
        world_free(w);
    }
}

/* Goal: zero values become the documented defaults, given ones stay. */
static void test_defaults(void **state) {
    struct world *w = world_new();
    size_t bytes;

    (void) state;
    assert_int_equal(validate_job(&w->spec, &w->arena, &bytes, NULL), 0);
    assert_string_equal(w->spec.queue, "default");
    assert_int_equal(w->spec.run_timeout_ms, 300000);
    assert_int_equal(w->spec.kill_grace_ms, 10000);
    assert_int_equal(w->spec.output_limit_bytes, 1048576);
    assert_int_equal(w->spec.max_attempts, 3);
    w->spec.run_timeout_ms = -1;
    w->spec.max_attempts = 1;
    assert_int_equal(validate_job(&w->spec, &w->arena, &bytes, NULL), 0);
    assert_int_equal(w->spec.run_timeout_ms, -1);
    assert_int_equal(w->spec.max_attempts, 1);
    world_free(w);
}

/* Goal: maps in any order, with repeated keys, become one encoding: sorted, the last value kept. */
static void test_maps_have_one_form(void **state) {
    struct world *a = world_new(), *b = world_new();
    size_t a_bytes, b_bytes;
    uint8_t *x, *y;

    (void) state;
    add_env(a, "B", "old");
    add_env(a, "A", "1");
    add_env(a, "C", "3");
    add_env(a, "B", "2");
    add_env(b, "C", "3");
    add_env(b, "B", "2");
    add_env(b, "A", "1");
    add_label(a, "y", "2");
    add_label(a, "x", "1");
    add_label(b, "x", "1");
    add_label(b, "y", "2");
    assert_int_equal(validate_job(&a->spec, &a->arena, &a_bytes, NULL), 0);
    assert_int_equal(validate_job(&b->spec, &b->arena, &b_bytes, NULL), 0);
    assert_int_equal(a->spec.n_env, 3);
    assert_string_equal(a->spec.env[1]->value, "2");
    assert_int_equal(a_bytes, b_bytes);
    x = arena_alloc(&a->arena, a_bytes);
    y = arena_alloc(&b->arena, b_bytes);
    (void) chronos__v1__job_spec__pack(&a->spec, x);
    (void) chronos__v1__job_spec__pack(&b->spec, y);
    assert_memory_equal(x, y, a_bytes);
    world_free(a);
    world_free(b);
}

/* Goal: fields this program does not know do not reach the log. */
static void test_unknown_fields_are_dropped(void **state) {
    /* shell "x" (field 2), then field 99 as a varint and field 98 as bytes */
    static const uint8_t raw[] = {0x12, 1, 'x', 0x98, 0x06, 7, 0x92, 0x06, 2, 'h', 'i'};
    struct world *w = world_new();
    Chronos__V1__JobSpec *spec;
    size_t bytes;

    (void) state;
    spec = chronos__v1__job_spec__unpack(arena_pb(&w->arena), sizeof(raw), raw);
    assert_non_null(spec);
    assert_int_equal(spec->base.n_unknown_fields, 2);
    assert_int_equal(validate_job(spec, &w->arena, &bytes, NULL), 0);
    assert_int_equal(spec->base.n_unknown_fields, 0);
    world_free(w);
}

/* Goal: a missing spec and running out of arena are results, not crashes. */
static void test_missing_and_memory(void **state) {
    struct world *w = world_new();
    struct arena small;
    struct errtext e;
    size_t bytes;

    (void) state;
    assert_int_equal(validate_job(NULL, &w->arena, &bytes, &e), VALIDATE_BAD);
    assert_string_equal(e.s, "spec: is missing");
    arena_init(&small, 4);
    assert_true(validate_job(&w->spec, &small, &bytes, &e) < 0);
    w->spec.queue = arena_strdup(&w->arena, "q");
    assert_int_equal(validate_job(&w->spec, &small, &bytes, &e), 0);
    add_env(w, "B", "");
    add_env(w, "A", "");
    assert_true(validate_job(&w->spec, &small, &bytes, &e) < 0);
    arena_done(&small);
    world_free(w);
}

/* Goal: idempotency keys at their edges. */
static void test_keys(void **state) {
    struct errtext e;
    char key[130];

    (void) state;
    memset(key, 'k', sizeof(key));
    key[129] = '\0';
    assert_int_equal(validate_job_key(key, &e), VALIDATE_BAD);
    assert_non_null(strstr(e.s, "idempotency_key: must be at most 128"));
    key[128] = '\0';
    assert_int_equal(validate_job_key(key, &e), 0);
    assert_int_equal(validate_job_key("", &e), 0);
    assert_int_equal(validate_job_key("a\tb", &e), VALIDATE_BAD);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_maps_have_one_form),
        cmocka_unit_test(test_unknown_fields_are_dropped),
        cmocka_unit_test(test_missing_and_memory),
        cmocka_unit_test(test_keys),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
