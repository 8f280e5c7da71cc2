/* What a worker must know about itself after kill -9 (semantics C29, reliability J30).
 *
 * What it is: an append-only file of checksummed records: an attempt is about to start; its process
 * is this one; it ended with this report; the report is acknowledged. A restarted worker kills what
 * still runs, never starts a started attempt again, and sends unacknowledged reports again.
 * What it is not: durable over a power cut. After a boot no process is left to kill, and the leases
 * have ended; so the file carries the boot's id, and another boot's file is started anew. No fsync.
 *
 * Format, little-endian: records of
 *     u32 crc32c of the rest | u32 length of the payload | u8 type | payload
 * The first one is HEADER: "chronos worker journal 1\n" and the boot id. A reference is
 *     u8 length | job id | u32 attempt | u64 token.
 * A record that is short or does not match its checksum ends the file: it was being written.
 *
 * Invariants: every live reference is in the map; live_bytes is what a compacted file would hold.
 * Thread: the loop. */
#pragma once

#include "base/err.h"
#include "base/map.h"
#include "worker/ref.h"

#include <sys/types.h>

#define JOURNAL_RECORD_BYTES_MAX (1U << 20)
#define JOURNAL_COMPACT_BYTES_MIN (8U << 20)
/* So many forgotten references survive a compaction, so that they are not started again. */
#define JOURNAL_FORGOTTEN_MAX 1024
#define JOURNAL_BOOT_ID_BYTES_MAX 64

struct journal;

enum journal_state {
    JOURNAL_STARTING = 1, /* may have a process; its pid is not known */
    JOURNAL_STARTED = 2,  /* pid and start time are known */
    JOURNAL_ENDED = 3     /* a report waits for its acknowledgement */
};

struct journal_entry {
    struct ref ref;
    enum journal_state state;
    pid_t pid;
    uint64_t start_time; /* of the process, in the kernel's clock ticks since boot */
};

/* Open or create "journal" in @dir_fd (borrowed for the journal's life) and replay it.
 * @boot_id   NUL-terminated; a file of another boot is replaced
 * @on_seen   called for every reference ever started in this file, live or not; may be NULL
 * 0; -errno; -ENOMEM; ERR_CORRUPT never: what cannot be read is the torn end. */
int journal_open(int dir_fd, const char *boot_id, void (*on_seen)(void *arg, const struct ref *ref),
                 void *arg, struct journal **ret, struct errtext *reterr) _must_check_;
struct journal *journal_free(struct journal *j);
DEFINE_CLEANUP(struct journal *, journal_free);

/* Bytes that the replay could not use; 0 after a clean end. */
uint64_t journal_torn_bytes(const struct journal *j);

/* The live entries, in no particular order. @pos starts with 0. False at the end. Do not change the
 * journal meanwhile. */
bool journal_next(const struct journal *j, size_t *pos, struct journal_entry *ret);
/* The report of an ENDED entry as a new reference. 0, 1 = not ended, ERR_CORRUPT, -errno, -ENOMEM.
 */
int journal_report(const struct journal *j, const struct ref *ref, struct bytes **ret) _must_check_;

/* Before the process is started. A failure means: do not start it. 0, -errno, -ENOMEM. */
int journal_starting(struct journal *j, const struct ref *ref) _must_check_;
/* After. A failure is survivable: the orphan would be found by its mark. */
int journal_started(struct journal *j, const struct ref *ref, pid_t pid,
                    uint64_t start_time) _must_check_;
/* @report is a packed AttemptReport. The reference need not have been started. */
int journal_ended(struct journal *j, const struct ref *ref, struct slice report) _must_check_;
/* Acknowledged, or lost, or killed: the attempt is no longer this worker's. Unknown is fine. */
int journal_forget(struct journal *j, const struct ref *ref) _must_check_;
