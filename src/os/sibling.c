#include "os/sibling.h"

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

pid_t sibling_pid(const char *dir, const char *name) {
    char path[PATH_BYTES], text[32];
    unsigned long pid;
    size_t len;
    FILE *f;

    (void) snprintf(path, sizeof(path), "%s/%s", dir, name);
    f = fopen(path, "re");
    if (!f)
        return 0;
    len = fread(text, 1, sizeof(text) - 1, f);
    (void) fclose(f);
    text[len] = '\0';
    pid = strtoul(text, NULL, 10);
    return pid > 1 && pid <= INT_MAX && sibling_is((pid_t) pid) ? (pid_t) pid : 0;
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
