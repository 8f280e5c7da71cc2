/* Small language helpers that every file may use.
 *
 * What it is: attributes, ownership transfer, always-on assertions, array and integer helpers.
 * What it is not: a place for anything that allocates, does I/O or knows a domain word.
 * Thread: any; nothing here has state. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The caller must look at the result (errors are values here, see docs/ARCHITECTURE.md). */
#define _must_check_ __attribute__((warn_unused_result))
#define _printf_(fmt, first) __attribute__((format(printf, fmt, first)))
#define _unused_ __attribute__((unused))
#define _noreturn_ __attribute__((noreturn))
#define _cold_ __attribute__((cold))

/* Run @fn on the variable's address when it leaves scope. */
#define _cleanup_(fn) __attribute__((cleanup(fn)))

/* Define name##p(T **) for use with _cleanup_, calling a destructor that accepts NULL. */
#define DEFINE_CLEANUP(type, fn)                                                                   \
    static inline void fn##p(type *p) {                                                            \
        if (*p)                                                                                    \
            (void) fn(*p);                                                                         \
    }                                                                                              \
    struct chronos_cleanup_semicolon_##fn

/* Move an owned pointer out of a variable, leaving NULL. The one statement expression we allow. */
#define TAKE_PTR(p)                                                                                \
    __extension__({                                                                                \
        __typeof__(p) *take_ptr_ = &(p);                                                           \
        __typeof__(p) taken_ = *take_ptr_;                                                         \
        *take_ptr_ = NULL;                                                                         \
        taken_;                                                                                    \
    })

/* Assertions are on in every build: a broken invariant stops the process before it can spread
 * (reliability.md W21). Programmer errors only; bytes from outside are never asserted on. */
#define ASSERT(e) ((e) ? (void) 0 : assert_fail(#e, __FILE__, __LINE__, __func__))
#define STATIC_ASSERT(e, why) _Static_assert(e, why)
_noreturn_ _cold_ void assert_fail(const char *expr, const char *file, int line, const char *func);

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
/* <uv.h> brings the MIN and MAX of <sys/param.h>, which are the same. */
#undef MIN
#undef MAX
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

/* The structure that holds @member at @ptr. */
#define CONTAINER_OF(ptr, type, member) ((type *) (void *) ((char *) (ptr) -offsetof(type, member)))

static inline void freep(void *p) {
    extern void free(void *);
    void **pp = (void **) p;
    free(*pp);
}
