/* Histories by hand. Goal: what is right and wrong about registers, keys, jobs and schedules is
 * judged as semantics.md says, with indices and without. Method: a text and its verdict; then the
 * text of each operation is printed and read again. */
#include "sim/linear.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

struct example {
    const char *what;
    bool holds;
    const char *text;
};

static const struct example examples[] = {
    {"nothing happened", true, "# nobody\n\n"},
    {"a read of what was set", true,
     "1 0 1 ok set register=x value=3\n1 2 3 ok read register=x value=3\n"},
    {"a read of what was never set", false,
     "1 0 1 ok set register=x value=3\n1 2 3 ok read register=x value=4\n"},
    {"an old value after the new one was answered", false,
     "1 0 1 ok set register=x value=1\n1 2 3 ok set register=x value=2\n2 4 5 ok read register=x "
     "value=1\n"},
    {"concurrent: either value", true,
     "1 0 9 ok set register=x value=1\n2 1 2 ok read register=x value=0\n2 3 4 ok read register=x "
     "value=1\n"},
    {"concurrent: but not back again", false,
     "1 0 9 ok set register=x value=1\n2 1 2 ok read register=x value=1\n2 3 4 ok read register=x "
     "value=0\n"},
    {"an unknown set may come late", true,
     "1 0 - unknown set register=x value=1\n2 5 6 ok read register=x value=0\n2 7 8 ok read "
     "register=x value=1\n"},
    {"an unknown set does not come and go", false,
     "1 0 - unknown set register=x value=1\n2 5 6 ok read register=x value=1\n2 7 8 ok read "
     "register=x value=0\n"},
    {"what failed had no effect", false,
     "1 0 1 fail set register=x value=1\n2 5 6 ok read register=x value=1\n"},
    {"a cas that must not have worked", false,
     "1 0 1 ok cas register=x expect=5 value=6 result=ok\n"},
    {"two cas of one value", false,
     "1 0 9 ok cas register=x expect=0 value=1 result=ok\n2 0 9 ok cas register=x expect=0 value=2 "
     "result=ok\n"},
    {"two cas of one value, one of them in vain", true,
     "1 0 9 ok cas register=x expect=0 value=1 result=ok\n2 0 9 ok cas register=x expect=0 value=2 "
     "result=mismatch\n"},
    {"registers have nothing to do with each other", true,
     "1 0 1 ok set register=x value=1\n1 2 3 ok read register=y value=0\n"},
    {"the index agrees", true,
     "1 0 1 ok set register=x value=1 index=5\n2 2 3 ok read register=x value=1 index=5\n"},
    {"a read placed before what was answered", false,
     "1 0 1 ok set register=x value=1 index=5\n2 2 3 ok read register=x value=0 index=4\n"},
    {"an entry below an answer that was there", false,
     "1 0 1 ok read register=y value=0 index=7\n2 2 3 ok set register=x value=1 index=7\n"},
    {"a read that does not show its index", false,
     "1 0 9 ok set register=x value=1 index=5\n2 0 9 ok read register=x value=0 index=6\n"},
    {"with an unknown one between, the index still orders", false,
     "1 0 - unknown set register=x value=9\n1 0 9 ok set register=x value=1 index=5\n2 0 9 ok set "
     "register=x value=2 index=6\n3 0 9 ok read register=x value=1 index=7\n"},
    {"an unknown one between explains it", true,
     "1 0 - unknown set register=x value=9\n1 0 9 ok set register=x value=1 index=5\n2 0 9 ok set "
     "register=x value=2 index=6\n3 0 9 ok read register=x value=9 index=7\n"},
    {"a stale read shows its own index", true,
     "1 0 1 ok set register=x value=1 index=5\n2 2 3 ok read register=x value=0 index=4 stale=1\n"},
    {"a stale read older than its client's token", false,
     "1 0 1 ok set register=x value=1 index=5\n1 2 3 ok read register=x value=0 index=4 stale=1 "
     "token=5\n"},
    {"a stale read that shows what is not at its index", false,
     "1 0 1 ok set register=x value=1 index=5\n2 2 3 ok read register=x value=1 index=4 stale=1\n"},
    {"a key names one job", true,
     "1 0 1 ok submit request=r key=k job=j1\n2 2 3 ok submit request=r key=k job=j1\n"},
    {"a key names two jobs", false,
     "1 0 1 ok submit request=r key=k job=j1\n2 2 3 ok submit request=r key=k job=j2\n"},
    {"another request under a key is refused", true,
     "1 0 1 ok submit request=r key=k job=j1\n2 2 3 ok submit request=s key=k result=conflict\n"},
    {"another request under a key is taken", false,
     "1 0 1 ok submit request=r key=k job=j1\n2 2 3 ok submit request=s key=k job=j1\n"},
    {"a conflict with nobody", false, "2 2 3 ok submit request=s key=k result=conflict\n"},
    {"a conflict with an unknown outcome", true,
     "1 0 - unknown submit request=r key=k\n2 2 3 ok submit request=s key=k result=conflict\n"},
    {"the unknown outcome was a job", true,
     "1 0 - unknown submit request=r key=k\n1 2 3 ok submit request=r key=k job=j1\n1 4 5 ok "
     "submit request=r key=k job=j1\n"},
    {"a job is there once it was answered", false,
     "1 0 1 ok submit request=r job=j1\n2 2 3 ok get job=j1 state=missing\n"},
    {"an id is given once", false,
     "1 0 1 ok submit request=r job=j1\n2 2 3 ok submit request=s job=j1\n"},
    {"a whole life", true,
     "1 0 1 ok submit request=r job=j1\n1 2 3 ok get job=j1 state=pending attempt=0 cancel=0\n"
     "1 4 5 ok get job=j1 state=running attempt=1 cancel=0\n1 6 7 ok get job=j1 state=pending "
     "attempt=1\n"
     "1 8 9 ok get job=j1 state=running attempt=2\n9 10 11 ok report job=j1 attempt=2 "
     "outcome=completed result=ok\n"
     "1 12 13 ok get job=j1 state=completed attempt=2 cancel=0\n"},
    {"an attempt that goes back", false,
     "1 0 1 ok submit request=r job=j1\n1 4 5 ok get job=j1 state=running attempt=2\n1 6 7 ok get "
     "job=j1 state=running attempt=1\n"},
    {"an end that is no end", false,
     "1 0 1 ok submit request=r job=j1\n1 4 5 ok get job=j1 state=completed attempt=1\n1 6 7 ok "
     "get job=j1 state=running attempt=2\n"},
    {"two ends", false,
     "1 0 1 ok submit request=r job=j1\n1 4 5 ok get job=j1 state=completed attempt=1\n1 6 7 ok "
     "get job=j1 state=failed attempt=1\n"},
    {"cancelled and never run", true,
     "1 0 1 ok submit request=r job=j1\n1 2 3 ok cancel job=j1 result=ok\n1 4 5 ok get job=j1 "
     "state=cancelled attempt=0 cancel=1\n"},
    {"a new attempt after the cancel", false,
     "1 0 1 ok submit request=r job=j1\n1 2 3 ok get job=j1 state=running attempt=1\n1 4 5 ok "
     "cancel job=j1 result=ok\n"
     "1 6 7 ok get job=j1 state=running attempt=1 cancel=1\n1 8 9 ok get job=j1 state=running "
     "attempt=2 cancel=1\n"},
    {"waits after the cancel", false,
     "1 0 1 ok submit request=r job=j1\n1 4 5 ok cancel job=j1 result=ok\n1 6 7 ok get job=j1 "
     "state=pending attempt=0\n"},
    {"cancelled although nobody asked", false,
     "1 0 1 ok submit request=r job=j1\n1 6 7 ok get job=j1 state=cancelled\n"},
    {"an unknown cancel may have worked", true,
     "1 0 1 ok submit request=r job=j1\n1 2 - unknown cancel job=j1\n2 6 7 ok get job=j1 "
     "state=cancelled\n"},
    {"the cancel came too late", true,
     "1 0 1 ok submit request=r job=j1\n1 2 3 ok cancel job=j1 result=ended\n2 6 7 ok get job=j1 "
     "state=failed attempt=1\n"},
    {"too late for a job that runs", false,
     "1 0 1 ok submit request=r job=j1\n1 2 3 ok cancel job=j1 result=ended\n2 6 7 ok get job=j1 "
     "state=running attempt=1\n"},
    {"a cancel that was tried twice", true,
     "1 0 1 ok submit request=r job=j1 index=3\n1 2 9 ok cancel job=j1 result=ended index=8\n2 3 4 "
     "ok "
     "get job=j1 state=cancelled cancel=1 attempt=0 index=6\n"},
    {"two results accepted", false,
     "1 0 1 ok submit request=r job=j1\n8 2 3 ok report job=j1 attempt=1 outcome=completed "
     "result=ok\n"
     "9 4 5 ok report job=j1 attempt=2 outcome=completed result=ok\n"},
    {"the same result twice", true,
     "1 0 1 ok submit request=r job=j1\n8 2 3 ok report job=j1 attempt=1 outcome=completed "
     "result=ok\n"
     "8 4 5 ok report job=j1 attempt=1 outcome=completed result=ok\n9 4 5 ok report job=j1 "
     "attempt=2 outcome=failed result=stale\n"},
    {"given back, then run again", true,
     "1 0 1 ok submit request=r job=j1\n8 2 3 ok report job=j1 attempt=1 outcome=released "
     "result=ok\n"
     "1 4 5 ok get job=j1 state=pending attempt=1\n1 6 7 ok get job=j1 state=running attempt=2\n"},
    {"an accepted result is lost", false,
     "1 0 1 ok submit request=r job=j1\n8 2 3 ok report job=j1 attempt=1 outcome=completed "
     "result=ok\n"
     "1 4 5 ok get job=j1 state=running attempt=1\n"},
    {"a schedule is made once", false,
     "1 0 1 ok put schedule=s create=1 result=ok\n2 2 3 ok put schedule=s create=1 result=ok\n"},
    {"two editors, one version", false,
     "1 0 1 ok put schedule=s create=1 result=ok version=1\n1 2 9 ok put schedule=s create=0 "
     "expect=1 result=ok version=2\n"
     "2 2 9 ok put schedule=s create=0 expect=1 result=ok version=2\n"},
    {"two editors, one of them told so", true,
     "1 0 1 ok put schedule=s create=1 result=ok version=1\n1 2 9 ok put schedule=s create=0 "
     "expect=1 result=ok version=2\n"
     "2 2 9 ok put schedule=s create=0 expect=1 result=mismatch\n3 10 11 ok show schedule=s "
     "result=ok version=2\n"},
    {"deleted and still there", false,
     "1 0 1 ok put schedule=s create=1 result=ok version=1\n1 2 3 ok drop schedule=s result=ok\n1 "
     "4 5 ok show schedule=s result=ok\n"},
    {"deleted and made anew", true,
     "1 0 1 ok put schedule=s create=1 result=ok version=1\n1 2 - unknown drop schedule=s\n"
     "2 4 5 ok put schedule=s create=1 result=ok version=7\n2 6 7 ok show schedule=s result=ok "
     "version=7\n"},
    {"a version that comes again", false,
     "1 0 1 ok put schedule=s create=1 result=ok version=4\n1 2 3 ok drop schedule=s result=ok\n"
     "2 4 5 ok put schedule=s create=1 result=ok version=4\n"},
    {"a job that an unknown submit makes late", true,
     "1 0 - unknown submit request=r\n2 1 2 ok get job=j1 state=missing\n2 3 4 ok get job=j1 "
     "state=running attempt=1\n"},
    {"a job that comes and goes", false,
     "1 0 - unknown submit request=r\n2 1 2 ok get job=j1 state=pending\n2 3 4 ok get job=j1 "
     "state=missing\n"},
    {"a job nobody submitted here may be in any state", true,
     "1 2 3 ok get job=j9 state=running attempt=3 cancel=1\n1 4 5 ok get job=j9 state=cancelled "
     "attempt=3 cancel=1\n"},
};

static void read_text(struct history *h, const char *text) {
    struct errtext why = {0};
    char line[512];
    uint32_t number = 0;

    while (*text) {
        size_t len = strcspn(text, "\n");

        assert_true(len < sizeof(line));
        memcpy(line, text, len);
        line[len] = '\0';
        if (history_parse_line(h, line, ++number, &why) != 0)
            fail_msg("%s", why.s);
        text += len + (text[len] == '\n');
    }
}

static void test_examples(void **state) {
    (void) state;
    assert_true(ARRAY_LEN(examples) >= 30);
    for (size_t i = 0; i < ARRAY_LEN(examples); i++) {
        struct linear_report report;
        struct history h;

        history_init(&h);
        read_text(&h, examples[i].text);
        assert_int_equal(linear_check_history(&h, NULL, &report), 0);
        if ((report.verdict == LINEAR_HOLDS) != examples[i].holds ||
            report.verdict == LINEAR_UNDECIDED)
            fail_msg("%s: verdict %d %s", examples[i].what, (int) report.verdict, report.why);
        history_done(&h);
    }
}

/* What is printed is read as the same operation. */
static void test_print(void **state) {
    (void) state;
    for (size_t i = 0; i < ARRAY_LEN(examples); i++) {
        struct errtext why = {0};
        struct history h, again;
        char first[512], second[512];

        history_init(&h);
        history_init(&again);
        read_text(&h, examples[i].text);
        for (size_t k = 0; k < h.count; k++) {
            assert_in_range(history_print(&h.ops[k], first, sizeof(first)), 10, 500);
            if (history_parse_line(&again, first, 1, &why) != 0)
                fail_msg("%s: %s", first, why.s);
            (void) history_print(&again.ops[k], second, sizeof(second));
            assert_string_equal(first, second);
        }
        history_done(&h);
        history_done(&again);
    }
}

/* What cannot be judged is refused, with the line and the word. */
static void test_refused(void **state) {
    static const char *const lines[] = {
        "1 0 1 ok",
        "x 0 1 ok read register=x value=1",
        "1 5 1 ok read register=x value=1",
        "1 0 - ok read register=x value=1",
        "1 0 1 maybe read register=x value=1",
        "1 0 1 ok look register=x",
        "1 0 1 ok read value=1",
        "1 0 1 ok read register=x value=one",
        "1 0 1 ok read register=x colour=1",
        "1 0 1 ok get job=j",
        "1 0 1 ok get job=j state=released",
        "1 0 1 ok get job=j state=running attempt=99999999999999999999",
        "1 0 1 ok submit job=j",
        "1 0 1 ok submit request=r",
        "1 0 1 ok submit request=r result=conflict",
        "1 0 1 ok cancel job=j",
        "1 0 1 ok cancel job=j result=taken",
        "1 0 1 ok report job=j attempt=1 outcome=pending result=ok",
        "1 0 1 ok put schedule=s create=2 result=ok",
        "1 0 1 ok get job= state=running",
    };
    struct history h;

    (void) state;
    history_init(&h);
    for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
        struct errtext why = {0};

        if (history_parse_line(&h, lines[i], 7, &why) != ERR_PROTO)
            fail_msg("taken: %s", lines[i]);
        assert_non_null(strstr(why.s, "line 7: "));
    }
    assert_int_equal(h.count, 0);
    history_done(&h);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_examples),
                                       cmocka_unit_test(test_print),
                                       cmocka_unit_test(test_refused)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
