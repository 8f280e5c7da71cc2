/* disk_posix: system calls, one per function, with EINTR handled and nothing remembered.
 *
 * What it is not: a cache or a retry policy. A failed sync is reported once and never repeated here
 * (reliability.md W3).
 * Thread: opened and closed by the owner; the table's calls run on the disk thread. */
#include "os/disk_posix.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

struct disk_posix {
    int dir_fd;
    int lock_fd;    /* -1: read only */
    bool read_only; /* another process may own the directory: nothing is created or changed */
};

struct disk_file {
    int fd;
};

/* pwrite of more than this returns short anyway (0x7ffff000 in Linux). */
#define DISK_POSIX_IO_BYTES_MAX ((size_t) 1 << 30)

static struct disk_posix *self_of(void *ctx) {
    struct disk_posix *d = (struct disk_posix *) ctx;

    ASSERT(d);
    ASSERT(d->dir_fd >= 0);
    return d;
}

/* A name with a slash would leave the directory: our bug, not bad input. */
static void assert_plain_name(const char *name) {
    ASSERT(name && name[0] != '\0');
    ASSERT(!strchr(name, '/'));
    ASSERT(strcmp(name, DISK_POSIX_LOCK_NAME) != 0);
}

static int op_open(void *ctx, const char *name, int flags, struct disk_file **ret_file) {
    struct disk_posix *d = self_of(ctx);
    _cleanup_(freep) struct disk_file *f = NULL;
    /* A pipe in the place of a file is an error of its first read, not something to wait for. */
    int oflags = O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;

    assert_plain_name(name);
    ASSERT(ret_file);
    if (d->read_only && flags != DISK_RDONLY)
        return -EROFS;
    oflags |= (flags & DISK_RDONLY) ? O_RDONLY : O_RDWR;
    if (flags & DISK_CREATE)
        oflags |= O_CREAT;
    if (flags & DISK_EXCL)
        oflags |= O_EXCL;
    f = malloc(sizeof(*f));
    if (!f)
        return -ENOMEM;
    do
        f->fd = openat(d->dir_fd, name, oflags, 0600);
    while (f->fd < 0 && errno == EINTR);
    if (f->fd < 0)
        return -errno;
    *ret_file = TAKE_PTR(f);
    return 0;
}

static void op_close(void *ctx, struct disk_file *f) {
    (void) self_of(ctx);
    if (!f)
        return;
    /* Linux releases the descriptor even when close reports EINTR: never close twice. What close
     * could report about lost writes has been asked for by datasync before. */
    (void) close(f->fd);
    free(f);
}

static int op_size(void *ctx, struct disk_file *f, uint64_t *ret_bytes) {
    struct stat st;

    (void) self_of(ctx);
    ASSERT(f);
    if (fstat(f->fd, &st) < 0)
        return -errno;
    *ret_bytes = (uint64_t) st.st_size;
    return 0;
}

static int op_pread(void *ctx, struct disk_file *f, uint64_t off, void *buf, size_t len,
                    size_t *ret_n) {
    ssize_t n;

    (void) self_of(ctx);
    ASSERT(f);
    if (off > INT64_MAX)
        return -EINVAL;
    do
        n = pread(f->fd, buf, MIN(len, DISK_POSIX_IO_BYTES_MAX), (off_t) off);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return -errno;
    *ret_n = (size_t) n;
    return 0;
}

static int op_pwrite(void *ctx, struct disk_file *f, uint64_t off, const void *buf, size_t len,
                     size_t *ret_n) {
    ssize_t n;

    (void) self_of(ctx);
    ASSERT(f);
    if (off > INT64_MAX)
        return -EFBIG;
    do
        n = pwrite(f->fd, buf, MIN(len, DISK_POSIX_IO_BYTES_MAX), (off_t) off);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return -errno;
    if (n == 0 && len > 0)
        return -EIO; /* no progress and no reason: the caller's loop must not spin on it */
    *ret_n = (size_t) n;
    return 0;
}

static int op_datasync(void *ctx, struct disk_file *f) {
    int r;

    (void) self_of(ctx);
    ASSERT(f);
    /* EINTR means the flush did not happen, not that pages were lost; any other error is final. */
    do
        r = fdatasync(f->fd);
    while (r < 0 && errno == EINTR);
    return r < 0 ? -errno : 0;
}

static int op_truncate(void *ctx, struct disk_file *f, uint64_t size) {
    int r;

    (void) self_of(ctx);
    ASSERT(f);
    if (size > INT64_MAX)
        return -EFBIG;
    do
        r = ftruncate(f->fd, (off_t) size);
    while (r < 0 && errno == EINTR);
    return r < 0 ? -errno : 0;
}

static int op_rename(void *ctx, const char *from, const char *to) {
    struct disk_posix *d = self_of(ctx);

    assert_plain_name(from);
    assert_plain_name(to);
    if (d->read_only)
        return -EROFS;
    return renameat(d->dir_fd, from, d->dir_fd, to) < 0 ? -errno : 0;
}

static int op_unlink(void *ctx, const char *name) {
    struct disk_posix *d = self_of(ctx);

    assert_plain_name(name);
    if (d->read_only)
        return -EROFS;
    return unlinkat(d->dir_fd, name, 0) < 0 ? -errno : 0;
}

static int sync_fd(int fd) {
    int r;

    do
        r = fsync(fd);
    while (r < 0 && errno == EINTR);
    return r < 0 ? -errno : 0;
}

static int op_sync_dir(void *ctx) {
    return sync_fd(self_of(ctx)->dir_fd);
}

/* True for what list() reports: files, not subdirectories (the state store has its own) and not
 * the lock. */
static int is_listed(const struct disk_posix *d, const struct dirent *e, bool *ret) {
    struct stat st;

    *ret = false;
    if (strcmp(e->d_name, DISK_POSIX_LOCK_NAME) == 0)
        return 0;
    if (e->d_type != DT_UNKNOWN) {
        *ret = e->d_type == DT_REG;
        return 0;
    }
    if (fstatat(d->dir_fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : -errno;
    *ret = S_ISREG(st.st_mode);
    return 0;
}

static int list_stream(const struct disk_posix *d, DIR *dir,
                       int (*each)(void *arg, const char *name), void *arg) {
    for (;;) {
        const struct dirent *e;
        bool listed;
        int r;

        errno = 0;
        e = readdir(dir);
        if (!e)
            return -errno;
        r = is_listed(d, e, &listed);
        if (r == 0 && listed)
            r = each(arg, e->d_name);
        if (r != 0)
            return r;
    }
}

static int op_list(void *ctx, int (*each)(void *arg, const char *name), void *arg) {
    struct disk_posix *d = self_of(ctx);
    DIR *dir;
    int fd, r;

    ASSERT(each);
    /* A descriptor of its own: readdir keeps its position in the open file. */
    fd = openat(d->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    dir = fdopendir(fd);
    if (!dir) {
        r = -errno;
        (void) close(fd);
        return r;
    }
    r = list_stream(d, dir, each, arg);
    (void) closedir(dir);
    return r;
}

/* f_bavail, not f_bfree: what the file system keeps for root is no space for us. */
static int op_space(void *ctx, uint64_t *ret_free, uint64_t *ret_total) {
    const struct disk_posix *d = self_of(ctx);
    struct statvfs st;
    int r;

    ASSERT(ret_free);
    ASSERT(ret_total);
    do
        r = fstatvfs(d->dir_fd, &st);
    while (r < 0 && errno == EINTR);
    if (r < 0)
        return -errno;
    *ret_free = (uint64_t) st.f_bavail * st.f_frsize;
    *ret_total = (uint64_t) st.f_blocks * st.f_frsize;
    return 0;
}

static const struct disk_ops posix_ops = {
    .open = op_open,
    .close = op_close,
    .size = op_size,
    .pread = op_pread,
    .pwrite = op_pwrite,
    .datasync = op_datasync,
    .truncate = op_truncate,
    .rename = op_rename,
    .unlink = op_unlink,
    .sync_dir = op_sync_dir,
    .list = op_list,
    .space = op_space,
};

/* Make the entry of a new directory durable by syncing the one that holds it. */
static int sync_parent(const char *path) {
    char parent[PATH_MAX];
    const char *slash = strrchr(path, '/');
    int fd, r;

    if (!slash)
        (void) snprintf(parent, sizeof(parent), ".");
    else if (slash == path)
        (void) snprintf(parent, sizeof(parent), "/");
    else
        (void) snprintf(parent, sizeof(parent), "%.*s", (int) (slash - path), path);
    fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    r = sync_fd(fd);
    (void) close(fd);
    return r;
}

static int make_dir(const char *path) {
    if (mkdir(path, 0700) == 0)
        return sync_parent(path);
    return errno == EEXIST ? 0 : -errno;
}

/* mkdir -p, each new level durable. */
static int make_dirs(const char *dir) {
    char path[PATH_MAX];
    size_t len = strlen(dir);

    if (len == 0 || len >= sizeof(path))
        return len == 0 ? -ENOENT : -ENAMETOOLONG;
    memcpy(path, dir, len + 1);
    while (len > 1 && path[len - 1] == '/')
        path[--len] = '\0';
    for (size_t i = 1; i < len; i++) {
        int r;

        if (path[i] != '/')
            continue;
        path[i] = '\0';
        r = make_dir(path);
        path[i] = '/';
        if (r < 0)
            return r;
    }
    return make_dir(path);
}

static int open_dir(const char *dir, int *ret_fd, struct errtext *reterr) {
    struct stat st;
    int r = make_dirs(dir);

    if (r < 0) {
        errtext_set(reterr, "cannot create data directory %s: %s", dir, err_name(r));
        return r;
    }
    *ret_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (*ret_fd < 0 || fstat(*ret_fd, &st) < 0) {
        r = -errno;
        errtext_set(reterr, "cannot open data directory %s: %s", dir, err_name(r));
        return r;
    }
    if (st.st_mode & S_IWOTH) {
        errtext_set(reterr, "data directory %s is writable by every user (mode %04o): chmod 700 it",
                    dir, (unsigned) (st.st_mode & 07777));
        return -EACCES;
    }
    return 0;
}

static int lock_dir(struct disk_posix *d, const char *dir, struct errtext *reterr) {
    int r;

    d->lock_fd =
        openat(d->dir_fd, DISK_POSIX_LOCK_NAME, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (d->lock_fd < 0) {
        r = -errno;
        errtext_set(reterr, "cannot open %s/" DISK_POSIX_LOCK_NAME ": %s", dir, err_name(r));
        return r;
    }
    do
        r = flock(d->lock_fd, LOCK_EX | LOCK_NB);
    while (r < 0 && errno == EINTR);
    if (r == 0)
        return 0;
    r = -errno;
    if (r == -EWOULDBLOCK)
        errtext_set(reterr, "data directory %s is in use by another running chronos process", dir);
    else
        errtext_set(reterr, "cannot lock %s/" DISK_POSIX_LOCK_NAME ": %s", dir, err_name(r));
    return r;
}

int disk_posix_open(const char *dir, struct disk_posix **ret, struct disk *ret_disk,
                    struct errtext *reterr) {
    _cleanup_(disk_posix_closep) struct disk_posix *d = NULL;
    int r;

    ASSERT(dir);
    ASSERT(ret);
    ASSERT(ret_disk);
    d = malloc(sizeof(*d));
    if (!d)
        return -ENOMEM;
    *d = (struct disk_posix){.dir_fd = -1, .lock_fd = -1};
    r = open_dir(dir, &d->dir_fd, reterr);
    if (r < 0)
        return r;
    r = lock_dir(d, dir, reterr);
    if (r < 0)
        return r;
    *ret_disk = (struct disk){.ops = &posix_ops, .ctx = d};
    *ret = TAKE_PTR(d);
    return 0;
}

int disk_posix_open_read_only(const char *dir, struct disk_posix **ret, struct disk *ret_disk,
                              struct errtext *reterr) {
    _cleanup_(disk_posix_closep) struct disk_posix *d = NULL;

    ASSERT(dir);
    ASSERT(ret);
    ASSERT(ret_disk);
    d = malloc(sizeof(*d));
    if (!d)
        return -ENOMEM;
    *d = (struct disk_posix){.dir_fd = -1, .lock_fd = -1, .read_only = true};
    d->dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (d->dir_fd < 0) {
        int r = -errno;

        errtext_set(reterr, "cannot open data directory %s: %s", dir, err_name(r));
        return r;
    }
    *ret_disk = (struct disk){.ops = &posix_ops, .ctx = d};
    *ret = TAKE_PTR(d);
    return 0;
}

struct disk_posix *disk_posix_close(struct disk_posix *d) {
    if (!d)
        return NULL;
    if (d->lock_fd >= 0)
        (void) close(d->lock_fd);
    if (d->dir_fd >= 0)
        (void) close(d->dir_fd);
    free(d);
    return NULL;
}
