/* Error numbers and error texts.
 *
 * Functions return int: 0 is success; NEGATIVE is fatal for the callee's caller too and is
 * forwarded unchanged (-errno, or an ERR_* below); POSITIVE is a documented result of that one
 * function and must be handled, never forwarded.
 * A function that can say more takes `struct errtext *reterr` (may be NULL) and fills it with one
 * sentence that names the field, file or offset and what would be right. */
#pragma once

#include "base/defs.h"

enum err {
    ERR_CORRUPT = -10001, /* checksummed data does not match; never repair by deleting */
    ERR_VERSION = -10002, /* format or command newer than this program */
    ERR_FOREIGN = -10003, /* data of another cluster or node */
    ERR_PROTO = -10004,   /* malformed bytes from a peer, client or file */
    ERR_LIMIT = -10005,   /* a configured bound was reached */
    ERR_CLOSED = -10006,  /* the object was stopped while the call was pending */
    ERR_CONFIG = -10007,  /* configuration refused */
    ERR_CRASHED = -10008, /* simulated disk only: the node lost power during this call */
};

struct errtext {
    char s[512];
};

/* Format into @e (NULL is allowed and ignored); truncates silently at the buffer's end. */
void errtext_set(struct errtext *e, const char *fmt, ...) _printf_(2, 3);

/* A short English word for a negative result; never NULL, static storage. */
const char *err_name(int err);
