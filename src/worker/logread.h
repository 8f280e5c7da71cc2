/* Reading outputs for nodes: from an offset, and on while the attempt still writes.
 *
 * What it is: a bounded list of requests. Each turn moves at most a few chunks per request, and
 * nothing while the stream is above its bound, so that a large output cannot hold up reports.
 * What it is not: persistent; the requests die with the stream, and the node asks again.
 * Thread: the loop. */
#pragma once

#include "base/bytes.h"
#include "worker/ref.h"

#include <uv.h>

#define LOGREAD_COUNT_MAX 256
#define LOGREAD_CHUNK_BYTES 65536
#define LOGREAD_CHUNKS_PER_TURN 4

/* Whether an attempt may still write. */
enum logread_source { LOGREAD_GROWING, LOGREAD_FINAL };

struct logread_callbacks {
    enum logread_source (*source)(void *arg, const struct ref *ref);
    /* 0 = more is welcome; 1 = wait for logread_writable. */
    int (*send)(void *arg, const Chronos__V1__WorkerLogData *data);
};

struct logread_request;

struct logread {
    int dir_fd; /* borrowed: the outputs */
    struct logread_callbacks cb;
    void *arg;
    struct logread_request *first;
    size_t count;
    bool blocked; /* the stream is above its bound */
    bool idling;
    uv_idle_t idle;
};

void logread_init(struct logread *l, uv_loop_t *loop, int dir_fd,
                  const struct logread_callbacks *cb, void *arg);
/* The memory must live until @closed has been called with a handle whose data is @close_arg. */
void logread_done(struct logread *l, uv_close_cb closed, void *close_arg);

/* A NodeLogRequest has come: begin, or cancel. Errors are answered to the node. */
void logread_request(struct logread *l, const Chronos__V1__NodeLogRequest *m);
/* The attempt has written something, or has ended. */
void logread_wake(struct logread *l, const struct ref *ref);
void logread_writable(struct logread *l);
/* The stream is gone: forget all requests. */
void logread_clear(struct logread *l);
