#include "os/files.h"

#include <errno.h>
#include <ftw.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

#define WALK_FDS_MAX 16

int files_write_all(int fd, const void *data, size_t len) {
    const uint8_t *p = data;

    ASSERT(data || len == 0);
    while (len > 0) {
        ssize_t n = write(fd, p, len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        p += n;
        len -= (size_t) n;
    }
    return 0;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw) {
    (void) st;
    (void) type;
    (void) ftw;
    (void) remove(path);
    return 0;
}

void files_remove_tree(const char *path) {
    ASSERT(path);
    (void) nftw(path, remove_one, WALK_FDS_MAX, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}
