/* One data directory as a table of functions: the only way storage/ touches a disk.
 *
 * os/disk_posix.c is the real one, sim/sim_disk.c the simulated one with a durable and a live
 * plane. Names are plain file names inside the directory (no '/'). All calls block; they run on the
 * disk thread (or at start and stop, on the thread that owns the node). Every function returns 0 or
 * a negative errno; EINTR is handled inside. pread and pwrite may be short: *ret_n says how much
 * was done, and a loop belongs to the caller (storage/io.h has it). After a failed sync the file's
 * pages are in an unknown state: the caller must stop the process, never retry (reliability.md W3).
 */
#pragma once

#include "base/defs.h"

struct disk_file; /* opaque; owned by the caller from open until close */

enum disk_open_flags {
    DISK_CREATE = 1 << 0, /* create when missing (mode 0600) */
    DISK_EXCL = 1 << 1,   /* with CREATE: fail with -EEXIST when it exists */
    DISK_RDONLY = 1 << 2,
};

struct disk_ops {
    int (*open)(void *ctx, const char *name, int flags, struct disk_file **ret_file);
    void (*close)(void *ctx, struct disk_file *f);
    int (*size)(void *ctx, struct disk_file *f, uint64_t *ret_bytes);
    int (*pread)(void *ctx, struct disk_file *f, uint64_t off, void *buf, size_t len,
                 size_t *ret_n); /* 0 bytes = end of file */
    int (*pwrite)(void *ctx, struct disk_file *f, uint64_t off, const void *buf, size_t len,
                  size_t *ret_n);
    int (*datasync)(void *ctx, struct disk_file *f); /* fdatasync: data and size */
    int (*truncate)(void *ctx, struct disk_file *f, uint64_t size);
    int (*rename)(void *ctx, const char *from, const char *to); /* replaces @to */
    int (*unlink)(void *ctx, const char *name);
    int (*sync_dir)(void *ctx); /* makes creates, renames and unlinks durable */
    /* Calls @each for every file name, in no particular order; a non-zero result stops and is
     * returned. */
    int (*list)(void *ctx, int (*each)(void *arg, const char *name), void *arg);
    /* Space of the file system that holds the directory, as an unprivileged writer sees it. */
    int (*space)(void *ctx, uint64_t *ret_free, uint64_t *ret_total);
};

struct disk {
    const struct disk_ops *ops;
    void *ctx;
};
