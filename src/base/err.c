#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void errtext_set(struct errtext *e, const char *fmt, ...) {
    va_list ap;

    if (!e)
        return;
    va_start(ap, fmt);
    (void) vsnprintf(e->s, sizeof(e->s), fmt, ap);
    va_end(ap);
}

const char *err_name(int err) {
    const char *name;

    switch (err) {
    case ERR_CORRUPT:
        return "corrupt data";
    case ERR_VERSION:
        return "unsupported version";
    case ERR_FOREIGN:
        return "data of another cluster or node";
    case ERR_PROTO:
        return "malformed bytes";
    case ERR_LIMIT:
        return "limit reached";
    case ERR_CLOSED:
        return "closed";
    case ERR_CONFIG:
        return "invalid configuration";
    case ERR_CRASHED:
        return "simulated power cut";
    default:
        break;
    }
    name = strerrordesc_np(err < 0 ? -err : err);
    return name ? name : "unknown error";
}
