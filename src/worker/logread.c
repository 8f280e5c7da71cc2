#include "worker/logread.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct logread_request {
    struct logread_request *next;
    struct ref ref;
    uint64_t id;
    uint64_t offset;
    bool follow;
    bool waiting; /* at the end of a file that still grows */
    int fd;       /* -1 while the attempt has written nothing */
};

void logread_init(struct logread *l, uv_loop_t *loop, int dir_fd,
                  const struct logread_callbacks *cb, void *arg) {
    int r;

    *l = (struct logread){.dir_fd = dir_fd, .cb = *cb, .arg = arg};
    r = uv_idle_init(loop, &l->idle);
    ASSERT(r == 0);
    l->idle.data = l;
}

void logread_done(struct logread *l, uv_close_cb closed, void *close_arg) {
    logread_clear(l);
    l->idle.data = close_arg;
    uv_close((uv_handle_t *) &l->idle, closed);
}

static void request_free(struct logread_request *q) {
    if (q->fd >= 0)
        (void) close(q->fd);
    free(q);
}

static void idle_stop(struct logread *l) {
    if (l->idling)
        (void) uv_idle_stop(&l->idle);
    l->idling = false;
}

void logread_clear(struct logread *l) {
    while (l->first) {
        struct logread_request *q = l->first;

        l->first = q->next;
        request_free(q);
    }
    l->count = 0;
    l->blocked = false;
    idle_stop(l);
}

static void finish(struct logread *l, uint64_t id, uint64_t offset, const char *error) {
    Chronos__V1__WorkerLogData d = CHRONOS__V1__WORKER_LOG_DATA__INIT;

    d.request_id = id;
    d.offset = offset;
    d.end = true;
    if (error)
        d.error = (char *) (uintptr_t) error; /* protobuf-c only reads it */
    if (l->cb.send(l->arg, &d) == 1)
        l->blocked = true;
}

static int open_file(const struct logread *l, const struct ref *ref) {
    char name[REF_NAME_BYTES_MAX];

    ref_name(ref, name);
    return openat(l->dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
}

/* Move one chunk. True: go on; false: this request waits or is over (*ret_over). */
static bool step(struct logread *l, struct logread_request *q, uint8_t *chunk, bool *ret_over) {
    /* Asked before the read: an attempt that ends in between has written everything by then. */
    enum logread_source source = l->cb.source(l->arg, &q->ref);
    Chronos__V1__WorkerLogData d = CHRONOS__V1__WORKER_LOG_DATA__INIT;
    ssize_t n = 0;

    if (q->fd < 0)
        q->fd = open_file(l, &q->ref);
    if (q->fd >= 0)
        n = pread(q->fd, chunk, LOGREAD_CHUNK_BYTES, (off_t) q->offset);
    else if (source == LOGREAD_FINAL)
        n = -1;
    if (n > 0) {
        d.request_id = q->id;
        d.offset = q->offset;
        d.data.data = chunk;
        d.data.len = (size_t) n;
        q->offset += (uint64_t) n;
        if (l->cb.send(l->arg, &d) == 1)
            l->blocked = true;
        return true;
    }
    if (n == 0 && q->follow && source == LOGREAD_GROWING) {
        q->waiting = true;
        return false;
    }
    finish(l, q->id, q->offset, n < 0 ? "no output of this attempt is kept on this worker" : NULL);
    *ret_over = true;
    return false;
}

static void on_idle(uv_idle_t *h) {
    struct logread *l = (struct logread *) h->data;
    uint8_t chunk[LOGREAD_CHUNK_BYTES];
    struct logread_request **p = &l->first;
    bool busy = false;

    while (*p && !l->blocked) {
        struct logread_request *q = *p;
        bool over = false, more = !q->waiting;

        for (int i = 0; i < LOGREAD_CHUNKS_PER_TURN && more && !l->blocked; i++)
            more = step(l, q, chunk, &over);
        /* Sending may have ended the stream, and with it all requests. */
        if (!l->first)
            return;
        busy = busy || more;
        if (over) {
            *p = q->next;
            l->count--;
            request_free(q);
        } else {
            p = &q->next;
        }
    }
    if (l->blocked || !busy)
        idle_stop(l);
}

static void idle_start(struct logread *l) {
    if (l->idling || l->blocked || !l->first)
        return;
    l->idling = true;
    (void) uv_idle_start(&l->idle, on_idle);
}

static void cancel(struct logread *l, uint64_t id) {
    for (struct logread_request **p = &l->first; *p; p = &(*p)->next) {
        struct logread_request *q = *p;

        if (q->id == id) {
            *p = q->next;
            l->count--;
            request_free(q);
            return;
        }
    }
}

void logread_request(struct logread *l, const Chronos__V1__NodeLogRequest *m) {
    struct logread_request *q, **end = &l->first;
    struct ref ref;

    if (m->cancel) {
        cancel(l, m->request_id);
        return;
    }
    if (ref_from_pb(m->attempt, &ref) != 0) {
        finish(l, m->request_id, m->offset, "the request names no attempt");
        return;
    }
    q = l->count < LOGREAD_COUNT_MAX ? calloc(1, sizeof(*q)) : NULL;
    if (!q) {
        finish(l, m->request_id, m->offset, "the worker serves too many log requests; try again");
        return;
    }
    q->ref = ref;
    q->id = m->request_id;
    q->offset = MIN(m->offset, (uint64_t) INT64_MAX);
    q->follow = m->follow;
    q->fd = -1;
    while (*end)
        end = &(*end)->next;
    *end = q;
    l->count++;
    idle_start(l);
}

void logread_wake(struct logread *l, const struct ref *ref) {
    for (struct logread_request *q = l->first; q; q = q->next) {
        if (q->waiting && memcmp(&q->ref, ref, sizeof(*ref)) == 0) {
            q->waiting = false;
            idle_start(l);
        }
    }
}

void logread_writable(struct logread *l) {
    l->blocked = false;
    idle_start(l);
}
