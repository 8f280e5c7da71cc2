/* The real disk: base/disk.h over one directory of a POSIX file system.
 *
 * The directory is held open by descriptor, so a later rename of it or a change of the working
 * directory cannot make two calls look at different places. It belongs to one process at a time:
 * flock on a file named LOCK in it (reliability.md W19); the kernel drops the lock with the
 * process, so there is never a stale one to clean up. */
#pragma once

#include "base/disk.h"
#include "base/err.h"

struct disk_posix;

/* Open @dir as the data directory, creating it (mode 0700, missing parents too) when needed.
 *
 * @dir      borrowed for the call
 * @ret      owned by the caller on 0; close with disk_posix_close()
 * @ret_disk the table to hand to storage/; valid until disk_posix_close()
 * @reterr   one sentence naming the directory and what to do
 *
 * Returns 0; -EWOULDBLOCK when another process holds the directory (say so and exit); -EACCES when
 * any user may write into it; other -errno. All are fatal for the caller.
 * After 0 the calls of @ret_disk may come from any thread, as long as one file is used by one
 * thread at a time. */
int disk_posix_open(const char *dir, struct disk_posix **ret, struct disk *ret_disk,
                    struct errtext *reterr) _must_check_;

/* Open an existing @dir to look at it: no lock is taken and nothing is created, so it works beside
 * the process that owns the directory, and on a read-only file system. Opens of files need exactly
 * DISK_RDONLY; opens that could change something, rename and unlink fail with -EROFS.
 *
 * Arguments as disk_posix_open(). Returns 0 or -errno. */
int disk_posix_open_read_only(const char *dir, struct disk_posix **ret, struct disk *ret_disk,
                              struct errtext *reterr) _must_check_;

/* Release the lock and free. All files must be closed before. NULL allowed; returns NULL. */
struct disk_posix *disk_posix_close(struct disk_posix *d);
DEFINE_CLEANUP(struct disk_posix *, disk_posix_close);

/* The name of the lock file; list() does not report it. */
#define DISK_POSIX_LOCK_NAME "LOCK"
