/* A scenario whose nth allocation fails, for n = 1, 2, ... until it passes untouched (ADR 0011).
 * For tests linked with LINK_OPTIONS ${nth_memory} (tests/CMakeLists.txt); one file of a test
 * program includes this. */
#pragma once

#include "base/defs.h"

#include <errno.h>
#include <stddef.h>

void *__real_malloc(size_t n);
void *__real_calloc(size_t a, size_t b);
void *__real_realloc(void *p, size_t n);
char *__real_strdup(const char *s);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t a, size_t b);
void *__wrap_realloc(void *p, size_t n);
char *__wrap_strdup(const char *s);

/* The linker gives the wrappers no context to carry this in. */
static long nth_memory_left; /* the allocation that fails; 0 = none */
static bool nth_memory_failed;

static bool nth_memory_out(void) {
    if (nth_memory_left == 0 || --nth_memory_left > 0)
        return false;
    nth_memory_failed = true;
    return true;
}

void *__wrap_malloc(size_t n) {
    return nth_memory_out() ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t a, size_t b) {
    return nth_memory_out() ? NULL : __real_calloc(a, b);
}

void *__wrap_realloc(void *p, size_t n) {
    return nth_memory_out() ? NULL : __real_realloc(p, n);
}

char *__wrap_strdup(const char *s) {
    return nth_memory_out() ? NULL : __real_strdup(s);
}

/* The code under test, between these two; what stands outside is the test's own memory. */
static void nth_memory_begin(long n) {
    nth_memory_failed = false;
    nth_memory_left = n;
}

static void nth_memory_end(void) {
    nth_memory_left = 0;
}

/* @scenario makes everything anew, calls what it tests and frees it; it returns 0, or the first
 * error, which must be -ENOMEM exactly when an allocation failed. What a function without an error
 * has to say (NULL) it returns as -ENOMEM. Returns the number of allocations, each failed once. */
_unused_ static long nth_memory_loop(int (*scenario)(void *arg), void *arg) {
    for (long n = 1;; n++) {
        int rc;

        nth_memory_begin(n);
        rc = scenario(arg);
        nth_memory_end();
        assert_int_equal(rc, nth_memory_failed ? -ENOMEM : 0);
        if (!nth_memory_failed) {
            print_message("%ld allocations\n", n - 1);
            return n - 1;
        }
    }
}
