/* Term, vote and identity: the few bytes a node may never forget or invent.
 *
 * One file of two 4 KiB slots written in turn, each {magic, version, generation, cluster id, node
 * id, term, vote, what of the log was durable, CRC32C}. A torn slot falls back to the other, which
 * is correct because nothing that needed the torn one was ever sent (W1, W2). Both unreadable: the
 * node refuses to start; it never begins again at term 0.
 * A second file, meta-copy, is written after the first is durable and before anything is sent. A
 * newest slot that rots, or an old copy of the file that somebody puts back, would otherwise look
 * like a torn write, and the node would vote twice; with the copy the newer of the two counts (PAR,
 * FAST '18: what peers cannot give back is kept twice).
 * Thread: as wal.h. */
#pragma once

#include "base/disk.h"
#include "base/err.h"
#include "storage/wal.h"

struct meta_state {
    uint8_t cluster_id[16];
    uint64_t node_id;
    uint64_t term;
    uint64_t vote;
    uint64_t synced_index; /* a log index known durable when this was written (a hint, W9) */
    /* Random, of this data directory's birth: tells a node from a node of the same id on an empty
     * disk (W15). All zero is no incarnation. */
    uint8_t incarnation[16];
    struct wal_position log; /* known durable when this was written; all 0 = unknown */
};

struct meta;

enum { META_MISSING = 1 };

/* Open and read. 0; META_MISSING (neither file: a new node; *ret is NULL); ERR_CORRUPT (both slots
 * bad; the file is gone and its copy is there; the two are of different directories), ERR_VERSION,
 * -errno, -ENOMEM. */
int meta_open(const struct disk *disk, struct meta **ret, struct meta_state *ret_state,
              struct errtext *reterr) _must_check_;
/* Create durably (write beside, sync, rename, sync directory) on an empty directory. -EEXIST. */
int meta_create(const struct disk *disk, const struct meta_state *state, struct meta **ret,
                struct errtext *reterr) _must_check_;
/* Write the other slot of the file and fdatasync, then the same of its copy; only after both may be
 * sent what needs them. term never decreases, a vote never changes within a term (asserted).
 * Negative: stop; every later save fails with the same error. */
int meta_save(struct meta *m, uint64_t term, uint64_t vote, uint64_t synced_index,
              struct errtext *reterr) _must_check_;
/* From the next save on @log is written with the rest: a place that is durable now. */
void meta_note_log(struct meta *m, struct wal_position log);
/* As it was noted last. */
struct wal_position meta_log(const struct meta *m);
/* The file was behind its copy when it was opened, and was brought up to it: a disk to look after.
 */
bool meta_repaired(const struct meta *m);
struct meta *meta_close(struct meta *m);
DEFINE_CLEANUP(struct meta *, meta_close);

/* For `chronos inspect`: both slots as they are, changing nothing (meta_open writes one again). */
struct meta_inspect_slot {
    int rc; /* 0; ERR_CORRUPT (also: the file ends before it); ERR_VERSION */
    uint64_t generation;
    struct meta_state state; /* valid when rc is 0 */
};
/* 0; META_MISSING; -errno. */
int meta_inspect(const struct disk *disk, struct meta_inspect_slot ret[2],
                 struct errtext *reterr) _must_check_;
