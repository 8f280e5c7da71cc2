/* The disk's floor. See floor.h.
 *
 * The writers are forked, not threads: the nodes are processes, too, and a file system may treat
 * descriptors of one process alike. They report through shared memory and end with _exit. */
#include "bench/floor.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BLOCK_BYTES 4096U
#define FILE_BLOCKS 2048U /* 8 MiB: half a segment of the log */
#define POLL_MS 5
#define WAIT_EXTRA_MS 20000 /* for filling the files and for a slow last sync */

struct shared {
    struct histogram h[FLOOR_WRITERS];
    uint64_t elapsed_ns[FLOOR_WRITERS];
    int error[FLOOR_WRITERS]; /* errno */
    uint32_t ready;           /* writers whose files are filled; atomic */
};

struct writers {
    pid_t pid[FLOOR_WRITERS];
    char path[FLOOR_WRITERS][PATH_MAX];
};

/* ---- in the child -------------------------------------------------------------------------- */

static uint64_t now_ns(void) {
    struct timespec t;

    (void) clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t) t.tv_sec * NS_PER_S + (uint64_t) t.tv_nsec;
}

static int write_block(int fd, const uint8_t *block, uint32_t at) {
    ssize_t n = pwrite(fd, block, BLOCK_BYTES, (off_t) at * BLOCK_BYTES);

    if (n < 0)
        return errno;
    return n == (ssize_t) BLOCK_BYTES ? 0 : ENOSPC;
}

/* Fill the file, so that what follows overwrites blocks that have been written. */
static int fill(int fd, const uint8_t *block) {
    for (uint32_t i = 0; i < FILE_BLOCKS; i++) {
        int e = write_block(fd, block, i);

        if (e != 0)
            return e;
    }
    return fsync(fd) < 0 ? errno : 0;
}

static int overwrite(int fd, uint8_t *block, uint64_t ms, struct histogram *h,
                     uint64_t *ret_elapsed) {
    uint64_t begin = now_ns(), last = begin;

    for (uint32_t i = 0; last - begin < ms * NS_PER_MS; i = (i + 1) % FILE_BLOCKS) {
        uint64_t t;
        int e;

        memcpy(block, &last, sizeof(last)); /* never the bytes that are there already */
        e = write_block(fd, block, i);
        if (e != 0)
            return e;
        if (fdatasync(fd) < 0)
            return errno;
        t = now_ns();
        histogram_add(h, t - last);
        last = t;
    }
    *ret_elapsed = last - begin;
    return 0;
}

_noreturn_ static void writer(struct shared *s, size_t i, const char *path, uint64_t ms) {
    uint8_t block[BLOCK_BYTES];
    int fd, e;

    (void) prctl(PR_SET_PDEATHSIG, SIGKILL);
    memset(block, 0x5a, sizeof(block));
    fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    e = fd < 0 ? errno : fill(fd, block);
    (void) __atomic_add_fetch(&s->ready, 1, __ATOMIC_ACQ_REL);
    /* All begin together, or the first would have the disk for itself. */
    while (e == 0 && __atomic_load_n(&s->ready, __ATOMIC_ACQUIRE) < FLOOR_WRITERS) {
        const struct timespec nap = {.tv_nsec = 200000};

        (void) nanosleep(&nap, NULL);
    }
    if (e == 0)
        e = overwrite(fd, block, ms, &s->h[i], &s->elapsed_ns[i]);
    s->error[i] = e;
    _exit(e == 0 ? 0 : 1);
}

/* ---- in the parent ------------------------------------------------------------------------- */

static int start_writers(struct writers *w, struct shared *s, const char *dir, uint64_t ms) {
    for (size_t i = 0; i < FLOOR_WRITERS; i++) {
        (void) snprintf(w->path[i], sizeof(w->path[i]), "%s/floor%zu", dir, i);
        w->pid[i] = fork();
        if (w->pid[i] < 0) {
            w->pid[i] = 0;
            return bench_fail("fork: %s", strerror(errno));
        }
        if (w->pid[i] == 0)
            writer(s, i, w->path[i], ms);
    }
    return BENCH_OK;
}

static bool all_ended(struct writers *w) {
    bool all = true;

    for (size_t i = 0; i < FLOOR_WRITERS; i++) {
        if (w->pid[i] > 0 && waitpid(w->pid[i], NULL, WNOHANG) == w->pid[i])
            w->pid[i] = 0;
        all = all && w->pid[i] == 0;
    }
    return all;
}

static void end_writers(struct writers *w) {
    for (size_t i = 0; i < FLOOR_WRITERS; i++) {
        if (w->pid[i] > 0) {
            (void) kill(w->pid[i], SIGKILL);
            (void) waitpid(w->pid[i], NULL, 0);
        }
        if (w->path[i][0])
            (void) unlink(w->path[i]);
    }
}

static int collect(const struct shared *s, struct histogram *ret, double *ret_ops_s) {
    double ops_s = 0;

    for (size_t i = 0; i < FLOOR_WRITERS; i++) {
        if (s->error[i] != 0)
            return bench_fail("the disk floor cannot be measured: %s", strerror(s->error[i]));
        if (s->h[i].total == 0 || s->elapsed_ns[i] == 0)
            return bench_fail("the disk floor cannot be measured: a writer ended early");
        ops_s += (double) s->h[i].total * 1e9 / (double) s->elapsed_ns[i];
    }
    for (size_t i = 0; i < FLOOR_WRITERS; i++)
        histogram_merge(ret, &s->h[i]);
    *ret_ops_s = ops_s;
    return BENCH_OK;
}

int floor_measure(struct bench *b, const char *dir, uint64_t ms, struct histogram *ret,
                  double *ret_ops_s) {
    struct shared *s =
        mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct writers w = {.pid = {0}};
    uint64_t give_up = uv_hrtime() + (ms + WAIT_EXTRA_MS) * NS_PER_MS;
    int r;

    if (s == MAP_FAILED)
        return bench_fail("shared memory: %s", strerror(errno));
    r = start_writers(&w, s, dir, ms);
    while (r == BENCH_OK && !all_ended(&w)) {
        r = bench_pause(b, POLL_MS);
        if (r == BENCH_OK && uv_hrtime() > give_up)
            r = bench_fail("the disk floor cannot be measured: the disk does not answer");
    }
    end_writers(&w);
    if (r == BENCH_OK)
        r = collect(s, ret, ret_ops_s);
    (void) munmap(s, sizeof(*s));
    return r;
}
