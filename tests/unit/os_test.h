/* Helpers shared by the tests of os/: a scratch directory, and running a loop until a condition
 * holds or a deadline passes. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

#include "base/defs.h"

#define OS_TEST_DEADLINE_MS 20000

static inline void os_test_dir(char out[64]) {
    (void) snprintf(out, 64, "/tmp/chronos-os-XXXXXX");
    assert_non_null(mkdtemp(out));
}

static inline int os_test_rm(const char *path, const struct stat *st, int type, struct FTW *ftw) {
    (void) st;
    (void) type;
    (void) ftw;
    return remove(path);
}

static inline void os_test_rmdir(const char *dir) {
    assert_int_equal(nftw(dir, os_test_rm, 16, FTW_DEPTH | FTW_PHYS), 0);
}

static inline void os_test_tick(uv_timer_t *t) {
    (void) t; /* only wakes the loop so that the deadline is looked at */
}

/* Run @loop until *@flag is true; fails the test at the deadline. */
static inline void os_test_run_until(uv_loop_t *loop, bool (*cond)(void *arg), void *arg) {
    uint64_t end = uv_hrtime() + OS_TEST_DEADLINE_MS * 1000000ULL;
    uv_timer_t timer;

    assert_int_equal(uv_timer_init(loop, &timer), 0);
    assert_int_equal(uv_timer_start(&timer, os_test_tick, 10, 10), 0);
    while (!cond(arg)) {
        if (uv_hrtime() > end)
            fail_msg("condition not reached within %d ms", OS_TEST_DEADLINE_MS);
        (void) uv_run(loop, UV_RUN_ONCE);
    }
    uv_close((uv_handle_t *) &timer, NULL);
    (void) uv_run(loop, UV_RUN_NOWAIT);
}

/* Let all closing handles close; the loop must then be empty. */
static inline void os_test_loop_done(uv_loop_t *loop) {
    (void) uv_run(loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(loop), 0);
}
