/* spawn_tree: finding every process of an attempt, to signal it or to know that none is left.
 *
 * Membership: the root; its process group and session; whoever descends from a member; orphans that
 * were re-parented to this process and carry the attempt's marker in their environment.
 * What it is not: proof against a job that tries to escape; that is the sandbox's work.
 * Bounds: a table of the machine's processes, at most PROCESSES_MAX. */
#include "os/procstat.h"
#include "os/spawn.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PROCESSES_MAX 65536U
/* Rounds of looking again after SIGKILL: what a dying process forked meanwhile. */
#define EMPTY_ENVIRON_TRIES 200
#define KILL_ROUNDS_MAX 20U
/* An environment can be 2 MiB; the marker is looked for in all of it, a piece at a time. */
#define ENVIRON_PIECE_BYTES 8192U

struct process {
    pid_t pid;
    pid_t ppid;
    pid_t pgrp;
    pid_t session;
    bool member;
};

struct process_table {
    struct process *p; /* owned */
    size_t count;
    size_t cap;
};

static void table_done(struct process_table *t) {
    free(t->p);
    *t = (struct process_table){0};
}

static int table_add(struct process_table *t, const struct procstat_ids *ids) {
    if (t->count == t->cap) {
        size_t cap = t->cap ? t->cap * 2 : 256;
        struct process *p;

        if (cap > PROCESSES_MAX)
            return ERR_LIMIT;
        p = realloc(t->p, cap * sizeof(*p));
        if (!p)
            return -ENOMEM;
        t->p = p;
        t->cap = cap;
    }
    t->p[t->count++] = (struct process){
        .pid = ids->pid, .ppid = ids->ppid, .pgrp = ids->pgrp, .session = ids->session};
    return 0;
}

static int table_read(struct process_table *t) {
    DIR *dir = opendir("/proc");
    int r = 0;

    if (!dir)
        return -errno;
    t->count = 0;
    while (r == 0) {
        struct procstat_ids ids;
        const struct dirent *e;
        long pid;

        errno = 0;
        e = readdir(dir);
        if (!e) {
            r = -errno;
            break;
        }
        pid = strtol(e->d_name, NULL, 10);
        if (pid <= 0 || procstat_read_ids((pid_t) pid, &ids) < 0)
            continue; /* not a process, or gone meanwhile */
        if (ids.state != 'Z' && ids.state != 'X')
            r = table_add(t, &ids);
    }
    (void) closedir(dir);
    return r;
}

/* Does @fd, an environ file, hold the entry @marker exactly? Entries end with NUL. *ret_empty: it
 * holds nothing at all. */
static bool find_entry(int fd, const char *marker, bool *ret_empty) {
    size_t len = strlen(marker), matched = 0;
    char piece[ENVIRON_PIECE_BYTES];
    bool mismatch = false; /* in the entry that is being read */

    *ret_empty = true;
    for (;;) {
        ssize_t n = read(fd, piece, sizeof(piece));

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return !mismatch && matched == len && len > 0;
        *ret_empty = false;
        for (ssize_t i = 0; i < n; i++) {
            if (piece[i] == '\0') {
                if (!mismatch && matched == len)
                    return true;
                matched = 0;
                mismatch = false;
            } else if (!mismatch && matched < len && piece[i] == marker[matched]) {
                matched++;
            } else {
                mismatch = true;
            }
        }
    }
}

/* In the middle of an execve a process has no environment yet: an orphan of the tree looked at just
 * then would be taken for a stranger and live on. An empty answer is therefore asked again. */
static bool has_marker(pid_t pid, const char *marker) {
    char path[48];
    bool found = false, empty = true;

    (void) snprintf(path, sizeof(path), "/proc/%d/environ", (int) pid);
    for (unsigned tries = 0; empty && tries < EMPTY_ENVIRON_TRIES; tries++) {
        int fd = open(path, O_RDONLY | O_CLOEXEC);

        if (fd < 0)
            return false;
        found = find_entry(fd, marker, &empty);
        (void) close(fd);
        if (empty)
            (void) sched_yield();
    }
    return found;
}

static struct process *table_find(const struct process_table *t, pid_t pid) {
    for (size_t i = 0; i < t->count; i++) {
        if (t->p[i].pid == pid)
            return &t->p[i];
    }
    return NULL;
}

/* Mark the tree's members, never this process; returns how many. */
static size_t mark(struct process_table *t, const struct spawn_tree *tree) {
    pid_t self = getpid();
    size_t members = 0;
    bool changed = true;

    for (size_t i = 0; i < t->count; i++) {
        struct process *p = &t->p[i];

        p->member = p->pid != self &&
                    (p->pid == tree->root || p->pgrp == tree->root || p->session == tree->root ||
                     (p->ppid == self && has_marker(p->pid, tree->marker)));
        members += p->member;
    }
    while (changed) { /* one more generation each time */
        changed = false;
        for (size_t i = 0; i < t->count; i++) {
            struct process *p = &t->p[i];
            const struct process *parent;

            if (p->member || p->pid == self)
                continue;
            parent = table_find(t, p->ppid);
            p->member = parent && parent->member;
            changed = changed || p->member;
            members += p->member;
        }
    }
    return members;
}

static void check_tree(const struct spawn_tree *t) {
    ASSERT(t);
    ASSERT(t->root > 1); /* kill(-1) would be everybody */
    ASSERT(t->marker && strchr(t->marker, '='));
}

/* Signal the members that their group's signal does not reach. Returns how many members were not
 * members in @before, which the caller signalled then. */
static size_t signal_members(const struct process_table *now, const struct process_table *before,
                             pid_t root, int sig) {
    size_t fresh = 0;

    for (size_t i = 0; i < now->count; i++) {
        const struct process *p = &now->p[i], *old;

        if (!p->member)
            continue;
        old = table_find(before, p->pid);
        fresh += !old || !old->member;
        /* The group has its signal already: a second SIGTERM may be taken for impatience. */
        if (p->pgrp != root)
            (void) kill(p->pid, sig);
    }
    return fresh;
}

int spawn_tree_kill(const struct spawn_tree *t, int sig) {
    struct process_table now = {0}, before = {0};
    size_t first = 0, fresh = 1;
    int r = 0;

    check_tree(t);
    for (unsigned round = 0; round < KILL_ROUNDS_MAX && fresh > 0; round++) {
        struct process_table swap = before;

        before = now;
        now = swap;
        /* Look before killing: the death of a parent breaks the chain to its children. */
        r = table_read(&now);
        (void) kill(-t->root, sig);
        if (r < 0)
            break;
        (void) mark(&now, t);
        fresh = signal_members(&now, &before, t->root, sig);
        if (round == 0)
            first = fresh;
        if (sig != SIGKILL)
            break;
    }
    table_done(&now);
    table_done(&before);
    return r < 0 ? r : (int) first;
}

/* The children of all threads of this process, as the kernel lists them ("12 34 "); calls back for
 * each. Positive 1 when the kernel has no such file. */
static int each_child(bool (*each)(void *arg, pid_t pid), void *arg) {
    DIR *dir = opendir("/proc/self/task");
    const struct dirent *e;
    int r = 0;

    if (!dir)
        return -errno;
    while (r == 0 && (e = readdir(dir)) != NULL) {
        char path[300];
        FILE *f;
        long pid;

        if (e->d_name[0] == '.')
            continue;
        (void) snprintf(path, sizeof(path), "/proc/self/task/%s/children", e->d_name);
        f = fopen(path, "re");
        if (!f) {
            r = errno == ENOENT && access("/proc/self/task", F_OK) == 0 ? 1 : -errno;
            break;
        }
        while (fscanf(f, "%ld", &pid) == 1) {
            if (!each(arg, (pid_t) pid))
                break;
        }
        (void) fclose(f);
    }
    (void) closedir(dir);
    return r;
}

struct alive_search {
    const struct spawn_tree *tree;
    bool (*is_known)(void *arg, pid_t pid);
    void *arg;
    bool suspicious;
};

static bool look_at_child(void *arg, pid_t pid) {
    struct alive_search *s = (struct alive_search *) arg;

    s->suspicious = !s->is_known(s->arg, pid);
    return !s->suspicious;
}

int spawn_tree_alive(const struct spawn_tree *t, bool (*is_known)(void *arg, pid_t pid),
                     void *arg) {
    struct alive_search s = {.tree = t, .is_known = is_known, .arg = arg};
    struct process_table table = {0};
    int r;

    check_tree(t);
    ASSERT(is_known);
    if (kill(-t->root, 0) == 0 || errno == EPERM)
        return 1;
    r = each_child(look_at_child, &s);
    if (r < 0)
        return r;
    if (r == 0 && !s.suspicious)
        return 0;
    r = table_read(&table);
    if (r == 0)
        r = mark(&table, t) > 0;
    table_done(&table);
    return r;
}
