/* `chronos server` inside: one struct, and who does what with it.
 *
 *   cmd_server.c       the loop, the turn, signals
 *   server_identity.c  whose directory this is: what is in it, --bootstrap, --join
 *   server_join.c      asking a running cluster to take this node
 *   server_start.c     storage, peers, replica, api, worker, in this order
 *   server_stop.c      the other way round
 * Thread: the loop's, which is the main thread. */
#pragma once

#include "api/api.h"
#include "cli/config.h"
#include "cmd/supervise.h"
#include "node/replica.h"
#include "os/clock_watch.h"
#include "os/disk_posix.h"
#include "os/disk_queue.h"
#include "os/log_sink.h"
#include "os/peer_net.h"
#include "os/random.h"
#include "os/tzdir.h"
#include "storage/meta.h"

#include <uv.h>

#define EXIT_REFUSED 78 /* EX_CONFIG of sysexits.h: starting again will not help */

/* Forward only. A stop may come in any state; while starting it is noted and obeyed at once after.
 */
enum server_state {
    SERVER_STARTING,
    SERVER_SERVING,
    SERVER_HANDING_OVER,       /* leadership moves first, so that nobody waits out an election */
    SERVER_STOPPING_WORKER,    /* attempts may finish; this node still commits their reports */
    SERVER_HANDING_OVER_AGAIN, /* it was elected meanwhile */
    SERVER_STOPPING_API,
    SERVER_CLOSING
};

/* Enough for the members' addresses, and as many nodes that the state knows. */
#define WORKER_NODES_MAX (2 * CONFIG_MEMBERS_MAX + 16)
#define WORKER_ARGS_MAX (32 + 2 * WORKER_NODES_MAX + 2 * CONFIG_LABELS_MAX)

struct server {
    int argc;
    char **argv;
    struct config config;
    struct log_sink sink;
    struct logger log;
    uv_loop_t loop;
    uv_prepare_t prepare;
    uv_check_t check;
    uv_timer_t timer;      /* the replica's deadline */
    uv_timer_t stop_timer; /* of the transfer, and of the disk's last jobs */
    uv_signal_t signals[3];
    struct mono timer_at;
    struct disk_posix *disk;
    struct disk_queue *disk_queue;
    struct disk_queue *bulk_queue;
    struct random_os random;
    struct tzdir tzdir;
    struct clock_watch clock_watch;
    bool watches_clock;
    struct peer_net *peers;
    struct kv *kv;
    struct replica *replica;
    struct api *api;
    struct supervise *worker;
    uint8_t cluster_id[16];
    bool forming;               /* this start is the one that forms the cluster */
    bool waiting;               /* it joins and may not have been sent anything yet */
    struct raft_config members; /* of the configuration: bootstrap, or where to look first */
    struct arena arena;
    const char *worker_argv[WORKER_ARGS_MAX];
    enum server_state state;
    bool stop_wanted;      /* a signal while starting */
    uint64_t transfer_end; /* in uv_now() */
    int exit_code;
};

void server_set_state(struct server *s, enum server_state to);
/* Log why it does not start; sets the exit code. */
void server_fail(struct server *s, const char *what, int rc, const struct errtext *why);

/* Fill s->cluster_id, s->forming and s->waiting from what @disk holds and the flags; s->members
 * must be filled. Blocking; may ask other nodes. 0, or negative after server_fail. */
int server_identity(struct server *s, const struct disk *disk) _must_check_;

/* Ask one of the nodes at @addresses for the cluster's id. 0, ERR_CONFIG, -ETIMEDOUT, -ECANCELED (a
 * signal came). */
int server_join_cluster_id(struct server *s, const char *addresses, uint8_t ret[16],
                           struct errtext *reterr) _must_check_;
/* Ask it to take this node with the data directory @disk (16 bytes) as a member. 0 also when it is
 * one already. ERR_FOREIGN: refused, with the cluster's words. -ETIMEDOUT, -ECANCELED. */
int server_join_add(struct server *s, const char *addresses, const uint8_t disk[16],
                    struct errtext *reterr) _must_check_;

/* 0, or negative after server_fail. */
int server_start(struct server *s) _must_check_;
/* Begin an orderly stop; ends with the loop having nothing to do. */
void server_stop(struct server *s);
/* The replica failed: nothing more is sent. Does not return. */
_noreturn_ void server_die(struct server *s, int rc, const struct errtext *why);
