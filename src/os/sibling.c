#include "os/sibling.h"

#include "os/files.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LOG_TAIL_BYTES 2000
#define PATH_BYTES (PATH_MAX + 32)

bool sibling_is(pid_t pid) {
    char link[64], mine[PATH_MAX], theirs[PATH_MAX];
    ssize_t a, b;

    (void) snprintf(link, sizeof(link), "/proc/%d/exe", pid);
    a = readlink("/proc/self/exe", mine, sizeof(mine));
    b = readlink(link, theirs, sizeof(theirs));
    return a > 0 && a == b && memcmp(mine, theirs, (size_t) a) == 0;
}

pid_t sibling_read_pid(const char *path) {
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    unsigned long pid;
    char text[32];
    ssize_t len;

    if (fd < 0)
        return 0;
    len = read(fd, text, sizeof(text) - 1);
    (void) close(fd);
    if (len <= 0)
        return 0;
    text[len] = '\0';
    pid = strtoul(text, NULL, 10);
    return pid > 1 && pid <= INT_MAX ? (pid_t) pid : 0;
}

int sibling_write_pid(const char *path, pid_t pid) {
    char text[32];
    int len = snprintf(text, sizeof(text), "%ld\n", (long) pid), fd, r;

    if (unlink(path) < 0 && errno != ENOENT)
        return -errno;
    fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0)
        return -errno;
    r = files_write_all(fd, text, (size_t) len);
    (void) close(fd);
    return r;
}

pid_t sibling_pid(const char *dir, const char *name) {
    char path[PATH_BYTES];
    pid_t pid;

    (void) snprintf(path, sizeof(path), "%s/%s", dir, name);
    pid = sibling_read_pid(path);
    return pid > 0 && sibling_is(pid) ? pid : 0;
}

void sibling_print_log(const char *dir, const char *name) {
    char path[PATH_BYTES], text[LOG_TAIL_BYTES];
    size_t len;
    FILE *f;

    (void) snprintf(path, sizeof(path), "%s/%s", dir, name);
    f = fopen(path, "re");
    if (!f)
        return;
    if (fseek(f, -(long) sizeof(text), SEEK_END) < 0)
        rewind(f);
    len = fread(text, 1, sizeof(text), f);
    (void) fclose(f);
    if (len > 0)
        (void) fprintf(stderr, "--- the end of %s:\n%.*s---\n", path, (int) len, text);
}
