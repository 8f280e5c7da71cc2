#include "worker/orphans.h"

#include "os/procstat.h"
#include "worker/launch.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define ROUNDS_MAX 200
#define ROUND_MS 10
#define ENVIRON_BYTES_MAX (2U << 20)

/* Whether an entry of the process's environment begins with @prefix. */
static bool marked(pid_t pid, const char *prefix) {
    size_t len = strlen(prefix), used = 0;
    _cleanup_(freep) char *env = NULL;
    char path[48];
    ssize_t n = 1;
    int fd;

    (void) snprintf(path, sizeof(path), "/proc/%d/environ", (int) pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    env = malloc(ENVIRON_BYTES_MAX + 1);
    while (env && n > 0 && used < ENVIRON_BYTES_MAX) {
        n = read(fd, env + used, ENVIRON_BYTES_MAX - used);
        used += n > 0 ? (size_t) n : 0;
    }
    (void) close(fd);
    if (!env)
        return false;
    env[used] = '\0';
    for (size_t at = 0; at < used; at += strlen(env + at) + 1)
        if (strncmp(env + at, prefix, len) == 0)
            return true;
    return false;
}

/* Does the journal's session still mean the attempt's processes? */
static bool session_valid(const struct orphan_session *s) {
    struct procstat_ids ids;

    if (s->start_time == 0 || s->pid <= 1)
        return false;
    if (procstat_read_ids(s->pid, &ids) < 0)
        return true; /* the leader is gone; the number is taken as long as a member lives */
    return ids.start_ticks == s->start_time;
}

static bool in_session(const struct procstat_ids *ids, const struct orphan_session *sessions,
                       size_t count) {
    for (size_t i = 0; i < count; i++)
        if (ids->session == sessions[i].pid && ids->start_ticks >= sessions[i].start_time &&
            session_valid(&sessions[i]))
            return true;
    return false;
}

/* One look at all processes; SIGKILL for the orphans. Returns how many, or -errno. */
static int round_kill(const char *prefix, const struct orphan_session *sessions, size_t count) {
    DIR *d = opendir("/proc");
    struct dirent *e;
    int n = 0;

    if (!d)
        return -errno;
    while ((e = readdir(d)) != NULL) {
        pid_t pid = (pid_t) strtol(e->d_name, NULL, 10);
        struct procstat_ids ids;

        if (pid <= 1 || pid == getpid() || procstat_read_ids(pid, &ids) < 0 || ids.state == 'Z' ||
            ids.state == 'X')
            continue;
        if (!in_session(&ids, sessions, count) && !marked(pid, prefix))
            continue;
        (void) kill(pid, SIGKILL);
        n++;
    }
    (void) closedir(d);
    return n;
}

int orphans_kill(const char *instance, const struct orphan_session *sessions, size_t count,
                 size_t *ret_left) {
    char prefix[LAUNCH_MARK_BYTES_MAX];
    const struct timespec wait = {.tv_nsec = ROUND_MS * 1000000L};
    int first, r;

    (void) snprintf(prefix, sizeof(prefix), "%s=%s/", LAUNCH_ENV_MARK, instance);
    first = r = round_kill(prefix, sessions, count);
    for (int i = 0; i < ROUNDS_MAX && r > 0; i++) {
        (void) nanosleep(&wait, NULL);
        r = round_kill(prefix, sessions, count);
    }
    if (r < 0)
        return r;
    *ret_left = (size_t) r;
    return first;
}
