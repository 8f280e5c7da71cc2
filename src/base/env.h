/* The effects a replica may have on the world, as tables of functions.
 *
 * node/ receives one struct env; cmd/ fills it from os/, sim/ from its world of fakes. raft/, fsm/
 * and sched/ get no env at all: time and randomness reach them as arguments.
 * All callbacks into the node happen on the node's own loop thread. */
#pragma once

#include "base/bytes.h"
#include "base/disk.h"
#include "base/err.h"
#include "base/kv.h"
#include "base/log.h"
#include "base/time.h"

struct env_clock {
    struct mono (*mono)(void *ctx);
    struct wall (*wall)(void *ctx);
    void *ctx;
};

struct env_random {
    uint64_t (*next)(void *ctx);
    void *ctx;
};

/* A blocking piece of disk work. run() is executed on the disk thread (the simulator: at some later
 * virtual time); then done() on the loop. Jobs run one at a time, in the order submitted. The job's
 * memory belongs to the submitter, who may free it in done(). */
struct disk_job {
    void (*run)(struct disk_job *job);
    void (*done)(struct disk_job *job);
    struct disk_job *next; /* for the queue */
};

struct env_disk_queue {
    void (*submit)(void *ctx, struct disk_job *job);
    void *ctx;
};

/* Best-effort, unordered-across-reconnects delivery to another node. A message is delivered whole
 * and unaltered (framing and CRC are below) or not at all. */
struct env_peers {
    /* Takes one reference of @payload. Never blocks; drops when the peer is away or its queue is
     * full. */
    void (*send)(void *ctx, uint64_t node_id, struct bytes *payload);
    /* What was sent leaves now. Called once a turn, before the disk thread is woken: a follower's
     * way to its own disk is the longer one. May be NULL. */
    void (*flush)(void *ctx);
    /* As send, over a connection of its own, so that bulk data never stands in front of heartbeats.
     * Order among bulk messages of one connection is kept. False: not taken (no connection, queue
     * full), the reference is dropped as well; try again after on_bulk_ready or a while. */
    bool (*send_bulk)(void *ctx, uint64_t node_id, struct bytes *payload);
    /* Who the peers are: @address is where to connect first, @other_address a second guess ("" =
     * none). Adds or changes; remove_peer closes both connections. */
    int (*set_peer)(void *ctx, uint64_t node_id, const char *address, const char *other_address);
    void (*remove_peer)(void *ctx, uint64_t node_id);
    void *ctx;
};

/* The zone files of this machine. Small and cached by the system, so that reading one on the loop
 * is no wait; sched/zones.h parses and keeps them. All NULL: there are none, UTC needs no file. */
struct env_zones {
    /* The bytes of the zone's TZif file with a reference for the caller; none at all (length 0)
     * means UTC for ever. *ret_stamp is another number, never 0, whenever the file has changed.
     * 0; -ENOENT, -errno, ERR_LIMIT with the reason: the zone cannot be had. */
    int (*load)(void *ctx, const char *name, struct bytes **ret, uint64_t *ret_stamp,
                struct errtext *reterr);
    /* What load would set now; 0 = there is no such file. */
    uint64_t (*stamp)(void *ctx, const char *name);
    /* Of the data as a whole, such as "2026b"; "" when it does not say. Static or owned by @ctx. */
    const char *(*version)(void *ctx);
    void *ctx;
};

struct env {
    struct env_clock clock;
    struct env_random random;
    struct env_disk_queue disk_queue; /* the log and the meta file */
    struct env_disk_queue bulk_queue; /* flushes, snapshots, scrubbing: a thread of its own */
    struct env_peers peers;
    struct env_zones zones;
    struct disk disk;         /* the data directory */
    const struct logger *log; /* borrowed for the node's life; may be NULL */
};
