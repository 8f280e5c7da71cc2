/* The disk thread: runs struct disk_job one at a time, in order, off the loop.
 *
 * One thread, because the log needs its writes and syncs in order; group commit happens above, by
 * what the owner puts into one job. Finished jobs come back to the loop with one wakeup per batch.
 * Thread: every function on the loop's thread; only job->run() runs elsewhere. */
#pragma once

#include "base/env.h"

#include <uv.h>

struct disk_queue;

/* Start the thread.
 *
 * @loop borrowed; must run until the handle closed by disk_queue_stop() has been closed by it
 * @ret  owned by the caller on 0; end with disk_queue_stop()
 *
 * Returns 0 or -errno (no thread, no descriptor): fatal at start. */
int disk_queue_new(uv_loop_t *loop, struct disk_queue **ret) _must_check_;

/* The table for struct env; valid until disk_queue_stop() returns. */
struct env_disk_queue disk_queue_env(struct disk_queue *q);

/* Jobs submitted and not yet done(). */
size_t disk_queue_pending(const struct disk_queue *q);

/* Drain and stop: blocks until every submitted job (also those that done() submits meanwhile) has
 * run and had its done() called, then ends the thread. The memory is freed by the loop's next turn.
 * Not to be called from inside done(). NULL allowed; returns NULL. */
struct disk_queue *disk_queue_stop(struct disk_queue *q);
