/* The worker's insides, shared by worker.c (life), worker_session.c (what nodes say) and
 * worker_attempts.c (what attempts do). Not for anyone else. */
#pragma once

#include "worker/attempt.h"
#include "worker/journal.h"
#include "worker/logread.h"
#include "worker/reports.h"
#include "worker/retention.h"
#include "worker/seen.h"
#include "worker/session.h"
#include "worker/sweep.h"
#include "worker/worker.h"

#include <limits.h>

/* Starting a process takes up to a millisecond: so many a turn, and heartbeats stay on time. */
#define WORKER_STARTS_PER_TURN 8
#define WORKER_RELEASE_GRACE_MS 2000
#define WORKER_FLUSH_MS 1500
/* From when the leader knows that this worker stops until it leaves: what was assigned before comes
 * meanwhile and is given back, instead of being lost with a lease. */
#define WORKER_SETTLE_MS 100

enum worker_phase {
    WORKER_RUNNING,
    WORKER_DRAINING,  /* attempts may finish */
    WORKER_RELEASING, /* attempts are being ended */
    WORKER_FLUSHING,  /* reports wait for their acknowledgement */
    WORKER_STOPPED
};

/* An attempt that this worker has in hand, in the order of arrival. */
struct held {
    struct worker *w;
    struct attempt *attempt; /* owned */
    struct held *prev;
    struct held *next;
    bool lease_lost; /* the next hello waits until it is dead, or the lease has ended */
};

struct worker {
    uv_loop_t *loop;
    const struct logger *log;
    struct worker_options o;
    char id[WORKER_ID_BYTES_MAX + 1];
    char *labels; /* owned: keys and values, NUL-terminated, one after the other */
    size_t labels_count;
    uint64_t incarnation;
    uint64_t hellos; /* said so far, on any stream */
    enum worker_phase phase;
    bool settling; /* FLUSHING: the timer ends it */
    bool drained;  /* RUNNING: an operator's drain has run out; what still comes is released */

    int data_fd;   /* owned */
    int lock_fd;   /* owned */
    int output_fd; /* owned */
    int work_fd;   /* owned */
    char work_path[PATH_MAX];
    char home[PATH_MAX];
    char instance[LAUNCH_INSTANCE_BYTES_MAX]; /* names the data directory in marks */
    struct launch_base launch_base;
    struct journal *journal; /* owned */
    struct retention retention;
    bool retention_open;
    struct sweep sweep;
    bool sweep_open;
    struct logread logread;
    struct session *session; /* owned */
    struct attempt_env attempt_env;

    struct bytesmap by_ref; /* struct held by its attempt's ref */
    struct u64map by_pid;   /* struct held by its main process, until that is reaped */
    struct held *first;     /* all of them, oldest first */
    struct held *last;
    struct held **queue; /* owned ring of slots entries: STARTING, not yet spawned */
    size_t queue_head;
    size_t queue_count;
    struct reports reports;
    bool blocked; /* the stream is above its bound: no reports until it is writable */
    struct seen seen;

    uv_prepare_t prepare; /* flush, before the loop blocks */
    uv_idle_t starter;    /* active while the queue is not empty */
    uv_signal_t child;    /* SIGCHLD */
    uv_timer_t lease_timer;
    uv_timer_t phase_timer;
    uv_poll_t parent;
    bool parent_open;
    unsigned handles_open; /* initialised and not yet closed */
    bool handles_ready;
};

/* worker_attempts.c */
void worker_assign(struct worker *w, const Chronos__V1__Assignment *a);
void worker_kill(struct worker *w, const struct ref *ref, bool cancelled, bool now);
void worker_acknowledge(struct worker *w, const struct ref *ref);
struct held *worker_find(const struct worker *w, const struct ref *ref);
void worker_stop_all(struct worker *w, enum attempt_cause cause, uint64_t grace_ms_max);
void worker_on_starter(uv_idle_t *h);
void worker_on_output(void *arg, struct attempt *a);
void worker_on_ended(void *arg, struct attempt *a);
void worker_on_child(uv_signal_t *h, int signum);
bool worker_is_known(void *arg, pid_t pid);
void worker_held_free(struct worker *w, struct held *h);

/* worker_session.c */
extern const struct session_callbacks worker_session_callbacks;
extern const struct logread_callbacks worker_logread_callbacks;
/* Send what waits, unless the stream says no. */
void worker_flush(struct worker *w);
/* Look at the lease and act. Called before everything that speaks or listens. */
void worker_check_lease(struct worker *w);

/* worker.c */
/* Something ended or was acknowledged: a stopping worker may be done. */
void worker_advance(struct worker *w);
/* There is a report again: it is waited for. */
void worker_unsettle(struct worker *w);
/* An operator drains this worker: what still runs after @timeout_ms is released; or lifts it. */
void worker_drain(struct worker *w, bool on, int64_t timeout_ms);
