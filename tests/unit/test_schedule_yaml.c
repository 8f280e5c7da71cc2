/* Definitions as text: YAML, instants, comparison. */
#include "cli/schedule_yaml.h"

#include "base/rand.h"

#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#define ARENA_BYTES ((size_t) 256 * 1024 * 1024)

static int read_text(const char *text, struct arena *arena, struct schedule_list *l,
                     struct errtext *why) {
    return schedule_yaml_read("f.yaml", text, strlen(text), arena, l, why);
}

/* ---- tables -----------------------------------------------------------------------------------
 */

/* Goal: no field of the schema is forgotten by options, YAML and comparison. Method: compare the
 * tables' offsets with the descriptors'. */
static void test_every_field(void **state) {
    const ProtobufCMessageDescriptor *s = &chronos__v1__schedule_spec__descriptor;
    const ProtobufCMessageDescriptor *j = &chronos__v1__job_spec__descriptor;

    (void) state;
    for (unsigned i = 0; i < s->n_fields; i++) {
        bool found = strcmp(s->fields[i].name, "job") == 0;

        for (size_t k = 0; k < schedule_fields_count; k++)
            found = found || schedule_fields[k].offset == s->fields[i].offset;
        if (!found)
            fail_msg("ScheduleSpec.%s has no entry in schedule_fields", s->fields[i].name);
    }
    for (unsigned i = 0; i < j->n_fields; i++) {
        bool found = j->fields[i].flags & PROTOBUF_C_FIELD_FLAG_ONEOF;

        for (size_t k = 0; k < schedule_job_fields_count; k++)
            found = found || schedule_job_fields[k].offset == j->fields[i].offset;
        if (!found)
            fail_msg("JobSpec.%s has no entry in schedule_job_fields", j->fields[i].name);
    }
}

/* Goal: the names of choices stand at the numbers of the schema. Method: each enum value's name
 * ends with its choice, in capitals. */
static void test_choices(void **state) {
    static const struct {
        const ProtobufCEnumDescriptor *d;
        const char *const *names;
    } enums[] = {
        {&chronos__v1__dst_policy__descriptor, schedule_dst_names},
        {&chronos__v1__day_match__descriptor, schedule_day_match_names},
        {&chronos__v1__missed_policy__descriptor, schedule_missed_names},
        {&chronos__v1__overlap_policy__descriptor, schedule_overlap_names},
    };

    (void) state;
    for (size_t e = 0; e < ARRAY_LEN(enums); e++) {
        unsigned n = 0;

        while (enums[e].names[n])
            n++;
        assert_int_equal(n, enums[e].d->n_values);
        for (unsigned i = 0; i < n; i++) {
            const ProtobufCEnumValue *v = protobuf_c_enum_descriptor_get_value(enums[e].d, (int) i);
            size_t len = strlen(enums[e].names[i]);

            assert_non_null(v);
            assert_true(strlen(v->name) > len);
            assert_int_equal(strcasecmp(v->name + strlen(v->name) - len, enums[e].names[i]), 0);
        }
    }
}

/* ---- round trip -------------------------------------------------------------------------------
 */

/* Pieces that YAML might trip over. */
static const char *const pieces[] = {
    "a",
    "Z",
    "0",
    " ",
    ":",
    ": ",
    "#",
    " #",
    "-",
    "- ",
    "'",
    "\"",
    "\\",
    "\n",
    "\t",
    "\r",
    "\x01",
    "\x7f",
    "\xc2\x85",
    "\xc2\xa0",
    "\xc3\xa9",
    "\xe2\x80\xa8",
    "\xe2\x80\xa9",
    "\xef\xbb\xbf",
    "\xef\xbf\xbe",
    "\xf0\x9f\x98\x80",
    "true",
    "null",
    "~",
    "[",
    "]",
    "{",
    "}",
    ",",
    "&x",
    "*x",
    "!t",
    "|",
    ">",
    "%",
    "@",
    "`",
    "1e3",
    "0x1f",
    "2026-01-01",
    "=",
    "<<",
    "---",
    "...",
    "?",
    "\xed\x9f\xbf",
    "\xef\xbf\xbd",
};

static char *random_text(struct rng *rng, struct arena *arena, size_t least) {
    size_t n = least + (size_t) rng_below(rng, 6);
    char *s = arena_strdup(arena, "");

    for (size_t i = 0; i < n; i++)
        s = arena_printf(arena, "%s%s", s, pieces[rng_below(rng, ARRAY_LEN(pieces))]);
    return s;
}

static void fill_field(const struct schedule_field *f, ProtobufCMessage *m, struct rng *rng,
                       struct arena *arena) {
    struct errtext why = {""};
    char text[64] = "";
    size_t n = 0;

    switch (f->kind) {
    case SCHEDULE_TEXT:
        assert_int_equal(schedule_field_set(f, m, random_text(rng, arena, 1), arena, &why), 0);
        return;
    case SCHEDULE_TEXTS:
    case SCHEDULE_MAP:
        for (size_t i = 1 + (size_t) rng_below(rng, 3); i > 0; i--) {
            char *key = arena_printf(arena, "%zu%s", i, random_text(rng, arena, 0));

            if (f->kind == SCHEDULE_TEXTS)
                assert_int_equal(schedule_field_set(f, m, key, arena, &why), 0);
            else
                assert_int_equal(schedule_field_put(f, m, key, random_text(rng, arena, 0), arena),
                                 0);
        }
        return;
    case SCHEDULE_CHOICE:
        while (f->choices[n])
            n++;
        (void) snprintf(text, sizeof(text), "%s", f->choices[rng_below(rng, n)]);
        break;
    case SCHEDULE_TIME:
        (void) schedule_print_instant((int64_t) rng_below(rng, 4102444800000ULL), text);
        break;
    case SCHEDULE_BOOL:
        (void) snprintf(text, sizeof(text), "%s", rng_below(rng, 2) ? "true" : "false");
        break;
    case SCHEDULE_LIMIT:
        if (rng_below(rng, 2)) {
            (void) snprintf(text, sizeof(text), "none");
            break;
        }
        (void) snprintf(text, sizeof(text), "%ums", (unsigned) rng_below(rng, 1U << 30));
        break;
    case SCHEDULE_DURATION:
        (void) snprintf(text, sizeof(text), "%ums", (unsigned) rng_below(rng, 1U << 30));
        break;
    case SCHEDULE_UINT64:
    case SCHEDULE_UINT32:
    case SCHEDULE_SIZE:
        (void) snprintf(text, sizeof(text), "%u", (unsigned) rng_below(rng, 1U << 30));
        break;
    }
    assert_int_equal(schedule_field_set(f, m, text, arena, &why), 0);
}

static void fill_payload(Chronos__V1__JobSpec *j, struct rng *rng, struct arena *arena) {
    switch (rng_below(rng, 3)) {
    case 0:
        j->payload_case = CHRONOS__V1__JOB_SPEC__PAYLOAD_SHELL;
        j->shell = random_text(rng, arena, 1);
        return;
    case 1:
        j->payload_case = CHRONOS__V1__JOB_SPEC__PAYLOAD_NOOP;
        j->noop = arena_zalloc(arena, sizeof(*j->noop));
        chronos__v1__noop__init(j->noop);
        return;
    default:
        j->payload_case = CHRONOS__V1__JOB_SPEC__PAYLOAD_COMMAND;
        j->command = arena_zalloc(arena, sizeof(*j->command));
        chronos__v1__command__init(j->command);
        j->command->n_argv = 1 + (size_t) rng_below(rng, 3);
        j->command->argv = arena_alloc(arena, 3 * sizeof(char *));
        for (size_t i = 0; i < j->command->n_argv; i++)
            j->command->argv[i] = random_text(rng, arena, 0);
    }
}

static Chronos__V1__ScheduleSpec *random_spec(struct rng *rng, struct arena *arena, size_t number) {
    Chronos__V1__ScheduleSpec *s = arena_zalloc(arena, sizeof(*s));

    chronos__v1__schedule_spec__init(s);
    s->job = arena_zalloc(arena, sizeof(*s->job));
    chronos__v1__job_spec__init(s->job);
    for (size_t i = 0; i < schedule_fields_count; i++) {
        if (i < 3 || rng_below(rng, 2))
            fill_field(&schedule_fields[i], &s->base, rng, arena);
    }
    for (size_t i = 0; i < schedule_job_fields_count; i++) {
        if (rng_below(rng, 2))
            fill_field(&schedule_job_fields[i], &s->job->base, rng, arena);
    }
    fill_payload(s->job, rng, arena);
    s->name = arena_printf(arena, "%s%zu", s->name, number);
    return s;
}

static void expect_same_bytes(const ProtobufCMessage *a, const ProtobufCMessage *b) {
    size_t na = protobuf_c_message_get_packed_size(a), nb = protobuf_c_message_get_packed_size(b);
    uint8_t *pa = malloc(na + 1), *pb = malloc(nb + 1);

    assert_non_null(pa);
    assert_non_null(pb);
    (void) protobuf_c_message_pack(a, pa);
    (void) protobuf_c_message_pack(b, pb);
    assert_int_equal(na, nb);
    assert_memory_equal(pa, pb, na);
    free(pa);
    free(pb);
}

static void round_trip(struct rng *rng) {
    Chronos__V1__ScheduleSpec *specs[3];
    struct schedule_list l = {0};
    struct errtext why = {""};
    struct arena arena;
    struct buf b;

    arena_init(&arena, ARENA_BYTES);
    buf_init(&b, ARENA_BYTES);
    assert_int_equal(schedule_yaml_begin(&b), 0);
    for (size_t i = 0; i < ARRAY_LEN(specs); i++) {
        specs[i] = random_spec(rng, &arena, i);
        schedule_spec_strip(specs[i]);
        assert_int_equal(schedule_yaml_write(specs[i], &b), 0);
    }
    assert_int_equal(schedule_yaml_end(ARRAY_LEN(specs), &b), 0);
    if (schedule_yaml_read("f.yaml", (const char *) b.data, b.len, &arena, &l, &why) != 0)
        fail_msg("%s\n%.*s", why.s, (int) b.len, (const char *) b.data);
    assert_int_equal(l.count, ARRAY_LEN(specs));
    for (size_t i = 0; i < l.count; i++) {
        struct buf differences;

        expect_same_bytes(&specs[i]->base, &l.items[i]->base);
        buf_init(&differences, 4096);
        assert_int_equal(schedule_spec_differences(specs[i], l.items[i], &arena, &differences), 0);
        assert_int_equal(differences.len, 0);
        buf_done(&differences);
    }
    buf_done(&b);
    arena_done(&arena);
}

/* Goal: what export writes, apply reads back to the same bytes, whatever stands in it. Method:
 * random definitions of awkward pieces; CHRONOS_TEST_SEED repeats one. */
static void test_round_trip(void **state) {
    const char *given = getenv("CHRONOS_TEST_SEED");
    uint64_t seed = given ? strtoull(given, NULL, 10) : (uint64_t) time(NULL);
    struct rng rng = rng_seed(seed);

    (void) state;
    print_message("seed %llu\n", (unsigned long long) seed);
    for (int i = 0; i < 1500; i++)
        round_trip(&rng);
}

/* Goal: no schedules at all is a file too. */
static void test_empty(void **state) {
    struct schedule_list l = {.count = 7};
    struct errtext why = {""};
    struct arena arena;
    struct buf b;

    (void) state;
    arena_init(&arena, ARENA_BYTES);
    buf_init(&b, 4096);
    assert_int_equal(schedule_yaml_begin(&b), 0);
    assert_int_equal(schedule_yaml_end(0, &b), 0);
    assert_int_equal(schedule_yaml_read("f.yaml", (const char *) b.data, b.len, &arena, &l, &why),
                     0);
    assert_int_equal(l.count, 0);
    buf_done(&b);
    arena_done(&arena);
}

/* Goal: the example of the documentation is one. */
static void test_documentation(void **state) {
    char text[65536];
    FILE *f = fopen(CHRONOS_SOURCE_DIR "/docs/cli.md", "re");
    struct schedule_list l = {0};
    struct errtext why = {""};
    struct arena arena;
    char *begin, *end;
    size_t n;

    (void) state;
    assert_non_null(f);
    n = fread(text, 1, sizeof(text) - 1, f);
    (void) fclose(f);
    text[n] = '\0';
    begin = strstr(text, "```yaml\nschedules:");
    assert_non_null(begin);
    begin = strchr(begin, '\n') + 1;
    end = strstr(begin, "```");
    assert_non_null(end);
    arena_init(&arena, ARENA_BYTES);
    if (schedule_yaml_read("docs/cli.md", begin, (size_t) (end - begin), &arena, &l, &why) != 0)
        fail_msg("%s", why.s);
    assert_int_equal(l.count, 1);
    for (size_t i = 0; i < schedule_fields_count; i++) {
        if (!strstr(begin, schedule_fields[i].key))
            fail_msg("docs/cli.md: %s is missing", schedule_fields[i].key);
    }
    arena_done(&arena);
}

/* ---- refusals ---------------------------------------------------------------------------------
 */

/* Goal: each mistake is named with its line. */
static void test_refusals(void **state) {
    static const struct {
        const char *text, *want;
    } cases[] = {
        {"", "is empty"},
        {"[]", "f.yaml:1: the file: must be a mapping"},
        {"{}", "schedules: is missing"},
        {"jobs: []", "f.yaml:1: jobs: unknown key"},
        {"schedules: {}", "must be a list"},
        {"schedules: []\nschedules: []", "f.yaml:2: schedules: given twice"},
        {"schedules:\n- x", "f.yaml:2: schedules: each schedule is a mapping"},
        {"schedules:\n- cron: x\n", "name: a schedule needs one"},
        {"schedules:\n- name: a\n", "has no cron"},
        {"schedules:\n- {name: a, cron: x}\n", "has nothing to run"},
        {"schedules:\n- name: a\n  crom: x\n",
         "f.yaml:3: crom: unknown key of a schedule; "
         "did you mean cron?"},
        {"schedules:\n- name: a\n  name: b\n", "f.yaml:3: name: given twice"},
        {"schedules:\n- name: a\n  dst: maybe\n",
         "f.yaml:3: dst: \"maybe\" is not one of: once, "
         "literal, skip_repeat"},
        {"schedules:\n- name: a\n  spread: soon\n", "f.yaml:3: spread:"},
        {"schedules:\n- name: a\n  start: 2026-02-30\n", "is not an instant"},
        {"schedules:\n- name: a\n  pause_on_failure: yes\n", "neither true nor false"},
        {"schedules:\n- name: a\n  max_runs: -1\n", "f.yaml:3: max_runs:"},
        {"schedules:\n- name: a\n  name:\n", "f.yaml:3: name"},
        {"schedules:\n- name: [a]\n", "must be one value"},
        {"schedules:\n- name: a\n  cron: {a: b}\n", "must be one value or a list"},
        {"schedules:\n- name: a\n  labels: [x]\n", "must be a mapping of names"},
        {"schedules:\n- name: a\n  labels: {x: 1, x: 2}\n", "x: given twice"},
        {"schedules:\n- name: a\n  job: ls\n", "must be a mapping, indented"},
        {"schedules:\n- name: a\n  job: {command: ls}\n", "for a line of text use shell"},
        {"schedules:\n- name: a\n  job: {command: []}\n", "must name the program to run"},
        {"schedules:\n- name: a\n  job: {shell: ls, noop: true}\n", "give one of command"},
        {"schedules:\n- name: a\n  job: {noop: false}\n", "must be true, or left out"},
        {"schedules:\n- name: a\n  job: {shel: ls}\n", "did you mean shell?"},
        {"schedules:\n- name: a\n  job: {max_attempts: 4294967296}\n", "is too large"},
        {"schedules:\n- &x {name: a, cron: c, job: {noop: true}}\n- *x\n", "two schedules have"},
        {"schedules: []\n---\nschedules: []\n", "has a second document"},
        {"schedules: [\n", "not YAML"},
        {"schedules:\n- name: \"a\\0b\"\n", "must be one value"},
    };

    (void) state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct schedule_list l = {0};
        struct errtext why = {""};
        struct arena arena;

        arena_init(&arena, ARENA_BYTES);
        if (read_text(cases[i].text, &arena, &l, &why) != 1 || !strstr(why.s, cases[i].want))
            fail_msg("%s\ngives \"%s\", not \"%s\"", cases[i].text, why.s, cases[i].want);
        arena_done(&arena);
    }
}

/* ---- instants and differences -----------------------------------------------------------------
 */

static void test_instants(void **state) {
    static const struct {
        const char *text;
        int64_t ms; /* -1 = refused */
        const char *printed;
    } cases[] = {
        {"1970-01-01", 0, "1970-01-01T00:00:00Z"},
        {"2026-07-01T12:00:00Z", 1782907200000, "2026-07-01T12:00:00Z"},
        {"2026-07-01t14:00:00.25+02:00", 1782907200250, "2026-07-01T12:00:00.250Z"},
        {"2026-07-01 12:00:00z", 1782907200000, "2026-07-01T12:00:00Z"},
        {"2024-02-29T23:59:59-00:30", 1709252999000, "2024-03-01T00:29:59Z"},
        {"2023-02-29", -1, ""},
        {"2026-07-01T12:00:00", -1, ""},
        {"2026-07-01T24:00:00Z", -1, ""},
        {"2026-07-01T12:00:00.Z", -1, ""},
        {"2026-07-01T12:00:00Zx", -1, ""},
        {"1969-12-31", -1, ""},
        {"", -1, ""},
        {"now", -1, ""},
    };

    (void) state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char text[SCHEDULE_INSTANT_BYTES];
        struct errtext why = {""};
        int64_t ms = -1;
        int r = schedule_parse_instant(cases[i].text, &ms, &why);

        assert_int_equal(r, cases[i].ms < 0);
        assert_int_equal(ms, cases[i].ms);
        if (r == 0)
            assert_string_equal(schedule_print_instant(ms, text), cases[i].printed);
    }
}

static void expect_difference(const char *a, const char *b, const char *want) {
    struct schedule_list la = {0}, lb = {0};
    struct errtext why = {""};
    char text[2][1024];
    struct arena arena;
    struct buf out;

    arena_init(&arena, ARENA_BYTES);
    buf_init(&out, 4096);
    (void) snprintf(text[0], sizeof(text[0]), "schedules: [{%s}]", a);
    (void) snprintf(text[1], sizeof(text[1]), "schedules: [{%s}]", b);
    if (read_text(text[0], &arena, &la, &why) != 0 || read_text(text[1], &arena, &lb, &why) != 0)
        fail_msg("%s", why.s);
    assert_int_equal(schedule_spec_differences(la.items[0], lb.items[0], &arena, &out), 0);
    assert_int_equal(buf_append(&out, "", 1), 0);
    assert_string_equal((const char *) out.data, want);
    buf_done(&out);
    arena_done(&arena);
}

/* Goal: an update is planned exactly when the meaning differs. */
static void test_differences(void **state) {
    (void) state;
#define BASE "name: a, cron: '0 9 * * mon-fri', job: {shell: ls"
    expect_difference(BASE "}", BASE "}", "");
    expect_difference(BASE "}", "name: a, cron: '0 9 * * 1-5', job: {shell: ls}", "");
    expect_difference(BASE "}", BASE "}, time_zone: UTC, catchup_window: 60m, dst: once", "");
    expect_difference(BASE "}", BASE ", queue: default, run_timeout: 300s, max_attempts: 3}", "");
    expect_difference(BASE "}, labels: {k: v}", BASE ", labels: {k: v}}, labels: {k: v}", "");
    expect_difference(BASE ", env: {A: x, B: y}}", BASE ", env: {B: y, A: x}}", "");
    expect_difference(BASE "}", "name: a, cron: '0 8 * * mon-fri', job: {shell: ls}", "cron");
    expect_difference(BASE "}", BASE "}, time_zone: Europe/Berlin, jitter: 5s",
                      "time_zone, jitter");
    expect_difference(BASE "}", "name: a, cron: '0 9 * * mon-fri', job: {command: [ls]}",
                      "job.command");
    expect_difference(BASE ", env: {A: x}}", BASE ", env: {A: y}, run_timeout: none}",
                      "job.env, job.run_timeout");
    expect_difference(BASE "}, labels: {k: v}", BASE ", labels: {k: w}}, labels: {k: v}",
                      "job.labels");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_field), cmocka_unit_test(test_choices),
        cmocka_unit_test(test_round_trip),  cmocka_unit_test(test_empty),
        cmocka_unit_test(test_refusals),    cmocka_unit_test(test_instants),
        cmocka_unit_test(test_differences), cmocka_unit_test(test_documentation),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
