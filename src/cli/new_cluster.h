/* The files of a stopped node, made into those of the only node of a new cluster.
 *
 * What it is: what restore and recover have in common. The records of jobs, workers and keys stay
 * as they are; who is a member, and all that names the old cluster, is written anew. With a fresh
 * cluster id and a fresh disk, neither side can ever be taken for the other (W15).
 * Order: mark, state, log, meta, unmark. Each step may be done again after a crash.
 * Thread: the caller's; blocking. */
#pragma once

#include "base/disk.h"
#include "base/err.h"
#include "base/kv.h"

struct new_cluster {
    uint64_t node_id;
    const char *peer_address;
    const char *client_address; /* "" = it tells it itself */
    uint8_t cluster_id[16];
    uint8_t disk[16];
    uint64_t index, term; /* filled by new_cluster_state: of the last entry in the state */
};

/* A file that stands in the directory while it is neither the old nor the new: no server starts on
 * it. */
#define NEW_CLUSTER_MARKER "unfinished"

int new_cluster_mark(const struct disk *disk, struct errtext *reterr) _must_check_;
int new_cluster_unmark(const struct disk *disk, struct errtext *reterr) _must_check_;

/* Fresh ids. 0 or -errno. */
int new_cluster_ids(struct new_cluster *n) _must_check_;
/* Rewrite configuration and node records of the state in @kv, in one batch, and flush it. @kv must
 * hold a whole state. 0; ERR_CORRUPT; ERR_VERSION; kv errors. */
int new_cluster_state(struct kv *kv, struct new_cluster *n, struct errtext *reterr) _must_check_;
/* Remove the files of the old log and the old meta file, if any, and begin new ones: a log that
 * goes on after n->index, and, last, the meta file. */
int new_cluster_files(const struct disk *disk, const struct new_cluster *n,
                      struct errtext *reterr) _must_check_;
