#include "node_snapshot_fixture.h"

#include "base/rand.h"
#include "node/replica_internal.h"

#include "chronos/v1/cluster_service.pb-c.h"
#include "chronos/v1/schedule.pb-c.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "log_commands.h"

#define WALL0 1700000000000LL /* of node_world at 0 ns */

static struct node_world w;

static int64_t wall_s(void) {
    return (WALL0 + (int64_t) (w.now_ns / NS_PER_MS)) / 1000;
}

static bool is_cut_off(unsigned slot) {
    unsigned cut = 0;

    for (unsigned i = 0; i < w.count; i++)
        cut += w.cut[slot][i] ? 1 : 0;
    return cut > 0 && cut + 1 == w.count;
}

static unsigned leader(void) {
    for (int tries = 0; tries < 2000; tries++) {
        for (unsigned i = 0; i < w.count; i++)
            if (!w.nodes[i].down && !is_cut_off(i) &&
                raft_role(replica_raft(w.nodes[i].replica)) == RAFT_LEADER &&
                raft_leader_ready(replica_raft(w.nodes[i].replica)))
                return i;
        node_world_run(&w, 10);
    }
    fail_msg("no leader after 20 s");
    return 0;
}

/* ---- commands ---------------------------------------------------------------------------------
 */

static void propose(unsigned slot, const Chronos__Internal__V1__LogCommand *cmd) {
    struct answer a;

    assert_int_equal(
        node_world_propose(&w, slot, log_command(cmd), 0, node_world_in_ms(&w, 20000), &a), 0);
    for (int i = 0; i < 2000 && a.count == 0; i++)
        node_world_run(&w, 10);
    assert_int_equal(a.count, 1);
    assert_int_equal(a.status, REPLICA_OK);
    assert_int_equal(a.code, FSM_OK);
}

static void put(const char *name, const char *cron, const char *zone, bool replace) {
    Chronos__Internal__V1__LogCommand cmd = CHRONOS__INTERNAL__V1__LOG_COMMAND__INIT;
    Chronos__Internal__V1__PutSchedule body = CHRONOS__INTERNAL__V1__PUT_SCHEDULE__INIT;
    Chronos__V1__ScheduleSpec spec = CHRONOS__V1__SCHEDULE_SPEC__INIT;
    uint8_t packed[512];
    char *texts[] = {(char *) (uintptr_t) cron};

    spec.name = (char *) (uintptr_t) name;
    spec.cron = texts;
    spec.n_cron = 1;
    spec.time_zone = (char *) (uintptr_t) zone;
    body.name = spec.name;
    body.spec.data = packed;
    body.spec.len = chronos__v1__schedule_spec__pack(&spec, packed);
    body.job.data = packed;
    body.job.len = 1;
    body.create = !replace;
    body.new_generation = replace;
    body.max_attempts = 1;
    body.overlap = CHRONOS__V1__OVERLAP_POLICY__OVERLAP_POLICY_ALLOW;
    cmd.body_case = CHRONOS__INTERNAL__V1__LOG_COMMAND__BODY_PUT_SCHEDULE;
    cmd.put_schedule = &body;
    propose(leader(), &cmd);
}

/* ---- what was recorded ------------------------------------------------------------------------
 */

struct line {
    int64_t tick_s, last_s, decided_ms;
    uint64_t count, generation;
    Chronos__V1__TickReason reason;
    bool fired;
};

static Chronos__Internal__V1__ScheduleRecord *record(unsigned slot, const char *name,
                                                     struct arena *arena) {
    struct fsm *f = replica_fsm(w.nodes[slot].replica);
    const struct fsm_schedule *s = NULL;
    Chronos__Internal__V1__ScheduleRecord *rec = NULL;

    assert_int_equal(fsm_schedule_find(f, slice_of(name, strlen(name)), &s), 0);
    assert_int_equal(fsm_read_schedule(f, s->seq, arena, &rec), 0);
    return rec;
}

/* All lines of a schedule; at most 100 are kept. */
static size_t history(unsigned slot, const char *name, struct line lines[100]) {
    struct fsm *f = replica_fsm(w.nodes[slot].replica);
    Chronos__Internal__V1__ScheduleRecord *rec;
    struct arena arena;
    size_t n = 0;

    arena_init(&arena, 1 << 20);
    rec = record(slot, name, &arena);
    for (uint64_t i = rec->first_ordinal; i < rec->next_ordinal; i++) {
        Chronos__Internal__V1__TickRecord *t = NULL;

        assert_int_equal(fsm_read_tick(f, rec->seq, i, &arena, &t), 0);
        assert_true(n < 100);
        lines[n++] = (struct line){.tick_s = t->tick_s,
                                   .last_s = t->last_tick_s ? t->last_tick_s : t->tick_s,
                                   .decided_ms = t->decided_at_ms,
                                   .count = t->count ? t->count : 1,
                                   .generation = t->generation,
                                   .reason = t->reason,
                                   .fired = t->fired};
    }
    arena_done(&arena);
    return n;
}

static void open_world(unsigned nodes) {
    node_world_init(&w, nodes);
    for (unsigned i = 0; i < nodes; i++)
        w.nodes[i].zones[0].rule = FAKE_BERLIN;
    node_world_open(&w);
    (void) node_world_lead(&w);
}

/* ---- tests ------------------------------------------------------------------------------------
 */

/* Goal: a quiet cluster fires each tick at its time; the followers know what the leader knows, the
 * status tells schedules, time zones and lateness. */
static void on_status(void *arg, enum replica_status status, struct slice bytes) {
    Chronos__V1__GetClusterStatusResponse **ret = arg;

    assert_int_equal(status, REPLICA_OK);
    *ret = chronos__v1__get_cluster_status_response__unpack(NULL, bytes.len, bytes.data);
}

static void test_quiet(void **state) {
    Chronos__V1__GetClusterStatusResponse *s = NULL;
    struct line lines[100];
    size_t n;

    (void) state;
    open_world(3);
    put("a", "@every 5s", "", false);
    node_world_run(&w, 60500);
    for (unsigned i = 0; i < 3; i++) {
        n = history(i, "a", lines);
        assert_true(n >= 11 && n <= 13);
        for (size_t k = 0; k < n; k++) {
            assert_true(lines[k].fired && lines[k].count == 1);
            assert_int_equal(lines[k].reason, CHRONOS__V1__TICK_REASON__TICK_REASON_ON_TIME);
            assert_true(lines[k].decided_ms >= lines[k].tick_s * 1000);
            assert_true(lines[k].decided_ms <= lines[k].tick_s * 1000 + 5);
            if (k > 0)
                assert_int_equal(lines[k].tick_s, lines[k - 1].tick_s + 5);
        }
    }
    assert_int_equal(replica_cluster_status(w.nodes[leader()].replica, true,
                                            node_world_in_ms(&w, 1000), on_status, &s),
                     0);
    assert_non_null(s);
    assert_int_equal(s->schedules, 1);
    assert_string_equal(s->tzdata_version, "2026z");
    assert_int_equal(s->n_lateness, 1);
    assert_string_equal(s->lateness[0]->cause, "on time");
    assert_int_equal(s->lateness[0]->count, n);
    assert_true(s->lateness[0]->max_ms <= 5);
    chronos__v1__get_cluster_status_response__free_unpacked(s, NULL);
    node_world_close(&w);
}

/* Each tick of "@every @every_s" from the first line on has exactly one line, none early. */
static void check_gapless(const struct line *lines, size_t n, int64_t every_s) {
    for (size_t k = 0; k < n; k++) {
        assert_int_equal(lines[k].tick_s % every_s, 0);
        assert_int_equal(lines[k].last_s - lines[k].tick_s,
                         (int64_t) (lines[k].count - 1) * every_s);
        if (k > 0)
            assert_int_equal(lines[k].tick_s, lines[k - 1].last_s + every_s);
    }
}

/* Goal: leaders are cut off again and again: every tick has one outcome, none twice, none before
 * its time (J4-J7); the job counter says the same.
 * Method: random times from a seed; the record is checked tick by tick on every node. */
static void test_leader_changes(void **state) {
    const char *one = getenv("SEED");
    uint64_t seed = one ? strtoull(one, NULL, 10) : (uint64_t) time(NULL);
    struct rng rng = rng_seed(seed);
    struct line lines[100];
    uint64_t fired = 0, failovers = 0;
    int64_t begin, latest = 0;
    char name[16];

    (void) state;
    print_message("seed %llu (SEED=n replays it)\n", (unsigned long long) seed);
    open_world(3);
    for (int i = 0; i < 20; i++) {
        (void) snprintf(name, sizeof(name), "s%d", i);
        put(name, i % 2 ? "@every 1s" : "*/2 * * * * *", "", false);
    }
    begin = wall_s();
    for (int round = 0; round < 12; round++) {
        unsigned slot = leader();

        node_world_run(&w, rng_below(&rng, 4000));
        for (unsigned i = 0; i < 3; i++)
            if (i == slot || round % 4 == 3) /* now and then nobody can lead */
                node_world_cut_off(&w, i, true);
        node_world_run(&w, round % 4 == 3 ? 3500 : 1000 + rng_below(&rng, 2000));
        for (unsigned i = 0; i < 3; i++)
            node_world_cut_off(&w, i, false);
    }
    (void) leader();
    node_world_run(&w, 8000);
    for (int i = 0; i < 20; i++) {
        size_t n;

        (void) snprintf(name, sizeof(name), "s%d", i);
        n = history(0, name, lines);
        check_gapless(lines, n, i % 2 ? 1 : 2);
        assert_true(lines[0].tick_s <= begin + 3);
        assert_true(lines[n - 1].last_s + 3 >= wall_s());
        for (size_t k = 0; k < n; k++) {
            assert_true(lines[k].decided_ms >= lines[k].tick_s * 1000);
            fired += lines[k].fired ? 1 : 0;
            failovers += lines[k].reason == CHRONOS__V1__TICK_REASON__TICK_REASON_FAILOVER ? 1 : 0;
            if (lines[k].fired)
                latest = MAX(latest, lines[k].decided_ms - lines[k].tick_s * 1000);
        }
        for (unsigned slot = 1; slot < 3; slot++)
            assert_int_equal(history(slot, name, lines), n);
    }
    print_message("%llu fired, %llu of them late by a failover, the latest by %lld ms\n",
                  (unsigned long long) fired, (unsigned long long) failovers, (long long) latest);
    assert_int_equal(
        fsm_jobs_count(replica_fsm(w.nodes[0].replica), CHRONOS__V1__JOB_STATE__JOB_STATE_PENDING),
        fired);
    for (unsigned slot = 0; slot < 3; slot++)
        fsm_check_invariants(replica_fsm(w.nodes[slot].replica));
    node_world_close(&w);
}

static bool has_alarm(unsigned slot, const char *text) {
    Chronos__V1__GetClusterStatusResponse *s = NULL;
    bool found = false;

    assert_int_equal(replica_cluster_status(w.nodes[slot].replica, true, node_world_in_ms(&w, 1000),
                                            on_status, &s),
                     0);
    for (size_t i = 0; i < s->n_alarms; i++)
        found = found || strstr(s->alarms[i], text);
    chronos__v1__get_cluster_status_response__free_unpacked(s, NULL);
    return found;
}

/* Goal: the leader's clock steps an hour forward and back again: no tick twice, none lost, an alarm
 * that says so and ends. Method: one node; the clock is set by hand. */
static void test_clock_steps(void **state) {
    struct line lines[100];
    size_t n, before;

    (void) state;
    open_world(1);
    put("a", "@every 60s", "", false);
    node_world_run(&w, 130000);
    before = history(0, "a", lines);
    assert_true(before == 2 || before == 3);
    assert_false(has_alarm(0, "clock_suspect"));

    w.nodes[0].wall_off_ms = 3600000;
    replica_on_clock_changed(w.nodes[0].replica);
    node_world_run(&w, 10);
    assert_true(has_alarm(0, "clock_suspect: the clock was set 3600.000 s forward"));
    node_world_run(&w, 1500);
    n = history(0, "a", lines); /* the hour was missed: one runs, the others are recorded */
    assert_true(n > before);
    check_gapless(lines, n, 60);
    assert_int_equal(lines[n - 1].reason, CHRONOS__V1__TICK_REASON__TICK_REASON_CATCH_UP);

    w.nodes[0].wall_off_ms = 0; /* nobody tells: noticed within a second or so */
    node_world_run(&w, 1500);
    assert_true(has_alarm(0, "clock_suspect: the clock was set 3600.000 s back"));
    node_world_run(&w, 3500000);
    assert_int_equal(history(0, "a", lines), n);
    assert_false(has_alarm(0, "clock_suspect"));
    node_world_run(&w, 300000);
    n = history(0, "a", lines);
    check_gapless(lines, n, 60);
    assert_int_equal(lines[n - 1].reason, CHRONOS__V1__TICK_REASON__TICK_REASON_ON_TIME);
    assert_true(lines[n - 1].tick_s + 60 > wall_s());
    node_world_close(&w);
}

static char *alarm_of(const char *name, struct arena *arena) {
    return record(leader(), name, arena)->alarm;
}

/* Goal: a zone file that vanishes is an alarm on its schedules only; others fire, the leader leads
 * on; when the file is back, they fire again and the alarm is gone. */
static void test_zone_missing(void **state) {
    struct line lines[100];
    struct arena arena;
    size_t before, n;

    (void) state;
    arena_init(&arena, 1 << 20);
    open_world(3);
    put("berlin", "*/10 * * * * *", "Europe/Berlin", false);
    put("utc", "*/10 * * * * *", "", false);
    node_world_run(&w, 30000);
    before = history(0, "berlin", lines);
    assert_true(before >= 2);
    assert_string_equal(alarm_of("berlin", &arena), "");

    for (unsigned i = 0; i < 3; i++)
        w.nodes[i].zones[0].rule = NULL;
    node_world_run(&w, 61000);
    assert_non_null(strstr(alarm_of("berlin", &arena), "time zone Europe/Berlin: no such file"));
    assert_string_equal(alarm_of("utc", &arena), "");
    before = history(0, "berlin", lines);
    node_world_run(&w, 60000);
    assert_int_equal(history(0, "berlin", lines), before);
    assert_true(history(0, "utc", lines) >= 14);

    for (unsigned i = 0; i < 3; i++) {
        w.nodes[i].zones[0].rule = FAKE_BERLIN;
        w.nodes[i].zones[0].replaced++;
    }
    node_world_run(&w, 61000);
    assert_string_equal(alarm_of("berlin", &arena), "");
    node_world_run(&w, 20000);
    n = history(0, "berlin", lines);
    check_gapless(lines, n, 10); /* the missed ones are recorded */
    assert_int_equal(lines[n - 1].reason, CHRONOS__V1__TICK_REASON__TICK_REASON_ON_TIME);

    /* A zone that this cluster never had: the command was checked elsewhere. */
    put("mars", "*/10 * * * * *", "Mars/Olympus", false);
    node_world_run(&w, 1000);
    assert_non_null(strstr(alarm_of("mars", &arena), "Mars/Olympus"));
    node_world_close(&w);
    arena_done(&arena);
}

/* Goal: a node that starts again over its state has its schedules: the one that was in the state
 * store, the one that is only in the log, and not the one that was deleted; edits hold.
 * Method: one node, a crash that keeps the log. */
static void test_restart(void **state) {
    struct line lines[100];
    size_t n;

    (void) state;
    open_world(1);
    put("stored", "@every 10s", "", false);
    node_world_run(&w, 25000);
    replica_snapshot_now(w.nodes[0].replica);
    node_world_run(&w, 1000);
    put("logged", "@every 10s", "", false);
    put("stored", "@every 7s", "", true);
    node_world_run(&w, 15000);
    node_world_crash(&w, 0, SIM_DISK_KEEP_NONE, 0);
    w.now_ns += 30 * NS_PER_S;
    node_world_restart(&w, 0);
    (void) node_world_lead(&w);
    node_world_run(&w, 30000);
    n = history(0, "logged", lines);
    check_gapless(lines, n, 10);
    assert_true(lines[n - 1].tick_s + 10 > wall_s());
    assert_int_equal(lines[n - 1].reason, CHRONOS__V1__TICK_REASON__TICK_REASON_ON_TIME);
    n = history(0, "stored", lines);
    for (size_t k = 0; k < n; k++)
        assert_int_equal(lines[k].tick_s % (lines[k].generation == 1 ? 10 : 7), 0);
    assert_int_equal(lines[0].generation, 1);
    assert_true(lines[n - 1].generation > 1);
    assert_true(lines[n - 1].tick_s + 7 > wall_s());
    node_world_close(&w);
}

/* Goal: a node whose state is replaced by a snapshot has the schedules in it: it can lead at once
 * and goes on where the watermark stands. Method: a follower that fell behind the log. */
static void test_install(void **state) {
    struct ticker_stats st;
    struct line lines[100];
    struct lag l;
    size_t n;

    (void) state;
    lag_begin(&l, &w, 200);
    put("a", "@every 2s", "", false);
    put("b", "0 0 1 1 *", "", false);
    submit_jobs(&w, l.leader, 200, 100); /* and the log is cut behind them */
    node_world_run(&w, 3000);
    ticker_stats(w.nodes[l.follower].replica->ticks.ticker, &st);
    assert_int_equal(st.schedules, 0);
    lag_heal(&l);
    lag_wait_equal(&l);
    assert_true(w.nodes[l.follower].replica->snapshots.installed > 0);
    ticker_stats(w.nodes[l.follower].replica->ticks.ticker, &st);
    assert_int_equal(st.schedules, 2);
    replica_transfer_leadership(w.nodes[leader()].replica, l.follower + 1);
    node_world_run(&w, 1000);
    assert_int_equal(leader(), l.follower);
    node_world_run(&w, 10000);
    n = history(l.follower, "a", lines);
    check_gapless(lines, n, 2);
    assert_true(lines[n - 1].tick_s + 2 >= wall_s());
    node_world_close(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_quiet),       cmocka_unit_test(test_leader_changes),
        cmocka_unit_test(test_clock_steps), cmocka_unit_test(test_zone_missing),
        cmocka_unit_test(test_restart),     cmocka_unit_test(test_install),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
