/* When a worker that nobody answers must kill what it runs (semantics C26, reliability J13).
 *
 * What it is: arithmetic. The leader's lease starts when it receives a heartbeat, which is not
 * before the worker sent it; so the worker counts from the moment of sending, and everything it
 * runs is dead before nine tenths of the lease have gone since. The clock is CLOCK_BOOTTIME,
 * because a suspended machine's leases run on.
 *
 *   sent |------------------------------------| term |------| kill |---- margin ----| 0.9 |--|
 * lease
 *
 * What it is not: a timer; the owner asks before anything else it does after a wake-up.
 * Thread: any; no state but the struct. */
#pragma once

#include "base/time.h"

#define LEASE_PENDING_MAX 16

struct lease {
    uint64_t lease_ms;   /* as the node said; 15 s until then */
    struct mono renewed; /* sending time of the newest message that the leader knows of */
    bool held;           /* false: no node has ever answered */
    struct {
        uint64_t sequence;
        struct mono sent;
    } pending[LEASE_PENDING_MAX]; /* oldest first */
    size_t pending_count;
};

#define LEASE_MS_DEFAULT 15000
#define LEASE_MS_MIN 200
#define LEASE_MS_MAX (24ULL * 3600 * 1000)

void lease_init(struct lease *l);
/* A node has answered the hello that was sent at @sent. */
void lease_welcome(struct lease *l, struct mono sent, uint64_t lease_ms);
/* A heartbeat leaves. */
void lease_sent(struct lease *l, uint64_t sequence, struct mono now);
/* Its acknowledgement; @sequence 0 means the oldest one. Unknown numbers are ignored. */
void lease_acked(struct lease *l, uint64_t sequence);
/* The stream is gone: what is pending will never be acknowledged. */
void lease_drop_pending(struct lease *l);

enum lease_verdict {
    LEASE_FINE,
    LEASE_TERM, /* ask everything to end */
    LEASE_KILL  /* kill everything now */
};
enum lease_verdict lease_check(const struct lease *l, struct mono now);
/* When the verdict changes next; MONO_NEVER when no lease is held. */
struct mono lease_deadline(const struct lease *l, struct mono now);
/* When the leader may have given the attempts to someone else. */
struct mono lease_end(const struct lease *l);
