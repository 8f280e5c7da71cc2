/* Reading zone files. See tzdir.h. */
#include "os/tzdir.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int tzdir_init(struct tzdir *d, const char *path, struct errtext *reterr) {
    *d = (struct tzdir){0};
    if (!path)
        path = getenv("CHRONOS_TZDIR");
    if (!path || !path[0])
        path = TZDIR_DEFAULT;
    if (strlen(path) >= sizeof(d->path)) {
        errtext_set(reterr, "CHRONOS_TZDIR: at most %zu bytes", sizeof(d->path) - 1);
        return ERR_CONFIG;
    }
    (void) snprintf(d->path, sizeof(d->path), "%s", path);
    return 0;
}

static bool is_below(const char *name) {
    return name[0] && name[0] != '/' && !strstr(name, "..");
}

/* 0, -errno. */
static int path_of(const struct tzdir *d, const char *name, char *out, size_t out_bytes) {
    int n;

    if (!is_below(name))
        return -EINVAL;
    n = snprintf(out, out_bytes, "%s/%s", d->path, name);
    return n < 0 || (size_t) n >= out_bytes ? -ENAMETOOLONG : 0;
}

/* Another number for another file or other content; a file written twice within one tick of the
 * file system's clock keeps its inode only when written in place, which no package manager does. */
static uint64_t stamp_of(const struct stat *st) {
    uint64_t h = 14695981039346656037ULL;
    const uint64_t parts[] = {(uint64_t) st->st_ino,         (uint64_t) st->st_size,
                              (uint64_t) st->st_mtim.tv_sec, (uint64_t) st->st_mtim.tv_nsec,
                              (uint64_t) st->st_ctim.tv_sec, (uint64_t) st->st_ctim.tv_nsec};

    for (size_t i = 0; i < ARRAY_LEN(parts); i++)
        h = (h ^ parts[i]) * 1099511628211ULL;
    return h | 1;
}

static uint64_t stamp(void *ctx, const char *name) {
    char path[1024];
    struct stat st;

    if (path_of(ctx, name, path, sizeof(path)) < 0 || stat(path, &st) < 0)
        return 0;
    return stamp_of(&st);
}

/* All of @fd's @size bytes. */
static int read_all(int fd, size_t size, struct bytes **ret) {
    _cleanup_(bytes_unrefp) struct bytes *b = bytes_new(size);
    size_t at = 0;

    if (!b)
        return -ENOMEM;
    while (at < size) {
        ssize_t n = pread(fd, b->data + at, size - at, (off_t) at);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            return -EAGAIN; /* cut off while we read */
        at += (size_t) n;
    }
    *ret = TAKE_PTR(b);
    return 0;
}

static int load_fd(int fd, const char *path, struct bytes **ret, uint64_t *ret_stamp,
                   struct errtext *reterr) {
    struct stat st;
    int rc;

    if (fstat(fd, &st) < 0)
        return -errno;
    *ret_stamp = stamp_of(&st);
    if (!S_ISREG(st.st_mode) || st.st_size == 0 || st.st_size > (off_t) TZDIR_FILE_BYTES_MAX) {
        errtext_set(reterr, "%s: a zone is a file of 1 to %u bytes", path, TZDIR_FILE_BYTES_MAX);
        return ERR_LIMIT;
    }
    rc = read_all(fd, (size_t) st.st_size, ret);
    if (rc < 0)
        errtext_set(reterr, "%s: %s", path, strerror(-rc));
    return rc;
}

static int load(void *ctx, const char *name, struct bytes **ret, uint64_t *ret_stamp,
                struct errtext *reterr) {
    char path[1024];
    int fd, rc = path_of(ctx, name, path, sizeof(path));

    *ret_stamp = 0;
    if (rc < 0) {
        errtext_set(reterr, "not a name below the directory of time zones");
        return rc;
    }
    /* O_NONBLOCK: whatever lies there, a pipe too, must not stop the caller. */
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) {
        rc = -errno;
        errtext_set(reterr, "%s: %s", path, strerror(-rc));
        return rc;
    }
    rc = load_fd(fd, path, ret, ret_stamp, reterr);
    (void) close(fd);
    return rc;
}

/* The first line of tzdata.zi ("# version 2026b") or +VERSION, whichever there is. */
static const char *version(void *ctx) {
    struct tzdir *d = ctx;
    const char *const names[] = {"tzdata.zi", "+VERSION"};
    char path[1024], line[64];

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        uint64_t now = stamp(d, names[i]);
        FILE *f;

        if (now == 0)
            continue;
        if (now == d->version_stamp)
            return d->version;
        if (path_of(d, names[i], path, sizeof(path)) < 0 || !(f = fopen(path, "re")))
            continue;
        d->version[0] = 0;
        if (fgets(line, sizeof(line), f) && sscanf(line, "# version %31s", d->version) != 1 &&
            sscanf(line, "%31s", d->version) != 1)
            d->version[0] = 0;
        (void) fclose(f);
        d->version_stamp = now;
        return d->version;
    }
    return "";
}

struct env_zones tzdir_env(struct tzdir *d) {
    return (struct env_zones){.load = load, .stamp = stamp, .version = version, .ctx = d};
}
