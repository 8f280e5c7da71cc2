/* kv_dir: the pointer file, the numbered directories beside it, and their removal.
 *
 * What it is not: a reader of RocksDB's files; it knows only their names.
 * Invariant: on disk `current` names a complete store at every instant after the first open;
 * nothing that is named by it is ever deleted here. */
#include "os/kv_dir.h"

#include "base/codec.h"
#include "base/crc32c.h"
#include "os/files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAGIC "CHRNSTOR"
#define POINTER_TMP_NAME KV_DIR_POINTER_NAME ".tmp"
#define NUMBER_DIGITS_MIN 6
#define NUMBER_DIGITS_MAX 18
#define WALK_FDS_MAX 16

/* --- small system calls ----------------------------------------------------------------------- */

static int sync_fd(int fd) {
    int r;

    do
        r = fsync(fd);
    while (r < 0 && errno == EINTR);
    return r < 0 ? -errno : 0;
}

/* Up to @cap bytes of a file. Returns how many, or -errno. */
static ssize_t read_some(int dir_fd, const char *name, uint8_t *out, size_t cap) {
    int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    size_t len = 0;
    ssize_t n;

    if (fd < 0)
        return -errno;
    do {
        n = read(fd, out + len, cap - len);
        if (n > 0)
            len += (size_t) n;
    } while ((n > 0 && len < cap) || (n < 0 && errno == EINTR));
    n = n < 0 ? -errno : (ssize_t) len;
    (void) close(fd);
    return n;
}

/* 0 when @name is not the name of a store. */
static uint64_t parse_number(const char *name) {
    size_t len = strlen(name);
    uint64_t number = 0;

    if (len < NUMBER_DIGITS_MIN || len > NUMBER_DIGITS_MAX)
        return 0;
    for (size_t i = 0; i < len; i++) {
        if (name[i] < '0' || name[i] > '9')
            return 0;
        number = number * 10 + (uint64_t) (name[i] - '0');
    }
    return number;
}

int kv_dir_store_path(const struct kv_dir *d, uint64_t number, char ret[KV_DIR_PATH_BYTES_MAX]) {
    int n;

    ASSERT(number > 0);
    n = snprintf(ret, KV_DIR_PATH_BYTES_MAX, "%s/%06llu", d->path, (unsigned long long) number);
    return n < 0 || (size_t) n >= KV_DIR_PATH_BYTES_MAX ? -ENAMETOOLONG : 0;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw) {
    (void) st;
    (void) type;
    (void) ftw;
    return remove(path) == 0 || errno == ENOENT ? 0 : -1;
}

/* Children first; symbolic links are removed, not followed. */
static int remove_tree(const struct kv_dir *d, uint64_t number) {
    char path[KV_DIR_PATH_BYTES_MAX];
    int r = kv_dir_store_path(d, number, path);

    if (r < 0)
        return r;
    if (nftw(path, remove_entry, WALK_FDS_MAX, FTW_DEPTH | FTW_PHYS) == 0 || errno == ENOENT)
        return 0;
    return -errno;
}

void kv_dir_remove_store(const struct kv_dir *d, uint64_t number) {
    ASSERT(!d->read_only);
    ASSERT(number != d->current);
    (void) remove_tree(d, number);
}

int kv_dir_make_store(const struct kv_dir *d, uint64_t number) {
    char path[KV_DIR_PATH_BYTES_MAX];
    int r = kv_dir_store_path(d, number, path);

    ASSERT(!d->read_only);
    ASSERT(number != d->current);
    if (r == 0)
        r = remove_tree(d, number);
    if (r == 0 && mkdir(path, 0700) < 0)
        r = -errno;
    return r;
}

/* --- the pointer ------------------------------------------------------------------------------ */

static uint32_t pointer_crc(const uint8_t p[KV_DIR_POINTER_BYTES]) {
    uint8_t covered[KV_DIR_POINTER_BYTES - 4];

    memcpy(covered, p, 12);
    memcpy(covered + 12, p + 16, sizeof(covered) - 12);
    return crc32c(covered, sizeof(covered));
}

static int write_pointer(const struct kv_dir *d, uint64_t number) {
    uint8_t p[KV_DIR_POINTER_BYTES];
    int fd, r;

    memcpy(p, MAGIC, 8);
    put_le32(p + 8, KV_DIR_POINTER_VERSION);
    put_le64(p + 16, number);
    put_le32(p + 12, pointer_crc(p));
    fd = openat(d->fd, POINTER_TMP_NAME, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW,
                0600);
    if (fd < 0)
        return -errno;
    r = files_write_all(fd, p, sizeof(p));
    if (r == 0)
        r = sync_fd(fd);
    (void) close(fd);
    /* The entries of the stores are durable before the name that points to one. */
    if (r == 0)
        r = sync_fd(d->fd);
    if (r == 0 && renameat(d->fd, POINTER_TMP_NAME, d->fd, KV_DIR_POINTER_NAME) < 0)
        r = -errno;
    if (r < 0)
        return r;
    /* -ENOSPC must mean that nothing was switched (kv.h): from here on that is not known. */
    return sync_fd(d->fd) < 0 ? -EIO : 0;
}

int kv_dir_switch(struct kv_dir *d, uint64_t number) {
    int r;

    ASSERT(!d->read_only);
    ASSERT(number > d->current);
    r = write_pointer(d, number);
    if (r == 0)
        d->current = number;
    return r;
}

static int corrupt(const struct kv_dir *d, struct errtext *reterr, const char *what) {
    errtext_set(reterr, "the state store's %s/" KV_DIR_POINTER_NAME " %s", d->path, what);
    return ERR_CORRUPT;
}

enum { POINTER_MISSING = 1 };

static int read_pointer(struct kv_dir *d, struct errtext *reterr) {
    uint8_t p[KV_DIR_POINTER_BYTES + 1];
    ssize_t n = read_some(d->fd, KV_DIR_POINTER_NAME, p, sizeof(p));

    if (n == -ENOENT)
        return POINTER_MISSING;
    if (n < 0) {
        errtext_set(reterr, "cannot read %s/" KV_DIR_POINTER_NAME ": %s", d->path,
                    err_name((int) n));
        return (int) n;
    }
    if (n != (ssize_t) KV_DIR_POINTER_BYTES)
        return corrupt(d, reterr, "does not have 24 bytes");
    if (memcmp(p, MAGIC, 8) != 0)
        return corrupt(d, reterr, "has a bad magic at offset 0");
    if (get_le32(p + 12) != pointer_crc(p))
        return corrupt(d, reterr, "has a checksum at offset 12 that does not match");
    if (get_le32(p + 8) > KV_DIR_POINTER_VERSION) {
        errtext_set(reterr, "%s/" KV_DIR_POINTER_NAME " has version %u, newer than %u", d->path,
                    get_le32(p + 8), KV_DIR_POINTER_VERSION);
        return ERR_VERSION;
    }
    d->current = get_le64(p + 16);
    if (get_le32(p + 8) == 0 || d->current == 0 || parse_number("999999999999999999") < d->current)
        return corrupt(d, reterr, "names no store");
    return 0;
}

/* --- the directory ---------------------------------------------------------------------------- */

/* What the directory holds, as far as it decides something. */
struct census {
    bool flat;    /* a store's files directly in it */
    bool stores;  /* a numbered directory that is not empty */
    bool current; /* the current one's directory */
};

static bool has_entries(int dir_fd, const char *name, const char *suffix) {
    int fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    const struct dirent *e;
    bool found = false;

    if (!dir) {
        if (fd >= 0)
            (void) close(fd);
        return false;
    }
    while (!found && (e = readdir(dir)) != NULL) {
        size_t len = strlen(e->d_name), tail = strlen(suffix);

        found = strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 && len >= tail &&
                strcmp(e->d_name + len - tail, suffix) == 0;
    }
    (void) closedir(dir);
    return found;
}

bool kv_dir_may_create(const struct kv_dir *d) {
    return !d->read_only && d->current == 1 && !has_entries(d->fd, "000001", ".sst");
}

/* Look at every entry; with @remove delete the stores that do not count. */
static int walk(const struct kv_dir *d, bool remove_leftovers, struct census *ret) {
    int fd = openat(d->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = 0;
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    const struct dirent *e;

    if (!dir) {
        r = -errno;
        if (fd >= 0)
            (void) close(fd);
        return r;
    }
    while (r == 0 && (errno = 0, e = readdir(dir)) != NULL) {
        uint64_t number = parse_number(e->d_name);

        if (strcmp(e->d_name, "CURRENT") == 0 || strncmp(e->d_name, "MANIFEST-", 9) == 0)
            ret->flat = true;
        if (number == 0)
            continue;
        if (number == d->current)
            ret->current = true;
        else if (remove_leftovers)
            r = remove_tree(d, number);
        else
            ret->stores = ret->stores || has_entries(d->fd, e->d_name, "");
    }
    if (r == 0 && !e)
        r = -errno;
    (void) closedir(dir);
    return r;
}

/* The entry of the directory itself. */
static int sync_parent(const struct kv_dir *d) {
    int fd = openat(d->fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC), r;

    if (fd < 0)
        return -errno;
    r = sync_fd(fd);
    (void) close(fd);
    return r;
}

/* The first open: store 1 is made before the pointer names it, so a pointer without its store is
 * always damage. */
static int begin(struct kv_dir *d, struct errtext *reterr) {
    char path[KV_DIR_PATH_BYTES_MAX];
    int r = kv_dir_store_path(d, 1, path);

    if (r == 0 && mkdir(path, 0700) < 0 && errno != EEXIST)
        r = -errno;
    if (r == 0)
        r = sync_parent(d);
    if (r == 0)
        r = write_pointer(d, 1);
    if (r < 0)
        errtext_set(reterr, "cannot create the state store %s: %s", d->path, err_name(r));
    d->current = 1;
    return r;
}

static int settle(struct kv_dir *d, struct errtext *reterr) {
    struct census seen = {0};
    int found = read_pointer(d, reterr), r;

    if (found < 0)
        return found;
    r = walk(d, false, &seen);
    if (r < 0) {
        errtext_set(reterr, "cannot read the directory %s: %s", d->path, err_name(r));
        return r;
    }
    if (seen.flat) {
        errtext_set(reterr,
                    "the files of a store lie directly in %s, an old layout that is not read any "
                    "more: start with an empty data directory",
                    d->path);
        return ERR_CORRUPT;
    }
    if (found == POINTER_MISSING && (seen.stores || d->read_only))
        return corrupt(d, reterr, "is missing: which store counts is not known");
    if (found == POINTER_MISSING)
        return begin(d, reterr);
    if (!seen.current)
        return corrupt(d, reterr, "names a store that is missing");
    r = d->read_only ? 0 : walk(d, true, &seen);
    if (r < 0)
        errtext_set(reterr, "cannot delete old stores in %s: %s", d->path, err_name(r));
    return r;
}

static int lock(const struct kv_dir *d, struct errtext *reterr) {
    int r;

    do
        r = flock(d->fd, LOCK_EX | LOCK_NB);
    while (r < 0 && errno == EINTR);
    if (r == 0)
        return 0;
    r = -errno;
    errtext_set(reterr, "the state store %s is in use by another process: %s", d->path,
                err_name(r));
    return r;
}

int kv_dir_open(struct kv_dir *ret, const char *path, bool read_only, struct errtext *reterr) {
    int r = 0;

    ASSERT(path);
    *ret = (struct kv_dir){.fd = -1, .read_only = read_only};
    if (strlen(path) >= sizeof(ret->path))
        r = -ENAMETOOLONG;
    else
        memcpy(ret->path, path, strlen(path) + 1);
    if (r == 0 && !read_only && mkdir(path, 0700) < 0 && errno != EEXIST)
        r = -errno;
    if (r == 0)
        ret->fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (r == 0 && ret->fd < 0)
        r = -errno;
    if (r < 0) {
        errtext_set(reterr, "cannot open the state store %s: %s", path, err_name(r));
        return r;
    }
    r = read_only ? 0 : lock(ret, reterr);
    return r < 0 ? r : settle(ret, reterr);
}

void kv_dir_done(struct kv_dir *d) {
    if (d->fd >= 0)
        (void) close(d->fd);
    d->fd = -1;
}
