/* Allocations that fail on demand, for the tests linked with --wrap=malloc and its family.
 * One test program includes this once. */
#pragma once

#include "base/defs.h"

void *__real_malloc(size_t n);
void *__real_calloc(size_t a, size_t b);
void *__real_realloc(void *p, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t a, size_t b);
void *__wrap_realloc(void *p, size_t n);

/* The n-th allocation from now fails (1 = the next); 0 = none. */
static size_t memory_fail_at;

static bool memory_out(void) {
    return memory_fail_at > 0 && --memory_fail_at == 0;
}

void *__wrap_malloc(size_t n) {
    return memory_out() ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t a, size_t b) {
    return memory_out() ? NULL : __real_calloc(a, b);
}

void *__wrap_realloc(void *p, size_t n) {
    return memory_out() ? NULL : __real_realloc(p, n);
}
