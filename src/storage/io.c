#include "storage/io.h"

#include <errno.h>

/* Zero-filling goes in steps of this size: large enough that the call costs nothing beside the
 * copy, small enough for static read-only memory. */
#define IO_ZERO_BYTES (64U * 1024)

int io_read_full(const struct disk *disk, struct disk_file *f, uint64_t off, void *buf, size_t len,
                 size_t *ret_n) {
    uint8_t *p = (uint8_t *) buf;
    size_t done = 0;

    ASSERT(f);
    ASSERT(buf || len == 0);
    while (done < len) {
        size_t n = 0;
        int r = disk->ops->pread(disk->ctx, f, off + done, p + done, len - done, &n);

        if (r < 0)
            return r;
        if (n == 0)
            break;
        ASSERT(n <= len - done);
        done += n;
    }
    *ret_n = done;
    return 0;
}

int io_write_full(const struct disk *disk, struct disk_file *f, uint64_t off, const void *buf,
                  size_t len) {
    const uint8_t *p = (const uint8_t *) buf;

    ASSERT(f);
    ASSERT(buf || len == 0);
    while (len > 0) {
        size_t n = 0;
        int r = disk->ops->pwrite(disk->ctx, f, off, p, len, &n);

        if (r < 0)
            return r;
        if (n == 0)
            return -EIO;
        ASSERT(n <= len);
        off += n;
        p += n;
        len -= n;
    }
    return 0;
}

int io_write_zeros(const struct disk *disk, struct disk_file *f, uint64_t from, uint64_t to) {
    static const uint8_t zeros[IO_ZERO_BYTES];

    ASSERT(f);
    ASSERT(from <= to);
    while (from < to) {
        size_t n = (size_t) MIN(to - from, (uint64_t) sizeof(zeros));
        int r = io_write_full(disk, f, from, zeros, n);

        if (r < 0)
            return r;
        from += n;
    }
    return 0;
}

struct disk_file *io_close(const struct disk *disk, struct disk_file *f) {
    if (f)
        disk->ops->close(disk->ctx, f);
    return NULL;
}
