/* What the command line shows: escaping, tables, times, JSON of messages, and when it repeats. */
#include "cli/json.h"
#include "cli/retry.h"
#include "cli/text.h"

#include "chronos/v1/job_service.pb-c.h"
#include "os/rpc_client.h"

#include <stdarg.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static void expect_escaped(const char *in, size_t len, bool one_line, const char *want) {
    /* Every split in two must give the same as the whole. */
    for (size_t cut = 0; cut <= len; cut++) {
        struct text_escape e = {0};
        struct buf b;

        buf_init(&b, 4096);
        assert_int_equal(text_escape(&e, in, cut, one_line, &b), 0);
        assert_int_equal(text_escape(&e, in + cut, len - cut, one_line, &b), 0);
        assert_int_equal(text_escape_end(&e, &b), 0);
        assert_int_equal(buf_append(&b, "", 1), 0);
        assert_string_equal((const char *) b.data, want);
        buf_done(&b);
    }
}

/* Goal: nothing reaches the terminal that could act on it (S18). Method: bytes and the text they
 * must become, at every split between two chunks. */
static void test_escape(void **state) {
    (void) state;
    expect_escaped("plain \xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80", 17, false,
                   "plain \xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80");
    expect_escaped("a\x1b[31mb", 7, false, "a\\x1b[31mb");
    expect_escaped("a\r\bb\x7f", 5, false, "a\\x0d\\x08b\\x7f");
    expect_escaped("l1\nl2\tx", 7, false, "l1\nl2\tx");
    expect_escaped("l1\nl2\tx", 7, true, "l1\\x0al2\\x09x");
    expect_escaped("\x00z", 2, false, "\\x00z");
    expect_escaped(
        "\xc2\x9b"
        "31m",
        5, false, "\\xc2\\x9b31m"); /* C1 CSI */
    expect_escaped(
        "\xe2\x80\xae"
        "x",
        4, false, "\\xe2\\x80\\xaex"); /* right-to-left override */
    expect_escaped("\xff\xfe", 2, false, "\\xff\\xfe");
    expect_escaped("\xe2\x82", 2, false, "\\xe2\\x82");          /* cut off at the end */
    expect_escaped("\xc0\xaf", 2, false, "\\xc0\\xaf");          /* overlong */
    expect_escaped("\xed\xa0\x80", 3, false, "\\xed\\xa0\\x80"); /* surrogate */
    expect_escaped("\xe2z", 2, false, "\\xe2z");
}

/* Goal: columns align, cells cannot break lines, long flexible cells are cut. */
static void test_table(void **state) {
    static const struct table_column columns[] = {
        {"N", TABLE_RIGHT, false}, {"NAME", TABLE_LEFT, true}, {"X", TABLE_LEFT, false}};
    char *text = NULL, longest[400];
    size_t len = 0;
    struct table t;
    FILE *f = open_memstream(&text, &len);

    (void) state;
    table_init(&t, columns, ARRAY_LEN(columns));
    assert_int_equal(table_add(&t, NULL, "%d", 7), 0);
    assert_int_equal(table_add(&t, "31", "a\nb"), 0);
    assert_int_equal(table_add(&t, NULL, "e"), 0);
    memset(longest, 'w', sizeof(longest));
    longest[sizeof(longest) - 1] = '\0';
    for (int row = 0; row < 100; row++) {
        assert_int_equal(table_add(&t, NULL, "%d", row), 0);
        assert_int_equal(table_add(&t, NULL, "%s", row == 5 ? longest : "\xc3\xa9"), 0);
        assert_int_equal(table_add(&t, NULL, "end"), 0);
    }
    table_print(&t, f);
    assert_int_equal(fclose(f), 0);
    assert_non_null(strstr(text, " N  NAME"));
    assert_non_null(strstr(text, "\n 7  a\\x0ab  "));
    assert_null(strstr(text, "\x1b")); /* not a terminal: no colour */
    assert_non_null(strstr(text, "www...  end\n"));
    assert_null(strstr(text, longest + TABLE_CELL_MAX - 1 - 199));
    assert_non_null(strstr(text, "\n99  \xc3\xa9 "));
    free(text);
    table_done(&t);
}

/* Goal: times as people write them. */
static void test_times(void **state) {
    char out[32];
    int64_t ms = 0;
    struct errtext why = {""};

    (void) state;
    assert_string_equal(text_time(0, out), "-");
    assert_string_equal(text_time(1782909296000, out), "2026-07-01 12:34:56");
    assert_string_equal(text_elapsed(850, out), "850ms");
    assert_string_equal(text_elapsed(12340, out), "12.3s");
    assert_string_equal(text_elapsed(245000, out), "4m05s");
    assert_string_equal(text_elapsed(12000000, out), "3h20m");
    assert_int_equal(text_parse_time("2026-07-01T12:34:56Z", 0, &ms, &why), 0);
    assert_int_equal(ms, 1782909296000);
    assert_int_equal(text_parse_time("2026-07-01", 0, &ms, &why), 0);
    assert_int_equal(ms, 1782864000000);
    assert_int_equal(text_parse_time("15m", 1782909296000, &ms, &why), 0);
    assert_int_equal(ms, 1782909296000 - 900000);
    assert_int_equal(text_parse_time("yesterday", 5, &ms, &why), 1);
    assert_int_equal(text_parse_time("2026-07-01x", 5, &ms, &why), 1);
}

/* Goal: a message as JSON holds every field by its .proto name. */
static void test_json(void **state) {
    Chronos__V1__Job job = CHRONOS__V1__JOB__INIT;
    Chronos__V1__JobSpec spec = CHRONOS__V1__JOB_SPEC__INIT;
    Chronos__V1__Command command = CHRONOS__V1__COMMAND__INIT;
    Chronos__V1__JobSpec__EnvEntry entry = CHRONOS__V1__JOB_SPEC__ENV_ENTRY__INIT;
    Chronos__V1__JobSpec__EnvEntry *env[] = {&entry};
    char *argv[] = {(char *) "echo", (char *) "\xff\"x"};
    uint8_t tail[] = {'h', 'i', 0, 0xff};
    char *text;
    json_t *o;

    (void) state;
    job.id = (char *) "j1";
    job.state = CHRONOS__V1__JOB_STATE__JOB_STATE_RUNNING;
    job.fencing_token = UINT64_MAX;
    job.exit_code = -3;
    job.output_tail = (ProtobufCBinaryData){.len = sizeof(tail), .data = tail};
    job.spec = &spec;
    spec.payload_case = CHRONOS__V1__JOB_SPEC__PAYLOAD_COMMAND;
    spec.command = &command;
    spec.env = env;
    spec.n_env = 1;
    entry.key = (char *) "K";
    entry.value = (char *) "V";
    command.argv = argv;
    command.n_argv = 2;
    o = json_from_message(&job.base);
    assert_non_null(o);
    assert_string_equal(json_string_value(json_object_get(o, "state")), "JOB_STATE_RUNNING");
    assert_string_equal(json_string_value(json_object_get(o, "fencing_token")),
                        "18446744073709551615");
    assert_int_equal(json_integer_value(json_object_get(o, "exit_code")), -3);
    assert_string_equal(json_string_value(json_object_get(o, "output_tail")), "aGkA/w==");
    assert_true(json_is_false(json_object_get(o, "cancel_requested")));
    assert_null(json_object_get(json_object_get(o, "spec"), "shell"));
    text = json_dumps(json_object_get(o, "spec"), JSON_COMPACT);
    assert_non_null(strstr(text, "\"argv\":[\"echo\",\"\xef\xbf\xbd\\\"x\"]"));
    assert_non_null(strstr(text, "\"env\":{\"K\":\"V\"}"));
    free(text);
    json_decref(o);
    o = json_text(tail, sizeof(tail));
    assert_string_equal(json_string_value(o), "hi\xe2\x90\x80\xef\xbf\xbd");
    json_decref(o);
}

/* Goal: only what is safe is repeated, inside the deadline, ever slower, with jitter. */
static void test_retry(void **state) {
    struct retry r = {.deadline = {.ns = 10 * NS_PER_S}, .rng = rng_seed(7)};
    struct retry_answer a = {.code = RPC_UNAVAILABLE};
    struct mono now = {.ns = 0};
    uint64_t delay = 99, longest = 0;

    (void) state;
    /* Three nodes: the first round costs no wait. */
    assert_true(retry_next(&r, now, &a, 3, &delay));
    assert_int_equal(delay, 0);
    assert_true(retry_next(&r, now, &a, 3, &delay));
    assert_int_equal(delay, 0);
    assert_true(retry_next(&r, now, &a, 3, &delay));
    assert_in_range(delay, RETRY_BASE_MS / 2, RETRY_BASE_MS);
    while (retry_next(&r, now, &a, 1, &delay)) {
        assert_in_range(delay, RETRY_BASE_MS / 2, RETRY_CAP_MS);
        longest = MAX(longest, delay);
        now = mono_add_ms(now, delay);
        assert_true(r.attempts < 1000);
    }
    assert_true(longest > RETRY_CAP_MS / 2);
    assert_in_range(now.ns, 8 * NS_PER_S, 10 * NS_PER_S);

    now = (struct mono){.ns = 0};
    a = (struct retry_answer){.code = RPC_DEADLINE_EXCEEDED};
    assert_false(retry_next(&r, now, &a, 1, &delay));
    a.repeatable = true;
    assert_true(retry_next(&r, now, &a, 1, &delay));
    /* An answer 50 ms before the end is the last one: its text stands. */
    r.attempts = 0;
    now = (struct mono){.ns = r.deadline.ns - 50 * NS_PER_MS};
    assert_false(retry_next(&r, now, &a, 3, &delay));
    now = (struct mono){.ns = r.deadline.ns - 500 * NS_PER_MS};
    assert_true(retry_next(&r, now, &a, 3, &delay));
    now = (struct mono){.ns = 0};
    a = (struct retry_answer){.code = RPC_RESOURCE_EXHAUSTED, .repeatable = true};
    assert_false(retry_next(&r, now, &a, 1, &delay));
    a.has_hint = true;
    a.retry_after_ms = 700;
    assert_true(retry_next(&r, now, &a, 3, &delay));
    assert_true(delay >= 700);
    for (uint32_t code = 1; code <= RPC_UNAUTHENTICATED; code++) {
        bool expected = code == RPC_UNAVAILABLE || code == RPC_DEADLINE_EXCEEDED;

        a = (struct retry_answer){.code = code, .repeatable = true};
        r.attempts = 0;
        assert_int_equal(retry_next(&r, now, &a, 1, &delay), expected);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_escape), cmocka_unit_test(test_table), cmocka_unit_test(test_times),
        cmocka_unit_test(test_json),   cmocka_unit_test(test_retry),
    };

    return cmocka_run_group_tests_name("cli_text", tests, NULL, NULL);
}
