#include "base/defs.h"

#include <stdio.h>
#include <stdlib.h>

void assert_fail(const char *expr, const char *file, int line, const char *func) {
    /* stderr only: the logger may be what is broken. abort() leaves a core where one is wanted. */
    fprintf(stderr, "chronos: assertion failed: %s (%s:%d, %s)\n", expr, file, line, func);
    abort();
}
