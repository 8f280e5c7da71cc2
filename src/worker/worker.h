/* A worker: takes assignments from a node, runs them, reports (design D4).
 *
 * What it is: the owner of the attempts, the journal, the reports and the one session. It is the
 * same beside a node and on another host. It never runs inside the server process.
 * What it is not: a scheduler; it takes what it is given up to its slots.
 *
 * Order that must hold:
 *   - the journal has the attempt before its process is started, and its end before the report
 *     leaves;
 *   - the lease is looked at before anything is sent or any message is read: a process that slept
 *     through its lease kills first and speaks then;
 *   - reports of one loop turn leave as one message, just before the loop blocks.
 * Thread: the loop. */
#pragma once

#include "base/err.h"
#include "base/log.h"

#include <uv.h>

#define WORKER_ID_BYTES_MAX 64
#define WORKER_SLOTS_MAX 10000
#define WORKER_LABELS_MAX 32
#define WORKER_DRAIN_MS_DEFAULT 5000

struct worker_label {
    const char *key;
    const char *value;
};

struct worker_options {
    const char *id; /* at most 64 bytes of [A-Za-z0-9._-] */
    uint32_t slots; /* 1 to WORKER_SLOTS_MAX */
    const struct worker_label *labels;
    size_t labels_count;
    const char *const *nodes; /* "host:port"; at least one */
    size_t nodes_count;
    const char *data_dir;      /* created when missing */
    uint64_t drain_ms;         /* how long running attempts may go on after worker_stop */
    uint64_t output_bytes_max; /* old outputs on disk; 0 = 1 GiB */
    size_t output_count_max;   /* 0 = 10,000 */
    int parent_fd;             /* -1, or a pipe whose end means that the parent is gone */
    bool die_with_parent;      /* then stop as by worker_stop; else only note it */
    const struct logger *log;  /* borrowed; may be NULL */
    /* The drain is over; call worker_free. */
    void (*on_stopped)(void *arg);
    void *arg;
};

struct worker;

/* Open the data directory, kill what an earlier worker left running there, and start connecting.
 * @o is copied where needed. 0; -errno, -ENOMEM, ERR_CONFIG (an option is wrong): *reterr says why.
 */
int worker_new(uv_loop_t *loop, const struct worker_options *o, struct worker **ret,
               struct errtext *reterr) _must_check_;
/* Take no more work; let attempts finish for drain_ms; then end them and report RELEASED; wait a
 * bounded time for the acknowledgements. A second call skips what is left of the drain. */
void worker_stop(struct worker *w);
/* Its handles close asynchronously: run the loop until it is empty. NULL allowed; returns NULL. */
struct worker *worker_free(struct worker *w);
