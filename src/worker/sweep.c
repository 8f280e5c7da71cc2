#include "worker/sweep.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void on_idle(uv_idle_t *h);

static void start(struct sweep *s) {
    if (s->busy)
        return;
    s->busy = true;
    (void) uv_idle_start(&s->idle, on_idle);
}

static void stop(struct sweep *s) {
    s->busy = false;
    (void) uv_idle_stop(&s->idle);
}

static DIR *open_dir(int at, const char *name) {
    int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *d;

    if (fd < 0)
        return NULL;
    d = fdopendir(fd);
    if (!d)
        (void) close(fd);
    return d;
}

int sweep_init(struct sweep *s, uv_loop_t *loop, int base_fd) {
    int r;

    *s = (struct sweep){.trash_fd = -1};
    if (mkdirat(base_fd, "trash", 0700) < 0 && errno != EEXIST)
        return -errno;
    s->trash_fd = openat(base_fd, "trash", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (s->trash_fd < 0)
        return -errno;
    r = uv_idle_init(loop, &s->idle);
    ASSERT(r == 0);
    s->idle.data = s;
    s->counter = uv_hrtime(); /* differs from what an earlier process used, or the rename says so */
    start(s);
    return 0;
}

static void close_dirs(struct sweep *s) {
    if (s->dir)
        (void) closedir(s->dir);
    if (s->trash)
        (void) closedir(s->trash);
    s->dir = s->trash = NULL;
}

void sweep_done(struct sweep *s, uv_close_cb closed, void *arg) {
    ASSERT(s->trash_fd >= 0);
    stop(s);
    close_dirs(s);
    (void) close(s->trash_fd);
    s->trash_fd = -1;
    s->idle.data = arg;
    uv_close((uv_handle_t *) &s->idle, closed);
}

static int to_trash(struct sweep *s, int dir_fd, const char *name) {
    char to[32];

    (void) snprintf(to, sizeof(to), "t%" PRIu64, s->counter++);
    if (renameat2(dir_fd, name, s->trash_fd, to, RENAME_NOREPLACE) == 0)
        return 0;
    if (errno != EACCES)
        return -errno;
    /* Moving a directory rewrites its "..", which needs the right to write it. */
    if (fchmodat(dir_fd, name, 0700, 0) < 0)
        return -errno;
    return renameat2(dir_fd, name, s->trash_fd, to, RENAME_NOREPLACE) == 0 ? 0 : -errno;
}

int sweep_remove(struct sweep *s, int dir_fd, const char *name) {
    int r;

    if (unlinkat(dir_fd, name, AT_REMOVEDIR) == 0 || errno == ENOENT)
        return 0;
    r = to_trash(s, dir_fd, name);
    if (r == 0)
        start(s);
    return r;
}

static bool is_dot(const char *n) {
    return strcmp(n, ".") == 0 || strcmp(n, "..") == 0;
}

/* One entry of the directory being emptied. */
static void empty_step(struct sweep *s) {
    struct dirent *e = readdir(s->dir);
    int fd = dirfd(s->dir);

    if (e && !is_dot(e->d_name)) {
        if (unlinkat(fd, e->d_name, 0) < 0 && errno == EISDIR)
            (void) to_trash(s, fd, e->d_name);
    } else if (!e) {
        (void) closedir(s->dir);
        s->dir = NULL;
        (void) unlinkat(s->trash_fd, s->name, AT_REMOVEDIR);
    }
}

/* Choose the next directory. False when the trash is empty, or holds only what cannot go. */
static bool choose(struct sweep *s) {
    struct dirent *e;

    if (!s->trash)
        s->trash = open_dir(s->trash_fd, ".");
    e = s->trash ? readdir(s->trash) : NULL;
    if (!e) {
        if (s->trash)
            (void) closedir(s->trash);
        s->trash = NULL;
        return false;
    }
    if (is_dot(e->d_name) || strlen(e->d_name) >= sizeof(s->name))
        return true;
    memcpy(s->name, e->d_name, strlen(e->d_name) + 1);
    if (unlinkat(s->trash_fd, s->name, AT_REMOVEDIR) == 0 || errno == ENOENT)
        return true;
    if (fchmodat(s->trash_fd, s->name, 0700, 0) < 0 && errno == ENOENT)
        return true;
    s->dir = open_dir(s->trash_fd, s->name);
    return true;
}

/* Directories that arrive in the trash while it is read may be missed by this pass, so another
 * one follows until a pass has moved nothing. */
static void on_idle(uv_idle_t *h) {
    struct sweep *s = (struct sweep *) h->data;

    for (int i = 0; i < SWEEP_ENTRIES_PER_TURN; i++) {
        if (s->dir) {
            empty_step(s);
            continue;
        }
        if (!s->trash)
            s->pass_counter = s->counter;
        if (!choose(s) && s->counter == s->pass_counter) {
            stop(s);
            return;
        }
    }
}
