/* Golden files of the state machine: entries as a release encoded them, the digests they yielded
 * then, and the records they left. A program that reads them otherwise would not agree with the
 * nodes beside it, or with its own past, so these files are never changed (docs/formats.md).
 *
 *   test_state_golden DIR     DIR/script.txt names the entries in order:
 *                             config|command FILE DIGEST ANSWER
 *                             DIR/records.bin is the state store after the last
 *
 * With CHRONOS_GOLDEN_REWRITE=1 it writes a new DIR for a new release instead. It overwrites
 * nothing: a file that exists is an error. */
#include "schedule_fixture.h"

#include "base/codec.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "records.h"

#define BODY(x) CHRONOS__INTERNAL__V1__LOG_COMMAND__BODY_##x
#define O(x) CHRONOS__V1__ATTEMPT_OUTCOME__ATTEMPT_OUTCOME_##x

/* By name: the numbers are of one program only. */
static const char *const answers[] = {
    [FSM_OK] = "ok",
    [FSM_EXISTING] = "existing",
    [FSM_KEY_CONFLICT] = "key_conflict",
    [FSM_NOT_FOUND] = "not_found",
    [FSM_TERMINAL] = "terminal",
    [FSM_NOT_PENDING] = "not_pending",
    [FSM_WORKER_GONE] = "worker_gone",
    [FSM_STALE] = "stale",
    [FSM_REFUSED] = "refused",
    [FSM_WORKER_DRAINING] = "worker_draining",
    [FSM_NAME_TAKEN] = "name_taken",
    [FSM_VERSION_MISMATCH] = "version_mismatch",
    [FSM_PARTIAL] = "partial",
};

static const char *dir; /* cmocka's tests take no argument of ours */

static const char *path_of(const char *name) {
    static char path[1024];

    (void) snprintf(path, sizeof(path), "%s/%s", dir, name);
    return path;
}

static FILE *open_file(const char *name, const char *mode) {
    FILE *f = fopen(path_of(name), mode);

    if (!f)
        fail_msg("%s: cannot be opened with \"%s\"", path_of(name), mode);
    return f;
}

static void digest_text(const struct fixture *x, char out[33]) {
    uint8_t digest[16];

    fsm_digest(x->f, digest);
    for (size_t i = 0; i < sizeof(digest); i++)
        (void) snprintf(out + 2 * i, 3, "%02x", digest[i]);
}

static const char *apply(struct fixture *x, bool is_config, struct bytes *b) {
    enum fsm_code code;

    if (is_config) {
        fixture_config(x, b);
        return "none";
    }
    code = fixture_do(x, b);
    assert_true((size_t) code < ARRAY_LEN(answers));
    return answers[code];
}

/* ---- reading -------------------- */

/* Goal: each entry is accepted, answers what it answered, and leaves the digest it left. */
static void test_script(void **state) {
    unsigned seen[COMMAND_BODY_MAX + 1] = {0};
    char line[512], kind[16], name[128], want[64], answer[32], got[33];
    FILE *script = open_file("script.txt", "r");
    struct fixture x;

    (void) state;
    fixture_init(&x, NULL);
    while (fgets(line, sizeof(line), script)) {
        struct bytes *b;
        bool is_config;

        if (line[0] == '#')
            continue;
        assert_int_equal(sscanf(line, "%15s %127s %63s %31s", kind, name, want, answer), 4);
        is_config = strcmp(kind, "config") == 0;
        b = file_read(path_of(name));
        if (!is_config) {
            struct command_view v;

            assert_int_equal(command_check(bytes_slice(b), &x.err), 0);
            assert_int_equal(command_parse(bytes_slice(b), &v, &x.err), 0);
            seen[v.kind]++;
        }
        assert_string_equal(apply(&x, is_config, b), answer);
        digest_text(&x, got);
        if (strcmp(got, want) != 0)
            fail_msg("%s: the digest is %s, it was %s", name, got, want);
    }
    (void) fclose(script);
    for (size_t i = BODY(SUBMIT_JOB); i <= COMMAND_BODY_MAX; i++)
        assert_true(seen[i] > 0);
    fsm_check_invariants(x.f);
    fixture_done(&x);
}

/* Goal: the records a release left are opened, with the digest it had at their index. */
static void test_records(void **state) {
    struct fixture x = {.now_ms = 1, .term = 1};
    char line[512], want[64] = "", got[33];
    FILE *script = open_file("script.txt", "r");

    (void) state;
    while (fgets(line, sizeof(line), script))
        if (line[0] != '#')
            assert_int_equal(sscanf(line, "%*s %*s %63s", want), 1);
    (void) fclose(script);
    assert_int_equal(kv_mem_new(0, &x.kv), 0);
    records_load(x.kv, path_of("records.bin"));
    fixture_reopen(&x);
    digest_text(&x, got);
    assert_string_equal(got, want); /* of the last entry */
    fsm_check_invariants(x.f);
    fixture_done(&x);
}

/* ---- writing -------------------- */

struct writer {
    struct fixture x;
    FILE *script;
    unsigned count;
};

/* Apply, and write the entry's file and its line. */
static void put(struct writer *w, const char *name, bool is_config, struct bytes *b) {
    char file[128], digest[33];
    const char *answer;
    FILE *f;

    (void) snprintf(file, sizeof(file), "%02u_%s.bin", ++w->count, name);
    f = open_file(file, "wbx");
    assert_int_equal(fwrite(b->data, 1, b->len, f), b->len);
    assert_int_equal(fclose(f), 0);
    answer = apply(&w->x, is_config, b);
    digest_text(&w->x, digest);
    (void) fprintf(w->script, "%s %s %s %s\n", is_config ? "config" : "command", file, digest,
                   answer);
}

static struct bytes *batch_update(uint64_t seq, uint64_t token) {
    Chronos__Internal__V1__LogCommand c = CHRONOS__INTERNAL__V1__LOG_COMMAND__INIT;
    Chronos__Internal__V1__BatchUpdateJobStatus body =
        CHRONOS__INTERNAL__V1__BATCH_UPDATE_JOB_STATUS__INIT;
    Chronos__Internal__V1__UpdateJobStatus item = CHRONOS__INTERNAL__V1__UPDATE_JOB_STATUS__INIT;
    Chronos__Internal__V1__UpdateJobStatus *items[] = {&item};
    char message[] = "exit code 3";

    item.job_seq = seq;
    item.fencing_token = token;
    item.outcome = O(FAILED);
    item.reason = CHRONOS__V1__FAILURE_REASON__FAILURE_REASON_EXIT_CODE;
    item.message = message;
    item.exit_code = 3;
    item.output_truncated = true;
    body.items = items;
    body.n_items = 1;
    c.body_case = BODY(BATCH_UPDATE_JOB_STATUS);
    c.batch_update_job_status = &body;
    return fixture_encode(&c, 1700000009000);
}

/* Two schedules: ticks of all kinds, a run that waits and starts, a pause, an edit, an end. */
static void write_schedules(struct writer *w) {
    static const struct tick_args ticks[] = {{1700000021, 1700000025, 5, R_(MISSED)},
                                             {1700000030, 0, 0, R_(CATCH_UP)},
                                             {1700000031, 0, 0, R_(ON_TIME)}};
    static const struct tick_args late = {1700000041, 0, 0, R_(FAILOVER)};
    static const int64_t past[] = {1600000000, 1600000060};
    struct put_args p = {.name = "nightly",
                         .key = "key-3",
                         .hash = "aaaa",
                         .overlap = P_(BUFFER_ALL),
                         .pause_on_failure = true,
                         .max_runs = 5};
    const int64_t t = 1700000020000;
    uint64_t made;

    put(w, "put_schedule", false, cmd_put_schedule(&p, t));
    made = w->x.out->results[0].version;
    p.key = NULL;
    put(w, "put_schedule_taken", false, cmd_put_schedule(&p, t));
    put(w, "process_ticks", false, cmd_ticks(1, 1, 1700000032, ticks, 3, t + 20000));
    put(w, "process_ticks_again", false, cmd_ticks(1, 1, 1700000032, ticks, 3, t + 20000));
    put(w, "cancel_run", false, cmd_cancel(6, t + 20500));
    put(w, "pause_schedule", false,
        cmd_pause_schedule("nightly", true, t + 100000, "by hand", t + 21000));
    put(w, "process_ticks_paused", false, cmd_ticks(1, 1, 1700000041, &late, 1, t + 22000));
    put(w, "pause_all", false, cmd_pause_schedule("", true, 0, "maintenance", t + 22500));
    put(w, "run_schedule", false,
        cmd_run_schedule("nightly", R_(BACKFILL), past, 2, false, "key-4", "bbbb", t + 23000));
    p.replace = true;
    p.new_generation = true;
    p.version = made;
    put(w, "put_schedule_edit", false, cmd_put_schedule(&p, t + 24000));
    put(w, "put_schedule_mismatch", false, cmd_put_schedule(&p, t + 24000));
    put(w, "set_schedule_alarm", false, cmd_schedule_alarm(1, "zone unreadable", t + 25000));
    p = (struct put_args){.name = "hourly", .overlap = P_(TERMINATE_OTHER)};
    put(w, "put_schedule_second", false, cmd_put_schedule(&p, t + 26000));
    made = w->x.out->results[0].version;
    put(w, "run_schedule_now", false,
        cmd_run_schedule("hourly", R_(TRIGGER), NULL, 0, false, NULL, NULL, t + 26000));
    put(w, "delete_schedule", false, cmd_delete_schedule("hourly", made, true, t + 27000));
}

static void write_entries(struct writer *w) {
    static const uint64_t three[] = {1, 2, 3}, two[] = {1, 3};
    const int64_t t = 1700000000000;
    uint64_t held[1][2] = {{3, 0}};

    put(w, "config_three", true, config_of(three, ARRAY_LEN(three)));
    put(w, "set_node", false, cmd_set_node(1, 0xd1, "10.0.0.1:7400", "10.0.0.1:7401", 1, t));
    put(w, "set_node_other_disk", false, cmd_set_node(1, 0xd2, "10.0.0.9:7400", "", 1, t));
    put(w, "register", false, cmd_register("worker-1", 7, 4, 1, NULL, 0, t + 1));
    put(w, "submit_keyed", false, cmd_submit("\x0a\x04true", "key-1", "0123456789abcdef", 2, t));
    put(w, "submit", false,
        cmd_submit("\x0a\x05"
                   "false",
                   "", "", 1, t + 2));
    put(w, "submit_third", false, cmd_submit("\x0a\x04idle", "", "", 0, t + 3));
    put(w, "submit_fourth", false, cmd_submit("\x0a\x04last", "key-2", "fedcba", 5, t + 3));
    put(w, "assign_1", false, cmd_assign(1, "worker-1", 7, t + 4));
    put(w, "update_completed", false, cmd_update(1, 9, O(COMPLETED), 0, t + 5));
    put(w, "assign_2", false, cmd_assign(2, "worker-1", 7, t + 6));
    put(w, "batch_failed", false, batch_update(2, 11));
    put(w, "assign_3", false, cmd_assign(3, "worker-1", 7, t + 7));
    put(w, "release", false, cmd_release(3, 13, true, t + 8));
    put(w, "assign_3_again", false, cmd_assign(3, "worker-1", 7, t + 9));
    held[0][1] = 15;
    put(w, "register_held", false,
        cmd_register("worker-1", 8, 2, 3, (const uint64_t(*)[2]) held, 1, t + 10));
    put(w, "drain_node", false, cmd_drain(3, "", true, 30000, t + 11));
    put(w, "assign_draining", false, cmd_assign(4, "worker-1", 8, t + 12));
    put(w, "drain_worker", false, cmd_drain(0, "worker-1", true, 10000, t + 13));
    put(w, "undrain_node", false, cmd_drain(3, "", false, 0, t + 14));
    put(w, "cancel", false, cmd_cancel(4, t + 15));
    put(w, "set_feature_level", false, cmd_set_feature_level(1, t + 16));
    put(w, "config_two", true, config_of(two, ARRAY_LEN(two)));
    put(w, "lose", false, cmd_lose("worker-1", 8, t + 17));
    put(w, "register_again", false, cmd_register("worker-2", 1, 1, 1, NULL, 0, t + 18));
    put(w, "assign_3_last", false, cmd_assign(3, "worker-2", 1, t + 19));
    write_schedules(w);
}

static void write_records(struct kv *kv) {
    FILE *f = open_file("records.bin", "wbx");
    struct kv_iter *it;

    assert_int_equal(kv->ops->iter_open(kv, &it), 0);
    for (it->ops->seek(it, slice_of("", 0)); it->ops->valid(it); it->ops->next(it)) {
        struct slice key = it->ops->key(it), value = it->ops->value(it);
        uint8_t head[8];

        put_le32(head, (uint32_t) key.len);
        put_le32(head + 4, (uint32_t) value.len);
        assert_int_equal(fwrite(head, 1, sizeof(head), f), sizeof(head));
        assert_int_equal(fwrite(key.data, 1, key.len, f), key.len);
        assert_int_equal(fwrite(value.data, 1, value.len, f), value.len);
    }
    it->ops->close(it);
    assert_int_equal(fclose(f), 0);
}

static void write_all(void **state) {
    struct writer w = {.count = 0};

    (void) state;
    w.script = open_file("script.txt", "wx");
    (void) fprintf(w.script,
                   "# Entries as they were encoded, the digest each left, what it answered. Never "
                   "changed.\n");
    fixture_init(&w.x, NULL);
    write_entries(&w);
    assert_int_equal(fclose(w.script), 0);
    fsm_check_invariants(w.x.f);
    assert_int_equal(fsm_write_back(w.x.f), 0);
    write_records(w.x.kv);
    fixture_done(&w.x);
}

int main(int argc, char **argv) {
    const struct CMUnitTest writing[] = {cmocka_unit_test(write_all)};
    const struct CMUnitTest reading[] = {
        cmocka_unit_test(test_script),
        cmocka_unit_test(test_records),
    };
    const char *rewrite = getenv("CHRONOS_GOLDEN_REWRITE");

    if (argc != 2) {
        (void) fprintf(stderr, "usage: %s DIR\n", argv[0]);
        return 2;
    }
    dir = argv[1];
    if (rewrite && strcmp(rewrite, "1") == 0)
        return cmocka_run_group_tests_name("state golden, writing", writing, NULL, NULL);
    return cmocka_run_group_tests_name("state golden", reading, NULL, NULL);
}
