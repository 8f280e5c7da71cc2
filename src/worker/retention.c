#include "worker/retention.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct retained {
    struct retained *prev;
    struct retained *next;
    uint64_t bytes;
    int64_t mtime_ns;
    size_t name_len;
    char name[];
};

void retention_init(struct retention *t, int dir_fd, uint64_t bytes_max, size_t count_max) {
    ASSERT(dir_fd >= 0);
    *t = (struct retention){.dir_fd = dir_fd, .bytes_max = bytes_max, .count_max = count_max};
}

void retention_done(struct retention *t) {
    while (t->first) {
        struct retained *r = t->first;

        t->first = r->next;
        free(r);
    }
    bytesmap_done(&t->by_name);
    *t = (struct retention){0};
}

static void forget(struct retention *t, struct retained *r) {
    ASSERT(t->bytes >= r->bytes);
    (void) bytesmap_del(&t->by_name, slice_of(r->name, r->name_len));
    t->bytes -= r->bytes;
    if (r->prev)
        r->prev->next = r->next;
    else
        t->first = r->next;
    if (r->next)
        r->next->prev = r->prev;
    else
        t->last = r->prev;
    free(r);
}

void retention_take(struct retention *t, const char *name) {
    struct retained *r =
        (struct retained *) bytesmap_get(&t->by_name, slice_of(name, strlen(name)));

    if (r)
        forget(t, r);
}

static void evict(struct retention *t) {
    while (t->first && (t->bytes > t->bytes_max || t->by_name.count > t->count_max)) {
        (void) unlinkat(t->dir_fd, t->first->name, 0);
        forget(t, t->first);
    }
    ASSERT(t->by_name.count <= t->count_max);
}

static int append(struct retention *t, const char *name, uint64_t bytes, int64_t mtime_ns) {
    size_t len = strlen(name);
    struct retained *r = calloc(1, sizeof(*r) + len + 1);
    int e;

    if (!r)
        return -ENOMEM;
    memcpy(r->name, name, len + 1);
    r->name_len = len;
    r->bytes = bytes;
    r->mtime_ns = mtime_ns;
    e = bytesmap_put(&t->by_name, slice_of(r->name, len), r);
    if (e < 0) {
        free(r);
        return e;
    }
    r->prev = t->last;
    if (t->last)
        t->last->next = r;
    else
        t->first = r;
    t->last = r;
    t->bytes += bytes;
    return 0;
}

int retention_add(struct retention *t, const char *name, uint64_t bytes) {
    int r;

    retention_take(t, name);
    r = append(t, name, bytes, INT64_MAX);
    if (r < 0)
        return r;
    evict(t);
    return 0;
}

static int by_mtime(const void *a, const void *b) {
    const struct retained *x = *(struct retained *const *) a;
    const struct retained *y = *(struct retained *const *) b;

    if (x->mtime_ns != y->mtime_ns)
        return x->mtime_ns < y->mtime_ns ? -1 : 1;
    return strcmp(x->name, y->name);
}

/* Put the list into the order of modification. */
static int sort(struct retention *t) {
    size_t n = t->by_name.count, i = 0;
    _cleanup_(freep) struct retained **all = calloc(n + 1, sizeof(*all));

    if (!all)
        return -ENOMEM;
    for (struct retained *r = t->first; r; r = r->next)
        all[i++] = r;
    ASSERT(i == n);
    qsort(all, n, sizeof(*all), by_mtime);
    t->first = t->last = NULL;
    for (i = 0; i < n; i++) {
        all[i]->prev = t->last;
        all[i]->next = NULL;
        if (t->last)
            t->last->next = all[i];
        else
            t->first = all[i];
        t->last = all[i];
    }
    return 0;
}

static int load_one(struct retention *t, const char *name) {
    struct stat st;

    if (fstatat(t->dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : -errno;
    if (!S_ISREG(st.st_mode))
        return 0;
    return append(t, name, (uint64_t) st.st_size,
                  (int64_t) st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec);
}

int retention_load(struct retention *t) {
    int fd = openat(t->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d;
    int r = 0;

    if (fd < 0)
        return -errno;
    d = fdopendir(fd);
    if (!d) {
        r = -errno;
        (void) close(fd);
        return r;
    }
    while (r == 0) {
        struct dirent *e;

        errno = 0;
        e = readdir(d);
        if (!e) {
            r = -errno;
            break;
        }
        r = load_one(t, e->d_name);
    }
    (void) closedir(d);
    if (r == 0)
        r = sort(t);
    if (r == 0)
        evict(t);
    return r;
}
