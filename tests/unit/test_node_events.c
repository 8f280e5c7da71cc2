/* The event ring: whole indices, cursors, compaction. */
#include "node_world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "node/replica_internal.h"

#define EVENTS_OF_INDEX(i) ((i) % 5 + 1)

/* Add the events of one index: as many as the index says. */
static void add(struct replica *r, uint64_t index) {
    struct fsm_event events[5];
    struct fsm_output out = {.events = events, .events_count = EVENTS_OF_INDEX(index)};

    for (size_t i = 0; i < out.events_count; i++)
        events[i] = (struct fsm_event){.job_seq = index * 10 + i, .worker_id = "w"};
    events_add(r, index, &out);
}

/* Goal: whatever the size asked for, a reader gets every event once, in order, and never a part of
 * an index. Method: the ring of a real replica fed by hand; every size from 1 to 12. */
static void test_whole_indices(void **state) {
    struct node_world w;
    struct replica *r;
    uint64_t start;

    (void) state;
    node_world_init(&w, 1);
    node_world_open(&w);
    r = w.nodes[0].replica;
    start = replica_events_oldest(r);
    for (uint64_t i = start + 1; i <= start + 300; i++)
        add(r, i);
    for (size_t max = 1; max <= 12; max++) {
        const struct replica_event *e = NULL;
        uint64_t cursor = start, next, expect = start + 1;
        size_t count;

        while (expect <= start + 300) {
            assert_int_equal(replica_events_read(r, cursor, &e, max, &count, &next), 0);
            assert_true(count > 0);
            assert_true(count <= MAX(max, 5UL));
            for (size_t i = 0; i < count; expect++) {
                for (size_t k = 0; k < EVENTS_OF_INDEX(expect); k++, i++) {
                    assert_true(i < count);
                    assert_int_equal(e[i].index, expect);
                    assert_int_equal(e[i].event.job_seq, expect * 10 + k);
                    assert_string_equal(e[i].event.worker_id, "w");
                }
            }
            cursor = expect - 1;
            if (expect <= start + 300)
                assert_int_equal(next, cursor);
        }
    }
    node_world_close(&w);
}

/* Goal: a reader that is too late is told, and where it may go on; the cursor given works. Method:
 * more events than the ring keeps. */
static void test_compacted(void **state) {
    const struct replica_event *e = NULL;
    struct node_world w;
    struct replica *r;
    uint64_t start, next;
    size_t count;

    (void) state;
    node_world_init(&w, 1);
    w.options.watch_events_max = 4096;
    node_world_open(&w);
    r = w.nodes[0].replica;
    start = replica_events_oldest(r);
    for (uint64_t i = start + 1; i <= start + 5000; i++)
        add(r, i);
    assert_true(replica_events_oldest(r) > start);
    assert_int_equal(replica_events_read(r, start, &e, 10, &count, &next), 1);
    assert_int_equal(count, 0);
    assert_int_equal(next, replica_events_oldest(r));
    assert_int_equal(replica_events_read(r, next, &e, 10, &count, &next), 0);
    assert_int_equal(e[0].index, replica_events_oldest(r) + 1);
    node_world_close(&w);
}

static void count_call(void *arg) {
    (*(unsigned *) arg)++;
}

/* Goal: listeners are told once a turn that brought events, and not after they left. Method: two
 * submits in one turn on a real node. */
static void test_listeners(void **state) {
    unsigned calls = 0;
    struct replica_listener l = {.on_events = count_call, .arg = &calls};
    struct node_world w;
    struct answer a, b;

    (void) state;
    (void) node_world_begin(&w, 1);
    replica_listen(w.nodes[0].replica, &l);
    assert_int_equal(node_world_submit(&w, 0, "", 0, MONO_NEVER, &a), 0);
    assert_int_equal(node_world_submit(&w, 0, "", 0, MONO_NEVER, &b), 0);
    node_world_settle(&w);
    assert_int_equal(calls, 1);
    replica_unlisten(w.nodes[0].replica, &l);
    assert_int_equal(node_world_submit(&w, 0, "", 0, MONO_NEVER, &a), 0);
    node_world_settle(&w);
    assert_int_equal(calls, 1);
    node_world_close(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole_indices),
        cmocka_unit_test(test_compacted),
        cmocka_unit_test(test_listeners),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
