#include "fsm_script.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define O(x) CHRONOS__V1__ATTEMPT_OUTCOME__ATTEMPT_OUTCOME_##x

static void add(struct fsm_script *s, struct bytes *b) {
    assert_true(s->count < ARRAY_LEN(s->commands));
    s->commands[s->count++] = b;
}

static void add_config(struct fsm_script *s, struct bytes *b) {
    s->is_config[s->count] = true;
    add(s, b);
}

int fsm_script_apply(struct fsm *f, const struct fsm_script *s, size_t i, struct errtext *e) {
    const struct fsm_output *out;

    if (s->is_config[i])
        return fsm_apply_config(f, i + 1, 1, bytes_slice(s->commands[i]), &out, e);
    return fsm_apply(f, i + 1, 1, bytes_slice(s->commands[i]), &out, e);
}

/* Members come and go, say where they are, and drain; so do workers. */
static void add_cluster(struct fsm_script *s) {
    static const uint64_t one[] = {1}, three[] = {1, 2, 3}, two[] = {1, 3};

    add_config(s, config_of(one, 1));
    add(s, cmd_set_node(1, 0xd1, "a:1", "a:2", 2, 1000));
    add_config(s, config_of(three, 3));
    add(s, cmd_set_node(2, 0xd2, "b:1", "b:2", 2, 1000));
    add(s, cmd_set_node(3, 0xd3, "c:1", "c:2", 2, 1000));
    add(s, cmd_set_feature_level(2, 1000));
    add(s, cmd_drain(1, "", true, 500, 1000));
    add(s, cmd_drain(0, "w1", true, 900, 1000));
    add(s, cmd_drain(1, "", false, 0, 1000));
    add_config(s, config_of(two, 2));
    add(s, cmd_drain(0, "w1", false, 0, 1000));
}

/* Schedules are made, fire, wait, are paused, edited, run by hand and deleted. Two schedules; no
 * job of theirs gets a worker. */
static void add_schedules(struct fsm_script *s) {
    static const struct tick_args ticks[] = {
        {2, 3, 2, R_(MISSED)}, {4, 0, 0, R_(CATCH_UP)}, {5, 0, 0, R_(ON_TIME)}};
    static const int64_t past[] = {1, 2};
    struct put_args p = {.name = "a", .key = "ka", .hash = "h", .overlap = P_(BUFFER_ALL)};

    add(s, cmd_put_schedule(&p, 500));
    add(s, cmd_put_schedule(&p, 500));
    add(s, cmd_ticks(1, 1, 5, ticks, 3, 5000));
    add(s, cmd_pause_schedule("a", true, 0, "why", 5000));
    add(s, cmd_pause_schedule("", true, 900000, "all", 5000));
    add(s, cmd_pause_schedule("", false, 0, "", 5000));
    add(s, cmd_schedule_alarm(1, "no zone", 5000));
    add(s, cmd_run_schedule("a", R_(BACKFILL), past, 2, true, "kr", "h", 5000));
    add(s, cmd_cancel(FSM_SCRIPT_LIVES + 2, 5000));
    p = (struct put_args){.name = "a", .replace = true, .new_generation = true};
    add(s, cmd_put_schedule(&p, 6000));
    p = (struct put_args){.name = "b", .overlap = P_(CANCEL_OTHER), .paused = true};
    add(s, cmd_put_schedule(&p, 6000));
    add(s, cmd_run_schedule("b", R_(TRIGGER), NULL, 0, false, NULL, NULL, 6000));
    add(s, cmd_run_schedule("b", R_(TRIGGER), NULL, 0, false, NULL, NULL, 7000));
    add(s, cmd_delete_schedule("b", 0, true, 7000));
}

/* Registrations, keyed submits, assignments, reports of all kinds, losses, expiry. */
void fsm_script_make(struct fsm_script *s) {
    static const uint64_t held[1][2] = {{1, 12}};
    uint64_t index;

    add(s, cmd_register("w1", 1, 100, 1, NULL, 0, 1000));
    for (int i = 0; i < FSM_SCRIPT_LIVES; i++) {
        char key[8] = {'k', (char) ('0' + i), 0};

        add(s, cmd_submit("spec", key, "h", 2, 1000));
    }
    for (uint64_t i = 1; i <= FSM_SCRIPT_LIVES; i++)
        add(s, cmd_assign(i, "w1", 1, 1000));
    index = 1 + FSM_SCRIPT_LIVES;
    add(s, cmd_update(1, index + 1, O(COMPLETED), 0, 1000));
    add(s, cmd_update(2, index + 2, O(FAILED), 1, 1000));
    add(s, cmd_update(3, index + 3, O(RELEASED), 0, 1000));
    add(s, cmd_update(1, index + 1, O(COMPLETED), 0, 1000));
    add(s, cmd_cancel(4, 1000));
    add(s, cmd_cancel(3, 1000));
    add(s, cmd_register("w1", 2, 50, 1, held, 1, 1000));
    add(s, cmd_register("w2", 1, 4, 1, NULL, 0, 1000));
    add_cluster(s);
    add_schedules(s);
    add(s, cmd_drain(0, "w2", true, 900, 1000));
    add(s, cmd_register("w2", 2, 4, 3, NULL, 0, 1000));
    add(s, cmd_lose("w1", 2, 2000));
    add(s, cmd_submit("again", "k0", "h", 2, 1000 + 2 * FSM_IDEMPOTENCY_KEEP_MS));
}

void fsm_script_done(struct fsm_script *s) {
    for (size_t i = 0; i < s->count; i++)
        (void) bytes_unref(s->commands[i]);
    s->count = 0;
}
