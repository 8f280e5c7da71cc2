/* procstat: two small files, parsed strictly enough to survive a command name with ") R 1". */
#include "os/procstat.h"

#include "base/time.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Reads at most @cap - 1 bytes and terminates. 0 or -errno; a process that is gone is -ESRCH. */
static int read_file(const char *path, char *out, size_t cap) {
    size_t len = 0;
    int fd, r = 0;

    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? -ESRCH : -errno;
    while (len < cap - 1) {
        ssize_t n = read(fd, out + len, cap - 1 - len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            r = -errno;
        if (n <= 0)
            break;
        len += (size_t) n;
    }
    (void) close(fd);
    out[len] = '\0';
    return r;
}

int procstat_read_ids(pid_t pid, struct procstat_ids *ret) {
    char path[48], text[1024];
    int ppid, pgrp, session, r;
    unsigned long long utime, stime, threads, start, rss;
    char state;
    const char *p;

    ASSERT(pid > 0);
    ASSERT(ret);
    (void) snprintf(path, sizeof(path), "/proc/%d/stat", (int) pid);
    r = read_file(path, text, sizeof(text));
    if (r < 0)
        return r;
    p = strrchr(text, ')'); /* the command name may hold anything, also ')' */
    if (!p || sscanf(p + 1,
                     " %c %d %d %d %*d %*d %*u %*u %*u %*u %*u %llu %llu %*d %*d %*d %*d %llu %*d "
                     "%llu %*u %llu",
                     &state, &ppid, &pgrp, &session, &utime, &stime, &threads, &start, &rss) != 9)
        return -EIO;
    *ret = (struct procstat_ids){.pid = pid,
                                 .ppid = ppid,
                                 .pgrp = pgrp,
                                 .session = session,
                                 .state = state,
                                 .utime_ticks = utime,
                                 .stime_ticks = stime,
                                 .threads = (uint32_t) threads,
                                 .start_ticks = start,
                                 .rss_pages = rss};
    return 0;
}

/* A kB value of /proc/PID/status; 0 for a kernel thread or zombie, which have none. */
static uint64_t status_kib(const char *text, const char *key) {
    const char *p = strstr(text, key);

    return p ? strtoull(p + strlen(key), NULL, 10) : 0;
}

int procstat_read(pid_t pid, struct procstat *ret) {
    struct procstat_ids ids;
    char path[48], text[4096];
    int r = procstat_read_ids(pid, &ids);

    ASSERT(ret);
    if (r < 0)
        return r;
    (void) snprintf(path, sizeof(path), "/proc/%d/status", (int) pid);
    r = read_file(path, text, sizeof(text));
    if (r < 0)
        return r;
    *ret = (struct procstat){
        .cpu_ns =
            (ids.utime_ticks + ids.stime_ticks) * (NS_PER_S / (uint64_t) sysconf(_SC_CLK_TCK)),
        .rss_bytes = status_kib(text, "\nVmRSS:") * 1024, /* stat's own figure lags by batches */
        .rss_peak_bytes = status_kib(text, "\nVmHWM:") * 1024,
        .threads = ids.threads,
    };
    return 0;
}
