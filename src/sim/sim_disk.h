/* base/disk.h in memory with two planes: what the process sees, and what a power cut leaves.
 *
 * Live content is stored once; what each unsynced write replaced is kept beside it until the sync,
 * so that a sync costs nothing and a crash can keep any part. Directory entries work the same way,
 * in order (a journaling file system commits them in order).
 * What it is not: a model of time (the simulator adds that) or of several directories.
 * Deterministic: the same calls and the same rng give the same bytes. Not thread-safe. */
#pragma once

#include "base/disk.h"
#include "base/rand.h"

struct sim_disk;

enum sim_disk_op {
    SIM_DISK_OPEN,
    SIM_DISK_SIZE,
    SIM_DISK_PREAD,
    SIM_DISK_PWRITE,
    SIM_DISK_DATASYNC,
    SIM_DISK_TRUNCATE,
    SIM_DISK_RENAME,
    SIM_DISK_UNLINK,
    SIM_DISK_SYNC_DIR,
    SIM_DISK_LIST,
    SIM_DISK_OPS,                /* number of kinds */
    SIM_DISK_ANY = SIM_DISK_OPS, /* in a fault: count all of them */
};

/* What of the unsynced state a power cut keeps. */
enum sim_disk_model {
    SIM_DISK_KEEP_NONE,
    SIM_DISK_KEEP_ALL,
    SIM_DISK_KEEP_PREFIX,  /* writes and directory operations up to one moment; the next write torn
                            */
    SIM_DISK_KEEP_SECTORS, /* any 512-byte sectors, any prefix of directory operations */
    SIM_DISK_KEEP_PAGES,   /* any 4 KiB pages, any prefix of directory operations */
    SIM_DISK_LOSE_DIR,     /* all data, no directory operation since the last sync_dir */
    SIM_DISK_MODELS,       /* number of models */
};

enum sim_disk_effect {
    SIM_DISK_FAIL,       /* return @err, do nothing */
    SIM_DISK_SHORT,      /* pread, pwrite: do only part (at least one byte) */
    SIM_DISK_SYNC_LIES,  /* datasync: return @err, call the pages clean without writing them: later
                          * syncs succeed and write nothing of them */
    SIM_DISK_SYNC_DROPS, /* the same, and the process then reads the old content back */
    SIM_DISK_CRASH,      /* the power goes before the operation: ERR_CRASHED from here on */
    SIM_DISK_CRASH_MID,  /* the power goes in the middle: a write is partly live, others are done */
};

struct sim_disk_fault {
    enum sim_disk_op op; /* or SIM_DISK_ANY */
    uint64_t nth;        /* 1 = the next such operation */
    bool repeat;         /* this and every later one (a full disk, a dead disk) */
    enum sim_disk_effect effect;
    int err; /* negative; for FAIL and SYNC_* */
};

int sim_disk_new(struct sim_disk **ret) _must_check_;
struct sim_disk *sim_disk_free(struct sim_disk *d); /* NULL allowed; every file must be closed */
DEFINE_CLEANUP(struct sim_disk *, sim_disk_free);
/* The table to hand to the code under test; valid as long as @d. */
const struct disk *sim_disk_interface(struct sim_disk *d);
/* An independent copy of both planes, without open files, faults and counters. NULL: no memory. */
struct sim_disk *sim_disk_clone(const struct sim_disk *d) _must_check_;

/* Cut the power: drop unsynced state as @model says and let every open file handle fail with
 * ERR_CRASHED until it is closed. Afterwards the disk works again for handles opened anew: the
 * node restarts. */
void sim_disk_crash(struct sim_disk *d, struct rng *rng, enum sim_disk_model model);
/* The process died, the machine did not: handles die, the live plane stays (kill -9). */
void sim_disk_kill(struct sim_disk *d);
/* True between a CRASH effect and sim_disk_crash() or sim_disk_kill(). */
bool sim_disk_crashed(const struct sim_disk *d);

/* One fault at a time; replaces the one before. */
void sim_disk_set_fault(struct sim_disk *d, struct sim_disk_fault fault);
void sim_disk_clear_fault(struct sim_disk *d);
bool sim_disk_fault_hit(const struct sim_disk *d); /* since set */
/* Bytes all files together may have; a write beyond does what fits, then -ENOSPC. 0 = no limit. */
void sim_disk_set_capacity(struct sim_disk *d, uint64_t bytes);
/* What a write beyond the capacity is answered with: -ENOSPC, or -EDQUOT. */
void sim_disk_set_full_error(struct sim_disk *d, int err);
/* A write or truncation was refused for want of room, in this life of the process. */
bool sim_disk_was_full(const struct sim_disk *d);
uint64_t sim_disk_used(const struct sim_disk *d); /* bytes of all files */
/* Others fill the file system: space() tells at most so many bytes free. Writes go on to succeed.
 * UINT64_MAX = as it is. */
void sim_disk_set_free(struct sim_disk *d, uint64_t bytes);

/* Operations so far, of one kind or SIM_DISK_ANY. */
uint64_t sim_disk_count(const struct sim_disk *d, enum sim_disk_op op);
uint32_t sim_disk_open_handles(const struct sim_disk *d); /* to find leaks */

/* For tests: the live bytes of a file, to look at and to damage (both planes change). NULL when
 * there is no such file. Valid until the next operation. */
uint8_t *sim_disk_bytes(struct sim_disk *d, const char *name, uint64_t *ret_len);
/* For tests: where the writes end that came after the last one at offset 0: what is behind is of an
 * earlier use of the file. 0: no such file. */
uint64_t sim_disk_written(const struct sim_disk *d, const char *name);
/* For tests: set the size of a file in both planes (offline truncation). False: no such file. */
bool sim_disk_resize(struct sim_disk *d, const char *name, uint64_t len) _must_check_;
/* For tests: remove or rename durably, as by hand. False: no such file. */
bool sim_disk_remove(struct sim_disk *d, const char *name) _must_check_;
bool sim_disk_swap_names(struct sim_disk *d, const char *a, const char *b) _must_check_;
/* For tests: let a file, which is made if it is not there, have this content, durably. */
bool sim_disk_put(struct sim_disk *d, const char *name, const void *bytes,
                  uint64_t len) _must_check_;
/* Names in the order of the directory; NULL past the end. Valid until the next operation. */
const char *sim_disk_name(const struct sim_disk *d, size_t i);
