/* Whole reads and writes over base/disk.h, whose pread and pwrite may be short.
 *
 * What it is not: a retry of failures. An error is forwarded at once (reliability.md W3, W4).
 * Thread: the disk's. */
#pragma once

#include "base/disk.h"

/* Read up to @len bytes from @off; *ret_n < @len only at the end of the file. 0 or -errno. */
int io_read_full(const struct disk *disk, struct disk_file *f, uint64_t off, void *buf, size_t len,
                 size_t *ret_n) _must_check_;
/* Write all of @len bytes at @off. 0 or -errno (some bytes may have been written). A write that
 * makes no progress is -EIO: looping on it would never end. */
int io_write_full(const struct disk *disk, struct disk_file *f, uint64_t off, const void *buf,
                  size_t len) _must_check_;
/* Overwrite [@from, @to) with zero bytes. As io_write_full. */
int io_write_zeros(const struct disk *disk, struct disk_file *f, uint64_t from,
                   uint64_t to) _must_check_;
/* Close when open; NULL is allowed. Returns NULL. */
struct disk_file *io_close(const struct disk *disk, struct disk_file *f);
