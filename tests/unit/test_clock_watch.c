#include "os/clock_watch.h"

#include "os_test.h"

#include <errno.h>
#include <sys/timex.h>

static bool is_set(void *arg) {
    return *(bool *) arg;
}

static void on_changed(void *arg) {
    *(bool *) arg = true;
}

static bool closed_flag;

static void on_closed(struct clock_watch *w) {
    assert_int_equal(w->fd, -1);
    closed_flag = true;
}

/* Goal: the callback comes at once when the wall clock is set, again the next time, and not before.
 * Method: move the real clock by a nanosecond, and back the second time; where that is not allowed,
 * say so. */
static void test_told(void **state) {
    struct clock_watch w;
    uv_loop_t loop;
    bool changed = false;

    (void) state;
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(clock_watch_init(&loop, &w, on_changed, &changed), 0);
    (void) uv_run(&loop, UV_RUN_NOWAIT);
    assert_false(changed);
    for (int i = 0; i < 2; i++) {
        struct timex by = {.modes = ADJ_SETOFFSET | ADJ_NANO, .time = {.tv_usec = 1}};

        if (i == 1)
            by.time = (struct timeval){.tv_sec = -1, .tv_usec = 999999999};
        if (adjtimex(&by) < 0) {
            assert_int_equal(errno, EPERM);
            print_message("the clock may not be set here: only opening and closing are tested\n");
            break;
        }
        os_test_run_until(&loop, is_set, &changed);
        changed = false;
        (void) uv_run(&loop, UV_RUN_NOWAIT);
        assert_false(changed);
    }
    clock_watch_close(&w, on_closed);
    os_test_run_until(&loop, is_set, &closed_flag);
    os_test_loop_done(&loop);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_told)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
