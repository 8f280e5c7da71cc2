/* Crontabs read as schedules and written back. */
#include "cli/crontab.h"

#include "base/rand.h"

#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#define ARENA_BYTES ((size_t) 256 * 1024 * 1024)

struct result {
    struct arena arena;
    struct schedule_list l;
    struct buf notes;
    struct errtext why;
};

static int read_tab(const char *text, bool user_column, struct result *r) {
    const struct crontab_options o = {
        .name = "tab", .time_zone = "Asia/Tokyo", .prefix = "", .user_column = user_column};

    memset(r, 0, sizeof(*r));
    arena_init(&r->arena, ARENA_BYTES);
    buf_init(&r->notes, 64 * 1024);
    return crontab_read(text, strlen(text), &o, &r->arena, &r->l, &r->notes, &r->why);
}

static void done(struct result *r) {
    buf_done(&r->notes);
    arena_done(&r->arena);
}

static void read_well(const char *text, bool user_column, struct result *r) {
    if (read_tab(text, user_column, r) != 0)
        fail_msg("%s\n%s", r->why.s, text);
}

static const char *env_of(const Chronos__V1__ScheduleSpec *s, const char *name) {
    for (size_t i = 0; i < s->job->n_env; i++) {
        if (strcmp(s->job->env[i]->key, name) == 0)
            return s->job->env[i]->value;
    }
    return NULL;
}

/* Goal: assignments hold for the lines below them, and each finds its place. */
static void test_assignments(void **state) {
    struct result r;

    (void) state;
    read_well(
        "0 1 * * * first\n"
        "CRON_TZ = Europe/Berlin\n"
        "HOME=/srv\n"
        "A = \"two words \"\n"
        "'B'=1\n"
        "0 2 * * * second\n"
        "A=x\n"
        "SHELL=/bin/bash\n"
        "MAILTO=ops@example.org\r\n"
        "0 3 * * * third\n",
        false, &r);
    assert_int_equal(r.l.count, 3);
    assert_string_equal(r.l.items[0]->time_zone, "Asia/Tokyo");
    assert_string_equal(r.l.items[0]->job->shell, "first");
    assert_int_equal(r.l.items[0]->job->n_env, 0);
    assert_string_equal(r.l.items[0]->cron[0], "0 1 * * *");
    assert_string_equal(r.l.items[1]->time_zone, "Europe/Berlin");
    assert_string_equal(env_of(r.l.items[1], "A"), "two words ");
    assert_string_equal(env_of(r.l.items[1], "B"), "1");
    assert_string_equal(r.l.items[1]->job->working_dir, "/srv");
    assert_int_equal(r.l.items[1]->n_labels, 0);
    assert_string_equal(env_of(r.l.items[2], "A"), "x");
    assert_int_equal(r.l.items[2]->job->command->n_argv, 3);
    assert_string_equal(r.l.items[2]->job->command->argv[0], "/bin/bash");
    assert_string_equal(r.l.items[2]->job->command->argv[2], "third");
    assert_string_equal(r.l.items[2]->labels[0]->key, CRONTAB_MAILTO_LABEL);
    assert_string_equal(r.l.items[2]->labels[0]->value, "ops@example.org");
    /* As cron does. */
    assert_int_equal(r.l.items[0]->overlap, CHRONOS__V1__OVERLAP_POLICY__OVERLAP_POLICY_ALLOW);
    assert_int_equal(r.l.items[0]->missed, CHRONOS__V1__MISSED_POLICY__MISSED_POLICY_SKIP);
    assert_int_equal(r.l.items[0]->job->run_timeout_ms, -1);
    assert_int_equal(r.l.items[0]->job->max_attempts, 1);
    done(&r);
}

/* Goal: the user column is read in that form only, and @reboot is left out with a note. */
static void test_user_column(void **state) {
    struct result r;

    (void) state;
    read_well("17 *\t* * *\troot    cd / && run-parts /etc/cron.hourly\n@reboot root x\n", true,
              &r);
    assert_int_equal(r.l.count, 1);
    assert_string_equal(r.l.items[0]->job->shell, "cd / && run-parts /etc/cron.hourly");
    assert_string_equal(r.l.items[0]->labels[0]->key, CRONTAB_USER_LABEL);
    assert_string_equal(r.l.items[0]->labels[0]->value, "root");
    assert_int_equal(buf_append(&r.notes, "", 1), 0);
    assert_non_null(strstr((const char *) r.notes.data, "tab:1: root: users are kept"));
    assert_non_null(strstr((const char *) r.notes.data, "tab:2: @reboot: the entry is left out"));
    done(&r);
}

/* Goal: percent signs as in cron's do_command.c. */
static void test_percent(void **state) {
    static const struct {
        const char *command, *script;
    } cases[] = {
        {"date +\\%F", "date +%F"},
        {"a \\\\% b", "a \\% b"},
        {"a\\b\\", "a\\b\\"},
        {"cat%one%two", "exec <<'CRON_INPUT'\none\ntwo\nCRON_INPUT\ncat"},
        {"cat%one%", "exec <<'CRON_INPUT'\none\nCRON_INPUT\ncat"},
        {"cat%", "exec <<'CRON_INPUT'\n\nCRON_INPUT\ncat"},
        {"cat%50\\%%CRON_INPUT", "exec <<'CRON_INPUT_'\n50%\nCRON_INPUT\nCRON_INPUT_\ncat"},
    };

    (void) state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct result r;
        char text[256];

        (void) snprintf(text, sizeof(text), "* * * * * %s\n", cases[i].command);
        read_well(text, false, &r);
        assert_string_equal(r.l.items[0]->job->shell, cases[i].script);
        done(&r);
    }
}

/* Goal: a name depends on command and user alone; equal ones get numbers; a comment names. */
static void test_names(void **state) {
    struct result a, b;

    (void) state;
    read_well("0 1 * * * /opt/x.sh a\n0 2 * * * /opt/y.sh\n", false, &a);
    read_well("# moved\n5 5 * * 1 /opt/y.sh\nX=1\n0 3 * * * /opt/x.sh a\n9 9 * * * /opt/y.sh\n",
              false, &b);
    assert_string_equal(a.l.items[0]->name, b.l.items[1]->name);
    assert_string_equal(a.l.items[1]->name, b.l.items[0]->name);
    assert_memory_equal(a.l.items[0]->name, "x.sh-", 5);
    assert_int_equal(strlen(b.l.items[2]->name), strlen(b.l.items[0]->name) + 2);
    assert_string_equal(b.l.items[2]->name + strlen(b.l.items[0]->name), "-2");
    done(&a);
    done(&b);
    read_well("# chronos: nightly\n0 1 * * * x\n0 2 * * 0 x\n\n0 3 * * * x\n", false, &a);
    assert_int_equal(a.l.count, 2);
    assert_string_equal(a.l.items[0]->name, "nightly");
    assert_int_equal(a.l.items[0]->n_cron, 2);
    assert_string_equal(a.l.items[0]->cron[1], "0 2 * * 0");
    assert_memory_equal(a.l.items[1]->name, "x-", 2);
    done(&a);
}

static void test_refusals(void **state) {
    static const struct {
        const char *text, *want;
        bool user_column;
    } cases[] = {
        {"x\n", "tab:1: an entry has five fields", false},
        {"# c\n* * * *\n", "tab:2: an entry has five fields", false},
        {"* * * * *\n", "the command is missing", false},
        {"* * * * * root\n", "a user and a command", true},
        {"61 * * * * x\n", "tab:1: 61 * * * *: column 1", false},
        {"0 0 31 2 * x\n", "no date matches", false},
        {"@fortnightly x\n", "@fortnightly", false},
        {"* * * * * %in\n", "the command is empty", false},
        {"SHELL=bash\n", "SHELL: must be an absolute path", false},
        {"CHRONOS_X=1\n", "are set by Chronos", false},
        {"* * * * * a\x01\n", "control character", false},
        {"# chronos: n\n* * * * * a\n* * * * * b\n", "tab:3: n: an entry above has this name",
         false},
    };

    (void) state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct result r;

        if (read_tab(cases[i].text, cases[i].user_column, &r) != 1 ||
            !strstr(r.why.s, cases[i].want))
            fail_msg("%s gives \"%s\", not \"%s\"", cases[i].text, r.why.s, cases[i].want);
        done(&r);
    }
    {
        struct result r;
        const struct crontab_options o = {.name = "tab", .time_zone = "UTC", .prefix = ""};

        assert_int_equal(read_tab("", false, &r), 0);
        assert_int_equal(crontab_read("* * * * * a\0b\n", 14, &o, &r.arena, &r.l, &r.notes, &r.why),
                         1);
        assert_non_null(strstr(r.why.s, "NUL"));
        done(&r);
    }
}

/* ---- back -------------------------------------------------------------------------------------
 */

static void write_tab(struct result *r, bool user_column, struct buf *out, size_t *left_out) {
    buf_init(out, ARENA_BYTES);
    assert_int_equal(crontab_write(&r->l, user_column, &r->arena, out, left_out), 0);
    assert_int_equal(buf_append(out, "", 1), 0);
}

static int compare_names(const void *a, const void *b) {
    const Chronos__V1__ScheduleSpec *const *sa = a, *const *sb = b;

    return strcmp((*sa)->name, (*sb)->name);
}

static void expect_same(struct result *a, struct result *b, const char *text) {
    assert_int_equal(a->l.count, b->l.count);
    if (a->l.count > 1) {
        qsort(a->l.items, a->l.count, sizeof(*a->l.items), compare_names);
        qsort(b->l.items, b->l.count, sizeof(*b->l.items), compare_names);
    }
    for (size_t i = 0; i < a->l.count; i++) {
        struct buf d;

        buf_init(&d, 4096);
        assert_int_equal(schedule_spec_differences(a->l.items[i], b->l.items[i], &a->arena, &d), 0);
        if (d.len > 0)
            fail_msg("%s: %.*s\n%s", a->l.items[i]->name, (int) d.len, (const char *) d.data, text);
        buf_done(&d);
    }
}

/* Lines of a random crontab whose variables only grow: what assignments can say. */
static void random_tab(struct rng *rng, bool user_column, struct buf *out) {
    static const char *const lines[] = {
        "SHELL=/bin/bash\n", "SHELL=/bin/sh\n", "SHELL=/usr/bin/fish\n",
        "MAILTO=a@b\n",      "MAILTO=\"\"\n",   "CRON_TZ=Europe/Berlin\n",
        "CRON_TZ=UTC\n",     "PATH=/bin\n",     "PATH=\"/bin:/a b\"\n",
        "HOME=/home/x\n",    "E=\"\"\n",        "# chronos: named\n0 0 1 1 * one\n\n",
    };
    static const char *const times[] = {"* * * * *",      "*/5 1-7 * jan mon-fri", "@daily",
                                        "0 0 1,15 * */2", "59 23 31 12 7",         "@hourly"};
    static const char *const words[] = {"x",  " ",          "\\%",  "%",  "'a b'",
                                        "\"", "\\",         "\\\\", "$A", "/opt/y",
                                        "%%", "CRON_INPUT", "#",    "=",  "a=b"};

    for (size_t i = 0; i < 12; i++) {
        if (rng_below(rng, 2)) {
            size_t k = (size_t) rng_below(rng, ARRAY_LEN(lines) - (user_column ? 1 : 0));

            /* A name is given once. */
            if (k + 1 < ARRAY_LEN(lines) ||
                !strstr(out->data ? (const char *) out->data : "", "named"))
                assert_int_equal(buf_append_str(out, lines[k]), 0);
        } else {
            assert_int_equal(buf_printf(out, "%s %sc%zu", times[rng_below(rng, ARRAY_LEN(times))],
                                        user_column ? "www-data " : "", i),
                             0);
            for (uint64_t n = rng_below(rng, 6); n > 0; n--)
                assert_int_equal(buf_append_str(out, words[rng_below(rng, ARRAY_LEN(words))]), 0);
            assert_int_equal(buf_append_str(out, "x\n"), 0);
        }
        assert_int_equal(buf_append(out, "", 1), 0); /* for strstr */
        out->len--;
    }
}

/* Goal: import, export, import is the identity. Method: random crontabs; CHRONOS_TEST_SEED. */
static void test_round_trip(void **state) {
    const char *given = getenv("CHRONOS_TEST_SEED");
    uint64_t seed = given ? strtoull(given, NULL, 10) : (uint64_t) time(NULL);
    struct rng rng = rng_seed(seed);

    (void) state;
    print_message("seed %llu\n", (unsigned long long) seed);
    for (int i = 0; i < 1500; i++) {
        bool user_column = rng_below(&rng, 2);
        struct result a, b;
        struct buf in, out;
        size_t left_out = 0;

        buf_init(&in, 64 * 1024);
        random_tab(&rng, user_column, &in);
        read_well((const char *) in.data, user_column, &a);
        write_tab(&a, user_column, &out, &left_out);
        assert_int_equal(left_out, 0);
        read_well((const char *) out.data, user_column, &b);
        expect_same(&a, &b, (const char *) out.data);
        buf_done(&in);
        buf_done(&out);
        done(&a);
        done(&b);
    }
}

/* Goal: what a crontab cannot say is left out and named, the rest is written. */
static void test_left_out(void **state) {
    static const char yaml[] =
        "schedules:\n"
        "- {name: s1, cron: '* * * * * *', job: {shell: a}}\n"
        "- {name: s2, cron: '@every 5m', job: {shell: a}}\n"
        "- {name: s3, cron: 'H * * * *', job: {shell: a}}\n"
        "- {name: s4, cron: '* * * * *', exclude: '0 * * * *', job: {shell: a}}\n"
        "- {name: s5, cron: '* * * * *', start: 2026-01-01, job: {shell: a}}\n"
        "- {name: s6, cron: '* * * * *', max_runs: 3, job: {shell: a}}\n"
        "- {name: s7, cron: '* * * * *', jitter: 3s, job: {shell: a}}\n"
        "- {name: s8, cron: '* * * * *', dst: literal, job: {shell: a}}\n"
        "- {name: s9, cron: '* * * * *', day_match: and, job: {shell: a}}\n"
        "- {name: s10, cron: '* * * * *', job: {noop: true}}\n"
        "- {name: s11, cron: '* * * * *', job: {shell: \"a\\nb\"}}\n"
        "- {name: t1, cron: '* * * * *', job: {command: [/bin/echo, \"it's\", '%'], env: {A: b}}}\n"
        "- {name: t2, cron: '* * * * *', job: {shell: c, working_dir: /d d, env: {B: b}}}\n"
        "- {name: t3, cron: '* * * * *', job: {shell: d}}\n";
    struct result r;
    struct buf out;
    size_t left_out = 0;
    const char *text;

    (void) state;
    assert_int_equal(read_tab("", false, &r), 0);
    if (schedule_yaml_read("y", yaml, sizeof(yaml) - 1, &r.arena, &r.l, &r.why) != 0)
        fail_msg("%s", r.why.s);
    write_tab(&r, false, &out, &left_out);
    text = (const char *) out.data;
    assert_int_equal(left_out, 11);
    for (int i = 1; i <= 11; i++) {
        char want[64];

        (void) snprintf(want, sizeof(want), "# left out: s%d: ", i);
        assert_non_null(strstr(text, want));
    }
    /* t3 has no variable: it comes first, and needs none taken back. */
    assert_true(strstr(text, "# chronos: t3") < strstr(text, "A=b\n"));
    assert_non_null(strstr(text, "A=b\n# chronos: t1\n* * * * * /bin/echo 'it'\\''s' '\\%'\n"));
    /* A variable cannot be taken back by an assignment. */
    assert_non_null(strstr(text, "# chronos: t2\n* * * * * unset A; cd '/d d' && c\n"));
    buf_done(&out);
    done(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_assignments), cmocka_unit_test(test_user_column),
        cmocka_unit_test(test_percent),     cmocka_unit_test(test_names),
        cmocka_unit_test(test_refusals),    cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_left_out),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
