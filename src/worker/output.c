#include "worker/output.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TAIL_CAP_MIN 4096U

void output_init(struct output *o, int dir_fd, const struct ref *ref, uint64_t limit_bytes) {
    *o = (struct output){.dir_fd = dir_fd, .fd = -1};
    o->limit =
        limit_bytes == 0 ? OUTPUT_LIMIT_BYTES_DEFAULT : MIN(limit_bytes, OUTPUT_LIMIT_BYTES_MAX);
    ref_name(ref, o->name);
}

void output_close(struct output *o) {
    if (o->fd >= 0)
        (void) close(o->fd);
    o->fd = -1;
}

void output_done(struct output *o) {
    output_close(o);
    free(o->tail);
    o->tail = NULL;
    o->tail_cap = o->tail_len = o->tail_head = 0;
}

/* Make the ring hold @want bytes, at most OUTPUT_TAIL_BYTES. Only called while it has not wrapped
 * at full size, so the content is moved to the front once per doubling. */
static int tail_grow(struct output *o, size_t want) {
    size_t cap = o->tail_cap ? o->tail_cap : TAIL_CAP_MIN;
    uint8_t *bigger;

    ASSERT(want <= OUTPUT_TAIL_BYTES);
    while (cap < want)
        cap *= 2;
    if (cap == o->tail_cap)
        return 0;
    bigger = malloc(cap);
    if (!bigger)
        return -ENOMEM;
    o->tail_len = output_tail(o, bigger, cap);
    o->tail_head = o->tail_len % cap;
    free(o->tail);
    o->tail = bigger;
    o->tail_cap = cap;
    return 0;
}

static int tail_put(struct output *o, const uint8_t *data, size_t len) {
    size_t first;
    int r;

    if (len > OUTPUT_TAIL_BYTES) {
        data += len - OUTPUT_TAIL_BYTES;
        len = OUTPUT_TAIL_BYTES;
    }
    r = tail_grow(o, MIN(o->tail_len + len, (size_t) OUTPUT_TAIL_BYTES));
    if (r < 0)
        return r;
    ASSERT(len <= o->tail_cap);
    first = MIN(len, o->tail_cap - o->tail_head);
    memcpy(o->tail + o->tail_head, data, first);
    memcpy(o->tail, data + first, len - first);
    o->tail_head = (o->tail_head + len) % o->tail_cap;
    o->tail_len = MIN(o->tail_len + len, o->tail_cap);
    return 0;
}

size_t output_tail(const struct output *o, uint8_t *dst, size_t max) {
    size_t n = MIN(max, o->tail_len);
    size_t from, first;

    if (n == 0)
        return 0;
    ASSERT(o->tail_cap > 0);
    from = (o->tail_head + o->tail_cap - n) % o->tail_cap;
    first = MIN(n, o->tail_cap - from);
    memcpy(dst, o->tail + from, first);
    memcpy(dst + first, o->tail, n - first);
    return n;
}

static int write_all(struct output *o, const void *data, size_t len) {
    const uint8_t *p = (const uint8_t *) data;

    while (len > 0) {
        ssize_t n = write(o->fd, p, len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        p += n;
        len -= (size_t) n;
        o->stored += (uint64_t) n;
    }
    return 0;
}

/* The line that marks the cut. It may fail like any write; the flag in the report stays true. */
static void mark_cut(struct output *o, const char *why) {
    char line[128];
    int n = snprintf(line, sizeof(line),
                     "\n[chronos: %s after %" PRIu64 " bytes, the rest is lost]\n", why, o->kept);

    ASSERT(n > 0 && (size_t) n < sizeof(line));
    o->truncated = true;
    if (o->fd >= 0)
        (void) write_all(o, line, (size_t) n);
}

static int keep(struct output *o, const uint8_t *data, size_t len) {
    uint64_t before = o->stored;
    int r = 0;

    if (o->fd < 0 && len > 0) {
        o->fd =
            openat(o->dir_fd, o->name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (o->fd < 0)
            r = -errno;
    }
    if (r == 0 && len > 0)
        r = write_all(o, data, len);
    o->kept += o->stored - before;
    if (r < 0)
        mark_cut(o, "the worker's disk refused more");
    return r;
}

int output_append(struct output *o, const void *data, size_t len) {
    uint64_t room = o->limit - o->kept;
    int r = 0, t;

    ASSERT(o->kept <= o->limit);
    ASSERT(data || len == 0);
    o->total += len;
    t = tail_put(o, (const uint8_t *) data, len);
    if (!o->truncated) {
        r = keep(o, (const uint8_t *) data, (size_t) MIN(room, (uint64_t) len));
        if (r == 0 && len > room)
            mark_cut(o, "output limit reached");
    }
    ASSERT(o->total >= o->kept);
    return r < 0 ? r : t;
}
