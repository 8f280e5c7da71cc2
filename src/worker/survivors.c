#include "worker/survivors.h"

#include "os/procstat.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* So many ids cost less than a look at all processes. */
#define RANGE_COUNT_MAX 256
/* Within this time the ids cannot have gone round once: not even the smallest pid_max, 32,768. */
#define AGE_MS_MAX 2000

/* The newest process id, from the last field of /proc/loadavg; 0 when unknown. */
static pid_t newest_pid(void) {
    char text[128];
    int fd = open("/proc/loadavg", O_RDONLY | O_CLOEXEC);
    const char *last;
    ssize_t n;

    if (fd < 0)
        return 0;
    n = read(fd, text, sizeof(text) - 1);
    (void) close(fd);
    if (n <= 0)
        return 0;
    text[n] = '\0';
    last = strrchr(text, ' ');
    return last ? (pid_t) strtol(last + 1, NULL, 10) : 0;
}

static bool suspicious(pid_t pid, pid_t root, bool (*is_known)(void *arg, pid_t pid), void *arg) {
    struct procstat_ids ids;

    if (procstat_read_ids(pid, &ids) < 0 || ids.state == 'Z' || ids.state == 'X')
        return false;
    if (ids.pgrp == root || ids.session == root)
        return true;
    /* Whatever outlives the root has an ancestor that was re-parented to this process. */
    return ids.ppid == getpid() && !is_known(arg, pid);
}

int survivors_check(const struct spawn_tree *t, uint64_t age_ms,
                    bool (*is_known)(void *arg, pid_t pid), void *arg) {
    pid_t newest;

    ASSERT(t->root > 1);
    ASSERT(is_known);
    if (kill(-t->root, 0) == 0 || errno == EPERM)
        return 1;
    newest = age_ms <= AGE_MS_MAX ? newest_pid() : 0;
    if (newest < t->root || newest - t->root > RANGE_COUNT_MAX)
        return spawn_tree_alive(t, is_known, arg);
    for (pid_t pid = t->root + 1; pid <= newest; pid++)
        if (suspicious(pid, t->root, is_known, arg))
            return spawn_tree_alive(t, is_known, arg);
    return 0;
}
